//! Seals in a log that was damaged and opened with what is left: which records are lost decides what a salvage can know of volumes.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chronolith::io::{CutState, SimulatedDisk, Vfs};
use chronolith::{Database, Durability, Error, Options, Timestamp};
use common::DIR;
use common::seals::{Content, DAY, assert_same, read, volumes};

const METRICS: [&str; 3] = ["a", "b", "c"];
/// The length of a block in seconds.
const BLOCK: i64 = 7_200;

/// Slices of one metric: an install has three.
fn options() -> Options {
    let options = Options::new().workers(0).shards(1).lanes(2).durability(Durability::Buffered);
    // Others help as long as nothing is missing.
    options.install_slice_metrics(1).replay_workers(2)
}

fn open(disk: &SimulatedDisk, options: Options) -> Result<Database, Error> {
    options.open_on(Arc::new(disk.clone()), DIR)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(DAY + second)
}

/// Writes one point of each metric.
fn put(db: &Database, second: i64, value: f64) {
    for id in METRICS {
        db.append(&db.metric(id).expect("valid"), at(second), value).expect("commits");
    }
}

/// Seals all there is, one block, and returns the version of the freeze; the slices of the install follow.
fn seal(db: &Database) -> u64 {
    let before = db.snapshot().version().get();
    seal_blocks(db, 1);
    before + 1
}

/// Seals all there is, so many blocks.
fn seal_blocks(db: &Database, blocks: u64) {
    let before = db.snapshot().version().get();
    assert_eq!(db.seal(..).expect("seals").blocks, blocks);
    assert_eq!(db.snapshot().version().get(), before + blocks * (1 + METRICS.len() as u64));
}

fn content(db: &Database) -> Content {
    read(&db.snapshot()).expect("all is readable")
}

/// Flips a bit in the payload of the record of a version.
fn lose(disk: &SimulatedDisk, version: u64) {
    for (path, len) in disk.files() {
        if !path.starts_with(Path::new(DIR).join("commitlog")) {
            continue;
        }
        let file = disk.open(&path, true).expect("opens").expect("it is there");
        let mut bytes = vec![0; len as usize];
        file.read_at(0, &mut bytes).expect("reads");
        // A frame's header tells its version and its own place: `design/commitlog.md`.
        let is_it = |place: &usize| {
            bytes[place + 16..place + 24] == version.to_le_bytes()
                && bytes[place + 36..place + 40] == (*place as u32).to_le_bytes()
        };
        if let Some(place) = (64..bytes.len().saturating_sub(48)).step_by(8).find(is_it) {
            return file.write_at(place as u64 + 40, &[bytes[place + 40] ^ 1]).expect("writes");
        }
    }
    panic!("no record of version {version}");
}

/// Opens with salvage, which must be necessary.
fn salvage(disk: &SimulatedDisk, options: Options) -> Database {
    assert!(matches!(open(disk, options.clone()), Err(Error::Corrupt { .. })));
    let db = open(disk, options.salvage(true)).expect("something is sound");
    assert!(!db.open_report().damage.is_empty());
    db
}

/// What is there stays there: when all is sealed, and at the next opening, which removes files.
fn check_goes_on(disk: &SimulatedDisk, db: Database, wanted: &Content) {
    assert_same(&content(&db), wanted, "salvaged");
    let files = volumes(disk, Path::new(DIR));
    put(&db, 50, 50.0);
    let wanted = content(&db);
    db.seal(..).expect("seals");
    assert_same(&content(&db), &wanted, "sealed");
    let left = volumes(disk, Path::new(DIR));
    assert!(files.iter().all(|file| left.contains(file)), "{files:?} were there, {left:?} are");
    db.close().expect("closes");
    for time in ["opened again", "and again"] {
        let db = open(disk, options()).expect("whole again");
        assert_same(&content(&db), &wanted, time);
        db.close().expect("closes");
    }
}

#[test]
fn an_older_install_without_its_last_slice_is_not_gone_on_with_over_a_newer_one() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, options()).expect("opens");
    put(&db, 0, 1.0);
    let freeze = seal(&db);
    put(&db, 0, 2.0);
    seal(&db);
    let wanted = content(&db);
    // The files of the first have gone.
    db.seal(..).expect("nothing to seal");
    assert_eq!(volumes(&disk, Path::new(DIR)).len(), 1);
    db.close().expect("closes");
    lose(&disk, freeze + 3);
    check_goes_on(&disk, salvage(&disk, options()), &wanted);
}

