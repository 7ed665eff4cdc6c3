//! What programs do wrong, and what happens to them: handles of other databases, panics in the middle, damaged names.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use chronolith::io::{Mapping, MemoryDisk, Vfs, VfsFile, VfsLock};
use chronolith::{Database, Durability, Error, Metric, Options, Result, Snapshot, Timestamp};

fn secs(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn count(snapshot: &Snapshot, metric: &Metric) -> usize {
    snapshot.range(metric, ..).inspect(|point| assert!(point.is_ok())).count()
}

#[test]
fn handles_of_another_database_are_refused() {
    let (a, b) = (Database::in_memory().expect("opens"), Database::in_memory().expect("opens"));
    let foreign = a.namespace("hosts").expect("made");
    assert!(matches!(b.metric_in(&foreign, "m"), Err(Error::ForeignNamespace(_))));
    assert_eq!(b.snapshot().metric_in(&foreign, "m"), None);
    let metric = a.metric("m").expect("valid");
    assert!(matches!(b.append(&metric, secs(1), 1.0), Err(Error::ForeignMetric(_))));
    let read: Vec<_> = b.snapshot().range(&metric, ..).collect();
    assert!(matches!(read.as_slice(), [Err(Error::ForeignMetric(_))]));
}

#[test]
fn a_namespace_has_the_options_that_the_database_keeps() {
    let disk = Arc::new(MemoryDisk::new());
    let day = Duration::from_secs(86_400);
    let db = Options::new().block_size(day).open_on(disk.clone(), "/db").expect("opens");
    db.close().expect("closes");
    let db = Options::new().open_on(disk, "/db").expect("opens");
    assert_eq!(db.default_namespace().block_size(), day);
    assert_eq!(db.namespace("n").expect("made").block_size(), day);
}

#[test]
fn a_database_without_a_log_stays_one() {
    let disk = Arc::new(MemoryDisk::new());
    let open = |options: Options| options.open_on(disk.clone(), "/db").expect("opens");
    let db = open(Options::new().log(false));
    db.append(&db.metric("m").expect("valid"), secs(1), 1.0).expect("commits");
    db.close().expect("closes");
    let db = open(Options::new());
    assert_eq!(db.snapshot().metric_count(), 0);
    db.append(&db.metric("m").expect("valid"), secs(1), 1.0).expect("commits");
    assert_eq!(db.stats().log_bytes, 0, "it keeps what it was made with");
}

#[test]
fn a_delete_covers_what_was_committed_before_it_in_the_logs_order() {
    let db = Database::in_memory().expect("opens");
    let metric = db.metric("m").expect("valid");
    let mut txn = db.begin_write();
    txn.delete(&metric, ..).expect("staged before the metric exists");
    db.append(&metric, secs(1), 1.0).expect("commits");
    txn.commit().expect("commits");
    assert_eq!(count(&db.snapshot(), &metric), 0);

    let other = db.metric("other").expect("valid");
    let mut txn = db.begin_write();
    txn.drop_metric(&other).expect("staged before the metric exists");
    db.append(&other, secs(1), 1.0).expect("commits");
    txn.commit().expect("commits");
    assert!(!db.snapshot().contains(&other));
    assert!(matches!(db.append(&other, secs(2), 1.0), Err(Error::MetricDropped(_))));
}

#[test]
fn dropping_what_nobody_made_leaves_its_handles_good() {
    let db = Database::in_memory().expect("opens");
    let metric = db.metric("m").expect("valid");
    let mut txn = db.begin_write();
    txn.drop_metric(&metric).expect("staged");
    txn.commit().expect("commits");
    db.append(&metric, secs(1), 1.0).expect("commits");
    assert_eq!(count(&db.snapshot(), &metric), 1);
}

#[test]
fn creating_what_exists_changes_nothing() {
    let db = Database::in_memory().expect("opens");
    let metric = db.metric_with_tags("m", &[("k", "v")]).expect("valid");
    let version = db.append(&metric, secs(1), 1.0).expect("commits");
    for _ in 0..3 {
        let mut txn = db.begin_write();
        txn.create_metric(&metric).expect("staged");
        assert!(txn.commit().expect("a commit") > version);
    }
    let snapshot = db.snapshot();
    assert_eq!((count(&snapshot, &metric), snapshot.metrics().count()), (1, 1));
    assert_eq!(db.metric_with_tags("m", &[("k", "v")]).expect("known").id(), metric.id());
}

#[test]
fn debug_output_is_short() {
    let db = Database::in_memory().expect("opens");
    let metric = db.metric("m").expect("valid");
    let at: Vec<_> = (0..10_000).map(secs).collect();
    let mut txn = db.begin_write();
    txn.append_columns(&metric, &at, &vec![1.0; at.len()]).expect("staged");
    assert!(format!("{txn:?}").len() < 300);
    txn.commit().expect("commits");
    let snapshot = db.snapshot();
    assert!(format!("{db:?} {snapshot:?}").len() < 300);
    let (mut range, mut blocks) = (snapshot.range(&metric, ..), snapshot.blocks(&metric, ..));
    assert!(range.next().is_some() && blocks.next().is_some());
    assert!(format!("{range:?} {blocks:?}").len() < 600);
}

/// A commit in a destructor that runs because of somebody else's panic.
#[test]
fn commits_work_while_a_thread_unwinds() {
    struct Last(Database, Metric);
    impl Drop for Last {
        fn drop(&mut self) {
            self.0.append(&self.1, secs(1), 1.0).expect("the panic is none of the database's");
        }
    }
    let db = Database::in_memory().expect("opens");
    let metric = db.metric("m").expect("valid");
    let last = Last(db.clone(), metric.clone());
    let unwound = std::thread::spawn(move || {
        let _last = last;
        panic!("on purpose");
    });
    assert!(unwound.join().is_err());
    db.append(&metric, secs(2), 1.0).expect("goes on");
    assert_eq!(count(&db.snapshot(), &metric), 2);
}

/// A disk with a bug: one call panics.
#[derive(Clone, Debug, Default)]
struct Panicking {
    disk: MemoryDisk,
    in_write: Arc<AtomicBool>,
    in_create: Arc<AtomicBool>,
}

#[derive(Debug)]
struct PanickingFile(Box<dyn VfsFile>, Arc<AtomicBool>);

impl VfsFile for PanickingFile {
    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.0.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        assert!(!self.1.swap(false, Ordering::SeqCst), "a bug of the disk, on purpose");
        self.0.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        self.0.sync()
    }
}

