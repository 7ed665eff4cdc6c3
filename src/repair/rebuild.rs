//! A core out of what is sound: the checkpoint as far as it goes, what volumes tell where it does not, and the log on top.
//!
//! # Volumes
//!
//! If the checkpoint tells the bases, they are what it says, and the log tells what was installed since; but an install is left out if its
//! volume is damaged, as its points are still in memory then. If bases, points in memory or records are lost, the volumes on disk count, the highest of
//! each block: those that were frozen by the version of the checkpoint are there from the beginning, and the others come when replay passes the version of their
//! freeze. So what was written or deleted after that is above them, and what is in them too leaves the memory if the log still has the freeze;
//! without it the volume goes below, which reads the same. The log's own installs are left out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::SalvagedName;
use crate::commitlog::{self, NotTaken};
use crate::error::{Error, Result};
use crate::fileset::Sharding;
use crate::io::Vfs;
use crate::mvcc::base::{BaseRef, SealedBlock};
use crate::mvcc::commit::Core;
use crate::mvcc::partition_map::Cover;
use crate::mvcc::record::{Command, Commands};
use crate::mvcc::replay::Replay;
use crate::mvcc::restore::Restore;
use crate::mvcc::transaction::Version;
use crate::mvcc::window::Window;
use crate::names::{MetricId, NamespaceOptions, Tags};
use crate::options::Options;
use crate::planted::Planted;
use crate::sealed::{BlockVolume, FoundVolume};
use crate::superblock::Contents;

use super::examine::{Examination, empty_core, finding};
use super::namespaces::{self, Namespaces};
use super::report::{Finding, RepairReport};
use super::rewrite::rewrite;

/// What a repaired database is to be.
#[derive(Debug)]
pub(super) struct Rebuilt<'a> {
    pub(super) core: Core,
    pub(super) contents: Contents,
    /// Volumes that it does not have.
    pub(super) gone: Vec<&'a FoundVolume>,
    /// Of segments of the log that was there.
    pub(super) last_sequence: u64,
    pub(super) last_incarnation: u64,
}

/// A metric that exists at the version of the checkpoint.
#[derive(Debug)]
struct FoundMetric {
    namespace: u32,
    id: Vec<u8>,
    tags: Tags,
    /// The version that made it, if anything tells.
    created: Option<Version>,
    /// Its base, if the checkpoint tells.
    base: Option<u32>,
}

