//! A collector that writes for days.
//!
//! Each simulated 15 seconds one commit: a point of each of 1,000 metrics. One in a hundred points is late, by a minute to six hours, as many
//! between one and two hours as between one and two minutes, and comes with the commit of its time. One metric more gets a point a day. Each
//! simulated minute [`Database::maintain`] is told the time; there is no worker, so that each run does the same.
//!
//! | variable | default | |
//! | --- | ---: | --- |
//! | `CHRONOLITH_SOAK_HOURS` | 48 | simulated |
//! | `CHRONOLITH_SOAK_METRICS` | 1,000 | |
//! | `CHRONOLITH_SOAK_LATE_ONE_IN` | 100 | one in so many points is late; 0: none |
//! | `CHRONOLITH_SOAK_REFRESH_MIB` | 64 | [`Options::refresh_bytes`] |
//! | `CHRONOLITH_SOAK_OPENS` | 8 | how often in the run a copy is opened |
//! | `CHRONOLITH_SOAK_SVG` | | where to draw the figures |

use std::env;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use chronolith::{Database, Durability, Metric, Options, Timestamp};

use crate::plot::{Line, Panel, Picture};
use crate::process::{Files, Most, Peak, anonymous_bytes, copy_folder, cpu};
use crate::{folder, mib, mixed, setting};

/// The variable that makes a process open a copy and nothing else.
pub(crate) const OPEN: &str = "CHRONOLITH_SOAK_OPEN";

/// 2023-11-15T00:00:00Z.
const START_SECS: i64 = 1_700_006_400;
/// A tick is when the collector writes.
const TICK_SECS: i64 = 15;
const TICKS_PER_HOUR: u32 = 240;
const TICKS_PER_DAY: u32 = 24 * TICKS_PER_HOUR;
const TICKS_PER_MAINTAIN: u32 = 4;
const TICKS_PER_SAMPLE: u32 = TICKS_PER_HOUR / 2;
/// When in a day the metric that writes once a day does.
const DAILY_TICK: u32 = TICKS_PER_DAY / 2;
/// Late points are so by so many ticks at least, and at most so many times as long.
const LATE_TICKS_MIN: u32 = 4;
const LATE_FACTOR: u32 = 360;
/// So many rows of samples are printed.
const ROWS: u32 = 16;

/// What is written when: a function of metric and tick.
#[derive(Clone, Copy)]
struct Collector {
    metrics: u32,
    ticks: u32,
    late_one_in: u64,
}

impl Collector {
    /// By how many ticks a point comes late.
    fn late_by(self, metric: u32, tick: u32) -> u32 {
        let dice = mixed(u64::from(metric) << 32 | u64::from(tick));
        match dice.checked_rem(self.late_one_in) {
            Some(0) => {
                let share = (dice >> 11) as f64 / (1u64 << 53) as f64;
                (f64::from(LATE_TICKS_MIN) * f64::from(LATE_FACTOR).powf(share)) as u32
            }
            _ => 0,
        }
    }

    /// Constants, counters, gauges with two decimals, and doubles with all bits.
    fn value(self, metric: u32, tick: u32) -> f64 {
        let dice = mixed(u64::from(tick) << 32 | u64::from(metric)) >> 12;
        match metric % 4 {
            0 => f64::from(metric),
            1 => f64::from(tick) * 100.0 + (dice % 100) as f64,
            2 => (f64::from(metric) + (dice % 200) as f64) / 100.0,
            _ => f64::from_bits(0x3ff0_0000_0000_0000 | dice),
        }
    }

    /// How many points there are in the end, and panics unless they are those that were written, bit for bit.
    fn check(self, db: &Database) -> u64 {
        let snapshot = db.snapshot();
        let mut points = 0;
        for number in 0..self.metrics {
            let metric = snapshot.metric(name_of(number)).expect("it exists");
            let ticks = (0..self.ticks).filter(|tick| tick + self.late_by(number, *tick) < self.ticks);
            let written = ticks.map(|tick| (tick, self.value(number, tick)));
            points += check_metric(&snapshot.blocks(&metric, ..).collect::<Vec<_>>(), written);
        }
        // In less than half a day nobody makes it.
        let daily = snapshot.metric(DAILY);
        let blocks: Vec<_> = daily.iter().flat_map(|daily| snapshot.blocks(daily, ..)).collect();
        let ticks = (DAILY_TICK..self.ticks).step_by(TICKS_PER_DAY as usize);
        let written = ticks.map(|tick| (tick, f64::from(tick)));
        points + check_metric(&blocks, written)
    }
}

