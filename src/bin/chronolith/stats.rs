//! `stats`: figures of a database.

use std::path::Path;

use chronolith::{OpenReport, SealedStats, Stats};
use clap::Args;
use serde_json::json;

use crate::console::{self, Console, bytes, counted, duration, thousands};
use crate::failure::{Outcome, Status};
use crate::open::ReadArgs;
use crate::progress::Wait;
use crate::timeline;

/// Print figures: metrics, points, memory, volumes, log, health, and what opening found; and draw which time is sealed.
#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    read: ReadArgs,
}

pub(crate) fn run(args: StatsArgs, console: Console) -> Outcome {
    let db = args.read.open(console)?;
    let wait = Wait::begin(console, "counting".to_owned());
    let (stats, sealed, health, report) = (db.stats(), db.sealed_stats(), db.health(), db.open_report());
    let disk_bytes = folder_bytes(&args.read.open.dir);
    drop(wait);
    let points = stats.points + sealed.points;
    let stream_bytes = stats.stream_bytes + sealed.stream_bytes;
    let bytes_per_point = (points > 0).then(|| stream_bytes as f64 / points as f64);

    let mut out = console.out();
    if console.json {
        out.json(&json!({
            "version": stats.version.get(),
            "namespaces": stats.namespaces,
            "metrics": stats.metrics,
            "points": points,
            "stream_bytes": stream_bytes,
            "bytes_per_point": bytes_per_point,
            "memory": {
                "points": stats.points,
                "bytes": stats.memory_bytes,
                "stream_bytes": stats.stream_bytes,
                "side_entries": stats.side_entries,
                "partitions": stats.partitions,
                "frozen_partitions": stats.frozen_partitions,
                "tombstones": stats.tombstones,
                "marks": stats.marks,
                "marks_max": stats.marks_max,
            },
            "sealed": {
                "blocks": stats.sealed_blocks,
                "volumes": stats.volumes,
                "volumes_uncounted": sealed.uncounted,
                "points": sealed.points,
                "streams": sealed.streams,
                "stream_bytes": sealed.stream_bytes,
                "bits_per_point": sealed.bits_per_point(),
                "file_bytes": sealed.file_bytes,
                "superseded_volumes": stats.superseded_volumes,
            },
            "health": {
                "ok": health.is_ok(),
                "troubles": health.troubles().iter().map(ToString::to_string).collect::<Vec<_>>(),
            },
            "log_bytes": stats.log_bytes,
            "log_bytes_behind": stats.log_bytes_behind,
            "live_snapshots": stats.live_snapshots,
            "held_versions": stats.held_versions,
            "disk_bytes": disk_bytes,
            "stopped": stats.stopped,
            "open": {
                "clean": report.clean,
                "checkpoint": report.checkpoint.get(),
                "seconds": report.elapsed.as_secs_f64(),
                "loading_seconds": report.loading.as_secs_f64(),
                "replaying_seconds": report.replaying.as_secs_f64(),
                "checkpoint": report.checkpoint.get(),
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
    let closed = match (args.read.read_only, report.clean) {
        (true, _) => "the last checkpoint only",
        (false, true) => "closed cleanly before",
        (false, false) => "not closed cleanly before",
    };
    let rows = [
        ("version", thousands(stats.version.get())),
        ("namespaces", thousands(stats.namespaces)),
        ("metrics", thousands(stats.metrics)),
        ("points", format!("{} stored, overwritten and deleted ones included", thousands(points))),
        ("streams", format!("{}{per_point}", bytes(stream_bytes))),
        ("sealed", sealed_in_words(&stats, &sealed)),
        ("in memory", memory_in_words(&stats)),
        ("checkpoint", checkpoint_in_words(report)),
        (
            "commit log",
            format!("{} on disk, {} of it to replay", bytes(stats.log_bytes), bytes(stats.log_bytes_behind)),
        ),
        ("on disk", bytes(disk_bytes)),
        (
            "opened in",
            format!(
                "{} ({}, {} replayed; {closed})",
                duration(report.elapsed),
                counted(report.commits_replayed, "commit"),
                counted(report.points_replayed, "point"),
            ),
        ),
        ("health", health.to_string().replace('\n', &format!("\n{:14}", ""))),
    ];
    let style = out.style();
    for (name, value) in rows {
        // Padded before it is styled: a terminal's codes have no width.
        out.line(format_args!("{}  {value}", style.dim(format_args!("{name:<12}"))))?;
    }
    let timeline = timeline::draw(&db, console::width().min(100) - 2);
    if !timeline.is_empty() {
        out.line("")?;
        for line in timeline {
            out.line(format_args!("  {line}"))?;
        }
        out.line(style.dim(format_args!("  {}", timeline::LEGEND)))?;
    }
    out.flush()?;
    Ok(Status::Done)
}

fn checkpoint_in_words(report: &OpenReport) -> String {
    match report.checkpoint.get() {
        0 => "none yet".to_owned(),
        version => format!("of version {}", thousands(version)),
    }
}

fn sealed_in_words(stats: &Stats, sealed: &SealedStats) -> String {
    if stats.volumes == 0 {
        return "nothing yet".to_owned();
    }
    let bits = sealed.bits_per_point().map_or(String::new(), |bits| format!(", {bits:.2} bits per point"));
    let uncounted = match sealed.uncounted {
        0 => String::new(),
        count => format!("; {} not counted, see `chronolith verify`", counted(count, "damaged volume")),
    };
    format!(
        "{} in {} of {}{bits}, {} of files{uncounted}",
        counted(sealed.points, "point"),
        counted(stats.volumes, "volume"),
        counted(stats.sealed_blocks, "block"),
        bytes(sealed.file_bytes),
    )
}

fn memory_in_words(stats: &Stats) -> String {
    format!(
        "{} in {} ({}), {} of them out of order; {}",
        counted(stats.points, "point"),
        bytes(stats.memory_bytes),
        counted(stats.partitions, "partition"),
        thousands(stats.side_entries),
        counted(stats.tombstones, "tombstone"),
    )
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
