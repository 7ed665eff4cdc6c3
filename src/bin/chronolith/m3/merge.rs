//! Points of many sources on their way into a database: later ones replace earlier ones, and only what differs is written.
//!
//! Invariants
//! * A point that the database has is not written over before all sources have been seen: the last one that has it decides. So a value that a
//!   later source gave it is never replaced by an earlier source's in between, however often the same is imported, and wherever an import ends.
//! * What is staged are points that the batch's snapshot lacks; what is contested are points that it has, with another value.
//!
//! The first cannot be kept for more than [`CONTESTED_MAX`] points: then those are written as they are, and the rest is begun anew.

use std::collections::BTreeMap;

use chronolith::{Database, Metric, MetricId, Result, Timestamp, WriteTransaction};

/// Points in a commit.
pub(super) const BATCH_POINTS: u64 = 65_536;
/// Contested points in memory, about 100 bytes each.
const CONTESTED_MAX: usize = 1 << 20;

/// A point of a source.
#[derive(Clone, Copy, Debug)]
pub(super) struct SourcePoint<'p> {
    /// Nanoseconds since the Unix epoch.
    pub(super) at: i64,
    pub(super) value: f64,
    /// Empty if there is none.
    pub(super) annotation: &'p [u8],
}

/// What becomes of a point that the database has with another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfThere {
    /// The last source that has it decides.
    Contest,
    /// It stays: the source is only a substitute, and older than what it stands for.
    Keep,
}

/// A merge on its way.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    db: &'a Database,
    /// The batch that is being filled.
    txn: Option<WriteTransaction>,
    staged: u64,
    /// Points of the batch that were staged, or need not be.
    handled: u64,
    /// What the sources so far say of points that the database has with another value.
    contested: BTreeMap<(MetricId, i64), Contested>,
    contested_max: usize,
    pub(super) figures: Figures,
}

/// What a merge came to so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    /// Committed points.
    pub(super) points: u64,
    /// Points that the database had: from before, or from an earlier source.
    pub(super) known: u64,
    pub(super) batches: u64,
}

#[derive(Debug)]
struct Contested {
    metric: Metric,
    value: f64,
    annotation: Box<[u8]>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(db: &'a Database) -> Self {
        let figures = Figures::default();
        let contested = BTreeMap::new();
        Merge { db, txn: None, staged: 0, handled: 0, contested, contested_max: CONTESTED_MAX, figures }
    }

    /// Adds a source's points of one metric, in the order in which the source has them; of equal times the last counts. A metric without points
    /// comes to be all the same.
    ///
    /// Cost: reads what the database has of the metric from the first to the last of the points.
    pub(super) fn append(
        &mut self,
        metric: &Metric,
        mut points: Vec<SourcePoint<'_>>,
        if_there: IfThere,
    ) -> Result<()> {
        last_of_each_time(&mut points);
        let txn = self.txn.get_or_insert_with(|| self.db.begin_write());
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return txn.create_metric(metric);
        };
        let bounds = Timestamp::from_nanos(first.at)..=Timestamp::from_nanos(last.at);
        let mut there = txn.snapshot().range(metric, bounds);
        let mut next = there.next().transpose()?;
        let (mut at, mut values) = (Vec::new(), Vec::new());
        for point in &points {
            while next.as_ref().is_some_and(|there| there.at.as_nanos() < point.at) {
                next = there.next().transpose()?;
            }
            let key = (metric.id(), point.at);
            match next.as_ref().filter(|there| there.at.as_nanos() == point.at) {
                Some(_) if if_there == IfThere::Keep => self.figures.known += 1,
                Some(there) => {
                    let annotation = there.annotation.as_deref().unwrap_or_default();
                    if (there.value.to_bits(), annotation) == (point.value.to_bits(), point.annotation) {
                        self.contested.remove(&key);
                        self.figures.known += 1;
                    } else {
                        let (metric, value) = (metric.clone(), point.value);
                        let annotation = point.annotation.into();
                        self.contested.insert(key, Contested { metric, value, annotation });
                    }
                }
                None if point.annotation.is_empty() => {
                    at.push(Timestamp::from_nanos(point.at));
                    values.push(point.value);
                }
                None => {
                    let at = Timestamp::from_nanos(point.at);
                    txn.append_annotated(metric, at, point.value, point.annotation)?;
                    self.staged += 1;
                }
            }
        }
        txn.append_columns(metric, &at, &values)?;
        self.staged += values.len() as u64;
        self.handled += points.len() as u64;
        if self.contested.len() > self.contested_max { self.settle() } else { Ok(()) }
    }

    /// Stages a piece of metadata with the current batch.
    pub(super) fn put_meta(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.txn.get_or_insert_with(|| self.db.begin_write()).put_meta(key, value)
    }

    /// Whether the batch should be committed.
    pub(super) fn is_full(&self) -> bool {
        self.handled >= BATCH_POINTS
    }

    /// Commits the batch.
    pub(super) fn commit(&mut self) -> Result<()> {
        if let Some(txn) = self.txn.take() {
            txn.commit()?;
            self.figures.points += self.staged;
            self.figures.batches += u64::from(self.staged > 0);
        }
        (self.staged, self.handled) = (0, 0);
        Ok(())
    }

    /// Commits the batch and the contested points: all sources have been seen.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.commit()?;
        while let Some(((_, at), Contested { metric, value, annotation })) = self.contested.pop_first() {
            let txn = self.txn.get_or_insert_with(|| self.db.begin_write());
            let at = Timestamp::from_nanos(at);
            match &*annotation {
                [] => txn.append(&metric, at, value)?,
                annotation => txn.append_annotated(&metric, at, value, annotation)?,
            }
            self.staged += 1;
            self.handled += 1;
            if self.is_full() {
                self.commit()?;
            }
        }
        self.commit()
    }
}

