//! One error type for the whole crate. Variants differ by what the caller can do about them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What can go wrong, with the facts to act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {op} {}", path.display())]
    Io {
        /// What was tried, as a verb: `write`, `sync`, `open`.
        op: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's word.
        source: io::Error,
    },
    /// No space for the next part of the log. Nothing was written and nothing is lost: free some space and commit again.
    #[error("no space left for the commit log at {}; free some and commit again", path.display())]
    DiskFull {
        /// The file that could not be made.
        path: PathBuf,
        /// The operating system's word.
        source: io::Error,
    },
    /// Bytes on disk do not match `format`, which `design/` describes.
    #[error("{format} {} is corrupt at byte {offset}{}: {reason}", path.display(), of_metric(metric))]
    Corrupt {
        /// The format's name.
        format: &'static str,
        /// The damaged file.
        path: PathBuf,
        /// Where in the file the damage was seen.
        offset: u64,
        /// Whose data it is, as text, if that is known and it is one metric's.
        metric: Option<Box<str>>,
        /// What is wrong there.
        reason: &'static str,
    },
    /// Another process, or another handle of this one, has the directory open.
    #[error("{} is in use by another database handle; close that one first", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The database was opened for reading only ([`Options::read_only`](crate::Options::read_only)). Open it without that to change it.
    #[error("the database is open for reading only; open it without read_only to change it")]
    ReadOnly,
    /// [`Options::read_only`](crate::Options::read_only) reads the last checkpoint, and there is none yet: have the database's writer call
    /// [`Database::checkpoint`](crate::Database::checkpoint).
    #[error("{} has no checkpoint yet, which is what read_only reads; have its writer call Database::checkpoint", path.display())]
    NoCheckpoint {
        /// The directory.
        path: PathBuf,
    },
    /// Each time the last checkpoint had been read there was a newer one, whose writer may have removed what was read. Try again.
    #[error("{} got a new checkpoint each of {attempts} times that one was read; try again", path.display())]
    CheckpointMoved {
        /// The directory.
        path: PathBuf,
        /// How often it was tried.
        attempts: u32,
    },
    /// A backup takes a directory that is empty, or not there yet.
    #[error("{} is not empty; a backup takes a new or empty directory", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Who was told of the [progress](crate::Snapshot::backup_with) of a backup had it end. What is in the directory is no database: remove it.
    #[error("the backup to {} was ended before it was complete; remove what is there", path.display())]
    BackupEnded {
        /// The directory.
        path: PathBuf,
    },
    /// Who was told of the [progress](crate::Options::open_progress) of an opening had it end. The database is as it was, and can be opened again.
    #[error("the opening of {} was ended before it was complete", path.display())]
    OpenEnded {
        /// The directory.
        path: PathBuf,
    },
    /// The directory exists, is not empty and holds no database.
    #[error("{} holds no database: {reason}", path.display())]
    NotADatabase {
        /// The directory.
        path: PathBuf,
        /// What was found instead.
        reason: &'static str,
    },
    /// The files were written by a newer version of this crate. They were left untouched.
    #[error("{} has format version {found}, newer than {supported}; open it with a newer chronolith", path.display())]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest format version that this crate knows.
        supported: u32,
    },
    /// An earlier write or sync of the log failed, or a commit panicked, so nothing more can be promised. Reads go on; reopen to recover.
    /// A commit that returned this may be there after reopening, entirely, or not at all.
    #[error("stopped after {}; reopen the database to recover", stopped_by(cause))]
    Stopped {
        /// What failed; `None` if it was a panic, or was reported before.
        #[source]
        cause: Option<Arc<Error>>,
    },
    /// [`Database::close`](crate::Database::close) was called on this database. Snapshots taken before stay readable.
    #[error("the database is closed; open it again to write")]
    Closed,
    /// Another commit changed what this [checked](crate::Database::begin_checked) transaction had read. Nothing was committed. A new
    /// transaction sees the change: begin again, or let [`Database::transact`](crate::Database::transact) do that.
    #[error("{what} {name} was changed after this transaction read it{}", what_next(*attempts))]
    Conflict {
        /// What it is: `metric` or `metadata`.
        what: &'static str,
        /// The metric's ID, or the key of the metadata, as text.
        name: String,
        /// How many attempts `transact` made, which [`Options::attempts`](crate::Options::attempts) limits; `None` if the program began
        /// the transaction itself.
        attempts: Option<u32>,
    },
    /// The metric was dropped; ask for it by name again to get its successor.
    #[error("metric {0} was dropped; resolve its name again")]
    MetricDropped(String),
    /// The metric comes from another database, or from this one before it was opened again.
    #[error("metric {0} belongs to another database handle; ask this one for it")]
    ForeignMetric(String),
    /// The namespace comes from another database, or from this one before it was opened again.
    #[error("namespace {0} belongs to another database handle; ask this one for it")]
    ForeignNamespace(String),
    /// The metric ID is empty or longer than [`crate::METRIC_ID_BYTES_MAX`].
    #[error("a metric ID has 1 to {max} bytes, not {len}", max = crate::METRIC_ID_BYTES_MAX)]
    MetricIdLength {
        /// The length that was given, in bytes.
        len: usize,
    },
    /// The tags cannot be written as a canonical metric ID.
    #[error("invalid tags: {reason}")]
    InvalidTags {
        /// What is wrong with them.
        reason: &'static str,
    },
    /// The metric ID is known with other tags.
    #[error("metric {0} exists with other tags")]
    TagsDiffer(String),
    /// The namespace's name is empty or too long.
    #[error("a namespace's name has 1 to {max} bytes, not {len}", max = crate::NAMESPACE_NAME_BYTES_MAX)]
    NamespaceNameLength {
        /// The length that was given, in bytes.
        len: usize,
    },
    /// All ids are taken: more than 2^32 metrics, dropped ones included, were made in this database.
    #[error("the database has given out all of its metric ids")]
    TooManyMetrics,
    /// Columns that belong together differ in length.
    #[error("{timestamps} timestamps, but {values} values")]
    ColumnLengths {
        /// Timestamps given.
        timestamps: usize,
        /// Values given.
        values: usize,
    },
    /// An annotation or a piece of metadata is too long.
    #[error("{what} of {len} bytes is longer than {max}")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A transaction has more changes than one may have, see [`Options::staged_bytes_max`](crate::Options::staged_bytes_max). What was given last
    /// was not staged, all before it is. Commit that, and go on in another transaction, or raise the option.
    #[error(
        "a transaction of {bytes} bytes is larger than staged_bytes_max, {max}; commit it in parts or raise the option"
    )]
    StagedBytes {
        /// How large it would have become, in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// What is in memory has reached [`Options::memory_max`](crate::Options::memory_max), and sealing did not make room in time. Nothing was committed;
    /// commits that add no points are still taken. Try again later, let go of old snapshots, or raise the option.
    #[error(
        "{used} bytes are in memory, and memory_max is {max}; {}", memory_advice(*oldest_snapshot)
    )]
    MemoryLimit {
        /// About what is in memory, in bytes.
        used: u64,
        /// The limit in bytes.
        max: u64,
        /// For how long at least the oldest snapshot has been held, if one is: what it sees stays in memory.
        oldest_snapshot: Option<Duration>,
    },
    /// Replaying the log takes more memory than there is, which [`Options::open`](crate::Options::open) does not try: nothing was changed. Sealing leaves memory as it did when
    /// it was done, so more was in memory at a time, in a session that had more. Open the database where there is as much, or with a larger [`memory_max`](crate::Options::memory_max),
    /// which is taken to mean that there is more.
    #[error(
        "replaying the log takes more than {max} bytes of memory; open the database where there is more, or with a larger memory_max"
    )]
    ReplayMemory {
        /// About what may be in memory during replay, in bytes: twice `memory_max`, or half of what the process has.
        max: u64,
    },
    /// A volume cannot take the metric: it has it already, its metrics have to be given in ascending order of their IDs, or what belongs to it
    /// is not what the volume needs.
    #[error("metric {id}: {reason}")]
    UnfitForVolume {
        /// The metric's ID, as text.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An option is outside its range.
    #[error("option {option}: {reason}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// Its rule.
        reason: &'static str,
    },
    /// A compressed stream in memory does not decode; a bug in this crate or damaged memory.
    #[error("a compressed stream does not decode")]
    Decode(#[from] crate::m3tsz::DecodeError),
}

