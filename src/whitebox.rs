//! The commit protocol for model checks: the real core with a journal that is a model of a disk.
//!
//! Only under `cfg(loom)`. The checks and how to add one: `loom-tests/README.md`.

use std::collections::BTreeMap;
use std::sync::Arc as Plain;

use crate::error::{Error, Result};
use crate::m3tsz::{DecodeError, EncoderOptions, ValueCoding};
use crate::maintenance::seal::{Block, Content, Unfinished, Written, content, encode, seal_with};
use crate::mvcc::commit::{Commit, Core, Journal};
use crate::mvcc::partition_map::Cover;
use crate::mvcc::reads::Reads;
use crate::mvcc::staging::Staged;
use crate::mvcc::transaction::{Transaction, Version};
use crate::names::{DEFAULT_NAMESPACE, Metric, MetricId, Names, NamespaceOptions};
use crate::planted::{Bug, Planted};
use crate::query::{Block as Columns, Encoded, Opened, Sealed};
use crate::sealed::{BlockVolume, VolumeId};
use crate::sync::{Arc, Mutex};

const OPTIONS: NamespaceOptions = NamespaceOptions { block_ns: 1_000, shards: 1 };

/// A core with a few metrics, to be shared by the threads of a model.
#[derive(Debug)]
pub struct Model {
    core: Core,
    metrics: Vec<Metric>,
    disk: Plain<Disk>,
    volumes: Plain<Volumes>,
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
    /// Those from one time to another go, both included.
    Delete(u32, i64, i64),
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
        let volumes = Plain::<Volumes>::default();
        let default = core.names.namespace(DEFAULT_NAMESPACE, OPTIONS).expect("default");
        let name = |id| core.names.metric(&default, format!("m{id}").as_bytes()).expect("valid");
        let metrics: Vec<Metric> = (0..setup.metrics + setup.unmade).map(name).collect();
        metrics.iter().for_each(|metric| volumes.name(metric));
        let mut staged = core.stage();
        for metric in &metrics[..setup.metrics as usize] {
            staged.create(metric).expect("its own metric");
        }
        core.commit(staged, true, None).expect("the disk does not fail yet");
        {
            let mut state = disk.state.lock();
            state.failing_sync = setup.failing_sync.map(|sync| state.syncs + sync);
        }
        Model { core, metrics, disk, volumes }
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
        let mut reads = Reads::new(&snapshot.transaction, self.core.planted);
        for read in read {
            match *read {
                Read::Points(metric) => reads.points(&snapshot.transaction, &self.metrics[metric as usize]),
                Read::Existence(metric) => {
                    reads.existence(&snapshot.transaction, &self.metrics[metric as usize])
                }
                Read::Id(metric) => {
                    let metric = &self.metrics[metric as usize];
                    match snapshot.transaction.map(metric.id()) {
                        Some(_) => reads.existence(&snapshot.transaction, metric),
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
            changes => self.core.commit(self.stage(changes)?, sync, Some(reads)).map(Version::get),
        }
    }

    /// Commits a point of the metric that has this one's name now, which is another if this one was dropped; returns its number and the version.
    ///
    /// # Errors
    /// As a write transaction's commit.
    pub fn commit_by_name(&self, metric: u32, at: i64, value: f64) -> Result<(u32, u64)> {
        let old = &self.metrics[metric as usize];
        let metric = self.core.names.metric(old.namespace(), old.name())?;
        self.volumes.name(&metric);
        let mut staged = self.core.stage();
        staged.point(&metric, at, value)?;
        Ok((metric.id().0, self.core.commit(staged, false, None)?.get()))
    }

    /// Has the names of dropped metrics leave, as far as nobody sees the metrics any more.
    pub fn forget_names(&self) {
        self.core.forget_names();
    }

    /// Seals the block from `first` to `last`, by the steps that a database takes, into a volume of the model's own.
    ///
    /// # Errors
    /// As a database's.
    pub fn seal(&self, first: i64, last: i64) -> Result<()> {
        let namespace = self.metrics[0].namespace().clone();
        let block = Block { namespace, shard: 0, cover: Cover { first, last }, width_ns: last - first + 1 };
        let write = |volume: &BlockVolume, snapshot: &ModelSnapshot| self.write(volume, snapshot);
        seal_with(&self.core, &block, || self.snapshot(), write, &mut Unfinished::default()).map(drop)
    }

    /// As a database writes a volume.
    fn write(&self, volume: &BlockVolume, snapshot: &ModelSnapshot) -> Result<Written> {
        let mut streams = BTreeMap::new();
        for (id, name) in self.volumes.names() {
            let Some(map) = snapshot.transaction.map(id) else { continue };
            let stream = match content(map, volume.cover) {
                Content::Nothing => None,
                Content::Volume(old) => self.volumes.stream(old, id),
                Content::Mixed => {
                    let blocks = snapshot.blocks(id, volume.cover, Some(volume.freeze)).into_iter().flatten();
                    let mut stream = Vec::new();
                    let statistics = encode(&self.metrics[0], volume.cover, blocks, &mut stream)?;
                    (statistics.points() > 0).then(|| Stream(Plain::new(stream)))
                }
            };
            stream.and_then(|stream| streams.insert(name, stream));
        }
        let written = Written { metrics: streams.len() as u64, ..Written::default() };
        self.volumes.0.lock().expect("no panic").volumes.push((*volume, streams));
        Ok(written)
    }

    /// Of each volume, in the order in which they were written, the version that it was frozen at and a metric's points.
    pub fn volumes(&self, metric: u32) -> Vec<(u64, Vec<(i64, f64)>)> {
        let volumes: Vec<BlockVolume> = {
            let known = self.volumes.0.lock().expect("no panic");
            known.volumes.iter().map(|(volume, _)| *volume).collect()
        };
        let points = |volume: &BlockVolume| {
            let stream = self.volumes.stream(volume.id, MetricId(metric));
            let blocks = stream.into_iter().flat_map(|stream| Sealed::new(stream, Cover::ALL));
            (volume.freeze.get(), points(blocks.collect()))
        };
        volumes.iter().map(points).collect()
    }

    /// How many retired versions the last publication found to be held by somebody.
    pub fn held_versions(&self) -> u64 {
        self.core.held_versions()
    }

    /// The newest published state.
    pub fn snapshot(&self) -> ModelSnapshot {
        ModelSnapshot { transaction: self.core.load(), volumes: self.volumes.clone() }
    }

    /// How many marks the newest partition of a metric has.
    pub fn marks(&self, metric: u32) -> u64 {
        let transaction = self.core.load();
        let map = transaction.map(self.metrics[metric as usize].id()).expect("it exists");
        let newest = map.layers().last().and_then(|layer| layer.stack.last());
        newest.map_or(0, |partition| partition.lock().usage().marks)
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
                Change::Delete(id, first, last) => staged.delete(metric(id), Cover { first, last })?,
                Change::Drop(id) => staged.drop_metric(metric(id))?,
                Change::Meta(key, value) => staged.put_meta(&[key], &[value])?,
            }
        }
        Ok(staged)
    }
}

