//! `volume dump`: the metrics of a volume, in the order of the data file.

use std::path::PathBuf;

use chronolith::fileset::{Entry, Tag, Volume, VolumeFile};
use chronolith::m3::{Piece, StreamPoint, read_volume};
use chronolith::m3tsz::ValueCoding;
use chronolith::{Error, Timestamp};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::console::{Console, Out, counted, json_value, value};
use crate::failure::{Chain, Failure, Outcome, Status};
use crate::times;
use crate::volume::place::Place;
use crate::volume::{damage, expected};
use crate::{console, ids};

/// Print the metrics of a volume, with their tags and points.
///
/// Metrics come in the order of the data file. With --json the first object is about the volume, and each other one is a metric with its points;
/// `bits` are those of the value, as 16 hex digits.
#[derive(Args, Debug)]
pub(crate) struct DumpArgs {
    /// Any file of the volume, or the folder that it lies in, if that has no other.
    path: PathBuf,
    /// One JSON object as M3's fixtures have it: IDs in hex, points as `[timestamp_ns, "value bits"]`.
    #[arg(long)]
    m3_expected: bool,
    /// Read what is left of a damaged or unfinished volume.
    #[arg(long)]
    salvage: bool,
}

pub(crate) fn run(args: &DumpArgs, console: Console) -> Outcome {
    let place = Place::of(&args.path, args.salvage)?;
    let volume = place.open(args.salvage)?;
    let mut out = console.out();
    let mut damaged = 0;
    let mut damage = |text: String| {
        damaged += 1;
        console.warn(format_args!("damage: {text}"));
    };
    if args.m3_expected {
        expected::write(&place, &volume, &mut out, &mut damage)?;
    } else {
        write(&place, &volume, console, &mut out, &mut damage)?;
    }
    out.flush()?;
    if damaged == 0 {
        return Ok(Status::Done);
    }
    let text =
        format_args!("{} in {}; all else was printed", counted(damaged, "damaged place"), place.path());
    Err(Failure::new(Status::CheckFailed, text))
}

fn write(
    place: &Place,
    volume: &Volume,
    console: Console,
    out: &mut Out,
    damage: &mut impl FnMut(String),
) -> Outcome<()> {
    if console.json {
        out.json(&about(place, volume))?;
    } else {
        write_about(place, volume, out)?;
    }
    // A long stream comes in portions, and is one object all the same.
    let mut object = Map::new();
    let mut points_left: Vec<Value> = Vec::new();
    read_volume(volume, ValueCoding::IntOptimized, |piece| {
        let (entry, tags, points, before) = match piece {
            Piece::Points { entry, tags, points, before } => (entry, tags, points, before),
            Piece::Damage { id, error } => {
                damage(told(id, error));
                return Ok(());
            }
        };
        if !console.json {
            return write_metric(entry, tags, points, before, out);
        }
        if before == 0 {
            finish(&mut object, &mut points_left, out)?;
            object = metric(entry, tags);
        }
        points_left.extend(points.iter().map(json_point));
        Ok(())
    })?;
    finish(&mut object, &mut points_left, out)
}

/// Prints a metric's object, if there is one.
fn finish(object: &mut Map<String, Value>, points: &mut Vec<Value>, out: &mut Out) -> Outcome<()> {
    if object.is_empty() {
        return Ok(());
    }
    object.insert("points".to_owned(), Value::Array(std::mem::take(points)));
    out.json(&Value::Object(std::mem::take(object)))
}

/// Damage, and the metric that it concerns.
pub(super) fn told(id: Option<&[u8]>, error: Error) -> String {
    match id {
        Some(id) => damage::of_metric(ids::shown(id), error),
        None => Chain(&error).to_string(),
    }
}