impl Vfs for Panicking {
    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.disk.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> Result<Option<Vec<OsString>>> {
        self.disk.read_dir(path)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        assert!(!self.in_create.swap(false, Ordering::SeqCst), "a bug of the disk, on purpose");
        Ok(Box::new(PanickingFile(self.disk.create(path)?, self.in_write.clone())))
    }

    fn open(&self, path: &Path, write: bool) -> Result<Option<Box<dyn VfsFile>>> {
        let file = self.disk.open(path, write)?;
        Ok(file.map(|file| Box::new(PanickingFile(file, self.in_write.clone())) as Box<dyn VfsFile>))
    }

    fn map(&self, path: &Path) -> Result<Mapping> {
        self.disk.map(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.disk.sync_dir(path)
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn VfsLock>>> {
        self.disk.try_lock(path)
    }
}

/// Runs `work` on a thread and fails if it has not ended after a minute: a hang, not a slow machine.
fn ends<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::thread::Result<T> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let _ = sender.send(result);
    });
    receiver.recv_timeout(Duration::from_secs(60)).expect("a hang")
}

#[test]
fn a_panic_while_writing_the_log_stops_the_database_and_hangs_nobody() {
    let disk = Panicking::default();
    let db = Options::new().workers(0).open_on(Arc::new(disk.clone()), "/db").expect("opens");
    let metric = db.metric("m").expect("valid");
    db.append(&metric, secs(1), 1.0).expect("commits");
    disk.in_write.store(true, Ordering::SeqCst);
    let (db2, metric2) = (db.clone(), metric.clone());
    assert!(ends(move || db2.append(&metric2, secs(2), 1.0)).is_err(), "the panic comes through");
    let (db2, metric2) = (db.clone(), metric.clone());
    let next = ends(move || db2.append(&metric2, secs(3), 1.0)).expect("no panic");
    let next = next.expect_err("it stopped");
    assert!(matches!(next, Error::Stopped { cause: None }));
    assert_eq!(
        next.to_string(),
        "stopped after a panic or an earlier failure; reopen the database to recover"
    );
    assert_eq!(count(&db.snapshot(), &metric), 1, "reads go on");
    let closed = ends(move || db.close().map(|_| ())).expect("no panic");
    assert!(matches!(closed, Err(Error::Stopped { .. })));
}

#[test]
fn a_panic_of_the_last_handles_thread_hangs_nobody() {
    let disk = Panicking::default();
    let db = Options::new().workers(0).open_on(Arc::new(disk.clone()), "/db").expect("opens");
    let metric = db.metric("m").expect("valid");
    disk.in_write.store(true, Ordering::SeqCst);
    assert!(ends(move || db.append(&metric, secs(1), 1.0)).is_err());
    Options::new().open_on(Arc::new(disk), "/db").expect("the lock is free again");
}

