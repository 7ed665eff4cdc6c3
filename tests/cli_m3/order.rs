//! Which of several values for one time `m3 import` keeps, on directories that hold just these.
//!
//! Every pair of sources is tried with both values either way round, so that neither "the first" nor "the greater" passes for "the later".

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use chronolith::fileset::{MetricStream, VolumeName, VolumeSpec, VolumeWriter};
use chronolith::io::RealDisk;
use chronolith::m3tsz::{Encoder, EncoderOptions};

use super::*;

/// In namespace `n`, shard 0.
const METRIC: &str = "m";
/// Where values are in conflict.
const AT: i64 = 1_000_000_000;
const LATER: i64 = 2 * AT;

/// Points by time.
type Source<'s> = &'s [(i64, f64)];

/// How a log is not whole.
#[derive(Clone, Copy, Debug)]
enum Broken {
    /// Its last entry, and something sound lies behind it.
    Damaged,
    /// Its last entry, at the end of the file.
    Torn,
    /// Its info, and so all of it.
    Unreadable,
}

/// Adds the metric's block as a volume below `data` or `snapshots`.
fn put_volume(prefix: &Path, top: &str, points: Source<'_>) {
    let mut encoder = Encoder::new(0, EncoderOptions::default());
    for (at, value) in points {
        encoder.append(*at, *value, b"").expect("encodable");
    }
    let mut stream = Vec::new();
    encoder.finish_into(&mut stream);
    let folder = prefix.join(top).join("n/0");
    std::fs::create_dir_all(&folder).expect("room");
    let name = VolumeName { block_start: 0, volume: 0 };
    let spec = VolumeSpec { name, block_size: 7_200_000_000_000, snapshot: None, supplement: None };
    let disk = RealDisk::new();
    let mut writer = VolumeWriter::create(&disk, &folder, spec).expect("room");
    writer.append(MetricStream { id: METRIC.as_bytes(), tags: b"", stream: &stream }).expect("room");
    writer.finish().expect("room");
}

/// Adds a commit log, a chunk to each entry (`design/m3-directory.md`, "Commit logs").
fn put_log(prefix: &Path, number: u8, points: Source<'_>, broken: Option<Broken>) {
    let mut chunks = vec![log_chunk(&[0x01, 0x92, 0x07, 0x93, 0x00, 0x00, number])];
    for (place, (at, value)) in points.iter().enumerate() {
        chunks.push(log_chunk(&log_entry(place == 0, *at, *value)));
    }
    let last = |chunk: &mut Vec<u8>| *chunk.last_mut().expect("a payload") ^= 1;
    match broken {
        None => {}
        Some(Broken::Damaged) => {
            chunks.last_mut().map(last).expect("a chunk");
            chunks.push(log_chunk(&log_entry(false, LATER, 0.0)));
        }
        Some(Broken::Torn) => {
            chunks.last_mut().expect("a chunk").pop();
        }
        Some(Broken::Unreadable) => chunks.first_mut().map(last).expect("a chunk"),
    }
    let folder = prefix.join("commitlogs");
    std::fs::create_dir_all(&folder).expect("room");
    std::fs::write(folder.join(format!("commitlog-0-{number}.db")), chunks.concat()).expect("room");
}

/// A record behind its length, as the only one of a chunk.
fn log_chunk(record: &[u8]) -> Vec<u8> {
    assert!(record.len() < 128, "its length is one byte");
    let payload = [&[record.len() as u8][..], record].concat();
    let size = (payload.len() as u32).to_le_bytes();
    let checksums = [&size[..], &payload].map(|bytes| adler32(bytes).to_le_bytes());
    [&size[..], &checksums.concat(), &payload].concat()
}

fn log_entry(names_series: bool, at: i64, value: f64) -> Vec<u8> {
    let series = b"\x01\x92\x09\x93\xc4\x01m\xc4\x01n\x00\xc0";
    let series = if names_series { [&[0xc4, series.len() as u8][..], series].concat() } else { vec![0xc0] };
    let (at, value) = (at.to_be_bytes(), value.to_be_bytes());
    [b"\x01\x92\x08\x97\x01\x00", &series[..], b"\xd3", &at, b"\xcb", &value, b"\x01\xc0"].concat()
}

