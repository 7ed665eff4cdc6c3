//! Repair as a user meets it: what is back when files of a database are damaged or gone, what is told, and that nothing is deleted. One test for each
//! guarantee of `design/repair.md`.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith::io::{CutState, SimulatedDisk, Vfs};
use chronolith::{Database, Durability, Error, Metric, Options, RepairOptions, RepairReport, Timestamp};
use common::guarded;
use common::seals::{History, Points, Session, assert_same, points, read};
use common::torture::random::Random;

const DIR: &str = "/db";
const HOUR: i64 = 3_600;
/// Midnight of a day, long ago: blocks of a day and of thirty can be sealed.
const DAY: i64 = 19_700 * 24 * HOUR;

/// Points by namespace and ID.
type Content = BTreeMap<String, Points>;

fn options() -> Options {
    let sizes = Options::new().log_segment_bytes_min(16 * 1024).log_segment_bytes_max(16 * 1024);
    sizes.workers(0).shards(3).lanes(2).durability(Durability::Buffered).install_slice_metrics(4)
}

fn open(disk: &SimulatedDisk) -> Result<Database, Error> {
    options().open_on(Arc::new(disk.clone()), DIR)
}

fn run(disk: &SimulatedDisk, options: RepairOptions) -> Result<RepairReport, Error> {
    options.run_on(Arc::new(disk.clone()), DIR, |_, _| {})
}

fn repair(disk: &SimulatedDisk) -> RepairReport {
    run(disk, RepairOptions::new()).expect("a repair")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(DAY + second)
}

fn put(db: &Database, metric: &Metric, second: i64, value: f64) {
    db.append(metric, at(second), value).expect("commits");
}

fn drop_metric(db: &Database, metric: &Metric) {
    let mut txn = db.begin_write();
    txn.drop_metric(metric).expect("staged");
    txn.commit().expect("commits");
}

fn content(db: &Database) -> Content {
    let snapshot = db.snapshot();
    let mut content = Content::new();
    for metric in snapshot.metrics() {
        let name = format!("{}:{metric}", metric.namespace());
        let before = content.insert(name.clone(), points(&snapshot, &metric).expect("reads"));
        assert!(before.is_none(), "{name} is there twice");
    }
    content
}

/// All that there can be: namespaces, tags, IDs that are no text, shards, widths, blocks before 1970, blocks written anew, metrics dropped and made again.
/// All of it is sealed.
fn sealed_history(db: &Database) {
    let spaces =
        ["default", "other", "long name / with ~~~ bytes"].map(|name| db.namespace(name).expect("a name"));
    for (place, space) in spaces.iter().enumerate() {
        for index in 0..7 {
            let metric = db.metric_with_tags_in(space, "cpu", &[("core", index.to_string())]).expect("valid");
            for second in 0..20 {
                put(db, &metric, second * 60 + index, (second * 10 + index + place as i64) as f64);
            }
        }
    }
    let opaque = db.metric_with_id(&spaces[1], b"\xff\x00 any", &[("key", "value")]).expect("valid");
    put(db, &opaque, 5, f64::NAN);
    db.append(&opaque, Timestamp::from_secs(-10 * HOUR), 7.0).expect("commits");
    let again = db.metric("again").expect("a name");
    put(db, &again, 0, 1.0);
    let gone = db.metric("gone").expect("a name");
    put(db, &gone, 0, 1.0);
    db.seal(..at(2 * HOUR)).expect("seals");
    // Late, and deleted: the block is written anew.
    let cpu = db.metric("cpu{core=\"1\"}").expect("a name");
    put(db, &cpu, 61, -1.0);
    put(db, &cpu, 30, -2.0);
    let mut txn = db.begin_write();
    txn.delete(&cpu, at(300)..at(600)).expect("staged");
    txn.commit().expect("commits");
    drop_metric(db, &again);
    drop_metric(db, &gone);
    put(db, &db.metric("again").expect("a name"), 10, 2.0);
    db.refresh(..).expect("seals");
    // More blocks, of other widths.
    for day in [1, 2, 40] {
        put(db, &cpu, day * 24 * HOUR, day as f64);
        put(db, &db.metric("late").expect("a name"), day * 24 * HOUR + 7_000, day as f64);
        db.seal(..).expect("seals");
    }
    let mut txn = db.begin_write();
    txn.put_meta("key", "value").expect("staged");
    txn.commit().expect("commits");
    db.seal(..).expect("seals");
    assert_eq!(db.stats().points, 0, "all is sealed");
}

