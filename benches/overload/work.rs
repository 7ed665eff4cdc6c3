//! What the processes of the bench do: write, and read back.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chronolith::{Database, Durability, Error, Metric, Options, Snapshot, Timestamp};

use super::Settings;
use super::watch::Watch;

/// Points of a metric in one commit.
const RUN: u64 = 64;
/// Runs of which the last comes first, in [`Shape::Late`].
const GROUP: u64 = 64;
/// Runs that are read of a metric before the next metric.
const AT_A_TIME: u64 = 15;
/// Metrics in one commit.
const COMMIT_METRICS: usize = 16;
/// 2023-11-14T22:00:00Z, where a block of two hours begins.
const BEGIN: i64 = 1_699_999_200;
/// Where the writer tells the checker how many commits of each thread were acknowledged.
const ACKNOWLEDGED: &str = "acknowledged";

/// What is done to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    InOrder,
    Late,
    Sparse,
    Held,
    Larger,
}

impl Shape {
    pub(crate) const ALL: [Shape; 5] =
        [Shape::InOrder, Shape::Late, Shape::Sparse, Shape::Held, Shape::Larger];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Shape::InOrder => "in-order",
            Shape::Late => "late",
            Shape::Sparse => "sparse",
            Shape::Held => "held",
            Shape::Larger => "larger",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Shape> {
        Shape::ALL.into_iter().find(|shape| shape.name() == name)
    }

    /// What is done, and whether within the limit.
    pub(crate) fn steps(self) -> &'static [(Step, bool)] {
        match self {
            Shape::Larger => {
                &[(Step::Write, false), (Step::Refuse, true), (Step::Seal, false), (Step::Refuse, true)]
            }
            _ => &[(Step::Write, true), (Step::Check, true)],
        }
    }

    fn options(self) -> Options {
        let options = Options::new().durability(Durability::Buffered);
        match self {
            // As on a machine with more memory, where nothing has to be sealed yet.
            Shape::Larger => options.memory_max(16 << 30).buffer_past(Duration::from_secs(1 << 30)),
            Shape::Held => options.memory_wait(Duration::from_millis(500)),
            _ => options,
        }
    }

    /// Seconds between points.
    fn step(self) -> i64 {
        match self {
            Shape::Sparse => 7_200,
            _ => 15,
        }
    }

    /// Of so many points in all, how many it writes.
    fn points(self, all: u64) -> u64 {
        match self {
            // Each takes some hundred bytes in memory.
            Shape::Sparse => all / 40,
            Shape::Larger => all / 4,
            _ => all,
        }
    }

    /// The place in time of a metric's run, by when it is written. One to one within each group.
    fn place(self, run: u64) -> u64 {
        match self {
            Shape::Late => run / GROUP * GROUP + (GROUP - 1 - run % GROUP),
            _ => run,
        }
    }
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Write,
    Check,
    Refuse,
    Seal,
}

impl Step {
    const ALL: [Step; 4] = [Step::Write, Step::Check, Step::Refuse, Step::Seal];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Step::Write => "write",
            Step::Check => "check",
            Step::Refuse => "refuse",
            Step::Seal => "seal",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Step> {
        Step::ALL.into_iter().find(|step| step.name() == name)
    }

    pub(crate) fn run(self, dir: &Path, shape: Shape, settings: Settings) {
        match self {
            Step::Write => write(dir, shape, settings),
            Step::Check => check(dir, shape, settings),
            Step::Refuse => refuse(dir),
            Step::Seal => seal(dir, shape),
        }
    }
}

/// A writer's metrics, and what it does with them.
struct Writer {
    shape: Shape,
    number: usize,
    metrics: Vec<Metric>,
}

/// What the threads of a run tell each other.
#[derive(Default)]
struct Progress {
    points: AtomicU64,
    refused: AtomicU64,
    /// The longest commit in milliseconds.
    longest: AtomicU64,
    /// The first refusal that names a snapshot.
    refusal: Mutex<Option<Error>>,
    /// Whether to let go of the snapshots.
    release: AtomicBool,
}

impl Writer {
    fn all(db: &Database, shape: Shape, settings: Settings) -> Vec<Writer> {
        let per_writer = settings.metrics / settings.writers / COMMIT_METRICS * COMMIT_METRICS;
        let metrics = |number| {
            let named = |index| db.metric(format!("overload{{writer=\"{number}\",metric=\"{index}\"}}"));
            (0..per_writer).map(|index| named(index).expect("valid")).collect()
        };
        let writer = |number| Writer { shape, number, metrics: metrics(number) };
        (0..settings.writers).map(writer).collect()
    }

    /// How many commits write one run to each metric.
    fn round(&self) -> u64 {
        (self.metrics.len() / COMMIT_METRICS) as u64
    }

