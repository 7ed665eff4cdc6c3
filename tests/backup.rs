//! Backups: that they equal their snapshot whatever goes on meanwhile, go on by themselves, and are databases when they are complete, not sooner.

mod common;

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use chronolith::io::{CutState, Fault, Mapping, RealDisk, SimulatedDisk, Vfs, VfsFile, VfsLock};
use chronolith::{Database, Durability, Error, Options, Snapshot, Timestamp};
use common::seals::{Content, History, Progress, Session, assert_same, read};
use common::torture::random::Random;

const DIR: &str = "/db";
const TARGET: &str = "/backups/first";
const HOUR: i64 = 3_600;

fn options() -> Options {
    let sizes = Options::new().log_segment_bytes_min(16 * 1024).log_segment_bytes_max(16 * 1024);
    sizes.workers(0).shards(2).durability(Durability::Buffered).block_size(Duration::from_secs(HOUR as u64))
}

fn open(disk: &SimulatedDisk, dir: &str) -> Result<Database, Error> {
    options().create(false).open_on(Arc::new(disk.clone()), dir)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 / HOUR * HOUR + second)
}

fn append(db: &Database, id: &str, second: i64, value: f64) {
    db.append(&db.metric(id).expect("a name"), at(second), value).expect("commits");
}

#[test]
fn a_backup_into_the_folder_of_its_database_is_refused() {
    let disk = SimulatedDisk::new(1);
    let db = options().open_on(Arc::new(disk.clone()), DIR).expect("opens");
    append(&db, "m", 1, 1.0);
    let before = disk.files();
    for inside in ["backup", "data/backup"].map(|folder| format!("{DIR}/{folder}")) {
        let refused = db.snapshot().backup_to(&inside).map(drop);
        assert!(matches!(refused, Err(Error::InvalidOption { option: "dir", .. })), "{inside}: {refused:?}");
    }
    assert_eq!(disk.files(), before);
    db.snapshot().backup_to(format!("{DIR}2")).expect("beside it");
}

fn content(db: &Database) -> Content {
    read(&db.snapshot()).expect("reads")
}

/// Namespaces, metadata, and for each metric its number, namespace and tags: what points do not tell.
fn description(snapshot: &Snapshot) -> Vec<String> {
    let namespaces = snapshot.namespaces().map(|found| format!("{} {:?}", found.name(), found.block_size()));
    let metas = snapshot.metas().map(|(key, value)| format!("{key:?} {value:?}"));
    let metrics = snapshot.metrics().map(|metric| {
        let tags: Vec<_> = metric.tags().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        format!("{:?} {} {metric} {tags:?}", metric.id(), metric.namespace())
    });
    namespaces.chain(metas).chain(metrics).collect()
}

#[track_caller]
fn assert_equal(backup: &Database, snapshot: &Snapshot) {
    let found = backup.snapshot();
    assert_eq!(found.version(), snapshot.version());
    assert_eq!(description(&found), description(snapshot));
    assert_same(&read(&found).expect("reads"), &read(snapshot).expect("reads"), "the backup");
}

/// Sealed blocks, late writes, deletes, a metric that is gone, another namespace, and points in memory.
fn sample(disk: Arc<dyn Vfs>, dir: &Path) -> Database {
    let db = options().open_on(disk, dir).expect("opens");
    for hour in 0..3 {
        for second in 0..50 {
            append(&db, "a", hour * HOUR + second * 60, second as f64);
            append(&db, "b{host=\"x\"}", hour * HOUR + second * 61, -1.0);
            append(&db, "gone", hour * HOUR + second, 1.0);
        }
    }
    db.seal(..at(2 * HOUR)).expect("seals");
    let other = db.namespace("other").expect("made");
    let mut txn = db.begin_write();
    txn.append_annotated(&db.metric_in(&other, "elsewhere").expect("a name"), at(7), f64::NAN, b"note")
        .expect("staged");
    txn.append(&db.metric("a").expect("a name"), at(30), 7.0).expect("staged");
    txn.delete(&db.metric("a").expect("a name"), at(100)..at(200)).expect("staged");
    txn.drop_metric(&db.metric("gone").expect("a name")).expect("staged");
    txn.put_meta("key", vec![0; 9_000]).expect("staged");
    txn.commit().expect("commits");
    db
}

fn simulated() -> (SimulatedDisk, Database) {
    let disk = SimulatedDisk::new(1);
    let db = sample(Arc::new(disk.clone()), DIR.as_ref());
    (disk, db)
}

