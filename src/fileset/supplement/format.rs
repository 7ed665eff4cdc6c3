//! The head of a supplement: what it is, whose, and where its sections lie.

use std::path::Path;

use super::super::damage::Damage;
use super::super::name::{VolumeFile, VolumeName};
use super::fields::{Fields, FieldsMut};
use crate::error::{Error, Result};
use crate::io::Vfs;

/// The bytes of the head, and of a page of the table.
pub(super) const PAGE: usize = 4096;
/// The files that a supplement has the sums of.
pub(in super::super) const FILES: usize = VolumeFile::ALL.len();
pub(super) const FILE_SUM: usize = 16;

const FORMAT: &str = "volume supplement";
const FORMAT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"CHRONSUP";
const CRC_AT: usize = PAGE - 4;
const DIRECTORY_AT: usize = 96;
const SECTION: usize = 32;
const SECTIONS_MAX: u32 = ((CRC_AT - DIRECTORY_AT) / SECTION) as u32;
const _: () = assert!(SECTIONS_MAX == 124);

/// Whose metrics a volume's table is about, and as of when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupplementSpec {
    /// What distinguishes the database from every other, in which the metrics have their numbers. Without a database: any bytes that
    /// whoever hands out the numbers goes by, zeros if there is no one else.
    pub database_id: [u8; 16],
    /// The version of the database at which the volume's points were frozen; without one, 0 or any count.
    pub freeze_version: u64,
}

/// What is wrong with a supplement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fault {
    Damaged(Damage),
    Newer(u32),
}

impl Fault {
    pub(super) fn at(offset: usize, reason: &'static str) -> Self {
        Fault::Damaged(Damage::at(offset, reason))
    }

    /// As the crate's error.
    pub(in super::super) fn of(self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Fault::Damaged(Damage { offset, reason }) => {
                Error::Corrupt { format: FORMAT, path, offset, metric: None, reason }
            }
            Fault::Newer(found) => Error::NewerFormat { path, found, supported: FORMAT_VERSION },
        }
    }
}

impl From<Damage> for Fault {
    fn from(damage: Damage) -> Self {
        Fault::Damaged(damage)
    }
}

/// Length and CRC-32 of a whole file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct FileSum {
    pub(in super::super) len: u64,
    pub(in super::super) crc: u32,
}

impl FileSum {
    pub(in super::super) fn of(bytes: &[u8]) -> Self {
        FileSum { len: bytes.len() as u64, crc: crc32fast::hash(bytes) }
    }

    pub(super) fn encode(self) -> [u8; FILE_SUM] {
        let mut bytes = [0; FILE_SUM];
        let mut fields = FieldsMut(&mut bytes);
        fields.put(self.len.to_le_bytes());
        fields.put(self.crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; FILE_SUM]) -> Self {
        let mut fields = Fields(bytes);
        FileSum { len: fields.u64(), crc: fields.u32() }
    }
}

/// A kind of section that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    Table = 1,
    Files = 2,
    Fences = 3,
}

/// A part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) kind: u32,
    pub(super) crc: u32,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) entries: u64,
}

/// The first page of a supplement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) spec: SupplementSpec,
    pub(super) name: VolumeName,
    pub(super) block_size: i64,
    pub(super) file_len: u64,
    pub(super) sections: Vec<Section>,
}

impl Head {
    pub(super) fn encode(&self) -> [u8; PAGE] {
        debug_assert!(self.sections.len() <= SECTIONS_MAX as usize);
        let mut bytes = [0; PAGE];
        let mut fields = FieldsMut(&mut bytes);
        fields.put(MAGIC);
        fields.put(FORMAT_VERSION.to_le_bytes());
        fields.put((self.sections.len() as u32).to_le_bytes());
        fields.put(self.spec.database_id);
        fields.put(self.spec.freeze_version.to_le_bytes());
        fields.put(self.name.block_start.to_le_bytes());
        fields.put(self.block_size.to_le_bytes());
        fields.put(self.file_len.to_le_bytes());
        fields.put(self.name.volume.to_le_bytes());
        fields.skip(28);
        for section in &self.sections {
            fields.put(section.kind.to_le_bytes());
            fields.put(section.crc.to_le_bytes());
            [section.offset, section.len, section.entries]
                .into_iter()
                .for_each(|n| fields.put(n.to_le_bytes()));
        }
        let (used, crc) = bytes.split_at_mut(CRC_AT);
        crc.copy_from_slice(&crc32fast::hash(used).to_le_bytes());
        bytes
    }

