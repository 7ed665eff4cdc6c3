//! Metrics that come and go: each simulated day so many new ones, which live for two days.
//!
//! A metric gets a point when it is made and one each six hours, until it is dropped at the age of two days: so there are twice as many as come in a
//! day, whatever the day. Each simulated hour [`Database::maintain`] is told the time; there is no worker. Each half day figures are taken, and a
//! copy is opened by a process of its own.
//!
//! | variable | default | |
//! | --- | ---: | --- |
//! | `CHRONOLITH_CHURN_DAYS` | 30 | simulated |
//! | `CHRONOLITH_CHURN_METRICS` | 100,000 | new ones a day |
//! | `CHRONOLITH_CHURN_SVG` | | where to draw the figures |

use std::collections::VecDeque;
use std::env;
use std::path::Path;
use std::time::Instant;

use chronolith::{Database, Durability, Metric, Options, Timestamp};

use crate::days::{Opened, open_time, show};
use crate::plot::{Line, Panel, Picture};
use crate::process::{Files, anonymous_bytes, cpu};
use crate::{folder, mib, mixed, setting};

/// 2023-11-15T00:00:00Z.
const START_SECS: i64 = 1_700_006_400;
const HOUR_SECS: i64 = 3_600;
const HOURS_PER_DAY: u32 = 24;
/// A metric gets a point each so many hours.
const POINT_HOURS: u32 = 6;
/// When it is dropped.
const LIFE_HOURS: u32 = 2 * HOURS_PER_DAY;
const SAMPLE_HOURS: u32 = HOURS_PER_DAY / 2;

/// Metrics that were made in the same hour.
struct Generation {
    hour: u32,
    metrics: Vec<Metric>,
}

/// The figures at one time.
#[derive(Clone, Debug)]
struct Sample {
    days: f64,
    /// Since the beginning.
    made: u64,
    metrics: u64,
    anonymous: u64,
    counted: u64,
    names: Files,
    trees: Files,
    data: Files,
    all: Files,
    opened: Opened,
}

pub(crate) fn options() -> Options {
    Options::new().workers(0).durability(Durability::Buffered)
}

pub(crate) fn run() {
    let days = setting("CHRONOLITH_CHURN_DAYS", 30) as u32;
    let per_day = setting("CHRONOLITH_CHURN_METRICS", 100_000) as u32;
    let folder = folder();
    let path = folder.path().join("db");
    let db = options().open(&path).expect("it opens");
    let (began, processors) = (Instant::now(), cpu());
    let samples = live(&db, &path, days, per_day);
    println!(
        "\n{days} simulated days, {per_day} new metrics each, dropped after two: {:.1?} ({:.1?} of processors)\n",
        began.elapsed(),
        cpu() - processors
    );
    print_table(&samples);
    let picture = picture(&samples, days);
    picture.print();
    if let Some(svg) = env::var_os("CHRONOLITH_CHURN_SVG") {
        std::fs::write(&svg, picture.svg()).expect("written");
    }
    db.close().expect("it closes");
}

/// An ID of 95 bytes with five tags, unlike any before.
fn name_of(number: u64) -> String {
    let dice = mixed(number);
    let id = format!(
        "cpu_seconds_total{{core=\"{:03}\",dc=\"eu-west-{}\",pod=\"pod-{number:010}\",job=\"node{:08}\",rack=\"r{:02}\"}}",
        dice % 64,
        dice % 9,
        dice % 100_000_000,
        dice % 100,
    );
    assert_eq!(id.len(), 95, "{id}");
    id
}

fn at(hour: u32) -> Timestamp {
    Timestamp::from_secs(START_SECS + HOUR_SECS * i64::from(hour))
}

/// What a metric has at an hour.
fn value(metric: &Metric, hour: u32) -> f64 {
    f64::from(metric.id().get() % 1_000 + hour)
}

/// Lives through all days, and returns what was sampled.
fn live(db: &Database, path: &Path, days: u32, per_day: u32) -> Vec<Sample> {
    let mut alive: VecDeque<Generation> = VecDeque::new();
    let (mut made, mut samples) = (0_u64, Vec::new());
    let hours = days * HOURS_PER_DAY;
    for hour in 0..hours {
        // As many each hour.
        let until = u64::from(per_day) * u64::from(hour + 1) / u64::from(HOURS_PER_DAY);
        let names = (made..until).map(name_of);
        let metrics = names.map(|name| db.metric(name).expect("valid")).collect();
        made = until;
        alive.push_back(Generation { hour, metrics });
        let mut txn = db.begin_write();
        for Generation { hour: born, metrics } in &alive {
            let age = hour - born;
            if age < LIFE_HOURS && age.is_multiple_of(POINT_HOURS) {
                for metric in metrics {
                    txn.append(metric, at(hour), value(metric, hour)).expect("staged");
                }
            }
        }
        while alive.front().is_some_and(|oldest| hour - oldest.hour >= LIFE_HOURS) {
            for metric in alive.pop_front().iter().flat_map(|oldest| &oldest.metrics) {
                txn.drop_metric(metric).expect("staged");
            }
        }
        txn.commit().expect("commits");
        db.maintain(at(hour)).expect("it seals");
        if (hour + 1).is_multiple_of(SAMPLE_HOURS) {
            samples.push(sample(db, path, hour + 1, made));
            check(db, &alive, hour);
            show(hour + 1, hours, HOURS_PER_DAY, "days");
        }
    }
    samples
}

