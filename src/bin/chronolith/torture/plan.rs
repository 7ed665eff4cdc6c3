//! What the ops of each kind do.

use std::ops::Bound;
use std::time::Duration;

use chronolith::Timestamp;

use super::random::Random;
use super::workload::{
    ACCOUNTS, Account, BLOCK, Edit, Kind, OP_STEP, Op, PRIVATE_METRICS, SECOND, SHARED_METRICS, SHARED_SLOTS,
    START, Target, shared_timestamp, shared_value,
};

/// An op's kind and edits, without the writer's progress, and the random numbers that follow.
pub(super) fn edits(seed: u64, writer: u32, number: u64) -> (Kind, Vec<Edit>, Random) {
    let kind = kind(seed, writer, number);
    let mut plan =
        Plan { random: Random::of(seed, writer, number, 1), seed, writer, number, edits: Vec::new() };
    match kind {
        Kind::Append => plan.append(),
        Kind::Row => plan.row(),
        Kind::Columns => plan.columns(),
        Kind::Annotated => plan.annotated(),
        Kind::OutOfOrder => plan.out_of_order(),
        Kind::Overwrite => plan.overwrite(),
        Kind::Delete => plan.delete(),
        Kind::Drop => plan.drop(),
        Kind::Recreate => plan.recreate(),
        Kind::Metadata => plan.metadata(),
        Kind::SharedWrite => plan.shared_write(),
        Kind::SharedErase => plan.shared_erase(),
        Kind::Transfer => plan.transfer(),
    }
    (kind, plan.edits, plan.random)
}

/// The kind of an op: its place in its block, whose order is random. Drops and re-creations of a block alternate.
fn kind(seed: u64, writer: u32, number: u64) -> Kind {
    let index = number.saturating_sub(1);
    let mut kinds: Vec<Kind> = Kind::ALL.iter().chain(&Kind::ALL).copied().collect();
    let mut random = Random::of(seed, writer, index / BLOCK, 2);
    for last in (1..kinds.len()).rev() {
        kinds.swap(last, random.below(last as u64 + 1) as usize);
    }
    let mut next = Kind::Drop;
    for kind in kinds.iter_mut().filter(|kind| matches!(kind, Kind::Drop | Kind::Recreate)) {
        *kind = next;
        next = if next == Kind::Drop { Kind::Recreate } else { Kind::Drop };
    }
    kinds[(index % BLOCK) as usize]
}

/// An op under construction.
struct Plan {
    random: Random,
    seed: u64,
    writer: u32,
    number: u64,
    edits: Vec<Edit>,
}

impl Plan {
    fn append(&mut self) {
        for metric in self.some_metrics(4) {
            for step in 0..1 + self.random.below(4) {
                let (at, value) = (self.now(step as i64), self.value());
                self.edits.push(Edit::Append(metric, at, value));
            }
        }
    }

    fn row(&mut self) {
        for step in 0..1 + self.random.below(3) {
            let row =
                self.some_metrics(PRIVATE_METRICS).into_iter().map(|metric| (metric, self.value())).collect();
            self.edits.push(Edit::Row(self.now(step as i64), row));
        }
    }

    fn columns(&mut self) {
        for metric in self.some_metrics(2) {
            let long = self.random.below(2) == 0;
            let len = 1 + self.random.below(if long { 500 } else { 40 }) as i64;
            let start = self.number as i64 * OP_STEP;
            let at =
                (0..len).map(|step| Timestamp::from_nanos(START + start + step * OP_STEP / len)).collect();
            let values = (0..len).map(|_| self.value()).collect();
            self.edits.push(Edit::Columns(metric, at, values));
        }
    }

    fn annotated(&mut self) {
        for metric in self.some_metrics(2) {
            for step in 0..1 + self.random.below(5) {
                let len = [0, 1, 7, 30, 300, 3000][self.random.below(6) as usize];
                let annotation = (0..len).map(|_| self.random.next() as u8).collect();
                let (at, value) = (self.now(step as i64), self.value());
                self.edits.push(Edit::Annotated(metric, at, value, annotation));
            }
        }
    }

