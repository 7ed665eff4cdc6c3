//! What the database does by itself about what is in memory: seals blocks that the clock has left, and refreshes sealed ones.

use std::any::Any;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::maintenance::Due;
use crate::maintenance::seal::{self, Block, Unfinished, Written};
use crate::maintenance::survey::{InMemory, Survey};
use crate::mvcc::lane::Freeze;
use crate::mvcc::partition_map::Cover;
use crate::mvcc::transaction::{Transaction, Version};
use crate::mvcc::window::{Window, widths};
use crate::names::{MetricId, NamespaceId};
use crate::planted::Bug;
use crate::report::SealReport;
use crate::scope::{SealProgress, SealScope};
use crate::sealed::{BlockVolume, SealedVolume};
use crate::snapshot::Snapshot;
use crate::store::{Postponed, Store};
use crate::sync::{Arc, Mutex};
use crate::time::Timestamp;

use super::Engine;

/// How often the background looks whether there is something to do.
const INTERVAL: Duration = Duration::from_secs(30);
/// After a failure it waits so long, and each time twice as long, up to ten minutes.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// Between two looks that commits asked for is at least so long.
const PRESSED_PAUSE: Duration = Duration::from_millis(50);
/// What freed less than such a part of what it was to freed nothing.
const FREED_PART: u64 = 4;
/// So many blocks that together are just worth sealing are small.
const SMALL_BLOCKS: u64 = 16;

/// How blocks are sealed.
struct Sealing<'p> {
    until: Until,
    progress: Progress<'p>,
}

/// When sealing ends before all of it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Done,
    /// When there is more in memory than may be, and sealing frees nothing.
    HeldUp,
}

impl Until {
    /// Whether it ends after blocks that freed so much of so much that was in memory of them. What snapshots hold is not freed, and has copies of its
    /// partitions made besides. (Who waits to write holds some, too, and lets go of it soon: so little says nothing.)
    fn is_reached(self, engine: &Engine, freed: u64, of: u64) -> bool {
        let is_over = || engine.core.memory().bytes() > engine.settings().memory_max;
        let is_held = || engine.core.oldest_held().is_some();
        self == Until::HeldUp && freed < of / FREED_PART && is_over() && is_held()
    }
}

/// Told before each block that is sealed; says whether to go on.
pub(crate) type Progress<'p> = &'p mut dyn FnMut(&SealProgress) -> ControlFlow<()>;

/// The state of sealing.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// Held while something is sealed: one at a time.
    pub(super) unfinished: Mutex<Unfinished>,
    seen: Mutex<Seen>,
}

/// What statistics tell of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Blocks written since the database was opened.
    pub(super) blocks: u64,
    pub(super) points: u64,
    pub(super) stream_bytes: u64,
    /// How often in a row the background failed, and why it did last.
    pub(super) failures: u32,
    pub(super) last_error: Option<String>,
}

impl Engine {
    /// Takes over what opening could not finish, which counts as a failure, and asks for the first look, which is overdue.
    pub(crate) fn begin_upkeep(&self, postponed: Option<Postponed>) {
        if let Some(Postponed { installs, error }) = postponed {
            self.upkeep.unfinished.lock().take_over(installs, self.core.names.metrics());
            let mut seen = self.upkeep.seen.lock();
            (seen.failures, seen.last_error) = (1, Some(error.to_string()));
        }
        if self.core.volumes().is_some() && !self.options.read_only {
            self.upkeep_timer.ask(Due { upkeep: Some(Timestamp::MIN), ..Due::default() });
        }
    }

    /// Seals what is in memory of the blocks of a scope. `progress` is told before each block, and says whether to go on.
    ///
    /// # Errors
    /// [`Error::ForeignNamespace`]; those of [`seal::seal`].
    pub(crate) fn seal(engine: &Arc<Self>, scope: &SealScope, progress: Progress<'_>) -> Result<SealReport> {
        engine.check_scope(scope)?;
        let wanted = |in_memory: &InMemory, _| scope.has(&in_memory.block.namespace, in_memory.block.cover);
        let on_demand = Sealing { until: Until::Done, progress };
        Engine::seal_where(engine, engine.now(), wanted, |_| Ok(Vec::new()), on_demand)
    }

