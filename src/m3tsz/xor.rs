//! Floating-point values: the XOR of each one's bits with those before.

use super::bits::{BitReader, BitWriter, Head, top_bits};
use super::error::DecodeErrorKind;

/// The state that both sides keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct XorChain {
    prev_bits: u64,
    window: Window,
}

impl Default for XorChain {
    fn default() -> Self {
        XorChain { prev_bits: 0, window: Window::around(0) }
    }
}

/// Where the bits of a XOR may be stored without saying where they lie: the span between the outermost ones of the XOR
/// before, which for a value stored in full is the value itself.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// 64 if there is no window, after a XOR of 0.
    lead: u8,
    trail: u8,
}

impl Window {
    #[inline(always)]
    fn around(xor: u64) -> Self {
        Window { lead: xor.leading_zeros() as u8, trail: xor.trailing_zeros() as u8 & 63 }
    }

    #[inline(always)]
    fn contains(self, other: Window) -> bool {
        other.lead >= self.lead && other.trail >= self.trail
    }

    /// The bits between; 0 without a window.
    #[inline(always)]
    fn len(self) -> u32 {
        64 - u32::from(self.lead) - u32::from(self.trail)
    }
}

impl XorChain {
    /// The bits of the last value.
    #[inline(always)]
    pub(super) fn prev_bits(&self) -> u64 {
        self.prev_bits
    }

    /// The state after a value in full.
    #[inline(always)]
    pub(super) fn after_full(bits: u64) -> Self {
        XorChain { prev_bits: bits, window: Window::around(bits) }
    }

    /// Writes a value in full.
    #[inline]
    pub(super) fn put_full(&mut self, out: &mut BitWriter, head: Head, bits: u64) {
        out.put_behind(head, bits, 64);
        *self = XorChain::after_full(bits);
    }

    /// Writes a value after another.
    #[inline(always)]
    pub(super) fn put_next(&mut self, out: &mut BitWriter, head: Head, bits: u64) {
        let xor = bits ^ self.prev_bits;
        if xor == 0 {
            self.window = Window::around(0);
            return out.put_behind(head, 0b0, 1);
        }
        let (window, before) = (Window::around(xor), self.window);
        *self = XorChain { prev_bits: bits, window };
        if before.contains(window) {
            out.put_behind(head.then(0b10, 2), xor >> before.trail, before.len());
        } else {
            let place = u64::from(window.lead) << 6 | u64::from(window.len() - 1);
            out.put_behind(head.then(0b11 << 12 | place, 14), xor >> window.trail, window.len());
        }
    }

    /// The state after a value whose XOR begins `word`, which is the window at `next` and has at least 56 bits that
    /// count. `next` moves behind it, perhaps behind the end. `None` for windows that no encoder writes.
    #[inline(always)]
    pub(super) fn read(self, word: u64, next: &mut BitReader<'_>) -> Option<Self> {
        let (len, trail) = match top_bits(word, 2) {
            0b11 => {
                next.advance(14);
                let (lead, len) = ((word >> 56) as u32 & 63, ((word >> 50) as u32 & 63) + 1);
                (len, 64_u32.checked_sub(lead + len)?)
            }
            0b10 => {
                next.advance(2);
                match self.window.len() {
                    0 => return None,
                    len => (len, u32::from(self.window.trail)),
                }
            }
            _ => {
                next.advance(1);
                return Some(XorChain { window: Window::around(0), ..self });
            }
        };
        let mut xor = next.window() >> (64 - len);
        if len > 57 {
            xor = next.peek_wide(len);
        }
        next.advance(len);
        let xor = xor << trail;
        Some(XorChain { prev_bits: self.prev_bits ^ xor, window: Window::around(xor) })
    }

    /// Reads a value stored in full.
    pub(super) fn take_full(&mut self, bits: &mut BitReader<'_>) -> Result<(), DecodeErrorKind> {
        *self = XorChain::after_full(bits.take(64)?);
        Ok(())
    }

    /// Reads a value after another.
    ///
    /// # Errors
    /// Truncation, and windows that no encoder writes. (M3's decoder takes those for a XOR of 0.)
    #[inline]
    pub(super) fn take_next(&mut self, bits: &mut BitReader<'_>) -> Result<(), DecodeErrorKind> {
        let begin = bits.position();
        let (len, trail) = match top_bits(bits.window(), 2) {
            0b11 => {
                let field = bits.take(14)? as u32;
                let (lead, len) = (field >> 6 & 63, (field & 63) + 1);
                (len, 64_u32.checked_sub(lead + len))
            }
            0b10 => {
                bits.pass(2)?;
                let len = self.window.len();
                (len, (len > 0).then_some(u32::from(self.window.trail)))
            }
            _ => {
                bits.pass(1)?;
                self.window = Window::around(0);
                return Ok(());
            }
        };
        let Some(trail) = trail else {
            bits.rewind(begin);
            return Err(DecodeErrorKind::XorWindow);
        };
        let xor = bits.take(len)? << trail;
        *self = XorChain { prev_bits: self.prev_bits ^ xor, window: Window::around(xor) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(out: &BitWriter) -> Vec<u8> {
        let mut bytes = Vec::new();
        out.finish_into(1, 1, &mut bytes);
        bytes
    }

    #[test]
    fn every_length_and_position_of_a_xor_comes_back() {
        let mut values = vec![0_u64];
        for lead in 0..64 {
            for trail in 0..64 - lead {
                let xor = u64::MAX >> lead >> trail << trail;
                let last = values[values.len() - 1];
                // Into the window, into it again, out of it, nothing.
                values.extend([last ^ xor, last, last ^ 1, last ^ 1]);
            }
        }
        let (mut encoder, mut out) = (XorChain::default(), BitWriter::default());
        encoder.put_full(&mut out, Head::NONE, values[0]);
        for value in &values[1..] {
            encoder.put_next(&mut out, Head::NONE, *value);
        }
        let bytes = bytes_of(&out);
        let (mut decoder, mut reader) = (XorChain::default(), BitReader::new(&bytes));
        assert_eq!(decoder.take_full(&mut reader), Ok(()));
        for value in &values[1..] {
            assert_eq!(decoder.take_next(&mut reader), Ok(()));
            assert_eq!(decoder.prev_bits(), *value);
        }
        assert_eq!(reader.take_bit(), Ok(true));
    }

    #[test]
    fn impossible_windows_are_errors_where_the_value_begins() {
        // A window after a XOR of 0; 63 leading zeros before 2 bits.
        for field in [0b10 << 62, 0b11 << 62 | 63 << 56 | 1 << 50] {
            let bytes = u64::to_be_bytes(field);
            let mut reader = BitReader::new(&bytes);
            assert_eq!(XorChain::default().take_next(&mut reader), Err(DecodeErrorKind::XorWindow));
            assert_eq!(reader.position(), 0);
        }
    }
}
