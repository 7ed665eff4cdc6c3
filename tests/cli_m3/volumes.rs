//! `volume`: one volume and its files.

use std::ffi::OsString;

use chronolith::MetricId;
use chronolith::fileset::{
    MetricStream, Statistics, SupplementSpec, Volume, VolumeFile, VolumeName, VolumeSpec, VolumeWriter,
};
use chronolith::io::RealDisk;
use chronolith::m3tsz::{Encoder, EncoderOptions};
use serde_json::Value;

use super::*;

#[test]
fn dump_is_what_m3_reads_of_every_volume() {
    let fixtures = std::fs::read_to_string(fixture().join("volumes.jsonl")).expect("a fixture");
    for (line, file) in fixtures.lines().zip(VolumeFile::ALL.into_iter().cycle()) {
        let volume: Value = serde_json::from_str(line).expect("a JSON object");
        let name = VolumeName {
            block_start: volume["block_start_ns"].as_i64().expect("a time"),
            volume: volume["volume_index"].as_u64().expect("a number") as u32,
        };
        let path = fixture().join(text(&volume["dir"])).join(name.file_name(file));
        let dumped = run(args!["volume", "dump", "--m3-expected", path]).ends(0);
        // M3's tools write no list where there is nothing; key by key in the same order.
        let line = line.replace("\"series_in_data_file_order\":[]", "\"series_in_data_file_order\":null");
        assert!(dumped.stdout == format!("{line}\n"), "{}", &dumped.stdout[..300.min(dumped.stdout.len())]);
    }
}

#[test]
fn dump_is_for_people_and_programs() {
    let folder = fixture().join("data/tagged/2");
    run(args!["volume", "dump", &folder])
        .ends(0)
        .stdout_has("block 2023-11-14T22:00:00Z to 2023-11-15T00:00:00Z, 2 metrics")
        .stdout_has("\na\n  2023-11-14T22:00:04Z  407.45\n");
    let tagged = run(args!["volume", "dump", fixture().join("data/tagged/0")]).ends(0);
    tagged.stdout_has("  tags __name__=\"http_requests_total\", code=\"404\", instance=\"10.0.0.1:9100\"\n");

    let dumped = run(args!["--json", "volume", "dump", &folder]).ends(0);
    let objects: Vec<Value> =
        dumped.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect();
    assert_eq!(objects.len(), 3);
    assert_eq!(objects[0]["entries"], 2);
    assert_eq!(objects[2]["metric"], "a");
    assert_eq!(list(&objects[2]["points"]).len(), 3);
    assert_eq!(objects[2]["points"][0]["ts_ns"], 1_699_999_204_000_000_000_i64);
    assert_eq!(objects[2]["points"][0]["bits"], "4079773333333333");
}

#[test]
fn volumes_are_verified_and_damage_has_its_place() {
    let place = Place::new();
    let shard = place.prefix().join("data/metrics_10s/0");
    run(args!["volume", "verify", &shard]).ends(0).stdout_has("3 volumes read").stdout_has("no damage found");
    let data = shard.join("fileset-1699999200000000000-0-data.db");
    run(args!["volume", "verify", &data]).ends(0).stdout_has("184 metrics");
    change(&data, |bytes| bytes[3] ^= 1);
    run(args!["volume", "verify", &shard])
        .ends(1)
        .stdout_has("DAMAGED")
        .stdout_has("metric host8334.cpu.9.system: ")
        .stdout_has("fileset-1699999200000000000-0-data.db is corrupt at byte 0")
        .stdout_has("183 of 184 metrics")
        .stdout_has("1 of 3 volumes damaged");
    let verified = run(args!["volume", "verify", &data, "--json"]).ends(1).json();
    assert_eq!(verified["sound"], false);
    // The stream, and the file as a whole.
    assert_eq!(list(&verified["damage"]).len(), 2);
    let dumped = run(args!["volume", "dump", &data, "--json"]).ends(1).stderr_has("damage: metric host8334");
    assert_eq!(dumped.stdout.lines().filter(|line| line.contains("\"points\"")).count(), 183);

    change(&shard.join("fileset-1699999200000000000-0-digest.db"), |bytes| bytes[0] ^= 1);
    run(args!["volume", "dump", &data]).ends(1).stderr_has("--salvage reads what is left");
    let salvaged = run(args!["volume", "dump", &data, "--salvage", "--json"]).ends(1);
    assert_eq!(salvaged.stdout.lines().filter(|line| line.contains("\"points\"")).count(), 183);
}

