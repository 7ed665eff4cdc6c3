//! The side buffer of an active partition: points that are not newer than the newest in-order one.
//!
//! Append-only and uncompressed. Entries are numbered in commit order. A later entry beats an earlier one of the same time, and
//! any entry beats the stream: that is what an update is.
//!
//! The newest entries are an unsorted tail. When it is full it becomes a run: sorted, immutable, and shared with readers, who copy
//! only the tail. Runs of equal size are merged, as a binary counter carries, up to [`RUN_ENTRIES_MAX`], since a merge
//! happens under the partition's lock: so an entry is merged a bounded number of times, and there are few runs.
//!
//! A run is a list of counted chunks. What is left of it without a block shares all of them but the one or two at the block's ends, and
//! a merge lets go of a chunk as soon as it has passed it: so little is in memory twice, though a run may span all of time.
//!
//! Invariants
//! * The numbers of a run's entries are above those of the runs before it; the tail has the last ones. There are gaps where a block was
//!   taken out.
//! * A run is in time order, of each time the latest entry first. Its chunks are not empty, and are never more than there were when it was made.
//! * Where no block was taken out and nothing was restored, a run's length is a power of two times the tail's, and only runs of the maximal length have an equal
//!   one beside them.

use crate::sync::Arc;

use super::memory::{Memory, Share};
use super::partition_map::Cover;
use super::window::Window;

/// How many entries make a run.
const TAIL_ENTRIES: usize = if cfg!(test) { 4 } else { 256 };
/// The most entries of a run.
const RUN_ENTRIES_MAX: usize = if cfg!(test) { 64 } else { 32_768 };
/// The most entries of a chunk.
const CHUNK_ENTRIES: usize = if cfg!(test) { 8 } else { 256 };
/// What a chunk takes besides its entries and annotations: itself, its place in a run, and what the allocator adds.
const CHUNK_BYTES: u64 = 120;
/// A merge takes at most so many chunks of each run at a time.
const MERGE_CHUNKS: usize = 2;

/// One out-of-order point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SideEntry {
    pub(crate) at: i64,
    pub(crate) value: f64,
    /// How many entries came before it.
    pub(crate) number: u64,
}

/// Annotations by their entries' numbers, ascending.
type Annotations = Vec<(u64, Arc<Vec<u8>>)>;

/// About how many bytes annotations take in memory.
fn bytes_of(annotations: &[(u64, Arc<Vec<u8>>)]) -> u64 {
    let around = size_of::<(u64, Arc<Vec<u8>>)>() + size_of::<Vec<u8>>();
    annotations.iter().map(|(_, annotation)| (around + annotation.len()) as u64).sum()
}

/// Those annotations that belong to these entries.
fn annotations_of(entries: &[SideEntry], annotations: &[(u64, Arc<Vec<u8>>)]) -> Annotations {
    if annotations.is_empty() {
        return Annotations::new();
    }
    let annotation = |entry: &SideEntry| Some((entry.number, find(annotations, entry.number)?.clone()));
    let mut found: Annotations = entries.iter().filter_map(annotation).collect();
    found.sort_unstable_by_key(|(number, _)| *number);
    found.shrink_to_fit();
    found
}

