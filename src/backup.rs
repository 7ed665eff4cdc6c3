//! Backups: a snapshot as a database of its own, in another folder.
//!
//! What it guarantees
//! * What was written opens as a database equal to the snapshot, under the same database id, and the next commit has the next version.
//! * Until the very end there is no database in the folder, and it says that a backup was begun there.
//! * Neither database touches the other's files: what both have are volumes under two names, which nobody changes, and removing one name leaves the other.
//!
//! It reads what a snapshot holds, so it goes on beside commits, seals and checkpoints, and keeps none of them waiting. Order and formats: `design/checkpoint.md`, "Backups".

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use crate::checkpoint::Checkpointer;
use crate::commitlog::LogStart;
use crate::error::{Error, Result};
use crate::mvcc::commit::Core;
use crate::mvcc::transaction::Transaction;
use crate::planted::Planted;
use crate::report::{BackupProgress, BackupReport};
use crate::sealed::Adopted;
use crate::settings::{Settings, SettingsFile};
use crate::store::{self, Origin};
use crate::superblock::{Backup, Contents, LOCK_FILE};

/// Told before each volume, and before the rest; says whether to go on.
pub(crate) type Progress<'p> = &'p mut dyn FnMut(&BackupProgress) -> ControlFlow<()>;

/// Writes what a transaction has of the database of `origin` into the folder `dir`, which is made, or empty.
///
/// # Errors
/// [`Error::InvalidOption`] if it lies in the database's own folder; [`Error::NotEmpty`], [`Error::Locked`], [`Error::BackupEnded`], [`Error::Corrupt`], [`Error::DiskFull`], [`Error::Io`]: what was written stays, and is no database.
pub(crate) fn write(
    origin: &Origin,
    core: &Core,
    transaction: &Transaction,
    kept: &Settings,
    dir: &Path,
    progress: Progress<'_>,
) -> Result<BackupReport> {
    let started = Instant::now();
    let Origin { disk, dir: own, database_id, options } = origin;
    if own.as_ref().is_some_and(|own| dir != own && dir.starts_with(own)) {
        return Err(Error::InvalidOption {
            option: "dir",
            reason: "a backup lies outside of the folder of its database",
        });
    }
    let not_empty = || Error::NotEmpty { path: dir.to_owned() };
    if disk.read_dir(dir)?.is_some_and(|names| !names.is_empty()) {
        return Err(not_empty());
    }
    store::make_folder(disk, dir)?;
    // So that nobody makes a database there meanwhile.
    let lock = disk.try_lock(&dir.join(LOCK_FILE))?;
    let _lock = lock.ok_or_else(|| Error::Locked { path: dir.to_owned() })?;
    if disk.read_dir(dir)?.unwrap_or_default().iter().any(|name| name != LOCK_FILE) {
        return Err(not_empty());
    }
    let backup = Backup::begin(disk, dir)?;

    let count = transaction.volumes.iter().count() as u64;
    let mut tell = |adopted: &Adopted| {
        let Adopted { volumes: done, copied_bytes, .. } = *adopted;
        let told = BackupProgress { done, volumes: count, copied_bytes };
        match progress(&told) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::BackupEnded { path: dir.to_owned() }),
        }
    };
    let mut adopted = Adopted::default();
    let volumes = store::volumes(disk, dir, *database_id, 1);
    for volume in transaction.volumes.iter() {
        tell(&adopted)?;
        // A volume of a namespace that nobody knows is not in the table.
        if let Some(namespace) = core.names.namespace_by_id(volume.block().namespace) {
            volumes.adopt(volume, &namespace, &mut adopted)?;
        }
    }
    volumes.sync_folders()?;
    tell(&adopted)?;

    let (roots, written) = Checkpointer::write_apart(disk, dir, *database_id, core, transaction)?;
    let version = transaction.version.get();
    let log = LogStart { first_version: version + 1, synced_version: version, ..LogStart::default() };
    let mut contents =
        Contents { database_id: *database_id, options: *options, log, clean: true, checkpoint: Some(roots) };
    let (writer, _) = contents.log(disk, dir, Planted::default()).create(version)?;
    contents.log.synced = writer.synced();
    // The folders of the log and of the volumes.
    disk.sync_dir(dir)?;
    if *kept != Settings::default() {
        SettingsFile::new(disk, dir, *database_id).write(kept)?;
    }
    backup.finish(&**disk, dir, contents)?;
    Ok(BackupReport {
        version: transaction.version,
        volumes: adopted.volumes,
        linked_files: adopted.linked,
        copied_files: adopted.copied,
        copied_bytes: adopted.copied_bytes,
        pages: written.pages,
        names_bytes: written.names_bytes,
        memory_bytes: written.active_bytes,
        elapsed: started.elapsed(),
    })
}