#[test]
fn a_panic_while_making_a_segment_fails_one_commit_only() {
    let disk = Panicking::default();
    let options = Options::new().workers(0).log_segment_bytes_min(16 << 10).log_segment_bytes_max(16 << 10);
    let db = options.open_on(Arc::new(disk.clone()), "/db").expect("opens");
    let metric = db.metric("m").expect("valid");
    db.append(&metric, secs(1), 1.0).expect("commits");
    disk.in_create.store(true, Ordering::SeqCst);
    let long = |db: &Database| {
        let mut txn = db.begin_write();
        txn.put_meta("k", vec![7; 20 << 10])?;
        txn.commit()
    };
    let db2 = db.clone();
    assert!(ends(move || long(&db2)).is_err(), "the panic comes through");
    let db2 = db.clone();
    ends(move || long(&db2)).expect("no panic").expect("commits");
    assert!(db.snapshot().meta(b"k").is_some());
}

/// Flips a bit of the first place in the log that has these bytes.
fn damage(dir: &Path, bytes: &[u8]) {
    for entry in std::fs::read_dir(dir.join("commitlog")).expect("a log") {
        let path = entry.expect("readable").path();
        let mut content = std::fs::read(&path).expect("readable");
        if let Some(place) = content.windows(bytes.len()).position(|window| window == bytes) {
            content[place] ^= 1;
            return std::fs::write(&path, content).expect("writable");
        }
    }
    panic!("nothing to damage");
}

/// Opens strictly, which must fail, then with salvage, then strictly again; returns the database and what it said of the damage.
fn salvage(dir: &Path) -> (Database, Vec<String>) {
    assert!(matches!(Database::open(dir), Err(Error::Corrupt { .. })));
    let db = Options::new().salvage(true).open(dir).expect("something is sound");
    assert!(!db.open_report().damage.is_empty(), "what was lost is said");
    let said = db.open_report().substitutes.clone();
    let metrics = db.snapshot().metric_count();
    db.close().expect("closes");
    let db = Database::open(dir).expect("whole again");
    assert_eq!(db.snapshot().metric_count(), metrics, "the same at every open");
    assert_eq!(db.open_report().substitutes, said);
    (db, said)
}

#[test]
fn salvage_keeps_the_points_of_a_metric_whose_name_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let db = Database::open(dir.path()).expect("opens");
    let metric = db.metric("made-here").expect("valid");
    for i in 0..100 {
        db.append(&metric, secs(i), 1.0).expect("commits");
    }
    db.close().expect("closes");
    damage(dir.path(), b"made-here");
    let (db, said) = salvage(dir.path());
    assert!(said.iter().any(|line| line.contains("salvaged-metric-0")), "{said:?}");
    let metric = db.snapshot().metric("salvaged-metric-0").expect("a substitute");
    assert_eq!(count(&db.snapshot(), &metric), 99);
    db.append(&metric, secs(500), 1.0).expect("it is a metric like others");
}

#[test]
fn salvage_keeps_the_metrics_of_a_namespace_whose_name_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let db = Options::new().durability(Durability::Sync).open(dir.path()).expect("opens");
    let hosts = db.namespace("hosts-namespace").expect("made");
    db.append(&db.metric_in(&hosts, "m").expect("valid"), secs(1), 1.0).expect("commits");
    db.close().expect("closes");
    damage(dir.path(), b"hosts-namespace");
    let (db, said) = salvage(dir.path());
    assert!(said.iter().any(|line| line.contains("salvaged-namespace-1")), "{said:?}");
    let snapshot = db.snapshot();
    let namespace = snapshot.namespace("salvaged-namespace-1").expect("a substitute");
    let metric = snapshot.metric_in(&namespace, "m").expect("its metric");
    assert_eq!(count(&snapshot, &metric), 1);
}

#[test]
fn salvage_does_not_bring_back_a_metric_whose_drop_is_lost_and_that_was_made_again() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let db = Database::open(dir.path()).expect("opens");
    let first = db.metric("m").expect("valid");
    db.append(&first, secs(1), 1.0).expect("commits");
    let mut txn = db.begin_write();
    txn.drop_metric(&first).expect("staged");
    txn.put_meta("with-the-drop", "").expect("staged");
    txn.commit().expect("commits");
    let second = db.metric("m").expect("valid");
    db.append(&second, secs(2), 2.0).expect("commits");
    db.close().expect("closes");
    damage(dir.path(), b"with-the-drop");
    let (db, said) = salvage(dir.path());
    assert!(said.iter().any(|line| line.contains("dropped by a lost commit")), "{said:?}");
    let snapshot = db.snapshot();
    assert_eq!(snapshot.metrics().map(|metric| metric.to_string()).collect::<Vec<_>>(), ["m"]);
    assert_eq!(
        snapshot.latest(&snapshot.metric("m").expect("there")).expect("sound").expect("there").at,
        secs(2)
    );
}