/// The annotation of the entry with this number.
fn find(annotations: &[(u64, Arc<Vec<u8>>)], number: u64) -> Option<&Arc<Vec<u8>>> {
    let place = annotations.binary_search_by_key(&number, |(entry, _)| *entry).ok()?;
    Some(&annotations[place].1)
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Side {
    /// The number of the next entry.
    next: u64,
    /// How many entries there are.
    entries: u64,
    runs: Vec<Arc<Run>>,
    tail: Vec<SideEntry>,
    /// Those of the tail; a chunk has its own.
    annotations: Annotations,
    /// What annotations of the tail take in memory.
    annotation_bytes: u64,
}

/// Entries in time order, of each time the latest first. An entry's place is how many are before it.
#[derive(Debug)]
pub(crate) struct Run {
    /// The number after that of its latest entry.
    end: u64,
    slots: Vec<Slot>,
}

/// A chunk in a run, with what a search looks at.
#[derive(Clone, Debug)]
struct Slot {
    /// The time of its last entry.
    last: i64,
    /// The place after that of its last entry.
    end: usize,
    chunk: Arc<Chunk>,
}

/// Some entries of a run that follow each other.
#[derive(Debug)]
pub(crate) struct Chunk {
    entries: Vec<SideEntry>,
    /// Those of its entries.
    annotations: Annotations,
    /// What it takes in memory.
    bytes: u64,
    /// For these bytes, however many runs have it, until the last of them goes, a reader's too; none for what a reader sorted for himself.
    share: Option<Share>,
}

impl Side {
    /// One without entries.
    pub(crate) const EMPTY: Side = Side {
        next: 0,
        entries: 0,
        runs: Vec::new(),
        tail: Vec::new(),
        annotations: Vec::new(),
        annotation_bytes: 0,
    };

    /// How many entries there were ever: the number of the next one.
    pub(crate) fn len(&self) -> u64 {
        self.next
    }

    /// How many entries there are.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// About how many bytes it takes in memory besides chunks, which have shares of their own. Constant time.
    pub(crate) fn bytes(&self) -> u64 {
        (self.tail.len() * size_of::<SideEntry>()) as u64 + self.annotation_bytes
    }

    /// The entries outside of `block`, with the numbers that they have. Runs that have none within are shared; of others all chunks but
    /// those at the block's ends.
    pub(crate) fn without(&self, block: Cover) -> Side {
        let runs = self.runs.iter().map(|run| run.without(block).map_or_else(|| run.clone(), Arc::new));
        let runs: Vec<Arc<Run>> = runs.filter(|run| run.len() > 0).collect();
        let tail: Vec<SideEntry> = self.tail.iter().filter(|entry| !block.has(entry.at)).copied().collect();
        let entries = (runs.iter().map(|run| run.len()).sum::<usize>() + tail.len()) as u64;
        let annotations = annotations_of(&tail, &self.annotations);
        let annotation_bytes = bytes_of(&annotations);
        Side { next: self.next, entries, runs, tail, annotations, annotation_bytes }
    }

    /// Entries as [`SidePrefix::into_entries`] gives them, with numbers below `len`, which the next entry gets.
    pub(crate) fn restored(len: u64, entries: &[(SideEntry, Option<Arc<Vec<u8>>>)], memory: &Memory) -> Side {
        let run = |entries: &[(SideEntry, Option<Arc<Vec<u8>>>)]| {
            let annotations = entries
                .iter()
                .filter_map(|(entry, annotation)| Some((entry.number, annotation.as_ref()?.clone())))
                .collect();
            let entries = entries.iter().map(|(entry, _)| *entry).collect();
            Arc::new(Run::sorted(entries, annotations, Some(memory)))
        };
        let runs = entries.chunks(RUN_ENTRIES_MAX).map(run).collect();
        Side { next: len, entries: entries.len() as u64, runs, ..Side::EMPTY }
    }

    pub(crate) fn push(&mut self, at: i64, value: f64, annotation: &[u8], memory: &Memory) {
        let number = self.len();
        if !annotation.is_empty() {
            let annotation = (number, Arc::new(annotation.to_vec()));
            self.annotation_bytes += bytes_of(std::slice::from_ref(&annotation));
            self.annotations.push(annotation);
        }
        self.tail.push(SideEntry { at, value, number });
        self.next += 1;
        self.entries += 1;
        if self.tail.len() == TAIL_ENTRIES {
            self.carry(memory);
        }
    }

    /// Makes the tail a run, together with those runs that it completes to a larger one.
    fn carry(&mut self, memory: &Memory) {
        let mut entries = TAIL_ENTRIES;
        let mut first = self.runs.len();
        while let Some(before) = first.checked_sub(1)
            && self.runs[before].len() <= entries
            && entries < RUN_ENTRIES_MAX
        {
            first = before;
            entries += self.runs[before].len();
        }
        let (tail, annotations) = (std::mem::take(&mut self.tail), std::mem::take(&mut self.annotations));
        self.annotation_bytes = 0;
        let mut run = Run::sorted(tail, annotations, Some(memory));
        if first < self.runs.len() {
            let older = self.runs.drain(first..).rev().map(|run| Source::of(&run));
            run = Merge::run(run.end, std::iter::once(Source::of(&run)).chain(older).collect(), memory);
        }
        self.runs.push(Arc::new(run));
    }

    /// Whether any entry lies in `cover`.
    pub(crate) fn touches(&self, cover: Cover) -> bool {
        self.runs.iter().any(|run| !run.within(cover).is_empty())
            || self.tail.iter().any(|entry| cover.has(entry.at))
    }

    /// How many entries there are in `cover`, window by window, about how many bytes they take, and the latest time of them. A window may come
    /// several times.
    pub(crate) fn windows(&self, windows: Window, cover: Cover, mut found: impl FnMut(Cover, u64, u64, i64)) {
        for run in &self.runs {
            for (chunk, mut entries) in run.slices(run.within(cover)) {
                while let Some(first) = entries.first() {
                    let window = windows.of(first.at);
                    let (here, later) =
                        entries.split_at(entries.partition_point(|entry| entry.at <= window.last));
                    let bytes = chunk.bytes * here.len() as u64 / chunk.entries.len() as u64;
                    found(window, here.len() as u64, bytes, here[here.len() - 1].at);
                    entries = later;
                }
            }
        }
        let entry_bytes = self.bytes() / self.tail.len().max(1) as u64;
        for entry in self.tail.iter().filter(|entry| cover.has(entry.at)) {
            found(windows.of(entry.at), 1, entry_bytes, entry.at);
        }
    }

    /// The first `len` entries, as far as they may lie in `cover`: runs are shared, the tail is copied.
    pub(crate) fn prefix(&self, len: u64, cover: Cover) -> SidePrefix {
        // Those of a run are not below the end of the run before it.
        let starts = std::iter::once(0).chain(self.runs.iter().map(|run| run.end));
        let begun = self.runs.iter().zip(starts).take_while(|(_, start)| *start < len).map(|(run, _)| run);
        let runs = begun.filter(|run| run.cover().overlaps(cover)).cloned().collect();
        let tail = self.tail.iter().filter(|entry| entry.number < len && cover.has(entry.at));
        let tail: Vec<SideEntry> = tail.copied().collect();
        let annotations = annotations_of(&tail, &self.annotations);
        SidePrefix { len, cover, runs, tail, annotations }
    }
}

impl Run {
    /// A run of entries in the order of their numbers; without any, it is empty. With no `memory` it does not count.
    fn sorted(mut entries: Vec<SideEntry>, annotations: Annotations, memory: Option<&Memory>) -> Run {
        let end = entries.last().map_or(0, |entry| entry.number + 1);
        // A stable sort leaves the newest first.
        entries.reverse();
        entries.sort_by_key(|entry| entry.at);
        if entries.len() <= CHUNK_ENTRIES {
            entries.shrink_to_fit();
            let chunk = (!entries.is_empty()).then(|| Chunk::new(entries, annotations, memory));
            return Run::of(end, chunk.into_iter().collect());
        }
        let chunk = |entries: &[SideEntry]| {
            Chunk::new(entries.to_vec(), annotations_of(entries, &annotations), memory)
        };
        Run::of(end, entries.chunks(CHUNK_ENTRIES).map(chunk).collect())
    }

    fn of(end: u64, chunks: Vec<Arc<Chunk>>) -> Run {
        let mut places = 0;
        let slot = |chunk: Arc<Chunk>| {
            places += chunk.entries.len();
            Slot { last: chunk.entries[chunk.entries.len() - 1].at, end: places, chunk }
        };
        Run { end, slots: chunks.into_iter().map(slot).collect() }
    }

    /// What is left without `block`; none if there is nothing within. Copies the entries of two chunks at most.
    fn without(&self, block: Cover) -> Option<Run> {
        let within = self.within(block);
        if within.is_empty() {
            return None;
        }
        let (first, before) = self.locate(within.start);
        let (last, after) = self.locate(within.end - 1);
        let (one, other) = (&self.slots[first].chunk, &self.slots[last].chunk);
        let (before, after) = (&one.entries[..before], &other.entries[after + 1..]);
        let memory = one.share.as_ref().map(Share::memory);
        let part = |chunk: &Chunk, entries: &[SideEntry]| annotations_of(entries, &chunk.annotations);
        let chunks = |slots: &[Slot]| slots.iter().map(|slot| slot.chunk.clone()).collect::<Vec<_>>();
        let mut left = chunks(&self.slots[..first]);
        // As one, so that there are never more chunks than before.
        if before.len() + after.len() <= CHUNK_ENTRIES {
            if before.len() + after.len() > 0 {
                let mut annotations = [part(one, before), part(other, after)].concat();
                annotations.sort_unstable_by_key(|(number, _)| *number);
                left.push(Chunk::new([before, after].concat(), annotations, memory));
            }
        } else {
            left.push(Chunk::new(before.to_vec(), part(one, before), memory));
            left.push(Chunk::new(after.to_vec(), part(other, after), memory));
        }
        left.extend(chunks(&self.slots[last + 1..]));
        Some(Run::of(self.end, left))
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// How many entries it has.
    pub(crate) fn len(&self) -> usize {
        self.slots.last().map_or(0, |slot| slot.end)
    }

    /// The entry at this place, which is below [`Run::len`].
    pub(crate) fn entry(&self, place: usize) -> &SideEntry {
        let (slot, place) = self.locate(place);
        &self.slots[slot].chunk.entries[place]
    }

    /// The place of the first entry at `at` or later.
    pub(crate) fn place_from(&self, at: i64) -> usize {
        self.place(self.slots.partition_point(|slot| slot.last < at), |entry| entry.at < at)
    }

    /// The place of the first entry later than `at`.
    pub(crate) fn place_after(&self, at: i64) -> usize {
        self.place(self.slots.partition_point(|slot| slot.last <= at), |entry| entry.at <= at)
    }

    /// The places of the entries in `cover`.
    pub(crate) fn within(&self, cover: Cover) -> std::ops::Range<usize> {
        let begin = self.place_from(cover.first);
        begin..self.place_after(cover.last).max(begin)
    }

    /// The entries at these places, chunk by chunk.
    pub(crate) fn slices(
        &self,
        places: std::ops::Range<usize>,
    ) -> impl Iterator<Item = (&Chunk, &[SideEntry])> {
        let first = self.slots.partition_point(|slot| slot.end <= places.start);
        let slots = self.slots[first..].iter().map(|slot| (slot, slot.end - slot.chunk.entries.len()));
        slots.take_while(move |(_, begin)| *begin < places.end).map(move |(slot, begin)| {
            let entries = &slot.chunk.entries[..places.end.min(slot.end) - begin];
            (&*slot.chunk, &entries[places.start.saturating_sub(begin)..])
        })
    }

    /// In which slot a place is, and where in its chunk.
    fn locate(&self, place: usize) -> (usize, usize) {
        let slot = self.slots.partition_point(|slot| slot.end <= place);
        (slot, place - self.begin(slot))
    }

    /// The place of the first entry that is not `before`, which is in this slot or, if there is none such, at the end.
    fn place(&self, slot: usize, before: impl Fn(&SideEntry) -> bool) -> usize {
        let within = self.slots.get(slot).map_or(0, |slot| slot.chunk.entries.partition_point(before));
        self.begin(slot) + within
    }

    /// The place of a slot's first entry.
    fn begin(&self, slot: usize) -> usize {
        slot.checked_sub(1).map_or(0, |before| self.slots[before].end)
    }

    fn cover(&self) -> Cover {
        let first = self.slots.first().map_or(i64::MAX, |slot| slot.chunk.entries[0].at);
        let last = self.slots.last().map_or(i64::MIN, |slot| slot.last);
        Cover { first, last }
    }
}

impl Chunk {
    fn new(entries: Vec<SideEntry>, annotations: Annotations, memory: Option<&Memory>) -> Arc<Chunk> {
        let bytes = CHUNK_BYTES + size_of_val(&entries[..]) as u64 + bytes_of(&annotations);
        let share = memory.map(|memory| memory.share(bytes));
        Arc::new(Chunk { entries, annotations, bytes, share })
    }

    /// The annotation of one of its entries.
    pub(crate) fn annotation(&self, number: u64) -> Option<&Arc<Vec<u8>>> {
        find(&self.annotations, number)
    }
}

/// One run in the making, of several. A stretch of time at a time is taken of all of them and sorted.
struct Merge<'a> {
    memory: &'a Memory,
    /// Not yet in a chunk, sorted, all of them before what comes.
    entries: Vec<SideEntry>,
    /// Those of these entries.
    annotations: Annotations,
    chunks: Vec<Arc<Chunk>>,
}

/// What of a run is not yet merged.
struct Source {
    chunks: std::vec::IntoIter<Slot>,
    /// So many entries of the first chunk are.
    passed: usize,
}

impl Merge<'_> {
    /// One run of several, newest first. A chunk that nobody else has is freed when it is passed.
    fn run(end: u64, mut sources: Vec<Source>, memory: &Memory) -> Run {
        let mut merge = Merge { memory, entries: Vec::new(), annotations: Vec::new(), chunks: Vec::new() };
        loop {
            // No run gives more than its next chunks, save for entries of one time, and one at least gives all of these.
            let through = sources.iter().filter_map(Source::reach).min();
            let sorted = merge.entries.len();
            for source in &mut sources {
                source.take(through.unwrap_or(i64::MAX), &mut merge.entries, &mut merge.annotations);
            }
            // The newest go first, and a stable sort, which finds what is sorted already, leaves them first.
            merge.entries[sorted..].sort_by_key(|entry| entry.at);
            merge.annotations.sort_unstable_by_key(|(number, _)| *number);
            merge.cut(through.is_none());
            if through.is_none() {
                return Run::of(end, merge.chunks);
            }
        }
    }

    /// Makes chunks of the entries, of the last few only if those are `all`.
    fn cut(&mut self, all: bool) {
        let whole = self.entries.len() - if all { 0 } else { self.entries.len() % CHUNK_ENTRIES };
        for entries in self.entries[..whole].chunks(CHUNK_ENTRIES) {
            let annotations = annotations_of(entries, &self.annotations);
            self.chunks.push(Chunk::new(entries.to_vec(), annotations, Some(self.memory)));
        }
        self.entries.drain(..whole);
        self.annotations = annotations_of(&self.entries, &self.annotations);
    }
}

