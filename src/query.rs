//! Questions asked of the store: the latest value of an object, history. No HTTP here.

pub mod absence;
pub mod explain;
pub mod freshness;
pub mod latest;
pub mod range;
pub mod summary;
