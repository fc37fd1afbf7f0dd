//! PromQL: the language of Prometheus 3, over the store.
//!
//! A query is read by the crate `promql-parser`, behind bounds on its size and nesting (`guard`), and
//! turned into expressions of our own (`lower`), which refuse by name what is not supported. Evaluation
//! (`engine`) goes over the steps of a query for one series after another wherever the expression allows:
//! a selector, a function, arithmetic with a scalar and an aggregation hold one series and their outcome;
//! matching two vectors, `or`, sorting and histogram functions hold their inputs. So there are in memory the samples of
//! one series, 16 bytes each, and the points of all series of an outcome, 8 bytes each: never the samples of all
//! series. What is held is counted against a budget. It blocks, so it runs on a thread of its own.
//!
//! # Semantics
//!
//! Those of Prometheus 3: a range and the lookback leave their oldest instant out, a staleness marker ends
//! a series, rates are extrapolated, sums are compensated. Native histograms do not exist here; functions of
//! them, and what Prometheus has behind a feature flag, are refused by name.
//!
//! # Map
//!
//! | file | what |
//! |---|---|
//! | `guard`, `durations`, `lower`, `expr`, `functions` | a query's text to expressions |
//! | `tree` | a query's tree, for those who build queries |
//! | `engine`, `steps`, `outcome` | evaluation put together; its time grid; what comes out |
//! | `select`, `windows` | series at instants; samples in ranges, subqueries |
//! | `rate`, `over_time`, `regression` | functions of a range |
//! | `parts` | the same of rollups' windows in the place of samples |
//! | `ranges` | over which ranges a query looks |
//! | `calls`, `math`, `dates`, `absent`, `relabel`, `histogram` | functions of a vector |
//! | `aggregate`, `accumulate`, `topk` | aggregations |
//! | `binary`, `matching`, `sets` | operators: with scalars, between vectors, `and or unless` |
//! | `series`, `labels`, `merge` | a series under way |
//! | `kahan`, `quantile` | sums and quantiles |
//! | `notes`, `error` | warnings, infos, errors |

mod absent;
mod accumulate;
mod aggregate;
mod binary;
mod calls;
mod dates;
mod durations;
mod engine;
mod error;
mod expr;
mod functions;
mod guard;
mod histogram;
mod kahan;
mod labels;
mod lower;
mod matching;
mod math;
mod merge;
mod notes;
mod outcome;
mod over_time;
mod parts;
mod quantile;
mod ranges;
mod rate;
mod regression;
mod relabel;
mod select;
mod series;
mod sets;
mod steps;
mod threads;
mod topk;
mod tree;
mod windows;

pub use durations::Times;
pub use engine::{Options, Stop, Task};
pub use error::{EvalError, ParseError};
pub use labels::SeriesLabels;
pub use lower::{Query, ValueType, parse_selector};
pub use notes::Notes;
pub use outcome::{Outcome, Row, Value};
pub use steps::Steps;
pub use threads::{QueryThreads, STACK_BYTES};

#[cfg(test)]
mod tests;
