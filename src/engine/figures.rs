//! What the database tells about itself: figures, and whether it is well.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::health::{Health, Trouble};
use crate::maintenance::survey::Survey;
use crate::mvcc::lane::Freeze;
use crate::mvcc::partition::PartitionRef;
use crate::mvcc::partition_map::PartitionMap;
use crate::report::{MemoryBlock, SealedStats, Stats};
use crate::sealed::VolumeStore;
use crate::store::Store;
use crate::time::Timestamp;

use super::Engine;
use super::checkpoints::SeenCheckpoints;
use super::upkeep::Seen;

impl Engine {
    /// Figures of what is in memory, and of sealing. No I/O.
    pub(crate) fn stats(&self) -> Stats {
        let transaction = self.core.load();
        let (stopped, stop_cause) = self.core.stop_cause();
        let Seen { blocks, points, stream_bytes, failures, last_error, .. } = self.sealing_seen();
        let SeenCheckpoints { written, last, .. } = self.checkpoints_seen();
        let with_log = self.store_with_log();
        let store = self.core.volumes();
        let of_store = |count: fn(&VolumeStore) -> usize| store.map_or(0, |store| count(store) as u64);
        let blocks_of = transaction.volumes.iter().map(|volume| volume.block());
        let sealed: BTreeSet<_> = blocks_of.map(|block| (block.namespace, block.cover.first)).collect();
        let mut stats = Stats {
            version: transaction.version,
            metrics: transaction.metrics.len(),
            namespaces: transaction.namespaces.len() as u64,
            volumes: transaction.volumes.iter().count() as u64,
            sealed_blocks: sealed.len() as u64,
            open_volumes: of_store(VolumeStore::open_volumes),
            superseded_volumes: of_store(VolumeStore::superseded),
            volumes_written: blocks,
            points_written: points,
            stream_bytes_written: stream_bytes,
            upkeep_failures: failures,
            upkeep_error: last_error,
            lookups_by_name: transaction.volumes.iter().map(|volume| volume.lookups_by_name()).sum(),
            log_bytes: with_log.map_or(0, Store::log_bytes),
            log_bytes_behind: with_log.map_or(0, Store::log_bytes_behind),
            checkpoints: written,
            last_checkpoint: last,
            buffered_bytes: self.core.buffered_bytes(),
            memory_bytes: self.core.memory().bytes(),
            memory_max: self.settings().memory_max,
            memory_waits: self.memory_waits(),
            live_snapshots: self.live_snapshots() as u64,
            held_versions: self.core.held_versions(),
            oldest_held: self.core.oldest_held(),
            stopped,
            stop_cause,
            ..Stats::default()
        };
        let freezes = self.core.freezes();
        for (id, map) in transaction.metrics.iter() {
            if !freezes.is_empty()
                && let Some(of) = self.core.names.group_of(id)
            {
                let own = freezes.iter().filter(|(namespace, shard, _)| (*namespace, *shard) == of);
                stats.frozen_partitions += frozen(map, own.map(|(.., freeze)| freeze));
            }
            for partition in map.partitions() {
                let usage = partition.lock().usage();
                stats.partitions += 1;
                stats.points += usage.points;
                stats.stream_bytes += usage.stream_bytes;
                stats.side_entries += usage.side_entries;
                stats.tombstones += usage.tombstones;
                stats.marks += usage.marks;
                stats.marks_max = stats.marks_max.max(usage.marks);
            }
        }
        stats
    }

    /// Figures of the volumes.
    pub(crate) fn sealed_stats(&self) -> SealedStats {
        let mut stats = SealedStats::default();
        for volume in self.core.load().volumes.iter() {
            let counted = volume.contents().and_then(|contents| Ok((contents, volume.bytes()?)));
            match counted {
                Ok((contents, bytes)) => {
                    stats.volumes += 1;
                    stats.points += contents.points;
                    stats.streams += contents.metrics;
                    stats.stream_bytes += contents.stream_bytes;
                    stats.file_bytes += bytes;
                }
                Err(_) => stats.uncounted += 1,
            }
        }
        stats
    }

