//! Commit logs of M3: what was written since the last flush, in the order in which it was written.
//!
//! A log is a sequence of checksummed chunks, whose payloads are one stream of records (`payload`): first one about the log, then an entry for each point.
//! The first entry of a series brings its name along; later ones have only its number.
//!
//! Nothing marks the end. A log that M3 did not close may end within a chunk: what lies before that was checked and is read, and the
//! rest is damage, as it is anywhere else ([`LogEntries::is_torn`] tells the two apart). Nothing behind damage is read: where a record begins only those
//! before it tell.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::payload::{CHUNK_HEADER_BYTES, Payload};
use crate::error::{Error, Result};
use crate::fileset::{Damage, Reader, Tag, decode_tags};
use crate::io::{Mapping, Vfs};

const FORMAT: &str = "M3 commit log";
const VERSION: u64 = 1;
const ROOT_VALUES: u64 = 2;

const KIND_INFO: u64 = 7;
const KIND_ENTRY: u64 = 8;
const KIND_METADATA: u64 = 9;
const INFO_FIELDS: u64 = 3;
const ENTRY_FIELDS: u64 = 7;
/// What the array's head says. There is one value more.
const METADATA_FIELDS: u64 = 3;

/// A commit log, mapped.
#[derive(Debug)]
pub struct CommitLog {
    path: PathBuf,
    bytes: Mapping,
    index: u64,
}

/// A point as it was logged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogEntry<'l> {
    /// The number of the series in the process that wrote the log.
    pub unique_index: u64,
    /// The series.
    pub series: &'l LogSeries,
    /// Whether this entry named the series: the first one does.
    pub names_series: bool,
    /// When the series was made, in nanoseconds since the Unix epoch.
    pub created: i64,
    /// The point's time in nanoseconds since the Unix epoch.
    pub timestamp: i64,
    /// The value.
    pub value: f64,
    /// M3's code of the unit that the point was written in: 1 to 4 as in [`TimeUnit`](crate::m3tsz::TimeUnit), 0 for none, 5 to 8 for minute,
    /// hour, day, year. The timestamp is in nanoseconds whatever it is.
    pub unit: u8,
    /// What the point was annotated with; empty if with nothing.
    pub annotation: &'l [u8],
}

/// A series of a commit log: a metric, in our words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSeries {
    /// The namespace's name.
    pub namespace: String,
    /// The metric's ID.
    pub id: Vec<u8>,
    /// The metric's shard.
    pub shard: u32,
    /// The metric's tags as bytes, empty if it has none.
    pub encoded_tags: Vec<u8>,
}

impl LogSeries {
    /// The metric's tags, in their order; `None` if the bytes are no tags.
    pub fn tags(&self) -> Option<Vec<Tag<'_>>> {
        decode_tags(&self.encoded_tags).ok()
    }
}

impl CommitLog {
    /// Opens a log and reads what it says of itself.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if its beginning is damaged or missing, or has another number than the file's name. [`Error::Io`].
    pub fn open(disk: &dyn Vfs, path: &Path) -> Result<Self> {
        let mut log = CommitLog { path: path.to_owned(), bytes: disk.map(path)?, index: 0 };
        let mut payload = Payload::new(&log.bytes);
        let info = payload.record().and_then(|record| match record {
            Some((_, record)) => decode_info(record),
            None => Err(Damage::at(0, "the file ends before it says which log it is")),
        });
        log.index = info.map_err(|damage| log.corrupt(damage))?;
        let named = path.file_name().and_then(|name| name.to_str()).and_then(log_index);
        match named {
            Some(named) if named != log.index => {
                Err(log.corrupt(Damage::at(CHUNK_HEADER_BYTES, "it has another number than its name")))
            }
            _ => Ok(log),
        }
    }

    /// The log's number. Later logs have higher ones.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The length of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The entries, in the order in which they were written.
    pub fn entries(&self) -> LogEntries<'_> {
        let mut payload = Payload::new(&self.bytes);
        // It was read when the log was opened.
        let _ = payload.record();
        LogEntries { log: self, payload, series: HashMap::new(), ended: false }
    }

    fn corrupt(&self, damage: Damage) -> Error {
        Error::Corrupt {
            format: FORMAT,
            path: self.path.clone(),
            offset: damage.offset,
            metric: None,
            reason: damage.reason,
        }
    }
}

/// Goes over the entries of a log: see [`CommitLog::entries`].
///
/// Cost: a pass over the file; the names of its series in memory.
#[derive(Debug)]
pub struct LogEntries<'l> {
    log: &'l CommitLog,
    payload: Payload<'l>,
    series: HashMap<u64, LogSeries>,
    ended: bool,
}

