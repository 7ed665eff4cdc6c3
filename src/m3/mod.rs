//! M3DB's own data directories, read where they lie: what a node of M3 has flushed, snapshotted and logged. Usable without a database.
//!
//! [`Directory`] says what is there and what of it counts; [`Plan`] is the order in which a reader merges it, as M3 does when it
//! starts, unless a log lost something. [`read_volume`] returns the points of a volume ([`fileset`](crate::fileset)), [`CommitLog`] the entries of a log,
//! [`SnapshotMetadata`] what completes a snapshot.
//!
//! What it guarantees
//! * Nothing is written, renamed or removed.
//! * What is read was checked before. Damage is [`Error::Corrupt`](crate::Error::Corrupt) with file and offset, never wrong points and
//!   never a panic, and it ends no more than it must: a stream, a volume, the rest of a log.
//! * Lengths are compared with what is left before they are used. Memory holds one mapped volume or log, a portion of a stream, and the
//!   names of the metrics of one log.
//!
//! What it relies on: no node of M3 has the directory open. Nothing here locks.
//!
//! Parts: `payload` (chunks and records of a log), `commit_log` (its entries), `metadata` (of snapshots), `directory` (what lies where), `plan` (what counts, in which
//! order), `points` (the points of a volume). Format: `design/m3-directory.md`.

mod commit_log;
mod directory;
mod metadata;
mod payload;
mod plan;
mod points;

pub use commit_log::{CommitLog, LogEntries, LogEntry, LogSeries};
pub use directory::{Directory, LogFile, NamespaceFolder, ShardFolder, VolumeKind, VolumePlace};
pub use metadata::SnapshotMetadata;
pub use plan::Plan;
pub use points::{Piece, StreamPoint, read_volume};
