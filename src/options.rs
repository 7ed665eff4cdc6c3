//! How a database is opened: plain data with safe defaults, checked once at open.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::helpers::Helpers;
use crate::io::{RealDisk, Vfs};
use crate::planted::Planted;
use crate::report::OpenProgress;
use crate::settings::{Settings, quarter_of_memory};
use crate::telling::OnOpenProgress;

/// When a commit is durable, which means: survives a power cut.
///
/// Commits become visible in one order, and recovery keeps a prefix of that order. A weaker commit is therefore never kept
/// without the stronger ones before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once the operating system and the database think fit. A killed process loses at most what was committed since the last
    /// write of the log (about a second with a worker, or [`Options::log_buffer_bytes`]), a power cut what the operating
    /// system had not yet written.
    Buffered,
    /// By a sync that begins within this time of the commit, done by the worker (or by [`Database::maintain`]). A power cut loses at most
    /// what was committed in this time and while the disk synced.
    Interval(Duration),
    /// Before `commit` returns, and before anybody sees it. Commits of several threads share a sync. A power cut loses nothing.
    #[default]
    Sync,
}

/// How to open a database.
///
/// ```
/// use chronolith::{Durability, Options};
/// # fn main() -> chronolith::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("metrics");
/// let db = Options::new().durability(Durability::Buffered).open(&path)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) block_size: Duration,
    pub(crate) shards: u32,
    pub(crate) log: bool,
    pub(crate) log_segment_bytes_min: u32,
    pub(crate) log_segment_bytes_max: u32,
    pub(crate) log_buffer_bytes: usize,
    pub(crate) staged_bytes_max: usize,
    /// Those that can be changed while it is open, as far as they are given.
    pub(crate) settings: Settings,
    pub(crate) open_volumes_max: usize,
    pub(crate) workers: usize,
    pub(crate) lanes: usize,
    pub(crate) attempts: u32,
    pub(crate) create: bool,
    pub(crate) salvage: bool,
    pub(crate) read_only: bool,
    pub(crate) on_open_progress: OnOpenProgress,
    pub(crate) install_slice_metrics: u32,
    pub(crate) replay_memory_max: Option<u64>,
    pub(crate) replay_workers: Option<usize>,
    pub(crate) planted: Planted,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            block_size: Duration::from_secs(2 * 60 * 60),
            shards: 4,
            log: true,
            log_segment_bytes_min: 256 * 1024,
            log_segment_bytes_max: 64 * 1024 * 1024,
            log_buffer_bytes: 1024 * 1024,
            staged_bytes_max: 256 * 1024 * 1024,
            settings: Settings::default(),
            open_volumes_max: 4_096,
            workers: 1,
            lanes: 8,
            attempts: 32,
            create: true,
            salvage: false,
            read_only: false,
            on_open_progress: OnOpenProgress::default(),
            install_slice_metrics: crate::mvcc::sealing::SLICE_METRICS,
            replay_memory_max: None,
            replay_workers: None,
            planted: Planted::default(),
        }
    }
}

impl Options {
    /// The defaults: everything durable, nothing refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// The time that one block of the default namespace covers. Default: 2 hours. Used when the database is made; an existing one
    /// keeps its own.
    #[must_use]
    pub fn block_size(mut self, block_size: Duration) -> Self {
        self.block_size = block_size;
        self
    }

