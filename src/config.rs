//! The command line: what it takes, from where, and what it means.
//!
//! Each flag is also an environment variable, `LOOKBACK_` and the flag's name in capitals with `_` for
//! `-`. A flag wins over its variable, a variable over `--settings`' file, the file over the default.

mod apis;
mod authentication;
mod cluster;
mod damage;
mod delegation;
pub mod delete;
pub mod explain;
pub mod export;
pub mod inspect;
mod kubelet;
mod limits;
pub mod migrate;
mod operations;
pub mod outbox;
mod prometheus;
mod query;
pub mod registration;
mod remote_store;
pub mod retention;
mod rules;
mod scrape;
mod settings_file;
pub mod shadow;
mod tls;
mod yaml;

pub use apis::ApisArgs;
pub use authentication::AuthenticationArgs;
pub use cluster::ClusterArgs;
pub use damage::{DamageArgs, OnDamage};
pub use delegation::DelegationArgs;
pub use delete::DeleteCommand;
pub use kubelet::KubeletArgs;
pub use limits::LimitsArgs;
pub use operations::{BackupArgs, RestoreArgs, VerifyArgs};
pub use prometheus::{NamedServer, PrometheusArgs, PrometheusArgsError};
pub use query::QueryArgs;
pub use remote_store::{EngineArgs, RemoteStoreArgs, RemoteStoreError, StoreKind};
pub use retention::{Retention, RetentionArgs};
pub use rules::{CheckConfigArgs, RulesArgs};
pub use scrape::ScrapeArgs;
pub use settings_file::SettingsError;
pub use tls::TlsArgs;

use self::explain::ExplainArgs;
use self::export::ExportArgs;
use self::inspect::InspectArgs;
use self::migrate::MigrateArgs;
use self::outbox::OutboxArgs;
use self::registration::{PreflightArgs, RegistrationArgs, TakeOverArgs};
use self::shadow::ShadowArgs;
use crate::app::Settings;
use crate::ingest::import::ImportArgs;
use crate::time::parse_duration;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;
use tracing_subscriber::filter::{LevelFilter, Targets};

/// Remembers metrics so that Kubernetes autoscaling and right-sizing can act on them.
#[derive(Debug, Parser)]
#[command(name = "lookback", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Box<ServeArgs>,
}

/// What `lookback` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take metrics and answer questions about them (what happens without a subcommand).
    Serve(Box<ServeArgs>),
    /// Load a file of history into the store while no server holds it.
    Import(Box<ImportCommand>),
    /// Explain what an autoscaler was answered, and what it makes of it.
    Explain(Box<ExplainArgs>),
    /// Check every checksum of a data directory, also beside a running server; fails where any is wrong.
    Verify(Box<VerifyArgs>),
    /// Back a store up into a directory, incrementally, or a stream, while no server holds it.
    Backup(Box<BackupArgs>),
    /// Make a store of a backup, a directory or a stream, after checking all of it.
    Restore(Box<RestoreArgs>),
    /// Show who serves the metrics APIs, and fail where registering Lookback would take them from another.
    Preflight(Box<PreflightArgs>),
    /// Register the metrics APIs to Lookback, and remember who had them.
    TakeOver(Box<TakeOverArgs>),
    /// Give the metrics APIs back to whom they were taken from.
    GiveBack(Box<RegistrationArgs>),
    /// Compare Lookback with the adapter that the cluster has, by what its autoscalers would make of either.
    Shadow(Box<ShadowArgs>),
    /// Delete series, or a span of them, while no server holds the store.
    Delete(Box<DeleteCommand>),
    /// Show what a data directory holds and how much it takes, also beside a running server.
    Inspect(Box<InspectArgs>),
    /// Write series as OpenMetrics text while no server holds the store; import brings them back.
    Export(Box<ExportArgs>),
    /// Move the history of a data directory into a Prometheus-compatible engine, while no server holds it.
    Migrate(Box<MigrateArgs>),
    /// Show how each rule of a file of prometheus-adapter stands; fails where one can't be used.
    CheckConfig(Box<CheckConfigArgs>),
    /// What the engine of --store prometheus refused for good: show it, or send it again.
    Outbox(Box<OutboxArgs>),
}

