//! Checkpoints as a user notices them: what is there after a restart, who waits, how much is written, what damage does. One test for each guarantee of
//! `design/checkpoint.md`; cuts, failures and random histories are in `sealing_faults` and `model`.
//!
//! `CHRONOLITH_TREE_METRICS` (80,000) is how many metrics there are of which one changes; with a million it takes half a minute in a release build.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use chronolith::io::{CallKind, SimulatedDisk, Vfs};
use chronolith::{Database, Durability, Error, Options, Timestamp};
use common::guarded;
use common::seals::{Content, assert_same, read};

const DIR: &str = "/db";
const PAGE: u64 = 4_096;

fn options() -> Options {
    let sizes = Options::new().log_segment_bytes_min(16 * 1024).log_segment_bytes_max(16 * 1024);
    sizes.workers(0).shards(1).durability(Durability::Buffered)
}

fn open(disk: &SimulatedDisk) -> Result<Database, Error> {
    options().open_on(Arc::new(disk.clone()), DIR)
}

fn created() -> (SimulatedDisk, Database) {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk).expect("opens");
    (disk, db)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + second)
}

fn append(db: &Database, id: &str, second: i64, value: f64) {
    db.append(&db.metric(id).expect("a name"), at(second), value).expect("commits");
}

/// Makes metrics with one point each, in one commit.
fn make(db: &Database, ids: impl Iterator<Item = String>) {
    let mut txn = db.begin_write();
    for id in ids {
        txn.append(&db.metric(id).expect("a name"), at(0), 1.0).expect("staged");
    }
    txn.commit().expect("commits");
}

fn content(db: &Database) -> Content {
    read(&db.snapshot()).expect("reads")
}

/// The files in a folder of the database, and how long they are.
fn files(disk: &SimulatedDisk, folder: &str) -> Vec<(PathBuf, u64)> {
    let folder = Path::new(DIR).join(folder);
    disk.files().into_iter().filter(|(path, _)| path.starts_with(&folder)).collect()
}

fn bytes(disk: &SimulatedDisk, folder: &str) -> u64 {
    files(disk, folder).iter().map(|(_, bytes)| bytes).sum()
}

#[test]
fn everything_is_there_after_a_checkpoint_and_a_restart() {
    let (disk, db) = created();
    let other = db.namespace("other").expect("a name");
    let metric = db.metric_with_tags("cpu", &[("host", "a"), ("core", "1")]).expect("valid");
    let opaque = db.metric_with_id(&other, b"\xff\x00 any", &[("k", "v")]).expect("valid");
    let mut txn = db.begin_write();
    for second in 0..500 {
        txn.append(&metric, at(second * 60), second as f64).expect("staged");
    }
    // Out of order, twice at one time, with an annotation; and a range without points.
    txn.append(&metric, at(90), -1.0).expect("staged");
    txn.append_annotated(&metric, at(90), -2.0, b"note").expect("staged");
    txn.append_annotated(&opaque, at(5), f64::NAN, b"first").expect("staged");
    txn.delete(&metric, at(600)..at(1_200)).expect("staged");
    // More than a page of zeros, which takes no page.
    txn.put_meta("zeros", vec![0; 20_000]).expect("staged");
    txn.put_meta("key", "value").expect("staged");
    txn.commit().expect("commits");
    db.seal(..at(7_200)).expect("seals");
    append(&db, "late", 30, 3.0);
    db.append(&metric, at(45), 4.0).expect("commits");
    let before = content(&db);
    let report = db.checkpoint().expect("a checkpoint");
    assert_eq!(report.version, db.snapshot().version());
    let last = db.snapshot().version();
    db.close().expect("closes");

    let db = open(&disk).expect("opens");
    let opened = db.open_report();
    assert_eq!((opened.checkpoint, opened.last_version, opened.commits_replayed), (last, last, 0));
    assert!(opened.clean && opened.damage.is_empty());
    assert_same(&content(&db), &before, "after the restart");
    let snapshot = db.snapshot();
    assert_eq!(snapshot.meta("zeros"), Some(&vec![0; 20_000][..]));
    assert_eq!(snapshot.meta("key"), Some(&b"value"[..]));
    let found = db.metric_with_tags("cpu", &[("core", "1"), ("host", "a")]).expect("valid");
    assert_eq!(found.id(), metric.id());
    assert_eq!(found.tags().count(), 2);
    let other = db.namespace("other").expect("a name");
    let found = db.metric_with_id(&other, b"\xff\x00 any", &[("k", "v")]).expect("valid");
    assert_eq!(found.id(), opaque.id());
    let latest = snapshot.latest(&found).expect("reads").expect("a point");
    assert_eq!(
        (latest.annotation.as_deref(), latest.value.to_bits()),
        (Some(&b"first"[..]), f64::NAN.to_bits())
    );
}