/// Puts the database together.
///
/// # Errors
/// [`Error::NewerFormat`], [`Error::Io`].
pub(super) fn rebuild<'a>(
    disk: &Arc<dyn Vfs>,
    dir: &Path,
    options: &Options,
    found: &'a Examination,
    dry_run: bool,
    report: &mut RepairReport,
) -> Result<Rebuilt<'a>> {
    let checkpoint = &found.checkpoint;
    let before_log = Version(found.contents.log.first_version.saturating_sub(1));
    let version = checkpoint.version.unwrap_or(before_log);
    let has_bases = checkpoint.bases.is_some() && checkpoint.volumes.is_some();
    let injects = !has_bases || checkpoint.layers_are_lost || found.log.is_lossy || found.is_headless;
    let needs_tables = !has_bases || !checkpoint.lost_metrics.is_empty();
    let tables: BTreeMap<u32, Vec<(u32, u64)>> = match needs_tables || checkpoint.state.is_none() {
        true => found.volumes.iter().map(|volume| (volume.id.0, volume.table(&**disk))).collect(),
        false => BTreeMap::new(),
    };

    let mut core = empty_core(disk, dir, options, &found.contents);
    let known = known_namespaces(disk, dir, options, found, version, report);
    let has_state = known.is_some();
    let mut spaces = Namespaces::find(disk, found, known.unwrap_or_default(), &tables);
    report.substitutes.append(&mut spaces.substitutes);
    let volumes = Volumes::choose(found, &spaces, version, has_bases, injects);

    let metrics = find_metrics(disk, found, &spaces, &tables, version, report);
    // Nothing of version 0 is ever written: it is that of the empty database.
    let restore = Restore::new(&mut core, version.max(Version(1)));
    let mut freezes = None;
    if has_state {
        freezes = checkpoint.restore_state(&restore).ok();
    }
    for (number, (name, options)) in spaces.by_number.iter().filter(|_| !has_state) {
        if *number != 0 {
            note(report, restore.namespace(namespaces::id(*number), name, *options), dir);
        }
    }
    for block in volumes.base.values() {
        note(report, restore.volume(*block), dir);
    }
    let last_volume =
        found.volumes.iter().map(|volume| volume.id.0).chain(found.log.installed.keys().copied());
    let last_volume =
        last_volume.chain(checkpoint.volumes.iter().flat_map(|volumes| volumes.keys().copied()));
    restore.next_volume(last_volume.max().map_or(0, |last| last.saturating_add(1)));

    let mut at_start: BTreeMap<u32, BlockVolume> = BTreeMap::new();
    let layers: BTreeMap<u32, Vec<Cover>> = checkpoint
        .layers
        .iter()
        .map(|state| (state.metric.get(), state.layers.iter().map(|(cover, _)| *cover).collect()))
        .collect();
    let mut bases = Bases::new(found, &volumes, &metrics, &tables, &spaces);
    for (number, metric) in &metrics {
        let mut blocks = bases.of(*number, metric);
        for layer in layers.get(number).into_iter().flatten() {
            // Such a volume came after the checkpoint.
            blocks.retain(|block| {
                let fits = block.cover.contains(*layer) || !block.cover.overlaps(*layer);
                if let Some(volume) = volumes.base.get(&block.volume.0).filter(|_| !fits) {
                    at_start.insert(volume.id.0, *volume);
                }
                fits
            });
        }
        let base = bases.shared(blocks);
        let created = metric.created.unwrap_or(Version(1));
        let namespace = namespaces::id(metric.namespace);
        let own_tags = metric.tags.clone().unless_said_by(&metric.id);
        let (number, own_tags) = (MetricId::from(*number), own_tags.as_ref());
        note(report, restore.metric(number, namespace, &metric.id, own_tags, created, &base), dir);
    }
    for state in &checkpoint.layers {
        if metrics.contains_key(&state.metric.get()) {
            note(report, restore.layers(state.clone()), dir);
        }
    }
    if let Some(freezes) = freezes {
        note(report, freezes.restore(&restore), dir);
    }
    let last = metrics.last_key_value().map_or(0, |(number, _)| number.saturating_add(1));
    restore.finish(last.max(checkpoint.next_metric));

    let last_version = replay(disk, dir, found, &mut core, version, &volumes, at_start, report)?;
    settle(disk, found, &mut core, last_version, dry_run, report)?;
    let transaction = core.load();
    let is_used = |volume: &&FoundVolume| transaction.volumes.get(volume.id).is_some();
    let gone = found.volumes.iter().filter(|volume| !is_used(volume)).collect();
    let (last_sequence, last_incarnation) =
        (found.log.examined.last_sequence, found.log.examined.last_incarnation);
    let last_sequence =
        last_sequence.max(found.contents.log.synced.segment).max(found.contents.log.first_segment);
    Ok(Rebuilt { core, contents: found.contents, gone, last_sequence, last_incarnation })
}

/// Something of the checkpoint that contradicts the rest is left out.
fn note(report: &mut RepairReport, restored: std::result::Result<(), &'static str>, dir: &Path) {
    if let Err(reason) = restored {
        let (path, what) = (dir.to_owned(), format!("the checkpoint contradicts itself: {reason}"));
        let lost = Some("what says so".to_owned());
        let told = Finding { path, offset: 0, what, lost, done: "left out".into() };
        if !report.findings.contains(&told) {
            report.findings.push(told);
        }
    }
}

