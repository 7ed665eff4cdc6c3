//! What the encoder refuses and what the decoder finds damaged.

use super::marker::ANNOTATION_BYTES_MAX;
use super::scale::MULT_MAX;
use super::unit::TimeUnit;

/// Why a point was not appended. The encoder is as it was before the call and can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The unit given stores 32 bits of delta-of-delta, and this one needs more. A finer unit or a change of unit
    /// takes it.
    #[error("a delta-of-delta of {dod} {unit} does not fit 32 bits")]
    DeltaOfDeltaTooWide {
        /// The delta-of-delta, in `unit`.
        dod: i64,
        /// The unit of the point.
        unit: TimeUnit,
    },
    /// The timestamp is to be kept and the unit given would drop part of the timestamp.
    #[error("a delta-of-delta of {dod_ns} ns is no multiple of 1 {unit}")]
    TimestampInexact {
        /// The delta-of-delta in nanoseconds.
        dod_ns: i64,
        /// The unit of the point.
        unit: TimeUnit,
    },
    /// The timestamp is to be kept, the point needs a change of unit, and the 64 bits that go with it begin like a
    /// marker, so that no decoder would read them. Takes a delta-of-delta below -2^63 + 3 * 2^53 ns, after wrapping: a
    /// gap of more than 291 years. Begin another stream with the point.
    #[error("a delta-of-delta of {dod_ns} ns after a change of unit would be read as a marker")]
    ReadsAsMarker {
        /// The delta-of-delta in nanoseconds, wrapped.
        dod_ns: i64,
    },
    /// The annotation is longer than [`ANNOTATION_BYTES_MAX`].
    #[error("an annotation of {bytes} bytes; at most {ANNOTATION_BYTES_MAX} can be written")]
    AnnotationTooLong {
        /// The annotation's length.
        bytes: u64,
    },
}

/// Damage in a stream, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("M3TSZ stream is damaged at bit {bit}: {kind}")]
pub struct DecodeError {
    /// Where the field that cannot be right begins, counted in bits from the start of the stream.
    pub bit: u64,
    /// What is wrong there.
    pub kind: DecodeErrorKind,
}

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The bytes end inside a point, or before the end marker.
    #[error("the stream ends without an end marker")]
    Truncated,
    /// A time unit that has no delta-of-delta coding.
    #[error("time unit {0} is unknown")]
    UnknownUnit(u8),
    /// The start is no whole second and the first point names no unit.
    #[error("the start is no whole second and no time unit is given")]
    NoUnit,
    /// An annotation of no or negative length, or a length of more than 64 bits.
    #[error("an annotation has an impossible length")]
    AnnotationLength,
    /// A decimal multiplier above 6.
    #[error("multiplier {0} is above {MULT_MAX}")]
    Multiplier(u8),
    /// A value's XOR refers to a window of bits that is not there, or reaches past bit 64.
    #[error("the window of a XOR does not fit 64 bits")]
    XorWindow,
    /// A timestamp that is not later than the one before, where points are to be ascending. The codec takes any order: this is
    /// found by those who read on behalf of a database.
    #[error("a timestamp is not later than the one before")]
    NotAscending,
}
