//! The bloom filter: whether a volume may have an ID.
//!
//! A file of 64-bit words, little endian; bit `i` is bit `i % 64` of word `i / 64`. How many bits count and how many
//! are set for an ID is in the info file. Format: `design/m3-fileset.md`, "Bloom filter".

use std::f64::consts::LN_2;

use super::damage::Damage;
use super::murmur3::murmur3_128_pair;

/// How often a filter may say yes to an ID that was not added: M3's default.
const FALSE_POSITIVES: f64 = 0.02;
/// More bits for an ID than this no filter has that anybody would make.
const HASHES_MAX: u64 = 64;
const WORD_BYTES: u64 = 8;

/// How large a filter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BloomShape {
    /// The number of bits that count, `M`.
    pub bits: u64,
    /// How many bits are set for an ID, `k`.
    pub hashes: u64,
}

impl BloomShape {
    /// The shape for this many IDs.
    pub(super) fn for_entries(entries: u64) -> Self {
        let entries = entries.max(1) as f64;
        let bits = -entries * FALSE_POSITIVES.ln() / (LN_2 * LN_2);
        BloomShape { bits: bits.ceil() as u64, hashes: (bits / entries * LN_2).ceil() as u64 }
    }

    fn words(self) -> u64 {
        self.bits / 64 + 1
    }

    /// The bits of an ID.
    fn positions(self, id: &[u8]) -> impl Iterator<Item = u64> {
        let [(h0, h1), (h2, h3)] = murmur3_128_pair(id);
        let hash = [h0, h1, h2, h3];
        (0..self.hashes).map(move |i| {
            let odd = i % 2;
            let step = hash[2 + ((i + odd) % 4 / 2) as usize];
            hash[odd as usize].wrapping_add(i.wrapping_mul(step)) % self.bits
        })
    }
}

/// A filter that is being made. Takes about a byte for each ID.
#[derive(Debug)]
pub(super) struct BloomBuilder {
    shape: BloomShape,
    bytes: Vec<u8>,
}

impl BloomBuilder {
    pub(super) fn new(shape: BloomShape) -> Self {
        BloomBuilder { shape, bytes: vec![0; (WORD_BYTES * shape.words()) as usize] }
    }

    pub(super) fn shape(&self) -> BloomShape {
        self.shape
    }

    pub(super) fn add(&mut self, id: &[u8]) {
        // Little-endian words: bit i of the file is bit i % 8 of byte i / 8.
        self.shape.positions(id).for_each(|bit| self.bytes[(bit / 8) as usize] |= 1 << (bit % 8));
    }

    /// The file's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A filter that was read.
#[derive(Debug)]
pub(super) struct BloomFilter<B> {
    shape: BloomShape,
    bytes: B,
}

impl<B: AsRef<[u8]>> BloomFilter<B> {
    /// The filter in `bytes`, of the shape that the info file gives.
    pub(super) fn new(shape: BloomShape, bytes: B) -> Result<Self, Damage> {
        let len = bytes.as_ref().len() as u64;
        if shape.bits == 0 || shape.hashes > HASHES_MAX || Some(len) != shape.words().checked_mul(WORD_BYTES)
        {
            return Err(Damage {
                offset: len,
                reason: "its length is not that of the filter in the info file",
            });
        }
        Ok(BloomFilter { shape, bytes })
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// Whether the ID may have been added; never `false` for one that was.
    pub(super) fn may_contain(&self, id: &[u8]) -> bool {
        let bytes = self.bytes.as_ref();
        let is_set = |bit: u64| bytes.get((bit / 8) as usize).is_some_and(|byte| byte >> (bit % 8) & 1 == 1);
        self.shape.positions(id).all(is_set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_m3s() {
        for (entries, bits) in
            [(0, 9), (1, 9), (2, 17), (20, 163), (40, 326), (41, 334), (184, 1499), (205, 1670)]
        {
            assert_eq!(BloomShape::for_entries(entries), BloomShape { bits, hashes: 6 });
        }
    }

    #[test]
    fn added_ids_are_found_and_few_others_are() {
        let mut builder = BloomBuilder::new(BloomShape::for_entries(10_000));
        let id = |n: u32| format!("metric-{n}").into_bytes();
        (0..10_000).for_each(|n| builder.add(&id(n)));
        let filter = BloomFilter::new(builder.shape(), builder.bytes()).expect("its own shape");
        assert!((0..10_000).all(|n| filter.may_contain(&id(n))));
        let false_positives = (10_000..20_000).filter(|n| filter.may_contain(&id(*n))).count();
        assert!((100..300).contains(&false_positives), "{false_positives}");
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let shape = |bits, hashes| BloomShape { bits, hashes };
        assert!(BloomFilter::new(shape(63, 6), [0; 8]).is_ok());
        for shape in [shape(0, 6), shape(64, 6), shape(u64::MAX, 6), shape(63, u64::MAX)] {
            assert!(BloomFilter::new(shape, [0; 8]).is_err(), "{shape:?}");
        }
    }
}
