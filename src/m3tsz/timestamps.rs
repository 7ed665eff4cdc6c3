//! Timestamps: delta-of-deltas in units, or 64 bits of nanoseconds where the unit changes.
//!
//! All arithmetic wraps, so that any `i64` may follow any other.

use super::bits::{BitReader, BitWriter, sign_extend};
use super::error::{DecodeErrorKind, EncodeError};
use super::marker::{self, MARKER_BITS, Marker, WIDE_DOD_MIN};
use super::unit::TimeUnit;

/// The small buckets: prefix, bits of the prefix, bits of the delta-of-delta.
const BUCKETS: [(u64, u32, u32); 3] = [(0b10, 2, 7), (0b110, 3, 9), (0b1110, 4, 12)];
/// What is too large for them: the prefix, followed by 32 or 64 bits ([`TimeUnit::is_narrow`]).
const LARGE: (u64, u32) = (0b1111, 4);

/// The unit in force before a stream names one.
fn initial_unit(start: i64) -> Option<TimeUnit> {
    (TimeUnit::Second.refined_for(start) == TimeUnit::Second).then_some(TimeUnit::Second)
}

/// The bits that carry a timestamp, found before anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The delta-of-delta in the unit in force.
    Dod { dod: i64, unit: TimeUnit },
    /// Another unit from here on, with this delta-of-delta in nanoseconds.
    UnitChange { dod_ns: i64, unit: TimeUnit },
}

/// The writing side.
#[derive(Clone, Debug)]
pub(super) struct TimestampEncoder {
    prev_time: i64,
    prev_delta: i64,
    /// The unit in force. `None` until one is named in a stream whose start is no whole second.
    unit: Option<TimeUnit>,
    /// The coarsest unit that divides every timestamp so far.
    exact_unit: TimeUnit,
}

impl TimestampEncoder {
    pub(super) fn new(start: i64) -> Self {
        TimestampEncoder {
            prev_time: start,
            prev_delta: 0,
            unit: initial_unit(start),
            exact_unit: TimeUnit::Second,
        }
    }

    /// The last timestamp, or the start.
    pub(super) fn prev_time(&self) -> i64 {
        self.prev_time
    }

    /// Finds the bits for `at` in a unit that keeps it exactly.
    ///
    /// The unit is the coarsest that divides every timestamp so far. If it is in force already and the delta-of-delta
    /// does not fit it, this one point makes a detour through a finer unit: its 64 bits hold any delta-of-delta.
    #[inline]
    pub(super) fn plan_exact(&self, at: i64) -> Result<Step, EncodeError> {
        let unit = self.exact_unit.refined_for(at);
        match self.plan(at, unit, true) {
            Err(EncodeError::DeltaOfDeltaTooWide { .. } | EncodeError::TimestampInexact { .. }) => {
                // Strictly finer than `unit`: microseconds do not divide what they failed to hold.
                let detour = TimeUnit::Microsecond.refined_for(self.dod_ns(at));
                debug_assert!(detour > unit);
                self.plan(at, detour, true)
            }
            planned => planned,
        }
    }

    /// Finds the bits for `at` in a given unit. Unless `lossless`, what is left of the delta-of-delta below one unit is
    /// dropped, as M3 does.
    #[inline]
    pub(super) fn plan(&self, at: i64, unit: TimeUnit, lossless: bool) -> Result<Step, EncodeError> {
        let dod_ns = self.dod_ns(at);
        if self.unit != Some(unit) {
            // M3 writes what reads as a marker, and then cannot read it.
            if lossless && dod_ns < WIDE_DOD_MIN {
                return Err(EncodeError::ReadsAsMarker { dod_ns });
            }
            return Ok(Step::UnitChange { dod_ns, unit });
        }
        let (dod, exact) = unit.quotient(dod_ns);
        if lossless && !exact {
            return Err(EncodeError::TimestampInexact { dod_ns, unit });
        }
        if unit.is_narrow() && i32::try_from(dod).is_err() {
            return Err(EncodeError::DeltaOfDeltaTooWide { dod, unit });
        }
        Ok(Step::Dod { dod, unit })
    }

    #[inline]
    fn dod_ns(&self, at: i64) -> i64 {
        at.wrapping_sub(self.prev_time).wrapping_sub(self.prev_delta)
    }

    /// Writes what was planned for `at`. Start and annotation, where due, are written before.
    #[inline]
    pub(super) fn put(&mut self, out: &mut BitWriter, at: i64, step: Step) {
        match step {
            Step::Dod { dod, unit } => {
                put_dod(out, dod, unit);
                // The untruncated delta, even if the decoder gets less.
                self.prev_delta = at.wrapping_sub(self.prev_time);
            }
            Step::UnitChange { dod_ns, unit } => {
                marker::put_unit(out, unit);
                out.put(dod_ns.cast_unsigned(), 64);
                self.unit = Some(unit);
                self.prev_delta = 0;
            }
        }
        self.prev_time = at;
        self.exact_unit = self.exact_unit.refined_for(at);
    }
}

