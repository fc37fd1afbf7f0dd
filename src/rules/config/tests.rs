use super::*;
use proptest::prelude::*;

const PUBLISHED: &str = r#"
rules:
# cumulative metrics of containers
- seriesQuery: '{__name__=~"^container_.*",container!="POD",namespace!="",pod!=""}'
  seriesFilters:
  - isNot: "^container_.*_seconds_total$"
  - {is: "^container_.*_total$"}
  resources:
    overrides:
      namespace: {resource: "namespace"}
      pod: {resource: "pod"}
  name: {matches: "^container_(.*)_total$"}
  metricsQuery: "sum(rate(<<.Series>>{<<.LabelMatchers>>,container!=\"POD\"}[2m])) by (<<.GroupBy>>)"
- seriesQuery: '{namespace!="",__name__!~"^container_.*"}'
  name:
    matches: "^(.*)_total$"
    as: "${1}_per_second"
  resources:
    template: "<<.Resource>>"
    overrides: {microservice: {group: "apps", resource: "deployment"}}
  metricsQuery: |
    sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m]))
    by (<<.GroupBy>>)
externalRules:
- seriesQuery: '{__name__="queue_depth",topic!=""}'
  resources:
    namespaced: false
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (name)
"resourceRules":
  "cpu":
    "containerLabel": "container"
    "containerQuery": |
      sum by (<<.GroupBy>>) (irate(container_cpu_usage_seconds_total{<<.LabelMatchers>>}[4m]))
    "nodeQuery": "sum by (<<.GroupBy>>) (irate(node_cpu_usage_seconds_total{<<.LabelMatchers>>}[4m]))"
    "resources": {"overrides": {"node": {"resource": "node"}, "pod": {"resource": "pod"}}}
  "memory":
    "containerLabel": "container"
    "containerQuery": "sum by (<<.GroupBy>>) (container_memory_working_set_bytes{<<.LabelMatchers>>})"
    "nodeQuery": "sum by (<<.GroupBy>>) (node_memory_working_set_bytes{<<.LabelMatchers>>})"
    "resources": {"overrides": {"node": {"resource": "node"}}}
  "window": "5m"
"#;

#[test]
fn a_file_in_the_published_form_is_read_whole() {
    let file = parse(PUBLISHED).expect("readable");
    let names: Vec<&str> = file.rules.iter().chain(&file.external).map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["rules[0]", "rules[1]", "externalRules[0]"]);
    assert_eq!(file.rules[1].place, Place { line: 14, column: 3 });
    let first = file.rules[0].rule.as_ref().expect("usable");
    assert_eq!(
        first.filters,
        [
            FilterText::IsNot("^container_.*_seconds_total$".into()),
            FilterText::Is("^container_.*_total$".into())
        ]
    );
    assert_eq!(first.resources.overrides["pod"].resource, "pod");
    let second = file.rules[1].rule.as_ref().expect("usable");
    assert_eq!(
        (second.matches.as_deref(), second.named_as.as_deref()),
        (Some("^(.*)_total$"), Some("${1}_per_second"))
    );
    assert_eq!(second.resources.template.as_deref(), Some("<<.Resource>>"));
    assert_eq!(second.resources.overrides["microservice"].group, "apps");
    assert!(second.metrics_query.contains("[2m]))\nby"), "{}", second.metrics_query);
    let external = file.external[0].rule.as_ref().expect("usable");
    assert_eq!(external.resources.namespaced, Some(false));
    let resource = file.resource.expect("there").rule.expect("usable");
    assert_eq!(
        (resource.window, resource.cpu.container_label.as_str()),
        (Duration::from_secs(300), "container")
    );
}

#[test]
fn a_bad_rule_is_told_at_its_place_and_leaves_the_others() {
    let good = "- {seriesQuery: up, resources: {template: <<.Resource>>}, metricsQuery: 'sum(up)'}";
    for (bad, said) in [
        ("- {seriesQuery: up, metricQuery: x}", "line 3, column 34: \"metricQuery\" is no key of a rule"),
        ("- {seriesQuery: up}", "line 3, column 3: the rule has no metricsQuery"),
        ("- {metricsQuery: up}", "has no seriesQuery"),
        ("- {seriesQuery: [up], metricsQuery: up}", "seriesQuery is a list, and a text is wanted"),
        ("- up", "a rule is a text, and a map is wanted"),
        ("- {seriesQuery: up, metricsQuery: up, seriesFilters: [{is: a, isNot: b}]}", "one of is and isNot"),
        ("- {seriesQuery: up, metricsQuery: up, seriesFilters: [{}]}", "one of is and isNot"),
        ("- {seriesQuery: up, metricsQuery: up, seriesFilters: {is: a}}", "a list is wanted"),
        (
            "- {seriesQuery: up, metricsQuery: up, resources: {override: {}}}",
            "\"override\" is no key of resources",
        ),
        ("- {seriesQuery: up, metricsQuery: up, resources: {overrides: {a: {}}}}", "wants {resource: NAME}"),
        ("- {seriesQuery: up, metricsQuery: up, resources: {namespaced: 3}}", "true or false is wanted"),
        ("- {seriesQuery: up, metricsQuery: up, name: {match: a}}", "\"match\" is no key of name"),
    ] {
        let file = parse(&format!("rules:\n{good}\n{bad}\n{good}\n"))
            .unwrap_or_else(|error| panic!("{bad}: {error}"));
        let are_good: Vec<bool> = file.rules.iter().map(|rule| rule.rule.is_ok()).collect();
        assert_eq!(are_good, [true, false, true], "{bad}");
        let told = file.rules[1].rule.as_ref().expect_err("bad");
        assert!(told.contains(said) && told.starts_with("line 3, column "), "{bad}: {told}");
    }
}

#[test]
fn a_file_that_is_none_is_refused_with_line_and_column() {
    for (text, said) in [
        ("rules:\n- {", "line"),
        ("rulez: []", "line 1, column 8: \"rulez\" is no key of the file"),
        ("rules: {a: b}", "line 1, column 8: rules is a map, and a list is wanted"),
        ("[]", "the file is a list"),
        ("rules: []\nrules: []", "twice"),
    ] {
        let error = parse(text).expect_err(text);
        let is_duplicate = said == "twice" && error.to_lowercase().contains("duplicate");
        assert!(error.contains(said) || is_duplicate, "{text}: {error}");
    }
    for empty in ["", "rules:", "# nothing\n", "rules: []\nexternalRules:\nresourceRules:"] {
        let file = parse(empty).unwrap_or_else(|error| panic!("{empty:?}: {error}"));
        assert!(file.rules.is_empty() && file.external.is_empty() && file.resource.is_none());
    }
    assert!(parse(&"#".repeat(FILE_BYTES_MAX + 1)).is_err());
}

proptest! {
    #[test]
    fn no_text_panics(text in r#"(rules|externalRules|resourceRules|seriesQuery|name|:|- |\n|  |\{|\}|\[|\]|'|"|&a|\*a|\PC){0,40}"#) {
        let _ = parse(&text);
    }

    #[test]
    fn no_change_of_a_file_panics(at in 0usize..1_400, with in "\\PC{0,4}|\n") {
        let mut text = PUBLISHED.to_owned();
        if text.is_char_boundary(at) && at < text.len() {
            text.replace_range(at..=at, &with);
        }
        let _ = parse(&text);
    }
}
