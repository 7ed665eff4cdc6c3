//! Overload: writers that write as fast as they can, several times what fits in memory, in a control group of 512 MiB. Nothing may be lost and
//! nobody killed; commits have to wait instead.
//!
//! `cargo bench --bench overload -- [in-order] [late] [sparse] [held] [larger]`; all five without an argument. Each is a database of its own with default options but for the durability, which is `Buffered`, and the patience in `held`:
//! * `in-order`: each metric's points in order;
//! * `late`: in runs of 64, each group of 64 runs from its last to its first: out of order, and into blocks that were sealed meanwhile;
//! * `sparse`: a point for each block of two hours, so that what lies around the points is what takes memory; a fortieth of the points;
//! * `held`: in order, with snapshots held, until a commit is refused; then they are let go of;
//! * `larger`: a quarter of the points, in order, without a limit and unsealed: with the limit, opening must refuse that.
//!
//! Values are random, so that a point takes nine bytes. A metric's points belong to one writer, which repeats what was refused: afterwards all that was acknowledged must be there, and nothing else.
//! That is read back by the process that wrote, and again by another one, which opens the database and so replays its log.
//!
//! Settings: `CHRONOLITH_OVERLOAD_POINTS` (200,000,000), `_METRICS` (20,000), `_WRITERS` (4), `_LIMIT_MIB` (512), and `_DIR`, where the databases lie.
//! The control group is made below this process's own, which takes the first version of control groups and the right to. Otherwise make one yourself and set `_GROUP=own`, for instance
//! `systemd-run --user --scope -p MemoryMax=512M -p MemorySwapMax=0 env CHRONOLITH_OVERLOAD_GROUP=own cargo bench --bench overload`, after a build without it.

mod group;
mod watch;
mod work;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use group::Group;
use work::{Shape, Step};

/// What a run is to do.
#[derive(Clone, Copy, Debug)]
struct Settings {
    points: u64,
    metrics: usize,
    writers: usize,
    limit: u64,
}

fn setting(name: &str, default: u64) -> u64 {
    let text = env::var(format!("CHRONOLITH_OVERLOAD_{name}"));
    text.map_or(default, |text| text.replace('_', "").parse().expect("a number"))
}

impl Settings {
    fn get() -> Self {
        Settings {
            points: setting("POINTS", 200_000_000),
            metrics: setting("METRICS", 20_000) as usize,
            writers: setting("WRITERS", 4) as usize,
            limit: setting("LIMIT_MIB", 512) << 20,
        }
    }
}

/// How this program calls itself: a step's name.
const STEP: &str = "CHRONOLITH_OVERLOAD_STEP";

fn main() -> ExitCode {
    let shapes: Vec<Shape> = env::args().filter_map(|name| Shape::named(&name)).collect();
    let settings = Settings::get();
    let step = env::var(STEP).ok().and_then(|name| Step::named(&name));
    if let (Some(step), [shape]) = (step, &shapes[..]) {
        let dir = PathBuf::from(env::var_os("CHRONOLITH_OVERLOAD_DIR").expect("set by the caller"));
        group::enter();
        step.run(&dir, *shape, settings);
        return ExitCode::SUCCESS;
    }
    let folder = match env::var_os("CHRONOLITH_OVERLOAD_DIR") {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let folder = folder.expect("a folder");
    let all_well = match shapes.is_empty() {
        true => Shape::ALL.map(|shape| run(shape, settings, folder.path())).into_iter().all(|well| well),
        false => shapes.into_iter().all(|shape| run(shape, settings, folder.path())),
    };
    if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes and checks, each in a process of its own. Whether both came to their end.
fn run(shape: Shape, settings: Settings, folder: &Path) -> bool {
    println!("## {}\n", shape.name());
    let dir = folder.join(shape.name());
    std::fs::create_dir(&dir).expect("a folder of its own");
    let mut all_well = true;
    for (step, is_limited) in shape.steps() {
        let group = match Group::make(is_limited.then_some(settings.limit)) {
            Ok(group) => group,
            Err(why) => {
                eprintln!("{why}; see the head of this bench's source for how to do without");
                return false;
            }
        };
        let mut child = Command::new(env::current_exe().expect("this program"));
        child.arg(shape.name()).env(STEP, step.name()).env("CHRONOLITH_OVERLOAD_DIR", &dir);
        let status = group.start(&mut child).status().expect("it starts");
        println!("{}: {status}{}\n", step.name(), group.told());
        if !status.success() {
            all_well = false;
            break;
        }
    }
    std::fs::remove_dir_all(&dir).expect("removed");
    all_well
}
