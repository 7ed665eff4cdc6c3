//! Volumes that M3 wrote (`tests/data/m3-fileset`): all of them is read, and written again byte for byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chronolith::Error;
use chronolith::fileset::{
    BloomShape, Entry, MetricStream, Sharding, SnapshotMark, SortedVolumeWriter, Volume, VolumeFile,
    VolumeFolder, VolumeName, VolumeSpec, VolumeWriter, encode_tags,
};
use chronolith::io::{MemoryDisk, RealDisk, Vfs};
use chronolith::m3tsz::{Decoder, ValueCoding};
use serde_json::Value;

/// A volume as M3 reads it.
struct Expected {
    folder: PathBuf,
    spec: VolumeSpec,
    shard: u32,
    bloom: BloomShape,
    series: Vec<Series>,
}

/// A metric in a volume.
struct Series {
    id: Vec<u8>,
    tags: Vec<(Vec<u8>, Vec<u8>)>,
    checksum: u64,
    size: u64,
    points: Vec<(i64, u64)>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/m3-fileset")
}

fn lines(name: &str) -> Vec<Value> {
    let path = root().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16).expect("a digit") as u8);
    digits.collect::<Vec<_>>().chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn series(value: &Value) -> Series {
    let list = |name: &str| value[name].as_array().cloned().unwrap_or_default();
    let tag = |tag: &Value| (text(&tag[0]).as_bytes().to_vec(), text(&tag[1]).as_bytes().to_vec());
    let point = |point: &Value| {
        let bits = u64::from_str_radix(text(&point[1]), 16).expect("bits of a value");
        (point[0].as_i64().expect("a timestamp"), bits)
    };
    Series {
        id: hex(text(&value["id_hex"])),
        tags: list("tags").iter().map(tag).collect(),
        checksum: number(&value["data_checksum"]),
        size: number(&value["size"]),
        points: list("points").iter().map(point).collect(),
    }
}

fn expected() -> Vec<Expected> {
    let volumes = lines("volumes.jsonl");
    assert_eq!(volumes.len(), 10);
    let read = |volume: &Value| Expected {
        folder: root().join(text(&volume["dir"])),
        spec: VolumeSpec {
            name: VolumeName {
                block_start: volume["block_start_ns"].as_i64().expect("a time"),
                volume: number(&volume["volume_index"]) as u32,
            },
            block_size: volume["block_size_ns"].as_i64().expect("a length"),
            snapshot: (volume["type"] == "snapshot").then(|| SnapshotMark {
                time: volume["snapshot_time_ns"].as_i64().expect("a time"),
                id: hex(text(&volume["snapshot_id"])).try_into().expect("a UUID"),
            }),
            supplement: None,
        },
        shard: number(&volume["shard"]) as u32,
        bloom: BloomShape { bits: number(&volume["bloom_m"]), hashes: number(&volume["bloom_k"]) },
        series: volume["series_in_data_file_order"].as_array().expect("a list").iter().map(series).collect(),
    };
    volumes.iter().map(read).collect()
}

fn points(stream: &[u8]) -> Vec<(i64, u64)> {
    let mut decoder = Decoder::new(stream, ValueCoding::IntOptimized);
    let mut points = Vec::new();
    while let Some(point) = decoder.next_point() {
        let point = point.expect("undamaged");
        points.push((point.timestamp, point.value.to_bits()));
    }
    points
}

fn assert_is(volume: &Volume, entry: &Entry<'_>, series: &Series) {
    assert_eq!(entry.id(), series.id);
    assert_eq!((u64::from(entry.size()), u64::from(entry.checksum())), (series.size, series.checksum));
    let tags = volume.tags(entry).expect("tags");
    let tags: Vec<_> = tags.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    assert_eq!(tags, series.tags);
    let stream = volume.stream(entry).expect("undamaged");
    assert_eq!(points(stream), series.points);
}

fn collect<'v>(entries: impl Iterator<Item = chronolith::Result<Entry<'v>>>) -> Vec<Entry<'v>> {
    entries.map(|entry| entry.expect("undamaged")).collect()
}

