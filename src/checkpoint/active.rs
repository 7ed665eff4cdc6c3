//! The active file: what is in memory at a checkpoint's version.
//!
//! Written once, from its beginning to its end, under a number that no other had; the superblock names it when it is durable. Format:
//! `design/checkpoint.md`, "Active file".

use std::path::{Path, PathBuf};

use crate::commitlog::{DatabaseId, le_u32, le_u64};
use crate::error::{Error, Result};
use crate::io::{Vfs, VfsFile};
use crate::mvcc::partition::PartitionState;
use crate::mvcc::partition_map::Cover;
use crate::mvcc::record::{Fields, RecordError, put_bytes, put_signed, put_unsigned};
use crate::mvcc::restore::MetricState;
use crate::mvcc::side::SideEntry;
use crate::mvcc::stream::ClosedStream;
use crate::mvcc::tombstones::Tombstone;
use crate::mvcc::transaction::Version;
use crate::names::MetricId;
use crate::sync::Arc;

/// The folder of active files in the database's.
pub(crate) const FOLDER: &str = "snapshots";

pub(super) const MAGIC: [u8; 8] = *b"CHRONOAC";
const FORMAT_VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 48;
/// Before the payload of a block: checksum and length.
pub(super) const BLOCK_HEADER_BYTES: usize = 8;
/// A block is written when it has so many bytes.
const BLOCK_BYTES: usize = if cfg!(test) { 1 << 10 } else { 256 << 10 };

/// An active file that is being written.
#[derive(Debug)]
pub(super) struct ActiveWriter {
    file: Box<dyn VfsFile>,
    path: PathBuf,
    database_id: DatabaseId,
    version: Version,
    /// Where the block that is being filled begins.
    offset: u64,
    /// Its header, and what is in it so far.
    block: Vec<u8>,
    /// The metric before, in the block.
    previous: u32,
    metrics: u64,
}

/// The name of an active file.
pub(super) fn file_name(number: u64) -> String {
    format!("active-{number:016x}")
}

/// How many of a file's bytes are of what is in memory.
pub(super) fn payload_bytes(length: u64) -> u64 {
    length.saturating_sub(HEADER_BYTES as u64)
}

/// The number of an active file by its name.
pub(super) fn parse(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("active-")?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (file_name(number) == name).then_some(number)
}

/// Makes the folder, durable, unless it is there.
pub(super) fn make_folder(disk: &dyn Vfs, dir: &Path) -> Result<()> {
    let folder = dir.join(FOLDER);
    if disk.read_dir(&folder)?.is_none() {
        disk.create_dir_all(&folder)?;
    }
    // Also if it is there: the process that made it may have ended before this.
    disk.sync_dir(dir)
}

impl ActiveWriter {
    /// Begins the file of this number, for the state at a version. What lies under its name, which no superblock names, is replaced.
    pub(super) fn begin(
        disk: &dyn Vfs,
        dir: &Path,
        number: u64,
        database_id: DatabaseId,
        version: Version,
    ) -> Result<Self> {
        let path = dir.join(FOLDER).join(file_name(number));
        disk.remove(&path)?;
        let file = disk.create(&path)?;
        let offset = HEADER_BYTES as u64;
        let block = vec![0; BLOCK_HEADER_BYTES];
        Ok(ActiveWriter { file, path, database_id, version, offset, block, previous: 0, metrics: 0 })
    }

    /// Adds a metric; they come in the order of their numbers.
    pub(super) fn add(&mut self, state: &MetricState) -> Result<()> {
        put_unsigned(&mut self.block, u64::from(state.metric.0 - self.previous));
        self.previous = state.metric.0;
        self.metrics += 1;
        encode(state, &mut self.block);
        if self.block.len() >= BLOCK_BYTES { self.write_block() } else { Ok(()) }
    }

    /// Writes what is left, and the header, and makes it durable, its name too. Returns the file's length in bytes.
    pub(super) fn finish(mut self, disk: &dyn Vfs, dir: &Path) -> Result<u64> {
        if self.block.len() > BLOCK_HEADER_BYTES {
            self.write_block()?;
        }
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        header[16..32].copy_from_slice(&self.database_id);
        header[32..40].copy_from_slice(&self.version.get().to_le_bytes());
        header[40..48].copy_from_slice(&self.offset.to_le_bytes());
        let crc = header_crc(&header);
        header[12..16].copy_from_slice(&crc.to_le_bytes());
        self.file.write_at(0, &header)?;
        self.file.sync()?;
        disk.sync_dir(&dir.join(FOLDER))?;
        Ok(self.offset)
    }

