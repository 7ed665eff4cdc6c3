//! Tags and the canonical metric ID `name{key="value",..}`.
//!
//! Keys are sorted and unique. In a value `\` stands before `"` and `\`, and a line feed is written `\n`. A name has none of
//! `{ } "`, a key is not empty and has none of `{ } " , =`. Parsing what was canonical gives the same name and tags; anything
//! that does not parse is an opaque ID without tags.

use crate::error::{Error, Result};

/// The most bytes that a metric's keys and values may have together.
const TAGS_BYTES_MAX: usize = 65_536;

/// Sorted, unique tags: their keys and values behind each other, each with its length before it. One allocation, as a million metrics
/// may have some.
///
/// A length is an LEB128 number, as short as can be, so equal tags are equal bytes. A names file has the same bytes
/// (`design/checkpoint.md`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tags(Box<[u8]>);

impl Tags {
    pub(crate) fn none() -> Self {
        Tags::default()
    }

    /// Any keys and values, sorted here.
    ///
    /// # Errors
    /// [`Error::InvalidTags`] for a key given twice, or too many bytes.
    pub(crate) fn new(tags: &[(&[u8], &[u8])]) -> Result<Self> {
        let bytes: usize = tags.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > TAGS_BYTES_MAX {
            return Err(Error::InvalidTags { reason: "more than 64 KiB of keys and values" });
        }
        let mut sorted = tags.to_vec();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| matches!(pair, [a, b] if a.0 == b.0)) {
            return Err(Error::InvalidTags { reason: "a key is given twice" });
        }
        let mut encoded = Vec::with_capacity(bytes + 2 * tags.len());
        for (key, value) in sorted {
            put_text(&mut encoded, key);
            put_text(&mut encoded, value);
        }
        Ok(Tags(encoded.into()))
    }

    /// What [`Tags::encoded`] gave once.
    ///
    /// # Errors
    /// What is wrong with the bytes: they are no tags that [`Tags::new`] makes.
    pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<Self, &'static str> {
        let mut rest = bytes;
        let mut before: Option<&[u8]> = None;
        let mut total = 0;
        while !rest.is_empty() {
            let (key, value) = take_tag(&mut rest).ok_or("a tag's length is impossible")?;
            if before.is_some_and(|before| before >= key) {
                return Err("the tags are not sorted");
            }
            total += key.len() + value.len();
            before = Some(key);
        }
        if total > TAGS_BYTES_MAX { Err("the tags are too long") } else { Ok(Tags(bytes.into())) }
    }

    /// The bytes that [`Tags::decode`] takes; none if there are no tags.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.0
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

    /// What [`Tags::encoded`] gave in this process.
    pub(super) fn of_encoded(bytes: &[u8]) -> Self {
        debug_assert!(Tags::decode(bytes).is_ok());
        Tags(bytes.into())
    }

    /// The tags that an ID says, in any order; none if it is not of that form.
    pub(crate) fn said_by(id: &[u8]) -> Self {
        if !is_canonical(id) {
            return Tags::parse(id).map_or_else(Tags::none, |(_, tags)| tags);
        }
        let mut encoded = Vec::with_capacity(id.len());
        let _ = walk(id, |key, value| {
            put_text(&mut encoded, key);
            match value.contains(&b'\\') {
                // It was walked over.
                true => put_text(&mut encoded, &parse_value(value).map_or_else(Vec::new, |(value, _)| value)),
                false => put_text(&mut encoded, &value[..value.len() - 1]),
            }
        });
        Tags(encoded.into())
    }

    /// These tags, unless they are those that the ID says.
    pub(crate) fn unless_said_by(self, id: &[u8]) -> Option<Self> {
        (!are_canonical_in(&self.0, id) && self != Tags::said_by(id)).then_some(self)
    }

    /// As [`Tags::decode`] and [`Tags::unless_said_by`], without an allocation where the ID is canonical.
    ///
    /// # Errors
    /// As [`Tags::decode`].
    pub(super) fn decode_unless_said_by(
        bytes: &[u8],
        id: &[u8],
    ) -> std::result::Result<Option<Self>, &'static str> {
        match are_canonical_in(bytes, id) {
            true => Ok(None),
            false => Ok(Tags::decode(bytes)?.unless_said_by(id)),
        }
    }

    /// The canonical form of an ID, if it has one that is another.
    pub(crate) fn other_spelling(id: &[u8]) -> Option<Vec<u8>> {
        if is_canonical(id) {
            return None;
        }
        Tags::parse(id).map(|(canonical, _)| canonical).filter(|canonical| canonical != id)
    }

    /// Keys and values, in order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        let mut rest = &*self.0;
        let len = std::iter::from_fn(|| take_tag(&mut rest)).count();
        let mut rest = &*self.0;
        // There are so many.
        (0..len).map(move |_| take_tag(&mut rest).unwrap_or_default())
    }
}

