//! From a query's text to what is evaluated.

use super::durations::{Times, fold};
use super::error::ParseError;
use super::expr::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, Expr, Grouping, Matching, Moment,
    RangeExpr, RangeSource, Selector,
};
use super::{functions, guard};
use lookback_storage::{METRIC_NAME_LABEL, MatchOp, Matcher};
use promql_parser::label::MatchOp as ParsedOp;
use promql_parser::parser::{self, Expr as Parsed, LabelModifier, Offset, VectorMatchCardinality, token};
use std::time::{Duration, SystemTime};

pub use promql_parser::parser::value::ValueType;

type Lowered<T> = Result<T, ParseError>;

/// Deepest expression that is evaluated.
const DEPTH_MAX: usize = 1_200;

/// A query, ready to be evaluated.
#[derive(Clone, Debug)]
pub struct Query {
    pub(super) expr: Expr,
    parsed: Parsed,
}

impl Query {
    /// Reads a query that is evaluated at one instant.
    ///
    /// # Errors
    /// When it is none, breaks a bound, or says what is not supported.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::parse_over(text, Times::default())
    }

    /// Reads a query that is evaluated at these times.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_over(text: &str, times: Times) -> Result<Self, ParseError> {
        guard::check(text)?;
        let folded = fold(text, times)?;
        let parsed = parser::parse(&folded).map_err(|error| explain(&error, text))?;
        let expr = lower(&parsed, 0)?;
        Ok(Self { expr, parsed })
    }

    /// What it evaluates to.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        self.parsed.value_type()
    }

    /// The query, formatted.
    #[must_use]
    pub fn formatted(&self) -> String {
        self.parsed.prettify()
    }

    /// The query's tree, as Prometheus tells it.
    #[must_use]
    pub fn tree(&self) -> serde_json::Value {
        super::tree::tree(&self.parsed)
    }
}

/// The matchers of a series selector, as in `match[]`.
///
/// # Errors
/// When the text is no selector, or one with an offset, an `@` or a range.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    guard::check(text)?;
    let parsed = parser::parse(text).map_err(|error| explain(&error, text))?;
    match lower(&parsed, 0)? {
        Expr::Selector(Selector { matchers, moment }) if moment == Moment::default() => Ok(matchers),
        _ => Err(ParseError::new(format!("{:?} is not a series selector", crate::text::start_of(text)))),
    }
}

fn explain(error: &str, text: &str) -> ParseError {
    if error == "invalid promql query" {
        let start = crate::text::start_of(text);
        return ParseError::new(format!(
            "parse error: {start:?} is not PromQL: look for what is missing or twice"
        ));
    }
    let unknown = error.strip_prefix("unknown function with name '").and_then(|rest| rest.strip_suffix('\''));
    match unknown {
        Some("holt_winters") => ParseError::new(functions::why_not("holt_winters")),
        _ => ParseError::new(format!("parse error: {error}")),
    }
}

