//! Replay: the state of a core from the records of its log.
//!
//! Records go through the code that applied them first. What replay adds is names: the dictionary is told what the log made and
//! dropped. A record that contradicts the ones before it is refused; but where a salvage lost records, which shows as a gap in the versions, what
//! they named gets a substitute, the same at every replay, and is reported.
//!
//! Most records are of metrics only. What can be refused of them is looked at in the log's order; to apply them is the business of their lanes, and may be
//! that of other threads ([`Hands`]). What concerns all lanes, what a salvage replays, and what follows a gap is applied by the thread that reads, alone.

mod hands;

use std::ops::Range;

use crate::names::{Metric, MetricId, NamespaceId, NamespaceOptions};

use super::commit::Core;
use super::marks::LiveVersions;
use super::partition_map::Cover;
use super::record::{Command, Commands, Install, RecordError};
use super::transaction::Version;
use super::window::{Window, widths};
use crate::sealed::{BlockVolume, VolumeId};

pub(in crate::mvcc) use hands::ChangedPlaces;
use hands::{Batch, check_streams};
pub(crate) use hands::{Hands, Refused};

/// How much memory a byte of a record takes, at most: nearly all is that around a partition and a stream for a point of some bytes. An estimate: a delete over very many
/// sealed blocks may take more.
const MEMORY_PER_BYTE: u64 = 256;

/// Rebuilds the state, before anybody else sees the core.
#[derive(Debug)]
pub(crate) struct Replay<'a> {
    core: &'a Core,
    hands: Option<&'a Hands>,
    /// What is to be handed on.
    batch: Batch,
    /// Bytes that were handed on since all was settled.
    handed_bytes: u64,
    /// Metrics that are known to have names, by their numbers.
    known: ChangedPlaces,
    /// The sections of a record, with the lane that each concerns.
    sections: Vec<(Range<usize>, Option<u32>)>,
    version: Version,
    points: u64,
    /// Whether what is refused is given up, and the log goes on without it.
    is_salvage: bool,
    /// Whether records are missing.
    has_gaps: bool,
    substitutes: Vec<String>,
    /// Namespaces and metrics whose making was lost, the latter with the version from which on they are there.
    substitute_namespaces: Vec<NamespaceId>,
    substitute_metrics: Vec<(Metric, Version)>,
    /// Volumes of which some slices were installed, and not the last.
    unfinished: Vec<BlockVolume>,
    /// Volumes whose freeze was lost.
    without_freeze: Vec<VolumeId>,
}

/// What a record concerns.
#[derive(Clone, Copy, Debug)]
enum Concerns {
    /// Each of its sections some lanes, and perhaps the dictionary or the writer.
    Lanes { names: bool },
    /// All lanes at once; or it is not to be handed on.
    All,
}

/// What was replayed.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) points: u64,
    /// What replaces what only lost records knew, one sentence each.
    pub(crate) substitutes: Vec<String>,
    /// Volumes whose install has to be gone on with.
    pub(crate) unfinished: Vec<BlockVolume>,
}

impl<'a> Replay<'a> {
    /// Replays what came after a version, which is the state that the core has.
    pub(crate) fn new(core: &'a Core, version: Version, is_salvage: bool) -> Self {
        Replay {
            core,
            hands: None,
            batch: Batch::default(),
            handed_bytes: 0,
            known: ChangedPlaces::default(),
            sections: Vec::new(),
            version,
            points: 0,
            is_salvage,
            has_gaps: false,
            substitutes: Vec::new(),
            substitute_namespaces: Vec::new(),
            substitute_metrics: Vec::new(),
            unfinished: Vec::new(),
            without_freeze: Vec::new(),
        }
    }

    /// Says that records may be missing, or what they build on: what contradicts itself is not refused then.
    pub(crate) fn with_gaps(mut self) -> Self {
        self.has_gaps = true;
        self
    }

    /// Hands on what others can apply, from the next record on.
    pub(crate) fn hand_to(&mut self, hands: &'a Hands) {
        self.hands = (!self.is_salvage).then_some(hands);
    }

