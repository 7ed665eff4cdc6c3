//! How many bits an integer difference gets.

use std::hint::select_unpredictable;

/// A width counts as smaller only if this many bits would be saved.
const LOWER_BY_MIN: u32 = 3;
/// The width shrinks after this many smaller differences in a row.
const LOWER_RUN: u32 = 5;

/// The significant bits of a magnitude: 0 to 64.
#[inline]
pub(super) const fn significant_bits(magnitude: u64) -> u32 {
    64 - magnitude.leading_zeros()
}

/// [`significant_bits`] of a magnitude below 2^63. Where the processor's instruction does not take 0, a bit put below saves a branch.
#[inline(always)]
pub(super) const fn significant_bits_of_63(magnitude: u64) -> u32 {
    63 - (magnitude << 1 | 1).leading_zeros()
}

/// Follows the widths of the differences: grows at once, shrinks after a run of smaller ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WidthTracker {
    width: u8,
    /// 0 without a run.
    highest_lower: u8,
    lower_run: u8,
}

impl WidthTracker {
    /// The width in force.
    #[inline(always)]
    pub(super) fn width(&self) -> u32 {
        u32::from(self.width)
    }

    /// Sets the width in force.
    #[inline]
    pub(super) fn set_width(&mut self, width: u32) {
        debug_assert!(width <= 64);
        self.width = width as u8;
    }

    /// The width that a difference of `bits` significant bits is to have. Only [`WidthTracker::set_width`] puts it in
    /// force.
    pub(super) fn track(&mut self, bits: u32) -> u32 {
        // A run of smaller ones is not broken by a wider one: that is how M3 counts.
        if bits > self.width() {
            return bits;
        }
        if self.keep(bits) {
            return self.width();
        }
        // The run is complete.
        let width = u32::from(self.highest_lower.max(bits as u8));
        (self.highest_lower, self.lower_run) = (0, 0);
        width
    }

    /// The short way of [`WidthTracker::track`], for a difference that keeps the width in force. `false`, and nothing
    /// is changed, for others.
    #[inline(always)]
    pub(super) fn keep(&mut self, bits: u32) -> bool {
        // Without a branch: whether a difference is much narrower is random in many series.
        let is_lower = bits + LOWER_BY_MIN <= self.width();
        let highest_lower = select_unpredictable(is_lower, u32::from(self.highest_lower).max(bits), 0);
        let lower_run = select_unpredictable(is_lower, u32::from(self.lower_run) + 1, 0);
        if bits > self.width() || lower_run >= LOWER_RUN {
            return false;
        }
        self.highest_lower = highest_lower as u8;
        self.lower_run = lower_run as u8;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(tracker: &mut WidthTracker, bits: u32) -> u32 {
        let width = tracker.track(bits);
        tracker.set_width(width);
        width
    }

    #[test]
    fn width_grows_at_once_and_shrinks_after_five() {
        let mut tracker = WidthTracker::default();
        let widths: Vec<u32> = [10, 7, 3, 5, 2, 1, 4, 64].map(|bits| track(&mut tracker, bits)).into();
        assert_eq!(widths, [10, 10, 10, 10, 10, 7, 7, 64]);
    }

    #[test]
    fn a_difference_of_nearly_full_width_breaks_the_run_and_a_wider_one_does_not() {
        let mut tracker = WidthTracker::default();
        let widths: Vec<u32> =
            [10, 1, 1, 1, 1, 8, 1, 1, 1, 12, 1, 2].map(|bits| track(&mut tracker, bits)).into();
        assert_eq!(widths, [10, 10, 10, 10, 10, 10, 10, 10, 10, 12, 12, 2]);
    }

    #[test]
    fn significant_bits_span_0_to_64() {
        assert_eq!(significant_bits(0), 0);
        assert_eq!(significant_bits(1), 1);
        assert_eq!(significant_bits(u64::MAX), 64);
    }
}
