//! Figures over time, one panel below the other: as SVG, and as characters.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 64.0;
/// Where names of lines stand.
const RIGHT: f64 = 190.0;
const PANEL: f64 = 120.0;
/// Between two panels, where the title of the next stands.
const BETWEEN: f64 = 52.0;
const BOTTOM: f64 = 44.0;
/// Two names are at least so far apart.
const NAME_HEIGHT: f64 = 15.0;
/// Characters of a line on the terminal.
const COLUMNS: usize = 72;
const ROWS: usize = 5;
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Legible on light and on dark: the background is drawn too.
const STYLE: &str = "
  .ground { fill: #ffffff } text { fill: #3c3c3c; font: 12px system-ui, sans-serif } .title { font-weight: 600 }
  .grid { stroke: #dddddd } .axis { stroke: #888888 } .line { fill: none; stroke-width: 1.8; stroke-linejoin: round }
  .line0 { stroke: #b3430e } .name0, .dot0 { fill: #b3430e } .line1 { stroke: #1260a8 } .name1, .dot1 { fill: #1260a8 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #14171c } text { fill: #d0d0d0 } .grid { stroke: #33383f } .axis { stroke: #808790 }
    .line0 { stroke: #ff9d5c } .name0, .dot0 { fill: #ff9d5c } .line1 { stroke: #6fb7ff } .name1, .dot1 { fill: #6fb7ff }
  }
";

/// Panels with one x axis, which begins at 0.
pub(crate) struct Picture {
    pub(crate) x_title: &'static str,
    pub(crate) x_max: f64,
    /// Between two labels.
    pub(crate) x_step: f64,
    pub(crate) panels: Vec<Panel>,
}

/// Lines with one y axis, which begins at 0. At most two.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) lines: Vec<Line>,
}

/// Points by x.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Panel {
    fn heading(&self) -> String {
        match self.unit {
            "" => self.title.to_owned(),
            unit => format!("{}, {unit}", self.title),
        }
    }

    /// The step between two labels, and the last label.
    fn y_axis(&self) -> (f64, f64) {
        let values = self.lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y);
        let most = values.fold(0.0, f64::max);
        let step = round_step(if most > 0.0 { most / 4.0 } else { 0.25 });
        (step, step * (most / step).ceil().max(1.0))
    }
}

impl Picture {
    /// The picture as a file.
    pub(crate) fn svg(&self) -> String {
        let height = self.panels.len() as f64 * (BETWEEN + PANEL) + BOTTOM;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n<style>{STYLE}</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n"
        );
        for (place, panel) in self.panels.iter().enumerate() {
            let top = place as f64 * (BETWEEN + PANEL) + BETWEEN;
            self.draw(panel, top, &mut svg);
        }
        let (x, y) = (LEFT + self.width() / 2.0, height - 8.0);
        text(&mut svg, (x, y), "middle", "", self.x_title);
        svg.push_str("</svg>\n");
        svg
    }

    fn width(&self) -> f64 {
        WIDTH - LEFT - RIGHT
    }

    fn draw(&self, panel: &Panel, top: f64, svg: &mut String) {
        let (y_step, y_max) = panel.y_axis();
        let x_step = self.x_step;
        let x_of = |x: f64| LEFT + x / self.x_max * self.width();
        let y_of = |y: f64| top + PANEL * (1.0 - y / y_max);
        let (right, bottom) = (LEFT + self.width(), top + PANEL);
        text(svg, (LEFT, top - 12.0), "start", "title", &panel.heading());
        let mut y = 0.0;
        while y <= y_max * 1.001 {
            let class = if y == 0.0 { "axis" } else { "grid" };
            segment(svg, class, (LEFT, y_of(y)), (right, y_of(y)));
            text(svg, (LEFT - 8.0, y_of(y) + 4.0), "end", "", &label(y, y_step));
            y += y_step;
        }
        let mut x = 0.0;
        while x <= self.x_max * 1.001 {
            segment(svg, "axis", (x_of(x), bottom), (x_of(x), bottom + 4.0));
            text(svg, (x_of(x), bottom + 16.0), "middle", "", &label(x, x_step));
            x += x_step;
        }
        let mut names: Vec<(f64, usize)> = Vec::new();
        for (number, line) in panel.lines.iter().enumerate() {
            let points = || line.points.iter().map(|(x, y)| (x_of(*x), y_of(*y)));
            let path: Vec<String> = points().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(svg, "<polyline class=\"line line{number}\" points=\"{}\"/>", path.join(" "));
            // Few points are seen as such.
            for (x, y) in points().filter(|_| line.points.len() <= 16) {
                let _ = writeln!(svg, "<circle class=\"dot{number}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
            }
            names.extend(points().next_back().map(|(_, y)| (y, number)));
        }
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free = f64::MIN;
        for (y, number) in names {
            let y = y.max(free);
            free = y + NAME_HEIGHT;
            let class = format!("name{number}");
            text(svg, (right + 8.0, y + 4.0), "start", &class, panel.lines[number].name);
        }
    }

    /// Prints each line as bars, with its most at the left.
    pub(crate) fn print(&self) {
        for panel in &self.panels {
            for line in &panel.lines {
                let most = line.points.iter().map(|(_, y)| *y).fold(0.0, f64::max);
                println!("{}: {}", panel.heading(), line.name);
                for (row, bars) in self.bars(line, most).iter().enumerate() {
                    let label = match row {
                        0 => label(most, most / 50.0),
                        row if row == ROWS - 1 => "0".to_owned(),
                        _ => String::new(),
                    };
                    println!("{label:>9} │{bars}");
                }
                println!("{:>9} └{}", "", "─".repeat(COLUMNS));
            }
        }
        println!("{:>9}  0{:>2$.0} {3}", "", self.x_max, COLUMNS - 1, self.x_title);
    }

    /// The rows of a line, the upper one first. A column without points repeats the one before.
    fn bars(&self, line: &Line, most: f64) -> Vec<String> {
        let mut columns = vec![None; COLUMNS];
        for (x, y) in &line.points {
            let column = ((x / self.x_max * COLUMNS as f64).ceil() as usize).clamp(1, COLUMNS) - 1;
            columns[column] = columns[column].max(Some((y / most * (ROWS * 8) as f64).round() as usize));
        }
        let mut last = 0;
        let eighths: Vec<usize> = columns
            .into_iter()
            .map(|eighths| {
                last = eighths.unwrap_or(last);
                last
            })
            .collect();
        let row =
            |above: usize| eighths.iter().map(move |eighths| BARS[eighths.saturating_sub(above * 8).min(8)]);
        (0..ROWS).rev().map(|above| row(above).collect::<String>().trim_end().to_owned()).collect()
    }
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    let magnitude = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|factor| factor * magnitude)
        .into_iter()
        .find(|step| *step >= least)
        .unwrap_or(10.0 * magnitude)
}

/// A number with the decimals that its step needs.
fn label(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, class: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn segment(svg: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}
