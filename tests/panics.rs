//! Panics inside a commit, planted where a slice is applied and where a checked transaction is validated: the database stops, nobody waits
//! for ever, what was not applied is neither acknowledged nor visible, and reads go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use chronolith::io::MemoryDisk;
use chronolith::planted::{Bug, PANIC_KEY, PANIC_VALUE};
use chronolith::{Database, Error, Metric, Options, Result, Timestamp, Version};

const DIR: &str = "/db";

fn secs(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn count(db: &Database, metric: &Metric) -> usize {
    db.snapshot().range(metric, ..).inspect(|point| assert!(point.is_ok())).count()
}

/// Runs `work` on a thread and fails if it has not ended after a minute: a hang, not a slow machine.
fn ends<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::thread::Result<T> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        let _ = sender.send(result);
    });
    receiver.recv_timeout(Duration::from_secs(60)).expect("a hang")
}

/// A database of two lanes with a metric in each, which has one point: in memory, and on a disk.
fn databases(bug: Bug) -> [(Database, [Metric; 2], Option<Arc<MemoryDisk>>); 2] {
    [None, Some(Arc::new(MemoryDisk::new()))].map(|disk| {
        let options = Options::new().workers(0).lanes(2).plant(bug);
        let db = match &disk {
            None => options.open_in_memory(),
            Some(disk) => options.open_on(disk.clone(), DIR),
        };
        let db = db.expect("it opens");
        let metrics = ["a", "b"].map(|name| db.metric(name).expect("a name"));
        for metric in &metrics {
            db.append(metric, secs(1), 1.0).expect("a commit");
        }
        (db, metrics, disk)
    })
}

/// Everything that writes or waits says that the database stopped, and what was visible stays it.
fn is_stopped(db: &Database, metrics: &[Metric; 2], version: Version) {
    let calls: [fn(&Database, &Metric) -> Result<()>; 4] = [
        |db, metric| db.append(metric, secs(3), 3.0).map(drop),
        |db, metric| {
            let mut txn = db.begin_checked();
            txn.latest(metric)?;
            txn.append(metric, secs(3), 3.0)?;
            txn.commit().map(drop)
        },
        |db, metric| db.transact(|txn| txn.append(metric, secs(3), 3.0)).map(drop),
        |db, _| {
            let mut txn = db.begin_write();
            txn.put_meta("key", "value")?;
            txn.commit().map(drop)
        },
    ];
    for (number, call) in calls.into_iter().enumerate() {
        for metric in metrics {
            let (db, metric) = (db.clone(), metric.clone());
            let result = ends(move || call(&db, &metric)).expect("no second panic");
            assert!(matches!(result, Err(Error::Stopped { .. })), "call {number}: {result:?}");
        }
    }
    assert!(db.stats().stopped);
    assert_eq!(metrics.each_ref().map(|metric| count(db, metric)), [1, 1], "reads go on");
    assert_eq!(db.snapshot().version(), version, "nothing is published any more");
    assert_eq!(db.snapshot().meta("key"), None);
}

/// Closing ends, and says whether a commit was given up that the log should have. What is found without the bug: all that was
/// acknowledged, and the commit that panicked entirely or not at all.
fn reopens(db: Database, disk: Option<Arc<MemoryDisk>>, is_given_up: bool) {
    let closed = ends(move || db.close().map(drop)).expect("no second panic");
    let Some(disk) = disk else { return };
    match is_given_up {
        true => assert!(matches!(closed, Err(Error::Stopped { .. })), "{closed:?}"),
        false => closed.expect("all that has a number is durable"),
    }
    let db = Options::new().workers(0).open_on(disk, DIR).expect("its lock is free, its log is sound");
    let counts = ["a", "b"].map(|name| count(&db, &db.metric(name).expect("a name")));
    assert!(counts == [1, 1] || counts == [2, 2], "half a commit: {counts:?}");
    db.append(&db.metric("a").expect("a name"), secs(4), 4.0).expect("a commit");
}

#[test]
fn a_panic_while_a_slice_is_applied_stops_the_database() {
    for panicking in 0..2 {
        for (db, metrics, disk) in databases(Bug::PanicInSlice) {
            let version = db.snapshot().version();
            let (db2, metrics2) = (db.clone(), metrics.clone());
            let commit = move || {
                let mut txn = db2.begin_write();
                for (place, metric) in metrics2.iter().enumerate() {
                    txn.append(metric, secs(2), if place == panicking { PANIC_VALUE } else { 2.0 })?;
                }
                txn.commit()
            };
            assert!(ends(commit).is_err(), "the panic comes through");
            is_stopped(&db, &metrics, version);
            reopens(db, disk, true);
        }
    }
}

#[test]
fn a_panic_in_a_validation_stops_the_database() {
    for (db, metrics, disk) in databases(Bug::PanicInValidation) {
        let version = db.snapshot().version();
        let (db2, metrics2) = (db.clone(), metrics.clone());
        let commit = move || {
            let mut txn = db2.begin_checked();
            assert_eq!(txn.meta(PANIC_KEY), None);
            for metric in &metrics2 {
                txn.latest(metric)?;
                txn.append(metric, secs(2), 2.0)?;
            }
            txn.commit()
        };
        assert!(ends(commit).is_err(), "the panic comes through");
        is_stopped(&db, &metrics, version);
        reopens(db, disk, false);
    }
}

#[test]
fn a_transaction_that_panics_before_its_commit_stops_nobody() {
    for (db, metrics, _) in databases(Bug::PanicInSlice) {
        let (db2, metrics2) = (db.clone(), metrics.clone());
        let work = move || {
            let mut txn = db2.begin_checked();
            txn.append(&metrics2[0], secs(2), PANIC_VALUE).expect("staging");
            panic!("the caller's own");
        };
        assert!(ends(work).is_err());
        assert!(!db.stats().stopped);
        db.append(&metrics[0], secs(2), 2.0).expect("a commit");
        assert_eq!(metrics.each_ref().map(|metric| count(&db, metric)), [2, 1]);
    }
}
