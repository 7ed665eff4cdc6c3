//! Damage: each bit, whole pages, what a lost write leaves, and files that somebody made up.

use super::*;
use crate::tree::page::{Child, Place, encode, set_child};

const SHAPE: Shape = Shape::new(3, 2_000);

/// A tree of height 2 with leaves far apart, and the disk it is on. Pages that are not in use lie between those that are.
struct Sample {
    disk: SimulatedDisk,
    root: Root,
    entries: Entries,
    in_use: Vec<u64>,
    pages: u64,
}

fn sample() -> Sample {
    sample_with(&[0, 1, 2], 2 * 510 * 400 - 1)
}

/// Some entries, and one that a second change adds.
fn sample_with(near: &[u64], far: u64) -> Sample {
    let disk = empty_disk();
    let mut file = create(&disk);
    let count = 2 * 510 * 400;
    let mut all = entries(SHAPE, near.iter().copied(), 1);
    let root = put(&mut file, SHAPE, Root::default(), count, &all).expect("room");
    file.commit();
    let far = entries(SHAPE, [far], 2);
    let root = put(&mut file, SHAPE, root, count, &far).expect("room");
    file.commit();
    all.extend(far);
    let (in_use, pages) = (file.space.in_use(), file.pages());
    assert!((in_use.len() as u64) < pages && root.page != 0);
    Sample { disk, root, entries: all, in_use, pages }
}

/// The page that the damage was told to be in.
fn damaged_page(result: Result<Entries>, what: &str) -> u64 {
    match result {
        Err(Error::Corrupt { format: "page file", path, offset, metric: None, .. }) => {
            assert_eq!(path, super::path(), "{what}");
            offset / PAGE
        }
        other => panic!("{what}: {other:?}"),
    }
}

/// Checks what is read from pages that were changed.
fn check(sample: &Sample, changed: &[u64], what: &str) {
    let read = reload(&sample.disk, SHAPE, sample.root);
    match changed.iter().any(|page| sample.in_use.contains(page)) {
        true => {
            let page = damaged_page(read, what);
            assert!(changed.contains(&page) && sample.in_use.contains(&page), "{what}: told of page {page}");
        }
        false => assert_eq!(read.unwrap_or_else(|error| panic!("{what}: {error}")), sample.entries, "{what}"),
    }
}

#[test]
fn every_flipped_bit_of_a_page_in_use_is_told_and_of_another_harmless() {
    let sample = sample_with(&[0], 1);
    assert_eq!(sample.in_use.len(), 4, "page 0 and one of each level");
    let (whole, raw) = (bytes(&sample.disk), raw(&sample.disk));
    let opened = open(&sample.disk).expect("it opens");
    for bit in 0..whole.len() * 8 {
        let (at, page) = (bit / 8, bit as u64 / 8 / PAGE);
        raw.write_at(at as u64, &[whole[at] ^ 1 << (bit % 8)]).expect("room");
        // Opening and loading all shows little more than one leaf does: a bit of each byte is enough.
        if page == 0 || bit % 8 == at % 8 {
            check(&sample, &[page], &format!("bit {bit}"));
        } else if sample.in_use.contains(&page) {
            let leaf = opened.leaf(SHAPE, sample.root, 0, &mut [0; CONTENT_BYTES]).map(|()| Entries::new());
            assert_eq!(damaged_page(leaf, "a leaf"), page, "bit {bit}");
        }
        raw.write_at(at as u64, &whole[at..=at]).expect("room");
    }
    assert_eq!(reload(&sample.disk, SHAPE, sample.root).expect("it is whole"), sample.entries);
}

#[test]
fn swapped_and_copied_pages_are_told() {
    let sample = sample();
    let (whole, file) = (bytes(&sample.disk), raw(&sample.disk));
    let page = |number: u64| &whole[(number * PAGE) as usize..][..PAGE_BYTES];
    for (one, other) in (0..sample.pages).flat_map(|one| (0..sample.pages).map(move |other| (one, other))) {
        if one != other {
            file.write_at(one * PAGE, page(other)).expect("room");
            check(&sample, &[one], &format!("{other} copied over {one}"));
            file.write_at(other * PAGE, page(one)).expect("room");
            check(&sample, &[one, other], &format!("{other} and {one} swapped"));
            file.write_at(0, &whole).expect("room");
        }
    }
}

