//! Names: which metric a name stands for.
//!
//! A dictionary beside the transaction. Naming a metric only *interns* it: it gets an id, but exists from the first commit that
//! writes or creates it, and in a snapshot iff the snapshot's tree has it.
//!
//! Invariants
//! * An id is given once, and its name, tags and namespace never change.
//! * A name keeps every id it ever had, newest first: a snapshot resolves it to the one that is in its own tree.
//! * `dropped` is set when the drop is sequenced, under the log's lock: from then on the name resolves to a new id, and no write
//!   through the old handle is sequenced.

mod file;
mod salvage;
mod tags;

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::error::{Error, Result};
use crate::fileset::Sharding;
use crate::mvcc::transaction::Version;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};

pub(crate) use file::{FOLDER, NameRecord, NamesFile};
pub(crate) use tags::Tags;

/// The longest metric ID, in bytes.
pub const METRIC_ID_BYTES_MAX: usize = 65_536;
/// The longest name of a namespace, in bytes.
pub const NAMESPACE_NAME_BYTES_MAX: usize = 255;
/// The name of the namespace that every database has.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// A metric's number: dense, unique in its database, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricId(pub(crate) u32);

impl MetricId {
    /// The plain number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A number as a volume's table has it, or is to have it. In a database, metrics get their numbers from it.
impl From<u32> for MetricId {
    fn from(number: u32) -> Self {
        MetricId(number)
    }
}

/// A namespace's number: dense, unique in its database, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NamespaceId(pub(crate) u32);

/// What the metrics of a namespace have in common. Fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamespaceOptions {
    pub(crate) block_ns: i64,
    pub(crate) shards: u32,
}

/// A set of metrics with options of its own: a cheap handle.
#[derive(Clone)]
pub struct Namespace(Arc<NamespaceInfo>);

struct NamespaceInfo {
    database: u64,
    id: NamespaceId,
    name: Box<str>,
    options: NamespaceOptions,
    /// Whether a commit that makes it has been sequenced.
    created: AtomicBool,
}

impl Namespace {
    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The time that one block covers.
    pub fn block_size(&self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0.options.block_ns.unsigned_abs())
    }

    pub(crate) fn id(&self) -> NamespaceId {
        self.0.id
    }

    pub(crate) fn belongs_to(&self, database: u64) -> bool {
        self.0.database == database
    }

    pub(crate) fn options(&self) -> NamespaceOptions {
        self.0.options
    }

    pub(crate) fn is_created(&self) -> bool {
        self.0.created.load(Ordering::Acquire)
    }

    /// For the log's critical section.
    pub(crate) fn set_created(&self) {
        self.0.created.store(true, Ordering::Release);
    }
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        (self.0.database, self.0.id) == (other.0.database, other.0.id)
    }
}

impl Eq for Namespace {}

impl Hash for Namespace {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.database, self.0.id).hash(state);
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({})", self.name())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A metric: a cheap handle that is good for writing and reading, on any thread. Two handles are equal if they stand for the same
/// metric of the same database; a name that was dropped and made again is another metric.
#[derive(Clone)]
pub struct Metric(Arc<MetricInfo>);

struct MetricInfo {
    database: u64,
    id: MetricId,
    /// Follows from the name and the namespace's options.
    shard: u32,
    namespace: Namespace,
    name: Box<[u8]>,
    tags: Tags,
    /// The version of the first commit that makes it, once that has been sequenced; 0 before.
    created: AtomicU64,
    /// Whether a commit that drops it has been sequenced.
    dropped: AtomicBool,
}

impl Metric {
    /// Its number.
    pub fn id(&self) -> MetricId {
        self.0.id
    }

    /// The metric ID: canonical `name{key="value",..}` if it has tags, otherwise any bytes. Unique in its namespace.
    pub fn name(&self) -> &[u8] {
        &self.0.name
    }

