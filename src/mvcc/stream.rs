//! The in-order part of an active partition: M3TSZ streams, each within one window.
//!
//! A stream ends at its window's end or at [`STREAM_POINTS_MAX`] points; then the next one begins, and no map changes. A closed
//! stream is one piece of bytes that never changes. The open one consists of full chunks, which are shared with readers, and a
//! short tail, which they copy: nobody copies megabytes under a partition's lock.
//!
//! Long columns in order become closed streams before their commit has a number ([`ClosedStream::of_columns`]); a partition
//! adopts them as they are.

use std::borrow::Cow;

use crate::m3tsz::{Decoder, Encoder, EncoderOptions, ValueCoding};
use crate::sync::{Arc, take_or_clone};

use super::memory::{Memory, Share};
use super::partition_map::Cover;
use super::window::Window;

/// The most points of one stream.
pub(crate) const STREAM_POINTS_MAX: u64 = 65_536;
/// The most points of a stream that rests: to encode these again takes less than to keep it and the next one.
const RESTING_POINTS_MAX: u64 = 32;
/// How many bytes of an open stream are frozen at a time.
const CHUNK_BYTES: usize = 4_096;
/// A shorter tail is copied, as a chunk of its own would take more.
const SHARED_BYTES_MIN: usize = 256;
/// What a chunk takes besides its bytes: two counted objects, and what the allocator adds.
const AROUND_CHUNK_BYTES: u64 = 100;

/// A stream that takes points. A clone shares the full chunks.
#[derive(Clone, Debug)]
pub(crate) enum OpenStream {
    Growing(Growing),
    /// It was short when the database was closed. With the next point it grows again: a million of them need not be encoded anew before there is one.
    Resting(Resting),
}

/// See [`OpenStream`].
#[derive(Clone, Debug)]
pub(crate) struct Growing {
    encoder: Encoder,
    /// None as long as it is short, as a million streams may be.
    chunks: Option<Box<Chunks>>,
    /// The end of the window that all its points lie in.
    window_last: i64,
    first: i64,
}

/// See [`OpenStream`].
#[derive(Clone, Debug)]
pub(crate) struct Resting {
    first: i64,
    last: i64,
    points: u64,
    /// Finished. Not counted, as a copy of so few takes no more.
    bytes: Box<[u8]>,
}

// There may be a million of them.
const _: () = assert!(size_of::<OpenStream>() <= 152);

/// The bytes of an open stream but for its tail.
#[derive(Clone, Debug, Default)]
struct Chunks {
    list: Vec<Chunk>,
    bytes: usize,
}

/// Whole bytes of an open stream that do not change any more.
#[derive(Clone, Debug)]
struct Chunk {
    bytes: Arc<Vec<u8>>,
    /// For them, however many partitions have it.
    #[expect(dead_code, reason = "it counts by being there")]
    share: Arc<Share>,
}

/// A stream that is complete. A clone shares the bytes.
#[derive(Clone, Debug)]
pub(crate) struct ClosedStream {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) points: u64,
    pub(crate) bytes: Arc<Vec<u8>>,
}

impl OpenStream {
    /// A stream that begins with this point. `None` if the codec refuses it even as a first point.
    pub(crate) fn begin(window: Cover, at: i64, value: f64, annotation: &[u8]) -> Option<Self> {
        Growing::begin(window, at, value, annotation).map(OpenStream::Growing)
    }

    /// One that goes on where this one ends, unless that is too long.
    pub(crate) fn resting(stream: ClosedStream) -> Result<Self, ClosedStream> {
        let ClosedStream { first, last, points, bytes } = stream;
        if points > RESTING_POINTS_MAX {
            return Err(ClosedStream { first, last, points, bytes });
        }
        let bytes = take_or_clone(bytes);
        Ok(OpenStream::Resting(Resting { first, last, points, bytes: bytes.into() }))
    }

