//! All file access, behind one small trait.
//!
//! [`Vfs`] is what the engine asks of a file system. [`RealDisk`] is the operating system's, [`MemoryDisk`] keeps files in
//! memory (a memory-only database has no log, and so writes none), [`SimulatedDisk`] forgets on command what a power cut
//! would forget. Nothing outside this folder names `std::fs` or `memmap2`. More: `design/io.md`.
//!
//! What the engine relies on, and no more:
//! * Bytes survive a power cut once [`VfsFile::sync`] on their file has returned `Ok`.
//! * A name (made, renamed or removed) survives a power cut once [`Vfs::sync_dir`] on its folder has returned `Ok`.
//! * A rename is atomic: afterwards the new name is the old file or the new one, never a mix.
//! * After a failed sync nothing is known about any byte not synced before, and trying again proves nothing.

use std::ffi::OsString;
use std::fmt::{self, Debug};
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use crate::error::Result;

#[cfg(test)]
mod conformance;
mod copy;
mod machine;
mod memory;
mod real;
mod simulated;
mod tree;

pub(crate) use machine::memory as machine_memory;
pub use memory::MemoryDisk;
pub use real::RealDisk;
pub use simulated::{Call, CallKind, CutState, Fault, SimulatedDisk, SyncHold};

/// A file system, as far as the engine needs one. All paths are absolute or relative to the process's folder, as given to
/// [`Options::open`](crate::Options::open).
///
/// # Errors
/// Every method returns [`Error::Io`](crate::Error::Io) with the operation and the path. Interrupted calls (`EINTR`) are
/// retried inside, short reads and writes are completed.
pub trait Vfs: Debug + Send + Sync {
    /// Makes a folder and those above it that are missing, mode 0700. It is no error if it exists.
    /// The new names are not durable before [`Vfs::sync_dir`].
    fn create_dir_all(&self, path: &Path) -> Result<()>;

    /// The names in a folder, sorted, without `.` and `..`; `None` if there is no such folder.
    fn read_dir(&self, path: &Path) -> Result<Option<Vec<OsString>>>;

    /// Makes a file that must not exist yet, mode 0600, for reading and writing.
    fn create(&self, path: &Path) -> Result<Box<dyn VfsFile>>;

    /// Opens a file for reading, and for writing if `write`. Symbolic links are refused, and so is all that is not a regular
    /// file (without waiting for the other end of a FIFO), and for writing a file with a second name (a hard link), whose
    /// owner did not ask for the change; `None` if there is no such file.
    fn open(&self, path: &Path, write: bool) -> Result<Option<Box<dyn VfsFile>>>;

    /// Maps a whole file for reading. What would be refused by [`Vfs::open`] is refused here, and a missing file is an error.
    /// The file must not be changed in place as long as the mapping lives.
    fn map(&self, path: &Path) -> Result<Mapping>;

    /// Renames a file (not a folder), replacing the file `to` atomically. Not durable before [`Vfs::sync_dir`] of the folder of
    /// `to` (and of `from`, if that is another one).
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Removes a file; it is no error if there is none. Not durable before [`Vfs::sync_dir`].
    fn remove(&self, path: &Path) -> Result<()>;

    /// Gives a file a second name, `to`, which must be free; or, where that cannot be, makes a copy of it whose bytes are durable. The file must not be
    /// written to from then on. The name is not durable before [`Vfs::sync_dir`].
    ///
    /// Made a copy, unless the disk knows better.
    fn link(&self, from: &Path, to: &Path) -> Result<Linked> {
        copy::copy(self, from, to)
    }

    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> Result<()>;

    /// Takes the exclusive lock that the file `path` stands for, making the file (mode 0600) if needed, and never waits;
    /// `None` if somebody else has it, in this process or another. The lock ends with the returned value or the process.
    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn VfsLock>>>;
}

/// An open file. Reads and writes go to given offsets, so that threads can share it.
///
/// # Errors
/// As for [`Vfs`].
#[allow(clippy::len_without_is_empty, reason = "a length in bytes, not a collection")]
pub trait VfsFile: Debug + Send + Sync {
    /// The length in bytes.
    fn len(&self) -> Result<u64>;

    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// Writes all of `bytes` at `offset`, growing the file if needed, with zeros in a gap. After an error any part of them may
    /// have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Cuts the file to `len` bytes or extends it with zeros.
    fn set_len(&self, len: u64) -> Result<()>;

    /// Makes all bytes written so far, and the length, durable (`fdatasync`).
    fn sync(&self) -> Result<()>;
}

/// What [`Vfs::link`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// The same file has two names.
    Named,
    /// There is a second file of so many bytes.
    Copied(u64),
}

/// An exclusive lock that is held until the value is dropped.
pub trait VfsLock: Debug + Send + Sync {}

/// The bytes of a mapped file. They stay as they are, and stay readable, when the file is renamed or removed.
pub struct Mapping(MappingKind);

enum MappingKind {
    /// Pages of the operating system's cache.
    Mapped(memmap2::Mmap),
    /// A copy, where there is nothing to map.
    Owned(Box<[u8]>),
    /// The memory of a file that lives there anyway.
    Shared(Arc<Vec<u8>>),
}

impl Mapping {
    /// Bytes in memory as a mapping; for implementors of [`Vfs::map`].
    pub fn from_bytes(bytes: impl Into<Box<[u8]>>) -> Self {
        Mapping(MappingKind::Owned(bytes.into()))
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            MappingKind::Mapped(pages) => pages,
            MappingKind::Owned(bytes) => bytes,
            MappingKind::Shared(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            MappingKind::Mapped(_) => "mapped",
            MappingKind::Owned(_) => "owned",
            MappingKind::Shared(_) => "shared",
        };
        f.debug_struct("Mapping").field("kind", &kind).field("len", &self.len()).finish()
    }
}

/// What an [`Error::Io`](crate::Error::Io) of these disks says was tried.
mod op {
    pub(super) const CREATE_FOLDER: &str = "create folder";
    pub(super) const LIST: &str = "list";
    pub(super) const CREATE: &str = "create";
    pub(super) const OPEN: &str = "open";
    pub(super) const MAP: &str = "map";
    pub(super) const RENAME: &str = "rename";
    pub(super) const LINK: &str = "link";
    pub(super) const REMOVE: &str = "remove";
    pub(super) const SYNC_FOLDER: &str = "sync folder";
    pub(super) const LOCK: &str = "lock";
    pub(super) const MEASURE: &str = "measure";
    pub(super) const READ: &str = "read";
    pub(super) const WRITE: &str = "write";
    pub(super) const RESIZE: &str = "resize";
    pub(super) const SYNC: &str = "sync";
}

/// The longest file that can be addressed: offsets are signed in the operating system.
const OFFSET_MAX: u64 = i64::MAX as u64;

/// A change through a handle that was opened for reading only.
fn not_writable() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading only")
}

/// The end of `len` bytes at `offset`.
///
/// # Errors
/// `InvalidInput` past [`OFFSET_MAX`].
fn end_of(offset: u64, len: usize) -> io::Result<u64> {
    offset
        .checked_add(len as u64)
        .filter(|end| *end <= OFFSET_MAX)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "past the end of what can be addressed"))
}
