//! Pages that are not in use are used again, and the file does not grow as long as what is live does not.

use super::*;

#[test]
fn file_does_not_grow_over_1000_random_changes() {
    let mut random = random(7);
    let (disk, shape) = (empty_disk(), Shape::new(3, 1_000));
    let mut file = create(&disk);
    let count = 600 * shape.leaf_entries();
    let mut model = entries(shape, 0..count, 0);
    let mut root = put(&mut file, shape, Root::default(), count, &model).expect("room");
    file.commit();
    let live = file.space.in_use().len() as u64;
    assert_eq!(live, 1 + 600 + 2 + 1);
    let mut longest = 0;
    for round in 1..=1_000 {
        let many = if round % 50 == 0 { 3_000 } else { 1 + random(60) };
        let changes = entries(shape, (0..many).map(|_| random(count)), round);
        let written = file.pages_written();
        let new = put(&mut file, shape, root, count, &changes).expect("room");
        longest = longest.max(live + file.pages_written() - written);
        assert!(file.pages() <= longest, "round {round}: no page above is taken while one below is free");
        if round % 7 == 0 {
            file.abandon();
        } else {
            file.commit();
            root = new;
            model.extend(changes);
        }
        assert_eq!(file.space.in_use().len() as u64, live, "round {round}");
        if round % 100 == 0 {
            file = open(&disk).expect("it opens");
            assert_eq!(load(&mut file, shape, root).expect("it is whole"), model);
        }
    }
    assert!(longest < 2 * live);
}

#[test]
fn file_is_cut_when_what_lies_at_its_end_goes_or_moves() {
    let (disk, shape) = (empty_disk(), Shape::new(3, 4080));
    let mut file = create(&disk);
    let all = entries(shape, 0..100, 1);
    let root = put(&mut file, shape, Root::default(), 100, &all).expect("room");
    file.commit();
    assert_eq!(file.pages(), 102);
    let root = put(&mut file, shape, root, 100, &entries(shape, [99], 2)).expect("room");
    file.commit();
    assert_eq!(file.pages(), 104, "99 and the root lie at the end");
    let root = file.change(shape, root, 50, [], |_, _| Ok(())).expect("room");
    file.commit();
    assert_eq!(file.pages(), 101, "the root took the place of the old 99");
    let root = put(&mut file, shape, root, 50, &entries(shape, [0], 3)).expect("room");
    file.commit();
    assert_eq!((file.pages(), disk.bytes_allocated()), (53, 53 * PAGE), "the root has moved");
    file.remove(shape, root).expect("it is whole");
    file.commit();
    assert_eq!((file.pages(), disk.bytes_allocated()), (1, PAGE));
}

#[test]
fn file_that_cannot_be_cut_is_cut_by_a_later_commit() {
    let (disk, shape) = (empty_disk(), Shape::new(3, 4080));
    let mut file = create(&disk);
    let root = put(&mut file, shape, Root::default(), 9, &entries(shape, 0..9, 1)).expect("room");
    file.commit();
    file.remove(shape, root).expect("it is whole");
    disk.fail(disk.calls() + 1, crate::io::Fault::InputOutput, false);
    file.commit();
    assert_eq!((file.pages(), file.space.in_use()), (11, vec![0]));
    file.commit();
    assert_eq!((file.pages(), disk.bytes_allocated()), (1, PAGE));
}

#[test]
fn full_disk_fails_a_change_and_abandoning_it_gives_the_space_back() {
    let (disk, shape) = (empty_disk(), Shape::new(3, 4080));
    let mut file = create(&disk);
    let before = entries(shape, 0..20, 1);
    let root = put(&mut file, shape, Root::default(), 20, &before).expect("room");
    file.commit();
    let allocated = disk.bytes_allocated();
    disk.set_capacity(Some(allocated + 5 * PAGE));
    let full = put(&mut file, shape, root, 20, &entries(shape, 0..20, 2)).expect_err("no room");
    assert_eq!(full.io_kind(), Some(std::io::ErrorKind::StorageFull));
    file.abandon();
    assert_eq!(disk.bytes_allocated(), allocated);
    assert_eq!(reload(&disk, shape, root).expect("it is whole"), before);
    let one = entries(shape, [3], 2);
    let root = put(&mut file, shape, root, 20, &one).expect("room for two pages");
    file.commit();
    assert_eq!(reload(&disk, shape, root).expect("it is whole")[&3], one[&3]);
}

#[test]
fn neither_committed_nor_abandoned_changes_keep_the_pages_of_both_roots() {
    let (disk, shape) = (empty_disk(), Shape::new(3, 4080));
    let mut file = create(&disk);
    let mut roots = vec![(Root::default(), Entries::new())];
    for seed in 0..5 {
        let (root, model) = roots.last().expect("one").clone();
        let changes = entries(shape, [seed, 7], seed);
        let new = put(&mut file, shape, root, 10, &changes).expect("room");
        roots.push((new, model.into_iter().chain(changes).collect()));
    }
    for (root, model) in &roots {
        assert_eq!(reload(&disk, shape, *root).expect("it is whole"), *model);
    }
    file.commit();
    assert_eq!(file.space.in_use().len(), 1 + 6 + 1, "those of the last");
}

#[test]
fn many_small_trees_share_the_file() {
    let mut random = random(11);
    let (disk, shape) = (empty_disk(), Shape::new(3, 20));
    let mut file = create(&disk);
    let mut trees: BTreeMap<u64, (Root, Entries)> = BTreeMap::new();
    for round in 0..300 {
        let number = random(40);
        let (root, model) = trees.entry(number).or_default();
        if random(4) == 0 {
            file.remove(shape, *root).expect("it is whole");
            trees.remove(&number);
        } else {
            model.extend(entries(shape, (0..3).map(|_| random(250)), round));
            let count = model.last_key_value().map_or(0, |(last, _)| last + 1);
            *root = put(&mut file, shape, *root, count, model).expect("room");
        }
        file.commit();
    }
    let mut reopened = open(&disk).expect("it opens");
    for (root, model) in trees.values() {
        assert_eq!(load(&mut reopened, shape, *root).expect("it is whole"), *model);
    }
    assert_eq!(reopened.space.in_use(), file.space.in_use());
}
