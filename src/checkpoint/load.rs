//! Reading a checkpoint into an empty core.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::commitlog::DatabaseId;
use crate::error::Result;
use crate::helpers::Helpers;
use crate::io::Vfs;
use crate::mvcc::base::BaseRef;
use crate::mvcc::commit::Core;
use crate::mvcc::partition_map::PartitionMap;
use crate::mvcc::restore::{MetricState, Restore, RestoredMetric};
use crate::mvcc::window::Window;
use crate::names::{MetricId, NameRecord, NamesFile, NamespaceId};
use crate::report::OpenStep;
use crate::sealed::VolumeId;
use crate::sync::Mutex;
use crate::tree::PageFile;

use super::active::{self, ActiveReader};
use super::bases::Numbers;
use super::entry::{MetricEntry, decode_base, decode_block, decode_volume};
use super::roots::{BASES, BLOCKS, METRICS, Roots, STATE, VOLUMES};
use super::state;
use super::{Checkpointer, Files};

/// After how many metrics it is told how far loading is.
const TOLD_EVERY: u64 = 1_024;
/// Why loading did not go on.
const ENDED: &str = "loading was ended";
/// A metric that the active file has and the tree has not.
const NO_METRIC: &str = "points of a metric that there is not";

/// The entries of the metrics, by leaf: so there are only so many as there are pages, however high the numbers are.
type Entries = BTreeMap<u64, Vec<MetricEntry>>;
type Map = crate::sync::Arc<PartitionMap>;
/// Of some metrics, ascending.
type Maps = Vec<(MetricId, Map)>;

/// How a checkpoint is loaded.
pub(crate) struct LoadOptions<'a> {
    /// Whether there will be further checkpoints.
    pub(crate) write: bool,
    /// They read what is in memory, if that is much, while the thread that loads reads the names.
    pub(crate) helpers: Helpers,
    /// Told now and then how far it is, and says whether to go on: if not, there is some error.
    pub(crate) goes_on: &'a mut dyn FnMut(OpenStep, u64, u64) -> bool,
}

impl Checkpointer {
    /// Puts the state of a checkpoint into an empty core, and knows from then on what is on disk.
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
        LoadOptions { write, helpers, goes_on }: LoadOptions<'_>,
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
        let mut entries = Entries::new();
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
        let (active, active_bytes) = match roots.active {
            (0, _) => (None, 0),
            active => (Some(ActiveReader::open(&**disk, dir, active, database_id, roots.version)?), active.1),
        };
        let windows = restore.windows();
        let loading = Loading { restore, windows, entries, numbers, metrics };
        let reading = Reading::new(active.as_ref(), &loading);
        let dead_names = helpers.run(active_bytes, &|| reading.work(&mut |_| true), || {
            let named = loading.name(&names, goes_on);
            if named.is_err() {
                reading.stop();
            }
            reading.work(&mut |done| goes_on(OpenStep::Memory, done, metrics));
            named
        })?;
        let Some(dead_names) = dead_names else {
            return Err(pages.damaged(roots.metrics, "a metric whose name is not in the names file"));
        };
        let maps = reading.finish()?;
        let restored = loading.join(maps).map_err(|reason| pages.damaged(roots.metrics, reason))?;
        let part = AtomicUsize::new(0);
        let put = || {
            while let part @ 0..Restore::PARTS = part.fetch_add(1, Ordering::Relaxed) {
                loading.restore.heads(part, restored.iter());
            }
        };
        helpers.run(active_bytes, &put, put);
        drop(restored);
        let Loading { restore, numbers, .. } = loading;
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

/// What the trees say, while the rest is read.
#[derive(Debug)]
struct Loading<'a> {
    restore: Restore<'a>,
    windows: BTreeMap<u32, Window>,
    entries: Entries,
    numbers: Numbers,
    /// How many entries there are.
    metrics: u64,
}

impl Loading<'_> {
    fn entry(&self, metric: MetricId) -> Option<&MetricEntry> {
        let number = u64::from(metric.get());
        let leaf = self.entries.get(&METRICS.leaf_of(number))?;
        leaf.get((number % METRICS.leaf_entries()) as usize).filter(|entry| entry.name != 0)
    }

    /// Gives each metric its name. Returns how many bytes of the file are of names that no metric has any more; none if a metric has no name.
    fn name(
        &self,
        names: &NamesFile,
        goes_on: &mut dyn FnMut(OpenStep, u64, u64) -> bool,
    ) -> Result<Option<u64>> {
        let (mut dead, mut named) = (0, 0);
        names.scan(|offset, record: NameRecord<'_>| {
            let Some(entry) = self.entry(record.metric).filter(|entry| entry.name == offset) else {
                dead += record.bytes;
                return Ok(());
            };
            if record.namespace.0 != entry.namespace {
                return Err("a name of another namespace than its metric's");
            }
            if named % TOLD_EVERY == 0 && !goes_on(OpenStep::Names, named, self.metrics) {
                return Err(ENDED);
            }
            named += 1;
            let own_tags = record.own_tags()?;
            let MetricEntry { shard, created, .. } = *entry;
            let named_shard =
                self.restore.name(record.metric, record.namespace, record.id, own_tags.as_ref(), created)?;
            if named_shard == shard { Ok(()) } else { Err("a name of another shard than its metric's") }
        })?;
        Ok((named == self.metrics).then_some(dead))
    }

    /// The map of a metric that has something in memory.
    fn map(&self, state: MetricState) -> std::result::Result<(MetricId, Map), &'static str> {
        let metric = state.metric;
        let entry = self.entry(metric).ok_or(NO_METRIC)?;
        let window = self.windows.get(&entry.namespace).ok_or(NO_METRIC)?;
        let base = self.numbers.base(entry.base).cloned().unwrap_or_default();
        Ok((metric, self.restore.map(base, *window, state)?))
    }

    /// All metrics, those with these maps and those that have nothing in memory, ascending.
    fn join(&self, maps: Maps) -> std::result::Result<Vec<RestoredMetric>, &'static str> {
        let mut all = Vec::with_capacity(self.metrics as usize);
        let mut maps = maps.into_iter().peekable();
        for (leaf, entries) in &self.entries {
            let first = leaf * METRICS.leaf_entries();
            for (number, entry) in (first..).zip(entries).filter(|(_, entry)| entry.name != 0) {
                let id = MetricId::from(u32::try_from(number).map_err(|_| "too high a number")?);
                let map = match maps.next_if(|(metric, _)| *metric == id) {
                    Some((_, map)) => map,
                    None => {
                        let base = self.numbers.base(entry.base).cloned().unwrap_or_default();
                        self.restore.base_map(&base)?
                    }
                };
                let (namespace, shard) = (NamespaceId(entry.namespace), entry.shard);
                all.push(RestoredMetric { id, namespace, shard, map });
            }
        }
        Ok(all)
    }
}

