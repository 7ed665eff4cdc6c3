//! What there is of a database, and what is wrong with it. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{Checkpointer, LoadOptions, Salvaged};
use crate::commitlog::{self, DatabaseId, Examined, LogFolder, LogStart, NotTaken};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::fileset::VolumeName;
use crate::helpers::Helpers;
use crate::io::Vfs;
use crate::mvcc::commit::Core;
use crate::mvcc::record::{Command, Commands};
use crate::mvcc::replay::Replay;
use crate::mvcc::transaction::Version;
use crate::names::{NamespaceOptions, Tags};
use crate::options::Options;
use crate::planted::Planted;
use crate::sealed::{BlockVolume, FoundVolume, survey};
use crate::settings::SettingsFile;
use crate::store::{DATA_FOLDER, stored_options, volumes};
use crate::superblock::{self, Contents, StoredOptions, Superblock};

use super::namespaces;
use super::report::Finding;

/// What was found.
#[derive(Debug)]
pub(super) struct Examination {
    /// What is known of the database for good; where the log begins is as far as known.
    pub(super) contents: Contents,
    /// Whether the superblock is lost.
    pub(super) is_headless: bool,
    /// What is sound of the checkpoint.
    pub(super) checkpoint: Salvaged,
    pub(super) log: LogContents,
    pub(super) volumes: Vec<FoundVolume>,
    pub(super) findings: Vec<Finding>,
    pub(super) foreign: Vec<PathBuf>,
}

/// What the log says about names and volumes.
#[derive(Debug, Default)]
pub(super) struct LogContents {
    pub(super) examined: Examined,
    /// Metrics that were made, with their namespaces, names and tags, and when.
    pub(super) created: BTreeMap<u32, (u32, Vec<u8>, Tags, Version)>,
    /// When metrics were dropped.
    pub(super) dropped: BTreeMap<u32, Version>,
    /// Namespaces that were made, and when.
    pub(super) namespaces: BTreeMap<u32, (String, NamespaceOptions, Version)>,
    /// Volumes that were installed, by number, and when; of versions before the checkpoint too.
    pub(super) installed: BTreeMap<u32, (BlockVolume, Version)>,
    /// Whether records are missing that were there.
    pub(super) is_lossy: bool,
}

impl Examination {
    pub(super) fn new(
        disk: &Arc<dyn Vfs>,
        dir: &Path,
        options: &Options,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let mut findings = Vec::new();
        let known = match Superblock::read(&**disk, dir) {
            Ok((contents, damaged)) => {
                if damaged {
                    findings.push(Finding {
                        path: dir.join(superblock::FILE),
                        offset: 0,
                        what: "a slot of the superblock is damaged".into(),
                        lost: None,
                        done: "written anew".into(),
                    });
                }
                Some(contents)
            }
            Err(error @ Error::Corrupt { .. }) => {
                let lost = "which checkpoint counts, and so which metrics were dropped, and the metadata of commits, as far as the log does not tell";
                findings.push(finding(&error, Some(lost.into()), "made anew from what log and volumes tell"));
                None
            }
            Err(error) => return Err(error),
        };
        let is_headless = known.is_none();
        let data = dir.join(DATA_FOLDER);
        // The first time only to learn whose the files are.
        let told = LogFolder::list(&**disk, &dir.join(commitlog::FOLDER))?.owner(&**disk)?;
        let mut id = known.map(|contents| contents.database_id).or(told.map(|(id, _)| id));
        if id.is_none() {
            id = volumes_owner(disk, &data)?;
        }
        let id = id.ok_or_else(|| Error::NotADatabase {
            path: dir.to_owned(),
            reason: "neither superblock nor log nor volumes tell which database it is",
        })?;

        match SettingsFile::new(disk, dir, id).read() {
            Err(error @ Error::Corrupt { .. }) => {
                let lost = "the settings that the database kept: it has none now";
                findings.push(finding(&error, Some(lost.into()), "put aside"));
            }
            read => drop(read?),
        }
        let (strict, checkpoint) = read_checkpoint(disk, dir, options, id, known)?;
        let named: BTreeMap<u32, BlockVolume> = checkpoint.volumes.clone().unwrap_or_default();
        let is_named = |_: &Path, name: VolumeName| {
            let block = named.get(&name.volume);
            block.is_some_and(|block| block.cover.first == name.block_start)
        };
        let surveyed = survey(disk, &data, Some(&id), is_named, |done, total| {
            progress(done, total);
            Ok(())
        })?;
        let stored = match (known, told.and_then(|(_, note)| StoredOptions::of_note(&note?))) {
            (Some(contents), _) => contents.options,
            (None, Some(told)) => told,
            (None, None) => namespaces::guess_options(disk, &surveyed.volumes, stored_options(options)?),
        };
        let blank = Contents {
            database_id: id,
            options: stored,
            log: LogStart::default(),
            clean: false,
            checkpoint: None,
        };
        let mut contents = known.unwrap_or(blank);
        if is_headless {
            let log = contents.log(disk, dir, Planted::default());
            let after = checkpoint.version.map_or(1, |version| version.next().get());
            let start = LogStart { first_version: after, ..LogStart::default() };
            contents.log = commitlog::find_start(&log)?.unwrap_or(start);
        }
        let mut found = Examination {
            contents,
            is_headless,
            checkpoint,
            log: LogContents::default(),
            volumes: surveyed.volumes,
            findings,
            foreign: surveyed.foreign,
        };
        found.tell_checkpoint(strict.as_ref().err().filter(|_| !is_headless));
        found.read_log(disk, dir)?;
        found.tell_volumes(dir, &named);
        if found.findings.is_empty() {
            // The files are sound; whether they contradict each other, only replaying tells.
            found.replay(disk, dir, strict?)?;
        }
        Ok(found)
    }