/// Puts bytes behind their length.
fn put_text(to: &mut Vec<u8>, text: &[u8]) {
    let mut len = text.len();
    while len >= 0x80 {
        to.push(len as u8 | 0x80);
        len >>= 7;
    }
    to.push(len as u8);
    to.extend_from_slice(text);
}

/// Takes what [`put_text`] put from the front; `None` if it put no such bytes, or nothing as long as tags can be.
#[inline]
fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = match **bytes {
        [len @ ..0x80, ref rest @ ..] => (len as usize, rest),
        [low, high @ 1..0x80, ref rest @ ..] => (low as usize & 0x7f | (high as usize) << 7, rest),
        [low, middle @ 0x80..=0xff, high @ 1..0x80, ref rest @ ..] => {
            (low as usize & 0x7f | (middle as usize & 0x7f) << 7 | (high as usize) << 14, rest)
        }
        _ => return None,
    };
    let (text, behind) = rest.split_at_checked(len)?;
    *bytes = behind;
    Some(text)
}

/// Takes a key and its value from the front.
#[inline]
fn take_tag<'a>(bytes: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    Some((take_text(bytes)?, take_text(bytes)?))
}

/// Whether an ID has tags and is in the canonical form.
fn is_canonical(id: &[u8]) -> bool {
    walk(id, |_, _| ()).is_some()
}

/// Visits the tags of a canonical ID in order, each value as it is written, with its closing quote. `None` if the ID is none; then perhaps some were
/// visited.
#[inline]
fn walk<'a>(id: &'a [u8], mut visit: impl FnMut(&'a [u8], &'a [u8])) -> Option<()> {
    let mut rest = behind_name(id)?;
    let mut before: &[u8] = &[];
    loop {
        let equals = rest.iter().position(|byte| b"{}\",=".contains(byte))?;
        let (key, behind) = rest.split_at(equals);
        // So it is not empty, either.
        if key <= before {
            return None;
        }
        before = key;
        let text = behind.strip_prefix(b"=\"")?;
        let mut end = 0;
        loop {
            match text.get(end..)? {
                [b'"', ..] => break,
                [b'\\', b'"' | b'\\' | b'n', ..] => end += 2,
                [b'\\' | b'\n', ..] | [] => return None,
                _ => end += 1,
            }
        }
        let (value, behind) = text.split_at(end + 1);
        visit(key, value);
        match behind {
            [b',', more @ ..] => rest = more,
            [b'}'] => return Some(()),
            _ => return None,
        }
    }
}

/// Whether encoded tags, at least one, are those of a canonical ID, and so sound. `false` also for some that are: with escapes in them.
fn are_canonical_in(encoded: &[u8], id: &[u8]) -> bool {
    let (Some(mut id), mut encoded) = (behind_name(id), encoded) else {
        return encoded.is_empty() && !id.contains(&b'{');
    };
    let mut before: &[u8] = &[];
    loop {
        let Some((key, value)) = take_tag(&mut encoded) else { return false };
        if key <= before || !is_key(key) || value.iter().any(|byte| b"\"\\\n".contains(byte)) {
            return false;
        }
        before = key;
        let behind = id.strip_prefix(key).and_then(|id| id.strip_prefix(b"=\""));
        let behind = behind.and_then(|id| id.strip_prefix(value)).and_then(|id| id.strip_prefix(b"\""));
        match behind {
            Some([b',', more @ ..]) => id = more,
            Some(b"}") => return encoded.is_empty(),
            _ => return false,
        }
    }
}

