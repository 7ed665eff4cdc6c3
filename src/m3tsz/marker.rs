//! Markers: what stands before a delta-of-delta, or in place of it.
//!
//! A marker begins like a delta-of-delta of 0 in the 7-bit bucket, which no encoder writes.

use super::bits::{BitReader, BitWriter, top_bits};
use super::error::{DecodeErrorKind, EncodeError};
use super::unit::TimeUnit;

/// The longest annotation, in bytes: its length must fit a variable-length integer of 5 bytes.
pub const ANNOTATION_BYTES_MAX: u64 = 1 << 34;

/// Bits of a marker: [`OPCODE_BITS`] and the kind.
pub(super) const MARKER_BITS: u32 = OPCODE_BITS + KIND_BITS;
const OPCODE: u64 = 0x100;
const OPCODE_BITS: u32 = 9;
const KIND_BITS: u32 = 2;
const KIND_END: u64 = 0;
const KIND_ANNOTATION: u64 = 1;
const KIND_UNIT: u64 = 2;

/// The marker that ends a stream, [`MARKER_BITS`] long.
pub(super) const END_OF_STREAM: u64 = OPCODE << KIND_BITS | KIND_END;

/// The kinds of markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    EndOfStream,
    Annotation,
    Unit,
}

impl Marker {
    /// The marker that begins here, if one does. A fourth kind does not exist: such bits are a delta-of-delta, and so
    /// are fewer bits than a marker has.
    #[inline]
    pub(super) fn peek(bits: &BitReader<'_>) -> Option<Marker> {
        let head = top_bits(bits.window(), MARKER_BITS);
        if head >> KIND_BITS != OPCODE || bits.left() < u64::from(MARKER_BITS) {
            return None;
        }
        match head & ((1 << KIND_BITS) - 1) {
            KIND_END => Some(Marker::EndOfStream),
            KIND_ANNOTATION => Some(Marker::Annotation),
            KIND_UNIT => Some(Marker::Unit),
            _ => None,
        }
    }
}

/// The smallest 64-bit delta-of-delta that does not begin like a marker: those below begin with the opcode and one of
/// the three kinds.
pub(super) const WIDE_DOD_MIN: i64 = i64::MIN + 3 * (1 << (64 - MARKER_BITS));

/// Refuses an annotation whose length cannot be written.
///
/// # Errors
/// [`EncodeError::AnnotationTooLong`].
#[inline]
pub(super) const fn check_annotation_len(len: usize) -> Result<(), EncodeError> {
    if len as u64 > ANNOTATION_BYTES_MAX {
        return Err(EncodeError::AnnotationTooLong { bytes: len as u64 });
    }
    Ok(())
}

/// Writes an annotation that is not empty and passed [`check_annotation_len`].
pub(super) fn put_annotation(out: &mut BitWriter, annotation: &[u8]) {
    debug_assert!(!annotation.is_empty());
    out.put(OPCODE << KIND_BITS | KIND_ANNOTATION, MARKER_BITS);
    // A signed length, zig-zag coded, though it is never negative.
    let mut rest = (annotation.len() as u64 - 1) << 1;
    while rest >= 0x80 {
        out.put(rest & 0x7f | 0x80, 8);
        rest >>= 7;
    }
    out.put(rest, 8);
    out.put_bytes(annotation);
}

/// Reads what follows an annotation marker, in place of what `annotation` held.
///
/// # Errors
/// A length that is not positive or exceeds what is left.
pub(super) fn take_annotation(
    bits: &mut BitReader<'_>,
    annotation: &mut Vec<u8>,
) -> Result<(), DecodeErrorKind> {
    annotation.clear();
    let begin = bits.position();
    let Some(len) = take_varint(bits)?.and_then(|n| n.checked_add(1)).filter(|len| *len > 0) else {
        bits.rewind(begin);
        return Err(DecodeErrorKind::AnnotationLength);
    };
    let len = len.unsigned_abs();
    // Before anything is allocated for it.
    if len > bits.left() / 8 {
        return Err(DecodeErrorKind::Truncated);
    }
    annotation.reserve(len as usize);
    for _ in 0..len {
        annotation.push(bits.take(8)? as u8);
    }
    Ok(())
}

