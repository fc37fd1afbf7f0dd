//! CSV with a time column: every other column is a series, named by its heading.
//!
//! An empty cell is no sample. Values keep the float that their text is nearest to, bit for bit.

use super::file::{BadLines, FileError, LineLimit, SampleFile, parse_value};
use super::refusals::Refusals;
use crate::text::start_of;
use crate::time::{parse_rfc3339, parse_unix_milliseconds, parse_unix_seconds};
use lookback_storage::{Labels, METRIC_NAME_LABEL, NewSample, WriteBatch};
use std::collections::BTreeSet;
use std::io::Read;

/// Most columns of a file.
pub const COLUMNS_MAX: usize = 10_000;

/// How the time column is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TimeUnit {
    /// Whole Unix milliseconds.
    Ms,
    /// Unix seconds, with a fraction or without one.
    S,
    /// RFC 3339.
    Rfc3339,
}

impl TimeUnit {
    /// A number from here on is taken for milliseconds: as seconds it would be the year 5138, and
    /// this number of milliseconds is 1973.
    const MILLISECONDS_FROM: i64 = 100_000_000_000;

    /// The unit that a file's first time is most likely in.
    fn detect(text: &str) -> Self {
        match parse_unix_milliseconds(text) {
            Ok(number) if number >= Self::MILLISECONDS_FROM => Self::Ms,
            _ if parse_rfc3339(text).is_some() => Self::Rfc3339,
            _ => Self::S,
        }
    }

    fn parse(self, text: &str) -> Result<i64, String> {
        match self {
            Self::Ms => parse_unix_milliseconds(text).map_err(|error| error.to_string()),
            Self::S => parse_unix_seconds(text).map_err(|error| error.to_string()),
            Self::Rfc3339 => parse_rfc3339(text)
                .ok_or_else(|| format!("{text:?} is not RFC 3339, such as 2026-11-22T09:02:00Z")),
        }
    }
}

/// How a file is to be understood.
#[derive(Clone, Debug)]
pub struct CsvOptions {
    /// The heading of the time column.
    pub time_column: String,
    /// How it is written; `None`: as its first cell looks.
    pub time_unit: Option<TimeUnit>,
    /// Goes before each heading.
    pub metric_prefix: String,
    /// Labels for each series.
    pub labels: Vec<(String, String)>,
    /// What to do with cells and rows that can't be read.
    pub bad_lines: BadLines,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self {
            time_column: "ts".to_owned(),
            time_unit: None,
            metric_prefix: String::new(),
            labels: Vec::new(),
            bad_lines: BadLines::Stop,
        }
    }
}

/// A CSV file being read.
pub struct CsvFile<R> {
    reader: csv::Reader<LineLimit<R>>,
    record: csv::ByteRecord,
    columns: Vec<Column>,
    time_place: usize,
    time_unit: Option<TimeUnit>,
    bad_lines: BadLines,
    skipped: Refusals,
}

struct Column {
    heading: String,
    /// `None`: the time column.
    labels: Option<Labels>,
    /// Its place in the batch that is being filled.
    series: Option<usize>,
}

impl<R: Read> CsvFile<R> {
    /// Reads the headings.
    ///
    /// # Errors
    /// When there are none, the time column is not among them, or one can't name a series.
    pub fn new(input: R, options: CsvOptions) -> Result<Self, FileError> {
        let mut reader = csv::ReaderBuilder::new().from_reader(LineLimit::new(input));
        let headings = reader.byte_headers().map_err(fatal)?.clone();
        let whole = |message: String| Err(FileError::Whole(message));
        if headings.is_empty() {
            return whole("the file is empty: its first line names the columns".to_owned());
        }
        if headings.len() > COLUMNS_MAX {
            return whole(format!("{} columns are more than {COLUMNS_MAX}", headings.len()));
        }
        let mut seen = BTreeSet::new();
        let mut columns = Vec::with_capacity(headings.len());
        let mut time_place = None;
        for (place, heading) in headings.iter().enumerate() {
            // Some programs begin a file with a byte order mark.
            let heading = String::from_utf8_lossy(heading);
            let heading = heading.trim_start_matches('\u{feff}').trim().to_owned();
            if !seen.insert(heading.clone()) {
                return whole(format!("two columns have the heading {heading:?}"));
            }
            if heading == options.time_column {
                time_place = Some(place);
                columns.push(Column { heading, labels: None, series: None });
                continue;
            }
            if heading.is_empty() {
                return whole(format!("column {} has no heading", place + 1));
            }
            let name = format!("{}{heading}", options.metric_prefix);
            let extra = options.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            match Labels::new([(METRIC_NAME_LABEL, name.as_str())].into_iter().chain(extra)) {
                Ok(labels) => columns.push(Column { heading, labels: Some(labels), series: None }),
                Err(error) => return whole(format!("column {heading:?} can't be a series: {error}")),
            }
        }
        let Some(time_place) = time_place else {
            let some: Vec<&str> = columns.iter().take(8).map(|column| column.heading.as_str()).collect();
            return whole(format!(
                "no column has the heading {:?}: name the column of times with --time-column (the first are {})",
                options.time_column,
                some.join(", ")
            ));
        };
        Ok(Self {
            reader,
            record: csv::ByteRecord::new(),
            columns,
            time_place,
            time_unit: options.time_unit,
            bad_lines: options.bad_lines,
            skipped: Refusals::default(),
        })
    }

