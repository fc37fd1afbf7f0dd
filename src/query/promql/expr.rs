//! What a query says, as it is evaluated.

use super::functions::Function;
use lookback_storage::Matcher;

/// An expression.
#[derive(Clone, Debug)]
pub(super) enum Expr {
    Number(f64),
    Text(String),
    Selector(Selector),
    Range(Box<RangeExpr>),
    Call(Call),
    Aggregate(Box<Aggregate>),
    Binary(Box<Binary>),
    Negate(Box<Expr>),
}

/// Series at instants.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    pub(super) matchers: Vec<Matcher>,
    pub(super) moment: Moment,
}

/// Which instant is meant at a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    /// This one, whatever the step; `None`: the step's.
    pub(super) at: Option<At>,
    /// So much before it.
    pub(super) offset_ms: i64,
}

/// The instant of an `@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// The query's first step.
    Start,
    /// The query's last step.
    End,
    /// Unix milliseconds.
    Ms(i64),
}

/// Samples over a range up to an instant.
#[derive(Clone, Debug)]
pub(super) struct RangeExpr {
    pub(super) source: RangeSource,
    pub(super) range_ms: i64,
}

/// Where the samples of a range come from.
#[derive(Clone, Debug)]
pub(super) enum RangeSource {
    /// Stored ones.
    Selector(Selector),
    /// An expression evaluated every so often; `None`: at the default interval.
    Subquery { expr: Expr, step_ms: Option<i64>, moment: Moment },
}

impl RangeExpr {
    pub(super) fn moment(&self) -> Moment {
        match &self.source {
            RangeSource::Selector(selector) => selector.moment,
            RangeSource::Subquery { moment, .. } => *moment,
        }
    }
}

/// A function's call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) function: Function,
    pub(super) args: Vec<Expr>,
}

/// An aggregation.
#[derive(Clone, Debug)]
pub(super) struct Aggregate {
    pub(super) op: AggregateOp,
    pub(super) param: Option<Expr>,
    pub(super) expr: Expr,
    pub(super) grouping: Grouping,
}

/// What an aggregation says of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AggregateOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    Quantile,
    Topk,
    Bottomk,
    CountValues,
}

/// Which labels keep groups apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Grouping {
    /// These.
    By(Vec<String>),
    /// All but these and the name.
    Without(Vec<String>),
}

/// An operator between two expressions.
#[derive(Clone, Debug)]
pub(super) struct Binary {
    pub(super) op: BinaryOp,
    pub(super) left: Expr,
    pub(super) right: Expr,
    pub(super) matching: Matching,
    /// A comparison answers 0 or 1 instead of leaving out.
    pub(super) as_bool: bool,
}

/// Operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    pub(super) fn is_comparison(self) -> bool {
        use BinaryOp::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        matches!(self, Equal | NotEqual | Greater | Less | GreaterOrEqual | LessOrEqual)
    }

    pub(super) fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    /// Whether its outcome is something else than its operands: then it has no name.
    pub(super) fn changes_meaning(self) -> bool {
        !self.is_comparison() && !self.is_set()
    }
}

/// Which series of two vectors belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matching {
    /// By these labels only (`on`), or by all but these.
    pub(super) on: bool,
    pub(super) labels: Vec<String>,
    pub(super) card: Cardinality,
    /// Labels taken over from the one side.
    pub(super) include: Vec<String>,
}

/// How many series of each side belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cardinality {
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
}
