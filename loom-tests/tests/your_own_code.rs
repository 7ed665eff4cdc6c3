//! How a program over chronolith checks its own threads: through the public API, with nothing of the engine's inside.
//!
//! The program here counts in the database. Each model says what must hold however its threads interleave; the twins show that a model
//! would notice if the engine, or the program, did it wrong. `README.md` in this folder explains it line by line.

use std::sync::Arc;

use chronolith::io::MemoryDisk;
use chronolith::planted::Bug;
use chronolith::{Database, Metric, Options, Result, Timestamp, Version, WriteTransaction};
use chronolith_loom_tests::{check, invariant};
use loom::thread;

const AT: Timestamp = Timestamp::EPOCH;

/// The program: adds one to a counter.
fn increment(db: &Database, counter: &Metric) -> Result<()> {
    db.transact(|txn| add_one(txn, counter)).map(drop)
}

fn add_one(txn: &mut WriteTransaction, counter: &Metric) -> Result<()> {
    let count = txn.latest(counter)?.map_or(0.0, |point| point.value);
    txn.append(counter, AT, count + 1.0)
}

/// The mistake: what is read is not checked.
fn increment_blindly(db: &Database, counter: &Metric) -> Result<Version> {
    let mut txn = db.begin_write();
    add_one(&mut txn, counter)?;
    txn.commit()
}

fn count(db: &Database, counter: &Metric) -> f64 {
    db.snapshot().latest(counter).expect("reads").map_or(0.0, |point| point.value)
}

/// A small database: one lock for all metrics, as every further one makes more interleavings.
fn options(bugs: &[Bug]) -> Options {
    bugs.iter().fold(Options::new().lanes(1), |options, bug| options.plant(*bug))
}

/// Two threads, an increment each: both count.
fn two_increments(db: Database, increment: fn(&Database, &Metric)) {
    let counter = db.metric("counter").expect("valid");
    let other = {
        let (db, counter) = (db.clone(), counter.clone());
        thread::spawn(move || increment(&db, &counter))
    };
    increment(&db, &counter);
    other.join().expect("no panic");
    assert_eq!(count(&db, &counter), 2.0, "both count");
}

fn increments_in_memory(bugs: &[Bug]) {
    let db = options(bugs).open_in_memory().expect("opens");
    two_increments(db, |db, counter| increment(db, counter).expect("two attempts are enough"));
}
invariant!(two_increments_in_memory_both_count: increments_in_memory;
    bug_compare_outside_log_in_memory: CompareOutsideLog, "both count";);

/// The same with a log, on a disk in memory, so that commits wait for syncs; and both are there when it is opened again.
fn increments_on_a_disk(bugs: &[Bug]) {
    let disk = Arc::new(MemoryDisk::new());
    let open = || {
        let options = options(bugs).log_segment_bytes_min(16 << 10).log_segment_bytes_max(16 << 10);
        options.open_on(disk.clone(), "/db").expect("opens")
    };
    two_increments(open(), |db, counter| increment(db, counter).expect("two attempts are enough"));
    let db = open();
    let counter = db.snapshot().metric("counter").expect("it was made");
    assert_eq!(count(&db, &counter), 2.0, "both are found again");
}
invariant!(two_increments_on_a_disk_both_count: increments_on_a_disk;
    bug_compare_outside_log_on_a_disk: CompareOutsideLog, "both count";);

/// The twin of the program's own mistake.
#[test]
#[should_panic(expected = "both count")]
fn two_blind_increments_may_count_once() {
    check("two_blind_increments_may_count_once", || {
        let db = options(&[]).open_in_memory().expect("opens");
        two_increments(db, |db, counter| {
            increment_blindly(db, counter).expect("nothing fails");
        });
    });
}
