//! The limit of memory: sealing makes room, commits wait for it, and nothing is lost.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chronolith::io::{Mapping, MemoryDisk, SimulatedDisk, Vfs, VfsFile, VfsLock};
use chronolith::{Database, Durability, Error, Metric, Options, Timestamp, Trouble};

const LIMIT: u64 = 4 << 20;
const BATCH: usize = 10_000;

fn options() -> Options {
    Options::new().memory_max(LIMIT).durability(Durability::Buffered)
}

fn at(index: usize) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + 15 * index as i64)
}

/// Values that do not compress.
fn value(index: usize) -> f64 {
    f64::from_bits(0x3ff0_0000_0000_0000 | (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12)
}

/// Commits the points of these indices.
fn commit(db: &Database, metric: &Metric, indices: &[usize]) -> Result<(), Error> {
    let times: Vec<Timestamp> = indices.iter().map(|index| at(*index)).collect();
    let values: Vec<f64> = indices.iter().map(|index| value(*index)).collect();
    let mut txn = db.begin_write();
    txn.append_columns(metric, &times, &values)?;
    txn.commit().map(drop)
}

fn assert_all(db: &Database, metric: &Metric, points: usize) {
    let snapshot = db.snapshot();
    let mut next = 0;
    for block in snapshot.blocks(metric, ..) {
        let block = block.expect("a sound volume");
        for (time, found) in block.timestamps().iter().zip(block.values()) {
            assert_eq!((*time, found.to_bits()), (at(next).as_nanos(), value(next).to_bits()));
            next += 1;
        }
    }
    assert_eq!(next, points);
}

/// Tells the sampling thread that all is done, also when a test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Ingests so many points in an order, and returns the most memory that was seen, also while blocks are installed: what `health` says of
/// counted bytes takes no lock that an install or a commit holds.
fn ingest(order: &[usize]) -> u64 {
    let db = options().open_on(Arc::new(MemoryDisk::default()), "/db").expect("it opens");
    let metric = db.metric("m").expect("valid");
    let done = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::SeqCst) {
                for trouble in db.health().troubles() {
                    if let Trouble::MemoryFull { bytes, .. } = trouble {
                        most = most.max(*bytes);
                    }
                }
                std::thread::sleep(Duration::from_micros(100));
            }
            most
        });
        let end = End(&done);
        let mut most = 0;
        for batch in order.chunks(BATCH) {
            commit(&db, &metric, batch).expect("room is made");
            most = most.max(db.stats().memory_bytes);
        }
        drop(end);
        most.max(sampler.join().expect("no panic"))
    });
    assert_all(&db, &metric, order.len());
    assert!(db.stats().memory_bytes <= LIMIT);
    most
}

#[test]
fn many_times_the_limit_in_order_goes_through_it() {
    let order: Vec<usize> = (0..2_000_000).collect();
    // One batch may be on its way.
    let most = ingest(&order);
    assert!(most <= LIMIT + LIMIT / 10 + 24 * BATCH as u64, "{most} bytes");
}

#[test]
fn many_times_the_limit_in_random_order_goes_through_it() {
    let mut order: Vec<usize> = (0..400_000).collect();
    let mut state = 1u64;
    for index in (1..order.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(index, (state >> 33) as usize % (index + 1));
    }
    let most = ingest(&order);
    assert!(most <= LIMIT + LIMIT / 10 + 24 * BATCH as u64, "{most} bytes");
}

#[test]
fn without_a_worker_the_limit_is_an_error_and_sealing_makes_room() {
    let db = options().workers(0).open_on(Arc::new(MemoryDisk::default()), "/db").expect("it opens");
    let metric = db.metric("m").expect("valid");
    let mut done = 0;
    let refused = loop {
        let indices: Vec<usize> = (done..done + BATCH).collect();
        match commit(&db, &metric, &indices) {
            Ok(()) => done += BATCH,
            Err(error) => break error,
        }
        assert!(done < 10_000_000, "the limit is never reached");
    };
    assert!(matches!(refused, Error::MemoryLimit { max: LIMIT, oldest_snapshot: None, .. }), "{refused:?}");
    assert!(db.seal(..).expect("it seals").blocks > 0);
    let indices: Vec<usize> = (done..done + BATCH).collect();
    commit(&db, &metric, &indices).expect("there is room");
    assert_all(&db, &metric, done + BATCH);
}

