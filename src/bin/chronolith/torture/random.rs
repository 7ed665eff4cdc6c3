//! Random numbers that are the same on every machine, for ever.

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The numbers for one purpose of one op.
    pub(crate) fn of(seed: u64, writer: u32, number: u64, purpose: u64) -> Random {
        let mut state = seed;
        for part in [u64::from(writer), number, purpose] {
            state = Random(state ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93)).next();
        }
        Random(state)
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}
