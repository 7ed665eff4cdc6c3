//! Records: the commands of one commit as bytes.
//!
//! The same bytes are the log's payload and what the lanes apply, so recovery runs the very code that the first run ran. A
//! record is a row of sections; commands of one metric are in one section, in the order in which they were given. Format:
//! `design/record.md`.

use crate::m3tsz::{Decoder, ValueCoding};
use crate::names::{MetricId, NamespaceId, NamespaceOptions, Tags};
use crate::sync::Arc;

use super::stream::{ClosedStream, STREAM_POINTS_MAX};

/// The longest annotation, in bytes.
pub const ANNOTATION_BYTES_MAX: usize = 65_536;
/// The longest key or value of the metadata, in bytes.
pub const META_BYTES_MAX: usize = 1 << 20;

/// The first byte of each command.
mod opcode {
    /// Begins a section: ids and times are again relative to 0.
    pub(super) const SECTION: u8 = 1;
    pub(super) const POINT: u8 = 2;
    pub(super) const COLUMNS: u8 = 3;
    pub(super) const ANNOTATED: u8 = 4;
    pub(super) const DELETE: u8 = 5;
    pub(super) const CREATE: u8 = 6;
    pub(super) const DROP: u8 = 7;
    pub(super) const NAMESPACE: u8 = 8;
    pub(super) const PUT_META: u8 = 9;
    pub(super) const REMOVE_META: u8 = 10;
    pub(super) const STREAMS: u8 = 11;
}

/// How the tags of a created metric are written.
mod tags {
    /// The ID is canonical and says them.
    pub(super) const IN_ID: u8 = 0;
    /// They follow.
    pub(super) const LISTED: u8 = 1;
}

/// One change, borrowed from a record.
#[derive(Clone, Debug)]
pub(crate) enum Command<'a> {
    Point {
        metric: MetricId,
        at: i64,
        value: f64,
    },
    Columns {
        metric: MetricId,
        columns: Columns<'a>,
    },
    /// Points in order, encoded before the commit.
    Streams {
        metric: MetricId,
        streams: Streams<'a>,
    },
    Annotated {
        metric: MetricId,
        at: i64,
        value: f64,
        annotation: &'a [u8],
    },
    Delete {
        metric: MetricId,
        first: i64,
        last: i64,
    },
    Create {
        metric: MetricId,
        namespace: NamespaceId,
        name: &'a [u8],
        tags: Tags,
    },
    Drop {
        metric: MetricId,
    },
    Namespace {
        id: NamespaceId,
        name: &'a str,
        options: NamespaceOptions,
    },
    PutMeta {
        key: &'a [u8],
        value: &'a [u8],
    },
    RemoveMeta {
        key: &'a [u8],
    },
}

impl Command<'_> {
    /// The metric it is about; `None` for those that no lane applies.
    pub(crate) fn metric(&self) -> Option<MetricId> {
        match self {
            Command::Point { metric, .. }
            | Command::Columns { metric, .. }
            | Command::Streams { metric, .. }
            | Command::Annotated { metric, .. }
            | Command::Delete { metric, .. }
            | Command::Create { metric, .. }
            | Command::Drop { metric } => Some(*metric),
            Command::Namespace { .. } | Command::PutMeta { .. } | Command::RemoveMeta { .. } => None,
        }
    }
}

impl Command<'_> {
    /// How many points it adds.
    pub(crate) fn points(&self) -> u64 {
        match self {
            Command::Columns { columns, .. } => columns.size_hint().0 as u64,
            Command::Streams { streams, .. } => streams.clone().map(|stream| stream.points).sum(),
            Command::Point { .. } | Command::Annotated { .. } => 1,
            _ => 0,
        }
    }
}

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

    pub(crate) fn create(&mut self, metric: MetricId, namespace: NamespaceId, name: &[u8], list: &Tags) {
        self.command(opcode::CREATE, metric);
        put_unsigned(&mut self.bytes, u64::from(namespace.0));
        put_bytes(&mut self.bytes, name);
        let in_id = match Tags::parse(name) {
            Some((canonical, parsed)) => canonical == name && parsed == *list,
            None => *list == Tags::none(),
        };
        if in_id {
            return self.bytes.push(tags::IN_ID);
        }
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

/// The commands of a record, or of any of its sections, in order.
#[derive(Clone, Debug)]
pub(crate) struct Commands<'a> {
    rest: Reader<'a>,
    last_metric: u32,
    last_at: i64,
    /// Streams so far in this section.
    streams: usize,
    failed: bool,
}

