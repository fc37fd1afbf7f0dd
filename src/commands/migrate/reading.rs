//! The samples of a store in the order in which an engine takes them best: by windows of time, so that none is
//! much older than those before it, in a window by series.

use super::cursor::{Place, in_order};
use crate::store::prometheus::delivery::{Series, is_full};
use lookback_storage::{Db, Error, Labels, Selection};
use std::cmp::Ordering;
use std::ops::ControlFlow;

/// How long a window is. What is older than an hour, Prometheus takes only as out of order.
const WINDOW_MS: i64 = 3_600_000;
/// Spans longer than this are looked into before they are read window by window.
const PROBED_MS: i64 = 24 * WINDOW_MS;
/// Samples of one series in a message: more are several messages.
const MESSAGE_SAMPLES_MAX: usize = 5_000;
/// What a sample takes in a request, about, in bytes.
const SAMPLE_BYTES: usize = 18;

/// What goes into one request.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) series: Vec<Series>,
    pub(super) samples: u64,
    raw_bytes: usize,
    /// Where it ends.
    pub(super) ends: Option<Place>,
    /// Up to where all windows are in this batch and those before, Unix milliseconds.
    pub(super) window_start_ms: i64,
}

impl Batch {
    fn push(&mut self, window_start_ms: i64, labels: &Labels, samples: &[lookback_storage::Sample]) {
        let Some(last) = samples.last() else { return };
        self.samples += samples.len() as u64;
        self.raw_bytes += labels.text_bytes() + 6 * labels.len() + SAMPLE_BYTES * samples.len();
        self.series.push((labels.clone(), samples.to_vec()));
        self.ends = Some(Place::new(window_start_ms, labels, last.timestamp_ms));
        self.window_start_ms = window_start_ms;
    }
}

/// What is read.
pub(super) struct Reading<'a> {
    pub(super) db: &'a Db,
    pub(super) selection: Selection<'a>,
    pub(super) span_ms: (i64, i64),
    /// Up to where it was read before.
    pub(super) from: Option<Place>,
    pub(super) cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl Reading<'_> {
    /// Hands out batch after batch, until `give` breaks off.
    ///
    /// # Errors
    /// When it is cancelled, or the store can't be read.
    pub(super) fn each(&self, give: &mut dyn FnMut(Batch) -> ControlFlow<()>) -> Result<(), Error> {
        let from = self.from.as_ref().and_then(|place| Some((place, Labels::new(&place.series).ok()?)));
        let first_ms = from.as_ref().map_or(i64::MIN, |(place, _)| place.window_start_ms);
        let mut batch = Batch::default();
        let mut holds = |span| self.holds(span);
        let mut visit = |span: (i64, i64)| {
            let window_start_ms = window_of(span.0);
            let mut flow = ControlFlow::Continue(());
            self.db.select_pieces(self.selection, span, self.cancelled, &mut |piece| {
                let mut samples = &piece.samples[..];
                if let Some((place, labels)) = &from
                    && place.window_start_ms == window_start_ms
                {
                    match in_order(piece.labels, labels) {
                        Ordering::Less => return ControlFlow::Continue(()),
                        Ordering::Equal => {
                            let done = samples.partition_point(|sample| sample.timestamp_ms <= place.upto_ms);
                            samples = &samples[done..];
                        }
                        Ordering::Greater => {}
                    }
                }
                for some in samples.chunks(MESSAGE_SAMPLES_MAX) {
                    batch.push(window_start_ms, piece.labels, some);
                    if is_full(batch.raw_bytes, batch.samples) {
                        flow = give(std::mem::take(&mut batch));
                        if flow.is_break() {
                            return flow;
                        }
                    }
                }
                ControlFlow::Continue(())
            })?;
            Ok(flow)
        };
        let span = (self.span_ms.0.max(first_ms), self.span_ms.1);
        if walk(span, &mut holds, &mut visit)?.is_continue() && batch.samples > 0 {
            // Whether it breaks off makes no difference any more.
            let _ = give(batch);
        }
        Ok(())
    }

    /// Whether there is a sample in the span.
    fn holds(&self, span: (i64, i64)) -> Result<bool, Error> {
        let mut found = false;
        self.db.select_pieces(self.selection, span, self.cancelled, &mut |_| {
            found = true;
            ControlFlow::Break(())
        })?;
        Ok(found)
    }
}

