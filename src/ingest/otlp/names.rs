//! Names and units of OpenTelemetry in Prometheus' alphabet and words.
//!
//! By "Metric Metadata" and "Attributes" of the OpenTelemetry specification, "Prometheus and OpenMetrics
//! Compatibility": what is not a letter, digit, `_` or `:` becomes `_`, several of them one; units are
//! written out and appended unless the name has them; monotonic sums end in `_total`, gauges of unit `1`
//! in `_ratio`. Unit codes are UCUM's.

use super::Kind;

/// What a unit is called behind a name.
const UNITS: [(&str, &str); 32] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("kBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("B", "bytes"),
    ("KB", "kilobytes"),
    ("MB", "megabytes"),
    ("GB", "gigabytes"),
    ("TB", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
    ("1", ""),
];

/// What a unit of time is called behind `per`.
const PER_UNITS: [(&str, &str); 7] = [
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

/// The name of the metric family: `http.server.duration` in `ms` → `http_server_duration_milliseconds`.
#[must_use]
pub fn metric_name(name: &str, unit: &str, kind: Kind) -> String {
    let mut tokens: Vec<&str> = name.split(is_no_name_letter).filter(|token| !token.is_empty()).collect();
    let (main, per) = unit_words(unit);
    let (main, per) = (main.as_str(), per.as_str());
    if !main.is_empty() && !tokens.contains(&main) {
        tokens.push(main);
    }
    if !per.is_empty() && !tokens.contains(&per) {
        tokens.extend(["per", per]);
    }
    let suffix = match kind {
        Kind::Sum { monotonic: true, .. } => "total",
        Kind::Gauge if unit.trim() == "1" => "ratio",
        _ => "",
    };
    if !suffix.is_empty() {
        tokens.retain(|token| *token != suffix);
        tokens.push(suffix);
    }
    let name = tokens.join("_");
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// A unit in words, without its rate: `By/s` → `bytes`.
#[must_use]
pub fn unit_in_words(unit: &str) -> String {
    unit_words(unit).0
}

/// What is measured, and per what: `By/s` → `bytes`, `second`. Annotations in braces say nothing here.
fn unit_words(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let word = |part: &str, table: &[(&str, &str)]| {
        let part = part.trim();
        if part.contains(['{', '}']) {
            return String::new();
        }
        match table.iter().find(|(code, _)| *code == part) {
            Some((_, word)) => (*word).to_owned(),
            None => part.split(is_no_name_letter).filter(|p| !p.is_empty()).collect::<Vec<_>>().join("_"),
        }
    };
    (word(main, &UNITS), word(per, &PER_UNITS))
}

fn is_no_name_letter(c: char) -> bool {
    !(c.is_ascii_alphanumeric() || c == ':')
}

/// The name of a label: `http.method` → `http_method`, `2xx` → `key_2xx`.
#[must_use]
pub fn label_name(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for c in key.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if c != '_' || !name.ends_with('_') {
            name.push(c);
        }
    }
    match name.chars().next() {
        Some(c) if c.is_ascii_digit() => format!("key_{name}"),
        Some('_') => format!("key{name}"),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Temporality;
    use super::*;
    use proptest::prelude::*;

    const COUNTER: Kind = Kind::Sum { monotonic: true, temporality: Temporality::Cumulative };
    const UP_DOWN: Kind = Kind::Sum { monotonic: false, temporality: Temporality::Cumulative };

    #[test]
    fn names_are_those_of_the_specification() {
        for (name, unit, kind, expected) in [
            ("http.server.request.duration", "s", Kind::Summary, "http_server_request_duration_seconds"),
            ("system.network.io", "By", COUNTER, "system_network_io_bytes_total"),
            ("requests_total", "1", COUNTER, "requests_total"),
            ("total.requests", "{request}", COUNTER, "requests_total"),
            ("system.cpu.utilization", "1", Kind::Gauge, "system_cpu_utilization_ratio"),
            ("disk.rate", "By/s", Kind::Gauge, "disk_rate_bytes_per_second"),
            ("queue.length", "{item}", UP_DOWN, "queue_length"),
            ("seconds.waited", "s", UP_DOWN, "seconds_waited"),
            ("load", "%", Kind::Gauge, "load_percent"),
            ("2xx.answers", "", UP_DOWN, "_2xx_answers"),
            ("a...b--c_", "", UP_DOWN, "a_b_c"),
            ("job:rate", "", Kind::Gauge, "job:rate"),
            ("speed", "m/s", Kind::Gauge, "speed_meters_per_second"),
            ("mass", "kg", Kind::Gauge, "mass_kg"),
            ("", "s", Kind::Gauge, "seconds"),
            ("ünï", "", Kind::Gauge, "n"),
        ] {
            assert_eq!(metric_name(name, unit, kind), expected, "{name} {unit}");
        }
        assert_eq!(unit_in_words("By/s"), "bytes");
    }

    #[test]
    fn labels_are_those_of_the_specification() {
        for (key, expected) in [
            ("http.method", "http_method"),
            ("a.-.b", "a_b"),
            ("2xx", "key_2xx"),
            ("_x", "key_x"),
            ("__name__", "key_name_"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(label_name(key), expected, "{key}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_of_the_alphabet(name in ".{0,30}", unit in ".{0,12}") {
            let name = metric_name(&name, &unit, COUNTER);
            prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':'), "{}", name);
            let label = label_name(&name);
            prop_assert!(label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{}", label);
        }
    }
}
