//! `stats`: figures of a database.

use std::path::Path;

use clap::Args;
use serde_json::json;

use crate::console::{Console, bytes, duration, thousands};
use crate::failure::{Outcome, Status};
use crate::open::OpenArgs;

/// Print figures: metrics, points, memory, log, and what opening found.
#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    open: OpenArgs,
}

pub(crate) fn run(args: StatsArgs, console: Console) -> Outcome {
    let db = args.open.existing(console)?;
    let (stats, report) = (db.stats(), db.open_report());
    let disk_bytes = folder_bytes(&args.open.dir);
    let bytes_per_point = (stats.points > 0).then(|| stats.stream_bytes as f64 / stats.points as f64);

    let mut out = console.out();
    if console.json {
        out.json(&json!({
            "version": stats.version.get(),
            "namespaces": stats.namespaces,
            "metrics": stats.metrics,
            "partitions": stats.partitions,
            "points": stats.points,
            "stream_bytes": stats.stream_bytes,
            "bytes_per_point": bytes_per_point,
            "side_entries": stats.side_entries,
            "tombstones": stats.tombstones,
            "marks": stats.marks,
            "marks_max": stats.marks_max,
            "log_bytes": stats.log_bytes,
            "live_snapshots": stats.live_snapshots,
            "held_versions": stats.held_versions,
            "disk_bytes": disk_bytes,
            "stopped": stats.stopped,
            "open": {
                "clean": report.clean,
                "seconds": report.elapsed.as_secs_f64(),
                "log_segments": report.log_segments,
                "log_bytes": report.log_bytes,
                "commits_replayed": report.commits_replayed,
                "points_replayed": report.points_replayed,
                "cut_bytes": report.cut_bytes,
                "cut": report.cut,
                "swept_files": report.swept_files,
                "foreign_files": report.foreign_files,
                "damaged_files": report.damaged_files,
                "damage": report.damage,
                "substitutes": report.substitutes,
            },
        }))?;
        out.flush()?;
        return Ok(Status::Done);
    }

    let per_point =
        bytes_per_point.map_or(String::new(), |each| format!(", {each:.2} bytes per stored point"));
    let closed = if report.clean { "closed cleanly before" } else { "not closed cleanly before" };
    let rows = [
        ("version", thousands(stats.version.get())),
        ("namespaces", thousands(stats.namespaces)),
        ("metrics", thousands(stats.metrics)),
        ("points", format!("{} stored, overwritten and deleted ones included", thousands(stats.points))),
        ("streams", format!("{}{per_point}", bytes(stats.stream_bytes))),
        ("out of order", format!("{} of them, beside the streams", thousands(stats.side_entries))),
        ("partitions", thousands(stats.partitions)),
        ("tombstones", thousands(stats.tombstones)),
        ("commit log", format!("{} in {} segments", bytes(report.log_bytes), thousands(report.log_segments))),
        ("on disk", bytes(disk_bytes)),
        (
            "opened in",
            format!(
                "{} ({} commits, {} points replayed; {closed})",
                duration(report.elapsed),
                thousands(report.commits_replayed),
                thousands(report.points_replayed),
            ),
        ),
    ];
    let style = out.style();
    for (name, value) in rows {
        // Padded before it is styled: a terminal's codes have no width.
        out.line(format_args!("{}  {value}", style.dim(format_args!("{name:<12}"))))?;
    }
    out.flush()?;
    Ok(Status::Done)
}

/// The bytes of all files below a folder. What cannot be read counts nothing: this is a figure, not a check.
pub(crate) fn folder_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
