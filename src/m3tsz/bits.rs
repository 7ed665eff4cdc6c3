//! Bit strings, most significant bit first.

use super::error::DecodeErrorKind;

/// The `count` highest bits of `word`, right-aligned; `count <= 63`.
#[inline]
pub(super) const fn top_bits(word: u64, count: u32) -> u64 {
    word >> 1 >> (63 - count)
}

/// The lowest `count` bits of `value`, as two's complement; `1 <= count <= 64`.
#[inline]
pub(super) const fn sign_extend(value: u64, count: u32) -> i64 {
    let unused = 64 - count;
    (value << unused).cast_signed() >> unused
}

/// Bits that wait for those behind them, so that all are written at once: right-aligned, `count < 64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) bits: u64,
    pub(super) count: u32,
}

impl Head {
    /// No bits.
    pub(super) const NONE: Head = Head { bits: 0, count: 0 };

    /// This head and the lowest `count` bits of `value` behind it; together fewer than 64.
    #[inline(always)]
    pub(super) const fn then(self, value: u64, count: u32) -> Head {
        Head { bits: self.bits << count | value, count: self.count + count }
    }
}

/// Bits on their way to bytes.
///
/// Invariant: `pending < 64`, and the bits of `word` below the `pending` highest are 0.
#[derive(Clone, Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    word: u64,
    pending: u32,
}

impl BitWriter {
    /// Appends the lowest `count` bits of `value`, whose other bits must be 0; `1 <= count <= 64`.
    #[inline]
    pub(super) fn put(&mut self, value: u64, count: u32) {
        debug_assert!((1..=64).contains(&count));
        debug_assert_eq!(value & !(u64::MAX >> (64 - count)), 0);
        let free = 64 - self.pending;
        if count < free {
            self.word |= value << (free - count);
            self.pending += count;
        } else {
            let rest = count - free;
            self.bytes.extend_from_slice(&(self.word | value >> rest).to_be_bytes());
            // In two steps, as `rest` may be 0 and a shift by 64 is none.
            self.word = value << 1 << (63 - rest);
            self.pending = rest;
        }
    }

    /// Appends a head and the lowest `count` bits of `value` behind it, whose other bits must be 0; `1 <= count <= 64`.
    #[inline(always)]
    pub(super) fn put_behind(&mut self, head: Head, value: u64, count: u32) {
        debug_assert!((1..=64).contains(&count));
        if head.count + count <= 64 {
            // A head of no bits is 0, for which any shift would do.
            self.put(head.bits << (count & 63) | value, head.count + count);
        } else {
            self.put(head.bits, head.count);
            self.put(value, count);
        }
    }

    /// Makes room for so many bytes.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Appends whole bytes, at whatever bit the string has reached.
    pub(super) fn put_bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.put(u64::from(*byte), 8);
        }
    }

    /// Whole bytes that wait to be taken.
    pub(super) fn complete_bytes(&self) -> usize {
        self.bytes.len() + (self.pending / 8) as usize
    }

    /// What the buffer of bytes takes in memory.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Bits beyond the whole bytes: 0 to 7.
    pub(super) fn odd_bits(&self) -> u32 {
        self.pending % 8
    }

    /// Takes the whole bytes away; fewer than 8 bits remain.
    pub(super) fn take_complete(&mut self) -> Vec<u8> {
        let whole = self.pending / 8;
        self.bytes.extend_from_slice(&self.word.to_be_bytes()[..whole as usize]);
        self.word <<= 8 * whole;
        self.pending %= 8;
        std::mem::take(&mut self.bytes)
    }

    /// Appends everything not taken to `out`, then the `count` bits of `tail`, then zeros up to a byte;
    /// `1 <= count <= 64`. The writer stays as it is.
    pub(super) fn finish_into(&self, tail: u64, count: u32, out: &mut Vec<u8>) {
        let bits = self.pending + count;
        let word = u128::from(self.word) << 64 | u128::from(tail) << (128 - bits);
        out.extend_from_slice(&self.bytes);
        out.extend_from_slice(&word.to_be_bytes()[..bits.div_ceil(8) as usize]);
    }
}

/// A position in a bit string.
///
/// Invariant: `position <= 8 * bytes.len()`. Whoever fails to read stays where the field begins.
#[derive(Clone, Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    position: u64,
}

