//! A workload whose pods are replaced three times in two weeks, with a kill and a restart of the server between: one
//! question gives its whole history, a series a pod, and merged.
//!
//! The pods' names say nothing of their workload: only the ownership that was stored beside the usage finds them.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::Server;
use common::remote_write::{TimeSeries, message, series};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// 2023-11-14T22:00:00Z, a whole hour.
const BASE_S: i64 = 1_699_999_200;
const HOUR_S: i64 = 3_600;
const GENERATIONS: [&str; 4] = ["first", "second", "third", "fourth"];
/// A quarter of two weeks.
const GENERATION_HOURS: i64 = 84;

fn start(dir: &Path) -> Server {
    Server::start(dir, &["--log-level", "warn", "--retention", "off"])
}

fn pod(generation: usize, place: usize) -> String {
    format!("{}-{}", ["red", "green", "blue", "grey"][generation], ["x", "y"][place])
}

fn cores(generation: usize, place: usize) -> f64 {
    (generation + 1) as f64 + place as f64 / 4.0
}

/// Every minute of a generation, between the whole ones.
fn every_minute(generation: usize, value: f64) -> Vec<(i64, f64)> {
    let from_s = BASE_S + i64::try_from(generation).unwrap() * GENERATION_HOURS * HOUR_S;
    (0..GENERATION_HOURS * 60).map(|minute| ((from_s + minute * 60 + 30) * 1_000, value)).collect()
}

/// Two pods of a generation, their usage and owners; and a pod of another workload.
fn generation(generation: usize) -> Vec<TimeSeries> {
    let replica_set = GENERATIONS[generation];
    let mut all = Vec::new();
    let mut put = |labels: &[(&str, &str)], value: f64| {
        let labels = [labels, &[("namespace", "shop")]].concat();
        all.push(series(&labels, &every_minute(generation, value)));
    };
    let owned_by = |deployment| {
        [("owner_kind", "Deployment"), ("owner_name", deployment), ("__name__", "kube_replicaset_owner")]
    };
    put(&[&owned_by("web")[..], &[("replicaset", replica_set)]].concat(), 1.0);
    put(&[&owned_by("other")[..], &[("replicaset", "others")]].concat(), 1.0);
    let owner = |name| [("owner_kind", "ReplicaSet"), ("owner_name", name), ("__name__", "kube_pod_owner")];
    for place in 0..2 {
        let pod = pod(generation, place);
        put(&[&owner(replica_set)[..], &[("pod", pod.as_str())]].concat(), 1.0);
        put(&[("__name__", "cpu"), ("container", "app"), ("pod", &pod)], cores(generation, place));
    }
    put(&[&owner("others")[..], &[("pod", "stranger")]].concat(), 1.0);
    put(&[("__name__", "cpu"), ("container", "app"), ("pod", "stranger")], 100.0);
    all
}

fn put(server: &Server, number: usize) {
    let reply = server.remote_write(&message(generation(number)));
    assert!(reply.is_success(), "{} {}", reply.status, reply.text());
}

/// The points of each series of two weeks by the hour, by what `label` says of it.
fn history(server: &Server, label: &str, more: &str) -> (BTreeMap<String, Vec<(i64, f64)>>, Value) {
    let end_s = BASE_S + 4 * GENERATION_HOURS * HOUR_S;
    let reply = server.get(&format!(
        "/api/v1/metrics?workload=web&namespace=shop&metric=cpu&start={BASE_S}&end={end_s}&step=1h{more}"
    ));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = reply.json();
    let point = |point: &Value| (point[0].as_i64().unwrap(), point[1].as_str().unwrap().parse().unwrap());
    let rows = answer["data"]["result"].as_array().unwrap().iter().map(|row| {
        let points: Vec<(i64, f64)> = row["values"].as_array().unwrap().iter().map(point).collect();
        (row["metric"][label].as_str().unwrap().to_owned(), points)
    });
    (rows.collect(), answer["infos"].clone())
}

fn points(generation: usize, value: f64) -> impl Iterator<Item = (i64, f64)> {
    let before = i64::try_from(generation).unwrap() * GENERATION_HOURS;
    (1..=GENERATION_HOURS).map(move |hour| (BASE_S + (before + hour) * HOUR_S, value))
}

#[track_caller]
fn check(server: &Server, generations: usize) {
    let expected: BTreeMap<String, Vec<(i64, f64)>> = (0..generations)
        .flat_map(|number| (0..2).map(move |place| (number, place)))
        .map(|(number, place)| (pod(number, place), points(number, cores(number, place)).collect()))
        .collect();
    let (by_pod, infos) = history(server, "pod", "");
    assert_eq!(by_pod, expected);
    assert!(infos.to_string().contains("by their owners"), "{infos}");
    let sum = |number| cores(number, 0) + cores(number, 1);
    let whole: Vec<_> = (0..generations).flat_map(|number| points(number, sum(number))).collect();
    let (merged, _) = history(server, "container", "&merge=sum");
    assert_eq!(merged, BTreeMap::from([("app".to_owned(), whole)]));
}

#[test]
fn the_history_of_a_workload_goes_on_through_three_rollouts_and_two_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    put(&server, 0);
    check(&server, 1);
    put(&server, 1);
    assert!(server.terminate().success());
    let server = start(dir.path());
    check(&server, 2);
    put(&server, 2);
    server.kill9();
    let server = start(dir.path());
    check(&server, 3);
    put(&server, 3);
    check(&server, 4);
}
