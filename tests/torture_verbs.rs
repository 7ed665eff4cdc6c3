//! The tool's `torture` verbs: what one run acknowledges the check finds, and a line that is not true it does not.
#![cfg(feature = "cli")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn torture(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronolith"));
    command.arg("torture").args(arguments.iter().map(|argument| argument.as_ref()));
    command.output().expect("it runs")
}

fn verify(dir: &Path, lines: &[String]) -> Result<(), String> {
    let acks = dir.with_extension("acks");
    fs::write(&acks, lines.iter().map(|line| format!("{line}\n")).collect::<String>())
        .expect("it is written");
    let output = torture(&[&"verify", &dir, &acks]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(said),
        other => panic!("{other:?}: {output:?}"),
    }
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn what_is_acknowledged_is_found_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("db");
    let run = torture(&[&"run", &dir, &"--ops", &"150"]);
    assert!(run.status.success(), "{run:?}");
    let first = lines(&run);
    assert_eq!(first.len(), 150);
    assert_eq!(verify(&dir, &first), Ok(()));
    // A second run goes on, whatever its seed.
    let run = torture(&[&"run", &dir, &"--ops", &"150", &"--seed", &"7", &"--writers", &"2"]);
    let all: Vec<String> = first.iter().cloned().chain(lines(&run)).collect();
    assert_eq!(all.len(), 300);
    assert_eq!(verify(&dir, &all), Ok(()));
    assert_eq!(verify(&dir, &first), Ok(()), "what has no line may be there too");
    for wrong in ["ack seed=1 writer=0 op=9999 version=5000", "ack seed=2 writer=0 op=1 version=3"] {
        let said = verify(&dir, &[all.clone(), vec![wrong.to_owned()]].concat());
        assert!(said.is_err(), "{wrong}");
    }
    let (one, two) = (torture(&[&"dump", &dir]), torture(&[&"dump", &dir]));
    assert!(one.status.success() && one.stdout == two.stdout);
    assert!(lines(&one).iter().filter(|line| line.starts_with("point ")).count() > 100);
}

#[test]
fn backups_beside_the_work_are_checked_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, beside) = (folder.path().join("db"), folder.path().join("beside"));
    let run = torture(&[&"run", &dir, &"--ops", &"250", &"--beside", &beside]);
    assert!(run.status.success(), "{run:?}");
    // A repair of what is sound changes nothing.
    let again = torture(&[&"run", &dir, &"--ops", &"250", &"--beside", &beside, &"--repair"]);
    assert!(again.status.success(), "{again:?}");
    let acks = folder.path().join("acks");
    fs::write(&acks, [run.stdout, again.stdout].concat()).expect("it is written");
    let verify = || torture(&[&"verify", &dir, &acks, &"--beside", &beside]);
    assert_eq!(verify().status.code(), Some(0), "{:?}", verify());
    let backups: Vec<_> =
        fs::read_dir(&beside).expect("a folder").map(|entry| entry.expect("listed").path()).collect();
    assert_eq!(backups.len(), 2, "{backups:?}");

    let db = chronolith::Database::open(&backups[0]).expect("it opens");
    let metric = db.metric("private/0/0").expect("a metric");
    db.append(&metric, chronolith::Timestamp::from_secs(12), 34.5).expect("a commit");
    // The check reads the last checkpoint.
    db.checkpoint().expect("a checkpoint");
    db.close().expect("it closes");
    let found = verify();
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    assert!(
        lines(&found).iter().any(|line| line.contains("backup-") || line.contains("backup ")),
        "{found:?}"
    );
}

#[test]
fn a_point_that_was_not_written_by_the_run_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("db");
    let acks = lines(&torture(&[&"run", &dir, &"--ops", &"60"]));
    let db = chronolith::Database::open(&dir).expect("it opens");
    let metric = db.metric("private/0/0").expect("a metric");
    db.append(&metric, chronolith::Timestamp::from_secs(12), 34.5).expect("a commit");
    db.close().expect("it closes");
    let said = verify(&dir, &acks).expect_err("there is a point too many");
    assert!(said.contains("private/0/0") && said.contains("12000000000") && said.contains("34.5"), "{said}");
}

