//! The HTTP face: routes, one file an API, who may call, and how errors look.

pub mod auth;
pub mod custom_metrics;
pub mod error;

/// Which API answered: a response extension, for the request log and the request metrics.
#[derive(Clone, Copy)]
pub struct Api(pub &'static str);
