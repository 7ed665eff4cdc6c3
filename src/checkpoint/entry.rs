//! Entries of the trees: metrics, blocks of bases, volumes. Format: `design/checkpoint.md`.

use crate::commitlog::{le_u32, le_u64};
use crate::mvcc::base::SealedBlock;
use crate::mvcc::partition_map::Cover;
use crate::mvcc::transaction::Version;
use crate::names::NamespaceId;
use crate::sealed::{BlockVolume, VolumeId};
use crate::tree::Root;

use super::roots::{BASES, BLOCKS, METRICS, VOLUMES};

/// The entry of a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MetricEntry {
    pub(super) namespace: u32,
    pub(super) shard: u32,
    /// Where its record is in the names file; 0 if there is no such metric.
    pub(super) name: u64,
    pub(super) created: Version,
    /// The number of its base; 0 if it has none.
    pub(super) base: u32,
}

impl MetricEntry {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<{ METRICS.entry_bytes() }>()?;
        let entry = MetricEntry {
            namespace: le_u32(bytes, 0),
            shard: le_u32(bytes, 4),
            name: le_u64(bytes, 8),
            created: Version(le_u64(bytes, 16)),
            base: le_u32(bytes, 24),
        };
        (entry.name != 0).then_some(entry)
    }

    pub(super) fn encode(&self, bytes: &mut [u8]) {
        let mut entry = [0; METRICS.entry_bytes()];
        entry[..4].copy_from_slice(&self.namespace.to_le_bytes());
        entry[4..8].copy_from_slice(&self.shard.to_le_bytes());
        entry[8..16].copy_from_slice(&self.name.to_le_bytes());
        entry[16..24].copy_from_slice(&self.created.get().to_le_bytes());
        entry[24..].copy_from_slice(&self.base.to_le_bytes());
        bytes.copy_from_slice(&entry);
    }
}

/// The entry of a base: the root of its blocks.
pub(super) fn decode_base(bytes: &[u8]) -> Option<Root> {
    let bytes = bytes.first_chunk::<{ BASES.entry_bytes() }>()?;
    let root = Root { page: le_u32(bytes, 0), crc: le_u32(bytes, 4), entries: le_u32(bytes, 8).into() };
    (root.entries != 0).then_some(root)
}

/// See [`decode_base`]. Of blocks there are fewer than of volumes, whose numbers have 32 bits.
pub(super) fn encode_base(root: Root, bytes: &mut [u8]) {
    let mut entry = [0; BASES.entry_bytes()];
    entry[..4].copy_from_slice(&root.page.to_le_bytes());
    entry[4..8].copy_from_slice(&root.crc.to_le_bytes());
    entry[8..].copy_from_slice(&(root.entries as u32).to_le_bytes());
    bytes.copy_from_slice(&entry);
}

pub(super) fn decode_block(bytes: &[u8]) -> Option<SealedBlock> {
    let bytes = bytes.first_chunk::<{ BLOCKS.entry_bytes() }>()?;
    let cover = Cover { first: le_u64(bytes, 0).cast_signed(), last: le_u64(bytes, 8).cast_signed() };
    Some(SealedBlock { cover, volume: VolumeId(le_u32(bytes, 16).checked_sub(1)?) })
}

pub(super) fn encode_block(block: &SealedBlock, bytes: &mut [u8]) {
    let mut entry = [0; BLOCKS.entry_bytes()];
    entry[..8].copy_from_slice(&block.cover.first.to_le_bytes());
    entry[8..16].copy_from_slice(&block.cover.last.to_le_bytes());
    entry[16..].copy_from_slice(&block.volume.0.saturating_add(1).to_le_bytes());
    bytes.copy_from_slice(&entry);
}

pub(super) fn decode_volume(id: VolumeId, bytes: &[u8]) -> Option<Result<BlockVolume, &'static str>> {
    let bytes = bytes.first_chunk::<{ VOLUMES.entry_bytes() }>()?;
    if bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    let volume = BlockVolume {
        id,
        namespace: NamespaceId(le_u32(bytes, 0)),
        shard: le_u32(bytes, 4),
        cover: Cover { first: le_u64(bytes, 8).cast_signed(), last: le_u64(bytes, 16).cast_signed() },
        width_ns: le_u64(bytes, 24).cast_signed(),
        freeze: Version(le_u64(bytes, 32)),
        number: le_u32(bytes, 40),
        is_empty: false,
    };
    match volume.width_ns > 0 && volume.cover.first <= volume.cover.last && le_u32(bytes, 44) == 0 {
        true => Some(Ok(volume)),
        false => Some(Err("an impossible volume")),
    }
}

pub(super) fn encode_volume(volume: &BlockVolume, bytes: &mut [u8]) {
    let mut entry = [0; VOLUMES.entry_bytes()];
    entry[..4].copy_from_slice(&volume.namespace.0.to_le_bytes());
    entry[4..8].copy_from_slice(&volume.shard.to_le_bytes());
    entry[8..16].copy_from_slice(&volume.cover.first.to_le_bytes());
    entry[16..24].copy_from_slice(&volume.cover.last.to_le_bytes());
    entry[24..32].copy_from_slice(&volume.width_ns.to_le_bytes());
    entry[32..40].copy_from_slice(&volume.freeze.get().to_le_bytes());
    entry[40..44].copy_from_slice(&volume.number.to_le_bytes());
    bytes.copy_from_slice(&entry);
}
