//! The transactional core: many writers, readers that never wait, one cut of all metrics.
//!
//! * [`transaction`]: the immutable root that snapshots refer to; [`metric_tree`] and [`partition_map`], its copy-on-write parts.
//! * [`base`]: the sealed blocks that metrics share.
//! * [`partition`]: the points of one metric in memory, behind a lock, with [`stream`], [`side`] and its
//!   [`side_reader`], [`tombstones`] and [`marks`].
//! * [`record`] and [`staging`]: changes as bytes, before a commit and in the log.
//! * [`lane`], [`slots`], [`head`], [`commit`] and [`writer`]: how changes are ordered, applied, made durable and published.
//! * [`budget`]: how much memory commits on their way may take; [`memory`], how much partitions do.
//! * [`reads`]: what a checked transaction read, and whether that is still so.
//! * [`sealing`]: the commits that put volumes in the place of what is in memory; [`volumes`], the table of them.
//! * [`restore`] and [`replay`]: the same state from a checkpoint, and from the log behind it.
//!
//! It relies on nobody else changing what it published, and on a [`commit::Journal`] that keeps its promises. It knows no files,
//! clocks, threads or options. The protocol: `design/concurrency.md`.

pub(crate) mod base;
mod budget;
pub(crate) mod commit;
mod head;
pub(crate) mod lane;
pub(crate) mod marks;
pub(crate) mod memory;
pub(crate) mod metric_tree;
pub(crate) mod partition;
pub(crate) mod partition_map;
pub(crate) mod reads;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod restore;
pub(crate) mod sealing;
pub(crate) mod side;
pub(crate) mod side_reader;
mod slots;
pub(crate) mod staging;
pub(crate) mod stream;
pub(crate) mod tombstones;
pub(crate) mod transaction;
pub(crate) mod volumes;
pub(crate) mod window;
mod writer;
