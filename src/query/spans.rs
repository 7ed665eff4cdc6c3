//! The visible points of one partition, as disjoint spans of time.
//!
//! Streams are in order, so stream k alone has in-order points in `(last of k - 1, last of k]`. These spans, the first and the last
//! drawn out to the ends of the range, are read one by one and from both ends: the stream is decoded, cut to the
//! range and freed of what tombstones hide, and then merged with the side entries of its span, block by block, so that many side
//! entries are not all read at once.

use std::ops::Range;

use crate::error::Result;
use crate::m3tsz::{Decoder, ValueCoding};
use crate::mvcc::partition::{PartitionRef, StreamView, View};
use crate::mvcc::partition_map::Cover;
use crate::mvcc::side_reader::{SidePoint, SideReader};
use crate::mvcc::tombstones::Tombstones;
use crate::mvcc::transaction::Version;

use super::block::Block;
use super::source::Source;

/// Points are decoded this many at a time, so that a short range does not decode a whole stream behind it.
const STEP_POINTS: usize = 1_024;
/// About how many side entries the first block takes in. Often one point is all that is wanted.
const SIDE_ENTRIES_FIRST: usize = if cfg!(test) { 1 } else { 16 };
/// About how many a block takes in at the most; each has four times as many as the one before.
const SIDE_ENTRIES_MAX: usize = if cfg!(test) { 16 } else { 4_096 };

/// See the module.
#[derive(Debug)]
pub(crate) struct Spans {
    partition: PartitionRef,
    cover: Cover,
    /// How many in-order points of the partition are visible.
    points: u64,
    tombstones: Tombstones,
    /// The view's streams, and those of them not yet begun.
    all_streams: Range<usize>,
    streams: Range<usize>,
    /// The side entries not yet read, of all spans.
    side: SideReader,
    /// How many of them the next block takes in.
    side_entries: usize,
    /// The spans begun, which may be read on from the other end when no stream is left.
    front: Option<Span>,
    back: Option<Span>,
    /// The span of the stream that was last found damaged.
    lost: Option<Cover>,
}

/// A span that was begun. Its side entries are still with those of all spans.
#[derive(Debug)]
struct Span {
    cover: Cover,
    /// The visible points of its stream; if a tombstone hides some, they are gone already.
    stream: Block,
    /// Which of them are in the range and not yet read.
    left: Range<usize>,
}

impl Spans {
    /// What a snapshot at `version` sees of a partition within `cover`; `None` if nothing.
    pub(crate) fn new(partition: &PartitionRef, version: Version, cover: Cover) -> Option<Self> {
        let View { points, cover, streams, side, tombstones } = partition.view(version, cover)?;
        let no_stream = streams.is_empty().then(|| Span::without_points(cover));
        Some(Spans {
            partition: partition.clone(),
            cover,
            points,
            all_streams: streams.clone(),
            streams,
            side: SideReader::new(side, tombstones.clone()),
            side_entries: SIDE_ENTRIES_FIRST,
            tombstones,
            front: no_stream,
            back: None,
            lost: None,
        })
    }

    /// The partition's tombstones that the snapshot sees. They hide what lies below the partition, too.
    pub(crate) fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    /// Whether one tombstone covers the whole range, so that nothing below the partition can be seen.
    pub(crate) fn hides_all_below(&self) -> bool {
        let stretch = self.tombstones.around(self.cover.first);
        stretch.deleted && stretch.range.has(self.cover.last)
    }

    /// Begins the span of a stream. If the stream is damaged, the span has its side entries alone.
    fn begin(&mut self, index: usize) -> (Span, Result<()>) {
        let Some(stream) = self.partition.stream(index, self.points) else {
            return (Span::without_points(self.cover), Ok(()));
        };
        let first = match stream.previous_last {
            // The stream has a later point, so this does not wrap.
            Some(last) if index > self.all_streams.start => last + 1,
            _ => self.cover.first,
        };
        let last = if index + 1 < self.all_streams.end { stream.last } else { self.cover.last };
        let mut span = Span::without_points(Cover { first, last });
        let decoded = self.decode(&stream).map(|points| {
            span = Span { left: points.within(self.cover), stream: points, ..span };
        });
        if decoded.is_err() {
            self.lost = Some(span.cover);
        }
        (span, decoded)
    }

