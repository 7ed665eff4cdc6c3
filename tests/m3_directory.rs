//! A directory of M3 (`tests/data/m3-fileset`): all of it is read, and damage to it is noticed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chronolith::Error;
use chronolith::io::{MemoryDisk, RealDisk, Vfs};
use chronolith::m3::{CommitLog, Directory, Piece, Plan, SnapshotMetadata, VolumeKind, read_volume};
use chronolith::m3tsz::ValueCoding;
use serde_json::{Value, json};

const METADATA: &str = "snapshots/snapshot-6ba7b8109dad11d180b400c04fd430c8-3-metadata.db";
const METADATA_CHECKPOINT: &str =
    "snapshots/snapshot-6ba7b8109dad11d180b400c04fd430c8-3-metadata-checkpoint.db";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/m3-fileset")
}

fn read(name: &str) -> Vec<u8> {
    let path = root().join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn lines(name: &str) -> Vec<Value> {
    let text = String::from_utf8(read(name)).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The entries of a log in the words of the fixtures, and the damage that ended it.
fn entries(log: &CommitLog) -> (Vec<Value>, Option<Error>) {
    let mut found = Vec::new();
    let mut entries = log.entries();
    while let Some(entry) = entries.next_entry() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                assert!(entries.next_entry().is_none(), "nothing comes after damage");
                return (found, Some(error));
            }
        };
        let mut object = json!({
            "unique_index": entry.unique_index,
            "namespace": entry.series.namespace,
            "shard": entry.series.shard,
            "id_hex": hex(&entry.series.id),
            "t_ns": entry.timestamp,
            "value_bits": format!("{:016x}", entry.value.to_bits()),
            "unit": entry.unit,
        });
        if !entry.series.encoded_tags.is_empty() {
            assert!(entry.series.tags().is_some_and(|tags| !tags.is_empty()));
            object["encoded_tags_hex"] = json!(hex(&entry.series.encoded_tags));
        }
        if !entry.annotation.is_empty() {
            object["annotation_hex"] = json!(hex(entry.annotation));
        }
        found.push(object);
    }
    (found, None)
}

/// A file alone on a disk, under its own name.
fn on_disk(name: &str, bytes: &[u8]) -> (MemoryDisk, PathBuf) {
    let disk = MemoryDisk::new();
    let path = Path::new("/").join(Path::new(name).file_name().expect("a name"));
    disk.create(&path).and_then(|file| file.write_at(0, bytes)).expect("room");
    (disk, path)
}

#[test]
fn every_commit_log_of_m3_is_read_entirely() {
    let mut total = 0;
    for (index, expected) in (0..).zip(lines("commit-logs.jsonl")) {
        let file = expected["file"].as_str().expect("a path");
        let log = CommitLog::open(&RealDisk::new(), &root().join(file)).expect("a log");
        assert_eq!(log.index(), index);
        let (found, damage) = entries(&log);
        assert!(damage.is_none(), "{damage:?}");
        let expected = expected["entries"].as_array().expect("a list");
        assert_eq!(&found, expected, "{file}");
        total += found.len();
    }
    assert_eq!(total, 260);
}

#[test]
fn flipped_bits_and_cuts_of_a_log_leave_a_prefix_of_it() {
    let file = "commitlogs/commitlog-0-1.db";
    let whole = read(file);
    let expected = lines("commit-logs.jsonl").swap_remove(1);
    let expected = expected["entries"].as_array().expect("a list");
    let attempt = |bytes: &[u8]| -> (usize, bool) {
        let (disk, path) = on_disk(file, bytes);
        let (found, damage) = match CommitLog::open(&disk, &path) {
            Ok(log) => entries(&log),
            Err(error) => (Vec::new(), Some(error)),
        };
        assert!(found.len() <= expected.len() && found == expected[..found.len()]);
        match damage {
            None => (found.len(), true),
            Some(Error::Corrupt { path: damaged, offset, .. }) => {
                assert!(damaged == path && offset <= bytes.len() as u64);
                (found.len(), false)
            }
            Some(error) => panic!("{error}"),
        }
    };
    assert_eq!(attempt(&whole), (expected.len(), true));
    // Each bit in the headers, and one bit of every other byte: what covers a payload is its checksum.
    let mut lengths = std::collections::BTreeSet::new();
    for at in 0..whole.len() {
        let bits: &[u32] = if at < 64 { &[0, 1, 2, 3, 4, 5, 6, 7] } else { &[at as u32 % 8] };
        for bit in bits {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let (read, is_whole) = attempt(&bytes);
            assert!(!is_whole && read < expected.len(), "bit {bit} of byte {at}");
            lengths.insert(read);
        }
    }
    // The log's own chunk and three with entries: damage in one costs it and those behind it.
    assert_eq!(lengths.len(), 3, "{lengths:?}");
    let whole_at: Vec<usize> = (0..whole.len()).filter(|len| attempt(&whole[..*len]).1).collect();
    assert_eq!(whole_at.len(), 3, "a log that ends behind a chunk may be whole: {whole_at:?}");
}