#[test]
fn every_volume_of_m3_is_read_entirely() {
    let mut streams = 0;
    for expected in expected() {
        let volume = Volume::open(&RealDisk::new(), &expected.folder, expected.spec.name).expect("a volume");
        let info = volume.info().expect("it was checked");
        assert_eq!((info.block_start, info.volume), (volume.name().block_start, volume.name().volume));
        assert_eq!((info.block_size, info.snapshot), (expected.spec.block_size, expected.spec.snapshot));
        assert_eq!((info.bloom, info.entries), (expected.bloom, expected.series.len() as u64));
        assert!(info.checksums_entries);
        assert!(volume.damage().is_empty() && volume.verify().is_empty());

        let in_data_order = collect(volume.entries_in_data_order());
        assert_eq!(in_data_order.len(), expected.series.len());
        for ((ordinal, entry), series) in (0..).zip(&in_data_order).zip(&expected.series) {
            assert_eq!(entry.ordinal(), ordinal);
            assert_is(&volume, entry, series);
            assert_eq!(volume.find(&series.id).expect("undamaged"), Some(*entry));
            assert!(volume.stream_of(&series.id).expect("undamaged").is_some());
            streams += 1;
        }
        let in_order = collect(volume.entries());
        let mut sorted = in_data_order.clone();
        sorted.sort_by_key(Entry::id);
        assert_eq!(in_order, sorted);
    }
    assert_eq!(streams, 1_013);
}

#[test]
fn example_of_the_format_page_is_m3s_volume() {
    let page = include_str!("../design/m3-fileset.md");
    let folder = root().join("data/tagged/2");
    let name = VolumeName { block_start: 1_699_999_200_000_000_000, volume: 0 };
    for (file, bytes) in VolumeFile::ALL.into_iter().zip(files(&RealDisk::new(), &folder, name)) {
        let begin = format!("```hex {}\n", file.suffix());
        let example =
            page.split(&begin).nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
        // Two spaces part the bytes from what they mean.
        let digits = example.lines().filter_map(|line| line.split("  ").next());
        assert_eq!(hex(&digits.collect::<String>().replace(' ', "")), bytes, "{}", file.suffix());
    }
    let tags = page.split("`75 27 02").nth(1).and_then(|rest| rest.split('`').next()).expect("tags");
    let encoded = encode_tags(&[(b"host", b"a"), (b"zone", b"")]).expect("tags");
    assert_eq!(hex(&format!("7527 02{tags}").replace(' ', "")), encoded);
}

#[test]
fn absent_metrics_are_absent() {
    for expected in expected() {
        let volume = Volume::open(&RealDisk::new(), &expected.folder, expected.spec.name).expect("a volume");
        let ids: std::collections::BTreeSet<_> =
            expected.series.iter().map(|series| &series.id[..]).collect();
        let mut absent = 0;
        for series in &expected.series {
            for id in
                [[&series.id[..], b"\0"].concat(), [&series.id[..], b"\xff"].concat(), series.id.clone()]
            {
                let shorter = &id[..id.len().saturating_sub(1)];
                for id in [&id[..], shorter] {
                    let found = volume.find(id).expect("undamaged").is_some();
                    assert_eq!(found, ids.contains(id), "{id:?}");
                    absent += u32::from(!found);
                }
            }
        }
        assert!(absent as usize >= 2 * expected.series.len());
        for id in (0..2_000_u32).map(|n| format!("absent-{n}")) {
            assert_eq!(volume.find(id.as_bytes()).expect("undamaged"), None);
        }
    }
}

#[test]
fn shards_are_m3s() {
    for example in lines("shards.jsonl") {
        let id = hex(text(&example["id_hex"]));
        for (key, seed, shards) in [
            ("seed0_mod1", 0, 1),
            ("seed0_mod4", 0, 4),
            ("seed0_mod64", 0, 64),
            ("seed0_mod1024", 0, 1024),
            ("seed42_mod4096", 42, 4096),
            ("seed42_murmur3_32_mod2p31", 42, 1 << 31),
        ] {
            assert_eq!(
                u64::from(Sharding { shards, seed }.shard_of(&id)),
                number(&example[key]),
                "{key} of {id:?}"
            );
        }
    }
    assert_eq!(Sharding { shards: 0, seed: 0 }.shard_of(b"cpu"), 0);
    // One block of one namespace was filled by shard.
    let sharded = root().join("data/metrics_10s");
    let volumes = expected().into_iter().filter(|volume| volume.folder.starts_with(&sharded));
    let mut metrics = 0;
    for volume in volumes.filter(|volume| volume.spec.name.block_start == 1_699_999_200_000_000_000) {
        for series in &volume.series {
            assert_eq!(Sharding { shards: 4, seed: 0 }.shard_of(&series.id), volume.shard);
            metrics += 1;
        }
    }
    assert_eq!(metrics, 760);
}

#[test]
fn folder_lists_volumes_and_the_highest_counts() {
    let mut names: BTreeMap<PathBuf, Vec<VolumeName>> = BTreeMap::new();
    for expected in expected() {
        names.entry(expected.folder).or_default().push(expected.spec.name);
    }
    for (folder, names) in names {
        let found = VolumeFolder::list(&RealDisk::new(), &folder).expect("a folder");
        assert_eq!(found.complete, names.iter().copied().collect());
        assert!(found.incomplete.is_empty() && found.foreign.is_empty());
        for name in &names {
            let highest = names.iter().filter(|other| other.block_start == name.block_start).max();
            assert_eq!(found.latest(name.block_start).as_ref(), highest);
        }
    }
}

