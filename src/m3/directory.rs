//! What lies in a directory of M3, and what of it counts.
//!
//! M3 calls it the file path prefix. Only names, the lengths of checkpoints and the metadata of snapshots are looked at here.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::commit_log::{CommitLog, log_index};
use super::metadata::{SnapshotMetadata, SnapshotName};
use crate::error::{Error, Result};
use crate::fileset::{Volume, VolumeFolder, VolumeName};
use crate::io::Vfs;

const DATA: &str = "data";
const SNAPSHOTS: &str = "snapshots";
const LOGS: &str = "commitlogs";
/// M3's inverted index: made of what the volumes say, so that nothing is lost without it.
const INDEX: &str = "index";

/// A directory of M3.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Ascending by name.
    pub namespaces: Vec<NamespaceFolder>,
    /// Snapshots with metadata and a checkpoint, the oldest first: the last one is the one that counts.
    pub snapshots: Vec<SnapshotMetadata>,
    /// Metadata without a checkpoint and checkpoints without metadata: snapshots that were not finished, or are being removed.
    pub unfinished: Vec<PathBuf>,
    /// Snapshot metadata that are damaged.
    pub damage: Vec<Error>,
    /// In the order in which they were written.
    pub logs: Vec<LogFile>,
    /// What M3 would not have put there.
    pub foreign: Vec<PathBuf>,
}

/// The volumes of a namespace.
#[derive(Clone, Debug)]
pub struct NamespaceFolder {
    /// The namespace's name.
    pub name: String,
    /// Ascending by number.
    pub shards: Vec<ShardFolder>,
}

/// The volumes of one shard of a namespace.
#[derive(Clone, Debug)]
pub struct ShardFolder {
    /// The shard's number.
    pub shard: u32,
    /// What was flushed.
    pub flushed: VolumeFolder,
    /// Copies of what was in memory.
    pub snapshots: VolumeFolder,
}

/// A commit log that was not opened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// The file.
    pub path: PathBuf,
    /// The number in its name.
    pub index: u64,
}

/// Why there is a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VolumeKind {
    /// It holds a block.
    Flush,
    /// It holds what was in memory of a block.
    Snapshot,
}

/// Where a volume lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumePlace {
    /// The namespace's name.
    pub namespace: String,
    /// The shard's number.
    pub shard: u32,
    /// Why there is a volume.
    pub kind: VolumeKind,
    /// The shard's folder.
    pub folder: PathBuf,
    /// Which volume.
    pub name: VolumeName,
}

impl VolumePlace {
    /// Opens the volume.
    ///
    /// # Errors
    /// As [`Volume::open`].
    pub fn open(&self, disk: &dyn Vfs) -> Result<Volume> {
        Volume::open(disk, &self.folder, self.name)
    }

    /// Opens the volume, or what is left of it; [`Volume::damage`] tells what is wrong.
    ///
    /// # Errors
    /// As [`Volume::salvage`].
    pub fn salvage(&self, disk: &dyn Vfs) -> Result<Volume> {
        Volume::salvage(disk, &self.folder, self.name)
    }
}

impl LogFile {
    /// Opens the log.
    ///
    /// # Errors
    /// As [`CommitLog::open`].
    pub fn open(&self, disk: &dyn Vfs) -> Result<CommitLog> {
        CommitLog::open(disk, &self.path)
    }

    /// Whether all of the log can be read, but perhaps for a torn tail ([`LogEntries::is_torn`](super::LogEntries::is_torn)):
    /// that is where M3 itself goes on after a crash.
    ///
    /// Cost: a pass over the file.
    pub fn is_whole(&self, disk: &dyn Vfs) -> bool {
        self.open(disk).is_ok_and(|log| {
            let mut entries = log.entries();
            while let Some(entry) = entries.next_entry() {
                if entry.is_err() {
                    return entries.is_torn();
                }
            }
            true
        })
    }
}

