//! The invariants of `design/concurrency.md`, each over the real core in every interleaving, and beside each the planted bugs that it
//! must find: a check that cannot fail proves nothing.
//!
//! The creation of the metrics is version 1, so a state at version v has seen v - 1 commits of the model.

use chronolith::planted::Bug;
use chronolith::whitebox::Change::{Drop, Put};
use chronolith::whitebox::{Model, Setup};
use chronolith_loom_tests::protocol::{LOGGED, MEMORY, spawn, value};
use chronolith_loom_tests::{Shared, invariant};
use loom::thread;

/// 1: every lane's queue has the log's order, so two metrics of different lanes agree on which commit came last.
fn lanes_agree(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { lanes: 2, metrics: 2, bugs, ..MEMORY }));
    let other = spawn(&model, &[Put(0, 5, 1.0), Put(1, 5, 1.0)], false);
    let mine = model.commit(&[Put(0, 5, 2.0), Put(1, 5, 2.0)], false).expect("nothing fails");
    let theirs = other.join().expect("no panic").expect("nothing fails");
    let last = if mine > theirs { 2.0 } else { 1.0 };
    let snapshot = model.snapshot();
    let both = (value(&snapshot, 0, 5), value(&snapshot, 1, 5));
    assert_eq!(both, (Some(last), Some(last)), "each lane has the last commit");
}
invariant!(lanes_agree_on_the_order: lanes_agree; 
    bug_push_after_unlock: PushAfterUnlock, "each lane has the last commit";);

/// 2 and 3: slices are taken under the lane's lock, and after its two passes a commit is applied, once.
fn all_is_applied(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { bugs, ..MEMORY }));
    let other = spawn(&model, &[Put(0, 5, 1.0)], false);
    let mine = model.commit(&[Put(0, 5, 2.0), Put(0, 6, 2.0)], false).expect("nothing fails");
    assert_eq!(value(&model.snapshot(), 0, 6), Some(2.0), "what was committed is visible");
    let theirs = other.join().expect("no panic").expect("nothing fails");
    let last = if mine > theirs { 2.0 } else { 1.0 };
    let expected = Some(vec![(5, last), (6, 2.0)]);
    assert_eq!(model.snapshot().points(0), expected, "both are applied in the log's order");
}
invariant!(a_committed_slice_is_applied_once_in_order: all_is_applied;
    bug_no_second_pass: NoSecondPass, "both are applied in the log's order";
    bug_take_before_lock: TakeBeforeLock, "what was committed is visible";);

/// 4: no snapshot sees half a commit.
fn commits_are_atomic(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { lanes: 2, metrics: 2, bugs, ..MEMORY }));
    let one = spawn(&model, &[Put(0, 5, 1.0), Put(1, 5, 1.0)], false);
    let two = spawn(&model, &[Put(0, 5, 2.0), Put(1, 5, 2.0)], false);
    let snapshot = model.snapshot();
    let (a, b) = (value(&snapshot, 0, 5), value(&snapshot, 1, 5));
    assert_eq!(a, b, "half a commit at version {}", snapshot.version());
    assert_eq!(a.is_some(), snapshot.version() > 1, "what is published is there");
    one.join().expect("no panic");
    two.join().expect("no panic");
}
invariant!(a_snapshot_sees_whole_commits: commits_are_atomic;
    bug_publish_what_is_durable: PublishWhatIsDurable, "half a commit";);

/// 4: a commit of one lane beside one of two: it may take the other for applied only where it has been itself.
fn lanes_tell_what_is_applied(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { lanes: 2, metrics: 2, bugs, ..MEMORY }));
    let two_lanes = spawn(&model, &[Put(0, 5, 1.0), Put(1, 5, 1.0)], false);
    model.commit(&[Put(1, 6, 2.0)], false).expect("nothing fails");
    let snapshot = model.snapshot();
    let (a, b) = (value(&snapshot, 0, 5), value(&snapshot, 1, 5));
    assert_eq!(a, b, "half a commit at version {}", snapshot.version());
    two_lanes.join().expect("no panic").expect("nothing fails");
}
invariant!(a_commit_marks_others_only_in_its_lanes: lanes_tell_what_is_applied;
    bug_mark_other_lanes: MarkOtherLanes, "half a commit";);

