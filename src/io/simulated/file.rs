//! A simulated file: what programs see, what the disk has, and the changes between the two.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::content::Content;
use super::cut::CutState;
use super::random::Random;

/// What a disk writes entirely or not at all, in bytes.
const SECTOR: u64 = 512;

/// A file, whatever its name, until the last name, handle and pending change of names is gone.
#[derive(Debug)]
pub(super) struct SimulatedFile {
    /// Different from that of every other file of the disk.
    pub(super) id: u64,
    state: Mutex<FileState>,
}

/// The state of a [`SimulatedFile`].
#[derive(Debug, Default)]
pub(super) struct FileState {
    /// What programs read.
    pub(super) cached: Content,
    /// What a power cut leaves for certain.
    durable: Content,
    /// What happened since, in order.
    unsynced: Vec<Change>,
    /// The number of changes ever made.
    changes: u64,
    /// How many names lead to it. Without any its length does not count as allocated.
    pub(super) names: u32,
    /// Whether somebody holds its lock.
    pub(super) locked: bool,
}

/// A change that is not durable.
#[derive(Debug)]
struct Change {
    number: u64,
    /// A sync failed after it: the system believes it has written it, and never will.
    lost: bool,
    what: What,
}

#[derive(Debug)]
enum What {
    Bytes { offset: u64, bytes: Box<[u8]> },
    Length(u64),
}

impl SimulatedFile {
    /// An empty file, just named.
    pub(super) fn new(id: u64) -> Arc<Self> {
        let state = FileState { names: 1, ..FileState::default() };
        Arc::new(SimulatedFile { id, state: Mutex::new(state) })
    }

    /// A file as found after a power cut: all of it durable. Of a file with several names there is one under each, equal to the others: who gave it a second
    /// name does not write to it any more.
    pub(super) fn found(id: u64, content: Content) -> Arc<Self> {
        let state = FileState { cached: content.clone(), durable: content, names: 1, ..FileState::default() };
        Arc::new(SimulatedFile { id, state: Mutex::new(state) })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, FileState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileState {
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.cached.write_at(offset, bytes);
            self.push(What::Bytes { offset, bytes: bytes.into() });
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.cached.set_len(len);
        self.push(What::Length(len));
    }

    fn push(&mut self, what: What) {
        self.unsynced.push(Change { number: self.changes, lost: false, what });
        self.changes += 1;
    }

    /// The number of changes so far: those that a sync beginning now is about.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// A sync succeeded: the first `upto` changes become durable, except for the lost ones, which are forgotten.
    pub(super) fn make_durable(&mut self, upto: u64) {
        let count = self.unsynced.partition_point(|change| change.number < upto);
        for change in self.unsynced.drain(..count).filter(|change| !change.lost) {
            change.what.apply(&mut self.durable);
        }
    }

    /// A sync failed: the first `upto` changes will never become durable.
    pub(super) fn lose(&mut self, upto: u64) {
        let count = self.unsynced.partition_point(|change| change.number < upto);
        self.unsynced.iter_mut().take(count).for_each(|change| change.lost = true);
    }

    /// What the disk could have of the file after a power cut.
    pub(super) fn after_power_cut(&self, cut: CutState, random: &mut Random) -> Content {
        let mut found = self.durable.clone();
        match cut {
            CutState::None => {}
            CutState::All | CutState::BytesOnly => {
                let kept = self.unsynced.iter().filter(|change| !change.lost);
                kept.for_each(|change| change.what.apply(&mut found));
            }
            CutState::NamesOnly | CutState::Short | CutState::Garbage => {
                self.unsynced.iter().for_each(|change| change.what.apply_length(&mut found));
                let durable = self.durable.len();
                if found.len() > durable {
                    match cut {
                        CutState::Short => found.set_len(durable),
                        CutState::Garbage => {
                            let mut garbage = vec![0; (found.len() - durable) as usize];
                            random.fill(&mut garbage);
                            found.write_at(durable, &garbage);
                        }
                        _ => {}
                    }
                }
            }
            CutState::Random => self.random_changes(&mut found, random),
        }
        found
    }

    /// Applies a random choice of the changes, some of them in part.
    fn random_changes(&self, found: &mut Content, random: &mut Random) {
        // Some files lose nearly all, some nearly nothing.
        let kept_of_ten = [0, 5, 5, 9, 10][random.below(5) as usize];
        for change in &self.unsynced {
            if !change.lost && random.chance(kept_of_ten) {
                match &change.what {
                    What::Bytes { offset, bytes } if random.chance(3) => torn(found, *offset, bytes, random),
                    what => what.apply(found),
                }
            } else if matches!(change.what, What::Bytes { .. }) && random.chance(5) {
                change.what.apply_length(found);
            }
        }
    }
}

impl What {
    fn apply(&self, content: &mut Content) {
        match self {
            What::Bytes { offset, bytes } => content.write_at(*offset, bytes),
            What::Length(len) => content.set_len(*len),
        }
    }

    /// The change without its bytes.
    fn apply_length(&self, content: &mut Content) {
        match self {
            What::Bytes { offset, bytes } => content.grow(offset + bytes.len() as u64),
            What::Length(len) => content.set_len(*len),
        }
    }
}

/// Writes some sectors of `bytes`: the first ones, the last ones, or any.
fn torn(content: &mut Content, offset: u64, bytes: &[u8], random: &mut Random) {
    enum Kept {
        First(u64),
        Last(u64),
        Any,
    }
    let sectors = (offset + bytes.len() as u64).div_ceil(SECTOR) - offset / SECTOR;
    let kept = match random.below(3) {
        0 => Kept::First(random.below(sectors + 1)),
        1 => Kept::Last(random.below(sectors + 1)),
        _ => Kept::Any,
    };
    let mut at = 0;
    for sector in 0..sectors {
        let position = offset + at as u64;
        let len = (SECTOR - position % SECTOR).min((bytes.len() - at) as u64) as usize;
        let keep = match kept {
            Kept::First(count) => sector < count,
            Kept::Last(count) => sector >= sectors - count,
            Kept::Any => random.chance(5),
        };
        if keep {
            content.write_at(position, &bytes[at..at + len]);
        }
        at += len;
    }
    if random.chance(5) {
        content.grow(offset + bytes.len() as u64);
    }
}
