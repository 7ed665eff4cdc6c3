//! Checked transactions: invariants 14, 15 and 17 of `design/concurrency.md`, with the planted bugs that break them.
//!
//! All values are at time 5.

use chronolith::Error;
use chronolith::planted::Bug;
use chronolith::whitebox::Change::{self, Drop, Meta, Put};
use chronolith::whitebox::{Model, ModelSnapshot, Read, Setup};
use chronolith_loom_tests::protocol::{LOGGED, MEMORY, spawn, value};
use chronolith_loom_tests::{Shared, invariant};
use loom::thread;

fn value_of(snapshot: &ModelSnapshot, metric: u32) -> f64 {
    value(snapshot, metric, 5).unwrap_or(0.0)
}

/// Reads one metric and writes one more than its value to another; `None` after a conflict.
fn put_more(model: &Model, from: u32, to: u32, sync: bool) -> Option<u64> {
    let change = |snapshot: &ModelSnapshot| vec![Put(to, 5, value_of(snapshot, from) + 1.0)];
    match model.commit_checked(&[Read::Points(from)], change, sync) {
        Ok(version) => Some(version),
        Err(Error::Conflict { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Runs two things on two threads.
fn both<T: 'static>(
    model: &Shared<Model>,
    theirs: fn(&Model) -> T,
    mine: impl FnOnce(&Model) -> T,
) -> (T, T) {
    let other = {
        let model = model.clone();
        thread::spawn(move || theirs(&model))
    };
    let mine = mine(model);
    (mine, other.join().expect("no panic"))
}

/// 14: no update is lost, and of two that conflict one succeeds.
fn increments_are_kept(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { bugs, ..MEMORY }));
    let increment = |model: &Model| put_more(model, 0, 0, false);
    let (mine, theirs) = both(&model, increment, increment);
    let kept = [mine, theirs].iter().flatten().count();
    assert!(kept >= 1, "both failed");
    assert_eq!(value_of(&model.snapshot(), 0), kept as f64, "an update is lost");
}
invariant!(no_update_is_lost: increments_are_kept;
    bug_no_drain_before_comparing: NoDrainBeforeComparing, "an update is lost";
    bug_compare_outside_log: CompareOutsideLog, "an update is lost";);

/// 14: the same with a blind commit beside it, which always succeeds.
fn blind_writes_are_seen(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { bugs, ..MEMORY }));
    let blind = spawn(&model, &[Put(0, 5, 10.0)], false);
    let checked = put_more(&model, 0, 0, false);
    let blind = blind.join().expect("no panic").expect("it never conflicts");
    let expected = if checked.is_some_and(|checked| checked > blind) { 11.0 } else { 10.0 };
    assert_eq!(
        value_of(&model.snapshot(), 0),
        expected,
        "lost between checked {checked:?} and blind {blind}"
    );
}
invariant!(a_blind_write_is_not_overlooked: blind_writes_are_seen;
    bug_no_drain_before_comparing_blind: NoDrainBeforeComparing, "lost between";
    bug_compare_outside_log_blind: CompareOutsideLog, "lost between";);

/// 14: what two transactions read from each other is what there was, one after the other.
fn reads_across_lanes_are_serial(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { lanes: 2, metrics: 2, bugs, ..MEMORY }));
    let (mine, theirs) =
        both(&model, |model| put_more(model, 1, 0, false), |model| put_more(model, 0, 1, false));
    let last = model.snapshot();
    let values = (value_of(&last, 0), value_of(&last, 1));
    match (mine.is_some(), theirs.is_some()) {
        (true, true) => assert!(values == (1.0, 2.0) || values == (2.0, 1.0), "not serial: {values:?}"),
        (mine, theirs) => assert!(mine || theirs, "both failed"),
    }
}
invariant!(reads_from_each_other_are_serial: reads_across_lanes_are_serial;
    bug_no_drain_before_comparing_lanes: NoDrainBeforeComparing, "not serial";
    bug_compare_outside_log_lanes: CompareOutsideLog, "not serial";);

/// 14: a metric that is read as absent, in whatever way, is made by one.
fn one_makes_it(bugs: &[Bug], read: Read) {
    let model = Shared::new(Model::new(Setup { metrics: 0, unmade: 1, bugs, ..MEMORY }));
    let make = move |model: &Model| {
        let change = |snapshot: &ModelSnapshot| match snapshot.points(0) {
            Some(_) => Vec::new(),
            None => vec![Put(0, 5, 1.0), Meta(0, 1)],
        };
        let begun = model.snapshot().version();
        let made = model.commit_checked(&[read], change, false);
        u32::from(made.is_ok_and(|version| version > begun))
    };
    let other = {
        let model = model.clone();
        thread::spawn(move || make(&model))
    };
    let (mine, theirs) = (make(&model), other.join().expect("no panic"));
    assert!(mine + theirs >= 1, "both failed");
    assert_eq!(model.snapshot().points(0), Some(vec![(5, 1.0)]));
    // Whoever began after the other's publication wrote nothing; `begun` may be older than what was read.
    assert!(mine + theirs == 1 || model.snapshot().version() == 2, "both made it");
}
fn one_makes_it_by_handle(bugs: &[Bug]) {
    one_makes_it(bugs, Read::Existence(0));
}
invariant!(one_of_two_makes_a_metric: one_makes_it_by_handle; bug_absence_unchecked: AbsenceUnchecked, "both made it";);
fn one_makes_it_by_id(bugs: &[Bug]) {
    one_makes_it(bugs, Read::Id(0));
}
invariant!(one_of_two_makes_an_id: one_makes_it_by_id; bug_absence_unchecked_id: AbsenceUnchecked, "both made it";);

