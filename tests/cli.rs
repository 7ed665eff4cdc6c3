//! The command-line tool, run as its users run it.
#![cfg(feature = "cli")]

#[macro_use]
mod runner;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use chronolith::{Database, Timestamp};
use runner::{Place, Run, command, run, run_with_input};
use serde_json::Value;

fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/node_1s.csv.zst")
}

fn unzstd(path: &Path) -> String {
    let file = std::fs::File::open(path).expect("a data file");
    let mut text = String::new();
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(file).expect("zstd");
    decoder.read_to_string(&mut text).expect("zstd of UTF-8");
    text
}

/// `(series, timestamp in ns) -> value bits`; the last of equal keys wins.
type Points = BTreeMap<(String, i64), u64>;

fn csv_points(text: &str) -> Points {
    let mut lines = text.lines();
    let scale = match lines.next() {
        Some("series,ts_ms,value") => 1_000_000,
        Some("series,ts_ns,value") => 1,
        other => panic!("{other:?} is no header"),
    };
    let row = |line: &str| {
        let mut fields = line.rsplitn(3, ',');
        let value: f64 = fields.next()?.parse().ok()?;
        let at: i64 = fields.next()?.parse().ok()?;
        Some(((fields.next()?.to_owned(), at * scale), value.to_bits()))
    };
    lines.map(|line| row(line).unwrap_or_else(|| panic!("{line:?} is no row"))).collect()
}

/// The same from `dump`, whose order is checked on the way.
fn dump_points(text: &str) -> Points {
    let mut points = Points::new();
    let mut previous = None;
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [namespace, metric, at, bits] = fields[..] else { panic!("{line:?} has not 4 columns") };
        assert_eq!(bits.len(), 16, "{line:?}");
        let at: i64 = at.parse().expect("a timestamp");
        let key = (namespace.to_owned(), metric.to_owned(), at);
        assert!(previous.as_ref() < Some(&key), "{line:?} is out of order");
        points.insert((metric.to_owned(), at), u64::from_str_radix(bits, 16).expect("hex"));
        previous = Some(key);
    }
    points
}

/// Imports a file, reopens, and compares what `dump` and `export` give with the file, bit by bit.
fn assert_comes_back(file: &Path) -> usize {
    let expected = csv_points(&unzstd(file));
    let place = Place::new();
    let imported = run(args!["import", "--json", place.db(), file]).ends(0).json();
    let rows = unzstd(file).lines().count() - 1;
    assert_eq!(imported["points"], rows as u64);
    let exported = run(args!["export", place.db()]).ends(0);
    assert!(csv_points(&exported.text()) == expected, "export of {} differs", file.display());
    let dumped = run(args!["dump", place.db()]).ends(0);
    assert!(dump_points(&dumped.text()) == expected, "dump of {} differs", file.display());
    let verified = run(args!["verify", "--json", place.db()]).ends(0).json();
    assert_eq!(verified["points"], expected.len() as u64);
    assert_eq!(verified["sound"], true);
    expected.len()
}

#[test]
fn the_recording_comes_back_bit_by_bit() {
    assert_eq!(assert_comes_back(&recording()), 336_000);
}

/// Every `*.csv.zst` in the folder that `CHRONOLITH_DATASETS` names; without it there is nothing to do.
#[test]
fn larger_data_sets_come_back_bit_by_bit() {
    let Some(dir) = std::env::var_os("CHRONOLITH_DATASETS") else {
        eprintln!("CHRONOLITH_DATASETS is not set: skipped");
        return;
    };
    let mut files = 0;
    for entry in std::fs::read_dir(dir).expect("CHRONOLITH_DATASETS is a folder") {
        let path = entry.expect("an entry").path();
        if path.to_string_lossy().ends_with(".csv.zst") {
            eprintln!("{}: {} points", path.display(), assert_comes_back(&path));
            files += 1;
        }
    }
    assert!(files > 0, "no *.csv.zst in CHRONOLITH_DATASETS");
}

#[test]
fn nasty_values_times_and_ids_survive_export_and_import() {
    let values = [
        "NaN",
        "inf",
        "-inf",
        "-0",
        "0",
        "5e-324",
        "1.7976931348623157e308",
        "0.1",
        "9007199254740993",
        "-1e-7",
    ];
    let times = [i64::MIN, -1, 0, 1, 1_700_000_000_123_456_789, i64::MAX];
    let mut csv = b"series,ts_ns,value\n".to_vec();
    for id in [
        &b"plain"[..],
        b"\"with,comma\"",
        b"\"with\"\"quote\"",
        b"\"two\nlines\"",
        b"\xff\xfe",
        b" spaces ",
        "ü".as_bytes(),
        b"tab\there",
    ] {
        for at in times {
            for (offset, value) in values.iter().enumerate() {
                csv.extend_from_slice(id);
                // Later rows of the same time win; keep most of them apart.
                let at = if at == i64::MAX { at - offset as i64 } else { at + offset as i64 };
                csv.extend_from_slice(format!(",{at},{value}\n").as_bytes());
            }
        }
    }
    let place = Place::imported(&csv);
    let first = run(args!["dump", place.db()]).ends(0).text();
    assert!(first.is_ascii());
    assert!(
        first.contains("\\xff\\xfe\t") && first.contains("two\\nlines\t") && first.contains("tab\\there\t")
    );
    assert!(first.contains("\t-9223372036854775808\t7ff8000000000000\n"), "NaN at the beginning of time");

    let exported = run(args!["export", place.db()]).ends(0);
    assert!(exported.stdout.starts_with(b"series,ts_ns,value\n"));
    let again = Place::imported(&exported.stdout);
    assert_eq!(run(args!["dump", again.db()]).ends(0).text(), first);
}