/// The namespaces of the state, if that is sound.
fn known_namespaces(
    disk: &Arc<dyn Vfs>,
    dir: &Path,
    options: &Options,
    found: &Examination,
    version: Version,
    report: &mut RepairReport,
) -> Option<BTreeMap<u32, (String, NamespaceOptions)>> {
    found.checkpoint.state.as_ref()?;
    let mut core = empty_core(disk, dir, options, &found.contents);
    let restore = Restore::new(&mut core, version);
    if let Err(reason) = found.checkpoint.restore_state(&restore) {
        note(report, Err(reason), dir);
        return None;
    }
    let namespaces = core.names.namespaces().into_iter();
    Some(namespaces.map(|space| (space.id().0, (space.name().to_owned(), space.options()))).collect())
}

/// Which volumes the repaired database has.
#[derive(Debug, Default)]
struct Volumes {
    /// From the beginning, by number.
    base: BTreeMap<u32, BlockVolume>,
    /// When replay passes their freezes, in that order.
    later: Vec<BlockVolume>,
    /// Whether the log's installs are left out.
    injects: bool,
    /// Volumes whose installs are left out in any case.
    unfit: BTreeSet<u32>,
}

impl Volumes {
    fn choose(
        found: &Examination,
        spaces: &Namespaces,
        version: Version,
        has_bases: bool,
        injects: bool,
    ) -> Self {
        let mut volumes = Volumes { injects, ..Volumes::default() };
        let named = found.checkpoint.volumes.as_ref().filter(|_| has_bases);
        let on_disk: BTreeMap<u32, &FoundVolume> =
            found.volumes.iter().map(|volume| (volume.id.0, volume)).collect();
        for id in found.log.installed.keys() {
            let is_sound = on_disk.get(id).is_some_and(|volume| volume.damage.is_empty());
            if !is_sound && found.can_do_without(*id) {
                volumes.unfit.insert(*id);
            }
        }
        let mut next = 0;
        for (id, block) in named.into_iter().flatten() {
            // Of one that is missing an empty one takes the place.
            volumes.base.insert(*id, *block);
            next = next.max(id.saturating_add(1));
        }
        if !injects {
            return volumes;
        }
        let mut chosen: Vec<(&FoundVolume, BlockVolume)> = Vec::new();
        for volume in &found.volumes {
            let is_new = named.is_none_or(|_| volume.id.0 >= next);
            if !volume.is_complete || !volume.is_readable || !is_new {
                continue;
            }
            chosen.extend(block_of(found, spaces, volume).map(|block| (volume, block)));
        }
        let is_last = |block: &BlockVolume| !chosen.iter().any(|(_, other)| other.is_after(block));
        for (volume, block) in &chosen {
            if !is_last(block) {
                continue;
            }
            let is_early = volume.freeze.is_none_or(|freeze| freeze <= version);
            match is_early && named.is_none() {
                true => drop(volumes.base.insert(volume.id.0, *block)),
                false => volumes.later.push(*block),
            }
        }
        volumes.later.sort_by_key(|block| (block.freeze, block.id));
        volumes
    }
}

/// What a volume holds, as its files and folders tell, and the log where it does.
fn block_of(found: &Examination, spaces: &Namespaces, volume: &FoundVolume) -> Option<BlockVolume> {
    let installed = found.log.installed.get(&volume.id.0).map(|(block, _)| *block);
    let of_checkpoint = || found.checkpoint.volumes.as_ref()?.get(&volume.id.0).copied();
    if let Some(block) = installed.or_else(of_checkpoint) {
        return Some(block);
    }
    let number = spaces.number_of(&volume.namespace)?;
    let options = spaces.by_number.get(&number).map(|(_, options)| *options);
    let block_ns =
        options.or_else(|| Some(found.log.namespaces.get(&number)?.1)).map(|options| options.block_ns)?;
    let width_ns = volume.width_ns.unwrap_or(block_ns);
    Some(BlockVolume {
        id: volume.id,
        namespace: namespaces::id(number),
        shard: volume.shard,
        cover: volume.cover.unwrap_or_else(|| Window::new(width_ns).of(volume.name.block_start)),
        width_ns,
        number: volume.name.volume,
        freeze: volume.freeze.unwrap_or_default(),
        is_empty: false,
    })
}

