//! Reading: blocks and points of one metric in one snapshot, merged from all that holds them.
//!
//! * [`block`]: columns of consecutive points.
//! * [`spans`]: the points of one partition as disjoint spans of time, each read on its own.
//! * [`sealed`]: the points of one encoded stream.
//! * [`stack`]: the points of a sealed stream and of partitions that lie over it, laid one over the other by [`overlaid`]. What they
//!   have in common is a [`source`].
//! * [`cursor`]: [`Blocks`] and [`Range`] over all partitions, from both ends.
//!
//! Every lock that a cursor takes is a partition's, for as long as it takes to copy a stream's tail. Nothing is read before it is
//! asked for.

mod block;
mod cursor;
mod overlaid;
mod sealed;
mod source;
mod spans;
mod stack;

pub use block::{Block, Point};
#[cfg(loom)]
pub(crate) use cursor::Opened;
pub use cursor::{Blocks, Range};
#[cfg(loom)]
pub(crate) use sealed::{Encoded, Sealed};

use std::ops::{Bound, RangeBounds};

use crate::mvcc::partition_map::Cover;
use crate::time::Timestamp;

/// The times within bounds; `None` if there are none.
pub(crate) fn cover(bounds: &impl RangeBounds<Timestamp>) -> Option<Cover> {
    let first = match bounds.start_bound() {
        Bound::Included(at) => at.as_nanos(),
        Bound::Excluded(at) => at.as_nanos().checked_add(1)?,
        Bound::Unbounded => i64::MIN,
    };
    let last = match bounds.end_bound() {
        Bound::Included(at) => at.as_nanos(),
        Bound::Excluded(at) => at.as_nanos().checked_sub(1)?,
        Bound::Unbounded => i64::MAX,
    };
    (first <= last).then_some(Cover { first, last })
}
