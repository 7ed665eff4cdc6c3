//! What is due when.

use std::time::Duration;

use crate::sync::{Condvar, Mutex};
use crate::time::Timestamp;

/// Work that somebody asked for, and when it must be done.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    due: Due,
    stopped: bool,
}

/// When the log is to be written and synced, and when to see what is to be sealed; `None` is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) write: Option<Timestamp>,
    pub(crate) sync: Option<Timestamp>,
    pub(crate) upkeep: Option<Timestamp>,
}

impl Due {
    /// The earliest of all.
    fn next(self) -> Option<Timestamp> {
        [self.write, self.sync, self.upkeep].into_iter().flatten().min()
    }

    /// Takes out what is due at `now`.
    fn take(&mut self, now: Timestamp) -> Due {
        let take = |due: &mut Option<Timestamp>| due.take_if(|at| *at <= now);
        Due { write: take(&mut self.write), sync: take(&mut self.sync), upkeep: take(&mut self.upkeep) }
    }
}

impl Timer {
    /// Asks for work no later than `due`.
    pub(crate) fn ask(&self, due: Due) {
        let mut state = self.state.lock();
        let before = state.due.next();
        let earlier = |known: &mut Option<Timestamp>, asked: Option<Timestamp>| {
            *known = [*known, asked].into_iter().flatten().min();
        };
        earlier(&mut state.due.write, due.write);
        earlier(&mut state.due.sync, due.sync);
        earlier(&mut state.due.upkeep, due.upkeep);
        if state.due.next() != before {
            self.changed.notify_all();
        }
    }

    /// Whether a write is already asked for, so that asking again is not worth it.
    pub(crate) fn expects_write(&self) -> bool {
        self.state.lock().due.write.is_some()
    }

    /// Takes out what is due at `now`, without waiting.
    pub(crate) fn take(&self, now: Timestamp) -> Due {
        self.state.lock().due.take(now)
    }

    /// Waits until something is due and takes it out; `None` once stopped.
    pub(crate) fn wait(&self, now: impl Fn() -> Timestamp) -> Option<Due> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            let now = now();
            let due = state.due.take(now);
            if due != Due::default() {
                return Some(due);
            }
            state = match state.due.next() {
                // A little more than needed is better than waking twice.
                Some(next) => self.changed.wait_for(state, next - now + Duration::from_micros(50)),
                None => self.changed.wait(state),
            };
        }
    }

    /// Whether all waiting has ended.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Ends all waiting, for good.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const fn at(secs: i64) -> Option<Timestamp> {
        Some(Timestamp::from_secs(secs))
    }

    #[test]
    fn the_earliest_time_asked_for_counts() {
        let timer = Timer::default();
        timer.ask(Due { sync: at(5), ..Due::default() });
        timer.ask(Due { sync: at(9), write: at(7), ..Due::default() });
        assert_eq!(timer.take(Timestamp::from_secs(4)), Due::default());
        assert_eq!(timer.take(Timestamp::from_secs(5)), Due { sync: at(5), ..Due::default() });
        assert_eq!(timer.take(Timestamp::from_secs(8)), Due { write: at(7), ..Due::default() });
        assert_eq!(timer.take(Timestamp::MAX), Due::default());
    }

    #[test]
    fn waiting_ends_with_what_is_due_or_with_a_stop() {
        let timer = Timer::default();
        timer.ask(Due { sync: at(5), ..Due::default() });
        assert_eq!(timer.wait(|| Timestamp::from_secs(6)), Some(Due { sync: at(5), ..Due::default() }));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| timer.wait(|| Timestamp::from_secs(6)));
            timer.stop();
            assert_eq!(waiter.join().expect("no panic"), None);
        });
    }
}
