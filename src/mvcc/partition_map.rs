//! Partition maps: what holds the points of a metric, at each time.
//!
//! A map is a *base*, the sealed blocks that equal metrics share, and the metric's own *layers*: its partitions in memory. A layer is a
//! range of time with a stack of partitions over it, the newest on top. (`design/sealing.md`, "What a metric's map consists of".)
//!
//! Invariants
//! * Layers are disjoint and ascending, and none is without a partition.
//! * A layer lies within one sealed block, or within none.
//! * A published map is never modified: copy, edit, publish (`design/concurrency.md`, "Structure").
//!
//! The newest layer is open-ended: a metric that is only appended to never changes its map again.

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use smallvec::{SmallVec, smallvec};

use super::base::BaseRef;
use super::partition::PartitionRef;
use super::window::Window;
use crate::sealed::VolumeId;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct PartitionMap {
    base: BaseRef,
    layers: SmallVec<[Layer; 1]>,
}

// Each metric has one.
#[cfg(not(loom))]
const _: () = assert!(size_of::<PartitionMap>() <= 64);

/// A range of time, and the partitions over it, from the bottom to the top. A partition may be in several layers: then each has a part
/// of what it holds.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) cover: Cover,
    pub(crate) stack: SmallVec<[PartitionRef; 1]>,
}

/// All that may hold points around some time: the same for each time in `cover`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) cover: Cover,
    /// The volume at the bottom, if the times are sealed.
    pub(crate) sealed: Option<VolumeId>,
    /// The partitions, from the bottom to the top.
    pub(crate) stack: &'a [PartitionRef],
}

/// A range of time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cover {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl Cover {
    /// All of time.
    pub(crate) const ALL: Cover = Cover { first: i64::MIN, last: i64::MAX };

    /// Whether `at` is in it.
    pub(crate) fn has(self, at: i64) -> bool {
        self.first <= at && at <= self.last
    }

    /// Whether any time is in both.
    pub(crate) fn overlaps(self, other: Cover) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether all of `other` is in here.
    pub(crate) fn contains(self, other: Cover) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// The times that are in both. They overlap.
    pub(crate) fn within(self, other: Cover) -> Cover {
        debug_assert!(self.overlaps(other));
        Cover { first: self.first.max(other.first), last: self.last.min(other.last) }
    }
}

