//! The steps of a history, and how they are drawn: dense times, edges of blocks and of time, all kinds of bounds and
//! values.

use std::ops::Bound;
use std::time::Duration;

use chronolith::io::CutState;
use chronolith::{Durability, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{BLOCK_SECONDS, Bounds, KEYS, METRICS};

const SECOND: i64 = 1_000_000_000;
/// Points of a column that is encoded when it is staged.
const LONG: i64 = 1_024;

/// A step of a transaction.
#[derive(Clone, Debug)]
pub enum Write {
    Append(usize, Timestamp, f64),
    Annotated(usize, Timestamp, f64, Vec<u8>),
    Columns(usize, Vec<(Timestamp, f64)>),
    Row(Timestamp, Vec<(usize, f64)>),
    Delete(usize, Bounds),
    Drop(usize),
    Create(usize),
    PutMeta(usize, Vec<u8>),
    RemoveMeta(usize),
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Commit(Durability),
    Rollback,
    Forget,
}

/// A step of a history.
#[derive(Clone, Debug)]
pub enum Step {
    Transaction(Vec<Write>, Reads, End),
    /// A checked transaction: what it looks at, what another one commits meanwhile, what it writes then.
    Checked(Vec<Look>, Vec<Write>, Vec<Write>),
    Autocommit(usize, Timestamp, f64),
    Snapshot,
    Release(usize),
    /// Reads a metric in all live snapshots and in a new one.
    Read(Reads),
    Sync,
    /// What is in memory of blocks with times in there goes into volumes.
    Seal(Bounds),
    /// Sealed blocks with times in there are written anew if there is something to merge.
    Refresh(Bounds),
    /// The background's work, as it would be done at this time.
    Maintain(Timestamp),
    /// The whole state goes to disk, and the log before it goes away.
    Checkpoint,
    Reopen(Reopening),
}

/// How the database comes to be opened again. Without a disk it does not.
#[derive(Clone, Copy, Debug)]
pub enum Reopening {
    /// Everything is there.
    Close,
    /// What was synced is there.
    Drop,
    /// What was synced is there; only on a disk that can lose something.
    PowerCut(CutState, u64),
}

/// What a checked transaction reads.
#[derive(Clone, Copy, Debug)]
pub enum Look {
    Points(usize, Bounds),
    Latest(usize),
    Contains(usize),
    ByName(usize),
    Meta(usize),
}

/// A metric, a range, and in which turn its points are taken from its two ends.
#[derive(Clone, Debug)]
pub struct Reads {
    pub metric: usize,
    pub bounds: Bounds,
    pub at: Timestamp,
    pub from_back: Vec<bool>,
}

impl Write {
    /// Of which metrics it is a write.
    pub fn metrics(&self) -> Vec<usize> {
        match self {
            Write::Append(metric, ..) | Write::Annotated(metric, ..) | Write::Columns(metric, ..) => {
                vec![*metric]
            }
            Write::Delete(metric, ..) | Write::Drop(metric) | Write::Create(metric) => vec![*metric],
            Write::Row(_, row) => row.iter().map(|(metric, _)| *metric).collect(),
            Write::PutMeta(..) | Write::RemoveMeta(_) => Vec::new(),
        }
    }
}

fn timestamps() -> impl Strategy<Value = Timestamp> {
    let block = BLOCK_SECONDS * SECOND;
    let edges = (-3i64..4, -1i64..2).prop_map(move |(index, offset)| index * block + offset);
    prop_oneof![
        6 => (0i64..40).prop_map(|second| second * SECOND),
        2 => (0i64..40_000).prop_map(|milli| milli * 1_000_000),
        3 => edges,
        1 => (-40i64..0).prop_map(|second| second * SECOND),
        1 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX]),
        1 => any::<i64>(),
    ]
    .prop_map(Timestamp::from_nanos)
}

fn values() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (0u32..100).prop_map(f64::from),
        3 => (0u32..10_000).prop_map(|value| f64::from(value) / 100.0),
        1 => prop::sample::select(vec![f64::NAN, -0.0, f64::INFINITY, f64::NEG_INFINITY, 5e-324, f64::MAX]),
        1 => any::<u64>().prop_map(f64::from_bits),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Timestamp>> {
    prop_oneof![
        2 => timestamps().prop_map(Bound::Included),
        2 => timestamps().prop_map(Bound::Excluded),
        1 => Just(Bound::Unbounded),
    ]
}

