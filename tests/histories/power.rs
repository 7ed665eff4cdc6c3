//! Histories across power cuts and deaths of the process.

use std::sync::Arc;
use std::time::Instant;

use chronolith::io::{CutState, SimulatedDisk};
use chronolith::planted::Bug;

use crate::checker::{Verdict, check, recovery};
use crate::random::Random;
use crate::wanted;
use crate::workload::{Plan, Store};

/// Openings of one database.
const LIVES: u64 = 8;
const PER_LIFE: u64 = 150;

/// What was found wrong: within lives, and after recoveries.
#[derive(Debug, Default)]
pub struct Lives {
    pub verdict: Verdict,
    pub violations: Vec<String>,
    pub cuts: u64,
}

/// A database with several lives, each ended by a power cut, a death or the end of its transactions without closing, and each recovered
/// from. The next history goes on with the same keys and what was found.
pub fn lives(seed: u64, bug: Option<Bug>) -> Lives {
    let mut lives = Lives::default();
    let mut random = Random::of(seed, 0, 0, 1);
    let plan = Plan {
        seed,
        threads: [2, 4, 6][seed as usize % 3],
        transactions: PER_LIFE,
        per_window: PER_LIFE / 2,
        windows: 2,
        synced: [100, 50, 20][seed as usize / 3 % 3],
    };
    let mut disk = SimulatedDisk::new(seed);
    let open = |disk: &SimulatedDisk| {
        let options = bug.into_iter().fold(plan.options(), chronolith::Options::plant);
        options
            .log_segment_bytes_min(16 * 1024)
            .log_segment_bytes_max(32 * 1024)
            .open_on(Arc::new(disk.clone()), "/db")
    };
    let mut element = 1;
    let mut before = None;
    for life in 0..LIVES {
        let db = match open(&disk) {
            Ok(db) => db,
            Err(error) => {
                lives.violations.push(format!("seed {seed}, life {life}: does not open: {error}"));
                return lives;
            }
        };
        // Looked at before anything is written, so that nothing hides what was lost.
        let store = Store::reopen(db, plan, element);
        let found = store.found();
        if let Some(before) = &before {
            let wrong = recovery::violations(before, &found);
            lives
                .violations
                .extend(wrong.into_iter().map(|text| format!("seed {seed}, life {life}: {text}")));
        }
        if !lives.violations.is_empty() {
            return lives;
        }
        let store = match life {
            0 => Store::new(store.db, plan, element).expect("the power is on"),
            _ => store,
        };
        let first = store.found().first(&plan.keys());
        let last = disk.calls() + 1 + random.below(2 * PER_LIFE);
        match random.below(2) {
            0 => disk.cut_power_at(last),
            _ => disk.cut_power_within(last),
        }
        let history = store.run(first);
        element = store.next_element();
        drop(store);
        lives.verdict = lives.verdict.and(check(&history));
        before = Some(history);
        if random.below(4) == 0 {
            disk.restore_power();
        } else {
            let state = CutState::ALL[random.below(CutState::ALL.len() as u64) as usize];
            disk = disk.after_power_cut(state, random.next());
        }
        lives.cuts += 1;
    }
    lives
}

#[test]
fn histories_go_on_after_power_cuts() {
    let begin = Instant::now();
    let (mut verdict, mut cuts, mut seed) = (Verdict::default(), 0, 1);
    while verdict.transactions < wanted(5_000) as usize {
        let lives = lives(seed, None);
        assert!(lives.violations.is_empty(), "{}", lives.violations.join("\n"));
        assert!(lives.verdict.is_clean(), "seed {seed}: {}", lives.verdict);
        (verdict, cuts, seed) = (verdict.and(lives.verdict), cuts + lives.cuts, seed + 1);
    }
    println!("{} databases, {cuts} cuts, {:.1} s: {verdict}", seed - 1, begin.elapsed().as_secs_f64());
}
