//! Writing a checkpoint: what changed since the last one, from a transaction that the caller holds.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::commitlog::DatabaseId;
use crate::error::{Error, Result};
use crate::io::Vfs;
use crate::mvcc::base::{BaseRef, SealedBlock};
use crate::mvcc::commit::Core;
use crate::mvcc::partition_map::PartitionMap;
use crate::mvcc::restore::MetricState;
use crate::mvcc::transaction::{Transaction, Version};
use crate::names::{MetricId, NamesFile};
use crate::planted::Bug;
use crate::sealed::VolumeId;
use crate::tree::{CONTENT_BYTES, PageFile, Root};

use super::active::{self, ActiveWriter};
use super::bases::{Moves, Numbers};
use super::entry::{MetricEntry, encode_base, encode_block, encode_volume};
use super::roots::{BASES, BLOCKS, METRICS, Roots, STATE, VOLUMES};
use super::state::State;
use super::{Checkpointer, Files, REWRITE_NAMES_MIN};

/// What a checkpoint wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) version: Version,
    /// Pages of trees.
    pub(crate) pages: u64,
    pub(crate) names_bytes: u64,
    pub(crate) active_bytes: u64,
    pub(crate) elapsed: Duration,
}

/// What the next checkpoint will know, if this one counts.
#[derive(Debug)]
struct Next {
    roots: Roots,
    numbers: Numbers,
    volumes: BTreeSet<u32>,
    state: Vec<u8>,
    dead_names: u64,
}

impl Checkpointer {
    /// Writes a checkpoint of the published state. `save` has the superblock name it, in both slots. Nothing may be frozen, written or
    /// installed meanwhile.
    ///
    /// Cost: all leaves of the metric tree that changed are looked at, and all partitions; what is in memory is written.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DiskFull`], [`Error::Corrupt`]: the last checkpoint counts, and another may be tried. If `save` failed, nobody knows
    /// which counts, and no other is written: [`Error::Stopped`], until the database is opened again.
    pub(crate) fn write(&mut self, core: &Core, save: impl FnOnce(Roots) -> Result<()>) -> Result<Written> {
        if let Some(cause) = &self.doubt {
            return Err(Error::Stopped { cause: Some(cause.clone()) });
        }
        let started = Instant::now();
        let transaction = core.load();
        let _held = core.held_by_seal(transaction.version);
        if !core.planted.has(Bug::CheckpointUnflushed) {
            core.flush(true)?;
        }
        let pages_before = self.files.as_ref().map_or(0, |files| files.pages.pages_written());
        let names_before = self.roots.names;
        let state = state_of(core, &transaction);
        let next = match self.prepare(core, &transaction, state) {
            Ok(next) => next,
            Err(error) => {
                self.abandon();
                return Err(error);
            }
        };
        if let Err(error) = save(next.roots) {
            let error = std::sync::Arc::new(error);
            self.doubt = Some(error.clone());
            return Err(Error::Stopped { cause: Some(error) });
        }
        let before = std::mem::replace(&mut self.roots, next.roots);
        (self.numbers, self.volumes, self.state) = (next.numbers, next.volumes, next.state);
        self.dead_names = next.dead_names;
        self.exists = true;
        if let Some(files) = &mut self.files {
            files.pages.commit();
            files.former = None;
        }
        self.remove_replaced(&before);
        let names_bytes = match names_before.0 == self.roots.names.0 {
            true => self.roots.names.1 - names_before.1,
            false => self.roots.names.1,
        };
        Ok(Written {
            version: self.roots.version,
            pages: self.files.as_ref().map_or(0, |files| files.pages.pages_written()) - pages_before,
            names_bytes,
            active_bytes: active::payload_bytes(self.roots.active.1),
            elapsed: started.elapsed(),
        })
    }

    /// Writes the state of a transaction, which may be an old one, into a folder without a checkpoint, and makes it durable. `roots` of the result are for the superblock to
    /// name. Beside whatever else goes on: a block that is being frozen or installed is as the transaction sees it, and nobody will go on with that.
    ///
    /// # Errors
    /// As [`Checkpointer::write`]. What was written stays.
    pub(crate) fn write_apart(
        disk: &std::sync::Arc<dyn Vfs>,
        dir: &Path,
        database_id: DatabaseId,
        core: &Core,
        transaction: &Transaction,
    ) -> Result<(Roots, Written)> {
        let started = Instant::now();
        let mut checkpointer = Checkpointer::new(disk, dir, database_id);
        let state = State { freezes: Vec::new(), made: Vec::new(), ..state_of(core, transaction) };
        let Next { roots, .. } = checkpointer.prepare(core, transaction, state)?;
        let written = Written {
            version: roots.version,
            pages: checkpointer.files.map_or(0, |files| files.pages.pages_written()),
            names_bytes: roots.names.1,
            active_bytes: active::payload_bytes(roots.active.1),
            elapsed: started.elapsed(),
        };
        Ok((roots, written))
    }

