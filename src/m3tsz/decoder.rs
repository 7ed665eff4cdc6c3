//! The decoder: bits in, points out.

use super::bits::BitReader;
use super::error::{DecodeError, DecodeErrorKind};
use super::timestamps::TimestampDecoder;
use super::unit::TimeUnit;
use super::values::{ValueCoding, ValueDecoder};

/// The fewest bits a point takes: a repeated value at a steady interval in a plain stream.
const POINT_BITS_MIN: u64 = 2;
/// Memory is reserved for at most so many points at once; beyond them it grows as they come.
const RESERVED_POINTS_MAX: u64 = 65_536;

/// A point read from a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodedPoint<'a> {
    /// Nanoseconds since the Unix epoch.
    pub timestamp: i64,
    /// The value.
    pub value: f64,
    /// The unit of the stream at this point.
    pub unit: TimeUnit,
    /// What the point was annotated with; empty if with nothing.
    pub annotation: &'a [u8],
}

/// Reads the points of one stream, in the order in which they were appended.
///
/// It returns what M3's decoder returns, with these exceptions: a timestamp of 0 is one like any other, a stream of no
/// bytes has no points, and three kinds of damage that M3 passes over are errors ([`DecodeErrorKind::UnknownUnit`],
/// [`DecodeErrorKind::XorWindow`] and [`DecodeErrorKind::Multiplier`]). Bytes after the end marker are not looked at.
///
/// Any bytes may be decoded. A stream of `n` bytes has at most `4 * n` points, and memory use is bound by what the
/// bytes left can hold. After an error, or the end, nothing more comes. Format: `design/m3tsz.md`.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    bits: BitReader<'a>,
    timestamps: TimestampDecoder,
    values: ValueDecoder,
    coding: ValueCoding,
    /// Of the last point; kept, so that reading many annotations allocates once.
    annotation: Vec<u8>,
    state: State,
}

/// Where a decoder stands. A first point is known by this alone: M3's decoder knows it by a last timestamp of 0, and so
/// cannot read what follows a point at the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    BeforeFirst,
    AfterFirst,
    Ended,
}

impl<'a> Decoder<'a> {
    /// A decoder at the start of a stream, whose values are coded as `values` says.
    pub fn new(stream: &'a [u8], values: ValueCoding) -> Self {
        Decoder {
            bits: BitReader::new(stream),
            timestamps: TimestampDecoder::default(),
            values: ValueDecoder::default(),
            coding: values,
            annotation: Vec::new(),
            state: if stream.is_empty() { State::Ended } else { State::BeforeFirst },
        }
    }

