//! What the bits of a stream mean.

use std::fmt;
use std::ops::Range;

use crate::m3tsz::TimeUnit;

/// A piece of a stream that has a meaning of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Where it lies, in bits from the start of the stream. Empty for a magnitude of no bits and for no other field.
    pub bits: Range<u64>,
    /// What it is, and what it says.
    pub kind: FieldKind,
}

/// The kinds of fields, in the order in which they occur in a point. `Display` says what a field means, in a few words.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum FieldKind {
    /// Where the first delta counts from, in nanoseconds since the Unix epoch; 64 bits.
    Start {
        /// The time.
        at: i64,
    },
    /// `100000000 00`: no more points.
    EndMarker,
    /// `100000000 01`: an annotation follows.
    AnnotationMarker,
    /// The length of an annotation: 8 to 80 bits.
    AnnotationLength {
        /// Bytes of annotation.
        bytes: u64,
    },
    /// An annotation. Its bytes are the field's bits.
    Annotation,
    /// `100000000 10`: the unit follows.
    UnitMarker,
    /// A unit's number: 8 bits.
    Unit {
        /// In force from here on.
        unit: TimeUnit,
        /// Whether another was in force before.
        changed: bool,
    },
    /// `0`, `10`, `110`, `1110` or `1111`: how many bits of delta-of-delta follow.
    DodOpcode {
        /// That number: 0, 7, 9, 12, 32 or 64.
        dod_bits: u32,
    },
    /// A delta-of-delta in the unit in force, two's complement.
    Dod {
        /// How much longer this delta is than the one before, in units.
        dod: i64,
        /// The unit.
        unit: TimeUnit,
        /// The delta that it leads to, in nanoseconds.
        delta_ns: i64,
    },
    /// The delta-of-delta after a change of unit: 64 bits.
    DodNanos {
        /// How much longer this delta is than the one before, in nanoseconds.
        dod_ns: i64,
    },
    /// How the first value is written: `0` as an integer, `1` in full.
    FirstOpcode {
        /// In full.
        is_float: bool,
    },
    /// `01`: the value before, again.
    Repeat,
    /// `1`: the header of the value before holds; a difference follows or, after a floating-point value, a XOR.
    NoUpdate,
    /// `000`: an integer with a header.
    UpdateInt,
    /// `001`: a value in full.
    UpdateFloat,
    /// Whether the width of differences changes: `0` or `1`.
    WidthFlag {
        /// It changes.
        changes: bool,
    },
    /// Whether the new width is 0: `0`, else `1`.
    WidthZeroFlag {
        /// It is 0.
        zero: bool,
    },
    /// The width of differences less 1: 6 bits.
    Width {
        /// The width in bits: 1 to 64.
        width: u32,
    },
    /// Whether the decimal multiplier is given: `1`, else `0`.
    MultFlag {
        /// It is given.
        given: bool,
    },
    /// The multiplier: 3 bits.
    Mult {
        /// The exponent of ten that integers are divided by: 0 to 6.
        mult: u8,
    },
    /// The sign of a difference: `1` up, `0` down.
    Sign {
        /// The magnitude is added.
        up: bool,
    },
    /// The magnitude of a difference, of as many bits as the width in force says.
    Magnitude {
        /// In units of `10^-mult`.
        magnitude: u64,
        /// The integer that it leads to.
        int: f64,
        /// The multiplier in force: the value is `int / 10^mult`.
        mult: u8,
    },
    /// A value in full: 64 bits.
    FullValue {
        /// Of the f64.
        bits: u64,
    },
    /// `0`: a XOR of 0, the value before again.
    XorZero,
    /// `10`: a XOR within the span of the last one.
    XorWithin {
        /// Leading zeros of the last XOR.
        lead: u32,
        /// Bits between its outermost ones.
        span: u32,
    },
    /// `11`: a XOR with a span of its own.
    XorElsewhere,
    /// Leading zeros of a XOR: 6 bits.
    XorLead {
        /// The number.
        lead: u32,
    },
    /// Bits of a XOR that are written, less 1: 6 bits.
    XorSpan {
        /// The number: 1 to 64.
        span: u32,
    },
    /// The bits of a XOR within its span.
    XorBits {
        /// All 64.
        xor: u64,
        /// Of the f64 that it leads to.
        bits: u64,
    },
    /// Zeros up to a byte, after the end marker. Not looked at, so a damaged stream may have others.
    Padding,
    /// What lies behind the stream. Not looked at.
    Behind,
}

/// What a field serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The stream: start, end marker, and what is behind.
    Stream,
    /// Annotations with their markers.
    Annotation,
    /// Timestamps with changes of unit.
    Timestamp,
    /// How a value is written: opcodes, widths, multipliers.
    ValueHeader,
    /// The values: signs and magnitudes, XORs, values in full.
    Value,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 5] =
        [Part::Stream, Part::Annotation, Part::Timestamp, Part::ValueHeader, Part::Value];

    /// A word or two.
    pub fn name(self) -> &'static str {
        match self {
            Part::Stream => "stream",
            Part::Annotation => "annotation",
            Part::Timestamp => "timestamp",
            Part::ValueHeader => "value header",
            Part::Value => "value",
        }
    }
}

