//! Which page of a tree has which entries: all of it follows from the number of entries and their size.

use super::page::{CHILD_BYTES, CONTENT_BYTES, FAN_OUT, Place};

/// What all trees of a sort have in common: the number of their kind, and the size of their entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    kind: u8,
    entry_bytes: usize,
}

impl Shape {
    /// Trees of this kind, from 1 on, have entries of so many bytes, from 1 to [`CONTENT_BYTES`].
    ///
    /// # Panics
    /// If one of them is outside its range: shapes are constants.
    pub(crate) const fn new(kind: u8, entry_bytes: usize) -> Self {
        assert!(kind > 0 && entry_bytes > 0 && entry_bytes <= CONTENT_BYTES);
        Shape { kind, entry_bytes }
    }

    /// The size of an entry in bytes.
    pub(crate) const fn entry_bytes(self) -> usize {
        self.entry_bytes
    }

    /// How many entries a leaf has.
    pub(crate) const fn leaf_entries(self) -> u64 {
        (CONTENT_BYTES / self.entry_bytes) as u64
    }

    /// Which leaf an entry lies in.
    pub(crate) const fn leaf_of(self, entry: u64) -> u64 {
        entry / self.leaf_entries()
    }

    /// How many leaves so many entries have, holes included.
    pub(crate) const fn leaves(self, entries: u64) -> u64 {
        entries.div_ceil(self.leaf_entries())
    }

    /// How many levels of inner pages there are above the leaves of so many entries: at most 8.
    pub(crate) const fn height(self, entries: u64) -> u8 {
        let (mut height, mut pages) = (0, self.leaves(entries));
        while pages > 1 {
            pages = pages.div_ceil(FAN_OUT as u64);
            height += 1;
        }
        height
    }

    /// The place of a page in a tree of this shape.
    pub(super) fn place(self, level: u8, index: u64) -> Place {
        Place { kind: self.kind, level, index }
    }

    /// Bytes of a leaf's entries, without the zeros behind a full one.
    pub(super) fn leaf_bytes(self) -> usize {
        CONTENT_BYTES / self.entry_bytes * self.entry_bytes
    }

    /// A tree of so many entries.
    pub(super) fn extent(self, entries: u64) -> Extent {
        Extent { shape: self, entries }
    }
}

/// The shape of a tree, and how far it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) shape: Shape,
    pub(super) entries: u64,
}

impl Extent {
    pub(super) fn height(self) -> u8 {
        self.shape.height(self.entries)
    }

    pub(super) fn leaves(self) -> u64 {
        self.shape.leaves(self.entries)
    }

    /// How many leaves lie below a full page of this level.
    pub(super) fn leaves_below(level: u8) -> u64 {
        (FAN_OUT as u64).saturating_pow(level.into())
    }

    /// How many children an inner page has, holes included.
    pub(super) fn children(self, level: u8, index: u64) -> usize {
        let below = self.leaves().div_ceil(Self::leaves_below(level.saturating_sub(1)));
        below.saturating_sub(first_child(index)).min(FAN_OUT as u64) as usize
    }

    /// How many bytes at the beginning of a page's content may differ from zero.
    pub(super) fn used(self, level: u8, index: u64) -> usize {
        if level > 0 {
            return self.children(level, index) * CHILD_BYTES;
        }
        let first = index.saturating_mul(self.shape.leaf_entries());
        self.entries.saturating_sub(first).min(self.shape.leaf_entries()) as usize * self.shape.entry_bytes
    }
}

/// Which page of the level below is child 0 of the inner page with this index.
pub(super) fn first_child(index: u64) -> u64 {
    index.saturating_mul(FAN_OUT as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn height_is_the_smallest_whose_leaves_have_all_entries() {
        for entry_bytes in [1, 12, 20, 28, 48, 2040, 4080] {
            let shape = Shape::new(1, entry_bytes);
            let mut bound = u128::from(shape.leaf_entries());
            let mut height = 0;
            while let Ok(entries) = u64::try_from(bound) {
                assert_eq!(shape.height(entries), height);
                assert_eq!(shape.height(entries - 1), if entries == 1 { 0 } else { height }.min(height));
                assert_eq!(shape.height(entries + 1), height + 1);
                bound *= 510;
                height += 1;
            }
            assert_eq!(shape.height(u64::MAX), height);
            assert!(height <= 8);
        }
        let shape = Shape::new(1, 28);
        assert_eq!((shape.leaf_entries(), shape.leaves(1_000_000)), (145, 6_897));
        assert_eq!([0, 145, 146, 73_950, 73_951, 37_714_500].map(|n| shape.height(n)), [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn pages_of_the_largest_tree_are_counted_without_overflow() {
        for entry_bytes in [1, 4080] {
            let extent = Shape::new(1, entry_bytes).extent(u64::MAX);
            let height = extent.height();
            assert!((1..=FAN_OUT).contains(&extent.children(height, 0)));
            let last = extent.leaves() - 1;
            assert!((entry_bytes..=CONTENT_BYTES).contains(&extent.used(0, last)));
            assert_eq!(extent.used(0, extent.leaves().saturating_add(1)), 0);
            for level in 1..=height {
                assert!(extent.children(level, last / Extent::leaves_below(level)) >= 1);
                assert_eq!(extent.children(level, u64::MAX), 0);
            }
        }
    }
}
