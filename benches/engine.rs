//! The engine over growing numbers of metrics: `engine/{begin,commit,transact,row,scan}/{metrics}`, in memory.

mod common;

use chronolith::{Database, Durability, Metric, Options, Timestamp};
use common::{Shape, Values};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const METRICS: [usize; 3] = [1_000, 10_000, 100_000];

fn database(metrics: usize) -> (Database, Vec<Metric>) {
    let options = Options::new().durability(Durability::Buffered).workers(0);
    let db = options.open_in_memory().expect("opens");
    let name = |i| db.metric(format!("cpu_seconds_total{{core=\"{}\",host=\"host-{i:07}\"}}", i % 16));
    let metrics: Vec<Metric> = (0..metrics).map(|i| name(i).expect("valid")).collect();
    let mut txn = db.begin_write();
    metrics.iter().for_each(|metric| txn.append(metric, Timestamp::EPOCH, 0.0).expect("staged"));
    txn.commit().expect("commits");
    (db, metrics)
}

fn engine(criterion: &mut Criterion) {
    let mut at = Timestamp::from_secs(1_700_000_000);
    let mut next = move || {
        at += std::time::Duration::from_secs(15);
        at
    };
    for count in METRICS {
        let (db, metrics) = database(count);
        criterion.bench_with_input(BenchmarkId::new("engine/begin", count), &db, |bencher, db| {
            bencher.iter(|| db.snapshot());
        });

        let mut place = 0;
        criterion.bench_with_input(BenchmarkId::new("engine/commit", count), &db, |bencher, db| {
            bencher.iter(|| {
                place = (place + 7_919) % metrics.len();
                db.append(&metrics[place], next(), 1.0).expect("commits")
            });
        });

        // As `commit`, but it reads the metric's last point and commits only if that is still the last.
        criterion.bench_with_input(BenchmarkId::new("engine/transact", count), &db, |bencher, db| {
            bencher.iter(|| {
                place = (place + 7_919) % metrics.len();
                let metric = &metrics[place];
                let add = |txn: &mut chronolith::WriteTransaction| {
                    let last = txn.latest(metric)?.map_or(0.0, |point| point.value);
                    txn.append(metric, next(), last + 1.0)
                };
                db.transact(add).expect("commits")
            });
        });

        let mut values: Vec<Values> = (0..count).map(|i| Values::new(Shape::of(i), i as u64)).collect();
        let mut group = criterion.benchmark_group("engine/row");
        group.throughput(Throughput::Elements(count as u64)).sample_size(10);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter_batched(
                || metrics.iter().cloned().zip(values.iter_mut().map(Values::next_value)).collect::<Vec<_>>(),
                |row| {
                    let mut txn = db.begin_write();
                    txn.append_row(next(), &row).expect("staged");
                    txn.commit().expect("commits")
                },
                BatchSize::LargeInput,
            );
        });
        group.finish();

        let snapshot = db.snapshot();
        let points = db.stats().points;
        let mut group = criterion.benchmark_group("engine/scan");
        group.throughput(Throughput::Elements(points)).sample_size(10);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                let blocks = metrics.iter().flat_map(|metric| snapshot.blocks(metric, ..));
                blocks.map(|block| block.expect("sound").len()).sum::<usize>()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, engine);
criterion_main!(benches);
