//! Ctrl-C, noticed where it can be answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::SIGINT;
use signal_hook::flag;

/// Whether the user pressed Ctrl-C since this was made. The second time ends the process at once; a database stands that, as it stands
/// any crash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the first Ctrl-C only sets the flag.
    pub(crate) fn catch() -> Self {
        let pressed = Arc::new(AtomicBool::new(false));
        // Registered first, so that the first signal does not yet see the flag that it sets. Where handlers cannot be registered,
        // Ctrl-C ends the process as ever.
        let _ = flag::register_conditional_default(SIGINT, Arc::clone(&pressed));
        let _ = flag::register(SIGINT, Arc::clone(&pressed));
        Interrupt(pressed)
    }

    pub(crate) fn is_pressed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
