//! Isolation of what threads read and write at the same time: histories are recorded and checked for everything that snapshot isolation
//! rules out, also across power cuts and the death of a process.
//!
//! `checker` says what is recorded, what is observable and what is looked for; `workload` records it; `power` cuts the power; `anomalies` and
//! `planted` show that the checker finds what it looks for, in histories by hand and in a database with a planted bug.
//!
//! By default some 30,000 transactions. `CHRONOLITH_HISTORY_TRANSACTIONS` sets how many, for instance 1000000.

#![allow(unreachable_pub, reason = "a test is a crate of its own")]

#[cfg(test)]
mod anomalies;
mod checker;
mod creation;
mod planted;
mod power;
#[path = "../../src/bin/chronolith/torture/random.rs"]
#[allow(dead_code, reason = "shared with the command-line tool")]
mod random;
mod workload;

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use checker::Verdict;
use checker::check;
use chronolith::io::SimulatedDisk;
use workload::{Plan, Store};

/// Transactions of a test, as a part of all.
fn wanted(default: u64) -> u64 {
    const DEFAULT: u64 = 30_000;
    let asked = std::env::var("CHRONOLITH_HISTORY_TRANSACTIONS").ok().and_then(|text| text.parse().ok());
    let asked: u64 = asked.unwrap_or(DEFAULT);
    (asked * default).div_ceil(DEFAULT)
}

/// A fresh database for every few thousand transactions, in memory and on a disk in turn, with 2 to 16 threads.
fn episode(seed: u64, transactions: u64) -> Verdict {
    let threads = [2, 3, 4, 8, 16][seed as usize % 5];
    let per_window = 150;
    let windows = (transactions / per_window + 1) as u32;
    let synced = [0, 50, 100][seed as usize / 2 % 3];
    let plan = Plan { seed, threads, transactions, per_window, windows, synced };
    let db = match seed % 2 {
        0 => plan.options().open_in_memory(),
        _ => plan.options().open_on(Arc::new(SimulatedDisk::new(seed)), "/db"),
    };
    let store = Store::new(db.expect("it opens"), plan, 1).expect("a commit");
    let first = store.found().first(&plan.keys());
    check(&store.run(first))
}

#[test]
fn no_anomaly_that_snapshot_isolation_rules_out() {
    const EPISODE: u64 = 2_500;
    const KINDS: usize = 4;
    let begin = Instant::now();
    let (mut verdict, mut seed) = (Verdict::default(), 1);
    while verdict.transactions < wanted(25_000) as usize && verdict.is_clean() {
        verdict = verdict.and(episode(seed, EPISODE));
        assert!(verdict.is_clean(), "seed {seed}: {verdict}");
        seed += 1;
    }
    assert_eq!(verdict.committed.len(), KINDS, "some kind of transaction is never committed");
    println!("{} episodes, {:.1} s: {verdict}", seed - 1, begin.elapsed().as_secs_f64());
}
