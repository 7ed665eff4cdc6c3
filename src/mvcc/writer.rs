//! The right to make the next transaction, and what it is made of. Behind the writer's lock, the first in the order of locks.
//!
//! The tree under construction is ahead of the published one only while a publication is in its critical section (`design/concurrency.md`).

use crate::names::{MetricId, Namespace};
use crate::sealed::{SealedVolume, VolumeId};
use crate::sync::{Arc, count, make_mut};

use super::base::{BaseRef, SealedBlock};
use super::commit::Core;
use super::lane::Change;
use super::metric_tree::MetricTree;
use super::partition_map::PartitionMap;
use super::record::Command;
use super::transaction::{Meta, Token, Transaction, Version};
use super::volumes::VolumeTable;

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    /// The tree under construction.
    pub(super) metrics: MetricTree,
    namespaces: Arc<Vec<Namespace>>,
    volumes: Arc<VolumeTable>,
    meta: Arc<Meta>,
    /// Tokens of transactions that are or were published, oldest first.
    pub(super) tokens: Vec<(Version, Arc<Token>)>,
    /// Of the metric that was last changed.
    gone: Gone,
    /// Only for [`Bug::RetainTransactions`].
    pub(super) retained: Vec<Arc<Transaction>>,
    /// Only for [`Bug::ChangesInOneList`].
    pub(super) listed: Vec<Change>,
}

impl Writer {
    /// For an empty database, whose first transaction has this token.
    pub(super) fn new(default: Option<Namespace>, token: Arc<Token>) -> Self {
        Writer {
            metrics: MetricTree::default(),
            namespaces: Arc::new(default.into_iter().collect()),
            volumes: Arc::default(),
            meta: Arc::default(),
            tokens: vec![(Version(0), token)],
            gone: Gone::default(),
            retained: Vec::new(),
            listed: Vec::new(),
        }
    }

    /// Sets or removes the map of a metric in the tree under construction. Volumes are told which blocks it does not have any more.
    pub(super) fn set(&mut self, metric: MetricId, map: Option<Arc<PartitionMap>>, version: Version) {
        let base = map.as_ref().map(|map| map.base().clone()).unwrap_or_default();
        let Some(old) = self.metrics.set(metric, map, version) else { return };
        if old.base().is(&base) {
            return;
        }
        // Metrics share bases, and an install has the same happen to a million of them.
        if !self.gone.is_of(old.base(), &base) {
            self.gone = Gone::between(old.base(), &base);
        }
        for volume in &self.gone.volumes {
            self.volumes.get(*volume).into_iter().for_each(|volume| volume.note_gone());
        }
    }

    pub(super) fn transaction(&self, version: Version, token: Arc<Token>) -> Arc<Transaction> {
        Arc::new(Transaction {
            version,
            metrics: self.metrics.clone(),
            namespaces: self.namespaces.clone(),
            volumes: self.volumes.clone(),
            meta: self.meta.clone(),
            token,
            #[cfg(loom)]
            witness: std::sync::Arc::default(),
        })
    }

    pub(super) fn apply_global(&mut self, command: Command<'_>, version: Version, core: &Core) {
        match command {
            Command::Namespace { id, .. } => {
                if let Some(namespace) = core.names.namespace_by_id(id)
                    && !self.namespaces.contains(&namespace)
                {
                    make_mut(&mut self.namespaces).push(namespace);
                }
            }
            Command::PutMeta { key, value } => {
                make_mut(&mut self.meta).insert(key.into(), value.into());
            }
            Command::RemoveMeta { key } => {
                make_mut(&mut self.meta).remove(key);
            }
            Command::Install(install) => {
                let namespace = core.names.namespace_by_id(install.volume.namespace);
                if let (Some(store), Some(namespace)) = (core.volumes(), namespace) {
                    make_mut(&mut self.volumes).install(&install, version, store, &namespace);
                }
            }
            _ => {}
        }
    }

    /// Puts back a volume that a checkpoint had.
    pub(super) fn restore_volume(&mut self, volume: Arc<SealedVolume>) {
        make_mut(&mut self.volumes).restore(volume);
    }

    /// Forgets the tokens of dead transactions and returns the versions of the living. `retired` was just replaced; of its references
    /// `own` are not readers.
    pub(super) fn sweep_tokens(&mut self, retired: &Arc<Transaction>, own: usize) -> Vec<Version> {
        self.tokens.retain(|(version, token)| match *version == retired.version {
            // Whoever made a list of what he read holds the token longer than the transaction. In this order: he takes it first.
            true => count(retired) > own || count(token) > 2,
            false => count(token) > 1,
        });
        self.tokens.iter().map(|(version, _)| *version).collect()
    }
}

/// The volumes that a metric does not name any more when it goes over from one base to another, and that no other takes the place of.
#[derive(Debug, Default)]
struct Gone {
    from: BaseRef,
    to: BaseRef,
    volumes: Vec<VolumeId>,
}

impl Gone {
    fn between(from: &BaseRef, to: &BaseRef) -> Self {
        let is_gone = |block: &&SealedBlock| to.around(block.cover.first).1.is_none();
        let volumes = from.blocks().iter().filter(is_gone).map(|block| block.volume).collect();
        Gone { from: from.clone(), to: to.clone(), volumes }
    }

    fn is_of(&self, from: &BaseRef, to: &BaseRef) -> bool {
        self.from.is(from) && self.to.is(to)
    }
}
