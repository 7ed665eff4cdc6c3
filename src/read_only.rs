//! Opening a database for reading only: its last checkpoint and the volumes that this has, beside whoever writes to it.
//!
//! Nothing is locked, made or written. It works since
//! * a writer leaves all that a checkpoint has as it is, volumes too, until both slots of the superblock name the next one;
//! * when the checkpoint was read, and all files are open that may be read later, the superblock is read again. If it still names this checkpoint, all of
//!   it was whole until then. If not, what was read may be a mix, and damage found in it may be none: all begins anew.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::{Checkpointer, LoadOptions, Roots};
use crate::error::{Error, Result};
use crate::io::Vfs;
use crate::mvcc::commit::Core;
use crate::mvcc::volumes::VolumeTable;
use crate::names::NamespaceOptions;
use crate::options::Options;
use crate::report::OpenReport;
use crate::store::{self, Origin};
use crate::superblock::{self, Contents, FolderState, Superblock};
use crate::telling::Telling;

/// How often a checkpoint is tried to be read. Writers do not write them one after the other for long.
const ATTEMPTS: u32 = 100;
/// How often the superblock is read when it makes no sense: its slots may be being written.
const SUPERBLOCK_READS: u32 = 50;
/// Between two such reads.
const PAUSE: Duration = Duration::from_millis(2);

/// Opens the database in a folder, in the state of its last checkpoint. `new_core` makes an empty core for the namespaces' options that it keeps.
///
/// # Errors
/// [`Error::NotADatabase`], [`Error::NoCheckpoint`], [`Error::CheckpointMoved`], [`Error::Corrupt`], [`Error::NewerFormat`], [`Error::Io`].
pub(crate) fn open(
    disk: &Arc<dyn Vfs>,
    dir: &Path,
    options: &Options,
    new_core: impl Fn(NamespaceOptions) -> Core,
) -> Result<(Origin, Core, OpenReport)> {
    if superblock::examine(&**disk, dir)? == FolderState::Free {
        return Err(Error::NotADatabase { path: dir.to_owned(), reason: "there is nothing in it" });
    }
    if crate::repair::is_unfinished(&**disk, dir)? {
        let reason = "a repair of it was interrupted; open it for writing, or run the repair again";
        return Err(Error::NotADatabase { path: dir.to_owned(), reason });
    }
    // Volumes that were opened in vain: most are in the next checkpoint too, and there are more of them than of all else.
    let mut opened = None;
    let mut telling = Telling::new(&options.on_open_progress);
    for _ in 0..ATTEMPTS {
        let contents = read_superblock(&**disk, dir)?;
        let roots = contents.checkpoint.ok_or_else(|| Error::NoCheckpoint { path: dir.to_owned() })?;
        let core = new_core(contents.options.namespace());
        let goes_on = &mut |step, done, total| telling.tell(step, done, total);
        let how = LoadOptions { write: false, helpers: options.helpers(), goes_on };
        let loaded = load(disk, dir, &contents, roots, core, &mut opened, how);
        let loaded = telling.outcome(dir, loaded);
        if let Err(error @ Error::OpenEnded { .. }) = loaded {
            return Err(error);
        }
        // Versions, and numbers of files, only go up: the same roots are the same checkpoint.
        if read_superblock(&**disk, dir)?.checkpoint == Some(roots) {
            let core = loaded?;
            let Contents { database_id, options, .. } = contents;
            let report = OpenReport {
                clean: contents.clean && contents.log.synced_version == roots.version.get(),
                checkpoint: roots.version,
                metrics: core.load().metrics.len(),
                last_version: roots.version,
                ..OpenReport::default()
            };
            let origin = Origin { disk: disk.clone(), dir: Some(dir.to_owned()), database_id, options };
            return Ok((origin, core, report));
        }
    }
    Err(Error::CheckpointMoved { path: dir.to_owned(), attempts: ATTEMPTS })
}

/// Reads a checkpoint, and opens the files of its volumes, but of those that are `opened`, which are its volumes then. A volume that is damaged is an error for who
/// reads it.
fn load(
    disk: &Arc<dyn Vfs>,
    dir: &Path,
    contents: &Contents,
    roots: Roots,
    mut core: Core,
    opened: &mut Option<crate::sync::Arc<VolumeTable>>,
    how: LoadOptions<'_>,
) -> Result<Core> {
    let Contents { database_id, options, .. } = *contents;
    if options.has_log {
        core.set_volumes(store::volumes(disk, dir, database_id, usize::MAX));
    }
    Checkpointer::load(disk, dir, database_id, roots, &mut core, how)?;
    let volumes = core.load().volumes.clone();
    let before = opened.replace(volumes.clone());
    for volume in volumes.iter() {
        if let Some(before) = before.as_ref().and_then(|before| before.get(volume.block().id)) {
            volume.take_over(before);
        }
        match volume.hold() {
            Err(error) if !error.is_of_data() => return Err(error),
            _ => {}
        }
    }
    Ok(core)
}

/// What the superblock says, which somebody may be writing to: one slot at a time, and the other is whole then.
fn read_superblock(disk: &dyn Vfs, dir: &Path) -> Result<Contents> {
    for _ in 1..SUPERBLOCK_READS {
        match Superblock::read(disk, dir) {
            // Also if the slots were read in between, and are further apart than any two that were there together.
            Err(Error::Corrupt { .. }) => std::thread::sleep(PAUSE),
            read => return read.map(|(contents, _)| contents),
        }
    }
    Superblock::read(disk, dir).map(|(contents, _)| contents)
}
