//! Going on after the log was read.
//!
//! What was read may so far be in the page cache only: after a failed sync the system may even call such pages clean. So whatever
//! nobody called synced is written again, the same bytes in the same place, and synced, before anything relies on it.
//!
//! If nothing was cut, the log goes on in place: nothing was ever written behind its end. Otherwise it goes on in a new segment of
//! a higher incarnation that says after which position it resumes. That segment's rename is the one moment at which the log
//! changes; before it the old log is untouched, after it the rest of the old one is void, whether it is removed or not.
//!
//! A salvage is the same, except that the new segment begins with everything sound behind the first damage, and that what it makes
//! void is put aside under another name.

use std::collections::VecDeque;
use std::path::Path;

use super::chain::Live;
use super::frame::{FRAME_BYTES_MIN, FRAME_HEADER_BYTES, FrameHeader, Kind, frame_bytes};
use super::reader::{LogReport, Walk, Walked, rejected};
use super::segment::{SegmentHeader, make_segment};
use super::{
    Log, LogStart, LogWriter, NotTaken, OnRecord, Position, Recovery, Segment, SegmentMaker, corrupt,
};
use crate::error::{Error, Result};
use crate::io::VfsFile;
use crate::planted::Bug;

/// A log that is ready to be written again.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Goes on behind the last record; all before is durable.
    pub(crate) writer: LogWriter,
    /// Makes the segments that follow.
    pub(crate) maker: SegmentMaker,
    /// Bytes of [`frame_bytes`] that the writer's segments are sure to take.
    pub(crate) free_bytes: u64,
    /// The version of the last record; 0 if there is none.
    pub(crate) last_version: u64,
    /// What was found and done.
    pub(crate) report: LogReport,
}

/// Reads the log, passes on its records in order, and makes it ready to be written. `at_end` is asked once all are passed on, or something failed, and
/// before anything is written: whether all were taken that only seemed to be.
///
/// Cost: the log is read once, what is behind a damaged or torn place twice. Memory: two segments and the largest record.
///
/// # Errors
/// [`Error::Corrupt`] if something that was synced is damaged or missing (in a strict recovery), [`Error::NewerFormat`] if a segment is
/// of a newer format version; in both cases nothing was touched. [`Error::DiskFull`] or [`Error::Io`] if the disk refuses, and
/// whatever `on_record` returns. After any error recovery can be tried again.
pub(crate) fn recover(
    log: &Log,
    start: &LogStart,
    mode: Recovery,
    on_record: &mut OnRecord<'_>,
    at_end: &mut dyn FnMut() -> std::result::Result<(), NotTaken>,
) -> Result<Recovered> {
    let walked = Walk::new(log, start, mode)?.run(on_record);
    match at_end() {
        // It is the earlier one of the two.
        Err(NotTaken::RejectedEarlier(version, reason)) => return Err(rejected(log, start, version, reason)),
        Err(NotTaken::Rejected(reason)) => return Err(corrupt(&log.folder(), 0, reason)),
        Err(NotTaken::Failed(error)) => return Err(error),
        Ok(()) => {}
    }
    let mut walked = walked?;
    if !log.planted.has(Bug::SkipRecoverySync) {
        write_again(log, &walked)?;
    }
    let (writer, maker) = match walked.resume_after {
        None => go_on(log, &walked)?,
        Some(position) => resume(log, start, &walked, position)?,
    };
    clean_up(log, start, &mut walked);
    Ok(Recovered {
        free_bytes: writer.free_bytes(),
        last_version: walked.report.last_version,
        report: walked.report,
        writer,
        maker,
    })
}