impl Source {
    fn of(run: &Run) -> Source {
        Source { chunks: run.slots.clone().into_iter(), passed: 0 }
    }

    /// Up to which time its next chunks go; none if they are all that is left.
    fn reach(&self) -> Option<i64> {
        let chunks = self.chunks.as_slice();
        (chunks.len() > MERGE_CHUNKS).then(|| chunks[MERGE_CHUNKS - 1].last)
    }

    /// Takes what is left up to a time.
    fn take(&mut self, through: i64, entries: &mut Vec<SideEntry>, annotations: &mut Annotations) {
        while let Some(Slot { chunk, .. }) = self.chunks.as_slice().first() {
            let left = &chunk.entries[self.passed..];
            let taken = left.partition_point(|entry| entry.at <= through);
            entries.extend_from_slice(&left[..taken]);
            annotations.extend(annotations_of(&left[..taken], &chunk.annotations));
            self.passed += taken;
            if self.passed < chunk.entries.len() {
                break;
            }
            self.passed = 0;
            self.chunks.next();
        }
    }
}

/// What a reader took under the lock.
#[derive(Debug)]
pub(crate) struct SidePrefix {
    /// Entries with this number or a higher one are not visible.
    pub(crate) len: u64,
    pub(crate) cover: Cover,
    runs: Vec<Arc<Run>>,
    tail: Vec<SideEntry>,
    annotations: Annotations,
}

