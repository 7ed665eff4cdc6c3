//! Which values are stored as scaled integers.
//!
//! `value = integer / 10^multiplier` with a multiplier of 0 to 6. M3 takes a value for such a quotient if the product
//! `value * 10^multiplier` lies below 10^13 and is an integer or a neighbour of one among the floating-point numbers.
//! That is right for decimals, whose products are rounded, and wrong for values that merely lie close to a decimal: so
//! a lossless encoder divides and compares.

/// The largest multiplier.
pub(super) const MULT_MAX: u8 = 6;
/// Powers of ten, by multiplier.
const POW10: [f64; MULT_MAX as usize + 1] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6];
/// Products from here on are not taken for integers.
const PRODUCT_LIMIT: f64 = 1e13;
/// 2^63, where integers stop to fit `i64`.
pub(super) const TWO_POW_63: f64 = 9_223_372_036_854_775_808.0;
/// 2^52, from where on there are no fractions.
const TWO_POW_52: f64 = 4_503_599_627_370_496.0;
/// Integers up to here, of either sign, have differences that are exact in floating point.
const EXACT_INT_MAX: f64 = TWO_POW_52;

/// A value as an integer, which is held as `f64`, and a multiplier.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Scaled {
    pub(super) int: f64,
    pub(super) mult: u8,
}

impl Scaled {
    /// The value that an integer and a multiplier stand for; the multiplier is at most [`MULT_MAX`].
    #[inline]
    pub(super) fn value(self) -> f64 {
        match POW10.get(usize::from(self.mult)) {
            Some(power) if self.mult > 0 => self.int / power,
            _ => self.int,
        }
    }

    /// `value` as a scaled integer that decodes to exactly `value`, wherever in a stream it stands.
    #[inline]
    pub(super) fn exactly(value: f64, mult_min: u8) -> Option<Scaled> {
        let scaled = Scaled::as_m3(value, mult_min)?;
        // A zero of either sign decodes as +0.0.
        let same = scaled.value().to_bits() == value.to_bits() && value.to_bits() != (-0.0_f64).to_bits();
        (same && scaled.int.abs() <= EXACT_INT_MAX).then_some(scaled)
    }

    /// `value` as M3 scales it, starting at multiplier `mult_min`: possibly a neighbour of `value`, and without a lower
    /// bound for whole numbers.
    #[inline]
    pub(super) fn as_m3(value: f64, mult_min: u8) -> Option<Scaled> {
        if mult_min == 0 && value < TWO_POW_63 && is_whole(value) {
            return Some(Scaled { int: value, mult: 0 });
        }
        let magnitude = value.abs();
        for (mult, power) in POW10.iter().enumerate().skip(usize::from(mult_min)) {
            let product = magnitude * power;
            if product >= PRODUCT_LIMIT || product.is_nan() {
                break;
            }
            if let Some(int) = near_integer(product) {
                return Some(Scaled { int: int.copysign(value), mult: mult as u8 });
            }
        }
        None
    }
}

/// Whether a value has no fraction. Infinities and NaN have one.
#[inline]
fn is_whole(value: f64) -> bool {
    let magnitude = value.abs();
    if magnitude < TWO_POW_52 { nearest_integer(magnitude) == magnitude } else { magnitude.is_finite() }
}

/// The integer that is `x` or its neighbour; `0 <= x < 10^13`.
///
/// Positive floating-point numbers are ordered like their bits, so neighbours are 1 apart. M3 asks in another way: the
/// fraction must be below 0.1 or above 0.9, and the next number towards the integer must reach it. Below 10^13 numbers
/// are at most 2^-9 apart, so that a neighbour's fraction always is.
#[inline]
fn near_integer(x: f64) -> Option<f64> {
    let int = nearest_integer(x);
    (int.to_bits().abs_diff(x.to_bits()) <= 1).then_some(int)
}

/// The integer nearest to `x`, the even one of two; `0 <= x < 2^52`.
///
/// From 2^52 on, floating-point numbers are the integers, so the addition rounds. Quicker than `trunc`, which is a call
/// where SSE 4.1 is not assumed, and than converting to an integer and back.
#[inline]
fn nearest_integer(x: f64) -> f64 {
    x + TWO_POW_52 - TWO_POW_52
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule in M3's terms.
    fn near_integer_by_fraction(x: f64) -> Option<f64> {
        let (int, fraction) = (x.trunc(), x - x.trunc());
        if fraction == 0.0 || fraction < 0.1 && x.next_down() <= int {
            return Some(int);
        }
        (fraction > 0.9 && x.next_up() >= int + 1.0).then_some(int + 1.0)
    }

    #[test]
    fn neighbours_by_bits_are_neighbours_by_fraction() {
        let mut xs = vec![0.0, f64::from_bits(1), f64::from_bits(2), 0.5, 0.499_999_999_999_999_94];
        let mut int = 1.0;
        while int < PRODUCT_LIMIT {
            for base in [int, int + 1.0, int - 1.0, int + 0.5, int + 0.1, int + 0.9] {
                xs.push(base);
                let (mut below, mut above) = (base, base);
                for _ in 0..3 {
                    (below, above) = (below.next_down(), above.next_up());
                    xs.extend([below, above]);
                }
            }
            int = (int * 1.37).floor() + 1.0;
        }
        xs.retain(|x| (0.0..PRODUCT_LIMIT).contains(x));
        assert!(xs.len() > 2_000);
        for x in xs {
            assert_eq!(near_integer(x), near_integer_by_fraction(x), "{x:e}");
        }
    }

    #[test]
    fn m3_takes_neighbours_of_decimals_and_lossless_does_not() {
        let near = 46.0_f64.next_up();
        assert_eq!(Scaled::as_m3(near, 0), Some(Scaled { int: 46.0, mult: 0 }));
        assert_eq!(Scaled::exactly(near, 0), None);
        assert_eq!(Scaled::exactly(-1.25, 0), Some(Scaled { int: -125.0, mult: 2 }));
        assert_eq!(Scaled::exactly(-1.25, 3), Some(Scaled { int: -1250.0, mult: 3 }));
        assert_eq!(Scaled::as_m3(1e13 / 1e6, 6), None);
        assert_eq!(Scaled::as_m3(0.123_456_7, 0), None);
    }

    #[test]
    fn signed_zero_is_kept_apart() {
        let zero = Scaled::as_m3(-0.0, 0).expect("whole");
        assert_eq!(zero.int.to_bits(), (-0.0_f64).to_bits());
        assert_eq!(Scaled::as_m3(-0.0, 4).expect("whole").int.to_bits(), (-0.0_f64).to_bits());
        for mult_min in 0..=MULT_MAX {
            assert_eq!(Scaled::exactly(-0.0, mult_min), None);
            assert_eq!(Scaled::exactly(0.0, mult_min), Some(Scaled { int: 0.0, mult: mult_min }));
        }
    }

    #[test]
    fn bounds_are_sharp() {
        let two_52 = EXACT_INT_MAX;
        assert_eq!(Scaled::exactly(-two_52, 0), Some(Scaled { int: -two_52, mult: 0 }));
        assert_eq!(Scaled::exactly(two_52 + 1.0, 0), None);
        assert_eq!(Scaled::as_m3(TWO_POW_63, 0), None);
        assert!(Scaled::as_m3(TWO_POW_63.next_down(), 0).is_some());
        assert!(Scaled::as_m3(-1e300, 0).is_some());
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Scaled::as_m3(value, 0), None);
            assert_eq!(Scaled::as_m3(value, 3), None);
        }
    }
}
