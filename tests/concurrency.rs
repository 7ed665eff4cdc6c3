//! Threads: no half row is ever seen, commits share syncs, nobody waits for a sync he did not ask for, and one handle
//! owns a directory.

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chronolith::io::{CutState, SimulatedDisk, SyncHold};
use chronolith::{Database, Durability, Error, Metric, Options, Snapshot, Timestamp};

const DIR: &str = "/db";
/// Waiting longer than this for another thread is a failure; on a sound build it never comes near.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(disk: &SimulatedDisk) -> Database {
    Options::new().workers(0).open_on(Arc::new(disk.clone()), DIR).expect("it opens")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(second)
}

/// The values over all metrics at each time in a range.
fn rows(
    snapshot: &Snapshot,
    metrics: &[Metric],
    bounds: impl RangeBounds<Timestamp> + Clone,
) -> BTreeMap<Timestamp, Vec<u64>> {
    let mut rows: BTreeMap<Timestamp, Vec<u64>> = BTreeMap::new();
    for metric in metrics {
        for point in snapshot.range(metric, bounds.clone()) {
            let point = point.expect("a read");
            rows.entry(point.at).or_default().push(point.value as u64);
        }
    }
    rows
}

/// A row has a value of each metric, all with one mark.
fn assert_whole(rows: &BTreeMap<Timestamp, Vec<u64>>, metrics: usize) {
    for (at, marks) in rows {
        assert_eq!(marks.len(), metrics, "a part of a row at {at}");
        assert!(marks.iter().all(|mark| *mark == marks[0]), "a mixed row at {at}: {marks:?}");
    }
}

