//! Write transactions: staged changes that become one commit, or nothing.
//!
//! * [`overlay`]: what is staged for a metric, merged over a snapshot.
//! * [`transact`]: a checked transaction that is begun again until it commits.

mod overlay;
mod transact;

use std::ops::RangeBounds;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::mvcc::partition_map::Cover;
use crate::mvcc::reads::Reads;
use crate::mvcc::record::Command;
use crate::mvcc::staging::Staged;
use crate::mvcc::transaction::Version;
use crate::names::{Metric, MetricId, Namespace, Tags};
use crate::options::Durability;
use crate::query::{self, Point};
use crate::snapshot::Snapshot;
use crate::sync::{Arc, Mutex};
use crate::time::Timestamp;

use overlay::Overlay;
pub use overlay::TransactionRange;

/// Changes to any number of metrics that become visible together, or not at all.
///
/// Changes are staged in memory, outside of any lock, in the order given; nobody sees them before [`commit`](WriteTransaction::commit),
/// except this transaction's own reads. Dropping it rolls back.
///
/// Made by [`Database::begin_write`](crate::Database::begin_write), it never conflicts: of two that write the same points the later commit wins, point by
/// point. Made by [`Database::begin_checked`](crate::Database::begin_checked), it remembers what it reads, and commits only if that is still so.
pub struct WriteTransaction {
    engine: Arc<Engine>,
    snapshot: Snapshot,
    staged: Staged,
    durability: Durability,
    checked: Option<Box<Checked>>,
}

/// What a checked transaction remembers.
#[derive(Debug)]
struct Checked {
    /// Behind a lock, as reading takes `&self`.
    reads: Mutex<Reads>,
    /// Which metrics something is staged for: reads of others need not look there.
    written: HashSet<MetricId, RandomState>,
    /// Whether a change to what it began with was noticed before the commit.
    outdated: bool,
    /// Which attempt of [`Database::transact`](crate::Database::transact) it is, if it is one.
    attempt: Option<u32>,
}

impl Checked {
    /// A metric that is in the snapshot and was dropped since is a conflict: to begin again is what helps.
    fn note_write(&mut self, snapshot: &Snapshot, metric: &Metric) -> Result<()> {
        if metric.is_dropped() && snapshot.contains(metric) {
            self.outdated = true;
            return Err(Error::Conflict { what: "metric", name: metric.to_string(), attempts: self.attempt });
        }
        self.written.insert(metric.id());
        Ok(())
    }
}

impl std::fmt::Debug for WriteTransaction {
    /// What it began with, not what is in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteTransaction").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

impl WriteTransaction {
    pub(crate) fn new(engine: Arc<Engine>, durability: Durability) -> Self {
        WriteTransaction {
            snapshot: Snapshot::new(engine.clone()),
            staged: engine.core().stage(),
            durability,
            checked: None,
            engine,
        }
    }

    pub(crate) fn checked(engine: Arc<Engine>, durability: Durability) -> Self {
        let mut txn = WriteTransaction::new(engine, durability);
        txn.checked = Some(Box::new(Checked {
            reads: Mutex::new(Reads::new(txn.snapshot.transaction(), txn.engine.core().planted)),
            written: HashSet::default(),
            outdated: false,
            attempt: None,
        }));
        txn
    }

    /// Sets this commit's durability, instead of the database's default.
    pub fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
    }

    /// Stages a point. A point that the metric already has at this time is replaced.
    ///
    /// # Errors
    /// [`Error::MetricDropped`], [`Error::ForeignMetric`], [`Error::StagedBytes`]: nothing was staged. [`Error::Conflict`] if this is checked and the metric
    /// was dropped since it began.
    pub fn append(&mut self, metric: &Metric, at: Timestamp, value: f64) -> Result<()> {
        self.note_write(metric)?;
        self.staged.point(metric, at.as_nanos(), value)
    }

    /// Stages many points of one metric, in any order; of equal times the last counts. Cheaper than one by one.
    ///
    /// One ascending column of 1,024 points or more is encoded here. If it is also newer than what the metric has in memory, its
    /// commit does not delay others, however many points it has. Otherwise about 250 to 500 nanoseconds are spent for each point between
    /// the commit's number and its publication, and later commits wait for that: who backfills much commits it in parts.
    ///
    /// # Errors
    /// [`Error::ColumnLengths`], and those of [`WriteTransaction::append`].
    pub fn append_columns(&mut self, metric: &Metric, at: &[Timestamp], values: &[f64]) -> Result<()> {
        if at.len() != values.len() {
            return Err(Error::ColumnLengths { timestamps: at.len(), values: values.len() });
        }
        self.note_write(metric)?;
        if values.is_empty() {
            return self.staged.check(metric);
        }
        self.staged.columns(metric, at.iter().map(|at| at.as_nanos()), values)
    }

    /// Stages one point for each of many metrics at one time.
    ///
    /// # Errors
    /// Those of [`WriteTransaction::append`]; then nothing of the row was staged.
    pub fn append_row(&mut self, at: Timestamp, row: &[(Metric, f64)]) -> Result<()> {
        for (metric, _) in row {
            self.note_write(metric)?;
        }
        self.staged.row(at.as_nanos(), row)
    }

