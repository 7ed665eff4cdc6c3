//! A database beside its model: each step is done on both, each read compared.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use chronolith::io::{MemoryDisk, SimulatedDisk, Vfs};
use chronolith::{
    Database, Durability, Error, Metric, Namespace, Options, Point, Result, Snapshot, Timestamp,
    WriteTransaction,
};

use crate::state::State;
use crate::steps::{End, Reads, Reopening, Step, Write};
use crate::{BLOCK_SECONDS, Bounds, Content, KEYS, METRICS};

const DIR: &str = "/db";
const ALL: Bounds = (Bound::Unbounded, Bound::Unbounded);

/// On what the database lies.
#[derive(Clone, Debug)]
pub enum Disk {
    None,
    Memory(MemoryDisk),
    Simulated(SimulatedDisk),
}

impl Disk {
    fn open(&self) -> Result<Database> {
        let options = Options::new()
            .block_size(Duration::from_secs(BLOCK_SECONDS as u64))
            .log_segment_bytes_min(16 * 1024)
            .log_segment_bytes_max(16 * 1024)
            .buffer_past(Duration::from_secs(1))
            .refresh_bytes(64)
            .open_volumes_max(2)
            .workers(0);
        let disk: Arc<dyn Vfs> = match self {
            Disk::None => return options.open_in_memory(),
            Disk::Memory(disk) => Arc::new(disk.clone()),
            Disk::Simulated(disk) => Arc::new(disk.clone()),
        };
        options.open_on(disk, DIR)
    }
}

/// The database beside its model.
pub struct History {
    disk: Disk,
    db: Option<Database>,
    /// By version; the last one is the current one.
    states: BTreeMap<u64, State>,
    /// Up to here nothing may be lost.
    durable: u64,
    snapshots: Vec<Snapshot>,
}

impl History {
    pub fn new(disk: Disk) -> History {
        let db = disk.open().expect("a new database opens");
        for metric in 0..METRICS {
            namespace(&db, metric);
        }
        let version = db.snapshot().version().get();
        let states = BTreeMap::from([(version, State::default())]);
        History { disk, db: Some(db), states, durable: version, snapshots: Vec::new() }
    }

    pub fn db(&self) -> &Database {
        self.db.as_ref().expect("only closed while it is reopened")
    }

    pub fn now(&self) -> &State {
        self.states.values().next_back().expect("there is one from the beginning")
    }

    pub fn run(&mut self, step: &Step) {
        match step {
            Step::Transaction(writes, reads, end) => self.transaction(writes, reads, *end),
            Step::Checked(looks, rival, writes) => self.checked(looks, rival, writes),
            Step::Autocommit(metric, at, value) => {
                let version = self.db().append(&handle(self.db(), *metric), *at, *value).expect("a commit");
                let mut state = self.now().clone();
                state.apply(&Write::Append(*metric, *at, *value));
                self.committed(version.get(), state, Durability::Sync);
            }
            Step::Snapshot => self.snapshots.push(self.db().snapshot()),
            Step::Release(index) => {
                if !self.snapshots.is_empty() {
                    self.snapshots.swap_remove(index % self.snapshots.len());
                }
            }
            Step::Read(reads) => {
                for snapshot in self.snapshots.iter().chain([&self.db().snapshot()]) {
                    self.compare(snapshot, reads);
                }
            }
            Step::Sync => {
                self.db().sync().expect("a sync");
                self.durable = *self.states.keys().next_back().expect("there is one");
            }
            Step::Seal(bounds) => {
                let report = self.db().seal(*bounds).expect("a seal");
                assert!(report.blocks == 0 || !matches!(self.disk, Disk::None), "in memory there is nowhere");
                self.kept();
            }
            Step::Refresh(bounds) => {
                self.db().refresh(*bounds).expect("a refresh");
                self.kept();
            }
            Step::Maintain(at) => {
                self.db().maintain(*at).expect("maintenance");
                self.kept();
            }
            Step::Checkpoint => {
                let report = self.db().checkpoint().expect("a checkpoint");
                if !matches!(self.disk, Disk::None) {
                    assert_eq!(report.version, self.db().snapshot().version());
                    assert_eq!(self.db().stats().log_bytes_behind, 0);
                }
                self.kept();
                self.durable = *self.states.keys().next_back().expect("there is one");
            }
            Step::Reopen(reopening) => self.reopen(*reopening),
        }
    }

