//! What programs see of a simulated disk: the disk, its open files and its locks.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use super::SimulatedDisk;
use super::calls::CallKind;
use super::file::SimulatedFile;
use super::state::{Refusal, State, power_is_off};
use crate::error::{Error, Result};
use crate::io::{Linked, Mapping, Vfs, VfsFile, VfsLock, not_writable};

impl SimulatedDisk {
    /// A call that is done entirely or not at all.
    fn call<T>(
        &self,
        kind: CallKind,
        path: &Path,
        arguments: impl FnOnce() -> String,
        work: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T> {
        self.call_in_part(kind, 0, path, arguments, |state, admitted| {
            admitted.map_err(|refusal| refusal.error)?;
            work(state)
        })
    }

    /// A call of which `work` does as much as is admitted.
    fn call_in_part<T>(
        &self,
        kind: CallKind,
        bytes: usize,
        path: &Path,
        arguments: impl FnOnce() -> String,
        work: impl FnOnce(&mut State, Result<(), Refusal>) -> io::Result<T>,
    ) -> Result<T> {
        let mut state = self.lock();
        let before = state.calls;
        let admitted = state.admit(kind, bytes);
        let number = (state.calls > before).then_some(state.calls);
        let done = work(&mut state, admitted);
        if number.is_some() {
            state.note(kind, path, arguments, &done);
        }
        drop(state);
        self.tell_watcher(number);
        done.map_err(|source| Error::io(kind.op(), path, source))
    }

    /// A call with this number, if it counted, is over.
    fn tell_watcher(&self, number: Option<u64>) {
        if let Some(number) = number {
            let watcher = self.lock().watcher.clone();
            if let Some(watcher) = watcher {
                (watcher.0)(self, number);
            }
        }
    }

    fn handle(&self, file: Arc<SimulatedFile>, path: &Path, writable: bool) -> Box<dyn VfsFile> {
        Box::new(Handle { disk: self.clone(), file, path: path.to_owned(), writable })
    }
}

impl Vfs for SimulatedDisk {
    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.call(CallKind::CreateFolder, path, String::new, |state| {
            let changes = state.names.seen.make_folders(path)?;
            changes.into_iter().for_each(|change| state.names.change(change));
            Ok(())
        })
    }

    fn read_dir(&self, path: &Path) -> Result<Option<Vec<OsString>>> {
        self.call(CallKind::List, path, String::new, |state| state.names.seen.names(path))
    }

    fn create(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        let file = self.call(CallKind::Create, path, String::new, |state| state.make_file(path))?;
        Ok(self.handle(file, path, true))
    }

