//! The file of targets, in the words of Prometheus' configuration.
//!
//! ```yaml
//! global: {scrape_interval: 1m, scrape_timeout: 10s}
//! scrape_configs:
//!   - job_name: web
//!     scrape_interval: 15s          # and scrape_timeout, metrics_path, scheme, params
//!     static_configs:
//!       - targets: ['web-0:8080']
//!         labels: {namespace: shop, pod: web-0}
//!     honor_labels: false           # and honor_timestamps (true)
//!     sample_limit: 10000           # 100000 unless said
//!     body_size_limit: 10MB
//!     basic_auth: {username: u, password_file: /etc/p}      # or password
//!     authorization: {type: Bearer, credentials_file: /etc/t}   # or credentials; or bearer_token_file
//!     tls_config: {ca_file: /etc/ca.crt, server_name: web, cert_file: /etc/me.crt, key_file: /etc/me.key}
//!     follow_redirects: true        # unless said
//!     kubernetes_sd_configs: [{role: pod}]   # the cluster's pods as targets: see `kubernetes_sd`
//!     relabel_configs: []           # of targets: see `relabel`
//!     metric_relabel_configs: []    # of what they expose
//! ```
//!
//! What is not listed here is refused by its name, with its line: a configuration that means something
//! else than it says would be worse than none.

use super::discovered::Common;
use super::kubernetes_sd::{PodJob, Selected, WATCHES_MAX, watches_of};
use super::relabel::Rule;
use super::settings::{Authorization, Certificate, Job, Secret, Target, Tls};
use crate::text::start_of;
use crate::time::parse_duration;
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Most targets of a file.
pub const TARGETS_MAX: usize = 10_000;

/// Most samples of one scrape, unless the file says otherwise.
pub const SAMPLES_MAX: usize = 100_000;

/// Prometheus' own defaults.
pub const INTERVAL: Duration = Duration::from_secs(60);
/// How long a scrape may take.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the file can't be used.
#[derive(Debug, Error)]
pub enum ScrapeConfigError {
    /// It can't be read.
    #[error("the scrape configuration {} can't be read: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// It is not what is documented.
    #[error("the scrape configuration {} is wrong: {problem}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configured {
    /// The targets that it names.
    pub targets: Vec<Target>,
    /// The jobs that ask pods.
    pub pods: Vec<PodJob>,
}

/// Reads a file. `has_cluster`: there are pods to be found.
///
/// # Errors
/// When it can't be read, or says something that it may not.
pub fn read(path: &Path, has_cluster: bool) -> Result<Configured, ScrapeConfigError> {
    let unreadable = |reason| ScrapeConfigError::Unreadable { path: path.to_owned(), reason };
    let wrong = |problem| ScrapeConfigError::Wrong { path: path.to_owned(), problem };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    parse(&text, has_cluster).map_err(wrong)
}

