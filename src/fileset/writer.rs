//! Writing a volume.
//!
//! Invariants
//! * The checkpoint gets its name last: when the other six files, the supplement if there is to be one, and their names
//!   are durable. Until then there is no volume, and then there is a whole one.
//! * Nothing of a complete volume is ever overwritten. What an unfinished one left is removed, for good, before
//!   anything is written in its place: no file of it comes to lie beside new ones.
//! * The bytes are those that M3 writes for the same metrics in the same order, with its default shares of summaries
//!   and false positives.
//!
//! Format and order: `design/m3-fileset.md`, `design/supplement.md`.

use std::path::Path;

use super::bloom_filter::{BloomBuilder, BloomShape};
use super::name::{Place, VolumeFile, VolumeName};
use super::output::Output;
use super::record::{EntryRecord, SnapshotMark, SummaryRecord, VolumeInfo};
use super::supplement::{FileSum, Numbered, Statistics, SupplementBuilder, SupplementSpec};
use super::tags::decode_tags;
use crate::error::{Error, Result};
use crate::io::Vfs;
use crate::names::MetricId;

/// The share of index entries that the summaries list: M3's default.
const SUMMARIES_SHARE: f64 = 0.03;

/// What a volume is, beside its metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// The block, and which volume of it.
    pub name: VolumeName,
    /// The length of the block in nanoseconds.
    pub block_size: i64,
    /// The snapshot that it is part of, if it is.
    pub snapshot: Option<SnapshotMark>,
    /// Whose metric ids are in its supplement, if it is to have one. Then each metric comes with its id and statistics
    /// ([`VolumeWriter::append_numbered`]); otherwise none does.
    pub supplement: Option<SupplementSpec>,
}

/// A metric as it goes into a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricStream<'a> {
    /// Its ID: any bytes.
    pub id: &'a [u8],
    /// Its encoded tags, [`encode_tags`](super::encode_tags); none are no bytes.
    pub tags: &'a [u8],
    /// Its points in M3TSZ. A metric with an empty stream is left out of the volume, as M3 does.
    pub stream: &'a [u8],
}

/// Writes a volume, metrics in any order.
///
/// The index is kept in memory until the end: about 40 bytes for each metric beside its ID and tags, and another 68 for
/// the supplement. [`SortedVolumeWriter`] keeps the latter only. A writer that is dropped, or could not write, leaves
/// files without a checkpoint, which are no volume; the next writer of the same name replaces them, and
/// [`remove_volume`] removes them. After a failed write the volume cannot be finished.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use chronolith::fileset::{MetricStream, Volume, VolumeName, VolumeSpec, VolumeWriter};
/// use chronolith::io::{MemoryDisk, Vfs};
/// use chronolith::m3tsz::{Encoder, EncoderOptions};
///
/// let start = 1_700_006_400_000_000_000;
/// let mut encoder = Encoder::new(start, EncoderOptions::default());
/// encoder.append(start, 42.0, b"")?;
/// let mut stream = Vec::new();
/// encoder.finish_into(&mut stream);
///
/// let disk = MemoryDisk::new();
/// let folder = "/data/metrics/0".as_ref();
/// disk.create_dir_all(folder)?;
/// let name = VolumeName { block_start: start, volume: 0 };
/// let spec = VolumeSpec { name, block_size: 7_200_000_000_000, snapshot: None, supplement: None };
/// let mut writer = VolumeWriter::create(&disk, folder, spec)?;
/// writer.append(MetricStream { id: b"cpu", tags: b"", stream: &stream })?;
/// writer.finish()?;
///
/// let volume = Volume::open(&disk, folder, name)?;
/// assert_eq!(volume.stream_of(b"cpu")?, Some(&stream[..]));
/// assert_eq!(volume.stream_of(b"memory")?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct VolumeWriter<'d> {
    files: Files<'d>,
    data: Data,
    entries: Vec<Entry>,
    /// IDs and tags, one behind the other.
    names: Vec<u8>,
}

/// An index entry in memory.
#[derive(Debug)]
struct Entry {
    ordinal: u64,
    offset: u64,
    names_at: usize,
    id_len: u32,
    tags_len: u32,
    size: u32,
    checksum: u32,
}

