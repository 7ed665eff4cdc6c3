//! `import`: CSV files into a database, a batch of rows to a commit.
//!
//! One thread reads, decompresses and parses; the main thread commits. Commits are buffered, each atomic, and one sync at the end
//! makes them all durable: a killed import leaves a database with whole batches, and importing again repeats no harm, since
//! a point written twice is the same point.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use chronolith::{Database, Metric, Namespace, Stats};
use clap::Args;
use serde_json::json;

use crate::console::{Console, bytes, counted, duration, per_second, rate};
use crate::failure::{Chain, Failure, Outcome, Status};
use crate::input::Input;
use crate::interrupt::Interrupt;
use crate::open::OpenArgs;
use crate::progress::Progress;
use crate::rows::{BadRow, Batch, ReadError, RowReader, SeriesTable};

/// Batches parsed ahead of the one that is committed.
const BATCHES_AHEAD: usize = 2;
/// How often to look for Ctrl-C while the input has nothing to say.
const PATIENCE: Duration = Duration::from_millis(100);
/// Bad rows that are printed; the rest is only counted.
const BAD_ROWS_SHOWN: u64 = 5;

/// Import CSV files, plain or zstd.
///
/// The first line names the columns: `series,ts_ms,value`, or ts_s, ts_us, ts_ns for another unit. NaN, inf and -inf are values like others.
/// Rows may come in any order; of two with the same series and time the later one wins. Each batch of 65,536 rows is one atomic commit.
/// Commits are not synced one by one: all are durable when the command has ended.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    open: OpenArgs,
    /// CSV files; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The namespace to import into; made if it does not exist.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Pass over rows that cannot be read, and count them.
    #[arg(long)]
    skip_bad: bool,
}

pub(crate) fn run(args: ImportArgs, console: Console) -> Outcome {
    let files: Vec<Input> = args.files.into_iter().map(Input::new).collect();
    // All files must be there, and be what they should, before anything is written.
    let sizes = files.iter().map(Input::stored_bytes).collect::<Outcome<Vec<Option<u64>>>>()?;
    check_headers(&files)?;
    let interrupt = Interrupt::catch();

    let db = args.open.or_create(console)?;
    let namespace = db.namespace(&args.namespace)?;
    let begin = Instant::now();
    let read = Arc::new(AtomicU64::new(0));
    let mut progress = Progress::bytes(console, sizes.into_iter().sum(), "importing");
    let mut import = Import { db: &db, namespace, metrics: Vec::new(), tally: Tally::default(), console };

    let (sender, receiver) = sync_channel(BATCHES_AHEAD);
    let parser = std::thread::spawn({
        let read = Arc::clone(&read);
        move || parse(&files, args.skip_bad, &read, &sender)
    });
    let ended = import.commit_all(&receiver, args.skip_bad, &interrupt, || {
        // Ctrl-C is looked after in there.
        let _ = progress.set(read.load(Ordering::Relaxed));
    });
    drop(progress);
    drop(receiver);
    // Otherwise it may wait for input that never comes.
    if matches!(ended, Ok(End::Complete)) && parser.join().is_err() {
        return Err(Failure::input("the parser ended unexpectedly; this is a bug"));
    }

    let tally = import.tally;
    let metrics = import.metrics.iter().flatten().count() as u64;
    drop(import.metrics);
    // What was committed becomes durable, however the import ended.
    let (stats, closed) = (db.stats(), db.close());
    let end = match (ended, closed) {
        (Ok(end), Ok(_)) => end,
        (Err(failure), Ok(_)) => return Err(tally.told_with(failure)),
        (Ok(_), Err(error)) => return Err(tally.told_with(error.into())),
        (Err(failure), Err(error)) => {
            let lost = format_args!("and it could not be made durable: {}", Chain(&error));
            return Err(tally.told_with(failure).and(lost));
        }
    };
    let outcome = Imported { end, tally, metrics, stats, elapsed: begin.elapsed() };
    outcome.print(&args.open.dir, console)?;
    Ok(if end == End::Interrupted { Status::Interrupted } else { Status::Done })
}

