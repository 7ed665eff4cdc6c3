//! Restore: the state of a core from a checkpoint. What [`replay`](super::replay) adds to it is what came after.
//!
//! In this order: namespaces, volumes, metrics, their layers, freezes, [`Restore::finish`]. What contradicts itself is refused with a reason: it
//! was written by something else than a checkpoint.

use std::collections::BTreeMap;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::names::{MetricId, NamespaceId, NamespaceOptions, Tags};
use crate::sealed::BlockVolume;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex};

use super::base::BaseRef;
use super::commit::Core;
use super::lane::Freeze;
use super::marks::LiveVersions;
use super::metric_tree::MetricTree;
use super::partition::{PartitionRef, PartitionState};
use super::partition_map::{Cover, Layer, PartitionMap};
use super::record::Command;
use super::transaction::Version;
use super::window::Window;

/// Why something was refused.
type Refused = &'static str;

/// See the module. Before anybody else sees the core.
#[derive(Debug)]
pub(crate) struct Restore<'a> {
    core: &'a mut Core,
    version: Version,
    /// The maps of metrics that have a base and nothing else, by the base's address: all that have the same base share one.
    shared: Mutex<HashMap<usize, Arc<PartitionMap>, RandomState>>,
}

/// A metric, as a version has it.
#[derive(Debug)]
pub(crate) struct RestoredMetric {
    pub(crate) id: MetricId,
    pub(crate) namespace: NamespaceId,
    pub(crate) shard: u32,
    pub(crate) map: Arc<PartitionMap>,
}

/// What is in memory of a metric, as of a version.
#[derive(Clone, Debug)]
pub(crate) struct MetricState {
    pub(crate) metric: MetricId,
    pub(crate) partitions: SmallVec<[PartitionState; 1]>,
    /// Disjoint and ascending: the times, and which of the partitions lie over each other there, from the bottom to the top.
    pub(crate) layers: SmallVec<[(Cover, SmallVec<[usize; 1]>); 1]>,
}

impl<'a> Restore<'a> {
    /// Puts the state of a version into an empty core.
    pub(crate) fn new(core: &'a mut Core, version: Version) -> Self {
        Restore { core, version, shared: Mutex::default() }
    }

    pub(crate) fn namespace(
        &self,
        id: NamespaceId,
        name: &str,
        options: NamespaceOptions,
    ) -> Result<(), Refused> {
        if options.block_ns <= 0
            || options.shards == 0
            || !self.core.names.restore_namespace(id, name, options)
        {
            return Err("namespaces that contradict each other");
        }
        let command = Command::Namespace { id, name, options };
        self.core.writer.lock().apply_global(command, self.version, self.core);
        Ok(())
    }

    pub(crate) fn meta(&self, key: &[u8], value: &[u8]) {
        self.core.writer.lock().apply_global(Command::PutMeta { key, value }, self.version, self.core);
    }

    pub(crate) fn volume(&self, volume: BlockVolume) -> Result<(), Refused> {
        let namespace = self.core.names.namespace_by_id(volume.namespace);
        let namespace = namespace.ok_or("a volume of a namespace that there is not")?;
        let store = self.core.volumes().ok_or("a volume of a database that has none")?;
        self.core.writer.lock().restore_volume(store.volume(volume, &namespace));
        Ok(())
    }

    /// The number of the next volume, at least.
    pub(crate) fn next_volume(&self, number: u32) {
        self.core.next_volume.fetch_max(number, Ordering::Relaxed);
    }

    /// Makes room for so many metrics at once: before the first.
    pub(crate) fn reserve(&self, metrics: usize) {
        self.core.names.reserve(metrics);
    }

    /// The name of a metric, its tags if the ID does not say them, and the version that made it. Returns the metric's shard.
    pub(crate) fn name(
        &self,
        id: MetricId,
        namespace: NamespaceId,
        name: &[u8],
        own_tags: Option<&Tags>,
        created: Version,
    ) -> Result<u32, Refused> {
        let shard = self.core.names.restore_metric(id, namespace, name, own_tags, created);
        shard.ok_or("metrics that contradict each other")
    }

