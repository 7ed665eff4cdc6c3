//! The points of one piece of a metric's map: of a sealed stream, and of the partitions that lie over it.

use crate::error::Result;
use crate::mvcc::partition_map::Cover;

use super::block::Block;
use super::overlaid::Overlaid;
use super::sealed::{Encoded, Sealed};
use super::source::Source;
use super::spans::Spans;

/// A sealed stream or a partition, with any number of partitions over it. All are read within the same range of time.
#[derive(Debug)]
pub(crate) enum Stack<E> {
    /// The bottom of a sealed block.
    Sealed(Sealed<E>),
    /// A partition that nothing visible lies below.
    Spans(Spans),
    /// A partition over all below.
    Overlaid(Box<Overlaid<Stack<E>, Spans>>),
}

impl<E: Encoded> Stack<E> {
    /// Puts a partition on top. What it hides entirely is dropped unread.
    pub(crate) fn under(self, upper: Spans) -> Self {
        if upper.hides_all_below() {
            return Stack::Spans(upper);
        }
        let tombstones = upper.tombstones().clone();
        Stack::Overlaid(Box::new(Overlaid::new(self, upper, tombstones)))
    }

    /// The sealed stream at the bottom, if it is read.
    pub(crate) fn sealed(&mut self) -> Option<&mut Sealed<E>> {
        match self {
            Stack::Sealed(stream) => Some(stream),
            Stack::Spans(_) => None,
            Stack::Overlaid(layers) => layers.lower().sealed(),
        }
    }
}

impl<E: Encoded> Iterator for Stack<E> {
    type Item = Result<Block>;

    fn next(&mut self) -> Option<Result<Block>> {
        match self {
            Stack::Sealed(stream) => stream.next(),
            Stack::Spans(partition) => partition.next(),
            Stack::Overlaid(layers) => layers.next(),
        }
    }
}

impl<E: Encoded> DoubleEndedIterator for Stack<E> {
    fn next_back(&mut self) -> Option<Result<Block>> {
        match self {
            Stack::Sealed(stream) => stream.next_back(),
            Stack::Spans(partition) => partition.next_back(),
            Stack::Overlaid(layers) => layers.next_back(),
        }
    }
}

impl<E: Encoded> Source for Stack<E> {
    fn lost(&self) -> Option<Cover> {
        match self {
            Stack::Sealed(stream) => stream.lost(),
            Stack::Spans(partition) => partition.lost(),
            Stack::Overlaid(layers) => layers.lost(),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::source::checks::{self, Seen, Stream};
    use super::*;
    use crate::mvcc::marks::LiveVersions;
    use crate::mvcc::memory::Memory;
    use crate::mvcc::partition::PartitionRef;
    use crate::mvcc::stream::ClosedStream;
    use crate::mvcc::transaction::Version;
    use crate::mvcc::window::Window;
    use crate::planted::Planted;
    use crate::sync::Arc;

    #[derive(Clone, Debug)]
    enum Op {
        /// So many points from a time on, at equal distances; backwards if negative.
        Burst { at: i64, step: i64, count: i64, annotation: Vec<u8> },
        /// A tombstone is only made where there is something to hide: a point comes first.
        Delete(Cover),
        /// So many points in a stream of their own, of which the end is missing.
        Damaged { at: i64, count: i64 },
    }

    /// A commit: what is done to which of the partitions, counted round and round.
    type Commit = (usize, Op);

    fn range() -> impl Strategy<Value = Cover> {
        let short = (-100..300i64, 0..60i64).prop_map(|(first, len)| Cover { first, last: first + len });
        let two = (-100..300i64, -100..300i64).prop_map(|(a, b)| Cover { first: a.min(b), last: a.max(b) });
        prop_oneof![4 => short, 2 => two, 1 => Just(Cover::ALL)]
    }

    fn commit(damage: u32) -> impl Strategy<Value = Commit> {
        let annotation = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 1..3)];
        let burst = (-100..300i64, -3..9i64, 1..40i64, annotation)
            .prop_map(|(at, step, count, annotation)| Op::Burst { at, step, count, annotation });
        let damaged = (-100..300i64, 8..30i64).prop_map(|(at, count)| Op::Damaged { at, count });
        (0..12usize, prop_oneof![6 => burst, 3 => range().prop_map(Op::Delete), damage => damaged])
    }

    /// What one layer holds and what it hides below.
    #[derive(Clone, Debug, Default)]
    struct Layer {
        points: BTreeMap<i64, (u64, Vec<u8>)>,
        deleted: Vec<Cover>,
    }

    fn apply(op: &Op, version: Version, partition: &PartitionRef, model: &mut Layer) {
        let mut partition = partition.lock();
        match op {
            Op::Burst { at, step, count, annotation } => {
                for i in 0..*count {
                    let (at, bits) = (at + i * step, (version.0 as f64 + i as f64 / 64.0).to_bits());
                    partition.append(at, f64::from_bits(bits), annotation);
                    model.points.insert(at, (bits, annotation.clone()));
                }
            }
            Op::Delete(range) => {
                partition.append(range.first, 0.0, b"");
                partition.delete(*range, true);
                model.points.retain(|at, _| !range.has(*at));
                model.deleted.push(*range);
            }
            Op::Damaged { at, count } => {
                let points: Vec<Seen> = (0..*count).map(|i| (at + i, version.0, Vec::new())).collect();
                let Stream(mut bytes) = Stream::of(&points);
                bytes.truncate(bytes.len() / 2);
                let (first, last, points_in) = (*at, at + count - 1, *count as u64);
                if partition.adopt(ClosedStream { first, last, points: points_in, bytes: Arc::new(bytes) }) {
                    let points = points.into_iter().map(|(at, bits, annotation)| (at, (bits, annotation)));
                    model.points.extend(points);
                }
            }
        }
        partition.mark(version, &LiveVersions::default(), Planted::default());
    }

