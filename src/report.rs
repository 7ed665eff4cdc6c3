//! What opening, closing and running tell about themselves.

use std::time::Duration;

use crate::mvcc::transaction::Version;
use crate::names::Namespace;
use crate::time::Timestamp;

/// What opening found and did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// The database was made by this open.
    pub created: bool,
    /// It had been closed properly, and nothing was written since.
    pub clean: bool,
    /// The version of the checkpoint that opening started from; 0 if there was none.
    pub checkpoint: Version,
    /// Segments of the commit log that were read.
    pub log_segments: u64,
    /// Bytes of records in them that were replayed: those behind the checkpoint.
    pub log_bytes: u64,
    /// Commits that were replayed.
    pub commits_replayed: u64,
    /// Points in them.
    pub points_replayed: u64,
    /// Metrics that exist.
    pub metrics: u64,
    /// The last commit.
    pub last_version: Version,
    /// Bytes of a torn tail that were cut: writes that a power cut or a crash interrupted, and that were never durable.
    pub cut_bytes: u64,
    /// Where and why they were cut.
    pub cut: Option<String>,
    /// Our own leftover files that were removed.
    pub swept_files: Vec<String>,
    /// Files that are not ours. They were left alone.
    pub foreign_files: Vec<String>,
    /// Damaged files that [`Options::salvage`](crate::Options::salvage) put aside, now or earlier.
    pub damaged_files: Vec<String>,
    /// Damage that [`Options::salvage`](crate::Options::salvage) passed over, one sentence each.
    pub damage: Vec<String>,
    /// What stands for names that a salvage lost, now or earlier, one sentence each.
    pub substitutes: Vec<String>,
    /// How long opening took.
    pub elapsed: Duration,
    /// How long of that loading the checkpoint.
    pub loading: Duration,
    /// How long of that reading and replaying the log.
    pub replaying: Duration,
}

/// What an opening is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpenStep {
    /// The checkpoint's metrics get their names back. Counted in metrics.
    Names,
    /// They get back what they had in memory. Counted in metrics; those that had nothing are passed over.
    Memory,
    /// The commit log is read and replayed. Counted in bytes of its files, whose end may be empty.
    Log,
    /// Seals that were interrupted are gone on with. Counted in blocks.
    Installs,
}

/// How far an opening is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenProgress {
    /// What it is doing.
    pub step: OpenStep,
    /// How much of that is done, in what the step is counted in.
    pub done: u64,
    /// How much there is, at most.
    pub total: u64,
}

/// What a checkpoint wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// Opening starts from the state of this version.
    pub version: Version,
    /// Pages of trees, of 4,096 bytes.
    pub pages: u64,
    /// Bytes of names of metrics.
    pub names_bytes: u64,
    /// Bytes of what is in memory.
    pub memory_bytes: u64,
    /// Bytes of segments of the log that were removed.
    pub log_bytes_removed: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// How far a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProgress {
    /// Volumes that are there.
    pub done: u64,
    /// Volumes that there will be. When all are there the rest comes: names, maps, and what is in memory.
    pub volumes: u64,
    /// Bytes that were copied, as they could not be given a second name.
    pub copied_bytes: u64,
}

/// What a backup wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// The last commit that it has.
    pub version: Version,
    /// Volumes in it.
    pub volumes: u64,
    /// Files of them that it shares with the database: each has a name in both folders.
    pub linked_files: u64,
    /// Files of them that were copied, as on another file system.
    pub copied_files: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Pages of trees, of 4,096 bytes.
    pub pages: u64,
    /// Bytes of names of metrics.
    pub names_bytes: u64,
    /// Bytes of what is in memory.
    pub memory_bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// What closing found.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CloseReport {
    /// Snapshots still alive, also within cursors and open write transactions; clones count as one. The directory stays locked until the
    /// last of them is gone.
    pub live_snapshots: usize,
}

/// What sealing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealReport {
    /// Volumes written.
    pub blocks: u64,
    /// Metrics in them; one that is in several counts for each.
    pub metrics: u64,
    /// Points in them, those that were sealed before included.
    pub points: u64,
    /// Bytes of their streams.
    pub stream_bytes: u64,
    /// Blocks that were left as they are since [`Database::seal_with`](crate::Database::seal_with) was told to stop, or the database was closed.
    pub left: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// What there is in volumes, as their supplements say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealedStats {
    /// Volumes that the figures are about.
    pub volumes: u64,
    /// Points in them, as they were when they were written: those that were overwritten or deleted later count.
    pub points: u64,
    /// Metrics in them; one that is in several volumes counts for each.
    pub streams: u64,
    /// Bytes of their streams.
    pub stream_bytes: u64,
    /// Bytes of all their files.
    pub file_bytes: u64,
    /// Other volumes: their supplements or files are damaged or cannot be read.
    pub uncounted: u64,
}

