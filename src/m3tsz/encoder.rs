//! The encoder: points in, bits out.
//!
//! What makes it quick, beside what [`scale`](super::scale) does
//! * *Whole words.* Bits collect in a word that goes to memory when it is full ([`BitWriter`]), and the timestamp's and
//!   the value's go into it together ([`Head`]).
//! * *A short way and a long way.* `step` of the timestamps and of the values knows the bits of nearly all points: no
//!   change of unit, no header. What it does not know, it leaves to the other functions, which are written to be read.
//! * *No branches on random data.* How a delta-of-delta jitters, which sign a difference has and how wide it is, no
//!   processor predicts.
//! * *Two loops for many points*, the first over timestamps, the second over values: each has its state in registers.

use xxhash_rust::xxh64::xxh64;

use super::bits::{BitWriter, Head};
use super::error::EncodeError;
use super::marker::{self, END_OF_STREAM, MARKER_BITS};
use super::timestamps::{Step, TimestampEncoder};
use super::twice;
use super::unit::TimeUnit;
use super::values::{AsM3, Lossless, ValueCoding, ValueEncoder};

/// What an encoder guarantees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// What goes in comes out: timestamps to the nanosecond, values to the bit, annotations on the points that had
    /// them. Points that cannot be kept are refused.
    #[default]
    Lossless,
    /// Byte for byte what M3's encoder writes on x86-64, with all its losses: `-0.0` becomes `0.0`, values next to a
    /// short decimal become that decimal, differences of integers above 2^53 are rounded and stay wrong to the end of
    /// the stream, a first value below -2^63 becomes -2^63, timestamps are cut to whole units and drift, and an
    /// annotation equal to the last one written is left out.
    M3,
}

/// How an [`Encoder`] writes. The default is lossless and optimizes integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EncoderOptions {
    /// What the encoder guarantees.
    pub mode: Mode,
    /// How values are coded; a [`Decoder`](super::Decoder) must be told the same.
    pub values: ValueCoding,
}

impl EncoderOptions {
    /// Sets what the encoder guarantees.
    pub fn mode(self, mode: Mode) -> Self {
        EncoderOptions { mode, ..self }
    }

    /// Sets how values are coded.
    pub fn values(self, values: ValueCoding) -> Self {
        EncoderOptions { values, ..self }
    }
}

/// The hash that M3 compares the first annotation with.
const HASH_OF_EMPTY: u64 = 0xef46_db37_51d8_e999;

/// Points whose timestamps are coded before their values.
const CHUNK: usize = 64;

/// Appends points to one stream.
///
/// An encoder may live for long and be read meanwhile: [`take_complete`](Encoder::take_complete) moves the bytes
/// written so far to the caller, and [`finish_into`](Encoder::finish_into) gives the rest as it would be if the stream
/// ended here, after which the encoder goes on. All bytes taken and then the rest are the stream.
///
/// A point takes at most 21 bytes plus its annotation, typically 0.3 to 3. The encoder itself is 128 bytes and
/// the bytes not taken. Format: `design/m3tsz.md`.
#[derive(Clone, Debug)]
pub struct Encoder {
    out: BitWriter,
    timestamps: TimestampEncoder,
    values: ValueEncoder,
    /// In [`Mode::M3`]: of the last annotation written.
    annotation_hash: u64,
    points: u64,
    options: EncoderOptions,
}

// There may be a million of them.
const _: () = assert!(size_of::<Encoder>() <= 128);

impl Encoder {
    /// An encoder of an empty stream.
    ///
    /// `start` is in nanoseconds since the Unix epoch. It costs 64 bits and only shortens the first timestamp, which
    /// may be earlier or later: in M3 it is the start of the block. A whole second saves a change of unit.
    pub fn new(start: i64, options: EncoderOptions) -> Self {
        Encoder {
            out: BitWriter::default(),
            timestamps: TimestampEncoder::new(start),
            values: ValueEncoder::default(),
            annotation_hash: HASH_OF_EMPTY,
            points: 0,
            options,
        }
    }