    fn tell_checkpoint(&mut self, strict: Option<&Error>) {
        let before = self.findings.len();
        for damaged in &self.checkpoint.damage {
            let done = "what else tells it is used; written anew";
            self.findings.push(finding(&damaged.error, damaged.lost.clone(), done));
        }
        if let Some(error) = strict.filter(|_| self.findings.len() == before) {
            self.findings.push(finding(error, None, "written anew"));
        }
    }

    /// Reads the log for what it says of names, and for damage.
    fn read_log(&mut self, disk: &Arc<dyn Vfs>, dir: &Path) -> Result<()> {
        let log = self.contents.log(disk, dir, Planted::default());
        let mut contents = LogContents::default();
        contents.examined = commitlog::examine(&log, &self.contents.log, &mut |version, bytes| {
            for command in Commands::new(bytes).map_while(|command| command.ok()) {
                contents.note(command, Version(version));
            }
            Ok(())
        })?;
        let checkpoint = self.checkpoint.version.unwrap_or(Version(0)).get();
        let mut is_lossy = false;
        let report = &contents.examined.report;
        for damage in &report.damage {
            let lost = match damage.versions {
                // What lies before the checkpoint is needed by nobody.
                Some((_, last)) if last <= checkpoint => None,
                Some((first, last)) => Some(format!("the commits {first} to {last}")),
                // Behind the last sound record nobody knows what there was.
                None => Some("the commits behind it, if there were any".to_owned()),
            };
            is_lossy |= lost.is_some();
            let offset = damage.offset;
            let path = damage.path.clone();
            let error = Error::Corrupt {
                format: "commit log segment",
                path,
                offset,
                metric: None,
                reason: damage.reason,
            };
            self.findings.push(finding(&error, lost, "what is sound behind it is kept"));
        }
        let begins_late = self.is_headless
            && self.contents.log.first_version > checkpoint.saturating_add(1)
            && self.checkpoint.version.is_some();
        contents.is_lossy = is_lossy || begins_late;
        if begins_late {
            let (first, last) = (checkpoint.saturating_add(1), self.contents.log.first_version - 1);
            let error = commitlog::corrupt(&log.folder(), 0, "the log begins after the checkpoint");
            let lost = Some(format!("the commits {first} to {last}"));
            self.findings.push(finding(&error, lost, "what is sound behind it is kept"));
        }
        self.log = contents;
        Ok(())
    }