#[test]
fn export_says_what_csv_cannot_hold() {
    let place = Place::new();
    let db = Database::open(place.db()).expect("open");
    let metric = db.metric("x").expect("a name");
    let mut txn = db.begin_write();
    txn.append(&metric, Timestamp::from_secs(1), f64::from_bits(0xfff8_0000_dead_beef)).expect("stage");
    txn.append_annotated(&metric, Timestamp::from_secs(2), 2.0, b"restart").expect("stage");
    txn.commit().expect("commit");
    drop(metric);
    db.close().expect("close");

    let exported =
        run(args!["export", place.db()]).ends(0).stderr_has("1 NaN value").stderr_has("1 annotation");
    assert_eq!(exported.text(), "series,ts_ms,value\nx,1000,NaN\nx,2000,2\n");
    assert_eq!(run(args!["export", "--quiet", place.db()]).ends(0).stderr, "");
    let query = |more: &[&str]| {
        run(args!["query", place.db(), "x"].into_iter().chain(more.iter().map(OsString::from))).ends(0)
    };
    for (format, text) in [
        ("csv", "series,ts_ns,value\nx,1000000000,NaN\nx,2000000000,2\n"),
        ("tsv", "1000000000\tNaN\n2000000000\t2\n"),
    ] {
        let queried = query(&["--format", format]).stderr_has("1 NaN value").stderr_has("1 annotation");
        assert_eq!(queried.text(), text);
        assert_eq!(query(&["--format", format, "--quiet"]).stderr, "");
    }
    let queried = query(&["--json"]).stderr_has("1 NaN value");
    assert!(!queried.stderr.contains("annotation"), "{}", queried.stderr);
    let points = serde_json::json!([[1_000_000_000, "NaN"], [2_000_000_000, 2.0, "72657374617274"]]);
    assert_eq!(queried.json()["points"], points);
    let dumped = run(args!["dump", "--annotations", place.db()]).ends(0);
    assert_eq!(
        dumped.text(),
        "default\tx\t1000000000\tfff80000deadbeef\t\ndefault\tx\t2000000000\t4000000000000000\t72657374617274\n"
    );
}

#[test]
fn later_rows_win_and_order_does_not_matter() {
    let place = Place::imported("series,ts_s,value\na,3,3\nb,1,1\na,1,1\na,3,4\na,2,2\n");
    assert_eq!(
        run(args!["export", place.db()]).ends(0).text(),
        "series,ts_ms,value\na,1000,1\na,2000,2\na,3000,4\nb,1000,1\n"
    );
}

#[test]
fn import_reads_standard_input_and_many_files() {
    let place = Place::new();
    let one = place.file("one.csv", "series,ts_ms,value\na,1,1\n");
    let two = place.file("two.csv", "series,ts_ns,value\na,2000000,2\n");
    let imported =
        run_with_input(args!["import", "--json", place.db(), one, "-", two], b"series,ts_us,value\nb,3,3\n");
    assert_eq!(imported.ends(0).json()["metrics"], 2);
    let zstd = std::fs::read(recording()).expect("bundled");
    assert_eq!(
        run_with_input(args!["import", "--json", place.db(), "-"], &zstd).ends(0).json()["points"],
        336_000
    );
    assert_eq!(run(args!["stats", "--json", place.db()]).ends(0).json()["points"], 336_003);
}

#[test]
fn a_bad_row_stops_the_import_and_tells_what_was_committed() {
    let mut csv = "series,ts_ms,value\n".to_owned();
    for row in 0..70_000 {
        let _ = writeln!(csv, "a,{row},{row}");
    }
    csv.push_str("a,70000,seventy thousand\na,70001,1\n");
    let place = Place::new();
    let file = place.file("in.csv", &csv);
    let failed = run(args!["import", "--json", place.db(), &file]).ends(4);
    let failed = failed
        .stderr_has("line 70002")
        .stderr_has("`seventy thousand` is no number")
        .stderr_has("--skip-bad");
    let failed = failed.stderr_has("committed before that: 65,536 points").stderr_has("line 65537");
    assert_eq!(failed.json()["committed_points"], 65_536);
    assert_eq!(failed.json()["exit_status"], 4);
    assert_eq!(run(args!["verify", "--json", place.db()]).ends(0).json()["points"], 65_536);

    let skipped =
        run(args!["import", "--json", "--skip-bad", place.db(), file]).ends(0).stderr_has("line 70002");
    assert_eq!(skipped.json()["bad_rows"], 1);
    assert_eq!(run(args!["verify", "--json", place.db()]).ends(0).json()["points"], 70_001);
}

