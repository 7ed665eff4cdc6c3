//! What must be known of a directory's names before anything of it is written.
//!
//! Folders tell the namespaces of volumes; those of logs, and IDs, stand in the files. So logs are only read here for what cannot be known otherwise.

use std::collections::BTreeSet;

use chronolith::Database;
use chronolith::fileset::Volume;
use chronolith::io::RealDisk;
use chronolith::m3::{Directory, LogSeries, Plan};

use crate::failure::{Failure, Outcome};
use crate::ids;
use crate::m3::merge::Merge;

/// Key of the metadata that says what the metric with the empty ID of a namespace is called in the database.
const EMPTY_ID_KEY: &str = "m3 import: empty ID of ";

/// Refuses namespaces that are not there.
pub(super) fn check_namespaces(wanted: &[String], directory: &Directory, plan: &Plan) -> Outcome<()> {
    let mut known: BTreeSet<String> =
        directory.namespaces.iter().map(|namespace| namespace.name.clone()).collect();
    if wanted.iter().any(|name| !known.contains(name)) {
        for_each_series(plan, |series| {
            if !known.contains(&series.namespace) {
                known.insert(series.namespace.clone());
            }
        });
    }
    let Some(name) = wanted.iter().find(|name| !known.contains(*name)) else { return Ok(()) };
    let names: Vec<_> = known.iter().map(|name| ids::readable(name.as_bytes())).collect();
    Err(Failure::input(format_args!("{} has no namespace {name}", directory.path().display()))
        .hint(format_args!("there are: {}", names.join(", "))))
}

/// The namespaces that have a metric with the empty ID. It is to be called `id`, which is refused where another metric of theirs has that.
pub(super) fn check_empty_id(
    id: &str,
    wants: impl Fn(&str) -> bool,
    plan: &Plan,
) -> Outcome<BTreeSet<String>> {
    let (mut unnamed, mut named) = (BTreeSet::new(), BTreeSet::new());
    for place in plan.volumes() {
        // What cannot be read at all is told when it is imported.
        let Ok(volume) = place.salvage(&RealDisk::new()) else { continue };
        for (found, wanted) in [(&mut unnamed, ""), (&mut named, id)] {
            if !found.contains(&place.namespace) && has(&volume, wanted.as_bytes()) {
                found.insert(place.namespace.clone());
            }
        }
    }
    for_each_series(plan, |series| {
        if series.id.is_empty() && wants(&series.namespace) {
            unnamed.insert(series.namespace.clone());
        } else if series.id == id.as_bytes() && wants(&series.namespace) {
            named.insert(series.namespace.clone());
        }
    });
    match unnamed.intersection(&named).next() {
        Some(namespace) => Err(taken("M3's directory", namespace, id)),
        None => Ok(unnamed),
    }
}

/// Stages what the metric with the empty ID is called in these namespaces, so that the next import knows it again; refused where the database has
/// another metric of that ID.
pub(super) fn name_empty_id(
    id: &str,
    namespaces: &BTreeSet<String>,
    db: &Database,
    merge: &mut Merge<'_>,
) -> Outcome<()> {
    let snapshot = db.snapshot();
    for name in namespaces {
        let key = format!("{EMPTY_ID_KEY}{name}");
        if snapshot.meta(&key) == Some(id.as_bytes()) {
            continue;
        }
        if snapshot.namespace(name).and_then(|namespace| snapshot.metric_in(&namespace, id)).is_some() {
            return Err(taken("the database", name, id));
        }
        merge.put_meta(key.as_bytes(), id.as_bytes())?;
    }
    Ok(())
}

/// What an earlier import called the metric with the empty ID of a namespace.
pub(super) fn known_empty_id(db: &Database, namespace: &str) -> Option<Vec<u8>> {
    db.snapshot().meta(format!("{EMPTY_ID_KEY}{namespace}")).map(<[u8]>::to_vec)
}

fn taken(whose: &str, namespace: &str, id: &str) -> Failure {
    Failure::input(format_args!(
        "--empty-id {id}: {whose} has a metric {namespace}:{id} already; the two would become one"
    ))
    .hint("give an ID that no metric has; nothing was written")
}

fn has(volume: &Volume, id: &[u8]) -> bool {
    match volume.find(id) {
        Ok(found) => found.is_some(),
        Err(_) => volume.entries().flatten().any(|entry| entry.id() == id),
    }
}

/// Calls `visit` for each time that a log names a series. Damage is told when the log is imported.
fn for_each_series(plan: &Plan, mut visit: impl FnMut(&LogSeries)) {
    for log in plan.all_logs() {
        let Ok(log) = log.open(&RealDisk::new()) else { continue };
        let mut entries = log.entries();
        while let Some(entry) = entries.next_entry() {
            if let Ok(entry) = entry
                && entry.names_series
            {
                visit(entry.series);
            }
        }
    }
}
