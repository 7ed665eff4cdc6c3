//! The bytes of a simulated file, in pages that copies share.
//!
//! Invariants
//! * There are `len / PAGE` pages, rounded up; a page that was never written is `None` and reads as zeros.
//! * The bytes of the last page past `len` are zeros.
//!
//! A clone costs nothing, a change of a clone costs the table of pages (once) and the pages it touches. That makes
//! tens of thousands of disks that differ by a few writes affordable, and so do hashes that are remembered.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use xxhash_rust::xxh64::xxh64;

/// Bytes in a page.
const PAGE: usize = 4096;
/// The longest simulated file: its table of pages takes 128 MiB.
const LEN_MAX: u64 = 64 << 30;
const HASH_SEED: u64 = 0;

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content(Arc<Table>);

/// The pages of a content.
#[derive(Debug, Default)]
struct Table {
    len: u64,
    pages: Vec<Option<Arc<Page>>>,
    /// The hash of all of it, 0 before it is asked for.
    hash: AtomicU64,
}

impl Clone for Table {
    /// For a change, which the hash would not survive.
    fn clone(&self) -> Self {
        Table { len: self.len, pages: self.pages.clone(), hash: AtomicU64::new(0) }
    }
}

#[derive(Debug)]
struct Page {
    /// The hash of the bytes, 0 before it is asked for.
    hash: AtomicU64,
    bytes: [u8; PAGE],
}

impl Clone for Page {
    /// For a change, which the hash would not survive.
    fn clone(&self) -> Self {
        Page { hash: AtomicU64::new(0), bytes: self.bytes }
    }
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.0.len
    }

    /// `FileTooLarge` if a file cannot have this length.
    pub(super) fn check_len(len: u64) -> io::Result<()> {
        if len <= LEN_MAX { Ok(()) } else { Err(io::ErrorKind::FileTooLarge.into()) }
    }

    /// Reads what there is from `offset` on, at most a buffer full.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let read = self.0.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        for piece in pieces(offset, read) {
            let target = &mut buffer[piece.at..piece.at + piece.len];
            match self.0.pages.get(piece.page).and_then(Option::as_ref) {
                Some(page) => target.copy_from_slice(&page.bytes[piece.from..piece.from + piece.len]),
                None => target.fill(0),
            }
        }
        read
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.0.len as usize];
        self.read_at(0, &mut bytes);
        bytes
    }

    /// Writes bytes, after growing the content to hold them. None are nothing, wherever they are.
    pub(super) fn write_at(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.grow(offset + bytes.len() as u64);
        let pages = &mut self.table().pages;
        for piece in pieces(offset, bytes.len()) {
            let page = writable(&mut pages[piece.page]);
            page[piece.from..piece.from + piece.len].copy_from_slice(&bytes[piece.at..piece.at + piece.len]);
        }
    }

    /// Adds zeros up to `len`, if it is shorter.
    pub(super) fn grow(&mut self, len: u64) {
        if len > self.len() {
            self.set_len(len);
        }
    }

    /// Cuts to `len`, or adds zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        let table = self.table();
        table.pages.resize(len.div_ceil(PAGE as u64) as usize, None);
        let used = (len % PAGE as u64) as usize;
        if len < table.len
            && used > 0
            && let Some(last @ Some(_)) = table.pages.last_mut()
        {
            writable(last)[used..].fill(0);
        }
        table.len = len;
    }

    /// Equal for equal bytes; of differing ones one pair in 2^64 has it in common.
    pub(super) fn hash(&self) -> u64 {
        remembered(&self.0.hash, || {
            let mut hashes = Vec::with_capacity(8 * (self.0.pages.len() + 1));
            hashes.extend(self.0.len.to_le_bytes());
            for page in &self.0.pages {
                let hash = page.as_ref().map_or_else(
                    || *ZERO_PAGE_HASH,
                    |page| remembered(&page.hash, || xxh64(&page.bytes, HASH_SEED)),
                );
                hashes.extend(hash.to_le_bytes());
            }
            xxh64(&hashes, HASH_SEED)
        })
    }

    /// The pages for a change.
    fn table(&mut self) -> &mut Table {
        let table = Arc::make_mut(&mut self.0);
        *table.hash.get_mut() = 0;
        table
    }
}

