//! Points as samples of series.

use super::attributes::Attributes;
use super::names::{label_name, metric_name, unit_in_words};
use super::resource::{ResourceLabels, join, object_label};
use super::{Kind, Metric, Point, PointValue, Temporality};
use crate::ingest::intake::{Intake, IntakeError};
use crate::metadata::{Described, MetricType};
use crate::text::start_of;
use lookback_storage::{METRIC_NAME_LABEL, STALENESS_MARKER_BITS};
use std::borrow::Cow;

/// The series that carries the attributes of a resource.
const TARGET_INFO: &str = "target_info";

/// A label of a sample being made.
type Pair<'p> = (Cow<'p, str>, Cow<'p, str>);

/// Turns points into samples, which an [`Intake`] takes.
pub struct Translator<'i, 'a> {
    intake: &'i mut Intake<'a>,
    resource: ResourceLabels,
    newest_ms: Option<i64>,
    told: Told,
}

/// What is known of a request besides its samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The places of samples that are to be added to what their series had before.
    pub deltas: Vec<usize>,
    /// Of each sample, its point, counted from 0; `None`: it is of the resource.
    pub point_of_sample: Vec<Option<usize>>,
    /// How many points there were.
    pub points: usize,
    /// How many of them were refused as a whole.
    pub points_refused: usize,
}

/// A metric in the terms of Prometheus.
pub struct Series<'m> {
    metric: Metric<'m>,
    name: String,
}

impl<'i, 'a> Translator<'i, 'a> {
    /// Gives what it makes to `intake`.
    pub fn new(intake: &'i mut Intake<'a>) -> Self {
        Self { intake, resource: ResourceLabels::default(), newest_ms: None, told: Told::default() }
    }

    /// What follows is of this resource.
    pub fn begin_resource(&mut self, attributes: &Attributes) {
        self.resource = ResourceLabels::of(attributes);
        self.newest_ms = None;
    }

    /// The resource is complete: what else it says is written beside its newest point.
    ///
    /// # Errors
    /// When too much has been taken.
    pub fn end_resource(&mut self) -> Result<(), IntakeError> {
        let resource = std::mem::take(&mut self.resource);
        let Some(newest_ms) = self.newest_ms.filter(|_| resource.has_target_info()) else { return Ok(()) };
        let mut pairs: Vec<Pair<'_>> = vec![(METRIC_NAME_LABEL.into(), TARGET_INFO.into())];
        pairs.extend(resource.labels.iter().chain(&resource.others).map(borrowed));
        if self.intake.single(&pairs, Some(newest_ms), 1.0)? {
            self.told.point_of_sample.push(None);
        }
        Ok(())
    }

