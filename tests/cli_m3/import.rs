//! `m3 import`: what is in the database afterwards.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use chronolith::fileset::{MetricStream, VolumeName, VolumeSpec, VolumeWriter};
use chronolith::io::RealDisk;
use chronolith::m3tsz::{Encoder, EncoderOptions};
use chronolith::{Database, Timestamp};
use serde_json::Value;

use super::*;

#[test]
fn import_is_what_m3_would_have_after_a_restart() {
    let place = Place::new();
    let import = args!["m3", "import", fixture(), place.db(), "--empty-id", "none"];
    run(&import).ends(0).stdout_has("imported 10,867 points of 913 metrics in 2 namespaces");
    assert_same(&content(&place.db()), &expected());
    // All is there, the seven points that logs replaced among it.
    let again = run(&import)
        .ends(0)
        .stdout_has("imported 0 points")
        .stdout_has("(260 logged points)")
        .stdout_has("more points needed no writing");
    assert!(!again.stdout.contains("damage"));
    assert_same(&content(&place.db()), &expected());
    // What the metric with the empty ID is called is known by now.
    run(args!["m3", "import", fixture(), place.db()]).ends(0).stdout_has("imported 0 points of 913 metrics");
    assert_same(&content(&place.db()), &expected());
    run(args!["verify", place.db()]).ends(0);
    assert_same(&content(&place.db()), &expected());
}

#[test]
fn what_the_database_cannot_have_is_passed_over_and_told() {
    let place = Place::new();
    let imported = run(args!["m3", "import", fixture(), place.db()]).ends(1);
    imported.stdout_has("passed over: tagged: the metric with the empty ID; --empty-id ID gives it one");
    let mut expected = merged();
    expected.remove(&("tagged".to_owned(), Vec::new()));
    assert_same(&content(&place.db()), &expected);
}

#[test]
fn import_can_be_of_some_namespaces() {
    let place = Place::new();
    let import = |name: &str| {
        let args =
            args!["m3", "import", fixture(), place.db(), "--empty-id", "none", "--namespace", name, "--json"];
        run(args)
    };
    let json = import("metrics_10s").ends(0).json();
    assert_eq!((&json["namespaces"], &json["volumes"]), (&Value::from(1), &Value::from(6)));
    let mut expected = expected();
    let all = expected.clone();
    expected.retain(|(namespace, _), _| namespace == "metrics_10s");
    assert_same(&content(&place.db()), &expected);
    import("tagged").ends(0);
    assert_same(&content(&place.db()), &all);
    // With logs, which may have other namespaces than folders, and without: before there is a database.
    let prefix = place.prefix();
    for _ in 0..2 {
        run(args!["m3", "import", &prefix, place.at("other"), "--namespace", "taged"])
            .ends(4)
            .stderr_has("has no namespace taged")
            .stderr_has("there are: metrics_10s, tagged");
        assert!(!place.at("other").exists());
        let _ = std::fs::remove_dir_all(prefix.join("commitlogs"));
    }
}

#[test]
fn damage_does_not_stop_an_import() {
    let place = Place::new();
    let prefix = place.prefix();
    // A stream, what vouches for a volume, the tail of a log.
    change(&prefix.join("data/metrics_10s/1/fileset-1699999200000000000-0-data.db"), |bytes| bytes[0] ^= 1);
    change(&prefix.join("data/metrics_10s/2/fileset-1699999200000000000-0-digest.db"), |bytes| bytes[0] ^= 1);
    change(&prefix.join("commitlogs/commitlog-0-1.db"), |bytes| bytes.truncate(bytes.len() - 7));
    let imported =
        run(args!["m3", "import", &prefix, place.db(), "--empty-id", "none", "--json"]).ends(1).json();
    let damage = list(&imported["damage"]);
    assert_eq!(damage.len(), 3, "{damage:?}");
    let whole = damage.iter().map(text).collect::<Vec<_>>().join("\n");
    for part in [
        "-0-data.db is corrupt at byte 0",
        "-0-digest.db is corrupt at byte 0",
        "commitlog-0-1.db is corrupt at byte",
    ] {
        assert!(whole.contains(part), "no {part:?} in {whole}");
    }
    let found = content(&place.db());
    let expected = expected();
    for (key, (tags, points)) in &found {
        let (expected_tags, expected_points) = &expected[key];
        assert_eq!(tags, expected_tags);
        assert!(points.keys().all(|at| expected_points.contains_key(at)), "{key:?} has points of nowhere");
    }
    // The stream is lost, but for what the logs have of it.
    let total = |metrics: &Metrics| metrics.values().map(|(_, points)| points.len()).sum::<usize>();
    assert!(total(&found) < total(&expected) && total(&found) > total(&expected) - 150);
    let salvaged = list(&imported["salvaged"]);
    assert_eq!(salvaged.len(), 2, "{salvaged:?}");
    assert!(text(&salvaged[0]).contains("m3db/data/metrics_10s/1/fileset-1699999200000000000-0: "));
    assert!(text(&salvaged[1]).contains("nothing tells how many"), "{salvaged:?}");

    // Once the files are whole again, importing over it makes it whole.
    run(args!["m3", "import", fixture(), place.db(), "--empty-id", "none"]).ends(0);
    assert_same(&content(&place.db()), &expected);
}

