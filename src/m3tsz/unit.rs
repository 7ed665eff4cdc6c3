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
    fn quotients_truncate_toward_zero() {
        assert_eq!(TimeUnit::Millisecond.quotient(-1_999_999), (-1, false));
        assert_eq!(TimeUnit::Second.quotient(i64::MIN), (-9_223_372_036, false));
        for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            assert_eq!(unit.quotient(-7 * unit.nanos()), (-7, true));
        }
    }
}
