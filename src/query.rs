//! Questions asked of the store: the latest value of an object, history. No HTTP here.

pub mod latest;
pub mod range;