    fn open(&self, path: &Path, write: bool) -> Result<Option<Box<dyn VfsFile>>> {
        let file = self.call(CallKind::Open, path, String::new, |state| {
            let file = state.names.seen.file(path)?;
            match file.as_ref().filter(|file| write && file.state().names > 1) {
                Some(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it has a second name")),
                None => Ok(file),
            }
        })?;
        Ok(file.map(|file| self.handle(file, path, write)))
    }

    fn map(&self, path: &Path) -> Result<Mapping> {
        self.call(CallKind::Map, path, String::new, |state| {
            let file = state.names.seen.file(path)?.ok_or(io::ErrorKind::NotFound)?;
            let bytes = file.state().cached.to_vec();
            Ok(Mapping::from_bytes(bytes))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let arguments = || format!("to {}", to.display());
        self.call(CallKind::Rename, from, arguments, |state| {
            if let Some((change, replaced)) = state.names.seen.rename(from, to)? {
                replaced.into_iter().for_each(|file| state.unlinked(&file));
                state.names.change(change);
            }
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> Result<Linked> {
        let arguments = || format!("as {}", to.display());
        self.call(CallKind::Link, from, arguments, |state| {
            let file = state.names.seen.file(from)?.ok_or(io::ErrorKind::NotFound)?;
            let change = state.names.seen.link(to, file.clone())?;
            file.state().names += 1;
            state.names.change(change);
            Ok(Linked::Named)
        })
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.call(CallKind::Remove, path, String::new, |state| {
            if let Some((change, removed)) = state.names.seen.unlink(path)? {
                state.unlinked(&removed);
                state.names.change(change);
            }
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.call(CallKind::SyncFolder, path, String::new, |state| {
            let folder = state.names.seen.folder(path)?.ok_or(io::ErrorKind::NotFound)?;
            state.names.make_durable(folder);
            Ok(())
        })
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn VfsLock>>> {
        let file = self.call(CallKind::Lock, path, String::new, |state| {
            let file = match state.names.seen.file(path)? {
                Some(file) => file,
                None => state.make_file(path)?,
            };
            let taken = std::mem::replace(&mut file.state().locked, true);
            Ok((!taken).then_some(file))
        })?;
        Ok(file.map(|file| -> Box<dyn VfsLock> { Box::new(Lock { disk: self.clone(), file }) }))
    }
}

/// An open file.
#[derive(Debug)]
struct Handle {
    disk: SimulatedDisk,
    file: Arc<SimulatedFile>,
    path: PathBuf,
    writable: bool,
}

impl Handle {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(not_writable()) }
    }
}

impl VfsFile for Handle {
    fn len(&self) -> Result<u64> {
        self.disk.call(CallKind::Measure, &self.path, String::new, |_| Ok(self.file.state().cached.len()))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let arguments = at(offset, buffer.len());
        self.disk.call(CallKind::Read, &self.path, arguments, |_| {
            Ok(self.file.state().cached.read_at(offset, buffer))
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let arguments = at(offset, bytes.len());
        self.disk.call_in_part(CallKind::Write, bytes.len(), &self.path, arguments, |state, admitted| {
            let mut file = self.file.state();
            match admitted {
                Ok(()) => self.check_writable().and_then(|()| state.write(&mut file, offset, bytes)),
                Err(Refusal { bytes: part, error }) => {
                    let (part, _) = bytes.split_at(part);
                    self.check_writable().and_then(|()| state.write(&mut file, offset, part)).and(Err(error))
                }
            }
        })
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.disk.call(
            CallKind::Resize,
            &self.path,
            || format!("to {len} bytes"),
            |state| {
                self.check_writable()?;
                state.set_len(&mut self.file.state(), len)
            },
        )
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.disk.lock();
        let before = state.calls;
        let mut synced = state.admit(CallKind::Sync, 0).map_err(|refusal| refusal.error);
        let number = (state.calls > before).then_some(state.calls);
        if number.is_some() {
            state.note(CallKind::Sync, &self.path, String::new, &synced);
        }
        let changes = self.file.state().changes();
        if state.power_is_on()
            && let Some(place) = state.holds.come()
        {
            let changed = &self.disk.shared.changed;
            changed.notify_all();
            let wait = changed.wait_while(state, |state| state.holds.is_waiting(place));
            state = wait.unwrap_or_else(PoisonError::into_inner);
        }
        if state.power_is_on() {
            match synced {
                Ok(()) => self.file.state().make_durable(changes),
                Err(_) => self.file.state().lose(changes),
            }
        } else {
            synced = Err(power_is_off());
        }
        drop(state);
        self.disk.tell_watcher(number);
        synced.map_err(|source| Error::io(CallKind::Sync.op(), &self.path, source))
    }
}

/// A lock on a file.
#[derive(Debug)]
struct Lock {
    disk: SimulatedDisk,
    file: Arc<SimulatedFile>,
}

impl VfsLock for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        let _state = self.disk.lock();
        self.file.state().locked = false;
    }
}

/// The arguments of a read or a write.
fn at(offset: u64, len: usize) -> impl FnOnce() -> String {
    move || format!("at {offset}, {len} bytes")
}
