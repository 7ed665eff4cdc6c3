//! Threads that read and write a database, and record what they saw.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chronolith::{
    Database, Durability, Error, Metric, Options, Point, Snapshot, Timestamp, WriteTransaction,
};

use crate::checker::history::{Element, History, Incarnation, Key, KeyId, Kind, Op, Outcome, Txn};
use crate::checker::recovery::{Content, Found};
use crate::random::Random;
// The standard library's, or where this is used with another scheduler, that one's.
use crate::thread;

/// Lists and registers, of as many metrics each. Few, so that threads meet.
pub const METRICS: u32 = 4;
pub const NAMES: u32 = 3;
/// Pieces of metadata.
pub const METAS: u32 = 2;
/// Points of a long column: as many as are encoded when they are staged.
const LONG_POINTS: u64 = if cfg!(shuttle) { 8 } else { 1_024 };
/// Of so many changes of lists one is a long column.
const LONG_EVERY: u64 = if cfg!(shuttle) { 6 } else { 24 };
/// Marks the element of a long column, which stands at [`LONG_POINTS`] times and counts as one: all are seen or none.
const LONG: Element = 1 << 40;
/// A window of time, which is also a block: each has its own partition.
const WINDOW: Duration = Duration::from_secs(60);

/// What threads do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub threads: u32,
    /// How many, over all threads.
    pub transactions: u64,
    /// How many begin in one window before the next is used.
    pub per_window: u64,
    pub windows: u32,
    /// Of 100 commits, how many are [`Durability::Sync`].
    pub synced: u64,
}

impl Plan {
    /// How such a database is opened.
    pub fn options(&self) -> Options {
        let lanes = [1, 2, 8][self.seed as usize % 3];
        Options::new()
            .workers(0)
            .lanes(lanes)
            .block_size(WINDOW)
            .log_segment_bytes_min(64 * 1024)
            .log_segment_bytes_max(1024 * 1024)
    }

    /// All keys, in the order of their numbers.
    pub fn keys(&self) -> Vec<Key> {
        let windows = |metric| (0..self.windows).map(move |window| (metric, window));
        let lists = (0..METRICS).flat_map(windows).map(|(metric, window)| Key::List { metric, window });
        let registers =
            (0..METRICS).flat_map(windows).map(|(metric, window)| Key::Register { metric, window });
        let others = (0..NAMES).map(Key::Name).chain((0..METAS).map(Key::Meta));
        lists.chain(registers).chain(others).collect()
    }

    fn id(&self, key: Key) -> KeyId {
        let registers = METRICS * self.windows;
        match key {
            Key::List { metric, window } => metric * self.windows + window,
            Key::Register { metric, window } => registers + metric * self.windows + window,
            Key::Name(name) => 2 * registers + name,
            Key::Meta(meta) => 2 * registers + NAMES + meta,
        }
    }
}

/// A database and what its threads share.
pub struct Store {
    pub db: Database,
    plan: Plan,
    lists: Vec<Metric>,
    registers: Vec<Metric>,
    clock: AtomicU64,
    /// The next element; elements are never used again, whatever becomes of the database.
    elements: AtomicU64,
    /// Transactions begun.
    begun: AtomicU64,
}

impl Store {
    /// Makes what is always there: the metrics of lists and registers.
    ///
    /// # Errors
    /// Those of a commit.
    pub fn new(db: Database, plan: Plan, first_element: Element) -> chronolith::Result<Store> {
        let store = Store::reopen(db, plan, first_element);
        let mut txn = store.db.begin_write();
        store.lists.iter().chain(&store.registers).try_for_each(|metric| txn.create_metric(metric))?;
        txn.commit()?;
        Ok(store)
    }

    /// The same where they are there already.
    pub fn reopen(db: Database, plan: Plan, first_element: Element) -> Store {
        let metric = |kind: &str, index| db.metric(format!("{kind}{index}")).expect("a valid name");
        let metrics = |kind| (0..METRICS).map(|index| metric(kind, index)).collect();
        let (lists, registers) = (metrics("list"), metrics("register"));
        let (clock, begun) = (AtomicU64::new(1), AtomicU64::new(0));
        Store { db, plan, lists, registers, clock, elements: AtomicU64::new(first_element), begun }
    }

    /// The first element that nobody has used.
    pub fn next_element(&self) -> Element {
        self.elements.load(Ordering::SeqCst)
    }

    /// All that is there now.
    pub fn found(&self) -> Found {
        let snapshot = self.db.snapshot();
        let content = |key| {
            let (incarnation, elements) = self.read(&snapshot, key);
            Content { incarnation, elements: elements.into_iter().collect() }
        };
        Found { version: snapshot.version().get(), keys: self.plan.keys().into_iter().map(content).collect() }
    }

