//! Reading a volume.
//!
//! Nothing is believed before it was checked, and what is checked when follows from what it costs:
//! * Opening checks checkpoint, digest file, info, summaries and bloom filter. Without the first three there is no
//!   volume, unless it is to be salvaged; without one of the others reading is slower, and [`Volume::damage`] tells.
//! * Each entry of the index carries a checksum, which is verified when the entry is read. (Old volumes' entries do not: then opening
//!   checks the index as a whole.)
//! * Each stream has a checksum in its entry, which is verified when the stream is read.
//! * That an ID is absent because the index ends before it, only the index as a whole can show: it is checked when that
//!   is first asked.
//! * The supplement is this volume's if it knows its digest file, and is done without if not; its table is checked as it is read.
//!
//! Lengths and offsets are compared with what there is before they are used; nothing is allocated for them. Format:
//! `design/m3-fileset.md`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::bloom_filter::BloomFilter;
use super::damage::{Damage, text};
use super::msgpack::Reader;
use super::name::{Place, VolumeFile, VolumeName};
use super::opening::{Digests, NO_MATCH, Opening};
use super::record::{EntryRecord, VolumeInfo};
use super::summaries::Summaries;
use super::supplement::{Contents, FILES, Fault, FileSum, Supplement};
use super::tags::{Tag, decode_tags};
use crate::error::{Error, Result};
use crate::io::{Mapping, Vfs};

/// An open volume: the streams of many metrics for one block of time, by ID.
///
/// Its files are held by [`Vfs::map`], and stay readable when they are removed.
/// [`RealDisk::new`](crate::io::RealDisk::new) reads them into memory, which takes as much and as long as they are
/// large; [`RealDisk::mapping`](crate::io::RealDisk::mapping) maps their pages. Beside that it takes the offsets of the
/// summaries, 8 bytes for every 33rd metric.
#[derive(Debug)]
pub struct Volume {
    place: Place,
    index: Mapping,
    data: Mapping,
    /// `None` if damaged, as are the next three. The first two are so in a salvaged volume only.
    digests: Option<Digests>,
    info: Option<VolumeInfo>,
    /// Unchecked if there are no digests, and then good for finding entries behind damage only: those are checked.
    summaries: Option<Summaries>,
    bloom: Option<BloomFilter<Mapping>>,
    /// `None` if there is none, or it is damaged.
    supplement: Option<Contents>,
    /// What was found when the volume was opened, in the order of checking.
    damage: Vec<(VolumeFile, Damage)>,
    supplement_fault: Option<Fault>,
    /// Of files that were read when the volume was opened and are not kept.
    sums: [Option<FileSum>; FILES],
    /// Whether the index is as the digest file says, once that was asked.
    index_is_whole: OnceLock<bool>,
}

/// Where a metric's stream lies, as the index says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'v> {
    record: EntryRecord<'v>,
    /// Where in the index the entry begins.
    at: u64,
}

impl<'v> Entry<'v> {
    /// The metric's ID.
    pub fn id(&self) -> &'v [u8] {
        self.record.id
    }

    /// The metric's tags as bytes, empty if it has none; [`Volume::tags`] decodes them.
    pub fn encoded_tags(&self) -> &'v [u8] {
        self.record.tags
    }

    /// Which stream of the data file it is, counted from 0.
    pub fn ordinal(&self) -> u64 {
        self.record.ordinal
    }

    /// Where in the data file the stream begins.
    pub fn offset(&self) -> u64 {
        self.record.offset
    }

    /// Where in the index the entry begins.
    #[cfg(test)]
    pub(super) fn place(&self) -> u64 {
        self.at
    }

    /// The length of the stream in bytes.
    pub fn size(&self) -> u32 {
        self.record.size
    }

    /// The Adler-32 checksum of the stream.
    pub fn checksum(&self) -> u32 {
        self.record.checksum
    }
}