    /// The map of metrics with these sealed blocks and nothing in memory: all have the same.
    pub(crate) fn base_map(&self, base: &BaseRef) -> Result<Arc<PartitionMap>, Refused> {
        let mut shared = self.shared.lock();
        if let Some(map) = shared.get(&base.address()) {
            return Ok(map.clone());
        }
        // It holds the base, so that no other gets its address meanwhile.
        let map = Arc::new(PartitionMap::restored(base.clone(), SmallVec::new())?);
        shared.insert(base.address(), map.clone());
        Ok(map)
    }

    /// The map of a metric with these sealed blocks and what it has in memory. Windows are those of its namespace.
    pub(crate) fn map(
        &self,
        base: BaseRef,
        window: Window,
        state: MetricState,
    ) -> Result<Arc<PartitionMap>, Refused> {
        let restored = |state| PartitionRef::restored(state, window, self.version, self.core.memory());
        let partitions = state.partitions.into_iter().map(restored);
        let partitions = partitions.collect::<Result<SmallVec<[PartitionRef; 1]>, Refused>>()?;
        let layer = |(cover, stack): (Cover, SmallVec<[usize; 1]>)| {
            let stack = stack.into_iter().map(|place| partitions.get(place).cloned());
            stack.collect::<Option<SmallVec<_>>>().map(|stack| Layer { cover, stack })
        };
        let layers = state.layers.into_iter().map(layer).collect::<Option<SmallVec<_>>>();
        let layers = layers.ok_or("a layer of a partition that there is not")?;
        Ok(Arc::new(PartitionMap::restored(base, layers)?))
    }

    /// The windows of all namespaces.
    pub(crate) fn windows(&self) -> BTreeMap<u32, Window> {
        let namespaces = self.core.names.namespaces().into_iter();
        namespaces.map(|space| (space.id().0, Window::new(space.options().block_ns))).collect()
    }

    fn window(&self, namespace: NamespaceId) -> Option<Window> {
        let namespace = self.core.names.namespace_by_id(namespace)?;
        Some(Window::new(namespace.options().block_ns))
    }

