//! `chronolith torture`: work whose every durable commit is told, and the check that all of it is there.
//!
//! Made for tools that kill, starve or unplug a store while it works. `run` prints one line on stdout for each commit
//! that is durable, after it is; `verify` opens what is left and compares it with those lines; `dump` prints all of
//! it in a fixed order.
//!
//! Tests run the same ops on simulated disks, so the modules below know nothing of the tool: no console, no exit status.
//!
//! * `beside`: what is done beside the work: backups, and reading as another process does
//! * `workload`, `plan`, `random`: which ops there are
//! * `writer`: commits them; `acks`: what it says of them
//! * `oracle`, `cells`: what a store must hold

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use chronolith::{Database, Error, Options, RepairOptions};
use serde_json::{Map, Value, json};

use crate::console::{Console, counted};
use crate::failure::{Failure, Outcome, Status};
use crate::progress::Progress;
use crate::{ids, open};

mod acks;
mod beside;
mod cells;
mod oracle;
mod plan;
mod random;
mod workload;
mod writer;

use acks::Ack;
use workload::Kind;
use writer::{Acknowledge, Writer};

/// Small, so that a short run uses several.
const SEGMENT_BYTES: u32 = 64 * 1024;

/// Work for tools that kill, starve or unplug a store, and the check of what is left.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum TortureCommand {
    /// Commit ops, and print a line for each that is durable.
    ///
    /// These lines are what `torture verify` reads, so they are the same with --json; only the summary, the last line then, is JSON.
    /// Exit status 1 if an op failed and had to be tried again.
    Run(RunArgs),
    /// Check that everything acknowledged is there, and nothing invented. Exit status 1 if not.
    Verify(VerifyArgs),
    /// Print all metadata, metrics and points in a fixed order.
    Dump(DumpArgs),
}

/// `torture run`
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The database's directory; made if there is none, else the work goes on.
    dir: PathBuf,
    /// Which ops; a store that has some already keeps its seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many commits to try, over all writers.
    #[arg(long, default_value_t = 300)]
    ops: u64,
    /// How many threads write.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    writers: u32,
    /// Now and then put a backup into this folder, and read the database as another process would.
    #[arg(long, value_name = "FOLDER")]
    beside: Option<PathBuf>,
    /// Run a repair first, if there is a database.
    #[arg(long)]
    repair: bool,
}

/// `torture verify`
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The database's directory; if it has none, none is made.
    dir: PathBuf,
    /// The lines that `torture run` printed, of all runs on this directory. JSON objects among them are passed over.
    acks: PathBuf,
    /// The folder that `torture run --beside` put backups into: they are checked too.
    #[arg(long, value_name = "FOLDER")]
    beside: Option<PathBuf>,
}

/// `torture dump`
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DumpArgs {
    /// The database's directory.
    dir: PathBuf,
}

pub(crate) fn run(command: TortureCommand, console: Console) -> Outcome {
    match command {
        TortureCommand::Run(args) => work(&args, console),
        TortureCommand::Verify(args) => verify(&args, console),
        TortureCommand::Dump(args) => dump(&args, console),
    }
}

/// Runs the writers. When the database fails under them, it is reopened once.
fn work(args: &RunArgs, console: Console) -> Outcome {
    let run = Run {
        args,
        console,
        tickets: AtomicU64::new(0),
        failures: AtomicU64::new(0),
        done: Mutex::default(),
        progress: Mutex::new(Progress::beside_output(console, args.ops, "working")),
    };
    if args.repair {
        repair(&args.dir, console)?;
    }
    // If nothing was done yet, there is nothing to go on with.
    let db = run.open()?;
    let mut result = run.once(db);
    if let Err(failure) = &result
        && failure.status == Status::Database
    {
        console.warn(failure);
        console.note("reopening once");
        result = run.open().and_then(|db| run.once(db));
    }
    run.finish(result)
}