    /// Writes all that a checkpoint consists of, and makes it durable. Nothing names it yet.
    fn prepare(&mut self, core: &Core, transaction: &Transaction, state: State<'_>) -> Result<Next> {
        let mut roots = Roots { version: transaction.version, ..self.roots };
        let mut numbers = self.numbers.clone();
        let files = match &mut self.files {
            Some(files) => files,
            files => files.insert(Files::create(&self.disk, &self.dir, self.database_id)?),
        };
        let Files { pages, names, former } = files;
        let mut dead_names = self.dead_names;
        let rewrites = dead_names > REWRITE_NAMES_MIN && dead_names > names.len() / 2;
        if rewrites {
            let successor = NamesFile::create(&self.disk, &self.dir, self.database_id, names.number() + 1)?;
            *former = Some(std::mem::replace(names, successor));
            dead_names = 0;
        }
        let since = match self.exists {
            true => self.roots.version,
            false => Version(0),
        };
        let leaves = changed_leaves(transaction, since, rewrites);
        let metrics = core.names.metrics();
        let moves = moves(pages, self.roots.metrics, transaction, &leaves, &numbers)?;
        for number in numbers.follow(moves) {
            let numbered = &mut numbers.numbered[number as usize];
            numbered.root = match numbered.base.blocks() {
                [] => {
                    pages.remove(BLOCKS, numbered.root)?;
                    Root::default()
                }
                blocks => write_blocks(pages, numbered.root, blocks)?,
            };
            let write = |_, entries: &mut [u8]| {
                let place = number as usize % BASES.leaf_entries() as usize * BASES.entry_bytes();
                encode_base(numbered.root, &mut entries[place..place + BASES.entry_bytes()]);
                Ok(())
            };
            let entries = roots.bases.entries.max(u64::from(number) + 1);
            roots.bases = pages.change(BASES, roots.bases, entries, [BASES.leaf_of(number.into())], write)?;
        }
        roots.metrics = pages.change(METRICS, roots.metrics, metrics.into(), leaves, |leaf, entries| {
            for (place, bytes) in entries.chunks_exact_mut(METRICS.entry_bytes()).enumerate() {
                let id = leaf * METRICS.leaf_entries() + place as u64;
                let Ok(id) = u32::try_from(id) else { break };
                let before = MetricEntry::decode(bytes);
                match transaction.map(MetricId(id)) {
                    Some(map) => {
                        let base = numbers.number(map.base());
                        let entry = match before.filter(|_| !rewrites) {
                            Some(before) => MetricEntry { base, ..before },
                            None => name(core, names, MetricId(id), base)?,
                        };
                        entry.encode(bytes);
                    }
                    None => {
                        if let Some(gone) = before.filter(|_| !rewrites) {
                            dead_names += names.record_bytes_at(gone.name);
                        }
                        bytes.fill(0);
                    }
                }
            }
            Ok(())
        })?;
        let volumes = write_volumes(pages, &mut roots.volumes, transaction, &self.volumes)?;
        let state = state.encode();
        roots.state = write_state(pages, roots.state, &self.state, &state)?;
        if !core.planted.has(Bug::NameCheckpointUnsynced) {
            pages.sync()?;
        }
        roots.names = (names.number(), names.sync()?);
        roots.active = self.write_active(transaction)?;
        Ok(Next { roots, numbers, volumes, state, dead_names })
    }

    /// Writes what is in memory. Returns the number and the length of the file. It is written if there is nothing in memory too: so the superblock always
    /// names the highest number that counted, and none is used twice, which who reads beside this process would not notice.
    fn write_active(&mut self, transaction: &Transaction) -> Result<(u64, u64)> {
        self.last_active += 1;
        let (number, version) = (self.last_active, transaction.version);
        active::make_folder(&*self.disk, &self.dir)?;
        let mut writer = ActiveWriter::begin(&*self.disk, &self.dir, number, self.database_id, version)?;
        for (metric, map) in transaction.metrics.iter().filter(|(_, map)| !map.layers().is_empty()) {
            writer.add(&state_of_metric(metric, map, version)?)?;
        }
        Ok((number, writer.finish(&*self.disk, &self.dir)?))
    }

