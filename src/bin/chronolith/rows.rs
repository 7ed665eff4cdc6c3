//! CSV rows `series,ts_ms,value` to batches of columns, and points back to rows.
//!
//! The header names the unit: `ts_s`, `ts_ms`, `ts_us` or `ts_ns`. A batch has the rows of a stretch of one file, grouped by series,
//! each series' rows in the file's order: so a later row of the same time still wins. Nothing is allocated for a row but
//! the room of its two numbers.

use std::collections::HashMap;
use std::io::{self, Read};

use chronolith::{METRIC_ID_BYTES_MAX, Timestamp};
use csv::ByteRecord;

use crate::console::{Console, counted};
use crate::ids;

/// Rows of a batch.
pub(crate) const BATCH_ROWS: usize = 1 << 16;

/// The unit of the timestamp column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
}

impl Unit {
    pub(crate) fn nanos(self) -> i64 {
        match self {
            Unit::Second => 1_000_000_000,
            Unit::Millisecond => 1_000_000,
            Unit::Microsecond => 1_000,
            Unit::Nanosecond => 1,
        }
    }

    pub(crate) fn column(self) -> &'static str {
        match self {
            Unit::Second => "ts_s",
            Unit::Millisecond => "ts_ms",
            Unit::Microsecond => "ts_us",
            Unit::Nanosecond => "ts_ns",
        }
    }

    fn from_column(name: &[u8]) -> Option<Self> {
        [Unit::Second, Unit::Millisecond, Unit::Microsecond, Unit::Nanosecond]
            .into_iter()
            .find(|unit| unit.column().as_bytes() == name)
    }
}

/// Rows of one file, grouped by series.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Series seen for the first time. Together with those of the batches before, their positions are the series numbers.
    pub(crate) new_series: Vec<Box<[u8]>>,
    pub(crate) columns: Vec<Column>,
    pub(crate) points: u64,
    /// The line of its last row.
    pub(crate) last_line: u64,
    /// Rows that were passed over.
    pub(crate) bad: Vec<BadRow>,
}

/// One series' points in a batch.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) series: usize,
    pub(crate) first_line: u64,
    pub(crate) at: Vec<Timestamp>,
    pub(crate) values: Vec<f64>,
}

/// A row that cannot be read, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadRow {
    pub(crate) line: u64,
    pub(crate) reason: String,
}

/// Why reading ended.
#[derive(Debug)]
pub(crate) enum ReadError {
    Source(io::Error),
    Bad(BadRow),
}

/// Numbers of the series of all files of one import.
#[derive(Debug, Default)]
pub(crate) struct SeriesTable {
    numbers: HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>,
}

/// Reads the rows of one file.
pub(crate) struct RowReader<'a, R> {
    csv: csv::Reader<R>,
    record: ByteRecord,
    nanos_per_unit: i64,
    table: &'a mut SeriesTable,
    /// For each series number the column of the current batch, valid if that column is of this series.
    column_of: Vec<usize>,
    /// The series of the row before: rows of one series often follow one another.
    last_id: Vec<u8>,
    last_series: usize,
    skip_bad: bool,
}

impl<'a, R: Read> RowReader<'a, R> {
    /// Reads the header.
    ///
    /// # Errors
    /// The source's, or a [`BadRow`] at line 1 if it is no header; empty input has none either.
    pub(crate) fn new(source: R, table: &'a mut SeriesTable, skip_bad: bool) -> Result<Self, ReadError> {
        let mut csv = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(1 << 16)
            .from_reader(source);
        let mut record = ByteRecord::new();
        let more = read(&mut csv, &mut record)?;
        let unit = match (
            more,
            record.len(),
            record.get(0),
            record.get(1).and_then(Unit::from_column),
            record.get(2),
        ) {
            (true, 3, Some(b"series"), Some(unit), Some(b"value")) => unit,
            _ => {
                let reason = "the first line must be `series,ts_ms,value` (or ts_s, ts_us, ts_ns)".to_owned();
                return Err(ReadError::Bad(BadRow { line: 1, reason }));
            }
        };
        let nanos_per_unit = unit.nanos();
        let (column_of, last_id) = (Vec::new(), Vec::new());
        Ok(RowReader { csv, record, nanos_per_unit, table, column_of, last_id, last_series: 0, skip_bad })
    }

    /// The next rows, up to [`BATCH_ROWS`]; `None` at the end.
    ///
    /// # Errors
    /// The source's, or the first bad row unless they are skipped, and one of several lines even then. Rows read since the batch before are lost with it.
    pub(crate) fn next_batch(&mut self) -> Result<Option<Batch>, ReadError> {
        let mut batch = Batch::default();
        // Each skipped row takes room too, so a file of nothing but bad rows must not grow one batch forever.
        while batch.points + (batch.bad.len() as u64) < BATCH_ROWS as u64 {
            if !read(&mut self.csv, &mut self.record)? {
                break;
            }
            let line = self.record.position().map_or(0, csv::Position::line);
            batch.last_line = line;
            match self.row(line, &mut batch) {
                Ok(()) => batch.points += 1,
                Err(mut reason) => {
                    // A stray quote makes one row of all lines up to the next one: they are not passed over as one bad row.
                    let lines = self.csv.position().line().saturating_sub(line);
                    if lines > 1 {
                        reason += &format!("; a quote on this line is closed {lines} lines later, or never");
                    }
                    let bad = BadRow { line, reason };
                    if !self.skip_bad || lines > 1 {
                        return Err(ReadError::Bad(bad));
                    }
                    batch.bad.push(bad);
                }
            }
        }
        Ok((batch.last_line > 0).then_some(batch))
    }

