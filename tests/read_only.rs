//! Reading the last checkpoint beside a writer: what is seen, that nothing is changed, and that the writer is in nobody's way.

mod common;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use chronolith::io::{Linked, Mapping, RealDisk, SimulatedDisk, Vfs, VfsFile, VfsLock};
use chronolith::{Database, Durability, Error, Options, Timestamp};
use common::seals::{Content, assert_same, read, volumes};
use common::torture::random::Random;

const DIR: &str = "/db";
const HOUR: i64 = 3_600;

fn options() -> Options {
    let sizes = Options::new().log_segment_bytes_min(16 * 1024).log_segment_bytes_max(16 * 1024);
    sizes.workers(0).shards(2).durability(Durability::Buffered).block_size(Duration::from_secs(HOUR as u64))
}

fn open(disk: &SimulatedDisk) -> Database {
    options().open_on(Arc::new(disk.clone()), DIR).expect("opens")
}

fn reader(disk: impl Vfs + 'static) -> Result<Database, Error> {
    Options::new().read_only(true).open_on(Arc::new(disk), DIR)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 / HOUR * HOUR + second)
}

fn append(db: &Database, id: &str, second: i64, value: f64) {
    db.append(&db.metric(id).expect("a name"), at(second), value).expect("commits");
}

fn content(db: &Database) -> Content {
    read(&db.snapshot()).expect("reads")
}

/// A database with sealed blocks, late writes over them, and points in memory; there is a checkpoint of it.
fn sample(disk: &SimulatedDisk) -> Database {
    let db = open(disk);
    for hour in 0..3 {
        for second in 0..50 {
            append(&db, "a", hour * HOUR + second * 60, second as f64);
            append(&db, "b", hour * HOUR + second * 61, -1.0);
        }
    }
    db.seal(..at(2 * HOUR)).expect("seals");
    append(&db, "a", 30, 7.0);
    db.checkpoint().expect("a checkpoint");
    db
}

#[test]
fn the_last_checkpoint_is_read_while_the_writer_goes_on() {
    let disk = SimulatedDisk::new(1);
    let db = sample(&disk);
    let (before, version) = (content(&db), db.snapshot().version());
    append(&db, "a", 31, 8.0);
    let calls = disk.calls();
    let read_only = reader(disk.clone()).expect("opens beside the writer");
    assert_eq!((read_only.open_report().checkpoint, read_only.snapshot().version()), (version, version));
    assert_same(&content(&read_only), &before, "the checkpoint");
    assert_eq!(read_only.snapshot().volumes().count(), db.snapshot().volumes().count());
    // A second one, and the writer goes on in every way there is.
    let other = reader(disk.clone()).expect("opens beside the reader");
    assert_eq!(disk.calls(), calls, "neither changed anything");
    append(&db, "a", 32, 9.0);
    db.refresh(..).expect("refreshes");
    db.checkpoint().expect("a checkpoint");
    let now = content(&db);
    db.close().expect("closes");
    assert_same(&content(&read_only), &before, "after the next checkpoint");
    let calls = disk.calls();
    other.close().expect("closes");
    assert_same(&content(&reader(disk.clone()).expect("opens without a writer")), &now, "the next one");
    drop(read_only);
    assert_eq!(disk.calls(), calls, "nor did closing");
}

#[test]
fn changes_are_refused() {
    let disk = SimulatedDisk::new(1);
    drop(sample(&disk));
    let found = disk.fingerprint();
    let db = reader(disk.clone()).expect("opens");
    let metric = db.metric("a").expect("a name");
    assert!(matches!(db.append(&metric, at(0), 1.0), Err(Error::ReadOnly)));
    let mut txn = db.begin_checked();
    assert!(txn.latest(&metric).expect("reads").is_some());
    txn.put_meta("key", "value").expect("staged");
    assert!(matches!(txn.commit(), Err(Error::ReadOnly)));
    assert!(matches!(db.namespace("new"), Err(Error::ReadOnly)));
    assert!(matches!(db.seal(..), Err(Error::ReadOnly)));
    assert!(matches!(db.refresh(..), Err(Error::ReadOnly)));
    assert!(matches!(db.checkpoint(), Err(Error::ReadOnly)));
    db.sync().expect("there is nothing to do");
    db.maintain(Timestamp::MAX).expect("there is nothing to do");
    assert!(db.health().is_ok());
    db.close().expect("closes");
    assert_eq!(disk.fingerprint(), found);
}