#[test]
fn an_old_snapshot_that_keeps_memory_is_named() {
    let db = options().workers(0).open_on(Arc::new(MemoryDisk::default()), "/db").expect("it opens");
    let metric = db.metric("m").expect("valid");
    let mut done = 0;
    let mut snapshot = db.snapshot();
    while commit(&db, &metric, &(done..done + BATCH).collect::<Vec<_>>()).is_ok() {
        done += BATCH;
        snapshot = db.snapshot();
    }
    db.seal(..).expect("it seals");
    let refused = commit(&db, &metric, &[done]).expect_err("the snapshot keeps what was sealed");
    assert!(matches!(refused, Error::MemoryLimit { oldest_snapshot: Some(_), .. }), "{refused:?}");
    assert!(refused.to_string().contains("snapshot"), "{refused}");
    drop(snapshot);
    commit(&db, &metric, &[done]).expect("nobody keeps it");
    assert_all(&db, &metric, done + 1);
}

/// A disk whose volumes cannot be made for a while.
#[derive(Debug, Default)]
struct Disk {
    disk: MemoryDisk,
    /// Making a file of a volume fails.
    fails: AtomicBool,
    /// Making a file of a volume panics.
    panics: AtomicBool,
}

impl Vfs for Disk {
    fn create(&self, path: &Path) -> Result<Box<dyn VfsFile>, Error> {
        if path.starts_with("/db/data") {
            assert!(!self.panics.load(Ordering::SeqCst), "planted");
            if self.fails.load(Ordering::SeqCst) {
                return Err(Error::io("create", path, ErrorKind::PermissionDenied.into()));
            }
        }
        self.disk.create(path)
    }