#[test]
fn an_install_without_one_of_its_slices_leaves_no_metric_with_the_volume_before() {
    for slice in 1..=3 {
        let disk = SimulatedDisk::new(1);
        let db = open(&disk, options()).expect("opens");
        put(&db, 0, 1.0);
        seal(&db);
        put(&db, 10, 2.0);
        let freeze = seal(&db);
        // Also over what is younger than the volume.
        put(&db, 20, 3.0);
        let wanted = content(&db);
        db.close().expect("closes");
        lose(&disk, freeze + slice);
        check_goes_on(&disk, salvage(&disk, options()), &wanted);
    }
}

#[test]
fn a_lost_freeze_is_told_of_at_every_opening() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, options()).expect("opens");
    put(&db, 0, 1.0);
    let freeze = seal(&db);
    put(&db, 10, 2.0);
    let wanted = content(&db);
    db.close().expect("closes");
    lose(&disk, freeze);
    let db = salvage(&disk, options());
    let told = db.open_report().substitutes.clone();
    assert!(matches!(&told[..], [line] if line.contains("the freeze of volume 0")), "{told:?}");
    check_goes_on(&disk, db, &wanted);
    let db = open(&disk, options()).expect("opens");
    assert_eq!(db.open_report().substitutes[..1], told, "the same at every open");
}

#[test]
fn the_last_record_of_a_closed_log_may_be_the_lost_one() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, options()).expect("opens");
    put(&db, 0, 1.0);
    let freeze = seal(&db);
    let wanted = content(&db);
    db.close().expect("closes");
    lose(&disk, freeze + 3);
    check_goes_on(&disk, salvage(&disk, options()), &wanted);
}

/// Damages the superblock so that it has to be made anew.
fn lose_superblock(disk: &SimulatedDisk) {
    let (path, len) = disk
        .files()
        .into_iter()
        .find(|(path, _)| path.file_name().is_some_and(|name| name == "superblock"))
        .expect("there is one");
    let file = disk.open(&path, true).expect("opens").expect("it is there");
    file.write_at(0, &vec![0xff; len as usize]).expect("writes");
}

#[test]
fn without_a_superblock_the_log_tells_the_options() {
    for (shards, seconds) in [(1, 3_600), (1, 5_000), (2, 7_200), (8, 7_200), (7, 86_400)] {
        let disk = SimulatedDisk::new(1);
        let made_with = options().shards(4);
        let db = open(&disk, made_with.clone()).expect("opens");
        for second in [0, 4_000, BLOCK - 1, BLOCK, 9_999, 10_000, 2 * BLOCK] {
            put(&db, second, second as f64);
        }
        // What is behind the block is in memory only.
        assert!(db.seal(at(0)..at(1)).expect("seals").blocks > 1);
        let wanted = content(&db);
        let (sealed, metrics) = (db.sealed_stats(), db.stats().metrics);
        db.close().expect("closes");
        lose_superblock(&disk);
        let others = options().shards(shards).block_size(Duration::from_secs(seconds));
        let db = open(&disk, others.salvage(true)).expect("the log is sound");
        assert_eq!(db.sealed_stats(), sealed, "{shards} shards, {seconds} s");
        assert_eq!(db.stats().metrics, metrics);
        check_goes_on(&disk, db, &wanted);
    }
}

/// Makes the segments' notes such as tell no options, as those of version 1 have none.
fn forget_options(disk: &SimulatedDisk) {
    for (path, _) in disk.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "log"))
    {
        let file = disk.open(&path, true).expect("opens").expect("it is there");
        let mut header = [0; 96];
        file.read_at(0, &mut header).expect("reads");
        header[64..92].fill(0);
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&header[..60]);
        checksum.update(&header[64..92]);
        header[92..].copy_from_slice(&checksum.finalize().to_le_bytes());
        file.write_at(0, &header).expect("writes");
    }
}

#[test]
fn streams_that_were_cut_at_other_windows_are_sealed_whole() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, options()).expect("opens");
    let times: Vec<Timestamp> = (0..2 * BLOCK).map(at).collect();
    let values: Vec<f64> = (0..2 * BLOCK).map(|second| second as f64).collect();
    for id in METRICS {
        let mut txn = db.begin_write();
        txn.append_columns(&db.metric(id).expect("valid"), &times, &values).expect("staged");
        txn.commit().expect("commits");
    }
    let wanted = content(&db);
    db.close().expect("closes");
    lose_superblock(&disk);
    forget_options(&disk);
    let narrow = options().block_size(Duration::from_secs(1_000)).salvage(true);
    let db = open(&disk, narrow).expect("the log is sound");
    // Block by block, so that each leaves what is behind it.
    for second in (0..2 * BLOCK).step_by(500) {
        db.seal(at(second)..at(second + 1)).expect("seals");
        assert_same(&content(&db), &wanted, "in parts");
    }
    check_goes_on(&disk, db, &wanted);
}

