//! Opening a database for a verb, and the metrics in it.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chronolith::{Database, Durability, Metric, Namespace, OpenReport, OpenStep, Options, Snapshot};
use clap::Args;

use crate::console::{Console, bytes, counted};
use crate::failure::{Failure, Outcome, Status};
use crate::ids;
use crate::progress::Progress;

/// Which database, and how to open it.
#[derive(Args, Clone, Debug)]
pub(crate) struct OpenArgs {
    /// The folder of the database.
    pub(crate) dir: PathBuf,
    /// Keep what is sound of a damaged database. Damaged files are kept under other names, and what was lost is listed.
    #[arg(long)]
    pub(crate) salvage: bool,
}

impl OpenArgs {
    /// Opens an existing database; never makes one. Nothing is sealed meanwhile that nobody asked for.
    pub(crate) fn existing(&self, console: Console) -> Outcome<Database> {
        self.existing_with(Options::new(), console)
    }

    fn existing_with(&self, options: Options, console: Console) -> Outcome<Database> {
        if !self.dir.exists() {
            return Err(Failure::new(
                Status::Database,
                format_args!("{} does not exist", self.dir.display()),
            )
            .hint("check the path; `chronolith import DIR FILE` makes a database"));
        }
        self.open(options.create(false).workers(0), console)
    }

    /// Opens a database for bulk writing, making it if need be. Commits are buffered: the caller syncs at the end.
    pub(crate) fn or_create(&self, console: Console) -> Outcome<Database> {
        self.open(Options::new().durability(Durability::Buffered), console)
    }

    fn open(&self, options: Options, console: Console) -> Outcome<Database> {
        let db = attempt(options.salvage(self.salvage), &self.dir, console)?;
        tell(db.open_report(), self.salvage, console);
        Ok(db)
    }
}

/// Which database, and how to open it, for who only reads.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    pub(crate) open: OpenArgs,
    /// Read the last checkpoint, also while another process has the database open, and write nothing. What was committed after it is not seen.
    #[arg(long, conflicts_with = "salvage")]
    pub(crate) read_only: bool,
}

impl ReadArgs {
    /// As [`OpenArgs::existing`], or the last checkpoint.
    pub(crate) fn open(&self, console: Console) -> Outcome<Database> {
        self.open.existing_with(Options::new().read_only(self.read_only), console)
    }
}

/// Opens a database without salvage and says what the user should know of it.
///
/// # Errors
/// The library's own: a [`Failure`] for who does not look into it.
pub(crate) fn told(options: Options, dir: &Path, console: Console) -> chronolith::Result<Database> {
    let db = attempt(options, dir, console)?;
    tell(db.open_report(), false, console);
    Ok(db)
}

