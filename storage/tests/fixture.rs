//! A backup of format version 1, committed when that version was made, is read by every later version.
//!
//! `fixtures/v1` was written by this test with `LOOKBACK_WRITE_FIXTURE=1`; never write it again.

use lookback_storage::{
    Db, Labels, Options, OutOfOrder, ReadLimits, STALENESS_MARKER_BITS, Selection, WriteBatch, restore,
};
use std::path::Path;
use uuid::Uuid;

const START_MS: i64 = 1_790_000_000_000;
const DAY_MS: i64 = 86_400_000;

fn options() -> Options {
    Options { retention_ms: None, ..Options::default() }
}

/// Series by name: counters, decimals, arbitrary bits; over two partitions, at even and uneven times.
fn samples() -> Vec<(&'static str, i64, u64)> {
    let mut all = Vec::new();
    for i in 0..400i64 {
        let at_ms = START_MS + i * 15_000;
        all.push(("counter", at_ms, (i as f64 * 3.0).to_bits()));
        all.push(("decimal", at_ms, ((i % 17) as f64 / 100.0).to_bits()));
        let bits = i.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        all.push(("bits", at_ms + i * i % 977 + (i / 200) * DAY_MS, bits));
    }
    let special =
        [f64::NEG_INFINITY.to_bits(), (-0.0f64).to_bits(), STALENESS_MARKER_BITS, 1, 0x7ff8_0000_0000_0001];
    all.extend((0i64..).zip(special).map(|(i, bits)| ("special", START_MS + i, bits)));
    all
}

fn write(to: &Path) {
    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path(), options(), Uuid::from_u128(1)).expect("opens");
    let mut batch = WriteBatch::default();
    for (name, at_ms, bits) in samples() {
        let labels =
            Labels::new([("__name__", name), ("namespace", "default"), ("é", "\"\n")]).expect("valid");
        batch.push(labels, Some(at_ms), f64::from_bits(bits));
    }
    let now_ms = START_MS + 3 * DAY_MS;
    assert_eq!(db.append_wait(batch, now_ms, OutOfOrder::Lifted).expect("appended").rejected, []);
    db.backup(to, |_, _| {}).expect("backed up");
}

#[test]
fn a_backup_of_format_1_is_read_bit_for_bit() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1");
    if std::env::var_os("LOOKBACK_WRITE_FIXTURE").is_some() {
        write(&fixture);
    }
    let dir = tempfile::tempdir().expect("a directory");
    restore(&fixture, dir.path(), Uuid::from_u128(2), |_, _| {}).expect("restored");
    let db = Db::open(dir.path(), options(), Uuid::from_u128(3)).expect("opens");
    let limits = ReadLimits { samples_max: 100_000, cancelled: &|| false };
    let selection = Selection { matchers: &[], visible: None };
    let mut read = Vec::new();
    for (labels, of_series) in db.select(selection, i64::MIN, i64::MAX, limits).expect("read") {
        assert_eq!((labels.get("namespace"), labels.get("é")), (Some("default"), Some("\"\n")));
        let name = labels.metric_name().to_owned();
        read.extend(of_series.iter().map(|s| (name.clone(), s.timestamp_ms, s.value.to_bits())));
    }
    let mut expected: Vec<_> =
        samples().into_iter().map(|(name, at, bits)| (name.to_owned(), at, bits)).collect();
    read.sort_unstable();
    expected.sort_unstable();
    assert_eq!(read, expected);
    let stats = db.stats();
    assert_eq!((stats.damaged_blocks, stats.damaged_chunks), (0, 0));
}
