//! The records of the info, index and summaries files.
//!
//! Each begins with a format version and an array of two: what it is, and its fields. A newer writer may have added fields, which are
//! skipped; an index entry's checksum stays the last one and covers everything before it.

use super::bloom_filter::BloomShape;
use super::damage::Damage;
use super::msgpack::{Reader, put_array, put_bytes, put_bytes_or_nil, put_int, put_uint};

const VERSION: u64 = 1;
const ROOT_VALUES: u8 = 2;
const MAJOR_VERSION: u64 = 1;
/// From this one on each index entry has a checksum.
const MINOR_VERSION: u64 = 1;
/// M3 writes this for all volumes, snapshots included.
const FILE_TYPE: u64 = 0;

const INFO_FIELDS_MIN: u64 = 6;
const INFO_FIELDS: u8 = 11;
const ENTRY_FIELDS_MIN: u64 = 5;
const ENTRY_FIELDS: u8 = 7;
const SUMMARY_FIELDS: u8 = 3;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Info = 2,
    Entry = 5,
    Summary = 6,
}

/// What the info file says of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// The start of the block in nanoseconds since the Unix epoch.
    pub block_start: i64,
    /// The length of the block in nanoseconds.
    pub block_size: i64,
    /// The number of entries in the index.
    pub entries: u64,
    /// The number of entries in the summaries.
    pub summaries: u64,
    /// The shape of the bloom filter.
    pub bloom: BloomShape,
    /// Which snapshot the volume belongs to, if it is one of those.
    pub snapshot: Option<SnapshotMark>,
    /// The volume's number in its block.
    pub volume: u32,
    /// Whether each entry of the index has a checksum of its own. Old volumes lack them.
    pub checksums_entries: bool,
}

/// What makes a volume part of a snapshot (of M3's: a copy of what was in memory, for a restart).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotMark {
    /// When the snapshot was made, in nanoseconds since the Unix epoch.
    pub time: i64,
    /// The snapshot's UUID.
    pub id: [u8; 16],
}

/// An entry of the index, as bytes of the index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryRecord<'a> {
    pub(super) ordinal: u64,
    pub(super) id: &'a [u8],
    pub(super) size: u32,
    pub(super) offset: u64,
    pub(super) checksum: u32,
    pub(super) tags: &'a [u8],
}

/// An entry of the summaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SummaryRecord<'a> {
    pub(super) ordinal: u64,
    pub(super) id: &'a [u8],
    pub(super) index_offset: u64,
}

impl VolumeInfo {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_head(&mut out, Kind::Info, INFO_FIELDS);
        put_int(&mut out, self.block_start);
        put_int(&mut out, self.block_size);
        put_uint(&mut out, self.entries);
        put_uint(&mut out, MAJOR_VERSION);
        put_array(&mut out, 1);
        put_uint(&mut out, self.summaries);
        put_array(&mut out, 2);
        put_uint(&mut out, self.bloom.bits);
        put_uint(&mut out, self.bloom.hashes);
        put_int(&mut out, self.snapshot.map_or(0, |snapshot| snapshot.time));
        put_uint(&mut out, FILE_TYPE);
        put_bytes_or_nil(&mut out, self.snapshot.as_ref().map_or(&[], |snapshot| &snapshot.id));
        put_uint(&mut out, self.volume.into());
        put_uint(&mut out, MINOR_VERSION);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut reader = Reader::new(bytes, 0);
        let head = Head::read(&mut reader, Kind::Info, INFO_FIELDS_MIN)?;
        let block_start = reader.int()?;
        let block_size = reader.int()?;
        let entries = reader.uint()?;
        let major = reader.uint()?;
        let [summaries] = read_numbers(&mut reader)?;
        let [bits, hashes] = read_numbers(&mut reader)?;
        let time = if head.fields > 6 { reader.int()? } else { 0 };
        if head.fields > 7 {
            reader.skip(1)?;
        }
        let id_at = reader.at();
        let id = if head.fields > 8 { reader.bytes()? } else { &[] };
        let id = match id {
            [] => None,
            id => Some(id.try_into().map_err(|_| Damage::at(id_at, "the snapshot's id is no UUID"))?),
        };
        let volume = if head.fields > 9 { reader.uint32()? } else { 0 };
        let minor = if head.fields > 10 { reader.uint()? } else { 0 };
        head.skip_rest(&mut reader, INFO_FIELDS.into())?;
        Ok(VolumeInfo {
            block_start,
            block_size,
            entries,
            summaries,
            bloom: BloomShape { bits, hashes },
            snapshot: id.map(|id| SnapshotMark { time, id }),
            volume,
            checksums_entries: major > MAJOR_VERSION || minor >= MINOR_VERSION,
        })
    }
}

