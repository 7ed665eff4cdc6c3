//! Whether a store holds what it must, given the acknowledgements.
//!
//! The state is rebuilt from the seed, which the store names, and from each writer's progress, which is in the store
//! as well: recovery keeps a prefix of all commits, so the ops in the store are those up to each writer's progress,
//! and no acknowledged op may be beyond it. Then every point, metric and piece of metadata is compared:
//!
//! * A writer's private metrics and metadata must be exactly what its ops make, in their order.
//! * An account must have what all transfers make of it: one that is lost or counted twice shows, whatever their order.
//! * A shared metric must be what some order of the ops makes that the acknowledged versions allow (`cells`).

use std::collections::{BTreeMap, BTreeSet};

use chronolith::{Database, Metric, MetricId, Point, Result, Snapshot, Timestamp};

use super::acks::{Ack, Lines, Span};
use super::cells::{Cell, Content, Effect, Order, Touch, content, note_of, text};
use super::workload::{
    ACCOUNTS, Account, Edit, NAMESPACE, Op, PRIVATE_METRICS, SHARED_METRICS, SHARED_SLOTS, Target,
    account_timestamp, progress_writer, shared_slot, shared_timestamp, shared_writer_and_number,
};

/// The key under which a store names the seed of its ops, in decimal digits.
pub(crate) const SEED_KEY: &[u8] = b"seed";

/// The seed that the store's ops come from; `None` before the first run has begun.
///
/// # Errors
/// The text of what stands there instead of a seed.
pub(crate) fn seed_of(snapshot: &Snapshot) -> Result<Option<u64>, String> {
    let Some(bytes) = snapshot.meta(SEED_KEY) else { return Ok(None) };
    let seed = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    seed.map(Some).ok_or_else(|| format!("metadata seed: expected a number, found {:?}", text(bytes)))
}

/// What is wrong with the store, one text each; nothing if all is well.
///
/// # Errors
/// Those of reading the store, which are as bad as a wrong point.
pub(crate) fn violations(db: &Database, acks: &[Ack]) -> Result<Vec<String>> {
    let snapshot = db.snapshot();
    let mut found = Vec::new();
    let seed = match seed_of(&snapshot) {
        Ok(seed) => seed,
        Err(violation) => return Ok(vec![violation]),
    };
    if let Some(ack) = acks.iter().find(|ack| seed != Some(ack.seed)) {
        return Ok(vec![format!("{ack}: expected in a store with this seed, found the seed {seed:?}")]);
    }
    let progress = progress(&snapshot, &mut found);
    if seed.is_none() && !progress.is_empty() {
        found.push("metadata seed: expected a number, found nothing".into());
    }
    let lines = Lines::new(acks, snapshot.version().get(), &progress, &mut found);
    let expected = Expected::rebuild(seed.unwrap_or(0), &progress, &lines);
    expected.compare_metadata(&snapshot, seed, &mut found);
    expected.compare_private(&snapshot, &mut found)?;
    expected.compare_shared(&snapshot, &lines, &mut found)?;
    let known = expected.targets().filter_map(|target| resolve(&snapshot, target)).map(|metric| metric.id());
    let known: BTreeSet<MetricId> = known.collect();
    let invented = snapshot.metrics().filter(|metric| !known.contains(&metric.id()));
    found.extend(invented.map(|metric| format!("metric {metric}: expected none, found one")));
    Ok(found)
}

/// Each writer's last op in the store.
fn progress(snapshot: &Snapshot, found: &mut Vec<String>) -> BTreeMap<u32, u64> {
    let mut progress = BTreeMap::new();
    for (key, value) in snapshot.metas() {
        let Some(writer) = progress_writer(key) else { continue };
        match std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()) {
            Some(number) => drop(progress.insert(writer, number)),
            None => found.push(format!("metadata {}: expected a number, found {:?}", text(key), text(value))),
        }
    }
    progress
}

/// What the ops in the store make.
struct Expected {
    writers: Vec<u32>,
    /// Private metrics, and those of accounts, that exist.
    private: BTreeMap<Target, BTreeMap<Timestamp, Content>>,
    /// Private metadata, and that of accounts.
    metas: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What transfers have made of each account that they touched.
    accounts: BTreeMap<Account, i64>,
    /// The points of shared metrics, and (without slot) whether they exist.
    cells: BTreeMap<(u32, Option<u32>), Cell>,
}

