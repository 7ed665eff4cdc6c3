//! The names file: which ID and tags each metric has.
//!
//! Records are put behind each other and never changed; what counts is what lies before a length that is kept elsewhere (the superblock's).
//!
//! Invariants
//! * `written <= len()`, and the bytes between the two are in the buffer.
//! * `synced` bytes are durable. What lies behind is written anew after [`NamesFile::rewind`], since a failed sync loses what it was about.
//!
//! Format: `design/checkpoint.md`, "Names file".

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{METRIC_ID_BYTES_MAX, MetricId, NamespaceId, Tags};
use crate::commitlog::{DatabaseId, le_u32};
use crate::error::{Error, Result};
use crate::io::{Vfs, VfsFile};

/// The folder of names files in the database's.
pub(crate) const FOLDER: &str = "names";
const PREFIX: &str = "names-";
const MAGIC: [u8; 8] = *b"CHRONONM";
/// The format version of the files written here.
const FORMAT_VERSION: u32 = 1;
/// Bytes of the header; the first record begins here.
pub(super) const HEADER_BYTES: usize = 32;
/// Bytes of a record's checksum and length.
const FRONT_BYTES: usize = 8;
/// Bytes of a record before the ID.
const FIXED_BYTES: usize = FRONT_BYTES + 12;
/// No record is longer, in bytes. Tags have at most 64 KiB of keys and values and, as all keys but one have at least a byte, not three
/// times as many bytes of lengths.
const RECORD_BYTES_MAX: usize = FIXED_BYTES + METRIC_ID_BYTES_MAX + 4 * 65_536;
/// What is appended is written when there are so many bytes.
const WRITE_BYTES: usize = 256 << 10;
/// Bytes that are read at once.
const READ_BYTES: usize = 512 << 10;
const _: () = assert!(RECORD_BYTES_MAX <= READ_BYTES);

/// A names file, open. One owner.
#[derive(Debug)]
pub(crate) struct NamesFile {
    disk: Arc<dyn Vfs>,
    folder: PathBuf,
    path: PathBuf,
    number: u64,
    header: [u8; HEADER_BYTES],
    file: Box<dyn VfsFile>,
    /// Up to here all is durable, in bytes; 0 if not even the file's name is.
    synced: u64,
    /// Up to here all is written.
    written: u64,
    /// What comes behind.
    buffer: Vec<u8>,
}

/// A record of a names file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameRecord<'a> {
    /// The metric that has the name.
    pub(crate) metric: MetricId,
    /// Its namespace.
    pub(crate) namespace: NamespaceId,
    /// Its ID.
    pub(crate) id: &'a [u8],
    /// Bytes that the record takes in the file.
    pub(crate) bytes: u64,
    tags: &'a [u8],
}

