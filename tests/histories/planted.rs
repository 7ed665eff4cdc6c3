//! Databases with a planted bug: their histories give them away, each by anomalies that are named here and not by any. And histories of a
//! sound database in which one read is changed afterwards.
//!
//! A snapshot says its version, and a read that is not what was there at that version gives nearly every bug away at once. What is looked
//! for here must be found without that, from what depends on what alone: the versions of snapshots are forgotten first.

use std::sync::Arc;

use chronolith::io::SimulatedDisk;
use chronolith::planted::Bug;

use crate::checker::Anomaly::{
    self, G1a, G2, GSingle, Incarnation, LostUpdate, RealTime, StaleRead, Versions,
};
use crate::checker::history::{History, Op};
use crate::checker::{Verdict, check};
use crate::power;
use crate::random::Random;
use crate::workload::{Plan, Store};

/// Threads of one small database, with a bug or without.
fn history(seed: u64, bug: Option<Bug>) -> History {
    let plan = Plan { seed, threads: 6, transactions: 600, per_window: 200, windows: 3, synced: 30 };
    let options = bug.into_iter().fold(plan.options(), chronolith::Options::plant);
    let db = match seed % 2 {
        0 => options.open_in_memory(),
        _ => options.open_on(Arc::new(SimulatedDisk::new(seed)), "/db"),
    };
    let store = Store::new(db.expect("it opens"), plan, 1).expect("a commit");
    let first = store.found().first(&plan.keys());
    store.run(first)
}

/// The same without the versions of snapshots.
fn without_snapshots(mut history: History) -> History {
    history.txns.iter_mut().for_each(|txn| txn.snapshot = None);
    history
}

/// The histories of one of a few seeds show the bug as one of these anomalies.
fn find_in(bug: Bug, anomalies: &[Anomaly], seeds: u64, verdict: impl Fn(u64) -> Verdict) {
    for seed in 1..=seeds {
        let verdict = verdict(seed);
        if anomalies.iter().any(|anomaly| verdict.has(*anomaly)) {
            println!("{bug:?} with seed {seed}: {:?}", verdict.anomalies);
            return;
        }
    }
    panic!("{bug:?} is not found in {seeds} histories as one of {anomalies:?}");
}

fn threads_find(bug: Bug, anomalies: &[Anomaly]) {
    find_in(bug, anomalies, 1_000, |seed| check(&without_snapshots(history(seed, Some(bug)))));
}

/// What only the versions of snapshots tell.
fn versions_find(bug: Bug, anomalies: &[Anomaly]) {
    find_in(bug, anomalies, 1_000, |seed| check(&history(seed, Some(bug))));
}

/// What is seen while the log fails: few transactions, since only those on their way then can show it, and many disks.
fn failures_find(bug: Bug, anomalies: &[Anomaly]) {
    find_in(bug, anomalies, 100_000, |seed| {
        let plan = Plan { seed, threads: 6, transactions: 40, per_window: 40, windows: 1, synced: 20 };
        let disk = SimulatedDisk::new(seed);
        let db = plan.options().plant(bug).open_on(Arc::new(disk.clone()), "/db").expect("it opens");
        let store = Store::new(db, plan, 1).expect("a commit");
        let first = store.found().first(&plan.keys());
        disk.cut_power_at(disk.calls() + 1 + seed % 12);
        check(&store.run(first))
    });
}

/// What is found after a recovery is not what must be there.
fn power_cuts_find(bug: Bug, text: &str) {
    const SEEDS: u64 = 400;
    for seed in 1..=SEEDS {
        let lives = power::lives(seed, Some(bug));
        if let Some(violation) = lives.violations.iter().find(|violation| violation.contains(text)) {
            println!("{bug:?} with seed {seed}: {}", &violation[..violation.len().min(200)]);
            return;
        }
    }
    panic!("{bug:?} is not found in {SEEDS} databases as {text:?}");
}

/// Declares a test for each bug, with what is to find it and as what.
macro_rules! planted {
    ($($find:ident: $($test:ident $bug:ident $as:expr),+;)+) => {
        $($(
            #[test]
            fn $test() {
                $find(Bug::$bug, $as);
            }
        )+)+
    };
}