/// The maps of metrics that have something in memory, made by several threads: each takes the next block of the active file that nobody has taken.
struct Reading<'a> {
    file: Option<&'a ActiveReader>,
    loading: &'a Loading<'a>,
    next: AtomicUsize,
    /// Metrics of blocks that are done.
    done: AtomicU64,
    is_stopped: AtomicBool,
    found: Mutex<Vec<(usize, Result<Maps>)>>,
}

impl<'a> Reading<'a> {
    fn new(file: Option<&'a ActiveReader>, loading: &'a Loading<'a>) -> Self {
        let (next, done) = Default::default();
        Reading { file, loading, next, done, is_stopped: AtomicBool::new(false), found: Mutex::default() }
    }

    /// Has nobody take another block.
    fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Reads blocks until there are no more. Before each, `goes_on` is told how many metrics have been read, and says whether to.
    fn work(&self, goes_on: &mut dyn FnMut(u64) -> bool) {
        let Some(file) = self.file else { return };
        while !self.is_stopped.load(Ordering::Relaxed) {
            if !goes_on(self.done.load(Ordering::Relaxed)) {
                self.stop();
                self.found.lock().push((file.blocks(), Err(file.damaged(0, ENDED))));
                return;
            }
            let block = self.next.fetch_add(1, Ordering::Relaxed);
            if block >= file.blocks() {
                return;
            }
            let mut maps = Maps::new();
            let read = file.read(block, |state| {
                maps.push(self.loading.map(state)?);
                Ok(())
            });
            // Blocks before it were taken before it, and who took them goes on with them: so the first damage is told, whoever finds it.
            if read.is_err() {
                self.stop();
            }
            self.done.fetch_add(maps.len() as u64, Ordering::Relaxed);
            self.found.lock().push((block, read.map(|()| maps)));
        }
    }

    /// What all of them found, ascending.
    fn finish(self) -> Result<Maps> {
        let Some(file) = self.file else { return Ok(Vec::new()) };
        let mut found = self.found.into_inner();
        found.sort_unstable_by_key(|(block, _)| *block);
        let mut all = Maps::with_capacity(self.done.into_inner() as usize);
        for (block, maps) in found {
            let maps = maps?;
            if let (Some((last, _)), Some((first, _))) = (all.last(), maps.first())
                && last >= first
            {
                return Err(file.damaged(block, active::NOT_IN_ORDER));
            }
            all.extend(maps);
        }
        file.check_end()?;
        Ok(all)
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

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Arc;

    use crate::error::Error;
    use crate::io::{CutState, SimulatedDisk, Vfs};
    use crate::options::Options;
    use crate::time::Timestamp;

    use super::super::active;

    const METRICS: usize = 200;

    #[test]
    fn first_damaged_block_is_told_however_many_threads_read() {
        let disk = SimulatedDisk::new(1);
        let options = || Options::new().workers(0);
        let db = options().open_on(Arc::new(disk.clone()), "/db").expect("opens");
        for index in 0..METRICS {
            let metric = db.metric(format!("m{index}")).expect("a name");
            for second in 0..20 {
                db.append(&metric, Timestamp::from_secs(second), 1.0 / second as f64).expect("commits");
            }
        }
        db.checkpoint().expect("a checkpoint");
        db.close().expect("closes");
        let folder = std::path::Path::new("/db").join(active::FOLDER);
        let name = disk.read_dir(&folder).expect("works").expect("there").pop().expect("a file");
        let file = disk.open(&folder.join(name), true).expect("works").expect("there");
        // Blocks of a kilobyte, in tests.
        let offsets = [5_000, 15_000, 25_000];
        assert!(file.len().expect("works") > 30_000);
        for offset in offsets {
            let mut byte = [0];
            file.read_at(offset, &mut byte).expect("works");
            file.write_at(offset, &[byte[0] ^ 1]).expect("works");
        }
        for workers in [0, 1, 2, 4, 9] {
            for _ in 0..20 {
                let copy = disk.after_power_cut(CutState::All, 0);
                match options().replay_workers(workers).open_on(Arc::new(copy), "/db") {
                    Err(Error::Corrupt { format: "active file", offset, .. }) => {
                        assert!((3_000..=5_000).contains(&offset), "{workers} workers: {offset}");
                    }
                    other => panic!("{workers} workers: {other:?}"),
                }
            }
        }
    }
}
