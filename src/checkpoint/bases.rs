//! The numbers of bases: which base each number stands for on disk, and which it is to stand for next.
//!
//! When a block is sealed, all metrics that had one base have another one, the same for all. If the other one takes over the number, no entry
//! of a metric changes. It may if nobody else has that number any more; so it is counted how many metrics have each.

use std::collections::{BTreeMap, TryReserveError};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::mvcc::base::BaseRef;
use crate::tree::Root;

/// A base that has a number.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbered {
    pub(super) base: BaseRef,
    /// Its blocks on disk.
    pub(super) root: Root,
    /// How many metrics have it.
    pub(super) metrics: u64,
}

/// Which bases have numbers. Number 0 is that of having none.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    /// By number; those that nobody has have no metrics.
    pub(super) numbered: Vec<Numbered>,
    by_address: HashMap<usize, u32, RandomState>,
}

/// Metrics that have another base than before: from one number to one base.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// How many came to a base and where from; by the base's address, in the order in which they were first seen.
    arrivals: HashMap<usize, Arrival, RandomState>,
    order: Vec<usize>,
    /// How many left each number.
    departures: BTreeMap<u32, u64>,
}

#[derive(Debug)]
struct Arrival {
    base: BaseRef,
    /// By the number that they had: how many.
    from: BTreeMap<u32, u64>,
}

impl Numbers {
    /// Adds what a number stands for on disk.
    ///
    /// # Errors
    /// There is no memory for so many numbers.
    pub(super) fn restore(&mut self, number: u32, base: BaseRef, root: Root) -> Result<(), TryReserveError> {
        let place = number as usize;
        if self.numbered.len() <= place {
            self.numbered.try_reserve(place + 1 - self.numbered.len())?;
            self.numbered.resize_with(place + 1, Numbered::default);
        }
        self.by_address.insert(base.address(), number);
        self.numbered[place] = Numbered { base, root, metrics: 0 };
        Ok(())
    }

    /// The base of a number; none of one that stands for nothing.
    pub(super) fn base(&self, number: u32) -> Option<&BaseRef> {
        match number {
            0 => None,
            number => {
                let numbered = self.numbered.get(number as usize)?;
                (!numbered.base.blocks().is_empty()).then_some(&numbered.base)
            }
        }
    }

    /// The number of a base, 0 if it has no blocks.
    pub(super) fn number(&self, base: &BaseRef) -> u32 {
        self.by_address.get(&base.address()).copied().unwrap_or(0)
    }

    /// Notes that one more metric has a number.
    pub(super) fn count(&mut self, number: u32) {
        if let Some(numbered) = self.numbered.get_mut(number as usize) {
            numbered.metrics += 1;
        }
    }

    /// Whether a number stands for this very base.
    pub(super) fn is(&self, number: u32, base: &BaseRef) -> bool {
        match number {
            0 => base.address() == 0,
            number => self.numbered.get(number as usize).is_some_and(|numbered| numbered.base.is(base)),
        }
    }

