//! A request that the engine refuses for good: what is refused in it is found by halves, and set aside; all
//! else is sent.
//!
//! Some engines take nothing of such a request (Prometheus 2), some the rest (Mimir). A sample that the
//! engine holds already, because an answer was lost or the cursor is older than what was sent, can be
//! refused as out of order: so it is asked for before anything is set aside.

use super::{Delivery, Outcome, Series, Stopped};
use crate::prometheus_client::{decode_write_request, write_request};
use crate::store::StoreError;
use crate::store::prometheus::dead_letters::DeadLetter;
use lookback_storage::{Labels, Sample};
use std::sync::atomic::Ordering;

/// How often it is asked before what it may hold is set aside.
const LOOK_UPS_MAX: u32 = 5;

impl Delivery {
    /// Sends all that the engine takes of a request, in order, and sets the rest aside.
    pub(super) async fn set_aside(&mut self, raw: &[u8]) -> Result<(), Stopped> {
        let series = match decode_write_request(raw) {
            Ok(series) => series,
            Err(error) => {
                // It was written by this program and its checksum is right.
                tracing::error!(%error, "a record of the outbox is no request: it is not sent");
                return Ok(());
            }
        };
        let mut pieces = halves(series);
        while let Some(piece) = pieces.pop() {
            let request = write_request(piece.iter().map(|(labels, samples)| (labels, &samples[..])));
            let (status, reason, for_size) = match self.post(&request).await? {
                Outcome::Taken => continue,
                Outcome::Refused { status, reason, for_size } => (status, reason, for_size),
            };
            let [(labels, samples)] = &piece[..] else {
                pieces.extend(halves(piece));
                continue;
            };
            let missing = if for_size { samples.clone() } else { self.not_held(labels, samples).await? };
            match missing.len() {
                0 => {}
                1 => self.bury(labels, &missing, status, &reason).await?,
                fewer if fewer < samples.len() => pieces.push(vec![(labels.clone(), missing)]),
                _ => pieces.extend(halves(piece)),
            }
        }
        Ok(())
    }

    /// Which of these samples the engine does not hold.
    async fn not_held(&mut self, labels: &Labels, samples: &[Sample]) -> Result<Vec<Sample>, Stopped> {
        for attempt in 0..LOOK_UPS_MAX {
            match self.missing(vec![(labels.clone(), samples.to_vec())]).await {
                Ok(missing) => return Ok(missing.into_iter().flat_map(|(_, samples)| samples).collect()),
                Err(StoreError::TooLarge(_) | StoreError::BeyondEngine(_)) => break,
                Err(error) => {
                    tracing::warn!(%error, "the engine does not tell what it holds");
                    self.pause(attempt, None).await?;
                }
            }
        }
        Ok(samples.to_vec())
    }

    /// Sets samples aside, durably: before that the cursor does not pass them.
    async fn bury(
        &mut self,
        labels: &Labels,
        samples: &[Sample],
        status: u16,
        reason: &str,
    ) -> Result<(), Stopped> {
        if self.refused_max.is_some_and(|max| self.state.set_aside.load(Ordering::Relaxed) >= max) {
            return Err(Stopped::RefusedTooMany { status, reason: reason.to_owned() });
        }
        let letter = DeadLetter::new(self.clock.now_ms(), status, reason, labels, samples);
        let mut attempt = 0;
        loop {
            let (letters, adding) = (self.dead_letters.clone(), letter.clone());
            let added = tokio::task::spawn_blocking(move || letters.add(&[adding])).await;
            match added.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                Ok(()) => {
                    self.state.set_aside(samples.len());
                    return Ok(());
                }
                Err(error) => {
                    tracing::error!(%error, "refused samples can't be set aside; it will be tried again");
                    self.pause(attempt, None).await?;
                    attempt += 1;
                }
            }
        }
    }
}

/// Two halves, the first one last, so that it is taken first; of one series, of its samples. What can't be
/// halved comes back whole.
fn halves(mut series: Vec<Series>) -> Vec<Vec<Series>> {
    if series.len() > 1 {
        let second = series.split_off(series.len() / 2);
        return vec![second, series];
    }
    let Some((labels, samples)) = series.pop() else { return Vec::new() };
    if samples.len() < 2 {
        return vec![vec![(labels, samples)]];
    }
    let (first, second) = samples.split_at(samples.len() / 2);
    vec![vec![(labels.clone(), second.to_vec())], vec![(labels, first.to_vec())]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_all_there_is_in_order() {
        let labels = |pod: &str| Labels::new([("__name__", "m"), ("pod", pod)]).expect("valid");
        let samples = |count: i64| (0..count).map(|at| Sample::new(at, 0.0)).collect::<Vec<_>>();
        let mut pieces =
            vec![vec![(labels("a"), samples(3)), (labels("b"), samples(1)), (labels("c"), samples(2))]];
        let mut seen = Vec::new();
        while let Some(piece) = pieces.pop() {
            match &piece[..] {
                [(labels, one)] if one.len() == 1 => {
                    seen.push((labels.get("pod").expect("a pod").to_owned(), one[0].timestamp_ms));
                }
                _ => pieces.extend(halves(piece)),
            }
        }
        let expected = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("c", 0), ("c", 1)];
        assert_eq!(seen, expected.map(|(pod, at)| (pod.to_owned(), at)));
    }
}