/// 5: maps come from changes in the log's order. Both commits add a partition to the same map.
fn maps_are_not_lost(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { bugs, ..MEMORY }));
    model.commit(&[Put(0, 9_500, 0.0)], false).expect("nothing fails");
    let other = spawn(&model, &[Put(0, 500, 1.0)], false);
    model.commit(&[Put(0, 4_500, 2.0)], false).expect("nothing fails");
    other.join().expect("no panic");
    let expected = Some(vec![(500, 1.0), (4_500, 2.0), (9_500, 0.0)]);
    assert_eq!(model.snapshot().points(0), expected, "the newest map has all partitions");
}
invariant!(the_tree_has_the_newest_maps: maps_are_not_lost;
    bug_changes_out_of_order: ChangesOutOfOrder, "the newest map has all partitions";
    bug_changes_in_one_list: ChangesInOneList, "the newest map has all partitions";);

/// 5: a metric that was dropped stays dropped, whatever is written to it meanwhile.
fn dropped_stays_dropped(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { bugs, ..MEMORY }));
    let other = spawn(&model, &[Drop(0)], false);
    let written = model.commit(&[Put(0, 5, 1.0)], false);
    let dropped = other.join().expect("no panic").expect("nothing fails");
    // 16: an acknowledged write is never after its metric's drop in the log.
    let is_before = written.is_err() || written.is_ok_and(|version| version < dropped);
    assert!(is_before, "acknowledged after the drop");
    assert_eq!(model.snapshot().points(0), None, "it stays dropped");
}
invariant!(a_dropped_metric_stays_dropped: dropped_stays_dropped;
    bug_drop_at_publication: DropAtPublication, "acknowledged after the drop";);

/// 6: nobody sleeps while there is something to do. loom reports a deadlock otherwise.
fn nobody_oversleeps(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { bugs, ..LOGGED }));
    let other = spawn(&model, &[Put(0, 5, 1.0)], true);
    model.commit(&[Put(0, 6, 2.0)], true).expect("nothing fails");
    other.join().expect("no panic").expect("nothing fails");
    assert_eq!(model.snapshot().version(), 3);
}
invariant!(waiters_are_woken: nobody_oversleeps;
    bug_forget_notify_after_publishing: ForgetNotifyAfterPublishing, "deadlock";);

/// 6: the same when the log fails: those who wait for a leader hear of it.
fn nobody_oversleeps_a_failure(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { failing_sync: Some(0), bugs, ..LOGGED }));
    let other = spawn(&model, &[Put(0, 5, 1.0)], true);
    model.commit(&[Put(0, 6, 2.0)], true).expect_err("the log failed");
    assert_eq!(other.join().expect("no panic"), None);
    assert_eq!(model.snapshot().version(), 1);
}
invariant!(waiters_hear_of_a_failure: nobody_oversleeps_a_failure;
    bug_forget_notify_after_leading: ForgetNotifyAfterLeading, "deadlock";);

/// 18: who waits for another one's bytes goes on when they are given back.
fn bytes_are_given_back(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { bugs, ..MEMORY }).staged_bytes_max(20));
    let other = spawn(&model, &[Put(0, 5, 1.0)], false);
    model.commit(&[Put(0, 6, 2.0)], false).expect("it fits");
    assert!(other.join().expect("no panic").is_some(), "it fits");
    assert_eq!(model.snapshot().version(), 3);
}
invariant!(a_commit_waits_for_another_ones_bytes: bytes_are_given_back;
    bug_forget_notify_giving_back: ForgetNotifyAfterPublishing, "deadlock";);

