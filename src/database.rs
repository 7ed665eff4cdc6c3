//! The handle: opening, naming, writing, reading, sealing, closing.

use std::ops::{ControlFlow, RangeBounds};
use std::path::Path;
use std::sync::Arc as SharedDisk;
use std::time::Instant;

use crate::engine::Engine;
use crate::error::Result;
use crate::health::{HELD_MAX, Health};
use crate::io::Vfs;
use crate::maintenance::Worker;
use crate::mvcc::commit::Core;
use crate::mvcc::transaction::Version;
use crate::names::{DEFAULT_NAMESPACE, Metric, Namespace, NamespaceOptions};
use crate::options::Options;
use crate::read_only;
use crate::report::{CheckpointReport, CloseReport, MemoryBlock, OpenReport, SealReport, SealedStats, Stats};
use crate::scope::{SealProgress, SealScope};
use crate::settings::{Settings, SettingsFile};
use crate::snapshot::Snapshot;
use crate::store::{Opened, Postponed, Store};
use crate::sync::Arc;
use crate::time::Timestamp;
use crate::write::WriteTransaction;

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
        let transaction = self.engine().core().load();
        let mut database = f.debug_struct("Database");
        database.field("version", &transaction.version).field("metrics", &transaction.metrics.len());
        database.finish_non_exhaustive()
    }
}

/// What the clones of a handle share. The engine itself lives on in snapshots.
#[derive(Debug)]
struct Handle {
    engine: Arc<Engine>,
    /// Its threads; none in manual mode.
    background: Vec<Worker>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; `close` is there for those who want to.
        let _ = self.shut_down();
    }
}

impl Handle {
    fn shut_down(&self) -> Result<()> {
        self.engine.stop_background();
        self.background.iter().for_each(Worker::join);
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

    /// Opens the last checkpoint of the database in a directory for reading only, with default options, also while another process writes to it: see
    /// [`Options::read_only`].
    ///
    /// # Errors
    /// As [`Options::read_only`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Database> {
        Options::new().read_only(true).open(path)
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
        if options.read_only {
            return Database::open_reading(options, &disk, path, started);
        }
        let stored = |stored: NamespaceOptions| Engine::new_core(&options, stored);
        let mut opened = Store::open(&options, disk, path, stored)?;
        opened.report.elapsed = started.elapsed();
        Database::go_on(options, opened)
    }

    // These are apart, as model checks have little stack, and opening takes much of it.
    #[inline(never)]
    fn go_on(options: Options, opened: Box<Opened>) -> Result<Database> {
        let Opened { store, core, report, postponed, kept } = *opened;
        Database::start(options.over(kept), core, Some(store), report, postponed)
    }

    #[inline(never)]
    fn open_reading(
        options: Options,
        disk: &SharedDisk<dyn Vfs>,
        path: &Path,
        started: Instant,
    ) -> Result<Database> {
        let stored = |stored: NamespaceOptions| Engine::new_core(&options, stored);
        let (origin, core, mut report) = read_only::open(disk, path, &options, stored)?;
        let kept = SettingsFile::new(disk, path, origin.database_id).read()?;
        report.elapsed = started.elapsed();
        let engine = Arc::new(Engine::reading(options, kept, core, origin, report));
        Ok(Database(Arc::new(Handle { engine, background: Vec::new() })))
    }

    pub(crate) fn open_memory_only(options: Options) -> Result<Database> {
        let core = Engine::new_core(&options, options.namespace_options());
        Database::start(options, core, None, OpenReport { created: true, ..OpenReport::default() }, None)
    }

    #[inline(never)]
    fn start(
        options: Options,
        core: Core,
        store: Option<Store>,
        report: OpenReport,
        postponed: Option<Postponed>,
    ) -> Result<Database> {
        let workers = options.workers;
        let engine = Arc::new(Engine::new(options, core, store, report));
        engine.begin_upkeep(postponed);
        let mut background = Vec::new();
        // A model has the threads that it starts itself.
        if workers > 0 && !cfg!(loom) {
            let log = engine.clone();
            background.push(Worker::start("chronolith-log", move || log.write_log())?);
            if engine.core().volumes().is_some() {
                let upkeep = engine.clone();
                let started = Worker::start("chronolith-seal", move || Engine::keep_up(&upkeep));
                background.push(started.inspect_err(|_| engine.stop_background())?);
            }
        }
        Ok(Database(Arc::new(Handle { engine, background })))
    }

