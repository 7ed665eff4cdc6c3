//! The files of an open database: its lock, its superblock, its log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::commitlog::{self, DatabaseId, LogReport, LogStart, NotTaken, Recovery, SegmentSizes};
use crate::error::{Error, Result};
use crate::io::{Vfs, VfsLock};
use crate::journal::FileJournal;
use crate::mvcc::commit::Core;
use crate::mvcc::replay::Replay;
use crate::mvcc::transaction::Version;
use crate::names::NamespaceOptions;
use crate::options::Options;
use crate::planted::Bug;
use crate::report::OpenReport;
use crate::sealed::VolumeStore;
use crate::superblock::{self, FolderState, LOCK_FILE, StoredOptions, Superblock};
use crate::sync::Mutex;

/// Where volumes lie.
const DATA_FOLDER: &str = "data";

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    journal: Arc<FileJournal>,
    superblock: Mutex<Superblock>,
    /// Held until the last handle and snapshot is gone.
    _lock: Box<dyn VfsLock>,
}

impl Store {
    /// Opens the database in a folder, or makes it, and brings the core to the state of its log. `new_core` makes an empty core for
    /// the options that the database keeps.
    pub(crate) fn open(
        options: &Options,
        disk: Arc<dyn Vfs>,
        dir: &Path,
        new_core: impl Fn(NamespaceOptions) -> Core,
    ) -> Result<(Store, Core, OpenReport)> {
        let lock = take_lock(options, &disk, dir)?;
        // Again, since the folder may have changed before we had the lock.
        match folder_state(options, &disk, dir)? {
            FolderState::Free => Store::create(options, &disk, dir, lock, new_core),
            FolderState::Database => Store::recover(options, &disk, dir, lock, new_core),
        }
    }

    fn create(
        options: &Options,
        disk: &Arc<dyn Vfs>,
        dir: &Path,
        lock: Box<dyn VfsLock>,
        new_core: impl Fn(NamespaceOptions) -> Core,
    ) -> Result<(Store, Core, OpenReport)> {
        let mut id = DatabaseId::default();
        getrandom::fill(&mut id)
            .map_err(|error| Error::io("get random bytes for", dir, std::io::Error::other(error)))?;
        let stored = stored_options(options)?;
        let made = superblock::create(disk, dir, id, stored, options.planted)?;
        let mut core = new_core(options.namespace_options());
        let free = made.writer.free_bytes();
        let journal = Arc::new(FileJournal::new(made.writer, made.maker));
        if options.log {
            core.set_volumes(volumes(options, disk, dir, id));
            core.set_journal(Box::new(journal.clone()), free);
        }
        let superblock = Mutex::new(made.superblock);
        let report = OpenReport { created: true, clean: true, ..OpenReport::default() };
        Ok((Store { journal, superblock, _lock: lock }, core, report))
    }

    fn recover(
        options: &Options,
        disk: &Arc<dyn Vfs>,
        dir: &Path,
        lock: Box<dyn VfsLock>,
        new_core: impl Fn(NamespaceOptions) -> Core,
    ) -> Result<(Store, Core, OpenReport)> {
        let superblock = match options.salvage {
            false => Superblock::open(&**disk, dir)?,
            true => Superblock::open_or_rebuild(disk, dir, stored_options(options)?)?.ok_or_else(|| {
                Error::NotADatabase { path: dir.to_owned(), reason: "nothing in it can be salvaged" }
            })?,
        };
        let contents = *superblock.contents();
        let kept = NamespaceOptions {
            block_ns: i64::try_from(contents.options.block_size_ns).unwrap_or(i64::MAX),
            shards: contents.options.shards,
        };
        let mut core = new_core(kept);
        if contents.options.has_log {
            core.set_volumes(volumes(options, disk, dir, contents.database_id));
        }
        let log = contents.log(disk, dir, options.planted);
        let mode = if options.salvage { Recovery::Salvage } else { Recovery::Strict };
        let mut replay = Replay::new(&mut core);
        let recovered = commitlog::recover(&log, &contents.log, mode, &mut |version, bytes| {
            replay.record(Version(version), bytes).map_err(|error| NotTaken::Rejected(error.0))
        })?;
        let replayed = replay.finish(Version(recovered.last_version));
        if recovered.last_version == 0 {
            // The creation may have been interrupted behind its last rename. Records are written only once it is complete, or here.
            disk.sync_dir(dir)?;
            superblock::sync_folder_above(disk, dir)?;
        }
        let mut report = OpenReport {
            clean: contents.clean
                && recovered.report.cut.is_none()
                && recovered.last_version == contents.log.synced_version,
            points_replayed: replayed.points,
            substitutes: replayed.substitutes,
            metrics: core.load().metrics.len(),
            last_version: Version(recovered.last_version),
            ..log_report(&recovered.report)
        };
        if superblock.repaired() {
            report.damage.push(format!("a slot of {} was damaged", dir.join(superblock::FILE).display()));
        }
        let journal = Arc::new(FileJournal::new(recovered.writer, recovered.maker));
        if contents.options.has_log {
            core.set_journal(Box::new(journal.clone()), recovered.free_bytes);
        }
        let mut unfinished = replayed.unfinished;
        if options.planted.has(Bug::ForgetUnfinishedInstall) {
            unfinished.clear();
        }
        for volume in &unfinished {
            core.install(*volume, core.names.metrics())?;
        }
        if !unfinished.is_empty() {
            // Before anything that they replaced is swept.
            core.flush(true)?;
        }
        if let Some(volumes) = core.volumes() {
            volumes.forget_superseded();
            if options.salvage {
                volumes.keep_superseded();
            }
        }
        // After a salvage nobody knows which volumes lost commits had.
        let leaves = options.salvage || options.planted.has(Bug::KeepOrphans);
        if let (Some(volumes), false) = (core.volumes(), leaves) {
            let swept = volumes.sweep(core.load().volumes.iter().map(|volume| &**volume))?;
            let paths = |paths: Vec<PathBuf>| paths.into_iter().map(|path| path.display().to_string());
            report.swept_files.extend(paths(swept.removed));
            report.foreign_files.extend(paths(swept.foreign));
        }
        Ok((Store { journal, superblock: Mutex::new(superblock), _lock: lock }, core, report))
    }

