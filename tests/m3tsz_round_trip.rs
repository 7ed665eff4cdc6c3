//! Lossless means lossless: whatever timestamps, values and annotations go in come out, in any order and any taking of
//! the bytes.

use chronolith::m3tsz::{Decoder, EncodeError, Encoder, EncoderOptions, Mode, TimeUnit, ValueCoding};
use proptest::prelude::*;

/// Points of the bulk run, over all threads.
const BULK_POINTS: usize = 10_000_000;
const BULK_THREADS: u64 = 2;

/// A small generator of random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Of any magnitude up to `bits` bits, either sign.
    fn integer(&mut self, bits: u64) -> i64 {
        let magnitude = self.next() >> 1 >> (63 - self.below(bits + 1).min(63));
        if self.below(2) == 0 { magnitude as i64 } else { (magnitude as i64).wrapping_neg() }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

const S: i64 = 1_000_000_000;
const VALUE_KINDS: u64 = 14;

/// A value that follows `last`, of one of the kinds that codecs get wrong.
fn value(random: &mut Random, kind: u64, last: f64) -> f64 {
    let power = 10_f64.powi(random.below(8) as i32);
    match kind {
        0 => last,
        1 => last + 1.0,
        2 => random.integer(40) as f64,
        3 => random.integer(63) as f64,
        4 => random.integer(30) as f64 / power,
        5 => random.integer(44) as f64 / power,
        6 => f64::from_bits(random.next()),
        // NaN of any payload; subnormals.
        7 => f64::from_bits(random.next() | 0x7ff << 52),
        8 => f64::from_bits(random.next() & (1 << 63 | random.next() >> (12 + random.below(52)))),
        9 => random.pick(&[0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::MIN_POSITIVE, 5e-324]),
        // Around the bounds, scaled ones too.
        10 => {
            let bound = random.pick(&[2f64.powi(52), 2f64.powi(53), 2f64.powi(63), 1e13, 1e19, 1e6]);
            let near = f64::from_bits((bound / power).to_bits().wrapping_add_signed(random.integer(2)));
            if random.below(2) == 0 { near } else { -near }
        }
        // Next to short decimals.
        11 => {
            let decimal = random.integer(44) as f64 / power;
            f64::from_bits(decimal.to_bits().wrapping_add_signed(random.integer(2)))
        }
        12 => last / 3.0,
        _ => last + random.integer(20) as f64 / power,
    }
}

const TIME_KINDS: u64 = 10;

/// A timestamp that follows `last`.
fn timestamp(random: &mut Random, kind: u64, last: i64) -> i64 {
    let unit = random.pick(&[S, 1_000_000, 1_000, 1]);
    let step = match kind {
        0 => 10 * S,
        1 => random.below(30) as i64 * S,
        2 => 15 * S + random.integer(12) * 1_000_000,
        3 => random.integer(13).wrapping_mul(unit),
        4 => random.integer(33).wrapping_mul(unit),
        5 => return random.next() as i64,
        6 => return random.pick(&[0, 1, -1, S, i64::MAX, i64::MIN, last]),
        7 => 10 * S + random.integer(4),
        // Around what reads as a marker.
        8 => i64::MIN.wrapping_add(random.integer(56)),
        _ => random.integer(63),
    };
    last.wrapping_add(step)
}

type Point = (i64, f64, Vec<u8>);

/// Points of which runs are of one kind, and some runs of all.
fn points(random: &mut Random, count: usize) -> Vec<Point> {
    let mut points = Vec::with_capacity(count);
    let (mut last_time, mut last_value) = (1_700_000_000 * S, 0.0);
    let (mut time_kind, mut value_kind) = (0, 0);
    // Most streams are of tame timestamps, so that most points lie in long streams.
    let time_kinds = if random.below(4) == 0 { TIME_KINDS } else { 5 };
    let annotated = random.below(2) == 0;
    while points.len() < count {
        if random.below(24) == 0 {
            time_kind = random.below(time_kinds);
        }
        if random.below(16) == 0 {
            value_kind = random.below(VALUE_KINDS + 2);
        }
        let kind = if value_kind >= VALUE_KINDS { random.below(VALUE_KINDS) } else { value_kind };
        last_time = timestamp(random, time_kind, last_time);
        last_value = value(random, kind, last_value);
        let annotation = match random.below(64) {
            0 if annotated => b"again".to_vec(),
            1 if annotated => vec![random.next() as u8; random.below(200) as usize],
            _ => Vec::new(),
        };
        points.push((last_time, last_value, annotation));
    }
    points
}

/// Encodes, in another stream where one refuses, decodes and compares. Returns how many streams it took.
fn assert_round_trip(points: &[Point], start: i64, values: ValueCoding) -> usize {
    let options = EncoderOptions::default().values(values);
    let (mut streams, mut left) = (0, points);
    let (mut times, mut read) = (Vec::new(), Vec::new());
    let (mut start, mut stream) = (start, Vec::new());
    while !left.is_empty() {
        let mut encoder = Encoder::new(start, options);
        let fits = left.iter().position(|(at, value, annotation)| {
            let result = encoder.append(*at, *value, annotation);
            assert!(matches!(result, Ok(()) | Err(EncodeError::ReadsAsMarker { .. })));
            result.is_err()
        });
        let (these, rest) = left.split_at(fits.unwrap_or(left.len()));
        // A stream may refuse its first point over the start only.
        assert!(!these.is_empty() || rest[0].0 != start);
        start = rest.first().map_or(0, |(at, ..)| *at);

        stream.clear();
        encoder.finish_into(&mut stream);
        times.resize(these.len() + 1, 0);
        read.resize(these.len() + 1, 0.0);
        let mut annotations = these.iter().enumerate().filter(|(_, (.., annotation))| !annotation.is_empty());
        let count = Decoder::new(&stream, values)
            .decode_block(&mut times, &mut read, |at, bytes| {
                let expected = annotations.next().map(|(at, (.., annotation))| (at, &annotation[..]));
                assert_eq!(expected, Some((at, bytes)));
            })
            .expect("undamaged");
        assert_eq!(annotations.next(), None);
        assert_eq!(count, these.len());
        for ((at, value, _), (time, read)) in these.iter().zip(times.iter().zip(&read)) {
            assert_eq!((*at, value.to_bits()), (*time, read.to_bits()));
        }
        (streams, left) = (streams + 1, rest);
    }
    streams
}

#[test]
fn ten_million_awkward_points_come_back() {
    let seed = std::env::var("M3TSZ_SEED").map_or(20_260_101, |seed| seed.parse().expect("a number"));
    println!("seed {seed} (set M3TSZ_SEED for another)");
    let run = |thread: u64| {
        let mut random = Random(seed ^ thread << 32);
        let (mut done, mut streams, mut runs) = (0, 0, 0);
        while done < BULK_POINTS / BULK_THREADS as usize {
            let count = 1 + random.below(4_000) as usize;
            let points = points(&mut random, count);
            let first = points[0].0;
            // The last is so far off that the first point may be refused.
            let starts = [first, first / (7200 * S) * (7200 * S), 0, 1, first.wrapping_add(i64::MIN)];
            let start = random.pick(&starts);
            let values = if random.below(8) == 0 { ValueCoding::Plain } else { ValueCoding::IntOptimized };
            (done, runs) = (done + count, runs + 1);
            streams += assert_round_trip(&points, start, values);
        }
        // Refusals happen, but not often.
        assert!(streams > runs && streams < 3 * runs, "{streams} streams of {runs} lists of points");
    };
    std::thread::scope(|scope| {
        for thread in 0..BULK_THREADS {
            scope.spawn(move || run(thread));
        }
    });
}

#[test]
fn taking_bytes_at_any_time_gives_the_stream_in_pieces() {
    for seed in 0..40 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let points = points(&mut random, 120);
        let mode = random.pick(&[Mode::Lossless, Mode::M3]);
        let values = random.pick(&[ValueCoding::IntOptimized, ValueCoding::Plain]);
        let append = |encoder: &mut Encoder, (at, value, annotation): &Point| {
            // What M3 cannot hold is refused by both encoders alike.
            let _ = encoder.append(*at, *value, annotation);
        };
        let mut one_piece = Encoder::new(0, EncoderOptions { mode, values });
        points.iter().for_each(|point| append(&mut one_piece, point));
        let mut expected = Vec::new();
        one_piece.finish_into(&mut expected);

        for every in [1, 2, 7, 50] {
            let mut encoder = Encoder::new(0, EncoderOptions { mode, values });
            let mut stream = Vec::new();
            for (at, point) in points.iter().enumerate() {
                append(&mut encoder, point);
                if at % every == 0 {
                    let buffered = encoder.buffered_bytes();
                    let taken = encoder.take_complete();
                    assert_eq!((taken.len(), encoder.buffered_bytes()), (buffered, 0));
                    stream.extend(taken);
                }
                // The stream as a reader would see it now: all points so far, whatever was taken.
                let mut so_far = stream.clone();
                encoder.finish_into(&mut so_far);
                assert_eq!(so_far.len(), stream.len() + encoder.finish_bytes());
                let (mut times, mut read) = ([0; 200], [0.0; 200]);
                let decoded = Decoder::new(&so_far, values).decode_block(&mut times, &mut read, |_, _| ());
                assert_eq!(decoded.map(|points| points as u64), Ok(encoder.points()));
            }
            encoder.finish_into(&mut stream);
            assert_eq!(stream, expected);
        }
        // Split once, at every point.
        for split in 0..points.len() {
            let mut encoder = Encoder::new(0, EncoderOptions { mode, values });
            points[..split].iter().for_each(|point| append(&mut encoder, point));
            let mut stream = encoder.take_complete();
            points[split..].iter().for_each(|point| append(&mut encoder, point));
            encoder.finish_into(&mut stream);
            assert_eq!(stream, expected);
        }
    }
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        any::<i64>().prop_map(|int| int as f64),
        (any::<i32>(), 0..8).prop_map(|(int, places)| f64::from(int) / 10_f64.powi(places)),
        (any::<i32>(), 0..8, -3..4_i64).prop_map(|(int, places, off)| {
            f64::from_bits((f64::from(int) / 10_f64.powi(places)).to_bits().wrapping_add_signed(off))
        }),
        prop::sample::select(vec![0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324]),
    ]
}