/// The metrics at the version of the checkpoint.
fn find_metrics(
    disk: &Arc<dyn Vfs>,
    found: &Examination,
    spaces: &Namespaces,
    tables: &BTreeMap<u32, Vec<(u32, u64)>>,
    version: Version,
    report: &mut RepairReport,
) -> BTreeMap<u32, FoundMetric> {
    let checkpoint = &found.checkpoint;
    let in_memory: BTreeSet<u32> = checkpoint.layers.iter().map(|state| state.metric.get()).collect();
    let is_made_later = |number: &u32| {
        found.log.created.get(number).is_some_and(|created| created.3 > version)
            && !checkpoint.names.contains_key(number)
            && !in_memory.contains(number)
    };
    let is_dropped = |number: &u32| found.log.dropped.get(number).is_some_and(|at| *at <= version);
    let listed = tables.values().flatten().map(|(metric, _)| *metric);
    let candidates = checkpoint.names.keys().copied().chain(in_memory.iter().copied()).chain(listed);
    let candidates: BTreeSet<u32> = candidates
        .chain(
            found.log.created.iter().filter(|(_, created)| created.3 <= version).map(|(number, _)| *number),
        )
        .filter(|number| checkpoint.is_lost(*number))
        .filter(|number| !is_made_later(number) && !is_dropped(number))
        .collect();

    let mut names: BTreeMap<u32, (u32, Vec<u8>, Tags)> = BTreeMap::new();
    for number in checkpoint.metrics.keys().chain(&candidates) {
        let of_file = checkpoint
            .names
            .get(number)
            .map(|name: &SalvagedName| (name.namespace, name.id.clone(), name.tags.clone()));
        let of_log =
            || found.log.created.get(number).map(|(space, id, tags, _)| (*space, id.clone(), tags.clone()));
        if let Some(name) = of_file.or_else(of_log) {
            names.insert(*number, name);
        }
    }
    let mut nameless: BTreeSet<u32> = checkpoint
        .metrics
        .keys()
        .chain(&candidates)
        .filter(|number| !names.contains_key(number))
        .copied()
        .collect();
    let mut shards: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
    if !nameless.is_empty() {
        names_of_volumes(disk, found, spaces, tables, &mut nameless, &mut names, &mut shards);
    }
    for number in nameless {
        let known = checkpoint.metrics.get(&number).map(|metric| (metric.namespace, metric.shard));
        let (namespace, shard) =
            known.or(shards.get(&number).copied()).map_or((0, None), |(n, s)| (n, Some(s)));
        let id =
            substitute(number, spaces.by_number.get(&namespace).map(|(_, options)| options.shards), shard);
        report.substitutes.push(format!("the ID of metric {number} is lost; it is now {id}"));
        names.insert(number, (namespace, id.into_bytes(), Tags::none()));
    }

    let mut metrics = BTreeMap::new();
    let mut taken: HashMap<(u32, Vec<u8>), u32> = HashMap::new();
    let mut add = |number: u32, created: Option<Version>, base: Option<u32>, is_certain: bool| {
        let Some((namespace, id, tags)) = names.get(&number).cloned() else { return };
        // Highest first: of two with one name the older one was dropped.
        if taken.contains_key(&(namespace, id.clone())) && !is_certain {
            return;
        }
        taken.insert((namespace, id.clone()), number);
        if !is_certain && !in_memory.contains(&number) {
            let id = String::from_utf8_lossy(&id).into_owned();
            report.returned.push(format!("metric {number} ({id}): nothing tells whether it was dropped"));
        }
        metrics.insert(number, FoundMetric { namespace, id, tags, created, base });
    };
    for (number, metric) in &checkpoint.metrics {
        add(*number, Some(metric.created), Some(metric.base), true);
    }
    for number in candidates.into_iter().rev() {
        let created = found.log.created.get(&number).map(|created| created.3);
        add(number, created, None, false);
    }
    metrics
}

