//! The `lookback` command.
//!
//! Exit codes: 0 after an orderly stop, 1 with one sentence on stderr when something is wrong, 2 for a
//! command line that is none.

use anyhow::Context as _;
use clap::Parser;
use lookback::app::{App, Parts};
use lookback::clock::{Clock, SystemClock};
use lookback::config::{Cli, Command, LogArgs, LogFormat, ServeArgs};
use lookback::http::server::Limits;
use lookback::serve::banner::Banner;
use lookback::serve::prepare::{Prepared, prepare};
use lookback::serve::serve;
use lookback::store::Store;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> ExitCode {
    let done = match Cli::parse().into_command() {
        Command::Serve(args) => run_server(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lookback: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logs(args: &LogArgs) {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(args.log_level.clone());
    match args.log_format {
        LogFormat::Text => registry.with(lines).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
}

fn run_server(args: &ServeArgs) -> anyhow::Result<()> {
    start_logs(&args.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the threads of the server can't be started")?;
    runtime.block_on(async {
        // Before anything is opened, so that no signal is lost.
        let stop = stop_signals().context("signals can't be listened for")?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let Prepared { settings, plain, secure, has_credentials } = prepare(args, clock.clone()).await?;
        let store = open_store(args, clock.clone())?;
        let banner = Banner {
            data_dir: &args.data_dir,
            plain: plain.listener.local_addr()?,
            secure: secure.as_ref().map(|secure| secure.listener.local_addr()).transpose()?,
            has_credentials,
        }
        .to_string();
        // A closed stdout is no reason not to serve.
        let _ = std::io::stdout().write_all(banner.as_bytes());
        let app =
            App::new(Parts { store, clock, settings, metrics: Arc::default(), catalog: Arc::default() });
        serve(app, plain, secure, Limits::default(), stopped(stop)).await;
        Ok(())
    })
}

/// Opens the embedded store in the data directory.
fn open_store(args: &ServeArgs, _clock: Arc<dyn Clock>) -> anyhow::Result<Arc<dyn Store>> {
    anyhow::bail!("the store in {} can't be opened: this build has no engine", args.data_dir.display())
}

/// SIGINT and SIGTERM.
fn stop_signals() -> std::io::Result<(Signal, Signal)> {
    Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
}

async fn stopped((mut interrupt, mut terminate): (Signal, Signal)) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
