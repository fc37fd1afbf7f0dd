//! Flags of the servers that rules look in, by the names that prometheus-adapter has for them.

use super::duration;
use crate::prometheus_client::{
    Credentials, PrometheusClient, ServerSettings, ServerUrl, SettingsError, TlsFiles, Verb, parse_header,
};
use crate::rules::source::OWN_STORE;
use axum::http::{HeaderName, HeaderValue};
use clap::Args;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// What a server is called that was given without a name.
const UNNAMED: &str = "prometheus";

/// Flags of servers.
#[derive(Clone, Debug, Args)]
pub struct PrometheusArgs {
    /// A server of Prometheus' HTTP API that the rules look in, in place of the own store; several by names, of
    /// which a rule chooses one by its key prometheus (the first where it does not, "store" for the own).
    #[arg(long, value_name = "[NAME=]URL", env = "LOOKBACK_PROMETHEUS_URL", value_delimiter = ',', value_parser = named)]
    pub prometheus_url: Vec<NamedServer>,

    /// Where there is no --config: over which time counters are read as rates.
    #[arg(long, value_name = "DURATION", env = "LOOKBACK_RATE_INTERVAL", default_value = "5m", value_parser = duration)]
    pub rate_interval: Duration,

    /// The CA of those servers, PEM [default: those that the system believes].
    #[arg(long, value_name = "FILE", env = "LOOKBACK_PROMETHEUS_CA_FILE")]
    pub prometheus_ca_file: Option<PathBuf>,

    /// A file with the bearer token for those servers; read again at each request.
    #[arg(long, value_name = "FILE", env = "LOOKBACK_PROMETHEUS_TOKEN_FILE")]
    pub prometheus_token_file: Option<PathBuf>,

    /// The certificate with which Lookback goes to those servers, PEM.
    #[arg(
        long,
        value_name = "FILE",
        env = "LOOKBACK_PROMETHEUS_CLIENT_TLS_CERT_FILE",
        requires = "prometheus_client_tls_key_file"
    )]
    pub prometheus_client_tls_cert_file: Option<PathBuf>,

    /// That certificate's key, PEM.
    #[arg(
        long,
        value_name = "FILE",
        env = "LOOKBACK_PROMETHEUS_CLIENT_TLS_KEY_FILE",
        requires = "prometheus_client_tls_cert_file"
    )]
    pub prometheus_client_tls_key_file: Option<PathBuf>,

    /// A header for those servers, as NAME=VALUE or "NAME: VALUE"; as often as wanted.
    #[arg(long, value_name = "HEADER", env = "LOOKBACK_PROMETHEUS_HEADER", value_parser = header)]
    pub prometheus_header: Vec<(HeaderName, HeaderValue)>,

    /// How those servers are asked; by GET, queries are cut into more and shorter ones.
    #[arg(
        long,
        value_name = "VERB",
        env = "LOOKBACK_PROMETHEUS_VERB",
        default_value = "POST",
        ignore_case = true
    )]
    pub prometheus_verb: Verb,
}

/// A header, by name and value.
type Header = (HeaderName, HeaderValue);

/// A server and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedServer {
    /// By which rules choose it.
    pub name: String,
    /// Where it is.
    pub url: ServerUrl,
}

impl PrometheusArgs {
    /// A client of each server, by its name.
    ///
    /// # Errors
    /// When a file can't be used, or two servers have one name.
    pub fn clients(&self) -> Result<Vec<(String, PrometheusClient)>, PrometheusArgsError> {
        let mut names = BTreeSet::from([OWN_STORE]);
        let mut clients = Vec::new();
        for NamedServer { name, url } in &self.prometheus_url {
            if !names.insert(name) {
                return Err(PrometheusArgsError::Name(name.clone()));
            }
            let settings = ServerSettings {
                tls: TlsFiles::given(
                    self.prometheus_ca_file.as_ref(),
                    self.prometheus_client_tls_cert_file.as_ref(),
                    self.prometheus_client_tls_key_file.as_ref(),
                ),
                credentials: self.prometheus_token_file.clone().map(Credentials::BearerFile),
                headers: self.prometheus_header.clone(),
                verb: self.prometheus_verb,
                ..ServerSettings::new(url.clone())
            };
            clients.push((name.clone(), PrometheusClient::new(settings)?));
        }
        Ok(clients)
    }
}

/// Why servers can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusArgsError {
    /// A name is taken.
    #[error(
        "--prometheus-url: the name {0:?} is given twice, or is the own store's: give each server its own, as NAME=URL"
    )]
    Name(String),
    /// A file can't be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// Reads `NAME=URL` or a URL, whose query may hold `=` too.
pub(super) fn named(text: &str) -> Result<NamedServer, String> {
    let is_name = |name: &&str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let (name, url) = match text.split_once('=') {
        Some((name, url)) if is_name(&name) => (name, url),
        _ => (UNNAMED, text),
    };
    let url = url.parse().map_err(|error: SettingsError| error.to_string())?;
    Ok(NamedServer { name: name.to_owned(), url })
}

/// prometheus-adapter writes `NAME=VALUE`.
fn header(text: &str) -> Result<Header, String> {
    let text = match (text.find(':'), text.find('=')) {
        (Some(colon), Some(equals)) if colon < equals => text.to_owned(),
        (_, Some(_)) => text.replacen('=', ":", 1),
        _ => text.to_owned(),
    };
    parse_header(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_names_or_the_common_one() {
        for (text, name, url) in [
            ("http://prometheus:9090", "prometheus", "http://prometheus:9090"),
            ("long-term=https://mimir/prometheus", "long-term", "https://mimir/prometheus"),
            ("http://prometheus/?tenant=a", "prometheus", "http://prometheus"),
        ] {
            let server = named(text).expect(text);
            assert_eq!((server.name.as_str(), server.url.to_string().as_str()), (name, url));
        }
        assert!(named("a=b").is_err() && named("prometheus").is_err());
        for text in ["X-Scope-OrgID=team=a", "X-Scope-OrgID: team=a"] {
            let (name, value) = header(text).expect(text);
            assert_eq!((name.as_str(), value.to_str().expect("text")), ("x-scope-orgid", "team=a"));
        }
    }
}