    /// The next point; `None` after the last one and after an error.
    ///
    /// # Errors
    /// [`DecodeError`] where the stream is damaged. A stream cut off after a point has an error in place of the next.
    #[inline]
    pub fn next_point(&mut self) -> Option<Result<DecodedPoint<'_>, DecodeError>> {
        match self.step() {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => return Some(Err(error)),
        }
        // There is a unit, or there would be no point.
        let (timestamp, unit) = self.timestamps.last()?;
        Some(Ok(DecodedPoint { timestamp, value: self.values.value(), unit, annotation: &self.annotation }))
    }

    /// Appends up to `points_max` points to `timestamps` and `values`, and returns how many: fewer than `points_max`
    /// at the end of the stream. Annotations that are not empty go to `annotated`, with the index in `timestamps`
    /// of the point they belong to.
    ///
    /// # Errors
    /// [`DecodeError`] where the stream is damaged. Points before the damage have been appended.
    pub fn decode_block(
        &mut self,
        points_max: usize,
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
        mut annotated: impl FnMut(usize, &[u8]),
    ) -> Result<usize, DecodeError> {
        let possible = (self.bits.left() / POINT_BITS_MIN).min(RESERVED_POINTS_MAX) as usize;
        timestamps.reserve(points_max.min(possible));
        values.reserve(points_max.min(possible));
        let mut points = 0;
        while points < points_max && self.step()? {
            let Some((timestamp, _)) = self.timestamps.last() else { break };
            timestamps.push(timestamp);
            values.push(self.values.value());
            if !self.annotation.is_empty() {
                annotated(timestamps.len() - 1, &self.annotation);
            }
            points += 1;
        }
        Ok(points)
    }

    /// How many bits have been read: after the last point, where the padding begins.
    pub fn position(&self) -> u64 {
        self.bits.position()
    }

    /// Reads one point into the state; `false` at the end, and ever after.
    #[inline]
    fn step(&mut self) -> Result<bool, DecodeError> {
        if self.state == State::Ended {
            return Ok(false);
        }
        match self.read_point() {
            Ok(true) => Ok(true),
            Ok(false) => {
                self.state = State::Ended;
                Ok(false)
            }
            Err(kind) => {
                self.state = State::Ended;
                Err(DecodeError { bit: self.bits.position(), kind })
            }
        }
    }

    #[inline]
    fn read_point(&mut self) -> Result<bool, DecodeErrorKind> {
        self.annotation.clear();
        let first = self.state == State::BeforeFirst;
        if first {
            self.timestamps.take_start(&mut self.bits)?;
        }
        if !self.timestamps.take(&mut self.bits, &mut self.annotation)? {
            return Ok(false);
        }
        if first {
            self.state = State::AfterFirst;
            self.values.take_first(&mut self.bits, self.coding)?;
        } else {
            self.values.take_next(&mut self.bits, self.coding)?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::m3tsz::bits::BitWriter;

    /// A stream with this start and these fields after it.
    fn stream(start: i64, fields: &[(u64, u32)]) -> Vec<u8> {
        let mut out = BitWriter::default();
        out.put(start.cast_unsigned(), 64);
        for (value, count) in fields {
            out.put(*value, *count);
        }
        let mut bytes = Vec::new();
        out.finish_into(0x100 << 2, 11, &mut bytes);
        bytes
    }

    const S: i64 = 1_000_000_000;
    /// The first value 0.0 in no more bits than needed: integer, no width, no multiplier, up.
    const ZERO: (u64, u32) = (0b0001, 4);
    const REPEAT: (u64, u32) = (0b01, 2);
    const SAME_DELTA: (u64, u32) = (0b0, 1);

    fn all(stream: &[u8]) -> (Vec<(i64, f64, TimeUnit)>, Option<DecodeError>) {
        let mut decoder = Decoder::new(stream, ValueCoding::IntOptimized);
        let (mut points, mut error) = (Vec::new(), None);
        while let Some(point) = decoder.next_point() {
            assert_eq!(error, None, "an error ends a stream");
            match point {
                Ok(point) => points.push((point.timestamp, point.value, point.unit)),
                Err(damage) => error = Some(damage),
            }
        }
        assert!(decoder.next_point().is_none());
        let mut untouched = (vec![], vec![]);
        assert_eq!(decoder.decode_block(1, &mut untouched.0, &mut untouched.1, |_, _| ()), Ok(0));
        (points, error)
    }

    fn error(bit: u64, kind: DecodeErrorKind) -> Option<DecodeError> {
        Some(DecodeError { bit, kind })
    }

    #[test]
    fn nothing_and_a_bare_end_are_empty_streams() {
        assert_eq!(all(b""), (vec![], None));
        assert_eq!(all(&stream(7, &[])), (vec![], None));
        assert_eq!(all(&[0; 7]), (vec![], error(0, DecodeErrorKind::Truncated)));
    }

    #[test]
    fn every_kind_of_damage_is_found_where_it_is() {
        use DecodeErrorKind::*;
        let unit = |id: u64| (0x402 << 8 | id, 19);
        type Case<'a> = (i64, &'a [(u64, u32)], u64, DecodeErrorKind);
        let cases: [Case<'_>; 5] = [
            (7, &[SAME_DELTA], 64, NoUnit),
            (S, &[unit(0)], 75, UnknownUnit(0)),
            (S, &[unit(5)], 75, UnknownUnit(5)),
            (S, &[(0x401 << 8 | 0x01, 19)], 75, AnnotationLength),
            (S, &[SAME_DELTA, (0b001_111, 6)], 68, Multiplier(7)),
        ];
        for (start, fields, bit, kind) in cases {
            assert_eq!(all(&stream(start, fields)), (vec![], error(bit, kind)));
        }
        // 8 bits of the end marker: too few for it, and for a delta-of-delta.
        assert_eq!(all(&stream(S, &[])[..9]), (vec![], error(64, Truncated)));
        // A plain stream that refers to the window of a XOR of 0: a value of 0, and a value repeated.
        for (fields, points) in [
            (&[SAME_DELTA, (0, 64), SAME_DELTA, (0b10, 2)][..], 1),
            (&[SAME_DELTA, (u64::MAX, 64), SAME_DELTA, (0b0, 1), SAME_DELTA, (0b10, 2)], 2),
        ] {
            let bytes = stream(S, fields);
            let mut decoder = Decoder::new(&bytes, ValueCoding::Plain);
            for _ in 0..points {
                assert!(matches!(decoder.next_point(), Some(Ok(_))));
            }
            let bit = 64 + 1 + 64 + 2 * points - 1;
            assert_eq!(
                decoder.next_point().and_then(Result::err),
                Some(DecodeError { bit, kind: XorWindow })
            );
        }
    }

    #[test]
    fn fourth_kind_of_marker_is_a_delta_of_delta_of_zero() {
        // `10 0000000`, then `11`: up by a difference of no bits.
        let bytes = stream(S, &[SAME_DELTA, ZERO, (0x403, 11)]);
        assert_eq!(all(&bytes), (vec![(S, 0.0, TimeUnit::Second), (S, 0.0, TimeUnit::Second)], None));
    }

    #[test]
    fn naming_the_unit_in_force_changes_nothing_and_two_changes_are_one() {
        let unit = |id: u64| (0x402 << 8 | id, 19);
        let second = (0b10 << 7 | 1, 9);
        let bytes = stream(S, &[unit(1), second, ZERO]);
        assert_eq!(all(&bytes), (vec![(2 * S, 0.0, TimeUnit::Second)], None));
        let bytes = stream(S, &[unit(2), unit(2), (5, 64), ZERO]);
        assert_eq!(all(&bytes), (vec![(S + 5, 0.0, TimeUnit::Millisecond)], None));
        let bytes = stream(S, &[unit(2), unit(1), (5, 64), ZERO, second, REPEAT]);
        let read = vec![(S + 5, 0.0, TimeUnit::Second), (2 * S + 5, 0.0, TimeUnit::Second)];
        assert_eq!(all(&bytes), (read, None));
    }

    #[test]
    fn end_marker_is_not_looked_for_in_fewer_bits_than_it_has() {
        // Cut inside its end marker, a stream may yield one more point before the error.
        let mut out = stream(S, &[SAME_DELTA, (0b00_1011, 6), (0, 1), (0, 3)]);
        let whole = all(&out);
        out.pop();
        let (points, damage) = all(&out);
        assert!(points.len() <= whole.0.len() + 1);
        assert_eq!(damage.map(|damage| damage.kind), Some(DecodeErrorKind::Truncated));
    }

    #[test]
    fn blocks_of_any_size_yield_the_same_points() {
        use crate::m3tsz::{Encoder, EncoderOptions};
        let mut encoder = Encoder::new(0, EncoderOptions::default());
        let mut expected = (Vec::new(), Vec::new(), Vec::new());
        for at in 0..100_i64 {
            let annotation = vec![b'x'; if at % 7 == 0 { at as usize } else { 0 }];
            encoder.append(at * at * S, at as f64 / 4.0, &annotation).expect("small");
            if !annotation.is_empty() {
                expected.2.push((expected.0.len(), annotation));
            }
            expected.0.push(at * at * S);
            expected.1.push(at as f64 / 4.0);
        }
        let mut bytes = Vec::new();
        encoder.finish_into(&mut bytes);
        for size in [1, 3, 99, 100, 101, usize::MAX] {
            let mut decoder = Decoder::new(&bytes, ValueCoding::IntOptimized);
            let mut read = (Vec::new(), Vec::new(), Vec::new());
            loop {
                let before = read.0.len();
                let points = decoder
                    .decode_block(size, &mut read.0, &mut read.1, |at, bytes| {
                        read.2.push((at, bytes.to_vec()))
                    })
                    .expect("undamaged");
                assert_eq!(read.0.len(), before + points);
                if points < size {
                    break;
                }
            }
            assert_eq!(read, expected);
            assert_eq!(decoder.position().div_ceil(8), bytes.len() as u64);
        }
    }
}
