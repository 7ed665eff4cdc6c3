//! The commit log: opaque records with consecutive versions, in segments.
//!
//! What it guarantees
//! * A record that [`LogWriter::write`] or [`LogWriter::sync`] called synced is there after a power cut, whole.
//! * What [`recover`] passes on is a prefix of what was written, in order, nothing invented. What is missing behind it was never
//!   synced; damage to what was synced is [`Error::Corrupt`], never a silent loss.
//! * A recovery may be interrupted at any moment, and the next one may be too.
//!
//! What it relies on: the four sentences of [`crate::io`]. It takes no locks, starts no threads, reads no clocks and does not look
//! into payloads. Whoever writes reserves space first ([`frame_bytes`], [`Segment::usable_bytes`]) and has the
//! [`SegmentMaker`] make the next segment elsewhere: making one is slow, pushing it is not.
//!
//! Parts: `frame` (a record's bytes), `segment` (a file and how it is made), `writer`, `chain` (which segments count), `reader` (walking
//! over them, the torn-tail rule), `recovery` (going on after what was found). Format: `design/commitlog.md`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::io::Vfs;
use crate::planted::Planted;

mod chain;
mod examine;
mod frame;
mod reader;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use examine::{Examined, examine, find_start};
use frame::FRAME_ALIGNMENT;
#[cfg(test)]
use frame::FRAME_HEADER_BYTES;
pub(crate) use frame::{frame_bytes, le_u32, le_u64};
pub(crate) use reader::LogReport;
#[cfg(test)]
use reader::read;
pub(crate) use recovery::{Recovered, recover};
use segment::SEGMENT_HEADER_BYTES;
pub(crate) use segment::{LogFolder, Segment, SegmentMaker};
pub(crate) use writer::{LogWriter, Record};

/// The log's folder in the database's.
pub(crate) const FOLDER: &str = "commitlog";

/// What makes a database distinguishable from every other: random bytes.
pub(crate) type DatabaseId = [u8; 16];

/// What the log keeps for its owner in the header of each segment: so that it is found wherever the log begins, and what it means is not the
/// log's business.
pub(crate) type Note = [u8; 28];

/// A place in the log: the end of what comes before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    /// The segment's sequence, from 1 on.
    pub(crate) segment: u64,
    /// The offset in its file, in bytes.
    pub(crate) offset: u32,
}

/// How large segments are made, in bytes: powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentSizes {
    min: u32,
    max: u32,
}

impl SegmentSizes {
    /// The smallest segment that can be asked for, in bytes.
    pub(crate) const BYTES_MIN: u32 = 16 << 10;
    /// The largest segment that can be asked for, in bytes.
    pub(crate) const BYTES_MAX: u32 = 1 << 30;

    /// Segments double from `min` to `max` bytes.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if one of them is no power of two from 16 KiB to 1 GiB, or `min` is above `max`.
    pub(crate) fn new(min: u64, max: u64) -> Result<Self> {
        let size = |option, bytes: u64| match u32::try_from(bytes) {
            Ok(bytes) if bytes.is_power_of_two() && (Self::BYTES_MIN..=Self::BYTES_MAX).contains(&bytes) => {
                Ok(bytes)
            }
            _ => Err(Error::InvalidOption { option, reason: "a power of two from 16 KiB to 1 GiB" }),
        };
        let sizes =
            SegmentSizes { min: size("segment_bytes_min", min)?, max: size("segment_bytes_max", max)? };
        if sizes.min > sizes.max {
            return Err(Error::InvalidOption {
                option: "segment_bytes_min",
                reason: "at most segment_bytes_max",
            });
        }
        Ok(sizes)
    }

    /// The size of a segment for this many bytes.
    pub(crate) fn for_bytes(self, bytes: u64) -> u32 {
        let bytes = bytes.min(self.max.into()) as u32;
        bytes.next_power_of_two().clamp(self.min, self.max)
    }

    /// The size of the first segment, in bytes.
    pub(crate) fn min(self) -> u32 {
        self.min
    }

    /// The size that segments double up to, in bytes.
    pub(crate) fn max(self) -> u32 {
        self.max
    }
}

impl Default for SegmentSizes {
    /// From 256 KiB to 64 MiB.
    fn default() -> Self {
        SegmentSizes { min: 256 << 10, max: 64 << 20 }
    }
}

