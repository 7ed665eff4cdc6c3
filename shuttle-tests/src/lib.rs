//! The whole engine in random schedules. See the README beside this crate.

#[cfg(not(shuttle))]
compile_error!(
    "run `cargo shuttle` in the repository's root: without `--cfg shuttle` nothing would be checked"
);

use std::sync::Arc;
use std::time::Instant;

use shuttle::scheduler::{
    PctScheduler, RandomScheduler, Scheduler, UncontrolledNondeterminismCheckScheduler,
};
use shuttle::{Config, FailurePersistence, Runner};

pub mod disk;

/// PCT's depth: it changes priorities at one place less.
pub const DEPTH: usize = 3;
/// Schedules of a scenario, half of them random and half PCT.
const SCHEDULES: usize = 1_000;

/// How many schedules a scenario gets: `CHRONOLITH_SHUTTLE_SCHEDULES`, or a thousand.
pub fn schedules() -> usize {
    number_in("CHRONOLITH_SHUTTLE_SCHEDULES").map_or(SCHEDULES, |schedules| schedules as usize)
}

fn number_in(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// Runs a scenario in many schedules. A panic of one of its threads, and threads that all wait, fail it; the schedule is printed then, for
/// `shuttle::replay`. The schedules are the same in every run; `CHRONOLITH_SHUTTLE_SEED` asks for others.
pub fn explore(name: &str, scenario: impl Fn() + Send + Sync + 'static) {
    explore_in(schedules(), name, scenario);
}

/// The same for a scenario that is to fail: it may take more schedules than a passing one gets.
pub fn search(name: &str, scenario: impl Fn() + Send + Sync + 'static) {
    explore_in(100_000, name, scenario);
}

/// In turn some of PCT and some at random, so that a failure is found soon whichever of them finds it.
fn explore_in(schedules: usize, name: &str, scenario: impl Fn() + Send + Sync + 'static) {
    const ROUND: usize = 1_000;
    let begin = Instant::now();
    let scenario = Arc::new(scenario);
    let base = number_in("CHRONOLITH_SHUTTLE_SEED").unwrap_or_default() << 32;
    for (round, first) in (0..schedules).step_by(ROUND).enumerate() {
        let half = ROUND.min(schedules - first).div_ceil(2);
        let seed = base + 2 * round as u64;
        run(PctScheduler::new_from_seed(seed, DEPTH, half), &scenario);
        run(RandomScheduler::new_from_seed(seed + 1, half), &scenario);
    }
    println!("{name}: {schedules} schedules, {:.1} s", begin.elapsed().as_secs_f64());
}

/// Fails if a scenario does not do the same when a schedule is repeated: then what is printed could not be replayed.
pub fn repeat(schedules: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let scheduler = RandomScheduler::new_from_seed(1, schedules);
    run(UncontrolledNondeterminismCheckScheduler::new(scheduler), &Arc::new(scenario));
}

fn run(scheduler: impl Scheduler + 'static, scenario: &Arc<impl Fn() + Send + Sync + 'static>) {
    let mut config = Config::new();
    // The engine's own threads have megabytes; what it needs is far less.
    config.stack_size = 512 * 1024;
    config.failure_persistence = FailurePersistence::Print;
    config.silence_warnings = true;
    let scenario = scenario.clone();
    Runner::new(scheduler, config).run(move || scenario());
}
