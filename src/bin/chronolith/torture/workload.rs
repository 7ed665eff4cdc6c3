//! What a torture run does: op `number` of a writer is a pure function of the seed, the writer and the number.
//!
//! Therefore a line "op 17 of writer 2 is durable" says everything about the op, and the expected state can be
//! rebuilt from the seed and the number of ops that each writer has done, however often the process died in between.
//!
//! * Ops of a writer are numbered from 1, without gaps; its next op is tried until it succeeds. Each op is one
//!   commit, which also puts the op's number under the writer's [`progress_key`]. So the ops in a store are those up
//!   to that number.
//! * A writer has private metrics, which nobody else touches: what they must hold is exactly known.
//! * All writers share some metrics. The order of their commits is not known beforehand, so a value written there
//!   names its op ([`shared_value`]), and the timestamps are those of a small grid.
//! * Transfers are checked transactions: each reads two accounts, which all writers share, and moves an amount from one to the other. Whatever
//!   their order, no amount is lost: each account has what all transfers together make of it, and at any version the sum is 0.
//! * Kinds of ops come in blocks of [`BLOCK`], in an order of the block's own, two of each kind.

use std::fmt;
use std::ops::Bound;
use std::time::Duration;

use chronolith::{Durability, Timestamp};

use super::plan;

/// Private metrics of one writer.
pub(crate) const PRIVATE_METRICS: u32 = 8;
/// Metrics that all writers share.
pub(crate) const SHARED_METRICS: u32 = 4;
/// Accounts of transfers: the first half are points, the others metadata, so that both are read and compared.
pub(crate) const ACCOUNTS: u32 = 4;
/// Timestamps of the shared metrics.
pub(crate) const SHARED_SLOTS: u32 = 48;
/// The namespace of every second metric; the others are in the default one.
pub(crate) const NAMESPACE: &str = "torture/2";
/// Ops after which each kind has occurred twice.
pub(crate) const BLOCK: u64 = 2 * Kind::ALL.len() as u64;

/// The first timestamp, 2023-11-14T22:13:20Z in nanoseconds.
pub(super) const START: i64 = 1_700_000_000_000_000_000;
/// In nanoseconds.
pub(super) const SECOND: i64 = 1_000_000_000;
/// From one op's timestamps to the next one's: with blocks of two hours, 300 ops reach over a few blocks.
pub(super) const OP_STEP: i64 = 60 * SECOND;
/// Between two timestamps of the shared grid.
const SLOT_STEP: i64 = 5 * 60 * SECOND;

/// What an op is mainly about; most do something else besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Points in time order over some metrics.
    Append,
    /// One timestamp over most metrics.
    Row,
    /// Columns of points, sometimes long ones.
    Columns,
    /// Points with annotations.
    Annotated,
    /// Points up to three hours late, or at the ends of time.
    OutOfOrder,
    /// Other values for timestamps that an earlier op wrote.
    Overwrite,
    /// Range deletes.
    Delete,
    /// A metric is dropped.
    Drop,
    /// The metric dropped last is made again.
    Recreate,
    /// Metadata put and removed.
    Metadata,
    /// Writes to metrics that writers share.
    SharedWrite,
    /// Range deletes and drops of metrics that writers share.
    SharedErase,
    /// An amount is moved between two accounts, checked.
    Transfer,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Kind; 13] = [
        Kind::Append,
        Kind::Row,
        Kind::Columns,
        Kind::Annotated,
        Kind::OutOfOrder,
        Kind::Overwrite,
        Kind::Delete,
        Kind::Drop,
        Kind::Recreate,
        Kind::Metadata,
        Kind::SharedWrite,
        Kind::SharedErase,
        Kind::Transfer,
    ];

    /// The name that reports use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Append => "append",
            Kind::Row => "row",
            Kind::Columns => "columns",
            Kind::Annotated => "annotated",
            Kind::OutOfOrder => "out-of-order",
            Kind::Overwrite => "overwrite",
            Kind::Delete => "delete",
            Kind::Drop => "drop",
            Kind::Recreate => "recreate",
            Kind::Metadata => "metadata",
            Kind::SharedWrite => "shared-write",
            Kind::SharedErase => "shared-erase",
            Kind::Transfer => "transfer",
        }
    }

    /// Whether ops of this kind write points that an overwriting op can aim at.
    pub(super) fn writes_plainly(self) -> bool {
        matches!(self, Kind::Append | Kind::Row | Kind::Columns | Kind::Annotated)
    }
}

/// A metric of the workload, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Target {
    /// One of a writer's own.
    Private {
        /// Whose it is.
        writer: u32,
        /// Below [`PRIVATE_METRICS`].
        index: u32,
    },
    /// One that all writers touch; below [`SHARED_METRICS`].
    Shared(u32),
    /// An account that is a point.
    Account(u32),
}