    /// Appends a point later than the last one. `false`, and nothing is changed, if it belongs into another stream. `windows` are those that streams lie in. Full
    /// chunks have shares of `memory`.
    pub(crate) fn append(
        &mut self,
        windows: Window,
        at: i64,
        value: f64,
        annotation: &[u8],
        memory: &Memory,
    ) -> bool {
        if let OpenStream::Resting(stream) = self {
            match Growing::of(stream, windows.of(stream.first)) {
                Some(growing) => *self = OpenStream::Growing(growing),
                // One that does not decode stays as it is, for who reads it to find.
                None => return false,
            }
        }
        match self {
            OpenStream::Growing(growing) => growing.append(at, value, annotation, memory),
            OpenStream::Resting(_) => false,
        }
    }

    /// Another one of the same points, which go on apart. Nothing but a few bytes is copied: the tail of this one becomes a chunk, unless it is short.
    pub(crate) fn share(&mut self, memory: &Memory) -> OpenStream {
        if let OpenStream::Growing(growing) = self
            && growing.encoder.buffered_bytes() >= SHARED_BYTES_MIN
        {
            growing.freeze_tail(memory);
        }
        self.clone()
    }

    /// The times of its first and its last point.
    pub(crate) fn cover(&self) -> Cover {
        match self {
            OpenStream::Growing(growing) => Cover { first: growing.first, last: growing.last() },
            OpenStream::Resting(stream) => Cover { first: stream.first, last: stream.last },
        }
    }

    pub(crate) fn points(&self) -> u64 {
        match self {
            OpenStream::Growing(growing) => growing.encoder.points(),
            OpenStream::Resting(stream) => stream.points,
        }
    }

    /// The bytes of its points.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            OpenStream::Growing(growing) => growing.chunk_bytes() + growing.encoder.buffered_bytes(),
            OpenStream::Resting(stream) => stream.bytes.len(),
        }
    }

    /// The bytes that it takes in memory, the encoder's spare room included.
    pub(crate) fn allocated_bytes(&self) -> usize {
        let chunks = match self {
            OpenStream::Growing(growing) => growing.chunk_bytes(),
            OpenStream::Resting(_) => 0,
        };
        chunks + self.own_bytes()
    }

    /// Those of them that are not in chunks, which have shares of their own.
    pub(crate) fn own_bytes(&self) -> usize {
        match self {
            OpenStream::Growing(growing) => growing.own_bytes(),
            OpenStream::Resting(stream) => stream.bytes.len(),
        }
    }

    /// The stream so far, finished.
    pub(crate) fn prefix(&self) -> StreamBytes {
        match self {
            OpenStream::Growing(growing) => growing.prefix(),
            OpenStream::Resting(stream) => StreamBytes { chunks: Vec::new(), tail: stream.bytes.to_vec() },
        }
    }

    /// The whole stream, finished, for good.
    pub(crate) fn close(self) -> ClosedStream {
        match self {
            OpenStream::Growing(growing) => growing.close(),
            OpenStream::Resting(Resting { first, last, points, bytes }) => {
                ClosedStream { first, last, points, bytes: Arc::new(bytes.into()) }
            }
        }
    }
}

impl Growing {
    fn begin(window: Cover, at: i64, value: f64, annotation: &[u8]) -> Option<Self> {
        // M3's streams start at their block's start; one that starts at its own first point is as good and never refused.
        [window.first, at].into_iter().find_map(|start| {
            let mut encoder = Encoder::new(start, EncoderOptions::default());
            encoder.append(at, value, annotation).ok()?;
            Some(Growing { encoder, chunks: None, window_last: window.last, first: at })
        })
    }