fn any_time() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), (-100_i64..100).prop_map(|s| s * S), any::<i32>().prop_map(i64::from), Just(0)]
}

proptest! {
    #[test]
    fn any_points_come_back(
        points in prop::collection::vec((any_time(), any_value(), prop::collection::vec(any::<u8>(), 0..4)), 0..40),
        start in any_time(),
        plain in any::<bool>(),
    ) {
        assert_round_trip(&points, start, if plain { ValueCoding::Plain } else { ValueCoding::IntOptimized });
    }

    /// In units of the caller's choice, and of the encoder's in between, a point is either kept exactly or refused.
    #[test]
    fn given_units_lose_nothing_in_lossless_mode(
        points in prop::collection::vec((any_time(), any_value(), 0_u8..6), 0..40),
        start in any_time(),
    ) {
        let mut encoder = Encoder::new(start, EncoderOptions::default());
        let mut kept = Vec::new();
        for (at, value, unit) in points {
            let appended = match TimeUnit::try_from(unit) {
                Ok(unit) => encoder.append_with_unit(at, value, b"", unit),
                Err(_) => encoder.append(at, value, b""),
            };
            if appended.is_ok() {
                kept.push((at, value.to_bits()));
            }
        }
        let mut stream = Vec::new();
        encoder.finish_into(&mut stream);
        let mut decoder = Decoder::new(&stream, ValueCoding::IntOptimized);
        let mut read = Vec::new();
        while let Some(point) = decoder.next_point() {
            let point = point.expect("undamaged");
            read.push((point.timestamp, point.value.to_bits()));
        }
        prop_assert_eq!(read, kept);
    }
}
