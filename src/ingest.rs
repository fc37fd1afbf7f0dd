//! How samples come in: pushes, remote write, and imports of files.
//!
//! - [`write_metrics`] reads one pushed value, by way of [`path`] and [`params`];
//! - [`batch`] reads many, by way of [`json`]; [`resource_info`] remembers what they describe;
//! - [`remote_write`] and [`remote_write_v2`] read what Prometheus sends, by way of [`crate::protobuf`] and [`packed`];
//! - [`otlp`] reads what OpenTelemetry sends, whose bodies [`inflate`] may decompress;
//! - [`exposition`] and [`client_model`] read what applications expose or push, [`grouping`] to which group;
//! - [`csv`] and [`openmetrics`] read files, which [`mod@file`] describes; [`import`] loads them;
//! - [`intake`] is what they fill, within a share of the budget; [`mod@append`] is the one way on to the store;
//! - [`refusals`] tells a sender what was not taken.
//!
//! Nothing here knows HTTP: the handlers are in [`crate::http`].

pub mod append;
pub mod batch;
pub mod client_model;
pub mod csv;
pub mod exposition;
pub mod file;
pub mod grouping;
pub mod import;
pub mod inflate;
pub mod intake;
pub mod json;
pub mod openmetrics;
pub mod otlp;
pub mod packed;
pub mod params;
pub mod path;
pub mod refusals;
pub mod remote_write;
pub mod remote_write_metadata;
pub mod remote_write_v2;
pub mod resource_info;
pub mod write_metrics;
