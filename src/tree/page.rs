//! The bytes of a page: `design/trees.md`, "Bytes of a page".

use crate::commitlog::{DatabaseId, le_u32, le_u64};

/// Bytes of a page.
pub(super) const PAGE_BYTES: usize = 4096;
/// Bytes of a page's entries or children.
pub(crate) const CONTENT_BYTES: usize = PAGE_BYTES - CONTENT_AT;
/// Children of an inner page.
pub(super) const FAN_OUT: usize = CONTENT_BYTES / CHILD_BYTES;
/// Bytes of a child in its inner page.
pub(super) const CHILD_BYTES: usize = 8;
/// The format version of the files written here.
pub(super) const FORMAT_VERSION: u32 = 1;

const CONTENT_AT: usize = 16;
const MAGIC: [u8; 8] = *b"CHRONOTR";
const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

const _: () = assert!(CONTENT_BYTES == 4080 && FAN_OUT == 510 && CONTENT_BYTES == FAN_OUT * CHILD_BYTES);

/// A page as it is in the file.
pub(super) type Page = [u8; PAGE_BYTES];
/// A page's entries or children, with the zeros behind them.
pub(super) type Content = [u8; CONTENT_BYTES];

/// What a page says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which tree it belongs to; 0 for page 0 of the file.
    pub(super) kind: u8,
    /// 0 for a leaf.
    pub(super) level: u8,
    /// Which page of its level.
    pub(super) index: u64,
}

impl Place {
    const HEAD: Place = Place { kind: 0, level: 0, index: 0 };
}

/// Which page is below, and that page's checksum. A [hole](Child::HOLE) if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) page: u32,
    pub(super) crc: u32,
}

impl Child {
    /// All entries below are absent.
    pub(super) const HOLE: Child = Child { page: 0, crc: 0 };

    pub(super) fn is_hole(self) -> bool {
        self == Child::HOLE
    }
}

/// Makes a page of a place and its content.
pub(super) fn encode(place: Place, content: &Content) -> (Page, u32) {
    let mut page = ZEROS;
    page[4] = place.kind;
    page[5] = place.level;
    page[8..16].copy_from_slice(&place.index.to_le_bytes());
    page[CONTENT_AT..].copy_from_slice(content);
    let crc = crc32fast::hash(&page[4..]);
    page[..4].copy_from_slice(&crc.to_le_bytes());
    (page, crc)
}

/// The content of a page that must be the one of that place with that checksum, and zeros from `used` bytes on.
pub(super) fn decode(page: &Page, place: Place, crc: u32, used: usize) -> Result<&Content, &'static str> {
    let (said, content) = check(page, place)?;
    if said != crc {
        return Err("it is not the page that was written here last");
    }
    if content.get(used..).is_some_and(|rest| !is_zero(rest)) {
        return Err("there is something behind its last entry");
    }
    Ok(content)
}

/// The checksum and the content of a page that must be of that place.
fn check(page: &Page, place: Place) -> Result<(u32, &Content), &'static str> {
    let crc = le_u32(page, 0);
    if crc != crc32fast::hash(&page[4..]) {
        return Err("the page's checksum differs");
    }
    if (Place { kind: page[4], level: page[5], index: le_u64(page, 8) }) != place {
        return Err("it is a page of another place");
    }
    if page[6..8] != [0; 2] {
        return Err("reserved bytes are not zero");
    }
    match page.last_chunk() {
        Some(content) => Ok((crc, content)),
        None => Err("it is shorter than a page"),
    }
}

/// Why page 0 is not that of this database.
#[derive(Debug)]
pub(super) enum HeadError {
    /// What is wrong, and at which offset.
    Damaged(u64, &'static str),
    /// A format version that is not known here.
    Newer(u32),
}

/// Makes page 0.
pub(super) fn encode_head(database_id: &DatabaseId) -> Page {
    let mut content = [0; CONTENT_BYTES];
    content[..8].copy_from_slice(&MAGIC);
    content[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    content[12..28].copy_from_slice(database_id);
    encode(Place::HEAD, &content).0
}

/// Checks page 0.
pub(super) fn check_head(page: &Page, database_id: &DatabaseId) -> Result<(), HeadError> {
    use HeadError::{Damaged, Newer};
    if page[CONTENT_AT..CONTENT_AT + 8] != MAGIC {
        return Err(Damaged(16, "the magic number differs"));
    }
    let (_, content) = check(page, Place::HEAD).map_err(|reason| Damaged(0, reason))?;
    match le_u32(content, 8) {
        FORMAT_VERSION => {}
        0 => return Err(Damaged(24, "format version 0")),
        newer => return Err(Newer(newer)),
    }
    if content[12..28] != *database_id {
        return Err(Damaged(28, "belongs to another database"));
    }
    if !is_zero(&content[28..]) {
        return Err(Damaged(44, "reserved bytes are not zero"));
    }
    Ok(())
}

/// A child of an inner page.
pub(super) fn child(content: &Content, number: usize) -> Child {
    let bytes = content.as_chunks::<CHILD_BYTES>().0.get(number).copied().unwrap_or_default();
    let both = u64::from_le_bytes(bytes);
    Child { page: both as u32, crc: (both >> 32) as u32 }
}

/// Sets a child of an inner page.
pub(super) fn set_child(content: &mut Content, number: usize, child: Child) {
    if let Some(bytes) = content.as_chunks_mut::<CHILD_BYTES>().0.get_mut(number) {
        *bytes = (u64::from(child.page) | u64::from(child.crc) << 32).to_le_bytes();
    }
}

/// Whether all of at most a page's bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    ZEROS.get(..bytes.len()).is_some_and(|zeros| bytes == zeros)
}
