//! Settings: options that can be changed while a database is open, and that it keeps.
//!
//! A setting is what was changed since the database was opened, else what the program gave when it opened it, else what the database keeps, else the default.
//! What is kept lies in a file of its own, which is replaced as a whole. Format: `design/settings.md`.

mod file;

use std::time::Duration;

use crate::error::{Error, Result};
use crate::io::machine_memory;
use crate::options::Durability;

pub(crate) use file::{FILE, SettingsFile};

/// The least that memory may be limited to.
const MEMORY_MAX_LEAST: u64 = 4 << 20;

/// Options that can be changed while a database is open: [`Database::change_settings`](crate::Database::change_settings). What is not set stays as it is.
///
/// ```
/// use chronolith::{Database, Durability, Settings};
/// # fn main() -> chronolith::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("metrics");
/// let db = Database::open(&path)?;
/// db.change_settings(Settings::new().durability(Durability::Buffered).memory_max(64 << 20))?;
/// db.close()?;
/// // It keeps them.
/// assert_eq!(Database::open(&path)?.settings().memory_max, Some(64 << 20));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// As [`Options::durability`](crate::Options::durability).
    pub durability: Option<Durability>,
    /// As [`Options::buffer_past`](crate::Options::buffer_past).
    pub buffer_past: Option<Duration>,
    /// As [`Options::refresh_bytes`](crate::Options::refresh_bytes).
    pub refresh_bytes: Option<u64>,
    /// As [`Options::memory_max`](crate::Options::memory_max).
    pub memory_max: Option<u64>,
    /// As [`Options::memory_wait`](crate::Options::memory_wait).
    pub memory_wait: Option<Duration>,
    /// As [`Options::checkpoint_log_bytes`](crate::Options::checkpoint_log_bytes).
    pub checkpoint_log_bytes: Option<u64>,
}

impl Settings {
    /// None set.
    pub fn new() -> Self {
        Settings::default()
    }

    /// Sets [`Settings::durability`].
    #[must_use]
    pub fn durability(self, durability: Durability) -> Self {
        Settings { durability: Some(durability), ..self }
    }

    /// Sets [`Settings::buffer_past`].
    #[must_use]
    pub fn buffer_past(self, buffer_past: Duration) -> Self {
        Settings { buffer_past: Some(buffer_past), ..self }
    }

    /// Sets [`Settings::refresh_bytes`].
    #[must_use]
    pub fn refresh_bytes(self, bytes: u64) -> Self {
        Settings { refresh_bytes: Some(bytes), ..self }
    }

    /// Sets [`Settings::memory_max`].
    #[must_use]
    pub fn memory_max(self, bytes: u64) -> Self {
        Settings { memory_max: Some(bytes), ..self }
    }

    /// Sets [`Settings::memory_wait`].
    #[must_use]
    pub fn memory_wait(self, wait: Duration) -> Self {
        Settings { memory_wait: Some(wait), ..self }
    }

    /// Sets [`Settings::checkpoint_log_bytes`].
    #[must_use]
    pub fn checkpoint_log_bytes(self, bytes: u64) -> Self {
        Settings { checkpoint_log_bytes: Some(bytes), ..self }
    }

    /// These, and where they are not set `other`.
    #[must_use]
    pub(crate) fn or(self, other: Settings) -> Self {
        Settings {
            durability: self.durability.or(other.durability),
            buffer_past: self.buffer_past.or(other.buffer_past),
            refresh_bytes: self.refresh_bytes.or(other.refresh_bytes),
            memory_max: self.memory_max.or(other.memory_max),
            memory_wait: self.memory_wait.or(other.memory_wait),
            checkpoint_log_bytes: self.checkpoint_log_bytes.or(other.checkpoint_log_bytes),
        }
    }

    /// # Errors
    /// [`Error::InvalidOption`].
    pub(crate) fn check(&self) -> Result<()> {
        match self.memory_max.is_none_or(|bytes| bytes >= MEMORY_MAX_LEAST) {
            true => Ok(()),
            false => Err(Error::InvalidOption { option: "memory_max", reason: "at least 4 MiB" }),
        }
    }

    /// With defaults where they are not set.
    pub(crate) fn in_force(&self) -> InForce {
        InForce {
            durability: self.durability.unwrap_or_default(),
            buffer_past: self.buffer_past.unwrap_or(Duration::from_secs(10 * 60)),
            refresh_bytes: self.refresh_bytes.unwrap_or(64 << 20),
            memory_max: self.memory_max.unwrap_or_else(quarter_of_memory).max(MEMORY_MAX_LEAST),
            memory_wait: self.memory_wait.unwrap_or(Duration::from_secs(10)),
            checkpoint_log_bytes: self.checkpoint_log_bytes.unwrap_or(256 << 20),
        }
    }
}

/// All settings as they are now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InForce {
    pub(crate) durability: Durability,
    pub(crate) buffer_past: Duration,
    pub(crate) refresh_bytes: u64,
    pub(crate) memory_max: u64,
    pub(crate) memory_wait: Duration,
    pub(crate) checkpoint_log_bytes: u64,
}

impl From<InForce> for Settings {
    fn from(in_force: InForce) -> Self {
        let InForce { durability, buffer_past, refresh_bytes, memory_max, memory_wait, checkpoint_log_bytes } =
            in_force;
        Settings {
            durability: Some(durability),
            buffer_past: Some(buffer_past),
            refresh_bytes: Some(refresh_bytes),
            memory_max: Some(memory_max),
            memory_wait: Some(memory_wait),
            checkpoint_log_bytes: Some(checkpoint_log_bytes),
        }
    }
}

/// A quarter of what this process may have.
pub(crate) fn quarter_of_memory() -> u64 {
    machine_memory().map_or(1 << 30, |bytes| bytes / 4)
}
