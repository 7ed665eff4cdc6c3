//! Points that several writers touch: which of their ops can have been the last one.
//!
//! The order of two ops of one writer is known, and so is that of two ops whose ranges of versions ([`Span`]) do not
//! overlap. A [`Cell`] keeps the ops that no other is surely after; what is found there must be the work of one of
//! them. What is found in several cells must also fit together: if op A was the last in a cell that op B touched too,
//! B came before A and cannot be found to have come after it elsewhere. [`Order`] sees that, and with it commits of
//! which only a part is there.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::acks::Span;

/// A value's bits and the annotation.
pub(crate) type Content = (u64, Option<Vec<u8>>);

/// What an op does to a cell of a shared metric.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// The point is this.
    Put(Content),
    /// The metric is there.
    Exist,
    /// The point, or the metric, is not there.
    Remove,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Put(put) => f.write_str(&content(Some(put))),
            Effect::Exist => f.write_str("the metric"),
            Effect::Remove => f.write_str("nothing"),
        }
    }
}

/// An op that has an effect on a cell.
#[derive(Clone, Debug)]
pub(crate) struct Touch {
    pub(crate) writer: u32,
    pub(crate) number: u64,
    pub(crate) span: Span,
    pub(crate) effect: Effect,
}

impl Touch {
    fn surely_before(&self, other: &Touch) -> bool {
        let same = self.writer == other.writer && self.number < other.number;
        same || (self.writer != other.writer && self.span.last < other.span.first)
    }
}

/// A timestamp of a shared metric, or its existence: the ops that can have been the last ones on it. No op on the
/// cell was surely after one of these.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    last: Vec<Touch>,
}

impl Cell {
    pub(crate) fn touch(&mut self, touch: Touch) {
        if self.last.iter().any(|other| touch.surely_before(other)) {
            return;
        }
        self.last.retain(|other| !other.surely_before(&touch));
        self.last.push(touch);
    }

    /// Whether one of the ops explains what is there. If it is just one, all others were before it: `order` learns that.
    pub(crate) fn compare(&self, there: &Effect, order: &mut Order) -> Result<(), String> {
        let explains: Vec<&Touch> = self.last.iter().filter(|touch| touch.effect == *there).collect();
        match explains.as_slice() {
            [] if self.last.is_empty() && *there == Effect::Remove => Ok(()),
            [] => {
                let ops: Vec<String> = self
                    .last
                    .iter()
                    .map(|t| format!("{} (op {} of {})", t.effect, t.number, t.writer))
                    .collect();
                Err(match ops.is_empty() {
                    true => "expected nothing".into(),
                    false => format!("expected {}", ops.join(" or ")),
                })
            }
            [last] => {
                let others = self.last.iter().filter(|touch| touch.writer != last.writer);
                others.for_each(|other| order.learn(other, last));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// What the cells say together about the order of ops.
#[derive(Debug, Default)]
pub(crate) struct Order {
    ops: BTreeMap<(u32, u64), Touch>,
    /// The second was after the first.
    after: BTreeSet<((u32, u64), (u32, u64))>,
}

impl Order {
    fn learn(&mut self, before: &Touch, after: &Touch) {
        for touch in [before, after] {
            if let Entry::Vacant(entry) = self.ops.entry((touch.writer, touch.number)) {
                entry.insert(touch.clone());
            }
        }
        self.after.insert(((before.writer, before.number), (after.writer, after.number)));
    }

    /// Takes away ops that nothing left is before, one after the other: if none can be taken, they are in a circle.
    pub(crate) fn contradiction(mut self) -> Option<String> {
        while !self.ops.is_empty() {
            let first = self.ops.values().find(|touch| {
                let learnt = self.after.iter().any(|(before, after)| {
                    *after == (touch.writer, touch.number) && self.ops.contains_key(before)
                });
                !learnt && !self.ops.values().any(|other| other.surely_before(touch))
            });
            match first.map(|touch| (touch.writer, touch.number)) {
                Some(first) => drop(self.ops.remove(&first)),
                None => {
                    let ops: Vec<String> =
                        self.ops.keys().map(|(writer, op)| format!("{op} of {writer}")).collect();
                    return Some(format!(
                        "shared metrics: each of these ops is seen after another: {}",
                        ops.join(", ")
                    ));
                }
            }
        }
        None
    }
}

/// An empty annotation is none.
pub(crate) fn note_of(bytes: &[u8]) -> Option<Vec<u8>> {
    (!bytes.is_empty()).then(|| bytes.to_vec())
}

pub(crate) fn content(content: Option<&Content>) -> String {
    match content {
        None => "nothing".into(),
        Some((bits, None)) => format!("{} ({bits:#x})", f64::from_bits(*bits)),
        Some((bits, Some(note))) => {
            format!("{} ({bits:#x}) with annotation {:?}", f64::from_bits(*bits), text(note))
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(writer: u32, number: u64, first: u64, last: u64, effect: Effect) -> Touch {
        Touch { writer, number, span: Span { first, last }, effect }
    }

    fn put(value: f64) -> Effect {
        Effect::Put((value.to_bits(), None))
    }

    #[test]
    fn the_surely_last_op_decides_a_cell_in_whatever_order_ops_are_looked_at() {
        let touches = [
            touch(0, 1, 5, 5, put(1.0)),
            touch(1, 1, 7, 7, put(2.0)),
            touch(0, 2, 9, 9, Effect::Remove),
            touch(1, 2, 11, 11, put(4.0)),
        ];
        for rotation in 0..touches.len() {
            let mut cell = Cell::default();
            touches
                .iter()
                .cycle()
                .skip(rotation)
                .take(touches.len())
                .for_each(|touch| cell.touch(touch.clone()));
            assert_eq!(cell.compare(&put(4.0), &mut Order::default()), Ok(()));
            for wrong in [put(1.0), put(2.0), Effect::Remove] {
                assert!(cell.compare(&wrong, &mut Order::default()).is_err(), "{wrong}");
            }
        }
    }

    #[test]
    fn either_of_two_unordered_ops_may_be_last_but_not_both() {
        let (a, b) = ((0, 2, 5, 9), (1, 2, 6, 12));
        let mut cells = [Cell::default(), Cell::default()];
        for cell in &mut cells {
            cell.touch(touch(0, 1, 3, 3, put(0.0)));
            cell.touch(touch(a.0, a.1, a.2, a.3, put(1.0)));
            cell.touch(touch(b.0, b.1, b.2, b.3, put(2.0)));
        }
        let look = |first: Effect, second: Effect| {
            let mut order = Order::default();
            assert_eq!(cells[0].compare(&first, &mut order), Ok(()));
            assert_eq!(cells[1].compare(&second, &mut order), Ok(()));
            order.contradiction()
        };
        assert_eq!(look(put(1.0), put(1.0)), None);
        assert_eq!(look(put(2.0), put(2.0)), None);
        assert!(look(put(1.0), put(2.0)).is_some(), "half a commit");
        assert!(cells[0].compare(&put(0.0), &mut Order::default()).is_err(), "both are surely after it");
        assert!(cells[0].compare(&Effect::Remove, &mut Order::default()).is_err(), "nobody removed it");
    }

    #[test]
    fn an_untouched_cell_is_empty() {
        assert_eq!(Cell::default().compare(&Effect::Remove, &mut Order::default()), Ok(()));
        assert!(Cell::default().compare(&put(1.0), &mut Order::default()).is_err());
    }
}
