//! Repair: a database whose files are damaged becomes one that opens, with all that is sound.
//!
//! What it guarantees
//! * Nothing is deleted: what is damaged, and what it takes the place of, is put into `DIR/quarantine`.
//! * A cut at any moment leaves what was there, or what the repaired database is made of; the next opening or repair goes on.
//! * Nothing is made up but names, which say so: each point was written by somebody.
//! * Whatever is lost, or may be back that was gone, is in the report.
//!
//! What it relies on: it has the database's lock, and the options are given that nothing tells any more.
//!
//! Parts: `examine` (what is there, and what is wrong with it), `rebuild` (a core out of what is sound), `namespaces` (which of them there were),
//! `rewrite` (volumes anew, with what is sound of them), `quarantine` (putting aside, and into place), `report`. More: `design/repair.md`.

mod examine;
mod namespaces;
mod quarantine;
mod rebuild;
mod report;
mod rewrite;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::checkpoint::{self, Checkpointer, Roots};
use crate::commitlog::{self, LogFolder, LogStart};
use crate::error::{Error, Result};
use crate::io::{RealDisk, Vfs};
use crate::options::Options;
use crate::planted::Planted;
use crate::sealed::FoundVolume;
use crate::settings::{self, SettingsFile};
use crate::superblock::{self, Contents, LOCK_FILE, Superblock};

use examine::Examination;
use quarantine::Quarantine;
pub(crate) use quarantine::{finish, is_unfinished};
use rebuild::Rebuilt;
pub use report::{Finding, RepairReport};

/// How to repair a database.
///
/// ```
/// use chronolith::{Database, RepairOptions};
///
/// # fn main() -> chronolith::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("metrics");
/// Database::open(&path)?.close()?;
/// let report = RepairOptions::new().dry_run(true).run(&path)?;
/// assert!(report.is_sound());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct RepairOptions {
    dry_run: bool,
    options: Options,
}

