//! The log as the transactional core sees it: the two owners of the commit log's ends, each behind a lock of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::commitlog::{self, LogWriter, Position, Segment, SegmentMaker, frame_bytes};
use crate::error::Result;
use crate::mvcc::commit::{Commit, Journal};
use crate::mvcc::transaction::Version;
use crate::sync::{Arc, Mutex};

/// A commit log on a disk. Its locks are held over I/O, by the one leader or the one who makes space; nobody waits for them
/// with another lock in hand.
#[derive(Debug)]
pub(crate) struct FileJournal {
    writer: Mutex<LogWriter>,
    maker: Mutex<SegmentMaker>,
    /// Segments made, and not yet known to the writer.
    prepared: Mutex<Vec<Segment>>,
    /// Bytes written to the log since it was opened; only a figure.
    written_bytes: AtomicU64,
}

impl FileJournal {
    pub(crate) fn new(writer: LogWriter, maker: SegmentMaker) -> Self {
        FileJournal {
            writer: Mutex::new(writer),
            maker: Mutex::new(maker),
            prepared: Mutex::new(Vec::new()),
            written_bytes: AtomicU64::new(0),
        }
    }

    /// Bytes written to the log since it was opened.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// The position up to which all is synced, and the last version before it.
    pub(crate) fn synced(&self) -> (Position, u64) {
        let writer = self.writer.lock();
        (writer.synced(), writer.synced_version())
    }

    /// Whether the log ends where it is synced.
    pub(crate) fn is_synced(&self) -> bool {
        let writer = self.writer.lock();
        writer.synced() == writer.position()
    }
}

impl Journal for std::sync::Arc<FileJournal> {
    fn cost(&self, payload: usize) -> u64 {
        frame_bytes(payload as u64)
    }

    fn extend(&self, wanted: u64) -> Result<u64> {
        let segment = self.maker.lock().make(wanted)?;
        let made = segment.usable_bytes();
        self.prepared.lock().push(segment);
        Ok(made)
    }

    fn write(&self, commits: &[(Version, Arc<Commit>)], sync: bool) -> Result<()> {
        let mut writer = self.writer.lock();
        let prepared = std::mem::take(&mut *self.prepared.lock());
        prepared.into_iter().for_each(|segment| writer.push_segment(segment));
        let records = commits.iter().map(|(version, commit)| commitlog::Record {
            version: version.get(),
            payload: &commit.record.bytes,
            payload_crc: commit.record.crc,
        });
        let records: Vec<_> = records.collect();
        writer.write(&records, sync)?;
        let bytes: u64 = records.iter().map(|record| frame_bytes(record.payload.len() as u64)).sum();
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}
