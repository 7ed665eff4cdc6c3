//! Deterministic data in the shapes that monitoring produces.
#![allow(dead_code, reason = "not every bench uses all of it")]

/// What a metric's values look like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// An integer that grows by a few.
    Counter,
    /// An integer that wanders.
    Gauge,
    /// A value of two decimals that wanders.
    Decimal,
    /// Always the same.
    Constant,
    /// Random doubles of full precision.
    Random,
}

impl Shape {
    pub(crate) const ALL: [Shape; 5] =
        [Shape::Counter, Shape::Gauge, Shape::Decimal, Shape::Constant, Shape::Random];

    /// The shape of metric `index` in the mix: 25 % counters, 25 % gauges, 25 % decimals, 10 % constants, 15 % random.
    pub(crate) fn of(index: usize) -> Self {
        match index % 20 {
            0..=4 => Shape::Counter,
            5..=9 => Shape::Gauge,
            10..=14 => Shape::Decimal,
            15..=16 => Shape::Constant,
            _ => Shape::Random,
        }
    }
}

/// One metric's values, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    shape: Shape,
    state: u64,
    hundredths: i64,
}

impl Values {
    pub(crate) fn new(shape: Shape, seed: u64) -> Self {
        Values { shape, state: seed, hundredths: 5_000 }
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn next_value(&mut self) -> f64 {
        let random = self.random();
        match self.shape {
            Shape::Counter => self.hundredths += (random % 16) as i64,
            Shape::Gauge | Shape::Decimal => self.hundredths += (random % 9) as i64 - 4,
            Shape::Constant => {}
            Shape::Random => return (random >> 11) as f64 / (1u64 << 53) as f64,
        }
        match self.shape {
            Shape::Decimal => self.hundredths as f64 / 100.0,
            _ => self.hundredths as f64,
        }
    }
}
