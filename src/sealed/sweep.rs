//! What a database finds in the folder of its volumes: its own, what it left there, and what is none of its business.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::place::{NamespaceFolder, Place, parse_shard};
use crate::commitlog::DatabaseId;
use crate::error::Result;
use crate::fileset::{Volume, VolumeFile, VolumeName, read_supplement_spec, remove_written};
use crate::io::Vfs;

/// What a sweep did and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Files of volumes of this database that it did not come to use, or no longer does. They are gone.
    pub(crate) removed: Vec<PathBuf>,
    /// Files and folders that are not this database's, or do not tell. Nothing was done to them.
    pub(crate) foreign: Vec<PathBuf>,
}

/// See [`VolumeStore::sweep`](super::VolumeStore::sweep).
pub(super) fn sweep(
    disk: &dyn Vfs,
    data: &Path,
    database_id: &DatabaseId,
    known: &BTreeSet<&Place>,
) -> Result<Swept> {
    let mut swept = Swept::default();
    let is_namespace = |name: &str| NamespaceFolder::parse(name).is_some();
    for namespace in folders(disk, data, is_namespace, &mut swept.foreign)? {
        let is_shard = |name: &str| parse_shard(name).is_some();
        for shard in folders(disk, &namespace, is_shard, &mut swept.foreign)? {
            sweep_shard(disk, &shard, database_id, known, &mut swept)?;
        }
    }
    Ok(swept)
}

/// See [`VolumeStore::highest_number`](super::VolumeStore::highest_number).
pub(super) fn highest_number(disk: &dyn Vfs, data: &Path, database_id: &DatabaseId) -> Result<Option<u32>> {
    let mut highest = None;
    let foreign = &mut Vec::new();
    for namespace in folders(disk, data, |name| NamespaceFolder::parse(name).is_some(), foreign)? {
        for shard in folders(disk, &namespace, |name| parse_shard(name).is_some(), foreign)? {
            let files = disk.read_dir(&shard)?.unwrap_or_default();
            let names: BTreeSet<VolumeName> = files.iter().filter_map(VolumeName::of_file).collect();
            for name in names {
                if Some(name.volume) > highest && has_supplement_of(disk, &shard, name, database_id) {
                    highest = Some(name.volume);
                }
            }
        }
    }
    Ok(highest)
}

fn sweep_shard(
    disk: &dyn Vfs,
    folder: &Path,
    database_id: &DatabaseId,
    known: &BTreeSet<&Place>,
    swept: &mut Swept,
) -> Result<()> {
    let mut volumes: BTreeMap<VolumeName, Vec<OsString>> = BTreeMap::new();
    for file in disk.read_dir(folder)?.unwrap_or_default() {
        match VolumeName::of_file(&file) {
            Some(name) => volumes.entry(name).or_default().push(file),
            None => swept.foreign.push(folder.join(file)),
        }
    }
    for (name, files) in volumes {
        let place = Place { folder: folder.to_owned(), name };
        if known.contains(&place) {
            continue;
        }
        let is_ours = is_ours(disk, &place, &files, database_id);
        if is_ours {
            remove_written(disk, folder, name)?;
        }
        // Volume 0 may be called as it was before there were volumes, and that is M3's.
        let is_of_writer = |file: &OsString| name.file_names().any(|name| *file == *name);
        for file in files {
            let removed = is_ours && is_of_writer(&file);
            let paths = if removed { &mut swept.removed } else { &mut swept.foreign };
            paths.push(folder.join(file));
        }
    }
    Ok(())
}

/// Whether the files of a volume say that this database wrote them. What cannot be read does not.
fn is_ours(disk: &dyn Vfs, place: &Place, files: &[OsString], database_id: &DatabaseId) -> bool {
    let Place { folder, name } = place;
    if !has_supplement_of(disk, folder, *name, database_id) {
        return false;
    }
    // Somebody else's volume may have been written beside a supplement that was left there.
    let checkpoint = name.file_name(VolumeFile::Checkpoint);
    let is_complete = files.iter().any(|file| *file == *checkpoint);
    !is_complete || Volume::open(disk, folder, *name).is_ok_and(|volume| volume.supplement().is_some())
}

/// Whether a volume's supplement says that it is this database's.
fn has_supplement_of(disk: &dyn Vfs, folder: &Path, name: VolumeName, database_id: &DatabaseId) -> bool {
    let supplement = read_supplement_spec(disk, folder, name);
    supplement.is_ok_and(|spec| spec.is_some_and(|spec| spec.database_id == *database_id))
}

/// The folders in a folder that have the right kind of name; all else is foreign.
pub(super) fn folders(
    disk: &dyn Vfs,
    folder: &Path,
    is_right: impl Fn(&str) -> bool,
    foreign: &mut Vec<PathBuf>,
) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for name in disk.read_dir(folder)?.unwrap_or_default() {
        let path = folder.join(&name);
        match name.to_str().is_some_and(&is_right) && is_folder(disk, &path)? {
            true => found.push(path),
            false => foreign.push(path),
        }
    }
    Ok(found)
}

fn is_folder(disk: &dyn Vfs, path: &Path) -> Result<bool> {
    match disk.read_dir(path) {
        Err(error) if error.io_kind() == Some(ErrorKind::NotADirectory) => Ok(false),
        listed => listed.map(|names| names.is_some()),
    }
}