/// Where the window begins that holds this time.
fn window_of(timestamp_ms: i64) -> i64 {
    timestamp_ms.div_euclid(WINDOW_MS).saturating_mul(WINDOW_MS)
}

/// Visits the windows of a span in time order. Of a long span that holds nothing none is visited.
fn walk(
    (start_ms, end_ms): (i64, i64),
    holds: &mut dyn FnMut((i64, i64)) -> Result<bool, Error>,
    visit: &mut dyn FnMut((i64, i64)) -> Result<ControlFlow<()>, Error>,
) -> Result<ControlFlow<()>, Error> {
    let mut spans = vec![(start_ms, end_ms)];
    while let Some((start_ms, end_ms)) = spans.pop() {
        if end_ms < start_ms {
            continue;
        }
        if end_ms.saturating_sub(start_ms) > PROBED_MS {
            if holds((start_ms, end_ms))? {
                let middle_ms = window_of(start_ms.midpoint(end_ms)).max(start_ms.saturating_add(1));
                spans.extend([(middle_ms, end_ms), (start_ms, middle_ms - 1)]);
            }
            continue;
        }
        let mut at_ms = start_ms;
        while at_ms <= end_ms {
            let next_ms = window_of(at_ms).saturating_add(WINDOW_MS);
            if visit((at_ms, end_ms.min(next_ms - 1)))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            at_ms = next_ms;
        }
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lookback_storage::{Options, OutOfOrder, WriteBatch};

    const HOUR_MS: i64 = 3_600_000;

    /// A few samples an hour of two series, with years between the first day and the last.
    fn store(dir: &std::path::Path) -> Db {
        let db = Db::open(dir, Options { retention_ms: None, ..Options::default() }, uuid::Uuid::nil());
        let db = db.expect("opens");
        for day in [0, 1, 9_000] {
            let mut batch = WriteBatch::default();
            for pod in ["a", "b"] {
                for at in 0..30 {
                    let labels = Labels::new([("__name__", "m"), ("pod", pod)]).expect("valid");
                    batch.push(labels, Some(day * 24 * HOUR_MS + at * 1_000_003), at as f64);
                }
            }
            db.append_wait(batch, i64::MAX / 2, OutOfOrder::Lifted).expect("appended");
            db.seal().expect("sealed");
        }
        db
    }

    fn everything(db: &Db, from: Option<Place>) -> Vec<(i64, String, i64)> {
        let mut read = Vec::new();
        let selection = Selection { matchers: &[], visible: None };
        let span_ms = db.extent().span_ms.expect("samples");
        let reading = Reading { db, selection, span_ms, from, cancelled: &|| false };
        reading
            .each(&mut |batch| {
                for (labels, samples) in batch.series {
                    let of_sample = |sample: &lookback_storage::Sample| {
                        let at_ms = sample.timestamp_ms;
                        (window_of(at_ms), labels.get("pod").expect("a pod").to_owned(), at_ms)
                    };
                    read.extend(samples.iter().map(of_sample));
                }
                ControlFlow::Continue(())
            })
            .expect("read");
        read
    }

    #[test]
    fn everything_comes_by_windows_and_goes_on_from_any_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = store(dir.path());
        let all = everything(&db, None);
        assert_eq!(all.len(), 180);
        assert!(all.is_sorted(), "by windows, in them by series, of a series by time");
        for (done, (window_start_ms, pod, at_ms)) in all.iter().enumerate() {
            let labels = Labels::new([("__name__", "m"), ("pod", pod)]).expect("valid");
            let place = Place::new(*window_start_ms, &labels, *at_ms);
            assert_eq!(everything(&db, Some(place)), all[done + 1..], "after {done}");
        }
    }

    #[test]
    fn empty_years_are_not_walked_through() {
        let (mut windows, mut probes) = (Vec::new(), 0);
        let (first, last) = (5, 9_000 * 24 * HOUR_MS + 5);
        let mut holds = |(start, end): (i64, i64)| {
            probes += 1;
            Ok(start <= first || end >= last)
        };
        let flow = walk((first, last), &mut holds, &mut |span| {
            windows.push(span);
            Ok(ControlFlow::Continue(()))
        });
        assert!(flow.expect("walked").is_continue());
        assert!(windows.len() < 60 && probes < 60, "{} windows, {probes} probes", windows.len());
        assert_eq!((windows[0], windows[1].0), ((5, HOUR_MS - 1), HOUR_MS));
        assert_eq!(windows.last().map(|span| span.1), Some(last));
        assert!(windows.is_sorted());
    }
}
