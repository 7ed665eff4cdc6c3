//! `codec check`: the M3TSZ codec against fixtures, streams that M3's own encoder and decoder wrote and read.
//!
//! A fixture is one JSON object on a line, with
//! * `name`, `int_optimized` (whether values are coded as M3DB codes them), `start_ns`,
//! * `points`: what was encoded; a point is `[timestamp_ns, "value bits in hex", "decimal", "s|ms|us|ns"]` and, if it is annotated,
//!   the annotation in hex; the decimal is for people,
//! * `encoded_hex` or `encoded_base64`: the stream,
//! * `decoded` and perhaps `decode_error`, if M3's decoder does not return `points`: what it returns before it ends or fails,
//! * `unit_policy` and `m3_encoder_identical`, if the stream comes from a lossless encoder: how the units were chosen, and whether M3's
//!   encoder writes the same bytes,
//! * `error_at_point` in place of a stream, if M3's encoder refuses that point.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use chronolith::m3tsz::{Decoder, EncodeError, Encoder, EncoderOptions, Mode, TimeUnit, ValueCoding};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::console::Console;
use crate::failure::{Failure, Outcome, Status};
use crate::ids;
use crate::input::Input;
use crate::progress::Progress;

/// Work with M3TSZ streams.
#[derive(Args, Debug)]
pub(crate) struct CodecArgs {
    #[command(subcommand)]
    command: CodecCommand,
}

#[derive(Debug, Subcommand)]
enum CodecCommand {
    /// Check the codec against a file of fixtures (JSON lines).
    ///
    /// Each stream is encoded and compared byte for byte, decoded and compared with what M3 decodes, and its points go through the lossless codec
    /// and must come back the same. The last line is the result, `{"streams":N,"encode_ok":N,"decode_ok":N,"lossless_ok":N}`; the exit status is 1
    /// unless all are N.
    Check {
        /// The fixtures, plain or zstd; `-` is standard input.
        file: PathBuf,
    },
}

pub(crate) fn run(args: CodecArgs, console: Console) -> Outcome {
    let CodecCommand::Check { file } = args.command;
    let input = Input::new(file);
    let size = input.stored_bytes()?;
    let read = Arc::new(AtomicU64::new(0));
    let lines = BufReader::new(input.open(Arc::clone(&read))?).lines();
    let mut progress = Progress::bytes(console, size, "checking");
    let mut out = console.out();
    let mut tally = Tally::default();
    for (number, line) in (1..).zip(lines) {
        let line =
            line.map_err(|error| Failure::input(format_args!("cannot read {}: {error}", input.name())))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let fixture = Fixture::parse(&line)
            .map_err(|reason| Failure::input(format_args!("{}, line {number}: {reason}", input.name())))?;
        let checks = [check_encode(&fixture), check_decode(&fixture), check_lossless(&fixture)];
        tally.add(&checks);
        for (check, result) in ["encode", "decode", "lossless"].into_iter().zip(checks) {
            let Err(problem) = result else { continue };
            if console.json {
                out.json(&json!({"stream": fixture.name, "check": check, "problem": problem}))?;
            } else {
                out.line(format_args!("{}: {check}: {problem}", fixture.name))?;
            }
        }
        progress.set(read.load(Ordering::Relaxed))?;
    }
    drop(progress);
    if tally.streams == 0 {
        return Err(Failure::input(format_args!("{} has no fixtures", input.name())));
    }
    out.line(tally.line())?;
    out.flush()?;
    Ok(if tally.all_ok() { Status::Done } else { Status::CheckFailed })
}

#[derive(Debug, Default)]
struct Tally {
    streams: u64,
    encode_ok: u64,
    decode_ok: u64,
    lossless_ok: u64,
}

impl Tally {
    fn add(&mut self, [encode, decode, lossless]: &[Check; 3]) {
        self.streams += 1;
        self.encode_ok += u64::from(encode.is_ok());
        self.decode_ok += u64::from(decode.is_ok());
        self.lossless_ok += u64::from(lossless.is_ok());
    }

    fn all_ok(&self) -> bool {
        [self.encode_ok, self.decode_ok, self.lossless_ok] == [self.streams; 3]
    }

    /// In this order, which a JSON map would not keep.
    fn line(&self) -> String {
        let Tally { streams, encode_ok, decode_ok, lossless_ok } = self;
        format!(
            r#"{{"streams":{streams},"encode_ok":{encode_ok},"decode_ok":{decode_ok},"lossless_ok":{lossless_ok}}}"#
        )
    }
}