const DAILY: &str = "backup_bytes{job=\"daily\"}";

fn name_of(number: u32) -> String {
    format!("requests_total{{host=\"host-{number:05}\"}}")
}

fn at(tick: u32) -> Timestamp {
    Timestamp::from_secs(START_SECS + TICK_SECS * i64::from(tick))
}

/// How many points a metric has, and panics unless they are these.
fn check_metric(
    blocks: &[chronolith::Result<chronolith::Block>],
    mut written: impl Iterator<Item = (u32, f64)>,
) -> u64 {
    let mut points = 0;
    for block in blocks {
        let block = block.as_ref().expect("sound volumes");
        for (time, value) in block.timestamps().iter().zip(block.values()) {
            let (tick, expected) = written.next().expect("no more points than were written");
            assert_eq!((*time, value.to_bits()), (at(tick).as_nanos(), expected.to_bits()), "tick {tick}");
            points += 1;
        }
    }
    assert!(written.next().is_none(), "points are missing");
    points
}

/// The figures at one time.
#[derive(Clone, Debug, Default)]
struct Sample {
    hours: f64,
    /// Since the sample before.
    most: Most,
    points: u64,
    partitions: u64,
    volumes: u64,
    superseded: u64,
    volumes_written: u64,
    points_written: u64,
    stream_bytes_written: u64,
    data: Files,
    log: Files,
    /// Bytes of records; segments are made longer in advance.
    log_bytes: u64,
    opened: Option<Opened>,
}

/// What opening a copy took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    /// Seconds of the wall's clock, and of processors.
    pub(crate) wall: f64,
    pub(crate) processors: f64,
    /// Anonymous memory when it was open.
    pub(crate) bytes: u64,
}

pub(crate) fn run() {
    let hours = setting("CHRONOLITH_SOAK_HOURS", 48) as u32;
    let collector = Collector {
        metrics: setting("CHRONOLITH_SOAK_METRICS", 1_000) as u32,
        ticks: hours * TICKS_PER_HOUR,
        late_one_in: setting("CHRONOLITH_SOAK_LATE_ONE_IN", 100),
    };
    let refresh_mib = setting("CHRONOLITH_SOAK_REFRESH_MIB", 64);
    let folder = folder();
    let path = folder.path().join("db");
    let options = options().refresh_bytes(refresh_mib << 20);
    let db = options.clone().open(&path).expect("it opens");
    let (began, processors) = (Instant::now(), cpu());
    let samples = Peak::during(&db, |peak| write(&db, collector, &path, peak));
    let (wall, processors) = (began.elapsed(), cpu() - processors);
    let began = Instant::now();
    let points = collector.check(&db);
    let read = began.elapsed();
    db.close().expect("it closes");
    let db = options.open(&path).expect("it opens");
    let opened = db.open_report().elapsed;
    assert_eq!(collector.check(&db), points);
    let sealed = db.sealed_stats();
    println!(
        "\n{hours} simulated hours of {} metrics, {points} points, refresh from {refresh_mib} MiB: {wall:.1?} ({processors:.1?} of processors), read back in {read:.1?}, opened in {opened:.1?} and read back again",
        collector.metrics
    );
    println!(
        "volumes: {} points in {} bytes of files, {:.2} bits a point in streams\n",
        sealed.points,
        sealed.file_bytes,
        sealed.bits_per_point().unwrap_or(0.0)
    );
    print_table(&samples, hours);
    let picture = picture(&samples, hours);
    picture.print();
    if let Some(svg) = env::var_os("CHRONOLITH_SOAK_SVG") {
        std::fs::write(&svg, picture.svg()).expect("written");
    }
}

fn options() -> Options {
    Options::new().workers(0).durability(Durability::Buffered)
}

