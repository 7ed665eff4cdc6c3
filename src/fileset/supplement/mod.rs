//! The supplement: what chronolith knows of a volume beside M3's seven files.
//!
//! A table `MetricId -> stream` with statistics of each stream, and the lengths and CRC-32 of the seven files, in a file of its own.
//!
//! Invariants
//! * A supplement is used only beside the files it was written for: its record of the digest file, which vouches for
//!   all others, tells.
//! * Of the table only pages that are touched are read, each checked the first time.
//! * Damage of it concerns lookups by metric id and statistics, never what is read by name.
//!
//! Parts: `format` (head, directory, file sums), `page` (pages of the table), `statistics`; `builder` writes,
//! `contents` reads a whole file, `handle` is what a [`Volume`](super::Volume) gives out. Format:
//! `design/supplement.md`.

mod builder;
mod contents;
mod fields;
mod format;
mod handle;
mod page;
mod statistics;

pub(super) use builder::{Numbered, SupplementBuilder};
pub(super) use contents::{Contents, Witness};
pub(super) use format::{FILES, Fault, FileSum};

pub use format::{SupplementSpec, read_supplement_spec};
pub use handle::{MetricEntries, Supplement};
pub use page::MetricEntry;
pub use statistics::{Numbers, Statistics};
