//! The limit of memory: commits wait until sealing has made room.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::maintenance::Due;
use crate::mvcc::transaction::Version;
use crate::sync::{Condvar, Mutex};
use crate::time::Timestamp;

use super::Engine;

/// A waiting commit looks again after so long, if nobody tells it to: memory is also freed by readers, who tell nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// From so many samples of the version on, those are dropped that say little.
const SAMPLES: usize = 1_024;
/// Such a part of its own age may lie between the samples around a dropped one.
const SAMPLE_AGES: u32 = 16;

/// Who waits for memory, and since when versions are held.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// Whether the background was asked to make room, and has not yet looked.
    asked: AtomicBool,
    next: Mutex<Next>,
    /// How many commits had to wait.
    waits: AtomicU64,
    /// Versions, ascending, and when each was first seen.
    samples: Mutex<VecDeque<(Version, Instant)>>,
    /// Notified when something was sealed.
    freed: Condvar,
}

/// When looking for room is worth it again.
#[derive(Debug, Default)]
struct Next {
    /// Not before this time, if it is set.
    at: Option<Timestamp>,
    /// Why not while all is as it was.
    stuck: Option<Stuck>,
}

/// Sealing for room was of no use.
#[derive(Clone, Copy, Debug)]
struct Stuck {
    /// So much was in memory.
    used: u64,
    /// The oldest version that was held.
    held: Option<Version>,
    /// Whether there was something to seal, and snapshots held that.
    is_held_up: bool,
}

impl Engine {
    /// Waits until there is room in memory, if a commit adds points: others may be what makes room. Who gets no answer from the commit but an
    /// error is not kept waiting.
    ///
    /// # Errors
    /// [`Error::MemoryLimit`]: there is none, or none in time.
    pub(super) fn await_memory(&self, adds_points: bool) -> Result<()> {
        let used = self.core.memory().bytes();
        if used <= self.pressed_from() {
            return Ok(());
        }
        self.ask_for_room(used);
        if used <= self.settings().memory_max || !adds_points {
            return Ok(());
        }
        let can_wait = self.core.volumes().is_some() && self.options.workers > 0;
        let began = Instant::now();
        self.pressure.waits.fetch_add(u64::from(can_wait), Ordering::Relaxed);
        loop {
            let used = self.core.memory().bytes();
            if used <= self.settings().memory_max || self.core.refuses_commits() {
                return Ok(());
            }
            if !can_wait || began.elapsed() >= self.settings().memory_wait {
                self.sample(Instant::now());
                let oldest_snapshot = self.oldest_snapshot_age();
                return Err(Error::MemoryLimit { used, max: self.settings().memory_max, oldest_snapshot });
            }
            self.ask_for_room(used);
            let samples = self.pressure.samples.lock();
            drop(self.pressure.freed.wait_for(samples, LOOK_AGAIN));
        }
    }

    /// From how many bytes on blocks are sealed early.
    pub(super) fn pressed_from(&self) -> u64 {
        self.settings().memory_max / 4 * 3
    }

    /// Of how many bytes on sealing for room is worth its cost.
    pub(super) fn worth_sealing(&self) -> u64 {
        self.settings().memory_max / 16
    }

    /// Tells the background, once, that there is too much in memory, if there may be something to do about it.
    fn ask_for_room(&self, used: u64) {
        if self.pressure.asked.load(Ordering::Relaxed) {
            return;
        }
        let next = self.pressure.next.lock();
        if !next.stuck.is_some_and(|stuck| self.is_stuck(stuck, used))
            && !self.pressure.asked.swap(true, Ordering::Relaxed)
        {
            self.upkeep_timer.ask(Due { upkeep: Some(next.at.unwrap_or(Timestamp::MIN)), ..Due::default() });
        }
    }

    /// The background begins to look: asking it is of no use now.
    pub(super) fn begin_look(&self, is_held_up: bool) {
        let mut next = self.pressure.next.lock();
        if !is_held_up {
            next.stuck = None;
        }
        drop(next);
        self.pressure.asked.store(true, Ordering::Relaxed);
    }

