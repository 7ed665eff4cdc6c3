//! Write transactions: staged changes that become one commit, or nothing.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use crate::database::Engine;
use crate::error::{Error, Result};
use crate::mvcc::partition_map::Cover;
use crate::mvcc::record::Command;
use crate::mvcc::staging::Staged;
use crate::mvcc::transaction::Version;
use crate::names::{Metric, Namespace};
use crate::options::Durability;
use crate::query::{self, Point};
use crate::snapshot::Snapshot;
use crate::sync::Arc;
use crate::time::Timestamp;

/// Changes to any number of metrics that become visible together, or not at all.
///
/// Changes are staged in memory, outside of any lock, in the order given; nobody sees them before [`commit`](WriteTransaction::commit),
/// except this transaction's own reads. Dropping it rolls back. Two that write the same points do not conflict: the later commit
/// wins, point by point.
pub struct WriteTransaction {
    engine: Arc<Engine>,
    snapshot: Snapshot,
    staged: Staged,
    durability: Durability,
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
            engine,
        }
    }

    /// Sets this commit's durability, instead of the database's default.
    pub fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
    }

    /// Stages a point. A point that the metric already has at this time is replaced.
    ///
    /// # Errors
    /// [`Error::MetricDropped`], [`Error::ForeignMetric`]: nothing was staged.
    pub fn append(&mut self, metric: &Metric, at: Timestamp, value: f64) -> Result<()> {
        self.staged.point(metric, at.as_nanos(), value)
    }

    /// Stages many points of one metric, in any order; of equal times the last counts. Cheaper than one by one.
    ///
    /// # Errors
    /// [`Error::ColumnLengths`], and those of [`WriteTransaction::append`].
    pub fn append_columns(&mut self, metric: &Metric, at: &[Timestamp], values: &[f64]) -> Result<()> {
        if at.len() != values.len() {
            return Err(Error::ColumnLengths { timestamps: at.len(), values: values.len() });
        }
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
            self.staged.check(metric)?;
        }
        row.iter().try_for_each(|(metric, value)| self.append(metric, at, *value))
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
        self.staged.annotated(metric, at.as_nanos(), value, annotation)
    }

    /// Stages that the metric exists, with or without points. No effect if it does.
    ///
    /// # Errors
    /// Those of [`WriteTransaction::append`].
    pub fn create_metric(&mut self, metric: &Metric) -> Result<()> {
        self.staged.create(metric)
    }

    /// Stages the removal of all points of a metric within bounds: those in earlier commits and those staged so far. Points staged
    /// or committed later stay.
    ///
    /// # Errors
    /// Those of [`WriteTransaction::append`].
    pub fn delete(&mut self, metric: &Metric, bounds: impl RangeBounds<Timestamp>) -> Result<()> {
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
        self.staged.drop_metric(metric)
    }

    /// Stages a piece of metadata, for instance how far a source has been read: it is committed with the points. The metadata is meant
    /// to be small, as all of it is copied when any changes.
    ///
    /// # Errors
    /// [`Error::TooLong`].
    pub fn put_meta(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.staged.put_meta(key.as_ref(), value.as_ref())
    }

    /// Stages the removal of a piece of metadata.
    ///
    /// # Errors
    /// [`Error::TooLong`].
    pub fn remove_meta(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.staged.remove_meta(key.as_ref())
    }

    /// What this transaction began with, without its staged changes.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The points of a metric within bounds as they would be if this were committed now, over the snapshot. Reads all that is staged
    /// for the metrics of the same lane.
    ///
    /// # Errors
    /// As [`Snapshot::range`].
    pub fn range(&self, metric: &Metric, bounds: impl RangeBounds<Timestamp>) -> Result<Vec<Point>> {
        let Some(cover) = query::cover(&bounds) else { return Ok(Vec::new()) };
        let overlay = self.overlay(metric, cover);
        let mut points = overlay.points;
        if !overlay.dropped {
            for point in self.snapshot.range(metric, bounds) {
                let point = point?;
                let at = point.at.as_nanos();
                if !overlay.deleted.iter().any(|range| range.has(at)) {
                    points.entry(at).or_insert(point);
                }
            }
        }
        Ok(points.into_values().collect())
    }

    /// The point of a metric with the latest time, staged changes included. Reads all that is staged for the metrics of the same lane.
    ///
    /// # Errors
    /// As [`Snapshot::range`].
    pub fn latest(&self, metric: &Metric) -> Result<Option<Point>> {
        let overlay = self.overlay(metric, Cover::ALL);
        let staged = overlay.points.into_values().next_back();
        if overlay.dropped {
            return Ok(staged);
        }
        for point in self.snapshot.range(metric, ..).rev() {
            let point = point?;
            if staged.as_ref().is_some_and(|staged| staged.at >= point.at) {
                break;
            }
            if !overlay.deleted.iter().any(|range| range.has(point.at.as_nanos())) {
                return Ok(Some(point));
            }
        }
        Ok(staged)
    }

    /// A piece of metadata, staged changes included.
    pub fn meta(&self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        let key = key.as_ref();
        let staged = self.staged.global_commands().filter_map(|command| match command {
            Command::PutMeta { key: found, value } if found == key => Some(Some(value.to_vec())),
            Command::RemoveMeta { key: found } if found == key => Some(None),
            _ => None,
        });
        staged.last().unwrap_or_else(|| self.snapshot.meta(key).map(<[u8]>::to_vec))
    }

    /// Makes the changes visible to all, at once, and durable as asked; returns the version of the first snapshots that see them. A
    /// transaction without changes returns the version it began with, and makes nothing durable.
    ///
    /// # Errors
    /// [`Error::MetricDropped`] if a metric it writes to was dropped meanwhile, [`Error::DiskFull`] or [`Error::Io`] if the log got no more
    /// space, [`Error::Closed`]: nothing happened. [`Error::Stopped`]: not visible until the database is reopened; then it is there entirely or not at all, so look.
    pub fn commit(self) -> Result<Version> {
        let WriteTransaction { engine, snapshot, staged, durability, .. } = self;
        if staged.is_empty() {
            return Ok(snapshot.version());
        }
        // Not held while committing: nobody shall keep the memory of a state that no one reads any more.
        drop(snapshot);
        engine.commit(staged, durability)
    }

    /// Forgets the changes, as dropping the transaction does.
    pub fn rollback(self) {}

    /// Stages that a namespace exists.
    pub(crate) fn create_namespace(&mut self, namespace: &Namespace) {
        self.staged.create_namespace(namespace);
    }

    /// What the staged commands do to a metric within a range of time.
    fn overlay(&self, metric: &Metric, cover: Cover) -> Overlay {
        let mut overlay = Overlay::default();
        let put = |points: &mut BTreeMap<i64, Point>, at: i64, value: f64, annotation: &[u8]| {
            if cover.has(at) {
                let annotation = (!annotation.is_empty()).then(|| annotation.into());
                points.insert(at, Point { at: Timestamp::from_nanos(at), value, annotation });
            }
        };
        if !metric.belongs_to(self.engine.core().names.database()) {
            return overlay;
        }
        for command in self.staged.commands_of(metric.id()) {
            let points = &mut overlay.points;
            match command {
                Command::Point { at, value, .. } => put(points, at, value, b""),
                Command::Annotated { at, value, annotation, .. } => put(points, at, value, annotation),
                Command::Columns { columns, .. } => {
                    columns.for_each(|(at, value)| put(points, at, value, b""));
                }
                Command::Delete { first, last, .. } => {
                    points.retain(|at, _| !(first..=last).contains(at));
                    overlay.deleted.push(Cover { first, last });
                }
                Command::Drop { .. } => {
                    points.clear();
                    overlay.dropped = true;
                }
                _ => {}
            }
        }
        overlay
    }
}

/// The staged changes of one metric.
#[derive(Debug, Default)]
struct Overlay {
    points: BTreeMap<i64, Point>,
    /// Hidden in the snapshot.
    deleted: Vec<Cover>,
    dropped: bool,
}
