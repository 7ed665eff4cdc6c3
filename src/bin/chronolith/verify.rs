//! `verify`: opens a database, reads every volume, and every point of every metric.

use std::collections::HashSet;
use std::time::Instant;

use chronolith::{Error, Metric, Snapshot, SnapshotVolume};
use clap::Args;
use serde_json::json;

use crate::console::{Console, bytes, counted, duration, rate};
use crate::failure::{Chain, Outcome, Status};
use crate::ids;
use crate::open::{self, ReadArgs};
use crate::progress::Progress;
use crate::volume::damage::DamageList;
use crate::volume::verify::place_of;

/// Read every volume, and every point of every metric, and report damage. Exit status 1 if there is any.
///
/// With --salvage a database whose log is damaged is opened with what is sound of it; the damage is still reported, with exit status 1.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    read: ReadArgs,
}

pub(crate) fn run(args: VerifyArgs, console: Console) -> Outcome {
    let begin = Instant::now();
    let db = args.read.open(console).map_err(|mut failure| {
        if failure.damage {
            failure.status = Status::CheckFailed;
        }
        failure
    })?;
    let report = db.open_report();
    let mut damage = DamageList::default();
    damage.extend(report.damage.iter().cloned());
    let salvaged = damage.places().len();

    let snapshot = db.snapshot();
    let mut read = Read { known: HashSet::new(), damage, points: 0, incomplete: 0 };
    let volumes: Vec<SnapshotVolume> = snapshot.volumes().collect();
    let mut damaged_volumes = 0_u64;
    let mut progress = Progress::count(console, volumes.len() as u64, "verifying volumes");
    for (done, volume) in volumes.iter().enumerate() {
        damaged_volumes += u64::from(!read.volume(volume));
        progress.set(done as u64 + 1)?;
    }
    drop(progress);
    let metrics = open::sorted_metrics(&snapshot, None);
    let mut progress = Progress::count(console, metrics.len() as u64, "verifying");
    for (done, metric) in metrics.iter().enumerate() {
        read.metric(&snapshot, metric);
        progress.set(done as u64 + 1)?;
    }
    drop(progress);
    let Read { mut damage, points, incomplete, .. } = read;
    // Overwritten and deleted points count as stored, so there may be more of those, but never fewer.
    let (sealed, in_memory) = (db.sealed_stats(), db.stats().points);
    let stored = in_memory + sealed.points;
    if stored < points && sealed.uncounted == 0 {
        damage.push(format!("{points} points were read, but the database counts {stored}"));
    }

    let elapsed = begin.elapsed();
    let mut out = console.out();
    if console.json {
        out.json(&json!({
            "sound": damage.is_empty(),
            "metrics": metrics.len(),
            "metrics_incomplete": incomplete,
            "points": points,
            "memory_points": in_memory,
            "sealed_points": sealed.points,
            "volumes": volumes.len(),
            "volumes_damaged": damaged_volumes,
            "volume_bytes": sealed.file_bytes,
            "damaged_places": damage.count(),
            "damage": damage.places(),
            "cut_bytes": report.cut_bytes,
            "clean": report.clean,
            "checkpoint": report.checkpoint.get(),
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
        if report.checkpoint.get() > 0 {
            out.line(format_args!("checkpoint: of version {}", report.checkpoint))?;
        }
        out.line(format_args!(
            "commit log: {} in {}, {} replayed",
            bytes(report.log_bytes),
            counted(report.log_segments, "segment"),
            counted(report.commits_replayed, "commit"),
        ))?;
        if !volumes.is_empty() {
            out.line(format_args!(
                "volumes: {} in {}, {}",
                bytes(sealed.file_bytes),
                counted(volumes.len() as u64, "volume"),
                match damaged_volumes {
                    0 => "each checksum right".to_owned(),
                    count => format!("{count} of them damaged"),
                },
            ))?;
        }
        // What salvaging passed over was told when the database was opened.
        for place in damage.places().iter().skip(salvaged) {
            out.line(format_args!("damage: {place}"))?;
        }
        if damage.count() > damage.places().len() as u64 {
            out.line(format_args!(
                "damage: {} more",
                counted(damage.count() - damage.places().len() as u64, "place")
            ))?;
        }
        if incomplete > 0 {
            out.line(format_args!("{} cannot be read whole", counted(incomplete, "metric")))?;
        }
        match damage.count() {
            0 => out.line(out.style().green("sound: no damage found"))?,
            count => {
                out.line(format_args!("{} found", counted(count, "damaged place")))?;
                out.line(
                    "`chronolith repair DIR --dry-run` says what can be kept; nothing is changed by that",
                )?;
            }
        }
    }
    out.flush()?;
    Ok(if damage.is_empty() { Status::Done } else { Status::CheckFailed })
}

/// What was read, and what is wrong with it.
struct Read {
    /// Damaged places that are in the list: many metrics may be in one.
    known: HashSet<u64>,
    damage: DamageList,
    points: u64,
    /// Metrics of which something could not be read.
    incomplete: u64,
}

impl Read {
    /// Checks all of a volume, and returns whether it is sound.
    fn volume(&mut self, volume: &SnapshotVolume) -> bool {
        let errors = volume.verify();
        for error in &errors {
            self.add(error, || Chain(error).to_string());
        }
        errors.is_empty()
    }

    /// Reads all of a metric that can be read.
    fn metric(&mut self, snapshot: &Snapshot, metric: &Metric) {
        let name = || format!("{}:{}", metric.namespace().name(), ids::readable(metric.name()));
        let (mut points, mut is_whole) = (0, true);
        let mut previous: Option<i64> = None;
        for block in snapshot.blocks(metric, ..) {
            let block = match block {
                Ok(block) => block,
                Err(error) => {
                    is_whole = false;
                    self.add(&error, || {
                        format!("{}, after {}: {}", name(), counted(points, "point"), Chain(&error))
                    });
                    continue;
                }
            };
            let times = block.timestamps();
            if block.values().len() != times.len() {
                self.damage.push(format!("{}: a block has more times than values", name()));
                is_whole = false;
            }
            if let Some(at) = times.iter().find(|at| !follows(&mut previous, **at)) {
                self.damage.push(format!("{}: time {at} does not come after the one before it", name()));
                is_whole = false;
            }
            points += times.len() as u64;
        }
        self.points += points;
        self.incomplete += u64::from(!is_whole);
    }

    /// Lists an error, unless its place is listed.
    fn add(&mut self, error: &Error, told: impl FnOnce() -> String) {
        if self.known.insert(place_of(error)) {
            self.damage.push(told());
        }
    }
}

/// Whether a time comes after the one before it, which it is for the next.
fn follows(previous: &mut Option<i64>, at: i64) -> bool {
    previous.replace(at).is_none_or(|previous| previous < at)
}
