//! An active partition: the points of one metric between two split points, in memory and writable.
//!
//! It has an in-order part (streams of compressed points, strictly ascending in time), a side buffer for points that are not
//! newer than the newest in-order one, tombstones, and marks. The points only grow, so a snapshot reads a prefix of each
//! part; tombstones are replaced by copies, and it reads those of its mark.
//!
//! Once a freeze is about it, it takes no more points within the block; sealing replaces it by a copy without them
//! (`design/sealing.md`).
//!
//! What a reader sees at a mark: of each time the last visible side entry, else the stream's point; a tombstone hides everything
//! in its range that was there before it, and nothing written after it.

mod state;

pub(crate) use state::PartitionState;

use std::ops::Deref;

use crate::planted::Planted;
use crate::sync::{Arc, Mutex, MutexGuard};

use super::marks::{Extent, Lengths, LiveVersions, Marks};
use super::memory::{Memory, Share};
use super::partition_map::Cover;
use super::side::{Side, SidePrefix};
use super::stream::{ClosedStream, OpenStream, StreamBytes};
use super::tombstones::{Tombstone, Tombstones};
use super::transaction::Version;
use super::window::Window;

/// A counted reference to a partition. (A type of its own, so that another layout in memory can take the place of `Arc`.)
#[derive(Clone, Debug)]
pub(crate) struct PartitionRef(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    /// The commit that made it: a freeze at this version or a later one is about it.
    born: Version,
    partition: Mutex<Partition>,
}

/// See the module. Behind the lock of its [`PartitionRef`].
#[derive(Debug)]
pub(crate) struct Partition {
    window: Window,
    closed: ClosedStreams,
    open: Option<OpenStream>,
    /// The latest time that is not out of order; the streams end here.
    newest: Option<i64>,
    /// None as long as no point was late, which is so for nearly all.
    side: Option<Box<Side>>,
    tombstones: Tombstones,
    marks: Marks,
    /// For all else that takes memory, save chunks, which have their own.
    share: Share,
}

// There may be a million of them.
#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Counted>() <= 312);

/// About what a partition takes without any points: itself, and its part of a map, with what an allocator adds. Measured with many that
/// have a point or two (`design/results/soak.md`); late points make such.
pub(crate) const PARTITION_BYTES: u64 = size_of::<Counted>() as u64 + 48;
/// What a closed stream takes beside its bytes: its entry in the partition, two counted objects and what the allocator adds. Where each stream has
/// a point or two, that is nearly all.
const STREAM_BYTES: u64 = 200;

/// What a side buffer takes before it has an entry: itself, and what the allocator adds.
const SIDE_BYTES: u64 = size_of::<Side>() as u64 + 16;
/// That of a partition that no point was late for.
const NO_SIDE: &Side = &Side::EMPTY;

/// Those of a partition, in order of time. Of most there is none.
#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "a million partitions have room for a pointer rather than for a list"
)]
struct ClosedStreams(Option<Box<Vec<Closed>>>);

#[derive(Clone, Debug)]
struct Closed {
    /// In-order points in the streams before this one.
    before: u64,
    stream: ClosedStream,
    /// For its bytes, however many partitions have it.
    #[expect(dead_code, reason = "it counts by being there")]
    share: Arc<Share>,
}

