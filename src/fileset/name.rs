//! What a volume's files are called, and which volumes there are in a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::io::Vfs;

/// The length of a checkpoint that counts.
pub(super) const CHECKPOINT_BYTES: u64 = 4;

const PREFIX: &str = "fileset-";
const EXTENSION: &str = ".db";
/// Of files that M3 does not know. Not [`PREFIX`]: M3 gives up a whole shard over a name of that kind that it cannot parse.
const OWN_PREFIX: &str = "chronolith-";
/// Of checkpoints that have not their name yet.
const UNFINISHED_SUFFIX: &str = "-checkpoint.new";

/// Which volume of a shard: the block, and how often it was written anew.
///
/// Ordered by block, then by volume. `Display` is the part of the file names that they have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName {
    /// The start of the block in nanoseconds since the Unix epoch. M3 knows no volumes that start before 1970: in a
    /// folder of its own it must not find one.
    pub block_start: i64,
    /// 0 when the block is first written, and higher each time its merged content is written again. There may be gaps.
    pub volume: u32,
}

/// One of the seven files of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VolumeFile {
    /// What the volume is, and the shape of the others.
    Info,
    /// Where each stream lies, in the order of the IDs.
    Index,
    /// Where every 33rd entry of the index lies.
    Summaries,
    /// Whether the volume may have an ID.
    BloomFilter,
    /// The streams, one behind the other.
    Data,
    /// The checksums of the five above.
    Digest,
    /// The checksum of the digests: the volume exists when this file does.
    Checkpoint,
}

impl VolumeFile {
    /// All of them, in the order of the digests, digest file and checkpoint last.
    pub const ALL: [VolumeFile; 7] = [
        VolumeFile::Info,
        VolumeFile::Index,
        VolumeFile::Summaries,
        VolumeFile::BloomFilter,
        VolumeFile::Data,
        VolumeFile::Digest,
        VolumeFile::Checkpoint,
    ];

    /// Its place in [`VolumeFile::ALL`], which is the order of the enum.
    pub(super) fn position(self) -> usize {
        self as usize
    }

    /// The last part of the file's name.
    pub fn suffix(self) -> &'static str {
        match self {
            VolumeFile::Info => "info",
            VolumeFile::Index => "index",
            VolumeFile::Summaries => "summaries",
            VolumeFile::BloomFilter => "bloomfilter",
            VolumeFile::Data => "data",
            VolumeFile::Digest => "digest",
            VolumeFile::Checkpoint => "checkpoint",
        }
    }
}

impl VolumeName {
    /// The name of one of the volume's files.
    pub fn file_name(self, file: VolumeFile) -> String {
        format!("{PREFIX}{self}-{}{EXTENSION}", file.suffix())
    }

    /// The name of the volume's supplement, the file that M3 does not know.
    pub fn supplement_file_name(self) -> String {
        format!("{OWN_PREFIX}{self}{EXTENSION}")
    }

    /// The volume that a path names by one of its files, the supplement and those of old names included; `None` if it
    /// is none of a volume.
    ///
    /// Only the last part of the path is looked at: the file need not be there.
    ///
    /// ```
    /// use chronolith::fileset::VolumeName;
    ///
    /// let name = VolumeName::of_file("data/metrics/0/fileset-7200-3-index.db");
    /// assert_eq!(name, Some(VolumeName { block_start: 7_200, volume: 3 }));
    /// assert_eq!(VolumeName::of_file("data/metrics/0/chronolith-7200-3.db"), name);
    /// assert_eq!(VolumeName::of_file("data/metrics/0/notes.txt"), None);
    /// ```
    pub fn of_file(path: impl AsRef<Path>) -> Option<Self> {
        Some(Named::parse(path.as_ref().file_name()?.to_str()?)?.name)
    }

    /// The names of all files that a writer of such a volume makes: the seven, the supplement, the checkpoint before it is
    /// durable.
    pub(crate) fn file_names(self) -> impl Iterator<Item = String> {
        let seven = VolumeFile::ALL.into_iter().map(move |file| self.file_name(file));
        seven.chain([self.supplement_file_name(), self.unfinished_checkpoint()])
    }

    /// The name that a checkpoint has until it is durable.
    pub(super) fn unfinished_checkpoint(self) -> String {
        format!("{OWN_PREFIX}{self}{UNFINISHED_SUFFIX}")
    }

    /// As [`VolumeName::file_name`] was before there were volumes: for volume 0 only.
    fn legacy_file_name(self, file: VolumeFile) -> String {
        format!("{PREFIX}{}-{}{EXTENSION}", self.block_start, file.suffix())
    }

