//! A supplement that was opened.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::damage::Damage;
use super::super::name::VolumeName;
use super::format::{FILE_SUM, FILES, Fault, FileSum, Head, Kind, PAGE, Section, SupplementSpec};
use super::page::{METRICS, MetricEntry, Page, PageName};
use crate::io::Mapping;

/// What a supplement is compared with, to see whether it is this volume's.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Witness<'a> {
    pub(in super::super) name: VolumeName,
    /// `None` where the info file is damaged.
    pub(in super::super) block_size: Option<i64>,
    pub(in super::super) digest: Option<FileSum>,
    /// Index and data, which are looked at if there is no digest file of the right kind and the volume is to be salvaged.
    pub(in super::super) salvaged: Option<[&'a [u8]; 2]>,
}

/// A supplement's bytes, and which pages of the table have been checked.
#[derive(Debug)]
pub(in super::super) struct Contents {
    bytes: Mapping,
    head: Head,
    files: [FileSum; FILES],
    /// Where in `bytes` the table is.
    table: Range<usize>,
    /// Where in `bytes` the fences are: one for each page of the table, ascending.
    fences: Range<usize>,
    entries: u64,
    /// A bit for each page of the table, set when the page was found sound.
    ///
    /// Relaxed: the bytes never change, so that a thread that misses a bit checks the page again and finds the same.
    checked: Box<[AtomicU64]>,
}

impl Contents {
    /// Checks all but the table, which is looked at as it is used.
    pub(in super::super) fn open(bytes: Mapping, witness: &Witness<'_>) -> Result<Self, Fault> {
        let head = Head::decode(&bytes)?;
        if head.file_len != bytes.len() as u64 {
            return Err(Fault::at(bytes.len(), "its length differs from that in its head"));
        }
        let is_right_name = head.name == witness.name
            && witness.block_size.is_none_or(|block_size| head.block_size == block_size);
        if !is_right_name {
            return Err(Fault::at(0, "it is about another volume than its name"));
        }
        let files = read_files(&bytes, head.section(Kind::Files)?)?;
        if !belongs(&files, witness) {
            return Err(Fault::at(0, "it belongs to other files than those beside it"));
        }
        let table = head.section(Kind::Table)?;
        let fences = head.section(Kind::Fences)?;
        let pages = table.entries.div_ceil(METRICS as u64);
        let is_table = table.offset.is_multiple_of(PAGE as u64)
            && pages.checked_mul(PAGE as u64) == Some(table.len)
            && u32::try_from(pages).is_ok();
        if !is_table || fences.entries != pages || pages.checked_mul(4) != Some(fences.len) {
            return Err(Fault::at(0, "the lengths of table and fences contradict each other"));
        }
        let (fence_ids, _) = fences.checked(&bytes)?.as_chunks::<4>();
        if !fence_ids.is_sorted_by(|fence, next| u32::from_le_bytes(*fence) < u32::from_le_bytes(*next)) {
            return Err(Fault::Damaged(Damage { offset: fences.offset, reason: "the fences do not ascend" }));
        }
        let words = table.bytes(&bytes)?.len().div_ceil(PAGE).div_ceil(64);
        let range = |section: Section| section.offset as usize..(section.offset + section.len) as usize;
        let (table_at, fences) = (range(table), range(fences));
        let checked = (0..words).map(|_| AtomicU64::new(0)).collect();
        Ok(Contents { bytes, head, files, table: table_at, fences, entries: table.entries, checked })
    }

    pub(super) fn spec(&self) -> SupplementSpec {
        self.head.spec
    }

    /// The number of metrics.
    pub(super) fn len(&self) -> u64 {
        self.entries
    }

    /// What the volume's files are to be, in the order of `VolumeFile::ALL`.
    pub(in super::super) fn files(&self) -> &[FileSum; FILES] {
        &self.files
    }

