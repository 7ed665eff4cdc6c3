//! Bases: the sealed blocks of a metric, and the volumes that hold them.
//!
//! All metrics of a shard that lived when its blocks were sealed have the same ones, so they share one base: a million metrics with
//! a year of history take a base, and a reference each. A base is never modified.

use std::hash::{Hash, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::sealed::VolumeId;
use crate::sync::{Arc, Mutex};

use super::partition_map::Cover;

/// A block of time whose points are in a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SealedBlock {
    pub(crate) cover: Cover,
    pub(crate) volume: VolumeId,
}

/// Sealed blocks, disjoint and ascending; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base(Vec<SealedBlock>);

/// A reference to the sealed blocks of a metric; a metric without has none.
#[derive(Clone, Debug, Default)]
pub(crate) struct BaseRef(Option<Arc<Base>>);

impl BaseRef {
    /// These blocks; `None` if they are not disjoint and ascending.
    pub(crate) fn of(blocks: Vec<SealedBlock>) -> Option<BaseRef> {
        let sound = blocks.iter().all(|block| block.cover.first <= block.cover.last)
            && blocks.is_sorted_by(|one, next| one.cover.last < next.cover.first);
        sound.then(|| BaseRef((!blocks.is_empty()).then(|| Arc::new(Base(blocks)))))
    }

    /// The sealed blocks, oldest first.
    pub(crate) fn blocks(&self) -> &[SealedBlock] {
        self.0.as_ref().map_or(&[], |base| &base.0)
    }

    /// The sealed block that covers `at`, or the gap around it. A binary search.
    pub(crate) fn around(&self, at: i64) -> (Cover, Option<VolumeId>) {
        let blocks = self.blocks();
        let place = blocks.partition_point(|block| block.cover.last < at);
        match blocks.get(place) {
            Some(block) if block.cover.first <= at => (block.cover, Some(block.volume)),
            next => {
                // Neither end wraps: before the one and after the other block lies `at`.
                let before = place.checked_sub(1).map(|before| blocks[before].cover.last + 1);
                let last = next.map_or(i64::MAX, |next| next.cover.first - 1);
                (Cover { first: before.unwrap_or(i64::MIN), last }, None)
            }
        }
    }

    /// These blocks with another in place of those that it overlaps.
    fn with(&self, block: SealedBlock) -> BaseRef {
        let blocks = self.blocks();
        let begin = blocks.partition_point(|old| old.cover.last < block.cover.first);
        let end = blocks.partition_point(|old| old.cover.first <= block.cover.last);
        let mut new = Vec::with_capacity(blocks.len() + 1 - (end - begin));
        new.extend_from_slice(&blocks[..begin]);
        new.push(block);
        new.extend_from_slice(&blocks[end..]);
        BaseRef(Some(Arc::new(Base(new))))
    }

    /// Those of these blocks that `keep` accepts.
    pub(crate) fn filtered(&self, keep: impl Fn(&SealedBlock) -> bool) -> BaseRef {
        if self.blocks().iter().all(&keep) {
            return self.clone();
        }
        let left: Vec<SealedBlock> = self.blocks().iter().filter(|block| keep(block)).copied().collect();
        BaseRef((!left.is_empty()).then(|| Arc::new(Base(left))))
    }

    /// Whether both are one.
    pub(crate) fn is(&self, other: &BaseRef) -> bool {
        self.address() == other.address()
    }

    /// Where it lies, which tells it from all others that are alive; 0 for none.
    pub(crate) fn address(&self) -> usize {
        self.0.as_ref().map_or(0, |base| std::ptr::from_ref(&**base).addr())
    }
}

impl PartialEq for BaseRef {
    fn eq(&self, other: &Self) -> bool {
        self.blocks() == other.blocks()
    }
}

impl Eq for BaseRef {}

impl Hash for BaseRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.blocks().hash(state);
    }
}

/// The bases that one install has made so far, by those that they replace: so that metrics which shared a base share its successor.
///
/// A leaf lock.
#[derive(Debug, Default)]
pub(crate) struct Bases(Mutex<Successors>);

