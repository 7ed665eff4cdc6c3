//! Syncs that take as long as a test wants.

use std::fmt;
use std::sync::PoisonError;
use std::time::Duration;

use super::SimulatedDisk;
use super::state::State;

/// The syncs that wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// The number of guards that hold.
    guards: usize,
    /// The number of syncs that came while there were guards.
    came: u64,
    /// How many of them may go on.
    free: u64,
}

impl Holds {
    /// A sync comes: its place in the line, if it has to wait.
    pub(super) fn come(&mut self) -> Option<u64> {
        (self.guards > 0).then(|| {
            self.came += 1;
            self.came
        })
    }

    pub(super) fn is_waiting(&self, place: u64) -> bool {
        place > self.free
    }
}

/// Keeps every sync of a file from returning until it is dropped, to test what goes on meanwhile; from
/// [`SimulatedDisk::hold_syncs`]. Reads, writes and syncs of folders are not held.
///
/// A held sync has begun: it is about the changes made before it was called, and whether it fails was decided then. They
/// are durable when it returns, unless the power is cut while it is held: then it fails.
pub struct SyncHold {
    disk: SimulatedDisk,
}

impl SyncHold {
    pub(super) fn new(disk: SimulatedDisk) -> Self {
        disk.lock().holds.guards += 1;
        SyncHold { disk }
    }

    /// The number of syncs that wait.
    pub fn waiting(&self) -> usize {
        waiting(&self.disk.lock())
    }

    /// Waits until at least `count` syncs wait; false if that does not happen within `at_most`.
    #[must_use]
    pub fn wait_for(&self, count: usize, at_most: Duration) -> bool {
        let changed = &self.disk.shared.changed;
        let wait = changed.wait_timeout_while(self.disk.lock(), at_most, |state| waiting(state) < count);
        !wait.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Lets the sync that has waited longest go on; false if none waits.
    pub fn let_one_through(&self) -> bool {
        let mut state = self.disk.lock();
        let any = waiting(&state) > 0;
        if any {
            state.holds.free += 1;
            self.disk.shared.changed.notify_all();
        }
        any
    }

    /// Lets all syncs go on, as dropping does.
    pub fn release(self) {}
}

impl Drop for SyncHold {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        state.holds.guards -= 1;
        if state.holds.guards == 0 {
            state.holds.free = state.holds.came;
            self.disk.shared.changed.notify_all();
        }
    }
}

impl fmt::Debug for SyncHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncHold").field("waiting", &self.waiting()).finish()
    }
}

fn waiting(state: &State) -> usize {
    (state.holds.came - state.holds.free) as usize
}
