//! The handle: opening, naming, writing, reading, closing. Here the parts meet: the core, the files, the clock, the worker.

use std::path::Path;
use std::sync::Arc as SharedDisk;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::io::Vfs;
use crate::maintenance::{Due, Timer, Worker};
use crate::mvcc::commit::Core;
use crate::mvcc::reads::Reads;
use crate::mvcc::staging::Staged;
use crate::mvcc::transaction::Version;
use crate::names::{DEFAULT_NAMESPACE, Metric, Names, Namespace, NamespaceOptions};
use crate::options::{Durability, Options};
use crate::report::{CloseReport, OpenReport, Stats};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::sync::{Arc, Mutex};
use crate::time::Timestamp;
use crate::write::WriteTransaction;

/// How long records of [`Durability::Buffered`] commits may wait before the operating system gets them.
const BUFFERED_WRITE_DELAY: Duration = Duration::from_secs(1);

/// A time-series database: the handle that a program opens on a directory.
///
/// Cheap to clone, and good for any number of threads. The last handle that goes makes everything durable, as
/// [`close`](Database::close) does, which also tells how that went.
///
/// ```
/// use chronolith::{Database, Timestamp};
///
/// # fn main() -> chronolith::Result<()> {
/// let db = Database::in_memory()?;
/// let cpu = db.metric("cpu{host=\"a\"}")?;
/// db.append(&cpu, Timestamp::from_secs(10), 0.5)?;
///
/// let before = db.snapshot();
/// let mut txn = db.begin_write();
/// txn.append(&cpu, Timestamp::from_secs(20), 0.75)?;
/// txn.put_meta("offset", "2")?;
/// txn.commit()?;
///
/// assert_eq!(before.range(&cpu, ..).count(), 1);
/// assert_eq!(db.snapshot().latest(&cpu)?.unwrap().value, 0.75);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Database(Arc<Handle>);

impl std::fmt::Debug for Database {
    /// Where it stands, not what is in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let transaction = self.engine().core.load();
        let mut database = f.debug_struct("Database");
        database.field("version", &transaction.version).field("metrics", &transaction.metrics.len());
        database.finish_non_exhaustive()
    }
}

/// What the clones of a handle share. The engine itself lives on in snapshots.
#[derive(Debug)]
struct Handle {
    engine: Arc<Engine>,
    worker: Option<Worker>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; `close` is there for those who want to.
        let _ = self.shut_down();
    }
}

impl Handle {
    fn shut_down(&self) -> Result<()> {
        self.engine.timer.stop();
        if let Some(worker) = &self.worker {
            worker.join();
        }
        self.engine.close()
    }
}

