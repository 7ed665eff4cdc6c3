//! The table of names: which id a hash stands for. It has no names; whoever asks compares those.
//!
//! 256 parts, by 8 bits of the hash. A part is a row of slots of 8 bytes, open addressing with linear probing, and grows and shrinks on its own: so that
//! nobody waits until a million slots are moved. A slot has 32 bits of the hash, and moving it needs no name.
//!
//! Invariants
//! * From the slot at which a hash's search begins to the one that has it, none is empty.
//! * A part is at most four fifths full, so a search ends.

const PARTS: usize = 256;
/// Slots of a part that has something.
const SLOTS_MIN: usize = 8;
/// No id: such a slot is empty.
pub(super) const NO_ID: u32 = u32::MAX;
const EMPTY: Slot = Slot { hash: 0, id: NO_ID };

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, Default)]
struct Part {
    slots: Vec<Slot>,
    len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    hash: u32,
    id: u32,
}

impl Table {
    pub(super) fn new() -> Self {
        Table { parts: vec![Part::default(); PARTS].into() }
    }

    /// The id of this hash that is the right one.
    pub(super) fn find(&self, hash: u64, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let part = &self.parts[part_of(hash)];
        part.place_of(hash as u32, is_it).map(|place| part.slots[place].id)
    }

    /// Adds an id, which is not there.
    pub(super) fn insert(&mut self, hash: u64, id: u32) {
        debug_assert_ne!(id, NO_ID);
        let part = &mut self.parts[part_of(hash)];
        if (part.len + 1) * 5 > part.slots.len() * 4 {
            part.resize((part.slots.len() * 5 / 4).next_multiple_of(SLOTS_MIN).max(SLOTS_MIN));
        }
        part.put(Slot { hash: hash as u32, id });
        part.len += 1;
    }

    /// Puts an id in the place of another with this hash, if that is there.
    pub(super) fn replace(&mut self, hash: u64, old: u32, new: u32) {
        let part = &mut self.parts[part_of(hash)];
        if let Some(place) = part.place_of(hash as u32, |id| id == old) {
            part.slots[place].id = new;
        }
    }

    /// Takes an id with this hash away, if it is there.
    pub(super) fn remove(&mut self, hash: u64, id: u32) {
        let part = &mut self.parts[part_of(hash)];
        let Some(place) = part.place_of(hash as u32, |known| known == id) else { return };
        part.close(place);
        part.len -= 1;
        if part.len * 4 < part.slots.len() {
            part.resize((part.len * 2).next_multiple_of(SLOTS_MIN));
        }
    }

    /// Makes room for so many ids more.
    pub(super) fn reserve(&mut self, ids: usize) {
        for part in &mut self.parts {
            // What a part gets differs from part to part; who gets more grows once more.
            let wanted = (part.len + ids / PARTS) * 4 / 3;
            if wanted > part.slots.len() {
                part.resize(wanted.next_multiple_of(SLOTS_MIN));
            }
        }
    }
}

impl Part {
    /// Where the right id of this hash is.
    fn place_of(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut place = self.home(hash);
        loop {
            let slot = self.slots[place];
            if slot.id == NO_ID {
                return None;
            }
            if slot.hash == hash && is_it(slot.id) {
                return Some(place);
            }
            place = self.next(place);
        }
    }

    /// Puts a slot into the first empty one.
    fn put(&mut self, slot: Slot) {
        let mut place = self.home(slot.hash);
        while self.slots[place].id != NO_ID {
            place = self.next(place);
        }
        self.slots[place] = slot;
    }

    /// Empties a slot, and fills the gap with what was put behind it only because it was taken.
    fn close(&mut self, mut gap: usize) {
        let mut place = gap;
        loop {
            place = self.next(place);
            let slot = self.slots[place];
            if slot.id == NO_ID {
                break;
            }
            // How far it is from where it belongs, and from the gap; both around the end.
            let len = self.slots.len();
            let from_home = (place + len - self.home(slot.hash)) % len;
            let from_gap = (place + len - gap) % len;
            if from_home >= from_gap {
                self.slots[gap] = slot;
                gap = place;
            }
        }
        self.slots[gap] = EMPTY;
    }

    fn resize(&mut self, slots: usize) {
        debug_assert!(self.len <= slots);
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; slots]);
        old.into_iter().filter(|slot| slot.id != NO_ID).for_each(|slot| self.put(slot));
    }

    /// Where the search for a hash begins: hashes are spread over the slots in their order.
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.slots.len() as u64) >> 32) as usize
    }

    fn next(&self, place: usize) -> usize {
        if place + 1 == self.slots.len() { 0 } else { place + 1 }
    }
}

/// Things in the order of their hashes' parts.
pub(super) fn by_part<T>(things: &[T], hash_of: impl Fn(&T) -> u64) -> Vec<&T> {
    let mut counts = vec![0; PARTS + 1];
    things.iter().for_each(|thing| counts[part_of(hash_of(thing)) + 1] += 1);
    (0..PARTS).for_each(|part| counts[part + 1] += counts[part]);
    let mut sorted: Vec<&T> = things.iter().collect();
    for thing in things {
        let place = &mut counts[part_of(hash_of(thing))];
        sorted[*place] = thing;
        *place += 1;
    }
    sorted
}

fn part_of(hash: u64) -> usize {
    (hash >> 56) as usize
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A few hashes close to both ends of a part, so that searches go around its end and meet each other.
        #[test]
        fn ids_are_found_as_in_a_map(
            steps in prop::collection::vec((0..4u32, 0..40u32, any::<bool>()), 1..400),
        ) {
            let mut table = Table::new();
            let mut known: BTreeMap<u32, u64> = BTreeMap::new();
            for (spot, id, adds) in steps {
                match (known.get(&id).copied(), adds) {
                    (None, true) => {
                        let hash = [0, 1, 0x7fff_ffff, 0xffff_ffff][spot as usize];
                        table.insert(hash, id);
                        known.insert(id, hash);
                    }
                    (Some(hash), false) => {
                        table.remove(hash, id);
                        known.remove(&id);
                    }
                    (Some(hash), true) if !known.contains_key(&(id + 100)) => {
                        table.replace(hash, id, id + 100);
                        known.remove(&id);
                        known.insert(id + 100, hash);
                    }
                    _ => {}
                }
                for id in 0..140 {
                    for hash in [0, 1, 0x7fff_ffff, 0xffff_ffff] {
                        let found = table.find(hash, |known| known == id);
                        prop_assert_eq!(found.is_some(), known.get(&id) == Some(&hash));
                    }
                }
                prop_assert_eq!(table.parts[0].len, known.len());
            }
        }
    }

    #[test]
    fn slots_are_given_back() {
        let mut table = Table::new();
        let hash = |id: u32| u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let slots = |table: &Table| table.parts.iter().map(|part| part.slots.len()).sum::<usize>();
        (0..100_000).for_each(|id| table.insert(hash(id), id));
        assert!((125_000..170_000).contains(&slots(&table)), "{}", slots(&table));
        (0..100_000).filter(|id| id % 50 != 0).for_each(|id| table.remove(hash(id), id));
        assert!(slots(&table) < 10_000, "{}", slots(&table));
        assert!((0..100_000).all(|id| table.find(hash(id), |known| known == id).is_some() == (id % 50 == 0)));
    }
}
