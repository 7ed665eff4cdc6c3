//! What the dictionary's lock guards.
//!
//! A name leaves when nothing can ask for it any more: that of a dropped metric when everybody who reads sees the drop, and one that nobody made when nobody
//! has a handle to do so. Both wait in queues, so that leaving costs what leaves, whatever there is besides.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::mvcc::transaction::Version;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, Ordering};

use super::metric::{self, Metric};
use super::pages::{Pages, Record, slot};
use super::table::{self, NO_ID, Table};
use super::{MetricId, Namespace, NamespaceId, NamespaceInfo, NamespaceOptions, Tags};

/// So many names leave under the lock at once.
const LEAVING: usize = 256;
/// So many that are put back are settled together.
const PUT_BACK_MAX: usize = 1 << 18;
/// For each name that is interned, so many are looked at that nobody had made: as more than one, they become fewer.
const UNMADE_LOOKS: usize = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct State {
    database: u64,
    /// Every namespace ever named, by id; ids that only a lost run knew are `None`.
    namespaces: Vec<Option<Namespace>>,
    /// All that is known of a metric but its number.
    pages: Pages,
    /// The newest id of each name.
    newest: Table,
    /// Hashes and ids of metrics that were put back and that `newest` does not have yet.
    put_back: Vec<(u64, MetricId)>,
    /// For ids of names that had one before, the next older one.
    older: HashMap<MetricId, MetricId, RandomState>,
    /// All ids that were given out are below.
    next: u32,
    /// Names that were interned and, when last looked at, not made.
    unmade: VecDeque<MetricId>,
    /// Metrics that were dropped, and when, in the order of versions.
    dropped: VecDeque<(Version, MetricId)>,
}

/// A name with its hash.
#[derive(Debug)]
pub(super) struct Key<'a> {
    namespace: NamespaceId,
    pub(super) name: &'a [u8],
    hash: u64,
}

impl<'a> Key<'a> {
    pub(super) fn new(hasher: &RandomState, namespace: NamespaceId, name: &'a [u8]) -> Self {
        Key { namespace, name, hash: hasher.hash_one((namespace, name)) }
    }
}

impl State {
    pub(super) fn new(database: u64) -> Self {
        State {
            database,
            namespaces: Vec::new(),
            pages: Pages::default(),
            newest: Table::new(),
            put_back: Vec::new(),
            older: HashMap::default(),
            next: 0,
            unmade: VecDeque::new(),
            dropped: VecDeque::new(),
        }
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.iter().flatten()
    }

    pub(super) fn namespace(&self, id: NamespaceId) -> Option<&Namespace> {
        self.namespaces.get(id.0 as usize)?.as_ref()
    }

    pub(super) fn next_namespace(&self) -> Option<NamespaceId> {
        u32::try_from(self.namespaces.len()).ok().map(NamespaceId)
    }

    /// Makes room for a namespace of this number. `false` if there is no memory for that.
    pub(super) fn reserve_namespace(&mut self, id: NamespaceId) -> bool {
        let more = (id.0 as usize + 1).saturating_sub(self.namespaces.len());
        self.namespaces.try_reserve(more).is_ok()
    }

    pub(super) fn add_namespace(
        &mut self,
        id: NamespaceId,
        name: &str,
        options: NamespaceOptions,
    ) -> Namespace {
        let (database, created) = (self.database, AtomicBool::new(false));
        let namespace =
            Namespace(Arc::new(NamespaceInfo { database, id, name: name.into(), options, created }));
        let place = id.0 as usize;
        if self.namespaces.len() <= place {
            self.namespaces.resize(place + 1, None);
        }
        self.namespaces[place] = Some(namespace.clone());
        namespace
    }