impl SidePrefix {
    /// Its runs, newest first; the tail is sorted for this.
    pub(crate) fn into_runs(self) -> impl Iterator<Item = Arc<Run>> {
        let tail = Run::sorted(self.tail, self.annotations, None);
        std::iter::once(Arc::new(tail)).chain(self.runs.into_iter().rev())
    }

    /// Its entries, in the order of their numbers, with their annotations.
    pub(crate) fn into_entries(self) -> Vec<(SideEntry, Option<Arc<Vec<u8>>>)> {
        let (len, cover) = (self.len, self.cover);
        let mut entries = Vec::new();
        for run in self.into_runs() {
            for (chunk, within) in run.slices(run.within(cover)) {
                let visible = within.iter().filter(|entry| entry.number < len);
                entries.extend(visible.map(|entry| (*entry, chunk.annotation(entry.number).cloned())));
            }
        }
        entries.sort_by_key(|(entry, _)| entry.number);
        entries
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The entries of a run, of which it asserts what must hold of any.
    fn entries_of(run: &Run) -> Vec<SideEntry> {
        let entries: Vec<SideEntry> = (0..run.len()).map(|place| *run.entry(place)).collect();
        assert!(entries.is_sorted_by(|a, b| (a.at, b.number) < (b.at, a.number)));
        assert!(entries.iter().all(|entry| entry.number < run.end));
        let mut end = 0;
        for slot in &run.slots {
            let Chunk { entries, annotations, .. } = &*slot.chunk;
            end += entries.len();
            assert!((1..=CHUNK_ENTRIES).contains(&entries.len()));
            assert_eq!((slot.end, slot.last), (end, entries[entries.len() - 1].at));
            assert_eq!(entries.capacity(), entries.len(), "more than is counted");
            assert!(annotations.is_sorted_by(|(one, _), (next, _)| one < next));
            let is_here = |number: u64| entries.iter().any(|entry| entry.number == number);
            assert!(annotations.iter().all(|(number, _)| is_here(*number)));
        }
        entries
    }

    fn addresses(side: &Side) -> Vec<usize> {
        let chunks = side.runs.iter().flat_map(|run| &run.slots);
        chunks.map(|slot| std::ptr::from_ref(&*slot.chunk).addr()).collect()
    }

    /// What the chunks of these take, each once.
    fn chunk_bytes<'a>(sides: impl IntoIterator<Item = &'a Side>) -> u64 {
        let chunks = sides.into_iter().flat_map(|side| &side.runs).flat_map(|run| &run.slots);
        let bytes = chunks.map(|Slot { chunk, .. }| {
            let entries = chunk.entries.len() * size_of::<SideEntry>();
            let bytes = CHUNK_BYTES + entries as u64 + bytes_of(&chunk.annotations);
            (std::ptr::from_ref(&**chunk).addr(), bytes)
        });
        bytes.collect::<std::collections::BTreeMap<_, _>>().values().sum()
    }

