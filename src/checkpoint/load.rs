//! Reading a checkpoint into an empty core.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::commitlog::DatabaseId;
use crate::error::Result;
use crate::io::Vfs;
use crate::mvcc::base::BaseRef;
use crate::mvcc::commit::Core;
use crate::mvcc::restore::Restore;
use crate::names::{NameRecord, NamesFile, NamespaceId};
use crate::report::OpenStep;
use crate::sealed::VolumeId;
use crate::tree::PageFile;

use super::active;
use super::bases::Numbers;
use super::entry::{MetricEntry, decode_base, decode_block, decode_volume};
use super::roots::{BASES, BLOCKS, METRICS, Roots, STATE, VOLUMES};
use super::state;
use super::{Checkpointer, Files};

/// After how many metrics it is told how far loading is.
const TOLD_EVERY: u64 = 1_024;
/// Why loading did not go on.
const ENDED: &str = "loading was ended";

impl Checkpointer {
    /// Puts the state of a checkpoint into an empty core, and knows from then on what is on disk. `write` says whether there will be further
    /// checkpoints. `goes_on` is told now and then how far it is, and whether to go on: if not, there is some error.
    ///
    /// Cost: all of it is read once.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::NewerFormat`], [`Error::Io`].
    pub(crate) fn load(
        disk: &Arc<dyn Vfs>,
        dir: &Path,
        database_id: DatabaseId,
        roots: Roots,
        core: &mut Core,
        write: bool,
        goes_on: &mut dyn FnMut(OpenStep, u64, u64) -> bool,
    ) -> Result<Self> {
        let mut pages = PageFile::open(&**disk, dir, &database_id, write)?;
        let restore = Restore::new(core, roots.version);

        let mut state = zeros(roots.state.entries).map_err(|reason| pages.damaged(roots.state, reason))?;
        pages.load(STATE, roots.state, |first, bytes| {
            // A leaf of zeros, as somebody's metadata may have, is not there.
            let place =
                usize::try_from(first).ok().and_then(|first| state.get_mut(first..)?.get_mut(..bytes.len()));
            place.ok_or("too long a state")?.copy_from_slice(bytes);
            Ok(())
        })?;
        let freezes = state::decode(&state, &restore).map_err(|reason| pages.damaged(roots.state, reason))?;

        let mut volumes = std::collections::BTreeSet::new();
        pages.load(VOLUMES, roots.volumes, |first, bytes| {
            for (place, bytes) in (0..).zip(bytes.chunks_exact(VOLUMES.entry_bytes())) {
                let id = u32::try_from(first + place).map_err(|_| "too many volumes")?;
                if let Some(volume) = decode_volume(VolumeId(id), bytes) {
                    restore.volume(volume?)?;
                    volumes.insert(id);
                }
            }
            Ok(())
        })?;

        let mut numbers = load_bases(&mut pages, roots)?;
        let next_metric = u32::try_from(roots.metrics.entries);
        let next_metric =
            next_metric.map_err(|_| pages.damaged(roots.metrics, "more metrics than there are numbers"))?;
        // By leaf, as there are only so many of these as there are pages, however high the numbers are.
        let mut entries: BTreeMap<u64, Vec<MetricEntry>> = BTreeMap::new();
        let mut metrics = 0u64;
        pages.load(METRICS, roots.metrics, |first, bytes| {
            let mut leaf = Vec::with_capacity(METRICS.leaf_entries() as usize);
            for bytes in bytes.chunks_exact(METRICS.entry_bytes()) {
                let entry = MetricEntry::decode(bytes);
                if let Some(entry) = entry {
                    metrics += 1;
                    numbers.count(entry.base);
                    if entry.base != 0 && numbers.base(entry.base).is_none() {
                        return Err("a metric with a base that there is not");
                    }
                }
                leaf.push(entry.unwrap_or_default());
            }
            entries.insert(METRICS.leaf_of(first), leaf);
            Ok(())
        })?;

        // There are so many entries on disk.
        restore.reserve(metrics as usize);
        let names = NamesFile::open(disk, dir, database_id, roots.names, write)?;
        let mut dead_names = 0;
        let mut named = 0;
        names.scan(|offset, record: NameRecord<'_>| {
            let number = u64::from(record.metric.get());
            let leaf = entries.get(&METRICS.leaf_of(number));
            let entry = leaf.and_then(|leaf| leaf.get((number % METRICS.leaf_entries()) as usize));
            let Some(entry) = entry.filter(|entry| entry.name == offset) else {
                dead_names += record.bytes;
                return Ok(());
            };
            if record.namespace.0 != entry.namespace {
                return Err("a name of another namespace than its metric's");
            }
            let base = numbers.base(entry.base).cloned().unwrap_or_default();
            let namespace = NamespaceId(entry.namespace);
            let own_tags = record.own_tags()?;
            if named % TOLD_EVERY == 0 && !goes_on(OpenStep::Names, named, metrics) {
                return Err(ENDED);
            }
            named += 1;
            restore.metric(record.metric, namespace, record.id, own_tags.as_ref(), entry.created, base)
        })?;
        if named != metrics {
            return Err(pages.damaged(roots.metrics, "a metric whose name is not in the names file"));
        }
        drop(entries);

