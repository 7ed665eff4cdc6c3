//! Damaged streams: points or an error, never a panic, and never more than the bytes could hold.

use chronolith::m3tsz::{DecodeError, DecodeErrorKind, Decoder, Encoder, EncoderOptions, ValueCoding};

const S: i64 = 1_000_000_000;
const START: i64 = 1_700_000_000 * S;
const CODINGS: [ValueCoding; 2] = [ValueCoding::IntOptimized, ValueCoding::Plain];

/// Small streams that use every part of the format.
fn streams(values: ValueCoding) -> Vec<Vec<u8>> {
    let lists: [&[(i64, f64, &[u8])]; 6] = [
        &[(0, 42.0, b"")],
        &[(0, 1.5, b""), (10 * S, 1.25, b""), (20 * S, -3.0, b""), (31 * S, -3.0, b"")],
        &[(0, 3.25e-9, b"first"), (S, 1e300, b""), (2 * S, 1e300, b"x"), (2 * S + 1, f64::NAN, b"")],
        &[(S / 2, 7.0, b"ab"), (40 * 86_400 * S, -0.0, b"ab"), (41 * 86_400 * S, 1e12, b""), (S, 0.1, b"")],
        &[(-START, 4.5e15, b""), (-START + S, -4.5e15, b""), (i64::MIN / 2, 0.0, b""), (1, 1.0, &[0; 70])],
        &[
            (0, 5.0, b""),
            (S, 6.0, b""),
            (2 * S, 7.0, b""),
            (3 * S, 8.0, b""),
            (300 * S, 9.0, b""),
            (0, 0.5, b""),
        ],
    ];
    lists
        .iter()
        .map(|points| {
            let mut encoder = Encoder::new(START, EncoderOptions::default().values(values));
            for (offset, value, annotation) in *points {
                encoder.append(START + offset, *value, annotation).expect("within 291 years");
            }
            let mut stream = Vec::new();
            encoder.finish_into(&mut stream);
            stream
        })
        .collect()
}

type Points = Vec<(i64, u64, Vec<u8>)>;

/// Decodes point by point and in blocks, checks the bounds and that both agree.
fn decode(stream: &[u8], values: ValueCoding) -> (Points, Option<DecodeError>) {
    let mut decoder = Decoder::new(stream, values);
    let (mut points, mut error) = (Points::new(), None);
    while let Some(point) = decoder.next_point() {
        assert_eq!(error, None, "a decoder stays ended after an error");
        match point {
            Ok(point) => {
                points.push((point.timestamp, point.value.to_bits(), point.annotation.to_vec()));
                assert!(points.len() <= 4 * stream.len());
            }
            Err(damage) => error = Some(damage),
        }
    }
    assert!(points.iter().map(|point| point.2.len()).sum::<usize>() <= stream.len());
    assert!(decoder.position() <= 8 * stream.len() as u64);
    assert!(error.is_none_or(|error| error.bit <= 8 * stream.len() as u64));

    let (mut times, mut floats) = (Vec::new(), Vec::<f64>::new());
    let mut annotations: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut blocks = Decoder::new(stream, values);
    let (mut block_times, mut block_floats) = ([0; 3], [0.0; 3]);
    let result = loop {
        let before = times.len();
        let annotate = |at, bytes: &[u8]| annotations.push((before + at, bytes.to_vec()));
        match blocks.decode_block(&mut block_times, &mut block_floats, annotate) {
            Ok(0) => break None,
            Ok(points) => {
                times.extend(&block_times[..points]);
                floats.extend(&block_floats[..points]);
            }
            Err(error) => break Some(error),
        }
    };
    assert_eq!(result, error);
    let mut joined: Points =
        times.iter().zip(&floats).map(|(time, value)| (*time, value.to_bits(), Vec::new())).collect();
    for (at, bytes) in annotations {
        joined[at].2 = bytes;
    }
    assert_eq!(joined, points);
    (points, error)
}

#[test]
fn any_one_bit_flipped_gives_points_or_an_error() {
    let (mut flips, mut errors) = (0, 0);
    for values in CODINGS {
        for stream in streams(values) {
            for bit in 0..8 * stream.len() {
                let mut damaged = stream.clone();
                damaged[bit / 8] ^= 0x80 >> (bit % 8);
                for read_as in CODINGS {
                    flips += 1;
                    errors += usize::from(decode(&damaged, read_as).1.is_some());
                }
            }
        }
    }
    assert!(errors > flips / 4, "{errors} errors of {flips} flips");
}

#[test]
fn any_two_bytes_replaced_give_points_or_an_error() {
    for values in CODINGS {
        for stream in streams(values) {
            for at in 0..stream.len() - 1 {
                for replacement in [[0x00, 0x00], [0xff, 0xff], [0x80, 0x20], [0x80, 0x5f], [0x40, 0x10]] {
                    let mut damaged = stream.clone();
                    damaged[at..at + 2].copy_from_slice(&replacement);
                    decode(&damaged, values);
                }
            }
        }
    }
}

#[test]
fn any_truncation_is_an_error_after_the_points_before_it() {
    for values in CODINGS {
        for stream in streams(values) {
            let (whole, error) = decode(&stream, values);
            assert_eq!(error, None);
            for len in 1..stream.len() {
                let (points, error) = decode(&stream[..len], values);
                assert_eq!(error.map(|error| error.kind), Some(DecodeErrorKind::Truncated), "{len} bytes");
                // Cut inside a marker, what is left of it may pass for a point, which then is the last.
                let wrong = points.iter().zip(&whole).position(|(read, written)| read != written);
                let agreed = wrong.unwrap_or(points.len().min(whole.len()));
                if points.len() > agreed {
                    assert_eq!(points.len(), agreed + 1);
                    assert_eq!(error.map(|error| error.bit), Some(8 * len as u64));
                }
            }
            assert_eq!(decode(&[], values), (vec![], None));
            // What follows the end marker does not matter.
            assert_eq!(decode(&[&stream[..], b"more"].concat(), values), (whole, None));
        }
    }
}

#[test]
fn random_bytes_give_points_or_an_error() {
    let seed = 20_260_102_u64;
    println!("seed {seed}");
    let mut state = seed;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut points = 0;
    for round in 0..20_000 {
        let mut stream: Vec<u8> = (0..next() % 120).map(|_| (next() >> 32) as u8).collect();
        // A start that has a unit, so that there is more to read; few ones, so that points are short.
        if round % 2 == 0 && stream.len() > 8 {
            stream[..8].copy_from_slice(&START.to_be_bytes());
            if round % 4 == 0 {
                stream[8..].iter_mut().for_each(|byte| *byte &= (next() >> 40) as u8);
            }
        }
        for values in CODINGS {
            points += decode(&stream, values).0.len();
        }
    }
    assert!(points > 20_000, "{points}");
}

#[test]
fn streams_of_the_shortest_points_stay_below_four_points_a_byte() {
    // A start, a first value of 0 in full, and nothing but zeros: 2 bits a point.
    let zeros = vec![0; 1_000];
    let (points, error) = decode(&[&START.to_be_bytes()[..], &zeros].concat(), ValueCoding::Plain);
    assert!(points.len() > 3_900);
    assert_eq!(error.map(|error| error.kind), Some(DecodeErrorKind::Truncated));
}