fn lower(parsed: &Parsed, depth: usize) -> Lowered<Expr> {
    if depth > DEPTH_MAX {
        return Err(ParseError::new(format!("the query is nested more than {DEPTH_MAX} deep: split it")));
    }
    let inner = |parsed: &Parsed| lower(parsed, depth + 1);
    Ok(match parsed {
        Parsed::Paren(paren) => inner(&paren.expr)?,
        Parsed::NumberLiteral(number) => Expr::Number(number.val),
        Parsed::StringLiteral(text) => Expr::Text(text.val.clone()),
        Parsed::Unary(unary) => Expr::Negate(Box::new(inner(&unary.expr)?)),
        Parsed::VectorSelector(selector) => Expr::Selector(lower_selector(selector)?),
        Parsed::MatrixSelector(matrix) => {
            let source = RangeSource::Selector(lower_selector(&matrix.vs)?);
            Expr::Range(Box::new(RangeExpr { source, range_ms: lower_duration(matrix.range)? }))
        }
        Parsed::Subquery(subquery) => {
            let step_ms = subquery.step.map(lower_duration).transpose()?;
            let moment = lower_moment(subquery.at.as_ref(), subquery.offset.as_ref())?;
            let source = RangeSource::Subquery { expr: inner(&subquery.expr)?, step_ms, moment };
            Expr::Range(Box::new(RangeExpr { source, range_ms: lower_duration(subquery.range)? }))
        }
        Parsed::Call(call) => {
            let name = call.func.name;
            let function =
                functions::by_name(name).ok_or_else(|| ParseError::new(functions::why_not(name)))?;
            let args = call.args.args.iter().map(|arg| inner(arg)).collect::<Lowered<_>>()?;
            Expr::Call(Call { function, args })
        }
        Parsed::Aggregate(aggregate) => {
            let param = aggregate.param.as_ref().map(|param| inner(param)).transpose()?;
            let expr = inner(&aggregate.expr)?;
            let op = lower_aggregate_op(aggregate.op)?;
            let grouping = lower_grouping(aggregate.modifier.as_ref());
            Expr::Aggregate(Box::new(Aggregate { op, param, expr, grouping }))
        }
        Parsed::Binary(binary) => {
            let (left, right) = (inner(&binary.lhs)?, inner(&binary.rhs)?);
            lower_binary(binary, left, right)?
        }
        Parsed::Extension(_) => return Err(ParseError::new("parse error: an extension is not PromQL")),
    })
}

fn lower_selector(selector: &parser::VectorSelector) -> Lowered<Selector> {
    if !selector.matchers.or_matchers.is_empty() {
        return Err(ParseError::new("parse error: \"or\" between label matchers is not PromQL"));
    }
    let mut matchers = Vec::new();
    if let Some(name) = &selector.name {
        matchers.push(Matcher::equal(METRIC_NAME_LABEL, name));
    }
    for matcher in &selector.matchers.matchers {
        let op = match matcher.op {
            ParsedOp::Equal => MatchOp::Equal,
            ParsedOp::NotEqual => MatchOp::NotEqual,
            ParsedOp::Re(_) => MatchOp::Regex,
            ParsedOp::NotRe(_) => MatchOp::NotRegex,
        };
        let lowered = Matcher::new(&*matcher.name, op, &*matcher.value);
        matchers.push(lowered.map_err(|error| ParseError::new(format!("parse error: {error}")))?);
    }
    Ok(Selector { matchers, moment: lower_moment(selector.at.as_ref(), selector.offset.as_ref())? })
}

fn lower_moment(at: Option<&parser::AtModifier>, offset: Option<&Offset>) -> Lowered<Moment> {
    let at = match at {
        None => None,
        Some(parser::AtModifier::Start) => Some(At::Start),
        Some(parser::AtModifier::End) => Some(At::End),
        Some(parser::AtModifier::At(time)) => Some(At::Ms(lower_time(*time)?)),
    };
    let offset_ms = match offset {
        None => 0,
        Some(Offset::Pos(offset)) => duration_ms(*offset)?,
        Some(Offset::Neg(offset)) => -duration_ms(*offset)?,
    };
    Ok(Moment { at, offset_ms })
}

fn lower_time(time: SystemTime) -> Lowered<i64> {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => duration_ms(after),
        Err(before) => Ok(-duration_ms(before.duration())?),
    }
}

fn duration_ms(duration: Duration) -> Lowered<i64> {
    // Far from the ends of i64, so that sums of some stay within it.
    let ms = i64::try_from(duration.as_millis()).ok().filter(|ms| *ms < 1 << 53);
    ms.ok_or_else(|| ParseError::new("duration out of range"))
}

/// A duration that must be positive.
fn lower_duration(duration: Duration) -> Lowered<i64> {
    match duration_ms(duration)? {
        0 => Err(ParseError::new("parse error: duration must be greater than 0")),
        ms => Ok(ms),
    }
}

