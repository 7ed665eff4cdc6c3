//! An embeddable MVCC transactional time-series engine.

mod commitlog;
mod database;
mod error;
pub mod fileset;
pub mod io;
mod journal;
pub mod m3tsz;
mod maintenance;
mod mvcc;
mod names;
mod options;
#[doc(hidden)]
pub mod planted;
mod query;
mod report;
mod snapshot;
mod store;
mod superblock;
mod sync;
mod time;
mod write;

pub use database::Database;
pub use error::{Error, Result};
pub use mvcc::record::{ANNOTATION_BYTES_MAX, META_BYTES_MAX};
pub use mvcc::transaction::Version;
pub use names::{METRIC_ID_BYTES_MAX, Metric, MetricId, NAMESPACE_NAME_BYTES_MAX, Namespace};
pub use options::{Durability, Options};
pub use query::{Block, Blocks, Point, Range};
pub use report::{CloseReport, OpenReport, Stats};
pub use snapshot::Snapshot;
pub use time::{Timestamp, TimestampOutOfRange};
pub use write::WriteTransaction;