fn adler32(bytes: &[u8]) -> u32 {
    let (low, high) = bytes.iter().fold((1, 0), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    high << 16 | low
}

/// The metric's points in a database.
fn points(db: &Path) -> Vec<(i64, f64)> {
    let key = ("n".to_owned(), METRIC.as_bytes().to_vec());
    let metrics = content(db);
    metrics[&key].1.iter().map(|(at, (bits, _))| (*at, f64::from_bits(*bits))).collect()
}

/// Runs a case with an older and a newer value, either way round. It writes sources and returns how the import should end and what is then there.
/// A second import must write nothing.
fn both_ways(case: impl Fn(&Path, f64, f64) -> (i32, Vec<(i64, f64)>)) {
    for (older, newer) in [(1.0, 2.0), (2.0, 1.0)] {
        let place = Place::new();
        let prefix: PathBuf = place.at("m3db");
        let (status, expected) = case(&prefix, older, newer);
        run(args!["m3", "import", &prefix, place.db()]).ends(status);
        assert_eq!(points(&place.db()), expected, "older {older}, newer {newer}");
        run(args!["m3", "import", &prefix, place.db()]).ends(status).stdout_has("imported 0 points");
        assert_eq!(points(&place.db()), expected, "older {older}, newer {newer}, again");
    }
}

#[test]
fn snapshots_replace_what_was_flushed() {
    both_ways(|prefix, older, newer| {
        put_volume(prefix, "data", &[(AT, older)]);
        put_volume(prefix, "snapshots", &[(AT, newer)]);
        (0, vec![(AT, newer)])
    });
}

#[test]
fn logs_replace_what_volumes_have() {
    for top in ["data", "snapshots"] {
        both_ways(|prefix, older, newer| {
            put_volume(prefix, top, &[(AT, older), (LATER, 7.0)]);
            put_log(prefix, 0, &[(AT, newer)], None);
            (0, vec![(AT, newer), (LATER, 7.0)])
        });
    }
}

#[test]
fn later_logs_replace_what_earlier_ones_have() {
    both_ways(|prefix, older, newer| {
        put_log(prefix, 0, &[(AT, older)], None);
        put_log(prefix, 1, &[(AT, newer)], None);
        (0, vec![(AT, newer)])
    });
}

#[test]
fn later_entries_of_a_log_replace_earlier_ones() {
    both_ways(|prefix, older, newer| {
        put_log(prefix, 0, &[(AT, older), (LATER, 7.0), (AT, newer)], None);
        (0, vec![(AT, newer), (LATER, 7.0)])
    });
}

#[test]
fn logs_up_to_one_that_is_not_whole_replace_no_point_of_a_volume() {
    for top in ["data", "snapshots"] {
        for broken in [Broken::Damaged, Broken::Unreadable] {
            both_ways(|prefix, older, newer| {
                // The volume was flushed after log 1, whose last entry is lost.
                put_volume(prefix, top, &[(AT, newer)]);
                put_log(prefix, 0, &[(AT, older)], None);
                put_log(prefix, 1, &[(AT, older), (AT, newer)], Some(broken));
                (1, vec![(AT, newer)])
            });
        }
    }
}

#[test]
fn a_torn_tail_leaves_the_order_as_it_is() {
    both_ways(|prefix, older, newer| {
        put_volume(prefix, "data", &[(AT, older)]);
        put_log(prefix, 0, &[(AT, newer), (LATER, 7.0)], Some(Broken::Torn));
        (1, vec![(AT, newer)])
    });
}

#[test]
fn points_that_only_logs_have_are_kept_where_one_is_not_whole() {
    both_ways(|prefix, older, newer| {
        put_volume(prefix, "data", &[(AT, 7.0)]);
        put_log(prefix, 0, &[(AT, older), (LATER, older)], None);
        put_log(prefix, 1, &[(LATER, newer), (AT, older)], Some(Broken::Damaged));
        (1, vec![(AT, 7.0), (LATER, newer)])
    });
}

#[test]
fn logs_after_the_last_that_is_not_whole_replace_what_volumes_have() {
    both_ways(|prefix, older, newer| {
        put_log(prefix, 0, &[(AT, 7.0)], Some(Broken::Damaged));
        put_log(prefix, 1, &[(AT, 8.0), (LATER, 8.0)], None);
        put_log(prefix, 2, &[(AT, 9.0)], Some(Broken::Damaged));
        put_volume(prefix, "data", &[(AT, older), (LATER, 7.0)]);
        put_log(prefix, 3, &[(AT, newer)], None);
        (1, vec![(AT, newer), (LATER, 7.0)])
    });
}

#[test]
fn logs_that_are_not_whole_are_noted() {
    let place = Place::new();
    let prefix = place.at("m3db");
    put_volume(&prefix, "data", &[(AT, 2.0)]);
    put_log(&prefix, 0, &[(AT, 1.0)], None);
    put_log(&prefix, 1, &[(AT, 2.0)], Some(Broken::Damaged));
    put_log(&prefix, 2, &[], None);
    let imported = run(args!["m3", "import", &prefix, place.db(), "--json"])
        .ends(1)
        .stderr_has("m3db/commitlogs/commitlog-0-1.db can be read\n")
        .stderr_has(
            "m3db/commitlogs/commitlog-0-1.db and older commit logs say replaces no point of a volume",
        );
    let doubtful = imported.json()["commit_logs_before_volumes"].clone();
    let names: Vec<_> = list(&doubtful).iter().map(|path| text(path).rsplit('/').next()).collect();
    assert_eq!(names, [Some("commitlog-0-0.db"), Some("commitlog-0-1.db")]);
}
