//! Damaged volumes: each byte of each file changed, files cut and files gone. What is read is right or an error that tells where; what the damage
//! does not touch stays readable, and nothing panics.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chronolith::fileset::{VolumeFile, VolumeName};
use chronolith::io::{CutState, SimulatedDisk, Vfs};
use chronolith::{Database, Durability, Error, Metric, Options, Snapshot, Timestamp};
use common::seals::{DAY, volumes};
use common::{Report, guarded};

const DIR: &str = "/db";
const BLOCK: i64 = 7_200;
const METRICS: [&str; 3] = ["apples", "bananas", "cherries"];
/// The damaged block is the second of three; each has as many points of each metric.
const POINTS: usize = 20;
/// Large files get this many damaged bytes.
const PLACES_MAX: u64 = 300;

fn open(disk: &SimulatedDisk) -> Result<Database, Error> {
    let options = Options::new().workers(0).shards(1).durability(Durability::Buffered);
    options.block_size(Duration::from_secs(BLOCK as u64)).open_on(Arc::new(disk.clone()), DIR)
}

fn value(metric: usize, index: usize) -> f64 {
    (metric * 1_000 + index) as f64 / 8.0
}

fn time(index: usize) -> Timestamp {
    Timestamp::from_secs(DAY + (index / POINTS) as i64 * BLOCK + (index % POINTS) as i64 * 60)
}

/// A closed database of three sealed blocks; the folder and the name of the second one's volume.
fn sealed() -> (SimulatedDisk, PathBuf, VolumeName) {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk).expect("opens");
    let mut txn = db.begin_write();
    for (metric, id) in METRICS.into_iter().enumerate() {
        let handle = db.metric(id).expect("valid");
        (0..3 * POINTS)
            .for_each(|index| txn.append(&handle, time(index), value(metric, index)).expect("staged"));
    }
    txn.commit().expect("commits");
    assert_eq!(db.seal(..).expect("seals").blocks, 3);
    db.close().expect("closes");
    let volumes = volumes(&disk, Path::new(DIR));
    let (folder, name) = volumes.into_iter().nth(1).expect("three");
    (disk, folder, name)
}

/// What may be wrong after a kind of damage.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    /// So many metrics may fail, of the block.
    at_least: usize,
    at_most: usize,
    /// Whether an error must tell whose points are lost.
    names_metric: bool,
}

/// Reads all metrics, in both directions, and compares.
fn compare(disk: &SimulatedDisk, folder: &Path, name: VolumeName, allowed: Allowed) -> Vec<String> {
    guarded(|| {
        let db = open(disk).expect("volumes are not looked at");
        let snapshot = db.snapshot();
        let (mut failed, mut wrong) = (0, Vec::new());
        for (number, id) in METRICS.into_iter().enumerate() {
            let metric = snapshot.metric(id).expect("it exists");
            let forwards = look(&snapshot, &metric, number, false);
            let backwards = look(&snapshot, &metric, number, true);
            assert_eq!(forwards.len(), backwards.len(), "{id} reads otherwise from its end");
            failed += usize::from(!forwards.is_empty());
            for error in forwards.into_iter().chain(backwards) {
                let Error::Corrupt { path, metric, .. } = &error else {
                    wrong.push(format!("an error of the wrong type: {error:?}"));
                    continue;
                };
                let is_of_volume = path.parent() == Some(folder) && VolumeName::of_file(path) == Some(name);
                let is_of_metric = metric.as_deref().map_or(!allowed.names_metric, |metric| metric == id);
                if !is_of_volume || !is_of_metric {
                    wrong.push(format!("{id}: the error names something else: {error:?}"));
                }
            }
            // The ends lie in sound blocks.
            let latest = snapshot.latest(&metric).expect("sound").expect("there are points");
            assert_eq!((latest.at, latest.value), (time(3 * POINTS - 1), value(number, 3 * POINTS - 1)));
            let first = snapshot.at_or_before(&metric, time(0)).expect("sound").expect("it is there");
            assert_eq!((first.at, first.value), (time(0), value(number, 0)));
        }
        if !(allowed.at_least..=allowed.at_most).contains(&failed) {
            wrong.push(format!("{failed} metrics fail, which is not within {allowed:?}"));
        }
        wrong
    })
}

