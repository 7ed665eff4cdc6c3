//! Where the bits of a stream go.

use std::collections::BTreeMap;

use chronolith::Timestamp;
use chronolith::fileset::{Numbers, Statistics};
use chronolith::m3tsz::plain::{Field, FieldKind, Part};
use chronolith::m3tsz::{DecodeError, ValueCoding};
use serde_json::{Map, Value, json};

use super::MetricStream;
use super::walk::{Selection, Step, walk};
use crate::console::{counted, json_value, thousands, value};
use crate::failure::Outcome;
use crate::ids;
use crate::times;

/// Columns of a full bar.
const BAR_COLUMNS: usize = 30;

/// A stream in figures, up to its end or to the damage.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) points: u64,
    annotations: u64,
    /// First and last, as they come in the stream.
    ends: Option<(i64, i64)>,
    /// Bits up to the end or the damage, padding included.
    bits: u64,
    by_part: BTreeMap<Part, u64>,
    /// Points by how their timestamp and their value are written.
    timestamps: BTreeMap<TimestampForm, u64>,
    values: BTreeMap<ValueForm, u64>,
    pub(super) damage: Option<DecodeError>,
}

/// How a timestamp is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TimestampForm {
    /// With a delta-of-delta of so many bits.
    Dod(u32),
    UnitChange,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ValueForm {
    Repeated,
    Difference,
    DifferenceWithHeader,
    XorWithin,
    XorElsewhere,
    InFull,
}

impl Summary {
    pub(super) fn of(stream: &[u8], values: ValueCoding) -> Outcome<Self> {
        let mut summary = Summary::default();
        let all = Selection { from: None, from_bit: None, points: u64::MAX };
        walk(stream, values, all, |step| {
            summary.add(&step);
            Ok(())
        })?;
        Ok(summary)
    }

    fn add(&mut self, step: &Step) {
        let fields = match step {
            Step::Point(point) => {
                self.points += 1;
                self.annotations += u64::from(!point.annotation.is_empty());
                let first = self.ends.map_or(point.timestamp, |ends| ends.0);
                self.ends = Some((first, point.timestamp));
                for field in &point.fields {
                    if let Some(form) = TimestampForm::of(field) {
                        *self.timestamps.entry(form).or_default() += 1;
                    }
                }
                *self.values.entry(ValueForm::of(&point.fields)).or_default() += 1;
                &point.fields
            }
            Step::Damage { fields, error, .. } => {
                self.damage = Some(*error);
                fields
            }
            Step::End { fields } => fields,
            Step::Skipped(_) => return,
        };
        for field in fields {
            if field.kind != FieldKind::Behind {
                let bits = field.bits.end - field.bits.start;
                *self.by_part.entry(field.kind.part()).or_default() += bits;
                self.bits += bits;
            }
        }
    }

