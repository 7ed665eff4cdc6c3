//! Points to bits.

use xxhash_rust::xxh64::xxh64;

use super::bits::BitString;
use super::constants::{
    KIND_ANNOTATION, KIND_BITS, KIND_END, KIND_UNIT, MARKER, TWO_POW_63, UNITS, dod_bits, initial_unit,
};
use super::integer::{LowerRun, Scaled, bits_in, magnitude_of};
use crate::m3tsz::{ANNOTATION_BYTES_MAX, EncodeError, EncoderOptions, Mode, TimeUnit, ValueCoding};

/// Appends points to a stream, slowly: the twin of [`m3tsz::Encoder`](crate::m3tsz::Encoder), which is the one to use.
///
/// Both write the same bytes for the same points, and refuse the same points with the same errors. Format: `design/m3tsz.md`; the
/// fields have the names that the states have there.
#[derive(Clone, Debug)]
pub struct Encoder {
    options: EncoderOptions,
    out: BitString,
    first: bool,
    /// Mode M3: of the last annotation written.
    annotation_hash: u64,

    time: i64,
    delta: i64,
    unit: Option<TimeUnit>,
    /// The coarsest unit that divides every timestamp so far.
    exact: TimeUnit,

    int: f64,
    mult: u8,
    width: u32,
    lower: LowerRun,
    is_float: bool,

    bits: u64,
    xor: u64,
}

impl Encoder {
    /// An encoder of an empty stream, whose first delta counts from `start`, in nanoseconds since the Unix epoch.
    pub fn new(start: i64, options: EncoderOptions) -> Self {
        Encoder {
            options,
            out: BitString::default(),
            first: true,
            annotation_hash: xxh64(b"", 0),
            time: start,
            delta: 0,
            unit: initial_unit(start),
            exact: TimeUnit::Second,
            int: 0.0,
            mult: 0,
            width: 0,
            lower: LowerRun::default(),
            is_float: false,
            bits: 0,
            xor: 0,
        }
    }

    /// Appends a point in a unit of the encoder's choice, which keeps its timestamp.
    ///
    /// # Errors
    /// Those of [`m3tsz::Encoder::append`](crate::m3tsz::Encoder::append). The encoder is then as it was before.
    pub fn append(&mut self, at: i64, value: f64, annotation: &[u8]) -> Result<(), EncodeError> {
        self.append_checked(at, value, annotation, self.chosen_unit(at), true)
    }

    /// Appends a point in the unit given.
    ///
    /// # Errors
    /// Those of [`m3tsz::Encoder::append_with_unit`](crate::m3tsz::Encoder::append_with_unit). The encoder is then as it was before.
    pub fn append_with_unit(
        &mut self,
        at: i64,
        value: f64,
        annotation: &[u8],
        unit: TimeUnit,
    ) -> Result<(), EncodeError> {
        self.append_checked(at, value, annotation, unit, self.options.mode == Mode::Lossless)
    }

    /// The stream: nothing if there are no points, else all of them, the end marker, and zeros up to a byte.
    pub fn finish(mut self) -> Vec<u8> {
        if !self.first {
            self.write_marker(KIND_END);
        }
        self.out.into_bytes()
    }

    /// `keep`: the timestamp must come back as it is.
    fn append_checked(
        &mut self,
        at: i64,
        value: f64,
        annotation: &[u8],
        unit: TimeUnit,
        keep: bool,
    ) -> Result<(), EncodeError> {
        if annotation.len() as u64 > ANNOTATION_BYTES_MAX {
            return Err(EncodeError::AnnotationTooLong { bytes: annotation.len() as u64 });
        }
        self.check_timestamp(at, unit, keep)?;

        if self.first {
            self.out.push(self.time.cast_unsigned(), 64);
        }
        self.write_annotation(annotation);
        self.write_timestamp(at, unit);
        match (self.options.values, self.first) {
            (ValueCoding::Plain, true) => self.write_full(value.to_bits()),
            (ValueCoding::Plain, false) => self.write_xor(value.to_bits()),
            (ValueCoding::IntOptimized, true) => self.write_first_value(value),
            (ValueCoding::IntOptimized, false) => self.write_later_value(value),
        }
        self.first = false;
        Ok(())
    }

    // Markers.

    fn write_marker(&mut self, kind: u64) {
        let (prefix, bits) = MARKER;
        self.out.push(prefix, bits);
        self.out.push(kind, KIND_BITS);
    }

    fn write_annotation(&mut self, annotation: &[u8]) {
        if annotation.is_empty() {
            return;
        }
        if self.options.mode == Mode::M3 {
            let hash = xxh64(annotation, 0);
            if hash == self.annotation_hash {
                return;
            }
            self.annotation_hash = hash;
        }
        self.write_marker(KIND_ANNOTATION);
        let mut length = (annotation.len() as u64 - 1) * 2;
        while length >= 128 {
            self.out.push(1, 1);
            self.out.push(length % 128, 7);
            length /= 128;
        }
        self.out.push(0, 1);
        self.out.push(length, 7);
        for byte in annotation {
            self.out.push(u64::from(*byte), 8);
        }
    }

