//! Many points that are not newer than the newest, and many deletes, read from both ends.

use std::collections::BTreeMap;

use chronolith::{Database, Metric, Result, Snapshot, Timestamp};

/// xorshift64, from a printed seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as i64
    }
}

fn nanos(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

fn compare(snapshot: &Snapshot, metric: &Metric, model: &BTreeMap<i64, f64>, random: &mut Random, end: i64) {
    let mut expected = model.iter().map(|(at, value)| (*at, *value));
    for block in snapshot.blocks(metric, ..) {
        let block = block.expect("reads");
        for (at, value) in block.timestamps().iter().zip(block.values()) {
            assert_eq!(Some((*at, *value)), expected.next());
        }
    }
    assert_eq!(expected.next(), None);

    let latest = snapshot.latest(metric).expect("reads").map(|point| point.at.as_nanos());
    assert_eq!(latest, model.keys().next_back().copied());
    for _ in 0..200 {
        let (a, length) = (random.below(end), random.below(end / 50));
        let found = snapshot.at_or_before(metric, nanos(a)).expect("reads");
        let expected = model.range(..=a).next_back().map(|(at, value)| (*at, *value));
        assert_eq!(found.map(|point| (point.at.as_nanos(), point.value)), expected);

        let backwards = snapshot.range(metric, nanos(a)..nanos(a + length)).rev();
        let backwards: Result<Vec<_>> = backwards.map(|p| p.map(|p| (p.at.as_nanos(), p.value))).collect();
        let expected: Vec<_> = model.range(a..a + length).rev().map(|(at, value)| (*at, *value)).collect();
        assert_eq!(backwards.expect("reads"), expected);
    }
}

#[test]
fn a_metric_written_in_random_order_reads_like_a_map() {
    const END: i64 = 150_000;
    let seed = 0x5EED_0F51DE;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let db = Database::in_memory().expect("opens");
    let metric = db.metric("m").expect("valid");
    let mut model = BTreeMap::new();
    let mut held = None;
    // The first time is the latest, so that nearly all points are out of order; many times are written more than once.
    for commit in 0..200 {
        let mut txn = db.begin_write();
        for i in 0..1_000 {
            let at = if commit == 0 && i == 0 { END } else { random.below(END) };
            txn.append(&metric, nanos(at), f64::from(commit * 1_000 + i)).expect("staged");
            model.insert(at, f64::from(commit * 1_000 + i));
        }
        for _ in 0..10 {
            let (first, length) = (random.below(END), random.below(60));
            txn.delete(&metric, nanos(first)..nanos(first + length)).expect("staged");
            let gone: Vec<i64> = model.range(first..first + length).map(|(at, _)| *at).collect();
            for at in gone {
                model.remove(&at);
            }
        }
        txn.commit().expect("commits");
        if commit == 120 {
            held = Some((db.snapshot(), model.clone()));
        }
    }
    assert!(db.stats().side_entries > 199_000 && db.stats().tombstones > 1_000);
    compare(&db.snapshot(), &metric, &model, &mut random, END);
    let (snapshot, model) = held.expect("taken");
    compare(&snapshot, &metric, &model, &mut random, END);
}

#[test]
fn a_time_that_is_written_over_and_over_reads_as_written_last() {
    let db = Database::in_memory().expect("opens");
    let metric = db.metric("m").expect("valid");
    let mut held = Vec::new();
    for round in 0..100 {
        let mut txn = db.begin_write();
        for i in 0..1_000 {
            txn.append(&metric, nanos(i % 2), f64::from(round)).expect("staged");
        }
        txn.commit().expect("commits");
        held.push(db.snapshot());
    }
    for (round, snapshot) in held.iter().enumerate() {
        let points = snapshot.range(&metric, ..).map(|p| p.map(|p| (p.at.as_nanos(), p.value)));
        let points: Result<Vec<_>> = points.collect();
        assert_eq!(points.expect("reads"), [(0, round as f64), (1, round as f64)]);
    }
}

#[test]
fn deletes_that_follow_the_clock_leave_one_tombstone() {
    let db = Database::in_memory().expect("opens");
    let metric = db.metric("m").expect("valid");
    for now in 0..3_000 {
        let mut txn = db.begin_write();
        txn.append(&metric, nanos(now), 1.0).expect("staged");
        txn.delete(&metric, ..nanos(now - 100)).expect("staged");
        txn.commit().expect("commits");
    }
    assert_eq!(db.stats().tombstones, 1);
    assert_eq!(db.snapshot().range(&metric, ..).count(), 101);
}