#[test]
fn a_backup_equals_its_snapshot_and_goes_on_behind_it() {
    let (disk, db) = simulated();
    let snapshot = db.snapshot();
    append(&db, "later", 0, 1.0);
    let report = snapshot.backup_to(TARGET).expect("a backup");
    assert_eq!(report.version, snapshot.version());
    assert_eq!((report.volumes, report.copied_files), (snapshot.volumes().count() as u64, 0));
    assert_eq!(report.linked_files, 8 * report.volumes);
    assert!(report.pages > 0 && report.names_bytes > 0 && report.memory_bytes > 0);

    let backup = open(&disk, TARGET).expect("opens beside the original");
    let opened = backup.open_report();
    assert_eq!((opened.checkpoint, opened.last_version), (snapshot.version(), snapshot.version()));
    assert!(opened.clean && !opened.created && opened.commits_replayed == 0);
    assert!(opened.swept_files.is_empty() && opened.foreign_files.is_empty() && opened.damage.is_empty());
    assert_equal(&backup, &snapshot);
    let next = backup.append(&backup.metric("new").expect("a name"), at(1), 2.0).expect("commits");
    assert_eq!(next.get(), snapshot.version().get() + 1);
    let now = content(&backup);
    backup.close().expect("closes");
    let backup = open(&disk, TARGET).expect("opens");
    assert_eq!(backup.open_report().commits_replayed, 1);
    assert_same(&content(&backup), &now, "after a restart");
    let verified: Vec<_> = backup.snapshot().volumes().flat_map(|volume| volume.verify()).collect();
    assert!(verified.is_empty(), "{verified:?}");
}

#[test]
fn neither_touches_the_other() {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let (original, target) = (dir.path().join("db"), dir.path().join("far").join("backup"));
    let db = sample(Arc::new(RealDisk::new()), &original);
    let snapshot = db.snapshot();
    let report = snapshot.backup_to(&target).expect("a backup");
    assert!(report.linked_files > 0 && report.copied_files == 0);
    let (content_then, description_then) = (content(&db), description(&snapshot));
    drop(snapshot);
    let backup = options().open(&target).expect("opens beside the original");
    // Everything that removes files, in both, in turns.
    let change = |db: &Database, value: f64| {
        for hour in 0..3 {
            append(db, "a", hour * HOUR + 31, value);
        }
        assert!(db.refresh(..).expect("refreshes").blocks > 0);
        db.seal(..).expect("seals");
        db.checkpoint().expect("a checkpoint");
        assert_eq!(db.stats().superseded_volumes, 0);
    };
    change(&db, 1.0);
    assert_same(&content(&backup), &content_then, "the original changed");
    assert_eq!(description(&backup.snapshot()), description_then);
    let now = content(&db);
    change(&backup, 2.0);
    let mut txn = backup.begin_write();
    txn.drop_metric(&backup.metric("a").expect("a name")).expect("staged");
    txn.commit().expect("commits");
    backup.refresh(..).expect("refreshes");
    backup.checkpoint().expect("a checkpoint");
    let of_backup = content(&backup);
    assert_same(&content(&db), &now, "the backup changed");
    // And what opening sweeps.
    db.close().expect("closes");
    backup.close().expect("closes");
    let db = options().open(&original).expect("opens");
    let backup = options().open(&target).expect("opens");
    assert_same(&content(&db), &now, "the original after a restart");
    assert_same(&content(&backup), &of_backup, "the backup after a restart");
    for db in [&db, &backup] {
        assert!(db.open_report().foreign_files.is_empty());
        assert!(db.snapshot().volumes().all(|volume| volume.verify().is_empty()));
    }
}