#[test]
fn snapshot_metadata_of_m3_are_read_and_their_damage_noticed() {
    let metadata = SnapshotMetadata::read(&RealDisk::new(), &root().join(METADATA));
    let metadata = metadata.expect("readable").expect("finished");
    assert_eq!(metadata.uuid(), "6ba7b810-9dad-11d1-80b4-00c04fd430c8");
    assert_eq!((metadata.index, metadata.log_index), (3, 1));
    assert_eq!(metadata.log_path, "commitlogs/commitlog-0-1.db");

    let files = [(METADATA, read(METADATA)), (METADATA_CHECKPOINT, read(METADATA_CHECKPOINT))];
    let attempt = |files: &[(&str, Vec<u8>); 2]| {
        let (disk, path) = on_disk(files[0].0, &files[0].1);
        let name = Path::new(files[1].0).file_name().expect("a name");
        disk.create(&Path::new("/").join(name)).and_then(|file| file.write_at(0, &files[1].1)).expect("room");
        SnapshotMetadata::read(&disk, &path)
    };
    assert_eq!(attempt(&files).expect("sound"), Some(metadata));
    for file in 0..2 {
        for bit in 0..8 * files[file].1.len() {
            let mut files = files.clone();
            files[file].1[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(attempt(&files), Err(Error::Corrupt { .. })), "file {file}, bit {bit}");
        }
        for len in 0..files[file].1.len() {
            let mut files = files.clone();
            files[file].1.truncate(len);
            assert!(matches!(attempt(&files), Err(Error::Corrupt { .. })), "file {file} cut to {len}");
        }
    }
}

