//! Segments: the log's files, and how one is made.
//!
//! Invariants
//! * A file with a segment's final name is whole: its header is valid and its full length was written and synced before it got
//!   that name. So a bad header is damage, never a creation that was cut short.
//! * Behind the last frame a segment is zero.
//!
//! Format: `design/commitlog.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::frame::{FRAME_HEADER_BYTES, FrameSeed, le_u32, le_u64};
use super::writer::Reached;
use super::{DatabaseId, Log, Note, Position, corrupt};
use crate::error::{Error, Result};
use crate::io::{Vfs, VfsFile};
use crate::planted::Bug;

/// The format version of the segments written here.
pub(crate) const FORMAT_VERSION: u32 = 2;
/// Bytes of the header of a segment that is made here; the first frame starts here.
pub(crate) const SEGMENT_HEADER_BYTES: u32 = 96;
/// The same of format version 1, without a note.
pub(super) const SEGMENT_HEADER_BYTES_V1: u32 = 64;

/// Higher sequences are not ours: nobody makes so many segments, and there must be room for the next.
const SEQUENCE_MAX: u64 = u64::MAX >> 1;
const MAGIC: [u8; 8] = *b"CHRONLOG";
const HEADER: usize = SEGMENT_HEADER_BYTES as usize;
const HEADER_V1: usize = SEGMENT_HEADER_BYTES_V1 as usize;
const NOTE_CHECKSUM_AT: usize = HEADER - 4;
/// Zeros are written in pieces of this size, in bytes.
const ZEROS_BYTES: usize = 256 << 10;

/// A segment that was made and waits to be written.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn VfsFile>,
}

impl Segment {
    /// The segment's place in the log, from 1 on.
    pub(crate) fn sequence(&self) -> u64 {
        self.header.sequence
    }

    /// The file's length, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.header.size.into()
    }

    /// The segment as one that the log has reached.
    pub(super) fn reached(&self, first_version: u64) -> Reached {
        Reached { segment: self.header.sequence, first_version, bytes: self.header.size }
    }

    /// Bytes of [`frame_bytes`](super::frame_bytes) that it is sure to take, whatever records come.
    pub(crate) fn usable_bytes(&self) -> u64 {
        usable_bytes(self.header.frames_at(), self.header.size)
    }
}

/// Bytes of [`frame_bytes`](super::frame_bytes) that the rest of a segment from `offset` on is sure to take.
///
/// A segment loses at most one frame header at its end. Either a record is split there: the piece fills the segment, no padding
/// is added (all pieces but the last are multiples of 8 long), and the record costs one header more. Or the rest is too short
/// for a header and 8 bytes; then it is at most a header long and stays empty. Never both.
///
/// So records fit into m segments if their `frame_bytes` sum up to at most the sum of `usable_bytes`. For suppose something
/// is left when all m are used up. Segment i has B(i) bytes for frames, of which u(i) stay empty; e(i) is the extra header of
/// the record split at its end, or 0. What is in the segments is the sum of B(i) - u(i), of which the extra headers of the first m - 1
/// are not in the records' `frame_bytes`. Hence these sum up to more than the sum of B(i) - u(i) over all i less the sum of
/// e(i) over i < m, and since u(i) + e(i) is at most a header, to more than the sum of `usable_bytes`. (If the m-th ends with
/// a split, u(m) is 0, and what is left is more than nothing. If not, what is left is a whole frame.)
pub(super) fn usable_bytes(offset: u32, size: u32) -> u64 {
    u64::from(size.saturating_sub(offset).saturating_sub(FRAME_HEADER_BYTES))
}

/// Makes the segments of a log, one after the other.
///
/// Making a segment writes and syncs all of it. The writer needs no part in that, so it can be done ahead of time and elsewhere.
#[derive(Debug)]
pub(crate) struct SegmentMaker {
    log: Log,
    sequence: u64,
    incarnation: u64,
    /// Bytes used of the segment before.
    used: u32,
    /// No segment is made larger than this asks for, in bytes, but for a record that wants it.
    live: u64,
}

impl SegmentMaker {
    /// The next segment is `sequence`; `used` bytes of the one before are used.
    pub(super) fn new(log: Log, sequence: u64, incarnation: u64, used: u32) -> Self {
        SegmentMaker { log, sequence, incarnation, used, live: u64::MAX }
    }