    // Timestamps.

    fn dod_ns(&self, at: i64) -> i64 {
        at.wrapping_sub(self.time).wrapping_sub(self.delta)
    }

    /// "Units of the encoder's choice" of the format page.
    fn chosen_unit(&self, at: i64) -> TimeUnit {
        let exact = coarsest_from(self.exact, at);
        let dod_ns = self.dod_ns(at);
        let dod = dod_ns / exact.nanos();
        let kept = dod_ns % exact.nanos() == 0 && fits(dod, exact);
        if self.unit == Some(exact) && !kept {
            return coarsest_from(TimeUnit::Microsecond, dod_ns);
        }
        exact
    }

    fn check_timestamp(&self, at: i64, unit: TimeUnit, keep: bool) -> Result<(), EncodeError> {
        let dod_ns = self.dod_ns(at);
        if self.unit != Some(unit) {
            // The first 11 bits would be those of a marker.
            if keep && dod_ns < i64::MIN + 3 * (1 << 53) {
                return Err(EncodeError::ReadsAsMarker { dod_ns });
            }
            return Ok(());
        }
        if keep && dod_ns % unit.nanos() != 0 {
            return Err(EncodeError::TimestampInexact { dod_ns, unit });
        }
        let dod = dod_ns / unit.nanos();
        if !fits(dod, unit) {
            return Err(EncodeError::DeltaOfDeltaTooWide { dod, unit });
        }
        Ok(())
    }

    /// Writes a timestamp that passed [`check_timestamp`](Encoder::check_timestamp).
    fn write_timestamp(&mut self, at: i64, unit: TimeUnit) {
        let dod_ns = self.dod_ns(at);
        if self.unit == Some(unit) {
            self.write_dod(dod_ns / unit.nanos(), unit);
            self.delta = at.wrapping_sub(self.time);
        } else {
            self.write_marker(KIND_UNIT);
            self.out.push(u64::from(unit.id()), 8);
            self.out.push(dod_ns.cast_unsigned(), 64);
            self.delta = 0;
            self.unit = Some(unit);
        }
        self.time = at;
        self.exact = coarsest_from(self.exact, at);
    }

    fn write_dod(&mut self, dod: i64, unit: TimeUnit) {
        let (opcode, opcode_bits, ones) = match dod {
            0 => (0b0, 1, 0),
            -64..=63 => (0b10, 2, 1),
            -256..=255 => (0b110, 3, 2),
            -2048..=2047 => (0b1110, 4, 3),
            _ => (0b1111, 4, 4),
        };
        self.out.push(opcode, opcode_bits);
        self.out.push(dod.cast_unsigned(), dod_bits(ones, unit));
    }

    // Values of plain streams, and those of int-optimized streams that are no integers.

    fn write_full(&mut self, bits: u64) {
        self.out.push(bits, 64);
        self.bits = bits;
        self.xor = bits;
    }

    fn write_xor(&mut self, bits: u64) {
        let xor = bits ^ self.bits;
        // Of a XOR of 0 there are 64 leading zeros, so nothing is within.
        let (lead_before, trail_before) = (self.xor.leading_zeros(), self.xor.trailing_zeros());
        let (lead, trail) = (xor.leading_zeros(), xor.trailing_zeros());
        if xor == 0 {
            self.out.push(0b0, 1);
        } else if lead >= lead_before && trail >= trail_before {
            self.out.push(0b10, 2);
            self.out.push(xor >> trail_before, 64 - lead_before - trail_before);
        } else {
            let span = 64 - lead - trail;
            self.out.push(0b11, 2);
            self.out.push(u64::from(lead), 6);
            self.out.push(u64::from(span - 1), 6);
            self.out.push(xor >> trail, span);
        }
        self.bits = bits;
        self.xor = xor;
    }

    // Values of int-optimized streams.

    fn write_first_value(&mut self, value: f64) {
        let Some(scaled) = Scaled::from_value(value, 0, self.options.mode) else {
            self.out.push(0b1, 1);
            self.write_full(value.to_bits());
            self.is_float = true;
            return;
        };
        let magnitude = magnitude_of(scaled.int);
        self.out.push(0b0, 1);
        self.write_header(bits_in(magnitude), scaled.mult);
        self.write_difference(scaled.int >= 0.0, magnitude);
        self.int = scaled.int;
    }

    fn write_later_value(&mut self, value: f64) {
        let Some(scaled) = Scaled::from_value(value, self.mult, self.options.mode) else {
            return self.write_float(value.to_bits(), 0);
        };
        let difference = self.int - scaled.int;
        if difference >= TWO_POW_63 || difference <= -TWO_POW_63 {
            // Only in mode M3: the integer, where the value should be.
            return self.write_float(scaled.int.to_bits(), scaled.mult);
        }
        if difference == 0.0 && scaled.mult == self.mult && !self.is_float {
            self.out.push(0b01, 2);
            return;
        }
        let magnitude = magnitude_of(difference);
        let width = self.lower.width_for(bits_in(magnitude), self.width);
        if width == self.width && scaled.mult == self.mult && !self.is_float {
            self.out.push(0b1, 1);
        } else {
            self.out.push(0b000, 3);
            self.write_header(width, scaled.mult);
            self.is_float = false;
        }
        self.write_difference(difference < 0.0, magnitude);
        self.int = scaled.int;
    }