    /// Tells of volumes that are damaged, and of those that are not there any more.
    fn tell_volumes(&mut self, dir: &Path, named: &BTreeMap<u32, BlockVolume>) {
        let counts: BTreeSet<u32> = self.counting().iter().map(|volume| volume.id.0).collect();
        for volume in self.volumes.iter().filter(|volume| counts.contains(&volume.id.0)) {
            let lost = match volume.is_readable {
                true => "streams that are damaged; the others are kept",
                false => "the points of its block, unless they are in the log",
            };
            for error in &volume.damage {
                let is_spare = is_of_spare_file(volume, error);
                let lost = (!is_spare).then(|| lost.to_owned());
                self.findings.push(finding(error, lost, "written anew with what is sound; put aside"));
            }
        }
        let known: Vec<&BlockVolume> =
            named.values().chain(self.log.installed.values().map(|(block, _)| block)).collect();
        for block in &known {
            let (id, is_there) = (block.id, self.volumes.iter().any(|volume| volume.id == block.id));
            if is_there || known.iter().any(|other| other.is_after(block)) {
                continue;
            }
            let is_needed = named.contains_key(&id.0) || !self.can_do_without(id.0);
            let path = dir.join(DATA_FOLDER);
            self.findings.push(Finding {
                path,
                offset: 0,
                what: format!(
                    "volume {} of shard {}, {} to {} ns, is missing",
                    id.0, block.shard, block.cover.first, block.cover.last
                ),
                lost: is_needed.then(|| "its points".into()),
                done: if is_needed {
                    "the block is taken to be empty"
                } else {
                    "its points are in memory again"
                }
                .into(),
            });
        }
    }

    /// The volumes that count: those that the checkpoint or the log names, or, if the checkpoint does not tell, the highest of each block.
    pub(super) fn counting(&self) -> Vec<&FoundVolume> {
        let named = self.checkpoint.volumes.as_ref().filter(|_| self.checkpoint.bases.is_some());
        let is_known = |volume: &&FoundVolume| match named {
            Some(named) => named.contains_key(&volume.id.0) || self.log.installed.contains_key(&volume.id.0),
            None => volume.is_complete,
        };
        let known: Vec<&FoundVolume> = self.volumes.iter().filter(is_known).collect();
        let is_last =
            |volume: &&&FoundVolume| !known.iter().any(|other| other.is_after(volume) && other.is_readable);
        known.iter().filter(is_last).copied().collect()
    }

    /// Whether a volume that was installed after the checkpoint is not needed: its points are in memory and log still, and those of volumes whose place it
    /// took are in these.
    pub(super) fn can_do_without(&self, id: u32) -> bool {
        let Some((block, at)) = self.log.installed.get(&id) else { return false };
        if *at <= self.checkpoint.version.unwrap_or_default() {
            return false;
        }
        let is_sound =
            |id: u32| self.volumes.iter().any(|volume| volume.id.0 == id && volume.damage.is_empty());
        let named = self.checkpoint.volumes.iter().flat_map(|volumes| volumes.values());
        let installed = self.log.installed.values().map(|(block, _)| block);
        let mut before = named.chain(installed).filter(|other| block.is_after(other));
        before.all(|other| is_sound(other.id.0) || self.can_do_without(other.id.0))
    }

    /// Replays a log whose files are sound over a checkpoint that is.
    fn replay(&mut self, disk: &Arc<dyn Vfs>, dir: &Path, core: Core) -> Result<()> {
        let log = self.contents.log(disk, dir, Planted::default());
        let checkpoint = self.checkpoint.version.unwrap_or(Version(0));
        let mut replay = Replay::new(&core, checkpoint, false);
        let examined =
            commitlog::examine(&log, &self.contents.log, &mut |version, bytes| match Version(version)
                > checkpoint
            {
                true => replay.record(Version(version), bytes).map_err(NotTaken::from),
                false => Ok(()),
            })?;
        for damage in &examined.report.damage {
            let error = commitlog::corrupt(&damage.path, damage.offset, damage.reason);
            let lost = damage.versions.map(|(first, last)| format!("the commits {first} to {last}"));
            self.findings.push(finding(&error, lost, "left out"));
            self.log.is_lossy = true;
        }
        Ok(())
    }
}

