//! The commit protocol for model checks: the real core with a journal that is a model of a disk.
//!
//! Only under `cfg(loom)`. The checks and how to add one: `loom-tests/README.md`.

use std::sync::Arc as Plain;

use crate::error::{Error, Result};
use crate::mvcc::commit::{Commit, Core, Journal};
use crate::mvcc::partition::PartitionRef;
use crate::mvcc::partition_map::Cover;
use crate::mvcc::reads::Reads;
use crate::mvcc::staging::Staged;
use crate::mvcc::transaction::{Transaction, Version};
use crate::names::{DEFAULT_NAMESPACE, Metric, Names, NamespaceOptions};
use crate::planted::{Bug, Planted};
use crate::query::Spans;
use crate::sync::{Arc, Mutex};

const OPTIONS: NamespaceOptions = NamespaceOptions { block_ns: 1_000, shards: 1 };

/// A core with a few metrics, to be shared by the threads of a model.
#[derive(Debug)]
pub struct Model {
    core: Core,
    metrics: Vec<Metric>,
    disk: Plain<Disk>,
}

/// What a model begins with.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// How many lanes there are.
    pub lanes: u32,
    /// How many metrics exist, with ids from 0 on.
    pub metrics: u32,
    /// How many more have a name and are yet to be made.
    pub unmade: u32,
    /// Whether there is a log.
    pub log: bool,
    /// Which sync fails, counted from 0 when the model begins.
    pub failing_sync: Option<u32>,
    /// The mistakes to make.
    pub bugs: &'a [Bug],
}

/// One change of a commit. Times are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// A point.
    Put(u32, i64, f64),
    /// All points of a metric go.
    Clear(u32),
    /// The metric goes.
    Drop(u32),
    /// A piece of metadata: key and value.
    Meta(u8, u8),
}

/// What a checked commit reads.
#[derive(Clone, Copy, Debug)]
pub enum Read {
    /// The points of a metric.
    Points(u32),
    /// Whether a metric exists, by its handle.
    Existence(u32),
    /// Whether a metric's ID stands for one.
    Id(u32),
    /// A piece of metadata.
    Meta(u8),
}

/// The journal's disk: what it was told to write, and how far that was synced.
#[derive(Debug)]
struct Disk {
    state: Mutex<DiskState>,
}

#[derive(Debug, Default)]
struct DiskState {
    written: u64,
    synced: u64,
    syncs: u32,
    failing_sync: Option<u32>,
    failed: bool,
}

impl Journal for Plain<Disk> {
    fn cost(&self, _: usize) -> u64 {
        0
    }

    fn extend(&self, wanted: u64) -> Result<u64> {
        Ok(wanted)
    }

    /// Two critical sections, as a write and a sync are two calls between which others run.
    fn write(&self, commits: &[(Version, Arc<Commit>)], sync: bool) -> Result<()> {
        let upto = {
            let mut disk = self.state.lock();
            assert!(!disk.failed, "nothing is written after a failure");
            for (version, _) in commits {
                assert_eq!(version.get(), disk.written + 1, "the log has no gap");
                disk.written = version.get();
            }
            disk.written
        };
        if sync {
            let mut disk = self.state.lock();
            let this = disk.syncs;
            disk.syncs += 1;
            if disk.failing_sync == Some(this) {
                disk.failed = true;
                return Err(Error::io("sync", "the model's disk", std::io::ErrorKind::Other.into()));
            }
            disk.synced = upto;
        }
        Ok(())
    }
}

impl Model {
    /// Makes the core and its metrics; the one thread there is does that.
    pub fn new(setup: Setup<'_>) -> Self {
        let planted = setup.bugs.iter().fold(Planted::default(), |planted, bug| planted.with(*bug));
        let disk = Plain::new(Disk { state: Mutex::new(DiskState::default()) });
        let mut core = Core::new(Names::new(0, OPTIONS), setup.lanes, usize::MAX, planted);
        if setup.log {
            core.set_journal(Box::new(disk.clone()), u64::MAX);
        }
        let default = core.names.namespace(DEFAULT_NAMESPACE, OPTIONS).expect("default");
        let name = |id| core.names.metric(&default, format!("m{id}").as_bytes()).expect("valid");
        let metrics: Vec<Metric> = (0..setup.metrics + setup.unmade).map(name).collect();
        let mut staged = core.stage();
        for metric in &metrics[..setup.metrics as usize] {
            staged.create(metric).expect("its own metric");
        }
        core.commit(staged, true, None).expect("the disk does not fail yet");
        {
            let mut state = disk.state.lock();
            state.failing_sync = setup.failing_sync.map(|sync| state.syncs + sync);
        }
        Model { core, metrics, disk }
    }

