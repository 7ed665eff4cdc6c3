//! Reading a record, or any section of one.

use crate::m3tsz::{Decoder, ValueCoding};
use crate::names::{MetricId, NamespaceId, NamespaceOptions, Tags};

use super::super::partition_map::Cover;
use super::super::stream::STREAM_POINTS_MAX;
use super::super::transaction::Version;
use super::{Command, Install, RecordError, install, opcode, tags};
use crate::sealed::{BlockVolume, VolumeId};

/// The commands of a record, or of any of its sections, in order.
#[derive(Clone, Debug)]
pub(crate) struct Commands<'a> {
    rest: Fields<'a>,
    last_metric: u32,
    last_at: i64,
    /// Streams so far in this section.
    streams: usize,
    /// Bytes of the record, and how many were left where this section begins.
    len: usize,
    section_left: usize,
    failed: bool,
}

impl<'a> Commands<'a> {
    pub(crate) fn new(record: &'a [u8]) -> Self {
        Commands {
            rest: Fields(record),
            last_metric: 0,
            last_at: 0,
            streams: 0,
            len: record.len(),
            section_left: record.len(),
            failed: false,
        }
    }

    /// Where in the record the section of the last command begins.
    pub(crate) fn section(&self) -> usize {
        self.len - self.section_left
    }

    /// Where in the record the last command ends.
    pub(crate) fn position(&self) -> usize {
        self.len - self.rest.0.len()
    }

    fn read(&mut self) -> Result<Option<Command<'a>>, RecordError> {
        loop {
            let Some(opcode) = self.rest.byte() else { return Ok(None) };
            let command = match opcode {
                opcode::SECTION => {
                    (self.last_metric, self.last_at, self.streams) = (0, 0, 0);
                    self.section_left = self.rest.0.len() + 1;
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
                opcode::FREEZE => {
                    let (namespace, shard, block) = self.block()?;
                    Command::Freeze { namespace, shard, block }
                }
                opcode::INSTALL => Command::Install(self.install()?),
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
        let times = Fields(self.rest.bytes()?);
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
            Some(tags::IN_ID) => None,
            Some(tags::LISTED) => {
                let mut list = Vec::new();
                for _ in 0..self.rest.length()? {
                    list.push((self.rest.bytes()?, self.rest.bytes()?));
                }
                let list = Tags::new(&list).map_err(|_| RecordError("a tag is given twice"))?;
                list.unless_said_by(name)
            }
            _ => return Err(RecordError("unknown form of tags")),
        };
        Ok(Command::Create { metric, namespace, name, tags })
    }

    fn block(&mut self) -> Result<(NamespaceId, u32, Cover), RecordError> {
        let namespace = NamespaceId(self.rest.unsigned_32()?);
        let shard = self.rest.unsigned_32()?;
        let block = Cover { first: self.rest.signed()?, last: self.rest.signed()? };
        match block.first <= block.last {
            true => Ok((namespace, shard, block)),
            false => Err(RecordError("a block that ends before it begins")),
        }
    }

    fn install(&mut self) -> Result<Install, RecordError> {
        let (namespace, shard, cover) = self.block()?;
        let width_ns = self.rest.signed()?;
        let id = VolumeId(self.rest.unsigned_32()?);
        let number = self.rest.unsigned_32()?;
        let freeze = Version(self.rest.unsigned()?);
        let (first, last) = (MetricId(self.rest.unsigned_32()?), MetricId(self.rest.unsigned_32()?));
        let flags = self.rest.byte().ok_or(SHORT)?;
        if flags & !(install::LAST | install::EMPTY) != 0 {
            return Err(RecordError("an unknown kind of install"));
        }
        let (is_last, is_empty) = (flags & install::LAST != 0, flags & install::EMPTY != 0);
        if width_ns <= 0 || last < first {
            return Err(RecordError("a slice of nothing"));
        }
        let volume = BlockVolume { id, namespace, shard, cover, width_ns, number, freeze, is_empty };
        Ok(Install { volume, first, last, is_last })
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
    times: Fields<'a>,
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
    rest: Fields<'a>,
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
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

const SHORT: RecordError = RecordError("ends in the middle of a command");

impl<'a> Fields<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let len = self.length()?;
        self.take(len)
    }

    pub(crate) fn length(&mut self) -> Result<usize, RecordError> {
        usize::try_from(self.unsigned()?).map_err(|_| SHORT)
    }

    pub(crate) fn value(&mut self) -> Result<f64, RecordError> {
        let (value, rest) = self.0.split_first_chunk::<8>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(f64::from_bits(u64::from_le_bytes(*value)))
    }

    pub(crate) fn unsigned_32(&mut self) -> Result<u32, RecordError> {
        u32::try_from(self.unsigned()?).map_err(|_| RecordError("number out of range"))
    }

    /// LEB128: groups of seven bits, lowest first.
    pub(crate) fn unsigned(&mut self) -> Result<u64, RecordError> {
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
    pub(crate) fn signed(&mut self) -> Result<i64, RecordError> {
        let number = self.unsigned()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }
}
