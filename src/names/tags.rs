//! Tags and the canonical metric ID `name{key="value",..}`.
//!
//! Keys are sorted and unique. In a value `\` stands before `"` and `\`, and a line feed is written `\n`. A name has none of
//! `{ } "`, a key is not empty and has none of `{ } " , =`. Parsing what was canonical gives the same name and tags; anything
//! that does not parse is an opaque ID without tags.

use crate::error::{Error, Result};

/// The most bytes that a metric's keys and values may have together.
const TAGS_BYTES_MAX: usize = 65_536;

/// Sorted, unique tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tags(Box<[Tag]>);

/// A key and its value.
type Tag = (Box<[u8]>, Box<[u8]>);

impl Tags {
    pub(crate) fn none() -> Self {
        Tags::default()
    }

    /// Any keys and values, sorted here.
    ///
    /// # Errors
    /// [`Error::InvalidTags`] for a key given twice, or too many bytes.
    pub(crate) fn new(tags: &[(&[u8], &[u8])]) -> Result<Self> {
        let mut tags: Vec<Tag> = tags.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let bytes: usize = tags.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > TAGS_BYTES_MAX {
            return Err(Error::InvalidTags { reason: "more than 64 KiB of keys and values" });
        }
        tags.sort();
        if tags.windows(2).any(|pair| matches!(pair, [a, b] if a.0 == b.0)) {
            return Err(Error::InvalidTags { reason: "a key is given twice" });
        }
        Ok(Tags(tags.into()))
    }

    /// The canonical ID of a name and tags.
    ///
    /// # Errors
    /// [`Error::InvalidTags`] if they have no canonical form.
    pub(crate) fn canonical(name: &[u8], tags: &[(&[u8], &[u8])]) -> Result<(Vec<u8>, Self)> {
        if name.iter().any(|byte| b"{}\"".contains(byte)) {
            return Err(Error::InvalidTags { reason: "a name with tags has no { } or \"" });
        }
        if tags.iter().any(|(key, _)| !is_key(key)) {
            return Err(Error::InvalidTags { reason: "a key is not empty and has no { } \" , or =" });
        }
        let tags = Tags::new(tags)?;
        if tags.0.is_empty() {
            return Ok((name.to_vec(), tags));
        }
        let mut id = name.to_vec();
        for (i, (key, value)) in tags.iter().enumerate() {
            id.push(if i == 0 { b'{' } else { b',' });
            id.extend_from_slice(key);
            id.extend_from_slice(b"=\"");
            for &byte in value {
                match byte {
                    b'"' | b'\\' => id.extend_from_slice(&[b'\\', byte]),
                    b'\n' => id.extend_from_slice(b"\\n"),
                    _ => id.push(byte),
                }
            }
            id.push(b'"');
        }
        id.push(b'}');
        Ok((id, tags))
    }

    /// Reads `name{key="value",..}` with the tags in any order. Returns the canonical ID; `None` if it is not of this form.
    pub(crate) fn parse(id: &[u8]) -> Option<(Vec<u8>, Self)> {
        let open = id.iter().position(|&byte| byte == b'{')?;
        let (name, mut rest) = (id.get(..open)?, id.get(open + 1..)?);
        let mut pairs: Vec<(&[u8], Vec<u8>)> = Vec::new();
        loop {
            let equals = rest.iter().position(|&byte| byte == b'=')?;
            let key = rest.get(..equals)?;
            rest = rest.get(equals + 1..)?.strip_prefix(b"\"")?;
            let (value, after) = parse_value(rest)?;
            pairs.push((key, value));
            match after {
                [b',', more @ ..] => rest = more,
                [b'}'] => break,
                _ => return None,
            }
        }
        let borrowed: Vec<(&[u8], &[u8])> =
            pairs.iter().map(|(key, value)| (*key, value.as_slice())).collect();
        Tags::canonical(name, &borrowed).ok()
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

fn is_key(key: &[u8]) -> bool {
    !key.is_empty() && !key.iter().any(|byte| b"{}\",=".contains(byte))
}

/// A value up to its closing quote, and what follows.
fn parse_value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut rest = text;
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some((value, after)),
            [b'\\', escaped @ (b'"' | b'\\'), after @ ..] => {
                value.push(*escaped);
                after
            }
            [b'\\', b'n', after @ ..] => {
                value.push(b'\n');
                after
            }
            [b'\\' | b'\n', ..] | [] => return None,
            [byte, after @ ..] => {
                value.push(*byte);
                after
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_of_the_form_is_opaque() {
        for id in
            ["cpu", "cpu{", "cpu{}", "cpu{a=0 b=1}", "cpu{a=\"1\"", "cpu{a=\"1\"}x", "cpu{a=\"1\",a=\"2\"}"]
        {
            assert_eq!(Tags::parse(id.as_bytes()), None, "{id}");
        }
        for id in ["cpu{=\"1\"}", "cpu{a=\"\\x\"}", "c\"pu{a=\"1\"}", "{a=\"1\"}}"] {
            assert_eq!(Tags::parse(id.as_bytes()), None, "{id}");
        }
    }

    #[test]
    fn names_and_keys_that_would_be_ambiguous_are_refused() {
        assert!(matches!(Tags::canonical(b"a{", &[(b"k", b"v")]), Err(Error::InvalidTags { .. })));
        assert!(matches!(Tags::canonical(b"a", &[(b"", b"v")]), Err(Error::InvalidTags { .. })));
        assert!(matches!(Tags::canonical(b"a", &[(b"k=", b"v")]), Err(Error::InvalidTags { .. })));
        assert!(matches!(
            Tags::canonical(b"a", &[(b"k", b"v"), (b"k", b"w")]),
            Err(Error::InvalidTags { .. })
        ));
    }

    proptest! {
        #[test]
        fn the_canonical_form_parses_back(
            name in "[a-z_:=,]{0,8}",
            tags in prop::collection::btree_map("[a-z\\\\ ]{1,4}", prop::collection::vec(any::<u8>(), 0..12), 1..4),
        ) {
            let pairs: Vec<(&[u8], &[u8])> = tags.iter().map(|(k, v)| (k.as_bytes(), v.as_slice())).rev().collect();
            let (id, canonical) = Tags::canonical(name.as_bytes(), &pairs).unwrap();
            let (again, parsed) = Tags::parse(&id).unwrap();
            prop_assert_eq!(&again, &id);
            prop_assert_eq!(&parsed, &canonical);
            prop_assert_eq!(parsed.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect::<Vec<_>>(),
                tags.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.clone())).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_parse_without_a_panic(id in prop::collection::vec(any::<u8>(), 0..64)) {
            Tags::parse(&id);
        }
    }
}
