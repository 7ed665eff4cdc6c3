//! The codec against streams that M3's encoder wrote, and what M3's decoder reads in them (`tests/data/m3tsz`), and
//! against the examples of `design/m3tsz.md`.

use std::path::Path;

use base64::Engine;
use chronolith::m3tsz::{
    DecodeError, Decoder, EncodeError, Encoder, EncoderOptions, Mode, TimeUnit, ValueCoding,
};
use serde_json::Value;

/// A point of a fixture. The unit is a name, as some are no unit of ours.
#[derive(Clone, Debug, PartialEq)]
struct Point {
    at: i64,
    bits: u64,
    unit: String,
    annotation: Vec<u8>,
}

impl Point {
    fn unit(&self) -> Result<TimeUnit, chronolith::m3tsz::UnsupportedUnit> {
        let names = ["none", "s", "ms", "us", "ns", "m", "h", "d"];
        let id = names.iter().position(|name| *name == self.unit).expect("a unit of M3");
        TimeUnit::try_from(id as u8)
    }
}

fn lines(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/m3tsz").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("a hexadecimal digit") as u8)
        .collect();
    assert!(digits.len().is_multiple_of(2), "{text}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn points(value: &Value) -> Vec<Point> {
    let point = |point: &Value| Point {
        at: point[0].as_i64().expect("a timestamp"),
        bits: u64::from_str_radix(text(&point[1]), 16).expect("bits of a value"),
        unit: text(&point[3]).to_owned(),
        annotation: point.get(4).map(|annotation| hex(text(annotation))).unwrap_or_default(),
    };
    value.as_array().expect("points").iter().map(point).collect()
}

fn values(fixture: &Value) -> ValueCoding {
    match fixture["int_optimized"].as_bool().expect("a flag") {
        true => ValueCoding::IntOptimized,
        false => ValueCoding::Plain,
    }
}

fn new_encoder(fixture: &Value, mode: Mode) -> Encoder {
    let start = fixture["start_ns"].as_i64().expect("a start");
    Encoder::new(start, EncoderOptions::default().mode(mode).values(values(fixture)))
}

fn append(encoder: &mut Encoder, point: &Point) -> Result<(), EncodeError> {
    let unit = point.unit().expect("s, ms, us or ns");
    encoder.append_with_unit(point.at, f64::from_bits(point.bits), &point.annotation, unit)
}

fn finished(encoder: &Encoder) -> Vec<u8> {
    let mut stream = Vec::new();
    encoder.finish_into(&mut stream);
    assert_eq!(stream.len(), encoder.finish_bytes());
    stream
}

fn decode(stream: &[u8], values: ValueCoding) -> (Vec<Point>, Option<DecodeError>) {
    let mut decoder = Decoder::new(stream, values);
    let mut points = Vec::new();
    while let Some(point) = decoder.next_point() {
        match point {
            Ok(point) => points.push(Point {
                at: point.timestamp,
                bits: point.value.to_bits(),
                unit: point.unit.to_string(),
                annotation: point.annotation.to_vec(),
            }),
            Err(error) => return (points, Some(error)),
        }
    }
    (points, None)
}

/// Encodes the points losslessly, in another stream where one refuses, and compares all that comes back but units.
fn assert_lossless_round_trip(points: &[Point], start: i64, values: ValueCoding, name: &str) {
    let options = EncoderOptions::default().values(values);
    let mut streams = vec![Encoder::new(start, options)];
    for point in points {
        let value = f64::from_bits(point.bits);
        let last = streams.last_mut().expect("never empty");
        if last.append(point.at, value, &point.annotation).is_err() {
            let mut next = Encoder::new(point.at, options);
            next.append(point.at, value, &point.annotation).expect("a stream that starts with the point");
            streams.push(next);
        }
    }
    let mut read = Vec::new();
    for stream in &streams {
        let (points, error) = decode(&finished(stream), values);
        assert_eq!(error, None, "{name}");
        read.extend(points);
    }
    assert_eq!(read.len(), points.len(), "{name}");
    for (read, written) in read.iter().zip(points) {
        assert_eq!(
            (read.at, read.bits, &read.annotation),
            (written.at, written.bits, &written.annotation),
            "{name}"
        );
    }
}

#[test]
fn m3_mode_writes_what_m3_writes() {
    let fixtures = lines("streams.jsonl");
    assert_eq!(fixtures.len(), 212);
    for fixture in &fixtures {
        let mut encoder = new_encoder(fixture, Mode::M3);
        for point in points(&fixture["points"]) {
            append(&mut encoder, &point).expect("M3 took it");
        }
        assert_eq!(finished(&encoder), hex(text(&fixture["encoded_hex"])), "{}", fixture["name"]);
    }
}

#[test]
fn decoder_reads_what_m3_reads() {
    let mut inexact = 0;
    for fixture in lines("streams.jsonl") {
        let expected = match fixture.get("decoded") {
            Some(decoded) => points(decoded),
            None => points(&fixture["points"]),
        };
        inexact += usize::from(fixture.get("decoded").is_some());
        assert!(fixture.get("decode_error").is_none());
        let mut read = decode(&hex(text(&fixture["encoded_hex"])), values(&fixture));
        if fixture.get("decoded").is_none() {
            // M3 leaves out an annotation equal to the last one written, so take those as read.
            let mut written = Vec::new();
            for (read, point) in read.0.iter_mut().zip(&expected) {
                if !point.annotation.is_empty() && point.annotation == written {
                    assert_eq!(read.annotation, b"", "{}", fixture["name"]);
                    read.annotation.clone_from(&written);
                }
                if !point.annotation.is_empty() {
                    written.clone_from(&point.annotation);
                }
            }
        }
        assert_eq!(read, (expected, None), "{}", fixture["name"]);
    }
    assert_eq!(inexact, 16);
}

#[test]
fn lossless_mode_keeps_the_points_that_m3_was_given() {
    for fixture in lines("streams.jsonl") {
        let start = fixture["start_ns"].as_i64().expect("a start");
        let points = points(&fixture["points"]);
        assert_lossless_round_trip(&points, start, values(&fixture), text(&fixture["name"]));
        assert_lossless_round_trip(&points, 12_345, values(&fixture), text(&fixture["name"]));
    }
}

#[test]
fn what_m3_refuses_is_refused_and_leaves_no_trace() {
    let fixtures = lines("encode-errors.jsonl");
    assert_eq!(fixtures.len(), 3);
    for fixture in &fixtures {
        let refused_at = fixture["error_at_point"].as_u64().expect("an index");
        let mut encoder = new_encoder(fixture, Mode::M3);
        let mut untroubled = new_encoder(fixture, Mode::M3);
        let mut refused = None;
        for (at, point) in points(&fixture["points"]).iter().enumerate() {
            let before = (finished(&encoder), encoder.points(), encoder.last_timestamp());
            let result = match point.unit() {
                Ok(_) => append(&mut encoder, point).map_err(|error| error.to_string()),
                Err(unit) => Err(unit.to_string()),
            };
            if result.is_ok() {
                append(&mut untroubled, point).expect("the same point");
                continue;
            }
            assert_eq!(before, (finished(&encoder), encoder.points(), encoder.last_timestamp()));
            refused = Some(at as u64);
            break;
        }
        assert_eq!(refused, Some(refused_at), "{}", fixture["name"]);
        // Both go on alike.
        let next = Point { at: 1_700_000_100_000_000_000, bits: 0, unit: "us".into(), annotation: vec![7] };
        append(&mut encoder, &next).expect("a change of unit");
        append(&mut untroubled, &next).expect("a change of unit");
        assert_eq!(finished(&encoder), finished(&untroubled));
        assert_eq!(decode(&finished(&encoder), values(fixture)).0.last(), Some(&next));
    }
}

#[test]
fn m3_s_own_samples_decode_and_encode_again_to_the_same_bytes() {
    let fixtures = lines("m3-samples.jsonl");
    assert_eq!(fixtures.len(), 11);
    let mut read = 0;
    for fixture in &fixtures {
        let stream = base64::engine::general_purpose::STANDARD
            .decode(text(&fixture["encoded_base64"]))
            .expect("base64");
        let expected = points(&fixture["points"]);
        assert_eq!(decode(&stream, values(fixture)), (expected.clone(), None), "{}", fixture["name"]);
        assert_eq!(fixture["reencode_identical"], Value::Bool(true));
        let mut encoder = new_encoder(fixture, Mode::M3);
        for point in &expected {
            append(&mut encoder, point).expect("M3 took it");
        }
        assert_eq!(finished(&encoder), stream, "{}", fixture["name"]);
        let start = fixture["start_ns"].as_i64().expect("a start");
        assert_lossless_round_trip(&expected, start, values(fixture), text(&fixture["name"]));
        read += expected.len();
    }
    assert_eq!(read, 7_347);
}

#[test]
fn lossless_streams_that_m3_reads_are_the_ones_we_write() {
    let fixtures = lines("lossless.jsonl");
    assert_eq!(fixtures.len(), 122);
    let (mut same_units, mut given_units) = (0, 0);
    for fixture in &fixtures {
        let (name, stream) = (text(&fixture["name"]), hex(text(&fixture["encoded_hex"])));
        let expected = points(&fixture["points"]);
        assert_eq!(fixture["m3_decodes_equal"], Value::Bool(true));
        assert_eq!(decode(&stream, values(fixture)), (expected.clone(), None), "{name}");
        let start = fixture["start_ns"].as_i64().expect("a start");
        assert_lossless_round_trip(&expected, start, values(fixture), name);

        // In the units given: every stream that a caller of M3 could ask for.
        if fixture["unit_policy"] != "rearm" {
            let mut encoder = new_encoder(fixture, Mode::Lossless);
            for point in &expected {
                append(&mut encoder, point).expect("exact in its unit");
            }
            assert_eq!(finished(&encoder), stream, "{name}");
            given_units += 1;
        }
        // In units of the encoder's choice: those that follow its rule, or never tell it from another.
        let mut encoder = new_encoder(fixture, Mode::Lossless);
        for point in &expected {
            encoder.append(point.at, f64::from_bits(point.bits), b"").expect("within 291 years");
        }
        if fixture["unit_policy"] == "return" || name.contains("-v-") || name.contains("-c-") {
            assert_eq!(finished(&encoder), stream, "{name}");
            same_units += 1;
        }
    }
    assert_eq!((same_units, given_units), (86, 118));
}

/// The examples of the format page, each a fenced block marked `example`:
///
/// ```text
/// name, int-optimized|plain, m3|both
/// start NANOSECONDS
/// point NANOSECONDS UNIT VALUE [ANNOTATION]
/// bytes HEX
/// ```
#[test]
fn examples_of_the_format_page_are_right() {
    let page = include_str!("../design/m3tsz.md");
    let mut examples = 0;
    for block in page.split("```example\n").skip(1) {
        let block = block.split("```").next().expect("split yields a first part");
        let mut head = block.lines().next().expect("a first line").split(", ");
        let name = head.next().expect("a name");
        let values = match head.next() {
            Some("int-optimized") => ValueCoding::IntOptimized,
            Some("plain") => ValueCoding::Plain,
            other => panic!("{name}: {other:?}"),
        };
        let modes: &[Mode] = match head.next() {
            Some("m3") => &[Mode::M3],
            Some("lossless") => &[Mode::Lossless],
            Some("both") => &[Mode::M3, Mode::Lossless],
            other => panic!("{name}: {other:?}"),
        };
        let (mut start, mut written, mut bytes) = (0, Vec::new(), Vec::new());
        for line in block.lines().skip(1) {
            let (word, rest) = line.split_once(' ').expect("a word and more");
            let fields: Vec<&str> = rest.split(' ').collect();
            match word {
                "start" => start = rest.parse().expect("nanoseconds"),
                "bytes" => bytes.extend(hex(rest)),
                "point" => written.push(Point {
                    at: fields[0].parse().expect("nanoseconds"),
                    unit: fields[1].to_owned(),
                    bits: fields[2].parse::<f64>().expect("a value").to_bits(),
                    annotation: fields.get(3).map(|text| text.as_bytes().to_vec()).unwrap_or_default(),
                }),
                _ => panic!("{name}: {line}"),
            }
        }
        for mode in modes {
            let mut encoder = Encoder::new(start, EncoderOptions { mode: *mode, values });
            for point in &written {
                append(&mut encoder, point).expect("an example");
            }
            assert_eq!(finished(&encoder), bytes, "{name}");
        }
        let (read, error) = decode(&bytes, values);
        assert_eq!((read.len(), error), (written.len(), None), "{name}");
        if modes.contains(&Mode::Lossless) {
            assert_eq!(read, written, "{name}");
        }
        examples += 1;
    }
    assert_eq!(examples, 8);
}
