//! Sealing a block: freeze, write, install (`design/sealing.md`).
//!
//! Runs beside readers and writers. Whatever fails, what was in memory stays there, and the next attempt begins anew; only an
//! install that failed half-way is gone on with, since its volume is in use.

use std::io::ErrorKind;

use crate::error::{Error, Result};
use crate::fileset::{MetricStream, Statistics, VolumeWriter, encode_tags};
use crate::m3tsz::{Encoder, EncoderOptions};
use crate::mvcc::commit::{Core, HeldBySeal};
use crate::mvcc::partition_map::{Cover, PartitionMap};
use crate::mvcc::transaction::{Transaction, Version};
use crate::names::{Metric, Namespace, NamespaceId};
use crate::planted::Bug;
use crate::query::{Block as Columns, Blocks};
use crate::sealed::VolumeStore;
use crate::sealed::{BlockVolume, VolumeId};
use crate::snapshot::Snapshot;

/// What is sealed at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) namespace: Namespace,
    pub(crate) shard: u32,
    pub(crate) cover: Cover,
    pub(crate) width_ns: i64,
}

impl Block {
    /// What tells it from others: two blocks of a shard do not begin at the same time, unless one is in the other.
    pub(crate) fn key(&self) -> (NamespaceId, u32, i64) {
        (self.namespace.id(), self.shard, self.cover.first)
    }

    /// Whether all of the other one is in this one.
    pub(crate) fn contains(&self, other: &Block) -> bool {
        (&self.namespace, self.shard) == (&other.namespace, other.shard) && self.cover.contains(other.cover)
    }

    /// Whether a volume of it can be installed: no volume has some of its times and others too.
    pub(crate) fn is_one(&self, transaction: &Transaction) -> bool {
        let cuts = |volume: &BlockVolume| {
            (volume.namespace, volume.shard) == (self.namespace.id(), self.shard)
                && volume.cover.overlaps(self.cover)
                && !self.cover.contains(volume.cover)
        };
        !transaction.volumes.iter().any(|volume| cuts(volume.block()))
    }
}

/// What a volume was made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) metrics: u64,
    pub(crate) points: u64,
    pub(crate) stream_bytes: u64,
}

/// What is left of seals that failed.
#[derive(Debug, Default)]
pub(crate) struct Unfinished {
    /// Blocks that are frozen and have no volume for that, since there was no space, say. The next attempt takes the same freeze: with
    /// another one, whatever is written in between would have got one more partition for each attempt.
    frozen: Vec<(Block, Version)>,
    /// Blocks of which something was damaged when they were to be sealed: that is looked for before they are frozen again.
    damaged: Vec<Block>,
    /// Volumes that are complete, and in the place of what they hold for some metrics only; with how many metrics there were.
    installs: Vec<(BlockVolume, u32)>,
}

impl Unfinished {
    /// Whether no volume is installed for some metrics only.
    pub(crate) fn is_installed(&self) -> bool {
        self.installs.is_empty()
    }

    /// Blocks that could not be sealed, as something of them is damaged.
    pub(crate) fn damaged(&self) -> Vec<Block> {
        self.damaged.clone()
    }

    /// Has installs gone on with that an earlier session began. Before any seal.
    pub(crate) fn take_over(&mut self, installs: Vec<BlockVolume>, metrics: u32) {
        self.installs.extend(installs.into_iter().map(|volume| (volume, metrics)));
    }

    /// The version at which a block was or is now frozen.
    fn freeze(&mut self, core: &Core, block: &Block) -> Result<Version> {
        if let Some((_, version)) = self.frozen.iter().find(|(frozen, _)| frozen == block) {
            return Ok(*version);
        }
        let version = core.freeze(block.namespace.id(), block.shard, block.cover)?;
        // Lanes forget a freeze when another comes that has times of it.
        self.thaw(&block.namespace, block.shard, block.cover);
        self.frozen.push((block.clone(), version));
        Ok(version)
    }

    fn thaw(&mut self, namespace: &Namespace, shard: u32, cover: Cover) {
        self.frozen.retain(|(frozen, _)| {
            frozen.namespace != *namespace || frozen.shard != shard || !cover.overlaps(frozen.cover)
        });
    }
}