    /// Runs the threads until all transactions are done or the log has stopped; what they did begins with `first`.
    pub fn run(&self, first: Txn) -> History {
        let mut history = History::default();
        for key in self.plan.keys() {
            history.key(key);
        }
        history.txns.push(first);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.plan.threads)
                .map(|process| scope.spawn(move || Process::new(self, process).run()))
                .collect();
            for thread in threads {
                history.txns.extend(thread.join().expect("a thread ends without panic"));
            }
        });
        history
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// What a snapshot has of a key.
    fn read(&self, snapshot: &Snapshot, key: Key) -> (Option<Incarnation>, Vec<Element>) {
        let points = |metric: &Metric, from: Timestamp, to: Timestamp| {
            let points: Result<Vec<Point>, Error> = snapshot.range(metric, from..=to).collect();
            elements_of(&points.expect("a read"))
        };
        match key {
            Key::List { metric, window } => {
                let (from, to) = bounds(window);
                (Some(0), points(&self.lists[metric as usize], from, to))
            }
            Key::Register { metric, window } => {
                let at = start(window);
                (Some(0), points(&self.registers[metric as usize], at, at))
            }
            Key::Name(name) => match snapshot.metric(name_of(name)) {
                Some(metric) => {
                    (Some(incarnation_of(&metric)), points(&metric, Timestamp::MIN, Timestamp::MAX))
                }
                None => (None, Vec::new()),
            },
            Key::Meta(meta) => (Some(0), snapshot.meta(meta_of(meta)).map(element_in).into_iter().collect()),
        }
    }
}

/// One thread.
struct Process<'a> {
    store: &'a Store,
    random: Random,
    done: Vec<Txn>,
    /// A snapshot that is read once more later.
    held: Option<(Snapshot, Vec<Key>, Txn)>,
}

impl<'a> Process<'a> {
    fn new(store: &'a Store, process: u32) -> Self {
        let random = Random::of(store.plan.seed, process, store.next_element(), 0);
        Process { store, random, done: Vec::new(), held: None }
    }

    fn run(mut self) -> Vec<Txn> {
        loop {
            let number = self.store.begun.fetch_add(1, Ordering::SeqCst);
            if number >= self.store.plan.transactions {
                break;
            }
            let newest =
                (number / self.store.plan.per_window).min(u64::from(self.store.plan.windows) - 1) as u32;
            self.step(newest);
            let stopped = self.done.last().is_some_and(|txn| txn.outcome == Outcome::Unknown);
            if stopped {
                break;
            }
            if self.held.is_some() && self.random.below(8) == 0 {
                self.read_again();
            }
        }
        self.read_again();
        self.done
    }

    /// One transaction of some kind.
    fn step(&mut self, newest: u32) {
        match self.random.below(20) {
            0..8 => self.snapshot(newest),
            8..14 => self.write(Kind::Blind, newest),
            14..16 => self.write(Kind::Unchecked, newest),
            _ => self.write(Kind::Checked, newest),
        }
    }

    fn snapshot(&mut self, newest: u32) {
        let began = self.store.tick();
        let snapshot = self.store.db.snapshot();
        let version = snapshot.version().get();
        let count = 1 + self.random.below(5);
        let mut keys: Vec<Key> = (0..count).map(|_| self.any_key(newest)).collect();
        keys.extend(
            (self.random.below(4) == 0).then(|| Key::Name(self.random.below(u64::from(NAMES)) as u32)),
        );
        let mut txn = Txn {
            kind: Kind::Snapshot,
            began,
            ended: 0,
            snapshot: Some(version),
            outcome: Outcome::Committed { version, durable: false },
            ops: Vec::new(),
        };
        self.read_all(&snapshot, &keys, &mut txn);
        if self.held.is_none() && self.random.below(16) == 0 {
            self.held = Some((snapshot, keys, txn));
        } else {
            self.finish(txn);
        }
    }

    /// Reads what the held snapshot was read for once more.
    fn read_again(&mut self) {
        if let Some((snapshot, keys, mut txn)) = self.held.take() {
            self.read_all(&snapshot, &keys, &mut txn);
            self.finish(txn);
        }
    }

    fn read_all(&self, snapshot: &Snapshot, keys: &[Key], txn: &mut Txn) {
        for key in keys {
            let (incarnation, elements) = self.store.read(snapshot, *key);
            txn.ops.push(Op::Read { key: self.store.plan.id(*key), incarnation, elements });
        }
    }

    fn finish(&mut self, mut txn: Txn) {
        txn.ended = self.store.tick();
        self.done.push(txn);
    }