    /// The visible points of a stream, those in the range and perhaps some around it.
    fn decode(&self, stream: &StreamView) -> Result<Block> {
        let mut block = Block::new();
        let piece = self.tombstones.around(stream.first.max(self.cover.first));
        let is_one_piece = piece.range.has(stream.last.min(self.cover.last));
        if is_one_piece && piece.points >= stream.before + stream.points {
            return Ok(block);
        }
        let bytes = stream.bytes.contiguous();
        let mut decoder = Decoder::new(&bytes, ValueCoding::IntOptimized);
        let mut left = usize::try_from(stream.points).unwrap_or(usize::MAX);
        while left > 0 && block.timestamps.last().is_none_or(|at| *at <= self.cover.last) {
            let Block { timestamps, values, annotations } = &mut block;
            let begin = timestamps.len();
            timestamps.resize(begin + left.min(STEP_POINTS), 0);
            values.resize(timestamps.len(), 0.0);
            let annotated = |index, bytes: &[u8]| annotations.push(((begin + index) as u32, bytes.into()));
            let step = decoder.decode_block(&mut timestamps[begin..], &mut values[begin..], annotated)?;
            timestamps.truncate(begin + step);
            values.truncate(begin + step);
            if step == 0 {
                break;
            }
            left -= step;
        }
        if is_one_piece && piece.points <= stream.before {
            return Ok(block);
        }
        let mut piece = piece;
        let mut kept = Block::new();
        let mut annotations = block.annotations.into_iter().peekable();
        for (index, (&at, &value)) in block.timestamps.iter().zip(&block.values).enumerate() {
            let annotation = annotations.next_if(|(at, _)| *at as usize == index).map(|(_, bytes)| bytes);
            if !piece.range.has(at) {
                piece = self.tombstones.around(at);
            }
            if stream.before + index as u64 >= piece.points {
                kept.push(at, value, annotation);
            }
        }
        Ok(kept)
    }
}

impl Iterator for Spans {
    type Item = Result<Block>;

    fn next(&mut self) -> Option<Result<Block>> {
        loop {
            let Some(span) = &mut self.front else {
                let Some(stream) = self.streams.next() else {
                    self.front = Some(self.back.take()?);
                    continue;
                };
                let (span, decoded) = self.begin(stream);
                self.front = Some(span);
                if let Err(error) = decoded {
                    return Some(Err(error));
                }
                continue;
            };
            let upto = span.cover.last;
            let (side, through) = self.side.front(upto, self.side_entries);
            self.side_entries = (4 * self.side_entries).min(SIDE_ENTRIES_MAX);
            let block = span.take(Cover { first: i64::MIN, last: through }, &side);
            if through == upto {
                self.front = None;
            }
            if block.len() > 0 {
                return Some(Ok(block));
            }
        }
    }
}

impl DoubleEndedIterator for Spans {
    fn next_back(&mut self) -> Option<Result<Block>> {
        loop {
            let Some(span) = &mut self.back else {
                let Some(stream) = self.streams.next_back() else {
                    self.back = Some(self.front.take()?);
                    continue;
                };
                let (span, decoded) = self.begin(stream);
                self.back = Some(span);
                if let Err(error) = decoded {
                    return Some(Err(error));
                }
                continue;
            };
            let from = span.cover.first;
            let (side, since) = self.side.back(from, self.side_entries);
            self.side_entries = (4 * self.side_entries).min(SIDE_ENTRIES_MAX);
            let block = span.take(Cover { first: since, last: i64::MAX }, &side);
            if since == from {
                self.back = None;
            }
            if block.len() > 0 {
                return Some(Ok(block));
            }
        }
    }
}

impl Source for Spans {
    fn lost(&self) -> Option<Cover> {
        self.lost
    }
}

impl Span {
    fn without_points(cover: Cover) -> Self {
        Span { cover, stream: Block::new(), left: 0..0 }
    }

