//! `demo`: a first look. Imports a bundled recording and seals the older part of it while a reader checks snapshots, reopens, verifies, and draws.
//!
//! Nothing here is for show alone: each line that the demo prints is the outcome of a check against the recording, and a check that fails ends it with exit
//! status 1.

mod recording;
mod watcher;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chronolith::{Database, Durability, Metric, Options, SealReport, SealedStats, Timestamp};
use clap::Args;
use serde_json::json;

use crate::chart::Chart;
use crate::console::{self, Console, Out, Style, bytes, counted, duration, per_second, rate, thousands};
use crate::failure::{Failure, Outcome, Status};
use crate::ids;
use crate::stats::folder_bytes;
use crate::timeline;

use recording::Recording;
use watcher::Seen;

/// The metadata key under which each commit says how many scrapes there are with it.
const SCRAPES_KEY: &[u8] = b"demo/scrapes";
/// The metric that is drawn.
const DRAWN: &[u8] = b"node_load1";
/// One more than a multiple of 3 and 4, so that ticks are evenly apart.
const CHART_ROWS: usize = 13;
/// So that there are several blocks in 35 minutes.
const BLOCK_SIZE: Duration = Duration::from_secs(10 * 60);

/// See what it does: import a bundled recording, seal the older part of it, read meanwhile, reopen, verify, draw.
///
/// The recording is 160 metrics of a small Linux machine, one scrape a second for 35 minutes. The database stays, to be looked at with the other verbs.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Where to make the database: a new or empty folder. By default a new one in the system's folder for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: DemoArgs, console: Console) -> Outcome {
    let recording = Recording::bundled()?;
    let dir = match args.dir {
        Some(dir) => empty_folder(dir)?,
        None => new_folder(&std::env::temp_dir())?,
    };
    let mut screen = Screen::new(console);
    screen.title("chronolith demo", "one machine, one scrape of its metrics a second, 35 minutes")?;
    screen.step(
        "data",
        format_args!(
            "{} of {}, {} as CSV",
            counted(recording.points(), "point"),
            counted(recording.metrics.len() as u64, "metric"),
            bytes(recording.csv_bytes),
        ),
        "bundled with this program",
    )?;
    screen.step("folder", dir.display(), "")?;

    let written = write_and_watch(&dir, &recording)?;
    screen.step(
        "write",
        format_args!(
            "{} in {}, each an atomic scrape",
            counted(written.commits, "commit"),
            duration(written.elapsed)
        ),
        rate(recording.points(), written.elapsed, "points"),
    )?;
    screen.step(
        "read",
        format_args!(
            "{} meanwhile, {} different, each a consistent cut",
            counted(written.seen.snapshots, "snapshot"),
            thousands(written.seen.cuts),
        ),
        format_args!("{} compared", counted(written.seen.points, "point")),
    )?;

    let sealed = &written.sealed;
    screen.step(
        "seal",
        format_args!(
            "{} moved into {} in {}",
            counted(sealed.report.points, "point"),
            counted(sealed.report.blocks, "volume"),
            duration(sealed.report.elapsed),
        ),
        format_args!("{:.2} bits per point", sealed.stats.bits_per_point().unwrap_or_default()),
    )?;
    screen.timeline(&sealed.timeline)?;

    let reopened = reopen_and_verify(&dir, &recording, sealed)?;
    screen.step(
        "reopen",
        format_args!("closed and opened again in {}", duration(reopened.open)),
        format_args!("{} replayed", counted(reopened.commits_replayed, "commit")),
    )?;
    screen.step(
        "verify",
        format_args!(
            "{} equal bit by bit, {} from volumes",
            counted(recording.points(), "point"),
            thousands(reopened.sealed_points)
        ),
        rate(recording.points(), reopened.verify, "points"),
    )?;
    let per_point = reopened.stream_bytes as f64 / recording.points() as f64;
    screen.step(
        "size",
        format_args!(
            "{} compressed: {per_point:.2} bytes per point instead of 16",
            bytes(reopened.stream_bytes)
        ),
        format_args!("{} on disk", bytes(reopened.disk_bytes)),
    )?;
    screen.chart(&recording)?;
    screen.next_steps(&dir)?;
    screen.json(&json!({
        "dir": dir.display().to_string(),
        "metrics": recording.metrics.len(),
        "points": recording.points(),
        "csv_bytes": recording.csv_bytes,
        "commits": written.commits,
        "write_seconds": written.elapsed.as_secs_f64(),
        "write_points_per_second": per_second(recording.points(), written.elapsed),
        "snapshots_checked": written.seen.snapshots,
        "snapshots_different": written.seen.cuts,
        "snapshot_points_compared": written.seen.points,
        "sealed_points": sealed.report.points,
        "sealed_volumes": sealed.report.blocks,
        "sealed_bits_per_point": sealed.stats.bits_per_point(),
        "seal_seconds": sealed.report.elapsed.as_secs_f64(),
        "reopen_seconds": reopened.open.as_secs_f64(),
        "commits_replayed": reopened.commits_replayed,
        "verified_points": recording.points(),
        "verified_points_in_volumes": reopened.sealed_points,
        "verify_seconds": reopened.verify.as_secs_f64(),
        "verify_points_per_second": per_second(recording.points(), reopened.verify),
        "stream_bytes": reopened.stream_bytes,
        "bytes_per_point": per_point,
        "disk_bytes": reopened.disk_bytes,
    }))?;
    Ok(Status::Done)
}

