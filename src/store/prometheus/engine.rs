//! Reads of the engine: raw samples, series by series, within a scope.

use crate::prometheus_client::{Answer, At, Call, ClientError, PrometheusClient, RawMethod, RawPart};
use crate::store::{Scope, StoreError};
use lookback_storage::{
    Error, Labels, METRIC_NAME_LABEL, MatchOp, Matcher, Pick, Sample, sort_and_deduplicate,
};
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

/// Times that engines understand: from 1970 to 2255.
const TIME_MS: std::ops::RangeInclusive<i64> = 0..=9_000_000_000_000;

/// Most bytes that are read of an engine's flags.
const FLAGS_BYTES_MAX: usize = 256 << 10;

/// For so long a way of reading holds that was found while the engine may not have been well.
const UNSURE_FOR: Duration = Duration::from_secs(30);

/// The engine's side of reading.
pub(super) struct Engine {
    client: PrometheusClient,
    /// Found out at the first read that is answered.
    method: OnceCell<RawMethod>,
    /// Until when it is asked by queries, since it answered nothing else. Held while that is found out.
    queried_until: Mutex<Option<Instant>>,
    timeout: Duration,
}

/// What is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct EngineRead<'a> {
    pub(super) scope: &'a Scope,
    pub(super) matchers: &'a [Matcher],
    /// The first and the last time, Unix milliseconds.
    pub(super) within_ms: (i64, i64),
    /// All samples of a series, or its newest.
    pub(super) pick: Pick,
    /// Most samples that are read in all, whatever is picked of them.
    pub(super) samples_max: usize,
    pub(super) timeout: Duration,
}

impl Engine {
    pub(super) fn new(client: PrometheusClient, timeout: Duration) -> Self {
        Self { client, method: OnceCell::new(), queried_until: Mutex::new(None), timeout }
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
        if let Some(method) = self.method.get() {
            return Ok(*method);
        }
        let mut queried_until = self.queried_until.lock().await;
        if let Some(method) = self.method.get() {
            return Ok(*method);
        }
        if queried_until.is_some_and(|until| Instant::now() < until) {
            return Ok(RawMethod::Query);
        }
        let (method, is_sure) = self.probe(timeout).await?;
        tracing::info!(engine = self.client.server(), ?method, is_sure, "how samples are read");
        if is_sure {
            // Nobody else sets it meanwhile.
            let _ = self.method.set(method);
        } else {
            *queried_until = Some(Instant::now() + UNSURE_FOR);
        }
        Ok(method)
    }

    /// The first way that is answered, and whether that is for good: Cortex and the cluster of VictoriaMetrics say
    /// 400 to what they know as well, while a part of them is away.
    async fn probe(&self, timeout: Duration) -> Result<(RawMethod, bool), ClientError> {
        let nothing = [Matcher::equal(METRIC_NAME_LABEL, "lookback_probe")];
        let mut is_sure = true;
        for method in [RawMethod::RemoteRead, RawMethod::Native, RawMethod::Export] {
            if method == RawMethod::Native && !self.gives_all_blocks(timeout).await? {
                continue;
            }
            let break_off = |_| ControlFlow::Break(());
            let probed = self.client.raw(method, &nothing, (0, 1), Pick::All, timeout, break_off);
            match probed.await {
                Ok(_) => return Ok((method, true)),
                Err(error) if is_elsewhere(&error) => is_sure &= !may_be_for_now(&error),
                Err(error) => return Err(error),
            }
        }
        Ok((RawMethod::Query, is_sure))
    }

