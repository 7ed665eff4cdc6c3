//! Replay: the state of a core from the records of its log.
//!
//! Records go through the code that applied them first. What replay adds is names: the dictionary is told what the log made and
//! dropped. A record that contradicts the ones before it is refused; but where a salvage lost records, which shows as a gap in the versions, what
//! they named gets a substitute, the same at every replay, and is reported.

use crate::names::{MetricId, NamespaceId, Tags};

use super::commit::Core;
use super::marks::LiveVersions;
use super::record::{Command, Commands, RecordError};
use super::transaction::Version;

/// Rebuilds the state, before anybody else sees the core.
#[derive(Debug)]
pub(crate) struct Replay<'a> {
    core: &'a mut Core,
    version: Version,
    points: u64,
    /// Whether records are missing.
    has_gaps: bool,
    substitutes: Vec<String>,
}

/// What was replayed.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) points: u64,
    /// What replaces what only lost records knew, one sentence each.
    pub(crate) substitutes: Vec<String>,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(core: &'a mut Core) -> Self {
        Replay { core, version: Version(0), points: 0, has_gaps: false, substitutes: Vec::new() }
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
            let command = command?;
            self.restore_names(&command, version, &mut changed)?;
            self.points += command.points();
            self.apply(command, version, &mut changed);
            Ok(())
        });
        changed.sort_unstable();
        changed.dedup();
        let lanes = self.core.lanes.len() as u32;
        for metric in changed {
            let changes =
                self.core.lanes[(metric.0 % lanes) as usize].heads.lock().changes(vec![metric], lanes);
            let mut writer = self.core.writer.lock();
            changes.into_iter().for_each(|(metric, map)| writer.metrics.set(metric, map));
        }
        self.version = version;
        applied
    }

    /// Publishes the state.
    pub(crate) fn finish(self) -> Replayed {
        let Replay { core, version, points, substitutes, .. } = self;
        core.swap_in(version, &[]);
        let mut log = core.log.lock();
        (log.seq, log.durable, log.published) = (version, version, version);
        Replayed { points, substitutes }
    }

    fn apply(&self, command: Command<'_>, version: Version, changed: &mut Vec<MetricId>) {
        let core = &*self.core;
        match command.metric() {
            Some(metric) => {
                let live = LiveVersions { published: self.version, held: Vec::new() };
                let context = core.applying(version, &live);
                let lane = (metric.0 % context.lanes) as usize;
                core.lanes[lane].heads.lock().apply(command, &context, changed);
            }
            None => core.writer.lock().apply_global(command, &core.names),
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
                if !self.core.names.restore_metric(*metric, *namespace, name, tags.clone()) {
                    return Err(CONTRADICTION);
                }
            }
            Command::Drop { metric } => {
                if let Some(metric) = self.core.names.metric_by_id(*metric) {
                    metric.set_dropped();
                }
            }
            Command::Point { metric, .. }
            | Command::Columns { metric, .. }
            | Command::Streams { metric, .. }
            | Command::Annotated { metric, .. } => {
                if self.core.names.metric_by_id(*metric).is_none() {
                    self.substitute_metric(*metric, version, changed)?;
                }
            }
            Command::Delete { .. } | Command::PutMeta { .. } | Command::RemoveMeta { .. } => {}
        }
        Ok(())
    }

    /// A namespace whose making was lost gets a name of its number, and the options of the default one.
    fn substitute_namespace(&mut self, id: NamespaceId) -> Result<(), RecordError> {
        let default = self.core.names.namespace_by_id(NamespaceId(0));
        let (true, Some(default)) = (self.has_gaps, default) else {
            return Err(RecordError("a namespace that was never made"));
        };
        let name = format!("salvaged-namespace-{}", id.0);
        self.core.names.restore_namespace(id, &name, default.options());
        let command = Command::Namespace { id, name: &name, options: default.options() };
        self.core.writer.lock().apply_global(command, &self.core.names);
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
        self.core.names.restore_metric(metric, namespace, name.as_bytes(), Tags::none());
        let create = Command::Create { metric, namespace, name: name.as_bytes(), tags: Tags::none() };
        self.apply(create, version, changed);
        self.substitutes.push(format!("the ID of metric {} is lost; it is now {name}", metric.0));
        Ok(())
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
                older.set_dropped();
                self.apply(Command::Drop { metric: older.id() }, version, changed);
                self.substitutes
                    .push(format!("metric {} ({older}) was dropped by a lost commit", older.id().0));
            }
        }
    }
}
