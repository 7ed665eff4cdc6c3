//! Sealing, as far as it is commits: freeze and install. What lies between, writing the volume, is `maintenance`'s. The protocol:
//! `design/sealing.md`.

use crate::error::Result;
use crate::names::{MetricId, NamespaceId};
use crate::planted::Bug;
use crate::sync::atomic::Ordering;

use super::commit::Core;
use super::lane::{Freeze, Lane};
use super::partition_map::Cover;
use super::record::Install;
use super::transaction::Version;
use crate::sealed::{BlockVolume, VolumeId};

/// How many metric ids a slice of an install goes over. A lane is held for its share of them.
pub(crate) const SLICE_METRICS: u32 = if cfg!(loom) { 1 } else { 16_384 };

impl Core {
    /// Freezes what is in memory of a block, and returns when that and all before it is published: from then on a snapshot has all
    /// that will ever be in the partitions born until then.
    ///
    /// # Errors
    /// As [`Core::commit`], none of them about metrics.
    pub(crate) fn freeze(&self, namespace: NamespaceId, shard: u32, block: Cover) -> Result<Version> {
        let mut staged = self.stage();
        staged.freeze(namespace, shard, block);
        let frozen = self.commit(staged, false, None);
        if frozen.is_err() && self.planted.has(Bug::IgnoreStoppedFreeze) {
            return Ok(self.log.lock().seq);
        }
        frozen
    }

    /// Puts a volume, which is complete and durable, in the place of what was frozen for it. Returns when that is published.
    ///
    /// # Errors
    /// As [`Core::commit`]. Slices before the one that failed stay; the rest may be installed by calling again.
    pub(crate) fn install(&self, volume: BlockVolume, metrics: u32) -> Result<Version> {
        let mut first = 0u32;
        loop {
            let last = first.saturating_add(self.install_slice_metrics - 1);
            let is_last = last >= metrics.saturating_sub(1);
            let mut staged = self.stage();
            staged.install(&Install { volume, first: MetricId(first), last: MetricId(last), is_last });
            let version = self.commit(staged, false, None)?;
            if is_last {
                self.bases.forget();
                return Ok(version);
            }
            first = last + 1;
        }
    }

    /// The freezes that are noted, each perhaps several times: blocks that are being sealed, or were to be. Takes each lane's lock for a moment.
    pub(crate) fn freezes(&self) -> Vec<(NamespaceId, u32, Freeze)> {
        let freezes = |lane: &Lane| lane.heads.lock().freezes().collect::<Vec<_>>();
        self.lanes.iter().flat_map(freezes).collect()
    }

    /// Metrics that were made since there is a freeze of their shard, and when.
    pub(crate) fn made_since_freezes(&self) -> Vec<(MetricId, Version)> {
        let made = |lane: &Lane| lane.heads.lock().made().collect::<Vec<_>>();
        self.lanes.iter().flat_map(made).collect()
    }

    /// The number that the next volume gets.
    pub(crate) fn next_volume_number(&self) -> u32 {
        self.next_volume.load(Ordering::Relaxed)
    }

    /// Gives out numbers above `highest` only. For opening.
    pub(crate) fn number_volumes_above(&self, highest: VolumeId) {
        self.next_volume.fetch_max(highest.0.saturating_add(1), Ordering::Relaxed);
    }

    /// A number for a volume that nobody else gets.
    pub(crate) fn next_volume(&self) -> VolumeId {
        VolumeId(self.next_volume.fetch_add(1, Ordering::Relaxed))
    }
}