#[derive(Debug, Default)]
struct Successors {
    /// What the install does.
    change: Option<(Cover, Option<VolumeId>)>,
    /// By the address of what they replace, which is kept so that no other gets that address.
    made: HashMap<usize, (BaseRef, BaseRef), RandomState>,
    /// By what they are: a base that is equal is as good, whatever it comes from.
    equal: HashMap<BaseRef, BaseRef, RandomState>,
}

impl Bases {
    /// `base` with a volume's block in place of those that it overlaps; without a volume, just without those.
    pub(crate) fn successor(&self, base: &BaseRef, cover: Cover, volume: Option<VolumeId>) -> BaseRef {
        let mut successors = self.0.lock();
        let change = Some((cover, volume));
        if successors.change != change {
            *successors = Successors { change, ..Successors::default() };
        }
        if let Some((_, made)) = successors.made.get(&base.address()) {
            return made.clone();
        }
        let new = match volume {
            Some(volume) => base.with(SealedBlock { cover, volume }),
            None => base.filtered(|block| !block.cover.overlaps(cover)),
        };
        let new = successors.equal.entry(new.clone()).or_insert(new).clone();
        successors.made.insert(base.address(), (base.clone(), new.clone()));
        new
    }

    /// Forgets all, so that nothing is kept alive for nothing.
    pub(crate) fn forget(&self) {
        *self.0.lock() = Successors::default();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn block(first: i64, last: i64, volume: u32) -> SealedBlock {
        SealedBlock { cover: Cover { first, last }, volume: VolumeId(volume) }
    }

    #[test]
    fn blocks_are_found_and_gaps_between_them() {
        let base =
            BaseRef::default().with(block(10, 19, 1)).with(block(i64::MIN, -1, 2)).with(block(20, 29, 3));
        let around = |at| {
            let (cover, volume) = base.around(at);
            (cover.first, cover.last, volume.map(|volume| volume.0))
        };
        assert_eq!(around(i64::MIN), (i64::MIN, -1, Some(2)));
        assert_eq!(around(0), (0, 9, None));
        assert_eq!(around(10), (10, 19, Some(1)));
        assert_eq!(around(29), (20, 29, Some(3)));
        assert_eq!(around(30), (30, i64::MAX, None));
        assert_eq!(BaseRef::default().around(5), (Cover::ALL, None));
    }

    #[test]
    fn a_block_takes_the_place_of_those_it_overlaps() {
        let base = BaseRef::default().with(block(0, 9, 1)).with(block(10, 19, 2)).with(block(30, 39, 3));
        assert_eq!(base.with(block(0, 29, 4)).blocks(), [block(0, 29, 4), block(30, 39, 3)]);
        assert_eq!(base.with(block(10, 19, 5)).blocks()[1], block(10, 19, 5));
        let left = base.filtered(|block| block.volume != VolumeId(2));
        assert_eq!(left.blocks(), [block(0, 9, 1), block(30, 39, 3)]);
        assert!(base.filtered(|_| false).blocks().is_empty());
        assert!(base.filtered(|_| true).is(&base));
    }

    #[test]
    fn metrics_that_share_a_base_share_its_successor() {
        let bases = Bases::default();
        let old = BaseRef::default().with(block(0, 9, 1));
        let same = BaseRef::default().with(block(0, 9, 1));
        let add = |base: &BaseRef, first, volume| {
            bases.successor(base, Cover { first, last: first + 9 }, Some(VolumeId(volume)))
        };
        let new = add(&old, 10, 2);
        assert!(add(&old, 10, 2).is(&new));
        assert!(add(&same, 10, 2).is(&new), "equal ones become one");
        assert!(!add(&BaseRef::default(), 10, 2).is(&new));
        assert_eq!(add(&old, 20, 3).blocks(), [block(0, 9, 1), block(20, 29, 3)]);
        let remove = |base: &BaseRef, first, last| bases.successor(base, Cover { first, last }, None);
        assert_eq!(remove(&new, 0, 9).blocks(), [block(10, 19, 2)]);
        assert!(remove(&new, 0, 9).is(&remove(&new, 0, 9)));
        assert!(remove(&new, 20, 29).is(&new), "nothing to remove");
        assert!(remove(&new, 0, 29).blocks().is_empty());
    }
}
