//! The command-line tool `chronolith`: a verb to a file, and what they share beside them.
//!
//! * `failure`: exit statuses and errors with hints; `console`: what is printed, and how; `progress`, `interrupt`; `chart`, `timeline`
//! * `open`: opening databases and finding metrics in them
//! * `input`, `rows`: files, zstd, CSV; `ids`, `times`: what a user writes and reads
//!
//! * `volume`, `m3`: M3's files
//!
//! A verb is `run(args, console) -> Outcome`. Results go to standard output, everything else to standard error.

mod backup;
mod chart;
mod codec;
mod console;
mod demo;
mod dump;
mod export;
mod failure;
mod ids;
mod import;
mod input;
mod interrupt;
mod list;
mod m3;
mod open;
mod progress;
mod query;
mod repair;
mod rows;
mod seal;
mod settings;
mod stats;
mod timeline;
mod times;
mod torture;
mod verify;
mod volume;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::console::Console;
use crate::failure::{Failure, STATUS_HELP, Status};

/// Metrics in a folder: an embeddable time-series database with snapshots.
///
/// Every verb but `demo`, `codec`, `volume` and `m3` works on the database in a folder, which one process at a time can open; others
/// read its last checkpoint meanwhile, with --read-only.
#[derive(Debug, Parser)]
#[command(version, after_help = STATUS_HELP, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Print results, and errors too, as JSON on standard output, one object to a line.
    #[arg(long, global = true)]
    json: bool,
    /// No progress bars and no notes.
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::DemoArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
    Query(query::QueryArgs),
    List(list::ListArgs),
    Stats(stats::StatsArgs),
    Settings(settings::SettingsArgs),
    Seal(seal::SealArgs),
    Refresh(seal::RefreshArgs),
    Checkpoint(backup::CheckpointArgs),
    Backup(backup::BackupArgs),
    Verify(verify::VerifyArgs),
    Repair(repair::RepairArgs),
    Dump(dump::DumpArgs),
    Codec(codec::CodecArgs),
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    #[command(subcommand)]
    M3(m3::M3Command),
    #[command(subcommand)]
    Torture(torture::TortureCommand),
}

fn main() -> ExitCode {
    let Cli { verb, json, quiet } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error),
    };
    let console = Console { json, quiet };
    let outcome = match verb {
        Verb::Demo(args) => demo::run(args, console),
        Verb::Import(args) => import::run(args, console),
        Verb::Export(args) => export::run(args, console),
        Verb::Query(args) => query::run(args, console),
        Verb::List(args) => list::run(args, console),
        Verb::Stats(args) => stats::run(args, console),
        Verb::Settings(args) => settings::run(&args, console),
        Verb::Seal(args) => seal::seal(args, console),
        Verb::Refresh(args) => seal::refresh(args, console),
        Verb::Checkpoint(args) => backup::checkpoint(args, console),
        Verb::Backup(args) => backup::backup(args, console),
        Verb::Verify(args) => verify::run(args, console),
        Verb::Repair(args) => repair::run(&args, console),
        Verb::Dump(args) => dump::run(args, console),
        Verb::Codec(args) => codec::run(args, console),
        Verb::Volume(command) => volume::run(command, console),
        Verb::M3(command) => m3::run(command, console),
        Verb::Torture(command) => torture::run(command, console),
    };
    let status = outcome.unwrap_or_else(|failure| {
        // A reader that went away has seen enough, and would not see this either.
        if failure.status != Status::Done {
            console.warn(&failure);
            console.fail_in_json(&failure);
        }
        failure.status
    });
    ExitCode::from(status as u8)
}

/// Help, the version, or what is wrong with the arguments: that in JSON as well, if `--json` is among them.
fn not_parsed(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        error.exit();
    }
    // A closed standard error is no reason to end otherwise.
    let _ = error.print();
    let json = std::env::args_os().skip(1).take_while(|arg| arg != "--").any(|arg| arg == "--json");
    Console { json, quiet: false }.fail_in_json(&usage(error));
    ExitCode::from(Status::Usage as u8)
}

/// What clap says, without its tips and its summary of the usage.
fn usage(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let message = match error.kind() {
        // Its text is the help.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "the verb is missing",
        _ => text.split("\n\n").next().unwrap_or_default(),
    };
    let words: Vec<&str> = message.split_whitespace().collect();
    let message = words.join(" ");
    Failure::new(Status::Usage, message.strip_prefix("error: ").unwrap_or(&message)).hint("see --help")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
