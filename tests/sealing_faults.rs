//! Sealing on disks that lose power, fail and rot.

mod common;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::thread;

use chronolith::io::{Call, CutState, Fault, SimulatedDisk};
use chronolith::planted::Bug;
use chronolith::{Database, Error, Timestamp};
use common::seals::{DAY, History, Progress, Session, check_found, read};
use common::torture::random::Random;
use common::{DIR, Report, guarded};

/// For continuous integration; a release looks at `CHRONOLITH_SEAL_STATES`, 20,000 or more.
const STATES_MIN: u64 = 2_000;
/// Over how many histories they are spread at least; of a long one only every so many states are looked at.
const HISTORIES: u64 = 40;
/// Random states for each call, beside the others.
const RANDOM_STATES: u64 = 2;
/// Of so many states one has its recovery, and the seal after it, cut too, in so many states at most.
const NESTED_EVERY: u64 = 97;
const NESTED_MAX: u64 = 25;
/// Of so many states one is worked on after the recovery, and then cut.
const RESUMED_EVERY: u64 = 23;

#[test]
fn every_power_cut_leaves_all_that_was_durable_and_seals_again() {
    let wanted = std::env::var("CHRONOLITH_SEAL_STATES").ok().and_then(|states| states.parse().ok());
    let wanted: u64 = wanted.unwrap_or(STATES_MIN);
    let work = move |first_seed: u64| {
        let (mut report, mut seeds) = (Report::default(), 0);
        for seed in (first_seed..).step_by(2) {
            if report.cases >= wanted.div_ceil(2) || report.is_full() {
                break;
            }
            let history = History { seed, steps: 6 + seed % 9, bug: None };
            report = report.and(cut_everywhere(&history, wanted / HISTORIES));
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

/// As [`STATES_MIN`], of cuts in the recovery after a cut, and in the recovery after that.
const TWICE_STATES_MIN: u64 = 500;
/// Of each history, and of each recovery of either level, so many states are gone on with.
const OUTER_STATES: u64 = 5;
const FIRST_STATES: u64 = 8;
const SECOND_STATES: u64 = 12;

/// A release looks at `CHRONOLITH_TWICE_STATES`, 50,000 or more.
#[test]
fn a_recovery_that_is_cut_and_whose_recovery_is_cut_loses_nothing() {
    let wanted = std::env::var("CHRONOLITH_TWICE_STATES").ok().and_then(|states| states.parse().ok());
    let wanted: u64 = wanted.unwrap_or(TWICE_STATES_MIN);
    let work = move |first_seed: u64| {
        let (mut report, mut levels) = (Report::default(), [0, 0]);
        for seed in (first_seed..).step_by(2) {
            if levels[1] >= wanted.div_ceil(2) || report.is_full() {
                break;
            }
            let history = History { seed, steps: 8 + seed % 17, bug: None };
            cut_twice(&history, &mut report, &mut levels);
        }
        (report, levels)
    };
    let other = thread::spawn(move || work(5_001));
    let (report, levels) = work(5_000);
    let (other, other_levels) = other.join().expect("checks catch panics");
    let report = report.and(other);
    let [first, second] = [levels[0] + other_levels[0], levels[1] + other_levels[1]];
    println!("{first} different states of cut recoveries, {second} of recoveries of these");
    report.assert_clean();
    assert!(second >= wanted);
}

/// Cuts a history, opens what was found and cuts that, opens what was found then and cuts that again: what is found in the end has all that was acknowledged as
/// durable in the history. Counts the states of either recovery.
fn cut_twice(history: &History, report: &mut Report, levels: &mut [u64; 2]) {
    let (disk, progress) = (SimulatedDisk::new(history.seed), Progress::default());
    let (states, ran) = observe(&disk, history.seed, &progress, |disk| run(history, disk, &progress));
    report.note_uncounted(|| format!("{history:?}, uncut"), ran);
    // What opening found may have been made durable by it, but was so for nobody.
    let recover = |found: &Found, seed| {
        let disk = found.disk.after_power_cut(CutState::All, 0);
        observe(&disk, seed, &progress, |disk| history.open(Arc::new(disk.clone())).map(drop))
    };
    for (index, outer) in some(&states, OUTER_STATES, history.seed) {
        let seed = Random::of(history.seed, 2, index, 0).next();
        let (first, opened) = recover(outer, seed);
        report.note_uncounted(
            || format!("seed {} {}", history.seed, outer.when),
            opened.err().into_iter().map(|error| format!("{error:?}")).collect(),
        );
        for (place, first) in some(&first, FIRST_STATES, seed) {
            levels[0] += 1;
            let (second, opened) = recover(first, seed.wrapping_add(place + 1));
            let case = || format!("seed {} {}, its recovery {}", history.seed, outer.when, first.when);
            let failed = opened.err().into_iter().map(|error| format!("{error:?}")).collect();
            report.note_uncounted(case, failed);
            for (_, second) in some(&second, SECOND_STATES, seed) {
                levels[1] += 1;
                let found = check_found(history, &second.disk, &progress, outer.durable);
                report.note(|| format!("{}, the recovery of that {}", case(), second.when), found);
            }
            if report.is_full() {
                return;
            }
        }
    }
}

#[test]
fn long_histories_read_right_and_leave_neither_memory_nor_files() {
    let wanted = std::env::var("CHRONOLITH_SEAL_HISTORIES").ok().and_then(|count| count.parse().ok());
    let mut report = Report::default();
    // One that once left points of a removed layer, and others.
    for seed in std::iter::once(1_236).chain(2_000..2_000 + wanted.unwrap_or(HISTORIES)) {
        let history = History { seed, steps: 20 + seed % 40, bug: None };
        let disk = SimulatedDisk::new(seed);
        report.note(|| format!("{history:?}"), run(&history, &disk, &Progress::default()));
        if report.is_full() {
            break;
        }
    }
    report.assert_clean();
}

/// What a machine could find.
struct Found {
    disk: SimulatedDisk,
    /// The last transaction that was acknowledged as durable before.
    durable: usize,
    when: String,
}

/// Does `work` on a disk and returns all different states that power cuts after each of its calls could leave.
fn observe<T>(
    disk: &SimulatedDisk,
    seed: u64,
    progress: &Progress,
    work: impl FnOnce(&SimulatedDisk) -> T,
) -> (Vec<Found>, T) {
    let states = Arc::new(Mutex::new((HashSet::new(), Vec::new())));
    let (seen, progress) = (states.clone(), progress.clone());
    disk.watch(move |disk, call| {
        let durable = progress.durable();
        let mut states = seen.lock().expect("nothing panics here");
        for cut in CutState::ALL {
            let seeds = if cut == CutState::Random { RANDOM_STATES } else { 1 };
            for part in 0..seeds {
                let found = disk.after_power_cut(cut, Random::of(seed, part as u32, call, 0).next());
                if states.0.insert((found.fingerprint(), durable)) {
                    let when = format!("cut after call {call}, {cut:?} {part}");
                    states.1.push(Found { disk: found, durable, when });
                }
            }
        }
    });
    let done = work(disk);
    disk.unwatch();
    let states = std::mem::take(&mut states.lock().expect("nothing panics here").1);
    (states, done)
}

/// Cuts the power after every call of a history, until there are enough states, chosen from all over the history.
fn cut_everywhere(history: &History, enough: u64) -> Report {
    let mut report = Report::default();
    let (disk, progress) = (SimulatedDisk::new(history.seed), Progress::default());
    let (states, ran) = observe(&disk, history.seed, &progress, |disk| run(history, disk, &progress));
    report.note_uncounted(|| format!("{history:?}, uncut"), ran);
    for (index, state) in some(&states, enough, history.seed) {
        if report.is_full() {
            break;
        }
        look_into(history, &progress, index, state, &mut report);
    }
    report
}

/// At most so many of them, from all over the list; which ones depends on the seed.
fn some(states: &[Found], at_most: u64, seed: u64) -> impl Iterator<Item = (u64, &Found)> {
    let step = (states.len() as u64).div_ceil(at_most.max(1)).max(1);
    (0..).zip(states).filter(move |(index, _)| index % step == seed % step)
}

/// A whole history, with what is in the database compared after each step.
fn run(history: &History, disk: &SimulatedDisk, progress: &Progress) -> Vec<String> {
    guarded(|| {
        let run = || -> Result<(), Error> {
            let mut session = Session::begin(*history, Arc::new(disk.clone()), progress.clone())?;
            for step in 0..history.steps {
                session.step(step)?;
                session.check()?;
            }
            session.settle(disk)
        };
        run().err().into_iter().map(|error| format!("{error:?}")).collect()
    })
}

/// Checks one state, and for some states what can happen next.
fn look_into(history: &History, progress: &Progress, index: u64, state: &Found, report: &mut Report) {
    let Found { disk, durable, when } = state;
    let fresh = || disk.after_power_cut(CutState::All, 0);
    let case = || format!("seed {} {when}", history.seed);
    report.note(case, check_found(history, &fresh(), progress, *durable));
    if index % NESTED_EVERY == history.seed % NESTED_EVERY {
        let seed = Random::of(history.seed, 1, index, 0).next();
        // What opening found may have been made durable by it, but was so for nobody.
        let (nested, _) =
            observe(&fresh(), seed, progress, |disk| check_found(history, disk, progress, *durable));
        for (_, nested) in some(&nested, NESTED_MAX, seed) {
            let found = check_found(history, &nested.disk, progress, *durable);
            report.note(|| format!("{}, its recovery {}", case(), nested.when), found);
        }
    }
    if index % RESUMED_EVERY == history.seed % RESUMED_EVERY {
        let disk = fresh();
        let progress = progress.when(*durable);
        let resumed = guarded(|| {
            let resumed = || -> Result<(), Error> {
                let mut session = Session::begin(*history, Arc::new(disk.clone()), progress.clone())?;
                for step in 100..106 {
                    session.step(step)?;
                }
                session.check()
            };
            resumed().err().into_iter().map(|error| format!("{error:?}")).collect()
        });
        report.note_uncounted(|| format!("{}, resumed", case()), resumed);
        let disk = disk.after_power_cut(CutState::None, 0);
        let found = check_found(history, &disk, &progress, progress.durable());
        report.note(|| format!("{}, resumed and cut again", case()), found);
    }
}

/// Each call of a history fails once, with each of the faults: errors are typed, what is read stays the same, sealing goes on, and after a power
/// cut all is there that was acknowledged as durable.
fn fail_everywhere(history: &History, faults: &[Fault], reads: bool) -> Report {
    let mut report = Report::default();
    let disk = SimulatedDisk::new(history.seed);
    disk.count_reads(reads);
    disk.record_trace(true);
    report
        .note_uncounted(|| format!("{history:?}, without faults"), run(history, &disk, &Progress::default()));
    for call in disk.trace() {
        for fault in faults {
            if report.is_full() {
                return report;
            }
            let case = || format!("seed {}, {fault:?} at {call}", history.seed);
            report.note(case, guarded(|| one_fault(history, &call, *fault, reads)));
        }
    }
    report
}

fn one_fault(history: &History, call: &Call, fault: Fault, reads: bool) -> Vec<String> {
    let disk = SimulatedDisk::new(history.seed);
    disk.count_reads(reads);
    disk.fail(call.number, fault, false);
    let progress = Progress::default();
    let mut violations = Vec::new();
    // What failed is tried once more.
    let mut tried = |done: Result<(), Error>| match done {
        Ok(()) => true,
        Err(Error::Io { .. } | Error::DiskFull { .. } | Error::Stopped { .. }) => false,
        Err(error) => {
            violations.push(format!("an error of the wrong type: {error:?}"));
            false
        }
    };
    let begin = || Session::begin(*history, Arc::new(disk.clone()), progress.clone());
    let mut session = match begin() {
        Ok(session) => session,
        Err(error) => {
            tried(Err(error));
            begin().expect("one call fails only")
        }
    };
    for step in 0..history.steps {
        if !tried(session.step(step)) && session.db.stats().stopped {
            // It fails to close.
            tried(session.reopen());
        }
        if !tried(session.check()) {
            session.check().expect("one call fails only");
        }
    }
    if !tried(session.settle(&disk)) {
        begin().and_then(|session| session.settle(&disk)).expect("one call fails only");
    }
    let cut = disk.after_power_cut(CutState::None, call.number);
    let found = check_found(history, &cut, &progress, progress.durable());
    violations.extend(found.into_iter().map(|violation| format!("after a power cut: {violation}")));
    violations
}

fn fails(seeds: std::ops::Range<u64>, faults: &[Fault], reads: bool) {
    let histories = seeds.map(|seed| History { seed, steps: 5, bug: None });
    let reports = histories.map(|history| fail_everywhere(&history, faults, reads));
    let report = reports.fold(Report::default(), Report::and);
    println!("{} failing calls", report.cases);
    report.assert_clean();
}

#[test]
fn a_device_error_loses_nothing_and_sealing_goes_on() {
    fails(50..54, &[Fault::InputOutput], false);
}

#[test]
fn a_full_disk_loses_nothing_and_sealing_goes_on() {
    fails(60..63, &[Fault::NoSpace, Fault::ShortWrite], false);
}

#[test]
fn a_disk_without_room_for_a_volume_takes_commits_and_seals_when_there_is_room() {
    let history = History { seed: 3, steps: 0, bug: None };
    let disk = SimulatedDisk::new(1);
    let mut session =
        Session::begin(history, Arc::new(disk.clone()), Progress::default()).expect("a sound disk");
    let mut refused = 0;
    for step in 0..40 {
        // As much as the log may need, and less than a volume with its supplement.
        disk.set_capacity(Some(disk.bytes_allocated() + 4_096));
        let tight = session.db.seal(..);
        session.check().expect("reads");
        if let Err(error) = tight {
            assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull), "{error:?}");
            assert!(!session.db.stats().stopped);
            refused += 1;
        }
        disk.set_capacity(None);
        session.write(&mut Random::of(3, 0, step, 0)).expect("there is room");
        session.check().expect("reads");
    }
    assert!(refused > 30, "{refused} seals were refused");
    // What the failures left goes, though the database was not opened again.
    session.settle(&disk).expect("there is room");
}

#[test]
fn a_failing_read_is_told_and_the_next_one_reads() {
    fails(70..72, &[Fault::InputOutput], true);
}

#[test]
fn an_install_that_was_cut_between_two_slices_is_completed_at_open() {
    let options = |bug| {
        let history = History { seed: 0, steps: 0, bug };
        // Each slice gets to the disk at once.
        history.options().install_slice_metrics(1).log_buffer_bytes(0).shards(1).lanes(2)
    };
    let disk = SimulatedDisk::new(1);
    let db = options(None).open_on(Arc::new(disk.clone()), DIR).expect("opens");
    for turn in 0..6 {
        let metric = db.metric(format!("m{turn}")).expect("valid");
        db.append(&metric, Timestamp::from_secs(DAY + turn), turn as f64).expect("commits");
    }
    let content = read(&db.snapshot()).expect("reads");
    let progress = Progress::default();
    let (states, sealed) = observe(&disk, 1, &progress, |_| db.seal(..));
    sealed.expect("seals");

    // How many of the six are in memory after opening.
    let in_memory = |disk: &SimulatedDisk, bug| {
        let disk = disk.after_power_cut(CutState::All, 0);
        let db: Database = options(bug).open_on(Arc::new(disk), DIR).expect("opens");
        assert_eq!(read(&db.snapshot()).expect("reads"), content);
        db.stats().points
    };
    let forgotten: HashSet<u64> =
        states.iter().map(|state| in_memory(&state.disk, Some(Bug::ForgetUnfinishedInstall))).collect();
    assert!(forgotten.len() >= 4, "there are cuts between slices: {forgotten:?}");
    let completed: HashSet<u64> = states.iter().map(|state| in_memory(&state.disk, None)).collect();
    assert_eq!(completed, HashSet::from([0, 6]));
}

/// The mistake is found by power cuts in one of a few histories, in which there is nothing to find without it.
fn finds(bug: Bug) {
    const SEEDS: u64 = 40;
    const FEW: u64 = 80;
    for seed in 1..=SEEDS {
        let history = History { seed, steps: 10, bug: Some(bug) };
        let report = cut_everywhere(&history, FEW);
        if let Some(violation) = report.violations.first() {
            println!("{bug:?} is found with seed {seed}: {violation}");
            cut_everywhere(&History { bug: None, ..history }, FEW).assert_clean();
            return;
        }
    }
    panic!("{bug:?} is not found in {SEEDS} histories");
}

#[test]
fn a_volume_installed_before_it_is_complete_is_found() {
    finds(Bug::InstallBeforeVolume);
}

#[test]
fn a_superseded_volume_removed_before_the_install_is_durable_is_found() {
    finds(Bug::RemoveBeforeInstallIsDurable);
}

#[test]
fn orphans_that_are_not_swept_are_found() {
    finds(Bug::KeepOrphans);
}

#[test]
fn an_install_that_is_not_completed_is_found() {
    finds(Bug::ForgetUnfinishedInstall);
}

#[test]
fn a_checkpoint_that_is_named_before_it_is_durable_is_found() {
    finds(Bug::NameCheckpointUnsynced);
}

#[test]
fn a_checkpoint_that_is_ahead_of_the_durable_log_is_found() {
    finds(Bug::CheckpointUnflushed);
}
