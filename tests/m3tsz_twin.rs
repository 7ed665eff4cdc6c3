//! The codec and its plain twin (`m3tsz::plain`) write the same bytes, refuse the same points, read the same points, and find the same damage
//! at the same bit.
//!
//! `CHRONOLITH_POINTS` sets how many points are made up, and `CHRONOLITH_SEED` another seed. The long form:
//!
//! ```sh
//! CHRONOLITH_POINTS=100000000 cargo test --release --test m3tsz_twin
//! ```

use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use chronolith::m3tsz::{
    DecodeError, Decoder, EncodeError, Encoder, EncoderOptions, Mode, TimeUnit, ValueCoding, plain,
};
use proptest::prelude::*;
use serde_json::Value;

#[path = "common/m3tsz_points.rs"]
mod m3tsz_points;

use m3tsz_points::{Case, Point, Random};

const POINTS: u64 = 500_000;
const THREADS: u64 = 2;
const CODINGS: [ValueCoding; 2] = [ValueCoding::IntOptimized, ValueCoding::Plain];
/// Points in a block, beside the whole stream in one.
const BLOCKS: [usize; 4] = [1, 7, 64, 1024];
/// Blocks up to this size are read by a decoder each.
const RESUMED_BLOCK: usize = 7;
/// Points appended at once.
const RUNS: [usize; 2] = [13, usize::MAX];

/// All that a decoder says of a stream.
#[derive(Clone, Debug, Default, PartialEq)]
struct Decoded {
    times: Vec<i64>,
    bits: Vec<u64>,
    /// With the index of their points.
    annotations: Vec<(usize, Vec<u8>)>,
    error: Option<DecodeError>,
}

/// Decodes a stream in blocks of `size` points, with a small size each of them by another decoder, resumed where the one before stood.
fn decode_in_blocks(stream: &[u8], values: ValueCoding, size: usize) -> Decoded {
    let mut decoder = Decoder::new(stream, values);
    let (mut times, mut floats) = (vec![0; size], vec![0.0; size]);
    let mut decoded = Decoded::default();
    loop {
        let before = decoded.times.len();
        let annotated = |at, bytes: &[u8]| decoded.annotations.push((before + at, bytes.to_vec()));
        let read = decoder.decode_block(&mut times, &mut floats, annotated);
        if size <= RESUMED_BLOCK && matches!(read, Ok(1..)) {
            decoder = Decoder::resume(stream, &decoder.state());
        }
        match read {
            Ok(0) => return decoded,
            Ok(points) => {
                decoded.times.extend(&times[..points]);
                decoded.bits.extend(floats[..points].iter().map(|value| value.to_bits()));
            }
            Err(damage) => {
                assert_eq!(decoded.error, None, "an error ends a stream");
                decoded.error = Some(damage);
            }
        }
    }
}

/// Decodes a stream with both twins, point by point and in blocks of these sizes, and compares.
fn compare_decoders(stream: &[u8], values: ValueCoding, blocks: &[usize]) -> Result<Decoded, String> {
    let mut fast = Decoder::new(stream, values);
    let mut slow = plain::Decoder::new(stream, values);
    let mut decoded = Decoded::default();
    for index in 0.. {
        let (fast_point, slow_point) = (fast.next_point(), slow.next_point());
        match (&fast_point, &slow_point) {
            (Some(Ok(fast)), Some(Ok(slow))) => {
                let same = (fast.timestamp, fast.value.to_bits(), fast.unit, fast.annotation)
                    == (slow.timestamp, slow.value.to_bits(), slow.unit, slow.annotation);
                if !same {
                    return Err(format!("point {index} is read as {fast:?}, plainly as {slow:?}"));
                }
                decoded.times.push(slow.timestamp);
                decoded.bits.push(slow.value.to_bits());
                if !slow.annotation.is_empty() {
                    decoded.annotations.push((index, slow.annotation.to_vec()));
                }
            }
            (Some(Err(fast)), Some(Err(slow))) if fast == slow && decoded.error.is_none() => {
                decoded.error = Some(*slow);
            }
            (None, None) => break,
            _ => return Err(format!("point {index} is read as {fast_point:?}, plainly as {slow_point:?}")),
        }
        if fast.position() != slow.position() {
            let (fast, slow) = (fast.position(), slow.position());
            return Err(format!("after point {index} the position is {fast}, plainly {slow}"));
        }
    }
    if fast.position() != slow.position() {
        return Err(format!("the stream ends at {}, plainly at {}", fast.position(), slow.position()));
    }
    for &size in blocks {
        let size = size.min(decoded.times.len() + 1);
        let in_blocks = decode_in_blocks(stream, values, size);
        if in_blocks != decoded {
            let differs = in_blocks.times.iter().zip(&in_blocks.bits);
            let at = differs.zip(decoded.times.iter().zip(&decoded.bits)).position(|(a, b)| a != b);
            return Err(format!(
                "blocks of {size} give {} points and {:?}, plainly it is {} and {:?}; first other point: {at:?}; same annotations: {}",
                in_blocks.times.len(),
                in_blocks.error,
                decoded.times.len(),
                decoded.error,
                in_blocks.annotations == decoded.annotations
            ));
        }
    }
    Ok(decoded)
}

