//! Names: which metric a name stands for.
//!
//! A dictionary beside the transaction. Naming a metric only *interns* it: it gets an id, but exists from the first commit that
//! writes or creates it, and in a snapshot iff the snapshot's tree has it.
//!
//! * [`state`]: what the dictionary's lock guards: which ids a name has, and when names leave.
//! * [`table`]: from a hash to an id.
//! * [`pages`]: what is known of an id.
//! * [`metric`]: handles, made when they are asked for, and the states that they share with the dictionary.
//! * [`file`] and [`salvage`]: names on disk.
//!
//! Invariants
//! * An id is given once, and its name, tags and namespace never change.
//! * A name keeps every id it ever had, newest first, as long as a transaction may have one of them in its tree: a snapshot resolves it to the one that
//!   is in its own.
//! * `dropped` is set when the drop is sequenced, under the log's lock: from then on the name resolves to a new id, and no write
//!   through the old handle is sequenced.
//! * Handles are good without the dictionary: a name that left does not come back under its old id.

mod file;
mod metric;
mod pages;
mod salvage;
mod state;
mod table;
mod tags;

use std::fmt;
use std::hash::{Hash, Hasher};

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::fileset::Sharding;
use crate::mvcc::transaction::Version;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard};

use state::{Key, State};
use table::NO_ID;

pub(crate) use file::{FOLDER, NameRecord, NamesFile};
pub use metric::Metric;
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

/// The dictionary.
#[derive(Debug)]
pub(crate) struct Names {
    database: u64,
    hasher: RandomState,
    state: Mutex<State>,
}

impl Names {
    /// A dictionary that knows the default namespace only. `database` tells its handles from those of others.
    pub(crate) fn new(database: u64, default: NamespaceOptions) -> Self {
        let mut state = State::new(database);
        state.add_namespace(NamespaceId(0), DEFAULT_NAMESPACE, default).set_created();
        Names { database, hasher: RandomState::default(), state: Mutex::new(state) }
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
        if let Some(known) = state.namespaces().find(|known| known.name() == name) {
            return Ok(known.clone());
        }
        let id = state.next_namespace().ok_or(Error::TooManyMetrics)?;
        Ok(state.add_namespace(id, name, options))
    }

    /// All namespaces that were ever named.
    pub(crate) fn namespaces(&self) -> Vec<Namespace> {
        self.state.lock().namespaces().cloned().collect()
    }

    /// The namespace with this id.
    pub(crate) fn namespace_by_id(&self, id: NamespaceId) -> Option<Namespace> {
        self.state.lock().namespace(id).cloned()
    }

