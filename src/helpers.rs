//! Threads that opening has help from, as long as it has something for them to do.

use std::panic::resume_unwind;
use std::thread::{Builder, scope};

/// How many may help.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Helpers {
    /// Besides the thread that opens.
    pub(crate) workers: usize,
    /// With fewer bytes to read it is done sooner than they have begun.
    pub(crate) alone_bytes: u64,
}

impl Helpers {
    /// None.
    pub(crate) const NONE: Helpers = Helpers { workers: 0, alone_bytes: 0 };

    /// Does `here` in this thread, and `help` in the helpers' meanwhile, if there are so many bytes to read that it is worth it. Returns when all of them have: what helps
    /// must come to an end by itself, also if `here` panics. If a helper panics, this does.
    pub(crate) fn run<R>(&self, bytes: u64, help: &(impl Fn() + Sync), here: impl FnOnce() -> R) -> R {
        if self.workers == 0 || bytes < self.alone_bytes {
            return here();
        }
        scope(|scope| {
            let start = |number| {
                let named = Builder::new().name(format!("chronolith-open-{number}"));
                named.spawn_scoped(scope, help).ok()
            };
            // Without threads it takes longer.
            let threads: Vec<_> = (0..self.workers).map_while(start).collect();
            let result = here();
            for thread in threads {
                thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            }
            result
        })
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn they_help_if_there_is_enough_to_do() {
        let helpers = Helpers { workers: 3, alone_bytes: 100 };
        for (helpers, bytes, expected) in [(helpers, 100, 3), (helpers, 99, 0), (Helpers::NONE, 100, 0)] {
            let helped = AtomicUsize::new(0);
            let help = || {
                helped.fetch_add(1, Ordering::Relaxed);
            };
            assert_eq!(helpers.run(bytes, &help, || "done"), "done");
            assert_eq!(helped.into_inner(), expected);
        }
    }

    #[test]
    fn a_panic_of_a_helper_is_not_lost() {
        let helpers = Helpers { workers: 1, alone_bytes: 0 };
        let run = || helpers.run(1, &|| panic!("as planned"), || ());
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    }
}