    /// Whether there is more in memory than may be and nothing has changed since sealing freed nothing, as snapshots hold it: to seal more would only have
    /// copies made.
    pub(super) fn is_held_up(&self) -> bool {
        let used = self.core.memory().bytes();
        let stuck = self.pressure.next.lock().stuck.filter(|stuck| stuck.is_held_up);
        used > self.settings().memory_max && stuck.is_some_and(|stuck| self.is_stuck(stuck, used))
    }

    /// Whether all is as it was when the last look was of no use.
    fn is_stuck(&self, Stuck { used: then, held, is_held_up }: Stuck, used: u64) -> bool {
        used.abs_diff(then) < self.worth_sealing()
            && held == self.core.oldest_held_at_publication()
            // With so much in memory nothing is published any more that would tell that it is not held.
            && (!is_held_up || self.core.oldest_held().is_some())
    }

    /// The background found nothing worth sealing though so much is in memory or, if `is_held_up`, freed nothing by it.
    pub(super) fn nothing_to_seal(&self, used: u64, is_held_up: bool) {
        let held = self.core.oldest_held_at_publication();
        self.pressure.next.lock().stuck = Some(Stuck { used, held, is_held_up });
    }

    /// The background has looked, and is not to be asked again before this time.
    pub(super) fn looked_after(&self, next: Timestamp) {
        self.pressure.next.lock().at = Some(next);
        self.pressure.asked.store(false, Ordering::Relaxed);
        self.sample(Instant::now());
        self.pressure.freed.notify_all();
    }

    /// How many commits waited for room since the database was opened.
    pub(super) fn memory_waits(&self) -> u64 {
        self.pressure.waits.load(Ordering::Relaxed)
    }

    /// For how long at least the oldest snapshot has been held: it was taken before a later version was seen. Versions are sampled when the
    /// background looks or a commit is refused, so that beginning to read costs nothing for it.
    pub(super) fn oldest_snapshot_age(&self) -> Option<Duration> {
        let oldest = self.core.oldest_held()?;
        let samples = self.pressure.samples.lock();
        let seen = samples.iter().find(|(version, _)| *version > oldest);
        Some(seen.map_or(Duration::ZERO, |(_, at)| at.elapsed()))
    }

    fn sample(&self, now: Instant) {
        let version = self.core.load().version;
        let mut samples = self.pressure.samples.lock();
        if samples.back().is_none_or(|(last, _)| *last < version) {
            samples.push_back((version, now));
        }
        if samples.len() > SAMPLES {
            thin(&mut samples, now);
        }
    }
}

