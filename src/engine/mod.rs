//! The database itself, as handles, transactions, snapshots and the background thread share it. Here the parts meet: the core, the
//! files, the clock, the options.

mod checkpoints;
mod figures;
mod memory;
mod upkeep;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::backup;
use crate::error::{Error, Result};
use crate::maintenance::{Due, Timer};
use crate::mvcc::commit::Core;
use crate::mvcc::reads::Reads;
use crate::mvcc::staging::Staged;
use crate::mvcc::transaction::{Transaction, Version};
use crate::names::{Names, NamespaceOptions};
use crate::options::{Durability, Options};
use crate::report::{BackupReport, OpenReport};
use crate::settings::{InForce, Settings};
use crate::store::{Origin, Store};
use crate::sync::{Arc, Mutex, Published};
use crate::time::Timestamp;

use checkpoints::Checkpoints;
use memory::Pressure;
use upkeep::Upkeep;

/// How long records of [`Durability::Buffered`] commits may wait before the operating system gets them.
const BUFFERED_WRITE_DELAY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    core: Core,
    /// Dropped after the core: the directory's lock is in it.
    store: Option<Store>,
    /// Which database it is; `None` of one in memory.
    origin: Option<Origin>,
    options: Options,
    report: OpenReport,
    /// When the log is to be written.
    timer: Timer,
    /// When to see what is to be sealed. Another thread's, since a volume's sync must not delay one of the log.
    upkeep_timer: Timer,
    clock: Clock,
    live_snapshots: AtomicUsize,
    closed: Mutex<bool>,
    /// What can be changed while it is open.
    settings: Published<InForce>,
    /// What was changed since it was opened. Held while more is.
    changed_settings: Mutex<Settings>,
    pressure: Pressure,
    upkeep: Upkeep,
    checkpoints: Checkpoints,
}

impl Engine {
    pub(crate) fn new(options: Options, core: Core, store: Option<Store>, report: OpenReport) -> Self {
        let settings = Published::new(Arc::new(options.settings.in_force()));
        let origin = store.as_ref().map(|store| store.origin().clone());
        Engine {
            core,
            store,
            origin,
            options,
            report,
            timer: Timer::default(),
            upkeep_timer: Timer::default(),
            clock: Clock::new(),
            live_snapshots: AtomicUsize::new(0),
            closed: Mutex::new(false),
            settings,
            changed_settings: Mutex::default(),
            pressure: Pressure::default(),
            upkeep: Upkeep::default(),
            checkpoints: Checkpoints::default(),
        }
    }

    /// For reading only a database that keeps these settings.
    pub(crate) fn reading(
        options: Options,
        kept: Settings,
        core: Core,
        origin: Origin,
        report: OpenReport,
    ) -> Self {
        let engine = Engine::new(options.over(kept), core, None, report);
        Engine { origin: Some(origin), changed_settings: Mutex::new(kept), ..engine }
    }