/// Reads a text. `has_cluster`: there are pods to be found.
///
/// # Errors
/// What is wrong, and where.
pub fn parse(text: &str, has_cluster: bool) -> Result<Configured, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let Configured { mut targets, mut pods } = Configured::default();
    let mut names = HashSet::new();
    for job in &file.scrape_configs {
        let in_job = |problem: String| format!("job {:?}: {problem}", start_of(&job.job_name));
        if job.job_name.is_empty() || !names.insert(&job.job_name) {
            return Err(in_job("each job needs a job_name of its own".to_owned()));
        }
        let common = job.common(&file.global).map_err(in_job)?;
        for group in &job.static_configs {
            for target in &group.targets {
                targets.extend(common.target(target, &group.labels).map_err(in_job)?);
            }
        }
        if targets.len() > TARGETS_MAX {
            return Err(format!("there are more than {TARGETS_MAX} targets"));
        }
        for selected in &job.kubernetes_sd_configs {
            if !has_cluster {
                let problem = "kubernetes_sd_configs needs a cluster: give --kubeconfig FILE";
                return Err(in_job(problem.to_owned()));
            }
            pods.push(PodJob { selected: selected.clone(), common: common.clone() });
        }
        if watches_of(&pods) > WATCHES_MAX {
            return Err(in_job(format!("more than {WATCHES_MAX} watches of pods: let jobs select the same")));
        }
    }
    Ok(Configured { targets, pods })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    global: Global,
    #[serde(default)]
    scrape_configs: Vec<ScrapeConfig>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Global {
    scrape_interval: Option<Span>,
    scrape_timeout: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScrapeConfig {
    job_name: String,
    scrape_interval: Option<Span>,
    scrape_timeout: Option<Span>,
    metrics_path: Option<String>,
    scheme: Option<Scheme>,
    #[serde(default)]
    params: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    honor_labels: bool,
    honor_timestamps: Option<bool>,
    sample_limit: Option<usize>,
    body_size_limit: Option<Size>,
    basic_auth: Option<BasicAuth>,
    authorization: Option<TokenAuth>,
    bearer_token_file: Option<PathBuf>,
    tls_config: Option<TlsConfig>,
    follow_redirects: Option<bool>,
    #[serde(default)]
    relabel_configs: Vec<Rule>,
    #[serde(default)]
    metric_relabel_configs: Vec<Rule>,
    #[serde(default)]
    static_configs: Vec<StaticConfig>,
    #[serde(default)]
    kubernetes_sd_configs: Vec<Selected>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    Http,
    Https,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BasicAuth {
    #[serde(default)]
    username: String,
    password: Option<String>,
    password_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenAuth {
    #[serde(rename = "type")]
    scheme: Option<String>,
    credentials: Option<String>,
    credentials_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsConfig {
    ca_file: Option<PathBuf>,
    server_name: Option<String>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

impl TlsConfig {
    fn tls(&self) -> Result<Tls, String> {
        let certificate = match (&self.cert_file, &self.key_file) {
            (None, None) => None,
            (Some(chain), Some(key)) => {
                Some(Certificate { chain_file: chain.clone(), key_file: key.clone() })
            }
            _ => return Err("a tls_config needs both of cert_file and key_file, or none".to_owned()),
        };
        Ok(Tls { ca_file: self.ca_file.clone(), server_name: self.server_name.clone(), certificate })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StaticConfig {
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// A duration as Prometheus writes it.
#[derive(Clone, Copy)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let ms = parse_duration(&text).map_err(serde::de::Error::custom)?;
        Ok(Self(Duration::from_millis(ms.unsigned_abs())))
    }
}

/// A number of bytes: `10MB`, `512KiB`, `0` for no limit of its own. Prometheus counts both in 1024s.
#[derive(Clone, Copy)]
struct Size(usize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let shift = match unit {
            "" | "B" => Some(0),
            "KB" | "KiB" => Some(10),
            "MB" | "MiB" => Some(20),
            "GB" | "GiB" => Some(30),
            _ => None,
        };
        let number: Option<usize> = number.parse().ok();
        let bytes = number.zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
        let bad = || serde::de::Error::custom(format!("{:?} is no size: write 10MB", start_of(&text)));
        bytes.map(Self).ok_or_else(bad)
    }
}

impl ScrapeConfig {
    fn common(&self, global: &Global) -> Result<Common, String> {
        let interval = self.scrape_interval.or(global.scrape_interval).map_or(INTERVAL, |span| span.0);
        // As in Prometheus: a timeout of the job must fit, the global one is cut to fit.
        let timeout = match self.scrape_timeout {
            Some(Span(timeout)) if timeout > interval => {
                return Err("the scrape_timeout is longer than the scrape_interval".to_owned());
            }
            Some(Span(timeout)) => timeout,
            None => global.scrape_timeout.map_or(TIMEOUT, |span| span.0).min(interval),
        };
        let https = self.scheme == Some(Scheme::Https);
        // A rule may turn a target to https.
        if self.tls_config.is_some() && !https && self.relabel_configs.is_empty() {
            return Err("a tls_config needs scheme: https".to_owned());
        }
        let tls = self.tls_config.as_ref().map(TlsConfig::tls).transpose()?.unwrap_or_default();
        let job = Job {
            interval,
            timeout,
            tls: None,
            authorization: self.authorization()?,
            follow_redirects: self.follow_redirects.unwrap_or(true),
            honor_labels: self.honor_labels,
            honor_timestamps: self.honor_timestamps.unwrap_or(true),
            metric_rules: self.metric_relabel_configs.clone(),
            samples_max: self.sample_limit.filter(|limit| *limit > 0).unwrap_or(SAMPLES_MAX),
            body_bytes_max: self.body_size_limit.map(|size| size.0).filter(|bytes| *bytes > 0),
        };
        let (job, job_tls) = Common::variants(job, tls);
        Ok(Common {
            name: self.job_name.clone(),
            job,
            job_tls,
            https,
            path: self.metrics_path.clone().unwrap_or_else(|| "/metrics".to_owned()),
            params: self.params.clone(),
            rules: self.relabel_configs.clone(),
        })
    }

    fn authorization(&self) -> Result<Option<Authorization>, String> {
        let one = "give one of basic_auth, authorization and bearer_token_file, with one password or file";
        let secret = |text: &Option<String>, file: &Option<PathBuf>| match (text, file) {
            (Some(text), None) => Ok(Secret::Text(text.clone())),
            (None, Some(file)) => Ok(Secret::File(file.clone())),
            _ => Err(one.to_owned()),
        };
        match (&self.basic_auth, &self.authorization, &self.bearer_token_file) {
            (None, None, None) => Ok(None),
            (Some(basic), None, None) => {
                let password = secret(&basic.password, &basic.password_file)?;
                Ok(Some(Authorization::Basic { username: basic.username.clone(), password }))
            }
            (None, Some(token), None) => {
                let credentials = secret(&token.credentials, &token.credentials_file)?;
                let scheme = token.scheme.clone().unwrap_or_else(|| "Bearer".to_owned());
                Ok(Some(Authorization::Token { scheme, credentials }))
            }
            (None, None, Some(file)) => {
                let credentials = Secret::File(file.clone());
                Ok(Some(Authorization::Token { scheme: "Bearer".to_owned(), credentials }))
            }
            _ => Err(one.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHOLE: &str = "
global: {scrape_interval: 30s, scrape_timeout: 20s}
scrape_configs:
  - job_name: web
    scrape_interval: 15s
    metrics_path: /m
    scheme: https
    params: {module: [a b, c]}
    honor_labels: true
    sample_limit: 5
    body_size_limit: 10MB
    basic_auth: {username: u, password: p}
    tls_config: {ca_file: /ca, server_name: web}
    static_configs:
      - targets: ['web-0:8080', web-1]
        labels: {pod: p, job: other}
  - job_name: plain
    bearer_token_file: /t
    static_configs: [{targets: ['[::1]:9']}]
";

    #[test]
    fn the_words_of_prometheus_are_understood() {
        let targets = parse(WHOLE, false).expect("understood").targets;
        let urls: Vec<_> = targets.iter().map(Target::url).collect();
        let query = "module=a%20b&module=c";
        assert_eq!(
            urls,
            [
                format!("https://web-0:8080/m?{query}"),
                format!("https://web-1:443/m?{query}"),
                "http://[::1]:9/metrics".to_owned()
            ]
        );
        let web = &targets[0];
        let labels: Vec<_> = web.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(labels, ["instance=web-0:8080", "job=other", "pod=p"]);
        let seconds = |job: &Job| (job.interval.as_secs(), job.timeout.as_secs());
        assert_eq!((seconds(&web.job), seconds(&targets[2].job)), ((15, 15), (30, 20)));
        assert_eq!((web.job.samples_max, web.job.body_bytes_max), (5, Some(10 << 20)));
        assert!(web.job.honor_labels && web.job.honor_timestamps);
        assert!(!format!("{web:?}").contains("\"p\", \"p\""), "secrets are not shown");
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        let error = parse("scrape_configs:\n- job_name: a\n  oauth2: {}\n", false).expect_err("refused");
        assert!(error.contains("oauth2") && error.contains("line 3"), "{error}");
        let job = |more: &str| format!("scrape_configs:\n- job_name: a\n  {more}\n");
        for (text, why) in [
            (job("scrape_timeout: 2m"), "longer than the scrape_interval"),
            (job("scrape_interval: soon"), "soon"),
            (job("tls_config: {ca_file: x}"), "scheme: https"),
            (job("basic_auth: {username: u}"), "one password or file"),
            (job("body_size_limit: 1TB"), "is no size"),
            (job("scheme: ftp"), "ftp"),
            (job("static_configs: [{targets: ['http://x']}]"), "is no target"),
            (job("relabel_configs: [{action: paint}]"), "is no action"),
            (job("metric_relabel_configs: [{regex: '('}]"), "target_label"),
            (job("scheme: https\n  tls_config: {cert_file: x}"), "key_file"),
            (
                job(
                    "static_configs: [{targets: [x]}]\n  relabel_configs: [{target_label: __scheme__, replacement: ftp}]",
                ),
                "\"ftp\" is no scheme",
            ),
            (
                job(
                    "static_configs: [{targets: [x]}]\n  relabel_configs: [{target_label: __address__, replacement: ''}]",
                ),
                "is no target",
            ),
            (job("scrape_interval: 1m") + "- job_name: a\n", "job_name of its own"),
            ("rule_files: []".to_owned(), "rule_files"),
            (job("kubernetes_sd_configs: [{role: pod}]"), "needs a cluster: give --kubeconfig"),
            (
                job("kubernetes_sd_configs: [{role: endpoints}]"),
                "\"endpoints\" is not supported, only pod is",
            ),
            (job("kubernetes_sd_configs: [{role: pod, api_server: x}]"), "api_server"),
            (job("kubernetes_sd_configs: [{role: pod, namespaces: {names: [a/b]}}]"), "is no namespace"),
            (
                job("kubernetes_sd_configs: [{role: pod, selectors: [{role: node}]}]"),
                "\"node\" is not supported",
            ),
            (
                job("kubernetes_sd_configs: [{role: pod, selectors: [{role: pod, label: 'a in'}]}]"),
                "kubernetes_sd_configs: ",
            ),
            (job("kubernetes_sd_configs: [{role: pod, selectors: [{role: pod}, {role: pod}]}]"), "one entry"),
        ] {
            let error = parse(&text, false).expect_err(&text);
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(read(Path::new("/nonexistent.yml"), false).is_err());
    }

    #[test]
    fn targets_are_relabelled_as_prometheus_does_it() {
        let targets = parse(
            "
scrape_configs:
  - job_name: web
    params: {module: [a, b]}
    tls_config: {ca_file: /ca}
    static_configs:
      - targets: ['web-0:8080', 'web-1', 'db-0:9187', 'probed']
        labels: {__team: blue}
    relabel_configs:
      - {source_labels: [__address__], regex: 'db-.*', action: drop}
      - {source_labels: [__address__], regex: '(web)-([0-9]+).*', target_label: pod, replacement: $1-$2}
      - {source_labels: [__address__], regex: 'web-1', target_label: __scheme__, replacement: https}
      - {source_labels: [__address__], regex: probed, target_label: __param_target, replacement: site}
      - {source_labels: [__address__], regex: probed, target_label: __param_module, replacement: c}
      - {source_labels: [__address__], regex: probed, target_label: instance, replacement: site}
      - {source_labels: [__address__], regex: probed, target_label: __metrics_path__, replacement: /probe}
      - {source_labels: [__address__], regex: probed, target_label: __scrape_interval__, replacement: 5m}
      - {source_labels: [__address__], regex: probed, target_label: __address__, replacement: 'prober:1'}
      - {regex: '__(team)', action: labelmap}
",
            false,
        )
        .expect("understood")
        .targets;
        let told = |target: &Target| {
            let labels: Vec<_> = target.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
            format!("{} {} {:?}", target.url(), labels.join(","), target.job.interval)
        };
        assert_eq!(
            targets.iter().map(told).collect::<Vec<_>>(),
            [
                "http://web-0:8080/metrics?module=a&module=b instance=web-0:8080,job=web,pod=web-0,team=blue 60s",
                "https://web-1:443/metrics?module=a&module=b instance=web-1:443,job=web,pod=web-1,team=blue 60s",
                "http://prober:1/probe?module=c&module=b&target=site instance=site,job=web,team=blue 300s",
            ]
        );
        assert_eq!(targets[1].job.tls.as_ref().and_then(|tls| tls.ca_file.clone()), Some("/ca".into()));
        assert_eq!(targets[0].job.tls, None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z_:\\- \n\\[\\]{}'0-9]{0,80}") {
            let _ = parse(&text, true);
            let _ = parse(&format!("scrape_configs:\n- job_name: a\n  {text}"), true);
        }
    }
}
