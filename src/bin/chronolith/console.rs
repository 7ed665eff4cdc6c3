//! What the verbs print, and where: results on standard output, everything else on standard error.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::time::Duration;

use chronolith::Timestamp;
use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};

/// How the user wants to be spoken to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Console {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

impl Console {
    /// Standard output, for the results.
    pub(crate) fn out(self) -> Out {
        let stdout = io::stdout().lock();
        let terminal = stdout.is_terminal();
        Out { writer: BufWriter::with_capacity(1 << 16, stdout), terminal }
    }

    /// A line about the work, on standard error; not with `--quiet`.
    pub(crate) fn note(self, text: impl Display) {
        if !self.quiet {
            // A lost note is no reason to fail.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// A line that must not be missed, even with `--quiet`.
    pub(crate) fn warn(self, text: impl Display) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// With `--json` a failure is a result too: its object, on standard output.
    pub(crate) fn fail_in_json(self, failure: &Failure) {
        if self.json {
            let mut out = self.out();
            // There is no other place to say that this failed.
            let _ = out.json(&failure.to_json()).and_then(|()| out.flush());
        }
    }
}

/// Buffered standard output. Its errors are [`Failure`]s, and a closed pipe ends the tool quietly.
#[derive(Debug)]
pub(crate) struct Out {
    writer: BufWriter<StdoutLock<'static>>,
    /// Whether a person looks at it.
    pub(crate) terminal: bool,
}

impl Out {
    pub(crate) fn line(&mut self, text: impl Display) -> Outcome<()> {
        writeln!(self.writer, "{text}").map_err(|error| Failure::stdout(&error))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.writer.write_all(bytes).map_err(|error| Failure::stdout(&error))
    }

    /// One object on one line.
    pub(crate) fn json(&mut self, value: &Value) -> Outcome<()> {
        self.line(value)
    }

    /// To be called at the end, or the last lines may be lost without an error.
    pub(crate) fn flush(&mut self) -> Outcome<()> {
        self.writer.flush().map_err(|error| Failure::stdout(&error))
    }

    /// Bold and dim text for a terminal, plain text elsewhere and where the user does not want colors.
    pub(crate) fn style(&self) -> Style {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Style { on: self.terminal && !unwanted }
    }
}

/// Whether to use a terminal's attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    on: bool,
}

impl Style {
    pub(crate) fn bold(self, text: impl Display) -> String {
        self.wrap("\x1b[1m", text)
    }

    pub(crate) fn dim(self, text: impl Display) -> String {
        self.wrap("\x1b[2m", text)
    }

    pub(crate) fn green(self, text: impl Display) -> String {
        self.wrap("\x1b[32m", text)
    }

    pub(crate) fn cyan(self, text: impl Display) -> String {
        self.wrap("\x1b[36m", text)
    }

    fn wrap(self, start: &str, text: impl Display) -> String {
        if self.on { format!("{start}{text}\x1b[0m") } else { text.to_string() }
    }
}

/// Columns that a drawing may have.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0)).clamp(40, 120)
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 point`, `2 points`, `1,000 points`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(count))
}

/// Bytes with a binary prefix.
pub(crate) fn bytes(count: u64) -> String {
    let mut amount = count as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB", "TiB"] {
        if amount < 1024.0 {
            let digits = usize::from(unit != "bytes");
            return format!("{amount:.digits$} {unit}");
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} PiB")
}

/// Things per second, to three digits.
pub(crate) fn rate(count: u64, elapsed: Duration, noun: &str) -> String {
    let per_second = per_second(count, elapsed);
    let (amount, prefix) = match per_second {
        1e6.. => (per_second / 1e6, "M "),
        1e4.. => (per_second / 1e3, "k "),
        _ => (per_second, ""),
    };
    let digits = usize::from(amount < 100.0 && !prefix.is_empty());
    format!("{amount:.digits$} {prefix}{noun}/s")
}

/// Things per second.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

/// A duration in the unit that suits it.
pub(crate) fn duration(elapsed: Duration) -> String {
    match elapsed.as_secs_f64() {
        seconds @ 60.0.. => format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0),
        seconds @ 1.0.. => format!("{seconds:.2} s"),
        seconds @ 0.001.. => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{:.0} us", seconds * 1e6),
    }
}

/// A value as short as it can be and still parse back to the same bits, except that every NaN is `NaN`.
pub(crate) fn value(value: f64) -> String {
    let mut text = String::new();
    push_value(&mut text, value);
    text
}

/// Appends what [`value`] returns.
pub(crate) fn push_value(text: &mut String, value: f64) {
    use std::fmt::Write;
    let magnitude = value.abs();
    // Writing to a string cannot fail.
    let _ = if magnitude != 0.0 && magnitude.is_finite() && !(1e-5..1e16).contains(&magnitude) {
        write!(text, "{value:e}")
    } else {
        write!(text, "{value}")
    };
}

/// A value in JSON, which has no NaN and no infinities: those are strings.
pub(crate) fn json_value(number: f64) -> Value {
    if number.is_finite() { json!(number) } else { json!(value(number)) }
}

/// A time in JSON: nanoseconds, exact.
pub(crate) fn json_time(at: Timestamp) -> Value {
    json!(at.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_clear() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(counted(1, "point"), "1 point");
        assert_eq!(counted(1000, "point"), "1,000 points");
        assert_eq!(bytes(12), "12 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(rate(5_000_000, Duration::from_secs(2), "points"), "2.5 M points/s");
        assert_eq!(rate(500, Duration::from_secs(1), "commits"), "500 commits/s");
        assert_eq!(rate(50_000, Duration::from_secs(1), "commits"), "50.0 k commits/s");
        assert_eq!(duration(Duration::from_millis(1500)), "1.50 s");
        assert_eq!(duration(Duration::from_secs(61)), "1 min 1 s");
        assert_eq!(duration(Duration::from_micros(1500)), "1.5 ms");
    }

    #[test]
    fn values_parse_back_to_the_same_bits() {
        let edges = [
            0.0,
            -0.0,
            0.1,
            1e-5,
            9.9e-6,
            1e16,
            f64::MAX,
            f64::MIN_POSITIVE,
            5e-324,
            f64::INFINITY,
            1e15 + 0.5,
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let random = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from_bits(state ^ state >> 29)
        });
        for number in edges.into_iter().chain(random.take(10_000)).flat_map(|number| [number, -number]) {
            let text = value(number);
            let back: f64 = text.parse().expect("a printed value parses");
            assert!(back.to_bits() == number.to_bits() || (back.is_nan() && number.is_nan()), "{text}");
            assert!(text.len() <= 24, "{text}");
        }
    }

    #[test]
    fn json_keeps_what_is_not_finite() {
        assert_eq!(json_value(f64::NAN), json!("NaN"));
        assert_eq!(json_value(f64::NEG_INFINITY), json!("-inf"));
        assert_eq!(json_value(1.5), json!(1.5));
    }
}