impl PartitionRef {
    /// An empty partition, made by the commit `born`.
    pub(crate) fn new(window: Window, born: Version, memory: &Memory) -> Self {
        let partition = Partition {
            window,
            closed: ClosedStreams::default(),
            open: None,
            newest: None,
            side: None,
            tombstones: Tombstones::default(),
            marks: Marks::default(),
            share: memory.share(PARTITION_BYTES),
        };
        PartitionRef(Arc::new(Counted { born, partition: Mutex::new(partition) }))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Partition> {
        self.0.partition.lock()
    }

    /// The commit that made it, or that made what it is a copy of.
    pub(crate) fn born(&self) -> Version {
        self.0.born
    }

    /// A partition of the same birth with all that is in this one outside of `block`, as the commit `version` leaves it; none if that is
    /// nothing. Streams, chunks of the open one, and chunks of runs outside of it are shared.
    pub(crate) fn without(&self, block: Cover, version: Version) -> Option<Self> {
        let partition = self.lock().without(block, version)?;
        Some(PartitionRef(Arc::new(Counted { born: self.born(), partition: Mutex::new(partition) })))
    }

    /// Makes it what [`PartitionRef::without`] returns. Only for [`Bug::DrainFrozen`](crate::planted::Bug::DrainFrozen).
    pub(super) fn drain(&self, block: Cover, version: Version) {
        let mut partition = self.lock();
        if let Some(rest) = partition.without(block, version) {
            *partition = rest;
        } else {
            partition.marks = Marks::default();
        }
    }

    /// Tells it from all others that are alive.
    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(&*self.0).addr()
    }

    /// Whether both are the same partition.
    pub(crate) fn is(&self, other: &PartitionRef) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What a snapshot at `version` sees within `cover`; `None` if nothing. Takes the partition's lock for a short time.
    pub(crate) fn view(&self, version: Version, cover: Cover) -> Option<View> {
        let partition = self.lock();
        let Extent { lengths, tombstones } = partition.marks.at(version)?;
        Some(View {
            points: lengths.points,
            cover,
            streams: partition.streams_in(*lengths, cover),
            side: partition.side().prefix(lengths.side, cover),
            tombstones: tombstones.clone(),
        })
    }

    /// Stream `index`, as far as its points are among the first `points` of the partition. Takes the partition's lock for a short
    /// time.
    pub(crate) fn stream(&self, index: usize, points: u64) -> Option<StreamView> {
        let partition = self.lock();
        let (before, first, last, len, bytes) = match partition.closed.get(index) {
            Some(Closed { before, stream, .. }) => {
                let bytes = StreamBytes::shared(stream.bytes.clone());
                (*before, stream.first, stream.last, stream.points, bytes)
            }
            None => {
                let open = partition.open.as_ref()?;
                let Cover { first, last } = open.cover();
                (partition.closed.points(), first, last, open.points(), open.prefix())
            }
        };
        let previous_last =
            index.checked_sub(1).and_then(|before| Some(partition.closed.get(before)?.stream.last));
        let visible = len.min(points.saturating_sub(before));
        Some(StreamView { before, first, last, previous_last, points: visible, bytes })
    }
}

impl Partition {
    /// Adds a point. It never fails: what no stream takes goes to the side buffer.
    pub(crate) fn append(&mut self, at: i64, value: f64, annotation: &[u8]) {
        if self.newest.is_some_and(|newest| at <= newest) {
            return self.push_late(at, value, annotation);
        }
        self.newest = Some(at);
        let memory = self.share.memory();
        if self.open.as_mut().is_some_and(|open| open.append(self.window, at, value, annotation, memory)) {
            return;
        }
        match OpenStream::begin(self.window.of(at), at, value, annotation) {
            Some(next) => {
                if let Some(full) = self.open.replace(next) {
                    self.close(full.close());
                }
            }
            None => self.push_late(at, value, annotation),
        }
    }

    fn push_late(&mut self, at: i64, value: f64, annotation: &[u8]) {
        let side = self.side.get_or_insert_with(|| Box::new(Side::EMPTY));
        side.push(at, value, annotation, self.share.memory());
    }

    fn side(&self) -> &Side {
        self.side.as_deref().unwrap_or(NO_SIDE)
    }

    /// Takes a stream as it is, however long, if its points are newer than all in-order ones. `false`, and nothing is changed, if they
    /// are not.
    pub(crate) fn adopt(&mut self, stream: ClosedStream) -> bool {
        if self.newest.is_some_and(|newest| stream.first <= newest) {
            return false;
        }
        self.newest = Some(stream.last);
        if let Some(open) = self.open.take() {
            self.close(open.close());
        }
        self.close(stream);
        true
    }

