//! Putting files aside and others in their place, so that a cut at any moment leaves what was there, or is gone on with.
//!
//! A repair has a folder of its own, `DIR/quarantine/NUMBER`. What it makes is written to `new/` in there first, under the names that it is to have.
//! Then a list of the files that are to go, `moves`, gets its name: from then on the repair counts. The files are renamed into the folder, those
//! in `new/` into their places, the superblock last, and the list is renamed to `moved`. Each step may be done again, so whoever finds `moves`
//! begins with the first; opening does.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::checkpoint;
use crate::commitlog;
use crate::error::{Error, Result};
use crate::io::Vfs;
use crate::superblock;

/// The folder of all quarantines in the database's.
pub(crate) const FOLDER: &str = "quarantine";
const NEW: &str = "new";
const MOVES: &str = "moves";
const MOVES_UNFINISHED: &str = "moves.new";
const MOVED: &str = "moved";
/// What is in front of the paths in the list.
const TITLE: &str = "chronolith repair 1";

/// The folder of one repair.
#[derive(Debug)]
pub(super) struct Quarantine {
    dir: PathBuf,
    folder: PathBuf,
}

impl Quarantine {
    /// Makes the folder of a new repair. What a repair that did not come to count left there is removed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn begin(disk: &dyn Vfs, dir: &Path) -> Result<Self> {
        let mut number = 1_u32;
        let all = dir.join(FOLDER);
        loop {
            let folder = all.join(format!("{number:04}"));
            let names = disk.read_dir(&folder)?.unwrap_or_default();
            let is_ours = |name: &std::ffi::OsString| name == NEW || name == MOVES_UNFINISHED;
            if names.iter().all(is_ours) {
                let quarantine = Quarantine { dir: dir.to_owned(), folder };
                for name in quarantine.new_files(disk)? {
                    disk.remove(&quarantine.new_folder().join(name))?;
                }
                disk.create_dir_all(&quarantine.new_folder())?;
                disk.sync_dir(&quarantine.folder)?;
                disk.sync_dir(&all)?;
                disk.sync_dir(dir)?;
                return Ok(quarantine);
            }
            number = number.checked_add(1).ok_or_else(|| {
                Error::io("create", &all, std::io::Error::other("there are too many quarantines"))
            })?;
        }
    }

    /// The folder that stands for the database's while files are written.
    pub(super) fn new_folder(&self) -> PathBuf {
        self.folder.join(NEW)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Decides the repair: these files go, given by their paths in the database's folder, and what is in `new/`, which is durable, takes its place.
    ///
    /// # Errors
    /// [`Error::Io`]. If the list has its name, the repair counts, and is gone on with later.
    pub(super) fn decide(&self, disk: &dyn Vfs, files: &[PathBuf]) -> Result<()> {
        let mut text = format!("{TITLE}\n");
        for file in files {
            text.push_str(&file.to_string_lossy());
            text.push('\n');
        }
        let crc = crc32fast::hash(text.as_bytes());
        text.push_str(&format!("{crc:08x}\n"));
        let unfinished = self.folder.join(MOVES_UNFINISHED);
        disk.remove(&unfinished)?;
        let file = disk.create(&unfinished)?;
        file.write_at(0, text.as_bytes())?;
        file.sync()?;
        disk.rename(&unfinished, &self.folder.join(MOVES))?;
        disk.sync_dir(&self.folder)?;
        self.finish(disk)
    }

    /// Moves what is to be moved, as far as it has not been.
    fn finish(&self, disk: &dyn Vfs) -> Result<()> {
        let mut synced = BTreeSet::new();
        for file in self.listed(disk)? {
            let (from, to) = (self.dir.join(&file), self.folder.join(&file));
            // What is in its place by now is the new one.
            if disk.open(&to, false)?.is_none() && disk.open(&from, false)?.is_some() {
                move_file(disk, &from, &to)?;
            }
            synced.extend([&from, &to].into_iter().filter_map(|path| path.parent()).map(Path::to_owned));
        }
        sync_all(disk, &synced, &self.dir)?;
        synced.clear();
        let files = self.new_files(disk)?;
        let (last, files): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| file == Path::new(superblock::FILE));
        for file in files.iter().chain(&last) {
            if file == Path::new(superblock::FILE) {
                sync_all(disk, &synced, &self.dir)?;
            }
            let (from, to) = (self.new_folder().join(file), self.dir.join(file));
            move_file(disk, &from, &to)?;
            synced.extend([&from, &to].into_iter().filter_map(|path| path.parent()).map(Path::to_owned));
        }
        // Also those that an interrupted attempt moved.
        synced.extend(NEW_FOLDERS.iter().map(|folder| self.dir.join(folder)));
        sync_all(disk, &synced, &self.dir)?;
        disk.rename(&self.folder.join(MOVES), &self.folder.join(MOVED))?;
        disk.sync_dir(&self.folder)
    }

    /// The paths in the list.
    fn listed(&self, disk: &dyn Vfs) -> Result<Vec<PathBuf>> {
        let path = self.folder.join(MOVES);
        let corrupt = |reason| Error::Corrupt {
            format: "list of a repair",
            path: path.clone(),
            offset: 0,
            metric: None,
            reason,
        };
        let bytes = disk.map(&path)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| corrupt("it is not UTF-8"))?;
        let (text, crc) = text
            .strip_suffix('\n')
            .and_then(|text| text.rsplit_once('\n'))
            .ok_or_else(|| corrupt("it ends too early"))?;
        let expected = crc32fast::hash(format!("{text}\n").as_bytes());
        if format!("{expected:08x}") != crc {
            return Err(corrupt("the checksum differs"));
        }
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(corrupt("the title differs"));
        }
        let is_inside = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        let paths: Vec<PathBuf> = lines.map(PathBuf::from).collect();
        match paths.iter().all(|path| is_inside(path)) {
            true => Ok(paths),
            false => Err(corrupt("a path that leads out of the folder")),
        }
    }

    /// What is in `new/`, by the paths that it is to have.
    fn new_files(&self, disk: &dyn Vfs) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for folder in NEW_FOLDERS {
            let names = disk.read_dir(&self.new_folder().join(folder))?.unwrap_or_default();
            let is_folder = |name: &std::ffi::OsString| {
                folder.is_empty() && NEW_FOLDERS.iter().any(|folder| name == *folder)
            };
            files.extend(
                names.into_iter().filter(|name| !is_folder(name)).map(|name| Path::new(folder).join(name)),
            );
        }
        Ok(files)
    }
}

