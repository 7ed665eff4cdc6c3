//! What the process and a folder take.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use chronolith::{Database, Trouble};
use rustix::time::{ClockId, clock_gettime};

/// How often the memory of the process is looked at.
const EVERY: Duration = Duration::from_millis(2);

/// Anonymous memory of this process that is resident, in bytes; 0 where there is no `/proc`.
pub(crate) fn anonymous_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The time that processors spent on this process.
pub(crate) fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The most memory since it was last asked for, looked at every few milliseconds by a thread of its own: a commit may wait for long while
/// others work.
#[derive(Default)]
pub(crate) struct Peak {
    counted: AtomicU64,
    anonymous: AtomicU64,
    done: AtomicBool,
}

/// The most that a database counted, and of the anonymous memory of its process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Most {
    pub(crate) counted: u64,
    pub(crate) anonymous: u64,
}

impl Peak {
    /// Runs `work` with it.
    pub(crate) fn during<T>(db: &Database, work: impl FnOnce(&Peak) -> T) -> T {
        let peak = Peak::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                while !peak.done.load(Ordering::Relaxed) {
                    peak.anonymous.fetch_max(anonymous_bytes(), Ordering::Relaxed);
                    // Statistics wait for partitions that are being copied, which is when there is most; health does not.
                    for trouble in db.health().troubles() {
                        if let Trouble::MemoryFull { bytes, .. } = trouble {
                            peak.counted.fetch_max(*bytes, Ordering::Relaxed);
                        }
                    }
                    thread::sleep(EVERY);
                }
            });
            let end = End(&peak.done);
            let done = work(&peak);
            drop(end);
            done
        })
    }

    /// Looks now.
    pub(crate) fn look(&self, db: &Database) {
        self.anonymous.fetch_max(anonymous_bytes(), Ordering::Relaxed);
        self.counted.fetch_max(db.stats().memory_bytes, Ordering::Relaxed);
    }

    /// The most since the last call.
    pub(crate) fn take(&self) -> Most {
        let take = |most: &AtomicU64| most.swap(0, Ordering::Relaxed);
        Most { counted: take(&self.counted), anonymous: take(&self.anonymous) }
    }
}

/// Ends the looking, also when the work panics.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Files in a folder and those below it, and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Files {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

impl Files {
    /// What there is now; nothing if there is no such folder.
    pub(crate) fn of(folder: &Path) -> Files {
        let mut files = Files::default();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            // A file may be removed meanwhile.
            let Ok(meta) = entry.metadata() else { continue };
            let Files { count, bytes } = match meta.is_dir() {
                true => Files::of(&entry.path()),
                false => Files { count: 1, bytes: meta.len() },
            };
            files.count += count;
            files.bytes += bytes;
        }
        files
    }
}

/// Copies a folder with all that is in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("listed")) {
        let to = to.join(entry.file_name());
        match entry.file_type().expect("known").is_dir() {
            true => copy_folder(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).expect("copied")),
        }
    }
}
