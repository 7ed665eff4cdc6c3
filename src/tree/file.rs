//! The file that has the pages of all trees of a database.

use std::io;
use std::path::{Path, PathBuf};

use super::extent::Extent;
use super::page::{self, Child, Content, FORMAT_VERSION, HeadError, PAGE_BYTES, Page};
use super::space::Space;
use super::{FILE, FOLDER, Root, corrupt};
use crate::commitlog::DatabaseId;
use crate::error::{Error, Result};
use crate::io::{Vfs, VfsFile};

/// The pages of all trees of a database. One owner.
///
/// A checkpoint [changes](PageFile::change) trees, [syncs](PageFile::sync), makes the new roots durable elsewhere, and then
/// [commits](PageFile::commit), or, if no place names them, [abandons](PageFile::abandon). If that is not known it does neither: the
/// next one that is committed frees what both gave up.
#[derive(Debug)]
pub(crate) struct PageFile {
    pub(super) file: Box<dyn VfsFile>,
    path: PathBuf,
    pub(super) space: Space,
    /// The file's length in pages, or more if a write failed.
    pages: u64,
    pub(super) written: u64,
}

impl PageFile {
    /// Makes the folder and the file, durable in bytes and names. What an earlier attempt left is replaced.
    ///
    /// `dir` is the database's folder. Cost: 3 syncs.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn create(disk: &dyn Vfs, dir: &Path, database_id: &DatabaseId) -> Result<Self> {
        let folder = dir.join(FOLDER);
        let path = folder.join(FILE);
        disk.create_dir_all(&folder)?;
        disk.remove(&path)?;
        let file = disk.create(&path)?;
        file.write_at(0, &page::encode_head(database_id))?;
        file.sync()?;
        disk.sync_dir(&folder)?;
        disk.sync_dir(dir)?;
        Ok(PageFile { file, path, space: Space::new(), pages: 1, written: 0 })
    }

    /// Opens the file. No page counts as in use before the tree it belongs to is [loaded](PageFile::load).
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is no file, or its page 0 is not that of this database. [`Error::NewerFormat`]. [`Error::Io`].
    pub(crate) fn open(disk: &dyn Vfs, dir: &Path, database_id: &DatabaseId, write: bool) -> Result<Self> {
        let path = dir.join(FOLDER).join(FILE);
        let Some(file) = disk.open(&path, write)? else {
            return Err(corrupt(&path, 0, "the file is missing"));
        };
        let pages = file.len()?.div_ceil(PAGE_BYTES as u64);
        let file = PageFile { file, path, space: Space::new(), pages, written: 0 };
        let mut head = [0; PAGE_BYTES];
        file.read_at(0, &mut head)?;
        match page::check_head(&head, database_id) {
            Ok(()) => Ok(file),
            Err(HeadError::Damaged(offset, reason)) => Err(corrupt(&file.path, offset, reason)),
            Err(HeadError::Newer(found)) => {
                Err(Error::NewerFormat { path: file.path, found, supported: FORMAT_VERSION })
            }
        }
    }

    /// Opens the file to [salvage](PageFile::salvage) trees: page 0 is not looked at. `None` if there is no file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn open_damaged(disk: &dyn Vfs, dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FOLDER).join(FILE);
        let Some(file) = disk.open(&path, false)? else { return Ok(None) };
        let pages = file.len()?.div_ceil(PAGE_BYTES as u64);
        Ok(Some(PageFile { file, path, space: Space::new(), pages, written: 0 }))
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// [`Error::Io`]. Then what was changed since the last commit is to be abandoned.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync()
    }

    /// No place names the roots from before the changes any more: the pages that these gave up are free. The file is cut behind its last
    /// page in use, if that works.
    pub(crate) fn commit(&mut self) {
        self.space.commit();
        self.cut();
    }

    /// No place names, nor will, a root that was made since the last commit: the pages written for them are free, and those given up are
    /// in use as before. The file is cut behind its last page in use, if that works.
    pub(crate) fn abandon(&mut self) {
        self.space.abandon();
        self.cut();
    }

    /// How many pages were written since the file was opened.
    pub(crate) fn pages_written(&self) -> u64 {
        self.written
    }

    /// How long the file is, in pages.
    #[cfg(test)]
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    fn cut(&mut self) {
        let end = self.space.end();
        if end < self.pages && self.file.set_len(offset_of(end)).is_ok() {
            self.pages = end;
        }
    }

    /// Writes pages that lie side by side.
    pub(super) fn write(&mut self, first: u32, bytes: &[u8]) -> Result<()> {
        let count = (bytes.len() / PAGE_BYTES) as u64;
        self.pages = self.pages.max(u64::from(first) + count);
        self.file.write_at(offset_of(first.into()), bytes)?;
        self.written += count;
        Ok(())
    }

    /// Reads pages that lie side by side.
    pub(super) fn read_at(&self, first: u32, bytes: &mut [u8]) -> Result<()> {
        let offset = offset_of(first.into());
        let len = self.file.read_at(offset, bytes)?;
        if len < bytes.len() {
            // The first page that is not whole.
            let whole = (len / PAGE_BYTES * PAGE_BYTES) as u64;
            return Err(corrupt(&self.path, offset + whole, "the file ends before the page does"));
        }
        Ok(())
    }

    /// Reads and checks a page of a tree.
    pub(super) fn read(&self, extent: Extent, level: u8, index: u64, child: Child) -> Result<Content> {
        let mut page = [0; PAGE_BYTES];
        self.read_at(child.page, &mut page)?;
        self.content(&page, extent, level, index, child).copied()
    }

    /// Checks a page of a tree that was read.
    pub(super) fn content<'a>(
        &self,
        page: &'a Page,
        extent: Extent,
        level: u8,
        index: u64,
        child: Child,
    ) -> Result<&'a Content> {
        page::decode(page, extent.shape.place(level, index), child.crc, extent.used(level, index))
            .map_err(|reason| self.corrupt_page(child.page, reason))
    }

    /// Damage of a tree whose pages are sound: what they say cannot be.
    pub(crate) fn damaged(&self, root: Root, reason: &'static str) -> Error {
        self.corrupt_page(root.page, reason)
    }

    /// Damage of a page.
    pub(super) fn corrupt_page(&self, page: u32, reason: &'static str) -> Error {
        corrupt(&self.path, offset_of(page.into()), reason)
    }

    /// All numbers of pages are taken.
    pub(super) fn full(&self) -> Error {
        Error::io("write", &self.path, io::ErrorKind::StorageFull.into())
    }
}

fn offset_of(page: u64) -> u64 {
    page * PAGE_BYTES as u64
}