impl RepairOptions {
    /// The defaults: what is damaged is repaired.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to tell only what is damaged, and what would be done. Nothing is changed then. Default: no.
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// The options that the database was made with: its block size and its shards. They count only if neither superblock nor log nor volumes tell them.
    #[must_use]
    pub fn made_with(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Repairs the database in a directory.
    ///
    /// # Errors
    /// As [`repair`].
    pub fn run(&self, path: impl AsRef<Path>) -> Result<RepairReport> {
        self.run_with(path, |_, _| {})
    }

    /// As [`RepairOptions::run`]. `progress` is told how many volumes have been read, of how many.
    ///
    /// # Errors
    /// As [`repair`].
    pub fn run_with(&self, path: impl AsRef<Path>, progress: impl FnMut(u64, u64)) -> Result<RepairReport> {
        self.run_on(Arc::new(RealDisk::for_engine()), path, progress)
    }

    /// As [`RepairOptions::run_with`], on another disk.
    ///
    /// # Errors
    /// As [`repair`].
    pub fn run_on(
        &self,
        disk: Arc<dyn Vfs>,
        path: impl AsRef<Path>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<RepairReport> {
        run(&disk, path.as_ref(), self, &mut progress)
    }
}

/// Brings a damaged database back with all that is sound of it: checkpoint, log and volumes, and whatever of these is left. Damaged files are put
/// into the folder `quarantine` in the database's, never deleted. If nothing is damaged, nothing is changed.
///
/// Names, and which metric is in which volume, come from the volumes where nothing else tells them. Then metrics that were dropped and points that
/// were deleted may be back, as far as that was not merged into the volumes; the report lists the metrics.
///
/// Cost: all of the database is read; if something is damaged, its log is replayed and a whole checkpoint written.
///
/// # Errors
/// [`Error::Locked`], [`Error::NotADatabase`], [`Error::NewerFormat`], [`Error::Io`], [`Error::DiskFull`]: the database is as it was, or the next
/// opening or repair goes on with it. [`Error::Corrupt`] if the list of files of an interrupted repair is damaged.
pub fn repair(path: impl AsRef<Path>, options: &RepairOptions) -> Result<RepairReport> {
    options.run(path)
}

fn run(
    disk: &Arc<dyn Vfs>,
    dir: &Path,
    options: &RepairOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RepairReport> {
    let started = Instant::now();
    options.options.check()?;
    let ours =
        [superblock::FILE, commitlog::FOLDER, crate::store::DATA_FOLDER, quarantine::FOLDER].iter().copied();
    let ours: Vec<&str> = ours.chain(checkpoint::FOLDERS).collect();
    let names = disk.read_dir(dir)?.unwrap_or_default();
    if !names.iter().any(|name| ours.iter().any(|ours| name == *ours)) {
        return Err(Error::NotADatabase { path: dir.to_owned(), reason: "nothing in it is a database's" });
    }
    let lock = disk.try_lock(&dir.join(LOCK_FILE))?;
    let _lock = lock.ok_or_else(|| Error::Locked { path: dir.to_owned() })?;
    let mut report = RepairReport { dry_run: options.dry_run, ..RepairReport::default() };
    if let Some(pending) = quarantine::pending(&**disk, dir)? {
        if options.dry_run {
            report.findings.push(Finding {
                path: pending.folder().to_owned(),
                offset: 0,
                what: "a repair was interrupted when all was written; what else there is to tell is not known before".into(),
                lost: None,
                done: "goes on with it".into(),
            });
            return Ok(report);
        }
        finish(&**disk, dir)?;
    }
    let mut found = Examination::new(disk, dir, &options.options, progress)?;
    report.findings = std::mem::take(&mut found.findings);
    report.foreign_files = std::mem::take(&mut found.foreign);
    if !report.findings.is_empty() {
        let store = (!options.dry_run).then(|| Quarantine::begin(&**disk, dir)).transpose()?;
        let Rebuilt { mut core, contents, gone, last_sequence, last_incarnation } =
            rebuild::rebuild(disk, dir, &options.options, &found, options.dry_run, &mut report)?;
        let transaction = core.load();
        report.metrics = transaction.metrics.len();
        report.volumes = transaction.volumes.iter().count() as u64;
        report.version = transaction.version;
        if let Some(quarantine) = store {
            write(disk, dir, &quarantine, &mut core, contents, (last_sequence, last_incarnation))?;
            let settings = SettingsFile::new(disk, dir, contents.database_id).read();
            report.quarantined = files_to_move(disk, dir, &gone, settings.is_ok())?;
            quarantine.decide(&**disk, &report.quarantined)?;
            report.quarantine = Some(quarantine.folder().to_owned());
        }
    }
    report.elapsed = started.elapsed();
    Ok(report)
}

/// Writes all that the repaired database is to have beside its volumes, durable, into the folder of new files.
fn write(
    disk: &Arc<dyn Vfs>,
    dir: &Path,
    quarantine: &Quarantine,
    core: &mut crate::mvcc::commit::Core,
    contents: Contents,
    (last_sequence, last_incarnation): (u64, u64),
) -> Result<()> {
    let new = quarantine.new_folder();
    debug_assert!(new.starts_with(dir));
    let mut roots = Roots::default();
    let mut checkpointer = Checkpointer::new(disk, &new, contents.database_id);
    checkpointer.write(core, |written| {
        roots = written;
        Ok(())
    })?;
    let sequence = last_sequence.saturating_add(1);
    let log = contents.log(disk, &new, Planted::default());
    let synced = log.begin_at(sequence, last_incarnation.saturating_add(1))?;
    disk.sync_dir(&new)?;
    let version = roots.version;
    let start = LogStart {
        first_segment: sequence,
        first_version: version.next().get(),
        synced,
        synced_version: version.get(),
    };
    let contents = Contents { log: start, clean: true, checkpoint: Some(roots), ..contents };
    Superblock::make_at(disk, &new, contents)
}

/// The files that go: all of the former checkpoint, the log and the superblock, these volumes, and settings that are damaged. By their paths in the database's folder.
fn files_to_move(
    disk: &Arc<dyn Vfs>,
    dir: &Path,
    gone: &[&FoundVolume],
    settings_are_sound: bool,
) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in checkpoint::FOLDERS {
        let names = disk.read_dir(&dir.join(folder))?.unwrap_or_default();
        files.extend(names.into_iter().map(|name| Path::new(folder).join(name)));
    }
    let log = LogFolder::list(&**disk, &dir.join(commitlog::FOLDER))?;
    let log = log.segments.into_values().chain(log.damaged).chain(log.unfinished);
    files.extend(log.filter_map(|path| path.strip_prefix(dir).ok().map(Path::to_owned)));
    files.push(PathBuf::from(superblock::FILE));
    if !settings_are_sound {
        files.push(PathBuf::from(settings::FILE));
    }
    for path in gone.iter().flat_map(|volume| volume.files()) {
        files.extend(path.strip_prefix(dir).ok().map(Path::to_owned));
    }
    let is_there = |file: &PathBuf| matches!(disk.open(&dir.join(file), false), Ok(Some(_)));
    files.retain(is_there);
    Ok(files)
}
