//! What a folder is, and how a database comes to be in it: made, made as a backup, or with its superblock made anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint;
use crate::commitlog::{self, Log, LogFolder, LogStart, LogWriter, SegmentMaker};
use crate::error::{Error, Result};
use crate::io::{Vfs, VfsFile};
use crate::planted::Planted;

use super::slots::write_slots;
use super::{Contents, DatabaseId, FILE, FORMAT_VERSION, LOCK_FILE, StoredOptions, Superblock, corrupt};

const OPTIONS_ARE_LOST: &str = "it is lost, and with it the options by which volumes are found, which this log is too old to tell: \
    put a copy of it back, such as one of a backup";
const CHECKPOINT_IS_LOST: &str = "it is lost, and with it the checkpoint that the log goes on from: run `chronolith repair`, which finds it again";
const FILE_UNFINISHED: &str = "superblock.new";
/// The name that a backup's superblock has until all else is there.
const FILE_OF_BACKUP: &str = "superblock.backup";

/// What a folder is to somebody who wants to open a database in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FolderState {
    /// There is nothing, or a creation was interrupted in it: a database can be made.
    Free,
    /// There is a superblock.
    Database,
}

/// A database that was just made.
#[derive(Debug)]
pub(crate) struct Created {
    /// Its superblock.
    pub(crate) superblock: Superblock,
    /// Its log, empty.
    pub(crate) writer: LogWriter,
    /// Makes the log's segments from the second on.
    pub(crate) maker: SegmentMaker,
}

/// Tells whether there is a database in a folder, or can be one.
///
/// An interrupted creation leaves at most the lock file, an unfinished superblock, and a log without frames.
///
/// # Errors
/// [`Error::Corrupt`] if there are records, but no superblock. [`Error::NotADatabase`] if there is anything else, an interrupted backup too. [`Error::Io`].
pub(crate) fn examine(disk: &dyn Vfs, dir: &Path) -> Result<FolderState> {
    let names = disk.read_dir(dir)?.unwrap_or_default();
    if names.iter().any(|name| name == FILE) {
        return Ok(FolderState::Database);
    }
    if names.iter().any(|name| name == FILE_OF_BACKUP) {
        let reason = "a backup to it did not come to its end; remove it and make another";
        return Err(Error::NotADatabase { path: dir.to_owned(), reason });
    }
    let folder = LogFolder::list(disk, &dir.join(commitlog::FOLDER))?;
    if folder.holds_data(disk)? {
        return Err(corrupt(&dir.join(FILE), 0, "the superblock is missing, but there is a commit log"));
    }
    let is_of_database = |name: &std::ffi::OsString| checkpoint::FOLDERS.iter().any(|folder| name == *folder);
    if names.iter().any(is_of_database) {
        return Err(corrupt(&dir.join(FILE), 0, "the superblock is missing, but there is a checkpoint"));
    }
    let ours = [LOCK_FILE, FILE_UNFINISHED, commitlog::FOLDER];
    if !folder.foreign.is_empty() || names.iter().any(|name| ours.iter().all(|ours| name != ours)) {
        return Err(Error::NotADatabase { path: dir.to_owned(), reason: "there are other files in it" });
    }
    Ok(FolderState::Free)
}

/// Makes a database in a folder that [`examine`] called free: its log, then its superblock, each durable before the next step.
///
/// Cost: 6 syncs, one of them of the folder above `dir`, whose own name becomes durable too. If more folders were made above, their
/// names are the caller's to sync.
///
/// # Errors
/// [`Error::DiskFull`] or [`Error::Io`]. What was made then counts as an interrupted creation.
pub(crate) fn create(
    disk: &Arc<dyn Vfs>,
    dir: &Path,
    database_id: DatabaseId,
    options: StoredOptions,
    planted: Planted,
) -> Result<Created> {
    let log = Log {
        disk: Arc::clone(disk),
        dir: dir.to_owned(),
        database_id,
        note: options.note(),
        sizes: options.segment_sizes,
        planted,
    };
    let (writer, maker) = log.create(0)?;
    let contents = Contents {
        database_id,
        options,
        log: LogStart { synced: writer.synced(), ..LogStart::default() },
        clean: false,
        checkpoint: None,
    };
    let superblock = Superblock::write_whole(disk, dir, 1, contents, || {
        // The log's folder must be durable before the superblock says that there is one.
        disk.sync_dir(dir)?;
        sync_folder_above(disk, dir)
    })?;
    Ok(Created { superblock, writer, maker })
}