#[test]
fn what_came_after_the_checkpoint_is_replayed_and_nothing_else() {
    let (disk, db) = created();
    (0..100).for_each(|second| append(&db, "m", second, 1.0));
    db.checkpoint().expect("a checkpoint");
    (100..107).for_each(|second| append(&db, "m", second, 2.0));
    db.metric("n").and_then(|n| db.append(&n, at(0), 1.0)).expect("commits");
    let before = content(&db);
    db.close().expect("closes");
    let db = open(&disk).expect("opens");
    assert_eq!(db.open_report().commits_replayed, 8);
    assert_eq!(db.open_report().points_replayed, 8);
    assert_same(&content(&db), &before, "after the restart");
}

#[test]
fn a_restored_metric_takes_the_same_writes_with_the_same_result() {
    let (disk, db) = created();
    (0..50).for_each(|second| append(&db, "m", second * 10, 1.0));
    append(&db, "m", 5, 2.0);
    db.checkpoint().expect("a checkpoint");
    drop(db);
    let db = open(&disk).expect("opens");
    // Over a stream, over a side entry, behind all, deleted again.
    for (second, value) in [(10, 3.0), (5, 4.0), (500, 5.0), (490, 6.0), (7, 7.0)] {
        append(&db, "m", second, value);
    }
    let metric = db.metric("m").expect("a name");
    let mut txn = db.begin_write();
    txn.delete(&metric, at(20)..at(40)).expect("staged");
    txn.commit().expect("commits");
    let snapshot = db.snapshot();
    let found: Vec<(i64, f64)> = snapshot
        .range(&metric, ..)
        .map(|point| {
            point.map(|point| ((point.at.as_nanos() - at(0).as_nanos()) / 1_000_000_000, point.value))
        })
        .collect::<Result<_, _>>()
        .expect("reads");
    let mut wanted: BTreeMap<i64, f64> = (0..50).map(|second| (second * 10, 1.0)).collect();
    wanted.extend([(10, 3.0), (5, 4.0), (500, 5.0), (490, 6.0), (7, 7.0)]);
    wanted.retain(|second, _| !(20..40).contains(second));
    assert_eq!(found, wanted.into_iter().collect::<Vec<_>>());
}

#[test]
fn numbers_of_metrics_that_are_gone_are_not_given_out_again() {
    let (disk, db) = created();
    make(&db, ["a".to_owned(), "b".to_owned()].into_iter());
    let gone = db.metric("b").expect("a name");
    let mut txn = db.begin_write();
    txn.drop_metric(&gone).expect("staged");
    txn.commit().expect("commits");
    db.checkpoint().expect("a checkpoint");
    let gone = gone.id();
    db.close().expect("closes");
    let db = open(&disk).expect("opens");
    append(&db, "b", 1, 1.0);
    assert!(db.metric("b").expect("a name").id() > gone);
    assert_eq!(content(&db).metrics["b"].len(), 1);
}

