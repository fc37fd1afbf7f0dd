//! The `lookback` command.
//!
//! Exit codes: 0 after an orderly stop, 1 with one sentence on stderr when something is wrong, 2 for a
//! command line that is none.

use anyhow::Context as _;
use clap::Parser;
use lookback::app::{App, Parts};
use lookback::clock::{Clock, SystemClock};
use lookback::commands::check_config::check_config;
use lookback::commands::{explain, export, inspect, migrate, operations, outbox, registration, shadow};
use lookback::config::export::ExportArgs;
use lookback::config::migrate::MigrateArgs;
use lookback::config::retention::{parse_rules, read_rules_file};
use lookback::config::shadow::ShadowArgs;
use lookback::config::{
    BackupArgs, Cli, Command, DeleteCommand, ImportCommand, LogArgs, LogFormat, Selector, ServeArgs,
    StoreArgs,
};
use lookback::http::server::Limits;
use lookback::ingest::import::import;
use lookback::kubernetes::catalog::Catalog;
use lookback::metadata::{self, Metadata};
use lookback::serve::banner::Banner;
use lookback::serve::prepare::{Prepared, prepare};
use lookback::serve::remote_store::{RemoteStore, random};
use lookback::serve::retention::RulesFile;
use lookback::serve::serve;
use lookback::sources::kubelet::collector;
use lookback::sources::scrape::scraper;
use lookback::store::Store;
use lookback::store::embedded::EmbeddedStore;
use lookback::store::memory;
use lookback::store::prometheus::RemoteSettings;
use lookback::telemetry::Metrics;
use lookback::time::whole_ms;
use lookback_storage::{Options, Selection};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What a series takes counts a million times: some 40 % less than with glibc's, and musl's is slow beside.
#[global_allocator]
static ALLOCATOR: lookback_allocator::MiMalloc = lookback_allocator::MiMalloc;

