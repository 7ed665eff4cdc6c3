//! What volumes there are in a database's folder, and how sound they are: for a repair, which cannot ask anybody else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::VolumeId;
use super::place::{Label, NamespaceFolder, parse_shard};
use super::sweep::folders;
use crate::commitlog::DatabaseId;
use crate::error::{Error, Result};
use crate::fileset::{Volume, VolumeFolder, VolumeName, read_supplement_spec};
use crate::io::Vfs;
use crate::mvcc::partition_map::Cover;
use crate::mvcc::transaction::Version;
use crate::names::NamespaceId;

/// A volume as its files and the names of its folders tell of it.
#[derive(Debug)]
pub(crate) struct FoundVolume {
    pub(crate) id: VolumeId,
    /// The folder of its shard.
    pub(crate) folder: PathBuf,
    pub(crate) name: VolumeName,
    pub(crate) namespace: NamespaceLabel,
    pub(crate) shard: u32,
    /// `None` for the namespace's own block size.
    pub(crate) width_ns: Option<i64>,
    /// `None` if the info file is damaged.
    pub(crate) cover: Option<Cover>,
    /// `None` if the supplement is damaged.
    pub(crate) freeze: Option<Version>,
    /// Whether its last file is there, without which it does not count.
    pub(crate) is_complete: bool,
    /// Whether anything of it can be read.
    pub(crate) is_readable: bool,
    /// All that is wrong with it.
    pub(crate) damage: Vec<Error>,
}

/// What a folder of volumes tells of its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NamespaceLabel {
    Name(String),
    /// Of a namespace whose name is too long for a folder.
    Number(NamespaceId),
}

/// What lies in a folder of volumes.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) volumes: Vec<FoundVolume>,
    /// What is none of this database's, or does not tell.
    pub(crate) foreign: Vec<PathBuf>,
}

impl FoundVolume {
    /// Opens what is left of it.
    ///
    /// # Errors
    /// As [`Volume::salvage`].
    pub(crate) fn open(&self, disk: &dyn Vfs) -> Result<Volume> {
        Volume::open(disk, &self.folder, self.name)
            .or_else(|_| Volume::salvage(disk, &self.folder, self.name))
    }

    /// The numbers of the metrics in its table, with the places of their streams, as far as the table is sound.
    pub(crate) fn table(&self, disk: &dyn Vfs) -> Vec<(u32, u64)> {
        let Ok(volume) = self.open(disk) else { return Vec::new() };
        let entries = volume.supplement().into_iter().flat_map(|supplement| supplement.entries());
        entries.flatten().map(|entry| (entry.metric.get(), entry.offset)).collect()
    }

    /// The paths of all files that it may have.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.name.file_names().map(|name| self.folder.join(name))
    }

    /// Whether it counts instead of another one, as it is of the same times and later.
    pub(crate) fn is_after(&self, other: &FoundVolume) -> bool {
        let overlaps = self.cover.zip(other.cover).is_some_and(|(cover, other)| cover.overlaps(other));
        self.id > other.id && (&self.namespace, self.shard) == (&other.namespace, other.shard) && overlaps
    }
}

/// Finds the volumes of a database, and reads all of them. `is_named` says whether the database knows one by its files' folder and name, which counts
/// where they do not tell whose they are. `progress` is told how many are done, of how many.
///
/// # Errors
/// [`Error::Io`] of folders; whatever `progress` returns.
pub(crate) fn survey(
    disk: &Arc<dyn Vfs>,
    data: &Path,
    database_id: Option<&DatabaseId>,
    is_named: impl Fn(&Path, VolumeName) -> bool,
    mut progress: impl FnMut(u64, u64) -> Result<()>,
) -> Result<Survey> {
    let mut found = Survey::default();
    let mut places = Vec::new();
    let is_namespace = |name: &str| NamespaceFolder::parse(name).is_some();
    for namespace in folders(&**disk, data, is_namespace, &mut found.foreign)? {
        let is_shard = |name: &str| parse_shard(name).is_some();
        for folder in folders(&**disk, &namespace, is_shard, &mut found.foreign)? {
            let listed = VolumeFolder::list(&**disk, &folder)?;
            found.foreign.extend(listed.foreign.iter().map(|name| folder.join(name)));
            places.extend(listed.complete.into_iter().map(|name| (folder.clone(), name, true)));
            places.extend(listed.incomplete.into_iter().map(|name| (folder.clone(), name, false)));
        }
    }
    let total = places.len() as u64;
    for (done, (folder, name, is_complete)) in (0..).zip(places) {
        progress(done, total)?;
        let is_named = is_named(&folder, name);
        let is_ours = match read_supplement_spec(&**disk, &folder, name) {
            Ok(Some(spec)) => database_id.is_none_or(|id| *id == spec.database_id),
            // Who writes one, writes a supplement first.
            Err(Error::Corrupt { .. }) => is_complete || is_named,
            _ => is_named,
        };
        match is_ours {
            true => found.volumes.extend(examine(&**disk, folder, name, is_complete)),
            false => {
                let paths = name.file_names().map(|file| folder.join(file));
                found.foreign.extend(paths.filter(|path| matches!(disk.open(path, false), Ok(Some(_)))));
            }
        }
    }
    progress(total, total)?;
    Ok(found)
}

fn examine(disk: &dyn Vfs, folder: PathBuf, name: VolumeName, is_complete: bool) -> Option<FoundVolume> {
    let text = |folder: &Path| folder.file_name()?.to_str().map(str::to_owned);
    let (shard, parent) = (parse_shard(&text(&folder)?)?, text(folder.parent()?)?);
    let parsed = NamespaceFolder::parse(&parent)?;
    let mut found = FoundVolume {
        id: VolumeId(name.volume),
        folder,
        name,
        namespace: match parsed.namespace {
            Label::Name(name) => NamespaceLabel::Name(name.into_owned()),
            Label::Number(id) => NamespaceLabel::Number(id),
        },
        shard,
        width_ns: parsed.width_ns,
        cover: None,
        freeze: None,
        is_complete,
        is_readable: true,
        damage: Vec::new(),
    };
    let volume = match Volume::open(disk, &found.folder, name) {
        Ok(volume) => volume,
        Err(error) => {
            found.damage.push(error);
            match Volume::salvage(disk, &found.folder, name) {
                Ok(volume) => volume,
                Err(_) => {
                    found.is_readable = false;
                    return Some(found);
                }
            }
        }
    };
    found.damage.extend(volume.verify());
    let supplement = volume.supplement();
    if supplement.is_none() && found.damage.is_empty() {
        let (path, reason) = (volume.supplement_path(), "the file is missing");
        found.damage.push(Error::Corrupt {
            format: "volume supplement",
            path,
            offset: 0,
            metric: None,
            reason,
        });
    }
    found.freeze = supplement.map(|supplement| Version(supplement.spec().freeze_version));
    found.cover = volume.info().map(|info| {
        let last = i128::from(info.block_start) + i128::from(info.block_size) - 1;
        Cover { first: info.block_start, last: i64::try_from(last).unwrap_or(i64::MAX) }
    });
    Some(found)
}
