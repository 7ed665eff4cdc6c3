//! The superblock: what a database is, and how far its log is known to be synced.
//!
//! Invariants
//! * A database exists from the moment the superblock has its name: that is the last step of its creation, when its log is durable.
//! * There are two slots, written in turn; the one with the higher generation counts. A write that is cut short leaves the other.
//! * The log's position in it is a lower bound: everything before it is synced. So the older slot is as true as the newer one, only
//!   less informed, and a database whose newer slot is damaged loses nothing by it.
//! * The log's first segment is in both slots before any segment before it may be removed, for the same reason.
//!
//! Format: `design/superblock.md`.

use std::path::Path;
use std::sync::Arc;

use crate::commitlog::{
    self, DatabaseId, Log, LogFolder, LogStart, LogWriter, Position, SegmentMaker, SegmentSizes, le_u32,
    le_u64,
};
use crate::error::{Error, Result};
use crate::io::{Vfs, VfsFile};
use crate::planted::Planted;

/// The file's name in the database's folder.
pub(crate) const FILE: &str = "superblock";
/// The name of the file that a database's lock is taken on. Not written by this module.
pub(crate) const LOCK_FILE: &str = "LOCK";
/// The format version of the superblocks written here.
pub(crate) const FORMAT_VERSION: u32 = 1;

const FILE_UNFINISHED: &str = "superblock.new";
const MAGIC: [u8; 8] = *b"CHRONODB";
const SLOT: usize = 4096;
/// Bytes of a slot with a meaning; those from here to the checksum are zero.
const USED: usize = 112;
const CHECKSUM_AT: usize = SLOT - 4;
const CLEAN: u32 = 1;
const NO_LOG: u32 = 2;

/// The options that a database keeps for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredOptions {
    /// The length of a block, in nanoseconds.
    pub(crate) block_size_ns: u64,
    /// The number of shards of the default namespace.
    pub(crate) shards: u32,
    /// How large the log's segments are made.
    pub(crate) segment_sizes: SegmentSizes,
    /// Whether commits are logged.
    pub(crate) has_log: bool,
}

/// What a superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    /// What distinguishes this database from every other.
    pub(crate) database_id: DatabaseId,
    /// The options it keeps.
    pub(crate) options: StoredOptions,
    /// Where the log begins, and up to where it is known to be synced.
    pub(crate) log: LogStart,
    /// Whether the database was closed with the log ending at that position. True of that moment: a log that goes on behind it was
    /// not closed since.
    pub(crate) clean: bool,
}

/// A database's superblock, open for updates. One owner.
#[derive(Debug)]
pub(crate) struct Superblock {
    file: Box<dyn VfsFile>,
    generation: u64,
    contents: Contents,
    repaired: bool,
}

/// What a folder is to somebody who wants to open a database in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FolderState {
    /// There is nothing, or a creation was interrupted in it: a database can be made.
    Free,
    /// There is a superblock.
    Database,
}

/// A database that was just made.
#[derive(Debug)]
pub(crate) struct Created {
    /// Its superblock.
    pub(crate) superblock: Superblock,
    /// Its log, empty.
    pub(crate) writer: LogWriter,
    /// Makes the log's segments from the second on.
    pub(crate) maker: SegmentMaker,
}

/// Tells whether there is a database in a folder, or can be one.
///
/// An interrupted creation leaves at most the lock file, an unfinished superblock, and a log without frames.
///
/// # Errors
/// [`Error::Corrupt`] if there are records, but no superblock. [`Error::NotADatabase`] if there is anything else. [`Error::Io`].
pub(crate) fn examine(disk: &dyn Vfs, dir: &Path) -> Result<FolderState> {
    let names = disk.read_dir(dir)?.unwrap_or_default();
    if names.iter().any(|name| name == FILE) {
        return Ok(FolderState::Database);
    }
    let folder = LogFolder::list(disk, &dir.join(commitlog::FOLDER))?;
    if folder.holds_data(disk)? {
        return Err(corrupt(&dir.join(FILE), 0, "the superblock is missing, but there is a commit log"));
    }
    let ours = [LOCK_FILE, FILE_UNFINISHED, commitlog::FOLDER];
    if !folder.foreign.is_empty() || names.iter().any(|name| ours.iter().all(|ours| name != ours)) {
        return Err(Error::NotADatabase { path: dir.to_owned(), reason: "there are other files in it" });
    }
    Ok(FolderState::Free)
}