    /// Into how many volumes a block's metrics are divided. Default: 4. Used when the database is made; an existing one keeps its
    /// own.
    #[must_use]
    pub fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// The durability of commits that do not name their own. Default: [`Durability::Sync`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = Some(durability);
        self
    }

    /// Whether commits are logged. Default: yes. Without a log nothing that was not sealed survives the process, and commits
    /// are never durable, whatever they ask for, also after [`Database::sync`]. Used when the database is made; an existing one keeps its own.
    #[must_use]
    pub fn log(mut self, log: bool) -> Self {
        self.log = log;
        self
    }

    /// How much of the commit log opening replays at most, about: a checkpoint is written when so many bytes of it lie behind the last one, or
    /// half as many as are in memory, if that is more. Default: 256 MiB. See [`Database::checkpoint`].
    #[must_use]
    pub fn checkpoint_log_bytes(mut self, bytes: u64) -> Self {
        self.settings.checkpoint_log_bytes = Some(bytes);
        self
    }

    /// The size of the first segment of the commit log; later ones double up to the maximum. Default: 256 KiB; a power of two,
    /// at least 16 KiB.
    #[must_use]
    pub fn log_segment_bytes_min(mut self, bytes: u32) -> Self {
        self.log_segment_bytes_min = bytes;
        self
    }

    /// The size that segments of the commit log grow to. Default: 64 MiB; a power of two, at least the minimum, at most 1 GiB.
    #[must_use]
    pub fn log_segment_bytes_max(mut self, bytes: u32) -> Self {
        self.log_segment_bytes_max = bytes;
        self
    }

    /// How many bytes of log records may wait in memory before a committer writes them, whatever its durability. Default: 1 MiB.
    #[must_use]
    pub fn log_buffer_bytes(mut self, bytes: usize) -> Self {
        self.log_buffer_bytes = bytes;
        self
    }

    /// How many bytes of changes one transaction may stage, and all commits on their way together. Default: 256 MiB, enough for ten million
    /// points of any kind in one commit; at least 4 MiB.
    ///
    /// Beyond it a transaction takes no more ([`Error::StagedBytes`]), and a commit waits, in the order of arrival, until those
    /// before it are visible. What open transactions have staged counts for each alone: how many are open is up to the program. Points staged
    /// one by one take 10 to 24 bytes each, in columns 9 to 18; columns of 1,024 points in order or more typically 2 to 6.
    #[must_use]
    pub fn staged_bytes_max(mut self, bytes: usize) -> Self {
        self.staged_bytes_max = bytes;
        self
    }

    /// About how many bytes points may take in memory. Default: a quarter of what the machine, or the process's control group, has; at least
    /// 4 MiB.
    ///
    /// From three quarters of it on the background seals blocks early, oldest first, if that moves a sixteenth of it or more. Beyond it a commit waits
    /// ([`Options::memory_wait`]) until there is room, and else returns [`Error::MemoryLimit`]. Where nothing can be sealed, in memory or
    /// without a log, and with [`Options::workers`]`(0)`, it does not wait. Commits that add no points, such as deletes, are taken all the same.
    /// Counted are points; names, maps and what is around them take about as much as
    /// a few points of each metric.
    #[must_use]
    pub fn memory_max(mut self, bytes: u64) -> Self {
        self.settings.memory_max = Some(bytes);
        self
    }

    /// How long a commit waits for room in memory. Default: 10 seconds.
    #[must_use]
    pub fn memory_wait(mut self, wait: Duration) -> Self {
        self.settings.memory_wait = Some(wait);
        self
    }

    /// How long after a block's end its points may still come without being late: the block is sealed when the clock and the latest point
    /// are past that. Default: 10 minutes.
    #[must_use]
    pub fn buffer_past(mut self, buffer_past: Duration) -> Self {
        self.settings.buffer_past = Some(buffer_past);
        self
    }

    /// How many bytes of late writes and deletes over sealed blocks may be in memory before blocks are written anew, those with the most
    /// first. Default: 64 MiB.
    #[must_use]
    pub fn refresh_bytes(mut self, bytes: u64) -> Self {
        self.settings.refresh_bytes = Some(bytes);
        self
    }

    /// How many volumes are kept open at a time, each with up to eight files. Default: 4,096; at least 1. What cursors read stays open besides.
    #[must_use]
    pub fn open_volumes_max(mut self, volumes: usize) -> Self {
        self.open_volumes_max = volumes;
        self
    }

    /// Whether there are background threads: 1 (the default), or 0 for manual mode, in which [`Database::maintain`] does their work. One writes
    /// the log, another one seals, so that no volume delays what [`Durability::Interval`] promises. Under loom there are none.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Over how many locks the metrics are spread for writing. Default: 8; 1 to 256. May differ from open to open.
    #[must_use]
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = lanes;
        self
    }

    /// How often [`Database::transact`] runs its closure before it gives up and returns [`Error::Conflict`]. Default: 32; at least 1.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Whether to make the database if the directory has none. Default: yes.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether to open a damaged database with what is sound of it. Default: no, damage is an error. Damaged files are kept under
    /// other names, and [`OpenReport`](crate::OpenReport) lists what was lost.
    #[must_use]
    pub fn salvage(mut self, salvage: bool) -> Self {
        self.salvage = salvage;
        self
    }

    /// Whether to open the last checkpoint for reading only, beside whoever has the database open for writing: no lock is taken, nothing is written or made, and
    /// no thread is started. Default: no.
    ///
    /// What is read is the state of that checkpoint, for good: commits after it are not seen; open it again to see what a newer one has
    /// ([`OpenReport::checkpoint`](crate::OpenReport::checkpoint)). A writer makes them by itself, and with [`Database::checkpoint`] at any time. What is in memory there
    /// is read into memory here. The files of all volumes are opened, however many ([`open_volumes_max`](Options::open_volumes_max) does not count), and stay so: the
    /// writer may remove them meanwhile. Linux allows a process about 65,000 mappings (`vm.max_map_count`), of which a volume takes up to five.
    ///
    /// Changes are refused with [`Error::ReadOnly`]. Opening fails with [`Error::NoCheckpoint`] if there is none yet, and with [`Error::CheckpointMoved`] if new
    /// ones come faster than they are read.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Has the opening tell how far it is, at the beginning of each of its steps and then about every 50 ms, from the thread that opens. If it is told to break, it ends
    /// with [`Error::OpenEnded`], and the database is as it was. Nothing is told of reading only, which loads a checkpoint and replays nothing.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// # fn main() -> chronolith::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("metrics");
    /// let options = chronolith::Options::new().open_progress(|progress| {
    ///     eprintln!("{:?}: {} of {}", progress.step, progress.done, progress.total);
    ///     ControlFlow::Continue(())
    /// });
    /// let db = options.open(&path)?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn open_progress(
        mut self,
        progress: impl Fn(&OpenProgress) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Self {
        self.on_open_progress = OnOpenProgress::new(progress);
        self
    }

    /// How many metrics an install goes over in one commit, at least 1. Small, so that tests can interrupt it between two.
    #[cfg(any(loom, feature = "planted-bugs"))]
    #[doc(hidden)]
    #[must_use]
    pub fn install_slice_metrics(mut self, metrics: u32) -> Self {
        self.install_slice_metrics = metrics.max(1);
        self
    }

    /// How much memory points may take while the log is replayed. Little, so that tests need no large database.
    #[cfg(any(loom, feature = "planted-bugs"))]
    #[doc(hidden)]
    #[must_use]
    pub fn replay_memory_max(mut self, bytes: u64) -> Self {
        self.replay_memory_max = Some(bytes);
        self
    }

    /// How many threads apply what the log has, beside the one that reads it, from the first record on. By default as many as there are processors, once
    /// there is much to apply.
    #[cfg(any(loom, feature = "planted-bugs"))]
    #[doc(hidden)]
    #[must_use]
    pub fn replay_workers(mut self, workers: usize) -> Self {
        self.replay_workers = Some(workers);
        self
    }

    /// Makes one of the mistakes that the tests must catch.
    #[cfg(any(loom, feature = "planted-bugs"))]
    #[doc(hidden)]
    #[must_use]
    pub fn plant(mut self, bug: crate::planted::Bug) -> Self {
        self.planted = self.planted.with(bug);
        self
    }

    /// Opens the database in a directory, making it if there is none (see [`Options::create`]).
    ///
    /// # Errors
    /// [`Error::Locked`] if it is open elsewhere, [`Error::NotADatabase`], [`Error::NewerFormat`], [`Error::Corrupt`],
    /// [`Error::InvalidOption`], [`Error::ReplayMemory`], [`Error::OpenEnded`], [`Error::DiskFull`] or [`Error::Io`]. A disk without space for the rest of a seal is no error: it is gone on with
    /// later, and [`Database::health`] tells of it.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Database> {
        self.open_on(Arc::new(RealDisk::for_engine()), path)
    }

    /// Opens the database in a directory of another disk, for instance a [`SimulatedDisk`](crate::io::SimulatedDisk).
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_on(self, disk: Arc<dyn Vfs>, path: impl AsRef<Path>) -> Result<Database> {
        self.check()?;
        Database::open_with(self, disk, path.as_ref())
    }

    /// Opens a database that keeps everything in memory and writes no files.
    ///
    /// # Errors
    /// [`Error::InvalidOption`].
    pub fn open_in_memory(self) -> Result<Database> {
        self.check()?;
        Database::open_memory_only(self)
    }

    /// These, and where a setting is not given, that which a database keeps.
    pub(crate) fn over(mut self, kept: Settings) -> Self {
        self.settings = self.settings.or(kept);
        self
    }

    /// The limit of memory for points, as far as it is known before the database is open.
    pub(crate) fn memory_limit(&self) -> u64 {
        self.settings.in_force().memory_max
    }

    /// The limit of memory for points while the log is replayed, when nothing can be sealed: half of the machine's, since around points there is
    /// as much again at worst. Nobody who kept to his limit comes near it; who raised that meant it.
    pub(crate) fn replay_memory_limit(&self) -> u64 {
        let twice = || self.memory_limit().max(quarter_of_memory()).saturating_mul(2);
        self.replay_memory_max.unwrap_or_else(twice)
    }

    /// How many threads apply what the log has, beside the one that reads it, and from how many bytes of records on.
    pub(crate) fn replay_workers_from(&self) -> (usize, u64) {
        if cfg!(any(loom, shuttle)) {
            return (0, 0);
        }
        let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        match self.replay_workers {
            Some(workers) => (workers, 0),
            // One processor is the reader's anyway.
            None if processors() == 1 => (0, 0),
            None => (processors().min(self.lanes).min(REPLAY_WORKERS_MAX), REPLAY_ALONE_BYTES),
        }
    }

    /// Who helps to read a checkpoint: there is one thread fewer than replay has, as the one that reads with them does as much as they.
    pub(crate) fn helpers(&self) -> Helpers {
        let (workers, alone_bytes) = self.replay_workers_from();
        Helpers { workers: workers.saturating_sub(1), alone_bytes }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let rule = |holds: bool, option: &'static str, reason: &'static str| match holds {
            true => Ok(()),
            false => Err(Error::InvalidOption { option, reason }),
        };
        let segment = self.log_segment_bytes_min..=self.log_segment_bytes_max;
        rule(self.block_size >= Duration::from_secs(1), "block_size", "at least one second")?;
        rule(self.block_size <= Duration::from_secs(366 * 86_400), "block_size", "at most 366 days")?;
        rule((1..=4096).contains(&self.shards), "shards", "1 to 4096")?;
        rule(*segment.start() >= 16 * 1024, "log_segment_bytes_min", "at least 16 KiB")?;
        rule(segment.start().is_power_of_two(), "log_segment_bytes_min", "a power of two")?;
        rule(segment.end().is_power_of_two(), "log_segment_bytes_max", "a power of two")?;
        rule(segment.start() <= segment.end(), "log_segment_bytes_max", "at least log_segment_bytes_min")?;
        rule(*segment.end() <= 1 << 30, "log_segment_bytes_max", "at most 1 GiB")?;
        // So little that commits wait for each other, where schedules are explored.
        let staged_bytes_min = if cfg!(shuttle) { 64 } else { 4 << 20 };
        rule(self.staged_bytes_max >= staged_bytes_min, "staged_bytes_max", "at least 4 MiB")?;
        self.settings.check()?;
        rule(self.open_volumes_max >= 1, "open_volumes_max", "at least 1")?;
        rule(self.workers <= 1, "workers", "0 or 1")?;
        rule((1..=256).contains(&self.lanes), "lanes", "1 to 256")?;
        rule(!(self.salvage && self.read_only), "read_only", "not with salvage, which writes")?;
        rule(self.attempts >= 1, "attempts", "at least 1")
    }
}

