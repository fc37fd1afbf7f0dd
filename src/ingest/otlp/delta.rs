//! Deltas added up, so that a series says the same whichever way its sender counts.
//!
//! The sum of a series is its newest stored value: what is remembered here only saves looking it up. So a
//! restart, or forgetting, changes nothing: the next delta is added to what is stored. A delta that is
//! not newer than its series is refused: it was counted already (a sender that got no answer sends
//! again), or came too late.
//!
//! One request with deltas is added up and stored at a time, so that each sees what the one before it
//! stored.

use crate::store::{Context, Store, StoreError};
use lookback_storage::{Labels, Matcher, NewSample, WriteBatch};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Most series that are remembered; past that all are forgotten, and looked up when they are needed.
const REMEMBERED_MAX: usize = 100_000;

/// What the series of deltas have come to.
#[derive(Debug, Default)]
pub struct Deltas(Arc<Mutex<HashMap<Labels, Total>>>);

/// What one series has come to.
#[derive(Clone, Copy, Debug)]
struct Total {
    value: f64,
    at_ms: i64,
}

/// The turn of one request: until it is dropped, no other adds up.
pub struct Turn {
    remembered: OwnedMutexGuard<HashMap<Labels, Total>>,
    changed: HashMap<Labels, Total>,
}

impl Deltas {
    /// Waits for its turn.
    pub async fn turn(&self) -> Turn {
        Turn { remembered: Arc::clone(&self.0).lock_owned().await, changed: HashMap::new() }
    }
}

impl Turn {
    /// Makes the samples at `deltas` cumulative; answers the places of those that are not newer than
    /// their series, whose values are left as they were. Samples without a time get `now_ms`.
    ///
    /// # Errors
    /// The store's.
    pub async fn add_up(
        &mut self,
        store: &dyn Store,
        context: &Context,
        batch: &mut WriteBatch,
        deltas: &[usize],
        now_ms: i64,
    ) -> Result<Vec<usize>, StoreError> {
        let mut repeated = Vec::new();
        for place in deltas {
            let WriteBatch { series, samples } = &mut *batch;
            let Some((sample, labels)) = samples.get_mut(*place).and_then(|sample| {
                let labels = series.get(sample.series)?;
                Some((sample, labels))
            }) else {
                continue;
            };
            let before = match self.changed.get(labels).or_else(|| self.remembered.get(labels)) {
                Some(total) => Some(*total),
                None => stored(store, context, labels).await?,
            };
            if let Some(total) = add(sample, before, now_ms) {
                self.changed.insert(labels.clone(), total);
            } else {
                repeated.push(*place);
            }
        }
        // Until it is durable nobody knows what these series have come to.
        for labels in self.changed.keys() {
            self.remembered.remove(labels);
        }
        Ok(repeated)
    }

    /// What was added up is durable: it is remembered. With `all_stored` false something of it was
    /// refused, and it is looked up again.
    pub fn stored(mut self, all_stored: bool) {
        if !all_stored {
            return;
        }
        if self.remembered.len() + self.changed.len() > REMEMBERED_MAX {
            self.remembered.clear();
        }
        self.remembered.extend(self.changed.drain().take(REMEMBERED_MAX));
    }
}

/// The new total; `None` where the sample is not newer than the one before.
fn add(sample: &mut NewSample, before: Option<Total>, now_ms: i64) -> Option<Total> {
    let at_ms = sample.timestamp_ms.unwrap_or(now_ms);
    if before.is_some_and(|before| at_ms <= before.at_ms) {
        return None;
    }
    let value = sample.value + before.map_or(0.0, |before| before.value);
    sample.timestamp_ms = Some(at_ms);
    sample.value = value;
    Some(Total { value, at_ms })
}

/// What the store holds of a series; a series that has ended begins anew.
async fn stored(store: &dyn Store, context: &Context, labels: &Labels) -> Result<Option<Total>, StoreError> {
    let matchers: Vec<_> = labels.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
    let latest = store.latest(context, &matchers, i64::MIN).await?;
    let own = latest.into_iter().find(|latest| *latest.labels == *labels);
    Ok(own.map(|latest| Total { value: latest.sample.value, at_ms: latest.sample.timestamp_ms }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW_MS, TestApp};

    async fn send(server: &TestApp, deltas: &Deltas, samples: &[(i64, f64)]) -> usize {
        let labels = || Labels::new([("__name__", "m_total"), ("a", "b")]).expect("labels");
        let mut batch = WriteBatch::default();
        samples.iter().for_each(|(at_ms, value)| batch.push(labels(), Some(*at_ms), *value));
        let places: Vec<_> = (0..samples.len()).collect();
        let mut turn = deltas.turn().await;
        let context = server.context();
        let added = turn.add_up(server.store.as_ref(), &context, &mut batch, &places, NOW_MS).await;
        let repeated = added.expect("read");
        for (place, sample) in batch.samples.iter().enumerate().filter(|(p, _)| !repeated.contains(p)) {
            let own = [("__name__", "m_total"), ("a", "b")];
            server.put(&own, samples[place].0, sample.value);
        }
        turn.stored(true);
        repeated.len()
    }

    #[tokio::test]
    async fn deltas_add_up_also_past_a_restart() {
        let server = TestApp::new();
        // Another series that has all the labels of ours, and one more.
        server.put(&[("__name__", "m_total"), ("a", "b"), ("c", "d")], NOW_MS, 1_000.0);
        let deltas = Deltas::default();
        assert_eq!(send(&server, &deltas, &[(NOW_MS, 2.0), (NOW_MS + 1, 3.0)]).await, 0);
        assert_eq!(send(&server, &deltas, &[(NOW_MS + 2, 4.0)]).await, 0);
        // Nothing is remembered by a new process.
        assert_eq!(send(&server, &Deltas::default(), &[(NOW_MS + 3, 1.0)]).await, 0);
        let values: Vec<_> = server.everything().iter().map(|(_, _, value)| *value).collect();
        assert_eq!(values, [2.0, 5.0, 9.0, 10.0, 1_000.0]);
    }

    #[tokio::test]
    async fn what_is_sent_again_is_not_counted_twice() {
        let server = TestApp::new();
        let deltas = Deltas::default();
        assert_eq!(send(&server, &deltas, &[(NOW_MS, 2.0)]).await, 0);
        assert_eq!(send(&server, &deltas, &[(NOW_MS, 2.0), (NOW_MS + 1, 1.0)]).await, 1);
        let values: Vec<_> = server.everything().iter().map(|(_, _, value)| *value).collect();
        assert_eq!(values, [2.0, 3.0]);
    }
}
