//! The primitives that programs run on.

use std::time::Duration;

pub(crate) use parking_lot::{Mutex, MutexGuard};
pub(crate) use std::sync::atomic;
pub(crate) use triomphe::Arc;

/// How many references to this value exist. An Acquire read: whoever sees 1 sees all that former owners did.
pub(crate) fn count<T>(this: &Arc<T>) -> usize {
    Arc::count(this)
}

/// A condition variable whose `wait` takes the guard by value, as loom's does.
#[derive(Debug, Default)]
pub(crate) struct Condvar(parking_lot::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Unlocks, sleeps until notified (or for no reason), locks again.
    pub(crate) fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(&mut guard);
        guard
    }

    /// As [`Condvar::wait`], but for `timeout` at the longest.
    pub(crate) fn wait_for<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> MutexGuard<'a, T> {
        self.0.wait_for(&mut guard, timeout);
        guard
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
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
