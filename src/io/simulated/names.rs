//! The names of a simulated disk: what programs see, what the disk has, and the changes between the two.
//!
//! A folder's changes become durable in order: after a power cut a folder has some first part of them, and a rename from one
//! folder to another has happened in both or in neither.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cut::CutState;
use super::file::SimulatedFile;
use super::random::Random;
use crate::io::tree::{FolderId, NameChange, Tree};

pub(super) type FileTree = Tree<Arc<SimulatedFile>>;
pub(super) type FileNameChange = NameChange<Arc<SimulatedFile>>;

/// Names, seen and durable.
#[derive(Debug)]
pub(super) struct Names {
    /// What programs see.
    pub(super) seen: FileTree,
    /// What a power cut leaves for certain. Folders may be in it before their own name is, and are lost then.
    durable: FileTree,
    /// What happened since, in order.
    unsynced: Vec<FileNameChange>,
}

impl Names {
    /// Names that are all durable.
    pub(super) fn durable(tree: FileTree) -> Self {
        Names { seen: tree.clone(), durable: tree, unsynced: Vec::new() }
    }

    pub(super) fn change(&mut self, change: FileNameChange) {
        self.seen.apply(&change);
        self.unsynced.push(change);
    }

    /// The folder was synced: its changes become durable, and if one is a rename from or to another folder, that folder's
    /// earlier changes too, on which the rename rests.
    pub(super) fn make_durable(&mut self, folder: FolderId) {
        let mut folders = BTreeSet::from([folder]);
        let mut durable = vec![false; self.unsynced.len()];
        for (change, durable) in self.unsynced.iter().zip(&mut durable).rev() {
            if change.folders().any(|folder| folders.contains(&folder)) {
                folders.extend(change.folders());
                *durable = true;
            }
        }
        let mut durable = durable.into_iter();
        self.unsynced.retain(|change| {
            let durable = durable.next() == Some(true);
            if durable {
                self.durable.apply(change);
            }
            !durable
        });
    }

    /// The names that the disk could have after a power cut.
    pub(super) fn after_power_cut(&self, cut: CutState, random: &mut Random) -> FileTree {
        match cut {
            CutState::None | CutState::BytesOnly => self.durable.clone(),
            CutState::All | CutState::NamesOnly | CutState::Short | CutState::Garbage => self.seen.clone(),
            CutState::Random => self.random_changes(random),
        }
    }

    /// The durable names with a random first part of each folder's changes.
    fn random_changes(&self, random: &mut Random) -> FileTree {
        let mut left: BTreeMap<FolderId, u64> = BTreeMap::new();
        for folder in self.unsynced.iter().flat_map(NameChange::folders) {
            *left.entry(folder).or_default() += 1;
        }
        left.values_mut().for_each(|count| *count = random.below(*count + 1));
        let mut tree = self.durable.clone();
        for change in &self.unsynced {
            let happens = change.folders().all(|folder| left.get(&folder).is_some_and(|count| *count > 0));
            for folder in change.folders() {
                // What did not happen ends the first part of all folders that it concerns.
                left.entry(folder).and_modify(|count| *count = if happens { *count - 1 } else { 0 });
            }
            if happens {
                tree.apply(change);
            }
        }
        tree
    }
}
