//! Cursors over one metric in one snapshot: block by block or point by point, from both ends.

use crate::error::{Error, Result};
use crate::mvcc::partition_map::{Cover, PartitionMap};
use crate::snapshot::Snapshot;
use crate::sync::Arc;

use super::block::{Block, Point, Points};
use super::spans::Spans;

/// The points of a metric in a range of time, as columns of consecutive points. Made by
/// [`Snapshot::blocks`](crate::Snapshot::blocks).
///
/// Blocks come in time order, or from the end with [`next_back`](Iterator::rev); what one call returns is disjoint from all others.
/// It keeps its snapshot alive.
pub struct Blocks {
    snapshot: Snapshot,
    cover: Cover,
    map: Option<Arc<PartitionMap>>,
    /// Slots of the map not yet begun.
    slots: std::ops::Range<usize>,
    front: Option<Spans>,
    back: Option<Spans>,
    /// Reported once, instead of points.
    error: Option<Error>,
}

impl std::fmt::Debug for Blocks {
    /// What it goes over, not what is in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut blocks = f.debug_struct("Blocks");
        blocks.field("snapshot", &self.snapshot).field("cover", &self.cover).finish_non_exhaustive()
    }
}

impl Blocks {
    /// The points of a map within `cover`; nothing without a map.
    pub(crate) fn new(snapshot: Snapshot, map: Option<Arc<PartitionMap>>, cover: Cover) -> Self {
        let slots = map.as_ref().map_or(0..0, |map| map.route(cover.first)..map.route(cover.last) + 1);
        Blocks { snapshot, cover, map, slots, front: None, back: None, error: None }
    }

    /// No points at all.
    pub(crate) fn empty(snapshot: Snapshot) -> Self {
        Blocks::new(snapshot, None, Cover::ALL)
    }

    /// An error in place of points.
    pub(crate) fn failed(snapshot: Snapshot, error: Error) -> Self {
        Blocks { error: Some(error), ..Blocks::empty(snapshot) }
    }

    fn open(&self, slot: usize) -> Option<Spans> {
        let partition = self.map.as_ref()?.slots().get(slot)?.active.as_ref()?;
        Spans::new(partition, self.snapshot.version(), self.cover)
    }
}

impl Iterator for Blocks {
    type Item = Result<Block>;

    fn next(&mut self) -> Option<Result<Block>> {
        if let Some(error) = self.error.take() {
            return Some(Err(error));
        }
        loop {
            if let Some(block) = self.front.as_mut().and_then(Iterator::next) {
                return Some(block);
            }
            match self.slots.next() {
                Some(slot) => self.front = self.open(slot),
                None => return self.back.as_mut()?.next(),
            }
        }
    }
}

impl DoubleEndedIterator for Blocks {
    fn next_back(&mut self) -> Option<Result<Block>> {
        if let Some(error) = self.error.take() {
            return Some(Err(error));
        }
        loop {
            if let Some(block) = self.back.as_mut().and_then(DoubleEndedIterator::next_back) {
                return Some(block);
            }
            match self.slots.next_back() {
                Some(slot) => self.back = self.open(slot),
                None => return self.front.as_mut()?.next_back(),
            }
        }
    }
}

/// The points of a metric in a range of time. Made by [`Snapshot::range`](crate::Snapshot::range).
///
/// Points come in time order, each time once, or from the end with [`rev`](Iterator::rev); both ends may be mixed. It keeps its
/// snapshot alive.
pub struct Range {
    blocks: Blocks,
    front: Option<Points>,
    back: Option<Points>,
}

impl std::fmt::Debug for Range {
    /// What it goes over, not what is in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Range").field("blocks", &self.blocks).finish_non_exhaustive()
    }
}

impl Range {
    pub(crate) fn new(blocks: Blocks) -> Self {
        Range { blocks, front: None, back: None }
    }
}

impl Iterator for Range {
    type Item = Result<Point>;

    fn next(&mut self) -> Option<Result<Point>> {
        loop {
            if let Some(point) = self.front.as_mut().and_then(Iterator::next) {
                return Some(Ok(point));
            }
            match self.blocks.next() {
                Some(Ok(block)) => self.front = Some(block.into()),
                Some(Err(error)) => return Some(Err(error)),
                None => return self.back.as_mut()?.next().map(Ok),
            }
        }
    }
}

impl DoubleEndedIterator for Range {
    fn next_back(&mut self) -> Option<Result<Point>> {
        loop {
            if let Some(point) = self.back.as_mut().and_then(DoubleEndedIterator::next_back) {
                return Some(Ok(point));
            }
            match self.blocks.next_back() {
                Some(Ok(block)) => self.back = Some(block.into()),
                Some(Err(error)) => return Some(Err(error)),
                None => return self.front.as_mut()?.next_back().map(Ok),
            }
        }
    }
}
