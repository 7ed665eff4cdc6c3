//! The calls that a simulated disk counts.

use std::fmt;
use std::path::PathBuf;

use crate::io::op;

/// What is asked of a disk. The first group changes something or makes it durable and always counts; the second, which only
/// looks, counts after [`SimulatedDisk::count_reads`](super::SimulatedDisk::count_reads).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallKind {
    /// [`Vfs::create_dir_all`](crate::io::Vfs::create_dir_all), one call however many folders it makes.
    CreateFolder,
    /// [`Vfs::create`](crate::io::Vfs::create).
    Create,
    /// [`Vfs::rename`](crate::io::Vfs::rename).
    Rename,
    /// [`Vfs::link`](crate::io::Vfs::link).
    Link,
    /// [`Vfs::remove`](crate::io::Vfs::remove).
    Remove,
    /// [`Vfs::try_lock`](crate::io::Vfs::try_lock).
    Lock,
    /// [`VfsFile::write_at`](crate::io::VfsFile::write_at).
    Write,
    /// [`VfsFile::set_len`](crate::io::VfsFile::set_len).
    Resize,
    /// [`VfsFile::sync`](crate::io::VfsFile::sync).
    Sync,
    /// [`Vfs::sync_dir`](crate::io::Vfs::sync_dir).
    SyncFolder,

    /// [`Vfs::read_dir`](crate::io::Vfs::read_dir).
    List,
    /// [`Vfs::open`](crate::io::Vfs::open).
    Open,
    /// [`Vfs::map`](crate::io::Vfs::map).
    Map,
    /// [`VfsFile::len`](crate::io::VfsFile::len).
    Measure,
    /// [`VfsFile::read_at`](crate::io::VfsFile::read_at).
    Read,
}

impl CallKind {
    /// Whether it only looks.
    pub fn is_read(self) -> bool {
        matches!(self, CallKind::List | CallKind::Open | CallKind::Map | CallKind::Measure | CallKind::Read)
    }

    /// What [`Error::Io`](crate::Error::Io) calls it.
    pub(super) fn op(self) -> &'static str {
        match self {
            CallKind::CreateFolder => op::CREATE_FOLDER,
            CallKind::Create => op::CREATE,
            CallKind::Rename => op::RENAME,
            CallKind::Link => op::LINK,
            CallKind::Remove => op::REMOVE,
            CallKind::Lock => op::LOCK,
            CallKind::Write => op::WRITE,
            CallKind::Resize => op::RESIZE,
            CallKind::Sync => op::SYNC,
            CallKind::SyncFolder => op::SYNC_FOLDER,
            CallKind::List => op::LIST,
            CallKind::Open => op::OPEN,
            CallKind::Map => op::MAP,
            CallKind::Measure => op::MEASURE,
            CallKind::Read => op::READ,
        }
    }
}

/// A call that was made, as [`SimulatedDisk::trace`](super::SimulatedDisk::trace) remembers it.
///
/// Its `Display` is a line such as `17 write /db/log at 4096, 512 bytes: No space left on device`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number, counted from 1.
    pub number: u64,
    /// What was asked.
    pub kind: CallKind,
    /// Of which file or folder.
    pub path: PathBuf,
    /// With which other arguments, in words; may be empty.
    pub arguments: String,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.number, self.kind.op(), self.path.display())?;
        if !self.arguments.is_empty() {
            write!(f, " {}", self.arguments)?;
        }
        match &self.error {
            None => Ok(()),
            Some(error) => write!(f, ": {error}"),
        }
    }
}
