//! Values: differences of scaled integers and, where a value is none, XORs of floating-point bits.

use super::bits::{BitReader, BitWriter, Head, top_bits};
use super::error::DecodeErrorKind;
use super::scale::{MULT_MAX, Scaled, TWO_POW_52, TWO_POW_63};
use super::significant::{WidthTracker, significant_bits, significant_bits_of_63};
use super::xor::XorChain;

/// How a stream's values are coded. A stream does not say; M3 always optimizes integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ValueCoding {
    /// Integers and short decimals as differences, all else as XORs.
    #[default]
    IntOptimized,
    /// XORs only. Costs 2 bits instead of 3 for a repeated value, and much more for counters and decimals.
    Plain,
}

/// The writing side.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ValueEncoder {
    /// The last integer, `0.0` before the first. Floating-point values in between leave it alone.
    int: f64,
    /// The last value. Good for comparing while values are integers.
    prev: f64,
    xor: XorChain,
    widths: WidthTracker,
    /// The multiplier in force: grows until a floating-point value resets it.
    mult: u8,
    /// Whether the last value was written as a XOR.
    is_float: bool,
}

/// How values are scaled to integers: the two modes.
pub(super) trait Scaling {
    /// The value as an integer, if it is to be stored as one.
    fn scale(value: f64, mult_min: u8) -> Option<Scaled>;
}

/// [`Mode::Lossless`](super::Mode::Lossless).
pub(super) struct Lossless;

impl Scaling for Lossless {
    #[inline(always)]
    fn scale(value: f64, mult_min: u8) -> Option<Scaled> {
        Scaled::exactly(value, mult_min)
    }
}

/// [`Mode::M3`](super::Mode::M3).
pub(super) struct AsM3;

impl Scaling for AsM3 {
    #[inline(always)]
    fn scale(value: f64, mult_min: u8) -> Option<Scaled> {
        Scaled::as_m3(value, mult_min)
    }
}

impl ValueEncoder {
    /// Writes the first value, [`ValueCoding::IntOptimized`].
    pub(super) fn put_first<S: Scaling>(&mut self, out: &mut BitWriter, value: f64) {
        self.prev = value;
        let Some(scaled) = S::scale(value, 0) else {
            self.is_float = true;
            return self.xor.put_full(out, Head::NONE.then(1, 1), value.to_bits());
        };
        out.put(0, 1);
        let magnitude = magnitude(scaled.int);
        self.put_width_and_mult(out, significant_bits(magnitude), scaled.mult);
        // As a difference from 0, so that a value that is not negative goes up.
        self.put_diff(out, Head::NONE, magnitude, scaled.int >= 0.0);
        self.int = scaled.int;
    }

    /// Writes a value after another, [`ValueCoding::IntOptimized`].
    #[inline(always)]
    pub(super) fn put_next<S: Scaling>(&mut self, out: &mut BitWriter, head: Head, value: f64) {
        if let Some(tail) = self.step::<S>(value) {
            return out.put_behind(head, tail.bits, tail.count);
        }
        self.put_rare::<S>(out, head, value);
    }

    /// The long way.
    #[inline(never)]
    fn put_rare<S: Scaling>(&mut self, out: &mut BitWriter, head: Head, value: f64) {
        self.prev = value;
        match S::scale(value, self.mult) {
            Some(scaled) => self.put_unsteady(out, head, scaled),
            None => self.put_float(out, head, value.to_bits(), 0),
        }
    }

    /// The short way of [`ValueEncoder::put_next`]: the bits of an integer that is the last one again, or needs no
    /// header. `None`, and nothing is changed, for others.
    #[inline(always)]
    fn step<S: Scaling>(&mut self, value: f64) -> Option<Head> {
        if self.is_float {
            return None;
        }
        // An integer again, with the multiplier in force.
        if value.to_bits() == self.prev.to_bits() {
            return Some(Head { bits: 0b01, count: 2 });
        }
        let scaled = S::scale(value, self.mult)?;
        let diff = self.int - scaled.int;
        let magnitude = small_magnitude(diff);
        // A difference of 2^52 or more has come out wrong, but at least that wide.
        let (bits, width) = (significant_bits_of_63(magnitude), self.widths.width());
        if scaled.mult != self.mult || bits == 0 || width > 52 || !self.widths.keep(bits) {
            return None;
        }
        self.int = scaled.int;
        self.prev = value;
        // The sign is taken from the number, as compilers make a branch of a comparison.
        Some(Head { bits: (0b10 | diff.to_bits() >> 63) << width | magnitude, count: 2 + width })
    }

    /// Writes values after others, as [`ValueEncoder::put_next`] does one by one.
    #[inline(always)]
    pub(super) fn put_all<S: Scaling>(&mut self, out: &mut BitWriter, heads: &[Head], values: &[f64]) {
        let mut points = heads.iter().zip(values);
        loop {
            let rare = if self.is_float {
                self.put_floats::<S>(out, &mut points)
            } else {
                self.put_integers::<S>(out, &mut points)
            };
            let Some((head, value)) = rare else { break };
            self.put_rare::<S>(out, head, value);
        }
    }

