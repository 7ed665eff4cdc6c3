//! Whether a database is well, and what to do if not.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::mvcc::transaction::Version;

/// How long a snapshot may be held before [`Health`] tells of it.
pub(crate) const HELD_MAX: Duration = Duration::from_secs(10 * 60);

/// Whether a database is well. `Display` says what is wrong, and what to do about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Health {
    /// Nothing is wrong.
    Ok,
    /// Something does not work, or works badly; the worst comes first.
    Degraded(Vec<Trouble>),
}

/// What is wrong with a database. `Display` is a sentence about it, and one about what to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Trouble {
    /// The commit log failed: commits are refused, reads go on.
    LogStopped {
        /// Why, unless it was a panic.
        cause: Option<Arc<Error>>,
    },
    /// Sealing in the background fails. Nothing is lost: points stay in memory, and the log grows.
    UpkeepFailing {
        /// How often in a row.
        failures: u32,
        /// Why it did last.
        last_error: String,
    },
    /// Checkpoints fail. Nothing is lost: the log is kept, and grows.
    CheckpointFailing {
        /// Bytes of the log behind the last one, which opening would replay.
        log_bytes: u64,
        /// Why the newest one failed.
        last_error: String,
    },
    /// Points take more memory than they may: commits wait, or are refused.
    MemoryFull {
        /// About how many bytes they take.
        bytes: u64,
        /// How many they may: [`Options::memory_max`](crate::Options::memory_max).
        max: u64,
    },
    /// Volumes without a sound supplement: metrics are found by their IDs there, which is slower.
    LookupsByName {
        /// How many such volumes were read.
        volumes: u64,
        /// How many metrics were looked for in them.
        lookups: u64,
    },
    /// An old snapshot is alive, also within a cursor or an open write transaction: the memory and the volumes that it sees cannot go.
    SnapshotHeld {
        /// The version that it sees.
        version: Version,
        /// How many commits there were since.
        behind: u64,
        /// For how long at least it has been seen, from one look at it to another.
        held: Duration,
    },
}

impl Health {
    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        matches!(self, Health::Ok)
    }

    /// What is wrong.
    pub fn troubles(&self) -> &[Trouble] {
        match self {
            Health::Ok => &[],
            Health::Degraded(troubles) => troubles,
        }
    }
}

impl From<Vec<Trouble>> for Health {
    fn from(troubles: Vec<Trouble>) -> Self {
        if troubles.is_empty() { Health::Ok } else { Health::Degraded(troubles) }
    }
}

impl Display for Health {
    /// `ok`, or a line for each trouble.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Health::Degraded(troubles) = self else { return f.write_str("ok") };
        for (at, trouble) in troubles.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "degraded: {trouble}")?;
        }
        Ok(())
    }
}

impl Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::LogStopped { cause } => {
                f.write_str("the commit log failed, so commits are refused")?;
                if let Some(cause) = cause {
                    write!(f, " ({cause})")?;
                }
                f.write_str(". Look for disk errors, make sure there is space, then open the database again")
            }
            Trouble::UpkeepFailing { failures, last_error } => write!(
                f,
                "sealing failed {failures} times in a row ({last_error}), so points stay in memory. Remove the cause; it is tried again by \
                 itself, and at once by `Database::seal`"
            ),
            Trouble::CheckpointFailing { log_bytes, last_error } => write!(
                f,
                "the newest checkpoint failed ({last_error}), so the log is kept, {log_bytes} bytes of which opening would replay. Remove the cause; it \
                 is tried again by itself, and at once by `Database::checkpoint`"
            ),
            Trouble::MemoryFull { bytes, max } => write!(
                f,
                "points take {bytes} bytes of memory, and may take {max}, so commits wait. Drop old snapshots, seal, or raise \
                 `Options::memory_max`"
            ),
            Trouble::LookupsByName { volumes, lookups } => write!(
                f,
                "the supplements of {volumes} volumes are damaged or missing, so {lookups} lookups went by name, which is slower. \
                 `Database::refresh` writes these volumes anew"
            ),
            Trouble::SnapshotHeld { version, behind, held } => write!(
                f,
                "a snapshot of version {version} has been held for {} s and is {behind} commits behind, so what it sees stays in memory \
                 and on disk. Drop old snapshots, cursors and open write transactions",
                held.as_secs()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trouble_tells_what_to_do() {
        let cause = Some(Arc::new(Error::Closed));
        let troubles = [
            (Trouble::LogStopped { cause }, "open the database again"),
            (Trouble::LogStopped { cause: None }, "refused. Look"),
            (
                Trouble::UpkeepFailing { failures: 3, last_error: "disk full".to_owned() },
                "3 times in a row (disk full)",
            ),
            (
                Trouble::CheckpointFailing { log_bytes: 7, last_error: "disk full".to_owned() },
                "failed (disk full)",
            ),
            (Trouble::MemoryFull { bytes: 9, max: 8 }, "9 bytes of memory, and may take 8"),
            (Trouble::LookupsByName { volumes: 2, lookups: 9 }, "`Database::refresh`"),
            (
                Trouble::SnapshotHeld { version: Version(7), behind: 90, held: Duration::from_secs(601) },
                "version 7 has been held for 601 s",
            ),
        ];
        for (trouble, text) in &troubles {
            assert!(trouble.to_string().contains(text), "{trouble}");
        }
        let health = Health::from(troubles.map(|(trouble, _)| trouble).to_vec());
        assert_eq!(health.to_string().lines().filter(|line| line.starts_with("degraded: ")).count(), 7);
        assert!(!health.is_ok() && Health::from(Vec::new()).is_ok());
        assert_eq!(Health::Ok.to_string(), "ok");
    }
}
