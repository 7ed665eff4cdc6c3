//! The points of a volume.

use crate::error::Error;
use crate::fileset::{Entry, Tag, Volume, VolumeFile};
use crate::m3tsz::{DecodeError, Decoder, TimeUnit, ValueCoding};

/// How many points of a stream are in memory at a time.
const PORTION_POINTS: usize = 65_536;
const STREAM_FORMAT: &str = "M3TSZ stream in";
const UNDECODABLE: &str = "the stream does not decode, though its checksum is right";

/// A point of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamPoint {
    /// Nanoseconds since the Unix epoch.
    pub timestamp: i64,
    /// The value.
    pub value: f64,
    /// The unit of the stream at this point.
    pub unit: TimeUnit,
    /// What the point was annotated with; empty if with nothing.
    pub annotation: Vec<u8>,
}

/// What [`read_volume`] comes upon.
#[derive(Debug)]
pub enum Piece<'a> {
    /// Points of a metric.
    Points {
        /// Where the metric's stream lies, and its ID.
        entry: &'a Entry<'a>,
        /// The metric's tags, in their order.
        tags: &'a [Tag<'a>],
        /// At most 65,536 points, in the order of the stream; none only if the stream has none.
        points: &'a [StreamPoint],
        /// How many points of the stream came before these.
        before: u64,
    },
    /// Something that cannot be read. What it does not touch follows.
    Damage {
        /// The metric that it concerns, if that is known.
        id: Option<&'a [u8]>,
        /// What is wrong, and where.
        error: Error,
    },
}