impl Directory {
    /// Looks a directory through. `None` if it has none of the folders that M3 makes: `data`, `snapshots`, `commitlogs`.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// Cost: a call for each folder, each checkpoint and each snapshot's metadata.
    pub fn read(disk: &dyn Vfs, path: &Path) -> Result<Option<Self>> {
        let Some(names) = folder(disk, path)? else { return Ok(None) };
        if ![DATA, SNAPSHOTS, LOGS].iter().any(|wanted| names.iter().any(|name| name == wanted)) {
            return Ok(None);
        }
        let mut directory = Directory {
            path: path.to_owned(),
            namespaces: Vec::new(),
            snapshots: Vec::new(),
            unfinished: Vec::new(),
            damage: Vec::new(),
            logs: Vec::new(),
            foreign: Vec::new(),
        };
        for name in names {
            if ![DATA, SNAPSHOTS, LOGS, INDEX].iter().any(|known| name == *known) {
                directory.foreign.push(path.join(name));
            }
        }
        directory.read_volumes(disk, VolumeKind::Flush)?;
        directory.read_volumes(disk, VolumeKind::Snapshot)?;
        directory.read_logs(disk)?;
        directory.snapshots.sort_by_key(|snapshot| snapshot.index);
        directory.namespaces.sort_by(|a, b| a.name.cmp(&b.name));
        for namespace in &mut directory.namespaces {
            namespace.shards.sort_by_key(|shard| shard.shard);
        }
        Ok(Some(directory))
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The snapshot that counts: the latest one that was finished.
    pub fn latest_snapshot(&self) -> Option<&SnapshotMetadata> {
        self.snapshots.last()
    }

    /// The volumes of one kind that count: of each block the highest one that is complete. Ordered by namespace, block and shard.
    pub fn volumes(&self, kind: VolumeKind) -> Vec<VolumePlace> {
        let mut places: Vec<VolumePlace> = self
            .each_folder(kind)
            .flat_map(|(namespace, shard, found)| {
                let latest =
                    found.complete.iter().filter(|name| found.latest(name.block_start) == Some(**name));
                latest.map(move |name| self.place(namespace, shard, kind, *name))
            })
            .collect();
        places.sort_by(|a, b| {
            (&a.namespace, a.name.block_start, a.shard).cmp(&(&b.namespace, b.name.block_start, b.shard))
        });
        places
    }

    /// The volumes of one kind that do not count: those with a complete one above them, and those that have files but are not
    /// complete.
    pub fn other_volumes(&self, kind: VolumeKind) -> Vec<VolumePlace> {
        let folders = self.each_folder(kind);
        let others = folders.flat_map(|(namespace, shard, found)| {
            let replaced =
                found.complete.iter().filter(|name| found.latest(name.block_start) != Some(**name));
            replaced.chain(&found.incomplete).map(move |name| self.place(namespace, shard, kind, *name))
        });
        others.collect()
    }

    /// The complete volumes of a volume's block that it replaced, the latest first.
    pub fn replaced_by(&self, place: &VolumePlace) -> Vec<VolumePlace> {
        let same = |(namespace, shard, _): &(&str, u32, &VolumeFolder)| {
            (*namespace, *shard) == (&*place.namespace, place.shard)
        };
        let complete = self.each_folder(place.kind).find(same).map(|(_, _, found)| &found.complete);
        let complete = complete.into_iter().flatten().rev();
        let older = complete
            .filter(|name| name.block_start == place.name.block_start && name.volume < place.name.volume);
        older.map(|name| VolumePlace { name: *name, ..place.clone() }).collect()
    }

    /// The folder of a shard.
    pub fn folder(&self, kind: VolumeKind, namespace: &str, shard: u32) -> PathBuf {
        self.path.join(kind.folder()).join(namespace).join(shard.to_string())
    }

    fn place(&self, namespace: &str, shard: u32, kind: VolumeKind, name: VolumeName) -> VolumePlace {
        let folder = self.folder(kind, namespace, shard);
        VolumePlace { namespace: namespace.to_owned(), shard, kind, folder, name }
    }

    fn each_folder(&self, kind: VolumeKind) -> impl Iterator<Item = (&str, u32, &VolumeFolder)> {
        self.namespaces.iter().flat_map(move |namespace| {
            let shards = namespace.shards.iter();
            shards.map(move |shard| (&*namespace.name, shard.shard, shard.volumes(kind)))
        })
    }

    /// `data` or `snapshots`: a folder for each namespace, in it one for each shard.
    fn read_volumes(&mut self, disk: &dyn Vfs, kind: VolumeKind) -> Result<()> {
        let top = self.path.join(kind.folder());
        for name in folder(disk, &top)?.unwrap_or_default() {
            let path = top.join(&name);
            if kind == VolumeKind::Snapshot && self.read_metadata(disk, &path, &name)? {
                continue;
            }
            let shards = match name.to_str() {
                Some(_) => folder(disk, &path)?,
                None => None,
            };
            let (Some(shards), Some(namespace)) = (shards, name.to_str()) else {
                self.foreign.push(path);
                continue;
            };
            self.namespace(namespace);
            for name in shards {
                self.read_shard(disk, kind, namespace, &path.join(&name), &name)?;
            }
        }
        Ok(())
    }

    fn read_shard(
        &mut self,
        disk: &dyn Vfs,
        kind: VolumeKind,
        namespace: &str,
        path: &Path,
        name: &OsString,
    ) -> Result<()> {
        let number =
            name.to_str().and_then(|name| name.parse::<u32>().ok().filter(|n| n.to_string() == name));
        let (Some(number), Some(_)) = (number, folder(disk, path)?) else {
            self.foreign.push(path.to_owned());
            return Ok(());
        };
        let found = VolumeFolder::list(disk, path)?;
        self.foreign.extend(found.foreign.iter().map(|name| path.join(name)));
        let namespace = self.namespace(namespace);
        let at = match namespace.shards.iter().position(|shard| shard.shard == number) {
            Some(at) => at,
            None => {
                let (flushed, snapshots) = (VolumeFolder::default(), VolumeFolder::default());
                namespace.shards.push(ShardFolder { shard: number, flushed, snapshots });
                namespace.shards.len() - 1
            }
        };
        if let Some(shard) = namespace.shards.get_mut(at) {
            match kind {
                VolumeKind::Flush => shard.flushed = found,
                VolumeKind::Snapshot => shard.snapshots = found,
            }
        }
        Ok(())
    }

    /// The namespace of this name, made if it is new.
    fn namespace(&mut self, name: &str) -> &mut NamespaceFolder {
        let at = self.namespaces.iter().position(|namespace| namespace.name == name);
        let at = at.unwrap_or_else(|| {
            self.namespaces.push(NamespaceFolder { name: name.to_owned(), shards: Vec::new() });
            self.namespaces.len() - 1
        });
        &mut self.namespaces[at]
    }

    /// Whether it is a file of a snapshot's metadata; reads those.
    fn read_metadata(&mut self, disk: &dyn Vfs, path: &Path, name: &OsString) -> Result<bool> {
        let Some(name) = name.to_str() else { return Ok(false) };
        if let Some(name) = SnapshotName::parse_checkpoint(name) {
            if disk.open(&name.metadata_path(path), false)?.is_none() {
                self.unfinished.push(path.to_owned());
            }
            return Ok(true);
        }
        if SnapshotName::parse(name).is_none() {
            return Ok(false);
        }
        match SnapshotMetadata::read(disk, path) {
            Ok(Some(metadata)) => self.snapshots.push(metadata),
            Ok(None) => self.unfinished.push(path.to_owned()),
            Err(error @ Error::Corrupt { .. }) => self.damage.push(error),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn read_logs(&mut self, disk: &dyn Vfs) -> Result<()> {
        let top = self.path.join(LOGS);
        for name in folder(disk, &top)?.unwrap_or_default() {
            let path = top.join(&name);
            match name.to_str().and_then(log_index) {
                Some(index) => self.logs.push(LogFile { path, index }),
                None => self.foreign.push(path),
            }
        }
        self.logs.sort_by(|a, b| (a.index, &a.path).cmp(&(b.index, &b.path)));
        Ok(())
    }
}

impl ShardFolder {
    /// The volumes of one kind.
    pub fn volumes(&self, kind: VolumeKind) -> &VolumeFolder {
        match kind {
            VolumeKind::Flush => &self.flushed,
            VolumeKind::Snapshot => &self.snapshots,
        }
    }
}

impl VolumeKind {
    /// The folder below the directory that holds such volumes.
    pub fn folder(self) -> &'static str {
        match self {
            VolumeKind::Flush => DATA,
            VolumeKind::Snapshot => SNAPSHOTS,
        }
    }
}

/// The names in a folder; `None` if there is none, or something else.
fn folder(disk: &dyn Vfs, path: &Path) -> Result<Option<Vec<OsString>>> {
    match disk.read_dir(path) {
        Err(error) if error.io_kind() == Some(ErrorKind::NotADirectory) => Ok(None),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::MemoryDisk;

    fn disk(files: &[(&str, usize)]) -> MemoryDisk {
        let disk = MemoryDisk::new();
        for (path, len) in files {
            let path = Path::new("/m3").join(path);
            disk.create_dir_all(path.parent().expect("a folder")).expect("room");
            disk.create(&path).and_then(|file| file.set_len(*len as u64)).expect("room");
        }
        disk
    }

    fn read(disk: &MemoryDisk) -> Directory {
        Directory::read(disk, "/m3".as_ref()).expect("readable").expect("a directory of M3")
    }

    #[test]
    fn highest_complete_volume_counts_and_the_others_are_listed() {
        let disk = disk(&[
            ("data/b/10/fileset-7-0-checkpoint.db", 4),
            ("data/b/2/fileset-7-0-checkpoint.db", 4),
            ("data/b/2/fileset-7-3-checkpoint.db", 4),
            ("data/b/2/fileset-7-4-data.db", 9),
            ("data/b/2/fileset-3-0-checkpoint.db", 4),
            ("data/a/0/fileset-9-0-checkpoint.db", 4),
            ("snapshots/b/2/fileset-8-0-checkpoint.db", 4),
            ("snapshots/c/2/fileset-8-0-checkpoint.db", 3),
        ]);
        let directory = read(&disk);
        let names: Vec<_> = directory.namespaces.iter().map(|namespace| &*namespace.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let told = |places: Vec<VolumePlace>| {
            let told = |place: VolumePlace| format!("{} {} {}", place.namespace, place.shard, place.name);
            places.into_iter().map(told).collect::<Vec<_>>()
        };
        assert_eq!(told(directory.volumes(VolumeKind::Flush)), ["a 0 9-0", "b 2 3-0", "b 2 7-3", "b 10 7-0"]);
        assert_eq!(told(directory.other_volumes(VolumeKind::Flush)), ["b 2 7-0", "b 2 7-4"]);
        assert_eq!(told(directory.volumes(VolumeKind::Snapshot)), ["b 2 8-0"]);
        assert_eq!(told(directory.other_volumes(VolumeKind::Snapshot)), ["c 2 8-0"]);
        assert!(directory.foreign.is_empty());
        let latest = directory.volumes(VolumeKind::Flush).swap_remove(2);
        assert_eq!(told(directory.replaced_by(&latest)), ["b 2 7-0"]);
        assert!(directory.replaced_by(&directory.replaced_by(&latest)[0]).is_empty());
    }

    #[test]
    fn logs_are_ordered_by_number_and_foreign_files_listed() {
        let disk = disk(&[
            ("commitlogs/commitlog-0-10.db", 1),
            ("commitlogs/commitlog-0-9.db", 1),
            ("commitlogs/notes.txt", 1),
            ("data/n/0/notes.db", 1),
            ("data/n/x/fileset-1-0-checkpoint.db", 4),
            ("data/n/07/fileset-1-0-checkpoint.db", 4),
            ("data/file", 1),
            ("index/data/n/fileset-1-0-info.db", 1),
            ("m3dbnode.pid", 1),
        ]);
        let directory = read(&disk);
        assert_eq!(directory.logs.iter().map(|log| log.index).collect::<Vec<_>>(), [9, 10]);
        let foreign: Vec<_> = directory.foreign.iter().map(|path| path.display().to_string()).collect();
        assert_eq!(
            foreign,
            [
                "/m3/m3dbnode.pid",
                "/m3/data/file",
                "/m3/data/n/0/notes.db",
                "/m3/data/n/07",
                "/m3/data/n/x",
                "/m3/commitlogs/notes.txt",
            ]
        );
    }

    #[test]
    fn snapshots_without_both_files_do_not_count() {
        let uuid = "6ba7b8109dad11d180b400c04fd430c8";
        let disk = disk(&[
            (&format!("snapshots/snapshot-{uuid}-3-metadata.db"), 10),
            (&format!("snapshots/snapshot-{uuid}-4-metadata-checkpoint.db"), 4),
            (&format!("snapshots/snapshot-{uuid}-5-metadata.db"), 10),
            (&format!("snapshots/snapshot-{uuid}-5-metadata-checkpoint.db"), 4),
        ]);
        let directory = read(&disk);
        assert!(directory.snapshots.is_empty());
        assert_eq!(directory.unfinished.len(), 2);
        assert_eq!(directory.damage.len(), 1, "the last one has both, and they do not fit");
        assert!(directory.foreign.is_empty());
    }

    #[test]
    fn other_directories_are_none_of_m3s() {
        assert!(Directory::read(&disk(&[]), "/m3".as_ref()).expect("readable").is_none());
        assert!(Directory::read(&disk(&[("superblock", 9)]), "/m3".as_ref()).expect("readable").is_none());
        assert!(Directory::read(&disk(&[("file", 9)]), "/m3/file".as_ref()).expect("readable").is_none());
    }
}