/// Finds the IDs and tags of metrics in the indexes of volumes whose tables list them, the newest volume first.
fn names_of_volumes(
    disk: &Arc<dyn Vfs>,
    found: &Examination,
    spaces: &Namespaces,
    tables: &BTreeMap<u32, Vec<(u32, u64)>>,
    nameless: &mut BTreeSet<u32>,
    names: &mut BTreeMap<u32, (u32, Vec<u8>, Tags)>,
    shards: &mut BTreeMap<u32, (u32, u32)>,
) {
    let mut volumes: Vec<&FoundVolume> = found.volumes.iter().collect();
    volumes.sort_by_key(|volume| std::cmp::Reverse(volume.id));
    for volume in volumes {
        let read;
        let table = match tables.get(&volume.id.0) {
            Some(table) => table,
            None => {
                read = volume.table(&**disk);
                &read
            }
        };
        let Some(namespace) = spaces.number_of(&volume.namespace) else { continue };
        let wanted: BTreeMap<u64, u32> = table
            .iter()
            .filter(|(metric, _)| nameless.contains(metric))
            .map(|(metric, offset)| (*offset, *metric))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        for metric in wanted.values() {
            shards.entry(*metric).or_insert((namespace, volume.shard));
        }
        let Ok(opened) = volume.open(&**disk) else { continue };
        for entry in opened.entries().flatten() {
            let Some(metric) = wanted.get(&entry.offset()) else { continue };
            let tags = opened.tags(&entry).ok().and_then(|tags| Tags::new(&tags).ok());
            // The canonical form says its tags itself.
            let of_id = Tags::parse(entry.id()).filter(|(canonical, _)| canonical == entry.id());
            let tags = tags.or(of_id.map(|(_, tags)| tags)).unwrap_or_else(Tags::none);
            names.insert(*metric, (namespace, entry.id().to_vec(), tags));
            nameless.remove(metric);
        }
    }
}

/// An ID for a metric that lost its own, in the shard that its volumes are of.
fn substitute(number: u32, shards: Option<u32>, shard: Option<u32>) -> String {
    let plain = format!("salvaged-metric-{number}");
    let (Some(shards), Some(shard)) = (shards, shard) else { return plain };
    let sharding = Sharding { shards, seed: 0 };
    let others = (1..100 * u64::from(shards)).map(|more| format!("{plain}-{more}"));
    let fitting =
        std::iter::once(plain.clone()).chain(others).find(|id| sharding.shard_of(id.as_bytes()) == shard);
    fitting.unwrap_or(plain)
}

/// The sealed blocks of metrics.
struct Bases<'a> {
    found: &'a Examination,
    volumes: &'a Volumes,
    /// By namespace and shard, oldest first.
    blocks: BTreeMap<(u32, u32), Vec<SealedBlock>>,
    /// Metrics by volumes, ascending, where tables were read.
    tables: BTreeMap<u32, BTreeSet<u32>>,
    /// Names that several metrics had.
    reused: BTreeSet<(u32, Vec<u8>)>,
    shards: BTreeMap<u32, u32>,
    made: HashMap<Vec<SealedBlock>, BaseRef>,
}