impl PartitionMap {
    /// A map of sealed blocks and layers.
    ///
    /// # Errors
    /// They are not what a map has; the reason.
    pub(crate) fn restored(base: BaseRef, layers: SmallVec<[Layer; 1]>) -> Result<Self, &'static str> {
        let sound = |layer: &Layer| {
            layer.cover.first <= layer.cover.last
                && !layer.stack.is_empty()
                && base.around(layer.cover.first).0.contains(layer.cover)
        };
        if !layers.iter().all(sound) || !layers.is_sorted_by(|one, next| one.cover.last < next.cover.first) {
            return Err("layers that are not in order");
        }
        Ok(PartitionMap { base, layers })
    }

    /// What may hold points at `at` and around it. Two binary searches.
    pub(crate) fn piece(&self, at: i64) -> Piece<'_> {
        let (block, sealed) = self.base.around(at);
        match self.find(at) {
            Ok(place) => {
                let Layer { cover, stack } = &self.layers[place];
                debug_assert!(block.contains(*cover));
                Piece { cover: *cover, sealed, stack }
            }
            Err(place) => Piece { cover: self.gap(place).within(block), sealed, stack: &[] },
        }
    }

    /// The layer that covers `at`.
    pub(crate) fn layer(&self, at: i64) -> Option<&Layer> {
        self.find(at).ok().map(|place| &self.layers[place])
    }

    /// All layers, oldest first.
    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The sealed blocks.
    pub(crate) fn base(&self) -> &BaseRef {
        &self.base
    }

    /// All partitions, each once.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = &PartitionRef> {
        let mut seen: HashSet<usize, RandomState> = HashSet::default();
        let all = self.layers.iter().flat_map(|layer| &layer.stack);
        all.filter(move |partition| seen.insert(partition.address()))
    }

    /// Puts a partition over a time that no layer covers: over the gap within its sealed block; outside of sealed blocks over its window, and the newest
    /// takes all times from its window on.
    pub(crate) fn insert(&mut self, at: i64, window: Window, partition: PartitionRef) {
        let place = self.layers.partition_point(|layer| layer.cover.last < at);
        debug_assert!(self.find(at) == Err(place));
        let (block, sealed) = self.base.around(at);
        let gap = self.gap(place).within(block);
        let window = window.of(at);
        let cover = match sealed {
            Some(_) => gap,
            None if gap.last == i64::MAX => Cover { first: gap.first.max(window.first), last: gap.last },
            None => gap.within(window),
        };
        self.layers.insert(place, Layer { cover, stack: smallvec![partition] });
        self.check();
    }

    /// Puts a partition on top of a part of a layer.
    pub(crate) fn push(&mut self, part: Cover, partition: PartitionRef) {
        self.split(part);
        if let Ok(place) = self.find(part.first) {
            debug_assert_eq!(self.layers[place].cover, part);
            self.layers[place].stack.push(partition);
        }
        self.check();
    }

    /// Cuts layers at the ends of `part`.
    fn split(&mut self, part: Cover) {
        let begins = [Some(part.first), part.last.checked_add(1)];
        for begin in begins.into_iter().flatten() {
            if let Ok(place) = self.find(begin)
                && self.layers[place].cover.first < begin
            {
                let mut after = self.layers[place].clone();
                after.cover.first = begin;
                self.layers[place].cover.last = begin - 1;
                self.layers.insert(place + 1, after);
            }
        }
    }

    /// Whether any layer or sealed block lies in `range`, but for those that `stays` names.
    pub(crate) fn has_within(&self, range: Cover, stays: impl Fn(Cover) -> bool) -> bool {
        let layers = self.layers.iter().map(|layer| layer.cover);
        let blocks = self.base.blocks().iter().map(|block| block.cover);
        layers.chain(blocks).any(|cover| range.contains(cover) && !stays(cover))
    }

    /// Removes the layers and the sealed blocks that lie in `range`, but for those that `stays` names. A partition that is in other layers too is
    /// replaced there as by [`install`](Self::install).
    pub(crate) fn remove(
        &mut self,
        range: Cover,
        stays: impl Fn(Cover) -> bool,
        replaced: impl Fn(&PartitionRef, &[Cover]) -> Option<PartitionRef>,
    ) {
        let goes = |cover: Cover| range.contains(cover) && !stays(cover);
        let base = self.base.filtered(|block| !goes(block.cover));
        // What lies over a block that stays has to hide it.
        let mut gone: SmallVec<[PartitionRef; 2]> = SmallVec::new();
        self.layers.retain(|layer| {
            let remains = !goes(layer.cover) || base.around(layer.cover.first).1.is_some();
            if !remains {
                gone.extend(layer.stack.iter().cloned());
            }
            remains
        });
        self.base = base;
        self.replace(&gone, replaced);
        self.check();
    }

    /// Makes `block` sealed, or no longer, as `base` says: frozen partitions leave it. Outside of it a partition's place is taken by what `replaced` has for it, which
    /// is told all the times that are not the partition's any more: the block, and what layers that were removed covered.
    pub(crate) fn install(
        &mut self,
        block: Cover,
        base: BaseRef,
        is_frozen: impl Fn(&PartitionRef) -> bool,
        replaced: impl Fn(&PartitionRef, &[Cover]) -> Option<PartitionRef>,
    ) {
        self.base = base;
        self.split(block);
        let mut frozen: SmallVec<[PartitionRef; 2]> = SmallVec::new();
        for layer in self.layers.iter_mut().filter(|layer| block.contains(layer.cover)) {
            frozen.extend(layer.stack.iter().filter(|partition| is_frozen(partition)).cloned());
            layer.stack.retain(|partition| !is_frozen(partition));
        }
        self.replace(&frozen, replaced);
        self.check();
    }

    /// Puts what `replaced` has in the place of partitions that left some layer and are in others. Each is asked for once, with all the times that
    /// are not the partition's any more.
    fn replace(
        &mut self,
        partitions: &[PartitionRef],
        replaced: impl Fn(&PartitionRef, &[Cover]) -> Option<PartitionRef>,
    ) {
        for partition in partitions {
            let place = |layer: &Layer| layer.stack.iter().position(|other| other.is(partition));
            let gone =
                gaps(self.layers.iter().filter(|layer| place(layer).is_some()).map(|layer| layer.cover));
            if gone[..] == [Cover { first: i64::MIN, last: i64::MAX }] {
                continue;
            }
            let new = replaced(partition, &gone);
            for layer in &mut self.layers {
                match (place(layer), &new) {
                    (Some(place), Some(new)) => layer.stack[place] = new.clone(),
                    (Some(place), None) => drop(layer.stack.remove(place)),
                    (None, _) => {}
                }
            }
        }
        self.layers.retain(|layer| !layer.stack.is_empty());
    }

    /// The place of the layer that covers `at`, or where one would be.
    fn find(&self, at: i64) -> Result<usize, usize> {
        let place = self.layers.partition_point(|layer| layer.cover.last < at);
        match self.layers.get(place) {
            Some(layer) if layer.cover.first <= at => Ok(place),
            _ => Err(place),
        }
    }

    /// The times between the layers before and at `place`, which are apart.
    fn gap(&self, place: usize) -> Cover {
        let before = place.checked_sub(1).map(|before| self.layers[before].cover.last + 1);
        let last = self.layers.get(place).map_or(i64::MAX, |next| next.cover.first - 1);
        Cover { first: before.unwrap_or(i64::MIN), last }
    }

    fn check(&self) {
        debug_assert!(self.layers.windows(2).all(|pair| pair[0].cover.last < pair[1].cover.first));
        debug_assert!(self.layers.iter().all(|layer| !layer.stack.is_empty()));
        debug_assert!(
            self.layers.iter().all(|layer| self.base.around(layer.cover.first).0.contains(layer.cover))
        );
    }
}

