//! Lanes: the write side of the metrics.
//!
//! A lane is the heads that one lock serves, and a queue of slices, which are the parts of commits that concern those heads. The
//! queue has the log's order, since a slice is pushed in the critical section that numbers its commit; slices are taken only
//! under the lane's lock, and applied before it is released. So each head goes through the log's history, and through nothing
//! else (`design/concurrency.md`, invariants 1 to 3).

use crate::names::{MetricId, Names};
use crate::planted::{Bug, PANIC_VALUE, Planted};
use crate::sync::{Arc, Mutex, make_mut};

use super::commit::Slice;
use super::marks::LiveVersions;
use super::partition::PartitionRef;
use super::partition_map::{Cover, PartitionMap};
use super::record::{Command, RecordedStream};
use super::stream::ClosedStream;
use super::transaction::Version;
use super::window::Window;

/// See the module. The queue's lock is a leaf; it is taken with or without that of the heads.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub(crate) queue: Mutex<Vec<Slice>>,
    pub(crate) heads: Mutex<Heads>,
}

/// The heads of one lane, by `id / lanes`.
#[derive(Debug, Default)]
pub(crate) struct Heads(Vec<Option<Head>>);

/// The write side of one metric.
#[derive(Debug)]
struct Head {
    /// The working map: newer than the published one by the commits in flight.
    map: Arc<PartitionMap>,
    /// The partition of the map's last slot and the first time it covers: where nearly all points go.
    newest: Option<(i64, PartitionRef)>,
    window: Window,
    /// The last commit that made the metric or wrote to it: what a checked transaction compares.
    last_write: Version,
}

// Each metric has one.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Option<Head>>() == 40);

/// How many points are appended before readers of the partition get their turn.
const POINTS_PER_LOCK: usize = 4_096;

/// What a commit changed in the tree: the map that a metric has after it, or none if it is gone.
pub(crate) type Change = (MetricId, Option<Arc<PartitionMap>>);

/// What applying a command needs to know besides the heads.
#[derive(Debug)]
pub(crate) struct Applying<'a> {
    /// The version of the commit that the command belongs to.
    pub(crate) version: Version,
    pub(crate) live: &'a LiveVersions,
    /// The encoded streams of the section that the command is in; none if only the record has them.
    pub(crate) streams: &'a [Arc<Vec<u8>>],
    pub(crate) names: &'a Names,
    /// How many lanes there are.
    pub(crate) lanes: u32,
    pub(crate) planted: Planted,
}

impl Heads {
    /// Applies one command of a slice; it cannot fail. A command for a head that is not there does nothing: the metric was dropped by
    /// an earlier commit. A metric whose map changes is added to `changed`, perhaps several times.
    pub(crate) fn apply(
        &mut self,
        command: Command<'_>,
        context: &Applying<'_>,
        changed: &mut Vec<MetricId>,
    ) {
        let Some(metric) = command.metric() else { return };
        let place = (metric.0 / context.lanes) as usize;
        match command {
            Command::Create { namespace, .. } => {
                if self.0.len() <= place {
                    self.0.resize_with(place + 1, || None);
                }
                let slot = &mut self.0[place];
                if let Some(namespace) = context.names.namespace_by_id(namespace)
                    && slot.is_none()
                {
                    changed.push(metric);
                    *slot = Some(Head {
                        map: Arc::new(PartitionMap::default()),
                        newest: None,
                        window: Window::new(namespace.options().block_ns),
                        last_write: context.version,
                    });
                }
            }
            Command::Drop { .. } => {
                if self.0.get_mut(place).is_some_and(|slot| slot.take().is_some()) {
                    changed.push(metric);
                }
            }
            command => {
                let Some(head) = self.0.get_mut(place).and_then(Option::as_mut) else { return };
                head.last_write = context.version;
                if head.write(command, context) && changed.last() != Some(&metric) {
                    changed.push(metric);
                }
            }
        }
    }

    /// The last applied commit that wrote to a metric; none if the metric is not there.
    pub(crate) fn last_write(&self, metric: MetricId, lanes: u32) -> Option<Version> {
        let head = self.0.get((metric.0 / lanes) as usize).and_then(Option::as_ref);
        head.map(|head| head.last_write)
    }

