//! Sealing beside writers: how long it takes, and how long one-point commits take meanwhile; and what one late point costs.
//!
//! `CHRONOLITH_SEAL_METRICS` (100,000) metrics with `CHRONOLITH_SEAL_POINTS` (60) points each in a block that has ended, and one each in the next.
//! The database lies in `CHRONOLITH_SEAL_DIR`, or in the system's folder for temporary files. Cargo run with `cargo bench --bench seal`.

use std::env;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chronolith::{Database, Durability, Metric, Options, SealReport, Timestamp};

/// 2023-11-14T22:00:00Z, where a block of two hours begins.
const BLOCK: i64 = 1_699_999_200;

fn setting(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |text| text.replace('_', "").parse().expect("a number"))
}

/// Commits one point after the other until told to stop, and returns how long each took, in microseconds, by phase.
fn writer(db: &Database, metrics: &[Metric], phase: &AtomicU64, done: &AtomicBool) -> Vec<Vec<f64>> {
    let mut took = vec![Vec::new(); 5];
    let mut turn = 0usize;
    while !done.load(Ordering::Relaxed) {
        let metric = &metrics[turn.wrapping_mul(7_919) % metrics.len()];
        let at = Timestamp::from_secs(BLOCK + 7_200 + 60 + (turn / metrics.len()) as i64);
        let begin = Instant::now();
        db.append(metric, at, turn as f64).expect("commits");
        let micros = begin.elapsed().as_secs_f64() * 1e6;
        took[phase.load(Ordering::Relaxed) as usize].push(micros);
        turn += 1;
    }
    took
}

fn main() {
    let metrics_len = setting("CHRONOLITH_SEAL_METRICS", 100_000);
    let points = setting("CHRONOLITH_SEAL_POINTS", 60);
    let folder = match env::var_os("CHRONOLITH_SEAL_DIR") {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let folder = folder.expect("a folder");
    // By hand, so that the bench says when.
    let options = Options::new().workers(0).durability(Durability::Buffered).memory_max(1 << 40);
    let db = options.open(folder.path().join("db")).expect("it opens");
    let metrics: Vec<Metric> =
        (0..metrics_len).map(|index| db.metric(format!("m{{host=\"{index}\"}}")).expect("valid")).collect();
    let begin = Instant::now();
    for second in (0..points as i64).map(|point| point * 15).chain([7_200]) {
        for part in metrics.chunks(10_000) {
            let row: Vec<(Metric, f64)> = part.iter().map(|metric| (metric.clone(), second as f64)).collect();
            let mut txn = db.begin_write();
            txn.append_row(Timestamp::from_secs(BLOCK + second), &row).expect("staged");
            txn.commit().expect("commits");
        }
    }
    println!(
        "{metrics_len} metrics of {points} points, and one in the next block: made in {:.1?}",
        begin.elapsed()
    );

    let (phase, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let ended = Timestamp::from_secs(BLOCK)..Timestamp::from_secs(BLOCK + 7_200);
    let late = Timestamp::from_secs(BLOCK + 3);
    let (took, reports) = thread::scope(|scope| {
        let small = scope.spawn(|| writer(&db, &metrics, &phase, &done));
        let mut reports: Vec<(&str, SealReport)> = Vec::new();
        let mut next = |name, run: &dyn Fn() -> SealReport| {
            thread::sleep(Duration::from_secs(1));
            phase.fetch_add(1, Ordering::Relaxed);
            reports.push((name, run()));
            phase.fetch_add(1, Ordering::Relaxed);
        };
        next("seal", &|| db.seal(ended.clone()).expect("it seals"));
        for metric in &metrics {
            db.append(metric, late, 0.5).expect("commits");
        }
        next("refresh", &|| db.refresh(ended.clone()).expect("it refreshes"));
        done.store(true, Ordering::Relaxed);
        (small.join().expect("it ends"), reports)
    });
    println!("\n| | volumes | points | bytes of streams | wall |\n| --- | ---: | ---: | ---: | ---: |");
    let row = |name: &str, report: &SealReport| {
        let SealReport { blocks, points, stream_bytes, elapsed, .. } = report;
        println!("| {name} | {blocks} | {points} | {stream_bytes} | {elapsed:.2?} |");
    };
    reports.iter().for_each(|(name, report)| row(name, report));
    db.append(&metrics[0], late, 0.75).expect("commits");
    row("refresh for one late point", &db.refresh(ended).expect("it refreshes"));

    println!("\nmicroseconds of a one-point commit\n");
    println!(
        "| beside | commits | p50 | p99 | p99.9 | longest |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    );
    for (name, mut took) in ["nothing", "seal", "late points", "refresh"].into_iter().zip(took) {
        took.sort_by(f64::total_cmp);
        let Some(last) = took.len().checked_sub(1) else { continue };
        let percentile = |share: f64| took[(last as f64 * share) as usize];
        let [p50, p99, p999, longest] = [0.5, 0.99, 0.999, 1.0].map(percentile);
        println!("| {name} | {} | {p50:.1} | {p99:.1} | {p999:.1} | {longest:.0} |", took.len());
    }
}