impl<'a> Bases<'a> {
    fn new(
        found: &'a Examination,
        volumes: &'a Volumes,
        metrics: &BTreeMap<u32, FoundMetric>,
        tables: &BTreeMap<u32, Vec<(u32, u64)>>,
        spaces: &Namespaces,
    ) -> Self {
        let mut blocks: BTreeMap<(u32, u32), Vec<SealedBlock>> = BTreeMap::new();
        for block in volumes.base.values() {
            let sealed = SealedBlock { cover: block.cover, volume: block.id };
            blocks.entry((block.namespace.0, block.shard)).or_default().push(sealed);
        }
        blocks.values_mut().for_each(|blocks| blocks.sort_by_key(|block| block.cover.first));
        let mut seen = BTreeSet::new();
        let mut reused = BTreeSet::new();
        let of_file = found.checkpoint.names.iter().map(|(number, name)| (*number, name.namespace, &name.id));
        let of_log = found.log.created.iter().map(|(number, created)| (*number, created.0, &created.1));
        let restored = metrics.iter().map(|(number, metric)| (*number, metric.namespace, &metric.id));
        let mut by_name: BTreeSet<(u32, u32, &Vec<u8>)> = BTreeSet::new();
        by_name.extend(of_file.chain(of_log).chain(restored));
        for (_, namespace, id) in by_name {
            if !seen.insert((namespace, id)) {
                reused.insert((namespace, id.clone()));
            }
        }
        let numbers = |table: &Vec<(u32, u64)>| table.iter().map(|(metric, _)| *metric).collect();
        let tables = tables.iter().map(|(volume, table)| (*volume, numbers(table))).collect();
        let shards =
            spaces.by_number.iter().map(|(number, (_, options))| (*number, options.shards)).collect();
        Bases { found, volumes, blocks, tables, reused, shards, made: HashMap::new() }
    }

    /// The blocks of a metric: what the checkpoint says, or those of its shard. A metric whose name others had too has only those that list it, unless it is
    /// known when it was made: where a volume's table is damaged, nothing else tells them apart.
    fn of(&self, number: u32, metric: &FoundMetric) -> Vec<SealedBlock> {
        let known = self.found.checkpoint.bases.as_ref().filter(|_| self.found.checkpoint.volumes.is_some());
        if let (Some(known), Some(base)) = (known, metric.base) {
            let blocks = known.get(&base).into_iter().flatten();
            return blocks.filter(|block| self.volumes.base.contains_key(&block.volume.0)).copied().collect();
        }
        let shards = self.shards.get(&metric.namespace).copied().unwrap_or(1);
        let shard = Sharding { shards, seed: 0 }.shard_of(&metric.id);
        let is_reused = self.reused.contains(&(metric.namespace, metric.id.clone()));
        let blocks = self.blocks.get(&(metric.namespace, shard)).into_iter().flatten();
        let has = |block: &&SealedBlock| {
            let lists = self.tables.get(&block.volume.0).is_some_and(|table| table.contains(&number));
            let freeze = self.volumes.base.get(&block.volume.0).map(|volume| volume.freeze);
            match metric.created {
                _ if lists => true,
                Some(created) => freeze.is_some_and(|freeze| freeze >= created),
                None => !is_reused,
            }
        };
        blocks.filter(has).copied().collect()
    }

    /// A base of these blocks: the same for the same.
    fn shared(&mut self, blocks: Vec<SealedBlock>) -> BaseRef {
        if let Some(made) = self.made.get(&blocks) {
            return made.clone();
        }
        let base = BaseRef::of(blocks.clone()).unwrap_or_default();
        self.made.insert(blocks, base.clone());
        base
    }
}

