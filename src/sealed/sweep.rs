//! What a database finds in the folder of its volumes: its own, what it left there, and what is none of its business.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::place::{NamespaceFolder, Place, parse_shard};
use crate::commitlog::DatabaseId;
use crate::error::Result;
use crate::fileset::{Volume, VolumeFile, VolumeName, read_supplement_spec, remove_volume};
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
        let paths = files.iter().map(|file| folder.join(file));
        if is_ours(disk, &place, &files, database_id) {
            remove_volume(disk, folder, name)?;
            swept.removed.extend(paths);
        } else {
            swept.foreign.extend(paths);
        }
    }
    Ok(())
}

/// Whether the files of a volume say that this database wrote them. What cannot be read does not.
fn is_ours(disk: &dyn Vfs, place: &Place, files: &[OsString], database_id: &DatabaseId) -> bool {
    let Place { folder, name } = place;
    // Names of M3's from before there were volumes would be removed too.
    let is_written_here = files.iter().all(|file| name.file_names().any(|name| *file == *name));
    let supplement = read_supplement_spec(disk, folder, *name);
    if !is_written_here
        || !supplement.is_ok_and(|spec| spec.is_some_and(|spec| spec.database_id == *database_id))
    {
        return false;
    }
    // Somebody else's volume may have been written beside a supplement that was left there.
    let checkpoint = name.file_name(VolumeFile::Checkpoint);
    let is_complete = files.iter().any(|file| *file == *checkpoint);
    !is_complete || Volume::open(disk, folder, *name).is_ok_and(|volume| volume.supplement().is_some())
}

/// The folders in a folder that have the right kind of name; all else is foreign.
fn folders(
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
