//! Two sources of points over the same piece of time, the upper one over the lower one.
//!
//! At equal times the upper point wins, with its annotation or lack of one. What the upper's tombstones cover is hidden in the lower, however
//! little they hide in the upper.
//!
//! Of each source at most one block is held at each end, and a point of the lower one is passed on only when the upper one was asked for its
//! time. Where the upper one is damaged nobody knows what it hides: the lower one has no points there.

use std::ops::Range;

use crate::error::Result;
use crate::mvcc::partition_map::Cover;
use crate::mvcc::tombstones::{Tombstone, Tombstones};

use super::block::Block;
use super::source::{End, Source};

/// See the module.
#[derive(Debug)]
pub(crate) struct Overlaid<L, U> {
    lower: Held<L>,
    upper: Held<U>,
    /// What is hidden in the lower source: by the upper's tombstones, or because the upper is damaged there.
    hidden: Tombstones,
    lost: Option<Cover>,
}

/// A source, and what was taken from its ends and is not yet passed on.
#[derive(Debug)]
struct Held<S> {
    source: S,
    front: Option<Part>,
    back: Option<Part>,
}

/// What is left of a block: at least one point.
#[derive(Debug)]
struct Part {
    block: Block,
    left: Range<usize>,
}

impl<L: Source, U: Source> Overlaid<L, U> {
    /// Puts `upper` over `lower`; `tombstones` are the upper's, at the version that is read.
    pub(crate) fn new(lower: L, upper: U, tombstones: Tombstones) -> Self {
        Overlaid { lower: Held::new(lower), upper: Held::new(upper), hidden: tombstones, lost: None }
    }

    /// The lower source.
    pub(crate) fn lower(&mut self) -> &mut L {
        &mut self.lower.source
    }

    fn step(&mut self, end: End) -> Option<Result<Block>> {
        if let Err(error) = self.fetch(end) {
            return Some(Err(error));
        }
        let (lower, upper) = (self.lower.at(end), self.upper.at(end));
        let (low, up) = match (&mut *lower, &mut *upper) {
            (Some(low), Some(up)) => (low, up),
            (Some(_), None) => return lower.take().map(Part::into_block).map(Ok),
            (None, _) => return upper.take().map(Part::into_block).map(Ok),
        };
        let (low_cover, up_cover) = (low.cover(), up.cover());
        if !low_cover.overlaps(up_cover) {
            let is_lower = (low_cover.first < up_cover.first) == (end == End::Front);
            let nearer = if is_lower { lower } else { upper };
            return nearer.take().map(Part::into_block).map(Ok);
        }
        // Beyond this, one of the two has to be asked again.
        let known = match end {
            End::Front => Cover { first: i64::MIN, last: low_cover.last.min(up_cover.last) },
            End::Back => Cover { first: low_cover.first.max(up_cover.first), last: i64::MAX },
        };
        let (low_part, up_part) = (low.take(known), up.take(known));
        let merged = Block::overlaid((&low.block, low_part), (&up.block, up_part));
        lower.take_if(|part| part.left.is_empty());
        upper.take_if(|part| part.left.is_empty());
        Some(Ok(merged))
    }

    /// Takes a block of each source that has none at this end, the upper one first, as far as there are any.
    fn fetch(&mut self, end: End) -> Result<()> {
        if let Err(error) = self.upper.fetch(end, Some) {
            self.lost = self.upper.source.lost();
            let range = self.lost.unwrap_or(Cover::ALL);
            self.hidden.add(Tombstone { range, points: u64::MAX, side: u64::MAX });
            for held in [&mut self.lower.front, &mut self.lower.back] {
                *held = held.take().and_then(|part| part.visible(&self.hidden));
            }
            return Err(error);
        }
        self.lower.fetch(end, |part| part.visible(&self.hidden)).inspect_err(|_| {
            self.lost = self.lower.source.lost();
        })
    }
}