    fn write_float(&mut self, bits: u64, mult: u8) {
        if !self.is_float {
            self.out.push(0b001, 3);
            self.write_full(bits);
            self.is_float = true;
            self.mult = mult;
        } else if bits == self.bits {
            self.out.push(0b01, 2);
        } else {
            self.out.push(0b1, 1);
            self.write_xor(bits);
        }
    }

    fn write_header(&mut self, width: u32, mult: u8) {
        if width == self.width {
            self.out.push(0b0, 1);
        } else if width == 0 {
            self.out.push(0b10, 2);
        } else {
            self.out.push(0b11, 2);
            self.out.push(u64::from(width - 1), 6);
        }
        // A multiplier never falls, so "other" is "greater".
        if mult != self.mult || self.is_float {
            self.out.push(0b1, 1);
            self.out.push(u64::from(mult), 3);
        } else {
            self.out.push(0b0, 1);
        }
        self.width = width;
        self.mult = mult;
    }

    fn write_difference(&mut self, up: bool, magnitude: u64) {
        self.out.push(u64::from(up), 1);
        self.out.push(magnitude, self.width);
    }
}

/// The coarsest unit, `from` or finer, that divides `nanos`.
fn coarsest_from(from: TimeUnit, nanos: i64) -> TimeUnit {
    let mut units = UNITS.into_iter().filter(|unit| *unit >= from);
    units.find(|unit| nanos % unit.nanos() == 0).unwrap_or(TimeUnit::Nanosecond)
}

/// Whether the widest bucket of a unit holds a delta-of-delta.
fn fits(dod: i64, unit: TimeUnit) -> bool {
    dod_bits(4, unit) == 64 || i32::try_from(dod).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;
    const START: i64 = 1_700_000_000 * S;

    #[test]
    fn a_stream_of_no_points_has_no_bytes() {
        assert_eq!(Encoder::new(START, EncoderOptions::default()).finish(), b"");
    }

    /// Examples B, D and F of the format page.
    #[test]
    fn examples_are_written_as_the_page_has_them() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let write = |points: &[(i64, f64)]| {
            let mut encoder = Encoder::new(START, EncoderOptions::default());
            for (seconds, value) in points {
                encoder.append(START + seconds * S, *value, b"").expect("whole seconds");
            }
            hex(&encoder.finish())
        };
        assert_eq!(
            write(&[(0, 42.0), (10, 43.0), (20, 43.0), (31, 40.0)]),
            "17979cfe362a0000315aa1582603070000"
        );
        let (pi, e) = (std::f64::consts::PI, std::f64::consts::E);
        assert_eq!(
            write(&[(0, pi), (10, pi), (20, e), (30, 7.0)]),
            "17979cfe362a00005002487ed5110b46214b999e4f78efa83d3886147c00"
        );
        let mut encoder = Encoder::new(START, EncoderOptions::default().mode(Mode::M3));
        for (at, value, annotation, unit) in [
            (S + S / 2, 7.0, &b"ab"[..], TimeUnit::Millisecond),
            (2 * S + S / 2, 8.0, b"ab", TimeUnit::Millisecond),
            (3 * S + S / 2, 9.0, b"", TimeUnit::Second),
        ] {
            encoder.append_with_unit(START + at, value, annotation, unit).expect("fits");
        }
        assert_eq!(
            hex(&encoder.finish()),
            "17979cfe362a000080204c2c5008080000000165a0bc0184fe3e8cc02010000000000000000cc000"
        );
    }

    #[test]
    fn a_refused_point_leaves_no_trace() {
        let mut encoder = Encoder::new(START, EncoderOptions::default());
        encoder.append(START, 1.0, b"a").expect("whole second");
        let before = encoder.clone().finish();
        let far = START + (i64::from(i32::MAX) + 1) * S;
        assert_eq!(
            encoder.append_with_unit(far, 2.0, b"b", TimeUnit::Second),
            Err(EncodeError::DeltaOfDeltaTooWide { dod: 1 << 31, unit: TimeUnit::Second })
        );
        assert_eq!(
            encoder.append_with_unit(START + 1, 2.0, b"b", TimeUnit::Second),
            Err(EncodeError::TimestampInexact { dod_ns: 1, unit: TimeUnit::Second })
        );
        let reads_as_marker = Err(EncodeError::ReadsAsMarker { dod_ns: i64::MIN });
        assert_eq!(encoder.append(START.wrapping_add(i64::MIN), 2.0, b"b"), reads_as_marker);
        assert_eq!(encoder.finish(), before);
    }
}
