//! Commit: from staged changes to a published version. The protocol of `design/concurrency.md`; read that first.
//!
//! Lock order: writer -> log -> lane -> {queue, partition, changes, names}. The last four are leaves. No I/O under any lock but
//! the journal's own, which only a leader, or who makes space, holds.
//!
//! Invariants (numbers of the design page)
//! * 1: a commit gets its number and pushes its slices in one critical section of the log.
//! * 4: a version is published only when all commits up to it are applied and as durable as they asked.
//! * 6: whoever clears `leading`, `publishing` or `extending`, or sets `stop`, notifies all under the log's lock.
//! * 7: `durable` is what the buffer held when it was taken.
//! * 8: a commit that returned an error is in no snapshot, one that returned Ok in every later one.
//!
//! What a checked commit compares is in [`super::reads`].

use std::collections::VecDeque;
use std::fmt::Debug;

use crate::error::{Error, Result};
use crate::names::{Metric, Names};
use crate::planted::{Bug, Planted};
use crate::sealed::VolumeStore;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, Published, count, lock_soon, thread_number};

use super::base::Bases;
use super::budget::{Budget, Place};
use super::lane::{Applying, Change, Heads, Lane};
use super::marks::LiveVersions;
use super::memory::Memory;
use super::reads::Reads;
use super::record::Commands;
use super::staging::{Record, Section, Staged};
use super::transaction::{Token, Transaction, Version};
use super::writer::Writer;

/// When so many metrics are dropped whose names have not left, who drops more sees to it.
const WAITING_NAMES: usize = 1_024;

/// Where records are made durable. Calls of one method never overlap (`extend` and `write` may).
pub(crate) trait Journal: Debug + Send + Sync {
    /// How much space a record with `payload` bytes takes.
    fn cost(&self, payload: usize) -> u64;

    /// Makes more space, best as much as `wanted`, and returns how much it made.
    ///
    /// # Errors
    /// Nothing was written and nothing is lost: the call may be repeated.
    fn extend(&self, wanted: u64) -> Result<u64>;

    /// Writes records in order, and makes them and all before them durable if `sync`.
    ///
    /// # Errors
    /// After an error nothing may be written any more.
    fn write(&self, records: &[(Version, Arc<Commit>)], sync: bool) -> Result<()>;
}

/// The transactional core: names, lanes, log and the published transaction.
pub(crate) struct Core {
    pub(crate) names: Names,
    published: Published<Transaction>,
    live: Published<LiveVersions>,
    pub(super) writer: Mutex<Writer>,
    pub(super) log: Mutex<Log>,
    /// Notified whenever something in `log` changes that somebody may wait for.
    pub(super) changed: Condvar,
    pub(super) lanes: Box<[Lane]>,
    /// Drops sequenced so far; written under the log's lock.
    drops: AtomicU64,
    pub(super) bases: Bases,
    memory: Memory,
    /// Where sealed blocks lie; none in memory-only mode.
    volumes: Option<VolumeStore>,
    /// The number of the next volume.
    pub(super) next_volume: AtomicU32,
    journal: Option<Box<dyn Journal>>,
    /// Above this many waiting bytes a committer writes the log, whoever it is.
    buffer_bytes_max: usize,
    /// How large one commit may be, and all in flight together.
    staged_bytes_max: usize,
    /// How many metric ids a slice of an install goes over.
    pub(super) install_slice_metrics: u32,
    /// Set before the lane is unlocked, if applying a slice panicked: what follows in that lane must not be taken for applied. (std's, as
    /// a model ends with its first panic.)
    panicked: std::sync::atomic::AtomicBool,
    /// The version that a seal holds; `u64::MAX` is none. (std's: only figures depend on it.)
    held_by_seal: std::sync::atomic::AtomicU64,
    pub(crate) planted: Planted,
}

