//! What an import came to: counted on the way, told at the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chronolith::Stats;
use serde_json::json;

use crate::console::{Console, bytes, counted, duration, per_second, rate};
use crate::failure::{Failure, Outcome, Status};
use crate::m3::merge::Figures;
use crate::m3::refused::Refused;
use crate::m3::shown;
use crate::volume::damage::DamageList;

/// What has been done.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) volumes: u64,
    pub(super) logs: u64,
    /// Points of logs that were read.
    pub(super) entries: u64,
    pub(super) figures: Figures,
    /// Logs that replace no point of a volume: those that are not whole, and older ones.
    pub(super) doubtful_logs: Vec<PathBuf>,
    /// What the database cannot have: points, or metrics as a whole.
    pub(super) refused: Refused,
    /// Metrics with other tags than somewhere in M3's files.
    pub(super) retagged: u64,
    /// What could be read of damaged volumes.
    pub(super) salvaged: Vec<String>,
    pub(super) damage: DamageList,
}

impl Tally {
    /// A failure, and what had been committed before it.
    pub(super) fn told_with(&self, failure: Failure) -> Failure {
        let failure = failure
            .fact("committed_points", self.figures.points)
            .fact("committed_batches", self.figures.batches);
        failure.and(match self.figures.points {
            0 => "nothing was committed".to_owned(),
            points => {
                let points = counted(points, "point");
                format!("committed before that: {points}; importing again does no harm")
            }
        })
    }
}

/// An import that ended without a failure.
pub(super) struct Imported<'a> {
    /// The database's folder.
    pub(super) dir: &'a Path,
    pub(super) interrupted: bool,
    pub(super) tally: Tally,
    pub(super) metrics: u64,
    pub(super) namespaces: u64,
    pub(super) stats: Stats,
    pub(super) elapsed: Duration,
}

impl Imported<'_> {
    pub(super) fn status(&self) -> Status {
        match (self.interrupted, self.tally.damage.is_empty() && self.tally.refused.is_empty()) {
            (true, _) => Status::Interrupted,
            (false, true) => Status::Done,
            (false, false) => Status::CheckFailed,
        }
    }

    pub(super) fn print(&self, console: Console) -> Outcome<()> {
        let Imported { dir, interrupted, tally, metrics, namespaces, stats, elapsed } = self;
        let Figures { points, known, batches } = tally.figures;
        let mut out = console.out();
        if console.json {
            out.json(&json!({
                "points": points,
                "points_known": known,
                "log_entries": tally.entries,
                "metrics": metrics,
                "namespaces": namespaces,
                "volumes": tally.volumes,
                "commit_logs": tally.logs,
                "commit_logs_before_volumes": shown(&tally.doubtful_logs),
                "batches": batches,
                "passed_over_count": tally.refused.count(),
                "passed_over": tally.refused.texts().collect::<Vec<_>>(),
                "retagged": tally.retagged,
                "salvaged": tally.salvaged,
                "damaged_places": tally.damage.count(),
                "damage": tally.damage.places(),
                "interrupted": interrupted,
                "seconds": elapsed.as_secs_f64(),
                "points_per_second": per_second(points, *elapsed),
                "database_metrics": stats.metrics,
                "stream_bytes": stats.stream_bytes,
                "database_volumes": stats.volumes,
            }))?;
            return out.flush();
        }
        out.line(format_args!(
            "{}imported {} of {} in {} into {} in {} ({})",
            if *interrupted { "interrupted; " } else { "" },
            counted(points, "point"),
            counted(*metrics, "metric"),
            counted(*namespaces, "namespace"),
            dir.display(),
            duration(*elapsed),
            rate(points, *elapsed, "points"),
        ))?;
        let (volumes, logs) = (counted(tally.volumes, "volume"), counted(tally.logs, "commit log"));
        let entries = counted(tally.entries, "logged point");
        let whole = if *interrupted { " to their ends" } else { "" };
        out.line(format_args!("read {volumes} and {logs}{whole} ({entries})"))?;
        if known > 0 {
            let more = counted(known, "more point");
            out.line(format_args!("{more} needed no writing: there already, or twice in M3's files"))?;
        }
        if tally.retagged > 0 {
            let metrics = counted(tally.retagged, "metric");
            out.line(format_args!("{metrics} without tags that M3's files give them somewhere"))?;
        }
        let (metrics, streams) = (counted(stats.metrics, "metric"), bytes(stats.stream_bytes));
        let volumes = match stats.volumes {
            0 => String::new(),
            count => format!(" in memory, and {}", counted(count, "volume")),
        };
        out.line(format_args!("the database has {metrics} in {streams} of streams{volumes}"))?;
        tally.refused.print(&mut out)?;
        tally.damage.print(0, &mut out)?;
        for salvaged in &tally.salvaged {
            out.line(format_args!("salvaged: {salvaged}"))?;
        }
        out.flush()?;
        if *interrupted {
            console.warn(
                "run the same command again to import the rest; what was committed stays. Until then points that M3 has in several places may lack \
                 their last value",
            );
        }
        Ok(())
    }
}
