//! Volumes under damage and power cuts. What they have in common.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;
use crate::error::{Error, Result};
use crate::io::{MemoryDisk, Vfs};
use crate::names::MetricId;

mod damage;
mod older;
mod power_cut;
mod supplement;

const FOLDER: &str = "/data/metrics/0";
const NAME: VolumeName = VolumeName { block_start: 1_700_006_400_000_000_000, volume: 1 };
const SPEC: VolumeSpec =
    VolumeSpec { name: NAME, block_size: 7_200_000_000_000, snapshot: None, supplement: None };

/// The same volume, to be written with a supplement.
const NUMBERED_SPEC: VolumeSpec = VolumeSpec {
    supplement: Some(SupplementSpec { database_id: *b"0123456789abcdef", freeze_version: 17 }),
    ..SPEC
};

/// Metrics by ID: encoded tags and stream.
type Metrics = BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)>;

/// This many metrics, with streams of 1 to 9 bytes and some with a tag. `salt` makes volumes differ.
fn metrics(count: u8, salt: u8) -> Metrics {
    let metric = |n: u8| {
        let tags: &[Tag<'_>] = if n.is_multiple_of(5) { &[(b"k", b"v")] } else { &[] };
        let stream = (0..=n % 9).map(|i| n.wrapping_mul(31) ^ i ^ salt).collect();
        (vec![b'a' + n / 26, b'a' + n % 26], (encode_tags(tags).expect("fine"), stream))
    };
    (0..count).map(metric).collect()
}

/// Writes a volume, its metrics in an order that is not that of the IDs.
fn write(disk: &dyn Vfs, spec: VolumeSpec, metrics: &Metrics) -> Result<()> {
    let mut writer = VolumeWriter::create(disk, FOLDER.as_ref(), spec)?;
    for (id, (tags, stream)) in metrics.iter().rev() {
        let metric = MetricStream { id, tags, stream };
        match spec.supplement {
            None => writer.append(metric)?,
            Some(_) => writer.append_numbered(metric, metric_id(id), &statistics(stream))?,
        }
    }
    writer.finish()
}

/// A metric id that is not in the order of the IDs, above 4 and never divisible by 4.
fn metric_id(id: &[u8]) -> MetricId {
    let [.., first, second] = id else { panic!("two letters") };
    let number = 26 * u32::from(first - b'a') + u32::from(second - b'a');
    MetricId(5 + 4 * (number * 37 % 256))
}

/// Made up, as the streams are: no two alike.
fn statistics(stream: &[u8]) -> Statistics {
    Statistics::of_points((0..).zip(stream.iter().map(|byte| f64::from(*byte) / 4.0)))
}

fn disk_with(metrics: &Metrics) -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.create_dir_all(FOLDER.as_ref()).expect("room");
    write(&disk, SPEC, metrics).expect("room");
    disk
}

fn numbered_disk_with(metrics: &Metrics) -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.create_dir_all(FOLDER.as_ref()).expect("room");
    write(&disk, NUMBERED_SPEC, metrics).expect("room");
    disk
}

fn open(disk: &dyn Vfs) -> Result<Volume> {
    Volume::open(disk, FOLDER.as_ref(), NAME)
}

fn path(file: VolumeFile) -> PathBuf {
    Path::new(FOLDER).join(NAME.file_name(file))
}

fn bytes(disk: &dyn Vfs, file: VolumeFile) -> Vec<u8> {
    disk.map(&path(file)).expect("it is there").to_vec()
}

fn put(disk: &dyn Vfs, file: VolumeFile, bytes: &[u8]) {
    disk.remove(&path(file)).expect("it goes");
    disk.create(&path(file)).and_then(|file| file.write_at(0, bytes)).expect("room");
}

/// Makes digests and checkpoint those of the other files.
fn sign(disk: &dyn Vfs) {
    let mut digests = Vec::new();
    for file in &VolumeFile::ALL[..5] {
        digests.extend(simd_adler32::adler32(&&bytes(disk, *file)[..]).to_le_bytes());
    }
    put(disk, VolumeFile::Digest, &digests);
    put(disk, VolumeFile::Checkpoint, &simd_adler32::adler32(&&digests[..]).to_le_bytes());
}

/// Reads all of a volume in each way there is, and compares it with what was written.
fn assert_whole(volume: &Volume, metrics: &Metrics) {
    assert!(volume.verify().is_empty(), "{:?}", volume.verify());
    let read = |entry: Result<Entry<'_>>| {
        let entry = entry.expect("undamaged");
        let stream = volume.stream(&entry).expect("undamaged").to_vec();
        (entry.id().to_vec(), (entry.encoded_tags().to_vec(), stream))
    };
    assert_eq!(volume.entries().map(read).collect::<Metrics>(), *metrics);
    assert_eq!(volume.entries_in_data_order().map(read).collect::<Metrics>(), *metrics);
    for (id, (_, stream)) in metrics {
        assert_eq!(volume.stream_of(id).expect("undamaged"), Some(&stream[..]));
    }
    let Some(supplement) = volume.supplement() else { return };
    assert_eq!(supplement.metrics(), metrics.len() as u64);
    for (id, (_, stream)) in metrics {
        let entry = supplement.find(metric_id(id)).expect("undamaged").expect("it is there");
        assert_eq!(entry.statistics, statistics(stream));
        assert_eq!(supplement.stream_of(metric_id(id)).expect("undamaged"), Some(&stream[..]));
    }
    let ids: Vec<_> = supplement.entries().map(|entry| entry.expect("undamaged").metric).collect();
    assert!(ids.is_sorted() && ids.len() == metrics.len());
}
