//! `seal` and `refresh`: points in memory become volumes, block by block.

use std::ops::{Bound, ControlFlow};
use std::time::Duration;

use chronolith::{Database, SealProgress, SealReport, SealScope, SealedStats, Timestamp};
use clap::Args;
use serde_json::json;

use crate::console::{Console, bytes, counted, duration, rate};
use crate::failure::{Failure, Outcome, Status};
use crate::interrupt::Interrupt;
use crate::open::{self, OpenArgs};
use crate::progress::Progress;
use crate::times;

/// Move points from memory into volumes on disk, with late writes and deletes over sealed blocks.
///
/// What is read stays the same, and points in volumes take no memory. Programs need not do this: while one has the database open, it seals by itself
/// what the clock has left. Blocks are sealed whole, also those that have only some times between --from and --to. Ctrl-C ends it between two volumes.
#[derive(Args, Debug)]
pub(crate) struct SealArgs {
    #[command(flatten)]
    scope: ScopeArgs,
}

/// Write volumes anew that are not what they should be: with late writes or deletes in memory, with metrics that were dropped, or with a damaged supplement.
///
/// Ctrl-C ends it between two volumes.
#[derive(Args, Debug)]
pub(crate) struct RefreshArgs {
    #[command(flatten)]
    scope: ScopeArgs,
}

/// Which blocks.
#[derive(Args, Debug)]
struct ScopeArgs {
    #[command(flatten)]
    open: OpenArgs,
    /// Only blocks that have times from this one on.
    ///
    /// An integer is nanoseconds since the Unix epoch, or has a unit: 1700000000s, ...ms, ...us, ...ns. RFC 3339 and, in UTC, dates and datetimes
    /// without a zone are understood as well: 2023-11-14T22:13:20Z, 2023-11-14.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    from: Option<Timestamp>,
    /// Only blocks that have times before this one; written as in --from.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    to: Option<Timestamp>,
    /// Only blocks of this namespace.
    #[arg(long)]
    namespace: Option<String>,
}

/// What is to be done to the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Seal,
    Refresh,
}

pub(crate) fn seal(args: SealArgs, console: Console) -> Outcome {
    run(Work::Seal, &args.scope, console)
}

pub(crate) fn refresh(args: RefreshArgs, console: Console) -> Outcome {
    run(Work::Refresh, &args.scope, console)
}

fn run(work: Work, args: &ScopeArgs, console: Console) -> Outcome {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from >= to
    {
        let message = format_args!("--from {from} is not before --to {to}");
        return Err(Failure::new(Status::Usage, message).hint("exchange them, or leave one out"));
    }
    let db = args.open.existing(console)?;
    let interrupt = Interrupt::catch();
    let scope = args.scope(&db)?;
    let mut progress = Progress::count(console, 0, work.doing());
    let mut last: Option<SealProgress> = None;
    let told = |now: &SealProgress| {
        progress.set_length(now.blocks);
        let is_interrupted = progress.set(now.done).is_err() || interrupt.is_pressed();
        last = Some(now.clone());
        if is_interrupted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let done = match work {
        Work::Seal => db.seal_with(scope, told),
        Work::Refresh => db.refresh_with(scope, told),
    };
    drop(progress);
    let report = match done {
        Ok(report) => report,
        Err(error) => {
            let failure = failed(error.into(), last.as_ref());
            return Err(match db.close() {
                Ok(_) => failure,
                Err(error) => failure.and(format_args!("and closing failed: {error}")),
            });
        }
    };
    let sealed = Sealed { work, report, all: db.sealed_stats(), memory_points: db.stats().points };
    // The installs become durable with this.
    db.close()?;
    sealed.print(console)?;
    Ok(if report.left > 0 { Status::Interrupted } else { Status::Done })
}

/// A failure, with the block that it is about, and what was done before.
fn failed(failure: Failure, last: Option<&SealProgress>) -> Failure {
    let Some(SealProgress { done, blocks, namespace, shard, first, last, .. }) = last else { return failure };
    failure
        .context(format_args!(
            "shard {shard} of namespace {}, {} to {}",
            namespace.name(),
            times::rfc3339(*first),
            times::rfc3339(*last)
        ))
        .and(format_args!(
            "{done} of {} were written before that and stay; the rest is as it was",
            counted(*blocks, "volume")
        ))
        .fact("volumes", *done)
}

impl ScopeArgs {
    fn scope(&self, db: &Database) -> Outcome<SealScope> {
        let from = self.from.map_or(Bound::Unbounded, Bound::Included);
        let to = self.to.map_or(Bound::Unbounded, Bound::Excluded);
        let scope = SealScope::all().within((from, to));
        Ok(match &self.namespace {
            Some(name) => scope.namespace(&open::namespace(&db.snapshot(), name)?),
            None => scope,
        })
    }
}

impl Work {
    fn doing(self) -> &'static str {
        match self {
            Work::Seal => "sealing",
            Work::Refresh => "refreshing",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Work::Seal => "sealed",
            Work::Refresh => "refreshed",
        }
    }

    /// What there is to say where nothing was to be done.
    fn nothing(self) -> &'static str {
        match self {
            Work::Seal => "nothing to seal: no points, late writes or deletes in memory there",
            Work::Refresh => "nothing to refresh: all volumes there are as they should be",
        }
    }
}

/// What was done, and what there is after it.
struct Sealed {
    work: Work,
    report: SealReport,
    all: SealedStats,
    memory_points: u64,
}

impl Sealed {
    fn print(&self, console: Console) -> Outcome<()> {
        let Sealed { work, report, all, memory_points } = self;
        let &SealReport { blocks: volumes, metrics: streams, points, stream_bytes, left, elapsed, .. } =
            report;
        let bits_per_point = (points > 0).then(|| stream_bytes as f64 * 8.0 / points as f64);
        let mut out = console.out();
        if console.json {
            out.json(&json!({
                "volumes": volumes,
                "volumes_left": left,
                "interrupted": left > 0,
                "streams": streams,
                "points": points,
                "stream_bytes": stream_bytes,
                "bits_per_point": bits_per_point,
                "sealed_points": all.points,
                "sealed_volumes": all.volumes + all.uncounted,
                "sealed_bytes": all.file_bytes,
                "memory_points": memory_points,
                "seconds": elapsed.as_secs_f64(),
            }))?;
            return out.flush();
        }
        if left > 0 {
            out.line(format_args!("interrupted; {} left, which another run does", counted(left, "volume")))?;
        }
        match volumes {
            0 if left == 0 => out.line(work.nothing())?,
            _ => out.line(format_args!(
                "{} {} into {} in {}{}",
                work.done(),
                counted(points, "point"),
                counted(volumes, "volume"),
                duration(elapsed),
                density(bits_per_point, points, elapsed),
            ))?,
        }
        out.line(format_args!(
            "the database has {} in {} ({}), and {} in memory",
            counted(all.points, "point"),
            counted(all.volumes + all.uncounted, "volume"),
            bytes(all.file_bytes),
            counted(*memory_points, "point"),
        ))?;
        out.flush()
    }
}

fn density(bits_per_point: Option<f64>, points: u64, elapsed: Duration) -> String {
    match bits_per_point {
        Some(bits) => format!(" ({}, {bits:.2} bits per point)", rate(points, elapsed, "points")),
        None => String::new(),
    }
}
