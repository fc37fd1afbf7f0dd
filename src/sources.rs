//! Where Lookback fetches metrics itself.
//!
//! - [`scrape`] asks targets for what they expose, as Prometheus does.

pub mod scrape;
