//! The newest sample of a series, which readers take without waiting for anybody.

use crate::sample::Sample;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering, fence};

/// A sample that one thread at a time writes and any number read: a sequence lock of atomics.
///
/// The version is odd while the sample is being written. A reader takes the sample between two looks at
/// the version, and again if it has changed: it never waits for a lock, and a writer never for a reader.
#[derive(Default)]
pub(crate) struct Latest {
    version: AtomicU32,
    present: AtomicBool,
    timestamp_ms: AtomicI64,
    value_bits: AtomicU64,
}

impl Latest {
    /// The sample, if there is one.
    pub(crate) fn load(&self) -> Option<Sample> {
        loop {
            let before = self.version.load(Ordering::Acquire);
            let present = self.present.load(Ordering::Relaxed);
            let timestamp_ms = self.timestamp_ms.load(Ordering::Relaxed);
            let value_bits = self.value_bits.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before {
                return present.then(|| Sample::new(timestamp_ms, f64::from_bits(value_bits)));
            }
            std::hint::spin_loop();
        }
    }

    /// Replaces the sample. By one thread at a time: the committer, or whoever opens the store.
    pub(crate) fn store(&self, sample: Option<Sample>) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.present.store(sample.is_some(), Ordering::Relaxed);
        if let Some(sample) = sample {
            self.timestamp_ms.store(sample.timestamp_ms, Ordering::Relaxed);
            self.value_bits.store(sample.value.to_bits(), Ordering::Relaxed);
        }
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_never_sees_half_of_a_sample() {
        let latest = Latest::default();
        assert_eq!(latest.load(), None);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut newest = 0;
                    while newest < 20_000 {
                        let Some(sample) = latest.load() else { continue };
                        assert_eq!(sample.value, sample.timestamp_ms as f64);
                        assert!(sample.timestamp_ms >= newest);
                        newest = sample.timestamp_ms;
                    }
                });
            }
            for at in 1..=20_000 {
                latest.store(Some(Sample::new(at, at as f64)));
            }
        });
        latest.store(None);
        assert_eq!(latest.load(), None);
    }
}
