//! What is known of each metric, by id.
//!
//! Ids are given out one after the other, so what is known lies in pages of so many of them, each with the bytes of its names behind each other. A page whose
//! names are all gone is given up, and one of whose bytes more than half are of names that are gone is written anew: so memory follows
//! the names that there are, and of ids that were given once a pointer is left for each page.
//!
//! Invariants
//! * What a record says never changes; where it lies may.
//! * An id's state outlives its name as long as somebody has a handle.

use crate::sync::Arc;
use crate::sync::atomic::AtomicU64;

use super::{MetricId, NamespaceId};

/// Ids of a page.
pub(super) const PAGE_IDS: usize = if cfg!(loom) { 4 } else { 256 };
/// Where no record is.
const NOWHERE: u32 = u32::MAX;
/// Fewer bytes of names that are gone are not worth writing a page anew.
const DEAD_BYTES_MIN: usize = 1 << 10;
/// At most so many bytes are set aside for the names of a new page.
const SET_ASIDE_MAX: usize = 64 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pages: Vec<Option<Box<Page>>>,
}

#[derive(Debug)]
struct Page {
    /// Where in `text` the record of each id is.
    places: [u32; PAGE_IDS],
    states: Arc<States>,
    /// Records, behind each other: namespace, shard, the length of the name and whether there are tags, the name, and the tags' length and bytes if there
    /// are. Numbers as LEB128.
    text: Vec<u8>,
    /// How many ids have a record.
    named: usize,
    /// Bytes of `text` of names that are gone.
    dead: usize,
}

/// The states of a page's metrics, shared with their handles. What they mean is [`super::metric`]'s business.
#[derive(Debug)]
pub(super) struct States([AtomicU64; PAGE_IDS]);

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) namespace: NamespaceId,
    /// Follows from the name and the namespace's options.
    pub(super) shard: u32,
    pub(super) name: &'a [u8],
    /// Its [tags](super::Tags::encoded), if they are not those that the name says.
    pub(super) tags: Option<&'a [u8]>,
}

impl Pages {
    /// What is known of an id.
    #[inline]
    pub(super) fn record(&self, id: MetricId) -> Option<Record<'_>> {
        let (page, slot) = self.page(id)?;
        page.record(slot).map(|(record, _)| record)
    }

    /// The states of its page, of which [`slot`] says the right one, if anything is known of the id.
    #[inline]
    pub(super) fn states(&self, id: MetricId) -> Option<&Arc<States>> {
        let (page, slot) = self.page(id)?;
        (page.places[slot] != NOWHERE).then_some(&page.states)
    }

    /// Notes an id of which nothing is known.
    pub(super) fn insert(&mut self, id: MetricId, record: Record<'_>) -> &Arc<States> {
        let (number, slot) = (id.0 as usize / PAGE_IDS, slot(id));
        if self.pages.len() <= number {
            self.pages.resize_with(number + 1, || None);
        }
        let before = number.checked_sub(1).and_then(|before| self.pages[before].as_ref());
        let set_aside = before.map_or(0, |before| before.text.len().min(SET_ASIDE_MAX));
        let page = self.pages[number].get_or_insert_with(|| Page::new(set_aside));
        page.insert(slot, record);
        &page.states
    }

    /// Forgets an id of which something is known.
    pub(super) fn remove(&mut self, id: MetricId) {
        let place = &mut self.pages[id.0 as usize / PAGE_IDS];
        let Some(page) = place else { return };
        page.remove(slot(id));
        if page.named == 0 {
            *place = None;
        }
    }

    #[inline]
    fn page(&self, id: MetricId) -> Option<(&Page, usize)> {
        let page = self.pages.get(id.0 as usize / PAGE_IDS)?.as_ref()?;
        Some((page, slot(id)))
    }
}

impl Page {
    fn new(set_aside: usize) -> Box<Self> {
        Box::new(Page {
            places: [NOWHERE; PAGE_IDS],
            states: Arc::new(States(std::array::from_fn(|_| AtomicU64::new(0)))),
            text: Vec::with_capacity(set_aside),
            named: 0,
            dead: 0,
        })
    }

    /// The record of an id, and its length.
    #[inline]
    fn record(&self, slot: usize) -> Option<(Record<'_>, usize)> {
        let bytes = self.text.get(self.places[slot] as usize..)?;
        let mut rest = bytes;
        let namespace = NamespaceId(take_number(&mut rest)?);
        let shard = take_number(&mut rest)?;
        let front = take_number(&mut rest)?;
        let (name, behind) = rest.split_at_checked(front as usize >> 1)?;
        rest = behind;
        let tags = match front & 1 {
            0 => None,
            _ => {
                let len = take_number(&mut rest)?;
                let (tags, behind) = rest.split_at_checked(len as usize)?;
                rest = behind;
                Some(tags)
            }
        };
        Some((Record { namespace, shard, name, tags }, bytes.len() - rest.len()))
    }

    fn insert(&mut self, slot: usize, record: Record<'_>) {
        debug_assert_eq!(self.places[slot], NOWHERE);
        // At most 256 names and tags of 64 KiB, with lengths.
        self.places[slot] = self.text.len() as u32;
        self.named += 1;
        let Record { namespace, shard, name, tags } = record;
        put_number(&mut self.text, namespace.0);
        put_number(&mut self.text, shard);
        put_number(&mut self.text, (name.len() as u32) << 1 | u32::from(tags.is_some()));
        self.text.extend_from_slice(name);
        if let Some(tags) = tags {
            put_number(&mut self.text, tags.len() as u32);
            self.text.extend_from_slice(tags);
        }
        if self.named == PAGE_IDS {
            self.text.shrink_to_fit();
        }
        debug_assert_eq!(self.record(slot).map(|(record, _)| record), Some(record));
    }

    fn remove(&mut self, slot: usize) {
        let Some((_, bytes)) = self.record(slot) else { return };
        self.places[slot] = NOWHERE;
        self.named -= 1;
        self.dead += bytes;
        if self.dead > DEAD_BYTES_MIN && self.dead > self.text.len() / 2 {
            let mut text = Vec::with_capacity(self.text.len() - self.dead);
            for slot in 0..PAGE_IDS {
                let Some((_, bytes)) = self.record(slot) else { continue };
                let place = self.places[slot] as usize;
                self.places[slot] = text.len() as u32;
                text.extend_from_slice(&self.text[place..place + bytes]);
            }
            (self.text, self.dead) = (text, 0);
        }
    }
}

impl States {
    /// The state of the id with this place in its page.
    #[inline]
    pub(super) fn of(&self, slot: usize) -> &AtomicU64 {
        &self.0[slot]
    }
}

/// The place of an id in its page.
#[inline]
pub(super) fn slot(id: MetricId) -> usize {
    id.0 as usize % PAGE_IDS
}

fn put_number(to: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Takes what [`put_number`] put from the front.
#[inline]
fn take_number(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u32::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}
