//! Power cuts at every call: what the newest roots name is whole.

use super::*;
use crate::io::Fault;

/// Where a checkpoint would keep its roots: two slots, written in turn, the newer one counts.
struct Notebook<'a> {
    disk: &'a SimulatedDisk,
}

const NOTEBOOK: &str = "/db/notebook";
const SLOT: usize = 512;
const SHAPES: [Shape; 2] = [Shape::new(1, 28), Shape::new(2, 2_000)];
const ROUNDS: u64 = 4;

/// The roots of both trees after so many rounds.
type Noted = (u64, [Root; 2]);

impl Notebook<'_> {
    fn create(disk: &SimulatedDisk) -> Result<()> {
        disk.create(NOTEBOOK.as_ref())?.sync()?;
        disk.sync_dir(DIR.as_ref())
    }

    fn file(&self) -> Result<Box<dyn VfsFile>> {
        Ok(self.disk.open(NOTEBOOK.as_ref(), true)?.expect("its name is durable"))
    }

    /// Writes a slot, and syncs.
    fn note(&self, slot: usize, (round, roots): Noted) -> Result<()> {
        let mut bytes = [0; SLOT];
        bytes[8..16].copy_from_slice(&round.to_le_bytes());
        for (place, root) in roots.iter().enumerate() {
            let at = 16 + place * 16;
            bytes[at..at + 4].copy_from_slice(&root.page.to_le_bytes());
            bytes[at + 4..at + 8].copy_from_slice(&root.crc.to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&root.entries.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[8..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes[4] = 1;
        let file = self.file()?;
        file.write_at((slot * SLOT) as u64, &bytes)?;
        file.sync()
    }

    /// What each slot says, if it says something.
    fn slots(&self) -> Result<[Option<Noted>; 2]> {
        let file = self.file()?;
        let mut slots = [None; 2];
        for (slot, said) in slots.iter_mut().enumerate() {
            let mut bytes = [0; SLOT];
            file.read_at((slot * SLOT) as u64, &mut bytes)?;
            let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4"));
            let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8"));
            if bytes[4] == 1 && u32_at(0) == crc32fast::hash(&bytes[8..]) {
                let root = |at| Root { page: u32_at(at), crc: u32_at(at + 4), entries: u64_at(at + 8) };
                *said = Some((u64_at(8), [root(16), root(32)]));
            }
        }
        Ok(slots)
    }
}

/// The number of entries after a round: it goes up and down over bounds of heights.
fn count(round: u64) -> u64 {
    [1, 100, 600_000, 90_000, 1_000][round as usize % 5]
}

/// The entries that a round sets.
fn changes(shape: Shape, round: u64) -> Entries {
    let count = count(round);
    entries(shape, [0, round, count / 2, count - 1].map(|number| number.min(count - 1)), round)
}

fn model(shape: Shape, round: u64) -> Entries {
    (1..=round).fold(Entries::new(), |mut model, round| {
        model.extend(changes(shape, round));
        model.split_off(&count(round));
        model
    })
}

/// What a program does that opens the trees and goes on up to a round.
fn go_on(disk: &SimulatedDisk, rounds: u64) -> Result<()> {
    let notebook = Notebook { disk };
    let slots = notebook.slots()?;
    let Some((mut round, mut roots)) = slots.into_iter().flatten().max_by_key(|(round, _)| *round) else {
        PageFile::create(disk, DIR.as_ref(), &ID)?;
        (0..2).try_for_each(|slot| notebook.note(slot, (0, [Root::default(); 2])))?;
        return go_on(disk, rounds);
    };
    let mut file = open(disk)?;
    for (shape, root) in SHAPES.into_iter().zip(roots) {
        assert_eq!(load(&mut file, shape, root)?, model(shape, round), "round {round}");
    }
    // Whatever the other slot names may be written over from now on.
    for slot in (0..2).filter(|slot| slots[*slot] != Some((round, roots))) {
        notebook.note(slot, (round, roots))?;
    }
    while round < rounds {
        round += 1;
        for (shape, root) in SHAPES.into_iter().zip(&mut roots) {
            *root = put(&mut file, shape, *root, count(round), &changes(shape, round))?;
        }
        file.sync()?;
        (0..2).try_for_each(|slot| notebook.note(slot, (round, roots)))?;
        file.commit();
    }
    Ok(())
}

fn with_notebook() -> SimulatedDisk {
    let disk = empty_disk();
    Notebook::create(&disk).expect("room");
    disk.after_power_cut(CutState::All, 0)
}

#[test]
fn newest_roots_are_whole_after_a_cut_at_any_call() {
    let before = with_notebook();
    let whole = before.after_power_cut(CutState::All, 0);
    go_on(&whole, ROUNDS).expect("room");
    let mut seen = [0; ROUNDS as usize + 1];
    for (call, within) in (1..=whole.calls()).flat_map(|call| [(call, false), (call, true)]) {
        let disk = before.after_power_cut(CutState::All, 0);
        if within {
            disk.cut_power_within(call);
        } else {
            disk.cut_power_at(call);
        }
        // A failure to cut the file's end is none.
        let _ = go_on(&disk, ROUNDS);
        for state in CutState::ALL {
            for seed in 0..if state.is_random() { 3 } else { 1 } {
                let found = disk.after_power_cut(state, seed);
                let newest = Notebook { disk: &found }.slots().expect("power is on");
                if let Some((round, _)) = newest.into_iter().flatten().max_by_key(|(round, _)| *round) {
                    seen[round as usize] += 1;
                }
                // Looks at everything, makes the next rounds, and is cut again in each of them.
                let again = found.after_power_cut(CutState::All, 0);
                again.cut_power_within(1 + (call * 7 + seed) % 11);
                let _ = go_on(&again, ROUNDS + 1);
                let again = again.after_power_cut(state, seed + 100);
                for disk in [&found, &again] {
                    go_on(disk, ROUNDS + 1)
                        .unwrap_or_else(|error| panic!("{state:?} ({seed}) at {call}, {within}: {error}"));
                }
            }
        }
    }
    assert!(seen.iter().all(|seen| *seen > 0), "{seen:?}");
}

#[test]
fn failed_call_leaves_the_older_roots_and_abandoning_lets_the_next_try_succeed() {
    let shape = SHAPES[0];
    let before = with_notebook();
    go_on(&before, 3).expect("room");
    let slots = Notebook { disk: &before }.slots().expect("power is on");
    let (round, roots) = slots[0].expect("round 3");
    let act = |file: &mut PageFile| {
        let new = put(file, shape, roots[0], count(round + 1), &changes(shape, round + 1))?;
        file.sync().map(|()| new)
    };
    let opened = |disk: &SimulatedDisk| {
        let mut file = open(disk).expect("it opens");
        SHAPES.into_iter().zip(roots).for_each(|(shape, root)| drop(load(&mut file, shape, root)));
        file
    };
    let whole = before.after_power_cut(CutState::All, 0);
    let mut file = opened(&whole);
    let (in_use, expected) = (file.space.in_use(), act(&mut file).expect("room"));
    assert!(whole.calls() >= 2);
    for (call, fault) in (1..=whole.calls()).flat_map(|call| Fault::ALL.map(|fault| (call, fault))) {
        let disk = before.after_power_cut(CutState::All, 0);
        let mut file = opened(&disk);
        disk.fail(call, fault, false);
        let first = act(&mut file);
        assert_eq!(first.is_ok(), fault == Fault::Interrupted, "{fault:?} at {call}");
        file.abandon();
        assert_eq!(file.space.in_use(), in_use, "{fault:?} at {call}");
        for (shape, root) in SHAPES.into_iter().zip(roots) {
            assert_eq!(reload(&disk, shape, root).expect("it is whole"), model(shape, round));
        }
        assert_eq!(act(&mut file).expect("room"), expected, "{fault:?} at {call}");
        let found = disk.after_power_cut(CutState::None, 0);
        assert_eq!(reload(&found, shape, expected).expect("it is durable"), model(shape, round + 1));
    }
}

#[test]
fn created_file_is_durable_and_an_interrupted_creation_is_replaced() {
    let calls = {
        let disk = empty_disk();
        create(&disk);
        assert_eq!((disk.syncs(), disk.dir_syncs()), (1, 2));
        disk.calls()
    };
    for (call, state) in (1..=calls + 1).flat_map(|call| CutState::ALL.map(|state| (call, state))) {
        let disk = empty_disk();
        disk.cut_power_within(call);
        let created = PageFile::create(&disk, DIR.as_ref(), &ID);
        assert_eq!(created.is_ok(), call > calls);
        let found = disk.after_power_cut(state, call);
        if call > calls {
            assert_eq!(open(&found).expect("it is durable").pages(), 1);
        }
        create(&found);
        assert_eq!(open(&found).expect("it is there").pages(), 1);
    }
}