/// The folders that a repair makes files in; the empty one is the database's own.
const NEW_FOLDERS: [&str; 5] =
    [checkpoint::FOLDERS[0], checkpoint::FOLDERS[1], checkpoint::FOLDERS[2], commitlog::FOLDER, ""];

/// The repair that was decided and not finished, if there is one.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn pending(disk: &dyn Vfs, dir: &Path) -> Result<Option<Quarantine>> {
    let all = dir.join(FOLDER);
    for name in disk.read_dir(&all)?.unwrap_or_default() {
        let folder = all.join(name);
        let names = match disk.read_dir(&folder) {
            Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotADirectory) => continue,
            names => names?.unwrap_or_default(),
        };
        if names.iter().any(|name| name == MOVES) {
            return Ok(Some(Quarantine { dir: dir.to_owned(), folder }));
        }
    }
    Ok(None)
}

/// Whether a repair was decided and not finished.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn is_unfinished(disk: &dyn Vfs, dir: &Path) -> Result<bool> {
    Ok(pending(disk, dir)?.is_some())
}

/// Goes on with a repair that was decided, and interrupted. Who calls this has the database's lock.
///
/// # Errors
/// [`Error::Io`]; [`Error::Corrupt`] if its list is damaged.
pub(crate) fn finish(disk: &dyn Vfs, dir: &Path) -> Result<()> {
    pending(disk, dir)?.map_or(Ok(()), |quarantine| quarantine.finish(disk))
}

fn move_file(disk: &dyn Vfs, from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        disk.create_dir_all(folder)?;
    }
    disk.rename(from, to)
}

/// Makes the names in these folders durable, and their own up to `dir`.
fn sync_all(disk: &dyn Vfs, folders: &BTreeSet<PathBuf>, dir: &Path) -> Result<()> {
    let above = folders.iter().flat_map(|folder| folder.ancestors().filter(|above| above.starts_with(dir)));
    let all: BTreeSet<&Path> = above.collect();
    for folder in all.into_iter().rev() {
        if disk.read_dir(folder)?.is_some() {
            disk.sync_dir(folder)?;
        }
    }
    Ok(())
}
