//! Timestamps: delta-of-deltas in units, or 64 bits of nanoseconds where the unit changes.
//!
//! All arithmetic wraps, so that any `i64` may follow any other.

use super::bits::{BitReader, BitWriter, Head, sign_extend};
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
#[derive(Clone, Copy, Debug)]
pub(super) struct TimestampEncoder {
    prev_time: i64,
    prev_delta: i64,
    /// The unit in force. `None` until one is named in a stream whose start is no whole second.
    unit: Option<TimeUnit>,
    /// The coarsest unit that divides every timestamp so far.
    exact_unit: TimeUnit,
    /// Whether it is in force, and divides `prev_time` and `prev_delta`.
    is_steady: bool,
}

impl TimestampEncoder {
    pub(super) fn new(start: i64) -> Self {
        TimestampEncoder {
            prev_time: start,
            prev_delta: 0,
            unit: initial_unit(start),
            exact_unit: TimeUnit::Second,
            is_steady: false,
        }
    }

    /// The short way of [`TimestampEncoder::plan_exact`] and [`TimestampEncoder::put`], which takes all timestamps but
    /// the odd one: the bits for `at`, which are then the caller's to write. `None`, and nothing is changed, if `at`
    /// must go the long way.
    ///
    /// Where the unit in force divides the timestamp and the delta before, it divides this timestamp just if it divides
    /// the delta-of-delta: one division instead of two, and by a multiplication ([`TimeUnit::exact_quotient`]).
    #[inline(always)]
    pub(super) fn step(&mut self, at: i64) -> Option<Head> {
        let delta = at.checked_sub(self.prev_time)?;
        let dod_ns = delta.checked_sub(self.prev_delta)?;
        if !self.is_steady {
            return None;
        }
        let dod = self.exact_unit.exact_quotient(dod_ns)?;
        let head = match small_dod(dod) {
            Some(head) => head,
            None if self.exact_unit.is_narrow() => {
                let (prefix, prefix_bits) = LARGE;
                Head { bits: prefix << 32 | dod.cast_unsigned() & 0xffff_ffff, count: prefix_bits + 32 }
            }
            None => return None,
        };
        (self.prev_time, self.prev_delta) = (at, delta);
        Some(head)
    }

    /// The last timestamp, or the start.
    pub(super) fn prev_time(&self) -> i64 {
        self.prev_time
    }

    /// [`TimestampEncoder::step`] for many timestamps, up to the first that does not go the short way. Returns how many.
    #[inline]
    pub(super) fn steps(&mut self, at: &[i64], heads: &mut [Head]) -> usize {
        /// Points after a jump that are expected to jump too: looking for a steady interval at each of them would be
        /// mispredicted often.
        const RESTLESS: usize = 8;
        let mut state = *self;
        let len = at.len().min(heads.len());
        let mut done = 0;
        while done < len {
            while done < len
                && state.is_steady
                && Some(at[done]) == state.prev_time.checked_add(state.prev_delta)
            {
                heads[done] = Head { bits: 0, count: 1 };
                state.prev_time = at[done];
                done += 1;
            }
            let restless = len.min(done + RESTLESS);
            for (at, head) in at[done..restless].iter().zip(&mut heads[done..restless]) {
                let Some(bits) = state.step(*at) else {
                    *self = state;
                    return done;
                };
                *head = bits;
                done += 1;
            }
        }
        *self = state;
        done
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
        self.is_steady = self.unit == Some(self.exact_unit) && self.exact_unit.quotient(self.prev_delta).1;
    }
}

/// A delta-of-delta that has a small bucket. `None` for others.
///
/// The bucket is looked up by the width of the number: jittering timestamps change it at random, and a branch would be
/// mispredicted as often.
#[inline(always)]
fn small_dod(dod: i64) -> Option<Head> {
    /// By the significant bits of the zig-zag coded number: the prefix where it stands, a mask, and the bits in all.
    const BY_WIDTH: [(u16, u16, u32); 13] = {
        let mut by_width = [(0, 0, 1); 13];
        let mut width = 1;
        while width < 13 {
            let (prefix, prefix_bits, bits) = BUCKETS[if width <= 7 {
                0
            } else if width <= 9 {
                1
            } else {
                2
            }];
            by_width[width] = ((prefix << bits) as u16, (1 << bits) - 1, prefix_bits + bits);
            width += 1;
        }
        by_width
    };
    let zigzag = ((dod << 1) ^ (dod >> 63)).cast_unsigned();
    // With a bit below, as there is no quick way to count the leading zeros of 0.
    let width = 63 - (zigzag << 1 | 1).leading_zeros();
    let (prefix, mask, count) = *BY_WIDTH.get(width as usize)?;
    Some(Head { bits: u64::from(prefix) | dod.cast_unsigned() & u64::from(mask), count })
}

/// Writes a delta-of-delta, which fits 32 bits if the unit is narrow.
fn put_dod(out: &mut BitWriter, dod: i64, unit: TimeUnit) {
    if let Some(Head { bits, count }) = small_dod(dod) {
        return out.put(bits, count);
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
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TimestampDecoder {
    pub(super) time: i64,
    pub(super) delta: i64,
    pub(super) unit: Option<TimeUnit>,
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
        if bits.window() >> 63 == 1 && Marker::peek(bits).is_some() {
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
        let word = bits.window();
        if word >> 63 == 0 && bits.left() > 0 {
            bits.skip(1);
            self.advance(0);
            return Ok(());
        }
        let ones = word.leading_ones();
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