    /// The metric that this ID stands for now, interned if it is new or was dropped. An ID in the canonical form, tags
    /// in any order, is one metric; but one that was given with tags of its own is found as it is.
    pub(crate) fn metric(&self, namespace: &Namespace, id: &[u8]) -> Result<Metric> {
        self.check(namespace, id)?;
        let key = Key::new(&self.hasher, namespace.id(), id);
        if let Some(known) = self.settled().standing(&key) {
            return Ok(known);
        }
        match Tags::other_spelling(id) {
            Some(canonical) => {
                self.intern(namespace, &Key::new(&self.hasher, namespace.id(), &canonical), None)
            }
            None => self.intern(namespace, &key, None),
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
        self.metric_of(namespace, &canonical, tags)
    }

    /// The metric of an ID that keeps its bytes, with tags of its own.
    pub(crate) fn metric_with_id(
        &self,
        namespace: &Namespace,
        id: &[u8],
        tags: &[(&[u8], &[u8])],
    ) -> Result<Metric> {
        self.metric_of(namespace, id, Tags::new(tags)?)
    }

    /// The newest metric that this ID ever stood for and that `exists` accepts. It is looked for as it is, then in the canonical form.
    pub(crate) fn lookup(
        &self,
        namespace: &Namespace,
        id: &[u8],
        exists: impl Fn(MetricId) -> bool,
    ) -> Option<Metric> {
        if !namespace.belongs_to(self.database) {
            return None;
        }
        // Nothing is called under the lock. What exists in a snapshot does not leave meanwhile.
        let find = |id: &[u8]| {
            let key = Key::new(&self.hasher, namespace.id(), id);
            let known: SmallVec<[MetricId; 4]> = self.settled().known(&key).collect();
            known.into_iter().find(|id| exists(*id))
        };
        let found = find(id).or_else(|| find(&Tags::other_spelling(id)?));
        found.and_then(|id| self.metric_by_id(id))
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
        choose(id).or_else(|| choose(&Tags::other_spelling(id)?))
    }

    /// All metrics that had exactly this ID and did not leave, newest first.
    pub(crate) fn ids_of(&self, namespace: NamespaceId, id: &[u8]) -> Vec<Metric> {
        let key = Key::new(&self.hasher, namespace, id);
        let state = self.settled();
        state.known(&key).filter_map(|id| state.handle(id)).collect()
    }

    /// A metric of exactly this ID that a commit has made, be it dropped again or not, and that is newer than `known`.
    pub(crate) fn made_after(
        &self,
        namespace: NamespaceId,
        id: &[u8],
        known: Option<MetricId>,
    ) -> Option<Metric> {
        let key = Key::new(&self.hasher, namespace, id);
        let state = self.settled();
        let newer = state.known(&key).take_while(|id| known.is_none_or(|known| *id > known));
        newer.filter_map(|id| state.handle(id)).find(Metric::is_created)
    }

    /// The metric with this number.
    pub(crate) fn metric_by_id(&self, id: MetricId) -> Option<Metric> {
        self.state.lock().handle(id)
    }

    /// The namespace and the shard of the metric with this number. No handle is made.
    pub(crate) fn group_of(&self, id: MetricId) -> Option<(NamespaceId, u32)> {
        self.state.lock().group(id)
    }

    /// How many ids have been given out: all are below.
    pub(crate) fn metrics(&self) -> u32 {
        self.state.lock().next_metric()
    }

    /// Puts back a namespace that the log made. `false` if that contradicts what is known.
    pub(crate) fn restore_namespace(&self, id: NamespaceId, name: &str, options: NamespaceOptions) -> bool {
        let mut state = self.state.lock();
        if let Some(known) = state.namespace(id) {
            return known.name() == name;
        }
        let is_new = state.namespaces().all(|known| known.name() != name);
        if is_new && !state.reserve_namespace(id) {
            return false;
        }
        if is_new {
            state.add_namespace(id, name, options).set_created();
        }
        is_new
    }

    /// Makes room for so many metrics at once.
    pub(crate) fn reserve(&self, metrics: usize) {
        self.state.lock().reserve(metrics);
    }

    /// Sees to it that numbers below `next` are not given out again.
    pub(crate) fn give_out_from(&self, next: u32) {
        self.state.lock().give_out_from(next);
    }

    /// Puts back a metric that the commit of this version made, with its tags if the ID does not say them; returns its shard. `None` if that contradicts
    /// what is known. One that was dropped, as a damaged log may have it, stands again.
    pub(crate) fn restore_metric(
        &self,
        id: MetricId,
        namespace: NamespaceId,
        name: &[u8],
        own_tags: Option<&Tags>,
        created: Version,
    ) -> Option<u32> {
        let key = Key::new(&self.hasher, namespace, name);
        let mut state = self.state.lock();
        let shards = state.namespace(namespace)?.options().shards;
        if let Some(known) = state.record(id) {
            let shard = (known.name == name && known.namespace == namespace).then_some(known.shard);
            if shard.is_some() {
                state.set_standing(id);
            }
            return shard;
        }
        if id.0 == NO_ID {
            return None;
        }
        let shard = Sharding { shards, seed: 0 }.shard_of(name);
        state.put_back(&key, id, shard, own_tags);
        state.set_made(id, created);
        Some(shard)
    }

    /// Notes that the commit of this version drops metrics; returns how many of them it knows. For the log's critical section, in the order of versions.
    pub(crate) fn set_dropped(&self, metrics: impl Iterator<Item = MetricId>, version: Version) -> u64 {
        let mut state = self.state.lock();
        metrics.map(|id| u64::from(state.set_dropped(id, version))).sum()
    }

    /// How many names of dropped metrics wait to leave.
    pub(crate) fn dropped(&self) -> usize {
        self.state.lock().dropped()
    }

    /// Has some of the names leave whose metrics were dropped at this version or before, which everybody who reads sees. Returns whether there may be
    /// more.
    pub(crate) fn forget_dropped(&self, upto: Version) -> bool {
        self.settled().forget_dropped(&self.hasher, upto)
    }

    /// For who looks for a name.
    fn settled(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.settle();
        state
    }

    fn check(&self, namespace: &Namespace, name: &[u8]) -> Result<()> {
        if !namespace.belongs_to(self.database) {
            return Err(Error::ForeignNamespace(namespace.to_string()));
        }
        if name.is_empty() || name.len() > METRIC_ID_BYTES_MAX {
            return Err(Error::MetricIdLength { len: name.len() });
        }
        Ok(())
    }

    fn metric_of(&self, namespace: &Namespace, name: &[u8], tags: Tags) -> Result<Metric> {
        self.check(namespace, name)?;
        let key = Key::new(&self.hasher, namespace.id(), name);
        self.intern(namespace, &key, tags.unless_said_by(name).as_ref())
    }

    fn intern(&self, namespace: &Namespace, key: &Key<'_>, own_tags: Option<&Tags>) -> Result<Metric> {
        let shard = Sharding { shards: namespace.options().shards, seed: 0 }.shard_of(key.name);
        let mut state = self.settled();
        if let Some(metric) = state.newest(key).filter(|metric| !metric.is_dropped()) {
            return match metric.own_tags() == own_tags {
                true => Ok(metric),
                false => Err(Error::TagsDiffer(metric.to_string())),
            };
        }
        let id = state.give_out().ok_or(Error::TooManyMetrics)?;
        state.add(key, id, shard, own_tags);
        let metric = state.handle(id).ok_or(Error::TooManyMetrics)?;
        state.note_unmade(&self.hasher, id);
        Ok(metric)
    }
}

#[cfg(all(test, not(loom)))]
mod model;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const OPTIONS: NamespaceOptions = NamespaceOptions { block_ns: 7_200_000_000_000, shards: 4 };

