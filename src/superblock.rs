//! The superblock: what a database is, and how far its log is known to be synced.
//!
//! Invariants
//! * A database exists from the moment the superblock has its name: that is the last step of its creation, when its log is durable.
//! * There are two slots, written in turn; the one with the higher generation counts. A write that is cut short leaves the other.
//! * The log's position in it is a lower bound: everything before it is synced. So the older slot is as true as the newer one, only
//!   less informed, and a database whose newer slot is damaged loses nothing by it.
//! * The log's first segment, and a checkpoint, are in both slots before anything that only the one before needs may be removed, for the same
//!   reason.
//!
//! Format: `design/superblock.md`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{self, Roots};
use crate::commitlog::{
    self, DatabaseId, Log, LogFolder, LogStart, LogWriter, Note, Position, SegmentMaker, SegmentSizes,
    le_u32, le_u64,
};
use crate::error::{Error, Result};
use crate::io::{Vfs, VfsFile};
use crate::mvcc::transaction::Version;
use crate::names::NamespaceOptions;
use crate::planted::Planted;
use crate::tree::Root;

/// The file's name in the database's folder.
pub(crate) const FILE: &str = "superblock";
/// The name of the file that a database's lock is taken on. Not written by this module.
pub(crate) const LOCK_FILE: &str = "LOCK";
/// The format version of the superblocks written here.
pub(crate) const FORMAT_VERSION: u32 = 2;

const OPTIONS_ARE_LOST: &str = "it is lost, and with it the options by which volumes are found, which this log is too old to tell: \
    put a copy of it back, such as one of a backup";
const CHECKPOINT_IS_LOST: &str = "it is lost, and with it the checkpoint that the log goes on from: run `chronolith repair`, which finds it again";
const FILE_UNFINISHED: &str = "superblock.new";
/// The name that a backup's superblock has until all else is there.
const FILE_OF_BACKUP: &str = "superblock.backup";
const MAGIC: [u8; 8] = *b"CHRONODB";
const SLOT_BYTES: usize = 4096;
/// Bytes of a slot with a meaning; those from here to the checksum are zero.
const USED: usize = 216;
const CHECKPOINT_AT: usize = 112;
const ROOTS_AT: usize = CHECKPOINT_AT + 40;
const CHECKSUM_AT: usize = SLOT_BYTES - 4;
const CLEAN: u32 = 1;
const NO_LOG: u32 = 2;
const HAS_CHECKPOINT: u32 = 4;

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
    /// The newest checkpoint, if there ever was one.
    pub(crate) checkpoint: Option<Roots>,
}