impl SealedStats {
    /// How many bits a point takes in the streams; `None` if there are no points.
    pub fn bits_per_point(&self) -> Option<f64> {
        (self.points > 0).then(|| self.stream_bytes as f64 * 8.0 / self.points as f64)
    }
}

/// What is in memory of one block of time, of one shard of a namespace.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemoryBlock {
    /// Whose block it is.
    pub namespace: Namespace,
    /// Its shard: metrics are divided by a hash of their IDs.
    pub shard: u32,
    /// The first time of the block.
    pub first: Timestamp,
    /// Its last time.
    pub last: Timestamp,
    /// Whether there is a volume of the block: what is in memory came late, or deletes from it.
    pub is_sealed: bool,
    /// Points, those that were overwritten or deleted included.
    pub points: u64,
    /// About what they take in memory, in bytes.
    pub bytes: u64,
}

/// Figures about a database at one moment. Points, bytes and partitions are those in memory; what was sealed is in volumes, and counted by
/// [`Database::sealed_stats`](crate::Database::sealed_stats).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// The last visible commit.
    pub version: Version,
    /// Metrics that exist.
    pub metrics: u64,
    /// Namespaces that exist.
    pub namespaces: u64,
    /// Partitions of those metrics.
    pub partitions: u64,
    /// Those of the partitions that take no more in some block, which is being sealed, or whose sealing failed.
    pub frozen_partitions: u64,
    /// Points in memory; those that were overwritten or deleted count until the partition goes. Sealed ones do not.
    pub points: u64,
    /// Bytes of compressed streams in memory.
    pub stream_bytes: u64,
    /// Out-of-order points among `points`, 16 bytes each.
    pub side_entries: u64,
    /// Deleted ranges.
    pub tombstones: u64,
    /// Marks in all partitions: what old snapshots and commits on their way make necessary.
    pub marks: u64,
    /// The most marks of one partition.
    pub marks_max: u64,
    /// Volumes: one for each sealed block and shard.
    pub volumes: u64,
    /// Blocks of time, of a namespace each, of which there are volumes.
    pub sealed_blocks: u64,
    /// Volumes whose files are open.
    pub open_volumes: u64,
    /// Volumes that nobody reads any more and whose files wait to be removed.
    pub superseded_volumes: u64,
    /// Volumes written since the database was opened, those that were written anew included.
    pub volumes_written: u64,
    /// Points in them.
    pub points_written: u64,
    /// Bytes of their streams.
    pub stream_bytes_written: u64,
    /// How often in a row sealing in the background failed.
    pub upkeep_failures: u32,
    /// Why it failed, if it did the last time.
    pub upkeep_error: Option<String>,
    /// Metrics that were looked for by their IDs since the supplement of a volume was damaged or missing.
    pub lookups_by_name: u64,
    /// About how many bytes points take in memory, what old snapshots keep included: compared with
    /// [`Options::memory_max`](crate::Options::memory_max).
    pub memory_bytes: u64,
    /// How many they may take: [`Options::memory_max`](crate::Options::memory_max), or what it comes to on this machine.
    pub memory_max: u64,
    /// How many commits waited for room in memory since the database was opened, those among them that got none included.
    pub memory_waits: u64,
    /// Bytes that the commit log takes on disk.
    pub log_bytes: u64,
    /// Bytes of records behind the last checkpoint: what opening would replay now.
    pub log_bytes_behind: u64,
    /// Checkpoints written since the database was opened.
    pub checkpoints: u64,
    /// The last of them.
    pub last_checkpoint: Option<CheckpointReport>,
    /// Bytes of records that wait to be written.
    pub buffered_bytes: u64,
    /// Snapshots alive, also within cursors and open write transactions; clones count as one.
    pub live_snapshots: u64,
    /// Old versions that they hold.
    pub held_versions: u64,
    /// The oldest of them, besides the one that a seal reads.
    pub oldest_held: Option<Version>,
    /// The log failed: reads go on, commits are refused until the database is opened again.
    pub stopped: bool,
    /// Why it failed, unless it was a panic.
    pub stop_cause: Option<std::sync::Arc<crate::Error>>,
}
