//! Checkpoints: the whole state of a database on disk, as of one version, so that the log before it can go.
//!
//! What it guarantees
//! * What [`Checkpointer::load`] makes of a checkpoint reads as a snapshot at its version did, and goes on as the database did.
//! * Until the superblock names a checkpoint, the former one and all its files are as they were.
//! * Nothing that a slot of the superblock names is changed or removed.
//!
//! What it relies on: one owner, and nothing is being frozen or installed meanwhile. It takes no locks of the core for longer than a look, starts
//! no threads and reads no clocks but to tell how long it took.
//!
//! Parts: `roots` (what the superblock knows), `write`, `load`; `entry` and `state` (bytes of the trees), `bases` (their numbers), `active`
//! (what is in memory). Format and order: `design/checkpoint.md`.

mod active;
mod bases;
mod entry;
mod load;
mod roots;
mod salvage;
mod state;
mod write;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::commitlog::DatabaseId;
use crate::error::{Error, Result};
use crate::io::Vfs;
use crate::mvcc::transaction::Version;
use crate::names::NamesFile;
use crate::tree::PageFile;

use bases::Numbers;

pub(crate) use load::LoadOptions;
pub(crate) use roots::Roots;
pub(crate) use salvage::{Salvaged, SalvagedName};

/// A names file is not rewritten before so many bytes of it are of metrics that are gone.
const REWRITE_NAMES_MIN: u64 = 1 << 20;

/// Writes the checkpoints of one database, and knows what the last one has.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    disk: Arc<dyn Vfs>,
    dir: PathBuf,
    database_id: DatabaseId,
    /// Whether there is a checkpoint. If not, the fields below are empty.
    exists: bool,
    roots: Roots,
    /// None until the first checkpoint is begun.
    files: Option<Files>,
    /// The bases that it has, by their numbers.
    numbers: Numbers,
    /// The numbers of the volumes that it has.
    volumes: BTreeSet<u32>,
    /// The bytes of its state.
    state: Vec<u8>,
    /// Bytes in the names file of metrics that are gone.
    dead_names: u64,
    /// The highest number that an active file ever had.
    last_active: u64,
    /// Files that are not needed any more and could not be removed.
    left: Vec<PathBuf>,
    /// Why nobody knows which checkpoint counts, if that is so.
    doubt: Option<Arc<Error>>,
}

/// Files that stay from one checkpoint to the next.
#[derive(Debug)]
struct Files {
    pages: PageFile,
    names: NamesFile,
    /// The one that `names` is to take the place of.
    former: Option<NamesFile>,
}

impl Checkpointer {
    /// For a database without a checkpoint.
    pub(crate) fn new(disk: &Arc<dyn Vfs>, dir: &Path, database_id: DatabaseId) -> Self {
        Checkpointer {
            disk: disk.clone(),
            dir: dir.to_owned(),
            database_id,
            exists: false,
            roots: Roots::default(),
            files: None,
            numbers: Numbers::default(),
            volumes: BTreeSet::new(),
            state: Vec::new(),
            dead_names: 0,
            last_active: 0,
            left: Vec::new(),
            doubt: None,
        }
    }

    /// The version of the checkpoint that counts, or of an earlier one if that is not known; `None` if there never was one. Opening, and whoever
    /// reads the database beside this process, begins there or later.
    pub(crate) fn version(&self) -> Option<Version> {
        match self.exists {
            true => Some(self.roots.version),
            false => self.doubt.as_ref().map(|_| Version(0)),
        }
    }

    /// Removes files by the names of names files and active files that the superblock does not name: left by checkpoints that did not come to count.
    /// Returns their paths, and those of others that lie there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn sweep(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
        let (mut swept, mut foreign) = (Vec::new(), Vec::new());
        let named = self.files_of([self.roots.names.0, self.roots.active.0]);
        for (folder, parse, named) in [
            (NamesFile::folder(&self.dir), NamesFile::parse as fn(&str) -> Option<u64>, &named[0]),
            (self.dir.join(active::FOLDER), active::parse, &named[1]),
        ] {
            for name in self.disk.read_dir(&folder)?.unwrap_or_default() {
                let path = folder.join(&name);
                match name.to_str().and_then(parse) {
                    Some(_) if path == *named && self.exists => {}
                    Some(_) => {
                        // What cannot be removed does no harm, and goes at another opening.
                        if self.disk.remove(&path).is_ok() {
                            swept.push(path);
                        }
                    }
                    None => foreign.push(path),
                }
            }
        }
        Ok((swept, foreign))
    }

    /// Removes files that nothing names. What cannot be removed now goes with the next checkpoint, or at the next opening.
    fn remove(&mut self, files: Vec<PathBuf>) {
        self.left.extend(files);
        // The first checkpoint that counts may have a name that one before it, which did not, had too.
        let named = self.files_of([self.roots.names.0, self.roots.active.0]);
        let is_named = |path: &PathBuf| self.exists && named.contains(path);
        self.left.retain(|path| !is_named(path) && self.disk.remove(path).is_err());
    }

    /// The paths of the names file and of the active file of these numbers.
    fn files_of(&self, numbers: [u64; 2]) -> [PathBuf; 2] {
        files_of(&self.dir, numbers)
    }
}

/// The folders that the files of checkpoints lie in, in the database's.
pub(crate) const FOLDERS: [&str; 3] = [crate::tree::FOLDER, crate::names::FOLDER, active::FOLDER];

fn files_of(dir: &Path, [names, active]: [u64; 2]) -> [PathBuf; 2] {
    [
        NamesFile::folder(dir).join(NamesFile::file_name(names)),
        dir.join(active::FOLDER).join(active::file_name(active)),
    ]
}

impl Files {
    fn create(disk: &Arc<dyn Vfs>, dir: &Path, database_id: DatabaseId) -> Result<Self> {
        let pages = PageFile::create(&**disk, dir, &database_id)?;
        Ok(Files { pages, names: NamesFile::create(disk, dir, database_id, 1)?, former: None })
    }
}