    /// Puts a volume that is there in the place of what was frozen for it, or below all that is there if nobody knows of its freeze, for all metrics of its
    /// shard. For volumes whose install is not in the log, as of the last record.
    pub(crate) fn install(&mut self, volume: BlockVolume) {
        self.core.number_volumes_above(volume.id);
        let install = Install { volume, first: MetricId(0), last: MetricId(u32::MAX), is_last: true };
        let mut changed = Vec::new();
        self.apply(Command::Install(install), self.version, &mut changed);
        self.note(&changed);
        self.core.bases.forget();
    }

    /// Takes the next record: applies it, or hands it on. One that does not decode is refused before anything of it is applied; if names contradict each
    /// other, what stands before that is applied, as a salvage wants it.
    ///
    /// # Errors
    /// Of all records that make no sense it is the first one that is named, whatever was handed on meanwhile.
    pub(crate) fn record(&mut self, version: Version, bytes: &[u8]) -> Result<(), Refused> {
        self.has_gaps |= version != self.version.next();
        let hands = self.hands.filter(|hands| !self.has_gaps && hands.are_there());
        let looked = self.look_through(bytes, hands.is_some());
        match (hands, looked) {
            (Some(hands), Ok(Concerns::Lanes { names })) => {
                if names && let Err(error) = self.name_all(version, bytes) {
                    self.settle()?;
                    return self.refuse(bytes, error);
                }
                self.batch.push(bytes, self.sections.drain(..), version, self.version);
                self.version = version;
                if self.batch.is_full() {
                    self.handed_bytes += self.batch.len() as u64;
                    hands.hand(std::mem::take(&mut self.batch))?;
                }
                Ok(())
            }
            (_, looked) => {
                self.settle()?;
                looked.or_else(|error| self.refuse(bytes, error).map(|()| Concerns::All))?;
                Ok(self.apply_record(version, bytes)?)
            }
        }
    }

    /// Refuses a record of which nothing is applied: with what comes first in it, be it streams that nobody has looked at.
    fn refuse(&self, bytes: &[u8], error: RecordError) -> Result<(), Refused> {
        Commands::new(bytes).map_while(Result::ok).try_for_each(|command| check_streams(&command))?;
        Err(Refused::Record(error))
    }

    /// Applies a record in this thread. All that was handed on is settled.
    fn apply_record(&mut self, version: Version, bytes: &[u8]) -> Result<(), RecordError> {
        let mut changed = Vec::new();
        let applied = Commands::new(bytes).try_for_each(|command| {
            let command = self.widened(command?);
            self.restore_names(&command, version, &mut changed)?;
            self.points += command.points();
            self.apply(command, version, &mut changed);
            Ok(())
        });
        self.note(&changed);
        // A salvage gives up the version of a record that is refused: the next one shows a gap, now and at the next replay.
        if applied.is_ok() {
            self.version = version;
        }
        applied
    }

    /// Sees whether a record decodes, and what it concerns. If it may be handed on, its streams are left to whoever applies it, and its sections
    /// and points are noted.
    fn look_through(&mut self, bytes: &[u8], may_hand: bool) -> Result<Concerns, RecordError> {
        let lanes = self.core.lanes.len() as u32;
        let mut commands = Commands::new(bytes);
        let (mut points, mut names, mut all) = (0, false, false);
        self.sections.clear();
        let mut section = usize::MAX;
        while let Some(command) = commands.next() {
            let command = command?;
            if !may_hand || all {
                check_streams(&command)?;
                continue;
            }
            points += command.points();
            match (&command, command.metric()) {
                (Command::Freeze { .. } | Command::Install(_), _) => {
                    // What came before it was not looked at.
                    Commands::new(bytes)
                        .map_while(Result::ok)
                        .try_for_each(|command| check_streams(&command))?;
                    all = true;
                    continue;
                }
                (_, None) => names = true,
                (Command::Create { .. } | Command::Drop { .. }, Some(_)) => names = true,
                (_, Some(metric)) => names |= !self.knows(metric),
            }
            let Some(metric) = command.metric() else { continue };
            let lane = Some(metric.0 % lanes);
            let end = commands.position();
            match self.sections.last_mut() {
                Some((range, of)) if section == commands.section() => {
                    range.end = end;
                    if *of != lane {
                        *of = None;
                    }
                }
                _ => {
                    section = commands.section();
                    self.sections.push((section..end, lane));
                }
            }
        }
        if !may_hand || all {
            return Ok(Concerns::All);
        }
        self.points += points;
        Ok(Concerns::Lanes { names })
    }

