//! Opening a volume: its files, one after the other, each checked by the one before.
//!
//! The checkpoint vouches for the digest file, which vouches for the others and for the supplement's being theirs. What
//! is damaged is noted and passed over; whoever opens decides what can be done without.

use std::io::ErrorKind;

use super::bloom_filter::BloomFilter;
use super::damage::Damage;
use super::name::{CHECKPOINT_BYTES, Place, VolumeFile, VolumeName};
use super::record::VolumeInfo;
use super::summaries::Summaries;
use super::supplement::{Contents, FILES, Fault, FileSum, Witness};
use crate::error::Result;
use crate::io::{Mapping, Vfs};

/// Files with a digest.
const DIGESTS: usize = 5;
const DIGEST_FILE_BYTES: usize = 4 * DIGESTS;

/// What is wrong with a file that is not as its digest says.
pub(super) const NO_MATCH: &str = "the file's checksum differs from that in the digest file";

const MISSING: Damage = Damage { offset: 0, reason: "the file is missing" };

/// A volume being opened.
pub(super) struct Opening<'d> {
    disk: &'d dyn Vfs,
    pub(super) place: Place,
    /// `None` if they are damaged.
    pub(super) digests: Option<Digests>,
    /// What was found so far, in the order of checking.
    pub(super) damage: Vec<(VolumeFile, Damage)>,
    /// Of the files that were read whole and are not kept, for [`Volume::verify`](super::Volume::verify): info, digest
    /// file and checkpoint.
    pub(super) sums: [Option<FileSum>; FILES],
}

impl<'d> Opening<'d> {
    /// Begins with checkpoint and digest file.
    pub(super) fn new(disk: &'d dyn Vfs, place: Place) -> Result<Self> {
        let mut opening = Opening { disk, place, digests: None, damage: Vec::new(), sums: [None; FILES] };
        opening.read_digests()?;
        Ok(opening)
    }

    fn read_digests(&mut self) -> Result<()> {
        let Some(checkpoint) = self.map_summed(VolumeFile::Checkpoint)? else { return Ok(()) };
        let Ok(checkpoint) = <[u8; CHECKPOINT_BYTES as usize]>::try_from(&checkpoint[..]) else {
            let damage = Damage::at(checkpoint.len(), "not 4 bytes long: the volume is incomplete");
            self.damage.push((VolumeFile::Checkpoint, damage));
            return Ok(());
        };
        let Some(digests) = self.map_summed(VolumeFile::Digest)? else { return Ok(()) };
        let digests = Digests::decode(&digests, u32::from_le_bytes(checkpoint));
        self.digests = self.sound(VolumeFile::Digest, digests);
        Ok(())
    }

    /// What the info file says, if it is sound.
    pub(super) fn read_info(&mut self) -> Result<Option<VolumeInfo>> {
        let Some(bytes) = self.map_checked(VolumeFile::Info)? else { return Ok(None) };
        self.note_sum(VolumeFile::Info, &bytes);
        let VolumeName { block_start, volume } = self.place.name;
        let info = VolumeInfo::decode(&bytes).and_then(|info| {
            let is_right = (info.block_start, info.volume) == (block_start, volume);
            if is_right { Ok(info) } else { Err(Damage::at(0, "it is about another volume than its name")) }
        });
        Ok(self.sound(VolumeFile::Info, info))
    }

    /// The first damage so far, as an error.
    pub(super) fn refuse_damage(&self) -> Result<()> {
        match self.damage.first() {
            Some((file, damage)) => Err(damage.of(&self.place.path(*file))),
            None => Ok(()),
        }
    }

    /// The summaries, if they are sound; without digests, if they can be read.
    pub(super) fn read_summaries(&mut self, info: Option<&VolumeInfo>) -> Result<Option<Summaries>> {
        let file = VolumeFile::Summaries;
        let bytes = if self.digests.is_some() { self.map_checked(file)? } else { self.map(file)? };
        let summaries = bytes.map(|bytes| Summaries::read(bytes, info.map(|info| info.summaries)));
        Ok(summaries.and_then(|summaries| self.sound(file, summaries)))
    }

    /// The bloom filter, if it and the info file are sound.
    pub(super) fn read_bloom(&mut self, info: Option<&VolumeInfo>) -> Result<Option<BloomFilter<Mapping>>> {
        let bytes = self.map_checked(VolumeFile::BloomFilter)?;
        let bloom = bytes.zip(info).map(|(bytes, info)| BloomFilter::new(info.bloom, bytes));
        Ok(bloom.and_then(|bloom| self.sound(VolumeFile::BloomFilter, bloom)))
    }