/// Seconds from `CHRONOLITH_SECONDS`, 5 without it.
fn duration() -> Duration {
    let seconds = std::env::var("CHRONOLITH_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

#[test]
fn no_half_row_is_ever_seen() {
    const METRICS: usize = 100;
    const TIMESTAMPS: i64 = 8;
    const WRITERS: u64 = 2;
    /// Overwritten points stay in memory until their block is sealed, so a long run takes its time.
    const COMMITS_MAX: f64 = 100_000.0;
    let pause = duration().div_f64(COMMITS_MAX / WRITERS as f64);
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("db");
    let options = || Options::new().durability(Durability::Buffered).log_segment_bytes_max(1 << 20);
    let db = options().open(&path).expect("it opens");
    let metrics: Vec<Metric> =
        (0..METRICS).map(|index| db.metric(format!("m{index}")).expect("a metric")).collect();
    let stop = AtomicBool::new(false);
    let commits = AtomicU64::new(0);
    let reads = thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (db, metrics, stop, commits) = (&db, &metrics, &stop, &commits);
            scope.spawn(move || {
                let begin = Instant::now();
                let mut number: u64 = 0;
                while !stop.load(Ordering::Relaxed) {
                    if begin.elapsed() < pause.mul_f64(number as f64) {
                        thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                    number += 1;
                    let mark = (number * WRITERS + writer) as f64;
                    let row: Vec<(Metric, f64)> =
                        metrics.iter().map(|metric| (metric.clone(), mark)).collect();
                    let mut txn = db.begin_write();
                    // Both writers go over the same timestamps, one upwards and one downwards.
                    let step = number as i64 % TIMESTAMPS;
                    let second = if writer == 0 { step } else { TIMESTAMPS - 1 - step };
                    txn.append_row(at(second), &row).expect("staging");
                    txn.commit().expect("a commit");
                    commits.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let reader = scope.spawn(|| {
            let mut reads = 0;
            let mut version = db.snapshot().version();
            while !stop.load(Ordering::Relaxed) {
                let snapshot = db.snapshot();
                assert!(snapshot.version() >= version, "versions go back");
                version = snapshot.version();
                // One row, and now and then all, which takes long: every overwritten point is still in memory.
                let one = at(reads % TIMESTAMPS);
                let row = rows(&snapshot, &metrics, one..=one);
                assert_whole(&row, METRICS);
                if reads % 64 == 0 {
                    let all = rows(&snapshot, &metrics, ..);
                    assert_whole(&all, METRICS);
                    assert_eq!(all.get(&one), row.get(&one), "a snapshot reads the same twice");
                }
                reads += 1;
            }
            reads
        });
        let end = Instant::now() + duration();
        while Instant::now() < end && !reader.is_finished() {
            thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().expect("the reader saw whole rows only")
    });
    println!("{} commits of {METRICS} points, {reads} reads", commits.load(Ordering::Relaxed));
    assert!(reads > 0 && commits.load(Ordering::Relaxed) > 0);
    let last = rows(&db.snapshot(), &metrics, ..);
    assert_whole(&last, METRICS);
    db.close().expect("it closes");
    let db = options().open(&path).expect("it opens again");
    let metrics: Vec<Metric> =
        (0..METRICS).map(|index| db.metric(format!("m{index}")).expect("a metric")).collect();
    assert_eq!(rows(&db.snapshot(), &metrics, ..), last);
}

/// Lets one sync after the other through until all threads are done.
fn drive(hold: &SyncHold, done: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "threads wait without end");
        if !hold.let_one_through() {
            thread::yield_now();
        }
    }
}

#[test]
fn commits_of_64_threads_share_syncs() {
    const THREADS: usize = 64;
    const ROUNDS: u64 = 20;
    let disk = SimulatedDisk::new(1);
    let db = open(&disk);
    let metrics: Vec<Metric> =
        (0..THREADS).map(|index| db.metric(format!("m{index}")).expect("a metric")).collect();
    let before = disk.syncs();
    let committed = AtomicU64::new(0);
    thread::scope(|scope| {
        // Syncs take long, so that commits gather behind them.
        let hold = disk.hold_syncs();
        let threads: Vec<_> = metrics
            .iter()
            .map(|metric| {
                let (db, committed) = (&db, &committed);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        db.append(metric, at(round as i64), 1.0).expect("a commit");
                        committed.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let end = Instant::now() + PATIENCE;
        while !threads.iter().all(|thread| thread.is_finished()) {
            assert!(Instant::now() < end, "threads wait without end");
            if hold.wait_for(1, Duration::from_millis(100)) {
                // Time for the others to hand in their records; less would only mean more syncs.
                thread::sleep(Duration::from_millis(20));
                hold.let_one_through();
            }
        }
    });
    let syncs = disk.syncs() - before;
    let commits = committed.load(Ordering::Relaxed);
    println!("{commits} commits, {syncs} syncs");
    assert_eq!(commits, THREADS as u64 * ROUNDS);
    assert!(syncs * 64 <= commits * 8, "{syncs} syncs for {commits} commits");
    let found = disk.after_power_cut(CutState::None, 0);
    drop(db);
    let snapshot = open(&found).snapshot();
    let points: usize = snapshot.metrics().map(|metric| snapshot.range(&metric, ..).count()).sum();
    assert_eq!(points as u64, commits);
}

#[test]
fn commits_are_applied_while_a_sync_is_held_and_need_at_most_one_more() {
    const OTHERS: usize = 16;
    let disk = SimulatedDisk::new(2);
    let db = open(&disk);
    let first = db.metric("first").expect("a metric");
    let others: Vec<Metric> =
        (0..OTHERS).map(|index| db.metric(format!("m{index}")).expect("a metric")).collect();
    let before = db.snapshot();
    let syncs = disk.syncs();
    let begun = AtomicU64::new(0);
    thread::scope(|scope| {
        let hold = disk.hold_syncs();
        let synced = scope.spawn(|| db.append(&first, at(1), 1.0));
        assert!(hold.wait_for(1, PATIENCE), "the first commit syncs");
        let threads: Vec<_> = others
            .iter()
            .enumerate()
            .map(|(index, metric)| {
                let (db, begun) = (&db, &begun);
                scope.spawn(move || {
                    let mut txn = db.begin_write();
                    let durability = if index % 2 == 0 { Durability::Buffered } else { Durability::Sync };
                    txn.set_durability(durability);
                    txn.append(metric, at(1), 1.0)?;
                    begun.fetch_add(1, Ordering::Relaxed);
                    txn.commit()
                })
            })
            .collect();
        let end = Instant::now() + PATIENCE;
        while begun.load(Ordering::Relaxed) < OTHERS as u64 {
            assert!(Instant::now() < end, "staging waits for a sync");
            thread::yield_now();
        }
        // Long enough for all to get into the queue; were it not, the count of syncs below would be larger.
        thread::sleep(Duration::from_millis(200));
        assert_eq!(hold.waiting(), 1, "only one sync at a time");
        assert_eq!(
            db.snapshot().version(),
            before.version(),
            "nothing is visible before the commits before it"
        );
        assert!(!synced.is_finished() && threads.iter().all(|thread| !thread.is_finished()));
        assert!(hold.let_one_through());
        drive(&hold, || synced.is_finished() && threads.iter().all(|thread| thread.is_finished()));
        let first = synced.join().expect("no panic").expect("a commit");
        for thread in threads {
            let version = thread.join().expect("no panic").expect("a commit");
            assert!(version > first, "versions are in the order of the log");
        }
    });
    assert!(disk.syncs() - syncs <= 2, "{} syncs", disk.syncs() - syncs);
    let snapshot = db.snapshot();
    assert_eq!(snapshot.version().get() - before.version().get(), OTHERS as u64 + 1);
    assert!(others.iter().all(|metric| snapshot.range(metric, ..).count() == 1));
    assert_eq!(before.range(&first, ..).count(), 0, "the old snapshot reads as before");
}

#[test]
fn readers_and_staging_never_wait_for_a_sync() {
    let disk = SimulatedDisk::new(3);
    let db = open(&disk);
    let metric = db.metric("m").expect("a metric");
    db.append(&metric, at(1), 1.0).expect("a commit");
    thread::scope(|scope| {
        let hold = disk.hold_syncs();
        let writer = scope.spawn(|| db.append(&metric, at(2), 2.0));
        assert!(hold.wait_for(1, PATIENCE), "the commit syncs");
        // In this thread: it would hang if any of it waited.
        let snapshot = db.snapshot();
        assert_eq!(snapshot.range(&metric, ..).count(), 1);
        let mut txn = db.begin_write();
        txn.append(&metric, at(3), 3.0).expect("staging");
        assert_eq!(txn.range(&metric, ..).count(), 2);
        txn.rollback();
        assert!(!writer.is_finished());
        hold.let_one_through();
        writer.join().expect("no panic").expect("a commit");
    });
    assert_eq!(db.snapshot().range(&metric, ..).count(), 2);
}

#[test]
fn a_second_open_is_refused_at_once() {
    let disk = SimulatedDisk::new(4);
    let db = open(&disk);
    let second = Options::new().workers(0).open_on(Arc::new(disk.clone()), DIR);
    assert!(matches!(second, Err(Error::Locked { .. })), "{second:?}");
    let clone = db.clone();
    drop(db);
    let second = Options::new().workers(0).open_on(Arc::new(disk.clone()), DIR);
    assert!(matches!(second, Err(Error::Locked { .. })), "a clone is a handle too");
    drop(clone);
    open(&disk);
}

#[test]
fn of_racing_opens_one_wins() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("db");
    for _ in 0..20 {
        let opened = AtomicU64::new(0);
        let barrier = std::sync::Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let db = Options::new().log_segment_bytes_min(16 * 1024).open(&path);
                    match &db {
                        Ok(_) => drop(opened.fetch_add(1, Ordering::Relaxed)),
                        Err(Error::Locked { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                    // Nobody lets go before all have tried.
                    barrier.wait();
                });
            }
        });
        assert_eq!(opened.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn another_process_is_refused_while_it_is_open_and_let_in_after() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("db");
    let db = Options::new().open(&path).expect("it opens");
    assert_eq!(open_elsewhere(&path), "locked");
    let snapshot = db.snapshot();
    assert_eq!(db.close().expect("it closes").live_snapshots, 1);
    assert_eq!(open_elsewhere(&path), "locked", "a snapshot keeps the lock");
    drop(snapshot);
    assert_eq!(open_elsewhere(&path), "open");
}

/// What another process gets: this test program, asked to run [`in_another_process`] alone.
fn open_elsewhere(path: &std::path::Path) -> String {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program);
    child.args(["--exact", "in_another_process", "--nocapture"]).env("CHRONOLITH_OPEN", path);
    let output = child.stdin(Stdio::null()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let result = text.lines().find_map(|line| line.split("result: ").nth(1));
    result.unwrap_or_else(|| panic!("{text}")).to_owned()
}

/// The other process of [`open_elsewhere`]; nothing without a directory to open.
#[test]
fn in_another_process() {
    let Some(path) = std::env::var_os("CHRONOLITH_OPEN") else { return };
    match Options::new().open(path) {
        Ok(_) => println!("result: open"),
        Err(Error::Locked { .. }) => println!("result: locked"),
        Err(other) => println!("result: {other}"),
    }
}

#[test]
fn snapshots_outlive_the_handle_and_keep_the_lock() {
    let disk = SimulatedDisk::new(5);
    let db = open(&disk);
    let metric = db.metric("m").expect("a metric");
    db.append(&metric, at(1), 1.0).expect("a commit");
    let snapshot = db.snapshot();
    let clone = snapshot.clone();
    db.append(&metric, at(2), 2.0).expect("a commit");
    let report = db.close().expect("it closes");
    assert!(report.live_snapshots >= 1, "{report:?}");
    drop(snapshot);
    let second = Options::new().workers(0).open_on(Arc::new(disk.clone()), DIR);
    assert!(matches!(second, Err(Error::Locked { .. })), "{second:?}");
    assert_eq!(clone.range(&metric, ..).count(), 1, "it reads as ever");
    drop(clone);
    let db = open(&disk);
    let metric = db.metric("m").expect("a metric");
    assert_eq!(db.snapshot().range(&metric, ..).count(), 2);
    assert_eq!(db.close().expect("it closes").live_snapshots, 0);
}
