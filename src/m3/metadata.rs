//! What completes a snapshot of M3: its UUID, its number, and where the commit logs begin that are newer than it.
//!
//! Two files: the metadata, a protobuf message of three fields, and its checkpoint, the Adler-32 of the first. A snapshot whose metadata or
//! checkpoint is missing was not finished, or is being removed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fileset::Damage;
use crate::io::{Mapping, Vfs};

const FORMAT: &str = "M3 snapshot metadata";
const PREFIX: &str = "snapshot-";
const SUFFIX: &str = "-metadata.db";
const CHECKPOINT_SUFFIX: &str = "-metadata-checkpoint.db";
const UUID_BYTES: usize = 16;

/// The message's fields, and those of the message in its third.
const FIELD_INDEX: u64 = 1;
const FIELD_ID: u64 = 2;
const FIELD_LOG: u64 = 3;
const FIELD_LOG_PATH: u64 = 1;
const FIELD_LOG_INDEX: u64 = 2;

/// What M3 says of a snapshot that it has finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMetadata {
    /// The snapshot's number. Later ones have higher ones.
    pub index: u64,
    /// The snapshot's UUID: its volumes carry it.
    pub id: [u8; UUID_BYTES],
    /// The path that the first newer commit log had when the snapshot was made.
    pub log_path: String,
    /// The number of that log.
    pub log_index: u64,
}

impl SnapshotMetadata {
    /// Reads the metadata file at `path`, and the checkpoint beside it. `None` if there is no checkpoint: the snapshot does not count.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the checkpoint does not vouch for the file, or the file is no metadata or those of another snapshot than its name says.
    /// [`Error::Io`].
    pub fn read(disk: &dyn Vfs, path: &Path) -> Result<Option<Self>> {
        let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let corrupt = |path: &Path, damage: Damage| Error::Corrupt {
            format: FORMAT,
            path: path.to_owned(),
            offset: damage.offset,
            metric: None,
            reason: damage.reason,
        };
        let Some(name) = SnapshotName::parse(file_name) else {
            return Err(corrupt(path, Damage::at(0, "the file's name is not that of snapshot metadata")));
        };
        let checkpoint_path = name.checkpoint_path(path);
        let Some(checkpoint) = map(disk, &checkpoint_path)? else { return Ok(None) };
        let Ok(checkpoint) = <[u8; 4]>::try_from(&checkpoint[..]) else {
            return Err(corrupt(&checkpoint_path, Damage::at(checkpoint.len(), "not 4 bytes long")));
        };
        let bytes = disk.map(path)?;
        if simd_adler32::adler32(&&bytes[..]) != u32::from_le_bytes(checkpoint) {
            return Err(corrupt(path, Damage::at(0, "the file differs from the checksum in its checkpoint")));
        }
        let metadata = decode(&bytes).map_err(|damage| corrupt(path, damage))?;
        if (metadata.id, metadata.index) != (name.id, name.index) {
            return Err(corrupt(path, Damage::at(0, "it is about another snapshot than its name")));
        }
        Ok(Some(metadata))
    }

    /// The snapshot's UUID as text.
    pub fn uuid(&self) -> String {
        let mut text = String::new();
        for (at, byte) in self.id.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }
}

/// Which snapshot a file is about: `snapshot-UUID-NUMBER-metadata.db`, without dashes in the UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SnapshotName {
    id: [u8; UUID_BYTES],
    index: u64,
}

impl SnapshotName {
    /// The name of a metadata file.
    pub(super) fn parse(file_name: &str) -> Option<Self> {
        Self::parse_as(file_name, SUFFIX)
    }

    /// The name of a checkpoint.
    pub(super) fn parse_checkpoint(file_name: &str) -> Option<Self> {
        Self::parse_as(file_name, CHECKPOINT_SUFFIX)
    }

