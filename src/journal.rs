//! The log as the transactional core sees it: the two owners of the commit log's ends, each behind a lock of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::commitlog::{
    self, Log, LogStart, LogWriter, NotTaken, Position, Segment, SegmentMaker, frame_bytes,
};
use crate::error::{Error, Result};
use crate::mvcc::commit::{Commit, Journal};
use crate::mvcc::replay::Refused;
use crate::mvcc::transaction::Version;
use crate::sync::{Arc, Mutex};

/// A commit log on a disk. Its locks are held over I/O, by the one leader or the one who makes space; nobody waits for them
/// with another lock in hand.
#[derive(Debug)]
pub(crate) struct FileJournal {
    log: Log,
    writer: Mutex<LogWriter>,
    maker: Mutex<SegmentMaker>,
    /// Segments made, and not yet known to the writer.
    prepared: Mutex<Vec<Segment>>,
    /// Bytes written to the log since it was opened; only a figure.
    written_bytes: AtomicU64,
    /// Bytes of the log's files; only a figure.
    bytes_on_disk: AtomicU64,
    /// [`FileJournal::written_bytes`] when segments were last removed, and how much was written from the removal before to that one (of the first: what
    /// there was at opening, too). So much of the log is needed at a time, about.
    removed_at: AtomicU64,
    between_removals: AtomicU64,
}