fn sample(db: &Database, path: &Path, hour: u32, made: u64) -> Sample {
    // So that the copy has all.
    db.sync().expect("it syncs");
    let stats = db.stats();
    let files = |name| Files::of(&path.join(name));
    Sample {
        days: f64::from(hour) / f64::from(HOURS_PER_DAY),
        made,
        metrics: stats.metrics,
        anonymous: anonymous_bytes(),
        counted: stats.memory_bytes,
        names: files("names"),
        trees: files("trees"),
        data: files("data"),
        all: Files::of(path),
        opened: open_time(path),
    }
}

/// Panics unless the metrics are those that are alive, with all their points: of each generation some are looked at.
fn check(db: &Database, alive: &VecDeque<Generation>, hour: u32) {
    let snapshot = db.snapshot();
    let count: usize = alive.iter().map(|generation| generation.metrics.len()).sum();
    assert_eq!(db.stats().metrics as usize, count);
    for Generation { hour: born, metrics } in alive {
        for metric in metrics.iter().step_by(metrics.len().div_ceil(8).max(1)) {
            let found: Vec<_> = snapshot.range(metric, ..).map(|point| point.expect("sound")).collect();
            let hours = (*born..=hour).step_by(POINT_HOURS as usize);
            let written: Vec<_> = hours.map(|hour| (at(hour), value(metric, hour))).collect();
            let found: Vec<_> = found.iter().map(|point| (point.at, point.value)).collect();
            assert_eq!(found, written, "{metric}");
        }
    }
}

fn print_table(samples: &[Sample]) {
    let columns = [
        "day",
        "metrics made",
        "metrics there",
        "anonymous MiB",
        "counted MiB",
        "names/ MiB",
        "trees/ MiB",
        "data/ MiB",
        "files",
        "all files MiB",
        "open, processors s",
        "open, MiB",
    ];
    println!("| {} |\n|{}", columns.join(" | "), " ---: |".repeat(columns.len()));
    let every = samples.len().div_ceil(15).max(1);
    for sample in samples.iter().skip(every - 1).step_by(every) {
        println!(
            "| {:.1} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {:.1} | {:.2} | {:.1} |",
            sample.days,
            sample.made,
            sample.metrics,
            mib(sample.anonymous),
            mib(sample.counted),
            mib(sample.names.bytes),
            mib(sample.trees.bytes),
            mib(sample.data.bytes),
            sample.all.count,
            mib(sample.all.bytes),
            sample.opened.processors,
            mib(sample.opened.bytes),
        );
    }
    println!();
}

fn picture(samples: &[Sample], days: u32) -> Picture {
    let line = |name: &'static str, figure: &dyn Fn(&Sample) -> f64| Line {
        name,
        points: samples.iter().map(|sample| (sample.days, figure(sample))).collect(),
    };
    let panel = |title: &'static str, unit: &'static str, lines| Panel { title, unit, lines };
    Picture {
        x_title: "simulated days",
        x_max: f64::from(days),
        x_step: if days > 12 { 5.0 } else { 1.0 },
        panels: vec![
            panel(
                "metrics",
                "thousands",
                vec![
                    line("made so far", &|sample| sample.made as f64 / 1e3),
                    line("there", &|sample| sample.metrics as f64 / 1e3),
                ],
            ),
            panel(
                "anonymous memory",
                "MiB",
                vec![
                    line("the process", &|sample| mib(sample.anonymous)),
                    line("a copy, opened", &|sample| mib(sample.opened.bytes)),
                ],
            ),
            panel(
                "names and trees",
                "MiB",
                vec![
                    line("names/", &|sample| mib(sample.names.bytes)),
                    line("trees/", &|sample| mib(sample.trees.bytes)),
                ],
            ),
            panel(
                "volumes, and all files",
                "MiB",
                vec![
                    line("all files", &|sample| mib(sample.all.bytes)),
                    line("data/", &|sample| mib(sample.data.bytes)),
                ],
            ),
            panel(
                "opening a copy",
                "seconds of a processor",
                vec![line("open", &|sample| sample.opened.processors)],
            ),
        ],
    }
}
