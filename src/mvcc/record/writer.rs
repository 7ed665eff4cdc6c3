//! Writing a section.

use crate::names::{MetricId, NamespaceId, NamespaceOptions, Tags};
use crate::sync::Arc;

use super::super::partition_map::Cover;
use super::super::stream::ClosedStream;
use super::{Install, install, opcode, tags};

/// Where a section stood.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SectionMark {
    bytes: usize,
    streams: usize,
    stream_bytes: usize,
    last_metric: u32,
    last_at: i64,
}

impl SectionMark {
    /// The bytes that the section takes in memory.
    pub(crate) fn size(&self) -> usize {
        self.bytes + self.stream_bytes
    }
}

/// Writes one section.
#[derive(Clone, Debug)]
pub(crate) struct SectionWriter {
    bytes: Vec<u8>,
    /// The streams that are in `bytes`, in this order, so that partitions can have them without a copy.
    streams: Vec<Arc<Vec<u8>>>,
    stream_bytes: usize,
    last_metric: u32,
    last_at: i64,
}

/// What a section takes in memory at first. Small steps from nothing would be many calls to the allocator, which locks the arena that a piece came
/// from when it grows: two threads whose pieces come from one arena would then wait for each other.
const SECTION_BYTES: usize = 512;

impl SectionWriter {
    pub(crate) fn new() -> Self {
        let mut bytes = Vec::with_capacity(SECTION_BYTES);
        bytes.push(opcode::SECTION);
        SectionWriter { bytes, streams: Vec::new(), stream_bytes: 0, last_metric: 0, last_at: 0 }
    }

