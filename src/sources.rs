//! What Lookback fetches itself, beside what is pushed.
//!
//! - [`scrape`] asks targets for what they expose, as Prometheus does.
//! - [`ownership`] follows who owns which pods.

pub mod ownership;
pub mod scrape;