    /// Appends a point, its timestamp stored in a unit that keeps it exactly.
    ///
    /// `at` is in nanoseconds since the Unix epoch and may go backwards. An empty `annotation` is none. The unit is
    /// the coarsest that divides every timestamp so far; a delta-of-delta that does not fit it makes this one point
    /// take a finer one. This is so in both modes: [`Mode::M3`] then concerns values and annotations (and what
    /// [`append_with_unit`](Encoder::append_with_unit) has cut off before).
    ///
    /// # Errors
    /// [`EncodeError::AnnotationTooLong`] and [`EncodeError::ReadsAsMarker`], the latter for a gap of more than 291
    /// years. The encoder is then as it was before.
    #[inline]
    pub fn append(&mut self, at: i64, value: f64, annotation: &[u8]) -> Result<(), EncodeError> {
        if self.points > 0
            && annotation.is_empty()
            && let Some(head) = self.timestamps.step(at)
        {
            self.put_value(head, value);
            self.points += 1;
            return Ok(());
        }
        marker::check_annotation_len(annotation.len())?;
        let step = self.timestamps.plan_exact(at)?;
        self.put(at, step, value, annotation);
        Ok(())
    }

    /// Appends a point, its timestamp stored in `unit`.
    ///
    /// [`Mode::M3`] cuts the timestamp as M3 does: what is below one unit of the delta-of-delta is dropped, unless the
    /// point changes the unit. M3 itself has written part of the point when it fails; this encoder has written nothing.
    ///
    /// # Errors
    /// [`EncodeError::DeltaOfDeltaTooWide`] if the unit is a second or a millisecond, is in force already, and 32 bits
    /// do not hold the delta-of-delta; [`EncodeError::AnnotationTooLong`]; in lossless mode
    /// [`EncodeError::TimestampInexact`] and [`EncodeError::ReadsAsMarker`]. The encoder is then as it was before.
    #[inline]
    pub fn append_with_unit(
        &mut self,
        at: i64,
        value: f64,
        annotation: &[u8],
        unit: TimeUnit,
    ) -> Result<(), EncodeError> {
        marker::check_annotation_len(annotation.len())?;
        let step = self.timestamps.plan(at, unit, self.options.mode == Mode::Lossless)?;
        self.put(at, step, value, annotation);
        Ok(())
    }

    /// Appends points without annotations, as [`append`](Encoder::append) does one by one, in less time.
    ///
    /// # Errors
    /// Those of [`append`](Encoder::append), for the first point that is refused. The points before it are appended,
    /// those from it on are not; [`points`](Encoder::points) tells how many there are.
    ///
    /// # Panics
    /// If there are not as many values as timestamps.
    pub fn append_all(&mut self, timestamps: &[i64], values: &[f64]) -> Result<(), EncodeError> {
        assert_eq!(timestamps.len(), values.len(), "as many values as timestamps");
        // A guess; more comes as it is needed.
        self.out.reserve(timestamps.len());
        let mut done = 0;
        while done < timestamps.len() {
            // A point that goes the long way, the first of a stream among others.
            self.append(timestamps[done], values[done], b"")?;
            done += 1;
            let (timestamps, values) = (&timestamps[done..], &values[done..]);
            done += twice::append_steady(self, timestamps, values);
        }
        Ok(())
    }

    /// Points appended.
    pub fn points(&self) -> u64 {
        self.points
    }

    /// The timestamp of the last point.
    pub fn last_timestamp(&self) -> Option<i64> {
        (self.points > 0).then(|| self.timestamps.prev_time())
    }

    /// Whole bytes not yet taken: what [`take_complete`](Encoder::take_complete) would return.
    pub fn buffered_bytes(&self) -> usize {
        self.out.complete_bytes()
    }

