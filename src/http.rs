//! The HTTP face: routes, one file an API, who may call, and how errors look.

pub mod auth;
pub mod error;