#[test]
fn damage_is_told_with_how_much_can_be_read() {
    let place = Place::new();
    let shard = place.prefix().join("data/metrics_10s/0");
    let file = |suffix: &str| shard.join(format!("fileset-1699999200000000000-0-{suffix}.db"));
    let damage_one = |suffix: &str, at: usize| {
        let intact = std::fs::read(file(suffix)).expect("readable");
        change(&file(suffix), |bytes| bytes[at] ^= 1);
        intact
    };
    let volume = Volume::open_at(&RealDisk::new(), file("data")).expect("a volume");
    let first = volume.entries().next().expect("an entry").expect("sound").id().to_vec();
    let first = String::from_utf8(first).expect("UTF-8");
    for (suffix, why) in [
        ("info", "the info file is damaged"),
        ("digest", "nothing vouches for the info file"),
        ("checkpoint", "nothing vouches for the info file"),
    ] {
        let intact = damage_one(suffix, 3);
        run(args!["volume", "verify", file("data")])
            .ends(1)
            .stdout_has("DAMAGED")
            .stdout_has("184 metrics, 2,355 points");
        run(args!["volume", "dump", "--salvage", file("data")]).ends(1).stdout_has(why);
        run(args!["volume", "dump", "--salvage", "--m3-expected", file("data")]).ends(4).stderr_has(why);
        std::fs::write(file(suffix), intact).expect("room");
    }
    // A byte of the index costs all metrics up to the next one that the summaries name.
    damage_one("index", 30);
    run(args!["volume", "verify", file("data")]).ends(1).stdout_has(": 151 of 184 metrics, ");
    let json = run(args!["volume", "verify", file("data"), "--json"]).ends(1).json();
    assert_eq!((&json["metrics"], &json["metrics_written"]), (&Value::from(151), &Value::from(184)));
    run(args!["m3", "verify", place.at("m3db")])
        .ends(1)
        .stdout_has("can be read of ")
        .stdout_has("fileset-1699999200000000000-0: 151 of 184 metrics\n");
    // The first ID of the index, which lies in the damage.
    let shown = run(args!["volume", "show", file("data"), "--metric", &first]).ends(1);
    let shown = shown.stderr_has("hint: ").stderr_has("chronolith volume verify ");
    assert!(!shown.stderr.contains("chronolith verify DIR"), "{}", shown.stderr);
}

#[test]
fn unfinished_volumes_are_found_for_who_asks() {
    let place = Place::new();
    let shard = place.prefix().join("data/tagged/2");
    std::fs::remove_file(shard.join("fileset-1699999200000000000-0-checkpoint.db")).expect("it is there");
    let data = shard.join("fileset-1699999200000000000-0-data.db");
    let hint = format!("`chronolith volume dump --salvage {}`", data.display());
    for verb in ["dump", "verify"] {
        run(args!["volume", verb, &shard]).ends(4).stderr_has(&hint);
    }
    run(args!["volume", "dump", "--salvage", &shard])
        .ends(1)
        .stdout_has("\na\n  2023-11-14T22:00:04Z  407.45\n");
    run(args!["volume", "show", &shard, "--metric", "a"]).ends(1).stdout_has("3 points");
}

#[test]
fn empty_id_is_spelled_as_it_is_printed() {
    let folder = fixture().join("data/tagged/2");
    run(args!["volume", "dump", &folder]).ends(0).stdout_has("\n\"\"\n");
    for spelled in ["", "\"\""] {
        run(args!["volume", "show", &folder, "--metric", spelled]).ends(0).stdout_has("\"\"  block 2023");
    }
    run(args!["volume", "show", &folder, "--metric", "nix"]).ends(4).stderr_has("it has \"\", a");
}