/// Flags of `lookback import`.
#[derive(Clone, Debug, Args)]
pub struct ImportCommand {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// The file and how it is read.
    #[command(flatten)]
    pub import: ImportArgs,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}

impl Cli {
    /// The command that was given; `serve` where none was.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

/// Flags of `lookback serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// A Prometheus-compatible engine as the store.
    #[command(flatten)]
    pub remote: RemoteStoreArgs,

    /// Where plain HTTP is served: pushes, range reads, health and own metrics. Other addresses than
    /// loopback need --credentials-file or a cluster.
    #[arg(long, value_name = "ADDR:PORT", env = "LOOKBACK_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// The address on which the Kubernetes APIs are served over TLS.
    #[arg(long, value_name = "ADDR", env = "LOOKBACK_BIND_ADDRESS", default_value = "127.0.0.1")]
    pub bind_address: IpAddr,

    /// The port on which the Kubernetes APIs are served over TLS; 0 turns it off.
    #[arg(long, value_name = "PORT", env = "LOOKBACK_SECURE_PORT", default_value_t = 6443)]
    pub secure_port: u16,

    /// Samples older than this are not served as a latest value [default: 5m].
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_FRESHNESS", value_parser = duration)]
    pub freshness: Option<Duration>,

    /// Where a backup goes that is asked for by POST /api/v1/admin/backup.
    #[arg(long, value_name = "DIR", env = "LOOKBACK_BACKUP_DIR")]
    pub backup_dir: Option<PathBuf>,

    /// Most points a series in one range answer [default: 50000].
    #[arg(long, value_name = "COUNT", env = "LOOKBACK_POINTS_MAX", value_parser = count)]
    pub points_max: Option<usize>,

    /// How PromQL is evaluated.
    #[command(flatten)]
    pub query: QueryArgs,
    /// Most questions about history a second of one client, or off [default: 1000].
    #[arg(long, value_name = "COUNT|off", env = "LOOKBACK_CLIENT_REQUESTS_PER_SECOND",
          value_parser = requests_per_second)]
    pub client_requests_per_second: Option<RequestsPerSecond>,

    /// How often it is written down who owns which pods, in a cluster, or off [default: 1m].
    #[arg(long, value_name = "DURATION|off", env = "LOOKBACK_OWNERSHIP_INTERVAL", value_parser = interval)]
    pub ownership_interval: Option<Interval>,

    /// Lookback's own settings, YAML: usage sources and limits.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_SETTINGS")]
    pub settings: Option<PathBuf>,

    /// prometheus-adapter's rules.
    #[command(flatten)]
    pub rules: RulesArgs,

    /// The servers that the rules look in.
    #[command(flatten)]
    pub prometheus: PrometheusArgs,

    /// Who may call, YAML: names, tokens or passwords, rights and namespaces.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_CREDENTIALS_FILE")]
    pub credentials_file: Option<PathBuf>,

    /// The certificate and the callers of the secure port.
    #[command(flatten)]
    pub secure: SecureArgs,

    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// How TLS is spoken.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Which APIs are served to it.
    #[command(flatten)]
    pub apis: ApisArgs,

    /// Who answers there for metrics that Lookback does not know.
    #[command(flatten)]
    pub delegation: DelegationArgs,

    /// Who is let in there.
    #[command(flatten)]
    pub authentication: AuthenticationArgs,

    /// What is scraped.
    #[command(flatten)]
    pub scrape: ScrapeArgs,

    /// What is asked of kubelets.
    #[command(flatten)]
    pub kubelet: KubeletArgs,

    /// How logs look.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of the embedded store.