/// Makes a database in a folder that [`examine`] called free: its log, then its superblock, each durable before the next step.
///
/// Cost: 6 syncs, one of them of the folder above `dir`, whose own name becomes durable too. If more folders were made above, their
/// names are the caller's to sync.
///
/// # Errors
/// [`Error::DiskFull`] or [`Error::Io`]. What was made then counts as an interrupted creation.
pub(crate) fn create(
    disk: &Arc<dyn Vfs>,
    dir: &Path,
    database_id: DatabaseId,
    options: StoredOptions,
    planted: Planted,
) -> Result<Created> {
    let log = Log {
        disk: Arc::clone(disk),
        dir: dir.to_owned(),
        database_id,
        sizes: options.segment_sizes,
        planted,
    };
    let (writer, maker) = log.create()?;
    let contents = Contents {
        database_id,
        options,
        log: LogStart { synced: writer.synced(), ..LogStart::default() },
        clean: false,
    };
    let superblock = Superblock::write_whole(disk, dir, 1, contents, || {
        // The log's folder must be durable before the superblock says that there is one.
        disk.sync_dir(dir)?;
        sync_folder_above(disk, dir)
    })?;
    Ok(Created { superblock, writer, maker })
}

impl Superblock {
    /// Opens the superblock of a database for updates. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if no slot is valid, or both are and do not belong together. [`Error::NewerFormat`]. [`Error::Io`].
    pub(crate) fn open(disk: &dyn Vfs, dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let Some(file) = disk.open(&path, true)? else {
            return Err(corrupt(&path, 0, "the superblock is missing"));
        };
        let (generation, contents, repaired) = read_slots(&*file, &path)?;
        Ok(Superblock { file, generation, contents, repaired })
    }

    /// Reads what the superblock says, and whether a slot is damaged, without asking for the right to write.
    ///
    /// # Errors
    /// As for [`Superblock::open`].
    #[cfg(test)]
    pub(crate) fn read(disk: &dyn Vfs, dir: &Path) -> Result<(Contents, bool)> {
        let path = dir.join(FILE);
        let file = disk.open(&path, false)?.ok_or_else(|| corrupt(&path, 0, "the superblock is missing"))?;
        read_slots(&*file, &path).map(|(_, contents, repaired)| (contents, repaired))
    }

    /// Opens the superblock, or makes it anew from the log's headers and the given options if both slots are damaged or it is missing.
    /// `None` if it is needed and no segment has a valid header either.
    ///
    /// The log is then taken to begin with segment 1 and version 1, and nothing of it is known to be synced.
    ///
    /// # Errors
    /// [`Error::NewerFormat`]; [`Error::Io`].
    pub(crate) fn open_or_rebuild(
        disk: &Arc<dyn Vfs>,
        dir: &Path,
        options: StoredOptions,
    ) -> Result<Option<Self>> {
        match Superblock::open(&**disk, dir) {
            Err(Error::Corrupt { .. }) => {}
            opened => return opened.map(Some),
        }
        let folder = LogFolder::list(&**disk, &dir.join(commitlog::FOLDER))?;
        let Some(database_id) = folder.database_id(&**disk)? else { return Ok(None) };
        let contents = Contents { database_id, options, log: LogStart::default(), clean: false };
        let mut rebuilt = Superblock::write_whole(disk, dir, 1, contents, || Ok(()))?;
        rebuilt.repaired = true;
        Ok(Some(rebuilt))
    }

    /// What it says.
    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Whether one slot was damaged, or the whole was rebuilt. The next update makes it whole.
    pub(crate) fn repaired(&self) -> bool {
        self.repaired
    }

