//! What gives the blocks of one piece of time, from both ends.

use crate::error::Result;
use crate::mvcc::partition_map::Cover;

use super::block::Block;

/// Blocks of points within one piece of time.
///
/// From the front they ascend and from the back they descend; each is ascending in itself. However both ends are mixed, each point
/// comes once, and what comes from the front is earlier than all that comes from the back. An error comes once, in place of
/// points, and points and others may follow it.
pub(crate) trait Source: DoubleEndedIterator<Item = Result<Block>> {
    /// The times in which points may be missing because of the error that came last; none before there was one. They lie between what
    /// came from the front before the error, and what came from the back.
    fn lost(&self) -> Option<Cover>;
}

impl<S: Source> Source for &mut S {
    fn lost(&self) -> Option<Cover> {
        (**self).lost()
    }
}

/// One of the two ends of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Front,
    Back,
}

impl End {
    pub(super) fn other(self) -> End {
        match self {
            End::Front => End::Back,
            End::Back => End::Front,
        }
    }

    /// The next block at this end.
    pub(super) fn next(self, source: &mut impl Source) -> Option<Result<Block>> {
        match self {
            End::Front => source.next(),
            End::Back => source.next_back(),
        }
    }
}

#[cfg(all(test, not(loom)))]
pub(super) mod checks {
    //! What the tests of all sources share.

    use super::*;
    use crate::error::Error;
    use crate::m3tsz::{DecodeError, Decoder, Encoder, EncoderOptions, ValueCoding};
    use crate::query::sealed::Encoded;

    /// What is seen of a point: its time, the bits of its value, its annotation.
    pub(in crate::query) type Seen = (i64, u64, Vec<u8>);

    /// What was read of a source.
    #[derive(Debug, PartialEq)]
    pub(in crate::query) struct Read {
        pub(in crate::query) points: Vec<Seen>,
        /// What the source said of each error.
        pub(in crate::query) lost: Vec<Cover>,
    }

    impl Read {
        /// Checks that all points are among those that are `sound`, and that these are there but for where errors said they may be missing.
        pub(in crate::query) fn check_damaged(&self, sound: &[Seen]) {
            let wrong = self.points.iter().find(|(at, ..)| sound.binary_search_by_key(at, |p| p.0).is_err());
            assert_eq!(wrong, None);
            let mut points = self.points.iter().peekable();
            for point in sound {
                let found = points.next_if(|(at, ..)| *at == point.0);
                let is_lost = self.lost.iter().any(|range| range.has(point.0));
                assert!(found == Some(point) || found.is_none() && is_lost, "{point:?}, read {found:?}");
            }
        }
    }

    /// Reads blocks from the end that `from_back` says next, then from the front. What comes is checked to be as [`Source`] promises.
    pub(in crate::query) fn read(mut source: impl Source, from_back: &[bool]) -> Read {
        let (mut front, mut back, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        let mut from_back = from_back.iter().copied();
        loop {
            let is_back = from_back.next().unwrap_or(false);
            let block = if is_back { source.next_back() } else { source.next() };
            match block {
                Some(Ok(block)) if is_back => back.push(seen(&block)),
                Some(Ok(block)) => front.push(seen(&block)),
                Some(Err(_)) => {
                    let Cover { first, last } = source.lost().expect("there was an error");
                    assert!(front.last().and_then(|block| block.last()).is_none_or(|(at, ..)| *at < first));
                    assert!(back.last().and_then(|block| block.first()).is_none_or(|(at, ..)| *at > last));
                    lost.push(Cover { first, last });
                }
                None => break,
            }
        }
        assert!(source.next().is_none() && source.next_back().is_none());
        let points: Vec<Seen> = front.into_iter().chain(back.into_iter().rev()).flatten().collect();
        assert!(points.is_sorted_by(|a, b| a.0 < b.0), "{points:?}");
        Read { points, lost }
    }

    fn seen(block: &Block) -> Vec<Seen> {
        assert!(block.len() > 0 && block.values().len() == block.len());
        let mut annotations = block.annotations().iter().peekable();
        let mut points = Vec::new();
        for (index, (at, value)) in block.timestamps().iter().zip(block.values()).enumerate() {
            let annotation = annotations.next_if(|(at, _)| *at as usize == index);
            let annotation = annotation.map_or(Vec::new(), |(_, bytes)| bytes.to_vec());
            points.push((*at, value.to_bits(), annotation));
        }
        assert_eq!(annotations.next(), None, "each annotation has its point");
        points
    }

    /// An encoded stream that nobody else has.
    #[derive(Clone, Debug)]
    pub(in crate::query) struct Stream(pub(in crate::query) Vec<u8>);

    impl Stream {
        pub(in crate::query) fn of(points: &[Seen]) -> Stream {
            let mut bytes = Vec::new();
            if let Some((first, ..)) = points.first() {
                let mut encoder = Encoder::new(*first, EncoderOptions::default());
                for (at, bits, annotation) in points {
                    encoder.append(*at, f64::from_bits(*bits), annotation).expect("small gaps");
                }
                encoder.finish_into(&mut bytes);
            }
            Stream(bytes)
        }

        /// How many points come before damage, in whatever order.
        pub(in crate::query) fn sound_points(&self) -> usize {
            let mut decoder = Decoder::new(&self.0, ValueCoding::IntOptimized);
            std::iter::from_fn(|| decoder.next_point().map(|point| point.is_ok())).filter(|ok| *ok).count()
        }

        /// Whether it decodes.
        pub(in crate::query) fn is_sound(&self) -> bool {
            let mut decoder = Decoder::new(&self.0, ValueCoding::IntOptimized);
            std::iter::from_fn(|| decoder.next_point().map(|point| point.is_ok())).all(|ok| ok)
        }
    }

    impl Encoded for Stream {
        fn bytes(&self) -> &[u8] {
            &self.0
        }

        fn coding(&self) -> ValueCoding {
            ValueCoding::IntOptimized
        }

        fn damaged(&self, damage: DecodeError) -> Error {
            damage.into()
        }
    }
}