    fn write_block(&mut self) -> Result<()> {
        let Ok(length) = u32::try_from(self.block.len() - BLOCK_HEADER_BYTES) else {
            return Err(Error::io("write", &self.path, std::io::ErrorKind::FileTooLarge.into()));
        };
        self.block[4..8].copy_from_slice(&length.to_le_bytes());
        let crc = block_crc(self.offset, &self.block[4..]);
        self.block[..4].copy_from_slice(&crc.to_le_bytes());
        self.file.write_at(self.offset, &self.block)?;
        self.offset += self.block.len() as u64;
        self.block.truncate(BLOCK_HEADER_BYTES);
        self.previous = 0;
        Ok(())
    }
}

/// An active file that is being read, its blocks in any order.
#[derive(Debug)]
pub(super) struct ActiveReader {
    file: Box<dyn VfsFile>,
    path: PathBuf,
    /// Where each block begins, and the bytes of its payload.
    blocks: Vec<(u64, u32)>,
    /// Where there is no block behind these although the file goes on, and what is there instead.
    broken: Option<(u64, &'static str)>,
}

impl ActiveReader {
    /// Opens the file of this number, of `length` bytes.
    ///
    /// Cost: a few bytes of each block are read.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::NewerFormat`], [`Error::Io`].
    pub(super) fn open(
        disk: &dyn Vfs,
        dir: &Path,
        (number, length): (u64, u64),
        database_id: DatabaseId,
        version: Version,
    ) -> Result<Self> {
        let path = dir.join(FOLDER).join(file_name(number));
        let corrupt = |offset, reason| Err(corrupt(&path, offset, reason));
        let Some(file) = disk.open(&path, false)? else { return corrupt(0, "the file is missing") };
        let mut header = [0; HEADER_BYTES];
        if file.read_at(0, &mut header)? != HEADER_BYTES || header[..8] != MAGIC {
            return corrupt(0, "the magic number differs");
        }
        if header_crc(&header) != le_u32(&header, 12) {
            return corrupt(0, "the header's checksum differs");
        }
        match le_u32(&header, 8) {
            FORMAT_VERSION => {}
            0 => return corrupt(8, "format version 0"),
            found => return Err(Error::NewerFormat { path, found, supported: FORMAT_VERSION }),
        }
        if header[16..32] != database_id {
            return corrupt(16, "it is of another database");
        }
        if le_u64(&header, 32) != version.get() || le_u64(&header, 40) != length || file.len()? != length {
            return corrupt(32, "it is not the file that the superblock names");
        }
        let (mut blocks, mut broken) = (Vec::new(), None);
        let mut offset = HEADER_BYTES as u64;
        while offset < length {
            let mut block_header = [0; BLOCK_HEADER_BYTES];
            if file.read_at(offset, &mut block_header)? != BLOCK_HEADER_BYTES {
                broken = Some((offset, "a block without a header"));
                break;
            }
            let payload = le_u32(&block_header, 4);
            let after = length - offset - BLOCK_HEADER_BYTES as u64;
            if u64::from(payload) > after || payload == 0 {
                broken = Some((offset, "a block with an impossible length"));
                break;
            }
            blocks.push((offset, payload));
            offset += BLOCK_HEADER_BYTES as u64 + u64::from(payload);
        }
        Ok(ActiveReader { file, path, blocks, broken })
    }

    /// How many blocks it has. Whoever reads all of them calls [`ActiveReader::check_end`] then.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Passes on the metrics of a block, ascending. A reason that `take` returns becomes damage of the file.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub(super) fn read(
        &self,
        block: usize,
        mut take: impl FnMut(MetricState) -> std::result::Result<(), &'static str>,
    ) -> Result<()> {
        let (offset, payload) = self.blocks[block];
        let mut bytes = vec![0; BLOCK_HEADER_BYTES + payload as usize];
        let read = self.file.read_at(offset, &mut bytes)?;
        let is_sound = |(crc, rest): (&[u8; 4], &[u8])| block_crc(offset, rest) == u32::from_le_bytes(*crc);
        if read != bytes.len() || !bytes.split_first_chunk().is_some_and(is_sound) {
            return Err(self.damaged(block, "the checksum differs"));
        }
        let mut fields = Fields(&bytes[BLOCK_HEADER_BYTES..]);
        let mut last: Option<MetricId> = None;
        while !fields.0.is_empty() {
            let previous = last.map_or(0, |last| last.0);
            let taken = decode(&mut fields, previous).map_err(|error| error.0).and_then(|state| {
                if last.is_some_and(|last| last >= state.metric) {
                    return Err(NOT_IN_ORDER);
                }
                last = Some(state.metric);
                take(state)
            });
            taken.map_err(|reason| self.damaged(block, reason))?;
        }
        Ok(())
    }

