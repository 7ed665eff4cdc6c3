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
//! * The entries of a run have consecutive numbers, and those of the next run follow; the tail has the last ones.
//! * A run is in time order, of each time the latest entry first.
//! * A run's length is a power of two times the tail's. Only runs of the maximal length have an equal one beside them.

use crate::sync::Arc;

use super::partition_map::Cover;

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

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Side {
    runs: Vec<Arc<Run>>,
    tail: Vec<SideEntry>,
    /// Those of the tail; a run has its own.
    annotations: Annotations,
}

/// Entries in time order, of each time the latest first.
#[derive(Debug)]
pub(crate) struct Run {
    /// The number after that of its latest entry.
    end: u64,
    entries: Vec<SideEntry>,
    annotations: Annotations,
}

impl Side {
    pub(crate) fn len(&self) -> u64 {
        self.tail_start() + self.tail.len() as u64
    }

    pub(crate) fn push(&mut self, at: i64, value: f64, annotation: &[u8]) {
        let number = self.len();
        if !annotation.is_empty() {
            self.annotations.push((number, Arc::new(annotation.to_vec())));
        }
        self.tail.push(SideEntry { at, value, number });
        if self.tail.len() == TAIL_ENTRIES {
            self.carry();
        }
    }

    fn tail_start(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.end)
    }

    /// Makes the tail a run, together with those runs that it completes to a larger one.
    fn carry(&mut self) {
        let mut entries = TAIL_ENTRIES;
        let mut first = self.runs.len();
        while let Some(before) = first.checked_sub(1)
            && self.runs[before].entries.len() == entries
            && entries < RUN_ENTRIES_MAX
        {
            first = before;
            entries *= 2;
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

    /// The first `len` entries, as far as they may lie in `cover`: runs are shared, the tail is copied.
    pub(crate) fn prefix(&self, len: u64, cover: Cover) -> SidePrefix {
        let mut start = 0;
        let mut runs = Vec::new();
        for run in &self.runs {
            if start < len && run.cover().overlaps(cover) {
                runs.push(run.clone());
            }
            start += run.entries.len() as u64;
        }
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
        Run { end: latest.map_or(0, |number| number + 1), entries, annotations }
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