#[test]
fn input_that_is_none_is_refused_before_anything_is_made() {
    let place = Place::new();
    let good = place.file("good.csv", "series,ts_ms,value\na,1,1\n");
    run(args!["import", place.db(), &good, place.at("missing.csv")]).ends(4).stderr_has("missing.csv");
    run(args!["import", place.db(), place.dir.path()]).ends(4).stderr_has("is a folder");
    assert!(!place.db().exists());

    for (content, message) in [
        (&b"a,1,1\n"[..], "the first line must be `series,ts_ms,value`"),
        (b"", "the first line must be"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x28\xb5\x2f\xfd\x00", "zstd stream is damaged"),
    ] {
        let bad = place.file("bad.csv", content);
        for files in [vec![bad.clone()], vec![good.clone(), bad]] {
            let arguments = args!["--json", "import", place.db()].into_iter();
            let refused = run(arguments.chain(files.into_iter().map(OsString::from))).ends(4);
            let refused = refused.stderr_has(message).stderr_has("nothing was committed");
            assert_eq!(refused.json()["committed_points"], 0);
            assert!(!place.db().exists(), "{message}");
        }
    }
    let bad = place.file("bad.csv", "series,ts_ms,value\n,1,1\n");
    let refused = run(args!["import", place.db(), bad]).ends(4).stderr_has("1 to 65536 bytes, not 0");
    refused.stderr_has("nothing was committed");
    let long = format!("series,ts_ms,value\n{},1,1\n{},1,1\n", "y".repeat(65_536), "x".repeat(65_537));
    let long = place.file("long.csv", long);
    run(args!["import", place.db(), &long]).ends(4).stderr_has("line 3").stderr_has("65537");
    run(args!["import", "--skip-bad", place.db(), long]).ends(0);
    assert_eq!(run(args!["list", place.db()]).ends(0).text().trim_end().len(), 65_536);
}

#[test]
fn a_cut_zstd_file_keeps_the_batches_before_the_cut() {
    let place = Place::new();
    // A whole frame, then half of one.
    let mut frames = std::fs::read(recording()).expect("bundled");
    frames.extend_from_within(..frames.len() / 2);
    let cut = place.file("cut.zst", frames);
    let failed = run(args!["import", "--json", place.db(), cut]).ends(4).stderr_has("zstd stream is damaged");
    let committed = failed.json()["committed_points"].as_u64().expect("a count");
    assert_eq!(committed, 5 * 65_536);
    assert_eq!(run(args!["verify", "--json", place.db()]).ends(0).json()["points"], committed);
}

#[test]
fn verbs_that_read_make_no_database() {
    let place = Place::new();
    for verb in ["export", "list", "stats", "verify", "dump", "seal", "refresh"] {
        run(args![verb, place.db()]).ends(3).stderr_has("does not exist").stderr_has("chronolith import");
        assert!(!place.db().exists(), "{verb}");
    }
    run(args!["query", place.db(), "x"]).ends(3).stderr_has("does not exist");

    let other = place.at("other");
    std::fs::create_dir(&other).expect("a folder");
    std::fs::write(other.join("letter.txt"), "dear").expect("a file");
    for verb in ["export", "list", "stats", "verify", "dump", "seal", "refresh"] {
        run(args![verb, &other]).ends(3).stderr_has("holds no database").stderr_has("check the path");
    }
    let csv = place.file("in.csv", "series,ts_ms,value\na,1,1\n");
    run(args!["import", &other, csv]).ends(3).stderr_has("holds no database");
    let entries: Vec<_> = std::fs::read_dir(&other).expect("a folder").collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
}

#[test]
fn a_second_process_is_told_that_the_first_has_the_database() {
    let place = Place::imported("series,ts_ms,value\na,1,1\n");
    let db = Database::open(place.db()).expect("open");
    for verb in ["import", "list", "verify"] {
        let mut arguments = vec![OsString::from(verb), place.db().into()];
        if verb == "import" {
            arguments.push(place.at("in.csv").into());
        }
        let locked = run(["--json".into()].into_iter().chain(arguments)).ends(3).stderr_has("in use");
        assert_eq!(locked.json()["exit_status"], 3);
        assert!(locked.json()["hint"].as_str().expect("a hint").contains("one process at a time"));
    }
    db.close().expect("close");
    run(args!["verify", place.db()]).ends(0);
}

#[test]
fn damage_is_reported_and_salvaged_on_demand() {
    let place = Place::new();
    run(args!["import", place.db(), recording()]).ends(0);
    let segment = place.db().join("commitlog/0000000001.log");
    let mut bytes = std::fs::read(&segment).expect("a segment of the log");
    bytes[100_000] ^= 0x10;
    std::fs::write(&segment, bytes).expect("a damaged segment");

    let damaged = run(args!["verify", "--json", place.db()]).ends(1);
    let damaged = damaged.stderr_has("0000000001.log is corrupt at byte").stderr_has("--salvage");
    assert_eq!(damaged.json()["exit_status"], 1);
    for verb in ["list", "stats", "dump", "export"] {
        run(args![verb, place.db()]).ends(3).stderr_has("0000000001.log is corrupt at byte");
    }
    let salvaged =
        run(args!["verify", "--json", "--salvage", place.db()]).ends(1).stderr_has("salvage: ").json();
    assert_eq!(salvaged["sound"], false);
    let rest = salvaged["points"].as_u64().expect("a count");
    assert!(rest > 0 && rest < 336_000, "{rest}");
    // What is left is sound, and bit by bit as it was.
    let sound =
        run(args!["verify", "--json", place.db()]).ends(0).stderr_has("put aside by --salvage").json();
    assert_eq!((&sound["points"], &sound["sound"]), (&rest.into(), &true.into()));
    let expected = csv_points(&unzstd(&recording()));
    let anonymous: std::collections::BTreeSet<_> =
        expected.iter().map(|((_, at), bits)| (*at, *bits)).collect();
    for (key, bits) in dump_points(&run(args!["dump", place.db()]).ends(0).text()) {
        match key.0.starts_with("salvaged-metric-") {
            // Its name was in the damaged place.
            true => assert!(anonymous.contains(&(key.1, bits)), "{key:?}"),
            false => assert_eq!(expected.get(&key), Some(&bits), "{key:?}"),
        }
    }
}

#[test]
fn what_is_repaired_without_being_asked_is_not_called_salvaged() {
    let place = Place::imported("series,ts_ms,value\na,1,1\n");
    let superblock = place.db().join("superblock");
    let mut bytes = std::fs::read(&superblock).expect("a superblock");
    bytes[20] ^= 0x10;
    std::fs::write(&superblock, bytes).expect("a damaged slot");
    let repaired = run(args!["verify", place.db()]).ends(1).stderr_has("repaired: a slot of");
    assert!(!repaired.stderr.contains("salvage"), "{}", repaired.stderr);
    run(args!["verify", place.db()]).ends(0);
}

#[test]
fn a_newer_format_is_left_alone() {
    let place = Place::imported("series,ts_ms,value\na,1,1\n");
    let superblock = place.db().join("superblock");
    let mut bytes = std::fs::read(&superblock).expect("a superblock");
    for slot in bytes.chunks_exact_mut(4096) {
        slot[8..12].copy_from_slice(&99u32.to_le_bytes());
        let checksum = crc32(&slot[..4092]);
        slot[4092..].copy_from_slice(&checksum.to_le_bytes());
    }
    std::fs::write(&superblock, &bytes).expect("a superblock");
    run(args!["verify", place.db()])
        .ends(3)
        .stderr_has("format version 99")
        .stderr_has("nothing was changed");
    run(args!["import", "--salvage", place.db(), place.at("in.csv")]).ends(3).stderr_has("format version 99");
    assert!(std::fs::read(&superblock).expect("a superblock") == bytes);
}

/// CRC-32 as in zlib, a bit at a time.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| crc >> 1 ^ (0xedb8_8320 * (crc & 1)))
    })
}