impl<'a> EntryRecord<'a> {
    /// Appends the entry.
    pub(super) fn encode_into(&self, out: &mut Vec<u8>) {
        let start = out.len();
        put_head(out, Kind::Entry, ENTRY_FIELDS);
        put_uint(out, self.ordinal);
        put_bytes(out, self.id);
        put_uint(out, self.size.into());
        put_uint(out, self.offset);
        put_uint(out, self.checksum.into());
        put_bytes_or_nil(out, self.tags);
        let checksum = simd_adler32::adler32(&&out[start..]);
        put_uint(out, checksum.into());
    }

    /// Reads an entry, which has to have a checksum if `checksummed`.
    pub(super) fn decode(reader: &mut Reader<'a>, checksummed: bool) -> Result<Self, Damage> {
        let start = reader.at();
        let head = Head::read(reader, Kind::Entry, ENTRY_FIELDS_MIN)?;
        let ordinal = reader.uint()?;
        let id = reader.bytes()?;
        let size = reader.uint32()?;
        let offset = reader.uint()?;
        let checksum = reader.uint32()?;
        let tags = if head.fields > 5 { reader.bytes()? } else { &[] };
        if head.fields >= ENTRY_FIELDS.into() {
            reader.skip(head.fields - u64::from(ENTRY_FIELDS))?;
            let actual = simd_adler32::adler32(&reader.since(start));
            if reader.uint32()? != actual {
                return Err(Damage::at(start, "the entry's checksum differs"));
            }
        } else if checksummed {
            return Err(Damage::at(start, "the entry has no checksum"));
        }
        reader.skip(head.beside)?;
        Ok(EntryRecord { ordinal, id, size, offset, checksum, tags })
    }
}

impl<'a> SummaryRecord<'a> {
    /// Appends the entry.
    pub(super) fn encode_into(&self, out: &mut Vec<u8>) {
        put_head(out, Kind::Summary, SUMMARY_FIELDS);
        put_uint(out, self.ordinal);
        put_bytes(out, self.id);
        put_uint(out, self.index_offset);
    }

    /// Reads an entry.
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, Damage> {
        let head = Head::read(reader, Kind::Summary, SUMMARY_FIELDS.into())?;
        let record =
            SummaryRecord { ordinal: reader.uint()?, id: reader.bytes()?, index_offset: reader.uint()? };
        head.skip_rest(reader, SUMMARY_FIELDS.into())?;
        Ok(record)
    }
}

fn put_head(out: &mut Vec<u8>, kind: Kind, fields: u8) {
    put_uint(out, VERSION);
    put_array(out, ROOT_VALUES);
    put_uint(out, kind as u64);
    put_array(out, fields);
}

/// How much more there is in a record than is known here.
struct Head {
    fields: u64,
    /// Values behind the array of fields.
    beside: u64,
}

impl Head {
    fn read(reader: &mut Reader<'_>, kind: Kind, fields_min: u64) -> Result<Self, Damage> {
        let start = reader.at();
        if reader.uint()? > VERSION {
            return Err(Damage::at(start, "a record of a version that is not known"));
        }
        let Some(beside) = reader.array()?.checked_sub(ROOT_VALUES.into()) else {
            return Err(Damage::at(start, "a record without its parts"));
        };
        if reader.uint()? != kind as u64 {
            return Err(Damage::at(start, "a record of another kind"));
        }
        let fields = reader.array()?;
        if fields < fields_min {
            return Err(Damage::at(start, "a record with too few fields"));
        }
        Ok(Head { fields, beside })
    }

    /// Skips what follows the `known` fields.
    fn skip_rest(self, reader: &mut Reader<'_>, known: u64) -> Result<(), Damage> {
        reader.skip(self.fields.saturating_sub(known).saturating_add(self.beside))
    }
}

