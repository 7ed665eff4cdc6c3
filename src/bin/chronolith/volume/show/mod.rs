//! `volume show`: one metric's stream in a volume, bit by bit or in figures.
//!
//! What is damaged is shown as far as it can be read, and where the damage is. Parts: `walk` (which points are shown), `text` and `json`
//! (how), `summary` (where the bits go).

mod json;
mod summary;
mod text;
mod walk;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use chronolith::fileset::{Entry, MetricEntry, Statistics, Volume, VolumeFile, VolumeName};
use chronolith::io::{RealDisk, Vfs};
use chronolith::m3tsz::ValueCoding;
use chronolith::{Error, Timestamp};
use clap::Args;

use crate::console::{Console, counted, thousands};
use crate::failure::{Failure, Outcome, Status};
use crate::ids;
use crate::times;
use crate::volume::place::{self, Place};

use self::summary::Summary;
use self::walk::{Selection, walk};

/// Points shown on a terminal unless others are asked for.
const TERMINAL_POINTS: u64 = 20;
const DAMAGED: &str =
    "what is damaged may be where the metric belongs; this tells how many metrics can be read";

/// Show one metric's stream in a volume: where its bits go or, with --bits, what each of them means.
///
/// Works on files alone, without a database. With --bits each point is a line, and below it a line for each of its fields: where it begins, its bits,
/// and what they say; design/m3tsz.md explains the format. With --json a point is an object. Where the stream is damaged it is shown up to
/// there, and the exit status is 1.
#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// Any file of the volume; the others are looked for beside it.
    file: PathBuf,
    /// The metric's ID, as it is or as `volume dump` prints it: `""` is the empty one.
    #[arg(long, value_name = "ID")]
    metric: OsString,
    /// Every field of every point, instead of a summary. On a terminal 20 points, unless --points is given.
    #[arg(long)]
    bits: bool,
    /// From the first point at or after this time.
    ///
    /// An integer is nanoseconds since the Unix epoch, or has a unit: 1700000000s, ...ms, ...us, ...ns. RFC 3339 and, in UTC, dates and datetimes
    /// without a zone are understood as well: 2023-11-14T22:13:20Z, 2023-11-14.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true, requires = "bits")]
    from: Option<Timestamp>,
    /// From the point that has this bit of the stream: errors name bits.
    #[arg(long, value_name = "BIT", conflicts_with = "from", requires = "bits")]
    from_bit: Option<u64>,
    /// At most this many points. Damage and the end are always shown.
    #[arg(long, value_name = "COUNT", requires = "bits")]
    points: Option<u64>,
    /// The values are coded as XORs only. A volume does not say that; in M3 they never are.
    #[arg(long)]
    plain_values: bool,
}

pub(crate) fn run(args: ShowArgs, console: Console) -> Outcome {
    let values = if args.plain_values { ValueCoding::Plain } else { ValueCoding::IntOptimized };
    let stream = MetricStream::find(&args.file, args.metric.as_encoded_bytes())?;
    for damage in &stream.damage {
        console.warn(format_args!("damage: {damage}"));
    }
    let mut out = console.out();
    let damaged = if args.bits {
        let points = match args.points {
            Some(points) => points,
            None if out.terminal && !console.json => TERMINAL_POINTS,
            None => u64::MAX,
        };
        let from = args.from.map(Timestamp::as_nanos);
        let selection = Selection { from, from_bit: args.from_bit, points };
        if console.json {
            walk(&stream.bytes, values, selection, |step| out.json(&json::object(&stream.bytes, &step)))?
        } else {
            let style = out.style();
            out.line(style.bold(stream.title()))?;
            out.line(text::titles().styled(style))?;
            walk(&stream.bytes, values, selection, |step| {
                text::lines(&stream.bytes, &step).iter().try_for_each(|line| out.line(line.styled(style)))
            })?
        }
    } else {
        let summary = Summary::of(&stream.bytes, values)?;
        if console.json {
            out.json(&summary.to_json(&stream))?;
        } else {
            let style = out.style();
            out.line(style.bold(stream.title()))?;
            summary.lines().iter().try_for_each(|line| out.line(line))?;
            if let Some(statistics) = stream.statistics {
                out.line("")?;
                out.line(summary::of_supplement(&statistics))?;
            }
        }
        summary.damage.is_some()
    };
    out.flush()?;
    Ok(if damaged || !stream.damage.is_empty() { Status::CheckFailed } else { Status::Done })
}

/// A metric's stream, and where it was found.
#[derive(Debug)]
struct MetricStream {
    id: Vec<u8>,
    name: VolumeName,
    /// Where in the data file it begins.
    offset: u64,
    bytes: Vec<u8>,
    /// What the supplement has of it, if the volume has one.
    statistics: Option<Statistics>,
    /// What is wrong with the volume, or with the stream's checksum.
    damage: Vec<Error>,
}

impl MetricStream {
    /// Looks for the stream of a metric, whose ID may be escaped, in the volume that a file belongs to.
    fn find(file: &Path, id: &[u8]) -> Outcome<Self> {
        let place = Place::of(file, true)?;
        let volume = place.open(true)?;
        let mut damage = volume.damage();
        let Some(entry) = find(&place, &volume, id)? else { return Err(absent(&volume, id)) };
        let statistics = volume.supplement().and_then(|supplement| {
            let same = |found: &MetricEntry| (found.offset, found.size) == (entry.offset(), entry.size());
            supplement.entries().flatten().find(same).map(|found| found.statistics)
        });
        let bytes = match volume.stream(&entry) {
            Ok(bytes) => bytes.to_vec(),
            // As it is: this is the place to look at it.
            Err(error) => {
                damage.push(error);
                let mut bytes = vec![0; usize::try_from(entry.size()).unwrap_or(0)];
                let file = RealDisk::new().open(&volume.path(VolumeFile::Data), false);
                let read =
                    file.and_then(|file| file.map_or(Ok(0), |file| file.read_at(entry.offset(), &mut bytes)));
                bytes.truncate(read.map_err(|error| place::failure(&error, DAMAGED))?);
                bytes
            }
        };
        let (id, name, offset) = (entry.id().to_vec(), place.name, entry.offset());
        Ok(MetricStream { id, name, offset, bytes, statistics, damage })
    }