    /// What is in memory, by blocks.
    pub(crate) fn blocks_in_memory(&self) -> Vec<MemoryBlock> {
        let survey = Survey::new(&self.core, &self.core.load());
        let told = survey.blocks().map(|in_memory| MemoryBlock {
            namespace: in_memory.block.namespace.clone(),
            shard: in_memory.block.shard,
            first: Timestamp::from_nanos(in_memory.block.cover.first),
            last: Timestamp::from_nanos(in_memory.block.cover.last),
            is_sealed: in_memory.is_sealed,
            points: in_memory.points,
            bytes: in_memory.bytes,
        });
        told.collect()
    }

    /// Whether the database is well, which a snapshot that is held for `held_max` is not.
    pub(crate) fn health(&self, held_max: Duration) -> Health {
        let mut troubles = Vec::new();
        if let (true, cause) = self.core.stop_cause() {
            troubles.push(Trouble::LogStopped { cause });
        }
        let Seen { failures, last_error, .. } = self.sealing_seen();
        if let Some(last_error) = last_error {
            troubles.push(Trouble::UpkeepFailing { failures, last_error });
        }
        let SeenCheckpoints { error, .. } = self.checkpoints_seen();
        if let (Some(last_error), Some(store)) = (error, self.store_with_log()) {
            let log_bytes = store.log_bytes_behind();
            troubles.push(Trouble::CheckpointFailing { log_bytes, last_error });
        }
        let (bytes, max) = (self.core.memory().bytes(), self.settings().memory_max);
        if bytes > max {
            troubles.push(Trouble::MemoryFull { bytes, max });
        }
        let transaction = self.core.load();
        let lookups = transaction.volumes.iter().map(|volume| volume.lookups_by_name());
        let lookups: Vec<u64> = lookups.filter(|lookups| *lookups > 0).collect();
        if !lookups.is_empty() {
            let (volumes, lookups) = (lookups.len() as u64, lookups.iter().sum());
            troubles.push(Trouble::LookupsByName { volumes, lookups });
        }
        if let (Some(version), Some(held)) = (self.core.oldest_held(), self.oldest_snapshot_age())
            && held >= held_max
        {
            let behind = transaction.version.get().saturating_sub(version.get());
            troubles.push(Trouble::SnapshotHeld { version, behind, held });
        }
        Health::from(troubles)
    }
}

/// How many partitions of a map take no more in some block because of these freezes.
fn frozen<'f>(map: &PartitionMap, freezes: impl Iterator<Item = &'f Freeze> + Clone) -> u64 {
    // One may be in several layers; in as many steps as there are layers, which may be many thousand.
    let mut found = BTreeSet::new();
    for layer in map.layers() {
        for freeze in freezes.clone().filter(|freeze| freeze.block.overlaps(layer.cover)) {
            let frozen = layer.stack.iter().filter(|partition| partition.born() <= freeze.version);
            found.extend(frozen.map(PartitionRef::address));
        }
    }
    found.len() as u64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::database::Database;

    #[test]
    fn a_snapshot_that_is_held_for_long_is_told() {
        let db = Database::in_memory().expect("opens");
        let metric = db.metric("m").expect("a name");
        db.append(&metric, Timestamp::EPOCH, 1.0).expect("commits");
        let health = |held_max| db.engine().health(held_max);
        assert!(health(Duration::ZERO).is_ok(), "nobody holds one");
        let snapshot = db.snapshot();
        for second in 1..=3 {
            db.append(&metric, Timestamp::from_secs(second), 1.0).expect("commits");
        }
        let found = health(Duration::ZERO);
        let [Trouble::SnapshotHeld { version, behind: 3, .. }] = found.troubles() else { panic!("{found}") };
        assert_eq!(*version, snapshot.version());
        assert!(health(Duration::MAX).is_ok(), "not for that long");
        drop(snapshot);
        assert!(health(Duration::ZERO).is_ok());
    }
}