#[test]
fn no_two_checkpoints_have_an_active_file_of_the_same_number() {
    let (disk, mut db) = created();
    let mut numbers = std::collections::BTreeSet::new();
    for round in 0..12 {
        if round % 4 < 2 {
            append(&db, "m", i64::from(round) * 7_200, 1.0);
        } else {
            db.seal(..).expect("seals");
            // Something that leaves nothing in memory, so that versions go up.
            let mut txn = db.begin_write();
            txn.put_meta(b"round", [round]).expect("staged");
            txn.commit().expect("commits");
        }
        db.checkpoint().expect("a checkpoint");
        let named = files(&disk, "snapshots");
        assert_eq!(named.len(), 1, "the one before is gone");
        assert!(numbers.insert(named[0].0.clone()), "{} again", named[0].0.display());
        if round % 3 == 2 {
            drop(db);
            db = open(&disk).expect("opens");
        }
    }
    assert!(numbers.into_iter().is_sorted());
}

#[test]
fn neither_commits_nor_reads_wait_for_a_checkpoint() {
    let (disk, db) = created();
    make(&db, (0..10).map(|index| format!("m{index}")));
    let hold = disk.hold_syncs();
    let other = db.clone();
    let checkpoint = thread::spawn(move || other.checkpoint());
    let mut held = 0;
    let mut second = 1;
    while !checkpoint.is_finished() {
        if !hold.wait_for(1, Duration::from_millis(1)) {
            continue;
        }
        // While a sync of it is held.
        held += 1;
        append(&db, "m0", second, 2.0);
        append(&db, &format!("new{second}"), 0, 2.0);
        assert_eq!(
            db.snapshot().latest(&db.metric("m0").expect("a name")).expect("reads").expect("a point").at,
            at(second)
        );
        second += 1;
        assert!(hold.let_one_through());
    }
    hold.release();
    let report = checkpoint.join().expect("no panic").expect("a checkpoint");
    assert!(held >= 5, "the log, the pages, the names, what is in memory, two slots: {held}");
    assert!(report.version < db.snapshot().version());
    let before = content(&db);
    db.sync().expect("syncs");
    drop(db);
    assert_same(&content(&open(&disk).expect("opens")), &before, "after the restart");
}

#[test]
fn the_log_before_a_checkpoint_goes_and_what_is_behind_it_stays() {
    let (disk, db) = created();
    let columns: Vec<Timestamp> = (0..600).map(at).collect();
    let values: Vec<f64> = (0..600).map(|value| f64::from(value).sqrt()).collect();
    let metric = db.metric("m").expect("a name");
    let commit = |times: &[Timestamp]| {
        let mut txn = db.begin_write();
        txn.append_columns(&metric, times, &values).expect("staged");
        txn.commit().expect("commits");
    };
    (0..20).for_each(|_| commit(&columns));
    db.sync().expect("syncs");
    let before = files(&disk, "commitlog");
    assert!(before.len() > 5, "{before:?}");
    let report = db.checkpoint().expect("a checkpoint");
    let after = files(&disk, "commitlog");
    assert_eq!(report.log_bytes_removed, bytes_of(&before) - bytes_of(&after));
    assert!(after.len() <= 2, "the one that is written, and the next: {after:?}");
    assert_eq!(db.stats().log_bytes, bytes_of(&after));
    (0..20).for_each(|_| commit(&columns));
    db.sync().expect("syncs");
    let with_more = files(&disk, "commitlog");
    assert!(with_more.len() > 5);
    let content_before = content(&db);
    drop(db);
    let db = open(&disk).expect("opens");
    assert_eq!(db.open_report().commits_replayed, 20);
    assert_same(&content(&db), &content_before, "after the restart");
}

fn bytes_of(files: &[(PathBuf, u64)]) -> u64 {
    files.iter().map(|(_, bytes)| bytes).sum()
}

