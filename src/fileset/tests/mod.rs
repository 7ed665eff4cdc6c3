//! Volumes under damage and power cuts. What they have in common.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;
use crate::error::{Error, Result};
use crate::io::{MemoryDisk, Vfs};

mod damage;
mod older;
mod power_cut;

const FOLDER: &str = "/data/metrics/0";
const NAME: VolumeName = VolumeName { block_start: 1_700_006_400_000_000_000, volume: 1 };
const SPEC: VolumeSpec = VolumeSpec { name: NAME, block_size: 7_200_000_000_000, snapshot: None };

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
        writer.append(MetricStream { id, tags, stream })?;
    }
    writer.finish()
}

fn disk_with(metrics: &Metrics) -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.create_dir_all(FOLDER.as_ref()).expect("room");
    write(&disk, SPEC, metrics).expect("room");
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
}
