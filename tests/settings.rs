//! Settings: options changed while a database is open. One test for each guarantee of `design/settings.md`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chronolith::io::{CutState, SimulatedDisk, Vfs};
use chronolith::{Database, Durability, Error, Options, RepairOptions, Settings, Timestamp};

const DIR: &str = "/db";

fn options() -> Options {
    Options::new().workers(0)
}

fn open(disk: &SimulatedDisk, options: Options) -> Database {
    options.open_on(Arc::new(disk.clone()), DIR).expect("opens")
}

fn append(db: &Database, second: i64) -> Result<(), Error> {
    let metric = db.metric("m")?;
    db.append(&metric, Timestamp::from_secs(second), 1.0).map(drop)
}

#[test]
fn what_is_changed_holds_at_once_and_after_the_next_opening() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, options());
    assert_eq!(db.settings().durability, Some(Durability::Sync));
    append(&db, 1).expect("commits");
    let syncs = disk.syncs();
    db.change_settings(Settings::new().durability(Durability::Buffered).refresh_bytes(5)).expect("changes");
    let changing = disk.syncs() - syncs;
    append(&db, 2).expect("commits");
    assert_eq!(disk.syncs() - syncs, changing, "the commit was not synced");
    // What is not set stays.
    db.change_settings(Settings::new().memory_max(8 << 20)).expect("changes");
    let all = db.settings();
    assert_eq!((all.refresh_bytes, all.memory_max), (Some(5), Some(8 << 20)));
    assert_eq!(db.stats().memory_max, 8 << 20);
    db.close().expect("closes");
    let db = open(&disk, options());
    assert_eq!(db.settings(), all);
}

#[test]
fn what_a_program_gives_wins_over_what_is_kept_and_what_it_changes_over_both() {
    let disk = SimulatedDisk::new(1);
    let kept = Settings::new().refresh_bytes(1).checkpoint_log_bytes(1 << 30);
    open(&disk, options()).change_settings(kept).expect("changes");
    let db = open(&disk, options().refresh_bytes(2));
    assert_eq!((db.settings().refresh_bytes, db.settings().checkpoint_log_bytes), (Some(2), Some(1 << 30)));
    db.change_settings(Settings::new().refresh_bytes(3)).expect("changes");
    assert_eq!(db.settings().refresh_bytes, Some(3));
    drop(db);
    assert_eq!(open(&disk, options()).settings().refresh_bytes, Some(3));
    // Giving is not changing.
    drop(open(&disk, options().refresh_bytes(4)));
    assert_eq!(open(&disk, options()).settings().refresh_bytes, Some(3));
}

#[test]
fn a_limit_of_memory_that_is_lowered_refuses_and_one_that_is_raised_takes() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, options().memory_max(1 << 30));
    let metric = db.metric("m").expect("valid");
    let times: Vec<Timestamp> = (0..900_000).map(Timestamp::from_nanos).collect();
    let values: Vec<f64> =
        (0..900_000_u64).map(|bits| f64::from_bits(bits.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let mut txn = db.begin_write();
    txn.append_columns(&metric, &times, &values).expect("staged");
    txn.commit().expect("commits");
    assert!(db.stats().memory_bytes > 4 << 20);
    db.change_settings(Settings::new().memory_max(4 << 20)).expect("changes");
    assert!(matches!(append(&db, 1), Err(Error::MemoryLimit { max, .. }) if max == 4 << 20));
    db.change_settings(Settings::new().memory_max(1 << 30)).expect("changes");
    append(&db, 1).expect("commits");
}

#[test]
fn a_cut_at_any_call_of_a_change_leaves_all_of_it_or_nothing() {
    let old = Settings::new().refresh_bytes(1).memory_wait(Duration::from_secs(1));
    let new = Settings::new().refresh_bytes(2).memory_wait(Duration::from_secs(2));
    let (mut states, mut ended) = (0, false);
    for call in 0.. {
        let disk = SimulatedDisk::new(1);
        let db = open(&disk, options());
        db.change_settings(old).expect("changes");
        append(&db, 1).expect("commits");
        disk.cut_power_at(disk.calls() + call);
        let changed = db.change_settings(new);
        ended |= changed.is_ok();
        for (seed, state) in (0..).zip(CutState::ALL) {
            let found = open(&disk.after_power_cut(state, seed), options());
            let settings = found.settings();
            let is = |wanted: Settings| {
                (settings.refresh_bytes, settings.memory_wait) == (wanted.refresh_bytes, wanted.memory_wait)
            };
            assert!(is(new) || is(old) && changed.is_err(), "call {call}, {state:?}: {settings:?}");
            assert_eq!(found.snapshot().metric_count(), 1);
            states += 1;
        }
        if ended {
            break;
        }
    }
    assert!(states >= 35, "{states}");
}

#[test]
fn a_failed_change_changes_nothing_in_this_process() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, options());
    let before = db.settings();
    disk.set_capacity(Some(disk.bytes_allocated()));
    let failed = db.change_settings(Settings::new().refresh_bytes(1));
    assert!(failed.is_err(), "the disk is full");
    assert_eq!(db.settings(), before);
    disk.set_capacity(None);
    db.change_settings(Settings::new().refresh_bytes(1)).expect("changes");
    let invalid = db.change_settings(Settings::new().refresh_bytes(2).memory_max(1));
    assert!(matches!(invalid, Err(Error::InvalidOption { option: "memory_max", .. })), "{invalid:?}");
    assert_eq!(db.settings().refresh_bytes, Some(1));
}

