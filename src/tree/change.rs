//! Changing trees: each page that differs is written to a free place, and so are those above it.

use super::extent::{Extent, first_child};
use super::file::PageFile;
use super::page::{self, CONTENT_BYTES, Child, Content, FAN_OUT, PAGE_BYTES, Page, child, set_child};
use super::{Root, Shape};
use crate::error::Result;

/// Pages that lie side by side are written at once, up to so many bytes.
const RUN_BYTES: usize = 1 << 20;

impl PageFile {
    /// Changes a tree into one of `entries` entries. The root given stays readable until the [commit](PageFile::commit).
    ///
    /// `leaves` are the numbers of the leaves that may differ, ascending; repetitions and those behind the last entry do not matter. For
    /// each of them `fill` gets its number and the old entries of all of the leaf, zeros where there are none, and makes them the new ones;
    /// what it leaves behind the last entry of the tree does not matter. What was behind it before goes by itself.
    ///
    /// Cost: reads the leaves named and the pages above them; writes those that differ, and the pages above these. Memory: a few pages
    /// for each level, and 1 MiB.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) if an old page is not the one that was written. [`Error::Io`](crate::Error::Io), of the
    /// kind `StorageFull` also if the file cannot have more pages. What `fill` returns. In each case nothing was changed.
    ///
    /// # Panics
    /// If `leaves` are not ascending.
    pub(crate) fn change(
        &mut self,
        shape: Shape,
        root: Root,
        entries: u64,
        leaves: impl IntoIterator<Item = u64>,
        fill: impl FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<Root> {
        let (old, new) = (shape.extent(root.entries), shape.extent(entries));
        self.all_or_nothing(|file| {
            let top = file.lower(old, new.height(), root.child())?;
            let cut = if entries < root.entries { new.leaves().checked_sub(1) } else { None };
            let leaves = Named::new(leaves.into_iter(), new.leaves());
            let height = old.height().min(new.height());
            let mut change = Change { file, old, new, height, leaves, cut, fill, run: Run::default() };
            let child = change.page(new.height(), 0, top)?;
            change.flush()?;
            Ok(Root::new(child, entries))
        })
    }

    /// Gives up all pages of a tree. Reads its inner pages.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) if an inner page is not the one that was written. [`Error::Io`](crate::Error::Io). In each
    /// case nothing was changed.
    pub(crate) fn remove(&mut self, shape: Shape, root: Root) -> Result<()> {
        let extent = shape.extent(root.entries);
        self.all_or_nothing(|file| file.give_up(extent, extent.height(), 0, root.child()))
    }

    /// If `act` fails, the pages it took are free and those it gave up are not.
    fn all_or_nothing<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let before = self.space.moment();
        let result = act(self);
        if result.is_err() {
            self.space.go_back(before);
        }
        result
    }

    /// Gives up the levels of a tree above a height, and all that is not below its child 0 there; that child.
    fn lower(&mut self, old: Extent, height: u8, top: Child) -> Result<Child> {
        let mut top = top;
        for level in (height + 1..=old.height()).rev() {
            if top.is_hole() {
                break;
            }
            let inner = self.read(old, level, 0, top)?;
            for number in 1..FAN_OUT {
                self.give_up(old, level - 1, number as u64, child(&inner, number))?;
            }
            self.space.give_up(top.page);
            top = child(&inner, 0);
        }
        Ok(top)
    }

    /// Gives up a page and all below it. Leaves are not read for that.
    fn give_up(&mut self, extent: Extent, level: u8, index: u64, at: Child) -> Result<()> {
        if at.is_hole() {
            return Ok(());
        }
        if at.page == 0 {
            return Err(self.corrupt_page(0, "a tree names it as one of its pages"));
        }
        if level > 0 {
            let inner = self.read(extent, level, index, at)?;
            for number in 0..extent.children(level, index) {
                let below = first_child(index).saturating_add(number as u64);
                self.give_up(extent, level - 1, below, child(&inner, number))?;
            }
        }
        self.space.give_up(at.page);
        Ok(())
    }
}

/// A change that is being made.
struct Change<'a, L: Iterator<Item = u64>, F> {
    file: &'a mut PageFile,
    old: Extent,
    new: Extent,
    /// The lower of both heights. Inner pages above it have no old page.
    height: u8,
    leaves: Named<L>,
    /// The last leaf, if there were entries behind it that go.
    cut: Option<u64>,
    fill: F,
    run: Run,
}

