//! Records: the commands of one commit as bytes.
//!
//! The same bytes are the log's payload and what the lanes apply, so recovery runs the very code that the first run ran. A
//! record is a row of sections; commands of one metric are in one section, in the order in which they were given. Format:
//! `design/record.md`.

mod reader;
mod writer;

pub(crate) use reader::{Columns, Commands, Fields, RecordedStream, Streams};
pub(crate) use writer::{SectionMark, SectionWriter, put_bytes, put_signed, put_unsigned};

use crate::names::{MetricId, NamespaceId, NamespaceOptions, Tags};

use super::partition_map::Cover;
use crate::sealed::BlockVolume;

/// The longest annotation, in bytes.
pub const ANNOTATION_BYTES_MAX: usize = 65_536;
/// The longest key or value of the metadata, in bytes.
pub const META_BYTES_MAX: usize = 1 << 20;

/// The first byte of each command.
mod opcode {
    /// Begins a section: ids and times are again relative to 0.
    pub(super) const SECTION: u8 = 1;
    pub(super) const POINT: u8 = 2;
    pub(super) const COLUMNS: u8 = 3;
    pub(super) const ANNOTATED: u8 = 4;
    pub(super) const DELETE: u8 = 5;
    pub(super) const CREATE: u8 = 6;
    pub(super) const DROP: u8 = 7;
    pub(super) const NAMESPACE: u8 = 8;
    pub(super) const PUT_META: u8 = 9;
    pub(super) const REMOVE_META: u8 = 10;
    pub(super) const STREAMS: u8 = 11;
    pub(super) const FREEZE: u8 = 12;
    pub(super) const INSTALL: u8 = 13;
}

/// The flags of an install.
mod install {
    /// No further slice comes.
    pub(super) const LAST: u8 = 1;
    /// There is no volume, since the block has no points.
    pub(super) const EMPTY: u8 = 2;
}

/// How the tags of a created metric are written.
mod tags {
    /// The ID is canonical and says them.
    pub(super) const IN_ID: u8 = 0;
    /// They follow.
    pub(super) const LISTED: u8 = 1;
}

/// One change, borrowed from a record.
#[derive(Clone, Debug)]
pub(crate) enum Command<'a> {
    Point {
        metric: MetricId,
        at: i64,
        value: f64,
    },
    Columns {
        metric: MetricId,
        columns: Columns<'a>,
    },
    /// Points in order, encoded before the commit.
    Streams {
        metric: MetricId,
        streams: Streams<'a>,
    },
    Annotated {
        metric: MetricId,
        at: i64,
        value: f64,
        annotation: &'a [u8],
    },
    Delete {
        metric: MetricId,
        first: i64,
        last: i64,
    },
    Create {
        metric: MetricId,
        namespace: NamespaceId,
        name: &'a [u8],
        /// Its tags, if they are not those that the name says.
        tags: Option<Tags>,
    },
    Drop {
        metric: MetricId,
    },
    Namespace {
        id: NamespaceId,
        name: &'a str,
        options: NamespaceOptions,
    },
    PutMeta {
        key: &'a [u8],
        value: &'a [u8],
    },
    RemoveMeta {
        key: &'a [u8],
    },
    /// What is in memory of a block takes no more points. For every lane.
    Freeze {
        namespace: NamespaceId,
        shard: u32,
        block: Cover,
    },
    /// A volume takes the place of what was frozen. For every lane.
    Install(Install),
}

/// A slice of an install: what it is for the metrics in a range of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Install {
    pub(crate) volume: BlockVolume,
    pub(crate) first: MetricId,
    pub(crate) last: MetricId,
    /// Whether no further slice comes.
    pub(crate) is_last: bool,
}