    /// The log that it makes segments of.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Notes how many bytes of the log are needed at a time, about. Segments that are larger would be files of zeros, or of what nobody needs.
    pub(crate) fn note_live(&mut self, bytes: u64) {
        self.live = bytes;
    }

    /// Makes the next segment, durable in bytes and name: twice the bytes used of the one before, no more than are live, and large enough for
    /// `wanted` bytes of [`frame_bytes`](super::frame_bytes), as far as the configured sizes allow.
    ///
    /// # Errors
    /// [`Error::DiskFull`] if there is no space or no quota, otherwise [`Error::Io`]. The partial file is removed, and the
    /// next call starts over.
    pub(crate) fn make(&mut self, wanted: u64) -> Result<Segment> {
        let overhead = u64::from(SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES);
        let grown = (2 * u64::from(self.used)).min(self.live);
        let size = self.log.sizes.for_bytes(grown.max(wanted.saturating_add(overhead)));
        let header = SegmentHeader {
            database_id: self.log.database_id,
            sequence: self.sequence,
            incarnation: self.incarnation,
            resumes_after: None,
            size,
            note: Some(self.log.note),
        };
        let segment = make_segment(&self.log, header, |_| Ok(header.frames_at()))?;
        self.sequence += 1;
        self.used = size;
        Ok(segment)
    }
}

/// Makes a whole segment under a temporary name, syncs it, renames it and syncs the folder. `fill` may write frames; it returns
/// their end, behind which zeros are written up to the segment's size.
pub(super) fn make_segment(
    log: &Log,
    header: SegmentHeader,
    fill: impl FnOnce(&dyn VfsFile) -> Result<u32>,
) -> Result<Segment> {
    let folder = log.folder();
    let path = log.segment_path(header.sequence);
    let unfinished = path.with_extension("log.new");
    let make = || {
        log.disk.remove(&unfinished)?;
        let file = log.disk.create(&unfinished)?;
        file.write_at(0, &header.encode())?;
        let filled = fill(&*file)?;
        write_zeros(&*file, filled, header.size)?;
        if log.planted.has(Bug::RenameBeforeSync) {
            log.disk.rename(&unfinished, &path)?;
            log.disk.sync_dir(&folder)?;
            file.sync()?;
            return Ok(file);
        }
        file.sync()?;
        log.disk.rename(&unfinished, &path)?;
        if !log.planted.has(Bug::SkipFolderSync) {
            log.disk.sync_dir(&folder)?;
        }
        Ok(file)
    };
    match make() {
        Ok(file) => Ok(Segment { header, path, file }),
        Err(error) => {
            // What cannot be removed is harmless: the next try replaces it, and recovery sweeps it or finds it empty.
            let _ = log.disk.remove(&unfinished);
            let _ = log.disk.remove(&path);
            Err(match error {
                Error::Io { path, source, .. } if is_out_of_space(source.kind()) => {
                    Error::DiskFull { path, source }
                }
                other => other,
            })
        }
    }
}

fn is_out_of_space(kind: std::io::ErrorKind) -> bool {
    matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// The length of bytes up to the last that is not zero.
pub(super) fn used_len(bytes: &[u8]) -> usize {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut len = bytes.len();
    while len > 0 {
        let start = len.saturating_sub(ZEROS.len());
        let piece = &bytes[start..len];
        if piece != &ZEROS[..piece.len()] {
            return start + piece.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        }
        len = start;
    }
    0
}

fn write_zeros(file: &dyn VfsFile, from: u32, to: u32) -> Result<()> {
    let zeros = vec![0; ZEROS_BYTES.min(to.saturating_sub(from) as usize)];
    let mut at = from;
    while at < to {
        let len = zeros.len().min((to - at) as usize);
        file.write_at(at.into(), &zeros[..len])?;
        at += len as u32;
    }
    Ok(())
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) database_id: DatabaseId,
    pub(super) sequence: u64,
    /// Goes up when the log goes on after a cut, so that leftovers never parse.
    pub(super) incarnation: u64,
    /// The segment follows this position, and everything between is void: all of the named segment from the offset on, and
    /// all segments between. Offset 0 voids the named segment as well. `None`: it follows the segment before it.
    pub(super) resumes_after: Option<Position>,
    /// The file's length in bytes.
    pub(super) size: u32,
    /// What the log's owner had it keep; `None` in format version 1.
    pub(super) note: Option<Note>,
}

