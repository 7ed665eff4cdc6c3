//! Databases that earlier versions of the crate wrote: `tests/golden/database-vN`, N being the version of the superblock's format. They
//! are never made anew; what a version added to a format is in the one that it made.
//!
//! Version 1 has all thirteen commands of a record (`design/record.md`) in segments of version 1, with a volume. Version 2 has the same history
//! in segments of version 2.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chronolith::{Database, Durability, Error, Options, Timestamp};

/// Midnight of a day, in seconds since the Unix epoch.
const DAY: i64 = 19_700 * 86_400;
/// Points of the column that is long enough to be encoded before its commit.
const LONG: i64 = 1_024;

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(DAY + second)
}

fn options() -> Options {
    let options = Options::new().block_size(Duration::from_secs(3_600)).shards(3).workers(0).lanes(2);
    options.durability(Durability::Buffered).log_segment_bytes_min(16 * 1024).log_segment_bytes_max(16 * 1024)
}

/// What was done to each of the golden databases, with the code of its time.
fn write_history(dir: &Path) {
    let db = options().open(dir).expect("opens");
    let [long, point, gone] = ["long", "point", "gone"].map(|id| db.metric(id).expect("valid"));
    let other = db.namespace("other").expect("valid");
    let tagged = db.metric_with_tags_in(&other, "tagged", &[("k", "v")]).expect("valid");

    let mut txn = db.begin_write();
    let times: Vec<Timestamp> = (0..LONG).map(at).collect();
    let values: Vec<f64> = (0..LONG).map(|second| second as f64).collect();
    txn.append_columns(&long, &times, &values).expect("staged");
    txn.append_columns(&tagged, &times[..3], &values[..3]).expect("staged");
    txn.append(&point, at(0), -0.0).expect("staged");
    txn.append(&gone, at(0), 1.0).expect("staged");
    txn.append_annotated(&point, at(1), 1.0, b"note").expect("staged");
    txn.put_meta("kept", "value").expect("staged");
    txn.put_meta("removed", "value").expect("staged");
    txn.commit().expect("commits");
    let mut txn = db.begin_write();
    txn.delete(&long, at(10)..at(20)).expect("staged");
    txn.drop_metric(&gone).expect("staged");
    txn.remove_meta("removed").expect("staged");
    txn.commit().expect("commits");

    assert!(db.seal(..).expect("seals").blocks > 0);
    let mut txn = db.begin_write();
    txn.append(&long, at(5), 500.0).expect("staged");
    txn.append(&long, at(4_000), 4_000.0).expect("staged");
    txn.commit().expect("commits");
    db.close().expect("closes");
}

/// Asks for all that the history left.
fn check(db: &Database) {
    let snapshot = db.snapshot();
    let points = |namespace: &str, id: &str| -> Vec<(i64, u64)> {
        let namespace = if namespace.is_empty() {
            db.default_namespace()
        } else {
            db.namespace(namespace).expect("valid")
        };
        let metric = snapshot.metric_in(&namespace, id).expect("it is there");
        let points = snapshot.range(&metric, ..).map(|point| point.expect("readable"));
        points.map(|point| (point.at.as_nanos() / 1_000_000_000 - DAY, point.value.to_bits())).collect()
    };
    let mut long: Vec<(i64, u64)> = (0..LONG)
        .filter(|second| !(10..20).contains(second))
        .map(|second| (second, (second as f64).to_bits()))
        .collect();
    long[5].1 = 500.0f64.to_bits();
    long.push((4_000, 4_000.0f64.to_bits()));
    assert_eq!(points("", "long"), long);
    assert_eq!(points("", "point"), [(0, (-0.0f64).to_bits()), (1, 1.0f64.to_bits())]);
    assert_eq!(
        points("other", r#"tagged{k="v"}"#),
        [0.0f64, 1.0, 2.0].map(|value| (value as i64, value.to_bits()))
    );
    assert!(snapshot.metric("gone").is_none());
    assert_eq!(snapshot.meta("kept"), Some(&b"value"[..]));
    assert_eq!(snapshot.meta("removed"), None);
}

/// The folder of a golden database.
fn golden(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("database-v{version}"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("room for a folder");
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("known").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("room for a file")),
        }
    }
}

#[test]
#[ignore = "only for a new version: writes the golden database of this one, for which the folder of its name must not be there"]
fn make() {
    let version = std::env::var("CHRONOLITH_GOLDEN_VERSION").expect("which version");
    let dir = golden(version.parse().expect("a number"));
    assert!(!dir.exists(), "golden files are never made anew");
    write_history(&dir);
    fs::remove_file(dir.join("LOCK")).expect("it is there");
}

#[test]
fn databases_of_all_versions_open_read_and_go_on() {
    for version in 1..=2 {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("db");
        copy(&golden(version), &dir);
        let db = options().open(&dir).unwrap_or_else(|error| panic!("version {version}: {error}"));
        let report = db.open_report();
        assert!(report.clean && report.damage.is_empty() && report.foreign_files.is_empty(), "{report:?}");
        assert!(report.substitutes.is_empty() && report.swept_files.is_empty(), "{report:?}");
        check(&db);
        let snapshot = db.snapshot();
        assert!(snapshot.volumes().count() > 0, "version {version}");
        assert!(snapshot.volumes().all(|volume| volume.verify().is_empty()), "version {version}");
        drop(snapshot);
        assert!(db.seal(..).expect("seals").blocks > 0);
        check(&db);
        db.close().expect("closes");
        let db = options().open(&dir).expect("opens again");
        check(&db);
    }
}

#[test]
fn volumes_of_a_log_that_does_not_tell_the_options_are_not_looked_for_by_others() {
    for version in 1..=2 {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("db");
        copy(&golden(version), &dir);
        let kept = fs::read(dir.join("superblock")).expect("it is there");
        fs::remove_file(dir.join("superblock")).expect("it goes");
        let others = options().shards(1).salvage(true);
        match others.open(&dir) {
            Err(Error::Corrupt { format: "superblock", reason, .. }) if version == 1 => {
                assert!(reason.contains("put a copy of it back"), "{reason}");
                assert!(!dir.join("superblock").exists());
            }
            Ok(db) if version > 1 => check(&db),
            other => panic!("version {version}: {other:?}"),
        }
        fs::write(dir.join("superblock"), kept).expect("room");
        check(&options().open(&dir).expect("as the error says"));
    }
}