#[test]
fn query_selects_by_time_and_count() {
    let place = Place::imported(
        "series,ts_ns,value\nm,-5,1\nm,1700000000000000000,2\nm,1700000000500000000,3\nm,1700000001000000000,NaN\n",
    );
    let values = |more: &[&str]| {
        let all = args!["query", place.db(), "m", "--format", "tsv"]
            .into_iter()
            .chain(more.iter().map(OsString::from));
        let text = run(all).ends(0).text();
        text.lines()
            .map(|line| line.split('\t').nth(1).expect("a value").to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(values(&[]), "1 2 3 NaN");
    assert_eq!(values(&["--from", "1700000000s"]), "2 3 NaN");
    assert_eq!(values(&["--from", "2023-11-14T22:13:20Z", "--to", "1700000001000ms"]), "2 3");
    assert_eq!(values(&["--to", "0"]), "1");
    assert_eq!(values(&["--from", "-5", "--to", "-4ns"]), "1");
    assert_eq!(values(&["--limit", "2"]), "1 2");
    assert_eq!(values(&["--last"]), "NaN");
    assert_eq!(values(&["--last", "--limit", "2"]), "3 NaN");
    assert_eq!(values(&["--last", "--to", "1700000001s"]), "3");
    assert_eq!(values(&["--from", "1700000001s", "--to", "1700000000s"]), "");

    let csv = run(args!["query", place.db(), "m", "--limit", "1"]).ends(0);
    assert_eq!(csv.text(), "series,ts_ns,value\nm,-5,1\n");
    let json = run(args!["--json", "query", place.db(), "m", "--last", "--limit", "2"]).ends(0).json();
    assert_eq!(json["metric"], "m");
    assert_eq!(
        json["points"],
        serde_json::json!([[1_700_000_000_500_000_000_i64, 3.0], [1_700_000_001_000_000_000_i64, "NaN"]])
    );
    let table = run(args!["query", place.db(), "m", "--format", "table"]).ends(0).text();
    assert!(table.contains("2023-11-14T22:13:20.500Z"), "{table}");
    let chart = run(args!["query", place.db(), "m", "--chart", "--from", "0"]).ends(0).text();
    assert!(chart.contains('┤') && chart.contains("22:13:20"), "{chart}");

    let none = run(args!["query", "--json", place.db(), "m", "--limit", "0"]).ends(0).json();
    assert_eq!(none["points"], serde_json::json!([]));
    assert_eq!(values(&["--last", "--limit", "0"]), "");
    assert_eq!(values(&["--last", "--limit", "9"]), "1 2 3 NaN");
    let both = run(args!["query", place.db(), "m", "--chart", "--format", "tsv"]).ends(0).text();
    assert!(both.contains('┤') && both.ends_with("\n1700000001000000000\tNaN\n"), "{both}");
    for contradiction in [&["--format", "csv"][..], &["--chart"]] {
        let arguments = args!["query", "--json", place.db(), "m"];
        let refused = run(arguments.into_iter().chain(contradiction.iter().map(OsString::from))).ends(2);
        assert_eq!(refused.stderr_has("--json is a format").json()["exit_status"], 2);
    }
    run(args!["query", place.db(), "m", "--from", "yesterday"]).ends(2).stderr_has("RFC 3339");
    run(args!["query", place.db(), "n"]).ends(4).stderr_has("no metric n");
    run(args!["query", place.db(), "M"]).ends(4).stderr_has("did you mean m?");
    run(args!["query", place.db(), "m", "--namespace", "other"]).ends(4).stderr_has("there are: default");
}

#[test]
fn metrics_are_found_as_they_are_listed() {
    let place =
        Place::imported(b"series,ts_ms,value\n\"two\nlines \\ and \xff\",1,7\n\xc3\xbc,1,8\n".as_slice());
    let listed = run(args!["list", place.db()]).ends(0).text();
    let names: Vec<&str> = listed.lines().collect();
    assert_eq!(names, [r"two\nlines \\ and \xff", "ü"]);
    for (name, value) in names.iter().zip(["7", "8"]) {
        let found = run(args!["query", place.db(), name, "--format", "tsv"]).ends(0).text();
        assert_eq!(found, format!("1000000\t{value}\n"));
    }
    let json = run(args!["list", "--json", "--long", place.db(), "two"]).ends(0).json();
    assert_eq!(json["metric_hex"], "74776f0a6c696e6573205c20616e6420ff");
    assert_eq!((&json["points"], &json["first_ns"]), (&1.into(), &1_000_000.into()));
}

#[test]
fn namespaces_are_kept_apart() {
    let place = Place::imported("series,ts_ms,value\nx,1,1\n");
    let other = place.file("other.csv", "series,ts_ms,value\nx,1,2\n");
    run(args!["import", place.db(), other, "--namespace", "west"]).ends(0);
    let export = |more: &[&str]| {
        run(args!["export", place.db()].into_iter().chain(more.iter().map(OsString::from))).ends(0)
    };
    let default = export(&[]).stderr_has("not exported: namespace west");
    assert_eq!(default.text(), "series,ts_ms,value\nx,1,1\n");
    assert_eq!(export(&["--namespace", "west"]).text(), "series,ts_ms,value\nx,1,2\n");
    assert_eq!(run(args!["list", place.db()]).ends(0).text(), "x\nwest:x\n");
    assert_eq!(
        run(args!["dump", place.db()]).ends(0).text(),
        "default\tx\t1000000\t3ff0000000000000\nwest\tx\t1000000\t4000000000000000\n"
    );
}

#[test]
fn every_verb_speaks_json() {
    let place = Place::imported("series,ts_ms,value\na,1,1\n");
    let fixture = place.file("fixtures.jsonl", FIXTURE);
    for arguments in [
        args!["export", place.db()].to_vec(),
        args!["query", place.db(), "a"].to_vec(),
        args!["list", place.db()].to_vec(),
        args!["stats", place.db()].to_vec(),
        args!["verify", place.db()].to_vec(),
        args!["dump", place.db()].to_vec(),
        args!["seal", place.db()].to_vec(),
        args!["refresh", place.db()].to_vec(),
        args!["codec", "check", fixture].to_vec(),
        args!["import", place.db(), place.at("in.csv")].to_vec(),
        args!["torture", "run", "--ops", "0", place.at("torture")].to_vec(),
        args!["torture", "verify", place.at("torture"), place.file("acks", "")].to_vec(),
    ] {
        let run = run(arguments.iter().cloned().chain(["--json".into()])).ends(0);
        assert!(run.json().is_object(), "{arguments:?}: {}", run.text());
        assert_eq!(run.stderr, "", "{arguments:?}");
    }
    // Lines of JSON, and errors.
    run(args!["torture", "run", "--ops", "20", "--quiet", place.at("torture")]).ends(0);
    let dumped = run(args!["torture", "dump", "--json", place.at("torture")]).ends(0).text();
    assert!(
        dumped.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()))
    );
    for (arguments, status) in [
        (args!["torture", "dump", place.at("absent")].to_vec(), 3),
        (args!["torture", "run", place.at("in.csv")].to_vec(), 3),
        (args!["torture", "verify", place.at("torture"), place.at("absent")].to_vec(), 4),
    ] {
        let failed = run(arguments.iter().cloned().chain(["--json".into()])).ends(status);
        assert_eq!(failed.json()["exit_status"], status, "{arguments:?}");
    }
}

