//! The tree of a query, in the JSON of Prometheus' `/api/v1/parse_query`, which its query builders read.

use lookback_storage::METRIC_NAME_LABEL;
use promql_parser::label::MatchOp;
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{
    AtModifier, BinaryExpr, Expr, LabelModifier, Offset, SubqueryExpr, VectorMatchCardinality, VectorSelector,
};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// The tree below an expression. It goes as deep as the query is nested.
pub(super) fn tree(expr: &Expr) -> Value {
    match expr {
        Expr::Aggregate(aggregate) => {
            let (grouping, without) = grouping(aggregate.modifier.as_ref());
            json!({
                "type": "aggregation",
                "op": aggregate.op.to_string(),
                "expr": tree(&aggregate.expr),
                "param": aggregate.param.as_ref().map(|param| tree(param)),
                "grouping": grouping,
                "without": without,
            })
        }
        Expr::Unary(unary) => json!({"type": "unaryExpr", "op": "-", "expr": tree(&unary.expr)}),
        Expr::Binary(binary) => json!({
            "type": "binaryExpr",
            "op": binary.op.to_string(),
            "lhs": tree(&binary.lhs),
            "rhs": tree(&binary.rhs),
            "matching": matching(binary),
            "bool": binary.modifier.as_ref().is_some_and(|modifier| modifier.return_bool),
        }),
        Expr::Paren(paren) => json!({"type": "parenExpr", "expr": tree(&paren.expr)}),
        Expr::Subquery(subquery) => of_subquery(subquery),
        Expr::NumberLiteral(number) => json!({"type": "numberLiteral", "val": number_text(number.val)}),
        Expr::StringLiteral(text) => json!({"type": "stringLiteral", "val": text.val}),
        Expr::VectorSelector(selector) => of_selector(selector, None),
        Expr::MatrixSelector(matrix) => of_selector(&matrix.vs, Some(matrix.range)),
        Expr::Call(call) => {
            let types: Vec<String> = call.func.arg_types.iter().map(ToString::to_string).collect();
            json!({
                "type": "call",
                "func": {
                    "name": call.func.name,
                    "argTypes": types,
                    "variadic": call.func.variadic,
                    "returnType": call.func.return_type.to_string(),
                },
                "args": call.args.args.iter().map(|arg| tree(arg)).collect::<Vec<_>>(),
            })
        }
        // Refused before it comes here.
        Expr::Extension(_) => Value::Null,
    }
}

fn of_selector(selector: &VectorSelector, range: Option<Duration>) -> Value {
    let mut matchers: Vec<Value> = Vec::new();
    for matcher in &selector.matchers.matchers {
        let op = match matcher.op {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Re(_) => "=~",
            MatchOp::NotRe(_) => "!~",
        };
        matchers.push(json!({"name": matcher.name, "value": matcher.value, "type": op}));
    }
    let name = selector.name.as_deref().unwrap_or_default();
    if !name.is_empty() {
        matchers.push(json!({"name": METRIC_NAME_LABEL, "value": name, "type": "="}));
    }
    let (timestamp, start_or_end) = at(selector.at.as_ref());
    let mut node = json!({
        "type": "vectorSelector",
        "name": name,
        "offset": offset_ms(selector.offset.as_ref()),
        "matchers": matchers,
        "timestamp": timestamp,
        "startOrEnd": start_or_end,
    });
    if let Some(range) = range {
        node["type"] = "matrixSelector".into();
        node["range"] = ms(range);
    }
    node
}

fn of_subquery(subquery: &SubqueryExpr) -> Value {
    let (timestamp, start_or_end) = at(subquery.at.as_ref());
    json!({
        "type": "subquery",
        "expr": tree(&subquery.expr),
        "range": ms(subquery.range),
        "offset": offset_ms(subquery.offset.as_ref()),
        "step": subquery.step.map_or(json!(0), ms),
        "timestamp": timestamp,
        "startOrEnd": start_or_end,
    })
}

/// The labels of a modifier, and whether they are those that are left out.
fn grouping(modifier: Option<&LabelModifier>) -> (&[String], bool) {
    match modifier {
        None => (&[], false),
        Some(LabelModifier::Include(labels)) => (&labels.labels, false),
        Some(LabelModifier::Exclude(labels)) => (&labels.labels, true),
    }
}