impl Volume {
    /// Opens a volume in a folder of one shard.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the volume is incomplete, if its checkpoint, digest file or info file is damaged, if its
    /// index or data are missing, or if the info file is about another volume. [`Error::Io`].
    ///
    /// Cost: reads all but index and data, of which it touches nothing if the disk maps pages.
    pub fn open(disk: &dyn Vfs, folder: &Path, name: VolumeName) -> Result<Self> {
        let mut opening = Opening::new(disk, Place::find(disk, folder, name)?)?;
        let info = opening.read_info()?;
        opening.refuse_damage()?;
        Volume::read(opening, info, false)
    }

    /// Opens the volume that a path names by any one of its files, its supplement included.
    ///
    /// # Errors
    /// [`Error::Io`] with [`InvalidInput`](std::io::ErrorKind::InvalidInput) if it is no name of a volume's file; otherwise as for
    /// [`Volume::open`].
    pub fn open_at(disk: &dyn Vfs, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match (VolumeName::of_file(path), path.parent()) {
            (Some(name), Some(folder)) => Volume::open(disk, folder, name),
            _ => {
                let reason = "not the name of a volume's file";
                Err(Error::io("open", path, std::io::Error::new(std::io::ErrorKind::InvalidInput, reason)))
            }
        }
    }

    /// Opens what is left of a volume, complete or not, as long as there are an index and data; [`Volume::damage`]
    /// tells what is wrong.
    ///
    /// Entries and streams carry checksums, so that what is read is right all the same. Without a sound checkpoint and
    /// digest file nothing tells where the index ended, and bloom filter and summaries are not used to find a metric:
    /// that reads the index from its beginning, and an ID behind its end is an error rather than absent. A supplement
    /// is used if it knows the digest file, or index and data.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if index or data are missing, or if it is an old volume, without checksums of entries, whose
    /// index is damaged. [`Error::Io`].
    pub fn salvage(disk: &dyn Vfs, folder: &Path, name: VolumeName) -> Result<Self> {
        let mut opening = Opening::new(disk, Place::find(disk, folder, name)?)?;
        let info = opening.read_info()?;
        Volume::read(opening, info, true)
    }

    /// Opens the files that [`Volume::open`] and [`Volume::salvage`] treat alike.
    fn read(mut opening: Opening<'_>, info: Option<VolumeInfo>, salvage: bool) -> Result<Self> {
        let index = opening.need(VolumeFile::Index)?;
        let data = opening.need(VolumeFile::Data)?;
        let is_old = info.as_ref().is_some_and(|info| !info.checksums_entries);
        if let Some(digests) = opening.digests.filter(|_| is_old) {
            let checked = digests.check(VolumeFile::Index, &index);
            checked.map_err(|damage| damage.of(&opening.place.path(VolumeFile::Index)))?;
        }
        let summaries = opening.read_summaries(info.as_ref())?;
        let bloom = opening.read_bloom(info.as_ref())?;
        let supplement = opening.read_supplement(info.as_ref(), salvage.then_some([&index, &data]))?;
        let (supplement, supplement_fault) = match supplement {
            None => (None, None),
            Some(Ok(contents)) => (Some(contents), None),
            Some(Err(fault)) => (None, Some(fault)),
        };
        let Opening { place, digests, damage, sums, .. } = opening;
        Ok(Volume {
            place,
            index,
            data,
            digests,
            info,
            summaries,
            bloom,
            supplement,
            damage,
            supplement_fault,
            sums,
            index_is_whole: OnceLock::new(),
        })
    }

    /// The stream of a metric, or `None` if the volume does not have it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the stream is damaged, or the part of the index where the ID belongs.
    ///
    /// Cost: for a metric that is absent mostly the bloom filter; otherwise a binary search, about 17 entries, and the
    /// stream's checksum.
    pub fn stream_of(&self, id: &[u8]) -> Result<Option<&[u8]>> {
        self.find(id)?.map(|entry| self.stream(&entry)).transpose()
    }