/// A repair; where there is no database there is nothing to do.
fn repair(dir: &Path, console: Console) -> Outcome<()> {
    match RepairOptions::new().made_with(options()).run(dir) {
        Ok(report) => {
            console.note(format_args!("repair: {}", counted(report.findings.len() as u64, "finding")));
            Ok(())
        }
        Err(Error::NotADatabase { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// One run of the workload, over all its openings.
struct Run<'a> {
    args: &'a RunArgs,
    console: Console,
    /// Ops tried; each has one.
    tickets: AtomicU64,
    /// Ops that failed and were tried again.
    failures: AtomicU64,
    /// Ops done of each kind.
    done: Mutex<BTreeMap<Kind, u64>>,
    progress: Mutex<Progress>,
}

impl Run<'_> {
    fn open(&self) -> Outcome<Database> {
        let db = open::told(options(), &self.args.dir, self.console)?;
        // Its metrics would stay among somebody's own.
        let snapshot = db.snapshot();
        if snapshot.meta(oracle::SEED_KEY).is_none() && snapshot.metrics().next().is_some() {
            let dir = self.args.dir.display();
            let failure =
                Failure::new(Status::Usage, format_args!("{dir} has metrics that torture did not make"));
            return Err(failure.hint("give a new folder: what torture writes would stay among them"));
        }
        drop(snapshot);
        Ok(db)
    }

    /// Works until all tickets are used, or until a failure that does not pass.
    fn once(&self, db: Database) -> Outcome<()> {
        let seed = self.retry(|| writer::begin(&db, self.args.seed))?;
        // That was no op.
        self.tickets.fetch_sub(1, Ordering::Relaxed);
        if let Some(seed) = seed.filter(|seed| *seed != self.args.seed) {
            self.console.note(format_args!("going on with the store's seed {seed}"));
        }
        let writers = seed.into_iter().flat_map(|seed| (0..self.args.writers).map(move |w| (seed, w)));
        let writers: Vec<Writer> = writers
            .map(|(seed, writer)| Writer::resume(&db, seed, writer).map(Writer::sealing))
            .collect::<Result<_, _>>()?;
        thread::scope(|scope| {
            let threads: Vec<_> =
                writers.into_iter().map(|writer| scope.spawn(|| self.write(&db, writer))).collect();
            let ends = threads.into_iter().map(|thread| match thread.join() {
                Ok(end) => end,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            ends.collect::<Vec<_>>().into_iter().collect::<Outcome<()>>()
        })?;
        db.close()?;
        Ok(())
    }

    /// What each thread does.
    fn write(&self, db: &Database, mut writer: Writer) -> Outcome<()> {
        let beside = self.args.beside.as_deref();
        while let Some(kind) = self.retry(|| writer.step(db, &mut Lines))? {
            *lock(&self.done).entry(kind).or_default() += 1;
            if let Some(beside) = beside.filter(|_| writer.is_time_for_backup()) {
                beside::back_up(db, beside, self.console)?;
                beside::read(&self.args.dir, self.console)?;
            }
            // Those that wait for a ticket have taken one too.
            let tried = self.tickets.load(Ordering::Relaxed).min(self.args.ops);
            lock(&self.progress).set(tried)?;
        }
        db.sync()?;
        Ok(writer.settle(&mut Lines)?)
    }

    /// Tries until it works, a failure does not pass, or there are no more tickets: then it is `None`.
    fn retry<T>(&self, mut step: impl FnMut() -> Result<T, writer::Failure>) -> Outcome<Option<T>> {
        while self.tickets.fetch_add(1, Ordering::Relaxed) < self.args.ops {
            match step() {
                Ok(value) => return Ok(Some(value)),
                Err(failure) if failure.passes() => {
                    self.console.warn(format_args!("{failure}; trying again"));
                    self.failures.fetch_add(1, Ordering::Relaxed);
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(None)
    }

    /// The summary: on standard error, as the acknowledgements have standard output for themselves; with `--json` after them.
    fn finish(self, result: Outcome<()>) -> Outcome {
        drop(self.progress);
        let done = lock(&self.done);
        let total: u64 = done.values().sum();
        let retries = self.failures.load(Ordering::Relaxed);
        let counts = || Kind::ALL.iter().map(|kind| (kind.name(), done.get(kind).copied().unwrap_or(0)));
        if let Err(failure) = result {
            return Err(failure.fact("commits", total).fact("failed_commits", retries));
        }
        if self.console.json {
            let kinds: Map<String, Value> =
                counts().map(|(name, count)| (name.to_owned(), json!(count))).collect();
            let mut out = self.console.out();
            out.json(&json!({ "commits": total, "failed_commits": retries, "kinds": kinds }))?;
            out.flush()?;
        } else {
            let share = |count: u64| count as f64 * 100.0 / total.max(1) as f64;
            let mix: Vec<String> =
                counts().map(|(name, count)| format!("{name} {count} ({:.1} %)", share(count))).collect();
            self.console.note(format_args!("{}: {}", counted(total, "commit"), mix.join(", ")));
            if retries > 0 {
                self.console.note(counted(retries, "failed commit"));
            }
        }
        Ok(if retries == 0 { Status::Done } else { Status::CheckFailed })
    }
}

/// What the mutex holds; a thread that panicked ends the process by itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<writer::Failure> for Failure {
    fn from(failure: writer::Failure) -> Self {
        match failure {
            writer::Failure::Database(error) => error.into(),
            writer::Failure::Store(text) => Failure::new(Status::CheckFailed, text),
            writer::Failure::Output(error) => Failure::stdout(&error),
        }
    }
}

/// Acknowledgements go to stdout, each written at once and whole.
struct Lines;

impl Acknowledge for Lines {
    fn acknowledge(&mut self, ack: Ack) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(format!("{ack}\n").as_bytes())?;
        stdout.flush()
    }
}

fn verify(args: &VerifyArgs, console: Console) -> Outcome {
    let acks = read_acks(&args.acks)?;
    let mut found = match open_existing(&args.dir, console)? {
        Some(db) => oracle::violations(&db, &acks).map_err(as_finding)?,
        None if acks.is_empty() => Vec::new(),
        None => vec![format!("{}: no database, but {} acknowledged ops", args.dir.display(), acks.len())],
    };
    if let Some(beside) = &args.beside {
        found.extend(beside::violations(beside, &acks)?);
    }
    let mut out = console.out();
    if console.json {
        out.json(&json!({ "sound": found.is_empty(), "acks": acks.len(), "violations": found }))?;
    } else {
        for violation in &found {
            out.line(format_args!("violation: {violation}"))?;
        }
        let acks = counted(acks.len() as u64, "acknowledged op");
        match found.len() {
            0 => out.line(out.style().green(format_args!("sound: {acks} found, and nothing invented")))?,
            count => out.line(format_args!("{} found, {acks}", counted(count as u64, "violation")))?,
        }
    }
    out.flush()?;
    Ok(if found.is_empty() { Status::Done } else { Status::CheckFailed })
}

fn read_acks(path: &Path) -> Outcome<Vec<Ack>> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error))?;
    let lines = text.lines().enumerate();
    // Those are summaries of `run --json`.
    let lines = lines.filter(|(_, line)| !line.starts_with('{'));
    let acks = lines.map(|(index, line)| {
        Ack::parse(line).ok_or_else(|| {
            let place = format_args!("{}, line {}", path.display(), index + 1);
            Failure::input(format_args!("{place}: not a line that `torture run` prints"))
                .fact("line", index as u64 + 1)
        })
    });
    acks.collect()
}

/// The database, if there is one. A directory in which none was ever finished counts as having none.
fn open_existing(dir: &Path, console: Console) -> Outcome<Option<Database>> {
    match open::told(options().create(false), dir, console) {
        Ok(db) => Ok(Some(db)),
        Err(Error::NotADatabase { .. }) => Ok(None),
        Err(error) => Err(as_finding(error)),
    }
}

/// A store that is damaged is a failed check, unlike one that cannot be opened now.
fn as_finding(error: Error) -> Failure {
    let mut failure = Failure::from(error);
    if failure.damage {
        failure.status = Status::CheckFailed;
    }
    failure
}

fn dump(args: &DumpArgs, console: Console) -> Outcome {
    let db = open::told(options().create(false), &args.dir, console)?;
    let snapshot = db.snapshot();
    let mut out = console.out();
    let mut print = |line: std::fmt::Arguments<'_>, json: &dyn Fn() -> Value| match console.json {
        true => out.json(&json()),
        false => out.line(line),
    };
    for (key, value) in snapshot.metas() {
        let (key, value) = (ids::ascii(key), ids::ascii(value));
        print(format_args!("meta {key} {value}"), &|| json!({ "meta": key, "value": value }))?;
    }
    for namespace in snapshot.namespaces() {
        let name = namespace.name();
        print(format_args!("namespace {name}"), &|| json!({ "namespace": name }))?;
    }
    for metric in snapshot.metrics() {
        let (number, namespace) = (metric.id().get(), metric.namespace().name());
        print(
            format_args!("metric {number} {namespace} {metric}"),
            &|| json!({ "metric": number, "namespace": namespace, "name": metric.to_string() }),
        )?;
        for point in snapshot.range(&metric, ..) {
            let point = point?;
            let (at, bits) = (point.at, format!("{:#018x}", point.value.to_bits()));
            let note = point.annotation.map(|note| ids::ascii(&note));
            let column = note.as_ref().map_or_else(String::new, |note| format!(" {note}"));
            print(
                format_args!("point {number} {at} {bits}{column}"),
                &|| json!({ "point": number, "ts_ns": at.as_nanos(), "bits": bits, "annotation": note }),
            )?;
        }
    }
    out.flush()?;
    Ok(Status::Done)
}

fn options() -> Options {
    // Few volumes for a seal, and many openings of them.
    let sealing = Options::new().shards(2).open_volumes_max(8).refresh_bytes(4_096);
    sealing.log_segment_bytes_min(SEGMENT_BYTES).log_segment_bytes_max(SEGMENT_BYTES)
}
