//! The HTTP face: routes, one file an API, who may call, and how errors look.

pub mod auth;
pub mod connection;
pub mod credentials;
pub mod error;
pub mod identity;
pub mod server;
pub mod tls;