    #[test]
    fn runs_are_carried_like_a_counter_and_stay_in_order() {
        let (mut side, memory) = (Side::EMPTY, Memory::default());
        for i in 0..4 * RUN_ENTRIES_MAX as u64 {
            assert_eq!(side.len(), i);
            side.push((i * 7 % 50) as i64, i as f64, if i % 3 == 0 { b"third" } else { b"" }, &memory);
            let lengths: Vec<usize> = side.runs.iter().map(|run| run.len()).collect();
            assert!(lengths.is_sorted_by(|a, b| a > b || *a == RUN_ENTRIES_MAX && a == b), "{lengths:?}");
            let mut next = 0;
            for run in &side.runs {
                let mut numbers: Vec<u64> = entries_of(run).iter().map(|entry| entry.number).collect();
                numbers.sort_unstable();
                assert_eq!(numbers, (next..next + numbers.len() as u64).collect::<Vec<_>>());
                next += numbers.len() as u64;
                assert_eq!(run.slots.len(), run.len().div_ceil(CHUNK_ENTRIES), "chunks are full");
                for (chunk, entries) in run.slices(0..run.len()) {
                    for entry in entries {
                        assert_eq!(chunk.annotation(entry.number).is_some(), entry.number % 3 == 0);
                    }
                }
            }
        }
        assert_eq!(side.runs.len(), 4);
    }