/// All times but those of the covers, which are ascending and disjoint.
fn gaps(covers: impl Iterator<Item = Cover>) -> SmallVec<[Cover; 2]> {
    let mut gaps = SmallVec::new();
    let mut next = Some(i64::MIN);
    for cover in covers {
        if let Some(first) = next.filter(|first| *first < cover.first) {
            gaps.push(Cover { first, last: cover.first - 1 });
        }
        next = cover.last.checked_add(1);
    }
    gaps.extend(next.map(|first| Cover { first, last: i64::MAX }));
    gaps
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::base::Bases;
    use super::super::memory::Memory;
    use super::super::transaction::Version;
    use super::*;

    const HOUR: i64 = 3_600_000_000_000;

    fn window() -> Window {
        Window::new(2 * HOUR)
    }

    fn partition(born: u64) -> PartitionRef {
        PartitionRef::new(window(), Version(born), &Memory::default())
    }

    fn covers(map: &PartitionMap) -> Vec<(i64, i64, usize)> {
        map.layers().iter().map(|layer| (layer.cover.first, layer.cover.last, layer.stack.len())).collect()
    }

    fn sealed(map: &mut PartitionMap, first: i64, last: i64, volume: u32, freeze: u64) {
        let block = Cover { first, last };
        let base = Bases::default().successor(map.base(), block, Some(VolumeId(volume)));
        let born = |partition: &PartitionRef| partition.born();
        map.install(block, base, |p| born(p) <= Version(freeze), |p, _| Some(partition(born(p).0)));
    }

    #[test]
    fn the_newest_partition_is_open_ended_and_older_ones_take_their_window() {
        let mut map = PartitionMap::default();
        map.insert(10 * HOUR, window(), partition(1));
        assert_eq!(covers(&map), [(10 * HOUR, i64::MAX, 1)]);
        map.insert(5 * HOUR, window(), partition(1));
        assert_eq!(covers(&map), [(4 * HOUR, 6 * HOUR - 1, 1), (10 * HOUR, i64::MAX, 1)]);
    }

    #[test]
    fn a_sealed_block_splits_the_newest_partition() {
        let mut map = PartitionMap::default();
        map.insert(0, window(), partition(1));
        sealed(&mut map, 0, 2 * HOUR - 1, 7, 1);
        assert_eq!(covers(&map), [(2 * HOUR, i64::MAX, 1)]);
        let piece = map.piece(HOUR);
        assert_eq!((piece.cover.first, piece.cover.last), (0, 2 * HOUR - 1));
        assert_eq!((piece.sealed, piece.stack.len()), (Some(VolumeId(7)), 0));
        // A late point takes the whole block, and a second seal takes it away again.
        map.insert(HOUR, window(), partition(5));
        assert_eq!(covers(&map), [(0, 2 * HOUR - 1, 1), (2 * HOUR, i64::MAX, 1)]);
        sealed(&mut map, 0, 2 * HOUR - 1, 8, 5);
        assert_eq!(map.piece(HOUR).sealed, Some(VolumeId(8)));
        assert_eq!(covers(&map), [(2 * HOUR, i64::MAX, 1)]);
    }

    #[test]
    fn what_was_made_after_the_freeze_stays_on_top() {
        let mut map = PartitionMap::default();
        map.insert(0, window(), partition(1));
        map.push(Cover { first: 0, last: 2 * HOUR - 1 }, partition(9));
        assert_eq!(covers(&map), [(0, 2 * HOUR - 1, 2), (2 * HOUR, i64::MAX, 1)]);
        sealed(&mut map, 0, 2 * HOUR - 1, 7, 8);
        assert_eq!(covers(&map), [(0, 2 * HOUR - 1, 1), (2 * HOUR, i64::MAX, 1)]);
        assert_eq!(map.piece(0).stack[0].born(), Version(9));
    }

    #[test]
    fn a_partition_in_several_layers_is_replaced_in_all_by_one() {
        let mut map = PartitionMap::default();
        map.insert(0, window(), partition(1));
        map.push(Cover { first: 2 * HOUR, last: 4 * HOUR - 1 }, partition(9));
        assert_eq!(map.partitions().count(), 2);
        sealed(&mut map, 4 * HOUR, 6 * HOUR - 1, 7, 1);
        let bottoms: Vec<&PartitionRef> = map.layers().iter().map(|layer| &layer.stack[0]).collect();
        assert_eq!(bottoms.len(), 3);
        assert!(bottoms.iter().all(|bottom| bottom.is(bottoms[0])));
    }

    #[test]
    fn what_is_removed_is_wholly_in_the_range() {
        let mut map = PartitionMap::default();
        map.insert(0, window(), partition(1));
        sealed(&mut map, 0, 2 * HOUR - 1, 7, 1);
        map.insert(HOUR, window(), partition(5));
        let late = Cover { first: 0, last: 2 * HOUR - 1 };
        let range = Cover { last: HOUR, ..late };
        assert!(!map.has_within(range, |_| false));
        map.remove(range, |_| false, |old, _| Some(old.clone()));
        assert!(!map.has_within(late, |cover| cover == late), "who asks for it keeps it");
        map.remove(late, |cover| cover == late, |old, _| Some(old.clone()));
        assert_eq!((map.piece(0).sealed, map.piece(0).stack.len()), (Some(VolumeId(7)), 1));
        assert!(map.has_within(late, |_| false));
        map.remove(late, |_| false, |old, _| Some(old.clone()));
        assert_eq!((map.piece(0).sealed, map.piece(0).stack.len()), (None, 0));
        assert_eq!(covers(&map), [(2 * HOUR, i64::MAX, 1)]);
    }

    #[test]
    fn what_a_partition_has_outside_of_its_layers_goes_with_a_block() {
        let mut map = PartitionMap::default();
        map.insert(0, window(), partition(1));
        sealed(&mut map, 2 * HOUR, 4 * HOUR - 1, 7, 1);
        map.remove(Cover { first: 0, last: 2 * HOUR - 1 }, |_| false, |old, _| Some(old.clone()));
        let block = Cover { first: 6 * HOUR, last: 8 * HOUR - 1 };
        let base = Bases::default().successor(map.base(), block, Some(VolumeId(8)));
        let told = std::cell::RefCell::new(Vec::new());
        let replaced = |old: &PartitionRef, gone: &[Cover]| {
            told.borrow_mut().extend(gone.iter().map(|gone| (gone.first, gone.last)));
            Some(old.clone())
        };
        map.install(block, base, |_| true, replaced);
        assert_eq!(*told.borrow(), [(i64::MIN, 4 * HOUR - 1), (6 * HOUR, 8 * HOUR - 1)]);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(i64),
        Push(i64),
        Seal(i64, bool),
        Remove(i64, i64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let at = || prop_oneof![8 => -40 * HOUR..40 * HOUR, 1 => any::<i64>(), 1 => Just(i64::MIN), 1 => Just(i64::MAX)];
        prop_oneof![
            at().prop_map(Op::Insert),
            at().prop_map(Op::Push),
            (at(), any::<bool>()).prop_map(|(at, wide)| Op::Seal(at, wide)),
            (at(), at()).prop_map(|(a, b)| Op::Remove(a.min(b), a.max(b))),
        ]
    }

    proptest! {
        /// Pieces tile all of time, and at each time the map says what was last put there.
        #[test]
        fn the_pieces_say_what_was_done(ops in prop::collection::vec(op(), 1..40)) {
            let mut map = PartitionMap::default();
            // What is at the first time of each window that was touched: the volume, and how many partitions.
            let mut probes: BTreeMap<i64, Option<u32>> = BTreeMap::new();
            for (version, op) in (1..).zip(ops) {
                match op {
                    Op::Insert(at) if map.layer(at).is_none() => map.insert(at, window(), partition(version)),
                    Op::Push(at) if map.layer(at).is_some() => {
                        let part = map.piece(at).cover.within(window().of(at));
                        let height = map.piece(at).stack.len();
                        map.push(part, partition(version));
                        prop_assert_eq!(map.piece(at).stack.len(), height + 1);
                    }
                    Op::Insert(_) | Op::Push(_) => {}
                    Op::Seal(at, wide) => {
                        let block = if wide { Window::new(12 * HOUR).of(at) } else { window().of(at) };
                        let overlapping = map.base().blocks().iter().any(|old| {
                            old.cover.overlaps(block) && !block.contains(old.cover)
                        });
                        if !overlapping {
                            sealed(&mut map, block.first, block.last, version as u32, version);
                            probes.retain(|at, _| !block.has(*at));
                            probes.insert(block.first, Some(version as u32));
                            prop_assert!(map.layer(at).is_none());
                        }
                    }
                    Op::Remove(first, last) => {
                        let range = Cover { first, last };
                        let blocks: Vec<_> = map.base().blocks().to_vec();
                        map.remove(range, |_| false, |old, _| Some(old.clone()));
                        for block in blocks.iter().filter(|block| range.contains(block.cover)) {
                            probes.insert(block.cover.first, None);
                        }
                    }
                }
                let mut next = Some(i64::MIN);
                while let Some(at) = next {
                    let piece = map.piece(at);
                    prop_assert_eq!(piece.cover.first, at);
                    prop_assert_eq!(map.piece(piece.cover.last).cover, piece.cover);
                    next = piece.cover.last.checked_add(1);
                }
                for (at, volume) in &probes {
                    prop_assert_eq!(map.piece(*at).sealed.map(|volume| volume.0), *volume);
                }
            }
        }
    }
}
