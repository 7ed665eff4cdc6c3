//! How many of a volume's metrics do not name it any more, since they were dropped or their points deleted: so that a volume that is mostly dead
//! is written anew, and one that is dead altogether goes.
//!
//! Counting exactly reads the volume's whole table. So what is gone is noted when it goes, which may be too much, as not each metric whose
//! map names a volume has points in it; and from time to time, when so much is noted that it may matter, it is counted.

use std::sync::atomic::{AtomicU32, Ordering};

/// See the module. (std's atomics: they order nothing, so that models need not see them.)
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// How many metrics the volume has; 0 until they were counted.
    metrics: AtomicU32,
    /// How many of them were gone then.
    counted: AtomicU32,
    /// How many went since, at most.
    noted: AtomicU32,
}

/// Counting again is worth it when one in so many metrics may have gone since.
const RECOUNT_ONE_IN: u64 = 8;

impl Gone {
    /// One more went, perhaps.
    pub(super) fn note(&self) {
        // Saturating, or else the next count would be far off.
        let _ = self.noted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |noted| noted.checked_add(1));
    }

    /// Whether they were never counted.
    pub(super) fn is_unknown(&self) -> bool {
        self.metrics.load(Ordering::Relaxed) == 0
    }

    /// Whether half of them may be gone, and enough went since the last count that counting is worth it.
    pub(super) fn may_be_half(&self) -> bool {
        let [metrics, counted, noted] = [&self.metrics, &self.counted, &self.noted]
            .map(|number| u64::from(number.load(Ordering::Relaxed)));
        noted > 0 && 2 * (counted + noted) >= metrics && noted * RECOUNT_ONE_IN >= metrics
    }

    /// What a count found that was begun when [`noted`](Gone::noted) were noted. Returns whether at least half is gone.
    pub(super) fn set(&self, metrics: u32, gone: u32, noted: u32) -> bool {
        self.metrics.store(metrics.max(1), Ordering::Relaxed);
        self.counted.store(gone, Ordering::Relaxed);
        self.noted.fetch_sub(noted, Ordering::Relaxed);
        2 * u64::from(gone) >= u64::from(metrics)
    }

    /// They cannot be counted.
    pub(super) fn give_up(&self) {
        self.metrics.store(u32::MAX, Ordering::Relaxed);
    }

    /// How many went since the last count, at most. Only who counts makes it less.
    pub(super) fn noted(&self) -> u32 {
        self.noted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_is_asked_for_when_half_may_be_gone_and_not_again_at_once() {
        let gone = Gone::default();
        assert!(gone.is_unknown() && !gone.may_be_half());
        assert!(!gone.set(100, 0, 0), "none of 100");
        let note = |times: u32| (0..times).for_each(|_| gone.note());
        note(49);
        assert!(!gone.may_be_half());
        note(1);
        assert!(gone.may_be_half());
        // Most of those had no points in it.
        let noted = gone.noted();
        note(1);
        assert!(!gone.set(100, 45, noted));
        assert_eq!(gone.noted(), 1, "what went meanwhile stays noted");
        note(11);
        assert!(!gone.may_be_half(), "57 may be gone, but only 12 more than were counted");
        note(1);
        assert!(gone.may_be_half());
        assert!(gone.set(100, 50, gone.noted()));
    }
}