    fn add_row(&mut self, batch: &mut WriteBatch) -> Result<(), FileError> {
        let line = self.record.position().map_or(0, csv::Position::line);
        let time = String::from_utf8_lossy(self.record.get(self.time_place).unwrap_or_default());
        let unit = *self.time_unit.get_or_insert_with(|| TimeUnit::detect(time.trim()));
        let timestamp_ms = match unit.parse(time.trim()) {
            Ok(timestamp_ms) => timestamp_ms,
            Err(message) => {
                let heading = self.columns.get(self.time_place).map_or("", |column| &column.heading);
                let message = format!("column {heading:?}: {message}");
                return self.bad_lines.handle(&mut self.skipped, "bad_timestamp", line, message);
            }
        };
        for (column, cell) in self.columns.iter_mut().zip(&self.record) {
            let Some(labels) = &column.labels else { continue };
            let cell = cell.trim_ascii();
            if cell.is_empty() {
                continue;
            }
            let Some(value) = std::str::from_utf8(cell).ok().and_then(parse_value) else {
                let start = start_of(&String::from_utf8_lossy(cell));
                let message = format!("column {:?}: {start:?} is not a number", column.heading);
                self.bad_lines.handle(&mut self.skipped, "bad_value", line, message)?;
                continue;
            };
            let series = *column.series.get_or_insert_with(|| {
                batch.series.push(labels.clone());
                batch.series.len() - 1
            });
            batch.samples.push(NewSample { series, timestamp_ms: Some(timestamp_ms), value });
        }
        Ok(())
    }
}

impl<R: Read + Send> SampleFile for CsvFile<R> {
    fn fill(&mut self, batch: &mut WriteBatch, samples_max: usize) -> Result<bool, FileError> {
        for column in &mut self.columns {
            column.series = None;
        }
        // At least one row, even where a row alone has more samples.
        loop {
            match self.reader.read_byte_record(&mut self.record) {
                Ok(false) => return Ok(false),
                Ok(true) => self.add_row(batch)?,
                Err(error) => match error.kind() {
                    csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
                        let line = pos.as_ref().map_or(0, csv::Position::line);
                        let message = format!("{len} cells, but the headings are {expected_len}");
                        self.bad_lines.handle(&mut self.skipped, "bad_row", line, message)?;
                    }
                    _ => return Err(fatal(error)),
                },
            }
            if batch.samples.len() + self.columns.len() > samples_max {
                return Ok(true);
            }
        }
    }

    fn skipped(&self) -> &Refusals {
        &self.skipped
    }
}

