//! Snapshots: one consistent cut of all metrics, for as long as somebody holds it.

use std::ops::{ControlFlow, RangeBounds};
use std::path::Path;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::mvcc::transaction::{Transaction, Version};
use crate::names::{Metric, Namespace, Tags};
use crate::query::{self, Blocks, Point, Range};
use crate::report::{BackupProgress, BackupReport};
use crate::sealed::{SealedVolume, VolumeId};
use crate::sync::Arc;
use crate::time::Timestamp;
use crate::volumes::SnapshotVolume;

/// The state after all commits up to a [version](Snapshot::version), whatever is committed later.
///
/// Taking one costs a pointer load, cloning one a reference. It may go to other threads and outlive the
/// [`Database`](crate::Database) handle; the directory stays locked until the last one is gone. While it lives, the memory of what it sees
/// stays.
#[derive(Clone)]
pub struct Snapshot(Arc<Inner>);

impl std::fmt::Debug for Snapshot {
    /// Which one it is, not what is in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut snapshot = f.debug_struct("Snapshot");
        snapshot.field("version", &self.version()).field("metrics", &self.metric_count());
        snapshot.finish_non_exhaustive()
    }
}

struct Inner {
    transaction: Arc<Transaction>,
    engine: Arc<Engine>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.engine.snapshot_dropped();
    }
}