impl FieldKind {
    /// What the field serves.
    pub fn part(self) -> Part {
        use FieldKind::*;
        match self {
            Start { .. } | EndMarker | Padding | Behind => Part::Stream,
            AnnotationMarker | AnnotationLength { .. } | Annotation => Part::Annotation,
            UnitMarker | Unit { .. } | DodOpcode { .. } | Dod { .. } | DodNanos { .. } => Part::Timestamp,
            FirstOpcode { .. } | Repeat | NoUpdate | UpdateInt | UpdateFloat => Part::ValueHeader,
            WidthFlag { .. } | WidthZeroFlag { .. } | Width { .. } => Part::ValueHeader,
            MultFlag { .. } | Mult { .. } => Part::ValueHeader,
            XorZero | XorWithin { .. } | XorElsewhere | XorLead { .. } | XorSpan { .. } => Part::ValueHeader,
            Sign { .. } | Magnitude { .. } | FullValue { .. } | XorBits { .. } => Part::Value,
        }
    }

    /// The kind alone: lower case, `_` between words.
    pub fn name(self) -> &'static str {
        use FieldKind::*;
        match self {
            Start { .. } => "start",
            EndMarker => "end_marker",
            AnnotationMarker => "annotation_marker",
            AnnotationLength { .. } => "annotation_length",
            Annotation => "annotation",
            UnitMarker => "unit_marker",
            Unit { .. } => "unit",
            DodOpcode { .. } => "dod_opcode",
            Dod { .. } => "dod",
            DodNanos { .. } => "dod_ns",
            FirstOpcode { .. } => "first_opcode",
            Repeat => "repeat",
            NoUpdate => "no_update",
            UpdateInt => "update_int",
            UpdateFloat => "update_float",
            WidthFlag { .. } => "width_flag",
            WidthZeroFlag { .. } => "width_zero_flag",
            Width { .. } => "width",
            MultFlag { .. } => "mult_flag",
            Mult { .. } => "mult",
            Sign { .. } => "sign",
            Magnitude { .. } => "magnitude",
            FullValue { .. } => "full_value",
            XorZero => "xor_zero",
            XorWithin { .. } => "xor_within",
            XorElsewhere => "xor_elsewhere",
            XorLead { .. } => "xor_lead",
            XorSpan { .. } => "xor_span",
            XorBits { .. } => "xor_bits",
            Padding => "padding",
            Behind => "behind",
        }
    }
}

impl fmt::Display for FieldKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use FieldKind::*;
        match *self {
            Start { at } => write!(f, "start: {at} ns"),
            EndMarker => write!(f, "marker: end of stream"),
            AnnotationMarker => write!(f, "marker: annotation"),
            AnnotationLength { bytes } => write!(f, "annotation length: {bytes}"),
            Annotation => write!(f, "annotation"),
            UnitMarker => write!(f, "marker: unit"),
            Unit { unit, changed: true } => write!(f, "unit: {unit} from here on"),
            Unit { unit, changed: false } => write!(f, "unit: {unit}, as before"),
            DodOpcode { dod_bits: 0 } => write!(f, "same delta"),
            DodOpcode { dod_bits } => write!(f, "delta-of-delta of {dod_bits} bits"),
            Dod { dod, unit, delta_ns } if delta_ns % unit.nanos() == 0 => {
                write!(f, "delta-of-delta: {dod:+}, to {} {unit}", delta_ns / unit.nanos())
            }
            Dod { dod, unit, delta_ns } => {
                write!(f, "delta-of-delta: {dod:+} {unit}, to {delta_ns} ns")
            }
            DodNanos { dod_ns } => write!(f, "delta-of-delta: {dod_ns:+} ns"),
            FirstOpcode { is_float: false } => write!(f, "first value: an integer"),
            FirstOpcode { is_float: true } => write!(f, "first value: in full"),
            Repeat => write!(f, "value: repeated"),
            NoUpdate => write!(f, "header: as before"),
            UpdateInt => write!(f, "header: an integer"),
            UpdateFloat => write!(f, "header: a value in full"),
            WidthFlag { changes: false } => write!(f, "width: as before"),
            WidthFlag { changes: true } => write!(f, "width: changes"),
            WidthZeroFlag { zero: true } => write!(f, "width: 0 bits"),
            WidthZeroFlag { zero: false } => write!(f, "width: not 0"),
            Width { width } => write!(f, "width: {width} bits"),
            MultFlag { given: false } => write!(f, "multiplier: as before"),
            MultFlag { given: true } => write!(f, "multiplier: given"),
            Mult { mult } => write!(f, "multiplier: 10^{mult}"),
            Sign { up: true } => write!(f, "sign: up"),
            Sign { up: false } => write!(f, "sign: down"),
            Magnitude { magnitude, int, mult: 0 } => write!(f, "difference: {magnitude}, to {int}"),
            Magnitude { magnitude, int, mult } => {
                write!(f, "difference: {magnitude}, to {int} / 10^{mult}")
            }
            FullValue { bits } => write!(f, "value: {bits:#018x}"),
            XorZero => write!(f, "XOR: 0, value repeated"),
            XorWithin { lead, span } => {
                write!(f, "XOR: within the last one's {span} bits after {lead} zeros")
            }
            XorElsewhere => write!(f, "XOR: of its own span"),
            XorLead { lead } => write!(f, "XOR: {lead} leading zeros"),
            XorSpan { span } => write!(f, "XOR: {span} bits"),
            XorBits { xor, bits } => write!(f, "XOR: {xor:#018x}, to {bits:#018x}"),
            Padding => write!(f, "padding"),
            Behind => write!(f, "behind the stream"),
        }
    }
}
