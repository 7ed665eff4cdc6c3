//! Reading what is sound of a checkpoint, for a repair. What it says is put together elsewhere ([`crate::repair`]).
//!
//! Each part is read for itself: a page that is damaged costs the entries below it, a record of a name that name, a block of the active file the
//! metrics in it. Bases, volumes and the state are small, and taken only as a whole: volumes tell of them too. If the superblock is lost, nothing
//! says where trees begin; names and the active file say enough about themselves.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::commitlog::{DatabaseId, le_u32, le_u64};
use crate::error::{Error, Result};
use crate::io::Vfs;
use crate::mvcc::base::SealedBlock;
use crate::mvcc::record::Fields;
use crate::mvcc::restore::{MetricState, Restore};
use crate::mvcc::transaction::Version;
use crate::names::{MetricId, NamesFile, Tags};
use crate::sealed::{BlockVolume, VolumeId};
use crate::tree::{LostEntries, PageFile};

use super::active::{self, BLOCK_HEADER_BYTES, HEADER_BYTES, MAGIC, block_crc, header_crc};
use super::entry::{MetricEntry, decode_volume};
use super::load::{load_bases, zeros};
use super::roots::{METRICS, Roots, STATE, VOLUMES};
use super::state::{self, Freezes};
use super::{Checkpointer, files_of};

/// No longer blocks are looked for behind a damaged one, in bytes.
const SEARCHED_BLOCK_BYTES_MAX: usize = 4 << 20;

/// What is sound of a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Salvaged {
    /// The version whose state it is; none if nobody tells.
    pub(crate) version: Option<Version>,
    /// Metrics that exist, by number: those of sound leaves.
    pub(crate) metrics: BTreeMap<u32, SalvagedMetric>,
    /// Numbers of which nobody knows whether there are such metrics.
    pub(crate) lost_metrics: Vec<Range<u64>>,
    /// Numbers below were given out.
    pub(crate) next_metric: u32,
    /// Names by the numbers of their metrics, of metrics that are gone too.
    pub(crate) names: BTreeMap<u32, SalvagedName>,
    /// The blocks of bases, by their numbers.
    pub(crate) bases: Option<BTreeMap<u32, Vec<SealedBlock>>>,
    pub(crate) volumes: Option<BTreeMap<u32, BlockVolume>>,
    /// The state's bytes.
    pub(crate) state: Option<Vec<u8>>,
    /// What was in memory, ascending by metric.
    pub(crate) layers: Vec<MetricState>,
    /// Whether something of that is missing.
    pub(crate) layers_are_lost: bool,
    pub(crate) damage: Vec<Damaged>,
}

/// A metric as the tree has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SalvagedMetric {
    pub(crate) namespace: u32,
    pub(crate) shard: u32,
    pub(crate) created: Version,
    /// The number of its base; 0 if it has none.
    pub(crate) base: u32,
    /// Where its name lies.
    name: u64,
}

/// A name as its file has it.
#[derive(Clone, Debug)]
pub(crate) struct SalvagedName {
    pub(crate) namespace: u32,
    pub(crate) id: Vec<u8>,
    pub(crate) tags: Tags,
    offset: u64,
}

/// Something that is damaged, and what only that knew.
#[derive(Debug)]
pub(crate) struct Damaged {
    pub(crate) error: Error,
    pub(crate) lost: Option<String>,
}

impl Salvaged {
    /// Whether nobody knows if there is a metric of this number.
    pub(crate) fn is_lost(&self, metric: u32) -> bool {
        self.lost_metrics.iter().any(|range| range.contains(&metric.into()))
    }

