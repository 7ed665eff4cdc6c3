//! The format as `design/trees.md` describes it, and as earlier versions of the code wrote it.

use super::*;

const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/tree-pages-v1.bin");

/// The trees of the example on the format page: one of a single leaf, and one of three levels with holes.
fn example() -> [(Shape, Root, Entries); 2] {
    let small: Entries = (0..3).map(|number| (number, vec![number as u8 + 1; 28])).collect();
    let sparse: Entries = [1, 1_000_000].map(|number: u64| (number, number.to_le_bytes().to_vec())).into();
    [
        (Shape::new(1, 28), Root { page: 1, crc: 0x6c76_942c, entries: 3 }, small),
        (Shape::new(2, 8), Root { page: 6, crc: 0x975a_7ec8, entries: 1_000_001 }, sparse),
    ]
}

#[test]
fn golden_file_is_written() {
    let disk = empty_disk();
    let mut file = create(&disk);
    for (shape, root, entries) in example() {
        assert_eq!(put(&mut file, shape, Root::default(), root.entries, &entries).expect("room"), root);
    }
    assert_eq!(bytes(&disk), GOLDEN);
}

#[test]
fn golden_file_is_read() {
    let disk = empty_disk();
    drop(create(&disk));
    raw(&disk).write_at(0, GOLDEN).expect("room");
    let mut file = open(&disk).expect("it opens");
    for (shape, root, entries) in example() {
        assert_eq!(load(&mut file, shape, root).expect("it is whole"), entries);
    }
    assert_eq!(file.space.in_use(), [0, 1, 2, 3, 4, 5, 6]);
}
