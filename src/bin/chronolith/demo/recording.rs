//! The bundled recording, decoded: a table of scrapes.

use std::io::{self, Read};

use chronolith::Timestamp;

use crate::failure::{Failure, Outcome};
use crate::input::ZstdFrames;
use crate::rows::{ReadError, RowReader, SeriesTable};

/// zstd-compressed CSV; `examples/data/README.md` says where it comes from.
const BUNDLED: &[u8] = include_bytes!("../../../../examples/data/node_1s.csv.zst");

/// Scrapes of one machine: every metric has a value at every time.
pub(super) struct Recording {
    pub(super) metrics: Vec<Box<[u8]>>,
    /// One for each scrape, ascending.
    pub(super) at: Vec<Timestamp>,
    /// For each metric a value for each scrape.
    pub(super) values: Vec<Vec<f64>>,
    pub(super) csv_bytes: u64,
}

impl Recording {
    pub(super) fn bundled() -> Outcome<Self> {
        let broken =
            |reason: String| Failure::input(format_args!("the bundled recording is broken: {reason}"));
        let mut source = Counting { source: ZstdFrames::new(BUNDLED), bytes: 0 };
        let (mut metrics, mut times, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let mut table = SeriesTable::default();
        let unreadable = |error| match error {
            ReadError::Source(error) => broken(error.to_string()),
            ReadError::Bad(bad) => broken(format!("line {}: {}", bad.line, bad.reason)),
        };
        let mut reader = RowReader::new(&mut source, &mut table, false).map_err(unreadable)?;
        while let Some(batch) = reader.next_batch().map_err(unreadable)? {
            metrics.extend(batch.new_series);
            times.resize_with(metrics.len(), Vec::new);
            values.resize_with(metrics.len(), Vec::new);
            for column in batch.columns {
                times[column.series].extend(column.at);
                values[column.series].extend(column.values);
            }
        }
        let at = times.first().cloned().unwrap_or_default();
        if at.is_empty() || times.iter().any(|other| *other != at) {
            return Err(broken("its metrics do not share their times".to_owned()));
        }
        Ok(Recording { metrics, at, values, csv_bytes: source.bytes })
    }

    pub(super) fn points(&self) -> u64 {
        self.at.len() as u64 * self.metrics.len() as u64
    }
}

/// Counts the bytes read through it.
struct Counting<R> {
    source: R,
    bytes: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_recording_is_whole() {
        let recording = Recording::bundled().expect("bundled");
        assert_eq!((recording.metrics.len(), recording.at.len(), recording.points()), (160, 2100, 336_000));
        assert!(recording.values.iter().all(|values| values.len() == 2100));
        assert!(recording.at.is_sorted());
        assert!(recording.metrics.iter().any(|id| id.as_ref() == super::super::DRAWN));
    }
}
