//! Going through a stream, and which of its points are shown.

use chronolith::m3tsz::plain::{Decoder, Field};
use chronolith::m3tsz::{DecodeError, TimeUnit, ValueCoding};

use crate::failure::Outcome;

/// Which points are shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selection {
    /// From the first point at or after this time, in nanoseconds.
    pub(super) from: Option<i64>,
    /// From the point that has this bit.
    pub(super) from_bit: Option<u64>,
    /// So many of them.
    pub(super) points: u64,
}

/// A point and how it is written.
#[derive(Clone, Debug)]
pub(super) struct Explained {
    /// Counted from 0.
    pub(super) index: u64,
    pub(super) timestamp: i64,
    pub(super) value: f64,
    pub(super) unit: TimeUnit,
    pub(super) annotation: Vec<u8>,
    pub(super) fields: Vec<Field>,
}

/// What is come by on the way.
#[derive(Debug)]
pub(super) enum Step {
    Point(Explained),
    /// So many points are not shown here.
    Skipped(u64),
    End {
        fields: Vec<Field>,
    },
    /// The point with this index could be read up to the error.
    Damage {
        index: u64,
        fields: Vec<Field>,
        error: DecodeError,
    },
}

/// Decodes a stream and shows what is selected, the end or the damage, and the point before the damage. Returns whether there is damage.
pub(super) fn walk(
    stream: &[u8],
    values: ValueCoding,
    selection: Selection,
    mut show: impl FnMut(Step) -> Outcome<()>,
) -> Outcome<bool> {
    let mut decoder = Decoder::explaining(stream, values);
    let (mut index, mut skipped, mut shown) = (0, 0, 0);
    let mut begun = selection.from.is_none() && selection.from_bit.is_none();
    // The last point that was not shown.
    let mut held = None;
    loop {
        let point = match decoder.next_point() {
            None => {
                show_skipped(skipped, &mut show)?;
                show(Step::End { fields: decoder.fields().to_vec() })?;
                return Ok(false);
            }
            Some(Err(error)) => {
                let held = held.map(Step::Point);
                show_skipped(skipped - u64::from(held.is_some()), &mut show)?;
                held.map_or(Ok(()), &mut show)?;
                show(Step::Damage { index, fields: decoder.fields().to_vec(), error })?;
                return Ok(true);
            }
            Some(Ok(point)) => Explained {
                index,
                timestamp: point.timestamp,
                value: point.value,
                unit: point.unit,
                annotation: point.annotation.to_vec(),
                fields: Vec::new(),
            },
        };
        let point = Explained { fields: decoder.fields().to_vec(), ..point };
        index += 1;
        begun |= selection.from.is_some_and(|from| point.timestamp >= from)
            || selection.from_bit.is_some_and(|bit| decoder.position() > bit);
        if begun && shown < selection.points {
            show_skipped(skipped, &mut show)?;
            show(Step::Point(point))?;
            (shown, skipped, held) = (shown + 1, 0, None);
        } else {
            (skipped, held) = (skipped + 1, Some(point));
        }
    }
}

fn show_skipped(points: u64, show: &mut impl FnMut(Step) -> Outcome<()>) -> Outcome<()> {
    if points > 0 { show(Step::Skipped(points)) } else { Ok(()) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use chronolith::m3tsz::EncoderOptions;
    use chronolith::m3tsz::plain::Encoder;

    pub(in super::super) const START: i64 = 1_700_000_000_000_000_000;

    /// A stream of points 10 s apart.
    pub(in super::super) fn stream_of(values: &[f64]) -> Vec<u8> {
        let mut encoder = Encoder::new(START, EncoderOptions::default());
        for (at, value) in values.iter().enumerate() {
            let at = START + 10_000_000_000 * at as i64;
            encoder.append(at, *value, if *value == 7.0 { b"seven" } else { b"" }).expect("whole seconds");
        }
        encoder.finish()
    }

    /// One word for each step.
    fn words(stream: &[u8], selection: Selection) -> String {
        let mut words = Vec::new();
        let damaged = walk(stream, ValueCoding::IntOptimized, selection, |step| {
            words.push(match step {
                Step::Point(point) => format!("{}={}", point.index, point.value),
                Step::Skipped(points) => format!("({points})"),
                Step::End { .. } => "end".to_owned(),
                Step::Damage { index, .. } => format!("{index}!"),
            });
            Ok(())
        });
        assert_eq!(damaged.expect("nothing fails"), words.last().is_some_and(|word| word.ends_with('!')));
        words.join(" ")
    }

    #[test]
    fn selected_points_are_shown_and_the_others_counted() {
        let stream = stream_of(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let all = Selection { from: None, from_bit: None, points: u64::MAX };
        assert_eq!(words(&stream, all), "0=0 1=1 2=2 3=3 4=4 5=5 end");
        assert_eq!(words(&stream, Selection { points: 2, ..all }), "0=0 1=1 (4) end");
        let from = Some(START + 15_000_000_000);
        assert_eq!(words(&stream, Selection { from, points: 2, ..all }), "(2) 2=2 3=3 (2) end");
        assert_eq!(words(&stream, Selection { from: Some(i64::MAX), ..all }), "(6) end");

        let mut bits = Vec::new();
        walk(&stream, ValueCoding::IntOptimized, all, |step| {
            if let Step::Point(point) = step {
                bits.push(point.fields[0].bits.start);
            }
            Ok(())
        })
        .expect("nothing fails");
        let at = |from_bit| words(&stream, Selection { from_bit: Some(from_bit), points: 1, ..all });
        assert_eq!(at(bits[3]), "(3) 3=3 (2) end");
        assert_eq!(at(bits[3] - 1), "(2) 2=2 (3) end");
    }

    #[test]
    fn damage_is_shown_with_the_point_before_it_whatever_is_selected() {
        let mut stream = stream_of(&[0.0, 1.0, 2.0, 3.5, 4.5, 5.5]);
        stream.truncate(stream.len() - 3);
        let none = Selection { from: None, from_bit: None, points: 0 };
        assert_eq!(words(&stream, none), "(4) 4=4.5 5!");
        assert_eq!(words(&stream, Selection { points: 3, ..none }), "0=0 1=1 2=2 (1) 4=4.5 5!");
        assert_eq!(words(&stream, Selection { points: 4, ..none }), "0=0 1=1 2=2 3=3.5 4=4.5 5!");
        assert_eq!(words(&stream[..3], none), "0!");
        assert_eq!(words(b"", none), "end");
    }
}
