//! The codec in million points per CPU second, beside the crate `tsz`: medians of runs that take turns.
//!
//! ```sh
//! CHRONOLITH_DATASETS=DIR cargo bench --bench codec_table [-- RUNS [NAME...]]
//! ```
//!
//! 10 runs of everything unless told otherwise; the folder of recordings may be left out. Streams are of 1,024 points. `tsz` stores
//! every value as a XOR and whole milliseconds, ours keeps nanoseconds.

#[path = "common/codecs.rs"]
mod codecs;
#[path = "common/columns.rs"]
mod columns;

use std::hint::black_box;

use chronolith::m3tsz::{EncoderOptions, Mode, ValueCoding};
use codecs::{decode, decode_by_tsz, encode, encode_by_tsz};
use columns::{BLOCK_POINTS, Columns};
use rustix::time::{ClockId, clock_gettime};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runs = arguments.first().map_or(10, |text| text.parse().expect("a number of runs"));
    let wanted = arguments.get(1..).unwrap_or_default();
    println!("Million points per CPU second, median of {runs} runs.\n");
    println!("| data | bytes a point | encode | encode, M3 mode | encode, plain | `tsz` | decode | `tsz` |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for set in columns::all() {
        if wanted.is_empty() || wanted.contains(&set.name) {
            measure(&set, runs);
        }
    }
}

fn measure(set: &Columns, runs: usize) {
    let blocks = set.blocks();
    let lossless = EncoderOptions::default();
    let ours: Vec<Vec<u8>> = blocks.iter().map(|block| encode(*block, lossless)).collect();
    let theirs: Vec<Box<[u8]>> = blocks.iter().map(|block| encode_by_tsz(*block)).collect();
    let (mut timestamps, mut values) = (vec![0; BLOCK_POINTS], vec![0.0; BLOCK_POINTS]);
    for (block, stream) in blocks.iter().zip(&ours) {
        let points = decode(stream, &mut timestamps, &mut values);
        let same_values = values[..points].iter().zip(block.1).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(timestamps[..points] == *block.0 && same_values, "{} does not come back", set.name);
    }
    let mut seconds: [Vec<f64>; 6] = Default::default();
    for _ in 0..runs {
        let options = [lossless, lossless.mode(Mode::M3), lossless.values(ValueCoding::Plain)];
        for (seconds, options) in seconds.iter_mut().zip(options) {
            seconds.push(cpu_seconds(|| {
                for block in &blocks {
                    black_box(encode(*block, options));
                }
            }));
        }
        seconds[3].push(cpu_seconds(|| {
            for block in &blocks {
                black_box(encode_by_tsz(*block));
            }
        }));
        seconds[4].push(cpu_seconds(|| {
            for stream in &ours {
                black_box(decode(stream, &mut timestamps, &mut values));
                black_box((&timestamps, &values));
            }
        }));
        // It takes the streams away.
        let streams = theirs.clone();
        seconds[5].push(cpu_seconds(|| {
            for stream in streams {
                black_box(decode_by_tsz(stream, &mut timestamps, &mut values));
                black_box((&timestamps, &values));
            }
        }));
    }
    let points = set.points() as f64;
    let bytes: usize = ours.iter().map(Vec::len).sum();
    let rates = seconds.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        points / seconds[seconds.len() / 2] / 1e6
    });
    let [encode, m3, plain, tsz_encode, decode, tsz_decode] = rates;
    println!(
        "| {} | {:.3} | {encode:.0} | {m3:.0} | {plain:.0} | {tsz_encode:.0} | {decode:.0} | {tsz_decode:.0} |",
        set.name,
        bytes as f64 / points
    );
}

/// What this thread spends in `work`.
fn cpu_seconds(work: impl FnOnce()) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let start = now();
    work();
    now() - start
}