#[test]
fn damage_is_told_and_salvage_and_repair_go_on_without() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, options());
    db.change_settings(Settings::new().refresh_bytes(1)).expect("changes");
    append(&db, 1).expect("commits");
    db.close().expect("closes");
    let path = Path::new(DIR).join("settings");
    let file = disk.open(&path, true).expect("works").expect("it is there");
    let mut byte = [0];
    file.read_at(60, &mut byte).expect("works");
    file.write_at(60, &[byte[0] ^ 8]).expect("works");
    file.sync().expect("works");
    let strict = options().open_on(Arc::new(disk.clone()), DIR);
    assert!(matches!(&strict, Err(Error::Corrupt { path: told, .. }) if *told == path), "{strict:?}");
    let salvaged = open(&disk.after_power_cut(CutState::All, 0), options().salvage(true));
    assert_eq!(salvaged.snapshot().metric_count(), 1);
    assert!(salvaged.open_report().damage.iter().any(|damage| damage.contains("settings")));

    let shared: Arc<dyn Vfs> = Arc::new(disk.clone());
    let report = RepairOptions::new().run_on(shared.clone(), DIR, |_, _| {}).expect("repairs");
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert!(report.quarantined.iter().any(|path| path == Path::new("settings")));
    let db = open(&disk, options());
    assert_eq!(
        (db.snapshot().metric_count(), db.settings()),
        (1, open(&SimulatedDisk::new(2), options()).settings())
    );
    drop(db);
    assert!(RepairOptions::new().run_on(shared, DIR, |_, _| {}).expect("repairs").is_sound());
}

#[test]
fn readers_beside_and_backups_have_them_and_memory_takes_them() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, options());
    append(&db, 1).expect("commits");
    db.change_settings(Settings::new().refresh_bytes(7)).expect("changes");
    db.checkpoint().expect("a checkpoint");
    let reader = open(&disk, options().read_only(true));
    assert_eq!(reader.settings().refresh_bytes, Some(7));
    assert!(matches!(reader.change_settings(Settings::new().refresh_bytes(8)), Err(Error::ReadOnly)));
    for (name, snapshot) in [("/one", db.snapshot()), ("/two", reader.snapshot())] {
        snapshot.backup_to(name).expect("backs up");
        let backup = options().open_on(Arc::new(disk.clone()), name).expect("opens");
        assert_eq!(backup.settings().refresh_bytes, Some(7));
    }
    let in_memory = options().open_in_memory().expect("opens");
    in_memory.change_settings(Settings::new().refresh_bytes(9)).expect("changes");
    assert_eq!(in_memory.settings().refresh_bytes, Some(9));
    let other = db.clone();
    db.close().expect("closes");
    assert!(matches!(other.change_settings(Settings::new().refresh_bytes(1)), Err(Error::Closed)));
}