    fn transaction(&mut self, writes: &[Write], reads: &Reads, end: End) {
        let db = self.db();
        let mut state = self.now().clone();
        let mut dropped = Vec::new();
        let mut txn = db.begin_write();
        for write in writes {
            if write.metrics().iter().any(|metric| dropped.contains(metric)) {
                // No points to write are no write.
                let empty = matches!(write, Write::Columns(_, points) if points.is_empty());
                if !empty && !matches!(write, Write::Drop(_) | Write::Delete(..)) {
                    let refused = stage(db, &mut txn, write);
                    assert!(matches!(refused, Err(Error::MetricDropped(_))), "{write:?}: {refused:?}");
                }
                continue;
            }
            stage(db, &mut txn, write).expect("a step that is allowed");
            // Whether it was there or not, the handle is of no use any more.
            if let Write::Drop(metric) = write {
                dropped.push(*metric);
            }
            state.apply(write);
        }
        let metric = handle(db, reads.metric);
        let own = txn.range(&metric, reads.bounds).map(|point| content(point.expect("its own points")));
        assert_eq!(
            own.collect::<Vec<_>>(),
            state.read(reads.metric, &reads.bounds),
            "own writes of {writes:?}"
        );
        let latest = txn.latest(&metric).expect("its own last point").map(content);
        assert_eq!(latest, state.read(reads.metric, &ALL).pop(), "own last point after {writes:?}");
        for key in 0..KEYS {
            assert_eq!(txn.meta(key_bytes(key)), state.metas.get(&key).cloned(), "own metadata {key}");
        }
        self.compare_with(txn.snapshot(), reads, self.now());
        match end {
            End::Rollback => txn.rollback(),
            End::Forget => drop(txn),
            End::Commit(durability) => {
                txn.set_durability(durability);
                let version = txn.commit().expect("a commit").get();
                self.committed(version, state, durability);
            }
        }
        // What was rolled back is nowhere; what was committed is there at once.
        let snapshot = self.db().snapshot();
        self.compare(&snapshot, reads);
        self.compare_all(&snapshot);
    }

    /// Something was done that nobody sees: there may be newer versions, and all of them read as before.
    fn kept(&mut self) {
        let snapshot = self.db().snapshot();
        let state = self.now().clone();
        self.states.insert(snapshot.version().get(), state);
        for snapshot in self.snapshots.iter().chain([&snapshot]) {
            self.compare_all(snapshot);
        }
    }

    pub fn committed(&mut self, version: u64, state: State, durability: Durability) {
        let last = *self.states.keys().next_back().expect("there is one");
        assert!(
            version > last || (version == last && state == *self.now()),
            "version {version} after {last}"
        );
        self.states.insert(version, state);
        // A transaction without writes has nothing to make durable.
        if durability == Durability::Sync && version > last {
            self.durable = version;
        }
    }

    fn reopen(&mut self, how: Reopening) {
        if matches!(self.disk, Disk::None) {
            return;
        }
        let last = *self.states.keys().next_back().expect("there is one");
        let db = self.db.take().expect("it is open");
        let live = self.snapshots.len();
        match how {
            Reopening::Close => {
                let other = db.clone();
                assert_eq!(db.close().expect("it closes").live_snapshots, live);
                assert!(matches!(
                    other.append(&handle(&other, 0), Timestamp::EPOCH, 0.0),
                    Err(Error::Closed)
                ));
                self.durable = last;
            }
            Reopening::Drop | Reopening::PowerCut(..) => drop(db),
        }
        if live > 0 {
            assert!(matches!(self.disk.open(), Err(Error::Locked { .. })), "snapshots keep the lock");
            for snapshot in std::mem::take(&mut self.snapshots) {
                self.compare_all(&snapshot);
            }
        }
        if let (Disk::Simulated(disk), Reopening::PowerCut(cut, seed)) = (&self.disk, how) {
            self.disk = Disk::Simulated(disk.after_power_cut(cut, seed));
        }
        let db = self.disk.open().expect("it opens again");
        let snapshot = db.snapshot();
        let version = snapshot.version().get();
        assert!((self.durable..=last).contains(&version), "{version}, but {} was durable", self.durable);
        // The numbers of lost commits are used again.
        self.states.retain(|state, _| *state <= version);
        self.durable = version;
        self.compare_all(&snapshot);
        self.db = Some(db);
    }

