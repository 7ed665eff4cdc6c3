//! Which volumes are kept open.
//!
//! Invariants
//! * The volumes that slots hold are those of the list, and at most `max`. Both change under the list's lock only.
//! * Under neither lock is there I/O: files are opened before and closed after.
//!
//! A use costs a volume's own lock, and touches nothing that all share but a count that changes with openings. So how long a volume has been
//! unused is told in openings: of those not used since the same one, the one opened first goes first.

use std::collections::BTreeMap;

use crate::fileset::Volume;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};

/// See the module.
#[derive(Debug)]
pub(super) struct OpenVolumes {
    max: usize,
    /// How many there were: the clock that tells uses apart. Relaxed, as `Slot::used`: a use that is told late may close the wrong volume, which is
    /// then opened again.
    openings: AtomicU64,
    /// By the number of their opening.
    list: Mutex<BTreeMap<u64, Arc<Slot>>>,
}

/// A volume's place among them.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// `None` if it is closed.
    opened: Mutex<Option<Opened>>,
    /// How many openings there had been at its last use.
    used: AtomicU64,
    /// Held by who opens it, over I/O.
    pub(super) opening: Mutex<()>,
}

#[derive(Debug)]
struct Opened {
    volume: Arc<Volume>,
    /// Its key in the list.
    number: u64,
}

impl OpenVolumes {
    /// Keeps at most `max` open, and at least one.
    pub(super) fn new(max: usize) -> Self {
        OpenVolumes { max: max.max(1), openings: AtomicU64::new(0), list: Mutex::default() }
    }

    /// The volume, if it is open.
    pub(super) fn get(&self, slot: &Slot) -> Option<Arc<Volume>> {
        let volume = slot.opened.lock().as_ref()?.volume.clone();
        let now = self.openings.load(Ordering::Relaxed);
        if slot.used.load(Ordering::Relaxed) != now {
            slot.used.store(now, Ordering::Relaxed);
        }
        Some(volume)
    }

    /// Keeps a volume open that was opened, and closes the one longest unused if there are too many.
    pub(super) fn keep(&self, slot: &Arc<Slot>, volume: &Arc<Volume>) {
        let mut closed = Vec::new();
        let mut list = self.list.lock();
        closed.extend(self.take(&mut list, slot));
        while list.len() >= self.max {
            let used = |slot: &Slot| slot.used.load(Ordering::Relaxed);
            let Some((_, unused)) = list.iter().min_by_key(|(_, slot)| used(slot)) else { break };
            let unused = unused.clone();
            closed.extend(self.take(&mut list, &unused));
        }
        let number = self.openings.fetch_add(1, Ordering::Relaxed) + 1;
        slot.used.store(number, Ordering::Relaxed);
        *slot.opened.lock() = Some(Opened { volume: volume.clone(), number });
        list.insert(number, slot.clone());
        drop(list);
        drop(closed);
    }

    /// Closes a volume if it is open.
    pub(super) fn close(&self, slot: &Slot) {
        let closed = self.take(&mut self.list.lock(), slot);
        drop(closed);
    }

    /// Whether none is closed for another.
    pub(super) fn is_unlimited(&self) -> bool {
        self.max == usize::MAX
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.list.lock().len()
    }

    /// Takes a volume out of its slot and the list.
    fn take(&self, list: &mut BTreeMap<u64, Arc<Slot>>, slot: &Slot) -> Option<Opened> {
        let opened = slot.opened.lock().take()?;
        list.remove(&opened.number);
        Some(opened)
    }
}
