//! Lanes: the write side of the metrics.
//!
//! A lane is the heads that one lock serves, and a queue of slices, which are the parts of commits that concern those heads. The
//! queue has the log's order, since a slice is pushed in the critical section that numbers its commit; slices are taken only
//! under the lane's lock, and applied before it is released. So each head goes through the log's history, and through nothing
//! else (`design/concurrency.md`, invariants 1 to 3).
//!
//! What is frozen is noted once for a block, not at each head (`design/sealing.md`).

use std::collections::BTreeMap;

use crate::names::{MetricId, Names, Namespace, NamespaceId};
use crate::planted::{Bug, Planted};
use crate::sync::{Arc, Mutex};

use super::base::Bases;
use super::commit::Slice;
use super::head::Head;
use super::marks::LiveVersions;
use super::memory::Memory;
use super::partition_map::{Cover, PartitionMap};
use super::record::{Command, Install};
use super::replay::ChangedPlaces;
use super::slots::HeadSlots;
use super::transaction::Version;
use super::window::Window;

/// See the module. The queue's lock is a leaf; it is taken with or without that of the heads.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub(crate) queue: Mutex<Vec<Slice>>,
    pub(crate) heads: Mutex<Heads>,
}

/// The heads of one lane.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    /// By `id / lanes`.
    heads: HeadSlots,
    groups: Vec<Group>,
    /// Only for [`Bug::InstallFreezesMap`] and [`Bug::InstallInTreeOnly`]: what an install puts back.
    put_back: BTreeMap<MetricId, Arc<PartitionMap>>,
    /// What replay changed and the tree does not have yet.
    replayed: ChangedPlaces,
}

/// What the metrics of one namespace and shard have in common.
#[derive(Debug)]
pub(super) struct Group {
    namespace: NamespaceId,
    shard: u32,
    pub(super) window: Window,
    /// Blocks that are being sealed, or were to be. Mostly none.
    pub(super) freezes: Vec<Freeze>,
    /// Metrics made since there are any, and when: they have no points in what was frozen before.
    made: BTreeMap<MetricId, Version>,
}

/// What a freeze left behind: partitions born at this version or before take nothing in the block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Freeze {
    pub(crate) block: Cover,
    pub(crate) version: Version,
}

/// What a commit changed in the tree: the map that a metric has after it, or none if it is gone.
pub(crate) type Change = (MetricId, Option<Arc<PartitionMap>>);

/// What applying a command needs to know besides the heads.
#[derive(Debug)]
pub(crate) struct Applying<'a> {
    /// The version of the commit that the command belongs to.
    pub(crate) version: Version,
    pub(crate) live: &'a LiveVersions,
    /// The encoded streams of the section that the command is in; none if only the record has them.
    pub(crate) streams: &'a [Arc<Vec<u8>>],
    pub(crate) names: &'a Names,
    pub(crate) bases: &'a Bases,
    pub(crate) memory: &'a Memory,
    /// Which lane it is, and how many there are.
    pub(crate) lane: u32,
    pub(crate) lanes: u32,
    pub(crate) planted: Planted,
}

impl Heads {
    /// Applies one command of a slice; it cannot fail. A command for a head that is not there does nothing: the metric was dropped by
    /// an earlier commit. A metric whose map changes is added to `changed`, perhaps several times.
    pub(crate) fn apply(
        &mut self,
        command: Command<'_>,
        context: &Applying<'_>,
        changed: &mut Vec<MetricId>,
    ) {
        let Some(metric) = command.metric() else {
            return match command {
                Command::Freeze { namespace, shard, block } => self.freeze(namespace, shard, block, context),
                Command::Install(install) => self.install(&install, context, changed),
                _ => {}
            };
        };
        let place = (metric.0 / context.lanes) as usize;
        match command {
            Command::Create { .. } => {
                if self.heads.get(place).is_none()
                    && let Some(group) = self.group_of(metric, context.names)
                {
                    changed.push(metric);
                    self.heads.put(place, Head::new(group as u32, context.version));
                    let group = &mut self.groups[group];
                    if !group.freezes.is_empty() {
                        group.made.insert(metric, context.version);
                    }
                }
            }
            Command::Drop { .. } => {
                if self.heads.take(place).is_some() {
                    changed.push(metric);
                }
            }
            command => {
                let Some(head) = self.heads.get_mut(place) else { return };
                let group = &self.groups[head.group() as usize];
                if head.write(command, group, context) && changed.last() != Some(&metric) {
                    changed.push(metric);
                }
            }
        }
    }