#[derive(Clone, Debug, Args)]
pub struct StoreArgs {
    /// Where the data is kept; made if it is missing. One process at a time holds it.
    #[arg(long, value_name = "DIR", env = "LOOKBACK_DATA_DIR", default_value = "./lookback-data")]
    pub data_dir: PathBuf,

    /// How long what is kept.
    #[command(flatten)]
    pub keep: RetentionArgs,

    /// How many series, in how much memory.
    #[command(flatten)]
    pub limits: LimitsArgs,

    /// How much older than its series' newest sample a sample may be.
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_OUT_OF_ORDER_WINDOW", default_value = "1h",
          value_parser = duration)]
    pub out_of_order_window: Duration,

    /// What to do with damage.
    #[command(flatten)]
    pub damage: DamageArgs,
}

/// Flags of the secure port.
#[derive(Clone, Debug, Args)]
pub struct SecureArgs {
    /// The certificate to serve with, PEM, leaf first. Without it one is made and kept.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_TLS_CERT_FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,

    /// The certificate's key, PEM.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_TLS_PRIVATE_KEY_FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,

    /// Where the certificate that Lookback makes is kept [default: the data directory].
    #[arg(long, value_name = "DIR", env = "LOOKBACK_CERT_DIR")]
    pub cert_dir: Option<PathBuf>,

    /// The CA of front proxies' client certificates, PEM: identity headers count only behind one.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_REQUESTHEADER_CLIENT_CA_FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,

    /// Common names that a front proxy may have, separated by commas; none: any.
    #[arg(long, value_name = "NAMES", env = "LOOKBACK_REQUESTHEADER_ALLOWED_NAMES", value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,

    /// Headers with the user's name, separated by commas.
    #[arg(
        long,
        value_name = "HEADERS",
        env = "LOOKBACK_REQUESTHEADER_USERNAME_HEADERS",
        value_delimiter = ',',
        default_value = "X-Remote-User"
    )]
    pub requestheader_username_headers: Vec<String>,

    /// Headers with the user's groups, separated by commas.
    #[arg(
        long,
        value_name = "HEADERS",
        env = "LOOKBACK_REQUESTHEADER_GROUP_HEADERS",
        value_delimiter = ',',
        default_value = "X-Remote-Group"
    )]
    pub requestheader_group_headers: Vec<String>,

    /// Beginnings of headers with more about the user, separated by commas.
    #[arg(
        long,
        value_name = "PREFIXES",
        env = "LOOKBACK_REQUESTHEADER_EXTRA_HEADERS_PREFIX",
        value_delimiter = ',',
        default_value = "X-Remote-Extra-"
    )]
    pub requestheader_extra_headers_prefix: Vec<String>,

    /// Headers with the user's UID, separated by commas.
    #[arg(
        long,
        value_name = "HEADERS",
        env = "LOOKBACK_REQUESTHEADER_UID_HEADERS",
        value_delimiter = ',',
        default_value = "X-Remote-Uid"
    )]
    pub requestheader_uid_headers: Vec<String>,
}

/// Flags of logging. Logs go to stderr.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// How log lines look.
    #[arg(long, value_name = "FORMAT", env = "LOOKBACK_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, or by target as in info,lookback::http=debug.
    #[arg(long, value_name = "LEVEL", env = "LOOKBACK_LOG_LEVEL", default_value = "info")]
    pub log_level: Targets,

    /// How much Lookback itself logs, as Kubernetes counts: from 4 on debug, from 6 on trace. Adds to
    /// --log-level.
    #[arg(long = "v", value_name = "LEVEL", env = "LOOKBACK_V")]
    pub v: Option<u8>,
}

