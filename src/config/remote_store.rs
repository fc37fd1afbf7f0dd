//! Flags of a Prometheus-compatible engine as the store.

use super::retention::{Retention, size};
use super::{ServeArgs, duration};
use crate::prometheus_client::{
    Credentials, ServerSettings, ServerUrl, SettingsError, TlsFiles, parse_header,
};
use crate::store::prometheus::RemoteSettings;
use axum::http::{HeaderName, HeaderValue};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// The header by which Mimir and Cortex tell tenants.
const TENANT_HEADER: HeaderName = HeaderName::from_static("x-scope-orgid");
/// Where remote write is, behind the URL of a server.
const WRITE_PATH: &str = "/api/v1/write";

/// What keeps the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// The engine that Lookback brings with it, in --data-dir.
    #[default]
    Embedded,
    /// A Prometheus-compatible engine, by --store-url.
    Prometheus,
}

/// Flags of a Prometheus-compatible engine, and how it is spoken to.
#[derive(Clone, Debug, Args)]
pub struct EngineArgs {
    /// The engine: remote write goes to URL/api/v1/write, questions to URL/api/v1/….
    #[arg(long, value_name = "URL", env = "LOOKBACK_STORE_URL")]
    pub store_url: Option<ServerUrl>,

    /// Where remote write goes instead, whole: http://receiver:19291/api/v1/receive.
    #[arg(long, value_name = "URL", env = "LOOKBACK_STORE_WRITE_URL")]
    pub store_write_url: Option<ServerUrl>,

    /// Where questions go instead, without /api/v1: http://mimir/prometheus.
    #[arg(long, value_name = "URL", env = "LOOKBACK_STORE_QUERY_URL")]
    pub store_query_url: Option<ServerUrl>,

    /// The tenant, sent as X-Scope-OrgID.
    #[arg(long, value_name = "NAME", env = "LOOKBACK_STORE_TENANT", value_parser = tenant)]
    pub store_tenant: Option<HeaderValue>,

    /// A header for each request, "Name: value"; can be given again.
    #[arg(long, value_name = "HEADER", env = "LOOKBACK_STORE_HEADER", value_parser = parse_header)]
    pub store_header: Vec<(HeaderName, HeaderValue)>,

    /// The CA of the engine, PEM [default: those that the system believes].
    #[arg(long, value_name = "FILE", env = "LOOKBACK_STORE_CA_FILE")]
    pub store_ca_file: Option<PathBuf>,

    /// The certificate with which Lookback goes there, PEM.
    #[arg(
        long,
        value_name = "FILE",
        env = "LOOKBACK_STORE_CLIENT_CERT_FILE",
        requires = "store_client_key_file"
    )]
    pub store_client_cert_file: Option<PathBuf>,

    /// The certificate's key, PEM.
    #[arg(
        long,
        value_name = "FILE",
        env = "LOOKBACK_STORE_CLIENT_KEY_FILE",
        requires = "store_client_cert_file"
    )]
    pub store_client_key_file: Option<PathBuf>,

    /// A file with a bearer token; read at each request.
    #[arg(
        long,
        value_name = "FILE",
        env = "LOOKBACK_STORE_BEARER_TOKEN_FILE",
        conflicts_with = "store_basic_auth_file"
    )]
    pub store_bearer_token_file: Option<PathBuf>,

    /// A file with user:password; read at each request.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_STORE_BASIC_AUTH_FILE")]
    pub store_basic_auth_file: Option<PathBuf>,

    /// How long one call of the engine may take.
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_STORE_TIMEOUT", default_value = "20s",
          value_parser = duration)]
    pub store_timeout: Duration,
}

