//! Lookback remembers metrics, so that Kubernetes autoscaling and right-sizing can act on them.

pub mod app;
pub mod budget;
pub mod clock;
pub mod commands;
pub mod config;
pub mod http;
pub mod ingest;
pub mod kubernetes;
pub mod metadata;
pub mod prometheus_client;
pub mod protobuf;
pub mod query;
pub mod rules;
pub mod series_selector;
pub mod serve;
pub mod similar;
pub mod sources;
pub mod store;
pub mod telemetry;
#[cfg(test)]
pub(crate) mod testing;
pub mod text;
pub mod time;