#[test]
fn a_snapshot_of_any_age_is_backed_up() {
    for seed in 900..920 {
        let history = History { seed, steps: 0, bug: None };
        let disk = SimulatedDisk::new(seed);
        let begun = Session::begin(history, Arc::new(disk.clone()), Progress::default());
        let mut session = begun.expect("a sound disk");
        let mut backups = 0;
        for step in 0..25 {
            session.step(step).expect("a sound disk");
            if step % 4 != 3 {
                continue;
            }
            let newest = session.db.snapshot();
            let snapshots = session.snapshots.iter().map(|(snapshot, _)| snapshot).chain([&newest]);
            for snapshot in snapshots {
                backups += 1;
                let target = format!("/backups/{backups}");
                let report = snapshot.backup_to(&target).expect("a backup");
                let opened = history.options().create(false).open_on(Arc::new(disk.clone()), &target);
                let backup = opened.expect("opens");
                assert_equal(&backup, snapshot);
                // It seals, checkpoints and opens again like any other.
                let before = content(&backup);
                backup.seal(..).expect("seals");
                backup.refresh(..).expect("refreshes");
                backup.checkpoint().expect("a checkpoint");
                assert_same(&content(&backup), &before, "sealed");
                assert_eq!(backup.stats().points, 0);
                backup.close().expect("closes");
                let opened = history.options().open_on(Arc::new(disk.clone()), &target).expect("opens");
                assert_same(&content(&opened), &before, "sealed and opened again");
                assert_eq!(report.volumes, snapshot.volumes().count() as u64);
            }
        }
        session.check().expect("reads");
        session.settle(&disk).expect("the original is as it was");
        assert!(backups >= 6, "seed {seed}");
    }
}