impl NamesFile {
    /// Makes a file and, if need be, the folder, whose name is durable then. The file itself is so with the first [`NamesFile::sync`]. What an earlier
    /// attempt left under its name is replaced. `dir` is the database's folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn create(
        disk: &Arc<dyn Vfs>,
        dir: &Path,
        database_id: DatabaseId,
        number: u64,
    ) -> Result<Self> {
        let folder = NamesFile::folder(dir);
        disk.create_dir_all(&folder)?;
        // Also if it was there: whoever made it may have ended before this.
        disk.sync_dir(dir)?;
        let path = folder.join(NamesFile::file_name(number));
        disk.remove(&path)?;
        let file = disk.create(&path)?;
        let header = header(&database_id, number);
        let buffer = header.to_vec();
        Ok(NamesFile {
            disk: disk.clone(),
            folder,
            path,
            number,
            header,
            file,
            synced: 0,
            written: 0,
            buffer,
        })
    }

    /// Opens the file of a number, of which `len` bytes count, to be read and, if `write`, appended to.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is missing, shorter, or not this database's. [`Error::NewerFormat`]. [`Error::Io`].
    pub(crate) fn open(
        disk: &Arc<dyn Vfs>,
        dir: &Path,
        database_id: DatabaseId,
        (number, len): (u64, u64),
        write: bool,
    ) -> Result<Self> {
        let folder = NamesFile::folder(dir);
        let path = folder.join(NamesFile::file_name(number));
        let Some(file) = disk.open(&path, write)? else {
            return Err(corrupt(&path, 0, "the file is missing"));
        };
        let header = header(&database_id, number);
        check_header(&*file, &path, &header, number)?;
        let there = file.len()?;
        if there < len || len < HEADER_BYTES as u64 {
            return Err(corrupt(&path, there.min(len), "the file ends too early"));
        }
        let buffer = Vec::new();
        Ok(NamesFile {
            disk: disk.clone(),
            folder,
            path,
            number,
            header,
            file,
            synced: len,
            written: len,
            buffer,
        })
    }

    /// Puts the name of a metric behind the others; returns the offset of its record, which is never 0. Nothing is durable before
    /// [`NamesFile::sync`].
    ///
    /// # Errors
    /// [`Error::Io`]. Then what was appended since the last sync is to be [rewound](NamesFile::rewind).
    pub(crate) fn append(
        &mut self,
        metric: MetricId,
        namespace: NamespaceId,
        id: &[u8],
        tags: &Tags,
    ) -> Result<u64> {
        debug_assert!(id.len() <= METRIC_ID_BYTES_MAX, "a longer one is not interned");
        let offset = self.len();
        let start = self.buffer.len();
        let length = (FIXED_BYTES - FRONT_BYTES + id.len() + tags.encoded().len()) as u32;
        self.buffer.extend_from_slice(&[0; 4]);
        for number in [length, metric.0, namespace.0, id.len() as u32] {
            self.buffer.extend_from_slice(&number.to_le_bytes());
        }
        self.buffer.extend_from_slice(id);
        self.buffer.extend_from_slice(tags.encoded());
        let crc = checksum(offset, &self.buffer[start + 4..]);
        self.buffer[start..start + 4].copy_from_slice(&crc.to_le_bytes());
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(offset)
    }

    /// Makes all that was appended durable, and returns the length that counts now. No call to the disk if there is nothing new.
    ///
    /// # Errors
    /// [`Error::Io`]. Then what was appended since the last sync is to be [rewound](NamesFile::rewind).
    pub(crate) fn sync(&mut self) -> Result<u64> {
        self.flush()?;
        if self.synced < self.written {
            self.file.sync()?;
            if self.synced == 0 {
                self.disk.sync_dir(&self.folder)?;
            }
            self.synced = self.written;
        }
        Ok(self.synced)
    }

    /// Forgets what was appended behind `len`, a length that [`NamesFile::sync`] returned or the file was opened with, or anything less than a header
    /// if there was none: what is appended next is written over it.
    pub(crate) fn rewind(&mut self, len: u64) {
        debug_assert!(
            len <= self.synced || len < HEADER_BYTES as u64,
            "what is not durable is to be written anew"
        );
        let len = len.min(self.synced);
        self.buffer.clear();
        (self.synced, self.written) = (len, len);
        if len < HEADER_BYTES as u64 {
            (self.synced, self.written) = (0, 0);
            self.buffer.extend_from_slice(&self.header);
        }
    }

    /// Visits all records that are durable, in the order in which they were appended, with their offsets. Each is compared with its checksum.
    ///
    /// Memory: 512 KiB.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the offset of the first record that is damaged, or of which `visit` says what is wrong with it. [`Error::Io`].
    pub(crate) fn scan(
        &self,
        mut visit: impl FnMut(u64, NameRecord<'_>) -> std::result::Result<(), &'static str>,
    ) -> Result<()> {
        let mut window = Window::new(&*self.file, self.synced);
        while window.offset < window.end {
            let offset = window.offset;
            let len = self
                .visit_at(&mut window, &mut visit)?
                .map_err(|reason| corrupt(&self.path, offset, reason))?;
            window.advance(len);
        }
        Ok(())
    }

    /// Visits the record that a window begins with; returns its length.
    fn visit_at(
        &self,
        window: &mut Window<'_>,
        visit: &mut impl FnMut(u64, NameRecord<'_>) -> std::result::Result<(), &'static str>,
    ) -> Result<std::result::Result<usize, &'static str>> {
        let offset = window.offset;
        let Some(len) = window.peek(FRONT_BYTES)?.and_then(record_len) else {
            return Ok(Err("a record's length is impossible"));
        };
        let Some(bytes) = window.peek(len)? else { return Ok(Err("a record's length is impossible")) };
        Ok(NameRecord::decode(offset, bytes).and_then(|record| visit(offset, record)).map(|()| len))
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Its length with all that was appended, in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Bytes that the record at an offset takes, for who counts those of names that are gone: 0 if it is unreadable.
    pub(crate) fn record_bytes_at(&self, offset: u64) -> u64 {
        let mut front = [0; FRONT_BYTES];
        let read = self.file.read_at(offset, &mut front).is_ok_and(|read| read == FRONT_BYTES);
        record_len(&front).filter(|_| read).map_or(0, |len| len as u64)
    }

    /// The folder of a database's names files.
    pub(crate) fn folder(dir: &Path) -> PathBuf {
        dir.join(FOLDER)
    }

    /// The name of the file of a number.
    pub(crate) fn file_name(number: u64) -> String {
        format!("{PREFIX}{number:016x}")
    }

    /// The number of a file by its name.
    pub(crate) fn parse(name: &str) -> Option<u64> {
        let number = u64::from_str_radix(name.strip_prefix(PREFIX)?, 16).ok()?;
        (NamesFile::file_name(number) == name).then_some(number)
    }

    /// Writes what is in the buffer. After an error it is still there.
    fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.file.write_at(self.written, &self.buffer)?;
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl<'a> NameRecord<'a> {
    /// Its tags.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn tags(&self) -> std::result::Result<Tags, &'static str> {
        Tags::decode(self.tags)
    }

    /// Its tags, if they are not those that the ID says.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn own_tags(&self) -> std::result::Result<Option<Tags>, &'static str> {
        Tags::decode_unless_said_by(self.tags, self.id)
    }

    /// The record whose bytes begin at an offset.
    pub(super) fn decode(offset: u64, bytes: &'a [u8]) -> std::result::Result<Self, &'static str> {
        let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
            return Err("a record's length is impossible");
        };
        if le_u32(fixed, 0) != checksum(offset, &bytes[4..]) {
            return Err("a record's checksum differs");
        }
        let id_length = le_u32(fixed, 16) as usize;
        let Some((id, tags)) = rest.split_at_checked(id_length).filter(|_| id_length <= METRIC_ID_BYTES_MAX)
        else {
            return Err("an ID's length is impossible");
        };
        Ok(NameRecord {
            metric: MetricId(le_u32(fixed, 8)),
            namespace: NamespaceId(le_u32(fixed, 12)),
            id,
            bytes: bytes.len() as u64,
            tags,
        })
    }
}

