//! A small generator of numbers, the same on every machine: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).

/// A sequence of numbers that depends on its seed alone.
#[derive(Clone, Debug)]
pub(in crate::io) struct Random {
    state: u64,
}

impl Random {
    pub(in crate::io) fn new(seed: u64) -> Self {
        Random { state: seed }
    }

    /// For one of many things that share a seed: a sequence that does not depend on how much the others draw.
    pub(in crate::io) fn of(seed: u64, part: u64) -> Self {
        Random::new(Random::new(seed).next() ^ part)
    }

    pub(in crate::io) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub(in crate::io) fn below(&mut self, limit: u64) -> u64 {
        // The high half of the product: even enough for limits far below 2^64.
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// True in `of_ten` of ten cases.
    pub(in crate::io) fn chance(&mut self, of_ten: u64) -> bool {
        self.below(10) < of_ten
    }

    pub(in crate::io) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.next().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}
