//! Pages of the table: 60 metrics each, ids first.

use super::super::damage::Damage;
use super::fields::{Fields, FieldsMut};
use super::format::PAGE;
use super::statistics::Statistics;
use crate::names::MetricId;

/// Metrics to a page.
pub(super) const METRICS: usize = 60;

const CRC: usize = 4;
const IDS_AT: usize = 16;
const ID: usize = 4;
const RECORDS_AT: usize = 256;
const RECORD: usize = 64;
const STATISTICS_AT: usize = 8;
const SIZE_AT: usize = 48;
const COUNTS_AT: usize = 56;
const _: () = assert!(IDS_AT + METRICS * ID == RECORDS_AT && RECORDS_AT + METRICS * RECORD == PAGE);

/// A metric's stream in a volume, as the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricEntry {
    /// The metric.
    pub metric: MetricId,
    /// Where in the data file the stream begins.
    pub offset: u64,
    /// The length of the stream in bytes.
    pub size: u32,
    /// The CRC-32 of the stream.
    pub crc: u32,
    /// What the stream's points are like.
    pub statistics: Statistics,
}

/// An entry as bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) metric: u32,
    record: [u8; RECORD],
}

impl Row {
    pub(super) fn new(entry: &MetricEntry) -> Self {
        let mut record = [0; RECORD];
        let mut fields = FieldsMut(&mut record);
        fields.put(entry.offset.to_le_bytes());
        entry.statistics.put_extent(&mut fields);
        fields.put(entry.size.to_le_bytes());
        fields.put(entry.crc.to_le_bytes());
        entry.statistics.put_counts(&mut fields);
        Row { metric: entry.metric.get(), record }
    }
}

/// Which page it is: its number in the table, and the CRC-32 of the volume's digest file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageName {
    pub(super) page: u32,
    pub(super) digest_crc: u32,
}

/// A page of up to 60 rows, ascending.
pub(super) fn encode(name: PageName, rows: &[Row]) -> [u8; PAGE] {
    debug_assert!(!rows.is_empty() && rows.len() <= METRICS && rows.is_sorted_by_key(|row| row.metric));
    let mut bytes = [0; PAGE];
    let mut fields = FieldsMut(&mut bytes);
    fields.skip(CRC);
    fields.put(name.page.to_le_bytes());
    fields.put(name.digest_crc.to_le_bytes());
    fields.skip(4);
    rows.iter().for_each(|row| fields.put(row.metric.to_le_bytes()));
    fields.skip((METRICS - rows.len()) * ID);
    rows.iter().for_each(|row| fields.put(row.record));
    let crc = crc(&bytes);
    FieldsMut(&mut bytes).put(crc.to_le_bytes());
    bytes
}

fn crc(bytes: &[u8; PAGE]) -> u32 {
    crc32fast::hash(bytes.get(CRC..).unwrap_or_default())
}

/// A page that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page<'a> {
    bytes: &'a [u8; PAGE],
    /// How many metrics are in it.
    len: usize,
}

impl<'a> Page<'a> {
    /// A page of `len` metrics. Nothing of it has been looked at.
    pub(super) fn new(bytes: &'a [u8; PAGE], len: usize) -> Self {
        Page { bytes, len: len.min(METRICS) }
    }

