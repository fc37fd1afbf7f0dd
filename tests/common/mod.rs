//! What the tests share.

pub mod process;
pub mod remote_write;
pub mod store;
pub mod tls;