impl Expected {
    fn rebuild(seed: u64, progress: &BTreeMap<u32, u64>, lines: &Lines) -> Expected {
        let mut cells = BTreeMap::new();
        for metric in 0..SHARED_METRICS {
            for slot in (0..SHARED_SLOTS).map(Some).chain([None]) {
                cells.insert((metric, slot), Cell::default());
            }
        }
        let writers = progress.keys().copied().collect();
        let (private, metas, accounts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut expected = Expected { writers, private, metas, accounts, cells };
        for (writer, last) in progress {
            for number in 1..=*last {
                let op = Op::of(seed, *writer, number);
                let mut shared = BTreeMap::new();
                for edit in op.edits {
                    expected.apply(edit, &mut shared);
                }
                if !shared.is_empty() {
                    let span = lines.span(*writer, number);
                    for (cell, effect) in shared {
                        let touch = Touch { writer: *writer, number, span, effect };
                        expected.cells.entry(cell).or_default().touch(touch);
                    }
                }
            }
        }
        for (account, balance) in &expected.accounts {
            match account {
                Account::Point(metric) => {
                    let content = ((*balance as f64).to_bits(), None);
                    expected.private.entry(*metric).or_default().insert(account_timestamp(), content);
                }
                Account::Meta(key) => {
                    expected.metas.insert(key.clone(), balance.to_string().into_bytes());
                }
            }
        }
        expected
    }

    /// Private effects happen at once; shared ones are left in `shared`, the last of the op on each cell.
    fn apply(&mut self, edit: Edit, shared: &mut BTreeMap<(u32, Option<u32>), Effect>) {
        match edit {
            Edit::Append(metric, at, value) => self.put(metric, at, (value.to_bits(), None), shared),
            Edit::Annotated(metric, at, value, note) => {
                self.put(metric, at, (value.to_bits(), note_of(&note)), shared)
            }
            Edit::Columns(metric, at, values) => {
                for (at, value) in at.into_iter().zip(values) {
                    self.put(metric, at, (value.to_bits(), None), shared);
                }
            }
            Edit::Row(at, row) => {
                for (metric, value) in row {
                    self.put(metric, at, (value.to_bits(), None), shared);
                }
            }
            Edit::Delete(Target::Shared(metric), bounds) => {
                use std::ops::RangeBounds;
                for slot in (0..SHARED_SLOTS).filter(|slot| bounds.contains(&shared_timestamp(*slot))) {
                    shared.insert((metric, Some(slot)), Effect::Remove);
                }
            }
            Edit::Delete(metric, bounds) => {
                use std::ops::RangeBounds;
                if let Some(points) = self.private.get_mut(&metric) {
                    points.retain(|at, _| !bounds.contains(at));
                }
            }
            Edit::Drop(Target::Shared(metric)) => {
                for slot in (0..SHARED_SLOTS).map(Some).chain([None]) {
                    shared.insert((metric, slot), Effect::Remove);
                }
            }
            Edit::Drop(metric) => drop(self.private.remove(&metric)),
            Edit::Create(Target::Shared(metric)) => drop(shared.insert((metric, None), Effect::Exist)),
            Edit::Create(metric) => drop(self.private.entry(metric).or_default()),
            Edit::PutMeta(key, value) => drop(self.metas.insert(key, value)),
            Edit::RemoveMeta(key) => drop(self.metas.remove(&key)),
            Edit::Add(account, amount) => *self.accounts.entry(account).or_default() += amount,
        }
    }

    fn put(
        &mut self,
        metric: Target,
        at: Timestamp,
        content: Content,
        shared: &mut BTreeMap<(u32, Option<u32>), Effect>,
    ) {
        match metric {
            Target::Shared(index) => {
                shared.insert((index, None), Effect::Exist);
                shared.insert((index, shared_slot(at)), Effect::Put(content));
            }
            Target::Private { .. } | Target::Account(_) => {
                drop(self.private.entry(metric).or_default().insert(at, content))
            }
        }
    }

    /// All metrics that there can be.
    fn targets(&self) -> impl Iterator<Item = Target> {
        let private = |writer: u32| (0..PRIVATE_METRICS).map(move |index| Target::Private { writer, index });
        let others = (0..SHARED_METRICS).map(Target::Shared).chain((0..ACCOUNTS).map(Target::Account));
        self.writers.iter().copied().flat_map(private).chain(others)
    }

    fn compare_metadata(&self, snapshot: &Snapshot, seed: Option<u64>, found: &mut Vec<String>) {
        let mut metas: BTreeMap<&[u8], &[u8]> = snapshot.metas().collect();
        if seed.is_some() {
            metas.remove(SEED_KEY);
        }
        for (key, value) in &self.metas {
            match metas.remove(key.as_slice()) {
                Some(there) if there == value && snapshot.meta(key) == Some(value) => {}
                there => found.push(format!(
                    "metadata {}: expected {:?}, found {:?}",
                    text(key),
                    text(value),
                    there.map(text)
                )),
            }
        }
        found.extend(metas.iter().map(|(key, value)| {
            format!("metadata {}: expected nothing, found {:?}", text(key), text(value))
        }));
    }

    fn compare_private(&self, snapshot: &Snapshot, found: &mut Vec<String>) -> Result<()> {
        for target in self.targets().filter(|target| !matches!(target, Target::Shared(_))) {
            let points = match (self.private.get(&target), resolve(snapshot, target)) {
                (None, None) => continue,
                (None, Some(_)) => {
                    found.push(format!("metric {target}: expected none, found one"));
                    continue;
                }
                (Some(_), None) => {
                    found.push(format!("metric {target}: expected one, found none"));
                    continue;
                }
                (Some(expected), Some(metric)) => (expected, read(snapshot, &metric, target, found)?),
            };
            let (expected, there) = points;
            let all: BTreeSet<Timestamp> = expected.keys().chain(there.keys()).copied().collect();
            for at in all {
                let (expected, there) = (expected.get(&at), there.get(&at));
                if expected != there {
                    found.push(format!(
                        "metric {target} at {at}: expected {}, found {}",
                        content(expected),
                        content(there)
                    ));
                }
            }
        }
        Ok(())
    }

    fn compare_shared(&self, snapshot: &Snapshot, lines: &Lines, found: &mut Vec<String>) -> Result<()> {
        let mut order = Order::default();
        for index in 0..SHARED_METRICS {
            let target = Target::Shared(index);
            let metric = resolve(snapshot, target);
            let there = match &metric {
                Some(metric) => read(snapshot, metric, target, found)?,
                None => BTreeMap::new(),
            };
            for at in there.keys().filter(|at| shared_slot(**at).is_none()) {
                found.push(format!(
                    "metric {target} at {at}: expected nothing, found {}",
                    content(there.get(at))
                ));
            }
            for slot in (0..SHARED_SLOTS).map(Some).chain([None]) {
                let Some(cell) = self.cells.get(&(index, slot)) else { continue };
                let (place, effect) = match slot {
                    None => (String::new(), metric.as_ref().map_or(Effect::Remove, |_| Effect::Exist)),
                    Some(slot) => {
                        let at = shared_timestamp(slot);
                        let effect = there.get(&at).cloned().map_or(Effect::Remove, Effect::Put);
                        (format!(" at {at}"), effect)
                    }
                };
                if let Err(violation) = cell.compare(&effect, &mut order) {
                    let writer = match &effect {
                        Effect::Put((bits, _)) => shared_writer_and_number(f64::from_bits(*bits)),
                        _ => None,
                    };
                    let whose = writer.map_or_else(String::new, |(writer, number)| {
                        let Span { first, last } = lines.span(writer, number);
                        format!(" of writer {writer} op {number} (version {first} to {last})")
                    });
                    found.push(format!("metric {target}{place}: {violation}, found {effect}{whose}"));
                }
            }
        }
        found.extend(order.contradiction());
        Ok(())
    }
}

/// The metric in this snapshot, by its ID.
pub(crate) fn resolve(snapshot: &Snapshot, target: Target) -> Option<Metric> {
    let id = target.id();
    match target.namespace() {
        None => snapshot.metric(id),
        Some(_) => snapshot.metric_in(&snapshot.namespace(NAMESPACE)?, id),
    }
}

/// All points of a metric; forward, backward and in blocks it must be the same.
fn read(
    snapshot: &Snapshot,
    metric: &Metric,
    target: Target,
    found: &mut Vec<String>,
) -> Result<BTreeMap<Timestamp, Content>> {
    let forward = snapshot.range(metric, ..).collect::<Result<Vec<Point>>>()?;
    let mut backward = snapshot.range(metric, ..).rev().collect::<Result<Vec<Point>>>()?;
    backward.reverse();
    let mut columns = Vec::new();
    for block in snapshot.blocks(metric, ..) {
        let block = block?;
        let mut notes = block.annotations().iter().peekable();
        for (index, (at, value)) in block.timestamps().iter().zip(block.values()).enumerate() {
            let note = notes.next_if(|(place, _)| *place as usize == index).map(|(_, note)| note.clone());
            columns.push(Point { at: Timestamp::from_nanos(*at), value: *value, annotation: note });
        }
    }
    let same = |a: &[Point], b: &[Point]| a.iter().map(bits).eq(b.iter().map(bits));
    if !same(&forward, &backward) {
        found.push(format!("metric {target}: other points backward than forward"));
    }
    if !same(&forward, &columns) {
        found.push(format!("metric {target}: other points in blocks than in a range"));
    }
    if forward.iter().zip(forward.iter().skip(1)).any(|(a, b)| a.at >= b.at) {
        found.push(format!("metric {target}: points are not in time order"));
    }
    Ok(forward.iter().map(bits).map(|(at, bits, note)| (at, (bits, note.map(<[u8]>::to_vec)))).collect())
}

fn bits(point: &Point) -> (Timestamp, u64, Option<&[u8]>) {
    (point.at, point.value.to_bits(), point.annotation.as_deref())
}