#[test]
fn what_is_sealed_of_a_namespace_whose_making_was_lost_is_read_from_the_log() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, options()).expect("opens");
    put(&db, 0, 0.0);
    let before = db.snapshot().version().get();
    let other = db.namespace("other").expect("commits");
    for (second, id) in (0..).zip(["x", "y", "z", "x"]) {
        db.append(&db.metric_in(&other, id).expect("valid"), at(second), 1.0).expect("commits");
    }
    assert_eq!(db.seal(..).expect("seals").blocks, 2);
    put(&db, 1, 0.0);
    db.append(&db.metric_in(&other, "x").expect("valid"), at(9), 9.0).expect("commits");
    let wanted = content(&db);
    db.close().expect("closes");
    lose(&disk, before + 1);
    let db = salvage(&disk, options());
    let told = db.open_report().substitutes.join("; ");
    assert!(told.contains("the name of namespace 1 is lost"), "{told}");
    check_goes_on(&disk, db, &wanted);
}

#[test]
fn what_is_sealed_of_a_metric_whose_making_was_lost_is_read_from_the_log() {
    // So many that each shard has some.
    let ids: Vec<String> = (0..24).map(|number| format!("m{number}")).collect();
    let made_with = options().shards(4).install_slice_metrics(5);
    for lost in [0, 1, 2, 3, 4, 5] {
        let disk = SimulatedDisk::new(1);
        let db = open(&disk, made_with.clone()).expect("opens");
        let before = db.snapshot().version().get();
        for second in [0, 10] {
            for id in &ids {
                db.append(&db.metric(id).expect("valid"), at(second), second as f64).expect("commits");
            }
        }
        assert_eq!(db.seal(..).expect("seals").blocks, 4);
        let mut wanted = content(&db);
        db.close().expect("closes");
        lose(&disk, before + 1 + lost as u64);
        // Only the first point went with the name.
        let mut points = wanted.metrics.remove(&ids[lost]).expect("it was there");
        points.pop_first();
        wanted.metrics.insert(format!("salvaged-metric-{lost}"), points);
        check_goes_on(&disk, salvage(&disk, made_with.clone()), &wanted);
    }
}

#[test]
fn volumes_that_nobody_knows_any_more_are_in_no_later_ones_way() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, options()).expect("opens");
    for block in 0..4 {
        put(&db, block * BLOCK, block as f64);
    }
    let wanted = content(&db);
    let before = db.snapshot().version().get();
    assert_eq!(db.seal(..).expect("seals").blocks, 4);
    let after = db.snapshot().version().get();
    db.close().expect("closes");
    (before + 1..=after).for_each(|version| lose(&disk, version));
    let db = salvage(&disk, options());
    assert_same(&content(&db), &wanted, "salvaged");
    assert_eq!(db.seal(..).expect("at the first attempt").blocks, 4);
    check_goes_on(&disk, db, &wanted);
}

#[test]
fn a_block_that_was_emptied_stays_so_whichever_slice_is_lost() {
    for slice in 0..=3 {
        let disk = SimulatedDisk::new(1);
        let db = open(&disk, options()).expect("opens");
        put(&db, 0, 1.0);
        put(&db, 3 * BLOCK, 1.0);
        seal_blocks(&db, 2);
        for id in METRICS {
            let mut txn = db.begin_write();
            txn.delete(&db.metric(id).expect("valid"), at(0)..at(1)).expect("staged");
            txn.commit().expect("commits");
        }
        let before = db.snapshot().version().get();
        seal_blocks(&db, 1);
        let wanted = content(&db);
        db.close().expect("closes");
        lose(&disk, before + 1 + slice);
        let db = salvage(&disk, options());
        assert_same(&content(&db), &wanted, "salvaged");
        db.close().expect("closes");
        for time in ["opened again", "and again"] {
            let db = open(&disk, options()).expect("whole again");
            assert_same(&content(&db), &wanted, time);
            db.seal(..).expect("seals");
            assert_same(&content(&db), &wanted, "sealed");
            db.close().expect("closes");
        }
    }
}

#[test]
fn a_finished_install_is_durable_before_anything_is_removed() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, options()).expect("opens");
    put(&db, 0, 1.0);
    let freeze = seal(&db);
    put(&db, 0, 2.0);
    let wanted = content(&db);
    db.close().expect("closes");
    lose(&disk, freeze + 3);
    let db = salvage(&disk, options());
    let version = db.snapshot().version();
    assert!(version > db.open_report().last_version, "it was gone on with");
    let disk = disk.after_power_cut(CutState::None, 0);
    let db = open(&disk, options()).expect("opens");
    assert_eq!(db.open_report().last_version, version);
    assert_same(&content(&db), &wanted, "after a power cut");
}