/// A check's result: nothing, or what is wrong.
type Check = Result<(), String>;

#[derive(Clone, Debug, PartialEq)]
struct FixturePoint {
    at: i64,
    bits: u64,
    /// `None` is a unit that M3TSZ cannot code.
    unit: Option<TimeUnit>,
    annotation: Vec<u8>,
}

#[derive(Debug)]
struct Fixture {
    name: String,
    values: ValueCoding,
    start: i64,
    points: Vec<FixturePoint>,
    expected: Expected,
    /// If it comes from a lossless encoder.
    lossless: Option<LosslessOrigin>,
}

/// What encoding the points leads to.
#[derive(Debug)]
enum Expected {
    Stream {
        bytes: Vec<u8>,
        /// What M3 decodes, if not the points.
        decoded: Option<Vec<FixturePoint>>,
        /// Whether M3's decoder fails after that.
        decode_error: bool,
    },
    /// The encoder refuses the point with this index.
    Refusal(usize),
}

#[derive(Clone, Copy, Debug)]
struct LosslessOrigin {
    /// Whether points that do not fit their unit name another unit and then their own again, so that the full delta is written.
    rearms: bool,
    m3_encoder_identical: bool,
}

impl Fixture {
    fn parse(line: &str) -> Result<Self, String> {
        let object: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let field = |name: &str| object.get(name).filter(|value| !value.is_null());
        let needed = |name: &str| field(name).ok_or_else(|| format!("`{name}` is missing"));
        let wrong = |name: &str| format!("`{name}` has the wrong type");

        let name = needed("name")?.as_str().ok_or_else(|| wrong("name"))?.to_owned();
        let int_optimized = needed("int_optimized")?.as_bool().ok_or_else(|| wrong("int_optimized"))?;
        let values = if int_optimized { ValueCoding::IntOptimized } else { ValueCoding::Plain };
        let start = needed("start_ns")?.as_i64().ok_or_else(|| wrong("start_ns"))?;
        let points = fixture_points(needed("points")?)?;
        let expected = if let Some(index) = field("error_at_point") {
            let index = index.as_u64().and_then(|index| usize::try_from(index).ok());
            Expected::Refusal(index.ok_or_else(|| wrong("error_at_point"))?)
        } else {
            let bytes = match (field("encoded_hex"), field("encoded_base64")) {
                (Some(hex), _) => hex.as_str().and_then(ids::from_hex).ok_or_else(|| wrong("encoded_hex"))?,
                (None, Some(text)) => text
                    .as_str()
                    .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok())
                    .ok_or_else(|| wrong("encoded_base64"))?,
                (None, None) => return Err("`encoded_hex` or `encoded_base64` is missing".to_owned()),
            };
            let decoded = field("decoded").map(fixture_points).transpose()?;
            let decode_error = field("decode_error").is_some_and(|error| error.as_str() != Some(""));
            Expected::Stream { bytes, decoded, decode_error }
        };
        let lossless = field("unit_policy").map(|policy| LosslessOrigin {
            rearms: policy.as_str() == Some("rearm"),
            m3_encoder_identical: field("m3_encoder_identical").and_then(Value::as_bool).unwrap_or(false),
        });
        Ok(Fixture { name, values, start, points, expected, lossless })
    }
}

fn fixture_points(list: &Value) -> Result<Vec<FixturePoint>, String> {
    let list = list.as_array().ok_or("points are no list")?;
    list.iter().map(|point| fixture_point(point).ok_or_else(|| format!("{point} is no point"))).collect()
}

fn fixture_point(point: &Value) -> Option<FixturePoint> {
    Some(FixturePoint {
        at: point.get(0)?.as_i64()?,
        bits: u64::from_str_radix(point.get(1)?.as_str()?, 16).ok()?,
        unit: match point.get(3)?.as_str()? {
            "s" => Some(TimeUnit::Second),
            "ms" => Some(TimeUnit::Millisecond),
            "us" => Some(TimeUnit::Microsecond),
            "ns" => Some(TimeUnit::Nanosecond),
            _ => None,
        },
        annotation: match point.get(4) {
            None | Some(Value::Null) => Vec::new(),
            Some(annotation) => ids::from_hex(annotation.as_str()?)?,
        },
    })
}

