//! Hands: records that one thread has checked, applied by several others, each in its own lanes.
//!
//! The reader hands on what it has checked, in the log's order; a lane belongs to one worker, and each worker goes through all that was handed on in that
//! order, and applies the sections of its lanes. So every lane goes through the log's history and through nothing else, as it does in commits.
//!
//! What concerns all lanes is not handed on: the reader *settles*, which is to wait until all is applied, and does it itself.
//!
//! A worker may find that a record's streams do not decode. It keeps the first such version, and applies nothing more; the others go on until all that was handed on is
//! done with, so that the first of all is known, whoever finds it. A worker that panics is noticed by whoever hands on or settles.

use std::collections::VecDeque;
use std::ops::Range;

use crate::sync::{Arc, Condvar, Mutex};

use super::super::commit::Core;
use super::super::marks::LiveVersions;
use super::super::record::{Command, Commands, RecordError};
use super::super::transaction::Version;

/// A batch is handed on when it has so many bytes.
const BATCH_BYTES: usize = 256 << 10;
/// How many batches wait or are being applied, at most. So what was handed on takes 2 MiB, or a few records that are longer.
const BATCHES_MAX: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Hands {
    state: Mutex<State>,
    /// Notified whenever something in `state` changes that somebody may wait for.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The batches that some worker is not done with, in order, and the number of the first.
    batches: VecDeque<Arc<Batch>>,
    first: u64,
    /// How many batches each worker is done with. As long as there is none, there are no hands.
    done: Vec<u64>,
    /// The first record that was refused so far.
    refused: Option<(Version, RecordError)>,
    panicked: bool,
    closed: bool,
}

/// Records in a row.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    sections: Vec<Part>,
}

/// A section of a record.
#[derive(Clone, Debug)]
struct Part {
    /// Where in the batch's bytes.
    bytes: Range<usize>,
    version: Version,
    /// The version before.
    before: Version,
    /// The lane that all of it concerns; none if the run that wrote it had other lanes.
    lane: Option<u32>,
}

/// Which metrics a lane has that changed, by their places in it.
#[derive(Debug, Default)]
pub(in crate::mvcc) struct ChangedPlaces(Vec<u64>);

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// This one makes no sense.
    Record(RecordError),
    /// One before it, of this version, that had been handed on.
    Earlier(Version, RecordError),
    /// Who had to apply an earlier one panicked.
    Panicked,
}

impl From<RecordError> for Refused {
    fn from(error: RecordError) -> Self {
        Refused::Record(error)
    }
}

impl Hands {
    pub(crate) fn new() -> Self {
        Hands { state: Mutex::new(State::default()), changed: Condvar::new() }
    }

    /// Says how many workers there are: they have the numbers below it, and [`Hands::work`] from now on, or soon. Once, before anything is handed on.
    pub(crate) fn engage(&self, workers: usize) {
        self.state.lock().done = vec![0; workers];
    }

    /// What a worker does, until [`Hands::close`].
    pub(crate) fn work(&self, core: &Core, worker: usize) {
        let on_panic = OnPanic(self);
        let mut number: u64 = 0;
        let mut refused = false;
        loop {
            let (batch, workers) = {
                let mut state = self.state.lock();
                loop {
                    let batch =
                        number.checked_sub(state.first).and_then(|place| state.batches.get(place as usize));
                    if let Some(batch) = batch {
                        break (batch.clone(), state.done.len());
                    }
                    if state.closed {
                        std::mem::forget(on_panic);
                        return;
                    }
                    state = self.changed.wait(state);
                }
            };
            let found =
                if refused { Ok(()) } else { batch.apply(core, |lane| lane as usize % workers == worker) };
            drop(batch);
            number += 1;
            let mut state = self.state.lock();
            if let Err((version, error)) = found {
                refused = true;
                if state.refused.is_none_or(|(first, _)| version < first) {
                    state.refused = Some((version, error));
                }
            }
            state.done[worker] = number;
            let all = state.done.iter().min().copied().unwrap_or(number);
            while state.first < all {
                state.batches.pop_front();
                state.first += 1;
            }
            self.changed.notify_all();
        }
    }

    /// Ends the workers, once they have done what was handed on.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Whether there are any.
    pub(super) fn are_there(&self) -> bool {
        !self.state.lock().done.is_empty()
    }