impl LogArgs {
    /// What is logged.
    #[must_use]
    pub fn targets(&self) -> Targets {
        let level = match self.v.unwrap_or_default() {
            0..=3 => return self.log_level.clone(),
            4 | 5 => LevelFilter::DEBUG,
            6.. => LevelFilter::TRACE,
        };
        self.log_level.clone().with_target("lookback", level)
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl ServeArgs {
    /// Where the Kubernetes APIs are served over TLS; `None`: nowhere.
    #[must_use]
    pub fn secure_listen(&self) -> Option<SocketAddr> {
        (self.secure_port != 0).then(|| SocketAddr::new(self.bind_address, self.secure_port))
    }

    /// The settings that handlers work with: the defaults, changed by the file, changed by flags.
    ///
    /// # Errors
    /// When the file can't be read or says something that it may not.
    pub fn app_settings(&self) -> Result<Settings, SettingsError> {
        let mut settings = Settings::default();
        if let Some(path) = &self.settings {
            settings_file::apply(path, &mut settings)?;
        }
        settings.freshness = self.freshness.unwrap_or(settings.freshness);
        settings.live.unknown_resources_allowed = self.cluster.allow_unknown_resources;
        settings.backup_dir = self.backup_dir.clone();
        settings.points_max = self.points_max.unwrap_or(settings.points_max);
        if let Some(Interval(interval)) = self.ownership_interval {
            settings.ownership_interval = interval;
        }
        settings.metric_resolution = self.kubelet.settings().resolution;
        settings.query = self.query.settings();
        if let Some(RequestsPerSecond(limit)) = self.client_requests_per_second {
            settings.client_requests_per_second = limit;
        }
        Ok(settings)
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration_ms = parse_duration(text).map_err(|error| error.to_string())?;
    u64::try_from(duration_ms).map(Duration::from_millis).map_err(|error| error.to_string())
}

/// How often something is done; `None`: not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(pub Option<Duration>);

fn interval(text: &str) -> Result<Interval, String> {
    if text == "off" {
        return Ok(Interval(None));
    }
    duration(text).map(|every| Interval(Some(every))).map_err(|error| format!("{error}, or off"))
}

/// How many requests a second; `None`: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestsPerSecond(pub Option<NonZeroU32>);

fn requests_per_second(text: &str) -> Result<RequestsPerSecond, String> {
    if text == "off" {
        return Ok(RequestsPerSecond(None));
    }
    let wrong = |_| "use a whole number from 1, or off".to_owned();
    text.parse().map(|count| RequestsPerSecond(Some(count))).map_err(wrong)
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "use a whole number from 1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn serve(args: &[&str]) -> ServeArgs {
        let cli = Cli::try_parse_from([&["lookback"], args].concat()).expect("valid");
        match cli.into_command() {
            Command::Serve(args) => *args,
            other => panic!("no server: {other:?}"),
        }
    }

    fn refused(args: &[&str]) -> clap::Error {
        Cli::try_parse_from([&["lookback"], args].concat()).expect_err("refused")
    }

    #[test]
    fn the_command_line_is_consistent_and_every_flag_has_its_variable() {
        let command = Cli::command();
        command.clone().debug_assert();
        for flag in
            command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()))
        {
            let variable = format!("LOOKBACK_{}", flag.get_id().as_str().to_uppercase());
            assert_eq!(flag.get_env().and_then(|v| v.to_str()), Some(variable.as_str()));
        }
    }

    #[test]
    fn serve_is_the_default_subcommand() {
        for args in [&["serve", "--listen", "127.0.0.1:9"][..], &["--listen", "127.0.0.1:9"]] {
            assert_eq!(serve(args).listen.port(), 9);
        }
    }

