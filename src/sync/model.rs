//! The same surface for loom's model checker.
//!
//! loom does not switch threads at an unlock, so a `try_lock` that fails just before one would never be explored. This
//! [`Mutex`] therefore touches an atomic before it releases and before it tries.
//!
//! When a model fails, loom unwinds threads that it no longer runs, and whatever of it is touched there panics again, which would abort
//! the process instead of failing the test. So a panicking thread leaks references and guards.

use std::time::Duration;

pub(crate) use loom::sync::atomic;

use atomic::{AtomicUsize, Ordering};

/// How many references to this value exist.
pub(crate) fn count<T>(this: &Arc<T>) -> usize {
    loom::sync::Arc::strong_count(this.inner())
}

/// loom's counted reference.
#[derive(Debug)]
pub(crate) struct Arc<T>(Option<loom::sync::Arc<T>>);

impl<T> Arc<T> {
    pub(crate) fn new(value: T) -> Self {
        Arc(Some(loom::sync::Arc::new(value)))
    }

    pub(crate) fn get_mut(this: &mut Self) -> Option<&mut T> {
        loom::sync::Arc::get_mut(this.0.as_mut().expect("present until dropped"))
    }

    pub(crate) fn ptr_eq(this: &Self, other: &Self) -> bool {
        loom::sync::Arc::ptr_eq(this.inner(), other.inner())
    }

    fn inner(&self) -> &loom::sync::Arc<T> {
        self.0.as_ref().expect("present until dropped")
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        Arc(Some(self.inner().clone()))
    }
}

impl<T: Default> Default for Arc<T> {
    fn default() -> Self {
        Arc::new(T::default())
    }
}

impl<T> std::ops::Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner()
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.0.take());
        }
    }
}

/// A lock without poisoning, at whose release loom considers every other thread.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T> {
    lock: loom::sync::Mutex<T>,
    switch: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    /// `None` only while a [`Condvar`] has it.
    guard: Option<loom::sync::MutexGuard<'a, T>>,
    mutex: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex { lock: loom::sync::Mutex::new(value), switch: AtomicUsize::new(0) }
    }

    #[track_caller]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let guard = self.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        MutexGuard { guard: Some(guard), mutex: self }
    }

    pub(crate) fn into_inner(self) -> T {
        self.lock.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.switch.load(Ordering::Relaxed);
        let guard = self.lock.try_lock().ok()?;
        Some(MutexGuard { guard: Some(guard), mutex: self })
    }
}

impl<T> std::ops::Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("held")
    }
}

impl<T> std::ops::DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("held")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.guard.take());
        }
        if self.guard.is_some() {
            self.mutex.switch.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// In a model nobody looks before he sleeps.
#[track_caller]
pub(crate) fn lock_soon<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

/// loom's condition variable over [`MutexGuard`]. Time does not pass in a model: `wait_for` waits until notified.
#[derive(Debug, Default)]
pub(crate) struct Condvar(loom::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    #[track_caller]
    pub(crate) fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let mutex = guard.mutex;
        let inner = guard.guard.take().expect("held");
        drop(guard);
        let inner = self.0.wait(inner).unwrap_or_else(|poisoned| poisoned.into_inner());
        MutexGuard { guard: Some(inner), mutex }
    }

    #[track_caller]
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

/// Right about which version is current and when it dies: a lock around the pointer.
#[cfg(not(loom_ordered))]
#[derive(Debug)]
pub(crate) struct Published<T>(loom::sync::Mutex<Arc<T>>);

#[cfg(not(loom_ordered))]
impl<T> Published<T> {
    pub(crate) fn new(first: Arc<T>) -> Self {
        Published(loom::sync::Mutex::new(first))
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        f(&self.load())
    }

    pub(crate) fn load(&self) -> Arc<T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub(crate) fn swap(&self, next: Arc<T>) -> Arc<T> {
        let mut current = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::replace(&mut *current, next)
    }
}

/// Right about ordering: an index that is loaded with Acquire and swapped with AcqRel, into a list that keeps every version
/// alive and that loom does not see. (The list's lock must not be held while loom may switch threads, as it may in the clone
/// of its own `Arc`: so the entries sit behind std's.)
#[cfg(loom_ordered)]
#[derive(Debug)]
pub(crate) struct Published<T> {
    current: AtomicUsize,
    versions: std::sync::Mutex<Vec<std::sync::Arc<Arc<T>>>>,
}

#[cfg(loom_ordered)]
impl<T> Published<T> {
    pub(crate) fn new(first: Arc<T>) -> Self {
        let versions = std::sync::Mutex::new(vec![std::sync::Arc::new(first)]);
        Published { current: AtomicUsize::new(0), versions }
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        f(&self.load())
    }

    pub(crate) fn load(&self) -> Arc<T> {
        self.version(self.current.load(Ordering::Acquire))
    }

    pub(crate) fn swap(&self, next: Arc<T>) -> Arc<T> {
        let index = {
            let mut versions = self.versions.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            versions.push(std::sync::Arc::new(next));
            versions.len() - 1
        };
        self.version(self.current.swap(index, Ordering::AcqRel))
    }

    fn version(&self, index: usize) -> Arc<T> {
        let entry = {
            let versions = self.versions.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            versions[index].clone()
        };
        Arc::clone(&entry)
    }
}
