//! Tags as bytes: `75 27`, their number, then name and value of each behind its length; all numbers are 16 bits, little endian.
//!
//! No tags are no bytes. M3 sorts tags by name before it encodes them; here they stay as they are given.

use super::damage::Damage;
use crate::error::{Error, Result};

const MAGIC: u16 = 10101;
/// The bytes of the shortest tag: two lengths.
const TAG_BYTES_MIN: usize = 4;

/// A tag: name and value.
pub type Tag<'a> = (&'a [u8], &'a [u8]);

/// Encodes tags as M3 does; no tags are no bytes.
///
/// # Errors
/// [`Error::InvalidTags`] if a name is empty or there are more than 65,535 tags; [`Error::TooLong`] if a name or a
/// value has more than 65,535 bytes.
pub fn encode_tags(tags: &[Tag<'_>]) -> Result<Vec<u8>> {
    if tags.is_empty() {
        return Ok(Vec::new());
    }
    let Ok(count) = u16::try_from(tags.len()) else {
        return Err(Error::InvalidTags { reason: "more than 65,535" });
    };
    let mut out = Vec::new();
    out.extend(MAGIC.to_le_bytes());
    out.extend(count.to_le_bytes());
    for (name, value) in tags {
        if name.is_empty() {
            return Err(Error::InvalidTags { reason: "a name is empty" });
        }
        for (what, literal) in [("a tag's name", name), ("a tag's value", value)] {
            let Ok(len) = u16::try_from(literal.len()) else {
                return Err(Error::TooLong { what, len: literal.len(), max: u16::MAX.into() });
            };
            out.extend(len.to_le_bytes());
            out.extend(*literal);
        }
    }
    Ok(out)
}

/// The tags in `bytes`. Damage lies at an offset in `bytes`.
pub(crate) fn decode_tags(bytes: &[u8]) -> Result<Vec<Tag<'_>>, Damage> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = TagReader { bytes, at: 0 };
    if reader.number()? != MAGIC {
        return Err(Damage::at(0, "not encoded tags"));
    }
    let count = usize::from(reader.number()?);
    let mut tags = Vec::with_capacity(count.min(bytes.len() / TAG_BYTES_MIN));
    for _ in 0..count {
        let at = reader.at;
        let name = reader.literal()?;
        if name.is_empty() {
            return Err(Damage::at(at, "a tag's name is empty"));
        }
        tags.push((name, reader.literal()?));
    }
    if reader.at != bytes.len() {
        return Err(Damage::at(reader.at, "bytes behind the last tag"));
    }
    Ok(tags)
}

struct TagReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> TagReader<'a> {
    fn number(&mut self) -> Result<u16, Damage> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let number = rest.first_chunk().ok_or(Damage::at(self.at, "ends within the tags"))?;
        self.at += number.len();
        Ok(u16::from_le_bytes(*number))
    }

    fn literal(&mut self) -> Result<&'a [u8], Damage> {
        let len = usize::from(self.number()?);
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let literal = rest.get(..len).ok_or(Damage::at(self.at, "ends within the tags"))?;
        self.at += len;
        Ok(literal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGS: [Tag<'_>; 2] = [(b"host", b"a"), (b"zone", b"")];

    #[test]
    fn tags_are_bytes_and_back() {
        let bytes = encode_tags(&TAGS).expect("fine");
        assert_eq!(bytes, b"\x75\x27\x02\x00\x04\x00host\x01\x00a\x04\x00zone\x00\x00");
        assert_eq!(decode_tags(&bytes), Ok(TAGS.to_vec()));
        assert_eq!(encode_tags(&[]).expect("fine"), b"");
        assert_eq!(decode_tags(b""), Ok(Vec::new()));
    }

    #[test]
    fn impossible_tags_are_refused() {
        let long = vec![b'x'; 65_536];
        assert!(matches!(encode_tags(&[(b"", b"a")]), Err(Error::InvalidTags { .. })));
        assert!(matches!(encode_tags(&[(b"a", &long)]), Err(Error::TooLong { len: 65_536, .. })));
        assert!(matches!(encode_tags(&[(&long, b"a")]), Err(Error::TooLong { .. })));
        assert!(matches!(encode_tags(&vec![TAGS[0]; 65_536]), Err(Error::InvalidTags { .. })));
        assert!(encode_tags(&[(b"a", &long[1..])]).is_ok());
    }

    #[test]
    fn damaged_tags_are_refused_and_cost_no_memory() {
        let bytes = encode_tags(&TAGS).expect("fine");
        for len in 1..bytes.len() {
            assert!(decode_tags(&bytes[..len]).is_err(), "{len}");
        }
        assert!(decode_tags(&[&bytes[..], b"x"].concat()).is_err());
        assert!(decode_tags(b"\x75\x27\xff\xff").is_err());
        assert!(decode_tags(b"\x75\x28\x00\x00").is_err());
        assert!(decode_tags(b"\x75\x27\x01\x00\x00\x00\x00\x00").is_err());
    }
}