    fn value(&self, metric: usize, at: i64) -> f64 {
        let mut bits = (at as u64) ^ ((self.number as u64) << 56) ^ ((metric as u64) << 36);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Sign, exponent and fraction are random, but not all of the exponent: no NaN.
        f64::from_bits((bits ^ (bits >> 31)) & !(1 << 62))
    }

    /// The seconds of a run's points.
    fn times(&self, run: u64) -> impl Iterator<Item = i64> {
        let first = (self.shape.place(run) * RUN) as i64;
        (first..first + RUN as i64).map(|index| BEGIN + self.shape.step() * index)
    }

    /// Writes until all threads together have written enough; returns how many commits were acknowledged.
    fn write(&self, db: &Database, progress: &Progress, enough: u64) -> u64 {
        let mut commits = 0;
        while progress.points.load(Ordering::Relaxed) < enough {
            let (run, part) = (commits / self.round(), (commits % self.round()) as usize);
            let first = part * COMMIT_METRICS;
            let times: Vec<Timestamp> = self.times(run).map(Timestamp::from_secs).collect();
            let mut txn = db.begin_write();
            for (index, metric) in (first..).zip(&self.metrics[first..first + COMMIT_METRICS]) {
                let values: Vec<f64> = self.times(run).map(|at| self.value(index, at)).collect();
                txn.append_columns(metric, &times, &values).expect("staged");
            }
            let began = Instant::now();
            let done = txn.commit();
            progress.longest.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
            match done {
                Ok(_) => {
                    commits += 1;
                    progress.points.fetch_add(RUN * COMMIT_METRICS as u64, Ordering::Relaxed);
                }
                Err(error @ Error::MemoryLimit { .. }) => {
                    progress.refused.fetch_add(1, Ordering::Relaxed);
                    let is_old = |age: Option<Duration>| age.is_some_and(|age| age >= Duration::from_secs(1));
                    if matches!(error, Error::MemoryLimit { oldest_snapshot, .. } if is_old(oldest_snapshot))
                    {
                        progress.refusal.lock().expect("no panic").get_or_insert(error);
                        progress.release.store(true, Ordering::Relaxed);
                    }
                }
                Err(error) => panic!("writer {}: {error}", self.number),
            }
        }
        commits
    }

    /// Compares the points of some places in time with those that were acknowledged; returns how many there are.
    fn check(&self, snapshot: &Snapshot, commits: u64, places: Range<u64>, is_last: bool) -> u64 {
        let mut points = 0;
        let place_seconds =
            |place: u64| Timestamp::from_secs(BEGIN + self.shape.step() * (place * RUN) as i64);
        let from = if places.start == 0 { Timestamp::MIN } else { place_seconds(places.start) };
        let before = if is_last { Timestamp::MAX } else { place_seconds(places.end) };
        for (index, metric) in self.metrics.iter().enumerate() {
            let runs = self.runs(index, commits);
            // `place` is its own inverse: which run has a place.
            let wanted = places.clone().map(|place| self.shape.place(place)).filter(|run| *run < runs);
            let mut wanted = wanted.flat_map(|run| self.times(run));
            for block in snapshot.blocks(metric, from..before) {
                let block = block.expect("readable");
                for (at, value) in block.timestamps().iter().zip(block.values()) {
                    let second =
                        wanted.next().unwrap_or_else(|| panic!("{metric}: a point that nobody wrote"));
                    assert_eq!(*at, second * 1_000_000_000, "{metric}: the next point's time");
                    assert_eq!(
                        value.to_bits(),
                        self.value(index, second).to_bits(),
                        "{metric} at {second} s"
                    );
                    points += 1;
                }
            }
            assert_eq!(wanted.next(), None, "{metric}: a point is lost");
        }
        points
    }

    /// How many runs of a metric so many commits have.
    fn runs(&self, metric: usize, commits: u64) -> u64 {
        let part = (metric / COMMIT_METRICS) as u64;
        commits / self.round() + u64::from(part < commits % self.round())
    }
}

