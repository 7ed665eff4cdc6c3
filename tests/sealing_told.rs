//! What a database tells of sealing: figures, progress, health.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use chronolith::io::{Fault, SimulatedDisk, Vfs};
use chronolith::{Database, Error, Health, Options, SealScope, Timestamp, Trouble};

const DAY: i64 = 86_400;
/// Midnight, within a block of 30 days: so days are the widest blocks that time has left.
const BEGIN: i64 = 1_700_611_200;

fn open(disk: &SimulatedDisk) -> Database {
    let disk: Arc<dyn Vfs> = Arc::new(disk.clone());
    Options::new().workers(0).shards(1).open_on(disk, "/db").expect("opens")
}

/// A point in each hour of so many days, in one metric.
fn fill(db: &Database, days: i64) -> u64 {
    let metric = db.metric("m").expect("a name");
    let mut txn = db.begin_write();
    for hour in 0..days * 24 {
        txn.append(&metric, Timestamp::from_secs(BEGIN + hour * 3600), hour as f64).expect("staged");
    }
    txn.commit().expect("commits");
    (days * 24) as u64
}

fn day(day: i64) -> Timestamp {
    Timestamp::from_secs(BEGIN + day * DAY)
}

#[test]
fn points_are_counted_where_they_are() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk);
    let points = fill(&db, 3);
    let stats = db.stats();
    assert_eq!((stats.points, stats.volumes, stats.sealed_blocks), (points, 0, 0));
    assert_eq!(db.sealed_stats().bits_per_point(), None);
    assert_eq!(db.blocks_in_memory().iter().map(|block| block.points).sum::<u64>(), points);

    let report = db.seal(..day(2)).expect("seals");
    let (stats, sealed) = (db.stats(), db.sealed_stats());
    assert_eq!((report.points, stats.points, sealed.points), (48, 24, 48));
    assert_eq!(
        (stats.volumes, stats.sealed_blocks, sealed.volumes),
        (2, 2, 2),
        "days are the widest that fit"
    );
    assert_eq!((stats.volumes_written, stats.points_written), (2, 48));
    assert_eq!(stats.stream_bytes_written, sealed.stream_bytes);
    let on_disk = disk.files().into_iter().filter(|(path, _)| path.starts_with("/db/data"));
    assert_eq!(sealed.file_bytes, on_disk.map(|(_, len)| len).sum::<u64>());
    let memory = db.blocks_in_memory();
    assert!(memory.iter().all(|block| !block.is_sealed && block.first >= day(2)), "{memory:?}");

    // A late write is in memory over a sealed block.
    let metric = db.metric("m").expect("a name");
    db.append(&metric, day(0), -1.0).expect("commits");
    let late: Vec<_> = db.blocks_in_memory().into_iter().filter(|block| block.is_sealed).collect();
    assert_eq!((late.len(), late[0].points, late[0].first), (1, 1, day(0)));
    let snapshot = db.snapshot();
    let volumes: Vec<_> =
        snapshot.volumes().map(|volume| (volume.first(), volume.contents().expect("sound").points)).collect();
    assert_eq!(volumes, [(day(0), 24), (day(1), 24)]);
    assert!(
        snapshot
            .volumes()
            .all(|volume| volume.verify().is_empty() && volume.bytes().is_ok_and(|bytes| bytes > 0))
    );

    // The old volume waits for the snapshot.
    assert_eq!(db.refresh(..).expect("refreshes").blocks, 1);
    assert_eq!(db.stats().oldest_held, Some(snapshot.version()));
    assert_eq!((db.stats().volumes, db.stats().superseded_volumes), (2, 0));
    drop(snapshot);
    assert_eq!((db.stats().superseded_volumes, db.stats().oldest_held), (1, None));
    db.seal(..).expect("seals");
    assert_eq!((db.stats().superseded_volumes, db.stats().points), (0, 0));
    assert_eq!(db.sealed_stats().points, points);

    let volumes = db.stats().volumes;
    // The log still tells of it, but nothing waits for its removal.
    db.close().expect("closes");
    let db = open(&disk);
    assert_eq!(
        (db.stats().superseded_volumes, db.stats().volumes, db.sealed_stats().points),
        (0, volumes, points)
    );
}

