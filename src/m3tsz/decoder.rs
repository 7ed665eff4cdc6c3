//! The decoder: bits in, points out.

use super::bits::BitReader;
use super::error::{DecodeError, DecodeErrorKind};
use super::timestamps::TimestampDecoder;
use super::twice;
use super::unit::TimeUnit;
use super::values::{ValueCoding, ValueDecoder};

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
/// Any bytes may be decoded. A stream of `n` bytes has at most `4 * n` points, and nothing is allocated but for an annotation,
/// which is no longer than the bytes left. After an error, or the end, nothing more comes. Format: `design/m3tsz.md`.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    /// Behind what was read last: the last point, the end marker, or what comes before damage.
    bits: BitReader<'a>,
    /// Behind the last point.
    state: DecoderState,
    /// Of the last point; kept, so that reading many annotations allocates once.
    annotation: Vec<u8>,
    has_ended: bool,
}

/// Where a decoder stands in a stream, and what it must know to go on from there: [`Decoder::state`] and [`Decoder::resume`].
///
/// 80 bytes, whatever the stream. It is good for the very stream that it comes from, also when points were appended behind.
#[derive(Clone, Copy, Debug)]
pub struct DecoderState {
    position: u64,
    timestamps: TimestampDecoder,
    values: ValueDecoder,
    coding: ValueCoding,
    /// A first point is known by this alone: M3's decoder knows it by a last timestamp of 0, and so cannot read what
    /// follows a point at the epoch.
    is_before_first: bool,
}

impl DecoderState {
    /// Where the next point begins, in bits from the start of the stream.
    pub fn position(&self) -> u64 {
        self.position
    }
}

impl<'a> Decoder<'a> {
    /// A decoder at the start of a stream, whose values are coded as `values` says.
    pub fn new(stream: &'a [u8], values: ValueCoding) -> Self {
        let start = DecoderState {
            position: 0,
            timestamps: TimestampDecoder::default(),
            values: ValueDecoder::default(),
            coding: values,
            is_before_first: true,
        };
        Decoder::resume(stream, &start)
    }

    /// A decoder that goes on where another one stood in the same stream. It returns what that one would have returned.
    ///
    /// With a state of another stream the points are wrong, or an error.
    ///
    /// ```
    /// # use chronolith::m3tsz::{Decoder, Encoder, EncoderOptions, ValueCoding};
    /// # let mut encoder = Encoder::new(0, EncoderOptions::default());
    /// # for second in 0..10 {
    /// #     encoder.append(second * 1_000_000_000, second as f64, b"").expect("whole seconds");
    /// # }
    /// # let mut stream = Vec::new();
    /// # encoder.finish_into(&mut stream);
    /// let mut decoder = Decoder::new(&stream, ValueCoding::IntOptimized);
    /// decoder.decode_block(&mut [0; 4], &mut [0.0; 4], |_, _| ())?;
    /// let after_four = decoder.state();
    ///
    /// let mut decoder = Decoder::resume(&stream, &after_four);
    /// assert_eq!(decoder.next_point().map(|point| point.map(|point| point.value)), Some(Ok(4.0)));
    /// # Ok::<(), chronolith::m3tsz::DecodeError>(())
    /// ```
    pub fn resume(stream: &'a [u8], state: &DecoderState) -> Self {
        let bits = BitReader::at(stream, state.position);
        // A stream of no bytes has no points.
        Decoder { bits, state: *state, annotation: Vec::new(), has_ended: stream.is_empty() }
    }

    /// Where the decoder stands: behind the last point that it returned, whatever it found there.
    pub fn state(&self) -> DecoderState {
        self.state
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
        let (timestamp, unit) = self.state.timestamps.last()?;
        Some(Ok(DecodedPoint {
            timestamp,
            value: self.state.values.value(),
            unit,
            annotation: &self.annotation,
        }))
    }

