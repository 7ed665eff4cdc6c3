//! A line that shows which time is in volumes, and which in memory.

use chronolith::{Database, MemoryBlock, Timestamp};

use crate::ids;
use crate::times;

/// What the signs mean.
pub(crate) const LEGEND: &str = "█ sealed   ▒ sealed, with late writes in memory   ░ in memory   · nothing";

/// A range of time, both ends included, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: i64,
    last: i64,
}

/// What there is of a namespace.
#[derive(Debug, Default)]
struct Spans {
    sealed: Vec<Span>,
    /// In memory over what is sealed.
    late: Vec<Span>,
    /// In memory alone.
    memory: Vec<Span>,
}

/// Lines for each namespace that has anything: its name and the ends of its time, then the line.
pub(crate) fn draw(db: &Database, width: usize) -> Vec<String> {
    let snapshot = db.snapshot();
    let mut lines = Vec::new();
    let in_memory = db.blocks_in_memory();
    for namespace in snapshot.namespaces() {
        let span =
            |first: Timestamp, last: Timestamp| Span { first: first.as_nanos(), last: last.as_nanos() };
        let volumes = snapshot.volumes().filter(|volume| *volume.namespace() == namespace);
        let of_it = in_memory.iter().filter(|block| block.namespace == namespace);
        let (late, memory): (Vec<_>, Vec<_>) = of_it.partition(|block| block.is_sealed);
        let spans_of =
            |blocks: Vec<&MemoryBlock>| blocks.iter().map(|block| span(block.first, block.last)).collect();
        let spans = Spans {
            sealed: volumes.map(|volume| span(volume.first(), volume.last())).collect(),
            late: spans_of(late),
            memory: spans_of(memory),
        };
        if let Some(ends) = spans.ends() {
            let name = ids::readable(namespace.name().as_bytes());
            // Up to the first time that is not in it, if there is one.
            let [first, end] = [ends.first, ends.last.saturating_add(1)];
            let [first, end] = [first, end].map(|at| times::rfc3339(Timestamp::from_nanos(at)));
            lines.push(format!("{name}: {first} to {end}"));
            lines.push(spans.draw(ends, width));
        }
    }
    lines
}

impl Spans {
    fn ends(&self) -> Option<Span> {
        let all = || self.sealed.iter().chain(&self.late).chain(&self.memory);
        let (first, last) = (all().map(|span| span.first).min()?, all().map(|span| span.last).max()?);
        Some(Span { first, last })
    }

    /// What is least sealed in a part of the line is what it shows.
    fn draw(&self, ends: Span, width: usize) -> String {
        let mut signs = vec!['·'; width];
        for (spans, sign) in [(&self.sealed, '█'), (&self.late, '▒'), (&self.memory, '░')] {
            let touched = signs.iter_mut().zip(cells(spans, ends, width));
            touched.filter(|(_, is_touched)| *is_touched).for_each(|(cell, _)| *cell = sign);
        }
        signs.into_iter().collect()
    }
}

/// Which of `width` equal parts of a range the spans touch. A span that ends with a part does not touch the next.
fn cells(spans: &[Span], ends: Span, width: usize) -> Vec<bool> {
    let mut cells = vec![false; width];
    let length = i128::from(ends.last) - i128::from(ends.first) + 1;
    let cell = |at: i64| ((i128::from(at) - i128::from(ends.first)) * width as i128 / length) as usize;
    for Span { first, last } in spans {
        cells.iter_mut().take(cell(*last) + 1).skip(cell(*first)).for_each(|cell| *cell = true);
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs<'a> = &'a [(i64, i64)];

    fn draw(sealed: Pairs<'_>, late: Pairs<'_>, memory: Pairs<'_>, width: usize) -> Option<String> {
        let spans = |pairs: Pairs<'_>| {
            pairs.iter().map(|(first, last)| Span { first: *first, last: *last }).collect()
        };
        let spans = Spans { sealed: spans(sealed), late: spans(late), memory: spans(memory) };
        spans.ends().map(|ends| spans.draw(ends, width))
    }

    #[test]
    fn each_part_shows_what_it_has() {
        let drawn = draw(&[(0, 9), (10, 19), (20, 29)], &[(20, 29)], &[(40, 49)], 10);
        assert_eq!(drawn.as_deref(), Some("████▒▒··░░"));
        assert_eq!(draw(&[(0, 9)], &[], &[], 4).as_deref(), Some("████"));
        assert_eq!(
            draw(&[(0, 0)], &[], &[(1, 999)], 3).as_deref(),
            Some("░░░"),
            "a part that is not sealed whole"
        );
        assert_eq!(
            draw(&[(0, 999)], &[(5, 5)], &[], 3).as_deref(),
            Some("▒██"),
            "what is small is not hidden"
        );
        assert_eq!(draw(&[], &[], &[], 4), None);
    }

    #[test]
    fn all_of_time_fits() {
        let drawn = draw(&[(i64::MIN, -1)], &[], &[(0, i64::MAX)], 8);
        assert_eq!(drawn.as_deref(), Some("████░░░░"));
    }
}
