//! The files of an open database: its lock, its superblock, its log.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::checkpoint::{Checkpointer, LoadOptions};
use crate::commitlog::{
    self, DatabaseId, Log, LogReport, LogStart, NotTaken, Recovered, Recovery, SegmentSizes,
};
use crate::error::{Error, Result};
use crate::io::{RealDisk, Vfs, VfsLock};
use crate::journal::FileJournal;
use crate::mvcc::commit::Core;
use crate::mvcc::replay::{Hands, Replay, Replayed};
use crate::mvcc::transaction::Version;
use crate::names::NamespaceOptions;
use crate::options::Options;
use crate::planted::Bug;
use crate::report::{CheckpointReport, OpenReport, OpenStep};
use crate::sealed::{BlockVolume, VolumeId, VolumeStore};
use crate::settings::{Settings, SettingsFile};
use crate::superblock::{self, Contents, FolderState, LOCK_FILE, StoredOptions, Superblock};
use crate::sync::Mutex;
use crate::telling::Telling;

/// Where volumes lie.
pub(crate) const DATA_FOLDER: &str = "data";

/// Which database it is, on which disk, and what it keeps for life: what a backup takes over.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) disk: Arc<dyn Vfs>,
    /// Its folder; none of one in memory.
    pub(crate) dir: Option<PathBuf>,
    pub(crate) database_id: DatabaseId,
    pub(crate) options: StoredOptions,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    origin: Origin,
    journal: Arc<FileJournal>,
    superblock: Mutex<Superblock>,
    checkpointer: Mutex<Checkpointer>,
    /// Bytes that were replayed, until there is a checkpoint behind them.
    replayed_bytes: AtomicU64,
    /// How many bytes had been written to the log when the last checkpoint was begun.
    checkpoint_at: AtomicU64,
    /// What is kept of settings, and where.
    settings: Mutex<(Settings, SettingsFile)>,
    /// Held until the last handle and snapshot is gone.
    _lock: Box<dyn VfsLock>,
}

/// A database's files, and what they bring it to.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) core: Core,
    pub(crate) report: OpenReport,
    /// Installs that are to be gone on with, and why opening could not.
    pub(crate) postponed: Option<Postponed>,
    /// The settings that it keeps.
    pub(crate) kept: Settings,
}

/// See [`Opened`]. All can be read meanwhile: what is not installed is in memory.
#[derive(Debug)]
pub(crate) struct Postponed {
    pub(crate) installs: Vec<BlockVolume>,
    pub(crate) error: Error,
}

impl Origin {
    /// That of a database in memory, of which there is to be one in the folder `dir`.
    ///
    /// # Errors
    /// [`Error::Io`]: the system has no random bytes.
    pub(crate) fn of_memory(options: &Options, dir: &Path) -> Result<Self> {
        let disk = Arc::new(RealDisk::for_engine());
        Ok(Origin { disk, dir: None, database_id: new_id(dir)?, options: stored_options(options)? })
    }
}

impl Store {
    /// Opens the database in a folder, or makes it, and brings the core to the state of its log. `new_core` makes an empty core for
    /// the options that the database keeps.
    pub(crate) fn open(
        options: &Options,
        disk: Arc<dyn Vfs>,
        dir: &Path,
        new_core: impl Fn(NamespaceOptions) -> Core,
    ) -> Result<Box<Opened>> {
        let lock = take_lock(options, &disk, dir)?;
        // A repair that was interrupted when all was written.
        crate::repair::finish(&*disk, dir)?;
        // Again, since the folder may have changed before we had the lock.
        match folder_state(options, &disk, dir)? {
            FolderState::Free => Store::create(options, &disk, dir, lock, new_core),
            FolderState::Database => Store::recover(options, &disk, dir, lock, new_core),
        }
    }

    fn new(
        (disk, dir): (&Arc<dyn Vfs>, &Path),
        kept: Settings,
        journal: Arc<FileJournal>,
        superblock: Superblock,
        checkpointer: Checkpointer,
        lock: Box<dyn VfsLock>,
    ) -> Self {
        let Contents { database_id, options, .. } = *superblock.contents();
        let settings = Mutex::new((kept, SettingsFile::new(disk, dir, database_id)));
        Store {
            settings,
            origin: Origin { disk: disk.clone(), dir: Some(dir.to_owned()), database_id, options },
            journal,
            superblock: Mutex::new(superblock),
            checkpointer: Mutex::new(checkpointer),
            replayed_bytes: AtomicU64::new(0),
            checkpoint_at: AtomicU64::new(0),
            _lock: lock,
        }
    }

