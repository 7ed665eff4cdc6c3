//! The folder of a database's volumes.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::open_volumes::OpenVolumes;
use super::place::Place;
use super::sweep::{Swept, highest_number, sweep};
use super::{BlockVolume, SealedVolume};
use crate::commitlog::DatabaseId;
use crate::error::{Error, Result};
use crate::fileset::{SupplementSpec, VolumeFile, VolumeSpec, VolumeWriter, remove_written};
use crate::io::Vfs;
use crate::mvcc::transaction::Version;
use crate::names::Namespace;
use crate::superblock::sync_folder_above;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};

/// The volumes of one database. Clones are handles to the same.
#[derive(Clone, Debug)]
pub(crate) struct VolumeStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: std::sync::Arc<dyn Vfs>,
    data: PathBuf,
    database_id: DatabaseId,
    open: OpenVolumes,
    /// Folders of shards whose names are known to be durable, and those of the folders above.
    durable_folders: Mutex<BTreeSet<PathBuf>>,
    /// Those whose last holder is gone. One leaves the list when its files are gone for good.
    superseded: Mutex<Vec<Superseded>>,
    /// Whether superseded volumes stay on disk.
    keeps_superseded: AtomicBool,
    /// Held while files are removed, and while a volume is begun: who makes room for it must not meet who removes.
    removal: Mutex<()>,
}

/// A volume to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Superseded {
    place: Place,
    /// The version that no longer has it.
    at: Version,
}

impl VolumeStore {
    /// The volumes in the folder `data`, which need not exist, of which at most `open_max` are kept open; with `usize::MAX` none is ever closed. No I/O.
    pub(crate) fn new(
        disk: std::sync::Arc<dyn Vfs>,
        data: PathBuf,
        database_id: DatabaseId,
        open_max: usize,
    ) -> Self {
        VolumeStore(Arc::new(Inner {
            disk,
            data,
            database_id,
            open: OpenVolumes::new(open_max),
            durable_folders: Mutex::default(),
            superseded: Mutex::default(),
            keeps_superseded: AtomicBool::new(false),
            removal: Mutex::default(),
        }))
    }

    /// A volume of the store, whose files nobody looks at before it is read. One for each volume: its files are removed when it is superseded
    /// and dropped. No I/O.
    pub(crate) fn volume(&self, block: BlockVolume, namespace: &Namespace) -> Arc<SealedVolume> {
        let place = Place::new(&self.0.data, &block, namespace);
        Arc::new(SealedVolume::new(self.clone(), block, place))
    }

