//! The heads of a lane, by their places, with a count of how often one was asked for.
//!
//! There is no other way to a head than through here: so a test can tell that something touches none.

use super::head::Head;

/// Heads, and gaps where a metric was dropped or is another lane's business still.
#[derive(Debug, Default)]
pub(super) struct HeadSlots {
    slots: Vec<Option<Head>>,
    /// Slots that were looked at. A `Cell`, since looking changes nothing else.
    #[cfg(test)]
    touched: std::cell::Cell<u64>,
}

impl HeadSlots {
    pub(super) fn get(&self, place: usize) -> Option<&Head> {
        self.touch();
        self.slots.get(place)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Head> {
        self.touch();
        self.slots.get_mut(place)?.as_mut()
    }

    /// Puts a head where there is none.
    pub(super) fn put(&mut self, place: usize, head: Head) {
        self.touch();
        if self.slots.len() <= place {
            self.slots.resize_with(place + 1, || None);
        }
        debug_assert!(self.slots[place].is_none());
        self.slots[place] = Some(head);
    }

    /// Takes a head away, if it is there.
    pub(super) fn take(&mut self, place: usize) -> Option<Head> {
        self.touch();
        self.slots.get_mut(place)?.take()
    }

    /// All heads with their places, from a place on.
    pub(super) fn iter_mut_from(&mut self, place: usize) -> impl Iterator<Item = (usize, &mut Head)> {
        #[cfg(test)]
        let touched = &self.touched;
        let slots = self.slots.iter_mut().enumerate().skip(place);
        slots.filter_map(move |(place, slot)| {
            #[cfg(test)]
            touched.set(touched.get() + 1);
            Some((place, slot.as_mut()?))
        })
    }

    /// All heads with their places.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Head)> {
        self.slots.iter().enumerate().filter_map(|(place, slot)| {
            self.touch();
            Some((place, slot.as_ref()?))
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
}
