//! A full disk: what fails is told, all is readable, commits go on as long as the log has room, sealing goes on when there is space, and nothing
//! is lost or left behind.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chronolith::fileset::VolumeName;
use chronolith::io::{CallKind, CutState, Fault, SimulatedDisk};
use chronolith::{Database, Durability, Error, Metric, Options, Timestamp, Trouble};
use common::seals::volumes;

/// Midnight, within a block of 30 days: so days are the widest blocks that time has left.
const BEGIN: i64 = 1_700_611_200;
const DIR: &str = "/db";
/// So many that an install of one metric a slice takes more than one segment of the log.
const METRICS: usize = 200;

fn options() -> Options {
    let options = Options::new().shards(1).workers(0).durability(Durability::Buffered);
    options.log_segment_bytes_min(16 * 1024).log_segment_bytes_max(16 * 1024).log_buffer_bytes(0)
}

fn open(options: Options, disk: &SimulatedDisk) -> Result<Database, Error> {
    options.open_on(Arc::new(disk.clone()), DIR)
}

fn metrics(db: &Database, count: usize) -> Vec<Metric> {
    (0..count).map(|index| db.metric(format!("m{index:03}")).expect("valid")).collect()
}

fn value(metric: usize, hour: i64) -> f64 {
    (metric as f64 + 0.1) * (hour as f64 - 7.3)
}

/// A database, and which points must be in it.
struct Filled {
    db: Database,
    metrics: usize,
    /// All whose commit was acknowledged.
    points: BTreeSet<(usize, i64)>,
}

impl Filled {
    /// With a point in each of these hours, in each metric.
    fn new(options: Options, disk: &SimulatedDisk, metrics: usize, hours: std::ops::Range<i64>) -> Filled {
        let db = open(options, disk).expect("opens");
        let mut filled = Filled { db, metrics, points: BTreeSet::new() };
        for hour in hours {
            filled.write(hour).expect("there is room");
        }
        filled
    }

    /// A point in each metric, one commit for all.
    fn write(&mut self, hour: i64) -> Result<(), Error> {
        let mut txn = self.db.begin_write();
        for (index, metric) in metrics(&self.db, self.metrics).iter().enumerate() {
            txn.append(metric, Timestamp::from_secs(BEGIN + 3_600 * hour), value(index, hour))?;
        }
        txn.commit()?;
        self.points.extend((0..self.metrics).map(|index| (index, hour)));
        Ok(())
    }

    fn assert_all(&self) {
        let snapshot = self.db.snapshot();
        let mut found = BTreeSet::new();
        for (index, metric) in metrics(&self.db, self.metrics).iter().enumerate() {
            for point in snapshot.range(metric, ..) {
                let point = point.expect("readable");
                let hour = (point.at.as_nanos() / 1_000_000_000 - BEGIN) / 3_600;
                assert_eq!(point.value.to_bits(), value(index, hour).to_bits());
                assert!(found.insert((index, hour)), "{metric} has {hour} twice");
            }
        }
        assert!(found == self.points, "{} points are there, not {}", found.len(), self.points.len());
    }

    /// Maintenance, as far as it is sealing: a checkpoint that fails for the same reason keeps the log, and is told as such.
    fn maintain(&self, now: Timestamp) -> Result<(), Error> {
        let done = self.db.maintain(now);
        if done.is_err() && self.db.stats().upkeep_error.is_none() {
            let health = self.db.health();
            assert!(matches!(health.troubles(), [Trouble::CheckpointFailing { .. }]), "{health}");
            return Ok(());
        }
        done
    }

    /// Sealing fails because of the disk, and everything that tells of it says so.
    fn assert_told(&self) {
        let stats = self.db.stats();
        let told = stats.upkeep_error.expect("it failed");
        assert!(stats.upkeep_failures > 0 && !stats.stopped);
        let health = self.db.health();
        let [Trouble::UpkeepFailing { last_error, .. }, ..] = health.troubles() else { panic!("{health}") };
        assert_eq!(*last_error, told);
        let text = health.to_string();
        let of_the_disk = told.contains("no space left for the commit log") || told.contains("/db/data");
        assert!(of_the_disk && text.contains(&told) && text.contains("Remove the cause"), "{text}");
    }