/// A database's log, as far as it does not change: where it is and whose.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// The disk it lies on.
    pub(crate) disk: Arc<dyn Vfs>,
    /// The database's folder; the segments are in its [`FOLDER`].
    pub(crate) dir: PathBuf,
    /// The database it belongs to.
    pub(crate) database_id: DatabaseId,
    /// The owner's note for the segments that are made.
    pub(crate) note: Note,
    /// How large its segments are made.
    pub(crate) sizes: SegmentSizes,
    /// Mistakes to make.
    pub(crate) planted: Planted,
}

impl Log {
    /// The folder of the segments.
    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.join(FOLDER)
    }

    fn segment_path(&self, sequence: u64) -> PathBuf {
        self.folder().join(segment::segment_name(sequence))
    }

    /// How long its segments are together, from `first` on: those that do not count too.
    pub(crate) fn file_bytes_from(&self, first: u64) -> Result<u64> {
        let mut bytes = 0;
        for (_, path) in LogFolder::list(&*self.disk, &self.folder())?.segments.range(first..) {
            bytes += self.disk.open(path, false)?.map_or(Ok(0), |file| file.len())?;
        }
        Ok(bytes)
    }

    /// Removes all segments before `first`, oldest first, also those that do not count. Both slots of the superblock must name `first`
    /// as the log's first segment by then.
    ///
    /// The folder is not synced: a segment that a power cut brings back does not count and goes at the next recovery.
    ///
    /// # Errors
    /// [`Error::Io`]. What is left does not count, and goes with the next removal or at the next recovery.
    pub(crate) fn remove_before(&self, first: u64) -> Result<()> {
        for (_, path) in LogFolder::list(&*self.disk, &self.folder())?.segments.range(..first) {
            self.disk.remove(path)?;
        }
        Ok(())
    }

    /// Makes the folder and the first segment of a new log that goes on after `version`, 0 for one from the beginning; leftovers of an interrupted creation are
    /// replaced. Makes both durable except for the folder's own name, which is the caller's to sync.
    ///
    /// # Errors
    /// [`Error::DiskFull`] or [`Error::Io`].
    pub(crate) fn create(&self, version: u64) -> Result<(LogWriter, SegmentMaker)> {
        let folder = self.folder();
        self.disk.create_dir_all(&folder)?;
        let leftovers = LogFolder::list(&*self.disk, &folder)?;
        for path in leftovers.segments.values().chain(&leftovers.unfinished) {
            self.disk.remove(path)?;
        }
        let mut maker = SegmentMaker::new(self.clone(), 1, 1, 0);
        let first = maker.make(0)?;
        let start = Position { segment: first.sequence(), offset: first.header.frames_at() };
        let mut writer = LogWriter::new([first.reached(version + 1)].into(), start, version, self.planted);
        writer.push_segment(first);
        Ok((writer, maker))
    }
}

/// What the superblock knows about the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogStart {
    /// The sequence of the first segment that is still needed.
    pub(crate) first_segment: u64,
    /// The version of the first record that begins in it or behind it.
    pub(crate) first_version: u64,
    /// A position up to which the log is known to be synced.
    pub(crate) synced: Position,
    /// The version of the last record before that position; 0 if there is none.
    pub(crate) synced_version: u64,
}

impl Default for LogStart {
    /// A log from its beginning on, nothing of which is known to be synced.
    fn default() -> Self {
        LogStart { first_segment: 1, first_version: 1, synced: Position::default(), synced_version: 0 }
    }
}

/// Takes the records one by one: version and payload.
pub(crate) type OnRecord<'a> = dyn FnMut(u64, &[u8]) -> std::result::Result<(), NotTaken> + 'a;

/// Why a record was not taken.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// The payload makes no sense, although its checksum holds. The log says where it lies, and a salvage goes on without it.
    Rejected(&'static str),
    /// This one may be sound, but the payload of the one of this version, which was taken, makes no sense. The log says where that lies.
    RejectedEarlier(u64, &'static str),
    /// Something else failed, and reading with it.
    Failed(Error),
}

impl From<Error> for NotTaken {
    fn from(error: Error) -> Self {
        NotTaken::Failed(error)
    }
}

/// What to do about damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// Damage is an error and nothing is touched.
    Strict,
    /// Damage is skipped and reported, everything sound is kept, and the log is made whole again.
    Salvage,
}

/// An [`Error::Corrupt`] of this format.
pub(crate) fn corrupt(path: &Path, offset: u64, reason: &'static str) -> Error {
    Error::Corrupt { format: "commit log segment", path: path.to_owned(), offset, metric: None, reason }
}
