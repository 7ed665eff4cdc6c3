//! `repair`: brings a damaged database back with all that is sound of it.

use std::path::PathBuf;
use std::time::Instant;

use chronolith::{Finding, RepairOptions, RepairReport};
use clap::Args;
use serde_json::{Value, json};

use crate::console::{Console, counted, duration};
use crate::failure::{Failure, Outcome, Status};
use crate::progress::Progress;

/// So many sentences of one kind are printed; `--json` has all.
const PRINTED_MAX: usize = 20;

/// Bring a damaged database back with all that is sound of it. Exit status 1 if something is lost, or may be.
///
/// Checkpoint, commit log and every volume are read. If anything is damaged, names and trees are put together from what is left of these, volumes
/// alone if need be, and written anew. Damaged files, and what they are replaced with, are moved to DIR/quarantine: nothing is deleted. Where only volumes tell which
/// metrics there are, some that were dropped may be back; they are listed. A sound database is left as it is.
#[derive(Args, Debug)]
pub(crate) struct RepairArgs {
    /// The folder of the database.
    dir: PathBuf,
    /// Say what is damaged and what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &RepairArgs, console: Console) -> Outcome {
    if !args.dir.exists() {
        let message = format_args!("{} does not exist", args.dir.display());
        return Err(Failure::new(Status::Database, message).hint("check the path"));
    }
    let begin = Instant::now();
    let mut bar = Progress::count(console, 0, "reading volumes");
    let report = RepairOptions::new().dry_run(args.dry_run).run_with(&args.dir, |done, volumes| {
        bar.set_length(volumes);
        // It is not left half done for Ctrl-C.
        let _ = bar.set(done);
    })?;
    drop(bar);
    match console.json {
        true => console.out().json(&in_json(&report))?,
        false => print(&report, console, begin)?,
    }
    Ok(if report.has_losses() { Status::CheckFailed } else { Status::Done })
}

fn in_json(report: &RepairReport) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "file": finding.path,
            "offset": finding.offset,
            "damage": finding.what,
            "lost": finding.lost,
            "done": finding.done,
        })
    };
    json!({
        "sound": report.is_sound(),
        "losses": report.has_losses(),
        "dry_run": report.dry_run,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "returned": report.returned,
        "substitutes": report.substitutes,
        "quarantine": report.quarantine,
        "quarantined": report.quarantined,
        "foreign_files": report.foreign_files,
        "metrics": report.metrics,
        "volumes": report.volumes,
        "volumes_rewritten": report.volumes_rewritten,
        "version": report.version.get(),
        "seconds": report.elapsed.as_secs_f64(),
    })
}

fn print(report: &RepairReport, console: Console, begin: Instant) -> Outcome<()> {
    let mut out = console.out();
    if report.is_sound() {
        let line = format!("sound: nothing to repair ({})", duration(begin.elapsed()));
        out.line(out.style().green(line))?;
        return out.flush();
    }
    for Finding { path, offset, what, lost, done, .. } in report.findings.iter().take(PRINTED_MAX) {
        out.line(format_args!("damage: {} at byte {offset}: {what}", path.display()))?;
        if let Some(lost) = lost {
            out.line(format_args!("  lost, or may be: {lost}"))?;
        }
        out.line(format_args!("  {done}"))?;
    }
    let texts = report.returned.iter().map(|text| format!("may be back: {text}")).take(PRINTED_MAX);
    let others = report.substitutes.iter().map(|text| format!("made up: {text}")).take(PRINTED_MAX);
    for text in texts.chain(others) {
        out.line(text)?;
    }
    let all = [report.findings.len(), report.returned.len(), report.substitutes.len()];
    let more: usize = all.iter().map(|count| count.saturating_sub(PRINTED_MAX)).sum();
    if more > 0 {
        out.line(format_args!("and {} more, which --json lists", counted(more as u64, "line")))?;
    }
    let has = format!("{} and {}", counted(report.metrics, "metric"), counted(report.volumes, "volume"));
    match &report.quarantine {
        Some(folder) => {
            out.line(format_args!("repaired: {has}, in {}", duration(begin.elapsed())))?;
            out.line(format_args!(
                "{} put aside in {}: nothing needs them any more; delete them when nothing is missed",
                counted(report.quarantined.len() as u64, "file"),
                folder.display(),
            ))?;
        }
        None => out.line(format_args!("nothing was changed; a repaired database would have {has}"))?,
    }
    out.flush()
}
