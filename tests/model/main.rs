//! Random histories, compared with a model: a map from versions to all that is there at them.
//!
//! Every read of every snapshot must be what the model has for its version, whatever was committed, dropped or
//! reopened since. Parts: `steps` what happens, `state` what the model has, `history` does the one and compares with
//! the other, `checked` says which checked transactions conflict.

#![allow(unreachable_pub, reason = "a test is a crate of its own")]

use std::ops::Bound;

use chronolith::io::{MemoryDisk, SimulatedDisk};
use chronolith::{Metric, Options, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

mod checked;
mod history;
mod state;
mod steps;

use history::{Disk, History};

/// Short, so that a few dozen seconds reach over several blocks.
const BLOCK_SECONDS: i64 = 10;
const METRICS: usize = 6;
/// Pieces of metadata.
const KEYS: usize = 4;

type Bounds = (Bound<Timestamp>, Bound<Timestamp>);
/// A value's bits and the annotation.
type Content = (u64, Option<Vec<u8>>);

fn disk() -> impl Strategy<Value = Disk> {
    prop_oneof![
        1 => Just(()).prop_map(|()| Disk::None),
        1 => Just(()).prop_map(|()| Disk::Memory(MemoryDisk::default())),
        3 => any::<u64>().prop_map(|seed| Disk::Simulated(SimulatedDisk::new(seed))),
    ]
}

proptest! {
    // `PROPTEST_CASES` sets how many.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_snapshot_reads_as_the_model_has_it(disk in disk(), steps in vec(steps::step(), 1..50)) {
        let mut history = History::new(disk);
        steps.iter().for_each(|step| history.run(step));
        history.compare_at_the_end();
    }
}

#[test]
fn a_million_commits_without_an_old_snapshot_leave_few_marks() {
    let db = Options::new().workers(0).open_in_memory().expect("it opens");
    let metrics: Vec<Metric> =
        (0..10).map(|index| db.metric(format!("m{index}")).expect("a metric")).collect();
    for commit in 0..1_000_000u32 {
        let metric = &metrics[commit as usize % metrics.len()];
        let at = Timestamp::from_millis(i64::from(commit));
        db.append(metric, at, f64::from(commit)).expect("a commit");
        if commit % 50_000 == 0 {
            assert!(db.stats().marks_max <= 3, "{} after {commit} commits", db.stats().marks_max);
        }
    }
    let stats = db.stats();
    assert_eq!(stats.points, 1_000_000);
    assert!(stats.marks_max <= 3, "{stats:?}");
}
