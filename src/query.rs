//! Questions asked of the store: the latest value of an object, history.

pub mod latest;
