//! The volumes of a database: where they lie, when their files are open, where in them a metric's points are, and when they go.
//!
//! A [`VolumeStore`] stands for the folder `data/`, a [`SealedVolume`] for one volume in it: which block of which shard it holds, as the log
//! tells, and its files, opened when they are first read. Transactions hold volumes; a snapshot that holds an old one can read it.
//!
//! What it guarantees
//! * Opening a volume holds up no reader of another one, and at most so many are kept open. A [`SealedStream`] keeps its volume's files
//!   itself: closing, replacing and removing the volume change nothing for it.
//! * The files of a volume are there until its last holder is gone, and after that as long as a power cut could bring back who needs them, or the last checkpoint
//!   names it: whoever removes knows up to which version neither is so.
//! * Removed is only what says that it is this database's.
//! * Damage is an error for what it hits, each time it is hit; nothing is remembered of a failed opening.
//!
//! What it relies on: one process has the database open, and two volumes of a block have different numbers as long as there are
//! files of either.
//!
//! Locks, in the order in which they are taken: the removal of files (over I/O); one for each volume's opening (over I/O); the list of open volumes; a
//! volume's slot in it. The list of superseded volumes and that of durable folders are taken alone. Dropping a volume takes the last three in memory only.
//!
//! Parts: `place` (folders and their names), `store`, `backup` (the same files in another folder), `sweep` (what a database finds in its folder at opening), `volume`, `gone` (how much of a volume is dead), `open_volumes` (which are
//! kept open). More: `design/sealing.md`.

mod backup;
mod gone;
mod open_volumes;
mod place;
mod store;
mod survey;
mod sweep;
#[cfg(test)]
mod tests;
mod volume;

pub(crate) use backup::Adopted;
pub(crate) use store::VolumeStore;
pub(crate) use survey::{FoundVolume, NamespaceLabel, survey};
pub(crate) use volume::{SealedStream, SealedVolume};

use crate::fileset::VolumeName;
use crate::mvcc::partition_map::Cover;
use crate::mvcc::transaction::Version;
use crate::names::NamespaceId;

/// A volume's number in its database: dense, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct VolumeId(pub(crate) u32);

/// What a volume holds, as the log tells: the points of one shard in one block, as of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockVolume {
    pub(crate) id: VolumeId,
    pub(crate) namespace: NamespaceId,
    pub(crate) shard: u32,
    /// The block. The first and the last of all time are shorter than their width.
    pub(crate) cover: Cover,
    /// How wide the blocks are that it is one of, in nanoseconds.
    pub(crate) width_ns: i64,
    /// Which volume of the block, as M3 counts: the highest is the one that counts. There may be gaps.
    pub(crate) number: u32,
    /// The version at which the points were frozen.
    pub(crate) freeze: Version,
    /// Whether there were none: then there are no files, and no transaction has the volume.
    pub(crate) is_empty: bool,
}

impl BlockVolume {
    /// Whether it is a later volume of times that `other` has too.
    pub(crate) fn is_after(&self, other: &BlockVolume) -> bool {
        self.id > other.id
            && (self.namespace, self.shard) == (other.namespace, other.shard)
            && self.cover.overlaps(other.cover)
    }

    /// Its name in the folder of its shard.
    fn name(&self) -> VolumeName {
        VolumeName { block_start: self.cover.first, volume: self.number }
    }

    /// The length of the block in nanoseconds.
    fn block_size_ns(&self) -> i64 {
        let length = i128::from(self.cover.last) - i128::from(self.cover.first) + 1;
        i64::try_from(length).unwrap_or(i64::MAX)
    }
}