/// A folder that the user named: made if need be, refused if there is something in it.
fn empty_folder(dir: PathBuf) -> Outcome<PathBuf> {
    let unusable =
        |error: io::Error| Failure::file("use", &dir, &error).hint("choose another folder with --dir");
    match std::fs::read_dir(&dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(dir),
            Some(_) => Err(Failure::input(format_args!("{} is not empty", dir.display()))
                .hint("choose a new folder with --dir, or leave --dir out")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(&dir).map_err(unusable)?;
            Ok(dir)
        }
        Err(error) => Err(unusable(error)),
    }
}

/// The first of `chronolith-demo-1`, `-2`, ... that does not exist yet.
fn new_folder(parent: &Path) -> Outcome<PathBuf> {
    for number in 1..=u32::MAX {
        let dir = parent.join(format!("chronolith-demo-{number}"));
        match private_folder(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Failure::file("make", &dir, &error).hint("choose a folder with --dir")),
        }
    }
    Err(Failure::input("there are too many demos").hint("choose a folder with --dir"))
}

/// Makes a folder for this user alone: other users may write to the one above it.
fn private_folder(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// What writing and reading at once came to.
struct Written {
    commits: u64,
    elapsed: Duration,
    seen: Seen,
    sealed: Sealed,
}

/// What sealing came to.
struct Sealed {
    report: SealReport,
    stats: SealedStats,
    /// Which time is sealed.
    timeline: Vec<String>,
}

/// Commits scrape by scrape, and seals the older part, while another thread checks snapshots; then closes.
fn write_and_watch(dir: &Path, recording: &Recording) -> Outcome<Written> {
    let db = Options::new().durability(Durability::Buffered).block_size(BLOCK_SIZE).open(dir)?;
    let metrics: Vec<Metric> =
        recording.metrics.iter().map(|id| db.metric(id)).collect::<chronolith::Result<Vec<Metric>>>()?;
    let finished = AtomicBool::new(false);
    let (written, seen) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| watcher::watch(&db, &metrics, recording, &finished));
        let written =
            write(&db, &metrics, recording).and_then(|written| Ok((written, seal(&db, recording)?)));
        // The reader looks once more after this, at everything.
        finished.store(true, Ordering::Release);
        (written, reader.join())
    });
    let ((commits, elapsed), sealed) = written?;
    let seen = seen.map_err(|_| Failure::new(Status::CheckFailed, "the reading thread panicked"))??;
    drop(metrics);
    db.close()?;
    Ok(Written { commits, elapsed, seen, sealed })
}

