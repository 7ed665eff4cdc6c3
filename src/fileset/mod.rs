//! M3's fileset volumes: the compressed streams of many metrics for one block of time, in seven files. Usable without a database.
//!
//! A volume lies in the folder of its shard, `NAMESPACE/SHARD/`. [`VolumeFolder`] lists what is there, [`Volume`] reads one,
//! [`VolumeWriter`] and [`SortedVolumeWriter`] write one. M3 reads what is written here, and the other way round; points are in M3TSZ
//! ([`m3tsz`](crate::m3tsz)), and how their values are coded the namespace knows, not the volume.
//!
//! What it guarantees
//! * A volume is there whole or not at all, after a power cut at any moment.
//! * What is read was checked before. Damage is [`Error::Corrupt`](crate::Error::Corrupt) with file and offset, never wrong data and never
//!   a panic, and what it did not touch stays readable.
//! * The files are byte for byte what M3 writes, for the same metrics in the same order.
//!
//! What it relies on: the four sentences of [`io`](crate::io), and that nobody changes the files of a complete volume. A volume has one
//! writer; nothing here locks. A [`Volume`] may be shared between threads.
//!
//! The checksums are Adler-32, M3's choice: it notices every single changed byte, but is weak against many changes in a few bytes.
//!
//! Parts: `name` (file names and folders), `record` and `msgpack` (the records of three of the files), `tags`, `bloom_filter` and `murmur3`;
//! `opening`, `summaries` and `reader`; `output` and `writer`. Format: `design/m3-fileset.md`.

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
mod tags;
#[cfg(test)]
mod tests;
mod writer;

pub use bloom_filter::BloomShape;
pub use name::{VolumeFile, VolumeFolder, VolumeName};
pub use reader::{Entries, Entry, Volume};
pub use record::{SnapshotMark, VolumeInfo};
pub use tags::{Tag, encode_tags};
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