    /// Writes points up to the first that must go the long way, which is returned.
    #[inline(always)]
    fn put_integers<'p, S: Scaling>(
        &mut self,
        out: &mut BitWriter,
        points: &mut impl Iterator<Item = (&'p Head, &'p f64)>,
    ) -> Option<(Head, f64)> {
        let (mut state, mut to) = (*self, std::mem::take(out));
        let rare = loop {
            let Some((head, value)) = points.next() else { break None };
            let Some(tail) = state.step::<S>(*value) else { break Some((*head, *value)) };
            to.put_behind(*head, tail.bits, tail.count);
        };
        (*self, *out) = (state, to);
        rare
    }

    /// Writes points up to the first that is an integer, which is returned.
    #[inline(always)]
    fn put_floats<'p, S: Scaling>(
        &mut self,
        out: &mut BitWriter,
        points: &mut impl Iterator<Item = (&'p Head, &'p f64)>,
    ) -> Option<(Head, f64)> {
        let (mut xor, mut to) = (self.xor, std::mem::take(out));
        let rare = loop {
            let Some((head, value)) = points.next() else { break None };
            if S::scale(*value, self.mult).is_some() {
                break Some((*head, *value));
            }
            if value.to_bits() == xor.prev_bits() {
                to.put_behind(*head, 0b01, 2);
            } else {
                xor.put_next(&mut to, head.then(0b1, 1), value.to_bits());
            }
        };
        (self.xor, *out) = (xor, to);
        rare
    }

    /// Writes values after others, as XORs only.
    #[inline(always)]
    pub(super) fn put_all_plain(&mut self, out: &mut BitWriter, heads: &[Head], values: &[f64]) {
        let (mut xor, mut to) = (self.xor, std::mem::take(out));
        for (head, value) in heads.iter().zip(values) {
            xor.put_next(&mut to, *head, value.to_bits());
        }
        (self.xor, *out) = (xor, to);
    }

    /// Writes an integer that may need a header.
    #[cold]
    fn put_unsteady(&mut self, out: &mut BitWriter, head: Head, scaled: Scaled) {
        let diff = self.int - scaled.int;
        if diff.abs() >= TWO_POW_63 {
            // Only in M3's mode, and M3's mistake: the scaled integer, where the value belongs.
            return self.put_float(out, head, scaled.int.to_bits(), scaled.mult);
        }
        if diff == 0.0 && !self.is_float && scaled.mult == self.mult {
            return out.put_behind(head, 0b01, 2);
        }
        let (magnitude, up) = (magnitude(diff), diff < 0.0);
        let width = self.widths.track(significant_bits(magnitude));
        if scaled.mult > self.mult || width != self.widths.width() || self.is_float {
            out.put_behind(head, 0b000, 3);
            self.put_width_and_mult(out, width, scaled.mult);
            self.is_float = false;
            self.put_diff(out, Head::NONE, magnitude, up);
        } else {
            self.put_diff(out, head.then(0b1, 1), magnitude, up);
        }
        self.int = scaled.int;
    }

    /// Writes a value as a XOR.
    #[inline(always)]
    fn put_float(&mut self, out: &mut BitWriter, head: Head, bits: u64, mult: u8) {
        if !self.is_float {
            self.xor.put_full(out, head.then(0b001, 3), bits);
            self.is_float = true;
            self.mult = mult;
        } else if bits == self.xor.prev_bits() {
            out.put_behind(head, 0b01, 2);
        } else {
            self.xor.put_next(out, head.then(0b1, 1), bits);
        }
    }

    /// Writes the first value, [`ValueCoding::Plain`].
    #[inline]
    pub(super) fn put_first_plain(&mut self, out: &mut BitWriter, value: f64) {
        self.xor.put_full(out, Head::NONE, value.to_bits());
    }

    /// Writes a value after another, [`ValueCoding::Plain`].
    #[inline(always)]
    pub(super) fn put_next_plain(&mut self, out: &mut BitWriter, head: Head, value: f64) {
        self.xor.put_next(out, head, value.to_bits());
    }

    /// Writes both where they differ from what is in force, the multiplier also after floating-point values.
    fn put_width_and_mult(&mut self, out: &mut BitWriter, width: u32, mult: u8) {
        if width == self.widths.width() {
            out.put(0b0, 1);
        } else if width == 0 {
            out.put(0b10, 2);
        } else {
            out.put(0b11 << 6 | u64::from(width - 1), 8);
        }
        self.widths.set_width(width);
        if mult > self.mult || mult == self.mult && self.is_float {
            out.put(0b1 << 3 | u64::from(mult), 4);
            self.mult = mult;
        } else {
            out.put(0b0, 1);
        }
    }

    /// Writes a sign and a magnitude, which has no more than the width's bits.
    fn put_diff(&mut self, out: &mut BitWriter, head: Head, magnitude: u64, up: bool) {
        let head = head.then(u64::from(up), 1);
        match self.widths.width() {
            0 => out.put(head.bits, head.count),
            width => out.put_behind(head, magnitude, width),
        }
    }
}

