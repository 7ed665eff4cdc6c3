//! An embeddable MVCC transactional time-series engine.

pub mod m3tsz;
mod time;

pub use time::{Timestamp, TimestampOutOfRange};
