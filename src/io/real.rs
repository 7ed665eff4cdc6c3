//! The operating system's file system.
//!
//! Unix is the reference: files are 0600, folders 0700, symbolic links are not followed at the last part of a path (the
//! folders on the way may be links: where a database lies is its owner's choice). On Windows folders cannot be synced and
//! need not be; a file that is open or mapped cannot be replaced there.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::copy::copy;
use super::{Linked, Mapping, MappingKind, Vfs, VfsFile, VfsLock, end_of, not_writable, op};
use crate::error::{Error, Result};

/// The operating system's disk.
///
/// ```no_run
/// use chronolith::io::{RealDisk, Vfs};
///
/// let file = RealDisk::new().create("/tmp/greeting".as_ref())?;
/// file.write_at(0, b"hello")?;
/// file.sync()?; // the bytes are durable
/// RealDisk::new().sync_dir("/tmp".as_ref())?; // and so is the name
/// # Ok::<(), chronolith::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk {
    /// Whether `map` maps pages. Otherwise it reads, since whoever holds the disk may also write to what he mapped.
    maps: bool,
}

impl RealDisk {
    /// The disk, for any use: [`Vfs::map`] reads the whole file.
    pub const fn new() -> Self {
        RealDisk { maps: false }
    }

    /// The disk, mapping pages: opening a large file costs next to nothing, and its pages are read as they are touched.
    ///
    /// # Safety
    /// While a mapping of a file lives, nobody in this process or another writes to that file or shortens it; to make
    /// sure of that is up to the caller. Chronolith and M3DB do not do it to the files of a complete volume: they write
    /// others and remove the old ones, which a mapping survives.
    #[allow(unsafe_code, reason = "what it needs, the type system cannot say")]
    pub const unsafe fn mapping() -> Self {
        RealDisk { maps: true }
    }

    /// The disk for the engine, which keeps what mapping pages asks for.
    pub(crate) const fn for_engine() -> Self {
        RealDisk { maps: true }
    }
}

impl Vfs for RealDisk {
    fn create_dir_all(&self, path: &Path) -> Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        system::private_folder(&mut builder);
        // Folders that were made before an interruption are no error the second time.
        retried(|| builder.create(path)).map_err(|source| Error::io(op::CREATE_FOLDER, path, source))
    }

    fn read_dir(&self, path: &Path) -> Result<Option<Vec<OsString>>> {
        let names = match retried(|| std::fs::read_dir(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
            Ok(entries) => entries.map(|entry| entry.map(|entry| entry.file_name())).collect(),
        };
        let mut names: Vec<OsString> = names.map_err(|source| Error::io(op::LIST, path, source))?;
        names.sort_unstable();
        Ok(Some(names))
    }

    fn create(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        system::private_file(&mut options);
        let file = retried(|| options.open(path)).map_err(|source| Error::io(op::CREATE, path, source))?;
        Ok(Box::new(RealFile { file, path: path.to_owned(), writable: true }))
    }

    fn open(&self, path: &Path, write: bool) -> Result<Option<Box<dyn VfsFile>>> {
        match open_regular(path, OpenOptions::new().read(true).write(write), write) {
            Ok(file) => Ok(Some(Box::new(RealFile { file, path: path.to_owned(), writable: write }))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(op::OPEN, path, error)),
        }
    }

    fn map(&self, path: &Path) -> Result<Mapping> {
        let file = open_regular(path, OpenOptions::new().read(true), false);
        file.and_then(|file| map(&file, self.maps)).map_err(|source| Error::io(op::MAP, path, source))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let renamed = std::fs::symlink_metadata(from).and_then(|metadata| {
            if !metadata.is_file() {
                return Err(not_regular(metadata.file_type()));
            }
            // The system's words for a folder in the way depend on which folder it is.
            retried(|| std::fs::rename(from, to))
                .map_err(|error| if to.is_dir() { is_a_folder() } else { error })
        });
        renamed.map_err(|source| Error::io(op::RENAME, from, source))
    }

    fn link(&self, from: &Path, to: &Path) -> Result<Linked> {
        let linked = std::fs::symlink_metadata(from).and_then(|metadata| match metadata.is_file() {
            true => retried(|| std::fs::hard_link(from, to)),
            false => Err(not_regular(metadata.file_type())),
        });
        match linked {
            Ok(()) => Ok(Linked::Named),
            Err(error) if is_without_links(&error) => copy(self, from, to),
            Err(error) => Err(Error::io(op::LINK, from, error)),
        }
    }

    fn remove(&self, path: &Path) -> Result<()> {
        match retried(|| std::fs::remove_file(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io(op::REMOVE, path, if path.is_dir() { is_a_folder() } else { error })),
            Ok(()) => Ok(()),
        }
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        system::sync_folder(path).map_err(|source| Error::io(op::SYNC_FOLDER, path, source))
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn VfsLock>>> {
        let failed = |source| Error::io(op::LOCK, path, source);
        let options = &mut OpenOptions::new();
        let file = open_regular(path, options.read(true).write(true).create(true).truncate(false), false);
        let file = file.map_err(failed)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Box::new(RealLock(file)))),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }
}

