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
use super::side::{Chunk, Run, SideEntry, SidePrefix};
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
        let reached = self.parts.iter().filter_map(|part| part.time(share - 1)).min();
        let through = reached.map_or(upto, |reached| reached.min(upto));
        (self.take(Cover { first: i64::MIN, last: through }), through)
    }

    /// As [`SideReader::front`], from the other end: the points from the returned time, which is at least `from`, to the latest one
    /// left.
    pub(crate) fn back(&mut self, from: i64, budget: usize) -> (Vec<SidePoint>, i64) {
        self.parts.iter_mut().for_each(|part| part.pass_hidden_back(self.len, &self.tombstones));
        self.parts.retain(|part| !part.left.is_empty());
        let share = (budget / self.parts.len().max(1)).max(1);
        let reached = self.parts.iter().filter_map(|part| part.time(part.left.len().checked_sub(share)?));
        let since = reached.max().map_or(from, |reached| reached.max(from));
        (self.take(Cover { first: since, last: i64::MAX }), since)
    }

    /// Takes what is left in `cover`, which reaches to one of the ends.
    fn take(&mut self, cover: Cover) -> Vec<SidePoint> {
        let within: Vec<Range<usize>> = self.parts.iter_mut().map(|part| part.take(cover)).collect();
        let mut taken: Vec<(&Chunk, SideEntry)> = Vec::new();
        for (part, within) in self.parts.iter().zip(within) {
            part.latest(within, self.len, |chunk, entry| taken.push((chunk, entry)));
        }
        // Newer runs come first and the sort is stable, so the first entry of each time is the latest.
        taken.sort_by_key(|(_, entry)| entry.at);
        taken.dedup_by_key(|(_, entry)| entry.at);
        let mut piece: Option<Stretch> = None;
        let point = |(chunk, entry): (&Chunk, SideEntry)| {
            let SideEntry { at, value, number } = entry;
            let piece = match piece {
                Some(piece) if piece.range.has(at) => piece,
                _ => *piece.insert(self.tombstones.around(at)),
            };
            let visible = number >= piece.side;
            visible.then(|| SidePoint { at, value, annotation: chunk.annotation(number).cloned() })
        };
        taken.into_iter().filter_map(point).collect()
    }
}

impl Part {
    /// The time of the entry that so many of those left are before.
    fn time(&self, before: usize) -> Option<i64> {
        (before < self.left.len()).then(|| self.run.entry(self.left.start + before).at)
    }

    /// The places of what is left in `cover`.
    fn within(&self, cover: Cover) -> Range<usize> {
        let Range { start, end } = self.run.within(cover);
        start.clamp(self.left.start, self.left.end)..end.clamp(self.left.start, self.left.end)
    }

    /// Takes the places of what is left in `cover`, which reaches to one of the ends.
    fn take(&mut self, cover: Cover) -> Range<usize> {
        let within = self.within(cover);
        if within.start > self.left.start {
            self.left.end = within.start;
        } else {
            self.left.start = within.end;
        }
        within
    }

    /// Gives the latest entry of each time among the first `len` of the side buffer. Many entries of one time cost a binary search in
    /// each of their chunks.
    fn latest<'a>(&'a self, within: Range<usize>, len: u64, mut found: impl FnMut(&'a Chunk, SideEntry)) {
        // Entries of one time may go on in the next chunk.
        let mut given = None;
        for (chunk, mut entries) in self.run.slices(within) {
            while let Some(&SideEntry { at, .. }) = entries.first() {
                let same = match entries.get(1) {
                    Some(second) if second.at == at => entries.partition_point(|entry| entry.at == at),
                    _ => 1,
                };
                let (group, later) = entries.split_at(same);
                if given != Some(at)
                    && let Some(latest) = group.get(group.partition_point(|entry| entry.number >= len))
                {
                    given = Some(at);
                    found(chunk, *latest);
                }
                entries = later;
            }
        }
    }

