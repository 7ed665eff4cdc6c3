//! A disk in memory that loses on command what a power cut would lose, and fails when asked to.
//!
//! Parts
//! * `content`: bytes, in pages that copies share.
//! * `file`, `names`: what programs see, what is durable, and the changes between the two.
//! * `cut`, `faults`, `hold`: power cuts, calls that fail, syncs that take long.
//! * `calls`: what is counted and traced.
//! * `state`, `handle`: all of it together, and what programs see of it.
//!
//! What is modelled and what is not: `design/io.md`. Locks: the disk's state, then a file's, which is only touched under the
//! disk's.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh64::Xxh64;

use super::tree::Tree;
use content::Content;
use state::{PowerCut, State, Watcher};

mod calls;
mod content;
mod cut;
mod faults;
mod file;
mod handle;
mod hold;
mod names;
pub(super) mod random;
mod state;
#[cfg(test)]
mod tests;

pub use calls::{Call, CallKind};
pub use cut::CutState;
pub use faults::Fault;
pub use hold::SyncHold;

/// A disk for crash tests: of the engine, and of programs that embed it.
///
/// Programs see it as any other disk: a write is read back at once. Beside that it knows what is *durable*: the bytes of
/// files that were synced and the names of folders that were synced. [`after_power_cut`](Self::after_power_cut) gives the
/// disk that a machine could find if the power were cut now. Clones are handles to the same disk; paths start at the root,
/// `/`, which exists.
///
/// Every call that changes something or syncs has a number, counted from 1 (see [`CallKind`]); a test runs once to learn
/// how many there are, and then once for each, with the power cut at that call or a fault in it:
///
/// ```
/// use chronolith::io::{CutState, SimulatedDisk, Vfs, VfsFile};
///
/// /// Replaces the file `/state`, so that a power cut leaves the old one or the new one.
/// fn replace(disk: &SimulatedDisk, bytes: &[u8]) -> chronolith::Result<()> {
///     disk.remove("/new".as_ref())?; // what an earlier attempt left
///     let file = disk.create("/new".as_ref())?;
///     file.write_at(0, bytes)?;
///     file.sync()?;
///     disk.rename("/new".as_ref(), "/state".as_ref())?;
///     disk.sync_dir("/".as_ref())
/// }
///
/// let base = SimulatedDisk::new(42);
/// replace(&base, b"old")?;
/// let whole = base.after_power_cut(CutState::All, 0);
/// replace(&whole, b"new")?;
/// for call in 1..=whole.calls() {
///     let disk = base.after_power_cut(CutState::All, 0);
///     disk.cut_power_at(call);
///     assert!(replace(&disk, b"new").is_err());
///     for state in CutState::ALL {
///         let found = disk.after_power_cut(state, 1);
///         let bytes = found.map("/state".as_ref())?;
///         assert!(&*bytes == b"old" || &*bytes == b"new");
///     }
/// }
/// # Ok::<(), chronolith::Error>(())
/// ```
///
/// Where a run is long, [`watch`](Self::watch) visits all its power cuts in one run.
///
/// # Failed syncs
/// A sync of a file that fails loses the changes it was about: the file reads as before, but a later sync, though it
/// succeeds, does not make them durable. That is what Linux does. Only writing the same bytes again does. A failed
/// [`Vfs::sync_dir`](super::Vfs::sync_dir) loses nothing; the next one makes the names durable.
///
/// # Cost
/// A new disk shares all bytes with the one it comes from: it costs the pages of 4 KiB that differ, and a little for each
/// name.
#[derive(Clone)]
pub struct SimulatedDisk {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// A sync came, or may go on.
    changed: Condvar,
}

impl SimulatedDisk {
    /// An empty disk. All that is random about it follows from `seed`.
    pub fn new(seed: u64) -> Self {
        SimulatedDisk::with(State::new(seed, Tree::new(), 0))
    }

