//! Static credentials: who may call where no cluster says so.
//!
//! ```yaml
//! credentials:
//!   - name: collector            # in logs and messages; by default the user name, or credential-1, …
//!     token: a-long-random-text  # Authorization: Bearer …
//!     access: write              # read, write or all (the default)
//!   - username: team-a           # Authorization: Basic …
//!     password: another-text
//!     access: read
//!     namespaces: [team-a]       # by default all
//! ```
//!
//! invariant: no secret gets into an error, a log or `Debug`.

use super::auth::Caller;
use super::reload::on_change;
use crate::store::Scope;
use arc_swap::ArcSwap;
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;
use tracing::{info, warn};

/// Most entries in a file: every request is compared with all of them.
const ENTRIES_MAX: usize = 1_000;
/// Largest file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a credentials file can't be used.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// It can't be read.
    #[error("credentials file {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Something in it is not as it should be.
    #[error("credentials file {path}, line {line}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 0: of no line in particular.
        line: u64,
        /// What is wrong, and what would be right; without the secret.
        reason: String,
    },
}

/// Those who may call.
#[derive(Debug)]
pub struct Credentials {
    entries: ArcSwap<Vec<Credential>>,
}

#[derive(Debug)]
struct Credential {
    secret: Secret,
    caller: Caller,
}

#[derive(Debug)]
enum Secret {
    Token(SecretString),
    Password { username: String, password: SecretString },
}

impl Credentials {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let unreadable = |reason: String| CredentialsError::Unreadable { path: path.to_owned(), reason };
        let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
        if size > FILE_BYTES_MAX {
            return Err(unreadable(format!("{size} bytes, and {FILE_BYTES_MAX} are the most")));
        }
        let text =
            Zeroizing::new(std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?);
        Self::parse(&text).map_err(|Problem { line, reason }| CredentialsError::Invalid {
            path: path.to_owned(),
            line,
            reason,
        })
    }

    /// Reads the file again whenever it changes, for ever. One that can't be used changes nothing.
    pub async fn keep(self: Arc<Self>, path: PathBuf, interval: Duration) {
        let file = path.clone();
        on_change(vec![path], interval, || match Self::read(&file) {
            Ok(read) => {
                self.entries.store(read.entries.load_full());
                info!(file = %file.display(), "the credentials were read again");
            }
            Err(error) => warn!(%error, "the credentials stay as they were"),
        })
        .await;
    }

    /// Who this request's `Authorization` says it is.
    #[must_use]
    pub fn check(&self, headers: &HeaderMap) -> Checked {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Checked::None };
        if values.next().is_some() {
            return Checked::Unknown;
        }
        let caller = Presented::parse(value.as_bytes()).and_then(|presented| self.find(&presented));
        caller.map_or(Checked::Unknown, Checked::Known)
    }

    /// Compares with every entry, so that the time it takes does not tell which one is near.
    fn find(&self, presented: &Presented) -> Option<Caller> {
        let mut found = None;
        for entry in self.entries.load().iter() {
            if bool::from(entry.secret.matches(presented)) {
                found = Some(entry.caller.clone());
            }
        }
        found
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        // Snippets of the file would show secrets.
        let options = serde_saphyr::options! { with_snippet: false };
        let file: File =
            serde_saphyr::from_str_with_options(text, options).map_err(|error| Problem::of(&error))?;
        let count = file.credentials.len();
        if count == 0 || count > ENTRIES_MAX {
            let reason = format!("{count} credentials: give at least one, and at most {ENTRIES_MAX}");
            return Err(Problem { line: 0, reason });
        }
        let mut entries: Vec<Credential> = Vec::with_capacity(count);
        for (index, entry) in file.credentials.into_iter().enumerate() {
            let line = entry.referenced.line();
            let problem = |reason: &str| Problem { line, reason: reason.to_owned() };
            let entry = entry.value.into_credential(index + 1).map_err(problem)?;
            if entries.iter().any(|earlier| earlier.secret.collides_with(&entry.secret)) {
                return Err(problem("an earlier entry has the same token or username: take one of them out"));
            }
            entries.push(entry);
        }
        Ok(Self { entries: ArcSwap::from_pointee(entries) })
    }
}

/// The token of a request that presents exactly one.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What a request's `Authorization` is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// There is none.
    None,
    /// There is one that nobody here has.
    Unknown,
    /// It is this caller's.
    Known(Caller),
}

/// What a request presents.
enum Presented {
    Token(SecretString),
    Password { username: String, password: SecretString },
}

