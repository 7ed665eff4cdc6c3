//! The metric tree: `MetricId -> PartitionMap`, copy-on-write.
//!
//! A radix tree over dense ids with 64 children to a node; its height follows from the highest id ever set and nothing else.
//! Cloning it costs one reference. Changing it copies the nodes on the path that somebody else can see; nodes that only the tree
//! under construction holds are changed in place. So a transaction costs the path of each metric that it changes, and metrics
//! that it does not change cost nothing.
//!
//! Each node has the version of its last change, so that a checkpoint passes over what it has written already. A node all of whose metrics are
//! gone is given back, and that version stands in its place: metrics that come and go leave nothing behind but a word for 64 of them, and less the more there were.

use crate::names::MetricId;
use crate::sync::{Arc, make_mut};

use super::partition_map::PartitionMap;
use super::transaction::Version;

/// Children of a node.
const FAN_OUT: usize = if cfg!(loom) { 4 } else { 64 };
/// `FAN_OUT` is two to this power.
const BITS: u32 = FAN_OUT.trailing_zeros();

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct MetricTree {
    root: Option<Node>,
    /// Levels of inner nodes above the leaves.
    height: u32,
    /// Metrics in it.
    len: u64,
}

type Map = Arc<PartitionMap>;

/// A node; none where no id was ever set.
#[derive(Clone, Debug)]
enum Node {
    Inner(Arc<Slots<Node>>),
    Leaf(Arc<Slots<Map>>),
    /// In place of an inner node or a leaf all of whose ids are gone: the version at which the last of them went.
    Gone(Version),
}

// A slot of an inner node has one.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Option<Node>>() == 16);

/// What a node consists of.
#[derive(Clone, Debug)]
struct Slots<T> {
    slots: [Option<T>; FAN_OUT],
    /// The version that last changed anything here or below.
    changed: Version,
}

impl<T> Slots<T> {
    fn new(changed: Version) -> Self {
        Slots { slots: [const { None }; FAN_OUT], changed }
    }
}

impl MetricTree {
    /// The map of a metric.
    pub(crate) fn get(&self, metric: MetricId) -> Option<&Map> {
        if height_for(metric) > self.height {
            return None;
        }
        let mut node = self.root.as_ref()?;
        let mut level = self.height;
        loop {
            match node {
                Node::Inner(children) => node = children.slots[digit(metric, level)].as_ref()?,
                Node::Leaf(maps) => return maps.slots[digit(metric, 0)].as_ref(),
                Node::Gone(_) => return None,
            }
            level = level.saturating_sub(1);
        }
    }

    /// A tree of metrics, ascending by id, as the transaction of this version leaves it. As many calls of [`MetricTree::set`], in less time.
    pub(crate) fn of(metrics: impl Iterator<Item = (MetricId, Map)>, version: Version) -> Self {
        let mut tree = MetricTree::default();
        let mut leaves: Vec<(u32, Slots<Map>)> = Vec::new();
        for (metric, map) in metrics {
            let prefix = metric.0 >> BITS;
            tree.len += 1;
            tree.height = height_for(metric);
            if leaves.last().is_none_or(|(last, _)| *last != prefix) {
                debug_assert!(leaves.last().is_none_or(|(last, _)| *last < prefix));
                leaves.push((prefix, Slots::new(version)));
            }
            if let Some((_, leaf)) = leaves.last_mut() {
                leaf.slots[digit(metric, 0)] = Some(map);
            }
        }
        let leaves = leaves.into_iter().map(|(prefix, leaf)| (prefix, Node::Leaf(Arc::new(leaf))));
        let mut nodes: Vec<(u32, Node)> = leaves.collect();
        for _ in 0..tree.height {
            let mut parents: Vec<(u32, Slots<Node>)> = Vec::new();
            for (prefix, node) in nodes {
                let parent = prefix >> BITS;
                if parents.last().is_none_or(|(last, _)| *last != parent) {
                    parents.push((parent, Slots::new(version)));
                }
                if let Some((_, children)) = parents.last_mut() {
                    children.slots[prefix as usize % FAN_OUT] = Some(node);
                }
            }
            let parents = parents.into_iter().map(|(prefix, slots)| (prefix, Node::Inner(Arc::new(slots))));
            nodes = parents.collect();
        }
        debug_assert!(nodes.len() <= 1);
        tree.root = nodes.pop().map(|(_, root)| root);
        tree
    }

