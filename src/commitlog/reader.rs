//! Reading the log: walking over its frames, and the torn-tail rule.
//!
//! The rule: when reading meets something at x that is no frame, the log was damaged there if anybody says that something behind x
//! was synced: the superblock, a later frame, or a segment that resumes. Otherwise x is where the power was cut: the log ends
//! there, and what lies behind was never promised to anybody, valid frames included. If nothing but zeros lies behind, the
//! log just ends. A record that is not complete ends the log where it began.
//!
//! Nothing here writes. Two segments at most are in memory, and the record that is being put together.
//!
//! Format: `design/commitlog.md`.

use std::path::PathBuf;

use super::chain::Chain;
use super::frame::{
    FRAME_ALIGNMENT, FRAME_BYTES_MIN, FRAME_HEADER_BYTES, FrameHeader, FrameSeed, Kind, frame_bytes,
};
use super::segment::{SEGMENT_HEADER_BYTES_V1, used_len};
use super::{Log, LogStart, NotTaken, OnRecord, Position, Recovery, SEGMENT_HEADER_BYTES, corrupt};
use crate::error::{Error, Result};
use crate::planted::Bug;

/// What reading the log showed.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogReport {
    /// Segments that were read.
    pub(crate) segments: u64,
    /// Records that were passed on.
    pub(crate) records: u64,
    /// Bytes of their payloads.
    pub(crate) bytes: u64,
    /// The version that the log goes on after; 0 if it begins.
    pub(crate) last_version: u64,
    /// The torn tail, if there was one.
    pub(crate) cut: Option<Cut>,
    /// Files that recovery removed: unfinished segments, and segments behind a cut.
    pub(crate) swept: Vec<PathBuf>,
    /// Damaged segments that a salvage put aside, now or earlier.
    pub(crate) put_aside: Vec<PathBuf>,
    /// Files in the log's folder that are not the log's. They are left alone.
    pub(crate) foreign: Vec<PathBuf>,
    /// Damage that a salvage skipped. Empty after a strict recovery.
    pub(crate) damage: Vec<Damage>,
    /// Versions that a salvage gave up, now or earlier: first and last of each run.
    pub(crate) lost_versions: Vec<(u64, u64)>,
}

/// A torn tail: what a power cut left of writes that were never promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The file in which the log ends.
    pub(crate) path: PathBuf,
    /// Where it ends.
    pub(crate) position: Position,
    /// Why there was nothing more to read.
    pub(crate) reason: &'static str,
    /// Bytes from there to the last one that is not zero.
    pub(crate) bytes: u64,
    /// Sound frame headers among them.
    pub(crate) frames: u64,
    /// The version of the first record that was cut, if any frame shows that there was one.
    pub(crate) first_version: Option<u64>,
}

/// A damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The damaged file.
    pub(crate) path: PathBuf,
    /// Where in it the damage was seen.
    pub(crate) offset: u64,
    /// What is wrong there.
    pub(crate) reason: &'static str,
    /// First and last version of the records lost between the sound ones around it; `None` if none was, or nothing sound follows.
    pub(crate) versions: Option<(u64, u64)>,
}

/// Reads the log and changes nothing.
///
/// # Errors
/// As for [`recover`](super::recover), except those of writing.
#[cfg(test)]
pub(crate) fn read(
    log: &Log,
    start: &LogStart,
    mode: Recovery,
    on_record: &mut OnRecord<'_>,
) -> Result<LogReport> {
    Ok(Walk::new(log, start, mode)?.run(on_record)?.report)
}

/// What a walk found, for recovery to go on from.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) report: LogReport,
    pub(super) chain: Chain,
    /// Everything before is known to be synced.
    pub(super) synced: Position,
    /// Which of the live segments the log ends in, and where.
    pub(super) end: (usize, u32),
    /// Behind this nothing is good enough to go on writing: the log has to be resumed in a new segment. `None`: it goes on at `end`.
    pub(super) resume_after: Option<Position>,
    /// The last version before `resume_after`.
    pub(super) version_before: u64,
    /// Bytes of frames that the sound records behind `resume_after` take, with a [`Kind::Lost`] for each gap.
    pub(super) salvaged_bytes: u64,
    /// Whether a salvage made a segment that counts.
    pub(super) salvaged_before: bool,
}

