//! A line chart of one metric, drawn with braille characters: each has 2 by 4 dots.
//!
//! Values that are not finite interrupt the line. The y axis ends at round numbers; the x axis has the times of its ends and of
//! its middle, in UTC.

use chronolith::Timestamp;

use crate::times;

/// What to draw, and how large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chart<'a> {
    /// Nanoseconds, ascending.
    pub(crate) at: &'a [i64],
    pub(crate) values: &'a [f64],
    /// Columns, labels included.
    pub(crate) width: usize,
    /// Rows without those of the x axis.
    pub(crate) height: usize,
}

impl Chart<'_> {
    /// The chart's lines. Empty if there is no finite value.
    pub(crate) fn draw(&self) -> Vec<String> {
        let points = || self.at.iter().copied().zip(self.values.iter().copied());
        let finite = || points().filter(|(_, value)| value.is_finite());
        let (Some((first, _)), Some((last, _))) = (finite().next(), finite().next_back()) else {
            return Vec::new();
        };
        let low = finite().map(|(_, value)| value).fold(f64::INFINITY, f64::min);
        let high = finite().map(|(_, value)| value).fold(f64::NEG_INFINITY, f64::max);

        let rows = self.height.max(2);
        let y_axis = Axis::around(low, high, rows / 3);
        let labels = y_axis.labels(rows);
        let label_width = labels.iter().flatten().map(|label| label.chars().count()).max().unwrap_or(0);
        let columns = self.width.saturating_sub(label_width + 2).max(8);

        let mut canvas = Canvas::new(columns, rows);
        let x_dots = columns * 2 - 1;
        let y_dots = rows * 4 - 1;
        let span = (i128::from(last) - i128::from(first)).max(1);
        let mut previous = None;
        for (at, value) in points() {
            if !value.is_finite() {
                previous = None;
                continue;
            }
            let x = (i128::from(at) - i128::from(first)) * x_dots as i128 / span;
            let y = y_dots as f64 * (1.0 - y_axis.fraction(value));
            let dot = (x as i64, y.round() as i64);
            if previous != Some(dot) {
                canvas.line(previous.unwrap_or(dot), dot);
            }
            previous = Some(dot);
        }

        let mut lines = Vec::with_capacity(rows + 2);
        for (row, label) in labels.iter().enumerate() {
            let (text, mark) = match label {
                Some(text) => (text.as_str(), '┤'),
                None => ("", '│'),
            };
            lines.push(format!("{text:>label_width$} {mark}{}", canvas.row(row)).trim_end().to_owned());
        }
        lines.extend(time_axis(first, last, columns).map(|line| format!("{:label_width$} {line}", "")));
        lines
    }
}

/// Ticks at round numbers that enclose the values.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// About `intervals` intervals around `low..=high`.
    fn around(low: f64, high: f64, intervals: usize) -> Self {
        // Half of the span cannot overflow.
        let half_span = high / 2.0 - low / 2.0;
        let half_span = if half_span > 0.0 { half_span } else { (low.abs() / 2.0).max(0.5) };
        let raw = half_span / intervals.max(1) as f64 * 2.0;
        let magnitude = 10f64.powf(raw.log10().floor());
        let factors = [1.0, 2.0, 2.5, 5.0, 10.0];
        let step = factors.map(|factor| factor * magnitude).into_iter().find(|step| *step >= raw);
        let step = step.filter(|step| step.is_normal()).unwrap_or(raw);
        let (floor, ceil) = ((low / step).floor() * step, (high / step).ceil() * step);
        let sound = floor.is_finite() && ceil.is_finite() && floor <= low && ceil >= high && floor < ceil;
        let (low, high) = if sound { (floor, ceil) } else { (low - half_span, high + half_span) };
        Axis { low: low.max(f64::MIN), high: high.min(f64::MAX), step }
    }

    /// Where a value lies, from 0 at the bottom to 1 at the top.
    fn fraction(&self, value: f64) -> f64 {
        let span = self.high / 2.0 - self.low / 2.0;
        ((value / 2.0 - self.low / 2.0) / span).clamp(0.0, 1.0)
    }

    /// The tick labels by row, the top row first.
    fn labels(&self, rows: usize) -> Vec<Option<String>> {
        let mut labels = vec![None; rows];
        let largest = self.low.abs().max(self.high.abs());
        // From the top and the bottom inward, so that the ends are labelled even if rounding makes the ticks uneven.
        let intervals = ((self.high / self.step - self.low / self.step).round() as usize).clamp(1, rows);
        for tick in 0..=intervals {
            let fraction = tick as f64 / intervals as f64;
            let value = self.low * (1.0 - fraction) + self.high * fraction;
            let row = ((rows - 1) as f64 * (1.0 - fraction)).round() as usize;
            if let Some(label) = labels.get_mut(row) {
                *label = Some(short(value, self.step, largest));
            }
        }
        labels
    }
}