/// How two vectors are matched; nothing where one side is a scalar.
fn matching(binary: &BinaryExpr) -> Value {
    if binary.lhs.value_type() != ValueType::Vector || binary.rhs.value_type() != ValueType::Vector {
        return Value::Null;
    }
    let modifier = binary.modifier.as_ref();
    let (labels, _) = grouping(modifier.and_then(|modifier| modifier.matching.as_ref()));
    let on = modifier.is_some_and(|modifier| matches!(modifier.matching, Some(LabelModifier::Include(_))));
    let (card, include): (_, &[String]) = match modifier.map(|modifier| &modifier.card) {
        _ if binary.op.is_set_operator() => ("many-to-many", &[]),
        Some(VectorMatchCardinality::ManyToOne(include)) => ("many-to-one", &include.labels),
        Some(VectorMatchCardinality::OneToMany(include)) => ("one-to-many", &include.labels),
        _ => ("one-to-one", &[]),
    };
    json!({"card": card, "labels": labels, "on": on, "include": include})
}

/// The time of an `@` in Unix milliseconds, or which end of the query it is.
fn at(at: Option<&AtModifier>) -> (Value, Value) {
    match at {
        None => (Value::Null, Value::Null),
        Some(AtModifier::Start) => (Value::Null, "start".into()),
        Some(AtModifier::End) => (Value::Null, "end".into()),
        Some(AtModifier::At(time)) => match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => (ms(after), Value::Null),
            Err(before) => (negative(before.duration()), Value::Null),
        },
    }
}

fn offset_ms(offset: Option<&Offset>) -> Value {
    match offset {
        None => 0.into(),
        Some(Offset::Pos(offset)) => ms(*offset),
        Some(Offset::Neg(offset)) => negative(*offset),
    }
}

fn ms(duration: Duration) -> Value {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).into()
}

fn negative(duration: Duration) -> Value {
    i64::try_from(duration.as_millis()).map_or(i64::MIN, |ms| -ms).into()
}

fn number_text(number: f64) -> String {
    super::windows::plain(number)
}

#[cfg(test)]
mod tests {
    use crate::query::promql::Query;
    use serde_json::json;

    #[test]
    fn the_tree_is_that_of_prometheus() {
        let tree = |text: &str| Query::parse(text).expect(text).tree();
        assert_eq!(
            tree(r#"sum without (a) (rate(m{b!~"c"}[5m] offset -1m @ 1.5))"#),
            json!({
                "type": "aggregation", "op": "sum", "param": null, "grouping": ["a"], "without": true,
                "expr": {
                    "type": "call",
                    "func": {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"},
                    "args": [{
                        "type": "matrixSelector", "name": "m", "range": 300_000, "offset": -60_000,
                        "timestamp": 1_500, "startOrEnd": null,
                        "matchers": [
                            {"name": "b", "value": "c", "type": "!~"},
                            {"name": "__name__", "value": "m", "type": "="},
                        ],
                    }],
                },
            })
        );
        let binary = tree("a * on (x) group_left (y) b");
        let matching = json!({"card": "many-to-one", "labels": ["x"], "on": true, "include": ["y"]});
        assert_eq!((&binary["op"], &binary["matching"]), (&json!("*"), &matching));
        assert_eq!(tree("a and b")["matching"]["card"], "many-to-many");
        assert_eq!(
            tree("a > bool -Inf"),
            json!({
                "type": "binaryExpr", "op": ">", "matching": null, "bool": true,
                "lhs": tree("a"), "rhs": tree("-Inf"),
            })
        );
        let subquery = tree("(topk(2, a))[1h:] @ end()");
        assert_eq!((&subquery["step"], &subquery["startOrEnd"]), (&json!(0), &json!("end")));
        assert_eq!(subquery["expr"]["expr"]["param"], json!({"type": "numberLiteral", "val": "2"}));
        assert_eq!(tree("\"x\""), json!({"type": "stringLiteral", "val": "x"}));
    }
}