#[test]
fn lost_write_is_told_where_an_older_page_of_the_same_place_is_still_there() {
    let disk = empty_disk();
    let mut file = create(&disk);
    let mut root = Root::default();
    let mut states = Vec::new();
    for seed in 1..=3 {
        root = put(&mut file, SHAPE, root, 510 * 400, &entries(SHAPE, [0, 700], seed)).expect("room");
        file.commit();
        states.push((root, bytes(&disk)));
    }
    let (first, last) = (&states[0].1, &states[2].1);
    assert_eq!(states[0].0.page, root.page, "the third is where the first was");
    let raw = raw(&disk);
    let pages = file.space.in_use();
    let older = |pages: &[u64]| {
        for page in pages {
            raw.write_at(page * PAGE, &first[(page * PAGE) as usize..][..PAGE_BYTES]).expect("room");
        }
        let read = reload(&disk, SHAPE, root);
        raw.write_at(0, last).expect("room");
        read
    };
    for page in &pages[1..] {
        assert_eq!(damaged_page(older(&[*page]), "one is lost"), *page);
    }
    assert_eq!(damaged_page(older(&pages), "all are lost"), u64::from(root.page));
    assert_eq!(reload(&disk, SHAPE, root).expect("it is whole"), entries(SHAPE, [0, 700], 3));
}

#[test]
fn damage_is_told_by_each_way_to_read_and_changes_nothing() {
    let sample = sample();
    let whole = bytes(&sample.disk);
    let raw = raw(&sample.disk);
    let mut file = open(&sample.disk).expect("it opens");
    load(&mut file, SHAPE, sample.root).expect("it is whole");
    let count = sample.root.entries;
    for page in sample.in_use[1..].iter().copied() {
        raw.write_at(page * PAGE + 100, &[whole[(page * PAGE) as usize + 100] ^ 1]).expect("room");
        let mut content = [0; CONTENT_BYTES];
        let leaves = [0, 1, SHAPE.leaf_of(count - 1)];
        let told = leaves.map(|leaf| file.leaf(SHAPE, sample.root, leaf, &mut content).is_err());
        assert!(told.contains(&true), "page {page}");
        let new = entries(SHAPE, [0, 2, count - 1], 9);
        let changed = put(&mut file, SHAPE, sample.root, count, &new).map(|_| Entries::new());
        assert_eq!(damaged_page(changed, "a change"), page);
        let is_inner = whole[(page * PAGE) as usize + 5] > 0;
        let removed = file.remove(SHAPE, sample.root);
        assert_eq!(removed.is_err(), is_inner, "page {page}");
        file.abandon();
        assert_eq!(file.space.in_use(), sample.in_use);
        raw.write_at(0, &whole).expect("room");
    }
    assert_eq!(reload(&sample.disk, SHAPE, sample.root).expect("it is whole"), sample.entries);
}

#[test]
fn page_that_two_places_name_is_told() {
    let sample = sample();
    let mut file = open(&sample.disk).expect("it opens");
    load(&mut file, SHAPE, sample.root).expect("it is whole");
    assert_eq!(damaged_page(load(&mut file, SHAPE, sample.root), "twice"), sample.root.page.into());
}

#[test]
fn root_of_another_shape_or_number_of_entries_is_told() {
    let sample = sample();
    let Root { page, crc, entries } = sample.root;
    for shape in [Shape::new(4, 2_000), Shape::new(3, 1_000), Shape::new(3, 8)] {
        damaged_page(reload(&sample.disk, shape, sample.root), "another shape");
    }
    for entries in [0, 1, 2, 1_020, 1_021, entries / 2, entries - 2, entries * 510, u64::MAX] {
        damaged_page(reload(&sample.disk, SHAPE, Root { page, crc, entries }), "another number");
    }
    for page in [0, page + 1, u32::MAX] {
        damaged_page(reload(&sample.disk, SHAPE, Root { page, crc, entries }), "another page");
        let mut file = open(&sample.disk).expect("it opens");
        assert!(file.remove(SHAPE, Root { page, crc, entries }).is_err());
    }
    let none = Root { page: 0, crc: 0, entries };
    assert_eq!(reload(&sample.disk, SHAPE, none).expect("all are absent"), Entries::new());
}

#[test]
fn reason_of_a_visitor_is_damage_of_the_page() {
    let sample = sample();
    let mut file = open(&sample.disk).expect("it opens");
    let mut leaves = 0;
    let result = file.load(SHAPE, sample.root, |_, _| {
        leaves += 1;
        if leaves == 2 { Err("it is odd") } else { Ok(()) }
    });
    let Err(Error::Corrupt { format: "page file", offset, reason: "it is odd", .. }) = result else {
        panic!("{result:?}");
    };
    assert_eq!(bytes(&sample.disk)[offset as usize + 8], 1, "it is leaf 1");
}