impl<S: Source> Held<S> {
    fn new(source: S) -> Self {
        Held { source, front: None, back: None }
    }

    fn at(&mut self, end: End) -> &mut Option<Part> {
        match end {
            End::Front => &mut self.front,
            End::Back => &mut self.back,
        }
    }

    /// Sees to it that a block is held at this end, if there is one that `visible` leaves something of: the source's next, else what is
    /// held at the other end.
    fn fetch(&mut self, end: End, visible: impl Fn(Part) -> Option<Part>) -> Result<()> {
        while self.at(end).is_none() {
            match end.next(&mut self.source) {
                Some(block) => *self.at(end) = visible(Part::from(block?)),
                None => {
                    *self.at(end) = self.at(end.other()).take();
                    break;
                }
            }
        }
        Ok(())
    }
}

impl From<Block> for Part {
    fn from(block: Block) -> Self {
        let left = 0..block.len();
        Part { block, left }
    }
}

impl Part {
    /// From its first to its last point.
    fn cover(&self) -> Cover {
        let times = &self.block.timestamps;
        Cover { first: times[self.left.start], last: times[self.left.end - 1] }
    }

    /// Takes the places of what is left in `cover`, which reaches to one of the ends.
    fn take(&mut self, cover: Cover) -> Range<usize> {
        let times = &self.block.timestamps[self.left.clone()];
        let begin = self.left.start + times.partition_point(|at| *at < cover.first);
        let end = self.left.start + times.partition_point(|at| *at <= cover.last);
        if begin > self.left.start {
            self.left.end = begin;
        } else {
            self.left.start = end;
        }
        begin..end
    }

    /// What is left of it and not hidden by tombstones.
    fn visible(self, tombstones: &Tombstones) -> Option<Part> {
        let Cover { first, last } = self.cover();
        let stretch = tombstones.around(first);
        if stretch.range.has(last) {
            return (!stretch.deleted).then_some(self);
        }
        let Part { block, mut left } = self;
        let mut kept = Block::new();
        while let Some(&at) = block.timestamps[left.clone()].first() {
            let stretch = tombstones.around(at);
            let times = &block.timestamps[left.clone()];
            let end = left.start + times.partition_point(|at| *at <= stretch.range.last);
            if !stretch.deleted {
                kept.push_part(&block, left.start..end);
            }
            left.start = end;
        }
        (kept.len() > 0).then(|| kept.into())
    }

    fn into_block(self) -> Block {
        self.block.into_part(self.left)
    }
}

impl<L: Source, U: Source> Iterator for Overlaid<L, U> {
    type Item = Result<Block>;

    fn next(&mut self) -> Option<Result<Block>> {
        self.step(End::Front)
    }
}

impl<L: Source, U: Source> DoubleEndedIterator for Overlaid<L, U> {
    fn next_back(&mut self) -> Option<Result<Block>> {
        self.step(End::Back)
    }
}

