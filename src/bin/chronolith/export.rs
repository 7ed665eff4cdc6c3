//! `export`: a namespace's points as CSV.

use std::ffi::OsString;

use chronolith::{Metric, Snapshot};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::console::{Console, Out, json_value, push_value};
use crate::failure::{Failure, Outcome, Status};
use crate::ids;
use crate::open::{self, ReadArgs};
use crate::progress::Progress;
use crate::rows::{Loss, Unit, id_field};

/// Print a namespace's points as CSV that `import` reads.
///
/// Times are milliseconds (`series,ts_ms,value`) if that is exact for every point, else nanoseconds (`ts_ns`). Values parse back to the same bits,
/// except that each NaN is `NaN`, whatever its sign and payload; annotations have no column. `dump` keeps every bit.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    read: ReadArgs,
    /// Only these metrics, all of one namespace: IDs as they are or as `list` prints them, with or without it.
    #[arg(value_name = "METRIC")]
    metrics: Vec<OsString>,
    /// The namespace to export.
    #[arg(long, default_value = "default")]
    namespace: String,
}

pub(crate) fn run(args: ExportArgs, console: Console) -> Outcome {
    let db = args.read.open(console)?;
    let snapshot = db.snapshot();
    let namespace = open::namespace(&snapshot, &args.namespace)?;
    let metrics = if args.metrics.is_empty() {
        open::sorted_metrics(&snapshot, Some(&namespace))
    } else {
        args.metrics.iter().map(|id| open::metric(&snapshot, &namespace, id)).collect::<Outcome<Vec<_>>>()?
    };
    // The rows do not say which namespace they are of.
    let namespace = metrics.first().map_or(namespace, |metric| metric.namespace().clone());
    if let Some(other) = metrics.iter().find(|metric| *metric.namespace() != namespace) {
        let (other, namespace) = (ids::with_namespace(other), namespace.name());
        return Err(Failure::input(format_args!("{other} is not in namespace {namespace}, as others are"))
            .hint("export one namespace after the other"));
    }
    let unit =
        if milliseconds_are_exact(&snapshot, &metrics)? { Unit::Millisecond } else { Unit::Nanosecond };

    let mut out = console.out();
    if !console.json {
        out.line(format_args!("series,{},value", unit.column()))?;
    }
    let mut progress = Progress::beside_output(console, metrics.len() as u64, "exporting");
    let mut loss = Loss::default();
    for (done, metric) in metrics.iter().enumerate() {
        if console.json {
            write_json(&snapshot, metric, &mut out, &mut loss)?;
        } else {
            write_csv(&snapshot, metric, unit, &mut out, &mut loss)?;
        }
        progress.set(done as u64 + 1)?;
    }
    drop(progress);
    out.flush()?;
    loss.tell(console);
    let others =
        snapshot.namespaces().filter(|other| *other != namespace).map(|other| other.name().to_owned());
    let others: Vec<String> = others.collect();
    if !others.is_empty() {
        console.note(format_args!("note: not exported: namespace {} (see --namespace)", others.join(", ")));
    }
    Ok(Status::Done)
}

fn milliseconds_are_exact(snapshot: &Snapshot, metrics: &[Metric]) -> Outcome<bool> {
    let nanos = Unit::Millisecond.nanos();
    for metric in metrics {
        for block in snapshot.blocks(metric, ..) {
            if block?.timestamps().iter().any(|at| at % nanos != 0) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn write_csv(
    snapshot: &Snapshot,
    metric: &Metric,
    unit: Unit,
    out: &mut Out,
    loss: &mut Loss,
) -> Outcome<()> {
    use std::fmt::Write;
    let prefix = id_field(metric.name());
    let mut rest = String::new();
    for block in snapshot.blocks(metric, ..) {
        let block = block?;
        loss.annotations += block.annotations().len() as u64;
        for (at, value) in block.timestamps().iter().zip(block.values()) {
            loss.see(*value);
            rest.clear();
            // Writing to a string cannot fail.
            let _ = write!(rest, "{},", at / unit.nanos());
            push_value(&mut rest, *value);
            rest.push('\n');
            out.bytes(&prefix)?;
            out.bytes(rest.as_bytes())?;
        }
    }
    Ok(())
}

/// A line for each point. Times are nanoseconds.
fn write_json(snapshot: &Snapshot, metric: &Metric, out: &mut Out, loss: &mut Loss) -> Outcome<()> {
    let mut object = Map::new();
    ids::put_json(&mut object, metric.name());
    for block in snapshot.blocks(metric, ..) {
        let block = block?;
        loss.annotations += block.annotations().len() as u64;
        for (at, value) in block.timestamps().iter().zip(block.values()) {
            loss.see(*value);
            let mut line = object.clone();
            line.insert("ts_ns".to_owned(), json!(at));
            line.insert("value".to_owned(), json_value(*value));
            out.json(&Value::Object(line))?;
        }
    }
    Ok(())
}