#[test]
fn volumes_are_salvaged_as_they_are_imported() {
    let place = Place::new();
    let prefix = place.prefix();
    let shard = prefix.join("data/metrics_10s/0");
    // Only the info file: all metrics are there, and the index vouches for that.
    change(&shard.join("fileset-1699999200000000000-0-info.db"), |bytes| bytes[9] ^= 1);
    let imported = run(args!["m3", "import", &prefix, place.db(), "--empty-id", "none"])
        .ends(1)
        .stdout_has("fileset-1699999200000000000-0-info.db is corrupt at byte 0")
        .stdout_has("fileset-1699999200000000000-0: 184 metrics read\n");
    assert!(!imported.stderr.contains("hint"), "{}", imported.stderr);
    assert_same(&content(&place.db()), &expected());
    run(args!["m3", "import", &prefix, place.db(), "--empty-id", "none"])
        .ends(1)
        .stdout_has("imported 0 points");
}

#[test]
fn what_a_volume_lost_comes_from_the_one_that_it_replaced() {
    let place = Place::new();
    let prefix = place.prefix();
    let shard = prefix.join("data/metrics_10s/0");
    let index = shard.join("fileset-1700006400000000000-1-index.db");
    let intact = std::fs::read(&index).expect("readable");
    change(&index, |bytes| bytes[30] ^= 1);
    run(args!["m3", "import", &prefix, place.db(), "--empty-id", "none"])
        .ends(1)
        .stdout_has("fileset-1700006400000000000-1: 8 of 41 metrics read; 33 more metrics from 1700006400000000000-0, which it replaced");
    let (found, expected) = (content(&place.db()), expected());
    assert!(found.keys().eq(expected.keys()), "no metric is lost");
    // A volume of which nothing can be read.
    std::fs::remove_file(&index).expect("it is there");
    run(args!["m3", "import", &prefix, place.at("b"), "--empty-id", "none"])
        .ends(1)
        .stdout_has("the file is missing")
        .stdout_has("0 metrics read, and nothing tells how many there were; ");
    let late = ("metrics_10s".to_owned(), b"late-arrival".to_vec());
    assert!(content(&place.at("b")).keys().eq(expected.keys().filter(|key| **key != late)));
    // Where the database has newer values already, a substitute brings no older ones back.
    let sound = place.at("c");
    run(args!["m3", "import", fixture(), &sound, "--empty-id", "none"]).ends(0);
    run(args!["m3", "import", &prefix, &sound, "--empty-id", "none"]).ends(1).stdout_has("imported 0 points");
    assert_same(&content(&sound), &expected);
    // Old values give way once the new ones can be read.
    std::fs::write(&index, intact).expect("room");
    for db in [place.db(), place.at("b")] {
        run(args!["m3", "import", &prefix, &db, "--empty-id", "none"]).ends(0);
        assert_same(&content(&db), &expected);
    }
}