    /// Its tags, sorted by key; none for an ID that is not in the canonical form.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.0.tags.iter()
    }

    /// The namespace it belongs to.
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    pub(crate) fn tag_list(&self) -> &Tags {
        &self.0.tags
    }

    /// Which of its namespace's shards it belongs to.
    pub(crate) fn shard(&self) -> u32 {
        self.0.shard
    }

    pub(crate) fn belongs_to(&self, database: u64) -> bool {
        self.0.database == database
    }

    pub(crate) fn is_created(&self) -> bool {
        self.created() != Version(0)
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.0.dropped.load(Ordering::Acquire)
    }

    /// The version of the first commit that made it; 0 if none did.
    pub(crate) fn created(&self) -> Version {
        Version(self.0.created.load(Ordering::Acquire))
    }

    /// Notes that the commit of this version makes it, unless one before did. For the log's critical section.
    pub(crate) fn set_created(&self, version: Version) {
        if !self.is_created() {
            self.0.created.store(version.0, Ordering::Release);
        }
    }

    /// For the log's critical section.
    pub(crate) fn set_dropped(&self) {
        self.0.dropped.store(true, Ordering::Release);
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        (self.0.database, self.0.id) == (other.0.database, other.0.id)
    }
}

impl Eq for Metric {}

impl Hash for Metric {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.database, self.0.id).hash(state);
    }
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metric({}: {self})", self.0.id.0)
    }
}