impl std::fmt::Debug for Core {
    /// Where it stands, not what is in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let transaction = self.load();
        let mut core = f.debug_struct("Core");
        core.field("version", &transaction.version).field("metrics", &transaction.metrics.len());
        core.finish_non_exhaustive()
    }
}

/// What the log's lock guards.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The last version given out.
    pub(super) seq: Version,
    /// Everything up to here survives a power cut.
    pub(super) durable: Version,
    pub(super) published: Version,
    /// Commits that are not yet being published, in order: the versions `max(published, publishing) + 1 ..= seq`.
    in_flight: VecDeque<InFlight>,
    /// Which keys of the metadata commits write that are not yet published, in order.
    pub(super) meta_keys: VecDeque<(Version, Vec<Box<[u8]>>)>,
    /// Records not yet taken by a leader.
    buffer: Vec<(Version, Arc<Commit>)>,
    buffer_bytes: usize,
    budget: Budget,
    /// Space made and not yet reserved.
    free: u64,
    leading: bool,
    publishing: Option<Version>,
    extending: bool,
    /// Set once the log failed: nothing after this version is ever published.
    pub(super) stop: Option<Version>,
    /// What failed, unless it was a panic.
    stop_cause: Option<std::sync::Arc<Error>>,
    closed: bool,
}

#[derive(Debug)]
pub(super) struct InFlight {
    commit: Arc<Commit>,
    version: Version,
    /// Whether it may show before it is durable.
    sync: bool,
    applied: bool,
    lanes: LaneSet,
}

/// Some of a database's lanes, of which there are at most 256.
#[derive(Clone, Copy, Debug, Default)]
struct LaneSet([u64; 4]);

/// A commit on its way.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) record: Record,
    /// What applying its slices changed in the tree.
    changes: Mutex<Vec<Change>>,
}

/// The part of a commit that concerns one lane.
#[derive(Debug)]
pub(crate) struct Slice {
    commit: Arc<Commit>,
    version: Version,
    /// Which of the record's sections it is.
    section: usize,
}

impl Core {
    pub(crate) fn new(names: Names, lanes: u32, buffer_bytes_max: usize, planted: Planted) -> Self {
        let default = names.namespace_by_id(crate::names::NamespaceId(0));
        let token = Arc::new(Token);
        let writer = Writer::new(default, token.clone());
        let first = writer.transaction(Version(0), token);
        Core {
            names,
            published: Published::new(first),
            live: Published::new(Arc::new(LiveVersions::default())),
            writer: Mutex::new(writer),
            log: Mutex::new(Log::default()),
            changed: Condvar::new(),
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            drops: AtomicU64::new(0),
            bases: Bases::default(),
            memory: Memory::default(),
            volumes: None,
            next_volume: AtomicU32::new(0),
            journal: None,
            buffer_bytes_max,
            staged_bytes_max: usize::MAX,
            install_slice_metrics: super::sealing::SLICE_METRICS,
            panicked: false.into(),
            held_by_seal: u64::MAX.into(),
            planted,
        }
    }

    /// Logs commits from now on, with `free` bytes of space made. Before the first commit.
    pub(crate) fn set_journal(&mut self, journal: Box<dyn Journal>, free: u64) {
        self.journal = Some(journal);
        self.log.lock().free = free;
    }

    /// Has volumes in this place from now on. Before the first commit.
    pub(crate) fn set_volumes(&mut self, volumes: VolumeStore) {
        self.volumes = Some(volumes);
    }

    /// Where sealed blocks lie.
    pub(crate) fn volumes(&self) -> Option<&VolumeStore> {
        self.volumes.as_ref()
    }

    /// Limits what one commit, and all in flight together, take in memory. Before the first commit.
    pub(crate) fn set_staged_bytes_max(&mut self, bytes: usize) {
        self.staged_bytes_max = bytes;
    }

    /// Has installs go over so many metric ids in one commit, at least 1. Before the first commit.
    pub(crate) fn set_install_slice_metrics(&mut self, metrics: u32) {
        self.install_slice_metrics = metrics;
    }

