//! A stream as objects: one for each point, and one for the end or the damage.

use chronolith::m3tsz::plain::{Field, FieldKind, bits_of};
use serde_json::{Map, Value, json};

use super::text::meaning;
use super::walk::Step;
use crate::console::json_value;
use crate::ids;

/// The object of a step.
pub(super) fn object(stream: &[u8], step: &Step) -> Value {
    let fields =
        |fields: &[Field]| Value::Array(fields.iter().map(|field| of_field(stream, field)).collect());
    match step {
        Step::Point(point) => {
            let mut object = Map::new();
            object.insert("point".to_owned(), json!(point.index));
            object.insert("ts_ns".to_owned(), json!(point.timestamp));
            object.insert("value".to_owned(), json_value(point.value));
            object.insert("value_bits".to_owned(), json!(format!("{:016x}", point.value.to_bits())));
            object.insert("unit".to_owned(), json!(point.unit.to_string()));
            if !point.annotation.is_empty() {
                object.insert("annotation_hex".to_owned(), json!(ids::hex(&point.annotation)));
            }
            object.insert("fields".to_owned(), fields(&point.fields));
            Value::Object(object)
        }
        Step::Skipped(points) => json!({"skipped_points": points}),
        Step::End { fields: read } => json!({"end": true, "fields": fields(read)}),
        Step::Damage { index, fields: read, error } => json!({
            "point": index,
            "damage": error.kind.to_string(),
            "bit": error.bit,
            "fields": fields(read),
        }),
    }
}

fn of_field(stream: &[u8], field: &Field) -> Value {
    let bits: String = bits_of(stream, field.bits.clone()).map(|bit| if bit { '1' } else { '0' }).collect();
    let mut object = Map::new();
    object.insert("bit".to_owned(), json!(field.bits.start));
    object.insert("bits".to_owned(), json!(bits));
    object.insert("part".to_owned(), json!(field.kind.part().name()));
    object.insert("field".to_owned(), json!(field.kind.name()));
    object.insert("meaning".to_owned(), json!(meaning(stream, field)));
    for (name, figure) in figures(field.kind) {
        object.insert(name.to_owned(), figure);
    }
    Value::Object(object)
}

/// What a field says, in figures.
fn figures(kind: FieldKind) -> Vec<(&'static str, Value)> {
    let hex = |bits: u64| json!(format!("{bits:016x}"));
    match kind {
        FieldKind::Start { at } => vec![("ts_ns", json!(at))],
        FieldKind::AnnotationLength { bytes } => vec![("bytes", json!(bytes))],
        FieldKind::Unit { unit, changed } => {
            vec![("unit", json!(unit.to_string())), ("changed", json!(changed))]
        }
        FieldKind::DodOpcode { dod_bits } => vec![("dod_bits", json!(dod_bits))],
        FieldKind::Dod { dod, unit, delta_ns } => {
            vec![("dod", json!(dod)), ("unit", json!(unit.to_string())), ("delta_ns", json!(delta_ns))]
        }
        FieldKind::DodNanos { dod_ns } => vec![("dod_ns", json!(dod_ns))],
        FieldKind::FirstOpcode { is_float } => vec![("is_float", json!(is_float))],
        FieldKind::WidthFlag { changes } => vec![("changes", json!(changes))],
        FieldKind::WidthZeroFlag { zero } => vec![("zero", json!(zero))],
        FieldKind::Width { width } => vec![("width", json!(width))],
        FieldKind::MultFlag { given } => vec![("given", json!(given))],
        FieldKind::Mult { mult } => vec![("mult", json!(mult))],
        FieldKind::Sign { up } => vec![("up", json!(up))],
        FieldKind::Magnitude { magnitude, int, mult } => {
            vec![("magnitude", json!(magnitude)), ("int", json_value(int)), ("mult", json!(mult))]
        }
        FieldKind::FullValue { bits } => vec![("value_bits", hex(bits))],
        FieldKind::XorWithin { lead, span } => vec![("lead", json!(lead)), ("span", json!(span))],
        FieldKind::XorLead { lead } => vec![("lead", json!(lead))],
        FieldKind::XorSpan { span } => vec![("span", json!(span))],
        FieldKind::XorBits { xor, bits } => vec![("xor", hex(xor)), ("value_bits", hex(bits))],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::walk::tests::{START, stream_of};
    use super::super::walk::{Selection, walk};
    use super::*;
    use chronolith::m3tsz::ValueCoding;

    #[test]
    fn objects_hold_all_bits_and_what_they_say() {
        let stream = stream_of(&[42.0, 42.5, 0.1 + 0.2]);
        let (mut objects, mut bits) = (Vec::new(), String::new());
        let selection = Selection { from: None, from_bit: None, points: u64::MAX };
        walk(&stream, ValueCoding::IntOptimized, selection, |step| {
            objects.push(object(&stream, &step));
            Ok(())
        })
        .expect("nothing fails");
        for object in &objects {
            for field in object["fields"].as_array().expect("fields") {
                assert_eq!(field["bit"], bits.len());
                bits.push_str(field["bits"].as_str().expect("bits"));
            }
        }
        let expected: String = stream.iter().map(|byte| format!("{byte:08b}")).collect();
        assert_eq!(bits, expected);
        assert_eq!(objects.len(), 4);
        assert_eq!(
            (&objects[0]["point"], &objects[0]["ts_ns"], &objects[0]["value"]),
            (&json!(0), &json!(START), &json!(42.0))
        );
        assert_eq!(objects[0]["fields"][0]["field"], "start");
        assert_eq!(objects[3]["end"], json!(true));
    }
}
