//! Every error that a caller can get, and how. Out of reach for a test: `TooManyMetrics` takes 2^32 metrics, `Decode`
//! damaged memory.

use std::error::Error as _;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chronolith::io::{CallKind, Fault, SimulatedDisk, Vfs};
use chronolith::{
    Database, Durability, Error, METRIC_ID_BYTES_MAX, NAMESPACE_NAME_BYTES_MAX, Options, Timestamp,
};

const DIR: &str = "/db";

fn options() -> Options {
    Options::new().workers(0).log_segment_bytes_min(16 * 1024).log_segment_bytes_max(16 * 1024)
}

fn open(disk: &SimulatedDisk) -> chronolith::Result<Database> {
    options().open_on(Arc::new(disk.clone()), DIR)
}

fn opened(disk: &SimulatedDisk) -> Database {
    open(disk).expect("it opens")
}

fn memory() -> Database {
    options().open_in_memory().expect("it opens")
}

const AT: Timestamp = Timestamp::from_secs(1);

#[test]
fn io() {
    let disk = SimulatedDisk::new(1);
    opened(&disk).close().expect("it closes");
    disk.count_reads(true);
    disk.fail(disk.calls() + 1, Fault::InputOutput, true);
    match open(&disk) {
        Err(error @ Error::Io { .. }) => {
            assert!(error.to_string().contains(DIR), "the path: {error}");
            let source = error.source().expect("the system's word").to_string();
            assert!(!error.to_string().contains(&source), "the chain says it, not the text: {error}");
            assert!(error.io_kind().is_some());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn disk_full() {
    let disk = SimulatedDisk::new(2);
    let db = opened(&disk);
    let metric = db.metric("m").expect("a metric");
    disk.set_capacity(Some(disk.bytes_allocated()));
    let fill = |seconds: i64| db.append(&metric, Timestamp::from_secs(seconds), 0.5);
    let error = (0..10_000).find_map(|seconds| fill(seconds).err()).expect("the disk is full some day");
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert_eq!(error.io_kind(), Some(ErrorKind::StorageFull));
    assert!(fill(10_000).is_err(), "it is still full");
    disk.set_capacity(None);
    fill(10_001).expect("there is space again");
}

#[test]
fn replay_memory() {
    let disk = SimulatedDisk::new(2);
    let db = opened(&disk);
    let metric = db.metric("m").expect("a metric");
    for second in 0..100 {
        db.append(&metric, Timestamp::from_secs(second * 10_000), 0.5).expect("room");
    }
    db.close().expect("closes");
    let open = |max| Options::new().workers(0).replay_memory_max(max).open_on(Arc::new(disk.clone()), DIR);
    let files = disk.files();
    let error = open(10_000).expect_err("100 streams take more");
    assert!(matches!(error, Error::ReplayMemory { max: 10_000 }), "{error:?}");
    assert!(error.to_string().contains("larger memory_max"), "{error}");
    assert_eq!(disk.files(), files, "nothing was changed");
    let db = open(1 << 20).expect("it fits");
    assert_eq!(db.stats().points, 100);
    db.seal(..).expect("it seals");
    db.close().expect("closes");
    // What is sealed takes memory until replay comes to that.
    assert!(matches!(open(10_000), Err(Error::ReplayMemory { .. })));
    assert_eq!(open(1 << 20).expect("it fits").stats().points, 0);
}

#[test]
fn corrupt() {
    let disk = SimulatedDisk::new(3);
    let db = opened(&disk);
    let metric = db.metric("m").expect("a metric");
    db.append(&metric, AT, 1.0).expect("a commit");
    db.close().expect("it closes");
    let mut found = 0;
    for (path, len) in disk.files() {
        let disk = disk.after_power_cut(chronolith::io::CutState::All, 0);
        let Some(file) = disk.open(&path, true).expect("it opens") else { continue };
        for offset in (0..len.min(512)).step_by(8) {
            file.write_at(offset, &[0xa5; 8]).expect("space");
        }
        match open(&disk) {
            Err(Error::Corrupt { path: damaged, .. }) => {
                assert!(damaged.starts_with(DIR), "{}", damaged.display());
                found += 1;
            }
            Err(Error::NotADatabase { .. }) | Ok(_) => {}
            Err(other) => panic!("{}: {other:?}", path.display()),
        }
    }
    assert!(found > 0, "damage at the beginning of a file is seen");
}

#[test]
fn locked() {
    let disk = SimulatedDisk::new(4);
    let _db = opened(&disk);
    match open(&disk) {
        Err(Error::Locked { path }) => assert_eq!(path, Path::new(DIR)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn not_a_database() {
    let disk = SimulatedDisk::new(5);
    disk.create_dir_all(DIR.as_ref()).expect("a folder");
    disk.create("/db/notes.txt".as_ref()).expect("a file").write_at(0, b"mine").expect("space");
    let files = disk.files();
    assert!(matches!(open(&disk), Err(Error::NotADatabase { .. })));
    assert_eq!(disk.files().iter().filter(|file| files.contains(file)).count(), 1, "the file is left alone");
    let empty = SimulatedDisk::new(5);
    let opened = options().create(false).open_on(Arc::new(empty.clone()), DIR);
    assert!(matches!(opened, Err(Error::NotADatabase { .. })), "{opened:?}");
    assert!(empty.files().is_empty(), "nothing was made: {:?}", empty.files());
}

#[test]
fn stopped() {
    let disk = SimulatedDisk::new(7);
    let db = opened(&disk);
    let metric = db.metric("m").expect("a metric");
    db.append(&metric, AT, 1.0).expect("a commit");
    disk.record_trace(true);
    db.append(&metric, Timestamp::from_secs(2), 2.0).expect("a commit");
    let trace = disk.trace();
    assert!(trace.iter().any(|call| call.kind == CallKind::Sync), "{trace:?}");
    disk.fail(disk.calls() + 1, Fault::InputOutput, true);
    let failed = db.append(&metric, Timestamp::from_secs(3), 3.0);
    assert!(failed.is_err());
    disk.clear_faults();
    let refused = db.append(&metric, Timestamp::from_secs(4), 4.0);
    assert!(matches!(refused, Err(Error::Stopped { .. })), "a failed sync is never retried: {refused:?}");
    let kind = refused.as_ref().err().and_then(Error::io_kind);
    assert_eq!(kind, Fault::InputOutput.error().kind().into(), "it says what failed");
    let refused = refused.unwrap_err();
    assert!(std::error::Error::source(&refused).is_some());
    let message = "stopped after a failed write of the commit log; reopen the database to recover";
    assert_eq!(refused.to_string(), message);
    assert!(matches!(db.stats().stop_cause.as_deref(), Some(Error::Io { .. })));
    assert!(matches!(db.sync(), Err(Error::Stopped { .. })));
    assert!(db.stats().stopped);
    assert_eq!(db.snapshot().range(&metric, ..).count(), 2, "reads go on");
    drop(db);
    let db = opened(&disk);
    let metric = db.metric("m").expect("a metric");
    let count = db.snapshot().range(&metric, ..).count();
    assert!((2..=3).contains(&count), "the failed commit is there or not: {count}");
    db.append(&metric, Timestamp::from_secs(4), 4.0).expect("writes go on");
}

#[test]
fn closed() {
    let db = memory();
    let metric = db.metric("m").expect("a metric");
    db.append(&metric, AT, 1.0).expect("a commit");
    let (other, snapshot) = (db.clone(), db.snapshot());
    let mut txn = other.begin_write();
    txn.append(&metric, AT, 2.0).expect("staging");
    db.close().expect("it closes");
    let refused = txn.commit().expect_err("closed");
    assert!(matches!(refused, Error::Closed));
    assert_eq!(refused.to_string(), "the database is closed; open it again to write");
    assert!(matches!(other.append(&metric, AT, 3.0), Err(Error::Closed)));
    assert_eq!(snapshot.latest(&metric).expect("a read").map(|point| point.value), Some(1.0));
}

#[test]
fn metric_dropped() {
    let db = memory();
    let metric = db.metric("a metric").expect("a metric");
    db.append(&metric, AT, 1.0).expect("a commit");
    let mut early = db.begin_write();
    early.append(&metric, AT, 2.0).expect("staging");
    let mut txn = db.begin_write();
    txn.drop_metric(&metric).expect("staging");
    assert!(
        matches!(txn.append(&metric, AT, 3.0), Err(Error::MetricDropped(_))),
        "it drops the metric itself"
    );
    txn.commit().expect("a commit");
    match early.commit() {
        Err(Error::MetricDropped(name)) => assert!(name.contains("a metric"), "{name}"),
        other => panic!("staged before the drop, committed after it: {other:?}"),
    }
    assert!(matches!(db.append(&metric, AT, 4.0), Err(Error::MetricDropped(_))));
    let successor = db.metric("a metric").expect("a metric");
    assert_ne!(successor.id(), metric.id());
    db.append(&successor, AT, 5.0).expect("a commit");
    assert_eq!(db.snapshot().range(&successor, ..).count(), 1);
    assert_eq!(db.snapshot().range(&metric, ..).count(), 0);
}

#[test]
fn foreign_metric() {
    let (db, other) = (memory(), memory());
    let metric = other.metric("m").expect("a metric");
    assert!(matches!(db.append(&metric, AT, 1.0), Err(Error::ForeignMetric(name)) if name.contains('m')));
    let mut txn = db.begin_write();
    assert!(matches!(txn.append_row(AT, &[(metric.clone(), 1.0)]), Err(Error::ForeignMetric(_))));
    assert!(matches!(txn.delete(&metric, ..), Err(Error::ForeignMetric(_))));
    assert!(matches!(txn.drop_metric(&metric), Err(Error::ForeignMetric(_))));
    assert!(matches!(txn.create_metric(&metric), Err(Error::ForeignMetric(_))));
}

#[test]
fn foreign_namespace() {
    let (db, other) = (memory(), memory());
    let namespace = other.namespace("theirs").expect("a namespace");
    let refused = db.metric_in(&namespace, "m");
    assert!(matches!(refused, Err(Error::ForeignNamespace(_))), "{refused:?}");
}

#[test]
fn metric_id_length() {
    let db = memory();
    assert!(matches!(db.metric(""), Err(Error::MetricIdLength { len: 0 })));
    let long = vec![b'm'; METRIC_ID_BYTES_MAX + 1];
    assert!(matches!(db.metric(&long), Err(Error::MetricIdLength { len }) if len == long.len()));
    db.metric(&long[1..]).expect("the longest ID");
}

#[test]
fn invalid_tags() {
    let db = memory();
    for tags in [&[("", "value")][..], &[("key", "a"), ("key", "b")][..]] {
        let metric = db.metric_with_tags("m", tags);
        assert!(matches!(metric, Err(Error::InvalidTags { .. })), "{tags:?}: {metric:?}");
    }
}

#[test]
fn tags_differ() {
    let db = memory();
    let namespace = db.default_namespace();
    db.metric_with_id(&namespace, b"imported", &[(b"host", b"a")]).expect("a metric");
    db.metric_with_id(&namespace, b"imported", &[(b"host", b"a")]).expect("the same metric");
    let other = db.metric_with_id(&namespace, b"imported", &[(b"host", b"b")]);
    assert!(matches!(other, Err(Error::TagsDiffer(_))), "{other:?}");
}

#[test]
fn namespace_name_length() {
    let db = memory();
    assert!(matches!(db.namespace(""), Err(Error::NamespaceNameLength { len: 0 })));
    let long = "n".repeat(NAMESPACE_NAME_BYTES_MAX + 1);
    assert!(matches!(db.namespace(&long), Err(Error::NamespaceNameLength { len }) if len == long.len()));
    db.namespace(&long[1..]).expect("the longest name");
}

#[test]
fn column_lengths() {
    let db = memory();
    let metric = db.metric("m").expect("a metric");
    let mut txn = db.begin_write();
    let refused = txn.append_columns(&metric, &[AT, AT], &[1.0]);
    assert!(matches!(refused, Err(Error::ColumnLengths { timestamps: 2, values: 1 })), "{refused:?}");
    txn.append(&metric, AT, 5.0).expect("the transaction goes on");
    txn.commit().expect("a commit");
    assert_eq!(db.snapshot().range(&metric, ..).count(), 1);
}

#[test]
fn too_long() {
    let db = memory();
    let metric = db.metric("m").expect("a metric");
    let mut txn = db.begin_write();
    let long = vec![0; 64 << 20];
    let refused = txn.append_annotated(&metric, AT, 1.0, &long);
    let Err(Error::TooLong { len, max, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(len, long.len());
    txn.append_annotated(&metric, AT, 1.0, &long[..max]).expect("the longest annotation");
    assert!(matches!(txn.put_meta(b"key", &long), Err(Error::TooLong { .. })));
    assert!(matches!(txn.put_meta(&long, b"value"), Err(Error::TooLong { .. })));
    txn.commit().expect("a commit");
}

#[test]
fn invalid_option() {
    let refused = Options::new().block_size(Duration::ZERO).open_in_memory();
    assert!(matches!(refused, Err(Error::InvalidOption { option: "block_size", .. })), "{refused:?}");
}

#[test]
fn newer_format() {
    let disk = SimulatedDisk::new(8);
    opened(&disk).close().expect("it closes");
    let path = Path::new("/db/superblock");
    let mut slot = disk.map(path).expect("it is there")[..4096].to_vec();
    // As the format page has it: the version at 8, the checksum of all before it at the end.
    slot[8..12].copy_from_slice(&7u32.to_le_bytes());
    let checksum = crc32fast::hash(&slot[..4092]);
    slot[4092..].copy_from_slice(&checksum.to_le_bytes());
    let file = disk.open(path, true).expect("it opens").expect("it is there");
    file.write_at(0, &slot).expect("space");
    let before = disk.fingerprint();
    match open(&disk) {
        Err(Error::NewerFormat { path: said, found: 7, supported }) => {
            assert_eq!(said, path);
            assert!(supported < 7);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(disk.fingerprint(), before, "left untouched");
}

#[test]
fn durability_of_a_memory_only_database_is_no_error() {
    let db = memory();
    let metric = db.metric("m").expect("a metric");
    let mut txn = db.begin_write();
    txn.set_durability(Durability::Sync);
    txn.append(&metric, AT, 1.0).expect("staging");
    txn.commit().expect("a commit");
    db.sync().expect("nothing to do");
}

#[test]
fn conflict() {
    let db = memory();
    let metric = db.metric("m").expect("a metric");
    let mut txn = db.begin_checked();
    assert_eq!(txn.latest(&metric).expect("a read"), None);
    txn.append(&metric, AT, 1.0).expect("staged");
    db.append(&metric, AT, 2.0).expect("a commit");
    match txn.commit() {
        Err(error @ Error::Conflict { attempts: None, .. }) => {
            assert_eq!(error.to_string(), "metric m was changed after this transaction read it; begin again");
        }
        other => panic!("{other:?}"),
    }

    let db = Options::new().workers(0).attempts(1).open_in_memory().expect("it opens");
    let metric = db.metric("m").expect("a metric");
    let message = "metric m was changed after this transaction read it in the only attempt; \
                   allow more with Options::attempts";
    let lost = db.transact(|txn| {
        txn.latest(&metric)?;
        txn.append(&metric, AT, 1.0)?;
        db.append(&metric, AT, 2.0)
    });
    assert_eq!(lost.expect_err("a conflict").to_string(), message);
    // Noticed by a write, before the commit.
    let lost = db.transact(|txn| {
        let mut other = db.begin_write();
        other.drop_metric(&metric)?;
        other.commit()?;
        txn.append(&metric, AT, 1.0)
    });
    assert_eq!(lost.expect_err("a conflict").to_string(), message);
}