    /// What follows is of this metric.
    pub fn metric<'m>(&mut self, metric: Metric<'m>) -> Series<'m> {
        Series { name: metric_name(metric.name, metric.unit, metric.kind), metric }
    }

    /// Counts exemplars, which are not kept.
    pub fn ignore_exemplars(&mut self, exemplars: usize) {
        self.intake.taken.exemplars += exemplars;
    }

    /// Counts a point that can't be taken.
    pub fn refuse_point(&mut self, reason: &'static str, message: impl FnOnce() -> String) {
        self.told.points += 1;
        self.told.points_refused += 1;
        self.intake.refuse(reason, 1, message);
    }

    /// What is known besides the samples.
    #[must_use]
    pub fn finish(self) -> Told {
        self.told
    }

    /// Takes a point of a metric.
    ///
    /// # Errors
    /// When too much has been taken.
    pub fn point(&mut self, series: &Series<'_>, point: &Point) -> Result<(), IntakeError> {
        let delta = match shape(series.metric.kind, point) {
            Ok(delta) => delta,
            Err((reason, message)) => {
                let name = start_of(series.metric.name);
                self.refuse_point(reason, || format!("metric {name:?}: {message}"));
                return Ok(());
            }
        };
        let left_out = point.attributes.left_out() + self.resource.left_out;
        if left_out > 0 {
            let name = start_of(series.metric.name);
            let message = || format!("metric {name:?}: {left_out} attributes are too many");
            self.refuse_point("bad_labels", message);
            return Ok(());
        }
        let refused_before = self.intake.taken.refusals.total();
        let first_sample = self.intake.taken.batch.samples.len();
        let timestamp_ms = point.time_ns.map(|ns| i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX));
        let base = self.base(&point.attributes);
        let mut writer = Writer { intake: self.intake, base: &base, timestamp_ms };
        writer.point(&series.name, point)?;
        // A point whose labels are refused is refused as a whole: they are those of all its samples.
        let refused = self.intake.taken.refusals.total() > refused_before;
        let samples = self.intake.taken.batch.samples.len();
        let (place, marker) = (self.told.points, point.no_recorded_value);
        self.told.points += 1;
        self.told.points_refused += usize::from(refused);
        self.told.point_of_sample.resize(samples, Some(place));
        if delta && !marker {
            self.told.deltas.extend(first_sample..samples);
        }
        if !refused {
            self.newest_ms = self.newest_ms.max(timestamp_ms);
            self.note(series);
        }
        Ok(())
    }

    fn note(&mut self, series: &Series<'_>) {
        if self.intake.taken.notes.has(&series.name) {
            return;
        }
        let metric = &series.metric;
        let kind = match metric.kind {
            Kind::Sum { monotonic: true, .. } => MetricType::Counter,
            Kind::Gauge | Kind::Sum { .. } => MetricType::Gauge,
            Kind::Histogram { .. } | Kind::ExponentialHistogram => MetricType::Histogram,
            Kind::Summary => MetricType::Summary,
        };
        let (help, unit) = (metric.description.to_owned(), unit_in_words(metric.unit));
        self.intake.taken.notes.add(&series.name, || Described { kind, help, unit });
    }

    /// The labels that all samples of a point have, but for the name.
    fn base(&self, attributes: &Attributes) -> Vec<(String, String)> {
        let mut own: Vec<(String, String)> = Vec::with_capacity(attributes.pairs().len());
        for (key, value) in attributes.pairs() {
            let name = object_label(key).map_or_else(|| label_name(key), str::to_owned);
            join(&mut own, name, value);
        }
        // What the resource says of itself counts; the point's word for the same label is kept beside
        // it, as a scrape would keep it.
        let taken = |name: &str| {
            let reserved = matches!(name, "le" | "quantile");
            reserved || self.resource.labels.iter().any(|(n, _)| n == name)
        };
        let mut base = self.resource.labels.clone();
        base.extend(own.into_iter().map(|(name, value)| {
            if taken(&name) { (format!("exported_{name}"), value) } else { (name, value) }
        }));
        base
    }
}

/// Whether the point is a delta, or why it can't be taken.
fn shape(kind: Kind, point: &Point) -> Result<bool, (&'static str, String)> {
    let temporality = match kind {
        Kind::Sum { temporality, .. } | Kind::Histogram { temporality } => temporality,
        Kind::Gauge | Kind::Summary => Temporality::Cumulative,
        Kind::ExponentialHistogram => {
            let message = "exponential histograms are not taken yet: configure explicit buckets".to_owned();
            return Err(("exponential_histogram", message));
        }
    };
    if temporality == Temporality::Unspecified {
        return Err(("bad_point", "its aggregation temporality is neither delta nor cumulative".to_owned()));
    }
    let is_delta = temporality == Temporality::Delta;
    let fits = match (kind, &point.value) {
        (_, PointValue::None) => point.no_recorded_value,
        (Kind::Gauge | Kind::Sum { .. }, PointValue::Number(_)) => true,
        (Kind::Histogram { .. }, PointValue::Histogram { bounds, counts, .. }) => {
            counts.is_empty() && bounds.is_empty() || counts.len() == bounds.len() + 1
        }
        (Kind::Summary, PointValue::Summary { .. }) => true,
        _ => false,
    };
    if fits {
        Ok(is_delta)
    } else {
        Err(("bad_point", "a point has no value, or not one for each bucket".to_owned()))
    }
}

/// A number as Prometheus writes it in labels.
fn number_text(number: f64) -> String {
    match number {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        number => number.to_string(),
    }
}