/// A published state.
#[derive(Clone, Debug)]
pub struct ModelSnapshot {
    transaction: Arc<Transaction>,
    volumes: Plain<Volumes>,
}

impl ModelSnapshot {
    /// The last commit in it; the creation of the metrics is version 1.
    pub fn version(&self) -> u64 {
        self.transaction.version.get()
    }

    /// The points of a metric; `None` if it does not exist.
    pub fn points(&self, metric: u32) -> Option<Vec<(i64, f64)>> {
        let blocks = self.blocks(MetricId(metric), Cover::ALL, None)?;
        Some(points(blocks))
    }

    /// A piece of metadata; 0 if there is none.
    pub fn meta(&self, key: u8) -> u8 {
        let value = self.transaction.meta.get(&[key][..]);
        value.and_then(|value| value.first().copied()).unwrap_or_default()
    }

    /// Something that lives exactly as long as this state.
    pub fn witness(&self) -> std::sync::Weak<()> {
        Plain::downgrade(&self.transaction.witness)
    }

    /// What a cursor returns: all pieces of the metric's map within `cover`, each read by the engine's code, without partitions born after
    /// `frozen`, if that is given.
    fn blocks(
        &self,
        metric: MetricId,
        cover: Cover,
        frozen: Option<Version>,
    ) -> Option<Vec<Result<Columns>>> {
        let map = self.transaction.map(metric)?;
        let mut blocks = Vec::new();
        let mut left = Some(cover);
        while let Some(cover) = left {
            let piece = map.piece(cover.first);
            let part = piece.cover.within(cover);
            let stream = |volume| Ok(self.volumes.stream(volume, metric));
            let Opened { stack, error } = Opened::new(&piece, part, self.transaction.version, frozen, stream);
            assert!(error.is_none(), "volumes of a model are readable");
            blocks.extend(stack.into_iter().flatten());
            left = (part.last < cover.last).then(|| Cover { first: part.last + 1, ..cover });
        }
        Some(blocks)
    }
}

fn points(blocks: Vec<Result<Columns>>) -> Vec<(i64, f64)> {
    let blocks = blocks.into_iter().map(|block| block.expect("streams decode"));
    let points =
        |block: Columns| block.timestamps().iter().copied().zip(block.values().iter().copied()).collect();
    blocks.flat_map(|block| -> Vec<(i64, f64)> { points(block) }).collect()
}

/// What a model has in the place of files. loom does not know of it: nobody reads a volume before the install that names it, or writes it
/// afterwards.
#[derive(Debug, Default)]
struct Volumes(std::sync::Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By name, as M3 has them: so a metric that was made anew finds the dropped one's stream if it looks for it.
    volumes: Vec<(BlockVolume, BTreeMap<Vec<u8>, Stream>)>,
    names: BTreeMap<u32, Vec<u8>>,
}

impl Volumes {
    fn name(&self, metric: &Metric) {
        self.0.lock().expect("no panic").names.insert(metric.id().0, metric.name().to_vec());
    }

    fn names(&self) -> Vec<(MetricId, Vec<u8>)> {
        let known = self.0.lock().expect("no panic");
        known.names.iter().map(|(id, name)| (MetricId(*id), name.clone())).collect()
    }

    fn stream(&self, volume: VolumeId, metric: MetricId) -> Option<Stream> {
        let known = self.0.lock().expect("no panic");
        let (_, streams) = known.volumes.iter().find(|(known, _)| known.id == volume)?;
        streams.get(known.names.get(&metric.0)?).cloned()
    }
}

/// A metric's stream in a volume.
#[derive(Clone, Debug)]
struct Stream(Plain<Vec<u8>>);

impl Encoded for Stream {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn coding(&self) -> ValueCoding {
        EncoderOptions::default().values
    }

    fn damaged(&self, damage: DecodeError) -> Error {
        damage.into()
    }
}