    /// Puts the state back, all but the freezes, which come after the metrics.
    pub(crate) fn restore_state(&self, restore: &Restore<'_>) -> std::result::Result<Freezes, &'static str> {
        self.state.as_deref().map_or(Ok(Freezes::default()), |bytes| state::decode(bytes, restore))
    }

    fn damaged(&mut self, error: Error, lost: Option<String>) {
        self.damage.push(Damaged { error, lost });
    }
}

impl Checkpointer {
    /// Reads what is sound of a checkpoint. Without `roots`, as the superblock is lost, what is there.
    ///
    /// Memory: all of it.
    ///
    /// # Errors
    /// [`Error::NewerFormat`], [`Error::Io`].
    pub(crate) fn salvage(
        disk: &Arc<dyn Vfs>,
        dir: &Path,
        database_id: &DatabaseId,
        roots: Option<Roots>,
    ) -> Result<Salvaged> {
        let mut found = Salvaged { version: roots.map(|roots| roots.version), ..Salvaged::default() };
        match roots {
            Some(roots) => read_trees(disk, dir, database_id, roots, &mut found)?,
            None => found.lost_metrics.push(0..u64::from(u32::MAX) + 1),
        }
        read_names(disk, dir, database_id, roots, &mut found)?;
        read_active(disk, dir, database_id, roots, &mut found)?;
        Ok(found)
    }
}

fn read_trees(
    disk: &Arc<dyn Vfs>,
    dir: &Path,
    database_id: &DatabaseId,
    roots: Roots,
    found: &mut Salvaged,
) -> Result<()> {
    const BASES_LOST: &str = "which metric has which sealed blocks: the volumes tell that too";
    const STATE_LOST: &str = "names of namespaces, which folders tell too, and the metadata of commits";
    match PageFile::open(&**disk, dir, database_id, false) {
        Ok(_) => {}
        Err(error @ Error::Corrupt { .. }) => found.damaged(error, None),
        Err(error) => return Err(error),
    }
    found.next_metric = u32::try_from(roots.metrics.entries).unwrap_or(u32::MAX);
    let Some(mut pages) = PageFile::open_damaged(&**disk, dir)? else {
        found.lost_metrics.push(0..roots.metrics.entries);
        for damage in &mut found.damage {
            damage.lost = Some(format!("{BASES_LOST}; {STATE_LOST}; which metrics were dropped"));
        }
        return Ok(());
    };
    let metrics = &mut found.metrics;
    let lost = pages.salvage(METRICS, roots.metrics, |first, bytes| {
        for (number, bytes) in (first..).zip(bytes.chunks_exact(METRICS.entry_bytes())) {
            if let (Ok(number), Some(entry)) = (u32::try_from(number), MetricEntry::decode(bytes)) {
                let MetricEntry { namespace, shard, name, created, base } = entry;
                metrics.insert(number, SalvagedMetric { namespace, shard, created, base, name });
            }
        }
    });
    for LostEntries { entries, error } in lost {
        let (first, last) = (entries.start, entries.end.saturating_sub(1));
        found.damaged(
            error,
            Some(format!("which of the metrics {first} to {last} were dropped, and their bases")),
        );
        found.lost_metrics.push(entries);
    }

    match load_bases(&mut pages, roots) {
        Ok(numbers) => {
            let blocks =
                (0..).zip(&numbers.numbered).filter(|(_, numbered)| !numbered.base.blocks().is_empty());
            found.bases =
                Some(blocks.map(|(number, numbered)| (number, numbered.base.blocks().to_vec())).collect());
        }
        Err(error) => found.damaged(error, Some(BASES_LOST.to_owned())),
    }
    let mut volumes = BTreeMap::new();
    let mut impossible = None;
    let mut lost = pages.salvage(VOLUMES, roots.volumes, |first, bytes| {
        for (number, bytes) in (first..).zip(bytes.chunks_exact(VOLUMES.entry_bytes())) {
            let Ok(number) = u32::try_from(number) else { continue };
            match decode_volume(VolumeId(number), bytes) {
                Some(Ok(volume)) => drop(volumes.insert(number, volume)),
                Some(Err(reason)) => impossible = Some(reason),
                None => {}
            }
        }
    });
    match (lost.pop(), impossible) {
        (None, None) => found.volumes = Some(volumes),
        (Some(lost), _) => {
            found.damaged(lost.error, Some("the table of volumes: their folders tell it too".into()))
        }
        (None, Some(reason)) => found.damaged(pages.damaged(roots.volumes, reason), None),
    }
    let mut state = match zeros(roots.state.entries) {
        Ok(state) => state,
        Err(reason) => {
            found.damaged(pages.damaged(roots.state, reason), Some(STATE_LOST.to_owned()));
            return Ok(());
        }
    };
    let mut lost = pages.salvage(STATE, roots.state, |first, bytes| {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        if let Some(place) = first.checked_add(bytes.len()).and_then(|end| state.get_mut(first..end)) {
            place.copy_from_slice(bytes);
        }
    });
    match lost.pop() {
        None => found.state = Some(state),
        Some(lost) => found.damaged(lost.error, Some(STATE_LOST.to_owned())),
    }
    Ok(())
}

fn read_names(
    disk: &Arc<dyn Vfs>,
    dir: &Path,
    database_id: &DatabaseId,
    roots: Option<Roots>,
    found: &mut Salvaged,
) -> Result<()> {
    let named = match roots {
        Some(roots) => Some((roots.names.0, Some(roots.names.1))),
        None => newest(disk, &NamesFile::folder(dir), NamesFile::parse)?.map(|number| (number, None)),
    };
    // A name that nothing else tells has a substitute, which is told.
    let Some(named) = named else { return Ok(()) };
    let (metrics, names) = (&found.metrics, &mut found.names);
    let salvaged = NamesFile::salvage(disk, dir, database_id, named, |offset, record| {
        let number = record.metric.get();
        let Ok(tags) = record.tags() else { return };
        // That of a metric that exists is the one that it names; of others the last.
        let is_wanted = metrics.get(&number).is_none_or(|metric| metric.name == offset);
        if is_wanted {
            let namespace = record.namespace.0;
            names.insert(number, SalvagedName { namespace, id: record.id.to_vec(), tags, offset });
        }
    });
    match salvaged {
        Ok((header, lost)) => {
            let path = NamesFile::folder(dir).join(NamesFile::file_name(named.0));
            found.damage.extend(header.map(|error| Damaged { error, lost: None }));
            for lost in lost {
                let (offset, reason) = (lost.offset, lost.reason);
                let path = path.clone();
                let error = Error::Corrupt { format: "names file", path, offset, metric: None, reason };
                found.damaged(error, None);
            }
        }
        Err(error @ Error::Corrupt { .. }) => found.damaged(error, None),
        Err(error) => return Err(error),
    }
    let is_its = |(number, name): (&u32, &SalvagedName)| {
        found.metrics.get(number).is_none_or(|metric| metric.name == name.offset)
    };
    debug_assert!(found.names.iter().all(is_its));
    let last = found.names.last_key_value().map_or(0, |(number, _)| number.saturating_add(1));
    found.next_metric = found.next_metric.max(last);
    Ok(())
}

fn read_active(
    disk: &Arc<dyn Vfs>,
    dir: &Path,
    database_id: &DatabaseId,
    roots: Option<Roots>,
    found: &mut Salvaged,
) -> Result<()> {
    let number = match roots {
        Some(roots) => (roots.active.0 != 0).then_some(roots.active.0),
        None => newest(disk, &dir.join(active::FOLDER), active::parse)?,
    };
    let Some(number) = number else { return Ok(()) };
    let [_, path] = files_of(dir, [0, number]);
    let lose = |found: &mut Salvaged, offset, reason, lost: String| {
        found.layers_are_lost = true;
        found.damaged(active::corrupt(&path, offset, reason), Some(lost));
    };
    if disk.open(&path, false)?.is_none() {
        let lost = "what was in memory at the checkpoint, and is neither in a volume nor in the log";
        lose(found, 0, "the file is missing", lost.to_owned());
        return Ok(());
    }
    let bytes = disk.map(&path)?;
    let header = bytes.first_chunk::<HEADER_BYTES>();
    let sound = header.filter(|header| {
        header[..8] == MAGIC && header_crc(header) == le_u32(header, 12) && header[16..32] == *database_id
    });
    match sound {
        Some(header) if found.version.is_none() => found.version = Some(Version(le_u64(header, 32))),
        Some(_) => {}
        None => found.damaged(active::corrupt(&path, 0, "the header is damaged"), None),
    }
    let (mut offset, mut last) = (HEADER_BYTES, None);
    while offset < bytes.len() {
        match block_at(&bytes, offset, last) {
            Ok((states, len)) => {
                last = states.last().map_or(last, |state| Some(state.metric));
                found.layers.extend(states);
                offset += len;
            }
            Err(reason) => {
                let next = next_block(&bytes, offset, last);
                let after =
                    next.and_then(|next| block_at(&bytes, next, last).ok()?.0.first().map(|s| s.metric));
                let lost = format!(
                    "what was in memory of metrics {}{}, and is neither in a volume nor in the log",
                    last.map_or("from 0".to_owned(), |last| format!("above {}", last.get())),
                    after.map_or(String::new(), |after| format!(" and below {}", after.get())),
                );
                lose(found, offset as u64, reason, lost);
                offset = next.unwrap_or(bytes.len());
            }
        }
    }
    let length = roots.map(|roots| roots.active.1).or(sound.map(|header| le_u64(header, 40)));
    if length.is_some_and(|length| length > bytes.len() as u64) {
        let lost = "what was in memory of metrics behind the last one in the file".to_owned();
        lose(found, bytes.len() as u64, "the file ends too early", lost);
    }
    let last = found.layers.last().map_or(0, |state| state.metric.get().saturating_add(1));
    found.next_metric = found.next_metric.max(last);
    Ok(())
}

/// The metrics of the block that begins at an offset, all above `last`, and its length.
fn block_at(
    bytes: &[u8],
    offset: usize,
    mut last: Option<MetricId>,
) -> std::result::Result<(Vec<MetricState>, usize), &'static str> {
    let rest = bytes.get(offset..).unwrap_or_default();
    let header = rest.first_chunk::<BLOCK_HEADER_BYTES>().ok_or("a block without a header")?;
    let len = (le_u32(header, 4) as usize).saturating_add(BLOCK_HEADER_BYTES);
    let block =
        rest.get(4..len).filter(|block| block.len() > 4).ok_or("a block with an impossible length")?;
    if block_crc(offset as u64, block) != le_u32(header, 0) {
        return Err("the checksum differs");
    }
    let mut fields = Fields(block.get(4..).unwrap_or_default());
    let (mut states, mut previous) = (Vec::new(), 0);
    while !fields.0.is_empty() {
        let state = active::decode(&mut fields, previous).map_err(|error| error.0)?;
        if last.is_some_and(|last| last >= state.metric) {
            return Err("metrics that are not in order");
        }
        (previous, last) = (state.metric.0, Some(state.metric));
        states.push(state);
    }
    Ok((states, len))
}

