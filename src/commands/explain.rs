//! `lookback explain`: asks a running Lookback what an autoscaler was answered, and made of it.

use crate::config::explain::{ExplainArgs, ExplainCommand};
use anyhow::Context;
use axum::http::Request;
use kube::config::AuthInfo;
use kube::{Client, Config};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::io::Write;

/// Prints the explanation.
///
/// # Errors
/// When Lookback does not answer, or knows nothing of it.
pub async fn explain(args: &ExplainArgs) -> anyhow::Result<()> {
    let ExplainCommand::Hpa { name, at } = &args.what;
    let mut config = Config::new(args.server.parse().context("--server is no URL")?);
    if let Some(path) = &args.token_file {
        let token_file = Some(path.display().to_string());
        config.auth_info = AuthInfo { token_file, ..AuthInfo::default() };
    }
    let client = Client::try_from(config)?;
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut path = format!("/api/v1/explain/hpa/{}/{}", encode(&name.namespace), encode(&name.name));
    if let Some(at) = at {
        path.push_str(&format!("?at={}", encode(at)));
    }
    let request = Request::get(path).body(Vec::new())?;
    let text = client.request_text(request).await.map_err(|error| match error {
        kube::Error::Api(status) => anyhow::anyhow!("{}", status.message),
        other => anyhow::anyhow!("{}: {}", args.server, crate::kubernetes::cluster::reasons(&other)),
    })?;
    // A closed stdout is nobody's loss.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
