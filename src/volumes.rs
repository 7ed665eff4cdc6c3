//! The volumes that a snapshot reads, one by one: what they hold, how large they are, whether they are sound.

use crate::error::{Error, Result};
use crate::names::Namespace;
use crate::sealed::SealedVolume;
use crate::snapshot::Snapshot;
use crate::sync::Arc;
use crate::time::Timestamp;

/// A volume as a snapshot has it: the points of one shard of a namespace in one block of time, in files. Its files stay as long as this does.
#[derive(Clone, Debug)]
pub struct SnapshotVolume {
    volume: Arc<SealedVolume>,
    namespace: Namespace,
    /// Keeps the folder locked.
    _snapshot: Snapshot,
}

/// What is in a volume, as its supplement says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeContents {
    /// Metrics that have points in it.
    pub metrics: u64,
    /// Their points, as they were when it was written: those that were overwritten or deleted later count.
    pub points: u64,
    /// Bytes of their streams.
    pub stream_bytes: u64,
}

impl SnapshotVolume {
    /// None if the namespace is unknown, which does not happen: no log names volumes of a namespace that it did not make before.
    pub(crate) fn new(snapshot: &Snapshot, volume: &Arc<SealedVolume>) -> Option<Self> {
        let of = volume.block().namespace;
        let namespace = snapshot.namespaces().find(|namespace| namespace.id() == of)?;
        Some(SnapshotVolume { volume: volume.clone(), namespace, _snapshot: snapshot.clone() })
    }

    /// The namespace of its metrics.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The shard of its metrics.
    pub fn shard(&self) -> u32 {
        self.volume.block().shard
    }

    /// The first time of its block.
    pub fn first(&self) -> Timestamp {
        Timestamp::from_nanos(self.volume.block().cover.first)
    }

    /// The last time of its block.
    pub fn last(&self) -> Timestamp {
        Timestamp::from_nanos(self.volume.block().cover.last)
    }

    /// The sum of the lengths of its files, in bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// Cost: the first time, opening each of eight files.
    pub fn bytes(&self) -> Result<u64> {
        self.volume.bytes()
    }

    /// What is in it, without touching a stream.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::NewerFormat`] if its supplement is damaged, missing or newer, or it cannot be opened. [`Error::Io`].
    ///
    /// Cost: the first time, reading a table of 68 bytes for each metric.
    pub fn contents(&self) -> Result<VolumeContents> {
        self.volume.contents()
    }

    /// Reads all of it, checksum by checksum, and returns all that is wrong; nothing if it is sound. Streams are not decoded: reading the metrics
    /// does that.
    pub fn verify(&self) -> Vec<Error> {
        self.volume.verify()
    }
}