/// Points in memory at the checkpoint, and behind it.
fn unsealed_history(db: &Database) {
    for index in 0..30 {
        put(db, &db.metric(format!("m{index}")).expect("a name"), 50 * 24 * HOUR + index, index as f64);
    }
    put(db, &db.metric("cpu{core=\"1\"}").expect("a name"), 77, 77.0);
    db.checkpoint().expect("a checkpoint");
    for index in 0..10 {
        put(db, &db.metric(format!("m{index}")).expect("a name"), 51 * 24 * HOUR + index, index as f64);
    }
    put(db, &db.metric("new").expect("a name"), 0, 1.0);
    db.seal(at(51 * 24 * HOUR)..).expect("seals");
    put(db, &db.metric("newer").expect("a name"), 0, 1.0);
}

fn files(disk: &SimulatedDisk, folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(DIR).join(folder);
    disk.files().into_iter().map(|(path, _)| path).filter(|path| path.starts_with(&folder)).collect()
}

fn remove(disk: &SimulatedDisk, folder: &str) {
    let found = files(disk, folder);
    assert!(!found.is_empty(), "{folder}");
    for path in found {
        disk.remove(&path).expect("the disk works");
    }
}

fn bytes(disk: &SimulatedDisk, path: &Path) -> Vec<u8> {
    disk.map(path).expect("it is there").to_vec()
}

fn overwrite(disk: &SimulatedDisk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, true).expect("the disk works").expect("it is there");
    file.set_len(bytes.len() as u64).expect("the disk works");
    file.write_at(0, bytes).expect("the disk works");
}

fn copy(disk: &SimulatedDisk) -> SimulatedDisk {
    disk.after_power_cut(CutState::All, 0)
}

/// Everything that is wanted is there, and nothing that is in `all`, what ever was, not.
#[track_caller]
fn assert_back(found: &Content, wanted: &Content, all: &Content, what: &str) {
    for (name, points) in wanted {
        let found = found.get(name).unwrap_or_else(|| panic!("{what}: {name} is not there"));
        for (at, point) in points {
            assert_eq!(found.get(at), Some(point), "{what}: {name} at {at}");
        }
    }
    for (name, points) in found.iter().filter(|(name, _)| !name.contains("salvaged-")) {
        let all = all.get(name).unwrap_or_else(|| panic!("{what}: {name} was made up"));
        for (at, point) in points {
            assert_eq!(all.get(at), Some(point), "{what}: {name} at {at} was made up");
        }
    }
}

/// Repairs, opens, compares, and repairs again, which finds nothing.
#[track_caller]
fn check_repaired(disk: &SimulatedDisk, wanted: &Content, all: &Content, what: &str) -> RepairReport {
    let before = copy(disk).files().len();
    let report = repair(disk);
    let again = repair(disk);
    assert!(again.is_sound(), "{what}: {:?}, after {:?}", again.findings, report.findings);
    assert!(disk.files().len() >= before.min(1), "{what}");
    let db = open(disk).unwrap_or_else(|error| panic!("{what}: {error}, after {:?}", report.findings));
    assert_back(&content(&db), wanted, all, what);
    assert!(db.open_report().damage.is_empty(), "{what}: {:?}", db.open_report());
    // It goes on.
    let metric = db.metric("from now on").expect("a name");
    put(&db, &metric, 0, 1.0);
    db.seal(..).expect("seals");
    db.checkpoint().expect("a checkpoint");
    db.close().expect("closes");
    let db = open(disk).expect("opens");
    let mut found = content(&db);
    assert_eq!(found.remove("default:from now on").map(|points| points.len()), Some(1), "{what}");
    assert_back(&found, wanted, all, what);
    report
}

