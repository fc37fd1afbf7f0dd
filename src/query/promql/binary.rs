//! Operators on numbers, and between a vector and a scalar.

use super::engine::{Engine, Sink};
use super::error::Result;
use super::expr::{Binary, BinaryOp, Expr};
use super::functions::Function;
use super::steps::Steps;

impl BinaryOp {
    /// What it makes of two numbers; `None`: a comparison that does not hold.
    pub(super) fn of(self, left: f64, right: f64) -> Option<f64> {
        let holds = |holds: bool| holds.then_some(left);
        match self {
            Self::Add => Some(left + right),
            Self::Sub => Some(left - right),
            Self::Mul => Some(left * right),
            Self::Div => Some(left / right),
            Self::Mod => Some(left % right),
            Self::Pow => Some(left.powf(right)),
            Self::Atan2 => Some(left.atan2(right)),
            Self::Equal => holds(left == right),
            Self::NotEqual => holds(left != right),
            Self::Greater => holds(left > right),
            Self::Less => holds(left < right),
            Self::GreaterOrEqual => holds(left >= right),
            Self::LessOrEqual => holds(left <= right),
            Self::And | Self::Or | Self::Unless => None,
        }
    }

    /// Between scalars a comparison is 0 or 1.
    pub(super) fn of_scalars(self, left: f64, right: f64) -> f64 {
        match self.of(left, right) {
            Some(_) if self.is_comparison() => 1.0,
            Some(value) => value,
            None => 0.0,
        }
    }
}

/// Whether an expression is a number at each step.
fn is_scalar(expr: &Expr) -> bool {
    match expr {
        Expr::Number(_) => true,
        Expr::Negate(expr) => is_scalar(expr),
        Expr::Call(call) => matches!(call.function, Function::Scalar | Function::Time | Function::Pi),
        Expr::Binary(binary) => is_scalar(&binary.left) && is_scalar(&binary.right),
        _ => false,
    }
}

impl Engine<'_> {
    /// An operator of which at least one side is a vector.
    pub(super) fn binary(&self, binary: &Binary, steps: Steps, sink: Sink<'_>) -> Result<()> {
        match (is_scalar(&binary.left), is_scalar(&binary.right)) {
            (false, true) => self.with_scalar(binary, &binary.left, &binary.right, false, steps, sink),
            (true, false) => self.with_scalar(binary, &binary.right, &binary.left, true, steps, sink),
            _ if binary.op.is_set() => self.set(binary, steps, sink),
            _ => self.matched(binary, steps, sink),
        }
    }

    fn with_scalar(
        &self,
        binary: &Binary,
        vector: &Expr,
        scalar: &Expr,
        scalar_is_left: bool,
        steps: Steps,
        sink: Sink<'_>,
    ) -> Result<()> {
        let scalars = self.scalar(scalar, steps)?;
        let _held = self.hold(scalars.len())?;
        let mut combine = |step: usize, value: f64| {
            let scalar = *scalars.get(step)?;
            let (left, right) = if scalar_is_left { (scalar, value) } else { (value, scalar) };
            let outcome = binary.op.of(left, right);
            if binary.as_bool {
                Some(f64::from(u8::from(outcome.is_some())))
            } else if binary.op.is_comparison() {
                // What is left of the vector are its own values.
                outcome.map(|_| value)
            } else {
                outcome
            }
        };
        if binary.op.changes_meaning() || binary.as_bool {
            return self.map_values(vector, steps, &mut combine, sink);
        }
        self.vector(vector, steps, &mut |mut series| {
            series.points.replace(&mut combine);
            self.work(series.points.len())?;
            if series.points.is_empty() { Ok(()) } else { sink(series) }
        })
    }
}
