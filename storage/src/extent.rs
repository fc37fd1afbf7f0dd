//! From when to when there are samples, and in how many chunks: counted when it is asked, as it looks at every
//! series and block.

use crate::db::Db;

/// How far the samples of a store reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Runs of samples of one series that are packed together, in blocks and in memory; those of a series
    /// in memory that are not packed yet are one more.
    pub chunks: u64,
    /// The times of the oldest and of the newest sample, Unix milliseconds; `None`: there are none. What was
    /// deleted or has expired counts as long as its block is there.
    pub span_ms: Option<(i64, i64)>,
}

impl Extent {
    /// Takes more chunks in, which lie in this span.
    pub(crate) fn add(&mut self, chunks: u64, (from_ms, to_ms): (i64, i64)) {
        self.chunks += chunks;
        let (oldest_ms, newest_ms) = self.span_ms.unwrap_or((from_ms, to_ms));
        self.span_ms = Some((oldest_ms.min(from_ms), newest_ms.max(to_ms)));
    }
}

impl Db {
    /// How far the samples reach.
    #[must_use]
    pub fn extent(&self) -> Extent {
        let state = &self.inner().state;
        // Memory first: what is sealed meanwhile counts twice rather than not at all.
        let mut extent = Extent::default();
        state.registry.all().iter().for_each(|series| series.add_extent(&mut extent));
        for block in state.blocks().iter().filter(|block| block.chunks() > 0) {
            extent.add(block.chunks(), block.span_ms());
        }
        extent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Labels;
    use crate::options::Options;
    use crate::{OutOfOrder, WriteBatch};
    use uuid::Uuid;

    #[test]
    fn samples_in_memory_and_in_blocks_count() {
        let dir = tempfile::tempdir().expect("a directory");
        let options = Options { retention_ms: None, ..Options::default() };
        let db = Db::open(dir.path(), options, Uuid::nil()).expect("opens");
        assert_eq!(db.extent(), Extent::default());
        let put = |times_s: std::ops::Range<i64>| {
            let mut batch = WriteBatch::default();
            for second in times_s {
                let labels = Labels::new([("__name__", "m")]).expect("labels");
                batch.push(labels, Some(second * 1_000), 1.0);
            }
            db.append_wait(batch, 1_000_000, OutOfOrder::Lifted).expect("written");
        };
        put(5..10);
        let one = Extent { chunks: 1, span_ms: Some((5_000, 9_000)) };
        assert_eq!(db.extent(), one);
        db.seal().expect("sealed");
        assert_eq!(db.extent(), one);
        put(1..2);
        assert_eq!(db.extent(), Extent { chunks: 2, span_ms: Some((1_000, 9_000)) });
        // Sixty-four are packed at once.
        put(10..150);
        assert_eq!(db.extent(), Extent { chunks: 4, span_ms: Some((1_000, 149_000)) });
    }
}