    pub(super) fn record(&self, id: MetricId) -> Option<Record<'_>> {
        self.pages.record(id)
    }

    pub(super) fn group(&self, id: MetricId) -> Option<(NamespaceId, u32)> {
        self.record(id).map(|record| (record.namespace, record.shard))
    }

    /// A handle.
    pub(super) fn handle(&self, id: MetricId) -> Option<Metric> {
        let record = self.record(id)?;
        let namespace = self.namespace(record.namespace)?.clone();
        Some(Metric::new(self.database, id, namespace, record, self.pages.states(id)?))
    }

    /// The metrics that have a name, newest first.
    pub(super) fn known(&self, key: &Key<'_>) -> impl Iterator<Item = MetricId> {
        std::iter::successors(self.find(key), |id| self.older.get(id).copied())
    }

    /// A handle of the newest metric of a name.
    pub(super) fn newest(&self, key: &Key<'_>) -> Option<Metric> {
        self.handle(self.find(key)?)
    }

    /// A handle of the newest metric of a name that is not dropped.
    pub(super) fn standing(&self, key: &Key<'_>) -> Option<Metric> {
        let found =
            self.known(key).find(|id| self.state(*id).is_some_and(|state| !metric::is_dropped(state)));
        self.handle(found?)
    }

    fn find(&self, key: &Key<'_>) -> Option<MetricId> {
        debug_assert!(self.put_back.is_empty(), "they are to be settled first");
        let is_it = |id| {
            let record = self.pages.record(MetricId(id));
            record.is_some_and(|record| record.name == key.name && record.namespace == key.namespace)
        };
        self.newest.find(key.hash, is_it).map(MetricId)
    }

    fn state(&self, id: MetricId) -> Option<u64> {
        self.pages.states(id).map(|states| states.of(slot(id)).load(Ordering::Acquire))
    }

    /// All ids that were given out are below.
    pub(super) fn next_metric(&self) -> u32 {
        self.next
    }

    pub(super) fn give_out_from(&mut self, next: u32) {
        self.next = self.next.max(next);
    }

    /// A number for a new metric.
    pub(super) fn give_out(&mut self) -> Option<MetricId> {
        let id = self.next;
        (id != NO_ID).then(|| {
            self.next += 1;
            MetricId(id)
        })
    }

    pub(super) fn reserve(&mut self, metrics: usize) {
        self.newest.reserve(metrics);
    }

    /// Adds a metric of which nothing is known.
    pub(super) fn add(&mut self, key: &Key<'_>, id: MetricId, shard: u32, own_tags: Option<&Tags>) {
        self.insert(key, id, shard, own_tags);
        self.link(key.hash, id);
    }

    /// As [`State::add`], for many: their names are not looked for before [`State::settle`].
    pub(super) fn put_back(&mut self, key: &Key<'_>, id: MetricId, shard: u32, own_tags: Option<&Tags>) {
        self.insert(key, id, shard, own_tags);
        self.put_back.push((key.hash, id));
        if self.put_back.len() == PUT_BACK_MAX {
            self.settle();
        }
    }

    /// Has the names of what was put back found: one part of the table after the other, as a part fits into the processor's cache and the table does not.
    pub(super) fn settle(&mut self) {
        if !self.put_back.is_empty() {
            self.settle_all();
        }
    }

    #[cold]
    fn settle_all(&mut self) {
        let put_back = std::mem::take(&mut self.put_back);
        for (hash, id) in table::by_part(&put_back, |(hash, _)| *hash) {
            self.link(*hash, *id);
        }
    }

    fn insert(&mut self, key: &Key<'_>, id: MetricId, shard: u32, own_tags: Option<&Tags>) {
        let &Key { namespace, name, .. } = key;
        self.pages.insert(id, Record { namespace, shard, name, tags: own_tags.map(Tags::encoded) });
        self.next = self.next.max(id.0.saturating_add(1));
    }

    /// Has an id found by its name.
    fn link(&mut self, hash: u64, id: MetricId) {
        let is_it = |known| {
            let name = |id| self.pages.record(id).map(|record| (record.namespace, record.name));
            name(MetricId(known)) == name(id)
        };
        match self.newest.find(hash, is_it).map(MetricId) {
            None => self.newest.insert(hash, id.0),
            Some(newest) if id > newest => {
                self.newest.replace(hash, newest.0, id.0);
                self.older.insert(id, newest);
            }
            Some(newest) => {
                // Recovery may bring ids in any order: this one goes behind those that are newer.
                let mut newer = newest;
                while let Some(next) = self.older.get(&newer).filter(|next| **next > id) {
                    newer = *next;
                }
                if let Some(next) = self.older.insert(newer, id) {
                    self.older.insert(id, next);
                }
            }
        }
    }

    pub(super) fn set_made(&self, id: MetricId, version: Version) {
        if let Some(states) = self.pages.states(id) {
            states.of(slot(id)).store(metric::made_by(version), Ordering::Release);
        }
    }

    /// Undoes that it was dropped.
    pub(super) fn set_standing(&self, id: MetricId) {
        if let Some(states) = self.pages.states(id) {
            metric::set_standing(states.of(slot(id)));
        }
    }

    /// Whether there is such a metric.
    pub(super) fn set_dropped(&mut self, id: MetricId, version: Version) -> bool {
        let Some(states) = self.pages.states(id) else { return false };
        metric::set_dropped(states.of(slot(id)));
        self.dropped.push_back((version, id));
        true
    }

    pub(super) fn dropped(&self) -> usize {
        self.dropped.len()
    }

    /// See [`super::Names::forget_dropped`].
    pub(super) fn forget_dropped(&mut self, hasher: &RandomState, upto: Version) -> bool {
        for _ in 0..LEAVING {
            match self.dropped.front() {
                Some((version, id)) if *version <= upto => {
                    let id = *id;
                    self.dropped.pop_front();
                    // In recovery it may stand again.
                    if self.state(id).is_some_and(metric::is_dropped) {
                        self.remove(hasher, id);
                    }
                }
                _ => {
                    self.dropped.shrink_to(self.dropped.len() * 2);
                    return false;
                }
            }
        }
        true
    }

    /// Notes a name that is interned and not yet made, and looks at some that were: those that nobody can make any more leave.
    pub(super) fn note_unmade(&mut self, hasher: &RandomState, id: MetricId) {
        for _ in 0..UNMADE_LOOKS {
            let Some(id) = self.unmade.pop_front() else { break };
            match self.state(id) {
                Some(state) if metric::is_forsaken(state) => self.remove(hasher, id),
                Some(state) if !metric::is_made(state) => self.unmade.push_back(id),
                _ => {}
            }
        }
        self.unmade.push_back(id);
        if self.unmade.len() * 4 < self.unmade.capacity() {
            self.unmade.shrink_to(self.unmade.len() * 2);
        }
    }

    /// Forgets a metric, if anything is known of it.
    fn remove(&mut self, hasher: &RandomState, id: MetricId) {
        let Some(Record { namespace, name, .. }) = self.pages.record(id) else { return };
        let key = Key::new(hasher, namespace, name);
        let (hash, newest) = (key.hash, self.find(&key));
        let older = self.older.remove(&id);
        match newest {
            Some(newest) if newest != id => {
                let mut newer = newest;
                while let Some(next) = self.older.get(&newer).copied().filter(|next| *next != id) {
                    newer = next;
                }
                match older {
                    Some(older) => self.older.insert(newer, older),
                    None => self.older.remove(&newer),
                };
            }
            _ => match older {
                Some(older) => self.newest.replace(hash, id.0, older.0),
                None => self.newest.remove(hash, id.0),
            },
        }
        if self.older.is_empty() && self.older.capacity() > LEAVING {
            self.older = HashMap::default();
        }
        self.pages.remove(id);
    }
}
