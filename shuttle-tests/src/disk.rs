//! A simulated disk whose calls let other threads run, and whose syncs can be held.
//!
//! [`SimulatedDisk`] answers at once and within one step of the scheduler; its own way of holding syncs blocks the thread of the operating
//! system, which all threads share here.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use chronolith::Result;
use chronolith::io::{Mapping, SimulatedDisk, Vfs, VfsFile, VfsLock};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

/// The disk; clones are handles to it.
#[derive(Clone, Debug)]
pub struct SlowDisk {
    disk: SimulatedDisk,
    hold: Arc<Hold>,
}

#[derive(Debug, Default)]
struct Hold {
    is_held: Mutex<bool>,
    released: Condvar,
}

impl SlowDisk {
    /// The same files.
    pub fn new(disk: SimulatedDisk) -> SlowDisk {
        SlowDisk { disk, hold: Arc::default() }
    }

    /// Lets no sync of a file return that ends from now on, until [`SlowDisk::release`].
    pub fn hold_syncs(&self) {
        *self.hold.is_held.lock().expect("no panic") = true;
    }

    /// Lets all syncs go on.
    pub fn release(&self) {
        *self.hold.is_held.lock().expect("no panic") = false;
        self.hold.released.notify_all();
    }

    fn file(&self, file: Box<dyn VfsFile>) -> Box<dyn VfsFile> {
        Box::new(SlowFile { file, hold: self.hold.clone() })
    }
}

impl Vfs for SlowDisk {
    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.disk.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> Result<Option<Vec<OsString>>> {
        self.disk.read_dir(path)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        Ok(self.file(self.disk.create(path)?))
    }

    fn open(&self, path: &Path, write: bool) -> Result<Option<Box<dyn VfsFile>>> {
        Ok(self.disk.open(path, write)?.map(|file| self.file(file)))
    }

    fn map(&self, path: &Path) -> Result<Mapping> {
        self.disk.map(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.disk.sync_dir(path)
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn VfsLock>>> {
        self.disk.try_lock(path)
    }
}

#[derive(Debug)]
struct SlowFile {
    file: Box<dyn VfsFile>,
    hold: Arc<Hold>,
}

impl VfsFile for SlowFile {
    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        thread::yield_now();
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len)
    }

    /// What was written when it was called is durable when it returns; others may run before, in the middle and after.
    fn sync(&self) -> Result<()> {
        let result = self.file.sync();
        let is_held = self.hold.is_held.lock().expect("no panic");
        drop(self.hold.released.wait_while(is_held, |is_held| *is_held).expect("no panic"));
        result
    }
}