/// 7: what is acknowledged as durable was synced.
fn durable_is_synced(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { bugs, ..LOGGED }));
    let other = {
        let model = model.clone();
        thread::spawn(move || {
            let version = model.commit(&[Put(0, 5, 1.0)], true).expect("nothing fails");
            assert!(model.synced() >= version, "version {version} is not synced");
        })
    };
    let version = model.commit(&[Put(0, 6, 2.0)], true).expect("nothing fails");
    assert!(model.synced() >= version, "version {version} is not synced");
    other.join().expect("no panic");
}
invariant!(what_is_acknowledged_is_synced: durable_is_synced;
    bug_durable_is_seq: DurableIsSeq, "is not synced";
    bug_acknowledge_before_sync: AcknowledgeBeforeSync, "is not synced";);

/// 7: what is visible although its commit asked for a sync was synced, also beside commits that ask for none.
fn visible_is_synced(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { bugs, ..LOGGED }));
    let synced = spawn(&model, &[Put(0, 5, 1.0)], true);
    let buffered = spawn(&model, &[Put(0, 6, 2.0)], false);
    let snapshot = model.snapshot();
    if value(&snapshot, 0, 5).is_some() {
        assert!(model.synced() > 1, "visible and not synced");
    }
    synced.join().expect("no panic");
    buffered.join().expect("no panic");
    assert_eq!(model.snapshot().version(), 3);
}
invariant!(mixed_durabilities_keep_their_promises: visible_is_synced;
    bug_acknowledge_before_sync_mixed: AcknowledgeBeforeSync, "visible and not synced";);

/// 8: an error means in no snapshot, Ok means in every later one. Two commits that ask for no sync may be published together by one of
/// them while the sync of a third fails.
fn errors_are_true(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { failing_sync: Some(0), bugs, ..LOGGED }));
    let one = spawn(&model, &[Put(0, 5, 1.0)], false);
    let synced = spawn(&model, &[Put(0, 6, 1.0)], true);
    let mine = model.commit(&[Put(0, 7, 1.0)], false).ok();
    let (one, synced) = (one.join().expect("no panic"), synced.join().expect("no panic"));
    let last = model.snapshot();
    for (at, result) in [(5, one), (6, synced), (7, mine)] {
        assert_eq!(value(&last, 0, at).is_some(), result.is_some(), "the commit at {at} returned {result:?}");
    }
    assert_eq!(synced, None, "its sync failed");
}
invariant!(a_failed_commit_is_in_no_snapshot: errors_are_true;
    bug_stop_ignores_publication: StopIgnoresPublication, "the commit at";);

fn second_sync_fails(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { failing_sync: Some(1), bugs, ..LOGGED }));
    let other = spawn(&model, &[Put(0, 6, 2.0)], true);
    let mine = model.commit(&[Put(0, 5, 1.0)], true);
    let theirs = other.join().expect("no panic");
    let last = model.snapshot();
    assert_eq!(value(&last, 0, 5).is_some(), mine.is_ok());
    assert_eq!(value(&last, 0, 6).is_some(), theirs.is_some());
    assert!(mine.is_ok() || theirs.is_some(), "the first sync did not fail");
}
invariant!(the_first_of_two_syncs_counts: second_sync_fails;);

/// 9: a snapshot reads the same twice, whatever is pruned meanwhile: exactly the commits up to its version.
fn snapshots_are_stable(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { bugs, ..MEMORY }));
    model.commit(&[Put(0, 1, 1.0)], false).expect("nothing fails");
    let writer = {
        let model = model.clone();
        thread::spawn(move || {
            for at in 2..=4 {
                model.commit(&[Put(0, at, 1.0)], false).expect("nothing fails");
            }
        })
    };
    let snapshot = model.snapshot();
    for _ in 0..2 {
        let points = snapshot.points(0).expect("it exists").len() as u64;
        assert_eq!(points, snapshot.version() - 1, "a snapshot at version {}", snapshot.version());
    }
    drop(snapshot);
    writer.join().expect("no panic");
}
invariant!(a_snapshot_reads_the_same_twice: snapshots_are_stable;
    bug_ignore_held_versions: IgnoreHeldVersions, "a snapshot at version";
    // Where every version stays alive, liveness is never wrong.
    #[cfg(not(loom_ordered))]
    bug_look_before_swap: LookBeforeSwap, "a snapshot at version";);

