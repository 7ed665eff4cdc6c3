//! Which volume a path means: any of its files, or a folder that holds only one.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use chronolith::Error;
use chronolith::fileset::{Volume, VolumeFile, VolumeFolder, VolumeName};
use chronolith::io::RealDisk;

use crate::failure::{Chain, Failure, Outcome, Status};

/// Names that are shown when a choice has to be made.
const NAMES_SHOWN: usize = 3;
/// What the directory of a node of M3 has, and no shard.
const FOLDERS_OF_M3: [&str; 3] = ["data", "snapshots", "commitlogs"];

/// A volume in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) name: VolumeName,
}

impl Place {
    /// The volume that the path means. In a folder without a complete one that may be an unfinished one, if it is to be salvaged.
    pub(crate) fn of(path: &Path, salvage: bool) -> Outcome<Self> {
        if path.is_dir() {
            let places = match in_folder(path) {
                Err(_) if salvage && !list(path)?.incomplete.is_empty() => {
                    places(path, list(path)?.incomplete.iter())
                }
                places => places?,
            };
            return match places.as_slice() {
                [place] => Ok(place.clone()),
                places => {
                    let names = places.iter().take(NAMES_SHOWN);
                    let names: Vec<_> = names.map(|place| place.name.file_name(VolumeFile::Data)).collect();
                    let more = if places.len() > NAMES_SHOWN { ", ..." } else { "" };
                    let message = format_args!("{} holds {} volumes", path.display(), places.len());
                    Err(Failure::input(message)
                        .hint(format_args!("give a file of one of them: {}{more}", names.join(", "))))
                }
            };
        }
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            return Err(missing(path));
        }
        let found = list(folder)?;
        let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // The part that the files' names have in common will do.
        let named =
            VolumeName::of_file(file_name).or_else(|| VolumeName::of_file(format!("{file_name}-data.db")));
        let all = || found.complete.iter().chain(&found.incomplete);
        match named.filter(|name| all().any(|found| found == name)) {
            Some(name) => Ok(Place { folder: folder.to_owned(), name }),
            None if path.exists() => {
                Err(Failure::input(format_args!("{} is no file of a volume", path.display())).hint(
                    "a volume's files are called fileset-START-VOLUME-SUFFIX.db, and lie in NAMESPACE/SHARD/",
                ))
            }
            None => Err(missing(path)),
        }
    }

    /// The path without the last part of the files' names.
    pub(crate) fn path(&self) -> String {
        self.folder.join(format!("fileset-{}", self.name)).display().to_string()
    }

    /// Opens it; with `salvage` what is left of it.
    pub(crate) fn open(&self, salvage: bool) -> Outcome<Volume> {
        let open = if salvage { Volume::salvage } else { Volume::open };
        let hint = match salvage {
            true => "without index and data nothing of it can be read",
            false => "--salvage reads what is left of a damaged or unfinished volume",
        };
        open(&RealDisk::new(), &self.folder, self.name).map_err(|error| failure(&error, hint))
    }
}

/// An error about a volume; the hint is for damage. Not as the database's errors, whose hints are about databases.
pub(crate) fn failure(error: &Error, hint: impl Display) -> Failure {
    match error {
        Error::Corrupt { .. } => Failure::new(Status::CheckFailed, Chain(error)).hint(hint),
        error => Failure::input(Chain(error)),
    }
}

/// The complete volumes in a folder, at least one.
pub(crate) fn in_folder(folder: &Path) -> Outcome<Vec<Place>> {
    let found = list(folder)?;
    if !found.complete.is_empty() {
        return Ok(places(folder, found.complete.iter()));
    }
    let shown = folder.display();
    let failure = Failure::input(format_args!("{shown} holds no complete volume"));
    if let Some(name) = found.incomplete.first() {
        let file = folder.join(name.file_name(VolumeFile::Data));
        return Err(failure.hint(format_args!(
            "one was begun there: `chronolith volume dump --salvage {}`",
            file.display()
        )));
    }
    if folder.join("superblock").is_file() {
        return Err(failure.hint(format_args!(
            "it is a database: `chronolith verify {shown}` checks it, volumes too; they are in {shown}/data/NAMESPACE/SHARD"
        )));
    }
    if FOLDERS_OF_M3.iter().any(|name| folder.join(name).is_dir()) {
        return Err(failure.hint(format_args!(
            "it is a whole directory of M3: `chronolith m3 verify {shown}` checks it, `chronolith m3 list {shown}` shows what is in it"
        )));
    }
    Err(failure.hint("give the folder of a shard, PREFIX/data/NAMESPACE/SHARD; `m3 list PREFIX` and `m3 verify PREFIX` are for a whole directory of M3"))
}

fn places<'n>(folder: &Path, names: impl Iterator<Item = &'n VolumeName>) -> Vec<Place> {
    names.map(|name| Place { folder: folder.to_owned(), name: *name }).collect()
}

/// Lists a folder.
fn list(folder: &Path) -> Outcome<VolumeFolder> {
    VolumeFolder::list(&RealDisk::new(), folder).map_err(|error| Failure::input(Chain(&error)))
}

fn missing(path: &Path) -> Failure {
    Failure::input(format_args!("{} does not exist", path.display()))
        .hint("give any file of the volume, or the folder that it lies in")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_a_volume_and_what_their_names_share_mean_it() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/m3-fileset/data/metrics_10s/0");
        let name = VolumeName { block_start: 1_700_006_400_000_000_000, volume: 1 };
        let files = VolumeFile::ALL.map(|file| name.file_name(file));
        let shared = format!("fileset-{name}");
        for file in files.iter().chain([&shared, &name.supplement_file_name()]) {
            let place =
                Place::of(&folder.join(file), false).unwrap_or_else(|failure| panic!("{file}: {failure}"));
            assert_eq!((&place.folder, place.name), (&folder, name));
        }
        let absent = VolumeName { volume: 7, ..name };
        assert!(Place::of(&folder.join(absent.file_name(VolumeFile::Data)), false).is_err());
    }
}