    /// Whether this is a VictoriaMetrics whose blocks hold no more than its answers: one that deduplicates over a time
    /// does so in answers, and in blocks later or not at all. Where its flags are not shown, that is not known.
    async fn gives_all_blocks(&self, timeout: Duration) -> Result<bool, ClientError> {
        let mut answer = match self.client.stream(Call { at: At::Root, ..Call::get("/flags") }, timeout).await
        {
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

    /// Hands `visit` each matching series with samples in the time: in time order, one a time.
    /// More than `samples_max` in all is [`StoreError::TooLarge`]. Series come in label order where the
    /// method has it so.
    pub(super) async fn each(
        &self,
        read: EngineRead<'_>,
        visit: impl FnMut(Labels, Vec<Sample>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let EngineRead { scope, matchers, within_ms: (start_ms, end_ms), pick, samples_max, timeout } = read;
        if end_ms < start_ms || end_ms < *TIME_MS.start() || start_ms > *TIME_MS.end() {
            return Ok(());
        }
        let asked_timeout = timeout;
        let timeout = self.timeout(timeout);
        let deadline = Instant::now() + timeout;
        let method = self.method(timeout).await.map_err(|error| failed(error, asked_timeout))?;
        let timeout = deadline.saturating_duration_since(Instant::now());
        let asked = within(scope, matchers);
        let (start_ms, end_ms) = (start_ms.max(*TIME_MS.start()), end_ms.min(*TIME_MS.end()));
        let mut gathered = Gathered { pick, left: samples_max, is_too_large: false, open: None, visit };
        let read = self.client.raw(method, &asked, (start_ms, end_ms), pick, timeout, |mut part| {
            // The engine was asked for these only; that it kept to it is not left to trust.
            let is_asked = scope.allows_series(&part.labels)
                && matchers.iter().all(|matcher| matcher.matches(&part.labels));
            part.samples.retain(|sample| (start_ms..=end_ms).contains(&sample.timestamp_ms));
            if !is_asked || part.samples.is_empty() {
                return ControlFlow::Continue(());
            }
            gathered.take(part)
        });
        let read = read.await.map_err(|error| failed(error, asked_timeout));
        if !gathered.is_too_large && read.is_ok() {
            // Whether it breaks off makes no difference any more.
            let _ = gathered.close();
        }
        if gathered.is_too_large {
            return Err(StoreError::TooLarge(Error::TooManySamples { samples_max }.to_string()));
        }
        let left_out = read?;
        if left_out.histograms > 0 {
            tracing::debug!(left_out.histograms, "native histograms of the engine are left out");
        }
        Ok(())
    }
}

/// Puts the parts of a series together and hands it out, within a bound of samples. What replicas hold of one series
/// counts once.
struct Gathered<V> {
    pick: Pick,
    /// How many more samples may be read.
    left: usize,
    is_too_large: bool,
    open: Option<RawPart>,
    visit: V,
}

impl<V: FnMut(Labels, Vec<Sample>) -> ControlFlow<()>> Gathered<V> {
    fn take(&mut self, mut part: RawPart) -> ControlFlow<()> {
        if self.pick == Pick::Newest {
            self.spend(part.samples.len())?;
            keep_newest(&mut part.samples);
        }
        match &mut self.open {
            Some(open) if open.labels == part.labels => open.samples.append(&mut part.samples),
            _ => {
                self.close()?;
                self.open = Some(part);
            }
        }
        let Some(open) = &mut self.open else { return ControlFlow::Continue(()) };
        match self.pick {
            Pick::Newest => keep_newest(&mut open.samples),
            _ if open.samples.len() > self.left => {
                sort_and_deduplicate(&mut open.samples);
                self.is_too_large = open.samples.len() > self.left;
            }
            _ => {}
        }
        if self.is_too_large { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn close(&mut self) -> ControlFlow<()> {
        let Some(RawPart { labels, mut samples }) = self.open.take() else {
            return ControlFlow::Continue(());
        };
        sort_and_deduplicate(&mut samples);
        if self.pick != Pick::Newest {
            self.spend(samples.len())?;
        }
        if samples.is_empty() { ControlFlow::Continue(()) } else { (self.visit)(labels, samples) }
    }

    fn spend(&mut self, samples: usize) -> ControlFlow<()> {
        match self.left.checked_sub(samples) {
            Some(left) => {
                self.left = left;
                ControlFlow::Continue(())
            }
            None => {
                self.is_too_large = true;
                ControlFlow::Break(())
            }
        }
    }
}

/// Of samples in any order the newest; of several at its time the largest.
fn keep_newest(samples: &mut Vec<Sample>) {
    if samples.len() > 1 {
        *samples = samples.iter().copied().max_by(Sample::total_cmp).into_iter().collect();
    }
}

/// Whether these flags are VictoriaMetrics' (or of the part of its cluster that is asked), and it deduplicates nothing but the same times.
fn shows_all_blocks(flags: &str) -> bool {
    let of = |name: &str| {
        let line = flags.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"'))
    };
    (of("-storageDataPath").is_some() || of("-storageNode").is_some())
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

/// Whether a refusal that sounds as if the engine did not know this way of asking may have other reasons.
fn may_be_for_now(error: &ClientError) -> bool {
    match error {
        ClientError::Refused { status: 400 | 422, reason, .. } => !reason.contains("unsupported path"),
        _ => false,
    }
}

/// Whether an engine refuses a question for a limit of its own: by the words of Cortex and VictoriaMetrics, which
/// say 400 to that.
fn is_beyond_a_limit(status: u16, reason: &str) -> bool {
    status == 422 || (status == 400 && (reason.contains("limit") || reason.contains("exceeds")))
}

/// What an answer holds, if nothing of it is missing.
pub(super) fn complete<T>(
    answer: Result<Answer<T>, ClientError>,
    timeout: Duration,
) -> Result<T, StoreError> {
    match answer.map_err(|error| failed(error, timeout))? {
        Answer { is_partial: true, warnings, .. } => Err(StoreError::Unavailable(warnings.join("; "))),
        answer => Ok(answer.data),
    }
}

/// A failure of the engine as one of the store.
pub(super) fn failed(error: ClientError, timeout: Duration) -> StoreError {
    match &error {
        ClientError::Timeout { after, .. } if *after >= timeout => StoreError::DeadlineExceeded(timeout),
        ClientError::TooLarge { .. } => StoreError::BeyondEngine(error.to_string()),
        ClientError::Refused { status, reason, .. } if is_beyond_a_limit(*status, reason) => {
            StoreError::BeyondEngine(error.to_string())
        }
        _ => StoreError::Unavailable(error.to_string()),
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
        let of_cluster = "-storageNode=\"storage-0:8401\"\n";
        assert!(shows_all_blocks(of_cluster));
        assert!(!shows_all_blocks(&format!("{of_cluster}-dedup.minScrapeInterval=\"30s\"\n")));
    }

    #[test]
    fn a_refusal_of_a_question_is_told_apart_by_its_words() {
        let refused = |status, reason: &str| ClientError::Refused {
            server: "http://x".to_owned(),
            status,
            kind: None,
            reason: reason.to_owned(),
            retry_after: None,
        };
        for (status, reason) in [
            (422, "query processing would load too many samples into memory"),
            (400, "the query hit the max number of series limit (limit: 5 series)"),
            (400, "the number of matching timeseries exceeds 300000"),
        ] {
            let error = failed(refused(status, reason), Duration::ZERO);
            assert!(matches!(&error, StoreError::BeyondEngine(told) if told.contains(reason)), "{error}");
        }
        for (status, reason) in
            [(503, "limit"), (400, "at least 1 healthy replica required, could only find 0")]
        {
            let error = failed(refused(status, reason), Duration::ZERO);
            assert!(matches!(&error, StoreError::Unavailable(told) if told.contains(reason)), "{error}");
        }
        assert!(may_be_for_now(&refused(400, "at least 1 healthy replica required")));
        assert!(!may_be_for_now(&refused(400, "unsupported path requested: \"/api/v1/read\"")));
        assert!(!may_be_for_now(&refused(404, "404 page not found")));
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