#[test]
fn empty_id_becomes_no_other_metric() {
    let place = Place::new();
    let prefix = place.prefix();
    // `a` is a metric of the same namespace.
    run(args!["m3", "import", &prefix, place.db(), "--empty-id", "a"])
        .ends(4)
        .stderr_has("M3's directory has a metric tagged:a already");
    assert!(!place.db().exists(), "refused before there is a database");
    let db = Database::open(place.db()).expect("room");
    let namespace = db.namespace("tagged").expect("a namespace");
    let metric = db.metric_in(&namespace, "mine").expect("a metric");
    db.append(&metric, Timestamp::from_nanos(1), 1.0).expect("room");
    db.close().expect("durable");
    run(args!["m3", "import", &prefix, place.db(), "--empty-id", "mine"])
        .ends(4)
        .stderr_has("the database has a metric tagged:mine already");
    assert_eq!(content(&place.db()).len(), 1);
    // What an import called it is known again.
    for _ in 0..2 {
        run(args!["m3", "import", &prefix, place.db(), "--empty-id", "none"]).ends(0);
    }
}

/// A directory of M3 with `volumes` volumes of 100 metrics with 100 points each.
pub(super) fn large_prefix(place: &Place, volumes: u32) -> PathBuf {
    let prefix = place.at("large");
    let mut encoder = Encoder::new(0, EncoderOptions::default());
    for at in 0..100 {
        encoder.append(at * 1_000_000_000, at as f64 / 3.0, b"").expect("encodable");
    }
    let mut stream = Vec::new();
    encoder.finish_into(&mut stream);
    let disk = RealDisk::new();
    for shard in 0..volumes {
        let folder = prefix.join(format!("data/n/{shard}"));
        std::fs::create_dir_all(&folder).expect("room");
        let name = VolumeName { block_start: 0, volume: 0 };
        let spec = VolumeSpec { name, block_size: 7_200_000_000_000, snapshot: None, supplement: None };
        let mut writer = VolumeWriter::create(&disk, &folder, spec).expect("room");
        for metric in 0..100 {
            let id = format!("metric-{shard}-{metric}");
            writer.append(MetricStream { id: id.as_bytes(), tags: b"", stream: &stream }).expect("room");
        }
        writer.finish().expect("room");
    }
    prefix
}

#[test]
#[cfg(unix)]
fn import_that_is_interrupted_can_be_run_again() {
    let place = Place::new();
    let prefix = large_prefix(&place, 60);
    let import = args!["m3", "import", &prefix, place.db()];
    let mut child = Command::new(env!("CARGO_BIN_EXE_chronolith"))
        .args(&import)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool runs");
    // Ctrl-C is caught before there is a database.
    while !place.db().join("superblock").exists() {
        assert!(child.try_wait().expect("a child").is_none(), "it ended");
        std::thread::yield_now();
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let output = child.wait_with_output().expect("the tool ends");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(130), "{stdout}{stderr}");
    assert!(stdout.contains("interrupted; imported"), "{stdout}");
    assert!(stderr.contains("run the same command again"), "{stderr}");
    let whole = |metrics: &Metrics| metrics.values().filter(|(_, points)| points.len() == 100).count();
    assert!(whole(&content(&place.db())) < 6_000);
    run(&import).ends(0);
    assert_eq!(whole(&content(&place.db())), 6_000);
}