impl<L: Iterator<Item = u64>, F: FnMut(u64, &mut [u8]) -> Result<()>> Change<'_, L, F> {
    /// Makes the new page of a place in which there was `old`; above the old height that is the old top.
    fn page(&mut self, level: u8, index: u64, old: Child) -> Result<Child> {
        match level {
            0 => self.leaf(index, old),
            _ => self.inner(level, index, old),
        }
    }

    fn inner(&mut self, level: u8, index: u64, old: Child) -> Result<Child> {
        let is_added = level > self.height;
        let mut before = [0; CONTENT_BYTES];
        match is_added {
            // The old top goes to the left edge of the levels added.
            true => set_child(&mut before, 0, old),
            false if old.is_hole() => {}
            false => before = self.file.read(self.old, level, index, old)?,
        }
        let old = if is_added { Child::HOLE } else { old };
        let mut now = before;
        let count = self.new.children(level, index);
        for number in 0..FAN_OUT {
            let below = first_child(index).saturating_add(number as u64);
            let at = child(&before, number);
            if number >= count {
                self.file.give_up(self.old, level - 1, below, at)?;
                set_child(&mut now, number, Child::HOLE);
            } else if self.differs(level - 1, below) || level - 1 > self.height && !at.is_hole() {
                set_child(&mut now, number, self.page(level - 1, below, at)?);
            }
        }
        self.replace(level, index, old, &before, &now)
    }

    fn leaf(&mut self, index: u64, old: Child) -> Result<Child> {
        let before = match old.is_hole() {
            true => [0; CONTENT_BYTES],
            false => self.file.read(self.old, 0, index, old)?,
        };
        let mut now = before;
        if self.leaves.next_if(index)
            && let Some(entries) = now.get_mut(..self.new.shape.leaf_bytes())
        {
            (self.fill)(index, entries)?;
        }
        if let Some(rest) = now.get_mut(self.new.used(0, index)..) {
            rest.fill(0);
        }
        self.replace(0, index, old, &before, &now)
    }

    /// Whether a leaf below a page, or the page as a leaf, may differ.
    fn differs(&self, level: u8, index: u64) -> bool {
        let leaves = Extent::leaves_below(level);
        let has = |leaf: Option<u64>| leaf.is_some_and(|leaf| leaf / leaves == index);
        has(self.leaves.next) || has(self.cut)
    }

    /// Puts new content in the place of a page: nothing is done if it is as it was, and nothing is written if it is zeros.
    fn replace(
        &mut self,
        level: u8,
        index: u64,
        old: Child,
        before: &Content,
        now: &Content,
    ) -> Result<Child> {
        if before == now && (!old.is_hole() || page::is_zero(now)) {
            return Ok(old);
        }
        if !old.is_hole() {
            self.file.space.give_up(old.page);
        }
        if page::is_zero(now) {
            return Ok(Child::HOLE);
        }
        let (page, crc) = page::encode(self.new.shape.place(level, index), now);
        let number = self.file.space.take().ok_or_else(|| self.file.full())?;
        if !self.run.is_followed_by(number) {
            self.flush()?;
            self.run.first = number;
        }
        self.run.bytes.extend_from_slice(&page);
        Ok(Child { page: number, crc })
    }

    /// Writes the pages that were gathered.
    fn flush(&mut self) -> Result<()> {
        if !self.run.bytes.is_empty() {
            self.file.write(self.run.first, &self.run.bytes)?;
            self.run.bytes.clear();
        }
        Ok(())
    }
}

/// Pages that lie side by side and wait to be written.
#[derive(Default)]
struct Run {
    first: u32,
    bytes: Vec<u8>,
}

impl Run {
    /// Whether the page lies behind those that wait, and there is room for it.
    fn is_followed_by(&self, number: u32) -> bool {
        let count = (self.bytes.len() / PAGE_BYTES) as u64;
        self.bytes.len() + size_of::<Page>() <= RUN_BYTES
            && u64::from(self.first) + count == u64::from(number)
    }
}

/// The leaves that a caller named, each once, without those from `end` on.
struct Named<L> {
    leaves: L,
    end: u64,
    next: Option<u64>,
}

impl<L: Iterator<Item = u64>> Named<L> {
    fn new(leaves: L, end: u64) -> Self {
        let mut named = Named { leaves, end, next: None };
        named.next = named.leaves.next().filter(|leaf| *leaf < end);
        named
    }

    /// Goes on behind the leaf if it is the next.
    fn next_if(&mut self, leaf: u64) -> bool {
        if self.next != Some(leaf) {
            return false;
        }
        let next = self.leaves.by_ref().find(|next| *next != leaf);
        assert!(next.is_none_or(|next| next > leaf), "leaves are named in ascending order");
        self.next = next.filter(|next| *next < self.end);
        true
    }
}
