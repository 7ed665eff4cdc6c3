//! Reading what is sound of a names file.

use std::path::Path;
use std::sync::Arc;

use super::NamesFile;
use super::file::{HEADER_BYTES, NameRecord, check_header, header, record_len};
use crate::commitlog::DatabaseId;
use crate::error::{Error, Result};
use crate::io::Vfs;

/// Bytes between two sound records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LostNames {
    pub(crate) offset: u64,
    pub(crate) reason: &'static str,
}

impl NamesFile {
    /// Visits all sound records of the file of a number, as far as `len` bytes count, or all of it. Behind a damaged record the next sound one is looked
    /// for at each byte: a record's checksum tells its place too. Also returns what is wrong with the header, which costs no record.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NewerFormat`]; [`Error::Corrupt`] if there is no such file.
    pub(crate) fn salvage(
        disk: &Arc<dyn Vfs>,
        dir: &Path,
        database_id: &DatabaseId,
        (number, len): (u64, Option<u64>),
        mut visit: impl FnMut(u64, NameRecord<'_>),
    ) -> Result<(Option<Error>, Vec<LostNames>)> {
        let path = NamesFile::folder(dir).join(NamesFile::file_name(number));
        let missing = || Error::Corrupt {
            format: "names file",
            path: path.clone(),
            offset: 0,
            metric: None,
            reason: "the file is missing",
        };
        let file = disk.open(&path, false)?.ok_or_else(missing)?;
        let damaged_header = match check_header(&*file, &path, &header(database_id, number), number) {
            Err(error @ Error::Corrupt { .. }) => Some(error),
            checked => checked.map(|()| None)?,
        };
        let bytes = disk.map(&path)?;
        let end = len.map_or(bytes.len() as u64, |len| len.min(bytes.len() as u64));
        let bytes = bytes.get(..end as usize).unwrap_or(&bytes);
        let mut lost: Vec<LostNames> = Vec::new();
        let (mut offset, mut is_lost) = (HEADER_BYTES, false);
        while offset < bytes.len() {
            match record_at(bytes, offset) {
                Ok((record, len)) => {
                    visit(offset as u64, record);
                    offset += len;
                    is_lost = false;
                }
                Err(reason) => {
                    if !is_lost {
                        lost.push(LostNames { offset: offset as u64, reason });
                    }
                    is_lost = true;
                    offset += 1;
                }
            }
        }
        if len.is_some_and(|len| len > end) {
            lost.push(LostNames { offset: end, reason: "the file ends too early" });
        }
        Ok((damaged_header, lost))
    }
}

fn record_at(bytes: &[u8], offset: usize) -> std::result::Result<(NameRecord<'_>, usize), &'static str> {
    const IMPOSSIBLE: &str = "a record's length is impossible";
    let rest = bytes.get(offset..).unwrap_or_default();
    let len = record_len(rest).ok_or(IMPOSSIBLE)?;
    let record = NameRecord::decode(offset as u64, rest.get(..len).ok_or(IMPOSSIBLE)?)?;
    Ok((record, len))
}