    /// Notes how far the log is synced: `synced` must be so when this is called. `clean` says that it ends there and the database is
    /// being closed. One write and one sync; two each if the log's first segment is another than before.
    ///
    /// # Errors
    /// [`Error::Io`]: the superblock says this or what it said before. Trying again is allowed.
    pub(crate) fn update(&mut self, log: LogStart, clean: bool) -> Result<()> {
        let begins_later = log.first_segment != self.contents.log.first_segment;
        let contents = Contents { log, clean, ..self.contents };
        self.write_next(contents)?;
        if begins_later {
            self.write_next(contents)?;
        }
        Ok(())
    }

    /// Writes the next generation over the older slot, which may be damaged; the newer one is not touched.
    fn write_next(&mut self, contents: Contents) -> Result<()> {
        let generation = self.generation + 1;
        self.file.write_at((generation % 2) * SLOT as u64, &contents.encode(generation))?;
        self.file.sync()?;
        self.generation = generation;
        self.contents = contents;
        Ok(())
    }

    /// Writes both slots under a temporary name and renames the file, after `before_rename`.
    fn write_whole(
        disk: &Arc<dyn Vfs>,
        dir: &Path,
        generation: u64,
        contents: Contents,
        before_rename: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let unfinished = dir.join(FILE_UNFINISHED);
        disk.remove(&unfinished)?;
        let file = disk.create(&unfinished)?;
        for generation in [generation, generation + 1] {
            file.write_at((generation % 2) * SLOT as u64, &contents.encode(generation))?;
        }
        file.sync()?;
        before_rename()?;
        disk.rename(&unfinished, &dir.join(FILE))?;
        disk.sync_dir(dir)?;
        Ok(Superblock { file, generation: generation + 1, contents, repaired: false })
    }
}

impl Contents {
    /// What recovery needs to know of the log.
    pub(crate) fn log(&self, disk: &Arc<dyn Vfs>, dir: &Path, planted: Planted) -> Log {
        Log {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            database_id: self.database_id,
            sizes: self.options.segment_sizes,
            planted,
        }
    }