#[test]
fn a_checkpoint_writes_what_changed_and_the_path_above() {
    let (disk, db) = created();
    // Two levels of inner pages: more than 145 x 510 metrics.
    let count =
        std::env::var("CHRONOLITH_TREE_METRICS").map_or(80_000, |count| count.parse().expect("a number"));
    assert!((73_951..37_714_500).contains(&count));
    make(&db, (0..count).map(|index| format!("m{index}")));
    db.seal(..).expect("seals");
    let all = db.checkpoint().expect("a checkpoint");
    assert!(all.pages >= count / 145, "{all:?}");
    let again = db.checkpoint().expect("a checkpoint");
    assert_eq!((again.pages, again.names_bytes, again.memory_bytes), (0, 0, 0));

    // One that goes, in the middle: its leaf and two pages above.
    let mut txn = db.begin_write();
    txn.drop_metric(&db.metric("m40000").expect("a name")).expect("staged");
    txn.commit().expect("commits");
    let written = disk.bytes_written();
    let one = db.checkpoint().expect("a checkpoint");
    assert_eq!(one.pages, 3);
    let written = disk.bytes_written() - written;
    assert!(
        written <= 3 * PAGE + 2 * PAGE + PAGE,
        "three pages, two slots, and the record in the log: {written}"
    );

    // One that comes: besides, what it has in memory and its name.
    append(&db, "one more", 0, 1.0);
    let one = db.checkpoint().expect("a checkpoint");
    assert_eq!(one.pages, 3);
    assert!(one.names_bytes < 100 && one.memory_bytes < 300, "{one:?}");

    // A block sealed for all of them: no page of the metrics, but for the one that had none.
    make(&db, (0..40_000).map(|index| format!("m{index}")));
    let mut txn = db.begin_write();
    for index in (0..count).filter(|index| *index != 40_000) {
        txn.append(&db.metric(format!("m{index}")).expect("a name"), at(7_200), 1.0).expect("staged");
    }
    txn.commit().expect("commits");
    db.checkpoint().expect("a checkpoint");
    db.seal(at(7_200)..).expect("seals");
    let sealed = db.checkpoint().expect("a checkpoint");
    assert!(sealed.pages <= 10, "{sealed:?}");

    let before = content(&db);
    drop(db);
    assert_same(&content(&open(&disk).expect("opens")), &before, "after the restart");
}

#[test]
fn opening_reads_no_volume_and_as_much_for_many_blocks_as_for_one() {
    let calls = |blocks: i64| {
        let (disk, db) = created();
        for block in 0..blocks {
            (0..10).for_each(|index| append(&db, &format!("m{index}"), block * 7_200, 1.0));
            // One after the other: together they would become one of a day.
            db.seal(..).expect("seals");
        }
        assert_eq!(db.stats().sealed_blocks as i64, blocks);
        db.checkpoint().expect("a checkpoint");
        db.close().expect("closes");
        disk.count_reads(true);
        disk.record_trace(true);
        let db = open(&disk).expect("opens");
        disk.record_trace(false);
        assert_eq!(db.open_report().commits_replayed, 0);
        let trace = disk.trace();
        let data = Path::new(DIR).join("data");
        let in_data = trace.iter().filter(|call| call.path.starts_with(&data)).map(|call| call.kind);
        let in_data: Vec<CallKind> = in_data.collect();
        assert!(in_data.iter().all(|kind| *kind == CallKind::List), "{in_data:?}");
        trace.len()
    };
    assert_eq!(calls(1), calls(40));
}

