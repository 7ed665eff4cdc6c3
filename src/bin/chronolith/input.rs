//! Input files: plain or zstd, named or standard input, with a count of the bytes read for progress bars.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::failure::{Failure, Outcome};

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Skippable frames: the lowest four bits of the first byte vary.
const ZSTD_SKIPPABLE_MAGIC: [u8; 3] = [0x2a, 0x4d, 0x18];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// What the zstd tool accepts without being asked to; this much memory a damaged header can cost.
const WINDOW_BYTES_MAX: u64 = 1 << 27;
const BUFFER_BYTES: usize = 1 << 18;

/// An input named on the command line.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    path: PathBuf,
}

impl Input {
    pub(crate) fn new(path: PathBuf) -> Self {
        Input { path }
    }

    fn is_stdin(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    /// For messages.
    pub(crate) fn name(&self) -> String {
        if self.is_stdin() { "standard input".to_owned() } else { self.path.display().to_string() }
    }

    /// The file's size as it is stored. Checks on the way that it is there, before any work begins.
    ///
    /// # Errors
    /// If it cannot be opened, or is a folder. `Ok(None)` is a stream without a known end.
    pub(crate) fn stored_bytes(&self) -> Outcome<Option<u64>> {
        if self.is_stdin() {
            return Ok(None);
        }
        let metadata = std::fs::metadata(&self.path).map_err(|error| self.unreadable(&error))?;
        if metadata.is_dir() {
            return Err(Failure::input(format_args!("{} is a folder, not a file", self.path.display())));
        }
        Ok(metadata.is_file().then_some(metadata.len()))
    }

    /// Whether it can be read more than once, unlike a pipe.
    pub(crate) fn is_regular(&self) -> bool {
        !self.is_stdin() && self.path.is_file()
    }

    /// Opens it for reading, decompressed if it is zstd. `read` counts the stored bytes.
    pub(crate) fn open(&self, read: Arc<AtomicU64>) -> Outcome<Box<dyn Read>> {
        let source: Box<dyn Read> = if self.is_stdin() {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(&self.path).map_err(|error| self.unreadable(&error))?)
        };
        let mut source = BufReader::with_capacity(BUFFER_BYTES, Counted { source, read });
        let magic = source.fill_buf().map_err(|error| self.unreadable(&error))?;
        if magic.starts_with(&GZIP_MAGIC) {
            return Err(Failure::input(format_args!("{} is compressed with gzip", self.name()))
                .hint("pipe it in: `gunzip -c FILE | chronolith import DIR -`"));
        }
        let skippable = magic.first().is_some_and(|byte| byte >> 4 == 5)
            && magic.get(1..).is_some_and(|rest| rest.starts_with(&ZSTD_SKIPPABLE_MAGIC));
        if magic.starts_with(&ZSTD_MAGIC) || skippable {
            Ok(Box::new(ZstdFrames::new(source)))
        } else {
            Ok(Box::new(source))
        }
    }

    fn unreadable(&self, error: &io::Error) -> Failure {
        Failure::file("read", Path::new(&self.name()), error)
    }
}

/// Counts what is read through it.
struct Counted<R> {
    source: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        // Only a progress bar looks at it.
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Decodes zstd frames one after the other until the source ends, and compares their checksums where they have one.
pub(crate) struct ZstdFrames<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> ZstdFrames<R> {
    pub(crate) fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW_BYTES_MAX);
        ZstdFrames { source, decoder, in_frame: false }
    }

    /// Reads the next frame's header. `false` at the end of the source.
    fn begin_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.source).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(damaged("it ends within a skippable frame"));
                    }
                }
                Err(error) => return Err(damaged(error)),
            }
        }
        Ok(false)
    }

    fn end_frame(&mut self) -> io::Result<()> {
        match (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum()) {
            (Some(stored), Some(found)) if stored != found => Err(damaged("its checksum is wrong")),
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame {
                self.in_frame = self.begin_frame()?;
                if !self.in_frame {
                    return Ok(0);
                }
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(damaged)?;
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.end_frame()?;
            self.in_frame = false;
        }
    }
}

fn damaged(reason: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the zstd stream is damaged: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame that stores its content in one raw block.
    fn frame(content: &[u8]) -> Vec<u8> {
        let size = u8::try_from(content.len()).expect("a short content");
        let header = [ZSTD_MAGIC.as_slice(), &[0x20, size]].concat();
        let block = (u32::from(size) << 3 | 1).to_le_bytes();
        [header.as_slice(), &block[..3], content].concat()
    }

    fn decode(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        ZstdFrames::new(bytes).read_to_end(&mut content).map(|_| content)
    }

    #[test]
    fn frames_follow_one_another() {
        let skippable = [&[0x53][..], &ZSTD_SKIPPABLE_MAGIC, &3u32.to_le_bytes(), b"abc"].concat();
        let stream =
            [skippable.as_slice(), &frame(b"one "), &skippable, &frame(b""), &frame(b"two")].concat();
        assert_eq!(decode(&stream).expect("sound frames"), b"one two");
    }

    #[test]
    fn damage_is_an_error() {
        let whole = frame(b"content");
        for length in 1..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "cut to {length} bytes");
        }
        assert!(decode(&[whole.as_slice(), b"rubbish"].concat()).is_err());
        let short_skip = [&[0x50][..], &ZSTD_SKIPPABLE_MAGIC, &9u32.to_le_bytes(), b"abc"].concat();
        assert!(decode(&short_skip).is_err());
    }
}