    /// Puts back a metric as a checkpoint had it.
    pub(super) fn restore(
        &mut self,
        metric: MetricId,
        (namespace, shard): (NamespaceId, u32),
        context: &Applying<'_>,
        map: Arc<PartitionMap>,
    ) {
        let Some(group) = self.group_at(namespace, shard, context.names) else { return };
        let place = (metric.0 / context.lanes) as usize;
        self.heads.take(place);
        self.heads.put(place, Head::restored(group as u32, context.version, map));
    }

    /// Puts back a freeze that a checkpoint had. In the order of versions.
    pub(super) fn restore_freeze(&mut self, namespace: &Namespace, shard: u32, freeze: Freeze) {
        let place = self.group_in(namespace, shard);
        self.groups[place].freezes.push(freeze);
    }

    /// Puts back that a metric was made since there is a freeze of its group.
    pub(super) fn restore_made(&mut self, metric: MetricId, names: &Names, version: Version) {
        if let Some(place) = self.group_of(metric, names) {
            self.groups[place].made.insert(metric, version);
        }
    }

    /// Metrics made since there are freezes of their group, and when.
    pub(super) fn made(&self) -> impl Iterator<Item = (MetricId, Version)> {
        self.groups.iter().flat_map(|group| group.made.iter().map(|(metric, version)| (*metric, *version)))
    }

    /// Notes metrics of this lane that replay changed.
    pub(super) fn note_replayed(&mut self, changed: &[MetricId], lanes: u32) {
        changed.iter().for_each(|metric| self.replayed.insert((metric.0 / lanes) as usize));
    }

    /// The metrics that replay changed since it was last asked, by their places.
    pub(super) fn take_replayed(&mut self) -> ChangedPlaces {
        std::mem::take(&mut self.replayed)
    }

    /// The last applied commit that wrote to a metric; none if the metric is not there.
    pub(crate) fn last_write(&self, metric: MetricId, lanes: u32) -> Option<Version> {
        self.head(metric, lanes).map(Head::last_write)
    }

    /// The maps that metrics have now, after the last command of a slice. Not sooner: a map that somebody else holds is copied whole
    /// when it changes again.
    pub(crate) fn changes(&self, mut changed: Vec<MetricId>, lanes: u32) -> Vec<Change> {
        changed.sort_unstable();
        changed.dedup();
        let map = |metric: MetricId| (metric, self.head(metric, lanes).map(|head| head.map().clone()));
        changed.into_iter().map(map).collect()
    }

    /// The freezes that are noted, with the namespace and the shard of each.
    pub(super) fn freezes(&self) -> impl Iterator<Item = (NamespaceId, u32, Freeze)> {
        let of = |group: &Group, freeze: &Freeze| (group.namespace, group.shard, *freeze);
        self.groups.iter().flat_map(move |group| group.freezes.iter().map(move |freeze| of(group, freeze)))
    }

    /// A number that is above those of all metrics that there are.
    pub(super) fn end(&self, lanes: u32) -> u32 {
        u32::try_from(self.heads.end()).unwrap_or(u32::MAX).saturating_mul(lanes)
    }

    pub(super) fn head(&self, metric: MetricId, lanes: u32) -> Option<&Head> {
        self.heads.get((metric.0 / lanes) as usize)
    }

    /// The place of the group that a new metric belongs to; none if nobody named it.
    fn group_of(&mut self, metric: MetricId, names: &Names) -> Option<usize> {
        let (namespace, shard) = names.group_of(metric)?;
        self.group_at(namespace, shard, names)
    }