/// Reads all points of a volume, in the order of the data file, and hands them to `visit`, whose failure ends it.
///
/// M3 codes values int-optimized unless it was told otherwise; nothing in the files says so. A stream is handed over entirely or not at all:
/// one that does not decode to its end has no points.
///
/// # Errors
/// Those of `visit`. Damage goes to `visit` as well.
///
/// Cost: all entries of the index in memory, 64 bytes each. A stream of more than 65,536 points is decoded twice.
pub fn read_volume<E>(
    volume: &Volume,
    values: ValueCoding,
    mut visit: impl FnMut(Piece<'_>) -> Result<(), E>,
) -> Result<(), E> {
    for error in volume.damage() {
        visit(Piece::Damage { id: None, error })?;
    }
    let mut points = Vec::new();
    for entry in volume.entries_in_data_order() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                visit(Piece::Damage { id: None, error })?;
                continue;
            }
        };
        let id = Some(entry.id());
        let stream = match volume.stream(&entry) {
            Ok(stream) => stream,
            Err(error) => {
                visit(Piece::Damage { id, error })?;
                continue;
            }
        };
        let tags = match volume.tags(&entry) {
            Ok(tags) => tags,
            Err(error) => {
                visit(Piece::Damage { id, error })?;
                Vec::new()
            }
        };
        let mut decoder = Decoder::new(stream, values);
        let mut before = 0;
        loop {
            let more = take_portion(&mut decoder, &mut points).and_then(|more| {
                // What follows must be sound before the first portion is believed.
                if more && before == 0 {
                    let mut rest = decoder.clone();
                    while let Some(point) = rest.next_point() {
                        point?;
                    }
                }
                Ok(more)
            });
            match more {
                Ok(more) => {
                    visit(Piece::Points { entry: &entry, tags: &tags, points: &points, before })?;
                    before += points.len() as u64;
                    if !more {
                        break;
                    }
                }
                Err(error) => {
                    visit(Piece::Damage { id, error: undecodable(volume, &entry, &error) })?;
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Decodes the next points into `points`, in place of what was there. `true` if there are more.
fn take_portion(decoder: &mut Decoder<'_>, points: &mut Vec<StreamPoint>) -> Result<bool, DecodeError> {
    points.clear();
    // One point more tells whether there is more; it is decoded again.
    while points.len() < PORTION_POINTS {
        let Some(point) = decoder.next_point() else { return Ok(false) };
        let point = point?;
        points.push(StreamPoint {
            timestamp: point.timestamp,
            value: point.value,
            unit: point.unit,
            annotation: point.annotation.to_vec(),
        });
    }
    match decoder.clone().next_point() {
        Some(point) => point.map(|_| true),
        None => Ok(false),
    }
}

fn undecodable(volume: &Volume, entry: &Entry<'_>, error: &DecodeError) -> Error {
    Error::Corrupt {
        format: STREAM_FORMAT,
        path: volume.path(VolumeFile::Data),
        offset: entry.offset().saturating_add(error.bit / 8),
        metric: Some(entry.id().escape_ascii().to_string().into()),
        reason: UNDECODABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fileset::{MetricStream, VolumeName, VolumeSpec, VolumeWriter};
    use crate::io::MemoryDisk;
    use crate::m3tsz::{Encoder, EncoderOptions};

    fn stream(points: i64) -> Vec<u8> {
        let mut encoder = Encoder::new(0, EncoderOptions::default());
        for at in 1..=points {
            let annotation: &[u8] = if at % 50_000 == 0 { b"note" } else { b"" };
            encoder.append(at * 1_000_000_000, at as f64, annotation).expect("encodable");
        }
        let mut stream = Vec::new();
        encoder.finish_into(&mut stream);
        stream
    }

    fn volume(streams: &[(&str, &[u8])]) -> Volume {
        let disk = MemoryDisk::new();
        let spec = VolumeSpec {
            name: VolumeName { block_start: 0, volume: 0 },
            block_size: 10,
            snapshot: None,
            supplement: None,
        };
        let mut writer = VolumeWriter::create(&disk, "/".as_ref(), spec).expect("room");
        for (id, stream) in streams {
            writer.append(MetricStream { id: id.as_bytes(), tags: b"", stream }).expect("room");
        }
        writer.finish().expect("room");
        Volume::open(&disk, "/".as_ref(), spec.name).expect("a volume")
    }

    /// `ID: points from the first to the last, annotations` or `ID: offset of the damage`.
    fn told(volume: &Volume) -> Vec<String> {
        let mut told = Vec::new();
        let all = read_volume(volume, ValueCoding::IntOptimized, |piece| {
            told.push(match piece {
                Piece::Points { entry, points, before, .. } => {
                    let notes = points.iter().filter(|point| !point.annotation.is_empty()).count();
                    let ends =
                        [points.first(), points.last()].map(|point| point.map_or(0, |p| p.value as i64));
                    format!("{}: {before} {ends:?} {notes}", String::from_utf8_lossy(entry.id()))
                }
                Piece::Damage { id, error } => {
                    format!("{}: {error}", String::from_utf8_lossy(id.unwrap_or_default()))
                }
            });
            Ok::<_, ()>(())
        });
        assert_eq!(all, Ok(()));
        told
    }

    #[test]
    fn long_streams_come_in_portions() {
        let (short, exact, long) = (stream(3), stream(65_536), stream(131_073));
        let volume = volume(&[("long", &long), ("short", &short), ("exact", &exact)]);
        assert_eq!(
            told(&volume),
            [
                "long: 0 [1, 65536] 1",
                "long: 65536 [65537, 131072] 1",
                "long: 131072 [131073, 131073] 0",
                "short: 0 [1, 3] 0",
                "exact: 0 [1, 65536] 1",
            ]
        );
    }

    #[test]
    fn streams_that_do_not_decode_have_no_points_and_stop_nothing() {
        let (short, long) = (stream(3), stream(70_000));
        let volume = volume(&[
            ("cut", &long[..long.len() - 9]),
            ("short", &short),
            ("few", &short[..short.len() - 1]),
        ]);
        let told = told(&volume);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told[0].starts_with("cut: M3TSZ stream in /fileset-0-0-data.db is corrupt at byte "),
            "{told:?}"
        );
        assert_eq!(told[1], "short: 0 [1, 3] 0");
        assert!(told[2].starts_with("few: M3TSZ stream in"), "{told:?}");
    }

    #[test]
    fn a_failing_visitor_ends_it() {
        let short = stream(3);
        let mut visits = 0;
        let ended = read_volume(&volume(&[("a", &short), ("b", &short)]), ValueCoding::IntOptimized, |_| {
            visits += 1;
            Err("enough")
        });
        assert_eq!((ended, visits), (Err("enough"), 1));
    }
}
