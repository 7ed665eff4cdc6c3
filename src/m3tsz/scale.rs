//! Which values are stored as scaled integers.
//!
//! `value = integer / 10^multiplier` with a multiplier of 0 to 6. M3 takes a value for such a quotient if the product
//! `value * 10^multiplier` lies below 10^13 and is an integer or a neighbour of one among the floating-point numbers.
//! That is right for decimals, whose products are rounded, and wrong for values that merely lie close to a decimal: so
//! a lossless encoder divides and compares.
//!
//! What makes it quick
//! * *One compare for the rule.* Positive floating-point numbers are ordered like their bits: neighbours are 1 apart.
//! * *The multiplier in force comes first.* Series of decimals stay with one.
//! * *Early rejection.* A value of full precision fails all multipliers, which one product can show: see
//!   [`has_no_multiplier`].

/// The largest multiplier.
pub(super) const MULT_MAX: u8 = 6;
/// Powers of ten, by multiplier; the last one only rounds the table up to a power of two.
const POW10: [f64; 8] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7];
/// Products from here on are not taken for integers.
const PRODUCT_LIMIT: f64 = 1e13;
/// 2^63, where integers stop to fit `i64`.
pub(super) const TWO_POW_63: f64 = 9_223_372_036_854_775_808.0;
/// 2^52, from where on there are no fractions. Integers up to here, of either sign, have differences that are exact in
/// floating point.
pub(super) const TWO_POW_52: f64 = 4_503_599_627_370_496.0;

/// A value as an integer, which is held as `f64`, and a multiplier.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Scaled {
    pub(super) int: f64,
    pub(super) mult: u8,
}

/// The power of ten of a multiplier, which is at most [`MULT_MAX`].
#[inline]
pub(super) fn power(mult: u8) -> f64 {
    POW10[usize::from(mult & 7)]
}

impl Scaled {
    /// The value that an integer and a multiplier stand for; the multiplier is at most [`MULT_MAX`].
    #[inline]
    pub(super) fn value(self) -> f64 {
        // A division by 1 changes nothing.
        self.int / power(self.mult)
    }

    /// `value` as a scaled integer that decodes to exactly `value`, wherever in a stream it stands.
    #[inline(always)]
    pub(super) fn exactly(value: f64, mult_min: u8) -> Option<Scaled> {
        // A zero of either sign decodes as +0.0.
        if value.to_bits() == (-0.0_f64).to_bits() {
            return None;
        }
        if mult_min == 0 && is_small_integer(value) {
            return Some(Scaled { int: value, mult: 0 });
        }
        Scaled::decimal(value, mult_min).filter(|scaled| scaled.value().to_bits() == value.to_bits())
    }

    /// `value` as M3 scales it, starting at multiplier `mult_min`: possibly a neighbour of `value`, and without a lower
    /// bound for whole numbers.
    #[inline(always)]
    pub(super) fn as_m3(value: f64, mult_min: u8) -> Option<Scaled> {
        // From 2^52 on there are integers only.
        let is_integer = || is_small_integer(value) || value.abs() >= TWO_POW_52 && value.is_finite();
        if mult_min == 0 && value < TWO_POW_63 && is_integer() {
            return Some(Scaled { int: value, mult: 0 });
        }
        Scaled::decimal(value, mult_min)
    }

    /// A value whose product with a power of ten is next to an integer below the limit: with the smallest from `mult_min` on.
    #[inline(always)]
    fn decimal(value: f64, mult_min: u8) -> Option<Scaled> {
        let magnitude = value.abs();
        if mult_min > 0
            && let Some(int) = near_integer(magnitude * power(mult_min))
        {
            return Some(Scaled { int: int.copysign(value), mult: mult_min });
        }
        if has_no_multiplier(magnitude) { None } else { Scaled::search(value, mult_min) }
    }

    /// Tries one multiplier after the other.
    #[inline(never)]
    fn search(value: f64, mult_min: u8) -> Option<Scaled> {
        (mult_min..=MULT_MAX).find_map(|mult| {
            let int = near_integer(value.abs() * power(mult))?;
            Some(Scaled { int: int.copysign(value), mult })
        })
    }
}