    /// There is space again: the next look does all that is due, nothing is left of what failed, and all is there when the database is opened again.
    fn goes_on(mut self, options: Options, disk: &SimulatedDisk) {
        disk.set_capacity(None);
        self.db.maintain(Timestamp::MAX).expect("there is space");
        assert!(self.db.health().is_ok(), "{}", self.db.health());
        assert_eq!((self.db.stats().upkeep_failures, self.db.stats().upkeep_error), (0, None));
        self.assert_all();
        self.db.seal(..).expect("there is space");
        assert_eq!((self.db.stats().points, self.db.stats().superseded_volumes), (0, 0));
        assert_whole_volumes_only(disk);
        self.write(1_000_000).expect("there is space");
        self.assert_all();
        self.db.close().expect("closes");
        self.db = open(options, disk).expect("opens");
        assert_eq!(self.db.open_report().swept_files, Vec::<String>::new());
        self.assert_all();
        // What was durable is so after a power cut too.
        let disk = disk.after_power_cut(CutState::None, 1);
        drop(std::mem::replace(&mut self.db, open(Options::new().workers(0), &disk).expect("opens")));
        self.assert_all();
    }
}

/// No file of an unfinished or superseded volume is there.
fn assert_whole_volumes_only(disk: &SimulatedDisk) {
    let files = disk.files().into_iter().map(|(path, _)| path);
    let of_volumes = files.filter(|path| path.starts_with(Path::new(DIR).join("data"))).map(|path| {
        let name = VolumeName::of_file(&path).expect("only volumes are there");
        (path.parent().expect("a folder").to_owned(), name)
    });
    let with_files: BTreeSet<_> = of_volumes.collect();
    assert_eq!(with_files, volumes(disk, Path::new(DIR)).into_iter().collect());
}

/// Leaves so many bytes free.
fn leave(disk: &SimulatedDisk, bytes: u64) {
    disk.set_capacity(Some(disk.bytes_allocated() + bytes));
}

/// Runs `work` with less and less space missing, until it succeeds; `full` is told of each failure. Returns how many there were.
fn until_it_fits(
    disk: &SimulatedDisk,
    mut work: impl FnMut() -> Result<(), Error>,
    mut full: impl FnMut(Error),
) -> u32 {
    let before = disk.bytes_allocated();
    for failures in 0..10_000 {
        disk.set_capacity(Some(before + 37 * u64::from(failures)));
        match work() {
            Ok(()) => return failures,
            Err(error) => full(error),
        }
    }
    panic!("it never fits");
}

#[test]
fn a_seal_without_space_at_any_byte_is_told_and_leaves_nothing() {
    let disk = SimulatedDisk::new(1);
    let filled = Filled::new(options(), &disk, 3, 0..24);
    filled.db.sync().expect("syncs");
    // So that there is room for the freeze wherever the log stands.
    let now = std::cell::Cell::new(Timestamp::now());
    let failures = until_it_fits(
        &disk,
        || {
            // Later than any wait after a failure.
            now.set(now.get() + Duration::from_secs(3_600));
            filled.maintain(now.get())
        },
        |error| {
            assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull), "{error:?}");
            filled.assert_told();
            filled.assert_all();
            assert_whole_volumes_only(&disk);
        },
    );
    assert!(failures > 20, "{failures} failures");
    assert!(filled.db.stats().volumes > 0);
    filled.goes_on(options(), &disk);
}