    /// The newest published transaction. Takes no lock.
    pub(crate) fn load(&self) -> Arc<Transaction> {
        self.published.load()
    }

    /// An empty set of changes.
    pub(crate) fn stage(&self) -> Staged {
        let drops_seen = self.drops.load(Ordering::Acquire);
        Staged::new(self.names.database(), self.lanes.len() as u32, drops_seen, self.staged_bytes_max)
    }

    /// Commits staged changes, if all is still as it was read. Returns when they are published, and durable if `sync` (and there is a log).
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Conflict`], [`Error::MetricDropped`], [`Error::DiskFull`] and other failures to make space: nothing
    /// happened.
    /// [`Error::Stopped`]: not visible until reopened; afterwards there entirely or not at all.
    pub(crate) fn commit(&self, mut staged: Staged, sync: bool, reads: Option<Reads>) -> Result<Version> {
        let sync = sync && self.journal.is_some();
        let may_drop = !staged.drops.is_empty();
        let record = staged.seal();
        let cost = self.journal.as_ref().map_or(0, |journal| journal.cost(record.bytes.len()));
        let commit = Arc::new(Commit { record, changes: Mutex::new(Vec::new()) });

        // Looked at here, where nobody waits, so that there is rarely anything to look at under the lock.
        if let Err(dropped) = self.check_dropped(&mut staged, &commit.record) {
            // Who read the metric hears of a conflict, as he does when it is dropped a moment later.
            let conflict = reads.map(|reads| self.validate(self.log.lock(), &reads).map(drop));
            return Err(conflict.and_then(Result::err).unwrap_or(dropped));
        }
        if let Some(reads) = &reads {
            self.drain_read(reads);
        }
        let lanes = LaneSet::of(&commit.record.sections);
        let mut log = self.reserve(&mut staged, &commit, cost, reads.as_ref())?;
        log.seq = log.seq.next();
        let version = log.seq;
        self.sequence_names(&staged, version);
        if !staged.meta_keys.is_empty() {
            log.meta_keys.push_back((version, std::mem::take(&mut staged.meta_keys)));
        }
        if self.journal.is_some() {
            log.buffer.push((version, commit.clone()));
            log.buffer_bytes += commit.record.bytes.len();
        }
        log.in_flight.push_back(InFlight { commit: commit.clone(), version, sync, applied: false, lanes });
        if self.planted.has(Bug::PushAfterUnlock) {
            drop(log);
            self.push_slices(&commit, version);
        } else {
            self.push_slices(&commit, version);
            drop(log);
        }
        // It was compared: names that it may have looked for need not stay any longer.
        drop(reads);

        let on_panic = OnPanic::new(self, Log::stop);
        self.apply(&commit, version);
        if self.planted.has(Bug::ChangesInOneList) {
            let changes = std::mem::take(&mut *commit.changes.lock());
            self.writer.lock().listed.extend(changes);
        }
        on_panic.disarm();

        let mut log = self.log.lock();
        if self.panicked.load(Ordering::Relaxed) {
            log.stop(self.planted);
        }
        log.mark_applied(version, lanes, self.planted);
        let committed = self.monitor(log, version, sync);
        if may_drop && self.names.dropped() >= WAITING_NAMES {
            self.forget_names();
        }
        committed
    }

    /// Has the names of dropped metrics leave the dictionary, as far as nobody can ask for them any more: every transaction that somebody holds, and every later one, is of a
    /// version that has the drop.
    pub(crate) fn forget_names(&self) {
        if self.names.dropped() > 0 {
            let oldest = self.oldest_live();
            while self.names.forget_dropped(oldest) {}
        }
    }

    /// The oldest version that somebody reads or read for a commit that is not yet sequenced; the published one if there is none.
    fn oldest_live(&self) -> Version {
        let writer = self.writer.lock();
        let mut live = writer.tokens.iter().filter(|(_, token)| count(token) > 1);
        live.next().or(writer.tokens.last()).map_or(Version(0), |(version, _)| *version)
    }

    /// Makes all commits so far durable, or with `sync == false` hands them to the operating system.
    pub(crate) fn flush(&self, sync: bool) -> Result<()> {
        let mut log = self.log.lock();
        let target = log.seq;
        while self.journal.is_some() {
            let is_written = log.buffer.first().is_none_or(|(version, _)| *version > target);
            match log.stop {
                _ if is_written && log.durable >= target => break,
                Some(_) => return Err(log.stopped()),
                None if log.leading => log = self.changed.wait(log),
                None if is_written && !sync => break,
                None => log = self.lead(log, sync),
            }
        }
        Ok(())
    }

    /// Refuses commits from now on and waits for those on their way.
    pub(crate) fn close(&self) {
        let mut log = self.log.lock();
        log.closed = true;
        // Who waits for bytes or space hears of it now.
        self.changed.notify_all();
        while log.stop.is_none() && (!log.in_flight.is_empty() || log.publishing.is_some()) {
            log = self.changed.wait(log);
        }
    }

    /// Whether no commit is taken any more: closed, or stopped.
    pub(crate) fn refuses_commits(&self) -> bool {
        let log = self.log.lock();
        log.closed || log.stop.is_some()
    }

    /// Does `work`, and stops if it panics, for then nobody does it any more.
    pub(crate) fn or_stop<T>(&self, work: impl FnOnce() -> T) -> T {
        let on_panic = OnPanic::new(self, Log::stop);
        let done = work();
        on_panic.disarm();
        done
    }

    /// Whether the log failed, and why.
    pub(crate) fn stop_cause(&self) -> (bool, Option<std::sync::Arc<Error>>) {
        let log = self.log.lock();
        (log.stop.is_some(), log.stop_cause.clone())
    }

    /// Bytes of records that wait to be written.
    pub(crate) fn buffered_bytes(&self) -> u64 {
        self.log.lock().buffer_bytes as u64
    }

    /// How much memory the partitions take.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// How many retired versions somebody still holds.
    pub(crate) fn held_versions(&self) -> u64 {
        self.live.with(|live| live.held.len() as u64)
    }

    /// The oldest version behind the published one that somebody holds now, besides the one that a seal reads.
    pub(crate) fn oldest_held(&self) -> Option<Version> {
        let by_seal = self.held_by_seal.load(Ordering::Relaxed);
        let writer = self.writer.lock();
        let (_, retired) = writer.tokens.split_last()?;
        let held = retired.iter().find(|(version, token)| count(token) > 1 && version.0 != by_seal);
        held.map(|(version, _)| *version)
    }

    /// As [`Core::oldest_held`], but as of the last publication, without a lock, and a seal's version too.
    pub(crate) fn oldest_held_at_publication(&self) -> Option<Version> {
        self.live.with(|live| live.held.first().copied())
    }

    /// Notes that a seal holds a version, which is nobody's old snapshot, until what it returns goes.
    pub(crate) fn held_by_seal(&self, version: Version) -> HeldBySeal<'_> {
        self.held_by_seal.store(version.0, Ordering::Relaxed);
        HeldBySeal(self)
    }

    /// Waits until there is space for the record, and checks all that must hold when a commit takes its number.
    fn reserve(
        &self,
        staged: &mut Staged,
        commit: &Commit,
        cost: u64,
        mut reads: Option<&Reads>,
    ) -> Result<MutexGuard<'_, Log>> {
        if self.planted.has(Bug::CompareOutsideLog)
            && let Some(reads) = reads.take()
        {
            drop(self.validate(self.log.lock(), reads)?);
        }
        // Whatever comes of it, the commit leaves the line in the end: with its bytes, or without.
        let mut place = None;
        let mut reserved = self.reserve_in_line(staged, commit, cost, reads, &mut place);
        if let Some(place) = place {
            match &mut reserved {
                Ok(log) => log.budget.leave(place),
                Err(_) => self.log.lock().budget.leave(place),
            }
            self.changed.notify_all();
        }
        reserved
    }

    /// As [`Core::reserve`], but who stood in the line stands there still.
    fn reserve_in_line(
        &self,
        staged: &mut Staged,
        commit: &Commit,
        cost: u64,
        reads: Option<&Reads>,
        place: &mut Option<Place>,
    ) -> Result<MutexGuard<'_, Log>> {
        let staged_bytes = commit.record.staged_bytes;
        let mut log = self.log.lock();
        loop {
            if log.closed {
                return Err(Error::Closed);
            }
            if log.stop.is_some() {
                return Err(log.stopped());
            }
            // Those in flight never wait for these bytes, so the first in line goes on some day. An error above ends the whole line.
            if !log.budget.admits(staged_bytes, self.staged_bytes_max, place) {
                log = self.changed.wait(log);
                continue;
            }
            // The first drop since staging began came after the look outside. A large record is not read under this lock.
            if self.drops.load(Ordering::Acquire) != staged.drops_seen && !staged.knows_written() {
                drop(log);
                staged.written(&commit.record, &self.names);
                log = self.log.lock();
                continue;
            }
            if let Some(reads) = reads {
                log = self.validate(log, reads)?;
            }
            self.check_dropped(staged, &commit.record)?;
            let Some(journal) = self.journal.as_ref().filter(|_| log.free < cost) else { break };
            // Nobody takes the bytes meanwhile.
            log.budget.stand(place);
            if log.extending {
                log = self.changed.wait(log);
                continue;
            }
            log.extending = true;
            let wanted = cost - log.free;
            drop(log);
            let on_panic = OnPanic::new(self, |log, _| {
                log.extending = false;
                log.budget.leave_first();
            });
            let made = journal.extend(wanted);
            on_panic.disarm();
            log = self.log.lock();
            log.extending = false;
            self.changed.notify_all();
            log.free += made?;
        }
        log.free -= if self.journal.is_some() { cost } else { 0 };
        log.budget.take(staged_bytes);
        Ok(log)
    }

    /// Refuses writes to a metric whose drop has been sequenced. Looks only if there was a drop since it last did.
    fn check_dropped(&self, staged: &mut Staged, record: &Record) -> Result<()> {
        let drops = self.drops.load(Ordering::Acquire);
        if drops == staged.drops_seen {
            return Ok(());
        }
        if let Some(metric) = staged.written(record, &self.names).dropped() {
            return Err(Error::MetricDropped(metric));
        }
        staged.drops_seen = drops;
        Ok(())
    }

    /// Tells the dictionary what this commit makes and drops. Under the log's lock, so that names change in the log's order.
    fn sequence_names(&self, staged: &Staged, version: Version) {
        staged.namespaces.iter().for_each(|namespace| namespace.set_created());
        staged.creates.iter().for_each(|metric| metric.set_created(version));
        // What nobody has made cannot be dropped, and its handles stay good.
        let mut drops = staged.drops.iter().filter(|metric| metric.is_created()).map(Metric::id).peekable();
        if drops.peek().is_some() && !self.planted.has(Bug::DropAtPublication) {
            let dropped = self.names.set_dropped(drops, version);
            self.drops.fetch_add(dropped, Ordering::Release);
        }
    }

    fn push_slices(&self, commit: &Arc<Commit>, version: Version) {
        for (index, section) in commit.record.sections.iter().enumerate() {
            let slice = Slice { commit: commit.clone(), version, section: index };
            self.lanes[section.lane as usize].queue.lock().push(slice);
        }
    }

    /// Sees to it that all slices of a commit are applied, by this thread or another.
    ///
    /// Two passes over its lanes: those that nobody works on first. Whoever holds a lane may have taken our slice or not; once we
    /// have held the lane's lock ourselves, it is applied.
    fn apply(&self, commit: &Commit, version: Version) {
        let sections = &commit.record.sections;
        // Threads start half a round apart, so that they do not queue behind each other, and each at the same place every time: what
        // it changes there is then mostly in its own cache.
        let start = match sections.len() {
            0 => 0,
            len if cfg!(any(loom, shuttle)) => version.0 as usize % len,
            len => thread_number() % 2 * len / 2,
        };
        let (behind, ahead) = sections.split_at(start);
        let mut left = Vec::new();
        for Section { lane, .. } in ahead.iter().chain(behind) {
            match self.lanes[*lane as usize].heads.try_lock() {
                Some(mut heads) => self.drain(*lane, &mut heads),
                None => left.push(*lane),
            }
        }
        if self.planted.has(Bug::NoSecondPass) {
            return;
        }
        for lane in left {
            let taken = self.planted.has(Bug::TakeBeforeLock).then(|| self.take(lane));
            let mut heads = lock_soon(&self.lanes[lane as usize].heads);
            if self.planted.has(Bug::LogUnderLane) {
                drop(self.log.lock());
            }
            match taken {
                Some(slices) => self.apply_slices(slices, &mut heads),
                None => self.drain(lane, &mut heads),
            }
        }
    }

    /// Applies the slices that are in the lane's queue now. Once, not until it is empty: whoever pushes later drains it himself.
    pub(super) fn drain(&self, lane: u32, heads: &mut Heads) {
        self.apply_slices(self.take(lane), heads);
    }

    fn take(&self, lane: u32) -> Vec<Slice> {
        std::mem::take(&mut *self.lanes[lane as usize].queue.lock())
    }

    fn apply_slices(&self, slices: Vec<Slice>, heads: &mut Heads) {
        if slices.is_empty() {
            return;
        }
        let live = self.live.load();
        let on_panic = LanePanic(&self.panicked);
        for Slice { commit, version, section } in slices {
            let section = &commit.record.sections[section];
            let context =
                Applying { streams: &section.streams, ..self.applying(version, section.lane, &live) };
            let mut changed = Vec::new();
            for command in Commands::new(&commit.record.bytes[section.bytes.clone()]) {
                let command = command.expect("a record that this process wrote reads back");
                heads.apply(command, &context, &mut changed);
            }
            if !changed.is_empty() {
                let changes = heads.changes(changed, context.lanes);
                commit.changes.lock().extend(changes);
            }
            if self.planted.has(Bug::InstallInTreeOnly) {
                heads.put_back(self.lanes.len() as u32);
            }
        }
        std::mem::forget(on_panic);
    }

    pub(super) fn applying<'a>(
        &'a self,
        version: Version,
        lane: u32,
        live: &'a LiveVersions,
    ) -> Applying<'a> {
        let Core { names, bases, memory, planted, .. } = self;
        let lanes = self.lanes.len() as u32;
        Applying { version, live, streams: &[], names, bases, memory, lane, lanes, planted: *planted }
    }

    /// Waits until the commit is published or stopped, and meanwhile does what there is to do.
    fn monitor<'a>(&'a self, mut log: MutexGuard<'a, Log>, version: Version, sync: bool) -> Result<Version> {
        // Commits that never ask for a sync must not fill the memory.
        while self.journal.is_some() && log.buffer_bytes > self.buffer_bytes_max && log.stop.is_none() {
            log = if log.leading { self.changed.wait(log) } else { self.lead(log, false) };
        }
        loop {
            let goes_on = log.stop.is_none();
            if log.published >= version {
                return Ok(version);
            }
            if log.stop.is_some_and(|stop| version > stop) {
                return Err(log.stopped());
            }
            if goes_on && sync && !log.leading && version > log.durable {
                log = self.lead(log, true);
                continue;
            }
            let ready = log.ready(self.planted);
            if goes_on && log.publishing.is_none() && ready > log.published {
                log = self.publish(log, ready);
            } else if sync {
                log = self.changed.wait(log);
            } else {
                log = self.changed.wait_soon(&self.log, log);
            }
        }
    }

    /// Writes all records in the buffer, and syncs if asked. New commits gather meanwhile: that is group commit.
    fn lead<'a>(&'a self, mut log: MutexGuard<'a, Log>, sync: bool) -> MutexGuard<'a, Log> {
        let Some(journal) = &self.journal else { return log };
        log.leading = true;
        let upto = log.seq;
        let batch = std::mem::take(&mut log.buffer);
        log.buffer_bytes = 0;
        if self.planted.has(Bug::AcknowledgeBeforeSync) && sync {
            log.durable = upto;
            self.changed.notify_all();
        }
        drop(log);
        let give_up = |log: &mut Log, planted| {
            log.leading = false;
            log.stop(planted);
        };
        let on_panic = OnPanic::new(self, give_up);
        let written = journal.write(&batch, sync);
        drop(batch);
        on_panic.disarm();
        let mut log = self.log.lock();
        match written {
            Ok(()) if sync => log.durable = if self.planted.has(Bug::DurableIsSeq) { log.seq } else { upto },
            Ok(()) => {}
            Err(error) => {
                log.stop_cause.get_or_insert(error.into());
                log.stop(self.planted);
            }
        }
        log.leading = false;
        if !self.planted.has(Bug::ForgetNotifyAfterLeading) {
            self.changed.notify_all();
        }
        log
    }

    /// Publishes all commits up to `to`: the next transaction takes the place of the current one.
    fn publish<'a>(&'a self, mut log: MutexGuard<'a, Log>, to: Version) -> MutexGuard<'a, Log> {
        log.publishing = Some(to);
        let count = log.in_flight.partition_point(|commit| commit.version <= to);
        let mut commits: Vec<InFlight> = log.in_flight.drain(..count).collect();
        drop(log);
        if self.planted.has(Bug::ChangesOutOfOrder) {
            commits.reverse();
        }
        let give_up = |log: &mut Log, planted| {
            log.publishing = None;
            log.stop(planted);
            // Also if the log had stopped before, behind what was being published.
            log.stop = Some(log.published);
        };
        let on_panic = OnPanic::new(self, give_up);
        let retired = self.swap_in(to, &commits);
        let staged_bytes: usize =
            commits.iter().map(|InFlight { commit, .. }| commit.record.staged_bytes).sum();
        // The last reference may free a tree: outside of all locks.
        drop(retired);
        drop(commits);
        on_panic.disarm();
        let mut log = self.log.lock();
        log.published = to;
        log.publishing = None;
        log.budget.give_back(staged_bytes);
        while log.meta_keys.front().is_some_and(|(version, _)| *version <= to) {
            log.meta_keys.pop_front();
        }
        if !self.planted.has(Bug::ForgetNotifyAfterPublishing) {
            self.changed.notify_all();
        }
        log
    }

    /// The writer's critical section. Returns the transaction that was replaced.
    pub(super) fn swap_in(&self, to: Version, commits: &[InFlight]) -> Arc<Transaction> {
        let mut writer = self.writer.lock();
        for (metric, map) in std::mem::take(&mut writer.listed) {
            writer.metrics.set(metric, map, to);
        }
        for InFlight { commit, .. } in commits {
            for (metric, map) in commit.changes.lock().drain(..) {
                if map.is_none() && self.planted.has(Bug::DropAtPublication) {
                    self.names.set_dropped(std::iter::once(metric), to);
                    self.drops.fetch_add(1, Ordering::Release);
                }
                writer.set(metric, map, to);
            }
            let global = &commit.record.bytes[commit.record.global.clone()];
            for command in Commands::new(global).map_while(Result::ok) {
                writer.apply_global(command, to, self);
            }
        }
        let token = Arc::new(Token);
        let next = writer.transaction(to, token.clone());
        if self.planted.has(Bug::LookBeforeSwap) {
            let current = self.published.load();
            let held = writer.sweep_tokens(&current, 2);
            drop(current);
            writer.tokens.push((to, token));
            let old = self.published.swap(next);
            self.live.swap(Arc::new(LiveVersions { published: to, held }));
            return old;
        }
        if self.planted.has(Bug::LiveListBeforeTransaction) {
            let held = self.live.with(|live| live.held.clone());
            self.live.swap(Arc::new(LiveVersions { published: to, held }));
        }
        // In this order: swap, look at the counts, publish what they say. Who loads the transaction later gets the new one, so a
        // count that shows no reader is final.
        let old = self.published.swap(next);
        let held = writer.sweep_tokens(&old, 1);
        self.live.swap(Arc::new(LiveVersions { published: to, held }));
        writer.tokens.push((to, token));
        if self.planted.has(Bug::RetainTransactions) {
            writer.retained.push(old.clone());
        }
        old
    }
}

impl LaneSet {
    fn of(sections: &[Section]) -> Self {
        let mut set = LaneSet::default();
        for Section { lane, .. } in sections {
            set.0[*lane as usize / 64] |= 1 << (lane % 64);
        }
        set
    }

    fn is_within(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(mine, others)| mine & !others == 0)
    }
}

impl Log {
    /// Notes that all slices up to `version` in these lanes are applied, if they are in `in_flight` still: those of the commit of this version, which has been through
    /// its lanes, and of earlier ones that touch no others. So a commit need not wait until an earlier one's thread has noticed that it is applied.
    fn mark_applied(&mut self, version: Version, lanes: LaneSet, planted: Planted) {
        let any = planted.has(Bug::MarkOtherLanes);
        for commit in self.in_flight.iter_mut().take_while(|commit| commit.version <= version) {
            commit.applied |= any || commit.lanes.is_within(&lanes);
        }
    }

    /// The last version such that all commits in flight up to it are applied, and durable if they asked for it.
    fn ready(&self, planted: Planted) -> Version {
        let is_ready = |commit: &&InFlight| {
            (commit.applied || planted.has(Bug::PublishWhatIsDurable))
                && (!commit.sync || commit.version <= self.durable)
        };
        self.in_flight.iter().take_while(is_ready).last().map_or(self.published, |commit| commit.version)
    }

    /// Nothing is sequenced after this, and nothing published but what is being published now.
    pub(super) fn stop(&mut self, planted: Planted) {
        let publishing = self.publishing.filter(|_| !planted.has(Bug::StopIgnoresPublication));
        self.stop.get_or_insert(self.published.max(publishing.unwrap_or_default()));
    }
}

impl Log {
    /// What a commit gets that comes too late.
    pub(super) fn stopped(&self) -> Error {
        Error::Stopped { cause: self.stop_cause.clone() }
    }
}

/// See [`Core::held_by_seal`].
#[derive(Debug)]
pub(crate) struct HeldBySeal<'a>(&'a Core);

impl Drop for HeldBySeal<'_> {
    fn drop(&mut self) {
        self.0.held_by_seal.store(u64::MAX, Ordering::Relaxed);
    }
}

/// Notes a panic while slices are applied: dropped, unless forgotten, before the lane's lock is.
struct LanePanic<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for LanePanic<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Tells the log of a panic in what this guards, so that nobody waits for ever: a lane is then in an unknown state, or a duty undone.
pub(super) struct OnPanic<'a> {
    core: &'a Core,
    tell: fn(&mut Log, Planted),
}

impl<'a> OnPanic<'a> {
    /// Not under the log's lock, or declared before it is taken: a panic takes it.
    pub(super) fn new(core: &'a Core, tell: fn(&mut Log, Planted)) -> Self {
        OnPanic { core, tell }
    }

    /// All went well.
    pub(super) fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        // A model ends with its first panic.
        if cfg!(loom) {
            return;
        }
        let mut log = self.core.log.lock();
        (self.tell)(&mut log, self.core.planted);
        self.core.changed.notify_all();
    }
}
