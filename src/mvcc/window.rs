//! Windows: the blocks of time that streams, and later volumes, keep to.

use super::partition_map::Cover;

/// From the year 1 to 1970, in nanoseconds: M3 counts its blocks from there.
const YEAR_1_NS: i128 = 62_135_596_800 * 1_000_000_000;

/// A day, in nanoseconds.
const DAY_NS: i64 = 86_400_000_000_000;

/// A width of blocks. They tile all of i64 from the year 1 on, in both directions; the first and the last are clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    width_ns: i64,
}

impl Window {
    /// `width_ns` is positive.
    pub(crate) fn new(width_ns: i64) -> Self {
        debug_assert!(width_ns > 0);
        Window { width_ns: width_ns.max(1) }
    }

    /// The block that `at` lies in.
    pub(crate) fn of(self, at: i64) -> Cover {
        let width = i128::from(self.width_ns);
        let first = i128::from(at) - (i128::from(at) + YEAR_1_NS).rem_euclid(width);
        let last = first + width - 1;
        Cover {
            first: i64::try_from(first).unwrap_or(i64::MIN),
            last: i64::try_from(last).unwrap_or(i64::MAX),
        }
    }
}

/// The widths that blocks of a namespace are sealed in, each a multiple of the one before.
pub(crate) fn widths(block_ns: i64) -> Vec<i64> {
    let mut widths = vec![block_ns];
    for wide in [DAY_NS, 30 * DAY_NS] {
        let widest = widths[widths.len() - 1];
        if wide > widest && wide % widest == 0 {
            widths.push(wide);
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = DAY_NS;

    #[test]
    fn blocks_start_where_m3_truncates_to() {
        let cover = Window::new(7_200_000_000_000).of(1_700_000_000_000_000_000);
        assert_eq!(cover.first, 1_699_999_200_000_000_000);
        assert_eq!(cover.last, 1_700_006_399_999_999_999);
        // 30 days do not divide the time from the year 1 to 1970.
        let cover = Window::new(30 * DAY).of(1_700_000_000_000_000_000);
        assert_eq!((1_700_000_000_000_000_000 - cover.first) / DAY, 27);
        assert_eq!((i128::from(cover.first) + YEAR_1_NS) % i128::from(30 * DAY), 0);
    }

    #[test]
    fn each_width_is_a_multiple_of_the_one_before() {
        let hour = DAY_NS / 24;
        assert_eq!(widths(2 * hour), [2 * hour, DAY_NS, 30 * DAY_NS]);
        assert_eq!(widths(DAY_NS), [DAY_NS, 30 * DAY_NS]);
        assert_eq!(widths(7 * hour), [7 * hour]);
        assert_eq!(widths(2 * DAY_NS), [2 * DAY_NS, 30 * DAY_NS]);
        assert_eq!(widths(60 * DAY_NS), [60 * DAY_NS]);
    }

    proptest! {
        #[test]
        fn blocks_tile_the_whole_range(at in any::<i64>(), width in 1..400 * DAY) {
            let window = Window::new(width);
            let cover = window.of(at);
            prop_assert!(cover.first <= at && at <= cover.last);
            if cover.first > i64::MIN && cover.last < i64::MAX {
                prop_assert_eq!(cover.last - cover.first + 1, width);
            }
            if cover.last < i64::MAX {
                prop_assert_eq!(window.of(cover.last + 1).first, cover.last + 1);
            }
            prop_assert_eq!(window.of(cover.first), cover);
            prop_assert_eq!(window.of(cover.last), cover);
        }
    }
}