    fn title(&self) -> String {
        let block = times::rfc3339(Timestamp::from_nanos(self.name.block_start));
        format!(
            "{}  block {block}, volume {}, {} from byte {} of the data file",
            ids::shown(&self.id),
            self.name.volume,
            counted(self.bytes.len() as u64, "byte"),
            thousands(self.offset)
        )
    }
}

/// The entry of a metric: of its ID as it is, escaped, or `""` for the empty one.
fn find<'v>(place: &Place, volume: &'v Volume, id: &[u8]) -> Outcome<Option<Entry<'v>>> {
    let empty = (id == b"\"\"").then(Vec::new);
    let unescaped = ids::unescape(id).filter(|unescaped| unescaped != id);
    let mut failure = None;
    for id in [Some(id.to_vec()), unescaped, empty].into_iter().flatten() {
        match volume.find(&id) {
            Ok(Some(entry)) => return Ok(Some(entry)),
            Ok(None) => {}
            // Behind the damage it may be all the same.
            Err(error) => match volume.entries().flatten().find(|entry| entry.id() == id) {
                Some(entry) => return Ok(Some(entry)),
                None => {
                    let hint = format_args!("{DAMAGED}: `chronolith volume verify {}`", place.path());
                    failure.get_or_insert(place::failure(&error, hint));
                }
            },
        }
    }
    failure.map_or(Ok(None), Err)
}

/// The volume lacks the metric: which ones has it?
fn absent(volume: &Volume, id: &[u8]) -> Failure {
    let failure = Failure::input(format_args!("the volume has no metric {}", ids::shown(id)));
    let needle = id.to_ascii_lowercase();
    let similar = |id: &&[u8]| {
        let hay = id.to_ascii_lowercase();
        !needle.is_empty() && hay.windows(needle.len()).any(|window| window == needle)
    };
    let known: Vec<&[u8]> = volume.entries().flatten().map(|entry| entry.id()).collect();
    let readable = |ids: Vec<&[u8]>| ids.into_iter().map(ids::shown).collect::<Vec<_>>();
    let similar = readable(known.iter().copied().filter(similar).take(3).collect());
    if !similar.is_empty() {
        return failure.hint(format_args!("did you mean {}?", similar.join(" or ")));
    }
    let first = readable(known.iter().copied().take(3).collect());
    failure.hint(match known.len() {
        0 => "it has none at all".to_owned(),
        1..=3 => format!("it has {}", first.join(", ")),
        more => format!("it has {more}: {}, ...", first.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/m3-fileset/data/metrics_10s/0");
        folder.join("fileset-1700006400000000000-1-index.db")
    }

    #[test]
    fn a_stream_of_m3_is_found_and_read_whole() {
        let volume = Place::of(&fixture(), false).and_then(|place| place.open(false)).expect("sound");
        let mut metrics = 0;
        for entry in volume.entries() {
            let id = entry.expect("sound").id().to_vec();
            for spelled in [id.clone(), ids::ascii(&id).into_bytes()] {
                let stream = MetricStream::find(&fixture(), &spelled).expect("is there");
                assert_eq!((&stream.id, stream.damage.len()), (&id, 0));
                let summary = Summary::of(&stream.bytes, ValueCoding::IntOptimized).expect("no output");
                assert!(summary.damage.is_none() && summary.points > 0);
                assert!(stream.title().contains("volume 1"));
            }
            metrics += 1;
        }
        assert!(metrics > 3);
    }

    #[test]
    fn what_is_not_there_is_a_failure_with_a_hint() {
        let failure = MetricStream::find(&fixture(), b"no such metric").expect_err("absent");
        assert!(failure.status == Status::Input && failure.to_string().contains("hint: it has"));
        let failure =
            MetricStream::find(&fixture().with_file_name("other.db"), b"x").expect_err("no file of a volume");
        assert!(failure.to_string().contains("any file of the volume"));
    }

    #[test]
    fn a_stream_that_its_checksum_denies_is_shown_all_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let (source, name) = (fixture(), VolumeName { block_start: 1_700_006_400_000_000_000, volume: 1 });
        for file in VolumeFile::ALL {
            let file_name = name.file_name(file);
            std::fs::copy(source.with_file_name(&file_name), folder.path().join(&file_name)).expect("a copy");
        }
        let volume = Volume::open(&RealDisk::new(), folder.path(), name).expect("sound");
        let entry = volume.entries().next().expect("an entry").expect("sound");
        let (id, at) = (entry.id().to_vec(), entry.offset() as usize + 9);
        let data = folder.path().join(name.file_name(VolumeFile::Data));
        let mut bytes = std::fs::read(&data).expect("readable");
        bytes[at] ^= 1;
        std::fs::write(&data, &bytes).expect("writable");
        let stream = MetricStream::find(&data, &id).expect("still there");
        assert_eq!(stream.damage.len(), 1);
        assert_eq!(stream.bytes[9], bytes[at]);
    }
}
