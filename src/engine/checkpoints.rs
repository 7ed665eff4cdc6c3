//! When checkpoints are written. How: [`crate::checkpoint`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::Result;
use crate::maintenance::Due;
use crate::maintenance::seal;
use crate::report::CheckpointReport;
use crate::sealed::VolumeStore;
use crate::store::Store;
use crate::sync::{Arc, Mutex};
use crate::time::Timestamp;

use super::Engine;

/// Between two checkpoints that nothing but time asks for is at least so long.
const INTERVAL: Duration = Duration::from_secs(60);
/// With so few bytes in the log a checkpoint at the end is not worth its cost: replaying them takes no longer than reading it.
const WORTH_CLOSING: u64 = 1 << 20;

/// What is known of checkpoints since the database was opened.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// Whether the background was asked for one.
    asked: AtomicBool,
    seen: Mutex<SeenCheckpoints>,
}

/// What statistics tell of them.
#[derive(Clone, Debug, Default)]
pub(super) struct SeenCheckpoints {
    pub(super) written: u64,
    pub(super) last: Option<CheckpointReport>,
    /// Why the newest attempt failed, if it did.
    pub(super) error: Option<String>,
    /// Since when the next one is waited for, by the clock of those who look; none until the first look.
    since: Option<Timestamp>,
}

impl Engine {
    /// Writes a checkpoint now, and removes what it makes unneeded. Waits until nothing is being sealed. `None` if the database has no log, and so
    /// nothing that opening starts from.
    ///
    /// # Errors
    /// Those of an install that is gone on with first, and of [`Store::checkpoint`].
    pub(crate) fn checkpoint(engine: &Arc<Self>) -> Result<Option<CheckpointReport>> {
        let Some(store) = engine.store_with_log() else { return Ok(None) };
        let mut unfinished = engine.upkeep.unfinished.lock();
        // A checkpoint knows no half installs.
        let report =
            seal::finish(&engine.core, &mut unfinished).and_then(|()| store.checkpoint(&engine.core));
        if report.is_ok() {
            // What could not be removed goes with the next one.
            let _ = engine.remove_superseded();
        }
        let mut seen = engine.checkpoints.seen.lock();
        seen.error = report.as_ref().err().map(ToString::to_string);
        let report = report?;
        engine.checkpoints.asked.store(false, Ordering::Relaxed);
        seen.written += 1;
        (seen.last, seen.since) = (Some(report), None);
        Ok(Some(report))
    }

    /// Writes a checkpoint if the log behind the last one is long enough, or old enough. Volumes that wait for the next one count as log: both take space until
    /// then. One that failed is tried again by the next look.
    pub(super) fn checkpoint_if_due(engine: &Arc<Self>, now: Timestamp) -> Result<()> {
        let Some(store) = engine.store_with_log() else { return Ok(()) };
        let waiting = || engine.core.volumes().map_or(0, VolumeStore::superseded_bytes);
        let behind = store.log_bytes_behind() + store.checkpoint_version().map_or(0, |_| waiting());
        let since = *engine.checkpoints.seen.lock().since.get_or_insert(now);
        let is_old = behind > 0 && now >= since + INTERVAL;
        match behind >= engine.worth_checkpoint()
            && (is_old || behind >= engine.settings().checkpoint_log_bytes)
        {
            true => {
                Engine::checkpoint(engine)?;
                engine.checkpoints.seen.lock().since = Some(now);
                Ok(())
            }
            false => {
                engine.checkpoints.asked.store(false, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// From so many bytes of the log on a checkpoint is worth it: what is in memory is written each time, so as much must have gone through the log.
    fn worth_checkpoint(&self) -> u64 {
        self.core.memory().bytes() / 2
    }

    /// Asks the background for a checkpoint, once, if the log behind the last one has become long, and one is worth it.
    pub(super) fn ask_for_checkpoint(&self) {
        let is_long = |store: &Store| {
            let behind = store.log_bytes_behind();
            behind >= self.settings().checkpoint_log_bytes && behind >= self.worth_checkpoint()
        };
        let wanted = || self.store_with_log().is_some_and(is_long);
        if !self.checkpoints.asked.load(Ordering::Relaxed)
            && wanted()
            && !self.checkpoints.asked.swap(true, Ordering::Relaxed)
        {
            self.upkeep_timer.ask(Due { upkeep: Some(Timestamp::MIN), ..Due::default() });
        }
    }

    /// The last checkpoint, when all commits are done, so that the next opening has little to replay. If it fails, opening replays the log.
    pub(super) fn checkpoint_at_close(&self) {
        let Some(store) = self.store_with_log() else { return };
        let unfinished = self.upkeep.unfinished.lock();
        // Volumes that wait for a checkpoint would wait for the next process's.
        let frees = || self.core.volumes().is_some_and(|volumes| volumes.superseded() > 0);
        let is_worth_it =
            store.log_bytes_behind() > WORTH_CLOSING || store.checkpoint_version().is_some() && frees();
        if is_worth_it && unfinished.is_installed() && store.checkpoint(&self.core).is_ok() {
            let _ = self.remove_superseded();
        }
    }

    pub(super) fn checkpoints_seen(&self) -> SeenCheckpoints {
        self.checkpoints.seen.lock().clone()
    }

    /// The files, if there is a log, and so checkpoints.
    pub(super) fn store_with_log(&self) -> Option<&Store> {
        self.store.as_ref().filter(|_| self.core.volumes().is_some())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::io::SimulatedDisk;
    use crate::options::{Durability, Options};
    use crate::time::Timestamp;

    #[test]
    fn a_commit_asks_again_once_a_checkpoint_that_was_not_is_worth_it() {
        let options = Options::new().workers(0).durability(Durability::Buffered).checkpoint_log_bytes(1_000);
        let disk = SimulatedDisk::new(1);
        let db = options.open_on(std::sync::Arc::new(disk), "/db").expect("opens");
        let engine = db.engine();
        // Much in memory for little log: one point of each of many metrics.
        let mut txn = db.begin_write();
        for index in 0..200 {
            let metric = db.metric(format!("m{index}")).expect("a name");
            txn.append(&metric, Timestamp::from_secs(1), 1.0).expect("staged");
        }
        txn.commit().expect("commits");
        db.sync().expect("syncs");
        // By this clock no block is left and no minute over.
        db.maintain(Timestamp::from_secs(1)).expect("a look");
        let behind = || engine.store_with_log().expect("a log").log_bytes_behind();
        assert!((1_000..engine.worth_checkpoint()).contains(&behind()), "long, and not worth it");
        let is_asked = || engine.upkeep_timer.take(Timestamp::from_secs(2)).upkeep.is_some();
        let one = db.metric("m1").expect("a name");
        let mut asked = None;
        for number in 0..10_000 {
            db.append(&one, Timestamp::from_secs(1), f64::from(number)).expect("commits");
            db.sync().expect("syncs");
            if is_asked() {
                asked = Some(behind());
                break;
            }
        }
        assert!(asked.is_some_and(|behind| behind >= engine.worth_checkpoint()), "{asked:?}");
    }
}