/// The bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct RecordError(pub(crate) &'static str);

impl<'a> Commands<'a> {
    pub(crate) fn new(record: &'a [u8]) -> Self {
        Commands { rest: Reader(record), last_metric: 0, last_at: 0, streams: 0, failed: false }
    }

    fn read(&mut self) -> Result<Option<Command<'a>>, RecordError> {
        loop {
            let Some(opcode) = self.rest.byte() else { return Ok(None) };
            let command = match opcode {
                opcode::SECTION => {
                    (self.last_metric, self.last_at, self.streams) = (0, 0, 0);
                    continue;
                }
                opcode::POINT => {
                    Command::Point { metric: self.metric()?, at: self.at()?, value: self.rest.value()? }
                }
                opcode::COLUMNS => Command::Columns { metric: self.metric()?, columns: self.columns()? },
                opcode::STREAMS => Command::Streams { metric: self.metric()?, streams: self.streams()? },
                opcode::ANNOTATED => Command::Annotated {
                    metric: self.metric()?,
                    at: self.at()?,
                    value: self.rest.value()?,
                    annotation: self.rest.bytes()?,
                },
                opcode::DELETE => Command::Delete {
                    metric: self.metric()?,
                    first: self.rest.signed()?,
                    last: self.rest.signed()?,
                },
                opcode::CREATE => self.create()?,
                opcode::DROP => Command::Drop { metric: self.metric()? },
                opcode::NAMESPACE => self.namespace()?,
                opcode::PUT_META => Command::PutMeta { key: self.rest.bytes()?, value: self.rest.bytes()? },
                opcode::REMOVE_META => Command::RemoveMeta { key: self.rest.bytes()? },
                _ => return Err(RecordError("unknown command")),
            };
            return Ok(Some(command));
        }
    }

    fn metric(&mut self) -> Result<MetricId, RecordError> {
        let metric = i64::from(self.last_metric).checked_add(self.rest.signed()?);
        self.last_metric =
            metric.and_then(|id| u32::try_from(id).ok()).ok_or(RecordError("metric id out of range"))?;
        Ok(MetricId(self.last_metric))
    }

    fn at(&mut self) -> Result<i64, RecordError> {
        self.last_at = self.last_at.wrapping_add(self.rest.signed()?);
        Ok(self.last_at)
    }

    fn columns(&mut self) -> Result<Columns<'a>, RecordError> {
        let count = self.rest.length()?;
        let times = Reader(self.rest.bytes()?);
        let bytes = count.checked_mul(8).ok_or(RecordError("too many points"))?;
        let values = self.rest.take(bytes)?;
        // Walked here, so that whoever walks them again meets no error.
        let mut columns = Columns { times, values, at: self.last_at, delta: 0 };
        let walk = columns.clone();
        for _ in 0..count {
            columns.next_time()?;
        }
        if !columns.times.0.is_empty() {
            return Err(RecordError("more timestamps than values"));
        }
        self.last_at = columns.at;
        Ok(walk)
    }

    fn streams(&mut self) -> Result<Streams<'a>, RecordError> {
        let count = self.rest.length()?;
        // Walked here, so that whoever walks them again meets no error. Their bytes are not looked at.
        let mut streams =
            Streams { rest: self.rest.clone(), left: count, at: self.last_at, number: self.streams };
        let walk = streams.clone();
        let mut before = None;
        for _ in 0..count {
            let stream = streams.read()?;
            if stream.first > stream.last || before.is_some_and(|before| stream.first <= before) {
                return Err(RecordError("streams that are not in order"));
            }
            before = Some(stream.last);
        }
        (self.rest, self.last_at, self.streams) = (streams.rest, streams.at, streams.number);
        Ok(walk)
    }

    fn create(&mut self) -> Result<Command<'a>, RecordError> {
        let metric = self.metric()?;
        let namespace = NamespaceId(self.rest.unsigned_32()?);
        let name = self.rest.bytes()?;
        let tags = match self.rest.byte() {
            Some(tags::IN_ID) => Tags::parse(name).map_or_else(Tags::none, |(_, tags)| tags),
            Some(tags::LISTED) => {
                let mut list = Vec::new();
                for _ in 0..self.rest.length()? {
                    list.push((self.rest.bytes()?, self.rest.bytes()?));
                }
                Tags::new(&list).map_err(|_| RecordError("a tag is given twice"))?
            }
            _ => return Err(RecordError("unknown form of tags")),
        };
        Ok(Command::Create { metric, namespace, name, tags })
    }

    fn namespace(&mut self) -> Result<Command<'a>, RecordError> {
        let id = NamespaceId(self.rest.unsigned_32()?);
        let name = std::str::from_utf8(self.rest.bytes()?)
            .map_err(|_| RecordError("a namespace's name is not UTF-8"))?;
        let block_ns = self.rest.signed()?;
        let shards = self.rest.unsigned_32()?;
        if block_ns <= 0 || shards == 0 {
            return Err(RecordError("a namespace's options are out of range"));
        }
        Ok(Command::Namespace { id, name, options: NamespaceOptions { block_ns, shards } })
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let command = self.read().transpose();
        self.failed = matches!(command, Some(Err(_)));
        command
    }
}

