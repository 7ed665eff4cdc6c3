//! The figures of the format page.

use crate::m3tsz::TimeUnit;

/// What a marker begins with, and how many bits that is. The kind follows.
pub(super) const MARKER: (u64, u32) = (0b1_0000_0000, 9);
/// Bits of a marker's kind.
pub(super) const KIND_BITS: u32 = 2;
pub(super) const KIND_END: u64 = 0b00;
pub(super) const KIND_ANNOTATION: u64 = 0b01;
pub(super) const KIND_UNIT: u64 = 0b10;

/// The units, from coarse to fine.
pub(super) const UNITS: [TimeUnit; 4] =
    [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];

/// Bits of a delta-of-delta, by how many ones its opcode begins with.
pub(super) fn dod_bits(ones: u32, unit: TimeUnit) -> u32 {
    match ones {
        0 => 0,
        1 => 7,
        2 => 9,
        3 => 12,
        _ => match unit {
            TimeUnit::Second | TimeUnit::Millisecond => 32,
            TimeUnit::Microsecond | TimeUnit::Nanosecond => 64,
        },
    }
}

/// The unit in force before a stream names one.
pub(super) fn initial_unit(start: i64) -> Option<TimeUnit> {
    (start % TimeUnit::Second.nanos() == 0).then_some(TimeUnit::Second)
}

/// The largest multiplier.
pub(super) const MULT_MAX: u8 = 6;

/// `10^mult`.
pub(super) fn power_of_ten(mult: u8) -> f64 {
    f64::from(10_u32.pow(u32::from(mult)))
}

/// 2^52 and 2^63.
pub(super) const TWO_POW_52: f64 = (1_u64 << 52) as f64;
pub(super) const TWO_POW_63: f64 = (1_u64 << 63) as f64;
