//! Restore: the state of a core from a checkpoint. What [`replay`](super::replay) adds to it is what came after.
//!
//! In this order: namespaces, volumes, metrics, their layers, freezes, [`Restore::finish`]. What contradicts itself is refused with a reason: it
//! was written by something else than a checkpoint.

use std::cell::RefCell;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::names::{MetricId, NamespaceId, NamespaceOptions, Tags};
use crate::sealed::BlockVolume;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

use super::base::BaseRef;
use super::commit::Core;
use super::lane::Freeze;
use super::marks::LiveVersions;
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
    shared: RefCell<HashMap<usize, Arc<PartitionMap>, RandomState>>,
}

/// What is in memory of a metric, as of a version.
#[derive(Clone, Debug)]
pub(crate) struct MetricState {
    pub(crate) metric: MetricId,
    pub(crate) partitions: Vec<PartitionState>,
    /// Disjoint and ascending: the times, and which of the partitions lie over each other there, from the bottom to the top.
    pub(crate) layers: Vec<(Cover, Vec<usize>)>,
}

impl<'a> Restore<'a> {
    /// Puts the state of a version into an empty core.
    pub(crate) fn new(core: &'a mut Core, version: Version) -> Self {
        Restore { core, version, shared: RefCell::default() }
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

    /// A metric with its sealed blocks, its tags if the ID does not say them, and the version that made it.
    pub(crate) fn metric(
        &self,
        id: MetricId,
        namespace: NamespaceId,
        name: &[u8],
        own_tags: Option<&Tags>,
        created: Version,
        base: BaseRef,
    ) -> Result<(), Refused> {
        let shard = self.core.names.restore_metric(id, namespace, name, own_tags, created);
        let shard = shard.ok_or("metrics that contradict each other")?;
        let mut shared = self.shared.borrow_mut();
        let map = match shared.get(&base.address()) {
            Some(map) => map.clone(),
            None => {
                // It holds the base, so that no other gets its address meanwhile.
                let address = base.address();
                let map = Arc::new(PartitionMap::restored(base, SmallVec::new())?);
                shared.entry(address).or_insert(map).clone()
            }
        };
        self.put_head(id, (namespace, shard), map);
        Ok(())
    }

    fn put_head(&self, id: MetricId, group: (NamespaceId, u32), map: Arc<PartitionMap>) {
        let lane = id.0 % self.core.lanes.len() as u32;
        let live = LiveVersions::default();
        let context = self.core.applying(self.version, lane, &live);
        self.core.lanes[lane as usize].heads.lock().restore(id, group, &context, map);
    }

    /// What a metric has in memory.
    pub(crate) fn layers(&self, state: MetricState) -> Result<(), Refused> {
        let Core { names, lanes, .. } = &*self.core;
        let id = state.metric;
        let group = names.group_of(id).ok_or("points of a metric that there is not")?;
        let namespace = names.namespace_by_id(group.0).ok_or("points of a metric that there is not")?;
        let window = Window::new(namespace.options().block_ns);
        let restored = |state| PartitionRef::restored(state, window, self.version, self.core.memory());
        let partitions =
            state.partitions.into_iter().map(restored).collect::<Result<Vec<PartitionRef>, Refused>>()?;
        let layer = |(cover, stack): (Cover, Vec<usize>)| {
            let stack = stack.into_iter().map(|place| partitions.get(place).cloned());
            stack.collect::<Option<SmallVec<_>>>().map(|stack| Layer { cover, stack })
        };
        let layers = state.layers.into_iter().map(layer).collect::<Option<SmallVec<_>>>();
        let layers = layers.ok_or("a layer of a partition that there is not")?;
        let count = lanes.len() as u32;
        let heads = lanes[(id.0 % count) as usize].heads.lock();
        let head = heads.head(id, count).ok_or("points of a metric that there is not")?;
        let base = head.map().base().clone();
        drop(heads);
        self.put_head(id, group, Arc::new(PartitionMap::restored(base, layers)?));
        Ok(())
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
        for metric in (0..end).map(MetricId) {
            if let Some(head) = heads[(metric.0 % lanes) as usize].head(metric, lanes) {
                writer.metrics.set(metric, Some(head.map().clone()), version);
            }
        }
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
