//! `lookback check-config`: how each rule of a file stands.

use crate::config::CheckConfigArgs;
use crate::rules::source::{OWN_STORE, SourceNames};
use crate::rules::{Status, check};
use anyhow::{Context, bail};
use std::fmt::Write as _;
use std::io::Write as _;

/// Shows how each rule stands, with an example of what it asks; fails where one can't be used.
///
/// # Errors
/// When the file can't be used, or a rule of it.
pub fn check_config(args: &CheckConfigArgs) -> anyhow::Result<()> {
    let file = args.file.display();
    let text = crate::serve::rules::read(&args.file)?;
    let servers = args.prometheus_url.iter().map(|server| server.name.clone());
    let names = SourceNames::new(servers.chain([OWN_STORE.to_owned()]).collect());
    let statuses =
        check(&text, &names).map_err(|problem| anyhow::anyhow!("{problem}")).context(file.to_string())?;
    // A closed stdout takes nothing from the verdict.
    let _ = std::io::stdout().write_all(table(&statuses).as_bytes());
    match statuses.iter().filter(|status| status.outcome.is_err()).count() {
        0 => Ok(()),
        disabled => {
            bail!("{file}: {disabled} of {} rules can't be used; the others would hold", statuses.len())
        }
    }
}

fn table(statuses: &[Status]) -> String {
    let mut text = String::new();
    for Status { name, place, outcome } in statuses {
        let _ = match outcome {
            Ok(example) => writeln!(text, "{name} ({place}): ok: {}", example.trim().replace('\n', " ")),
            Err(reason) => writeln!(text, "{name} ({place}): DISABLED: {reason}"),
        };
    }
    if statuses.is_empty() {
        text.push_str("no rules\n");
    }
    text
}