#[test]
fn every_flipped_bit_of_a_checkpoint_is_found_or_does_no_harm() {
    let (disk, db) = created();
    (0..30).for_each(|index| append(&db, &format!("m{index}"), index, index as f64));
    db.seal(..).expect("seals");
    (0..30).for_each(|index| append(&db, &format!("m{index}"), index + 7_200, index as f64));
    append(&db, "m1", 3, 1.0);
    db.checkpoint().expect("a checkpoint");
    let wanted = content(&db);
    drop(db);
    let (mut found, mut harmless) = (0, 0);
    for (path, len) in ["trees", "names", "snapshots"].iter().flat_map(|folder| files(&disk, folder)) {
        // Each bit of small files; of long ones some of each page.
        let step = (len * 8 / 1_500).max(1) | 1;
        for bit in (0..len * 8).step_by(step as usize) {
            let disk = disk.after_power_cut(chronolith::io::CutState::All, 0);
            let file = disk.open(&path, true).expect("the disk works").expect("it is there");
            let mut byte = [0];
            file.read_at(bit / 8, &mut byte).expect("the disk works");
            file.write_at(bit / 8, &[byte[0] ^ 1 << (bit % 8)]).expect("the disk works");
            drop(file);
            match open(&disk) {
                Err(Error::Corrupt { path: told, .. }) => {
                    assert_eq!(told, path);
                    found += 1;
                }
                Err(Error::NewerFormat { .. }) => found += 1,
                Err(other) => panic!("{} bit {bit}: {other}", path.display()),
                Ok(db) => {
                    assert_same(&content(&db), &wanted, "what opened in spite of the damage");
                    harmless += 1;
                }
            }
        }
    }
    assert!(found > 3_000 && harmless < found / 10, "{found} found, {harmless} harmless");
}

#[test]
fn files_of_checkpoints_do_not_grow_as_metrics_come_and_go() {
    let (disk, db) = created();
    // Long names, so that the names file is written anew several times.
    let id = |number: u64| format!("{number:0>3000}");
    let mut sizes = Vec::new();
    for round in 0..60u64 {
        make(&db, (0..30).map(|index| id(round * 30 + index)));
        if let Some(gone) = round.checked_sub(2) {
            let mut txn = db.begin_write();
            (0..30).for_each(|index| {
                txn.drop_metric(&db.metric(id(gone * 30 + index)).expect("a name")).expect("staged");
            });
            txn.commit().expect("commits");
        }
        if round % 3 == 0 {
            db.seal(..).expect("seals");
        }
        db.checkpoint().expect("a checkpoint");
        sizes.push(["trees", "names", "snapshots"].map(|folder| bytes(&disk, folder)));
    }
    let most = |rounds: &[[u64; 3]]| {
        let most = |kind: usize| rounds.iter().map(|sizes| sizes[kind]).max().expect("some rounds");
        [most(0), most(1), most(2)]
    };
    let (early, late) = (most(&sizes[20..40]), most(&sizes[40..]));
    assert!(late[0] <= early[0] + 2 * PAGE, "trees: {early:?}, {late:?}");
    assert!(late[1] <= early[1] + early[1] / 4, "names: {early:?}, {late:?}");
    assert!(late[2] <= early[2] + early[2] / 4, "what is in memory: {early:?}, {late:?}");
    assert_eq!(files(&disk, "names").len(), 1);
    assert_eq!(files(&disk, "snapshots").len(), 1);
    let before = content(&db);
    db.close().expect("closes");
    let db = open(&disk).expect("opens");
    assert!(db.open_report().swept_files.is_empty(), "{:?}", db.open_report());
    assert_same(&content(&db), &before, "after the restart");
}

#[test]
fn the_background_writes_one_when_the_log_is_long_and_when_it_is_old() {
    let disk = SimulatedDisk::new(1);
    let db = options().checkpoint_log_bytes(10_000).open_on(Arc::new(disk.clone()), DIR).expect("opens");
    append(&db, "m", 0, 1.0);
    let now = Timestamp::now();
    db.maintain(now).expect("maintenance");
    assert_eq!(db.stats().checkpoints, 0, "neither");
    // More in the log than half of what is in memory.
    (0..300).for_each(|second| append(&db, "m", second, 1.0));
    db.sync().expect("syncs");
    append(&db, "m", 300, 1.0);
    db.maintain(now).expect("maintenance");
    assert_eq!(db.stats().checkpoints, 1, "asked for by a commit");
    assert_eq!(db.stats().log_bytes_behind, 0);
    for second in 301..330 {
        append(&db, "m", second, 1.0);
    }
    db.sync().expect("syncs");
    db.maintain(now + Duration::from_secs(45)).expect("maintenance");
    assert_eq!(db.stats().checkpoints, 1, "neither long nor old");
    db.maintain(now + Duration::from_secs(120)).expect("maintenance");
    assert_eq!(db.stats().checkpoints, 2, "old");
    db.maintain(now + Duration::from_secs(600)).expect("maintenance");
    assert_eq!(db.stats().checkpoints, 2, "nothing new");
}