    /// For people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.headline()];
        if let Some(damage) = self.damage {
            lines.push(format!("damaged at bit {}: {} (--bits shows it)", damage.bit, damage.kind));
        }
        if self.points == 0 {
            return lines;
        }
        let parts = Part::ALL.into_iter().filter_map(|part| Some((part.name(), *self.by_part.get(&part)?)));
        let per_point = |bits: u64| format!("  {:>8.2}", bits as f64 / self.points as f64);
        lines.extend(table(["where the bits go", "bits", "  per point"], parts.collect(), per_point));
        let forms = self.timestamps.iter().map(|(form, points)| (form.name(), *points));
        lines.extend(table(["timestamps", "points", ""], forms.collect(), |_| String::new()));
        let forms = self.values.iter().map(|(form, points)| (form.name(), *points));
        lines.extend(table(["values", "points", ""], forms.collect(), |_| String::new()));
        lines
    }

    fn headline(&self) -> String {
        let mut text = counted(self.points, "point");
        if let Some((first, last)) = self.ends {
            let time = |at| times::rfc3339(Timestamp::from_nanos(at));
            text += &format!(", {} to {}", time(first), time(last));
            text += &format!(", {:.2} bits per point", self.bits as f64 / self.points as f64);
        }
        if self.annotations > 0 {
            text += &format!(", {}", counted(self.annotations, "annotation"));
        }
        text
    }

    pub(super) fn to_json(&self, stream: &MetricStream) -> Value {
        let mut object = Map::new();
        ids::put_json(&mut object, &stream.id);
        let per_point = self.bits as f64 / self.points as f64;
        let by_part: Map<_, _> =
            self.by_part.iter().map(|(part, bits)| (part.name().replace(' ', "_"), json!(bits))).collect();
        let timestamps: Map<_, _> =
            self.timestamps.iter().map(|(form, points)| (form.name().to_owned(), json!(points))).collect();
        let values: Map<_, _> =
            self.values.iter().map(|(form, points)| (form.name().to_owned(), json!(points))).collect();
        for (name, value) in [
            ("block_start_ns", json!(stream.name.block_start)),
            ("volume", json!(stream.name.volume)),
            ("offset", json!(stream.offset)),
            ("bytes", json!(stream.bytes.len())),
            ("points", json!(self.points)),
            ("annotations", json!(self.annotations)),
            ("first_ns", json!(self.ends.map(|ends| ends.0))),
            ("last_ns", json!(self.ends.map(|ends| ends.1))),
            ("bits_per_point", if self.points > 0 { json_value(per_point) } else { Value::Null }),
            ("bits", Value::Object(by_part)),
            ("points_by_timestamp", Value::Object(timestamps)),
            ("points_by_value", Value::Object(values)),
            ("damage", json!(self.damage.map(|damage| damage.kind.to_string()))),
            ("volume_damage", json!(stream.damage.iter().map(ToString::to_string).collect::<Vec<_>>())),
            ("statistics", stream.statistics.as_ref().map_or(Value::Null, json_statistics)),
            ("damage_bit", json!(self.damage.map(|damage| damage.bit))),
        ] {
            object.insert(name.to_owned(), value);
        }
        Value::Object(object)
    }
}

/// What a supplement says of the stream.
pub(super) fn of_supplement(statistics: &Statistics) -> String {
    let points = counted(statistics.points().into(), "point");
    let numbers = statistics.numbers().map_or(String::new(), |numbers| {
        let Numbers { count, min, max, sum } = numbers;
        let (count, [min, max, sum]) = (thousands(count.into()), [min, max, sum].map(value));
        format!(", {count} of them numbers, {min} to {max}, sum {sum}")
    });
    format!("the supplement says: {points}{numbers}")
}

fn json_statistics(statistics: &Statistics) -> Value {
    let numbers = statistics.numbers().map(|numbers| {
        let Numbers { count, min, max, sum } = numbers;
        json!({"count": count, "min": json_value(min), "max": json_value(max), "sum": json_value(sum)})
    });
    let (first, last) = (statistics.first(), statistics.last());
    json!({"points": statistics.points(), "first_ns": first, "last_ns": last, "numbers": numbers})
}

impl TimestampForm {
    fn of(field: &Field) -> Option<Self> {
        match field.kind {
            FieldKind::DodOpcode { dod_bits } => Some(TimestampForm::Dod(dod_bits)),
            FieldKind::DodNanos { .. } => Some(TimestampForm::UnitChange),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            TimestampForm::Dod(0) => "same delta",
            TimestampForm::Dod(7) => "7 bits",
            TimestampForm::Dod(9) => "9 bits",
            TimestampForm::Dod(12) => "12 bits",
            TimestampForm::Dod(32) => "32 bits",
            TimestampForm::Dod(_) => "64 bits",
            TimestampForm::UnitChange => "change of unit",
        }
    }
}

impl ValueForm {
    fn of(fields: &[Field]) -> Self {
        let has = |wanted: fn(FieldKind) -> bool| fields.iter().any(|field| wanted(field.kind));
        if has(|kind| matches!(kind, FieldKind::Repeat | FieldKind::XorZero)) {
            ValueForm::Repeated
        } else if has(|kind| matches!(kind, FieldKind::XorWithin { .. })) {
            ValueForm::XorWithin
        } else if has(|kind| matches!(kind, FieldKind::XorElsewhere)) {
            ValueForm::XorElsewhere
        } else if has(|kind| matches!(kind, FieldKind::FullValue { .. })) {
            ValueForm::InFull
        } else if has(|kind| matches!(kind, FieldKind::WidthFlag { .. })) {
            ValueForm::DifferenceWithHeader
        } else {
            ValueForm::Difference
        }
    }