    /// Reads points into the slices until one of them is full, and returns how many: 0 at the end of the stream, or if
    /// a slice has no room. Annotations that are not empty go to `annotated`, with the index in `timestamps` of the
    /// point they belong to.
    ///
    /// # Errors
    /// [`DecodeError`] where the stream is damaged. Points before the damage are returned first, and the error by the next call.
    ///
    /// Cost: no allocation, except for annotations.
    pub fn decode_block(
        &mut self,
        all_timestamps: &mut [i64],
        all_values: &mut [f64],
        mut annotated: impl FnMut(usize, &[u8]),
    ) -> Result<usize, DecodeError> {
        let points_max = all_timestamps.len().min(all_values.len());
        let mut points = 0;
        while points < points_max {
            points += self.read_run(&mut all_timestamps[points..], &mut all_values[points..]);
            if points == points_max {
                break;
            }
            match self.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(damage) if points == 0 => return Err(damage),
                Err(_) => {
                    // The next call is to find it again.
                    self.has_ended = false;
                    self.bits.rewind(self.state.position);
                    break;
                }
            }
            // There is a unit, or there would be no point.
            let Some((timestamp, _)) = self.state.timestamps.last() else { break };
            all_timestamps[points] = timestamp;
            all_values[points] = self.state.values.value();
            if !self.annotation.is_empty() {
                annotated(points, &self.annotation);
            }
            points += 1;
        }
        Ok(points)
    }

    /// How many bits have been read: after the last point, where the padding begins.
    pub fn position(&self) -> u64 {
        self.bits.position()
    }

    /// Reads points that are like the one before.
    fn read_run(&mut self, timestamps: &mut [i64], values: &mut [f64]) -> usize {
        if self.state.is_before_first || self.has_ended {
            return 0;
        }
        let DecoderState { timestamps: times, values: coder, coding, .. } = &mut self.state;
        let points = match coding {
            ValueCoding::Plain => twice::read::<true>(&mut self.bits, times, coder, timestamps, values),
            ValueCoding::IntOptimized => {
                twice::read::<false>(&mut self.bits, times, coder, timestamps, values)
            }
        };
        self.state.position = self.bits.position();
        points
    }

    /// Reads one point into the state; `false` at the end, and ever after.
    #[inline]
    fn step(&mut self) -> Result<bool, DecodeError> {
        if self.has_ended {
            return Ok(false);
        }
        match self.read_point() {
            Ok(Some(state)) => {
                self.state = state;
                return Ok(true);
            }
            Ok(None) => self.has_ended = true,
            Err(kind) => {
                self.has_ended = true;
                return Err(DecodeError { bit: self.bits.position(), kind });
            }
        }
        Ok(false)
    }

    /// The state behind the next point; `None` at the end marker.
    #[inline]
    fn read_point(&mut self) -> Result<Option<DecoderState>, DecodeErrorKind> {
        let mut next = self.state;
        self.annotation.clear();
        if next.is_before_first {
            next.timestamps.take_start(&mut self.bits)?;
        }
        if !next.timestamps.take(&mut self.bits, &mut self.annotation)? {
            return Ok(None);
        }
        if next.is_before_first {
            next.is_before_first = false;
            next.values.take_first(&mut self.bits, next.coding)?;
        } else {
            next.values.take_next(&mut self.bits, next.coding)?;
        }
        next.position = self.bits.position();
        Ok(Some(next))
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
        assert_eq!(decoder.decode_block(&mut [0], &mut [0.0], |_, _| ()), Ok(0));
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
        for size in [1, 3, 99, 100, 101, 1_000] {
            let mut decoder = Decoder::new(&bytes, ValueCoding::IntOptimized);
            let mut read = (Vec::new(), Vec::new(), Vec::new());
            let (mut timestamps, mut values) = (vec![0; size], vec![0.0; size]);
            loop {
                let before = read.0.len();
                let annotated = |at, bytes: &[u8]| read.2.push((before + at, bytes.to_vec()));
                let points =
                    decoder.decode_block(&mut timestamps, &mut values, annotated).expect("undamaged");
                read.0.extend(&timestamps[..points]);
                read.1.extend(&values[..points]);
                if points < size {
                    break;
                }
            }
            assert_eq!(read, expected);
            assert_eq!(decoder.position().div_ceil(8), bytes.len() as u64);
        }
    }

    #[test]
    fn resuming_anywhere_gives_the_points_that_are_left() {
        let mut random = 1_u64;
        let mut encoder = crate::m3tsz::Encoder::new(START, crate::m3tsz::EncoderOptions::default());
        let mut at = START;
        for index in 0..500 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            at += if random >> 60 == 0 { 1_234_567 } else { S };
            let value =
                [index as f64, index as f64 / 8.0, f64::from_bits(random)][(random >> 40) as usize % 3];
            encoder.append(at, value, if random >> 61 == 1 { b"note" } else { b"" }).expect("small steps");
        }
        let mut stream = Vec::new();
        encoder.finish_into(&mut stream);

        let points = |mut decoder: Decoder<'_>| {
            let mut points = Vec::new();
            while let Some(point) = decoder.next_point() {
                let point = point.expect("undamaged");
                points.push((point.timestamp, point.value.to_bits(), point.unit, point.annotation.to_vec()));
            }
            points
        };
        let all = points(Decoder::new(&stream, ValueCoding::IntOptimized));
        assert_eq!(all.len(), 500);
        let mut decoder = Decoder::new(&stream, ValueCoding::IntOptimized);
        for read in 0..=all.len() {
            let state = decoder.state();
            assert!(read == all.len() || state.position() == decoder.position());
            assert_eq!(points(Decoder::resume(&stream, &state)), all[read..]);
            decoder.next_point();
        }
        // At the end the state is still the one behind the last point.
        assert!(decoder.next_point().is_none() && decoder.state().position() < decoder.position());
        // A position behind the end is the end.
        assert!(matches!(Decoder::resume(&stream[..9], &state_at(&stream, 400)).next_point(), Some(Err(_))));
    }

    const START: i64 = 1_700_000_000_000_000_000;

    /// Behind so many points.
    fn state_at(stream: &[u8], points: usize) -> DecoderState {
        let mut decoder = Decoder::new(stream, ValueCoding::IntOptimized);
        let read = decoder.decode_block(&mut vec![0; points], &mut vec![0.0; points], |_, _| ());
        assert_eq!(read, Ok(points));
        decoder.state()
    }

    #[test]
    fn points_before_damage_come_first_and_the_error_once() {
        let bytes = stream(S, &[SAME_DELTA, ZERO, SAME_DELTA, REPEAT, SAME_DELTA, (0b0010, 4), (0b111, 3)]);
        let expected = error(64 + 5 + 3 + 3, DecodeErrorKind::Truncated);
        for by_point in [false, true] {
            let mut decoder = Decoder::new(&bytes[..10], ValueCoding::IntOptimized);
            let (mut timestamps, mut values) = ([0; 8], [0.0; 8]);
            assert_eq!(decoder.decode_block(&mut timestamps, &mut values, |_, _| ()), Ok(2));
            let found = match by_point {
                true => decoder.next_point().and_then(Result::err),
                false => decoder.decode_block(&mut timestamps, &mut values, |_, _| ()).err(),
            };
            assert_eq!(found.map(|damage| damage.kind), expected.map(|damage| damage.kind));
            assert_eq!(decoder.decode_block(&mut timestamps, &mut values, |_, _| ()), Ok(0));
            assert!(decoder.next_point().is_none());
        }
    }
}