    /// Puts back those metrics that belong to one of [`Restore::PARTS`] parts, which several threads may do at a time. Their namespaces are there.
    pub(crate) fn heads<'m>(&self, part: usize, metrics: impl Iterator<Item = &'m RestoredMetric>) {
        let lanes = self.core.lanes.len();
        let live = LiveVersions::default();
        let of_part = self.core.lanes.iter().enumerate().skip(part).step_by(Self::PARTS);
        let mut heads: Vec<_> = of_part.map(|(number, lane)| (number, lane.heads.lock())).collect();
        for RestoredMetric { id, namespace, shard, map } in metrics {
            let lane = id.0 as usize % lanes;
            if lane % Self::PARTS == part {
                let (number, heads) = &mut heads[lane / Self::PARTS];
                let context = self.core.applying(self.version, *number as u32, &live);
                heads.restore(*id, (*namespace, *shard), &context, map.clone());
            }
        }
    }

    /// See [`Restore::heads`].
    pub(crate) const PARTS: usize = 4;

    /// A metric with its sealed blocks: its name, its tags if the ID does not say them, and the version that made it.
    pub(crate) fn metric(
        &self,
        id: MetricId,
        namespace: NamespaceId,
        name: &[u8],
        own_tags: Option<&Tags>,
        created: Version,
        base: &BaseRef,
    ) -> Result<(), Refused> {
        let shard = self.name(id, namespace, name, own_tags, created)?;
        let map = self.base_map(base)?;
        self.put(RestoredMetric { id, namespace, shard, map });
        Ok(())
    }

    /// What a metric that is there has in memory.
    pub(crate) fn layers(&self, state: MetricState) -> Result<(), Refused> {
        const NO_METRIC: Refused = "points of a metric that there is not";
        let Core { names, lanes, .. } = &*self.core;
        let id = state.metric;
        let (namespace, shard) = names.group_of(id).ok_or(NO_METRIC)?;
        let window = self.window(namespace).ok_or(NO_METRIC)?;
        let count = lanes.len() as u32;
        let heads = lanes[(id.0 % count) as usize].heads.lock();
        let base = heads.head(id, count).ok_or(NO_METRIC)?.map().base().clone();
        drop(heads);
        let map = self.map(base, window, state)?;
        self.put(RestoredMetric { id, namespace, shard, map });
        Ok(())
    }

    fn put(&self, metric: RestoredMetric) {
        let part = metric.id.0 as usize % self.core.lanes.len() % Self::PARTS;
        self.heads(part, std::iter::once(&metric));
    }

    /// A block that was frozen at a version. In the order of versions.
    pub(crate) fn freeze(&self, namespace: NamespaceId, shard: u32, freeze: Freeze) -> Result<(), Refused> {
        let namespace = self.core.names.namespace_by_id(namespace);
        let namespace = namespace.filter(|namespace| shard < namespace.options().shards);
        let namespace = namespace.ok_or("a freeze of a shard that there is not")?;
        for lane in &self.core.lanes {
            lane.heads.lock().restore_freeze(&namespace, shard, freeze);
        }
        Ok(())
    }

    /// A metric that was made, at this version, since there is a freeze of its shard. One that does not exist any more is passed over.
    pub(crate) fn made(&self, metric: MetricId, version: Version) {
        let Core { names, lanes, .. } = &*self.core;
        lanes[metric.0 as usize % lanes.len()].heads.lock().restore_made(metric, names, version);
    }

    /// Publishes it all. Numbers of metrics below `next_metric` are not given out again.
    pub(crate) fn finish(self, next_metric: u32) {
        let Restore { core, version, .. } = self;
        core.names.give_out_from(next_metric);
        let lanes = core.lanes.len() as u32;
        let mut writer = core.writer.lock();
        let heads: Vec<_> = core.lanes.iter().map(|lane| lane.heads.lock()).collect();
        let end = heads.iter().map(|heads| heads.end(lanes)).max().unwrap_or(0).min(next_metric);
        let map = |metric: MetricId| {
            Some((metric, heads[(metric.0 % lanes) as usize].head(metric, lanes)?.map().clone()))
        };
        writer.metrics = MetricTree::of((0..end).map(MetricId).filter_map(map), version);
        drop((writer, heads));
        core.swap_in(version, &[]);
        let mut log = core.log.lock();
        (log.seq, log.durable, log.published) = (version, version, version);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeSet;

    use crate::io::SimulatedDisk;
    use crate::options::Options;
    use crate::sync::Arc as SyncArc;
    use crate::time::Timestamp;

    #[test]
    fn metrics_with_the_same_base_share_a_map_whichever_come_between() {
        let disk = SimulatedDisk::new(1);
        let open = || {
            let options = Options::new().workers(0).shards(4);
            options.open_on(std::sync::Arc::new(disk.clone()), "/db").expect("opens")
        };
        let db = open();
        for index in 0..200 {
            let metric = db.metric(format!("m{index}")).expect("a name");
            db.append(&metric, Timestamp::from_secs(1_700_000_000), 1.0).expect("commits");
        }
        db.seal(..).expect("seals");
        db.checkpoint().expect("a checkpoint");
        drop(db);
        let db = open();
        let transaction = db.engine().core().load();
        let maps: BTreeSet<usize> =
            transaction.metrics.iter().map(|(_, map)| SyncArc::as_ptr(map).addr()).collect();
        assert_eq!(maps.len(), 4, "one for each shard");
    }
}
