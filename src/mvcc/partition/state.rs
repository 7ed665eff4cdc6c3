//! What a version sees of a partition, as plain data: what a checkpoint writes, and what a partition is made of again.
//!
//! It is exact: the same points in order and out of order, the same numbers of side entries, and so tombstones that hide the same. Only where
//! streams end may differ: one that has grown since is cut, and encoded anew; a short one goes on when it is back.

use smallvec::SmallVec;

use crate::m3tsz::{DecodeError, Decoder, ValueCoding};
use crate::planted::Planted;
use crate::sync::{Arc, Mutex};

use super::super::marks::{Extent, LiveVersions};
use super::super::memory::Memory;
use super::super::partition_map::Cover;
use super::super::side::{Side, SideEntry};
use super::super::stream::{ClosedStream, OpenStream};
use super::super::tombstones::{Tombstone, Tombstones};
use super::super::transaction::Version;
use super::super::window::Window;
use super::{Closed, ClosedStreams, Counted, PARTITION_BYTES, Partition, PartitionRef};

/// Nobody ever writes so many side entries, and the next ones have numbers too.
const SIDE_LEN_MAX: u64 = u64::MAX >> 1;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct PartitionState {
    pub(crate) born: Version,
    /// In order, none empty.
    pub(crate) streams: SmallVec<[ClosedStream; 1]>,
    /// The number of the next side entry.
    pub(crate) side_len: u64,
    /// In the order of their numbers, which are below `side_len`.
    pub(crate) side: Vec<(SideEntry, Option<Arc<Vec<u8>>>)>,
    /// Disjoint and ascending.
    pub(crate) tombstones: Vec<Tombstone>,
}

impl PartitionRef {
    /// What a snapshot at `version` sees. Takes the partition's lock for a short time.
    ///
    /// # Errors
    /// A stream does not decode.
    pub(crate) fn state(&self, version: Version) -> Result<PartitionState, DecodeError> {
        let partition = self.lock();
        let window = partition.window;
        let Extent { lengths, tombstones } = partition.marks.at(version).cloned().unwrap_or_default();
        let mut left = lengths.points;
        let mut take = |points: u64| {
            let visible = points.min(left);
            left -= visible;
            visible
        };
        let closed = partition.closed.iter().map(|Closed { stream, .. }| (stream, take(stream.points)));
        let visible: Vec<_> = closed
            .take_while(|(_, points)| *points > 0)
            .map(|(stream, points)| (stream.clone(), points))
            .collect();
        let open = (left > 0).then(|| partition.open.clone()).flatten();
        let side = partition.side().prefix(lengths.side, Cover::ALL);
        drop(partition);

        let mut streams = SmallVec::new();
        let open = open.map(|open| (open.close(), left));
        for (stream, points) in visible.into_iter().chain(open) {
            match stream.points == points {
                true => streams.push(stream),
                false => cut(&stream, points, window, &mut streams)?,
            }
        }
        Ok(PartitionState {
            born: self.born(),
            streams,
            side_len: lengths.side,
            side: side.into_entries(),
            tombstones: tombstones.iter().collect(),
        })
    }

    /// A partition with what `state` has, as the commit of `version` left it.
    ///
    /// # Errors
    /// It is not what [`PartitionRef::state`] gives; the reason.
    pub(crate) fn restored(
        state: PartitionState,
        window: Window,
        version: Version,
        memory: &Memory,
    ) -> Result<PartitionRef, &'static str> {
        state.check(window)?;
        let PartitionState { born, mut streams, side_len, side, tombstones } = state;
        let mut partition = Partition {
            window,
            closed: ClosedStreams::default(),
            open: None,
            // A side entry beats the stream: a point of its time that is written later must not go there.
            newest: streams
                .last()
                .map(|stream| stream.last)
                .max(side.iter().map(|(entry, _)| entry.at).max()),
            side: (side_len > 0).then(|| Box::new(Side::restored(side_len, &side, memory))),
            tombstones: Tombstones::of(&tombstones),
            marks: Default::default(),
            share: memory.share(PARTITION_BYTES),
        };
        match streams.pop().map(OpenStream::resting) {
            Some(Ok(resting)) => partition.open = Some(resting),
            Some(Err(long)) => streams.push(long),
            None => {}
        }
        streams.into_iter().for_each(|stream| partition.close(stream));
        partition.mark(version, &LiveVersions::default(), Planted::default());
        Ok(PartitionRef(Arc::new(Counted { born, partition: Mutex::new(partition) })))
    }
}

