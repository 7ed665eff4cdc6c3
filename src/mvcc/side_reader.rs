//! The visible side entries of one view, in time order from both ends.
//!
//! A read takes all points up to some time from the front, or from some time on from the back. That time is chosen such that
//! few entries are touched: each of the k runs gives at most its next `budget / k`, so the earliest of the times that they
//! reach is one that all of them reached, and at least one run gave its share.
//!
//! At each time the latest visible entry of all runs decides: if a tombstone hides it, it hides all earlier ones too.

use std::ops::Range;

use crate::sync::Arc;

use super::partition_map::Cover;
use super::side::{Run, SideEntry, SidePrefix};
use super::tombstones::{Stretch, Tombstones};

/// A side entry that a reader sees.
#[derive(Clone, Debug)]
pub(crate) struct SidePoint {
    pub(crate) at: i64,
    pub(crate) value: f64,
    pub(crate) annotation: Option<Arc<Vec<u8>>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SideReader {
    /// Entries with this number or a higher one are not visible.
    len: u64,
    tombstones: Tombstones,
    /// Newest first.
    parts: Vec<Part>,
}

/// A run, and which of its entries are not yet read.
#[derive(Debug)]
struct Part {
    run: Arc<Run>,
    left: Range<usize>,
}

impl SideReader {
    pub(crate) fn new(side: SidePrefix, tombstones: Tombstones) -> Self {
        let (len, cover) = (side.len, side.cover);
        let parts = side.into_runs().map(|run| Part { left: run.within(cover), run });
        SideReader { len, tombstones, parts: parts.filter(|part| !part.left.is_empty()).collect() }
    }

    /// Reads the points from the earliest one left to the returned time, which is at most `upto`: all points if they are few,
    /// else about `budget` entries' worth, which may turn out to be no points.
    pub(crate) fn front(&mut self, upto: i64, budget: usize) -> (Vec<SidePoint>, i64) {
        self.parts.iter_mut().for_each(|part| part.pass_hidden_front(self.len, &self.tombstones));
        self.parts.retain(|part| !part.left.is_empty());
        let share = (budget / self.parts.len().max(1)).max(1);
        let reached = self.parts.iter().filter_map(|part| Some(part.entries().get(share - 1)?.at)).min();
        let through = reached.map_or(upto, |reached| reached.min(upto));
        (self.take(Cover { first: i64::MIN, last: through }), through)
    }

    /// As [`SideReader::front`], from the other end: the points from the returned time, which is at least `from`, to the latest one
    /// left.
    pub(crate) fn back(&mut self, from: i64, budget: usize) -> (Vec<SidePoint>, i64) {
        self.parts.iter_mut().for_each(|part| part.pass_hidden_back(self.len, &self.tombstones));
        self.parts.retain(|part| !part.left.is_empty());
        let share = (budget / self.parts.len().max(1)).max(1);
        let reached = self.parts.iter().filter_map(|part| {
            let entries = part.entries();
            Some(entries[entries.len().checked_sub(share)?].at)
        });
        let since = reached.max().map_or(from, |reached| reached.max(from));
        (self.take(Cover { first: since, last: i64::MAX }), since)
    }

    /// Takes what is left in `cover`, which reaches to one of the ends.
    fn take(&mut self, cover: Cover) -> Vec<SidePoint> {
        let within: Vec<Range<usize>> = self.parts.iter_mut().map(|part| part.take(cover)).collect();
        let mut taken: Vec<(&Part, SideEntry)> = Vec::new();
        for (part, within) in self.parts.iter().zip(within) {
            part.latest(within, self.len, |entry| taken.push((part, entry)));
        }
        // Newer runs come first and the sort is stable, so the first entry of each time is the latest.
        taken.sort_by_key(|(_, entry)| entry.at);
        taken.dedup_by_key(|(_, entry)| entry.at);
        let mut piece: Option<Stretch> = None;
        let point = |(part, entry): (&Part, SideEntry)| {
            let SideEntry { at, value, number } = entry;
            let piece = match piece {
                Some(piece) if piece.range.has(at) => piece,
                _ => *piece.insert(self.tombstones.around(at)),
            };
            let visible = number >= piece.side;
            visible.then(|| SidePoint { at, value, annotation: part.run.annotation(number).cloned() })
        };
        taken.into_iter().filter_map(point).collect()
    }
}

impl Part {
    fn entries(&self) -> &[SideEntry] {
        &self.run.entries()[self.left.clone()]
    }

    /// Takes the places of what is left in `cover`, which reaches to one of the ends.
    fn take(&mut self, cover: Cover) -> Range<usize> {
        let begin = self.left.start + self.entries().partition_point(|entry| entry.at < cover.first);
        let end = self.left.start + self.entries().partition_point(|entry| entry.at <= cover.last);
        if begin > self.left.start {
            self.left.end = begin;
        } else {
            self.left.start = end;
        }
        begin..end
    }

    /// Gives the latest entry of each time among the first `len` of the side buffer. Many entries of one time cost a binary search.
    fn latest(&self, within: Range<usize>, len: u64, mut found: impl FnMut(SideEntry)) {
        let mut entries = &self.run.entries()[within];
        while let Some(&SideEntry { at, .. }) = entries.first() {
            let same = match entries.get(1) {
                Some(second) if second.at == at => entries.partition_point(|entry| entry.at == at),
                _ => 1,
            };
            let (group, later) = entries.split_at(same);
            if let Some(latest) = group.get(group.partition_point(|entry| entry.number >= len)) {
                found(*latest);
            }
            entries = later;
        }
    }

    /// Leaves out entries at the front for as long as a tombstone hides all that this part has in its range.
    fn pass_hidden_front(&mut self, len: u64, tombstones: &Tombstones) {
        while let Some(entry) = self.entries().first() {
            let piece = tombstones.around(entry.at);
            if piece.side < self.run.end().min(len) {
                break;
            }
            self.left.start += self.entries().partition_point(|entry| entry.at <= piece.range.last);
        }
    }

    /// As [`Part::pass_hidden_front`], at the back.
    fn pass_hidden_back(&mut self, len: u64, tombstones: &Tombstones) {
        while let Some(entry) = self.entries().last() {
            let piece = tombstones.around(entry.at);
            if piece.side < self.run.end().min(len) {
                break;
            }
            let left = self.entries().partition_point(|entry| entry.at < piece.range.first);
            self.left.end = self.left.start + left;
        }
    }
}
