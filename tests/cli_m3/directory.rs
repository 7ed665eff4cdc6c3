//! `m3 list` and `m3 verify`, and paths that mean something else.

use std::ffi::OsString;

use chronolith::Database;
use serde_json::Value;

use super::*;

#[test]
fn wrong_paths_are_explained() {
    let place = Place::new();
    let prefix = place.prefix();
    let shard = prefix.join("data/metrics_10s/0");
    run(args!["volume", "dump", &shard])
        .ends(4)
        .stderr_has("holds 3 volumes")
        .stderr_has("give a file of one");
    run(args!["volume", "dump", prefix.join("data")]).ends(4).stderr_has("holds no complete volume");
    run(args!["volume", "verify", place.at("nothing/x")]).ends(4).stderr_has("does not exist");
    run(args!["volume", "dump", prefix.join("commitlogs/commitlog-0-0.db")])
        .ends(4)
        .stderr_has("is no file of a volume");
    let alone = place.at("alone");
    copy(&prefix.join("data/tagged/2"), &alone);
    run(args!["volume", "dump", &alone]).ends(0);
    run(args!["volume", "dump", &alone, "--m3-expected"]).ends(4).stderr_has("which namespace and shard");

    for verb in ["list", "verify"] {
        run(args!["m3", verb, place.at("nothing")])
            .ends(4)
            .stderr_has("does not exist")
            .stderr_has("/var/lib/m3db");
        run(args!["m3", verb, &shard]).ends(4).stderr_has("give the folder above it: ");
        run(args!["m3", verb, prefix.join("data")]).ends(4).stderr_has("give the folder above it: ");
        run(args!["m3", verb, place.dir.path()]).ends(4).stderr_has("did you mean ").stderr_has("m3db?");
        run(args!["m3", verb, shard.join("fileset-1699999200000000000-0-data.db")])
            .ends(4)
            .stderr_has("is a file");
    }
    drop(Database::open(place.db()).expect("room"));
    for args in
        [args!["m3", "list", place.db()].to_vec(), args!["m3", "import", place.db(), place.at("b")].to_vec()]
    {
        run(args).ends(4).stderr_has("is a chronolith database").stderr_has("chronolith list");
    }
    std::fs::create_dir_all(place.at("empty/data")).expect("room");
    run(args!["m3", "import", place.at("empty"), place.at("b")]).ends(4).stderr_has("nothing to import");
    assert!(!place.at("b").exists(), "nothing is made for an import that cannot be");
    // The database would lie in the midst of M3's files.
    run(args!["m3", "import", &prefix, &prefix])
        .ends(4)
        .stderr_has("is the directory of M3 itself")
        .stderr_has("chronolith m3 import PREFIX DIR");
}

#[test]
fn list_says_what_is_there() {
    let listed = run(args!["m3", "list", fixture()]).ends(0);
    listed
        .stdout_has(
            "snapshot 6ba7b810-9dad-11d1-80b4-00c04fd430c8, number 3; commit logs from 1 on are newer",
        )
        .stdout_has("commitlog-0-2.db, 20 bytes")
        .stdout_has("not of M3: ");
    let listed = run(args!["m3", "list", fixture(), "--json"]).ends(0);
    let objects: Vec<Value> =
        listed.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect();
    let rows: Vec<_> = objects.iter().filter(|object| object.get("namespace").is_some()).collect();
    assert_eq!(rows.len(), 8);
    let first = rows[0];
    assert_eq!((&first["namespace"], &first["kind"]), (&Value::from("metrics_10s"), &Value::from("flush")));
    assert_eq!((&first["blocks"], &first["volumes"]), (&Value::from(2), &Value::from(3)));
    assert_eq!(first["metrics"], 184);
    assert_eq!(objects.iter().filter(|object| object.get("commit_log").is_some()).count(), 3);
}

