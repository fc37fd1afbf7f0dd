//! The newest sample of each series that came in here lately: what the engine may not show yet.

use super::outbox::{Part, Position};
use crate::prometheus_client::write_request;
use crate::store::{Latest, Scope, StoreError};
use lookback_storage::{
    Labels, METRIC_NAME_LABEL, MatchOp, Matcher, Reject, Sample, WriteBatch, WriteReport,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most series that are kept. What is beyond is known to the engine only, as soon as it has it.
const SERIES_MAX: usize = 500_000;
/// How long a series is kept once its samples are sent and nothing more comes.
const KEPT_MS: i64 = 600_000;
/// Samples of one series in a message: more are several messages.
const MESSAGE_SAMPLES_MAX: usize = 5_000;
/// A part is closed once it has so many bytes.
const PART_RAW_BYTES: usize = 128 << 10;

/// What may go into the outbox, and what becomes of the rest.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    pub(super) parts: Vec<Part>,
    /// Of each series that brings something: its newest sample.
    pub(super) newest: Vec<(Arc<Labels>, Sample)>,
    pub(super) report: WriteReport,
}

#[derive(Default)]
pub(super) struct Overlay(Mutex<Series>);

#[derive(Default)]
struct Series {
    by_name: HashMap<Box<str>, HashMap<Arc<Labels>, Entry>>,
    count: usize,
    /// How many were ever added.
    added: u64,
    /// Of how many the newest sample could not be written.
    undurable: usize,
}

/// How many series there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) series: u64,
    /// How many there ever were.
    pub(super) added: u64,
    /// Of how many the newest sample could not be written.
    pub(super) undurable: u64,
}

struct Entry {
    /// `None`: nothing is durable yet.
    newest: Option<(Sample, bool)>,
    /// The newest time that was given to a sample of it.
    given_ms: i64,
    /// Where its newest sample ends in the outbox.
    ends: Position,
    touched_ms: i64,
}

