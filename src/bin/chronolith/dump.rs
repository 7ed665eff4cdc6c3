//! `dump`: every point, bit by bit, in one order: what two databases are compared by.

use std::fmt::Write;

use chronolith::{Metric, Snapshot};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::console::{Console, Out};
use crate::failure::{Outcome, Status};
use crate::ids;
use crate::open::{self, ReadArgs};
use crate::progress::Progress;

/// Print every point with the bits of its value, sorted.
///
/// A line is `namespace<TAB>metric<TAB>timestamp_ns<TAB>value bits`, the bits as 16 hex digits. Lines are sorted by namespace, metric (as bytes) and time. In
/// names, tab, newline and backslash are `\t`, `\n`, `\\`, and every other byte outside of printable ASCII is `\xNN`.
#[derive(Args, Debug)]
pub(crate) struct DumpArgs {
    #[command(flatten)]
    read: ReadArgs,
    /// A fifth column: the annotation in hex, empty where there is none.
    #[arg(long)]
    annotations: bool,
}

pub(crate) fn run(args: DumpArgs, console: Console) -> Outcome {
    let db = args.read.open(console)?;
    let snapshot = db.snapshot();
    let metrics = open::sorted_metrics(&snapshot, None);
    let mut out = console.out();
    let mut progress = Progress::beside_output(console, metrics.len() as u64, "dumping");
    for (done, metric) in metrics.iter().enumerate() {
        if console.json {
            write_json(&snapshot, metric, args.annotations, &mut out)?;
        } else {
            write_lines(&snapshot, metric, args.annotations, &mut out)?;
        }
        progress.set(done as u64 + 1)?;
    }
    drop(progress);
    out.flush()?;
    Ok(Status::Done)
}

fn write_lines(snapshot: &Snapshot, metric: &Metric, annotations: bool, out: &mut Out) -> Outcome<()> {
    let mut line =
        format!("{}\t{}\t", ids::ascii(metric.namespace().name().as_bytes()), ids::ascii(metric.name()));
    let prefix = line.len();
    for_each_point(snapshot, metric, |at, value, annotation| {
        line.truncate(prefix);
        // Writing to a string cannot fail.
        let _ = write!(line, "{at}\t{:016x}", value.to_bits());
        if annotations {
            line.push('\t');
            line.push_str(&ids::hex(annotation));
        }
        line.push('\n');
        out.bytes(line.as_bytes())
    })
}

fn write_json(snapshot: &Snapshot, metric: &Metric, annotations: bool, out: &mut Out) -> Outcome<()> {
    let mut object = Map::new();
    object.insert("namespace".to_owned(), json!(metric.namespace().name()));
    ids::put_json(&mut object, metric.name());
    for_each_point(snapshot, metric, |at, value, annotation| {
        object.insert("ts_ns".to_owned(), json!(at));
        object.insert("bits".to_owned(), json!(format!("{:016x}", value.to_bits())));
        if annotations {
            object.insert("annotation_hex".to_owned(), json!(ids::hex(annotation)));
        }
        out.json(&Value::Object(object.clone()))
    })
}

/// Calls `f` with each point's nanoseconds, value and annotation, empty where there is none.
fn for_each_point(
    snapshot: &Snapshot,
    metric: &Metric,
    mut f: impl FnMut(i64, f64, &[u8]) -> Outcome<()>,
) -> Outcome<()> {
    for block in snapshot.blocks(metric, ..) {
        let block = block?;
        let mut annotations = block.annotations().iter().peekable();
        for (index, (at, value)) in block.timestamps().iter().zip(block.values()).enumerate() {
            let annotation = annotations.next_if(|(place, _)| *place as usize == index);
            f(*at, *value, annotation.map_or(&[], |(_, bytes)| bytes))?;
        }
    }
    Ok(())
}