    // Apart, as model checks have little stack.
    #[inline(never)]
    fn create(
        options: &Options,
        disk: &Arc<dyn Vfs>,
        dir: &Path,
        lock: Box<dyn VfsLock>,
        new_core: impl Fn(NamespaceOptions) -> Core,
    ) -> Result<Box<Opened>> {
        let id = new_id(dir)?;
        let stored = stored_options(options)?;
        let made = superblock::create(disk, dir, id, stored, options.planted)?;
        let mut core = new_core(options.namespace_options());
        let free = made.writer.free_bytes();
        let journal = Arc::new(FileJournal::new(made.writer, made.maker));
        if options.log {
            core.set_volumes(volumes(disk, dir, id, options.open_volumes_max));
            core.set_journal(Box::new(journal.clone()), free);
        }
        let checkpointer = Checkpointer::new(disk, dir, id);
        let report = OpenReport { created: true, clean: true, ..OpenReport::default() };
        let kept = Settings::default();
        let store = Store::new((disk, dir), kept, journal, made.superblock, checkpointer, lock);
        Ok(Box::new(Opened { store, core, report, postponed: None, kept }))
    }

    #[inline(never)]
    fn recover(
        options: &Options,
        disk: &Arc<dyn Vfs>,
        dir: &Path,
        lock: Box<dyn VfsLock>,
        new_core: impl Fn(NamespaceOptions) -> Core,
    ) -> Result<Box<Opened>> {
        let mut superblock = match options.salvage {
            false => Superblock::open(&**disk, dir)?,
            true => {
                let data = disk.read_dir(&dir.join(DATA_FOLDER))?;
                let has_volumes = data.is_some_and(|names| !names.is_empty());
                Superblock::open_or_rebuild(disk, dir, stored_options(options)?, has_volumes)?.ok_or_else(
                    || Error::NotADatabase { path: dir.to_owned(), reason: "nothing in it can be salvaged" },
                )?
            }
        };
        let contents = *superblock.contents();
        let (kept, damaged_settings) = match SettingsFile::new(disk, dir, contents.database_id).read() {
            Err(error @ Error::Corrupt { .. }) if options.salvage => (Settings::default(), Some(error)),
            read => (read?, None),
        };
        let options = &options.clone().over(kept);
        let mut core = new_core(contents.options.namespace());
        if contents.options.has_log {
            core.set_volumes(volumes(disk, dir, contents.database_id, options.open_volumes_max));
        }
        let log = contents.log(disk, dir, options.planted);
        let mode = if options.salvage { Recovery::Salvage } else { Recovery::Strict };
        let began = Instant::now();
        let mut telling = Telling::new(&options.on_open_progress);
        let checkpointer = match contents.checkpoint {
            Some(roots) => {
                let goes_on = &mut |step, done, total| telling.tell(step, done, total);
                let (id, helpers) = (contents.database_id, options.helpers());
                let how = LoadOptions { write: true, helpers, goes_on };
                let loaded = Checkpointer::load(disk, dir, id, roots, &mut core, how);
                telling.outcome(dir, loaded)?
            }
            None => Checkpointer::new(disk, dir, contents.database_id),
        };
        // Before anything goes that only the older slot names: recovery removes segments too.
        superblock.settle()?;
        let checkpoint = contents.checkpoint.map_or(Version(0), |roots| roots.version);
        let loading = began.elapsed();
        // They stay on disk as long as the superblock names the checkpoint, whatever the log says of them.
        let checkpointed = core.load().volumes.clone();
        let ReplayedLog { recovered, replayed, last_version, commits, bytes: bytes_replayed } =
            replay_log(options, &log, &contents.log, mode, &core, checkpoint, &mut telling)?;
        let replaying = began.elapsed() - loading;
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
            checkpoint,
            loading,
            replaying,
            commits_replayed: commits,
            log_bytes: bytes_replayed,
            last_version,
            ..log_report(&recovered.report)
        };
        report.damage.extend(damaged_settings.map(|error| format!("{error}; there are none now")));
        if superblock.repaired() {
            report.damage.push(format!("a slot of {} was damaged", dir.join(superblock::FILE).display()));
        }
        let journal = Arc::new(FileJournal::new(recovered.writer, recovered.maker));
        if contents.options.has_log {
            core.set_journal(Box::new(journal.clone()), recovered.free_bytes);
        }
        superblock.raise_format()?;
        let mut unfinished = replayed.unfinished;
        if options.planted.has(Bug::ForgetUnfinishedInstall) {
            unfinished.clear();
        }
        let postponed = finish_installs(&core, unfinished, &mut telling, dir)?;
        if let Some(volumes) = core.volumes() {
            volumes.forget_superseded();
            if options.salvage {
                volumes.keep_superseded();
            }
        }
        // Before anything goes that only the older slot names.
        superblock.settle()?;
        let paths = |paths: Vec<PathBuf>| paths.into_iter().map(|path| path.display().to_string());
        // After a salvage nobody knows which volumes lost commits had.
        let leaves = options.salvage || options.planted.has(Bug::KeepOrphans);
        if let (Some(volumes), true) = (core.volumes(), leaves)
            && let Some(highest) = volumes.highest_number()?
        {
            core.number_volumes_above(VolumeId(highest));
        }
        if let (Some(volumes), false) = (core.volumes(), leaves) {
            let transaction = core.load();
            let known = transaction.volumes.iter().chain(checkpointed.iter());
            let swept = volumes.sweep(known.map(|volume| &**volume))?;
            report.swept_files.extend(paths(swept.removed));
            report.foreign_files.extend(paths(swept.foreign));
        }
        // From here on those that the log replaced wait for the next checkpoint.
        drop(checkpointed);
        if !options.salvage {
            let (swept, foreign) = checkpointer.sweep()?;
            report.swept_files.extend(paths(swept));
            report.foreign_files.extend(paths(foreign));
        }
        let store = Store::new((disk, dir), kept, journal, superblock, checkpointer, lock);
        store.replayed_bytes.store(bytes_replayed, Ordering::Relaxed);
        Ok(Box::new(Opened { store, core, report, postponed, kept }))
    }

    /// Writes a checkpoint of the published state, and removes the log before it. Nothing may be sealed meanwhile.
    ///
    /// # Errors
    /// Those of [`Checkpointer::write`].
    pub(crate) fn checkpoint(&self, core: &Core) -> Result<CheckpointReport> {
        let mut checkpointer = self.checkpointer.lock();
        // What is written from here on may be behind the checkpoint or before it: it counts as behind.
        if !core.planted.has(Bug::CheckpointUnflushed) {
            core.flush(true)?;
        }
        let written_bytes = self.journal.written_bytes();
        let mut first_segment = 0;
        let written = checkpointer.write(core, |roots| {
            let log = self.journal.start_after(roots.version);
            first_segment = log.first_segment;
            self.superblock.lock().name(roots, log)
        })?;
        self.replayed_bytes.store(0, Ordering::Relaxed);
        self.checkpoint_at.store(written_bytes, Ordering::Relaxed);
        let before = self.journal.bytes_on_disk();
        // What is left goes with the next one.
        let _ = self.journal.remove_before(first_segment);
        Ok(CheckpointReport {
            version: written.version,
            pages: written.pages,
            names_bytes: written.names_bytes,
            memory_bytes: written.active_bytes,
            log_bytes_removed: before.saturating_sub(self.journal.bytes_on_disk()),
            elapsed: written.elapsed,
        })
    }

    /// The version of the last checkpoint, as [`Checkpointer::version`]. Waits while one is being written.
    pub(crate) fn checkpoint_version(&self) -> Option<Version> {
        self.checkpointer.lock().version()
    }

    /// Keeps settings, and where they are not set those that were kept.
    ///
    /// # Errors
    /// Those of [`SettingsFile::write`].
    pub(crate) fn keep_settings(&self, change: Settings) -> Result<()> {
        let mut settings = self.settings.lock();
        let (kept, file) = &mut *settings;
        let new = change.or(*kept);
        file.write(&new)?;
        *kept = new;
        Ok(())
    }

    /// The settings that it keeps.
    pub(crate) fn kept_settings(&self) -> Settings {
        self.settings.lock().0
    }

    /// Which database it is.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
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

    /// Bytes that the log takes on disk.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.journal.bytes_on_disk()
    }

    /// Bytes of the log that opening would replay now, about.
    pub(crate) fn log_bytes_behind(&self) -> u64 {
        let written = self.journal.written_bytes().saturating_sub(self.checkpoint_at.load(Ordering::Relaxed));
        self.replayed_bytes.load(Ordering::Relaxed) + written
    }
}