fn about(place: &Place, volume: &Volume) -> Value {
    let mut object = Map::new();
    object.insert("volume".to_owned(), json!(place.path()));
    object.insert("block_start_ns".to_owned(), json!(volume.name().block_start));
    object.insert("volume_index".to_owned(), json!(volume.name().volume));
    object.insert("supplement".to_owned(), json!(volume.supplement().is_some()));
    if let Some(info) = volume.info() {
        object.insert("block_size_ns".to_owned(), json!(info.block_size));
        object.insert("entries".to_owned(), json!(info.entries));
        if let Some(snapshot) = info.snapshot {
            object.insert("snapshot_time_ns".to_owned(), json!(snapshot.time));
            object.insert("snapshot_id".to_owned(), json!(expected::uuid(snapshot.id)));
        }
    }
    Value::Object(object)
}

fn write_about(place: &Place, volume: &Volume, out: &mut Out) -> Outcome<()> {
    let style = out.style();
    out.line(style.bold(place.path()))?;
    let time = |nanos| times::rfc3339(Timestamp::from_nanos(nanos));
    let start = volume.name().block_start;
    match volume.info() {
        Some(info) => {
            let end = time(start.saturating_add(info.block_size));
            out.line(format_args!("block {} to {end}, {}", time(start), counted(info.entries, "metric")))?;
            if let Some(snapshot) = info.snapshot {
                let id = expected::uuid(snapshot.id);
                out.line(format_args!("snapshot {id} of {}", time(snapshot.time)))?;
            }
        }
        None => out.line(format_args!("block from {} on; {}", time(start), without_info(volume)))?,
    }
    if let Some(supplement) = volume.supplement() {
        let metrics = counted(supplement.metrics(), "metric");
        out.line(format_args!("with a supplement: {metrics} by number, and their statistics"))?;
    }
    Ok(())
}

/// Why nothing is known of what a volume's info file says.
pub(super) fn without_info(volume: &Volume) -> &'static str {
    let info = volume.path(VolumeFile::Info);
    let is_damaged = |error: &Error| matches!(error, Error::Corrupt { path, .. } if *path == info);
    match volume.damage().iter().any(is_damaged) {
        true => "the info file is damaged",
        false => "nothing vouches for the info file",
    }
}

fn write_metric(
    entry: &Entry<'_>,
    tags: &[Tag<'_>],
    points: &[StreamPoint],
    before: u64,
    out: &mut Out,
) -> Outcome<()> {
    let style = out.style();
    if before == 0 {
        let tags = ids::tags(tags.iter().copied());
        out.line(format_args!("\n{}{tags}", style.cyan(ids::shown(entry.id()))))?;
    }
    for point in points {
        let at = times::rfc3339(Timestamp::from_nanos(point.timestamp));
        let note = match point.annotation.as_slice() {
            [] => String::new(),
            note => format!("  {}", style.dim(format_args!("\"{}\"", ids::readable(note)))),
        };
        out.line(format_args!("  {at}  {}{note}", value(point.value)))?;
    }
    Ok(())
}

fn metric(entry: &Entry<'_>, tags: &[Tag<'_>]) -> Map<String, Value> {
    let mut object = Map::new();
    ids::put_json(&mut object, entry.id());
    object.insert("tags".to_owned(), ids::json_tags(tags.iter().copied()));
    if tags.iter().any(|(name, value)| std::str::from_utf8(name).and(std::str::from_utf8(value)).is_err()) {
        object.insert("encoded_tags_hex".to_owned(), json!(ids::hex(entry.encoded_tags())));
    }
    object.insert("size".to_owned(), json!(entry.size()));
    object.insert("data_checksum".to_owned(), json!(entry.checksum()));
    object
}

fn json_point(point: &StreamPoint) -> Value {
    let mut object = Map::new();
    object.insert("ts_ns".to_owned(), console::json_time(Timestamp::from_nanos(point.timestamp)));
    object.insert("value".to_owned(), json_value(point.value));
    object.insert("bits".to_owned(), json!(format!("{:016x}", point.value.to_bits())));
    object.insert("unit".to_owned(), json!(point.unit.to_string()));
    if !point.annotation.is_empty() {
        object.insert("annotation_hex".to_owned(), json!(ids::hex(&point.annotation)));
    }
    Value::Object(object)
}
