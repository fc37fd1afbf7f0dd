//! The same data and the same questions for two servers.

pub(crate) mod data;
pub(crate) mod queries;

pub(crate) use crate::common::random::Random;