#[test]
fn shortened_file_is_told() {
    let sample = sample();
    let whole = bytes(&sample.disk);
    let raw = raw(&sample.disk);
    for len in (0..whole.len() as u64).step_by(509).chain([PAGE, whole.len() as u64 - 1]) {
        raw.set_len(len).expect("room");
        let page = damaged_page(reload(&sample.disk, SHAPE, sample.root), "a shorter file");
        assert!((page + 1) * PAGE > len || page == 0);
        raw.write_at(0, &whole).expect("room");
    }
    sample.disk.remove(&path()).expect("it goes");
    assert_eq!(damaged_page(reload(&sample.disk, SHAPE, sample.root), "no file"), 0);
}

#[test]
fn foreign_and_newer_files_are_told_apart() {
    let sample = sample();
    let other = PageFile::open(&sample.disk, DIR.as_ref(), &[9; 16], false);
    assert!(matches!(other, Err(Error::Corrupt { offset: 28, reason: "belongs to another database", .. })));
    let raw = raw(&sample.disk);
    let mut head = bytes(&sample.disk)[..PAGE_BYTES].to_vec();
    for version in [0, 2] {
        head[24] = version;
        let crc = crc32fast::hash(&head[4..]);
        head[..4].copy_from_slice(&crc.to_le_bytes());
        raw.write_at(0, &head).expect("room");
        match (version, open(&sample.disk)) {
            (0, Err(Error::Corrupt { offset: 24, .. })) => {}
            (2, Err(Error::NewerFormat { found: 2, supported: 1, .. })) => {}
            (_, other) => panic!("{version}: {other:?}"),
        }
    }
}

/// Pages with sound checksums whose children, places and roots are made up: an error or an array, no panic, and no more than the file has.
#[test]
fn made_up_pages_are_an_error_or_an_array() {
    let mut random = random(20_261_120);
    let disk = empty_disk();
    drop(create(&disk));
    let raw = raw(&disk);
    let (mut sound, mut told) = (0, 0);
    for round in 0..3_000 {
        // From the leaves up, so that children can be named with their checksums.
        let height = random(9) as u8;
        let mut children = vec![Child::HOLE; 1];
        for page in 1..12 {
            let level = if page == 11 { height } else { random(u64::from(height) + 1) as u8 };
            let mut content = [0; CONTENT_BYTES];
            for _ in 0..random(4) {
                let number = if random(3) == 0 { random(510) as usize } else { 0 };
                set_child(&mut content, number, children[random(children.len() as u64) as usize]);
            }
            if random(4) == 0 {
                content[random(4_080) as usize] = random(256) as u8;
            }
            let index = [0, 0, 0, random(510), u64::MAX][random(5) as usize];
            let (bytes, crc) = encode(Place { kind: 3, level, index }, &content);
            raw.write_at(page * PAGE, &bytes).expect("room");
            children.push(Child { page: page as u32, crc });
        }
        let shape = Shape::new(3, [1, 28, 4080][random(3) as usize]);
        let most = shape.leaf_entries().saturating_mul(510_u64.saturating_pow(height.into()));
        let count = [most, u64::MAX, most / 2 + 1, random(1_000)][random(4) as usize];
        let root = Root { page: 11, crc: children[11].crc, entries: count };
        let mut file = open(&disk).expect("it opens");
        let mut visited = 0;
        let loaded = file.load(shape, root, |first, _| {
            assert!(first < count);
            visited += 1;
            Ok(())
        });
        assert!(visited <= 12, "round {round}");
        match loaded {
            Ok(()) => sound += 1,
            Err(Error::Corrupt { .. }) => told += 1,
            Err(error) => panic!("round {round}: {error}"),
        }
        let mut content = [0; CONTENT_BYTES];
        for leaf in [0, 1, random(1_000), shape.leaves(count).saturating_sub(1), u64::MAX] {
            let _ = file.leaf(shape, root, leaf, &mut content);
        }
        let entries = [count, 0, 1, u64::MAX, random(1 << 30)][random(5) as usize];
        let leaves = [0, random(9) + 1, shape.leaves(entries).saturating_sub(1).max(10)];
        let _ = file.change(shape, root, entries, leaves, |_, bytes| {
            bytes.fill(1);
            Ok(())
        });
        let _ = file.remove(shape, root);
        file.commit();
        assert!(file.pages() < 64, "round {round}");
    }
    assert!(sound > 100 && told > 100, "{sound} sound, {told} damaged");
}
