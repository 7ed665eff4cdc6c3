//! Power cuts at every call, in all ways of losing what was not synced, and during the recovery after them.

mod common;

use std::thread;

use common::power::{Depth, cut_everywhere, cut_threads, die_everywhere};
use common::{Plan, Report};

/// For continuous integration; a release looks at a million (`CHRONOLITH_POWER_CUT_STATES`).
const STATES_MIN: u64 = 20_000;

#[test]
fn every_power_cut_keeps_what_was_acknowledged_and_invents_nothing() {
    let wanted = std::env::var("CHRONOLITH_POWER_CUT_STATES").ok().and_then(|states| states.parse().ok());
    let wanted: u64 = wanted.unwrap_or(STATES_MIN);
    let work = move |first_seed: u64| {
        let mut report = Report::default();
        let mut seeds = 0;
        for seed in (first_seed..).step_by(2) {
            if report.cases >= wanted.div_ceil(2) || report.is_full() {
                break;
            }
            // Few writers and many, short runs and long ones.
            let plan = Plan { seed, ops: 8 + 6 * (seed % 7), writers: 1 + (seed % 3) as u32, bug: None };
            report = report
                .and(cut_everywhere(&plan, Depth { random_states: 2, nested_every: 40, resumed_every: 10 }));
            seeds += 1;
        }
        (report, seeds)
    };
    let other = thread::spawn(move || work(2));
    let (report, seeds) = work(1);
    let (other, other_seeds) = other.join().expect("checks catch panics");
    let report = report.and(other);
    println!("{} different states of {} seeds", report.cases, seeds + other_seeds);
    report.assert_clean();
    assert!(report.cases >= wanted);
}

#[test]
fn the_same_holds_while_threads_compete() {
    let plans = (100..110).map(|seed| Plan { seed, ops: 60, writers: 2 + (seed % 5) as u32, bug: None });
    let report = plans.map(|plan| cut_threads(&plan)).fold(Report::default(), Report::and);
    println!("{} different states", report.cases);
    report.assert_clean();
}

#[test]
fn what_a_dead_process_left_unsynced_is_not_built_upon() {
    let plans = (200..206).map(|seed| Plan { seed, ops: 40, writers: 2, bug: None });
    let report = plans.map(|plan| die_everywhere(&plan)).fold(Report::default(), Report::and);
    println!("{} deaths", report.cases);
    report.assert_clean();
}