    #[test]
    fn the_defaults_are_as_documented() {
        let args = serve(&[]);
        assert_eq!(args.store.data_dir, PathBuf::from("./lookback-data"));
        assert_eq!(args.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(args.secure_listen().map(|a| a.to_string()).as_deref(), Some("127.0.0.1:6443"));
        assert_eq!(args.store.keep.retention, Retention::AtLeast(Duration::from_secs(15 * 24 * 3600)));
        assert_eq!(args.store.out_of_order_window, Duration::from_secs(3600));
        assert_eq!(args.secure.requestheader_username_headers, ["X-Remote-User"]);
        assert!(args.secure.requestheader_allowed_names.is_empty());
        assert_eq!(args.log.log_format, LogFormat::Text);
        let settings = args.app_settings().expect("valid");
        assert_eq!((settings.freshness, settings.points_max), (Duration::from_secs(300), 50_000));
    }

    #[test]
    fn flags_are_read() {
        let args = serve(&[
            "--secure-port=0",
            "--retention=off",
            "--rollups=5m=90d,1h=off",
            "--retention-size=80%",
            "--freshness=90s",
            "--points-max=7",
            "--client-requests-per-second=off",
            "--ownership-interval=off",
            "--requestheader-allowed-names=front-proxy-client,aggregator",
            "--log-level=warn,lookback=debug",
        ]);
        assert_eq!((args.secure_listen(), args.store.keep.retention), (None, Retention::Off));
        let mut options = lookback_storage::Options::default();
        args.store.keep.apply(&mut options);
        assert_eq!(options.rollups, [(300_000, Some(90 * 86_400_000)), (3_600_000, None)].into());
        assert_eq!(options.size_max, Some(lookback_storage::SizeMax::VolumePercent(80.0)));
        assert_eq!(args.secure.requestheader_allowed_names, ["front-proxy-client", "aggregator"]);
        let settings = args.app_settings().expect("valid");
        assert_eq!((settings.freshness, settings.points_max), (Duration::from_secs(90), 7));
        assert_eq!((settings.client_requests_per_second, settings.ownership_interval), (None, None));
    }

    #[test]
    fn flags_with_kubernetes_names_mean_what_they_mean_there() {
        let args = serve(&["--tls-min-version=VersionTLS13", "--v=4", "--service=monitoring/metrics"]);
        assert_eq!(args.tls.options().min_version, crate::http::tls::MinVersion::Tls13);
        assert!(args.log.targets().would_enable("lookback::http", &tracing::Level::DEBUG));
        assert!(!args.log.targets().would_enable("hyper", &tracing::Level::DEBUG));
        let service = args.tls.service(Some("ignored")).expect("a service");
        assert_eq!((service.namespace.as_str(), service.name.as_str()), ("monitoring", "metrics"));
        assert!(serve(&[]).tls.service(None).is_none());
    }

    #[test]
    fn an_import_names_its_file_and_store() {
        let line = ["lookback", "import", "--data-dir=/data", "--retention=off", "history.csv.gz"];
        let Command::Import(command) = Cli::try_parse_from(line).expect("valid").into_command() else {
            panic!("not a server");
        };
        assert_eq!(command.store.data_dir, PathBuf::from("/data"));
        assert_eq!(command.import.file, PathBuf::from("history.csv.gz"));
    }

    #[test]
    fn wrong_flags_are_usage_errors_that_say_what_is_accepted() {
        for (args, said) in [
            (&["--prometheus-url=prometheus"][..], "http://HOST:PORT"),
            (&["--prometheus-client-tls-cert-file=x"], "--prometheus-client-tls-key-file"),
            (&["--retention=soon"], "or off"),
            (&["--rollups=7m=1d"], "5m"),
            (&["--retention-size=big"], "50GiB"),
            (&["--freshness=0"], "zero"),
            (&["--points-max=0"], "from 1"),
            (&["--client-requests-per-second=0"], "or off"),
            (&["--listen=nowhere"], "--listen"),
            (&["--tls-cert-file=x"], "--tls-private-key-file"),
            (&["--unknown"], "--unknown"),
            (&["--log-format=xml"], "text, json"),
            (&["--tls-min-version=VersionTLS11"], "VersionTLS12, VersionTLS13"),
            (&["--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA"], "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
            (&["--runtime-config=apps/v1=false"], "external.metrics.k8s.io=false"),
        ] {
            let error = refused(args);
            assert_eq!(error.exit_code(), 2, "{args:?}");
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