    /// The settings as they are now: all are set.
    pub fn settings(&self) -> Settings {
        self.engine().settings().into()
    }

    /// Changes settings while the database is open; those that are not set stay as they are. They hold from the next commit and the next look of the background on, and the database keeps
    /// them: a later opening has them, unless it gives others by its [`Options`]. Atomic: after a crash all of the change is there, or nothing.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption), [`Error::Closed`](crate::Error::Closed), [`Error::ReadOnly`](crate::Error::ReadOnly).
    /// [`Error::Io`](crate::Error::Io): they stay as they were; whether the next opening has the old ones or the new ones is not known.
    pub fn change_settings(&self, change: Settings) -> Result<()> {
        self.engine().change_settings(change)
    }

    /// What opening found and did.
    pub fn open_report(&self) -> &OpenReport {
        self.engine().report()
    }

    /// The namespace that every database has, and that metrics belong to if none is named. It is called `default`.
    pub fn default_namespace(&self) -> Namespace {
        let namespaces = &self.engine().core().load().namespaces;
        namespaces.first().cloned().expect("the first namespace is made with the database")
    }

    /// The namespace of this name, made with the options of the default one if there is none: then this is a commit of its own.
    ///
    /// # Errors
    /// [`Error::NamespaceNameLength`](crate::Error::NamespaceNameLength), and those of [`WriteTransaction::commit`].
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        let engine = self.engine();
        let namespace = engine.core().names.namespace(name, self.default_namespace().options())?;
        if engine.core().load().namespaces.contains(&namespace) {
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
        self.engine().core().names.metric(namespace, id.as_ref())
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
        self.engine().core().names.metric_with_tags(namespace, name.as_ref(), &tags)
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
        self.engine().core().names.metric_with_id(namespace, id.as_ref(), &tags)
    }

    /// Commits one point.
    ///
    /// # Errors
    /// Those of [`WriteTransaction::append`] and [`WriteTransaction::commit`].
    pub fn append(&self, metric: &Metric, at: Timestamp, value: f64) -> Result<Version> {
        let engine = self.engine();
        let mut staged = engine.core().stage();
        staged.point(metric, at.as_nanos(), value)?;
        engine.commit(staged, engine.settings().durability, None)
    }

    /// Begins a write transaction. Any number may be open at a time, on any threads.
    pub fn begin_write(&self) -> WriteTransaction {
        WriteTransaction::new(self.0.engine.clone(), self.engine().settings().durability)
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
        WriteTransaction::checked(self.0.engine.clone(), self.engine().settings().durability)
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
        self.engine().core().flush(true)
    }

    /// Does the background work that is due at `now`: for databases opened with [`Options::workers`]`(0)`. Call it at least as often
    /// as [`Durability::Interval`](crate::Durability::Interval) asks.
    ///
    /// # Errors
    /// [`Error::Stopped`](crate::Error::Stopped). Of sealing, which is tried again when it is due: [`Error::Io`](crate::Error::Io),
    /// [`Error::Corrupt`](crate::Error::Corrupt), [`Error::DiskFull`](crate::Error::DiskFull) and
    /// [`Error::UnfitForVolume`](crate::Error::UnfitForVolume); what was not sealed is in memory as it was.
    pub fn maintain(&self, now: Timestamp) -> Result<()> {
        Engine::maintain(&self.0.engine, now)
    }

    /// Writes the whole state down as of now, so that the next opening begins there, and the log before it goes: names, maps and volumes as far as they
    /// changed, and what is in memory. Beside readers and writers, but after what is being sealed. Without a folder or a log there is nothing to do,
    /// and the report says version 0.
    ///
    /// The background does so by itself ([`Options::checkpoint_log_bytes`]), and closing does.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::DiskFull`](crate::Error::DiskFull): the last checkpoint counts, and nothing is lost; trying again is
    /// allowed. [`Error::Stopped`](crate::Error::Stopped): the log failed, or the superblock could not be written; in the latter case there are no further
    /// checkpoints until the database is opened again, and all else goes on.
    pub fn checkpoint(&self) -> Result<CheckpointReport> {
        self.engine().check_open()?;
        Ok(Engine::checkpoint(&self.0.engine)?.unwrap_or_default())
    }

