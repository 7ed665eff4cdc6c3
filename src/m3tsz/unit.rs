//! Time units of delta-of-deltas.

use std::fmt;

/// The unit in which a delta-of-delta is stored. Ordered from coarse to fine.
///
/// M3 also numbers none (0), minute (5), hour (6), day (7) and year (8), for which it has no delta-of-delta coding: its
/// encoder writes streams in them that its decoder cannot read. They have no place here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TimeUnit {
    /// 10^9 ns; id 1.
    Second = 1,
    /// 10^6 ns; id 2.
    Millisecond = 2,
    /// 10^3 ns; id 3.
    Microsecond = 3,
    /// 1 ns; id 4.
    Nanosecond = 4,
}

impl TimeUnit {
    /// The number that names the unit in a stream.
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The unit in nanoseconds.
    pub const fn nanos(self) -> i64 {
        match self {
            TimeUnit::Second => 1_000_000_000,
            TimeUnit::Millisecond => 1_000_000,
            TimeUnit::Microsecond => 1_000,
            TimeUnit::Nanosecond => 1,
        }
    }

    /// `nanos / self`, truncated toward zero, and whether nothing was cut off.
    ///
    /// Spelled out per unit, so that each division is by a constant.
    #[inline]
    pub(super) const fn quotient(self, nanos: i64) -> (i64, bool) {
        match self {
            TimeUnit::Second => (nanos / 1_000_000_000, nanos % 1_000_000_000 == 0),
            TimeUnit::Millisecond => (nanos / 1_000_000, nanos % 1_000_000 == 0),
            TimeUnit::Microsecond => (nanos / 1_000, nanos % 1_000 == 0),
            TimeUnit::Nanosecond => (nanos, true),
        }
    }

    /// `nanos / self`, if that is an integer of 32 bits.
    ///
    /// A unit is an odd number times a power of two. Multiplying by the odd number's inverse modulo 2^64 divides by it if that
    /// leaves no rest, and a shift does the other part; otherwise something comes out that, multiplied again, is not `nanos`
    /// (Granlund and Montgomery, PLDI 1994, section 9). That is 2 multiplications for all units alike, without a branch.
    #[inline(always)]
    pub(super) fn exact_quotient(self, nanos: i64) -> Option<i64> {
        let Divisor { unit, inverse, shift } = DIVISORS[usize::from(self as u8 - 1) & 3];
        let quotient = nanos.wrapping_mul(inverse) >> shift;
        (quotient.wrapping_mul(unit) == nanos && quotient as i32 as i64 == quotient).then_some(quotient)
    }

    /// The coarsest unit that is no coarser than `self` and divides `nanos`.
    #[inline]
    pub(super) const fn refined_for(self, nanos: i64) -> TimeUnit {
        let mut unit = self;
        while !unit.quotient(nanos).1 {
            unit = match unit {
                TimeUnit::Second => TimeUnit::Millisecond,
                TimeUnit::Millisecond => TimeUnit::Microsecond,
                TimeUnit::Microsecond | TimeUnit::Nanosecond => TimeUnit::Nanosecond,
            };
        }
        unit
    }

    /// Whether delta-of-deltas that miss the small buckets have 32 bits; otherwise they have 64.
    #[inline]
    pub(super) const fn is_narrow(self) -> bool {
        matches!(self, TimeUnit::Second | TimeUnit::Millisecond)
    }
}

/// A unit, to divide by.
#[derive(Clone, Copy)]
struct Divisor {
    unit: i64,
    /// Of the odd part of the unit.
    inverse: i64,
    shift: u32,
}

/// By id - 1.
const DIVISORS: [Divisor; 4] = {
    let mut divisors = [Divisor { unit: 1, inverse: 1, shift: 0 }; 4];
    let units = [1_000_000_000, 1_000_000, 1_000, 1];
    let mut index = 0;
    while index < 4 {
        let unit: i64 = units[index];
        let shift = unit.trailing_zeros();
        let odd = unit >> shift;
        // Newton's iteration: the bits that are right double each time, from 3.
        let mut inverse = odd;
        while inverse.wrapping_mul(odd) != 1 {
            inverse = inverse.wrapping_mul(2_i64.wrapping_sub(odd.wrapping_mul(inverse)));
        }
        divisors[index] = Divisor { unit, inverse, shift };
        index += 1;
    }
    divisors
};

impl fmt::Display for TimeUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimeUnit::Second => "s",
            TimeUnit::Millisecond => "ms",
            TimeUnit::Microsecond => "us",
            TimeUnit::Nanosecond => "ns",
        })
    }
}

/// A unit id without a delta-of-delta coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time unit {0} is not one of s (1), ms (2), us (3), ns (4)")]
pub struct UnsupportedUnit(pub u8);

impl TryFrom<u8> for TimeUnit {
    type Error = UnsupportedUnit;

    /// The unit with this id.
    fn try_from(id: u8) -> Result<Self, UnsupportedUnit> {
        match id {
            1 => Ok(TimeUnit::Second),
            2 => Ok(TimeUnit::Millisecond),
            3 => Ok(TimeUnit::Microsecond),
            4 => Ok(TimeUnit::Nanosecond),
            _ => Err(UnsupportedUnit(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_four_ids_are_units() {
        for id in 0..=u8::MAX {
            match TimeUnit::try_from(id) {
                Ok(unit) => assert_eq!(unit.id(), id),
                Err(error) => {
                    assert_eq!(error, UnsupportedUnit(id));
                    assert!(id == 0 || id > 4);
                }
            }
        }
    }

    #[test]
    fn refining_stops_at_the_coarsest_exact_unit() {
        use TimeUnit::*;
        for (nanos, unit) in [
            (0, Second),
            (-3_000_000_000, Second),
            (1_500_000_000, Millisecond),
            (-1_000, Microsecond),
            (1_000_001, Nanosecond),
            (i64::MIN, Nanosecond),
        ] {
            assert_eq!(Second.refined_for(nanos), unit);
            assert_eq!(Microsecond.refined_for(nanos), unit.max(Microsecond));
        }
    }

    #[test]
    fn exact_quotients_are_those_of_division() {
        let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
        let mut state = 1_i64;
        for round in 0..100_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            for unit in units {
                let near = (state >> (round % 60)).wrapping_mul(unit.nanos());
                for nanos in [state, near, near.wrapping_add(1), near.wrapping_sub(1), near.wrapping_add(512)]
                {
                    let (quotient, is_exact) = unit.quotient(nanos);
                    let expected = (is_exact && i32::try_from(quotient).is_ok()).then_some(quotient);
                    assert_eq!(unit.exact_quotient(nanos), expected, "{nanos} / {unit}");
                }
            }
        }
        for unit in units {
            for quotient in [i32::MIN, -1, 0, 1, i32::MAX].map(i64::from) {
                assert_eq!(unit.exact_quotient(quotient * unit.nanos()), Some(quotient));
            }
            assert_eq!(unit.exact_quotient((i64::from(i32::MAX) + 1) * unit.nanos()), None);
            assert_eq!(unit.exact_quotient(i64::MIN), None);
        }
    }

    #[test]
    fn quotients_truncate_toward_zero() {
        assert_eq!(TimeUnit::Millisecond.quotient(-1_999_999), (-1, false));
        assert_eq!(TimeUnit::Second.quotient(i64::MIN), (-9_223_372_036, false));
        for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            assert_eq!(unit.quotient(-7 * unit.nanos()), (-7, true));
        }
    }
}