impl LogEntries<'_> {
    /// The next entry; `None` at the end, and after damage.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the log is damaged: nothing comes after that. An entry of a series that none before it has named is
    /// an error too, but others follow.
    pub fn next_entry(&mut self) -> Option<Result<LogEntry<'_>>> {
        if self.ended {
            return None;
        }
        let (at, record) = match self.payload.record() {
            Ok(Some(found)) => found,
            Ok(None) => {
                self.ended = true;
                return None;
            }
            Err(damage) => {
                self.ended = true;
                return Some(Err(self.log.corrupt(damage)));
            }
        };
        let entry = EntryRecord::decode(record).and_then(|entry| {
            if !entry.metadata.is_empty() {
                self.series.insert(entry.unique_index, decode_metadata(entry.metadata)?);
            }
            Ok(entry)
        });
        // Where a record lies in parts, its inside has no offset: damage is told where it begins.
        let entry = match entry {
            Ok(entry) => entry,
            Err(Damage { reason, .. }) => {
                self.ended = true;
                return Some(Err(self.log.corrupt(Damage { offset: at, reason })));
            }
        };
        let Some(series) = self.series.get(&entry.unique_index) else {
            let reason = "an entry of a series that no entry before it names";
            return Some(Err(self.log.corrupt(Damage { offset: at, reason })));
        };
        Some(Ok(LogEntry {
            unique_index: entry.unique_index,
            series,
            names_series: !entry.metadata.is_empty(),
            created: entry.created,
            timestamp: entry.timestamp,
            value: entry.value,
            unit: entry.unit,
            annotation: entry.annotation,
        }))
    }

    /// Whether the log ended in damage that reaches the end of the file, as a crash of M3 or of its machine leaves it. M3 had not promised what
    /// lay there, unless it was configured to wait for its log.
    pub fn is_torn(&self) -> bool {
        self.payload.is_torn()
    }

    /// How many bytes of the file have been read.
    pub fn position(&self) -> u64 {
        self.payload.position()
    }
}

/// The number in a log's file name, `commitlog-N-NUMBER.db`.
pub(super) fn log_index(file_name: &str) -> Option<u64> {
    let (start, index) = file_name.strip_prefix("commitlog-")?.strip_suffix(".db")?.split_once('-')?;
    start.parse::<u64>().ok()?;
    index.parse().ok()
}

/// An entry as bytes of a record.
struct EntryRecord<'r> {
    unique_index: u64,
    created: i64,
    metadata: &'r [u8],
    timestamp: i64,
    value: f64,
    unit: u8,
    annotation: &'r [u8],
}

impl<'r> EntryRecord<'r> {
    fn decode(record: &'r [u8]) -> Result<Self, Damage> {
        let mut reader = Reader::new(record, 0);
        read_head(&mut reader, KIND_ENTRY, ENTRY_FIELDS)?;
        let unique_index = reader.uint()?;
        let created = reader.int()?;
        let metadata = reader.bytes()?;
        let timestamp = reader.int()?;
        let value = reader.float()?;
        let unit_at = reader.at();
        let unit = u8::try_from(reader.uint()?).map_err(|_| Damage::at(unit_at, "a unit that is none"))?;
        let annotation = reader.bytes()?;
        Ok(EntryRecord { unique_index, created, metadata, timestamp, value, unit, annotation })
    }
}

fn decode_info(record: &[u8]) -> Result<u64, Damage> {
    let mut reader = Reader::new(record, 0);
    let info = read_head(&mut reader, KIND_INFO, INFO_FIELDS).and_then(|()| {
        // Two numbers that M3 no longer uses.
        reader.skip(2)?;
        reader.uint()
    });
    info.map_err(|Damage { reason, .. }| Damage::at(CHUNK_HEADER_BYTES, reason))
}

/// The series that an entry's metadata name. Their array's head counts one value less than there are.
fn decode_metadata(record: &[u8]) -> Result<LogSeries, Damage> {
    let mut reader = Reader::new(record, 0);
    read_head(&mut reader, KIND_METADATA, METADATA_FIELDS)?;
    let id = reader.bytes()?.to_vec();
    let namespace_at = reader.at();
    let namespace = std::str::from_utf8(reader.bytes()?)
        .map_err(|_| Damage::at(namespace_at, "the namespace's name is no UTF-8"))?;
    let namespace = namespace.to_owned();
    let shard = reader.uint32()?;
    // Old M3 had no tags.
    let encoded_tags = if reader.is_at_end() { Vec::new() } else { reader.bytes()?.to_vec() };
    Ok(LogSeries { namespace, id, shard, encoded_tags })
}

