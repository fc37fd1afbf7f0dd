//! Reads of the engine: raw samples, series by series, within a scope.

use crate::prometheus_client::{Call, ClientError, PrometheusClient, RawMethod, RawPart};
use crate::store::{Scope, StoreError};
use lookback_storage::{Error, Labels, METRIC_NAME_LABEL, MatchOp, Matcher, Sample, sort_and_deduplicate};
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::sync::OnceCell;

/// Times that engines understand: from 1970 to 2255.
const TIME_MS: std::ops::RangeInclusive<i64> = 0..=9_000_000_000_000;

/// Most bytes that are read of an engine's flags.
const FLAGS_BYTES_MAX: usize = 256 << 10;

/// The engine's side of reading.
pub(super) struct Engine {
    client: PrometheusClient,
    /// Found out at the first read that is answered.
    method: OnceCell<RawMethod>,
    timeout: Duration,
}

impl Engine {
    pub(super) fn new(client: PrometheusClient, timeout: Duration) -> Self {
        Self { client, method: OnceCell::new(), timeout }
    }

    pub(super) fn client(&self) -> &PrometheusClient {
        &self.client
    }

    /// How long a call may take that has so long.
    pub(super) fn timeout(&self, of_call: Duration) -> Duration {
        self.timeout.min(of_call)
    }