    /// Leaves out entries at the front for as long as a tombstone hides all that this part has in its range.
    fn pass_hidden_front(&mut self, len: u64, tombstones: &Tombstones) {
        while let Some(at) = self.time(0) {
            let piece = tombstones.around(at);
            if piece.side < self.run.end().min(len) {
                break;
            }
            self.left.start = self.run.place_after(piece.range.last).min(self.left.end);
        }
    }

    /// As [`Part::pass_hidden_front`], at the back.
    fn pass_hidden_back(&mut self, len: u64, tombstones: &Tombstones) {
        while let Some(at) = self.left.len().checked_sub(1).and_then(|last| self.time(last)) {
            let piece = tombstones.around(at);
            if piece.side < self.run.end().min(len) {
                break;
            }
            self.left.end = self.run.place_from(piece.range.first).max(self.left.start);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::memory::Memory;
    use super::super::side::Side;
    use super::super::tombstones::Tombstone;
    use super::*;

    proptest! {
        #[test]
        fn both_ends_read_like_a_map(
            entries in prop::collection::vec((0..60i64, any::<bool>()), 0..300),
            visible in 0..=300u64,
            deletes in prop::collection::vec((0..60i64, 0..10i64, 0..=300u64), 0..4),
            cover in (-2..50i64, 0..70i64),
            reads in prop::collection::vec((any::<bool>(), 1..40usize, 0..60i64), 1..12),
        ) {
            let cover = Cover { first: cover.0, last: cover.0 + cover.1 };
            let (mut side, memory, mut tombstones) = (Side::EMPTY, Memory::default(), Tombstones::default());
            let len = visible.min(entries.len() as u64);
            let mut deletes: Vec<(u64, Cover)> = deletes
                .into_iter()
                .map(|(first, length, side)| (side.min(len), Cover { first, last: first + length }))
                .collect();
            deletes.sort_by_key(|(side, _)| *side);
            // By time: the latest visible entry's number and annotation, or none if it is hidden.
            let mut model: BTreeMap<i64, (u64, bool)> = BTreeMap::new();
            let mut next = deletes.iter().peekable();
            for number in 0..=entries.len() as u64 {
                while let Some((side, range)) = next.next_if(|(side, _)| *side == number) {
                    tombstones.add(Tombstone { range: *range, points: 0, side: *side });
                    model.retain(|at, _| !range.has(*at));
                }
                if let Some((at, annotated)) = entries.get(number as usize) {
                    side.push(*at, number as f64, if *annotated { b"note" } else { b"" }, &memory);
                    if number < len && cover.has(*at) {
                        model.insert(*at, (number, *annotated));
                    }
                }
            }
            let mut reader = SideReader::new(side.prefix(len, cover), tombstones);
            let mut left = Cover { first: i64::MIN, last: i64::MAX };
            for (is_front, budget, step) in reads.into_iter().chain([(true, usize::MAX, i64::MAX)]) {
                let (points, range) = if is_front {
                    let upto = left.first.max(-1).saturating_add(step).min(left.last);
                    let (points, through) = reader.front(upto, budget);
                    prop_assert!(through <= upto);
                    let range = Cover { first: left.first, last: through };
                    left.first = through.saturating_add(1);
                    (points, range)
                } else {
                    let from = left.last.min(60).saturating_sub(step).max(left.first);
                    let (points, since) = reader.back(from, budget);
                    prop_assert!(since >= from);
                    let range = Cover { first: since, last: left.last };
                    left.last = since.saturating_sub(1);
                    (points, range)
                };
                let found: Vec<_> =
                    points.iter().map(|p| (p.at, (p.value as u64, p.annotation.is_some()))).collect();
                let expected: Vec<_> =
                    model.iter().filter(|(at, _)| range.has(**at)).map(|(at, found)| (*at, *found)).collect();
                prop_assert_eq!(found, expected);
                if left.first > left.last {
                    break;
                }
            }
        }
    }
}
