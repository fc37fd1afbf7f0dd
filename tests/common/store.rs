//! The data directory of a server that does not run, opened by the engine in the test's own process.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]

use lookback_storage::{Db, Matcher, Options, ReadLimits, Selection};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Time and bits of each sample, by the series' text.
pub type Everything = BTreeMap<String, Vec<(i64, u64)>>;

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the year 292 million")
}

/// Opens the store, which keeps everything for ever.
#[track_caller]
pub fn open(dir: &Path) -> Db {
    let options = Options { retention_ms: None, ..Options::default() };
    Db::open(dir, options, uuid::Uuid::new_v4()).expect("the store opens")
}

/// All samples of the series that fit, bit for bit. Nothing may be damaged.
#[track_caller]
pub fn read(db: &Db, matchers: &[Matcher]) -> Everything {
    let limits = ReadLimits { samples_max: 100_000_000, cancelled: &|| false };
    let selection = Selection { matchers, visible: None };
    let read = db.select(selection, i64::MIN, i64::MAX, limits).expect("read");
    let stats = db.stats();
    assert_eq!((stats.damaged_blocks, stats.damaged_chunks), (0, 0));
    read.into_iter()
        .map(|(labels, samples)| {
            let samples = samples.iter().map(|s| (s.timestamp_ms, s.value.to_bits())).collect();
            (labels.to_string(), samples)
        })
        .collect()
}

/// [`read`] of everything in a directory that nobody holds.
#[track_caller]
pub fn read_dir(dir: &Path) -> Everything {
    read(&open(dir), &[])
}