impl Overlay {
    fn series(&self) -> MutexGuard<'_, Series> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What of a batch may go to the engine: samples get times, those too far ahead are refused, and the
    /// newest one of a series is not sent twice.
    pub(super) fn admit(
        &self,
        scope: &Scope,
        batch: WriteBatch,
        now_ms: i64,
        ahead_max_ms: i64,
    ) -> Result<Admitted, StoreError> {
        scope.admits(&batch)?;
        let labels: Vec<Arc<Labels>> = batch.series.into_iter().map(Arc::new).collect();
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); labels.len()];
        let mut admitted = Admitted::default();
        let report = &mut admitted.report;
        let mut known = self.series();
        for (at, new) in batch.samples.iter().enumerate() {
            let (Some(labels), Some(samples)) = (labels.get(new.series), samples.get_mut(new.series)) else {
                continue;
            };
            if let Some(timestamp_ms) = new.timestamp_ms
                && timestamp_ms > now_ms.saturating_add(ahead_max_ms)
            {
                report.rejected.push((at, Reject::TooFarAhead { timestamp_ms, now_ms, ahead_max_ms }));
                continue;
            }
            let entry = known.entry(labels, now_ms, &mut report.series_created);
            let Some(entry) = entry else {
                samples.push(Sample::new(new.timestamp_ms.unwrap_or(now_ms), new.value));
                report.accepted += 1;
                continue;
            };
            let stamped = now_ms.max(entry.given_ms.saturating_add(1));
            let sample = Sample::new(new.timestamp_ms.unwrap_or(stamped), new.value);
            entry.given_ms = entry.given_ms.max(sample.timestamp_ms);
            if entry.newest == Some((sample, true)) {
                report.duplicates += 1;
                continue;
            }
            samples.push(sample);
            report.accepted += 1;
        }
        drop(known);
        for (labels, samples) in labels.into_iter().zip(samples) {
            let newest = samples.iter().copied().max_by(Sample::total_cmp);
            let Some(newest) = newest else { continue };
            for samples in samples.chunks(MESSAGE_SAMPLES_MAX) {
                push_part(&mut admitted.parts, &labels, samples);
            }
            admitted.newest.push((labels, newest));
        }
        Ok(admitted)
    }

    /// These are the newest samples of their series; they end at `ends`, or could not be written.
    pub(super) fn keep(&self, newest: Vec<(Arc<Labels>, Sample)>, ends: Option<Position>, now_ms: i64) {
        let (mut known, mut created) = (self.series(), 0);
        let mut undurable = known.undurable;
        for (labels, sample) in newest {
            let Some(entry) = known.entry(&labels, now_ms, &mut created) else { continue };
            entry.touched_ms = now_ms;
            entry.ends = ends.unwrap_or(entry.ends).max(entry.ends);
            entry.given_ms = entry.given_ms.max(sample.timestamp_ms);
            let is_newer = entry.newest.is_none_or(|(before, durable)| {
                sample.total_cmp(&before).is_gt() || (!durable && sample.timestamp_ms == before.timestamp_ms)
            });
            if is_newer {
                undurable -= usize::from(entry.is_undurable());
                entry.newest = Some((sample, ends.is_some()));
                undurable += usize::from(entry.is_undurable());
            }
        }
        known.undurable = undurable;
    }

    /// The newest samples of matching series.
    pub(super) fn latest(&self, scope: &Scope, matchers: &[Matcher]) -> Vec<Latest> {
        let known = self.series();
        let name = matchers.iter().find(|m| m.op() == MatchOp::Equal && m.name() == METRIC_NAME_LABEL);
        let mut found = Vec::new();
        let mut look_into = |series: &HashMap<Arc<Labels>, Entry>| {
            for (labels, entry) in series {
                let Some((sample, durable)) = entry.newest else { continue };
                if scope.allows_series(labels) && matchers.iter().all(|m| m.matches(labels)) {
                    found.push(Latest { labels: Arc::clone(labels), sample, durable });
                }
            }
        };
        match name {
            Some(name) => known.by_name.get(name.value()).into_iter().for_each(&mut look_into),
            None => known.by_name.values().for_each(look_into),
        }
        found
    }

    /// Forgets series of which everything is sent and nothing has come for long.
    pub(super) fn sweep(&self, sent: Position, now_ms: i64) {
        let mut known = self.series();
        let is_kept = |entry: &Entry| entry.ends > sent || now_ms.saturating_sub(entry.touched_ms) < KEPT_MS;
        known.by_name.retain(|_, series| {
            series.retain(|_, entry| is_kept(entry));
            !series.is_empty()
        });
        let left = known.by_name.values().flat_map(HashMap::values);
        let (count, undurable) = left.fold((0, 0), |(count, undurable), entry| {
            (count + 1, undurable + usize::from(entry.is_undurable()))
        });
        (known.count, known.undurable) = (count, undurable);
    }

    /// Forgets the newest samples of matching series where they lie in the span: they are deleted.
    pub(super) fn forget(&self, scope: &Scope, matchers: &[Matcher], start_ms: i64, end_ms: i64) {
        let (mut known, mut undurable) = (self.series(), 0);
        for (labels, entry) in known.by_name.values_mut().flatten() {
            let lies_within =
                entry.newest.is_some_and(|(sample, _)| (start_ms..=end_ms).contains(&sample.timestamp_ms));
            let is_meant = scope.allows_series(labels) && matchers.iter().all(|m| m.matches(labels));
            if lies_within && is_meant {
                entry.newest = None;
            }
            undurable += usize::from(entry.is_undurable());
        }
        known.undurable = undurable;
    }

    /// How many series there are. Looks at none of them.
    pub(super) fn counts(&self) -> Counts {
        let known = self.series();
        Counts { series: known.count as u64, added: known.added, undurable: known.undurable as u64 }
    }
}

impl Entry {
    /// Whether its newest sample could not be written.
    fn is_undurable(&self) -> bool {
        self.newest.is_some_and(|(_, durable)| !durable)
    }
}

impl Series {
    /// `None`: it would be one too many.
    fn entry(&mut self, labels: &Arc<Labels>, now_ms: i64, created: &mut usize) -> Option<&mut Entry> {
        if !self.by_name.contains_key(labels.metric_name()) {
            self.by_name.insert(labels.metric_name().into(), HashMap::new());
        }
        let series = self.by_name.get_mut(labels.metric_name())?;
        if !series.contains_key(labels) {
            if self.count >= SERIES_MAX {
                return None;
            }
            self.count += 1;
            self.added += 1;
            *created += 1;
            let nothing = Position::default();
            let entry = Entry { newest: None, given_ms: i64::MIN, ends: nothing, touched_ms: now_ms };
            series.insert(Arc::clone(labels), entry);
        }
        series.get_mut(labels)
    }
}

