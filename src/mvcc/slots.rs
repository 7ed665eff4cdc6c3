//! The heads of a lane, by their places, with a count of how often one was asked for.
//!
//! They lie in pages, and a page all of whose heads are gone is given back: metrics that come and go leave 8 bytes behind for each page.
//! There is no other way to a head than through here: so a test can tell that something touches none.

use super::head::Head;

/// Heads of a page.
const PAGE_HEADS: usize = if cfg!(loom) { 4 } else { 64 };

/// Heads, and gaps where a metric was dropped or is another lane's business still.
#[derive(Debug, Default)]
pub(super) struct HeadSlots {
    pages: Vec<Option<Box<Page>>>,
    /// Slots that were looked at. A `Cell`, since looking changes nothing else.
    #[cfg(test)]
    touched: std::cell::Cell<u64>,
}

#[derive(Debug)]
struct Page {
    heads: [Option<Head>; PAGE_HEADS],
    /// How many there are.
    there: usize,
}

impl HeadSlots {
    pub(super) fn get(&self, place: usize) -> Option<&Head> {
        self.touch();
        self.pages.get(place / PAGE_HEADS)?.as_ref()?.heads[place % PAGE_HEADS].as_ref()
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Head> {
        self.touch();
        self.pages.get_mut(place / PAGE_HEADS)?.as_mut()?.heads[place % PAGE_HEADS].as_mut()
    }

    /// Puts a head where there is none.
    pub(super) fn put(&mut self, place: usize, head: Head) {
        self.touch();
        let number = place / PAGE_HEADS;
        if self.pages.len() <= number {
            self.pages.resize_with(number + 1, || None);
        }
        let page = self.pages[number].get_or_insert_with(Box::default);
        let before = page.heads[place % PAGE_HEADS].replace(head);
        debug_assert!(before.is_none());
        page.there += usize::from(before.is_none());
    }

    /// Takes a head away, if it is there.
    pub(super) fn take(&mut self, place: usize) -> Option<Head> {
        self.touch();
        let slot = self.pages.get_mut(place / PAGE_HEADS)?;
        let page = slot.as_mut()?;
        let head = page.heads[place % PAGE_HEADS].take()?;
        page.there -= 1;
        if page.there == 0 {
            *slot = None;
        }
        Some(head)
    }

    /// A place behind all heads.
    pub(super) fn end(&self) -> usize {
        self.pages.len() * PAGE_HEADS
    }

    /// All heads with their places, from a place on.
    pub(super) fn iter_mut_from(&mut self, place: usize) -> impl Iterator<Item = (usize, &mut Head)> {
        #[cfg(test)]
        let touched = &self.touched;
        let pages = self.pages.iter_mut().enumerate().skip(place / PAGE_HEADS);
        let heads = pages.filter_map(|(number, page)| Some((number, page.as_mut()?)));
        let heads = heads.flat_map(|(number, page)| {
            page.heads.iter_mut().enumerate().map(move |(at, head)| (number * PAGE_HEADS + at, head))
        });
        heads.skip_while(move |(at, _)| *at < place).filter_map(move |(at, head)| {
            #[cfg(test)]
            touched.set(touched.get() + 1);
            Some((at, head.as_mut()?))
        })
    }

    /// All heads with their places.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Head)> {
        let pages = self.pages.iter().enumerate().filter_map(|(number, page)| Some((number, page.as_ref()?)));
        let heads = pages.flat_map(|(number, page)| {
            page.heads.iter().enumerate().map(move |(at, head)| (number * PAGE_HEADS + at, head))
        });
        heads.filter_map(|(at, head)| {
            self.touch();
            Some((at, head.as_ref()?))
        })
    }

    fn touch(&self) {
        #[cfg(test)]
        self.touched.set(self.touched.get() + 1);
    }

    /// How often a slot was looked at.
    #[cfg(test)]
    pub(super) fn touched(&self) -> u64 {
        self.touched.get()
    }

    /// Pages that take memory.
    #[cfg(all(test, not(loom)))]
    fn pages(&self) -> usize {
        self.pages.iter().flatten().count()
    }
}

impl Default for Page {
    fn default() -> Self {
        Page { heads: [const { None }; PAGE_HEADS], there: 0 }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::mvcc::transaction::Version;

    #[test]
    fn heads_that_come_and_go_leave_no_pages() {
        let mut heads = HeadSlots::default();
        for place in 0..10_000 {
            heads.put(place, Head::new(0, Version(place as u64)));
            if let Some(old) = place.checked_sub(100) {
                assert!(heads.get(old).is_some());
                assert_eq!(heads.take(old).map(|head| head.last_write()), Some(Version(old as u64)));
                assert!(heads.take(old).is_none() && heads.get(old).is_none());
            }
            assert!(heads.pages() <= 3);
        }
        let places = |from| -> Vec<usize> { (from..10_000).collect() };
        assert_eq!(heads.iter().map(|(place, _)| place).collect::<Vec<_>>(), places(9_900));
        assert_eq!(heads.iter_mut_from(9_950).map(|(place, _)| place).collect::<Vec<_>>(), places(9_950));
    }
}
