//! What opening, closing and running tell about themselves.

use std::time::Duration;

use crate::mvcc::transaction::Version;

/// What opening found and did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// The database was made by this open.
    pub created: bool,
    /// It had been closed properly, and nothing was written since.
    pub clean: bool,
    /// Segments of the commit log that were read.
    pub log_segments: u64,
    /// Bytes of records in them.
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
}

/// What closing found.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CloseReport {
    /// Snapshots still alive, also within cursors and open write transactions; clones count as one. The directory stays locked until the
    /// last of them is gone.
    pub live_snapshots: usize,
}

/// Figures about a database at one moment.
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
    /// Points in memory; those that were overwritten or deleted count until the partition goes.
    pub points: u64,
    /// Bytes of compressed streams.
    pub stream_bytes: u64,
    /// Out-of-order points among `points`, 16 bytes each.
    pub side_entries: u64,
    /// Deleted ranges.
    pub tombstones: u64,
    /// Marks in all partitions: what old snapshots and commits on their way make necessary.
    pub marks: u64,
    /// The most marks of one partition.
    pub marks_max: u64,
    /// Bytes of records in the commit log: those replayed at open and those written since.
    pub log_bytes: u64,
    /// Bytes of records that wait to be written.
    pub buffered_bytes: u64,
    /// Snapshots alive, also within cursors and open write transactions; clones count as one.
    pub live_snapshots: u64,
    /// Old versions that they hold.
    pub held_versions: u64,
    /// The log failed: reads go on, commits are refused until the database is opened again.
    pub stopped: bool,
    /// Why it failed, unless it was a panic.
    pub stop_cause: Option<std::sync::Arc<crate::Error>>,
}