/// A database's superblock, open for updates. One owner.
#[derive(Debug)]
pub(crate) struct Superblock {
    file: Box<dyn VfsFile>,
    generation: u64,
    contents: Contents,
    repaired: bool,
    /// The newest of its slots.
    format_version: u32,
    /// Whether the slots name different checkpoints, or beginnings of the log: the process ended between the two.
    differs: bool,
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
/// [`Error::Corrupt`] if there are records, but no superblock. [`Error::NotADatabase`] if there is anything else, an interrupted backup too. [`Error::Io`].
pub(crate) fn examine(disk: &dyn Vfs, dir: &Path) -> Result<FolderState> {
    let names = disk.read_dir(dir)?.unwrap_or_default();
    if names.iter().any(|name| name == FILE) {
        return Ok(FolderState::Database);
    }
    if names.iter().any(|name| name == FILE_OF_BACKUP) {
        let reason = "a backup to it did not come to its end; remove it and make another";
        return Err(Error::NotADatabase { path: dir.to_owned(), reason });
    }
    let folder = LogFolder::list(disk, &dir.join(commitlog::FOLDER))?;
    if folder.holds_data(disk)? {
        return Err(corrupt(&dir.join(FILE), 0, "the superblock is missing, but there is a commit log"));
    }
    let is_of_database = |name: &std::ffi::OsString| checkpoint::FOLDERS.iter().any(|folder| name == *folder);
    if names.iter().any(is_of_database) {
        return Err(corrupt(&dir.join(FILE), 0, "the superblock is missing, but there is a checkpoint"));
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
        note: options.note(),
        sizes: options.segment_sizes,
        planted,
    };
    let (writer, maker) = log.create(0)?;
    let contents = Contents {
        database_id,
        options,
        log: LogStart { synced: writer.synced(), ..LogStart::default() },
        clean: false,
        checkpoint: None,
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
        let Slots { newest, repaired, differs } = read_slots(&*file, &path)?;
        let Slot { format_version, generation, contents } = newest;
        Ok(Superblock { file, generation, contents, repaired, format_version, differs })
    }

    /// Reads what the superblock says, and whether a slot is damaged, without asking for the right to write.
    ///
    /// # Errors
    /// As for [`Superblock::open`].
    pub(crate) fn read(disk: &dyn Vfs, dir: &Path) -> Result<(Contents, bool)> {
        let path = dir.join(FILE);
        let file = disk.open(&path, false)?.ok_or_else(|| corrupt(&path, 0, "the superblock is missing"))?;
        read_slots(&*file, &path).map(|slots| (slots.newest.contents, slots.repaired))
    }

    /// Opens the superblock, or makes it anew from the log's headers if both slots are damaged or it is missing. `None` if it is needed and no
    /// segment has a valid header either. The given options count only if all segments are of format version 1, which do not tell them, and the database
    /// has no volumes: with other options than it had, they and their metrics would be looked for in the wrong places.
    ///
    /// The log is then taken to begin with segment 1 and version 1, and nothing of it is known to be synced.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if nobody tells the options and there are volumes, or if there is anything of a checkpoint: then it is [`repair`](crate::repair)'s
    /// to find. [`Error::NewerFormat`]; [`Error::Io`].
    pub(crate) fn open_or_rebuild(
        disk: &Arc<dyn Vfs>,
        dir: &Path,
        options: StoredOptions,
        has_volumes: bool,
    ) -> Result<Option<Self>> {
        match Superblock::open(&**disk, dir) {
            Err(Error::Corrupt { .. }) => {}
            opened => return opened.map(Some),
        }
        // The log begins behind a checkpoint that nobody could name any more, and an opening without it would remove what is left of it.
        for checkpointed in checkpoint::FOLDERS {
            if disk.read_dir(&dir.join(checkpointed))?.is_some_and(|names| !names.is_empty()) {
                return Err(corrupt(&dir.join(FILE), 0, CHECKPOINT_IS_LOST));
            }
        }
        let folder = LogFolder::list(&**disk, &dir.join(commitlog::FOLDER))?;
        let Some((database_id, note)) = folder.owner(&**disk)? else { return Ok(None) };
        let told = note.and_then(|note| StoredOptions::of_note(&note));
        let options = match told {
            None if has_volumes => return Err(corrupt(&dir.join(FILE), 0, OPTIONS_ARE_LOST)),
            told => told.unwrap_or(options),
        };
        let contents =
            Contents { database_id, options, log: LogStart::default(), clean: false, checkpoint: None };
        let mut rebuilt = Superblock::write_whole(disk, dir, 1, contents, || Ok(()))?;
        rebuilt.repaired = true;
        Ok(Some(rebuilt))
    }

    /// Writes a superblock into a folder that has none, durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn make_at(disk: &Arc<dyn Vfs>, dir: &Path, contents: Contents) -> Result<()> {
        Superblock::write_whole(disk, dir, 1, contents, || Ok(())).map(drop)
    }

    /// What it says.
    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Whether one slot was damaged, or the whole was rebuilt. The next update makes it whole.
    pub(crate) fn repaired(&self) -> bool {
        self.repaired
    }

    /// Sees to it that code which knows only older formats refuses the database by its format, and not by what it finds in it. One write and
    /// one sync if the superblock is of an older version, else nothing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn raise_format(&mut self) -> Result<()> {
        match self.format_version < FORMAT_VERSION {
            true => self.write_next(self.contents),
            false => Ok(()),
        }
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