/// An open file.
#[derive(Debug)]
struct RealFile {
    file: File,
    path: PathBuf,
    writable: bool,
}

impl RealFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(not_writable()) }
    }
}

impl VfsFile for RealFile {
    fn len(&self) -> Result<u64> {
        let metadata = retried(|| self.file.metadata());
        Ok(metadata.map_err(|source| Error::io(op::MEASURE, &self.path, source))?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let read = read_fully(offset, buffer, |buffer, offset| system::read_at(&self.file, buffer, offset));
        read.map_err(|source| Error::io(op::READ, &self.path, source))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let write = |bytes: &[u8], offset| system::write_at(&self.file, bytes, offset);
        let written = self.check_writable().and_then(|()| write_fully(offset, bytes, write));
        written.map_err(|source| Error::io(op::WRITE, &self.path, source))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let set = self.check_writable().and_then(|()| end_of(len, 0)).and_then(|len| self.file.set_len(len));
        set.map_err(|source| Error::io(op::RESIZE, &self.path, source))
    }

    fn sync(&self) -> Result<()> {
        // `sync_data` repeats an interrupted call, which is not a failed one: the system has reported nothing yet.
        self.file.sync_data().map_err(|source| Error::io(op::SYNC, &self.path, source))
    }
}

/// A lock on a file, which the operating system ends with the process.
#[derive(Debug)]
struct RealLock(File);

impl VfsLock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing alone would leave it to a process that another thread is just starting: until that runs its program it has all files of this one.
        // If this fails, closing has to do.
        let _ = self.0.unlock();
    }
}

/// The bytes of a whole file: its pages, or a copy.
fn map(file: &File, maps: bool) -> io::Result<Mapping> {
    let len = file.metadata()?.len();
    if maps && len > 0 {
        return Ok(Mapping(MappingKind::Mapped(map_pages(file)?)));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?)?;
    let mut file = file;
    file.read_to_end(&mut bytes)?;
    Ok(Mapping::from_bytes(bytes))
}

#[allow(unsafe_code, reason = "the only way to map a file")]
fn map_pages(file: &File) -> io::Result<memmap2::Mmap> {
    // SAFETY: The bytes must not change, nor the file shrink, while they are borrowed. A disk maps pages if its maker
    // has promised that (`RealDisk::mapping`) or is the engine (`RealDisk::for_engine`), which maps sealed files only,
    // which it never changes in place: it writes others and removes the old name, which leaves the mapped file as it
    // is. Other chronoliths are kept out by the directory's lock, other users by mode 0600 and folders of mode 0700.
    unsafe { memmap2::Mmap::map(file) }
}

/// Opens a file that is nothing but a file, without following a symbolic link and without waiting.
///
/// # Errors
/// `NotFound`, `IsADirectory`, `InvalidInput` for other things, and for a file with two names if `alone`.
fn open_regular(path: &Path, options: &mut OpenOptions, alone: bool) -> io::Result<File> {
    system::private_file(options);
    let file = retried(|| options.open(path)).map_err(|error| {
        // The system's words for a symbolic link ("too many levels") or a socket ("no such device") tell little.
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.is_file() => not_regular(metadata.file_type()),
            _ => error,
        }
    })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(not_regular(metadata.file_type()));
    }
    if alone && system::has_other_names(&metadata) {
        let reason = "it has a second name (a hard link), whose content would change as well";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    Ok(file)
}

/// Whether a second name cannot be given, and a copy can be made all the same: the other name would lie on another file system, or this one has no links, no
/// more of them, or none to a file of another owner.
fn is_without_links(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
}

fn not_regular(found: std::fs::FileType) -> io::Error {
    if found.is_dir() {
        is_a_folder()
    } else if found.is_symlink() {
        io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link, not a regular file")
    } else {
        io::Error::new(io::ErrorKind::InvalidInput, "it is a FIFO, a socket or a device, not a regular file")
    }
}

fn is_a_folder() -> io::Error {
    io::Error::new(io::ErrorKind::IsADirectory, "it is a folder, not a regular file")
}