/// Seals a block, or writes it anew if it is sealed already. The caller sees to it that nobody else does at the same time. `snapshot` takes one.
///
/// # Errors
/// Those of a commit; [`Error::Io`] and [`Error::Corrupt`] of volumes. Nothing is lost: what was in memory is there, and read as before.
pub(crate) fn seal(
    core: &Core,
    store: &VolumeStore,
    block: &Block,
    snapshot: impl Fn() -> Snapshot,
    unfinished: &mut Unfinished,
) -> Result<Written> {
    let write = |volume: &BlockVolume, (snapshot, _): &(Snapshot, HeldBySeal<'_>)| {
        write(core, store, block, volume, snapshot).inspect_err(|error| {
            // What there is of it goes, with the next that are removed. But a volume that has its name already is somebody else's, or what a
            // salvage left.
            if error.io_kind() != Some(ErrorKind::AlreadyExists) {
                store.volume(*volume, &block.namespace).supersede(Version(0));
            }
        })
    };
    let held = || {
        let snapshot = snapshot();
        let version = snapshot.version();
        (snapshot, core.held_by_seal(version))
    };
    if unfinished.damaged.contains(block) {
        // Each freeze has metrics that are written meanwhile get one more partition, which only an install would take away.
        let (snapshot, _held) = held();
        let version = snapshot.version();
        streams(core, block, &snapshot, version, |_, _, _| Ok(()))?;
        unfinished.damaged.retain(|damaged| damaged != block);
    }
    seal_with(core, block, held, write, unfinished)
}

/// As [`seal`], wherever volumes lie: `write` makes one from a snapshot.
pub(crate) fn seal_with<S>(
    core: &Core,
    block: &Block,
    snapshot: impl Fn() -> S,
    write: impl FnOnce(&BlockVolume, &S) -> Result<Written>,
    unfinished: &mut Unfinished,
) -> Result<Written> {
    let Block { namespace, shard, cover, width_ns } = block;
    let too_early = core.planted.has(Bug::SnapshotBeforeFreeze).then(&snapshot);
    let freeze = unfinished.freeze(core, block)?;
    let snapshot = too_early.unwrap_or_else(snapshot);
    let id = core.next_volume();
    let volume = BlockVolume {
        id,
        namespace: namespace.id(),
        shard: *shard,
        cover: *cover,
        width_ns: *width_ns,
        // Higher than any that the block has had, whatever became of that.
        number: id.0,
        freeze,
        is_empty: false,
    };
    let written = write(&volume, &snapshot).inspect_err(|error| {
        // What is damaged may have been deleted when it is tried again, and that comes after this freeze.
        if error.is_of_data() {
            unfinished.thaw(namespace, *shard, *cover);
            unfinished.damaged.push(block.clone());
        }
    })?;
    drop(snapshot);
    // All that have something frozen are among these. The lanes know which of them were made later.
    unfinished.thaw(namespace, *shard, *cover);
    let volume = BlockVolume { is_empty: written.metrics == 0, ..volume };
    unfinished.installs.push((volume, core.names.metrics()));
    finish(core, unfinished)?;
    Ok(written)
}

/// Goes on with installs that failed half-way.
///
/// # Errors
/// Those of a commit.
pub(crate) fn finish(core: &Core, unfinished: &mut Unfinished) -> Result<()> {
    while let Some((volume, metrics)) = unfinished.installs.first().copied() {
        core.install(volume, metrics)?;
        unfinished.installs.remove(0);
    }
    Ok(())
}

/// Writes all that a snapshot has of a block, as it was when it was frozen. If that is nothing, no file is made.
fn write(
    core: &Core,
    store: &VolumeStore,
    block: &Block,
    volume: &BlockVolume,
    snapshot: &Snapshot,
) -> Result<Written> {
    let mut writer = None;
    let mut written = Written::default();
    streams(core, block, snapshot, volume.freeze, |metric, statistics, stream| {
        let tags: Vec<(&[u8], &[u8])> = metric.tags().collect();
        // Tags that M3 has no form for stay in the dictionary only.
        let tags = encode_tags(&tags).unwrap_or_default();
        let metric_stream = MetricStream { id: metric.name(), tags: &tags, stream };
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(store.create(volume, &block.namespace)?),
        };
        writer.append_numbered(metric_stream, metric.id(), statistics)?;
        written.metrics += 1;
        written.points += u64::from(statistics.points());
        written.stream_bytes += stream.len() as u64;
        Ok(())
    })?;
    if core.planted.has(Bug::InstallBeforeVolume) && writer.is_some() {
        core.install(*volume, core.names.metrics())?;
    }
    writer.map_or(Ok(()), VolumeWriter::finish)?;
    Ok(written)
}

