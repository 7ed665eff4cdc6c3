//! How much memory the partitions of a database take: an estimate that is cheap to keep.
//!
//! Each partition tells its share when it has changed by more than a little, and gives it back when it goes. Counted are streams, side
//! entries, tombstones, and an allowance for what is around each stream and each partition; not counted are maps, names, and what readers
//! copied. What readers share counts until they let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Of all partitions. A clone is a reference. (std's types: what it says orders nothing, so that models need not see it.)
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// All shares.
    bytes: AtomicU64,
    /// What was ever given back.
    freed: AtomicU64,
}

/// One partition's share.
#[derive(Debug)]
pub(super) struct Share {
    memory: Memory,
    bytes: u64,
}

/// A share is told anew when it differs by so many bytes.
const GRAIN: u64 = 64;

impl Memory {
    /// About how many bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// About how many were ever given back: tells what came of something that was to free some, whatever is added meanwhile.
    pub(crate) fn freed(&self) -> u64 {
        self.0.freed.load(Ordering::Relaxed)
    }

    /// A share of so many bytes.
    pub(super) fn share(&self, bytes: u64) -> Share {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        Share { memory: self.clone(), bytes }
    }

    fn free(&self, bytes: u64) {
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.0.freed.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Share {
    /// Whose share it is.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Makes it so many bytes, or about that.
    pub(super) fn set(&mut self, bytes: u64) {
        if bytes.abs_diff(self.bytes) < GRAIN {
            return;
        }
        if bytes > self.bytes {
            self.memory.0.bytes.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.memory.free(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.free(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_are_given_back() {
        let memory = Memory::default();
        let mut one = memory.share(100);
        let two = memory.share(1_000);
        one.set(100 + GRAIN - 1);
        assert_eq!(memory.bytes(), 1_100, "too little to tell");
        one.set(5_000);
        assert_eq!(memory.bytes(), 6_000);
        one.set(0);
        assert_eq!(memory.bytes(), 1_000);
        assert_eq!(memory.freed(), 5_000);
        drop((one, two));
        assert_eq!((memory.bytes(), memory.freed()), (0, 6_000));
    }
}