    fn row(&mut self, line: u64, batch: &mut Batch) -> Result<(), String> {
        let (3, Some(id), Some(time), Some(value)) =
            (self.record.len(), self.record.get(0), self.record.get(1), self.record.get(2))
        else {
            return Err(format!("3 columns expected, found {}", self.record.len()));
        };
        let at = timestamp(time, self.nanos_per_unit)?;
        let value = number(value)?;
        // An empty `last_id` is no series, as no ID is empty.
        if id != self.last_id || id.is_empty() {
            if id.is_empty() || id.len() > METRIC_ID_BYTES_MAX {
                return Err(format!("a series has 1 to {METRIC_ID_BYTES_MAX} bytes, not {}", id.len()));
            }
            self.last_series = match self.table.numbers.get(id) {
                Some(series) => *series,
                None => {
                    let series = self.table.numbers.len();
                    self.table.numbers.insert(id.into(), series);
                    batch.new_series.push(id.into());
                    series
                }
            };
            self.last_id.clear();
            self.last_id.extend_from_slice(id);
        }
        let column = self.column(line, batch);
        column.at.push(at);
        column.values.push(value);
        Ok(())
    }

    /// The last series' column in this batch.
    fn column<'b>(&mut self, line: u64, batch: &'b mut Batch) -> &'b mut Column {
        let series = self.last_series;
        if self.column_of.len() <= series {
            self.column_of.resize(series + 1, usize::MAX);
        }
        let known = self.column_of.get(series).copied().unwrap_or(usize::MAX);
        let position = match batch.columns.get(known) {
            Some(column) if column.series == series => known,
            _ => {
                batch.columns.push(Column { series, first_line: line, at: Vec::new(), values: Vec::new() });
                batch.columns.len() - 1
            }
        };
        if let Some(known) = self.column_of.get_mut(series) {
            *known = position;
        }
        &mut batch.columns[position]
    }
}

/// Reads a record; `false` at the end.
fn read<R: Read>(csv: &mut csv::Reader<R>, record: &mut ByteRecord) -> Result<bool, ReadError> {
    csv.read_byte_record(record).map_err(|error| match error.into_kind() {
        csv::ErrorKind::Io(error) => ReadError::Source(error),
        // Records of bytes with any number of fields have no other errors.
        kind => ReadError::Source(io::Error::other(format!("{kind:?}"))),
    })
}

fn timestamp(text: &[u8], nanos_per_unit: i64) -> Result<Timestamp, String> {
    let count: i64 = parse(text).ok_or_else(|| format!("`{}` is no 64-bit integer", shown(text)))?;
    let nanos = count.checked_mul(nanos_per_unit);
    nanos.map(Timestamp::from_nanos).ok_or_else(|| format!("time {count} is beyond 64 bits of nanoseconds"))
}

/// NaN and infinities are numbers like others: `NaN`, `inf`, `-inf`.
fn number(text: &[u8]) -> Result<f64, String> {
    parse(text).ok_or_else(|| format!("`{}` is no number", shown(text)))
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.trim_ascii().parse().ok()
}

/// A field for a message: short and harmless.
fn shown(field: &[u8]) -> String {
    ids::shortened(&ids::readable(field), 40).into_owned()
}

/// An ID as the first field of a row, quoted if need be, with the comma after it.
pub(crate) fn id_field(id: &[u8]) -> Vec<u8> {
    let special = id.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r'));
    let mut field = Vec::with_capacity(id.len() + 3);
    if special {
        field.push(b'"');
        for &byte in id {
            field.extend_from_slice(if byte == b'"' { b"\"\"" } else { std::slice::from_ref(&byte) });
        }
        field.push(b'"');
    } else {
        field.extend_from_slice(id);
    }
    field.push(b',');
    field
}

/// What rows cannot hold: counted while they are written, and told once.
#[derive(Debug, Default)]
pub(crate) struct Loss {
    nan_payloads: u64,
    /// Those left out.
    pub(crate) annotations: u64,
}

impl Loss {
    /// A value that is printed.
    pub(crate) fn see(&mut self, value: f64) {
        self.nan_payloads += u64::from(value.is_nan() && value.to_bits() != f64::NAN.to_bits());
    }