    /// One with the points of this stream, which is short and lies in `window`; `None` if it does not decode.
    fn of(stream: &Resting, window: Cover) -> Option<Self> {
        // Too short for chunks, which would count.
        let memory = Memory::default();
        let mut decoder = Decoder::new(&stream.bytes, ValueCoding::IntOptimized);
        let mut growing: Option<Growing> = None;
        while let Some(point) = decoder.next_point().transpose().ok()? {
            let (at, value, annotation) = (point.timestamp, point.value, point.annotation);
            match &mut growing {
                Some(growing) if at > growing.last() => {
                    growing.append(at, value, annotation, &memory).then_some(())?;
                }
                Some(_) => return None,
                None => growing = Growing::begin(window, at, value, annotation),
            }
        }
        growing.filter(|growing| {
            (growing.encoder.points(), growing.first, growing.last())
                == (stream.points, stream.first, stream.last)
        })
    }

    fn append(&mut self, at: i64, value: f64, annotation: &[u8], memory: &Memory) -> bool {
        debug_assert!(at > self.last());
        if at > self.window_last
            || self.encoder.points() >= STREAM_POINTS_MAX
            || self.encoder.append(at, value, annotation).is_err()
        {
            return false;
        }
        if self.encoder.buffered_bytes() >= CHUNK_BYTES {
            self.freeze_tail(memory);
        }
        true
    }

    /// Makes the whole bytes of the tail a chunk.
    fn freeze_tail(&mut self, memory: &Memory) {
        let mut bytes = self.encoder.take_complete();
        // Its room is up to twice that, which nobody needs any more.
        bytes.shrink_to_fit();
        let chunks = self.chunks.get_or_insert_default();
        chunks.bytes += bytes.len();
        let share = Arc::new(memory.share(AROUND_CHUNK_BYTES + bytes.len() as u64));
        chunks.list.push(Chunk { bytes: Arc::new(bytes), share });
    }

    /// The time of its last point.
    fn last(&self) -> i64 {
        // It has at least one.
        self.encoder.last_timestamp().unwrap_or(self.first)
    }

    fn own_bytes(&self) -> usize {
        let chunks = |chunks: &Chunks| size_of::<Chunks>() + chunks.list.capacity() * size_of::<Chunk>();
        self.chunks.as_deref().map_or(0, chunks) + self.encoder.allocated_bytes()
    }

    fn chunk_bytes(&self) -> usize {
        self.chunks.as_ref().map_or(0, |chunks| chunks.bytes)
    }

    fn prefix(&self) -> StreamBytes {
        let mut tail = Vec::with_capacity(self.encoder.buffered_bytes() + 16);
        self.encoder.finish_into(&mut tail);
        let chunks = self.chunks.iter().flat_map(|chunks| &chunks.list);
        StreamBytes { chunks: chunks.map(|chunk| chunk.bytes.clone()).collect(), tail }
    }

    fn close(self) -> ClosedStream {
        let bytes = self.prefix().contiguous().into_owned();
        let Growing { encoder, first, .. } = &self;
        ClosedStream { first: *first, last: self.last(), points: encoder.points(), bytes: Arc::new(bytes) }
    }
}

impl ClosedStream {
    /// Points in strictly ascending order as streams, cut as a partition cuts them: at the ends of windows, and after
    /// [`STREAM_POINTS_MAX`] points. `None` if the codec refuses one even as a first point. There are as many times as values.
    pub(crate) fn of_columns(
        windows: Window,
        mut times: impl Iterator<Item = i64>,
        mut values: &[f64],
    ) -> Option<Vec<ClosedStream>> {
        let mut streams = Vec::new();
        // Never all of them: a piece stays in the processor's cache from here to the encoder.
        let mut piece: Vec<i64> = Vec::with_capacity(values.len().min(STREAM_POINTS_MAX as usize));
        loop {
            let space = STREAM_POINTS_MAX as usize - piece.len();
            piece.extend(times.by_ref().take(space));
            let mut done = 0;
            while let Some(first) = piece.get(done) {
                let window = windows.of(*first);
                let end = done + piece[done..].partition_point(|at| *at <= window.last);
                // What ends with the piece may go on behind it.
                if end == piece.len() && done > 0 && end < values.len() {
                    break;
                }
                encode(window, &piece[done..end], &values[done..end], &mut streams)?;
                done = end;
            }
            values = &values[done..];
            piece.drain(..done);
            if values.is_empty() {
                return Some(streams);
            }
        }
    }
}

