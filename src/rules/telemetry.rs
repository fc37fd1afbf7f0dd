//! What `/metrics` tells of rules.

use super::relist::Status;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Longest reason in a label, in characters.
const REASON_CHARS_MAX: usize = 200;

/// How rules stand.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// A rule that is disabled.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DisabledLabels {
    rule: String,
    line: u64,
    reason: String,
}

/// Metrics about rules.
#[derive(Debug, Default)]
pub struct RulesMetrics {
    rules: Family<StateLabels, Gauge>,
    disabled: Family<DisabledLabels, Gauge>,
    in_force: Gauge,
    listed: Gauge,
    relist_failures: Counter,
}

impl RulesMetrics {
    /// Registered.
    #[must_use]
    pub fn registered(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("rules", "Rules of --config, by state: active or disabled", metrics.rules.clone());
        registry.register(
            "rule_disabled",
            "1 for each rule of --config that can't be used, with the reason",
            metrics.disabled.clone(),
        );
        registry.register(
            "rules_in_force",
            "1 where the file of --config holds as it is, 0 where it can't be read and older rules hold, or there is none",
            metrics.in_force.clone(),
        );
        registry.register("rules_metrics", "Metrics that the rules name at present", metrics.listed.clone());
        registry.register(
            "rules_relist_failures",
            "Lists of series for a rule that failed: what was known of them stays",
            metrics.relist_failures.clone(),
        );
        metrics
    }

    /// Tells how the rules of a file stand.
    pub fn hold(&self, statuses: &[Status]) {
        self.in_force.set(1);
        self.disabled.clear();
        let mut disabled = 0;
        for Status { name, place, outcome } in statuses {
            let Err(reason) = outcome else { continue };
            disabled += 1;
            let reason = reason.chars().take(REASON_CHARS_MAX).collect();
            let labels = DisabledLabels { rule: name.clone(), line: place.line, reason };
            self.disabled.get_or_create(&labels).set(1);
        }
        let set = |state, count: usize| {
            self.rules.get_or_create(&StateLabels { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set("active", statuses.len() - disabled);
        set("disabled", disabled);
    }

    /// Tells that the file can't be used.
    pub fn broken(&self) {
        self.in_force.set(0);
    }

    /// Tells of a relist.
    pub fn relisted(&self, metrics: usize, failures: usize) {
        self.listed.set(i64::try_from(metrics).unwrap_or(i64::MAX));
        self.relist_failures.inc_by(failures as u64);
    }
}
