//! A volume of a database, and streams in it.

use std::ops::Range;
use std::sync::OnceLock;

use super::BlockVolume;
use super::gone::Gone;
use super::open_volumes::Slot;
use super::place::Place;
use super::store::VolumeStore;
use crate::error::{Error, Result};
use crate::fileset::{Damage, MetricEntry, Supplement, Volume, VolumeFile};
use crate::mvcc::transaction::Version;
use crate::names::{Metric, MetricId};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::volumes::VolumeContents;

/// Of a volume that is not superseded.
const NEVER: u64 = u64::MAX;

/// A volume as transactions hold it. Its files are opened when they are first read, and may be closed and opened again.
///
/// Dropping it closes it, without I/O beside unmapping; the files go only if it was superseded, and later:
/// [`VolumeStore::remove_superseded`].
#[derive(Debug)]
pub(crate) struct SealedVolume {
    store: VolumeStore,
    block: BlockVolume,
    place: Place,
    slot: Arc<Slot>,
    /// The version that no longer has it. Relaxed: who reads it has the last reference, and sees what former holders did.
    superseded_at: AtomicU64,
    lookups_by_name: AtomicU64,
    gone: Gone,
    bytes: OnceLock<u64>,
    contents: OnceLock<VolumeContents>,
}

/// A metric's stream in a volume: checked, and there as long as this is, whatever becomes of the volume.
#[derive(Clone, Debug)]
pub(crate) struct SealedStream {
    volume: Arc<Volume>,
    /// Where in the data file it lies.
    at: Range<usize>,
    /// Whose it is, for errors.
    metric: Metric,
}

impl SealedStream {
    /// The points in M3TSZ.
    pub(crate) fn bytes(&self) -> &[u8] {
        // It was there when the stream was checked, and the file does not change.
        self.volume.data().get(self.at.clone()).unwrap_or_default()
    }

    /// The error for damage so many bytes behind its beginning.
    pub(crate) fn corrupt(&self, offset: u64, reason: &'static str) -> Error {
        let damage = Damage { offset: (self.at.start as u64).saturating_add(offset), reason };
        damage.of_stream(&self.volume.path(VolumeFile::Data), Some(self.metric.to_string().into()))
    }
}

impl SealedVolume {
    pub(super) fn new(store: VolumeStore, block: BlockVolume, place: Place) -> Self {
        SealedVolume {
            store,
            block,
            place,
            slot: Arc::default(),
            superseded_at: AtomicU64::new(NEVER),
            lookups_by_name: AtomicU64::new(0),
            gone: Gone::default(),
            bytes: OnceLock::new(),
            contents: OnceLock::new(),
        }
    }

    /// What it holds.
    pub(crate) fn block(&self) -> &BlockVolume {
        &self.block
    }

    /// The stream of a metric, or `None` if it has no points here.
    ///
    /// Where the supplement is damaged or missing the metric is found by its ID. A metric that was dropped and the one that was made again under
    /// its ID cannot be told apart then: only those may be asked for that lived when the volume was frozen.
    ///
    /// # Errors
    /// [`Error::Corrupt`], with the metric's ID if it is about its stream; also if a file is missing. [`Error::Io`].
    ///
    /// Cost: opening the files, if they are not open; otherwise two searches in the supplement, and the stream's checksum.
    pub(crate) fn stream_of(&self, metric: &Metric) -> Result<Option<SealedStream>> {
        let volume = self.open()?;
        let found = match volume.supplement().map(|supplement| (supplement, supplement.find(metric.id()))) {
            Some((_, Ok(None))) => None,
            Some((supplement, Ok(Some(entry)))) => {
                supplement.stream(&entry).map_err(|error| with_id(error, metric))?;
                Some((entry.offset, entry.size))
            }
            None | Some((_, Err(_))) => {
                self.lookups_by_name.fetch_add(1, Ordering::Relaxed);
                let entry = volume.find(metric.name())?;
                entry
                    .map(|entry| volume.stream(&entry).map(|_| (entry.offset(), entry.size())))
                    .transpose()?
            }
        };
        Ok(found.map(|(offset, size)| {
            // They were added up to find the stream, without overflow.
            let start = offset as usize;
            SealedStream { volume: volume.clone(), at: start..start + size as usize, metric: metric.clone() }
        }))
    }