    /// Reads the head of a file; whether the sections lie within the file is checked when they are taken.
    pub(super) fn decode(file: &[u8]) -> Result<Self, Fault> {
        let Some(page) = file.first_chunk::<PAGE>() else {
            return Err(Fault::at(file.len(), "shorter than its head"));
        };
        let (used, crc) = page.split_at(CRC_AT);
        let mut fields = Fields(used);
        if fields.bytes() != MAGIC {
            return Err(Fault::at(0, "the magic number differs"));
        }
        if Fields(crc).u32() != crc32fast::hash(used) {
            return Err(Fault::at(0, "the head's checksum differs"));
        }
        match fields.u32() {
            FORMAT_VERSION => {}
            0 => return Err(Fault::at(8, "format version 0")),
            newer => return Err(Fault::Newer(newer)),
        }
        let sections = fields.u32();
        if sections > SECTIONS_MAX {
            return Err(Fault::at(12, "more sections than there is room for"));
        }
        let spec = SupplementSpec { database_id: fields.bytes(), freeze_version: fields.u64() };
        let (block_start, block_size, file_len) = (fields.i64(), fields.i64(), fields.u64());
        let name = VolumeName { block_start, volume: fields.u32() };
        let _reserved: [u8; 28] = fields.bytes();
        let section = |fields: &mut Fields<'_>| Section {
            kind: fields.u32(),
            crc: fields.u32(),
            offset: fields.u64(),
            len: fields.u64(),
            entries: fields.u64(),
        };
        let sections = (0..sections).map(|_| section(&mut fields)).collect();
        if !fields.rest_is_zero() {
            return Err(Fault::at(DIRECTORY_AT, "bytes behind the directory"));
        }
        Ok(Head { spec, name, block_size, file_len, sections })
    }

    /// The only section of a kind.
    pub(super) fn section(&self, kind: Kind) -> Result<Section, Fault> {
        let mut sections = self.sections.iter().filter(|section| section.kind == kind as u32);
        match (sections.next(), sections.next()) {
            (Some(section), None) => Ok(*section),
            _ => Err(Fault::at(DIRECTORY_AT, "a section is missing or there twice")),
        }
    }
}

impl Section {
    /// The section's bytes in the file.
    pub(super) fn bytes(self, file: &[u8]) -> Result<&[u8], Fault> {
        let start = usize::try_from(self.offset).ok().filter(|start| *start >= PAGE);
        let end = start.and_then(|start| start.checked_add(usize::try_from(self.len).ok()?));
        let bytes = start.zip(end).and_then(|(start, end)| file.get(start..end));
        bytes.ok_or(Fault::at(DIRECTORY_AT, "a section lies outside the file"))
    }

    /// The section's bytes in the file, all of them checked.
    pub(super) fn checked(self, file: &[u8]) -> Result<&[u8], Fault> {
        let bytes = self.bytes(file)?;
        if crc32fast::hash(bytes) != self.crc {
            return Err(Fault::Damaged(Damage {
                offset: self.offset,
                reason: "a section's checksum differs",
            }));
        }
        Ok(bytes)
    }
}

/// Whose volume it is, complete or not, by its supplement alone; `None` if it has none.
///
/// For a sweep of volumes that a database began and did not come to use. Whether the supplement belongs to the files beside it is not
/// looked at.
///
/// # Errors
/// [`Error::Corrupt`] if the supplement is damaged, [`Error::NewerFormat`], [`Error::Io`].
pub fn read_supplement_spec(
    disk: &dyn Vfs,
    folder: &Path,
    name: VolumeName,
) -> Result<Option<SupplementSpec>> {
    let path = folder.join(name.supplement_file_name());
    let Some(file) = disk.open(&path, false)? else { return Ok(None) };
    let mut page = [0; PAGE];
    let len = file.read_at(0, &mut page)?;
    let head = Head::decode(page.get(..len).unwrap_or_default()).and_then(|head| match head.name == name {
        true => Ok(head),
        false => Err(Fault::at(0, "it is about another volume than its name")),
    });
    head.map(|head| Some(head.spec)).map_err(|fault| fault.of(&path))
}
