//! Cursors over one metric in one snapshot: block by block or point by point, from both ends.

use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::m3tsz::{DecodeError, EncoderOptions, ValueCoding};
use crate::mvcc::partition_map::{Cover, PartitionMap, Piece};
use crate::mvcc::transaction::Version;
use crate::names::Metric;
use crate::sealed::{SealedStream, VolumeId};
use crate::snapshot::Snapshot;
use crate::sync::Arc;

use super::block::{Block, Point, Points};
use super::sealed::{Encoded, Place, Sealed};
use super::spans::Spans;
use super::stack::Stack;

/// The points of a metric in a range of time, as columns of consecutive points. Made by
/// [`Snapshot::blocks`](crate::Snapshot::blocks).
///
/// Blocks come in time order, or from the end with [`next_back`](Iterator::rev); what one call returns is disjoint from all others.
/// It keeps its snapshot alive.
pub struct Blocks {
    snapshot: Snapshot,
    cover: Cover,
    source: Option<(Metric, Arc<PartitionMap>)>,
    /// The times whose pieces of the map are not yet begun.
    left: Option<Cover>,
    /// Partitions born later are left out.
    frozen: Option<Version>,
    front: Begun,
    back: Begun,
    /// To be reported before anything else.
    error: Option<Error>,
}

/// What was begun at one end.
#[derive(Default)]
struct Begun {
    stack: Option<Stack<SealedStream>>,
    /// The volume whose stream was read last, and places in that stream: a block that partitions cut into pieces is decoded once, not once for
    /// each piece.
    volume: Option<VolumeId>,
    places: Vec<Place>,
}

impl Begun {
    /// Goes on with the next piece, which has this volume.
    fn go_on(&mut self, volume: Option<VolumeId>, mut stack: Option<Stack<SealedStream>>) {
        if let Some(before) = self.stack.as_mut().and_then(Stack::sealed) {
            self.places = before.take_known();
        }
        if volume.is_some() && volume != self.volume {
            (self.volume, self.places) = (volume, Vec::new());
        }
        if let Some(sealed) = stack.as_mut().and_then(Stack::sealed) {
            sealed.tell(std::mem::take(&mut self.places));
        }
        self.stack = stack;
    }
}

impl std::fmt::Debug for Blocks {
    /// What it goes over, not what is in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut blocks = f.debug_struct("Blocks");
        blocks.field("snapshot", &self.snapshot).field("cover", &self.cover).finish_non_exhaustive()
    }
}

impl Blocks {
    /// The points of a metric within `cover`, if it exists in the snapshot.
    pub(crate) fn new(snapshot: Snapshot, metric: &Metric, cover: Cover) -> Self {
        let map = snapshot.transaction().map(metric.id()).cloned();
        let source = map.map(|map| (metric.clone(), map));
        Blocks::over(snapshot, source, cover)
    }

    fn over(snapshot: Snapshot, source: Option<(Metric, Arc<PartitionMap>)>, cover: Cover) -> Self {
        let left = source.is_some().then_some(cover);
        let (front, back) = (Begun::default(), Begun::default());
        Blocks { snapshot, cover, source, left, frozen: None, front, back, error: None }
    }

    /// As [`Blocks::new`], of what was frozen at a version: without partitions that are younger.
    pub(crate) fn frozen(snapshot: Snapshot, metric: &Metric, cover: Cover, freeze: Version) -> Self {
        Blocks { frozen: Some(freeze), ..Blocks::new(snapshot, metric, cover) }
    }

    /// No points at all.
    pub(crate) fn empty(snapshot: Snapshot) -> Self {
        Blocks::over(snapshot, None, Cover::ALL)
    }

    /// An error in place of points.
    pub(crate) fn failed(snapshot: Snapshot, error: Error) -> Self {
        Blocks { error: Some(error), ..Blocks::empty(snapshot) }
    }

    /// The points of a piece within `part`.
    fn open(&self, metric: &Metric, piece: &Piece<'_>, part: Cover) -> Opened<SealedStream> {
        let stream = |volume| self.snapshot.sealed_volume(volume, metric)?.stream_of(metric);
        Opened::new(piece, part, self.snapshot.version(), self.frozen, stream)
    }

