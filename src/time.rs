//! Points in time: nanoseconds since the Unix epoch, as a type of their own.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time: signed nanoseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
///
/// The range is that of `i64`: from the year 1677 to the year 2262. Conversions from coarser units and arithmetic with
/// [`Duration`] saturate at the ends of that range; the `checked_` forms say so instead.
///
/// ```
/// use std::time::Duration;
/// use chronolith::Timestamp;
///
/// let start = Timestamp::from_secs(1_700_000_000);
/// assert_eq!(start + Duration::from_millis(1_500), Timestamp::from_millis(1_700_000_001_500));
/// assert_eq!((start + Duration::from_secs(10)) - start, Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest representable time.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// The latest representable time.
    pub const MAX: Timestamp = Timestamp(i64::MAX);
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// The current time of the system's clock.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// From nanoseconds since the epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Timestamp(nanos)
    }

    /// From microseconds since the epoch, saturating.
    pub const fn from_micros(micros: i64) -> Self {
        Timestamp(micros.saturating_mul(1_000))
    }

    /// From milliseconds since the epoch, saturating.
    pub const fn from_millis(millis: i64) -> Self {
        Timestamp(millis.saturating_mul(1_000_000))
    }

    /// From seconds since the epoch, saturating.
    pub const fn from_secs(secs: i64) -> Self {
        Timestamp(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Whole microseconds since the epoch, rounded down.
    pub const fn as_micros(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Whole milliseconds since the epoch, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// `self + duration`, or `None` past [`Timestamp::MAX`].
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        i128::from(self.0).checked_add(nanos(duration)).and_then(|t| i64::try_from(t).ok()).map(Timestamp)
    }

    /// `self - duration`, or `None` before [`Timestamp::MIN`].
    pub fn checked_sub(self, duration: Duration) -> Option<Self> {
        i128::from(self.0).checked_sub(nanos(duration)).and_then(|t| i64::try_from(t).ok()).map(Timestamp)
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub fn saturating_duration_since(self, earlier: Timestamp) -> Duration {
        let nanos = i128::from(self.0) - i128::from(earlier.0);
        // Two i64 differ by less than 2^64.
        u64::try_from(nanos).map_or(Duration::ZERO, Duration::from_nanos)
    }
}

/// A duration in nanoseconds. `Duration` holds less than 2^94 of them, so this is exact.
fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    /// Saturates at [`Timestamp::MAX`].
    fn add(self, duration: Duration) -> Timestamp {
        self.checked_add(duration).unwrap_or(Timestamp::MAX)
    }
}

impl AddAssign<Duration> for Timestamp {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    /// Saturates at [`Timestamp::MIN`].
    fn sub(self, duration: Duration) -> Timestamp {
        self.checked_sub(duration).unwrap_or(Timestamp::MIN)
    }
}

impl SubAssign<Duration> for Timestamp {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    fn sub(self, earlier: Timestamp) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

impl From<SystemTime> for Timestamp {
    /// Saturates at the ends of the range.
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Timestamp::EPOCH + after,
            Err(before) => Timestamp::EPOCH - before.duration(),
        }
    }
}

impl TryFrom<Timestamp> for SystemTime {
    type Error = TimestampOutOfRange;

    /// Fails only where the platform's clock cannot hold the time.
    fn try_from(at: Timestamp) -> Result<Self, TimestampOutOfRange> {
        let distance = Duration::from_nanos(at.0.unsigned_abs());
        let time =
            if at.0 >= 0 { UNIX_EPOCH.checked_add(distance) } else { UNIX_EPOCH.checked_sub(distance) };
        time.ok_or(TimestampOutOfRange(at))
    }
}

/// The platform's `SystemTime` cannot hold this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system's clock type cannot hold {0}")]
pub struct TimestampOutOfRange(pub Timestamp);

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns", self.0)
    }
}

impl fmt::Display for Timestamp {
    /// Nanoseconds since the epoch; calendars are the caller's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarser_units_saturate_and_round_down() {
        assert_eq!(Timestamp::from_secs(i64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_millis(i64::MIN), Timestamp::MIN);
        assert_eq!(Timestamp::from_nanos(-1).as_secs(), -1);
        assert_eq!(Timestamp::from_nanos(1_999).as_micros(), 1);
    }

    #[test]
    fn arithmetic_saturates_or_says_so() {
        assert_eq!(Timestamp::MAX + Duration::from_nanos(1), Timestamp::MAX);
        assert_eq!(Timestamp::MIN - Duration::MAX, Timestamp::MIN);
        assert_eq!(Timestamp::MAX.checked_add(Duration::from_nanos(1)), None);
        assert_eq!(Timestamp::MIN.checked_sub(Duration::MAX), None);
        assert_eq!(Timestamp::MAX - Timestamp::MIN, Duration::from_nanos(u64::MAX));
        assert_eq!(Timestamp::MIN - Timestamp::MAX, Duration::ZERO);
    }

    #[test]
    fn system_time_goes_both_ways() {
        for nanos in [0, 1, -1, 1_700_000_000_123_456_789, i64::MIN, i64::MAX] {
            let at = Timestamp::from_nanos(nanos);
            let time = SystemTime::try_from(at).expect("64-bit time_t holds every i64 of nanoseconds");
            assert_eq!(Timestamp::from(time), at);
        }
    }
}