/// The metrics of a volume in the order of its data file, as input for a writer.
fn inputs(volume: &Volume) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let input = |entry: Entry<'_>| {
        let tags = encode_tags(&volume.tags(&entry).expect("tags")).expect("tags");
        (entry.id().to_vec(), tags, volume.stream(&entry).expect("undamaged").to_vec())
    };
    collect(volume.entries_in_data_order()).into_iter().map(input).collect()
}

fn files(disk: &dyn Vfs, folder: &Path, name: VolumeName) -> Vec<Vec<u8>> {
    let read = |file: VolumeFile| disk.map(&folder.join(name.file_name(file))).expect("a file").to_vec();
    VolumeFile::ALL.into_iter().map(read).collect()
}

#[test]
fn every_volume_of_m3_is_written_again_byte_for_byte() {
    for expected in expected() {
        let name = expected.spec.name;
        let volume = Volume::open(&RealDisk::new(), &expected.folder, name).expect("a volume");
        let disk = MemoryDisk::new();
        let folder = Path::new("/");
        let mut writer = VolumeWriter::create(&disk, folder, expected.spec).expect("room");
        for (id, tags, stream) in inputs(&volume) {
            writer.append(MetricStream { id: &id, tags: &tags, stream: &stream }).expect("room");
            writer
                .append(MetricStream { id: b"without a stream", tags: b"", stream: b"" })
                .expect("left out");
        }
        writer.finish().expect("room");
        let (ours, m3s) = (files(&disk, folder, name), files(&RealDisk::new(), &expected.folder, name));
        for ((file, ours), m3s) in VolumeFile::ALL.into_iter().zip(ours).zip(m3s) {
            assert!(ours == m3s, "{}", expected.folder.join(name.file_name(file)).display());
        }
    }
}

#[test]
fn both_writers_make_the_same_files_of_sorted_metrics() {
    for expected in expected() {
        let name = expected.spec.name;
        let volume = Volume::open(&RealDisk::new(), &expected.folder, name).expect("a volume");
        let mut inputs = inputs(&volume);
        inputs.sort();
        let (plain, sorted) = (MemoryDisk::new(), MemoryDisk::new());
        let folder = Path::new("/");
        let mut plain_writer = VolumeWriter::create(&plain, folder, expected.spec).expect("room");
        let planned = inputs.len() as u32;
        let mut writer = SortedVolumeWriter::create(&sorted, folder, expected.spec, planned).expect("room");
        for (id, tags, stream) in &inputs {
            plain_writer.append(MetricStream { id, tags, stream }).expect("room");
            writer.append(MetricStream { id, tags, stream }).expect("room");
        }
        plain_writer.finish().expect("room");
        writer.finish().expect("room");
        assert!(files(&plain, folder, name) == files(&sorted, folder, name));
    }
}

/// A metric without tags.
fn metric<'a>(id: &'a [u8], stream: &'a [u8]) -> MetricStream<'a> {
    MetricStream { id, tags: b"", stream }
}

const SPEC: VolumeSpec = VolumeSpec {
    name: VolumeName { block_start: 7_200, volume: 3 },
    block_size: 3_600,
    snapshot: None,
    supplement: None,
};

#[test]
fn sorted_writer_with_a_wrong_plan_makes_a_sound_volume() {
    for planned in [0, 1, 99, 10_000] {
        let disk = MemoryDisk::new();
        let mut writer = SortedVolumeWriter::create(&disk, "/".as_ref(), SPEC, planned).expect("room");
        let ids: Vec<String> = (1_000..1_100).map(|n| n.to_string()).collect();
        for id in &ids {
            writer.append(metric(id.as_bytes(), id.as_bytes())).expect("room");
        }
        writer.finish().expect("room");
        let volume = Volume::open(&disk, "/".as_ref(), SPEC.name).expect("a volume");
        assert!(volume.verify().is_empty(), "{:?}", volume.verify());
        for id in &ids {
            assert_eq!(volume.stream_of(id.as_bytes()).expect("undamaged"), Some(id.as_bytes()));
        }
    }
}