    /// How raw samples are read there: what answers.
    pub(super) async fn method(&self, timeout: Duration) -> Result<RawMethod, ClientError> {
        let found = self.method.get_or_try_init(|| async {
            let nothing = [Matcher::equal(METRIC_NAME_LABEL, "lookback_probe")];
            for method in [RawMethod::RemoteRead, RawMethod::Native, RawMethod::Export] {
                if method == RawMethod::Native && !self.gives_all_blocks(timeout).await? {
                    continue;
                }
                let probed = self.client.raw(method, &nothing, (0, 1), timeout, |_| ControlFlow::Break(()));
                match probed.await {
                    Ok(_) => {
                        tracing::info!(engine = self.client.server(), ?method, "how samples are read");
                        return Ok(method);
                    }
                    Err(error) if is_elsewhere(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            tracing::info!(engine = self.client.server(), method = ?RawMethod::Query, "how samples are read");
            Ok(RawMethod::Query)
        });
        found.await.copied()
    }

    /// Whether this is a VictoriaMetrics whose blocks hold no more than its answers: one that deduplicates over a time
    /// does so in answers, and in blocks later or not at all. Where its flags are not shown, that is not known.
    async fn gives_all_blocks(&self, timeout: Duration) -> Result<bool, ClientError> {
        let mut answer = match self.client.stream(Call::get("/flags"), timeout).await {
            Ok(answer) => answer,
            Err(error) if error.is_transient() => return Err(error),
            Err(_) => return Ok(false),
        };
        let mut flags = Vec::new();
        while let Some(bytes) = answer.next().await? {
            flags.extend_from_slice(&bytes);
            if flags.len() > FLAGS_BYTES_MAX {
                return Ok(false);
            }
        }
        Ok(shows_all_blocks(&String::from_utf8_lossy(&flags)))
    }

    /// Hands `visit` each matching series with samples in `[start_ms, end_ms]`: in time order, one a time.
    /// More than `samples_max` in all is [`StoreError::TooLarge`]. Series come in label order where the
    /// method has it so.
    pub(super) async fn each(
        &self,
        scope: &Scope,
        matchers: &[Matcher],
        (start_ms, end_ms): (i64, i64),
        samples_max: usize,
        timeout: Duration,
        mut visit: impl FnMut(Labels, Vec<Sample>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        if end_ms < start_ms || end_ms < *TIME_MS.start() || start_ms > *TIME_MS.end() {
            return Ok(());
        }
        let asked_timeout = timeout;
        let timeout = self.timeout(timeout);
        let deadline = tokio::time::Instant::now() + timeout;
        let method = self.method(timeout).await.map_err(|error| failed(error, asked_timeout))?;
        let timeout = deadline.saturating_duration_since(tokio::time::Instant::now());
        let asked = within(scope, matchers);
        let (start_ms, end_ms) = (start_ms.max(*TIME_MS.start()), end_ms.min(*TIME_MS.end()));
        let (mut open, mut left, mut is_too_large): (Option<RawPart>, _, _) = (None, samples_max, false);
        let mut close = |part: RawPart| {
            let RawPart { labels, mut samples } = part;
            sort_and_deduplicate(&mut samples);
            if samples.is_empty() { ControlFlow::Continue(()) } else { visit(labels, samples) }
        };
        let read = self.client.raw(method, &asked, (start_ms, end_ms), timeout, |mut part| {
            // The engine was asked for these only; that it kept to it is not left to trust.
            let is_asked = scope.allows(part.labels.get("namespace"))
                && matchers.iter().all(|matcher| matcher.matches(&part.labels));
            part.samples.retain(|sample| (start_ms..=end_ms).contains(&sample.timestamp_ms));
            if !is_asked || part.samples.is_empty() {
                return ControlFlow::Continue(());
            }
            let Some(rest) = left.checked_sub(part.samples.len()) else {
                is_too_large = true;
                return ControlFlow::Break(());
            };
            left = rest;
            match &mut open {
                Some(open) if open.labels == part.labels => {
                    open.samples.append(&mut part.samples);
                    ControlFlow::Continue(())
                }
                _ => open.replace(part).map_or(ControlFlow::Continue(()), &mut close),
            }
        });
        let read = read.await.map_err(|error| failed(error, asked_timeout));
        if is_too_large {
            return Err(StoreError::TooLarge(Error::TooManySamples { samples_max }.to_string()));
        }
        let left_out = read?;
        if left_out.histograms > 0 {
            tracing::debug!(left_out.histograms, "native histograms of the engine are left out");
        }
        // Whether it breaks off makes no difference any more.
        let _ = open.map(close);
        Ok(())
    }
}

/// Whether these flags are VictoriaMetrics', and it deduplicates nothing but the same times.
fn shows_all_blocks(flags: &str) -> bool {
    let of = |name: &str| {
        let line = flags.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"'))
    };
    of("-storageDataPath").is_some()
        && matches!(of("-dedup.minScrapeInterval"), None | Some("0" | "0s" | "1ms"))
}

/// The matchers, and those that keep to the scope. One of them never fits an empty set: engines want that.
pub(super) fn within(scope: &Scope, matchers: &[Matcher]) -> Vec<Matcher> {
    let mut all = Vec::with_capacity(matchers.len() + 2);
    let is_named =
        |m: &Matcher| m.name() == METRIC_NAME_LABEL && m.op() == MatchOp::Equal && !m.value().is_empty();
    if !matchers.iter().any(is_named) {
        all.push(Matcher::not_equal(METRIC_NAME_LABEL, ""));
    }
    all.extend_from_slice(matchers);
    if let Scope::Namespaces(namespaces) = scope {
        all.push(Matcher::one_of("namespace", namespaces.iter().map(String::as_str)));
    }
    all
}

/// Whether the engine does not know this way of asking.
fn is_elsewhere(error: &ClientError) -> bool {
    match error {
        ClientError::Refused { status, .. } => matches!(status, 400 | 404 | 405 | 415 | 422 | 501),
        ClientError::Malformed { .. } => true,
        _ => false,
    }
}

/// A failure of the engine as one of the store.
pub(super) fn failed(error: ClientError, timeout: Duration) -> StoreError {
    match error {
        ClientError::Timeout { after, .. } if after >= timeout => StoreError::DeadlineExceeded(timeout),
        ClientError::TooLarge { .. } => StoreError::TooLarge(error.to_string()),
        ClientError::Refused { status: 422, .. } => StoreError::TooLarge(error.to_string()),
        error => StoreError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    #[test]
    fn blocks_are_read_where_nothing_but_equal_times_is_deduplicated() {
        let path = "-httpListenAddr=\":8428\"\n-storageDataPath=\"/data\"\n";
        let with = |flag: &str| shows_all_blocks(&format!("-dedup.minScrapeInterval=\"{flag}\"\n{path}"));
        assert!(shows_all_blocks(path) && with("1ms") && with("0s"));
        assert!(!with("30s") && !with(""));
        assert!(!shows_all_blocks("<html>Prometheus</html>") && !shows_all_blocks(""));
    }

    #[test]
    fn what_is_asked_for_keeps_to_the_scope_and_always_names_something() {
        let text = |scope: &Scope, matchers: &[Matcher]| {
            crate::prometheus_client::selector(&within(scope, matchers))
        };
        let two = Scope::Namespaces(Arc::new(BTreeSet::from(["a".to_owned(), "b.c".to_owned()])));
        let none = Scope::Namespaces(Arc::default());
        assert_eq!(text(&Scope::All, &[]), r#"{__name__!=""}"#);
        assert_eq!(text(&Scope::All, &[Matcher::equal("__name__", "m")]), r#"{__name__="m"}"#);
        assert_eq!(text(&two, &[]), r#"{__name__!="",namespace=~"a|b\\.c"}"#);
        assert_eq!(
            text(&none, &[Matcher::equal("__name__", "m")]),
            r#"{__name__="m",namespace=~"[^\\s\\S]"}"#
        );
    }
}