impl Command<'_> {
    /// The metric it is about; `None` for those that no lane applies, or every lane.
    pub(crate) fn metric(&self) -> Option<MetricId> {
        match self {
            Command::Point { metric, .. }
            | Command::Columns { metric, .. }
            | Command::Streams { metric, .. }
            | Command::Annotated { metric, .. }
            | Command::Delete { metric, .. }
            | Command::Create { metric, .. }
            | Command::Drop { metric } => Some(*metric),
            Command::Namespace { .. }
            | Command::PutMeta { .. }
            | Command::RemoveMeta { .. }
            | Command::Freeze { .. }
            | Command::Install(_) => None,
        }
    }

    /// How many points it adds.
    pub(crate) fn points(&self) -> u64 {
        match self {
            Command::Columns { columns, .. } => columns.size_hint().0 as u64,
            Command::Streams { streams, .. } => streams.clone().map(|stream| stream.points).sum(),
            Command::Point { .. } | Command::Annotated { .. } => 1,
            _ => 0,
        }
    }
}

/// The bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct RecordError(pub(crate) &'static str);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::stream::{ClosedStream, STREAM_POINTS_MAX};
    use super::super::transaction::Version;
    use super::super::window::Window;
    use super::*;
    use crate::sealed::VolumeId;
    use crate::sync::Arc;
    use proptest::prelude::*;

    /// A command in words, so that what was written can be compared with what is read.
    fn words(record: &[u8]) -> Result<Vec<String>, RecordError> {
        Commands::new(record)
            .map(|command| {
                Ok(match command? {
                    Command::Columns { metric, columns } => {
                        let points: Vec<_> = columns.map(|(at, value)| (at, value.to_bits())).collect();
                        format!("columns {} {points:?}", metric.0)
                    }
                    Command::Streams { metric, mut streams } => {
                        let points = streams.try_fold(Vec::new(), |mut all, stream| {
                            all.extend(stream.decode()?.iter().map(|(at, value)| (*at, value.to_bits())));
                            Ok(all)
                        })?;
                        format!("streams {} {points:?}", metric.0)
                    }
                    Command::Point { metric, at, value } => {
                        format!("point {} {at} {:x}", metric.0, value.to_bits())
                    }
                    other => format!("{other:?}"),
                })
            })
            .collect()
    }

    #[test]
    fn every_command_reads_back() {
        let mut first = SectionWriter::new();
        let options = NamespaceOptions { block_ns: 5, shards: 3 };
        first.namespace(NamespaceId(1), "n", options);
        first.put_meta(b"k", b"v");
        first.remove_meta(b"k");
        let mut second = SectionWriter::new();
        second.create(MetricId(7), NamespaceId(1), br#"m{a="1"}"#, None);
        second.create(MetricId(8), NamespaceId(0), b"raw", Some(&Tags::new(&[(b"k", b"v")]).expect("valid")));
        second.point(MetricId(7), 100, -0.0);
        second.point(MetricId(3), 100, f64::NAN);
        second.columns(MetricId(u32::MAX), [i64::MIN, 0, i64::MAX].into_iter(), &[1.0, 2.0, 3.0]);
        second.annotated(MetricId(7), -5, 1.0, b"note");
        second.delete(MetricId(7), i64::MIN, i64::MAX);
        second.drop_metric(MetricId(7));
        let (namespace, shard) = (NamespaceId(1), 2);
        let cover = Cover { first: i64::MIN, last: -1 };
        let volume = BlockVolume {
            id: VolumeId(3),
            namespace,
            shard,
            cover,
            width_ns: 5,
            number: 4,
            freeze: Version(u64::MAX),
            is_empty: false,
        };
        let install = Install { volume, first: MetricId(0), last: MetricId(u32::MAX), is_last: true };
        let nothing = BlockVolume { is_empty: true, ..volume };
        let empty = [false, true].map(|is_last| Install { volume: nothing, is_last, ..install });
        second.freeze(namespace, shard, cover);
        second.install(&install);
        empty.iter().for_each(|install| second.install(install));
        let record = [first.bytes(), second.bytes()].concat();
        let found = words(&record).expect("reads back");
        assert_eq!(found.len(), 15);
        assert_eq!(found[11], format!("{:?}", Command::Freeze { namespace, shard, block: cover }));
        assert_eq!(found[12], format!("{:?}", Command::Install(install)));
        assert_eq!(found[13..], empty.map(|install| format!("{:?}", Command::Install(install))));
        assert_eq!(found[5], "point 7 100 8000000000000000");
        assert_eq!(found[6], format!("point 3 100 {:x}", f64::NAN.to_bits()));
        let bits = [1.0f64, 2.0, 3.0].map(f64::to_bits);
        let points = [(i64::MIN, bits[0]), (0, bits[1]), (i64::MAX, bits[2])];
        assert_eq!(found[7], format!("columns {} {points:?}", u32::MAX));
        assert!(found[9].contains("first: -9223372036854775808, last: 9223372036854775807"));
        for cut in 0..record.len() {
            assert!(words(&record[..cut]).map_or_else(|_| true, |some| some.len() < 15), "cut at {cut}");
        }
    }

    #[test]
    fn the_example_of_the_format_page_is_what_is_written() {
        let page = include_str!("../../../design/record.md");
        let example =
            page.split("```hex").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
        let hex: String = example.lines().filter_map(|line| line.split("   ").next()).collect();
        let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect();
        let mut section = SectionWriter::new();
        section.create(MetricId(0), NamespaceId(0), b"m", None);
        section.point(MetricId(0), 10, 1.0);
        section.point(MetricId(0), 20, 2.0);
        assert_eq!(section.bytes(), bytes);
    }

    #[test]
    fn streams_that_are_not_what_the_record_says_are_refused() {
        let values = [1.0, 2.0, 3.0];
        let made = || ClosedStream::of_columns(Window::new(100), 10..13, &values).expect("encodable");
        let read = |change: fn(&mut ClosedStream)| {
            let mut streams = made();
            streams.iter_mut().for_each(change);
            let mut section = SectionWriter::new();
            section.streams(MetricId(0), streams);
            words(section.bytes())
        };
        assert!(read(|_| ()).is_ok());
        assert!(read(|stream| stream.points = 2).is_err());
        assert!(read(|stream| stream.points = 4).is_err());
        assert!(read(|stream| stream.points = 0).is_err());
        assert!(read(|stream| stream.points = STREAM_POINTS_MAX + 1).is_err());
        assert!(read(|stream| stream.first = 9).is_err());
        assert!(read(|stream| stream.last = 9).is_err());
        assert!(read(|stream| stream.bytes = Arc::new(stream.bytes[..8].to_vec())).is_err());
        let mut section = SectionWriter::new();
        section.streams(MetricId(0), made().into_iter().chain(made()).collect());
        assert_eq!(words(section.bytes()), Err(RecordError("streams that are not in order")));
    }

    proptest! {
        #[test]
        fn points_read_back(points in prop::collection::vec((any::<u32>(), any::<i64>(), any::<u64>()), 0..50),
            columns in prop::collection::vec((any::<i64>(), any::<u64>()), 1..50)) {
            let mut section = SectionWriter::new();
            let mut expected = Vec::new();
            for (metric, at, bits) in points {
                section.point(MetricId(metric), at, f64::from_bits(bits));
                expected.push(format!("point {metric} {at} {bits:x}"));
            }
            let values: Vec<f64> = columns.iter().map(|(_, bits)| f64::from_bits(*bits)).collect();
            section.columns(MetricId(9), columns.iter().map(|(at, _)| *at), &values);
            expected.push(format!("columns 9 {columns:?}"));
            let mut sorted = columns.clone();
            sorted.sort_by_key(|(at, _)| *at);
            sorted.dedup_by_key(|(at, _)| *at);
            let values: Vec<f64> = sorted.iter().map(|(_, bits)| f64::from_bits(*bits)).collect();
            let times = sorted.iter().map(|(at, _)| *at);
            let streams = ClosedStream::of_columns(Window::new(1 << 40), times, &values).expect("encodable");
            section.streams(MetricId(8), streams);
            expected.push(format!("streams 8 {sorted:?}"));
            section.point(MetricId(1), 17, 0.0);
            expected.push("point 1 17 0".to_owned());
            prop_assert_eq!(words(section.bytes()).unwrap(), expected);
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = words(&bytes);
            for start in 1..=13u8 {
                let _ = words(&[&[start][..], &bytes].concat());
            }
        }
    }
}