/// Passes over what every record begins with: version, array of two, kind, array of fields.
fn read_head(reader: &mut Reader<'_>, kind: u64, fields_min: u64) -> Result<(), Damage> {
    let begin = reader.at();
    if reader.uint()? > VERSION {
        return Err(Damage::at(begin, "a record of a version that is not known"));
    }
    if reader.array()? < ROOT_VALUES || reader.uint()? != kind {
        return Err(Damage::at(begin, "a record of another kind"));
    }
    if reader.array()? < fields_min {
        return Err(Damage::at(begin, "a record with too few fields"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::MemoryDisk;

    /// A chunk around this payload.
    fn chunk(payload: &[u8]) -> Vec<u8> {
        let size = (payload.len() as u32).to_le_bytes();
        let checksums = [simd_adler32::adler32(&&size[..]), simd_adler32::adler32(&payload)];
        [&size[..], &checksums[0].to_le_bytes(), &checksums[1].to_le_bytes(), payload].concat()
    }

    /// A record behind its length.
    fn record(bytes: &[u8]) -> Vec<u8> {
        let (low, high) = (bytes.len() as u8 & 0x7f | 0x80, (bytes.len() >> 7) as u8);
        [&[low, high][..], bytes].concat()
    }

    fn metadata(tail: &[u8]) -> Vec<u8> {
        [b"\x01\x92\x09\x93\xc4\x03cpu\xc4\x02ns\x05".as_slice(), tail].concat()
    }

    fn entry(unique_index: u8, metadata: &[u8], at: u8) -> Vec<u8> {
        let named = [&[0xc4, metadata.len() as u8][..], metadata].concat();
        let named = if metadata.is_empty() { vec![0xc0] } else { named };
        let value = [&[0xcb][..], &f64::from(at).to_be_bytes()].concat();
        record(&[b"\x01\x92\x08\x97", &[unique_index, 0][..], &named, &[at], &value, b"\x01\xc0"].concat())
    }

    const INFO: &[u8] = b"\x07\x01\x92\x07\x93\x00\x00\x03";

    /// The times of the entries, and what ended them.
    fn read(bytes: &[u8]) -> (Vec<i64>, Option<(u64, bool)>) {
        let disk = MemoryDisk::new();
        let path = Path::new("/commitlog-0-3.db");
        disk.create(path).and_then(|file| file.write_at(0, bytes)).expect("room");
        let log = match CommitLog::open(&disk, path) {
            Ok(log) => log,
            Err(Error::Corrupt { offset, .. }) => return (Vec::new(), Some((offset, false))),
            Err(error) => panic!("{error}"),
        };
        let mut entries = log.entries();
        let (mut times, mut end) = (Vec::new(), None);
        while let Some(entry) = entries.next_entry() {
            match entry {
                Ok(entry) => {
                    assert_eq!(entry.value, entry.timestamp as f64);
                    assert_eq!((&entry.series.id[..], &*entry.series.namespace), (&b"cpu"[..], "ns"));
                    assert_eq!(entry.series.shard, 5);
                    times.push(entry.timestamp);
                }
                Err(Error::Corrupt { offset, .. }) => end = Some(offset),
                Err(error) => panic!("{error}"),
            }
        }
        let torn = entries.is_torn();
        (times, end.map(|offset| (offset, torn)))
    }

    fn log() -> (Vec<u8>, Vec<u8>) {
        let entries = [entry(1, &metadata(b"\xc0"), 1), entry(1, b"", 2), entry(1, b"", 3)].concat();
        (chunk(INFO), entries)
    }

    #[test]
    fn records_may_span_any_number_of_chunks() {
        let (info, entries) = log();
        for cut in 1..entries.len() {
            let chunks: Vec<u8> = entries.chunks(cut).flat_map(chunk).collect();
            assert_eq!(read(&[&info[..], &chunks].concat()), (vec![1, 2, 3], None), "chunks of {cut}");
        }
        let empty = [&info[..], &chunk(b""), &chunk(&entries), &chunk(b"")].concat();
        assert_eq!(read(&empty), (vec![1, 2, 3], None));
        assert_eq!(read(&info), (vec![], None));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_leaves_a_prefix() {
        let (info, entries) = log();
        let second = entry(1, b"", 4);
        let whole = [&info[..], &chunk(&entries), &chunk(&second)].concat();
        assert_eq!(read(&whole), (vec![1, 2, 3, 4], None));
        let last = whole.len() - chunk(&second).len();
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (times, end) = read(&bytes);
            let (offset, _) = end.unwrap_or_else(|| panic!("bit {bit} was not noticed"));
            let expected: &[i64] = if bit / 8 >= last { &[1, 2, 3] } else { &[] };
            assert_eq!(times, expected, "bit {bit}");
            assert!(offset <= bit as u64 / 8 + CHUNK_HEADER_BYTES as u64, "bit {bit}: {offset}");
        }
        for len in 0..whole.len() {
            let (times, end) = read(&whole[..len]);
            let at_chunk = len == info.len() || len == last;
            assert_eq!(end.is_none(), at_chunk, "cut to {len}");
            assert_eq!(times, if len >= last { vec![1, 2, 3] } else { vec![] }, "cut to {len}");
        }
    }

    #[test]
    fn torn_tail_is_told_from_damage_before_it() {
        let (info, entries) = log();
        let tail = chunk(&entry(1, b"", 4));
        let whole = [&info[..], &chunk(&entries), &tail].concat();
        let last = (whole.len() - tail.len()) as u64;
        assert_eq!(read(&whole[..whole.len() - 1]), (vec![1, 2, 3], Some((last, true))));
        assert_eq!(read(&whole[..last as usize + 5]), (vec![1, 2, 3], Some((last, true))));
        let mut torn = whole.clone();
        *torn.last_mut().expect("not empty") ^= 1;
        assert_eq!(read(&torn), (vec![1, 2, 3], Some((last, true))));
        torn.push(0);
        assert_eq!(read(&torn), (vec![1, 2, 3], Some((last, false))), "something lies behind it");
        let zeros = [&whole[..], &[0; 100]].concat();
        assert_eq!(read(&zeros), (vec![1, 2, 3, 4], Some((whole.len() as u64, true))));
        let half = [&info[..], &chunk(&entries[..entries.len() - 1])].concat();
        let (times, end) = read(&half);
        assert_eq!((times, end.map(|(_, torn)| torn)), (vec![1, 2], Some(true)), "half a record");
    }

    #[test]
    fn lengths_that_lie_cost_no_memory() {
        let info = chunk(INFO);
        for length in [&b"\xff\xff\xff\xff\x0f"[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"] {
            let bytes = [&info[..], &chunk(length)].concat();
            assert_eq!(read(&bytes), (vec![], Some((info.len() as u64 + 12, true))));
        }
        let endless = [&info[..], &chunk(&[0xff; 20])].concat();
        assert_eq!(read(&endless), (vec![], Some((info.len() as u64 + 12, false))));
    }

    #[test]
    fn entries_without_a_name_are_passed_over() {
        let entries = [entry(1, &metadata(b"\xc0"), 1), entry(2, b"", 2), entry(1, b"", 3)].concat();
        let (times, end) = read(&[&chunk(INFO)[..], &chunk(&entries)].concat());
        assert_eq!(times, [1, 3]);
        assert!(end.is_some_and(|(offset, torn)| offset > 32 && !torn));
    }

    #[test]
    fn metadata_have_tags_or_not() {
        assert_eq!(decode_metadata(&metadata(b"")).map(|series| series.encoded_tags), Ok(Vec::new()));
        assert_eq!(decode_metadata(&metadata(b"\xc0")).map(|series| series.encoded_tags), Ok(Vec::new()));
        let tagged = decode_metadata(&metadata(b"\xc4\x04\x75\x27\x00\x00")).expect("tags of none");
        assert_eq!(tagged.tags(), Some(Vec::new()));
        let damaged = decode_metadata(&metadata(b"\xc4\x01x")).expect("bytes");
        assert_eq!(damaged.tags(), None);
    }

    #[test]
    fn log_has_the_number_of_its_name() {
        assert_eq!(log_index("commitlog-0-17.db"), Some(17));
        for foreign in
            ["commitlog-0.db", "commitlog-0-x.db", "commitlog-0-1", "commitlog-0-1-2.db", "log-0-1.db"]
        {
            assert_eq!(log_index(foreign), None, "{foreign}");
        }
        let disk = MemoryDisk::new();
        let path = Path::new("/commitlog-0-4.db");
        disk.create(path).and_then(|file| file.write_at(0, &chunk(INFO))).expect("room");
        assert!(matches!(CommitLog::open(&disk, path), Err(Error::Corrupt { offset: 12, .. })));
    }
}