/// A signed variable-length integer: groups of 7 bits, lowest first, zig-zag coded. `None` if it exceeds 64 bits.
fn take_varint(bits: &mut BitReader<'_>) -> Result<Option<i64>, DecodeErrorKind> {
    let mut zigzag = 0;
    for shift in (0..64).step_by(7) {
        let byte = bits.take(8)?;
        if shift == 63 && byte > 1 {
            return Ok(None);
        }
        zigzag |= (byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(Some((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed()));
        }
    }
    Ok(None)
}

/// Writes a change of unit.
pub(super) fn put_unit(out: &mut BitWriter, unit: TimeUnit) {
    out.put((OPCODE << KIND_BITS | KIND_UNIT) << 8 | u64::from(unit.id()), MARKER_BITS + 8);
}

/// Reads what follows a unit marker.
///
/// # Errors
/// [`DecodeErrorKind::UnknownUnit`]. M3's decoder goes on instead, with delta-of-deltas of 0.
pub(super) fn take_unit(bits: &mut BitReader<'_>) -> Result<TimeUnit, DecodeErrorKind> {
    let begin = bits.position();
    let id = bits.take(8)? as u8;
    TimeUnit::try_from(id).map_err(|_| {
        bits.rewind(begin);
        DecodeErrorKind::UnknownUnit(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(writer: &BitWriter) -> Vec<u8> {
        let mut bytes = Vec::new();
        writer.finish_into(END_OF_STREAM, MARKER_BITS, &mut bytes);
        bytes
    }

    #[test]
    fn annotations_of_every_length_class_come_back() {
        for (len, first) in [(1, 0x00), (2, 0x02), (64, 0x7e), (65, 0x80), (8_192, 0xfe), (20_000, 0xbe)] {
            let annotation: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let mut writer = BitWriter::default();
            put_annotation(&mut writer, &annotation);
            let bytes = finished(&writer);
            let mut reader = BitReader::new(&bytes);
            assert_eq!(Marker::peek(&reader), Some(Marker::Annotation));
            reader.skip(MARKER_BITS);
            assert_eq!(top_bits(reader.window(), 8), first);
            let mut read = b"what was here before".to_vec();
            assert_eq!(take_annotation(&mut reader, &mut read), Ok(()));
            assert_eq!(read, annotation);
            assert_eq!(Marker::peek(&reader), Some(Marker::EndOfStream));
        }
    }

    #[test]
    fn impossible_annotation_lengths_are_errors() {
        use DecodeErrorKind::{AnnotationLength, Truncated};
        let cases: [(&[u8], DecodeErrorKind); 7] = [
            (&[0x01], AnnotationLength), // -1, so no bytes
            (&[0x03], AnnotationLength), // -2
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], AnnotationLength), // i64::MAX
            (&[0xff; 11], AnnotationLength),
            (&[0x80, 0x80], Truncated),
            (&[0x02, 0x61], Truncated),
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x61], Truncated), // 2^48 bytes
        ];
        for (bytes, kind) in cases {
            let mut annotation = Vec::new();
            let mut reader = BitReader::new(bytes);
            assert_eq!(take_annotation(&mut reader, &mut annotation), Err(kind));
            assert_eq!(annotation.capacity(), 0);
        }
    }

    #[test]
    fn annotations_past_the_limit_are_refused() {
        let max = usize::try_from(ANNOTATION_BYTES_MAX).expect("tests run on 64 bits");
        assert_eq!(check_annotation_len(max), Ok(()));
        let bytes = ANNOTATION_BYTES_MAX + 1;
        assert_eq!(check_annotation_len(max + 1), Err(EncodeError::AnnotationTooLong { bytes }));
        // The longest takes 5 bytes of length, as M3's buffer has.
        assert_eq!(((ANNOTATION_BYTES_MAX - 1) << 1) >> 35, 0);
        assert_eq!((ANNOTATION_BYTES_MAX << 1) >> 35, 1);
    }

    #[test]
    fn three_kinds_are_markers_and_the_fourth_is_not() {
        let peek = |head: u64| Marker::peek(&BitReader::new(&(head << 53).to_be_bytes()));
        assert_eq!(peek(0x400), Some(Marker::EndOfStream));
        assert_eq!(peek(0x401), Some(Marker::Annotation));
        assert_eq!(peek(0x402), Some(Marker::Unit));
        assert_eq!(peek(0x403), None);
        assert_eq!(peek(0x404), None);
        assert_eq!(Marker::peek(&BitReader::new(&[0x80])), None);
    }

    #[test]
    fn wide_delta_of_deltas_begin_like_markers_only_below_the_minimum() {
        let begins_like_marker = |dod: i64| Marker::peek(&BitReader::new(&dod.to_be_bytes())).is_some();
        assert!(begins_like_marker(i64::MIN));
        assert!(begins_like_marker(WIDE_DOD_MIN - 1));
        for dod in [WIDE_DOD_MIN, -1, 0, 1, i64::MAX] {
            assert!(!begins_like_marker(dod));
        }
    }
}
