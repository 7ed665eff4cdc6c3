//! The superblock: what a database is, and how far its log is known to be synced.
//!
//! Invariants
//! * A database exists from the moment the superblock has its name: that is the last step of its creation, when its log is durable.
//! * There are two slots, written in turn; the one with the higher generation counts. A write that is cut short leaves the other.
//! * The log's position in it is a lower bound: everything before it is synced. So the older slot is as true as the newer one, only
//!   less informed, and a database whose newer slot is damaged loses nothing by it.
//! * The log's first segment, and a checkpoint, are in both slots before anything that only the one before needs may be removed, for the same
//!   reason.
//!
//! Parts: `slots` (bytes, and what the two slots say together), `creation` (what a folder is, making a database or a backup in it, making a lost superblock anew).
//!
//! Format: `design/superblock.md`.

mod creation;
mod slots;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::Roots;
use crate::commitlog::{DatabaseId, Log, LogStart, SegmentSizes};
use crate::error::{Error, Result};
use crate::io::{Vfs, VfsFile};
use crate::names::NamespaceOptions;
use crate::planted::Planted;

use slots::{SLOT_BYTES, Slot, Slots, read_slots};

pub(crate) use creation::{Backup, FolderState, create, examine, sync_folder_above};

/// The file's name in the database's folder.
pub(crate) const FILE: &str = "superblock";
/// The name of the file that a database's lock is taken on. Not written by this module.
pub(crate) const LOCK_FILE: &str = "LOCK";
/// The format version of the superblocks written here.
pub(crate) const FORMAT_VERSION: u32 = 2;

/// The options that a database keeps for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredOptions {
    /// The length of a block, in nanoseconds.
    pub(crate) block_size_ns: u64,
    /// The number of shards of the default namespace.
    pub(crate) shards: u32,
    /// How large the log's segments are made.
    pub(crate) segment_sizes: SegmentSizes,
    /// Whether commits are logged.
    pub(crate) has_log: bool,
}

/// What a superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    /// What distinguishes this database from every other.
    pub(crate) database_id: DatabaseId,
    /// The options it keeps.
    pub(crate) options: StoredOptions,
    /// Where the log begins, and up to where it is known to be synced.
    pub(crate) log: LogStart,
    /// Whether the database was closed with the log ending at that position. True of that moment: a log that goes on behind it was
    /// not closed since.
    pub(crate) clean: bool,
    /// The newest checkpoint, if there ever was one.
    pub(crate) checkpoint: Option<Roots>,
}

/// A database's superblock, open for updates. One owner.
#[derive(Debug)]
pub(crate) struct Superblock {
    file: Box<dyn VfsFile>,
    generation: u64,
    contents: Contents,
    repaired: bool,
    /// The newest of its slots.
    format_version: u32,
    /// Whether the slots name different checkpoints, or beginnings of the log: the process ended between the two. Or their generations are no
    /// neighbours: a sync failed.
    differs: bool,
    /// Whether all that was read may never have reached the disk: the process before may have ended after a sync that failed.
    in_doubt: bool,
}

impl Superblock {
    /// Opens the superblock of a database for updates. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if no slot is valid, or both are and do not belong together. [`Error::NewerFormat`]. [`Error::Io`].
    pub(crate) fn open(disk: &dyn Vfs, dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let Some(file) = disk.open(&path, true)? else {
            return Err(corrupt(&path, 0, "the superblock is missing"));
        };
        let Slots { newest, repaired, differs } = read_slots(&*file, &path)?;
        let Slot { format_version, generation, contents } = newest;
        Ok(Superblock { file, generation, contents, repaired, format_version, differs, in_doubt: true })
    }

    /// Reads what the superblock says, and whether a slot is damaged, without asking for the right to write.
    ///
    /// # Errors
    /// As for [`Superblock::open`].
    pub(crate) fn read(disk: &dyn Vfs, dir: &Path) -> Result<(Contents, bool)> {
        let path = dir.join(FILE);
        let file = disk.open(&path, false)?.ok_or_else(|| corrupt(&path, 0, "the superblock is missing"))?;
        read_slots(&*file, &path).map(|slots| (slots.newest.contents, slots.repaired))
    }