impl Entry {
    fn record<'a>(&self, names: &'a [u8]) -> EntryRecord<'a> {
        let (id, rest) = names[self.names_at..].split_at(self.id_len as usize);
        EntryRecord {
            ordinal: self.ordinal,
            id,
            size: self.size,
            offset: self.offset,
            checksum: self.checksum,
            tags: &rest[..self.tags_len as usize],
        }
    }
}

impl<'d> VolumeWriter<'d> {
    /// Begins a volume in a folder, which exists and whose own name is the caller's to make durable.
    ///
    /// # Errors
    /// [`Error::Io`], with [`AlreadyExists`](std::io::ErrorKind::AlreadyExists) if there is such a volume; [`Error::InvalidOption`]
    /// for a block without a length.
    pub fn create(disk: &'d dyn Vfs, folder: &Path, spec: VolumeSpec) -> Result<Self> {
        let files = Files::create(disk, folder, spec)?;
        let data = Data::create(&files)?;
        Ok(VolumeWriter { files, data, entries: Vec::new(), names: Vec::new() })
    }

    /// Adds a metric.
    ///
    /// # Errors
    /// [`Error::TooLong`] if one of them has 4 GiB or more; [`Error::UnfitForVolume`] if the tags are no encoded tags,
    /// or the volume is to have a supplement; [`Error::Io`]. A metric that comes twice is found by
    /// [`sync`](VolumeWriter::sync).
    pub fn append(&mut self, metric: MetricStream<'_>) -> Result<()> {
        self.put(metric, None)
    }

    /// Adds a metric to a volume that is to have a supplement. The statistics are taken as they are given: those of the
    /// stream's points.
    ///
    /// # Errors
    /// As for [`append`](VolumeWriter::append), but [`Error::UnfitForVolume`] if the volume is to have no supplement, and
    /// [`Error::TooLong`] with 2^32 - 1 points or more.
    pub fn append_numbered(
        &mut self,
        metric: MetricStream<'_>,
        metric_id: MetricId,
        statistics: &Statistics,
    ) -> Result<()> {
        self.put(metric, Some(Numbered { metric: metric_id, statistics }))
    }

    fn put(&mut self, metric: MetricStream<'_>, numbered: Option<Numbered<'_>>) -> Result<()> {
        let Some(record) = self.data.append(metric, numbered)? else { return Ok(()) };
        self.entries.push(Entry {
            ordinal: record.ordinal,
            offset: record.offset,
            names_at: self.names.len(),
            id_len: metric.id.len() as u32,
            tags_len: metric.tags.len() as u32,
            size: record.size,
            checksum: record.checksum,
        });
        self.names.extend_from_slice(metric.id);
        self.names.extend_from_slice(metric.tags);
        Ok(())
    }

    /// Writes the rest, and makes everything but the checkpoint durable: see [`SyncedVolume`].
    ///
    /// # Errors
    /// [`Error::UnfitForVolume`] if a metric came twice, or a metric id; [`Error::Io`].
    ///
    /// Cost: sorting the IDs, and the metric ids; 6 file syncs, one more for a supplement, and a folder sync.
    pub fn sync(mut self) -> Result<SyncedVolume<'d>> {
        let names = &self.names[..];
        let id = |entry: &Entry| entry.record(names).id;
        self.entries.sort_unstable_by(|a, b| id(a).cmp(id(b)));
        for (entry, next) in self.entries.iter().zip(self.entries.iter().skip(1)) {
            if id(entry) == id(next) {
                return Err(unfit(id(entry), "it is in the volume twice"));
            }
        }
        let mut index = Index::create(&self.files, self.entries.len() as u64)?;
        for entry in &self.entries {
            index.append(&entry.record(names))?;
        }
        self.files.sync(self.data, index)
    }

    /// Finishes the volume: [`sync`](VolumeWriter::sync) and [`publish`](SyncedVolume::publish).
    ///
    /// # Errors
    /// As for these two.
    pub fn finish(self) -> Result<()> {
        self.sync()?.publish()
    }
}

/// Writes a volume, metrics in ascending order of their IDs, and keeps none of them in memory.
///
/// Takes about a byte for each planned metric, and 68 for each metric if there is to be a supplement: its table is in
/// the order of metric ids, which is another. With the right plan the files are those that [`VolumeWriter`] makes of
/// the same metrics in this order.
#[derive(Debug)]
pub struct SortedVolumeWriter<'d> {
    files: Files<'d>,
    data: Data,
    index: Index,
    last_id: Option<Vec<u8>>,
}

