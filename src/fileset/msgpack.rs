//! MessagePack, as far as M3's records need it.
//!
//! Writing takes the smallest form of each number, non-negative ones always the unsigned one: the bytes are M3's.
//! Reading takes every form, and skips what a newer writer added. Nothing is allocated for a length that was read.

use super::damage::Damage;

const NIL: u8 = 0xc0;
const BIN8: u8 = 0xc4;
const BIN16: u8 = 0xc5;
const BIN32: u8 = 0xc6;
const FLOAT64: u8 = 0xcb;
const FIXARRAY: u8 = 0x90;
const FIXARRAY_LEN_MAX: u8 = 15;
const FIXINT_MAX: u64 = 0x7f;

/// Appends a number.
pub(super) fn put_uint(out: &mut Vec<u8>, value: u64) {
    if value <= FIXINT_MAX {
        out.push(value as u8);
    } else if let Ok(value) = u8::try_from(value) {
        out.extend([0xcc, value]);
    } else if let Ok(value) = u16::try_from(value) {
        out.push(0xcd);
        out.extend(value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        out.push(0xce);
        out.extend(value.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend(value.to_be_bytes());
    }
}

/// Appends a number that may be negative.
pub(super) fn put_int(out: &mut Vec<u8>, value: i64) {
    if let Ok(value) = u64::try_from(value) {
        put_uint(out, value);
    } else if value >= -32 {
        out.push(value as u8);
    } else if let Ok(value) = i8::try_from(value) {
        out.extend([0xd0, value.cast_unsigned()]);
    } else if let Ok(value) = i16::try_from(value) {
        out.push(0xd1);
        out.extend(value.to_be_bytes());
    } else if let Ok(value) = i32::try_from(value) {
        out.push(0xd2);
        out.extend(value.to_be_bytes());
    } else {
        out.push(0xd3);
        out.extend(value.to_be_bytes());
    }
}

/// Appends bytes; the caller has checked that their length fits a `u32`.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(u32::try_from(bytes.len()).is_ok());
    if let Ok(len) = u8::try_from(bytes.len()) {
        out.extend([BIN8, len]);
    } else if let Ok(len) = u16::try_from(bytes.len()) {
        out.push(BIN16);
        out.extend(len.to_be_bytes());
    } else {
        out.push(BIN32);
        out.extend((bytes.len() as u32).to_be_bytes());
    }
    out.extend(bytes);
}

/// Appends bytes, or nil if there are none.
pub(super) fn put_bytes_or_nil(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() { out.push(NIL) } else { put_bytes(out, bytes) }
}

/// Appends the head of an array of up to 15 values.
pub(super) fn put_array(out: &mut Vec<u8>, len: u8) {
    debug_assert!(len <= FIXARRAY_LEN_MAX);
    out.push(FIXARRAY | len);
}

/// Reads values one after the other. Errors lie at the value that cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader of `bytes` from `at` on. Offsets are those in `bytes`.
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Reader { bytes, at }
    }

    /// The offset of the next value.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Whether all has been read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// All bytes from the offset `start` to the next value.
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    /// A number that is not negative.
    pub(crate) fn uint(&mut self) -> Result<u64, Damage> {
        let at = self.at;
        u64::try_from(self.number()?).map_err(|_| Damage::at(at, "a negative number"))
    }

    /// A number that fits a `u32`.
    pub(crate) fn uint32(&mut self) -> Result<u32, Damage> {
        let at = self.at;
        u32::try_from(self.number()?).map_err(|_| Damage::at(at, "a number outside its range"))
    }

    /// A number that fits an `i64`.
    pub(crate) fn int(&mut self) -> Result<i64, Damage> {
        let at = self.at;
        i64::try_from(self.number()?).map_err(|_| Damage::at(at, "a number outside its range"))
    }

    /// A floating-point number.
    pub(crate) fn float(&mut self) -> Result<f64, Damage> {
        let at = self.at;
        match self.byte()? {
            FLOAT64 => Ok(f64::from_bits(self.big_endian(8)?)),
            _ => Err(Damage::at(at, "not a floating-point number")),
        }
    }

    /// Bytes; nil is none.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Damage> {
        let at = self.at;
        let len = match self.byte()? {
            NIL => 0,
            BIN8 => self.big_endian(1)?,
            BIN16 => self.big_endian(2)?,
            BIN32 => self.big_endian(4)?,
            _ => return Err(Damage::at(at, "not a string of bytes")),
        };
        self.take(len).map_err(|_| Damage::at(at, "more bytes than there are left"))
    }

    /// The number of values in an array, whose values follow.
    pub(crate) fn array(&mut self) -> Result<u64, Damage> {
        let at = self.at;
        match self.byte()? {
            head @ 0x90..=0x9f => Ok(u64::from(head & FIXARRAY_LEN_MAX)),
            0xdc => self.big_endian(2),
            0xdd => self.big_endian(4),
            _ => Err(Damage::at(at, "not an array")),
        }
    }

    /// Passes over `count` values of any kind.
    ///
    /// Cost: each value takes at least a byte, so a false count ends with the bytes.
    pub(crate) fn skip(&mut self, mut count: u64) -> Result<(), Damage> {
        while count > 0 {
            count -= 1;
            let at = self.at;
            let (payload, values) = match self.byte()? {
                0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (0, 0),
                head @ 0x80..=0x8f => (0, 2 * u64::from(head & 0x0f)),
                head @ 0x90..=0x9f => (0, u64::from(head & 0x0f)),
                head @ 0xa0..=0xbf => (u64::from(head & 0x1f), 0),
                0xc4 | 0xd9 => (self.big_endian(1)?, 0),
                0xc5 | 0xda => (self.big_endian(2)?, 0),
                0xc6 | 0xdb => (self.big_endian(4)?, 0),
                0xc7 => (1 + self.big_endian(1)?, 0),
                0xc8 => (1 + self.big_endian(2)?, 0),
                0xc9 => (1 + self.big_endian(4)?, 0),
                0xcc | 0xd0 => (1, 0),
                0xcd | 0xd1 => (2, 0),
                0xca | 0xce | 0xd2 => (4, 0),
                0xcb | 0xcf | 0xd3 => (8, 0),
                head @ 0xd4..=0xd8 => (1 + (1 << (head - 0xd4)), 0),
                0xdc => (0, self.big_endian(2)?),
                0xdd => (0, self.big_endian(4)?),
                0xde => (0, 2 * self.big_endian(2)?),
                0xdf => (0, 2 * self.big_endian(4)?),
                0xc1 => return Err(Damage::at(at, "not a value")),
            };
            self.take(payload)?;
            count = count.saturating_add(values);
        }
        Ok(())
    }

    fn number(&mut self) -> Result<i128, Damage> {
        let at = self.at;
        Ok(match self.byte()? {
            head @ 0x00..=0x7f => head.into(),
            head @ 0xe0..=0xff => head.cast_signed().into(),
            0xcc => self.big_endian(1)?.into(),
            0xcd => self.big_endian(2)?.into(),
            0xce => self.big_endian(4)?.into(),
            0xcf => self.big_endian(8)?.into(),
            0xd0 => (self.big_endian(1)? as i8).into(),
            0xd1 => (self.big_endian(2)? as i16).into(),
            0xd2 => (self.big_endian(4)? as i32).into(),
            0xd3 => self.big_endian(8)?.cast_signed().into(),
            _ => return Err(Damage::at(at, "not a whole number")),
        })
    }

    fn byte(&mut self) -> Result<u8, Damage> {
        let byte = self.bytes.get(self.at).ok_or(Damage::at(self.at, "ends within a record"))?;
        self.at += 1;
        Ok(*byte)
    }

    fn big_endian(&mut self, width: u64) -> Result<u64, Damage> {
        Ok(self.take(width)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Damage> {
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(Damage::at(self.at, "ends within a record"))?;
        self.at += taken.len();
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int_bytes(value: i64) -> Vec<u8> {
        let mut out = Vec::new();
        put_int(&mut out, value);
        out
    }

    #[test]
    fn numbers_take_their_smallest_form() {
        let cases: [(i64, &[u8]); 17] = [
            (0, &[0]),
            (127, &[0x7f]),
            (128, &[0xcc, 0x80]),
            (255, &[0xcc, 0xff]),
            (256, &[0xcd, 1, 0]),
            (65_535, &[0xcd, 0xff, 0xff]),
            (65_536, &[0xce, 0, 1, 0, 0]),
            (u32::MAX.into(), &[0xce, 0xff, 0xff, 0xff, 0xff]),
            (1 << 32, &[0xcf, 0, 0, 0, 1, 0, 0, 0, 0]),
            (-1, &[0xff]),
            (-32, &[0xe0]),
            (-33, &[0xd0, 0xdf]),
            (-128, &[0xd0, 0x80]),
            (-129, &[0xd1, 0xff, 0x7f]),
            (-32_769, &[0xd2, 0xff, 0xff, 0x7f, 0xff]),
            (i32::MIN.into(), &[0xd2, 0x80, 0, 0, 0]),
            (i64::MIN, &[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ];
        for (value, bytes) in cases {
            assert_eq!(int_bytes(value), bytes, "{value}");
        }
    }

    #[test]
    fn written_values_are_read_and_skipped() {
        let numbers = [0, 1, -1, -32, -33, i64::MIN, i64::MAX, 1 << 31, -(1 << 31) - 1, 300, -300];
        let strings = [vec![], vec![7], vec![1; 255], vec![2; 256], vec![3; 65_535], vec![4; 65_536]];
        let mut out = Vec::new();
        numbers.iter().for_each(|number| put_int(&mut out, *number));
        put_uint(&mut out, u64::MAX);
        strings.iter().for_each(|bytes| put_bytes(&mut out, bytes));
        put_bytes_or_nil(&mut out, b"");
        put_array(&mut out, 2);
        put_uint(&mut out, 1);
        put_uint(&mut out, 2);
        let mut reader = Reader::new(&out, 0);
        numbers.iter().for_each(|number| assert_eq!(reader.int(), Ok(*number)));
        assert_eq!(reader.uint(), Ok(u64::MAX));
        strings.iter().for_each(|bytes| assert_eq!(reader.bytes(), Ok(&bytes[..])));
        assert_eq!(reader.bytes(), Ok(&b""[..]));
        assert_eq!(reader.array(), Ok(2));
        assert_eq!((reader.uint32(), reader.uint32()), (Ok(1), Ok(2)));
        assert!(reader.is_at_end());
        let mut reader = Reader::new(&out, 0);
        let values = numbers.len() + 1 + strings.len() + 2;
        assert_eq!(reader.skip(values as u64), Ok(()));
        assert!(reader.is_at_end());
    }

    #[test]
    fn every_kind_of_value_can_be_skipped() {
        let mut values: Vec<Vec<u8>> = vec![
            vec![0x81, 1, 0xa1, b'x'],
            vec![0x92, 0x91, 0xc0, 0xc2],
            vec![0xc7, 2, 0, 1, 2],
            vec![0xc8, 0, 1, 0, 1],
            vec![0xc9, 0, 0, 0, 1, 0, 1],
            vec![0xd9, 1, b'x'],
            vec![0xda, 0, 1, b'x'],
            vec![0xdb, 0, 0, 0, 1, b'x'],
            vec![0xdc, 0, 1, 5],
            vec![0xdd, 0, 0, 0, 1, 5],
            vec![0xde, 0, 1, 5, 5],
            vec![0xdf, 0, 0, 0, 1, 5, 5],
        ];
        for (head, payload) in [(0xca, 4), (0xcb, 8), (0xd4, 2), (0xd5, 3), (0xd6, 5), (0xd7, 9), (0xd8, 17)]
        {
            values.push([vec![head], vec![0; payload]].concat());
        }
        for value in values {
            let mut reader = Reader::new(&value, 0);
            assert_eq!(reader.skip(1), Ok(()), "{value:x?}");
            assert!(reader.is_at_end(), "{value:x?}");
            for len in 0..value.len() {
                assert!(Reader::new(&value[..len], 0).skip(1).is_err(), "{value:x?} cut to {len}");
            }
        }
        assert!(Reader::new(&[0xc1], 0).skip(1).is_err());
        assert!(Reader::new(&[0xdd, 0xff, 0xff, 0xff, 0xff, 0], 0).skip(u64::MAX).is_err());
    }

    #[test]
    fn values_of_another_kind_are_damage_at_their_place() {
        let float = [&[FLOAT64][..], &1.5_f64.to_be_bytes()].concat();
        assert_eq!(Reader::new(&float, 0).float(), Ok(1.5));
        assert!(Reader::new(&float[..8], 0).float().is_err());
        assert!(Reader::new(&[1], 0).float().is_err());
        let mut reader = Reader::new(&[0, 0xff, 0xce, 0xff], 1);
        assert_eq!(reader.uint(), Err(Damage::at(1, "a negative number")));
        assert_eq!(reader.array(), Err(Damage::at(2, "not an array")));
        assert_eq!(
            Reader::new(&[0xc4, 2, 0], 0).bytes(),
            Err(Damage::at(0, "more bytes than there are left"))
        );
        assert!(Reader::new(&[0xce, 0xff], 0).uint().is_err());
        assert!(Reader::new(&[0xcf, 1, 0, 0, 0, 0, 0, 0, 0], 0).uint32().is_err());
        assert!(Reader::new(&[0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0], 0).int().is_err());
        assert!(Reader::new(&[0xa0], 0).bytes().is_err());
        assert!(Reader::new(&[0xc0], 0).int().is_err());
    }
}