/// Visits all that a snapshot has of a block as it was when it was frozen: for each metric with points one stream.
fn streams(
    core: &Core,
    block: &Block,
    snapshot: &Snapshot,
    freeze: Version,
    mut visit: impl FnMut(&Metric, &Statistics, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut stream = Vec::new();
    let group = (block.namespace.id(), block.shard);
    for (id, map) in snapshot.transaction().metrics.iter() {
        if core.names.group_of(id) != Some(group) {
            continue;
        }
        let content = content(map, block.cover);
        if matches!(content, Content::Nothing) {
            continue;
        }
        let Some(metric) = core.names.metric_by_id(id) else { continue };
        stream.clear();
        let statistics = match content {
            Content::Nothing => continue,
            Content::Volume(id) => match copy(snapshot, id, &metric, &mut stream)? {
                Some(statistics) => statistics,
                None => continue,
            },
            Content::Mixed => {
                let blocks = Blocks::frozen(snapshot.clone(), &metric, block.cover, freeze);
                encode(&metric, block.cover, blocks, &mut stream)?
            }
        };
        if statistics.points() == 0 {
            continue;
        }
        visit(&metric, &statistics, &stream)?;
    }
    Ok(())
}

/// What a map has of a block.
pub(crate) enum Content {
    Nothing,
    /// The stream of a volume of this very block, and nothing else.
    Volume(VolumeId),
    Mixed,
}

pub(crate) fn content(map: &PartitionMap, block: Cover) -> Content {
    let first = map.piece(block.first);
    if let (true, Some(volume)) = (first.cover == block && first.stack.is_empty(), first.sealed) {
        return Content::Volume(volume);
    }
    let mut at = block.first;
    loop {
        let piece = map.piece(at);
        if piece.sealed.is_some() || !piece.stack.is_empty() {
            return Content::Mixed;
        }
        match piece.cover.last < block.last {
            true => at = piece.cover.last + 1,
            false => return Content::Nothing,
        }
    }
}

/// Appends a metric's stream as a volume has it. None if it has none.
fn copy(
    snapshot: &Snapshot,
    volume: VolumeId,
    metric: &Metric,
    stream: &mut Vec<u8>,
) -> Result<Option<Statistics>> {
    let volume = snapshot.sealed_volume(volume, metric)?;
    let Some(found) = volume.stream_of(metric)? else { return Ok(None) };
    stream.extend_from_slice(found.bytes());
    let statistics = match volume.entry_of(metric) {
        Ok(Some(entry)) => entry.statistics,
        // Its table is damaged, or names it not.
        _ => Statistics::of_stream(found.bytes(), EncoderOptions::default().values)?,
    };
    Ok(Some(statistics))
}

/// Appends points as one stream of their block.
pub(crate) fn encode(
    metric: &Metric,
    block: Cover,
    blocks: impl Iterator<Item = Result<Columns>>,
    stream: &mut Vec<u8>,
) -> Result<Statistics> {
    let mut encoder = Encoder::new(block.first, EncoderOptions::default());
    let mut statistics = Statistics::default();
    for columns in blocks {
        let columns = columns?;
        let (times, values) = (columns.timestamps(), columns.values());
        let mut annotations = columns.annotations().iter().peekable();
        let mut begin = 0;
        while begin < times.len() {
            let annotated = annotations.next().map(|(index, bytes)| (*index as usize, bytes));
            let end = annotated.map_or(times.len(), |(index, _)| index);
            let mut appended = encoder.append_all(&times[begin..end], &values[begin..end]);
            if let (Ok(()), Some((index, annotation))) = (&appended, annotated) {
                appended = encoder.append(times[index], values[index], annotation);
            }
            appended.map_err(|_| Error::UnfitForVolume {
                id: metric.to_string(),
                reason: "its points in the block do not fit one stream",
            })?;
            begin = end + usize::from(annotated.is_some());
        }
        times.iter().zip(values).for_each(|(at, value)| statistics.add(*at, *value));
    }
    if statistics.points() > 0 {
        encoder.finish_into(stream);
    }
    Ok(statistics)
}