/// Reads the first line of every file that can be read twice.
fn check_headers(files: &[Input]) -> Outcome<()> {
    let check = |file: &Input| {
        let mut table = SeriesTable::default();
        match RowReader::new(file.open(Arc::default())?, &mut table, false) {
            Ok(_) => Ok(()),
            Err(error) => Err(unreadable(file, error)),
        }
    };
    let mut files = files.iter().filter(|file| file.is_regular());
    files.try_for_each(check).map_err(|failure| Tally::default().told_with(failure))
}

/// How committing ended, if not with a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Complete,
    Interrupted,
}

/// An import that ended without a failure.
struct Imported {
    end: End,
    tally: Tally,
    metrics: u64,
    stats: Stats,
    elapsed: Duration,
}

impl Imported {
    fn print(&self, dir: &Path, console: Console) -> Outcome<()> {
        let Imported { end, tally, metrics, stats, elapsed } = self;
        let mut out = console.out();
        if console.json {
            out.json(&json!({
                "points": tally.points,
                "metrics": metrics,
                "batches": tally.batches,
                "bad_rows": tally.bad,
                "interrupted": *end == End::Interrupted,
                "seconds": elapsed.as_secs_f64(),
                "points_per_second": per_second(tally.points, *elapsed),
                "database_metrics": stats.metrics,
                "stream_bytes": stats.stream_bytes,
                "database_volumes": stats.volumes,
            }))?;
            return out.flush();
        }
        out.line(format_args!(
            "{}imported {} of {} into {} in {} ({})",
            if *end == End::Interrupted { "interrupted; " } else { "" },
            counted(tally.points, "point"),
            counted(*metrics, "metric"),
            dir.display(),
            duration(*elapsed),
            rate(tally.points, *elapsed, "points"),
        ))?;
        if tally.bad > 0 {
            out.line(format_args!("passed over {}", counted(tally.bad, "bad row")))?;
        }
        let (metrics, streams) = (counted(stats.metrics, "metric"), bytes(stats.stream_bytes));
        let volumes = match stats.volumes {
            0 => String::new(),
            count => format!(" in memory, and {}", counted(count, "volume")),
        };
        out.line(format_args!("the database has {metrics} in {streams} of streams{volumes}"))?;
        out.flush()
    }
}

/// What the parser tells.
enum Message {
    /// Rows of the file with this name.
    Batch(Arc<str>, Batch),
    Failed(Failure),
}

/// Parses all files; ends early when nobody listens any more.
fn parse(files: &[Input], skip_bad: bool, read: &Arc<AtomicU64>, sender: &SyncSender<Message>) {
    let mut table = SeriesTable::default();
    for file in files {
        let name: Arc<str> = file.name().into();
        let send = |batch| sender.send(Message::Batch(Arc::clone(&name), batch)).is_ok();
        match parse_file(file, skip_bad, read, &mut table, send) {
            Ok(true) => {}
            Ok(false) => return,
            Err(failure) => {
                let _ = sender.send(Message::Failed(failure));
                return;
            }
        }
    }
}

