//! Restarting: how long opening takes by the number of metrics and of sealed blocks, after a close and after a kill; how fast metrics are made, and
//! what memory they take.
//!
//! Each figure is of a process of its own, which this program starts from itself. `CHRONOLITH_RESTART_METRICS` (1,000,000) is the largest number of
//! metrics, `CHRONOLITH_RESTART_BLOCKS` (64) of sealed blocks. The databases lie in `CHRONOLITH_RESTART_DIR`, or in the system's folder for
//! temporary files. Cargo run with `cargo bench --bench restart`.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use chronolith::{Database, Durability, Metric, Options, Timestamp};

/// 2023-11-14T22:00:00Z, where a block of two hours begins.
const BLOCK: i64 = 1_699_999_200;
const BLOCK_SECONDS: i64 = 7_200;
/// Tells a process that was started from this program what to do.
const STAGE: &str = "CHRONOLITH_RESTART_STAGE";

fn setting(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |text| text.replace('_', "").parse().expect("a number"))
}

fn open(path: &Path) -> Database {
    let options = Options::new().workers(0).durability(Durability::Buffered).memory_max(1 << 40);
    options.open(path).expect("it opens")
}

/// An ID of 95 bytes with five tags.
fn id(index: usize) -> String {
    let (host, rack) = (index % 10_000, index % 100);
    let id = format!(
        "cpu_usage_idle{{core=\"{:03}\",dc=\"eu-west-{}\",host=\"host-{host:06}\",job=\"node{:012}\",rack=\"r{rack:03}\"}}",
        index % 64,
        index % 9,
        index
    );
    assert_eq!(id.len(), 95, "{id}");
    id
}

/// Anonymous memory of this process, in bytes.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1_024
}

/// The processor's time of this process, in seconds.
fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Commits a point of each metric, in rows of 10,000. No handle is kept, so that memory is the database's.
fn rows(db: &Database, metrics: usize, second: i64) {
    for first in (0..metrics).step_by(10_000) {
        let part = first..metrics.min(first + 10_000);
        let metric = |index| db.metric(id(index)).expect("a name");
        let row: Vec<(Metric, f64)> = part.map(|index| (metric(index), second as f64)).collect();
        let mut txn = db.begin_write();
        txn.append_row(Timestamp::from_secs(BLOCK + second), &row).expect("staged");
        txn.commit().expect("commits");
    }
}

/// What a process does; it prints its figures, separated by blanks.
fn stage(name: &str, path: &Path, metrics: usize, blocks: usize) {
    let before = anonymous();
    let (begin, cpu_before) = (Instant::now(), cpu());
    match name {
        // Makes the metrics, with a point each; then four more; closes. Seconds to make them, to close, and bytes of memory for each.
        "make" => {
            let db = open(path);
            let mut made = 0.0;
            for first in (0..metrics).step_by(10_000) {
                // To write the IDs down is the program's business.
                let ids: Vec<String> = (first..metrics.min(first + 10_000)).map(id).collect();
                let began = Instant::now();
                let mut txn = db.begin_write();
                for id in ids {
                    let metric = db.metric(id).expect("a name");
                    txn.append(&metric, Timestamp::from_secs(BLOCK), 1.0).expect("staged");
                }
                txn.commit().expect("commits");
                made += began.elapsed().as_secs_f64();
            }
            (1..5).for_each(|point| rows(&db, metrics, point * 15));
            let bytes = anonymous().saturating_sub(before);
            let checkpoint = db.checkpoint().expect("a checkpoint");
            assert!(checkpoint.pages > 0);
            db.close().expect("closes");
            println!("{made} {} {bytes}", checkpoint.elapsed.as_secs_f64());
        }
        // Opens. Seconds, of which for what was replayed; of the processor; bytes of memory.
        "open" => {
            let db = open(path);
            let took = begin.elapsed().as_secs_f64();
            let report = db.open_report();
            assert_eq!(report.metrics as usize, metrics);
            println!(
                "{took} {} {} {}",
                cpu() - cpu_before,
                anonymous().saturating_sub(before),
                report.commits_replayed
            );
            // A close would write a checkpoint, and the next opening have nothing to replay.
            std::mem::forget(db);
        }
        // Makes the metrics with five points each in the log, and dies.
        "kill" => {
            let db = Options::new()
                .workers(0)
                .durability(Durability::Buffered)
                .memory_max(1 << 40)
                .checkpoint_log_bytes(u64::MAX)
                .open(path)
                .expect("it opens");
            (0..5).for_each(|point| rows(&db, metrics, point * 15));
            db.sync().expect("syncs");
            std::process::abort();
        }
        // Seals so many blocks, one after the other; closes.
        "seal" => {
            let db = open(path);
            for block in 0..blocks as i64 {
                rows(&db, metrics, block * BLOCK_SECONDS);
                db.seal(..).expect("seals");
            }
            assert_eq!(db.stats().sealed_blocks as usize, blocks);
            let checkpoint = db.checkpoint().expect("a checkpoint");
            db.close().expect("closes");
            println!("{} {}", checkpoint.pages, checkpoint.elapsed.as_secs_f64());
        }
        other => panic!("no stage {other}"),
    }
}