/// Reads a metric, which must have all its points, or an error in place of the second block's. Returns the errors.
fn look(snapshot: &Snapshot, metric: &Metric, number: usize, from_back: bool) -> Vec<Error> {
    let range = snapshot.range(metric, ..);
    let mut items: Vec<_> = if from_back { range.rev().collect() } else { range.collect() };
    if from_back {
        items.reverse();
    }
    let (mut found, mut errors, mut place) = (Vec::new(), Vec::new(), 0);
    for item in items {
        match item {
            Ok(point) => found.push((point.at, point.value)),
            Err(error) => {
                place = found.len();
                errors.push(error);
            }
        }
    }
    let is_there = |index: &usize| errors.is_empty() || !(POINTS..2 * POINTS).contains(index);
    let wanted: Vec<_> =
        (0..3 * POINTS).filter(is_there).map(|index| (time(index), value(number, index))).collect();
    assert_eq!(found, wanted, "{metric}");
    assert!(errors.len() <= 1, "one block is damaged: {errors:?}");
    assert!(errors.is_empty() || place == POINTS, "the error comes where the points would");
    errors
}

/// Changes each byte of a file in turn.
fn damage(file: &str, places: impl Fn(u64) -> Vec<u64>, allowed: Allowed) -> Report {
    let (base, folder, name) = sealed();
    let path = folder.join(file_name(name, file));
    let bytes = base.map(&path).expect("it is there").to_vec();
    let mut report = Report::default();
    for at in places(bytes.len() as u64) {
        if report.is_full() {
            break;
        }
        let disk = base.after_power_cut(CutState::All, 0);
        let byte = bytes[at as usize] ^ 1 << (at % 8);
        let opened = disk.open(&path, true).expect("opens").expect("it is there");
        opened.write_at(at, &[byte]).expect("writes");
        report.note(|| format!("{file}, byte {at}"), compare(&disk, &folder, name, allowed));
    }
    report
}

fn file_name(name: VolumeName, file: &str) -> String {
    let of_m3 = VolumeFile::ALL.into_iter().find(|known| known.suffix() == file);
    of_m3.map_or_else(|| name.supplement_file_name(), |known| name.file_name(known))
}

/// All of them, or some from all over the file.
fn anywhere(len: u64) -> Vec<u64> {
    (0..len).step_by(len.div_ceil(PLACES_MAX) as usize).collect()
}

const NONE: Allowed = Allowed { at_least: 0, at_most: 0, names_metric: false };
const ANY: Allowed = Allowed { at_most: METRICS.len(), ..NONE };
const ONE: Allowed = Allowed { at_least: 1, at_most: 1, names_metric: true };

#[test]
fn a_damaged_stream_is_an_error_for_its_metric_alone() {
    let report = damage("data", anywhere, ONE);
    println!("{} damaged bytes", report.cases);
    report.assert_clean();
    assert!(report.cases > 50);
}

#[test]
fn a_damaged_supplement_is_done_without() {
    let report = damage("supplement", anywhere, NONE);
    println!("{} damaged bytes", report.cases);
    report.assert_clean();
    // Its head too, byte for byte.
    damage("supplement", |_| (0..100).collect(), NONE).assert_clean();
}

#[test]
fn damage_of_the_other_files_is_an_error_of_the_volume_or_none() {
    for file in ["info", "index", "summaries", "bloomfilter", "digest", "checkpoint"] {
        let report = damage(file, anywhere, ANY);
        println!("{file}: {} damaged bytes", report.cases);
        report.assert_clean();
        assert!(report.cases > 0);
    }
}

#[test]
fn a_file_that_is_cut_or_gone_is_an_error_of_the_volume_or_none() {
    let (base, folder, name) = sealed();
    let files = VolumeFile::ALL.map(VolumeFile::suffix);
    for file in files.into_iter().chain(["supplement"]) {
        let path = folder.join(file_name(name, file));
        let allowed = if file == "supplement" { NONE } else { ANY };
        let disk = base.after_power_cut(CutState::All, 0);
        disk.remove(&path).expect("removes");
        assert_eq!(compare(&disk, &folder, name, allowed), Vec::<String>::new(), "{file} is gone");
        let len = base.map(&path).expect("it is there").len() as u64;
        for cut in [0, 1, len / 2, len - 1] {
            let disk = base.after_power_cut(CutState::All, 0);
            disk.open(&path, true).expect("opens").expect("it is there").set_len(cut).expect("cuts");
            let found = compare(&disk, &folder, name, allowed);
            assert_eq!(found, Vec::<String>::new(), "{file} is cut to {cut} bytes");
        }
    }
}