impl FileJournal {
    pub(crate) fn new(writer: LogWriter, maker: SegmentMaker) -> Self {
        FileJournal {
            log: maker.log().clone(),
            bytes_on_disk: AtomicU64::new(writer.bytes_on_disk()),
            removed_at: AtomicU64::new(0),
            between_removals: AtomicU64::new(writer.used_bytes()),
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

    /// Bytes that the log's files take on disk, of segments that are still empty as well.
    pub(crate) fn bytes_on_disk(&self) -> u64 {
        self.bytes_on_disk.load(Ordering::Relaxed)
    }

    /// Where the log begins for somebody who has everything up to `version`, and how far it is synced: what the superblock says after a
    /// checkpoint. The first segment is the last one that has, with those behind it, all records above `version`; records up to `version` may be
    /// among them. Waits for a write and a sync that are under way.
    ///
    /// A `version` that is not synced is taken for the last one that is.
    pub(crate) fn start_after(&self, version: Version) -> LogStart {
        self.writer.lock().start_after(version.get())
    }

    /// Removes the segments before `first`, which [`FileJournal::start_after`] told and both slots of the superblock name by now.
    ///
    /// What a power cut brings back of them goes at the next opening. Nobody waits for it: the files go without a lock. One at a time.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io). The log is whole all the same, and what is left goes with the next removal or at the next opening.
    pub(crate) fn remove_before(&self, first: u64) -> Result<()> {
        let synced = self.writer.lock().start_after(u64::MAX);
        debug_assert!(first <= synced.first_segment, "nothing goes that is not synced");
        let first = first.min(synced.first_segment);
        self.log.remove_before(first)?;
        let gone = self.writer.lock().forget_before(first);
        self.bytes_on_disk.fetch_sub(gone, Ordering::Relaxed);
        let written = self.written_bytes();
        let before = self.removed_at.swap(written, Ordering::Relaxed);
        self.between_removals.store(written.saturating_sub(before), Ordering::Relaxed);
        Ok(())
    }

    /// How much of the log is needed at a time, about: what was written since the last removal, or between the two before if that is more.
    fn live_bytes(&self) -> u64 {
        let since = self.written_bytes().saturating_sub(self.removed_at.load(Ordering::Relaxed));
        since.max(self.between_removals.load(Ordering::Relaxed))
    }

    /// Writes records, and makes them and all before them durable if `sync`.
    fn write_records(&self, records: &[commitlog::Record<'_>], sync: bool) -> Result<()> {
        let mut writer = self.writer.lock();
        let prepared = std::mem::take(&mut *self.prepared.lock());
        prepared.into_iter().for_each(|segment| writer.push_segment(segment));
        writer.write(records, sync)?;
        let bytes: u64 = records.iter().map(|record| frame_bytes(record.payload.len() as u64)).sum();
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
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

impl From<Refused> for NotTaken {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Record(error) => NotTaken::Rejected(error.0),
            Refused::Earlier(version, error) => NotTaken::RejectedEarlier(version.0, error.0),
            // Whoever joins that thread goes on with its panic.
            Refused::Panicked => NotTaken::Failed(Error::Stopped { cause: None }),
        }
    }
}

impl Journal for std::sync::Arc<FileJournal> {
    fn cost(&self, payload: usize) -> u64 {
        frame_bytes(payload as u64)
    }

    fn extend(&self, wanted: u64) -> Result<u64> {
        let mut maker = self.maker.lock();
        maker.note_live(self.live_bytes());
        let segment = maker.make(wanted)?;
        drop(maker);
        let made = segment.usable_bytes();
        self.bytes_on_disk.fetch_add(segment.bytes(), Ordering::Relaxed);
        self.prepared.lock().push(segment);
        Ok(made)
    }

    fn write(&self, commits: &[(Version, Arc<Commit>)], sync: bool) -> Result<()> {
        let records = commits.iter().map(|(version, commit)| commitlog::Record {
            version: version.get(),
            payload: &commit.record.bytes,
            payload_crc: commit.record.crc,
        });
        self.write_records(&records.collect::<Vec<_>>(), sync)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::commitlog::{DatabaseId, Record, Recovery, SegmentSizes, recover};
    use crate::error::Error;
    use crate::io::{CutState, Fault, SimulatedDisk, Vfs};
    use crate::planted::Planted;
    use crate::superblock::{self, StoredOptions, Superblock};

    const ID: DatabaseId = *b"0123456789abcdef";
    const DIR: &str = "/db";

    /// A log and its superblock, open.
    struct Files {
        journal: Arc<FileJournal>,
        superblock: Superblock,
        last_version: u64,
        /// The versions found when it was opened.
        found: Vec<u64>,
    }

    impl Files {
        fn open(disk: &SimulatedDisk) -> Result<Self> {
            let superblock = Superblock::open(disk, DIR.as_ref())?;
            let shared: Arc<dyn Vfs> = Arc::new(disk.clone());
            let log = superblock.contents().log(&shared, DIR.as_ref(), Planted::default());
            let mut found = Vec::new();
            let start = superblock.contents().log;
            let recovered = recover(
                &log,
                &start,
                Recovery::Strict,
                &mut |version, payload| {
                    assert_eq!(payload, vec![version as u8; payload.len()]);
                    found.push(version);
                    Ok(())
                },
                &mut || Ok(()),
            )?;
            let journal = Arc::new(FileJournal::new(recovered.writer, recovered.maker));
            Ok(Files { journal, superblock, last_version: recovered.last_version, found })
        }

        fn write(&mut self, len: usize, sync: bool) -> Result<()> {
            let wanted = frame_bytes(len as u64);
            let mut free = self.journal.writer.lock().free_bytes();
            while free < wanted {
                free += self.journal.extend(wanted - free)?;
            }
            let version = self.last_version + 1;
            self.journal.write_records(&[Record::new(version, &vec![version as u8; len])], sync)?;
            self.last_version = version;
            Ok(())
        }

        /// What a checkpoint at a version does about the log.
        fn remove_up_to(&mut self, version: u64) -> Result<()> {
            let start = self.journal.start_after(Version(version));
            assert!(start.first_version <= version + 1 && start.synced_version >= version);
            self.superblock.update(start, false)?;
            self.journal.remove_before(start.first_segment)
        }
    }

    /// A disk with an empty log, all of it durable.
    fn disk_with_log() -> SimulatedDisk {
        let disk = SimulatedDisk::new(1);
        disk.create_dir_all(DIR.as_ref()).expect("room for a folder");
        let segment_sizes = SegmentSizes::new(16 << 10, 32 << 10).expect("valid sizes");
        let options = StoredOptions { block_size_ns: 1, shards: 1, segment_sizes, has_log: true };
        let shared: Arc<dyn Vfs> = Arc::new(disk.clone());
        superblock::create(&shared, DIR.as_ref(), ID, options, Planted::default())
            .expect("room for a database");
        disk.after_power_cut(CutState::All, 0)
    }

    fn is_segment((path, _): &(PathBuf, u64)) -> bool {
        path.extension().is_some_and(|extension| extension == "log")
    }

    /// What was promised so far.
    #[derive(Clone, Copy, Debug, Default)]
    struct Promised {
        /// All versions up to here are durable.
        synced: u64,
        /// All up to here are in a checkpoint; one that was begun may count.
        begun: u64,
    }

    /// Opens, checks what is found, writes, and removes twice.
    fn live(disk: &SimulatedDisk, promised: &mut Promised) -> Result<()> {
        let mut files = Files::open(disk)?;
        let first = files.superblock.contents().log.first_version;
        assert!(files.found.iter().copied().eq(first..=files.last_version), "{:?}", files.found);
        assert!(first <= promised.begun + 1, "{first}: {promised:?}");
        assert!(files.last_version >= promised.synced, "{}: {promised:?}", files.last_version);
        promised.synced = files.last_version;
        for lens in [[9_000, 9_000, 40_000], [12_000, 100, 60_000]] {
            for len in lens {
                files.write(len, true)?;
                promised.synced = files.last_version;
            }
            files.write(300, false)?;
            promised.begun = files.last_version - 2;
            files.remove_up_to(promised.begun)?;
        }
        Ok(())
    }

    #[test]
    fn power_cut_at_any_call_leaves_all_behind_the_checkpoint() {
        let base = disk_with_log();
        let calls = {
            let disk = base.after_power_cut(CutState::All, 0);
            live(&disk, &mut Promised::default()).expect("it works");
            disk.calls()
        };
        // Every call of the second level takes minutes: with CHRONOLITH_LONG set, otherwise one call in 97.
        let step = if std::env::var_os("CHRONOLITH_LONG").is_some() { 1 } else { 97 };
        let (mut states, mut came_back) = (0, 0);
        for call in 1..=calls {
            for state in CutState::ALL {
                let first = || {
                    let (disk, mut promised) = (base.after_power_cut(CutState::All, 0), Promised::default());
                    disk.cut_power_within(call);
                    assert!(live(&disk, &mut promised).is_err());
                    let found = disk.after_power_cut(state, call);
                    let gone = disk.files();
                    let came_back = found.files().iter().any(|file| is_segment(file) && !gone.contains(file));
                    (found, promised, came_back)
                };
                let (disk, mut promised, segment_came_back) = first();
                came_back += u64::from(segment_came_back);
                live(&disk, &mut promised).unwrap_or_else(|error| panic!("{state:?} at {call}: {error:?}"));
                live(&disk, &mut promised).unwrap_or_else(|error| panic!("{state:?} at {call}: {error:?}"));
                // And once more, during the lives that follow.
                let later_calls = disk.calls();
                for second_call in (1..=later_calls).filter(|second| (second + call).is_multiple_of(step)) {
                    let (disk, mut promised, _) = first();
                    disk.cut_power_within(second_call);
                    let _ = live(&disk, &mut promised).and_then(|()| live(&disk, &mut promised));
                    let found = disk.after_power_cut(state, second_call);
                    live(&found, &mut promised).unwrap_or_else(|error| {
                        panic!("{state:?} at {call}, then at {second_call}: {error:?}")
                    });
                    states += 1;
                }
            }
        }
        println!(
            "{calls} calls, {states} states after a second cut, {came_back} with segments that came back"
        );
        assert!(came_back > 0, "no cut brought back a segment that was removed");
    }

    #[test]
    fn failed_call_leaves_all_behind_the_checkpoint_and_removal_can_be_repeated() {
        for call in 1..=12 {
            let disk = disk_with_log();
            let mut files = Files::open(&disk).expect("it opens");
            for _ in 0..12 {
                files.write(9_000, true).expect("room");
            }
            disk.fail(disk.calls() + call, Fault::InputOutput, false);
            let removed = files.remove_up_to(10);
            disk.clear_faults();
            assert!(removed.is_ok() || matches!(removed, Err(Error::Io { .. })));
            assert!(removed.is_err() || call > 6, "call {call} is none of the removal's");
            let found = Files::open(&disk.after_power_cut(CutState::None, 0)).expect("it opens");
            assert!(found.found.iter().copied().eq(found.found[0]..=12) && found.found[0] <= 11);
            files.write(20_000, true).expect("a failed removal does not stop the log");
            files.remove_up_to(13).expect("it works now");
            files.write(10, true).expect("room");
            let on_disk: u64 =
                disk.files().iter().filter(|file| is_segment(file)).map(|(_, bytes)| bytes).sum();
            assert_eq!(files.journal.bytes_on_disk(), on_disk, "call {call}");
            let found = Files::open(&disk).expect("it opens");
            assert_eq!(found.last_version, 14);
            assert_eq!(found.journal.bytes_on_disk(), on_disk);
        }
    }
    #[test]
    fn the_log_takes_a_small_multiple_of_what_is_live_however_long_it_goes_on() {
        let disk = SimulatedDisk::new(1);
        disk.create_dir_all(DIR.as_ref()).expect("room for a folder");
        let options = StoredOptions {
            block_size_ns: 1,
            shards: 1,
            segment_sizes: SegmentSizes::default(),
            has_log: true,
        };
        let shared: Arc<dyn Vfs> = Arc::new(disk.clone());
        superblock::create(&shared, DIR.as_ref(), ID, options, Planted::default()).expect("room");
        let mut files = Files::open(&disk).expect("it opens");
        let smallest = u64::from(SegmentSizes::default().min());
        // Many short intervals, a long one, and short ones again.
        let cycle = |files: &mut Files, interval: u64, most: &mut u64| {
            for _ in 0..interval.div_ceil(20_000) {
                files.write(19_960, true).expect("room");
                *most = files.journal.bytes_on_disk().max(*most);
            }
            files.remove_up_to(files.last_version).expect("it works");
        };
        let (mut most, mut written) = (0, 0);
        while written < 40 << 20 {
            cycle(&mut files, 100_000, &mut most);
            written += 100_000;
        }
        assert!(most <= 3 * smallest, "{most} bytes for 100,000 live ones");
        most = 0;
        cycle(&mut files, 30 << 20, &mut most);
        assert!(most <= 3 * (30 << 20), "{most} bytes for 30 MiB");
        let after = files.journal.bytes_on_disk();
        assert!(after > 8 << 20, "segments grew with the log: {after}");
        written = 0;
        while written < after {
            cycle(&mut files, 100_000, &mut most);
            written += 100_000;
        }
        most = 0;
        (0..20).for_each(|_| cycle(&mut files, 100_000, &mut most));
        assert!(most <= 3 * smallest, "{most} bytes for 100,000 live ones, when the large one was full");
        let reopened = Files::open(&disk).expect("it opens");
        assert_eq!(reopened.last_version, files.last_version);
        assert!(reopened.journal.live_bytes() <= most);
    }
}