/// Flags of a Prometheus-compatible engine as the store.
#[derive(Clone, Debug, Args)]
pub struct RemoteStoreArgs {
    /// What keeps the samples.
    #[arg(long, value_name = "KIND", env = "LOOKBACK_STORE", default_value = "embedded")]
    pub store: StoreKind,

    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Send everything a second time after so long, for engines that may lose what they acknowledged in their
    /// last seconds (VictoriaMetrics: 30s; Prometheus without a battery: 2m, with an out_of_order_time_window).
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_STORE_REPLAY_AFTER", value_parser = duration)]
    pub store_replay_after: Option<Duration>,

    /// How much may wait in --data-dir while the engine takes nothing. At the bound writes are refused with 507.
    #[arg(long, value_name = "SIZE", env = "LOOKBACK_STORE_OUTBOX_SIZE", default_value = "1GiB",
          value_parser = size)]
    pub store_outbox_size: u64,
}

/// What is wrong with the flags of the store.
#[derive(Debug, Error)]
pub enum RemoteStoreError {
    /// A URL that is needed.
    #[error("it has to be known where the engine is: give --store-url URL, or {0}")]
    NoUrl(&'static str),
    /// A flag that only the embedded engine has.
    #[error("{flag} means nothing with --store prometheus: {instead}")]
    Meaningless {
        /// The flag.
        flag: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// A flag that only another engine has.
    #[error("{0} means nothing without --store prometheus")]
    NotEmbedded(&'static str),
    /// The engine can't be spoken to so.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

fn tenant(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| "a header can't carry this".to_owned())
}

impl RemoteStoreArgs {
    /// The engine; `None`: the embedded one.
    ///
    /// # Errors
    /// When flags contradict one another, or something is missing.
    pub fn settings(&self, serve: &ServeArgs) -> Result<Option<RemoteSettings>, RemoteStoreError> {
        if self.store == StoreKind::Embedded {
            let EngineArgs { store_url, store_write_url, store_query_url, .. } = &self.engine;
            let urls = [store_url, store_write_url, store_query_url];
            return match urls.iter().any(|url| url.is_some()) {
                true => Err(RemoteStoreError::NotEmbedded("--store-url")),
                false => Ok(None),
            };
        }
        refuse_what_is_embedded(serve)?;
        let settings = self.engine.settings()?;
        Ok(Some(RemoteSettings {
            replay_after: self.store_replay_after,
            outbox_size_max_bytes: self.store_outbox_size,
            ..settings
        }))
    }
}

impl EngineArgs {
    /// The engine, its outbox as large as need be.
    ///
    /// # Errors
    /// When it is not said where it is.
    pub fn settings(&self) -> Result<RemoteSettings, RemoteStoreError> {
        let given = |own: &Option<ServerUrl>, flag| {
            own.clone().or_else(|| self.store_url.clone()).ok_or(RemoteStoreError::NoUrl(flag))
        };
        let write_path = if self.store_write_url.is_some() { "" } else { WRITE_PATH };
        Ok(RemoteSettings {
            write: self.server(given(&self.store_write_url, "--store-write-url URL")?),
            write_path,
            query: self.server(given(&self.store_query_url, "--store-query-url URL")?),
            timeout: self.store_timeout,
            replay_after: None,
            outbox_size_max_bytes: u64::MAX,
        })
    }

    fn server(&self, url: ServerUrl) -> ServerSettings {
        let mut server = ServerSettings::new(url);
        server.tls = TlsFiles::given(
            self.store_ca_file.as_ref(),
            self.store_client_cert_file.as_ref(),
            self.store_client_key_file.as_ref(),
        );
        let bearer = self.store_bearer_token_file.clone().map(Credentials::BearerFile);
        server.credentials =
            bearer.or_else(|| self.store_basic_auth_file.clone().map(Credentials::BasicFile));
        server.headers = self.store_header.clone();
        server.headers.extend(self.store_tenant.clone().map(|tenant| (TENANT_HEADER, tenant)));
        server
    }
}

/// Flags that say how the embedded engine keeps things would be believed in vain.
fn refuse_what_is_embedded(serve: &ServeArgs) -> Result<(), RemoteStoreError> {
    const RETENTION: &str = "the engine owns retention and rollups: say it there";
    let store = &serve.store;
    let is_default = store.keep.retention == Retention::AtLeast(Duration::from_secs(15 * 86_400));
    let given = [
        ("--retention", !is_default, RETENTION),
        ("--rollups", !store.keep.rollups.is_empty(), RETENTION),
        ("--retention-rules", store.keep.retention_rules.is_some(), RETENTION),
        (
            "--retention-size",
            store.keep.retention_size.is_some(),
            "the engine owns the data; what waits here is bounded by --store-outbox-size",
        ),
        ("--series-max", store.limits.series_max.is_some(), "bound the series in the engine"),
        (
            "--series-per-namespace-max",
            store.limits.series_per_namespace_max.is_some(),
            "bound the series in the engine",
        ),
        (
            "--out-of-order-window",
            store.out_of_order_window != Duration::from_secs(3_600),
            "the engine owns it: Prometheus has out_of_order_time_window",
        ),
        ("--backup-dir", serve.backup_dir.is_some(), "back the engine up by its own means"),
    ];
    match given.into_iter().find(|(_, is_given, _)| *is_given) {
        Some((flag, _, instead)) => Err(RemoteStoreError::Meaningless { flag, instead }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use clap::Parser;

    fn settings(args: &[&str]) -> Result<Option<RemoteSettings>, RemoteStoreError> {
        let line = ["lookback"].iter().chain(args);
        let Command::Serve(args) = Cli::try_parse_from(line).expect("valid").into_command() else {
            panic!("a server");
        };
        args.remote.settings(&args)
    }

    #[test]
    fn one_url_is_enough_and_two_are_taken_as_they_are() {
        assert!(settings(&[]).expect("valid").is_none());
        let one =
            settings(&["--store=prometheus", "--store-url=http://vm:8428/"]).expect("valid").expect("remote");
        assert_eq!((one.write.url.to_string().as_str(), one.write_path), ("http://vm:8428", "/api/v1/write"));
        let two = settings(&[
            "--store=prometheus",
            "--store-write-url=http://mimir/api/v1/push",
            "--store-query-url=http://mimir/prometheus",
            "--store-tenant=team-a",
            "--store-header=A: b",
            "--store-bearer-token-file=/token",
        ]);
        let two = two.expect("valid").expect("remote");
        assert_eq!((two.write.url.to_string().as_str(), two.write_path), ("http://mimir/api/v1/push", ""));
        assert_eq!(two.query.url.to_string(), "http://mimir/prometheus");
        assert_eq!(two.query.headers.len(), 2);
        assert_eq!(two.write.credentials, Some(Credentials::BearerFile("/token".into())));
    }

    #[test]
    fn what_would_be_believed_in_vain_is_refused() {
        let engine = ["--store=prometheus", "--store-url=http://vm:8428"];
        for (flag, said) in [
            ("--retention=1d", "the engine owns retention"),
            ("--rollups=5m=90d", "the engine owns retention"),
            ("--retention-rules=x", "the engine owns retention"),
            ("--retention-size=1GiB", "--store-outbox-size"),
            ("--series-max=5", "in the engine"),
            ("--out-of-order-window=5m", "out_of_order_time_window"),
            ("--backup-dir=/b", "by its own means"),
        ] {
            let error = settings(&[engine[0], engine[1], flag]).expect_err(flag).to_string();
            assert!(
                error.contains(said) && error.starts_with(flag.split('=').next().expect("a flag")),
                "{error}"
            );
        }
        let error = settings(&engine[..1]).expect_err("no URL").to_string();
        assert!(error.contains("--store-url"), "{error}");
        let error = settings(&engine[1..]).expect_err("embedded").to_string();
        assert!(error.contains("without --store prometheus"), "{error}");
    }
}
