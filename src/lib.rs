#![doc = include_str!("../README.md")]
//!
//! # The API in one page
//!
//! | to | use |
//! | --- | --- |
//! | open, configure, close | [`Database`], [`Options`], [`Durability`], [`OpenReport`] |
//! | name a metric | [`Database::metric`], [`Database::metric_with_tags`], [`Metric`], [`Namespace`] |
//! | write | [`Database::append`], [`Database::begin_write`], [`WriteTransaction`] |
//! | write what depends on what is read | [`Database::transact`], [`Database::try_transact`], [`Database::begin_checked`], [`Options::attempts`] |
//! | read | [`Database::snapshot`], [`Snapshot`], [`Range`], [`Blocks`] |
//! | move points into volumes | [`Database::seal`], [`Database::refresh`], [`SealScope`], [`Snapshot::volumes`] |
//! | start quickly | [`Database::checkpoint`], [`Options::checkpoint_log_bytes`] |
//! | read beside a writer in another process | [`Database::open_read_only`], [`Options::read_only`] |
//! | copy it | [`Snapshot::backup_to`] |
//! | watch it | [`Database::stats`], [`Database::sealed_stats`], [`Database::health`] |
//! | handle failure | [`Error`], [`repair`], [`RepairOptions`] |
//! | test a program against power cuts | [`io::SimulatedDisk`], [`Options::open_on`] |
//! | use the codec alone | [`m3tsz`] |
//! | read and write M3's volumes, without a database | [`fileset`] |
//! | read the data directories of M3DB | [`m3`] |
//!
//! # From async code
//!
//! Nothing here is async. Staging and reading touch memory only and may be done right in a task. A commit with [`Durability::Sync`] waits
//! for the disk, and so do opening and closing: put them on a blocking thread (`spawn_blocking`), or give one writer thread a bounded channel, which
//! also lets commits share syncs. [`Database`] and [`Snapshot`] are `Send + Sync + Clone`. `examples/async_tokio.rs` is a whole program.
//!
//! # Features
//!
//! * `cli`: the command-line tool. Off by default.
//! * `planted-bugs`: mistakes for the crate's own tests. Never for production.

mod backup;
mod checkpoint;
mod commitlog;
mod database;
mod engine;
mod error;
pub mod fileset;
mod health;
mod helpers;
pub mod io;
mod journal;
pub mod m3;
pub mod m3tsz;
mod maintenance;
mod mvcc;
mod names;
mod options;
#[doc(hidden)]
pub mod planted;
mod query;
mod read_only;
mod repair;
mod report;
mod scope;
mod sealed;
mod settings;
mod snapshot;
mod store;
mod superblock;
mod sync;
mod telling;
mod time;
mod tree;
mod volumes;
#[cfg(loom)]
#[doc(hidden)]
pub mod whitebox;
mod write;

pub use database::Database;
pub use error::{Error, Result};
pub use health::{Health, Trouble};
pub use mvcc::record::{ANNOTATION_BYTES_MAX, META_BYTES_MAX};
pub use mvcc::transaction::Version;
pub use names::{METRIC_ID_BYTES_MAX, Metric, MetricId, NAMESPACE_NAME_BYTES_MAX, Namespace};
pub use options::{Durability, Options};
pub use query::{Block, Blocks, Point, Range};
pub use repair::{Finding, RepairOptions, RepairReport, repair};
pub use report::{
    BackupProgress, BackupReport, CheckpointReport, CloseReport, MemoryBlock, OpenProgress, OpenReport,
    OpenStep, SealReport, SealedStats, Stats,
};
pub use scope::{SealProgress, SealScope};
pub use settings::Settings;
pub use snapshot::Snapshot;
pub use time::{Timestamp, TimestampOutOfRange};
pub use volumes::{SnapshotVolume, VolumeContents};
pub use write::{TransactionRange, WriteTransaction};
