//! Tombstones: what the deletes of a partition hide.
//!
//! A delete hides, in its range of time, what was there when it was made: so many in-order points and so many side entries. Both
//! numbers only grow, so where two deletes overlap the later one hides all that the earlier does, and alone counts.
//! Hence a new tombstone takes the place of what it covers, and a partition that is trimmed over and over has one.
//!
//! Besides, a tombstone hides all that lies below the partition in its range, also if it hides nothing within: the partition's own
//! points are always the newer ones.
//!
//! Invariants
//! * The ranges are disjoint and ascending, over all chunks; no chunk is empty.
//! * What somebody holds a clone of never changes. A mark holds one, so a snapshot's tombstones are those of its commit, whatever
//!   later ones replace.

use crate::sync::{Arc, make_mut};

use super::partition_map::Cover;

/// The most tombstones of one chunk. A delete copies the list of chunks, and a few of them.
const CHUNK_TOMBSTONES: usize = if cfg!(test) { 4 } else { 128 };

/// A range of time, and what is hidden in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    pub(crate) range: Cover,
    /// So many in-order points, counted over all streams of the partition.
    pub(crate) points: u64,
    /// So many side entries.
    pub(crate) side: u64,
}

/// Times of which the same is hidden: those of a tombstone, or a gap between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) range: Cover,
    /// So many in-order points are hidden; none in a gap.
    pub(crate) points: u64,
    /// So many side entries are hidden; none in a gap.
    pub(crate) side: u64,
    /// Whether all below the partition is hidden: whether this is no gap.
    pub(crate) deleted: bool,
}

/// See the module. A clone is a reference.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tombstones {
    /// Most partitions have none, and no allocation.
    chunks: Option<Arc<Vec<Arc<Vec<Tombstone>>>>>,
}

impl Tombstones {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.chunks().iter().map(|chunk| chunk.len()).sum()
    }

    /// All of them, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Tombstone> {
        self.chunks().iter().flat_map(|chunk| chunk.iter().copied())
    }

    /// About how many bytes they take in memory. Constant time.
    pub(crate) fn bytes(&self) -> u64 {
        let most = match self.chunks() {
            [] => 0,
            [only] => only.len(),
            chunks => chunks.len() * CHUNK_TOMBSTONES,
        };
        (most * size_of::<Tombstone>()) as u64
    }

    /// Adds a tombstone that hides at least as much as any before it. Earlier ones are trimmed to what it does not cover.
    pub(crate) fn add(&mut self, new: Tombstone) {
        let chunks = make_mut(self.chunks.get_or_insert_with(|| Arc::new(Vec::new())));
        // With the chunk before, so that a chunk fills up when its successor is rewritten.
        let begin = chunks.partition_point(|chunk| last_of(chunk) < new.range.first).saturating_sub(1);
        let end = chunks.partition_point(|chunk| chunk[0].range.first <= new.range.last);

        let old = || chunks[begin..end].iter().flat_map(|chunk| chunk.iter().copied());
        debug_assert!(old().all(|old| old.points <= new.points && old.side <= new.side));
        let Cover { first, last } = new.range;
        let before = old().filter(|old| old.range.first < first).map(|old| Tombstone {
            range: Cover { first: old.range.first, last: old.range.last.min(first - 1) },
            ..old
        });
        let after = old().filter(|old| old.range.last > last).map(|old| Tombstone {
            range: Cover { first: old.range.first.max(last + 1), last: old.range.last },
            ..old
        });
        let all: Vec<Tombstone> = before.chain(std::iter::once(new)).chain(after).collect();

        let pieces = all.len().div_ceil(CHUNK_TOMBSTONES);
        let cut = all.chunks(all.len().div_ceil(pieces)).map(|piece| Arc::new(piece.to_vec()));
        chunks.splice(begin..end, cut.collect::<Vec<_>>());
    }

    /// These tombstones, which are disjoint and ascending.
    pub(crate) fn of(tombstones: &[Tombstone]) -> Tombstones {
        let chunks = tombstones.chunks(CHUNK_TOMBSTONES).map(|chunk| Arc::new(chunk.to_vec()));
        Tombstones { chunks: (!tombstones.is_empty()).then(|| Arc::new(chunks.collect())) }
    }

    /// Those that `change` leaves, changed as it says; their ranges stay.
    pub(crate) fn map(&self, change: impl Fn(Tombstone) -> Option<Tombstone>) -> Tombstones {
        let mut chunks: Vec<Arc<Vec<Tombstone>>> = Vec::new();
        for chunk in self.chunks() {
            let left: Vec<Tombstone> = chunk.iter().copied().filter_map(&change).collect();
            if !left.is_empty() {
                chunks.push(Arc::new(left));
            }
        }
        Tombstones { chunks: (!chunks.is_empty()).then(|| Arc::new(chunks)) }
    }

    /// The stretch that `at` lies in: what holds for `at` holds for all of its range. Two binary searches.
    pub(crate) fn around(&self, at: i64) -> Stretch {
        let chunks = self.chunks();
        let place = chunks.partition_point(|chunk| last_of(chunk) < at);
        let (before, next) = match chunks.get(place) {
            Some(chunk) => {
                let index = chunk.partition_point(|tombstone| tombstone.range.last < at);
                (chunk[..index].last(), chunk.get(index))
            }
            None => (None, None),
        };
        if let Some(next) = next
            && next.range.first <= at
        {
            let Tombstone { range, points, side } = *next;
            return Stretch { range, points, side, deleted: true };
        }
        // Neither end wraps: before the one and after the other tombstone lies `at`.
        let before =
            before.map(|before| before.range.last).or_else(|| Some(last_of(chunks[..place].last()?)));
        let first = before.map_or(i64::MIN, |before| before + 1);
        let last = next.map_or(i64::MAX, |next| next.range.first - 1);
        Stretch { range: Cover { first, last }, points: 0, side: 0, deleted: false }
    }

    fn chunks(&self) -> &[Arc<Vec<Tombstone>>] {
        self.chunks.as_ref().map_or(&[], |chunks| chunks.as_slice())
    }
}

