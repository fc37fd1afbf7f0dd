//! Queries over the real engine.

use super::{EvalError, Options, Query, Steps, Stop, Task, Value};
use crate::testing::TestApp;
use proptest::prelude::*;

async fn ask_with(app: &TestApp, text: &str, steps: Steps, options: Options) -> Result<Value, EvalError> {
    let query = Query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let reader = app.app.store.reader(&app.context()).await.expect("a reader");
    let task = Task { reader: reader.as_ref(), options, steps, stop: &|| None };
    let outcome = if steps.count() == 1 { task.instant(&query) } else { task.range(&query) };
    outcome.map(|outcome| outcome.value)
}

/// `labels: value@seconds …;` a series.
async fn ask(app: &TestApp, text: &str, steps: Steps) -> String {
    let value = ask_with(app, text, steps, Options::default()).await;
    match value.unwrap_or_else(|error| panic!("{text}: {error}")) {
        Value::Scalar(sample) => sample.value.to_string(),
        Value::Text(_, text) => text,
        Value::Vector(vector) => {
            let told = |(labels, sample): (super::SeriesLabels, lookback_storage::Sample)| {
                format!("{labels}: {};", sample.value)
            };
            vector.into_iter().map(told).collect()
        }
        Value::Matrix(rows) => rows
            .iter()
            .map(|row| {
                let points = row.samples().map(|s| format!(" {}@{}", s.value, s.timestamp_ms / 1_000));
                format!("{}:{};", row.labels, points.collect::<String>())
            })
            .collect(),
    }
}

fn app() -> TestApp {
    let app = TestApp::new();
    for (pod, slope) in [("a", 1.0), ("b", 2.0)] {
        let samples: Vec<(i64, f64)> = (0..=20).map(|i| (i * 30_000, i as f64 * slope)).collect();
        app.put_all(&[("__name__", "m_total"), ("pod", pod)], &samples);
    }
    app
}

#[tokio::test]
async fn an_instant_and_a_range_agree() {
    let app = app();
    let at = |seconds: i64| Steps::instant(seconds * 1_000);
    assert_eq!(ask(&app, "sum(increase(m_total[2m]))", at(300)).await, "{}: 12;");
    let steps = Steps::range(240_000, 300_000, 60_000).expect("steps");
    assert_eq!(ask(&app, "sum(increase(m_total[2m]))", steps).await, "{}: 12@240 12@300;");
    assert_eq!(
        ask(&app, "m_total{pod=\"a\"}[1m]", at(60)).await,
        "{__name__=\"m_total\", pod=\"a\"}: 1@30 2@60;"
    );
    assert_eq!(ask(&app, "m_total + on (pod) m_total", at(30)).await, "{pod=\"a\"}: 2;{pod=\"b\"}: 4;");
    assert_eq!(ask(&app, "max_over_time(sum(m_total)[2m:1m])", at(120)).await, "{}: 12;");
    assert_eq!(ask(&app, "-2 ^ 2", at(0)).await, "-4");
}

