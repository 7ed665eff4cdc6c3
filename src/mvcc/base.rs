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
    #[cfg(test)]
    pub(crate) fn is(&self, other: &BaseRef) -> bool {
        self.address() == other.address()
    }

    /// Where it lies; 0 for none.
    fn address(&self) -> usize {
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
    block: Option<SealedBlock>,
    /// By the address of what they replace, which is kept so that no other gets that address.
    made: HashMap<usize, (BaseRef, BaseRef), RandomState>,
    /// By what they are: a base that is equal is as good, whatever it comes from.
    equal: HashMap<BaseRef, BaseRef, RandomState>,
}

impl Bases {
    /// `base` with a block in place of those that it overlaps.
    pub(crate) fn successor(&self, base: &BaseRef, block: SealedBlock) -> BaseRef {
        let mut successors = self.0.lock();
        if successors.block != Some(block) {
            *successors = Successors { block: Some(block), ..Successors::default() };
        }
        if let Some((_, made)) = successors.made.get(&base.address()) {
            return made.clone();
        }
        let new = base.with(block);
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
        let new = bases.successor(&old, block(10, 19, 2));
        assert!(bases.successor(&old, block(10, 19, 2)).is(&new));
        assert!(bases.successor(&same, block(10, 19, 2)).is(&new), "equal ones become one");
        assert!(!bases.successor(&BaseRef::default(), block(10, 19, 2)).is(&new));
        assert_eq!(bases.successor(&old, block(20, 29, 3)).blocks(), [block(0, 9, 1), block(20, 29, 3)]);
    }
}