#[test]
fn without_a_checkpoint_or_a_database_it_is_told_and_nothing_is_made() {
    let disk = SimulatedDisk::new(1);
    assert!(matches!(reader(disk.clone()), Err(Error::NotADatabase { .. })));
    assert_eq!(disk.read_dir(DIR.as_ref()).expect("the disk works"), None);
    let db = open(&disk);
    append(&db, "m", 0, 1.0);
    let Err(error) = reader(disk.clone()) else { panic!("there is no checkpoint") };
    assert!(matches!(error, Error::NoCheckpoint { .. }), "{error:?}");
    assert!(error.to_string().contains("checkpoint"), "{error}");
    db.checkpoint().expect("a checkpoint");
    assert_eq!(content(&reader(disk).expect("opens")).metrics.len(), 1);
}

#[test]
fn damage_is_an_error_and_not_taken_for_a_writer() {
    let disk = SimulatedDisk::new(1);
    drop(sample(&disk));
    let pages = Path::new(DIR).join("trees/pages");
    let file = disk.open(&pages, true).expect("opens").expect("it is there");
    let mut byte = [0];
    file.read_at(4_096 + 100, &mut byte).expect("reads");
    file.write_at(4_096 + 100, &[!byte[0]]).expect("writes");
    let opened = reader(disk.clone());
    assert!(matches!(opened, Err(Error::Corrupt { .. })), "{opened:?}");
    file.write_at(4_096 + 100, &byte).expect("writes");
    // A volume that is not there is an error where it is read, and nowhere else.
    let (folder, name) = volumes(&disk, Path::new(DIR)).remove(0);
    disk.remove(&folder.join(name.file_name(chronolith::fileset::VolumeFile::Data))).expect("removed");
    let db = reader(disk).expect("opens");
    let snapshot = db.snapshot();
    let read: Vec<_> =
        snapshot.metrics().flat_map(|metric| snapshot.range(&metric, ..).collect::<Vec<_>>()).collect();
    assert!(read.iter().any(|point| matches!(point, Err(Error::Corrupt { .. }))));
    assert!(read.iter().filter(|point| point.is_ok()).count() > 100);
}

#[test]
fn volumes_of_the_checkpoint_stay_until_the_next_one() {
    let disk = SimulatedDisk::new(1);
    let db = sample(&disk);
    let before = content(&db);
    let checkpointed = volumes(&disk, Path::new(DIR));
    append(&db, "a", 40, 1.0);
    append(&db, "a", HOUR + 40, 1.0);
    append(&db, "b", 40, 1.0);
    assert!(db.refresh(..).expect("refreshes").blocks >= 2);
    db.seal(..).expect("looks for superseded ones too");
    let are_there = || {
        let found = volumes(&disk, Path::new(DIR));
        checkpointed.iter().filter(|volume| found.contains(volume)).count()
    };
    assert!(db.stats().superseded_volumes >= 2);
    assert_eq!(are_there(), checkpointed.len());
    assert_same(&content(&reader(disk.clone()).expect("opens")), &before, "beside the writer");
    let now = content(&db);
    // Nor does the next opening remove them, which replays what superseded them.
    db.sync().expect("durable");
    let found = disk.after_power_cut(chronolith::io::CutState::None, 0);
    drop(db);
    let db = open(&found);
    let swept = &db.open_report().swept_files;
    assert!(swept.iter().all(|file| !file.starts_with("/db/data")), "{swept:?}");
    assert_same(&content(&db), &now, "after the restart");
    assert_same(&content(&reader(found.clone()).expect("opens")), &before, "after the restart");
    let all = volumes(&found, Path::new(DIR)).len();
    assert_eq!(db.stats().superseded_volumes as usize + db.snapshot().volumes().count(), all);
    db.checkpoint().expect("a checkpoint");
    assert_eq!(db.stats().superseded_volumes, 0);
    assert_eq!(volumes(&found, Path::new(DIR)).len(), db.snapshot().volumes().count());
    assert_same(&content(&reader(found).expect("opens")), &now, "the next checkpoint");
}