    /// Tells the dictionary and the writer what a record says that is handed on.
    fn name_all(&mut self, version: Version, bytes: &[u8]) -> Result<(), RecordError> {
        // Without gaps nothing gets a substitute, so that nothing changes here but names.
        let mut changed = Vec::new();
        Commands::new(bytes).try_for_each(|command| {
            let command = command?;
            self.restore_names(&command, version, &mut changed)?;
            if command.metric().is_none() {
                self.core.writer.lock().apply_global(command, version, self.core);
            }
            Ok(())
        })
    }

    /// Whether a metric has a name.
    fn knows(&mut self, metric: MetricId) -> bool {
        let place = metric.0 as usize;
        // Only names that are there are noted, so the notes are as long as the dictionary.
        if !self.known.has(place) && self.core.names.group_of(metric).is_some() {
            self.known.insert(place);
        }
        self.known.has(place)
    }

    /// Waits until all that was handed on is applied.
    ///
    /// # Errors
    /// Which of those records makes no sense.
    pub(crate) fn settle(&mut self) -> Result<(), Refused> {
        let Some(hands) = self.hands else { return Ok(()) };
        if !self.batch.is_empty() {
            hands.hand(std::mem::take(&mut self.batch))?;
        }
        self.handed_bytes = 0;
        hands.settle()
    }

    /// Whether the partitions take more than `max` bytes after the records so far. Settles where what was handed on may make the difference.
    pub(crate) fn takes_more_than(&mut self, max: u64) -> Result<bool, Refused> {
        let on_its_way = (self.handed_bytes + self.batch.len() as u64).saturating_mul(MEMORY_PER_BYTE);
        if on_its_way != 0 && self.core.memory().bytes().saturating_add(on_its_way) > max {
            self.settle()?;
        }
        Ok(self.core.memory().bytes() > max)
    }

    /// Notes what changed, for the tree that is made of it in the end.
    fn note(&self, changed: &[MetricId]) {
        let lanes = self.core.lanes.len() as u32;
        for metric in changed {
            self.core.lanes[(metric.0 % lanes) as usize].heads.lock().note_replayed(&[*metric], lanes);
        }
    }

    /// Publishes the state, as `version`: that of the last record, or a higher one if the log is known to have gone on. The next commit
    /// follows it.
    pub(crate) fn finish(self, version: Version) -> Replayed {
        let Replay { core, points, substitutes, mut unfinished, .. } = self;
        put_into_tree(core, version);
        core.swap_in(version, &[]);
        // A later volume has all that one before it has. To go on with the older would bring back its state, out of files that may be gone.
        let table = core.load();
        unfinished.retain(|volume| !table.volumes.iter().any(|other| other.block().is_after(volume)));
        let mut log = core.log.lock();
        (log.seq, log.durable, log.published) = (version, version, version);
        drop(log);
        core.forget_names();
        Replayed { points, substitutes, unfinished }
    }