/// A tick's value with a prefix that suits the axis and the digits that its step needs.
fn short(value: f64, step: f64, largest: f64) -> String {
    let (scale, prefix) = match largest {
        1e15.. => return format!("{value:.2e}"),
        1e12.. => (1e12, "T"),
        1e9.. => (1e9, "G"),
        1e6.. => (1e6, "M"),
        1e4.. => (1e3, "k"),
        1e-3.. => (1.0, ""),
        0.0 => (1.0, ""),
        _ => return format!("{value:.2e}"),
    };
    let scaled_step = step / scale;
    let digits = (0..9).find(|digits| {
        let power = 10f64.powi(*digits);
        ((scaled_step * power).round() - scaled_step * power).abs() < 1e-6
    });
    let digits = usize::try_from(digits.unwrap_or(6)).unwrap_or(6);
    // Rounding may leave a zero with a sign.
    let scaled = value / scale;
    let zero = scaled.abs() < scaled_step / 1e3;
    let (scaled, prefix) = if zero { (0.0, "") } else { (scaled, prefix) };
    format!("{scaled:.digits$}{prefix}")
}

/// The x axis and its labels, of which those that find no room are left out.
fn time_axis(first: i64, last: i64, columns: usize) -> impl Iterator<Item = String> {
    let middle = i64::midpoint(first, last);
    let label = |at: i64| time_label(at, first, last);
    let ticks = match first == last {
        true => vec![(0, label(first))],
        false => vec![(0, label(first)), (columns - 1, label(last)), (columns / 2, label(middle))],
    };

    let mut axis = vec!['─'; columns];
    let mut text = vec![' '; columns + 1];
    // The ends first: the middle gets what room is left.
    for (at, label) in ticks {
        if let Some(mark) = axis.get_mut(at) {
            *mark = '┬';
        }
        // Centred under its mark, as far as the ends permit.
        let length = label.chars().count();
        let start = (at + 1).saturating_sub(length / 2).min((columns + 1).saturating_sub(length));
        let apart = start.saturating_sub(1)..start + length + 1;
        if text.iter().skip(apart.start).take(apart.len()).all(|c| *c == ' ') {
            label.chars().zip(text.iter_mut().skip(start)).for_each(|(from, to)| *to = from);
        }
    }
    let axis: String = std::iter::once('└').chain(axis).collect();
    [axis, text.into_iter().collect::<String>().trim_end().to_owned()].into_iter()
}

/// A time as exactly as the span asks for.
fn time_label(at: i64, first: i64, last: i64) -> String {
    const SECOND: i128 = 1_000_000_000;
    let civil = times::civil_utc(Timestamp::from_nanos(at));
    let span = i128::from(last) - i128::from(first);
    let date = || format!("{:04}-{:02}-{:02}", civil.year(), civil.month(), civil.day());
    let minute = || format!("{:02}:{:02}", civil.hour(), civil.minute());
    if span >= 4 * 86_400 * SECOND {
        date()
    } else if span >= 86_400 * SECOND {
        format!("{} {}", date(), minute())
    } else if span >= 600 * SECOND {
        minute()
    } else if span >= 5 * SECOND || span == 0 {
        format!("{}:{:02}", minute(), civil.second())
    } else {
        format!("{}:{:02}.{:06}", minute(), civil.second(), civil.subsec_nanosecond() / 1_000)
    }
}

/// Dots in braille cells.
struct Canvas {
    columns: usize,
    cells: Vec<u8>,
}

impl Canvas {
    fn new(columns: usize, rows: usize) -> Self {
        Canvas { columns, cells: vec![0; columns * rows] }
    }

