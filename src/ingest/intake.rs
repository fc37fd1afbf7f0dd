//! What the decoders of requests fill: samples of good series, and a count of the others.
//!
//! A message can name one long label set for thousands of samples in a few bytes each, so what is made
//! of it is paid for out of the request's share of the budget as it is made.

use super::refusals::Refusals;
use crate::budget::{BudgetSpent, Share};
use crate::metadata::Notes;
use crate::store::Scope;
use crate::text::start_of;
use lookback_storage::{Labels, METRIC_NAME_LABEL, NewSample, WriteBatch};
use thiserror::Error;

/// Most samples in one request. Past that it is refused as a whole.
pub const SAMPLES_MAX: usize = 1_000_000;

/// What a sample takes in memory, in bytes, and what its place among the others does.
const SAMPLE_BYTES: usize = size_of::<NewSample>() + size_of::<usize>();

/// What a series takes besides its text.
const SERIES_BYTES: usize = 128;

/// How much is paid for at once, in bytes.
const STEP_BYTES: usize = 64 << 10;

/// A request that is refused as a whole.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum IntakeError {
    /// More samples than [`SAMPLES_MAX`].
    #[error("the request has more than {SAMPLES_MAX} samples: send fewer a request")]
    TooManySamples,
    /// Its series take more memory than there is for requests now.
    #[error(transparent)]
    Budget(#[from] BudgetSpent),
}

/// What was taken of a request.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// The samples of the good series.
    pub batch: WriteBatch,
    /// What was left out.
    pub refusals: Refusals,
    /// What the request says of metrics.
    pub notes: Notes,
    /// Exemplars, which are not kept.
    pub exemplars: usize,
}

/// Takes samples within a scope and a share of the budget.
pub struct Intake<'a> {
    /// What has been taken so far.
    pub taken: Taken,
    scope: &'a Scope,
    share: &'a mut Share,
    unpaid_bytes: usize,
}

impl<'a> Intake<'a> {
    /// Takes what lies in `scope`, and pays with `share`.
    pub fn new(scope: &'a Scope, share: &'a mut Share) -> Self {
        Self { taken: Taken::default(), scope, share, unpaid_bytes: 0 }
    }

    /// Adds a series for `samples` samples to come; `None`, and a refusal of so many, where it can't be
    /// taken.
    ///
    /// # Errors
    /// When the budget is spent.
    pub fn series<N: AsRef<str>, V: AsRef<str>>(
        &mut self,
        pairs: &[(N, V)],
        samples: usize,
    ) -> Result<Option<usize>, IntakeError> {
        let labels = match Labels::new(pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))) {
            Ok(labels) => labels,
            Err(error) => {
                self.refuse_series("bad_labels", pairs, samples, &error.to_string());
                return Ok(None);
            }
        };
        if !self.scope.allows_series(&labels) {
            let namespace = labels.get("namespace").unwrap_or_default();
            let message = format!("namespace {namespace:?} is outside of what these credentials may use");
            self.refuse_series("out_of_scope", pairs, samples, &message);
            return Ok(None);
        }
        let text = pairs.iter().map(|(name, value)| name.as_ref().len() + value.as_ref().len());
        self.pay(text.sum::<usize>().saturating_add(SERIES_BYTES))?;
        self.taken.batch.series.push(labels);
        Ok(Some(self.taken.batch.series.len() - 1))
    }

    /// Adds a sample of a series that [`Intake::series`] answered. `timestamp_ms`: Unix milliseconds, or
    /// `None` for the time of arrival.
    ///
    /// # Errors
    /// When there are too many, or the budget is spent.
    pub fn sample(
        &mut self,
        series: usize,
        timestamp_ms: Option<i64>,
        value: f64,
    ) -> Result<(), IntakeError> {
        if self.taken.batch.samples.len() >= SAMPLES_MAX {
            return Err(IntakeError::TooManySamples);
        }
        self.pay(SAMPLE_BYTES)?;
        self.taken.batch.samples.push(NewSample { series, timestamp_ms, value });
        Ok(())
    }

    /// Adds a series and its one sample; answers whether the series was taken.
    ///
    /// # Errors
    /// As [`Intake::series`] and [`Intake::sample`].
    pub fn single<N: AsRef<str>, V: AsRef<str>>(
        &mut self,
        pairs: &[(N, V)],
        timestamp_ms: Option<i64>,
        value: f64,
    ) -> Result<bool, IntakeError> {
        match self.series(pairs, 1)? {
            Some(series) => self.sample(series, timestamp_ms, value).map(|()| true),
            None => Ok(false),
        }
    }

    /// Counts samples that were left out; `example` says which and why.
    pub fn refuse(&mut self, reason: &'static str, samples: usize, example: impl FnOnce() -> String) {
        if samples > 0 {
            self.taken.refusals.add(reason, samples, example);
        }
    }

    /// Pays for something else that is kept for the request's time.
    ///
    /// # Errors
    /// When the budget is spent.
    pub fn pay(&mut self, bytes: usize) -> Result<(), IntakeError> {
        self.unpaid_bytes = self.unpaid_bytes.saturating_add(bytes);
        if self.unpaid_bytes >= STEP_BYTES {
            self.share.grow(std::mem::take(&mut self.unpaid_bytes))?;
        }
        Ok(())
    }

    fn refuse_series<N: AsRef<str>, V: AsRef<str>>(
        &mut self,
        reason: &'static str,
        pairs: &[(N, V)],
        samples: usize,
        message: &str,
    ) {
        self.refuse(reason, samples, || format!("{}: {message}", describe(pairs)));
    }
}

/// A series by its metric name, for messages.
fn describe<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> String {
    match pairs.iter().find(|(name, _)| name.as_ref() == METRIC_NAME_LABEL) {
        Some((_, value)) => format!("series {:?}", start_of(value.as_ref())),
        None => "a series without a name".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::ByteBudget;

    #[test]
    fn good_series_are_taken_and_the_others_counted() {
        let scope = Scope::Namespaces(std::sync::Arc::new(["mine".to_owned()].into()));
        let mut share = ByteBudget::new(1 << 20).share();
        let mut intake = Intake::new(&scope, &mut share);
        assert_eq!(intake.single(&[("__name__", "m"), ("namespace", "mine")], Some(1), 2.0), Ok(true));
        assert_eq!(intake.single(&[("__name__", "m"), ("namespace", "yours")], Some(1), 2.0), Ok(false));
        assert_eq!(intake.single(&[("namespace", "mine")], None, 2.0), Ok(false));
        assert_eq!(intake.taken.batch.samples.len(), 1);
        let by_reason: Vec<_> = intake.taken.refusals.by_reason().collect();
        assert_eq!(by_reason, [("bad_labels", 1), ("out_of_scope", 1)]);
    }

    #[test]
    fn one_long_label_set_for_many_samples_is_paid_for() {
        let mut share = ByteBudget::new(1 << 20).share();
        let mut intake = Intake::new(&Scope::All, &mut share);
        let long = "x".repeat(4_000);
        let mut taken = 0;
        let spent = loop {
            match intake.single(&[("__name__", "m"), ("a", &long)], Some(1), 2.0) {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(spent, IntakeError::Budget(_)), "{spent}");
        assert!((200..300).contains(&taken), "{taken}");
    }
}