    fn close(&mut self, stream: ClosedStream) {
        let before = self.closed.points();
        let share = Arc::new(self.share.memory().share(STREAM_BYTES + stream.bytes.len() as u64));
        self.closed.push(Closed { before, stream, share });
    }

    /// Hides all points in `range` that are there now, and what lies below the partition if there `is_below` anything. Nothing to hide costs
    /// nothing.
    pub(crate) fn delete(&mut self, range: Cover, is_below: bool) {
        let Lengths { points, side } = self.lengths();
        if is_below || !self.streams_in(self.lengths(), range).is_empty() || self.side().touches(range) {
            self.tombstones.add(Tombstone { range, points, side });
        }
    }

    /// See [`PartitionRef::without`].
    fn without(&mut self, block: Cover, version: Version) -> Option<Partition> {
        // A block consists of windows, and a stream lies in one window.
        let goes = |first: i64| block.has(first);
        let mut closed = ClosedStreams::default();
        let mut before = 0;
        for left in self.closed.iter().filter(|closed| !goes(closed.stream.first)) {
            debug_assert!(!block.has(left.stream.last));
            closed.push(Closed { before, ..left.clone() });
            before += left.stream.points;
        }
        let memory = self.share.memory();
        let stays = self.open.as_mut().filter(|open| !goes(open.cover().first));
        let open = stays.map(|open| open.share(memory));
        let side = self.side.as_ref().map(|side| Box::new(side.without(block)));
        let side_entries = side.as_ref().map_or(0, |side| side.entries());
        // Of so many in-order points, how many are left.
        let left = |points: u64| {
            let kept = |first: i64, before: u64, len: u64| match goes(first) {
                true => 0,
                false => len.min(points.saturating_sub(before)),
            };
            let closed = self
                .closed
                .iter()
                .map(|Closed { before, stream, .. }| kept(stream.first, *before, stream.points));
            let open =
                self.open.iter().map(|open| kept(open.cover().first, self.closed.points(), open.points()));
            closed.chain(open).sum()
        };
        let tombstones = self.tombstones.map(|tombstone| {
            let points = left(tombstone.points);
            (!block.contains(tombstone.range)).then_some(Tombstone { points, ..tombstone })
        });
        if closed.is_empty() && open.is_none() && side_entries == 0 && tombstones.len() == 0 {
            return None;
        }
        let latest = open.as_ref().map(|open| open.cover().last).or_else(|| Some(closed.last()?.stream.last));
        // With side entries their time counts too: a point that is not newer than one of them would be older in the stream.
        let newest = if side_entries == 0 { latest } else { self.newest };
        let share = self.share.memory().share(PARTITION_BYTES);
        let (window, marks) = (self.window, Marks::default());
        let mut rest = Partition { window, closed, open, newest, side, tombstones, marks, share };
        let extent = Extent { lengths: rest.lengths(), tombstones: rest.tombstones.clone() };
        rest.marks.set(version, extent, &LiveVersions::default(), Planted::default());
        rest.share.set(rest.bytes());
        Some(rest)
    }

    /// Makes what is there now the state after commit `version`.
    pub(crate) fn mark(&mut self, version: Version, live: &LiveVersions, planted: Planted) {
        let extent = Extent { lengths: self.lengths(), tombstones: self.tombstones.clone() };
        self.marks.set(version, extent, live, planted);
        self.share.set(self.bytes());
    }