fn borrowed(pair: &(String, String)) -> Pair<'_> {
    (pair.0.as_str().into(), pair.1.as_str().into())
}

/// Writes the samples of one point.
struct Writer<'w, 'a> {
    intake: &'w mut Intake<'a>,
    base: &'w [(String, String)],
    timestamp_ms: Option<i64>,
}

impl Writer<'_, '_> {
    fn point(&mut self, name: &str, point: &Point) -> Result<(), IntakeError> {
        let stale = point.no_recorded_value;
        let or_stale = |value: f64| if stale { f64::from_bits(STALENESS_MARKER_BITS) } else { value };
        match &point.value {
            // Whose only series goes by the plain name. A histogram that says so without its buckets
            // leaves them to fade.
            PointValue::None => self.sample(name, None, f64::from_bits(STALENESS_MARKER_BITS)).map(|_| ()),
            PointValue::Number(value) => self.sample(name, None, or_stale(*value)).map(|_| ()),
            PointValue::Histogram { count, sum, bounds, counts } => {
                if !self.sample(&format!("{name}_count"), None, or_stale(*count as f64))? {
                    return Ok(());
                }
                if let Some(sum) = sum {
                    self.sample(&format!("{name}_sum"), None, or_stale(*sum))?;
                }
                let bucket = format!("{name}_bucket");
                let mut below = 0_u64;
                for (bound, count) in bounds.iter().zip(counts) {
                    below = below.saturating_add(*count);
                    if *bound != f64::INFINITY {
                        self.sample(&bucket, Some(("le", number_text(*bound))), or_stale(below as f64))?;
                    }
                }
                self.sample(&bucket, Some(("le", "+Inf".to_owned())), or_stale(*count as f64)).map(|_| ())
            }
            PointValue::Summary { count, sum, quantiles } => {
                if !self.sample(&format!("{name}_count"), None, or_stale(*count as f64))? {
                    return Ok(());
                }
                self.sample(&format!("{name}_sum"), None, or_stale(*sum))?;
                for (quantile, value) in quantiles {
                    self.sample(name, Some(("quantile", number_text(*quantile))), or_stale(*value))?;
                }
                Ok(())
            }
        }
    }

