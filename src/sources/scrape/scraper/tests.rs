use super::*;
use crate::sources::scrape::config::parse;
use crate::testing::{NOW_MS, TestApp};
use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use lookback_storage::STALENESS_MARKER_BITS;
use std::net::SocketAddr;
use std::sync::Mutex;

/// A target that exposes what it is told to.
struct Exposing {
    address: SocketAddr,
    text: Arc<Mutex<String>>,
    seen: Arc<Mutex<HeaderMap>>,
}

impl Exposing {
    async fn start(text: &str) -> Self {
        let text = Arc::new(Mutex::new(text.to_owned()));
        let seen = Arc::new(Mutex::new(HeaderMap::new()));
        let (told, noted) = (text.clone(), seen.clone());
        let answer = move |headers: HeaderMap| async move {
            *noted.lock().expect("not poisoned") = headers;
            let text = told.lock().expect("not poisoned").clone();
            if text == "hang" {
                std::future::pending::<()>().await;
            }
            text
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().route("/metrics", get(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, text, seen }
    }

    fn says(&self, text: &str) {
        *self.text.lock().expect("not poisoned") = text.to_owned();
    }

    fn target(&self, more: &str) -> Target {
        let text = format!(
            "scrape_configs:\n- job_name: j\n  {more}\n  static_configs: [{{targets: ['{}'], labels: {{instance: i, \
             pod: p}}}}]\n",
            self.address
        );
        parse(&text, false).expect("understood").targets.remove(0)
    }
}

/// What is stored of one time, without labels that all have; `end` for a staleness marker.
fn at(server: &TestApp, at_ms: i64) -> Vec<String> {
    let told = |(series, _, value): &(String, i64, f64)| {
        let series = series.replace("instance=\"i\"", "").replace("job=\"j\"", "").replace("pod=\"p\"", "");
        let value =
            if value.to_bits() == STALENESS_MARKER_BITS { "end".to_owned() } else { value.to_string() };
        format!("{} {value}", series.replace(",", "").replace("{}", ""))
    };
    let all = server.everything();
    all.iter().filter(|(series, time, _)| *time == at_ms && !series.contains("duration")).map(told).collect()
}

#[tokio::test]
async fn what_is_exposed_is_stored_and_what_is_gone_ends() {
    let server = TestApp::new();
    let exposing = Exposing::start("a{pod=\"own\"} 1\nb 2\nold 3 1795338000000\n").await;
    let mut scraped = Scraped::new(exposing.target("basic_auth: {username: u, password: p}"));
    scraped.scrape(&server.app).await.expect("stored");
    assert_eq!(
        at(&server, NOW_MS),
        [
            "a{exported_pod=\"own\"} 1",
            "b 2",
            "scrape_samples_post_metric_relabeling 3",
            "scrape_samples_scraped 3",
            "scrape_series_added 2",
            "up 1"
        ]
    );
    let seen = exposing.seen.lock().expect("not poisoned").clone();
    assert_eq!(seen["authorization"], "Basic dTpw");
    assert!(seen["accept"].to_str().expect("text").starts_with("application/openmetrics-text"));
    // A series goes, and the clock stands still: it is later all the same.
    exposing.says("b 3\nc 1\n");
    scraped.scrape(&server.app).await.expect("stored");
    let second = at(&server, NOW_MS + 1);
    assert!(second.contains(&"a{exported_pod=\"own\"} end".to_owned()), "{second:?}");
    assert!(second.contains(&"scrape_series_added 1".to_owned()), "{second:?}");
    // What can't be read is stored in no part, and everything ends.
    exposing.says("b 4\nnonsense\n");
    scraped.scrape(&server.app).await.expect("stored");
    let third = at(&server, NOW_MS + 2);
    assert_eq!(third.iter().filter(|line| line.ends_with(" end")).count(), 2, "{third:?}");
    assert!(third.contains(&"up 0".to_owned()) && third.contains(&"b end".to_owned()), "{third:?}");
    exposing.says("b 5\n");
    scraped.scrape(&server.app).await.expect("stored");
    scraped.end(&server.app).await.expect("stored");
    let last = at(&server, NOW_MS + 4);
    assert!(last.contains(&"b end".to_owned()) && last.contains(&"up end".to_owned()), "{last:?}");
}

#[tokio::test]
async fn a_target_that_is_slow_large_or_away_is_down_and_nothing_else() {
    let server = TestApp::new();
    let exposing = Exposing::start("a 1\nb 2\nc 3\n").await;
    for more in ["sample_limit: 2", "body_size_limit: 5B", "metrics_path: /nowhere"] {
        let mut scraped = Scraped::new(exposing.target(more));
        scraped.scrape(&server.app).await.expect("stored");
    }
    exposing.says("hang");
    let mut scraped = Scraped::new(exposing.target("scrape_timeout: 20ms"));
    scraped.scrape(&server.app).await.expect("stored");
    let away = Target { address: "127.0.0.1:1".to_owned(), ..exposing.target("scheme: http") };
    Scraped::new(away).scrape(&server.app).await.expect("stored");
    let stored = server.everything();
    let ups: Vec<_> =
        stored.iter().filter(|(series, ..)| series.starts_with("up{")).map(|(.., v)| *v).collect();
    assert!(!ups.is_empty() && ups.iter().all(|up| *up == 0.0), "{ups:?}");
    assert!(stored.iter().all(|(series, ..)| series.starts_with("up") || series.starts_with("scrape_")));
}

#[tokio::test]
async fn labels_of_the_target_or_the_job_win_as_configured() {
    let server = TestApp::new();
    let exposing = Exposing::start("a{job=\"own\"} 1 5\n").await;
    let target = exposing.target("honor_labels: true\n  honor_timestamps: false");
    Scraped::new(target).scrape(&server.app).await.expect("stored");
    let stored = server.everything();
    let own = stored.iter().find(|(series, ..)| series.contains("job=\"own\"")).expect("kept");
    assert_eq!((own.1, own.2), (NOW_MS, 1.0), "{stored:?}");
}

#[tokio::test]
async fn samples_are_relabelled_before_they_are_counted() {
    let server = TestApp::new();
    let exposing = Exposing::start("a{x=\"1\"} 1\nb 2\nb_drop 3\n").await;
    let rules = "[{source_labels: [__name__], regex: .*_drop, action: drop}, {regex: x, action: labeldrop}, \
                 {source_labels: [__name__], regex: b, target_label: __name__, replacement: c}]";
    let target = exposing.target(&format!("sample_limit: 2\n  metric_relabel_configs: {rules}"));
    Scraped::new(target).scrape(&server.app).await.expect("stored");
    assert_eq!(
        at(&server, NOW_MS),
        [
            "a 1",
            "c 2",
            "scrape_samples_post_metric_relabeling 2",
            "scrape_samples_scraped 3",
            "scrape_series_added 2",
            "up 1"
        ]
    );
    // Without a name there is no series: the scrape fails as a whole.
    let server = TestApp::new();
    let target = exposing.target("metric_relabel_configs: [{regex: __name__, action: labeldrop}]");
    Scraped::new(target).scrape(&server.app).await.expect("stored");
    assert!(at(&server, NOW_MS).contains(&"up 0".to_owned()), "{:?}", server.everything());
}

#[tokio::test]
async fn redirects_are_followed_and_credentials_stay_behind() {
    let server = TestApp::new();
    let exposing = Exposing::start("a 1\n").await;
    let there = format!("http://{}/metrics", exposing.address);
    let router = Router::new()
        .route("/metrics", get(async || axum::response::Redirect::permanent("/second")))
        .route("/second", get(async move || axum::response::Redirect::temporary(&there)))
        .route("/round", get(async || axum::response::Redirect::temporary("round")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let up = async |more: &str| {
        let target = Target { address: address.clone(), ..exposing.target(more) };
        server.clock.set_ms(server.app.clock.now_ms() + 1_000);
        Scraped::new(target).scrape(&server.app).await.expect("stored");
        let all = server.everything();
        all.iter().filter(|(series, ..)| series.starts_with("up{")).map(|(.., up)| *up).next_back()
    };
    assert_eq!(up("basic_auth: {username: u, password: p}").await, Some(1.0));
    assert!(!exposing.seen.lock().expect("not poisoned").contains_key("authorization"));
    assert_eq!(up("follow_redirects: false").await, Some(0.0));
    assert_eq!(up("metrics_path: /round").await, Some(0.0));
}

#[tokio::test]
async fn the_file_is_followed_and_a_target_that_goes_ends() {
    let server = TestApp::new();
    let exposing = Exposing::start("a 1\n").await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("scrape.yml");
    std::fs::write(&path, "scrape_configs: []").expect("written");
    let targets = vec![exposing.target("scrape_interval: 10ms")];
    let stop = CancellationToken::new();
    let configured = Configured { targets, ..Configured::default() };
    let sources = Sources { file: Some((path, configured)), ..Sources::default() };
    let running = tokio::spawn(run(server.app.clone(), sources, stop.clone()));
    let ended = || {
        let all = server.everything();
        let of_a: Vec<_> = all.iter().filter(|(series, ..)| series.starts_with("a{")).collect();
        of_a.len() > 1 && of_a.last().is_some_and(|(.., value)| value.to_bits() == STALENESS_MARKER_BITS)
    };
    // The file says otherwise than what the server began with: at its next reading the target goes.
    tokio::time::timeout(Duration::from_secs(60), async {
        while !ended() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the target has ended");
    stop.cancel();
    running.await.expect("stopped");
}
