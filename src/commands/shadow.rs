//! `lookback shadow`: asks the adapter that the cluster has and Lookback what every autoscaler asks, computes by
//! its own formula what it would make of either answer, and reports where they differ, over days.
//!
//! It needs no APIService and changes nothing. What it found is kept in a state file after each round, so that
//! it goes on after a restart.

mod question;
mod report;
mod round;
mod tally;

use self::report::print;
use self::round::Round;
use self::tally::State;
use super::client;
use crate::clock::Clock;
use crate::config::shadow::{Output, ShadowArgs};
use crate::kubernetes::adapter::{Adapter, AdapterSettings};
use crate::kubernetes::cluster::reasons;
use crate::time::whole_ms;
use anyhow::Context;
use std::path::Path;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{info, warn};

/// Compares until `stop`, or for as long as the flags say; then prints the report.
///
/// # Errors
/// When the state file or the connections can't be used, or no round went through.
pub async fn shadow(
    args: &ShadowArgs,
    clock: &dyn Clock,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let path = &args.state_file;
    let mut state = read(path)?;
    if !args.report {
        let round = connect(args).await?;
        compare(args, clock, stop, &round, &mut state).await?;
    }
    let state = state.with_context(|| match args.report {
        true => format!("{} is not there: nothing has been compared yet", path.display()),
        false => "nothing was compared: see the log".to_owned(),
    })?;
    match args.output {
        Output::Text => print(&report::text(&state)),
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(&state)?)),
    }
    Ok(())
}

async fn connect(args: &ShadowArgs) -> anyhow::Result<Round> {
    let cluster = client(&args.cluster).await?;
    let present = Adapter::of_client("the present adapter".to_owned(), cluster.clone(), args.timeout);
    let settings = AdapterSettings {
        address: args.server.clone(),
        ca_file: args.server_ca_file.clone(),
        token_file: args.token_file.clone(),
        server_name: args.server_name.clone(),
        timeout: args.timeout,
    };
    let lookback = Adapter::new(&settings).context("--server, --server-ca-file, --token-file")?;
    let controller = args.autoscaling.settings();
    Ok(Round::new(cluster, present, lookback, args.namespace.clone(), controller))
}

async fn compare(
    args: &ShadowArgs,
    clock: &dyn Clock,
    stop: impl Future<Output = ()>,
    round: &Round,
    state: &mut Option<State>,
) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(stop);
    let end = args.duration.map(|duration| Instant::now() + duration);
    let ended = async {
        match end {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    let mut ended = std::pin::pin!(ended);
    let mut rounds = interval(args.interval);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = &mut ended => return Ok(()),
            _ = rounds.tick() => {}
        }
        let compared = tokio::select! {
            () = &mut stop => return Ok(()),
            compared = round.compare(clock.now_ms()) => compared,
        };
        let compared = match compared {
            Ok(compared) => compared,
            Err(error) => {
                warn!(error = %reasons(&error), "the cluster's autoscalers can't be listed: this round is left out");
                continue;
            }
        };
        let now_ms = clock.now_ms();
        let state = state.get_or_insert_with(|| State::new(now_ms));
        for one in &compared {
            if let Some(difference) = one.difference() {
                info!(autoscaler = one.name, difference, "they would scale otherwise");
            }
        }
        state.add(&compared, now_ms, args.value_tolerance);
        write(&args.state_file, state)?;
        if args.rounds.is_some_and(|most| state.rounds >= most) {
            return Ok(());
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Option<State>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("--state-file {}", path.display())),
    };
    let state: State = serde_json::from_slice(&text).with_context(|| {
        format!("--state-file {} is no state of lookback shadow: give another", path.display())
    })?;
    Ok(Some(state))
}

/// Whole or not at all.
fn write(path: &Path, state: &State) -> anyhow::Result<()> {
    let next = path.with_extension("next");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&next)?;
        std::io::Write::write_all(&mut file, &serde_json::to_vec(state)?)?;
        file.sync_all()?;
        std::fs::rename(&next, path)
    };
    write().with_context(|| format!("--state-file {} can't be written", path.display()))
}

/// A time for people.
fn time(timestamp_ms: i64) -> String {
    let second =
        jiff::Timestamp::from_second(timestamp_ms.div_euclid(whole_ms(std::time::Duration::from_secs(1))));
    second.map_or_else(|_| format!("{timestamp_ms} ms"), |time| time.to_string())
}
