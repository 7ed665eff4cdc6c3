//! Databases with a planted bug: their histories give them away. And histories of a sound database in which one read is
//! changed afterwards.

use std::sync::Arc;

use chronolith::io::SimulatedDisk;
use chronolith::planted::Bug;

use crate::checker::history::{History, Op};
use crate::checker::{Verdict, check};
use crate::power;
use crate::random::Random;
use crate::workload::{Plan, Store};

/// Threads of one small database, with a bug or without.
fn threads(seed: u64, bug: Option<Bug>) -> Verdict {
    check(&history(seed, bug))
}

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

/// The histories of one of a few seeds show the bug.
fn threads_find(bug: Bug) {
    const SEEDS: u64 = 1_000;
    for seed in 1..=SEEDS {
        let verdict = threads(seed, Some(bug));
        if !verdict.is_clean() {
            println!("{bug:?} with seed {seed}: {:?}", verdict.anomalies);
            return;
        }
    }
    panic!("{bug:?} is not found in {SEEDS} histories");
}

fn power_cuts_find(bug: Bug) {
    const SEEDS: u64 = 400;
    for seed in 1..=SEEDS {
        let lives = power::lives(seed, Some(bug));
        if let Some(violation) = lives.violations.first() {
            println!("{bug:?} with seed {seed}: {}", &violation[..violation.len().min(200)]);
            return;
        }
    }
    panic!("{bug:?} is not found in {SEEDS} databases");
}

/// Declares a test for each bug, with what is to find it.
macro_rules! planted {
    ($($find:ident: $($test:ident $bug:ident),+;)+) => {
        $($(
            #[test]
            fn $test() {
                $find(Bug::$bug);
            }
        )+)+
    };
}

planted! {
    threads_find:
        slices_pushed_after_the_unlock_are_found PushAfterUnlock,
        slices_taken_before_the_lock_are_found TakeBeforeLock,
        a_missing_second_pass_is_found NoSecondPass,
        the_publication_of_torn_commits_is_found PublishWhatIsDurable,
        a_live_list_that_comes_too_early_is_found LiveListBeforeTransaction,
        marks_pruned_before_publication_are_found PruneUnpublished,
        held_versions_that_are_ignored_are_found IgnoreHeldVersions,
        a_drop_that_shows_late_is_found DropAtPublication,
        a_comparison_outside_of_the_log_is_found CompareOutsideLog,
        metadata_that_is_not_compared_on_its_way_is_found MetaOnItsWayUnchecked,
        a_conflict_that_comes_before_its_cause_is_found ConflictBeforePublication,
        an_absence_that_is_not_compared_is_found AbsenceUnchecked;
    power_cuts_find:
        an_acknowledgement_before_the_sync_is_found AcknowledgeBeforeSync,
        a_log_that_is_never_synced_is_found SkipLogSync,
        a_segment_whose_name_is_not_synced_is_found SkipFolderSync,
        frames_kept_after_the_cut_are_found KeepFramesAfterCut,
        a_frame_too_many_cut_is_found CutOneFrameTooMany;
}

#[test]
fn without_a_bug_nothing_is_found() {
    for seed in 1..=10 {
        threads(seed, None).assert_clean();
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