    /// A sealed stream, and partitions over it that were written to in any order.
    struct Setup {
        stream: Option<Stream>,
        partitions: Vec<PartitionRef>,
        /// What the layers are after each commit, the sealed one first.
        truth: Vec<Vec<Layer>>,
    }

    impl Setup {
        fn new(sealed: Option<Vec<(i64, u64)>>, height: usize, commits: &[Commit]) -> Setup {
            let partitions: Vec<PartitionRef> = (0..height)
                .map(|_| PartitionRef::new(Window::new(90), Version(0), &Memory::default()))
                .collect();
            let mut at = -100;
            let points = sealed.iter().flatten().map(|(step, bits)| {
                at += step;
                (at, *bits, Vec::new())
            });
            let points: Vec<Seen> = points.collect();
            let mut layers = vec![Layer::default(); 1 + height];
            layers[0].points = points.iter().map(|(at, bits, _)| (*at, (*bits, Vec::new()))).collect();
            let mut truth = vec![layers.clone()];
            for (index, op) in commits {
                let index = index % height;
                let version = Version(truth.len() as u64);
                apply(op, version, &partitions[index], &mut layers[1 + index]);
                truth.push(layers.clone());
            }
            Setup { stream: sealed.map(|_| Stream::of(&points)), partitions, truth }
        }

        fn stack(&self, version: Version, cover: Cover) -> Option<Stack<Stream>> {
            let bottom = self.stream.clone().map(|stream| Stack::Sealed(Sealed::new(stream, cover)));
            let partitions =
                self.partitions.iter().filter_map(|partition| Spans::new(partition, version, cover));
            partitions.fold(bottom, |below, upper| match below {
                Some(below) => Some(below.under(upper)),
                None => Some(Stack::Spans(upper)),
            })
        }

        fn expected(&self, version: Version, cover: Cover) -> Vec<Seen> {
            let mut seen = BTreeMap::new();
            for layer in &self.truth[version.0 as usize] {
                seen.retain(|at, _| !layer.deleted.iter().any(|range| range.has(*at)));
                seen.extend(layer.points.clone());
            }
            let points = seen.range(cover.first..=cover.last);
            points.map(|(at, (bits, annotation))| (*at, *bits, annotation.clone())).collect()
        }
    }

    fn sealed() -> impl Strategy<Value = Option<Vec<(i64, u64)>>> {
        prop::option::weighted(0.8, prop::collection::vec((1..5i64, any::<u64>()), 0..120))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        /// Every version reads what maps laid one over the other have.
        #[test]
        fn every_version_reads_like_maps_laid_over_each_other(
            sealed in sealed(), height in 1..4usize, commits in prop::collection::vec(commit(0), 0..20), cover in range(),
            from_back in prop::collection::vec(any::<bool>(), 0..40),
        ) {
            let setup = Setup::new(sealed, height, &commits);
            for version in (0..setup.truth.len() as u64).map(Version) {
                for pattern in [&[][..], &[true; 1_000], &from_back] {
                    let read = setup.stack(version, cover).map(|stack| checks::read(stack, pattern));
                    let (points, lost) = read.map_or_else(Default::default, |read| (read.points, read.lost));
                    prop_assert_eq!(points, setup.expected(version, cover), "{:?}", version);
                    prop_assert_eq!(lost, []);
                }
            }
        }

        /// Damage anywhere takes points away, those in the times it is said to concern, and shows none that is not there.
        #[test]
        fn damage_never_shows_what_was_overwritten(
            sealed in sealed(), cut in prop::option::of(0..1_000usize), height in 1..4usize,
            commits in prop::collection::vec(commit(3), 1..20), cover in range(),
            from_back in prop::collection::vec(any::<bool>(), 0..40),
        ) {
            let mut setup = Setup::new(sealed, height, &commits);
            if let (Some(Stream(bytes)), Some(cut)) = (&mut setup.stream, cut) {
                bytes.truncate(bytes.len().min(1 + bytes.len() * cut / 1_000));
            }
            let version = Version(commits.len() as u64);
            let expected = setup.expected(version, cover);
            for pattern in [&[][..], &[true; 1_000], &from_back] {
                let Some(stack) = setup.stack(version, cover) else { continue };
                checks::read(stack, pattern).check_damaged(&expected);
            }
        }
    }

    fn seconds(count: i64) -> Vec<(i64, u64)> {
        (0..count).map(|second| (1, second.cast_unsigned())).collect()
    }

    #[test]
    fn a_partition_with_nothing_but_a_tombstone_hides_what_is_below() {
        let setup = Setup::new(Some(seconds(100)), 1, &[(0, Op::Delete(Cover { first: -90, last: -50 }))]);
        let within = Cover { first: -80, last: -60 };
        let spans = Spans::new(&setup.partitions[0], Version(1), within).expect("a tombstone is visible");
        assert!(spans.hides_all_below() && spans.tombstones().around(-70).deleted);
        let stack = setup.stack(Version(1), within).expect("two layers");
        assert!(matches!(stack, Stack::Spans(_)), "nothing below is read");
        assert_eq!(checks::read(stack, &[]).points, []);

        assert!(Spans::new(&setup.partitions[0], Version(0), within).is_none(), "nothing is visible yet");
        assert_eq!(checks::read(setup.stack(Version(0), within).expect("one layer"), &[]).points.len(), 21);
        let all = checks::read(setup.stack(Version(1), Cover::ALL).expect("two layers"), &[true]).points;
        assert_eq!(all.len(), 100 - 41);
    }
}