    fn parse_as(file_name: &str, suffix: &str) -> Option<Self> {
        let (id, index) = file_name.strip_prefix(PREFIX)?.strip_suffix(suffix)?.split_once('-')?;
        Some(SnapshotName { id: parse_uuid(id.as_bytes())?, index: index.parse().ok()? })
    }

    /// The checkpoint beside a metadata file.
    fn checkpoint_path(self, metadata_path: &Path) -> PathBuf {
        metadata_path.with_file_name(self.file_name(CHECKPOINT_SUFFIX))
    }

    /// The metadata file beside a checkpoint.
    pub(super) fn metadata_path(self, checkpoint_path: &Path) -> PathBuf {
        checkpoint_path.with_file_name(self.file_name(SUFFIX))
    }

    fn file_name(self, suffix: &str) -> String {
        let id: String = self.id.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{PREFIX}{id}-{}{suffix}", self.index)
    }
}

/// 32 hex digits.
fn parse_uuid(digits: &[u8]) -> Option<[u8; UUID_BYTES]> {
    let (pairs, odd) = digits.as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let bytes = pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok());
    let bytes: Option<Vec<u8>> = bytes.collect();
    bytes.filter(|_| odd.is_empty())?.try_into().ok()
}

fn map(disk: &dyn Vfs, path: &Path) -> Result<Option<Mapping>> {
    match disk.map(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.io_kind() == Some(ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

fn decode(bytes: &[u8]) -> Result<SnapshotMetadata, Damage> {
    // A number that is 0 and a text that is empty are not written.
    let mut metadata =
        SnapshotMetadata { index: 0, id: [0; UUID_BYTES], log_path: String::new(), log_index: 0 };
    let mut id = None;
    let mut message = Message { bytes, at: 0, end: bytes.len() };
    while let Some((field, value)) = message.next()? {
        match (field, value) {
            (FIELD_INDEX, Value::Number(index)) => metadata.index = index,
            (FIELD_ID, Value::Bytes(at, text)) => {
                let digits: Vec<u8> = text.iter().copied().filter(|digit| *digit != b'-').collect();
                id = Some(parse_uuid(&digits).ok_or(Damage::at(at, "the snapshot's id is no UUID"))?);
            }
            (FIELD_LOG, Value::Bytes(at, log)) => {
                let mut log = Message { bytes, at, end: at + log.len() };
                while let Some((field, value)) = log.next()? {
                    match (field, value) {
                        (FIELD_LOG_PATH, Value::Bytes(_, path)) => {
                            metadata.log_path = String::from_utf8_lossy(path).into_owned();
                        }
                        (FIELD_LOG_INDEX, Value::Number(index)) => metadata.log_index = index,
                        _ => {}
                    }
                }
            }
            // A newer M3 may have added it.
            _ => {}
        }
    }
    metadata.id = id.ok_or(Damage::at(0, "the snapshot's id is missing"))?;
    Ok(metadata)
}

/// A value of a protobuf message. Bytes come with the place where they begin.
enum Value<'m> {
    Number(u64),
    Bytes(usize, &'m [u8]),
    /// Of a kind that none of the known fields has.
    Other,
}

/// The fields of a protobuf message, one after the other: as much of the format as these files need.
struct Message<'m> {
    bytes: &'m [u8],
    at: usize,
    end: usize,
}

impl<'m> Message<'m> {
    fn next(&mut self) -> Result<Option<(u64, Value<'m>)>, Damage> {
        if self.at >= self.end {
            return Ok(None);
        }
        let begin = self.at;
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let len = self.varint()?;
                let at = self.at;
                Value::Bytes(at, self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return Err(Damage::at(begin, "a field of a kind that is not known")),
        };
        Ok(Some((key >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, Damage> {
        let begin = self.at;
        let mut number = 0_u64;
        for place in 0..10 {
            let byte = self.take(1)?.first().copied().unwrap_or_default();
            let bits = u64::from(byte & 0x7f);
            if bits.leading_zeros() < 7 * place {
                break;
            }
            number |= bits << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Damage::at(begin, "a number of more than 64 bits"))
    }

    fn take(&mut self, len: u64) -> Result<&'m [u8], Damage> {
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        let end = end.filter(|end| *end <= self.end);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(Damage::at(self.at, "ends within a field"))?;
        self.at += taken.len();
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::MemoryDisk;

    const NAME: &str = "/snapshot-6ba7b8109dad11d180b400c04fd430c8-3-metadata.db";
    const CHECKPOINT: &str = "/snapshot-6ba7b8109dad11d180b400c04fd430c8-3-metadata-checkpoint.db";

    fn bytes() -> Vec<u8> {
        let id = b"6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        [b"\x08\x03\x12\x24", &id[..], b"\x1a\x06\x0a\x02ab\x10\x07"].concat()
    }

    fn read(bytes: &[u8], checkpoint: &[u8]) -> Result<Option<SnapshotMetadata>> {
        let disk = MemoryDisk::new();
        for (path, bytes) in [(NAME, bytes), (CHECKPOINT, checkpoint)] {
            disk.create(path.as_ref()).and_then(|file| file.write_at(0, bytes)).expect("room");
        }
        SnapshotMetadata::read(&disk, NAME.as_ref())
    }

    fn checksum(bytes: &[u8]) -> [u8; 4] {
        simd_adler32::adler32(&bytes).to_le_bytes()
    }

    #[test]
    fn fields_are_read_and_unknown_ones_passed_over() {
        let bytes = bytes();
        let found = read(&bytes, &checksum(&bytes)).expect("sound").expect("there is a checkpoint");
        assert_eq!((found.index, found.log_index, &*found.log_path), (3, 7, "ab"));
        assert_eq!(found.uuid(), "6ba7b810-9dad-11d1-80b4-00c04fd430c8");
        let newer = [&bytes[..], b"\x20\x05\x2a\x01x\x35abcd\x39abcdefgh"].concat();
        assert_eq!(decode(&newer), Ok(found));
        assert!(decode(b"\x08\x03").is_err(), "no UUID");
        assert!(decode(b"\x0b").is_err(), "a group");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (whole, sum) = (bytes(), checksum(&bytes()));
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read(&bytes, &sum), Err(Error::Corrupt { .. })), "bit {bit}");
            // Under a right checksum: an error or metadata, but never a panic.
            let _ = read(&bytes, &checksum(&bytes));
        }
        for bit in 0..32 {
            let mut sum = sum;
            sum[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read(&whole, &sum), Err(Error::Corrupt { .. })), "bit {bit}");
        }
        for len in 0..whole.len() {
            assert!(matches!(read(&whole[..len], &sum), Err(Error::Corrupt { .. })), "cut to {len}");
            let _ = read(&whole[..len], &checksum(&whole[..len]));
        }
        for len in 0..4 {
            assert!(matches!(read(&whole, &sum[..len]), Err(Error::Corrupt { .. })), "checkpoint of {len}");
        }
    }

    #[test]
    fn another_snapshots_metadata_are_damage() {
        let mut other = bytes();
        other[1] = 4;
        let error = read(&other, &checksum(&other)).expect_err("another number");
        assert!(error.to_string().contains("another snapshot"), "{error}");
    }

    #[test]
    fn lengths_that_lie_are_damage() {
        assert!(decode(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").is_err());
        assert!(decode(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02").is_err());
        // The inner message is longer than the field that holds it.
        assert!(decode(b"\x1a\x02\x0a\x05abcdefgh").is_err());
    }

    #[test]
    fn metadata_without_a_checkpoint_do_not_count() {
        let disk = MemoryDisk::new();
        disk.create(NAME.as_ref()).and_then(|file| file.write_at(0, &bytes())).expect("room");
        assert!(matches!(SnapshotMetadata::read(&disk, NAME.as_ref()), Ok(None)));
    }
}
