//! `chronolith repair`, run as its users run it.
#![cfg(feature = "cli")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use chronolith::{Database, Options, Timestamp};
use serde_json::Value;
use tempfile::TempDir;

/// Runs the tool; what it printed, and what it complained about.
#[track_caller]
fn run(args: &[&str], status: i32) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_chronolith")).args(args).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{args:?}: {out}\n{err}");
    (out, err)
}

/// A closed database with sealed points, points in memory, and a checkpoint.
fn database() -> (TempDir, PathBuf) {
    let place = TempDir::new().expect("a folder");
    let dir = place.path().join("db");
    let db = Options::new().workers(0).open(&dir).expect("opens");
    for index in 0..20 {
        let metric = db.metric(format!("m{index}")).expect("a name");
        db.append(&metric, Timestamp::from_secs(1_700_000_000 + index), index as f64).expect("commits");
    }
    db.seal(..).expect("seals");
    db.append(&db.metric("m0").expect("a name"), Timestamp::from_secs(1_800_000_000), 1.0).expect("commits");
    db.checkpoint().expect("a checkpoint");
    db.close().expect("closes");
    (place, dir)
}

fn points(dir: &Path) -> usize {
    let db = Options::new().workers(0).open(dir).expect("opens");
    let snapshot = db.snapshot();
    let count =
        snapshot.metrics().map(|metric| snapshot.range(&metric, ..).map(Result::unwrap).count()).sum();
    drop(snapshot);
    drop(db);
    count
}

/// All files, with their bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), std::fs::read(&path).expect("a file"))),
        }
    }
    found
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_sound_database_needs_no_repair() {
    let (_place, dir) = database();
    let name = dir.to_str().expect("text");
    let before = files(&dir);
    assert!(run(&["repair", name], 0).0.contains("sound: nothing to repair"));
    let report = json(&run(&["repair", "--json", "--dry-run", name], 0).0);
    assert_eq!((&report["sound"], &report["losses"]), (&true.into(), &false.into()));
    assert_eq!(files(&dir), before);
}

#[test]
fn a_damaged_checkpoint_is_hinted_at_told_of_and_repaired() {
    let (_place, dir) = database();
    let name = dir.to_str().expect("text");
    let wanted = points(&dir);
    std::fs::remove_dir_all(dir.join("names")).expect("a folder");
    let (_, complaint) = run(&["list", name], 3);
    assert!(complaint.contains("names file") && complaint.contains("chronolith repair DIR"), "{complaint}");
    let before = files(&dir);
    let (told, _) = run(&["repair", "--dry-run", name], 0);
    assert!(told.contains("the file is missing") && told.contains("nothing was changed"), "{told}");
    assert_eq!(files(&dir), before, "a dry run changes nothing");
    let report = json(&run(&["repair", "--json", name], 0).0);
    let (findings, aside) = (&report["findings"], &report["quarantined"]);
    assert_eq!(findings[0]["damage"], "names file: the file is missing");
    assert_eq!(report["losses"], false, "the volumes have the names: {report}");
    assert!(aside.as_array().expect("a list").contains(&"trees/pages".into()), "{aside}");
    for file in aside.as_array().expect("a list") {
        let file = file.as_str().expect("a path");
        let folder = Path::new(report["quarantine"].as_str().expect("a path"));
        assert_eq!(std::fs::read(folder.join(file)).expect("a file"), before[&dir.join(file)], "{file}");
    }
    assert_eq!(points(&dir), wanted);
    assert!(run(&["repair", name], 0).0.contains("nothing to repair"));
    run(&["verify", name], 0);
}

#[test]
fn without_anything_but_volumes_sealed_points_are_back() {
    let (_place, dir) = database();
    let name = dir.to_str().expect("text");
    for folder in ["names", "trees", "snapshots", "commitlog"] {
        std::fs::remove_dir_all(dir.join(folder)).expect("a folder");
    }
    std::fs::remove_file(dir.join("superblock")).expect("a file");
    let (text, _) = run(&["repair", name], 1);
    assert!(text.contains("may be back: metric 0 (m0)") && text.contains("repaired: 20 metrics"), "{text}");
    assert_eq!(points(&dir), 20);
}

#[test]
fn what_is_no_database_is_refused() {
    let place = TempDir::new().expect("a folder");
    let name = place.path().to_str().expect("text");
    run(&["repair", name], 3);
    run(&["repair", &format!("{name}/missing")], 3);
    let (_place, dir) = database();
    let db = Database::open(&dir).expect("opens");
    let (_, complaint) = run(&["repair", dir.to_str().expect("text")], 3);
    assert!(complaint.contains("in use"), "{complaint}");
    db.close().expect("closes");
}
