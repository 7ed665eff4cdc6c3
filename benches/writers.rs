//! Many writers: what several threads commit together, what one bulk commit costs, and what it does to the others.
//!
//! `cargo bench --bench writers -- [writers] [bulk] [huge]`; all three without an argument. Figures are in million points per second of the
//! wall's clock and of the process's processors. Runs alternate, so that what else the machine does meets all of them; the table has the medians.

mod common;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chronolith::{Database, Durability, Metric, Options, Timestamp};
use common::{Shape, Values};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 5;
/// Points of one commit of the table.
const COMMIT_POINTS: usize = 256;
/// Points of one table entry's run, over all writers.
const RUN_POINTS: usize = 1 << 20;
const METRICS: usize = 64;
const BULK_POINTS: usize = 1 << 20;
const BULK_COMMITS: i64 = 8;
const HUGE_POINTS: usize = 10_000_000;
const SECOND: i64 = 1_000_000_000;
const START: i64 = 1_700_000_000 * SECOND;

/// A database, in memory or with a log in a folder that goes with it.
struct Opened {
    db: Database,
    _folder: Option<tempfile::TempDir>,
}

fn open(log: bool) -> Opened {
    let options = Options::new().durability(Durability::Buffered);
    if !log {
        return Opened { db: options.open_in_memory().expect("opens"), _folder: None };
    }
    let folder = tempfile::tempdir().expect("a folder");
    Opened { db: options.open(folder.path().join("db")).expect("opens"), _folder: Some(folder) }
}

