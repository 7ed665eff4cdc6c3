//! The bytes: of a slot, of the options as segments of the log have them, and what the two slots say together.

use std::path::Path;

use crate::checkpoint::Roots;
use crate::commitlog::{LogStart, Note, Position, SegmentSizes, le_u32, le_u64};
use crate::error::{Error, Result};
use crate::io::VfsFile;
use crate::mvcc::transaction::Version;
use crate::tree::Root;

use super::{Contents, FORMAT_VERSION, StoredOptions, corrupt};

const MAGIC: [u8; 8] = *b"CHRONODB";
pub(super) const SLOT_BYTES: usize = 4096;
/// Bytes of a slot with a meaning; those from here to the checksum are zero.
pub(super) const USED: usize = 216;
const CHECKPOINT_AT: usize = 112;
const ROOTS_AT: usize = CHECKPOINT_AT + 40;
pub(super) const CHECKSUM_AT: usize = SLOT_BYTES - 4;
const CLEAN: u32 = 1;
const NO_LOG: u32 = 2;
const HAS_CHECKPOINT: u32 = 4;

/// What a sound slot says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) format_version: u32,
    pub(super) generation: u64,
    pub(super) contents: Contents,
}

/// Why a slot does not count.
enum SlotError {
    Damaged(&'static str),
    Newer(u32),
}

/// What both slots say together.
pub(super) struct Slots {
    /// The one of the higher generation.
    pub(super) newest: Slot,
    /// Whether something was damaged.
    pub(super) repaired: bool,
    /// Whether one says something that the other must say too, before it is relied on: another checkpoint or beginning of the log, or their generations are
    /// no neighbours, as a sync between failed and nobody knows what reached the disk.
    pub(super) differs: bool,
}

/// Writes both slots of a new file, for this generation and the next, and syncs it.
pub(super) fn write_slots(file: &dyn VfsFile, generation: u64, contents: Contents) -> Result<()> {
    for generation in [generation, generation + 1] {
        file.write_at((generation % 2) * SLOT_BYTES as u64, &contents.encode(generation))?;
    }
    file.sync()
}

pub(super) fn read_slots(file: &dyn VfsFile, path: &Path) -> Result<Slots> {
    // Not on the stack, which model checks have little of.
    let mut bytes = vec![0; 2 * SLOT_BYTES];
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
        && (older.contents.database_id != newer.contents.database_id
            || older.contents.options != newer.contents.options)
    {
        return Err(corrupt(path, 0, "the slots do not belong together"));
    }
    let whole = valid.len() == 2 && file.len()? == bytes.len() as u64;
    let begins = |slot: &Slot| (slot.contents.checkpoint, slot.contents.log.first_segment);
    let belongs = |one: &Slot, other: &Slot| {
        begins(one) == begins(other) && one.generation.abs_diff(other.generation) == 1
    };
    let differs = matches!(valid.as_slice(), [one, other] if !belongs(one, other));
    match valid.pop() {
        Some(newest) => Ok(Slots { newest, repaired: !whole, differs }),
        None => Err(corrupt(path, 0, reason)),
    }
}

impl StoredOptions {
    /// The options as each segment of the log has them, should the superblock be lost.
    pub(super) fn note(&self) -> Note {
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

    fn are_possible(&self) -> bool {
        self.block_size_ns > 0 && i64::try_from(self.block_size_ns).is_ok() && self.shards > 0
    }
}

impl Contents {
    pub(super) fn encode(&self, generation: u64) -> Vec<u8> {
        let mut bytes = vec![0; SLOT_BYTES];
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