#[test]
fn closing_lets_nothing_wait_for_the_next_process() {
    let disk = SimulatedDisk::new(1);
    let db = sample(&disk);
    append(&db, "a", 40, 1.0);
    assert!(db.refresh(..).expect("refreshes").blocks > 0);
    assert!(db.stats().superseded_volumes > 0);
    let (now, count) = (content(&db), db.snapshot().volumes().count());
    db.close().expect("closes");
    assert_eq!(volumes(&disk, Path::new(DIR)).len(), count);
    assert_same(&content(&reader(disk).expect("opens")), &now, "the checkpoint of the closing");
}

#[test]
fn a_checkpoint_at_any_moment_of_opening_is_noticed() {
    let disk = SimulatedDisk::new(1);
    let db = Arc::new(sample(&disk));
    let calls = {
        let meddled = Meddled::new(&disk, |_| {});
        reader(meddled.clone()).expect("opens");
        meddled.calls()
    };
    assert!(calls > 50, "{calls} calls");
    let rounds = Arc::new(AtomicU64::new(0));
    for call in 1..=calls {
        let contents = Arc::new(Mutex::new(vec![(db.snapshot().version(), content(&db))]));
        let meddled = Meddled::new(&disk, {
            let (db, contents, rounds) = (db.clone(), contents.clone(), rounds.clone());
            move |now| {
                if now != call {
                    return;
                }
                // Two of them: what the first one had is written over by the second.
                for _ in 0..2 {
                    let round = rounds.fetch_add(1, Ordering::Relaxed) as i64;
                    append(&db, &format!("m{}", round % 40), round % (3 * HOUR), round as f64);
                    append(&db, "a", round % HOUR, round as f64);
                    db.refresh(..).expect("refreshes");
                    let report = db.checkpoint().expect("a checkpoint");
                    contents.lock().expect("no panic").push((report.version, content(&db)));
                }
            }
        });
        let read_only = reader(meddled.clone()).expect("opens");
        let version = read_only.open_report().checkpoint;
        let contents = contents.lock().expect("no panic");
        let wanted = contents.iter().find(|(at, _)| *at == version).or(contents.first());
        assert_same(&content(&read_only), &wanted.expect("one of them").1, &format!("call {call}"));
        // All it needs is open: whatever the writer removes now.
        db.refresh(..).expect("refreshes");
        db.checkpoint().expect("a checkpoint");
        assert_same(&content(&read_only), &wanted.expect("one of them").1, &format!("after call {call}"));
    }
}

#[test]
fn checkpoints_that_never_end_are_told() {
    let disk = SimulatedDisk::new(1);
    let db = Arc::new(sample(&disk));
    let meddled = Meddled::new(&disk, move |now| {
        if now % 10 == 0 {
            append(&db, "a", now as i64, 1.0);
            db.checkpoint().expect("a checkpoint");
        }
    });
    let opened = reader(meddled);
    assert!(matches!(opened, Err(Error::CheckpointMoved { .. })), "{opened:?}");
}

/// For continuous integration it is short; `CHRONOLITH_READ_ONLY_SECONDS=60` for the long form.
#[test]
fn readers_open_in_a_loop_beside_a_writer_that_seals() {
    let seconds = std::env::var("CHRONOLITH_READ_ONLY_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(2));
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let path = dir.path().join("db");
    let db = options().workers(1).open(&path).expect("opens");
    append(&db, "m0", 0, 0.0);
    db.checkpoint().expect("a checkpoint");
    // The bits of all points at each checkpoint that a reader may come to see.
    let known = Mutex::new(vec![(db.snapshot().version(), content(&db))]);
    let is_over = AtomicBool::new(false);
    let (opened, seen) = (AtomicU64::new(0), Mutex::new(std::collections::BTreeSet::new()));
    let seed = 0x5eed;
    println!("seed {seed:#x}");
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::of(seed, 0, 0, 0);
            while !is_over.load(Ordering::Relaxed) {
                let mut txn = db.begin_write();
                for _ in 0..20 {
                    let metric = db.metric(format!("m{}", random.below(20))).expect("a name");
                    let second = random.below(6 * HOUR as u64) as i64;
                    txn.append(&metric, at(second), second as f64).expect("staged");
                }
                if random.below(4) == 0 {
                    txn.delete(&db.metric("m1").expect("a name"), at(0)..at(HOUR)).expect("staged");
                }
                txn.commit().expect("commits");
                match random.below(6) {
                    0 => drop(db.seal(..at(random.below(6 * HOUR as u64) as i64)).expect("seals")),
                    1 => drop(db.refresh(..).expect("refreshes")),
                    2 => {
                        // Nobody else commits: the checkpoint has what this snapshot has. It is known before a reader can see it.
                        let snapshot = db.snapshot();
                        let read = read(&snapshot).expect("reads");
                        known.lock().expect("no panic").push((snapshot.version(), read));
                        drop(snapshot);
                        db.checkpoint().expect("a checkpoint");
                    }
                    _ => {}
                }
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let _over = Over(&is_over);
                while Instant::now() < end {
                    let read_only = Database::open_read_only(&path).expect("opens");
                    let version = read_only.open_report().checkpoint;
                    let found = content(&read_only);
                    let known = known.lock().expect("no panic");
                    let wanted = known.iter().rev().find(|(at, _)| *at == version);
                    let Some((_, wanted)) = wanted else {
                        // The background's own, between two commits: read again, it is the same.
                        drop(known);
                        assert_same(&content(&read_only), &found, "read twice");
                        continue;
                    };
                    assert_same(&found, wanted, "the checkpoint");
                    opened.fetch_add(1, Ordering::Relaxed);
                    seen.lock().expect("no panic").insert(version);
                }
            });
        }
    });
    let (opened, seen) = (opened.into_inner(), seen.into_inner().expect("no panic").len());
    println!("{opened} openings saw {seen} checkpoints");
    assert!(opened > 0 && seen > 1, "{opened} openings saw {seen} checkpoints");
    // All that the readers left open or looked at is as the writer has it.
    let now = content(&db);
    db.close().expect("closes");
    assert_same(&content(&options().open(&path).expect("opens")), &now, "after the readers");
    assert!(RealDisk::new().open(&path.join("LOCK"), false).expect("readable").is_some());
}

