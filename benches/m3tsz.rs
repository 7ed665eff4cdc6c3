//! The codec alone: `m3tsz/{encode,decode}/{shape}`, throughput in points.

mod common;

use chronolith::m3tsz::{Decoder, Encoder, EncoderOptions, ValueCoding};
use common::{Shape, Values};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const POINTS: i64 = 10_000;
const START: i64 = 1_700_000_000_000_000_000;
const STEP: i64 = 15_000_000_000;

fn stream(values: &[f64]) -> Vec<u8> {
    let mut encoder = Encoder::new(START, EncoderOptions::default());
    for (at, value) in (0..).map(|i| START + i * STEP).zip(values) {
        encoder.append(at, *value, b"").expect("ascending times are taken");
    }
    let mut bytes = Vec::new();
    encoder.finish_into(&mut bytes);
    bytes
}

fn codec(criterion: &mut Criterion) {
    let data: Vec<(Shape, Vec<f64>)> = Shape::ALL
        .iter()
        .map(|shape| {
            let mut values = Values::new(*shape, 1);
            (*shape, (0..POINTS).map(|_| values.next_value()).collect())
        })
        .collect();
    let mut group = criterion.benchmark_group("m3tsz/encode");
    group.throughput(Throughput::Elements(POINTS as u64));
    for (shape, values) in &data {
        let id = BenchmarkId::from_parameter(format!("{shape:?}").to_lowercase());
        group.bench_with_input(id, values, |bencher, values| bencher.iter(|| stream(values)));
    }
    group.finish();
    let mut group = criterion.benchmark_group("m3tsz/decode");
    group.throughput(Throughput::Elements(POINTS as u64));
    for (shape, values) in &data {
        let bytes = stream(values);
        let id = BenchmarkId::from_parameter(format!("{shape:?}").to_lowercase());
        let (mut timestamps, mut decoded) = (Vec::new(), Vec::new());
        group.bench_with_input(id, &bytes, |bencher, bytes| {
            bencher.iter(|| {
                timestamps.clear();
                decoded.clear();
                let mut decoder = Decoder::new(bytes, ValueCoding::IntOptimized);
                decoder.decode_block(usize::MAX, &mut timestamps, &mut decoded, |_, _| {}).expect("sound")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