#[test]
fn directories_are_verified() {
    let place = Place::new();
    let prefix = place.prefix();
    run(args!["m3", "verify", &prefix])
        .ends(0)
        .stdout_has("11,074 points of 1,013 streams in 10 volumes")
        .stdout_has("sound");
    // A volume that was not finished, and a foreign file, do no harm.
    let shard = prefix.join("data/tagged/0");
    std::fs::write(shard.join("fileset-1699999200000000000-1-data.db"), b"half").expect("room");
    std::fs::write(shard.join("notes.txt"), b"?").expect("room");
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        std::fs::write(shard.join(OsStr::from_bytes(b"no\xfftext")), b"?").expect("room");
        for verb in ["list", "verify"] {
            run(args!["m3", verb, &prefix, "--json"]).ends(0).stdout_has("no\u{fffd}text");
        }
    }
    run(args!["m3", "verify", &prefix])
        .ends(0)
        .stdout_has("unfinished, does not count: ")
        .stdout_has("fileset-1699999200000000000-1\n")
        .stdout_has("notes.txt");

    change(&prefix.join("commitlogs/commitlog-0-1.db"), |bytes| bytes.truncate(bytes.len() - 1));
    change(&shard.join("fileset-1699999200000000000-0-index.db"), |bytes| bytes[30] ^= 1);
    let metadata = "snapshots/snapshot-6ba7b8109dad11d180b400c04fd430c8-3-metadata.db";
    change(&prefix.join(metadata), |bytes| bytes[0] ^= 1);
    let verified = run(args!["m3", "verify", &prefix]).ends(1);
    let verified = verified
        .stdout_has("commitlog-0-1.db is corrupt at byte ")
        .stdout_has("the file ends within a chunk")
        .stdout_has("torn by a crash: ")
        .stdout_has("fileset-1699999200000000000-0-index.db is corrupt at byte 0")
        .stdout_has("metadata.db is corrupt at byte 0");
    assert!(!verified.stdout.contains("sound"));
    let json = run(args!["m3", "verify", &prefix, "--json"]).ends(1).json();
    assert_eq!(json["sound"], false);
    assert_eq!(list(&json["torn_logs"]).len(), 1);
    assert_eq!(list(&json["unfinished"]).len(), 1);
}

#[test]
fn rows_with_damage_are_marked() {
    let place = Place::new();
    let prefix = place.prefix();
    change(&prefix.join("data/tagged/0/fileset-1699999200000000000-0-info.db"), |bytes| bytes[9] ^= 1);
    let listed = run(args!["m3", "list", &prefix]).ends(1);
    let row = listed.stdout.lines().find(|line| line.starts_with("tagged") && line.contains(" 0  flush"));
    let row = row.expect("a row");
    assert!(row.ends_with("2023-11-14T22:00:00Z  ?  1 DAMAGED") && row.contains(" ?  "), "{row}");
}

#[test]
fn torn_logs_are_told_with_what_can_be_read() {
    let place = Place::new();
    let prefix = place.prefix();
    // Behind the log's own chunk: no entry is left.
    change(&prefix.join("commitlogs/commitlog-0-1.db"), |bytes| bytes.truncate(24));
    run(args!["m3", "verify", &prefix])
        .ends(1)
        .stdout_has("commitlog-0-1.db; 0 logged points before that can be read");
    run(args!["m3", "import", &prefix, place.db()])
        .ends(1)
        .stderr_has("commitlog-0-1.db; 0 logged points before that");
}

#[test]
#[cfg(target_os = "linux")]
fn verify_that_is_interrupted_tells_what_it_found() {
    let place = Place::new();
    let prefix = import::large_prefix(&place, 200);
    // Damage in the first volume that is read.
    change(&prefix.join("data/n/0/fileset-0-0-data.db"), |bytes| bytes[0] ^= 1);
    let mut child = Command::new(env!("CARGO_BIN_EXE_chronolith"))
        .args(args!["m3", "verify", &prefix])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool runs");
    // Not before it catches Ctrl-C, as the system tells.
    let status = format!("/proc/{}/status", child.id());
    let catches = || {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim();
        u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & 2 != 0)
    };
    while !catches() {
        assert!(child.try_wait().expect("a child").is_none(), "it ended");
        std::thread::yield_now();
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let output = child.wait_with_output().expect("the tool ends");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{stdout}");
    assert!(stdout.contains("interrupted; read "), "{stdout}");
}
