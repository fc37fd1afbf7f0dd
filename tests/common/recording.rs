//! The committed recording of a real machine, read by other code than the importer's.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::io::Read;

pub const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/recording/proc-recording.csv.gz");

/// Each column's samples, by heading: Unix milliseconds and the bits of the value.
#[track_caller]
pub fn recording() -> BTreeMap<String, Vec<(i64, u64)>> {
    let mut text = String::new();
    let file = std::fs::File::open(FILE).expect("the recording");
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    let mut lines = text.lines();
    let headings: Vec<&str> = lines.next().expect("headings").split(',').collect();
    assert_eq!(headings[0], "ts");
    let mut columns: BTreeMap<String, Vec<(i64, u64)>> = BTreeMap::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells.len(), headings.len());
        let at_ms: i64 = cells[0].parse().expect("a time");
        for (heading, cell) in headings.iter().zip(&cells).skip(1) {
            let value: f64 = cell.parse().expect("a value");
            columns.entry((*heading).to_owned()).or_default().push((at_ms, value.to_bits()));
        }
    }
    assert_eq!((columns.len(), columns["load1"].len()), (117, 3_182));
    columns
}
