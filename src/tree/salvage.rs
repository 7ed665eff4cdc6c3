//! Reading what is sound of a tree, page by page.

use std::ops::Range;

use super::extent::{Extent, first_child};
use super::file::PageFile;
use super::page::{Child, FAN_OUT, child};
use super::{Root, Shape};
use crate::error::Error;

/// Entries of a tree that nobody can read any more.
#[derive(Debug)]
pub(crate) struct LostEntries {
    /// Their numbers; there may be absent ones among them.
    pub(crate) entries: Range<u64>,
    /// What is wrong with the page that led to them.
    pub(crate) error: Error,
}

impl PageFile {
    /// As [`PageFile::load`], but for what is damaged: that is passed over, and returned. No page is marked, so that nothing can be written to
    /// the file after it.
    pub(crate) fn salvage(
        &self,
        shape: Shape,
        root: Root,
        mut visit: impl FnMut(u64, &[u8]),
    ) -> Vec<LostEntries> {
        let extent = shape.extent(root.entries);
        let mut lost = Vec::new();
        self.salvage_page(extent, extent.height(), 0, root.child(), &mut visit, &mut lost);
        lost
    }

    fn salvage_page(
        &self,
        extent: Extent,
        level: u8,
        index: u64,
        at: Child,
        visit: &mut impl FnMut(u64, &[u8]),
        lost: &mut Vec<LostEntries>,
    ) {
        if at.is_hole() {
            return;
        }
        let content = match self.read(extent, level, index, at) {
            Ok(content) => content,
            Err(error) => {
                let entries = Extent::leaves_below(level).saturating_mul(extent.shape.leaf_entries());
                let first = index.saturating_mul(entries);
                let last = first.saturating_add(entries).min(extent.entries);
                return lost.push(LostEntries { entries: first..last, error });
            }
        };
        if level == 0 {
            let used = extent.used(0, index);
            let entries = content.get(..used).unwrap_or(&content);
            return visit(index.saturating_mul(extent.shape.leaf_entries()), entries);
        }
        for number in 0..extent.children(level, index).min(FAN_OUT) {
            let below = first_child(index).saturating_add(number as u64);
            self.salvage_page(extent, level - 1, below, child(&content, number), visit, lost);
        }
    }
}
