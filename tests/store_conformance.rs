//! What every store must do, written once against the trait. Each engine that stands behind it runs
//! the whole suite: the embedded one, Debian's Prometheus, Debian's VictoriaMetrics, and one that runs already and that
//! variables name. In what an engine is allowed to differ stands in its [`Promises`](conformance::Promises), and in a
//! table in README.md.

mod common;
mod conformance;
mod remote;

use common::named_engine::Kind;
use conformance::Promises;
use lookback::store::embedded::EmbeddedStore;
use lookback_storage::Options;
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
    latest_values_are_complete_however_often_they_are_asked_for,
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