/// `false` when nobody listens any more.
fn parse_file(
    file: &Input,
    skip_bad: bool,
    read: &Arc<AtomicU64>,
    table: &mut SeriesTable,
    mut send: impl FnMut(Batch) -> bool,
) -> Outcome<bool> {
    let failure = |error| unreadable(file, error);
    let mut reader = RowReader::new(file.open(Arc::clone(read))?, table, skip_bad).map_err(failure)?;
    while let Some(batch) = reader.next_batch().map_err(failure)? {
        if !send(batch) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn unreadable(file: &Input, error: ReadError) -> Failure {
    match error {
        ReadError::Source(error) => Failure::input(format_args!("cannot read {}: {error}", file.name())),
        ReadError::Bad(bad) => bad_row(&file.name(), &bad),
    }
}

fn bad_row(file: &str, bad: &BadRow) -> Failure {
    let failure =
        Failure::input(format_args!("{file}, line {}: {}", bad.line, bad.reason)).fact("line", bad.line);
    // A missing header cannot be skipped.
    if bad.line > 1 {
        failure.hint("correct the row, or pass over such rows with --skip-bad")
    } else {
        failure
    }
}

/// The committing side.
struct Import<'a> {
    db: &'a Database,
    namespace: Namespace,
    /// By series number. `None` is a series that the database refused and the user wants skipped.
    metrics: Vec<Option<Metric>>,
    tally: Tally,
    console: Console,
}

/// What has been done so far.
#[derive(Debug, Default)]
struct Tally {
    points: u64,
    batches: u64,
    bad: u64,
    /// The file and line of the last row committed.
    up_to: Option<(Arc<str>, u64)>,
}

impl Tally {
    /// A failure, and what had been committed before it.
    fn told_with(&self, failure: Failure) -> Failure {
        let failure = failure.fact("committed_points", self.points).fact("committed_batches", self.batches);
        match &self.up_to {
            None => failure.and("nothing was committed"),
            Some((file, line)) => failure.and(format_args!(
                "committed before that: {} (everything up to {file}, line {line}); importing again repeats them without harm",
                counted(self.points, "point")
            )),
        }
    }
}

impl Import<'_> {
    fn commit_all(
        &mut self,
        receiver: &Receiver<Message>,
        skip_bad: bool,
        interrupt: &Interrupt,
        mut progress: impl FnMut(),
    ) -> Outcome<End> {
        loop {
            let message = receiver.recv_timeout(PATIENCE);
            // Before the message: on Ctrl-C whatever feeds standard input may have ended in the middle of a row.
            if interrupt.is_pressed() {
                return Ok(End::Interrupted);
            }
            match message {
                Ok(Message::Batch(file, batch)) => self.commit(file, batch, skip_bad)?,
                Ok(Message::Failed(failure)) => return Err(failure),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(End::Complete),
            }
            progress();
        }
    }

    fn commit(&mut self, file: Arc<str>, batch: Batch, skip_bad: bool) -> Outcome<()> {
        self.resolve(&file, &batch, skip_bad)?;
        for bad in &batch.bad {
            self.tally.bad += 1;
            if self.tally.bad <= BAD_ROWS_SHOWN {
                self.console.note(format_args!("skipped {file}, line {}: {}", bad.line, bad.reason));
            } else if self.tally.bad == BAD_ROWS_SHOWN + 1 {
                self.console.note("further bad rows are only counted");
            }
        }
        let mut points = 0;
        let mut txn = self.db.begin_write();
        for column in &batch.columns {
            let rows = column.at.len() as u64;
            match self.metrics.get(column.series).and_then(Option::as_ref) {
                Some(metric) => {
                    txn.append_columns(metric, &column.at, &column.values)?;
                    points += rows;
                }
                None => self.tally.bad += rows,
            }
        }
        txn.commit()?;
        self.tally.points += points;
        self.tally.batches += 1;
        self.tally.up_to = Some((file, batch.last_line));
        Ok(())
    }

    /// Finds the metrics of the batch's new series.
    fn resolve(&mut self, file: &str, batch: &Batch, skip_bad: bool) -> Outcome<()> {
        for id in &batch.new_series {
            let series = self.metrics.len();
            self.metrics.push(match self.db.metric_in(&self.namespace, id) {
                Ok(metric) => Some(metric),
                Err(error) => {
                    let failure = Failure::from(error);
                    let line = batch
                        .columns
                        .iter()
                        .find(|column| column.series == series)
                        .map(|column| column.first_line);
                    let place = format!("{file}, line {}", line.unwrap_or_default());
                    if failure.status != Status::Input || !skip_bad {
                        return Err(failure.context(place));
                    }
                    self.console.note(format_args!("skipped every row of the series at {place}: {failure}"));
                    None
                }
            });
        }
        Ok(())
    }
}