/// The points encoded with their units give the fixture's bytes. Streams of M3's encoder are encoded in M3's mode. Streams of a lossless encoder
/// are encoded in lossless mode, and in M3's mode must be what M3 makes of them: the same bytes, or not.
fn check_encode(fixture: &Fixture) -> Check {
    match (&fixture.expected, fixture.lossless) {
        (Expected::Refusal(index), _) => match encode(fixture, Mode::M3) {
            (_, Some(Refused { index: found, .. })) if found == *index => Ok(()),
            (_, refused) => {
                Err(format!("point {index} should be refused, but {}", outcome(refused.as_ref())))
            }
        },
        (Expected::Stream { bytes, .. }, None) => expect_bytes(fixture, Mode::M3, bytes),
        (Expected::Stream { bytes, .. }, Some(origin)) => {
            if origin.rearms {
                check_refused_rearm(fixture, bytes)?;
            } else {
                expect_bytes(fixture, Mode::Lossless, bytes)?;
            }
            let (encoded, refused) = encode(fixture, Mode::M3);
            let identical = refused.is_none() && encoded == *bytes;
            if identical == origin.m3_encoder_identical {
                return Ok(());
            }
            Err(format!("M3's encoder writes the same bytes: {}; ours in M3's mode: {identical}", !identical))
        }
    }
}

fn expect_bytes(fixture: &Fixture, mode: Mode, expected: &[u8]) -> Check {
    let (encoded, refused) = encode(fixture, mode);
    if let Some(refused) = refused {
        return Err(outcome(Some(&refused)));
    }
    let differs = encoded.iter().zip(expected).position(|(a, b)| a != b);
    match differs.or((encoded.len() != expected.len()).then_some(encoded.len().min(expected.len()))) {
        None => Ok(()),
        Some(at) => {
            Err(format!("byte {at} differs; {} bytes written, {} expected", encoded.len(), expected.len()))
        }
    }
}

/// Naming a unit anew is something that streams can have and decoders must read, but that no encoder of this crate writes, nor M3's: it has to refuse the first
/// point that would need it, as too wide for its unit, and what it wrote up to there has to agree.
fn check_refused_rearm(fixture: &Fixture, expected: &[u8]) -> Check {
    let mut encoder = Encoder::new(fixture.start, EncoderOptions::default().values(fixture.values));
    for (index, point) in fixture.points.iter().enumerate() {
        let Some(unit) = point.unit else { return Err(format!("point {index} has no unit")) };
        let value = f64::from_bits(point.bits);
        match encoder.append_with_unit(point.at, value, &point.annotation, unit) {
            Ok(()) => {}
            Err(EncodeError::DeltaOfDeltaTooWide { .. } | EncodeError::TimestampInexact { .. }) => {
                return match expected.starts_with(&encoder.take_complete()) {
                    true => Ok(()),
                    false => Err(format!("the bytes before point {index} differ")),
                };
            }
            Err(error) => return Err(format!("point {index} was refused: {error}")),
        }
    }
    Err("no point was refused, but one should be too wide for its unit".to_owned())
}

/// A point that the encoder did not take.
struct Refused {
    index: usize,
    reason: String,
}

fn outcome(refused: Option<&Refused>) -> String {
    match refused {
        Some(Refused { index, reason }) => format!("point {index} was refused: {reason}"),
        None => "every point was taken".to_owned(),
    }
}

/// The points with their units as a stream, up to the first that is refused.
fn encode(fixture: &Fixture, mode: Mode) -> (Vec<u8>, Option<Refused>) {
    let mut encoder = Encoder::new(fixture.start, EncoderOptions { mode, values: fixture.values });
    let mut refused = None;
    for (index, point) in fixture.points.iter().enumerate() {
        let appended = match point.unit {
            None => Err("its time unit cannot be coded".to_owned()),
            Some(unit) => encoder
                .append_with_unit(point.at, f64::from_bits(point.bits), &point.annotation, unit)
                .map_err(|error| error.to_string()),
        };
        if let Err(reason) = appended {
            refused = Some(Refused { index, reason });
            break;
        }
    }
    let mut stream = Vec::new();
    encoder.finish_into(&mut stream);
    (stream, refused)
}