impl Database {
    /// Opens the database in a directory with default options, making it if there is none.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Database> {
        Options::new().open(path)
    }

    /// A database in memory, with default options. It writes no files and ends with its last handle and snapshot.
    ///
    /// # Errors
    /// None in practice: the operating system refuses a thread.
    pub fn in_memory() -> Result<Database> {
        Options::new().open_in_memory()
    }

    pub(crate) fn open_with(options: Options, disk: SharedDisk<dyn Vfs>, path: &Path) -> Result<Database> {
        let started = Instant::now();
        let stored = |stored: NamespaceOptions| Engine::new_core(&options, stored);
        let (store, core, mut report) = Store::open(&options, disk, path, stored)?;
        report.elapsed = started.elapsed();
        Database::start(options, core, Some(store), report)
    }

    pub(crate) fn open_memory_only(options: Options) -> Result<Database> {
        let core = Engine::new_core(&options, options.namespace_options());
        Database::start(options, core, None, OpenReport { created: true, ..OpenReport::default() })
    }

    fn start(options: Options, core: Core, store: Option<Store>, report: OpenReport) -> Result<Database> {
        let workers = options.workers;
        let engine = Arc::new(Engine {
            core,
            store,
            options,
            report,
            timer: Timer::default(),
            clock: Clock::new(),
            live_snapshots: AtomicUsize::new(0),
            closed: Mutex::new(false),
        });
        let working = engine.clone();
        let work = move || {
            while let Some(due) = working.timer.wait(|| working.now()) {
                // A failure stops the database: the next commit reports it, and `stats` shows it.
                let _ = working.run(due);
            }
        };
        // A model has the threads that it starts itself.
        let worker = (workers > 0 && !cfg!(loom)).then(|| Worker::start(work)).transpose()?;
        Ok(Database(Arc::new(Handle { engine, worker })))
    }

    /// What opening found and did.
    pub fn open_report(&self) -> &OpenReport {
        &self.engine().report
    }

    /// The namespace that every database has, and that metrics belong to if none is named. It is called `default`.
    pub fn default_namespace(&self) -> Namespace {
        let namespaces = &self.engine().core.load().namespaces;
        namespaces.first().cloned().expect("the first namespace is made with the database")
    }

    /// The namespace of this name, made with the options of the default one if there is none: then this is a commit of its own.
    ///
    /// # Errors
    /// [`Error::NamespaceNameLength`](crate::Error::NamespaceNameLength), and those of [`WriteTransaction::commit`].
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        let engine = self.engine();
        let namespace = engine.core.names.namespace(name, self.default_namespace().options())?;
        if engine.core.load().namespaces.contains(&namespace) {
            return Ok(namespace);
        }
        let mut txn = self.begin_write();
        txn.create_namespace(&namespace)?;
        txn.commit()?;
        Ok(namespace)
    }

    /// The metric that this ID stands for now, in the default namespace: `name{key="value",..}` with the tags in any order, or any
    /// 1 to 65,536 bytes. Naming commits nothing: a metric exists from the first commit that writes to it. The name is remembered
    /// for as long as the database is open; who only wants to read asks [`Snapshot::metric`], which remembers nothing.
    ///
    /// # Errors
    /// [`Error::MetricIdLength`](crate::Error::MetricIdLength).
    pub fn metric(&self, id: impl AsRef<[u8]>) -> Result<Metric> {
        self.metric_in(&self.default_namespace(), id)
    }

    /// As [`Database::metric`], in a namespace.
    ///
    /// # Errors
    /// [`Error::ForeignNamespace`](crate::Error::ForeignNamespace), and those of [`Database::metric`].
    pub fn metric_in(&self, namespace: &Namespace, id: impl AsRef<[u8]>) -> Result<Metric> {
        self.engine().core.names.metric(namespace, id.as_ref())
    }

    /// The metric with this name and these tags, in any order, in the default namespace.
    ///
    /// # Errors
    /// [`Error::InvalidTags`](crate::Error::InvalidTags), and those of [`Database::metric`].
    pub fn metric_with_tags<K, V>(&self, name: impl AsRef<[u8]>, tags: &[(K, V)]) -> Result<Metric>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        self.metric_with_tags_in(&self.default_namespace(), name, tags)
    }

    /// As [`Database::metric_with_tags`], in a namespace.
    ///
    /// # Errors
    /// [`Error::ForeignNamespace`](crate::Error::ForeignNamespace), and those of [`Database::metric_with_tags`].
    pub fn metric_with_tags_in<K, V>(
        &self,
        namespace: &Namespace,
        name: impl AsRef<[u8]>,
        tags: &[(K, V)],
    ) -> Result<Metric>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let tags: Vec<(&[u8], &[u8])> = tags.iter().map(|(k, v)| (k.as_ref(), v.as_ref())).collect();
        self.engine().core.names.metric_with_tags(namespace, name.as_ref(), &tags)
    }

    /// A metric whose ID keeps its bytes, whatever its tags are: for IDs that another system made. It is found by these bytes, also with
    /// [`Database::metric`].
    ///
    /// # Errors
    /// [`Error::TagsDiffer`](crate::Error::TagsDiffer) if the ID is known with other tags, and those of [`Database::metric_with_tags`].
    pub fn metric_with_id<K, V>(
        &self,
        namespace: &Namespace,
        id: impl AsRef<[u8]>,
        tags: &[(K, V)],
    ) -> Result<Metric>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let tags: Vec<(&[u8], &[u8])> = tags.iter().map(|(k, v)| (k.as_ref(), v.as_ref())).collect();
        self.engine().core.names.metric_with_id(namespace, id.as_ref(), &tags)
    }

    /// Commits one point.
    ///
    /// # Errors
    /// Those of [`WriteTransaction::append`] and [`WriteTransaction::commit`].
    pub fn append(&self, metric: &Metric, at: Timestamp, value: f64) -> Result<Version> {
        let engine = self.engine();
        let mut staged = engine.core.stage();
        staged.point(metric, at.as_nanos(), value)?;
        engine.commit(staged, engine.options.durability, None)
    }

    /// Begins a write transaction. Any number may be open at a time, on any threads.
    pub fn begin_write(&self) -> WriteTransaction {
        WriteTransaction::new(self.0.engine.clone(), self.engine().options.durability)
    }

    /// Begins a checked write transaction: it commits only if nothing that it read has been changed meanwhile, and otherwise returns
    /// [`Error::Conflict`](crate::Error::Conflict). So what it writes may depend on what it reads, as if it were alone. Nobody is kept waiting by an open one.
    ///
    /// What counts as read is what goes through the transaction's own reading methods: points of a metric
    /// ([`range`](WriteTransaction::range), [`latest`](WriteTransaction::latest), [`at_or_before`](WriteTransaction::at_or_before)),
    /// whether it exists ([`contains`](WriteTransaction::contains), [`metric`](WriteTransaction::metric)) and metadata
    /// ([`meta`](WriteTransaction::meta)). Points are compared by metric: any write to a metric whose points were read conflicts, whatever times it
    /// has. That something is *not* there counts too. What is read through [`WriteTransaction::snapshot`], such as lists of metrics, is not
    /// compared.
    ///
    /// ```
    /// use chronolith::{Database, Error, Timestamp};
    ///
    /// # fn main() -> chronolith::Result<()> {
    /// let db = Database::in_memory()?;
    /// let level = db.metric("tank{id=\"7\"}")?;
    /// db.append(&level, Timestamp::from_secs(1), 20.0)?;
    ///
    /// let mut txn = db.begin_checked();
    /// let before = txn.latest(&level)?.map_or(0.0, |point| point.value);
    /// txn.append(&level, Timestamp::from_secs(3), before + 5.0)?;
    ///
    /// db.append(&level, Timestamp::from_secs(2), 40.0)?; // somebody else is faster
    /// assert!(matches!(txn.commit(), Err(Error::Conflict { .. })));
    /// # Ok(()) }
    /// ```
    ///
    /// [`Database::transact`] begins again by itself.
    pub fn begin_checked(&self) -> WriteTransaction {
        WriteTransaction::checked(self.0.engine.clone(), self.engine().options.durability)
    }

    /// The state after all commits that are visible now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.0.engine.clone())
    }

    /// Makes all commits so far durable, whatever they asked for. After [`Database::close`], and without a log, there is nothing to do.
    ///
    /// # Errors
    /// [`Error::Stopped`](crate::Error::Stopped).
    pub fn sync(&self) -> Result<()> {
        self.engine().core.flush(true)
    }

    /// Does the background work that is due at `now`: for databases opened with [`Options::workers`]`(0)`. Call it at least as often
    /// as [`Durability::Interval`] asks.
    ///
    /// # Errors
    /// [`Error::Stopped`](crate::Error::Stopped).
    pub fn maintain(&self, now: Timestamp) -> Result<()> {
        let due = self.engine().timer.take(now);
        self.engine().run(due)
    }

    /// Figures about the database. Looks at every partition.
    pub fn stats(&self) -> Stats {
        self.engine().stats()
    }

    /// Makes all commits durable, whatever they asked for, and closes the database. Other handles then get
    /// [`Error::Closed`](crate::Error::Closed) for commits; snapshots stay readable and keep the directory locked.
    ///
    /// # Errors
    /// [`Error::Stopped`](crate::Error::Stopped) or [`Error::Io`](crate::Error::Io): the last commits may not be durable.
    pub fn close(self) -> Result<CloseReport> {
        self.0.shut_down()?;
        let live_snapshots = self.engine().live_snapshots.load(Ordering::Relaxed);
        Ok(CloseReport { live_snapshots })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }
}