/// The last time that a chunk covers; chunks are not empty.
fn last_of(chunk: &[Tombstone]) -> i64 {
    chunk[chunk.len() - 1].range.last
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time() -> impl Strategy<Value = i64> {
        prop_oneof![8 => -30..30i64, 1 => Just(i64::MIN), 1 => Just(i64::MAX)]
    }

    proptest! {
        /// At every time the latest delete that covers it counts, also if it hides nothing within; clones stay as they were.
        #[test]
        fn the_latest_delete_counts(deletes in prop::collection::vec((time(), time()), 1..60)) {
            let mut tombstones = Tombstones::default();
            let mut clones = vec![tombstones.clone()];
            for (number, (a, b)) in (0..).zip(&deletes) {
                let range = Cover { first: *a.min(b), last: *a.max(b) };
                tombstones.add(Tombstone { range, points: number, side: 2 * number });
                clones.push(tombstones.clone());
            }
            for (made, tombstones) in clones.iter().enumerate() {
                for at in (-31..31).chain([i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX]) {
                    let latest = deletes[..made].iter().rposition(|(a, b)| a.min(b) <= &at && &at <= a.max(b));
                    let found = tombstones.around(at);
                    prop_assert_eq!(found.points, latest.map_or(0, |index| index as u64), "at {}", at);
                    prop_assert_eq!(found.deleted, latest.is_some(), "at {}", at);
                    prop_assert_eq!(found.side, 2 * found.points);
                    prop_assert!(found.range.has(at));
                    for other in [found.range.first, found.range.last] {
                        prop_assert_eq!(tombstones.around(other), found);
                    }
                }
                let all: Vec<Tombstone> = tombstones.chunks().iter().flat_map(|c| c.to_vec()).collect();
                prop_assert!(all.is_sorted_by(|a, b| a.range.last < b.range.first));
                prop_assert!(tombstones.chunks().iter().all(|c| (1..=CHUNK_TOMBSTONES).contains(&c.len())));
            }
        }
    }

    #[test]
    fn a_rolling_delete_leaves_one_tombstone() {
        let mut tombstones = Tombstones::default();
        for end in 0..1_000 {
            let range = Cover { first: i64::MIN, last: end };
            tombstones.add(Tombstone { range, points: end as u64, side: 0 });
            assert_eq!(tombstones.len(), 1);
        }
    }

    #[test]
    fn chunks_fill_up_whatever_the_order() {
        for step in [1, 7, 999] {
            let mut tombstones = Tombstones::default();
            for i in 0..1_000 {
                let at = i * step % 1_000 * 10;
                tombstones.add(Tombstone { range: Cover { first: at, last: at }, points: 1, side: 1 });
            }
            assert_eq!(tombstones.len(), 1_000);
            assert!(tombstones.chunks().len() <= 1_000 / (CHUNK_TOMBSTONES / 2), "step {step}");
        }
    }
}