    /// The place of a group; none if there is no such namespace.
    fn group_at(&mut self, namespace: NamespaceId, shard: u32, names: &Names) -> Option<usize> {
        let is_it = |group: &Group| group.namespace == namespace && group.shard == shard;
        match self.groups.iter().position(is_it) {
            Some(place) => Some(place),
            None => Some(self.group_in(&names.namespace_by_id(namespace)?, shard)),
        }
    }

    /// The place of a group, which is made if this is the first that is heard of it.
    fn group_in(&mut self, namespace: &Namespace, shard: u32) -> usize {
        let is_it = |group: &Group| group.namespace == namespace.id() && group.shard == shard;
        self.groups.iter().position(is_it).unwrap_or_else(|| {
            let window = Window::new(namespace.options().block_ns);
            let (namespace, freezes, made) = (namespace.id(), Vec::new(), BTreeMap::new());
            self.groups.push(Group { namespace, shard, window, freezes, made });
            self.groups.len() - 1
        })
    }

    /// Notes that a block is frozen. What is in memory of it is not touched. Freezes that have a time in common with it end: they are left of seals
    /// that failed, and will not be gone on with, as a shard's volumes have no times in common.
    fn freeze(&mut self, namespace: NamespaceId, shard: u32, block: Cover, context: &Applying<'_>) {
        // A lane without metrics of the group notes it too: it must know of those that come later that they did.
        if let Some(namespace) = context.names.namespace_by_id(namespace)
            && !context.planted.has(Bug::NoFreeze)
        {
            let place = self.group_in(&namespace, shard);
            let group = &mut self.groups[place];
            group.freezes.retain(|freeze| !block.overlaps(freeze.block));
            group.freezes.push(Freeze { block, version: context.version });
        }
        if context.planted.has(Bug::InstallFreezesMap) {
            self.remember_maps(context);
        }
    }

    fn remember_maps(&mut self, context: &Applying<'_>) {
        let Applying { lane, lanes, .. } = *context;
        let map = |(place, head): (usize, &Head)| (MetricId(place as u32 * lanes + lane), head.map().clone());
        self.put_back = self.heads.iter().map(map).collect();
    }

    /// Undoes what an install did. Only for [`Bug::InstallInTreeOnly`].
    pub(crate) fn put_back(&mut self, lanes: u32) {
        for (metric, map) in std::mem::take(&mut self.put_back) {
            if let Some(head) = self.heads.get_mut((metric.0 / lanes) as usize) {
                head.put_back(map);
            }
        }
    }

    /// Puts a volume in the place of what was frozen, for the metrics of a slice.
    fn install(&mut self, install: &Install, context: &Applying<'_>, changed: &mut Vec<MetricId>) {
        let Install { volume, first, last, is_last } = install;
        let is_it = |group: &Group| group.namespace == volume.namespace && group.shard == volume.shard;
        let Some(group) = self.groups.iter().position(is_it) else { return };
        let Applying { lane, lanes, .. } = *context;
        if context.planted.has(Bug::InstallInTreeOnly) {
            self.remember_maps(context);
        }
        // Without its freeze, which a salvage may have lost, nobody knows what the volume has: then it goes below all that is there.
        let noted = |freeze: &Freeze| freeze.version == volume.freeze && freeze.block == volume.cover;
        let forgot_freeze =
            [Bug::NoFreeze, Bug::ThawAtFirstSlice].iter().any(|bug| context.planted.has(*bug));
        let frozen_until = match self.groups[group].freezes.iter().any(noted) || forgot_freeze {
            true => volume.freeze,
            false => Version(0),
        };
        let first_place = (first.0.saturating_sub(lane)).div_ceil(lanes) as usize;
        for (place, head) in self.heads.iter_mut_from(first_place) {
            let metric = MetricId(place as u32 * lanes + lane);
            if metric > *last {
                break;
            }
            let made = &self.groups[group].made;
            if head.group() == group as u32
                && (made.get(&metric).is_none_or(|made| *made <= volume.freeze)
                    || context.planted.has(Bug::InstallInMadeLater))
            {
                if context.planted.has(Bug::InstallFreezesMap)
                    && let Some(map) = self.put_back.remove(&metric)
                {
                    head.put_back(map);
                }
                head.install(volume, frozen_until, context);
                changed.push(metric);
            }
        }
        if *is_last || context.planted.has(Bug::ThawAtFirstSlice) {
            let Group { freezes, made, .. } = &mut self.groups[group];
            freezes.retain(|freeze| freeze.version > volume.freeze || !volume.cover.contains(freeze.block));
            if freezes.is_empty() {
                made.clear();
            }
        }
    }
}

