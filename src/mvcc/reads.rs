//! What a checked transaction read, and whether that is still so when it commits (`design/concurrency.md`, "Checked transactions").
//!
//! Invariants (numbers of the design page)
//! * 14: what was read is compared in the critical section of the log that gives out the number, with the lanes it lies in drained.
//! * 15: the log's lock is taken before a lane's, never after.
//! * 17: a conflict is returned once the commit behind it is published.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::names::{Metric, MetricId, Namespace, NamespaceId};
use crate::planted::{Bug, PANIC_KEY, Planted};
use crate::sync::{Arc, MutexGuard};

use super::commit::{Core, Log, OnPanic};
use super::transaction::{Meta, Token, Transaction, Version};

/// What a transaction read. Ordered, so that equal reads are validated in the same order.
#[derive(Debug)]
pub(crate) struct Reads {
    /// The snapshot that all was read in.
    snapshot: Version,
    /// The snapshot's version counts as read, as long as this is not compared: names that were dropped since do not leave.
    _token: Option<Arc<Token>>,
    /// The snapshot's metadata: it costs no more than a reference, and keeps none of the rest alive.
    meta: Arc<Meta>,
    metrics: BTreeMap<MetricId, (Metric, Seen)>,
    /// IDs that stood for nothing, and of each the newest metric that had it and shall not count.
    absent: BTreeMap<(NamespaceId, Box<[u8]>), Option<MetricId>>,
    keys: BTreeSet<Box<[u8]>>,
}

/// What was read of a metric; each but the first says more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// It is not there.
    Absent,
    /// It is there.
    Exists,
    /// Its points.
    Points,
}

/// What is no longer as it was read.
struct Conflict {
    error: Error,
    /// The commit behind it, or a later one.
    version: Version,
}

impl Reads {
    /// Nothing read yet.
    pub(crate) fn new(snapshot: &Transaction, planted: Planted) -> Self {
        Reads {
            snapshot: snapshot.version,
            _token: (!planted.has(Bug::ReadsHoldNoVersion)).then(|| snapshot.token.clone()),
            meta: snapshot.meta.clone(),
            metrics: BTreeMap::new(),
            absent: BTreeMap::new(),
            keys: BTreeSet::new(),
        }
    }

    /// Notes that points of a metric were read, or that there are none.
    pub(crate) fn points(&mut self, snapshot: &Transaction, metric: &Metric) {
        self.note(snapshot, metric, Seen::Points);
    }

    /// Notes that somebody looked whether a metric exists.
    pub(crate) fn existence(&mut self, snapshot: &Transaction, metric: &Metric) {
        self.note(snapshot, metric, Seen::Exists);
    }

    /// Notes that an ID, in exactly this spelling, stands for no metric. `known` is the newest metric that had it and of which that stays true,
    /// as it is dropped already or what the transaction does decides it: only newer ones count.
    pub(crate) fn absence(&mut self, namespace: &Namespace, id: &[u8], known: Option<MetricId>) {
        // Of several lookups the first counts, as what came between them is a change.
        self.absent.entry((namespace.id(), id.into())).or_insert(known);
    }

    /// Notes that a piece of metadata was read, or that there is none.
    pub(crate) fn meta(&mut self, key: &[u8]) {
        if !self.keys.contains(key) {
            self.keys.insert(key.into());
        }
    }

    fn note(&mut self, snapshot: &Transaction, metric: &Metric, seen: Seen) {
        if let Some((_, known)) = self.metrics.get_mut(&metric.id()) {
            // A snapshot does not change: what is absent stays it.
            *known = if *known == Seen::Absent { Seen::Absent } else { seen.max(*known) };
            return;
        }
        let seen = match snapshot.map(metric.id()) {
            Some(_) => seen,
            // It will never be there again.
            None if metric.is_dropped() => return,
            None => Seen::Absent,
        };
        self.metrics.insert(metric.id(), (metric.clone(), seen));
    }

    /// Metrics whose points were read, lane by lane.
    fn by_lane(&self, lanes: u32) -> Vec<(u32, Vec<&Metric>)> {
        let mut by_lane: BTreeMap<u32, Vec<&Metric>> = BTreeMap::new();
        for (metric, seen) in self.metrics.values() {
            if *seen == Seen::Points {
                by_lane.entry(metric.id().0 % lanes).or_default().push(metric);
            }
        }
        by_lane.into_iter().collect()
    }
}

