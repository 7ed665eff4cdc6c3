//! Which segments count.
//!
//! The last segment counts. From each that counts the log leads back to the one before it, or, if it resumes after a position, to
//! that position; what lies between is void. So recovery needs to remove nothing for the log to be right.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::frame::{FRAME_ALIGNMENT, FrameHeader, FrameSeed};
use super::reader::Damage;
use super::segment::{HeaderError, LogFolder, SEGMENT_HEADER_BYTES_V1, SegmentHeader, read_header};
use super::writer::Reached;
use super::{Log, Position, Recovery, SEGMENT_HEADER_BYTES, corrupt};
use crate::error::{Error, Result};

/// What a salvage reads at once where the disk has trouble, in bytes.
const PIECE_BYTES: usize = 4096;

/// A segment that counts.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) sequence: u64,
    pub(super) path: PathBuf,
    pub(super) header: Option<SegmentHeader>,
    /// The bytes that count end here.
    pub(super) limit: u32,
    /// Whether the next segment resumes at `limit`.
    pub(super) resumed: bool,
    /// Whether it is as it was made. Always so in a strict recovery.
    pub(super) sound: bool,
    /// Whether the segment that it should follow is missing. Never so in a strict recovery.
    pub(super) after_gap: bool,
    /// The version of the first record that begins in it or in a later one; 0 before it was walked over.
    pub(super) first_version: u64,
}

impl Live {
    /// Where the first frame starts; if the header is damaged, where it starts in a segment of the newest version.
    pub(super) fn frames_at(&self) -> u32 {
        self.header.map_or(SEGMENT_HEADER_BYTES, |header| header.frames_at())
    }

    /// The segment as one that the log has reached.
    pub(super) fn reached(&self) -> Reached {
        let bytes = self.header.filter(|_| !self.resumed).map_or(self.limit, |header| header.size);
        Reached { segment: self.sequence, first_version: self.first_version, bytes }
    }