/// Encodes a case with both twins and compares. Returns the stream and the points that were not refused.
fn compare_encoders(case: &Case) -> Result<(Vec<u8>, Vec<&Point>), String> {
    let mut fast = Encoder::new(case.start, case.options);
    let mut slow = plain::Encoder::new(case.start, case.options);
    let mut kept = Vec::with_capacity(case.points.len());
    for (index, point) in case.points.iter().enumerate() {
        let Point { at, value, annotation, unit } = point;
        let (fast, slow): (Result<(), EncodeError>, _) = match unit {
            Some(unit) => (
                fast.append_with_unit(*at, *value, annotation, *unit),
                slow.append_with_unit(*at, *value, annotation, *unit),
            ),
            None => (fast.append(*at, *value, annotation), slow.append(*at, *value, annotation)),
        };
        if fast != slow {
            return Err(format!("appending point {index} gives {fast:?}, plainly {slow:?}"));
        }
        if fast.is_ok() {
            kept.push(point);
        }
    }
    let mut stream = Vec::new();
    fast.finish_into(&mut stream);
    let expected = slow.finish();
    same_bytes(&stream, &expected)?;
    for size in RUNS {
        same_bytes(&encode_in_runs(case, size), &expected)
            .map_err(|problem| format!("runs of {size}: {problem}"))?;
    }
    Ok((stream, kept))
}

fn same_bytes(stream: &[u8], expected: &[u8]) -> Result<(), String> {
    if stream == expected {
        return Ok(());
    }
    let at = stream.iter().zip(expected).position(|(fast, slow)| fast != slow);
    Err(format!("{} bytes, plainly {}; first other byte: {at:?}", stream.len(), expected.len()))
}

/// Encodes a case in runs of at most `size` points.
fn encode_in_runs(case: &Case, size: usize) -> Vec<u8> {
    let mut encoder = Encoder::new(case.start, case.options);
    let mut left = &case.points[..];
    while let Some(Point { at, value, annotation, unit }) = left.first() {
        let bare =
            left.iter().take(size).take_while(|point| point.unit.is_none() && point.annotation.is_empty());
        let (times, values): (Vec<i64>, Vec<f64>) = bare.map(|point| (point.at, point.value)).unzip();
        let done = if times.is_empty() {
            // Which points are refused is compared elsewhere.
            let _ = match unit {
                Some(unit) => encoder.append_with_unit(*at, *value, annotation, *unit),
                None => encoder.append(*at, *value, annotation),
            };
            1
        } else {
            let before = encoder.points();
            match encoder.append_all(&times, &values) {
                Ok(()) => times.len(),
                Err(_) => (encoder.points() - before) as usize + 1,
            }
        };
        left = &left[done..];
    }
    let mut stream = Vec::new();
    encoder.finish_into(&mut stream);
    stream
}

