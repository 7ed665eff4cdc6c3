//! The side buffer of an active partition: points that are not newer than the newest in-order one.
//!
//! Append-only and uncompressed. Entries are numbered in commit order. A later entry beats an earlier one of the same time, and
//! any entry beats the stream: that is what an update is.
//!
//! The newest entries are an unsorted tail. When it is full it becomes a run: sorted, immutable, and shared with readers, who copy
//! only the tail. Runs of equal size are merged, as a binary counter carries, up to [`RUN_ENTRIES_MAX`], since a merge
//! happens under the partition's lock: so an entry is merged a bounded number of times, and there are few runs.
//!
//! Invariants
//! * The numbers of a run's entries are above those of the runs before it; the tail has the last ones. There are gaps where a block was
//!   taken out.
//! * A run is in time order, of each time the latest entry first.
//! * Where no block was taken out, a run's length is a power of two times the tail's, and only runs of the maximal length have an equal
//!   one beside them.

use crate::sync::Arc;

use super::partition_map::Cover;
use super::window::Window;

/// How many entries make a run.
const TAIL_ENTRIES: usize = if cfg!(test) { 4 } else { 256 };
/// The most entries of a run.
const RUN_ENTRIES_MAX: usize = if cfg!(test) { 64 } else { 65_536 };

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

/// About how many bytes some of so many entries take in memory, whose annotations take so many.
fn share_of(some: usize, entries: usize, annotation_bytes: u64) -> u64 {
    (some * size_of::<SideEntry>()) as u64 + annotation_bytes * some as u64 / entries.max(1) as u64
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// The number of the next entry.
    next: u64,
    /// How many entries there are.
    entries: u64,
    runs: Vec<Arc<Run>>,
    tail: Vec<SideEntry>,
    /// Those of the tail; a run has its own.
    annotations: Annotations,
    /// What annotations take in memory, those of runs included.
    annotation_bytes: u64,
}

/// Entries in time order, of each time the latest first.
#[derive(Debug)]
pub(crate) struct Run {
    /// The number after that of its latest entry.
    end: u64,
    entries: Vec<SideEntry>,
    annotations: Annotations,
    annotation_bytes: u64,
}

impl Side {
    /// How many entries there were ever: the number of the next one.
    pub(crate) fn len(&self) -> u64 {
        self.next
    }

    /// How many entries there are.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// About how many bytes it takes in memory. Constant time.
    pub(crate) fn bytes(&self) -> u64 {
        self.entries * size_of::<SideEntry>() as u64 + self.annotation_bytes
    }

    /// The entries outside of `block`, with the numbers that they have. Runs that have none within are shared.
    pub(crate) fn without(&self, block: Cover) -> Side {
        let left = |entries: &[SideEntry]| -> Vec<SideEntry> {
            entries.iter().filter(|entry| !block.has(entry.at)).copied().collect()
        };
        let runs = self.runs.iter().map(|run| match run.within(block).is_empty() {
            true => run.clone(),
            // Annotations of entries that are gone do no harm; they go with the run.
            false => Arc::new(Run {
                end: run.end,
                entries: left(&run.entries),
                annotations: run.annotations.clone(),
                annotation_bytes: run.annotation_bytes,
            }),
        });
        let runs: Vec<Arc<Run>> = runs.filter(|run| !run.entries.is_empty()).collect();
        let tail = left(&self.tail);
        let entries = (runs.iter().map(|run| run.entries.len()).sum::<usize>() + tail.len()) as u64;
        let annotations = if tail.is_empty() { Annotations::new() } else { self.annotations.clone() };
        let of_runs: u64 = runs.iter().map(|run| run.annotation_bytes).sum();
        let annotation_bytes = of_runs + bytes_of(&annotations);
        Side { next: self.next, entries, runs, tail, annotations, annotation_bytes }
    }

    pub(crate) fn push(&mut self, at: i64, value: f64, annotation: &[u8]) {
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
            self.carry();
        }
    }

    /// Makes the tail a run, together with those runs that it completes to a larger one.
    fn carry(&mut self) {
        let mut entries = TAIL_ENTRIES;
        let mut first = self.runs.len();
        while let Some(before) = first.checked_sub(1)
            && self.runs[before].entries.len() <= entries
            && entries < RUN_ENTRIES_MAX
        {
            first = before;
            entries += self.runs[before].entries.len();
        }
        let tail = std::mem::take(&mut self.tail);
        let merged = Run::merge(&self.runs[first..], tail, std::mem::take(&mut self.annotations));
        self.runs.truncate(first);
        self.runs.push(Arc::new(merged));
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
            let mut entries = &run.entries[run.within(cover)];
            while let Some(first) = entries.first() {
                let window = windows.of(first.at);
                let (here, later) =
                    entries.split_at(entries.partition_point(|entry| entry.at <= window.last));
                let bytes = share_of(here.len(), run.entries.len(), run.annotation_bytes);
                found(window, here.len() as u64, bytes, here[here.len() - 1].at);
                entries = later;
            }
        }
        let entry_bytes = share_of(1, self.tail.len(), bytes_of(&self.annotations));
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
        let annotations = if tail.is_empty() { Annotations::new() } else { self.annotations.clone() };
        SidePrefix { len, cover, runs, tail, annotations }
    }
}

