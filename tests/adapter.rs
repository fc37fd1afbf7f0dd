//! prometheus-adapter's rules over the own store: a published configuration over what Lookback scrapes itself, and
//! `lookback check-config`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::adapter::{
    CONFIG, RESOURCE_RULES, Target, check_answers, check_usage, listed, wait_until_listed,
};
use common::process::{Server, lookback, run_to_end, wait_until};

#[test]
fn a_published_configuration_works_over_what_lookback_scrapes_itself() {
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = Target::start();
    let config = dir.path().join("config.yaml");
    std::fs::write(&config, format!("{CONFIG}{RESOURCE_RULES}")).unwrap();
    let scrape = target.scrape_config_file(dir.path());
    let server = Server::start(
        data.path(),
        &[
            "--scrape-config",
            scrape.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
            "--metrics-relist-interval=1s",
            "--runtime-config=metrics.k8s.io=true",
        ],
    );
    wait_until_listed(&server);
    assert!(listed(&server, "external.metrics.k8s.io/v1beta1").contains(&"queue_depth".to_owned()));
    check_answers(&server);
    check_usage(&server);
    let metrics = server.get("/metrics").text();
    for line in [
        "lookback_rules{state=\"active\"} 5",
        "lookback_rules{state=\"disabled\"} 0",
        "lookback_rules_in_force 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }

    // Another name and a bad rule: the one holds, the other is told, and nothing flickers meanwhile.
    let changed =
        CONFIG.replace("${1}_per_second", "${1}_a_second").replace("avg(<<.Series>>", "avg(<<.Serie>>");
    std::fs::write(&config, changed).unwrap();
    wait_until("the changed file holds", || {
        assert!(
            listed(&server, "custom.metrics.k8s.io/v1beta1").contains(&"pods/cpu_usage".to_owned()),
            "flickers"
        );
        server.get("/metrics").text().contains("lookback_rules{state=\"disabled\"} 1")
    });
    let metrics = server.get("/metrics").text();
    let told = metrics.lines().find(|line| line.starts_with("lookback_rule_disabled{")).unwrap();
    assert!(told.contains("rule=\"rules[2]\"") && told.contains("there is no .Serie"), "{told}");
    wait_until("the new name is answered", || {
        server
            .get("/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/web-0/http_requests_a_second")
            .status
            == 200
    });
    std::fs::write(&config, "rules: [").unwrap();
    wait_until("a broken file is told", || {
        server.get("/metrics").text().contains("lookback_rules_in_force 0")
    });
    let still = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/web-0/http_requests_a_second";
    assert_eq!(server.get(still).status, 200, "the rules before hold on");
    assert!(server.terminate().success());
}

#[test]
fn check_config_tells_of_each_rule_and_fails_where_one_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let check = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let output = run_to_end(lookback().arg("check-config").arg(&path));
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (is_good, told, _) = check(CONFIG);
    assert!(is_good, "{told}");
    let query = r#"sum(rate(series{namespace="lookback-sample",pod=~"pod1|pod2"}[10s])) by (pod)"#;
    assert!(told.contains(&format!("rules[1] (line 11, column 3): ok: {query}")), "{told}");
    let (is_good, told, error) =
        check(&CONFIG.replace("matches: \"^(.*)_total$\"", "matches: \"^(.*)_(total)$\"\n    match: x"));
    assert!(!is_good && told.contains("rules[0] (line 3, column 3): ok"), "{told}");
    assert!(told.contains("rules[1] (line 11, column 3): DISABLED: line 16, column"), "{told}");
    assert!(error.contains("1 of 4 rules can't be used"), "{error}");
    let (is_good, _, error) = check("rulez: []");
    assert!(!is_good && error.contains("line 1, column 8"), "{error}");
}