    /// Names a checkpoint, behind which the log begins as `log` says, in both slots. Two writes and two syncs.
    ///
    /// # Errors
    /// [`Error::Io`]: nobody knows which of the two checkpoints a slot names.
    pub(crate) fn name(&mut self, checkpoint: Roots, log: LogStart) -> Result<()> {
        let contents = Contents { checkpoint: Some(checkpoint), log, clean: false, ..self.contents };
        self.write_next(contents)?;
        self.write_next(contents)
    }

    /// Sees to it that both slots name the same checkpoint, before anything that only the older one has is written over or removed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn settle(&mut self) -> Result<()> {
        if self.differs {
            self.write_next(self.contents)?;
            self.differs = false;
        }
        Ok(())
    }

    /// Writes the next generation over the older slot, which may be damaged; the newer one is not touched.
    fn write_next(&mut self, contents: Contents) -> Result<()> {
        let generation = self.generation + 1;
        self.file.write_at((generation % 2) * SLOT_BYTES as u64, &contents.encode(generation))?;
        self.file.sync()?;
        self.generation = generation;
        self.contents = contents;
        self.format_version = FORMAT_VERSION;
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
        write_slots(&*file, generation, contents)?;
        before_rename()?;
        disk.rename(&unfinished, &dir.join(FILE))?;
        disk.sync_dir(dir)?;
        let (generation, format_version) = (generation + 1, FORMAT_VERSION);
        Ok(Superblock { file, generation, contents, repaired: false, format_version, differs: false })
    }
}

/// The superblock of a backup that is being made: from its beginning on the folder says that it is one, and from its end on that it is a database.
#[derive(Debug)]
pub(crate) struct Backup {
    file: Box<dyn VfsFile>,
    path: PathBuf,
}

impl Backup {
    /// Marks an empty folder, durably, and makes its own name durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn begin(disk: &Arc<dyn Vfs>, dir: &Path) -> Result<Self> {
        let path = dir.join(FILE_OF_BACKUP);
        let file = disk.create(&path)?;
        disk.sync_dir(dir)?;
        sync_folder_above(disk, dir)?;
        Ok(Backup { file, path })
    }

    /// Makes a database of the folder. All that the contents name is durable, and so are the names of all folders.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn finish(self, disk: &dyn Vfs, dir: &Path, contents: Contents) -> Result<()> {
        write_slots(&*self.file, 1, contents)?;
        disk.rename(&self.path, &dir.join(FILE))?;
        disk.sync_dir(dir)
    }
}

/// Writes both slots of a new file, for this generation and the next, and syncs it.
fn write_slots(file: &dyn VfsFile, generation: u64, contents: Contents) -> Result<()> {
    for generation in [generation, generation + 1] {
        file.write_at((generation % 2) * SLOT_BYTES as u64, &contents.encode(generation))?;
    }
    file.sync()
}

impl StoredOptions {
    /// The options as each segment of the log has them, should the superblock be lost.
    fn note(&self) -> Note {
        let mut note = Note::default();
        note[..8].copy_from_slice(&self.block_size_ns.to_le_bytes());
        note[8..12].copy_from_slice(&self.shards.to_le_bytes());
        note[12..16].copy_from_slice(&self.segment_sizes.min().to_le_bytes());
        note[16..20].copy_from_slice(&self.segment_sizes.max().to_le_bytes());
        note
    }

    /// What [`StoredOptions::note`] made this of; `None` if they are impossible. Who has a note has a log.
    pub(crate) fn of_note(note: &Note) -> Option<Self> {
        let (min, max) = (le_u32(note, 12), le_u32(note, 16));
        let segment_sizes = SegmentSizes::new(min.into(), max.into()).ok()?;
        let (block_size_ns, shards) = (le_u64(note, 0), le_u32(note, 8));
        let options = StoredOptions { block_size_ns, shards, segment_sizes, has_log: true };
        options.are_possible().then_some(options)
    }

    /// What the default namespace has.
    pub(crate) fn namespace(&self) -> NamespaceOptions {
        let block_ns = i64::try_from(self.block_size_ns).unwrap_or(i64::MAX);
        NamespaceOptions { block_ns, shards: self.shards }
    }