#[test]
fn a_refresh_without_space_at_any_byte_is_told_and_leaves_the_old_volume() {
    let disk = SimulatedDisk::new(2);
    let options = || options().refresh_bytes(0);
    let mut filled = Filled::new(options(), &disk, 3, 0..24);
    filled.db.seal(..).expect("there is room");
    let before: BTreeSet<_> = volumes(&disk, Path::new(DIR)).into_iter().collect();
    filled.points.remove(&(1, 7));
    let mut txn = filled.db.begin_write();
    let seventh = Timestamp::from_secs(BEGIN + 7 * 3_600);
    txn.delete(&metrics(&filled.db, 3)[1], seventh..=seventh).expect("staged");
    txn.commit().expect("there is room");
    filled.db.sync().expect("syncs");
    let now = std::cell::Cell::new(Timestamp::now());
    let failures = until_it_fits(
        &disk,
        || {
            now.set(now.get() + Duration::from_secs(3_600));
            filled.maintain(now.get())
        },
        |error| {
            assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull), "{error:?}");
            filled.assert_told();
            filled.assert_all();
            assert_whole_volumes_only(&disk);
            assert_eq!(volumes(&disk, Path::new(DIR)).into_iter().collect::<BTreeSet<_>>(), before);
        },
    );
    assert!(failures > 20, "{failures} failures");
    assert_ne!(volumes(&disk, Path::new(DIR)).into_iter().collect::<BTreeSet<_>>(), before);
    filled.goes_on(options(), &disk);
}

#[test]
fn commits_go_on_while_the_log_has_room_and_again_when_there_is_space() {
    let disk = SimulatedDisk::new(3);
    let mut filled = Filled::new(options(), &disk, 3, 0..24);
    leave(&disk, 600);
    let now = Timestamp::now();
    filled.db.maintain(now).expect_err("a volume needs more");
    filled.assert_told();
    let mut hour = 24;
    let refused = loop {
        match filled.write(hour) {
            Ok(()) => hour += 1,
            Err(error) => break error,
        }
        assert!(hour < 10_000, "a segment has room for fewer");
    };
    assert!(hour > 30, "there was room in the segment: {hour}");
    assert!(matches!(refused, Error::DiskFull { .. }), "{refused:?}");
    filled.assert_all();
    // Nothing that was tried in between has stopped anything.
    assert!(matches!(filled.write(hour), Err(Error::DiskFull { .. })));
    disk.set_capacity(None);
    filled.write(hour).expect("there is space");
    filled.goes_on(options(), &disk);
}

/// Seals until the volume is complete, and has the disk full from then on, so that the log has no room for the whole install.
fn half_installed(options: Options, disk: &SimulatedDisk, hours: std::ops::Range<i64>) -> Filled {
    let filled = Filled::new(options, disk, METRICS, hours);
    filled.db.sync().expect("syncs");
    let done = Arc::new(AtomicBool::new(false));
    let is_full = done.clone();
    disk.watch(move |disk, _| {
        if !is_full.load(Ordering::SeqCst) && !volumes_of(disk).is_empty() {
            is_full.store(true, Ordering::SeqCst);
            leave(disk, 0);
        }
    });
    let refused = filled.db.maintain(Timestamp::MAX).expect_err("the log has no room for the install");
    disk.unwatch();
    assert!(done.load(Ordering::SeqCst) && matches!(refused, Error::DiskFull { .. }), "{refused:?}");
    assert_eq!(filled.db.stats().volumes, 1);
    assert!((1..filled.points.len() as u64).contains(&filled.db.stats().points), "it is half installed");
    filled
}

/// The names of checkpoints.
fn volumes_of(disk: &SimulatedDisk) -> Vec<String> {
    let names = disk.files().into_iter().map(|(path, _)| path.display().to_string());
    names.filter(|path| path.ends_with("checkpoint.db")).collect()
}

fn slices() -> Options {
    options().install_slice_metrics(1)
}

#[test]
fn an_install_without_space_is_told_and_completed_by_the_next_look() {
    let disk = SimulatedDisk::new(4);
    let filled = half_installed(slices(), &disk, 0..24);
    filled.assert_told();
    filled.assert_all();
    filled.db.maintain(Timestamp::MAX).expect_err("nothing has changed");
    filled.assert_told();
    filled.assert_all();
    filled.goes_on(slices(), &disk);
}