    /// What the buffer of these bytes takes in memory, its spare room included.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.out.allocated_bytes()
    }

    /// Takes away the whole bytes written so far; later bytes continue after them.
    ///
    /// Fewer than 8 bits stay behind. The encoder's buffer goes with the bytes, so a small one is allocated at the
    /// next append.
    pub fn take_complete(&mut self) -> Vec<u8> {
        self.out.take_complete()
    }

    /// Appends to `out` what is left of the stream if it ends here: the bytes not taken, the end marker, and zeros up
    /// to a byte. The encoder can go on afterwards. A stream of no points is of no bytes.
    pub fn finish_into(&self, out: &mut Vec<u8>) {
        if self.points > 0 {
            out.reserve(self.finish_bytes());
            self.out.finish_into(END_OF_STREAM, MARKER_BITS, out);
        }
    }

    /// How many bytes [`finish_into`](Encoder::finish_into) would append.
    pub fn finish_bytes(&self) -> usize {
        if self.points == 0 {
            return 0;
        }
        self.out.complete_bytes() + (self.out.odd_bits() + MARKER_BITS).div_ceil(8) as usize
    }

    /// Writes a point. Nothing fails from here on.
    #[inline]
    fn put(&mut self, at: i64, step: Step, value: f64, annotation: &[u8]) {
        if self.points == 0 {
            self.out.put(self.timestamps.prev_time().cast_unsigned(), 64);
        }
        if !annotation.is_empty() {
            self.put_annotation(annotation);
        }
        self.timestamps.put(&mut self.out, at, step);
        self.put_value(Head::NONE, value);
        self.points += 1;
    }

    fn put_value(&mut self, head: Head, value: f64) {
        let Encoder { out, values, options, .. } = self;
        match (options.values, options.mode, self.points == 0) {
            (ValueCoding::Plain, _, true) => values.put_first_plain(out, value),
            (ValueCoding::Plain, _, false) => values.put_next_plain(out, head, value),
            (ValueCoding::IntOptimized, Mode::Lossless, true) => values.put_first::<Lossless>(out, value),
            (ValueCoding::IntOptimized, Mode::Lossless, false) => {
                values.put_next::<Lossless>(out, head, value)
            }
            (ValueCoding::IntOptimized, Mode::M3, true) => values.put_first::<AsM3>(out, value),
            (ValueCoding::IntOptimized, Mode::M3, false) => values.put_next::<AsM3>(out, head, value),
        }
    }

    /// Appends points up to the first whose timestamp must go the long way, and returns how many.
    #[inline(always)]
    pub(super) fn append_steady(&mut self, at: &[i64], values: &[f64]) -> usize {
        let mut heads = [Head::NONE; CHUNK];
        let mut points = 0;
        for (at, values) in at.chunks(CHUNK).zip(values.chunks(CHUNK)) {
            let steps = self.timestamps.steps(at, &mut heads);
            let heads = &heads[..steps];
            match (self.options.values, self.options.mode) {
                (ValueCoding::Plain, _) => self.values.put_all_plain(&mut self.out, heads, values),
                (_, Mode::Lossless) => self.values.put_all::<Lossless>(&mut self.out, heads, values),
                (_, Mode::M3) => self.values.put_all::<AsM3>(&mut self.out, heads, values),
            }
            points += steps;
            if steps < at.len() {
                break;
            }
        }
        self.points += points as u64;
        points
    }

    fn put_annotation(&mut self, annotation: &[u8]) {
        if self.options.mode == Mode::M3 {
            let hash = xxh64(annotation, 0);
            if hash == self.annotation_hash {
                return;
            }
            self.annotation_hash = hash;
        }
        marker::put_annotation(&mut self.out, annotation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::m3tsz::{DecodeError, Decoder};

    const START: i64 = 1_700_000_000_000_000_000;
    const S: i64 = 1_000_000_000;

    fn finished(encoder: &Encoder) -> Vec<u8> {
        let mut stream = Vec::new();
        encoder.finish_into(&mut stream);
        assert_eq!(stream.len(), encoder.finish_bytes());
        stream
    }

    type Point = (i64, u64, TimeUnit, Vec<u8>);

    fn decoded(stream: &[u8], values: ValueCoding) -> Result<Vec<Point>, DecodeError> {
        let mut decoder = Decoder::new(stream, values);
        let mut points = Vec::new();
        while let Some(point) = decoder.next_point() {
            let point = point?;
            points.push((point.timestamp, point.value.to_bits(), point.unit, point.annotation.to_vec()));
        }
        Ok(points)
    }

    #[test]
    fn empty_stream_has_no_bytes() {
        let mut encoder = Encoder::new(START, EncoderOptions::default());
        assert_eq!(finished(&encoder), b"");
        assert_eq!(encoder.take_complete(), b"");
        assert_eq!((encoder.points(), encoder.buffered_bytes(), encoder.last_timestamp()), (0, 0, None));
    }

    #[test]
    fn hash_of_no_annotation_is_that_of_no_bytes() {
        assert_eq!(xxh64(b"", 0), HASH_OF_EMPTY);
    }

    #[test]
    fn lossless_repeats_an_equal_annotation_and_m3_does_not() {
        for (mode, second) in [(Mode::Lossless, b"ab".to_vec()), (Mode::M3, Vec::new())] {
            let mut encoder = Encoder::new(START, EncoderOptions::default().mode(mode));
            for (at, annotation) in [(0, &b"ab"[..]), (1, b""), (2, b"ab"), (3, b"cd"), (4, b"ab")] {
                encoder.append(START + at * S, 1.0, annotation).expect("one second apart");
            }
            let points = decoded(&finished(&encoder), ValueCoding::IntOptimized).expect("undamaged");
            let annotations: Vec<Vec<u8>> = points.into_iter().map(|point| point.3).collect();
            assert_eq!(annotations, [b"ab".to_vec(), vec![], second, b"cd".to_vec(), b"ab".to_vec()]);
        }
    }

    #[test]
    fn points_at_the_epoch_come_back_in_both_modes() {
        for mode in [Mode::Lossless, Mode::M3] {
            for values in [ValueCoding::IntOptimized, ValueCoding::Plain] {
                for start in [0, -S, S, 5] {
                    let times = [0, S, 0, 0, -S, 0];
                    let mut encoder = Encoder::new(start, EncoderOptions { mode, values });
                    for (at, time) in times.into_iter().enumerate() {
                        encoder.append(time, at as f64 + 0.5, b"").expect("whole seconds");
                    }
                    let points = decoded(&finished(&encoder), values).expect("undamaged");
                    assert_eq!(points.iter().map(|point| point.0).collect::<Vec<_>>(), times);
                    assert_eq!(points[5].1, 5.5_f64.to_bits());
                }
            }
        }
    }

    #[test]
    fn refused_point_changes_nothing() {
        let mut encoder = Encoder::new(START, EncoderOptions::default().mode(Mode::M3));
        encoder.append_with_unit(START, 1.0, b"a", TimeUnit::Second).expect("fits");
        let before = finished(&encoder);
        let far = START + (i64::from(i32::MAX) + 1) * S;
        let refused = encoder.append_with_unit(far, 7.25, b"b", TimeUnit::Second);
        assert!(matches!(refused, Err(EncodeError::DeltaOfDeltaTooWide { unit: TimeUnit::Second, .. })));
        assert_eq!((finished(&encoder), encoder.points()), (before, 1));
        assert_eq!(encoder.last_timestamp(), Some(START));

        encoder.append_with_unit(START + S, 2.0, b"b", TimeUnit::Second).expect("fits");
        let mut untroubled = Encoder::new(START, EncoderOptions::default().mode(Mode::M3));
        untroubled.append_with_unit(START, 1.0, b"a", TimeUnit::Second).expect("fits");
        untroubled.append_with_unit(START + S, 2.0, b"b", TimeUnit::Second).expect("fits");
        assert_eq!(finished(&encoder), finished(&untroubled));
    }

    #[test]
    fn lossless_refuses_what_a_decoder_would_take_for_a_marker() {
        let far = START.wrapping_add(i64::MIN);
        let mut encoder = Encoder::new(START, EncoderOptions::default());
        encoder.append(START, 1.0, b"").expect("whole second");
        let before = finished(&encoder);
        assert_eq!(encoder.append(far, 2.0, b""), Err(EncodeError::ReadsAsMarker { dod_ns: i64::MIN }));
        assert_eq!(finished(&encoder), before);

        // M3 writes it, and its own decoder stops there.
        let mut m3 = Encoder::new(START, EncoderOptions::default().mode(Mode::M3));
        m3.append_with_unit(START, 1.0, b"", TimeUnit::Second).expect("fits");
        m3.append_with_unit(far, 2.0, b"", TimeUnit::Nanosecond).expect("M3 does not check");
        assert_eq!(decoded(&finished(&m3), ValueCoding::IntOptimized).map(|points| points.len()), Ok(1));
    }

    #[test]
    fn lossless_values_need_no_luck() {
        let two_52 = (1_u64 << 52) as f64;
        let two_63 = (1_u64 << 63) as f64;
        let values = [
            -0.0,
            46.0_f64.next_up(),
            two_52 + 1.0,
            -two_52,
            1.0,
            two_63.next_down(),
            -99_999.5,
            -1e19,
            7.25,
            f64::from_bits(0x7ff0_0000_0000_0001),
            f64::NEG_INFINITY,
            f64::from_bits(1),
            -0.0,
            0.0,
            0.1 + 0.2,
            0.3,
        ];
        for skip in 0..values.len() {
            let mut encoder = Encoder::new(START, EncoderOptions::default());
            for value in &values[skip..] {
                encoder.append(START, *value, b"").expect("same timestamp");
            }
            let points = decoded(&finished(&encoder), ValueCoding::IntOptimized).expect("undamaged");
            let bits: Vec<u64> = points.iter().map(|point| point.1).collect();
            assert_eq!(bits, values[skip..].iter().map(|value| value.to_bits()).collect::<Vec<_>>());
        }
    }
}
