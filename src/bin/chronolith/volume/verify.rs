//! `volume verify`: reads all of a volume, and decodes every stream.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Instant;

use chronolith::Error;
use chronolith::fileset::{Volume, VolumeName};
use chronolith::io::RealDisk;
use chronolith::m3::{Piece, read_volume};
use chronolith::m3tsz::ValueCoding;
use clap::Args;
use serde_json::json;

use crate::console::{Console, counted, duration, rate};
use crate::failure::{Chain, Outcome, Status};
use crate::progress::Progress;
use crate::volume::damage::DamageList;
use crate::volume::dump::told;
use crate::volume::extent;
use crate::volume::place::{Place, in_folder};

/// Read all of a volume, or of all volumes in a folder, and report damage. Exit status 1 if there is any.
///
/// Also says how many of a damaged volume's metrics can be read. Checks every checksum, whether the files fit together, and whether every stream decodes. A folder's unfinished volumes are not checked: they do not count.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Any file of the volume, or the folder of a shard.
    path: PathBuf,
}

pub(crate) fn run(args: &VerifyArgs, console: Console) -> Outcome {
    let begin = Instant::now();
    let places = if args.path.is_dir() { in_folder(&args.path)? } else { vec![Place::of(&args.path, true)?] };
    let mut out = console.out();
    let mut progress = Progress::beside_output(console, places.len() as u64, "verifying");
    let (mut points, mut damaged) = (0, 0);
    for (done, place) in places.iter().enumerate() {
        let checked = check(&place.folder, place.name);
        points += checked.points;
        damaged += u64::from(!checked.damage.is_empty());
        if console.json {
            out.json(&json!({
                "volume": place.path(),
                "sound": checked.damage.is_empty(),
                "metrics": checked.metrics,
                "metrics_written": checked.written,
                "supplement": checked.supplement,
                "points": checked.points,
                "damaged_places": checked.damage.count(),
                "damage": checked.damage.places(),
            }))?;
        } else {
            let state = if checked.damage.is_empty() { "sound" } else { "DAMAGED" };
            let metrics = extent::told(checked.metrics, checked.written);
            let points = counted(checked.points, "point");
            let supplement = if checked.supplement { ", with a supplement" } else { "" };
            out.line(format_args!("{state}  {}: {metrics}, {points}{supplement}", place.path()))?;
            checked.damage.print(2, &mut out)?;
        }
        progress.set(done as u64 + 1)?;
    }
    drop(progress);
    if !console.json {
        let elapsed = begin.elapsed();
        let read = rate(points, elapsed, "points");
        let volumes = counted(places.len() as u64, "volume");
        let style = out.style();
        out.line(match damaged {
            0 => {
                style.green(format_args!("{volumes} read in {} ({read}): no damage found", duration(elapsed)))
            }
            count => format!("{} of {volumes} damaged", count),
        })?;
    }
    out.flush()?;
    Ok(if damaged == 0 { Status::Done } else { Status::CheckFailed })
}

/// What reading all of a volume came to.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Metrics that can be read.
    pub(crate) metrics: u64,
    /// How many there are to be, if anything tells.
    pub(crate) written: Option<u64>,
    pub(crate) supplement: bool,
    pub(crate) points: u64,
    pub(crate) damage: DamageList,
}

/// Reads all that can be read of a volume.
pub(crate) fn check(folder: &Path, name: VolumeName) -> Checked {
    let mut checked = Checked::default();
    let volume = match Volume::salvage(&RealDisk::new(), folder, name) {
        Ok(volume) => volume,
        Err(error) => {
            checked.damage.push(Chain(&error).to_string());
            return checked;
        }
    };
    checked.written = extent::written(&volume);
    checked.supplement = volume.supplement().is_some();
    let mut known = HashSet::new();
    // Streams first: there the metric is known.
    let Ok(()) = read_volume(&volume, ValueCoding::IntOptimized, |piece| {
        match piece {
            Piece::Points { points, before, .. } => {
                checked.metrics += u64::from(before == 0);
                checked.points += points.len() as u64;
            }
            Piece::Damage { id, error } => {
                known.insert(place_of(&error));
                checked.damage.push(told(id, error));
            }
        }
        Ok::<_, std::convert::Infallible>(())
    });
    for error in volume.verify() {
        if !known.contains(&place_of(&error)) {
            checked.damage.push(told(None, error));
        }
    }
    if let Some(supplement) = volume.supplement() {
        let wrong = supplement.verify_statistics(ValueCoding::IntOptimized);
        checked.damage.extend(wrong.into_iter().map(|error| told(None, error)));
    }
    checked
}

/// Where and what the damage is, as a number: there may be as much damage as there are streams, and a number is cheap to keep. Whose it is does not
/// count, as not every reader knows that.
pub(crate) fn place_of(error: &Error) -> u64 {
    let mut hasher = DefaultHasher::new();
    match error {
        Error::Corrupt { path, offset, reason, .. } => (path, offset, reason).hash(&mut hasher),
        error => error.to_string().hash(&mut hasher),
    }
    hasher.finish()
}
