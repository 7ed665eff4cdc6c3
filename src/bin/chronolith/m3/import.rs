//! `m3 import`: a directory of M3 into a database, a batch of points to a commit.
//!
//! What is read, and in which order, the library's plan says: flushed volumes, snapshots, commit logs (logs that are not whole, and older ones, first).
//! A later point replaces one of the same time, so that at the end each metric is what M3 would have after a restart. `sources` reads, `merge` replaces.

use std::path::{Path, PathBuf};
use std::time::Instant;

use chronolith::io::RealDisk;
use chronolith::m3::Plan;
use clap::Args;

use crate::console::Console;
use crate::failure::{Chain, Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::m3::imported::{Imported, Tally};
use crate::m3::merge::Merge;
use crate::m3::names::Names;
use crate::m3::sources::{Import, Stop};
use crate::m3::{list, survey};
use crate::open::OpenArgs;

/// Import everything into a database, made if there is none.
///
/// Namespaces, metric IDs, tags, annotations, times and values are kept exactly. Of each block the highest complete volume is read, then snapshots, then
/// commit logs; a later point replaces an earlier one of the same time. Where a commit log is not whole, what it and older logs say does not replace
/// what volumes have. Of what is damaged all that is sound is read, and metrics that a volume lost are looked for in the volumes that it replaced. What was damaged is listed at the end, and so is what the database cannot have (a metric with the empty ID
/// without --empty-id, for instance): in both cases the exit status is 1.
///
/// It may be run again at any time: what is there already is not written again, and no value is replaced by an older one on the way (unless over a
/// million points differ). After Ctrl-C, points that M3 has in several places may lack their last value until the command is run again. Each batch of
/// 65,536 points is one atomic commit. Commits are not synced one by one: all are durable when the command has ended.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// The node's file path prefix.
    prefix: PathBuf,
    #[command(flatten)]
    open: OpenArgs,
    /// Only this namespace; may be given several times. [default: all]
    #[arg(long, value_name = "NAME")]
    namespace: Vec<String>,
    /// The ID that the metric with the empty ID gets, which M3 can have and chronolith cannot. Without this it is passed over, unless an earlier
    /// import was told. An ID that another metric has is refused.
    #[arg(long, value_name = "ID")]
    empty_id: Option<String>,
}

impl ImportArgs {
    pub(super) fn wants(&self, namespace: &str) -> bool {
        self.namespace.is_empty() || self.namespace.iter().any(|wanted| wanted == namespace)
    }
}

pub(crate) fn run(args: &ImportArgs, console: Console) -> Outcome {
    let directory = super::directory(&args.prefix)?;
    check_place(args)?;
    let plan = Plan::new(&RealDisk::new(), &directory, |namespace| args.wants(namespace));
    survey::check_namespaces(&args.namespace, &directory, &plan)?;
    if plan.volumes().next().is_none() && directory.logs.is_empty() && plan.damage.is_empty() {
        return Err(Failure::input(format_args!("{} has nothing to import", args.prefix.display()))
            .hint("there are neither complete volumes nor commit logs; `m3 list` shows what there is"));
    }
    let wants = |namespace: &str| args.wants(namespace);
    let unnamed = args.empty_id.as_deref().map(|id| survey::check_empty_id(id, wants, &plan)).transpose()?;
    for path in list::unfinished(&directory) {
        console.note(format_args!("note: not imported, as it was not finished: {}", path.display()));
    }
    note_doubtful_logs(&plan, console);
    let interrupt = Interrupt::catch();
    let db = args.open.or_create(console)?;
    let begin = Instant::now();
    let mut merge = Merge::new(&db);
    if let Some((id, namespaces)) = args.empty_id.as_deref().zip(unnamed) {
        survey::name_empty_id(id, &namespaces, &db, &mut merge)?;
    }
    let names = Names::new(&db, console, args.empty_id.as_deref());
    let mut import = Import { args, console, interrupt: &interrupt, names, merge, tally: Tally::default() };
    import.tally.damage.extend(directory.damage.iter().map(|error| Chain(error).to_string()));
    import.tally.damage.extend(plan.damage.iter().map(|(_, error)| Chain(error).to_string()));
    let ended = import.all(&directory, &plan);
    let Import { names, merge, mut tally, .. } = import;
    tally.figures = merge.figures;
    tally.doubtful_logs = plan.logs_before_volumes.iter().map(|log| log.path.clone()).collect();
    tally.retagged = names.retagged.len() as u64;
    let (metrics, namespaces) = (names.metrics.len() as u64, names.namespace_count());
    tally.refused = names.refused;
    drop(merge);
    // What was committed becomes durable, however the import ended.
    let (stats, closed) = (db.stats(), db.close());
    let interrupted = match (ended, closed) {
        (Ok(()), Ok(_)) => false,
        (Err(Stop::Interrupted), Ok(_)) => true,
        (Err(Stop::Failed(failure)), Ok(_)) => return Err(tally.told_with(failure)),
        (Err(Stop::Failed(failure)), Err(error)) => {
            let lost = format_args!("and it could not be made durable: {}", Chain(&error));
            return Err(tally.told_with(failure).and(lost));
        }
        (_, Err(error)) => return Err(tally.told_with(error.into())),
    };
    let (dir, elapsed) = (&args.open.dir, begin.elapsed());
    let imported = Imported { dir, interrupted, tally, metrics, namespaces, stats, elapsed };
    imported.print(console)?;
    Ok(imported.status())
}

/// Says which logs are not whole, and what that changes.
fn note_doubtful_logs(plan: &Plan, console: Console) {
    for log in &plan.not_whole {
        console.note(format_args!("note: not all of {} can be read", log.path.display()));
    }
    if let Some(last) = plan.not_whole.last() {
        console.note(format_args!(
            "note: later values of its points may be lost: what {} and older commit logs say replaces no point of a volume",
            last.path.display()
        ));
    }
}

/// Refuses a database in the midst of M3's files.
fn check_place(args: &ImportArgs) -> Outcome<()> {
    let whole = |path: &Path| path.canonicalize().ok();
    let (Some(prefix), Some(dir)) = (whole(&args.prefix), whole(&args.open.dir)) else { return Ok(()) };
    if prefix != dir {
        return Ok(());
    }
    Err(Failure::input(format_args!("{} is the directory of M3 itself", args.open.dir.display())).hint(
        "name a folder for the database behind it, a new or an empty one: `chronolith m3 import PREFIX DIR`",
    ))
}
