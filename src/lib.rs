//! An embeddable MVCC transactional time-series engine.
#![allow(dead_code, reason = "the database comes next")]

mod commitlog;
mod error;
pub mod fileset;
pub mod io;
pub mod m3tsz;
#[doc(hidden)]
pub mod planted;
mod superblock;
mod time;

pub use error::{Error, Result};
pub use time::{Timestamp, TimestampOutOfRange};

/// The longest metric ID, in bytes.
pub const METRIC_ID_BYTES_MAX: usize = 65_536;
/// The longest name of a namespace, in bytes.
pub const NAMESPACE_NAME_BYTES_MAX: usize = 255;
