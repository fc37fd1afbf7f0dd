//! What every store must do, written once against the trait. Each engine that stands behind it runs
//! the whole suite: the embedded one, Debian's Prometheus, Debian's VictoriaMetrics, and one that runs already and that
//! variables name. In what an engine is allowed to differ stands in its [`Promises`](conformance::Promises), and in a
//! table in README.md.

mod common;
mod conformance;
mod remote;

use common::named_engine::Kind;
use conformance::{NOW_MS, Promises};
use lookback::store::embedded::EmbeddedStore;
use lookback_storage::{Matcher, Options, Sample};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an engine that runs already promises.
fn promises(kind: Kind) -> Promises {
    match kind {
        Kind::Cortex => conformance::CORTEX,
        Kind::Thanos => conformance::THANOS,
        Kind::VictoriaMetricsCluster => conformance::VICTORIA_METRICS,
    }
}

/// Runs a behaviour over each engine, each time on an empty store.
macro_rules! behaviours {
    ($($behaviour:ident),* $(,)?) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $behaviour() {
                    let dir = tempfile::tempdir().expect("a directory");
                    let store = super::EmbeddedStore::open(dir.path(), super::Options::default()).expect("opens");
                    super::conformance::$behaviour(super::Arc::new(store), super::conformance::EMBEDDED).await;
                }
            )*
        }

        mod prometheus {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $behaviour() {
                    let Some(engine) = super::remote::prometheus().await else { return };
                    super::conformance::$behaviour(engine.store(), super::conformance::PROMETHEUS).await;
                    engine.end().await;
                }
            )*
        }

        mod victoria_metrics {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $behaviour() {
                    let Some(engine) = super::remote::victoria_metrics().await else { return };
                    super::conformance::$behaviour(engine.store(), super::conformance::VICTORIA_METRICS).await;
                    engine.end().await;
                }
            )*
        }

        mod named {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $behaviour() {
                    let Some((engine, kind)) = super::remote::named().await else { return };
                    super::conformance::$behaviour(engine.store(), super::promises(kind)).await;
                    engine.end().await;
                }
            )*
        }
    };
}

behaviours!(
    what_is_appended_is_selected_bit_for_bit,
    a_refused_sample_does_not_hold_back_its_neighbours,
    the_larger_value_wins_at_equal_timestamps,
    the_latest_value_is_fresh_and_ends_at_a_staleness_marker,
    a_range_is_what_the_one_definition_says,
    a_counter_is_read_as_its_rate,
    label_names_and_values_follow_the_selection,
    a_scope_bounds_every_call,
    a_delete_removes_a_span_of_what_was_written_before,
    a_selection_larger_than_the_limit_is_refused,
    a_range_that_would_read_more_than_the_limit_is_refused,
    a_range_of_more_points_than_are_asked_for_is_refused,
    a_reader_hands_out_series_in_label_order,
    concurrent_writers_lose_nothing,
    statistics_tell_what_is_held,
);

/// An engine is asked for a short time first once all series are known to be told by it: not so one that falls behind.
async fn a_series_that_falls_behind_is_still_told(engine: remote::Engine) {
    let store = engine.store();
    let told = async |now_ms: i64| {
        engine.clock.set_ms(now_ms);
        let matchers = [Matcher::equal("__name__", "rps")];
        let latest = store.latest(&conformance::all(), &matchers, now_ms - 300_000).await.expect("read");
        let by_pod = latest.into_iter();
        by_pod
            .map(|l| (l.labels.get("pod").expect("a pod").to_owned(), l.sample.value))
            .collect::<BTreeMap<_, _>>()
    };
    let write = async |pod: &str, at_ms: i64, value: f64| {
        let sample = [Sample::new(at_ms, value)];
        let report = conformance::append(&*store, &conformance::series("a", pod), &sample).await;
        assert_eq!(report.accepted, 1);
    };
    let expected =
        |pods: &[(&str, f64)]| pods.iter().map(|(pod, value)| ((*pod).to_owned(), *value)).collect();
    write("behind", NOW_MS - 15_000, 1.0).await;
    write("ahead", NOW_MS, 2.0).await;
    assert_eq!(told(NOW_MS).await, expected(&[("behind", 1.0), ("ahead", 2.0)]));
    // Read again, of a short time.
    write("ahead", NOW_MS + 5_000, 3.0).await;
    write("new", NOW_MS + 5_000, 4.0).await;
    assert_eq!(told(NOW_MS + 5_000).await, expected(&[("behind", 1.0), ("ahead", 3.0), ("new", 4.0)]));
    // By now the short time has nothing of the one behind.
    write("ahead", NOW_MS + 50_000, 5.0).await;
    assert_eq!(told(NOW_MS + 50_000).await, expected(&[("behind", 1.0), ("ahead", 5.0), ("new", 4.0)]));
    engine.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_that_falls_behind_in_prometheus_is_still_told() {
    let Some(engine) = remote::prometheus().await else { return };
    a_series_that_falls_behind_is_still_told(engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_that_falls_behind_in_victoria_metrics_is_still_told() {
    let Some(engine) = remote::victoria_metrics().await else { return };
    a_series_that_falls_behind_is_still_told(engine).await;
}
