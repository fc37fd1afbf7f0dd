//! Questions asked of the store: the latest value of an object, history, PromQL. No HTTP here.

pub mod absence;
pub mod explain;
pub mod freshness;
pub mod latest;
pub mod promql;
pub mod range;
mod rollups;
pub mod summary;
pub mod usage;
