//! A disk that is looked at before each call that changes or syncs something: what could a machine find if the power
//! went now?

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chronolith::Result;
use chronolith::io::{CutState, Mapping, SimulatedDisk, Vfs, VfsFile, VfsLock};

use super::torture::acks::Ack;
use super::torture::random::Random;
use super::torture::writer::Acknowledge;

/// What a machine could find.
pub struct State {
    pub disk: SimulatedDisk,
    /// What was acknowledged before.
    pub acks: Vec<Ack>,
    /// In words.
    pub when: String,
}

impl State {
    /// What distinguishes it from the other states of a run: the bytes there, and how much was acknowledged.
    pub fn identity(&self) -> (u64, usize) {
        (self.disk.fingerprint(), self.acks.len())
    }
}

/// Does `work` on a disk, and returns all different states that power cuts in it could leave: of each call
/// `random_states` random ones, beside the others.
pub fn observe<T>(
    disk: &SimulatedDisk,
    seed: u64,
    random_states: u64,
    acks: &[Ack],
    work: impl FnOnce(Arc<dyn Vfs>, &mut Acks) -> T,
) -> (Vec<State>, T) {
    let acks = Acks(Arc::new(Mutex::new(acks.to_vec())));
    let watch = Watch { disk: disk.clone(), seed, random_states, acks: acks.clone(), ..Watch::default() };
    let observed = Observed { disk: disk.clone(), watch: Arc::new(Mutex::new(watch)) };
    let done = work(Arc::new(observed.clone()), &mut acks.clone());
    observed.look("end");
    (std::mem::take(&mut observed.watch().states), done)
}

/// Acknowledged ops, for the one who works and the one who watches.
#[derive(Clone, Debug, Default)]
pub struct Acks(Arc<Mutex<Vec<Ack>>>);

impl Acks {
    pub fn get(&self) -> Vec<Ack> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Acknowledge for Acks {
    fn acknowledge(&mut self, ack: Ack) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(ack);
        Ok(())
    }
}

/// The states seen so far.
#[derive(Default)]
struct Watch {
    disk: SimulatedDisk,
    seed: u64,
    random_states: u64,
    acks: Acks,
    calls: u64,
    /// The identities of the states.
    seen: HashSet<(u64, usize)>,
    states: Vec<State>,
}

impl Watch {
    fn look(&mut self, call: &str) {
        self.calls += 1;
        // Before the disk is looked at: what threads acknowledge after it need not be there.
        let acks = self.acks.get();
        for cut in CutState::ALL {
            let seeds = if cut == CutState::Random { self.random_states } else { 1 };
            for part in 0..seeds {
                let seed = Random::of(self.seed, part as u32, self.calls, 0).next();
                let disk = self.disk.after_power_cut(cut, seed);
                let when = format!("cut before call {} ({call}), {cut:?} {part}", self.calls);
                let state = State { disk, acks: acks.clone(), when };
                if self.seen.insert(state.identity()) {
                    self.states.push(state);
                }
            }
        }
    }
}

/// A disk that is looked at before each call that changes or syncs something.
#[derive(Clone)]
struct Observed {
    disk: SimulatedDisk,
    watch: Arc<Mutex<Watch>>,
}

impl std::fmt::Debug for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.disk.fmt(f)
    }
}

impl Observed {
    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, call: &str) {
        self.watch().look(call);
    }

    fn file(&self, file: Box<dyn VfsFile>) -> Box<dyn VfsFile> {
        Box::new(ObservedFile { file, disk: self.clone() })
    }
}

impl Vfs for Observed {
    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.look("create folder");
        self.disk.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> Result<Option<Vec<OsString>>> {
        self.disk.read_dir(path)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        self.look("create");
        Ok(self.file(self.disk.create(path)?))
    }

    fn open(&self, path: &Path, write: bool) -> Result<Option<Box<dyn VfsFile>>> {
        Ok(self.disk.open(path, write)?.map(|file| self.file(file)))
    }

    fn map(&self, path: &Path) -> Result<Mapping> {
        self.disk.map(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.look("rename");
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.look("remove");
        self.disk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.look("sync folder");
        self.disk.sync_dir(path)
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn VfsLock>>> {
        self.look("lock");
        self.disk.try_lock(path)
    }
}

#[derive(Debug)]
struct ObservedFile {
    file: Box<dyn VfsFile>,
    disk: Observed,
}

impl VfsFile for ObservedFile {
    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.disk.look("write");
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.disk.look("set length");
        self.file.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        self.disk.look("sync");
        self.file.sync()
    }
}
