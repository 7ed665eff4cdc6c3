//! Sealing: invariants 12 and 13 of `design/concurrency.md`, with the planted bugs that break them.
//!
//! Windows are 1,000 nanoseconds wide, and the block that is sealed is the first of them, [`BLOCK`]. A metric that has points from there on
//! has one partition for all of time, so sealing has to divide it.
//!
//! Each commit is written down with the version that it got. What a snapshot must show is what the log's commits up to its version make, however
//! much of that was frozen, written and installed meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use chronolith::planted::Bug;
use chronolith::whitebox::Change::{self, Delete, Drop, Put};
use chronolith::whitebox::{Model, ModelSnapshot, Setup};
use chronolith_loom_tests::protocol::{LOGGED, MEMORY, spawn};
use chronolith_loom_tests::{Shared, invariant};
use loom::thread::{self, JoinHandle};

type Points = Vec<(i64, f64)>;
/// A commit and its version.
type Committed = (u64, &'static [Change]);

const BLOCK: (i64, i64) = (0, 999);

/// In the block, and behind it.
const BEFORE: &[Change] = &[Put(0, 500, 1.0), Put(0, 1_500, 1.0)];

/// The same for two metrics, of which the second has nothing behind the block.
const BEFORE_OF_TWO: &[Change] = &[Put(0, 500, 1.0), Put(0, 1_500, 1.0), Put(1, 500, 1.0)];

/// The commits of a model, in the order of their versions.
#[derive(Debug, Default)]
struct History(Vec<Committed>);

impl History {
    /// What came after the creation of the metrics.
    fn new(commits: &[Committed]) -> Self {
        let mut history = commits.to_vec();
        history.sort_by_key(|(version, _)| *version);
        History(history)
    }

    /// What a snapshot at a version shows of a metric.
    fn points(&self, metric: u32, version: u64) -> Option<Points> {
        let mut points = Some(BTreeMap::new());
        for change in self.0.iter().filter(|(at, _)| *at <= version).flat_map(|(_, changes)| *changes) {
            match (*change, &mut points) {
                (Put(to, at, value), Some(points)) if to == metric => {
                    points.insert(at, value);
                }
                (Delete(from, first, last), Some(points)) if from == metric => {
                    points.retain(|at, _| *at < first || *at > last);
                }
                (Drop(which), _) if which == metric => points = None,
                _ => {}
            }
        }
        points.map(|points| points.into_iter().collect())
    }

    /// What a snapshot shows is what its commits make.
    fn check(&self, snapshot: &ModelSnapshot, which: &str) {
        let version = snapshot.version();
        for metric in self.metrics() {
            let expected = self.points(metric, version);
            assert_eq!(snapshot.points(metric), expected, "{which} snapshot, of version {version}");
        }
    }

    /// Each volume has what was published of the block when it was frozen.
    fn check_volumes(&self, model: &Model) {
        let published = model.snapshot().version();
        for metric in self.metrics() {
            for (freeze, points) in model.volumes(metric) {
                assert!(freeze <= published, "a volume of version {freeze}, which is not published");
                let mut expected = self.points(metric, freeze).unwrap_or_default();
                expected.retain(|(at, _)| BLOCK.0 <= *at && *at <= BLOCK.1);
                assert_eq!(points, expected, "the volume of version {freeze}");
            }
        }
    }

    /// All that points were put to.
    fn metrics(&self) -> BTreeSet<u32> {
        let changes = self.0.iter().flat_map(|(_, changes)| *changes);
        changes.filter_map(|change| if let Put(metric, ..) = change { Some(*metric) } else { None }).collect()
    }
}

/// A model in which [`BEFORE`] or [`BEFORE_OF_TWO`] is committed, and the version of that.
fn begun(setup: Setup<'_>) -> (Shared<Model>, Committed) {
    let model = Shared::new(Model::new(setup));
    let before = if setup.metrics == 2 { BEFORE_OF_TWO } else { BEFORE };
    let version = model.commit(before, false).expect("nothing fails");
    (model, (version, before))
}

/// Makes two commits on a thread of its own.
fn spawn_both(
    model: &Shared<Model>,
    one: &'static [Change],
    two: &'static [Change],
) -> JoinHandle<[Committed; 2]> {
    let model = model.clone();
    thread::spawn(move || {
        [one, two].map(|changes| (model.commit(changes, false).expect("nothing fails"), changes))
    })
}

fn done(commit: JoinHandle<Option<u64>>) -> u64 {
    commit.join().expect("no panic").expect("nothing fails")
}

/// 12: no point is lost or doubled: a seal beside two commits, one into the block and one behind it, in the same partition.
fn seal_beside_appends(bugs: &[Bug]) {
    const INSIDE: &[Change] = &[Put(0, 600, 2.0)];
    const BEHIND: &[Change] = &[Put(0, 1_600, 3.0)];
    let (model, before) = begun(Setup { bugs, ..MEMORY });
    let other = spawn_both(&model, INSIDE, BEHIND);
    model.seal(BLOCK.0, BLOCK.1).expect("nothing fails");
    let [inside, behind] = other.join().expect("no panic");
    let history = History::new(&[before, inside, behind]);
    history.check(&model.snapshot(), "the last");
    history.check_volumes(&model);
}
invariant!(a_seal_beside_appends_loses_nothing: seal_beside_appends;
    bug_no_freeze: NoFreeze, "the last snapshot";
    bug_install_freezes_map: InstallFreezesMap, "the last snapshot";
    bug_snapshot_before_freeze: SnapshotBeforeFreeze, "the last snapshot";);

/// 12: the same with commits of two threads, one of them after the seal: it goes into the map that the install made.
fn append_after_install(bugs: &[Bug]) {
    const BEHIND: &[Change] = &[Put(0, 1_600, 3.0)];
    const LATE: &[Change] = &[Put(0, 400, 4.0), Put(0, 500, 4.0)];
    let (model, before) = begun(Setup { bugs, ..MEMORY });
    let behind = spawn(&model, BEHIND, false);
    model.seal(BLOCK.0, BLOCK.1).expect("nothing fails");
    let late = model.commit(LATE, false).expect("nothing fails");
    let history = History::new(&[before, (done(behind), BEHIND), (late, LATE)]);
    history.check(&model.snapshot(), "the last");
}
invariant!(appends_follow_an_install: append_after_install;
    bug_install_in_tree_only: InstallInTreeOnly, "the last snapshot";);

/// 12: the same with an install in two slices, one for each metric.
fn seal_in_slices(bugs: &[Bug]) {
    const INSIDE: &[Change] = &[Put(0, 600, 2.0), Put(1, 600, 2.0)];
    let (model, before) = begun(Setup { metrics: 2, bugs, ..MEMORY });
    let inside = spawn(&model, INSIDE, false);
    model.seal(BLOCK.0, BLOCK.1).expect("nothing fails");
    let history = History::new(&[before, (done(inside), INSIDE)]);
    history.check(&model.snapshot(), "the last");
    history.check_volumes(&model);
}
invariant!(a_seal_in_slices_loses_nothing: seal_in_slices;
    bug_thaw_at_first_slice: ThawAtFirstSlice, "the last snapshot";
    bug_no_freeze_slices: NoFreeze, "the last snapshot";);

/// 12: snapshots from before, from the middle and from after read the same as ever.
fn seal_beside_readers(bugs: &[Bug]) {
    const INSIDE: &[Change] = &[Put(0, 500, 2.0), Put(0, 600, 2.0)];
    let (model, before) = begun(Setup { bugs, ..MEMORY });
    let old = model.snapshot();
    let other = {
        let model = model.clone();
        thread::spawn(move || {
            let inside = model.commit(INSIDE, false).expect("nothing fails");
            let middle = model.snapshot();
            let points = middle.points(0);
            (inside, middle, points)
        })
    };
    model.seal(BLOCK.0, BLOCK.1).expect("nothing fails");
    let (inside, middle, points) = other.join().expect("no panic");
    let history = History::new(&[before, (inside, INSIDE)]);
    assert_eq!(points, history.points(0, middle.version()), "a snapshot that was read meanwhile");
    history.check(&old, "the old");
    history.check(&middle, "the middle");
    history.check(&model.snapshot(), "the last");
}
invariant!(snapshots_outlive_a_seal: seal_beside_readers;
    bug_drain_frozen: DrainFrozen, "the old snapshot";
    bug_no_freeze_readers: NoFreeze, "the last snapshot";);

/// 12: a metric that is dropped while its block is sealed is gone, and another one of its name has nothing of it.
fn seal_beside_drop(bugs: &[Bug]) {
    const DROPPED: &[Change] = &[Drop(0)];
    // Of two lanes, so that the second one's first metric may come after the freeze.
    let (model, before) = begun(Setup { lanes: 2, bugs, ..MEMORY });
    let old = model.snapshot();
    let other = {
        let model = model.clone();
        thread::spawn(move || {
            let dropped = model.commit(DROPPED, false).expect("nothing fails");
            (dropped, model.commit_by_name(0, 600, 2.0).expect("nothing fails"))
        })
    };
    model.seal(BLOCK.0, BLOCK.1).expect("nothing fails");
    let (dropped, (anew, _)) = other.join().expect("no panic");
    let history = History::new(&[before, (dropped, DROPPED)]);
    let last = model.snapshot();
    assert_eq!(last.points(anew), Some(vec![(600, 2.0)]), "what was made anew");
    history.check(&old, "the old");
    history.check(&last, "the last");
}
invariant!(a_dropped_metric_does_not_come_back: seal_beside_drop;
    bug_install_in_made_later: InstallInMadeLater, "what was made anew";);

/// 12: what is deleted while it is sealed does not come back, and what is written later stays.
fn seal_beside_delete(bugs: &[Bug], delete: &'static [Change]) {
    const LATER: &[Change] = &[Put(0, 600, 2.0), Put(0, 1_600, 2.0)];
    let (model, before) = begun(Setup { bugs, ..MEMORY });
    let old = model.snapshot();
    let other = spawn_both(&model, delete, LATER);
    model.seal(BLOCK.0, BLOCK.1).expect("nothing fails");
    let [deleted, later] = other.join().expect("no panic");
    let history = History::new(&[before, deleted, later]);
    history.check(&old, "the old");
    history.check(&model.snapshot(), "the last");
    history.check_volumes(&model);
}
invariant!(what_is_deleted_in_a_block_does_not_come_back:
    |bugs: &[Bug]| seal_beside_delete(bugs, &[Delete(0, 400, 599)]);
    bug_no_freeze_delete: NoFreeze, "the last snapshot";
    bug_install_freezes_map_delete: InstallFreezesMap, "the last snapshot";);
invariant!(what_is_deleted_with_its_block_does_not_come_back:
    |bugs: &[Bug]| seal_beside_delete(bugs, &[Delete(0, -1_000, 1_999)]);
    bug_no_freeze_delete_all: NoFreeze, "the last snapshot";
    bug_install_freezes_map_delete_all: InstallFreezesMap, "the last snapshot";
    bug_drain_frozen_delete_all: DrainFrozen, "the old snapshot";);

/// 12: a block that is sealed twice has in its second volume what was written after the first.
fn refresh_beside_append(bugs: &[Bug]) {
    const INSIDE: &[Change] = &[Put(0, 500, 2.0), Put(0, 600, 2.0)];
    let (model, before) = begun(Setup { bugs, ..MEMORY });
    let inside = spawn(&model, INSIDE, false);
    model.seal(BLOCK.0, BLOCK.1).expect("nothing fails");
    let middle = model.snapshot();
    model.seal(BLOCK.0, BLOCK.1).expect("nothing fails");
    let history = History::new(&[before, (done(inside), INSIDE)]);
    history.check(&middle, "the middle");
    history.check(&model.snapshot(), "the last");
    history.check_volumes(&model);
}
invariant!(a_block_is_sealed_again: refresh_beside_append;
    bug_no_freeze_refresh: NoFreeze, "the middle snapshot";
    bug_drain_frozen_refresh: DrainFrozen, "the middle snapshot";);

/// 13: a volume has published points only, and all of them; when the log fails nothing is installed.
fn seal_beside_failure(bugs: &[Bug]) {
    const INSIDE: &[Change] = &[Put(0, 600, 2.0)];
    let (model, before) = begun(Setup { failing_sync: Some(0), bugs, ..LOGGED });
    let inside = spawn(&model, INSIDE, true);
    let sealed = model.seal(BLOCK.0, BLOCK.1).is_ok();
    assert_eq!(inside.join().expect("no panic"), None, "its sync failed");
    let (history, last) = (History::new(&[before]), model.snapshot());
    history.check(&last, "the last");
    history.check_volumes(&model);
    // The creation, what was before, freeze and install: none of these asks for a sync.
    assert!(!sealed || last.version() == 4, "installed at version {}", last.version());
}
invariant!(a_volume_has_published_points: seal_beside_failure;
    bug_ignore_stopped_freeze: IgnoreStoppedFreeze, "which is not published";);
