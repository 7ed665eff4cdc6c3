//! Values: differences of scaled integers and, where a value is none, XORs of floating-point bits.

use super::bits::{BitReader, BitWriter, top_bits};
use super::encoder::Mode;
use super::error::DecodeErrorKind;
use super::scale::{MULT_MAX, Scaled, TWO_POW_63};
use super::significant::{WidthTracker, significant_bits};
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
#[derive(Clone, Debug, Default)]
pub(super) struct ValueEncoder {
    /// The last integer, `0.0` before the first. Floating-point values in between leave it alone.
    int: f64,
    xor: XorChain,
    widths: WidthTracker,
    /// The multiplier in force: grows until a floating-point value resets it.
    mult: u8,
    /// Whether the last value was written as a XOR.
    is_float: bool,
}

impl ValueEncoder {
    /// Writes the first value.
    pub(super) fn put_first(&mut self, out: &mut BitWriter, value: f64, coding: ValueCoding, mode: Mode) {
        if coding == ValueCoding::Plain {
            return self.xor.put_full(out, value.to_bits());
        }
        let Some(scaled) = scale(value, 0, mode) else {
            out.put(1, 1);
            self.xor.put_full(out, value.to_bits());
            self.is_float = true;
            return;
        };
        out.put(0, 1);
        let magnitude = magnitude(scaled.int);
        self.put_width_and_mult(out, significant_bits(magnitude), scaled.mult);
        // As a difference from 0, so that a value that is not negative goes up.
        self.put_diff(out, magnitude, scaled.int >= 0.0);
        self.int = scaled.int;
    }

    /// Writes a value after another.
    #[inline]
    pub(super) fn put_next(&mut self, out: &mut BitWriter, value: f64, coding: ValueCoding, mode: Mode) {
        if coding == ValueCoding::Plain {
            return self.xor.put_next(out, value.to_bits());
        }
        let Some(scaled) = scale(value, self.mult, mode) else {
            return self.put_float(out, value.to_bits(), 0);
        };
        let diff = self.int - scaled.int;
        if diff.abs() >= TWO_POW_63 {
            // Only in M3's mode, and M3's mistake: the scaled integer, where the value belongs.
            return self.put_float(out, scaled.int.to_bits(), scaled.mult);
        }
        if diff == 0.0 && !self.is_float && scaled.mult == self.mult {
            return out.put(0b01, 2);
        }
        let (magnitude, up) = (magnitude(diff), diff < 0.0);
        let width = self.widths.track(significant_bits(magnitude));
        if scaled.mult > self.mult || width != self.widths.width() || self.is_float {
            out.put(0b000, 3);
            self.put_width_and_mult(out, width, scaled.mult);
            self.is_float = false;
        } else {
            out.put(0b1, 1);
        }
        self.put_diff(out, magnitude, up);
        self.int = scaled.int;
    }

    fn put_float(&mut self, out: &mut BitWriter, bits: u64, mult: u8) {
        if !self.is_float {
            out.put(0b001, 3);
            self.xor.put_full(out, bits);
            self.is_float = true;
            self.mult = mult;
        } else if bits == self.xor.prev_bits() {
            out.put(0b01, 2);
        } else {
            out.put(0b1, 1);
            self.xor.put_next(out, bits);
        }
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

    #[inline]
    fn put_diff(&mut self, out: &mut BitWriter, magnitude: u64, up: bool) {
        let width = self.widths.width();
        if width < 64 {
            out.put(u64::from(up) << width | magnitude, 1 + width);
        } else {
            out.put(u64::from(up), 1);
            out.put(magnitude, 64);
        }
    }
}

#[inline]
fn scale(value: f64, mult_min: u8, mode: Mode) -> Option<Scaled> {
    match mode {
        Mode::Lossless => Scaled::exactly(value, mult_min),
        Mode::M3 => Scaled::as_m3(value, mult_min),
    }
}

/// `|int|` as an integer. From 2^63 on it is 2^63, as when M3 converts it on x86-64.
#[inline]
fn magnitude(int: f64) -> u64 {
    let magnitude = int.abs();
    if magnitude < TWO_POW_63 { (magnitude as i64).cast_unsigned() } else { 1 << 63 }
}

/// The reading side.
#[derive(Clone, Debug, Default)]
pub(super) struct ValueDecoder {
    /// The last integer and the multiplier in force. Adding up in `f64` is what M3 does, rounding included.
    scaled: Scaled,
    xor: XorChain,
    width: u32,
    is_float: bool,
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

    fn take_width_and_mult(&mut self, bits: &mut BitReader<'_>) -> Result<(), DecodeErrorKind> {
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