/// Runs a stage in a process of its own and returns its figures.
fn run(name: &str, path: &Path, metrics: usize, blocks: usize) -> Vec<f64> {
    let program = env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.env(STAGE, format!("{name} {metrics} {blocks}")).env("CHRONOLITH_RESTART_PATH", path);
    let output = command.output().expect("it starts");
    if name != "kill" {
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} of {metrics} metrics failed: {told}");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().filter_map(|figure| figure.parse().ok()).collect()
}

/// The best of some openings: the files are in the cache.
fn opened(path: &Path, metrics: usize) -> Vec<f64> {
    let times = (0..3).map(|_| run("open", path, metrics, 0));
    times.min_by(|one, other| one[0].total_cmp(&other[0])).expect("three")
}

/// A bar as long as a time, up to `most`.
fn bar(seconds: f64, most: f64) -> String {
    "#".repeat((seconds / most * 40.0).ceil() as usize)
}

fn main() {
    if let Ok(told) = env::var(STAGE) {
        let path = env::var_os("CHRONOLITH_RESTART_PATH").expect("a path");
        let mut words = told.split(' ');
        let name = words.next().expect("a stage");
        let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a number");
        let (metrics, blocks) = (number(), number());
        return stage(name, Path::new(&path), metrics, blocks);
    }
    let (metrics_max, blocks_max) =
        (setting("CHRONOLITH_RESTART_METRICS", 1_000_000), setting("CHRONOLITH_RESTART_BLOCKS", 64));
    let folder = match env::var_os("CHRONOLITH_RESTART_DIR") {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let folder = folder.expect("a folder");
    let begin = Instant::now();

    println!("metrics with five tags and five points each, closed, or killed with all of them in the log");
    println!(
        "{:>9} {:>12} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10} {:>12}",
        "metrics",
        "made",
        "memory",
        "checkpoint",
        "open",
        "open, CPU",
        "replay",
        "replay, CPU",
        "memory, open"
    );
    let sizes = [1_000, 10_000, 100_000, 1_000_000].into_iter().filter(|metrics| *metrics <= metrics_max);
    let mut curve = Vec::new();
    for metrics in sizes {
        let closed = folder.path().join(format!("closed-{metrics}"));
        let made = run("make", &closed, metrics, 0);
        let open = opened(&closed, metrics);
        assert_eq!(open[3], 0.0, "nothing to replay");
        let killed = folder.path().join(format!("killed-{metrics}"));
        run("kill", &killed, metrics, 0);
        let replayed = opened(&killed, metrics);
        assert!(replayed[3] > 0.0, "all of it to replay");
        println!(
            "{metrics:>9} {:>10.0}/s {:>9.0} B {:>8.0}ms {:>8.1}ms {:>8.1}ms {:>8.1}ms {:>9.1}ms {:>10.0} B",
            metrics as f64 / made[0],
            made[2] / metrics as f64,
            made[1] * 1e3,
            open[0] * 1e3,
            open[1] * 1e3,
            replayed[0] * 1e3,
            replayed[1] * 1e3,
            open[2] / metrics as f64,
        );
        curve.push((metrics, open[0], replayed[0]));
        std::fs::remove_dir_all(&closed).and_then(|()| std::fs::remove_dir_all(&killed)).expect("they go");
    }
    let most = curve.iter().map(|(_, open, replayed)| open.max(*replayed)).fold(0.0, f64::max);
    for (metrics, open, replayed) in &curve {
        println!("{metrics:>9} closed {}", bar(*open, most));
        println!("{:>9} killed {}", "", bar(*replayed, most));
    }

    let metrics = metrics_max.min(100_000);
    println!("\n{metrics} metrics and sealed blocks, closed");
    println!("{:>9} {:>10} {:>10}", "blocks", "open", "open, CPU");
    let mut blocks = 1;
    while blocks <= blocks_max {
        let path = folder.path().join(format!("sealed-{blocks}"));
        run("seal", &path, metrics, blocks);
        let open = opened(&path, metrics);
        println!("{blocks:>9} {:>8.1}ms {:>8.1}ms {}", open[0] * 1e3, open[1] * 1e3, bar(open[0], most));
        std::fs::remove_dir_all(&path).expect("it goes");
        blocks *= 4;
    }
    println!("\nin {:.0?}", begin.elapsed().max(Duration::from_secs(1)));
}
