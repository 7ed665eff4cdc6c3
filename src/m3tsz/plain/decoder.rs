//! Bits to points.

use super::bits::BitReader;
use super::constants::{
    KIND_ANNOTATION, KIND_BITS, KIND_END, KIND_UNIT, MARKER, MULT_MAX, dod_bits, initial_unit,
};
use super::field::{Field, FieldKind};
use super::integer::value_of;
use crate::m3tsz::{DecodeError, DecodeErrorKind, DecodedPoint, TimeUnit, ValueCoding};

/// Reads the points of a stream, slowly: the twin of [`m3tsz::Decoder`](crate::m3tsz::Decoder), which is the one to use.
///
/// Both return the same points, and the same error at the same bit. Format: `design/m3tsz.md`; the fields have the names that the
/// states have there.
///
/// An error is placed where the field begins that cannot be right. Some fields count as one for that: opcode and
/// delta-of-delta; the bits of a value's opcode; `11` of a XOR with both its numbers; sign and magnitude, unless the
/// magnitude has 64 bits. Of an annotation's length each byte counts for itself if the stream ends there, and all of
/// them together if the length is impossible.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    stream: BitReader<'a>,
    coding: ValueCoding,
    first: bool,
    ended: bool,
    annotation: Vec<u8>,
    /// Of the last point, if they are wanted.
    fields: Option<Vec<Field>>,

    time: i64,
    delta: i64,
    unit: Option<TimeUnit>,

    int: f64,
    mult: u8,
    width: u32,
    is_float: bool,

    bits: u64,
    xor: u64,
}

impl<'a> Decoder<'a> {
    /// A decoder at the start of a stream whose values are coded as `values` says.
    pub fn new(stream: &'a [u8], values: ValueCoding) -> Self {
        Decoder {
            stream: BitReader::new(stream),
            coding: values,
            first: true,
            ended: stream.is_empty(),
            annotation: Vec::new(),
            fields: None,
            time: 0,
            delta: 0,
            unit: None,
            int: 0.0,
            mult: 0,
            width: 0,
            is_float: values == ValueCoding::Plain,
            bits: 0,
            xor: 0,
        }
    }

    /// A decoder that keeps account of what it reads, for [`fields`](Decoder::fields).
    pub fn explaining(stream: &'a [u8], values: ValueCoding) -> Self {
        Decoder { fields: Some(Vec::new()), ..Decoder::new(stream, values) }
    }

