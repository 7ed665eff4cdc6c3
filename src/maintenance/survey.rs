//! What is in memory, by the blocks that it would be sealed in, and which of them to seal.

use std::collections::{BTreeMap, BTreeSet};

use crate::mvcc::commit::Core;
use crate::mvcc::partition_map::Cover;
use crate::mvcc::transaction::Transaction;
use crate::mvcc::window::{Window, widths};
use crate::names::{Namespace, NamespaceId};

use super::seal::Block;

/// See the module. Made by looking at every partition of a transaction.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// By namespace, shard and first time.
    blocks: BTreeMap<(NamespaceId, u32, i64), InMemory>,
    /// The latest time of any point in memory.
    newest: Option<i64>,
}

/// What is in memory of one block.
#[derive(Clone, Debug)]
pub(crate) struct InMemory {
    pub(crate) block: Block,
    /// Whether there is a volume of the block already.
    pub(crate) is_sealed: bool,
    /// Overwritten and deleted ones included.
    pub(crate) points: u64,
    /// About what it takes in memory.
    pub(crate) bytes: u64,
}

impl Survey {
    /// Looks at all metrics. Takes each partition's lock for a short time.
    pub(crate) fn new(core: &Core, transaction: &Transaction) -> Self {
        let sealed = SealedBlocks::new(transaction);
        let mut survey = Survey::default();
        for (id, map) in transaction.metrics.iter() {
            if map.layers().is_empty() {
                continue;
            }
            let Some((namespace, shard)) = core.names.group_of(id) else { continue };
            let named = |known: &&Namespace| known.id() == namespace;
            let Some(namespace) = transaction.namespaces.iter().find(named) else { continue };
            let block_ns = namespace.options().block_ns;
            for layer in map.layers() {
                let (block, volume) = map.base().around(layer.cover.first);
                for partition in &layer.stack {
                    // For the first block that it has something of.
                    let partition = partition.lock();
                    let mut own = partition.fixed_bytes();
                    partition.windows(layer.cover, |window, points, bytes, last| {
                        survey.newest = survey.newest.max(Some(last));
                        let found = sealed.at(namespace.id(), shard, window.first);
                        let bytes = bytes + std::mem::take(&mut own);
                        survey.add(namespace, shard, found, window, block_ns, (points, bytes));
                    });
                    drop(partition);
                    // Without points there are tombstones, over the block that has a volume.
                    if volume.is_some() && own > 0 {
                        let found = sealed.at(namespace.id(), shard, block.first);
                        survey.add(namespace, shard, found, block, block_ns, (0, own));
                    }
                }
            }
        }
        survey
    }

    fn add(
        &mut self,
        namespace: &Namespace,
        shard: u32,
        sealed: Option<(Cover, i64)>,
        window: Cover,
        block_ns: i64,
        (points, bytes): (u64, u64),
    ) {
        let (cover, width_ns) = sealed.unwrap_or((window, block_ns));
        let in_memory = self.blocks.entry((namespace.id(), shard, cover.first)).or_insert_with(|| InMemory {
            block: Block { namespace: namespace.clone(), shard, cover, width_ns },
            is_sealed: sealed.is_some(),
            points: 0,
            bytes: 0,
        });
        in_memory.points += points;
        in_memory.bytes += bytes;
    }

    /// About how many bytes are in memory of a block, which may consist of several of those.
    pub(crate) fn bytes_in(&self, block: &Block) -> u64 {
        self.blocks().filter(|found| block.contains(&found.block)).map(|found| found.bytes).sum()
    }

    /// All blocks with something in memory, oldest first within their shard.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &InMemory> {
        self.blocks.values()
    }

    /// The latest time of any point in memory.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.newest
    }

    /// The blocks to seal so that all that `wanted` accepts is sealed, each once. A block that has no volume is sealed together with those around it, in the widest block that
    /// ends before `left` and in which the shard has no volume.
    pub(crate) fn targets(
        &self,
        transaction: &Transaction,
        left: i64,
        wanted: impl Fn(&InMemory) -> bool,
    ) -> Vec<Block> {
        let sealed = SealedBlocks::new(transaction);
        let mut seen = BTreeSet::new();
        let wanted = self.blocks.values().filter(|in_memory| wanted(in_memory));
        let widened = wanted.map(|in_memory| match in_memory.is_sealed {
            true => in_memory.block.clone(),
            false => sealed.widest(&in_memory.block, left),
        });
        widened.filter(|block| seen.insert(block.key())).collect()
    }
}

/// The volumes' blocks of each shard, ascending.
struct SealedBlocks(BTreeMap<(NamespaceId, u32), Vec<(Cover, i64)>>);

impl SealedBlocks {
    fn new(transaction: &Transaction) -> Self {
        let mut blocks: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for volume in transaction.volumes.iter().map(|volume| volume.block()) {
            blocks.entry((volume.namespace, volume.shard)).or_default().push((volume.cover, volume.width_ns));
        }
        blocks.values_mut().for_each(|blocks| blocks.sort_unstable_by_key(|(cover, _)| cover.first));
        SealedBlocks(blocks)
    }

    /// The first block that ends at `at` or later.
    fn from(&self, namespace: NamespaceId, shard: u32, at: i64) -> Option<(Cover, i64)> {
        let blocks = self.0.get(&(namespace, shard))?;
        blocks.get(blocks.partition_point(|(cover, _)| cover.last < at)).copied()
    }

    fn at(&self, namespace: NamespaceId, shard: u32, at: i64) -> Option<(Cover, i64)> {
        self.from(namespace, shard, at).filter(|(cover, _)| cover.has(at))
    }

    fn widest(&self, block: &Block, left: i64) -> Block {
        let wide = widths(block.width_ns).into_iter().rev().find_map(|width_ns| {
            let cover = Window::new(width_ns).of(block.cover.first);
            let is_free = || {
                let next = self.from(block.namespace.id(), block.shard, cover.first);
                next.is_none_or(|(next, _)| !next.overlaps(cover))
            };
            let fits = cover.last < left && cover.contains(block.cover) && is_free();
            fits.then(|| Block { cover, width_ns, ..block.clone() })
        });
        wide.unwrap_or_else(|| block.clone())
    }
}
