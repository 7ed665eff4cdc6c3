//! Trees are arrays: what is written reads back, with as few pages as promised.

use proptest::prelude::*;

use super::*;

/// One change to a tree: its new number of entries, and entries that are set or taken away.
#[derive(Clone, Debug)]
struct Batch {
    entries: u64,
    changes: Vec<(u64, Option<u64>)>,
}

const SIZES: [usize; 6] = [1, 12, 20, 28, 48, 4080];

/// Numbers of entries of all heights, many of them small or near a bound.
fn numbers() -> impl Strategy<Value = u64> {
    let near_bound = (0..6_u32, 0..3_u64, 1..150_u64)
        .prop_map(|(height, less, entries)| entries.saturating_mul(510_u64.pow(height)) + 1 - less.min(1));
    prop_oneof![3 => 0..600_u64, 2 => near_bound, 1 => (0..64_u32).prop_map(|bits| u64::MAX >> bits)]
}

fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let place = prop_oneof![Just(0), Just(u64::MAX), 0..300_u64, any::<u64>()];
    let changes = prop::collection::vec((place, prop::option::weighted(0.8, any::<u64>())), 0..40);
    let batch = (numbers(), changes).prop_map(|(entries, changes)| Batch { entries, changes });
    prop::collection::vec(batch, 1..8)
}

/// The entries that a batch sets, within its number of them; zeros for those it takes away.
fn changes_of(batch: &Batch, shape: Shape) -> Entries {
    let in_range = batch.changes.iter().filter(|_| batch.entries > 0);
    let within = |place: u64| if place == u64::MAX { batch.entries - 1 } else { place % batch.entries };
    in_range
        .map(|(place, seed)| {
            let number = within(*place);
            (number, seed.map_or(vec![0; shape.entry_bytes()], |seed| entry(shape, number, seed)))
        })
        .collect()
}

fn apply(model: &Entries, batch: &Batch, changes: &Entries) -> Entries {
    let mut model = model.clone();
    model.extend(changes.clone());
    model.retain(|number, entry| *number < batch.entries && entry.iter().any(|byte| *byte != 0));
    model
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn tree_reads_back_as_an_array_and_so_does_its_old_root(
        size in prop::sample::select(&SIZES[..]),
        batches in batches(),
        failing in any::<prop::sample::Index>(),
    ) {
        let shape = Shape::new(3, size);
        let disk = empty_disk();
        drop(create(&disk));
        let (mut root, mut model) = (Root::default(), Entries::new());
        for batch in &batches {
            let mut file = open(&disk).expect("it opens");
            prop_assert_eq!(&load(&mut file, shape, root).expect("it is whole"), &model);
            let changes = changes_of(batch, shape);
            let after = apply(&model, batch, &changes);
            let before_calls = disk.calls();
            let new = put(&mut file, shape, root, batch.entries, &changes).expect("room");
            prop_assert_eq!(new.entries, batch.entries);
            prop_assert_eq!(new.page == 0, after.is_empty());
            prop_assert_eq!(&reload(&disk, shape, new).expect("it is whole"), &after);
            prop_assert_eq!(&reload(&disk, shape, root).expect("it is whole"), &model, "the old root");

            // Given up, it is as if nothing had been; with a failed call in between, too.
            let calls = disk.calls() - before_calls;
            file.abandon();
            if calls > 0 {
                let in_use = file.space.in_use();
                let call = disk.calls() + 1 + failing.index(calls as usize) as u64;
                disk.fail(call, crate::io::Fault::ShortWrite, false);
                prop_assert!(put(&mut file, shape, root, batch.entries, &changes).is_err());
                disk.clear_faults();
                prop_assert_eq!(file.space.in_use(), in_use);
            }
            prop_assert_eq!(put(&mut file, shape, root, batch.entries, &changes).expect("room"), new);
            file.commit();

            for number in after.keys().chain(changes.keys()).chain([&0, &(batch.entries / 2), &u64::MAX]) {
                let leaf = shape.leaf_of(*number);
                let mut content = [7; CONTENT_BYTES];
                file.leaf(shape, new, leaf, &mut content).expect("it is whole");
                let mut expected = vec![0; CONTENT_BYTES];
                let first = leaf.saturating_mul(shape.leaf_entries());
                for (number, entry) in after.range(first..=first.saturating_add(shape.leaf_entries() - 1)) {
                    let at = (number - first) as usize * size;
                    expected[at..at + size].copy_from_slice(entry);
                }
                prop_assert_eq!(&content[..], &expected[..]);
            }

            // What is in use is what the tree has, and the file ends with it.
            let mut reopened = open(&disk).expect("it opens");
            load(&mut reopened, shape, new).expect("it is whole");
            prop_assert_eq!(reopened.space.in_use(), file.space.in_use());
            prop_assert_eq!(file.pages(), file.space.in_use().last().map_or(0, |page| page + 1));
            prop_assert_eq!(bytes(&disk).len() as u64, file.pages() * PAGE);
            (root, model) = (new, after);
        }
        let mut file = open(&disk).expect("it opens");
        load(&mut file, shape, root).expect("it is whole");
        file.remove(shape, root).expect("it is whole");
        prop_assert_eq!(&reload(&disk, shape, root).expect("not yet"), &model);
        file.commit();
        prop_assert_eq!((file.pages(), file.space.in_use()), (1, vec![0]));
    }
}