/// The database itself, as handles, transactions, snapshots and the worker share it.
#[derive(Debug)]
pub(crate) struct Engine {
    core: Core,
    /// Dropped after the core: the directory's lock is in it.
    store: Option<Store>,
    options: Options,
    report: OpenReport,
    timer: Timer,
    clock: Clock,
    live_snapshots: AtomicUsize,
    closed: Mutex<bool>,
}

impl Engine {
    fn new_core(options: &Options, default_namespace: NamespaceOptions) -> Core {
        /// Tells the handles of one database from those of another in the same process.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let names = Names::new(NEXT.fetch_add(1, Ordering::Relaxed), default_namespace);
        let mut core = Core::new(names, options.lanes as u32, options.log_buffer_bytes, options.planted);
        core.set_staged_bytes_max(options.staged_bytes_max);
        core
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Counts a snapshot. Nobody decides anything on the number.
    pub(crate) fn snapshot_made(&self) {
        self.live_snapshots.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot_dropped(&self) {
        self.live_snapshots.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn commit(
        &self,
        staged: Staged,
        durability: Durability,
        reads: Option<&Reads>,
    ) -> Result<Version> {
        let version = self.core.commit(staged, durability == Durability::Sync, reads)?;
        match durability {
            Durability::Sync => {}
            Durability::Interval(delay) => {
                self.timer.ask(Due { sync: Some(self.now() + delay), write: None });
            }
            Durability::Buffered if self.timer.expects_write() => {}
            Durability::Buffered => {
                self.timer.ask(Due { sync: None, write: Some(self.now() + BUFFERED_WRITE_DELAY) });
            }
        }
        Ok(version)
    }

    /// Does what is due.
    fn run(&self, due: Due) -> Result<()> {
        match due {
            Due { sync: Some(_), .. } => self.core.flush(true),
            Due { write: Some(_), .. } => self.core.flush(false),
            Due { write: None, sync: None } => Ok(()),
        }
    }

    /// Refuses commits from now on, and makes all there were durable. Once: later calls do nothing.
    fn close(&self) -> Result<()> {
        let mut closed = self.closed.lock();
        if *closed {
            return Ok(());
        }
        self.core.close();
        self.core.flush(true)?;
        if let Some(store) = &self.store {
            store.close()?;
        }
        *closed = true;
        Ok(())
    }

    fn stats(&self) -> Stats {
        let transaction = self.core.load();
        let (stopped, stop_cause) = self.core.stop_cause();
        let mut stats = Stats {
            version: transaction.version,
            metrics: transaction.metrics.len(),
            namespaces: transaction.namespaces.len() as u64,
            log_bytes: self.report.log_bytes + self.store.as_ref().map_or(0, Store::log_bytes),
            buffered_bytes: self.core.buffered_bytes(),
            live_snapshots: self.live_snapshots.load(Ordering::Relaxed) as u64,
            held_versions: self.core.held_versions(),
            stopped,
            stop_cause,
            ..Stats::default()
        };
        for (_, map) in transaction.metrics.iter() {
            for partition in map.slots().iter().filter_map(|slot| slot.active.as_ref()) {
                let usage = partition.lock().usage();
                stats.partitions += 1;
                stats.points += usage.lengths.points + usage.lengths.side;
                stats.stream_bytes += usage.stream_bytes;
                stats.side_entries += usage.lengths.side;
                stats.tombstones += usage.tombstones;
                stats.marks += usage.marks;
                stats.marks_max = stats.marks_max.max(usage.marks);
            }
        }
        stats
    }
}

impl Options {
    /// What the default namespace of a new database gets.
    pub(crate) fn namespace_options(&self) -> NamespaceOptions {
        // `Options::check` keeps it far below 292 years.
        let block_ns = i64::try_from(self.block_size.as_nanos()).unwrap_or(i64::MAX);
        NamespaceOptions { block_ns, shards: self.shards }
    }
}

/// The time of the system's clock when the database was opened, and from there on monotonic.
#[derive(Debug)]
struct Clock {
    opened_at: Timestamp,
    opened: Instant,
}

impl Clock {
    fn new() -> Self {
        Clock { opened_at: Timestamp::now(), opened: Instant::now() }
    }

    fn now(&self) -> Timestamp {
        self.opened_at + self.opened.elapsed()
    }
}

const _: () = {
    const fn is_shared<T: Clone + Send + Sync + 'static>() {}
    const fn is_sent<T: Send + 'static>() {}
    is_shared::<Database>();
    is_shared::<Snapshot>();
    is_shared::<Metric>();
    is_shared::<Namespace>();
    is_sent::<crate::Error>();
    is_sent::<WriteTransaction>();
    is_sent::<crate::query::Range>();
    is_sent::<crate::query::Blocks>();
    // The one name that is not made by a commit.
    assert!(!DEFAULT_NAMESPACE.is_empty());
};