/// What follows the name and the brace of an ID, if it begins as a canonical one with tags.
#[inline]
fn behind_name(id: &[u8]) -> Option<&[u8]> {
    let open = id.iter().position(|byte| b"{}\"".contains(byte))?;
    id.get(open..)?.strip_prefix(b"{")
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

    /// Values, those whose lengths take 1, 2 and 3 bytes among them.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        let len = prop_oneof![8 => 0..10_usize, 2 => 120..140_usize, 1 => 7_000..8_000_usize];
        (len, any::<u8>()).prop_map(|(len, byte)| vec![byte; len])
    }

    proptest! {
        /// What is read without building the canonical form is what that says.
        #[test]
        fn canonical_ids_are_known_as_such(id in r#"[am]?\{?([ab]=?"([xy]|\\["\\n]|\n|\{)?",?){0,3}\}?[a"]?"#) {
            let id = id.as_bytes();
            let parsed = Tags::parse(id);
            let canonical = parsed.as_ref().is_some_and(|(canonical, _)| canonical == id);
            prop_assert_eq!(is_canonical(id), canonical);
            let tags = parsed.clone().map_or_else(Tags::none, |(_, tags)| tags);
            prop_assert_eq!(&Tags::said_by(id), &tags);
            prop_assert_eq!(Tags::other_spelling(id), parsed.map(|(canonical, _)| canonical).filter(|canonical| canonical != id));
            prop_assert_eq!(Tags::decode_unless_said_by(tags.encoded(), id), Ok(None));
            prop_assert_eq!(tags.unless_said_by(id), None);
        }

        /// Tags that an ID does not say are kept, whatever they look like behind each other, and damage is noticed.
        #[test]
        fn own_tags_are_kept(
            id in r#"m\{[ab]="[xy]?"(,[bc]="x")?\}"#,
            tags in prop::collection::vec((r#"[ab](="x",b)?"#, r#"[xy"]?"#), 0..3),
            cut in 0..4usize,
        ) {
            let list: Vec<(&[u8], &[u8])> = tags.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())).collect();
            if let Ok(tags) = Tags::new(&list) {
                let own = (tags != Tags::said_by(id.as_bytes())).then(|| tags.clone());
                prop_assert_eq!(&Tags::decode_unless_said_by(tags.encoded(), id.as_bytes()), &Ok(own.clone()));
                prop_assert_eq!(&tags.clone().unless_said_by(id.as_bytes()), &own);
                let damaged = &tags.encoded()[cut.min(tags.encoded().len())..];
                let decoded = Tags::decode_unless_said_by(damaged, id.as_bytes());
                prop_assert_eq!(decoded.is_err(), Tags::decode(damaged).is_err());
            }
        }
    }

    #[test]
    fn tags_are_as_long_as_they_may_be_and_no_longer() {
        let long = vec![b'v'; TAGS_BYTES_MAX];
        for (key, value) in [(&b""[..], &long[..]), (&long, b""), (&long[..16_384], &long[16_384..])] {
            let tags = Tags::new(&[(key, value)]).expect("64 KiB");
            assert!(tags.iter().eq([(key, value)]));
            assert_eq!(Tags::decode(tags.encoded()), Ok(tags));
        }
        assert!(matches!(Tags::new(&[(b"k", &long)]), Err(Error::InvalidTags { .. })));
        let mut too_long = Vec::new();
        put_text(&mut too_long, b"k");
        put_text(&mut too_long, &long);
        assert_eq!(Tags::decode(&too_long), Err("the tags are too long"));
    }

    #[test]
    fn bytes_that_are_no_tags_are_refused() {
        let cases: [&[u8]; 7] = [
            b"\x01",
            b"\x01k",
            b"\x01k\x02v",
            b"\x80\x00\x00",
            b"\x01k\xff",
            b"\xff\xff\xff\x01",
            b"\x00\xff\xff\x7f",
        ];
        for bytes in cases {
            assert_eq!(Tags::decode(bytes), Err("a tag's length is impossible"), "{bytes:?}");
        }
        for bytes in [b"\x01k\x00\x01k\x00", b"\x01l\x00\x01k\x00"] {
            assert_eq!(Tags::decode(bytes), Err("the tags are not sorted"));
        }
    }

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
        fn tags_of_any_bytes_are_kept(
            tags in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..4), value(), 0..8),
        ) {
            let pairs: Vec<(&[u8], &[u8])> = tags.iter().map(|(k, v)| (&k[..], &v[..])).collect();
            let reversed: Vec<_> = pairs.iter().rev().copied().collect();
            let made = Tags::new(&reversed).unwrap();
            prop_assert_eq!(made.iter().len(), pairs.len());
            prop_assert!(made.iter().eq(pairs));
            prop_assert_eq!(Tags::decode(made.encoded()), Ok(made));
        }

        #[test]
        fn bytes_that_decode_are_those_of_tags(bytes in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..24)) {
            if let Ok(tags) = Tags::decode(&bytes) {
                let pairs: Vec<_> = tags.iter().collect();
                prop_assert_eq!(Tags::new(&pairs).unwrap(), tags.clone());
                prop_assert_eq!(tags.encoded(), &bytes[..]);
            }
        }

        #[test]
        fn any_bytes_parse_without_a_panic(id in prop::collection::vec(any::<u8>(), 0..64)) {
            Tags::parse(&id);
        }
    }
}