/// Writes it all, and returns what was sampled.
fn write(db: &Database, collector: Collector, path: &Path, peak: &Peak) -> Vec<Sample> {
    let metrics: Vec<Metric> =
        (0..collector.metrics).map(|number| db.metric(name_of(number)).expect("valid")).collect();
    let daily = db.metric(DAILY).expect("valid");
    // By the tick at which they come.
    let mut late: Vec<Vec<(u32, u32)>> = vec![Vec::new(); (LATE_TICKS_MIN * LATE_FACTOR) as usize + 1];
    let mut samples: Vec<Sample> = Vec::new();
    let opens = setting("CHRONOLITH_SOAK_OPENS", 8) as u32;
    let samples_per_open = (collector.ticks / TICKS_PER_SAMPLE).checked_div(opens).map(|every| every.max(1));
    for tick in 0..collector.ticks {
        let mut row = Vec::with_capacity(metrics.len());
        for (number, metric) in (0..).zip(&metrics) {
            match collector.late_by(number, tick) {
                0 => row.push((metric.clone(), collector.value(number, tick))),
                by => {
                    let comes = (tick + by) as usize % late.len();
                    late[comes].push((number, tick));
                }
            }
        }
        let mut txn = db.begin_write();
        txn.append_row(at(tick), &row).expect("staged");
        let now = tick as usize % late.len();
        for (number, tick) in late[now].drain(..) {
            let metric = &metrics[number as usize];
            txn.append(metric, at(tick), collector.value(number, tick)).expect("staged");
        }
        if tick % TICKS_PER_DAY == DAILY_TICK {
            txn.append(&daily, at(tick), f64::from(tick)).expect("staged");
        }
        txn.commit().expect("commits");
        let done = tick + 1;
        if done % TICKS_PER_MAINTAIN == 0 {
            // Once a minute at least, however fast a minute goes by.
            peak.look(db);
            db.maintain(at(tick)).expect("it seals");
        }
        if done % TICKS_PER_SAMPLE == 0 {
            let mut sample = sample(db, path, done, peak);
            if samples_per_open.is_some_and(|every| (samples.len() as u32 + 1).is_multiple_of(every)) {
                sample.opened = Some(open_time(path));
            }
            samples.push(sample);
            show(done, collector.ticks, TICKS_PER_HOUR, "hours");
        }
    }
    samples
}

fn sample(db: &Database, path: &Path, ticks: u32, peak: &Peak) -> Sample {
    // So that the copy has all.
    db.sync().expect("it syncs");
    let stats = db.stats();
    let (all, data) = (Files::of(path), Files::of(&path.join("data")));
    Sample {
        hours: f64::from(ticks) / f64::from(TICKS_PER_HOUR),
        most: peak.take(),
        points: stats.points,
        partitions: stats.partitions,
        volumes: stats.volumes,
        superseded: stats.superseded_volumes,
        volumes_written: stats.volumes_written,
        points_written: stats.points_written,
        stream_bytes_written: stats.stream_bytes_written,
        log: Files { count: all.count - data.count, bytes: all.bytes - data.bytes },
        data,
        log_bytes: stats.log_bytes,
        opened: None,
    }
}

/// What it takes to open a copy of what is there now, in a process of its own.
pub(crate) fn open_time(path: &Path) -> Opened {
    let copy: PathBuf = path.with_extension("copy");
    copy_folder(path, &copy);
    let own = env::current_exe().expect("this program");
    let told = Command::new(own).env(OPEN, &copy).output().expect("it runs");
    std::fs::remove_dir_all(&copy).expect("removed");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told = String::from_utf8(told.stdout).expect("text");
    let mut told = told.split_whitespace();
    let mut next = || told.next().expect("three figures");
    let mut seconds = || next().parse().expect("seconds");
    Opened { wall: seconds(), processors: seconds(), bytes: next().parse().expect("bytes") }
}

/// What the process for a copy does.
pub(crate) fn open_copy(copy: &Path) {
    let db = options().open(copy).expect("the copy opens");
    println!("{} {} {}", db.open_report().elapsed.as_secs_f64(), cpu().as_secs_f64(), anonymous_bytes());
}