    /// Begins to write a volume. Its folders are made, and their names are durable when this returns; what an unfinished attempt left
    /// under its name is removed. It is to be finished before the log names it.
    ///
    /// An attempt that is given up leaves files. They go with the next attempt under the same name or the next [`sweep`](VolumeStore::sweep), or
    /// when its volume is [superseded](SealedVolume::supersede) at version 0 and dropped.
    ///
    /// # Errors
    /// [`Error::Io`], with [`AlreadyExists`](ErrorKind::AlreadyExists) if there is such a volume or its files are yet to be removed.
    pub(crate) fn create(&self, block: &BlockVolume, namespace: &Namespace) -> Result<VolumeWriter<'_>> {
        let place = Place::new(&self.0.data, block, namespace);
        let _removal = self.0.removal.lock();
        if self.0.superseded.lock().iter().any(|superseded| superseded.place == place) {
            let path = place.folder.join(place.name.file_name(VolumeFile::Checkpoint));
            return Err(Error::io("create", path, ErrorKind::AlreadyExists.into()));
        }
        self.make_folder(&place.folder)?;
        let spec = VolumeSpec {
            name: place.name,
            block_size: block.block_size_ns(),
            snapshot: None,
            supplement: Some(self.supplement_of(block)),
        };
        VolumeWriter::create(self.disk(), &place.folder, spec)
    }

    /// Removes the files of superseded volumes whose last holder is gone, if the version that replaced them is not above `upto`: the log is durable up to there,
    /// otherwise a power cut could bring back a transaction that needs them, and the last checkpoint, if there is one, is not below it. Returns how many
    /// it removed.
    ///
    /// # Errors
    /// [`Error::Io`], the first there was. What could not be removed is tried again the next time; the others are gone.
    ///
    /// Cost: for each, two syncs of a folder.
    pub(crate) fn remove_superseded(&self, upto: Version) -> Result<u64> {
        let _removal = self.0.removal.lock();
        let mut due = self.0.superseded.lock().clone();
        due.retain(|superseded| superseded.at <= upto);
        let (mut removed, mut failed) = (0, None);
        for superseded in due {
            match remove_written(self.disk(), &superseded.place.folder, superseded.place.name) {
                Ok(()) => {
                    self.0.superseded.lock().retain(|waiting| *waiting != superseded);
                    removed += 1;
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(removed), Err)
    }

    /// Forgets the volumes that wait to be removed: those that replay came past were removed when they were superseded, or are the sweep's, which
    /// looks first whose the files are.
    pub(crate) fn forget_superseded(&self) {
        self.0.superseded.lock().clear();
    }

    /// Leaves the files of volumes that are superseded from now on: after a salvage, when the log may not tell who needs them.
    pub(crate) fn keep_superseded(&self) {
        self.0.keeps_superseded.store(true, Ordering::Relaxed);
    }

    /// The folder that they lie in.
    pub(crate) fn folder(&self) -> &Path {
        &self.0.data
    }

    /// How many volumes wait to be removed.
    pub(crate) fn superseded(&self) -> usize {
        self.0.superseded.lock().len()
    }

    /// About how many bytes the files have of the volumes that wait to be removed.
    ///
    /// Cost: opening each of the files.
    pub(crate) fn superseded_bytes(&self) -> u64 {
        let waiting = self.0.superseded.lock().clone();
        let paths = waiting.iter().flat_map(|superseded| superseded.place.files());
        // One that cannot be looked at counts nothing.
        let len = |path: PathBuf| self.disk().open(&path, false).ok()??.len().ok();
        paths.filter_map(len).sum()
    }

    /// How many volumes are kept open.
    pub(crate) fn open_volumes(&self) -> usize {
        self.0.open.len()
    }

    /// Removes volumes of this database, complete or not, that are not among the `known`, and tells what else lies in the folder. For opening, when
    /// the log was replayed and is durable, and before anything is written.
    ///
    /// Ours is what has a supplement with this database's id; of a complete volume it must belong to the files beside it. A writer makes the supplement first,
    /// and removing leaves it to the last, so that unfinished volumes have one: only a power cut may leave files that do not tell whose they
    /// are. Those are not touched, and replaced when the same volume is written again.
    ///
    /// # Errors
    /// [`Error::Io`]. What was removed so far is gone.
    ///
    /// Cost: lists all folders; for each volume that is not known, reads a page.
    pub(crate) fn sweep<'v>(&self, known: impl IntoIterator<Item = &'v SealedVolume>) -> Result<Swept> {
        let known = known.into_iter().map(SealedVolume::place).collect();
        let _removal = self.0.removal.lock();
        let swept = sweep(self.disk(), &self.0.data, &self.0.database_id, &known)?;
        // Replay came by volumes that were replaced since. If there were files of theirs, they have gone with the others.
        self.0.superseded.lock().clear();
        Ok(swept)
    }

    /// The highest number of a volume of this database that lies in the folder, complete or not, whether anybody knows it or not. Numbers of foreign
    /// volumes do not count: there may be none above.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// Cost: lists all folders; for each volume with a number higher than those before it, reads a page.
    pub(crate) fn highest_number(&self) -> Result<Option<u32>> {
        highest_number(self.disk(), &self.0.data, &self.0.database_id)
    }

    pub(super) fn disk(&self) -> &dyn Vfs {
        &*self.0.disk
    }

    pub(super) fn open(&self) -> &OpenVolumes {
        &self.0.open
    }

    pub(super) fn supplement_of(&self, block: &BlockVolume) -> SupplementSpec {
        SupplementSpec { database_id: self.0.database_id, freeze_version: block.freeze.get() }
    }

    /// The folders of shards that volumes were put into.
    pub(super) fn shard_folders(&self) -> Vec<PathBuf> {
        self.0.durable_folders.lock().iter().cloned().collect()
    }

    /// Whether its volumes are never closed, so that they stay readable when somebody else removes their files.
    pub(super) fn keeps_open(&self) -> bool {
        self.0.open.is_unlimited()
    }

    /// Notes that the last holder of a superseded volume is gone. No I/O.
    pub(super) fn add_superseded(&self, place: Place, at: Version) {
        if !self.0.keeps_superseded.load(Ordering::Relaxed) {
            self.0.superseded.lock().push(Superseded { place, at });
        }
    }

    /// Makes the folder of a shard and those above it, up to that of all volumes. Each name is durable before anything is made below it: of a
    /// folder that is not empty it is, and an empty one may be what an interrupted attempt left.
    pub(super) fn make_folder(&self, shard: &Path) -> Result<()> {
        if self.0.durable_folders.lock().contains(shard) {
            return Ok(());
        }
        let above: Vec<&Path> =
            shard.ancestors().take_while(|folder| folder.starts_with(&self.0.data)).collect();
        for folder in above.into_iter().rev() {
            let names = self.disk().read_dir(folder)?;
            if names.is_none() {
                self.disk().create_dir_all(folder)?;
            }
            if names.is_none_or(|names| names.is_empty()) {
                sync_folder_above(&self.0.disk, folder)?;
            }
        }
        self.0.durable_folders.lock().insert(shard.to_owned());
        Ok(())
    }
}
