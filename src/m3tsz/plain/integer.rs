//! Which values are stored as integers, and how wide their differences are written.

use super::constants::{MULT_MAX, TWO_POW_52, TWO_POW_63, power_of_ten};
use crate::m3tsz::Mode;

/// A value as `int / 10^mult`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scaled {
    /// A whole number, as M3 holds it.
    pub(super) int: f64,
    pub(super) mult: u8,
}

impl Scaled {
    /// `value` with a multiplier of at least `mult_min`, if it is stored as an integer in this mode.
    pub(super) fn from_value(value: f64, mult_min: u8, mode: Mode) -> Option<Scaled> {
        let scaled = Scaled::in_m3(value, mult_min)?;
        let keeps = match mode {
            Mode::M3 => true,
            Mode::Lossless => {
                let minus_zero = value == 0.0 && value.is_sign_negative();
                let exact = value_of(scaled.int, scaled.mult).to_bits() == value.to_bits();
                exact && !minus_zero && scaled.int.abs() <= TWO_POW_52
            }
        };
        keeps.then_some(scaled)
    }

    /// M3's rule, in M3's terms.
    fn in_m3(value: f64, mult_min: u8) -> Option<Scaled> {
        if mult_min == 0 && value < TWO_POW_63 {
            let fraction = value - value.trunc();
            if fraction == 0.0 {
                return Some(Scaled { int: value.trunc(), mult: 0 });
            }
        }
        let sign = if value < 0.0 { -1.0 } else { 1.0 };
        for mult in mult_min..=MULT_MAX {
            let product = value * power_of_ten(mult) * sign;
            if product >= 1e13 {
                break;
            }
            let below = product.trunc();
            let fraction = product - below;
            if fraction == 0.0 {
                return Some(Scaled { int: sign * below, mult });
            }
            if fraction < 0.1 {
                if product.next_down() <= below {
                    return Some(Scaled { int: sign * below, mult });
                }
            } else if fraction > 0.9 {
                let above = below + 1.0;
                if product.next_up() >= above {
                    return Some(Scaled { int: sign * above, mult });
                }
            }
        }
        None
    }
}

/// `int / 10^mult`.
pub(super) fn value_of(int: f64, mult: u8) -> f64 {
    if mult == 0 { int } else { int / power_of_ten(mult) }
}

/// `|int|` in 64 bits, converted as on x86-64: what does not fit an `i64` is 2^63.
pub(super) fn magnitude_of(int: f64) -> u64 {
    let magnitude = int.abs();
    if magnitude < TWO_POW_63 { magnitude as u64 } else { 1 << 63 }
}

/// How many bits a magnitude has: 0 to 64.
pub(super) fn bits_in(magnitude: u64) -> u32 {
    u64::BITS - magnitude.leading_zeros()
}

/// Watches the differences, so that their width follows them: up at once, down after five lower ones.
#[derive(Clone, Debug, Default)]
pub(super) struct LowerRun {
    /// Lower differences since the last that was neither lower nor wider.
    count: u32,
    /// The widest of them.
    widest: u32,
}

impl LowerRun {
    /// The width for a difference of `bits` bits, where `width` is in force.
    pub(super) fn width_for(&mut self, bits: u32, width: u32) -> u32 {
        if bits > width {
            // The count goes on.
            return bits;
        }
        let lower = width - bits >= 3;
        if !lower {
            self.count = 0;
            return width;
        }
        self.widest = if self.count == 0 { bits } else { self.widest.max(bits) };
        self.count += 1;
        if self.count < 5 {
            return width;
        }
        self.count = 0;
        self.widest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m3_takes_a_neighbour_of_a_decimal_and_lossless_does_not() {
        let near = 46.0_f64.next_up();
        assert_eq!(Scaled::from_value(near, 0, Mode::M3), Some(Scaled { int: 46.0, mult: 0 }));
        assert_eq!(Scaled::from_value(near, 0, Mode::Lossless), None);
        for mode in [Mode::M3, Mode::Lossless] {
            assert_eq!(Scaled::from_value(-1.25, 0, mode), Some(Scaled { int: -125.0, mult: 2 }));
            assert_eq!(Scaled::from_value(3.0, 2, mode), Some(Scaled { int: 300.0, mult: 2 }));
            assert_eq!(Scaled::from_value(1e7, 6, mode), None);
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, TWO_POW_63] {
                assert_eq!(Scaled::from_value(value, 0, mode), None);
            }
        }
    }

    #[test]
    fn lossless_ends_at_2_52_and_keeps_minus_zero_apart() {
        let lossless = |value| Scaled::from_value(value, 0, Mode::Lossless);
        assert!(lossless(-TWO_POW_52).is_some() && lossless(TWO_POW_52 + 1.0).is_none());
        assert!(lossless(0.0).is_some() && lossless(-0.0).is_none());
        assert!(Scaled::from_value(-1e300, 0, Mode::M3).is_some() && lossless(-1e300).is_none());
    }

    #[test]
    fn five_lower_ones_narrow_and_a_wider_one_leaves_the_count_alone() {
        let (mut run, mut width) = (LowerRun::default(), 0);
        let widths = [10, 1, 1, 1, 1, 8, 1, 1, 1, 12, 1, 2].map(|bits| {
            width = run.width_for(bits, width);
            width
        });
        assert_eq!(widths, [10, 10, 10, 10, 10, 10, 10, 10, 10, 12, 12, 2]);
    }
}