    /// Forgets what a checkpoint wrote that will not count.
    fn abandon(&mut self) {
        match &mut self.files {
            Some(files) if self.exists => {
                files.pages.abandon();
                match files.former.take() {
                    Some(former) => files.names = former,
                    None => files.names.rewind(self.roots.names.1),
                }
            }
            // There is no checkpoint: the next one makes the files anew.
            _ => self.files = None,
        }
        let [names, active] = self.files_of([self.roots.names.0 + 1, self.last_active]);
        let written = self.last_active != self.roots.active.0;
        self.remove(std::iter::once(names).chain(written.then_some(active)).collect());
    }

    /// Removes the files that the last checkpoint had and this one has not.
    fn remove_replaced(&mut self, before: &Roots) {
        let [names, active] = self.files_of([before.names.0, before.active.0]);
        let has_names = before.names.0 != 0 && before.names.0 != self.roots.names.0;
        let has_active = before.active.0 != 0 && before.active.0 != self.roots.active.0;
        self.remove(has_names.then_some(names).into_iter().chain(has_active.then_some(active)).collect());
    }
}

/// The leaves of the metrics' tree that may differ, ascending: those with metrics that changed after a version, or `all`.
fn changed_leaves(transaction: &Transaction, since: Version, all: bool) -> Vec<u64> {
    let mut leaves = Vec::new();
    let since = if all { Version(0) } else { since };
    transaction.metrics.changed_after(since, |first, maps| {
        let first = u64::from(first.get());
        leaves.extend(METRICS.leaf_of(first)..=METRICS.leaf_of(first + maps.len() as u64 - 1));
    });
    leaves.dedup();
    leaves
}

/// Which metrics in these leaves have another base than on disk.
fn moves(
    pages: &PageFile,
    root: Root,
    transaction: &Transaction,
    leaves: &[u64],
    numbers: &Numbers,
) -> Result<Moves> {
    let mut moves = Moves::default();
    let mut entries = [0; CONTENT_BYTES];
    let none = BaseRef::default();
    for leaf in leaves {
        pages.leaf(METRICS, root, *leaf, &mut entries)?;
        for (place, bytes) in (0..).zip(entries.chunks_exact(METRICS.entry_bytes())) {
            let Ok(id) = u32::try_from(leaf * METRICS.leaf_entries() + place) else { break };
            let before = MetricEntry::decode(bytes).map_or(0, |entry| entry.base);
            let base = transaction.map(MetricId(id)).map_or(&none, |map| map.base());
            if !numbers.is(before, base) {
                moves.add(before, base);
            }
        }
    }
    Ok(moves)
}

/// Makes a base have these blocks. Those that it had in the same places stay as they are.
fn write_blocks(pages: &mut PageFile, root: Root, blocks: &[SealedBlock]) -> Result<Root> {
    let leaves = 0..BLOCKS.leaf_of(blocks.len() as u64 - 1) + 1;
    pages.change(BLOCKS, root, blocks.len() as u64, leaves, |leaf, entries| {
        let first = (leaf * BLOCKS.leaf_entries()) as usize;
        for (block, bytes) in blocks[first..].iter().zip(entries.chunks_exact_mut(BLOCKS.entry_bytes())) {
            encode_block(block, bytes);
        }
        Ok(())
    })
}

/// The entry of a metric that has none, or whose name goes to another file.
fn name(core: &Core, names: &mut NamesFile, id: MetricId, base: u32) -> Result<MetricEntry> {
    let metric = core.names.metric_by_id(id).expect("a metric that exists has a name");
    Ok(MetricEntry {
        namespace: metric.namespace().id().0,
        shard: metric.shard(),
        name: names.append(id, metric.namespace().id(), metric.name(), metric.tag_list())?,
        created: metric.created(),
        base,
    })
}