#[test]
fn help_names_the_exit_statuses_and_wrong_usage_is_2() {
    let help = run(["--help"]).ends(0).text();
    for line in ["1    a check failed", "2    wrong usage", "3    the database", "4    the input"] {
        assert!(help.contains(line), "{help}");
    }
    run(["frobnicate"]).ends(2);
    run(["import"]).ends(2);
    run(["query", "somewhere"]).ends(2);
}

#[test]
fn wrong_usage_is_json_on_demand() {
    for (arguments, text) in [
        (&["--json"][..], "requires a subcommand"),
        (&["frobnicate", "--json"], "unrecognized subcommand 'frobnicate'"),
        (&["--json", "import", "somewhere"], "<FILE>"),
        (&["query", "--json", "somewhere", "x", "--limit", "many"], "invalid value 'many'"),
        (&["torture", "--json", "run"], "<DIR>"),
    ] {
        let wrong = run(arguments).ends(2).stderr_has("error: ");
        let (wrong, json) = (wrong.text(), wrong.json());
        assert_eq!((&json["exit_status"], wrong.lines().count()), (&2.into(), 1), "{wrong}");
        assert!(json["error"].as_str().is_some_and(|error| error.contains(text)), "{wrong}");
    }
    // What clap answers with the help.
    assert_eq!(run(["--json", "torture"]).ends(2).json()["error"], "the verb is missing");
    // Without --json, or where that is no option, standard output is for results.
    assert_eq!(run(["frobnicate"]).ends(2).text(), "");
    assert_eq!(run(["import", "--", "--json"]).ends(2).text(), "");
    assert!(run(["--json", "--help"]).ends(0).text().contains("Exit status"));
}

#[test]
fn a_reader_that_has_seen_enough_ends_an_export_quietly() {
    let place = Place::new();
    run(args!["import", place.db(), recording()]).ends(0);
    for verb in [&["export"][..], &["dump"], &["torture", "dump"]] {
        let mut child = command(verb.iter().map(OsString::from).chain([place.db().into()]))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tool runs");
        let mut first = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut first).expect("a line");
        assert!(!first.is_empty());
        // The pipe is closed now.
        let run = Run::of(child.wait_with_output().expect("the tool ends")).ends(0);
        assert_eq!(run.stderr, "", "{verb:?}");
    }
}