impl<'d> SortedVolumeWriter<'d> {
    /// Begins a volume in a folder, which exists and whose own name is the caller's to make durable. `planned` is how
    /// many metrics are expected: with another number of them the volume is as sound, but its bloom filter is too
    /// large, or less selective.
    ///
    /// # Errors
    /// [`Error::Io`], with [`AlreadyExists`](std::io::ErrorKind::AlreadyExists) if there is such a volume; [`Error::InvalidOption`]
    /// for a block without a length.
    pub fn create(disk: &'d dyn Vfs, folder: &Path, spec: VolumeSpec, planned: u32) -> Result<Self> {
        let files = Files::create(disk, folder, spec)?;
        let data = Data::create(&files)?;
        let index = Index::create(&files, planned.into())?;
        Ok(SortedVolumeWriter { files, data, index, last_id: None })
    }

    /// Adds a metric.
    ///
    /// # Errors
    /// [`Error::UnfitForVolume`] unless the ID is above the one before, bytewise; nothing is added then.
    /// [`Error::TooLong`] if something has 4 GiB or more; [`Error::UnfitForVolume`] too if the tags are no encoded
    /// tags, or the volume is to have a supplement; [`Error::Io`].
    pub fn append(&mut self, metric: MetricStream<'_>) -> Result<()> {
        self.put(metric, None)
    }

    /// Adds a metric to a volume that is to have a supplement. The statistics are taken as they are given: those of the
    /// stream's points.
    ///
    /// # Errors
    /// As for [`append`](SortedVolumeWriter::append), but [`Error::UnfitForVolume`] if the volume is to have no supplement, and
    /// [`Error::TooLong`] with 2^32 - 1 points or more. Metric ids may come in any order.
    pub fn append_numbered(
        &mut self,
        metric: MetricStream<'_>,
        metric_id: MetricId,
        statistics: &Statistics,
    ) -> Result<()> {
        self.put(metric, Some(Numbered { metric: metric_id, statistics }))
    }

    fn put(&mut self, metric: MetricStream<'_>, numbered: Option<Numbered<'_>>) -> Result<()> {
        if self.last_id.as_ref().is_some_and(|last| metric.id <= &last[..]) {
            return Err(unfit(metric.id, "it comes after an ID that is not below it"));
        }
        if let Some(record) = self.data.append(metric, numbered)? {
            self.index.append(&record)?;
        }
        let last = self.last_id.get_or_insert_default();
        last.clear();
        last.extend_from_slice(metric.id);
        Ok(())
    }

    /// Writes the rest, and makes everything but the checkpoint durable: see [`SyncedVolume`].
    ///
    /// # Errors
    /// [`Error::UnfitForVolume`] if a metric id came twice; [`Error::Io`].
    ///
    /// Cost: 6 file syncs and a folder sync; for a supplement, sorting the metric ids and one more file sync.
    pub fn sync(self) -> Result<SyncedVolume<'d>> {
        self.files.sync(self.data, self.index)
    }

    /// Finishes the volume: [`sync`](SortedVolumeWriter::sync) and [`publish`](SyncedVolume::publish).
    ///
    /// # Errors
    /// As for these two.
    pub fn finish(self) -> Result<()> {
        self.sync()?.publish()
    }
}

/// A volume that is on disk for good, but does not exist before [`publish`](SyncedVolume::publish).
///
/// Other files that belong to it can be made durable in between.
#[derive(Debug)]
#[must_use = "the volume does not exist before it is published"]
pub struct SyncedVolume<'d> {
    files: Files<'d>,
    digests_checksum: u32,
}

impl SyncedVolume<'_> {
    /// Writes the checkpoint: under another name, synced, renamed, and the folder synced.
    ///
    /// # Errors
    /// [`Error::Io`]. Then the volume is there whole, or not at all.
    pub fn publish(self) -> Result<()> {
        let Files { disk, place, .. } = &self.files;
        let unfinished = place.unfinished_checkpoint();
        let mut checkpoint = Output::create(*disk, &unfinished)?;
        checkpoint.append(&self.digests_checksum.to_le_bytes())?;
        checkpoint.sync()?;
        disk.rename(&unfinished, &place.path(VolumeFile::Checkpoint))?;
        disk.sync_dir(place.folder())
    }
}