/// Everything about a case; `damage` is the seed of what is done to its stream. Returns how many streams with damage were read.
fn compare(case: &Case, damage: u64) -> Result<u64, String> {
    let (stream, kept) = compare_encoders(case)?;
    let whole = case.points.len() + 1;
    let decoded =
        compare_decoders(&stream, case.options.values, &[BLOCKS[0], BLOCKS[1], BLOCKS[2], BLOCKS[3], whole])?;
    // M3 loses some, and may write what ends a stream early.
    if case.options.mode == Mode::Lossless {
        let read = decoded.times.iter().zip(&decoded.bits).map(|(at, bits)| (*at, *bits));
        let annotated = kept.iter().enumerate().filter(|(_, point)| !point.annotation.is_empty());
        let same = read.eq(kept.iter().map(|point| (point.at, point.value.to_bits())))
            && annotated
                .map(|(index, point)| (index, &point.annotation))
                .eq(decoded.annotations.iter().map(|(index, bytes)| (*index, bytes)));
        if !same || decoded.error.is_some() {
            return Err(format!("other points come back, and {:?}", decoded.error));
        }
    }
    let random = &mut Random(damage);
    let rounds = if stream.len() < 200 { 24 } else { 1 };
    for _ in 0..rounds {
        let damaged = damaged(&stream, random);
        let block = random.pick(&[BLOCKS[0], BLOCKS[1], BLOCKS[2], BLOCKS[3], 4 * damaged.len() + 1]);
        let values = if random.one_in(8) { random.pick(&CODINGS) } else { case.options.values };
        compare_decoders(&damaged, values, &[block])
            .map_err(|problem| format!("{problem}; the stream was damaged: {}", hex(&damaged)))?;
    }
    Ok(rounds)
}

/// A stream with bits flipped, cut off, or with other bytes in it.
fn damaged(stream: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = stream.to_vec();
    let places = bytes.len() as u64;
    if places == 0 {
        return vec![random.next() as u8; random.below(40) as usize];
    }
    match random.below(5) {
        0 => bytes.truncate(random.below(places) as usize),
        1 => {
            let at = random.below(places) as usize;
            let end = bytes.len().min(at + 1 + random.below(12) as usize);
            bytes[at..end].fill_with(|| random.next() as u8);
        }
        2 => {
            let at = random.below(places) as usize;
            bytes[at] = random.pick(&[0x00, 0xff, 0x80, 0x40, 0x20, 0x01]);
        }
        _ => {
            for _ in 0..1 + random.below(3) {
                bytes[random.below(places) as usize] ^= 0x80 >> random.below(8);
            }
        }
    }
    bytes
}

/// Leaves out points as long as the case still fails, and says what remains.
fn explain(case: &Case, damage: u64, problem: String) -> String {
    let mut smallest = case.clone();
    let mut problem = problem;
    let mut tries = 0;
    let mut chunk = smallest.points.len().next_power_of_two();
    while chunk > 0 {
        let mut at = 0;
        while at < smallest.points.len() && tries < 4_000 {
            let mut fewer = smallest.clone();
            fewer.points.drain(at..(at + chunk).min(smallest.points.len()));
            tries += 1;
            match compare(&fewer, damage) {
                Err(found) => (smallest, problem) = (fewer, found),
                Ok(_) => at += chunk,
            }
        }
        chunk /= 2;
    }
    let mut text = format!("{problem}\nstart {}, {:?}", smallest.start, smallest.options);
    for point in smallest.points.iter().take(40) {
        let Point { at, value, annotation, unit } = point;
        let unit = unit.map_or("chosen".to_owned(), |unit| unit.to_string());
        let _ = write!(
            text,
            "\n  {at} {unit} {value:e} = f64::from_bits({:#018x}), {} bytes of annotation",
            value.to_bits(),
            annotation.len()
        );
    }
    if smallest.points.len() > 40 {
        let _ = write!(text, "\n  and {} more points", smallest.points.len() - 40);
    }
    text
}

fn number_of(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.replace('_', "").parse().expect("a number"))
}

#[test]
fn points_of_every_kind_are_coded_alike() {
    let seed = number_of("CHRONOLITH_SEED", 20_260_401);
    let wanted = number_of("CHRONOLITH_POINTS", POINTS);
    println!("seed {seed} (set CHRONOLITH_SEED for another), {wanted} points (CHRONOLITH_POINTS)");
    let (points, damages) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (points, damages) = (&points, &damages);
            scope.spawn(move || {
                let mut random = Random(seed ^ thread << 48);
                while points.load(Ordering::Relaxed) < wanted {
                    let case_seed = random.next();
                    let of_case = &mut Random(case_seed);
                    let length = 1 << of_case.below(13);
                    let length = length + of_case.below(length);
                    let case = Case::new(of_case, length as usize);
                    let damage = of_case.next();
                    match compare(&case, damage) {
                        Ok(count) => damages.fetch_add(count, Ordering::Relaxed),
                        Err(problem) => {
                            let problem = explain(&case, damage, problem);
                            panic!("seed {seed}, case {case_seed}: {problem}")
                        }
                    };
                    points.fetch_add(length, Ordering::Relaxed);
                }
            });
        }
    });
    println!("{} points, {} damaged streams", points.into_inner(), damages.into_inner());
}

