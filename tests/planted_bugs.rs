//! The checks of power cuts, failing calls and competing threads find the mistakes that are planted for them.

mod common;

use std::sync::Arc;

use chronolith::io::{Fault, SimulatedDisk};
use chronolith::planted::Bug;
use common::faults::{Base, fail_each_sync, fail_everywhere};
use common::observed::Acks;
use common::power::{Depth, cut_everywhere, cut_threads, die_everywhere};
use common::{Plan, Report, Session, check};

/// Which check is to find a mistake.
#[derive(Clone, Copy, Debug)]
enum Check {
    PowerCut,
    PowerCutOfThreads,
    FailedSync,
    Death,
    Threads,
}

impl Check {
    fn run(self, seed: u64, bug: Option<Bug>) -> Report {
        let plan = Plan { seed, ops: 40, writers: 2, bug };
        match self {
            Check::PowerCut => {
                cut_everywhere(&plan, Depth { random_states: 8, nested_every: 0, resumed_every: 0 })
            }
            // With two, each leads for itself.
            Check::PowerCutOfThreads => cut_threads(&Plan { writers: 6, ops: 90, ..plan }),
            Check::Death => die_everywhere(&plan),
            Check::Threads => compete(&Plan { writers: 6, ops: 1_200, ..plan }),
            Check::FailedSync => fail_each_sync(&plan, &Base::empty(&plan)),
        }
    }
}

/// Threads at work, and nothing else; what they leave is compared with what they did.
fn compete(plan: &Plan) -> Report {
    let (mut report, disk) = (Report::default(), SimulatedDisk::new(plan.seed));
    let acks = Acks::default();
    let ran = Session::begin(plan, Arc::new(disk.clone()))
        .and_then(|session| session.run_in_threads(plan, &mut acks.clone()));
    report.note(|| format!("{plan:?}"), ran.err().iter().map(ToString::to_string).collect());
    report.note(|| format!("{plan:?}, afterwards"), check(plan, &disk, &acks.get()));
    report
}

/// The mistake is found with one of a few seeds; without it there is nothing to find.
fn finds(check: Check, bug: Bug) {
    const SEEDS: u64 = 20;
    for seed in 1..=SEEDS {
        let report = check.run(seed, Some(bug));
        if let Some(violation) = report.violations.first() {
            println!("{check:?} finds {bug:?} with seed {seed}: {violation}");
            check.run(seed, None).assert_clean();
            return;
        }
    }
    panic!("{check:?} does not find {bug:?} in {SEEDS} seeds");
}

#[test]
fn acknowledging_before_the_sync_is_found() {
    // The one who syncs waits for it; those who wait for him do not.
    finds(Check::PowerCutOfThreads, Bug::AcknowledgeBeforeSync);
}

#[test]
fn a_log_that_is_never_synced_is_found() {
    finds(Check::PowerCut, Bug::SkipLogSync);
}

#[test]
fn a_segment_whose_name_is_not_synced_is_found() {
    finds(Check::PowerCut, Bug::SkipFolderSync);
}

#[test]
fn a_checksum_that_is_not_compared_is_found() {
    finds(Check::PowerCut, Bug::ForgetChecksum);
}

#[test]
fn a_segment_named_before_its_bytes_are_synced_is_found() {
    finds(Check::PowerCut, Bug::RenameBeforeSync);
}

#[test]
fn frames_kept_after_the_cut_are_found() {
    finds(Check::PowerCut, Bug::KeepFramesAfterCut);
}

#[test]
fn a_frame_too_many_cut_is_found() {
    finds(Check::PowerCut, Bug::CutOneFrameTooMany);
}

#[test]
fn a_recovery_that_believes_the_page_cache_is_found() {
    finds(Check::FailedSync, Bug::SkipRecoverySync);
}

#[test]
fn a_recovery_that_believes_what_a_dead_process_wrote_is_found() {
    finds(Check::Death, Bug::SkipRecoverySync);
}

#[test]
fn transfers_that_are_compared_too_early_are_found() {
    finds(Check::Threads, Bug::CompareOutsideLog);
}

#[test]
fn transfers_that_miss_metadata_on_its_way_are_found() {
    finds(Check::Threads, Bug::MetaOnItsWayUnchecked);
}

#[test]
fn without_a_mistake_nothing_is_found() {
    let all = [Fault::InputOutput, Fault::NoSpace];
    let plan = Plan { seed: 1, ops: 12, writers: 2, bug: None };
    fail_everywhere(&plan, &Base::empty(&plan), &all).assert_clean();
}
