//! The concurrency primitives: the one place that names the crates they come from.
//!
//! Everything above is written against this surface, the intersection of what the real primitives and their models offer:
//!
//! | name | real | under `cfg(loom)` | under `cfg(shuttle)` |
//! | --- | --- | --- | --- |
//! | [`Arc`] | triomphe's, without weak counts | loom's | triomphe's |
//! | [`Mutex`], [`Condvar`] | parking_lot's, without poisoning | loom's, made to switch threads at an unlock | shuttle's |
//! | [`Published`] | arc-swap's pointer | a lock, or (`cfg(loom_ordered)`) an Acquire / AcqRel index | a lock |
//! | [`atomic`] | std's | loom's | shuttle's |
//!
//! Who waits, waits on a lock or a condition variable. What takes microseconds is looked for that long before the thread sleeps, as sleeping and
//! being woken takes several times longer: [`lock_soon`], [`Condvar::wait_soon`]. In models these are `lock` and `wait`.

#[cfg(not(any(loom, shuttle)))]
mod real;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use real::*;

#[cfg(shuttle)]
mod shuttle;
#[cfg(shuttle)]
pub(crate) use shuttle::*;

#[cfg(loom)]
mod model;
#[cfg(loom)]
pub(crate) use model::*;

/// The number of this thread: 0, 1 and so on, in the order in which threads asked. In models, where it would differ from run to run, always 0.
pub(crate) fn thread_number() -> usize {
    #[cfg(not(any(loom, shuttle)))]
    {
        use std::cell::Cell;
        static THREADS: atomic::AtomicUsize = atomic::AtomicUsize::new(0);
        thread_local!(static NUMBER: Cell<Option<usize>> = const { Cell::new(None) });
        NUMBER.get().unwrap_or_else(|| {
            let number = THREADS.fetch_add(1, atomic::Ordering::Relaxed);
            NUMBER.set(Some(number));
            number
        })
    }
    #[cfg(any(loom, shuttle))]
    0
}

/// What `this` points to, cloned if anybody else can see it.
pub(crate) fn take_or_clone<T: Clone + Default>(mut this: Arc<T>) -> T {
    Arc::get_mut(&mut this).map(std::mem::take).unwrap_or_else(|| T::clone(&this))
}

/// A mutable reference to what `this` points to, cloned first if anybody else can see it.
pub(crate) fn make_mut<T: Clone>(this: &mut Arc<T>) -> &mut T {
    if Arc::get_mut(this).is_none() {
        *this = Arc::new(T::clone(this));
    }
    Arc::get_mut(this).expect("a fresh Arc has one owner")
}
