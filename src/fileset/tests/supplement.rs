//! The supplement under damage: lookups by metric id are right or an error, and what is read by name does not notice.

use super::*;
use crate::names::MetricId;

/// Two pages of the table, the second with one metric.
const METRICS: u8 = 61;
const PAGE: usize = 4096;
/// Where the head says how many sections there are, how long the file is, and what its sections are.
const SECTIONS_AT: usize = 12;
const FILE_LENGTH_AT: usize = 56;
const DIRECTORY_AT: usize = 96;
const CRC_AT: usize = PAGE - 4;

fn supplement_path() -> PathBuf {
    Path::new(FOLDER).join(NAME.supplement_file_name())
}

fn supplement_bytes(disk: &dyn Vfs) -> Vec<u8> {
    disk.map(&supplement_path()).expect("it is there").to_vec()
}

fn put_supplement(disk: &dyn Vfs, bytes: &[u8]) {
    disk.remove(&supplement_path()).expect("it goes");
    disk.create(&supplement_path()).and_then(|file| file.write_at(0, bytes)).expect("room");
}

/// Makes the head's checksum right.
fn sign_head(bytes: &mut [u8]) {
    let crc = crc32fast::hash(&bytes[..CRC_AT]).to_le_bytes();
    bytes[CRC_AT..PAGE].copy_from_slice(&crc);
}

/// What can be read by metric id; what comes is right, what does not is an error about the supplement.
fn readable(volume: &Volume, metrics: &Metrics, what: &str) -> usize {
    let supplement = volume.supplement().expect("a supplement");
    let is_corrupt = |error: &Error| {
        assert!(
            matches!(error, Error::Corrupt { path, .. } if *path == supplement_path()),
            "{what}: {error}"
        );
    };
    let mut found = 0;
    for (id, (_, stream)) in metrics {
        match supplement.find(metric_id(id)) {
            Ok(Some(entry)) => {
                assert_eq!(entry.statistics, statistics(stream), "{what}");
                assert_eq!(supplement.stream(&entry).expect("undamaged"), stream, "{what}");
                found += 1;
            }
            Ok(None) => panic!("{what}: {id:?} vanished"),
            Err(error) => is_corrupt(&error),
        }
    }
    for absent in [0, 4, 8, u32::MAX] {
        match supplement.find(MetricId(absent)) {
            Ok(entry) => assert_eq!(entry, None, "{what}"),
            Err(error) => is_corrupt(&error),
        }
    }
    let mut sound = 0;
    for entry in supplement.entries() {
        match entry {
            Ok(_) => sound += 1,
            Err(error) => is_corrupt(&error),
        }
    }
    assert_eq!(sound, found, "{what}");
    found
}

/// Opens a volume whose supplement is not as it was written. `None` if it is done without it, else how many metrics can be read.
fn read_damaged(disk: &dyn Vfs, metrics: &Metrics, what: &str) -> Option<usize> {
    let volume = open(disk).expect("the seven files are sound");
    let damage = volume.damage();
    let found = volume.supplement().map(|_| readable(&volume, metrics, what));
    assert_eq!(damage.len(), usize::from(found.is_none()), "{what}: {damage:?}");
    for error in &damage {
        let is_told = matches!(error, Error::Corrupt { path, .. } if *path == supplement_path());
        assert!(is_told, "{what}: {error}");
    }
    found
}

fn assert_by_name_is_whole(disk: &dyn Vfs, metrics: &Metrics) {
    let volume = open(disk).expect("the seven files are sound");
    assert!(!volume.verify().is_empty());
    for (id, (_, stream)) in metrics {
        assert_eq!(volume.stream_of(id).expect("undamaged"), Some(&stream[..]));
    }
}

#[test]
fn every_flipped_bit_of_the_supplement_is_noticed_and_stays_in_its_page() {
    let metrics = metrics(METRICS, 0);
    let disk = numbered_disk_with(&metrics);
    let sound = supplement_bytes(&disk);
    assert_eq!(sound.len(), 3 * PAGE + 2 * 4 + 7 * 16);
    for bit in 0..8 * sound.len() {
        let mut damaged = sound.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        put_supplement(&disk, &damaged);
        let what = format!("bit {bit}");
        let expected = match bit / 8 / PAGE {
            1 => Some(1),
            2 => Some(60),
            _ => None,
        };
        let opened = open(&disk).expect("the seven files are sound");
        assert_eq!(opened.supplement().is_some(), expected.is_some(), "{what}");
        // Reading everything for each bit would take long; each byte's turn comes with another bit.
        if bit % 8 == bit / 8 % 8 {
            assert_eq!(read_damaged(&disk, &metrics, &what), expected, "{what}");
        }
        if bit % 4_001 == 0 {
            assert_by_name_is_whole(&disk, &metrics);
        }
    }
}