/// Points of one metric as two columns; an iterator over `(timestamp, value)`.
#[derive(Clone, Debug)]
pub(crate) struct Columns<'a> {
    times: Reader<'a>,
    values: &'a [u8],
    at: i64,
    delta: i64,
}

impl Columns<'_> {
    fn next_time(&mut self) -> Result<i64, RecordError> {
        self.delta = self.delta.wrapping_add(self.times.signed()?);
        self.at = self.at.wrapping_add(self.delta);
        Ok(self.at)
    }
}

impl Iterator for Columns<'_> {
    type Item = (i64, f64);

    fn next(&mut self) -> Option<(i64, f64)> {
        let (value, values) = self.values.split_first_chunk::<8>()?;
        let at = self.next_time().ok()?;
        self.values = values;
        Some((at, f64::from_bits(u64::from_le_bytes(*value))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.values.len() / 8, Some(self.values.len() / 8))
    }
}

/// Encoded points of one metric; an iterator over its streams, in time order.
#[derive(Clone, Debug)]
pub(crate) struct Streams<'a> {
    rest: Reader<'a>,
    left: usize,
    at: i64,
    number: usize,
}

/// One stream in a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordedStream<'a> {
    /// How many streams there are before it in its section.
    pub(crate) number: usize,
    /// The times of its first and of its last point.
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) points: u64,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Streams<'a> {
    fn read(&mut self) -> Result<RecordedStream<'a>, RecordError> {
        let first = self.at.wrapping_add(self.rest.signed()?);
        let last = first.wrapping_add(self.rest.signed()?);
        let points = self.rest.unsigned()?;
        if !(1..=STREAM_POINTS_MAX).contains(&points) {
            return Err(RecordError("a stream with too many points or none"));
        }
        let stream = RecordedStream { number: self.number, first, last, points, bytes: self.rest.bytes()? };
        (self.at, self.number) = (last, self.number + 1);
        Ok(stream)
    }
}

impl<'a> Iterator for Streams<'a> {
    type Item = RecordedStream<'a>;

    fn next(&mut self) -> Option<RecordedStream<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.read().ok()
    }
}

impl RecordedStream<'_> {
    /// Its points.
    ///
    /// # Errors
    /// They are not what the record says of them.
    pub(crate) fn decode(&self) -> Result<Vec<(i64, f64)>, RecordError> {
        let mut decoder = Decoder::new(self.bytes, ValueCoding::IntOptimized);
        let mut points = Vec::with_capacity(self.points as usize);
        while let Some(point) = decoder.next_point() {
            let point = point.map_err(|_| RecordError("a stream that does not decode"))?;
            if points.len() as u64 == self.points || !point.annotation.is_empty() {
                return Err(RecordError("a stream with more than its points"));
            }
            points.push((point.timestamp, point.value));
        }
        let ends = (points.first().map(|(at, _)| *at), points.last().map(|(at, _)| *at));
        if points.len() as u64 != self.points
            || ends != (Some(self.first), Some(self.last))
            || !points.is_sorted_by(|a, b| a.0 < b.0)
        {
            return Err(RecordError("a stream with other points than the record says"));
        }
        Ok(points)
    }
}