/// The length of the record that begins with these bytes, if it can be one's.
pub(super) fn record_len(front: &[u8]) -> Option<usize> {
    let front = front.first_chunk::<FRONT_BYTES>()?;
    let len = (le_u32(front, 4) as usize).checked_add(FRONT_BYTES)?;
    (FIXED_BYTES..=RECORD_BYTES_MAX).contains(&len).then_some(len)
}

/// The CRC-32 of a record's bytes behind it, seeded with where it is: so that it is sound nowhere else.
fn checksum(offset: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(offset as u32 ^ (offset >> 32) as u32);
    hasher.update(bytes);
    hasher.finalize()
}

/// The header of a file. Its checksum also covers the number, so that no file is taken for another.
pub(super) fn header(database_id: &DatabaseId, number: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[16..].copy_from_slice(database_id);
    let crc = header_checksum(&bytes, number);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn header_checksum(header: &[u8; HEADER_BYTES], number: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..12]);
    hasher.update(&header[16..]);
    hasher.update(&number.to_le_bytes());
    hasher.finalize()
}

/// Compares a file's header with what it is to be.
pub(super) fn check_header(
    file: &dyn VfsFile,
    path: &Path,
    expected: &[u8; HEADER_BYTES],
    number: u64,
) -> Result<()> {
    let mut found = [0; HEADER_BYTES];
    if file.read_at(0, &mut found)? < HEADER_BYTES {
        return Err(corrupt(path, 0, "shorter than its header"));
    }
    if found == *expected {
        return Ok(());
    }
    let (offset, reason) = match le_u32(&found, 8) {
        _ if found[..8] != MAGIC => (0, "the magic number differs"),
        _ if le_u32(&found, 12) != header_checksum(&found, number) => (0, "the header's checksum differs"),
        found if found > FORMAT_VERSION => {
            return Err(Error::NewerFormat { path: path.to_owned(), found, supported: FORMAT_VERSION });
        }
        FORMAT_VERSION => (16, "belongs to another database"),
        _ => (8, "format version 0"),
    };
    Err(corrupt(path, offset, reason))
}