/// How many threads replay, at most: the one that reads can not feed more.
const REPLAY_WORKERS_MAX: usize = 8;
/// What is replayed before others are asked to help, in bytes of records: a few milliseconds.
const REPLAY_ALONE_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        Options::new().check().expect("defaults");
    }

    #[test]
    fn each_rule_is_checked_and_names_its_option() {
        let name = |options: Options| match options.check() {
            Err(Error::InvalidOption { option, .. }) => option,
            other => panic!("{other:?}"),
        };
        let new = Options::new;
        assert_eq!(name(new().block_size(Duration::from_millis(1))), "block_size");
        assert_eq!(name(new().block_size(Duration::from_secs(400 * 86_400))), "block_size");
        assert_eq!(name(new().shards(0)), "shards");
        assert_eq!(name(new().log_segment_bytes_min(8192)), "log_segment_bytes_min");
        assert_eq!(name(new().log_segment_bytes_min(20_000)), "log_segment_bytes_min");
        assert_eq!(name(new().log_segment_bytes_max(100_000_000)), "log_segment_bytes_max");
        assert_eq!(name(new().log_segment_bytes_max(16 * 1024)), "log_segment_bytes_max");
        assert_eq!(name(new().log_segment_bytes_max(1 << 31)), "log_segment_bytes_max");
        assert_eq!(name(new().staged_bytes_max(1 << 20)), "staged_bytes_max");
        assert_eq!(name(new().memory_max(1 << 20)), "memory_max");
        assert_eq!(name(new().open_volumes_max(0)), "open_volumes_max");
        assert_eq!(name(new().workers(2)), "workers");
        assert_eq!(name(new().lanes(0)), "lanes");
        assert_eq!(name(new().attempts(0)), "attempts");
        assert_eq!(name(new().salvage(true).read_only(true)), "read_only");
    }
}