    /// Whether it has no commands.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() <= 1
    }

    /// Where it stands.
    pub(crate) fn mark(&self) -> SectionMark {
        SectionMark {
            bytes: self.bytes.len(),
            streams: self.streams.len(),
            stream_bytes: self.stream_bytes,
            last_metric: self.last_metric,
            last_at: self.last_at,
        }
    }

    /// Forgets what was written since it stood there.
    pub(crate) fn rewind(&mut self, mark: SectionMark) {
        self.bytes.truncate(mark.bytes);
        self.streams.truncate(mark.streams);
        self.stream_bytes = mark.stream_bytes;
        (self.last_metric, self.last_at) = (mark.last_metric, mark.last_at);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The section, and the streams in it.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Vec<Arc<Vec<u8>>>) {
        (self.bytes, self.streams)
    }

    pub(crate) fn point(&mut self, metric: MetricId, at: i64, value: f64) {
        self.command(opcode::POINT, metric);
        self.at(at);
        self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    /// `at` and `values` have the same length, which is not 0.
    pub(crate) fn columns(
        &mut self,
        metric: MetricId,
        at: impl ExactSizeIterator<Item = i64>,
        values: &[f64],
    ) {
        debug_assert_eq!(at.len(), values.len());
        self.command(opcode::COLUMNS, metric);
        let mut times = Vec::with_capacity(values.len() + 16);
        let (mut previous, mut previous_delta) = (self.last_at, 0i64);
        for at in at {
            let delta = at.wrapping_sub(previous);
            put_signed(&mut times, delta.wrapping_sub(previous_delta));
            (previous, previous_delta) = (at, delta);
        }
        self.last_at = previous;
        put_unsigned(&mut self.bytes, values.len() as u64);
        put_bytes(&mut self.bytes, &times);
        self.bytes.reserve(values.len() * 8);
        for value in values {
            self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    }

    /// At least one stream, in time order.
    pub(crate) fn streams(&mut self, metric: MetricId, streams: Vec<ClosedStream>) {
        self.command(opcode::STREAMS, metric);
        put_unsigned(&mut self.bytes, streams.len() as u64);
        self.bytes.reserve(streams.iter().map(|stream| stream.bytes.len() + 32).sum());
        for ClosedStream { first, last, points, bytes } in streams {
            self.at(first);
            self.at(last);
            put_unsigned(&mut self.bytes, points);
            put_bytes(&mut self.bytes, &bytes);
            self.stream_bytes += bytes.len();
            self.streams.push(bytes);
        }
    }

    pub(crate) fn annotated(&mut self, metric: MetricId, at: i64, value: f64, annotation: &[u8]) {
        self.command(opcode::ANNOTATED, metric);
        self.at(at);
        self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
        put_bytes(&mut self.bytes, annotation);
    }

    /// Both ends included.
    pub(crate) fn delete(&mut self, metric: MetricId, first: i64, last: i64) {
        self.command(opcode::DELETE, metric);
        put_signed(&mut self.bytes, first);
        put_signed(&mut self.bytes, last);
    }

    /// `own_tags` are those that the name does not say.
    pub(crate) fn create(
        &mut self,
        metric: MetricId,
        namespace: NamespaceId,
        name: &[u8],
        own_tags: Option<&Tags>,
    ) {
        self.command(opcode::CREATE, metric);
        put_unsigned(&mut self.bytes, u64::from(namespace.0));
        put_bytes(&mut self.bytes, name);
        let Some(list) = own_tags else { return self.bytes.push(tags::IN_ID) };
        self.bytes.push(tags::LISTED);
        put_unsigned(&mut self.bytes, list.iter().len() as u64);
        for (key, value) in list.iter() {
            put_bytes(&mut self.bytes, key);
            put_bytes(&mut self.bytes, value);
        }
    }

    pub(crate) fn drop_metric(&mut self, metric: MetricId) {
        self.command(opcode::DROP, metric);
    }

    pub(crate) fn namespace(&mut self, id: NamespaceId, name: &str, options: NamespaceOptions) {
        self.bytes.push(opcode::NAMESPACE);
        put_unsigned(&mut self.bytes, u64::from(id.0));
        put_bytes(&mut self.bytes, name.as_bytes());
        put_signed(&mut self.bytes, options.block_ns);
        put_unsigned(&mut self.bytes, u64::from(options.shards));
    }

    pub(crate) fn put_meta(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.push(opcode::PUT_META);
        put_bytes(&mut self.bytes, key);
        put_bytes(&mut self.bytes, value);
    }

    pub(crate) fn remove_meta(&mut self, key: &[u8]) {
        self.bytes.push(opcode::REMOVE_META);
        put_bytes(&mut self.bytes, key);
    }

    pub(crate) fn freeze(&mut self, namespace: NamespaceId, shard: u32, block: Cover) {
        self.bytes.push(opcode::FREEZE);
        self.block(namespace, shard, block);
    }

    pub(crate) fn install(&mut self, install: &Install) {
        let Install { volume, first, last, is_last } = install;
        self.bytes.push(opcode::INSTALL);
        self.block(volume.namespace, volume.shard, volume.cover);
        put_signed(&mut self.bytes, volume.width_ns);
        put_unsigned(&mut self.bytes, u64::from(volume.id.0));
        put_unsigned(&mut self.bytes, u64::from(volume.number));
        put_unsigned(&mut self.bytes, volume.freeze.0);
        put_unsigned(&mut self.bytes, u64::from(first.0));
        put_unsigned(&mut self.bytes, u64::from(last.0));
        let last = if *is_last { install::LAST } else { 0 };
        let empty = if volume.is_empty { install::EMPTY } else { 0 };
        self.bytes.push(last | empty);
    }

    fn block(&mut self, namespace: NamespaceId, shard: u32, block: Cover) {
        put_unsigned(&mut self.bytes, u64::from(namespace.0));
        put_unsigned(&mut self.bytes, u64::from(shard));
        put_signed(&mut self.bytes, block.first);
        put_signed(&mut self.bytes, block.last);
    }

    fn command(&mut self, opcode: u8, metric: MetricId) {
        self.bytes.push(opcode);
        put_signed(&mut self.bytes, i64::from(metric.0) - i64::from(self.last_metric));
        self.last_metric = metric.0;
    }

    fn at(&mut self, at: i64) {
        put_signed(&mut self.bytes, at.wrapping_sub(self.last_at));
        self.last_at = at;
    }
}

/// LEB128: groups of seven bits, lowest first.
pub(crate) fn put_unsigned(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Zigzag: small numbers of either sign are short.
pub(crate) fn put_signed(bytes: &mut Vec<u8>, number: i64) {
    put_unsigned(bytes, (number << 1 ^ number >> 63) as u64);
}

/// A length and as many bytes.
pub(crate) fn put_bytes(bytes: &mut Vec<u8>, slice: &[u8]) {
    put_unsigned(bytes, slice.len() as u64);
    bytes.extend_from_slice(slice);
}