impl Target {
    fn index(self) -> u32 {
        match self {
            Target::Private { index, .. } | Target::Shared(index) | Target::Account(index) => index,
        }
    }

    /// Its namespace; `None` for the default one.
    pub(crate) fn namespace(self) -> Option<&'static str> {
        (self.index() % 2 == 1).then_some(NAMESPACE)
    }

    /// The ID without tags.
    pub(crate) fn name(self) -> String {
        match self {
            Target::Private { writer, index } => format!("private/{writer}/{index}"),
            Target::Shared(index) => format!("shared/{index}"),
            Target::Account(index) => format!("account/{index}"),
        }
    }

    /// The tags; only every fourth metric has some.
    pub(crate) fn tags(self) -> &'static [(&'static str, &'static str)] {
        if self.index() % 4 == 2 { &[("host", "h1"), ("zone", "a")] } else { &[] }
    }

    /// The canonical ID: name and tags.
    pub(crate) fn id(self) -> String {
        let tags: Vec<String> = self.tags().iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        if tags.is_empty() { self.name() } else { format!("{}{{{}}}", self.name(), tags.join(",")) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.namespace().unwrap_or("default"), self.id())
    }
}

/// One step of an op. Steps of an op take effect in their order, all at once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Edit {
    /// A point.
    Append(Target, Timestamp, f64),
    /// A point with an annotation.
    Annotated(Target, Timestamp, f64, Vec<u8>),
    /// Points of one metric.
    Columns(Target, Vec<Timestamp>, Vec<f64>),
    /// Points of several metrics at one timestamp.
    Row(Timestamp, Vec<(Target, f64)>),
    /// All points in a range go.
    Delete(Target, (Bound<Timestamp>, Bound<Timestamp>)),
    /// The metric goes, with all its points.
    Drop(Target),
    /// The metric exists from now on, even without points.
    Create(Target),
    /// Metadata.
    PutMeta(Vec<u8>, Vec<u8>),
    /// Metadata goes.
    RemoveMeta(Vec<u8>),
    /// An account, below [`ACCOUNTS`], has so much more than the transaction reads there.
    Add(Account, i64),
}

/// Where an account is. Without anything there it has nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Account {
    /// The value of this metric at [`account_timestamp`].
    Point(Target),
    /// Metadata, in decimal digits.
    Meta(Vec<u8>),
}

impl Account {
    /// The account of this number.
    pub(crate) fn of(number: u32) -> Account {
        match number < ACCOUNTS / 2 {
            true => Account::Point(Target::Account(number)),
            false => Account::Meta(format!("account/{number}").into_bytes()),
        }
    }

    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Account> {
        (0..ACCOUNTS).map(Account::of)
    }
}

/// One commit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Op {
    /// Whose op it is.
    pub(crate) writer: u32,
    /// Its number among the writer's, from 1.
    pub(crate) number: u64,
    /// What it is mainly about.
    pub(crate) kind: Kind,
    /// How durable it is made by itself; later ones can make it more so.
    pub(crate) durability: Durability,
    /// What it does, the writer's progress included.
    pub(crate) edits: Vec<Edit>,
    /// What is sealed before it, if its writer seals.
    pub(crate) seals: Option<Seals>,
}

/// Times whose blocks are sealed, or refreshed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seals {
    pub(crate) range: std::ops::Range<Timestamp>,
    /// Only blocks that have a volume already.
    pub(crate) refresh: bool,
}

/// One in so many ops has something sealed before it.
const OPS_PER_SEAL: u64 = 12;

impl Op {
    /// The op of this number.
    pub(crate) fn of(seed: u64, writer: u32, number: u64) -> Op {
        let (kind, mut edits, mut random) = plan::edits(seed, writer, number);
        edits.push(Edit::PutMeta(progress_key(writer), number.to_string().into_bytes()));
        let durability = match random.below(8) {
            0 | 1 => Durability::Buffered,
            2 => Durability::Interval(Duration::from_millis(20)),
            _ => Durability::Sync,
        };
        let seals = (random.below(OPS_PER_SEAL) == 0).then(|| {
            let first = Timestamp::from_nanos(START) + Duration::from_secs(3_600 * random.below(12));
            Seals { range: first..first + Duration::from_secs(7_200), refresh: random.below(3) == 0 }
        });
        Op { writer, number, kind, durability, edits, seals }
    }
}

/// The key under which a writer's last op number stands, in decimal digits.
pub(crate) fn progress_key(writer: u32) -> Vec<u8> {
    format!("progress/{writer}").into_bytes()
}

