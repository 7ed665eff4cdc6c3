//! The main job through the public API: write, read from snapshots, reopen.

use std::sync::Arc;
use std::time::Duration;

use chronolith::io::SimulatedDisk;
use chronolith::{Database, Durability, Error, Metric, Options, Point, Result, Snapshot, Timestamp};

fn secs(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn points(snapshot: &Snapshot, metric: &Metric) -> Vec<(i64, f64)> {
    let point = |point: Result<Point>| point.map(|point| (point.at.as_secs(), point.value));
    snapshot.range(metric, ..).map(point).collect::<Result<_>>().expect("sound streams")
}

fn simulated(disk: &SimulatedDisk) -> Database {
    let options = Options::new().workers(0).log_segment_bytes_min(16 << 10);
    options.open_on(Arc::new(disk.clone()), "/db").expect("opens")
}

#[test]
fn a_snapshot_sees_one_cut_and_keeps_it() {
    let db = Database::in_memory().expect("opens");
    let (a, b) = (db.metric("a").expect("valid"), db.metric("b").expect("valid"));
    let empty = db.snapshot();
    let mut txn = db.begin_write();
    txn.append(&a, secs(1), 1.0).expect("staged");
    txn.append(&b, secs(1), 10.0).expect("staged");
    assert_eq!(txn.range(&a, ..).count(), 1, "a transaction reads its own writes");
    assert_eq!(points(&db.snapshot(), &a), []);
    let version = txn.commit().expect("commits");
    let first = db.snapshot();
    assert_eq!(first.version(), version);

    let mut txn = db.begin_write();
    txn.append(&a, secs(1), 2.0).expect("staged");
    txn.append(&a, secs(2), 3.0).expect("staged");
    txn.delete(&b, ..).expect("staged");
    txn.commit().expect("commits");

    assert!(!empty.contains(&a));
    assert_eq!((points(&first, &a), points(&first, &b)), (vec![(1, 1.0)], vec![(1, 10.0)]));
    let second = db.snapshot();
    assert_eq!((points(&second, &a), points(&second, &b)), (vec![(1, 2.0), (2, 3.0)], vec![]));
}

#[test]
fn rolled_back_changes_leave_no_trace() {
    let db = Database::in_memory().expect("opens");
    let metric = db.metric("m").expect("valid");
    let mut txn = db.begin_write();
    txn.append(&metric, secs(1), 1.0).expect("staged");
    txn.put_meta("k", "v").expect("staged");
    drop(txn);
    let snapshot = db.snapshot();
    assert_eq!((snapshot.version().get(), snapshot.metric("m")), (0, None));
    assert_eq!(snapshot.meta(b"k"), None);
}

#[test]
fn everything_is_there_after_reopening() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("some/where/db");
    let db = Database::open(&path).expect("opens");
    assert!(db.open_report().created);
    let hosts = db.namespace("hosts").expect("made");
    let plain = db.metric("plain").expect("valid");
    let tagged = db.metric_with_tags_in(&hosts, "cpu", &[("host", "a"), ("core", "0")]).expect("valid");
    let dropped = db.metric("dropped").expect("valid");
    let mut txn = db.begin_write();
    for i in 0..10_000 {
        txn.append(&plain, secs(i), i as f64 * 0.25).expect("staged");
    }
    txn.append(&plain, secs(5), -1.0).expect("staged");
    txn.append_annotated(&tagged, secs(-7), f64::NAN, b"note").expect("staged");
    txn.append(&dropped, secs(1), 1.0).expect("staged");
    txn.put_meta("offset", "17").expect("staged");
    txn.commit().expect("commits");
    let mut txn = db.begin_write();
    txn.drop_metric(&dropped).expect("staged");
    txn.delete(&plain, secs(100)..secs(200)).expect("staged");
    txn.commit().expect("commits");
    let before = points(&db.snapshot(), &plain);
    assert_eq!(before.len(), 9_900);
    db.close().expect("closes");

    let db = Database::open(&path).expect("opens again");
    let report = db.open_report();
    assert!(report.clean && !report.created, "{report:?}");
    let snapshot = db.snapshot();
    assert_eq!(snapshot.meta(b"offset"), Some(&b"17"[..]));
    assert_eq!(points(&snapshot, &snapshot.metric("plain").expect("there")), before);
    assert_eq!(snapshot.metric("dropped"), None);
    let hosts = snapshot.namespace("hosts").expect("there");
    let tagged = snapshot.metric_in(&hosts, r#"cpu{host="a",core="0"}"#).expect("there");
    let point = snapshot.latest(&tagged).expect("reads").expect("there");
    assert_eq!((point.at, point.value.to_bits()), (secs(-7), f64::NAN.to_bits()));
    assert_eq!(point.annotation.as_deref(), Some(&b"note"[..]));
}

#[test]
fn a_power_cut_keeps_what_was_acknowledged() {
    use chronolith::io::CutState;
    let disk = SimulatedDisk::new(1);
    let db = simulated(&disk);
    let metric = db.metric("m").expect("valid");
    for i in 0..100 {
        db.append(&metric, secs(i), i as f64).expect("commits");
    }
    for cut in CutState::ALL {
        let db = simulated(&disk.after_power_cut(cut, 7));
        let metric = db.snapshot().metric("m").expect("there");
        assert_eq!(points(&db.snapshot(), &metric).len(), 100, "{cut:?}");
    }
}

#[test]
fn making_a_database_committing_and_closing_takes_few_syncs_and_little_space() {
    let disk = SimulatedDisk::new(1);
    let db = Options::new().open_on(Arc::new(disk.clone()), "/db").expect("opens");
    db.append(&db.metric("m").expect("valid"), secs(1), 1.0).expect("commits");
    db.close().expect("closes");
    let (syncs, bytes) = (disk.syncs() + disk.dir_syncs(), disk.bytes_allocated());
    assert!(syncs <= 8, "{syncs} syncs");
    assert!(bytes <= 1 << 20, "{bytes} bytes");
}

#[test]
fn the_directory_is_locked_until_the_last_snapshot_is_gone() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let db = Database::open(dir.path()).expect("opens");
    db.append(&db.metric("m").expect("valid"), secs(1), 1.0).expect("commits");
    assert!(matches!(Database::open(dir.path()), Err(Error::Locked { .. })));
    let snapshot = db.snapshot();
    assert_eq!(db.close().expect("closes").live_snapshots, 1);
    assert!(matches!(Database::open(dir.path()), Err(Error::Locked { .. })));
    assert_eq!(points(&snapshot, &snapshot.metric("m").expect("there")), [(1, 1.0)]);
    drop(snapshot);
    Database::open(dir.path()).expect("free again");
}

#[test]
fn interval_commits_become_durable_when_due() {
    let disk = SimulatedDisk::new(1);
    let db = simulated(&disk);
    let metric = db.metric("m").expect("valid");
    let mut txn = db.begin_write();
    txn.set_durability(Durability::Interval(Duration::from_secs(60)));
    txn.append(&metric, secs(1), 1.0).expect("staged");
    txn.commit().expect("commits");
    let syncs = disk.syncs();
    db.maintain(Timestamp::now()).expect("nothing is due");
    assert_eq!(disk.syncs(), syncs);
    db.maintain(Timestamp::now() + Duration::from_secs(120)).expect("syncs");
    assert_eq!(disk.syncs(), syncs + 1);
    let after = simulated(&disk.after_power_cut(chronolith::io::CutState::None, 1));
    assert_eq!(points(&after.snapshot(), &after.snapshot().metric("m").expect("there")), [(1, 1.0)]);
}