/// What is read of a file: bytes from a record's beginning on.
#[derive(Debug)]
struct Window<'a> {
    file: &'a dyn VfsFile,
    buffer: Vec<u8>,
    /// Which bytes of the buffer are to be looked at.
    start: usize,
    filled: usize,
    /// Where in the file they begin.
    offset: u64,
    /// Where it ends.
    end: u64,
}

impl<'a> Window<'a> {
    /// A window on the records before `end`.
    fn new(file: &'a dyn VfsFile, end: u64) -> Self {
        let len = end.min(READ_BYTES as u64) as usize;
        Window { file, buffer: vec![0; len], start: 0, filled: 0, offset: HEADER_BYTES as u64, end }
    }

    /// The first `len` bytes, at most [`READ_BYTES`]; `None` if there are fewer.
    fn peek(&mut self, len: usize) -> Result<Option<&[u8]>> {
        if self.filled - self.start < len {
            self.buffer.copy_within(self.start..self.filled, 0);
            (self.start, self.filled) = (0, self.filled - self.start);
            let from = self.offset + self.filled as u64;
            let room = (self.buffer.len() - self.filled).min((self.end - from) as usize);
            self.filled += self.file.read_at(from, &mut self.buffer[self.filled..][..room])?;
        }
        Ok(self.buffer[self.start..self.filled].get(..len))
    }

    /// Goes on behind `len` bytes that were peeked at.
    fn advance(&mut self, len: usize) {
        self.start += len;
        self.offset += len as u64;
    }
}