/// Writes a volume of one metric with these points by seconds; its supplement has the statistics of `counted`.
fn put_numbered(folder: &Path, points: &[(i64, f64)], counted: &[(i64, f64)]) {
    std::fs::create_dir_all(folder).expect("room");
    let mut encoder = Encoder::new(0, EncoderOptions::default());
    for (at, value) in points {
        encoder.append(at * 1_000_000_000, *value, b"").expect("encodable");
    }
    let mut stream = Vec::new();
    encoder.finish_into(&mut stream);
    let name = VolumeName { block_start: 0, volume: 0 };
    let supplement = Some(SupplementSpec { database_id: *b"0123456789abcdef", freeze_version: 1 });
    let disk = RealDisk::new();
    let spec = VolumeSpec { name, block_size: 7_200_000_000_000, snapshot: None, supplement };
    let mut writer = VolumeWriter::create(&disk, folder, spec).expect("room");
    let statistics = Statistics::of_points(counted.iter().map(|(at, value)| (at * 1_000_000_000, *value)));
    let metric = MetricStream { id: b"m", tags: b"", stream: &stream };
    writer.append_numbered(metric, MetricId::from(7), &statistics).expect("room");
    writer.finish().expect("room");
}

#[test]
fn supplements_and_their_statistics_are_shown() {
    let place = Place::new();
    let folder = place.at("m3db/data/n/0");
    put_numbered(&folder, &[(10, 1.5), (20, f64::NAN), (30, -2.0)], &[(10, 1.5), (20, f64::NAN), (30, -2.0)]);

    run(args!["volume", "dump", &folder]).ends(0).stdout_has("with a supplement: 1 metric by number");
    run(args!["volume", "verify", &folder]).ends(0).stdout_has("1 metric, 3 points, with a supplement");
    run(args!["m3", "list", place.at("m3db")]).ends(0).stdout_has("  1 supplement\n");
    run(args!["volume", "show", &folder, "--metric", "m"])
        .ends(0)
        .stdout_has("the supplement says: 3 points, 2 of them numbers, -2 to 1.5, sum -0.5");
    let json = run(args!["volume", "show", &folder, "--metric", "m", "--json"]).ends(0).json();
    assert_eq!(json["statistics"]["numbers"]["count"], 2);
    let json = run(args!["volume", "show", fixture().join("data/tagged/2"), "--metric", "a", "--json"]);
    assert_eq!(json.ends(0).json()["statistics"], Value::Null);
}

#[test]
fn statistics_of_other_points_are_damage() {
    let place = Place::new();
    let folder = place.at("m3db/data/n/0");
    put_numbered(&folder, &[(10, 1.5), (30, -2.0)], &[(10, 1.5), (30, 2.0)]);
    let told = "is corrupt at byte 0, metric number 7: the statistics are not those of the stream's points";
    run(args!["volume", "verify", &folder]).ends(1).stdout_has("DAMAGED").stdout_has(told);
    run(args!["m3", "verify", place.at("m3db")]).ends(1).stdout_has(told);
}

#[test]
fn much_damage_is_counted_and_each_metric_named_once() {
    let place = Place::new();
    let folder = place.at("m3db/data/n/0");
    std::fs::create_dir_all(&folder).expect("room");
    let name = VolumeName { block_start: 0, volume: 0 };
    let disk = RealDisk::new();
    let spec = VolumeSpec { name, block_size: 7_200_000_000_000, snapshot: None, supplement: None };
    let mut writer = VolumeWriter::create(&disk, &folder, spec).expect("room");
    for metric in 0..1_200 {
        let id = format!("metric-{metric:04}");
        writer.append(MetricStream { id: id.as_bytes(), tags: b"", stream: b"no stream" }).expect("room");
    }
    writer.finish().expect("room");
    // So they do not decode, and now differ from their checksums, too.
    change(&folder.join(name.file_name(VolumeFile::Data)), |bytes| bytes.fill(1));
    let verified = run(args!["volume", "verify", &folder, "--json"]).ends(1).json();
    // Each stream once, and the file as a whole.
    assert_eq!((&verified["damaged_places"], list(&verified["damage"]).len()), (&Value::from(1_201), 1_000));
    for place in list(&verified["damage"]) {
        assert_eq!(text(place).matches("metric-").count(), 1, "{place}");
    }
    run(args!["volume", "verify", &folder]).ends(1).stdout_has("\n  damage: 201 places more\n");
    run(args!["m3", "verify", place.at("m3db")])
        .ends(1)
        .stdout_has("\ndamage: 201 places more\n")
        .stdout_has("1,201 damaged places found");
    let imported = run(args!["m3", "import", place.at("m3db"), place.db(), "--json"]).ends(1).json();
    for place in list(&imported["damage"]) {
        assert!(text(place).matches("metric-").count() == 1, "{place}");
    }
}
