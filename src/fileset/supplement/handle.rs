//! Reading a volume by metric ids.

use super::super::damage::Damage;
use super::super::reader::Volume;
use super::contents::Contents;
use super::format::{Fault, SupplementSpec};
use super::page::MetricEntry;
use super::statistics::Statistics;
use crate::error::{Error, Result};
use crate::fileset::VolumeFile;
use crate::m3tsz::ValueCoding;
use crate::names::MetricId;

/// The supplement of an open volume: its streams by `MetricId`, and statistics of them. [`Volume::supplement`] gives it.
///
/// All streams of the volume are in it: a metric that is not has no points in the volume.
#[derive(Clone, Copy, Debug)]
pub struct Supplement<'v> {
    volume: &'v Volume,
    contents: &'v Contents,
}

impl<'v> Supplement<'v> {
    pub(in super::super) fn new(volume: &'v Volume, contents: &'v Contents) -> Self {
        Supplement { volume, contents }
    }

    /// Whose metric ids they are.
    pub fn spec(&self) -> SupplementSpec {
        self.contents.spec()
    }

    /// The number of metrics in the volume.
    pub fn metrics(&self) -> u64 {
        self.contents.len()
    }

    /// The stream of a metric, or `None` if the volume does not have it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the stream is damaged, or the page of the table where the metric belongs.
    ///
    /// Cost: two searches, one of them in 60 ids, and the stream's CRC-32; the page's too when it is first touched.
    pub fn stream_of(&self, metric: MetricId) -> Result<Option<&'v [u8]>> {
        self.find(metric)?.map(|entry| self.stream(&entry)).transpose()
    }

    /// The entry of a metric, statistics included, or `None` if the volume does not have it. Its stream is not touched.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the page of the table where the metric belongs is damaged.
    pub fn find(&self, metric: MetricId) -> Result<Option<MetricEntry>> {
        self.contents.find(metric.get()).map_err(|damage| self.corrupt(damage))
    }

    /// The stream of an entry of this volume.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the stream is damaged, or would lie outside the data file.
    pub fn stream(&self, entry: &MetricEntry) -> Result<&'v [u8]> {
        let stream = self.volume.checked_stream(entry.offset, entry.size, |stream| {
            match crc32fast::hash(stream) == entry.crc {
                true => Ok(()),
                false => Err("the stream's checksum differs from that in the supplement"),
            }
        });
        stream.map_err(|damage| {
            damage.of_stream(&self.volume.path(VolumeFile::Data), Some(number(entry.metric)))
        })
    }

    /// Decodes all streams, whose values are coded as `values` says, and returns where the statistics are not those of the points.
    /// [`Volume::verify`] does not: a volume does not say how its values are coded.
    ///
    /// Damage is not told here, but by [`Volume::verify`].
    pub fn verify_statistics(&self, values: ValueCoding) -> Vec<Error> {
        let mut errors = Vec::new();
        for entry in self.entries().flatten() {
            let Ok(stream) = self.stream(&entry) else { continue };
            if Statistics::of_stream(stream, values).is_ok_and(|statistics| statistics != entry.statistics) {
                let damage =
                    Damage { offset: 0, reason: "the statistics are not those of the stream's points" };
                errors.push(damage.of_stream(&self.volume.supplement_path(), Some(number(entry.metric))));
            }
        }
        errors
    }

    /// All entries, in the order of their metric ids.
    ///
    /// A damaged page yields one [`Error::Corrupt`], and the iteration goes on with the next page.
    pub fn entries(&self) -> MetricEntries<'v> {
        MetricEntries { supplement: *self, next: 0 }
    }

    /// Reads the table and all streams, and returns what is wrong with them.
    pub(in super::super) fn verify(&self) -> Vec<Error> {
        let mut errors = Vec::new();
        for entry in self.entries() {
            errors.extend(entry.and_then(|entry| self.stream(&entry)).err());
        }
        if errors.is_empty() {
            let fault = self.contents.damaged_section();
            errors.extend(fault.map(|fault| fault.of(&self.volume.supplement_path())));
        }
        errors
    }

    /// Whether the table has the streams of a volume's index, given with offset and size in the order of their offsets.
    pub(in super::super) fn misfit(&self, streams: impl Iterator<Item = (u64, u32)>) -> Option<Error> {
        let mut places: Vec<_> = self.entries().flatten().map(|entry| (entry.offset, entry.size)).collect();
        places.sort_unstable();
        let fits = places.into_iter().eq(streams);
        (!fits)
            .then(|| self.corrupt(Damage { offset: 0, reason: "the index has other streams than the table" }))
    }

    fn corrupt(&self, damage: Damage) -> Error {
        Fault::Damaged(damage).of(&self.volume.supplement_path())
    }
}

/// A metric in errors, of which no more is known than its number.
fn number(metric: MetricId) -> Box<str> {
    format!("number {}", metric.get()).into()
}

/// Goes over the table in the order of the metric ids: see [`Supplement::entries`].
#[derive(Debug)]
pub struct MetricEntries<'v> {
    supplement: Supplement<'v>,
    /// The place of the next entry.
    next: u64,
}

impl Iterator for MetricEntries<'_> {
    type Item = Result<MetricEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        let contents = self.supplement.contents;
        let (entry, next) = contents.entry(self.next)?;
        self.next = next;
        Some(entry.map_err(|damage| self.supplement.corrupt(damage)))
    }
}
