//! What is done beside the work: backups into a folder, and reading the database as another process does.
//!
//! A backup that is there when all is over must be whole: it has all that was acknowledged up to its version, and nothing invented. One that was
//! interrupted says so, and is no database.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chronolith::{Database, Error};

use super::acks::Ack;
use super::{as_finding, oracle};
use crate::console::Console;
use crate::failure::{Failure, Outcome};

/// So many backups are kept.
const KEPT: usize = 2;
/// A backup is a folder of this name and a number.
const PREFIX: &str = "backup-";

/// Puts a backup into a folder. That it fails is told, and no failure, as long as the database goes on.
pub(super) fn back_up(db: &Database, folder: &Path, console: Console) -> Outcome<()> {
    let there = backups(folder)?;
    for (_, old) in there.iter().rev().skip(KEPT - 1) {
        remove(folder, old).map_err(|error| Failure::file("remove", old, &error))?;
    }
    let number = there.last().map_or(1, |(number, _)| number + 1);
    match db.snapshot().backup_to(folder.join(format!("{PREFIX}{number}"))) {
        Ok(_) => Ok(()),
        Err(error) if db.stats().stopped => Err(error.into()),
        Err(error) => {
            console.warn(format_args!("backup {number}: {error}"));
            Ok(())
        }
    }
}

/// Removes a backup; it is none any more before anything of it is gone.
fn remove(folder: &Path, backup: &Path) -> io::Result<()> {
    let going = folder.join("going");
    match fs::remove_dir_all(&going) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::rename(backup, &going)?,
    }
    fs::File::open(folder)?.sync_all()?;
    fs::remove_dir_all(&going)
}

/// Reads all of the last checkpoint, beside the process that writes; what it has must be whole.
pub(super) fn read(dir: &Path, console: Console) -> Outcome<()> {
    let db = match Database::open_read_only(dir) {
        Ok(db) => db,
        Err(Error::NoCheckpoint { .. }) => return Ok(()),
        Err(error) if is_damage(&error) => return Err(error.into()),
        Err(error) => {
            console.warn(format_args!("reading beside: {error}"));
            return Ok(());
        }
    };
    match oracle::violations(&db, &[]) {
        Ok(found) if found.is_empty() => Ok(()),
        Ok(found) => Err(super::writer::Failure::Store(format!("read beside: {}", found.join("; "))).into()),
        Err(error) if is_damage(&error) => Err(error.into()),
        Err(error) => {
            console.warn(format_args!("reading beside: {error}"));
            Ok(())
        }
    }
}

fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. } | Error::NewerFormat { .. } | Error::Decode(_))
}

/// What is wrong with the backups in a folder, one text each.
pub(super) fn violations(folder: &Path, acks: &[Ack]) -> Outcome<Vec<String>> {
    let mut found = Vec::new();
    for (number, path) in backups(folder)? {
        // Read only: commits of its own, those of a seal, would have the numbers of others in the original.
        let db = match Database::open_read_only(&path) {
            Ok(db) => db,
            Err(Error::NotADatabase { .. }) => continue,
            Err(error) => return Err(as_finding(error)),
        };
        let version = db.snapshot().version().get();
        let acks: Vec<Ack> = acks.iter().filter(|ack| ack.version <= version).copied().collect();
        let violations = oracle::violations(&db, &acks).map_err(as_finding)?;
        found.extend(violations.into_iter().map(|violation| format!("backup {number}: {violation}")));
    }
    Ok(found)
}

/// The backups in a folder by their numbers, ascending, interrupted ones too; none if there is no such folder.
fn backups(folder: &Path) -> Outcome<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::file("read", folder, &error)),
    };
    let mut backups = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Failure::file("read", folder, &error))?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix(PREFIX)?.parse().ok());
        backups.extend(number.map(|number| (number, path)));
    }
    backups.sort_unstable();
    Ok(backups)
}