/// The fixture's bytes decode to what M3's decoder returns. One difference is wanted: our decoder reads points at timestamp 0, which M3's takes for a first
/// point.
fn check_decode(fixture: &Fixture) -> Check {
    let (bytes, decoded, fails) = match &fixture.expected {
        // Nothing of M3's to decode: what was written before the refusal has to come back.
        Expected::Refusal(index) => {
            let (encoded, _) = encode(fixture, Mode::M3);
            let (found, error) = decode(&encoded, fixture.values);
            let points = fixture.points.get(..*index).unwrap_or(&fixture.points);
            return same_points(&found, &[points]).and_then(|()| error.map_or(Ok(()), Err));
        }
        Expected::Stream { bytes, decoded, decode_error } => (bytes, decoded, *decode_error),
    };
    let (found, error) = decode(bytes, fixture.values);
    // M3 writes an annotation only where it differs from the one before, so that later points come back without it.
    let written = with_new_annotations(&fixture.points);
    if fails && error.is_none() && fixture.points.iter().any(|point| point.at == 0) {
        return same_points(&found, &[&fixture.points, &written, decoded.as_deref().unwrap_or_default()]);
    }
    match decoded {
        Some(decoded) => same_points(&found, &[decoded])?,
        None => same_points(&found, &[&fixture.points, &written])?,
    }
    match (fails, error) {
        (false, Some(error)) => Err(error),
        (true, None) => Err("no error at the end, but M3's decoder has one".to_owned()),
        _ => Ok(()),
    }
}

/// The points, an annotation only where it is not the one last written.
fn with_new_annotations(points: &[FixturePoint]) -> Vec<FixturePoint> {
    let mut last: &[u8] = &[];
    let mut written = points.to_vec();
    for (point, written) in points.iter().zip(&mut written) {
        if point.annotation == last {
            written.annotation.clear();
        } else if !point.annotation.is_empty() {
            last = &point.annotation;
        }
    }
    written
}

/// A stream's points, and the error that ended them.
fn decode(bytes: &[u8], values: ValueCoding) -> (Vec<FixturePoint>, Option<String>) {
    let mut decoder = Decoder::new(bytes, values);
    let mut points = Vec::new();
    while let Some(point) = decoder.next_point() {
        match point {
            Ok(point) => points.push(FixturePoint {
                at: point.timestamp,
                bits: point.value.to_bits(),
                unit: Some(point.unit),
                annotation: point.annotation.to_vec(),
            }),
            Err(error) => {
                let error = format!("point {}: {error}", points.len());
                return (points, Some(error));
            }
        }
    }
    (points, None)
}

/// There are as many points as in the first list, and each is the one at its place in one of the lists.
fn same_points(found: &[FixturePoint], expected: &[&[FixturePoint]]) -> Check {
    for (index, found) in found.iter().enumerate() {
        let mut candidates = expected.iter().filter_map(|list| list.get(index));
        if !candidates.clone().any(|candidate| candidate == found) {
            return match candidates.next() {
                Some(expected) => Err(format!("point {index} is {found:?}, not {expected:?}")),
                None => Err(format!("point {index} is one too many: {found:?}")),
            };
        }
    }
    let count = expected.first().map_or(0, |list| list.len());
    if found.len() == count { Ok(()) } else { Err(format!("{} points, not {count}", found.len())) }
}

