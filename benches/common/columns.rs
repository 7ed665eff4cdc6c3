//! Columns of timestamps and values for the codec: synthetic shapes, and recordings if `CHRONOLITH_DATASETS` names a folder of them.

#![allow(dead_code, reason = "not every bench uses all of it")]

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

/// Points of a block: what one call of the codec gets.
pub(crate) const BLOCK_POINTS: usize = 1_024;
/// Points of a synthetic set, and the most of a recording.
pub(crate) const SET_POINTS: usize = 1 << 20;
/// Points of a synthetic series.
const SERIES_POINTS: usize = 8_192;
const START_MS: i64 = 1_700_000_000_000;
const MS: i64 = 1_000_000;

/// Series with something in common.
pub(crate) struct Columns {
    pub(crate) name: String,
    /// Timestamps in nanoseconds, and values.
    pub(crate) series: Vec<(Vec<i64>, Vec<f64>)>,
}

/// Timestamps and values of at most [`BLOCK_POINTS`] points.
pub(crate) type Block<'a> = (&'a [i64], &'a [f64]);

impl Columns {
    pub(crate) fn points(&self) -> usize {
        self.series.iter().map(|(timestamps, _)| timestamps.len()).sum()
    }

    pub(crate) fn blocks(&self) -> Vec<Block<'_>> {
        let all = self.series.iter();
        all.flat_map(|(timestamps, values)| timestamps.chunks(BLOCK_POINTS).zip(values.chunks(BLOCK_POINTS)))
            .collect()
    }
}

/// All there are: the synthetic shapes, then the recordings.
pub(crate) fn all() -> Vec<Columns> {
    let mut sets = synthetic();
    sets.extend(recordings());
    sets
}

/// The synthetic shapes.
pub(crate) fn synthetic() -> Vec<Columns> {
    SHAPES.iter().map(|(name, shape, jitter)| synthesize(name, *shape, *jitter)).collect()
}

/// The recordings, if there are any.
pub(crate) fn recordings() -> Vec<Columns> {
    let mut sets = Vec::new();
    if let Some(folder) = std::env::var_os("CHRONOLITH_DATASETS") {
        let entries = std::fs::read_dir(&folder).expect("CHRONOLITH_DATASETS names a folder");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
        paths.retain(|path| path.to_string_lossy().ends_with(".csv.zst"));
        paths.sort();
        sets.extend(paths.iter().map(|path| recording(path)));
    } else {
        eprintln!("CHRONOLITH_DATASETS names no folder of recordings (*.csv.zst): none are measured");
    }
    sets
}

/// What a synthetic series looks like.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    /// An integer that grows by about 50.
    Counter,
    /// An integer that wanders by a few.
    Gauge,
    /// A value of two decimals that wanders.
    Decimal,
    /// Random doubles of full precision.
    Random,
    /// Always the same.
    Constant,
}

/// Each shape every 15 s to the millisecond, and some milliseconds beside that.
const SHAPES: [(&str, Shape, bool); 10] = [
    ("counters", Shape::Counter, false),
    ("gauges", Shape::Gauge, false),
    ("decimals", Shape::Decimal, false),
    ("random", Shape::Random, false),
    ("constants", Shape::Constant, false),
    ("counters_jitter", Shape::Counter, true),
    ("gauges_jitter", Shape::Gauge, true),
    ("decimals_jitter", Shape::Decimal, true),
    ("random_jitter", Shape::Random, true),
    ("constants_jitter", Shape::Constant, true),
];

fn synthesize(name: &str, shape: Shape, jitter: bool) -> Columns {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let series = (0..SET_POINTS / SERIES_POINTS).map(|_| {
        let mut level = (random.next() % 100_000) as f64;
        (0..SERIES_POINTS)
            .map(|at| {
                let beside = if jitter { (random.normal() * 3.0).round() as i64 } else { 0 };
                match shape {
                    Shape::Counter => level += (50.0 + 15.0 * random.normal()).round().max(0.0),
                    Shape::Gauge => level += (4.0 * random.normal()).round(),
                    Shape::Decimal => level += 0.5 * random.normal(),
                    Shape::Random => level = random.unit() * 100.0,
                    Shape::Constant => {}
                }
                let value = if shape == Shape::Decimal { (level * 100.0).round() / 100.0 } else { level };
                ((START_MS + 15_000 * at as i64 + beside) * MS, value)
            })
            .unzip()
    });
    Columns { name: name.to_owned(), series: series.collect() }
}

/// A recording: zstd over lines of `series,ts_ms,value`, of which the first [`SET_POINTS`] or so are taken.
fn recording(path: &Path) -> Columns {
    let name = path.file_name().expect("a file").to_string_lossy().replace(".csv.zst", "");
    let file = std::fs::File::open(path).expect("a readable recording");
    let mut text = String::new();
    ruzstd::decoding::StreamingDecoder::new(file)
        .expect("zstd")
        .read_to_string(&mut text)
        .expect("zstd of text");
    let mut indexes = HashMap::new();
    let mut series: Vec<(Vec<i64>, Vec<f64>)> = Vec::new();
    for line in text.lines().skip(1).take(SET_POINTS) {
        let mut fields = line.rsplitn(3, ',');
        let value = fields.next().and_then(|text| text.parse().ok()).expect("a value");
        let at: i64 = fields.next().and_then(|text| text.parse().ok()).expect("a time");
        let index = *indexes.entry(fields.next().expect("a series")).or_insert(series.len());
        if index == series.len() {
            series.push(Default::default());
        }
        series[index].0.push(at * MS);
        series[index].1.push(value);
    }
    Columns { name, series }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0..1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Nearly normal, of variance 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}