/// All kinds, also empty and inverted.
fn bounds() -> impl Strategy<Value = Bounds> {
    prop_oneof![6 => (bound(), bound()), 1 => timestamps().prop_map(|at| (Bound::Excluded(at), Bound::Excluded(at)))]
}

fn write() -> impl Strategy<Value = Write> {
    let metric = || 0..METRICS;
    let note = vec(any::<u8>(), 0..6);
    prop_oneof![
        6 => (metric(), timestamps(), values()).prop_map(|(metric, at, value)| Write::Append(metric, at, value)),
        2 => (metric(), timestamps(), values(), note)
            .prop_map(|(metric, at, value, note)| Write::Annotated(metric, at, value, note)),
        3 => (metric(), vec((timestamps(), values()), 0..30), any::<bool>()).prop_map(|(metric, mut points, sort)| {
            if sort {
                points.sort_by_key(|(at, _)| *at);
            }
            Write::Columns(metric, points)
        }),
        // Many points in order, which are encoded when they are staged.
        1 => (metric(), timestamps(), 1i64..100_000_000, vec(values(), 1..5)).prop_map(|(metric, from, step, values)| {
            let from = from.as_nanos().min(i64::MAX - LONG * step);
            let point = |(index, value): (i64, &f64)| (Timestamp::from_nanos(from + index * step), *value);
            Write::Columns(metric, (0..LONG).zip(values.iter().cycle()).map(point).collect())
        }),
        2 => (timestamps(), vec((metric(), values()), 0..5)).prop_map(|(at, row)| Write::Row(at, row)),
        3 => (metric(), bounds()).prop_map(|(metric, bounds)| Write::Delete(metric, bounds)),
        1 => metric().prop_map(Write::Drop),
        1 => metric().prop_map(Write::Create),
        1 => (0..KEYS, vec(any::<u8>(), 0..9)).prop_map(|(key, value)| Write::PutMeta(key, value)),
        1 => (0..KEYS).prop_map(Write::RemoveMeta),
    ]
}

fn reads() -> impl Strategy<Value = Reads> {
    (0..METRICS, bounds(), timestamps(), vec(any::<bool>(), 1..6))
        .prop_map(|(metric, bounds, at, from_back)| Reads { metric, bounds, at, from_back })
}

fn look() -> impl Strategy<Value = Look> {
    let metric = || 0..METRICS;
    prop_oneof![
        (metric(), bounds()).prop_map(|(metric, bounds)| Look::Points(metric, bounds)),
        metric().prop_map(Look::Latest),
        metric().prop_map(Look::Contains),
        metric().prop_map(Look::ByName),
        (0..KEYS).prop_map(Look::Meta),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Commit(Durability::Sync)),
        4 => Just(End::Commit(Durability::Buffered)),
        1 => Just(End::Commit(Durability::Interval(Duration::from_millis(5)))),
        1 => Just(End::Rollback),
        1 => Just(End::Forget),
    ]
}

/// Any step.
pub fn step() -> impl Strategy<Value = Step> {
    let reopening = prop_oneof![
        Just(Reopening::Close),
        Just(Reopening::Drop),
        (prop::sample::select(CutState::ALL.to_vec()), any::<u64>())
            .prop_map(|(cut, seed)| Reopening::PowerCut(cut, seed)),
    ];
    prop_oneof![
        12 => (vec(write(), 0..6), reads(), end())
            .prop_map(|(writes, reads, end)| Step::Transaction(writes, reads, end)),
        6 => (vec(look(), 0..3), vec(write(), 0..3), vec(write(), 0..3))
            .prop_map(|(looks, rival, writes)| Step::Checked(looks, rival, writes)),
        3 => (0..METRICS, timestamps(), values()).prop_map(|(metric, at, value)| Step::Autocommit(metric, at, value)),
        3 => Just(Step::Snapshot),
        1 => any::<usize>().prop_map(Step::Release),
        4 => reads().prop_map(Step::Read),
        1 => Just(Step::Sync),
        4 => bounds().prop_map(Step::Seal),
        1 => bounds().prop_map(Step::Refresh),
        1 => timestamps().prop_map(Step::Maintain),
        2 => Just(Step::Checkpoint),
        1 => reopening.prop_map(Step::Reopen),
    ]
}