#[test]
fn the_directory_says_what_is_there() {
    let directory = Directory::read(&RealDisk::new(), &root()).expect("readable").expect("a directory of M3");
    let told = |kind| {
        let told = |place: &chronolith::m3::VolumePlace| {
            format!("{}/{}/{}", place.namespace, place.shard, place.name)
        };
        directory.volumes(kind).iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(
        told(VolumeKind::Flush),
        [
            "metrics_10s/0/1699999200000000000-0",
            "metrics_10s/1/1699999200000000000-0",
            "metrics_10s/2/1699999200000000000-0",
            "metrics_10s/3/1699999200000000000-0",
            "metrics_10s/0/1700006400000000000-1",
            "tagged/0/1699999200000000000-0",
            "tagged/1/1699999200000000000-0",
            "tagged/2/1699999200000000000-0",
        ]
    );
    assert_eq!(told(VolumeKind::Snapshot), ["metrics_10s/1/1700013600000000000-0"]);
    let others = directory.other_volumes(VolumeKind::Flush);
    assert_eq!(
        others.iter().map(|place| place.name.to_string()).collect::<Vec<_>>(),
        ["1700006400000000000-0"]
    );
    assert_eq!(directory.logs.iter().map(|log| log.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(directory.latest_snapshot().map(|snapshot| snapshot.index), Some(3));
    assert!(directory.damage.is_empty() && directory.unfinished.is_empty());
    assert!(directory.foreign.iter().all(|path| path.parent() == Some(&root())), "{:?}", directory.foreign);

    let plan = Plan::new(&RealDisk::new(), &directory, |_| true);
    assert_eq!((plan.flushed.len(), plan.snapshots.len(), plan.logs.len()), (8, 1, 3));
    assert!(plan.passed_over.is_empty() && plan.damage.is_empty());
}

#[test]
fn volumes_are_read_to_the_points_that_m3_reads() {
    let expected: BTreeMap<(String, u64, u64), Value> = lines("volumes.jsonl")
        .into_iter()
        .map(|volume| {
            let number = |key: &str| volume[key].as_u64().expect("a number");
            let dir = volume["dir"].as_str().expect("a path").to_owned();
            ((dir, number("block_start_ns"), number("volume_index")), volume)
        })
        .collect();
    let directory = Directory::read(&RealDisk::new(), &root()).expect("readable").expect("a directory of M3");
    let mut places = Vec::new();
    for kind in [VolumeKind::Flush, VolumeKind::Snapshot] {
        places.extend(directory.volumes(kind));
        places.extend(directory.other_volumes(kind));
    }
    assert_eq!(places.len(), expected.len());
    for place in places {
        let dir = format!("{}/{}/{}", place.kind.folder(), place.namespace, place.shard);
        let expected = &expected[&(dir, place.name.block_start as u64, place.name.volume.into())];
        let mut found = Vec::new();
        let volume = place.open(&RealDisk::new()).expect("a volume");
        let all = read_volume(&volume, ValueCoding::IntOptimized, |piece| {
            let Piece::Points { entry, points, .. } = piece else { panic!("{piece:?}") };
            let points = points.iter().map(|point| {
                assert_eq!(point.unit.to_string(), "s");
                json!([point.timestamp, format!("{:016x}", point.value.to_bits())])
            });
            found.push((hex(entry.id()), points.collect::<Vec<_>>()));
            Ok::<_, ()>(())
        });
        assert_eq!(all, Ok(()));
        let expected = expected["series_in_data_file_order"].as_array().expect("a list").iter();
        let expected: Vec<_> = expected
            .map(|series| {
                let id = series["id_hex"].as_str().expect("an ID").to_owned();
                (id, series["points"].as_array().expect("a list").clone())
            })
            .collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn examples_of_the_format_page_are_m3s_files() {
    let page = include_str!("../design/m3-directory.md");
    for (name, file) in [
        ("metadata", METADATA),
        ("metadata-checkpoint", METADATA_CHECKPOINT),
        ("log", "commitlogs/commitlog-0-2.db"),
    ] {
        let example =
            page.split(&format!("```hex {name}\n")).nth(1).and_then(|rest| rest.split("```").next());
        // Two spaces part the bytes from what they mean.
        let digits = example.expect("an example").lines().filter_map(|line| line.split("  ").next());
        assert_eq!(digits.collect::<String>().replace(' ', ""), hex(&read(file)), "{name}");
    }
}

/// All files of the fixture's directory of M3.
fn files() -> Vec<(PathBuf, Vec<u8>)> {
    let (mut files, mut folders) = (
        Vec::new(),
        vec!["data", "snapshots", "commitlogs"].into_iter().map(|f| root().join(f)).collect::<Vec<_>>(),
    );
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("readable");
                files.push((path.strip_prefix(root()).expect("below it").to_owned(), bytes));
            }
        }
    }
    files.sort();
    files
}

/// Namespace, ID, time, bits of the value.
type Cell = (String, String, i64, u64);

/// All points that a directory's plan leads to, and how much damage there was.
fn cells(disk: &dyn Vfs, directory: &Directory) -> (std::collections::HashSet<Cell>, usize) {
    let plan = Plan::new(disk, directory, |_| true);
    let mut found = std::collections::HashSet::new();
    let mut damage = directory.damage.len() + plan.damage.len();
    for place in plan.volumes() {
        let Ok(volume) = place.salvage(disk) else {
            damage += 1;
            continue;
        };
        let all = read_volume(&volume, ValueCoding::IntOptimized, |piece| {
            match piece {
                Piece::Points { entry, points, .. } => found.extend(points.iter().map(|point| {
                    (place.namespace.clone(), hex(entry.id()), point.timestamp, point.value.to_bits())
                })),
                Piece::Damage { .. } => damage += 1,
            }
            Ok::<_, ()>(())
        });
        assert_eq!(all, Ok(()));
    }
    for log in plan.all_logs() {
        let Ok(log) = log.open(disk) else {
            damage += 1;
            continue;
        };
        let mut entries = log.entries();
        while let Some(entry) = entries.next_entry() {
            match entry {
                Ok(entry) => {
                    let series = entry.series;
                    let cell =
                        (series.namespace.clone(), hex(&series.id), entry.timestamp, entry.value.to_bits());
                    found.insert(cell);
                }
                Err(_) => damage += 1,
            }
        }
    }
    (found, damage)
}

#[test]
fn random_damage_invents_no_points_and_stays_local() {
    let files = files();
    let disk_of = |files: &[(PathBuf, Vec<u8>)]| {
        let disk = MemoryDisk::new();
        for (path, bytes) in files {
            let path = Path::new("/m3").join(path);
            disk.create_dir_all(path.parent().expect("a folder")).expect("room");
            disk.create(&path).and_then(|file| file.write_at(0, bytes)).expect("room");
        }
        disk
    };
    let read = |disk: &MemoryDisk| {
        let directory = Directory::read(disk, "/m3".as_ref()).expect("readable").expect("a directory of M3");
        cells(disk, &directory)
    };
    let (all, damage) = read(&disk_of(&files));
    assert_eq!((all.len(), damage), (10_867, 0));

    let seed = 0x6d33_u64;
    println!("seed {seed}");
    let mut state = seed;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut noticed = 0;
    for round in 0..50 {
        let mut files = files.clone();
        let which = random(files.len());
        let path = files[which].0.display().to_string();
        let bytes = &mut files[which].1;
        let at = random(bytes.len().max(1));
        match random(3) {
            _ if bytes.is_empty() => bytes.push(7),
            0 => bytes[at] ^= 1 << random(8),
            1 => bytes.truncate(at),
            _ => bytes[at..].iter_mut().take(512).for_each(|byte| *byte = 0),
        }
        let (found, damage) = read(&disk_of(&files));
        // Where the highest volume of a block is gone, the one below it counts: its points are no others. Damage to what only vouches for others
        // costs nothing.
        let invented: Vec<_> = found.difference(&all).take(3).collect();
        assert!(invented.is_empty(), "round {round}, {path}: {invented:?}");
        assert!(found.len() > all.len() / 2, "round {round}: damage to {path} costs all");
        noticed += usize::from(damage > 0);
    }
    assert!(noticed > 25, "{noticed}");
}
