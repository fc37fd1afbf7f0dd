//! How samples come in: pushes, remote write, and imports of files.
//!
//! - [`path`] and [`params`] read the address of one pushed value, [`json`] cuts up the bodies of many;
//! - [`remote_write`] reads what Prometheus sends, by way of [`protobuf`];
//! - [`refusals`] tells a sender what was not taken.
//!
//! Nothing here knows HTTP: the handlers are in [`crate::http`].

pub mod json;
#[cfg(test)]
pub(crate) mod memory_store;
pub mod params;
pub mod path;
pub mod protobuf;
pub mod refusals;
pub mod remote_write;