    /// What the supplement has of a metric, statistics included, or `None` if it has no points here. No stream is touched.
    ///
    /// # Errors
    /// As for [`metric_ids`](SealedVolume::metric_ids); a damaged page of the table concerns its metrics only. There is still
    /// [`stream_of`](SealedVolume::stream_of) then.
    pub(crate) fn entry_of(&self, metric: &Metric) -> Result<Option<MetricEntry>> {
        let volume = self.open()?;
        self.supplement(&volume)?.find(metric.id())
    }

    /// The metrics that have points here, ascending.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::NewerFormat`] if the supplement is damaged, missing or newer, or the volume cannot be opened. Each metric that may be
    /// in it can still be asked for. [`Error::Io`].
    ///
    /// Cost: the whole table, 68 bytes for each metric.
    pub(crate) fn metric_ids(&self) -> Result<Vec<MetricId>> {
        let volume = self.open()?;
        self.supplement(&volume)?.entries().map(|entry| entry.map(|entry| entry.metric)).collect()
    }

    /// A metric does not name it any more.
    pub(crate) fn note_gone(&self) {
        self.gone.note();
    }

    /// Whether nobody counted yet how many of its metrics are gone.
    pub(crate) fn is_uncounted(&self) -> bool {
        self.gone.is_unknown()
    }

    /// Whether at least half of its metrics may be gone, as far as was noted since they were counted.
    pub(crate) fn may_be_half_gone(&self) -> bool {
        self.gone.may_be_half()
    }

    /// Whether at least half of its metrics are gone: `names_it` tells of each whether it is not. One at a time counts. A volume whose table is
    /// damaged is not asked about again.
    ///
    /// # Errors
    /// As for [`metric_ids`](SealedVolume::metric_ids), and the same cost.
    pub(crate) fn is_half_gone(&self, names_it: impl Fn(MetricId) -> bool) -> Result<bool> {
        let noted = self.gone.noted();
        let metrics = self.metric_ids().inspect_err(|error| {
            if error.is_of_data() {
                self.gone.give_up();
            }
        })?;
        let gone = metrics.iter().filter(|metric| !names_it(**metric)).count();
        // A table has no more than u32 counts.
        Ok(self.gone.set(metrics.len() as u32, gone as u32, noted))
    }

    /// The sum of the lengths of its files, in bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// Cost: the first time, opening each file.
    pub(crate) fn bytes(&self) -> Result<u64> {
        if let Some(bytes) = self.bytes.get() {
            return Ok(*bytes);
        }
        let mut bytes = 0_u64;
        for path in self.place.files() {
            let file = self.store.disk().open(&path, false)?;
            bytes = bytes.saturating_add(file.map_or(Ok(0), |file| file.len())?);
        }
        Ok(*self.bytes.get_or_init(|| bytes))
    }

    /// What is in it.
    ///
    /// # Errors
    /// As for [`metric_ids`](SealedVolume::metric_ids).
    ///
    /// Cost: the first time, the whole table, 68 bytes for each metric.
    pub(crate) fn contents(&self) -> Result<VolumeContents> {
        if let Some(contents) = self.contents.get() {
            return Ok(*contents);
        }
        let volume = self.open()?;
        let mut contents = VolumeContents::default();
        for entry in self.supplement(&volume)?.entries() {
            let entry = entry?;
            contents.metrics += 1;
            contents.points += u64::from(entry.statistics.points());
            contents.stream_bytes += u64::from(entry.size);
        }
        Ok(*self.contents.get_or_init(|| contents))
    }

    /// Opens its files, in a store that never closes them, and finds out how long they are: from then on nobody minds if they are removed.
    ///
    /// # Errors
    /// As for [`metric_ids`](SealedVolume::metric_ids).
    pub(crate) fn hold(&self) -> Result<()> {
        debug_assert!(self.store.keeps_open());
        self.bytes()?;
        self.open().map(drop)
    }