    /// `START-VOLUME`.
    fn parse(text: &str) -> Option<Self> {
        let (block_start, volume) = text.rsplit_once('-')?;
        let name = VolumeName { block_start: block_start.parse().ok()?, volume: volume.parse().ok()? };
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.block_start, self.volume)
    }
}

/// The files of one volume: its name, and how that is spelled.
#[derive(Clone, Debug)]
pub(super) struct Place {
    folder: PathBuf,
    pub(super) name: VolumeName,
    legacy: bool,
}

impl Place {
    /// The place where a volume is to be written.
    pub(super) fn new(folder: &Path, name: VolumeName) -> Self {
        Place { folder: folder.to_owned(), name, legacy: false }
    }

    /// The place where a volume lies: of volume 0, the old names count if only they have a checkpoint.
    pub(super) fn find(disk: &dyn Vfs, folder: &Path, name: VolumeName) -> Result<Self> {
        let place = Place::new(folder, name);
        if let Some(legacy) = place.legacy()
            && disk.open(&place.path(VolumeFile::Checkpoint), false)?.is_none()
            && disk.open(&legacy.path(VolumeFile::Checkpoint), false)?.is_some()
        {
            return Ok(legacy);
        }
        Ok(place)
    }

    /// The place of the same volume under its old names, if it can have any.
    pub(super) fn legacy(&self) -> Option<Self> {
        let can_be = self.name.volume == 0 && self.name.block_start >= 0;
        can_be.then(|| Place { legacy: true, ..self.clone() })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn path(&self, file: VolumeFile) -> PathBuf {
        self.folder.join(match self.legacy {
            false => self.name.file_name(file),
            true => self.name.legacy_file_name(file),
        })
    }

    pub(super) fn unfinished_checkpoint(&self) -> PathBuf {
        self.folder.join(self.name.unfinished_checkpoint())
    }

    pub(super) fn supplement(&self) -> PathBuf {
        self.folder.join(self.name.supplement_file_name())
    }

    /// Whether there is any of the volume's files.
    pub(super) fn has_files(&self, disk: &dyn Vfs) -> Result<bool> {
        let paths = VolumeFile::ALL.into_iter().map(|file| self.path(file));
        for path in paths.chain([self.unfinished_checkpoint(), self.supplement()]) {
            if disk.open(&path, false)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the volume exists.
    pub(super) fn is_complete(&self, disk: &dyn Vfs) -> Result<bool> {
        match disk.open(&self.path(VolumeFile::Checkpoint), false)? {
            Some(checkpoint) => Ok(checkpoint.len()? == CHECKPOINT_BYTES),
            None => Ok(false),
        }
    }
}

/// What lies in the folder of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeFolder {
    /// Volumes that exist: their checkpoints do. Whether they are sound is another question.
    pub complete: BTreeSet<VolumeName>,
    /// Volumes of which there are files, if only a supplement, but no checkpoint: they were never finished, or are on their way out.
    pub incomplete: BTreeSet<VolumeName>,
    /// Everything else. Not touched here.
    pub foreign: Vec<OsString>,
}

impl VolumeFolder {
    /// Lists a folder; one that does not exist is empty. Nothing but names and the lengths of checkpoints is looked at.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn list(disk: &dyn Vfs, folder: &Path) -> Result<Self> {
        let mut found = VolumeFolder::default();
        let mut volumes = BTreeMap::new();
        for file_name in disk.read_dir(folder)?.unwrap_or_default() {
            match file_name.to_str().and_then(Named::parse) {
                Some(Named { name, checkpoint: true }) => {
                    let file = disk.open(&folder.join(&file_name), false)?;
                    let complete = match file {
                        Some(file) => file.len()? == CHECKPOINT_BYTES,
                        None => false,
                    };
                    *volumes.entry(name).or_insert(false) |= complete;
                }
                Some(Named { name, checkpoint: false }) => {
                    volumes.entry(name).or_insert(false);
                }
                None => found.foreign.push(file_name),
            }
        }
        for (name, complete) in volumes {
            if complete { &mut found.complete } else { &mut found.incomplete }.insert(name);
        }
        Ok(found)
    }

    /// The volume of a block that counts: the highest complete one.
    pub fn latest(&self, block_start: i64) -> Option<VolumeName> {
        let name = |volume| VolumeName { block_start, volume };
        self.complete.range(name(0)..=name(u32::MAX)).next_back().copied()
    }
}

/// A file name of a volume.
struct Named {
    name: VolumeName,
    checkpoint: bool,
}

impl Named {
    fn parse(file_name: &str) -> Option<Self> {
        if let Some(rest) = file_name.strip_prefix(OWN_PREFIX) {
            let name = rest.strip_suffix(UNFINISHED_SUFFIX).or_else(|| rest.strip_suffix(EXTENSION))?;
            return Some(Named { name: VolumeName::parse(name)?, checkpoint: false });
        }
        let (name, suffix) = file_name.strip_prefix(PREFIX)?.strip_suffix(EXTENSION)?.rsplit_once('-')?;
        let file = VolumeFile::ALL.into_iter().find(|file| file.suffix() == suffix)?;
        let legacy = || {
            let name = VolumeName { block_start: name.parse().ok()?, volume: 0 };
            (name.block_start >= 0 && name.legacy_file_name(file) == file_name).then_some(name)
        };
        let name = VolumeName::parse(name).or_else(legacy)?;
        Some(Named { name, checkpoint: file == VolumeFile::Checkpoint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::MemoryDisk;

    fn name(block_start: i64, volume: u32) -> VolumeName {
        VolumeName { block_start, volume }
    }

    #[test]
    fn names_are_parsed_as_they_are_spelled_and_no_others() {
        for name in [name(0, 0), name(i64::MAX, u32::MAX), name(-7_200, 3), name(i64::MIN, 0)] {
            for file in VolumeFile::ALL {
                let parsed = Named::parse(&name.file_name(file)).expect("a name");
                assert_eq!((parsed.name, parsed.checkpoint), (name, file == VolumeFile::Checkpoint));
            }
            for own in [name.unfinished_checkpoint(), name.supplement_file_name()] {
                assert!(Named::parse(&own).is_some_and(|named| named.name == name && !named.checkpoint));
                assert!(!own.starts_with(PREFIX));
            }
        }
        assert_eq!(name(17, 4).file_name(VolumeFile::BloomFilter), "fileset-17-4-bloomfilter.db");
        assert_eq!(Named::parse("fileset-17-info.db").map(|named| named.name), Some(name(17, 0)));
        for foreign in [
            "fileset-17-04-info.db",
            "fileset-+17-4-info.db",
            "fileset-017-info.db",
            "fileset--17-info.db",
            "fileset-17-4-info",
            "fileset-17-4-notes.db",
            "fileset-17--4-info.db",
            "fileset-17-4294967296-info.db",
            "fileset-9223372036854775808-0-info.db",
            "chronolith-17.db",
            "chronolith-17-04.db",
            "chronolith-17-4.new",
            "chronolith-17-4-info.db",
            "fileset-info.db",
            "",
        ] {
            assert!(Named::parse(foreign).is_none(), "{foreign}");
        }
    }

    #[test]
    fn highest_complete_volume_of_a_block_counts() {
        let disk = MemoryDisk::new();
        let folder = Path::new("/shard");
        assert_eq!(VolumeFolder::list(&disk, folder).expect("no folder is fine"), VolumeFolder::default());
        disk.create_dir_all(folder).expect("room");
        let put = |file_name: &str, len| {
            disk.create(&folder.join(file_name)).and_then(|file| file.set_len(len)).expect("room");
        };
        for volume in [0, 3, 12] {
            put(&name(10, volume).file_name(VolumeFile::Checkpoint), CHECKPOINT_BYTES);
        }
        put(&name(10, 13).file_name(VolumeFile::Checkpoint), CHECKPOINT_BYTES - 1);
        put(&name(10, 14).file_name(VolumeFile::Data), 100);
        put(&name(10, 15).unfinished_checkpoint(), CHECKPOINT_BYTES);
        put("fileset-9-checkpoint.db", CHECKPOINT_BYTES);
        put(&name(10, 12).supplement_file_name(), 5);
        put(&name(10, 16).supplement_file_name(), 5);
        put("chronolith-10.db", 5);
        let found = VolumeFolder::list(&disk, folder).expect("it is there");
        assert_eq!(found.latest(10), Some(name(10, 12)));
        assert_eq!(found.latest(9), Some(name(9, 0)), "a volume from before there were volumes");
        assert_eq!(found.latest(11), None);
        assert_eq!(found.incomplete, [13, 14, 15, 16].map(|volume| name(10, volume)).into());
        assert_eq!(found.foreign, ["chronolith-10.db"]);
    }
}
