//! An embeddable MVCC transactional time-series engine.

mod error;
pub mod io;
pub mod m3tsz;
mod time;

pub use error::{Error, Result};
pub use time::{Timestamp, TimestampOutOfRange};

/// The longest metric ID, in bytes.
pub const METRIC_ID_BYTES_MAX: usize = 65_536;
/// The longest name of a namespace, in bytes.
pub const NAMESPACE_NAME_BYTES_MAX: usize = 255;
