//! The in-order part of an active partition: M3TSZ streams, each within one window.
//!
//! A stream ends at its window's end or at [`STREAM_POINTS_MAX`] points; then the next one begins, and no map changes. A closed
//! stream is one piece of bytes that never changes. The open one consists of full chunks, which are shared with readers, and a
//! short tail, which they copy: nobody copies megabytes under a partition's lock.

use std::borrow::Cow;

use crate::m3tsz::{Encoder, EncoderOptions};
use crate::sync::Arc;

use super::partition_map::Cover;

/// The most points of one stream.
pub(crate) const STREAM_POINTS_MAX: u64 = 65_536;
/// How many bytes of an open stream are frozen at a time.
const CHUNK_BYTES: usize = 4_096;

/// A stream that takes points.
#[derive(Debug)]
pub(crate) struct OpenStream {
    encoder: Encoder,
    chunks: Vec<Arc<Vec<u8>>>,
    /// The window that all its points lie in.
    window: Cover,
    first: i64,
    last: i64,
}

/// A stream that is complete.
#[derive(Debug)]
pub(crate) struct ClosedStream {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) points: u64,
    pub(crate) bytes: Arc<Vec<u8>>,
}

impl OpenStream {
    /// A stream that begins with this point. `None` if the codec refuses it even as a first point.
    pub(crate) fn begin(window: Cover, at: i64, value: f64, annotation: &[u8]) -> Option<Self> {
        // M3's streams start at their block's start; one that starts at its own first point is as good and never refused.
        [window.first, at].into_iter().find_map(|start| {
            let mut encoder = Encoder::new(start, EncoderOptions::default());
            encoder.append(at, value, annotation).ok()?;
            Some(OpenStream { encoder, chunks: Vec::new(), window, first: at, last: at })
        })
    }

    /// Appends a point later than the last one. `false`, and nothing is changed, if it belongs into another stream.
    pub(crate) fn append(&mut self, at: i64, value: f64, annotation: &[u8]) -> bool {
        debug_assert!(at > self.last);
        if at > self.window.last
            || self.encoder.points() >= STREAM_POINTS_MAX
            || self.encoder.append(at, value, annotation).is_err()
        {
            return false;
        }
        self.last = at;
        if self.encoder.buffered_bytes() >= CHUNK_BYTES {
            self.chunks.push(Arc::new(self.encoder.take_complete()));
        }
        true
    }

    /// The times of its first and its last point.
    pub(crate) fn cover(&self) -> Cover {
        Cover { first: self.first, last: self.last }
    }

    pub(crate) fn points(&self) -> u64 {
        self.encoder.points()
    }

    /// The bytes that it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum::<usize>() + self.encoder.buffered_bytes()
    }

    /// The stream so far, finished.
    pub(crate) fn prefix(&self) -> StreamBytes {
        let mut tail = Vec::with_capacity(self.encoder.buffered_bytes() + 16);
        self.encoder.finish_into(&mut tail);
        StreamBytes { chunks: self.chunks.clone(), tail }
    }

    /// The whole stream, finished, for good.
    pub(crate) fn close(self) -> ClosedStream {
        ClosedStream {
            first: self.first,
            last: self.last,
            points: self.points(),
            bytes: Arc::new(self.prefix().contiguous().into_owned()),
        }
    }
}

/// The bytes of a finished stream, in pieces.
#[derive(Debug)]
pub(crate) struct StreamBytes {
    chunks: Vec<Arc<Vec<u8>>>,
    tail: Vec<u8>,
}

impl StreamBytes {
    pub(crate) fn shared(bytes: Arc<Vec<u8>>) -> Self {
        StreamBytes { chunks: vec![bytes], tail: Vec::new() }
    }

    /// All bytes in one piece.
    pub(crate) fn contiguous(&self) -> Cow<'_, [u8]> {
        match self.chunks.as_slice() {
            [] => Cow::Borrowed(&self.tail),
            [only] if self.tail.is_empty() => Cow::Borrowed(only),
            chunks => {
                let bytes = chunks.iter().map(|chunk| chunk.len()).sum::<usize>() + self.tail.len();
                let mut all = Vec::with_capacity(bytes);
                for chunk in chunks {
                    all.extend_from_slice(chunk);
                }
                all.extend_from_slice(&self.tail);
                Cow::Owned(all)
            }
        }
    }
}
