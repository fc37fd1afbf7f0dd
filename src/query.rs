//! Questions that need more than one call of the store. No HTTP here.

pub mod range;
