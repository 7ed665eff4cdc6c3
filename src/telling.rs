//! Telling how far an opening is, to who asked for it.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::report::{OpenProgress, OpenStep};

/// Between two calls of one step.
const PAUSE: Duration = Duration::from_millis(50);

/// What is called: nothing by default.
#[derive(Clone, Default)]
pub(crate) struct OnOpenProgress(Option<Arc<Callback>>);

type Callback = dyn Fn(&OpenProgress) -> ControlFlow<()> + Send + Sync;

impl OnOpenProgress {
    pub(crate) fn new(callback: impl Fn(&OpenProgress) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        OnOpenProgress(Some(Arc::new(callback)))
    }
}

impl fmt::Debug for OnOpenProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "OnOpenProgress(..)" } else { "OnOpenProgress" })
    }
}

/// One opening's. Whoever tells holds no lock.
#[derive(Debug)]
pub(crate) struct Telling<'a> {
    callback: &'a OnOpenProgress,
    last: Option<(OpenStep, Instant)>,
    ended: bool,
}

impl<'a> Telling<'a> {
    pub(crate) fn new(callback: &'a OnOpenProgress) -> Self {
        Telling { callback, last: None, ended: false }
    }

    /// Whether anybody wants to know.
    pub(crate) fn is_wanted(&self) -> bool {
        self.callback.0.is_some()
    }

    /// Tells how far it is: at the beginning of each step, and then at most every 50 ms. Returns whether to go on.
    pub(crate) fn tell(&mut self, step: OpenStep, done: u64, total: u64) -> bool {
        let Some(callback) = &self.callback.0 else { return true };
        let is_due = self.last.is_none_or(|(of, at)| of != step || at.elapsed() >= PAUSE);
        if is_due && !self.ended {
            self.last = Some((step, Instant::now()));
            self.ended = callback(&OpenProgress { step, done: done.min(total), total }).is_break();
        }
        !self.ended
    }

    /// What came of something that was told of: whatever it says, if it was ended it was that.
    pub(crate) fn outcome<T>(&self, dir: &Path, done: Result<T>) -> Result<T> {
        match self.ended {
            true => Err(Error::OpenEnded { path: dir.to_owned() }),
            false => done,
        }
    }
}
