//! What the recommender of the VPA asks at its start: the cpu of every container of a cluster, eight days of it, a
//! rate an hour, in one answer. Told is what the server takes in memory for it.

use super::ask::encoded;
use super::http::Connection;
use super::server::{Peer, Server};
use super::workload::{DAY_MS, SLOT_MS};
use super::{QUIET, QUIET_AT_MOST, end_ms, load, name, start};
use std::time::Instant;

/// Pods, of two containers each.
const PODS: usize = 1_000;
const DAYS: i64 = 8;
const METRIC: &str = "container_cpu_usage_cores";
/// How often it is asked of each server.
const TIMES: usize = 3;

/// Loads each server, and asks it.
pub(crate) fn recommender(peers: &[Peer]) {
    let end_ms = end_ms();
    for peer in peers {
        let dir = tempfile::tempdir().expect("a directory");
        let Some(server) = start(*peer, &dir, &[]) else { continue };
        let start_ms = end_ms - DAYS * DAY_MS;
        let mut senders = load::senders_of(PODS, start_ms, |metric| metric == METRIC);
        senders.iter_mut().for_each(|bodies| bodies.go_on(DAYS * DAY_MS / SLOT_MS, 20, 10_000));
        let loaded = load::load(&server, senders, 0);
        server.wait_for_rest(QUIET, QUIET_AT_MOST);
        println!(
            "\n{}: {} series, {DAYS} days, {:.1} M samples; at rest {:.0} MB",
            name(&server),
            2 * PODS,
            loaded.samples as f64 / 1e6,
            server.rss_mb()
        );
        for _ in 0..TIMES {
            ask(&server, start_ms, end_ms);
        }
    }
}

fn ask(server: &Server, start_ms: i64, end_ms: i64) {
    let query = encoded(&format!("rate({METRIC}{{namespace=\"prod\"}}[1h])"));
    let (start, end, more) = (start_ms / 1_000, end_ms / 1_000, server.peer.uncached());
    let path = format!("/api/v1/query_range?query={query}&start={start}&end={end}&step=3600{more}");
    server.forget_peak();
    let (before_mb, began, cpu_s) = (server.rss_mb(), Instant::now(), server.cpu_s());
    let mut connection = Connection::open(&server.address).expect("connected");
    let status = connection.get(&path).expect("answered");
    let seconds = began.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&connection.body);
    let beginning: String = text.chars().take(300).collect();
    assert_eq!((status, text.matches("\"metric\":").count()), (200, 2 * PODS), "{beginning}");
    println!(
        "  {:<18} {seconds:>5.1} s, {:.1} CPU s, peak {:.0} MB, {:.0} MB more than before; {:.1} MB answer",
        name(server),
        server.cpu_s() - cpu_s,
        server.peak_mb(),
        server.peak_mb() - before_mb,
        text.len() as f64 / 1e6
    );
}
