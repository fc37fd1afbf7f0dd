use super::*;
use proptest::prelude::*;

fn arguments() -> Value {
    let text = |text: &str| Value::Text(text.to_owned());
    let values =
        [("namespace", "shop"), ("pod", "a|b")].map(|(label, value)| (label.to_owned(), text(value)));
    Value::Struct(BTreeMap::from([
        ("Series", text("requests_total")),
        ("LabelMatchers", text(r#"namespace="shop",pod=~"a|b""#)),
        ("LabelValuesByName", Value::Map(values.into())),
        ("GroupBy", text("pod,container")),
        ("GroupBySlice", Value::List(vec![text("pod"), text("container")])),
    ]))
}

fn rendered(text: &str) -> Result<String, String> {
    Template::parse(text)?.render(&arguments())
}

/// The expected texts are what Go's text/template makes of them.
#[test]
fn templates_render_as_in_go() {
    for (template, text) in [
        (
            "sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)",
            r#"sum(rate(requests_total{namespace="shop",pod=~"a|b"}[2m])) by (pod,container)"#,
        ),
        ("<<.GroupBySlice>> <<.LabelValuesByName>>", "[pod container] map[namespace:shop pod:a|b]"),
        (
            r#"<<index .LabelValuesByName "pod">>-<<index .LabelValuesByName "none">>-<<.LabelValuesByName.pod>>"#,
            "a|b--a|b",
        ),
        ("<<index .GroupBySlice 1>>", "container"),
        (
            "<<range $i, $label := .GroupBySlice>><<if $i>>,<<end>><<$i>>=<<$label>><<end>>",
            "0=pod,1=container",
        ),
        ("<<range .GroupBySlice>>[<<.>>]<<else>>none<<end>>", "[pod][container]"),
        (
            "<<range $k, $v := .LabelValuesByName>><<$k>>=~\"<<$v>>\",<<end>>",
            "namespace=~\"shop\",pod=~\"a|b\",",
        ),
        (r#"<<if eq .Series "x" "requests_total">>yes<<else>>no<<end>>"#, "yes"),
        (r#"<<if eq .Series "a">>1<<else if .GroupBy>>2<<else>>3<<end>>"#, "2"),
        (r#"<<with index .LabelValuesByName "team">>t<<.>><<else>>none<<end>>"#, "none"),
        (r#"<<with $x := .Series>><<$x>>/<<$.GroupBy>><<end>>"#, "requests_total/pod,container"),
        (r#"<<$n := "a">><<if true>><<$n = "b">><<end>><<$n>>"#, "b"),
        (
            r#"<<printf "%s{%s} %q %d %% %v" .Series .GroupBy "q\"" 3 .GroupBySlice>>"#,
            r#"requests_total{pod,container} "q\"" 3 % [pod container]"#,
        ),
        (r#"<<.Series | printf "%s_%s" "x">>"#, "x_requests_total"),
        (r#"<<len .GroupBySlice>> <<len .Series>>"#, "2 14"),
        (r#"<<(index .LabelValuesByName "pod") | len>>"#, "3"),
        ("a  <<- /* gone */ ->>  b", "ab"),
        ("a <<- .Series ->> b", "arequests_totalb"),
        ("<<not (and .Series .GroupBy)>> <<or \"\" .GroupBy>>", "false pod,container"),
        ("<<`raw >> text`>>", "raw >> text"),
        ("<<print 1 2 \"a\" true>>", "1 2atrue"),
        ("a < b > c", "a < b > c"),
    ] {
        assert_eq!(rendered(template).as_deref(), Ok(text), "{template}");
    }
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    for (template, said) in [
        ("<<.Serie>>", "there is no .Serie: there are .GroupBy"),
        ("<<.Series", "not closed"),
        ("<<end>>", "ends nothing"),
        ("<<if .Series>>", "no <<end>>"),
        ("<<toUpper .Series>>", "no function here"),
        ("<<template \"x\">>", "not understood"),
        ("<<index .Series \"a\">>", "has no index"),
        ("<<index .GroupBySlice 7>>", "outside"),
        ("<<.Series .GroupBy>>", "beside each other"),
        ("<<$x>>", "not declared"),
        ("<<printf \"%x\" .Series>>", "%x"),
        ("<<printf \"%s\">>", "too few"),
        ("<<>>", "empty"),
        ("<<(.Series>>", "not closed"),
        ("<<range .Series>><<end>>", "range can't go over a text"),
    ] {
        let error = rendered(template).expect_err(template);
        assert!(error.contains(said), "{template}: {error}");
    }
}

#[test]
fn what_a_template_makes_and_how_deep_it_goes_is_bounded() {
    let deep = "<<if .Series>>".repeat(40) + &"<<end>>".repeat(40);
    assert!(Template::parse(&deep).expect_err("too deep").contains("deep"));
    let brackets = format!("<<{}1{}>>", "(".repeat(100), ")".repeat(100));
    assert!(Template::parse(&brackets).is_err());
    let chain = format!("<<if .Series>>{}<<end>>", "<<else if .Series>>".repeat(200));
    assert!(Template::parse(&chain).is_err());
    let nested = "<<range .GroupBySlice>>".repeat(20) + "x" + &"<<end>>".repeat(20);
    let error =
        Template::parse(&nested).and_then(|template| template.render(&arguments())).expect_err("bounded");
    assert!(error.contains("no") || error.contains("steps") || error.contains("has no"), "{error}");
    assert!(Template::parse(&"a".repeat(TEMPLATE_BYTES_MAX + 1)).is_err());
}

#[test]
fn it_is_known_whether_values_go_into_the_query_as_they_are() {
    for (template, raw) in [
        ("<<.LabelMatchers>>", false),
        ("<<index .LabelValuesByName `pod`>>", true),
        ("<<$.LabelValuesByName.pod>>", true),
        ("<<.>>", true),
        ("<<$>>", true),
    ] {
        assert_eq!(Template::parse(template).expect("one").uses_raw_values(), raw, "{template}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in r#"(<<|>>|- | -|[a-z.$"`|(),:= 0-9]|if |end|range |else|with |index |printf |\.Series|\.GroupBySlice|\PC){0,40}"#) {
        let _ = rendered(&text);
    }

    #[test]
    fn text_without_actions_is_itself(text in "[^<]{0,80}") {
        prop_assert_eq!(rendered(&text), Ok(text));
    }
}
