//! The verbs about checkpoints and backups, and reading beside a writer, run as their users run them.
#![cfg(feature = "cli")]

#[macro_use]
mod runner;

use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chronolith::{Database, Durability, Options, Timestamp};
use runner::{Place, Run, run};

const CSV: &str = "series,ts_ms,value\na,1700000000000,1\na,1700000001000,2.5\nb,1700000000000,-3\n";
const MORE: &str = "series,ts_ms,value\na,1700000002000,7\n";

fn dump(dir: impl AsRef<Path>, read_only: bool) -> Run {
    let mut arguments = vec![OsString::from("dump"), dir.as_ref().into()];
    arguments.extend(read_only.then(|| "--read-only".into()));
    run(arguments)
}

/// All files below a folder, with what is in them.
fn files(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), std::fs::read(&path).expect("readable"))),
        }
    }
    found.sort();
    found
}

#[test]
fn a_checkpoint_is_written_and_read_beside_a_writer() {
    let place = Place::imported(CSV);
    let early =
        dump(place.db(), true).ends(3).stderr_has("no checkpoint").stderr_has("chronolith checkpoint");
    assert!(early.stdout.is_empty());
    let written = run(args!["--json", "checkpoint", place.db()]).ends(0).json();
    assert!(written["version"].as_u64() > Some(0) && written["names_bytes"].as_u64() > Some(0), "{written}");
    let text = run(args!["checkpoint", place.db()]).ends(0).text();
    assert!(text.starts_with("wrote a checkpoint of version"), "{text}");
    let before = dump(place.db(), false).ends(0);
    // Somebody has it open, and has committed more. Nothing is sealed meanwhile.
    let db = Options::new().workers(0).open(place.db()).expect("opens");
    db.append(&db.metric("a").expect("a name"), Timestamp::from_secs(1_800_000_000), 1.0).expect("commits");
    dump(place.db(), false).ends(3).stderr_has("in use").stderr_has("--read-only");
    let found = files(&place.db());
    assert_eq!(dump(place.db(), true).ends(0).stdout, before.stdout);
    let db_arg = || OsString::from(place.db());
    for arguments in [
        args!["export", db_arg(), "--read-only"].to_vec(),
        args!["query", db_arg(), "a", "--read-only"].to_vec(),
        args!["list", db_arg(), "--read-only"].to_vec(),
    ] {
        assert!(!run(arguments).ends(0).stdout.is_empty());
    }
    let verified = run(args!["--json", "verify", db_arg(), "--read-only"]).ends(0).json();
    assert_eq!((&verified["sound"], &verified["points"]), (&true.into(), &3.into()), "{verified}");
    assert_eq!(verified["checkpoint"], written["version"]);
    let stats = run(args!["--json", "stats", db_arg(), "--read-only"]).ends(0).json();
    assert_eq!((&stats["version"], &stats["points"]), (&written["version"], &3.into()), "{stats}");
    assert!(files(&place.db()) == found, "reading changed something");
    db.close().expect("closes");
    run(args!["dump", place.db(), "--read-only", "--salvage"]).ends(2);
    run(args!["seal", place.db(), "--read-only"]).ends(2);
}

#[test]
fn a_backup_is_a_database_that_goes_on_by_itself() {
    let place = Place::imported(CSV);
    run(args!["seal", place.db()]).ends(0);
    let more = place.file("more.csv", MORE);
    run(args!["import", place.db(), more]).ends(0);
    let (first, second) = (place.at("backups/first"), place.at("second"));
    let report = run(args!["--json", "backup", place.db(), &first]).ends(0).json();
    assert_eq!((&report["volumes"], &report["copied_files"]), (&2.into(), &0.into()), "{report}");
    assert_eq!(report["linked_files"], 16);
    let before = dump(place.db(), false).ends(0);
    assert_eq!(dump(&first, false).ends(0).stdout, before.stdout);
    run(args!["backup", place.db(), &first]).ends(3).stderr_has("not empty").stderr_has("new folder");
    let text = run(args!["backup", &first, &second]).ends(0).text();
    assert!(text.contains("backed up version") && text.contains("2 volumes"), "{text}");
    // Each goes on.
    run(args!["refresh", place.db()]).ends(0);
    let late = place.file("late.csv", "series,ts_ms,value\na,1700000000500,9\n");
    run(args!["import", &first, late]).ends(0);
    run(args!["refresh", &first]).ends(0);
    for dir in [&place.db(), &first, &second] {
        run(args!["verify", dir]).ends(0);
    }
    assert_eq!(dump(place.db(), false).ends(0).stdout, before.stdout);
    assert_eq!(dump(&second, false).ends(0).stdout, before.stdout);
    assert!(dump(&first, false).ends(0).stdout != before.stdout);
}