/// An array of at least `N` numbers.
fn read_numbers<const N: usize>(reader: &mut Reader<'_>) -> Result<[u64; N], Damage> {
    let at = reader.at();
    let Some(more) = reader.array()?.checked_sub(N as u64) else {
        return Err(Damage::at(at, "a record with too few fields"));
    };
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = reader.uint()?;
    }
    reader.skip(more)?;
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: EntryRecord<'_> = EntryRecord {
        ordinal: 300,
        id: b"cpu",
        size: 17,
        offset: 1 << 33,
        checksum: 0xdead_beef,
        tags: b"\x75\x27\x00\x00",
    };

    fn info() -> VolumeInfo {
        VolumeInfo {
            block_start: 1_700_006_400_000_000_000,
            block_size: 7_200_000_000_000,
            entries: 41,
            summaries: 2,
            bloom: BloomShape { bits: 334, hashes: 6 },
            snapshot: None,
            volume: 1,
            checksums_entries: true,
        }
    }

    #[test]
    fn info_is_m3s_bytes() {
        let bytes = [
            b"\x01\x92\x02\x9b\xcf\x17\x97\xa2\xd0\x53\xe4\x00\x00\xcf\x00\x00\x06\x8c\x61\x71\x40\x00\x29\x01".as_slice(),
            b"\x91\x02\x92\xcd\x01\x4e\x06\x00\x00\xc0\x01\x01",
        ]
        .concat();
        assert_eq!(info().encode(), bytes);
        assert_eq!(VolumeInfo::decode(&bytes), Ok(info()));
        let snapshot = VolumeInfo { snapshot: Some(SnapshotMark { time: -5, id: [7; 16] }), ..info() };
        assert_eq!(VolumeInfo::decode(&snapshot.encode()), Ok(snapshot));
    }

    #[test]
    fn older_and_newer_infos_are_read() {
        let mut bytes = info().encode();
        // Without the fields that came later: snapshot time, file type, snapshot id, volume, minor version.
        for fields in (6..=10).rev() {
            bytes.pop();
            bytes[3] = 0x90 | fields;
            let volume = if fields > 9 { 1 } else { 0 };
            let older = VolumeInfo { volume, checksums_entries: false, ..info() };
            assert_eq!(VolumeInfo::decode(&bytes), Ok(older), "{fields} fields");
        }
        bytes[3] = 0x95;
        assert_eq!(VolumeInfo::decode(&bytes), Err(Damage::at(0, "a record with too few fields")));
        let mut bytes = info().encode();
        bytes[1] = 0x93;
        bytes[3] = 0x9d;
        bytes.extend(b"\xa1x\xc0\x05");
        assert_eq!(VolumeInfo::decode(&bytes), Ok(info()), "two more fields, and a value behind them");
        bytes[0] = 2;
        assert!(VolumeInfo::decode(&bytes).is_err());
    }

    #[test]
    fn entries_are_written_and_read() {
        let mut bytes = vec![0xff; 3];
        ENTRY.encode_into(&mut bytes);
        let mut reader = Reader::new(&bytes, 3);
        assert_eq!(EntryRecord::decode(&mut reader, true), Ok(ENTRY));
        assert!(reader.is_at_end());
        let summary = SummaryRecord { ordinal: 7, id: b"", index_offset: 70_000 };
        let mut bytes = Vec::new();
        summary.encode_into(&mut bytes);
        assert_eq!(bytes, b"\x01\x92\x06\x93\x07\xc4\x00\xce\x00\x01\x11\x70");
        assert_eq!(SummaryRecord::decode(&mut Reader::new(&bytes, 0)), Ok(summary));
    }

    #[test]
    fn every_flipped_bit_of_an_entry_is_noticed() {
        let mut bytes = Vec::new();
        ENTRY.encode_into(&mut bytes);
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // What follows is another entry: a longer one would read into it.
            ENTRY.encode_into(&mut bytes);
            assert!(EntryRecord::decode(&mut Reader::new(&bytes, 0), true).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(EntryRecord::decode(&mut Reader::new(&bytes[..len], 0), true).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn older_and_newer_entries_are_read() {
        let mut bytes = Vec::new();
        ENTRY.encode_into(&mut bytes);
        let mut older = bytes[..bytes.len() - 5].to_vec();
        older[3] = 0x96;
        assert_eq!(EntryRecord::decode(&mut Reader::new(&older, 0), false), Ok(ENTRY));
        assert!(EntryRecord::decode(&mut Reader::new(&older, 0), true).is_err());
        let mut oldest = older[..older.len() - 6].to_vec();
        oldest[3] = 0x95;
        let untagged = EntryRecord { tags: b"", ..ENTRY };
        assert_eq!(EntryRecord::decode(&mut Reader::new(&oldest, 0), false), Ok(untagged));
        let mut newer = [&older[..], &[0x92, 1, 2]].concat();
        newer[3] = 0x98;
        let checksum = simd_adler32::adler32(&&newer[..]);
        put_uint(&mut newer, checksum.into());
        assert_eq!(EntryRecord::decode(&mut Reader::new(&newer, 0), true), Ok(ENTRY));
    }
}
