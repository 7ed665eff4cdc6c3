//! Files in memory, for as long as somebody holds the disk or a file of it.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::tree::{NameChange, Tree};
use super::{Mapping, MappingKind, Vfs, VfsFile, VfsLock, end_of, not_writable, op};
use crate::error::{Error, Result};

/// A disk in memory. Clones share the files; there is nothing to sync, and what is in it goes with the last clone and handle.
///
/// Paths start at the root, `/`, which exists. A file takes as much memory as it has bytes, holes included, in one piece;
/// mapping it copies nothing.
///
/// ```
/// use chronolith::io::{MemoryDisk, Vfs};
///
/// let disk = MemoryDisk::default();
/// disk.create("/greeting".as_ref())?.write_at(0, b"hello")?;
/// assert_eq!(&*disk.map("/greeting".as_ref())?, b"hello");
/// # Ok::<(), chronolith::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    tree: Arc<Mutex<Tree<Arc<MemoryFile>>>>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        MemoryDisk { tree: Arc::new(Mutex::new(Tree::new())) }
    }

    fn tree(&self) -> MutexGuard<'_, Tree<Arc<MemoryFile>>> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryDisk {
    fn default() -> Self {
        MemoryDisk::new()
    }
}

/// The bytes of a file, and who has locked it.
#[derive(Debug, Default)]
struct MemoryFile {
    /// Shared with mappings: a change copies the bytes if there are any.
    bytes: RwLock<Arc<Vec<u8>>>,
    locked: AtomicBool,
}

impl MemoryFile {
    fn bytes(&self) -> Arc<Vec<u8>> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Vfs for MemoryDisk {
    fn create_dir_all(&self, path: &Path) -> Result<()> {
        let mut tree = self.tree();
        let changes = tree.make_folders(path).map_err(|source| Error::io(op::CREATE_FOLDER, path, source))?;
        changes.iter().for_each(|change| tree.apply(change));
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> Result<Option<Vec<OsString>>> {
        self.tree().names(path).map_err(|source| Error::io(op::LIST, path, source))
    }

    fn create(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        let file = Arc::new(MemoryFile::default());
        let mut tree = self.tree();
        let change = tree.link(path, file.clone()).map_err(|source| Error::io(op::CREATE, path, source))?;
        tree.apply(&change);
        Ok(Box::new(MemoryHandle { file, path: path.to_owned(), writable: true }))
    }

    fn open(&self, path: &Path, write: bool) -> Result<Option<Box<dyn VfsFile>>> {
        let file = self.tree().file(path).map_err(|source| Error::io(op::OPEN, path, source))?;
        Ok(file.map(|file| -> Box<dyn VfsFile> {
            Box::new(MemoryHandle { file, path: path.to_owned(), writable: write })
        }))
    }

    fn map(&self, path: &Path) -> Result<Mapping> {
        let file = self.tree().file(path).and_then(|file| Ok(file.ok_or(io::ErrorKind::NotFound)?));
        let file = file.map_err(|source| Error::io(op::MAP, path, source))?;
        Ok(Mapping(MappingKind::Shared(file.bytes())))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut tree = self.tree();
        let change = tree.rename(from, to).map_err(|source| Error::io(op::RENAME, from, source))?;
        if let Some((change, _)) = change {
            tree.apply(&change);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut tree = self.tree();
        let change = tree.unlink(path).map_err(|source| Error::io(op::REMOVE, path, source))?;
        if let Some((change, _)) = change {
            tree.apply(&change);
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let folder = self.tree().folder(path).and_then(|folder| Ok(folder.ok_or(io::ErrorKind::NotFound)?));
        folder.map(drop).map_err(|source| Error::io(op::SYNC_FOLDER, path, source))
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn VfsLock>>> {
        let failed = |source| Error::io(op::LOCK, path, source);
        let mut tree = self.tree();
        let file = match tree.file(path).map_err(failed)? {
            Some(file) => file,
            None => {
                let file = Arc::new(MemoryFile::default());
                let change: NameChange<_> = tree.link(path, file.clone()).map_err(failed)?;
                tree.apply(&change);
                file
            }
        };
        // Acquire, with the release in the lock's drop: who has the lock sees what the one before did.
        let free = !file.locked.swap(true, Ordering::Acquire);
        Ok(free.then(|| -> Box<dyn VfsLock> { Box::new(MemoryLock { file }) }))
    }
}

/// An open file.
#[derive(Debug)]
struct MemoryHandle {
    file: Arc<MemoryFile>,
    path: PathBuf,
    writable: bool,
}

impl MemoryHandle {
    /// Changes the bytes, after making them at least `len` long.
    fn change(&self, op: &'static str, len: u64, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let failed = |source| Error::io(op, &self.path, source);
        if !self.writable {
            return Err(failed(not_writable()));
        }
        let mut bytes = self.file.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let bytes = Arc::make_mut(&mut bytes);
        let no_memory = |_| failed(io::ErrorKind::OutOfMemory.into());
        let len = usize::try_from(len).map_err(|_| failed(io::ErrorKind::FileTooLarge.into()))?;
        if let Some(more) = len.checked_sub(bytes.len()) {
            bytes.try_reserve(more).map_err(no_memory)?;
            bytes.resize(len, 0);
        }
        change(bytes);
        Ok(())
    }
}

impl VfsFile for MemoryHandle {
    fn len(&self) -> Result<u64> {
        Ok(self.file.bytes().len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let bytes = self.file.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = end_of(offset, bytes.len()).map_err(|source| Error::io(op::WRITE, &self.path, source))?;
        // Writing nothing does not grow a file.
        let len = if bytes.is_empty() { 0 } else { end };
        self.change(op::WRITE, len, |all| {
            if !bytes.is_empty() {
                all[offset as usize..end as usize].copy_from_slice(bytes);
            }
        })
    }

    fn set_len(&self, len: u64) -> Result<()> {
        end_of(len, 0).map_err(|source| Error::io(op::RESIZE, &self.path, source))?;
        self.change(op::RESIZE, len, |all| all.truncate(len as usize))
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

/// A lock on a file.
#[derive(Debug)]
struct MemoryLock {
    file: Arc<MemoryFile>,
}

impl VfsLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        // Release: partner of the swap in `try_lock`.
        self.file.locked.store(false, Ordering::Release);
    }
}