    /// The entry of a metric, or `None` if the volume does not have it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the part of the index where the ID belongs is damaged.
    pub fn find(&self, id: &[u8]) -> Result<Option<Entry<'_>>> {
        if self.bloom.as_ref().is_some_and(|bloom| !bloom.may_contain(id)) {
            return Ok(None);
        }
        let checked = self.summaries.as_ref().filter(|_| self.digests.is_some());
        let mut scan = Scan::new(self, checked.map_or(0, |summaries| summaries.scan_start(id)));
        while let Some(entry) = scan.step().map_err(|damage| self.corrupt(VolumeFile::Index, damage))? {
            if entry.id() >= id {
                return Ok((entry.id() == id).then_some(entry));
            }
        }
        // Nothing but the digest tells that this is where the index ended when it was written.
        self.check_index()?;
        Ok(None)
    }

    /// The stream of an entry of this volume.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the stream is damaged, or would lie outside the data file.
    pub fn stream(&self, entry: &Entry<'_>) -> Result<&[u8]> {
        let stream = self.checked_stream(entry.offset(), entry.size(), |stream| {
            match simd_adler32::adler32(&stream) == entry.checksum() {
                true => Ok(()),
                false => Err("the stream's checksum differs from that in the index"),
            }
        });
        stream.map_err(|damage| damage.of_stream(&self.path(VolumeFile::Data), Some(text(entry.id()))))
    }

    /// A part of the data file that passes a check.
    pub(super) fn checked_stream(
        &self,
        offset: u64,
        size: u32,
        check: impl FnOnce(&[u8]) -> Result<(), &'static str>,
    ) -> Result<&[u8], Damage> {
        let start = usize::try_from(offset).ok();
        let end = start.and_then(|start| start.checked_add(usize::try_from(size).ok()?));
        let stream = start.zip(end).and_then(|(start, end)| self.data.get(start..end));
        let checked = match stream {
            None => Err("the file ends before or within the stream"),
            Some(stream) => check(stream).map(|()| stream),
        };
        checked.map_err(|reason| Damage { offset, reason })
    }

    /// The data file, unchecked: for who keeps the place of a stream that was.
    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }

    /// What the volume's supplement has: streams by [`MetricId`](crate::MetricId), and statistics. `None` if the volume
    /// has no supplement, or one that is damaged or belongs to other files, which [`Volume::damage`] tells; then there
    /// are the names.
    pub fn supplement(&self) -> Option<Supplement<'_>> {
        self.supplement.as_ref().map(|contents| Supplement::new(self, contents))
    }

    /// The tags of an entry of this volume, in their order.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the bytes are no tags. Their checksum has been checked: they were written so.
    pub fn tags<'v>(&self, entry: &Entry<'v>) -> Result<Vec<Tag<'v>>> {
        decode_tags(entry.encoded_tags()).map_err(|damage| {
            let damage = Damage { offset: entry.at, reason: damage.reason };
            damage.of_stream(&self.path(VolumeFile::Index), Some(text(entry.id())))
        })
    }

    /// All entries, in the order of their IDs.
    ///
    /// A damaged entry yields [`Error::Corrupt`], and the iteration goes on with the next entry that the summaries name.
    pub fn entries(&self) -> Entries<'_> {
        Entries { scan: Scan::new(self, 0), sound: 0, state: State::Whole }
    }

    /// All entries, in the order of their streams in the data file; damage, as [`Volume::entries`] finds it, comes first.
    ///
    /// Cost: all sound entries in memory, 64 bytes each, and sorting them.
    pub fn entries_in_data_order(&self) -> impl Iterator<Item = Result<Entry<'_>>> {
        let (mut entries, mut damage) = (Vec::new(), Vec::new());
        for entry in self.entries() {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(error) => damage.push(error),
            }
        }
        entries.sort_unstable_by_key(Entry::offset);
        damage.into_iter().map(Err).chain(entries.into_iter().map(Ok))
    }

    /// What the info file says; `None` if it is damaged, which [`Volume::open`] does not let pass.
    pub fn info(&self) -> Option<&VolumeInfo> {
        self.info.as_ref()
    }

    /// The volume's name.
    pub fn name(&self) -> VolumeName {
        self.place.name
    }

    /// The path of one of the volume's files.
    pub fn path(&self, file: VolumeFile) -> PathBuf {
        self.place.path(file)
    }

    /// The path of the volume's supplement, whether there is one or not.
    pub fn supplement_path(&self) -> PathBuf {
        self.place.supplement()
    }

    /// What was found wrong when the volume was opened; after [`Volume::open`] that concerns summaries, bloom filter
    /// and supplement, without which reading goes on. Index, data and the supplement's table are checked as they are
    /// read, or by [`Volume::verify`].
    pub fn damage(&self) -> Vec<Error> {
        let files = self.damage.iter().map(|(file, damage)| self.corrupt(*file, *damage));
        let supplement = self.supplement_fault.map(|fault| fault.of(&self.place.supplement()));
        files.chain(supplement).collect()
    }

    /// Reads everything and returns all that is wrong: damage, and files that do not belong together.
    ///
    /// Cost: the whole volume; all entries in memory.
    pub fn verify(&self) -> Vec<Error> {
        let mut errors = self.damage();
        for (file, bytes) in [(VolumeFile::Index, &self.index), (VolumeFile::Data, &self.data)] {
            let checked = self.digests.map_or(Ok(()), |digests| digests.check(file, bytes));
            errors.extend(checked.err().map(|damage| self.corrupt(file, damage)));
        }
        for entry in self.entries() {
            let read = entry.and_then(|entry| self.stream(&entry).and_then(|_| self.tags(&entry)));
            errors.extend(read.err());
        }
        // Damaged files do not fit each other either, nor the supplement: that would be told twice.
        if errors.is_empty() {
            errors.extend(self.differing_sum().map(|(file, damage)| self.corrupt(file, damage)));
        }
        errors.extend(self.supplement().iter().flat_map(Supplement::verify));
        if errors.is_empty() {
            errors.extend(self.misfit().map(|(file, damage)| self.corrupt(file, damage)));
            let entries = self.entries_in_data_order().flatten();
            let streams = entries.map(|entry| (entry.offset(), entry.size()));
            errors.extend(self.supplement().and_then(|supplement| supplement.misfit(streams)));
        }
        errors
    }

    /// The first file that is not the one whose length and CRC-32 the supplement has.
    fn differing_sum(&self) -> Option<(VolumeFile, Damage)> {
        let expected = self.supplement.as_ref()?.files();
        VolumeFile::ALL.into_iter().zip(expected).zip(self.sums).find_map(|((file, expected), noted)| {
            let kept = || match file {
                VolumeFile::Index => Some(&self.index[..]),
                VolumeFile::Data => Some(&self.data[..]),
                VolumeFile::Summaries => self.summaries.as_ref().map(Summaries::bytes),
                VolumeFile::BloomFilter => self.bloom.as_ref().map(BloomFilter::bytes),
                VolumeFile::Info | VolumeFile::Digest | VolumeFile::Checkpoint => None,
            };
            let sum = noted.or_else(|| kept().map(FileSum::of));
            let damage = Damage::at(0, "the file's CRC-32 differs from that in the supplement");
            (sum != Some(*expected)).then_some((file, damage))
        })
    }

    /// The first place where files that are sound do not belong together.
    fn misfit(&self) -> Option<(VolumeFile, Damage)> {
        let mut end = 0;
        for (ordinal, entry) in (0..).zip(self.entries_in_data_order().flatten()) {
            let in_index = |reason| Some((VolumeFile::Index, Damage { offset: entry.at, reason }));
            if (entry.offset(), entry.ordinal()) != (end, ordinal) {
                return in_index("the streams do not lie one behind the other");
            }
            if self.bloom.as_ref().is_some_and(|bloom| !bloom.may_contain(entry.id())) {
                return in_index("the bloom filter lacks the ID");
            }
            end += u64::from(entry.size());
        }
        if end != self.data.len() as u64 {
            return Some((VolumeFile::Data, Damage { offset: end, reason: "bytes behind the last stream" }));
        }
        self.misplaced_summary().map(|damage| (VolumeFile::Summaries, damage))
    }

    /// The first entry of the summaries that does not lead to the entry of its ID.
    fn misplaced_summary(&self) -> Option<Damage> {
        self.summaries.as_ref()?.iter().find_map(|(at, summary)| {
            let entry = Scan::new(self, summary.index_offset).step().ok().flatten();
            let right =
                entry.is_some_and(|entry| (entry.id(), entry.ordinal()) == (summary.id, summary.ordinal));
            (!right).then_some(Damage { offset: at, reason: "the index has another ID there" })
        })
    }

    /// Checks the whole index, the first time it is asked.
    fn check_index(&self) -> Result<()> {
        let Some(digests) = self.digests else {
            let reason = "nothing tells whether this is the end of the index: its digest is damaged";
            return Err(self.corrupt(VolumeFile::Index, Damage::at(self.index.len(), reason)));
        };
        if *self.index_is_whole.get_or_init(|| digests.check(VolumeFile::Index, &self.index).is_ok()) {
            return Ok(());
        }
        Err(self.corrupt(VolumeFile::Index, Damage::at(self.index.len(), NO_MATCH)))
    }

    fn corrupt(&self, file: VolumeFile, damage: Damage) -> Error {
        damage.of(&self.place.path(file))
    }
}

