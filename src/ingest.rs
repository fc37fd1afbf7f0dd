//! How samples come in: pushes, remote write, and imports of files.
//!
//! - [`write_metrics`] reads one pushed value, by way of [`path`] and [`params`];
//! - [`batch`] reads many, by way of [`json`]; [`resource_info`] remembers what they describe;
//! - [`remote_write`] reads what Prometheus sends, by way of [`protobuf`];
//! - [`csv`] and [`openmetrics`] read files, which [`mod@file`] describes; [`import`] loads them;
//! - [`refusals`] tells a sender what was not taken.
//!
//! Nothing here knows HTTP: the handlers are in [`crate::http`].

pub mod batch;
pub mod csv;
pub mod file;
pub mod import;
pub mod json;
pub mod openmetrics;
pub mod params;
pub mod path;
pub mod protobuf;
pub mod refusals;
pub mod remote_write;
pub mod resource_info;
pub mod write_metrics;