fn push_part(parts: &mut Vec<Part>, labels: &Labels, samples: &[Sample]) {
    let raw = write_request([(labels, samples)]);
    let count = u32::try_from(samples.len()).unwrap_or(u32::MAX);
    match parts.last_mut() {
        Some(part) if part.raw.len() + raw.len() <= PART_RAW_BYTES => {
            part.raw.extend_from_slice(&raw);
            part.samples += count;
        }
        _ => parts.push(Part { raw, samples: count }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus_client::decode_write_request;

    const NOW_MS: i64 = 1_794_700_800_000;

    fn labels(pod: &str) -> Labels {
        Labels::new([("__name__", "m"), ("namespace", "a"), ("pod", pod)]).expect("valid")
    }

    fn batch(samples: &[(&str, Option<i64>, f64)]) -> WriteBatch {
        let mut batch = WriteBatch::default();
        samples.iter().for_each(|(pod, at_ms, value)| batch.push(labels(pod), *at_ms, *value));
        batch
    }

    fn sent(admitted: &Admitted) -> Vec<(String, Sample)> {
        let series =
            admitted.parts.iter().flat_map(|part| decode_write_request(&part.raw).expect("a request"));
        series
            .flat_map(|(labels, samples)| {
                let pod = labels.get("pod").expect("a pod").to_owned();
                samples.into_iter().map(move |sample| (pod.clone(), sample)).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn samples_without_a_time_strictly_increase_and_the_future_is_refused() {
        let overlay = Overlay::default();
        let at = |ms| Sample::new(ms, 1.0);
        let first = batch(&[
            ("p", None, 1.0),
            ("p", None, 1.0),
            ("p", Some(NOW_MS + 601_000), 1.0),
            ("q", None, 1.0),
        ]);
        let admitted = overlay.admit(&Scope::All, first, NOW_MS, 600_000).expect("admitted");
        let expected = [("p", at(NOW_MS)), ("p", at(NOW_MS + 1)), ("q", at(NOW_MS))];
        assert_eq!(sent(&admitted), expected.map(|(pod, sample)| (pod.to_owned(), sample)));
        assert_eq!((admitted.report.accepted, admitted.report.series_created), (3, 2));
        assert!(matches!(admitted.report.rejected[..], [(2, Reject::TooFarAhead { .. })]));
        let next =
            overlay.admit(&Scope::All, batch(&[("p", None, 1.0)]), NOW_MS - 5, 600_000).expect("admitted");
        assert_eq!(sent(&next), [("p".to_owned(), at(NOW_MS + 2))]);
    }

    #[test]
    fn the_newest_is_told_until_it_is_sent_and_old() {
        let overlay = Overlay::default();
        let (early, late) = (Position { segment: 1, offset: 10 }, Position { segment: 1, offset: 20 });
        let newest = |pod: &str, ms, value| vec![(Arc::new(labels(pod)), Sample::new(ms, value))];
        overlay.keep(newest("p", NOW_MS, 2.0), Some(early), NOW_MS);
        overlay.keep(newest("p", NOW_MS - 5, 9.0), Some(early), NOW_MS);
        overlay.keep(newest("q", NOW_MS, 3.0), Some(late), NOW_MS);
        overlay.keep(newest("r", NOW_MS, 4.0), None, NOW_MS);
        let told = |matchers: &[Matcher]| {
            let mut told: Vec<_> = overlay
                .latest(&Scope::All, matchers)
                .into_iter()
                .map(|l| (l.sample.value, l.durable))
                .collect();
            told.sort_by(|a, b| a.0.total_cmp(&b.0));
            told
        };
        assert_eq!(told(&[]), [(2.0, true), (3.0, true), (4.0, false)]);
        assert_eq!(told(&[Matcher::equal("__name__", "m"), Matcher::equal("pod", "q")]), [(3.0, true)]);
        assert!(told(&[Matcher::equal("__name__", "other")]).is_empty());
        let undurable = || overlay.counts().undurable;
        assert_eq!(undurable(), 1);
        overlay.keep(newest("s", NOW_MS, 5.0), None, NOW_MS);
        assert_eq!(undurable(), 2);
        overlay.forget(&Scope::All, &[Matcher::equal("pod", "s")], NOW_MS, NOW_MS);
        assert_eq!(undurable(), 1, "what is deleted is not served any more");
        // What could not be written makes way for what could be, at the same time too.
        overlay.keep(newest("r", NOW_MS, 4.0), Some(early), NOW_MS);
        assert_eq!(told(&[Matcher::equal("pod", "r")]), [(4.0, true)]);
        assert_eq!(undurable(), 0);
        overlay.keep(newest("t", NOW_MS - KEPT_MS, 4.0), None, NOW_MS - KEPT_MS);
        overlay.sweep(early, NOW_MS + KEPT_MS - 1);
        assert_eq!(overlay.counts(), Counts { series: 4, added: 5, undurable: 0 });
        overlay.sweep(early, NOW_MS + KEPT_MS);
        assert_eq!(told(&[]), [(3.0, true)], "what is not sent stays");
    }
}
