//! Which pages of a file are free.
//!
//! A page is in use from the moment it is taken until the commit after it was given up, so that what either of two sets of roots
//! names stays: the one that was committed, and the one that is being made.

/// Pages in use, and what has changed since the last commit.
#[derive(Debug)]
pub(super) struct Space {
    /// A bit for each page in use; the last word is not zero.
    in_use: Vec<u64>,
    /// All pages below are in use.
    lowest: u64,
    /// Pages taken since the last commit.
    taken: Vec<u32>,
    /// Pages in use that are not when that is committed; some may have been taken since, too.
    given_up: Vec<u32>,
}

/// A moment to which a [`Space`] can go back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    taken: usize,
    given_up: usize,
}

impl Space {
    /// Page 0 is in use, no other.
    pub(super) fn new() -> Self {
        Space { in_use: vec![1], lowest: 1, taken: Vec::new(), given_up: Vec::new() }
    }

    /// Notes that a page is in use; `false` if it is already.
    pub(super) fn mark(&mut self, page: u32) -> bool {
        let (word, bit) = place(page);
        if self.in_use.len() <= word {
            self.in_use.resize(word + 1, 0);
        }
        let is_new = self.in_use.get(word).is_some_and(|bits| bits & bit == 0);
        if let Some(bits) = self.in_use.get_mut(word) {
            *bits |= bit;
        }
        is_new
    }

    /// Takes the lowest free page; `None` if there is none in all numbers of pages.
    pub(super) fn take(&mut self) -> Option<u32> {
        let page = u32::try_from(self.lowest_free()).ok()?;
        self.mark(page);
        self.lowest = u64::from(page) + 1;
        self.taken.push(page);
        Some(page)
    }

    /// A page is free from the next commit on.
    pub(super) fn give_up(&mut self, page: u32) {
        self.given_up.push(page);
    }

    /// Now.
    pub(super) fn moment(&self) -> Moment {
        Moment { taken: self.taken.len(), given_up: self.given_up.len() }
    }

    /// Takes back what was taken and given up since that moment, after which there was no commit.
    pub(super) fn go_back(&mut self, moment: Moment) {
        self.given_up.truncate(moment.given_up);
        let mut taken = std::mem::take(&mut self.taken);
        taken.drain(moment.taken.min(taken.len())..).for_each(|page| self.free(page));
        self.taken = taken;
    }

    /// What was given up is free, what was taken stays.
    pub(super) fn commit(&mut self) {
        self.taken.clear();
        std::mem::take(&mut self.given_up).into_iter().for_each(|page| self.free(page));
    }

    /// What was taken is free, what was given up stays.
    pub(super) fn abandon(&mut self) {
        self.go_back(Moment { taken: 0, given_up: 0 });
    }

    /// The number of pages up to the last one in use.
    pub(super) fn end(&mut self) -> u64 {
        while self.in_use.last() == Some(&0) {
            self.in_use.pop();
        }
        let unused = self.in_use.last().map_or(0, |bits| bits.leading_zeros());
        self.in_use.len() as u64 * 64 - u64::from(unused)
    }

    /// All pages in use, ascending.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> Vec<u64> {
        (0..self.in_use.len() as u64 * 64)
            .filter(|page| self.in_use[(page / 64) as usize] & 1 << (page % 64) != 0)
            .collect()
    }

    fn free(&mut self, page: u32) {
        let (word, bit) = place(page);
        if let Some(bits) = self.in_use.get_mut(word) {
            *bits &= !bit;
            self.lowest = self.lowest.min(page.into());
        }
    }

    /// The lowest free page. All below [`Space::lowest`] are in use.
    fn lowest_free(&self) -> u64 {
        let first = self.lowest / 64;
        let words = self.in_use.get(first as usize..).unwrap_or_default();
        match (first..).zip(words).find(|(_, bits)| **bits != u64::MAX) {
            Some((word, bits)) => word * 64 + u64::from(bits.trailing_ones()),
            None => self.lowest.max(self.in_use.len() as u64 * 64),
        }
    }
}

/// The word and the bit of a page.
fn place(page: u32) -> (usize, u64) {
    ((page / 64) as usize, 1 << (page % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(space: &mut Space, count: usize) -> Vec<u32> {
        (0..count).map_while(|_| space.take()).collect()
    }

    #[test]
    fn lowest_free_page_is_taken_first() {
        let mut space = Space::new();
        assert!([1, 2, 64, 200].into_iter().all(|page| space.mark(page)));
        assert!(!space.mark(64) && !space.mark(0));
        assert_eq!(space.end(), 201);
        let taken = take(&mut space, 196);
        assert!(taken.is_sorted() && !taken.contains(&64) && taken.last() == Some(&199));
        assert_eq!(take(&mut space, 2), [201, 202]);
    }

    #[test]
    fn given_up_page_is_free_after_the_commit_only() {
        let mut space = Space::new();
        assert_eq!(take(&mut space, 3), [1, 2, 3]);
        space.commit();
        space.give_up(2);
        assert_eq!(take(&mut space, 1), [4]);
        space.give_up(4);
        assert_eq!(take(&mut space, 1), [5]);
        space.commit();
        assert_eq!(take(&mut space, 3), [2, 4, 6]);
    }

    #[test]
    fn abandoning_frees_what_was_taken_and_keeps_what_was_given_up() {
        let mut space = Space::new();
        take(&mut space, 3);
        space.commit();
        space.give_up(2);
        assert_eq!(take(&mut space, 70).last(), Some(&73));
        assert_eq!(space.end(), 74);
        space.abandon();
        assert_eq!(space.end(), 4);
        space.commit();
        assert_eq!(take(&mut space, 1), [4], "2 is in use");
    }

    #[test]
    fn going_back_undoes_what_came_after_and_nothing_before() {
        let mut space = Space::new();
        take(&mut space, 3);
        space.give_up(1);
        let moment = space.moment();
        space.give_up(2);
        assert_eq!(take(&mut space, 2), [4, 5]);
        space.go_back(moment);
        assert_eq!(take(&mut space, 1), [4]);
        space.commit();
        assert_eq!(take(&mut space, 2), [1, 5]);
    }

    #[test]
    fn the_last_number_of_a_page_is_the_end() {
        let mut space = Space::new();
        space.lowest = u64::from(u32::MAX) + 1;
        assert_eq!(space.take(), None);
        assert!(space.taken.is_empty());
    }
}
