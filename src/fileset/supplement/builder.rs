//! A supplement being written.

use std::path::Path;

use super::super::output::Output;
use super::super::record::EntryRecord;
use super::super::writer::VolumeSpec;
use super::format::{FILES, FileSum, Head, Kind, PAGE, Section, SupplementSpec};
use super::page::{self, METRICS, MetricEntry, PageName, Row};
use super::statistics::Statistics;
use crate::error::{Error, Result};
use crate::io::Vfs;
use crate::names::MetricId;

/// What the table holds of a metric beside what the index does.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Numbered<'a> {
    pub(in super::super) metric: MetricId,
    pub(in super::super) statistics: &'a Statistics,
}

impl Numbered<'_> {
    /// Refuses what the table cannot hold.
    pub(in super::super) fn check(self) -> Result<()> {
        match self.statistics.points() {
            u32::MAX => Err(Error::TooLong {
                what: "a stream in points",
                len: u32::MAX as usize,
                max: u32::MAX as usize - 1,
            }),
            _ => Ok(()),
        }
    }
}

/// The table in memory, 68 bytes for each metric: metric ids come in another order than streams.
#[derive(Debug)]
pub(in super::super) struct SupplementBuilder {
    out: Output,
    spec: SupplementSpec,
    rows: Vec<Row>,
}

impl SupplementBuilder {
    /// Makes the file, with a head without sections: whoever finds the volume unfinished can tell whose it is.
    pub(in super::super) fn create(
        disk: &dyn Vfs,
        path: &Path,
        volume: &VolumeSpec,
        spec: SupplementSpec,
    ) -> Result<Self> {
        let out = Output::create_behind(disk, path, PAGE as u64)?;
        out.write_head(&head(volume, spec, out.len(), Vec::new()).encode())?;
        Ok(SupplementBuilder { out, spec, rows: Vec::new() })
    }

    /// Adds a metric, whose place the index entry has.
    pub(in super::super) fn add(&mut self, record: &EntryRecord<'_>, stream: &[u8], numbered: Numbered<'_>) {
        debug_assert_eq!(record.size as usize, stream.len());
        let Numbered { metric, statistics } = numbered;
        let crc = crc32fast::hash(stream);
        let (offset, size) = (record.offset, record.size);
        self.rows.push(Row::new(&MetricEntry { metric, offset, size, crc, statistics: *statistics }));
    }

    /// Sorts the table.
    ///
    /// # Errors
    /// [`Error::UnfitForVolume`] if a metric id came twice.
    pub(in super::super) fn sort(&mut self) -> Result<()> {
        self.rows.sort_unstable_by_key(|row| row.metric);
        match self.rows.iter().zip(self.rows.iter().skip(1)).find(|(row, next)| row.metric == next.metric) {
            None => Ok(()),
            Some((row, _)) => {
                let id = format!("with MetricId {}", row.metric);
                Err(Error::UnfitForVolume { id, reason: "it is in the volume twice" })
            }
        }
    }

    /// Writes the sorted table and the rest of the supplement, and makes it durable; its name is the folder's to sync.
    /// `files` are those beside it.
    pub(in super::super) fn write(self, volume: &VolumeSpec, files: [FileSum; FILES]) -> Result<()> {
        let [.., digest, _] = files;
        let mut out = self.out;
        let mut sections = Vec::new();
        let mut fences = Vec::new();
        let pages = (0..).zip(self.rows.chunks(METRICS)).map(|(page, rows)| {
            fences.extend(rows.first().map_or(0, |row| row.metric).to_le_bytes());
            page::encode(PageName { page, digest_crc: digest.crc }, rows)
        });
        sections.push(append(&mut out, Kind::Table, self.rows.len() as u64, pages)?);
        let fences_len = (fences.len() / 4) as u64;
        sections.push(append(&mut out, Kind::Fences, fences_len, [fences])?);
        sections.push(append(&mut out, Kind::Files, FILES as u64, files.map(FileSum::encode))?);
        let head = head(volume, self.spec, out.len(), sections);
        out.sync_with_head(&head.encode())
    }
}

fn head(volume: &VolumeSpec, spec: SupplementSpec, file_len: u64, sections: Vec<Section>) -> Head {
    Head { spec, name: volume.name, block_size: volume.block_size, file_len, sections }
}

/// Appends a section.
fn append(
    out: &mut Output,
    kind: Kind,
    entries: u64,
    parts: impl IntoIterator<Item: AsRef<[u8]>>,
) -> Result<Section> {
    let offset = out.len();
    let mut crc = crc32fast::Hasher::new();
    for part in parts {
        crc.update(part.as_ref());
        out.append(part.as_ref())?;
    }
    Ok(Section { kind: kind as u32, crc: crc.finalize(), offset, len: out.len() - offset, entries })
}
