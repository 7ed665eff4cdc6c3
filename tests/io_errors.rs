//! Failing calls: typed errors, reads that go on, nothing acknowledged lost.

mod common;

use std::sync::Arc;

use chronolith::io::{CutState, Fault, SimulatedDisk};
use common::faults::{Base, fail_each_sync, fail_everywhere};
use common::{Plan, Report, Session, check, check_open};

fn plan(seed: u64) -> Plan {
    Plan { seed, ops: 40, writers: 2, bug: None }
}

fn fails(seed: u64, faults: &[Fault]) {
    let plan = plan(seed);
    let report = fail_everywhere(&plan, &Base::empty(&plan), faults);
    println!("{} failing calls", report.cases);
    report.assert_clean();
}

#[test]
fn a_device_error_loses_nothing_acknowledged() {
    fails(1, &[Fault::InputOutput]);
}

#[test]
fn a_full_disk_loses_nothing_acknowledged() {
    fails(2, &[Fault::NoSpace, Fault::Quota]);
}

#[test]
fn a_short_write_loses_nothing_acknowledged() {
    fails(3, &[Fault::ShortWrite]);
}

#[test]
fn an_interrupted_call_is_not_noticed() {
    fails(4, &[Fault::Interrupted]);
}

#[test]
fn too_many_files_or_a_read_only_disk_lose_nothing_acknowledged() {
    fails(5, &[Fault::TooManyFiles, Fault::ReadOnly]);
}

#[test]
fn a_failed_sync_is_never_believed_later() {
    let plans = (1..=4).map(plan);
    let reports = plans.map(|plan| fail_each_sync(&plan, &Base::empty(&plan)));
    let report = reports.fold(Report::default(), Report::and);
    println!("{} failing syncs", report.cases);
    report.assert_clean();
}

#[test]
fn a_recovery_that_fails_can_be_repeated() {
    let plan = Plan { ops: 16, ..plan(7) };
    for cut in [CutState::None, CutState::All, CutState::Random] {
        let base = Base::after_power_cut(&plan, cut);
        let more = Plan { ops: 4, ..plan };
        let report = fail_everywhere(&more, &base, &[Fault::InputOutput, Fault::NoSpace, Fault::Interrupted]);
        let report = report.and(fail_each_sync(&more, &base));
        println!("{} failing calls, reads too, after {cut:?}", report.cases);
        report.assert_clean();
    }
}

#[test]
fn writes_go_on_without_reopening_when_there_is_space_again() {
    let plan = Plan { seed: 6, ops: 400, writers: 2, bug: None };
    let disk = SimulatedDisk::new(plan.seed);
    let mut acks = Vec::new();
    let mut session = Session::begin(&plan, Arc::new(disk.clone())).expect("space without limit");
    let mut times_full = 0;
    for turn in 0..plan.ops {
        if turn % 50 == 10 {
            disk.set_capacity(Some(disk.bytes_allocated()));
        }
        if let Err(failure) = session.step(turn, &mut acks) {
            assert!(failure.passes(), "op {turn}: {failure}");
            assert!(!session.db.stats().stopped);
            assert_eq!(check_open(&session.db, &acks), Vec::<String>::new());
            times_full += 1;
            disk.set_capacity(None);
            session.step(turn, &mut acks).expect("there is space again");
        }
    }
    assert!(times_full >= 3, "the disk was full {times_full} times");
    session.finish(&mut acks).expect("there is space");
    assert_eq!(acks.len() as u64, plan.ops);
    assert_eq!(check(&plan, &disk, &acks), Vec::<String>::new());
}
