//! Bytes of a point in volumes, by data set, width of the blocks and mode: no timing, the same figures every time.
//!
//! ```sh
//! CHRONOLITH_DATASETS=DIR cargo bench --bench volume_sizes
//! ```
//!
//! Every series of a set is a metric, called by its number. A stream starts at its block's start, as M3's do.

#[path = "common/columns.rs"]
mod columns;

use std::collections::BTreeMap;
use std::path::Path;

use chronolith::fileset::{
    MetricStream, Statistics, SupplementSpec, Volume, VolumeFile, VolumeName, VolumeSpec, VolumeWriter,
};
use chronolith::io::{MemoryDisk, Vfs};
use chronolith::m3tsz::{Encoder, EncoderOptions, Mode, ValueCoding};
use columns::Columns;

const HOUR: i64 = 3_600_000_000_000;
const WIDTHS: [(&str, i64); 3] = [("2 h", 2 * HOUR), ("1 d", 24 * HOUR), ("30 d", 720 * HOUR)];

fn main() {
    let mut sets = columns::synthetic();
    sets.push(mix(&sets));
    sets.extend(columns::recordings());
    println!(
        "| data | block | points a stream | data file, lossless | data file, M3 mode | all eight files, lossless |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: |");
    for set in &sets {
        for (width_name, width) in WIDTHS {
            let [lossless, m3] = [Mode::Lossless, Mode::M3].map(|mode| Sizes::of(set, width, mode));
            let points = set.points() as f64;
            println!(
                "| {} | {width_name} | {:.0} | {:.3} | {:.3} | {:.3} |",
                set.name,
                points / lossless.streams as f64,
                lossless.data as f64 / points,
                m3.data as f64 / points,
                lossless.all as f64 / points
            );
        }
    }
}

/// A quarter counters, a quarter gauges, a quarter decimals, a tenth constants, the rest random.
fn mix(sets: &[Columns]) -> Columns {
    let shares = [("counters", 32), ("gauges", 32), ("decimals", 32), ("constants", 13), ("random", 19)];
    let series = shares.iter().flat_map(|(name, share)| {
        let set = sets.iter().find(|set| set.name == *name).expect("a shape");
        set.series.iter().take(*share).cloned()
    });
    Columns { name: "mix".to_owned(), series: series.collect() }
}

/// A metric's number, timestamps and values.
type Points = (u32, Vec<i64>, Vec<f64>);

#[derive(Default)]
struct Sizes {
    streams: u64,
    data: u64,
    all: u64,
}

impl Sizes {
    /// Writes the volumes to memory and adds up their files.
    fn of(set: &Columns, width: i64, mode: Mode) -> Sizes {
        let mut blocks: BTreeMap<i64, Vec<Points>> = BTreeMap::new();
        for (metric, (timestamps, values)) in (0..).zip(&set.series) {
            let points = timestamps.iter().copied().zip(values.iter().copied());
            // A recording may go back.
            let mut sorted: BTreeMap<i64, f64> = BTreeMap::new();
            sorted.extend(points);
            for (at, value) in sorted {
                let block = blocks.entry(at.div_euclid(width) * width).or_default();
                if block.last().is_none_or(|last| last.0 != metric) {
                    block.push((metric, Vec::new(), Vec::new()));
                }
                let (_, timestamps, values) = block.last_mut().expect("just made");
                timestamps.push(at);
                values.push(value);
            }
        }
        let mut sizes = Sizes::default();
        for (start, metrics) in &blocks {
            sizes.add_volume(*start, width, mode, metrics);
        }
        sizes
    }

    fn add_volume(&mut self, start: i64, width: i64, mode: Mode, metrics: &[Points]) {
        let disk = MemoryDisk::new();
        let folder = Path::new("/volumes");
        disk.create_dir_all(folder).expect("memory");
        let name = VolumeName { block_start: start, volume: 0 };
        let supplement = Some(SupplementSpec { database_id: [7; 16], freeze_version: 1 });
        let spec = VolumeSpec { name, block_size: width, snapshot: None, supplement };
        let mut writer = VolumeWriter::create(&disk, folder, spec).expect("memory");
        for (metric, timestamps, values) in metrics {
            let mut encoder = Encoder::new(start, EncoderOptions::default().mode(mode));
            encoder.append_all(timestamps, values).expect("milliseconds fit");
            let mut stream = encoder.take_complete();
            encoder.finish_into(&mut stream);
            let statistics = Statistics::of_stream(&stream, ValueCoding::IntOptimized).expect("sound");
            let id = format!("{metric:08}");
            let metric_stream = MetricStream { id: id.as_bytes(), tags: b"", stream: &stream };
            writer.append_numbered(metric_stream, (*metric).into(), &statistics).expect("memory");
        }
        writer.finish().expect("memory");
        let volume = Volume::open(&disk, folder, name).expect("just written");
        self.streams += metrics.len() as u64;
        let len = |path: &Path| {
            let file = disk.open(path, false).expect("memory").expect("just written");
            file.len().expect("memory")
        };
        self.data += len(&volume.path(VolumeFile::Data));
        self.all += VolumeFile::ALL.iter().map(|file| len(&volume.path(*file))).sum::<u64>();
        self.all += len(&volume.supplement_path());
    }
}
