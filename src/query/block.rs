//! Columns of consecutive points, and single points.

use std::ops::Range;

use crate::mvcc::partition_map::Cover;
use crate::time::Timestamp;

/// One point of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// When.
    pub at: Timestamp,
    /// What; any bits, NaN payloads included.
    pub value: f64,
    /// Bytes that were given with it.
    pub annotation: Option<Box<[u8]>>,
}

/// Consecutive points of one metric as columns: ascending in time, each time once, never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    pub(super) timestamps: Vec<i64>,
    pub(super) values: Vec<f64>,
    pub(super) annotations: Vec<(u32, Box<[u8]>)>,
}

impl Block {
    /// An empty one, to be filled; no reader is given one as it is.
    pub(super) fn new() -> Self {
        Block::with_capacity(0)
    }

    /// As [`Block::new`], with room for so many points.
    pub(super) fn with_capacity(points: usize) -> Self {
        Block {
            timestamps: Vec::with_capacity(points),
            values: Vec::with_capacity(points),
            annotations: Vec::new(),
        }
    }

    /// Parts of two blocks in time order; at equal times `upper` wins, annotation or not.
    ///
    /// Cost: copies runs, as long as the two do not interleave.
    pub(super) fn overlaid(
        (lower, lower_part): (&Block, Range<usize>),
        (upper, upper_part): (&Block, Range<usize>),
    ) -> Block {
        let mut merged = Block::with_capacity(lower_part.len() + upper_part.len());
        let (mut low, mut up) = (lower_part, upper_part);
        while let (Some(&low_first), Some(&up_first)) =
            (lower.timestamps[low.clone()].first(), upper.timestamps[up.clone()].first())
        {
            if low_first < up_first {
                let end = low.start + run_before(&lower.timestamps[low.clone()], up_first);
                merged.push_part(lower, low.start..end);
                low.start = end;
            } else {
                let end = up.start + run_before(&upper.timestamps[up.clone()], low_first).max(1);
                merged.push_part(upper, up.start..end);
                up.start = end;
                low.start += usize::from(low_first == up_first);
            }
        }
        merged.push_part(lower, low);
        merged.push_part(upper, up);
        merged
    }

    /// Nanoseconds since the Unix epoch, strictly ascending.
    pub fn timestamps(&self) -> &[i64] {
        &self.timestamps
    }

    /// The values at those times.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The annotations: `(index in this block, bytes)`, ascending.
    pub fn annotations(&self) -> &[(u32, Box<[u8]>)] {
        &self.annotations
    }

    /// How many points it has.
    #[allow(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    pub(super) fn push(&mut self, at: i64, value: f64, annotation: Option<Box<[u8]>>) {
        if let Some(annotation) = annotation {
            // A block has at most one stream's points and one partition's side entries, far below 2^32.
            self.annotations.push((self.timestamps.len() as u32, annotation));
        }
        self.timestamps.push(at);
        self.values.push(value);
    }

    /// Leaves out all but the points of a part.
    pub(super) fn into_part(mut self, part: Range<usize>) -> Block {
        if part.start > 0 {
            let mut kept = Block::with_capacity(part.len());
            kept.push_part(&self, part);
            return kept;
        }
        self.truncate(part.end);
        self
    }

    /// Leaves out all points from the given one on.
    pub(super) fn truncate(&mut self, len: usize) {
        self.timestamps.truncate(len);
        self.values.truncate(len);
        let annotations = self.annotations.partition_point(|(index, _)| (*index as usize) < len);
        self.annotations.truncate(annotations);
    }

    /// The places of the points in `cover`.
    pub(super) fn within(&self, cover: Cover) -> Range<usize> {
        let begin = self.timestamps.partition_point(|at| *at < cover.first);
        begin..begin + self.timestamps[begin..].partition_point(|at| *at <= cover.last)
    }

    /// Appends a part of another block, which is later than all here.
    pub(super) fn push_part(&mut self, other: &Block, part: Range<usize>) {
        let shift = |index: u32| (self.timestamps.len() + index as usize - part.start) as u32;
        let begin = other.annotations.partition_point(|(index, _)| (*index as usize) < part.start);
        let annotated =
            other.annotations[begin..].iter().take_while(|(index, _)| (*index as usize) < part.end);
        self.annotations.extend(annotated.map(|(index, bytes)| (shift(*index), bytes.clone())));
        self.timestamps.extend_from_slice(&other.timestamps[part.clone()]);
        self.values.extend_from_slice(&other.values[part]);
    }

    fn point(&self, index: usize) -> Option<Point> {
        let at = Timestamp::from_nanos(*self.timestamps.get(index)?);
        let value = *self.values.get(index)?;
        let annotation = match self.annotations.as_slice() {
            [] => None,
            annotations => {
                let found = annotations.binary_search_by_key(&index, |(at, _)| *at as usize);
                found.ok().map(|place| annotations[place].1.clone())
            }
        };
        Some(Point { at, value, annotation })
    }
}

/// How many of ascending times come before `end`. Cheap if they are few: the search starts at the front.
fn run_before(times: &[i64], end: i64) -> usize {
    let mut reach = 1;
    while times.get(reach - 1).is_some_and(|at| *at < end) {
        reach *= 2;
    }
    // All up to the half of it are known to be earlier.
    let (begin, stop) = (reach / 2, (reach - 1).min(times.len()));
    begin + times[begin..stop].partition_point(|at| *at < end)
}

/// The points of a block, from both ends.
#[derive(Clone, Debug)]
pub(super) struct Points {
    block: Block,
    left: Range<usize>,
}

impl From<Block> for Points {
    fn from(block: Block) -> Self {
        let left = 0..block.len();
        Points { block, left }
    }
}

impl Iterator for Points {
    type Item = Point;

    fn next(&mut self) -> Option<Point> {
        self.block.point(self.left.next()?)
    }
}

impl DoubleEndedIterator for Points {
    fn next_back(&mut self) -> Option<Point> {
        self.block.point(self.left.next_back()?)
    }
}
