//! Threads of a database in random schedules.
//!
//! `histories` records what they see and gives it to the checker of the engine's own tests; `closing` closes while others work;
//! `syncs` holds syncs; `space` fills the log; `absence` looks for a name that others make and drop; each with planted bugs that must be found.

mod absence;
mod closing;
mod histories;
mod space;
mod syncs;

use shuttle::thread;

#[path = "../../../tests/histories/checker/mod.rs"]
#[allow(dead_code, reason = "shared with the engine's tests")]
mod checker;
#[path = "../../../src/bin/chronolith/torture/random.rs"]
#[allow(dead_code, reason = "shared with the command-line tool")]
mod random;
#[path = "../../../tests/histories/workload.rs"]
mod workload;

/// Declares a scenario that passes, and its twins with a bug each that must fail, and in the right way.
macro_rules! scenario {
    ($name:ident: $scenario:expr; $($twin:ident: $bug:ident, $expected:literal;)*) => {
        #[test]
        fn $name() {
            chronolith_shuttle_tests::explore(stringify!($name), || $scenario(None));
        }
        $(
            #[test]
            #[should_panic(expected = $expected)]
            fn $twin() {
                let scenario = || $scenario(Some(chronolith::planted::Bug::$bug));
                chronolith_shuttle_tests::search(stringify!($twin), scenario);
            }
        )*
    };
}
use scenario;
