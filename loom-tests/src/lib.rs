//! Model checks of the commit protocol. See the README beside this crate.

#[cfg(not(loom))]
compile_error!("run `cargo loom` in the repository's root: without `--cfg loom` nothing would be checked");

#[cfg(loom)]
pub mod protocol;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Preemptions that find all planted bugs; two miss some.
pub const BOUND: usize = 3;

/// Runs a model in every interleaving that takes the processor from a thread that could go on at most [`BOUND`] times, and
/// prints how many those were.
pub fn check(name: &str, model: impl Fn() + Send + Sync + 'static) {
    // Not loom's: it counts across interleavings.
    let interleavings = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(BOUND);
    builder.max_branches = 50_000;
    let counter = interleavings.clone();
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let count = interleavings.load(Ordering::Relaxed);
    println!("{name}: {count} interleavings, {:.1} s", begin.elapsed().as_secs_f64());
}

/// A counted reference for the threads of a model. loom unwinds the threads of a model that failed, and a reference count of its own, touched
/// there, would abort the process; so a panicking thread leaks it. A [`Database`](chronolith::Database) does the same for itself.
#[derive(Debug)]
pub struct Shared<T>(Option<loom::sync::Arc<T>>);

impl<T> Shared<T> {
    pub fn new(value: T) -> Self {
        Shared(Some(loom::sync::Arc::new(value)))
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<T> std::ops::Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("present until dropped")
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let inner = self.0.take();
        if std::thread::panicking() {
            std::mem::forget(inner);
        }
    }
}

/// Declares a model that passes, and its twins with a planted bug each that must not, and must fail with the text of the sentence that the
/// bug breaks: a model that fails otherwise, or that has become too large, has found nothing.
#[macro_export]
macro_rules! invariant {
    ($name:ident: $model:expr; $($(#[$only:meta])* $twin:ident: $bug:ident, $expected:literal;)*) => {
        #[test]
        fn $name() {
            $crate::check(stringify!($name), || ($model)(&[]));
        }
        $(
            $(#[$only])*
            #[test]
            #[should_panic(expected = $expected)]
            fn $twin() {
                $crate::check(stringify!($twin), || ($model)(&[chronolith::planted::Bug::$bug]));
            }
        )*
    };
}