    /// Stages a point with an annotation; an empty one is none.
    ///
    /// # Errors
    /// [`Error::TooLong`], and those of [`WriteTransaction::append`].
    pub fn append_annotated(
        &mut self,
        metric: &Metric,
        at: Timestamp,
        value: f64,
        annotation: &[u8],
    ) -> Result<()> {
        self.note_write(metric)?;
        self.staged.annotated(metric, at.as_nanos(), value, annotation)
    }

    /// Stages that the metric exists, with or without points.
    ///
    /// One that exists is not made again. It is a commit all the same, so that what it promises holds whatever other commits are on their
    /// way: the metric is there, and as durable as the commit. To write nothing, ask [`Snapshot::contains`](crate::Snapshot::contains) first.
    ///
    /// # Errors
    /// Those of [`WriteTransaction::append`].
    pub fn create_metric(&mut self, metric: &Metric) -> Result<()> {
        self.note_write(metric)?;
        self.staged.create(metric)
    }

    /// Stages the removal of all points of a metric within bounds: those in earlier commits and those staged so far. Points staged
    /// or committed later stay.
    ///
    /// # Errors
    /// Those of [`WriteTransaction::append`].
    pub fn delete(&mut self, metric: &Metric, bounds: impl RangeBounds<Timestamp>) -> Result<()> {
        self.note_write(metric)?;
        match query::cover(&bounds) {
            Some(range) => self.staged.delete(metric, range),
            None => self.staged.check(metric),
        }
    }

    /// Stages that the metric is gone, with all its points. This transaction can then write to it no more, and once it is committed, the name
    /// stands for a new metric. No effect on a metric that does not exist at the commit.
    ///
    /// # Errors
    /// Those of [`WriteTransaction::append`].
    pub fn drop_metric(&mut self, metric: &Metric) -> Result<()> {
        self.note_write(metric)?;
        self.staged.drop_metric(metric)
    }

    /// Stages a piece of metadata, for instance how far a source has been read: it is committed with the points. The metadata is meant
    /// to be small, as all of it is copied when any changes.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::StagedBytes`]: nothing was staged.
    pub fn put_meta(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.staged.put_meta(key.as_ref(), value.as_ref())
    }

    /// Stages the removal of a piece of metadata.
    ///
    /// # Errors
    /// Those of [`WriteTransaction::put_meta`].
    pub fn remove_meta(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.staged.remove_meta(key.as_ref())
    }

    /// What this transaction began with, without its staged changes. What is read through it is not [checked](crate::Database::begin_checked).
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The metric of this ID in the default namespace, if it exists here, staged changes included. An ID in any order of its tags is looked for as
    /// it is, then in its canonical form; a checked transaction remembers for each whether it was there. Nothing is named by that.
    pub fn metric(&self, id: impl AsRef<[u8]>) -> Option<Metric> {
        let default = self.snapshot.transaction().namespaces.first()?;
        self.metric_in(default, id)
    }

    /// As [`WriteTransaction::metric`], in a namespace.
    pub fn metric_in(&self, namespace: &Namespace, id: impl AsRef<[u8]>) -> Option<Metric> {
        let names = &self.engine.core().names;
        names.resolve(namespace, id.as_ref(), |id, known| self.choose(namespace, id, known))
    }