/// The writer whose [`progress_key`] this is.
pub(crate) fn progress_writer(key: &[u8]) -> Option<u32> {
    std::str::from_utf8(key).ok()?.strip_prefix("progress/")?.parse().ok()
}

/// The timestamp of a slot of the shared grid.
pub(crate) fn shared_timestamp(slot: u32) -> Timestamp {
    Timestamp::from_nanos(START + i64::from(slot) * SLOT_STEP)
}

/// Where accounts have their points.
pub(crate) fn account_timestamp() -> Timestamp {
    Timestamp::from_nanos(START)
}

/// The slot of a timestamp of the shared grid.
pub(crate) fn shared_slot(at: Timestamp) -> Option<u32> {
    (0..SHARED_SLOTS).find(|slot| shared_timestamp(*slot) == at)
}

/// A value that names the op that wrote it: an integer below 2^53, exact in an `f64`.
pub(crate) fn shared_value(writer: u32, number: u64) -> f64 {
    (u64::from(writer) << 40 | (number & ((1 << 40) - 1))) as f64
}

/// The op that a value of a shared metric names.
pub(crate) fn shared_writer_and_number(value: f64) -> Option<(u32, u64)> {
    let whole = value as u64;
    let exact = (whole as f64).to_bits() == value.to_bits();
    let writer = u32::try_from(whole >> 40).ok()?;
    (exact && writer < 1 << 13).then_some((writer, whole & ((1 << 40) - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_op_is_the_same_each_time_and_differs_from_others() {
        assert_eq!(Op::of(1, 2, 3), Op::of(1, 2, 3));
        assert_ne!(Op::of(1, 2, 3).edits, Op::of(2, 2, 3).edits);
        assert_ne!(Op::of(1, 2, 3).edits, Op::of(1, 3, 3).edits);
        assert_ne!(Op::of(1, 2, 3).edits, Op::of(1, 2, 4).edits);
    }

    #[test]
    fn each_kind_is_five_percent_of_any_75_ops() {
        for seed in 0..50 {
            for kind in Kind::ALL {
                let count = (1..=75).filter(|number| Op::of(seed, 0, *number).kind == kind).count();
                assert!(count * 20 >= 75, "seed {seed}: {} of 75 are {}", count, kind.name());
            }
        }
    }

    #[test]
    fn a_recreation_makes_the_metric_that_was_dropped_last() {
        for seed in 0..20 {
            let mut dropped = None;
            for number in 1..=5 * BLOCK {
                let op = Op::of(seed, 1, number);
                match (op.kind, op.edits.first()) {
                    (Kind::Drop, Some(Edit::Drop(metric))) => dropped = Some(*metric),
                    (Kind::Recreate, Some(Edit::Create(metric) | Edit::Append(metric, ..))) => {
                        assert_eq!(Some(*metric), dropped, "seed {seed} op {number}");
                    }
                    (Kind::Drop | Kind::Recreate, edit) => panic!("{edit:?}"),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn overwrites_hit_points_of_earlier_ops() {
        let mut written = std::collections::BTreeSet::new();
        let (mut hits, mut overwrites) = (0, 0);
        for number in 1..=10 * BLOCK {
            let op = Op::of(7, 0, number);
            for edit in &op.edits {
                let points: Vec<(Target, Timestamp)> = match edit {
                    Edit::Append(metric, at, _) | Edit::Annotated(metric, at, ..) => vec![(*metric, *at)],
                    Edit::Columns(metric, at, _) => at.iter().map(|at| (*metric, *at)).collect(),
                    Edit::Row(at, row) => row.iter().map(|(metric, _)| (*metric, *at)).collect(),
                    _ => continue,
                };
                if op.kind == Kind::Overwrite {
                    overwrites += points.len();
                    hits += points.iter().filter(|point| written.contains(*point)).count();
                } else {
                    written.extend(points);
                }
            }
        }
        assert!(overwrites > 50 && hits * 10 >= overwrites * 8, "{hits} of {overwrites}");
    }

    #[test]
    fn a_shared_value_names_its_op() {
        for (writer, number) in [(0, 1), (3, 77), (8191, (1 << 40) - 1)] {
            assert_eq!(shared_writer_and_number(shared_value(writer, number)), Some((writer, number)));
        }
        for value in [0.5, -1.0, -0.0, f64::NAN, 2f64.powi(60)] {
            assert_eq!(shared_writer_and_number(value), None, "{value}");
        }
    }

    #[test]
    fn shared_slots_and_timestamps_go_both_ways() {
        for slot in 0..SHARED_SLOTS {
            assert_eq!(shared_slot(shared_timestamp(slot)), Some(slot));
        }
        assert_eq!(shared_slot(shared_timestamp(0) + Duration::from_nanos(1)), None);
    }
}