/// Starts an import from standard input, feeds it until some batches must have been committed, and leaves it waiting.
#[cfg(unix)]
fn half_an_import(place: &Place) -> (Child, std::process::ChildStdin) {
    let mut child = command(args!["import", place.db(), "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool runs");
    let mut input = child.stdin.take().expect("piped");
    let mut csv = "series,ts_ms,value\n".to_owned();
    // More than the pipe, the parser's batch and the queue between the threads hold: when all of it is written, a batch was committed.
    for row in 0..8 * 65_536 {
        let _ = writeln!(csv, "m{},{row},{row}", row % 10);
    }
    input.write_all(csv.as_bytes()).expect("the tool reads");
    (child, input)
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_an_import_between_two_commits() {
    let place = Place::new();
    let (child, input) = half_an_import(&place);
    let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(signalled.success());
    let ended = Run::of(child.wait_with_output().expect("the tool ends")).ends(130);
    assert!(ended.text().starts_with("interrupted; imported"), "{}", ended.text());
    drop(input);
    let points =
        run(args!["verify", "--json", place.db()]).ends(0).json()["points"].as_u64().expect("a count");
    assert!(points > 0 && points % 65_536 == 0, "{points}");
}

#[cfg(unix)]
#[test]
fn a_killed_import_leaves_whole_batches() {
    let place = Place::new();
    let (mut child, input) = half_an_import(&place);
    child.kill().expect("killed");
    child.wait().expect("dead");
    drop(input);
    let points =
        run(args!["verify", "--json", place.db()]).ends(0).json()["points"].as_u64().expect("a count");
    assert!(points % 65_536 == 0, "{points}");
    // The same import once more, this time to its end, is as if there had been one.
    let csv = "series,ts_ms,value\nm0,0,0\n";
    run_with_input(args!["import", place.db(), "-"], csv.as_bytes()).ends(0);
    run(args!["verify", place.db()]).ends(0);
}

#[test]
fn the_demo_checks_itself_and_can_be_run_again() {
    let place = Place::new();
    let first = run(args!["demo", "--json", "--dir", place.db()]).ends(0).json();
    assert_eq!((&first["verified_points"], &first["commits"]), (&336_000.into(), &2100.into()));
    assert!(first["snapshots_checked"].as_u64() > Some(0));
    // Three blocks of ten minutes, in four shards.
    assert_eq!((&first["sealed_volumes"], &first["sealed_points"]), (&12.into(), &250_240.into()));
    assert_eq!(first["verified_points_in_volumes"], 250_240);
    assert!(first["bytes_per_point"].as_f64().is_some_and(|bytes| bytes > 0.3 && bytes < 16.0));
    run(args!["demo", "--dir", place.db()]).ends(4).stderr_has("is not empty").stderr_has("--dir");

    // Without --dir each run makes a folder of its own and says which.
    let demo = || {
        let output = command(["demo"]).env("TMPDIR", place.dir.path()).output().expect("the tool runs");
        Run::of(output).ends(0).text()
    };
    for number in 1..=2 {
        let text = demo();
        assert!(text.contains(&format!("chronolith-demo-{number}")), "{text}");
        assert!(text.contains("node_load1") && text.contains('┤'), "{text}");
        assert!(text.contains("moved into 12 volumes") && text.contains("██░░"), "{text}");
        assert!(!text.contains('\x1b'), "no colors without a terminal");
        run(args!["verify", place.at(&format!("chronolith-demo-{number}"))]).ends(0);
    }
}

/// Three points: integers and a decimal, by M3's own encoder.
const FIXTURE: &str = concat!(
    r#"{"name":"a","kind":"k","int_optimized":true,"start_ns":1700000000000000000,"points":["#,
    r#"[1700000000000000000,"3ff8000000000000","1.5","s"],[1700000010000000000,"3ff4000000000000","1.25","s"],"#,
    r#"[1700000020000000000,"c008000000000000","-3","s"]],"encoded_len":19,"#,
    r#""encoded_hex":"17979cfe362a000030e7f0a18d5dc1906a6000","roundtrip_exact":true}"#,
    "\n"
);

#[test]
fn codec_check_counts_what_agrees() {
    let place = Place::new();
    let good = place.file("good.jsonl", FIXTURE.repeat(2));
    let last = |run: &Run| run.text().lines().last().expect("a line").to_owned();
    let run_good = run(args!["codec", "check", good]).ends(0);
    assert_eq!(run_good.text(), "{\"streams\":2,\"encode_ok\":2,\"decode_ok\":2,\"lossless_ok\":2}\n");
    let bad = place.file("bad.jsonl", FIXTURE.to_owned() + &FIXTURE.replace("6a6000", "6b6000"));
    let run_bad = run(args!["codec", "check", bad]).ends(1);
    assert_eq!(last(&run_bad), r#"{"streams":2,"encode_ok":1,"decode_ok":1,"lossless_ok":2}"#);
    assert!(run_bad.text().starts_with("a: encode: "), "{}", run_bad.text());

    let broken = place.file("broken.jsonl", "{}\n");
    run(args!["codec", "check", broken]).ends(4).stderr_has("line 1").stderr_has("`name` is missing");
    let empty = place.file("empty.jsonl", "\n");
    run(args!["codec", "check", empty]).ends(4).stderr_has("no fixtures");
}

#[test]
fn the_codec_agrees_with_every_fixture() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/m3tsz");
    for name in ["streams.jsonl", "lossless.jsonl", "m3-samples.jsonl", "encode-errors.jsonl"] {
        let file = dir.join(name);
        let streams = std::fs::read_to_string(&file).expect("fixtures").lines().count();
        let checked = run(args!["codec", "check", file]).ends(0);
        let all = format!(
            r#"{{"streams":{streams},"encode_ok":{streams},"decode_ok":{streams},"lossless_ok":{streams}}}"#
        );
        assert_eq!(checked.text(), all + "\n", "{name}");
    }
}

/// The files of volumes with this in their names, sorted.
fn volume_files(place: &Place, part: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type().expect("a type").is_dir() {
                true => walk(&entry.path(), found),
                false => found.push(entry.path()),
            }
        }
    }
    let mut found = Vec::new();
    walk(&place.db().join("data"), &mut found);
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(part)));
    found.sort();
    found
}