    /// All that is left at the end.
    pub fn compare_at_the_end(&self) {
        for snapshot in self.snapshots.iter().chain([&self.db().snapshot()]) {
            self.compare_all(snapshot);
        }
    }

    fn state_of(&self, snapshot: &Snapshot) -> &State {
        let version = snapshot.version().get();
        self.states.range(..=version).next_back().expect("there is one from the beginning").1
    }

    fn compare(&self, snapshot: &Snapshot, reads: &Reads) {
        self.compare_with(snapshot, reads, self.state_of(snapshot));
    }

    /// All ways to read a range of a metric.
    fn compare_with(&self, snapshot: &Snapshot, reads: &Reads, state: &State) {
        let Reads { metric: index, bounds, at, from_back } = reads;
        let Some(metric) = find(snapshot, *index) else {
            assert_eq!(state.metrics.get(index), None, "metric {index} is not there");
            if let Some(db) = &self.db {
                let interned = handle(db, *index);
                assert!(!snapshot.contains(&interned));
                assert_eq!(forward(snapshot, &interned, *bounds), Vec::new());
                assert_eq!(snapshot.latest(&interned).expect("a read"), None);
            }
            return;
        };
        assert!(snapshot.contains(&metric));
        assert!(state.metrics.contains_key(index), "metric {index} is there");
        let expected = state.read(*index, bounds);
        let context = format!("metric {index} in {bounds:?} at version {:?}", snapshot.version());
        assert_eq!(forward(snapshot, &metric, *bounds), expected, "{context}, forward");
        let backward = snapshot.range(&metric, *bounds).rev().map(|point| content(point.expect("a read")));
        assert_eq!(backward.collect::<Vec<_>>(), reversed(&expected), "{context}, backward");
        assert_eq!(from_both_ends(snapshot.range(&metric, *bounds), from_back), expected, "{context}, mixed");
        let blocks = snapshot.blocks(&metric, *bounds).flat_map(|block| columns(&block.expect("a read")));
        assert_eq!(blocks.collect::<Vec<_>>(), expected, "{context}, blocks");
        let blocks = snapshot.blocks(&metric, *bounds).rev();
        let blocks = blocks.flat_map(|block| reversed(&columns(&block.expect("a read"))));
        assert_eq!(blocks.collect::<Vec<_>>(), reversed(&expected), "{context}, blocks backward");
        let latest = snapshot.latest(&metric).expect("a read").map(content);
        assert_eq!(latest, state.read(*index, &ALL).pop(), "{context}, latest");
        let before = snapshot.at_or_before(&metric, *at).expect("a read").map(content);
        let upto = (Bound::Unbounded, Bound::Included(*at));
        assert_eq!(before, state.read(*index, &upto).pop(), "{context}, at or before {at}");
    }

    /// Everything in a snapshot.
    fn compare_all(&self, snapshot: &Snapshot) {
        let state = self.state_of(snapshot);
        let there: Vec<usize> = (0..METRICS).filter(|metric| find(snapshot, *metric).is_some()).collect();
        assert_eq!(there, state.metrics.keys().copied().collect::<Vec<_>>());
        assert_eq!(snapshot.metrics().count(), there.len());
        for index in there {
            let metric = find(snapshot, index).expect("just found");
            assert_eq!(forward(snapshot, &metric, ALL), state.read(index, &ALL), "metric {index}");
        }
        let metas: BTreeMap<Vec<u8>, Vec<u8>> =
            snapshot.metas().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        let expected: BTreeMap<Vec<u8>, Vec<u8>> =
            state.metas.iter().map(|(key, value)| (key_bytes(*key), value.clone())).collect();
        assert_eq!(metas, expected);
        for key in 0..KEYS {
            assert_eq!(snapshot.meta(key_bytes(key)), state.metas.get(&key).map(Vec::as_slice));
        }
    }
}

pub fn namespace(db: &Database, metric: usize) -> Namespace {
    match metric % 2 {
        0 => db.default_namespace(),
        _ => db.namespace("second").expect("a namespace"),
    }
}