#[test]
fn without_trees_names_and_superblock_all_sealed_points_are_back() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk).expect("opens");
    sealed_history(&db);
    db.checkpoint().expect("a checkpoint");
    let wanted = content(&db);
    let mut all = wanted.clone();
    all.insert("default:gone".into(), [((DAY) * 1_000_000_000, (1.0f64.to_bits(), None))].into());
    db.close().expect("closes");
    for others in [&["trees", "names", "superblock"][..], &["trees", "names", "superblock", "commitlog"]] {
        let disk = copy(&disk);
        others.iter().for_each(|folder| remove(&disk, folder));
        let report = check_repaired(&disk, &wanted, &all, &format!("without {others:?}"));
        assert!(report.has_losses(), "nobody knows whether metrics were dropped: {report:?}");
    }
}

#[test]
fn a_sound_database_is_left_as_it_is() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk).expect("opens");
    sealed_history(&db);
    unsealed_history(&db);
    assert!(matches!(run(&disk, RepairOptions::new()), Err(Error::Locked { .. })));
    drop(db);
    let before = disk.fingerprint();
    for options in [RepairOptions::new(), RepairOptions::new().dry_run(true)] {
        let report = run(&disk, options).expect("examined");
        assert!(report.is_sound() && !report.has_losses(), "{:?}", report.findings);
        assert!(report.quarantine.is_none() && report.quarantined.is_empty());
    }
    assert_eq!(disk.fingerprint(), before);
}

/// Damages each file of the database in many ways.
fn each_damage(disk: &SimulatedDisk, folder: &str, mut check: impl FnMut(&SimulatedDisk, &str)) {
    for path in files(disk, folder) {
        let sound = bytes(disk, &path);
        let name = path.display();
        let damaged = copy(disk);
        damaged.remove(&path).expect("the disk works");
        check(&damaged, &format!("{name} removed"));
        for len in [0, sound.len() / 3, sound.len() - 1] {
            let damaged = copy(disk);
            overwrite(&damaged, &path, &sound[..len]);
            check(&damaged, &format!("{name} cut to {len}"));
        }
        let step = (sound.len() * 8 / 40).max(1) | 1;
        for bit in (0..sound.len() * 8).step_by(step) {
            let damaged = copy(disk);
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            overwrite(&damaged, &path, &bytes);
            check(&damaged, &format!("{name} bit {bit}"));
        }
    }
}

#[test]
fn damage_to_any_file_of_a_checkpoint_costs_no_sealed_point() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk).expect("opens");
    sealed_history(&db);
    let mut wanted = content(&db);
    unsealed_history(&db);
    let mut all = content(&db);
    // Overwritten since, and what may be back.
    all.insert("default:gone".into(), [((DAY) * 1_000_000_000, (1.0f64.to_bits(), None))].into());
    let new = all["default:new"].clone();
    wanted.insert("default:new".into(), new);
    db.close().expect("closes");
    let mut repaired = 0;
    for folder in ["trees", "names", "snapshots", "superblock"] {
        each_damage(&disk, folder, |disk, what| {
            let problems = guarded(|| {
                let dry = copy(disk);
                let before = dry.fingerprint();
                let told = run(&dry, RepairOptions::new().dry_run(true));
                assert_eq!(dry.fingerprint(), before, "{what}: a dry run changes nothing");
                match told {
                    Err(Error::NewerFormat { .. }) => return Vec::new(),
                    Err(error) => panic!("{what}: {error}"),
                    Ok(told) if told.is_sound() => {
                        let db = open(disk).expect("what is sound opens");
                        assert_eq!(content(&db).len(), all.len() - 1);
                    }
                    Ok(told) => {
                        let report = check_repaired(disk, &wanted, &all, what);
                        assert_eq!(told.findings, report.findings, "{what}");
                        repaired += 1;
                    }
                }
                Vec::new()
            });
            assert!(problems.is_empty(), "{what}: {problems:?}");
        });
    }
    assert!(repaired > 100, "{repaired}");
}