/// Drops samples, the more the older they are: what is left tells each age to a fifteenth, or as well as it was told. Under pressure there are
/// twenty in a second, and a snapshot may be held for days.
fn thin(samples: &mut VecDeque<(Version, Instant)>, now: Instant) {
    let all: Vec<(Version, Instant)> = samples.drain(..).collect();
    for (index, &(version, at)) in all.iter().enumerate() {
        let is_needed = match (samples.back(), all.get(index + 1)) {
            (Some((_, before)), Some((_, after))) => *after - *before > (now - at) / SAMPLE_AGES,
            _ => true,
        };
        if is_needed {
            samples.push_back((version, at));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::database::Database;
    use crate::options::Options;
    use crate::report::OpenReport;
    use crate::sync::Arc;

    fn appended(db: &Database, second: i64) {
        let metric = db.metric("m").expect("a name");
        db.append(&metric, Timestamp::from_secs(second), 1.0).expect("commits");
    }

    #[test]
    fn what_a_seal_reads_is_no_old_snapshot() {
        let db = Options::new().workers(0).open_in_memory().expect("opens");
        let own = db.snapshot();
        appended(&db, 1);
        let others = db.snapshot();
        appended(&db, 2);
        let core = db.engine().core();
        assert_eq!(core.oldest_held(), Some(own.version()));
        let held = core.held_by_seal(own.version());
        assert_eq!(core.oldest_held(), Some(others.version()));
        drop(others);
        assert_eq!((core.oldest_held(), db.engine().oldest_snapshot_age()), (None, None));
        drop(held);
        assert_eq!(core.oldest_held(), Some(own.version()));
    }

    #[test]
    fn a_snapshot_is_as_old_as_the_first_later_version_that_was_seen() {
        let db = Options::new().workers(0).open_in_memory().expect("opens");
        let engine = db.engine();
        engine.sample(Instant::now());
        let _snapshot = db.snapshot();
        appended(&db, 1);
        assert_eq!(
            engine.oldest_snapshot_age(),
            Some(Duration::ZERO),
            "its own version may be as old as that"
        );
        engine.sample(Instant::now());
        let seen = engine.pressure.samples.lock().back().expect("a later version").1;
        assert!(engine.oldest_snapshot_age().is_some_and(|age| age <= seen.elapsed()));
    }

    #[test]
    fn ages_are_told_to_a_fifteenth_however_long_a_snapshot_is_held() {
        let began = Instant::now();
        let mut samples = VecDeque::new();
        // Two days of pressure.
        for tick in 0..2 * 86_400 * 20 {
            let now = began + tick * Duration::from_millis(50);
            samples.push_back((Version(u64::from(tick) + 1), now));
            if samples.len() > SAMPLES {
                thin(&mut samples, now);
                assert!(samples.len() < SAMPLES / 2, "{} are left", samples.len());
            }
        }
        let (last, now) = *samples.back().expect("many");
        for held in (1..last.get()).step_by(997) {
            let (_, seen) = samples.iter().find(|(version, _)| version.get() > held).expect("a later one");
            let (told, age) = (now - *seen, (last.get() - held) as u32 * Duration::from_millis(50));
            let error = age / 15 + Duration::from_millis(100);
            assert!(told <= age && age - told <= error, "{age:?} old, told {told:?}");
        }
    }

    #[test]
    fn waits_begin_when_a_look_has_ended() {
        let options = Options::new().workers(0);
        let core = Engine::new_core(&options, options.namespace_options());
        let engine = Arc::new(Engine::new(options, core, None, OpenReport::default()));
        let clock = Cell::new(0);
        let now = || Timestamp::from_secs(clock.replace(100));
        Engine::look_after(&engine, now).expect("nothing to do");
        let due = |second| engine.upkeep_timer.take(Timestamp::from_secs(second)).upkeep;
        assert_eq!(due(129), None);
        assert_eq!(due(130), Some(Timestamp::from_secs(130)));
    }

    #[test]
    fn after_a_failure_room_is_asked_for_soon_and_not_at_once() {
        let db = Options::new().workers(0).open_in_memory().expect("opens");
        let engine = db.engine();
        let due = |second| engine.upkeep_timer.take(Timestamp::from_secs(second)).upkeep;
        for second in [0, 100, 200, 300] {
            engine.begin_look(false);
            engine.look_failed(Timestamp::from_secs(second), "planted".to_owned());
            engine.ask_for_room(u64::MAX);
            assert_eq!(due(second), None);
            assert_eq!(due(second + 1), Some(Timestamp::from_secs(second + 1)), "whatever the back-off");
        }
    }

    #[test]
    fn a_look_that_found_nothing_is_repeated_when_something_has_changed() {
        let db = Options::new().workers(0).open_in_memory().expect("opens");
        let engine = db.engine();
        let is_asked = |used| {
            engine.ask_for_room(used);
            engine.upkeep_timer.take(Timestamp::MAX).upkeep.is_some()
        };
        let look = |used| {
            engine.begin_look(false);
            engine.nothing_to_seal(used, false);
            engine.looked_after(Timestamp::EPOCH);
        };
        let (used, worth) = (engine.settings().memory_max, engine.worth_sealing());
        look(used);
        assert!(!is_asked(used) && !is_asked(used + worth - 1) && !is_asked(used - worth + 1));
        assert!(is_asked(used + worth));
        look(used);
        assert!(is_asked(used - worth));
        look(used);
        let _snapshot = db.snapshot();
        appended(&db, 1);
        assert!(is_asked(used), "another version is held");
    }

    #[test]
    fn a_panic_in_background_work_stops_the_database() {
        let db = Options::new().workers(0).open_in_memory().expect("opens");
        appended(&db, 1);
        let core = db.engine().core();
        let work = || core.or_stop(|| panic!("planted"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
        assert!(core.refuses_commits());
        let metric = db.metric("m").expect("a name");
        let refused = db.append(&metric, Timestamp::EPOCH, 1.0);
        assert!(matches!(refused, Err(Error::Stopped { cause: None })), "{refused:?}");
    }
}
