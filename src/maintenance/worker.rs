//! A background thread.

use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::sync::Mutex;

/// A named thread that works until its work ends.
#[derive(Debug)]
pub(crate) struct Worker {
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Io`] if the operating system refuses.
    pub(crate) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<Self> {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map_err(|error| Error::io("start the background thread of", "this process", error))?;
        Ok(Worker { thread: Mutex::new(Some(thread)) })
    }

    /// Waits for the work to end.
    pub(crate) fn join(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A panic in there was printed; there is nothing left to do about it.
            let _ = thread.join();
        }
    }
}
