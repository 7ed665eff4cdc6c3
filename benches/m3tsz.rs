//! The codec alone: `m3tsz/{encode,decode}/{shape}`, throughput in points, and the crate `tsz` beside it.
//!
//! `CHRONOLITH_DATASETS` names a folder of recordings; without it there are synthetic shapes only.

#[path = "common/codecs.rs"]
mod codecs;
#[path = "common/columns.rs"]
mod columns;

use chronolith::m3tsz::EncoderOptions;
use codecs::{decode, decode_by_tsz, encode, encode_by_tsz};
use columns::{BLOCK_POINTS, Columns};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Blocks of a set that are measured: enough that no processor learns the data.
const BLOCKS: usize = 64;

fn codec(criterion: &mut Criterion) {
    for set in columns::all() {
        shape(criterion, &set);
    }
}

fn shape(criterion: &mut Criterion, set: &Columns) {
    let all = set.blocks();
    let blocks: Vec<_> = all.iter().step_by(all.len().div_ceil(BLOCKS)).copied().collect();
    let points = blocks.iter().map(|block| block.0.len() as u64).sum();
    let streams: Vec<_> = blocks.iter().map(|block| encode(*block, EncoderOptions::default())).collect();
    let their_streams: Vec<_> = blocks.iter().map(|block| encode_by_tsz(*block)).collect();
    let (mut timestamps, mut values) = (vec![0; BLOCK_POINTS], vec![0.0; BLOCK_POINTS]);

    for (codec, ours) in [("m3tsz", true), ("tsz", false)] {
        let mut group = criterion.benchmark_group(format!("{codec}/encode"));
        group.throughput(Throughput::Elements(points));
        group.bench_function(&set.name, |bencher| {
            bencher.iter(|| match ours {
                true => {
                    blocks.iter().map(|block| encode(*block, EncoderOptions::default()).len()).sum::<usize>()
                }
                false => blocks.iter().map(|block| encode_by_tsz(*block).len()).sum(),
            });
        });
        group.finish();
    }
    let mut group = criterion.benchmark_group("m3tsz/decode");
    group.throughput(Throughput::Elements(points));
    group.bench_function(&set.name, |bencher| {
        bencher.iter(|| {
            streams.iter().map(|stream| decode(stream, &mut timestamps, &mut values)).sum::<usize>()
        });
    });
    group.finish();
    let mut group = criterion.benchmark_group("tsz/decode");
    group.throughput(Throughput::Elements(points));
    group.bench_function(&set.name, |bencher| {
        let decode = |streams: Vec<_>| {
            streams
                .into_iter()
                .map(|stream| decode_by_tsz(stream, &mut timestamps, &mut values))
                .sum::<usize>()
        };
        // It takes the streams away.
        bencher.iter_batched(|| their_streams.clone(), decode, BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