    /// Writes sealed blocks of a scope anew: those with something in memory, those with metrics that are gone, and those whose supplement is damaged.
    ///
    /// # Errors
    /// As [`Engine::seal`].
    pub(crate) fn refresh(
        engine: &Arc<Self>,
        scope: &SealScope,
        progress: Progress<'_>,
    ) -> Result<SealReport> {
        engine.check_scope(scope)?;
        let wanted = |in_memory: &InMemory, _| {
            in_memory.is_sealed && scope.has(&in_memory.block.namespace, in_memory.block.cover)
        };
        let on_demand = Sealing { until: Until::Done, progress };
        Engine::seal_where(engine, engine.now(), wanted, |_| engine.stale(scope), on_demand)
    }

    fn check_scope(&self, scope: &SealScope) -> Result<()> {
        match scope.only() {
            Some(other) if !other.belongs_to(self.core.names.database()) => {
                Err(Error::ForeignNamespace(other.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Does what is due, as far as it goes, and asks for the next look. The waits between looks begin when this one has ended.
    pub(super) fn look_after(engine: &Arc<Self>, now: impl Fn() -> Timestamp) -> Result<()> {
        let is_held_up = engine.is_held_up();
        engine.begin_look(is_held_up);
        let told = |work: &dyn Fn() -> Result<()>| {
            catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
                engine.look_failed(now(), panic_message(&*panic));
                resume_unwind(panic)
            })
        };
        let done = told(&|| {
            engine.core.forget_names();
            if is_held_up { Ok(()) } else { Engine::seal_due(engine, now()) }
        });
        let after = now();
        match &done {
            Ok(()) => {
                let mut seen = engine.upkeep.seen.lock();
                (seen.failures, seen.last_error) = (0, None);
                drop(seen);
                engine.looked_after(after + PRESSED_PAUSE);
                engine.upkeep_timer.ask(Due { upkeep: Some(after + INTERVAL), ..Due::default() });
            }
            Err(error) => engine.look_failed(after, error.to_string()),
        }
        done.and(told(&|| Engine::checkpoint_if_due(engine, now())))
    }

    /// Notes that a look failed, and asks for another: each time later, but soon if commits need room.
    pub(super) fn look_failed(&self, after: Timestamp, error: String) {
        let mut seen = self.upkeep.seen.lock();
        seen.last_error = Some(error);
        seen.failures = seen.failures.saturating_add(1);
        let wait = RETRY_AFTER.saturating_mul(1 << (seen.failures - 1).min(16)).min(RETRY_AFTER_MAX);
        drop(seen);
        self.looked_after(after + RETRY_AFTER);
        self.upkeep_timer.ask(Due { upkeep: Some(after + wait), ..Due::default() });
    }

    /// Seals the blocks that the clock has left, and refreshes others until what is in memory over sealed blocks is little.
    fn seal_due(engine: &Arc<Self>, now: Timestamp) -> Result<()> {
        let is_left = |in_memory: &InMemory, left| !in_memory.is_sealed && in_memory.block.cover.last < left;
        let mut go_on = |_: &SealProgress| ControlFlow::Continue(());
        let until = Until::HeldUp;
        // A block that fails keeps none of the others from being sealed.
        let sealing = Sealing { until, progress: &mut go_on };
        let left = Engine::seal_where(engine, now, is_left, |_| Ok(Vec::new()), sealing);
        let room = Engine::make_room(engine, now);
        if engine.is_held_up() {
            return left.map(drop).and(room);
        }
        let others = |survey: &Survey| {
            let transaction = engine.core.load();
            let mut others = engine.most_late_blocks(survey);
            others.extend(engine.left_frozen(&transaction, survey));
            others.extend(engine.mostly_gone(&transaction));
            Ok(others)
        };
        let sealing = Sealing { until, progress: &mut go_on };
        let others = Engine::seal_where(engine, now, |_, _| false, others, sealing);
        left.and(room).and(others).map(drop)
    }

    /// The sealed blocks with the most late writes and deletes, if there are too many of these: enough to leave half of what may be.
    fn most_late_blocks(&self, survey: &Survey) -> Vec<Block> {
        let mut late: Vec<&InMemory> = survey.blocks().filter(|in_memory| in_memory.is_sealed).collect();
        let mut bytes: u64 = late.iter().map(|late| late.bytes).sum();
        let enough = match bytes > self.settings().refresh_bytes {
            true => self.settings().refresh_bytes / 2,
            false => bytes,
        };
        late.sort_by_key(|late| late.bytes);
        let mut targets = Vec::new();
        while let Some(largest) = late.pop().filter(|_| bytes > enough) {
            bytes -= largest.bytes;
            targets.push(largest.block.clone());
        }
        targets
    }

    /// Blocks that are frozen of which there is nothing, neither in memory nor in a volume, as the metrics were dropped after a seal had failed. Nothing else
    /// asks for them, and as long as a freeze is noted, lanes remember each metric that is made.
    fn left_frozen(&self, transaction: &Transaction, survey: &Survey) -> Vec<Block> {
        let freezes = self.core.freezes();
        if freezes.is_empty() {
            return Vec::new();
        }
        let in_memory = survey.blocks().map(|in_memory| {
            let Block { namespace, shard, cover, .. } = &in_memory.block;
            (namespace.id(), *shard, *cover)
        });
        let sealed = transaction.volumes.iter().map(|volume| volume.block());
        let sealed = sealed.map(|block| (block.namespace, block.shard, block.cover));
        let there: Vec<_> = in_memory.chain(sealed).collect();
        let block = |(namespace, shard, Freeze { block: cover, .. })| {
            let is_there = |other: &(NamespaceId, u32, Cover)| {
                (other.0, other.1) == (namespace, shard) && other.2.overlaps(cover)
            };
            let namespace =
                self.core.names.namespace_by_id(namespace).filter(|_| !there.iter().any(is_there))?;
            let widths = widths(namespace.options().block_ns);
            let width_ns =
                widths.into_iter().find(|width_ns| Window::new(*width_ns).of(cover.first) == cover)?;
            Some(Block { namespace, shard, cover, width_ns })
        };
        freezes.into_iter().filter_map(block).collect()
    }

    /// Seals blocks early, oldest first, if too much is in memory: until it is half of what may be. Small blocks come after all others, and neither
    /// are sealed if it frees little: when old snapshots hold the rest, each commit would else have whole volumes written anew.
    fn make_room(engine: &Arc<Self>, now: Timestamp) -> Result<()> {
        let used = engine.core.memory().bytes();
        if used <= engine.pressed_from() || engine.core.volumes().is_none() || engine.is_held_up() {
            return Ok(());
        }
        let survey = Survey::new(&engine.core, &engine.core.load());
        let damaged = engine.upkeep.unfinished.lock().damaged();
        let is_sound = |in_memory: &&InMemory| damaged.iter().all(|block| !block.contains(&in_memory.block));
        let mut oldest: Vec<&InMemory> = survey.blocks().filter(is_sound).collect();
        oldest.sort_by_key(|in_memory| in_memory.block.cover.first);
        let (small, large): (Vec<&InMemory>, Vec<&InMemory>) =
            oldest.into_iter().partition(|in_memory| in_memory.bytes < engine.worth_sealing() / SMALL_BLOCKS);
        let mut left = used;
        let mut chosen = BTreeSet::new();
        for group in [large, small] {
            if group.iter().map(|in_memory| in_memory.bytes).sum::<u64>() < engine.worth_sealing() {
                continue;
            }
            for in_memory in group {
                if left <= engine.settings().memory_max / 2 {
                    break;
                }
                left = left.saturating_sub(in_memory.bytes);
                chosen.insert(in_memory.block.key());
            }
        }
        if chosen.is_empty() {
            engine.nothing_to_seal(used, false);
            return Ok(());
        }
        let is_chosen = |in_memory: &InMemory, _| chosen.contains(&in_memory.block.key());
        let sealing = Sealing { until: Until::HeldUp, progress: &mut |_| ControlFlow::Continue(()) };
        Engine::seal_where(engine, now, is_chosen, |_| Ok(Vec::new()), sealing).map(drop)
    }

    /// Seals the blocks that `wanted` accepts, and others. `wanted` is told until when time has surely gone on: the clock, or the latest point if that
    /// is earlier, less what may come late. Both choose when nobody else seals any more: what is chosen before may be a part of a block by then.
    fn seal_where(
        engine: &Arc<Self>,
        clock: Timestamp,
        wanted: impl Fn(&InMemory, i64) -> bool,
        others: impl FnOnce(&Survey) -> Result<Vec<Block>>,
        Sealing { until, progress }: Sealing<'_>,
    ) -> Result<SealReport> {
        let Some(store) = engine.core.volumes() else { return Ok(SealReport::default()) };
        let started = Instant::now();
        let mut unfinished = engine.upkeep.unfinished.lock();
        let mut report = SealReport::default();
        // Attempts that were given up: no transaction ever had them. They may be what fills the disk.
        let given_up = store.remove_superseded(Version::default());
        seal::finish(&engine.core, &mut unfinished)?;
        let transaction = engine.core.load();
        let survey = Survey::new(&engine.core, &transaction);
        let left = engine.left(clock, &survey);
        let others = others(&survey)?;
        let targets = survey.targets(&transaction, left, |in_memory| wanted(in_memory, left));
        drop(transaction);
        let mut seen = BTreeSet::new();
        let targets: Vec<&Block> =
            targets.iter().chain(&others).filter(|block| seen.insert(block.key())).collect();
        let blocks = targets.len() as u64;
        // So much had been freed when it was last looked at, and so much was in memory of what was sealed since.
        let (mut freed_before, mut of) = (engine.core.memory().freed(), 0);
        let mut failed = given_up.err();
        for block in targets {
            if engine.upkeep_timer.is_stopped() || progress(&report.before(block, blocks)).is_break() {
                report.left = blocks - report.blocks;
                break;
            }
            // By now it may be a part of one that was sealed before it.
            if !block.is_one(&engine.core.load()) {
                report.left += 1;
                continue;
            }
            let snapshot = || Snapshot::new(engine.clone());
            match seal::seal(&engine.core, store, block, snapshot, &mut unfinished) {
                Ok(written) => {
                    engine.upkeep.seen.lock().add(written);
                    report.add(written);
                }
                Err(error) => {
                    let concerns_others = !error.is_of_one_block();
                    failed.get_or_insert(error);
                    if concerns_others {
                        break;
                    }
                    continue;
                }
            }
            of += survey.bytes_in(block);
            if of < engine.worth_sealing() / 2 {
                continue;
            }
            let freed = engine.core.memory().freed();
            if until.is_reached(engine, freed - freed_before, of) {
                engine.nothing_to_seal(engine.core.memory().bytes(), true);
                report.left = blocks - report.blocks;
                break;
            }
            (freed_before, of) = (freed, 0);
        }
        let removed = engine.remove_superseded();
        drop(unfinished);
        report.elapsed = started.elapsed();
        failed.or(removed.err()).map_or(Ok(report), Err)
    }

    /// Removes the files of volumes that nobody needs any more: neither a snapshot, nor the log, nor the last checkpoint, which other processes may be reading. Nobody may
    /// seal or write a checkpoint meanwhile.
    pub(super) fn remove_superseded(&self) -> Result<()> {
        let Some(store) = self.core.volumes().filter(|store| store.superseded() > 0) else { return Ok(()) };
        if let Some(checkpoint) = self.store.as_ref().and_then(Store::checkpoint_version) {
            // The log is durable up to there.
            return store.remove_superseded(checkpoint).map(drop);
        }
        // Their successors' installs must be durable before they go.
        let version = self.core.load().version;
        if !self.options.planted.has(Bug::RemoveBeforeInstallIsDurable) {
            self.core.flush(true)?;
        }
        store.remove_superseded(version).map(drop)
    }

    /// Until when time has surely gone on.
    fn left(&self, clock: Timestamp, survey: &Survey) -> i64 {
        let past = i64::try_from(self.settings().buffer_past.as_nanos()).unwrap_or(i64::MAX);
        let newest = survey.newest().unwrap_or(i64::MIN);
        newest.min(clock.as_nanos()).saturating_sub(past)
    }

    /// The sealed blocks whose volumes have metrics that do not name them any more, or do not tell which they have.
    fn stale(&self, scope: &SealScope) -> Result<Vec<Block>> {
        let transaction = self.core.load();
        let mut stale = Vec::new();
        for volume in transaction.volumes.iter() {
            let &BlockVolume { shard, cover, width_ns, namespace, .. } = volume.block();
            let Some(namespace) = self.core.names.namespace_by_id(namespace) else { continue };
            if !scope.has(&namespace, cover) {
                continue;
            }
            let is_stale = match volume.metric_ids() {
                Ok(metrics) => !metrics.into_iter().all(|metric| names(&transaction, metric, volume)),
                // Its metrics are found by their IDs; what is written anew has a sound supplement.
                Err(Error::Corrupt { .. } | Error::NewerFormat { .. }) => true,
                Err(error) => return Err(error),
            };
            if is_stale {
                stale.push(Block { namespace, shard, cover, width_ns });
            }
        }
        Ok(stale)
    }

    /// The sealed blocks at least half of whose metrics do not name them any more, as they were dropped or their points deleted: written anew, they
    /// take what is left, and nothing if that is nothing. Of volumes whose metrics nobody counted yet one is counted at each look.
    fn mostly_gone(&self, transaction: &Transaction) -> Vec<Block> {
        let volumes = || transaction.volumes.iter();
        let is_half_gone =
            |volume: &SealedVolume| volume.is_half_gone(|metric| names(transaction, metric, volume));
        // One that cannot be read keeps none of the others from being counted.
        let mut uncounted = volumes().filter(|volume| volume.is_uncounted());
        let counted = uncounted.find(|volume| is_half_gone(volume).is_ok());
        let mut blocks = Vec::new();
        for volume in counted.into_iter().chain(volumes().filter(|volume| volume.may_be_half_gone())) {
            // Damage of its table is for `verify` to tell, and for who refreshes it on demand.
            let is_half_gone = is_half_gone(volume);
            let &BlockVolume { shard, cover, width_ns, namespace, .. } = volume.block();
            if is_half_gone.unwrap_or(false)
                && let Some(namespace) = self.core.names.namespace_by_id(namespace)
            {
                blocks.push(Block { namespace, shard, cover, width_ns });
            }
        }
        blocks
    }

    /// What statistics tell of sealing.
    pub(super) fn sealing_seen(&self) -> Seen {
        self.upkeep.seen.lock().clone()
    }
}

/// Whether a metric has what a volume has of it.
fn names(transaction: &Transaction, metric: MetricId, volume: &SealedVolume) -> bool {
    let BlockVolume { id, cover, .. } = volume.block();
    transaction.map(metric).is_some_and(|map| map.base().around(cover.first).1 == Some(*id))
}

/// What is told of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let literal = panic.downcast_ref::<&str>().copied();
    let message = literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a panic: {}", message.unwrap_or("of an unknown kind"))
}

impl Seen {
    fn add(&mut self, written: Written) {
        self.blocks += 1;
        self.points += written.points;
        self.stream_bytes += written.stream_bytes;
    }
}

impl SealReport {
    /// What is told before a block.
    fn before(&self, block: &Block, blocks: u64) -> SealProgress {
        let Block { namespace, shard, cover, .. } = block;
        let (first, last) = (Timestamp::from_nanos(cover.first), Timestamp::from_nanos(cover.last));
        let (namespace, shard) = (namespace.clone(), *shard);
        SealProgress { done: self.blocks, blocks, points: self.points, namespace, shard, first, last }
    }

    fn add(&mut self, written: Written) {
        self.blocks += 1;
        self.metrics += written.metrics;
        self.points += written.points;
        self.stream_bytes += written.stream_bytes;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::io::SimulatedDisk;
    use crate::options::Options;

    #[test]
    fn a_block_that_became_a_part_of_another_is_not_sealed() {
        let options = Options::new().workers(0).shards(1);
        let db = options.open_on(std::sync::Arc::new(SimulatedDisk::new(1)), "/db").expect("opens");
        let metric = db.metric("m").expect("a name");
        let first = Timestamp::from_secs(1_700_006_400);
        let later = first + Duration::from_secs(10 * 86_400);
        for hour in 0..10 {
            db.append(&metric, first + Duration::from_secs(hour * 3_600), 1.0).expect("commits");
        }
        let engine = db.engine();
        let chosen =
            Survey::new(&engine.core, &engine.core.load()).blocks().next().expect("one").block.clone();
        // So that the clock has left the day.
        db.append(&metric, later, 2.0).expect("commits");
        db.seal(..).expect("seals");
        let wide =
            |transaction: &Transaction| transaction.volumes.iter().next().expect("one").block().width_ns;
        assert!(wide(&engine.core.load()) > chosen.width_ns);

        let mut go_on = |_: &SealProgress| ControlFlow::Continue(());
        let sealing = Sealing { until: Until::Done, progress: &mut go_on };
        let others = |_: &Survey| Ok(vec![chosen.clone()]);
        let report = Engine::seal_where(engine, first, |_, _| false, others, sealing).expect("nothing to do");
        assert_eq!((report.blocks, report.left), (0, 1));
        assert_eq!(db.snapshot().range(&metric, ..later).filter(Result::is_ok).count(), 10);
    }
}