/// After how many bytes of the log it is told how far opening is, unless that was a moment ago.
const TOLD_EVERY: u64 = 64 << 10;

/// What [`replay_log`] did.
struct ReplayedLog {
    recovered: Recovered,
    replayed: Replayed,
    last_version: Version,
    commits: u64,
    bytes: u64,
}

/// Reads the log and applies to the core what the checkpoint does not have: in this thread, and once there is much of it with the help of others,
/// which are gone when this returns.
#[inline(never)]
fn replay_log(
    options: &Options,
    log: &Log,
    start: &LogStart,
    mode: Recovery,
    core: &Core,
    checkpoint: Version,
    telling: &mut Telling<'_>,
) -> Result<ReplayedLog> {
    let total = if telling.is_wanted() { log.file_bytes_from(start.first_segment)? } else { 0 };
    let (mut read, mut told) = (0, None);
    let hands = Hands::new();
    let (workers, alone_bytes) = options.replay_workers_from();
    let memory_max = options.replay_memory_limit();
    let (mut commits, mut bytes_replayed) = (0, 0);
    let replay = RefCell::new(Replay::new(core, checkpoint, options.salvage));
    let recovered = std::thread::scope(|scope| {
        // Whatever comes of it, a panic too: else they would wait for more.
        let closing = Closing(&hands);
        let (mut threads, mut asked) = (Vec::new(), false);
        let recovered = commitlog::recover(
            log,
            start,
            mode,
            &mut |version, bytes| {
                if told.is_none_or(|told| read - told >= TOLD_EVERY) {
                    told = Some(read);
                    if !telling.tell(OpenStep::Log, read, total) {
                        return Err(Error::OpenEnded { path: log.dir.clone() }.into());
                    }
                }
                read += commitlog::frame_bytes(bytes.len() as u64);
                // What the checkpoint has is in the log still if it shares a segment with what it has not.
                if Version(version) <= checkpoint {
                    return Ok(());
                }
                let mut replay = replay.borrow_mut();
                // Better told than killed.
                if replay.takes_more_than(memory_max)? {
                    return Err(Error::ReplayMemory { max: memory_max }.into());
                }
                if bytes_replayed >= alone_bytes && !asked && workers > 0 && !options.salvage {
                    asked = true;
                    let hands = &hands;
                    let start = |worker| {
                        let named = std::thread::Builder::new().name(format!("chronolith-replay-{worker}"));
                        named.spawn_scoped(scope, move || hands.work(core, worker)).ok()
                    };
                    // Without threads it takes longer.
                    threads.extend((0..workers).map_while(start));
                    hands.engage(threads.len());
                    replay.hand_to(hands);
                }
                commits += 1;
                bytes_replayed += bytes.len() as u64;
                replay.record(Version(version), bytes).map_err(NotTaken::from)
            },
            &mut || replay.borrow_mut().settle().map_err(NotTaken::from),
        );
        drop(closing);
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        recovered
    })?;
    let last_version = Version(recovered.last_version).max(checkpoint);
    let replayed = replay.into_inner().finish(last_version);
    Ok(ReplayedLog { recovered, replayed, last_version, commits, bytes: bytes_replayed })
}