planted! {
    threads_find:
        slices_pushed_after_the_unlock_are_found PushAfterUnlock &[GSingle, G2, RealTime],
        slices_taken_before_the_lock_are_found TakeBeforeLock &[GSingle, G2, RealTime],
        a_missing_second_pass_is_found NoSecondPass &[GSingle, G2, RealTime],
        the_publication_of_torn_commits_is_found PublishWhatIsDurable &[GSingle],
        changes_out_of_order_are_found ChangesOutOfOrder &[G2, GSingle, RealTime],
        a_live_list_that_comes_too_early_is_found LiveListBeforeTransaction &[GSingle, G2],
        marks_pruned_before_publication_are_found PruneUnpublished &[GSingle],
        held_versions_that_are_ignored_are_found IgnoreHeldVersions &[GSingle, G2],
        a_drop_that_shows_late_is_found DropAtPublication &[Incarnation],
        a_comparison_outside_of_the_log_is_found CompareOutsideLog &[StaleRead],
        an_update_that_a_comparison_outside_of_the_log_loses_is_found CompareOutsideLog &[LostUpdate, GSingle],
        metadata_that_is_not_compared_on_its_way_is_found MetaOnItsWayUnchecked &[StaleRead],
        an_absence_that_is_not_compared_is_found AbsenceUnchecked &[StaleRead],
        a_stream_that_is_adopted_without_a_mark_is_found AdoptWithoutMark &[GSingle, RealTime];
    versions_find:
        a_conflict_that_comes_before_its_cause_is_found ConflictBeforePublication &[Versions];
    failures_find:
        a_stop_that_ignores_the_publication_is_found StopIgnoresPublication &[G1a];
    power_cuts_find:
        an_acknowledgement_before_the_sync_is_found AcknowledgeBeforeSync "was durable",
        a_log_that_is_never_synced_is_found SkipLogSync "was durable",
        a_segment_whose_name_is_not_synced_is_found SkipFolderSync "does not open",
        frames_kept_after_the_cut_are_found KeepFramesAfterCut "does not open",
        a_frame_too_many_cut_is_found CutOneFrameTooMany "was durable";
}

#[test]
fn without_a_bug_nothing_is_found() {
    for seed in 1..=10 {
        let history = history(seed, None);
        check(&history).assert_clean();
        check(&without_snapshots(history)).assert_clean();
    }
}

#[test]
fn any_read_that_is_changed_is_found() {
    const CHANGES: u64 = 60;
    let mut random = Random::of(1, 0, 0, 0);
    let mut history = history(1, None);
    // Not those of what their own transaction wrote before: of these the checker believes the transaction's part.
    let mut reads = Vec::new();
    for (id, txn) in history.txns.iter().enumerate() {
        for (place, op) in txn.ops.iter().enumerate().filter(|(_, op)| matches!(op, Op::Read { .. })) {
            let mut others = txn.ops[..place].iter().filter(|earlier| earlier.key() == op.key());
            if others.all(|earlier| matches!(earlier, Op::Read { .. })) {
                reads.push((id, place));
            }
        }
    }
    for _ in 0..CHANGES {
        let (id, place) = reads[random.below(reads.len() as u64) as usize];
        let before = history.txns[id].ops[place].clone();
        let Op::Read { incarnation, elements, .. } = &mut history.txns[id].ops[place] else { continue };
        let any = random.below(1 + elements.len() as u64) as usize;
        match random.below(3) {
            _ if any < elements.len() => drop(elements.remove(any)),
            // Written by somebody, but hardly to this key and by then.
            0 if !elements.contains(&7) => elements.push(7),
            1 if !elements.is_empty() => elements.push(elements[0]),
            _ if *incarnation == Some(0) => elements.push(u64::MAX),
            _ => *incarnation = incarnation.map_or(Some(u32::MAX), |_| None),
        }
        let verdict = check(&history);
        assert!(
            !verdict.is_clean(),
            "{before:?} became {:?} of {:?}",
            history.txns[id].ops[place],
            history.txns[id]
        );
        history.txns[id].ops[place] = before;
    }
    check(&history).assert_clean();
}
