//! The `lookback` command.
//!
//! Exit codes: 0 after an orderly stop, 1 with one sentence on stderr when something is wrong, 2 for a
//! command line that is none.

use anyhow::Context as _;
use clap::Parser;
use lookback::app::{App, Parts};
use lookback::clock::{Clock, SystemClock};
use lookback::config::{Cli, Command, LogArgs, LogFormat, Retention, ServeArgs};
use lookback::http::server::Limits;
use lookback::serve::banner::Banner;
use lookback::serve::prepare::{Prepared, prepare};
use lookback::serve::serve;
use lookback::store::embedded::EmbeddedStore;
use lookback_storage::Options;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
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
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
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
    runtime.block_on(run_until_stopped(args))
}

async fn run_until_stopped(args: &ServeArgs) -> anyhow::Result<()> {
    // Before anything is opened, so that no signal is lost.
    let stop = stop_signals().context("signals can't be listened for")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let Prepared { settings, plain, secure, has_credentials } = prepare(args, clock.clone()).await?;
    let banner = Banner {
        data_dir: &args.data_dir,
        plain: plain.listener.local_addr()?,
        secure: secure.as_ref().map(|secure| secure.listener.local_addr()).transpose()?,
        has_credentials,
    }
    .to_string();

    let store = open_store(args).await?;
    let (maintained, maintenance_stop) = (store.clone(), CancellationToken::new());
    let maintenance = tokio::spawn(maintained.maintain(clock.clone(), maintenance_stop.clone()));
    // A closed stdout is no reason not to serve.
    let _ = std::io::stdout().write_all(banner.as_bytes());
    let app = App::new(Parts {
        store: Arc::new(store),
        clock,
        settings,
        metrics: Arc::default(),
        catalog: Arc::default(),
    });
    serve(app, plain, secure, Limits::default(), stopped(stop)).await;

    // The store closes with its last holder, and writes what was handed to it first.
    maintenance_stop.cancel();
    maintenance.await.context("the maintenance of the store ended badly")?;
    tracing::info!("stopped");
    Ok(())
}

/// Opens the embedded store in the data directory; replays its log.
async fn open_store(args: &ServeArgs) -> anyhow::Result<EmbeddedStore> {
    let whole_ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let options = Options {
        retention_ms: match args.retention {
            Retention::AtLeast(retention) => Some(whole_ms(retention)),
            Retention::Off => None,
        },
        out_of_order_window_ms: whole_ms(args.out_of_order_window),
        ..Options::default()
    };
    let dir = args.data_dir.clone();
    Ok(tokio::task::spawn_blocking(move || EmbeddedStore::open(&dir, options)).await??)
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
