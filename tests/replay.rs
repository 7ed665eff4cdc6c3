//! Replaying the log with the help of other threads: whatever they are, what opening comes to is the same.

mod common;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chronolith::io::{CutState, SimulatedDisk, Vfs};
use chronolith::planted::{Bug, PANIC_VALUE};
use chronolith::{Database, Durability, Error, OpenStep, Options, Timestamp};
use common::DIR;
use common::seals::{Content, History, Progress, Session, read};

/// Beside the thread that reads.
const WORKERS: [usize; 4] = [0, 1, 2, 8];

/// A copy of a disk, as a process that died left it.
fn copied(disk: &SimulatedDisk) -> SimulatedDisk {
    disk.after_power_cut(CutState::All, 0)
}

/// What opening with so many workers comes to: all that can be read, what it tells, and all files after a checkpoint of it.
fn opened(disk: &SimulatedDisk, options: Options, workers: usize) -> Result<(Content, String, u64), Error> {
    let disk = copied(disk);
    let db = options.replay_workers(workers).open_on(Arc::new(disk.clone()), DIR)?;
    let content = read(&db.snapshot())?;
    let mut report = db.open_report().clone();
    (report.elapsed, report.loading, report.replaying) = Default::default();
    // One after the other, so that it is the same bytes that are compared.
    db.checkpoint()?;
    std::mem::forget(db);
    Ok((content, format!("{report:?}"), disk.fingerprint()))
}

#[test]
fn random_histories_are_the_same_with_any_number_of_workers() {
    let mut commits = 0;
    for seed in 0..60 {
        let history = History { seed, steps: 30 + seed % 40, bug: None };
        let disk = SimulatedDisk::new(seed);
        let mut session =
            Session::begin(history, Arc::new(disk.clone()), Progress::default()).expect("it opens");
        for number in 0..history.steps {
            session.step(number).expect("no faults");
        }
        session.sync().expect("it syncs");
        let files = copied(&disk);
        let alone = opened(&files, history.options(), WORKERS[0]).expect("it opens");
        commits += alone
            .1
            .split("commits_replayed: ")
            .nth(1)
            .and_then(|rest| rest.split(',').next()?.parse::<u64>().ok())
            .unwrap_or(0);
        assert_eq!(alone.0, session.content, "{history:?}");
        for workers in &WORKERS[1..] {
            let helped = opened(&files, history.options(), *workers).expect("it opens");
            assert_eq!(alone, helped, "{history:?}, {workers} workers");
        }
        // A run with other lanes: what was one lane's is several ones' now.
        let other = history.options().lanes(5);
        assert_eq!(opened(&files, other, 3).expect("it opens").0, session.content, "{history:?}, 5 lanes");
    }
    assert!(commits > 500, "{commits} commits were replayed");
}

/// A log of rows of many metrics, some long columns, and a drop now and then.
fn rows(disk: &SimulatedDisk) {
    let db = options().open_on(Arc::new(disk.clone()), DIR).expect("it opens");
    let mut metrics: Vec<_> = (0..100).map(|name| db.metric(format!("m{name}")).expect("a name")).collect();
    for second in 0..200i64 {
        let mut txn = db.begin_write();
        // Frames say what was synced before them: so damage is told from a torn tail.
        txn.set_durability(if second % 5 == 0 { Durability::Sync } else { Durability::Buffered });
        for metric in &metrics {
            txn.append(metric, Timestamp::from_secs(second), second as f64).expect("staged");
        }
        if second % 20 == 7 {
            let times: Vec<_> =
                (0..2_000).map(|at| Timestamp::from_nanos(second * 1_000_000_000 + at * 1_000)).collect();
            let values: Vec<f64> = (0..2_000).map(f64::from).collect();
            txn.append_columns(&metrics[second as usize % 100], &times, &values).expect("staged");
        }
        if second % 30 == 29 {
            let dropped = metrics.swap_remove(second as usize % metrics.len());
            txn.drop_metric(&dropped).expect("staged");
        }
        txn.commit().expect("commits");
    }
    db.sync().expect("it syncs");
    std::mem::forget(db);
}

fn options() -> Options {
    Options::new()
        .workers(0)
        .block_size(Duration::from_secs(50))
        .log_segment_bytes_min(16 << 10)
        .log_segment_bytes_max(64 << 10)
}

/// The error of opening, without its address, and that it changed no file.
fn refused(disk: &SimulatedDisk, options: Options, workers: usize) -> String {
    let disk = copied(disk);
    let before = disk.files();
    let error = options.replay_workers(workers).open_on(Arc::new(disk.clone()), DIR).map(|_: Database| ());
    assert_eq!(disk.files(), before, "nothing was touched");
    format!("{:?}", error.expect_err("it is damaged"))
}

#[test]
fn damage_is_the_same_error_with_any_number_of_workers() {
    let disk = SimulatedDisk::new(1);
    rows(&disk);
    let mut found = 0;
    for (path, len) in copied(&disk).files() {
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        for part in 1..6 {
            let damaged = copied(&disk);
            let (file, offset) = (damaged.open(&path, true).expect("opens").expect("there"), len * part / 6);
            let mut byte = [0];
            file.read_at(offset, &mut byte).expect("reads");
            file.write_at(offset, &[byte[0] ^ 0x10]).expect("writes");
            file.sync().expect("syncs");
            let open = |workers: usize| {
                let copy = copied(&damaged);
                let opened = options().replay_workers(workers).open_on(Arc::new(copy), DIR);
                opened.map(|db| db.snapshot().version()).map_err(|error| format!("{error:?}"))
            };
            let alone = open(0);
            found += u64::from(alone.is_err());
            WORKERS[1..].iter().for_each(|workers| assert_eq!(open(*workers), alone, "{workers} workers"));
        }
    }
    assert!(found > 10, "{found} were damage");
}