impl Presented {
    fn parse(value: &[u8]) -> Option<Self> {
        let value = std::str::from_utf8(value).ok()?;
        let (scheme, credential) = value.split_once(' ')?;
        let credential = credential.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Token(credential.into()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = Zeroizing::new(STANDARD.decode(credential).ok()?);
        let (username, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
        Some(Self::Password { username: username.to_owned(), password: password.into() })
    }
}

impl Secret {
    fn matches(&self, presented: &Presented) -> Choice {
        match (self, presented) {
            (Self::Token(known), Presented::Token(token)) => equal(known, token),
            (
                Self::Password { username: known_name, password: known },
                Presented::Password { username, password },
            ) => known_name.as_bytes().ct_eq(username.as_bytes()) & equal(known, password),
            _ => Choice::from(0),
        }
    }

    fn collides_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Token(one), Self::Token(two)) => equal(one, two).into(),
            (Self::Password { username: one, .. }, Self::Password { username: two, .. }) => one == two,
            _ => false,
        }
    }
}

// The length is not kept secret: what is compared takes its time by the length alone.
fn equal(one: &SecretString, two: &SecretString) -> Choice {
    one.expose_secret().as_bytes().ct_eq(two.expose_secret().as_bytes())
}

/// Whether a listener may be bound to this address.
pub fn check_bind(address: SocketAddr, has_credentials: bool) -> Result<(), OpenListener> {
    if has_credentials || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(OpenListener { address, loopback: SocketAddr::from(([127, 0, 0, 1], address.port())) })
}

/// A listener that anyone could reach and use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "--listen {address} can be reached from other machines, and nothing says who may call: \
     give --credentials-file FILE with tokens or passwords, or --kubeconfig FILE of the cluster that knows its callers, or stay on this machine with --listen {loopback}"
)]
pub struct OpenListener {
    address: SocketAddr,
    loopback: SocketAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    credentials: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Option<String>,
    token: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(default)]
    access: Access,
    namespaces: Option<BTreeSet<String>>,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Access {
    Read,
    Write,
    #[default]
    All,
}

impl Entry {
    fn into_credential(self, number: usize) -> Result<Credential, &'static str> {
        let secret = match (self.token, self.username, self.password) {
            (Some(token), None, None) => {
                if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
                    return Err("a token is one or more visible ASCII characters, without spaces");
                }
                Secret::Token(token.into())
            }
            (None, Some(username), Some(password)) => {
                if username.is_empty() || username.contains(':') || password.is_empty() {
                    return Err("a username is not empty and has no colon, and a password is not empty");
                }
                Secret::Password { username, password: password.into() }
            }
            _ => return Err("a credential has either a token, or a username and a password"),
        };
        if self.namespaces.as_ref().is_some_and(BTreeSet::is_empty) {
            return Err("namespaces is empty, which would allow nothing: name some, or leave it out for all");
        }
        let user = self.name.unwrap_or_else(|| match &secret {
            Secret::Token(_) => format!("credential-{number}"),
            Secret::Password { username, .. } => username.clone(),
        });
        let scope = self.namespaces.map_or(Scope::All, |set| Scope::Namespaces(Arc::new(set)));
        let caller = Caller {
            user,
            groups: vec!["system:authenticated".to_owned()],
            scope,
            read: self.access != Access::Write,
            write: self.access != Access::Read,
        };
        Ok(Credential { secret, caller })
    }
}

/// What is wrong in a file, and where.
struct Problem {
    line: u64,
    reason: String,
}