    /// A straight line between two dots, both included; x grows to the right and y downward.
    fn line(&mut self, from: (i64, i64), to: (i64, i64)) {
        let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).max(1);
        let between = |from: i64, to: i64, step: i64| (from * (steps - step) + to * step + steps / 2) / steps;
        for step in 0..=steps {
            self.dot(between(from.0, to.0, step), between(from.1, to.1, step));
        }
    }

    fn dot(&mut self, x: i64, y: i64) {
        // The bits of a braille pattern by column and row of its cell.
        const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if let Some(cell) = self.cells.get_mut(y / 4 * self.columns + x / 2) {
            *cell |= BITS[x % 2][y % 4];
        }
    }

    fn row(&self, row: usize) -> String {
        let cells = self.cells.iter().skip(row * self.columns).take(self.columns);
        cells.map(|cell| if *cell == 0 { ' ' } else { braille(*cell) }).collect()
    }
}

fn braille(dots: u8) -> char {
    char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    fn draw(values: &[f64], width: usize, height: usize) -> Vec<String> {
        let at: Vec<i64> = (0..values.len() as i64).map(|i| i * MINUTE).collect();
        Chart { at: &at, values, width, height }.draw()
    }

    #[test]
    fn a_ramp_goes_from_the_lower_left_to_the_upper_right() {
        let ramp: Vec<f64> = (0..=20).map(f64::from).collect();
        let lines = draw(&ramp, 13, 3);
        assert_eq!(lines, ["20 ┤     ⢀⡠⠔⠊", "   │  ⢀⡠⠔⠉", " 0 ┤⡤⠒⠉", "   └┬───┬───┬", "   00:00"]);
    }

    #[test]
    fn no_line_is_wider_than_asked() {
        for width in [20, 40, 77, 120] {
            let values: Vec<f64> = (0..500).map(|i| f64::from(i).sin() * 1e9).collect();
            for line in draw(&values, width, 12) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn extreme_values_do_not_break_the_axis() {
        for values in [
            vec![f64::MAX, f64::MIN],
            vec![f64::MAX],
            vec![0.0],
            vec![5e-324, 0.0],
            vec![-1e-300, 1e300],
            vec![1e15, 1e15 + 0.125],
            vec![-0.0, -0.0],
            vec![f64::MIN, f64::MIN],
        ] {
            let lines = draw(&values, 60, 8);
            assert_eq!(lines.len(), 10, "{values:?}");
            let dots =
                lines.iter().flat_map(|line| line.chars()).filter(|c| ('\u{2801}'..='\u{28ff}').contains(c));
            assert!(dots.count() > 0, "{values:?}");
        }
    }

    #[test]
    fn values_that_are_not_finite_interrupt_the_line() {
        let whole = draw(&[1.0, 1.0, 1.0], 40, 4);
        let broken = draw(&[1.0, f64::NAN, 1.0], 40, 4);
        let dots = |lines: &[String]| {
            lines
                .iter()
                .flat_map(|line| line.chars())
                .filter(|c| ('\u{2801}'..='\u{28ff}').contains(c))
                .count()
        };
        assert!(dots(&whole) > 20);
        assert_eq!(dots(&broken), 2);
        assert!(draw(&[f64::NAN, f64::INFINITY], 40, 4).is_empty());
        assert!(draw(&[], 40, 4).is_empty());
    }

    #[test]
    fn ticks_are_round() {
        let labels =
            |low, high| Axis::around(low, high, 4).labels(13).into_iter().flatten().collect::<Vec<_>>();
        assert_eq!(labels(4.94, 16.21), ["20", "15", "10", "5", "0"]);
        assert_eq!(labels(0.0, 1.0), ["1.00", "0.75", "0.50", "0.25", "0.00"]);
        assert_eq!(labels(5.19e9, 19.3e9), ["20G", "15G", "10G", "5G"]);
        assert_eq!(labels(0.0, 15e6), ["15M", "10M", "5M", "0"]);
        assert_eq!(labels(-3.0, 3.0), ["4", "2", "0", "-2", "-4"]);
    }

    #[test]
    fn times_are_as_exact_as_the_span() {
        let label = |span: i64| time_label(1_700_000_000_123_456_789, 0, span);
        assert_eq!(label(MINUTE), "22:13:20");
        assert_eq!(label(60 * MINUTE), "22:13");
        assert_eq!(label(2 * 1440 * MINUTE), "2023-11-14 22:13");
        assert_eq!(label(400 * 1440 * MINUTE), "2023-11-14");
        assert_eq!(label(1_000), "22:13:20.123456");
    }

    #[test]
    fn the_ends_of_time_can_be_drawn() {
        let lines = Chart { at: &[i64::MIN, i64::MAX], values: &[1.0, 2.0], width: 60, height: 4 }.draw();
        let last = lines.last().expect("labels");
        assert!(last.contains("1677-09-21") && last.contains("2262-04-11"), "{last}");
    }
}