/// Whether a value is an integer of at most 2^52.
#[inline(always)]
fn is_small_integer(value: f64) -> bool {
    let magnitude = value.abs();
    // 2^52 comes back as itself; what is larger the second comparison refuses.
    nearest_integer(magnitude) == magnitude && magnitude <= TWO_POW_52
}

/// The integer that is `x` or its neighbour, if `x` is below the limit; `x` is not negative.
///
/// M3 asks in another way: the fraction must be below 0.1 or above 0.9, and the next number towards the integer must
/// reach it. Below 10^13 numbers are at most 2^-9 apart, so that a neighbour's fraction always is.
#[inline(always)]
fn near_integer(x: f64) -> Option<f64> {
    let int = nearest_integer(x);
    (x < PRODUCT_LIMIT && bits_apart(int, x) <= 1).then_some(int)
}

/// Whether one product shows that no multiplier makes an integer of `magnitude`; if not, nothing is known.
///
/// Say that multiplier `k` does: the product `p` of `magnitude` and 10^k, rounded, is the neighbour of an integer `n`.
/// Relative to its size, rounding moves `p` by 2^-53 at most and the step to `n` by 2^-52. Then `n * 10^(6-k)`, an
/// integer as well, is as close to `magnitude * 10^6`; which rounding moves by another 2^-53. Together that is 2^-51, or 4 places
/// of the largest product, as its neighbours are 2^-53 of it away or more. A few are added for terms of second order. (From 2^50
/// on, 2^-51 of the product could reach the next integer; and below a half the integer is 0, whose neighbours are not relative.)
#[inline(always)]
fn has_no_multiplier(magnitude: f64) -> bool {
    const PLACES: u64 = 8;
    let product = magnitude * power(MULT_MAX);
    (0.5..TWO_POW_52 / 4.0).contains(&product) && bits_apart(nearest_integer(product), product) > PLACES
}

/// How many floating-point numbers `a` lies away from `b`; neither is negative.
#[inline(always)]
fn bits_apart(a: f64, b: f64) -> u64 {
    a.to_bits().abs_diff(b.to_bits())
}

/// The integer nearest to `x`, the even one of two, if `0 <= x < 2^52`. Larger numbers, which are integers, may come
/// back as their neighbours.
///
/// From 2^52 on, floating-point numbers are the integers, so the addition rounds. Quicker than `trunc`, which is a call
/// where SSE 4.1 is not assumed, and than converting to an integer and back.
#[inline(always)]
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
    fn early_rejection_never_rejects_what_a_multiplier_takes() {
        let mut state = 1_u64;
        let (mut taken, mut rejected) = (0, 0);
        for _ in 0..300_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let int = (state >> 20) >> (state % 44);
            let mult = (state >> 13) as u8 % (MULT_MAX + 1);
            let decimal = int as f64 / power(mult);
            let mut magnitude = decimal;
            for _ in 0..12 {
                let is_taken = (0..=MULT_MAX).any(|mult| near_integer(magnitude * power(mult)).is_some());
                assert!(!(is_taken && has_no_multiplier(magnitude)), "{magnitude:e}");
                taken += u32::from(is_taken);
                rejected += u32::from(has_no_multiplier(magnitude));
                magnitude =
                    if state >> 63 == 0 { magnitude.next_up() } else { magnitude.next_down().max(0.0) };
            }
            let random = f64::from_bits(state >> 1);
            assert!(!has_no_multiplier(random) || Scaled::search(random, 0).is_none(), "{random:e}");
        }
        assert!(taken > 100_000 && rejected > 100_000, "{taken} taken, {rejected} rejected");
        for tiny in [f64::from_bits(1), f64::from_bits(2), f64::MIN_POSITIVE, 4.9e-7] {
            assert!(!has_no_multiplier(tiny));
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
        let two_52 = TWO_POW_52;
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