/// Removes the files of a volume, complete or not, the supplement too, and those of old names (volume 0 may have some, from before
/// M3 had volumes): the checkpoint first, for good, so that at no time there is half a volume.
///
/// It is no error if there are none, or no folder. Mappings of a volume that is open stay as they are.
///
/// # Errors
/// [`Error::Io`]. Then the volume is there whole, or not at all; call again to remove the rest.
pub fn remove_volume(disk: &dyn Vfs, folder: &Path, name: VolumeName) -> Result<()> {
    let place = Place::new(folder, name);
    let legacy = place.legacy();
    remove_places(disk, &place, legacy.as_slice())
}

/// As [`remove_volume`], but only files that a writer here makes, under no old name.
pub(crate) fn remove_written(disk: &dyn Vfs, folder: &Path, name: VolumeName) -> Result<()> {
    remove_places(disk, &Place::new(folder, name), &[])
}

fn remove_places(disk: &dyn Vfs, place: &Place, legacy: &[Place]) -> Result<()> {
    let places = || legacy.iter().chain([place]);
    for place in places() {
        disk.remove(&place.path(VolumeFile::Checkpoint))?;
    }
    match disk.sync_dir(place.folder()) {
        Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => return Ok(()),
        synced => synced?,
    }
    disk.remove(&place.unfinished_checkpoint())?;
    for (place, file) in places().flat_map(|place| VolumeFile::ALL.map(|file| (place, file))) {
        disk.remove(&place.path(file))?;
    }
    // The last: as long as there are others, it tells whose they are.
    disk.remove(&place.supplement())?;
    disk.sync_dir(place.folder())
}

/// Where the files of a volume go.
#[derive(Debug)]
struct Files<'d> {
    disk: &'d dyn Vfs,
    place: Place,
    spec: VolumeSpec,
}

impl<'d> Files<'d> {
    /// Makes way for a volume.
    fn create(disk: &'d dyn Vfs, folder: &Path, spec: VolumeSpec) -> Result<Self> {
        if spec.block_size <= 0 {
            return Err(Error::InvalidOption {
                option: "block_size",
                reason: "a block has a length above 0",
            });
        }
        let place = Place::find(disk, folder, spec.name)?;
        if place.is_complete(disk)? {
            let exists = std::io::ErrorKind::AlreadyExists;
            return Err(Error::io("create", place.path(VolumeFile::Checkpoint), exists.into()));
        }
        if place.has_files(disk)? {
            remove_written(disk, folder, spec.name)?;
        }
        Ok(Files { disk, place: Place::new(folder, spec.name), spec })
    }

    fn output(&self, file: VolumeFile) -> Result<Output> {
        let output = Output::create(self.disk, &self.place.path(file))?;
        Ok(output.with_crc(self.spec.supplement.is_some()))
    }

    /// Writes the files that remain and makes all but the checkpoint durable.
    fn sync(self, mut data: Data, index: Index) -> Result<SyncedVolume<'d>> {
        if let Some(supplement) = &mut data.supplement {
            supplement.sort()?;
        }
        let VolumeSpec { name, block_size, snapshot, .. } = self.spec;
        let info = VolumeInfo {
            block_start: name.block_start,
            block_size,
            entries: index.entries,
            summaries: index.summaries_entries,
            bloom: index.bloom.shape(),
            snapshot,
            volume: name.volume,
            checksums_entries: true,
        };
        let mut info_output = self.output(VolumeFile::Info)?;
        info_output.append(&info.encode())?;
        let mut bloom_output = self.output(VolumeFile::BloomFilter)?;
        bloom_output.append(index.bloom.bytes())?;
        let five = [
            info_output.sync()?,
            index.output.sync()?,
            index.summaries.sync()?,
            bloom_output.sync()?,
            data.output.sync()?,
        ];
        // Not before: where a write failed they differ, and that was an error by now.
        debug_assert_eq!(data.entries, info.entries);
        let mut digest_output = self.output(VolumeFile::Digest)?;
        digest_output.append(five.map(|file| file.adler.to_le_bytes()).as_flattened())?;
        let digest = digest_output.sync()?;
        let digests_checksum = digest.adler;
        if let Some(supplement) = data.supplement {
            // The checkpoint follows from the digest file: its sum is known before it is there.
            let checkpoint = FileSum::of(&digests_checksum.to_le_bytes());
            let [info, index, summaries, bloom, data] = five.map(|file| file.sum);
            let files = [info, index, summaries, bloom, data, digest.sum, checkpoint];
            supplement.write(&self.spec, files)?;
        }
        self.disk.sync_dir(self.place.folder())?;
        Ok(SyncedVolume { files: self, digests_checksum })
    }
}