    #[test]
    fn annotations_count_until_their_entries_are_gone() {
        let block = Cover { first: 0, last: 99 };
        for entries in [1, TAIL_ENTRIES as i64, 3 * TAIL_ENTRIES as i64 + 1] {
            let (mut side, memory) = (Side::EMPTY, Memory::default());
            for at in 0..entries {
                side.push(at, 0.0, &[0; 1_000], &memory);
            }
            let bytes = side.bytes() + memory.bytes();
            assert!(bytes >= 1_000 * entries as u64, "{entries} entries");
            let mut found = (0, 0);
            side.windows(Window::new(100), Cover::ALL, |window, entries, bytes, _| {
                assert_eq!(window, block);
                found = (found.0 + entries, found.1 + bytes);
            });
            assert_eq!(found, (entries as u64, bytes));
            side.push(100, 0.0, &[0; 1_000], &memory);
            let rest = side.without(block);
            drop(side);
            assert!((1_000..1_500).contains(&(rest.bytes() + memory.bytes())));
            let rest = rest.without(Cover::ALL);
            assert_eq!(rest.bytes() + memory.bytes(), 0);
        }
    }

    #[test]
    fn what_is_left_without_a_block_shares_all_chunks_outside_of_it() {
        let (mut side, memory) = (Side::EMPTY, Memory::default());
        let end = RUN_ENTRIES_MAX as i64;
        // Two runs over the same times.
        for at in (0..end).chain(0..end) {
            side.push(at, 0.0, b"", &memory);
        }
        let per_run = RUN_ENTRIES_MAX / CHUNK_ENTRIES;
        let chunk = CHUNK_ENTRIES as i64;
        let before = addresses(&side);
        assert_eq!(before.len(), 2 * per_run);
        // The block, and how many chunks of each run are there afterwards and shared.
        for (first, last, chunks, shared) in [
            (3, end / 2, per_run / 2 + 1, per_run / 2 - 1),
            (chunk - 1, 2 * chunk, per_run - 1, per_run - 3),
            (chunk, 2 * chunk - 1, per_run - 1, per_run - 1),
            (chunk + 1, chunk + 1, per_run, per_run - 1),
            (0, end - 2, 1, 0),
        ] {
            let rest = side.without(Cover { first, last });
            let after = addresses(&rest);
            let common = after.iter().filter(|address| before.contains(address)).count();
            assert_eq!((after.len(), common), (2 * chunks, 2 * shared), "{first} to {last}");
            assert_eq!(rest.bytes(), 0, "the tail is empty");
            assert_eq!(memory.bytes(), chunk_bytes([&side, &rest]), "shared chunks count once");
            let copied = memory.bytes() - chunk_bytes([&side]);
            assert!(copied <= 4 * (CHUNK_BYTES + (CHUNK_ENTRIES * size_of::<SideEntry>()) as u64));
            for run in &rest.runs {
                let times: Vec<i64> = entries_of(run).iter().map(|entry| entry.at).collect();
                assert_eq!(times, (0..first).chain(last + 1..end).collect::<Vec<_>>());
            }
        }
        assert_eq!(addresses(&side.without(Cover { first: end, last: end })), before);
        assert_eq!(memory.bytes(), chunk_bytes([&side]));
        let rest = side.without(Cover { first: 0, last: end - 2 });
        drop(side);
        assert_eq!(memory.bytes(), chunk_bytes([&rest]), "what left is freed");
    }