impl fmt::Display for Metric {
    /// The metric ID; bytes that are not UTF-8, and control characters, as `\xNN`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.name().utf8_chunks() {
            for c in chunk.valid().chars() {
                match c.is_control() {
                    true => write!(f, "{}", c.escape_default())?,
                    false => write!(f, "{c}")?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// The dictionary.
#[derive(Debug)]
pub(crate) struct Names {
    database: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    hasher: RandomState,
    /// Every namespace ever named, by id; ids that only a lost run knew are `None`.
    namespaces: Vec<Option<Namespace>>,
    /// Every metric ever named, by id, in the same way.
    metrics: Vec<Option<Metric>>,
    /// The newest id of each name.
    newest: HashTable<MetricId>,
    /// For each id the next older one of the same name.
    older: Vec<Option<MetricId>>,
}

impl Names {
    /// A dictionary that knows the default namespace only. `database` tells its handles from those of others.
    pub(crate) fn new(database: u64, default: NamespaceOptions) -> Self {
        let names = Names {
            database,
            state: Mutex::new(State {
                hasher: RandomState::default(),
                namespaces: Vec::new(),
                metrics: Vec::new(),
                newest: HashTable::new(),
                older: Vec::new(),
            }),
        };
        names.state.lock().add_namespace(database, NamespaceId(0), DEFAULT_NAMESPACE, default).set_created();
        names
    }

    /// What tells this database's handles from those of others.
    pub(crate) fn database(&self) -> u64 {
        self.database
    }

    /// The namespace of this name, interned with `options` if it is new.
    pub(crate) fn namespace(&self, name: &str, options: NamespaceOptions) -> Result<Namespace> {
        if name.is_empty() || name.len() > NAMESPACE_NAME_BYTES_MAX {
            return Err(Error::NamespaceNameLength { len: name.len() });
        }
        let mut state = self.state.lock();
        if let Some(known) = state.namespaces.iter().flatten().find(|known| known.name() == name) {
            return Ok(known.clone());
        }
        let id = u32::try_from(state.namespaces.len()).map_err(|_| Error::TooManyMetrics)?;
        Ok(state.add_namespace(self.database, NamespaceId(id), name, options))
    }

    /// All namespaces that were ever named.
    pub(crate) fn namespaces(&self) -> Vec<Namespace> {
        self.state.lock().namespaces.iter().flatten().cloned().collect()
    }

    /// The namespace with this id.
    pub(crate) fn namespace_by_id(&self, id: NamespaceId) -> Option<Namespace> {
        self.state.lock().namespace(id)
    }

    /// The metric that this ID stands for now, interned if it is new or was dropped. An ID in the canonical form, tags
    /// in any order, is one metric; but one that was given with tags of its own is found as it is.
    pub(crate) fn metric(&self, namespace: &Namespace, id: &[u8]) -> Result<Metric> {
        if let Some(known) = self.lookup(namespace, id, |metric| !metric.is_dropped()) {
            return Ok(known);
        }
        match Tags::parse(id) {
            Some((canonical, tags)) => self.intern(namespace, &canonical, tags),
            None => self.intern(namespace, id, Tags::none()),
        }
    }

    /// The metric of a name and its tags, in the canonical form.
    pub(crate) fn metric_with_tags(
        &self,
        namespace: &Namespace,
        name: &[u8],
        tags: &[(&[u8], &[u8])],
    ) -> Result<Metric> {
        let (canonical, tags) = Tags::canonical(name, tags)?;
        self.intern(namespace, &canonical, tags)
    }

    /// The metric of an ID that keeps its bytes, with tags of its own.
    pub(crate) fn metric_with_id(
        &self,
        namespace: &Namespace,
        id: &[u8],
        tags: &[(&[u8], &[u8])],
    ) -> Result<Metric> {
        self.intern(namespace, id, Tags::new(tags)?)
    }

    /// The newest metric that this ID ever stood for and that `exists` accepts.
    pub(crate) fn lookup(
        &self,
        namespace: &Namespace,
        id: &[u8],
        exists: impl Fn(&Metric) -> bool,
    ) -> Option<Metric> {
        self.resolve(namespace, id, |_, known| known.into_iter().find(&exists))
    }

    /// What `choose` takes of the metrics that an ID ever stood for, newest first. It is asked for the ID as it is, then, if it takes
    /// none, for the canonical form, if that is another.
    pub(crate) fn resolve(
        &self,
        namespace: &Namespace,
        id: &[u8],
        mut choose: impl FnMut(&[u8], Vec<Metric>) -> Option<Metric>,
    ) -> Option<Metric> {
        if !namespace.belongs_to(self.database) {
            return None;
        }
        let mut choose = |id: &[u8]| choose(id, self.ids_of(namespace.id(), id));
        choose(id).or_else(|| {
            let (canonical, _) = Tags::parse(id).filter(|(canonical, _)| canonical != id)?;
            choose(&canonical)
        })
    }

    /// All metrics that ever had exactly this ID, newest first.
    pub(crate) fn ids_of(&self, namespace: NamespaceId, id: &[u8]) -> Vec<Metric> {
        let state = self.state.lock();
        let mut next = state.find(namespace, id);
        let mut found = Vec::new();
        while let Some(id) = next {
            found.extend(state.metrics[id.0 as usize].clone());
            next = state.older[id.0 as usize];
        }
        found
    }

    /// A metric of exactly this ID that a commit has made, be it dropped again or not, and that is newer than `known`.
    pub(crate) fn made_after(
        &self,
        namespace: NamespaceId,
        id: &[u8],
        known: Option<MetricId>,
    ) -> Option<Metric> {
        let state = self.state.lock();
        let mut next = state.find(namespace, id);
        while let Some(id) = next.filter(|id| known.is_none_or(|known| *id > known)) {
            let metric = state.metrics[id.0 as usize].as_ref();
            if let Some(metric) = metric.filter(|metric| metric.is_created()) {
                return Some(metric.clone());
            }
            next = state.older[id.0 as usize];
        }
        None
    }

    /// The metric with this number.
    pub(crate) fn metric_by_id(&self, id: MetricId) -> Option<Metric> {
        self.state.lock().metrics.get(id.0 as usize).cloned().flatten()
    }

    /// How many ids have been given out: all are below.
    pub(crate) fn metrics(&self) -> u32 {
        // `intern` gives out no more.
        u32::try_from(self.state.lock().metrics.len()).unwrap_or(u32::MAX)
    }

    /// Puts back a namespace that the log made. `false` if that contradicts what is known.
    pub(crate) fn restore_namespace(&self, id: NamespaceId, name: &str, options: NamespaceOptions) -> bool {
        let mut state = self.state.lock();
        if let Some(known) = state.namespace(id) {
            return known.name() == name;
        }
        let is_new = state.namespaces.iter().flatten().all(|known| known.name() != name);
        if is_new && state.namespaces.try_reserve(id.0 as usize + 1).is_err() {
            return false;
        }
        if is_new {
            state.add_namespace(self.database, id, name, options).set_created();
        }
        is_new
    }

    /// Makes room for so many metrics at once, with numbers below `next`. `false` if there is no memory for that.
    pub(crate) fn reserve(&self, metrics: usize, next: u32) -> bool {
        let mut state = self.state.lock();
        let State { hasher, metrics: known, newest, older, .. } = &mut *state;
        newest.try_reserve(metrics, |id| hash_of(hasher, known, *id)).is_ok()
            && known.try_reserve(next as usize).is_ok()
            && older.try_reserve(next as usize).is_ok()
    }

    /// Sees to it that numbers below `next` are not given out again. [`reserve`](Self::reserve) made room for them.
    pub(crate) fn give_out_from(&self, next: u32) {
        let mut state = self.state.lock();
        let next = (next as usize).max(state.metrics.len());
        state.metrics.resize(next, None);
        state.older.resize(next, None);
    }

    /// Puts back a metric that the commit of this version made. `false` if that contradicts what is known.
    pub(crate) fn restore_metric(
        &self,
        id: MetricId,
        namespace: NamespaceId,
        name: &[u8],
        tags: Tags,
        created: Version,
    ) -> bool {
        let mut state = self.state.lock();
        let Some(namespace) = state.namespace(namespace) else { return false };
        if let Some(known) = state.metrics.get(id.0 as usize).and_then(Option::as_ref) {
            return known.name() == name && known.namespace() == &namespace;
        }
        state.add_metric(self.database, id, namespace, name, tags).set_created(created);
        true
    }

    fn intern(&self, namespace: &Namespace, name: &[u8], tags: Tags) -> Result<Metric> {
        if !namespace.belongs_to(self.database) {
            return Err(Error::ForeignNamespace(namespace.to_string()));
        }
        if name.is_empty() || name.len() > METRIC_ID_BYTES_MAX {
            return Err(Error::MetricIdLength { len: name.len() });
        }
        let mut state = self.state.lock();
        let newest = state.find(namespace.id(), name).and_then(|id| state.metrics[id.0 as usize].clone());
        match newest {
            Some(metric) if !metric.is_dropped() => match metric.0.tags == tags {
                true => Ok(metric),
                false => Err(Error::TagsDiffer(metric.to_string())),
            },
            _ => {
                let id = u32::try_from(state.metrics.len()).map_err(|_| Error::TooManyMetrics)?;
                Ok(state.add_metric(self.database, MetricId(id), namespace.clone(), name, tags))
            }
        }
    }
}

impl State {
    fn hash(&self, namespace: NamespaceId, name: &[u8]) -> u64 {
        self.hasher.hash_one((namespace, name))
    }

    fn find(&self, namespace: NamespaceId, name: &[u8]) -> Option<MetricId> {
        let hash = self.hash(namespace, name);
        self.newest.find(hash, |id| is(&self.metrics, *id, namespace, name)).copied()
    }

    fn namespace(&self, id: NamespaceId) -> Option<Namespace> {
        self.namespaces.get(id.0 as usize).cloned().flatten()
    }

    fn add_namespace(
        &mut self,
        database: u64,
        id: NamespaceId,
        name: &str,
        options: NamespaceOptions,
    ) -> Namespace {
        let created = AtomicBool::new(false);
        let namespace =
            Namespace(Arc::new(NamespaceInfo { database, id, name: name.into(), options, created }));
        let place = id.0 as usize;
        if self.namespaces.len() <= place {
            self.namespaces.resize(place + 1, None);
        }
        self.namespaces[place] = Some(namespace.clone());
        namespace
    }

    fn add_metric(
        &mut self,
        database: u64,
        id: MetricId,
        namespace: Namespace,
        name: &[u8],
        tags: Tags,
    ) -> Metric {
        let place = id.0 as usize;
        if self.metrics.len() <= place {
            self.metrics.resize(place + 1, None);
            self.older.resize(place + 1, None);
        }
        let hash = self.hash(namespace.id(), name);
        let shards = namespace.options().shards;
        let metric = Metric(Arc::new(MetricInfo {
            database,
            id,
            shard: Sharding { shards, seed: 0 }.shard_of(name),
            namespace: namespace.clone(),
            name: name.into(),
            tags,
            created: AtomicU64::new(0),
            dropped: AtomicBool::new(false),
        }));
        self.metrics[place] = Some(metric.clone());
        let State { metrics, newest, hasher, .. } = self;
        match newest.find_mut(hash, |id| is(metrics, *id, namespace.id(), name)) {
            Some(newest) if id > *newest => self.older[place] = Some(std::mem::replace(newest, id)),
            Some(newest) => {
                // Recovery may bring ids in any order: this one goes behind those that are newer.
                let mut newer = newest.0 as usize;
                while let Some(next) = self.older[newer].filter(|next| *next > id) {
                    newer = next.0 as usize;
                }
                self.older[place] = self.older[newer].replace(id);
            }
            None => {
                newest.insert_unique(hash, id, |id| hash_of(hasher, metrics, *id));
            }
        }
        metric
    }
}

/// The hash of a metric's name.
fn hash_of(hasher: &RandomState, metrics: &[Option<Metric>], id: MetricId) -> u64 {
    let metric = metrics[id.0 as usize].as_ref();
    metric.map_or(0, |metric| hasher.hash_one((metric.namespace().id(), metric.name())))
}

/// Whether `id` is a metric of this name.
fn is(metrics: &[Option<Metric>], id: MetricId, namespace: NamespaceId, name: &[u8]) -> bool {
    metrics[id.0 as usize]
        .as_ref()
        .is_some_and(|metric| metric.namespace().id() == namespace && metric.name() == name)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const OPTIONS: NamespaceOptions = NamespaceOptions { block_ns: 7_200_000_000_000, shards: 4 };

    fn names() -> (Names, Namespace) {
        let names = Names::new(7, OPTIONS);
        let namespace = names.namespace(DEFAULT_NAMESPACE, OPTIONS).expect("default");
        (names, namespace)
    }

    #[test]
    fn both_spellings_of_a_tagged_id_are_one_metric() {
        let (names, namespace) = names();
        let a = names.metric(&namespace, br#"cpu{host="a",core="0"}"#).expect("valid");
        let b =
            names.metric_with_tags(&namespace, b"cpu", &[(b"core", b"0"), (b"host", b"a")]).expect("valid");
        assert_eq!(a, b);
        assert_eq!(a.name(), br#"cpu{core="0",host="a"}"#);
        assert_eq!(a.tags().collect::<Vec<_>>(), [(&b"core"[..], &b"0"[..]), (b"host", b"a")]);
    }

    #[test]
    fn an_id_with_other_tags_is_refused() {
        let (names, namespace) = names();
        names.metric_with_id(&namespace, b"raw", &[(b"k", b"v")]).expect("valid");
        let again = names.metric_with_id(&namespace, b"raw", &[(b"k", b"w")]);
        assert!(matches!(again, Err(Error::TagsDiffer(id)) if id == "raw"));
    }

    #[test]
    fn an_imported_id_is_found_as_it_is() {
        let (names, namespace) = names();
        let id = br#"cpu{host="a",core="0"}"#;
        let imported =
            names.metric_with_id(&namespace, id, &[(b"host", b"a"), (b"core", b"0")]).expect("valid");
        assert_eq!(imported.name(), id);
        assert_eq!(names.metric(&namespace, id).expect("known"), imported);
        assert_eq!(names.lookup(&namespace, id, |_| true), Some(imported));
    }

    #[test]
    fn a_namespace_of_another_database_is_refused() {
        let (names, _) = names();
        let other = Names::new(8, OPTIONS).namespace(DEFAULT_NAMESPACE, OPTIONS).expect("default");
        assert!(matches!(names.metric(&other, b"m"), Err(Error::ForeignNamespace(_))));
        assert!(matches!(names.metric_with_tags(&other, b"m", &[]), Err(Error::ForeignNamespace(_))));
        assert!(matches!(names.metric_with_id(&other, b"m", &[]), Err(Error::ForeignNamespace(_))));
        assert_eq!(names.lookup(&other, b"m", |_| true), None);
    }

    #[test]
    fn a_dropped_name_gets_a_new_id_and_keeps_the_old_one() {
        let (names, namespace) = names();
        let first = names.metric(&namespace, b"m").expect("valid");
        first.set_dropped();
        let second = names.metric(&namespace, b"m").expect("valid");
        assert_ne!(first, second);
        assert_eq!(names.ids_of(namespace.id(), b"m"), [second, first]);
    }

    #[test]
    fn what_was_made_of_an_id_is_told_apart_by_number() {
        let (names, namespace) = names();
        let first = names.metric(&namespace, b"m").expect("valid");
        let made_after = |known| names.made_after(namespace.id(), b"m", known);
        assert_eq!(made_after(None), None, "named is not made");
        first.set_created(Version(1));
        assert_eq!(made_after(None), Some(first.clone()));
        first.set_dropped();
        assert_eq!((made_after(None), made_after(Some(first.id()))), (Some(first.clone()), None));
        let second = names.metric(&namespace, b"m").expect("valid");
        assert_eq!(made_after(Some(first.id())), None);
        second.set_created(Version(2));
        assert_eq!(made_after(Some(first.id())), Some(second));
        assert_eq!(names.made_after(namespace.id(), b"n", None), None);
    }

    #[test]
    fn each_spelling_is_consulted_once_the_given_one_first() {
        let (names, namespace) = names();
        let consulted = |id: &[u8]| {
            let mut spellings = Vec::new();
            names.resolve(&namespace, id, |spelling, _| {
                spellings.push(spelling.to_vec());
                None
            });
            spellings
        };
        let (raw, canonical) = (&br#"m{b="1",a="2"}"#[..], &br#"m{a="2",b="1"}"#[..]);
        assert_eq!(consulted(raw), [raw, canonical]);
        assert_eq!(consulted(canonical), [canonical]);
        assert_eq!(consulted(b"m"), [b"m"]);
    }

    #[test]
    fn restored_ids_resolve_newest_first_in_any_order() {
        for order in [[0, 2, 5], [5, 2, 0], [2, 5, 0], [2, 0, 5]] {
            let (names, namespace) = names();
            for id in order {
                assert!(names.restore_metric(MetricId(id), namespace.id(), b"m", Tags::none(), Version(1)));
            }
            let ids: Vec<_> = names.ids_of(namespace.id(), b"m").iter().map(|m| m.id().get()).collect();
            assert_eq!(ids, [5, 2, 0], "restored as {order:?}");
            assert_eq!(names.metric(&namespace, b"new").expect("valid").id().get(), 6);
        }
    }

    #[test]
    fn contradictions_in_a_log_are_noticed() {
        let (names, namespace) = names();
        assert!(names.restore_metric(MetricId(3), namespace.id(), b"m", Tags::none(), Version(1)));
        assert!(
            names.restore_metric(MetricId(3), namespace.id(), b"m", Tags::none(), Version(1)),
            "made twice is one"
        );
        assert!(!names.restore_metric(MetricId(3), namespace.id(), b"n", Tags::none(), Version(1)));
        assert!(!names.restore_metric(MetricId(4), NamespaceId(9), b"n", Tags::none(), Version(1)));
        assert!(!names.restore_namespace(NamespaceId(0), "other", OPTIONS));
    }

    #[test]
    fn lengths_are_checked() {
        let (names, namespace) = names();
        assert!(matches!(names.metric(&namespace, b""), Err(Error::MetricIdLength { len: 0 })));
        let long = vec![b'x'; METRIC_ID_BYTES_MAX + 1];
        assert!(matches!(names.metric(&namespace, &long), Err(Error::MetricIdLength { .. })));
        names.metric(&namespace, &long[1..]).expect("the limit itself is allowed");
        assert!(matches!(names.namespace("", OPTIONS), Err(Error::NamespaceNameLength { len: 0 })));
    }

    #[test]
    fn display_escapes_what_is_not_text() {
        let (names, namespace) = names();
        let metric = names.metric(&namespace, b"a\n\xff\xc3\xa9").expect("any bytes");
        assert_eq!(metric.to_string(), "a\\n\\xffé");
    }
}