    /// The next point; `None` after the last one and after an error.
    ///
    /// # Errors
    /// [`DecodeError`] where the stream is damaged.
    pub fn next_point(&mut self) -> Option<Result<DecodedPoint<'_>, DecodeError>> {
        self.annotation.clear();
        if let Some(fields) = &mut self.fields {
            fields.clear();
        }
        if self.ended {
            return None;
        }
        match self.read_point() {
            Ok(Some(unit)) => {
                let value = self.value();
                Some(Ok(DecodedPoint { timestamp: self.time, value, unit, annotation: &self.annotation }))
            }
            Ok(None) => {
                self.ended = true;
                self.note_rest();
                None
            }
            Err(error) => {
                self.ended = true;
                self.stream.position = error.bit;
                if let Some(fields) = &mut self.fields {
                    fields.retain(|field| field.bits.end <= error.bit);
                }
                Some(Err(error))
            }
        }
    }

    /// What the last call of [`next_point`](Decoder::next_point) read, in order and without gaps: the fields of a
    /// point; at the end, the end marker and what is behind it; at an error, the whole fields before it. Empty unless
    /// the decoder is [`explaining`](Decoder::explaining).
    pub fn fields(&self) -> &[Field] {
        self.fields.as_deref().unwrap_or_default()
    }

    /// How many bits have been read: after an error, those before it.
    pub fn position(&self) -> u64 {
        self.stream.position
    }

    /// Reads a point and returns its unit; `None` at the end.
    fn read_point(&mut self) -> Result<Option<TimeUnit>, DecodeError> {
        let first = self.first;
        self.first = false;
        if first {
            let begin = self.position();
            self.time = self.read(64, begin)?.cast_signed();
            self.note(begin, FieldKind::Start { at: self.time });
            self.unit = initial_unit(self.time);
        }
        let Some(unit) = self.read_timestamp()? else { return Ok(None) };
        match (self.coding, first) {
            (ValueCoding::Plain, true) => self.read_full()?,
            (ValueCoding::Plain, false) => self.read_xor()?,
            (ValueCoding::IntOptimized, true) => self.read_first_value()?,
            (ValueCoding::IntOptimized, false) => self.read_later_value()?,
        }
        Ok(Some(unit))
    }

    fn value(&self) -> f64 {
        if self.is_float { f64::from_bits(self.bits) } else { value_of(self.int, self.mult) }
    }

    // Markers and timestamps.

    /// Reads all that stands before a value; `None` at the end.
    fn read_timestamp(&mut self) -> Result<Option<TimeUnit>, DecodeError> {
        let mut changed = false;
        while let Some(kind) = self.marker() {
            let begin = self.position();
            self.stream.position += u64::from(MARKER.1 + KIND_BITS);
            match kind {
                KIND_ANNOTATION => {
                    self.note(begin, FieldKind::AnnotationMarker);
                    self.read_annotation()?;
                }
                KIND_UNIT => {
                    self.note(begin, FieldKind::UnitMarker);
                    changed |= self.read_unit()?;
                }
                _ => {
                    self.note(begin, FieldKind::EndMarker);
                    return Ok(None);
                }
            }
        }
        let begin = self.position();
        let Some(unit) = self.unit else { return Err(error(begin, DecodeErrorKind::NoUnit)) };
        if changed {
            let dod_ns = self.read(64, begin)?.cast_signed();
            self.note(begin, FieldKind::DodNanos { dod_ns });
            self.advance(dod_ns);
            self.delta = 0;
        } else {
            let dod_ns = self.read_dod(unit)?;
            self.advance(dod_ns);
        }
        Ok(Some(unit))
    }

    /// The kind of the marker that is next, if one is.
    fn marker(&self) -> Option<u64> {
        let (prefix, prefix_bits) = MARKER;
        let next = self.stream.peek(prefix_bits + KIND_BITS)?;
        let (head, kind) = (next >> KIND_BITS, next & 0b11);
        (head == prefix && matches!(kind, KIND_END | KIND_ANNOTATION | KIND_UNIT)).then_some(kind)
    }

    fn read_annotation(&mut self) -> Result<(), DecodeError> {
        self.annotation.clear();
        let begin = self.position();
        // Zig-zag: 0, -1, 1, -2, 2 ...; the number is the length less 1.
        let zigzag = self.read_varint()?;
        let impossible = error(begin, DecodeErrorKind::AnnotationLength);
        let zigzag = zigzag.filter(|zigzag| zigzag % 2 == 0).ok_or(impossible)?;
        let bytes = zigzag / 2 + 1;
        if i64::try_from(bytes).is_err() {
            return Err(impossible);
        }
        self.note(begin, FieldKind::AnnotationLength { bytes });

        let begin = self.position();
        if bytes > self.stream.left() / 8 {
            return Err(error(begin, DecodeErrorKind::Truncated));
        }
        for _ in 0..bytes {
            let byte = self.read(8, begin)?;
            self.annotation.push(byte as u8);
        }
        self.note(begin, FieldKind::Annotation);
        Ok(())
    }

    /// Groups of 7 bits, the lowest first; `None` if they exceed 64 bits.
    fn read_varint(&mut self) -> Result<Option<u64>, DecodeError> {
        let mut number = 0_u128;
        for group in 0..10 {
            let begin = self.position();
            let byte = self.read(8, begin)?;
            number += u128::from(byte % 128) << (7 * group);
            if byte < 128 {
                return Ok(u64::try_from(number).ok());
            }
        }
        Ok(None)
    }

    /// Whether the unit is another one.
    fn read_unit(&mut self) -> Result<bool, DecodeError> {
        let begin = self.position();
        let id = self.read(8, begin)? as u8;
        let unit = TimeUnit::try_from(id).map_err(|_| error(begin, DecodeErrorKind::UnknownUnit(id)))?;
        let changed = self.unit != Some(unit);
        self.note(begin, FieldKind::Unit { unit, changed });
        self.unit = Some(unit);
        Ok(changed)
    }

    /// In nanoseconds.
    fn read_dod(&mut self, unit: TimeUnit) -> Result<i64, DecodeError> {
        let begin = self.position();
        let mut ones = 0;
        while ones < 4 && self.read(1, begin)? == 1 {
            ones += 1;
        }
        let dod_bits = dod_bits(ones, unit);
        self.note(begin, FieldKind::DodOpcode { dod_bits });
        if dod_bits == 0 {
            return Ok(0);
        }
        let value_begin = self.position();
        let unsigned = self.read(dod_bits, begin)?;
        let unused = 64 - dod_bits;
        let dod = (unsigned << unused).cast_signed() >> unused;
        let dod_ns = dod.wrapping_mul(unit.nanos());
        let delta_ns = self.delta.wrapping_add(dod_ns);
        self.note(value_begin, FieldKind::Dod { dod, unit, delta_ns });
        Ok(dod_ns)
    }

    fn advance(&mut self, dod_ns: i64) {
        self.delta = self.delta.wrapping_add(dod_ns);
        self.time = self.time.wrapping_add(self.delta);
    }

    // Values of plain streams, and those of int-optimized streams that are no integers.

    fn read_full(&mut self) -> Result<(), DecodeError> {
        let begin = self.position();
        self.bits = self.read(64, begin)?;
        self.xor = self.bits;
        self.note(begin, FieldKind::FullValue { bits: self.bits });
        Ok(())
    }

    fn read_xor(&mut self) -> Result<(), DecodeError> {
        let begin = self.position();
        let no_window = error(begin, DecodeErrorKind::XorWindow);
        if self.read(1, begin)? == 0 {
            self.note(begin, FieldKind::XorZero);
            self.xor = 0;
            return Ok(());
        }
        let (lead, span) = if self.read(1, begin)? == 0 {
            if self.xor == 0 {
                return Err(no_window);
            }
            let lead = self.xor.leading_zeros();
            let span = 64 - lead - self.xor.trailing_zeros();
            self.note(begin, FieldKind::XorWithin { lead, span });
            (lead, span)
        } else {
            self.note(begin, FieldKind::XorElsewhere);
            let lead_begin = self.position();
            let lead = self.read(6, begin)? as u32;
            self.note(lead_begin, FieldKind::XorLead { lead });
            let span_begin = self.position();
            let span = self.read(6, begin)? as u32 + 1;
            self.note(span_begin, FieldKind::XorSpan { span });
            (lead, span)
        };
        if lead + span > 64 {
            return Err(no_window);
        }
        let begin = self.position();
        self.xor = self.read(span, begin)? << (64 - lead - span);
        self.bits ^= self.xor;
        self.note(begin, FieldKind::XorBits { xor: self.xor, bits: self.bits });
        Ok(())
    }

    // Values of int-optimized streams.

    fn read_first_value(&mut self) -> Result<(), DecodeError> {
        let begin = self.position();
        self.is_float = self.read(1, begin)? == 1;
        self.note(begin, FieldKind::FirstOpcode { is_float: self.is_float });
        if self.is_float {
            return self.read_full();
        }
        self.read_header()?;
        self.read_difference()
    }

    fn read_later_value(&mut self) -> Result<(), DecodeError> {
        let begin = self.position();
        if self.read(1, begin)? == 1 {
            self.note(begin, FieldKind::NoUpdate);
            return if self.is_float { self.read_xor() } else { self.read_difference() };
        }
        if self.read(1, begin)? == 1 {
            self.note(begin, FieldKind::Repeat);
            return Ok(());
        }
        self.is_float = self.read(1, begin)? == 1;
        if self.is_float {
            self.note(begin, FieldKind::UpdateFloat);
            return self.read_full();
        }
        self.note(begin, FieldKind::UpdateInt);
        self.read_header()?;
        self.read_difference()
    }

    fn read_header(&mut self) -> Result<(), DecodeError> {
        if self.read_flag(|changes| FieldKind::WidthFlag { changes })? {
            self.width = 0;
            if !self.read_flag(|one| FieldKind::WidthZeroFlag { zero: !one })? {
                return self.read_mult();
            }
            let begin = self.position();
            self.width = self.read(6, begin)? as u32 + 1;
            self.note(begin, FieldKind::Width { width: self.width });
        }
        self.read_mult()
    }

    fn read_mult(&mut self) -> Result<(), DecodeError> {
        if self.read_flag(|given| FieldKind::MultFlag { given })? {
            let begin = self.position();
            let mult = self.read(3, begin)? as u8;
            if mult > MULT_MAX {
                return Err(error(begin, DecodeErrorKind::Multiplier(mult)));
            }
            self.note(begin, FieldKind::Mult { mult });
            self.mult = mult;
        }
        Ok(())
    }

    fn read_difference(&mut self) -> Result<(), DecodeError> {
        let begin = self.position();
        let up = self.read(1, begin)? == 1;
        self.note(begin, FieldKind::Sign { up });
        let magnitude_begin = self.position();
        let blamed = if self.width == 64 { magnitude_begin } else { begin };
        let magnitude = self.read(self.width, blamed)?;
        // In f64, as M3 does, rounding included.
        self.int += if up { magnitude as f64 } else { -(magnitude as f64) };
        self.note(magnitude_begin, FieldKind::Magnitude { magnitude, int: self.int, mult: self.mult });
        Ok(())
    }

    // Bits.

    /// Reads `count` bits of a field that begins at bit `begin`.
    fn read(&mut self, count: u32, begin: u64) -> Result<u64, DecodeError> {
        self.stream.read(count).ok_or(error(begin, DecodeErrorKind::Truncated))
    }

    /// Reads a field of one bit.
    fn read_flag(&mut self, kind: impl FnOnce(bool) -> FieldKind) -> Result<bool, DecodeError> {
        let begin = self.position();
        let flag = self.read(1, begin)? == 1;
        self.note(begin, kind(flag));
        Ok(flag)
    }

    /// Keeps account of a field that has been read from bit `begin` on.
    fn note(&mut self, begin: u64, kind: FieldKind) {
        if let Some(fields) = &mut self.fields {
            fields.push(Field { bits: begin..self.stream.position, kind });
        }
    }

    /// Keeps account of what is behind the end marker.
    fn note_rest(&mut self) {
        if let Some(fields) = &mut self.fields {
            let begin = self.stream.position;
            let padded = begin.next_multiple_of(8);
            let end = self.stream.len();
            for (bits, kind) in [(begin..padded, FieldKind::Padding), (padded..end, FieldKind::Behind)] {
                if !bits.is_empty() {
                    fields.push(Field { bits, kind });
                }
            }
        }
    }
}