    pub(crate) fn new_core(options: &Options, default_namespace: NamespaceOptions) -> Core {
        /// Tells the handles of one database from those of another in the same process.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let names = Names::new(NEXT.fetch_add(1, Ordering::Relaxed), default_namespace);
        let mut core = Core::new(names, options.lanes as u32, options.log_buffer_bytes, options.planted);
        // What is staged comes on top of what is in memory.
        core.set_staged_bytes_max(options.staged_bytes_max.min(options.memory_limit() as usize));
        core.set_install_slice_metrics(options.install_slice_metrics);
        core
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn report(&self) -> &OpenReport {
        &self.report
    }

    /// What the background thread for the log does.
    pub(crate) fn write_log(&self) {
        self.core.or_stop(|| {
            while let Some(due) = self.timer.wait(|| self.now()) {
                // A failure stops the database: the next commit reports it, and `stats` shows it.
                let _ = self.flush_due(due);
            }
        });
    }

    /// What the background thread for sealing does.
    pub(crate) fn keep_up(engine: &Arc<Self>) {
        while engine.upkeep_timer.wait(|| engine.now()).is_some() {
            // What failed is tried again, a panic too, and `stats` shows it.
            let _ = catch_unwind(AssertUnwindSafe(|| Engine::look_after(engine, || engine.now())));
        }
    }

    /// Whether it is open still, and for more than reading.
    ///
    /// # Errors
    /// [`Error::Closed`]: it is closed, or being closed. [`Error::ReadOnly`].
    pub(crate) fn check_open(&self) -> Result<()> {
        match self.upkeep_timer.is_stopped() {
            true => Err(Error::Closed),
            false => self.check_writable(),
        }
    }

    /// The settings as they are now.
    pub(crate) fn settings(&self) -> InForce {
        self.settings.with(|settings| *settings)
    }

    /// Changes settings, and has the database keep them if it is on disk.
    ///
    /// # Errors
    /// [`Error::InvalidOption`], [`Error::Closed`], [`Error::ReadOnly`]; [`Error::Io`]: they are as they were, and whether they are so after the next
    /// opening is open.
    pub(crate) fn change_settings(&self, change: Settings) -> Result<()> {
        change.check()?;
        self.check_open()?;
        let mut changed = self.changed_settings.lock();
        if let Some(store) = &self.store {
            store.keep_settings(change)?;
        }
        *changed = change.or(*changed);
        self.settings.swap(Arc::new(changed.or(self.options.settings).in_force()));
        drop(changed);
        // Less memory, or less log, may ask for something.
        self.upkeep_timer.ask(Due { upkeep: Some(Timestamp::MIN), ..Due::default() });
        Ok(())
    }

    fn check_writable(&self) -> Result<()> {
        match self.options.read_only {
            true => Err(Error::ReadOnly),
            false => Ok(()),
        }
    }

    /// Writes what a transaction has into another folder.
    ///
    /// # Errors
    /// Those of [`backup::write`].
    pub(crate) fn back_up(
        &self,
        transaction: &Transaction,
        dir: &Path,
        progress: backup::Progress<'_>,
    ) -> Result<BackupReport> {
        let made;
        let origin = match &self.origin {
            Some(origin) => origin,
            None => {
                made = Origin::of_memory(&self.options, dir)?;
                &made
            }
        };
        let kept = match &self.store {
            Some(store) => store.kept_settings(),
            None => *self.changed_settings.lock(),
        };
        backup::write(origin, &self.core, transaction, &kept, dir, progress)
    }

    /// Ends both, for good. What is being sealed is sealed; further blocks are left.
    pub(crate) fn stop_background(&self) {
        self.timer.stop();
        self.upkeep_timer.stop();
    }

    /// Does what is due at `now`.
    pub(crate) fn maintain(engine: &Arc<Self>, now: Timestamp) -> Result<()> {
        engine.flush_due(engine.timer.take(now))?;
        match engine.upkeep_timer.take(now) {
            Due { upkeep: Some(_), .. } => Engine::look_after(engine, || now),
            _ => Ok(()),
        }
    }

    pub(crate) fn live_snapshots(&self) -> usize {
        self.live_snapshots.load(Ordering::Relaxed)
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
        reads: Option<Reads>,
    ) -> Result<Version> {
        self.check_writable()?;
        self.await_memory(staged.has_points())?;
        let version = self.core.commit(staged, durability == Durability::Sync, reads)?;
        self.ask_for_checkpoint();
        match durability {
            Durability::Sync => {}
            Durability::Interval(delay) => {
                self.timer.ask(Due { sync: Some(self.now() + delay), ..Due::default() });
            }
            Durability::Buffered if self.timer.expects_write() => {}
            Durability::Buffered => {
                self.timer.ask(Due { write: Some(self.now() + BUFFERED_WRITE_DELAY), ..Due::default() });
            }
        }
        Ok(version)
    }

    fn flush_due(&self, due: Due) -> Result<()> {
        match due {
            Due { sync: Some(_), .. } => self.core.flush(true),
            Due { write: Some(_), .. } => self.core.flush(false),
            _ => Ok(()),
        }
    }

    /// Refuses commits from now on, and makes all there were durable. Once: later calls do nothing.
    pub(crate) fn close(&self) -> Result<()> {
        let mut closed = self.closed.lock();
        if *closed {
            return Ok(());
        }
        self.core.close();
        self.core.flush(true)?;
        self.checkpoint_at_close();
        if let Some(store) = &self.store {
            store.close()?;
        }
        *closed = true;
        Ok(())
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