/// The points go through the lossless codec unchanged. Where the encoder refuses a point a new stream begins with it, as in a database.
fn check_lossless(fixture: &Fixture) -> Check {
    let options = EncoderOptions::default().values(fixture.values);
    let mut streams = Vec::new();
    let mut finish = |encoder: &Encoder| {
        let mut stream = Vec::new();
        encoder.finish_into(&mut stream);
        streams.push(stream);
    };
    let mut encoder = Encoder::new(fixture.start, options);
    for (index, point) in fixture.points.iter().enumerate() {
        let value = f64::from_bits(point.bits);
        if encoder.append(point.at, value, &point.annotation).is_err() {
            finish(&encoder);
            encoder = Encoder::new(point.at, options);
            let again = encoder.append(point.at, value, &point.annotation);
            again.map_err(|error| format!("point {index} was refused by a new stream: {error}"))?;
        }
    }
    finish(&encoder);

    let mut found = Vec::with_capacity(fixture.points.len());
    for stream in &streams {
        let (points, error) = decode(stream, fixture.values);
        if let Some(error) = error {
            return Err(error);
        }
        found.extend(points);
    }
    // The encoder chooses the units.
    let mut expected = fixture.points.clone();
    expected.iter_mut().zip(&found).for_each(|(expected, found)| expected.unit = found.unit);
    same_points(&found, &[&expected])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The format page's example C.
    const DECIMALS: &str = r#"{"name":"c","int_optimized":true,"start_ns":1700000000000000000,"points":[
        [1700000000000000000,"3ff8000000000000","1.5","s"],[1700000010000000000,"3ff4000000000000","1.25","s"],
        [1700000020000000000,"c008000000000000","-3","s"]],
        "encoded_hex":"17979cfe362a000030e7f0a18d5dc1906a6000"}"#;

    fn checks(line: &str) -> [bool; 3] {
        let fixture = Fixture::parse(line).expect("a fixture");
        [check_encode(&fixture), check_decode(&fixture), check_lossless(&fixture)].map(|check| check.is_ok())
    }

    #[test]
    fn a_sound_fixture_passes_all_three() {
        assert_eq!(checks(DECIMALS), [true; 3]);
    }

    #[test]
    fn another_byte_or_point_fails() {
        assert_eq!(checks(&DECIMALS.replace("30e7f0", "30e7f1")), [false, false, true]);
        assert_eq!(checks(&DECIMALS.replace("c008", "c009")), [false, false, true]);
        assert_eq!(checks(&DECIMALS.replace("\"-3\",\"s\"", "\"-3\",\"ms\"")), [false, false, true]);
    }

    #[test]
    fn an_expected_decode_error_must_come() {
        let cut = DECIMALS.replace("906a6000\"", "\"");
        let decoded = r#","decode_error":"EOF","decoded":[[1700000000000000000,"3ff8000000000000","1.5","s"],
            [1700000010000000000,"3ff4000000000000","1.25","s"]]}"#;
        assert_eq!(checks(&cut.replace("\"}", &format!("\"{decoded}"))), [false, true, true]);
        assert_eq!(checks(&cut), [false, false, true]);
        assert_eq!(checks(&DECIMALS.replace("\"}", "\",\"decode_error\":\"EOF\"}")), [true, false, true]);
    }

    #[test]
    fn points_at_the_epoch_may_come_back_where_m3_fails() {
        let points = [(-1_000_000_000, 1.0), (0, 2.0), (1_000_000_000, 3.0)];
        let mut encoder = Encoder::new(-1_000_000_000, EncoderOptions::default().mode(Mode::M3));
        let mut list = Vec::new();
        for (at, value) in points {
            encoder.append_with_unit(at, value, b"", TimeUnit::Second).expect("whole seconds");
            list.push(json!([at, format!("{:016x}", value.to_bits()), value.to_string(), "s"]));
        }
        let mut stream = Vec::new();
        encoder.finish_into(&mut stream);
        let fixture = |points: &[Value], error: Value| {
            let object = json!({"name": "z", "int_optimized": true, "start_ns": -1_000_000_000, "points": points,
                "encoded_hex": ids::hex(&stream), "decoded": &list[..2], "decode_error": error});
            checks(&object.to_string())
        };
        assert_eq!(fixture(&list, json!("EOF")), [true; 3]);
        assert_eq!(fixture(&list, Value::Null), [true, false, true]);
        let mut other = list.clone();
        other[2][1] = json!("4010000000000000");
        assert_eq!(fixture(&other, json!("EOF")), [false, false, true]);
    }

    #[test]
    fn an_annotation_may_be_missing_only_where_it_is_repeated() {
        let mut encoder = Encoder::new(0, EncoderOptions::default().mode(Mode::M3));
        let mut list = Vec::new();
        for at in [1_000_000_000, 2_000_000_000] {
            encoder.append_with_unit(at, 1.0, b"ab", TimeUnit::Second).expect("whole seconds");
            list.push(json!([at, "3ff0000000000000", "1", "s", "6162"]));
        }
        let mut stream = Vec::new();
        encoder.finish_into(&mut stream);
        let fixture = |points: &[Value]| {
            let object = json!({"name": "n", "int_optimized": true, "start_ns": 0, "points": points,
                "encoded_hex": ids::hex(&stream)});
            checks(&object.to_string())
        };
        assert_eq!(fixture(&list), [true; 3]);
        list[1][4] = json!("6163");
        assert_eq!(fixture(&list), [false, false, true]);
    }

    #[test]
    fn a_refusal_must_be_at_its_point() {
        let line = |index: usize| {
            format!(
                r#"{{"name":"e","int_optimized":true,"start_ns":1700000000000000000,"error_at_point":{index},"points":[
                [1700000000000000000,"3ff0000000000000","1","s"],[5994967300000000000,"3ff0000000000000","1","s"]]}}"#
            )
        };
        assert_eq!(checks(&line(1)), [true; 3]);
        assert!(!checks(&line(0))[0]);
    }

    #[test]
    fn what_is_no_fixture_is_said_so() {
        for (line, reason) in [
            ("{", "EOF"),
            ("{}", "`name` is missing"),
            (&DECIMALS.replace("encoded_hex", "x"), "`encoded_hex` or `encoded_base64` is missing"),
            (&DECIMALS.replace("\"c008000000000000\"", "7"), "is no point"),
        ] {
            let error = Fixture::parse(line).expect_err(line);
            assert!(error.contains(reason), "{error}");
        }
    }
}
