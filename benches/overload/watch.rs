//! The most memory that a process takes, of its own and as the database counts it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chronolith::Database;

#[derive(Debug, Default)]
pub(crate) struct Watch {
    done: AtomicBool,
    anonymous: AtomicU64,
    counted: AtomicU64,
}

impl Watch {
    /// Looks a hundred times a second until told to stop; what the database counts, which takes a walk over all metrics, ten times.
    pub(crate) fn run(&self, db: Option<&Database>) {
        for look in 0u64.. {
            self.anonymous.fetch_max(anonymous(), Ordering::Relaxed);
            if let (Some(db), 0) = (db, look % 10) {
                self.counted.fetch_max(db.stats().memory_bytes, Ordering::Relaxed);
            }
            if self.done.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn stop(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    pub(crate) fn anonymous_mib(&self) -> u64 {
        self.anonymous.load(Ordering::Relaxed) >> 20
    }

    pub(crate) fn counted_mib(&self) -> u64 {
        self.counted.load(Ordering::Relaxed) >> 20
    }
}

/// Bytes of memory that no file lies behind.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
