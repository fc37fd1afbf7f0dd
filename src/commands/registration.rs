//! `lookback preflight`, `take-over` and `give-back`: who serves the metrics APIs.

use super::client;
use crate::config::registration::{PreflightArgs, RegistrationArgs, TakeOverArgs};
use crate::kubernetes::registration::{ApiName, Registered, Registrations, Verdict, judge};
use anyhow::{Context, bail};
use std::fmt::Write as _;
use std::io::Write as _;

/// Shows who serves what; fails where registering Lookback would take it away from another.
///
/// # Errors
/// When it would, or the cluster can't be asked.
pub async fn preflight(args: &PreflightArgs) -> anyhow::Result<()> {
    let RegistrationArgs { cluster, service, apis, .. } = &args.registration;
    let registrations = Registrations::new(client(cluster).await?);
    let judged = judge(&registrations.read(apis).await?, service, args.take_over);
    print(&table(&judged));
    let refused: Vec<String> =
        judged.iter().filter(|(_, v)| v.is_refused()).map(|(one, _)| one.api.to_string()).collect();
    if !refused.is_empty() {
        bail!(
            "{} would be taken from whoever serves it now, with every autoscaler that uses it: leave it out \
             (--apis), or say --take-over",
            refused.join(", ")
        );
    }
    Ok(())
}

fn table(judged: &[(Registered, Verdict)]) -> String {
    let mut text = format!("{:<34} {:<36} {:<10} VERDICT\n", "APISERVICE", "SERVED BY", "AVAILABLE");
    for (one, verdict) in judged {
        let available = match one.is_available {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        let taken = if one.is_taken_over { " (taken over)" } else { "" };
        let owner = format!("{}{taken}", one.owner);
        let _ = writeln!(text, "{:<34} {owner:<36} {available:<10} {verdict}", one.api.to_string());
    }
    text
}

/// Registers the APIs to Lookback, and remembers who had them. Where one does not become available, all are
/// given back.
///
/// # Errors
/// When one does not become available, or the cluster refuses.
pub async fn take_over(args: &TakeOverArgs) -> anyhow::Result<()> {
    let RegistrationArgs { cluster, service, apis, .. } = &args.registration;
    let registrations = Registrations::new(client(cluster).await?);
    let ca = match &args.service_ca_file {
        Some(path) => {
            let ca = std::fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
            Some(ca)
        }
        None => None,
    };
    let port = i32::from(args.service_port);
    for (done, api) in apis.iter().enumerate() {
        let before = registrations.read(&[*api]).await?;
        let taken = registrations.take_over(*api, service, port, ca.as_deref(), args.wait).await;
        if let Err(error) = taken {
            let given_back = give_all_back(&registrations, &apis[..=done]).await;
            return Err(error).context(match given_back {
                Ok(()) => "all is given back as it was",
                Err(_) => "and NOT all could be given back: run lookback give-back",
            });
        }
        let from = before.first().map(|one| one.owner.to_string()).unwrap_or_default();
        print(&format!("{api}: {service} now, {from} before\n"));
    }
    print("To undo it: lookback give-back\n");
    Ok(())
}

/// Gives the APIs back to whom they were taken from.
///
/// # Errors
/// When the cluster refuses.
pub async fn give_back(args: &RegistrationArgs) -> anyhow::Result<()> {
    give_all_back(&Registrations::new(client(&args.cluster).await?), &args.apis).await
}

/// The last first, so that autoscalers go back to the version that the former owner serves. One that fails
/// does not keep the others.
async fn give_all_back(registrations: &Registrations, apis: &[ApiName]) -> anyhow::Result<()> {
    let mut failed = None;
    for api in apis.iter().rev() {
        match registrations.give_back(*api).await {
            Ok(Some(owner)) => print(&format!("{api}: {owner} again\n")),
            Ok(None) => print(&format!("{api}: not taken over, left as it is\n")),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// A closed stdout does not undo what was done.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
