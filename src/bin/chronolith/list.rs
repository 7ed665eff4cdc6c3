//! `list`: the metrics of a database.

use std::ffi::OsString;

use chronolith::{Metric, Snapshot, Timestamp};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::console::{Console, counted, json_time, thousands};
use crate::failure::{Outcome, Status};
use crate::ids;
use crate::open::{self, ReadArgs};
use crate::progress::Progress;
use crate::times;

/// List the metrics, sorted by namespace and ID.
///
/// IDs are escaped where they are not printable (`\t`, `\n`, `\\`, `\xNN`); `query` and `export` take them as printed here. Metrics outside of the
/// namespace `default` have it before them, `NAMESPACE:ID`, and are found by that as well.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    read: ReadArgs,
    /// Only metrics whose ID contains this text.
    #[arg(value_name = "TEXT")]
    containing: Option<OsString>,
    /// Only this namespace.
    #[arg(long)]
    namespace: Option<String>,
    /// The number of points and the first and last time as well. Reads all points.
    #[arg(short, long)]
    long: bool,
    /// The tags as well, behind the ID.
    #[arg(long)]
    tags: bool,
}

pub(crate) fn run(args: ListArgs, console: Console) -> Outcome {
    let db = args.read.open(console)?;
    let snapshot = db.snapshot();
    let namespace = args.namespace.map(|name| open::namespace(&snapshot, &name)).transpose()?;
    let mut metrics = open::sorted_metrics(&snapshot, namespace.as_ref());
    if let Some(text) =
        args.containing.as_deref().map(|text| text.as_encoded_bytes()).filter(|text| !text.is_empty())
    {
        metrics.retain(|metric| metric.name().windows(text.len()).any(|window| window == text));
    }

    let mut out = console.out();
    let style = out.style();
    if args.long && !console.json {
        out.line(style.dim(format_args!("{:>12}  {:<24}  {:<24}  metric", "points", "first", "last")))?;
    }
    let mut progress = Progress::beside_output(console, metrics.len() as u64, "reading");
    for (done, metric) in metrics.iter().enumerate() {
        let extent = if args.long { Some(Extent::of(&snapshot, metric)?) } else { None };
        if console.json {
            out.json(&json_line(metric, extent.as_ref(), args.tags))?;
        } else {
            let name = ids::readable(metric.name());
            let name = match metric.namespace().name() {
                "default" => name,
                namespace => {
                    let namespace = ids::readable(namespace.as_bytes());
                    format!("{}{name}", style.dim(format_args!("{namespace}:")))
                }
            };
            let name = if args.tags { name + &ids::tags(metric.tags()) } else { name };
            match extent {
                None => out.line(name)?,
                Some(extent) => out.line(format_args!("{extent}  {name}"))?,
            }
        }
        progress.set(done as u64 + 1)?;
    }
    drop(progress);
    if out.terminal && !console.json {
        out.line(style.dim(counted(metrics.len() as u64, "metric")))?;
    }
    out.flush()?;
    Ok(Status::Done)
}

fn json_line(metric: &Metric, extent: Option<&Extent>, tags: bool) -> Value {
    let mut object = Map::new();
    object.insert("namespace".to_owned(), json!(metric.namespace().name()));
    ids::put_json(&mut object, metric.name());
    if tags {
        object.insert("tags".to_owned(), ids::json_tags(metric.tags()));
    }
    if let Some(extent) = extent {
        object.insert("points".to_owned(), json!(extent.points));
        object.insert("first_ns".to_owned(), extent.ends.map_or(Value::Null, |ends| json_time(ends.0)));
        object.insert("last_ns".to_owned(), extent.ends.map_or(Value::Null, |ends| json_time(ends.1)));
    }
    Value::Object(object)
}

/// How much there is of a metric.
struct Extent {
    points: u64,
    ends: Option<(Timestamp, Timestamp)>,
}

impl Extent {
    fn of(snapshot: &Snapshot, metric: &Metric) -> Outcome<Self> {
        let mut extent = Extent { points: 0, ends: None };
        for block in snapshot.blocks(metric, ..) {
            let block = block?;
            extent.points += block.len() as u64;
            if let (Some(first), Some(last)) = (block.timestamps().first(), block.timestamps().last()) {
                let first = extent.ends.map_or(Timestamp::from_nanos(*first), |ends| ends.0);
                extent.ends = Some((first, Timestamp::from_nanos(*last)));
            }
        }
        Ok(extent)
    }
}

impl std::fmt::Display for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [first, last] = match self.ends {
            Some((first, last)) => [times::rfc3339(first), times::rfc3339(last)],
            None => ["-".to_owned(), "-".to_owned()],
        };
        write!(f, "{:>12}  {first:<24}  {last:<24}", thousands(self.points))
    }
}