/// Points of one window as one stream, or as several if there are gaps that one stream cannot have.
fn encode(
    window: Cover,
    mut times: &[i64],
    mut values: &[f64],
    streams: &mut Vec<ClosedStream>,
) -> Option<()> {
    while let Some(first) = times.first() {
        let encoder = [window.first, *first].into_iter().find_map(|start| {
            let mut encoder = Encoder::new(start, EncoderOptions::default());
            // The points before one that is refused are in it.
            let _ = encoder.append_all(times, values);
            (encoder.points() > 0).then_some(encoder)
        })?;
        let points = encoder.points();
        let mut bytes = Vec::with_capacity(encoder.finish_bytes());
        encoder.finish_into(&mut bytes);
        let (done, left) = times.split_at(points as usize);
        let last = done.last().copied()?;
        streams.push(ClosedStream { first: *first, last, points, bytes: Arc::new(bytes) });
        (times, values) = (left, &values[points as usize..]);
    }
    Some(())
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(stream: &ClosedStream) -> Vec<(i64, u64)> {
        let mut decoder = Decoder::new(&stream.bytes, ValueCoding::IntOptimized);
        let mut points = Vec::new();
        while let Some(point) = decoder.next_point() {
            let point = point.expect("sound");
            points.push((point.timestamp, point.value.to_bits()));
        }
        points
    }

    /// Each stream lies in one window, and together they have all points.
    fn check(width: i64, points: &[(i64, u64)]) -> Result<Vec<ClosedStream>, TestCaseError> {
        let values: Vec<f64> = points.iter().map(|(_, bits)| f64::from_bits(*bits)).collect();
        let windows = Window::new(width);
        let streams = ClosedStream::of_columns(windows, points.iter().map(|(at, _)| *at), &values);
        let streams = streams.expect("any point can be the first");
        let mut all = Vec::new();
        for stream in &streams {
            let points = decoded(stream);
            prop_assert_eq!(points.len() as u64, stream.points);
            prop_assert!(stream.points <= STREAM_POINTS_MAX);
            prop_assert_eq!((points[0].0, points[points.len() - 1].0), (stream.first, stream.last));
            prop_assert!(windows.of(stream.first).has(stream.last));
            all.extend(points);
        }
        prop_assert_eq!(all, points);
        Ok(streams)
    }

    proptest! {
        #[test]
        fn columns_come_back_whatever_their_gaps(
            mut points in prop::collection::btree_map(prop_oneof![any::<i64>(), -300..300i64], any::<u64>(), 1..200),
            width in 1..100i64, far in any::<bool>(),
        ) {
            if far {
                points.extend([(i64::MIN, 0), (i64::MAX, 0)]);
            }
            check(width, &points.into_iter().collect::<Vec<_>>())?;
        }
    }

    #[test]
    fn long_columns_are_cut_at_windows_and_at_the_most_points() {
        let points: Vec<(i64, u64)> = (0..200_000).map(|at| (at, 0)).collect();
        let lengths = |width| {
            let streams = check(width, &points).expect("as they were");
            streams.into_iter().map(|stream| stream.points).collect::<Vec<_>>()
        };
        assert_eq!(lengths(1 << 50)[..2], [STREAM_POINTS_MAX, STREAM_POINTS_MAX]);
        assert_eq!(lengths(1 << 50).iter().sum::<u64>(), 200_000);
        // Windows of 40,000 begin somewhere; none is cut because of where a piece ends.
        let cut = lengths(40_000);
        assert!(cut.len() <= 6 && cut[1..cut.len() - 1].iter().all(|points| *points == 40_000), "{cut:?}");
    }
}