/// What shortcuts in a codec got wrong before, at its smallest.
#[test]
fn values_that_shortcuts_get_wrong_are_coded_alike() {
    let two_63 = 2f64.powi(63);
    let lists: [&[f64]; 6] = [
        // A small difference in a width of 63 bits.
        &[two_63.next_down(), 118.0, 114.0],
        &[-2f64.powi(62), 999_999_999_999_155.0, 4_503_599_627_369_649.0],
        // No integer in the multiplier in force, and written in full; then an integer, though it is the same value.
        &[-11_495.379_7, 183_465_382_806.0, 183_465_382_806.0],
        &[0.25, 1e12, 1e12, 1e12, 0.25],
        // In mode M3, a scaled integer in place of a value: what repeats it are its bits, not the value.
        &[-1e18, -1e19, -9e-5, 1e4, -9.999_999_999_999_999e7, -1e13, -1e13],
        &[-1e18, -1e19, -9e-5, -9.0, -9e-5, 1e13, -9.0, -9e-5],
    ];
    let start = 1_700_000_000_000_000_000;
    for values in lists {
        for mode in [Mode::Lossless, Mode::M3] {
            for coding in CODINGS {
                let point = |(at, value): (i64, &f64)| Point {
                    at: start + at * 10_000_000_000,
                    value: *value,
                    annotation: Vec::new(),
                    unit: None,
                };
                let points = (0..).zip(values).map(point).collect();
                let case = Case { start, options: EncoderOptions { mode, values: coding }, points };
                compare(&case, 1).unwrap_or_else(|problem| panic!("{mode:?} {values:?}: {problem}"));
            }
        }
    }
}

/// Every bit of small streams flipped, and every cut.
#[test]
fn every_flip_and_every_cut_is_read_alike() {
    let seed = number_of("CHRONOLITH_SEED", 20_260_402);
    println!("seed {seed} (set CHRONOLITH_SEED for another)");
    let mut random = Random(seed);
    let (mut streams, mut errors) = (0, 0);
    for _ in 0..60 {
        let length = 1 + random.below(8) as usize;
        let case = Case::new(&mut random, length);
        let (stream, _) = compare_encoders(&case).unwrap_or_else(|problem| panic!("{case:?}: {problem}"));
        if stream.len() > 300 {
            continue;
        }
        let cuts = (0..stream.len()).map(|len| stream[..len].to_vec());
        let flips = (0..stream.len() * 8).map(|bit| {
            let mut damaged = stream.clone();
            damaged[bit / 8] ^= 0x80 >> (bit % 8);
            damaged
        });
        for damaged in cuts.chain(flips) {
            for values in CODINGS {
                let decoded = compare_decoders(&damaged, values, &[7])
                    .unwrap_or_else(|problem| panic!("{values:?} {}: {problem}", hex(&damaged)));
                streams += 1;
                errors += usize::from(decoded.error.is_some());
            }
        }
    }
    assert!(streams > 10_000 && errors > streams / 4, "{errors} errors in {streams} streams");
}

/// Streams of fields that no encoder puts together so: several changes of unit or annotations at a point, lengths in more bytes than they
/// need or of more bits than there are.
#[test]
fn fields_in_any_order_are_read_alike() {
    let seed = number_of("CHRONOLITH_SEED", 20_260_403);
    println!("seed {seed} (set CHRONOLITH_SEED for another)");
    let mut random = Random(seed);
    let (mut points, mut errors) = (0, 0);
    for _ in 0..20_000 {
        let mut stream = BitString::default();
        let start = random.pick(&[1_700_000_000_000_000_000, 1_700_000_000_000_000_001, 0]);
        stream.push(start, 64);
        for _ in 0..1 + random.below(12) {
            for _ in 0..random.below(4) {
                push_marker(&mut stream, &mut random);
            }
            let ones = random.below(5) as u32;
            stream.push((1 << (ones + 1)) - 2, ones + 1);
            stream.push(random.next(), random.pick(&[0, 7, 9, 12, 32, 64]));
            // An opcode, and what may follow it, often in few bits.
            stream.push(random.next(), 3);
            stream.push(random.next() & random.next() & random.next(), random.pick(&[0, 1, 2, 8, 14, 64]));
        }
        stream.push(0b100_0000_0000, 11);
        for values in CODINGS {
            let bytes = stream.bytes();
            let decoded = compare_decoders(&bytes, values, &[7, 64])
                .unwrap_or_else(|problem| panic!("{values:?} {}: {problem}", hex(&bytes)));
            points += decoded.times.len();
            errors += usize::from(decoded.error.is_some());
        }
    }
    assert!(points > 10_000 && errors > 10_000, "{points} points, {errors} errors");
}

