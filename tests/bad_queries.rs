//! Questions that are wrong, too much, or that nobody waits for any more: each is answered in words or
//! dropped, and the server goes on.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{Reply, Server};
use common::remote_write::{message, series};
use common::store::now_ms;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::io::Write;
use std::net::TcpStream;
use tempfile::TempDir;

fn start(args: &[&str]) -> (Server, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[&["--log-level", "warn"], args].concat());
    (server, dir)
}

fn form(query: &str) -> String {
    format!("query={}", utf8_percent_encode(query, NON_ALPHANUMERIC))
}

fn ask(server: &Server, path: &str, form: &str) -> Reply {
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    server.client().send("POST", path, &headers, form.as_bytes()).unwrap()
}

#[test]
fn queries_that_are_too_much_are_refused_in_words() {
    let (server, _dir) = start(&[]);
    let deep_calls = format!("{}a{}", "abs(".repeat(5_000), ")".repeat(5_000));
    let deep_signs = format!("{}1", "-".repeat(100_000));
    let deep_subqueries = format!("{}a{}", "sum_over_time((".repeat(300), ")[1m:1s])".repeat(300));
    let long = format!("a{}", " + a".repeat(200_000));
    let labels = format!("sum by ({}) (a)", "l,".repeat(150_000));
    let powers = format!("2{}", " ^ 2".repeat(2_000));
    let regex = r#"a{b=~"((((x{100}){100}){100}){100})"}"#.to_owned();
    let replaced = r#"label_replace(vector(1), "a", "$1", "b", "((((x{100}){100}){100}){100})")"#.to_owned();
    for (query, said) in [
        (&deep_calls, "nested"),
        (&deep_signs, ""),
        (&deep_subqueries, "nested"),
        (&long, "bytes"),
        (&labels, ""),
        (&powers, "operators"),
        (&regex, "illegal regex"),
        (&replaced, "regular expression"),
        (&"nothing_known(a)".to_owned(), "nothing_known"),
        (&"rate(a)".to_owned(), "rate"),
        (&"sum(".to_owned(), "parenthesis"),
        (&"a[5m:1ms]".repeat(2), ""),
        (&"\u{0}".to_owned(), ""),
    ] {
        let reply = ask(&server, "/api/v1/query", &form(query));
        let (body, start) = (reply.json(), query.chars().take(60).collect::<String>());
        assert!((400..500).contains(&reply.status), "{start}: {} {body}", reply.status);
        let error = body["error"].as_str().unwrap_or_else(|| panic!("{start}: {body}"));
        assert!(error.contains(said) && error.len() < 1_000, "{start}: {error}");
    }
    assert_eq!(ask(&server, "/api/v1/query", "").status, 400);
    assert_eq!(ask(&server, "/api/v1/query", &form("1")).status, 200);
}

#[test]
fn an_expression_that_others_take_for_ever_for_is_matched_at_once() {
    let (server, _dir) = start(&[]);
    let value = "a".repeat(4_000);
    let series = series(&[("__name__", "m"), ("l", &value)], &[(now_ms(), 1.0)]);
    assert_eq!(server.remote_write(&message(vec![series])).status, 204);
    // Backtracking would take 2 to the power of 4,000 steps.
    for (query, found) in [(r#"m{l=~"(a+)+b"}"#, 0), (r#"m{l=~"(a|aa)+"}"#, 1), (r#"m{l!~"(a*)*c"}"#, 1)] {
        let answer = ask(&server, "/api/v1/query", &form(query)).json();
        assert_eq!(answer["data"]["result"].as_array().map(Vec::len), Some(found), "{query}");
    }
}

#[test]
fn what_a_query_may_hold_is_bounded() {
    let (server, _dir) = start(&[]);
    let form = form("sum_over_time(vector(1)[365d:1ms])");
    let reply = ask(&server, "/api/v1/query", &form);
    let error = reply.json()["error"].as_str().unwrap().to_owned();
    assert_eq!((reply.status, error.contains("50000000 samples")), (422, true), "{error}");
}

/// The one turn that there is goes to a query of many minutes, whose client then leaves; the next query is
/// answered all the same.
#[test]
fn a_query_ends_when_its_client_leaves() {
    let (server, _dir) = start(&["--query-concurrency", "1", "--query-timeout", "1h"]);
    let endless = form("sum_over_time(sum_over_time(vector(1)[30m:10ms])[6h:50ms])");
    let mut leaving = TcpStream::connect(server.address).unwrap();
    let head = format!(
        "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{endless}",
        endless.len()
    );
    leaving.write_all(head.as_bytes()).unwrap();
    // It has the turn: another one waits for it in vain.
    common::process::wait_until("the query is evaluated", || {
        let reply = ask(&server, "/api/v1/query", &format!("{}&timeout=100ms", form("1")));
        reply.status == 503 && reply.text().contains("query queue")
    });
    drop(leaving);
    common::process::wait_until("its turn is free again", || {
        ask(&server, "/api/v1/query", &format!("{}&timeout=1s", form("1"))).status == 200
    });
}