/// The figures of the format page, for as many metrics as the engine is made for.
#[test]
fn change_of_one_entry_writes_height_and_one_pages_and_one_of_all_few_writes() {
    let shape = Shape::new(1, 28);
    let count = 1_000_000;
    let disk = empty_disk();
    let mut file = create(&disk);
    let fill = |salt: u64| {
        move |leaf: u64, bytes: &mut [u8]| {
            for (number, entry) in (leaf * shape.leaf_entries()..).zip(bytes.chunks_exact_mut(28)) {
                entry[..8].copy_from_slice(&(number + salt).to_le_bytes());
            }
            Ok(())
        }
    };
    let mut calls = disk.calls();
    let root = file.change(shape, Root::default(), count, 0..shape.leaves(count), fill(1)).expect("room");
    assert_eq!(file.pages_written(), 6_897 + 14 + 1);
    assert_eq!(disk.calls() - calls, 6_912_u64.div_ceil(256), "a write for each MiB");
    file.commit();

    for (number, beside) in [(0, 1), (count / 2, 3), (count - 1, 4)] {
        let (pages, written) = (file.pages_written(), disk.bytes_written());
        let one = entries(shape, [number], beside);
        put(&mut file, shape, root, count, &one).expect("room");
        assert_eq!(file.pages_written() - pages, 3);
        assert_eq!(disk.bytes_written() - written, 3 * PAGE);
        file.abandon();
    }

    let pages = file.pages_written();
    let same = file.change(shape, root, count, 0..shape.leaves(count), fill(1)).expect("room");
    assert_eq!((same, file.pages_written()), (root, pages), "what is as it was is not written");

    calls = disk.calls();
    let all = file.change(shape, root, count, 0..shape.leaves(count), fill(2)).expect("room");
    assert_eq!(file.pages_written() - pages, 6_912);
    assert_eq!(disk.calls() - calls, 6_912_u64.div_ceil(256));
    file.commit();
    let mut sum = 0;
    let mut reopened = open(&disk).expect("it opens");
    let visit = |first: u64, bytes: &[u8]| {
        sum +=
            bytes.chunks(28).map(|entry| u64::from_le_bytes(entry[..8].try_into().expect("8"))).sum::<u64>();
        assert_eq!(bytes[..8], (first + 2).to_le_bytes());
        Ok(())
    };
    reopened.load(shape, all, visit).expect("it is whole");
    assert_eq!(sum, (2..count + 2).sum());
}

#[test]
fn absent_leaf_takes_no_page() {
    for size in SIZES {
        let shape = Shape::new(3, size);
        let disk = empty_disk();
        let mut file = create(&disk);
        let count = u64::MAX / 3;
        let last = entries(shape, [count - 1], 1);
        let root = put(&mut file, shape, Root::default(), count, &last).expect("room");
        assert_eq!(file.pages_written(), u64::from(shape.height(count)) + 1);
        let none =
            put(&mut file, shape, root, count, &last.into_keys().map(|n| (n, vec![0; size])).collect());
        assert_eq!(none.expect("room"), Root { entries: count, ..Root::default() });
        file.commit();
        assert_eq!((file.pages(), file.space.in_use()), (1, vec![0]));
    }
}

