//! Copies of files, for disks that give a file one name only.

use std::io;
use std::path::Path;

use super::{Linked, Vfs, op};
use crate::error::{Error, Result};

/// Bytes that are copied at once.
const PIECE_BYTES: usize = 256 << 10;

/// Copies a file to a name that is free, and makes the bytes durable.
///
/// # Errors
/// [`Error::Io`]; then a part of the copy may be there.
pub(super) fn copy(disk: &(impl Vfs + ?Sized), from: &Path, to: &Path) -> Result<Linked> {
    let source = disk.open(from, false)?;
    let source = source.ok_or_else(|| Error::io(op::LINK, from, io::ErrorKind::NotFound.into()))?;
    let copy = disk.create(to)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut copied = 0;
    loop {
        let read = source.read_at(copied, &mut piece)?;
        copy.write_at(copied, &piece[..read])?;
        copied += read as u64;
        if read < piece.len() {
            break;
        }
    }
    copy.sync()?;
    Ok(Linked::Copied(copied))
}