/// Ends the other threads' work when this one's ends, also by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A disk that does something else before each call that only looks.
#[derive(Clone)]
struct Meddled {
    disk: SimulatedDisk,
    calls: Arc<AtomicU64>,
    meddle: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Meddled {
    fn new(disk: &SimulatedDisk, meddle: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Meddled { disk: disk.clone(), calls: Arc::default(), meddle: Arc::new(meddle) }
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn look(&self) -> &SimulatedDisk {
        (self.meddle)(self.calls.fetch_add(1, Ordering::Relaxed) + 1);
        &self.disk
    }
}

impl fmt::Debug for Meddled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meddled")
    }
}

/// What a reader must not do.
fn refused<T>() -> chronolith::Result<T> {
    panic!("a reader changes nothing")
}

impl Vfs for Meddled {
    fn create_dir_all(&self, _: &Path) -> chronolith::Result<()> {
        refused()
    }

    fn read_dir(&self, path: &Path) -> chronolith::Result<Option<Vec<OsString>>> {
        self.look().read_dir(path)
    }

    fn create(&self, _: &Path) -> chronolith::Result<Box<dyn VfsFile>> {
        refused()
    }

    fn open(&self, path: &Path, write: bool) -> chronolith::Result<Option<Box<dyn VfsFile>>> {
        assert!(!write, "{}", path.display());
        let file = self.look().open(path, false)?;
        Ok(file.map(|file| -> Box<dyn VfsFile> { Box::new(MeddledFile { file, disk: self.clone() }) }))
    }

    fn map(&self, path: &Path) -> chronolith::Result<Mapping> {
        self.look().map(path)
    }

    fn rename(&self, _: &Path, _: &Path) -> chronolith::Result<()> {
        refused()
    }

    fn link(&self, _: &Path, _: &Path) -> chronolith::Result<Linked> {
        refused()
    }

    fn remove(&self, _: &Path) -> chronolith::Result<()> {
        refused()
    }

    fn sync_dir(&self, _: &Path) -> chronolith::Result<()> {
        refused()
    }

    fn try_lock(&self, _: &Path) -> chronolith::Result<Option<Box<dyn VfsLock>>> {
        refused()
    }
}

#[derive(Debug)]
struct MeddledFile {
    file: Box<dyn VfsFile>,
    disk: Meddled,
}

impl VfsFile for MeddledFile {
    fn len(&self) -> chronolith::Result<u64> {
        self.disk.look();
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> chronolith::Result<usize> {
        self.disk.look();
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> chronolith::Result<()> {
        refused()
    }

    fn set_len(&self, _: u64) -> chronolith::Result<()> {
        refused()
    }

    fn sync(&self) -> chronolith::Result<()> {
        refused()
    }
}
