//! The lines of OptiPod's custom provider guide that users paste: each `curl … | jq …` of its chapters "Testing" and
//! "Troubleshooting", run by bash against the built server, gives what the guide says; with and without a token.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::Server;
use common::remote_write::{message, series};
use std::process::Command;

const TOKEN: &str = "your-token";
/// 2026-01-24T00:00:00Z, where the guide's question begins.
const START_MS: i64 = 1_769_212_800_000;
const QUESTION: &str = "/api/v1/metrics?workload=my-app&namespace=default&metric=cpu\
                        &start=2026-01-24T00:00:00Z&end=2026-01-24T23:59:59Z&step=5m";

/// What follows `curl … |`, and what it prints.
const LINES: [(&str, &str); 11] = [
    ("jq -c '.data.result[0].values[0]'", "[1769212800,\"0.25\"]"),
    ("jq '.data.result[0].values[0][0]'", "1769212800"),
    ("jq '.data.result[0].values[0][0] | type'", "\"number\""),
    ("jq '.data.result[0].values[0][1] | type'", "\"string\""),
    ("jq -c '[.data.result[].values[][1] | type] | unique'", "[\"string\"]"),
    (
        "jq -c '.data.result[0].metric'",
        "{\"container\":\"app\",\"pod\":\"my-app-0\",\"namespace\":\"default\"}",
    ),
    ("jq -c '.data.result[0] | keys'", "[\"metric\",\"values\"]"),
    ("jq 'has(\"status\") and has(\"data\")'", "true"),
    ("jq '.data.result[0].values[] | length == 2' | uniq -c | tr -s ' '", " 288 true"),
    ("jq -r .status", "success"),
    ("jq -r .data.resultType", "matrix"),
];

fn bash(line: &str) -> String {
    let output = Command::new("bash").args(["-o", "pipefail", "-c", line]).output().expect("bash");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "$ {line}\nfailed: {errors}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// A day of the guide's workload, sampled every 15 s.
fn put(server: &Server, token: Option<&str>) {
    let samples: Vec<_> = (0..=5_759).map(|place| (START_MS + place * 15_000, 0.25)).collect();
    let labels = [
        ("__name__", "cpu"),
        ("container", "app"),
        ("namespace", "default"),
        ("pod", "my-app-0"),
        ("workload", "my-app"),
    ];
    let message = message(vec![series(&labels, &samples)]);
    let body = snap::raw::Encoder::new().compress_vec(&message).unwrap();
    let authorization = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("content-encoding", "snappy"), ("content-type", "application/x-protobuf")];
    headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
    let reply = server.client().send("POST", "/api/v1/write", &headers, &body).unwrap();
    assert!(reply.is_success(), "{} {}", reply.status, reply.text());
}

#[track_caller]
fn check_lines(server: &Server, more: &str) {
    let address = server.address;
    for (pipe, expected) in LINES {
        let line = format!("curl -sS --fail {more} \"http://{address}{QUESTION}\" | {pipe}");
        assert_eq!(bash(&line), expected, "$ {line}");
    }
    let health = bash(&format!("curl -sS --fail -v http://{address}/health 2>/dev/null"));
    assert_eq!(health, r#"{"status":"healthy"}"#);
    let metrics = bash(&format!("curl -sS --fail {more} http://{address}/metrics"));
    assert!(metrics.contains("lookback_http_requests_total"), "{metrics}");
}

#[test]
fn every_line_gives_what_the_guide_says() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--log-level", "warn", "--retention", "off"]);
    put(&server, None);
    check_lines(&server, "");
}

#[test]
fn every_line_gives_the_same_with_a_token_or_a_password_and_nothing_without() {
    let directory = tempfile::tempdir().unwrap();
    let credentials = directory.path().join("credentials.yaml");
    let text =
        format!("credentials: [{{token: {TOKEN}, name: optipod}}, {{username: user, password: pass}}]");
    std::fs::write(&credentials, text).unwrap();
    let data = directory.path().join("data");
    let file = credentials.to_str().unwrap();
    let args = ["--log-level", "error", "--retention", "off", "--credentials-file", file];
    let server = Server::start(&data, &args);
    put(&server, Some(TOKEN));
    check_lines(&server, &format!("-H \"Authorization: Bearer {TOKEN}\""));
    check_lines(&server, "-u user:pass");
    for wrong in ["", "-H \"Authorization: Bearer your-other-token\"", "-u user:other"] {
        let line = format!("curl -sS -o /dev/null -D - {wrong} \"http://{}{QUESTION}\"", server.address);
        let head = bash(&line).to_lowercase();
        assert!(head.starts_with("http/1.1 401 "), "$ {line}\n{head}");
        assert!(head.contains("www-authenticate: "), "$ {line}\n{head}");
    }
}