    /// Reads the bytes that count. A salvage takes zeros for what the disk cannot read.
    pub(super) fn load(&self, log: &Log, bytes: &mut Vec<u8>, mode: Recovery) -> Result<()> {
        let len = self.limit as usize;
        bytes
            .try_reserve_exact(len.saturating_sub(bytes.len()))
            .map_err(|_| Error::io("read", &self.path, std::io::ErrorKind::OutOfMemory.into()))?;
        bytes.resize(len, 0);
        let file = log
            .disk
            .open(&self.path, false)?
            .ok_or_else(|| corrupt(&self.path, 0, "the segment vanished"))?;
        match file.read_at(0, bytes) {
            Ok(read) if read == len => Ok(()),
            Ok(_) => Err(corrupt(&self.path, 0, "the file became shorter while it was read")),
            Err(_) if mode == Recovery::Salvage => {
                for (place, piece) in bytes.chunks_mut(PIECE_BYTES).enumerate() {
                    if file.read_at((place * PIECE_BYTES) as u64, piece).is_err() {
                        piece.fill(0);
                    }
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// The segments that count, in order.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) live: Vec<Live>,
    /// What else lies in the folder: its `segments` are only those that do not count.
    pub(super) folder: LogFolder,
    /// The highest sequence of any segment, of those that do not count as well.
    pub(super) last_sequence: u64,
    /// All incarnations that occur.
    pub(super) incarnations: Vec<u64>,
    /// Where segments resume: everything before was made durable first.
    pub(super) resumed_after: Position,
    /// Only in a salvage.
    pub(super) damage: Vec<Damage>,
}

/// What the segments' headers say, and the files' lengths in bytes, by sequence. No file stays open: there may be many.
type Headers = BTreeMap<u64, (std::result::Result<SegmentHeader, HeaderError>, u64)>;

impl Chain {
    /// Reads all headers and follows the log back from the last segment to `first`.
    ///
    /// # Errors
    /// [`Error::NewerFormat`] if any segment is of a newer version. In a strict recovery [`Error::Corrupt`] if one that counts is
    /// missing, damaged, of another database or under another's name.
    pub(super) fn find(log: &Log, first: u64, mode: Recovery) -> Result<Self> {
        let mut folder = LogFolder::list(&*log.disk, &log.folder())?;
        let mut headers = read_headers(log, &folder, mode)?;
        let mut chain = Chain {
            live: Vec::new(),
            last_sequence: folder
                .segments
                .last_key_value()
                .map_or(first.saturating_sub(1), |(last, _)| *last),
            incarnations: headers
                .values()
                .flat_map(|(header, _)| header.as_ref().map(|h| h.incarnation))
                .collect(),
            resumed_after: Position::default(),
            damage: Vec::new(),
            folder: LogFolder::default(),
        };
        let mut next = chain.last_sequence.max(first);
        let mut limit = None;
        while next >= first.max(1) {
            let path = log.segment_path(next);
            let Some((header, len)) = headers.remove(&next) else {
                chain.damaged(mode, &path, 0, "the segment is missing")?;
                if let Some(above) = chain.live.last_mut() {
                    above.after_gap = true;
                }
                limit = None;
                match headers.range(..next).next_back() {
                    Some((&below, _)) => next = below,
                    None => break,
                }
                continue;
            };
            folder.segments.remove(&next);
            chain.live.push(Live {
                sequence: next,
                path,
                header: None,
                limit: 0,
                resumed: limit.is_some(),
                sound: false,
                after_gap: false,
                first_version: 0,
            });
            let resumes = chain.check_last(mode, header, len, limit)?;
            chain.resumed_after = chain.resumed_after.max(resumes.unwrap_or_default());
            (next, limit) = match resumes {
                None => (next.saturating_sub(1), None),
                Some(Position { segment, offset: 0 }) => (segment.saturating_sub(1), None),
                Some(Position { segment, offset }) => (segment, Some(offset)),
            };
        }
        chain.live.reverse();
        chain.damage.reverse();
        chain.folder = folder;
        Ok(chain)
    }

    /// Checks the segment found last against its file and against the one above it; tells where it resumes.
    fn check_last(
        &mut self,
        mode: Recovery,
        header: std::result::Result<SegmentHeader, HeaderError>,
        len: u64,
        limit: Option<u32>,
    ) -> Result<Option<Position>> {
        let above = match self.live.as_slice() {
            [.., above, _] => above.header,
            _ => None,
        };
        let Some(live) = self.live.last_mut() else { return Ok(None) };
        let path = live.path.clone();
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let aligned = len - len % FRAME_ALIGNMENT;
        let header = match header {
            Ok(header) => header,
            Err(HeaderError::Damaged(offset, reason)) => {
                live.limit = limit.map_or(aligned, |limit| limit.min(aligned));
                self.damaged(mode, &path, offset, reason)?;
                return Ok(None);
            }
            Err(newer @ HeaderError::Newer(_)) => return Err(newer.at(&path)),
        };
        let counts = limit.unwrap_or(header.size);
        live.header = Some(header);
        live.limit = counts.min(aligned);
        let wrong = if counts > len || counts > header.size || counts < header.frames_at() {
            Some((u64::from(len), "the file ends too early"))
        } else if limit.is_none() && len > header.size {
            Some((u64::from(header.size), "the file goes on behind the segment"))
        } else if above.is_some_and(|above| match above.resumes_after {
            None => above.incarnation != header.incarnation,
            Some(_) => above.incarnation <= header.incarnation,
        }) {
            Some((40, "the incarnation does not fit the next segment's"))
        } else {
            None
        };
        live.sound = wrong.is_none();
        if let Some((offset, reason)) = wrong {
            self.damaged(mode, &path, offset, reason)?;
        }
        Ok(header.resumes_after)
    }

    /// Notes damage, or stops because of it.
    fn damaged(&mut self, mode: Recovery, path: &Path, offset: u64, reason: &'static str) -> Result<()> {
        if mode == Recovery::Strict {
            return Err(corrupt(path, offset, reason));
        }
        self.damage.push(Damage { path: path.to_owned(), offset, reason, versions: None });
        Ok(())
    }

    /// What the frame checksums of a segment start from. If its header is damaged, that of the incarnation some of whose frames
    /// are in there.
    pub(super) fn seed(&self, log: &Log, live: &Live, bytes: &[u8]) -> FrameSeed {
        let seed_of = |incarnation| FrameSeed::new(&log.database_id, live.sequence, incarnation);
        if let Some(header) = live.header {
            return seed_of(header.incarnation);
        }
        let has_frames = |seed: &FrameSeed| {
            (SEGMENT_HEADER_BYTES_V1..live.limit)
                .step_by(FRAME_ALIGNMENT as usize)
                .any(|offset| FrameHeader::decode(bytes, offset, *seed).is_some())
        };
        self.incarnations
            .iter()
            .map(|incarnation| seed_of(*incarnation))
            .find(has_frames)
            .unwrap_or(seed_of(0))
    }
}

fn read_headers(log: &Log, folder: &LogFolder, mode: Recovery) -> Result<Headers> {
    let mut headers = Headers::new();
    for (&sequence, path) in &folder.segments {
        let Some(file) = log.disk.open(path, false)? else { continue };
        let header = match read_header(&*file) {
            Err(_) if mode == Recovery::Salvage => Err(HeaderError::Damaged(0, "it cannot be read")),
            Err(error) => return Err(error),
            // A newer format anywhere: say nothing else about the files, and touch none.
            Ok(Err(newer @ HeaderError::Newer(_))) => return Err(newer.at(path)),
            Ok(header) => header.and_then(|header| header.check(log, sequence).map(|()| header)),
        };
        headers.insert(sequence, (header, file.len()?));
    }
    Ok(headers)
}
