//! What is wrong with a file, before it is known which file it is.

use std::path::Path;

use crate::error::Error;

/// The format's name in errors.
const FORMAT: &str = "fileset volume";

/// A place in a file at which something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) offset: u64,
    pub(crate) reason: &'static str,
}

impl Damage {
    pub(crate) fn at(offset: usize, reason: &'static str) -> Self {
        Damage { offset: offset as u64, reason }
    }

    /// As the crate's error.
    pub(super) fn of(self, path: &Path) -> Error {
        self.of_stream(path, None)
    }

    /// The same of a metric's stream.
    pub(crate) fn of_stream(self, path: &Path, metric: Option<Box<str>>) -> Error {
        let Damage { offset, reason } = self;
        Error::Corrupt { format: FORMAT, path: path.to_owned(), offset, metric, reason }
    }
}

/// A metric's ID in errors.
pub(super) fn text(id: &[u8]) -> Box<str> {
    id.escape_ascii().to_string().into()
}