#[test]
fn a_database_with_an_unfinished_install_opens_on_a_full_disk() {
    for cut in [None, Some(CutState::All)] {
        let disk = SimulatedDisk::new(5);
        let mut filled = half_installed(slices(), &disk, 0..24);
        let disk = match cut {
            None => {
                let in_memory = Database::in_memory().expect("opens");
                std::mem::replace(&mut filled.db, in_memory).close().expect("closes");
                disk
            }
            Some(cut) => disk.after_power_cut(cut, 1),
        };
        leave(&disk, 0);
        filled.db = open(slices(), &disk).expect("it opens all the same");
        filled.assert_told();
        filled.assert_all();
        assert!(filled.db.stats().points > 0, "it is not installed");
        let refused = filled.db.maintain(Timestamp::MAX).expect_err("nothing has changed");
        assert!(matches!(refused, Error::DiskFull { .. }), "{refused:?}");
        let refused = filled.db.seal(..).expect_err("nothing has changed");
        assert!(matches!(refused, Error::DiskFull { .. }), "{refused:?}");
        filled.assert_told();
        filled.assert_all();
        filled.goes_on(slices(), &disk);
    }
}

#[test]
fn a_refresh_that_was_half_installed_keeps_both_volumes_until_it_is_complete() {
    let disk = SimulatedDisk::new(6);
    let mut filled = Filled::new(slices(), &disk, METRICS, 0..1);
    filled.db.seal(..).expect("there is room");
    filled.write(1).expect("there is room");
    let before = volumes_of(&disk);
    let known = before.clone();
    disk.watch(move |disk, _| {
        if volumes_of(disk).iter().any(|name| !known.contains(name)) {
            leave(disk, 0);
        }
    });
    filled.db.refresh(..).expect_err("the log has no room for the install");
    disk.unwatch();
    let disk = disk.after_power_cut(CutState::All, 1);
    leave(&disk, 0);
    filled.db = open(slices(), &disk).expect("it opens all the same");
    filled.assert_told();
    filled.assert_all();
    assert_eq!(volumes_of(&disk).len(), before.len() + 1, "some metrics are in the one, some in the other");
    filled.goes_on(slices(), &disk);
    assert!(before.iter().all(|name| !volumes_of(&disk).contains(name)), "the old one goes in the end");
}