impl Superblock {
    /// Opens the superblock, or makes it anew from the log's headers if both slots are damaged or it is missing. `None` if it is needed and no
    /// segment has a valid header either. The given options count only if all segments are of format version 1, which do not tell them, and the database
    /// has no volumes: with other options than it had, they and their metrics would be looked for in the wrong places.
    ///
    /// The log is then taken to begin with segment 1 and version 1, and nothing of it is known to be synced.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if nobody tells the options and there are volumes, or if there is anything of a checkpoint: then it is [`repair`](crate::repair)'s
    /// to find. [`Error::NewerFormat`]; [`Error::Io`].
    pub(crate) fn open_or_rebuild(
        disk: &Arc<dyn Vfs>,
        dir: &Path,
        options: StoredOptions,
        has_volumes: bool,
    ) -> Result<Option<Self>> {
        match Superblock::open(&**disk, dir) {
            Err(Error::Corrupt { .. }) => {}
            opened => return opened.map(Some),
        }
        // The log begins behind a checkpoint that nobody could name any more, and an opening without it would remove what is left of it.
        for checkpointed in checkpoint::FOLDERS {
            if disk.read_dir(&dir.join(checkpointed))?.is_some_and(|names| !names.is_empty()) {
                return Err(corrupt(&dir.join(FILE), 0, CHECKPOINT_IS_LOST));
            }
        }
        let folder = LogFolder::list(&**disk, &dir.join(commitlog::FOLDER))?;
        let Some((database_id, note)) = folder.owner(&**disk)? else { return Ok(None) };
        let told = note.and_then(|note| StoredOptions::of_note(&note));
        let options = match told {
            None if has_volumes => return Err(corrupt(&dir.join(FILE), 0, OPTIONS_ARE_LOST)),
            told => told.unwrap_or(options),
        };
        let contents =
            Contents { database_id, options, log: LogStart::default(), clean: false, checkpoint: None };
        let mut rebuilt = Superblock::write_whole(disk, dir, 1, contents, || Ok(()))?;
        rebuilt.repaired = true;
        Ok(Some(rebuilt))
    }

    /// Writes a superblock into a folder that has none, durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn make_at(disk: &Arc<dyn Vfs>, dir: &Path, contents: Contents) -> Result<()> {
        Superblock::write_whole(disk, dir, 1, contents, || Ok(())).map(drop)
    }

    /// Writes both slots under a temporary name and renames the file, after `before_rename`.
    fn write_whole(
        disk: &Arc<dyn Vfs>,
        dir: &Path,
        generation: u64,
        contents: Contents,
        before_rename: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let unfinished = dir.join(FILE_UNFINISHED);
        disk.remove(&unfinished)?;
        let file = disk.create(&unfinished)?;
        write_slots(&*file, generation, contents)?;
        before_rename()?;
        disk.rename(&unfinished, &dir.join(FILE))?;
        disk.sync_dir(dir)?;
        let (generation, format_version) = (generation + 1, FORMAT_VERSION);
        Ok(Superblock {
            file,
            generation,
            contents,
            repaired: false,
            format_version,
            differs: false,
            in_doubt: false,
        })
    }
}

/// The superblock of a backup that is being made: from its beginning on the folder says that it is one, and from its end on that it is a database.
#[derive(Debug)]
pub(crate) struct Backup {
    file: Box<dyn VfsFile>,
    path: PathBuf,
}

impl Backup {
    /// Marks an empty folder, durably, and makes its own name durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn begin(disk: &Arc<dyn Vfs>, dir: &Path) -> Result<Self> {
        let path = dir.join(FILE_OF_BACKUP);
        let file = disk.create(&path)?;
        disk.sync_dir(dir)?;
        sync_folder_above(disk, dir)?;
        Ok(Backup { file, path })
    }

    /// Makes a database of the folder. All that the contents name is durable, and so are the names of all folders.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn finish(self, disk: &dyn Vfs, dir: &Path, contents: Contents) -> Result<()> {
        write_slots(&*self.file, 1, contents)?;
        disk.rename(&self.path, &dir.join(FILE))?;
        disk.sync_dir(dir)
    }
}

/// Makes the name of a folder durable.
pub(crate) fn sync_folder_above(disk: &Arc<dyn Vfs>, dir: &Path) -> Result<()> {
    match disk.sync_dir(folder_above(dir)) {
        // A folder that we may pass through but not read was made by somebody else, and so was the name in it.
        Err(error) if error.io_kind() == Some(std::io::ErrorKind::PermissionDenied) => Ok(()),
        synced => synced,
    }
}

/// The folder that `dir` is in, as a path that can be opened.
fn folder_above(dir: &Path) -> &Path {
    match dir.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => dir,
    }
}
