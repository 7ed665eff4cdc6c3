//! `query`: one metric's points.

use std::ffi::OsString;
use std::fmt::Write;
use std::ops::Bound;

use chronolith::{Metric, Point, Snapshot, Timestamp};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::chart::Chart;
use crate::console::{self, Console, Out, counted, json_value, push_value, value};
use crate::failure::{Failure, Outcome, Status};
use crate::ids;
use crate::open::{self, ReadArgs};
use crate::progress::Progress;
use crate::rows::{Loss, id_field};
use crate::times;

/// Rows of a table on a terminal that nobody limited: this many from the beginning, and as many from the end.
const TABLE_END_ROWS: usize = 10;
/// One more than a multiple of 3 and 4, so that ticks are evenly apart.
const CHART_ROWS: usize = 13;
/// Points between two looks at the clock.
const PROGRESS_POINTS: usize = 1024;

/// Print one metric's points in time order.
///
/// On a terminal that is a chart and a table (shortened in its middle, unless --limit is given), elsewhere CSV. With --json it is one object with
/// `[ns, value]` for each point, and the annotation in hex after it where there is one; --format and --chart do not go with that.
#[derive(Args, Debug)]
pub(crate) struct QueryArgs {
    #[command(flatten)]
    read: ReadArgs,
    /// The metric's ID, as it is or as `list` prints it, with or without its namespace.
    metric: OsString,
    /// The metric's namespace.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Points from this time on.
    ///
    /// An integer is nanoseconds since the Unix epoch, or has a unit: 1700000000s, ...ms, ...us, ...ns. RFC 3339 and, in UTC, dates and datetimes
    /// without a zone are understood as well: 2023-11-14T22:13:20Z, 2023-11-14.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    from: Option<Timestamp>,
    /// Points before this time; written as in --from.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    to: Option<Timestamp>,
    /// At most this many points.
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// From the end: the last point, or with --limit the last COUNT points.
    #[arg(long)]
    last: bool,
    /// How to print the points.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Draw a chart; on its own where the output is no terminal.
    #[arg(long)]
    chart: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns, for people.
    Table,
    /// `series,ts_ns,value`, as `import` reads it.
    Csv,
    /// `timestamp_ns<TAB>value`.
    Tsv,
}

pub(crate) fn run(args: QueryArgs, console: Console) -> Outcome {
    if console.json && (args.format.is_some() || args.chart) {
        let message = "--json is a format of its own, and has no chart";
        return Err(Failure::new(Status::Usage, message).hint("leave out --format and --chart, or --json"));
    }
    let db = args.read.open(console)?;
    let snapshot = db.snapshot();
    let namespace = open::namespace(&snapshot, &args.namespace)?;
    let metric = open::metric(&snapshot, &namespace, &args.metric)?;

    let mut out = console.out();
    let format = match args.format {
        None if out.terminal => Some(Format::Table),
        None if args.chart => None,
        None => Some(Format::Csv),
        given => given,
    };
    let rows = match format {
        _ if console.json => Some(Rows::Json),
        Some(Format::Csv) => Some(Rows::Csv),
        Some(Format::Tsv) => Some(Rows::Tsv),
        Some(Format::Table) | None => None,
    };
    // A drawing needs all points at once; rows need one at a time, however many there are.
    if args.chart || rows.is_none() {
        let mut progress = Progress::tally(console, "reading");
        let points = points(&snapshot, &metric, &args)?.enumerate().map(|(done, point)| {
            if done.is_multiple_of(PROGRESS_POINTS) {
                progress.set(done as u64)?;
            }
            Ok(point?)
        });
        let points = points.collect::<Outcome<Vec<Point>>>()?;
        drop(progress);
        if args.chart || (args.format.is_none() && points.len() > 2) {
            write_chart(&metric, &points, &mut out)?;
        }
        if format == Some(Format::Table) {
            write_table(&points, args.limit.is_some() || !out.terminal, &mut out)?;
        }
    }
    if let Some(rows) = rows {
        let loss = write_rows(rows, &metric, points(&snapshot, &metric, &args)?, console, &mut out)?;
        out.flush()?;
        loss.tell(console);
    }
    out.flush()?;
    Ok(Status::Done)
}

/// The points asked for, in time order.
fn points(
    snapshot: &Snapshot,
    metric: &Metric,
    args: &QueryArgs,
) -> Outcome<impl Iterator<Item = chronolith::Result<Point>>> {
    let mut from = args.from.map_or(Bound::Unbounded, Bound::Included);
    let to = args.to.map_or(Bound::Unbounded, Bound::Excluded);
    let mut limit = args.limit.unwrap_or(if args.last { 1 } else { usize::MAX });
    if args.last && limit > 0 {
        // Back to the first of them, then forth: that takes time twice instead of room for all.
        for point in snapshot.range(metric, (from, to)).rev().take(limit) {
            from = Bound::Included(point?.at);
        }
        limit = usize::MAX;
    }
    Ok(snapshot.range(metric, (from, to)).take(limit))
}