    fn are_possible(&self) -> bool {
        self.block_size_ns > 0 && i64::try_from(self.block_size_ns).is_ok() && self.shards > 0
    }
}

impl Contents {
    /// What recovery needs to know of the log.
    pub(crate) fn log(&self, disk: &Arc<dyn Vfs>, dir: &Path, planted: Planted) -> Log {
        Log {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            database_id: self.database_id,
            note: self.options.note(),
            sizes: self.options.segment_sizes,
            planted,
        }
    }

    fn encode(&self, generation: u64) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        let flags = flag(self.clean, CLEAN)
            | flag(!self.options.has_log, NO_LOG)
            | flag(self.checkpoint.is_some(), HAS_CHECKPOINT);
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
        if let Some(roots) = &self.checkpoint {
            let (names, active) = (roots.names, roots.active);
            for (place, number) in
                [roots.version.get(), names.0, names.1, active.0, active.1].iter().enumerate()
            {
                let at = CHECKPOINT_AT + 8 * place;
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
            for (place, root) in [roots.metrics, roots.bases, roots.volumes, roots.state].iter().enumerate() {
                let at = ROOTS_AT + 16 * place;
                bytes[at..at + 4].copy_from_slice(&root.page.to_le_bytes());
                bytes[at + 4..at + 8].copy_from_slice(&root.crc.to_le_bytes());
                bytes[at + 8..at + 16].copy_from_slice(&root.entries.to_le_bytes());
            }
        }
        let crc = crc32fast::hash(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// What a sound slot says.
#[derive(Clone, Copy, Debug)]
struct Slot {
    format_version: u32,
    generation: u64,
    contents: Contents,
}

/// Why a slot does not count.
enum SlotError {
    Damaged(&'static str),
    Newer(u32),
}

/// What both slots say together.
struct Slots {
    /// The one of the higher generation.
    newest: Slot,
    /// Whether something was damaged.
    repaired: bool,
    /// Whether they name different checkpoints.
    differs: bool,
}

fn read_slots(file: &dyn VfsFile, path: &Path) -> Result<Slots> {
    let mut bytes = [0; 2 * SLOT_BYTES];
    let len = file.read_at(0, &mut bytes)?;
    let mut valid: Vec<Slot> = Vec::with_capacity(2);
    let mut reason = "no slot is valid";
    for slot in 0..2 {
        let bytes = bytes[..len].get(slot * SLOT_BYTES..(slot + 1) * SLOT_BYTES).unwrap_or_default();
        match decode(bytes) {
            Ok(found) if found.generation % 2 == slot as u64 => valid.push(found),
            Ok(_) => reason = "a slot is in the other's place",
            Err(SlotError::Damaged(what)) => reason = what,
            Err(SlotError::Newer(found)) => {
                return Err(Error::NewerFormat { path: path.to_owned(), found, supported: FORMAT_VERSION });
            }
        }
    }
    valid.sort_by_key(|slot| slot.generation);
    if let [older, newer] = valid.as_slice()
        && (older.generation.abs_diff(newer.generation) != 1
            || older.contents.database_id != newer.contents.database_id
            || older.contents.options != newer.contents.options)
    {
        return Err(corrupt(path, 0, "the slots do not belong together"));
    }
    let whole = valid.len() == 2 && file.len()? == bytes.len() as u64;
    let begins = |slot: &Slot| (slot.contents.checkpoint, slot.contents.log.first_segment);
    let differs = matches!(valid.as_slice(), [one, other] if begins(one) != begins(other));
    match valid.pop() {
        Some(newest) => Ok(Slots { newest, repaired: !whole, differs }),
        None => Err(corrupt(path, 0, reason)),
    }
}

fn decode(bytes: &[u8]) -> std::result::Result<Slot, SlotError> {
    use SlotError::Damaged;
    let Some(bytes) = bytes.first_chunk::<SLOT_BYTES>() else { return Err(Damaged("a slot is missing")) };
    if bytes[..8] != MAGIC {
        return Err(Damaged("the magic number differs"));
    }
    if le_u32(bytes, CHECKSUM_AT) != crc32fast::hash(&bytes[..CHECKSUM_AT]) {
        return Err(Damaged("the checksum differs"));
    }
    let format_version = match le_u32(bytes, 8) {
        0 => return Err(Damaged("format version 0")),
        known @ 1..=FORMAT_VERSION => known,
        newer => return Err(SlotError::Newer(newer)),
    };
    let reserved = [&bytes[52..56], &bytes[100..104], &bytes[USED..CHECKSUM_AT]];
    if reserved.concat().iter().any(|byte| *byte != 0)
        || le_u32(bytes, 12) & !(CLEAN | NO_LOG | HAS_CHECKPOINT) != 0
    {
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
    let options = StoredOptions {
        block_size_ns: le_u64(bytes, 40),
        shards: le_u32(bytes, 48),
        segment_sizes,
        has_log: le_u32(bytes, 12) & NO_LOG == 0,
    };
    if !options.are_possible() {
        return Err(Damaged("impossible options"));
    }
    let contents = Contents {
        database_id: std::array::from_fn(|i| bytes[16 + i]),
        options,
        log,
        clean: le_u32(bytes, 12) & CLEAN != 0,
        checkpoint: match le_u32(bytes, 12) & HAS_CHECKPOINT != 0 {
            true => Some(decode_checkpoint(bytes)),
            false if bytes[CHECKPOINT_AT..USED].iter().all(|byte| *byte == 0) => None,
            false => return Err(Damaged("reserved bits are not zero")),
        },
    };
    Ok(Slot { format_version, generation: le_u64(bytes, 32), contents })
}

fn decode_checkpoint(bytes: &[u8; SLOT_BYTES]) -> Roots {
    let number = |place: usize| le_u64(bytes, CHECKPOINT_AT + 8 * place);
    let root = |place: usize| {
        let at = ROOTS_AT + 16 * place;
        Root { page: le_u32(bytes, at), crc: le_u32(bytes, at + 4), entries: le_u64(bytes, at + 8) }
    };
    Roots {
        version: Version(number(0)),
        names: (number(1), number(2)),
        active: (number(3), number(4)),
        metrics: root(0),
        bases: root(1),
        volumes: root(2),
        state: root(3),
    }
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

    const GOLDEN: &[u8] = include_bytes!("../tests/golden/superblock-v2.bin");
    const GOLDEN_V1: &[u8] = include_bytes!("../tests/golden/superblock-v1.bin");
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
        Ok(recover(&log, &superblock.contents().log, Recovery::Strict, &mut |_, _| Ok(()), &mut || Ok(()))?
            .last_version)
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
        for bit in (0..2 * SLOT_BYTES * 8).filter(|bit| bit % (SLOT_BYTES * 8) < USED * 8 || bit % 37 == 0) {
            let disk = disk.after_power_cut(CutState::All, 0);
            damage(&disk, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let superblock = open_on(&disk).expect("one slot is left");
            assert!(superblock.repaired(), "bit {bit} went unnoticed");
            let newer_is_damaged = bit / (SLOT_BYTES * 8) == (superblock.generation as usize + 1) % 2;
            assert_eq!(superblock.contents().clean, newer_is_damaged == (superblock.generation == 3));
            damage(&disk, |bytes| bytes[(bit / 8 + SLOT_BYTES) % (2 * SLOT_BYTES)] ^= 1);
            assert!(matches!(open_on(&disk), Err(Error::Corrupt { format: "superblock", .. })), "bit {bit}");
        }
        for len in [0, 1, 111, SLOT_BYTES - 1, SLOT_BYTES] {
            let disk = disk.after_power_cut(CutState::All, 0);
            damage(&disk, |bytes| bytes.truncate(len));
            assert_eq!(open_on(&disk).is_ok_and(|superblock| superblock.repaired()), len == SLOT_BYTES);
        }
        for change in
            [|bytes: &mut Vec<u8>| bytes.rotate_left(SLOT_BYTES), |bytes: &mut Vec<u8>| bytes.clear()]
        {
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
            bytes[CHECKSUM_AT..SLOT_BYTES].copy_from_slice(&crc.to_le_bytes());
        });
        let before = disk.fingerprint();
        assert!(matches!(open_on(&disk), Err(Error::NewerFormat { found: 7, supported: 2, .. })));
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
            damage(&disk, |bytes| bytes[slot * SLOT_BYTES + 50] ^= 1);
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
        let rebuilt =
            Superblock::open_or_rebuild(&shared, DIR.as_ref(), options(), true).expect("the disk works");
        let rebuilt = rebuilt.expect("a segment has a header");
        assert!(rebuilt.repaired());
        assert_eq!(rebuilt.contents().database_id, ID);
        assert_eq!(open_or_create(&disk).expect("it opens"), 1);
        for (path, _) in disk.files() {
            disk.remove(&path).expect("it goes");
        }
        let nothing =
            Superblock::open_or_rebuild(&shared, DIR.as_ref(), options(), true).expect("the disk works");
        assert!(nothing.is_none());
        assert!(disk.files().is_empty(), "{FOLDER} is empty");
    }

    #[test]
    fn golden_superblocks_are_read_and_written() {
        let contents = Contents {
            database_id: ID,
            options: options(),
            log: LogStart {
                synced: Position { segment: 1, offset: 200 },
                synced_version: 3,
                ..LogStart::default()
            },
            clean: true,
            checkpoint: None,
        };
        let disk = SimulatedDisk::new(1);
        create_on(&disk).expect("it works");
        for golden in [GOLDEN_V1, GOLDEN] {
            damage(&disk, |bytes| *bytes = golden.to_vec());
            let superblock = open_on(&disk).expect("it opens");
            assert_eq!((superblock.generation, *superblock.contents()), (2, contents));
            assert_eq!(Superblock::read(&disk, DIR.as_ref()).expect("it opens"), (contents, false));
        }
        assert_eq!(contents.encode(2)[..], GOLDEN[..SLOT_BYTES]);
    }

    #[test]
    fn an_older_superblock_is_raised_once() {
        let disk = SimulatedDisk::new(1);
        create_on(&disk).expect("it works");
        damage(&disk, |bytes| *bytes = GOLDEN_V1.to_vec());
        let mut superblock = open_on(&disk).expect("it opens");
        let contents = *superblock.contents();
        superblock.raise_format().expect("it works");
        let raised = disk.map(&Path::new(DIR).join(FILE)).expect("it is there").to_vec();
        assert_eq!(raised[SLOT_BYTES + 8..][..4], FORMAT_VERSION.to_le_bytes(), "over the older slot");
        assert_eq!(raised[..SLOT_BYTES], GOLDEN_V1[..SLOT_BYTES]);
        let mut superblock = open_on(&disk).expect("it opens");
        assert_eq!((*superblock.contents(), superblock.repaired()), (contents, false));
        let calls = disk.calls();
        superblock.raise_format().expect("it works");
        assert_eq!(disk.calls(), calls, "nothing is left to do");
    }

    #[test]
    fn a_rebuilt_superblock_has_the_options_that_any_segment_tells() {
        let made = StoredOptions { block_size_ns: 77, shards: 9, ..small() };
        let disk = SimulatedDisk::new(1);
        life_with(&disk, made).expect("it works");
        disk.remove(&Path::new(DIR).join(FILE)).expect("it goes");
        let shared: Arc<dyn Vfs> = Arc::new(disk.clone());
        let rebuilt =
            Superblock::open_or_rebuild(&shared, DIR.as_ref(), options(), true).expect("the disk works");
        assert_eq!(rebuilt.expect("a segment has a header").contents().options, made);
        for impossible in [
            StoredOptions { shards: 0, ..made },
            StoredOptions { block_size_ns: 0, ..made },
            StoredOptions { block_size_ns: u64::MAX, ..made },
        ] {
            assert_eq!(StoredOptions::of_note(&impossible.note()), None);
        }
        assert_eq!(StoredOptions::of_note(&Note::default()), None);
    }
}