#[test]
fn damage_to_volumes_and_log_costs_what_is_told() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk).expect("opens");
    sealed_history(&db);
    unsealed_history(&db);
    let all = content(&db);
    db.close().expect("closes");
    let mut lossless = 0;
    for (folder, every) in [("data", 23), ("commitlog", 5)] {
        let mut number = 0;
        each_damage(&disk, folder, |disk, what| {
            number += 1;
            if number % every != 0 {
                return;
            }
            let problems = guarded(|| {
                match run(&copy(disk), RepairOptions::new().dry_run(true)) {
                    Err(Error::NewerFormat { .. }) => return Vec::new(),
                    told => told.expect("told"),
                };
                let report = run(&copy(disk), RepairOptions::new()).expect("a repair");
                let (is_sound, has_losses) = (report.is_sound(), report.has_losses());
                let wanted = if has_losses { Content::new() } else { all.clone() };
                check_repaired(disk, &wanted, &all, &format!("{what}: {:?}", report.findings));
                lossless += u64::from(!is_sound && !has_losses);
                Vec::new()
            });
            assert!(problems.is_empty(), "{what}: {problems:?}");
        });
    }
    assert!(lossless > 0);
}

#[test]
fn what_is_damaged_is_put_aside_and_never_deleted() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk).expect("opens");
    sealed_history(&db);
    unsealed_history(&db);
    db.close().expect("closes");
    remove(&disk, "names");
    let before: BTreeMap<PathBuf, Vec<u8>> =
        disk.files().into_iter().map(|(path, _)| (path.clone(), bytes(&disk, &path))).collect();
    let report = repair(&disk);
    let quarantine = report.quarantine.clone().expect("something was put aside");
    assert_eq!(quarantine, Path::new(DIR).join("quarantine/0001"));
    for (path, before) in before {
        let relative = path.strip_prefix(DIR).expect("in the folder");
        let aside = quarantine.join(relative);
        let place = if report.quarantined.contains(&relative.to_owned()) { &aside } else { &path };
        assert_eq!(bytes(&disk, place), before, "{}", path.display());
    }
    // The next one has a folder of its own.
    let before = files(&disk, "quarantine");
    remove(&disk, "trees");
    assert_eq!(repair(&disk).quarantine, Some(Path::new(DIR).join("quarantine/0002")));
    assert!(before.iter().all(|path| files(&disk, "quarantine").contains(path)));
}

#[test]
fn a_power_cut_at_any_call_of_a_repair_leaves_what_it_can_be_done_with_again() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk).expect("opens");
    for index in 0..6 {
        put(&db, &db.metric(format!("a{index}")).expect("a name"), index, 1.0);
    }
    db.seal(..).expect("seals");
    put(&db, &db.metric("a1").expect("a name"), 100, 1.0);
    let mut wanted = content(&db);
    wanted.get_mut("default:a1").expect("it is there").pop_last();
    db.checkpoint().expect("a checkpoint");
    put(&db, &db.metric("a1").expect("a name"), 200, 1.0);
    let all = content(&db);
    db.close().expect("closes");
    for gone in [&["trees"][..], &["superblock", "names"]] {
        let disk = copy(&disk);
        gone.iter().for_each(|folder| remove(&disk, folder));
        let disk = copy(&disk);
        let calls = {
            let disk = copy(&disk);
            let before = disk.calls();
            repair(&disk);
            disk.calls() - before
        };
        assert!(calls > 40, "{calls}");
        let mut finished = 0;
        for call in 1..=calls {
            for state in CutState::ALL {
                let problems = guarded(|| {
                    let disk = copy(&disk);
                    disk.cut_power_within(disk.calls() + call);
                    let cut = run(&disk, RepairOptions::new());
                    let disk = disk.after_power_cut(state, call);
                    assert!(cut.is_err() || call == calls, "{call}");
                    // Opening goes on with a repair that was decided; else nothing has changed.
                    if let Ok(db) = open(&copy(&disk)) {
                        finished += 1;
                        assert_back(&content(&db), &wanted, &all, "opened");
                    }
                    check_repaired(&disk, &wanted, &all, "repaired again");
                    Vec::new()
                });
                assert!(problems.is_empty(), "{gone:?} call {call}, {state:?}: {problems:?}");
            }
        }
        assert!(finished > 10, "{finished}");
    }
}

