use super::*;
use crate::testing::{NOW_MS, TestApp};

const CPU: &str = "container_cpu_usage_seconds_total";
const MEMORY: &str = "container_memory_working_set_bytes";
const START: &str = "container_start_time_seconds";

fn container<'a>(metric: &'a str, pod: &'a str, container: &'a str) -> [(&'a str, &'a str); 4] {
    [("__name__", metric), ("namespace", "shop"), ("pod", pod), ("container", container)]
}

/// Points of CPU so many milliseconds ago, and a memory of 1 KiB now.
fn put(server: &TestApp, pod: &str, name: &str, points: &[(i64, f64)]) {
    let points: Vec<_> = points.iter().map(|(ago_ms, value)| (NOW_MS - ago_ms, *value)).collect();
    server.put_all(&container(CPU, pod, name), &points);
    server.put(&container(MEMORY, pod, name), NOW_MS, 1_024.0);
}

async fn told(server: &TestApp) -> Vec<String> {
    let pods = pods(&server.app, &server.context(), None, None).await.expect("read");
    let of_pod = |pod: &PodUsage| -> String {
        let of_container = |(name, u): (&String, &Usage)| {
            format!(
                " {name}={}n,{}B,{}ms ago,{}ms",
                u.cpu_nanocores,
                u.memory_bytes,
                NOW_MS - u.timestamp_ms,
                u.window_ms
            )
        };
        pod.name.clone() + &pod.containers.iter().map(of_container).collect::<String>()
    };
    pods.iter().map(of_pod).collect()
}

#[tokio::test]
async fn cpu_is_the_difference_of_the_two_newest_points() {
    let server = TestApp::new();
    put(&server, "web", "app", &[(60_000, 1.0), (20_000, 5.0), (4_500, 12.75)]);
    put(&server, "web", "side", &[(19_000, 5.0), (4_000, 5.0)]);
    assert_eq!(
        told(&server).await,
        ["web app=500000000n,1024B,4500ms ago,15500ms side=0n,1024B,4000ms ago,15000ms"]
    );
    let web = pods(&server.app, &server.context(), Some("shop"), Some("web")).await.expect("read").remove(0);
    assert_eq!(web.oldest().map(|usage| usage.timestamp_ms), Some(NOW_MS - 4_500));
    for (namespace, pod) in [("other", None), ("shop", Some("absent"))] {
        assert_eq!(pods(&server.app, &server.context(), Some(namespace), pod).await.expect("read"), []);
    }
}

#[tokio::test]
async fn a_pod_of_which_a_container_can_not_be_told_is_left_out() {
    let server = TestApp::new();
    put(&server, "good", "app", &[(20_000, 1.0), (5_000, 2.5)]);
    for (pod, points) in [
        ("one-point", &[(5_000, 2.0)][..]),
        ("counter-went-back", &[(20_000, 3.0), (5_000, 2.0)]),
        ("old", &[(400_000, 1.0), (350_000, 2.0)]),
        ("old-and-new", &[(350_000, 1.0), (5_000, 2.0)]),
        ("not-measured", &[(20_000, 0.0), (5_000, 0.0)]),
        ("ended", &[(20_000, 1.0), (5_000, 2.0), (4_000, f64::from_bits(STALENESS_MARKER_BITS))]),
        ("came-back", &[(20_000, 1.0), (9_000, f64::from_bits(STALENESS_MARKER_BITS)), (5_000, 2.0)]),
    ] {
        put(&server, pod, "app", points);
        if pod != "ended" && pod != "old" {
            put(&server, pod, "other", &[(20_000, 1.0), (5_000, 2.5)]);
        }
    }
    server.put_all(&container(CPU, "no-memory", "app"), &[(NOW_MS - 20_000, 1.0), (NOW_MS - 5_000, 2.0)]);
    // What cAdvisor tells beside of the pod itself is none of its containers.
    for other in ["", "POD"] {
        server.put_all(&container(CPU, "good", other), &[(NOW_MS - 20_000, 1.0), (NOW_MS - 1_000, 9.0)]);
    }
    assert_eq!(told(&server).await, ["good app=100000000n,1024B,5000ms ago,15000ms"]);
}

#[tokio::test]
async fn a_container_counts_from_its_start() {
    let server = TestApp::new();
    let started = |pod: &str, ago_ms: i64| {
        let at = (NOW_MS - ago_ms) as f64 / 1_000.0;
        server.put(&container(START, pod, "app"), NOW_MS, at);
    };
    put(&server, "fresh", "app", &[(0, 6.0)]);
    started("fresh", 12_000);
    put(&server, "too-fresh", "app", &[(0, 6.0)]);
    started("too-fresh", 9_000);
    put(&server, "since-long", "app", &[(0, 6.0)]);
    started("since-long", 60_000);
    put(&server, "again-since", "app", &[(15_000, 1.0), (0, 6.0)]);
    started("again-since", 9_000);
    put(&server, "before", "app", &[(15_000, 1.0), (0, 2.5)]);
    started("before", 20_000);
    assert_eq!(
        told(&server).await,
        ["before app=100000000n,1024B,0ms ago,15000ms", "fresh app=500000000n,1024B,0ms ago,12000ms"]
    );
}

#[tokio::test]
async fn of_two_series_of_a_container_the_newer_counts() {
    let server = TestApp::new();
    put(&server, "web", "app", &[(30_000, 1.0), (15_000, 2.5)]);
    let pushed = [&container(CPU, "web", "app")[..], &[("id", "/kubepods/x")]].concat();
    server.put_all(&pushed, &[(NOW_MS - 20_000, 7.0), (NOW_MS - 5_000, 10.0)]);
    assert_eq!(told(&server).await, ["web app=200000000n,1024B,5000ms ago,15000ms"]);
}

#[tokio::test]
async fn nodes_are_told_likewise() {
    let server = TestApp::new();
    for (node, from) in [("n1", 100.0), ("n2", 0.0)] {
        let cpu = [("__name__", "node_cpu_usage_seconds_total"), ("node", node)];
        server.put_all(&cpu, &[(NOW_MS - 16_000, from), (NOW_MS - 1_000, from * 1.3)]);
        server.put(&[("__name__", "node_memory_working_set_bytes"), ("node", node)], NOW_MS, 4e9);
    }
    let nodes = nodes(&server.app, &server.context(), None).await.expect("read");
    let n1 = Usage {
        cpu_nanocores: 2_000_000_000,
        memory_bytes: 4_000_000_000,
        timestamp_ms: NOW_MS - 1_000,
        window_ms: 15_000,
    };
    assert_eq!(nodes, BTreeMap::from([("n1".to_owned(), n1)]));
}