    /// The maps that metrics have now, after the last command of a slice. Not sooner: a map that somebody else holds is copied whole
    /// when it changes again.
    pub(crate) fn changes(&self, mut changed: Vec<MetricId>, lanes: u32) -> Vec<Change> {
        changed.sort_unstable();
        changed.dedup();
        let map = |metric: MetricId| {
            let head = self.0.get((metric.0 / lanes) as usize).and_then(Option::as_ref);
            (metric, head.map(|head| head.map.clone()))
        };
        changed.into_iter().map(map).collect()
    }
}

impl Head {
    /// Applies a command about points. Returns whether the map changed.
    fn write(&mut self, command: Command<'_>, context: &Applying<'_>) -> bool {
        match command {
            Command::Point { value: PANIC_VALUE, .. } if context.planted.has(Bug::PanicInSlice) => {
                panic!("planted, in a slice")
            }
            Command::Point { at, value, .. } => self.append(std::iter::once((at, value)), b"", context),
            Command::Annotated { at, value, annotation, .. } => {
                self.append(std::iter::once((at, value)), annotation, context)
            }
            Command::Columns { columns, .. } => self.append(columns, b"", context),
            Command::Streams { streams, .. } => {
                streams.fold(false, |changed, stream| changed | self.adopt(&stream, context))
            }
            Command::Delete { first, last, .. } => self.delete(Cover { first, last }, context),
            _ => false,
        }
    }

    /// Appends points, a run of them that falls into one partition at a time.
    fn append(
        &mut self,
        points: impl Iterator<Item = (i64, f64)>,
        annotation: &[u8],
        context: &Applying<'_>,
    ) -> bool {
        let mut map_changed = false;
        let mut points = points.peekable();
        while let Some(&(at, _)) = points.peek() {
            let Some((cover, partition)) = self.partition(at) else {
                self.insert(at);
                map_changed = true;
                continue;
            };
            let mut partition = partition.lock();
            for _ in 0..POINTS_PER_LOCK {
                let Some((at, value)) = points.next_if(|(at, _)| cover.has(*at)) else { break };
                partition.append(at, value, annotation);
            }
            // No reader is at this version yet, so a mark in the middle of the commit shows nothing to anybody.
            partition.mark(context.version, context.live, context.planted);
        }
        map_changed
    }

    /// Appends an encoded stream: in one step if all its points go to one partition and are newer than what is in it, else point by
    /// point.
    fn adopt(&mut self, stream: &RecordedStream<'_>, context: &Applying<'_>) -> bool {
        let map_changed = self.partition(stream.first).is_none();
        if map_changed {
            self.insert(stream.first);
        }
        if let Some((cover, partition)) = self.partition(stream.first)
            && cover.has(stream.last)
        {
            let bytes = context.streams.get(stream.number).cloned();
            let bytes = bytes.unwrap_or_else(|| Arc::new(stream.bytes.to_vec()));
            let RecordedStream { first, last, points, .. } = *stream;
            let mut partition = partition.lock();
            if partition.adopt(ClosedStream { first, last, points, bytes }) {
                if !context.planted.has(Bug::AdoptWithoutMark) {
                    partition.mark(context.version, context.live, context.planted);
                }
                return map_changed;
            }
        }
        let points = stream.decode().expect("a stream of this process, or one that replay has checked");
        map_changed | self.append(points.into_iter(), b"", context)
    }

    /// The partition that takes points at this time, and all the times that it covers.
    fn partition(&self, at: i64) -> Option<(Cover, &PartitionRef)> {
        match &self.newest {
            Some((first, newest)) if at >= *first => Some((Cover { first: *first, last: i64::MAX }, newest)),
            _ => {
                let slot = self.map.route(at);
                let partition = self.map.slots()[slot].active.as_ref()?;
                Some((self.map.cover(slot), partition))
            }
        }
    }

    /// Makes a partition for a time that none covers.
    fn insert(&mut self, at: i64) {
        let partition = PartitionRef::new(self.window);
        self.change_map(|map, window| map.insert(at, window, partition));
    }

