//! A file that is written from front to back, and the checksums of what went into it.

use std::io;
use std::path::{Path, PathBuf};

use simd_adler32::Adler32;

use super::supplement::FileSum;
use crate::error::{Error, Result};
use crate::io::{Vfs, VfsFile};

/// Bytes that are collected for one write.
const BUFFER_BYTES: usize = 256 << 10;

/// A file being written. Nothing of it is durable before [`Output::sync`].
#[derive(Debug)]
pub(super) struct Output {
    file: Box<dyn VfsFile>,
    path: PathBuf,
    /// A write failed, so that the file is not what its checksum says: it must not become durable.
    failed: bool,
    /// How much of it has been written.
    written: u64,
    buffer: Vec<u8>,
    adler: Checksum,
    /// CRC-32, if it was asked for.
    crc: Option<crc32fast::Hasher>,
}

/// The checksums of a file that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) adler: u32,
    /// CRC 0 if it was not asked for.
    pub(super) sum: FileSum,
}

/// `Adler32` without `Debug` of its own.
struct Checksum(Adler32);

impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#010x}", self.0.finish())
    }
}

impl Output {
    /// Makes the file, which must not exist.
    pub(super) fn create(disk: &dyn Vfs, path: &Path) -> Result<Self> {
        Ok(Output {
            file: disk.create(path)?,
            path: path.to_owned(),
            failed: false,
            written: 0,
            buffer: Vec::new(),
            adler: Checksum(Adler32::new()),
            crc: None,
        })
    }

    /// Makes the file, which must not exist, and leaves room at its front for [`Output::sync_with_head`].
    pub(super) fn create_behind(disk: &dyn Vfs, path: &Path, head_bytes: u64) -> Result<Self> {
        let output = Output::create(disk, path)?;
        Ok(Output { written: head_bytes, ..output })
    }

    /// Asks for the CRC-32 of all that will be appended.
    pub(super) fn with_crc(self, wanted: bool) -> Self {
        Output { crc: wanted.then(crc32fast::Hasher::new), ..self }
    }

    /// The length so far, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Appends bytes. After an error nothing more can be done with the file.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.adler.0.write(bytes);
        if let Some(crc) = &mut self.crc {
            crc.update(bytes);
        }
        if self.buffer.len() + bytes.len() <= BUFFER_BYTES {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        let buffer = std::mem::take(&mut self.buffer);
        self.write(&buffer)?;
        self.buffer = buffer;
        self.buffer.clear();
        if bytes.len() > BUFFER_BYTES {
            return self.write(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Makes all of it durable (its name is the folder's to sync), and returns its checksums.
    pub(super) fn sync(mut self) -> Result<Written> {
        let buffer = std::mem::take(&mut self.buffer);
        self.write(&buffer)?;
        self.file.sync()?;
        let crc = self.crc.map_or(0, crc32fast::Hasher::finalize);
        Ok(Written { adler: self.adler.0.finish(), sum: FileSum { len: self.written, crc } })
    }

    /// Writes what room was left for, for now. The checksums are without it.
    pub(super) fn write_head(&self, head: &[u8]) -> Result<()> {
        self.file.write_at(0, head)
    }

    /// Writes what room was left for, for good, and makes all of it durable. The checksums are without it.
    pub(super) fn sync_with_head(self, head: &[u8]) -> Result<()> {
        self.write_head(head)?;
        self.sync().map(drop)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.failed {
            return Err(Error::io("write", &self.path, io::Error::other("an earlier write failed")));
        }
        if !bytes.is_empty() {
            let written = self.file.write_at(self.written, bytes);
            self.failed = written.is_err();
            written?;
            self.written += bytes.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::MemoryDisk;

    #[test]
    fn pieces_of_any_size_become_one_file() {
        let disk = MemoryDisk::new();
        let path = Path::new("/file");
        let mut output = Output::create(&disk, path).expect("room").with_crc(true);
        let mut all = Vec::new();
        for len in [0, 5, BUFFER_BYTES - 5, 1, BUFFER_BYTES, BUFFER_BYTES + 1, 3, 2 * BUFFER_BYTES] {
            let piece = vec![len as u8 ^ 0x5a; len];
            output.append(&piece).expect("room");
            all.extend(piece);
            assert_eq!(output.len(), all.len() as u64);
        }
        let adler = simd_adler32::adler32(&&all[..]);
        assert_eq!(output.sync().expect("it syncs"), Written { adler, sum: FileSum::of(&all) });
        assert!(*disk.map(path).expect("it is there") == all[..]);
    }

    #[test]
    fn head_goes_into_the_room_left_for_it() {
        let disk = MemoryDisk::new();
        let path = Path::new("/file");
        let mut output = Output::create_behind(&disk, path, 4).expect("room");
        assert_eq!(output.len(), 4);
        output.append(b"body").expect("room");
        output.sync_with_head(b"head").expect("room");
        assert_eq!(*disk.map(path).expect("it is there"), *b"headbody");
    }
}
