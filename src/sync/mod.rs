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
//! Nothing here spins: who waits, waits on a lock or a condition variable.

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

/// A mutable reference to what `this` points to, cloned first if anybody else can see it.
pub(crate) fn make_mut<T: Clone>(this: &mut Arc<T>) -> &mut T {
    if Arc::get_mut(this).is_none() {
        *this = Arc::new(T::clone(this));
    }
    Arc::get_mut(this).expect("a fresh Arc has one owner")
}
