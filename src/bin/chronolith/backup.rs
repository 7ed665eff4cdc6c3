//! `backup` and `checkpoint`: what is written so that a database can be copied, and opened soon.

use std::ops::ControlFlow;
use std::path::PathBuf;

use chronolith::{BackupReport, CheckpointReport, Error};
use clap::Args;
use serde_json::json;

use crate::console::{Console, bytes, counted, duration};
use crate::failure::{Failure, Outcome, Status};
use crate::interrupt::Interrupt;
use crate::open::{OpenArgs, ReadArgs};
use crate::progress::{Progress, Wait};

/// Write a backup: a database in another folder that equals this one as it is now.
///
/// Volumes get a second name there, which takes no space, or are copied if that cannot be, as on another file system; the rest is written anew. The two databases go on
/// independently. With --read-only the last checkpoint is backed up, also while another process has the database open. A backup that was interrupted is no
/// database, and says so when it is opened.
#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    read: ReadArgs,
    /// The folder of the backup: empty, or not there yet.
    target: PathBuf,
}

/// Write the whole state down, so that the next opening begins there and the commit log before it goes.
///
/// Programs need not do this: while one has the database open, it does so by itself. --read-only reads the last checkpoint.
#[derive(Args, Debug)]
pub(crate) struct CheckpointArgs {
    #[command(flatten)]
    open: OpenArgs,
}

pub(crate) fn backup(args: BackupArgs, console: Console) -> Outcome {
    let db = args.read.open(console)?;
    let interrupt = Interrupt::catch();
    let mut progress = Progress::count(console, 0, "backing up");
    let done = db.snapshot().backup_with(&args.target, |now| {
        progress.set_length(now.volumes);
        match progress.set(now.done).is_err() || interrupt.is_pressed() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    drop(progress);
    let report = done.map_err(|error| match error {
        ended @ Error::BackupEnded { .. } => Failure::new(Status::Interrupted, ended),
        error => error.into(),
    })?;
    db.close()?;
    print_backup(&report, &args.target, console)?;
    Ok(Status::Done)
}

pub(crate) fn checkpoint(args: CheckpointArgs, console: Console) -> Outcome {
    let db = args.open.existing(console)?;
    let wait = Wait::begin(console, "writing a checkpoint".to_owned());
    let written = db.checkpoint();
    drop(wait);
    let report = written?;
    db.close()?;
    print_checkpoint(&report, console)?;
    Ok(Status::Done)
}

fn print_backup(report: &BackupReport, target: &std::path::Path, console: Console) -> Outcome<()> {
    let mut out = console.out();
    if console.json {
        out.json(&json!({
            "version": report.version.get(),
            "volumes": report.volumes,
            "linked_files": report.linked_files,
            "copied_files": report.copied_files,
            "copied_bytes": report.copied_bytes,
            "pages": report.pages,
            "names_bytes": report.names_bytes,
            "memory_bytes": report.memory_bytes,
            "seconds": report.elapsed.as_secs_f64(),
        }))?;
        return out.flush();
    }
    let copied = match report.copied_files {
        0 => String::new(),
        files => format!(" and {} copied ({})", counted(files, "file"), bytes(report.copied_bytes)),
    };
    out.line(format_args!(
        "backed up version {} to {} in {}",
        report.version,
        target.display(),
        duration(report.elapsed)
    ))?;
    out.line(format_args!(
        "{}: {} shared{copied}; {} written",
        counted(report.volumes, "volume"),
        counted(report.linked_files, "file"),
        bytes(report.pages * 4_096 + report.names_bytes + report.memory_bytes),
    ))?;
    out.flush()
}

fn print_checkpoint(report: &CheckpointReport, console: Console) -> Outcome<()> {
    let mut out = console.out();
    if console.json {
        out.json(&json!({
            "version": report.version.get(),
            "pages": report.pages,
            "names_bytes": report.names_bytes,
            "memory_bytes": report.memory_bytes,
            "log_bytes_removed": report.log_bytes_removed,
            "seconds": report.elapsed.as_secs_f64(),
        }))?;
        return out.flush();
    }
    if report.version.get() == 0 {
        out.line("nothing to do: the database is empty, or keeps no commit log")?;
        return out.flush();
    }
    out.line(format_args!(
        "wrote a checkpoint of version {} in {}: {} of names, {} of what is in memory, {}; {} of commit log removed",
        report.version,
        duration(report.elapsed),
        bytes(report.names_bytes),
        bytes(report.memory_bytes),
        counted(report.pages, "page"),
        bytes(report.log_bytes_removed),
    ))?;
    out.flush()
}
