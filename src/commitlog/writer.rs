//! Writing records.
//!
//! Invariants
//! * Bytes go to the log in order, and nothing is written twice.
//! * `synced <= position`; every byte before `synced` was in a file when a sync of that file returned `Ok`.
//! * After the first failed write or sync nothing is written or synced any more: what the disk holds is unknown.
//! * `reached` ends with the segment of `position`; sequences go up in it, and versions do not go down.

use std::collections::VecDeque;
use std::path::Path;

use super::frame::{FRAME_BYTES_MIN, FRAME_HEADER_BYTES, FrameHeader, Kind, frame_bytes};
use super::segment::usable_bytes;
use super::{LogStart, Position, Segment};
use crate::error::{Error, Result};
use crate::planted::{Bug, Planted};

/// Payload pieces from this length on are written from where they are, in bytes; shorter ones are gathered.
const PIECE_BYTES_UNCOPIED: usize = 64 << 10;
/// The buffer keeps at most this capacity between writes, in bytes.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// A record to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    /// The version: one more than the record's before it.
    pub(crate) version: u64,
    /// The bytes to store; any number, also none.
    pub(crate) payload: &'a [u8],
    /// The payload's CRC-32, computed by the caller, who may do it where nobody waits.
    pub(crate) payload_crc: u32,
}

impl<'a> Record<'a> {
    /// A record with its checksum computed here.
    #[cfg(test)]
    pub(crate) fn new(version: u64, payload: &'a [u8]) -> Self {
        Record { version, payload, payload_crc: crc32fast::hash(payload) }
    }
}

/// A segment that counts and that the log has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) segment: u64,
    /// The version of the first record that begins in it or in a later one. Pieces of the record before may precede it.
    pub(super) first_version: u64,
    /// The file's length in bytes.
    pub(super) bytes: u32,
}

/// The end of the log, and where each of its segments begins. One owner writes; nothing in here waits for anything but the disk.
#[derive(Debug)]
pub(crate) struct LogWriter {
    /// The segment that is written, and those that come after it. Empty only if none was ever pushed.
    segments: VecDeque<Segment>,
    /// Full segments with bytes that are not synced.
    left: Vec<Segment>,
    /// The segments from the first that is needed to the one that is written.
    reached: VecDeque<Reached>,
    /// Whether the segment that is written has bytes that are not synced.
    dirty: bool,
    position: Position,
    synced: Position,
    last_version: u64,
    synced_version: u64,
    /// Frames not yet written; their first byte belongs at `position` less the buffer's length.
    buffer: Vec<u8>,
    stopped: bool,
    planted: Planted,
}

impl LogWriter {
    /// A writer that goes on at `start`, before which all is synced, after record `last_version`. The last segment of `reached` is
    /// that of `start`, which must be pushed first.
    pub(super) fn new(
        reached: VecDeque<Reached>,
        start: Position,
        last_version: u64,
        planted: Planted,
    ) -> Self {
        debug_assert!(reached.back().is_some_and(|last| last.segment == start.segment));
        LogWriter {
            segments: VecDeque::new(),
            left: Vec::new(),
            reached,
            dirty: false,
            position: start,
            synced: start,
            last_version,
            synced_version: last_version,
            buffer: Vec::new(),
            stopped: false,
            planted,
        }
    }

