//! Heads: the write side of one metric.
//!
//! A head has the metric's working map, which is newer than the published one by the commits in flight. Whatever it does depends on
//! the log's history alone, so that recovery comes to the same map.

use crate::sync::{Arc, make_mut};

use super::lane::{Applying, Group};
use super::partition::PartitionRef;
use super::partition_map::{Cover, PartitionMap};
use super::record::{Command, RecordedStream};
use super::stream::ClosedStream;
use super::transaction::Version;
use crate::planted::{Bug, PANIC_VALUE};
use crate::sealed::BlockVolume;

/// See the module.
#[derive(Debug)]
pub(super) struct Head {
    map: Arc<PartitionMap>,
    /// The partition on top of the map's last layer, if that is open-ended, and the first time it covers: where nearly all points go.
    newest: Option<(i64, PartitionRef)>,
    /// The last commit that made the metric or wrote to it: what a checked transaction compares.
    last_write: Version,
    /// The place of the metric's group in its lane.
    group: u32,
}

// Each metric has one.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Option<Head>>() == 40);

/// How many points are appended before readers of the partition get their turn.
const POINTS_PER_LOCK: usize = 4_096;

impl Head {
    pub(super) fn new(group: u32, version: Version) -> Self {
        Head { map: Arc::new(PartitionMap::default()), newest: None, last_write: version, group }
    }

    /// A head with a map that a checkpoint had, as of a version.
    pub(super) fn restored(group: u32, version: Version, map: Arc<PartitionMap>) -> Self {
        let mut head = Head { map, newest: None, last_write: version, group };
        head.find_newest();
        head
    }

    pub(super) fn map(&self) -> &Arc<PartitionMap> {
        &self.map
    }

    pub(super) fn last_write(&self) -> Version {
        self.last_write
    }

    pub(super) fn group(&self) -> u32 {
        self.group
    }

    /// Applies a command about points. Returns whether the map changed.
    pub(super) fn write(&mut self, command: Command<'_>, group: &Group, context: &Applying<'_>) -> bool {
        self.last_write = context.version;
        match command {
            Command::Point { value: PANIC_VALUE, .. } if context.planted.has(Bug::PanicInSlice) => {
                panic!("planted, in a slice")
            }
            Command::Point { at, value, .. } => {
                self.append(std::iter::once((at, value)), b"", group, context)
            }
            Command::Annotated { at, value, annotation, .. } => {
                self.append(std::iter::once((at, value)), annotation, group, context)
            }
            Command::Columns { columns, .. } => self.append(columns, b"", group, context),
            Command::Streams { streams, .. } => {
                streams.fold(false, |changed, stream| changed | self.adopt(&stream, group, context))
            }
            Command::Delete { first, last, .. } => self.delete(Cover { first, last }, group, context),
            _ => false,
        }
    }

    /// Puts a volume in the place of partitions born until a version, or nothing if nothing was in them. That is no write: what is read stays
    /// the same.
    pub(super) fn install(&mut self, volume: &BlockVolume, frozen_until: Version, context: &Applying<'_>) {
        let BlockVolume { cover, id, is_empty, .. } = *volume;
        let base = context.bases.successor(self.map.base(), cover, (!is_empty).then_some(id));
        let is_frozen = |partition: &PartitionRef| partition.born() <= frozen_until;
        if context.planted.has(Bug::DrainFrozen) {
            let frozen = self.map.partitions().filter(|partition| is_frozen(partition));
            frozen.for_each(|partition| partition.drain(cover, context.version));
        }
        self.change_map(|map| map.install(cover, base, is_frozen, rest_at(context.version)));
    }