impl<L: Source, U: Source> Source for Overlaid<L, U> {
    fn lost(&self) -> Option<Cover> {
        self.lost
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;

    use super::super::source::checks::{self, Seen};
    use super::*;
    use crate::error::Error;
    use crate::m3tsz::{DecodeError, DecodeErrorKind};

    /// Blocks at hand, and times that are damaged in place of some.
    #[derive(Debug, Default)]
    struct Blocks {
        items: VecDeque<Result<Block, Cover>>,
        lost: Option<Cover>,
        /// How often it was asked.
        asked: usize,
    }

    impl Blocks {
        fn item(&mut self, item: Option<Result<Block, Cover>>) -> Option<Result<Block>> {
            self.asked += 1;
            item.map(|item| {
                item.map_err(|lost| {
                    self.lost = Some(lost);
                    Error::Decode(DecodeError { bit: 0, kind: DecodeErrorKind::Truncated })
                })
            })
        }
    }

    impl Iterator for Blocks {
        type Item = Result<Block>;

        fn next(&mut self) -> Option<Result<Block>> {
            let item = self.items.pop_front();
            self.item(item)
        }
    }

    impl DoubleEndedIterator for Blocks {
        fn next_back(&mut self) -> Option<Result<Block>> {
            let item = self.items.pop_back();
            self.item(item)
        }
    }

    impl Source for Blocks {
        fn lost(&self) -> Option<Cover> {
            self.lost
        }
    }

    /// A stack as high as it has to be.
    enum Layers {
        One(Blocks),
        Over(Box<Overlaid<Layers, Blocks>>),
    }

    impl Iterator for Layers {
        type Item = Result<Block>;

        fn next(&mut self) -> Option<Result<Block>> {
            match self {
                Layers::One(blocks) => blocks.next(),
                Layers::Over(layers) => layers.next(),
            }
        }
    }

    impl DoubleEndedIterator for Layers {
        fn next_back(&mut self) -> Option<Result<Block>> {
            match self {
                Layers::One(blocks) => blocks.next_back(),
                Layers::Over(layers) => layers.next_back(),
            }
        }
    }

    impl Source for Layers {
        fn lost(&self) -> Option<Cover> {
            match self {
                Layers::One(blocks) => blocks.lost(),
                Layers::Over(layers) => layers.lost(),
            }
        }
    }

    /// One layer: its points in blocks, and what it deletes below.
    #[derive(Clone, Debug)]
    struct Layer {
        points: BTreeMap<i64, (u64, Vec<u8>)>,
        /// The lengths of its blocks, over and over; in place of some there is damage.
        cuts: Vec<(usize, bool)>,
        deleted: Vec<Cover>,
    }

    impl Layer {
        fn blocks(&self) -> Blocks {
            let mut blocks = Blocks::default();
            let mut points = self.points.iter().peekable();
            for (len, is_damaged) in self.cuts.iter().cycle() {
                let mut block = Block::new();
                for (at, (bits, annotation)) in points.by_ref().take(*len) {
                    let annotation = (!annotation.is_empty()).then(|| annotation.as_slice().into());
                    block.push(*at, f64::from_bits(*bits), annotation);
                }
                let [first, .., last] = block.timestamps[..] else {
                    let [only] = block.timestamps[..] else { break };
                    let lost = Cover { first: only, last: only };
                    blocks.items.push_back(if *is_damaged { Err(lost) } else { Ok(block) });
                    continue;
                };
                blocks.items.push_back(if *is_damaged { Err(Cover { first, last }) } else { Ok(block) });
            }
            blocks
        }

        fn tombstones(&self) -> Tombstones {
            let mut tombstones = Tombstones::default();
            for range in &self.deleted {
                tombstones.add(Tombstone { range: *range, points: 0, side: 0 });
            }
            tombstones
        }
    }

    fn layer(damage: f64) -> impl Strategy<Value = Layer> {
        // Dense or sparse, anywhere.
        let times = (-150..150i64, 1..40i64, 0..60usize).prop_flat_map(|(begin, step, count)| {
            prop::collection::vec(1..=step, count).prop_map(move |steps| {
                let mut at = begin;
                steps
                    .into_iter()
                    .map(move |step| {
                        at += step;
                        at
                    })
                    .collect::<Vec<_>>()
            })
        });
        let annotation = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 1..3)];
        let points = (times, prop::collection::vec((any::<u64>(), annotation), 60))
            .prop_map(|(times, values)| times.into_iter().zip(values).collect());
        let cuts = prop::collection::vec((1..20usize, prop::bool::weighted(damage)), 1..6);
        let range = (-200..400i64, 0..120i64).prop_map(|(first, len)| Cover { first, last: first + len });
        let range = prop_oneof![9 => range, 1 => Just(Cover::ALL)];
        let deleted = prop::collection::vec(range, 0..4);
        (points, cuts, deleted).prop_map(|(points, cuts, deleted)| Layer { points, cuts, deleted })
    }

    fn stack(layers: &[Layer]) -> Layers {
        let bottom = Layers::One(layers[0].blocks());
        layers[1..].iter().fold(bottom, |below, layer| {
            Layers::Over(Box::new(Overlaid::new(below, layer.blocks(), layer.tombstones())))
        })
    }

    fn expected(layers: &[Layer]) -> Vec<Seen> {
        let mut seen: BTreeMap<i64, (u64, Vec<u8>)> = BTreeMap::new();
        for layer in layers {
            seen.retain(|at, _| !layer.deleted.iter().any(|range| range.has(*at)));
            seen.extend(layer.points.clone());
        }
        seen.into_iter().map(|(at, (bits, annotation))| (at, bits, annotation)).collect()
    }

    fn patterns() -> impl Strategy<Value = Vec<bool>> {
        prop::collection::vec(any::<bool>(), 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn the_uppermost_point_of_each_time_counts(
            layers in prop::collection::vec(layer(0.0), 1..5), from_back in patterns(),
        ) {
            for pattern in [&[][..], &[true; 1_000], &from_back] {
                let read = checks::read(stack(&layers), pattern);
                prop_assert_eq!(read.points, expected(&layers));
                prop_assert_eq!(read.lost, []);
            }
        }

        /// Where a layer is damaged nothing below shines through; elsewhere all points come, and each damage is told once.
        #[test]
        fn damage_takes_points_away_and_changes_none(
            layers in prop::collection::vec(layer(0.2), 1..5), from_back in patterns(),
        ) {
            let damages = layers.iter().map(|layer| layer.blocks().items.iter().filter(|item| item.is_err()).count());
            let damages: usize = damages.sum();
            for pattern in [&[][..], &[true; 1_000], &from_back] {
                let read = checks::read(stack(&layers), pattern);
                prop_assert_eq!(read.lost.len(), damages);
                read.check_damaged(&expected(&layers));
            }
        }
    }

    fn block(times: impl Iterator<Item = i64>) -> Block {
        let mut block = Block::new();
        times.for_each(|at| block.push(at, 0.0, None));
        block
    }

    #[test]
    fn a_block_that_the_other_source_does_not_touch_is_passed_on_as_it_is() {
        let dense: Vec<Block> = (0..5).map(|i| block(100 * i..100 * (i + 1))).collect();
        let columns: Vec<*const i64> = dense.iter().map(|block| block.timestamps.as_ptr()).collect();
        let lower = Blocks { items: dense.into_iter().map(Ok).collect(), ..Blocks::default() };
        let upper = Blocks { items: [Ok(block([250].into_iter()))].into(), ..Blocks::default() };
        let mut overlaid = Overlaid::new(lower, upper, Tombstones::default());
        let mut passed =
            |end: End| end.next(&mut overlaid).expect("more").expect("sound").timestamps.as_ptr();
        assert_eq!(
            [End::Front, End::Back, End::Back, End::Front].map(&mut passed),
            [0, 4, 3, 1].map(|i| columns[i])
        );
        let merged: Vec<usize> = overlaid.map(|block| block.expect("sound").len()).collect();
        assert_eq!(merged.iter().sum::<usize>(), 100);
    }

    #[test]
    fn each_end_holds_one_block_of_each_source() {
        let blocks = || Blocks {
            items: (0..50).map(|i| Ok(block(10 * i..10 * i + 5))).collect(),
            ..Blocks::default()
        };
        let mut overlaid = Overlaid::new(blocks(), blocks(), Tombstones::default());
        for (end, asked) in
            [(End::Front, 1), (End::Front, 2), (End::Back, 3), (End::Front, 4), (End::Back, 5)]
        {
            assert_eq!(end.next(&mut overlaid).expect("more").expect("sound").len(), 5);
            assert_eq!((overlaid.lower.source.asked, overlaid.upper.source.asked), (asked, asked));
        }
    }
}