#[test]
fn a_close_writes_one_if_there_is_much_to_replay() {
    let (disk, db) = created();
    (0..100).for_each(|second| append(&db, "m", second, 1.0));
    db.close().expect("closes");
    let db = open(&disk).expect("opens");
    assert_eq!(db.open_report().commits_replayed, 100, "little");
    let metric = db.metric("m").expect("a name");
    let times: Vec<Timestamp> = (0..100_000).map(|second| at(-second)).collect();
    let mut txn = db.begin_write();
    let values: Vec<f64> = (0..100_000).map(|value| f64::from(value).sqrt()).collect();
    for values in [&values, &values] {
        txn.append_columns(&metric, &times, values).expect("staged");
    }
    txn.commit().expect("commits");
    let before = content(&db);
    db.close().expect("closes");
    let db = open(&disk).expect("opens");
    assert_eq!(db.open_report().commits_replayed, 0, "much");
    assert_same(&content(&db), &before, "after the restart");
}

#[test]
fn a_superblock_that_cannot_be_written_ends_checkpoints_and_nothing_else() {
    // For each call of a checkpoint that fails, for good: what was committed is there, and is written again after reopening.
    let calls = {
        let (disk, db) = created();
        make(&db, (0..20).map(|index| format!("m{index}")));
        let before = disk.calls();
        db.checkpoint().expect("a checkpoint");
        disk.calls() - before
    };
    let mut doubtful = 0;
    for call in 0..calls {
        let problems = guarded(|| {
            let (disk, db) = created();
            make(&db, (0..20).map(|index| format!("m{index}")));
            db.sync().expect("syncs");
            let wanted = content(&db);
            disk.fail(disk.calls() + call, chronolith::io::Fault::InputOutput, false);
            let failed = db.checkpoint();
            disk.clear_faults();
            let again = db.checkpoint();
            match (&failed, &again) {
                // What cannot be removed, or not be looked at, does not matter.
                (Ok(_), again) => assert!(again.is_ok(), "{again:?}"),
                (Err(Error::Stopped { .. }), Err(Error::Stopped { .. })) => doubtful += 1,
                (Err(_), Ok(_)) => {}
                other => panic!("{other:?}"),
            }
            assert_same(&content(&db), &wanted, "in the meantime");
            drop(db);
            let db = open(&disk).expect("opens");
            assert_same(&content(&db), &wanted, "after the restart");
            db.checkpoint().expect("a checkpoint");
            drop(db);
            assert_same(&content(&open(&disk).expect("opens")), &wanted, "after the next checkpoint");
            Vec::new()
        });
        assert!(problems.is_empty(), "call {call}: {problems:?}");
    }
    assert!(doubtful >= 2, "the writes of two slots, and their syncs: {doubtful}");
}

#[test]
fn a_salvage_without_a_superblock_touches_no_checkpoint() {
    let (disk, db) = created();
    make(&db, (0..20).map(|index| format!("m{index}")));
    db.seal(..).expect("seals");
    db.checkpoint().expect("a checkpoint");
    append(&db, "m1", 9_000, 1.0);
    db.close().expect("closes");
    disk.remove(&Path::new(DIR).join("superblock")).expect("the disk works");
    let before = disk.files();
    let salvaged = options().salvage(true).open_on(Arc::new(disk.clone()), DIR);
    let told = salvaged.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(told.contains("chronolith repair"), "{told}");
    assert_eq!(disk.files(), before);
}
