//! The budget of staged bytes: how much the commits take in memory that have a number and are not published.
//!
//! A commit takes its bytes when it gets its number, all at once, and its publication gives them back. Those who must wait
//! stand in a line, so that a large commit is not passed by small ones for ever. Nobody waits who has bytes, so there is no deadlock; who
//! fails has taken none.

/// What the log's lock guards of it.
#[derive(Debug, Default)]
pub(super) struct Budget {
    taken: usize,
    /// How many have stood in the line, and how many of these have left it, in the same order.
    came: u64,
    left: u64,
}

/// A place in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Budget {
    /// Whether a commit of so many bytes may go on: it fits, or is alone, and nobody stands before it. If not, it has a place in the
    /// line afterwards.
    pub(super) fn admits(&mut self, bytes: usize, max: usize, place: &mut Option<Place>) -> bool {
        let fits = self.taken == 0 || self.taken.saturating_add(bytes) <= max;
        let next = place.map_or(self.came, |Place(place)| place);
        if !fits || next != self.left {
            self.stand(place);
            return false;
        }
        true
    }

    /// Takes a place at the end of the line, if it has none: who was admitted is first there.
    pub(super) fn stand(&mut self, place: &mut Option<Place>) {
        place.get_or_insert_with(|| {
            self.came += 1;
            Place(self.came - 1)
        });
    }

    /// Who stands first leaves the line; the next one is to be woken. Who is not first gives up since nobody goes on.
    pub(super) fn leave(&mut self, place: Place) {
        if place == Place(self.left) {
            self.leave_first();
        }
    }

    /// As [`Budget::leave`], for who is known to be first.
    pub(super) fn leave_first(&mut self) {
        self.left += 1;
    }

    pub(super) fn take(&mut self, bytes: usize) {
        self.taken += bytes;
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.taken);
        self.taken = self.taken.saturating_sub(bytes);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_fit_waits_and_those_behind_it_too() {
        let mut budget = Budget::default();
        let (mut large, mut small) = (None, None);
        assert!(budget.admits(60, 100, &mut None));
        budget.take(60);
        assert!(!budget.admits(50, 100, &mut large), "110 bytes");
        assert!(!budget.admits(1, 100, &mut small), "it would fit, but is second");
        assert!(!budget.admits(50, 100, &mut large), "woken for nothing, it keeps its place");
        budget.give_back(60);
        assert!(!budget.admits(1, 100, &mut small), "still second");
        assert!(budget.admits(50, 100, &mut large));
        budget.leave(large.expect("it stood in the line"));
        budget.take(50);
        assert!(budget.admits(1, 100, &mut small));
        budget.leave(small.expect("it stood in the line"));
        assert!(budget.admits(50, 100, &mut None), "nobody is left in the line");
    }

    #[test]
    fn who_stands_first_is_passed_by_nobody_while_it_makes_space() {
        let mut budget = Budget::default();
        let (mut first, mut second) = (None, None);
        assert!(budget.admits(60, 100, &mut first));
        budget.stand(&mut first);
        assert!(!budget.admits(1, 100, &mut second), "it would fit, but is second");
        assert!(budget.admits(60, 100, &mut first));
        budget.take(60);
        budget.leave(first.expect("it stood in the line"));
        assert!(budget.admits(1, 100, &mut second));
    }

    #[test]
    fn one_alone_is_never_kept_waiting() {
        let mut budget = Budget::default();
        assert!(budget.admits(usize::MAX, 100, &mut None));
        budget.take(101);
        assert!(!budget.admits(1, 100, &mut None));
    }
}