/// An [`Error::Corrupt`] of this format.
fn corrupt(path: &Path, offset: u64, reason: &'static str) -> Error {
    Error::Corrupt { format: "names file", path: path.to_owned(), offset, metric: None, reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::io::{CutState, Fault, SimulatedDisk};

    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/names-v1.bin");
    const ID: DatabaseId = *b"0123456789abcdef";
    const DIR: &str = "/db";
    const NUMBER: u64 = 0x2a;

    /// A metric, its namespace, ID and tags.
    type Name = (u32, u32, Vec<u8>, Tags);

    fn shared(disk: &SimulatedDisk) -> Arc<dyn Vfs> {
        Arc::new(disk.clone())
    }

    /// A disk with a database's folder, durable.
    fn empty_disk() -> SimulatedDisk {
        let disk = SimulatedDisk::new(1);
        disk.create_dir_all(DIR.as_ref()).expect("room for a folder");
        disk.after_power_cut(CutState::All, 0)
    }

    fn create(disk: &SimulatedDisk) -> Result<NamesFile> {
        NamesFile::create(&shared(disk), DIR.as_ref(), ID, NUMBER)
    }

    fn open(disk: &SimulatedDisk, len: u64) -> Result<NamesFile> {
        NamesFile::open(&shared(disk), DIR.as_ref(), ID, (NUMBER, len), true)
    }

    fn append_all(file: &mut NamesFile, names: &[Name]) -> Result<Vec<u64>> {
        let append = |(metric, namespace, id, tags): &Name| {
            file.append(MetricId(*metric), NamespaceId(*namespace), id, tags)
        };
        names.iter().map(append).collect()
    }

    /// All records with their offsets.
    fn read_all(file: &NamesFile) -> Result<Vec<(u64, Name)>> {
        let mut found = Vec::new();
        file.scan(|offset, record| {
            let name = (record.metric.0, record.namespace.0, record.id.to_vec(), record.tags()?);
            assert_eq!(record.bytes, file.record_bytes_at(offset));
            found.push((offset, name));
            Ok(())
        })?;
        Ok(found)
    }

    fn tags(pairs: &[(&[u8], &[u8])]) -> Tags {
        Tags::new(pairs).expect("valid tags")
    }

    /// The names of the golden file.
    fn sample() -> Vec<Name> {
        let (id, parsed) = Tags::parse(b"cpu{host=\"a\",mode=\"idle\"}").expect("canonical");
        vec![
            (0, 0, id, parsed),
            (1, 0, b"no tags".to_vec(), Tags::none()),
            (7, 3, Vec::new(), tags(&[(b"", b""), (b"\xff", &[0; 130])])),
        ]
    }

    /// A disk with the sample, the length that counts and what reads back.
    fn sample_disk() -> (SimulatedDisk, u64, Vec<(u64, Name)>) {
        let disk = empty_disk();
        let mut file = create(&disk).expect("room");
        let offsets = append_all(&mut file, &sample()).expect("room");
        let len = file.sync().expect("it syncs");
        (disk.after_power_cut(CutState::None, 0), len, offsets.into_iter().zip(sample()).collect())
    }

    fn path() -> PathBuf {
        NamesFile::folder(DIR.as_ref()).join(NamesFile::file_name(NUMBER))
    }

    /// Changes the file as damage would.
    fn damaged(disk: &SimulatedDisk, change: impl FnOnce(&mut Vec<u8>)) -> SimulatedDisk {
        let disk = disk.after_power_cut(CutState::All, 0);
        let mut bytes = disk.map(&path()).expect("the file is there").to_vec();
        change(&mut bytes);
        let file = disk.open(&path(), true).expect("it opens").expect("the file is there");
        file.set_len(bytes.len() as u64).expect("its length changes");
        file.write_at(0, &bytes).expect("it takes bytes");
        disk
    }

    /// Where a file that is opened and read is corrupt.
    fn corrupt_at(disk: &SimulatedDisk, len: u64) -> Option<u64> {
        match open(disk, len).and_then(|file| read_all(&file)) {
            Err(Error::Corrupt { format: "names file", path, offset, .. }) => {
                assert_eq!(path, super::tests::path());
                Some(offset)
            }
            Err(error) => panic!("{error:?}"),
            Ok(_) => None,
        }
    }

    #[test]
    fn names_of_files_are_parsed_and_no_others() {
        assert_eq!(path(), Path::new("/db/names/names-000000000000002a"));
        assert_eq!(NamesFile::parse("names-000000000000002a"), Some(NUMBER));
        assert_eq!(NamesFile::parse(&NamesFile::file_name(u64::MAX)), Some(u64::MAX));
        for other in [
            "names-2a",
            "names-000000000000002A",
            "names-+00000000000002a",
            "names-",
            "names-000000000000002a.new",
        ] {
            assert_eq!(NamesFile::parse(other), None, "{other}");
        }
    }

    #[test]
    fn golden_file_is_written_and_read() {
        let (disk, len, names) = sample_disk();
        assert_eq!(&disk.map(&path()).expect("it is there")[..], GOLDEN);
        let golden = damaged(&disk, |bytes| *bytes = GOLDEN.to_vec());
        assert_eq!(read_all(&open(&golden, len).expect("it opens")).expect("it is sound"), names);
    }

    #[test]
    fn what_lies_behind_the_length_does_not_count_and_is_written_over() {
        let (disk, len, mut names) = sample_disk();
        let disk = damaged(&disk, |bytes| bytes.extend([0xaa; 10_000]));
        let mut file = open(&disk, len).expect("it opens");
        assert_eq!(read_all(&file).expect("it is sound"), names);
        let more: Name = (9, 0, b"more".to_vec(), Tags::none());
        names.push((len, more.clone()));
        assert_eq!(append_all(&mut file, std::slice::from_ref(&more)).expect("room"), [len]);
        assert_eq!(read_all(&file).expect("it is sound").len(), 3, "nothing is read that is not durable");
        let len = file.sync().expect("it syncs");
        assert_eq!((len, file.number()), (file.len(), NUMBER));
        assert_eq!(read_all(&file).expect("it is sound"), names);
        assert_eq!(read_all(&open(&disk, len).expect("it opens")).expect("it is sound"), names);
        // A shorter length is that of an older checkpoint.
        assert_eq!(read_all(&open(&disk, names[2].0).expect("it opens")).expect("it is sound"), names[..2]);
    }

    #[test]
    fn sync_without_anything_new_costs_nothing() {
        let disk = empty_disk();
        let mut file = create(&disk).expect("room");
        append_all(&mut file, &sample()).expect("room");
        let len = file.sync().expect("it syncs");
        let calls = disk.calls();
        assert_eq!(file.sync().expect("it syncs"), len);
        assert_eq!(disk.calls(), calls);
        append_all(&mut file, &sample()).expect("room");
        file.sync().expect("it syncs");
        assert_eq!(disk.calls() - calls, 2, "one write, one sync");
    }

    #[test]
    fn every_flipped_bit_is_noticed_at_its_record() {
        let (disk, len, names) = sample_disk();
        for bit in 0..len * 8 {
            let byte = bit / 8;
            let disk = damaged(&disk, |bytes| bytes[byte as usize] ^= 1 << (bit % 8));
            let record = names.iter().rev().map(|(offset, _)| *offset).find(|offset| *offset <= byte);
            assert_eq!(corrupt_at(&disk, len), Some(record.unwrap_or(0)), "bit {bit}");
        }
    }

    #[test]
    fn file_cut_at_any_byte_is_noticed() {
        let (disk, len, names) = sample_disk();
        for cut in 0..len {
            let disk = damaged(&disk, |bytes| bytes.truncate(cut as usize));
            let place = if cut < HEADER_BYTES as u64 { 0 } else { cut };
            assert_eq!(corrupt_at(&disk, len), Some(place), "{cut} bytes");
            // And a length that ends inside a record.
            let ends = [HEADER_BYTES as u64].into_iter().chain(names.iter().map(|(offset, _)| *offset));
            let found = corrupt_at(&damaged(&disk, |bytes| bytes.resize(len as usize, 0)), cut);
            assert_eq!(found.is_none(), ends.clone().any(|end| end == cut), "length {cut}");
        }
        disk.remove(&path()).expect("it goes");
        assert_eq!(corrupt_at(&disk, len), Some(0));
    }

    #[test]
    fn records_are_sound_in_their_place_only() {
        let (disk, len, names) = sample_disk();
        let (first, second) = (names[0].0 as usize, names[1].0 as usize);
        let moved = damaged(&disk, |bytes| bytes[first..].rotate_left(second - first));
        assert_eq!(corrupt_at(&moved, len), Some(first as u64));
        // Files of another number, another database, a newer version.
        for (id, number) in [(ID, NUMBER + 1), ([7; 16], NUMBER)] {
            let name = NamesFile::folder(DIR.as_ref()).join(NamesFile::file_name(number));
            let disk = disk.after_power_cut(CutState::All, 0);
            disk.rename(&path(), &name).expect("it is renamed");
            let opened = NamesFile::open(&shared(&disk), DIR.as_ref(), id, (number, len), false);
            assert!(matches!(opened, Err(Error::Corrupt { format: "names file", .. })), "{opened:?}");
        }
        let newer = damaged(&disk, |bytes| {
            bytes[8] = 2;
            let header = *bytes.first_chunk().expect("a header");
            bytes[12..16].copy_from_slice(&header_checksum(&header, NUMBER).to_le_bytes());
        });
        assert!(matches!(open(&newer, len), Err(Error::NewerFormat { found: 2, supported: 1, .. })));
    }

    #[test]
    fn impossible_records_with_sound_checksums_are_refused() {
        let (disk, _, _) = sample_disk();
        let record = |length: u32, id_length: u32, rest: &[u8]| {
            let mut bytes = [0, length, 1, 0, id_length].map(u32::to_le_bytes).concat();
            bytes.extend_from_slice(rest);
            let crc = checksum(HEADER_BYTES as u64, &bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
            bytes
        };
        let long = vec![0; METRIC_ID_BYTES_MAX + 1];
        for (what, bytes) in [
            ("an ID behind the record", record(15, 4, b"abc")),
            ("an ID of impossible length", record(15, u32::MAX, b"abc")),
            ("an ID that is too long", record(12 + long.len() as u32, long.len() as u32, &long)),
            ("tags that are none", record(15, 0, b"abc")),
            ("a length below the least", record(11, 0, b"")),
            ("no length", record(0, 0, b"")),
            ("a length past the end", record(13, 0, b"")),
            ("an impossible length", record(u32::MAX, 0, b"")),
        ] {
            let len = HEADER_BYTES as u64 + bytes.len() as u64;
            let disk = damaged(&disk, |file| {
                file.truncate(HEADER_BYTES);
                file.extend_from_slice(&bytes);
            });
            assert_eq!(corrupt_at(&disk, len), Some(HEADER_BYTES as u64), "{what}");
        }
        let file = create(&disk).and_then(|mut file| {
            append_all(&mut file, &sample())?;
            file.sync().map(|_| file)
        });
        let refused = file
            .expect("room")
            .scan(|_, record| if record.metric.0 == 1 { Err("not this one") } else { Ok(()) });
        assert!(matches!(refused, Err(Error::Corrupt { reason: "not this one", offset, .. }) if offset > 32));
    }

    #[test]
    fn failed_checkpoint_is_rewound_and_the_next_one_is_durable() {
        // Names beyond one write, so that calls fail in appending too.
        let many: Vec<Name> = (0..40).map(|i| (i, 0, vec![i as u8; 20_000], Tags::none())).collect();
        for call in 1..=12 {
            for fault in [Fault::InputOutput, Fault::NoSpace] {
                let disk = empty_disk();
                let mut file = create(&disk).expect("room");
                let mut durable = 0;
                let mut expected = Vec::new();
                disk.fail(disk.calls() + call, fault, false);
                for round in 0..3 {
                    let names = &many[..15 + round];
                    let tried = append_all(&mut file, names)
                        .and_then(|offsets| file.sync().map(|len| (offsets, len)));
                    let tried = tried.or_else(|_| {
                        file.rewind(durable);
                        assert_eq!(file.len(), durable.max(HEADER_BYTES as u64));
                        append_all(&mut file, names).and_then(|offsets| file.sync().map(|len| (offsets, len)))
                    });
                    let (offsets, len) = tried.expect("the second try works");
                    expected.extend(offsets.into_iter().zip(names.iter().cloned()));
                    durable = len;
                    let found =
                        open(&disk.after_power_cut(CutState::None, 0), durable).expect("it is durable");
                    assert!(read_all(&found).expect("it is sound") == expected, "{fault:?} at {call}");
                }
            }
        }
    }

    #[test]
    fn power_cut_at_any_call_leaves_what_was_synced() {
        /// Two syncs; the lengths they returned.
        fn live(disk: &SimulatedDisk, lens: &mut Vec<u64>) -> Result<()> {
            let mut file = create(disk)?;
            for _ in 0..2 {
                append_all(&mut file, &sample())?;
                lens.push(file.sync()?);
            }
            Ok(())
        }
        let calls = {
            let disk = empty_disk();
            live(&disk, &mut Vec::new()).expect("it works");
            disk.calls()
        };
        for call in 1..=calls {
            for state in CutState::ALL {
                let disk = empty_disk();
                disk.cut_power_within(call);
                let mut lens = Vec::new();
                assert!(live(&disk, &mut lens).is_err());
                let disk = disk.after_power_cut(state, call);
                if let Some(len) = lens.last() {
                    let found = open(&disk, *len).and_then(|file| read_all(&file)).expect("it was synced");
                    assert_eq!(found.len(), 3 * lens.len());
                }
                // What is there is in nobody's way.
                live(&disk, &mut Vec::new()).expect("it works");
            }
        }
    }

    fn name() -> impl Strategy<Value = Name> {
        let len = prop_oneof![6 => 0..40_usize, 1 => 0..=METRIC_ID_BYTES_MAX, 1 => Just(METRIC_ID_BYTES_MAX)];
        let text = |max: usize| prop::collection::vec(any::<u8>(), 0..max);
        let few = prop::collection::vec((text(6), text(300)), 0..6);
        let many =
            (0..9_000_u32).prop_map(|n| (0..n).map(|i| (i.to_be_bytes().to_vec(), vec![1; 3])).collect());
        let tags = prop_oneof![8 => few, 1 => many].prop_map(|pairs: Vec<(Vec<u8>, Vec<u8>)>| {
            let pairs: std::collections::BTreeMap<_, _> = pairs.into_iter().collect();
            tags(&pairs.iter().map(|(key, value)| (&key[..], &value[..])).collect::<Vec<_>>())
        });
        (any::<u32>(), any::<u32>(), len, any::<u8>(), tags)
            .prop_map(|(metric, namespace, len, byte, tags)| (metric, namespace, vec![byte; len], tags))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn names_read_back(rounds in prop::collection::vec(prop::collection::vec(name(), 0..20), 1..4)) {
            let disk = empty_disk();
            let mut file = create(&disk).expect("room");
            let mut expected = Vec::new();
            for names in rounds {
                let offsets = append_all(&mut file, &names).expect("room");
                expected.extend(offsets.into_iter().zip(names));
                let len = file.sync().expect("it syncs");
                let found = open(&disk.after_power_cut(CutState::None, 0), len).expect("it opens");
                prop_assert!(read_all(&found).expect("it is sound") == expected);
                prop_assert!(read_all(&file).expect("it is sound") == expected);
            }
            prop_assert!(expected.iter().all(|(offset, _)| *offset > 0));
        }

        #[test]
        fn random_damage_is_an_error(place in any::<prop::sample::Index>(), junk in prop::collection::vec(any::<u8>(), 1..40)) {
            let (disk, len, names) = sample_disk();
            let disk = damaged(&disk, |bytes| {
                let at = place.index(bytes.len());
                let end = bytes.len().min(at + junk.len());
                bytes[at..end].copy_from_slice(&junk[..end - at]);
            });
            if corrupt_at(&disk, len).is_none() {
                prop_assert_eq!(read_all(&open(&disk, len).expect("it opens")).expect("it is sound"), names);
            }
        }
    }
}