#[test]
fn metrics_that_come_twice_or_out_of_order_are_refused() {
    let disk = MemoryDisk::new();
    let mut writer = VolumeWriter::create(&disk, "/".as_ref(), SPEC).expect("room");
    for id in [b"b", b"a", b"b"] {
        writer.append(metric(id, b"stream")).expect("found later");
    }
    assert!(matches!(writer.finish(), Err(Error::UnfitForVolume { id, .. }) if id == "b"));
    assert!(VolumeFolder::list(&disk, "/".as_ref()).expect("a folder").complete.is_empty());

    let mut writer =
        SortedVolumeWriter::create(&disk, "/".as_ref(), SPEC, 2).expect("replaces what was left");
    writer.append(metric(b"", b"stream")).expect("room");
    for (id, fits) in [(&b""[..], false), (b"b", true), (b"a", false), (b"b", false), (b"b\xff", true)] {
        match writer.append(metric(id, b"stream")) {
            Ok(()) => assert!(fits, "{id:?}"),
            Err(Error::UnfitForVolume { .. }) => assert!(!fits, "{id:?}"),
            Err(error) => panic!("{error}"),
        }
    }
    writer.finish().expect("room");
    let volume = Volume::open(&disk, "/".as_ref(), SPEC.name).expect("a volume");
    let ids: Vec<_> = collect(volume.entries()).iter().map(|entry| entry.id().to_vec()).collect();
    assert_eq!(ids, [&b""[..], b"b", b"b\xff"]);
}

#[test]
fn volume_that_exists_is_never_overwritten() {
    let disk = MemoryDisk::new();
    VolumeWriter::create(&disk, "/".as_ref(), SPEC).and_then(VolumeWriter::finish).expect("room");
    let before = files(&disk, "/".as_ref(), SPEC.name);
    for error in [
        VolumeWriter::create(&disk, "/".as_ref(), SPEC).map(drop),
        SortedVolumeWriter::create(&disk, "/".as_ref(), SPEC, 1).map(drop),
    ] {
        assert_eq!(error.expect_err("refused").io_kind(), Some(std::io::ErrorKind::AlreadyExists));
    }
    assert!(files(&disk, "/".as_ref(), SPEC.name) == before);
}

#[test]
fn volume_from_before_there_were_volumes_is_read() {
    let expected = expected().swap_remove(8);
    let name = expected.spec.name;
    let disk = MemoryDisk::new();
    for (file, bytes) in VolumeFile::ALL.into_iter().zip(files(&RealDisk::new(), &expected.folder, name)) {
        let path = format!("/fileset-{}-{}.db", name.block_start, file.suffix());
        disk.create(path.as_ref()).and_then(|file| file.write_at(0, &bytes)).expect("room");
    }
    let found = VolumeFolder::list(&disk, "/".as_ref()).expect("a folder");
    assert_eq!(found.latest(name.block_start), Some(name));
    let volume = Volume::open(&disk, "/".as_ref(), name).expect("a volume");
    assert!(volume.verify().is_empty());
    assert_eq!(collect(volume.entries()).len(), expected.series.len());
    let twice = VolumeWriter::create(&disk, "/".as_ref(), expected.spec).map(drop);
    assert_eq!(twice.expect_err("refused").io_kind(), Some(std::io::ErrorKind::AlreadyExists));
    chronolith::fileset::remove_volume(&disk, "/".as_ref(), name).expect("it goes");
    assert!(disk.read_dir("/".as_ref()).expect("a folder").expect("a folder").is_empty());
}

#[test]
fn damage_in_a_stream_names_the_metric() {
    let disk = MemoryDisk::new();
    let mut writer = VolumeWriter::create(&disk, Path::new("/"), SPEC).expect("room");
    writer.append(metric(b"a", b"first")).expect("room");
    writer.append(metric(b"b\n", b"second")).expect("room");
    writer.finish().expect("room");
    let path = Path::new("/").join(SPEC.name.file_name(VolumeFile::Data));
    disk.open(&path, true).expect("memory").expect("it is there").write_at(7, b"?").expect("room");
    let volume = Volume::open(&disk, Path::new("/"), SPEC.name).expect("the streams were not looked at");
    assert_eq!(volume.stream_of(b"a").expect("undamaged"), Some(&b"first"[..]));
    let error = volume.stream_of(b"b\n").expect_err("damaged");
    assert!(matches!(&error, Error::Corrupt { offset: 5, metric: Some(metric), .. } if &**metric == "b\\n"));
    assert!(error.to_string().contains("at byte 5, metric b\\n: the stream's checksum"), "{error}");
}

#[test]
fn what_no_volume_can_hold_is_refused() {
    let disk = MemoryDisk::new();
    for block_size in [0, -5] {
        let spec = VolumeSpec { block_size, ..SPEC };
        let refused = VolumeWriter::create(&disk, Path::new("/"), spec).map(drop);
        assert!(matches!(refused, Err(Error::InvalidOption { option: "block_size", .. })));
    }
    let mut writer = VolumeWriter::create(&disk, Path::new("/"), SPEC).expect("room");
    let refused = writer.append(MetricStream { tags: b"k=v", ..metric(b"a", b"stream") });
    assert!(matches!(refused, Err(Error::UnfitForVolume { .. })));
    writer.append(metric(b"a", b"stream")).expect("nothing was added before");
    writer.finish().expect("room");
}
