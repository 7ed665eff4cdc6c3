//! The supplement through the public API: what is written is read, mistakes are refused, and the format stays as it is.

use std::path::Path;

use chronolith::fileset::{
    MetricStream, SortedVolumeWriter, Statistics, SupplementSpec, Volume, VolumeFile, VolumeFolder,
    VolumeName, VolumeSpec, VolumeWriter, read_supplement_spec, remove_volume,
};
use chronolith::io::{MemoryDisk, Vfs};
use chronolith::m3tsz::{Encoder, EncoderOptions, ValueCoding};
use chronolith::{Error, MetricId};

const FOLDER: &str = "/data/metrics/0";
const NAME: VolumeName = VolumeName { block_start: 1_700_006_400_000_000_000, volume: 3 };
const SUPPLEMENT: SupplementSpec = SupplementSpec { database_id: *b"0123456789abcdef", freeze_version: 42 };
const SPEC: VolumeSpec =
    VolumeSpec { name: NAME, block_size: 7_200_000_000_000, snapshot: None, supplement: Some(SUPPLEMENT) };
const GOLDEN: &[u8] = include_bytes!("golden/supplement-v1.bin");

struct Input {
    id: String,
    metric: MetricId,
    stream: Vec<u8>,
    statistics: Statistics,
}

impl Input {
    fn metric_stream(&self) -> MetricStream<'_> {
        MetricStream { id: self.id.as_bytes(), tags: b"", stream: &self.stream }
    }
}

/// The volume of the golden file: 61 metrics, 3, 13, .. 603, whose IDs descend as their metric ids ascend. The bytes of the streams mean nothing.
fn inputs() -> Vec<Input> {
    let input = |n: u32| {
        let values: &[f64] = match n {
            0 => &[],
            1 => &[f64::NAN],
            2 => &[-0.0, 0.0],
            3 => &[f64::INFINITY, f64::NEG_INFINITY],
            _ => &[0.5, f64::from(n), f64::NAN, -1.25],
        };
        let start = NAME.block_start + i64::from(n);
        Input {
            id: format!("metric-{:02}", 99 - n),
            metric: MetricId::from(10 * n + 3),
            stream: format!("stream of {n}").into_bytes(),
            statistics: Statistics::of_points((0..).map(|i| start + 1_000 * i).zip(values.iter().copied())),
        }
    };
    (0..61).map(input).collect()
}

fn disk() -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.create_dir_all(FOLDER.as_ref()).expect("room");
    disk
}

fn write(disk: &MemoryDisk, inputs: &[Input]) -> chronolith::Result<()> {
    let mut writer = VolumeWriter::create(disk, FOLDER.as_ref(), SPEC)?;
    for input in inputs {
        writer.append_numbered(input.metric_stream(), input.metric, &input.statistics)?;
    }
    writer.finish()
}

fn open(disk: &MemoryDisk) -> Volume {
    Volume::open(disk, FOLDER.as_ref(), NAME).expect("a volume")
}

fn supplement_bytes(disk: &MemoryDisk) -> Vec<u8> {
    disk.map(&Path::new(FOLDER).join(NAME.supplement_file_name())).expect("it is there").to_vec()
}

fn assert_holds(volume: &Volume, inputs: &[Input]) {
    assert!(volume.verify().is_empty(), "{:?}", volume.verify());
    let supplement = volume.supplement().expect("a supplement");
    assert_eq!((supplement.spec(), supplement.metrics()), (SUPPLEMENT, inputs.len() as u64));
    for input in inputs {
        let entry = supplement.find(input.metric).expect("undamaged").expect("it is there");
        assert_eq!((entry.metric, entry.statistics), (input.metric, input.statistics));
        assert_eq!(supplement.stream_of(input.metric).expect("undamaged"), Some(&input.stream[..]));
        let by_name = volume.find(input.id.as_bytes()).expect("undamaged").expect("it is there");
        assert_eq!((by_name.offset(), by_name.size()), (entry.offset, entry.size));
    }
    let listed: Vec<_> = supplement.entries().map(|entry| entry.expect("undamaged").metric).collect();
    let mut expected: Vec<_> = inputs.iter().map(|input| input.metric).collect();
    expected.sort();
    assert_eq!(listed, expected);
    for absent in [0, 2, 4, 12, 604, u32::MAX].map(MetricId::from) {
        assert_eq!(supplement.stream_of(absent).expect("undamaged"), None, "{absent:?}");
    }
}

