//! Floating-point values: the XOR of each one's bits with those before.

use super::bits::{BitReader, BitWriter, top_bits};
use super::error::DecodeErrorKind;

/// The state that both sides keep.
///
/// The window in which a XOR may be stored without saying where its bits lie is the span between the outermost ones of
/// the XOR before, which for a value stored in full is the value itself.
#[derive(Clone, Debug, Default)]
pub(super) struct XorChain {
    prev_bits: u64,
    prev_xor: u64,
}

impl XorChain {
    /// The bits of the last value.
    #[inline]
    pub(super) fn prev_bits(&self) -> u64 {
        self.prev_bits
    }

    /// Writes a value in full.
    pub(super) fn put_full(&mut self, out: &mut BitWriter, bits: u64) {
        out.put(bits, 64);
        *self = XorChain { prev_bits: bits, prev_xor: bits };
    }

    /// Writes a value after another.
    #[inline]
    pub(super) fn put_next(&mut self, out: &mut BitWriter, bits: u64) {
        let xor = bits ^ self.prev_bits;
        let (lead, trail) = (xor.leading_zeros(), xor.trailing_zeros());
        let window = window(self.prev_xor);
        *self = XorChain { prev_bits: bits, prev_xor: xor };
        if xor == 0 {
            return out.put(0b0, 1);
        }
        match window {
            Some((window_lead, window_trail)) if lead >= window_lead && trail >= window_trail => {
                out.put(0b10, 2);
                out.put(xor >> window_trail, 64 - window_lead - window_trail);
            }
            _ => {
                let len = 64 - lead - trail;
                out.put(0b11 << 12 | u64::from(lead) << 6 | u64::from(len - 1), 14);
                out.put(xor >> trail, len);
            }
        }
    }

    /// Reads a value stored in full.
    pub(super) fn take_full(&mut self, bits: &mut BitReader<'_>) -> Result<(), DecodeErrorKind> {
        let value = bits.take(64)?;
        *self = XorChain { prev_bits: value, prev_xor: value };
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
                match window(self.prev_xor) {
                    Some((lead, trail)) => (64 - lead - trail, Some(trail)),
                    None => (0, None),
                }
            }
            _ => {
                bits.pass(1)?;
                self.prev_xor = 0;
                return Ok(());
            }
        };
        let Some(trail) = trail else {
            bits.rewind(begin);
            return Err(DecodeErrorKind::XorWindow);
        };
        self.prev_xor = bits.take(len)? << trail;
        self.prev_bits ^= self.prev_xor;
        Ok(())
    }
}

/// The zeros around a XOR's ones; `None` if it has no ones.
#[inline]
fn window(xor: u64) -> Option<(u32, u32)> {
    (xor != 0).then(|| (xor.leading_zeros(), xor.trailing_zeros()))
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
        encoder.put_full(&mut out, values[0]);
        for value in &values[1..] {
            encoder.put_next(&mut out, *value);
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
