//! What discovery lists: which metrics have really been written for which resources.

/// A snapshot of `resource/metric` pairs, in memory, replaced as a whole.
#[derive(Debug, Default)]
pub struct Catalog {}
