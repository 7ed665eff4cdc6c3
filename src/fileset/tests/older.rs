//! Volumes as M3 wrote them before index entries had checksums.

use super::*;
use crate::fileset::msgpack::Reader;
use crate::fileset::record::{EntryRecord, SummaryRecord};

/// The number of fields is in the fourth byte of each record: an array of up to 15.
const FIELDS_AT: usize = 3;

/// Rewrites a volume without what newer formats added: checksums of entries, and the info file's last fields.
fn disk_with_older(metrics: &Metrics) -> MemoryDisk {
    let disk = disk_with(metrics);
    let newer = bytes(&disk, VolumeFile::Index);
    let (mut index, mut summaries) = (Vec::new(), Vec::new());
    let mut reader = Reader::new(&newer, 0);
    for number in 0_u64.. {
        if reader.is_at_end() {
            break;
        }
        let record = EntryRecord::decode(&mut reader, true).expect("undamaged");
        let index_offset = index.len() as u64;
        if number.is_multiple_of(33) {
            SummaryRecord { ordinal: record.ordinal, id: record.id, index_offset }
                .encode_into(&mut summaries);
        }
        let mut entry = Vec::new();
        record.encode_into(&mut entry);
        let checksum = simd_adler32::adler32(&&entry[..entry.len() - 5]);
        assert_eq!(entry[entry.len() - 4..], checksum.to_be_bytes(), "its last field, of 32 bits");
        entry.truncate(entry.len() - 5);
        entry[FIELDS_AT] -= 1;
        index.extend(entry);
    }
    let mut info = bytes(&disk, VolumeFile::Info);
    assert_eq!(info.pop(), Some(1), "the minor version");
    info[FIELDS_AT] -= 1;
    put(&disk, VolumeFile::Index, &index);
    put(&disk, VolumeFile::Summaries, &summaries);
    put(&disk, VolumeFile::Info, &info);
    sign(&disk);
    disk
}

#[test]
fn older_volume_is_read() {
    let metrics = metrics(70, 0);
    let disk = disk_with_older(&metrics);
    let volume = open(&disk).expect("a volume");
    assert!(!volume.info().expect("it was checked").checksums_entries);
    assert_whole(&volume, &metrics);
}

#[test]
fn every_flipped_bit_of_its_index_is_noticed_when_it_is_opened() {
    let disk = disk_with_older(&metrics(70, 0));
    let sound = bytes(&disk, VolumeFile::Index);
    for bit in 0..8 * sound.len() {
        let mut damaged = sound.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        put(&disk, VolumeFile::Index, &damaged);
        let opened = open(&disk);
        assert!(matches!(opened, Err(Error::Corrupt { path: at, .. }) if at == path(VolumeFile::Index)));
    }
}