/// The error of a record that was taken, and makes no sense nevertheless. The log is walked over again, to see where it is.
pub(super) fn rejected(log: &Log, start: &LogStart, version: u64, reason: &'static str) -> Error {
    let walk = Walk::new(log, start, Recovery::Strict).and_then(|walk| {
        walk.run(&mut |read, _| if read == version { Err(NotTaken::Rejected(reason)) } else { Ok(()) })
    });
    match walk {
        Err(error) => error,
        Ok(_) => corrupt(&log.folder(), 0, reason),
    }
}

/// A record of which some pieces were read.
#[derive(Debug)]
struct Pending {
    /// Where it begins: in which of the live segments, and the offset.
    start: (usize, u32),
    /// The live segment of its last piece; the next piece begins the next segment.
    last: usize,
    frames: u64,
    payload: Vec<u8>,
}

/// Why a step could not be made.
enum Stuck {
    /// There is no frame that fits; the reason.
    NoFrame(&'static str),
    /// Something else failed.
    Failed(Error),
}

/// What lies behind a place.
#[derive(Debug, Default)]
struct Tail {
    /// Bytes up to the last that is not zero, segment headers aside.
    bytes: u64,
    frames: u64,
}

/// One walk over the log.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    log: &'a Log,
    mode: Recovery,
    start: LogStart,
    /// The version expected next.
    version: u64,
    pending: Option<Pending>,
    /// Behind damage, in a salvage: whatever does not begin a record is passed over. Which damage it is in the report.
    skipping: Option<usize>,
    walked: Walked,
}

impl<'a> Walk<'a> {
    /// Finds the segments that count.
    pub(super) fn new(log: &'a Log, start: &LogStart, mode: Recovery) -> Result<Self> {
        let mut chain = Chain::find(log, start.first_segment, mode)?;
        let version_before = start.first_version.saturating_sub(1);
        let report = LogReport {
            segments: chain.live.len() as u64,
            last_version: version_before,
            foreign: chain.folder.foreign.clone(),
            put_aside: chain.folder.damaged.clone(),
            damage: std::mem::take(&mut chain.damage),
            ..LogReport::default()
        };
        let walked = Walked {
            report,
            synced: start.synced.max(chain.resumed_after),
            chain,
            end: (0, SEGMENT_HEADER_BYTES),
            resume_after: None,
            version_before,
            salvaged_bytes: 0,
            salvaged_before: false,
        };
        Ok(Walk {
            log,
            mode,
            start: *start,
            version: version_before + 1,
            pending: None,
            skipping: None,
            walked,
        })
    }

    /// Walks to the end of the log and passes on its records.
    pub(super) fn run(mut self, on_record: &mut OnRecord<'_>) -> Result<Walked> {
        let mut bytes = Vec::new();
        for index in 0..self.walked.chain.live.len() {
            let live = &self.walked.chain.live[index];
            live.load(self.log, &mut bytes, self.mode)?;
            let seed = self.walked.chain.seed(self.log, live, &bytes);
            if live.after_gap {
                let damage = self.walked.report.damage.iter().rposition(|damage| damage.path <= live.path);
                self.skip_from((index, 0), damage.unwrap_or(0));
            } else if !live.sound {
                // Its frames may be sound, but a strict reader gets no further than here.
                self.resume_after(self.pending.as_ref().map_or((index, 0), |pending| pending.start));
            }
            // Of a record that is not complete yet, only pieces can follow.
            self.walked.chain.live[index].first_version = self.version + u64::from(self.pending.is_some());
            if self.walk_segment(index, &bytes, seed, on_record)? {
                break;
            }
        }
        if self.walked.chain.live.is_empty() {
            self.skip_from((0, 0), 0);
        }
        self.finish()
    }