/// Seals the blocks up to the middle of the recording.
fn seal(db: &Database, recording: &Recording) -> Outcome<Sealed> {
    let middle = recording.at.get(recording.at.len() / 2).copied().unwrap_or(Timestamp::MAX);
    let report = db.seal(..middle)?;
    let stats = db.sealed_stats();
    if report.points == 0 || stats.points < report.points || stats.uncounted > 0 {
        let message =
            format_args!("{} points were sealed, but the volumes have {}", report.points, stats.points);
        return Err(Failure::new(Status::CheckFailed, message));
    }
    Ok(Sealed { report, stats, timeline: timeline::draw(db, console::width().min(100) - 12) })
}

/// One commit for each scrape: a point of every metric, and the count of scrapes as metadata. Then one sync for all.
fn write(db: &Database, metrics: &[Metric], recording: &Recording) -> Outcome<(u64, Duration)> {
    let begin = Instant::now();
    let mut row: Vec<(Metric, f64)> = metrics.iter().map(|metric| (metric.clone(), 0.0)).collect();
    for (scrape, at) in recording.at.iter().enumerate() {
        for ((_, value), column) in row.iter_mut().zip(&recording.values) {
            *value = column[scrape];
        }
        let mut txn = db.begin_write();
        txn.append_row(*at, &row)?;
        txn.put_meta(SCRAPES_KEY, (scrape as u64 + 1).to_le_bytes())?;
        txn.commit()?;
    }
    db.sync()?;
    Ok((recording.at.len() as u64, begin.elapsed()))
}

/// What a second opening came to.
struct Reopened {
    open: Duration,
    verify: Duration,
    commits_replayed: u64,
    sealed_points: u64,
    stream_bytes: u64,
    disk_bytes: u64,
}

/// Opens the folder again and compares every point with the recording.
fn reopen_and_verify(dir: &Path, recording: &Recording, sealed: &Sealed) -> Outcome<Reopened> {
    let begin = Instant::now();
    // Without a thread nothing more is sealed meanwhile.
    let db = Options::new().create(false).workers(0).open(dir)?;
    let open = begin.elapsed();

    let begin = Instant::now();
    let snapshot = db.snapshot();
    if snapshot.metrics().count() != recording.metrics.len() {
        return Err(Failure::new(Status::CheckFailed, "there are not as many metrics as in the recording"));
    }
    for (id, values) in recording.metrics.iter().zip(&recording.values) {
        let name = ids::readable(id);
        let wrong = |what: &str| Failure::new(Status::CheckFailed, format_args!("{name}, read back, {what}"));
        let metric = snapshot.metric(id).ok_or_else(|| wrong("is missing"))?;
        let mut expected = recording.at.iter().zip(values);
        for block in snapshot.blocks(&metric, ..) {
            let block = block?;
            for (at, value) in block.timestamps().iter().zip(block.values()) {
                let point = expected.next().ok_or_else(|| wrong("has too many points"))?;
                if (*at, value.to_bits()) != (point.0.as_nanos(), point.1.to_bits()) {
                    return Err(wrong(&format!("has ({at}, {value}) in place of {point:?}")));
                }
            }
        }
        if expected.next().is_some() {
            return Err(wrong("has too few points"));
        }
    }
    let verify = begin.elapsed();
    let (stats, found) = (db.stats(), db.sealed_stats());
    if found != sealed.stats || stats.points + found.points != recording.points() {
        let message = format_args!("{} points are in volumes and {} in memory", found.points, stats.points);
        return Err(Failure::new(Status::CheckFailed, message));
    }
    let (stream_bytes, sealed_points) = (stats.stream_bytes + found.stream_bytes, found.points);
    let commits_replayed = db.open_report().commits_replayed;
    drop(snapshot);
    db.close()?;
    let disk_bytes = folder_bytes(dir);
    Ok(Reopened { open, verify, commits_replayed, sealed_points, stream_bytes, disk_bytes })
}

