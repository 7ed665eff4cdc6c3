//! Background work: what is due, the one thread that does it, and how a block is sealed.
//!
//! * [`timer`] and [`worker`]: when, and who. Time is monotonic and comes as an argument.
//! * [`survey`]: what is in memory, and which blocks of it to seal.
//! * [`seal`]: one block: freeze, write, install.

pub(crate) mod seal;
pub(crate) mod survey;
mod timer;
mod worker;

pub(crate) use timer::{Due, Timer};
pub(crate) use worker::Worker;