    /// As [`WriteTransaction::metric`], of the metric with this name and these tags, in any order.
    pub fn metric_with_tags<K, V>(&self, name: impl AsRef<[u8]>, tags: &[(K, V)]) -> Option<Metric>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let tags: Vec<(&[u8], &[u8])> = tags.iter().map(|(k, v)| (k.as_ref(), v.as_ref())).collect();
        let (id, _) = Tags::canonical(name.as_ref(), &tags).ok()?;
        self.metric(id)
    }

    /// Whether the metric exists here, staged changes included.
    pub fn contains(&self, metric: &Metric) -> bool {
        self.staged_existence(metric).unwrap_or_else(|| {
            if let Some(checked) = &self.checked
                && self.is_own(metric)
            {
                checked.reads.lock().existence(self.snapshot.transaction(), metric);
            }
            self.snapshot.contains(metric)
        })
    }

    /// The points of a metric within bounds as they would be if this were committed now, over the snapshot; in time order, `.rev()` for the
    /// other way. Reads at once all that is staged for the metrics of the same lane, if anything is staged for this one.
    ///
    /// # Errors
    /// As items: those of [`Snapshot::range`].
    pub fn range(&self, metric: &Metric, bounds: impl RangeBounds<Timestamp>) -> TransactionRange {
        if let Some(checked) = &self.checked
            && self.is_own(metric)
        {
            checked.reads.lock().points(self.snapshot.transaction(), metric);
        }
        let overlay = query::cover(&bounds).map(|cover| self.overlay(metric, cover)).unwrap_or_default();
        overlay.over(self.snapshot.range(metric, bounds))
    }

    /// The point of a metric with the latest time, staged changes included.
    ///
    /// # Errors
    /// As [`Snapshot::range`].
    pub fn latest(&self, metric: &Metric) -> Result<Option<Point>> {
        self.range(metric, ..).next_back().transpose()
    }

    /// The latest point of a metric that is not after `at`, staged changes included.
    ///
    /// # Errors
    /// As [`Snapshot::range`].
    pub fn at_or_before(&self, metric: &Metric, at: Timestamp) -> Result<Option<Point>> {
        self.range(metric, ..=at).next_back().transpose()
    }

    /// A piece of metadata, staged changes included.
    pub fn meta(&self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        let key = key.as_ref();
        let staged = self.staged.global_commands().filter_map(|command| match command {
            Command::PutMeta { key: found, value } if found == key => Some(Some(value.to_vec())),
            Command::RemoveMeta { key: found } if found == key => Some(None),
            _ => None,
        });
        if let Some(staged) = staged.last() {
            return staged;
        }
        if let Some(checked) = &self.checked {
            checked.reads.lock().meta(key);
        }
        self.snapshot.meta(key).map(<[u8]>::to_vec)
    }

    /// Makes the changes visible to all, at once, and durable as asked; returns the version of the first snapshots that see them. A
    /// transaction without changes returns the version it began with, checks nothing, and makes nothing durable. While the commits on their way
    /// and this one are more than [`Options::staged_bytes_max`](crate::Options::staged_bytes_max) together, it waits for them.
    ///
    /// # Errors
    /// Nothing happened after
    /// * [`Error::Conflict`]: this is [checked](crate::Database::begin_checked), and what it read was changed. A new transaction sees the change.
    /// * [`Error::MetricDropped`]: a metric that it writes to was dropped meanwhile.
    /// * [`Error::DiskFull`], [`Error::Io`]: the log got no more space.
    /// * [`Error::Closed`]: the database was closed.
    ///
    /// After [`Error::Stopped`] the changes are not visible until the database is reopened; then they are there entirely or not at all,
    /// so look.
    pub fn commit(self) -> Result<Version> {
        let WriteTransaction { engine, snapshot, staged, durability, checked } = self;
        if staged.is_empty() {
            return Ok(snapshot.version());
        }
        // Not held while committing: nobody shall keep the memory of a state that no one reads any more.
        drop(snapshot);
        let Some(checked) = checked else { return engine.commit(staged, durability, None) };
        let Checked { reads, attempt, .. } = *checked;
        engine.commit(staged, durability, Some(reads.into_inner())).map_err(|error| match error {
            Error::Conflict { what, name, .. } => Error::Conflict { what, name, attempts: attempt },
            other => other,
        })
    }

    /// Forgets the changes, as dropping the transaction does.
    pub fn rollback(self) {}

    /// Stages that a namespace exists.
    ///
    /// # Errors
    /// [`Error::StagedBytes`]: nothing was staged.
    pub(crate) fn create_namespace(&mut self, namespace: &Namespace) -> Result<()> {
        self.staged.create_namespace(namespace)
    }

    /// For each write.
    #[inline]
    fn note_write(&mut self, metric: &Metric) -> Result<()> {
        match &mut self.checked {
            None => Ok(()),
            Some(checked) => checked.note_write(&self.snapshot, metric),
        }
    }

    fn is_own(&self, metric: &Metric) -> bool {
        metric.belongs_to(self.engine.core().names.database())
    }

    /// Whether nothing is staged for the metric, as far as that is known without looking.
    fn is_unwritten(&self, metric: &Metric) -> bool {
        !self.is_own(metric)
            || self.checked.as_ref().is_some_and(|checked| !checked.written.contains(&metric.id()))
    }

    /// Whether a metric exists after the staged commands; none if they leave that as it is.
    fn staged_existence(&self, metric: &Metric) -> Option<bool> {
        match self.is_unwritten(metric) {
            true => None,
            false => overlay::existence(self.staged.commands_of(metric.id())),
        }
    }

    /// Of all metrics that ever had an ID, newest first, the one that it stands for here. What the staged commands do not decide is
    /// noted.
    fn choose(&self, namespace: &Namespace, id: &[u8], known: Vec<Metric>) -> Option<Metric> {
        // The newest of which nothing has to be noted: what it is to this transaction, nobody else can change.
        let mut decided = None;
        for metric in known {
            match self.staged_existence(&metric) {
                Some(true) => return Some(metric),
                None if self.snapshot.contains(&metric) => {
                    if let Some(checked) = &self.checked {
                        checked.reads.lock().existence(self.snapshot.transaction(), &metric);
                    }
                    return Some(metric);
                }
                None if !metric.is_dropped() => {}
                Some(false) | None => {
                    decided.get_or_insert(metric.id());
                }
            }
        }
        if let Some(checked) = &self.checked {
            checked.reads.lock().absence(namespace, id, decided);
        }
        None
    }

    /// What the staged commands do to a metric within a range of time.
    fn overlay(&self, metric: &Metric, cover: Cover) -> Overlay {
        match self.is_unwritten(metric) {
            true => Overlay::default(),
            false => Overlay::new(self.staged.commands_of(metric.id()), cover),
        }
    }
}