/// Makes durable what is not known to be.
fn write_again(log: &Log, walked: &Walked) -> Result<()> {
    let live = &walked.chain.live;
    let (end, end_offset) = match walked.resume_after {
        None => walked.end,
        Some(position) => (live.partition_point(|live| live.sequence < position.segment), position.offset),
    };
    let mut bytes = Vec::new();
    for (index, segment) in live.iter().enumerate().take(end + 1) {
        let from = match segment.sequence.cmp(&walked.synced.segment) {
            std::cmp::Ordering::Less => continue,
            std::cmp::Ordering::Equal => walked.synced.offset.max(segment.frames_at()),
            std::cmp::Ordering::Greater => segment.frames_at(),
        };
        let to = if index == end { end_offset } else { segment.limit };
        if from >= to {
            continue;
        }
        segment.load(log, &mut bytes, Recovery::Strict)?;
        // A page that was dropped since it was read shows older bytes now.
        let seed = walked.chain.seed(log, segment, &bytes);
        let mut at = from;
        while to - at >= FRAME_BYTES_MIN {
            let sound = FrameHeader::decode(&bytes, at, seed)
                .filter(|header| header.payload(&bytes, at, log.planted.has(Bug::ForgetChecksum)).is_ok())
                .filter(|header| header.frame_bytes() <= to - at);
            let Some(header) = sound else {
                if log.planted.has(Bug::KeepFramesAfterCut) {
                    break;
                }
                return Err(corrupt(
                    &segment.path,
                    at.into(),
                    "the bytes are not those that were read before",
                ));
            };
            at += header.frame_bytes();
        }
        let Some(uncertain) = bytes.get(from as usize..to as usize) else { continue };
        let file = open_for_writing(log, segment)?;
        file.write_at(from.into(), uncertain)?;
        file.sync()?;
    }
    Ok(())
}

fn open_for_writing(log: &Log, live: &Live) -> Result<Box<dyn VfsFile>> {
    log.disk.open(&live.path, true)?.ok_or_else(|| corrupt(&live.path, 0, "the segment vanished"))
}

/// Goes on where the log ends, in the segments that are there.
fn go_on(log: &Log, walked: &Walked) -> Result<(LogWriter, SegmentMaker)> {
    let live = &walked.chain.live;
    let (index, offset) = walked.end;
    let end = Position { segment: live[index].sequence, offset };
    // The name of a segment that holds frames is durable: it was made so before the first of them. An empty one's may not be.
    let last_is_empty = index + 1 < live.len() || offset == live[index].frames_at();
    if last_is_empty && !log.planted.has(Bug::SkipRecoverySync) {
        log.disk.sync_dir(&log.folder())?;
    }
    let reached = live[..=index].iter().map(Live::reached).collect();
    let mut writer = LogWriter::new(reached, end, walked.report.last_version, log.planted);
    let mut last = (walked.chain.last_sequence, 1, 0);
    for live in &live[index..] {
        let Some(header) = live.header else { continue };
        last = (live.sequence, header.incarnation, header.size);
        writer.push_segment(Segment { header, path: live.path.clone(), file: open_for_writing(log, live)? });
    }
    let (_, incarnation, used) = last;
    Ok((writer, SegmentMaker::new(log.clone(), walked.chain.last_sequence + 1, incarnation, used)))
}

/// Goes on in a new segment that resumes after `position`, with the sound records behind it if there was damage.
fn resume(
    log: &Log,
    start: &LogStart,
    walked: &Walked,
    position: Position,
) -> Result<(LogWriter, SegmentMaker)> {
    // Behind everything that anybody ever called synced: positions only go up.
    let sequence = walked.chain.last_sequence.max(walked.synced.segment).saturating_add(1);
    let incarnation = walked.chain.incarnations.iter().max().map_or(1, |last| last.saturating_add(1));
    let mut header = SegmentHeader {
        database_id: log.database_id,
        sequence,
        incarnation,
        resumes_after: Some(position),
        size: log.sizes.for_bytes(2 * u64::from(position.offset)),
        note: Some(log.note),
    };
    let salvage = !walked.report.damage.is_empty();
    let mut end = header.frames_at();
    if salvage {
        // All in one segment, whatever its size, so that it appears at once.
        let needed = u64::from(header.frames_at() + 2 * FRAME_HEADER_BYTES) + walked.salvaged_bytes;
        let Ok(needed) = u32::try_from(needed) else {
            return Err(Error::io(
                "salvage",
                log.segment_path(sequence),
                std::io::ErrorKind::FileTooLarge.into(),
            ));
        };
        header.size = log.sizes.for_bytes(2 * u64::from(needed)).max(needed);
    }
    let segment = make_segment(log, header, |file| {
        if salvage {
            end = write_salvaged(log, start, walked, &header, file)?;
        }
        Ok(end)
    })?;
    let counts = |live: &&Live| (live.sequence, 0) < (position.segment, position.offset);
    let mut reached: VecDeque<_> = walked.chain.live.iter().take_while(counts).map(Live::reached).collect();
    reached.push_back(segment.reached(walked.version_before + 1));
    let end = Position { segment: sequence, offset: end };
    let mut writer = LogWriter::new(reached, end, walked.report.last_version, log.planted);
    writer.push_segment(segment);
    Ok((writer, SegmentMaker::new(log.clone(), sequence + 1, incarnation, header.size)))
}