    /// Writes records behind each other and, if `sync`, makes them and all before them durable. One write for each contiguous
    /// run of bytes, except that long payloads are written from where they are.
    ///
    /// # Errors
    /// The disk's error; it is final: from then on everything returns [`Error::Stopped`], and the records may be on disk or not.
    /// [`Error::Io`] of kind `StorageFull`, before anything is written, if more than [`LogWriter::free_bytes`] is asked for.
    pub(crate) fn write(&mut self, records: &[Record<'_>], sync: bool) -> Result<()> {
        if self.stopped {
            return Err(Error::Stopped { cause: None });
        }
        let wanted: u64 = records.iter().map(|record| frame_bytes(record.payload.len() as u64)).sum();
        if wanted > self.free_bytes() {
            let path = self.segments.back().map_or(Path::new(super::FOLDER), |segment| &segment.path);
            return Err(Error::io("reserve space in", path, std::io::ErrorKind::StorageFull.into()));
        }
        self.finally(|writer| {
            for record in records {
                writer.append(record)?;
            }
            writer.flush()?;
            if sync { writer.sync_files() } else { Ok(()) }
        })
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// As for [`LogWriter::write`].
    #[cfg(test)]
    pub(crate) fn sync(&mut self) -> Result<()> {
        if self.stopped {
            return Err(Error::Stopped { cause: None });
        }
        self.finally(Self::sync_files)
    }

    /// Adds a segment that the [`SegmentMaker`](super::SegmentMaker) made, behind those pushed before.
    pub(crate) fn push_segment(&mut self, segment: Segment) {
        debug_assert!(self.segments.back().is_none_or(|last| last.sequence() < segment.sequence()));
        self.segments.push_back(segment);
    }

    /// The end of what was written.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// The position before which everything is synced.
    pub(crate) fn synced(&self) -> Position {
        self.synced
    }

    /// The version of the last record written; 0 if there is none.
    #[cfg(test)]
    pub(crate) fn last_version(&self) -> u64 {
        self.last_version
    }

    /// The version of the last record that is synced; 0 if there is none.
    pub(crate) fn synced_version(&self) -> u64 {
        self.synced_version
    }

    /// Where the log may begin for somebody who needs the records above `version` only: with the last segment from which all of them
    /// can be read. Versions above [`LogWriter::synced_version`] are taken for that one, so nothing that is not synced is ever before
    /// the first segment. If records above `version` are gone already, the log as it is.
    pub(crate) fn start_after(&self, version: u64) -> LogStart {
        let next = version.min(self.synced_version).saturating_add(1);
        let behind = self.reached.partition_point(|reached| reached.first_version <= next);
        let first = self.reached.get(behind.saturating_sub(1));
        let (first_segment, first_version) =
            first.map_or((self.position.segment, next), |first| (first.segment, first.first_version));
        LogStart { first_segment, first_version, synced: self.synced, synced_version: self.synced_version }
    }

    /// Forgets the segments before `first`, which were removed; returns the bytes of their files.
    pub(crate) fn forget_before(&mut self, first: u64) -> u64 {
        debug_assert!(
            self.left.iter().all(|segment| segment.sequence() >= first),
            "only what is synced goes"
        );
        let gone = self.reached.partition_point(|reached| reached.segment < first);
        self.reached.drain(..gone).map(|reached| u64::from(reached.bytes)).sum()
    }

    /// Bytes of the files of the segments that count, and of those that were pushed and are still empty.
    pub(crate) fn bytes_on_disk(&self) -> u64 {
        let reached = self.reached.iter().map(|reached| u64::from(reached.bytes));
        let empty = self.segments.iter().skip(1).map(Segment::bytes);
        reached.chain(empty).sum()
    }

    /// Bytes from the beginning of the first segment that counts to the end of what was written.
    pub(crate) fn used_bytes(&self) -> u64 {
        let full = self.reached.iter().rev().skip(1).map(|reached| u64::from(reached.bytes));
        full.sum::<u64>() + u64::from(self.position.offset)
    }

    /// Bytes of [`frame_bytes`] that the pushed segments are sure to take.
    pub(crate) fn free_bytes(&self) -> u64 {
        let mut segments = self.segments.iter();
        let current =
            segments.next().map_or(0, |segment| usable_bytes(self.offset_in(segment), segment.header.size));
        current + segments.map(Segment::usable_bytes).sum::<u64>()
    }

    /// Runs `work`, whose failure is final.
    fn finally(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let result = work(self);
        self.stopped = result.is_err();
        result
    }

    /// Turns one record into frames, leaving segments as they fill up.
    fn append(&mut self, record: &Record<'_>) -> Result<()> {
        debug_assert_eq!(record.version, self.last_version + 1, "versions are consecutive");
        debug_assert_eq!(record.payload_crc, crc32fast::hash(record.payload), "the caller's checksum");
        let mut rest = record.payload;
        let mut split = false;
        loop {
            // What is left of a split record goes on in the next segment, and the record behind it is the first to begin there.
            let room = self.room(record.version + u64::from(split))?;
            if frame_bytes(rest.len() as u64) <= u64::from(room) {
                let kind = if split { Kind::Last } else { Kind::Whole };
                let crc = if split { crc32fast::hash(rest) } else { record.payload_crc };
                self.append_frame(kind, record.version, rest, crc)?;
                self.last_version = record.version;
                return Ok(());
            }
            let kind = if split { Kind::Middle } else { Kind::First };
            let (piece, behind) = rest.split_at((room - FRAME_HEADER_BYTES) as usize);
            self.append_frame(kind, record.version, piece, crc32fast::hash(piece))?;
            rest = behind;
            split = true;
        }
    }

    /// The bytes left in the segment that is written, after moving on to the next if they are too few for a frame. There the first
    /// record to begin is `first_version`.
    fn room(&mut self, first_version: u64) -> Result<u32> {
        loop {
            let Some(current) = self.segments.front() else { return Err(Error::Stopped { cause: None }) };
            let room = current.header.size.saturating_sub(self.offset_in(current));
            if room >= FRAME_BYTES_MIN {
                return Ok(room);
            }
            self.flush()?;
            // The space was reserved, so there is a next segment.
            if self.segments.len() < 2 {
                return Err(Error::Stopped { cause: None });
            }
            let full = self.segments.pop_front();
            if std::mem::take(&mut self.dirty) {
                self.left.extend(full);
            }
            if let Some(next) = self.segments.front() {
                self.position = Position { segment: next.sequence(), offset: next.header.frames_at() };
                self.reached.push_back(next.reached(first_version));
            }
        }
    }

    /// Puts one frame behind the others; it fits into the segment.
    fn append_frame(&mut self, kind: Kind, version: u64, piece: &[u8], payload_crc: u32) -> Result<()> {
        let Some(current) = self.segments.front() else { return Err(Error::Stopped { cause: None }) };
        let header =
            FrameHeader { kind, version, payload_len: piece.len() as u32, payload_crc, synced: self.synced };
        self.buffer.extend_from_slice(&header.encode(current.header.seed(), self.position.offset));
        self.position.offset += FRAME_HEADER_BYTES;
        if piece.len() >= PIECE_BYTES_UNCOPIED {
            self.flush()?;
            self.write_behind(piece)?;
        } else {
            self.buffer.extend_from_slice(piece);
            self.position.offset += piece.len() as u32;
        }
        let padding = self.position.offset.next_multiple_of(super::FRAME_ALIGNMENT) - self.position.offset;
        self.buffer.resize(self.buffer.len() + padding as usize, 0);
        self.position.offset += padding;
        Ok(())
    }

    /// Writes what is in the buffer.
    fn flush(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        self.position.offset -= buffer.len() as u32;
        let result = self.write_behind(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        result
    }

    /// Writes bytes at the position and moves it behind them.
    fn write_behind(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let Some(current) = self.segments.front() else { return Err(Error::Stopped { cause: None }) };
        self.dirty = true;
        current.file.write_at(self.position.offset.into(), bytes)?;
        self.position.offset += bytes.len() as u32;
        Ok(())
    }

    fn sync_files(&mut self) -> Result<()> {
        if !self.planted.has(Bug::SkipLogSync) {
            for segment in &self.left {
                segment.file.sync()?;
            }
            if let Some(current) = self.segments.front().filter(|_| self.dirty) {
                current.file.sync()?;
            }
        }
        self.left.clear();
        self.dirty = false;
        self.synced = self.position;
        self.synced_version = self.last_version;
        Ok(())
    }

    /// Where writing goes on in the first pushed segment.
    fn offset_in(&self, segment: &Segment) -> u32 {
        if segment.sequence() == self.position.segment {
            self.position.offset
        } else {
            segment.header.frames_at()
        }
    }
}