    fn name(self) -> &'static str {
        match self {
            ValueForm::Repeated => "repeated",
            ValueForm::Difference => "difference",
            ValueForm::DifferenceWithHeader => "difference, header",
            ValueForm::XorWithin => "XOR in last span",
            ValueForm::XorElsewhere => "XOR in own span",
            ValueForm::InFull => "in full",
        }
    }
}

/// A title with the column of counts, and for each row its name, its count, its share, whatever more, and a bar.
fn table(
    [title, counts, more_title]: [&str; 3],
    rows: Vec<(&'static str, u64)>,
    more: impl Fn(u64) -> String,
) -> Vec<String> {
    let total = rows.iter().map(|row| row.1).sum::<u64>().max(1);
    let mut lines = vec![String::new(), format!("{title:<20}  {counts:>11}  {:>7}{more_title}", "share")];
    lines.extend(rows.into_iter().map(|(name, count)| {
        let share = count as f64 / total as f64;
        let figures = format!("{:>11}  {:>5.1} %{}", thousands(count), share * 100.0, more(count));
        format!("  {name:<18}  {figures}  {}", bar(share)).trim_end().to_owned()
    }));
    lines
}

/// A bar of whole and partial blocks.
fn bar(share: f64) -> String {
    let eighths = (share.clamp(0.0, 1.0) * BAR_COLUMNS as f64 * 8.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    bar.extend(["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(eighths % 8).copied());
    bar
}

#[cfg(test)]
mod tests {
    use super::super::walk::tests::stream_of;
    use super::*;

    #[test]
    fn parts_add_up_to_the_stream() {
        let stream = stream_of(&[42.0, 42.0, 43.0, 7.0, 0.1 + 0.2, 0.3, 0.3, 1e300, -0.0, 5.0]);
        let summary = Summary::of(&stream, ValueCoding::IntOptimized).expect("nothing fails");
        assert_eq!((summary.points, summary.annotations, summary.damage), (10, 1, None));
        assert_eq!(summary.by_part.values().sum::<u64>(), stream.len() as u64 * 8);
        assert_eq!(summary.timestamps.values().sum::<u64>(), 10);
        assert_eq!(summary.values.values().sum::<u64>(), 10);
        assert_eq!(summary.values[&ValueForm::Repeated], 2);
        assert_eq!(summary.timestamps[&TimestampForm::Dod(7)], 1);
        assert_eq!(summary.timestamps[&TimestampForm::Dod(0)], 9);
        let behind = Summary::of(&[&stream[..], b"more"].concat(), ValueCoding::IntOptimized);
        assert_eq!(behind.expect("nothing fails").bits, summary.bits);
    }

    #[test]
    fn lines_are_aligned_and_bars_are_as_long_as_shares() {
        let summary = Summary::of(&stream_of(&[1.0; 100]), ValueCoding::IntOptimized).expect("nothing fails");
        let lines = summary.lines();
        assert!(
            lines[0].starts_with("100 points, 2023-11-14T22:13:20Z to 2023-11-14T22:29:50Z, "),
            "{lines:?}"
        );
        let row = lines.iter().find(|line| line.contains("repeated")).expect("a row");
        assert!(row.contains(" 99   99.0 %  █"), "{row}");
        assert_eq!(bar(0.5), "█".repeat(15));
        assert_eq!(bar(1.0 / 240.0), "▏");
        assert_eq!(bar(0.0), "");
    }

    #[test]
    fn damage_is_told() {
        let stream = stream_of(&[1.0, 2.0, 3.0]);
        let summary =
            Summary::of(&stream[..stream.len() - 2], ValueCoding::IntOptimized).expect("nothing fails");
        let text = summary.lines().join("\n");
        assert!(summary.damage.is_some() && text.contains("damaged at bit "), "{text}");
        let nothing = Summary::of(&stream[..4], ValueCoding::IntOptimized).expect("nothing fails");
        assert_eq!(nothing.lines().len(), 2);
    }
}
