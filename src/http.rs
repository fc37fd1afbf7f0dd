//! The HTTP face: routes, one file an API, who may call, and how errors look.

pub mod auth;
pub mod connection;
pub mod credentials;
pub mod error;
pub mod health;
pub mod identity;
pub mod observe;
pub mod range;
pub mod server;
pub mod tls;

/// A response extension: which API answered, for metrics and logs.
#[derive(Clone, Copy)]
pub struct Api(pub &'static str);
