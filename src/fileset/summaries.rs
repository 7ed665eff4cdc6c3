//! The summaries of a volume that was opened.

use super::damage::Damage;
use super::msgpack::Reader;
use super::record::SummaryRecord;
use crate::io::Mapping;

/// The summaries: where every 33rd entry of the index lies.
#[derive(Debug)]
pub(super) struct Summaries {
    bytes: Mapping,
    /// Where the entries begin in `bytes`. All of them can be read, their IDs ascend, and so do the offsets in the
    /// index that they hold. These may lie behind an index that was cut.
    offsets: Vec<u64>,
}

impl Summaries {
    /// Reads all entries; `entries` is how many there are to be, if that is known.
    pub(super) fn read(bytes: Mapping, entries: Option<u64>) -> Result<Self, Damage> {
        let mut offsets = Vec::new();
        let mut last = None;
        let mut reader = Reader::new(&bytes, 0);
        while !reader.is_at_end() {
            let at = reader.at();
            let summary = SummaryRecord::decode(&mut reader)?;
            let place = (summary.id, summary.index_offset);
            if last.is_some_and(|(id, offset)| place.0 <= id || place.1 <= offset) {
                return Err(Damage::at(at, "the IDs or offsets do not ascend"));
            }
            last = Some(place);
            offsets.push(at as u64);
        }
        if entries.is_some_and(|entries| entries != offsets.len() as u64) {
            return Err(Damage::at(reader.at(), "the number of entries differs from that in the info file"));
        }
        offsets.shrink_to_fit();
        Ok(Summaries { bytes, offsets })
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All entries, each with its offset in the file.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, SummaryRecord<'_>)> {
        self.offsets.iter().filter_map(|at| Some((*at, self.get(*at)?)))
    }

    /// Where in the index to begin looking for an ID.
    pub(super) fn scan_start(&self, id: &[u8]) -> u64 {
        let after = self.offsets.partition_point(|at| self.get(*at).is_some_and(|summary| summary.id <= id));
        let before = after.checked_sub(1).and_then(|at| self.get(*self.offsets.get(at)?));
        before.map_or(0, |summary| summary.index_offset)
    }

    /// The first offset in the index after the given one at which an entry begins.
    pub(super) fn next_offset(&self, index_offset: u64) -> Option<u64> {
        let is_before = |at: &u64| self.get(*at).is_some_and(|summary| summary.index_offset <= index_offset);
        let next = self.offsets.get(self.offsets.partition_point(is_before))?;
        self.get(*next).map(|summary| summary.index_offset)
    }

    /// The entry at an offset, which has been read before.
    fn get(&self, at: u64) -> Option<SummaryRecord<'_>> {
        SummaryRecord::decode(&mut Reader::new(&self.bytes, usize::try_from(at).ok()?)).ok()
    }
}