#[test]
fn the_background_completes_an_install_when_there_is_space() {
    let disk = SimulatedDisk::new(7);
    let mut filled = half_installed(slices(), &disk, 0..24);
    let disk = disk.after_power_cut(CutState::All, 1);
    leave(&disk, 0);
    filled.db = open(slices().workers(1), &disk).expect("it opens all the same");
    filled.assert_told();
    filled.assert_all();
    disk.set_capacity(None);
    for _ in 0..6_000 {
        if filled.db.stats().upkeep_failures == 0 {
            filled.assert_all();
            // Those of the block that time has not left.
            assert_eq!(filled.db.stats().points, 2 * METRICS as u64);
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it is never completed: {}", filled.db.health());
}

#[test]
fn a_superseded_volume_that_cannot_be_removed_is_told_and_goes_later() {
    // Each call of the removal fails once.
    let removal = || {
        let disk = SimulatedDisk::new(8);
        let mut filled = Filled::new(options().refresh_bytes(0), &disk, 3, 0..2);
        filled.db.seal(..).expect("there is room");
        filled.write(1).expect("there is room");
        filled.db.sync().expect("syncs");
        (disk, filled)
    };
    let (disk, filled) = removal();
    disk.record_trace(true);
    filled.db.maintain(Timestamp::MAX).expect("there is room");
    let trace = disk.trace();
    let first = trace.iter().position(|call| {
        call.kind == CallKind::Remove && call.path.ends_with(old_checkpoint(&volumes_of(&disk)))
    });
    // What comes after, in other folders, is a checkpoint.
    let removal_calls =
        trace[first.unwrap_or(0)..].iter().take_while(|call| call.path.starts_with("/db/data"));
    let removing: Vec<u64> = removal_calls.map(|call| call.number).collect();
    println!("{} calls of {}", removing.len(), trace.len());
    assert!((9..30).contains(&removing.len()), "{trace:#?}");
    for call in removing {
        let (disk, filled) = removal();
        disk.fail(call, Fault::NoSpace, false);
        let failed = filled.db.maintain(Timestamp::MAX).expect_err("a call fails");
        assert_eq!(failed.io_kind(), Some(std::io::ErrorKind::StorageFull), "{failed:?}");
        // The checkpoint of the same look tries again what was left.
        assert_eq!((filled.db.stats().superseded_volumes, filled.db.stats().checkpoints), (0, 1));
        filled.assert_told();
        filled.assert_all();
        filled.goes_on(options(), &disk);
    }
}

/// The name of the checkpoint before the only one there is: numbers begin with 0.
fn old_checkpoint(volumes: &[String]) -> String {
    let [only] = volumes else { panic!("one is left: {volumes:?}") };
    let name = only.rsplit('/').next().unwrap_or_default();
    name.replace("-1-checkpoint", "-0-checkpoint")
}

/// A file that takes what is free on a real file system, but for so many bytes.
struct Ballast(std::path::PathBuf);

impl Ballast {
    fn fill(dir: &Path, but: usize) -> Ballast {
        use std::io::Write;
        let path = dir.join("ballast");
        let mut file = std::fs::File::create(&path).expect("a name is free");
        for piece in [65_536, 512] {
            while file.write_all(&vec![7; piece]).is_ok() {}
        }
        // What the system cannot place shows here; the rest is taken all the same.
        let _ = file.sync_all();
        let len = file.metadata().expect("a file").len();
        file.set_len(len.saturating_sub(but as u64)).expect("shorter");
        let _ = file.sync_all();
        Ballast(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// On a real file system of a few MiB, `CHRONOLITH_SMALL_DISK`, which nothing else uses:
/// `mount -t tmpfs -o size=16m none DIR`, or an image of 16 MiB with ext4 on a loop device. Ten rounds: write, fill the disk, seal and refresh until that fails, make room,
/// and go on; each with another amount of free space.
#[test]
#[ignore = "needs a small file system of its own, in CHRONOLITH_SMALL_DISK"]
fn a_small_real_disk_that_is_full_now_and_then_loses_nothing() {
    let small = std::env::var_os("CHRONOLITH_SMALL_DISK").expect("the folder of a small file system");
    let small = Path::new(&small);
    let dir = small.join("db");
    let options = || options().refresh_bytes(0).log_segment_bytes_max(64 * 1024);
    let mut filled =
        Filled { db: options().open(&dir).expect("opens"), metrics: 20, points: BTreeSet::new() };
    let (mut sealing_failed, mut refused) = (0, 0);
    let mut hour = 0;
    for round in 0..10_usize {
        for _ in 0..30 {
            filled.write(hour).expect("there is room");
            hour += 1;
        }
        // Late, so that there is something to refresh.
        filled.write(hour / 2).expect("there is room");
        let ballast = Ballast::fill(small, round * 8_192);
        for _ in 0..3 {
            if let Err(error) = filled.db.maintain(Timestamp::MAX) {
                assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull), "{error:?}");
                let told = filled.db.stats().upkeep_error.expect("it failed");
                assert!(filled.db.health().to_string().contains(&told));
                sealing_failed += 1;
            }
            filled.assert_all();
            match filled.write(hour) {
                Ok(()) => hour += 1,
                Err(error) => {
                    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
                    refused += 1;
                }
            }
        }
        // Opened on the full disk, every other time.
        if round % 2 == 1 {
            let in_memory = Database::in_memory().expect("opens");
            std::mem::replace(&mut filled.db, in_memory).close().expect("closes");
            filled.db = options().open(&dir).expect("it opens on a full disk");
            filled.assert_all();
        }
        drop(ballast);
        filled.db.maintain(Timestamp::MAX).expect("there is room");
        assert!(filled.db.health().is_ok(), "{}", filled.db.health());
        filled.assert_all();
    }
    println!("sealing failed {sealing_failed} times, {refused} commits were refused");
    assert!(sealing_failed > 0);
    filled.db.seal(..).expect("there is room");
    filled.db.seal(..).expect("there is room");
    assert_eq!(filled.db.stats().superseded_volumes, 0);
    let in_memory = Database::in_memory().expect("opens");
    std::mem::replace(&mut filled.db, in_memory).close().expect("closes");
    filled.db = options().open(&dir).expect("opens");
    assert_eq!(filled.db.open_report().swept_files, Vec::<String>::new(), "nothing was left behind");
    filled.assert_all();
}