/// Goes over the index in the order of the IDs: see [`Volume::entries`].
#[derive(Debug)]
pub struct Entries<'v> {
    scan: Scan<'v>,
    /// How many entries have been read.
    sound: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No damage so far, so that at the end the number of entries is known.
    Whole,
    /// Something was skipped.
    Damaged,
    Ended,
}

impl<'v> Iterator for Entries<'v> {
    type Item = Result<Entry<'v>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Ended {
            return None;
        }
        let volume = self.scan.volume;
        let at = self.scan.reader.at();
        let damage = match self.scan.step() {
            Ok(Some(entry)) => {
                self.sound += 1;
                return Some(Ok(entry));
            }
            Ok(None) => {
                let expected = volume.info.as_ref().map_or(self.sound, |info| info.entries);
                let is_short = self.state == State::Whole && self.sound != expected;
                self.state = State::Ended;
                let damage = Damage::at(at, "the number of entries differs from that in the info file");
                is_short.then_some(damage)?
            }
            Err(damage) => {
                let next = volume.summaries.as_ref().and_then(|summaries| summaries.next_offset(at as u64));
                self.state = if next.is_some() { State::Damaged } else { State::Ended };
                self.scan.jump(next.unwrap_or(volume.index.len() as u64));
                damage
            }
        };
        Some(Err(volume.corrupt(VolumeFile::Index, damage)))
    }
}

/// Reads entries of the index one after the other.
#[derive(Debug)]
struct Scan<'v> {
    volume: &'v Volume,
    reader: Reader<'v>,
    last_id: Option<&'v [u8]>,
}

impl<'v> Scan<'v> {
    fn new(volume: &'v Volume, offset: u64) -> Self {
        let mut scan = Scan { volume, reader: Reader::new(&volume.index, 0), last_id: None };
        scan.jump(offset);
        scan
    }

    fn jump(&mut self, offset: u64) {
        self.reader = Reader::new(&self.volume.index, usize::try_from(offset).unwrap_or(usize::MAX));
    }

    /// The next entry; `None` where the index ends.
    fn step(&mut self) -> Result<Option<Entry<'v>>, Damage> {
        if self.reader.is_at_end() {
            return Ok(None);
        }
        let at = self.reader.at();
        let checksummed = self.volume.info.as_ref().is_none_or(|info| info.checksums_entries);
        let record = EntryRecord::decode(&mut self.reader, checksummed)?;
        if self.last_id.is_some_and(|last| record.id <= last) {
            return Err(Damage::at(at, "the IDs do not ascend"));
        }
        self.last_id = Some(record.id);
        Ok(Some(Entry { record, at: at as u64 }))
    }
}
