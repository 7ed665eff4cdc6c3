//! The same surface for shuttle, which runs the whole engine in random schedules instead of a model of it in all.
//!
//! shuttle switches threads when one is about to take a lock, has released it, or touches an atomic; atomics are as if all were
//! sequentially consistent, so orderings are for loom to check. Threads share one thread of the operating system: what is not in here (reference
//! counts, the disks' own locks) happens without a switch and needs no model, but may not be waited for.
//!
//! Time does not pass: `wait_for` waits until notified. So there is no worker (`workers(0)`); a test calls `maintain`.

use std::time::Duration;

pub(crate) use ::shuttle::sync::{MutexGuard, atomic};
pub(crate) use triomphe::Arc;

/// How many references to this value exist.
pub(crate) fn count<T>(this: &Arc<T>) -> usize {
    Arc::count(this)
}

/// A lock without poisoning.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(::shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex(::shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}

/// In a model nobody looks before he sleeps.
pub(crate) fn lock_soon<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

/// shuttle's condition variable; nobody wakes for no reason.
#[derive(Debug, Default)]
pub(crate) struct Condvar(::shuttle::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn wait_soon<'a, T>(&self, _: &'a Mutex<T>, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.wait(guard)
    }

    pub(crate) fn wait_for<'a, T>(&self, guard: MutexGuard<'a, T>, _: Duration) -> MutexGuard<'a, T> {
        self.wait(guard)
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// The published pointer as a lock around it: right about which version is current and when it dies.
#[derive(Debug)]
pub(crate) struct Published<T>(Mutex<Arc<T>>);

impl<T> Published<T> {
    pub(crate) fn new(first: Arc<T>) -> Self {
        Published(Mutex::new(first))
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        f(&self.load())
    }

    pub(crate) fn load(&self) -> Arc<T> {
        self.0.lock().clone()
    }

    pub(crate) fn swap(&self, next: Arc<T>) -> Arc<T> {
        std::mem::replace(&mut *self.0.lock(), next)
    }
}
