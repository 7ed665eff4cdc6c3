//! Times as people write and read them.

use chronolith::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;

/// What `--from` and `--to` accept.
pub(crate) const TIME_HELP: &str = "an integer (nanoseconds, or with a unit: 1700000000s, ...ms, ...us, ...ns), \
                                    RFC 3339 (2023-11-14T22:13:20Z), or a date or datetime in UTC";

/// Parses an integer with or without a unit, RFC 3339, or a civil date or datetime, which is taken as UTC.
pub(crate) fn parse(text: &str) -> Result<Timestamp, String> {
    if let Some(at) = integer(text)? {
        return Ok(at);
    }
    if text.contains('[') {
        return Err("time zones by name are not known here; give an offset, as in 2023-11-14T22:13:20+01:00"
            .to_owned());
    }
    let out_of_range = || format!("outside of {} to {}", rfc3339(Timestamp::MIN), rfc3339(Timestamp::MAX));
    let instant = text.parse::<jiff::Timestamp>().or_else(|_| {
        // A datetime of jiff may be a date alone, which is midnight.
        let civil = text.parse::<civil::DateTime>();
        civil.and_then(|civil| TimeZone::UTC.to_timestamp(civil))
    });
    let nanos = instant.map_err(|_| format!("expected {TIME_HELP}"))?.as_nanosecond();
    i64::try_from(nanos).map(Timestamp::from_nanos).map_err(|_| out_of_range())
}

/// `Ok(None)` if the text is no integer with or without a unit.
fn integer(text: &str) -> Result<Option<Timestamp>, String> {
    let digits_end = text.find(|c: char| !(c.is_ascii_digit() || c == '-' || c == '+')).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let nanos_per_unit = match unit {
        "" | "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return Ok(None),
    };
    // `2023-11-14` consists of these characters as well.
    if digits.is_empty() || digits.char_indices().any(|(at, c)| at > 0 && !c.is_ascii_digit()) {
        return Ok(None);
    }
    let at = digits.parse::<i64>().ok().and_then(|count| count.checked_mul(nanos_per_unit));
    at.map(|at| Some(Timestamp::from_nanos(at))).ok_or_else(|| "beyond 64 bits of nanoseconds".to_owned())
}

/// RFC 3339 in UTC, with 0, 3, 6 or 9 digits of a second, as needed.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let nanos = at.as_nanos();
    let digits = match nanos {
        _ if nanos % 1_000_000_000 == 0 => 0,
        _ if nanos % 1_000_000 == 0 => 3,
        _ if nanos % 1_000 == 0 => 6,
        _ => 9,
    };
    match jiff::Timestamp::from_nanosecond(i128::from(nanos)) {
        Ok(instant) => format!("{instant:.digits$}"),
        // jiff's range is wider than 64 bits of nanoseconds.
        Err(_) => at.to_string(),
    }
}

/// Date and time of day in UTC.
pub(crate) fn civil_utc(at: Timestamp) -> civil::DateTime {
    match jiff::Timestamp::from_nanosecond(i128::from(at.as_nanos())) {
        Ok(instant) => TimeZone::UTC.to_datetime(instant),
        Err(_) => civil::DateTime::ZERO,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_named_zone_is_refused_and_not_ignored() {
        for text in ["2023-11-14T22:14:20[Europe/Berlin]", "2023-11-14T22:14:20+00:00[Asia/Tokyo]"] {
            assert!(super::parse(text).is_err_and(|error| error.contains("offset")), "{text}");
        }
    }

    use super::*;

    #[test]
    fn integers_have_units() {
        let second = Timestamp::from_secs(1_700_000_000);
        for text in ["1700000000s", "1700000000000ms", "1700000000000000us", "1700000000000000000ns"] {
            assert_eq!(parse(text), Ok(second), "{text}");
        }
        assert_eq!(parse("1700000000000000000"), Ok(second));
        assert_eq!(parse("-5s"), Ok(Timestamp::from_secs(-5)));
        assert_eq!(parse(&i64::MIN.to_string()), Ok(Timestamp::MIN));
    }

    #[test]
    fn calendar_times_are_utc_unless_they_say_otherwise() {
        let second = Timestamp::from_secs(1_700_000_000);
        assert_eq!(parse("2023-11-14T22:13:20Z"), Ok(second));
        assert_eq!(parse("2023-11-15T00:13:20+02:00"), Ok(second));
        assert_eq!(parse("2023-11-14T22:13:20"), Ok(second));
        assert_eq!(
            parse("2023-11-14 22:13:20.000000001Z"),
            Ok(Timestamp::from_nanos(1_700_000_000_000_000_001))
        );
        assert_eq!(parse("1970-01-02"), Ok(Timestamp::from_secs(86_400)));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(parse("9223372036854775808").expect_err("too large").contains("64 bits"));
        assert!(parse("9223372037s").expect_err("too large").contains("64 bits"));
        assert!(parse("2500-01-01T00:00:00Z").expect_err("too late").contains("outside"));
        for text in ["", "now", "5m", "s", "1e9s", "--5", "2023-13-01"] {
            assert!(parse(text).expect_err(text).contains("expected"), "{text}");
        }
    }

    #[test]
    fn printed_times_parse_back() {
        for nanos in [0, -1, 1_700_000_000_123_000_000, i64::MIN, i64::MAX] {
            let at = Timestamp::from_nanos(nanos);
            assert_eq!(parse(&rfc3339(at)), Ok(at));
        }
        assert_eq!(rfc3339(Timestamp::from_secs(1_700_000_000)), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339(Timestamp::from_millis(1_700_000_000_120)), "2023-11-14T22:13:20.120Z");
        assert_eq!(rfc3339(Timestamp::from_nanos(-1)), "1969-12-31T23:59:59.999999999Z");
    }
}
