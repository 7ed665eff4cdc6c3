//! Marks: how much of a partition a snapshot sees.
//!
//! A partition's points only grow. A mark says how many there were after some commit, so the points of that commit and of all before
//! it are a prefix, and it has the tombstones of that moment. A snapshot at version S reads at the last mark at or before S.
//!
//! A mark m with successor n is dead iff n is published and no live version lies in `[m, n)`: then nobody reads at m, and nobody
//! ever will, since new snapshots are at least as new as what is published. Versions in flight need not be known for this: as long
//! as n is not published, m stays. A stale list of live versions only keeps more.

use smallvec::SmallVec;

use crate::planted::{Bug, Planted};

use super::tombstones::Tombstones;
use super::transaction::Version;

/// The lengths of a partition's parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    /// Points in the in-order streams, taken together.
    pub(crate) points: u64,
    /// Entries in the side buffer.
    pub(crate) side: u64,
}

/// What a version sees of a partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extent {
    pub(crate) lengths: Lengths,
    pub(crate) tombstones: Tombstones,
}

/// The extent after the commit with this version.
#[derive(Clone, Debug)]
struct Mark {
    version: Version,
    extent: Extent,
}

/// Which versions may still be read. Published after the transaction that it belongs to.
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveVersions {
    /// The newest published version; every later snapshot is at this or a newer one.
    pub(crate) published: Version,
    /// Older published versions that somebody still holds, ascending.
    pub(crate) held: Vec<Version>,
}

impl LiveVersions {
    /// Whether a reader may be at a version in `[from, to)`, where `to` is the next mark.
    fn needs(&self, from: Version, to: Version, planted: Planted) -> bool {
        if to > self.published && !planted.has(Bug::PruneUnpublished) {
            return true;
        }
        if planted.has(Bug::IgnoreHeldVersions) {
            return false;
        }
        let next_held = self.held.partition_point(|held| *held < from);
        self.held.get(next_held).is_some_and(|held| *held < to)
    }
}

/// The marks of one partition, ascending by version.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    /// Without old snapshots two: that of the last published commit, and that of one in flight.
    marks: SmallVec<[Mark; INLINE]>,
}

/// So many marks take no allocation.
const INLINE: usize = 2;
/// Below this many marks a full sweep is not worth it.
const SWEEP_MIN: usize = 8;

impl Marks {
    /// What a snapshot at `version` sees; `None` if nothing.
    pub(crate) fn at(&self, version: Version) -> Option<&Extent> {
        let after = self.marks.partition_point(|mark| mark.version <= version);
        after.checked_sub(1).map(|index| &self.marks[index].extent)
    }

    /// Notes the extent after the commit `version`, the newest so far, and forgets marks that nobody reads.
    ///
    /// Amortised constant time: the last two marks are looked at each time, all of them when there is no more room for another.
    pub(crate) fn set(&mut self, version: Version, extent: Extent, live: &LiveVersions, planted: Planted) {
        match self.marks.last_mut() {
            Some(newest) if newest.version == version => newest.extent = extent,
            _ => {
                if !planted.has(Bug::NeverPrune) {
                    self.prune(version, live, planted);
                }
                self.marks.push(Mark { version, extent });
            }
        }
    }

    /// Forgets marks that nobody reads when there is one more, of the version `next`.
    fn prune(&mut self, next: Version, live: &LiveVersions, planted: Planted) {
        // Between two commits usually one more version was published: the mark before the last one is the one that died.
        while let [.., older, newer] = self.marks.as_slice() {
            let dead = if !live.needs(newer.version, next, planted) {
                1
            } else if !live.needs(older.version, newer.version, planted) {
                2
            } else {
                break;
            };
            self.marks.remove(self.marks.len() - dead);
        }
        if let [only] = self.marks.as_slice()
            && !live.needs(only.version, next, planted)
        {
            self.marks.clear();
        }
        if self.marks.len() == self.marks.capacity().max(SWEEP_MIN) {
            self.sweep(next, live, planted);
        }
    }

