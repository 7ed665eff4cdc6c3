//! The primitives that programs run on.

use std::hint::spin_loop;
use std::time::Duration;

use atomic::{AtomicU64, Ordering};

pub(crate) use parking_lot::{Mutex, MutexGuard};
pub(crate) use std::sync::atomic;
pub(crate) use triomphe::Arc;

/// How many references to this value exist. An Acquire read: whoever sees 1 sees all that former owners did.
pub(crate) fn count<T>(this: &Arc<T>) -> usize {
    Arc::count(this)
}

/// How often somebody looks for what should come soon before he sleeps: about 20 microseconds, what a sleep and a wake-up cost.
const LOOKS: u32 = 400;

/// Locks what is never held for long.
pub(crate) fn lock_soon<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    for _ in 0..LOOKS {
        // Reading first leaves the holder his cache line.
        if !mutex.is_locked()
            && let Some(guard) = mutex.try_lock()
        {
            return guard;
        }
        spin_loop();
    }
    mutex.lock()
}

/// A condition variable whose `wait` takes the guard by value, as loom's does.
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    condvar: parking_lot::Condvar,
    /// How often it was notified: what [`Condvar::wait_soon`] looks at.
    notified: AtomicU64,
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// As [`Condvar::wait`], for what should come soon. The guard is `mutex`'s, and whoever notifies holds it or has held it since the change.
    pub(crate) fn wait_soon<'a, T>(
        &self,
        mutex: &'a Mutex<T>,
        guard: MutexGuard<'a, T>,
    ) -> MutexGuard<'a, T> {
        let seen = self.notified.load(Ordering::Relaxed);
        drop(guard);
        for _ in 0..LOOKS {
            if self.notified.load(Ordering::Relaxed) != seen {
                return mutex.lock();
            }
            spin_loop();
        }
        let guard = mutex.lock();
        // What happened between the last look and this lock would wake nobody.
        match self.notified.load(Ordering::Relaxed) == seen {
            true => self.wait(guard),
            false => guard,
        }
    }

    /// Unlocks, sleeps until notified (or for no reason), locks again.
    pub(crate) fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.condvar.wait(&mut guard);
        guard
    }

    /// As [`Condvar::wait`], but for `timeout` at the longest.
    pub(crate) fn wait_for<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> MutexGuard<'a, T> {
        self.condvar.wait_for(&mut guard, timeout);
        guard
    }

    pub(crate) fn notify_all(&self) {
        self.notified.fetch_add(1, Ordering::Relaxed);
        self.condvar.notify_all();
    }
}

/// The current version of a `T`. Readers never block; a writer replaces the whole value.
#[derive(Debug)]
pub(crate) struct Published<T>(arc_swap::ArcSwapAny<Arc<T>>);

impl<T> Published<T> {
    pub(crate) fn new(first: Arc<T>) -> Self {
        Published(arc_swap::ArcSwapAny::new(first))
    }

    /// Runs `f` on the current version without touching its reference count. Keep `f` short: no I/O, no locks.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        f(&self.0.load())
    }

    /// The current version, kept alive by the returned handle.
    pub(crate) fn load(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Publishes `next` and returns what it replaces. Everything written before is visible to whoever loads `next`. On return no
    /// reader is half-way through taking the old version: its reference count is true.
    pub(crate) fn swap(&self, next: Arc<T>) -> Arc<T> {
        self.0.swap(next)
    }
}