    /// Opens the first piece not yet begun. False if there is none.
    fn open_front(&mut self) -> bool {
        let (Some((metric, map)), Some(left)) = (&self.source, self.left) else { return false };
        let piece = map.piece(left.first);
        let part = piece.cover.within(left);
        let Opened { stack, error } = self.open(metric, &piece, part);
        self.left = (part.last < left.last).then(|| Cover { first: part.last + 1, ..left });
        self.front.go_on(piece.sealed, stack);
        self.error = error;
        true
    }

    /// As [`Blocks::open_front`], from the other end.
    fn open_back(&mut self) -> bool {
        let (Some((metric, map)), Some(left)) = (&self.source, self.left) else { return false };
        let piece = map.piece(left.last);
        let part = piece.cover.within(left);
        let Opened { stack, error } = self.open(metric, &piece, part);
        self.left = (part.first > left.first).then(|| Cover { last: part.first - 1, ..left });
        self.back.go_on(piece.sealed, stack);
        self.error = error;
        true
    }
}

/// A piece that was begun.
pub(crate) struct Opened<E> {
    pub(crate) stack: Option<Stack<E>>,
    pub(crate) error: Option<Error>,
}

impl<E: Encoded> Opened<E> {
    /// The points of a piece within `part` that a snapshot at `version` sees, without partitions born after `frozen`, if that is given. `stream`
    /// finds the metric's stream in a volume; if it fails, there are the points of the partitions, and an error before them.
    pub(crate) fn new(
        piece: &Piece<'_>,
        part: Cover,
        version: Version,
        frozen: Option<Version>,
        stream: impl FnOnce(VolumeId) -> Result<Option<E>>,
    ) -> Self {
        let partitions = piece.stack.iter().rev();
        let partitions =
            partitions.filter(|partition| frozen.is_none_or(|freeze| partition.born() <= freeze));
        let mut spans: SmallVec<[Spans; 1]> = SmallVec::new();
        for partition in partitions {
            spans.extend(Spans::new(partition, version, part));
            if spans.last().is_some_and(Spans::hides_all_below) {
                return Opened { stack: pile(None, spans), error: None };
            }
        }
        match piece.sealed.map_or(Ok(None), stream) {
            Ok(stream) => {
                let stream = stream.map(|stream| Stack::Sealed(Sealed::new(stream, part)));
                Opened { stack: pile(stream, spans), error: None }
            }
            Err(error) => Opened { stack: pile(None, spans), error: Some(error) },
        }
    }
}

/// A stream with partitions over it, given from the top.
fn pile<E: Encoded>(sealed: Option<Stack<E>>, spans: SmallVec<[Spans; 1]>) -> Option<Stack<E>> {
    spans.into_iter().rev().fold(sealed, |below, upper| {
        Some(match below {
            Some(below) => below.under(upper),
            None => Stack::Spans(upper),
        })
    })
}

impl Encoded for SealedStream {
    fn bytes(&self) -> &[u8] {
        SealedStream::bytes(self)
    }

    fn coding(&self) -> ValueCoding {
        // What sealing writes.
        EncoderOptions::default().values
    }

    fn damaged(&self, damage: DecodeError) -> Error {
        self.corrupt(damage.bit / 8, "the stream does not decode, though its checksum is right")
    }
}

impl Iterator for Blocks {
    type Item = Result<Block>;

    fn next(&mut self) -> Option<Result<Block>> {
        loop {
            if let Some(error) = self.error.take() {
                return Some(Err(error));
            }
            if let Some(block) = self.front.stack.as_mut().and_then(Iterator::next) {
                return Some(block);
            }
            if !self.open_front() {
                return self.back.stack.as_mut()?.next();
            }
        }
    }
}

impl DoubleEndedIterator for Blocks {
    fn next_back(&mut self) -> Option<Result<Block>> {
        loop {
            if let Some(error) = self.error.take() {
                return Some(Err(error));
            }
            if let Some(block) = self.back.stack.as_mut().and_then(DoubleEndedIterator::next_back) {
                return Some(block);
            }
            if !self.open_back() {
                return self.front.stack.as_mut()?.next_back();
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
