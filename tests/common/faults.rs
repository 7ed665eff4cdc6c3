//! Calls that fail: each call of a run in turn, with each kind of fault, once or from then on.

use std::sync::Arc;

use chronolith::Error;
use chronolith::io::{Call, CallKind, CutState, Fault, SimulatedDisk};

use super::torture::acks::Ack;
use super::torture::writer::Failure;
use super::{Plan, Report, Session, check, check_open, guarded};

/// What a run begins with.
pub struct Base {
    disk: SimulatedDisk,
    /// What is acknowledged already.
    acks: Vec<Ack>,
    /// Whether calls that only look count too.
    reads: bool,
}

impl Base {
    /// An empty disk.
    pub fn empty(plan: &Plan) -> Base {
        Base { disk: SimulatedDisk::new(plan.seed), acks: Vec::new(), reads: false }
    }

    /// A store that lost power at work, so that there is much to read and something to recover. Reads count.
    pub fn after_power_cut(plan: &Plan, cut: CutState) -> Base {
        let disk = SimulatedDisk::new(plan.seed);
        let mut acks = Vec::new();
        let mut session = Session::begin(plan, Arc::new(disk.clone())).expect("a sound disk");
        for turn in 0..plan.ops {
            session.step(turn, &mut acks).expect("a sound disk");
        }
        Base { disk: disk.after_power_cut(cut, plan.seed), acks, reads: true }
    }

    fn disk(&self) -> SimulatedDisk {
        let disk = self.disk.after_power_cut(CutState::All, 0);
        disk.count_reads(self.reads);
        disk
    }

    /// The calls of a run without faults.
    fn calls(&self, plan: &Plan, report: &mut Report) -> Vec<Call> {
        let disk = self.disk();
        disk.record_trace(true);
        let whole = plan.run(Arc::new(disk.clone()), &mut Vec::new()).err();
        report.note_uncounted(
            || format!("{plan:?}, without faults"),
            whole.iter().map(ToString::to_string).collect(),
        );
        disk.trace()
    }
}

/// Lets each call of the run fail, with each of the faults.
///
/// Wanted: errors and no panics; reads that go on; when the disk is well again everything acknowledged after
/// reopening, also after a power cut; and if the disk was only full, writes that go on without reopening.
pub fn fail_everywhere(plan: &Plan, base: &Base, faults: &[Fault]) -> Report {
    let mut report = Report::default();
    for call in base.calls(plan, &mut report) {
        for fault in faults {
            for sticky in [false, true] {
                if report.is_full() {
                    return report;
                }
                // An interrupted call is tried again, which would go on for ever.
                if !(sticky && *fault == Fault::Interrupted) {
                    let case = || format!("seed {}, {fault:?} at {call}, sticky {sticky}", plan.seed);
                    report.note(case, guarded(|| one_fault(plan, base, call.number, *fault, sticky)));
                }
            }
        }
    }
    report
}

/// Lets each sync of the run fail once; the unsynced pages are lost then, though the file reads as if they were not.
/// The database is reopened on the same disk and works on; a power cut then keeps what was synced, and nothing else.
/// All that was acknowledged must be there.
pub fn fail_each_sync(plan: &Plan, base: &Base) -> Report {
    let mut report = Report::default();
    let is_sync = |call: &Call| matches!(call.kind, CallKind::Sync | CallKind::SyncFolder);
    for call in base.calls(plan, &mut report).into_iter().filter(is_sync) {
        if report.is_full() {
            return report;
        }
        let case = || format!("seed {}, failing {call}", plan.seed);
        report.note(case, guarded(|| one_failed_sync(plan, base, call.number)));
    }
    report
}

/// How a faulty run went.
#[derive(Default)]
struct Run {
    acks: Vec<Ack>,
    violations: Vec<String>,
    /// Turns taken.
    turn: u64,
}

impl Run {
    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(otherwise());
        }
    }

    /// Works until all turns are taken or a failure stops it. What is refused without that, because there is no space
    /// for more log, is tried again, with `make_space` called before.
    fn work(
        &mut self,
        plan: &Plan,
        disk: &SimulatedDisk,
        reads: bool,
        mut make_space: impl FnMut(),
    ) -> Result<(), Failure> {
        let mut session = Session::begin(plan, Arc::new(disk.clone()))?;
        let mut refused = 0;
        while self.turn < plan.ops {
            match session.step(self.turn, &mut self.acks) {
                Ok(()) => self.turn += 1,
                Err(failure) => {
                    // What is sealed and was not looked at before has to be read from the disk.
                    disk.count_reads(false);
                    let found = check_open(&session.db, &self.acks);
                    disk.count_reads(reads);
                    self.expect(found.is_empty(), || format!("after {failure}: {}", found.join("; ")));
                    let stopped = session.db.stats().stopped;
                    self.expect(!(stopped && failure.passes()), || format!("stopped after {failure}"));
                    if stopped || refused == 3 {
                        return Err(failure);
                    }
                    refused += 1;
                    make_space();
                }
            }
        }
        session.finish(&mut self.acks)
    }
}

fn one_fault(plan: &Plan, base: &Base, call: u64, fault: Fault, sticky: bool) -> Vec<String> {
    let disk = base.disk();
    disk.fail(call, fault, sticky);
    let mut run = Run { acks: base.acks.clone(), ..Run::default() };
    let first = run.work(plan, &disk, base.reads, || disk.clear_faults());
    if let Err(failure) = &first {
        run.expect(is_typed(failure), || format!("an error of the wrong type: {failure:?}"));
        run.expect(fault != Fault::Interrupted, || format!("an interrupted call: {failure}"));
    }
    disk.clear_faults();
    run.violations.extend(check(plan, &disk, &run.acks).into_iter().map(|v| format!("reopened: {v}")));
    if let Err(failure) = run.work(plan, &disk, base.reads, || {}) {
        run.violations.push(format!("the disk is well again, but: {failure}"));
    }
    let found = check(plan, &disk.after_power_cut(CutState::None, 0), &run.acks);
    run.violations.extend(found.into_iter().map(|violation| format!("after a power cut: {violation}")));
    run.violations
}

fn one_failed_sync(plan: &Plan, base: &Base, call: u64) -> Vec<String> {
    let disk = base.disk();
    disk.fail(call, Fault::InputOutput, false);
    let mut run = Run { acks: base.acks.clone(), ..Run::default() };
    let cut = |run: &mut Run, when: &str| {
        for state in [CutState::None, CutState::Random, CutState::Garbage] {
            let found = check(plan, &disk.after_power_cut(state, call), &run.acks);
            let found =
                found.into_iter().map(|violation| format!("power cut {when}, {state:?}: {violation}"));
            run.violations.extend(found);
        }
    };
    let first = run.work(plan, &disk, base.reads, || {});
    cut(&mut run, "after the failed sync");
    // Reopened, it may find in the cache what the disk does not have.
    drop(plan.open(Arc::new(disk.clone())));
    cut(&mut run, "after reopening");
    let ops = Plan { ops: run.turn + 3, ..*plan };
    if let Err(failure) = run.work(&ops, &disk, base.reads, || {}) {
        run.violations.push(format!("first {first:?}, reopened: {failure}"));
    }
    cut(&mut run, "after going on");
    run.violations
}

/// Whether an embedding program can tell what happened.
fn is_typed(failure: &Failure) -> bool {
    let Failure::Database(error) = failure else { return false };
    matches!(error, Error::Io { .. } | Error::DiskFull { .. } | Error::Stopped { .. })
}
