//! Power cuts at every call of a run, and at every call of the recovery after it.
//!
//! An [`Observed`] disk takes, before each call that changes or syncs something, the disks that a machine could find
//! if the power went at that moment, together with the number of ops acknowledged so far. Each different one is then
//! opened and checked.

use std::collections::HashSet;
use std::sync::Arc;

use chronolith::io::{CutState, SimulatedDisk};

use super::observed::{State, observe};
use super::torture::acks::Ack;
use super::torture::random::Random;
use super::torture::writer::Failure;
use super::{Plan, Report, Session, check, guarded};

/// What to do with the states of a run.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    /// How many random states of each call are looked at, beside the others.
    pub random_states: u64,
    /// Of this many states one has its recovery cut too, at every call; 0: none.
    pub nested_every: u64,
    /// Of this many states one is worked on after the recovery, and then cut again; 0: none.
    pub resumed_every: u64,
}

/// Ops done after a recovery.
const RESUMED_OPS: u64 = 6;
/// Mixed into seeds, so that nested states differ from the outer ones.
const NESTED: u64 = 0x6e65_7374;

/// Cuts the power at every call of the run. Half way the database is closed and opened again.
pub fn cut_everywhere(plan: &Plan, depth: Depth) -> Report {
    let mut report = Report::default();
    let disk = SimulatedDisk::new(plan.seed);
    let (states, ran) = observe(&disk, plan.seed, depth.random_states, &[], |disk, acks| {
        let half = Plan { ops: plan.ops / 2, ..*plan };
        half.run(disk.clone(), acks)?;
        half.run(disk, acks)
    });
    report.note_uncounted(
        || format!("{plan:?}, uncut"),
        ran.err().into_iter().map(|failure| failure.to_string()).collect(),
    );
    let mut seen: HashSet<(u64, usize)> = states.iter().map(State::identity).collect();
    for (index, state) in states.into_iter().enumerate() {
        if report.is_full() {
            break;
        }
        look_into(plan, depth, index as u64, &state, &mut seen, &mut report);
    }
    report
}

/// Cuts the power at every call of a run whose writers are threads, so that they share syncs and compete for metrics.
pub fn cut_threads(plan: &Plan) -> Report {
    let mut report = Report::default();
    let disk = SimulatedDisk::new(plan.seed);
    let (states, ran) = observe(&disk, plan.seed, 2, &[], |disk, acks| {
        Session::begin(plan, disk)?.run_in_threads(plan, acks)
    });
    report.note_uncounted(
        || format!("{plan:?}, uncut"),
        ran.err().into_iter().map(|failure| failure.to_string()).collect(),
    );
    for State { disk, acks, when } in states {
        if report.is_full() {
            break;
        }
        report.note(|| format!("seed {}, threads, {when}", plan.seed), check(plan, &disk, &acks));
    }
    report
}

/// Lets the process die at every call of the run, in half of the cases within the call. The next process finds what
/// the last one wrote, synced or not, works on, and then the power is cut: what it acknowledged must be there, though
/// it rests on what the dead process had not synced.
pub fn die_everywhere(plan: &Plan) -> Report {
    let mut report = Report::default();
    let disk = SimulatedDisk::new(plan.seed);
    let whole = plan.run(Arc::new(disk.clone()), &mut Vec::new());
    report.note_uncounted(
        || format!("{plan:?}, undisturbed"),
        whole.err().iter().map(ToString::to_string).collect(),
    );
    for call in 1..=disk.calls() {
        for within in [false, true] {
            if report.is_full() {
                return report;
            }
            let case = || format!("seed {}, death at call {call}, within {within}", plan.seed);
            report.note(case, guarded(|| one_death(plan, call, within)));
        }
    }
    report
}

fn one_death(plan: &Plan, call: u64, within: bool) -> Vec<String> {
    let disk = SimulatedDisk::new(plan.seed);
    if within {
        disk.cut_power_within(call);
    } else {
        disk.cut_power_at(call);
    }
    let mut acks = Vec::new();
    // It fails at that call, or a little later if that one only tidies up.
    let _ = plan.run(Arc::new(disk.clone()), &mut acks);
    disk.restore_power();
    match resume(plan, &disk, acks) {
        Ok(acks) => check(plan, &disk.after_power_cut(CutState::None, 0), &acks),
        Err(failure) => vec![format!("the next process: {failure}")],
    }
}

/// Checks one state, and for some states what can happen next. Counts states that are not in `seen`.
fn look_into(
    plan: &Plan,
    depth: Depth,
    index: u64,
    state: &State,
    seen: &mut HashSet<(u64, usize)>,
    report: &mut Report,
) {
    let State { disk, acks, when } = state;
    let fresh = || disk.after_power_cut(CutState::All, 0);
    report.note(|| format!("seed {} {when}", plan.seed), check(plan, &fresh(), acks));
    let chosen = |every: u64, offset: u64| every > 0 && (index + plan.seed) % every == offset % every;
    if chosen(depth.nested_every, 0) {
        let seed = Random::of(plan.seed, 0, index, NESTED).next();
        let (nested, _) =
            observe(&fresh(), seed, depth.random_states, acks, |disk, _| plan.open(disk).map(drop));
        for state in nested.into_iter().filter(|state| seen.insert(state.identity())) {
            let case = || format!("seed {} {when}, its recovery {}", plan.seed, state.when);
            report.note(case, check(plan, &state.disk, acks));
        }
    }
    if chosen(depth.resumed_every, 1) {
        let disk = fresh();
        let violations = guarded(|| match resume(plan, &disk, acks.clone()) {
            Ok(acks) => check(plan, &disk.after_power_cut(CutState::None, 0), &acks),
            Err(failure) => vec![failure.to_string()],
        });
        report
            .note_uncounted(|| format!("seed {} {when}, then {RESUMED_OPS} ops more", plan.seed), violations);
    }
}

/// Works on after a recovery, without closing at the end. Returns all acknowledged ops.
fn resume(plan: &Plan, disk: &SimulatedDisk, mut acks: Vec<Ack>) -> Result<Vec<Ack>, Failure> {
    let mut session = Session::begin(plan, Arc::new(disk.clone()))?;
    for turn in 0..RESUMED_OPS {
        session.step(turn, &mut acks)?;
    }
    Ok(acks)
}