    /// Sets or, with `None`, removes the map of a metric, in the transaction of this version. Returns the one that it had.
    pub(crate) fn set(&mut self, metric: MetricId, map: Option<Map>, version: Version) -> Option<Map> {
        while self.height < height_for(metric) {
            if let Some(root) = self.root.take() {
                let mut children = Slots::new(version);
                children.slots[0] = Some(root);
                self.root = Some(Node::Inner(Arc::new(children)));
            }
            self.height += 1;
        }
        self.len += u64::from(map.is_some());
        let old = set(&mut self.root, self.height, metric, map, version);
        self.len -= u64::from(old.is_some());
        old
    }

    /// How many metrics it has.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Visits the leaves that changed after a version: the first id of each, and its slots. Passes over what did not change.
    pub(crate) fn changed_after(&self, version: Version, mut visit: impl FnMut(MetricId, &[Option<Map>])) {
        let mut stack: Vec<(&Node, u32, u32)> = self.root.iter().map(|root| (root, self.height, 0)).collect();
        while let Some((node, level, prefix)) = stack.pop() {
            match node {
                Node::Leaf(maps) if maps.changed > version => visit(MetricId(prefix << BITS), &maps.slots),
                Node::Inner(children) if children.changed > version => {
                    let below = children.slots.iter().enumerate().rev();
                    stack.extend(below.filter_map(|(i, child)| {
                        Some((child.as_ref()?, level - 1, prefix << BITS | i as u32))
                    }));
                }
                Node::Gone(changed) if *changed > version => {
                    let leaves = 1_u32 << (level * BITS);
                    let first = prefix << (level * BITS);
                    (first..first + leaves)
                        .for_each(|leaf| visit(MetricId(leaf << BITS), &[const { None }; FAN_OUT]));
                }
                Node::Inner(_) | Node::Leaf(_) | Node::Gone(_) => {}
            }
        }
    }

    /// All metrics, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (MetricId, &Map)> {
        let mut stack: Vec<(&Node, u32)> = self.root.iter().map(|root| (root, 0)).collect();
        let mut leaf = [].iter().enumerate();
        let mut leaf_prefix = 0;
        std::iter::from_fn(move || {
            loop {
                for (i, map) in leaf.by_ref() {
                    if let Some(map) = map {
                        return Some((MetricId(leaf_prefix | i as u32), map));
                    }
                }
                let (node, prefix) = stack.pop()?;
                match node {
                    Node::Leaf(maps) => (leaf, leaf_prefix) = (maps.slots.iter().enumerate(), prefix << BITS),
                    Node::Inner(children) => {
                        let below = children.slots.iter().enumerate().rev();
                        stack.extend(
                            below.filter_map(|(i, child)| Some((child.as_ref()?, prefix << BITS | i as u32))),
                        );
                    }
                    Node::Gone(_) => {}
                }
            }
        })
    }

    /// Nodes that take memory of their own.
    #[cfg(all(test, not(loom)))]
    fn nodes(&self) -> usize {
        let mut stack: Vec<&Node> = self.root.iter().collect();
        let mut nodes = 0;
        while let Some(node) = stack.pop() {
            nodes += usize::from(!matches!(node, Node::Gone(_)));
            if let Node::Inner(children) = node {
                stack.extend(children.slots.iter().flatten());
            }
        }
        nodes
    }
}