#[test]
fn progress_is_told_before_each_block_and_may_end_it() {
    let db = open(&SimulatedDisk::new(2));
    fill(&db, 4);
    let mut told = Vec::new();
    let report = db.seal_with(SealScope::all().within(..day(3)), |progress| {
        told.push((progress.done, progress.blocks, progress.points, progress.first));
        if progress.done == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let report = report.expect("seals");
    assert_eq!(told, [(0, 3, 0, day(0)), (1, 3, 24, day(1)), (2, 3, 48, day(2))]);
    assert_eq!((report.blocks, report.left, report.points), (2, 1, 48));
    assert_eq!(db.stats().points, 48);
    let report = db.seal(..day(3)).expect("seals");
    assert_eq!((report.blocks, report.left), (1, 0));
    let left: chronolith::Result<Vec<_>> =
        db.snapshot().range(&db.metric("m").expect("a name"), ..).collect();
    assert_eq!(left.expect("readable").len(), 96);
}

#[test]
fn a_namespace_of_another_database_is_refused() {
    let (db, other) = (open(&SimulatedDisk::new(3)), open(&SimulatedDisk::new(3)));
    let scope = || SealScope::all().namespace(&other.default_namespace());
    let go_on = |_: &chronolith::SealProgress| ControlFlow::Continue(());
    assert!(matches!(db.seal_with(scope(), go_on), Err(Error::ForeignNamespace(_))));
    assert!(matches!(db.refresh_with(scope(), go_on), Err(Error::ForeignNamespace(_))));
}

#[test]
fn failing_upkeep_is_told_until_it_succeeds() {
    let disk = SimulatedDisk::new(4);
    let db = open(&disk);
    fill(&db, 2);
    db.sync().expect("syncs");
    assert!(db.health().is_ok(), "{}", db.health());
    disk.set_capacity(Some(disk.bytes_allocated()));
    let now = Timestamp::now();
    db.maintain(now).expect_err("there is no space");
    let stats = db.stats();
    assert_eq!((stats.upkeep_failures, stats.upkeep_error.is_some()), (1, true));
    let health = db.health();
    assert!(matches!(health.troubles(), [Trouble::UpkeepFailing { failures: 1, .. }]), "{health}");
    // A freeze without its volume: what it is over takes no more there.
    assert_eq!((stats.frozen_partitions, stats.points), (1, 48));
    disk.set_capacity(None);
    db.maintain(now + Duration::from_secs(2)).expect("seals");
    assert!(matches!(db.health(), Health::Ok), "{}", db.health());
    let stats = db.stats();
    assert_eq!((stats.upkeep_failures, stats.upkeep_error, stats.frozen_partitions), (0, None, 0));
    assert!(stats.volumes > 0);
}

#[test]
fn a_stopped_log_is_told() {
    let disk = SimulatedDisk::new(5);
    let db = open(&disk);
    fill(&db, 1);
    disk.fail(disk.calls(), Fault::InputOutput, true);
    let metric = db.metric("m").expect("a name");
    db.append(&metric, day(9), 1.0).expect_err("the disk fails");
    let health = db.health();
    assert!(matches!(health.troubles(), [Trouble::LogStopped { cause: Some(_) }, ..]), "{health}");
    assert!(health.to_string().contains("open the database again"), "{health}");
}

#[test]
fn a_damaged_supplement_is_told_and_repaired() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = || Options::new().workers(0).shards(1).open(dir.path()).expect("opens");
    let db = open();
    let points = fill(&db, 1);
    db.seal(..).expect("seals");
    db.close().expect("closes");
    let folder = dir.path().join("data/default/0");
    let supplement =
        std::fs::read_dir(&folder).expect("a shard").map(|entry| entry.expect("an entry").path());
    let mut supplements = supplement.filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("chronolith-"))
    });
    let supplement = supplements.next().expect("a supplement");
    let mut bytes = std::fs::read(&supplement).expect("a file");
    bytes[20] ^= 1;
    std::fs::write(&supplement, bytes).expect("a file");

    let db = open();
    let metric = db.metric("m").expect("a name");
    assert!(db.health().is_ok(), "nobody looked yet");
    let read = |db: &Database| {
        let points: chronolith::Result<Vec<_>> = db.snapshot().range(&metric, ..).collect();
        points.expect("readable").len() as u64
    };
    assert_eq!(read(&db), points);
    let health = db.health();
    assert!(matches!(health.troubles(), [Trouble::LookupsByName { volumes: 1.., .. }]), "{health}");
    assert!(db.stats().lookups_by_name > 0 && db.sealed_stats().uncounted > 0);
    assert!(db.refresh(..).expect("refreshes").blocks > 0);
    assert!(db.health().is_ok(), "{}", db.health());
    assert_eq!((read(&db), db.sealed_stats().points, db.sealed_stats().uncounted), (points, points, 0));
}

#[test]
fn full_memory_is_told() {
    let db = Options::new().memory_max(4 << 20).open_in_memory().expect("opens");
    let metric = db.metric("m").expect("a name");
    let mut next = 0_u64;
    let refused = (0..100).find_map(|_| {
        let mut txn = db.begin_write();
        for _ in 0..50_000 {
            next += 1;
            // Bits that do not compress.
            let value = f64::from_bits(next.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2);
            txn.append(&metric, Timestamp::from_millis(next as i64), value).expect("staged");
        }
        txn.commit().err()
    });
    assert!(matches!(refused, Some(Error::MemoryLimit { .. })), "{refused:?}");
    let health = db.health();
    assert!(matches!(health.troubles(), [Trouble::MemoryFull { bytes, max }] if bytes > max), "{health}");
    assert!(db.stats().memory_bytes > 4 << 20);
}