#[test]
fn golden_supplement_is_written_and_read() {
    let disk = disk();
    write(&disk, &inputs()).expect("room");
    assert!(supplement_bytes(&disk) == GOLDEN);
    assert_holds(&open(&disk), &inputs());
}

#[test]
fn example_of_the_format_page_is_the_golden_file() {
    let page = include_str!("../design/supplement.md");
    let example =
        page.split("```hex\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let mut bytes = 0;
    for line in example.lines() {
        let (at, rest) = line.split_once(' ').expect("an offset");
        let at = usize::from_str_radix(at, 16).expect("an offset");
        let digits = rest.split("   ").next().expect("bytes");
        for (i, digits) in digits.split(' ').enumerate() {
            assert_eq!(u8::from_str_radix(digits, 16), Ok(GOLDEN[at + i]), "{line}");
            bytes += 1;
        }
    }
    assert!(bytes > 200);
}

#[test]
fn m3s_files_are_the_same_with_and_without() {
    let (with, without) = (disk(), disk());
    write(&with, &inputs()).expect("room");
    let mut writer = VolumeWriter::create(&without, FOLDER.as_ref(), VolumeSpec { supplement: None, ..SPEC })
        .expect("room");
    for input in inputs() {
        writer.append(input.metric_stream()).expect("room");
    }
    writer.finish().expect("room");
    for file in VolumeFile::ALL {
        let path = Path::new(FOLDER).join(NAME.file_name(file));
        assert!(with.map(&path).expect("it is there")[..] == without.map(&path).expect("it is there")[..]);
    }
    let volume = open(&without);
    assert!(volume.supplement().is_none() && volume.damage().is_empty() && volume.verify().is_empty());
    assert_eq!(read_supplement_spec(&without, FOLDER.as_ref(), NAME).expect("no file"), None);
    assert_eq!(read_supplement_spec(&with, FOLDER.as_ref(), NAME).expect("a file"), Some(SUPPLEMENT));
}

#[test]
fn sorted_writer_takes_metric_ids_in_any_order() {
    let disk = disk();
    let mut inputs = inputs();
    inputs.sort_by(|a, b| a.id.cmp(&b.id));
    let planned = inputs.len() as u32;
    let mut writer = SortedVolumeWriter::create(&disk, FOLDER.as_ref(), SPEC, planned).expect("room");
    for input in &inputs {
        writer.append_numbered(input.metric_stream(), input.metric, &input.statistics).expect("room");
    }
    writer.finish().expect("room");
    assert_holds(&open(&disk), &inputs);
}

#[test]
fn every_count_of_metrics_makes_a_sound_table() {
    for count in [0, 1, 59, 60, 61] {
        let disk = disk();
        let inputs = &inputs()[..count];
        write(&disk, inputs).expect("room");
        assert_holds(&open(&disk), inputs);
    }
}

#[test]
fn metrics_without_streams_are_left_out() {
    let disk = disk();
    let mut writer = VolumeWriter::create(&disk, FOLDER.as_ref(), SPEC).expect("room");
    let empty = MetricStream { id: b"empty", tags: b"", stream: b"" };
    writer.append(empty).expect("left out");
    writer.append_numbered(empty, MetricId::from(7), &Statistics::default()).expect("left out");
    writer.finish().expect("room");
    assert_holds(&open(&disk), &[]);
}

#[test]
fn mistakes_of_the_caller_are_refused_and_leave_no_volume() {
    let inputs = inputs();
    let [one, other, ..] = &inputs[..] else { panic!("61 of them") };
    let none = VolumeSpec { supplement: None, ..SPEC };
    let disk = disk();
    let mut writer = VolumeWriter::create(&disk, FOLDER.as_ref(), SPEC).expect("room");
    assert!(matches!(writer.append(one.metric_stream()), Err(Error::UnfitForVolume { .. })));
    // What was refused is not in it.
    writer.append_numbered(one.metric_stream(), one.metric, &one.statistics).expect("room");
    writer.append_numbered(other.metric_stream(), one.metric, &other.statistics).expect("found later");
    let refused = writer.finish();
    assert!(
        matches!(&refused, Err(Error::UnfitForVolume { id, .. }) if id == "with MetricId 3"),
        "{refused:?}"
    );
    let mut writer = SortedVolumeWriter::create(&disk, FOLDER.as_ref(), none, 1).expect("room");
    let refused = writer.append_numbered(one.metric_stream(), one.metric, &one.statistics);
    assert!(matches!(refused, Err(Error::UnfitForVolume { .. })));
    drop(writer);
    assert!(VolumeFolder::list(&disk, FOLDER.as_ref()).expect("a folder").complete.is_empty());
    remove_volume(&disk, FOLDER.as_ref(), NAME).expect("it goes");
    assert_eq!(disk.read_dir(FOLDER.as_ref()).expect("a folder").expect("a folder").len(), 0);
}

#[test]
fn volume_is_opened_by_the_path_of_any_of_its_files() {
    let disk = disk();
    write(&disk, &inputs()).expect("room");
    for file_name in disk.read_dir(FOLDER.as_ref()).expect("a folder").expect("a folder") {
        let path = Path::new(FOLDER).join(file_name);
        let volume = Volume::open_at(&disk, &path).expect("a volume");
        assert_eq!((volume.name(), VolumeName::of_file(&path)), (NAME, Some(NAME)));
        assert!(volume.supplement().is_some());
    }
    for path in ["/data/metrics/0", "/data/metrics/0/notes.txt", "/", ""] {
        let error = Volume::open_at(&disk, path).expect_err("no volume's file");
        assert_eq!(error.io_kind(), Some(std::io::ErrorKind::InvalidInput), "{path}");
    }
    let absent = Volume::open_at(&disk, "/data/metrics/0/fileset-0-0-data.db");
    assert!(matches!(absent, Err(Error::Corrupt { .. })));
}

#[test]
fn aggregates_are_answered_without_streams() {
    let start = NAME.block_start;
    let mut encoder = Encoder::new(start, EncoderOptions::default());
    for i in 0..480 {
        encoder.append(start + i * 15_000_000_000, (i % 97) as f64 / 8.0, b"").expect("ascending times");
    }
    let mut stream = Vec::new();
    encoder.finish_into(&mut stream);
    let statistics = Statistics::of_stream(&stream, ValueCoding::IntOptimized).expect("sound");
    let disk = disk();
    let mut writer = VolumeWriter::create(&disk, FOLDER.as_ref(), SPEC).expect("room");
    let metric = MetricStream { id: b"cpu", tags: b"", stream: &stream };
    writer.append_numbered(metric, MetricId::from(9), &statistics).expect("room");
    writer.finish().expect("room");
    let volume = open(&disk);
    let supplement = volume.supplement().expect("a supplement");
    let found = supplement.find(MetricId::from(9)).expect("undamaged").expect("it is there").statistics;
    let numbers = found.numbers().expect("480 of them");
    let sum: f64 = (0..480).map(|i| f64::from(i % 97) / 8.0).sum();
    assert_eq!((found.points(), found.first(), found.last()), (480, start, start + 479 * 15_000_000_000));
    assert_eq!((numbers.count, numbers.min, numbers.max, numbers.sum), (480, 0.0, 12.0, sum));
}

#[test]
fn statistics_of_other_points_are_found_when_asked_for() {
    let start = NAME.block_start;
    let mut encoder = Encoder::new(start, EncoderOptions::default());
    encoder.append_all(&[start, start + 1_000_000_000], &[1.0, 2.0]).expect("ascending times");
    let mut stream = Vec::new();
    encoder.finish_into(&mut stream);
    for (values, errors) in [([1.0, 2.0], 0), ([1.0, 3.0], 1)] {
        let disk = disk();
        let mut writer = VolumeWriter::create(&disk, FOLDER.as_ref(), SPEC).expect("room");
        let metric = MetricStream { id: b"cpu", tags: b"", stream: &stream };
        let statistics = Statistics::of_points([start, start + 1_000_000_000].into_iter().zip(values));
        writer.append_numbered(metric, MetricId::from(9), &statistics).expect("room");
        writer.finish().expect("room");
        let volume = open(&disk);
        assert!(volume.verify().is_empty(), "it does not decode");
        let found = volume.supplement().expect("a supplement").verify_statistics(ValueCoding::IntOptimized);
        assert_eq!(found.len(), errors);
        assert!(found.iter().all(|error| error.to_string().contains("metric number 9: the statistics")));
    }
}