    #[test]
    fn a_prefix_shares_only_runs_that_it_needs() {
        let (mut side, memory) = (Side::EMPTY, Memory::default());
        for i in 0..3 * RUN_ENTRIES_MAX as i64 + 1 {
            side.push(i, 0.0, b"", &memory);
        }
        let last = RUN_ENTRIES_MAX as i64 - 1;
        let prefix = side.prefix(u64::MAX, Cover { first: 1, last });
        assert_eq!((prefix.runs.len(), prefix.tail.len()), (1, 0));
        let prefix = side.prefix(RUN_ENTRIES_MAX as u64 + 1, Cover::ALL);
        assert_eq!((prefix.runs.len(), prefix.tail.len()), (2, 0));
        assert!(side.touches(Cover { first: last, last }));
        assert!(!side.touches(Cover { first: i64::MIN, last: -1 }));
    }

    /// What is done to a side buffer.
    #[derive(Clone, Debug)]
    enum Step {
        /// So many entries, from a time on and so far apart; one in so many has an annotation.
        Push { count: usize, at: i64, apart: i64, annotated: usize },
        /// What is left without a block; the buffer itself stays for a while if it is `held`.
        Without { first: i64, length: i64, held: bool },
        /// The state is written and read.
        Restore,
        /// A prefix is taken, and read at the end.
        Prefix { part: u64, first: i64, length: i64 },
        /// What was held is given up.
        LetGo,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (1..90usize, 0..100i64, -7..8i64, 1..6usize)
                .prop_map(|(count, at, apart, annotated)| Step::Push { count, at, apart, annotated }),
            3 => (-5..105i64, 0..40i64, any::<bool>())
                .prop_map(|(first, length, held)| Step::Without { first, length, held }),
            1 => Just(Step::Restore),
            2 => (0..=4u64, -5..105i64, 0..120i64)
                .prop_map(|(part, first, length)| Step::Prefix { part, first, length }),
            1 => Just(Step::LetGo),
        ]
    }

    /// Entries in the order of their numbers: number, time, bits of the value, annotation.
    type Model = Vec<(u64, i64, u64, Vec<u8>)>;

    fn found(prefix: SidePrefix) -> Model {
        let entries = prefix.into_entries().into_iter();
        let annotation = |found: Option<Arc<Vec<u8>>>| found.map_or_else(Vec::new, |found| found.to_vec());
        entries.map(|(e, found)| (e.number, e.at, e.value.to_bits(), annotation(found))).collect()
    }

    proptest! {
        #[test]
        fn any_sequence_is_that_of_a_list_and_counts_what_is_there(
            steps in prop::collection::vec(step(), 1..24),
        ) {
            let (mut side, memory) = (Side::EMPTY, Memory::default());
            let mut model = Model::new();
            let (mut prefixes, mut held) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Push { count, at, apart, annotated } => {
                        for i in 0..count {
                            let at = (at + apart * i as i64).rem_euclid(100);
                            let (number, value) = (side.len(), i as f64 - 0.5);
                            let annotation = vec![number as u8; if i % annotated == 0 { i % 50 } else { 0 }];
                            side.push(at, value, &annotation, &memory);
                            model.push((number, at, value.to_bits(), annotation));
                        }
                    }
                    Step::Without { first, length, held: is_held } => {
                        let block = Cover { first, last: first + length };
                        let chunks = addresses(&side).len();
                        let rest = side.without(block);
                        prop_assert!(addresses(&rest).len() <= chunks);
                        let before = std::mem::replace(&mut side, rest);
                        if is_held {
                            held.push(before);
                        }
                        model.retain(|(_, at, ..)| !block.has(*at));
                    }
                    Step::Restore => {
                        let entries = side.prefix(side.len(), Cover::ALL).into_entries();
                        side = Side::restored(side.len(), &entries, &memory);
                    }
                    Step::Prefix { part, first, length } => {
                        let (len, cover) = (side.len() * part / 4, Cover { first, last: first + length });
                        let visible = model.iter().filter(|(n, at, ..)| *n < len && cover.has(*at));
                        prefixes.push((side.prefix(len, cover), visible.cloned().collect::<Model>()));
                    }
                    Step::LetGo => held.clear(),
                }
                side.runs.iter().for_each(|run| drop(entries_of(run)));
                prop_assert_eq!(side.entries(), model.len() as u64);
                prop_assert_eq!(found(side.prefix(side.len(), Cover::ALL)), model.clone());
                for first in [-1, 20, 99] {
                    let cover = Cover { first, last: first + 15 };
                    prop_assert_eq!(side.touches(cover), model.iter().any(|(_, at, ..)| cover.has(*at)));
                }
                // Held by a prefix, a chunk counts as well.
                let there = chunk_bytes(held.iter().chain([&side]));
                match prefixes.is_empty() {
                    true => prop_assert_eq!(memory.bytes(), there),
                    false => prop_assert!(memory.bytes() >= there),
                }
                let mut tail = side.tail.len() as u64 * size_of::<SideEntry>() as u64;
                tail += bytes_of(&side.annotations);
                prop_assert_eq!(side.bytes(), tail);
                let mut surveyed = (0, 0);
                side.windows(Window::new(1_000), Cover::ALL, |_, entries, bytes, _| {
                    surveyed = (surveyed.0 + entries, surveyed.1 + bytes);
                });
                prop_assert_eq!(surveyed.0, side.entries());
                let all = side.bytes() + chunk_bytes([&side]);
                prop_assert!(all - surveyed.1 < TAIL_ENTRIES as u64, "{} of {all}", surveyed.1);
            }
            for (prefix, visible) in prefixes {
                prop_assert_eq!(found(prefix), visible);
            }
            drop(held);
            prop_assert_eq!(memory.bytes(), chunk_bytes([&side]));
            drop(side);
            prop_assert_eq!(memory.bytes(), 0);
        }
    }
}