fn main() -> ExitCode {
    lookback_allocator::give_back_soon();
    let done = match Cli::parse().into_command() {
        Command::Serve(args) => run(&args.log, run_server(&args)),
        Command::Import(args) => run(&args.log, run_import(&args)),
        Command::Explain(args) => run(&args.log, explain::explain(&args)),
        Command::Verify(args) => run(&args.log.clone(), aside(move || operations::verify(&args))),
        Command::Backup(args) => run(&args.log, run_backup(&args)),
        Command::Restore(args) => run(&args.log.clone(), aside(move || operations::restore(&args))),
        Command::Preflight(args) => run(&args.registration.log, registration::preflight(&args)),
        Command::TakeOver(args) => run(&args.registration.log, registration::take_over(&args)),
        Command::GiveBack(args) => run(&args.log, registration::give_back(&args)),
        Command::Shadow(args) => run(&args.log, run_shadow(&args)),
        Command::Delete(args) => run(&args.log, run_delete(&args)),
        Command::Inspect(args) => run(&args.log.clone(), aside(move || inspect::inspect(&args))),
        Command::Export(args) => run(&args.log, run_export(&args)),
        Command::Migrate(args) => run(&args.log, run_migrate(&args)),
        Command::CheckConfig(args) => run(&args.log.clone(), aside(move || check_config(&args))),
        Command::Outbox(args) => run(args.what.log(), outbox::outbox(&args.what)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lookback: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(log: &LogArgs, command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    start_logs(log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the threads of the server can't be started")?;
    let done = runtime.block_on(command);
    // A store that is still being opened is not waited for.
    runtime.shutdown_background();
    done
}

fn start_logs(args: &LogArgs) {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(args.targets());
    match args.log_format {
        LogFormat::Text => registry.with(lines).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
}

/// Allows this process as many open files as the system lets it have: connections and blocks need them.
fn raise_open_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, current = limit.current, "the limit of open files can't be raised");
    }
}

async fn run_server(args: &ServeArgs) -> anyhow::Result<()> {
    raise_open_files_limit();
    // Before anything is opened, so that no signal is lost.
    let stop = stop_signals().context("signals can't be listened for")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let Prepared {
        settings,
        remote,
        opening,
        rules,
        plain,
        secure,
        has_credentials,
        cluster,
        delegates,
        scrape,
        usage,
        background,
    } = prepare(args, clock.clone()).await?;
    let banner = Banner {
        data_dir: &args.store.data_dir,
        plain: plain.listener.local_addr()?,
        secure: secure.as_ref().map(|secure| secure.listener.local_addr()).transpose()?,
        has_credentials,
    }
    .to_string();

    let (metadata, metrics) = (Arc::new(Metadata::default()), Arc::new(Metrics::default()));
    let counters = settings.counters();
    let app = App::new(Parts {
        store: opening.clone(),
        clock: clock.clone(),
        catalog: Arc::new(Catalog::new(settings.served.clone())),
        settings,
        metrics: metrics.clone(),
        cluster,
        metadata: metadata.clone(),
    })
    .delegating(delegates)
    .with_rules(rules);
    // Ends with this function.
    let _background = background.into_iter().collect::<JoinSet<()>>();
    let shutdown = CancellationToken::new();
    let scraping = app.clone();
    let serving = serve(app, plain, secure, Limits::default(), shutdown.clone().cancelled_owned());
    let working = async {
        // However this ends, the server is to end with it.
        let _stop_serving = shutdown.clone().drop_guard();
        let mut stop = pin!(stopped(stop));
        let store = tokio::select! {
            store = Kept::open(&args.store, remote, counters, &metrics, clock) => store?,
            // What is being replayed is as durable as before.
            () = &mut stop => return anyhow::Ok(None),
        };
        opening.opened(store.store());
        drop(opening);
        let (metadata, data_dir) = (metadata.clone(), args.store.data_dir.clone());
        let kept = tokio::spawn(metadata::file::keep(metadata, data_dir, shutdown.clone()));
        let collecting = usage.map(|usage| collector::run(scraping.clone(), usage, shutdown.clone()));
        let collected = tokio::spawn(async move {
            if let Some(collecting) = collecting {
                collecting.await;
            }
        });
        let scraped = tokio::spawn(scraper::run(scraping, scrape, shutdown.clone()));
        // A closed stdout is no reason not to serve.
        let _ = std::io::stdout().write_all(banner.as_bytes());
        stop.await;
        Ok(Some((store, kept, scraped, collected)))
    };
    let ((), store) = tokio::join!(serving, working);
    if let Some((store, kept, scraped, collected)) = store? {
        collected.await.context("the collector of usage ended badly")?;
        scraped.await.context("the scraper ended badly")?;
        kept.await.context("the keeper of metadata ended badly")?;
        store.close().await?;
    }
    tracing::info!("stopped");
    Ok(())
}

async fn run_backup(args: &BackupArgs) -> anyhow::Result<()> {
    let store = Opened::open(&args.store, BTreeSet::new(), &Arc::default(), Arc::new(SystemClock)).await?;
    let (engine, to) = (store.store.engine().clone(), args.to.clone());
    let bar = operations::progress_bar();
    let shown = bar.clone();
    let to_stdout = to == Path::new("-");
    let backup = tokio::task::spawn_blocking(move || {
        let progress = |done, all| operations::follow(&shown, done, all);
        if to_stdout {
            return engine.backup_stream(std::io::stdout().lock(), progress);
        }
        engine.backup(&to, progress)
    });
    let backup = backup.await?;
    bar.finish_and_clear();
    store.close().await?;
    let report = backup?;
    for what in &report.left_out {
        tracing::warn!(what, "not in the backup");
    }
    let said = format!("backed up {}", operations::summary(&report));
    if to_stdout {
        eprintln!("{said}");
        return Ok(());
    }
    writeln!(std::io::stdout(), "{said}")?;
    Ok(())
}

async fn run_shadow(args: &ShadowArgs) -> anyhow::Result<()> {
    let stop = stop_signals().context("signals can't be listened for")?;
    shadow::shadow(args, &SystemClock, stopped(stop)).await
}

/// Does work that blocks on a thread of its own.
async fn aside(work: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(work).await?
}

async fn run_import(args: &ImportCommand) -> anyhow::Result<()> {
    let options = args.import.options()?;
    let file = args.import.file.display();
    let (input, progress) = args.import.open().with_context(|| format!("{file} can't be opened"))?;
    let store = Opened::open(&args.store, BTreeSet::new(), &Arc::default(), Arc::new(SystemClock)).await?;
    let imported = import(&store.store, input, options, &SystemClock, &progress).await;
    store.close().await?;
    // A closed stdout does not undo the import.
    let _ = writeln!(std::io::stdout(), "{}", imported.map_err(|error| anyhow::anyhow!("{error}"))?);
    Ok(())
}

async fn run_delete(args: &DeleteCommand) -> anyhow::Result<()> {
    let asked = args.clone();
    let deleted = tokio::task::spawn_blocking(move || {
        // A directory that is not there holds nothing to delete, and is not made.
        std::fs::metadata(&asked.data_dir)
            .with_context(|| format!("the data directory {}", asked.data_dir.display()))?;
        // Without maintenance: nothing expires by a retention that is not the server's.
        let store =
            EmbeddedStore::open(&asked.data_dir, Options { retention_ms: None, ..Options::default() })?;
        let (start_ms, end_ms) = asked.span.bounds_ms();
        let mut series = 0;
        for Selector(matchers) in &asked.selectors {
            series += store.engine().delete(Selection { matchers, visible: None }, start_ms, end_ms)?;
        }
        anyhow::Ok(series)
    });
    let series = deleted.await.context("the delete broke off")??;
    // A closed stdout does not undo the delete.
    let _ = writeln!(std::io::stdout(), "deleted samples of {series} series");
    Ok(())
}

async fn run_export(args: &ExportArgs) -> anyhow::Result<()> {
    let stop = stop_signals().context("signals can't be listened for")?;
    let cancelled = Arc::new(AtomicBool::new(false));
    let (args, told) = (args.clone(), Arc::clone(&cancelled));
    let mut exporting = tokio::task::spawn_blocking(move || export::export(&args, &told));
    tokio::select! {
        exported = &mut exporting => return exported.context("the export broke off")?,
        () = stopped(stop) => {}
    }
    cancelled.store(true, Ordering::Relaxed);
    tracing::info!("stopping the export");
    exporting.await.context("the export broke off")?
}

async fn run_migrate(args: &MigrateArgs) -> anyhow::Result<()> {
    let signals = stop_signals().context("signals can't be listened for")?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        stopped(signals).await;
        told.cancel();
    });
    migrate::migrate(args, Arc::new(SystemClock), Box::new(random), stop).await
}