/// How points are printed that are not drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    Csv,
    Tsv,
    /// One object, with an array of `[ns, value]` or `[ns, value, annotation]`.
    Json,
}

/// Prints points as they come. Returns what the rows could not hold.
fn write_rows(
    rows: Rows,
    metric: &Metric,
    points: impl Iterator<Item = chronolith::Result<Point>>,
    console: Console,
    out: &mut Out,
) -> Outcome<Loss> {
    let mut loss = Loss::default();
    let mut progress = Progress::tally_beside_output(console, "reading");
    let id = match rows {
        Rows::Csv => id_field(metric.name()),
        Rows::Tsv | Rows::Json => Vec::new(),
    };
    match rows {
        Rows::Csv => out.line("series,ts_ns,value")?,
        Rows::Tsv => {}
        Rows::Json => out.bytes(json_head(metric).as_bytes())?,
    }
    let mut rest = String::new();
    for (done, point) in points.enumerate() {
        let point = point?;
        loss.see(point.value);
        loss.annotations += u64::from(rows != Rows::Json && point.annotation.is_some());
        rest.clear();
        match rows {
            Rows::Csv => push_columns(&mut rest, &point, ','),
            Rows::Tsv => push_columns(&mut rest, &point, '\t'),
            Rows::Json => push_json(&mut rest, &point, done == 0),
        }
        out.bytes(&id)?;
        out.bytes(rest.as_bytes())?;
        if done.is_multiple_of(PROGRESS_POINTS) {
            progress.set(done as u64)?;
        }
    }
    if rows == Rows::Json {
        out.line("]}")?;
    }
    Ok(loss)
}

/// A row but for the ID.
fn push_columns(text: &mut String, point: &Point, separator: char) {
    // Writing to a string cannot fail.
    let _ = write!(text, "{}{separator}", point.at);
    push_value(text, point.value);
    text.push('\n');
}

/// The object up to its first point.
fn json_head(metric: &Metric) -> String {
    let mut object = Map::new();
    object.insert("namespace".to_owned(), json!(metric.namespace().name()));
    ids::put_json(&mut object, metric.name());
    let object = Value::Object(object).to_string();
    format!("{},\"points\":[", object.strip_suffix('}').unwrap_or(&object))
}

fn push_json(text: &mut String, point: &Point, first: bool) {
    let mut pair = vec![json!(point.at.as_nanos()), json_value(point.value)];
    pair.extend(point.annotation.as_deref().map(|annotation| json!(ids::hex(annotation))));
    // Writing to a string cannot fail.
    let _ = write!(text, "{}{}", if first { "" } else { "," }, Value::Array(pair));
}

fn write_chart(metric: &Metric, points: &[Point], out: &mut Out) -> Outcome<()> {
    let style = out.style();
    out.line(format_args!("{}  {}", style.bold(ids::readable(metric.name())), style.dim(summary(points))))?;
    let at: Vec<i64> = points.iter().map(|point| point.at.as_nanos()).collect();
    let values: Vec<f64> = points.iter().map(|point| point.value).collect();
    for line in (Chart { at: &at, values: &values, width: console::width(), height: CHART_ROWS }).draw() {
        out.line(line)?;
    }
    Ok(())
}

/// `2,100 points, 4.94 to 16.21; times in UTC`.
fn summary(points: &[Point]) -> String {
    let finite = || points.iter().map(|point| point.value).filter(|value| value.is_finite());
    let count = counted(points.len() as u64, "point");
    match (finite().reduce(f64::min), finite().reduce(f64::max)) {
        (Some(low), Some(high)) => format!("{count}, {} to {}; times in UTC", value(low), value(high)),
        _ => count,
    }
}

fn write_table(points: &[Point], whole: bool, out: &mut Out) -> Outcome<()> {
    let style = out.style();
    let whole = whole || points.len() <= 2 * TABLE_END_ROWS + 1;
    let (head, tail) = match whole {
        true => (points, &[][..]),
        false => (&points[..TABLE_END_ROWS], &points[points.len() - TABLE_END_ROWS..]),
    };
    let shown = || head.iter().chain(tail);
    let width =
        |text: fn(&Point) -> String| shown().map(|point| text(point).chars().count()).max().unwrap_or(0);
    let time_width = width(|point| times::rfc3339(point.at));
    let value_width = width(|point| value(point.value)).max("value".len());
    out.line(style.dim(format_args!("{:<time_width$}  {:>value_width$}", "time", "value")))?;
    for (row, point) in shown().enumerate() {
        if !whole && row == head.len() {
            let hidden = counted((points.len() - head.len() - tail.len()) as u64, "more point");
            out.line(style.dim(format_args!("... {hidden} (--limit COUNT, or --format csv for all) ...")))?;
        }
        let annotation =
            point.annotation.as_deref().map_or(String::new(), |bytes| format!("  {}", ids::readable(bytes)));
        let (time, number) = (times::rfc3339(point.at), value(point.value));
        out.line(format_args!("{time:<time_width$}  {number:>value_width$}{annotation}"))?;
    }
    if points.is_empty() {
        out.line(style.dim("no points in this range"))?;
    }
    Ok(())
}