    /// Seals what is in memory of the blocks that have times within `range`: it moves into volumes on disk, late writes and deletes over
    /// sealed blocks too. Beside readers and writers; what is read stays the same. Without a folder or a log there is nothing to do.
    ///
    /// The background does so by itself once the clock has left a block ([`Options::buffer_past`]).
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) and [`Error::Corrupt`](crate::Error::Corrupt) of volumes, [`Error::Stopped`](crate::Error::Stopped),
    /// [`Error::DiskFull`](crate::Error::DiskFull), [`Error::UnfitForVolume`](crate::Error::UnfitForVolume): blocks before the one that failed
    /// are sealed, the rest is in memory as it was. [`Error::Closed`](crate::Error::Closed).
    pub fn seal(&self, range: impl RangeBounds<Timestamp>) -> Result<SealReport> {
        self.seal_with(SealScope::all().within(range), |_| ControlFlow::Continue(()))
    }

    /// As [`Database::seal`], for a scope. `progress` is told before each block, and may end it there: then what was sealed stays sealed. It must
    /// not seal, refresh, write a checkpoint, back up or close itself: these wait for this seal.
    ///
    /// # Errors
    /// [`Error::ForeignNamespace`](crate::Error::ForeignNamespace), and those of [`Database::seal`].
    pub fn seal_with(
        &self,
        scope: SealScope,
        mut progress: impl FnMut(&SealProgress) -> ControlFlow<()>,
    ) -> Result<SealReport> {
        self.engine().check_open()?;
        Engine::seal(&self.0.engine, &scope, &mut progress)
    }

    /// Writes the sealed blocks anew that have times within `range` and are not what they should be: with late writes and deletes in memory,
    /// with metrics that were dropped, or with a damaged supplement.
    ///
    /// # Errors
    /// As [`Database::seal`].
    pub fn refresh(&self, range: impl RangeBounds<Timestamp>) -> Result<SealReport> {
        self.refresh_with(SealScope::all().within(range), |_| ControlFlow::Continue(()))
    }

    /// As [`Database::refresh`], for a scope, with `progress` as for [`Database::seal_with`].
    ///
    /// # Errors
    /// As [`Database::seal_with`].
    pub fn refresh_with(
        &self,
        scope: SealScope,
        mut progress: impl FnMut(&SealProgress) -> ControlFlow<()>,
    ) -> Result<SealReport> {
        self.engine().check_open()?;
        Engine::refresh(&self.0.engine, &scope, &mut progress)
    }

    /// Figures about the database, of what is in memory and of sealing. Looks at every partition, and reads no file.
    pub fn stats(&self) -> Stats {
        self.engine().stats()
    }

    /// Figures about what is in volumes. What is damaged or cannot be read is counted as that.
    ///
    /// Cost: the first time, for each volume opening its files and reading a table of 68 bytes for each metric.
    pub fn sealed_stats(&self) -> SealedStats {
        self.engine().sealed_stats()
    }

    /// What is in memory of each block of time: what was not sealed yet, and what came late. By namespace, shard and time. Looks at every partition.
    pub fn blocks_in_memory(&self) -> Vec<MemoryBlock> {
        self.engine().blocks_in_memory()
    }

    /// Whether the database is well: whether it takes commits, seals, and is not held up by old snapshots.
    pub fn health(&self) -> Health {
        self.engine().health(HELD_MAX)
    }

    /// Makes all commits durable, whatever they asked for, and closes the database. Other handles then get
    /// [`Error::Closed`](crate::Error::Closed) for commits; snapshots stay readable and keep the directory locked.
    ///
    /// # Errors
    /// [`Error::Stopped`](crate::Error::Stopped) or [`Error::Io`](crate::Error::Io): the last commits may not be durable.
    pub fn close(self) -> Result<CloseReport> {
        self.0.shut_down()?;
        let live_snapshots = self.engine().live_snapshots();
        Ok(CloseReport { live_snapshots })
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.0.engine
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