#[test]
fn height_follows_from_the_number_of_entries_in_both_directions() {
    for size in [28, 4080] {
        let shape = Shape::new(3, size);
        let disk = empty_disk();
        let mut file = create(&disk);
        let first = entries(shape, [0], 1);
        let mut root = put(&mut file, shape, Root::default(), 1, &first).expect("room");
        let bounds: Vec<_> = (0..4).map(|height| shape.leaf_entries() * 510_u64.pow(height)).collect();
        let up = bounds.iter().flat_map(|bound| [*bound, bound + 1]);
        let down = bounds.iter().rev().flat_map(|bound| [bound + 1, *bound]);
        for (count, is_up) in up.map(|n| (n, true)).chain(down.map(|n| (n, false))) {
            let written = file.pages_written();
            let height = u64::from(shape.height(root.entries).abs_diff(shape.height(count)));
            root = file.change(shape, root, count, [], |_, _| Ok(())).expect("room");
            assert_eq!(file.pages_written() - written, if is_up { height } else { 0 }, "{count}");
            file.commit();
            assert_eq!(file.space.in_use().len() as u64, u64::from(shape.height(count)) + 2, "{count}");
            assert_eq!(reload(&disk, shape, root).expect("it is whole"), first);
        }
        // Over several levels at once, with an entry at the far end.
        let far = bounds[3] * 7;
        let both = entries(shape, [0, far - 1], 1);
        root = put(&mut file, shape, root, far, &both).expect("room");
        assert_eq!(reload(&disk, shape, root).expect("it is whole"), both);
        root = file.change(shape, root, 1, [], |_, _| Ok(())).expect("room");
        file.commit();
        assert_eq!(file.space.in_use().len(), 2);
        assert_eq!(reload(&disk, shape, root).expect("it is whole"), first);
    }
}

#[test]
fn shorter_tree_forgets_what_was_behind_its_end() {
    let shape = Shape::new(3, 28);
    let disk = empty_disk();
    let mut file = create(&disk);
    let all = entries(shape, 0..2_000, 1);
    let mut root = put(&mut file, shape, Root::default(), 2_000, &all).expect("room");
    for count in [1_999, 1_595, 1_450, 146, 145, 144, 1, 0] {
        root = file.change(shape, root, count, [], |_, _| Ok(())).expect("room");
        let left: Entries = all.range(..count).map(|(number, entry)| (*number, entry.clone())).collect();
        assert_eq!(reload(&disk, shape, root).expect("it is whole"), left);
        let longer = file.change(shape, root, 2_000, [], |_, _| Ok(())).expect("room");
        assert_eq!(reload(&disk, shape, longer).expect("it is whole"), left, "they do not come back");
        file.commit();
        root = longer;
    }
    assert_eq!(root, Root { entries: 2_000, ..Root::default() });
}

#[test]
fn trees_do_not_disturb_each_other() {
    let shapes: Vec<_> = (1..).zip(SIZES).map(|(kind, size)| Shape::new(kind, size)).collect();
    let disk = empty_disk();
    let mut file = create(&disk);
    let mut trees = vec![(Root::default(), Entries::new()); shapes.len()];
    for round in 0..20 {
        for (place, (shape, (root, model))) in (0..).zip(shapes.iter().zip(&mut trees)) {
            if round % (place + 1) == 0 {
                model.extend(entries(*shape, [round * 37, round * round * 4_099, round], round));
                *root = put(&mut file, *shape, *root, 10_000_000, model).expect("room");
            }
        }
        file.commit();
        file = open(&disk).expect("it opens");
        for (shape, (root, model)) in shapes.iter().zip(&trees) {
            assert_eq!(load(&mut file, *shape, *root).expect("it is whole"), *model);
        }
    }
}

#[test]
fn leaves_may_be_repeated_and_lie_behind_the_end() {
    let shape = Shape::new(3, 4080);
    let disk = empty_disk();
    let mut file = create(&disk);
    let mut filled = Vec::new();
    let leaves = [0, 0, 3, 3, 3, 4, 9, 12];
    let root = file.change(shape, Root::default(), 5, leaves, |leaf, bytes| {
        filled.push(leaf);
        bytes.fill(leaf as u8 + 1);
        Ok(())
    });
    assert_eq!(filled, [0, 3, 4]);
    let entries = reload(&disk, shape, root.expect("room")).expect("it is whole");
    assert_eq!(entries.into_keys().collect::<Vec<_>>(), [0, 3, 4]);
}

#[test]
#[should_panic(expected = "leaves are named in ascending order")]
fn leaves_in_another_order_are_refused() {
    let mut file = create(&empty_disk());
    let _ = file.change(Shape::new(3, 4080), Root::default(), 9, [1, 0], |_, _| Ok(()));
}

#[test]
fn change_whose_fill_fails_changes_nothing() {
    let shape = Shape::new(3, 4080);
    let disk = empty_disk();
    let mut file = create(&disk);
    let before = entries(shape, 0..4, 1);
    let root = put(&mut file, shape, Root::default(), 4, &before).expect("room");
    let in_use = file.space.in_use();
    let failed = file.change(shape, root, 600, 0..600, |leaf, bytes| match leaf {
        0..599 => {
            bytes.fill(9);
            Ok(())
        }
        _ => Err(Error::Closed),
    });
    assert!(matches!(failed, Err(Error::Closed)));
    assert_eq!(file.space.in_use(), in_use);
    file.commit();
    assert_eq!(reload(&disk, shape, root).expect("it is whole"), before);
}