#[test]
fn every_cut_of_the_supplement_is_noticed() {
    let metrics = metrics(METRICS, 0);
    let disk = numbered_disk_with(&metrics);
    let sound = supplement_bytes(&disk);
    for len in (0..sound.len()).chain([sound.len() + 1, sound.len() + PAGE]) {
        let mut damaged = sound.clone();
        damaged.resize(len, 0);
        put_supplement(&disk, &damaged);
        assert_eq!(read_damaged(&disk, &metrics, &format!("{len} bytes")), None);
    }
    assert_by_name_is_whole(&disk, &metrics);
}

#[test]
fn every_number_of_the_supplement_set_to_ff_is_noticed() {
    let metrics = metrics(METRICS, 0);
    let disk = numbered_disk_with(&metrics);
    let sound = supplement_bytes(&disk);
    let mut readable = 0;
    for (at, width) in (0..sound.len()).step_by(4).flat_map(|at| [4, 8].map(|width| (at, width))) {
        let mut damaged = sound.clone();
        damaged[at..].iter_mut().take(width).for_each(|byte| *byte = 0xff);
        put_supplement(&disk, &damaged);
        readable += read_damaged(&disk, &metrics, &format!("{width} bytes at {at}")).unwrap_or(0);
        // With right checksums the head's numbers are believed as far as the file bears them out.
        if at < CRC_AT {
            sign_head(&mut damaged);
            put_supplement(&disk, &damaged);
            let volume = open(&disk).expect("the seven files are sound");
            let _ = (volume.verify(), volume.supplement().map(|supplement| supplement.entries().count()));
        }
    }
    assert!(readable > 0);
}

#[test]
fn missing_supplement_is_no_damage() {
    let metrics = metrics(METRICS, 0);
    let disk = numbered_disk_with(&metrics);
    disk.remove(&supplement_path()).expect("it goes");
    let volume = open(&disk).expect("a volume");
    assert!(volume.supplement().is_none() && volume.damage().is_empty());
    assert_whole(&volume, &metrics);
}

#[test]
fn supplement_of_another_volume_is_refused() {
    let metrics = metrics(METRICS, 0);
    let disk = numbered_disk_with(&metrics);
    let other = numbered_disk_with(&super::metrics(METRICS, 1));
    put_supplement(&disk, &supplement_bytes(&other));
    assert_eq!(read_damaged(&disk, &metrics, "other streams"), None);
    let renamed = VolumeName { volume: 2, ..NAME };
    let other = MemoryDisk::new();
    other.create_dir_all(FOLDER.as_ref()).expect("room");
    write(&other, VolumeSpec { name: renamed, ..NUMBERED_SPEC }, &metrics).expect("room");
    let path = Path::new(FOLDER).join(renamed.supplement_file_name());
    put_supplement(&disk, &other.map(&path).expect("it is there"));
    assert_eq!(read_damaged(&disk, &metrics, "another volume of the block"), None);
    assert_by_name_is_whole(&disk, &metrics);
}

#[test]
fn pages_that_change_places_are_noticed() {
    let metrics = metrics(2 * 60, 0);
    let disk = numbered_disk_with(&metrics);
    let mut bytes = supplement_bytes(&disk);
    bytes[PAGE..3 * PAGE].rotate_left(PAGE);
    put_supplement(&disk, &bytes);
    assert_eq!(read_damaged(&disk, &metrics, "swapped"), Some(0));
}

#[test]
fn sections_of_unknown_kinds_are_passed_over_and_their_checksums_verified() {
    let metrics = metrics(METRICS, 0);
    let disk = numbered_disk_with(&metrics);
    let mut bytes = supplement_bytes(&disk);
    let len = bytes.len() as u64;
    bytes.extend(b"of a later version");
    bytes[SECTIONS_AT] += 1;
    bytes[FILE_LENGTH_AT..FILE_LENGTH_AT + 8].copy_from_slice(&(len + 18).to_le_bytes());
    let crc = crc32fast::hash(b"of a later version");
    let section = [&99_u32.to_le_bytes()[..], &crc.to_le_bytes(), &len.to_le_bytes(), &18_u64.to_le_bytes()];
    bytes[DIRECTORY_AT + 3 * 32..][..24].copy_from_slice(&section.concat());
    sign_head(&mut bytes);
    put_supplement(&disk, &bytes);
    let volume = open(&disk).expect("a volume");
    assert_eq!(readable(&volume, &metrics, "a fourth section"), usize::from(METRICS));
    assert_whole(&volume, &metrics);
    *bytes.last_mut().expect("not empty") ^= 1;
    put_supplement(&disk, &bytes);
    let errors = open(&disk).expect("a volume").verify();
    assert!(matches!(errors[..], [Error::Corrupt { offset, .. }] if offset == len), "{errors:?}");
}

#[test]
fn newer_supplement_is_done_without() {
    let metrics = metrics(METRICS, 0);
    let disk = numbered_disk_with(&metrics);
    let mut bytes = supplement_bytes(&disk);
    bytes[8] = 2;
    sign_head(&mut bytes);
    put_supplement(&disk, &bytes);
    let volume = open(&disk).expect("a volume");
    assert!(volume.supplement().is_none());
    assert!(matches!(volume.damage()[..], [Error::NewerFormat { found: 2, supported: 1, .. }]));
    assert_eq!(volume.stream_of(b"ab").expect("undamaged").map(<[u8]>::len), Some(2));
    let spec = read_supplement_spec(&disk, FOLDER.as_ref(), NAME);
    assert!(matches!(spec, Err(Error::NewerFormat { .. })));
}