/// `volume verify` of each volume, as it is and as M3 has it, without its supplement; the points in all of them.
fn verify_volumes(place: &Place) -> u64 {
    let mut points = [0, 0];
    for info in volume_files(place, "-info.db") {
        let supplement =
            info.file_name().expect("a name").to_string_lossy().replace("fileset-", "chronolith-");
        let supplement = info.with_file_name(supplement.replace("-info.db", ".db"));
        for has_supplement in [true, false] {
            let aside = place.at("aside");
            if !has_supplement {
                std::fs::rename(&supplement, &aside).expect("a supplement");
            }
            let verified = run(args!["volume", "verify", "--json", &info]).ends(0).json();
            assert_eq!((&verified["sound"], &verified["supplement"]), (&true.into(), &has_supplement.into()));
            points[usize::from(has_supplement)] += verified["points"].as_u64().expect("a count");
            if !has_supplement {
                std::fs::rename(&aside, &supplement).expect("back again");
            }
        }
    }
    assert_eq!(points[0], points[1]);
    points[0]
}

/// Changes a byte in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(path, bytes).expect("a damaged file");
}

#[test]
fn seal_moves_all_points_into_volumes_and_they_read_the_same() {
    let place = Place::new();
    run(args!["import", place.db(), recording()]).ends(0);
    let before = run(args!["dump", place.db()]).ends(0).text();
    let query = || run(args!["query", "--json", place.db(), "node_load1"]).ends(0).text();
    let queried = query();

    let sealed = run(args!["seal", "--json", place.db()]).ends(0).json();
    assert_eq!((&sealed["points"], &sealed["streams"]), (&336_000.into(), &160.into()));
    assert_eq!((&sealed["memory_points"], &sealed["sealed_points"]), (&0.into(), &336_000.into()));
    assert!(sealed["bits_per_point"].as_f64().is_some_and(|bits| bits > 1.0 && bits < 64.0), "{sealed}");
    let volumes = volume_files(&place, "-checkpoint.db").len() as u64;
    assert!(volumes > 0 && sealed["volumes"] == volumes, "{sealed}");

    assert_eq!(verify_volumes(&place), 336_000);
    assert!(run(args!["dump", place.db()]).ends(0).text() == before, "read from volumes it differs");
    assert_eq!(query(), queried);
    let verified = run(args!["verify", "--json", place.db()]).ends(0).json();
    assert_eq!((&verified["points"], &verified["sealed_points"]), (&336_000.into(), &336_000.into()));
    assert_eq!((&verified["volumes"], &verified["sound"]), (&volumes.into(), &true.into()));
    let stats = run(args!["stats", "--json", place.db()]).ends(0).json();
    assert_eq!((&stats["points"], &stats["memory"]["points"]), (&336_000.into(), &0.into()));
    assert_eq!((&stats["sealed"]["points"], &stats["sealed"]["volumes"]), (&336_000.into(), &volumes.into()));
    assert_eq!(stats["sealed"]["bits_per_point"], sealed["bits_per_point"]);
    let bytes: u64 = volume_files(&place, "").iter().map(|path| path.metadata().expect("a file").len()).sum();
    assert_eq!(stats["sealed"]["file_bytes"], bytes);
    assert_eq!(stats["health"]["ok"], true);
    let text = run(args!["stats", place.db()]).ends(0).text();
    assert!(text.contains("█████") && !text.contains("░░") && text.contains("336,000 points in"), "{text}");

    // Once more there is nothing to do.
    let again = run(args!["seal", place.db()]).ends(0).text();
    assert!(again.starts_with("nothing to seal"), "{again}");
    let again = run(args!["refresh", place.db()]).ends(0).text();
    assert!(again.starts_with("nothing to refresh"), "{again}");
    assert_eq!(volume_files(&place, "-checkpoint.db").len() as u64, volumes);
}

#[test]
fn seal_takes_a_range_and_a_namespace() {
    const DAY: i64 = 86_400;
    let place = Place::new();
    // Not by `import`, which may seal meanwhile what the second leaves.
    let db = chronolith::Options::new().workers(0).open(place.db()).expect("open");
    for namespace in ["default", "west"] {
        let metric = db.metric_in(&db.namespace(namespace).expect("made"), "m").expect("a name");
        for day in 0..3 {
            db.append(&metric, Timestamp::from_secs(1_700_000_000 + day * DAY), day as f64).expect("commits");
        }
    }
    db.close().expect("close");
    let seal = |more: &[&str]| {
        run(args!["seal", "--json", place.db()].into_iter().chain(more.iter().map(OsString::from)))
    };

    let west = seal(&["--namespace", "west"]).ends(0).json();
    assert_eq!((&west["points"], &west["memory_points"]), (&3.into(), &3.into()));
    assert_eq!(seal(&["--to", "2023-11-14"]).ends(0).json()["volumes"], 0);
    assert_eq!(seal(&["--to", "2023-11-15"]).ends(0).json()["points"], 1);
    assert_eq!(seal(&["--from", "2023-11-16T00:00:00Z"]).ends(0).json()["points"], 1);
    assert_eq!(run(args!["stats", "--json", place.db()]).ends(0).json()["memory"]["points"], 1);
    let text = run(args!["stats", place.db()]).ends(0).text();
    assert!(text.contains("\n  default: 2023-11-14T00:00:00Z to 2023-11-17T00:00:00Z\n  █"), "{text}");
    assert!(text.contains("\n  west: "), "{text}");
    assert_eq!(seal(&[]).ends(0).json()["points"], 1);
    assert_eq!(run(args!["export", place.db(), "--quiet"]).ends(0).text().lines().count(), 4);

    seal(&["--namespace", "east"]).ends(4).stderr_has("no namespace east").stderr_has("default, west");
    seal(&["--from", "yesterday"]).ends(2).stderr_has("RFC 3339");
    let swapped = seal(&["--from", "5s", "--to", "5s"]).ends(2).stderr_has("is not before");
    assert_eq!(swapped.json()["exit_status"], 2);
    run(args!["seal"]).ends(2);
    run(args!["refresh", place.db(), "--to"]).ends(2);
}