#[test]
fn the_limit_of_memory_is_met_with_any_number_of_workers() {
    let disk = SimulatedDisk::new(2);
    rows(&disk);
    for max in [10_000, 30_000, 60_000] {
        let limited = || options().replay_memory_max(max);
        let alone = refused(&disk, limited(), 0);
        assert!(alone.contains("ReplayMemory"), "{alone}");
        WORKERS[1..].iter().for_each(|workers| assert_eq!(refused(&disk, limited(), *workers), alone));
    }
}

#[test]
fn a_worker_that_panics_is_a_panic_of_opening() {
    for place in [0, 50, 99] {
        let disk = SimulatedDisk::new(3);
        rows(&disk);
        let disk = copied(&disk);
        let db = options().open_on(Arc::new(disk.clone()), DIR).expect("it opens");
        let metric = db.metric(format!("n{place}")).expect("a name");
        db.append(&metric, Timestamp::from_secs(1), PANIC_VALUE).expect("commits");
        let (other, many) = (db.metric("m0").expect("a name"), 300);
        for second in 0..many {
            db.append(&other, Timestamp::from_secs(1_000 + second), 1.0).expect("commits");
        }
        std::mem::forget(db);
        for workers in WORKERS {
            let copy = copied(&disk);
            let files = copy.files();
            let open = || {
                let planted = options().plant(Bug::PanicInSlice).replay_workers(workers);
                planted.open_on(Arc::new(copy.clone()), DIR).map(drop)
            };
            let panic = catch_unwind(AssertUnwindSafe(open)).expect_err("it panics");
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"planted, in a slice"), "{workers} workers");
            assert_eq!(copy.files(), files, "nothing was touched");
            opened(&copy, options(), workers).expect("its lock is free, and all is there");
        }
    }
}

/// A disk with a checkpoint and records behind it.
fn behind_a_checkpoint(seed: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(seed);
    let db = options().open_on(Arc::new(disk.clone()), DIR).expect("it opens");
    let metrics: Vec<_> = (0..3_000).map(|name| db.metric(format!("m{name}")).expect("a name")).collect();
    let commit = |second: i64, metrics: &[chronolith::Metric]| {
        let mut txn = db.begin_write();
        metrics
            .iter()
            .for_each(|metric| txn.append(metric, Timestamp::from_secs(second), 1.0).expect("staged"));
        txn.commit().expect("commits");
    };
    commit(1, &metrics);
    db.checkpoint().expect("a checkpoint");
    (2..40).for_each(|second| commit(second, &metrics[..100]));
    std::mem::forget(db);
    copied(&disk)
}

#[test]
fn an_opening_tells_how_far_it_is_and_can_be_ended_at_each_step() {
    let disk = behind_a_checkpoint(4);
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = told.clone();
    let opening = options().open_progress(move |now| {
        seen.lock().expect("no panics").push(*now);
        ControlFlow::Continue(())
    });
    let db = opening.open_on(Arc::new(copied(&disk)), DIR).expect("it opens");
    let whole = read(&db.snapshot()).expect("it reads");
    let report = db.open_report();
    assert!(report.elapsed >= report.loading + report.replaying, "{report:?}");
    let told = told.lock().expect("no panics").clone();
    let steps: Vec<_> = told.iter().filter(|now| now.done == 0).map(|now| now.step).collect();
    assert_eq!(steps, [OpenStep::Names, OpenStep::Memory, OpenStep::Log]);
    assert!(told.iter().all(|now| now.done <= now.total && now.total > 0), "{told:?}");
    assert_eq!(told[0].total, 3_000, "metrics");

    for workers in WORKERS {
        for step in steps.iter().copied() {
            let copy = copied(&disk);
            let files = copy.files();
            let opening =
                options().replay_workers(workers).open_progress(move |now| match now.step == step {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                });
            let ended = opening.open_on(Arc::new(copy.clone()), DIR).map(drop);
            assert!(matches!(ended, Err(Error::OpenEnded { .. })), "{step:?}: {ended:?}");
            assert_eq!(copy.files(), files, "nothing was touched");
            let db = options().open_on(Arc::new(copy), DIR).expect("it opens");
            assert_eq!(read(&db.snapshot()).expect("it reads"), whole);
        }
    }
}

#[test]
fn an_opening_for_reading_tells_how_far_it_is_and_can_be_ended_too() {
    let disk = behind_a_checkpoint(4);
    for (workers, ends) in WORKERS.into_iter().flat_map(|workers| [(workers, false), (workers, true)]) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let seen = told.clone();
        let reading = options().read_only(true).replay_workers(workers).open_progress(move |now| {
            seen.lock().expect("no panics").push(*now);
            match ends && now.step == OpenStep::Memory {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        let opened = reading.open_on(Arc::new(copied(&disk)), DIR).map(drop);
        assert!(
            matches!((&opened, ends), (Ok(()), false) | (Err(Error::OpenEnded { .. }), true)),
            "{opened:?}"
        );
        let told = told.lock().expect("no panics").clone();
        let mut steps: Vec<_> = told.iter().map(|now| now.step).collect();
        steps.dedup();
        assert_eq!(steps, [OpenStep::Names, OpenStep::Memory]);
    }
}