    /// About what it takes in memory besides what has a share of its own: closed streams, and chunks of the open one and of the side buffer. Constant time.
    fn bytes(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, OpenStream::own_bytes);
        let side = self.side.as_ref().map_or(0, |side| SIDE_BYTES + side.bytes());
        self.fixed_bytes() + open as u64 + side
    }

    /// What it takes without any points.
    pub(crate) fn fixed_bytes(&self) -> u64 {
        PARTITION_BYTES + self.tombstones.bytes()
    }

    /// What it has within `cover`, window by window: how many points, about how many bytes, and the latest time. A window may come several
    /// times.
    pub(crate) fn windows(&self, cover: Cover, mut found: impl FnMut(Cover, u64, u64, i64)) {
        let closed = self.closed.iter().map(|Closed { stream, .. }| {
            (
                Cover { first: stream.first, last: stream.last },
                stream.points,
                STREAM_BYTES + stream.bytes.len() as u64,
            )
        });
        let open = self.open.iter().map(|open| (open.cover(), open.points(), open.allocated_bytes() as u64));
        for (times, points, bytes) in closed.chain(open).filter(|(times, ..)| times.overlaps(cover)) {
            found(self.window.of(times.first), points, bytes, times.last);
        }
        self.side().windows(self.window, cover, found);
    }

    /// What it takes in memory, for statistics.
    pub(crate) fn usage(&self) -> Usage {
        let open = self.open.as_ref().map_or(0, OpenStream::bytes);
        let closed: usize = self.closed.iter().map(|closed| closed.stream.bytes.len()).sum();
        let side_entries = self.side().entries();
        Usage {
            points: self.lengths().points + side_entries,
            side_entries,
            tombstones: self.tombstones.len() as u64,
            stream_bytes: (open + closed) as u64,
            marks: self.marks.len() as u64,
        }
    }

    fn lengths(&self) -> Lengths {
        Lengths {
            points: self.closed.points() + self.open.as_ref().map_or(0, OpenStream::points),
            side: self.side().len(),
        }
    }

    /// Which streams have visible points in `cover`.
    fn streams_in(&self, visible: Lengths, cover: Cover) -> std::ops::Range<usize> {
        let begin = self.closed.partition_point(|closed| closed.stream.last < cover.first);
        let mut end = self
            .closed
            .partition_point(|closed| closed.stream.first <= cover.last && closed.before < visible.points);
        if let Some(open) = &self.open
            && end == self.closed.len()
            && self.closed.points() < visible.points
            && open.cover().overlaps(cover)
        {
            end += 1;
        }
        begin..end.max(begin)
    }
}

impl ClosedStreams {
    /// How many points they have.
    fn points(&self) -> u64 {
        self.last().map_or(0, |closed| closed.before + closed.stream.points)
    }

    fn push(&mut self, closed: Closed) {
        // Many have one, and no room for more.
        self.0.get_or_insert_with(|| Box::new(Vec::with_capacity(1))).push(closed);
    }
}

impl Deref for ClosedStreams {
    type Target = [Closed];

    fn deref(&self) -> &[Closed] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

/// The parts of a partition that one snapshot sees within a range of time.
#[derive(Debug)]
pub(crate) struct View {
    /// How many in-order points are visible.
    pub(crate) points: u64,
    /// The times that were asked for.
    pub(crate) cover: Cover,
    /// The streams to read, by their place in the partition.
    pub(crate) streams: std::ops::Range<usize>,
    pub(crate) side: SidePrefix,
    pub(crate) tombstones: Tombstones,
}

/// The visible prefix of one stream.
#[derive(Debug)]
pub(crate) struct StreamView {
    /// In-order points of the partition before it.
    pub(crate) before: u64,
    /// The time of its first point.
    pub(crate) first: i64,
    /// The time of its last point, visible or not.
    pub(crate) last: i64,
    /// The last time of the stream before it.
    pub(crate) previous_last: Option<i64>,
    /// How many of its points are visible.
    pub(crate) points: u64,
    pub(crate) bytes: StreamBytes,
}

/// What a partition takes in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) points: u64,
    pub(crate) side_entries: u64,
    pub(crate) tombstones: u64,
    pub(crate) stream_bytes: u64,
    pub(crate) marks: u64,
}