/// Where the next sound block begins behind one that is damaged: where that one says that it ends, or else wherever there is one.
fn next_block(bytes: &[u8], offset: usize, last: Option<MetricId>) -> Option<usize> {
    let is_sound = |at: &usize| block_at(bytes, *at, last).is_ok();
    let len =
        bytes.get(offset + 4..).and_then(|rest| rest.first_chunk::<4>()).map(|len| u32::from_le_bytes(*len));
    let told = len.and_then(|len| offset.checked_add(BLOCK_HEADER_BYTES)?.checked_add(len as usize));
    if let Some(told) = told.filter(|told| *told == bytes.len() || is_sound(told)) {
        return (told < bytes.len()).then_some(told);
    }
    let is_short = |at: &usize| {
        let header = bytes.get(*at..).and_then(|rest| rest.first_chunk::<BLOCK_HEADER_BYTES>());
        header.is_some_and(|header| le_u32(header, 4) as usize <= SEARCHED_BLOCK_BYTES_MAX)
    };
    (offset + 1..bytes.len()).find(|at| is_short(at) && is_sound(at))
}

/// The highest number that a file of a folder has.
fn newest(disk: &Arc<dyn Vfs>, folder: &Path, parse: impl Fn(&str) -> Option<u64>) -> Result<Option<u64>> {
    let names = disk.read_dir(folder)?.unwrap_or_default();
    Ok(names.iter().filter_map(|name| parse(name.to_str()?)).max())
}