    /// A transaction that writes, and reads if it is of a kind that may.
    fn write(&mut self, kind: Kind, newest: u32) {
        let began = self.store.tick();
        let mut txn = begin(&self.store.db, kind);
        let durable = self.random.below(100) < self.store.plan.synced;
        txn.set_durability(if durable { Durability::Sync } else { Durability::Buffered });
        let snapshot = txn.snapshot().version().get();
        let mut ops = Vec::new();
        let mut staged = Ok(());
        for _ in 0..1 + self.random.below(4) {
            let key = self.any_key(newest);
            if kind != Kind::Blind {
                let name = Key::Name(self.random.below(u64::from(NAMES)) as u32);
                let key = if self.random.below(8) == 0 { name } else { key };
                ops.push(self.read_staged(&txn, key));
            }
            if ops.is_empty() || self.random.below(4) > 0 {
                let key = if kind == Kind::Blind { key } else { self.any_key(newest) };
                staged = staged.and_then(|()| self.stage(&mut txn, key, &mut ops));
            }
        }
        let wrote = ops.iter().any(|op| !matches!(op, Op::Read { .. }));
        let is_rolled_back = self.random.below(16) == 0 || staged.is_err();
        let committed = if is_rolled_back { None } else { Some(txn.commit()) };
        let outcome = match committed {
            Some(Ok(version)) => Outcome::Committed { version: version.get(), durable: durable && wrote },
            Some(Err(Error::Stopped { .. })) => Outcome::Unknown,
            Some(Err(Error::Conflict { .. })) => Outcome::Conflict,
            Some(Err(
                Error::MetricDropped(_) | Error::Closed | Error::Io { .. } | Error::DiskFull { .. },
            ))
            | None => Outcome::Failed,
            Some(Err(other)) => panic!("a commit failed: {other}"),
        };
        let kind = if wrote { kind } else { Kind::Snapshot };
        self.finish(Txn { kind, began, ended: 0, snapshot: Some(snapshot), outcome, ops });
    }

    /// What the transaction itself sees of a key.
    fn read_staged(&self, txn: &WriteTransaction, key: Key) -> Op {
        let elements = |metric: &Metric, from: Timestamp, to: Timestamp| {
            let points: Result<Vec<Point>, Error> = txn.range(metric, from..=to).collect();
            elements_of(&points.expect("a read"))
        };
        let (incarnation, elements) = match key {
            Key::List { metric, window } => {
                let (from, to) = bounds(window);
                (Some(0), elements(&self.store.lists[metric as usize], from, to))
            }
            Key::Register { metric, window } => {
                let at = start(window);
                (Some(0), elements(&self.store.registers[metric as usize], at, at))
            }
            Key::Name(name) => match txn.metric(name_of(name)) {
                Some(metric) => {
                    (Some(incarnation_of(&metric)), elements(&metric, Timestamp::MIN, Timestamp::MAX))
                }
                None => (None, Vec::new()),
            },
            Key::Meta(meta) => {
                (Some(0), txn.meta(meta_of(meta)).map(|bytes| element_in(&bytes)).into_iter().collect())
            }
        };
        Op::Read { key: self.store.plan.id(key), incarnation, elements }
    }

    /// Stages a change of a key; sometimes of a name instead.
    fn stage(&mut self, txn: &mut WriteTransaction, key: Key, ops: &mut Vec<Op>) -> chronolith::Result<()> {
        let store = self.store;
        if self.random.below(8) == 0 {
            return self.stage_name(txn, ops);
        }
        let id = store.plan.id(key);
        match key {
            Key::List { metric, window } => {
                let metric = &store.lists[metric as usize];
                if self.random.below(32) == 0 {
                    let (from, to) = bounds(window);
                    txn.delete(metric, from..=to)?;
                    ops.push(Op::Clear { key: id });
                }
                if self.random.below(LONG_EVERY) == 0 {
                    // Two elements' times, for the points are a nanosecond apart.
                    let first = store.elements.fetch_add(2, Ordering::SeqCst);
                    let (element, start) = (LONG | first, start(window) + in_order(first));
                    let at: Vec<Timestamp> =
                        (0..LONG_POINTS).map(|point| start + Duration::from_nanos(point)).collect();
                    txn.append_columns(metric, &at, &vec![element as f64; at.len()])?;
                    ops.push(Op::Append { key: id, incarnation: 0, element });
                    return Ok(());
                }
                for _ in 0..1 + self.random.below(2) {
                    let element = self.element();
                    txn.append(metric, time_of(window, element), element as f64)?;
                    ops.push(Op::Append { key: id, incarnation: 0, element });
                }
            }
            Key::Register { metric, window } => {
                let metric = &store.registers[metric as usize];
                if self.random.below(16) == 0 {
                    txn.delete(metric, start(window)..=start(window))?;
                    ops.push(Op::Clear { key: id });
                }
                for _ in 0..1 + self.random.below(8) / 7 {
                    let element = self.element();
                    txn.append(metric, start(window), element as f64)?;
                    ops.push(Op::Set { key: id, element });
                }
            }
            Key::Meta(meta) => {
                if self.random.below(8) == 0 {
                    txn.remove_meta(meta_of(meta))?;
                    ops.push(Op::Clear { key: id });
                } else {
                    let element = self.element();
                    txn.put_meta(meta_of(meta), element.to_le_bytes())?;
                    ops.push(Op::Set { key: id, element });
                }
            }
            Key::Name(_) => unreachable!("names are chosen elsewhere"),
        }
        Ok(())
    }