fn error(bit: u64, kind: DecodeErrorKind) -> DecodeError {
    DecodeError { bit, kind }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::m3tsz::EncoderOptions;
    use crate::m3tsz::plain::{Encoder, bits_of};

    const S: i64 = 1_000_000_000;
    const START: i64 = 1_700_000_000 * S;

    /// The bits of the last point's fields, a space between them.
    fn spelled(decoder: &Decoder<'_>, stream: &[u8]) -> String {
        let spell = |field: &Field| -> String {
            bits_of(stream, field.bits.clone()).map(|bit| if bit { '1' } else { '0' }).collect()
        };
        decoder.fields().iter().map(spell).collect::<Vec<_>>().join(" ")
    }

    /// Example B of the format page, as its breakdown has it.
    #[test]
    fn fields_are_those_of_the_page() {
        use FieldKind::*;
        let mut encoder = Encoder::new(START, EncoderOptions::default());
        for (seconds, value) in [(0, 42.0), (10, 43.0), (20, 43.0), (31, 40.0)] {
            encoder.append(START + seconds * S, value, b"").expect("whole seconds");
        }
        let stream = encoder.finish();
        let mut decoder = Decoder::explaining(&stream, ValueCoding::IntOptimized);
        assert!(matches!(decoder.next_point(), Some(Ok(point)) if point.value == 42.0));
        assert!(spelled(&decoder, &stream).ends_with(" 0 0 1 1 000101 0 1 101010"));
        let kinds =
            |decoder: &Decoder<'_>| decoder.fields().iter().map(|field| field.kind).collect::<Vec<_>>();
        let first = [
            Start { at: START },
            DodOpcode { dod_bits: 0 },
            FirstOpcode { is_float: false },
            WidthFlag { changes: true },
            WidthZeroFlag { zero: false },
            Width { width: 6 },
            MultFlag { given: false },
            Sign { up: true },
            Magnitude { magnitude: 42, int: 42.0, mult: 0 },
        ];
        assert_eq!(kinds(&decoder), first);

        assert!(matches!(decoder.next_point(), Some(Ok(point)) if point.value == 43.0));
        assert_eq!(spelled(&decoder, &stream), "10 0001010 1 1 000001");
        let dod = Dod { dod: 10, unit: TimeUnit::Second, delta_ns: 10 * S };
        let to_43 = Magnitude { magnitude: 1, int: 43.0, mult: 0 };
        let second = [DodOpcode { dod_bits: 7 }, dod, NoUpdate, Sign { up: true }, to_43];
        assert_eq!(kinds(&decoder), second);

        assert!(matches!(decoder.next_point(), Some(Ok(point)) if point.value == 43.0));
        assert_eq!(spelled(&decoder, &stream), "0 01");
        assert!(matches!(decoder.next_point(), Some(Ok(point)) if point.value == 40.0));
        assert_eq!(spelled(&decoder, &stream), "10 0000001 1 0 000011");
        assert!(decoder.next_point().is_none());
        assert_eq!(kinds(&decoder), [EndMarker, Padding]);
        assert!(decoder.next_point().is_none() && decoder.fields().is_empty());
    }

    /// A stream with all there is, cut and with every bit flipped: the fields cover what was read, and nothing else.
    #[test]
    fn fields_cover_every_bit_that_was_read() {
        let mut encoder = Encoder::new(START, EncoderOptions::default());
        let points: [(i64, f64, &[u8]); 8] = [
            (0, 1.5, b"first"),
            (S, 1.25, b""),
            (2 * S, 0.1 + 0.2, b""),
            (2 * S, 0.3, b""),
            (2 * S, 0.3, b""),
            (2 * S + 1, f64::NAN, b"x"),
            (40 * 86_400 * S, -4e15, b""),
            (40 * 86_400 * S, 4e15, &[7; 70]),
        ];
        for (offset, value, annotation) in points {
            encoder.append(START + offset, value, annotation).expect("within 291 years");
        }
        let whole = encoder.finish();
        let cuts = (0..=whole.len()).map(|len| whole[..len].to_vec());
        let flips = (0..whole.len() * 8).map(|bit| {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 0x80 >> (bit % 8);
            damaged
        });
        let behind = [&whole[..], b"more"].concat();
        let (mut points, mut errors, mut gaps) = (0, 0, 0);
        for stream in cuts.chain(flips).chain([behind]) {
            for values in [ValueCoding::IntOptimized, ValueCoding::Plain] {
                let mut decoder = Decoder::explaining(&stream, values);
                let mut covered = 0;
                loop {
                    let outcome = decoder.next_point().map(|point| point.map(|_| ()));
                    for field in decoder.fields() {
                        assert_eq!(field.bits.start, covered);
                        covered = field.bits.end;
                    }
                    match outcome {
                        Some(Ok(())) => points += 1,
                        Some(Err(error)) => {
                            errors += 1;
                            // An annotation's length may be cut between two of its bytes.
                            let unaccounted = error.bit - covered;
                            assert!(unaccounted.is_multiple_of(8) && unaccounted < 80);
                            gaps += u32::from(unaccounted > 0);
                            break;
                        }
                        None => {
                            assert_eq!(covered, stream.len() as u64 * 8);
                            break;
                        }
                    }
                    assert_eq!(covered, decoder.position());
                }
            }
        }
        assert!(points > 1_000 && errors > 500 && gaps < 4, "{points} points, {errors} errors, {gaps} gaps");
    }

    #[test]
    fn an_ordinary_decoder_keeps_no_account() {
        let mut encoder = Encoder::new(START, EncoderOptions::default());
        encoder.append(START, 1.0, b"").expect("whole second");
        let stream = encoder.finish();
        let mut decoder = Decoder::new(&stream, ValueCoding::IntOptimized);
        assert!(matches!(decoder.next_point(), Some(Ok(_))));
        assert_eq!(decoder.fields(), []);
    }
}
