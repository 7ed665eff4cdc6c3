//! MurmurHash3, by which M3 chooses shards (32 bits) and sets the bits of bloom filters (128 bits, the variant for 64-bit machines).
//!
//! The algorithm is in the public domain. It has no secret: whoever chooses IDs can make them collide.

const BLOCK32: usize = 4;
const BLOCK128: usize = 16;

/// The 32-bit hash.
pub(super) fn murmur3_32(bytes: &[u8], seed: u32) -> u32 {
    let scrambled = |block: u32| block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (blocks, tail) = bytes.as_chunks::<BLOCK32>();
    let mut hash = seed;
    for block in blocks {
        hash ^= scrambled(u32::from_le_bytes(*block));
        hash = hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let mut last = [0; BLOCK32];
    last[..tail.len()].copy_from_slice(tail);
    // A tail of nothing is zeros, and scrambles to zero.
    hash ^= scrambled(u32::from_le_bytes(last));
    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// The 128-bit hashes of `bytes` and of `bytes` with a byte 1 behind it, seed 0, each as two numbers.
///
/// Cost: one pass; only the last block is hashed twice.
pub(super) fn murmur3_128_pair(bytes: &[u8]) -> [(u64, u64); 2] {
    let (blocks, tail) = bytes.as_chunks::<BLOCK128>();
    let mut state = State128::default();
    blocks.iter().for_each(|block| state.take_block(block));
    let mut last = [0; BLOCK128];
    last[..tail.len()].copy_from_slice(tail);
    let first = state.finish(&last, bytes.len() as u64);
    last[tail.len()] = 1;
    if tail.len() + 1 == BLOCK128 {
        state.take_block(&last);
        last = [0; BLOCK128];
    }
    [first, state.finish(&last, bytes.len() as u64 + 1)]
}

/// The two numbers of a 128-bit hash on their way.
#[derive(Clone, Copy, Default)]
struct State128 {
    low: u64,
    high: u64,
}

impl State128 {
    fn take_block(&mut self, block: &[u8; BLOCK128]) {
        let (low, high) = scrambled128(block);
        self.low = (self.low ^ low).rotate_left(27).wrapping_add(self.high);
        self.low = self.low.wrapping_mul(5).wrapping_add(0x52dc_e729);
        self.high = (self.high ^ high).rotate_left(31).wrapping_add(self.low);
        self.high = self.high.wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }

    /// The hash, after the bytes behind the last whole block, filled up with zeros.
    fn finish(self, tail: &[u8; BLOCK128], len: u64) -> (u64, u64) {
        let (low, high) = scrambled128(tail);
        let (mut low, mut high) = (self.low ^ low ^ len, self.high ^ high ^ len);
        low = low.wrapping_add(high);
        high = high.wrapping_add(low);
        (low, high) = (avalanche(low), avalanche(high));
        low = low.wrapping_add(high);
        (low, high.wrapping_add(low))
    }
}

/// The halves of a block, scrambled; zeros stay zeros.
fn scrambled128(block: &[u8; BLOCK128]) -> (u64, u64) {
    const A: u64 = 0x87c3_7b91_1142_53d5;
    const B: u64 = 0x4cf5_ad43_2745_937f;
    let block = u128::from_le_bytes(*block);
    let (low, high) = (block as u64, (block >> 64) as u64);
    (
        low.wrapping_mul(A).rotate_left(31).wrapping_mul(B),
        high.wrapping_mul(B).rotate_left(33).wrapping_mul(A),
    )
}

/// Spreads each bit over all bits.
fn avalanche(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ bits >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ bits >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes_of_32_bits() {
        for (bytes, seed, hash) in [
            (&b""[..], 0, 0),
            (b"", 1, 0x514e_28b7),
            (b"test", 0, 0xba6b_d213),
            (b"test", 0x9747_b28c, 0x704b_81dc),
            (b"Hello, world!", 0x9747_b28c, 0x2488_4cba),
            (b"The quick brown fox jumps over the lazy dog", 0, 0x2e4f_f723),
        ] {
            assert_eq!(murmur3_32(bytes, seed), hash, "{bytes:?}, {seed}");
        }
    }

    #[test]
    fn known_hashes_of_128_bits() {
        let fox = b"The quick brown fox jumps over the lazy dog";
        assert_eq!(murmur3_128_pair(b"")[0], (0, 0));
        assert_eq!(murmur3_128_pair(fox)[0], (0xe34b_bc7b_bc07_1b6c, 0x7a43_3ca9_c49a_9347));
    }

    #[test]
    fn second_hash_is_that_of_one_more_byte() {
        let bytes: Vec<u8> = (1..=70).collect();
        for len in 0..bytes.len() {
            let longer = [&bytes[..len], &[1]].concat();
            assert_eq!(murmur3_128_pair(&bytes[..len])[1], murmur3_128_pair(&longer)[0], "{len}");
        }
    }
}
