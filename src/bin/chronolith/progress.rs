//! A progress bar for what takes longer than a second, on standard error, for people only.
//!
//! While there is a bar, Ctrl-C does not leave half of it behind: it is answered at the next step, and the bar cleared.

use std::io::{IsTerminal, stderr, stdout};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::console::Console;
use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupt;

/// No bar before this: what is quick needs none.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two pictures of a spinner.
const TICK: Duration = Duration::from_millis(120);

/// A bar that appears after [`PATIENCE`] if standard error is a terminal, and is gone once it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    begin: Instant,
    /// There once the bar is.
    shown: Option<Interrupt>,
    wanted: bool,
}

impl Progress {
    /// Progress in bytes; without a total the bar only counts.
    pub(crate) fn bytes(console: Console, total: Option<u64>, what: &'static str) -> Self {
        let template = match total {
            Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
            None => "{msg} {spinner} {bytes} {bytes_per_sec}",
        };
        Self::new(console, total, what, template)
    }

    /// Progress in things.
    pub(crate) fn count(console: Console, total: u64, what: &'static str) -> Self {
        Self::new(console, Some(total), what, "{msg} {wide_bar} {human_pos}/{human_len}, {eta} left")
    }

    /// Progress of a verb that prints results all the while: no bar if they go to the same terminal.
    pub(crate) fn beside_output(console: Console, total: u64, what: &'static str) -> Self {
        let mut progress = Self::count(console, total, what);
        progress.wanted &= !stdout().is_terminal();
        progress
    }

    /// Progress in things whose number nobody knows.
    pub(crate) fn tally(console: Console, what: &'static str) -> Self {
        Self::new(console, None, what, "{msg} {spinner} {human_pos}")
    }

    /// The same for a verb that prints them all the while.
    pub(crate) fn tally_beside_output(console: Console, what: &'static str) -> Self {
        let mut progress = Self::tally(console, what);
        progress.wanted &= !stdout().is_terminal();
        progress
    }

    fn new(console: Console, total: Option<u64>, what: &'static str, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden()).with_message(what);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        Progress { bar, begin: Instant::now(), shown: None, wanted: !console.quiet && stderr().is_terminal() }
    }

    /// Begins another part of the work, in bytes or in things.
    pub(crate) fn part(&mut self, what: &'static str, total: u64, in_bytes: bool) {
        let template = match in_bytes {
            true => "{msg} {wide_bar} {bytes}/{total_bytes}, {eta} left",
            false => "{msg} {wide_bar} {human_pos}/{human_len}, {eta} left",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("━╸ "));
        }
        self.bar.set_length(total);
        self.bar.set_position(0);
        self.bar.reset_eta();
        self.bar.set_message(what);
    }

    /// How much there is to do, where that is known only now.
    pub(crate) fn set_length(&mut self, total: u64) {
        self.bar.set_length(total);
    }

    /// How far the work is, from its beginning.
    ///
    /// # Errors
    /// [`Failure::interrupted`] if Ctrl-C was pressed since the bar appeared.
    pub(crate) fn set(&mut self, position: u64) -> Outcome<()> {
        self.bar.set_position(position);
        match &self.shown {
            Some(interrupt) if interrupt.is_pressed() => return Err(Failure::interrupted()),
            Some(_) => {}
            None if self.wanted && self.begin.elapsed() >= PATIENCE => {
                self.shown = Some(Interrupt::catch());
                self.bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            None => {}
        }
        Ok(())
    }
}

/// A line about one call that cannot say how far it is. It appears and goes like a [`Progress`], but Ctrl-C ends the process as ever.
#[derive(Debug)]
pub(crate) struct Wait {
    /// Dropped first, which ends the thread.
    end: Option<Sender<()>>,
    line: Option<JoinHandle<()>>,
}

impl Wait {
    pub(crate) fn begin(console: Console, what: String) -> Self {
        if console.quiet || !stderr().is_terminal() {
            return Wait { end: None, line: None };
        }
        let (end, ended) = channel();
        let line = thread::Builder::new().spawn(move || {
            if ended.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_message(what);
            if let Ok(style) = ProgressStyle::with_template("{msg} {spinner}") {
                bar.set_style(style);
            }
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                bar.tick();
            }
            bar.finish_and_clear();
        });
        // Without a thread there is no line, and nothing else is lost.
        Wait { end: Some(end), line: line.ok() }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(line) = self.line.take() {
            // The line must be gone before others are printed. A panic in there would have told of itself.
            let _ = line.join();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