/// Why bytes are no header of a segment of this log.
#[derive(Debug)]
pub(super) enum HeaderError {
    /// What is wrong, and at which offset.
    Damaged(u64, &'static str),
    /// A format version that is not known here.
    Newer(u32),
}

impl SegmentHeader {
    pub(super) fn seed(&self) -> FrameSeed {
        FrameSeed::new(&self.database_id, self.sequence, self.incarnation)
    }

    /// Where the first frame starts.
    pub(super) fn frames_at(&self) -> u32 {
        match self.note {
            Some(_) => SEGMENT_HEADER_BYTES,
            None => SEGMENT_HEADER_BYTES_V1,
        }
    }

    /// The header of a new segment, in the newest version.
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let resumes = self.resumes_after.unwrap_or_default();
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..28].copy_from_slice(&self.database_id);
        bytes[28..32].copy_from_slice(&self.size.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[48..56].copy_from_slice(&resumes.segment.to_le_bytes());
        bytes[56..60].copy_from_slice(&resumes.offset.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..HEADER_V1].copy_from_slice(&crc.to_le_bytes());
        bytes[HEADER_V1..][..size_of::<Note>()].copy_from_slice(&self.note.unwrap_or_default());
        let crc = note_checksum(&bytes);
        bytes[NOTE_CHECKSUM_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header in `bytes`, whichever database's it is.
    pub(super) fn decode(bytes: &[u8]) -> std::result::Result<Self, HeaderError> {
        let whole = bytes.first_chunk::<HEADER>();
        let Some(bytes) = bytes.first_chunk::<HEADER_V1>() else {
            return Err(HeaderError::Damaged(0, "shorter than its header"));
        };
        if bytes[..8] != MAGIC {
            return Err(HeaderError::Damaged(0, "the magic number differs"));
        }
        if le_u32(bytes, 60) != crc32fast::hash(&bytes[..60]) {
            return Err(HeaderError::Damaged(0, "the header's checksum differs"));
        }
        let note = match (le_u32(bytes, 8), whole) {
            (0, _) => return Err(HeaderError::Damaged(8, "format version 0")),
            (1, _) => None,
            (FORMAT_VERSION, Some(whole)) if le_u32(whole, NOTE_CHECKSUM_AT) == note_checksum(whole) => {
                Some(std::array::from_fn(|i| whole[HEADER_V1 + i]))
            }
            (FORMAT_VERSION, _) => {
                return Err(HeaderError::Damaged(HEADER_V1 as u64, "the note's checksum differs"));
            }
            (newer, _) => return Err(HeaderError::Newer(newer)),
        };
        let resumes = Position { segment: le_u64(bytes, 48), offset: le_u32(bytes, 56) };
        let header = SegmentHeader {
            database_id: std::array::from_fn(|i| bytes[12 + i]),
            size: le_u32(bytes, 28),
            sequence: le_u64(bytes, 32),
            incarnation: le_u64(bytes, 40),
            resumes_after: (resumes.segment != 0).then_some(resumes),
            note,
        };
        if header.size < header.frames_at() || !header.size.is_multiple_of(8) {
            return Err(HeaderError::Damaged(28, "an impossible size"));
        }
        if resumes.segment >= header.sequence || !resumes.offset.is_multiple_of(8) {
            return Err(HeaderError::Damaged(48, "resumes after an impossible position"));
        }
        Ok(header)
    }

    /// Checks that the header is of this log's segment `sequence`.
    pub(super) fn check(&self, log: &Log, sequence: u64) -> std::result::Result<(), HeaderError> {
        if self.database_id != log.database_id {
            return Err(HeaderError::Damaged(12, "belongs to another database"));
        }
        if self.sequence != sequence {
            return Err(HeaderError::Damaged(32, "the sequence is not that of the file's name"));
        }
        Ok(())
    }
}

impl HeaderError {
    /// As the crate's error.
    pub(super) fn at(self, path: &Path) -> Error {
        match self {
            HeaderError::Damaged(offset, reason) => corrupt(path, offset, reason),
            HeaderError::Newer(found) => {
                Error::NewerFormat { path: path.to_owned(), found, supported: FORMAT_VERSION }
            }
        }
    }
}

pub(super) fn segment_name(sequence: u64) -> String {
    format!("{sequence:010}.log")
}

/// The sequence that a segment's final name stands for.
fn parse_segment_name(name: &str) -> Option<u64> {
    let sequence = name.strip_suffix(".log")?.parse().ok()?;
    ((1..=SEQUENCE_MAX).contains(&sequence) && segment_name(sequence) == name).then_some(sequence)
}

/// What lies in the log's folder.
#[derive(Debug, Default)]
pub(crate) struct LogFolder {
    /// Segments under their final names, by sequence.
    pub(crate) segments: BTreeMap<u64, PathBuf>,
    /// Segments that were never finished.
    pub(crate) unfinished: Vec<PathBuf>,
    /// Damaged segments that a salvage put aside.
    pub(crate) damaged: Vec<PathBuf>,
    /// Everything else; never touched.
    pub(crate) foreign: Vec<PathBuf>,
}

impl LogFolder {
    /// Lists the folder; one that does not exist is empty.
    pub(crate) fn list(disk: &dyn Vfs, folder: &Path) -> Result<Self> {
        let mut found = LogFolder::default();
        for name in disk.read_dir(folder)?.unwrap_or_default() {
            let path = folder.join(&name);
            let name = name.to_string_lossy();
            if let Some(sequence) = parse_segment_name(&name) {
                found.segments.insert(sequence, path);
            } else if name.strip_suffix(".new").and_then(parse_segment_name).is_some() {
                found.unfinished.push(path);
            } else if name.split_once(".damaged").is_some_and(|(stem, _)| parse_segment_name(stem).is_some())
            {
                found.damaged.push(path);
            } else {
                found.foreign.push(path);
            }
        }
        Ok(found)
    }

    /// Whether anything in here is more than a segment that was never written to.
    pub(crate) fn holds_data(&self, disk: &dyn Vfs) -> Result<bool> {
        let mut bytes = vec![0; ZEROS_BYTES];
        for path in self.segments.values() {
            let Some(file) = disk.open(path, false)? else { continue };
            let Ok(header) = read_header(&*file)? else { return Ok(true) };
            let mut at = u64::from(header.frames_at());
            loop {
                let len = file.read_at(at, &mut bytes)?;
                if used_len(&bytes[..len]) > 0 {
                    return Ok(true);
                }
                if len < bytes.len() {
                    break;
                }
                at += len as u64;
            }
        }
        Ok(!self.damaged.is_empty())
    }

    /// A name for putting the damaged segment at `path` aside that is not taken.
    pub(super) fn name_for_damaged(&self, path: &Path) -> PathBuf {
        (1_u32..)
            .map(|n| {
                path.with_extension(if n == 1 { "log.damaged".into() } else { format!("log.damaged{n}") })
            })
            .find(|name| !self.damaged.contains(name))
            .unwrap_or_else(|| path.with_extension("log.damaged"))
    }

    /// Whose log it is: the database id in the first valid segment header, if there is one, and the owner's note, unless all of them are of
    /// format version 1. For a salvage whose superblock is gone.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NewerFormat`] if a segment was written by a newer version.
    pub(crate) fn owner(&self, disk: &dyn Vfs) -> Result<Option<(DatabaseId, Option<Note>)>> {
        let mut owner = None;
        for path in self.segments.values() {
            let Some(file) = disk.open(path, false)? else { continue };
            match read_header(&*file)? {
                Ok(SegmentHeader { database_id, note, .. }) => match &mut owner {
                    None => owner = Some((database_id, note)),
                    Some((id, known @ None)) if *id == database_id => *known = note,
                    Some(_) => {}
                },
                Err(error @ HeaderError::Newer(_)) => return Err(error.at(path)),
                Err(HeaderError::Damaged(..)) => {}
            }
        }
        Ok(owner)
    }
}

/// The checksum of a header's note, seeded with that of the bytes before it.
fn note_checksum(header: &[u8; HEADER]) -> u32 {
    let mut checksum = crc32fast::Hasher::new_with_initial(le_u32(header, 60));
    checksum.update(&header[HEADER_V1..NOTE_CHECKSUM_AT]);
    checksum.finalize()
}

/// Reads a file's header.
pub(super) fn read_header(file: &dyn VfsFile) -> Result<std::result::Result<SegmentHeader, HeaderError>> {
    let mut bytes = [0; HEADER];
    let len = file.read_at(0, &mut bytes)?;
    Ok(SegmentHeader::decode(&bytes[..len]))
}