/// Reads until the buffer is full or the file ends.
fn read_fully(
    offset: u64,
    buffer: &mut [u8],
    mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    if end_of(offset, buffer.len()).is_err() {
        return Ok(0); // No file is that long.
    }
    let mut read = 0;
    while read < buffer.len() {
        match retried(|| read_at(&mut buffer[read..], offset + read as u64))? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}

/// Writes until all is written.
fn write_fully(
    offset: u64,
    bytes: &[u8],
    mut write_at: impl FnMut(&[u8], u64) -> io::Result<usize>,
) -> io::Result<()> {
    end_of(offset, bytes.len())?;
    let mut written = 0;
    while written < bytes.len() {
        match retried(|| write_at(&bytes[written..], offset + written as u64))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            more => written += more,
        }
    }
    Ok(())
}

/// Repeats a call as long as a signal interrupts it.
fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// What Unix has and Windows lacks, or calls by another name.
#[cfg(unix)]
mod system {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
    use std::path::Path;

    /// For its owner only; no symbolic link; no waiting for a FIFO's other end. `O_CLOEXEC` is std's own doing.
    pub(super) fn private_file(options: &mut OpenOptions) {
        options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
    }

    pub(super) fn private_folder(builder: &mut DirBuilder) {
        builder.mode(0o700);
    }

    pub(super) fn has_other_names(metadata: &Metadata) -> bool {
        metadata.nlink() > 1
    }

    pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let folder = options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC).open(path)?;
        folder.sync_all()
    }
}

/// What Windows has instead. Files and folders inherit who may read them from the folder above.
#[cfg(windows)]
mod system {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io::{self, Read};
    use std::os::windows::fs::{FileExt, OpenOptionsExt};
    use std::path::Path;

    /// Opens a symbolic link itself, which is then refused as no regular file.
    const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;

    pub(super) fn private_file(options: &mut OpenOptions) {
        options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
    }

    pub(super) fn private_folder(_: &mut DirBuilder) {}

    /// Unknown: std does not tell the number of names.
    pub(super) fn has_other_names(_: &Metadata) -> bool {
        false
    }

    pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.seek_read(buffer, offset)
    }

    pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.seek_write(bytes, offset)
    }

    /// Checks that the folder is there. NTFS journals names itself, and lets nobody sync a folder.
    pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
        match std::fs::metadata(path)?.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many bytes a call moves: at most 3, and every other call is interrupted.
    fn stutter() -> impl FnMut(usize) -> io::Result<usize> {
        let mut calls = 0;
        move |len| {
            calls += 1;
            if calls % 2 == 1 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(len.min(3)) }
        }
    }

    #[test]
    fn short_and_interrupted_reads_are_completed() {
        let file: Vec<u8> = (0..100).collect();
        for (offset, len, expected) in [(0, 10, 10), (95, 10, 5), (100, 10, 0), (17, 83, 83)] {
            let (mut buffer, mut moved) = (vec![0; len], stutter());
            let read = read_fully(offset, &mut buffer, |buffer, offset| {
                let rest = &file[offset as usize..];
                let read = moved(rest.len().min(buffer.len()))?;
                buffer[..read].copy_from_slice(&rest[..read]);
                Ok(read)
            });
            assert_eq!(read.unwrap(), expected);
            assert_eq!(buffer[..expected], file[offset as usize..][..expected]);
        }
    }

    #[test]
    fn short_and_interrupted_writes_are_completed() {
        let (mut file, mut moved) = (vec![b'-'; 20], stutter());
        let written = write_fully(5, b"0123456789", |bytes, offset| {
            let written = moved(bytes.len())?;
            file[offset as usize..][..written].copy_from_slice(&bytes[..written]);
            Ok(written)
        });
        written.unwrap();
        assert_eq!(&file, b"-----0123456789-----");
    }

    #[test]
    fn write_that_writes_nothing_is_an_error() {
        let error = write_fully(0, b"x", |_, _| Ok(0)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        let error = write_fully(0, b"x", |_, _| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[cfg(unix)]
    mod unix {
        use std::os::unix::fs::{PermissionsExt, symlink};
        use std::os::unix::net::UnixListener;
        use std::sync::mpsc;
        use std::time::Duration;

        use super::*;

        #[track_caller]
        fn refuses<T>(result: Result<T>, reason: &str) {
            let Err(Error::Io { source, .. }) = result else { panic!("not refused with an I/O error") };
            assert!(source.to_string().contains(reason), "{source}");
        }

        /// Checks that neither reading nor writing, mapping, locking nor renaming touches what is at `path`.
        fn refused_in_all_ways(path: &Path, reason: &'static str) {
            let (done, finished) = mpsc::channel();
            let path = path.to_owned();
            // In a thread of its own: a call that waits for a FIFO's other end would never return.
            let checks = std::thread::spawn(move || {
                refuses(RealDisk::new().open(&path, false), reason);
                refuses(RealDisk::new().open(&path, true), reason);
                refuses(RealDisk::new().map(&path), reason);
                refuses(RealDisk::new().try_lock(&path), reason);
                refuses(RealDisk::new().rename(&path, &path.with_extension("renamed")), reason);
                let created = RealDisk::new().create(&path).unwrap_err();
                assert_eq!(created.io_kind(), Some(io::ErrorKind::AlreadyExists));
                done.send(()).unwrap();
            });
            match finished.recv_timeout(Duration::from_secs(60)) {
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("a call hangs"),
                Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => checks.join().unwrap(),
            }
        }

        #[test]
        fn symbolic_link_is_refused() {
            let folder = tempfile::tempdir().unwrap();
            let (target, link) = (folder.path().join("target"), folder.path().join("link"));
            RealDisk::new().create(&target).unwrap().write_at(0, b"precious").unwrap();
            symlink(&target, &link).unwrap();
            refused_in_all_ways(&link, "symbolic link");
            assert_eq!(*RealDisk::new().map(&target).unwrap(), *b"precious");
            RealDisk::new().remove(&link).unwrap();
            assert_eq!(
                *RealDisk::new().map(&target).unwrap(),
                *b"precious",
                "removing a link leaves its target"
            );
        }

        #[test]
        fn dangling_symbolic_link_is_refused_and_its_target_not_made() {
            let folder = tempfile::tempdir().unwrap();
            let (target, link) = (folder.path().join("target"), folder.path().join("link"));
            symlink(&target, &link).unwrap();
            refused_in_all_ways(&link, "symbolic link");
            assert!(!target.exists());
        }

        #[test]
        fn symbolic_link_to_a_folder_on_the_way_is_followed() {
            let folder = tempfile::tempdir().unwrap();
            let (inner, link) = (folder.path().join("inner"), folder.path().join("link"));
            RealDisk::new().create_dir_all(&inner).unwrap();
            symlink(&inner, &link).unwrap();
            RealDisk::new().create_dir_all(&link).unwrap();
            RealDisk::new().create(&link.join("a")).unwrap().write_at(0, b"1").unwrap();
            RealDisk::new().sync_dir(&link).unwrap();
            assert_eq!(*RealDisk::new().map(&inner.join("a")).unwrap(), *b"1");
        }

        #[test]
        fn fifo_is_refused_without_waiting() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("fifo");
            let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
            assert!(made.success());
            refused_in_all_ways(&path, "FIFO");
        }

        #[test]
        fn socket_is_refused() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("socket");
            let _listener = UnixListener::bind(&path).unwrap();
            refused_in_all_ways(&path, "socket");
        }

        #[test]
        fn device_is_refused() {
            refuses(RealDisk::new().open("/dev/null".as_ref(), true), "device");
            refuses(RealDisk::new().map("/dev/zero".as_ref()), "device");
        }

        #[test]
        fn file_with_a_second_name_is_not_opened_for_writing() {
            let folder = tempfile::tempdir().unwrap();
            let (a, b) = (folder.path().join("a"), folder.path().join("b"));
            RealDisk::new().create(&a).unwrap().write_at(0, b"1").unwrap();
            std::fs::hard_link(&a, &b).unwrap();
            refuses(RealDisk::new().open(&a, true), "hard link");
            assert_eq!(*RealDisk::new().map(&a).unwrap(), *b"1", "reading changes nothing");
            RealDisk::new().remove(&b).unwrap();
            assert!(RealDisk::new().open(&a, true).unwrap().is_some());
        }

        #[test]
        fn files_and_folders_are_their_owners_alone() {
            let folder = tempfile::tempdir().unwrap();
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
            let (above, inner) = (folder.path().join("a"), folder.path().join("a/b"));
            RealDisk::new().create_dir_all(&inner).unwrap();
            assert_eq!((mode(&above), mode(&inner)), (0o700, 0o700));
            RealDisk::new().create(&inner.join("file")).unwrap();
            assert_eq!(mode(&inner.join("file")), 0o600);
            drop(RealDisk::new().try_lock(&inner.join("LOCK")).unwrap());
            assert_eq!(mode(&inner.join("LOCK")), 0o600);
            RealDisk::new().rename(&inner.join("file"), &inner.join("renamed")).unwrap();
            assert_eq!(mode(&inner.join("renamed")), 0o600);
        }

        #[test]
        fn a_lock_ends_although_a_process_is_being_started() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("LOCK");
            let lock = RealLock(File::create(&path).unwrap());
            lock.0.lock().unwrap();
            // As the process has it.
            let _inherited = lock.0.try_clone().unwrap();
            assert!(RealDisk::new().try_lock(&path).unwrap().is_none());
            drop(lock);
            assert!(RealDisk::new().try_lock(&path).unwrap().is_some());
        }

        #[test]
        fn opening_leaves_the_mode_as_it_is() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            RealDisk::new().create(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
            RealDisk::new().open(&path, true).unwrap().unwrap().write_at(0, b"1").unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        }
    }
}