/// What keeps the samples, open.
enum Kept {
    Embedded(Opened),
    Remote(RemoteStore),
}

impl Kept {
    async fn open(
        args: &StoreArgs,
        remote: Option<RemoteSettings>,
        counters: BTreeSet<String>,
        metrics: &Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        Ok(match remote {
            None => Self::Embedded(Opened::open(args, counters, metrics, clock).await?),
            Some(settings) => Self::Remote(RemoteStore::open(&args.data_dir, settings, clock).await?),
        })
    }

    fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(opened) => Arc::new(opened.store.clone()),
            Self::Remote(remote) => Arc::new(remote.store.clone()),
        }
    }

    async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Embedded(opened) => opened.close().await,
            Self::Remote(remote) => remote.close().await,
        }
    }
}

/// An open store with its background work.
struct Opened {
    store: EmbeddedStore,
    maintenance: JoinHandle<()>,
    rules: Option<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Opened {
    /// Opens the store in the data directory; replays its log.
    async fn open(
        args: &StoreArgs,
        counters: BTreeSet<String>,
        metrics: &Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let mut options = Options {
            out_of_order_window_ms: whole_ms(args.out_of_order_window),
            counters,
            on_damage: args.damage.on_damage.into(),
            when_idle: Some(lookback_allocator::give_back_now),
            ..Options::default()
        };
        args.keep.apply(&mut options);
        args.limits.apply(&mut options);
        let (dir, rules_path) = (args.data_dir.clone(), args.keep.retention_rules.clone());
        if let Some(path) = &rules_path {
            // What is wrong in it is told before a long log is replayed.
            parse_rules(path, &read_rules_file(path)?)?;
        }
        let now_ms = clock.now_ms();
        let opened = tokio::task::spawn_blocking(move || {
            let store = EmbeddedStore::open(&dir, options)?;
            store.engine().tell_time(now_ms);
            let rules = rules_path.map(|path| RulesFile::apply(&path, store.engine())).transpose()?;
            anyhow::Ok((store, rules))
        });
        let (store, rules) = opened.await??;
        let stop = CancellationToken::new();
        let rules = rules.map(|rules| {
            tokio::spawn(rules.follow(store.engine().clone(), Arc::clone(metrics), stop.clone()))
        });
        let memory_max_bytes = memory::bound(args.limits.memory_max);
        let maintenance = tokio::spawn(store.clone().maintain(clock, memory_max_bytes, stop.clone()));
        Ok(Self { store, maintenance, rules, stop })
    }

    /// Ends the background work. The store closes with its last holder, which is to be this one, and
    /// writes what was handed to it first.
    async fn close(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.maintenance.await.context("the maintenance of the store ended badly")?;
        if let Some(rules) = self.rules {
            rules.await.context("the reader of retention rules ended badly")?;
        }
        let store = self.store;
        tokio::task::spawn_blocking(move || drop(store)).await.context("the store did not close")
    }
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
