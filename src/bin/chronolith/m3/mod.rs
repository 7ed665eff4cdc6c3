//! `m3`: the data directories of M3DB: what is in them, whether it is sound, and how it gets into a database.
//!
//! * `list`, `verify`, `import`: a verb to each
//! * `survey`, `names`, `sources`, `merge`: of an import, what is checked before it, the metrics, what is read, the points
//! * `refused`, `imported`: what an import tells

use std::path::{Path, PathBuf};

use chronolith::io::RealDisk;
use chronolith::m3::Directory;
use clap::Subcommand;

use crate::console::Console;
use crate::failure::{Chain, Failure, Outcome};

mod import;
mod imported;
mod list;
mod merge;
mod names;
mod refused;
mod sources;
mod survey;
mod verify;

/// What a chronolith database has, and no directory of M3.
const SUPERBLOCK: &str = "superblock";
/// What M3 has in its directory.
const FOLDERS: [&str; 4] = ["data", "snapshots", "commitlogs", "index"];
/// How far above a path to look for what the user meant.
const LEVELS_UP: usize = 4;

/// List, verify and import the data directory of an M3DB node.
///
/// That is its file path prefix, by default /var/lib/m3db. Nothing is changed in it. The node must not be running, or the directory be a copy.
#[derive(Debug, Subcommand)]
pub(crate) enum M3Command {
    List(list::ListArgs),
    Verify(verify::VerifyArgs),
    Import(import::ImportArgs),
}

pub(crate) fn run(command: M3Command, console: Console) -> Outcome {
    match command {
        M3Command::List(args) => list::run(&args, console),
        M3Command::Verify(args) => verify::run(&args, console),
        M3Command::Import(args) => import::run(&args, console),
    }
}

/// Looks a directory of M3 through, or says what the user may have meant.
fn directory(prefix: &Path) -> Outcome<Directory> {
    let shown = prefix.display();
    if !prefix.exists() {
        return Err(Failure::input(format_args!("{shown} does not exist")).hint(
            "give the node's file path prefix, the folder that has `data` in it; by default /var/lib/m3db",
        ));
    }
    if prefix.join(SUPERBLOCK).exists() {
        return Err(Failure::input(format_args!("{shown} is a chronolith database, no directory of M3"))
            .hint(format_args!("`chronolith list {shown}` shows what is in it")));
    }
    if let Some(directory) = read(prefix)? {
        return Ok(directory);
    }
    let kind =
        if prefix.is_dir() { "has none of the folders data, snapshots, commitlogs" } else { "is a file" };
    let failure = Failure::input(format_args!("{shown} is no directory of M3: it {kind}"));
    let below = std::fs::read_dir(prefix).ok().and_then(|entries| {
        let mut below = entries.flatten().map(|entry| entry.path());
        below.find(|below| !below.join(SUPERBLOCK).exists() && matches!(read(below), Ok(Some(_))))
    });
    if let Some(below) = below {
        return Err(failure.hint(format_args!("did you mean {}?", below.display())));
    }
    Err(match prefix.canonicalize().ok().and_then(|path| above(&path)) {
        Some(above) => failure.hint(format_args!("give the folder above it: {}", above.display())),
        None => failure.hint("give the node's file path prefix, by default /var/lib/m3db"),
    })
}

/// The directory of M3 that a path lies in, if one of the folders that M3 makes leads to it.
fn above(path: &Path) -> Option<PathBuf> {
    let below = path.ancestors().take(LEVELS_UP);
    let made_by_m3 =
        |path: &&Path| path.file_name().is_some_and(|name| FOLDERS.iter().any(|known| name == *known));
    let above = below.filter(made_by_m3).filter_map(Path::parent);
    above.map(Path::to_owned).find(|above| matches!(read(above), Ok(Some(_))))
}

/// Paths for JSON, which has no others than those of text.
fn shown(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

fn read(prefix: &Path) -> Outcome<Option<Directory>> {
    // Not as the database's errors, whose hints are about databases.
    Directory::read(&RealDisk::new(), prefix).map_err(|error| Failure::input(Chain(&error)))
}