    fn encode(&self, generation: u64) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let flags = if self.clean { CLEAN } else { 0 } | if self.options.has_log { 0 } else { NO_LOG };
        bytes[12..16].copy_from_slice(&flags.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.database_id);
        bytes[32..40].copy_from_slice(&generation.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.options.block_size_ns.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.options.shards.to_le_bytes());
        bytes[56..64].copy_from_slice(&u64::from(self.options.segment_sizes.min()).to_le_bytes());
        bytes[64..72].copy_from_slice(&u64::from(self.options.segment_sizes.max()).to_le_bytes());
        bytes[72..80].copy_from_slice(&self.log.first_segment.to_le_bytes());
        bytes[80..88].copy_from_slice(&self.log.first_version.to_le_bytes());
        bytes[88..96].copy_from_slice(&self.log.synced.segment.to_le_bytes());
        bytes[96..100].copy_from_slice(&self.log.synced.offset.to_le_bytes());
        bytes[104..112].copy_from_slice(&self.log.synced_version.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// Why a slot does not count.
enum SlotError {
    Damaged(&'static str),
    Newer(u32),
}

/// Reads both slots: the higher generation, what it says, and whether something was damaged.
fn read_slots(file: &dyn VfsFile, path: &Path) -> Result<(u64, Contents, bool)> {
    let mut bytes = [0; 2 * SLOT];
    let len = file.read_at(0, &mut bytes)?;
    let mut valid: Vec<(u64, Contents)> = Vec::with_capacity(2);
    let mut reason = "no slot is valid";
    for slot in 0..2 {
        let bytes = bytes[..len].get(slot * SLOT..(slot + 1) * SLOT).unwrap_or_default();
        match decode(bytes) {
            Ok((generation, contents)) if generation % 2 == slot as u64 => valid.push((generation, contents)),
            Ok(_) => reason = "a slot is in the other's place",
            Err(SlotError::Damaged(what)) => reason = what,
            Err(SlotError::Newer(found)) => {
                return Err(Error::NewerFormat { path: path.to_owned(), found, supported: FORMAT_VERSION });
            }
        }
    }
    valid.sort_by_key(|(generation, _)| *generation);
    if let [(older, one), (newer, other)] = valid.as_slice()
        && (older.abs_diff(*newer) != 1
            || one.database_id != other.database_id
            || one.options != other.options)
    {
        return Err(corrupt(path, 0, "the slots do not belong together"));
    }
    let whole = valid.len() == 2 && file.len()? == bytes.len() as u64;
    match valid.pop() {
        Some((generation, contents)) => Ok((generation, contents, !whole)),
        None => Err(corrupt(path, 0, reason)),
    }
}

fn decode(bytes: &[u8]) -> std::result::Result<(u64, Contents), SlotError> {
    use SlotError::Damaged;
    let Some(bytes) = bytes.first_chunk::<SLOT>() else { return Err(Damaged("a slot is missing")) };
    if bytes[..8] != MAGIC {
        return Err(Damaged("the magic number differs"));
    }
    if le_u32(bytes, CHECKSUM_AT) != crc32fast::hash(&bytes[..CHECKSUM_AT]) {
        return Err(Damaged("the checksum differs"));
    }
    match le_u32(bytes, 8) {
        FORMAT_VERSION => {}
        0 => return Err(Damaged("format version 0")),
        newer => return Err(SlotError::Newer(newer)),
    }
    let reserved = [&bytes[52..56], &bytes[100..104], &bytes[USED..CHECKSUM_AT]];
    if reserved.concat().iter().any(|byte| *byte != 0) || le_u32(bytes, 12) & !(CLEAN | NO_LOG) != 0 {
        return Err(Damaged("reserved bits are not zero"));
    }
    let segment_sizes = SegmentSizes::new(le_u64(bytes, 56), le_u64(bytes, 64))
        .map_err(|_| Damaged("impossible segment sizes"))?;
    let log = LogStart {
        first_segment: le_u64(bytes, 72),
        first_version: le_u64(bytes, 80),
        synced: Position { segment: le_u64(bytes, 88), offset: le_u32(bytes, 96) },
        synced_version: le_u64(bytes, 104),
    };
    if log.first_segment == 0 || log.first_version == 0 {
        return Err(Damaged("the log begins at an impossible place"));
    }
    let (block_size_ns, shards) = (le_u64(bytes, 40), le_u32(bytes, 48));
    if block_size_ns == 0 || i64::try_from(block_size_ns).is_err() || shards == 0 {
        return Err(Damaged("impossible options"));
    }
    let contents = Contents {
        database_id: std::array::from_fn(|i| bytes[16 + i]),
        options: StoredOptions {
            block_size_ns,
            shards,
            segment_sizes,
            has_log: le_u32(bytes, 12) & NO_LOG == 0,
        },
        log,
        clean: le_u32(bytes, 12) & CLEAN != 0,
    };
    Ok((le_u64(bytes, 32), contents))
}

/// Makes the name of a folder durable.
pub(crate) fn sync_folder_above(disk: &Arc<dyn Vfs>, dir: &Path) -> Result<()> {
    match disk.sync_dir(folder_above(dir)) {
        // A folder that we may pass through but not read was made by somebody else, and so was the name in it.
        Err(error) if error.io_kind() == Some(std::io::ErrorKind::PermissionDenied) => Ok(()),
        synced => synced,
    }
}

/// The folder that `dir` is in, as a path that can be opened.
fn folder_above(dir: &Path) -> &Path {
    match dir.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => dir,
    }
}

fn corrupt(path: &Path, offset: u64, reason: &'static str) -> Error {
    Error::Corrupt { format: "superblock", path: path.to_owned(), offset, metric: None, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commitlog::{FOLDER, Record, Recovery, recover};
    use crate::io::{CutState, Fault, SimulatedDisk};

    const GOLDEN: &[u8] = include_bytes!("../tests/golden/superblock-v1.bin");
    const ID: DatabaseId = *b"0123456789abcdef";
    const DIR: &str = "/db";

    fn options() -> StoredOptions {
        StoredOptions {
            block_size_ns: 7_200_000_000_000,
            shards: 4,
            segment_sizes: SegmentSizes::default(),
            has_log: true,
        }
    }

    fn small() -> StoredOptions {
        StoredOptions {
            segment_sizes: SegmentSizes::new(16 << 10, 16 << 10).expect("valid sizes"),
            ..options()
        }
    }

    fn create_on(disk: &SimulatedDisk) -> Result<Created> {
        create_with(disk, small())
    }

    fn create_with(disk: &SimulatedDisk, options: StoredOptions) -> Result<Created> {
        let disk: Arc<dyn Vfs> = Arc::new(disk.clone());
        disk.create_dir_all(DIR.as_ref())?;
        create(&disk, DIR.as_ref(), ID, options, Planted::default())
    }

    fn open_on(disk: &SimulatedDisk) -> Result<Superblock> {
        Superblock::open(disk, DIR.as_ref())
    }

    /// Opens what is there, or makes it; the number of records in it.
    fn open_or_create(disk: &SimulatedDisk) -> Result<u64> {
        if examine(disk, DIR.as_ref())? == FolderState::Free {
            create_on(disk)?;
        }
        let superblock = open_on(disk)?;
        let shared: Arc<dyn Vfs> = Arc::new(disk.clone());
        let log = superblock.contents().log(&shared, DIR.as_ref(), Planted::default());
        Ok(recover(&log, &superblock.contents().log, Recovery::Strict, &mut |_, _| Ok(()))?.last_version)
    }

    /// Creates a database, commits once, closes cleanly.
    fn life(disk: &SimulatedDisk) -> Result<()> {
        life_with(disk, small())
    }

    fn life_with(disk: &SimulatedDisk, options: StoredOptions) -> Result<()> {
        let mut made = create_with(disk, options)?;
        made.writer.write(&[Record::new(1, b"payload")], true)?;
        made.superblock.update(closed(&made.writer), true)
    }

    fn closed(writer: &LogWriter) -> LogStart {
        LogStart { synced: writer.synced(), synced_version: writer.synced_version(), ..LogStart::default() }
    }

    fn damage(disk: &SimulatedDisk, change: impl FnOnce(&mut Vec<u8>)) {
        let path = Path::new(DIR).join(FILE);
        let mut bytes = disk.map(&path).expect("it is there").to_vec();
        change(&mut bytes);
        let file = disk.open(&path, true).expect("it opens").expect("it is there");
        file.set_len(bytes.len() as u64).expect("its length changes");
        file.write_at(0, &bytes).expect("it takes bytes");
    }

    #[test]
    fn creation_commit_and_close_cost_at_most_8_syncs_and_1_mib() {
        let disk = SimulatedDisk::new(1);
        life_with(&disk, options()).expect("it works");
        assert!(disk.syncs() + disk.dir_syncs() <= 8, "{} + {}", disk.syncs(), disk.dir_syncs());
        assert!(disk.bytes_allocated() <= 1 << 20, "{}", disk.bytes_allocated());
        let superblock = open_on(&disk).expect("it opens");
        assert!(superblock.contents().clean && !superblock.repaired());
        assert_eq!(superblock.contents().log.synced_version, 1);
        assert_eq!(superblock.contents().options, options());
    }

    #[test]
    fn power_cut_during_creation_leaves_nothing_or_a_database() {
        let calls = {
            let disk = SimulatedDisk::new(1);
            life(&disk).expect("it works");
            disk.calls()
        };
        for call in 1..=calls {
            for state in CutState::ALL {
                let disk = SimulatedDisk::new(1);
                disk.cut_power_within(call);
                assert!(life(&disk).is_err());
                let found = disk.after_power_cut(state, call);
                // And once more, at each call of the second attempt.
                for second_call in 1..=14 {
                    let second = found.after_power_cut(CutState::All, 0);
                    second.cut_power_at(second_call);
                    let _ = open_or_create(&second);
                    let second = second.after_power_cut(state, second_call);
                    let records = open_or_create(&second).unwrap_or_else(|error| {
                        panic!("{state:?} at {call}, then at {second_call}: {error:?}")
                    });
                    assert!(records <= 1);
                }
                open_or_create(&found).unwrap_or_else(|error| panic!("{state:?} at {call}: {error:?}"));
            }
        }
    }

    #[test]
    fn failed_call_during_creation_is_an_error_and_creation_can_be_repeated() {
        let calls = {
            let disk = SimulatedDisk::new(1);
            create_on(&disk).expect("it works");
            disk.calls()
        };
        for call in 1..=calls {
            let disk = SimulatedDisk::new(1);
            disk.fail(call, Fault::InputOutput, false);
            assert!(create_on(&disk).is_err(), "call {call}");
            disk.clear_faults();
            assert_eq!(open_or_create(&disk).expect("it works now"), 0, "call {call}");
        }
    }

    #[test]
    fn torn_update_leaves_the_older_slot() {
        for (state, seed) in CutState::ALL.into_iter().flat_map(|state| (0..8).map(move |seed| (state, seed)))
        {
            let disk = SimulatedDisk::new(1);
            let mut made = create_on(&disk).expect("it works");
            made.writer.write(&[Record::new(1, b"payload")], true).expect("room");
            disk.cut_power_within(disk.calls() + 1);
            assert!(made.superblock.update(closed(&made.writer), true).is_err());
            let found = disk.after_power_cut(state, seed);
            let mut superblock = open_on(&found).expect("it opens");
            assert!(superblock.contents().log.synced_version <= 1);
            assert_eq!(open_or_create(&found).expect("it opens"), 1);
            superblock.update(closed(&made.writer), false).expect("it works");
            let again = open_on(&found).expect("it opens");
            assert!(!again.repaired(), "the damaged slot is the one that was written");
            assert_eq!(again.contents().log, closed(&made.writer));
        }
    }

    #[test]
    fn failed_update_can_be_repeated_and_never_harms_the_newer_slot() {
        for call in 1..=2 {
            let disk = SimulatedDisk::new(1);
            let mut made = create_on(&disk).expect("it works");
            for version in 1..=3 {
                made.writer.write(&[Record::new(version, b"payload")], true).expect("room");
                disk.fail(disk.calls() + call, Fault::InputOutput, false);
                assert!(made.superblock.update(closed(&made.writer), false).is_err());
                disk.clear_faults();
                let found = open_on(&disk.after_power_cut(CutState::Random, version)).expect("it opens");
                assert!(found.contents().log.synced_version >= version - 1);
                made.superblock.update(closed(&made.writer), false).expect("the second try works");
                let found = open_on(&disk.after_power_cut(CutState::None, 0)).expect("it opens");
                assert_eq!(found.contents().log.synced_version, version);
            }
        }
    }

    #[test]
    fn one_damaged_slot_is_survived_and_told_and_two_are_not() {
        let disk = SimulatedDisk::new(1);
        life(&disk).expect("it works");
        for bit in (0..2 * SLOT * 8).filter(|bit| bit % (SLOT * 8) < USED * 8 || bit % 37 == 0) {
            let disk = disk.after_power_cut(CutState::All, 0);
            damage(&disk, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let superblock = open_on(&disk).expect("one slot is left");
            assert!(superblock.repaired(), "bit {bit} went unnoticed");
            let newer_is_damaged = bit / (SLOT * 8) == (superblock.generation as usize + 1) % 2;
            assert_eq!(superblock.contents().clean, newer_is_damaged == (superblock.generation == 3));
            damage(&disk, |bytes| bytes[(bit / 8 + SLOT) % (2 * SLOT)] ^= 1);
            assert!(matches!(open_on(&disk), Err(Error::Corrupt { format: "superblock", .. })), "bit {bit}");
        }
        for len in [0, 1, 111, SLOT - 1, SLOT] {
            let disk = disk.after_power_cut(CutState::All, 0);
            damage(&disk, |bytes| bytes.truncate(len));
            assert_eq!(open_on(&disk).is_ok_and(|superblock| superblock.repaired()), len == SLOT);
        }
        for change in [|bytes: &mut Vec<u8>| bytes.rotate_left(SLOT), |bytes: &mut Vec<u8>| bytes.clear()] {
            let disk = disk.after_power_cut(CutState::All, 0);
            damage(&disk, change);
            assert!(matches!(open_on(&disk), Err(Error::Corrupt { .. })));
        }
    }

    #[test]
    fn newer_format_is_refused() {
        let disk = SimulatedDisk::new(1);
        life(&disk).expect("it works");
        damage(&disk, |bytes| {
            bytes[8] = 7;
            let crc = crc32fast::hash(&bytes[..CHECKSUM_AT]);
            bytes[CHECKSUM_AT..SLOT].copy_from_slice(&crc.to_le_bytes());
        });
        let before = disk.fingerprint();
        assert!(matches!(open_on(&disk), Err(Error::NewerFormat { found: 7, supported: 1, .. })));
        assert_eq!(disk.fingerprint(), before);
    }

    #[test]
    fn changed_beginning_of_the_log_is_in_both_slots() {
        let disk = SimulatedDisk::new(1);
        let mut made = create_on(&disk).expect("it works");
        let log = LogStart { first_segment: 5, first_version: 100, ..closed(&made.writer) };
        made.superblock.update(log, false).expect("it works");
        for slot in 0..2 {
            let disk = disk.after_power_cut(CutState::None, 0);
            damage(&disk, |bytes| bytes[slot * SLOT + 50] ^= 1);
            assert_eq!(open_on(&disk).expect("one slot is left").contents().log.first_segment, 5);
        }
    }

    #[test]
    fn folder_with_other_files_is_no_database() {
        let disk = SimulatedDisk::new(1);
        assert_eq!(examine(&disk, DIR.as_ref()).expect("nothing is fine"), FolderState::Free);
        create_on(&disk).expect("it works");
        assert_eq!(examine(&disk, DIR.as_ref()).expect("it is there"), FolderState::Database);
        disk.remove(&Path::new(DIR).join(FILE)).expect("it goes");
        assert_eq!(examine(&disk, DIR.as_ref()).expect("an empty log is fine"), FolderState::Free);
        for name in ["notes.txt", "commitlog/notes.txt"] {
            let path = Path::new(DIR).join(name);
            disk.create(&path).expect("room");
            assert!(matches!(examine(&disk, DIR.as_ref()), Err(Error::NotADatabase { .. })), "{name}");
            disk.remove(&path).expect("it goes");
        }
    }

    #[test]
    fn records_without_a_superblock_are_corruption_and_can_be_salvaged() {
        let disk = SimulatedDisk::new(1);
        life(&disk).expect("it works");
        disk.remove(&Path::new(DIR).join(FILE)).expect("it goes");
        assert!(matches!(examine(&disk, DIR.as_ref()), Err(Error::Corrupt { format: "superblock", .. })));
        let shared: Arc<dyn Vfs> = Arc::new(disk.clone());
        let rebuilt = Superblock::open_or_rebuild(&shared, DIR.as_ref(), options()).expect("the disk works");
        let rebuilt = rebuilt.expect("a segment has a header");
        assert!(rebuilt.repaired());
        assert_eq!(rebuilt.contents().database_id, ID);
        assert_eq!(open_or_create(&disk).expect("it opens"), 1);
        for (path, _) in disk.files() {
            disk.remove(&path).expect("it goes");
        }
        let nothing = Superblock::open_or_rebuild(&shared, DIR.as_ref(), options()).expect("the disk works");
        assert!(nothing.is_none());
        assert!(disk.files().is_empty(), "{FOLDER} is empty");
    }

    #[test]
    fn golden_superblock_is_read_and_written() {
        let disk = SimulatedDisk::new(1);
        create_on(&disk).expect("it works");
        damage(&disk, |bytes| *bytes = GOLDEN.to_vec());
        let superblock = open_on(&disk).expect("it opens");
        let contents = Contents {
            database_id: ID,
            options: options(),
            log: LogStart {
                synced: Position { segment: 1, offset: 200 },
                synced_version: 3,
                ..LogStart::default()
            },
            clean: true,
        };
        assert_eq!((superblock.generation, *superblock.contents()), (2, contents));
        assert_eq!(Superblock::read(&disk, DIR.as_ref()).expect("it opens"), (contents, false));
        assert_eq!(contents.encode(2)[..], GOLDEN[..SLOT]);
    }
}