/// 9: the same with two writers, so that a mark's successor may be applied and not yet published.
fn published_marks_stay(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { bugs, ..MEMORY }));
    model.commit(&[Put(0, 1, 1.0)], false).expect("nothing fails");
    let one = spawn(&model, &[Put(0, 2, 1.0)], false);
    let two = spawn(&model, &[Put(0, 3, 1.0)], false);
    let snapshot = model.snapshot();
    let points = snapshot.points(0).expect("it exists").len() as u64;
    assert_eq!(points, snapshot.version() - 1, "a snapshot at version {}", snapshot.version());
    one.join().expect("no panic");
    two.join().expect("no panic");
}
invariant!(a_mark_outlives_an_unpublished_successor: published_marks_stay;
    bug_prune_unpublished: PruneUnpublished, "a snapshot at version";
    bug_live_list_before_transaction: LiveListBeforeTransaction, "a snapshot at version";);

// The other model of the pointer keeps every version alive: there nothing is pruned and nothing freed.
/// 10: without older snapshots and other commits in flight an append leaves at most two marks.
#[cfg(not(loom_ordered))]
fn marks_are_pruned(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { bugs, ..MEMORY }));
    let reader = {
        let model = model.clone();
        thread::spawn(move || drop(model.snapshot()))
    };
    model.commit(&[Put(0, 1, 1.0)], false).expect("nothing fails");
    model.commit(&[Put(0, 2, 1.0)], false).expect("nothing fails");
    reader.join().expect("no panic");
    model.commit(&[Put(0, 3, 1.0)], false).expect("nothing fails");
    model.commit(&[Put(0, 4, 1.0)], false).expect("nothing fails");
    assert!(model.marks(0) <= 2, "{} marks", model.marks(0));
}
#[cfg(not(loom_ordered))]
invariant!(an_append_leaves_two_marks: marks_are_pruned; bug_never_prune: NeverPrune, " marks";);

/// 11: a retired transaction is freed by its last reader.
#[cfg(not(loom_ordered))]
fn freed_by_the_last_reader(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { bugs, ..MEMORY }));
    let snapshot = model.snapshot();
    let witness = snapshot.witness();
    let writer = spawn(&model, &[Put(0, 1, 1.0)], false);
    assert!(witness.upgrade().is_some(), "a reader holds it");
    drop(snapshot);
    writer.join().expect("no panic");
    assert!(witness.upgrade().is_none(), "nobody reads it any more");
}
#[cfg(not(loom_ordered))]
invariant!(a_retired_transaction_is_freed_by_its_last_reader: freed_by_the_last_reader;
    bug_retain_transactions: RetainTransactions, "nobody reads it any more";);

/// 11: the same with two readers and the publisher in a race: whoever is last frees it, and the next publication knows of nobody.
#[cfg(not(loom_ordered))]
fn freed_once_by_racing_readers(bugs: &[Bug]) {
    let model = Shared::new(Model::new(Setup { bugs, ..MEMORY }));
    let first = model.snapshot();
    let witness = first.witness();
    let second = first.clone();
    let reader = thread::spawn(move || drop(second));
    let writer = spawn(&model, &[Put(0, 1, 1.0)], false);
    drop(first);
    reader.join().expect("no panic");
    writer.join().expect("no panic");
    assert!(witness.upgrade().is_none(), "nobody reads it any more");
    model.commit(&[Put(0, 2, 1.0)], false).expect("nothing fails");
    assert_eq!(model.held_versions(), 0);
}
#[cfg(not(loom_ordered))]
invariant!(racing_readers_free_it_once: freed_once_by_racing_readers;
    bug_retain_transactions_racing: RetainTransactions, "nobody reads it any more";);
