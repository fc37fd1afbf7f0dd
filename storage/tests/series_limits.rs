//! At a bound on the number of series new ones are refused, and those that there are go on.

use lookback_storage::{Db, Labels, Options, OutOfOrder, Reject, SeriesLimits, WriteBatch, WriteReport};
use uuid::Uuid;

const NOW_MS: i64 = 1_000_000;

fn open(dir: &tempfile::TempDir, all: Option<u64>, per_namespace: Option<u64>) -> Db {
    let options = Options { series_limits: SeriesLimits { all, per_namespace }, ..Options::default() };
    Db::open(dir.path(), options, Uuid::from_u128(1)).expect("opens")
}

fn append(db: &Db, at_ms: i64, series: &[(&str, &str)]) -> WriteReport {
    let mut batch = WriteBatch::default();
    for (namespace, pod) in series {
        let labels = [("__name__", "m"), ("namespace", namespace), ("pod", pod)];
        batch.push(Labels::new(labels).expect("valid"), Some(NOW_MS + at_ms), 1.0);
    }
    db.append_wait(batch, NOW_MS, OutOfOrder::Window).expect("answered")
}

fn refused(report: &WriteReport) -> Vec<usize> {
    report.rejected.iter().map(|(place, _)| *place).collect()
}

#[test]
fn new_series_are_refused_at_the_bound_and_the_others_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(&dir, Some(3), None);
    let report = append(&db, 0, &[("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"), ("a", "1")]);
    assert_eq!((report.accepted, report.duplicates, refused(&report)), (3, 1, vec![3]));
    let (_, reject) = &report.rejected[0];
    assert_eq!(reject, &Reject::SeriesLimit { series_max: 3, namespace: None });
    assert!(reject.is_limit() && reject.to_string().contains("--series-max"), "{reject}");
    let report = append(&db, 1, &[("a", "1"), ("b", "2"), ("b", "1")]);
    assert_eq!((report.accepted, refused(&report)), (2, vec![1]));
    drop(db);
    let db = open(&dir, Some(4), None);
    assert_eq!(append(&db, 2, &[("b", "2"), ("b", "3"), ("a", "2")]).accepted, 2);
    assert_eq!(db.stats().series, 4);
}

#[test]
fn one_namespace_does_not_take_what_is_another_s() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(&dir, None, Some(2));
    let report =
        append(&db, 0, &[("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"), ("", "1"), ("", "2"), ("", "3")]);
    assert_eq!((report.accepted, refused(&report)), (6, vec![2]), "without a namespace there is no bound");
    let reject = &report.rejected[0].1;
    assert_eq!(reject, &Reject::SeriesLimit { series_max: 2, namespace: Some("a".to_owned()) });
    assert_eq!(refused(&append(&db, 1, &[("a", "2"), ("b", "2"), ("b", "3")])), [2]);
}

#[test]
fn while_memory_is_short_only_known_series_are_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(&dir, None, None);
    append(&db, 0, &[("a", "1")]);
    db.refuse_new_series(true);
    let report = append(&db, 1, &[("a", "1"), ("a", "2")]);
    assert_eq!((report.accepted, report.rejected), (1, vec![(1, Reject::MemoryLimit)]));
    db.refuse_new_series(false);
    assert_eq!(append(&db, 2, &[("a", "2")]).accepted, 1);
}