fn lower_grouping(modifier: Option<&LabelModifier>) -> Grouping {
    match modifier {
        None => Grouping::By(Vec::new()),
        Some(LabelModifier::Include(labels)) => Grouping::By(labels.labels.clone()),
        Some(LabelModifier::Exclude(labels)) => Grouping::Without(labels.labels.clone()),
    }
}

fn lower_aggregate_op(op: token::TokenType) -> Lowered<AggregateOp> {
    Ok(match op.id() {
        token::T_SUM => AggregateOp::Sum,
        token::T_AVG => AggregateOp::Avg,
        token::T_MIN => AggregateOp::Min,
        token::T_MAX => AggregateOp::Max,
        token::T_COUNT => AggregateOp::Count,
        token::T_GROUP => AggregateOp::Group,
        token::T_STDDEV => AggregateOp::Stddev,
        token::T_STDVAR => AggregateOp::Stdvar,
        token::T_QUANTILE => AggregateOp::Quantile,
        token::T_TOPK => AggregateOp::Topk,
        token::T_BOTTOMK => AggregateOp::Bottomk,
        token::T_COUNT_VALUES => AggregateOp::CountValues,
        _ => {
            let message = format!("aggregation \"{op}\" is not supported: it is experimental in Prometheus");
            return Err(ParseError::new(message));
        }
    })
}

fn lower_binary(binary: &parser::BinaryExpr, left: Expr, right: Expr) -> Lowered<Expr> {
    let modifier = binary.modifier.as_ref();
    if modifier.is_some_and(|m| m.fill_values.lhs.is_some() || m.fill_values.rhs.is_some()) {
        return Err(ParseError::new("fill modifiers are not supported: they are experimental in Prometheus"));
    }
    let (on, labels) = match modifier.and_then(|m| m.matching.as_ref()) {
        None => (false, Vec::new()),
        Some(LabelModifier::Include(labels)) => (true, labels.labels.clone()),
        Some(LabelModifier::Exclude(labels)) => (false, labels.labels.clone()),
    };
    let (card, include) = match modifier.map(|m| &m.card) {
        Some(VectorMatchCardinality::ManyToOne(labels)) => (Cardinality::ManyToOne, labels.labels.clone()),
        Some(VectorMatchCardinality::OneToMany(labels)) => (Cardinality::OneToMany, labels.labels.clone()),
        _ => (Cardinality::OneToOne, Vec::new()),
    };
    let as_bool = modifier.is_some_and(|m| m.return_bool);
    let matching = Matching { on, labels, card, include };
    let op = lower_binary_op(binary.op)?;
    Ok(Expr::Binary(Box::new(Binary { op, left, right, matching, as_bool })))
}

fn lower_binary_op(op: token::TokenType) -> Lowered<BinaryOp> {
    Ok(match op.id() {
        token::T_ADD => BinaryOp::Add,
        token::T_SUB => BinaryOp::Sub,
        token::T_MUL => BinaryOp::Mul,
        token::T_DIV => BinaryOp::Div,
        token::T_MOD => BinaryOp::Mod,
        token::T_POW => BinaryOp::Pow,
        token::T_ATAN2 => BinaryOp::Atan2,
        token::T_EQLC => BinaryOp::Equal,
        token::T_NEQ => BinaryOp::NotEqual,
        token::T_GTR => BinaryOp::Greater,
        token::T_LSS => BinaryOp::Less,
        token::T_GTE => BinaryOp::GreaterOrEqual,
        token::T_LTE => BinaryOp::LessOrEqual,
        token::T_LAND => BinaryOp::And,
        token::T_LOR => BinaryOp::Or,
        token::T_LUNLESS => BinaryOp::Unless,
        _ => return Err(ParseError::new(format!("parse error: unknown operator \"{op}\""))),
    })
}