    /// Appends points, a run of them that falls into one partition at a time.
    fn append(
        &mut self,
        points: impl Iterator<Item = (i64, f64)>,
        annotation: &[u8],
        group: &Group,
        context: &Applying<'_>,
    ) -> bool {
        let mut map_changed = false;
        let mut points = points.peekable();
        while let Some(&(at, _)) = points.peek() {
            let Some((cover, partition)) = self.writable(at, group) else {
                self.make(at, group, context);
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

    /// Appends an encoded stream: in one step if all its points lie in one window, go to one partition and are newer than what is in it, else
    /// point by point. (A salvage may have made up other windows than those that the log's streams were cut at.)
    fn adopt(&mut self, stream: &RecordedStream<'_>, group: &Group, context: &Applying<'_>) -> bool {
        let map_changed = self.writable(stream.first, group).is_none();
        if map_changed {
            self.make(stream.first, group, context);
        }
        if let Some((cover, partition)) = self.writable(stream.first, group)
            && cover.has(stream.last)
            && group.window.of(stream.first).has(stream.last)
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
        map_changed | self.append(points.into_iter(), b"", group, context)
    }

    /// The partition that takes points at this time, and all the times around in which it does.
    fn writable(&self, at: i64, group: &Group) -> Option<(Cover, &PartitionRef)> {
        match &self.newest {
            Some((first, newest)) if at >= *first && group.freezes.is_empty() => {
                Some((Cover { first: *first, last: i64::MAX }, newest))
            }
            _ => {
                let layer = self.map.layer(at)?;
                let top = layer.stack.last()?;
                Some((group.unfrozen(layer.cover, at, top.born())?, top))
            }
        }
    }

    /// Makes a partition for a time at which none takes points: over what is frozen, or where nothing is.
    fn make(&mut self, at: i64, group: &Group, context: &Applying<'_>) {
        let partition = PartitionRef::new(group.window, context.version, context.memory);
        let frozen = self.map.layer(at).and_then(|layer| {
            let block = group.freeze_of(at, layer.stack.last()?.born())?;
            Some(layer.cover.within(block))
        });
        self.change_map(|map| match frozen {
            Some(part) => map.push(part, partition),
            None => map.insert(at, group.window, partition),
        });
    }

    /// Hides all points in `range`: what lies wholly inside leaves the map, the rest gets a tombstone.
    fn delete(&mut self, range: Cover, group: &Group, context: &Applying<'_>) -> bool {
        // What is frozen stays where install expects it.
        let stays = |cover: Cover| group.is_freezing(cover);
        let mut changed = self.map.has_within(range, stays);
        if changed {
            self.change_map(|map| map.remove(range, stays, rest_at(context.version)));
        }
        let mut next = Some(range.first);
        while let Some(at) = next {
            let piece = self.map.piece(at);
            let part = piece.cover.within(range);
            next = (part.last < range.last).then(|| part.last + 1);
            if piece.sealed.is_some() || !piece.stack.is_empty() {
                changed |= self.hide(part, group, context);
            }
        }
        changed
    }

    /// Puts a tombstone over a part of one piece. Returns whether the map changed.
    fn hide(&mut self, part: Cover, group: &Group, context: &Applying<'_>) -> bool {
        let mut changed = false;
        let mut next = Some(part.first);
        while let Some(at) = next {
            let Some((cover, partition)) = self.writable(at, group) else {
                self.make(at, group, context);
                changed = true;
                continue;
            };
            let here = cover.within(part);
            let piece = self.map.piece(at);
            let mut partition = partition.lock();
            partition.delete(here, piece.sealed.is_some() || piece.stack.len() > 1);
            partition.mark(context.version, context.live, context.planted);
            next = (here.last < part.last).then(|| here.last + 1);
        }
        changed
    }

    fn change_map(&mut self, change: impl FnOnce(&mut PartitionMap)) {
        change(make_mut(&mut self.map));
        self.find_newest();
    }

    /// Goes on with another map. Only for planted bugs.
    pub(super) fn put_back(&mut self, map: Arc<PartitionMap>) {
        self.map = map;
        self.find_newest();
    }

    fn find_newest(&mut self) {
        let newest = self.map.layers().last().filter(|layer| layer.cover.last == i64::MAX);
        self.newest = newest.and_then(|layer| Some((layer.cover.first, layer.stack.last()?.clone())));
    }
}

/// What is left of a partition without some ranges, as the commit of this version leaves it; none if that is nothing.
fn rest_at(version: Version) -> impl Fn(&PartitionRef, &[Cover]) -> Option<PartitionRef> {
    move |partition, gone| gone.iter().try_fold(partition.clone(), |rest, gone| rest.without(*gone, version))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::base::Bases;
    use super::super::lane::Heads;
    use super::super::marks::LiveVersions;
    use super::super::memory::Memory;
    use super::super::record::{Commands, SectionWriter};
    use super::super::window::Window;
    use super::*;
    use crate::names::{MetricId, Names, NamespaceId, NamespaceOptions};
    use crate::planted::Planted;

    /// The metric `m`, in blocks of 10 nanoseconds.
    const METRIC: MetricId = MetricId(0);

    fn names() -> Names {
        Names::new(0, NamespaceOptions { block_ns: 10, shards: 1 })
    }

    /// What a command that is applied alone needs.
    #[derive(Default)]
    struct Around {
        live: LiveVersions,
        bases: Bases,
        memory: Memory,
    }

    impl Around {
        fn context<'a>(&'a self, names: &'a Names) -> Applying<'a> {
            let Around { live, bases, memory } = self;
            let (version, planted) = (Version(1), Planted::default());
            Applying { version, live, streams: &[], names, bases, memory, lane: 0, lanes: 1, planted }
        }
    }

    fn created(context: &Applying<'_>) -> Heads {
        let default = context.names.namespace_by_id(NamespaceId(0)).expect("there from the beginning");
        context.names.metric(&default, b"m").expect("valid");
        let mut heads = Heads::default();
        let create = Command::Create { metric: METRIC, namespace: NamespaceId(0), name: b"m", tags: None };
        heads.apply(create, context, &mut Vec::new());
        heads
    }

    #[test]
    fn encoded_streams_are_adopted_if_they_are_newer_and_fit_a_partition() {
        let (names, around) = (names(), Around::default());
        let mut heads = created(&around.context(&names));
        let mut side_entries = Vec::new();
        // The newest partition; newer points; some that begin within these; older ones, of three partitions; some of these again.
        for times in [100..105, 105..140, 138..160, 50..80, 60..70] {
            let values: Vec<f64> = times.clone().map(|at| at as f64).collect();
            let streams = ClosedStream::of_columns(Window::new(10), times, &values).expect("small gaps");
            let mut section = SectionWriter::new();
            section.streams(METRIC, streams);
            let (bytes, streams) = section.into_parts();
            let context = Applying { streams: &streams, ..around.context(&names) };
            for command in Commands::new(&bytes) {
                heads.apply(command.expect("just written"), &context, &mut Vec::new());
            }
            let head = heads.head(METRIC, 1).expect("created");
            let partitions = head.map.partitions();
            side_entries.push(partitions.map(|active| active.lock().usage().side_entries).sum::<u64>());
        }
        assert_eq!(side_entries, [0, 0, 2, 2, 12]);
        let head = heads.head(METRIC, 1).expect("created");
        let points = |at| {
            let usage = head.map.layer(at).expect("written").stack[0].lock().usage();
            usage.points - usage.side_entries
        };
        assert_eq!([points(100), points(50), points(60), points(79)], [60, 10, 10, 10]);
    }

    #[test]
    fn a_slice_that_changes_a_map_often_copies_it_once() {
        let (names, around) = (names(), Around::default());
        let context = around.context(&names);
        let mut heads = created(&context);
        let metric = METRIC;

        let mut changed = Vec::new();
        heads.apply(Command::Point { metric, at: 1_000, value: 0.0 }, &context, &mut changed);
        let map = Arc::as_ptr(&heads.head(METRIC, 1).expect("created").map);
        for at in (0..1_000).rev().step_by(10) {
            heads.apply(Command::Point { metric, at, value: 0.0 }, &context, &mut changed);
        }
        let head = heads.head(METRIC, 1).expect("created");
        assert_eq!(Arc::as_ptr(&head.map), map, "nobody else holds it, so it is changed in place");
        assert_eq!(head.map.layers().len(), 101);
        assert_eq!(heads.changes(changed, 1).len(), 1);
    }
}