/// Makes the tree of volumes what the transaction has. Returns the numbers.
fn write_volumes(
    pages: &mut PageFile,
    root: &mut Root,
    transaction: &Transaction,
    before: &BTreeSet<u32>,
) -> Result<BTreeSet<u32>> {
    let ids = transaction.volumes.iter().map(|volume| volume.block().id.0);
    let volumes: BTreeSet<u32> = ids.collect();
    let leaves: BTreeSet<u64> =
        volumes.symmetric_difference(before).map(|id| VOLUMES.leaf_of((*id).into())).collect();
    let entries = volumes.last().map_or(0, |last| u64::from(*last) + 1);
    *root = pages.change(VOLUMES, *root, entries, leaves, |leaf, bytes| {
        bytes.fill(0);
        for (place, bytes) in (0..).zip(bytes.chunks_exact_mut(VOLUMES.entry_bytes())) {
            let id = u32::try_from(leaf * VOLUMES.leaf_entries() + place).unwrap_or(u32::MAX);
            if let Some(volume) = transaction.volumes.get(VolumeId(id)) {
                encode_volume(volume.block(), bytes);
            }
        }
        Ok(())
    })?;
    Ok(volumes)
}

fn state_of<'a>(core: &Core, transaction: &'a Transaction) -> State<'a> {
    let mut freezes = core.freezes();
    freezes.sort_by_key(|(namespace, shard, freeze)| (freeze.version, *namespace, *shard));
    // Each lane has noted them.
    freezes.dedup_by_key(|(namespace, shard, freeze)| (freeze.version, *namespace, *shard));
    let made = if freezes.is_empty() { Vec::new() } else { core.made_since_freezes() };
    State {
        namespaces: &transaction.namespaces,
        freezes,
        made,
        meta: Some(&transaction.meta),
        next_volume: core.next_volume_number(),
    }
}

/// Makes the tree of the state what `state` is.
fn write_state(pages: &mut PageFile, root: Root, before: &[u8], state: &[u8]) -> Result<Root> {
    let leaf_of = |bytes: &'_ [u8], leaf: u64| {
        let first = (leaf as usize * CONTENT_BYTES).min(bytes.len());
        bytes[first..bytes.len().min(first + CONTENT_BYTES)].to_vec()
    };
    let differ = |leaf: &u64| leaf_of(before, *leaf) != leaf_of(state, *leaf);
    let leaves = (0..STATE.leaves(state.len() as u64)).filter(differ);
    pages.change(STATE, root, state.len() as u64, leaves, |leaf, bytes| {
        let new = leaf_of(state, leaf);
        bytes[..new.len()].copy_from_slice(&new);
        bytes[new.len()..].fill(0);
        Ok(())
    })
}

/// What a metric has in memory, as of a version. Cost: in proportion to the layers and their partitions.
fn state_of_metric(metric: MetricId, map: &PartitionMap, version: Version) -> Result<MetricState> {
    let mut places: HashMap<usize, usize, RandomState> = HashMap::default();
    // Nearly all metrics have one layer, and a partition is in a layer once.
    let is_shared = map.layers().len() > 1;
    let mut partitions = SmallVec::new();
    let mut layers = SmallVec::with_capacity(map.layers().len());
    for layer in map.layers() {
        let mut stack = SmallVec::with_capacity(layer.stack.len());
        for partition in &layer.stack {
            let next = partitions.len();
            let place = match is_shared {
                true => *places.entry(partition.address()).or_insert(next),
                false => next,
            };
            if place == next {
                partitions.push(partition.state(version)?);
            }
            stack.push(place);
        }
        layers.push((layer.cover, stack));
    }
    Ok(MetricState { metric, partitions, layers })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::mvcc::memory::Memory;
    use crate::mvcc::partition::PartitionRef;
    use crate::mvcc::partition_map::{Cover, Layer};
    use crate::mvcc::window::Window;

    #[test]
    fn a_partition_in_several_layers_is_written_once_however_many_layers_there_are() {
        let (window, memory) = (Window::new(10), Memory::default());
        let partition = || PartitionRef::new(window, Version(1), &memory);
        let below = partition();
        let layer = |number: i64| {
            let cover = Cover { first: 10 * number, last: 10 * number + 9 };
            Layer { cover, stack: [below.clone(), partition()].into_iter().collect() }
        };
        let map =
            PartitionMap::restored(BaseRef::default(), (0..50_000).map(layer).collect()).expect("in order");
        let state = state_of_metric(MetricId::from(1), &map, Version(1)).expect("sound");
        assert_eq!((state.partitions.len(), state.layers.len()), (50_001, 50_000));
        assert!(state.layers.iter().zip(1..).all(|((_, stack), place)| stack[..] == [0, place]));
    }
}