/// 14: one that is made and dropped meanwhile, and whose name has left as nobody sees it any more, is a conflict too.
fn what_left_is_seen(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { metrics: 1, unmade: 1, bugs, ..MEMORY }));
    let other = {
        let model = model.clone();
        thread::spawn(move || {
            let made = model.commit(&[Put(1, 5, 1.0)], false).expect("it never conflicts");
            model.commit(&[Drop(1)], false).expect("it never conflicts");
            model.forget_names();
            made
        })
    };
    let mut begun = 0;
    let note = |snapshot: &ModelSnapshot| {
        begun = snapshot.version();
        match snapshot.points(1) {
            Some(_) => Vec::new(),
            None => vec![Put(0, 5, 1.0)],
        }
    };
    let noted = model.commit_checked(&[Read::Id(1)], note, false);
    let made = other.join().expect("no panic");
    match noted {
        Ok(version) => assert!(version < made || begun >= made, "absent at {version}, made at {made}"),
        // Also if it began after the drop: a model remembers of an ID no metrics that were dropped before.
        Err(Error::Conflict { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}
invariant!(one_that_left_is_not_overlooked: what_left_is_seen;
    // Where every version stays alive, no name leaves.
    #[cfg(not(loom_ordered))]
    bug_reads_hold_no_version: ReadsHoldNoVersion, "absent at";);

/// 14: a metric that is read and dropped meanwhile is a conflict.
fn drops_are_seen(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { lanes: 2, metrics: 2, bugs, ..MEMORY }));
    let other = spawn(&model, &[Drop(0)], false);
    let copy = |snapshot: &ModelSnapshot| match snapshot.points(0) {
        Some(_) => vec![Put(1, 5, 1.0)],
        None => Vec::new(),
    };
    let read = model.commit_checked(&[Read::Points(0)], copy, false);
    let dropped = other.join().expect("no panic").expect("nothing fails");
    let copied = value(&model.snapshot(), 1, 5).is_some();
    match read {
        Ok(version) => assert!(version < dropped || !copied, "written at {version} after the drop"),
        Err(Error::Conflict { .. }) => assert!(!copied, "refused and visible"),
        Err(error) => panic!("{error}"),
    }
}
invariant!(a_drop_is_not_overlooked: drops_are_seen;
    bug_no_drain_before_comparing_drop: NoDrainBeforeComparing, "after the drop";
    bug_compare_outside_log_drop: CompareOutsideLog, "after the drop";);

/// 14: metadata is compared with commits that are on their way too.
fn meta_increments_are_kept(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { metrics: 0, bugs, ..MEMORY }));
    let increment = |model: &Model| {
        let change = |snapshot: &ModelSnapshot| vec![Meta(7, snapshot.meta(7) + 1)];
        model.commit_checked(&[Read::Meta(7)], change, false).is_ok()
    };
    let (mine, theirs) = both(&model, increment, increment);
    assert!(mine || theirs, "both failed");
    assert_eq!(model.snapshot().meta(7), u8::from(mine) + u8::from(theirs), "an update is lost");
}
invariant!(no_update_of_metadata_is_lost: meta_increments_are_kept;
    bug_meta_on_its_way_unchecked: MetaOnItsWayUnchecked, "an update is lost";
    bug_compare_outside_log_meta: CompareOutsideLog, "an update is lost";);

/// 15: the lock order has no cycle: a validation beside commits that work on its lanes. loom reports a deadlock otherwise.
fn validation_beside_commits(bugs: &[Bug]) {
    const CHANGES: &[Change] = &[Put(0, 6, 1.0)];
    let model = Shared::new(Model::new(Setup { bugs, ..MEMORY }));
    let other = spawn(&model, CHANGES, false);
    put_more(&model, 0, 0, false);
    other.join().expect("no panic").expect("it never conflicts");
    assert!(value(&model.snapshot(), 0, 6).is_some());
}
invariant!(a_validation_does_not_deadlock: validation_beside_commits;
    bug_log_under_lane: LogUnderLane, "deadlock";);

/// 17: whoever gets a conflict sees what it lost against: with one rival a second attempt succeeds.
fn second_attempts_succeed(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { bugs, ..LOGGED }));
    let insist = |model: &Model| {
        let first = put_more(model, 0, 0, true);
        first.or_else(|| put_more(model, 0, 0, true)).expect("the rival has committed its only change");
    };
    both(&model, insist, insist);
    assert_eq!(value_of(&model.snapshot(), 0), 2.0);
}
invariant!(a_second_attempt_sees_what_it_lost_against: second_attempts_succeed;
    bug_conflict_before_publication: ConflictBeforePublication, "the rival has committed its only change";);

/// 17 and 8: if the log fails, nobody waits for ever for what will never be visible.
fn conflicts_end_with_the_log(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { failing_sync: Some(0), bugs, ..LOGGED }));
    let (mine, theirs) = both(
        &model,
        |model| model.commit(&[Put(0, 5, 1.0)], true).is_ok(),
        |model| {
            let change = |_: &ModelSnapshot| vec![Put(0, 5, 2.0)];
            model.commit_checked(&[Read::Points(0)], change, true).is_ok()
        },
    );
    assert!(!mine && !theirs, "the only sync failed");
    assert_eq!(model.snapshot().version(), 1);
}
invariant!(a_conflict_ends_with_the_log: conflicts_end_with_the_log;
    bug_forget_notify_after_leading_conflict: ForgetNotifyAfterLeading, "deadlock";);