/// Sets or removes a map below a node, of which there may be none yet.
fn set(
    node: &mut Option<Node>,
    level: u32,
    metric: MetricId,
    map: Option<Map>,
    version: Version,
) -> Option<Map> {
    let removes = map.is_none();
    match node {
        // Nothing to remove.
        None | Some(Node::Gone(_)) if removes => return None,
        None => *node = Some(Node::empty(level, version)),
        // What a checkpoint does not know yet it must still learn.
        Some(Node::Gone(changed)) if level > 0 => {
            let slots = std::array::from_fn(|_| Some(Node::Gone(*changed)));
            *node = Some(Node::Inner(Arc::new(Slots { slots, changed: version })));
        }
        Some(Node::Gone(_)) => *node = Some(Node::empty(0, version)),
        Some(Node::Inner(_) | Node::Leaf(_)) => {}
    }
    let (old, is_gone) = match node {
        Some(Node::Inner(children)) => {
            let children = make_mut(children);
            children.changed = version;
            let old = set(&mut children.slots[digit(metric, level)], level - 1, metric, map, version);
            let is_gone = |child: &Option<Node>| matches!(child, Some(Node::Gone(_)));
            (old, removes && children.slots.iter().all(is_gone))
        }
        Some(Node::Leaf(maps)) => {
            let maps = make_mut(maps);
            maps.changed = version;
            let old = std::mem::replace(&mut maps.slots[digit(metric, 0)], map);
            (old, removes && maps.slots.iter().all(Option::is_none))
        }
        Some(Node::Gone(_)) | None => (None, false),
    };
    if is_gone {
        *node = Some(Node::Gone(version));
    }
    old
}

impl Node {
    fn empty(level: u32, version: Version) -> Self {
        match level {
            0 => Node::Leaf(Arc::new(Slots::new(version))),
            _ => Node::Inner(Arc::new(Slots::new(version))),
        }
    }
}

/// Levels of inner nodes that a tree needs to hold this id.
fn height_for(metric: MetricId) -> u32 {
    (u32::BITS - metric.0.leading_zeros()).max(1).div_ceil(BITS) - 1
}