    /// What it says.
    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Whether one slot was damaged, or the whole was rebuilt. The next update makes it whole.
    pub(crate) fn repaired(&self) -> bool {
        self.repaired
    }

    /// Sees to it that code which knows only older formats refuses the database by its format, and not by what it finds in it. One write and
    /// one sync if the superblock is of an older version, else nothing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn raise_format(&mut self) -> Result<()> {
        match self.format_version < FORMAT_VERSION {
            true => self.write_next(self.contents),
            false => Ok(()),
        }
    }

    /// Notes how far the log is synced: `synced` must be so when this is called. `clean` says that it ends there and the database is
    /// being closed. One write and one sync; two each if the log's first segment is another than before.
    ///
    /// # Errors
    /// [`Error::Io`]: the superblock says this or what it said before. Trying again is allowed.
    pub(crate) fn update(&mut self, log: LogStart, clean: bool) -> Result<()> {
        let begins_later = log.first_segment != self.contents.log.first_segment;
        let contents = Contents { log, clean, ..self.contents };
        self.write_next(contents)?;
        if begins_later {
            self.write_next(contents)?;
        }
        Ok(())
    }

    /// Names a checkpoint, behind which the log begins as `log` says, in both slots. Two writes and two syncs.
    ///
    /// # Errors
    /// [`Error::Io`]: nobody knows which of the two checkpoints a slot names.
    pub(crate) fn name(&mut self, checkpoint: Roots, log: LogStart) -> Result<()> {
        let contents = Contents { checkpoint: Some(checkpoint), log, clean: false, ..self.contents };
        self.write_next(contents)?;
        self.write_next(contents)
    }

    /// Sees to it that what was read is on the disk, and that both slots name the same checkpoint, before anything that only the older one has is written
    /// over or removed. A read and a write of both slots and a sync after an opening, one more of each if they differ, else nothing.
    ///
    /// After a sync that failed the system may call pages clean that never reached the disk: only writing them again helps. They are written as they are,
    /// so that a cut meanwhile leaves each slot as it was on the disk, as it was read, or torn where those two differ, and they differ in at most one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn settle(&mut self) -> Result<()> {
        if self.in_doubt {
            let mut bytes = vec![0; 2 * SLOT_BYTES];
            let len = self.file.read_at(0, &mut bytes)?;
            self.file.write_at(0, &bytes[..len])?;
            self.file.sync()?;
            self.in_doubt = false;
        }
        if self.differs {
            self.write_next(self.contents)?;
            self.differs = false;
        }
        Ok(())
    }

    /// Writes the next generation over the older slot, which may be damaged; the newer one is not touched.
    fn write_next(&mut self, contents: Contents) -> Result<()> {
        let generation = self.generation + 1;
        self.file.write_at((generation % 2) * SLOT_BYTES as u64, &contents.encode(generation))?;
        self.file.sync()?;
        self.generation = generation;
        self.contents = contents;
        self.format_version = FORMAT_VERSION;
        Ok(())
    }
}

impl StoredOptions {
    /// What the default namespace has.
    pub(crate) fn namespace(&self) -> NamespaceOptions {
        let block_ns = i64::try_from(self.block_size_ns).unwrap_or(i64::MAX);
        NamespaceOptions { block_ns, shards: self.shards }
    }
}

impl Contents {
    /// What recovery needs to know of the log.
    pub(crate) fn log(&self, disk: &Arc<dyn Vfs>, dir: &Path, planted: Planted) -> Log {
        Log {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            database_id: self.database_id,
            note: self.options.note(),
            sizes: self.options.segment_sizes,
            planted,
        }
    }
}

fn corrupt(path: &Path, offset: u64, reason: &'static str) -> Error {
    Error::Corrupt { format: "superblock", path: path.to_owned(), offset, metric: None, reason }
}
