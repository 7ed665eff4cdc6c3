//! An embeddable MVCC transactional time-series engine.

mod time;

pub use time::{Timestamp, TimestampOutOfRange};