/// A path as it can be pasted after a prompt.
fn for_shell(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// What the demo prints: lines for people as each step ends, or one object at the end.
struct Screen {
    out: Out,
    style: Style,
    json: bool,
}

impl Screen {
    fn new(console: Console) -> Self {
        let out = console.out();
        Screen { style: out.style(), out, json: console.json }
    }

    fn title(&mut self, name: &str, what: &str) -> Outcome<()> {
        let style = self.style;
        self.line(format_args!("\n{}  {}\n", style.bold(name), style.dim(what)))
    }

    /// A finished step: its name, what it came to, and a figure at the side.
    fn step(
        &mut self,
        name: &str,
        what: impl std::fmt::Display,
        figure: impl std::fmt::Display,
    ) -> Outcome<()> {
        let style = self.style;
        // Padded before styled: a terminal's codes have no width.
        let (name, what, figure) = (format!("{name:<7}"), what.to_string(), figure.to_string());
        match figure.as_str() {
            "" => self.line(format_args!("  {} {what}", style.cyan(name))),
            _ => self.line(format_args!("  {} {what:<60} {}", style.cyan(name), style.dim(figure))),
        }
    }

    /// Which time is sealed, under the step that sealed it.
    fn timeline(&mut self, lines: &[String]) -> Outcome<()> {
        let style = self.style;
        for line in lines {
            self.line(format_args!("  {:7} {}", "", style.dim(line)))?;
        }
        self.line(format_args!("  {:7} {}", "", style.dim(timeline::LEGEND)))
    }

    fn chart(&mut self, recording: &Recording) -> Outcome<()> {
        let drawn = recording.metrics.iter().zip(&recording.values).find(|(id, _)| id.as_ref() == DRAWN);
        let (Some((id, values)), Some(first)) = (drawn, recording.at.first()) else { return Ok(()) };
        let at: Vec<i64> = recording.at.iter().map(|at| at.as_nanos()).collect();
        let date = crate::times::civil_utc(*first).date();
        let style = self.style;
        self.line("")?;
        self.line(format_args!(
            "  {}  {}",
            style.bold(ids::readable(id)),
            style.dim(format_args!("{date}, UTC"))
        ))?;
        let width = console::width().min(100) - 2;
        for line in (Chart { at: &at, values, width, height: CHART_ROWS }).draw() {
            self.line(format_args!("  {line}"))?;
        }
        Ok(())
    }

    fn next_steps(&mut self, dir: &Path) -> Outcome<()> {
        let program = std::env::args_os().next().unwrap_or_else(|| "chronolith".into());
        let (program, dir) = (for_shell(Path::new(&program)), for_shell(dir));
        let style = self.style;
        self.line(format_args!(
            "\n  {}",
            style.dim("The database stays until you delete the folder. Next:")
        ))?;
        self.line(format_args!("  {program} list {dir}"))?;
        self.line(format_args!("  {program} query {dir} node_memory_MemFree_bytes"))?;
        self.line(format_args!("  {program} stats {dir}"))?;
        self.line(format_args!("  {program} seal {dir}"))?;
        self.line(format_args!("  {program} verify {dir}"))?;
        self.line("")
    }

    fn line(&mut self, text: impl std::fmt::Display) -> Outcome<()> {
        if self.json {
            return Ok(());
        }
        self.out.line(text)?;
        self.out.flush()
    }

    fn json(&mut self, figures: &serde_json::Value) -> Outcome<()> {
        if self.json {
            self.out.json(figures)?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_can_be_pasted() {
        assert_eq!(for_shell(Path::new("/tmp/chronolith-demo-1")), "/tmp/chronolith-demo-1");
        assert_eq!(for_shell(Path::new("/my files/it's")), r"'/my files/it'\''s'");
    }
}