    /// Damage of a block.
    pub(super) fn damaged(&self, block: usize, reason: &'static str) -> Error {
        corrupt(&self.path, self.blocks.get(block).map_or(0, |(offset, _)| *offset), reason)
    }

    /// Whether all of the file is blocks: if each of them is sound, so is the file.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub(super) fn check_end(&self) -> Result<()> {
        self.broken.map_or(Ok(()), |(offset, reason)| Err(corrupt(&self.path, offset, reason)))
    }
}

/// What is wrong with metrics of which a later one does not have the higher number.
pub(super) const NOT_IN_ORDER: &str = "metrics that are not in order";

pub(super) fn corrupt(path: &Path, offset: u64, reason: &'static str) -> Error {
    Error::Corrupt { format: "active file", path: path.to_owned(), offset, metric: None, reason }
}

pub(super) fn header_crc(header: &[u8; HEADER_BYTES]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..12]);
    crc.update(&header[16..]);
    crc.finalize()
}

/// Of a block's length and payload, at an offset.
pub(super) fn block_crc(offset: u64, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&offset.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

/// All but the metric's number.
fn encode(state: &MetricState, bytes: &mut Vec<u8>) {
    put_unsigned(bytes, state.partitions.len() as u64);
    for partition in &state.partitions {
        put_unsigned(bytes, partition.born.get());
        put_unsigned(bytes, partition.streams.len() as u64);
        for stream in &partition.streams {
            put_signed(bytes, stream.first);
            put_unsigned(bytes, stream.first.abs_diff(stream.last));
            put_unsigned(bytes, stream.points);
            put_bytes(bytes, &stream.bytes);
        }
        put_unsigned(bytes, partition.side_len);
        put_unsigned(bytes, partition.side.len() as u64);
        let mut previous = 0;
        for (entry, annotation) in &partition.side {
            put_unsigned(bytes, entry.number - previous);
            previous = entry.number;
            put_signed(bytes, entry.at);
            bytes.extend_from_slice(&entry.value.to_bits().to_le_bytes());
            put_bytes(bytes, annotation.as_ref().map_or(&[], |annotation| annotation.as_slice()));
        }
        put_unsigned(bytes, partition.tombstones.len() as u64);
        for tombstone in &partition.tombstones {
            put_signed(bytes, tombstone.range.first);
            put_signed(bytes, tombstone.range.last);
            put_unsigned(bytes, tombstone.points);
            put_unsigned(bytes, tombstone.side);
        }
    }
    put_unsigned(bytes, state.layers.len() as u64);
    for (cover, stack) in &state.layers {
        put_signed(bytes, cover.first);
        put_signed(bytes, cover.last);
        put_unsigned(bytes, stack.len() as u64);
        stack.iter().for_each(|place| put_unsigned(bytes, *place as u64));
    }
}

pub(super) fn decode(
    fields: &mut Fields<'_>,
    previous: u32,
) -> std::result::Result<MetricState, RecordError> {
    const RANGE: RecordError = RecordError("number out of range");
    let metric = MetricId(previous.checked_add(fields.unsigned_32()?).ok_or(RANGE)?);
    let partitions = list(fields, |fields| {
        let born = Version(fields.unsigned()?);
        let streams = list(fields, |fields| {
            let first = fields.signed()?;
            let last = first.checked_add_unsigned(fields.unsigned()?).ok_or(RANGE)?;
            let points = fields.unsigned()?;
            Ok(ClosedStream { first, last, points, bytes: Arc::new(fields.bytes()?.to_vec()) })
        })?;
        let side_len = fields.unsigned()?;
        let mut previous = 0u64;
        let side = list(fields, |fields| {
            let number = previous.checked_add(fields.unsigned()?).ok_or(RANGE)?;
            previous = number;
            let entry = SideEntry { at: fields.signed()?, value: fields.value()?, number };
            let annotation = fields.bytes()?;
            Ok((entry, (!annotation.is_empty()).then(|| Arc::new(annotation.to_vec()))))
        })?;
        let tombstones = list(fields, |fields| {
            let range = Cover { first: fields.signed()?, last: fields.signed()? };
            Ok(Tombstone { range, points: fields.unsigned()?, side: fields.unsigned()? })
        })?;
        Ok(PartitionState { born, streams, side_len, side, tombstones })
    })?;
    let layers = list(fields, |fields| {
        let cover = Cover { first: fields.signed()?, last: fields.signed()? };
        Ok((cover, list(fields, Fields::length)?))
    })?;
    Ok(MetricState { metric, partitions, layers })
}

/// A number of items and the items. Each takes at least a byte, so that no length makes more room than there are bytes.
pub(super) fn list<'a, T, L: Default + Extend<T>>(
    fields: &mut Fields<'a>,
    mut item: impl FnMut(&mut Fields<'a>) -> std::result::Result<T, RecordError>,
) -> std::result::Result<L, RecordError> {
    let count = fields.length()?;
    if count > fields.0.len() {
        return Err(RecordError("a list that is longer than what it is in"));
    }
    let mut items = L::default();
    for _ in 0..count {
        items.extend([item(fields)?]);
    }
    Ok(items)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;
    use smallvec::{SmallVec, smallvec};

    use super::*;
    use crate::io::MemoryDisk;

    const DIR: &str = "/db";
    const ID: DatabaseId = *b"0123456789abcdef";
    const VERSION: Version = Version(7);
    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/active-v1.bin");

    fn stream() -> impl Strategy<Value = ClosedStream> {
        (any::<i64>(), 0..1_000_000u64, 1..100u64, prop::collection::vec(any::<u8>(), 0..50)).prop_map(
            |(first, length, points, bytes)| {
                let last = first.saturating_add_unsigned(length);
                ClosedStream { first, last, points, bytes: Arc::new(bytes) }
            },
        )
    }

    fn partition() -> impl Strategy<Value = PartitionState> {
        let entry =
            (1..5u64, any::<i64>(), any::<u64>(), prop::option::of(prop::collection::vec(any::<u8>(), 1..9)));
        let tombstone = (any::<i64>(), any::<i64>(), any::<u64>(), any::<u64>());
        (
            any::<u64>(),
            prop::collection::vec(stream(), 0..4),
            prop::collection::vec(entry, 0..6),
            prop::collection::vec(tombstone, 0..3),
        )
            .prop_map(|(born, streams, entries, tombstones)| {
                let mut number = 0;
                let side = entries.into_iter().map(|(more, at, bits, annotation)| {
                    number += more;
                    (SideEntry { at, value: f64::from_bits(bits), number }, annotation.map(Arc::new))
                });
                let side: Vec<_> = side.collect();
                let tombstones = tombstones.into_iter().map(|(first, last, points, side)| Tombstone {
                    range: Cover { first, last },
                    points,
                    side,
                });
                PartitionState {
                    born: Version(born),
                    streams: streams.into(),
                    side_len: number + 1,
                    side,
                    tombstones: tombstones.collect(),
                }
            })
    }

    fn metrics() -> impl Strategy<Value = Vec<MetricState>> {
        let layer = (any::<i64>(), any::<i64>(), prop::collection::vec(0..3usize, 1..3));
        let metric =
            (1..1_000u32, prop::collection::vec(partition(), 0..3), prop::collection::vec(layer, 0..3));
        prop::collection::vec(metric, 0..20).prop_map(|metrics| {
            let mut id = 0;
            let metric = |(more, partitions, layers): (u32, _, Vec<_>)| {
                id += more;
                let layers = layers
                    .into_iter()
                    .map(|(first, last, stack)| (Cover { first, last }, SmallVec::from_vec(stack)));
                let partitions = SmallVec::from_vec(partitions);
                MetricState { metric: MetricId(id), partitions, layers: layers.collect() }
            };
            metrics.into_iter().map(metric).collect()
        })
    }

    fn write(disk: &MemoryDisk, metrics: &[MetricState]) -> u64 {
        make_folder(disk, DIR.as_ref()).expect("room");
        let mut writer = ActiveWriter::begin(disk, DIR.as_ref(), 3, ID, VERSION).expect("room");
        metrics.iter().for_each(|metric| writer.add(metric).expect("room"));
        writer.finish(disk, DIR.as_ref()).expect("room")
    }

    fn read_all(disk: &MemoryDisk, length: u64) -> Result<Vec<MetricState>> {
        let reader = ActiveReader::open(disk, DIR.as_ref(), (3, length), ID, VERSION)?;
        let mut found: Vec<MetricState> = Vec::new();
        for block in 0..reader.blocks() {
            reader.read(block, |metric| {
                found.push(metric);
                Ok(())
            })?;
        }
        reader.check_end()?;
        Ok(found)
    }

    fn path() -> PathBuf {
        Path::new(DIR).join(FOLDER).join(file_name(3))
    }

    /// Values bit for bit, NaN too.
    fn text(metrics: &[MetricState]) -> String {
        let bits = |partition: &PartitionState| -> Vec<u64> {
            partition.side.iter().map(|(entry, _)| entry.value.to_bits()).collect()
        };
        let bits: Vec<_> = metrics.iter().flat_map(|metric| metric.partitions.iter().map(bits)).collect();
        format!("{metrics:?} {bits:?}")
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(metrics in metrics()) {
            let disk = MemoryDisk::default();
            let length = write(&disk, &metrics);
            let found = read_all(&disk, length).expect("sound");
            prop_assert_eq!(text(&found), text(&metrics));
        }

        /// Whatever the bytes are, if their checksum holds: no panic.
        #[test]
        fn payloads_that_nobody_wrote_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut fields = Fields(&bytes);
            while !fields.0.is_empty() && decode(&mut fields, 0).is_ok() {}
        }
    }

    /// Two metrics, with all that can be.
    fn example() -> Vec<MetricState> {
        let stream = ClosedStream { first: -5, last: 100, points: 3, bytes: Arc::new(vec![1, 2, 3]) };
        let entry = |number, at| SideEntry { at, value: 1.5, number };
        let partition = PartitionState {
            born: Version(4),
            streams: smallvec![stream],
            side_len: 9,
            side: vec![(entry(2, 7), None), (entry(8, -7), Some(Arc::new(b"note".to_vec())))],
            tombstones: vec![Tombstone { range: Cover { first: 0, last: 300 }, points: 2, side: 1 }],
        };
        let layer = |first, last, stack| (Cover { first, last }, stack);
        let layers = smallvec![layer(-10, 10, smallvec![0]), layer(20, i64::MAX, smallvec![0])];
        let first = MetricState { metric: MetricId(2), partitions: smallvec![partition.clone()], layers };
        let layers = smallvec![layer(0, 1, smallvec![1, 0])];
        let partitions = smallvec![partition.clone(), partition];
        let second = MetricState { metric: MetricId(300), partitions, layers };
        vec![first, second]
    }

    #[test]
    fn golden_file_is_written_and_read() {
        let disk = MemoryDisk::default();
        let length = write(&disk, &example());
        let file = disk.open(&path(), true).expect("the disk works").expect("just written");
        let mut bytes = vec![0; length as usize];
        file.read_at(0, &mut bytes).expect("the disk works");
        assert_eq!(bytes, GOLDEN);
        assert_eq!(text(&read_all(&disk, length).expect("sound")), text(&example()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let disk = MemoryDisk::default();
        let length = write(&disk, &example());
        let file = disk.open(&path(), true).expect("the disk works").expect("just written");
        for bit in 0..length * 8 {
            let mut byte = [0];
            file.read_at(bit / 8, &mut byte).expect("the disk works");
            file.write_at(bit / 8, &[byte[0] ^ 1 << (bit % 8)]).expect("the disk works");
            let found = read_all(&disk, length);
            assert!(
                matches!(found, Err(Error::Corrupt { .. } | Error::NewerFormat { .. })),
                "bit {bit}: {found:?}"
            );
            file.write_at(bit / 8, &byte).expect("the disk works");
        }
        for len in 0..length {
            file.set_len(len).expect("the disk works");
            assert!(matches!(read_all(&disk, length), Err(Error::Corrupt { .. })), "cut to {len}");
            assert!(matches!(read_all(&disk, len), Err(Error::Corrupt { .. })), "cut to {len}, expected so");
            file.set_len(length).expect("the disk works");
            file.write_at(0, GOLDEN).expect("the disk works");
        }
    }

    #[test]
    fn names_of_active_files_are_told_from_others() {
        assert_eq!(parse(&file_name(0x1f)), Some(0x1f));
        for other in ["active-1f", "active-000000000000001F", "active-", "active-000000000000001f.tmp", "x"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
