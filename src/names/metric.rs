//! Handles of metrics, and the states that they share with the dictionary.
//!
//! A state is 64 bits: whether a commit that makes the metric has been sequenced, and one that drops it; behind that the version of the first that makes
//! it, or, before there is one, how many handles there are. So the dictionary knows of a name that nobody made whether anybody still can.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use crate::mvcc::transaction::Version;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

use super::pages::{Record, States, slot};
use super::{MetricId, Namespace, Tags};

/// Whether a commit that drops the metric has been sequenced.
const DROPPED: u64 = 1 << 63;
/// Whether one that makes it has.
const MADE: u64 = 1 << 62;

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
    /// Its tags, if they are not those that the name says.
    own_tags: Option<Tags>,
    /// Those that the name says, once somebody asked.
    said_tags: OnceLock<Tags>,
    /// The states of the metrics with ids about its own.
    states: Arc<States>,
}

impl Metric {
    /// A handle of what the dictionary knows, under its lock.
    pub(super) fn new(
        database: u64,
        id: MetricId,
        namespace: Namespace,
        record: Record<'_>,
        states: &Arc<States>,
    ) -> Self {
        count_handle(states.of(slot(id)), 1);
        Metric(Arc::new(MetricInfo {
            database,
            id,
            shard: record.shard,
            namespace,
            name: record.name.into(),
            own_tags: record.tags.map(Tags::of_encoded),
            said_tags: OnceLock::new(),
            states: states.clone(),
        }))
    }

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
        self.tag_list().iter()
    }

    /// The namespace it belongs to.
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// Its tags, if they are not those that the name says.
    pub(crate) fn own_tags(&self) -> Option<&Tags> {
        self.0.own_tags.as_ref()
    }

    pub(crate) fn tag_list(&self) -> &Tags {
        let said = || self.0.said_tags.get_or_init(|| Tags::said_by(self.name()));
        self.own_tags().unwrap_or_else(said)
    }

    /// Which of its namespace's shards it belongs to.
    pub(crate) fn shard(&self) -> u32 {
        self.0.shard
    }

    pub(crate) fn belongs_to(&self, database: u64) -> bool {
        self.0.database == database
    }

    pub(crate) fn is_created(&self) -> bool {
        is_made(self.state())
    }

    pub(crate) fn is_dropped(&self) -> bool {
        is_dropped(self.state())
    }

    /// The version of the first commit that made it; 0 if none did.
    pub(crate) fn created(&self) -> Version {
        version_of(self.state())
    }

    /// Notes that the commit of this version makes it, unless one before did. For the log's critical section.
    pub(crate) fn set_created(&self, version: Version) {
        // Others count handles meanwhile; nobody else makes it.
        let made = |state: u64| (!is_made(state)).then_some(state & DROPPED | made_by(version));
        let _ = self.0.state().fetch_update(Ordering::AcqRel, Ordering::Acquire, made);
    }

    fn state(&self) -> u64 {
        self.0.state().load(Ordering::Acquire)
    }
}

impl MetricInfo {
    fn state(&self) -> &AtomicU64 {
        self.states.of(slot(self.id))
    }
}

impl Drop for MetricInfo {
    fn drop(&mut self) {
        // A model that failed unwinds threads that loom does not know any more.
        if !(cfg!(loom) && std::thread::panicking()) {
            count_handle(self.state(), -1);
        }
    }
}

/// The state of a metric that the commit of this version makes.
pub(super) fn made_by(version: Version) -> u64 {
    MADE | version.0 & (MADE - 1)
}

/// Whether nobody made it, and nobody has a handle to do so.
pub(super) fn is_forsaken(state: u64) -> bool {
    state & !DROPPED == 0
}

pub(super) fn is_made(state: u64) -> bool {
    state & MADE != 0
}

pub(super) fn is_dropped(state: u64) -> bool {
    state & DROPPED != 0
}

/// The version that made it; 0 if none did.
fn version_of(state: u64) -> Version {
    Version(if is_made(state) { state & (MADE - 1) } else { 0 })
}

/// For the log's critical section.
pub(super) fn set_dropped(state: &AtomicU64) {
    state.fetch_or(DROPPED, Ordering::AcqRel);
}

/// For recovery.
pub(super) fn set_standing(state: &AtomicU64) {
    state.fetch_and(!DROPPED, Ordering::AcqRel);
}

/// Counts a handle more or less of what nobody made yet.
fn count_handle(state: &AtomicU64, change: i64) {
    let mut seen = state.load(Ordering::Relaxed);
    while !is_made(seen) {
        let next = seen.wrapping_add_signed(change);
        match state.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
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