impl Problem {
    /// Says what is wrong in words that quote no value of the file: it may be a secret in the wrong place.
    fn of(error: &serde_saphyr::Error) -> Self {
        use serde_saphyr::Error as Yaml;
        let line = error.location().map_or(0, |location| location.line());
        let reason = match error.without_snippet() {
            Yaml::SerdeUnknownField { expected, .. } => {
                format!("there is a field that does not exist: it can be {}", expected.join(", "))
            }
            Yaml::SerdeMissingField { field, .. } => format!("{field} is missing"),
            Yaml::SerdeUnknownVariant { expected, .. } => format!("not one of {}", expected.join(", ")),
            Yaml::DuplicateMappingKey { .. } => "the same field twice".to_owned(),
            Yaml::SerdeInvalidType { expected, .. } | Yaml::SerdeInvalidValue { expected, .. } => {
                format!("something else than {expected}")
            }
            Yaml::Eof { .. } => "there is nothing in it: it begins with `credentials:`".to_owned(),
            _ => "not the YAML of a credentials file: `credentials:`, then a list of entries with \
                  a token, or a username and a password"
                .to_owned(),
        };
        Self { line, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const FILE: &str = "credentials:
  - name: collector
    token: s3cret-token
    access: write
  - username: team-a
    password: 's3cret: password'
    access: read
    namespaces: [team-a, team-b]
  - token: 12345
";

    fn credentials() -> Credentials {
        Credentials::parse(FILE).unwrap_or_else(|p| panic!("line {}: {}", p.line, p.reason))
    }

    fn check(authorization: &str) -> Checked {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(authorization).expect("a header"));
        credentials().check(&headers)
    }

    fn problem(text: &str) -> (u64, String) {
        match Credentials::parse(text) {
            Ok(_) => panic!("accepted: {text}"),
            Err(Problem { line, reason }) => (line, reason),
        }
    }

    fn basic(credential: &str) -> String {
        format!("Basic {}", STANDARD.encode(credential))
    }

    #[test]
    fn a_token_is_its_caller() {
        let Checked::Known(caller) = check("Bearer s3cret-token") else { panic!("not known") };
        assert_eq!((caller.user.as_str(), caller.read, caller.write), ("collector", false, true));
        assert_eq!(caller.scope, Scope::All);
        let Checked::Known(caller) = check("bearer 12345") else { panic!("not known") };
        assert_eq!((caller.user.as_str(), caller.read, caller.write), ("credential-3", true, true));
    }

    #[test]
    fn a_password_is_its_caller() {
        let Checked::Known(caller) = check(&basic("team-a:s3cret: password")) else { panic!("not known") };
        assert_eq!((caller.user.as_str(), caller.read, caller.write), ("team-a", true, false));
        assert!(caller.scope.allows(Some("team-b")) && !caller.scope.allows(Some("team-c")));
        assert!(!caller.scope.allows(None));
    }

    #[test]
    fn anything_else_is_unknown() {
        for authorization in [
            "Bearer s3cret-toke",
            "Bearer s3cret-token2",
            "Bearer ",
            "Bearer",
            "s3cret-token",
            "Basic s3cret-token",
            "Digest s3cret-token",
            &basic("team-a"),
            &basic("team-a:"),
            &basic("team-b:s3cret: password"),
            &basic(":s3cret: password"),
            &basic("s3cret-token:"),
            "",
        ] {
            assert_eq!(check(authorization), Checked::Unknown, "{authorization}");
        }
        assert_eq!(credentials().check(&HeaderMap::new()), Checked::None);
    }

    #[test]
    fn two_authorizations_are_none() {
        let mut headers = HeaderMap::new();
        for _ in 0..2 {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer s3cret-token"));
        }
        assert_eq!(credentials().check(&headers), Checked::Unknown);
    }

    #[test]
    fn a_bad_file_is_refused_by_line() {
        for (line, text) in [
            (3, "credentials:\n  - token: s3cret\n    acess: read\n"),
            (3, "credentials:\n  - token: s3cret\n    access: s3cret\n"),
            (2, "credentials:\n  - s3cret\n"),
            (2, "credentials:\n  - name: n\n"),
            (2, "credentials:\n  - token: s3cret\n    password: s3cret\n"),
            (2, "credentials:\n  - username: u\n"),
            (2, "credentials:\n  - token: ''\n"),
            (2, "credentials:\n  - token: 's3cret two'\n"),
            (2, "credentials:\n  - token: s3cret\n    namespaces: []\n"),
            (3, "credentials:\n  - token: s3cret\n  - token: s3cret\n"),
            (3, "credentials:\n  - token: s3cret\n    token: s3cret2\n"),
            (2, "credentials:\n  - token: [s3cret]\n"),
        ] {
            let (found, reason) = problem(text);
            assert_eq!(found, line, "{text}{reason}");
            assert!(!reason.contains("s3cret"), "{reason}");
        }
        for text in
            ["", "credentials: []\n", "s3cret", "credentials: s3cret\n", "{", "\u{1}", "- token: s3cret"]
        {
            assert!(!problem(text).1.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", credentials());
        assert!(
            shown.contains("collector") && !shown.contains("s3cret") && !shown.contains("12345"),
            "{shown}"
        );
    }

    #[test]
    fn only_loopback_is_open() {
        for (address, allowed) in [
            ("127.0.0.1:8080", true),
            ("127.8.8.8:8080", true),
            ("[::1]:8080", true),
            ("[::ffff:127.0.0.1]:8080", true),
            ("0.0.0.0:8080", false),
            ("[::]:8080", false),
            ("10.0.0.1:8080", false),
        ] {
            let address: SocketAddr = address.parse().expect("an address");
            assert_eq!(check_bind(address, false).is_ok(), allowed, "{address}");
            assert!(check_bind(address, true).is_ok());
        }
        let error = check_bind(([0, 0, 0, 0], 9090).into(), false).expect_err("open").to_string();
        assert!(error.contains("--credentials-file") && error.contains("--listen 127.0.0.1:9090"), "{error}");
    }
}