#[test]
fn a_damaged_block_is_not_refreshed_and_other_blocks_are() {
    let (disk, folder, name) = sealed();
    let path = folder.join(name.file_name(VolumeFile::Data));
    let byte = disk.map(&path).expect("it is there")[3] ^ 4;
    disk.open(&path, true).expect("opens").expect("it is there").write_at(3, &[byte]).expect("writes");

    let db = open(&disk).expect("opens");
    let late = |db: &Database, block: usize| {
        for id in METRICS {
            let metric = db.metric(id).expect("valid");
            db.append(&metric, time(block * POINTS) + Duration::from_secs(1), 0.5).expect("commits");
        }
    };
    late(&db, 0);
    late(&db, 1);
    let refused = db.seal(..).expect_err("what is lost cannot be written anew");
    assert!(
        matches!(&refused, Error::Corrupt { path: told, metric: Some(_), .. } if *told == path),
        "{refused:?}"
    );
    assert_eq!(db.stats().points, 3, "the block before is sealed, the late points of this one are in memory");
    for (number, id) in METRICS.into_iter().enumerate() {
        let metric = db.metric(id).expect("valid");
        let first = time(POINTS);
        let found: Vec<_> = db.snapshot().range(&metric, first..time(2 * POINTS)).collect();
        if found.iter().all(Result::is_ok) {
            assert_eq!(found.len(), POINTS + 1);
        } else {
            assert!(
                found
                    .iter()
                    .any(|point| point.as_ref().is_err_and(|error| matches!(error, Error::Corrupt { .. })))
            );
        }
        let before = db.snapshot().at_or_before(&metric, time(1)).expect("sound").expect("it is there");
        assert_eq!(before.value, value(number, 1));
    }
    // However often it is tried, and by whomever, there are not more partitions for that, one over the other.
    let before = db.stats().memory_bytes;
    for attempt in 0..500 {
        late(&db, 1);
        let refused = match attempt % 2 {
            0 => db.seal(..).map(drop),
            _ => db.refresh(..).map(drop),
        };
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    }
    let (after, late_bytes) = (db.stats().memory_bytes, 500 * METRICS.len() as u64 * 24);
    assert!(after < before + 2 * late_bytes, "{before} bytes, then {after}");
    // Deleted as a whole, it can be written again.
    for id in METRICS {
        let mut txn = db.begin_write();
        txn.delete(&db.metric(id).expect("valid"), time(POINTS)..time(2 * POINTS)).expect("staged");
        txn.commit().expect("commits");
    }
    late(&db, 1);
    db.seal(..).expect("seals");
    assert_eq!(db.stats().points, 0);
    let metric = db.metric(METRICS[0]).expect("valid");
    let left: Result<Vec<_>, _> = db.snapshot().range(&metric, time(POINTS)..time(2 * POINTS)).collect();
    assert_eq!(left.expect("sound").len(), 1);
}

#[test]
fn files_of_another_database_are_not_taken_for_its_own() {
    let (base, folder, name) = sealed();
    let (other, ..) = sealed();
    let disk = base.after_power_cut(CutState::All, 0);
    for file in
        VolumeFile::ALL.map(|file| name.file_name(file)).into_iter().chain([name.supplement_file_name()])
    {
        let path = folder.join(file);
        let bytes = other.map(&path).expect("it is there").to_vec();
        let opened = disk.open(&path, true).expect("opens").expect("it is there");
        opened.set_len(0).and_then(|()| opened.write_at(0, &bytes)).expect("writes");
    }
    let allowed = Allowed { at_least: METRICS.len(), at_most: METRICS.len(), names_metric: false };
    assert_eq!(compare(&disk, &folder, name, allowed), Vec::<String>::new());
}
