//! Bit strings, most significant bit first, one bit at a time.

use std::ops::Range;

/// A string of bits that grows.
#[derive(Clone, Debug, Default)]
pub(super) struct BitString {
    bytes: Vec<u8>,
    /// Bits in it; those of the last byte that are beyond are 0.
    bits: u64,
}

impl BitString {
    /// Appends the lowest `count` bits of `value`, the highest of them first.
    pub(super) fn push(&mut self, value: u64, count: u32) {
        for place in (0..count).rev() {
            self.push_bit(value >> place & 1 == 1);
        }
    }

    fn push_bit(&mut self, bit: bool) {
        let place = self.bits % 8;
        if place == 0 {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << (7 - place);
        }
        self.bits += 1;
    }

    /// The bytes, the last one filled up with zeros.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A position in a string of bits.
#[derive(Clone, Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits read.
    pub(super) position: u64,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes, position: 0 }
    }

    /// How many bits the string has.
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64 * 8
    }

    /// Bits not read.
    pub(super) fn left(&self) -> u64 {
        self.len() - self.position
    }

    /// The next `count` bits, at most 64, as a number; `None` if there are fewer. The position stays.
    pub(super) fn peek(&self, count: u32) -> Option<u64> {
        let mut value = 0;
        for place in self.position..self.position + u64::from(count) {
            value = value << 1 | u64::from(bit_at(self.bytes, place)?);
        }
        Some(value)
    }

    /// As [`peek`](BitReader::peek), and goes past them if they are there.
    pub(super) fn read(&mut self, count: u32) -> Option<u64> {
        let value = self.peek(count)?;
        self.position += u64::from(count);
        Some(value)
    }
}

/// The bits of a stream in a range of places, as far as they exist: what a [`Field`](super::Field) looks like.
pub fn bits_of(stream: &[u8], places: Range<u64>) -> impl Iterator<Item = bool> {
    places.map_while(|place| bit_at(stream, place))
}

fn bit_at(bytes: &[u8], place: u64) -> Option<bool> {
    let byte = bytes.get(usize::try_from(place / 8).ok()?)?;
    Some(byte >> (7 - place % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_bit_comes_first_and_zeros_fill_the_last_byte() {
        let mut bits = BitString::default();
        bits.push(0b1, 1);
        bits.push(0b0000_0010, 8);
        bits.push(0, 0);
        bits.push(u64::MAX, 64);
        let bytes = bits.into_bytes();
        assert_eq!(bytes[..2], [0b1000_0001, 0b0111_1111]);
        assert_eq!((bytes.len(), bytes[9]), (10, 0b1000_0000));

        let mut reader = BitReader::new(&bytes);
        assert_eq!(reader.read(1), Some(1));
        assert_eq!(reader.peek(8), Some(2));
        assert_eq!(reader.read(8), Some(2));
        assert_eq!(reader.read(0), Some(0));
        assert_eq!(reader.read(64), Some(u64::MAX));
        assert_eq!(reader.left(), 7);
        assert_eq!(reader.read(8), None);
        assert_eq!(reader.position, 73);
        assert_eq!(reader.read(7), Some(0));
    }

    #[test]
    fn bits_end_where_the_stream_does() {
        let bits: Vec<bool> = bits_of(&[0b0000_0101], 5..20).collect();
        assert_eq!(bits, [true, false, true]);
    }
}
