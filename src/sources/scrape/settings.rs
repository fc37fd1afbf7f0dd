//! One target: where it is, how it is asked, and what its series are labelled with.

use super::relabel::Rule;
use crate::text::start_of;
use axum::http::uri::Authority;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How the targets of one job are asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    /// From scrape to scrape.
    pub interval: Duration,
    /// How long one may take; at most the interval.
    pub timeout: Duration,
    /// Whether it is asked over TLS.
    pub tls: Option<Tls>,
    /// How Lookback shows who it is.
    pub authorization: Option<Authorization>,
    /// Whether it is asked where it says it is to be found.
    pub follow_redirects: bool,
    /// Whether labels that a target exposes win over those of the job.
    pub honor_labels: bool,
    /// Whether timestamps that a target exposes count.
    pub honor_timestamps: bool,
    /// What becomes of the labels of its samples.
    pub metric_rules: Vec<Rule>,
    /// A scrape with more samples, when these rules have been applied, is refused as a whole.
    pub samples_max: usize,
    /// A scrape with more bytes, decompressed, is refused as a whole; `None`: what requests may have.
    pub body_bytes_max: Option<usize>,
}

/// TLS to a target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Whose certificates are believed; `None`: those that the system believes.
    pub ca_file: Option<PathBuf>,
    /// The name that the certificate has to be for; `None`: the target's host.
    pub server_name: Option<String>,
    /// What Lookback shows of itself.
    pub certificate: Option<Certificate>,
}

/// A client's certificate, in files that are read at each scrape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Certificate {
    /// The certificate and what it is signed with, PEM.
    pub chain_file: PathBuf,
    /// Its key, PEM.
    pub key_file: PathBuf,
}

/// What is sent as `Authorization`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Authorization {
    /// `Basic`, with a password or a file that holds it.
    Basic {
        /// The user's name.
        username: String,
        /// Their password.
        password: Secret,
    },
    /// Another scheme, mostly `Bearer`.
    Token {
        /// `Bearer`
        scheme: String,
        /// What stands behind it.
        credentials: Secret,
    },
}

/// Something that is not shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Secret {
    /// It stood in the configuration.
    Text(String),
    /// It stands in a file, which is read at each scrape.
    File(PathBuf),
}

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorization")
    }
}

/// One target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// `host:port`
    pub address: String,
    /// The path, with its query.
    pub path: String,
    /// The labels that its series get, `job` and `instance` among them.
    pub labels: Vec<(String, String)>,
    /// How it is asked.
    pub job: Arc<Job>,
}

impl Target {
    /// The URL, for people.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.job.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.address, self.path)
    }
}

/// Checks a target's `host:port`, and puts the scheme's port where there is none.
///
/// # Errors
/// When it is no address.
pub fn address(text: &str, tls: bool) -> Result<String, String> {
    let bad = || format!("{:?} is no target: write HOST:PORT", start_of(text));
    let authority: Authority = text.parse().map_err(|_| bad())?;
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(bad());
    }
    Ok(match authority.port_u16() {
        Some(_) => text.to_owned(),
        None if authority.as_str() != authority.host() => return Err(bad()),
        None => format!("{text}:{}", if tls { 443 } else { 80 }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_port() {
        for (text, tls, expected) in [
            ("web:8080", false, Some("web:8080")),
            ("web", false, Some("web:80")),
            ("[::1]", true, Some("[::1]:443")),
            ("[::1]:9", false, Some("[::1]:9")),
            ("http://web:80", false, None),
            ("web:80/metrics", false, None),
            ("u@web:80", false, None),
            ("web:99999", false, None),
            ("", false, None),
            ("a b", false, None),
        ] {
            assert_eq!(address(text, tls).ok().as_deref(), expected, "{text}");
        }
    }
}