    fn create_dir_all(&self, path: &Path) -> Result<(), Error> {
        self.disk.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> Result<Option<Vec<OsString>>, Error> {
        self.disk.read_dir(path)
    }

    fn open(&self, path: &Path, write: bool) -> Result<Option<Box<dyn VfsFile>>, Error> {
        self.disk.open(path, write)
    }

    fn map(&self, path: &Path) -> Result<Mapping, Error> {
        self.disk.map(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<(), Error> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<(), Error> {
        self.disk.sync_dir(path)
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn VfsLock>>, Error> {
        self.disk.try_lock(path)
    }
}

/// Commits batches from `done` on until one is refused; returns how many points there are then, and how often sealing had failed before it.
fn fill(db: &Database, metric: &Metric, mut done: usize) -> (usize, u32, Error) {
    loop {
        let failures = db.stats().upkeep_failures;
        let indices: Vec<usize> = (done..done + BATCH).collect();
        if let Err(error) = commit(db, metric, &indices) {
            return (done, failures, error);
        }
        done += BATCH;
        assert!(done < 10_000_000, "the limit is never reached");
    }
}

/// Waits for what another thread does; a minute of it is a hang.
fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("a hang");
}

#[test]
fn waiting_ends_after_the_time_that_was_set() {
    let disk = Arc::new(Disk::default());
    disk.fails.store(true, Ordering::SeqCst);
    let options = options().memory_wait(Duration::from_secs(4));
    let db = options.open_on(disk.clone(), "/db").expect("it opens");
    let metric = db.metric("m").expect("valid");
    let (done, before, refused) = fill(&db, &metric, 0);
    assert!(matches!(refused, Error::MemoryLimit { max: LIMIT, oldest_snapshot: None, .. }), "{refused:?}");
    // It is tried each second while somebody waits, however long the background would leave it alone.
    let after = db.stats().upkeep_failures;
    assert!(after > before, "sealing failed {before} times before the commit, and {after} times after it");
    disk.fails.store(false, Ordering::SeqCst);
    commit(&db, &metric, &(done..done + BATCH).collect::<Vec<_>>()).expect("room is made while it waits");
    assert_all(&db, &metric, done + BATCH);
}

#[test]
fn in_memory_nobody_waits() {
    let db = options().memory_wait(Duration::MAX).open_in_memory().expect("it opens");
    let metric = db.metric("m").expect("valid");
    let (_, _, refused) = fill(&db, &metric, 0);
    assert!(matches!(refused, Error::MemoryLimit { .. }), "{refused:?}");
}

#[test]
fn what_adds_no_points_is_taken_beyond_the_limit() {
    let db = options().open_in_memory().expect("it opens");
    let (metric, other) = (db.metric("m").expect("valid"), db.metric("n").expect("valid"));
    db.append(&other, at(0), 1.0).expect("room");
    fill(&db, &metric, 0);
    let mut txn = db.begin_write();
    txn.put_meta("key", "value").expect("staged");
    txn.delete(&metric, at(0)..at(1)).expect("staged");
    txn.drop_metric(&other).expect("staged");
    txn.commit().expect("it adds no points");
    db.namespace("another").expect("it adds no points");
    let refused = commit(&db, &metric, &[0]);
    assert!(matches!(refused, Err(Error::MemoryLimit { .. })), "{refused:?}");
    let mut txn = db.begin_write();
    txn.drop_metric(&metric).expect("staged");
    txn.commit().expect("it adds no points");
    commit(&db, &db.metric("m").expect("valid"), &[0]).expect("there is room");
}

#[test]
fn who_waits_when_the_database_is_closed_hears_of_it() {
    let disk = Arc::new(Disk::default());
    disk.fails.store(true, Ordering::SeqCst);
    let options = options().memory_wait(Duration::from_secs(86_400));
    let db = options.open_on(disk, "/db").expect("it opens");
    let metric = db.metric("m").expect("valid");
    let waiter = {
        let (db, metric) = (db.clone(), metric.clone());
        std::thread::spawn(move || fill(&db, &metric, 0).2)
    };
    until(|| db.stats().memory_bytes > LIMIT);
    let db2 = db.clone();
    db.close().expect("the log is fine");
    assert!(matches!(waiter.join().expect("no panic"), Error::Closed));
    assert!(matches!(commit(&db2, &metric, &[0]), Err(Error::Closed)));
    assert!(matches!(db2.seal(..), Err(Error::Closed)));
    assert!(matches!(db2.refresh(..), Err(Error::Closed)));
}

#[test]
fn beyond_the_limit_a_stopped_log_is_told() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let db = options().workers(0).open_on(disk.clone(), "/db").expect("it opens");
    let metric = db.metric("m").expect("valid");
    let (_, _, refused) = fill(&db, &metric, 0);
    assert!(matches!(refused, Error::MemoryLimit { .. }), "{refused:?}");
    disk.cut_power_at(0);
    assert!(db.sync().is_err());
    let refused = commit(&db, &metric, &[0]);
    assert!(matches!(refused, Err(Error::Stopped { .. })), "{refused:?}");
}

#[test]
fn memory_that_a_snapshot_keeps_is_not_sealed_again_and_again() {
    let db = options().workers(0).open_on(Arc::new(MemoryDisk::default()), "/db").expect("it opens");
    let metric = db.metric("m").expect("valid");
    let mut done = 0;
    while db.stats().memory_bytes <= LIMIT / 16 * 13 {
        commit(&db, &metric, &(done..done + BATCH).collect::<Vec<_>>()).expect("room");
        done += BATCH;
    }
    let snapshot = db.snapshot();
    // Before all points: no block has been left by this clock, so that only the want of room has blocks sealed.
    let mut seconds = 0;
    let mut written = Vec::new();
    for _ in 0..100 {
        commit(&db, &metric, &[done]).expect("room");
        done += 1;
        seconds += 1;
        db.maintain(Timestamp::from_secs(seconds)).expect("it seals");
        written.push(db.stats().volumes_written);
    }
    assert!(db.stats().memory_bytes > LIMIT / 4 * 3, "the snapshot keeps it");
    assert!(written[0] > 0, "it was worth trying");
    assert_eq!(written[10..].iter().max(), written[10..].iter().min(), "{written:?}");
    // What would free something is sealed all the same.
    let before = done;
    while done < before + 6 * BATCH {
        commit(&db, &metric, &(done..done + BATCH).collect::<Vec<_>>()).expect("room");
        done += BATCH;
    }
    db.maintain(Timestamp::from_secs(seconds + 1)).expect("it seals");
    assert!(db.stats().volumes_written > written[99]);
    drop(snapshot);
    assert!(db.stats().memory_bytes < LIMIT / 4);
    assert_all(&db, &metric, done);
}

#[test]
fn sealing_what_snapshots_hold_does_not_take_memory_without_end() {
    let db = options().workers(0).open_on(Arc::new(MemoryDisk::default()), "/db").expect("it opens");
    let metrics: Vec<_> = (0..1_500).map(|name| db.metric(format!("m{name}")).expect("valid")).collect();
    let (mut snapshots, mut most, mut refused) = (Vec::new(), 0, 0);
    // In order, an hour further with each row, so that there is always a block that the clock has left.
    for row in 0..2_000u64 {
        let at = Timestamp::from_secs(1_700_000_000) + Duration::from_secs(row * 3_600);
        let mut txn = db.begin_write();
        for metric in &metrics {
            txn.append(metric, at, row as f64).expect("staged");
        }
        match txn.commit() {
            Ok(_) => {}
            Err(Error::MemoryLimit { oldest_snapshot, .. }) => {
                assert!(oldest_snapshot.is_some());
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
        if row % 5 == 0 && snapshots.len() < 30 {
            snapshots.push(db.snapshot());
        }
        db.maintain(at).expect("it seals");
        most = most.max(db.stats().memory_bytes);
        if refused == 20 {
            break;
        }
    }
    assert!(refused == 20, "it is refused as long as snapshots hold it: {refused}");
    assert!(most <= LIMIT / 10 * 11 + (LIMIT >> 4), "{most} bytes of {LIMIT}");
    snapshots.clear();
    db.maintain(Timestamp::from_secs(1_800_000_000)).expect("it seals");
    assert!(db.stats().memory_bytes < LIMIT, "{}", db.stats().memory_bytes);
}

#[test]
fn what_is_around_a_stream_counts() {
    let db = options().open_in_memory().expect("it opens");
    let metric = db.metric("m").expect("valid");
    // A point in each block: streams of a few bytes.
    let points = 2_000;
    for block in 0..points {
        db.append(&metric, Timestamp::from_secs(7_200 * block), 1.0).expect("room");
    }
    let (stats, blocks) = (db.stats(), db.blocks_in_memory());
    assert!(stats.memory_bytes > 200 * points as u64, "{stats:?}");
    let surveyed: u64 = blocks.iter().map(|block| block.bytes).sum();
    assert!(surveyed.abs_diff(stats.memory_bytes) < 1_024, "sealing would free {surveyed}: {stats:?}");
}

#[test]
fn tombstones_count() {
    let db = options().open_in_memory().expect("it opens");
    let metric = db.metric("m").expect("valid");
    commit(&db, &metric, &(0..BATCH).collect::<Vec<_>>()).expect("room");
    let before = db.stats().memory_bytes;
    for index in (0..BATCH).step_by(4) {
        let mut txn = db.begin_write();
        txn.delete(&metric, at(index)..at(index + 1)).expect("staged");
        txn.commit().expect("commits");
    }
    let stats = db.stats();
    assert_eq!(stats.tombstones, BATCH as u64 / 4);
    assert!(stats.memory_bytes > before + 32 * stats.tombstones, "{before}, then {stats:?}");
}

#[test]
fn annotations_of_late_points_count() {
    let db = options().open_in_memory().expect("it opens");
    let metric = db.metric("m").expect("valid");
    db.append(&metric, at(1_000), 1.0).expect("room");
    let annotation = vec![7; 64 << 10];
    let refused = (0..=LIMIT as usize / annotation.len() + 1).find_map(|index| {
        let mut txn = db.begin_write();
        txn.append_annotated(&metric, at(index), 1.0, &annotation).expect("staged");
        txn.commit().err()
    });
    assert!(matches!(refused, Some(Error::MemoryLimit { .. })), "{refused:?}");
}

#[test]
fn deletes_over_sealed_blocks_are_refreshed_by_themselves() {
    let options = options().workers(0).refresh_bytes(100);
    let db = options.open_on(Arc::new(MemoryDisk::default()), "/db").expect("it opens");
    let metric = db.metric("m").expect("valid");
    commit(&db, &metric, &(0..100).collect::<Vec<_>>()).expect("room");
    assert!(db.seal(..).expect("it seals").blocks > 0);
    let mut txn = db.begin_write();
    txn.delete(&metric, at(10)..at(20)).expect("staged");
    txn.commit().expect("commits");
    let [block] = &db.blocks_in_memory()[..] else { panic!("one block has a tombstone") };
    assert!(block.is_sealed && block.points == 0 && block.bytes > 100, "{block:?}");
    db.maintain(Timestamp::EPOCH).expect("it refreshes");
    assert!(db.blocks_in_memory().is_empty());
    assert_eq!(db.snapshot().range(&metric, ..).count(), 90);
}

#[test]
fn sealing_goes_on_after_a_panic_and_tells_of_it() {
    let disk = Arc::new(Disk::default());
    disk.panics.store(true, Ordering::SeqCst);
    let db = options().open_on(disk.clone(), "/db").expect("it opens");
    let metric = db.metric("m").expect("valid");
    let mut done = 0;
    while db.stats().memory_bytes <= LIMIT / 8 * 7 {
        commit(&db, &metric, &(done..done + BATCH).collect::<Vec<_>>()).expect("room");
        done += BATCH;
    }
    until(|| db.stats().upkeep_failures > 0);
    let told = db.stats().upkeep_error.expect("it failed");
    assert!(told.contains("panic") && told.contains("planted"), "{told}");
    disk.panics.store(false, Ordering::SeqCst);
    until(|| db.stats().volumes_written > 0);
    until(|| db.stats().upkeep_failures == 0);
    assert_all(&db, &metric, done);
}