    /// What a commit of version 1 that drops a metric does to its name.
    fn drop_metric(names: &Names, metric: &Metric) {
        assert_eq!(names.set_dropped(std::iter::once(metric.id()), Version(1)), 1);
    }

    fn restore(names: &Names, id: u32, namespace: NamespaceId, name: &[u8]) -> bool {
        names.restore_metric(MetricId(id), namespace, name, None, Version(1)).is_some()
    }

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
        drop_metric(&names, &first);
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
        drop_metric(&names, &first);
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
                assert!(restore(&names, id, namespace.id(), b"m"));
            }
            let ids: Vec<_> = names.ids_of(namespace.id(), b"m").iter().map(|m| m.id().get()).collect();
            assert_eq!(ids, [5, 2, 0], "restored as {order:?}");
            assert_eq!(names.metric(&namespace, b"new").expect("valid").id().get(), 6);
        }
    }

    #[test]
    fn contradictions_in_a_log_are_noticed() {
        let (names, namespace) = names();
        assert!(restore(&names, 3, namespace.id(), b"m"));
        assert!(restore(&names, 3, namespace.id(), b"m"), "made twice is one");
        assert!(!restore(&names, 3, namespace.id(), b"n"));
        assert!(!restore(&names, 4, NamespaceId(9), b"n"));
        assert!(!restore(&names, u32::MAX, namespace.id(), b"n"), "no metric gets this number");
        assert!(!names.restore_namespace(NamespaceId(0), "other", OPTIONS));
    }

    #[test]
    fn two_handles_of_a_metric_see_the_same_flags() {
        let (names, namespace) = names();
        let one = names.metric(&namespace, b"m").expect("valid");
        let other = names.metric(&namespace, b"m").expect("valid");
        one.set_created(Version(7));
        other.set_created(Version(8));
        assert_eq!((one.created(), other.created()), (Version(7), Version(7)), "the first counts");
        assert!(!one.is_dropped());
        drop_metric(&names, &one);
        assert!(one.is_dropped() && other.is_dropped());
        assert_eq!(other.created(), Version(7));
    }

    #[test]
    fn a_handle_is_good_after_its_name_left() {
        let (names, namespace) = names();
        let tags = [(&b"k"[..], &b"v"[..])];
        let metric = names.metric_with_id(&namespace, b"raw", &tags).expect("valid");
        metric.set_created(Version(1));
        drop_metric(&names, &metric);
        assert!(!names.forget_dropped(Version(0)), "somebody may be in a transaction from before");
        assert_eq!(names.metric_by_id(metric.id()), Some(metric.clone()));
        assert!(!names.forget_dropped(Version(1)));
        assert_eq!((names.metric_by_id(metric.id()), names.dropped()), (None, 0));
        assert!(names.ids_of(namespace.id(), b"raw").is_empty());
        assert!(metric.is_dropped() && metric.is_created());
        assert_eq!((metric.name(), metric.tags().collect::<Vec<_>>()), (&b"raw"[..], tags.to_vec()));
        let again = names.metric(&namespace, b"raw").expect("valid");
        assert_eq!((again.id().get(), again.tags().len()), (metric.id().get() + 1, 0));
    }

    #[test]
    fn what_is_put_back_after_its_drop_stands_and_stays() {
        let (names, namespace) = names();
        assert!(restore(&names, 3, namespace.id(), b"m"));
        let metric = names.metric_by_id(MetricId(3)).expect("known");
        drop_metric(&names, &metric);
        assert!(restore(&names, 3, namespace.id(), b"m"));
        assert!(!metric.is_dropped());
        assert!(!names.forget_dropped(Version(1)));
        assert_eq!(names.metric_by_id(MetricId(3)), Some(metric));
    }

    #[test]
    fn a_name_that_nobody_made_leaves_with_its_last_handle() {
        let (names, namespace) = names();
        let name = |n: u32| names.metric(&namespace, format!("m{n}").as_bytes()).expect("valid");
        let (held, made) = (name(0), name(1));
        made.set_created(Version(1));
        let ids = (held.id(), made.id());
        drop(made);
        let forsaken = name(2).id();
        (3..1_000).for_each(|n| drop(name(n)));
        assert!(names.metric_by_id(ids.0).is_some() && names.metric_by_id(ids.1).is_some());
        assert_eq!(names.metric_by_id(forsaken), None);
        let left = (0..names.metrics()).filter(|id| names.group_of(MetricId(*id)).is_some()).count();
        assert!(left < 10, "{left} names are left");
        drop(held);
        (1_000..1_010).for_each(|n| drop(name(n)));
        assert_eq!(names.metric_by_id(ids.0), None);
    }

    #[test]
    fn threads_that_name_the_same_get_the_same() {
        let (names, namespace) = names();
        let name_all = || -> Vec<Metric> {
            let ids = (0..2_000u32).map(|n| format!("m{}{{k=\"{}\"}}", n % 7, n % 1_000));
            ids.map(|id| names.metric(&namespace, id.as_bytes()).expect("valid")).collect()
        };
        let (one, other) = std::thread::scope(|scope| {
            let threads = [scope.spawn(name_all), scope.spawn(name_all)];
            let [one, other] = threads.map(|thread| thread.join().expect("no panic"));
            (one, other)
        });
        assert_eq!(one, other);
        assert_eq!(names.metrics(), 2_000);
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
