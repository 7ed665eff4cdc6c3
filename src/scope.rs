//! What to seal, and how far that is.

use std::ops::RangeBounds;

use crate::mvcc::partition_map::Cover;
use crate::names::Namespace;
use crate::query;
use crate::time::Timestamp;

/// Which blocks to seal or to refresh: all, or those that have times within a range, or those of a namespace.
///
/// ```
/// use chronolith::{SealScope, Timestamp};
///
/// let before_2024 = SealScope::all().within(..Timestamp::from_secs(1_704_067_200));
/// ```
#[derive(Clone, Debug)]
pub struct SealScope {
    /// `None` if no time is in it.
    range: Option<Cover>,
    namespace: Option<Namespace>,
}

/// How far sealing is: told before each block.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SealProgress {
    /// Blocks that were sealed.
    pub done: u64,
    /// Blocks that are to be sealed, those among them.
    pub blocks: u64,
    /// Points in the volumes that were written.
    pub points: u64,
    /// Whose block comes next.
    pub namespace: Namespace,
    /// Its shard: metrics are divided by a hash of their IDs.
    pub shard: u32,
    /// The first time of the block that comes next.
    pub first: Timestamp,
    /// Its last time.
    pub last: Timestamp,
}

impl SealScope {
    /// All blocks of all namespaces.
    pub fn all() -> Self {
        SealScope { range: Some(Cover::ALL), namespace: None }
    }

    /// Those of them that have times within the range. Blocks are sealed whole.
    #[must_use]
    pub fn within(mut self, range: impl RangeBounds<Timestamp>) -> Self {
        let range = query::cover(&range);
        let both = |(ours, range): (Cover, Cover)| ours.overlaps(range).then(|| ours.within(range));
        self.range = self.range.zip(range).and_then(both);
        self
    }

    /// Those of them that are of this namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &Namespace) -> Self {
        self.namespace = Some(namespace.clone());
        self
    }

    /// The only namespace, if there is one.
    pub(crate) fn only(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }

    /// Whether a block is in it.
    pub(crate) fn has(&self, namespace: &Namespace, block: Cover) -> bool {
        self.range.is_some_and(|range| block.overlaps(range))
            && self.namespace.as_ref().is_none_or(|only| only == namespace)
    }
}

impl Default for SealScope {
    fn default() -> Self {
        SealScope::all()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::database::Database;

    #[test]
    fn a_scope_has_the_blocks_of_its_range_and_namespace() {
        let db = Database::in_memory().expect("opens");
        let (default, other) = (db.default_namespace(), db.namespace("other").expect("made"));
        let block = Cover { first: 10, last: 19 };
        let within = |first: i64, end: i64| {
            SealScope::all().within(Timestamp::from_nanos(first)..Timestamp::from_nanos(end))
        };
        assert!(SealScope::all().has(&default, block) && SealScope::default().has(&other, block));
        assert!(within(19, 30).has(&default, block) && within(0, 11).has(&default, block));
        assert!(!within(20, 30).has(&default, block) && !within(0, 10).has(&default, block));
        assert!(!within(15, 15).has(&default, block), "no time at all");
        assert!(
            !within(0, 15).within(Timestamp::from_nanos(16)..).has(&default, block),
            "two that do not meet"
        );
        assert!(within(0, 15).namespace(&other).has(&other, block));
        assert!(!within(0, 15).namespace(&other).has(&default, block));
    }
}