#[test]
fn the_last_checkpoint_is_backed_up_beside_a_writer() {
    let place = Place::imported(CSV);
    run(args!["seal", place.db()]).ends(0);
    run(args!["checkpoint", place.db()]).ends(0);
    let before = dump(place.db(), false).ends(0);
    let db = Database::open(place.db()).expect("opens");
    db.append(&db.metric("new").expect("a name"), Timestamp::EPOCH, 1.0).expect("commits");
    run(args!["backup", place.db(), place.at("backup")]).ends(3).stderr_has("in use");
    assert!(!place.at("backup").exists());
    run(args!["backup", place.db(), place.at("backup"), "--read-only"]).ends(0);
    assert_eq!(dump(place.at("backup"), false).ends(0).stdout, before.stdout);
}

#[test]
fn an_interrupted_backup_says_so() {
    let place = Place::new();
    std::fs::create_dir(place.db()).expect("made");
    place.file("db/superblock.backup", "");
    dump(place.db(), false).ends(3).stderr_has("backup").stderr_has("did not come to its end");
    let more = place.file("more.csv", MORE);
    run(args!["import", place.db(), more]).ends(3);
}

/// A process for each reading. For continuous integration it is short; `CHRONOLITH_READ_ONLY_SECONDS=60` for the long form.
#[test]
fn other_processes_dump_in_a_loop_beside_a_writer_that_seals() {
    let seconds = std::env::var("CHRONOLITH_READ_ONLY_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(2));
    let place = Place::new();
    let options = Options::new().durability(Durability::Buffered).block_size(Duration::from_secs(60));
    let db = options.open(place.db()).expect("opens");
    let metrics: Vec<_> = (0..20).map(|number| db.metric(format!("m{number}")).expect("a name")).collect();
    // Commit `n` puts the point `n` into each metric, and a late one with the value `n`: a cut of it all has the same points everywhere.
    let commit = |number: i64| {
        let mut txn = db.begin_write();
        for metric in &metrics {
            txn.append(metric, Timestamp::from_secs(1_700_000_000 + number), number as f64).expect("staged");
            let late = 1_700_000_000 + number * 7 % (number + 1);
            txn.append(metric, Timestamp::from_secs(late), number as f64).expect("staged");
        }
        txn.commit().expect("commits");
    };
    commit(0);
    db.checkpoint().expect("a checkpoint");
    let is_over = AtomicBool::new(false);
    let (commits, checkpoints, blocks) = (AtomicU64::new(1), AtomicU64::new(1), AtomicU64::new(0));
    let (mut dumps, mut lines, mut seen) = (0u64, 0, std::collections::BTreeSet::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut number, mut last) = (1, Instant::now());
            while !is_over.load(Ordering::Relaxed) {
                commit(number);
                let left = Timestamp::from_secs(1_700_000_000 + number - 60);
                let sealed = match number % 20 {
                    0 => db.seal(..left).expect("seals").blocks,
                    10 if number % 60 == 10 => db.refresh(..left).expect("refreshes").blocks,
                    // Not one after the other: a reader needs a moment for one.
                    5 if last.elapsed() > Duration::from_millis(200) => {
                        last = Instant::now();
                        db.checkpoint().expect("a checkpoint");
                        checkpoints.fetch_add(1, Ordering::Relaxed);
                        0
                    }
                    _ => 0,
                };
                blocks.fetch_add(sealed, Ordering::Relaxed);
                number += 1;
                commits.store(number as u64, Ordering::Relaxed);
            }
        });
        let _over = Over(&is_over);
        while Instant::now() < end {
            let dumped = dump(place.db(), true).ends(0);
            let text = dumped.text();
            let of = |metric: &str| -> Vec<String> {
                let rows = text.lines().map(|line| line.splitn(3, '\t').collect::<Vec<_>>());
                rows.filter(|row| row[1] == metric).map(|row| row[2].to_owned()).collect()
            };
            let first = of("m0");
            assert!(!first.is_empty());
            (1..20)
                .for_each(|number| assert!(of(&format!("m{number}")) == first, "m{number} differs from m0"));
            dumps += 1;
            lines += text.lines().count();
            seen.insert(first.len());
        }
    });
    let (commits, checkpoints, blocks) =
        (commits.into_inner(), checkpoints.into_inner(), blocks.into_inner());
    println!(
        "{dumps} dumps of {} states, {lines} lines, beside {commits} commits, {checkpoints} checkpoints, {blocks} volumes written",
        seen.len()
    );
    assert!(dumps > 1 && seen.len() > 1 && blocks > 0);
    db.close().expect("closes");
    run(args!["verify", place.db()]).ends(0);
}

/// Ends the other threads' work when this one's ends, also by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