fn fatal(error: csv::Error) -> FileError {
    let text = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(error) => FileError::Io(error),
        _ => FileError::Whole(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A series in words, a time, a value.
    type Read = (String, i64, f64);

    fn read(text: &str, options: CsvOptions) -> Result<(Vec<Read>, Refusals), FileError> {
        let mut file = CsvFile::new(text.as_bytes(), options)?;
        let mut all = Vec::new();
        loop {
            let mut batch = WriteBatch::default();
            let more = file.fill(&mut batch, 3)?;
            all.extend(
                batch.samples.iter().map(|s| {
                    (batch.series[s.series].to_string(), s.timestamp_ms.expect("has a time"), s.value)
                }),
            );
            if !more {
                return Ok((all, file.skipped().clone()));
            }
        }
    }

    fn skipping() -> CsvOptions {
        CsvOptions { bad_lines: BadLines::Skip, ..CsvOptions::default() }
    }

    #[test]
    fn columns_are_series_and_empty_cells_are_no_samples() {
        let options = CsvOptions {
            metric_prefix: "node_".to_owned(),
            labels: vec![("host".to_owned(), "a b".to_owned())],
            ..CsvOptions::default()
        };
        let text = "\u{feff}load1, ts ,\"mem, free\"\n0.5,1795338120000,\n,1795338121000, 7 \r\n-Inf,1795338122000,1e3\n";
        let (all, _) = read(text, options).expect("read");
        let load = |t, v| ("node_load1{host=\"a b\"}".to_owned(), t, v);
        let mem = |t, v| ("{\"node_mem, free\",host=\"a b\"}".to_owned(), t, v);
        assert_eq!(
            all,
            [
                load(1_795_338_120_000, 0.5),
                mem(1_795_338_121_000, 7.0),
                load(1_795_338_122_000, f64::NEG_INFINITY),
                mem(1_795_338_122_000, 1e3),
            ]
        );
    }

    #[test]
    fn the_unit_of_time_is_seen_or_given() {
        for (cell, unit, ms) in [
            ("1795338120000", None, 1_795_338_120_000),
            ("1795338120.25", None, 1_795_338_120_250),
            ("1795338120", None, 1_795_338_120_000),
            ("2026-11-22T09:02:00+00:00", None, 1_795_338_120_000),
            ("1795338120", Some(TimeUnit::Ms), 1_795_338_120),
        ] {
            let options = CsvOptions { time_unit: unit, ..CsvOptions::default() };
            let (all, _) = read(&format!("ts,m\n{cell},1\n"), options).expect("read");
            assert_eq!(all[0].1, ms, "{cell}");
        }
    }

    #[test]
    fn bad_cells_and_rows_are_named_or_skipped() {
        let text = "ts,a,b\n1795338120000,1,x\nsoon,1,2\n1795338121000,1\n1795338122000,1e400,3\n";
        let error = read(text, CsvOptions::default()).expect_err("refused").to_string();
        assert_eq!(error, "line 2: column \"b\": \"x\" is not a number");
        let (all, skipped) = read(text, skipping()).expect("read");
        assert_eq!(all.len(), 2);
        let reasons: Vec<_> = skipped.by_reason().collect();
        assert_eq!(reasons, [("bad_row", 1), ("bad_timestamp", 1), ("bad_value", 2)]);
        assert!(skipped.to_string().contains("line 3: column \"ts\""), "{skipped}");
    }

    #[test]
    fn bad_headings_are_refused() {
        let error = |text: &str| read(text, CsvOptions::default()).expect_err(text).to_string();
        assert!(error("").contains("empty"));
        assert!(error("time,a\n1,2\n").contains("--time-column"));
        assert!(error("ts,a,a\n").contains("\"a\""));
        assert!(error("ts,,a\n").contains("column 2"));
        assert!(error(&format!("ts,{}\n", "x".repeat(5_000))).contains("bytes"));
        assert!(error(&format!("ts,{}\n", "x".repeat(17 << 20))).contains("longer than"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = b"ts,a\n".to_vec();
            bytes.extend(text);
            let mut file = CsvFile::new(&bytes[..], skipping()).expect("headings");
            let mut batch = WriteBatch::default();
            while matches!(file.fill(&mut batch, usize::MAX), Ok(true)) {}
        }

        #[test]
        fn values_come_through_bit_for_bit(
            rows in proptest::collection::vec((0_i64..1_000_000, proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO), 1..20)
        ) {
            let mut text = "ts,m\n".to_owned();
            for (t, v) in &rows {
                text += &format!("{},{v:?}\n", 1_795_338_120_000 + t);
            }
            let (all, _) = read(&text, CsvOptions::default()).expect("read");
            let bits = |v: f64| v.to_bits();
            let read: Vec<_> = all.iter().map(|(_, t, v)| (t - 1_795_338_120_000, bits(*v))).collect();
            let sent: Vec<_> = rows.iter().map(|(t, v)| (*t, bits(*v))).collect();
            prop_assert_eq!(read, sent);
        }
    }
}