/// Opens a database, which takes as long as its log is.
fn attempt(options: Options, dir: &Path, console: Console) -> chronolith::Result<Database> {
    let shown: Mutex<Option<(OpenStep, Progress)>> = Mutex::new(None);
    let shown = Arc::new(shown);
    let seen = shown.clone();
    let options = options.open_progress(move |now| {
        let mut shown = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (step, bar) =
            shown.get_or_insert_with(|| (OpenStep::Installs, Progress::count(console, now.total, "opening")));
        if *step != now.step || now.done == 0 {
            *step = now.step;
            let what = match now.step {
                OpenStep::Names => "loading names",
                OpenStep::Memory => "loading points",
                OpenStep::Log => "replaying the log",
                _ => "going on with seals",
            };
            bar.part(what, now.total, now.step == OpenStep::Log);
        }
        match bar.set(now.done) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    let opened = options.open(dir);
    // The database keeps no options, but who is told must not be asked for that.
    shown.lock().unwrap_or_else(PoisonError::into_inner).take();
    opened
}

/// Says what opening found that the user should know.
fn tell(report: &OpenReport, salvage: bool, console: Console) {
    if report.cut_bytes > 0 {
        console.note(format_args!(
            "note: cut an unfinished end of the commit log ({}); it was never acknowledged as durable{}",
            bytes(report.cut_bytes),
            report.cut.as_ref().map_or(String::new(), |cut| format!(" ({cut})")),
        ));
    }
    for file in &report.foreign_files {
        console.note(format_args!("note: {file} does not belong to the database and is left alone"));
    }
    for damage in &report.damage {
        // Some damage costs nothing, and is repaired without being asked for.
        console.warn(format_args!("{}: {damage}", if salvage { "salvage" } else { "repaired" }));
    }
    for substitute in &report.substitutes {
        console.note(format_args!("salvaged: {substitute}"));
    }
    if let Some(file) = report.damaged_files.first() {
        console.note(format_args!(
            "note: {}, put aside by --salvage, can be deleted if nothing in it is missed: {file}{}",
            counted(report.damaged_files.len() as u64, "damaged file"),
            if report.damaged_files.len() > 1 { ", ..." } else { "" },
        ));
    }
}

/// Looks a namespace up.
pub(crate) fn namespace(snapshot: &Snapshot, name: &str) -> Outcome<Namespace> {
    snapshot.namespace(name).ok_or_else(|| {
        let names: Vec<_> = snapshot.namespaces().map(|namespace| namespace.name().to_owned()).collect();
        Failure::input(format_args!("there is no namespace {name}"))
            .hint(format_args!("there are: {}", names.join(", ")))
    })
}

/// All metrics of a snapshot, or those of one namespace, sorted by namespace and ID.
pub(crate) fn sorted_metrics(snapshot: &Snapshot, only: Option<&Namespace>) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = snapshot
        .metrics()
        .filter(|metric| only.is_none_or(|namespace| metric.namespace() == namespace))
        .collect();
    metrics.sort_by(|a, b| (a.namespace().name(), a.name()).cmp(&(b.namespace().name(), b.name())));
    metrics
}

/// Looks a metric up by its ID's bytes, or by its ID as `list` prints it: escaped, and with a namespace before it. What the given namespace has
/// goes first.
pub(crate) fn metric(snapshot: &Snapshot, namespace: &Namespace, id: &OsStr) -> Outcome<Metric> {
    let id = id.as_encoded_bytes();
    if let Some(metric) = within(snapshot, namespace, id).or_else(|| with_namespace(snapshot, id)) {
        return Ok(metric);
    }
    let failure = Failure::input(format_args!(
        "there is no metric {} in namespace {}",
        ids::shown(id),
        ids::readable(namespace.name().as_bytes())
    ));
    let elsewhere: Vec<Metric> =
        snapshot.namespaces().filter_map(|other| within(snapshot, &other, id)).collect();
    if let Some(first) = elsewhere.first() {
        let spelled: Vec<_> = elsewhere.iter().take(3).map(ids::with_namespace).collect();
        let first = ids::readable(first.namespace().name().as_bytes());
        return Err(failure.hint(format_args!(
            "other namespaces have it: {} (or --namespace {first})",
            spelled.join(", ")
        )));
    }
    let similar = similar(id, &sorted_metrics(snapshot, Some(namespace)));
    Err(match similar.is_empty() {
        true => failure.hint("`chronolith list DIR` shows the metrics"),
        false => failure.hint(format_args!("did you mean {}?", similar.join(" or "))),
    })
}

/// A namespace's metric by its ID, as it is or escaped.
fn within(snapshot: &Snapshot, namespace: &Namespace, id: &[u8]) -> Option<Metric> {
    let unescaped = || ids::unescape(id).and_then(|id| snapshot.metric_in(namespace, id));
    snapshot.metric_in(namespace, id).or_else(unescaped)
}

/// The metric that `NAMESPACE:ID` means; if several do, that of the shortest namespace.
fn with_namespace(snapshot: &Snapshot, text: &[u8]) -> Option<Metric> {
    let found = snapshot.namespaces().filter_map(|namespace| {
        let name = ids::readable(namespace.name().as_bytes());
        let id = text.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
        within(snapshot, &namespace, id)
    });
    found.min_by_key(|metric| metric.namespace().name().len())
}

/// Up to three metrics whose ID contains the text, whatever the case.
fn similar(id: &[u8], metrics: &[Metric]) -> Vec<String> {
    let needle = id.to_ascii_lowercase();
    let contains = |metric: &&Metric| {
        let hay = metric.name().to_ascii_lowercase();
        !needle.is_empty() && hay.windows(needle.len()).any(|window| window == needle)
    };
    metrics.iter().filter(contains).take(3).map(|metric| ids::readable(metric.name())).collect()
}