fn metrics(db: &Database, count: usize) -> Vec<Metric> {
    (0..count).map(|index| db.metric(format!("m{index}")).expect("a metric")).collect()
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Million points per second of both clocks.
fn rates(points: usize, run: impl FnOnce()) -> (f64, f64) {
    let (wall, processors) = (Instant::now(), cpu());
    run();
    let (processors, wall) = (cpu() - processors, wall.elapsed());
    (points as f64 / wall.as_secs_f64() / 1e6, points as f64 / processors.as_secs_f64() / 1e6)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Commits of a few hundred points, by so many threads: each to metrics of its own, or all to the same.
fn run_writers(log: bool, shared: bool, writers: usize) -> (f64, f64) {
    let opened = open(log);
    let db = &opened.db;
    let metrics = metrics(db, METRICS);
    let commits = RUN_POINTS / COMMIT_POINTS / writers;
    // Times of shared metrics come from one clock, so nearly all are in order.
    let clock = AtomicI64::new(0);
    rates(commits * COMMIT_POINTS * writers, || {
        thread::scope(|scope| {
            for writer in 0..writers {
                let (metrics, clock) = (&metrics, &clock);
                let mine = METRICS / writers;
                let metrics = if shared { &metrics[..] } else { &metrics[writer * mine..][..mine] };
                scope.spawn(move || {
                    let mut values = Values::new(Shape::Gauge, writer as u64);
                    let rounds = COMMIT_POINTS.div_ceil(metrics.len()) as i64;
                    for commit in 0..commits as i64 {
                        let at = match shared {
                            true => clock.fetch_add(rounds, Ordering::Relaxed),
                            false => commit * rounds,
                        };
                        let mut txn = db.begin_write();
                        for point in 0..COMMIT_POINTS {
                            let at = START + (at + (point / metrics.len()) as i64) * SECOND;
                            let metric = &metrics[point % metrics.len()];
                            txn.append(metric, Timestamp::from_nanos(at), values.next_value())
                                .expect("staged");
                        }
                        txn.commit().expect("commits");
                    }
                });
            }
        });
    })
}

fn writers() {
    println!("commits of {COMMIT_POINTS} points, million points per second: wall / processor\n");
    println!(
        "| log | metrics | 1 writer | 2 | 4 | 8 | 2 to 1, wall |\n| --- | --- | --- | --- | --- | --- | --- |"
    );
    for log in [false, true] {
        for shared in [false, true] {
            let mut figures = [const { (Vec::new(), Vec::new()) }; 4];
            for _ in 0..ROUNDS {
                for (place, writers) in [1, 2, 4, 8].into_iter().enumerate() {
                    let (wall, processors) = run_writers(log, shared, writers);
                    figures[place].0.push(wall);
                    figures[place].1.push(processors);
                }
            }
            let figures = figures.map(|(wall, processors)| (median(wall), median(processors)));
            let cells = figures.map(|(wall, processors)| format!("{wall:.1} / {processors:.1}"));
            let log = if log { "buffered" } else { "none" };
            let kind = if shared { "shared" } else { "disjoint" };
            println!("| {log} | {kind} | {} | {:.2} |", cells.join(" | "), figures[1].0 / figures[0].0);
        }
    }
}

/// A column of in-order points, one a second.
fn column(points: usize, shape: Shape) -> Vec<f64> {
    let mut values = Values::new(shape, 7);
    (0..points).map(|_| values.next_value()).collect()
}

fn times(from: i64, points: usize) -> Vec<Timestamp> {
    (from..from + points as i64).map(|second| Timestamp::from_nanos(START + second * SECOND)).collect()
}

/// Columns of various lengths, staged and committed. Staging is part of it.
fn bulk() {
    println!("\ncolumns in order, million points per second: wall / processor\n");
    println!("| log | values | points of a commit | wall / processor |\n| --- | --- | --- | --- |");
    for log in [false, true] {
        for shape in [Shape::Gauge, Shape::Decimal, Shape::Random] {
            let values = column(BULK_POINTS, shape);
            for points in [256, 1_024, 4_096, BULK_POINTS] {
                let (mut wall, mut processors) = (Vec::new(), Vec::new());
                for _ in 0..ROUNDS {
                    let opened = open(log);
                    let metric = &metrics(&opened.db, 1)[0];
                    let mut run = (0.0, 0.0);
                    for commit in 0..BULK_COMMITS {
                        let times = times(commit * BULK_POINTS as i64, BULK_POINTS);
                        let rates = rates(BULK_POINTS, || {
                            for (times, values) in times.chunks(points).zip(values.chunks(points)) {
                                let mut txn = opened.db.begin_write();
                                txn.append_columns(metric, times, values).expect("staged");
                                txn.commit().expect("commits");
                            }
                        });
                        run = (run.0 + 1.0 / rates.0, run.1 + 1.0 / rates.1);
                    }
                    wall.push(BULK_COMMITS as f64 / run.0);
                    processors.push(BULK_COMMITS as f64 / run.1);
                }
                let log = if log { "buffered" } else { "none" };
                println!(
                    "| {log} | {shape:?} | {points} | {:.1} / {:.1} |",
                    median(wall),
                    median(processors)
                );
            }
        }
    }
}

/// One-point commits, while another thread commits ten million points at once, and while it does not.
fn huge() {
    println!("\nlatency of one-point commits, microseconds\n");
    println!(
        "| log | beside | commits | p50 | p99 | p99.9 | longest |\n| --- | --- | --- | --- | --- | --- | --- |"
    );
    let values = column(HUGE_POINTS, Shape::Decimal);
    let times = times(0, HUGE_POINTS);
    for log in [false, true] {
        for busy in [false, true] {
            let opened = open(log);
            let db = &opened.db;
            let metrics = metrics(db, 9);
            let done = AtomicBool::new(false);
            let took = thread::scope(|scope| {
                let small = scope.spawn(|| {
                    let mut took = Vec::new();
                    let mut second = 0;
                    while !done.load(Ordering::Relaxed) {
                        let begin = Instant::now();
                        // A metric of another lane, and one of the same.
                        let metric = &metrics[if second % 2 == 0 { 1 } else { 8 }];
                        db.append(metric, Timestamp::from_secs(second), 1.0).expect("commits");
                        took.push(begin.elapsed().as_secs_f64() * 1e6);
                        second += 1;
                    }
                    took
                });
                thread::sleep(Duration::from_millis(50));
                if busy {
                    let mut txn = db.begin_write();
                    let begin = Instant::now();
                    txn.append_columns(&metrics[0], &times, &values).expect("staged");
                    let staged = begin.elapsed();
                    txn.commit().expect("commits");
                    eprintln!("staged in {staged:?}, committed in {:?}", begin.elapsed() - staged);
                }
                thread::sleep(Duration::from_millis(100));
                done.store(true, Ordering::Relaxed);
                let mut took = small.join().expect("it ends");
                took.sort_by(f64::total_cmp);
                took
            });
            let percentile = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
            println!(
                "| {} | {} | {} | {:.1} | {:.1} | {:.1} | {:.0} |",
                if log { "buffered" } else { "none" },
                if busy { "10 M points" } else { "nothing" },
                took.len(),
                percentile(0.5),
                percentile(0.99),
                percentile(0.999),
                percentile(1.0),
            );
        }
    }
}

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for (name, run) in [("writers", writers as fn()), ("bulk", bulk), ("huge", huge)] {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            run();
        }
    }
}