/// Takes fields off the front of bytes, never past their end.
#[derive(Clone, Debug)]
struct Reader<'a>(&'a [u8]);

const SHORT: RecordError = RecordError("ends in the middle of a command");

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let len = self.length()?;
        self.take(len)
    }

    fn length(&mut self) -> Result<usize, RecordError> {
        usize::try_from(self.unsigned()?).map_err(|_| SHORT)
    }

    fn value(&mut self) -> Result<f64, RecordError> {
        let (value, rest) = self.0.split_first_chunk::<8>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(f64::from_bits(u64::from_le_bytes(*value)))
    }

    fn unsigned_32(&mut self) -> Result<u32, RecordError> {
        u32::try_from(self.unsigned()?).map_err(|_| RecordError("number out of range"))
    }

    /// LEB128: groups of seven bits, lowest first.
    fn unsigned(&mut self) -> Result<u64, RecordError> {
        let mut number = 0u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte().ok_or(SHORT)?;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && group > 1 {
                break;
            }
            number |= group << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(RecordError("number out of range"))
    }

    /// Zigzag: small numbers of either sign are short.
    fn signed(&mut self) -> Result<i64, RecordError> {
        let number = self.unsigned()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }
}

fn put_unsigned(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_signed(bytes: &mut Vec<u8>, number: i64) {
    put_unsigned(bytes, (number << 1 ^ number >> 63) as u64);
}

fn put_bytes(bytes: &mut Vec<u8>, slice: &[u8]) {
    put_unsigned(bytes, slice.len() as u64);
    bytes.extend_from_slice(slice);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::mvcc::window::Window;
    use proptest::prelude::*;

    /// A command in words, so that what was written can be compared with what is read.
    fn words(record: &[u8]) -> Result<Vec<String>, RecordError> {
        Commands::new(record)
            .map(|command| {
                Ok(match command? {
                    Command::Columns { metric, columns } => {
                        let points: Vec<_> = columns.map(|(at, value)| (at, value.to_bits())).collect();
                        format!("columns {} {points:?}", metric.0)
                    }
                    Command::Streams { metric, mut streams } => {
                        let points = streams.try_fold(Vec::new(), |mut all, stream| {
                            all.extend(stream.decode()?.iter().map(|(at, value)| (*at, value.to_bits())));
                            Ok(all)
                        })?;
                        format!("streams {} {points:?}", metric.0)
                    }
                    Command::Point { metric, at, value } => {
                        format!("point {} {at} {:x}", metric.0, value.to_bits())
                    }
                    other => format!("{other:?}"),
                })
            })
            .collect()
    }

    #[test]
    fn every_command_reads_back() {
        let mut first = SectionWriter::new();
        let options = NamespaceOptions { block_ns: 5, shards: 3 };
        first.namespace(NamespaceId(1), "n", options);
        first.put_meta(b"k", b"v");
        first.remove_meta(b"k");
        let mut second = SectionWriter::new();
        second.create(
            MetricId(7),
            NamespaceId(1),
            br#"m{a="1"}"#,
            &Tags::parse(br#"m{a="1"}"#).expect("canonical").1,
        );
        second.create(MetricId(8), NamespaceId(0), b"raw", &Tags::new(&[(b"k", b"v")]).expect("valid"));
        second.point(MetricId(7), 100, -0.0);
        second.point(MetricId(3), 100, f64::NAN);
        second.columns(MetricId(u32::MAX), [i64::MIN, 0, i64::MAX].into_iter(), &[1.0, 2.0, 3.0]);
        second.annotated(MetricId(7), -5, 1.0, b"note");
        second.delete(MetricId(7), i64::MIN, i64::MAX);
        second.drop_metric(MetricId(7));
        let record = [first.bytes(), second.bytes()].concat();
        let found = words(&record).expect("reads back");
        assert_eq!(found.len(), 11);
        assert_eq!(found[5], "point 7 100 8000000000000000");
        assert_eq!(found[6], format!("point 3 100 {:x}", f64::NAN.to_bits()));
        let bits = [1.0f64, 2.0, 3.0].map(f64::to_bits);
        let points = [(i64::MIN, bits[0]), (0, bits[1]), (i64::MAX, bits[2])];
        assert_eq!(found[7], format!("columns {} {points:?}", u32::MAX));
        assert!(found[9].contains("first: -9223372036854775808, last: 9223372036854775807"));
        for cut in 0..record.len() {
            assert!(words(&record[..cut]).map_or_else(|_| true, |some| some.len() < 11), "cut at {cut}");
        }
    }

    #[test]
    fn the_example_of_the_format_page_is_what_is_written() {
        let page = include_str!("../../design/record.md");
        let example =
            page.split("```hex").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
        let hex: String = example.lines().filter_map(|line| line.split("   ").next()).collect();
        let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect();
        let mut section = SectionWriter::new();
        section.create(MetricId(0), NamespaceId(0), b"m", &Tags::none());
        section.point(MetricId(0), 10, 1.0);
        section.point(MetricId(0), 20, 2.0);
        assert_eq!(section.bytes(), bytes);
    }

    #[test]
    fn streams_that_are_not_what_the_record_says_are_refused() {
        let values = [1.0, 2.0, 3.0];
        let made = || ClosedStream::of_columns(Window::new(100), 10..13, &values).expect("encodable");
        let read = |change: fn(&mut ClosedStream)| {
            let mut streams = made();
            streams.iter_mut().for_each(change);
            let mut section = SectionWriter::new();
            section.streams(MetricId(0), streams);
            words(section.bytes())
        };
        assert!(read(|_| ()).is_ok());
        assert!(read(|stream| stream.points = 2).is_err());
        assert!(read(|stream| stream.points = 4).is_err());
        assert!(read(|stream| stream.points = 0).is_err());
        assert!(read(|stream| stream.points = STREAM_POINTS_MAX + 1).is_err());
        assert!(read(|stream| stream.first = 9).is_err());
        assert!(read(|stream| stream.last = 9).is_err());
        assert!(read(|stream| stream.bytes = Arc::new(stream.bytes[..8].to_vec())).is_err());
        let mut section = SectionWriter::new();
        section.streams(MetricId(0), made().into_iter().chain(made()).collect());
        assert_eq!(words(section.bytes()), Err(RecordError("streams that are not in order")));
    }

    proptest! {
        #[test]
        fn points_read_back(points in prop::collection::vec((any::<u32>(), any::<i64>(), any::<u64>()), 0..50),
            columns in prop::collection::vec((any::<i64>(), any::<u64>()), 1..50)) {
            let mut section = SectionWriter::new();
            let mut expected = Vec::new();
            for (metric, at, bits) in points {
                section.point(MetricId(metric), at, f64::from_bits(bits));
                expected.push(format!("point {metric} {at} {bits:x}"));
            }
            let values: Vec<f64> = columns.iter().map(|(_, bits)| f64::from_bits(*bits)).collect();
            section.columns(MetricId(9), columns.iter().map(|(at, _)| *at), &values);
            expected.push(format!("columns 9 {columns:?}"));
            let mut sorted = columns.clone();
            sorted.sort_by_key(|(at, _)| *at);
            sorted.dedup_by_key(|(at, _)| *at);
            let values: Vec<f64> = sorted.iter().map(|(_, bits)| f64::from_bits(*bits)).collect();
            let times = sorted.iter().map(|(at, _)| *at);
            let streams = ClosedStream::of_columns(Window::new(1 << 40), times, &values).expect("encodable");
            section.streams(MetricId(8), streams);
            expected.push(format!("streams 8 {sorted:?}"));
            section.point(MetricId(1), 17, 0.0);
            expected.push("point 1 17 0".to_owned());
            prop_assert_eq!(words(section.bytes()).unwrap(), expected);
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = words(&bytes);
            for start in 1..=11u8 {
                let _ = words(&[&[start][..], &bytes].concat());
            }
        }
    }
}