#[test]
fn backups_under_load_equal_their_snapshots() {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let small =
        options().workers(1).memory_max(8 << 20).checkpoint_log_bytes(256 << 10).install_slice_metrics(2);
    let db = small.open(dir.path().join("db")).expect("opens");
    let is_over = AtomicBool::new(false);
    let seed = 0xbac;
    println!("seed {seed:#x}");
    thread::scope(|scope| {
        for writer in 0..2 {
            let (db, is_over) = (&db, &is_over);
            scope.spawn(move || {
                let mut random = Random::of(seed, writer, 0, 0);
                while !is_over.load(Ordering::Relaxed) {
                    let mut txn = db.begin_write();
                    for _ in 0..50 {
                        let metric = db.metric(format!("m{}", random.below(30))).expect("a name");
                        let second = random.below(6 * HOUR as u64) as i64;
                        match txn.append(&metric, at(second), second as f64) {
                            Ok(()) | Err(Error::MetricDropped(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    let metric = db.metric(format!("m{}", random.below(30))).expect("a name");
                    let staged = match random.below(20) {
                        0 => txn.drop_metric(&metric),
                        1 => txn.delete(&metric, at(0)..at(HOUR)),
                        _ => Ok(()),
                    };
                    assert!(matches!(staged, Ok(()) | Err(Error::MetricDropped(_))), "{staged:?}");
                    txn.put_meta("count", random.next().to_le_bytes()).expect("staged");
                    match txn.commit() {
                        Ok(_) | Err(Error::MetricDropped(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut random = Random::of(seed, 9, 0, 0);
            while !is_over.load(Ordering::Relaxed) {
                match random.below(4) {
                    0 => drop(db.checkpoint().expect("a checkpoint")),
                    1 => drop(db.refresh(..).expect("refreshes")),
                    _ => drop(db.seal(..at(random.below(6 * HOUR as u64) as i64)).expect("seals")),
                }
            }
        });
        scope.spawn(|| {
            let _over = Over(&is_over);
            for number in 0..12 {
                thread::sleep(Duration::from_millis(50));
                let snapshot = db.snapshot();
                let target = dir.path().join(format!("backup-{number}"));
                let report = snapshot.backup_to(&target).expect("a backup");
                let backup = options().open(&target).expect("opens");
                assert_equal(&backup, &snapshot);
                let before = content(&backup);
                backup.seal(..).expect("seals");
                backup.refresh(..).expect("refreshes");
                assert_same(&content(&backup), &before, "sealed");
                println!("{number}: {report:?}");
            }
        });
    });
    let before = content(&db);
    db.close().expect("closes");
    let db = options().open(dir.path().join("db")).expect("opens");
    assert_same(&content(&db), &before, "the original");
}

#[test]
fn a_backup_that_was_cut_is_whole_or_none() {
    let (disk, db) = simulated();
    db.sync().expect("durable");
    let (snapshot, before) = (db.snapshot(), content(&db));
    // Nothing of the original is written meanwhile, so that each cut may begin with the same disk.
    let trace = {
        let disk = disk.after_power_cut(CutState::All, 0);
        let db = open(&disk, DIR).expect("opens");
        let first = disk.calls() + 1;
        db.snapshot().backup_to(TARGET).expect("a backup");
        first..=disk.calls()
    };
    let (mut whole, mut none) = (0, 0);
    for call in trace {
        let disk = disk.after_power_cut(CutState::All, 0);
        let db = open(&disk, DIR).expect("opens");
        disk.cut_power_within(call);
        let cut = db.snapshot().backup_to(TARGET);
        let states = CutState::ALL
            .into_iter()
            .map(|state| (state, 0))
            .chain((0..3).map(|seed| (CutState::Random, seed)));
        for (state, seed) in states {
            let found = disk.after_power_cut(state, seed);
            match open(&found, TARGET) {
                Ok(backup) => {
                    assert_equal(&backup, &snapshot);
                    whole += 1;
                }
                Err(Error::NotADatabase { .. }) => {
                    assert!(cut.is_err());
                    none += 1;
                }
                Err(error) => panic!("call {call}, {state:?}: {error:?}"),
            }
            let original = open(&found, DIR).expect("the original opens");
            assert_same(&content(&original), &before, "the original");
        }
    }
    assert!(whole > 0 && none > 100, "{whole} whole, {none} none");
    println!("{whole} whole, {none} none");
    // One that was begun says so.
    disk.cut_power_at(disk.calls() + 20);
    assert!(snapshot.backup_to(TARGET).is_err());
    let Err(told) = open(&disk.after_power_cut(CutState::None, 0), TARGET) else { panic!("it is none") };
    assert!(told.to_string().contains("backup"), "{told}");
}

#[test]
fn a_failing_call_makes_no_backup_and_leaves_the_original_alone() {
    let (disk, db) = simulated();
    let (snapshot, before) = (db.snapshot(), content(&db));
    let first = disk.calls() + 1;
    snapshot.backup_to("/backups/0").expect("a backup");
    let calls = disk.calls() + 1 - first;
    for (number, fault) in (1..=calls).flat_map(|call| [(call, Fault::NoSpace), (call, Fault::InputOutput)]) {
        let target = format!("/backups/{fault:?}-{number}");
        disk.fail(disk.calls() + number, fault, false);
        let failed = snapshot.backup_to(&target);
        disk.clear_faults();
        match failed {
            // The folders above were there; or the last sync was in vain.
            Ok(_) => assert_equal(&open(&disk, &target).expect("opens"), &snapshot),
            Err(Error::Io { .. } | Error::DiskFull { .. }) => {
                if let Ok(backup) = open(&disk, &target) {
                    assert_equal(&backup, &snapshot);
                }
            }
            Err(error) => panic!("{fault:?} at {number}: {error:?}"),
        }
    }
    disk.set_capacity(Some(disk.bytes_allocated() + 5_000));
    let full = snapshot.backup_to("/backups/full").expect_err("there is no room");
    assert_eq!(full.io_kind(), Some(std::io::ErrorKind::StorageFull), "{full:?}");
    let opened = open(&disk, "/backups/full");
    assert!(matches!(opened, Err(Error::NotADatabase { .. })), "{opened:?}");
    disk.set_capacity(None);
    append(&db, "a", 3, 3.0);
    assert!(content(&db) != before);
    db.checkpoint().expect("a checkpoint");
    let now = content(&db);
    drop((snapshot, db));
    assert_same(&content(&open(&disk, DIR).expect("opens")), &now, "the original");
}

#[test]
fn a_folder_with_anything_in_it_is_refused_and_left_alone() {
    let (disk, db) = simulated();
    let snapshot = db.snapshot();
    let refused = |target: &str| {
        let found = disk.fingerprint();
        let refused = snapshot.backup_to(target);
        assert!(matches!(refused, Err(Error::NotEmpty { .. })), "{refused:?}");
        assert_eq!(disk.fingerprint(), found);
    };
    refused(DIR);
    disk.create_dir_all("/full/folder".as_ref()).expect("made");
    refused("/full");
    snapshot.backup_to(TARGET).expect("a backup");
    refused(TARGET);
    disk.create_dir_all("/empty".as_ref()).expect("made");
    snapshot.backup_to("/empty").expect("a backup");
    // Somebody makes a database there.
    disk.create_dir_all("/other".as_ref()).expect("made");
    let lock = disk.try_lock("/other/LOCK".as_ref()).expect("a lock").expect("it is free");
    disk.remove("/other/LOCK".as_ref()).expect("removed");
    snapshot.backup_to("/other").expect("the lock is on a file that is gone");
    drop(lock);
}

#[test]
fn progress_is_told_and_may_end_it() {
    let (disk, db) = simulated();
    let mut told = Vec::new();
    let done = db.snapshot().backup_with(TARGET, |progress| {
        told.push((progress.done, progress.volumes));
        ControlFlow::Continue(())
    });
    let volumes = done.expect("a backup").volumes;
    assert_eq!(told, (0..=volumes).map(|done| (done, volumes)).collect::<Vec<_>>());
    let ended = db.snapshot().backup_with("/ended", |progress| match progress.done {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    });
    assert!(matches!(ended, Err(Error::BackupEnded { .. })), "{ended:?}");
    let opened = open(&disk, "/ended");
    assert!(matches!(opened, Err(Error::NotADatabase { .. })), "{opened:?}");
}

#[test]
fn a_backup_of_a_backup_is_one() {
    let (disk, db) = simulated();
    let snapshot = db.snapshot();
    snapshot.backup_to(TARGET).expect("a backup");
    let backup = open(&disk, TARGET).expect("opens");
    backup.snapshot().backup_to("/backups/second").expect("a backup of it");
    drop(backup);
    // Of one that is open for reading only, too.
    let read_only = Options::new().read_only(true).open_on(Arc::new(disk.clone()), TARGET).expect("opens");
    assert_equal(&read_only, &snapshot);
    read_only.snapshot().backup_to("/backups/third").expect("a backup of it");
    for dir in ["/backups/second", "/backups/third"] {
        assert_equal(&open(&disk, dir).expect("opens"), &snapshot);
    }
}

#[test]
fn a_database_that_is_closed_or_in_memory_is_backed_up() {
    let (disk, db) = simulated();
    let snapshot = db.snapshot();
    db.close().expect("closes");
    snapshot.backup_to(TARGET).expect("a backup");
    assert_equal(&open(&disk, TARGET).expect("opens"), &snapshot);

    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let db = Options::new().block_size(Duration::from_secs(60)).open_in_memory().expect("opens");
    append(&db, "m", 1, 1.0);
    let snapshot = db.snapshot();
    assert_eq!(snapshot.backup_to(dir.path()).expect("a backup").volumes, 0);
    let backup = Database::open(dir.path()).expect("opens");
    assert_equal(&backup, &snapshot);
    append(&backup, "m", 2, 1.0);
    let now = content(&backup);
    backup.close().expect("closes");
    assert_same(&content(&Database::open(dir.path()).expect("opens")), &now, "after a restart");
}

#[test]
fn where_there_are_no_links_files_are_copied() {
    let disk = SimulatedDisk::new(1);
    let db = sample(Arc::new(Unlinked(disk.clone())), DIR.as_ref());
    let snapshot = db.snapshot();
    let report = snapshot.backup_to(TARGET).expect("a backup");
    assert_eq!((report.linked_files, report.copied_files), (0, 8 * report.volumes));
    let below = |dir: &str| {
        let data = PathBuf::from(dir).join("data");
        let files = disk.files().into_iter().filter(|(path, _)| path.starts_with(&data));
        files.map(|(_, bytes)| bytes).sum::<u64>()
    };
    assert_eq!((report.copied_bytes, below(TARGET)), (below(DIR), below(DIR)));
    assert_equal(&open(&disk.after_power_cut(CutState::None, 0), TARGET).expect("opens"), &snapshot);
    // A missing file is not passed over.
    let missing = disk
        .files()
        .into_iter()
        .find(|(path, _)| path.starts_with("/db/data") && path.to_string_lossy().ends_with("data.db"));
    disk.remove(&missing.expect("a volume has one").0).expect("removed");
    let failed = snapshot.backup_to("/backups/second");
    assert!(matches!(failed, Err(Error::Corrupt { .. })), "{failed:?}");
}

/// Ends the other threads' work when this one's ends, also by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A disk that gives each file one name.
#[derive(Debug)]
struct Unlinked(SimulatedDisk);

impl Vfs for Unlinked {
    fn create_dir_all(&self, path: &Path) -> chronolith::Result<()> {
        self.0.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> chronolith::Result<Option<Vec<OsString>>> {
        self.0.read_dir(path)
    }

    fn create(&self, path: &Path) -> chronolith::Result<Box<dyn VfsFile>> {
        self.0.create(path)
    }

    fn open(&self, path: &Path, write: bool) -> chronolith::Result<Option<Box<dyn VfsFile>>> {
        self.0.open(path, write)
    }

    fn map(&self, path: &Path) -> chronolith::Result<Mapping> {
        self.0.map(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> chronolith::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> chronolith::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> chronolith::Result<()> {
        self.0.sync_dir(path)
    }

    fn try_lock(&self, path: &Path) -> chronolith::Result<Option<Box<dyn VfsLock>>> {
        self.0.try_lock(path)
    }
}
