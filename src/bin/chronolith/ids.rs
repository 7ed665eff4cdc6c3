//! Metric IDs as text. An ID is any bytes; what is printed must be readable and must not confuse a terminal or a parser.

use std::borrow::Cow;
use std::fmt::Write;

use chronolith::Metric;
use serde_json::{Map, Value, json};

/// In pure ASCII: `\t`, `\n`, `\\`, and every byte outside `0x20..=0x7e` as `\xNN`. For `dump`, whose lines are compared byte by byte.
pub(crate) fn ascii(id: &[u8]) -> String {
    let mut text = String::with_capacity(id.len());
    for &byte in id {
        push_byte(&mut text, byte);
    }
    text
}

/// For people: as [`ascii`], but printable characters of valid UTF-8 stay what they are.
pub(crate) fn readable(id: &[u8]) -> String {
    let mut text = String::with_capacity(id.len());
    for chunk in id.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_ascii() {
                push_byte(&mut text, character as u8);
            } else if character.is_control() || is_invisible(character) {
                let mut buffer = [0; 4];
                character.encode_utf8(&mut buffer).bytes().for_each(|byte| push_byte(&mut text, byte));
            } else {
                text.push(character);
            }
        }
        chunk.invalid().iter().for_each(|&byte| push_byte(&mut text, byte));
    }
    text
}

/// As [`readable`], but an empty ID, which M3 can have, is `""`.
pub(crate) fn shown(id: &[u8]) -> String {
    if id.is_empty() { "\"\"".to_owned() } else { readable(id) }
}

/// `NAMESPACE:ID`, which means the metric in whatever namespace a verb looks.
pub(crate) fn with_namespace(metric: &Metric) -> String {
    format!("{}:{}", readable(metric.namespace().name().as_bytes()), readable(metric.name()))
}

/// Tags for people, with two spaces before them; nothing if there are none.
pub(crate) fn tags<'t>(tags: impl Iterator<Item = (&'t [u8], &'t [u8])>) -> String {
    let tags: Vec<_> =
        tags.map(|(name, value)| format!("{}=\"{}\"", readable(name), readable(value))).collect();
    if tags.is_empty() { String::new() } else { format!("  tags {}", tags.join(", ")) }
}

/// Tags in JSON: pairs of texts, escaped where they are no UTF-8.
pub(crate) fn json_tags<'t>(tags: impl Iterator<Item = (&'t [u8], &'t [u8])>) -> Value {
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => ascii(bytes),
    };
    tags.map(|(name, value)| json!([text(name), text(value)])).collect()
}

/// The bytes that [`ascii`] or [`readable`] printed. `None` if the text has a backslash that neither writes.
pub(crate) fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut id = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'\\' {
            id.push(byte);
            continue;
        }
        id.push(match rest.next()? {
            b't' => b'\t',
            b'n' => b'\n',
            b'\\' => b'\\',
            b'x' => {
                let (high, low) = (hex_digit(*rest.next()?)?, hex_digit(*rest.next()?)?);
                high << 4 | low
            }
            _ => return None,
        });
    }
    Some(id)
}

/// Adds an ID to a JSON object: `metric`, and `metric_hex` where the bytes are no UTF-8 and `metric` is only an escaped form.
pub(crate) fn put_json(object: &mut Map<String, Value>, id: &[u8]) {
    match std::str::from_utf8(id) {
        Ok(text) => {
            object.insert("metric".to_owned(), json!(text));
        }
        Err(_) => {
            object.insert("metric".to_owned(), json!(ascii(id)));
            object.insert("metric_hex".to_owned(), json!(hex(id)));
        }
    }
}

/// Two lowercase digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of a string of hex digits.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    if !odd.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(hex_digit(*high)? << 4 | hex_digit(*low)?)).collect()
}

/// Cut to `columns` characters with an ellipsis.
pub(crate) fn shortened(text: &str, columns: usize) -> Cow<'_, str> {
    match text.char_indices().nth(columns) {
        None => text.into(),
        Some(_) => text.chars().take(columns.saturating_sub(1)).chain(['…']).collect::<String>().into(),
    }
}

fn push_byte(text: &mut String, byte: u8) {
    match byte {
        b'\t' => text.push_str("\\t"),
        b'\n' => text.push_str("\\n"),
        b'\\' => text.push_str("\\\\"),
        0x20..=0x7e => text.push(char::from(byte)),
        _ => {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
}

/// Characters that change how the ones around them are shown.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_ascii_and_go_back() {
        let id: Vec<u8> = (0..=255).collect();
        let text = ascii(&id);
        assert!(text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
        assert_eq!(unescape(text.as_bytes()), Some(id));
        assert_eq!(ascii(b"a\tb\nc\\d\x7f\xc3\xa9"), r"a\tb\nc\\d\x7f\xc3\xa9");
    }

    #[test]
    fn readable_keeps_printable_utf8_alone() {
        let id = "temp_°C\u{202e}\u{7}".as_bytes();
        assert_eq!(readable(id), r"temp_°C\xe2\x80\xae\x07");
        assert_eq!(unescape(readable(id).as_bytes()), Some(id.to_vec()));
        assert_eq!(readable(b"\xff\xc3\xa9"), r"\xffé");
    }

    #[test]
    fn foreign_backslashes_are_no_escapes() {
        for text in [r"\q", r"\x1", r"\xzz", "\\"] {
            assert_eq!(unescape(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn hex_goes_both_ways() {
        assert_eq!(hex(&[0, 0xab]), "00ab");
        assert_eq!(from_hex("00aB"), Some(vec![0, 0xab]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("0g"), None);
    }

    #[test]
    fn json_says_when_an_id_is_no_utf8() {
        let mut object = Map::new();
        put_json(&mut object, b"\xff");
        assert_eq!(Value::Object(object), json!({"metric": r"\xff", "metric_hex": "ff"}));
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
    }
}