    /// Compares what was read with the last version known to be synced.
    fn finish(mut self) -> Result<Walked> {
        let known = self.start.synced_version;
        if self.walked.report.last_version < known {
            const REASON: &str = "records that were synced are missing";
            if self.mode == Recovery::Strict {
                return Err(corrupt(&self.path(self.walked.end.0), self.walked.end.1.into(), REASON));
            }
            let damage = self.note(REASON, self.walked.end);
            self.skip_from(self.walked.end, damage);
            // Other files may name these versions: they are not given out again.
            self.lose(known);
            self.walked.report.last_version = known;
        }
        Ok(self.walked)
    }

    /// Walks over one segment. Returns whether the log ends in it.
    fn walk_segment(
        &mut self,
        index: usize,
        bytes: &[u8],
        seed: FrameSeed,
        on_record: &mut OnRecord<'_>,
    ) -> Result<bool> {
        let live = &self.walked.chain.live[index];
        let resumed = live.resumed;
        let is_of_version_1 = || FrameHeader::decode(bytes, SEGMENT_HEADER_BYTES_V1, seed).is_some();
        let mut offset = match live.header {
            None if is_of_version_1() => SEGMENT_HEADER_BYTES_V1,
            _ => live.frames_at(),
        };
        loop {
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            self.walked.end = (index, offset);
            let skipping = self.skipping.is_some();
            if resumed && rest.is_empty() && self.pending.is_none()
                || !resumed && rest.len() < FRAME_BYTES_MIN as usize && used_len(rest) == 0
                || skipping && rest.len() < FRAME_BYTES_MIN as usize
            {
                let is_last = index + 1 == self.walked.chain.live.len();
                return Ok(is_last
                    && !skipping
                    && self.judge((index, offset), bytes, seed, "the log ends here")?);
            }
            match self.step((index, offset), bytes, seed, on_record) {
                Ok(frame_bytes) => offset += frame_bytes,
                Err(Stuck::Failed(error)) => return Err(error),
                Err(Stuck::NoFrame(_)) if self.skipping.is_some() => offset += FRAME_ALIGNMENT,
                Err(Stuck::NoFrame(reason)) => {
                    if self.judge((index, offset), bytes, seed, reason)? {
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// Reads the frame at a place; returns its length in bytes.
    fn step(
        &mut self,
        (index, offset): (usize, u32),
        bytes: &[u8],
        seed: FrameSeed,
        on_record: &mut OnRecord<'_>,
    ) -> Result<u32, Stuck> {
        let header = FrameHeader::decode(bytes, offset, seed)
            .ok_or(Stuck::NoFrame("there is no sound frame header"))?;
        let trust = self.log.planted.has(Bug::ForgetChecksum);
        let payload = header.payload(bytes, offset, trust).map_err(Stuck::NoFrame)?;
        let behind = offset + header.frame_bytes();
        if self.log.planted.has(Bug::CutOneFrameTooMany)
            && bytes.len() - behind as usize >= FRAME_BYTES_MIN as usize
            && FrameHeader::decode(bytes, behind, seed).is_none()
        {
            return Err(Stuck::NoFrame("there is no sound frame header"));
        }
        if header.synced > self.place((index, offset)) {
            return Err(Stuck::NoFrame("a frame says that something behind it is synced"));
        }
        if header.version == u64::MAX {
            return Err(Stuck::NoFrame("an impossible version"));
        }
        if let Some(damage) = self.skipping {
            self.find_footing(&header, damage)?;
        }
        match (header.kind, self.pending.as_mut()) {
            (Kind::Whole, None) if header.version == self.version => {
                self.pass_on((index, offset), payload, on_record)?;
            }
            (Kind::First, None) if header.version == self.version => {
                self.pending = Some(Pending {
                    start: (index, offset),
                    last: index,
                    frames: 1,
                    payload: payload.to_vec(),
                });
            }
            (Kind::Middle, Some(pending)) if header.version == self.version && pending.last + 1 == index => {
                pending.frames += 1;
                pending.last = index;
                pending.payload.extend_from_slice(payload);
            }
            (Kind::Last, Some(pending)) if header.version == self.version && pending.last + 1 == index => {
                let start = pending.start;
                let mut whole = std::mem::take(&mut pending.payload);
                whole.extend_from_slice(payload);
                self.pending = None;
                self.pass_on(start, &whole, on_record)?;
            }
            // The end of a record that began in a segment that is no longer needed.
            (Kind::Middle | Kind::Last, None)
                if offset == self.walked.chain.live[index].frames_at()
                    && header.version + 1 == self.start.first_version
                    && self.version == self.start.first_version => {}
            (Kind::Lost, None) if header.version + 1 >= self.version => {
                self.lose(header.version);
                self.walked.salvaged_before = true;
            }
            _ => return Err(Stuck::NoFrame("the frame does not continue the one before it")),
        }
        self.walked.synced = self.walked.synced.max(header.synced);
        Ok(header.frame_bytes())
    }

    /// Passes on the record of the version expected, which begins at a place. One that is rejected is damage: an error, or a version
    /// given up by a salvage.
    fn pass_on(
        &mut self,
        (index, offset): (usize, u32),
        payload: &[u8],
        on_record: &mut OnRecord<'_>,
    ) -> Result<(), Stuck> {
        match on_record(self.version, payload) {
            Ok(()) => {}
            Err(NotTaken::Failed(error)) => return Err(Stuck::Failed(error)),
            Err(NotTaken::RejectedEarlier(version, reason)) => {
                return Err(Stuck::Failed(rejected(self.log, &self.start, version, reason)));
            }
            Err(NotTaken::Rejected(reason)) if self.mode == Recovery::Strict => {
                return Err(Stuck::Failed(corrupt(&self.path(index), offset.into(), reason)));
            }
            Err(NotTaken::Rejected(reason)) => {
                let damage = self.note(reason, (index, offset));
                self.walked.report.damage[damage].versions = Some((self.version, self.version));
                self.resume_after((index, offset));
                self.lose(self.version);
                return Ok(());
            }
        }
        let report = &mut self.walked.report;
        report.records += 1;
        report.bytes += payload.len() as u64;
        if self.walked.resume_after.is_some() {
            let gap = if report.last_version + 1 == self.version { 0 } else { FRAME_HEADER_BYTES };
            self.walked.salvaged_bytes += u64::from(gap) + frame_bytes(payload.len() as u64);
        }
        report.last_version = self.version;
        self.version += 1;
        Ok(())
    }

    /// Gives up the versions up to `last`.
    fn lose(&mut self, last: u64) {
        if last >= self.version {
            self.walked.report.lost_versions.push((self.version, last));
            self.version = last + 1;
        }
        if self.walked.resume_after.is_none() {
            // A run that an earlier salvage gave up is no gap: the log's own frame stands for it.
            self.walked.report.last_version = self.version - 1;
        }
    }

    /// Behind damage: goes on with a frame that begins a later record.
    fn find_footing(&mut self, header: &FrameHeader, damage: usize) -> Result<(), Stuck> {
        let begins = match header.kind {
            Kind::Whole | Kind::First => header.version >= self.version,
            Kind::Lost => header.version + 1 >= self.version,
            Kind::Middle | Kind::Last => false,
        };
        if !begins {
            return Err(Stuck::NoFrame("the frame does not begin a record"));
        }
        if header.kind != Kind::Lost && header.version > self.version {
            if let Some(damage) = self.walked.report.damage.get_mut(damage) {
                damage.versions = Some((self.version, header.version - 1));
            }
            self.lose(header.version - 1);
        }
        self.skipping = None;
        Ok(())
    }

    /// Decides about a place where no frame is: the torn-tail rule. Returns whether the log ends there.
    fn judge(
        &mut self,
        at: (usize, u32),
        bytes: &[u8],
        seed: FrameSeed,
        reason: &'static str,
    ) -> Result<bool> {
        let start = self.pending.as_ref().map_or(at, |pending| pending.start);
        let position = self.place(start);
        // Once enough is known, a salvage need not look through the whole rest at each damage.
        let mut tail = Tail::default();
        if self.walked.synced <= position {
            tail = self.look_ahead(at, bytes, seed)?;
        }
        if self.walked.synced > position {
            if self.mode == Recovery::Strict {
                return Err(corrupt(&self.path(at.0), at.1.into(), reason));
            }
            let damage = self.note(reason, at);
            self.skip_from(start, damage);
            return Ok(false);
        }
        if tail.frames > 0 && self.log.planted.has(Bug::KeepFramesAfterCut) {
            self.pending = None;
            self.skipping = Some(usize::MAX);
            return Ok(false);
        }
        self.walked.end = start;
        let pending = self.pending.take();
        if tail.bytes > 0 || pending.is_some() {
            let frames = tail.frames + pending.as_ref().map_or(0, |pending| pending.frames);
            self.walked.report.cut = Some(Cut {
                path: self.walked.chain.live[start.0].path.clone(),
                position,
                reason,
                bytes: tail.bytes + self.bytes_between(start, at),
                frames,
                first_version: (frames > 0).then_some(self.version),
            });
            self.resume_after(start);
        }
        Ok(true)
    }

    /// Looks through everything from a place on: what is there, and what the frames in it say was synced.
    fn look_ahead(&mut self, (index, offset): (usize, u32), bytes: &[u8], seed: FrameSeed) -> Result<Tail> {
        let mut tail = Tail::default();
        let mut look = |bytes: &[u8], from: u32, seed: FrameSeed, synced: &mut Position| {
            let rest = bytes.get(from as usize..).unwrap_or_default();
            let used = used_len(rest);
            tail.bytes += used as u64;
            for at in (from..from + used as u32).step_by(FRAME_ALIGNMENT as usize) {
                if let Some(header) = FrameHeader::decode(bytes, at, seed) {
                    tail.frames += 1;
                    *synced = (*synced).max(header.synced);
                }
            }
        };
        let Walked { chain, synced, .. } = &mut self.walked;
        look(bytes, offset, seed, synced);
        let mut later = Vec::new();
        for live in chain.live.iter().skip(index + 1) {
            live.load(self.log, &mut later, self.mode)?;
            look(&later, live.frames_at(), chain.seed(self.log, live, &later), synced);
        }
        Ok(tail)
    }

    /// In a salvage: adds damage to the report; returns which it is there.
    fn note(&mut self, reason: &'static str, (index, offset): (usize, u32)) -> usize {
        let path = self.path(index);
        let damage = &mut self.walked.report.damage;
        damage.push(Damage { path, offset: offset.into(), reason, versions: None });
        damage.len() - 1
    }

    /// In a salvage: what begins at a place is damaged; the next sound record is looked for.
    fn skip_from(&mut self, start: (usize, u32), damage: usize) {
        let start = self.pending.take().map_or(start, |pending| pending.start);
        self.resume_after(start);
        self.skipping = Some(damage);
    }

    /// The log will have to be resumed after this place, unless it already has to after an earlier one. Offset 0: the segment does
    /// not count at all.
    fn resume_after(&mut self, (index, offset): (usize, u32)) {
        if self.walked.resume_after.is_some() {
            return;
        }
        let before = index.checked_sub(1).and_then(|before| self.walked.chain.live.get(before));
        self.walked.resume_after = Some(match before {
            _ if offset > 0 => self.place((index, offset)),
            None => Position { segment: self.start.first_segment, offset: 0 },
            Some(before) if before.resumed => Position { segment: before.sequence, offset: before.limit },
            Some(before) => Position { segment: before.sequence + 1, offset: 0 },
        });
        self.walked.version_before = self.walked.report.last_version;
    }

    fn path(&self, index: usize) -> PathBuf {
        self.walked.chain.live.get(index).map_or_else(|| self.log.folder(), |live| live.path.clone())
    }

    fn place(&self, (index, offset): (usize, u32)) -> Position {
        Position { segment: self.walked.chain.live[index].sequence, offset }
    }

    /// Bytes that count between two places, segment headers aside.
    fn bytes_between(&self, (from, start): (usize, u32), (to, end): (usize, u32)) -> u64 {
        if from == to {
            return (end - start).into();
        }
        let live = &self.walked.chain.live;
        let between: u64 = live[from + 1..to]
            .iter()
            .map(|live| u64::from(live.limit.saturating_sub(live.frames_at())))
            .sum();
        u64::from(live[from].limit - start) + between + u64::from(end.saturating_sub(live[to].frames_at()))
    }
}
