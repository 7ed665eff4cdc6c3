//! A stream as lines for people: where a field begins, its bits, what they mean.

use std::fmt::Write;

use chronolith::Timestamp;
use chronolith::m3tsz::plain::{Field, FieldKind, Part, bits_of};

use super::walk::{Explained, Step};
use crate::console::{Style, counted, value};
use crate::ids;
use crate::times;

/// Bits on a line, in groups of 8.
const LINE_BITS: u64 = 32;
/// Columns of that many bits.
const BITS_COLUMNS: usize = 35;
/// Lines that one field may take.
const FIELD_LINES: u64 = 4;
/// Characters of an annotation.
const ANNOTATION_COLUMNS: usize = 40;

/// A line, and what is on it.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    /// A point begins.
    Head(String),
    /// Columns of bits, of this part; then what they mean.
    Bits { columns: String, meaning: String, part: Part },
    /// Something else.
    Note(String),
    /// Damage.
    Damage(String),
}

impl Line {
    pub(super) fn styled(&self, style: Style) -> String {
        match self {
            Line::Head(text) | Line::Damage(text) => style.bold(text),
            Line::Note(text) => style.dim(text),
            Line::Bits { columns, meaning, part } => match part {
                Part::Stream | Part::ValueHeader => format!("{}{meaning}", style.dim(columns)),
                Part::Timestamp => format!("{}{meaning}", style.cyan(columns)),
                Part::Annotation | Part::Value => format!("{}{meaning}", style.green(columns)),
            },
        }
    }
}

/// What the columns are.
pub(super) fn titles() -> Line {
    Line::Note(format!("{:>10}  {:<BITS_COLUMNS$}  meaning", "bit", "bits"))
}

/// The lines of a step.
pub(super) fn lines(stream: &[u8], step: &Step) -> Vec<Line> {
    let mut lines = Vec::new();
    match step {
        Step::Point(point) => {
            lines.push(Line::Head(head(point)));
            lines.extend(point.fields.iter().flat_map(|field| field_lines(stream, field)));
        }
        Step::Skipped(points) => {
            lines.push(Line::Note(format!(
                "... {} not shown (--points, --from) ...",
                counted(*points, "point")
            )));
        }
        Step::End { fields } => {
            lines.push(Line::Head("end".to_owned()));
            lines.extend(fields.iter().flat_map(|field| field_lines(stream, field)));
        }
        Step::Damage { index, fields, error } => {
            lines.push(Line::Head(format!("point {index}, damaged")));
            lines.extend(fields.iter().flat_map(|field| field_lines(stream, field)));
            let bits: Vec<bool> = bits_of(stream, error.bit..stream.len() as u64 * 8).collect();
            let shown = bits.get(..LINE_BITS as usize).unwrap_or(&bits);
            let mut columns = grouped(shown.iter().copied());
            if shown.len() < bits.len() {
                let _ = write!(columns, " and {} more", bits.len() - shown.len());
            }
            lines.push(Line::Damage(format!("{:>10}  {columns}", error.bit)));
            lines.push(Line::Damage(format!("{:>10}  damage here: {}", "^", error.kind)));
        }
    }
    lines
}

/// `point 3  2023-11-14T22:13:50Z  40  17 bits`.
fn head(point: &Explained) -> String {
    let Explained { index, timestamp, annotation, fields, .. } = point;
    let bits: u64 = fields.iter().map(|field| field.bits.end - field.bits.start).sum();
    let mut text = format!(
        "point {index}  {}  {}  {}",
        times::rfc3339(Timestamp::from_nanos(*timestamp)),
        value(point.value),
        counted(bits, "bit")
    );
    if !annotation.is_empty() {
        let annotation = ids::readable(annotation);
        let _ = write!(text, "  \"{}\"", ids::shortened(&annotation, ANNOTATION_COLUMNS));
    }
    text
}

fn field_lines(stream: &[u8], field: &Field) -> Vec<Line> {
    let Field { bits, kind } = field;
    let end = bits.end.min(bits.start + LINE_BITS * FIELD_LINES);
    let mut lines = Vec::new();
    let mut meaning = meaning(stream, field);
    let mut begin = bits.start;
    loop {
        let line_end = end.min(begin + LINE_BITS);
        let text = if bits.is_empty() { "-".to_owned() } else { grouped(bits_of(stream, begin..line_end)) };
        let meaning = std::mem::take(&mut meaning);
        let columns = match meaning.is_empty() {
            false => format!("{begin:>10}  {text:<BITS_COLUMNS$}  "),
            true => format!("{begin:>10}  {text}"),
        };
        lines.push(Line::Bits { columns, meaning, part: kind.part() });
        begin = line_end;
        if begin >= end {
            break;
        }
    }
    if end < bits.end {
        lines.push(Line::Note(format!("{:>10}  and {}", end, counted(bits.end - end, "more bit"))));
    }
    lines
}