/// The part of a message that says why the database stopped.
fn stopped_by(cause: &Option<Arc<Error>>) -> &'static str {
    match cause {
        Some(_) => "a failed write of the commit log",
        None => "a panic or an earlier failure",
    }
}

/// The part of a message that says what to do after a conflict.
fn what_next(attempts: Option<u32>) -> String {
    match attempts {
        None => "; begin again".to_owned(),
        Some(1) => " in the only attempt; allow more with Options::attempts".to_owned(),
        Some(attempts) => format!(" in the last of {attempts} attempts; allow more with Options::attempts"),
    }
}

/// What to do about too much in memory.
fn memory_advice(oldest_snapshot: Option<Duration>) -> String {
    match oldest_snapshot {
        Some(age) => {
            format!("a snapshot held for {} s or longer keeps some of it: let go of it", age.as_secs())
        }
        None => "seal if it is on a disk, drop metrics, commit again later, or raise the option".to_owned(),
    }
}

/// The part of a message that names a metric.
fn of_metric(metric: &Option<Box<str>>) -> String {
    metric.as_ref().map(|metric| format!(", metric {metric}")).unwrap_or_default()
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`]; for implementors of [`Vfs`](crate::io::Vfs).
    pub fn io(op: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Error::Io { op, path: path.as_ref().to_owned(), source }
    }

    /// Whether it is about some data only, so that others may be without it.
    pub(crate) fn is_of_data(&self) -> bool {
        matches!(
            self,
            Error::Corrupt { .. }
                | Error::NewerFormat { .. }
                | Error::UnfitForVolume { .. }
                | Error::Decode(_)
        )
    }

    /// Whether it is about one block only, so that others may be sealed all the same: not if all would fail by it.
    pub(crate) fn is_of_one_block(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let of_disk = |kind| matches!(kind, StorageFull | QuotaExceeded | ReadOnlyFilesystem);
        match self {
            Error::Io { source, .. } => !of_disk(source.kind()),
            other => other.is_of_data(),
        }
    }

    /// The kind of the operating system's error behind this one, if there is one.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Error::Io { source, .. } | Error::DiskFull { source, .. } => Some(source.kind()),
            Error::Stopped { cause: Some(cause) } => cause.io_kind(),
            _ => None,
        }
    }
}
