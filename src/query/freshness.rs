//! How old a latest value may be, and what happens when none is fresh enough: rules by metric.
//!
//! A rule names metrics, and may name namespaces and resources, each with `*` for any run of characters.
//! The first rule that fits decides; what it leaves out, and metrics without a rule, go by the default
//! freshness. A sample is
//!
//! ```text
//!   age ≤ freshness            fresh: served
//!   age ≤ freshness + hold     held:  served, and marked as held
//!   older                      stale: left out, as if there was none
//! ```
//!
//! Holding is for outages of whoever writes: the autoscaler then goes on with the last value for a
//! capped time, in place of doing nothing. It is off unless a rule turns it on.

use crate::time::whole_ms;
use std::time::Duration;

/// A name in which `*` stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Of its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Fits every name.
    #[must_use]
    pub fn any() -> Self {
        Self::new("*")
    }

    /// Whether it fits a name.
    #[must_use]
    pub fn fits(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// How latest values of the metrics that it fits are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricRule {
    /// Which metrics.
    pub metric: Pattern,
    /// In which namespaces; objects of the whole cluster have the empty one.
    pub namespace: Pattern,
    /// Of which resources, as discovery names them: `pods`, `deployments.apps`.
    pub resource: Pattern,
    /// How old a sample may be; `None`: the default.
    pub freshness: Option<Duration>,
    /// For how long past that the last value is held; `None`: not at all.
    pub hold: Option<Duration>,
    /// The series are counters: answer their rate a second over this window.
    pub rate_window: Option<Duration>,
}

/// What applies to one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatestPolicy {
    /// How old a sample may be, in milliseconds.
    pub freshness_ms: i64,
    /// For how long past that it is held, in milliseconds.
    pub hold_ms: i64,
    /// The window over which a counter's rate is answered.
    pub rate_window: Option<Duration>,
}

impl LatestPolicy {
    /// No sample older than this is served.
    #[must_use]
    pub fn not_before_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.freshness_ms).saturating_sub(self.hold_ms)
    }

    /// Whether a served sample of this time is only held.
    #[must_use]
    pub fn is_held(&self, timestamp_ms: i64, now_ms: i64) -> bool {
        timestamp_ms < now_ms.saturating_sub(self.freshness_ms)
    }
}

/// All rules.
#[derive(Clone, Copy, Debug)]
pub struct Policies<'a> {
    /// In the order in which they are tried.
    pub rules: &'a [MetricRule],
    /// How old a sample may be where no rule says so.
    pub freshness: Duration,
}

impl Policies<'_> {
    /// What applies to a metric of a resource in a namespace (empty: none).
    #[must_use]
    pub fn of(&self, metric: &str, namespace: &str, resource: &str) -> LatestPolicy {
        let fits = |rule: &&MetricRule| {
            rule.metric.fits(metric) && rule.namespace.fits(namespace) && rule.resource.fits(resource)
        };
        self.policy(self.rules.iter().find(fits))
    }

    /// The oldest sample that any metric may be answered with.
    #[must_use]
    pub fn not_before_ms(&self, now_ms: i64) -> i64 {
        let all = self.rules.iter().map(Some).chain([None]);
        all.map(|rule| self.policy(rule).not_before_ms(now_ms)).min().unwrap_or(now_ms)
    }

    fn policy(&self, rule: Option<&MetricRule>) -> LatestPolicy {
        LatestPolicy {
            freshness_ms: whole_ms(rule.and_then(|rule| rule.freshness).unwrap_or(self.freshness)),
            hold_ms: rule.and_then(|rule| rule.hold).map_or(0, whole_ms),
            rate_window: rule.and_then(|rule| rule.rate_window),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, fitting, others) in [
            ("cpu", &["cpu"][..], &["", "cpu2", "xcpu"][..]),
            ("*", &["", "cpu"], &[]),
            ("queue_*", &["queue_", "queue_length"], &["queue", "xqueue_"]),
            ("*_total", &["_total", "a_total"], &["total", "a_total_b"]),
            ("a*b*c", &["abc", "a1b2c", "abbc"], &["ab", "ac", "acb", "bac"]),
            ("a*a", &["aa", "aba"], &["a"]),
            ("", &[""], &["a"]),
        ] {
            for name in fitting {
                assert!(Pattern::new(pattern).fits(name), "{pattern} {name}");
            }
            for name in others {
                assert!(!Pattern::new(pattern).fits(name), "{pattern} {name}");
            }
        }
    }

    fn rule(metric: &str, namespace: &str, freshness_s: u64) -> MetricRule {
        MetricRule {
            metric: Pattern::new(metric),
            namespace: Pattern::new(namespace),
            resource: Pattern::any(),
            freshness: Some(Duration::from_secs(freshness_s)),
            hold: None,
            rate_window: None,
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_the_default_covers_the_rest() {
        let held = MetricRule { freshness: None, hold: Some(Duration::from_secs(60)), ..rule("h", "*", 0) };
        let rules = [rule("queue_*", "shop", 10), rule("queue_*", "*", 20), held];
        let policies = Policies { rules: &rules, freshness: Duration::from_secs(300) };
        let freshness_ms = |metric, namespace| policies.of(metric, namespace, "pods").freshness_ms;
        assert_eq!(freshness_ms("queue_length", "shop"), 10_000);
        assert_eq!(freshness_ms("queue_length", "web"), 20_000);
        assert_eq!(freshness_ms("cpu", "web"), 300_000);
        let policy = policies.of("h", "", "nodes");
        assert_eq!((policy.freshness_ms, policy.hold_ms), (300_000, 60_000));
        assert_eq!(policy.not_before_ms(1_000_000), 640_000);
        assert!(policy.is_held(699_999, 1_000_000) && !policy.is_held(700_000, 1_000_000));
        assert_eq!(policies.not_before_ms(1_000_000), 640_000);
    }

    proptest! {
        #[test]
        fn a_pattern_fits_what_its_stars_are_replaced_by(parts in proptest::collection::vec("[a-c]{0,3}", 1..5)) {
            prop_assert!(Pattern::new(parts.join("*")).fits(&parts.concat()));
            prop_assert!(Pattern::new(parts.join("*")).fits(&parts.join("xyz")));
        }
    }
}