    /// The supplement, if there is one and it belongs to these files; nothing for a volume without one. `salvaged`,
    /// index and data, may vouch for it where the digest file is lost.
    pub(super) fn read_supplement(
        &mut self,
        info: Option<&VolumeInfo>,
        salvaged: Option<[&[u8]; 2]>,
    ) -> Result<Option<Result<Contents, Fault>>> {
        let bytes = match self.disk.map(&self.place.supplement()) {
            Ok(bytes) => bytes,
            Err(error) if error.io_kind() == Some(ErrorKind::NotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        let digest = match self.sum(VolumeFile::Digest) {
            // It was not looked at where the checkpoint is damaged.
            None if salvaged.is_some() => self.disk_sum(VolumeFile::Digest)?,
            digest => digest,
        };
        let block_size = info.map(|info| info.block_size);
        let witness = Witness { name: self.place.name, block_size, digest, salvaged };
        Ok(Some(Contents::open(bytes, &witness)))
    }

    /// A file without which nothing can be read, unchecked.
    pub(super) fn need(&mut self, file: VolumeFile) -> Result<Mapping> {
        self.map(file)?.ok_or_else(|| MISSING.of(&self.place.path(file)))
    }

    /// A file as its digest says. Without digests there is none.
    fn map_checked(&mut self, file: VolumeFile) -> Result<Option<Mapping>> {
        let (Some(bytes), Some(digests)) = (self.map(file)?, self.digests) else { return Ok(None) };
        let checked = digests.check(file, &bytes).map(|()| bytes);
        Ok(self.sound(file, checked))
    }

    fn map_summed(&mut self, file: VolumeFile) -> Result<Option<Mapping>> {
        let bytes = self.map(file)?;
        if let Some(bytes) = &bytes {
            self.note_sum(file, bytes);
        }
        Ok(bytes)
    }

    fn note_sum(&mut self, file: VolumeFile, bytes: &[u8]) {
        if let Some(sum) = self.sums.get_mut(file.position()) {
            *sum = Some(FileSum::of(bytes));
        }
    }

    fn sum(&self, file: VolumeFile) -> Option<FileSum> {
        self.sums.get(file.position()).copied().flatten()
    }

    /// The sum of a file that may be missing, which is then nothing new.
    fn disk_sum(&self, file: VolumeFile) -> Result<Option<FileSum>> {
        match self.disk.map(&self.place.path(file)) {
            Ok(bytes) => Ok(Some(FileSum::of(&bytes))),
            Err(error) if error.io_kind() == Some(ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn map(&mut self, file: VolumeFile) -> Result<Option<Mapping>> {
        match self.disk.map(&self.place.path(file)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.io_kind() == Some(ErrorKind::NotFound) => Ok(self.sound(file, Err(MISSING))),
            Err(error) => Err(error),
        }
    }

    /// What is there, or nothing and a note.
    fn sound<T>(&mut self, file: VolumeFile, found: Result<T, Damage>) -> Option<T> {
        found.map_err(|damage| self.damage.push((file, damage))).ok()
    }
}

/// The checksums of whole files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digests([u32; DIGESTS]);

impl Digests {
    /// The digests in the digest file, whose own checksum is in the checkpoint.
    fn decode(bytes: &[u8], checkpoint: u32) -> Result<Self, Damage> {
        let Ok(digests) = <[u8; DIGEST_FILE_BYTES]>::try_from(bytes) else {
            return Err(Damage::at(bytes.len(), "not 20 bytes long"));
        };
        if simd_adler32::adler32(&bytes) != checkpoint {
            return Err(Damage::at(0, "the file's checksum differs from that in the checkpoint"));
        }
        let (digests, _) = digests.as_chunks();
        Ok(Digests(std::array::from_fn(|file| digests.get(file).copied().map_or(0, u32::from_le_bytes))))
    }

    /// Checks a whole file. Damage could be anywhere in it.
    pub(super) fn check(&self, file: VolumeFile, bytes: &[u8]) -> Result<(), Damage> {
        match self.0.get(file.position()) {
            Some(digest) if simd_adler32::adler32(&bytes) == *digest => Ok(()),
            _ => Err(Damage::at(0, NO_MATCH)),
        }
    }
}