impl PartitionState {
    fn check(&self, window: Window) -> Result<(), &'static str> {
        // A point takes at least a bit: so there are never so many that their sum has no room in 64 bits.
        let in_window = |stream: &ClosedStream| {
            stream.first <= stream.last
                && (1..=8 * stream.bytes.len() as u64).contains(&stream.points)
                && window.of(stream.first).has(stream.last)
        };
        if !self.streams.iter().all(in_window)
            || !self.streams.is_sorted_by(|one, next| one.last < next.first)
        {
            return Err("streams that are not in order");
        }
        let numbers = || self.side.iter().map(|(entry, _)| entry.number);
        if self.side_len > SIDE_LEN_MAX
            || !numbers().is_sorted_by(|one, next| one < next)
            || numbers().next_back().is_some_and(|last| last >= self.side_len)
        {
            return Err("side entries that are not in order");
        }
        let ranges = || self.tombstones.iter().map(|tombstone| tombstone.range);
        match ranges().all(|range| range.first <= range.last)
            && ranges().is_sorted_by(|one, next| one.last < next.first)
        {
            true => Ok(()),
            false => Err("tombstones that are not in order"),
        }
    }
}

/// The first points of a stream, as streams: one, as it was one before.
fn cut(
    stream: &ClosedStream,
    points: u64,
    window: Window,
    streams: &mut SmallVec<[ClosedStream; 1]>,
) -> Result<(), DecodeError> {
    let mut decoder = Decoder::new(&stream.bytes, ValueCoding::IntOptimized);
    // They are for a file, and counted for nobody.
    let memory = Memory::default();
    let mut open: Option<OpenStream> = None;
    for _ in 0..points {
        let Some(point) = decoder.next_point().transpose()? else { break };
        let (at, value, annotation) = (point.timestamp, point.value, point.annotation);
        if open.as_mut().is_some_and(|open| open.append(window, at, value, annotation, &memory)) {
            continue;
        }
        let next = OpenStream::begin(window.of(at), at, value, annotation);
        let full = std::mem::replace(&mut open, next);
        streams.extend(full.map(OpenStream::close));
    }
    streams.extend(open.map(OpenStream::close));
    Ok(())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: i64 = 50;

    /// A time, the value's bits and the annotation.
    type Seen = (i64, u64, Vec<u8>);

    fn points(partition: &PartitionRef, version: Version) -> (Vec<Seen>, Vec<Tombstone>) {
        let state = partition.state(version).expect("sound");
        let mut points = Vec::new();
        for stream in &state.streams {
            let mut decoder = Decoder::new(&stream.bytes, ValueCoding::IntOptimized);
            let before = points.len();
            while let Some(point) = decoder.next_point() {
                let point = point.expect("sound");
                points.push((point.timestamp, point.value.to_bits(), point.annotation.to_vec()));
            }
            assert_eq!((points.len() - before) as u64, stream.points);
            assert_eq!((points[before].0, points[points.len() - 1].0), (stream.first, stream.last));
        }
        for (entry, annotation) in &state.side {
            let annotation = annotation.as_ref().map_or(Vec::new(), |annotation| annotation.to_vec());
            points.push((entry.at, entry.value.to_bits(), annotation));
        }
        (points, state.tombstones)
    }

    proptest! {
        /// Each version is what it was when it was the newest one, and a partition made of it goes on as the first did.
        #[test]
        fn a_version_comes_back_and_goes_on(
            steps in prop::collection::vec((0..200i64, 0..4u8, any::<u64>(), prop::option::of(0..20i64)), 1..60),
            at in 1..60usize,
        ) {
            let window = Window::new(WINDOW);
            let memory = Memory::default();
            let first = PartitionRef::new(window, Version(1), &memory);
            let step = |partition: &PartitionRef, number: usize, copy: bool| {
                let (time, annotation, bits, delete) = steps[number];
                let mut partition = partition.lock();
                match delete {
                    Some(length) => partition.delete(Cover { first: time, last: time + length }, true),
                    None => partition.append(time, f64::from_bits(bits), &vec![b'x'; annotation as usize]),
                }
                let held = if copy { Vec::new() } else { (0..100).map(Version).collect() };
                let live = LiveVersions { published: Version(number as u64), held };
                partition.mark(Version(number as u64 + 1), &live, Planted::default());
            };
            let at = at.min(steps.len());
            (0..at).for_each(|number| step(&first, number, false));
            let seen = points(&first, Version(at as u64));
            let as_newest = first.state(Version(at as u64)).expect("sound");
            let copy = PartitionRef::restored(as_newest, window, Version(at as u64), &memory).expect("sound");
            prop_assert_eq!(points(&copy, Version(at as u64)), seen.clone());
            for number in at..steps.len() {
                step(&first, number, false);
                step(&copy, number, true);
            }
            prop_assert_eq!(points(&first, Version(at as u64)), seen);
            let last = Version(steps.len() as u64);
            let now = |partition: &PartitionRef| {
                // Which part a point is in may differ: what counts is the last one of each time that is not deleted.
                let view = partition.view(last, Cover::ALL);
                let mut times = std::collections::BTreeMap::new();
                if let Some(view) = view {
                    for index in view.streams.clone() {
                        let stream = partition.stream(index, view.points).expect("there");
                        let bytes = stream.bytes.contiguous();
                        let mut decoder = Decoder::new(&bytes, ValueCoding::IntOptimized);
                        for place in stream.before..stream.before + stream.points {
                            let point = decoder.next_point().expect("there").expect("sound");
                            if place >= view.tombstones.around(point.timestamp).points {
                                times.insert(point.timestamp, (point.value.to_bits(), point.annotation.to_vec()));
                            }
                        }
                    }
                    let hidden = |at: i64| view.tombstones.around(at).side;
                    for (entry, annotation) in view.side.into_entries() {
                        if entry.number >= hidden(entry.at) {
                            let annotation = annotation.map_or(Vec::new(), |annotation| annotation.to_vec());
                            times.insert(entry.at, (entry.value.to_bits(), annotation));
                        } else {
                            times.remove(&entry.at);
                        }
                    }
                }
                times
            };
            prop_assert_eq!(now(&copy), now(&first));
        }
    }

    #[test]
    fn a_state_that_contradicts_itself_is_refused() {
        let (window, memory) = (Window::new(WINDOW), Memory::default());
        let partition = PartitionRef::new(window, Version(1), &memory);
        for (at, value) in [(10, 1.0), (60, 2.0), (5, 3.0), (6, 4.0)] {
            partition.lock().append(at, value, b"");
        }
        partition.lock().delete(Cover { first: 20, last: 30 }, true);
        partition.lock().delete(Cover { first: 40, last: 50 }, true);
        partition.lock().mark(Version(1), &LiveVersions::default(), Planted::default());
        let sound = partition.state(Version(1)).expect("sound");
        let restored = |change: fn(&mut PartitionState)| {
            let mut state = sound.clone();
            change(&mut state);
            PartitionRef::restored(state, window, Version(1), &memory).err()
        };
        assert_eq!(restored(|_| {}), None);
        assert!(restored(|state| state.streams.reverse()).is_some());
        assert!(restored(|state| state.streams[0].last = 70).is_some());
        assert!(restored(|state| state.side.reverse()).is_some());
        assert!(restored(|state| state.side_len = 1).is_some());
        assert!(restored(|state| state.tombstones.reverse()).is_some());
    }
}