fn push_marker(stream: &mut BitString, random: &mut Random) {
    if random.one_in(2) {
        stream.push(0b100_0000_0010, 11);
        stream.push(random.pick(&[1, 1, 2, 2, 3, 4, 5]), 8);
        return;
    }
    stream.push(0b100_0000_0001, 11);
    match random.below(4) {
        // Nearly as many bits as a length can have, or more.
        0 => {
            let groups = random.pick(&[8, 9, 10]);
            (0..groups).for_each(|_| stream.push(random.pick(&[0x80, 0xff, 0xfe]), 8));
            stream.push(random.below(5), 8);
        }
        // 0 groups that say nothing.
        1 => {
            let bytes = 1 + random.below(3);
            stream.push(0x80 | (bytes - 1) << 1, 8);
            (0..random.below(9)).for_each(|_| stream.push(0x80, 8));
            stream.push(0, 8);
            (0..bytes).for_each(|_| stream.push(random.next(), 8));
        }
        2 => stream.push(random.next(), 8),
        _ => {
            let bytes = 1 + random.below(3);
            stream.push((bytes - 1) << 1, 8);
            (0..bytes).for_each(|_| stream.push(random.next(), 8));
        }
    }
}

/// Bits, the first of them the highest of the first byte.
#[derive(Clone, Debug, Default)]
struct BitString(Vec<bool>);

impl BitString {
    /// The lowest `count` bits of `value`.
    fn push(&mut self, value: u64, count: u32) {
        self.0.extend((0..count).rev().map(|place| value >> place & 1 == 1));
    }

    fn bytes(&self) -> Vec<u8> {
        let byte =
            |bits: &[bool]| (0..8).fold(0, |byte, at| byte << 1 | u8::from(bits.get(at) == Some(&true)));
        self.0.chunks(8).map(byte).collect()
    }
}

/// What M3 wrote, and what the format page shows: the plain twin writes it as well, and both read it alike.
#[test]
fn fixtures_are_coded_alike_and_as_m3_codes_them() {
    let mut streams = 0;
    for file in ["streams.jsonl", "m3-samples.jsonl", "lossless.jsonl"] {
        for fixture in fixtures(file) {
            let name = format!("{file}: {}", fixture["name"]);
            let values = match fixture["int_optimized"].as_bool() {
                Some(true) => ValueCoding::IntOptimized,
                _ => ValueCoding::Plain,
            };
            let stream = match fixture["encoded_hex"].as_str() {
                Some(text) => from_hex(text),
                None => base64::engine::general_purpose::STANDARD
                    .decode(fixture["encoded_base64"].as_str().expect("a stream"))
                    .expect("base64"),
            };
            let whole = stream.len() * 4;
            compare_decoders(&stream, values, &[BLOCKS[0], BLOCKS[1], BLOCKS[2], BLOCKS[3], whole])
                .unwrap_or_else(|problem| panic!("{name}: {problem}"));

            let start = fixture["start_ns"].as_i64().expect("a start");
            let points = points_of(&fixture);
            for mode in [Mode::M3, Mode::Lossless] {
                for chosen in [false, true] {
                    let mut points = points.clone();
                    if chosen {
                        points.iter_mut().for_each(|point| point.unit = None);
                    }
                    let case = Case { start, options: EncoderOptions { mode, values }, points };
                    compare(&case, streams).unwrap_or_else(|problem| panic!("{name}: {problem}"));
                    // Compared with M3's bytes where it is M3's encoder, and all the units are given.
                    if mode == Mode::M3 && !chosen && file != "lossless.jsonl" {
                        let (written, _) = compare_encoders(&case).expect("compared above");
                        assert_eq!(hex(&written), hex(&stream), "{name}");
                    }
                }
            }
            streams += 1;
        }
    }
    assert_eq!(streams, 212 + 11 + 122);

    let page = include_str!("../design/m3tsz.md");
    let examples =
        page.split("```example\n").skip(1).map(|block| block.split("```").next().unwrap_or_default());
    for block in examples {
        let bytes = block.lines().filter_map(|line| line.strip_prefix("bytes ")).collect::<String>();
        let values = if block.contains(", plain,") { ValueCoding::Plain } else { ValueCoding::IntOptimized };
        let decoded = compare_decoders(&from_hex(&bytes), values, &BLOCKS)
            .unwrap_or_else(|problem| panic!("{block}: {problem}"));
        let points = block.lines().filter(|line| line.starts_with("point ")).count();
        assert_eq!((decoded.times.len(), decoded.error), (points, None));
        streams += 1;
    }
    assert_eq!(streams, 345 + 8);
}