    /// The entry of a metric.
    pub(super) fn find(&self, metric: u32) -> Result<Option<MetricEntry>, Damage> {
        let after = self.fences().partition_point(|fence| u32::from_le_bytes(*fence) <= metric);
        let Some(number) = after.checked_sub(1) else { return Ok(None) };
        let page = self.page(number)?;
        let entry = page.find(metric).and_then(|at| page.entry(at));
        entry.transpose().map_err(|damage| self.in_page(number, damage))
    }

    /// The entry in one place of the table, counted from 0, and the place to go on with: the next page's first if the
    /// whole page is damaged. `None` behind the end.
    pub(super) fn entry(&self, at: u64) -> Option<(Result<MetricEntry, Damage>, u64)> {
        if at >= self.entries {
            return None;
        }
        let per_page = METRICS as u64;
        let (number, place) = ((at / per_page) as usize, (at % per_page) as usize);
        match self.page(number) {
            Ok(page) => Some((page.entry(place)?.map_err(|damage| self.in_page(number, damage)), at + 1)),
            Err(damage) => Some((Err(damage), at - at % per_page + per_page)),
        }
    }

    /// The first section that differs from its checksum, of those that opening does not check, unknown kinds included.
    pub(in super::super) fn damaged_section(&self) -> Option<Fault> {
        self.head.sections.iter().find_map(|section| section.checked(&self.bytes).err())
    }

    fn fences(&self) -> &[[u8; 4]] {
        self.bytes.get(self.fences.clone()).unwrap_or_default().as_chunks().0
    }

    /// A page of the table, checked if nobody has yet.
    fn page(&self, number: usize) -> Result<Page<'_>, Damage> {
        let start = number * PAGE;
        let bytes = self.bytes.get(self.table.clone()).and_then(|table| table.get(start..)?.first_chunk());
        let (Some(bytes), Some(word)) = (bytes, self.checked.get(number / 64)) else {
            return Err(Damage::at(self.table.end, "the table ends before the page"));
        };
        let left = self.entries.saturating_sub((number * METRICS) as u64);
        let page = Page::new(bytes, usize::try_from(left).unwrap_or(METRICS));
        let bit = 1 << (number % 64);
        if word.load(Ordering::Relaxed) & bit == 0 {
            let mut fences = self.fences().iter().skip(number).map(|fence| u32::from_le_bytes(*fence));
            let [.., digest, _] = self.files;
            let name = PageName { page: number as u32, digest_crc: digest.crc };
            let checked = page.check(name, fences.next().unwrap_or(0), fences.next());
            checked.map_err(|reason| self.in_page(number, Damage { offset: 0, reason }))?;
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(page)
    }

    /// Damage of a page as damage of the file.
    fn in_page(&self, number: usize, damage: Damage) -> Damage {
        let page_at = (self.table.start as u64).saturating_add((number as u64).saturating_mul(PAGE as u64));
        Damage { offset: page_at.saturating_add(damage.offset), ..damage }
    }
}

fn read_files(bytes: &Mapping, section: Section) -> Result<[FileSum; FILES], Fault> {
    let wrong = Fault::Damaged(Damage { offset: section.offset, reason: "not the sums of seven files" });
    if (section.entries, section.len) != (FILES as u64, (FILES * FILE_SUM) as u64) {
        return Err(wrong);
    }
    let (sums, _) = section.checked(bytes)?.as_chunks();
    let sums: &[[u8; FILE_SUM]; FILES] = sums.try_into().map_err(|_| wrong)?;
    Ok(sums.each_ref().map(FileSum::decode))
}

/// Whether a supplement with these sums was written beside the volume's files.
fn belongs(sums: &[FileSum; FILES], witness: &Witness<'_>) -> bool {
    let [_, index, _, _, data, digest, _] = sums;
    witness.digest == Some(*digest)
        || witness.salvaged.is_some_and(|[found_index, found_data]| {
            (FileSum::of(found_index), FileSum::of(found_data)) == (*index, *data)
        })
}
