//! Columns of consecutive points, and single points.

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
        Block { timestamps: Vec::new(), values: Vec::new(), annotations: Vec::new() }
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

    /// Appends a part of another block, which is later than all here.
    pub(super) fn push_part(&mut self, other: &Block, part: std::ops::Range<usize>) {
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

/// The points of a block, from both ends.
#[derive(Clone, Debug)]
pub(super) struct Points {
    block: Block,
    left: std::ops::Range<usize>,
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