#[test]
fn refresh_puts_late_writes_into_volumes() {
    let place = Place::imported("series,ts_s,value\nm,1700000000,1\nm,1700000060,2\n");
    run(args!["seal", place.db()]).ends(0);
    let late = place.file("late.csv", "series,ts_s,value\nm,1700000030,9\nm,1700000060,3\n");
    run(args!["import", place.db(), late]).ends(0);
    let after = "series,ts_ms,value\nm,1700000000000,1\nm,1700000030000,9\nm,1700000060000,3\n";
    assert_eq!(run(args!["export", place.db()]).ends(0).text(), after);
    let stats = run(args!["stats", "--json", place.db()]).ends(0).json();
    assert_eq!((&stats["sealed"]["points"], &stats["memory"]["points"]), (&2.into(), &2.into()));
    assert!(run(args!["stats", place.db()]).ends(0).text().contains("▒▒▒"));

    let refreshed = run(args!["refresh", "--json", place.db()]).ends(0).json();
    assert_eq!((&refreshed["volumes"], &refreshed["points"]), (&1.into(), &3.into()));
    assert_eq!((&refreshed["sealed_volumes"], &refreshed["memory_points"]), (&1.into(), &0.into()));
    assert_eq!(volume_files(&place, "-checkpoint.db").len(), 1, "the old volume is gone");
    assert_eq!(verify_volumes(&place), 3);
    assert_eq!(run(args!["export", place.db()]).ends(0).text(), after);
    run(args!["verify", place.db()]).ends(0);
}

#[test]
fn damage_of_volumes_is_found_by_verify() {
    let place = Place::imported("series,ts_s,value\na,1700000000,1\nb,1800000000,2\n");
    run(args!["seal", place.db()]).ends(0);
    let data = volume_files(&place, "-data.db");
    let [first, _] = &data[..] else { panic!("{data:?}") };
    damage(first);
    let text = run(args!["verify", place.db()]).ends(1).text();
    assert!(text.contains(&*first.to_string_lossy()) && text.contains("1 of them damaged"), "{text}");
    let verified = run(args!["verify", "--json", place.db()]).ends(1).json();
    assert_eq!((&verified["sound"], &verified["volumes_damaged"]), (&false.into(), &1.into()));
    assert_eq!((&verified["metrics_incomplete"], &verified["points"]), (&1.into(), &1.into()));
    // It cannot be written anew either: who tries is told where, and that nothing is lost.
    let late = place.file("late.csv", "series,ts_s,value\na,1700000001,1\nb,1800000001,2\n");
    run(args!["import", place.db(), late]).ends(0);
    let refused = run(args!["refresh", "--json", place.db()]).ends(3).stderr_has("of namespace default, ");
    let refused =
        refused.stderr_has("is corrupt at byte").stderr_has("the rest is as it was").stderr_has("hint: ");
    assert!(refused.json()["volumes"].as_u64().is_some_and(|done| done < 2), "{}", refused.text());
    // What lies elsewhere can be read.
    let [a, b] = ["a", "b"].map(|metric| run(args!["query", place.db(), metric]));
    let (damaged, sound) = if a.status == Some(0) { (b, a) } else { (a, b) };
    sound.ends(0);
    damaged.ends(3).stderr_has("is corrupt at byte").stderr_has("volume verify FILE");
}

#[test]
fn refresh_repairs_a_damaged_supplement() {
    let place = Place::imported("series,ts_s,value\na,1700000000,1\n");
    run(args!["seal", place.db()]).ends(0);
    let supplements = volume_files(&place, "chronolith-");
    let [supplement] = &supplements[..] else { panic!("{supplements:?}") };
    damage(supplement);
    let verified = run(args!["verify", "--json", place.db()]).ends(1).json();
    assert_eq!((&verified["points"], &verified["metrics_incomplete"]), (&1.into(), &0.into()));
    let stats = run(args!["stats", "--json", place.db()]).ends(0).json();
    assert_eq!(stats["sealed"]["volumes_uncounted"], 1);
    assert_eq!(run(args!["refresh", "--json", place.db()]).ends(0).json()["volumes"], 1);
    run(args!["verify", place.db()]).ends(0);
    assert_eq!(run(args!["export", place.db()]).ends(0).text(), "series,ts_ms,value\na,1700000000000,1\n");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_sealing_between_two_volumes() {
    // Far apart, so that each has a volume of its own.
    let place = Place::new();
    let db = chronolith::Options::new().workers(0).open(place.db()).expect("open");
    let metric = db.metric("m").expect("a name");
    let mut txn = db.begin_write();
    for month in 0..400_i64 {
        txn.append(&metric, Timestamp::from_secs(900_000_000 + month * 2_592_000), month as f64)
            .expect("stage");
    }
    txn.commit().expect("commit");
    drop(metric);
    db.close().expect("close");
    let before = run(args!["export", place.db()]).ends(0).text();

    let child = command(args!["seal", "--json", place.db()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool runs");
    while volume_files(&place, "-checkpoint.db").len() < 2 {
        std::thread::yield_now();
    }
    let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(signalled.success());
    let ended = Run::of(child.wait_with_output().expect("the tool ends")).ends(130).json();
    let count = |value: &Value| value.as_u64().expect("a count");
    let (done, left) = (count(&ended["volumes"]), count(&ended["volumes_left"]));
    assert!(done >= 2 && left > 0 && done + left == 400, "{ended}");
    assert_eq!(ended["interrupted"], true);
    assert_eq!(run(args!["export", place.db()]).ends(0).text(), before);
    // Another run does the rest.
    let rest = run(args!["seal", "--json", place.db()]).ends(0).json();
    assert_eq!((&rest["volumes"], &rest["sealed_volumes"]), (&left.into(), &400.into()));
    assert_eq!(run(args!["export", place.db()]).ends(0).text(), before);
}