#[test]
fn nothing_is_made_by_a_check_and_nothing_is_wrong_with_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let absent = folder.path().join("absent");
    assert_eq!(verify(&absent, &[]), Ok(()));
    assert!(!absent.exists());
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).expect("a folder");
    assert_eq!(verify(&empty, &[]), Ok(()));
    assert_eq!(fs::read_dir(&empty).expect("a folder").count(), 0);
    let lost = verify(&absent, &["ack seed=1 writer=0 op=1 version=3".to_owned()]);
    assert!(lost.is_err_and(|said| said.contains("acknowledged")));
    assert_eq!(torture(&[&"dump", &absent]).status.code(), Some(3));
    // Somebody's own metrics are left alone.
    let own = folder.path().join("own");
    let db = chronolith::Database::open(&own).expect("it opens");
    db.append(&db.metric("own").expect("a name"), chronolith::Timestamp::EPOCH, 1.0).expect("commits");
    db.close().expect("closes");
    let refused = torture(&[&"run", &own, &"--ops", &"3"]);
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
}

#[test]
fn what_stands_in_the_way_is_said_as_by_other_verbs() {
    let folder = tempfile::tempdir().expect("a folder");
    let other = folder.path().join("other");
    fs::create_dir(&other).expect("a folder");
    fs::write(other.join("letter.txt"), "dear").expect("a file");
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    for verb in ["run", "dump"] {
        let refused = torture(&[&verb, &other]);
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        let said = said(&refused);
        assert!(said.contains("holds no database") && said.contains("hint: check the path"), "{said}");
        assert!(!said.contains("reopening") && !said.contains("commits"), "{said}");
    }
    let dir = folder.path().join("db");
    let missing = torture(&[&"verify", &dir, &folder.path().join("missing")]);
    assert_eq!(missing.status.code(), Some(4), "{missing:?}");
    assert!(said(&missing).contains("cannot read"), "{missing:?}");
    let nonsense = folder.path().join("nonsense");
    fs::write(&nonsense, "ack seed=1 writer=0 op=1 version=3\nnonsense\n").expect("a file");
    let nonsense = torture(&[&"verify", &dir, &nonsense]);
    assert_eq!(nonsense.status.code(), Some(4), "{nonsense:?}");
    assert!(said(&nonsense).contains("nonsense, line 2"), "{nonsense:?}");
}

#[test]
fn all_but_the_acknowledgements_is_json_on_demand() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("db");
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
    let run = torture(&[&"run", &dir, &"--ops", &"60", &"--json"]);
    assert!(run.status.success() && run.stderr.is_empty(), "{run:?}");
    let printed = lines(&run);
    assert_eq!(printed.iter().filter(|line| line.starts_with("ack ")).count(), 60);
    assert_eq!(json(printed.last().expect("a summary"))["commits"], 60);
    assert_eq!(verify(&dir, &printed), Ok(()), "a summary is no wrong line");

    let wrong = folder.path().join("wrong");
    fs::write(&wrong, "ack seed=1 writer=0 op=9999 version=5000\n").expect("a file");
    let found = torture(&[&"verify", &"--json", &dir, &wrong]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    let found = json(&lines(&found).concat());
    assert_eq!((&found["sound"], &found["acks"]), (&false.into(), &1.into()));
    assert!(found["violations"].as_array().is_some_and(|found| found.len() >= 2), "{found}");

    let dump = lines(&torture(&[&"dump", &"--json", &dir]));
    let points = dump.iter().filter(|line| json(line).get("point").is_some()).count();
    let text = lines(&torture(&[&"dump", &dir]));
    assert_eq!(points, text.iter().filter(|line| line.starts_with("point ")).count());
    assert_eq!(dump.len(), text.len());
    assert_eq!(torture(&[&"run", &dir, &"--ops", &"5", &"--quiet", &"--seed", &"9"]).stderr, b"");
}