/// The number in `place`, computed if it is 0.
fn remembered(place: &AtomicU64, compute: impl FnOnce() -> u64) -> u64 {
    // Relaxed: a number that anybody would compute alike, from bytes that do not change while they are shared.
    match place.load(Ordering::Relaxed) {
        0 => {
            let number = compute();
            place.store(number, Ordering::Relaxed);
            number
        }
        number => number,
    }
}

static ZERO_PAGE_HASH: LazyLock<u64> = LazyLock::new(|| xxh64(&[0; PAGE], HASH_SEED));

/// The bytes of a page for a change: a page of its own, without a hash.
fn writable(slot: &mut Option<Arc<Page>>) -> &mut [u8; PAGE] {
    let page = slot.get_or_insert_with(|| Arc::new(Page { hash: AtomicU64::new(0), bytes: [0; PAGE] }));
    let page = Arc::make_mut(page);
    *page.hash.get_mut() = 0;
    &mut page.bytes
}

/// The part of a range of bytes that lies in one page.
struct Piece {
    page: usize,
    /// Where it begins in the page.
    from: usize,
    /// Where it begins in the range.
    at: usize,
    len: usize,
}

/// `len` bytes from `offset` on, page by page.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let position = offset + at as u64;
        let from = (position % PAGE as u64) as usize;
        let piece =
            Piece { page: (position / PAGE as u64) as usize, from, at, len: (PAGE - from).min(len - at) };
        at += piece.len;
        (piece.len > 0).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::simulated::random::Random;

    #[test]
    fn content_is_as_a_vector_would_be() {
        let mut random = Random::new(1);
        let mut vector: Vec<u8> = Vec::new();
        let mut content = Content::default();
        let mut older: Vec<(Content, Vec<u8>)> = Vec::new();
        for step in 0..2_000 {
            if random.chance(7) {
                let offset = random.below(3 * PAGE as u64);
                let mut bytes = vec![0; random.below(2 * PAGE as u64) as usize];
                random.fill(&mut bytes);
                content.write_at(offset, &bytes);
                let end = offset as usize + bytes.len();
                if !bytes.is_empty() {
                    vector.resize(vector.len().max(end), 0);
                    vector[offset as usize..end].copy_from_slice(&bytes);
                }
            } else {
                let len = random.below(5 * PAGE as u64);
                content.set_len(len);
                vector.resize(len as usize, 0);
            }
            assert_eq!(content.to_vec(), vector, "step {step}");
            if random.chance(1) {
                content.hash();
                older.push((content.clone(), vector.clone()));
            }
        }
        for (content, vector) in older {
            assert_eq!(content.to_vec(), vector);
            let mut copy = Content::default();
            copy.write_at(0, &vector);
            assert_eq!(copy.hash(), content.hash(), "the hash is that of the bytes, however they came about");
        }
    }

    #[test]
    fn change_of_a_clone_copies_only_what_it_touches() {
        let mut content = Content::default();
        content.write_at(0, &[1; 10 * PAGE]);
        let mut clone = content.clone();
        assert!(Arc::ptr_eq(&content.0, &clone.0));
        clone.write_at(3 * PAGE as u64 - 1, &[2; 2]);
        let pages = content.0.pages.iter().zip(&clone.0.pages);
        let shared: Vec<bool> =
            pages.map(|(a, b)| Arc::ptr_eq(a.as_ref().unwrap(), b.as_ref().unwrap())).collect();
        assert_eq!(shared, [true, true, false, false, true, true, true, true, true, true]);
    }

    #[test]
    fn hash_tells_lengths_and_bytes_apart() {
        let mut hashes = std::collections::BTreeSet::new();
        let mut content = Content::default();
        for len in [0, 1, 4095, 4096, 4097, 1 << 20] {
            content.set_len(len);
            assert!(hashes.insert(content.hash()), "{len}");
        }
        content.write_at(70_000, &[0]);
        assert!(!hashes.insert(content.hash()), "a written zero is a zero");
        content.write_at(70_000, &[1]);
        assert!(hashes.insert(content.hash()));
    }
}