impl Snapshot {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        engine.snapshot_made();
        let transaction = engine.core().load();
        Snapshot(Arc::new(Inner { transaction, engine }))
    }

    /// The last commit that it sees.
    pub fn version(&self) -> Version {
        self.0.transaction.version
    }

    /// The metric of this ID in the default namespace, if it exists here.
    pub fn metric(&self, id: impl AsRef<[u8]>) -> Option<Metric> {
        let default = self.0.transaction.namespaces.first()?;
        self.metric_in(default, id)
    }

    /// The metric with this name and these tags, in any order, in the default namespace, if it exists here.
    pub fn metric_with_tags<K, V>(&self, name: impl AsRef<[u8]>, tags: &[(K, V)]) -> Option<Metric>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let tags: Vec<(&[u8], &[u8])> = tags.iter().map(|(k, v)| (k.as_ref(), v.as_ref())).collect();
        let (id, _) = Tags::canonical(name.as_ref(), &tags).ok()?;
        self.metric(id)
    }

    /// The metric of this ID in a namespace, if it exists here.
    pub fn metric_in(&self, namespace: &Namespace, id: impl AsRef<[u8]>) -> Option<Metric> {
        self.0
            .engine
            .core()
            .names
            .lookup(namespace, id.as_ref(), |metric| self.0.transaction.map(metric).is_some())
    }

    /// The namespace of this name, if it exists here.
    pub fn namespace(&self, name: &str) -> Option<Namespace> {
        self.0.transaction.namespaces.iter().find(|namespace| namespace.name() == name).cloned()
    }

    /// All namespaces, in the order in which they were made.
    pub fn namespaces(&self) -> impl Iterator<Item = Namespace> {
        self.0.transaction.namespaces.iter().cloned()
    }

    /// Whether the metric exists here.
    pub fn contains(&self, metric: &Metric) -> bool {
        self.is_own(metric) && self.0.transaction.map(metric.id()).is_some()
    }

    /// All metrics of all namespaces, by [`MetricId`](crate::MetricId).
    pub fn metrics(&self) -> impl Iterator<Item = Metric> {
        let names = &self.0.engine.core().names;
        self.0.transaction.metrics.iter().filter_map(|(id, _)| names.metric_by_id(id))
    }

    /// How many metrics exist here.
    pub fn metric_count(&self) -> u64 {
        self.0.transaction.metrics.len()
    }

    /// The volumes that it reads: the blocks of time that were sealed, each once for each shard of a namespace, in the order in which they were
    /// written.
    pub fn volumes(&self) -> impl Iterator<Item = SnapshotVolume> {
        self.0.transaction.volumes.iter().filter_map(|volume| SnapshotVolume::new(self, volume))
    }

    /// The points of a metric within bounds, in time order; `.rev()` for the other way. A metric that does not exist here has no
    /// points, and bounds that contain no time give none.
    ///
    /// # Errors
    /// As items: [`Error::ForeignMetric`]; [`Error::Corrupt`] and [`Error::Io`] of a volume, once for each block of time that cannot be
    /// read, and what else there is follows; [`Error::Decode`].
    pub fn range(&self, metric: &Metric, bounds: impl RangeBounds<Timestamp>) -> Range {
        Range::new(self.blocks(metric, bounds))
    }

    /// As [`Snapshot::range`], but as columns of many points, which is faster.
    ///
    /// # Errors
    /// As [`Snapshot::range`].
    pub fn blocks(&self, metric: &Metric, bounds: impl RangeBounds<Timestamp>) -> Blocks {
        if !self.is_own(metric) {
            return Blocks::failed(self.clone(), Error::ForeignMetric(metric.to_string()));
        }
        match query::cover(&bounds) {
            Some(cover) => Blocks::new(self.clone(), metric, cover),
            None => Blocks::empty(self.clone()),
        }
    }

    /// The point of a metric with the latest time.
    ///
    /// # Errors
    /// As [`Snapshot::range`].
    pub fn latest(&self, metric: &Metric) -> Result<Option<Point>> {
        self.range(metric, ..).next_back().transpose()
    }

    /// The latest point of a metric that is not after `at`.
    ///
    /// # Errors
    /// As [`Snapshot::range`].
    pub fn at_or_before(&self, metric: &Metric, at: Timestamp) -> Result<Option<Point>> {
        self.range(metric, ..=at).next_back().transpose()
    }

    /// A piece of metadata.
    pub fn meta(&self, key: impl AsRef<[u8]>) -> Option<&[u8]> {
        self.0.transaction.meta.get(key.as_ref()).map(|value| &**value)
    }

    /// All metadata, by key.
    pub fn metas(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.transaction.meta.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Writes a backup: a database in another directory that equals this snapshot. It opens and goes on like any other, independently of this one.
    ///
    /// The directory must be empty or not there yet. The files of volumes get a second name there, which costs no space; on another file system, or where
    /// links are not to be had, they are copied. What is not in volumes is written anew. Commits, seals and checkpoints go on meanwhile. Of a database
    /// in memory too.
    ///
    /// A backup that shares files does not survive the disk they are on, nor damage to them: for that, back up to another disk.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a folder in the database's own; [`Error::NotEmpty`]; [`Error::Locked`] if somebody else makes a database there. [`Error::Corrupt`] if a file of a volume is missing: also in a database
    /// that is open for [reading only](crate::Options::read_only), if its writer has removed the volume meanwhile; open it again then. [`Error::Decode`].
    /// [`Error::DiskFull`], [`Error::Io`]. After an error there is no database in the directory, and it says that a backup was begun: remove it.
    ///
    /// Cost: nine calls for each volume, with one sync for each shard's folder; reads all in memory, and writes it.
    pub fn backup_to(&self, dir: impl AsRef<Path>) -> Result<BackupReport> {
        self.backup_with(dir, |_| ControlFlow::Continue(()))
    }

    /// As [`Snapshot::backup_to`]. `progress` is told before each volume, and once more when all are there; it may end the backup, which is none then.
    ///
    /// # Errors
    /// [`Error::BackupEnded`], and those of [`Snapshot::backup_to`].
    pub fn backup_with(
        &self,
        dir: impl AsRef<Path>,
        mut progress: impl FnMut(&BackupProgress) -> ControlFlow<()>,
    ) -> Result<BackupReport> {
        self.0.engine.back_up(&self.0.transaction, dir.as_ref(), &mut progress)
    }

    pub(crate) fn transaction(&self) -> &Transaction {
        &self.0.transaction
    }

    /// A volume that the map of a metric names.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the transaction does not have it: without it, points would be missing and nobody told.
    pub(crate) fn sealed_volume(&self, volume: VolumeId, metric: &Metric) -> Result<&Arc<SealedVolume>> {
        self.0.transaction.volumes.get(volume).ok_or_else(|| Error::Corrupt {
            format: "the folder of volumes",
            path: self.0.engine.core().volumes().map(|store| store.folder().to_owned()).unwrap_or_default(),
            offset: 0,
            metric: Some(metric.to_string().into()),
            reason: "a block of the metric is in a volume that the commit log does not name any more",
        })
    }

    fn is_own(&self, metric: &Metric) -> bool {
        metric.belongs_to(self.0.engine.core().names.database())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::database::Database;
    use crate::sync::count;
    use crate::time::Timestamp;

    #[test]
    fn the_last_reader_frees_what_only_it_could_see() {
        let db = Database::in_memory().expect("opens");
        let metric = db.metric("m").expect("valid");
        db.append(&metric, Timestamp::EPOCH, 1.0).expect("commits");
        let snapshot = db.snapshot();
        let map = snapshot.transaction().map(metric.id()).cloned().expect("it exists");
        let mut txn = db.begin_write();
        txn.drop_metric(&metric).expect("staged");
        txn.commit().expect("commits");
        assert!(count(&map) > 1, "a snapshot sees it");
        let last = snapshot.clone();
        drop(snapshot);
        assert!(count(&map) > 1, "its clone sees it");
        assert_eq!(db.stats().held_versions, 1);
        // Nobody publishes anything from here on: the reader's thread does all there is to do.
        let reader = std::thread::spawn(move || {
            drop(last);
            assert_eq!(count(&map), 1, "freed when its last reader went");
        });
        reader.join().expect("no panic");
        db.append(&db.metric("n").expect("valid"), Timestamp::EPOCH, 1.0).expect("commits");
        assert_eq!(db.stats().held_versions, 0, "the next publication knows of nobody");
    }
}