#[test]
fn after_any_history_and_damage_what_is_not_told_of_is_not_lost() {
    let seeds = std::env::var("REPAIR_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(40u64);
    let (mut lossless, mut repaired) = (0, 0);
    for seed in 0..seeds {
        let history = History { seed, steps: 60, bug: None };
        let disk = SimulatedDisk::new(seed);
        let mut session = Session::begin(history, Arc::new(disk.clone()), Default::default()).expect("opens");
        (0..history.steps).for_each(|number| session.step(number).expect("it works"));
        session.sync().expect("syncs");
        let (wanted, db) = (session.content, session.db);
        drop(session.snapshots);
        db.close().expect("closes");
        for round in 0..8 {
            let mut random = Random::of(seed, 9, round, 9);
            let problems = guarded(|| {
                let disk = copy(&disk);
                let mut what = Vec::new();
                for _ in 0..1 + random.below(2) {
                    what.push(damage_something(&disk, &mut random));
                }
                let report = match RepairOptions::new().run_on(Arc::new(disk.clone()), common::DIR, |_, _| {})
                {
                    Err(Error::NewerFormat { .. }) => return Vec::new(),
                    report => report.unwrap_or_else(|error| panic!("{what:?}: {error}")),
                };
                let db = history.open(Arc::new(disk.clone()));
                let db = db.unwrap_or_else(|error| panic!("{what:?}: {error}, after {report:?}"));
                repaired += u64::from(!report.is_sound());
                let found = read(&db.snapshot()).unwrap_or_else(|error| panic!("{what:?}: {error}"));
                if !report.has_losses() {
                    lossless += u64::from(!report.is_sound());
                    assert_same(&found, &wanted, &format!("{what:?}, after {report:?}"));
                }
                db.close().expect("closes");
                let again = RepairOptions::new().run_on(Arc::new(disk.clone()), common::DIR, |_, _| {});
                let again = again.expect("a repair");
                assert!(again.is_sound(), "{what:?}: {:?} after {:?}", again.findings, report.findings);
                Vec::new()
            });
            assert!(problems.is_empty(), "seed {seed}, round {round}: {problems:?}");
        }
    }
    assert!(repaired > 4 * seeds && lossless > seeds / 2, "{repaired} repaired, {lossless} without loss");
}

/// Removes a file, cuts it or flips a bit in it.
fn damage_something(disk: &SimulatedDisk, random: &mut Random) -> String {
    let mut folders =
        ["trees", "names", "snapshots", "superblock", "commitlog", "data"].map(Path::new).to_vec();
    folders.retain(|folder| {
        disk.files().iter().any(|(path, _)| path.starts_with(Path::new(common::DIR).join(folder)))
    });
    let folder = folders[random.below(folders.len() as u64) as usize];
    let folder = Path::new(common::DIR).join(folder);
    let files: Vec<_> =
        disk.files().into_iter().filter(|(path, len)| path.starts_with(&folder) && *len > 0).collect();
    let (path, len) = &files[random.below(files.len() as u64) as usize];
    match random.below(4) {
        0 => {
            disk.remove(path).expect("the disk works");
            format!("{} removed", path.display())
        }
        1 => {
            let sound = bytes(disk, path);
            let len = random.below(*len) as usize;
            overwrite(disk, path, &sound[..len]);
            format!("{} cut to {len}", path.display())
        }
        _ => {
            let mut bytes = bytes(disk, path);
            let bit = random.below(len * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
            overwrite(disk, path, &bytes);
            format!("{} bit {bit}", path.display())
        }
    }
}

#[test]
fn a_folder_that_is_no_database_is_left_alone() {
    let disk = SimulatedDisk::new(1);
    assert!(matches!(run(&disk, RepairOptions::new()), Err(Error::NotADatabase { .. })));
    disk.create_dir_all(Path::new(DIR)).expect("the disk works");
    disk.create(&Path::new(DIR).join("letter")).expect("the disk works");
    let before = disk.fingerprint();
    assert!(matches!(run(&disk, RepairOptions::new()), Err(Error::NotADatabase { .. })));
    assert_eq!(disk.fingerprint(), before);
}
