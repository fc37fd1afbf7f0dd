//! Series of all kinds: counters with resets, gauges that come and go, histograms, values that are none.
//!
//! Values are small multiples of 1/64, so that sums of them are exact in whatever order they are added up,
//! and no two series of a metric have equal ones. The milliseconds of a sample's time lie within 200 … 800
//! of a second, so that no edge of a window that a query can have touches a sample.

use super::Random;
use crate::common::remote_write::{TimeSeries, series};

pub(crate) const BASE_MS: i64 = 1_700_000_000_000;
pub(crate) const SPAN_MS: i64 = 2 * 3_600_000;
const INTERVAL_MS: i64 = 15_000;
const STALE: f64 = f64::from_bits(lookback_storage::STALENESS_MARKER_BITS);

type Samples = Vec<(i64, f64)>;

/// Fills a series with what `value` says at each time: a sample, or none.
fn sampled(random: &mut Random, mut value: impl FnMut(&mut Random, i64) -> Option<f64>) -> Samples {
    let mut samples = Vec::new();
    for place in 0..SPAN_MS / INTERVAL_MS {
        let jitter_ms = 200 + i64::try_from(random.below(600)).expect("small");
        if let Some(value) = value(random, place) {
            samples.push((BASE_MS + place * INTERVAL_MS + jitter_ms, value));
        }
    }
    samples
}

/// Begins high, and falls to almost nothing now and then.
fn counter(random: &mut Random) -> Samples {
    let mut total = 10_000.0;
    sampled(random, |random, _| {
        let step = random.below(4_000) as f64 / 64.0;
        total = if random.chance(1) { step } else { total + step };
        Some(total)
    })
}

/// Never falls, with scrapes that are missing.
fn patchy_counter(random: &mut Random) -> Samples {
    let mut total = 1_000_000.0;
    sampled(random, |random, _| {
        total += random.below(640) as f64 / 64.0;
        (!random.chance(15)).then_some(total)
    })
}

fn gauge(random: &mut Random, mark: f64, lowest: f64, width: u64) -> Samples {
    sampled(random, |random, _| {
        (!random.chance(5)).then_some(lowest + random.below(width) as f64 + mark / 64.0)
    })
}

/// Lives for a part of the time only, and ends by a staleness marker, twice.
fn brief(random: &mut Random, mark: f64) -> Samples {
    let (first, length) = (20 + i64::try_from(random.below(100)).expect("small"), 60);
    let within = |place| (first..first + length).contains(&place) || place > first + 2 * length;
    sampled(random, |random, place| {
        let value = random.below(500) as f64 + mark / 64.0;
        if within(place) { Some(value) } else { within(place - 1).then_some(STALE) }
    })
}

/// What arithmetic finds hard.
fn wild(random: &mut Random, mark: f64) -> Samples {
    sampled(random, |random, _| {
        Some(match random.below(12) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => 0.0,
            _ => random.below(100) as f64 - 50.0 + mark / 64.0,
        })
    })
}

fn flat(random: &mut Random, value: f64) -> Samples {
    let mut value = value;
    sampled(random, |random, _| {
        if random.chance(2) {
            value += 1.0;
        }
        Some(value)
    })
}

/// All series of a histogram: counts up to each bound, in all, and their sum.
fn histogram(random: &mut Random, labels: &[(&str, &str)], all: &mut Vec<TimeSeries>) {
    const BOUNDS: [&str; 6] = ["0.1", "0.5", "1", "2.5", "10", "+Inf"];
    let mut counts = [1_000.0; 6];
    let mut sum = 1_000.0;
    let mut each: Vec<Samples> = vec![Vec::new(); 7];
    sampled(random, |random, place| {
        let at_ms = BASE_MS + place * INTERVAL_MS + 200 + i64::try_from(random.below(600)).expect("small");
        for _ in 0..random.below(20) {
            let bucket = usize::try_from(random.below(6)).expect("small");
            counts[bucket..].iter_mut().for_each(|count| *count += 1.0);
            sum += bucket as f64;
        }
        for (samples, value) in each.iter_mut().zip(counts.into_iter().chain([sum])) {
            samples.push((at_ms, value));
        }
        None
    });
    let named = |name: &'static str| [("__name__", name)].into_iter().chain(labels.iter().copied());
    for (bound, samples) in BOUNDS.iter().zip(&each) {
        let labels: Vec<_> = named("latency_seconds_bucket").chain([("le", *bound)]).collect();
        all.push(series(&labels, samples));
    }
    all.push(series(&named("latency_seconds_count").collect::<Vec<_>>(), &each[5]));
    all.push(series(&named("latency_seconds_sum").collect::<Vec<_>>(), &each[6]));
}

/// All series of a seed.
pub(crate) fn all(random: &mut Random) -> Vec<TimeSeries> {
    let mut all = Vec::new();
    let mut mark = 0.0;
    for (place, job) in ["api", "web"].into_iter().enumerate() {
        let version = format!("v{}", place + 1);
        let place = place as f64;
        all.push(series(
            &[("__name__", "build_info"), ("job", job), ("version", &version)],
            &flat(random, 1.0),
        ));
        all.push(series(&[("__name__", "limit"), ("job", job)], &gauge(random, place, 100.0, 400)));
        for instance in ["a", "b", "c"] {
            mark += 1.0;
            let of = |name: &'static str| [("__name__", name), ("instance", instance), ("job", job)];
            for code in ["200", "500"] {
                let labels =
                    [("__name__", "requests_total"), ("code", code), ("instance", instance), ("job", job)];
                all.push(series(&labels, &counter(random)));
            }
            all.push(series(&of("bytes_total"), &patchy_counter(random)));
            all.push(series(&of("temperature"), &gauge(random, mark, -40.0, 120)));
            all.push(series(&of("brief"), &brief(random, mark)));
            all.push(series(&of("wild"), &wild(random, mark)));
            all.push(series(&of("flat"), &flat(random, mark)));
            for pod in ["p-0", "p-1"] {
                mark += 1.0;
                let labels =
                    [("__name__", "memory_bytes"), ("instance", instance), ("job", job), ("pod", pod)];
                all.push(series(&labels, &gauge(random, mark, 0.0, 5_000)));
            }
            if instance != "c" {
                histogram(random, &[("instance", instance), ("job", job)], &mut all);
            }
        }
    }
    all
}

/// The series in slices of time, as a sender would bring them.
pub(crate) fn slices(all: &[TimeSeries], width_ms: i64) -> Vec<Vec<TimeSeries>> {
    let starts = (0..SPAN_MS).step_by(usize::try_from(width_ms).expect("a width"));
    let slice = |start_ms: i64| {
        let within = BASE_MS + start_ms..BASE_MS + start_ms + width_ms;
        let cut = |one: &TimeSeries| {
            let samples = one.samples.iter().filter(|sample| within.contains(&sample.timestamp));
            TimeSeries { labels: one.labels.clone(), samples: samples.cloned().collect() }
        };
        all.iter().map(cut).filter(|one| !one.samples.is_empty()).collect()
    };
    starts.map(slice).collect()
}