/// Sorts the points by time; of equal times only the last is kept.
fn last_of_each_time(points: &mut Vec<SourcePoint<'_>>) {
    if !points.is_sorted_by(|a, b| a.at < b.at) {
        // Turned around, so that the last of equal times comes first and is kept.
        points.reverse();
        points.sort_by_key(|point| point.at);
        points.dedup_by_key(|point| point.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: i64, value: f64) -> SourcePoint<'static> {
        SourcePoint { at, value, annotation: b"" }
    }

    fn values(db: &Database, metric: &Metric) -> Vec<(i64, f64)> {
        let points = db.snapshot().range(metric, ..).map(|point| {
            let point = point.expect("readable");
            (point.at.as_nanos(), point.value)
        });
        points.collect()
    }

    fn db() -> (Database, Metric) {
        let db = Database::in_memory().expect("room");
        let metric = db.metric("m").expect("a metric");
        (db, metric)
    }

    #[test]
    fn last_of_equal_times_is_kept() {
        let kept = |points: &[SourcePoint<'static>]| {
            let mut points = points.to_vec();
            last_of_each_time(&mut points);
            points.iter().map(|point| point.value).collect::<Vec<_>>()
        };
        assert_eq!(kept(&[point(1, 1.0), point(2, 2.0)]), [1.0, 2.0]);
        assert_eq!(kept(&[point(2, 1.0), point(1, 2.0), point(2, 3.0), point(2, 4.0)]), [2.0, 4.0]);
        assert_eq!(kept(&[point(1, 1.0), point(1, 2.0)]), [2.0]);
    }

    #[test]
    fn later_sources_win_and_a_second_merge_writes_nothing() {
        let (db, metric) = db();
        for round in 0..2 {
            let mut merge = Merge::new(&db);
            merge
                .append(&metric, vec![point(1, 1.0), point(2, 2.0), point(3, 3.0)], IfThere::Contest)
                .expect("room");
            merge.commit().expect("room");
            merge.append(&metric, vec![point(2, 20.0)], IfThere::Contest).expect("room");
            merge.append(&metric, vec![point(2, 21.0), point(3, 30.0)], IfThere::Contest).expect("room");
            // Back to the first source's value.
            merge.append(&metric, vec![point(3, 3.0)], IfThere::Contest).expect("room");
            merge.settle().expect("room");
            assert_eq!(values(&db, &metric), [(1, 1.0), (2, 21.0), (3, 3.0)]);
            let written = if round == 0 { 4 } else { 0 };
            assert_eq!(merge.figures.points, written, "round {round}");
        }
    }

    #[test]
    fn substitutes_add_what_is_missing_and_replace_nothing() {
        let (db, metric) = db();
        db.append(&metric, Timestamp::from_nanos(1), 2.0).expect("room");
        let mut merge = Merge::new(&db);
        merge.append(&metric, vec![point(1, 1.0), point(5, 5.0)], IfThere::Keep).expect("room");
        merge.settle().expect("room");
        assert_eq!(values(&db, &metric), [(1, 2.0), (5, 5.0)]);
    }

    #[test]
    fn a_merge_that_ends_early_brings_no_older_value_back() {
        let (db, metric) = db();
        db.append(&metric, Timestamp::from_nanos(1), 2.0).expect("room");
        let mut merge = Merge::new(&db);
        merge.append(&metric, vec![point(1, 1.0), point(5, 5.0)], IfThere::Contest).expect("room");
        merge.commit().expect("room");
        drop(merge);
        assert_eq!(values(&db, &metric), [(1, 2.0), (5, 5.0)]);
    }

    #[test]
    fn contested_points_beyond_the_limit_are_written_and_the_last_still_wins() {
        let (db, metric) = db();
        let mut merge = Merge { contested_max: 2, ..Merge::new(&db) };
        let source = |value: f64| (0..10).map(|at| point(at, value)).collect::<Vec<_>>();
        for value in [1.0, 2.0, 3.0] {
            merge.append(&metric, source(value), IfThere::Contest).expect("room");
            merge.commit().expect("room");
        }
        assert!(merge.contested.is_empty());
        merge.settle().expect("room");
        assert!(values(&db, &metric).iter().all(|(_, value)| *value == 3.0));
        assert_eq!(values(&db, &metric).len(), 10);
    }

    #[test]
    fn annotations_are_part_of_a_point() {
        let (db, metric) = db();
        let mut merge = Merge::new(&db);
        for annotation in [&b""[..], b"note", b"note"] {
            merge
                .append(&metric, vec![SourcePoint { annotation, ..point(1, 1.0) }], IfThere::Contest)
                .expect("room");
            merge.settle().expect("room");
        }
        assert_eq!((merge.figures.points, merge.figures.known), (2, 1));
        let points: Vec<_> = db.snapshot().range(&metric, ..).flatten().collect();
        assert_eq!(points[0].annotation.as_deref(), Some(&b"note"[..]));
    }
}