#[tokio::test]
async fn what_is_held_is_bounded_and_an_evaluation_can_be_stopped() {
    let app = app();
    let steps = Steps::range(0, 600_000, 1).expect("steps");
    let options = Options { values_max: 100_000, ..Options::default() };
    let outcome = ask_with(&app, "m_total", steps, options).await;
    assert!(matches!(outcome, Err(EvalError::TooLarge { values_max: 100_000 })), "{outcome:?}");
    let inner = ask_with(&app, "sum_over_time(m_total[1y:1ms])", Steps::instant(0), options).await;
    assert!(matches!(inner, Err(EvalError::TooLarge { .. })), "{inner:?}");

    let query = Query::parse("sum_over_time(m_total[10m:1ms])").expect("a query");
    let reader = app.app.store.reader(&app.context()).await.expect("a reader");
    for (stop, said) in [(Stop::Timeout, "timed out"), (Stop::Canceled, "canceled")] {
        let task = Task {
            reader: reader.as_ref(),
            options: Options::default(),
            steps: Steps::instant(600_000),
            stop: &|| Some(stop),
        };
        let error = task.instant(&query).expect_err("stopped").to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// As the recommender of the VPA asks: of many series the samples of one are held at a time, and the points of all.
#[tokio::test]
async fn a_range_over_many_series_holds_the_samples_of_one() {
    const SERIES: usize = 30;
    const SAMPLES: usize = 2_000;
    let app = TestApp::new();
    let samples: Vec<(i64, f64)> = (0..SAMPLES).map(|i| (i as i64 * 30_000, i as f64)).collect();
    for pod in 0..SERIES {
        app.put_all(&[("__name__", "m_total"), ("pod", &pod.to_string())], &samples);
    }
    let steps = Steps::range(3_600_000, 57_600_000, 3_600_000).expect("steps");
    let points = SERIES * steps.count();
    for (text, points_held) in [
        ("m_total", points),
        ("rate(m_total[1h])", points),
        ("max_over_time(m_total[1h])", points),
        ("-rate(m_total[1h]) > bool 1", 2 * points),
        ("sum by (pod) (rate(m_total[1h]))", 4 * points),
        ("quantile(0.9, rate(m_total[1h]))", 4 * points),
        ("rate(m_total[1h]) / on (pod) rate(m_total[1h])", 4 * points),
    ] {
        let options = |values_max: usize| Options { values_max, ..Options::default() };
        let bound = SAMPLES + points_held + 4 * steps.count();
        assert!(bound < SERIES * SAMPLES / 10, "or all samples would fit");
        let answered = ask_with(&app, text, steps, options(bound)).await;
        assert!(answered.is_ok(), "{text} within {bound}: {answered:?}");
        let outcome = ask_with(&app, text, steps, options(SAMPLES - 1)).await;
        assert!(matches!(outcome, Err(EvalError::TooLarge { .. })), "{text}: {outcome:?}");
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (text, said) in [
        ("limitk(1, a)", "limitk"),
        ("limit_ratio(0.5, a)", "limit_ratio"),
        ("histogram_count(a)", "native histograms"),
        ("holt_winters(a[5m], 0.5, 0.5)", "double_exponential_smoothing"),
        ("double_exponential_smoothing(a[5m], 0.5, 0.5)", "experimental"),
        ("sort_by_label(a, \"b\")", "sort_by_label"),
        ("a + fill(0) b", "fill"),
        ("a{b=\"c\" or d=\"e\"}", "or"),
        ("nothing(a)", "unknown function with name 'nothing'"),
        ("a[0]", "greater than 0"),
        ("a +", "not PromQL"),
    ] {
        let error = Query::parse(text).expect_err(text).to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}

/// As deep as the bounds let a query be, on the stack that queries get.
#[test]
fn the_deepest_queries_are_parsed_and_evaluated() {
    let chain = format!("1{}", " + 1".repeat(990));
    let powers = format!("1{}", "^1".repeat(990));
    let nested = format!("{}1{}", "(".repeat(199), ")".repeat(199));
    let calls = format!("{}vector(1){}", "abs(".repeat(190), ")".repeat(190));
    let signs = format!("{}vector(1)", "-".repeat(990));
    let sums = format!("{}vector(1){}", "sum(".repeat(190), ")".repeat(190));
    let vectors = format!("vector(1){}", " + vector(1)".repeat(990));
    let deep = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let app = app();
        for text in [chain, powers, nested, calls, signs, sums, vectors] {
            runtime.block_on(ask(&app, &text, Steps::instant(0)));
        }
    };
    let thread = std::thread::Builder::new().stack_size(crate::query::promql::STACK_BYTES).spawn(deep);
    thread.expect("a thread").join().expect("no overflow");
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,60}") {
        let _ = Query::parse(&text);
    }

    #[test]
    fn no_words_of_the_language_panic(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "m", "sum", "by", "(", ")", "[", "]", "{", "}", "5m", "1e300", "0", "-", "+", "^", "offset", "@",
                "start", "end", ":", ",", "=", "=~", "\"a\"", "rate", "bool", "==", "on", "group_left", "1",
                "NaN", "Inf", "topk", "or", "and", "0x10", "label_replace", "\"(\"", "99999999999y",
            ]),
            0..20,
        ),
    ) {
        let _ = Query::parse(&words.join(" "));
        let _ = Query::parse(&words.concat());
    }
}
