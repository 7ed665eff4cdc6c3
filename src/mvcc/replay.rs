//! Replay: the state of a core from the records of its log.
//!
//! Records go through the code that applied them first. What replay adds is names: the dictionary is told what the log made and
//! dropped. A record that contradicts the ones before it is refused; but where a salvage lost records, which shows as a gap in the versions, what
//! they named gets a substitute, the same at every replay, and is reported.

use crate::names::{Metric, MetricId, NamespaceId, NamespaceOptions};

use super::commit::Core;
use super::marks::LiveVersions;
use super::partition_map::Cover;
use super::record::{Command, Commands, Install, RecordError};
use super::transaction::Version;
use super::window::{Window, widths};
use crate::sealed::{BlockVolume, VolumeId};

/// Rebuilds the state, before anybody else sees the core.
#[derive(Debug)]
pub(crate) struct Replay<'a> {
    core: &'a mut Core,
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
    pub(crate) fn new(core: &'a mut Core, version: Version, is_salvage: bool) -> Self {
        Replay {
            core,
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

    /// Puts a volume that is there in the place of what was frozen for it, or below all that is there if nobody knows of its freeze, for all metrics of its
    /// shard. For volumes whose install is not in the log, as of the last record.
    pub(crate) fn install(&mut self, volume: BlockVolume) {
        self.core.number_volumes_above(volume.id);
        let install = Install { volume, first: MetricId(0), last: MetricId(u32::MAX), is_last: true };
        let mut changed = Vec::new();
        self.apply(Command::Install(install), self.version, &mut changed);
        self.note(changed, self.version);
        self.core.bases.forget();
    }

    /// Applies the next record. One that does not decode is refused before anything of it is applied; if names contradict each other, what
    /// stands before that is applied, as a salvage wants it.
    pub(crate) fn record(&mut self, version: Version, bytes: &[u8]) -> Result<(), RecordError> {
        self.has_gaps |= version != self.version.next();
        Commands::new(bytes).try_for_each(|command| match command? {
            Command::Streams { mut streams, .. } => streams.try_for_each(|stream| stream.decode().map(drop)),
            _ => Ok(()),
        })?;
        let mut changed = Vec::new();
        let applied = Commands::new(bytes).try_for_each(|command| {
            let command = self.widened(command?);
            self.restore_names(&command, version, &mut changed)?;
            self.points += command.points();
            self.apply(command, version, &mut changed);
            Ok(())
        });
        self.note(changed, version);
        // A salvage gives up the version of a record that is refused: the next one shows a gap, now and at the next replay.
        if applied.is_ok() {
            self.version = version;
        }
        applied
    }

    /// Puts what changed into the tree that is under construction.
    fn note(&self, mut changed: Vec<MetricId>, version: Version) {
        changed.sort_unstable();
        changed.dedup();
        let lanes = self.core.lanes.len() as u32;
        for metric in changed {
            let changes =
                self.core.lanes[(metric.0 % lanes) as usize].heads.lock().changes(vec![metric], lanes);
            let mut writer = self.core.writer.lock();
            changes.into_iter().for_each(|(metric, map)| drop(writer.metrics.set(metric, map, version)));
        }
    }

    /// Publishes the state, as `version`: that of the last record, or a higher one if the log is known to have gone on. The next commit
    /// follows it.
    pub(crate) fn finish(self, version: Version) -> Replayed {
        let Replay { core, points, substitutes, mut unfinished, .. } = self;
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
        let core = &*self.core;
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
                if self.core.names.group_of(*metric).is_none() {
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