    /// Checks all but the statistics: the checksum, that it is the page it should be, and that its ids ascend, begin with `first` and
    /// end before `next`.
    pub(super) fn check(&self, name: PageName, first: u32, next: Option<u32>) -> Result<(), &'static str> {
        let mut head = Fields(self.bytes);
        let stored = head.u32();
        if stored != crc(self.bytes) {
            return Err("the page's checksum differs");
        }
        if (PageName { page: head.u32(), digest_crc: head.u32() }) != name {
            return Err("a page of another place or volume");
        }
        let ids = || self.ids().iter().map(|id| u32::from_le_bytes(*id));
        if !ids().zip(ids().skip(1)).all(|(id, next)| id < next) {
            return Err("the metric ids do not ascend");
        }
        if ids().next() != Some(first) || next.is_some_and(|next| ids().next_back() >= Some(next)) {
            return Err("the metric ids do not lie between the page's fences");
        }
        Ok(())
    }

    /// Which of the page's entries is a metric's.
    #[inline]
    pub(super) fn find(&self, metric: u32) -> Option<usize> {
        let ids = self.ids();
        // Counting all of them takes no branches, and a few vector instructions.
        let below = ids.iter().filter(|id| u32::from_le_bytes(**id) < metric).count();
        ids.get(below).filter(|id| u32::from_le_bytes(**id) == metric).map(|_| below)
    }

    /// The entry in one of the page's places; `None` behind the last. Damage lies at an offset in the page.
    #[inline]
    pub(super) fn entry(&self, at: usize) -> Option<Result<MetricEntry, Damage>> {
        let metric = MetricId(u32::from_le_bytes(*self.ids().get(at)?));
        let start = RECORDS_AT + at * RECORD;
        let record = self.bytes.get(start..)?.first_chunk::<RECORD>()?;
        let part = |at| Fields(record.get(at..).unwrap_or_default());
        let Some(statistics) = Statistics::decode(&mut part(STATISTICS_AT), &mut part(COUNTS_AT)) else {
            return Some(Err(Damage::at(start, "statistics that no points have")));
        };
        let mut sizes = part(SIZE_AT);
        let (size, crc) = (sizes.u32(), sizes.u32());
        if size == 0 {
            return Some(Err(Damage::at(start, "an empty stream")));
        }
        Some(Ok(MetricEntry { metric, offset: part(0).u64(), size, crc, statistics }))
    }

    #[inline]
    fn ids(&self) -> &'a [[u8; ID]] {
        let ids = self.bytes.get(IDS_AT..IDS_AT + self.len * ID).unwrap_or_default();
        ids.as_chunks().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: PageName = PageName { page: 7, digest_crc: 0xdead_beef };

    fn entry(metric: u32) -> MetricEntry {
        let statistics = Statistics::of_points([(metric.into(), 0.5), (1_000_000, f64::from(metric))]);
        MetricEntry {
            metric: MetricId(metric),
            offset: 10 * u64::from(metric),
            size: 10,
            crc: !metric,
            statistics,
        }
    }

    fn page_of(metrics: impl IntoIterator<Item = u32>) -> [u8; PAGE] {
        encode(NAME, &metrics.into_iter().map(|metric| Row::new(&entry(metric))).collect::<Vec<_>>())
    }

    #[test]
    fn every_entry_is_found_and_no_other() {
        for len in [1, 2, 59, 60] {
            let bytes = page_of((0..len).map(|i| 100 + 3 * i));
            let page = Page::new(&bytes, len as usize);
            assert_eq!(page.check(NAME, 100, Some(100 + 3 * len)), Ok(()));
            for metric in 90..300 {
                let expected = (metric >= 100 && metric < 100 + 3 * len && (metric - 100).is_multiple_of(3))
                    .then(|| entry(metric));
                let found = page.find(metric).and_then(|at| page.entry(at));
                assert_eq!(found, expected.map(Ok), "{metric} of {len}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_a_page_is_noticed() {
        let mut bytes = page_of([5, 6, 9]);
        for bit in 0..8 * PAGE {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Page::new(&bytes, 3).check(NAME, 5, None).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(Page::new(&bytes, 3).check(NAME, 5, None), Ok(()));
    }

    #[test]
    fn page_in_the_wrong_place_is_noticed() {
        let bytes = page_of([5, 6, 9]);
        let page = Page::new(&bytes, 3);
        assert!(page.check(PageName { page: 8, ..NAME }, 5, None).is_err());
        assert!(page.check(PageName { digest_crc: 1, ..NAME }, 5, None).is_err());
        assert!(page.check(NAME, 4, None).is_err());
        assert!(page.check(NAME, 5, Some(9)).is_err());
        assert!(Page::new(&bytes, 4).check(NAME, 5, None).is_err(), "an entry too many");
    }
}