    fn out_of_order(&mut self) {
        const EDGES: [i64; 6] = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX];
        for metric in self.some_metrics(3) {
            for _ in 0..1 + self.random.below(6) {
                let late = self.random.below(3 * 3600) as i64 * SECOND;
                let at = match self.random.below(8) {
                    0 => Timestamp::from_nanos(EDGES[self.random.below(6) as usize]),
                    _ => self.now(0) - Duration::from_nanos(late as u64),
                };
                let value = self.value();
                self.edits.push(Edit::Append(metric, at, value));
            }
        }
    }

    /// Aims at the points of one of the last plain ops; without one, writes the same timestamp twice.
    fn overwrite(&mut self) {
        let plain = (1..self.number).rev().take(BLOCK as usize);
        let mut plain = plain.filter(|number| kind(self.seed, self.writer, *number).writes_plainly());
        let skip = self.random.below(4) as usize;
        let number = plain.clone().nth(skip).or_else(|| plain.next());
        let edits = number.map_or_else(Vec::new, |number| Op::of(self.seed, self.writer, number).edits);
        let mut aims: Vec<(Target, Timestamp)> = Vec::new();
        for edit in edits {
            match edit {
                Edit::Append(metric, at, _) | Edit::Annotated(metric, at, ..) => aims.push((metric, at)),
                Edit::Columns(metric, at, _) => aims.extend(at.into_iter().map(|at| (metric, at))),
                Edit::Row(at, row) => aims.extend(row.into_iter().map(|(metric, _)| (metric, at))),
                _ => {}
            }
        }
        if aims.is_empty() {
            aims = vec![(self.metric(), self.now(0)); 2];
        }
        aims.truncate(12);
        for (metric, at) in aims {
            let value = self.value();
            self.edits.push(match self.random.below(6) {
                0 => Edit::Annotated(metric, at, value, b"overwritten".to_vec()),
                _ => Edit::Append(metric, at, value),
            });
        }
    }

    fn delete(&mut self) {
        for metric in self.some_metrics(3) {
            let from = self.now(0) - Duration::from_secs(self.random.below(4 * 3600));
            let to = from + Duration::from_secs(self.random.below(2 * 3600));
            let bounds = match self.random.below(8) {
                0 => (Bound::Unbounded, Bound::Excluded(to)),
                1 => (Bound::Included(to), Bound::Unbounded),
                2 => (Bound::Included(from), Bound::Included(to)),
                3 => (Bound::Excluded(from), Bound::Included(to)),
                4 => (Bound::Included(from), Bound::Excluded(from)),
                _ => (Bound::Included(from), Bound::Excluded(to)),
            };
            self.edits.push(Edit::Delete(metric, bounds));
            if self.random.below(2) == 0 {
                let value = self.value();
                self.edits.push(Edit::Append(metric, from, value));
            }
        }
    }

    fn drop(&mut self) {
        let victim = victim(self.seed, self.writer, self.number);
        self.edits.push(Edit::Drop(victim));
        for metric in self.some_metrics(2) {
            if metric != victim {
                let (at, value) = (self.now(0), self.value());
                self.edits.push(Edit::Append(metric, at, value));
            }
        }
    }

    /// The kinds of a block see to it that a drop came before.
    fn recreate(&mut self) {
        let drop = (1..self.number)
            .rev()
            .take(BLOCK as usize)
            .find(|n| kind(self.seed, self.writer, *n) == Kind::Drop);
        let metric = victim(self.seed, self.writer, drop.unwrap_or(self.number));
        if self.random.below(2) == 0 {
            self.edits.push(Edit::Create(metric));
        } else {
            let (at, value) = (self.now(0), self.value());
            self.edits.push(Edit::Append(metric, at, value));
        }
    }

    fn metadata(&mut self) {
        for _ in 0..1 + self.random.below(3) {
            let key = format!("private/{}/{}", self.writer, self.random.below(6)).into_bytes();
            let len = [0, 3, 20, 600, 5000][self.random.below(5) as usize];
            self.edits.push(match self.random.below(3) {
                0 => Edit::RemoveMeta(key),
                _ => Edit::PutMeta(key, (0..len).map(|_| self.random.next() as u8).collect()),
            });
        }
        if self.random.below(2) == 0 {
            let (metric, at, value) = (self.metric(), self.now(0), self.value());
            self.edits.push(Edit::Append(metric, at, value));
        }
    }

    fn shared_write(&mut self) {
        let value = shared_value(self.writer, self.number);
        for _ in 0..1 + self.random.below(3) {
            let at = shared_timestamp(self.random.below(u64::from(SHARED_SLOTS)) as u32);
            let metric = self.shared_metric();
            self.edits.push(match self.random.below(4) {
                0 => Edit::Append(metric, at, value),
                1 => Edit::Annotated(metric, at, value, format!("by {}", self.writer).into_bytes()),
                _ => Edit::Row(at, (0..SHARED_METRICS).map(|index| (Target::Shared(index), value)).collect()),
            });
        }
    }

    fn shared_erase(&mut self) {
        if self.random.below(3) == 0 {
            let metric = self.shared_metric();
            self.edits.push(Edit::Drop(metric));
            return;
        }
        let from = self.random.below(u64::from(SHARED_SLOTS)) as u32;
        let to = from + self.random.below(u64::from(SHARED_SLOTS) / 4) as u32;
        let bounds = (Bound::Included(shared_timestamp(from)), Bound::Excluded(shared_timestamp(to)));
        for index in 0..SHARED_METRICS {
            if self.random.below(2) == 0 {
                self.edits.push(Edit::Delete(Target::Shared(index), bounds));
            }
        }
    }

    /// From one account to another, now and then with a private point that must be there if and only if the rest is.
    fn transfer(&mut self) {
        let accounts = u64::from(ACCOUNTS);
        let from = self.random.below(accounts);
        let to = (from + 1 + self.random.below(accounts - 1)) % accounts;
        let amount = 1 + self.random.below(1_000_000) as i64;
        for (account, amount) in [(from, -amount), (to, amount)] {
            self.edits.push(Edit::Add(Account::of(account as u32), amount));
        }
        if self.random.below(2) == 0 {
            let (metric, at, value) = (self.metric(), self.now(0), self.value());
            self.edits.push(Edit::Append(metric, at, value));
        }
    }

    /// The op's own time: later ops have later ones. `step` below 60. Some are finer than a second, so that time
    /// units change.
    fn now(&self, step: i64) -> Timestamp {
        let fine = [0, 0, 0, 1_000_000, 1_001][(self.number % 5) as usize];
        Timestamp::from_nanos(START + self.number as i64 * OP_STEP + step * SECOND + fine)
    }

    /// Smooth, rough and odd ones: all bits count, those of NaN too.
    fn value(&mut self) -> f64 {
        match self.random.below(12) {
            0 => f64::from_bits(self.random.next()),
            1 => [f64::NAN, -0.0, f64::INFINITY, f64::NEG_INFINITY, 5e-324, f64::MAX]
                [self.random.below(6) as usize],
            2..=5 => self.random.below(1000) as f64,
            6..=9 => self.random.below(100_000) as f64 / 100.0,
            _ => self.random.next() as f64 / 1e17,
        }
    }

    fn metric(&mut self) -> Target {
        Target::Private { writer: self.writer, index: self.random.below(u64::from(PRIVATE_METRICS)) as u32 }
    }

    fn shared_metric(&mut self) -> Target {
        Target::Shared(self.random.below(u64::from(SHARED_METRICS)) as u32)
    }

    /// One to `most` different private metrics.
    fn some_metrics(&mut self, most: u32) -> Vec<Target> {
        let count = 1 + self.random.below(u64::from(most));
        let mut metrics: Vec<Target> = (0..count).map(|_| self.metric()).collect();
        metrics.sort_unstable();
        metrics.dedup();
        metrics
    }
}

/// The metric that the drop of this number is about.
fn victim(seed: u64, writer: u32, number: u64) -> Target {
    let index = Random::of(seed, writer, number, 3).below(u64::from(PRIVATE_METRICS)) as u32;
    Target::Private { writer, index }
}
