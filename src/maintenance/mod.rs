//! Background work: what is due, and the one thread that does it.
//!
//! For now that is making commits durable that did not wait for it. Time is monotonic and comes as an argument: a wrong clock
//! delays nothing.

mod timer;
mod worker;

pub(crate) use timer::{Due, Timer};
pub(crate) use worker::Worker;