/// The data file being written.
#[derive(Debug)]
struct Data {
    output: Output,
    entries: u64,
    /// The supplement, if there is to be one: it has a row for each stream.
    supplement: Option<SupplementBuilder>,
}

impl Data {
    fn create(files: &Files<'_>) -> Result<Self> {
        // The first of all files: it tells whose they are.
        let create =
            |spec| SupplementBuilder::create(files.disk, &files.place.supplement(), &files.spec, spec);
        let supplement = files.spec.supplement.map(create).transpose()?;
        Ok(Data { output: files.output(VolumeFile::Data)?, entries: 0, supplement })
    }

    /// Appends a stream and returns its index entry; nothing for an empty one.
    fn append<'a>(
        &mut self,
        metric: MetricStream<'a>,
        numbered: Option<Numbered<'_>>,
    ) -> Result<Option<EntryRecord<'a>>> {
        let MetricStream { id, tags, stream } = metric;
        length("a metric ID", id)?;
        length("encoded tags", tags)?;
        let size = length("a stream", stream)?;
        if decode_tags(tags).is_err() {
            return Err(unfit(id, "its tags are no encoded tags; encode_tags makes them"));
        }
        if size == 0 {
            return Ok(None);
        }
        numbered.map_or(Ok(()), Numbered::check)?;
        let row = match (&mut self.supplement, numbered) {
            (None, None) => None,
            (Some(supplement), Some(numbered)) => Some((supplement, numbered)),
            (None, Some(_)) => {
                return Err(unfit(id, "the volume has no supplement for its metric id"));
            }
            (Some(_), None) => return Err(unfit(id, "the volume's supplement needs its metric id")),
        };
        let checksum = simd_adler32::adler32(&stream);
        let record =
            EntryRecord { ordinal: self.entries, id, size, offset: self.output.len(), checksum, tags };
        self.output.append(stream)?;
        self.entries += 1;
        if let Some((supplement, numbered)) = row {
            supplement.add(&record, stream, numbered);
        }
        Ok(Some(record))
    }
}

/// The files that are in the order of the IDs, being written.
#[derive(Debug)]
struct Index {
    output: Output,
    summaries: Output,
    bloom: BloomBuilder,
    entries: u64,
    summaries_entries: u64,
    /// Every so many entries there is one in the summaries.
    summary_every: u64,
    scratch: Vec<u8>,
}

impl Index {
    /// The files, of the shape for so many entries.
    fn create(files: &Files<'_>, planned: u64) -> Result<Self> {
        Ok(Index {
            output: files.output(VolumeFile::Index)?,
            summaries: files.output(VolumeFile::Summaries)?,
            bloom: BloomBuilder::new(BloomShape::for_entries(planned)),
            entries: 0,
            summaries_entries: 0,
            summary_every: summary_every(planned),
            scratch: Vec::new(),
        })
    }

    fn append(&mut self, record: &EntryRecord<'_>) -> Result<()> {
        let index_offset = self.output.len();
        self.scratch.clear();
        record.encode_into(&mut self.scratch);
        self.output.append(&self.scratch)?;
        if self.entries.is_multiple_of(self.summary_every) {
            self.scratch.clear();
            SummaryRecord { ordinal: record.ordinal, id: record.id, index_offset }
                .encode_into(&mut self.scratch);
            self.summaries.append(&self.scratch)?;
            self.summaries_entries += 1;
        }
        self.bloom.add(record.id);
        self.entries += 1;
        Ok(())
    }
}

/// How far the entries of the summaries lie apart. As M3 computes it: rounding is part of the format.
fn summary_every(entries: u64) -> u64 {
    let entries = entries.max(1) as f64;
    (entries / (entries * SUMMARIES_SHARE)).floor().max(1.0) as u64
}

fn length(what: &'static str, bytes: &[u8]) -> Result<u32> {
    let max = u32::MAX;
    u32::try_from(bytes.len()).map_err(|_| Error::TooLong { what, len: bytes.len(), max: max as usize })
}

fn unfit(id: &[u8], reason: &'static str) -> Error {
    Error::UnfitForVolume { id: id.escape_ascii().to_string(), reason }
}
