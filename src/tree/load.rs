//! Reading trees: all of one, in order, or one leaf.

use super::extent::{Extent, first_child};
use super::file::PageFile;
use super::page::{CONTENT_BYTES, Child, Content, FAN_OUT, PAGE_BYTES, child};
use super::{Root, Shape};
use crate::error::Result;

/// How many leaves that lie side by side are read at once.
const AHEAD: usize = 64;

impl PageFile {
    /// Reads a whole tree in order and notes that its pages are in use. For each leaf that is there, `visit` gets the number of its first
    /// entry and the bytes of its entries; absent ones among them are zeros, and those of leaves that are not there are left out.
    ///
    /// Memory: a page for each level, and 256 KiB.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) if a page is not the one that was written, if another place names it too, or with the
    /// reason that `visit` returns. [`Error::Io`](crate::Error::Io).
    pub(crate) fn load(
        &mut self,
        shape: Shape,
        root: Root,
        mut visit: impl FnMut(u64, &[u8]) -> Result<(), &'static str>,
    ) -> Result<()> {
        let extent = shape.extent(root.entries);
        let mut loading = Loading { file: self, extent, visit: &mut visit, buffer: Vec::new() };
        loading.pages(extent.height(), 0, &[root.child()])
    }

    /// Reads one leaf of a tree: its entries and zeros behind them, nothing but zeros if it is not there.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) if a page on the way is not the one that was written. [`Error::Io`](crate::Error::Io).
    pub(crate) fn leaf(
        &self,
        shape: Shape,
        root: Root,
        leaf: u64,
        into: &mut [u8; CONTENT_BYTES],
    ) -> Result<()> {
        let extent = shape.extent(root.entries);
        into.fill(0);
        if leaf >= extent.leaves() {
            return Ok(());
        }
        let mut at = root.child();
        for level in (1..=extent.height()).rev() {
            if at.is_hole() {
                return Ok(());
            }
            let below = leaf / Extent::leaves_below(level - 1);
            let inner = self.read(extent, level, below / FAN_OUT as u64, at)?;
            at = child(&inner, (below % FAN_OUT as u64) as usize);
        }
        if !at.is_hole() {
            *into = self.read(extent, 0, leaf, at)?;
        }
        Ok(())
    }
}

/// A tree that is being loaded.
struct Loading<'a, V> {
    file: &'a mut PageFile,
    extent: Extent,
    visit: &'a mut V,
    /// Leaves read ahead.
    buffer: Vec<u8>,
}

impl<V: FnMut(u64, &[u8]) -> Result<(), &'static str>> Loading<'_, V> {
    /// Loads pages of one level that follow each other, and all below.
    fn pages(&mut self, level: u8, first: u64, children: &[Child]) -> Result<()> {
        if level == 0 {
            return self.leaves(first, children);
        }
        for (at, index) in children.iter().zip(first..).filter(|(at, _)| !at.is_hole()) {
            let inner = self.file.read(self.extent, level, index, *at)?;
            self.mark(*at)?;
            let below: [Child; FAN_OUT] = std::array::from_fn(|number| child(&inner, number));
            let count = self.extent.children(level, index);
            self.pages(level - 1, first_child(index), below.get(..count).unwrap_or(&below))?;
        }
        Ok(())
    }

    /// Loads leaves that follow each other, those at once that lie side by side.
    fn leaves(&mut self, first: u64, children: &[Child]) -> Result<()> {
        let (mut index, mut rest) = (first, children);
        while let Some(at) = rest.first() {
            let is_beside = |(place, next): (u32, &Child)| {
                !next.is_hole() && at.page.checked_add(place) == Some(next.page)
            };
            let count = (0..).zip(rest).take(AHEAD).take_while(|beside| is_beside(*beside)).count();
            let (run, others) = rest.split_at(count.max(1));
            if !at.is_hole() {
                self.run(index, at.page, run)?;
            }
            index += run.len() as u64;
            rest = others;
        }
        Ok(())
    }

    /// Loads leaves that lie side by side.
    fn run(&mut self, first: u64, first_page: u32, run: &[Child]) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(run.len() * PAGE_BYTES, 0);
        self.file.read_at(first_page, &mut buffer)?;
        for ((at, index), page) in run.iter().zip(first..).zip(buffer.as_chunks().0) {
            let content: &Content = self.file.content(page, self.extent, 0, index, *at)?;
            let used = self.extent.used(0, index);
            let entries = content.get(..used).unwrap_or(content);
            (self.visit)(index.saturating_mul(self.extent.shape.leaf_entries()), entries)
                .map_err(|reason| self.file.corrupt_page(at.page, reason))?;
            self.mark(*at)?;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn mark(&mut self, at: Child) -> Result<()> {
        match self.file.space.mark(at.page) {
            true => Ok(()),
            false => Err(self.file.corrupt_page(at.page, "two places of trees name this page")),
        }
    }
}
