//! What the command line takes, and what it means.

use super::*;
use clap::CommandFactory;

fn serve(args: &[&str]) -> ServeArgs {
    let cli = Cli::try_parse_from([&["lookback"], args].concat()).expect("valid");
    match cli.into_command() {
        Command::Serve(args) => *args,
        other => panic!("no server: {other:?}"),
    }
}

fn refused(args: &[&str]) -> clap::Error {
    Cli::try_parse_from([&["lookback"], args].concat()).expect_err("refused")
}

#[test]
fn the_command_line_is_consistent_and_every_flag_has_its_variable() {
    let command = Cli::command();
    command.clone().debug_assert();
    for flag in command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
        let variable = format!("LOOKBACK_{}", flag.get_id().as_str().to_uppercase());
        assert_eq!(flag.get_env().and_then(|v| v.to_str()), Some(variable.as_str()));
    }
}

#[test]
fn serve_is_the_default_subcommand() {
    for args in [&["serve", "--listen", "127.0.0.1:9"][..], &["--listen", "127.0.0.1:9"]] {
        assert_eq!(serve(args).listen.port(), 9);
    }
}

#[test]
fn the_defaults_are_as_documented() {
    let args = serve(&[]);
    assert_eq!(args.store.data_dir, PathBuf::from("./lookback-data"));
    assert_eq!(args.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(args.secure_listen().map(|a| a.to_string()).as_deref(), Some("127.0.0.1:6443"));
    assert_eq!(args.store.keep.retention, Retention::AtLeast(Duration::from_secs(15 * 24 * 3600)));
    assert_eq!(args.store.out_of_order_window, Duration::from_secs(3600));
    assert_eq!(args.secure.requestheader_username_headers, ["X-Remote-User"]);
    assert!(args.secure.requestheader_allowed_names.is_empty());
    assert_eq!(args.log.log_format, LogFormat::Text);
    let settings = args.app_settings().expect("valid");
    assert_eq!((settings.freshness, settings.points_max), (Duration::from_secs(300), 50_000));
}

#[test]
fn flags_are_read() {
    let args = serve(&[
        "--secure-port=0",
        "--retention=off",
        "--rollups=5m=90d,1h=off",
        "--retention-size=80%",
        "--freshness=90s",
        "--points-max=7",
        "--client-requests-per-second=off",
        "--ownership-interval=off",
        "--horizontal-pod-autoscaler-tolerance=0.2",
        "--horizontal-pod-autoscaler-downscale-stabilization=1m0s",
        "--horizontal-pod-autoscaler-cpu-initialization-period=0s",
        "--requestheader-allowed-names=front-proxy-client,aggregator",
        "--log-level=warn,lookback=debug",
    ]);
    assert_eq!((args.secure_listen(), args.store.keep.retention), (None, Retention::Off));
    let mut options = lookback_storage::Options::default();
    args.store.keep.apply(&mut options);
    assert_eq!(options.rollups, [(300_000, Some(90 * 86_400_000)), (3_600_000, None)].into());
    assert_eq!(options.size_max, Some(lookback_storage::SizeMax::VolumePercent(80.0)));
    assert_eq!(args.secure.requestheader_allowed_names, ["front-proxy-client", "aggregator"]);
    let settings = args.app_settings().expect("valid");
    assert_eq!((settings.freshness, settings.points_max), (Duration::from_secs(90), 7));
    assert_eq!((settings.client_requests_per_second, settings.ownership_interval), (None, None));
    let controller = settings.controller;
    assert_eq!((controller.tolerance, controller.down_stabilization_seconds), (0.2, 60));
    assert_eq!((controller.cpu_initialization_ms, controller.initial_readiness_ms), (0, 30_000));
}

#[test]
fn flags_with_kubernetes_names_mean_what_they_mean_there() {
    let args = serve(&["--tls-min-version=VersionTLS13", "--v=4", "--service=monitoring/metrics"]);
    assert_eq!(args.tls.options().min_version, crate::http::tls::MinVersion::Tls13);
    assert!(args.log.targets().would_enable("lookback::http", &tracing::Level::DEBUG));
    assert!(!args.log.targets().would_enable("hyper", &tracing::Level::DEBUG));
    let service = args.tls.service(Some("ignored")).expect("a service");
    assert_eq!((service.namespace.as_str(), service.name.as_str()), ("monitoring", "metrics"));
    assert!(serve(&[]).tls.service(None).is_none());
}

#[test]
fn an_import_names_its_file_and_store() {
    let line = ["lookback", "import", "--data-dir=/data", "--retention=off", "history.csv.gz"];
    let Command::Import(command) = Cli::try_parse_from(line).expect("valid").into_command() else {
        panic!("not a server");
    };
    assert_eq!(command.store.data_dir, PathBuf::from("/data"));
    assert_eq!(command.import.file, PathBuf::from("history.csv.gz"));
}

#[test]
fn wrong_flags_are_usage_errors_that_say_what_is_accepted() {
    for (args, said) in [
        (&["--prometheus-url=prometheus"][..], "http://HOST:PORT"),
        (&["--prometheus-client-tls-cert-file=x"], "--prometheus-client-tls-key-file"),
        (&["--retention=soon"], "or off"),
        (&["--rollups=7m=1d"], "5m"),
        (&["--retention-size=big"], "50GiB"),
        (&["--freshness=0"], "zero"),
        (&["--horizontal-pod-autoscaler-tolerance=-1"], "such as 0.1"),
        (&["--points-max=0"], "from 1"),
        (&["--client-requests-per-second=0"], "or off"),
        (&["--listen=nowhere"], "--listen"),
        (&["--tls-cert-file=x"], "--tls-private-key-file"),
        (&["--unknown"], "--unknown"),
        (&["--log-format=xml"], "text, json"),
        (&["--tls-min-version=VersionTLS11"], "VersionTLS12, VersionTLS13"),
        (&["--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA"], "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        (&["--runtime-config=apps/v1=false"], "external.metrics.k8s.io=false"),
    ] {
        let error = refused(args);
        assert_eq!(error.exit_code(), 2, "{args:?}");
        assert!(error.to_string().contains(said), "{error}");
    }
}