/// What a field says, with times, values and annotations as they are written elsewhere.
pub(super) fn meaning(stream: &[u8], field: &Field) -> String {
    let as_value = |bits| value(f64::from_bits(bits));
    match field.kind {
        FieldKind::Start { at } => format!("start: {}", times::rfc3339(Timestamp::from_nanos(at))),
        FieldKind::FullValue { bits } => format!("value: {}", as_value(bits)),
        FieldKind::Width { width } => format!("width: {}", counted(width.into(), "bit")),
        FieldKind::XorLead { lead } => format!("XOR: {}", counted(lead.into(), "leading zero")),
        FieldKind::XorSpan { span } => format!("XOR: {}", counted(span.into(), "bit")),
        FieldKind::XorBits { bits, .. } => format!("XOR, to {}", as_value(bits)),
        FieldKind::Annotation => {
            let bits: Vec<bool> = bits_of(stream, field.bits.clone()).collect();
            let byte = |bits: &[bool]| bits.iter().fold(0_u8, |byte, bit| byte << 1 | u8::from(*bit));
            let bytes: Vec<u8> = bits.chunks(8).take(ANNOTATION_COLUMNS + 1).map(byte).collect();
            format!("annotation: {}", ids::shortened(&ids::readable(&bytes), ANNOTATION_COLUMNS))
        }
        kind => kind.to_string(),
    }
}

/// Zeros and ones in groups of 8.
fn grouped(bits: impl Iterator<Item = bool>) -> String {
    let mut text = String::new();
    for (at, bit) in bits.enumerate() {
        if at > 0 && at.is_multiple_of(8) {
            text.push(' ');
        }
        text.push(if bit { '1' } else { '0' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::walk::tests::stream_of;
    use super::super::walk::{Selection, walk};
    use super::*;
    use chronolith::m3tsz::ValueCoding;

    fn shown(stream: &[u8], points: u64) -> Vec<String> {
        let mut text = Vec::new();
        let selection = Selection { from: None, from_bit: None, points };
        walk(stream, ValueCoding::IntOptimized, selection, |step| {
            text.extend(lines(stream, &step).into_iter().map(|line| match line {
                Line::Head(text) | Line::Note(text) | Line::Damage(text) => text,
                Line::Bits { columns, meaning, .. } => columns + &meaning,
            }));
            Ok(())
        })
        .expect("nothing fails");
        text
    }

    #[test]
    fn one_of_a_kind_is_no_plural() {
        let meaning = |kind| meaning(&[], &Field { bits: 0..0, kind });
        assert_eq!(meaning(FieldKind::XorSpan { span: 1 }), "XOR: 1 bit");
        assert_eq!(meaning(FieldKind::XorSpan { span: 2 }), "XOR: 2 bits");
        assert_eq!(meaning(FieldKind::XorLead { lead: 1 }), "XOR: 1 leading zero");
        assert_eq!(meaning(FieldKind::Width { width: 1 }), "width: 1 bit");
    }

    #[test]
    fn a_stream_is_spelled_out() {
        let expected = "\
point 0  2023-11-14T22:13:20Z  1.5  83 bits
         0  00010111 10010111 10011100 11111110  start: 2023-11-14T22:13:20Z
        32  00110110 00101010 00000000 00000000
        64  0                                    same delta
        65  0                                    first value: an integer
        66  1                                    width: changes
        67  1                                    width: not 0
        68  000011                               width: 4 bits
        74  1                                    multiplier: given
        75  001                                  multiplier: 10^1
        78  1                                    sign: up
        79  1111                                 difference: 15, to 15 / 10^1
point 1  2023-11-14T22:13:30Z  1.5  11 bits
        83  10                                   delta-of-delta of 7 bits
        85  0001010                              delta-of-delta: +10, to 10 s
        92  01                                   value: repeated
... 1 point not shown (--points, --from) ...
end
        97  10000000 000                         marker: end of stream";
        let text = shown(&stream_of(&[1.5, 1.5, 1.5]), 2).join("\n");
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn long_annotations_are_cut() {
        let text = shown(&stream_of(&[1.0, 7.0]), 9);
        let of = |word: &str| text.iter().find(|line| line.contains(word)).cloned().unwrap_or_default();
        assert!(of("point 1").ends_with("\"seven\""));
        assert!(of("annotation: ").ends_with("annotation: seven"));
    }

    #[test]
    fn damage_is_shown_where_it_is() {
        let mut stream = stream_of(&[1.0, 2.0, 0.1 + 0.2]);
        stream.truncate(stream.len() - 5);
        let text = shown(&stream, 9);
        let damage = &text[text.len() - 2..];
        assert!(text.iter().any(|line| line == "point 2, damaged"), "{text:?}");
        assert!(damage[1].ends_with("damage here: the stream ends without an end marker"), "{damage:?}");
    }
}
