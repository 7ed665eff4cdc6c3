//! M3's fileset volumes: the compressed streams of many metrics for one block of time, in seven files, and beside them
//! one of our own. Usable without a database.
//!
//! A volume lies in the folder of its shard, `NAMESPACE/SHARD/`. [`VolumeFolder`] lists what is there, [`Volume`] reads one,
//! [`VolumeWriter`] and [`SortedVolumeWriter`] write one. M3 reads what is written here, and the other way round; points are in M3TSZ
//! ([`m3tsz`](crate::m3tsz)), and how their values are coded the namespace knows, not the volume.
//!
//! A volume may have a [`Supplement`], an eighth file, which M3 passes over: its streams by
//! [`MetricId`](crate::MetricId), statistics of their points, and CRC-32 of everything. Without it, or with a damaged
//! one, a volume is read by name.
//!
//! ```
//! use chronolith::MetricId;
//! use chronolith::fileset::{
//!     MetricStream, Statistics, SupplementSpec, Volume, VolumeName, VolumeSpec, VolumeWriter,
//! };
//! use chronolith::io::RealDisk;
//! use chronolith::m3tsz::{Encoder, EncoderOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temp = tempfile::tempdir()?;
//! # let folder = temp.path();
//! let start = 1_700_006_400_000_000_000;
//! let (timestamps, values) = ([start, start + 15_000_000_000], [0.25, 0.75]);
//! let mut encoder = Encoder::new(start, EncoderOptions::default());
//! encoder.append_all(&timestamps, &values)?;
//! let mut stream = Vec::new();
//! encoder.finish_into(&mut stream);
//!
//! let disk = RealDisk::new();
//! let name = VolumeName { block_start: start, volume: 0 };
//! let supplement = Some(SupplementSpec { database_id: [0; 16], freeze_version: 0 });
//! let spec = VolumeSpec { name, block_size: 7_200_000_000_000, snapshot: None, supplement };
//! let mut writer = VolumeWriter::create(&disk, folder, spec)?;
//! let statistics = Statistics::of_points(timestamps.into_iter().zip(values));
//! let metric = MetricStream { id: b"load", tags: b"", stream: &stream };
//! writer.append_numbered(metric, MetricId::from(7), &statistics)?;
//! writer.finish()?;
//!
//! let volume = Volume::open(&disk, folder, name)?;
//! assert_eq!(volume.stream_of(b"load")?, Some(&stream[..]));
//! let supplement = volume.supplement().ok_or("it was written")?;
//! let entry = supplement.find(MetricId::from(7))?.ok_or("it was written")?;
//! assert_eq!(entry.statistics.numbers().map(|numbers| numbers.sum), Some(1.0));
//! # Ok(())
//! # }
//! ```
//!
//! What it guarantees
//! * A volume is there whole or not at all, after a power cut at any moment.
//! * What is read was checked before. Damage is [`Error::Corrupt`](crate::Error::Corrupt) with file, offset and, where
//!   it is one metric's, the metric; never wrong data and never a panic, and what it did not touch stays readable.
//! * The files are byte for byte what M3 writes, for the same metrics in the same order.
//!
//! What it relies on: the four sentences of [`io`](crate::io), and that nobody changes the files of a complete volume.
//! A volume has one writer; nothing here locks. A [`Volume`] may be shared between threads.
//!
//! The checksums are Adler-32, M3's choice: it notices every single changed byte, but is weak against many changes in a
//! few bytes. The supplement has CRC-32 of streams and files.
//!
//! Parts: `name` (file names and folders), `record` and `msgpack` (the records of three of the files), `tags`,
//! `bloom_filter` and `murmur3`; `opening`, `summaries` and `reader`; `output` and `writer`; `supplement`. Formats:
//! `design/m3-fileset.md`, `design/supplement.md`.

mod bloom_filter;
mod damage;
mod msgpack;
mod murmur3;
mod name;
mod opening;
mod output;
mod reader;
mod record;
mod summaries;
mod supplement;
mod tags;
#[cfg(test)]
mod tests;
mod writer;

pub use bloom_filter::BloomShape;
pub(crate) use damage::Damage;
pub(crate) use msgpack::Reader;
pub use name::{VolumeFile, VolumeFolder, VolumeName};
pub use reader::{Entries, Entry, Volume};
pub use record::{SnapshotMark, VolumeInfo};
pub use supplement::{
    MetricEntries, MetricEntry, Numbers, Statistics, Supplement, SupplementSpec, read_supplement_spec,
};
pub(crate) use tags::decode_tags;
pub use tags::{Tag, encode_tags};
pub(crate) use writer::remove_written;
pub use writer::{MetricStream, SortedVolumeWriter, SyncedVolume, VolumeSpec, VolumeWriter, remove_volume};

/// How metrics are spread over shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharding {
    /// The number of shards; 0 counts as 1.
    pub shards: u32,
    /// The seed of the hash: 0 unless M3 is configured otherwise.
    pub seed: u32,
}

impl Sharding {
    /// The shard of a metric: MurmurHash3 (32 bits) of its ID, modulo the number of shards.
    pub fn shard_of(self, id: &[u8]) -> u32 {
        murmur3::murmur3_32(id, self.seed).checked_rem(self.shards).unwrap_or(0)
    }
}
