//! What the models of the commit protocol have in common.

use chronolith::whitebox::{Change, Model, ModelSnapshot, Setup};
use loom::thread;

use crate::Shared;

/// In memory, without failures.
pub const MEMORY: Setup<'static> =
    Setup { lanes: 1, metrics: 1, unmade: 0, log: false, failing_sync: None, bugs: &[] };

/// With a log.
pub const LOGGED: Setup<'static> = Setup { log: true, ..MEMORY };

/// Commits on a thread of its own.
pub fn spawn(
    model: &Shared<Model>,
    changes: &'static [Change],
    sync: bool,
) -> thread::JoinHandle<Option<u64>> {
    let model = model.clone();
    thread::spawn(move || model.commit(changes, sync).ok())
}

/// The value at a time.
pub fn value(snapshot: &ModelSnapshot, metric: u32, at: i64) -> Option<f64> {
    let points = snapshot.points(metric)?;
    points.iter().find(|(found, _)| *found == at).map(|(_, value)| *value)
}
