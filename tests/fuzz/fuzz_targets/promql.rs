//! Arbitrary texts as PromQL over a few series in memory: whatever parses is evaluated, and no text panics,
//! overflows the stack or goes past its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback::query::promql::{Options, Query, STACK_BYTES, Steps, Stop, Task, parse_selector};
use lookback::store::{EachRequest, SeriesReader, StoreError};
use lookback_storage::{Labels, Matcher, Pick, STALENESS_MARKER_BITS, Sample, Visit};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many times an evaluation may ask whether to stop, so that none takes long.
const LOOKS_MAX: usize = 20;

struct Few(Vec<(Arc<Labels>, Vec<Sample>)>);

impl Few {
    fn new() -> Self {
        let pods = [("m", "a", 1.0), ("m", "b", f64::NAN), ("n_total", "a", -3.5), ("b_bucket", "c", 7.0)];
        let series = pods.into_iter().map(|(name, pod, slope)| {
            let labels = Labels::new([("__name__", name), ("pod", pod), ("le", "+Inf")]).expect("valid");
            let value = |i: i64| {
                if i == 5 { f64::from_bits(STALENESS_MARKER_BITS) } else { (i % 7) as f64 * slope }
            };
            let samples = (0..12).map(|i| Sample::new(i * 30_000, value(i))).collect();
            (Arc::new(labels), samples)
        });
        Self(series.collect())
    }
}

impl SeriesReader for Few {
    fn each(
        &self,
        request: &EachRequest<'_>,
        cancelled: &(dyn Fn() -> bool + Sync),
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let within = |s: &&Sample| (request.start_ms..=request.end_ms).contains(&s.timestamp_ms);
        for (labels, samples) in &self.0 {
            let fits = request.matchers.iter().all(|m| m.matches(labels));
            let mut samples: Vec<Sample> = samples.iter().filter(within).copied().collect();
            if request.pick == Pick::Newest {
                samples.drain(..samples.len().saturating_sub(1));
            }
            if cancelled() {
                return Err(StoreError::Unavailable("stopped".to_owned()));
            }
            if fits && !samples.is_empty() && visit(labels, samples).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn series(&self, _: &[Matcher], _: i64, _: i64) -> Result<Vec<Arc<Labels>>, StoreError> {
        Ok(Vec::new())
    }
}

fn evaluate(text: &str) {
    let _ = parse_selector(text);
    let Ok(query) = Query::parse(text) else { return };
    let _ = (query.formatted(), query.tree());
    let reader = Few::new();
    let options = Options { values_max: 1_000_000, ..Options::default() };
    for steps in [Steps::instant(300_000), Steps::range(0, 360_000, 45_000).expect("steps")] {
        let looks = AtomicUsize::new(0);
        let stop = || (looks.fetch_add(1, Ordering::Relaxed) >= LOOKS_MAX).then_some(Stop::Timeout);
        let task = Task { reader: &reader, options, steps, stop: &stop };
        let _ = task.instant(&query);
        if steps.count() > 1 {
            let _ = task.range(&query);
        }
    }
}

fuzz_target!(|text: &str| {
    let text = text.to_owned();
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || evaluate(&text));
    thread.expect("a thread").join().expect("no panic");
});
