//! What is wrong with a file, before it is known which file it is.

use std::path::Path;

use crate::error::Error;

/// The format's name in errors.
const FORMAT: &str = "fileset volume";

/// A place in a file at which something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) offset: u64,
    pub(super) reason: &'static str,
}

impl Damage {
    pub(super) fn at(offset: usize, reason: &'static str) -> Self {
        Damage { offset: offset as u64, reason }
    }

    /// As the crate's error.
    pub(super) fn of(self, path: &Path) -> Error {
        Error::Corrupt { format: FORMAT, path: path.to_owned(), offset: self.offset, reason: self.reason }
    }
}