/// Writes everything sound behind the first damage into a new segment; returns the end.
///
/// A [`Kind::Lost`] frame stands for each run of lost versions, one more at the beginning says that a salvage made the segment, and one at
/// the end that all before it is synced.
fn write_salvaged(
    log: &Log,
    start: &LogStart,
    walked: &Walked,
    header: &SegmentHeader,
    file: &dyn VfsFile,
) -> Result<u32> {
    let changed = || corrupt(&log.folder(), 0, "the log changed while it was salvaged");
    let seed = header.seed();
    let mut at = header.frames_at();
    let mut buffer = Vec::new();
    let mut put = |kind, version, payload: &[u8]| {
        let bytes = frame_bytes(payload.len() as u64);
        if bytes > u64::from(header.size - at) {
            return Err(changed());
        }
        let frame = FrameHeader {
            kind,
            version,
            payload_len: payload.len() as u32,
            payload_crc: crc32fast::hash(payload),
            // The file is synced before it gets its name.
            synced: Position { segment: header.sequence, offset: at },
        };
        buffer.clear();
        buffer.extend_from_slice(&frame.encode(seed, at));
        buffer.extend_from_slice(payload);
        buffer.resize(bytes as usize, 0);
        file.write_at(at.into(), &buffer)?;
        at += bytes as u32;
        Ok(())
    };
    put(Kind::Lost, walked.version_before, &[])?;
    let mut last = walked.version_before;
    let lost = &walked.report.lost_versions;
    let again = Walk::new(log, start, Recovery::Salvage)?.run(&mut |version, payload| {
        if lost.iter().any(|(first, last)| (*first..=*last).contains(&version)) {
            return Err(NotTaken::Rejected("it was given up"));
        }
        if version <= walked.version_before {
            return Ok(());
        }
        if version != last + 1 {
            put(Kind::Lost, version - 1, &[])?;
        }
        last = version;
        Ok(put(Kind::Whole, version, payload)?)
    })?;
    if (again.report.records, again.report.bytes) != (walked.report.records, walked.report.bytes) {
        return Err(changed());
    }
    put(Kind::Lost, walked.report.last_version, &[])?;
    Ok(at)
}

/// Removes what does not count, or puts it aside after a salvage. Nothing depends on it, so what fails is left for the next time.
fn clean_up(log: &Log, start: &LogStart, walked: &mut Walked) {
    let Walked { chain, report, .. } = walked;
    let disk = &*log.disk;
    let swept = &mut report.swept;
    let mut sweep = |path: &Path| {
        if disk.remove(path).is_ok() {
            swept.push(path.to_owned());
        }
    };
    for path in &chain.folder.unfinished {
        sweep(path);
    }
    let salvage = !report.damage.is_empty();
    let put_aside = &mut report.put_aside;
    let mut aside = |path: &Path| {
        let aside = chain.folder.name_for_damaged(path);
        if disk.rename(path, &aside).is_ok() {
            put_aside.push(aside);
        }
    };
    // What nobody needs any more, and what an earlier recovery made void and did not get rid of.
    for (sequence, path) in &chain.folder.segments {
        if walked.salvaged_before && *sequence >= start.first_segment { aside(path) } else { sweep(path) }
    }
    let Some(position) = walked.resume_after else { return };
    for live in &chain.live {
        if (live.sequence, 0) >= (position.segment, position.offset) {
            if salvage { aside(&live.path) } else { sweep(&live.path) }
        } else if live.sequence == position.segment
            && !salvage
            && let Ok(Some(file)) = disk.open(&live.path, true)
        {
            let _ = file.set_len(position.offset.into());
        }
    }
}