/// Writes, reads all back, and leaves a note of what was acknowledged.
fn write(dir: &Path, shape: Shape, settings: Settings) {
    let db = shape.options().open(dir.join("db")).expect("it opens");
    let quarter = settings.limit / 4;
    assert!(shape == Shape::Larger || db.stats().memory_max == quarter, "a quarter of the group's limit");
    let writers = Writer::all(&db, shape, settings);
    let (progress, watch, began) = (Progress::default(), Watch::default(), Instant::now());
    let commits: Vec<u64> = thread::scope(|scope| {
        scope.spawn(|| watch.run(Some(&db)));
        if shape == Shape::Held {
            scope.spawn(|| hold(&db, &progress));
        }
        let write = |writer| {
            let (db, progress) = (&db, &progress);
            scope.spawn(move || Writer::write(writer, db, progress, shape.points(settings.points)))
        };
        let threads: Vec<_> = writers.iter().map(write).collect();
        let commits = threads.into_iter().map(|thread| thread.join().expect("a writer ends")).collect();
        progress.release.store(true, Ordering::Relaxed);
        watch.stop();
        commits
    });
    let (wrote, stats) = (began.elapsed(), db.stats());
    println!(
        "| points | acknowledged in | log | volumes written | commits that waited | refused | longest commit | counted at most | of | not of files at most |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    println!(
        "| {} | {:.1} s | {} MiB | {} | {} | {} | {} ms | {} MiB | {} MiB | {} MiB |\n",
        progress.points.load(Ordering::Relaxed),
        wrote.as_secs_f64(),
        stats.log_bytes >> 20,
        stats.volumes_written,
        stats.memory_waits,
        progress.refused.load(Ordering::Relaxed),
        progress.longest.load(Ordering::Relaxed),
        watch.counted_mib(),
        stats.memory_max >> 20,
        watch.anonymous_mib(),
    );
    assert_eq!(stats.upkeep_error, None);
    if shape == Shape::Held {
        let refusal = progress.refusal.into_inner().expect("no panic");
        println!("refused: {}\n", refusal.expect("a commit was refused because of the snapshots"));
    }
    let noted: Vec<String> = commits.iter().map(u64::to_string).collect();
    fs::write(dir.join(ACKNOWLEDGED), noted.join("\n")).expect("noted");
    read_back(&db, &writers, &commits);
    let began = Instant::now();
    db.close().expect("it closes");
    println!("closed in {:.1} s", began.elapsed().as_secs_f64());
}

/// Takes snapshots, and holds them until told to let go.
fn hold(db: &Database, progress: &Progress) {
    let mut snapshots = Vec::new();
    while !progress.release.load(Ordering::Relaxed) {
        snapshots.push(db.snapshot());
        thread::sleep(Duration::from_millis(200));
    }
    println!("{} snapshots were held", snapshots.len());
}

/// Opens what another process wrote, and reads all back.
fn check(dir: &Path, shape: Shape, settings: Settings) {
    let noted = fs::read_to_string(dir.join(ACKNOWLEDGED)).expect("noted");
    let commits: Vec<u64> = noted.lines().map(|line| line.parse().expect("a number")).collect();
    let (watch, began) = (Watch::default(), Instant::now());
    let db = thread::scope(|scope| {
        scope.spawn(|| watch.run(None));
        let db = shape.options().open(dir.join("db"));
        watch.stop();
        db.expect("it opens")
    });
    let report = db.open_report();
    println!(
        "opened in {:.1} s: {} MiB of log, {} points replayed, {} MiB of them in memory; not of files at most {} MiB",
        began.elapsed().as_secs_f64(),
        report.log_bytes >> 20,
        report.points_replayed,
        db.stats().memory_bytes >> 20,
        watch.anonymous_mib()
    );
    let writers = Writer::all(&db, shape, settings);
    read_back(&db, &writers, &commits);
    db.close().expect("it closes");
}

/// Opens what takes more memory than there is.
fn refuse(dir: &Path) {
    let (watch, began) = (Watch::default(), Instant::now());
    let opened = thread::scope(|scope| {
        scope.spawn(|| watch.run(None));
        let opened = Options::new().open(dir.join("db"));
        watch.stop();
        opened
    });
    let refused = opened.expect_err("there is more in the log than memory takes");
    assert!(matches!(refused, Error::ReplayMemory { .. }), "{refused}");
    println!(
        "after {:.1} s: {refused}; not of files at most {} MiB",
        began.elapsed().as_secs_f64(),
        watch.anonymous_mib()
    );
}

/// Seals all.
fn seal(dir: &Path, shape: Shape) {
    let db = shape.options().open(dir.join("db")).expect("it opens");
    let report = db.seal(..).expect("it seals");
    println!("{} points were sealed", report.points);
    db.close().expect("it closes");
}

/// Reads all metrics' points of a few blocks, then of the next ones: so that each volume is read once, though the page cache is small.
fn read_back(db: &Database, writers: &[Writer], commits: &[u64]) {
    let (watch, began) = (Watch::default(), Instant::now());
    let snapshot = db.snapshot();
    let runs = writers.iter().zip(commits).map(|(writer, commits)| writer.runs(0, *commits)).max();
    let places = runs.unwrap_or(0).next_multiple_of(GROUP);
    let points: u64 = thread::scope(|scope| {
        scope.spawn(|| watch.run(None));
        let mut points = 0;
        for first in (0..places).step_by(AT_A_TIME as usize) {
            let next = (first + AT_A_TIME).min(places);
            for (writer, commits) in writers.iter().zip(commits) {
                points += writer.check(&snapshot, *commits, first..next, next == places);
            }
        }
        watch.stop();
        points
    });
    assert_eq!(points, commits.iter().sum::<u64>() * RUN * COMMIT_METRICS as u64);
    println!(
        "read back in {:.1} s: all {points} acknowledged points and no others; not of files at most {} MiB",
        began.elapsed().as_secs_f64(),
        watch.anonymous_mib()
    );
}