    /// Gives numbers to the bases that metrics moved to. Returns the numbers that stand for something else than before, ascending.
    pub(super) fn follow(&mut self, moves: Moves) -> Vec<u32> {
        let Moves { mut arrivals, order, departures } = moves;
        let mut changed = Vec::new();
        for (number, left) in departures {
            if number == 0 {
                continue;
            }
            let numbered = &mut self.numbered[number as usize];
            numbered.metrics -= left;
        }
        for address in order {
            let Some(Arrival { base, from }) = arrivals.remove(&address) else { continue };
            let metrics: u64 = from.values().sum();
            let known = self.by_address.get(&address).copied();
            let is_left = |number: &u32| *number != 0 && self.numbered[*number as usize].metrics == 0;
            let number = known.or_else(|| from.into_keys().find(is_left)).unwrap_or_else(|| self.free());
            let numbered = &mut self.numbered[number as usize];
            if known.is_none() {
                let before = std::mem::replace(&mut numbered.base, base);
                self.by_address.remove(&before.address());
                self.by_address.insert(address, number);
                changed.push(number);
            }
            numbered.metrics += metrics;
        }
        for (number, numbered) in (0..).zip(&mut self.numbered) {
            if numbered.metrics == 0 && !numbered.base.blocks().is_empty() {
                self.by_address.remove(&numbered.base.address());
                numbered.base = BaseRef::default();
                changed.push(number);
            }
        }
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    /// The lowest number that nobody has.
    fn free(&mut self) -> u32 {
        let unused = |numbered: &Numbered| numbered.metrics == 0 && numbered.base.blocks().is_empty();
        let found = self.numbered.iter().skip(1).position(unused);
        let place = found.map_or(self.numbered.len().max(1), |place| place + 1);
        if self.numbered.len() <= place {
            self.numbered.resize_with(place + 1, Numbered::default);
        }
        // There are fewer bases than metrics, whose numbers have 32 bits.
        place as u32
    }
}

impl Moves {
    /// Notes that a metric has a base, which may be none, and had a number before, which may be 0.
    pub(super) fn add(&mut self, from: u32, to: &BaseRef) {
        *self.departures.entry(from).or_default() += 1;
        if to.address() == 0 {
            return;
        }
        let arrival = self.arrivals.entry(to.address()).or_insert_with(|| {
            self.order.push(to.address());
            Arrival { base: to.clone(), from: BTreeMap::new() }
        });
        *arrival.from.entry(from).or_default() += 1;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::mvcc::base::SealedBlock;
    use crate::mvcc::partition_map::Cover;
    use crate::sealed::VolumeId;

    fn base(volumes: std::ops::Range<u32>) -> BaseRef {
        let block = |volume: u32| {
            let first = i64::from(volume) * 10;
            SealedBlock { cover: Cover { first, last: first + 9 }, volume: VolumeId(volume) }
        };
        BaseRef::of(volumes.map(block).collect()).expect("in order")
    }

    fn moved(numbers: &mut Numbers, moves: &[(u32, &BaseRef, u64)]) -> Vec<u32> {
        let mut all = Moves::default();
        for (from, to, metrics) in moves {
            (0..*metrics).for_each(|_| all.add(*from, to));
        }
        numbers.follow(all)
    }

    #[test]
    fn a_successor_of_all_takes_over_the_number() {
        let (mut numbers, one, two) = (Numbers::default(), base(0..1), base(0..2));
        assert_eq!(moved(&mut numbers, &[(0, &one, 5)]), [1]);
        assert_eq!(moved(&mut numbers, &[(1, &two, 5)]), [1]);
        assert!(numbers.is(1, &two) && numbers.number(&two) == 1 && numbers.number(&one) == 0);
    }

    #[test]
    fn a_successor_of_some_gets_a_number_of_its_own() {
        let (mut numbers, one, two) = (Numbers::default(), base(0..1), base(0..2));
        moved(&mut numbers, &[(0, &one, 5)]);
        assert_eq!(moved(&mut numbers, &[(1, &two, 4)]), [2]);
        assert!(numbers.is(1, &one) && numbers.is(2, &two));
        // The last one follows: number 1 stands for nothing, and is used again.
        assert_eq!(moved(&mut numbers, &[(1, &two, 1)]), [1]);
        assert_eq!(numbers.base(1), None);
        let three = base(3..4);
        assert_eq!(moved(&mut numbers, &[(0, &three, 1)]), [1]);
        assert_eq!((numbers.number(&three), numbers.number(&two)), (1, 2));
    }

    #[test]
    fn two_successors_of_one_base_get_two_numbers() {
        let (mut numbers, one, two, three) = (Numbers::default(), base(0..1), base(0..2), base(0..3));
        moved(&mut numbers, &[(0, &one, 5)]);
        assert_eq!(moved(&mut numbers, &[(1, &two, 3), (1, &three, 2)]), [1, 2]);
        assert!(numbers.is(1, &two) && numbers.is(2, &three));
    }

    #[test]
    fn metrics_that_lose_their_base_or_go_leave_their_number() {
        let (mut numbers, one) = (Numbers::default(), base(0..1));
        moved(&mut numbers, &[(0, &one, 2)]);
        assert_eq!(moved(&mut numbers, &[(1, &BaseRef::default(), 1)]), [0u32; 0]);
        assert_eq!(moved(&mut numbers, &[(1, &BaseRef::default(), 1)]), [1]);
        assert_eq!((numbers.base(1), numbers.number(&one)), (None, 0));
    }
}