    fn with(state: State) -> Self {
        SimulatedDisk { shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Power cuts.
impl SimulatedDisk {
    /// Cuts the power at a call: from the one with this number on all calls, reads too, fail and change nothing. 0 or a
    /// number that has passed cuts it at once. Replaces an earlier request.
    pub fn cut_power_at(&self, call: u64) {
        self.lock().cut = PowerCut::At(call);
    }

    /// As [`cut_power_at`](Self::cut_power_at), but if that call is a write, a random first part of its bytes, neither none
    /// nor all, gets through (not synced, of course).
    pub fn cut_power_within(&self, call: u64) {
        self.lock().cut = PowerCut::Within(call);
    }

    /// Turns the power on again, or takes back a request to cut it. Nothing is lost: a cut and this is what the death of a
    /// process at that call looks like to the next one. A power cut is [`after_power_cut`](Self::after_power_cut).
    pub fn restore_power(&self) {
        self.lock().cut = PowerCut::Never;
    }

    /// Whether calls get through.
    pub fn power_is_on(&self) -> bool {
        self.lock().power_is_on()
    }

    /// A disk that a machine could find if the power were cut now. All of it is durable, its power is on, its locks are
    /// free, its counters are 0, and it has no faults, capacity, trace or watcher. This disk stays as it is, and what
    /// happens to one of them does not change the other.
    ///
    /// `seed` chooses among the possibilities where there are more than one ([`CutState::is_random`]).
    pub fn after_power_cut(&self, cut: CutState, seed: u64) -> SimulatedDisk {
        let found = self.lock().after_power_cut(cut, seed);
        SimulatedDisk::with(found)
    }

    /// Equal for disks on which programs find the same: the same paths with the same bytes. Differing disks have it in
    /// common once in 2^64 pairs. What is durable does not matter. Pages that were there when it was last asked for cost
    /// next to nothing.
    pub fn fingerprint(&self) -> u64 {
        let state = self.lock();
        let mut hasher = Xxh64::new(0);
        let mut add = |path: &Path, content: Option<&Content>| {
            let path = path.as_os_str().as_encoded_bytes();
            hasher.update(&(path.len() as u64).to_le_bytes());
            hasher.update(path);
            hasher.update(&content.map_or(0, Content::hash).to_le_bytes());
        };
        state.names.seen.folders().iter().for_each(|path| add(path, None));
        state.names.seen.files().iter().for_each(|(path, file)| add(path, Some(&file.state().cached)));
        hasher.digest()
    }
}

/// Faults.
impl SimulatedDisk {
    /// Lets the call with this number fail, and with `sticky` each later one too. It changes nothing then, but see
    /// [`Fault::ShortWrite`], [`Fault::Interrupted`] and, for syncs, [`SimulatedDisk`]. Of several faults for one call the
    /// first asked for counts.
    pub fn fail(&self, call: u64, fault: Fault, sticky: bool) {
        self.lock().faults.plan(call, fault, sticky);
    }

    /// Takes back all faults asked for. What failed syncs lost stays lost.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// Limits the sum of all lengths of files, in bytes, and takes the limit away with `None`. What would go beyond fails
    /// with `StorageFull`: a write after writing what fits, a change of length, and on a full disk the creation of a file.
    /// Overwriting needs no space.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Holds all syncs of files that begin from now on, until the returned value is dropped.
    #[must_use = "dropping it lets the syncs go on"]
    pub fn hold_syncs(&self) -> SyncHold {
        SyncHold::new(self.clone())
    }
}

/// What was done.
impl SimulatedDisk {
    /// The number of the last call, which is how many there were. Calls after the power is cut do not count.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// The number of calls of [`VfsFile::sync`](super::VfsFile::sync), failed ones included.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// The number of calls of [`Vfs::sync_dir`](super::Vfs::sync_dir), failed ones included.
    pub fn dir_syncs(&self) -> u64 {
        self.lock().dir_syncs
    }

    /// The bytes written to files.
    pub fn bytes_written(&self) -> u64 {
        self.lock().bytes_written
    }

    /// The sum of the lengths of all files that have names, in bytes.
    pub fn bytes_allocated(&self) -> u64 {
        self.lock().allocated
    }

    /// The number of calls that were interrupted and repeated ([`Fault::Interrupted`]).
    pub fn interrupted(&self) -> u64 {
        self.lock().interrupted
    }

    /// All files with their lengths in bytes, in the order of their paths.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.lock();
        let files = state.names.seen.files();
        files.into_iter().map(|(path, file)| (path, file.state().cached.len())).collect()
    }

    /// Whether calls that only look count too, and so can fail. Off at first.
    pub fn count_reads(&self, count: bool) {
        self.lock().count_reads = count;
    }

    /// Begins, or ends and forgets, a trace of all calls that count.
    pub fn record_trace(&self, record: bool) {
        self.lock().trace = record.then(Vec::new);
    }

    /// The calls since [`record_trace`](Self::record_trace), with those that failed; empty if there is no trace.
    pub fn trace(&self) -> Vec<Call> {
        self.lock().trace.clone().unwrap_or_default()
    }

    /// Has `watcher` called after each call that counts, with its number and before its caller goes on, in place of an
    /// earlier watcher. It may ask the disk for anything, such as the states that a power cut would leave now, but must
    /// not use it as a [`Vfs`](super::Vfs): that would be watched as well. Threads may call it at the same time.
    ///
    /// ```
    /// # use std::sync::{Arc, Mutex};
    /// use chronolith::io::{CutState, SimulatedDisk, Vfs, VfsFile};
    ///
    /// let disk = SimulatedDisk::new(1);
    /// let lengths = Arc::new(Mutex::new(Vec::new()));
    /// let seen = lengths.clone();
    /// disk.watch(move |disk, _| {
    ///     let found = disk.after_power_cut(CutState::None, 0);
    ///     seen.lock().unwrap().push(found.bytes_allocated());
    /// });
    /// let file = disk.create("/a".as_ref())?;
    /// disk.sync_dir("/".as_ref())?;
    /// file.write_at(0, b"hello")?;
    /// file.sync()?;
    /// assert_eq!(*lengths.lock().unwrap(), [0, 0, 0, 5]);
    /// # Ok::<(), chronolith::Error>(())
    /// ```
    pub fn watch(&self, watcher: impl Fn(&SimulatedDisk, u64) + Send + Sync + 'static) {
        self.lock().watcher = Some(Watcher(Arc::new(watcher)));
    }

    /// Takes the watcher away.
    pub fn unwatch(&self) {
        self.lock().watcher = None;
    }
}

impl Default for SimulatedDisk {
    /// An empty disk with seed 0.
    fn default() -> Self {
        SimulatedDisk::new(0)
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let mut debug = f.debug_struct("SimulatedDisk");
        debug.field("seed", &state.seed).field("calls", &state.calls).field("allocated", &state.allocated);
        debug.field("power_is_on", &state.power_is_on()).finish_non_exhaustive()
    }
}