impl<'a> BitReader<'a> {
    #[cfg(test)]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes, position: 0 }
    }

    /// At a position, or at the end if that comes before.
    pub(super) fn at(bytes: &'a [u8], position: u64) -> Self {
        BitReader { bytes, position: position.min(bytes.len() as u64 * 8) }
    }

    /// Bits read.
    #[inline]
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Bits not read.
    #[inline]
    pub(super) fn left(&self) -> u64 {
        self.bytes.len() as u64 * 8 - self.position
    }

    /// The next bits, left-aligned: at least 57, or all that are left and then zeros.
    #[inline]
    pub(super) fn window(&self) -> u64 {
        // The position lies inside a slice, so its byte fits `usize`.
        let at = (self.position / 8) as usize;
        let word = match self.bytes.get(at..at.wrapping_add(8)).and_then(|bytes| bytes.first_chunk()) {
            Some(chunk) => u64::from_be_bytes(*chunk),
            None => padded_word(self.bytes, at),
        };
        word << (self.position % 8)
    }

    /// Moves on by `count` bits, perhaps behind the end.
    #[inline(always)]
    pub(super) fn advance(&mut self, count: u32) {
        self.position += u64::from(count);
    }

    /// Whether [`BitReader::advance`] has moved behind the end.
    #[inline(always)]
    pub(super) fn is_past_end(&self) -> bool {
        self.position > self.bytes.len() as u64 * 8
    }

    /// The next `count` bits, right-aligned; `32 <= count <= 64`. What is behind the end is 0.
    #[inline]
    pub(super) fn peek_wide(&self, count: u32) -> u64 {
        let mut low = self.clone();
        low.advance(32);
        top_bits(self.window(), 32) << (count - 32) | top_bits(low.window(), count - 32)
    }

    /// Passes over `count` bits that are known to be there.
    #[inline]
    pub(super) fn skip(&mut self, count: u32) {
        debug_assert!(u64::from(count) <= self.left());
        self.position += u64::from(count);
    }

    /// Passes over `count` bits.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] if fewer are left.
    #[inline]
    pub(super) fn pass(&mut self, count: u32) -> Result<(), DecodeErrorKind> {
        if u64::from(count) > self.left() {
            return Err(DecodeErrorKind::Truncated);
        }
        self.skip(count);
        Ok(())
    }

    /// Goes back to a position that was read before.
    pub(super) fn rewind(&mut self, position: u64) {
        debug_assert!(position <= self.position);
        self.position = position;
    }

    /// Reads `count` bits, right-aligned; `count <= 64`.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] if fewer are left.
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> Result<u64, DecodeErrorKind> {
        debug_assert!(count <= 64);
        if u64::from(count) > self.left() {
            return Err(DecodeErrorKind::Truncated);
        }
        if count <= 57 {
            let value = top_bits(self.window(), count);
            self.skip(count);
            return Ok(value);
        }
        let high = top_bits(self.window(), 32);
        self.skip(32);
        let low = top_bits(self.window(), count - 32);
        self.skip(count - 32);
        Ok(high << (count - 32) | low)
    }

    /// Reads one bit.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] if none is left.
    #[inline]
    pub(super) fn take_bit(&mut self) -> Result<bool, DecodeErrorKind> {
        Ok(self.take(1)? == 1)
    }
}

/// The last bytes, fewer than 8, as the high end of a word.
#[cold]
fn padded_word(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().rev().fold(0, |word, byte| word >> 8 | u64::from(*byte) << 56)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of every width at every alignment.
    fn fields() -> Vec<(u64, u32)> {
        let mut fields = Vec::new();
        for lead in 1..=64u32 {
            for count in 1..=64u32 {
                for pattern in [u64::MAX, 0x9e37_79b9_7f4a_7c15, 1] {
                    fields.push((1, lead));
                    fields.push((pattern & u64::MAX >> (64 - count), count));
                }
            }
        }
        fields
    }

    #[test]
    fn fields_of_every_width_and_alignment_come_back() {
        let mut writer = BitWriter::default();
        for (value, count) in fields() {
            writer.put(value, count);
        }
        let mut bytes = Vec::new();
        writer.finish_into(1, 1, &mut bytes);
        let mut reader = BitReader::new(&bytes);
        for (value, count) in fields() {
            assert_eq!(reader.take(count), Ok(value));
        }
        assert_eq!(reader.take_bit(), Ok(true));
        assert!(reader.left() < 8);
    }

    #[test]
    fn taking_whole_bytes_at_any_time_changes_nothing() {
        let mut one_piece = BitWriter::default();
        let mut pieces = BitWriter::default();
        let (mut expected, mut taken) = (Vec::new(), Vec::new());
        for (at, (value, count)) in fields().into_iter().enumerate() {
            one_piece.put(value, count);
            pieces.put(value, count);
            if at % 3 == 0 {
                let buffered = pieces.complete_bytes();
                let piece = pieces.take_complete();
                assert_eq!(piece.len(), buffered);
                assert_eq!(pieces.complete_bytes(), 0);
                assert_eq!(pieces.odd_bits(), one_piece.odd_bits());
                taken.extend(piece);
            }
        }
        one_piece.finish_into(0x5a5, 11, &mut expected);
        pieces.finish_into(0x5a5, 11, &mut taken);
        assert_eq!(taken, expected);
    }

    #[test]
    fn reading_past_the_end_fails_and_stays() {
        for len in 0..20 {
            let bytes = vec![0xff; len];
            let mut reader = BitReader::new(&bytes);
            let mut read = 0;
            while reader.left() >= 13 {
                assert_eq!(reader.take(13), Ok(0x1fff));
                read += 13;
            }
            assert_eq!(reader.take(13), Err(DecodeErrorKind::Truncated));
            assert_eq!(reader.position(), read);
            let rest = reader.left() as u32;
            assert_eq!(reader.take(rest), Ok((1 << rest) - 1));
            assert_eq!(reader.take(0), Ok(0));
            assert_eq!(reader.take_bit(), Err(DecodeErrorKind::Truncated));
        }
    }

    #[test]
    fn sign_extension_reads_two_s_complement() {
        assert_eq!(sign_extend(0x7f, 7), -1);
        assert_eq!(sign_extend(0x40, 7), -64);
        assert_eq!(sign_extend(0x3f, 7), 63);
        assert_eq!(sign_extend(u64::MAX, 64), -1);
        assert_eq!(sign_extend(0x8000_0000, 32), i64::from(i32::MIN));
    }
}
