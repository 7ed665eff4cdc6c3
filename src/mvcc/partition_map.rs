//! Partition maps: which partition of a metric holds a timestamp.
//!
//! Invariants
//! * `splits` is strictly ascending and `slots.len() == splits.len() + 1`.
//! * Slot `i` covers `[splits[i - 1], splits[i])`; the two ends are open. The cover is total: every i64 has one slot.
//! * Neighbouring slots are not both empty.
//! * A published map is never modified: copy, edit, publish (`design/concurrency.md`, "Structure").
//!
//! The newest partition is open-ended: a metric that is only appended to never changes its map again.

use super::partition::PartitionRef;
use super::window::Window;

/// Split points and the slots between them.
#[derive(Clone, Debug)]
pub(crate) struct PartitionMap {
    splits: Vec<i64>,
    slots: Vec<Slot>,
}

/// What holds the points between two split points.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    /// In memory and writable.
    pub(crate) active: Option<PartitionRef>,
}

/// The times that a slot covers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

impl Default for PartitionMap {
    /// A metric without points: one empty slot.
    fn default() -> Self {
        PartitionMap { splits: Vec::new(), slots: vec![Slot::default()] }
    }
}

impl PartitionMap {
    /// The slot covering `at`: a binary search that always succeeds, since the cover is total.
    pub(crate) fn route(&self, at: i64) -> usize {
        debug_assert_eq!(self.slots.len(), self.splits.len() + 1);
        self.splits.partition_point(|split| *split <= at)
    }

    /// The writable partition covering `at`.
    #[cfg(test)]
    pub(crate) fn active(&self, at: i64) -> Option<&PartitionRef> {
        self.slots[self.route(at)].active.as_ref()
    }

    /// All slots, oldest first.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The times that slot `index` covers.
    pub(crate) fn cover(&self, index: usize) -> Cover {
        let first = index.checked_sub(1).map_or(i64::MIN, |before| self.splits[before]);
        // A split is above another or above i64::MIN, so one less does not wrap.
        let last = self.splits.get(index).map_or(i64::MAX, |split| split - 1);
        Cover { first, last }
    }

    /// Puts an active partition into the empty slot covering `at`. The newest partition takes all times from its window on; an
    /// older one only its window, as far as the slot reaches.
    pub(crate) fn insert(&mut self, at: i64, window: Window, partition: PartitionRef) {
        let index = self.route(at);
        debug_assert!(self.slots[index].active.is_none());
        let cover = self.cover(index);
        let block = window.of(at);
        let is_newest = index + 1 == self.slots.len();
        let first = block.first.max(cover.first);
        let last = if is_newest { cover.last } else { block.last.min(cover.last) };

        let mut slots = vec![Slot { active: Some(partition) }];
        let mut splits = Vec::new();
        if cover.first < first {
            slots.insert(0, Slot::default());
            splits.push(first);
        }
        if last < cover.last {
            slots.push(Slot::default());
            splits.push(last + 1);
        }
        self.slots.splice(index..=index, slots);
        self.splits.splice(index..index, splits);
        self.check();
    }

    /// Empties the slots that `keep` refuses, and joins empty neighbours.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(Cover, &PartitionRef) -> bool) {
        for index in 0..self.slots.len() {
            let cover = self.cover(index);
            let slot = &mut self.slots[index];
            if slot.active.as_ref().is_some_and(|partition| !keep(cover, partition)) {
                slot.active = None;
            }
        }
        let mut index = 1;
        while index < self.slots.len() {
            if self.slots[index].active.is_none() && self.slots[index - 1].active.is_none() {
                self.slots.remove(index);
                self.splits.remove(index - 1);
            } else {
                index += 1;
            }
        }
        self.check();
    }

    fn check(&self) {
        debug_assert_eq!(self.slots.len(), self.splits.len() + 1);
        debug_assert!(self.splits.is_sorted_by(|a, b| a < b));
        debug_assert!(
            !self.slots.windows(2).any(|pair| pair[0].active.is_none() && pair[1].active.is_none()),
            "empty neighbours"
        );
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000_000_000;

    fn window() -> Window {
        Window::new(2 * HOUR)
    }

    fn partition() -> PartitionRef {
        PartitionRef::new(window())
    }

    fn covers(map: &PartitionMap) -> Vec<(i64, i64, bool)> {
        (0..map.slots().len())
            .map(|i| (map.cover(i).first, map.cover(i).last, map.slots()[i].active.is_some()))
            .collect()
    }

    #[test]
    fn the_newest_partition_is_open_ended_and_older_ones_take_their_window() {
        let mut map = PartitionMap::default();
        map.insert(10 * HOUR, window(), partition());
        assert_eq!(covers(&map), [(i64::MIN, 10 * HOUR - 1, false), (10 * HOUR, i64::MAX, true)]);
        map.insert(5 * HOUR, window(), partition());
        assert_eq!(
            covers(&map),
            [
                (i64::MIN, 4 * HOUR - 1, false),
                (4 * HOUR, 6 * HOUR - 1, true),
                (6 * HOUR, 10 * HOUR - 1, false),
                (10 * HOUR, i64::MAX, true),
            ]
        );
    }

    #[test]
    fn emptied_slots_join() {
        let mut map = PartitionMap::default();
        for at in [10, 5, 7, 3] {
            map.insert(at * HOUR, window(), partition());
        }
        map.retain(|cover, _| cover.last < 4 * HOUR || cover.first >= 10 * HOUR);
        assert_eq!(map.slots().len(), 4);
        map.retain(|_, _| false);
        assert_eq!(covers(&map), [(i64::MIN, i64::MAX, false)]);
    }

    proptest! {
        #[test]
        fn every_time_has_one_slot_and_partitions_keep_their_times(
            steps in prop::collection::vec((any::<i64>().prop_flat_map(|x| prop_oneof![
                Just(x), -100..100i64, Just(i64::MIN), Just(i64::MAX), (-20..20i64).prop_map(|h| h * HOUR)]), any::<bool>()), 1..40),
        ) {
            let mut map = PartitionMap::default();
            for (at, remove) in steps {
                if remove {
                    map.retain(|cover, _| !(cover.first <= at && at <= cover.last));
                    prop_assert!(map.active(at).is_none());
                } else if map.active(at).is_none() {
                    let partition = partition();
                    map.insert(at, window(), partition.clone());
                    prop_assert!(map.active(at).is_some_and(|found| found.is(&partition)));
                }
                let covers = covers(&map);
                prop_assert_eq!(covers[0].0, i64::MIN);
                prop_assert_eq!(covers[covers.len() - 1].1, i64::MAX);
                prop_assert!(covers.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0));
            }
        }
    }
}