    pub(crate) fn tell(&self, console: Console) {
        if self.nan_payloads > 0 {
            let values = counted(self.nan_payloads, "NaN value");
            console.note(format_args!(
                "note: {values} with a sign or payload printed as plain NaN; `dump` keeps every bit"
            ));
        }
        if self.annotations > 0 {
            let annotations = counted(self.annotations, "annotation");
            console.note(format_args!("note: left out {annotations}; `dump --annotations` has them"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: impl AsRef<[u8]>, skip_bad: bool) -> Result<Vec<Batch>, ReadError> {
        let mut table = SeriesTable::default();
        let mut reader = RowReader::new(text.as_ref(), &mut table, skip_bad)?;
        std::iter::from_fn(|| reader.next_batch().transpose()).collect()
    }

    fn bad(text: &str) -> BadRow {
        match read_all(text, false) {
            Err(ReadError::Bad(bad)) => bad,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_are_grouped_by_series_in_their_order() {
        let batches =
            read_all("series,ts_ms,value\na,1,0.5\nb,1,NaN\na,2,-inf\na,2,7\n", false).expect("sound rows");
        let [batch] = batches.as_slice() else { panic!("{batches:?}") };
        assert_eq!((batch.points, batch.last_line), (4, 5));
        assert_eq!(batch.new_series, [Box::from(*b"a"), Box::from(*b"b")]);
        let [a, b] = batch.columns.as_slice() else { panic!("{batch:?}") };
        assert_eq!(a.at, [1, 2, 2].map(Timestamp::from_millis));
        assert_eq!(a.values, [0.5, f64::NEG_INFINITY, 7.0]);
        assert_eq!((b.first_line, b.at.as_slice()), (3, &[Timestamp::from_millis(1)][..]));
        assert!(b.values[0].is_nan());
    }

    #[test]
    fn series_keep_their_numbers_from_batch_to_batch() {
        let rows = (0..BATCH_ROWS + 10).map(|row| format!("m{},{row},1\n", row % 7));
        let text: String = std::iter::once("series,ts_ns,value\n".to_owned()).chain(rows).collect();
        let batches = read_all(text, false).expect("sound rows");
        assert_eq!(batches.iter().map(|batch| batch.points).collect::<Vec<_>>(), [BATCH_ROWS as u64, 10]);
        assert_eq!(batches[0].new_series.len(), 7);
        assert!(batches[1].new_series.is_empty());
        for column in batches.iter().flat_map(|batch| &batch.columns) {
            assert!(
                column.at.iter().all(|at| at.as_nanos() as usize % 7 == column.series),
                "{}",
                column.series
            );
        }
    }

    #[test]
    fn every_unit_is_exact() {
        for (unit, nanos) in [("ts_s", 5_000_000_000), ("ts_ms", 5_000_000), ("ts_us", 5_000), ("ts_ns", 5)] {
            let batches = read_all(format!("series,{unit},value\r\nx,5,1\r\n"), false).expect("a sound row");
            assert_eq!(batches[0].columns[0].at, [Timestamp::from_nanos(nanos)]);
        }
    }

    #[test]
    fn bad_rows_are_named_by_line_and_reason() {
        let header = "series,ts_ms,value\nok,1,1\n";
        for (row, reason) in [
            ("a,1", "3 columns expected, found 2"),
            ("a,1,2,3", "3 columns expected, found 4"),
            ("a,1.5,2", "`1.5` is no 64-bit integer"),
            ("a,9223372036854775807,2", "time 9223372036854775807 is beyond 64 bits of nanoseconds"),
            ("a,1,x\u{7}", "`x\\x07` is no number"),
            (",1,2", "a series has 1 to 65536 bytes, not 0"),
        ] {
            let reason = reason.to_owned();
            assert_eq!(bad(&format!("{header}{row}\n")), BadRow { line: 3, reason }, "{row}");
        }
        let long = bad(&format!("{header}{},1,2\n", "x".repeat(65_537)));
        assert_eq!(long.reason, "a series has 1 to 65536 bytes, not 65537");
    }

    #[test]
    fn a_missing_header_is_noticed() {
        for text in ["", "a,1,2\n", "series,time,value\n", "series,ts_ms\n"] {
            assert_eq!(bad(text).line, 1, "{text}");
        }
    }

    #[test]
    fn bad_rows_can_be_skipped_and_are_counted() {
        let batches = read_all("series,ts_ms,value\na,1,1\nb\na,2,2\n,3,3\n", true).expect("skipped");
        assert_eq!(batches[0].points, 2);
        assert_eq!(batches[0].bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(batches[0].new_series.len(), 1);
    }

    #[test]
    fn a_stray_quote_is_not_skipped_with_all_that_follows() {
        let text = "series,ts_ms,value\na,1,1\n\"x,2,2\na,3,3\na,4,4\n";
        match read_all(text, true) {
            Err(ReadError::Bad(bad)) => {
                assert_eq!(bad.line, 3);
                assert!(bad.reason.contains("a quote on this line"), "{}", bad.reason);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn any_id_survives_being_a_field() {
        for id in
            [&b"plain"[..], b"with,comma", b"with\"quote", b"\"", b"line\nbreak\r", b"\xff\x00", b" spaced "]
        {
            let text = [b"series,ts_ns,value\n", id_field(id).as_slice(), b"1,2\n"].concat();
            let batches = read_all(text, false).expect("a sound row");
            assert_eq!(&*batches[0].new_series[0], id);
        }
    }
}