/// The first of each namespace has the same name, the last two have tags.
pub fn name(metric: usize) -> String {
    format!("m{}", metric / 2)
}

pub fn handle(db: &Database, metric: usize) -> Metric {
    let tags: &[(&str, &str)] = if metric >= METRICS - 2 { &[("zone", "b"), ("host", "a")] } else { &[] };
    db.metric_with_tags_in(&namespace(db, metric), name(metric), tags).expect("a metric")
}

fn find(snapshot: &Snapshot, metric: usize) -> Option<Metric> {
    let tags = if metric >= METRICS - 2 { "{host=\"a\",zone=\"b\"}" } else { "" };
    let id = format!("{}{tags}", name(metric));
    match metric % 2 {
        0 => snapshot.metric(id),
        _ => snapshot.metric_in(&snapshot.namespace("second")?, id),
    }
}

pub fn key_bytes(key: usize) -> Vec<u8> {
    vec![key as u8; key + 1]
}

pub fn stage(db: &Database, txn: &mut WriteTransaction, write: &Write) -> Result<()> {
    match write {
        Write::Append(metric, at, value) => txn.append(&handle(db, *metric), *at, *value),
        Write::Annotated(metric, at, value, note) => {
            txn.append_annotated(&handle(db, *metric), *at, *value, note)
        }
        Write::Columns(metric, points) => {
            let (at, values): (Vec<Timestamp>, Vec<f64>) = points.iter().copied().unzip();
            txn.append_columns(&handle(db, *metric), &at, &values)
        }
        Write::Row(at, row) => {
            let row: Vec<(Metric, f64)> =
                row.iter().map(|(metric, value)| (handle(db, *metric), *value)).collect();
            txn.append_row(*at, &row)
        }
        Write::Delete(metric, bounds) => txn.delete(&handle(db, *metric), *bounds),
        Write::Drop(metric) => txn.drop_metric(&handle(db, *metric)),
        Write::Create(metric) => txn.create_metric(&handle(db, *metric)),
        Write::PutMeta(key, value) => txn.put_meta(key_bytes(*key), value),
        Write::RemoveMeta(key) => txn.remove_meta(key_bytes(*key)),
    }
}

pub fn content(point: Point) -> (Timestamp, Content) {
    (point.at, (point.value.to_bits(), point.annotation.map(Vec::from)))
}

fn forward(snapshot: &Snapshot, metric: &Metric, bounds: Bounds) -> Vec<(Timestamp, Content)> {
    snapshot.range(metric, bounds).map(|point| content(point.expect("a read"))).collect()
}

fn reversed<T: Clone>(items: &[T]) -> Vec<T> {
    items.iter().rev().cloned().collect()
}

fn columns(block: &chronolith::Block) -> Vec<(Timestamp, Content)> {
    assert!(block.len() > 0, "a block is never empty");
    assert_eq!((block.timestamps().len(), block.values().len()), (block.len(), block.len()));
    let points = block.timestamps().iter().zip(block.values());
    let mut points: Vec<(Timestamp, Content)> =
        points.map(|(at, value)| (Timestamp::from_nanos(*at), (value.to_bits(), None))).collect();
    assert!(block.annotations().is_sorted_by(|a, b| a.0 < b.0), "annotations ascend");
    for (index, note) in block.annotations() {
        points[*index as usize].1.1 = Some(note.to_vec());
    }
    points
}

/// Takes from the back when `from_back`, repeated for ever, says so. The points in their order.
fn from_both_ends<I>(mut points: I, from_back: &[bool]) -> Vec<(Timestamp, Content)>
where
    I: DoubleEndedIterator<Item = Result<Point>>,
{
    let (mut front, mut back) = (Vec::new(), Vec::new());
    for from_back in from_back.iter().cycle() {
        let point = if *from_back { points.next_back() } else { points.next() };
        match point {
            None => break,
            Some(point) if *from_back => back.push(content(point.expect("a read"))),
            Some(point) => front.push(content(point.expect("a read"))),
        }
    }
    assert!(points.next().is_none() && points.next_back().is_none(), "once ended, ended at both ends");
    back.reverse();
    front.append(&mut back);
    front
}