    /// A command as it is to be applied. The last slice of an install takes replaced volumes out of the table, so it has to be about all metrics
    /// where other slices may be lost: else their heads would go on naming those. What was installed already stays as it is.
    fn widened<'c>(&self, command: Command<'c>) -> Command<'c> {
        match command {
            Command::Install(install) if install.is_last && self.has_gaps => {
                Command::Install(Install { first: MetricId(0), ..install })
            }
            command => command,
        }
    }

    fn apply(&self, command: Command<'_>, version: Version, changed: &mut Vec<MetricId>) {
        let core = self.core;
        let live = LiveVersions { published: self.version, held: Vec::new() };
        match command.metric() {
            Some(metric) => {
                let lane = metric.0 % core.lanes.len() as u32;
                let context = core.applying(version, lane, &live);
                core.lanes[lane as usize].heads.lock().apply(command, &context, changed);
            }
            None => {
                for (lane, heads) in (0..).zip(core.lanes.iter().map(|lane| &lane.heads)) {
                    let context = core.applying(version, lane, &live);
                    heads.lock().apply(command.clone(), &context, changed);
                }
                core.writer.lock().apply_global(command, version, core);
            }
        }
    }

    /// Tells the dictionary what a command makes or drops, and sees to it that what it names is there.
    fn restore_names(
        &mut self,
        command: &Command<'_>,
        version: Version,
        changed: &mut Vec<MetricId>,
    ) -> Result<(), RecordError> {
        const CONTRADICTION: RecordError = RecordError("names that contradict each other");
        match command {
            Command::Namespace { id, name, options } => {
                if !self.core.names.restore_namespace(*id, name, *options) {
                    return Err(CONTRADICTION);
                }
            }
            Command::Create { metric, namespace, name, tags } => {
                if self.core.names.namespace_by_id(*namespace).is_none() {
                    self.substitute_namespace(*namespace)?;
                }
                if self.has_gaps {
                    self.drop_predecessors(*metric, *namespace, name, version, changed);
                }
                let names = &self.core.names;
                names
                    .restore_metric(*metric, *namespace, name, tags.as_ref(), version)
                    .ok_or(CONTRADICTION)?;
            }
            Command::Drop { metric } => {
                self.core.names.set_dropped(std::iter::once(*metric), version);
            }
            Command::Point { metric, .. }
            | Command::Columns { metric, .. }
            | Command::Streams { metric, .. }
            | Command::Annotated { metric, .. } => {
                if !self.knows(*metric) {
                    self.substitute_metric(*metric, version, changed)?;
                }
            }
            Command::Freeze { namespace, shard, block } => {
                self.check_namespace(*namespace)?;
                self.check_block(*namespace, *shard, *block, None)?;
            }
            Command::Install(install) => {
                self.core.number_volumes_above(install.volume.id);
                if self.core.names.namespace_by_id(install.volume.namespace).is_none() {
                    self.substitute_namespace(install.volume.namespace)?;
                }
                let BlockVolume { namespace, shard, cover, width_ns, .. } = install.volume;
                self.check_namespace(namespace)?;
                self.check_metrics(&install.volume)?;
                self.check_block(namespace, shard, cover, Some(width_ns))?;
                // Nor is an older one to be gone on with, even if the table does not tell, as this one is empty.
                let new = install.volume;
                self.unfinished.retain(|volume| volume.id != new.id && !new.is_after(volume));
                if !install.is_last {
                    self.unfinished.push(install.volume);
                }
                if self.has_gaps {
                    self.look_for_freeze(&install.volume);
                }
            }
            Command::Delete { .. } | Command::PutMeta { .. } | Command::RemoveMeta { .. } => {}
        }
        Ok(())
    }

    /// Seals of a namespace whose making was lost are given up: with other options than it had, its metrics are of other shards than those whose
    /// volumes have their points, and its volumes are in other folders. The points stay in memory. Later seals are of the options that it has now, and
    /// those a log that was salvaged replays.
    fn check_namespace(&self, namespace: NamespaceId) -> Result<(), RecordError> {
        match self.is_salvage && self.substitute_namespaces.contains(&namespace) {
            true => Err(RecordError("a seal of a namespace whose making was lost")),
            false => Ok(()),
        }
    }

    /// So are those of a shard into which a metric was put whose making was lost, and which may have been of another one when it was sealed: the
    /// volume need not have its points.
    fn check_metrics(&self, volume: &BlockVolume) -> Result<(), RecordError> {
        let is_concerned = |(metric, since): &(Metric, Version)| {
            *since <= volume.freeze
                && (metric.namespace().id(), metric.shard()) == (volume.namespace, volume.shard)
        };
        match self.is_salvage && self.substitute_metrics.iter().any(is_concerned) {
            true => Err(RecordError("a seal of a shard with a metric whose making was lost")),
            false => Ok(()),
        }
    }

    /// Blocks consist of windows, and a volume's width is one that its namespace has.
    fn check_block(
        &self,
        namespace: NamespaceId,
        shard: u32,
        block: Cover,
        width_ns: Option<i64>,
    ) -> Result<(), RecordError> {
        let Some(namespace) = self.core.names.namespace_by_id(namespace) else { return Ok(()) };
        let NamespaceOptions { block_ns, shards } = namespace.options();
        let window = Window::new(block_ns);
        let consists_of_windows =
            window.of(block.first).first == block.first && window.of(block.last).last == block.last;
        let has_width = width_ns.is_none_or(|width_ns| widths(block_ns).contains(&width_ns));
        match consists_of_windows && has_width && shard < shards {
            true => Ok(()),
            false => Err(RecordError("a shard, a block or a width that its namespace does not have")),
        }
    }

    /// A namespace whose making was lost gets a name of its number, and the options of the default one.
    fn substitute_namespace(&mut self, id: NamespaceId) -> Result<(), RecordError> {
        let default = self.core.names.namespace_by_id(NamespaceId(0));
        let (true, Some(default)) = (self.has_gaps, default) else {
            return Err(RecordError("a namespace that was never made"));
        };
        self.substitute_namespaces.push(id);
        let name = format!("salvaged-namespace-{}", id.0);
        self.core.names.restore_namespace(id, &name, default.options());
        let command = Command::Namespace { id, name: &name, options: default.options() };
        self.core.writer.lock().apply_global(command, self.version, self.core);
        self.substitutes.push(format!("the name of namespace {} is lost; it is now {name}", id.0));
        Ok(())
    }

    /// A metric whose making was lost gets a name of its number.
    fn substitute_metric(
        &mut self,
        metric: MetricId,
        version: Version,
        changed: &mut Vec<MetricId>,
    ) -> Result<(), RecordError> {
        if !self.has_gaps {
            return Err(RecordError("a metric that was never made"));
        }
        let name = format!("salvaged-metric-{}", metric.0);
        let namespace = NamespaceId(0);
        self.core.names.restore_metric(metric, namespace, name.as_bytes(), None, version);
        self.substitute_metrics.extend(self.core.names.metric_by_id(metric).map(|metric| (metric, version)));
        let create = Command::Create { metric, namespace, name: name.as_bytes(), tags: None };
        self.apply(create, version, changed);
        self.substitutes.push(format!("the ID of metric {} is lost; it is now {name}", metric.0));
        Ok(())
    }

    /// Tells of a volume whose freeze was lost. It goes below all there is, as nobody knows what it has: so of what was deleted between
    /// the two, and left no trace in memory, it brings back the points.
    fn look_for_freeze(&mut self, volume: &BlockVolume) {
        let BlockVolume { id, namespace, shard, cover, freeze, .. } = *volume;
        let is_noted = self.core.freezes().into_iter().any(|(of_namespace, of_shard, noted)| {
            (of_namespace, of_shard) == (namespace, shard) && noted.block == cover && noted.version == freeze
        });
        if is_noted || self.without_freeze.contains(&id) {
            return;
        }
        self.without_freeze.push(id);
        self.substitutes.push(format!(
            "the freeze of volume {} (namespace {}, shard {shard}, {} to {} ns) is lost; points there that were deleted while it was written may be back",
            id.0, namespace.0, cover.first, cover.last
        ));
    }

    /// A name is made again only after its drop: if the older metric is still there, the drop was lost.
    fn drop_predecessors(
        &mut self,
        metric: MetricId,
        namespace: NamespaceId,
        name: &[u8],
        version: Version,
        changed: &mut Vec<MetricId>,
    ) {
        for older in self.core.names.ids_of(namespace, name) {
            if older.id() != metric && !older.is_dropped() {
                self.core.names.set_dropped(std::iter::once(older.id()), version);
                self.apply(Command::Drop { metric: older.id() }, version, changed);
                self.substitutes
                    .push(format!("metric {} ({older}) was dropped by a lost commit", older.id().0));
            }
        }
    }
}

/// Puts what changed into the tree that is under construction, in the order of ids, so that each node is gone to once.
fn put_into_tree(core: &Core, version: Version) {
    let lanes = core.lanes.len();
    let mut writer = core.writer.lock();
    let mut heads: Vec<_> = core.lanes.iter().map(|lane| lane.heads.lock()).collect();
    let changed: Vec<ChangedPlaces> = heads.iter_mut().map(|heads| heads.take_replayed()).collect();
    let places = changed.iter().map(ChangedPlaces::len).max().unwrap_or(0);
    for place in 0..places {
        for (lane, _) in changed.iter().enumerate().filter(|(_, changed)| changed.has(place)) {
            let metric = MetricId((place * lanes + lane) as u32);
            let map = heads[lane].head(metric, lanes as u32).map(|head| head.map().clone());
            writer.metrics.set(metric, map, version);
        }
    }
}
