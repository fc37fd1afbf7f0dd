//! At a bound on series new ones are refused with 429 and the reason in the caller's dialect, and those
//! that there are go on.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{Reply, Server};
use common::remote_write::{message, series};
use common::store::now_ms;

fn remote_write(server: &Server, pods: &[&str]) -> Reply {
    let at_ms = now_ms();
    let all = pods.iter().map(|pod| {
        let labels = [("__name__", "m"), ("namespace", "default"), ("pod", *pod)];
        series(&labels, &[(at_ms, 1.0)])
    });
    server.remote_write(&message(all.collect()))
}

#[test]
fn new_series_are_refused_with_429_in_each_dialect_and_known_ones_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(
        dir.path(),
        &["--series-per-namespace-max", "2", "--series-max", "3", "--log-level", "error"],
    );
    let pod = |pod: &str| format!("/write-metrics/namespaces/default/pods/{pod}/m");
    assert_eq!(server.post(&pod("web-0"), "1").status, 200);
    assert_eq!(remote_write(&server, &["web-1"]).status, 204);

    // Kubernetes: a Status.
    let reply = server.post(&pod("web-2"), "1");
    assert_eq!(
        (reply.status, reply.json()["reason"].as_str()),
        (429, Some("TooManyRequests")),
        "{}",
        reply.text()
    );
    assert!(reply.text().contains("--series-per-namespace-max"), "{}", reply.text());

    // Prometheus: its neighbours are stored.
    let reply = remote_write(&server, &["web-0", "web-2", "web-1"]);
    assert_eq!(reply.status, 429, "{}", reply.text());
    assert!(reply.text().contains("2 samples are stored, 1 refused (series_limit: 1)"), "{}", reply.text());

    // A batch: line by line.
    let line = |namespace: &str, name: &str| {
        format!(r#"{{"namespace":"{namespace}","resource":"pods","name":"{name}","metric":"m","value":1}}"#)
    };
    let reply = server.post("/write-metrics", [line("default", "web-3"), line("other", "web-0")].join("\n"));
    assert_eq!((reply.status, reply.json()["rejected"][0]["reason"].as_str()), (207, Some("series_limit")));
    let reply = server.post("/write-metrics", line("other", "web-1"));
    assert_eq!(reply.status, 429, "{}", reply.text());
    assert!(reply.text().contains("--series-max"), "{}", reply.text());

    assert_eq!(server.post(&pod("web-0"), "2").status, 200);
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains(r#"lookback_samples_rejected_total{reason="series_limit"} 4"#), "{metrics}");
}

#[test]
fn beyond_the_memory_bound_only_known_series_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--log-level", "error"]);
    assert_eq!(remote_write(&server, &["web-0"]).status, 204);
    drop(server);
    // Any process takes more than this.
    let server = Server::start(dir.path(), &["--memory-max", "1MiB", "--log-level", "error"]);
    let refused = (0..200).find_map(|i| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        Some(remote_write(&server, &["web-0", &format!("new-{i}")])).filter(|reply| reply.status != 204)
    });
    let reply = refused.expect("noticed within seconds");
    assert_eq!(reply.status, 429, "{}", reply.text());
    assert!(reply.text().contains("1 samples are stored, 1 refused (memory_limit: 1)"), "{}", reply.text());
}