    /// As [`Marks::prune`], all of them. Leaves so much room that the next sweep is as far away as this one was long.
    #[cold]
    fn sweep(&mut self, mut next: Version, live: &LiveVersions, planted: Planted) {
        let room = self.marks.capacity();
        // From the newest to the oldest, and in place: the kept ones gather at the end.
        let mut kept = self.marks.len();
        for place in (0..self.marks.len()).rev() {
            let version = self.marks[place].version;
            if live.needs(version, next, planted) {
                next = version;
                kept -= 1;
                self.marks.swap(place, kept);
            }
        }
        self.marks.drain(..kept);
        match self.marks.len() {
            0..=INLINE => self.marks.shrink_to_fit(),
            left if left > room / 2 => self.marks.reserve(room),
            _ => {}
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.marks.len()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extent(points: u64) -> Extent {
        Extent { lengths: Lengths { points, side: 0 }, ..Extent::default() }
    }

    fn points_at(marks: &Marks, version: Version) -> Option<u64> {
        marks.at(version).map(|extent| extent.lengths.points)
    }

    #[test]
    fn a_snapshot_older_than_the_first_mark_sees_nothing() {
        let mut marks = Marks::default();
        marks.set(Version(5), extent(1), &LiveVersions::default(), Planted::default());
        assert_eq!(points_at(&marks, Version(4)), None);
        assert_eq!(points_at(&marks, Version(5)), Some(1));
        assert_eq!(points_at(&marks, Version(9)), Some(1));
    }

    #[test]
    fn without_old_snapshots_few_marks_remain() {
        let mut marks = Marks::default();
        for version in 1..10_000 {
            let live = LiveVersions { published: Version(version - 1), held: Vec::new() };
            marks.set(Version(version), extent(version), &live, Planted::default());
            assert!(marks.len() <= 3, "{} marks at {version}", marks.len());
        }
    }

    #[test]
    fn marks_of_released_snapshots_go() {
        let mut marks = Marks::default();
        for version in 1..=1_000u64 {
            let held = (1..version.saturating_sub(1)).map(Version).collect();
            let live = LiveVersions { published: Version(version - 1), held };
            marks.set(Version(version), extent(version), &live, Planted::default());
        }
        assert!(marks.len() > 900);
        for version in 1_001..=4_000u64 {
            let live = LiveVersions { published: Version(version - 1), held: Vec::new() };
            marks.set(Version(version), extent(version), &live, Planted::default());
        }
        assert!(marks.len() <= 3, "{}", marks.len());
    }

    proptest! {
        /// Whatever is held, every live version and every later one keeps seeing what it saw.
        #[test]
        fn no_live_version_loses_its_prefix(
            commits in prop::collection::vec((any::<bool>(), 0u64..6, any::<bool>()), 1..120),
        ) {
            let mut marks = Marks::default();
            let mut truth: Vec<(Version, u64)> = Vec::new();
            let mut held: Vec<Version> = Vec::new();
            let mut published = Version(0);
            for (i, (touches, lag, hold)) in commits.into_iter().enumerate() {
                let version = Version(i as u64 + 1);
                let live = LiveVersions { published, held: held.clone() };
                if touches {
                    marks.set(version, extent(version.0), &live, Planted::default());
                    truth.push((version, version.0));
                }
                let next = Version(version.0.saturating_sub(lag)).max(published);
                if hold && next > published {
                    held.push(published);
                } else if !held.is_empty() && i % 3 == 0 {
                    held.remove(i % held.len());
                }
                published = next;
                for reader in held.iter().copied().chain((published.0..=version.0).map(Version)) {
                    let expected = truth.iter().rev().find(|(v, _)| *v <= reader).map(|(_, points)| *points);
                    prop_assert_eq!(points_at(&marks, reader), expected, "at {:?}", reader);
                }
            }
        }
    }
}
