//! How many bits an integer difference gets.

/// A width counts as smaller only if this many bits would be saved.
const LOWER_BY_MIN: u32 = 3;
/// The width shrinks after this many smaller differences in a row.
const LOWER_RUN: u8 = 5;

/// The significant bits of a magnitude: 0 to 64.
#[inline]
pub(super) const fn significant_bits(magnitude: u64) -> u32 {
    64 - magnitude.leading_zeros()
}

/// Follows the widths of the differences: grows at once, shrinks after a run of smaller ones.
#[derive(Clone, Debug, Default)]
pub(super) struct WidthTracker {
    width: u8,
    highest_lower: u8,
    lower_run: u8,
}

impl WidthTracker {
    /// The width in force.
    #[inline]
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
    #[inline]
    pub(super) fn track(&mut self, bits: u32) -> u32 {
        let width = self.width();
        if bits > width {
            // A run of smaller ones is not broken by this: that is how M3 counts.
            return bits;
        }
        if width - bits < LOWER_BY_MIN {
            self.lower_run = 0;
            return width;
        }
        if self.lower_run == 0 || bits > u32::from(self.highest_lower) {
            self.highest_lower = bits as u8;
        }
        self.lower_run += 1;
        if self.lower_run < LOWER_RUN {
            return width;
        }
        self.lower_run = 0;
        u32::from(self.highest_lower)
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
