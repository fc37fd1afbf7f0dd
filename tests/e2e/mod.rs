//! The parts of `e2e_hpa.rs`.

pub mod cases;
pub mod kubernetes;
pub mod run;
pub mod targets;