    /// Holds the files that another handle to the same volume has open.
    pub(crate) fn take_over(&self, other: &SealedVolume) {
        if let Some(volume) = other.store.open().get(&other.slot)
            && (self.block, &self.place) == (other.block, &other.place)
        {
            self.store.open().keep(&self.slot, &volume);
            if let Some(bytes) = other.bytes.get() {
                // It is the same, if it is known already.
                let _ = self.bytes.set(*bytes);
            }
        }
    }

    /// Reads all of it and returns all that is wrong, a missing supplement included. The files are opened anew, and other volumes are not
    /// closed for it; those that are never closed are read as they were opened.
    ///
    /// Cost: as [`Volume::verify`].
    pub(crate) fn verify(&self) -> Vec<Error> {
        let volume = match self.store.keeps_open() {
            true => self.open(),
            false => self.read().map(Arc::new),
        };
        let volume = match volume {
            Ok(volume) => volume,
            Err(error) => return vec![error],
        };
        let mut errors = volume.verify();
        // A damaged one was told.
        if errors.is_empty() {
            errors.extend(self.supplement(&volume).err());
        }
        errors
    }

    /// How many metrics were looked for by their IDs because the supplement was damaged or missing.
    pub(crate) fn lookups_by_name(&self) -> u64 {
        self.lookups_by_name.load(Ordering::Relaxed)
    }

    /// Tells that the transaction of version `at`, and all after it, do without the volume: when its last holder is gone, its files may go, if what is on disk does
    /// without it too.
    /// At version 0 it is one that no transaction ever had, such as one whose writing failed.
    pub(crate) fn supersede(&self, at: Version) {
        self.superseded_at.store(at.get(), Ordering::Relaxed);
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The open volume. Who comes while another thread opens it waits for that one.
    fn open(&self) -> Result<Arc<Volume>> {
        let open = self.store.open();
        if let Some(volume) = open.get(&self.slot) {
            return Ok(volume);
        }
        let _opening = self.slot.opening.lock();
        if let Some(volume) = open.get(&self.slot) {
            return Ok(volume);
        }
        let volume = Arc::new(self.read()?);
        open.keep(&self.slot, &volume);
        Ok(volume)
    }

    /// Opens the files anew.
    fn read(&self) -> Result<Volume> {
        let volume = Volume::open(self.store.disk(), &self.place.folder, self.place.name)?;
        let expected = self.store.supplement_of(&self.block);
        if volume.supplement().is_some_and(|supplement| supplement.spec() != expected) {
            return Err(supplement_error(
                &volume,
                "it is of another database or version than the volume in the log",
            ));
        }
        Ok(volume)
    }

    fn supplement<'v>(&self, volume: &'v Volume) -> Result<Supplement<'v>> {
        let error = || {
            let path = volume.supplement_path();
            let is_about = |error: &Error| match error {
                Error::Corrupt { path: damaged, .. } | Error::NewerFormat { path: damaged, .. } => {
                    *damaged == path
                }
                _ => false,
            };
            let told = volume.damage().into_iter().find(is_about);
            told.unwrap_or_else(|| supplement_error(volume, "the file is missing"))
        };
        volume.supplement().ok_or_else(error)
    }
}

impl Drop for SealedVolume {
    fn drop(&mut self) {
        self.store.open().close(&self.slot);
        let at = self.superseded_at.load(Ordering::Relaxed);
        if at != NEVER {
            self.store.add_superseded(self.place.clone(), Version(at));
        }
    }
}

fn supplement_error(volume: &Volume, reason: &'static str) -> Error {
    let path = volume.supplement_path();
    Error::Corrupt { format: "volume supplement", path, offset: 0, metric: None, reason }
}

/// An error about a metric's stream with its ID, where the volume knows its number only.
fn with_id(error: Error, metric: &Metric) -> Error {
    match error {
        Error::Corrupt { format, path, offset, reason, .. } => {
            let metric = Some(metric.to_string().into());
            Error::Corrupt { format, path, offset, metric, reason }
        }
        other => other,
    }
}