impl Run {
    /// One run of several, oldest first, and of newer entries in the order of their numbers. Without such entries, it is empty.
    fn merge(runs: &[Arc<Run>], tail: Vec<SideEntry>, tail_annotations: Annotations) -> Run {
        let latest = tail.last().map(|entry| entry.number);
        let older = runs.iter().map(|run| run.entries.len()).sum::<usize>();
        let mut entries = Vec::with_capacity(older + tail.len());
        // The newest go first, and a stable sort, which finds what is sorted already, leaves them first.
        entries.extend(tail.into_iter().rev());
        for run in runs.iter().rev() {
            entries.extend_from_slice(&run.entries);
        }
        entries.sort_by_key(|entry| entry.at);
        let mut annotations = Annotations::new();
        for run in runs {
            annotations.extend_from_slice(&run.annotations);
        }
        annotations.extend(tail_annotations);
        let annotation_bytes = bytes_of(&annotations);
        Run { end: latest.map_or(0, |number| number + 1), entries, annotations, annotation_bytes }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn entries(&self) -> &[SideEntry] {
        &self.entries
    }

    /// The annotation of one of its entries.
    pub(crate) fn annotation(&self, number: u64) -> Option<&Arc<Vec<u8>>> {
        let place = self.annotations.binary_search_by_key(&number, |(entry, _)| *entry).ok()?;
        Some(&self.annotations[place].1)
    }

    /// The places of the entries in `cover`.
    pub(crate) fn within(&self, cover: Cover) -> std::ops::Range<usize> {
        let begin = self.entries.partition_point(|entry| entry.at < cover.first);
        begin..begin + self.entries[begin..].partition_point(|entry| entry.at <= cover.last)
    }

    fn cover(&self) -> Cover {
        let first = self.entries.first().map_or(i64::MAX, |entry| entry.at);
        let last = self.entries.last().map_or(i64::MIN, |entry| entry.at);
        Cover { first, last }
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
        let tail = Run::merge(&[], self.tail, self.annotations);
        std::iter::once(Arc::new(tail)).chain(self.runs.into_iter().rev())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn runs_are_carried_like_a_counter_and_stay_in_order() {
        let mut side = Side::default();
        for i in 0..4 * RUN_ENTRIES_MAX as u64 {
            assert_eq!(side.len(), i);
            side.push((i * 7 % 50) as i64, i as f64, if i % 3 == 0 { b"third" } else { b"" });
            let lengths: Vec<usize> = side.runs.iter().map(|run| run.entries.len()).collect();
            assert!(lengths.is_sorted_by(|a, b| a > b || *a == RUN_ENTRIES_MAX && a == b), "{lengths:?}");
            let mut next = 0;
            for run in &side.runs {
                assert!(run.entries.is_sorted_by(|a, b| (a.at, b.number) < (b.at, a.number)));
                let mut numbers: Vec<u64> = run.entries.iter().map(|entry| entry.number).collect();
                numbers.sort_unstable();
                assert_eq!(numbers, (next..next + numbers.len() as u64).collect::<Vec<_>>());
                next += numbers.len() as u64;
                for number in numbers {
                    assert_eq!(run.annotation(number).is_some(), number % 3 == 0);
                }
            }
        }
        assert_eq!(side.runs.len(), 4);
    }

    #[test]
    fn annotations_count_until_their_entries_are_gone() {
        let block = Cover { first: 0, last: 99 };
        for entries in [1, TAIL_ENTRIES as i64, 3 * TAIL_ENTRIES as i64 + 1] {
            let mut side = Side::default();
            for at in 0..entries {
                side.push(at, 0.0, &[0; 1_000]);
            }
            assert!(side.bytes() >= 1_000 * entries as u64, "{entries} entries");
            let mut found = (0, 0);
            side.windows(Window::new(100), Cover::ALL, |window, entries, bytes, _| {
                assert_eq!(window, block);
                found = (found.0 + entries, found.1 + bytes);
            });
            assert_eq!(found, (entries as u64, side.bytes()));
            assert_eq!(side.without(block).bytes(), 0);
            side.push(100, 0.0, &[0; 1_000]);
            assert!((1_000..=side.bytes()).contains(&side.without(block).bytes()));
        }
    }

    #[test]
    fn a_prefix_shares_only_runs_that_it_needs() {
        let mut side = Side::default();
        for i in 0..3 * RUN_ENTRIES_MAX as i64 + 1 {
            side.push(i, 0.0, b"");
        }
        let last = RUN_ENTRIES_MAX as i64 - 1;
        let prefix = side.prefix(u64::MAX, Cover { first: 1, last });
        assert_eq!((prefix.runs.len(), prefix.tail.len()), (1, 0));
        let prefix = side.prefix(RUN_ENTRIES_MAX as u64 + 1, Cover::ALL);
        assert_eq!((prefix.runs.len(), prefix.tail.len()), (2, 0));
        assert!(side.touches(Cover { first: last, last }));
        assert!(!side.touches(Cover { first: i64::MIN, last: -1 }));
    }
}
