//! `verify`: opens a database and reads every point of every metric.

use std::time::Instant;

use chronolith::{Metric, Snapshot};
use clap::Args;
use serde_json::json;

use crate::console::{Console, bytes, counted, duration, rate};
use crate::failure::{Chain, Outcome, Status};
use crate::ids;
use crate::open::{self, OpenArgs};
use crate::progress::Progress;

/// Read every point of every metric and report damage. Exit status 1 if there is any.
///
/// With --salvage a damaged database is opened with what is sound of it; the damage is still reported, with exit status 1.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    open: OpenArgs,
}

pub(crate) fn run(args: VerifyArgs, console: Console) -> Outcome {
    let begin = Instant::now();
    let db = args.open.existing(console).map_err(|mut failure| {
        if failure.damage {
            failure.status = Status::CheckFailed;
        }
        failure
    })?;
    let report = db.open_report();
    let mut damage = report.damage.clone();
    let salvaged = damage.len();

    let snapshot = db.snapshot();
    let metrics = open::sorted_metrics(&snapshot, None);
    let mut progress = Progress::count(console, metrics.len() as u64, "verifying");
    let mut points = 0;
    for (done, metric) in metrics.iter().enumerate() {
        let (read, problem) = read_all(&snapshot, metric);
        points += read;
        if let Some(problem) = problem {
            let (namespace, name) = (metric.namespace().name(), ids::readable(metric.name()));
            damage.push(format!("{namespace}:{name}, after {}: {problem}", counted(read, "point")));
        }
        progress.set(done as u64 + 1)?;
    }
    drop(progress);
    // Overwritten and deleted points count as stored, so there may be more of those, but never fewer.
    let stored = db.stats().points;
    if stored < points {
        damage.push(format!("{points} points were read, but the database counts {stored}"));
    }

    let elapsed = begin.elapsed();
    let mut out = console.out();
    if console.json {
        out.json(&json!({
            "sound": damage.is_empty(),
            "metrics": metrics.len(),
            "points": points,
            "damage": damage,
            "cut_bytes": report.cut_bytes,
            "clean": report.clean,
            "foreign_files": report.foreign_files,
            "damaged_files": report.damaged_files,
            "seconds": elapsed.as_secs_f64(),
        }))?;
    } else {
        out.line(format_args!(
            "read {} of {} in {} ({})",
            counted(points, "point"),
            counted(metrics.len() as u64, "metric"),
            duration(elapsed),
            rate(points, elapsed, "points"),
        ))?;
        out.line(format_args!(
            "commit log: {} in {}, {} replayed",
            bytes(report.log_bytes),
            counted(report.log_segments, "segment"),
            counted(report.commits_replayed, "commit"),
        ))?;
        // What salvaging passed over was told when the database was opened.
        for place in damage.iter().skip(salvaged) {
            out.line(format_args!("damage: {place}"))?;
        }
        match damage.len() {
            0 => out.line(out.style().green("sound: no damage found"))?,
            count => out.line(format_args!("{} found", counted(count as u64, "damaged place")))?,
        }
    }
    out.flush()?;
    Ok(if damage.is_empty() { Status::Done } else { Status::CheckFailed })
}

/// How many points could be read, and what ended it or is wrong with them.
fn read_all(snapshot: &Snapshot, metric: &Metric) -> (u64, Option<String>) {
    let mut points = 0;
    let mut previous: Option<i64> = None;
    for block in snapshot.blocks(metric, ..) {
        let block = match block {
            Ok(block) => block,
            Err(error) => return (points, Some(Chain(&error).to_string())),
        };
        if block.values().len() != block.timestamps().len() {
            return (points, Some("a block has more times than values".to_owned()));
        }
        for at in block.timestamps() {
            if previous.is_some_and(|previous| previous >= *at) {
                return (points, Some(format!("time {at} does not come after the one before it")));
            }
            previous = Some(*at);
            points += 1;
        }
    }
    (points, None)
}