    /// Hands on a batch, once there is room.
    pub(super) fn hand(&self, batch: Batch) -> Result<(), Refused> {
        let mut state = self.state.lock();
        while state.batches.len() >= BATCHES_MAX && !state.panicked {
            state = self.changed.wait(state);
        }
        if state.refused.is_some() {
            drop(state);
            return self.settle();
        }
        state.batches.push_back(Arc::new(batch));
        let panicked = state.panicked;
        self.changed.notify_all();
        if panicked { Err(Refused::Panicked) } else { Ok(()) }
    }

    /// Waits until all that was handed on is done with, and tells which record was refused first.
    pub(super) fn settle(&self) -> Result<(), Refused> {
        let mut state = self.state.lock();
        while !state.batches.is_empty() && !state.panicked {
            state = self.changed.wait(state);
        }
        match state.refused {
            _ if state.panicked => Err(Refused::Panicked),
            Some((version, error)) => Err(Refused::Earlier(version, error)),
            None => Ok(()),
        }
    }
}

impl Batch {
    /// Takes in a record whose sections are these: ranges of its bytes, each with the lane that it concerns.
    pub(super) fn push(
        &mut self,
        record: &[u8],
        sections: impl Iterator<Item = (Range<usize>, Option<u32>)>,
        version: Version,
        before: Version,
    ) {
        for (range, lane) in sections {
            let begin = self.bytes.len();
            self.bytes.extend_from_slice(&record[range]);
            self.sections.push(Part { bytes: begin..self.bytes.len(), version, before, lane });
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Applies what concerns some lanes.
    fn apply(&self, core: &Core, is_mine: impl Fn(u32) -> bool) -> Result<(), (Version, RecordError)> {
        let lanes = core.lanes.len() as u32;
        let mut changed = Vec::new();
        for Part { bytes, version, before, lane } in &self.sections {
            let bytes = &self.bytes[bytes.clone()];
            let live = LiveVersions { published: *before, held: Vec::new() };
            let one = lane.map(|lane| lane..lane + 1);
            for lane in one.unwrap_or(0..lanes).filter(|lane| is_mine(*lane)) {
                let context = core.applying(*version, lane, &live);
                let mut heads = core.lanes[lane as usize].heads.lock();
                for command in Commands::new(bytes) {
                    let command = command.map_err(|error| (*version, error))?;
                    if command.metric().is_none_or(|metric| metric.0 % lanes != lane) {
                        continue;
                    }
                    check_streams(&command).map_err(|error| (*version, error))?;
                    heads.apply(command, &context, &mut changed);
                }
                heads.note_replayed(&changed, lanes);
                changed.clear();
            }
        }
        Ok(())
    }
}

/// Decodes the streams of a command, as adopting them later cannot fail.
pub(super) fn check_streams(command: &Command<'_>) -> Result<(), RecordError> {
    match command {
        Command::Streams { streams, .. } => streams.clone().try_for_each(|stream| stream.decode().map(drop)),
        _ => Ok(()),
    }
}

impl ChangedPlaces {
    pub(in crate::mvcc) fn insert(&mut self, place: usize) {
        if self.0.len() <= place / 64 {
            self.0.resize(place / 64 + 1, 0);
        }
        self.0[place / 64] |= 1 << (place % 64);
    }

    pub(super) fn has(&self, place: usize) -> bool {
        self.0.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 != 0)
    }

    /// How many places there may be.
    pub(super) fn len(&self) -> usize {
        self.0.len() * 64
    }
}

/// Tells of a panic, unless forgotten.
struct OnPanic<'a>(&'a Hands);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        self.0.state.lock().panicked = true;
        self.0.changed.notify_all();
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::super::Replay;
    use super::*;
    use crate::mvcc::record::SectionWriter;
    use crate::mvcc::stream::ClosedStream;
    use crate::mvcc::window::Window;
    use crate::names::MetricId;
    use crate::names::{Names, NamespaceId, NamespaceOptions};
    use crate::planted::Planted;

    const METRICS: u32 = 16;

    /// A record that has some metrics written to, some of them with a stream, one of which does not decode.
    fn record(metrics: impl Iterator<Item = u32>, at: i64, damaged: Option<u32>) -> Vec<u8> {
        let mut record = Vec::new();
        for metric in metrics.map(MetricId) {
            let mut section = SectionWriter::new();
            if at == 0 {
                let name = metric.0.to_string();
                section.create(metric, NamespaceId(0), name.as_bytes(), None);
            }
            let mut streams =
                ClosedStream::of_columns(Window::new(1_000), at..at + 2, &[1.0, 2.0]).expect("encodable");
            if damaged == Some(metric.0) {
                streams.iter_mut().for_each(|stream| stream.points = 3);
            }
            section.streams(metric, streams);
            record.extend_from_slice(section.bytes());
        }
        record
    }

    fn replayed(workers: usize, records: &[Vec<u8>]) -> Result<u64, (u64, Refused)> {
        let core = Core::new(
            Names::new(0, NamespaceOptions { block_ns: 1_000, shards: 1 }),
            8,
            0,
            Planted::default(),
        );
        let hands = Hands::new();
        std::thread::scope(|scope| {
            (0..workers).for_each(|worker| {
                drop(scope.spawn({
                    let hands = &hands;
                    let core = &core;
                    move || hands.work(core, worker)
                }))
            });
            hands.engage(workers);
            let mut replay = Replay::new(&core, Version(0), false);
            replay.hand_to(&hands);
            let mut taken = Ok(());
            for (version, record) in (1..).map(Version).zip(records) {
                taken = replay.record(version, record).map_err(|refused| (version.0, refused));
                if taken.is_err() {
                    break;
                }
            }
            let settled = replay.settle().map_err(|refused| (u64::MAX, refused));
            hands.close();
            settled.and(taken).map(|()| replay.finish(Version(records.len() as u64)).points)
        })
    }

    #[test]
    fn the_first_record_that_makes_no_sense_is_named_whoever_finds_it() {
        let sound: Vec<_> = (0..200).map(|number| record(0..METRICS, number * 10, None)).collect();
        for workers in [0, 1, 3, 8] {
            assert_eq!(replayed(workers, &sound), Ok(200 * 2 * u64::from(METRICS)));
            // Two of them, in lanes of different workers; and what the reader finds behind them.
            let mut records = sound.clone();
            records[90] = record(0..METRICS, 900, Some(5));
            records[91] = record(0..METRICS, 910, Some(2));
            records[150].push(99);
            let (at, refused) = replayed(workers, &records).expect_err("three of them");
            let version = match refused {
                Refused::Record(_) => at,
                Refused::Earlier(version, _) => version.0,
                Refused::Panicked => 0,
            };
            assert_eq!(version, 91, "{workers} workers: {refused:?}");
            // Within one record what comes first counts, too.
            records[90].push(99);
            let reason = match replayed(workers, &records).expect_err("three of them").1 {
                Refused::Record(error) | Refused::Earlier(_, error) => error.0,
                Refused::Panicked => "",
            };
            assert_eq!(reason, "a stream with other points than the record says", "{workers} workers");
        }
    }

    #[test]
    fn sections_of_several_lanes_are_applied_by_each_of_them() {
        let core = |lanes| {
            let names = Names::new(0, NamespaceOptions { block_ns: 1_000, shards: 1 });
            Core::new(names, lanes, 0, Planted::default())
        };
        let mut records = vec![record(0..METRICS, 0, None)];
        for at in 1..100 {
            let mut section = SectionWriter::new();
            (0..METRICS).for_each(|metric| section.point(MetricId(metric), at * 10, at as f64));
            records.push(section.bytes().to_vec());
        }
        assert_eq!(replayed(3, &records), Ok(u64::from(METRICS) * (2 + 99)));
        let (core, hands) = (core(5), Hands::new());
        std::thread::scope(|scope| {
            (0..2).for_each(|worker| {
                drop(scope.spawn({
                    let hands = &hands;
                    let core = &core;
                    move || hands.work(core, worker)
                }))
            });
            hands.engage(2);
            let mut replay = Replay::new(&core, Version(0), false);
            replay.hand_to(&hands);
            for (version, record) in (1..).map(Version).zip(&records) {
                replay.record(version, record).expect("sound");
            }
            replay.settle().expect("sound");
            hands.close();
            replay.finish(Version(100));
        });
        let transaction = core.load();
        let points = transaction
            .metrics
            .iter()
            .map(|(_, map)| map.partitions().map(|partition| partition.lock().usage().points).sum::<u64>());
        assert_eq!(points.collect::<Vec<_>>(), [101; METRICS as usize]);
    }
}