    /// Makes a metric, writes to it, or drops it.
    fn stage_name(&mut self, txn: &mut WriteTransaction, ops: &mut Vec<Op>) -> chronolith::Result<()> {
        let name = self.random.below(u64::from(NAMES)) as u32;
        let metric = self.store.db.metric(name_of(name))?;
        let (key, incarnation) = (self.store.plan.id(Key::Name(name)), incarnation_of(&metric));
        match self.random.below(6) {
            0 => {
                txn.drop_metric(&metric)?;
                ops.push(Op::Drop { key, incarnation });
            }
            1 => {
                txn.create_metric(&metric)?;
                ops.push(Op::Create { key, incarnation });
            }
            _ => {
                let element = self.element();
                txn.append(&metric, time_of(0, element), element as f64)?;
                ops.push(Op::Append { key, incarnation, element });
            }
        }
        Ok(())
    }

    fn element(&self) -> Element {
        self.store.elements.fetch_add(1, Ordering::SeqCst)
    }

    /// A list or a register of the newest window, now and then of the one before, or metadata.
    fn any_key(&mut self, newest: u32) -> Key {
        let window = newest.saturating_sub(u32::from(self.random.below(8) == 0));
        let metric = self.random.below(u64::from(METRICS)) as u32;
        match self.random.below(9) {
            0..4 => Key::List { metric, window },
            4..8 => Key::Register { metric, window },
            _ => Key::Meta(metric % METAS),
        }
    }
}

/// Begins a transaction of a kind.
fn begin(db: &Database, kind: Kind) -> WriteTransaction {
    match kind {
        Kind::Blind | Kind::Unchecked => db.begin_write(),
        Kind::Checked => db.begin_checked(),
        Kind::Snapshot => unreachable!("not a write transaction"),
    }
}

fn name_of(name: u32) -> String {
    format!("name{name}")
}

fn meta_of(meta: u32) -> String {
    format!("meta{meta}")
}

fn element_in(meta: &[u8]) -> Element {
    Element::from_le_bytes(meta.try_into().expect("an element"))
}

/// Metrics are numbered from 0; an incarnation is never 0.
fn incarnation_of(metric: &Metric) -> Incarnation {
    metric.id().get() + 1
}

/// The value that stands for an element, which is far below 2^53, and back.
fn element_of(point: &Point) -> Element {
    let element = point.value as Element;
    assert_eq!((element as f64).to_bits(), point.value.to_bits(), "values come back bit by bit");
    element
}

/// What points are, those of a long column together. If some of them are missing, or are there twice, its element comes as often as they do.
fn elements_of(points: &[Point]) -> Vec<Element> {
    let mut elements: Vec<Element> = points.iter().map(element_of).collect();
    elements.sort_unstable();
    let columns = elements.chunk_by(|a, b| a == b).flat_map(|same| match same {
        [element, ..] if *element >= LONG && same.len() as u64 == LONG_POINTS => vec![*element],
        // One point alone would look whole.
        [element] if *element >= LONG => vec![*element; 2],
        same => same.to_vec(),
    });
    columns.collect()
}

fn start(window: u32) -> Timestamp {
    Timestamp::from_nanos(0) + WINDOW * window
}

fn bounds(window: u32) -> (Timestamp, Timestamp) {
    (start(window), start(window) + (WINDOW - Duration::from_nanos(1)))
}

/// A time of a window that no other element has: every second one later than those before, the others anywhere. The window's start
/// belongs to registers.
fn time_of(window: u32, element: Element) -> Timestamp {
    let scrambled = (element as u32).wrapping_mul(0x9e37_79b1);
    let offset = match element % 2 {
        0 => Duration::from_secs(1) + Duration::from_nanos(u64::from(scrambled)),
        _ => in_order(element),
    };
    start(window) + offset
}

/// A place in a window that is later than those of smaller elements.
fn in_order(element: Element) -> Duration {
    Duration::from_secs(10) + Duration::from_nanos(1000 * (element & 0x1ff_ffff))
}
