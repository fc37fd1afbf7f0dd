//! An engine that runs already, in whatever way, and is named by variables: those that Debian has no package of.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]

use lookback::prometheus_client::{Call, PrometheusClient, ServerSettings, ServerUrl, parse_header};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Which engines are known, so that it can be said what they promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Cortex, with `out_of_order_time_window: 1h`, UTF-8 names and tenants.
    Cortex,
    /// Thanos, a Receive and a Query before it, with `--tsdb.out-of-order.time-window=1h`, `--query.enforce-tenancy`,
    /// and the labels that Receive adds as replica labels.
    Thanos,
    /// VictoriaMetrics' cluster, with `-dedup.minScrapeInterval=1ms` and a `-retentionPeriod` of more than 50 days.
    VictoriaMetricsCluster,
}

/// Where in URLs the tenant stands. Where it does not, a header names it.
const TENANT: &str = "{tenant}";
/// After how long the cluster of VictoriaMetrics has passed on to its storage nodes what it acknowledged: it gathers for
/// 200 ms.
const PASSED_ON_AFTER: Duration = Duration::from_millis(700);
/// After how long Thanos' Query knows of a tenant that is new: it looks for them every 5 s.
const KNOWN_AFTER: Duration = Duration::from_secs(12);

/// An engine, and a tenant there that nobody has used.
pub struct NamedEngine {
    pub kind: Kind,
    /// Whole.
    pub write_url: String,
    /// Without `/api/v1`.
    pub query_url: String,
    /// The tenant, where a header has to name it.
    tenant: Option<String>,
    flush: Flush,
}

/// By which an engine is made to show what it has taken.
#[derive(Clone)]
pub struct Flush {
    clients: Vec<PrometheusClient>,
    wait: Duration,
    /// Before the first one, beside that.
    wait_first: Arc<Mutex<Duration>>,
}

impl Flush {
    /// Calls that take no time to wait for.
    pub fn at(servers: &[String]) -> Self {
        let client = |url: &String| {
            let url: ServerUrl = url.parse().expect("the URL of a server");
            PrometheusClient::new(ServerSettings::new(url)).expect("a client")
        };
        let (clients, wait_first) = (servers.iter().map(client).collect(), Arc::default());
        Self { clients, wait: Duration::ZERO, wait_first }
    }

    /// What was acknowledged before is shown after this.
    pub async fn flush(&self) {
        let first = std::mem::take(&mut *self.wait_first.lock().expect("not poisoned"));
        tokio::time::sleep(first + self.wait).await;
        for client in &self.clients {
            let flushed = client.stream(Call::get("/internal/force_flush"), Duration::from_secs(30)).await;
            flushed.expect("an answer");
        }
    }
}

impl NamedEngine {
    /// `None`: the variables name none, which is told.
    ///
    /// # Panics
    /// Where a variable is missing or makes no sense.
    #[must_use]
    pub fn from_variables() -> Option<Self> {
        let Ok(kind) = std::env::var("LOOKBACK_ENGINE") else {
            eprintln!("SKIPPED: LOOKBACK_ENGINE names no engine that runs already (tests/README.md)");
            return None;
        };
        let kind = match kind.as_str() {
            "cortex" => Kind::Cortex,
            "thanos" => Kind::Thanos,
            "victoria-metrics-cluster" => Kind::VictoriaMetricsCluster,
            other => panic!("LOOKBACK_ENGINE={other}: use cortex, thanos or victoria-metrics-cluster"),
        };
        let variable = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("LOOKBACK_ENGINE needs {name} (tests/README.md)"))
        };
        let (write, query) = (variable("LOOKBACK_ENGINE_WRITE_URL"), variable("LOOKBACK_ENGINE_QUERY_URL"));
        let servers = std::env::var("LOOKBACK_ENGINE_FLUSH_URLS").unwrap_or_default();
        let servers: Vec<String> =
            servers.split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect();
        let tenant = (uuid::Uuid::new_v4().as_u128() as u32).to_string();
        let is_in_urls = write.contains(TENANT);
        assert_eq!(is_in_urls, query.contains(TENANT), "{TENANT} stands in both URLs, or in none");
        let mut flush = Flush::at(&servers);
        match kind {
            Kind::Cortex => {}
            Kind::Thanos => flush.wait_first = Arc::new(Mutex::new(KNOWN_AFTER)),
            Kind::VictoriaMetricsCluster => flush.wait = PASSED_ON_AFTER,
        }
        Some(Self {
            kind,
            write_url: write.replace(TENANT, &tenant),
            query_url: query.replace(TENANT, &tenant),
            tenant: (!is_in_urls).then_some(tenant),
            flush,
        })
    }

    /// The engine at one of its URLs.
    #[must_use]
    pub fn server(&self, url: &str) -> ServerSettings {
        let mut server = ServerSettings::new(url.parse().expect("a URL"));
        let header = self.tenant.as_ref().map(|tenant| format!("{}: {tenant}", self.tenant_header()));
        server.headers.extend(header.map(|header| parse_header(&header).expect("a header")));
        server
    }

    /// How it is made to show what it has taken.
    #[must_use]
    pub fn flush(&self) -> Flush {
        self.flush.clone()
    }

    /// The flags by which a server has it as its store.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let mut flags = vec![
            "--store=prometheus".to_owned(),
            format!("--store-write-url={}", self.write_url),
            format!("--store-query-url={}", self.query_url),
        ];
        let flag = |tenant: &String| match self.kind {
            Kind::Thanos => format!("--store-header={}: {tenant}", self.tenant_header()),
            Kind::Cortex | Kind::VictoriaMetricsCluster => format!("--store-tenant={tenant}"),
        };
        flags.extend(self.tenant.as_ref().map(flag));
        flags
    }

    fn tenant_header(&self) -> &'static str {
        match self.kind {
            Kind::Thanos => "THANOS-TENANT",
            Kind::Cortex | Kind::VictoriaMetricsCluster => "X-Scope-OrgID",
        }
    }
}