impl Group {
    /// The times around `at`, within `cover`, in which a partition of this birth takes points and tombstones; none if it does not at `at`.
    pub(super) fn unfrozen(&self, mut cover: Cover, at: i64, born: Version) -> Option<Cover> {
        for Freeze { block, .. } in self.freezes.iter().filter(|freeze| born <= freeze.version) {
            match *block {
                block if block.has(at) => return None,
                block if block.first > at => cover.last = cover.last.min(block.first - 1),
                block => cover.first = cover.first.max(block.last + 1),
            }
        }
        Some(cover)
    }

    /// The block whose freeze a partition of this birth is under at `at`.
    pub(super) fn freeze_of(&self, at: i64, born: Version) -> Option<Cover> {
        let freeze = self.freezes.iter().find(|freeze| born <= freeze.version && freeze.block.has(at));
        freeze.map(|freeze| freeze.block)
    }

    /// Whether a freeze is pending somewhere in `cover`.
    pub(super) fn is_freezing(&self, cover: Cover) -> bool {
        self.freezes.iter().any(|freeze| freeze.block.overlaps(cover))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::mvcc::commit::Core;
    use crate::mvcc::sealing::SLICE_METRICS;
    use crate::names::NamespaceOptions;
    use crate::sealed::{BlockVolume, VolumeId};

    const METRICS: u32 = 1_000_000;
    const LANES: u32 = 8;
    const BLOCK: Cover = Cover { first: 0, last: 99 };

    /// How often heads were asked for, in all lanes.
    fn touched(core: &Core) -> u64 {
        core.lanes.iter().map(|lane| lane.heads.lock().heads.touched()).sum()
    }

    #[test]
    fn a_freeze_of_a_million_metrics_touches_no_head() {
        let options = NamespaceOptions { block_ns: 100, shards: 1 };
        let core = Core::new(Names::new(0, options), LANES, 0, Planted::default());
        let namespace = core.names.namespace_by_id(NamespaceId(0)).expect("there from the beginning");
        let mut staged = core.stage();
        for number in 0..METRICS {
            let metric = core.names.metric(&namespace, &number.to_be_bytes()).expect("valid");
            staged.create(&metric).expect("staged");
        }
        core.commit(staged, false, None).expect("commits");
        assert_eq!(core.load().metrics.len(), u64::from(METRICS));

        let before = touched(&core);
        assert!(before >= u64::from(METRICS), "the count counts");
        let frozen = core.freeze(namespace.id(), 0, BLOCK).expect("commits");
        assert_eq!(touched(&core), before, "heads touched by the freeze");
        assert_eq!(core.freezes().len(), LANES as usize, "each lane has noted it");

        // What goes over heads is counted: one slice of an install.
        let (id, namespace) = (VolumeId(0), namespace.id());
        let volume = BlockVolume {
            id,
            namespace,
            shard: 0,
            cover: BLOCK,
            width_ns: 100,
            number: 0,
            freeze: frozen,
            is_empty: false,
        };
        core.install(volume, SLICE_METRICS).expect("commits");
        assert!(touched(&core) >= before + u64::from(SLICE_METRICS));
        assert!(core.freezes().is_empty());
    }
}