impl Core {
    /// Applies what waits in the lanes that were read, so that little is left to do under the log's lock.
    pub(super) fn drain_read(&self, reads: &Reads) {
        let on_panic = OnPanic::new(self, Log::stop);
        for (lane, _) in reads.by_lane(self.lanes.len() as u32) {
            let mut heads = self.lanes[lane as usize].heads.lock();
            self.drain(lane, &mut heads);
        }
        on_panic.disarm();
    }

    /// Passes the log's lock through if all is still as it was read.
    ///
    /// # Errors
    /// [`Error::Conflict`], once a new snapshot shows what changed; [`Error::Stopped`] if none ever will.
    pub(super) fn validate<'a>(
        &'a self,
        log: MutexGuard<'a, Log>,
        reads: &Reads,
    ) -> Result<MutexGuard<'a, Log>> {
        let on_panic = OnPanic::new(self, Log::stop);
        // Declared after the guard above, which takes the log's lock in a panic: so this one is released first.
        let log = log;
        let conflict = self.conflict(&log, reads);
        on_panic.disarm();
        let Some(Conflict { error, version }) = conflict else { return Ok(log) };
        if !self.planted.has(Bug::ConflictBeforePublication) {
            self.await_published(log, version)?;
        }
        Err(error)
    }

    /// Waits until all that is sequenced is published.
    ///
    /// # Errors
    /// [`Error::Stopped`] if it never will be.
    pub(crate) fn settle(&self) -> Result<()> {
        let log = self.log.lock();
        let version = log.seq;
        self.await_published(log, version)
    }

    /// Waits for a version that its own committer publishes.
    fn await_published(&self, mut log: MutexGuard<'_, Log>, version: Version) -> Result<()> {
        while log.published < version {
            if log.stop.is_some_and(|stop| version > stop) {
                return Err(log.stopped());
            }
            log = self.changed.wait(log);
        }
        Ok(())
    }

    /// The first thing that is not as it was read. Under the log's lock, so that nothing is pushed meanwhile.
    fn conflict(&self, log: &Log, reads: &Reads) -> Option<Conflict> {
        let metric = |metric: &Metric, version| {
            let error = Error::Conflict { what: "metric", name: metric.to_string(), attempts: None };
            Some(Conflict { error, version })
        };
        let is_absence_unchecked = self.planted.has(Bug::AbsenceUnchecked);
        for (read, seen) in reads.metrics.values() {
            let is_true = match seen {
                Seen::Absent => !read.is_created() || is_absence_unchecked,
                Seen::Exists => !read.is_dropped(),
                Seen::Points => continue,
            };
            if !is_true {
                return metric(read, log.seq);
            }
        }
        for ((namespace, id), known) in reads.absent.iter().filter(|_| !is_absence_unchecked) {
            if let Some(made) = self.names.made_after(*namespace, id, *known) {
                return metric(&made, log.seq);
            }
        }
        let lanes = self.lanes.len() as u32;
        for (lane, read) in reads.by_lane(lanes) {
            let mut heads = self.lanes[lane as usize].heads.lock();
            if !self.planted.has(Bug::NoDrainBeforeComparing) {
                self.drain(lane, &mut heads);
            }
            let panics = self.planted.has(Bug::PanicInValidation) && reads.keys.contains(PANIC_KEY);
            assert!(!panics, "planted, in a validation");
            for read in read {
                match heads.last_write(read.id(), lanes) {
                    Some(last) if last <= reads.snapshot => {}
                    last => return metric(read, last.unwrap_or(log.seq)),
                }
            }
        }
        self.meta_conflict(log, reads)
    }

    fn meta_conflict(&self, log: &Log, reads: &Reads) -> Option<Conflict> {
        if reads.keys.is_empty() {
            return None;
        }
        let conflict = |key: &[u8], version| {
            let name = key.escape_ascii().to_string();
            let error = Error::Conflict { what: "metadata", name, attempts: None };
            Some(Conflict { error, version })
        };
        // A snapshot may be of a version whose publisher has not yet said so.
        let on_their_way = log.meta_keys.iter().filter(|(version, _)| *version > reads.snapshot);
        for (version, keys) in on_their_way.filter(|_| !self.planted.has(Bug::MetaOnItsWayUnchecked)) {
            if let Some(key) = keys.iter().find(|key| reads.keys.contains(*key)) {
                return conflict(key, *version);
            }
        }
        // All other commits to metadata are published, at least in this transaction.
        let now = self.load();
        if std::ptr::eq(&*now.meta, &*reads.meta) {
            return None;
        }
        let changed = reads.keys.iter().find(|key| now.meta.get(*key) != reads.meta.get(*key));
        changed.and_then(|key| conflict(key, now.version))
    }
}
