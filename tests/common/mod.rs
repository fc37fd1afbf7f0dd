//! What the tests share.

pub mod adapter;
pub mod compare;
pub mod engine;
pub mod fake_kubelets;
pub mod fake_kubernetes;
pub mod manifests;
pub mod named_engine;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod random;
pub mod recording;
pub mod remote_write;
pub mod store;
pub mod tls;
pub mod victoria;