/// Closes hands when it goes.
struct Closing<'a>(&'a Hands);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Goes on with installs that were interrupted, as far as the log has space for them: the rest can wait until the database is open.
///
/// # Errors
/// [`Error::Stopped`]: the log cannot be written.
fn finish_installs(
    core: &Core,
    mut installs: Vec<BlockVolume>,
    telling: &mut Telling<'_>,
    dir: &Path,
) -> Result<Option<Postponed>> {
    let total = installs.len() as u64;
    let mut postponed = None;
    if !installs.is_empty() {
        while let (Some(volume), None) = (installs.first(), &postponed) {
            telling.tell(OpenStep::Installs, total - installs.len() as u64, total);
            telling.outcome(dir, Ok(()))?;
            match core.install(*volume, core.names.metrics()) {
                Ok(_) => drop(installs.remove(0)),
                Err(error @ Error::Stopped { .. }) => return Err(error),
                Err(error) => postponed = Some(error),
            }
        }
        // Before anything that they replaced is swept.
        core.flush(true)?;
    }
    Ok(postponed.map(|error| Postponed { installs, error }))
}

/// The volumes of a database, of which so many are kept open.
pub(crate) fn volumes(disk: &Arc<dyn Vfs>, dir: &Path, id: DatabaseId, open_max: usize) -> VolumeStore {
    VolumeStore::new(disk.clone(), dir.join(DATA_FOLDER), id, open_max)
}

/// What distinguishes a new database in this folder from every other.
pub(crate) fn new_id(dir: &Path) -> Result<DatabaseId> {
    let mut id = DatabaseId::default();
    getrandom::fill(&mut id)
        .map_err(|error| Error::io("get random bytes for", dir, std::io::Error::other(error)))?;
    Ok(id)
}

/// Takes the folder's lock, making the folder if that is wanted. Leaves nothing behind in a folder that is none of ours.
fn take_lock(options: &Options, disk: &Arc<dyn Vfs>, dir: &Path) -> Result<Box<dyn VfsLock>> {
    folder_state(options, disk, dir)?;
    make_folder(disk, dir)?;
    let lock = disk.try_lock(&dir.join(LOCK_FILE))?;
    lock.ok_or_else(|| Error::Locked { path: dir.to_owned() })
}

fn folder_state(options: &Options, disk: &Arc<dyn Vfs>, dir: &Path) -> Result<FolderState> {
    if crate::repair::is_unfinished(&**disk, dir)? {
        return Ok(FolderState::Database);
    }
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
pub(crate) fn make_folder(disk: &Arc<dyn Vfs>, dir: &Path) -> Result<()> {
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

/// The options that a new database keeps.
pub(crate) fn stored_options(options: &Options) -> Result<StoredOptions> {
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
