//! The immutable root that a snapshot is a reference to.

use std::collections::BTreeMap;

use crate::names::{MetricId, Namespace};
use crate::sync::Arc;

use super::metric_tree::MetricTree;
use super::partition_map::PartitionMap;
use super::volumes::VolumeTable;

/// A commit's sequence number in the log: 1, 2, 3, ... Version 0 is the empty database.
///
/// A power cut may lose commits that were never durable; their numbers are then used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub(crate) u64);

impl Version {
    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn next(self) -> Self {
        Version(self.0 + 1)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// User metadata: a small map, copied when it changes.
pub(crate) type Meta = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// The state after all commits up to a version. Never changed once published.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) version: Version,
    /// For each live metric its partition map.
    pub(crate) metrics: MetricTree,
    pub(crate) namespaces: Arc<Vec<Namespace>>,
    /// The volumes that the maps name.
    pub(crate) volumes: Arc<VolumeTable>,
    pub(crate) meta: Arc<Meta>,
    /// Alive as long as this transaction is: see [`Token`].
    pub(crate) token: Arc<Token>,
    /// Lets a model see when this is freed.
    #[cfg(loom)]
    pub(crate) witness: std::sync::Arc<()>,
}

/// What the publisher keeps of a retired transaction: a reference count that tells whether anybody can still read it. It keeps
/// the token and never the transaction, so that the last reader really frees the transaction, in its own thread.
#[derive(Debug)]
pub(crate) struct Token;

impl Transaction {
    /// The map of a metric; `None` if the metric does not exist here.
    pub(crate) fn map(&self, metric: MetricId) -> Option<&Arc<PartitionMap>> {
        self.metrics.get(metric)
    }
}
