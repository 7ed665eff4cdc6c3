//! Calls that fail when asked to.

use std::io;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The device reports an error (`EIO`).
    InputOutput,
    /// The file system is full (`ENOSPC`).
    NoSpace,
    /// The user's share of the file system is used up (`EDQUOT`).
    Quota,
    /// The process has too many files open (`EMFILE`).
    TooManyFiles,
    /// The file system was made read-only after an error (`EROFS`).
    ReadOnly,
    /// The first half of a write is written, and then the file system is full. Other calls fail as with [`Fault::NoSpace`].
    ShortWrite,
    /// A signal interrupts the call (`EINTR`). The disk repeats it, as each [`Vfs`](crate::io::Vfs) promises to, so the
    /// caller sees a success; [`SimulatedDisk::interrupted`](super::SimulatedDisk::interrupted) counts.
    Interrupted,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 7] = [
        Fault::InputOutput,
        Fault::NoSpace,
        Fault::Quota,
        Fault::TooManyFiles,
        Fault::ReadOnly,
        Fault::ShortWrite,
        Fault::Interrupted,
    ];

    /// The error that the caller gets, as the operating system would report it.
    pub fn error(self) -> io::Error {
        #[cfg(unix)]
        return io::Error::from_raw_os_error(match self {
            Fault::InputOutput => libc::EIO,
            Fault::NoSpace | Fault::ShortWrite => libc::ENOSPC,
            Fault::Quota => libc::EDQUOT,
            Fault::TooManyFiles => libc::EMFILE,
            Fault::ReadOnly => libc::EROFS,
            Fault::Interrupted => libc::EINTR,
        });
        #[cfg(not(unix))]
        return match self {
            Fault::InputOutput => io::Error::other("input/output error"),
            Fault::NoSpace | Fault::ShortWrite => io::ErrorKind::StorageFull.into(),
            Fault::Quota => io::ErrorKind::QuotaExceeded.into(),
            Fault::TooManyFiles => io::Error::other("too many open files"),
            Fault::ReadOnly => io::ErrorKind::ReadOnlyFilesystem.into(),
            Fault::Interrupted => io::ErrorKind::Interrupted.into(),
        };
    }
}

/// The faults that were asked for.
#[derive(Debug, Default)]
pub(super) struct Faults {
    planned: Vec<Planned>,
}

#[derive(Debug)]
struct Planned {
    call: u64,
    fault: Fault,
    sticky: bool,
}

impl Faults {
    pub(super) fn plan(&mut self, call: u64, fault: Fault, sticky: bool) {
        self.planned.push(Planned { call, fault, sticky });
    }

    pub(super) fn clear(&mut self) {
        self.planned.clear();
    }

    /// What happens to a call: the first fault that was asked for it.
    pub(super) fn of(&self, call: u64) -> Option<Fault> {
        let hits = |planned: &&Planned| planned.call == call || planned.sticky && planned.call < call;
        self.planned.iter().find(hits).map(|planned| planned.fault)
    }
}
