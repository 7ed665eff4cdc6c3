//! What the superblock names of a checkpoint, and the shapes of its trees. Format: `design/checkpoint.md`.

use crate::mvcc::transaction::Version;
use crate::tree::{Root, Shape};

/// Entries of metrics, by their numbers.
pub(super) const METRICS: Shape = Shape::new(1, 28);
/// Roots of bases, by their numbers.
pub(super) const BASES: Shape = Shape::new(2, 12);
/// The blocks of one base.
pub(super) const BLOCKS: Shape = Shape::new(3, 20);
/// Volumes, by their numbers.
pub(super) const VOLUMES: Shape = Shape::new(4, 48);
/// Bytes of the state.
pub(super) const STATE: Shape = Shape::new(5, 1);

/// A checkpoint, as the superblock knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roots {
    /// The state is that of this version.
    pub(crate) version: Version,
    /// The number of the names file, and how much of it counts, in bytes.
    pub(crate) names: (u64, u64),
    /// The number of the active file and its length in bytes; number 0 stands for no file: earlier builds wrote none if nothing was
    /// in memory.
    pub(crate) active: (u64, u64),
    pub(crate) metrics: Root,
    pub(crate) bases: Root,
    pub(crate) volumes: Root,
    pub(crate) state: Root,
}