/// Replays the log, and brings in volumes. Returns the version that the state has then.
#[expect(clippy::too_many_arguments, reason = "one step of a function that would be too long")]
fn replay(
    disk: &Arc<dyn Vfs>,
    dir: &Path,
    found: &Examination,
    core: &mut Core,
    version: Version,
    volumes: &Volumes,
    at_start: BTreeMap<u32, BlockVolume>,
    report: &mut RepairReport,
) -> Result<Version> {
    let log = found.contents.log(disk, dir, Planted::default());
    let mut replay = Replay::new(core, version.max(Version(1)), true).with_gaps();
    at_start.into_values().for_each(|block| replay.install(block));
    let mut later = volumes.later.iter().copied().peekable();
    let known = found.log.examined.report.damage.len();
    let examined = commitlog::examine(&log, &found.contents.log, &mut |number, bytes| {
        let number = Version(number);
        while let Some(block) = later.next_if(|block| block.freeze < number) {
            replay.install(block);
        }
        let is_left_out = |command: Command<'_>| match command {
            Command::Install(install) => volumes.injects || volumes.unfit.contains(&install.volume.id.0),
            _ => false,
        };
        if number <= version || Commands::new(bytes).flatten().any(is_left_out) {
            return Ok(());
        }
        replay.record(number, bytes).map_err(NotTaken::from)
    })?;
    later.for_each(|block| replay.install(block));
    // Those that pass 1 knew come again, with those that were refused among them.
    for damage in &examined.report.damage {
        if found.log.examined.report.damage.contains(damage) || examined.report.damage.len() == known {
            continue;
        }
        let error = commitlog::corrupt(&damage.path, damage.offset, damage.reason);
        let lost = damage.versions.map(|(first, last)| format!("the commits {first} to {last}"));
        report.findings.push(finding(&error, lost, "left out"));
    }
    let freezes = found.volumes.iter().filter_map(|volume| volume.freeze);
    let last = freezes
        .chain([version, Version(1), Version(examined.report.last_version)])
        .chain([Version(found.contents.log.synced_version)])
        .max()
        .unwrap_or(version);
    let replayed = replay.finish(last);
    report.substitutes.extend(replayed.substitutes);
    if volumes.injects || replayed.unfinished.is_empty() {
        return Ok(last);
    }
    let mut replay = Replay::new(core, last.next(), true).with_gaps();
    replayed.unfinished.into_iter().for_each(|block| replay.install(block));
    replay.finish(last.next());
    Ok(last.next())
}

/// Writes those volumes anew that are damaged.
fn settle(
    disk: &Arc<dyn Vfs>,
    found: &Examination,
    core: &mut Core,
    last: Version,
    dry_run: bool,
    report: &mut RepairReport,
) -> Result<()> {
    let transaction = core.load();
    let mut rewritten = Vec::new();
    for volume in transaction.volumes.iter() {
        let damaged = found.volumes.iter().find(|other| other.id == volume.block().id);
        let missing;
        let damaged = match damaged {
            Some(damaged) if damaged.damage.is_empty() => continue,
            Some(damaged) => damaged,
            None => {
                missing = missing_volume(volume.block());
                &missing
            }
        };
        let (block, lost) = rewrite(disk, core, volume.block(), damaged, dry_run)?;
        rewritten.push(block);
        for metric in lost {
            let (first, end) = (block.cover.first, block.cover.last);
            report.findings.push(Finding {
                path: damaged.folder.clone(),
                offset: 0,
                what: format!("a stream of volume {} is damaged", volume.block().id.0),
                lost: Some(format!("the points from {first} to {end} ns of metric {metric}")),
                done: "put aside with the volume".into(),
            });
        }
    }
    drop(transaction);
    report.volumes_rewritten = rewritten.len() as u64;
    if rewritten.is_empty() || dry_run {
        return Ok(());
    }
    let mut replay = Replay::new(core, last.next(), true).with_gaps();
    rewritten.into_iter().for_each(|block| replay.install(block));
    replay.finish(last.next());
    Ok(())
}

/// A volume of which there is nothing.
fn missing_volume(block: &BlockVolume) -> FoundVolume {
    let path = std::path::PathBuf::new();
    FoundVolume {
        id: block.id,
        name: crate::fileset::VolumeName { block_start: block.cover.first, volume: block.number },
        folder: path.clone(),
        namespace: crate::sealed::NamespaceLabel::Number(block.namespace),
        shard: block.shard,
        width_ns: Some(block.width_ns),
        cover: Some(block.cover),
        freeze: Some(block.freeze),
        is_complete: false,
        is_readable: false,
        damage: vec![Error::io("open", path, std::io::ErrorKind::NotFound.into())],
    }
}