    fn sample(&mut self, name: &str, own: Option<(&str, String)>, value: f64) -> Result<bool, IntakeError> {
        let mut pairs: Vec<Pair<'_>> = Vec::with_capacity(self.base.len() + 2);
        pairs.push((METRIC_NAME_LABEL.into(), name.into()));
        pairs.extend(self.base.iter().map(borrowed));
        pairs.extend(own.map(|(name, value)| (Cow::from(name), Cow::from(value))));
        self.intake.single(&pairs, self.timestamp_ms, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::ByteBudget;
    use crate::ingest::intake::Taken;
    use crate::store::Scope;

    fn attributes(pairs: &[(&str, &str)]) -> Attributes {
        let mut attributes = Attributes::default();
        pairs.iter().for_each(|(key, value)| attributes.push(*key, *value));
        attributes
    }

    fn point(value: PointValue) -> Point {
        Point { time_ns: Some(5_000_000), value, ..Point::default() }
    }

    fn translate(points: &[(&str, &str, Kind, Point)]) -> (Taken, Told) {
        let mut share = ByteBudget::new(1 << 20).share();
        let mut intake = Intake::new(&Scope::All, &mut share);
        let mut translator = Translator::new(&mut intake);
        let resource = [("service.name", "s"), ("k8s.namespace.name", "n"), ("k8s.pod.name", "p")];
        translator.begin_resource(&attributes(&resource));
        for (name, unit, kind, point) in points {
            let series = translator.metric(Metric { name, description: "d", unit, kind: *kind });
            translator.point(&series, point).expect("room");
        }
        translator.end_resource().expect("room");
        let told = translator.finish();
        (intake.taken, told)
    }

    fn flat(taken: &Taken) -> Vec<String> {
        let samples = taken.batch.samples.iter();
        samples.map(|s| format!("{} {}", taken.batch.series[s.series], s.value)).collect()
    }

    const DELTA: Kind = Kind::Histogram { temporality: Temporality::Delta };

    #[test]
    fn each_kind_of_point_becomes_its_series() {
        let histogram =
            PointValue::Histogram { count: 6, sum: Some(9.5), bounds: vec![0.5, 1.0], counts: vec![1, 2, 3] };
        let summary = PointValue::Summary { count: 2, sum: 3.0, quantiles: vec![(0.5, 1.0), (1.0, 2.0)] };
        let (taken, told) = translate(&[
            ("g", "By", Kind::Gauge, point(PointValue::Number(1.5))),
            ("h", "s", DELTA, point(histogram)),
            ("q", "", Kind::Summary, point(summary)),
        ]);
        let labels = |own: &str| format!("{{{own}job=\"s\", namespace=\"n\", pod=\"p\"}}").replace(", ", ",");
        let expected = [
            format!("g_bytes{} 1.5", labels("")),
            format!("h_seconds_count{} 6", labels("")),
            format!("h_seconds_sum{} 9.5", labels("")),
            format!("h_seconds_bucket{} 1", labels("")).replace(",n", ",le=\"0.5\",n"),
            format!("h_seconds_bucket{} 3", labels("")).replace(",n", ",le=\"1\",n"),
            format!("h_seconds_bucket{} 6", labels("")).replace(",n", ",le=\"+Inf\",n"),
            format!("q_count{} 2", labels("")),
            format!("q_sum{} 3", labels("")),
            format!("q{} 1", labels("")).replace("\"p\"", "\"p\",quantile=\"0.5\""),
            format!("q{} 2", labels("")).replace("\"p\"", "\"p\",quantile=\"1\""),
        ];
        let told_flat: Vec<_> = flat(&taken).iter().map(|line| line.replace(", ", ",")).collect();
        assert_eq!(told_flat, expected);
        assert_eq!(told.deltas, [1, 2, 3, 4, 5]);
        assert_eq!((told.points, told.points_refused), (3, 0));
        assert_eq!(told.point_of_sample[5..7], [Some(1), Some(2)]);
    }

    #[test]
    fn points_that_cannot_be_taken_are_counted_and_named() {
        let mut crowded = point(PointValue::Number(1.0));
        for i in 0..300 {
            crowded.attributes.push(format!("a{i}"), "x");
        }
        let odd = PointValue::Histogram { count: 1, sum: None, bounds: vec![1.0], counts: vec![1] };
        let unspecified = Kind::Sum { monotonic: true, temporality: Temporality::Unspecified };
        let (taken, told) = translate(&[
            ("crowded", "", Kind::Gauge, crowded),
            ("odd", "", DELTA, point(odd)),
            ("exp", "", Kind::ExponentialHistogram, point(PointValue::None)),
            ("none", "", Kind::Gauge, point(PointValue::None)),
            ("unspecified", "", unspecified, point(PointValue::Number(1.0))),
            ("good", "", Kind::Gauge, point(PointValue::Number(1.0))),
        ]);
        assert_eq!((told.points, told.points_refused, taken.batch.samples.len()), (6, 5, 1));
        let text = taken.refusals.to_string();
        for part in ["\"crowded\"", "\"odd\"", "exponential histograms are not taken", "temporality"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn the_resource_wins_and_the_end_of_a_value_is_a_staleness_marker() {
        let mut one = point(PointValue::Number(1.0));
        one.attributes = attributes(&[("pod", "other"), ("le", "x"), ("k8s.container.name", "app")]);
        let ended = Point { no_recorded_value: true, ..point(PointValue::None) };
        let (taken, _) = translate(&[("g", "", Kind::Gauge, one), ("g", "", Kind::Gauge, ended)]);
        let labels = taken.batch.series[0].to_string();
        for part in ["exported_pod=\"other\"", "exported_le=\"x\"", "container=\"app\"", "pod=\"p\""] {
            assert!(labels.contains(part), "{labels}");
        }
        assert_eq!(taken.batch.samples[1].value.to_bits(), STALENESS_MARKER_BITS);
    }
}
