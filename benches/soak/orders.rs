//! Points of one metric, in order and shuffled, through a limit of memory.
//!
//! `CHRONOLITH_SOAK_POINTS` (5,000,000) points, 15 seconds apart, in commits of 10,000, with a worker. Each order and each limit has a process
//! of its own, so that none begins with memory that another one left to the allocator.

use std::env;
use std::process::Command;
use std::time::Instant;

use chronolith::{Database, Durability, Metric, Options, Timestamp};

use crate::process::{Files, Peak, anonymous_bytes, cpu};
use crate::{folder, mib, mixed, setting};

const BATCH: usize = 10_000;
const START_SECS: i64 = 1_700_006_400;
const STEP_SECS: i64 = 15;

/// The variable that makes a process do one order with one limit.
pub(crate) const ONE: &str = "CHRONOLITH_SOAK_ONE";

/// In which order, and with what limit of memory in MiB.
const RUNS: [(&str, u64); 8] = [
    ("in order", 16),
    ("in order", 32),
    ("in order", 128),
    ("shuffled", 16),
    ("shuffled", 32),
    ("shuffled", 64),
    ("shuffled", 128),
    ("shuffled", 256),
];

pub(crate) fn run() {
    println!("\n{} points of one metric in commits of {BATCH}\n", points());
    println!(
        "| order | limit MiB | counted, most MiB | anonymous, most MiB more | wall s | processors s | volumes written | volumes left | written of each point | files MiB | read back, processors s |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for number in 0..RUNS.len() {
        let own = env::current_exe().expect("this program");
        let ended = Command::new(own).env(ONE, number.to_string()).status().expect("it runs");
        assert!(ended.success());
    }
}

/// What the process for one run does.
pub(crate) fn run_one(number: &str) {
    let (name, limit_mib) = RUNS[number.parse::<usize>().expect("a number")];
    let mut order: Vec<u32> = (0..points()).collect();
    if name == "shuffled" {
        for index in (1..order.len()).rev() {
            order.swap(index, (mixed(index as u64) % (index as u64 + 1)) as usize);
        }
    }
    through(name, &order, limit_mib);
}

fn points() -> u32 {
    setting("CHRONOLITH_SOAK_POINTS", 5_000_000) as u32
}

/// Commits the points in this order, reads them back, and prints a row.
fn through(name: &str, order: &[u32], limit_mib: u64) {
    let folder = folder();
    let path = folder.path().join("db");
    let options = Options::new().durability(Durability::Buffered).memory_max(limit_mib << 20);
    let db = options.open(&path).expect("it opens");
    let metric = db.metric("m").expect("valid");
    let (mut times, mut values) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    let before = anonymous_bytes();
    let (began, processors) = (Instant::now(), cpu());
    let most = Peak::during(&db, |peak| {
        for batch in order.chunks(BATCH) {
            times.clear();
            values.clear();
            times.extend(batch.iter().map(|index| at(*index)));
            values.extend(batch.iter().map(|index| value(*index)));
            let mut txn = db.begin_write();
            txn.append_columns(&metric, &times, &values).expect("staged");
            txn.commit().expect("room is made");
        }
        peak.look(&db);
        peak.take()
    });
    let (wall, processors) = (began.elapsed(), cpu() - processors);
    let reading = cpu();
    check(&db, &metric, order.len() as u32);
    let read = cpu() - reading;
    let stats = db.stats();
    println!(
        "| {name} | {limit_mib} | {:.1} | {:.1} | {:.2} | {:.2} | {} | {} | {:.2} | {:.1} | {:.2} |",
        mib(most.counted),
        mib(most.anonymous.saturating_sub(before)),
        wall.as_secs_f64(),
        processors.as_secs_f64(),
        stats.volumes_written,
        stats.volumes,
        stats.points_written as f64 / order.len() as f64,
        mib(Files::of(&path.join("data")).bytes),
        read.as_secs_f64(),
    );
    db.close().expect("it closes");
}

fn at(index: u32) -> Timestamp {
    Timestamp::from_secs(START_SECS + STEP_SECS * i64::from(index))
}

/// Values that do not compress.
fn value(index: u32) -> f64 {
    f64::from_bits(0x3ff0_0000_0000_0000 | mixed(u64::from(index)) >> 12)
}

/// Panics unless the metric has exactly the points that were written.
fn check(db: &Database, metric: &Metric, points: u32) {
    let mut next = 0;
    for block in db.snapshot().blocks(metric, ..) {
        let block = block.expect("sound volumes");
        for (time, found) in block.timestamps().iter().zip(block.values()) {
            assert_eq!(
                (*time, found.to_bits()),
                (at(next).as_nanos(), value(next).to_bits()),
                "point {next}"
            );
            next += 1;
        }
    }
    assert_eq!(next, points);
}
