//! Reading a log as far as it is sound, without changing it, and beginning another one behind it: for a repair, which writes down elsewhere what
//! it read.

use super::chain::Chain;
use super::frame::{FRAME_ALIGNMENT, FrameHeader, Kind};
use super::reader::{LogReport, Walk};
use super::segment::{LogFolder, SegmentMaker};
use super::{Log, LogStart, OnRecord, Position, Recovery};
use crate::error::Result;

/// What was read of a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Examined {
    pub(crate) report: LogReport,
    /// The highest sequence of any segment, and the highest incarnation that one tells.
    pub(crate) last_sequence: u64,
    pub(crate) last_incarnation: u64,
}

/// Passes on all sound records, and notes damage in the report. Changes nothing.
///
/// # Errors
/// [`Error::NewerFormat`](crate::Error::NewerFormat), [`Error::Io`](crate::Error::Io), and whatever `on_record` returns but refusals.
pub(crate) fn examine(log: &Log, start: &LogStart, on_record: &mut OnRecord<'_>) -> Result<Examined> {
    let walked = Walk::new(log, start, Recovery::Salvage)?.run(on_record)?;
    Ok(Examined {
        last_sequence: walked.chain.last_sequence,
        last_incarnation: walked.chain.incarnations.iter().copied().max().unwrap_or(0),
        report: walked.report,
    })
}

/// Where a log begins whose superblock is lost: with the first segment that is there, and the first sound frame in it or behind it. `None` if
/// there is no sound frame.
///
/// # Errors
/// As for [`examine`].
pub(crate) fn find_start(log: &Log) -> Result<Option<LogStart>> {
    let Some((first, _)) = LogFolder::list(&*log.disk, &log.folder())?.segments.pop_first() else {
        return Ok(None);
    };
    let chain = Chain::find(log, first, Recovery::Salvage)?;
    let mut bytes = Vec::new();
    for live in &chain.live {
        live.load(log, &mut bytes, Recovery::Salvage)?;
        let seed = chain.seed(log, live, &bytes);
        let places = (live.frames_at()..bytes.len() as u32).step_by(FRAME_ALIGNMENT as usize);
        let Some(frame) = places.into_iter().find_map(|at| FrameHeader::decode(&bytes, at, seed)) else {
            continue;
        };
        let first_version = match frame.kind {
            Kind::Whole | Kind::First => frame.version,
            // The rest of a record that began before, or what stands for records that are lost.
            Kind::Middle | Kind::Last | Kind::Lost => frame.version.saturating_add(1),
        };
        return Ok(Some(LogStart { first_segment: first, first_version, ..LogStart::default() }));
    }
    Ok(None)
}

impl Log {
    /// Makes the folder, and one segment of this sequence and incarnation, both durable but for the folder's own name. Returns where frames begin.
    ///
    /// # Errors
    /// As for [`Log::create`].
    pub(crate) fn begin_at(&self, sequence: u64, incarnation: u64) -> Result<Position> {
        self.disk.create_dir_all(&self.folder())?;
        let segment = SegmentMaker::new(self.clone(), sequence, incarnation, 0).make(0)?;
        Ok(Position { segment: sequence, offset: segment.header.frames_at() })
    }
}
