//! Flags of the secure port: its certificate, and whose word on identity counts there.

use clap::Args;
use std::path::PathBuf;

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