    /// Hides all points in `range`: partitions wholly inside leave the map, others get a tombstone.
    fn delete(&mut self, range: Cover, context: &Applying<'_>) -> bool {
        let mut empties = false;
        for (index, slot) in self.map.slots().iter().enumerate() {
            let cover = self.map.cover(index);
            let Some(partition) = slot.active.as_ref().filter(|_| range.overlaps(cover)) else { continue };
            if range.contains(cover) {
                empties = true;
            } else {
                let mut partition = partition.lock();
                partition.delete(range);
                partition.mark(context.version, context.live, context.planted);
            }
        }
        if empties {
            self.change_map(|map, _| map.retain(|cover, _| !range.contains(cover)));
        }
        empties
    }

    fn change_map(&mut self, change: impl FnOnce(&mut PartitionMap, Window)) {
        change(make_mut(&mut self.map), self.window);
        let last = self.map.slots().len() - 1;
        let newest = self.map.slots()[last].active.clone();
        self.newest = newest.map(|partition| (self.map.cover(last).first, partition));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::record::{Commands, SectionWriter};
    use super::*;
    use crate::names::{NamespaceId, NamespaceOptions, Tags};

    /// The metric `m`, in blocks of 10 nanoseconds.
    const METRIC: MetricId = MetricId(0);

    fn names() -> Names {
        Names::new(0, NamespaceOptions { block_ns: 10, shards: 1 })
    }

    fn context<'a>(names: &'a Names, live: &'a LiveVersions) -> Applying<'a> {
        Applying { version: Version(1), live, streams: &[], names, lanes: 1, planted: Planted::default() }
    }

    fn created(context: &Applying<'_>) -> Heads {
        let mut heads = Heads::default();
        let create =
            Command::Create { metric: METRIC, namespace: NamespaceId(0), name: b"m", tags: Tags::none() };
        heads.apply(create, context, &mut Vec::new());
        heads
    }

    #[test]
    fn encoded_streams_are_adopted_if_they_are_newer_and_fit_a_partition() {
        let (names, live) = (names(), LiveVersions::default());
        let mut heads = created(&context(&names, &live));
        let mut side_entries = Vec::new();
        // The newest partition; newer points; some that begin within these; older ones, of three partitions; some of these again.
        for times in [100..105, 105..140, 138..160, 50..80, 60..70] {
            let values: Vec<f64> = times.clone().map(|at| at as f64).collect();
            let streams = ClosedStream::of_columns(Window::new(10), times, &values).expect("small gaps");
            let mut section = SectionWriter::new();
            section.streams(METRIC, streams);
            let (bytes, streams) = section.into_parts();
            let context = Applying { streams: &streams, ..context(&names, &live) };
            for command in Commands::new(&bytes) {
                heads.apply(command.expect("just written"), &context, &mut Vec::new());
            }
            let head = heads.0[0].as_ref().expect("created");
            let partitions = head.map.slots().iter().filter_map(|slot| slot.active.as_ref());
            side_entries.push(partitions.map(|active| active.lock().usage().lengths.side).sum::<u64>());
        }
        assert_eq!(side_entries, [0, 0, 2, 2, 12]);
        let head = heads.0[0].as_ref().expect("created");
        let points = |at| head.map.active(at).expect("written").lock().usage().lengths.points;
        assert_eq!([points(100), points(50), points(60), points(79)], [60, 10, 10, 10]);
    }

    #[test]
    fn a_slice_that_changes_a_map_often_copies_it_once() {
        let (names, live) = (names(), LiveVersions::default());
        let context = context(&names, &live);
        let mut heads = created(&context);
        let metric = METRIC;

        let mut changed = Vec::new();
        heads.apply(Command::Point { metric, at: 1_000, value: 0.0 }, &context, &mut changed);
        let map = Arc::as_ptr(&heads.0[0].as_ref().expect("created").map);
        for at in (0..1_000).rev().step_by(10) {
            heads.apply(Command::Point { metric, at, value: 0.0 }, &context, &mut changed);
        }
        let head = heads.0[0].as_ref().expect("created");
        assert_eq!(Arc::as_ptr(&head.map), map, "nobody else holds it, so it is changed in place");
        assert_eq!(head.map.slots().iter().filter(|slot| slot.active.is_some()).count(), 101);
        assert_eq!(heads.changes(changed, 1).len(), 1);
    }
}