/// `|int|` as an integer. From 2^63 on it is 2^63, as when M3 converts it on x86-64.
#[inline]
fn magnitude(int: f64) -> u64 {
    let magnitude = int.abs();
    if magnitude < TWO_POW_63 { (magnitude as i64).cast_unsigned() } else { 1 << 63 }
}

/// `|int|` as an integer, for an integer below 2^52: adding 2^52 moves it into the lowest bits of the number's own. That spares the
/// conversion, which has to look out for numbers that do not fit.
#[inline(always)]
fn small_magnitude(int: f64) -> u64 {
    (int.abs() + TWO_POW_52).to_bits() ^ TWO_POW_52.to_bits()
}

/// The reading side.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ValueDecoder {
    /// The last integer and the multiplier in force. Adding up in `f64` is what M3 does, rounding included.
    pub(super) scaled: Scaled,
    pub(super) xor: XorChain,
    pub(super) width: u32,
    pub(super) is_float: bool,
}

impl ValueDecoder {
    /// The last value.
    #[inline]
    pub(super) fn value(&self) -> f64 {
        if self.is_float { f64::from_bits(self.xor.prev_bits()) } else { self.scaled.value() }
    }

    /// Reads the first value.
    pub(super) fn take_first(
        &mut self,
        bits: &mut BitReader<'_>,
        coding: ValueCoding,
    ) -> Result<(), DecodeErrorKind> {
        if coding == ValueCoding::Plain || bits.take_bit()? {
            self.is_float = true;
            return self.xor.take_full(bits);
        }
        self.take_width_and_mult(bits)?;
        self.take_diff(bits)
    }

    /// Reads a value after another.
    #[inline]
    pub(super) fn take_next(
        &mut self,
        bits: &mut BitReader<'_>,
        coding: ValueCoding,
    ) -> Result<(), DecodeErrorKind> {
        if coding == ValueCoding::Plain {
            return self.xor.take_next(bits);
        }
        // Past the end the window is 0, and passing over the prefix fails.
        match top_bits(bits.window(), 3) {
            0b100.. => {
                bits.pass(1)?;
                if self.is_float { self.xor.take_next(bits) } else { self.take_diff(bits) }
            }
            // Repeated.
            0b010 | 0b011 => bits.pass(2),
            0b001 => {
                bits.pass(3)?;
                self.is_float = true;
                self.xor.take_full(bits)
            }
            _ => {
                bits.pass(3)?;
                self.is_float = false;
                self.take_width_and_mult(bits)?;
                self.take_diff(bits)
            }
        }
    }

    #[inline]
    fn take_width_and_mult(&mut self, bits: &mut BitReader<'_>) -> Result<(), DecodeErrorKind> {
        let (width, mult, count) = header(bits.window(), self.width, self.scaled.mult);
        if bits.left() < u64::from(count) || mult > MULT_MAX {
            return self.take_damaged_header(bits);
        }
        bits.skip(count);
        self.width = width;
        self.scaled.mult = mult;
        Ok(())
    }

    /// Finds out which field it is.
    #[cold]
    fn take_damaged_header(&mut self, bits: &mut BitReader<'_>) -> Result<(), DecodeErrorKind> {
        if bits.take_bit()? {
            self.width = if bits.take_bit()? { bits.take(6)? as u32 + 1 } else { 0 };
        }
        if bits.take_bit()? {
            let begin = bits.position();
            let mult = bits.take(3)? as u8;
            if mult > MULT_MAX {
                bits.rewind(begin);
                return Err(DecodeErrorKind::Multiplier(mult));
            }
            self.scaled.mult = mult;
        }
        Ok(())
    }

    #[inline]
    fn take_diff(&mut self, bits: &mut BitReader<'_>) -> Result<(), DecodeErrorKind> {
        if self.width == 64 {
            let up = bits.take_bit()?;
            let magnitude = bits.take(64)? as f64;
            self.scaled.int += if up { magnitude } else { -magnitude };
            return Ok(());
        }
        let field = bits.take(1 + self.width)?;
        let up = field >> self.width != 0;
        let magnitude = (field & ((1 << self.width) - 1)).cast_signed();
        self.scaled.int += (if up { magnitude } else { -magnitude }) as f64;
        Ok(())
    }
}

/// The header at the top of a word: the width and the multiplier that are in force behind it, given those before it,
/// and how many bits it has, 12 at most. The multiplier may be an impossible one.
#[inline(always)]
pub(super) fn header(word: u64, width: u32, mult: u8) -> (u32, u8, u32) {
    let (width, count) = match word >> 62 {
        0b11 => ((word >> 56 & 63) as u32 + 1, 8),
        0b10 => (0, 2),
        _ => (width, 1),
    };
    let word = word << count;
    if word >> 63 == 1 { (width, (word >> 60 & 7) as u8, count + 4) } else { (width, mult, count + 1) }
}