#[test]
fn damage_that_adler_misses_is_told_by_the_supplement() {
    let metrics = metrics(METRICS, 0);
    let disk = numbered_disk_with(&metrics);
    // Three bytes of the bloom filter changed so that both of Adler's sums stay as they are.
    let mut bloom = bytes(&disk, VolumeFile::BloomFilter);
    let at = (0..bloom.len() - 2)
        .find(|at| matches!(bloom[*at..*at + 3], [a, b, c] if a < 255 && b > 1 && c < 255))
        .expect("a place");
    bloom[at] += 1;
    bloom[at + 1] -= 2;
    bloom[at + 2] += 1;
    put(&disk, VolumeFile::BloomFilter, &bloom);
    let volume = open(&disk).expect("Adler does not see it");
    assert!(volume.damage().is_empty());
    let told = |error: &Error| {
        matches!(error, Error::Corrupt { path: at, reason, .. }
        if *at == path(VolumeFile::BloomFilter) && reason.contains("CRC-32"))
    };
    assert!(volume.verify().iter().any(told), "{:?}", volume.verify());
}

#[test]
fn streams_are_read_by_metric_id_where_the_index_is_damaged() {
    let metrics = metrics(METRICS, 0);
    let disk = numbered_disk_with(&metrics);
    let mut index = bytes(&disk, VolumeFile::Index);
    index.truncate(3);
    put(&disk, VolumeFile::Index, &index);
    let volume = open(&disk).expect("the index is checked as it is read");
    assert!(volume.stream_of(b"ab").is_err());
    assert_eq!(readable(&volume, &metrics, "no index"), usize::from(METRICS));
}

#[test]
fn salvaged_volume_has_its_supplement() {
    let metrics = metrics(METRICS, 0);
    for file in [VolumeFile::Checkpoint, VolumeFile::Digest, VolumeFile::Info] {
        let disk = numbered_disk_with(&metrics);
        disk.remove(&path(file)).expect("it goes");
        let volume = Volume::salvage(&disk, FOLDER.as_ref(), NAME).expect("it has an index and data");
        assert_eq!(readable(&volume, &metrics, &format!("without {file:?}")), usize::from(METRICS));
        // With nothing to tell whose it is, it is not used.
        disk.remove(&path(VolumeFile::Digest)).expect("it goes");
        let mut data = bytes(&disk, VolumeFile::Data);
        data[0] ^= 1;
        put(&disk, VolumeFile::Data, &data);
        let volume = Volume::salvage(&disk, FOLDER.as_ref(), NAME).expect("it has an index and data");
        assert!(volume.supplement().is_none(), "without {file:?}");
    }
}

#[test]
fn damaged_stream_fails_by_metric_id_too_and_keeps_its_statistics() {
    let metrics = metrics(METRICS, 0);
    let disk = numbered_disk_with(&metrics);
    let sound = bytes(&disk, VolumeFile::Data);
    for at in 0..sound.len() {
        let mut data = sound.clone();
        data[at] ^= 0x10;
        put(&disk, VolumeFile::Data, &data);
        let volume = open(&disk).expect("a volume");
        let supplement = volume.supplement().expect("a supplement");
        let mut lost = 0;
        for (id, (_, stream)) in &metrics {
            let entry = supplement.find(metric_id(id)).expect("undamaged").expect("it is there");
            assert_eq!(entry.statistics, statistics(stream));
            match supplement.stream(&entry) {
                Ok(found) => assert_eq!(found, stream),
                Err(Error::Corrupt { path: damaged, offset, .. }) => {
                    assert_eq!((damaged, offset), (path(VolumeFile::Data), entry.offset));
                    lost += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(lost, 1, "byte {at}");
    }
}

#[test]
fn index_with_other_streams_than_the_table_is_told() {
    let metrics = metrics(METRICS, 0);
    let disk = numbered_disk_with(&metrics);
    let volume = open(&disk).expect("a volume");
    let supplement = volume.supplement().expect("a supplement");
    let streams = || volume.entries_in_data_order().flatten().map(|entry| (entry.offset(), entry.size()));
    assert!(supplement.misfit(streams()).is_none());
    assert!(supplement.misfit(streams().skip(1)).is_some());
    assert!(supplement.misfit(streams().map(|(offset, size)| (offset, size + 1))).is_some());
}

#[test]
fn supplement_of_no_metrics_is_sound() {
    let disk = numbered_disk_with(&Metrics::new());
    let volume = open(&disk).expect("a volume");
    assert!(volume.verify().is_empty(), "{:?}", volume.verify());
    let supplement = volume.supplement().expect("a supplement");
    assert_eq!((supplement.metrics(), supplement.entries().count()), (0, 0));
    assert_eq!(supplement.find(MetricId(0)).expect("undamaged"), None);
}