fn fixtures(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/m3tsz").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

fn points_of(fixture: &Value) -> Vec<Point> {
    let point = |point: &Value| Point {
        at: point[0].as_i64().expect("a timestamp"),
        value: f64::from_bits(u64::from_str_radix(point[1].as_str().expect("bits"), 16).expect("hex")),
        unit: match point[3].as_str() {
            Some("s") => Some(TimeUnit::Second),
            Some("ms") => Some(TimeUnit::Millisecond),
            Some("us") => Some(TimeUnit::Microsecond),
            Some("ns") => Some(TimeUnit::Nanosecond),
            other => panic!("unit {other:?}"),
        },
        annotation: point.get(4).and_then(Value::as_str).map(from_hex).unwrap_or_default(),
    };
    fixture["points"].as_array().expect("points").iter().map(point).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        any::<i64>().prop_map(|int| int as f64),
        (any::<i32>(), 0..8).prop_map(|(int, places)| f64::from(int) / 10_f64.powi(places)),
        (any::<i32>(), 0..8, -3..4_i64).prop_map(|(int, places, off)| {
            f64::from_bits((f64::from(int) / 10_f64.powi(places)).to_bits().wrapping_add_signed(off))
        }),
        prop::sample::select(vec![0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324, -1e19]),
    ]
}

fn any_time() -> impl Strategy<Value = i64> {
    prop_oneof![
        any::<i64>(),
        (-100_i64..100).prop_map(|seconds| seconds * 1_000_000_000),
        (-100_i64..100).prop_map(|millis| millis * 1_000_000),
        any::<i32>().prop_map(i64::from),
        Just(0)
    ]
}

fn any_point() -> impl Strategy<Value = Point> {
    let annotation = prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 0..4)];
    let unit = (0_u8..6).prop_map(|id| TimeUnit::try_from(id).ok());
    (any_time(), any_value(), annotation, unit).prop_map(|(at, value, annotation, unit)| Point {
        at,
        value,
        annotation,
        unit,
    })
}

proptest! {
    #[test]
    fn any_points_are_coded_alike(
        points in prop::collection::vec(any_point(), 0..40),
        start in any_time(),
        m3 in any::<bool>(),
        plain in any::<bool>(),
        damage in any::<u64>(),
    ) {
        let mode = if m3 { Mode::M3 } else { Mode::Lossless };
        let values = if plain { ValueCoding::Plain } else { ValueCoding::IntOptimized };
        let case = Case { start, options: EncoderOptions { mode, values }, points };
        prop_assert_eq!(compare(&case, damage).map(|_| ()), Ok(()));
    }

    /// Few ones, so that points are short; and a start that has a unit, so that there are points.
    #[test]
    fn any_bytes_are_read_alike(
        bytes in prop::collection::vec((any::<u8>(), any::<u8>()), 0..120),
        sparse in any::<bool>(),
        start in prop::option::of(any_time()),
        plain in any::<bool>(),
    ) {
        let start = start.map(i64::to_be_bytes).into_iter().flatten();
        let rest = bytes.into_iter().map(|(byte, mask)| if sparse { byte & mask } else { byte });
        let stream: Vec<u8> = start.chain(rest).collect();
        let values = if plain { ValueCoding::Plain } else { ValueCoding::IntOptimized };
        let compared = compare_decoders(&stream, values, &[BLOCKS[0], BLOCKS[1], BLOCKS[2], 4 * stream.len() + 1]);
        prop_assert_eq!(compared.map(|_| ()), Ok(()));
    }
}