    /// Takes the points left in `cover`, which reaches to one of the ends, and merges them with the side entries there.
    fn take(&mut self, cover: Cover, side: &[SidePoint]) -> Block {
        let times = &self.stream.timestamps[self.left.clone()];
        let begin = self.left.start + times.partition_point(|at| *at < cover.first);
        let end = self.left.start + times.partition_point(|at| *at <= cover.last);
        let taken = begin..end;
        if begin > self.left.start {
            self.left.end = begin;
        } else {
            self.left.start = end;
        }
        if side.is_empty() && taken.len() == self.stream.len() {
            self.left = 0..0;
            return std::mem::replace(&mut self.stream, Block::new());
        }
        let mut entries = Block::with_capacity(side.len());
        for point in side {
            let annotation = point.annotation.as_ref().map(|bytes| bytes.as_slice().into());
            entries.push(point.at, point.value, annotation);
        }
        if taken.is_empty() {
            return entries;
        }
        Block::overlaid((&self.stream, taken), (&entries, 0..entries.len()))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::source::checks::{self, Seen};
    use super::*;
    use crate::mvcc::marks::LiveVersions;
    use crate::mvcc::memory::Memory;
    use crate::mvcc::window::Window;
    use crate::planted::Planted;

    /// What is seen: value bits and annotation by time.
    type Points = BTreeMap<i64, (u64, Vec<u8>)>;

    #[derive(Clone, Debug)]
    enum Op {
        Append {
            at: i64,
            bits: u64,
            annotation: Vec<u8>,
        },
        /// So many points from a time on, at equal distances; backwards if negative.
        Burst {
            at: i64,
            step: i64,
            count: i64,
        },
        Delete(Cover),
    }

    /// One commit, and what readers do around it.
    #[derive(Clone, Debug)]
    struct Step {
        ops: Vec<Op>,
        /// Somebody takes a snapshot of what is published.
        hold: bool,
        /// The oldest held snapshot goes.
        release: bool,
        /// By how many versions publication may lag.
        lag: u64,
    }

    fn time() -> impl Strategy<Value = i64> {
        let near_ends = prop_oneof![Just(i64::MIN), Just(i64::MIN + 1), Just(i64::MAX - 1), Just(i64::MAX)];
        prop_oneof![12 => -60..60i64, 3 => -1_000..1_000i64, 1 => near_ends]
    }

    fn range() -> impl Strategy<Value = Cover> {
        let two = (time(), time()).prop_map(|(a, b)| Cover { first: a.min(b), last: a.max(b) });
        let short = (time(), 0..8i64).prop_map(|(a, n)| Cover { first: a, last: a.saturating_add(n) });
        let until = time().prop_map(|last| Cover { first: i64::MIN, last });
        prop_oneof![4 => two, 4 => short, 2 => until, 1 => Just(Cover::ALL)]
    }

    fn op() -> impl Strategy<Value = Op> {
        let bits = prop_oneof![any::<u64>(), (-9..9i32).prop_map(|x| f64::from(x).to_bits())];
        let annotation = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 1..4)];
        let append = (time(), bits, annotation);
        prop_oneof![
            5 => append.prop_map(|(at, bits, annotation)| Op::Append { at, bits, annotation }),
            4 => (time(), -3..9i64, 1..40i64).prop_map(|(at, step, count)| Op::Burst { at, step, count }),
            3 => range().prop_map(Op::Delete),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        let ops = prop::collection::vec(op(), 1..4);
        let (hold, release) = (prop::bool::weighted(0.3), prop::bool::weighted(0.2));
        (ops, hold, release, 0..3u64).prop_map(|(ops, hold, release, lag)| Step { ops, hold, release, lag })
    }

    fn apply(op: &Op, partition: &PartitionRef, model: &mut Points) {
        let mut partition = partition.lock();
        let mut append = |at, bits, annotation: &[u8]| {
            partition.append(at, f64::from_bits(bits), annotation);
            model.insert(at, (bits, annotation.to_vec()));
        };
        match op {
            Op::Append { at, bits, annotation } => append(*at, *bits, annotation),
            Op::Burst { at, step, count } => {
                for i in 0..*count {
                    append(at.saturating_add(i * step), (i as f64).to_bits(), b"");
                }
            }
            Op::Delete(range) => {
                partition.delete(*range, false);
                model.retain(|at, _| !range.has(*at));
            }
        }
    }