#[test]
fn tags_and_annotations_beyond_the_database_are_told() {
    let place = Place::new();
    let prefix = place.at("m3db");
    let folder = prefix.join("data/n/0");
    std::fs::create_dir_all(&folder).expect("room");
    let stream = |at: i64, annotation: &[u8]| {
        let mut encoder = Encoder::new(0, EncoderOptions::default());
        encoder.append(at, 1.5, annotation).expect("encodable");
        encoder.append(at + 1, 2.5, b"").expect("encodable");
        let mut stream = Vec::new();
        encoder.finish_into(&mut stream);
        stream
    };
    let tags = |tags: &[(&str, &str)]| {
        let tags: Vec<_> = tags.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        chronolith::fileset::encode_tags(&tags).expect("tags")
    };
    let long = vec![b'x'; 65_537];
    let blocks = [
        (100, [("a", tags(&[("k", "1")]), &b"short"[..]), ("b", tags(&[("k", "1"), ("k", "2")]), b"")]),
        (200, [("a", tags(&[("k", "2")]), b""), ("b", tags(&[]), &long)]),
    ];
    let disk = RealDisk::new();
    for (block_start, metrics) in &blocks {
        let name = VolumeName { block_start: *block_start, volume: 0 };
        let spec = VolumeSpec { name, block_size: 100, snapshot: None, supplement: None };
        let mut writer = VolumeWriter::create(&disk, &folder, spec).expect("room");
        for (id, tags, annotation) in metrics {
            let stream = stream(*block_start, annotation);
            writer.append(MetricStream { id: id.as_bytes(), tags, stream: &stream }).expect("room");
        }
        writer.finish().expect("room");
    }
    run(args!["m3", "verify", &prefix]).ends(0);
    run(args!["m3", "import", &prefix, place.db()])
        .ends(1)
        .stderr_has("note: some tags of n:a are not kept: metric a exists with other tags")
        .stderr_has("note: some tags of n:b are not kept: invalid tags: a key is given twice")
        .stdout_has("2 metrics without tags")
        .stdout_has("passed over: n:b at ");
    let points = |times: &[i64], annotated: i64| -> Points {
        let point = |at: &i64| {
            let value: f64 = if at % 2 == 0 { 1.5 } else { 2.5 };
            let annotation = if *at == annotated { b"short".to_vec() } else { Vec::new() };
            (*at, (value.to_bits(), annotation))
        };
        times.iter().map(point).collect()
    };
    let key = |id: &[u8]| ("n".to_owned(), id.to_vec());
    let expected = Metrics::from([
        (key(b"a"), (vec![(b"k".to_vec(), b"1".to_vec())], points(&[100, 101, 200, 201], 100))),
        (key(b"b"), (Vec::new(), points(&[100, 101, 201], 0))),
    ]);
    assert_same(&content(&place.db()), &expected);
}

#[test]
fn unfinished_volumes_are_noted() {
    let place = Place::new();
    let prefix = place.prefix();
    let checkpoint = "data/metrics_10s/0/fileset-1699999200000000000-0-checkpoint.db";
    std::fs::remove_file(prefix.join(checkpoint)).expect("it is there");
    run(args!["m3", "import", &prefix, place.db(), "--empty-id", "none"])
        .ends(0)
        .stderr_has("note: not imported, as it was not finished: ")
        .stderr_has("metrics_10s/0/fileset-1699999200000000000-0\n");
}

#[test]
fn metrics_of_other_namespaces_are_found_as_list_prints_them() {
    let place = Place::new();
    run(args!["m3", "import", fixture(), place.db(), "--empty-id", "none"]).ends(0);
    let rows = |run: Run| run.ends(0).stdout.lines().count();
    let plain = args!["query", place.db(), "late-arrival", "--namespace", "metrics_10s", "--format", "tsv"];
    let points = rows(run(plain));
    assert!(points > 0);
    let listed = run(args!["list", place.db(), "late-arrival"]).ends(0);
    let spelled = listed.stdout.trim_end();
    assert_eq!(spelled, "metrics_10s:late-arrival");
    assert_eq!(rows(run(args!["query", place.db(), spelled, "--format", "tsv"])), points);
    assert_eq!(rows(run(args!["export", place.db(), spelled])), points + 1);
    // Every metric, whatever bytes its ID has.
    let listed = run(args!["list", place.db()]).ends(0);
    for spelled in listed.stdout.lines().step_by(40) {
        run(args!["query", place.db(), spelled, "--limit", "1", "--format", "tsv"]).ends(0);
    }
    run(args!["query", place.db(), "late-arrival"])
        .ends(4)
        .stderr_has("other namespaces have it: metrics_10s:late-arrival (or --namespace metrics_10s)");
    run(args!["export", place.db(), "metrics_10s:late-arrival", "tagged:a"])
        .ends(4)
        .stderr_has("tagged:a is not in namespace metrics_10s");
}

#[test]
fn imported_tags_are_listed() {
    let place = Place::new();
    run(args!["m3", "import", fixture(), place.db(), "--empty-id", "none"]).ends(0);
    let id = "http_requests_total{code=\"500\",instance=\"10.0.0.98:9100\"}";
    run(args!["list", place.db(), id, "--tags"])
        .ends(0)
        .stdout_has("}  tags __name__=\"http_requests_total\", code=\"500\", instance=\"10.0.0.98:9100\"\n");
    let json = run(args!["list", place.db(), id, "--tags", "--json"]).ends(0).json();
    assert_eq!(json["tags"][1], serde_json::json!(["code", "500"]));
}