        if roots.active.0 != 0 {
            let (number, length) = roots.active;
            let mut taken = 0;
            let take = |state| {
                if taken % TOLD_EVERY == 0 && !goes_on(OpenStep::Memory, taken, metrics) {
                    return Err(ENDED);
                }
                taken += 1;
                restore.layers(state)
            };
            active::read(&**disk, dir, number, length, database_id, roots.version, take)?;
        }
        freezes.restore(&restore).map_err(|reason| pages.damaged(roots.state, reason))?;
        restore.finish(next_metric);
        Ok(Checkpointer {
            roots,
            exists: true,
            files: Some(Files { pages, names, former: None }),
            numbers,
            volumes,
            state,
            dead_names,
            last_active: roots.active.0,
            ..Checkpointer::new(disk, dir, database_id)
        })
    }
}

/// So many zeros, which take no memory before something else is written over them; a reason if they cannot be had.
pub(super) fn zeros(bytes: u64) -> std::result::Result<Vec<u8>, &'static str> {
    const TOO_LONG: &str = "too long for the memory that there is";
    let len = usize::try_from(bytes).map_err(|_| TOO_LONG)?;
    // What was allocated as zeros may not be had, and then the process would end.
    Vec::<u8>::new().try_reserve_exact(len).map_err(|_| TOO_LONG)?;
    Ok(vec![0; len])
}

/// What each number of a base stands for.
pub(super) fn load_bases(pages: &mut PageFile, roots: Roots) -> Result<Numbers> {
    let mut found = Vec::new();
    pages.load(BASES, roots.bases, |first, bytes| {
        for (place, bytes) in (0..).zip(bytes.chunks_exact(BASES.entry_bytes())) {
            let number = u32::try_from(first + place).map_err(|_| "too many bases")?;
            found.extend(decode_base(bytes).map(|root| (number, root)));
        }
        Ok(())
    })?;
    let mut numbers = Numbers::default();
    for (number, root) in found {
        let mut blocks = Vec::new();
        pages.load(BLOCKS, root, |first, bytes| {
            let left = (root.entries - first) as usize;
            for bytes in bytes.chunks_exact(BLOCKS.entry_bytes()).take(left) {
                blocks.push(decode_block(bytes).ok_or("a block without a volume")?);
            }
            Ok(())
        })?;
        let base = BaseRef::of(blocks).filter(|base| base.blocks().len() as u64 == root.entries);
        let base = base.ok_or_else(|| pages.damaged(root, "the blocks of a base are not in order"))?;
        let restored = numbers.restore(number, base, root);
        restored.map_err(|_| pages.damaged(roots.bases, "more bases than there is memory for"))?;
    }
    Ok(numbers)
}