    /// As [`checks::read`]; nothing is damaged.
    fn read(spans: Option<Spans>, from_back: &[bool]) -> Vec<Seen> {
        let Some(spans) = spans else { return Vec::new() };
        let read = checks::read(spans, from_back);
        assert_eq!(read.lost, []);
        read.points
    }

    fn expected(model: Option<&Points>, cover: Cover) -> Vec<Seen> {
        let points = model.into_iter().flat_map(|points| points.range(cover.first..=cover.last));
        points.map(|(at, (bits, annotation))| (*at, *bits, annotation.clone())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        /// Whatever is written and deleted in whatever order, every live version reads what a map that was copied at its commit
        /// has, from both ends; a reader that began earlier goes on as if nothing had happened.
        #[test]
        fn every_live_version_reads_like_a_map(
            width in prop_oneof![Just(50i64), Just(400), Just(i64::MAX)],
            steps in prop::collection::vec(step(), 1..50),
            covers in prop::collection::vec(range(), 1..4),
            from_back in prop::collection::vec(any::<bool>(), 0..40),
        ) {
            let partition = PartitionRef::new(Window::new(width), Version(0), &Memory::default());
            let mut model = Points::new();
            let mut truth: Vec<Points> = vec![model.clone()];
            let mut published = Version(0);
            let mut held: Vec<Version> = Vec::new();
            let mut begun = Vec::new();
            let mut live = LiveVersions::default();
            for step in &steps {
                let version = Version(truth.len() as u64);
                step.ops.iter().for_each(|op| apply(op, &partition, &mut model));
                partition.lock().mark(version, &live, Planted::default());
                truth.push(model.clone());

                if step.hold {
                    held.push(published);
                    let cover = covers[truth.len() % covers.len()];
                    begun.push((published, cover, Spans::new(&partition, published, cover)));
                }
                if step.release && !held.is_empty() {
                    held.remove(0);
                }
                published = Version(version.0.saturating_sub(step.lag)).max(published);
                live = LiveVersions { published, held: held.clone() };
            }
            for version in held.iter().copied().chain((published.0..truth.len() as u64).map(Version)) {
                let model = truth.get(version.0 as usize);
                for cover in covers.iter().copied().chain([Cover::ALL]) {
                    for pattern in [&[][..], &[true; 2_000], &from_back] {
                        let points = read(Spans::new(&partition, version, cover), pattern);
                        prop_assert_eq!(points, expected(model, cover), "{:?} {:?}", version, cover);
                    }
                }
            }
            for (version, cover, spans) in begun {
                let points = read(spans, &from_back);
                prop_assert_eq!(points, expected(truth.get(version.0 as usize), cover), "{:?} begun", version);
            }
        }
    }

    #[test]
    fn a_rolling_delete_leaves_one_tombstone_and_old_snapshots_intact() {
        let partition = PartitionRef::new(Window::new(1_000), Version(0), &Memory::default());
        let held = Version(500);
        for now in 1..=5_000i64 {
            let version = Version(now as u64);
            let published = Version(version.0 - 1);
            let live = LiveVersions { published, held: if published > held { vec![held] } else { vec![] } };
            let mut partition = partition.lock();
            partition.append(now, now as f64, b"");
            partition.append(now - 50, -1.0, b"");
            partition.delete(Cover { first: i64::MIN, last: now - 100 }, false);
            partition.mark(version, &live, Planted::default());
            assert!(partition.usage().tombstones <= 1);
        }
        let times = |version: u64| -> Vec<i64> {
            let points = read(Spans::new(&partition, Version(version), Cover::ALL), &[true, false]);
            points.into_iter().map(|(at, ..)| at).collect()
        };
        assert_eq!(partition.lock().usage().tombstones, 1);
        assert_eq!(times(500), (401..=500).collect::<Vec<_>>());
        assert_eq!(times(5_000), (4_901..=5_000).collect::<Vec<_>>());
    }
}
