//! The volumes of a transaction: a table that is copied when it changes.

use crate::names::Namespace;
use crate::sealed::{SealedVolume, VolumeStore};
use crate::sync::Arc;

use super::record::Install;
use super::transaction::Version;
use crate::sealed::VolumeId;

/// Volumes by their ids. A volume that a snapshot's table has keeps its files.
#[derive(Clone, Debug, Default)]
pub(crate) struct VolumeTable {
    /// Ascending by id.
    volumes: Vec<Arc<SealedVolume>>,
}

impl VolumeTable {
    /// The volume of this id. A binary search.
    pub(crate) fn get(&self, id: VolumeId) -> Option<&Arc<SealedVolume>> {
        let place = self.volumes.binary_search_by_key(&id, |volume| volume.block().id).ok()?;
        Some(&self.volumes[place])
    }

    /// All volumes, by their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<SealedVolume>> {
        self.volumes.iter()
    }

    /// Adds a volume.
    pub(crate) fn restore(&mut self, volume: Arc<SealedVolume>) {
        if let Err(place) = self.volumes.binary_search_by_key(&volume.block().id, |volume| volume.block().id)
        {
            self.volumes.insert(place, volume);
        }
    }

    /// Adds the volume of an install, for the transaction of version `at`. With the last slice those whose place it takes leave: no head names
    /// them any more.
    pub(crate) fn install(
        &mut self,
        install: &Install,
        at: Version,
        store: &VolumeStore,
        namespace: &Namespace,
    ) {
        let new = &install.volume;
        if !new.is_empty
            && let Err(place) = self.volumes.binary_search_by_key(&new.id, |volume| volume.block().id)
        {
            self.volumes.insert(place, store.volume(*new, namespace));
        }
        if install.is_last {
            let is_replaced = |old: &SealedVolume| {
                let old = old.block();
                old.id != new.id
                    && (old.namespace, old.shard) == (new.namespace, new.shard)
                    && new.cover.contains(old.cover)
            };
            self.volumes.retain(|volume| {
                let replaced = is_replaced(volume);
                if replaced {
                    volume.supersede(at);
                }
                !replaced
            });
        }
    }
}
