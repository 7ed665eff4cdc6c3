//! What is staged for one metric, and how it reads over a snapshot.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::mvcc::partition_map::Cover;
use crate::mvcc::record::Command;
use crate::query::{Point, Range};
use crate::time::Timestamp;

/// The staged changes of one metric within a range of time.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    points: BTreeMap<i64, Point>,
    /// Hidden in the snapshot.
    deleted: Vec<Cover>,
    dropped: bool,
}

impl Overlay {
    /// What a metric's commands, in the order in which they were staged, come to.
    pub(super) fn new<'a>(commands: impl Iterator<Item = Command<'a>>, cover: Cover) -> Self {
        let mut overlay = Overlay::default();
        let put = |points: &mut BTreeMap<i64, Point>, at: i64, value: f64, annotation: &[u8]| {
            if cover.has(at) {
                let annotation = (!annotation.is_empty()).then(|| annotation.into());
                points.insert(at, Point { at: Timestamp::from_nanos(at), value, annotation });
            }
        };
        for command in commands {
            let points = &mut overlay.points;
            match command {
                Command::Point { at, value, .. } => put(points, at, value, b""),
                Command::Annotated { at, value, annotation, .. } => put(points, at, value, annotation),
                Command::Columns { columns, .. } => {
                    columns.for_each(|(at, value)| put(points, at, value, b""));
                }
                Command::Streams { streams, .. } => {
                    let streams = streams
                        .filter(|stream| cover.overlaps(Cover { first: stream.first, last: stream.last }));
                    let decoded = streams.flat_map(|stream| stream.decode().expect("it was just encoded"));
                    decoded.for_each(|(at, value)| put(points, at, value, b""));
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

    /// The points there are with these changes over those of a snapshot.
    pub(super) fn over(self, committed: Range) -> TransactionRange {
        let Overlay { points, deleted, dropped } = self;
        TransactionRange {
            committed: (!dropped).then_some(committed),
            front: None,
            back: None,
            staged: points,
            deleted,
        }
    }
}

/// Whether a metric exists after its commands; none if they leave that as it was.
pub(super) fn existence<'a>(commands: impl Iterator<Item = Command<'a>>) -> Option<bool> {
    let existence = commands.filter_map(|command| match command {
        Command::Delete { .. } => None,
        Command::Drop { .. } => Some(false),
        _ => Some(true),
    });
    existence.last()
}

/// The points of a metric in a range of time, those that a transaction has staged included. Made by
/// [`WriteTransaction::range`](crate::WriteTransaction::range).
///
/// Points come in time order, each time once, or from the end with [`rev`](Iterator::rev); both ends may be mixed. What is staged later is
/// not seen. It keeps the transaction's snapshot alive.
#[derive(Debug)]
pub struct TransactionRange {
    /// The snapshot's; none if the transaction has dropped the metric.
    committed: Option<Range>,
    /// Taken from the snapshot's ends, and not yet their turn.
    front: Option<Point>,
    back: Option<Point>,
    staged: BTreeMap<i64, Point>,
    deleted: Vec<Cover>,
}

/// The end of the next point, or none if there is no point from the snapshot left, or an error instead.
type Committed = Option<Result<Point>>;

impl TransactionRange {
    /// The snapshot's next point that is not hidden.
    fn committed(&mut self, next: impl Fn(&mut Range) -> Committed) -> Committed {
        let range = self.committed.as_mut()?;
        while let Some(item) = next(range) {
            match item {
                Ok(point) if self.deleted.iter().any(|range| range.has(point.at.as_nanos())) => {}
                item => return Some(item),
            }
        }
        self.committed = None;
        None
    }
}

impl Iterator for TransactionRange {
    type Item = Result<Point>;

    fn next(&mut self) -> Option<Result<Point>> {
        let mut committed = self.front.take();
        if committed.is_none() {
            committed = match self.committed(Iterator::next) {
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(point)) => Some(point),
                // The two ends meet.
                None => self.back.take(),
            };
        }
        let Some(staged) = self.staged.first_entry() else { return committed.map(Ok) };
        match committed {
            Some(point) if point.at.as_nanos() < *staged.key() => Some(Ok(point)),
            Some(point) if point.at.as_nanos() > *staged.key() => {
                self.front = Some(point);
                Some(Ok(staged.remove()))
            }
            // What is staged replaces what is committed.
            _ => Some(Ok(staged.remove())),
        }
    }
}

impl DoubleEndedIterator for TransactionRange {
    fn next_back(&mut self) -> Option<Result<Point>> {
        let mut committed = self.back.take();
        if committed.is_none() {
            committed = match self.committed(DoubleEndedIterator::next_back) {
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(point)) => Some(point),
                None => self.front.take(),
            };
        }
        let Some(staged) = self.staged.last_entry() else { return committed.map(Ok) };
        match committed {
            Some(point) if point.at.as_nanos() > *staged.key() => Some(Ok(point)),
            Some(point) if point.at.as_nanos() < *staged.key() => {
                self.back = Some(point);
                Some(Ok(staged.remove()))
            }
            _ => Some(Ok(staged.remove())),
        }
    }
}