    /// Limits what one commit, and all in flight together, take in memory; a commit of one point takes 12 to 16 bytes.
    #[must_use]
    pub fn staged_bytes_max(mut self, bytes: usize) -> Self {
        self.core.set_staged_bytes_max(bytes);
        self
    }

    /// Commits changes; returns the version.
    ///
    /// # Errors
    /// As a write transaction's commit.
    pub fn commit(&self, changes: &[Change], sync: bool) -> Result<u64> {
        self.core.commit(self.stage(changes)?, sync, None).map(Version::get)
    }

    /// Begins at the newest state, reads something there, and commits what `change` makes of that, if it makes anything; returns the version.
    ///
    /// # Errors
    /// As a checked transaction's commit.
    pub fn commit_checked(
        &self,
        read: &[Read],
        change: impl FnOnce(&ModelSnapshot) -> Vec<Change>,
        sync: bool,
    ) -> Result<u64> {
        let snapshot = self.snapshot();
        let mut reads = Reads::new(&snapshot.0);
        for read in read {
            match *read {
                Read::Points(metric) => reads.points(&snapshot.0, &self.metrics[metric as usize]),
                Read::Existence(metric) => reads.existence(&snapshot.0, &self.metrics[metric as usize]),
                Read::Id(metric) => {
                    let metric = &self.metrics[metric as usize];
                    match snapshot.0.map(metric.id()) {
                        Some(_) => reads.existence(&snapshot.0, metric),
                        None => reads.absence(metric.namespace(), metric.name(), None),
                    }
                }
                Read::Meta(key) => reads.meta(&[key]),
            }
        }
        let changes = change(&snapshot);
        let version = snapshot.version();
        drop(snapshot);
        match changes.as_slice() {
            [] => Ok(version),
            changes => self.core.commit(self.stage(changes)?, sync, Some(&reads)).map(Version::get),
        }
    }

    /// How many retired versions the last publication found to be held by somebody.
    pub fn held_versions(&self) -> u64 {
        self.core.held_versions()
    }

    /// The newest published state.
    pub fn snapshot(&self) -> ModelSnapshot {
        ModelSnapshot(self.core.load())
    }

    /// How many marks the newest partition of a metric has.
    pub fn marks(&self, metric: u32) -> u64 {
        let transaction = self.core.load();
        let map = transaction.map(self.metrics[metric as usize].id()).expect("it exists");
        let active = map.slots().iter().rev().find_map(|slot| slot.active.as_ref());
        active.map_or(0, |partition: &PartitionRef| partition.lock().usage().marks)
    }

    /// How far the model's disk is synced.
    pub fn synced(&self) -> u64 {
        self.disk.state.lock().synced
    }

    fn stage(&self, changes: &[Change]) -> Result<Staged> {
        let mut staged = self.core.stage();
        for change in changes {
            let metric = |metric: u32| &self.metrics[metric as usize];
            match *change {
                Change::Put(id, at, value) => staged.point(metric(id), at, value)?,
                Change::Clear(id) => staged.delete(metric(id), Cover::ALL)?,
                Change::Drop(id) => staged.drop_metric(metric(id))?,
                Change::Meta(key, value) => staged.put_meta(&[key], &[value])?,
            }
        }
        Ok(staged)
    }
}

/// A published state.
#[derive(Clone, Debug)]
pub struct ModelSnapshot(Arc<Transaction>);

impl ModelSnapshot {
    /// The last commit in it; the creation of the metrics is version 1.
    pub fn version(&self) -> u64 {
        self.0.version.get()
    }

    /// The points of a metric; `None` if it does not exist.
    pub fn points(&self, metric: u32) -> Option<Vec<(i64, f64)>> {
        let map = self.0.map(crate::names::MetricId(metric))?;
        let partitions = map.slots().iter().filter_map(|slot| slot.active.as_ref());
        let blocks =
            partitions.filter_map(|partition| Spans::new(partition, self.0.version, Cover::ALL)).flatten();
        let mut points = Vec::new();
        for block in blocks {
            let block = block.expect("streams decode");
            points.extend(block.timestamps().iter().copied().zip(block.values().iter().copied()));
        }
        Some(points)
    }

    /// A piece of metadata; 0 if there is none.
    pub fn meta(&self, key: u8) -> u8 {
        let value = self.0.meta.get(&[key][..]);
        value.and_then(|value| value.first().copied()).unwrap_or_default()
    }

    /// Something that lives exactly as long as this state.
    pub fn witness(&self) -> std::sync::Weak<()> {
        Plain::downgrade(&self.0.witness)
    }
}