impl LogContents {
    fn note(&mut self, command: Command<'_>, version: Version) {
        match command {
            Command::Create { metric, namespace, name, tags } => {
                let tags = tags.unwrap_or_else(|| Tags::said_by(name));
                let made = (namespace.0, name.to_vec(), tags, version);
                self.created.entry(metric.get()).or_insert(made);
            }
            Command::Drop { metric } => drop(self.dropped.insert(metric.get(), version)),
            Command::Namespace { id, name, options } => {
                self.namespaces.entry(id.0).or_insert((name.to_owned(), options, version));
            }
            // One without points has no files.
            Command::Install(install) if !install.volume.is_empty => {
                self.installed.entry(install.volume.id.0).or_insert((install.volume, version));
            }
            _ => {}
        }
    }
}

/// Reads the checkpoint as opening would, and what is sound of it.
fn read_checkpoint(
    disk: &Arc<dyn Vfs>,
    dir: &Path,
    options: &Options,
    id: DatabaseId,
    known: Option<Contents>,
) -> Result<(Result<Core>, Salvaged)> {
    let Some(contents) = known else {
        let lost = || Error::NotADatabase { path: dir.to_owned(), reason: "its superblock is lost" };
        return Ok((Err(lost()), Checkpointer::salvage(disk, dir, &id, None)?));
    };
    let mut core = empty_core(disk, dir, options, &contents);
    let Some(roots) = contents.checkpoint else {
        let nothing = Salvaged {
            version: Some(Version(0)),
            bases: Some(BTreeMap::new()),
            volumes: Some(BTreeMap::new()),
            ..Salvaged::default()
        };
        return Ok((Ok(core), nothing));
    };
    let goes_on = &mut |_, _, _| true;
    let how = LoadOptions { write: false, helpers: Helpers::NONE, goes_on };
    let strict = match Checkpointer::load(disk, dir, id, roots, &mut core, how) {
        Ok(_) => Ok(core),
        Err(error @ Error::Corrupt { .. }) => Err(error),
        Err(error) => return Err(error),
    };
    Ok((strict, Checkpointer::salvage(disk, dir, &id, Some(roots))?))
}

/// A core with nothing in it, that has its volumes where the database has them.
pub(super) fn empty_core(disk: &Arc<dyn Vfs>, dir: &Path, options: &Options, contents: &Contents) -> Core {
    let StoredOptions { block_size_ns, shards, .. } = contents.options;
    let block_ns = i64::try_from(block_size_ns).unwrap_or(i64::MAX);
    let mut core = Engine::new_core(options, NamespaceOptions { block_ns, shards });
    core.set_volumes(volumes(disk, dir, contents.database_id, options.open_volumes_max));
    core.set_install_slice_metrics(u32::MAX);
    core
}

/// Whose most of the volumes are.
fn volumes_owner(disk: &Arc<dyn Vfs>, data: &Path) -> Result<Option<DatabaseId>> {
    let mut owners: BTreeMap<DatabaseId, u64> = BTreeMap::new();
    for volume in survey(disk, data, None, |_, _| false, |_, _| Ok(()))?.volumes {
        let opened = volume.open(&**disk);
        let id = opened.ok().and_then(|volume| Some(volume.supplement()?.spec().database_id));
        id.into_iter().for_each(|id| *owners.entry(id).or_default() += 1);
    }
    Ok(owners.into_iter().max_by_key(|(_, volumes)| *volumes).map(|(id, _)| id))
}

/// Whether an error is about a file of a volume without which all streams can be read.
fn is_of_spare_file(volume: &FoundVolume, error: &Error) -> bool {
    use crate::fileset::VolumeFile::{Data, Index};
    let needed = [Index, Data].map(|file| volume.folder.join(volume.name.file_name(file)));
    match error {
        Error::Corrupt { path, .. } => volume.is_readable && !needed.contains(path),
        _ => false,
    }
}

pub(super) fn finding(error: &Error, lost: Option<String>, done: &str) -> Finding {
    let (path, offset, what) = match error {
        Error::Corrupt { path, offset, reason, format, metric } => {
            let metric = metric.as_ref().map_or(String::new(), |metric| format!(", metric {metric}"));
            (path.clone(), *offset, format!("{format}{metric}: {reason}"))
        }
        Error::Io { path, source, op } => (path.clone(), 0, format!("cannot {op}: {source}")),
        other => (PathBuf::new(), 0, other.to_string()),
    };
    Finding { path, offset, what, lost, done: done.to_owned() }
}
