//! `volume`: M3's fileset volumes as files, with or without a database around them.
//!
//! * `place`: which volume a path means
//! * `dump`, `expected`: what is in it, for people and programs, and in the form of M3's fixtures
//! * `extent`, `damage`: how much of it could be read, and what could not
//! * `show`: one metric's stream, bit by bit or in figures
//! * `verify`: whether it is sound

use clap::Subcommand;

use crate::console::Console;
use crate::failure::Outcome;

pub(crate) mod damage;
mod dump;
mod expected;
pub(crate) mod extent;
pub(crate) mod place;
mod show;
pub(crate) mod verify;

/// Look into M3's fileset volumes: seven files to a volume, in a folder to a shard.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    Dump(dump::DumpArgs),
    Show(show::ShowArgs),
    Verify(verify::VerifyArgs),
}

pub(crate) fn run(command: VolumeCommand, console: Console) -> Outcome {
    match command {
        VolumeCommand::Dump(args) => dump::run(&args, console),
        VolumeCommand::Show(args) => show::run(args, console),
        VolumeCommand::Verify(args) => verify::run(&args, console),
    }
}