    /// Notes in the superblock that the log ends here, so that damage to its end is told from a torn tail. The log is synced.
    pub(crate) fn close(&self) -> Result<()> {
        let mut superblock = self.superblock.lock();
        let contents = *superblock.contents();
        let (synced, synced_version) = self.journal.synced();
        let is_known = contents.clean && contents.log.synced == synced && !superblock.repaired();
        if is_known || !self.journal.is_synced() {
            return Ok(());
        }
        superblock.update(LogStart { synced, synced_version, ..contents.log }, true)
    }

    /// Bytes written to the log since it was opened.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.journal.written_bytes()
    }
}

/// The volumes of a database.
fn volumes(options: &Options, disk: &Arc<dyn Vfs>, dir: &Path, id: DatabaseId) -> VolumeStore {
    VolumeStore::new(disk.clone(), dir.join(DATA_FOLDER), id, options.open_volumes_max)
}

/// Takes the folder's lock, making the folder if that is wanted. Leaves nothing behind in a folder that is none of ours.
fn take_lock(options: &Options, disk: &Arc<dyn Vfs>, dir: &Path) -> Result<Box<dyn VfsLock>> {
    folder_state(options, disk, dir)?;
    make_folder(disk, dir)?;
    let lock = disk.try_lock(&dir.join(LOCK_FILE))?;
    lock.ok_or_else(|| Error::Locked { path: dir.to_owned() })
}

fn folder_state(options: &Options, disk: &Arc<dyn Vfs>, dir: &Path) -> Result<FolderState> {
    match superblock::examine(&**disk, dir) {
        // A log without its superblock: `open_or_rebuild` makes a new one.
        Err(Error::Corrupt { .. }) if options.salvage => Ok(FolderState::Database),
        Ok(FolderState::Free) if !options.create => {
            Err(Error::NotADatabase { path: dir.to_owned(), reason: "there is nothing in it" })
        }
        state => state,
    }
}

/// Makes the folder and those above it. Each name but the last is durable before the next folder is made; the last one's is synced with the
/// database. So of an attempt that was interrupted at most the deepest folder's name is not durable, and that folder is empty.
fn make_folder(disk: &Arc<dyn Vfs>, dir: &Path) -> Result<()> {
    let mut missing: Vec<&Path> = Vec::new();
    for folder in dir.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
        match disk.read_dir(folder)? {
            None => missing.push(folder),
            Some(names) => {
                let is_root = folder.parent().is_none();
                if names.is_empty() && folder != dir && !is_root {
                    superblock::sync_folder_above(disk, folder)?;
                }
                break;
            }
        }
    }
    for folder in missing.into_iter().rev() {
        disk.create_dir_all(folder)?;
        if folder != dir {
            superblock::sync_folder_above(disk, folder)?;
        }
    }
    Ok(())
}

fn stored_options(options: &Options) -> Result<StoredOptions> {
    let NamespaceOptions { block_ns, shards } = options.namespace_options();
    let segment_sizes =
        SegmentSizes::new(options.log_segment_bytes_min.into(), options.log_segment_bytes_max.into())?;
    Ok(StoredOptions { block_size_ns: block_ns.unsigned_abs(), shards, segment_sizes, has_log: options.log })
}

/// The log's report in words.
fn log_report(log: &LogReport) -> OpenReport {
    let paths = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect();
    let damage = log.damage.iter().map(|damage| {
        let lost = match damage.versions {
            Some((first, last)) => format!("; versions {first} to {last} are lost"),
            None => String::new(),
        };
        format!("{} at byte {}: {}{lost}", damage.path.display(), damage.offset, damage.reason)
    });
    let cut = log.cut.as_ref();
    OpenReport {
        log_segments: log.segments,
        log_bytes: log.bytes,
        commits_replayed: log.records,
        cut_bytes: cut.map_or(0, |cut| cut.bytes),
        cut: cut.map(|cut| format!("{} at byte {}: {}", cut.path.display(), cut.position.offset, cut.reason)),
        swept_files: paths(&log.swept),
        foreign_files: paths(&log.foreign),
        damaged_files: paths(&log.put_aside),
        damage: damage.collect(),
        ..OpenReport::default()
    }
}
