//! How much memory changes on their way to being visible may take: one transaction, and all commits together.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use chronolith::io::{Fault, SimulatedDisk};
use chronolith::{Database, Durability, Error, Metric, Options, Timestamp, Version, WriteTransaction};

const MAX: usize = 4 << 20;
const MIB: usize = 1 << 20;
/// Waiting longer than this for another thread is a failure; on a sound build it never comes near.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first segments have room for several commits, so that the first sync is a commit's.
fn options() -> Options {
    let options = Options::new().workers(0).staged_bytes_max(MAX);
    options.log_segment_bytes_min(16 << 20).log_segment_bytes_max(16 << 20)
}

fn memory() -> Database {
    options().open_in_memory().expect("it opens")
}

fn on(disk: &SimulatedDisk) -> Database {
    options().open_on(Arc::new(disk.clone()), "/db").expect("it opens")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(second)
}

/// A transaction of a few bytes more than so many MiB.
fn of_mib(db: &Database, mib: usize) -> WriteTransaction {
    let mut txn = db.begin_write();
    for index in 0..mib {
        txn.put_meta(format!("{index}"), vec![7; MIB]).expect("below the limit");
    }
    txn
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(refused: Result<T, Error>) {
    match refused {
        Err(Error::StagedBytes { bytes, max }) => assert!(bytes > max && max == MAX, "{bytes} of {max}"),
        other => panic!("{other:?}"),
    }
}

fn patiently(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_would_be_too_much_is_not_staged_and_the_rest_can_be_committed() {
    let db = memory();
    let metric = |name: &str| db.metric(name).expect("a metric");
    let m = metric("m");
    let mut txn = of_mib(&db, 3);
    txn.append(&m, at(1), 1.0).expect("small");
    // Fills it up, up to some hundred bytes.
    let left = MIB - 400;
    txn.put_meta("rest", vec![7; left]).expect("it fits");

    let times: Vec<Timestamp> = (0..2_000).map(at).collect();
    let values: Vec<f64> = (0..2_000).map(|value| (f64::from(value)).sqrt()).collect();
    assert_refused(txn.append_columns(&m, &times, &values));
    assert_refused(txn.append_columns(&m, &times[..1_000], &values[..1_000]));
    assert_refused(txn.append_annotated(&m, at(2), 2.0, &[1; 1_000]));
    assert_refused(txn.put_meta("more", [7; 1_000]));
    assert_refused(txn.create_metric(&metric(&"n".repeat(1_000))));
    let row: Vec<(Metric, f64)> = (0..50).map(|index| (metric(&format!("row{index}")), 1.0)).collect();
    assert_refused(txn.append_row(at(3), &row));
    let one_by_one =
        (10..1_000).find_map(|second| txn.append(&m, at(second), 1.0).err().map(|error| (second, error)));
    let (full_at, error) = one_by_one.expect("it is full some day");
    assert_refused::<()>(Err(error));
    assert!(full_at > 20, "the refused ones left their space");
    assert_eq!(txn.range(&m, ..).count() as i64, 1 + full_at - 10);
    assert!(row.iter().all(|(metric, _)| !txn.contains(metric)));
    txn.commit().expect("what was staged");

    let snapshot = db.snapshot();
    assert_eq!(snapshot.range(&m, ..).count() as i64, 1 + full_at - 10);
    assert_eq!(snapshot.metrics().count(), 1, "no part of a row");
    assert_eq!((snapshot.meta("rest").map(<[u8]>::len), snapshot.meta("more")), (Some(left), None));
    for (metric, _) in &row {
        db.append(metric, at(1), 1.0).expect("its creation was not forgotten");
    }
    assert!(row.iter().all(|(metric, _)| db.snapshot().range(metric, ..).count() == 1));
}

#[test]
fn commits_that_do_not_fit_together_wait_in_line() {
    let disk = SimulatedDisk::new(1);
    let db = on(&disk);
    let m = db.metric("m").expect("a metric");
    db.append(&m, at(0), 0.0).expect("a commit");
    let before = db.snapshot().version();
    thread::scope(|scope| {
        let hold = disk.hold_syncs();
        let first = scope.spawn(|| of_mib(&db, 2).commit());
        assert!(hold.wait_for(1, PATIENCE), "the first commit syncs");
        // These ask for no sync, so they would be sequenced at once, and published with the first.
        let large = scope.spawn(|| {
            let mut txn = of_mib(&db, 2);
            txn.set_durability(Durability::Buffered);
            txn.commit()
        });
        thread::sleep(Duration::from_millis(200));
        let small = scope.spawn(|| {
            let mut txn = db.begin_write();
            txn.set_durability(Durability::Buffered);
            txn.append(&m, at(1), 1.0)?;
            txn.commit()
        });
        thread::sleep(Duration::from_millis(200));
        // Staging waits for nobody.
        drop(of_mib(&db, 3));
        assert_eq!(db.stats().buffered_bytes, 0, "neither has handed in its record");
        assert!(!large.is_finished() && !small.is_finished());
        patiently("they wait without end", || {
            hold.let_one_through();
            first.is_finished() && large.is_finished() && small.is_finished()
        });
        let version = |joined: thread::Result<Result<Version, Error>>| {
            joined.expect("no panic").expect("a commit").get() - before.get()
        };
        assert_eq!(version(first.join()), 1);
        assert_eq!(version(large.join()), 2);
        assert_eq!(version(small.join()), 3, "it does not pass the large one");
    });
}

#[test]
fn commits_that_fail_take_nothing() {
    let disk = SimulatedDisk::new(2);
    let db = on(&disk);
    let m = db.metric("m").expect("a metric");
    db.append(&m, at(0), 0.0).expect("a commit");
    for second in 1..4 {
        let mut checked = db.begin_checked();
        checked.latest(&m).expect("a read");
        checked.put_meta("k", vec![7; MIB]).expect("below the limit");
        db.append(&m, at(second), 0.0).expect("a commit");
        assert!(matches!(checked.commit(), Err(Error::Conflict { .. })));

        drop(of_mib(&db, 3));
        of_mib(&db, 3).rollback();

        disk.set_capacity(Some(disk.bytes_allocated()));
        let mut full = 0;
        while full < 2 {
            match of_mib(&db, 3).commit() {
                Err(Error::DiskFull { .. }) => full += 1,
                other => drop(other.expect("there was space")),
            }
        }
        disk.set_capacity(None);
    }
    // Nearly the limit: it fits beside nothing but nothing.
    thread::scope(|scope| {
        let held = disk.hold_syncs();
        let small = scope.spawn(|| db.append(&m, at(10), 1.0));
        assert!(held.wait_for(1, PATIENCE), "the small one syncs");
        let large = scope.spawn(|| {
            let mut txn = of_mib(&db, 3);
            txn.put_meta("rest", vec![7; MIB - 200]).expect("just below the limit");
            txn.set_durability(Durability::Buffered);
            txn.commit()
        });
        patiently("something was taken by a commit that failed", || {
            held.let_one_through();
            small.is_finished() && large.is_finished()
        });
        small.join().expect("no panic").expect("a commit");
        large.join().expect("no panic").expect("a commit");
    });
}

/// Ends a database while a commit waits for another one's bytes; what the waiting one then gets.
fn waiting(end: impl FnOnce(&SimulatedDisk, &Database) + Send) -> Result<Version, Error> {
    let disk = SimulatedDisk::new(3);
    let db = on(&disk);
    thread::scope(|scope| {
        let hold = disk.hold_syncs();
        let first = scope.spawn(|| of_mib(&db, 3).commit());
        assert!(hold.wait_for(1, PATIENCE), "the first commit syncs");
        let second = scope.spawn(|| of_mib(&db, 3).commit());
        thread::sleep(Duration::from_millis(100));
        let ending = scope.spawn(|| end(&disk, &db));
        thread::sleep(Duration::from_millis(100));
        patiently("it waits without end", || {
            hold.let_one_through();
            first.is_finished() && second.is_finished() && ending.is_finished()
        });
        drop(hold);
        second.join().expect("no panic")
    })
}

#[test]
fn who_waits_hears_of_the_end() {
    assert!(matches!(waiting(|_, db| drop(db.clone().close())), Err(Error::Closed)));
    let failed = waiting(|disk, _| disk.fail(disk.calls() + 1, Fault::InputOutput, true));
    assert!(matches!(failed, Err(Error::Stopped { .. })), "{failed:?}");
    waiting(|_, _| ()).expect("otherwise it goes on");
}

/// `close` waits for the commits that have a number; who waits for their bytes does not.
#[test]
fn who_waits_hears_of_close_at_once() {
    let disk = SimulatedDisk::new(5);
    let db = on(&disk);
    thread::scope(|scope| {
        let hold = disk.hold_syncs();
        let first = scope.spawn(|| of_mib(&db, 3).commit());
        assert!(hold.wait_for(1, PATIENCE), "the first commit syncs");
        let second = scope.spawn(|| of_mib(&db, 3).commit());
        thread::sleep(Duration::from_millis(100));
        let closing = scope.spawn(|| db.clone().close());
        patiently("it hears of the next publication only", || second.is_finished());
        assert!(!first.is_finished() && !closing.is_finished());
        drop(hold);
        assert!(matches!(second.join().expect("no panic"), Err(Error::Closed)));
        first.join().expect("no panic").expect("a commit");
        closing.join().expect("no panic").expect("it closes");
    });
}

#[test]
fn many_threads_commit_much_more_than_the_limit() {
    for db in [memory(), on(&SimulatedDisk::new(4))] {
        thread::scope(|scope| {
            for writer in 0..8 {
                let db = &db;
                scope.spawn(move || {
                    let metric = db.metric(format!("m{writer}")).expect("a metric");
                    for round in 0..10 {
                        let mut txn = of_mib(db, (writer + round) % 4);
                        txn.set_durability(Durability::Buffered);
                        txn.append(&metric, at(round as i64), 1.0).expect("small");
                        txn.commit().expect("a commit");
                    }
                });
            }
        });
        let snapshot = db.snapshot();
        assert_eq!(snapshot.metrics().map(|metric| snapshot.range(&metric, ..).count()).sum::<usize>(), 80);
    }
}
