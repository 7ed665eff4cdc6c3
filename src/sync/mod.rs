//! The concurrency primitives: the one place that names the crates they come from.
//!
//! Everything above is written against this surface, the intersection of what the real primitives and their models offer:
//!
//! | name | real | under `cfg(loom)` |
//! | --- | --- | --- |
//! | [`Arc`] | triomphe's, without weak counts | loom's |
//! | [`Mutex`], [`Condvar`] | parking_lot's, without poisoning | loom's, made to switch threads at an unlock |
//! | [`Published`] | arc-swap's pointer | a lock, or (`cfg(loom_ordered)`) an Acquire / AcqRel index |
//! | [`atomic`] | std's | loom's |
//!
//! Nothing here spins: who waits, waits on a lock or a condition variable.

#[cfg(not(loom))]
mod real;
#[cfg(not(loom))]
pub(crate) use real::*;

#[cfg(loom)]
mod model;
#[cfg(loom)]
pub(crate) use model::*;

/// A mutable reference to what `this` points to, cloned first if anybody else can see it.
pub(crate) fn make_mut<T: Clone>(this: &mut Arc<T>) -> &mut T {
    if Arc::get_mut(this).is_none() {
        *this = Arc::new(T::clone(this));
    }
    Arc::get_mut(this).expect("a fresh Arc has one owner")
}