/// Writes a delta-of-delta, which fits 32 bits if the unit is narrow.
#[inline]
fn put_dod(out: &mut BitWriter, dod: i64, unit: TimeUnit) {
    if dod == 0 {
        return out.put(0, 1);
    }
    for (prefix, prefix_bits, bits) in BUCKETS {
        let limit = 1 << (bits - 1);
        if (-limit..limit).contains(&dod) {
            let low = dod.cast_unsigned() & ((1 << bits) - 1);
            return out.put(prefix << bits | low, prefix_bits + bits);
        }
    }
    let (prefix, prefix_bits) = LARGE;
    if unit.is_narrow() {
        out.put(prefix << 32 | dod.cast_unsigned() & 0xffff_ffff, prefix_bits + 32);
    } else {
        out.put(prefix, prefix_bits);
        out.put(dod.cast_unsigned(), 64);
    }
}

/// The reading side.
#[derive(Clone, Debug, Default)]
pub(super) struct TimestampDecoder {
    time: i64,
    delta: i64,
    unit: Option<TimeUnit>,
}

impl TimestampDecoder {
    /// The last timestamp and its unit.
    #[inline]
    pub(super) fn last(&self) -> Option<(i64, TimeUnit)> {
        Some((self.time, self.unit?))
    }

    /// Reads the start, which stands before the first point.
    pub(super) fn take_start(&mut self, bits: &mut BitReader<'_>) -> Result<(), DecodeErrorKind> {
        self.time = bits.take(64)?.cast_signed();
        self.unit = initial_unit(self.time);
        Ok(())
    }

    /// Reads everything of a point that stands before its value: markers, then the timestamp. `false` at the end of the
    /// stream. An annotation goes to `annotation`, which is left alone if there is none.
    #[inline]
    pub(super) fn take(
        &mut self,
        bits: &mut BitReader<'_>,
        annotation: &mut Vec<u8>,
    ) -> Result<bool, DecodeErrorKind> {
        if Marker::peek(bits).is_some() {
            return self.take_after_markers(bits, annotation);
        }
        self.take_dod(bits)?;
        Ok(true)
    }

    #[cold]
    fn take_after_markers(
        &mut self,
        bits: &mut BitReader<'_>,
        annotation: &mut Vec<u8>,
    ) -> Result<bool, DecodeErrorKind> {
        let mut changed = false;
        while let Some(marker) = Marker::peek(bits) {
            bits.skip(MARKER_BITS);
            match marker {
                Marker::EndOfStream => return Ok(false),
                Marker::Annotation => marker::take_annotation(bits, annotation)?,
                Marker::Unit => {
                    let unit = Some(marker::take_unit(bits)?);
                    // Naming the unit in force says nothing; two changes that end at the first unit are a change.
                    changed |= unit != self.unit;
                    self.unit = unit;
                }
            }
        }
        if changed {
            let dod_ns = bits.take(64)?.cast_signed();
            self.advance(dod_ns);
            self.delta = 0;
        } else {
            self.take_dod(bits)?;
        }
        Ok(true)
    }

    /// Reads a delta-of-delta in the unit in force.
    #[inline]
    fn take_dod(&mut self, bits: &mut BitReader<'_>) -> Result<(), DecodeErrorKind> {
        let Some(unit) = self.unit else { return Err(DecodeErrorKind::NoUnit) };
        let ones = bits.window().leading_ones();
        let dod = match ones {
            0 => {
                bits.pass(1)?;
                0
            }
            1..=3 => {
                let (_, prefix_bits, dod_bits) = BUCKETS[ones as usize - 1];
                let field = bits.take(prefix_bits + dod_bits)?;
                sign_extend(field & ((1 << dod_bits) - 1), dod_bits)
            }
            _ => {
                let (_, prefix_bits) = LARGE;
                let dod_bits = if unit.is_narrow() { 32 } else { 64 };
                if bits.left() < u64::from(prefix_bits + dod_bits) {
                    return Err(DecodeErrorKind::Truncated);
                }
                bits.skip(prefix_bits);
                sign_extend(bits.take(dod_bits)?, dod_bits)
            }
        };
        self.advance(dod.wrapping_mul(unit.nanos()));
        Ok(())
    }