/// Draws how much is done, of so many steps, of which a unit has some. On a terminal only.
pub(crate) fn show(done: u32, all: u32, per_unit: u32, unit: &str) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let width = 40;
    let full = (u64::from(done) * width / u64::from(all)) as usize;
    let bar = format!("{}{}", "#".repeat(full), ".".repeat(width as usize - full));
    eprint!("\r[{bar}] {:.1} of {} {unit} ", f64::from(done) / f64::from(per_unit), all / per_unit);
    if done == all {
        eprintln!();
    }
    let _ = std::io::stderr().flush();
}

fn print_table(samples: &[Sample], hours: u32) {
    let columns = [
        "hour",
        "counted MiB",
        "anonymous MiB",
        "points in memory",
        "partitions",
        "volumes",
        "files in data/",
        "data/ MiB",
        "volumes written",
        "points written",
        "log MiB",
        "log files MiB",
        "open s",
        "open, processors s",
        "open MiB",
    ];
    println!("| {} |\n|{}", columns.join(" | "), " ---: |".repeat(columns.len()));
    let every = (hours * TICKS_PER_HOUR / TICKS_PER_SAMPLE / ROWS).max(1) as usize;
    for sample in samples.iter().skip(every - 1).step_by(every) {
        let opened = sample.opened.map_or_else(
            || "| |".to_owned(),
            |Opened { wall, processors, bytes }| format!("{wall:.2} | {processors:.2} | {:.1}", mib(bytes)),
        );
        println!(
            "| {:.1} | {:.1} | {:.1} | {} | {} | {} | {} | {:.1} | {} | {} | {:.1} | {:.1} | {opened} |",
            sample.hours,
            mib(sample.most.counted),
            mib(sample.most.anonymous),
            sample.points,
            sample.partitions,
            sample.volumes,
            sample.data.count,
            mib(sample.data.bytes),
            sample.volumes_written,
            sample.points_written,
            mib(sample.log_bytes),
            mib(sample.log.bytes),
        );
    }
    let last = samples.last().expect("one at least");
    let most = |figure: fn(&Sample) -> u64| samples.iter().map(figure).max().unwrap_or(0);
    println!(
        "\nmost: counted {:.1} MiB, anonymous {:.1} MiB, {} points in memory, {} volumes waiting to be removed; written {:.1} MiB of streams\n",
        mib(most(|sample| sample.most.counted)),
        mib(most(|sample| sample.most.anonymous)),
        most(|sample| sample.points),
        most(|sample| sample.superseded),
        mib(last.stream_bytes_written),
    );
}

fn picture(samples: &[Sample], hours: u32) -> Picture {
    let line = |name: &'static str, figure: &dyn Fn(&Sample) -> Option<f64>| Line {
        name,
        points: samples.iter().filter_map(|sample| Some((sample.hours, figure(sample)?))).collect(),
    };
    let panel = |title: &'static str, unit: &'static str, lines| Panel { title, unit, lines };
    Picture {
        x_title: "simulated hours",
        x_max: f64::from(hours),
        // A day at most, and no more than about a dozen.
        x_step: [1.0, 2.0, 4.0, 6.0, 12.0]
            .into_iter()
            .find(|step| step * 13.0 > f64::from(hours))
            .unwrap_or(24.0),
        panels: vec![
            panel(
                "memory, the most of each half hour",
                "MiB",
                vec![
                    line("anonymous, the process", &|sample| Some(mib(sample.most.anonymous))),
                    line("counted by the database", &|sample| Some(mib(sample.most.counted))),
                ],
            ),
            panel(
                "points in memory",
                "thousands",
                vec![line("points", &|sample| Some(sample.points as f64 / 1e3))],
            ),
            panel(
                "on disk",
                "MiB",
                vec![
                    line("log on disk", &|sample| Some(mib(sample.log_bytes))),
                    line("data/", &|sample| Some(mib(sample.data.bytes))),
                ],
            ),
            panel("files in data/", "", vec![line("files", &|sample| Some(sample.data.count as f64))]),
            panel(
                "volumes",
                "",
                vec![
                    line("written", &|sample| Some(sample.volumes_written as f64)),
                    line("there", &|sample| Some(sample.volumes as f64)),
                ],
            ),
            panel(
                "opening a copy",
                "seconds of a processor",
                vec![line("open", &|sample| Some(sample.opened?.processors))],
            ),
        ],
    }
}
