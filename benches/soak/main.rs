//! What a database takes while it runs for days, while metrics come and go, and while one metric gets more than memory holds.
//!
//! `cargo bench --bench soak -- [days] [churn] [orders]`; all without an argument.
//!
//! * [`days`]: a collector writes for 48 simulated hours; memory, files, the log and the time to open are sampled and drawn.
//! * [`churn`]: 100,000 new metrics each simulated day, which live for two days; the same is sampled and drawn.
//! * [`orders`]: 5 million points of one metric, in order and shuffled, through a small limit of memory.
//!
//! All compare at the end all that is read with what was written. Databases lie in `CHRONOLITH_SOAK_DIR`, or in the system's folder for
//! temporary files.

mod churn;
mod days;
mod orders;
mod plot;
mod process;

use std::env;
use std::path::Path;

fn main() {
    // A copy of the database is opened by a process of its own, whose memory nothing else is in.
    if let Some(copy) = env::var_os(days::OPEN) {
        return days::open_copy(Path::new(&copy));
    }
    if let Ok(number) = env::var(orders::ONE) {
        return orders::run_one(&number);
    }
    let asked: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wants = |name: &str| asked.is_empty() || asked.iter().any(|argument| argument == name);
    if wants("days") {
        days::run();
    }
    if wants("churn") {
        churn::run();
    }
    if wants("orders") {
        orders::run();
    }
}

/// A setting from the environment.
fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.replace('_', "").parse().expect("a number"))
}

/// A folder for a database, removed when it is dropped.
fn folder() -> tempfile::TempDir {
    let made = match env::var_os("CHRONOLITH_SOAK_DIR") {
        Some(above) => tempfile::tempdir_in(above),
        None => tempfile::tempdir(),
    };
    made.expect("a folder")
}

/// Mixes all bits of a number into all bits of another (splitmix64).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Bytes as mebibytes.
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