    #[inline]
    fn advance(&mut self, dod_ns: i64) {
        self.delta = self.delta.wrapping_add(dod_ns);
        self.time = self.time.wrapping_add(self.delta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TimeUnit::*;

    const S: i64 = 1_000_000_000;

    fn read_back(encoder: &BitWriter, start: i64, count: usize) -> Vec<(i64, TimeUnit)> {
        let mut bytes = Vec::new();
        encoder.finish_into(marker::END_OF_STREAM, MARKER_BITS, &mut bytes);
        let mut reader = BitReader::new(&bytes);
        let mut decoder = TimestampDecoder { time: start, delta: 0, unit: initial_unit(start) };
        let mut read = Vec::new();
        while decoder.take(&mut reader, &mut Vec::new()).expect("undamaged") {
            read.extend(decoder.last());
        }
        assert_eq!(read.len(), count);
        read
    }

    /// Writes timestamps in units of the encoder's choice and returns these.
    fn round_trip(start: i64, times: &[i64]) -> Vec<TimeUnit> {
        let mut encoder = TimestampEncoder::new(start);
        let mut out = BitWriter::default();
        for at in times {
            let step = encoder.plan_exact(*at).expect("within 291 years");
            encoder.put(&mut out, *at, step);
        }
        let read = read_back(&out, start, times.len());
        assert_eq!(read.iter().map(|(at, _)| *at).collect::<Vec<_>>(), times);
        read.into_iter().map(|(_, unit)| unit).collect()
    }

    #[test]
    fn unit_is_the_coarsest_that_divides_every_timestamp() {
        assert_eq!(
            round_trip(0, &[S, 3 * S, 3 * S + 500_000_000, 5 * S]),
            [Second, Second, Millisecond, Millisecond]
        );
        assert_eq!(
            round_trip(7, &[S, 2 * S + 1_000, 3 * S, 3 * S + 1]),
            [Second, Microsecond, Microsecond, Nanosecond]
        );
    }

    #[test]
    fn wide_gaps_take_one_point_in_a_finer_unit() {
        let (ms, gap) = (1_000_000, 30 * 86_400 * S);
        assert_eq!(
            round_trip(0, &[ms, 2 * ms, gap, gap + ms, gap + 2 * ms, 3 * gap, 5 * gap + ms]),
            [Millisecond, Millisecond, Microsecond, Millisecond, Millisecond, Microsecond, Millisecond]
        );
        let year = 365 * 86_400 * S;
        assert_eq!(round_trip(0, &[S, 2 * S, 200 * year]), [Second, Second, Microsecond]);
    }

    #[test]
    fn wrapped_deltas_take_a_unit_that_divides_them() {
        // 2^64 ns are no multiple of a microsecond.
        let (low, high) = (-9_000_000_000 * S, 9_000_000_000 * S);
        assert_eq!(round_trip(0, &[high, low, high]), [Microsecond, Second, Nanosecond]);
        assert_eq!(round_trip(0, &[1_000, high, low]), [Microsecond, Microsecond, Nanosecond]);
    }

    #[test]
    fn edges_of_every_bucket_come_back() {
        for unit in [Second, Millisecond, Microsecond, Nanosecond] {
            let mut dods = vec![0];
            for bits in [7, 9, 12, 31, 32] {
                let limit = 1_i64 << (bits - 1);
                dods.extend([-limit - 1, -limit, -limit + 1, limit - 1, limit, limit + 1]);
            }
            if unit.is_narrow() {
                dods.retain(|dod| i32::try_from(*dod).is_ok());
            }
            for dod in dods {
                let mut out = BitWriter::default();
                put_dod(&mut out, dod, unit);
                let mut bytes = Vec::new();
                out.finish_into(marker::END_OF_STREAM, MARKER_BITS, &mut bytes);
                let mut decoder = TimestampDecoder { time: 0, delta: 0, unit: Some(unit) };
                let mut reader = BitReader::new(&bytes);
                assert_eq!(decoder.take(&mut reader, &mut Vec::new()), Ok(true));
                assert_eq!(decoder.last(), Some((dod * unit.nanos(), unit)));
                assert_eq!(Marker::peek(&reader), Some(Marker::EndOfStream));
            }
        }
    }

    #[test]
    fn what_reads_as_a_marker_is_refused_and_one_more_is_not() {
        let encoder = TimestampEncoder::new(i64::MAX - 1);
        let at = |dod_ns: i64| (i64::MAX - 1).wrapping_add(dod_ns);
        let dod_ns = WIDE_DOD_MIN - 1;
        assert_eq!(encoder.plan_exact(at(dod_ns)), Err(EncodeError::ReadsAsMarker { dod_ns }));
        assert!(matches!(encoder.plan_exact(at(WIDE_DOD_MIN)), Ok(Step::UnitChange { .. })));
        assert!(matches!(encoder.plan(at(dod_ns), Nanosecond, false), Ok(Step::UnitChange { .. })));
    }

    #[test]
    fn given_units_that_lose_are_refused_only_when_lossless() {
        let encoder = TimestampEncoder::new(0);
        assert_eq!(
            encoder.plan(S + 7, Second, true),
            Err(EncodeError::TimestampInexact { dod_ns: S + 7, unit: Second })
        );
        assert_eq!(encoder.plan(S + 7, Second, false), Ok(Step::Dod { dod: 1, unit: Second }));
        let dod = i64::from(i32::MAX) + 1;
        for lossless in [true, false] {
            assert_eq!(
                encoder.plan(dod * S, Second, lossless),
                Err(EncodeError::DeltaOfDeltaTooWide { dod, unit: Second })
            );
        }
    }
}