/// Which child of a node at `level` leads to the id.
fn digit(metric: MetricId, level: u32) -> usize {
    (metric.0 as usize >> (level * BITS)) & (FAN_OUT - 1)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn map() -> Arc<PartitionMap> {
        Arc::new(PartitionMap::default())
    }

    #[test]
    fn height_follows_from_the_highest_id() {
        for (id, height) in [(0, 0), (63, 0), (64, 1), (4095, 1), (4096, 2), (262_144, 3), (u32::MAX, 5)] {
            assert_eq!(height_for(MetricId(id)), height, "{id}");
            let mut tree = MetricTree::default();
            tree.set(MetricId(id), Some(map()), Version(1));
            assert!(tree.get(MetricId(id)).is_some());
            assert_eq!(tree.iter().map(|(found, _)| found.0).collect::<Vec<_>>(), [id]);
        }
    }

    #[test]
    fn a_clone_keeps_what_it_saw() {
        let mut tree = MetricTree::default();
        tree.set(MetricId(5), Some(map()), Version(1));
        let old = tree.clone();
        tree.set(MetricId(5), None, Version(2));
        tree.set(MetricId(5_000), Some(map()), Version(2));
        assert!(old.get(MetricId(5)).is_some() && old.get(MetricId(5_000)).is_none());
        assert!(tree.get(MetricId(5)).is_none() && tree.get(MetricId(5_000)).is_some());
        assert_eq!((old.len(), tree.len()), (1, 1));
    }

    #[test]
    fn leaves_that_changed_after_a_version_are_found_and_no_others() {
        let mut tree = MetricTree::default();
        let changed = |tree: &MetricTree, version| {
            let mut first = Vec::new();
            tree.changed_after(Version(version), |metric, _| first.push(metric.0));
            first
        };
        for (version, id) in [(1, 0), (2, 70), (3, 300_000), (4, 71)] {
            tree.set(MetricId(id), Some(map()), Version(version));
        }
        assert_eq!(changed(&tree, 0), [0, 64, 299_968]);
        assert_eq!(changed(&tree, 2), [64, 299_968]);
        assert_eq!(changed(&tree, 3), [64]);
        tree.set(MetricId(0), None, Version(5));
        assert_eq!((changed(&tree, 4), changed(&tree, 5)), (vec![0], vec![]));
    }

    #[test]
    fn what_is_gone_takes_nothing_and_is_told_until_it_is_known() {
        let mut tree = MetricTree::default();
        let mut version = 0;
        let mut next = || {
            version += 1;
            Version(version)
        };
        for id in 0..200_000 {
            tree.set(MetricId(id), Some(map()), next());
            if let Some(old) = u32::checked_sub(id, 1_000) {
                assert!(tree.set(MetricId(old), None, next()).is_some());
            }
        }
        assert_eq!(tree.len(), 1_000);
        // A path, the leaves, and nodes above that are half gone.
        assert!(tree.nodes() <= 40, "{}", tree.nodes());
        let changed = |version| {
            let mut changed = Vec::new();
            tree.changed_after(Version(version), |first, slots| {
                assert_eq!(slots.len(), FAN_OUT);
                changed.push(first.0);
            });
            changed
        };
        assert!(changed(0).into_iter().eq((0..200_000).step_by(64)), "each leaf that ever was, in order");
        assert_eq!(changed(version - 1), [198_976], "the last that went");
        assert_eq!(changed(version), []);
    }

    proptest! {
        #[test]
        fn one_made_at_once_is_as_one_made_step_by_step(
            ids in prop::collection::btree_set(prop_oneof![0u32..200, 0u32..300_000, any::<u32>()], 0..100),
            next in prop_oneof![0u32..200, any::<u32>()],
        ) {
            let maps: Vec<_> = ids.into_iter().map(|id| (MetricId(id), map())).collect();
            let mut trees = [MetricTree::of(maps.iter().cloned(), Version(3)), MetricTree::default()];
            for (id, map) in &maps {
                trees[1].set(*id, Some(map.clone()), Version(3));
            }
            let later = map();
            for one_more in [false, true] {
                let [one, other] = trees.each_mut().map(|tree| {
                    if one_more {
                        tree.set(MetricId(next), Some(later.clone()), Version(4));
                    }
                    let mut changed = Vec::new();
                    tree.changed_after(Version(2 + u64::from(one_more)), |first, _| changed.push(first.0));
                    let all: Vec<_> = tree.iter().map(|(id, map)| (id.0, Arc::as_ptr(map).addr())).collect();
                    (tree.len(), tree.height, tree.nodes(), all, changed)
                });
                prop_assert_eq!(one, other);
            }
        }

        #[test]
        fn behaves_as_a_btree_map(
            steps in prop::collection::vec((prop_oneof![0u32..200, 0u32..300_000, any::<u32>()], any::<bool>()), 1..200),
        ) {
            let mut tree = MetricTree::default();
            let mut model = BTreeMap::new();
            let mut kept = Vec::new();
            for (id, present) in steps {
                let value = present.then(map);
                tree.set(MetricId(id), value.clone(), Version(1));
                match value {
                    Some(value) => { model.insert(id, value); }
                    None => { model.remove(&id); }
                }
                if id % 7 == 0 {
                    kept.push((tree.clone(), model.clone()));
                }
            }
            kept.push((tree, model));
            for (tree, model) in kept {
                prop_assert_eq!(tree.len(), model.len() as u64);
                for (id, map) in &model {
                    prop_assert!(tree.get(MetricId(*id)).is_some_and(|found| Arc::ptr_eq(found, map)));
                }
                prop_assert!(tree.iter().map(|(id, _)| id.0).eq(model.keys().copied()));
            }
        }
    }
}
