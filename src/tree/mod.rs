//! Trees: arrays of entries of one size, in the pages of one file, copied where they change.
//!
//! A tree is a [`Root`] and a [`Shape`]; a [`PageFile`] has the pages of many. Who calls decides what an entry is, keeps the roots
//! and makes them durable in a place of its own, which knows at most two sets of them: the newest, and the one before.
//!
//! What it guarantees
//! * A tree reads back as the array it was changed into. What a root named stays readable until its pages are given up by a change or
//!   a removal, and that was [committed](PageFile::commit).
//! * A change that fails changes nothing.
//! * A page in use whose bytes are not those that were written is [`Error::Corrupt`] where it is read, also if it is a whole page of
//!   another place or time.
//! * Pages that are not in use are used again, the lowest first.
//!
//! What it relies on: the four sentences of [`crate::io`], and that every tree is [loaded](PageFile::load) before the first change: which
//! pages are free is not written.
//!
//! Parts: `page` (bytes), `extent` (which page has what), `space` (free pages), `file`, `load` (reading), `change` (writing). Format:
//! `design/trees.md`.

use std::path::Path;

use crate::error::Error;

mod change;
mod extent;
mod file;
mod load;
mod page;
mod salvage;
mod space;
#[cfg(test)]
mod tests;

pub(crate) use extent::Shape;
pub(crate) use file::PageFile;
pub(crate) use page::CONTENT_BYTES;
pub(crate) use salvage::LostEntries;

use page::Child;

/// The folder of the page file in the database's.
pub(crate) const FOLDER: &str = "trees";
/// The page file's name in it.
pub(crate) const FILE: &str = "pages";

/// What a tree is known by. [`Root::default`] is the tree without entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Root {
    /// The number of its topmost page; 0 if no entry is there.
    pub(crate) page: u32,
    /// That page's checksum.
    pub(crate) crc: u32,
    /// The number of entries, absent ones included.
    pub(crate) entries: u64,
}

impl Root {
    fn new(child: Child, entries: u64) -> Self {
        Root { page: child.page, crc: child.crc, entries }
    }

    fn child(self) -> Child {
        Child { page: self.page, crc: self.crc }
    }
}

fn corrupt(path: &Path, offset: u64, reason: &'static str) -> Error {
    Error::Corrupt { format: "page file", path: path.to_owned(), offset, metric: None, reason }
}
