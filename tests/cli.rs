//! The command as its users meet it: exit codes, one sentence for what is wrong, the banner, orderly ends.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::process::{Client, Server, free_port, lookback, run_to_end, wait_until};
use common::store::{open, read_dir};
use rustix::process::Signal;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a server that can't start; answers the sentence that says why.
#[track_caller]
fn refused(dir: &Path, args: &[&str]) -> String {
    let mut process = Server::spawn(dir, args);
    let status = process.wait();
    let (stdout, stderr) = (process.stdout.all(), process.stderr.all());
    assert_eq!(status.code(), Some(1), "{args:?}: {stderr}");
    assert_eq!(stdout, "", "nothing is served, so nothing is said to be");
    let said = stderr.lines().last().and_then(|line| line.strip_prefix("lookback: "));
    said.unwrap_or_else(|| panic!("{args:?}: the last line is no sentence of ours:\n{stderr}")).to_owned()
}

#[track_caller]
fn tells(sentence: &str, parts: &[&str]) {
    for part in parts {
        assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_data_directory_that_is_held_is_refused_with_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let holder = format!("process {}", server.process.id());
    tells(&refused(dir.path(), &[]), &[text(dir.path()), &holder, "--data-dir"]);
    let file = dir.path().join("history.csv");
    std::fs::write(&file, "ts,a\n1795338120000,1\n").unwrap();
    let import = run_to_end(lookback().args(["import", "--data-dir"]).arg(dir.path()).arg(&file));
    assert_eq!(import.status.code(), Some(1));
    tells(&String::from_utf8_lossy(&import.stderr), &["lookback: ", text(dir.path()), &holder]);
    // Whoever held it is not disturbed, and once it is gone the next one has it.
    assert_eq!(server.post("/write-metrics/nodes/n1/load", "1").status, 200);
    server.kill9();
    assert!(Server::start(dir.path(), &[]).terminate().success());
}

#[test]
fn a_port_that_is_taken_is_refused_with_its_flag() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listen = format!("--listen={address}");
    tells(&refused(dir.path(), &[&listen]), &[&address.to_string(), "choose another with --listen"]);
    let port = format!("--secure-port={}", address.port());
    tells(&refused(dir.path(), &[&port]), &[&address.to_string(), "--secure-port"]);
}

#[test]
fn an_address_that_others_reach_needs_credentials() {
    let dir = tempfile::tempdir().unwrap();
    for listen in ["--listen=0.0.0.0:0", "--listen=[::]:0"] {
        tells(&refused(dir.path(), &[listen]), &["--credentials-file", "--listen 127.0.0.1"]);
    }
    let secure_port = format!("--secure-port={}", free_port());
    let sentence = refused(dir.path(), &["--bind-address=0.0.0.0", &secure_port]);
    tells(&sentence, &["--bind-address", "--requestheader-client-ca-file", "--credentials-file"]);

    let file = dir.path().join("credentials.yaml");
    std::fs::write(&file, "credentials:\n- token: s3cret\n").unwrap();
    let args =
        ["--listen=0.0.0.0:0", "--bind-address=0.0.0.0", &secure_port, "--credentials-file", text(&file)];
    let server = Server::start(dir.path(), &args);
    assert!(server.banner.contains("Bearer $TOKEN"), "{}", server.banner);
    let mut client = Client::new(([127, 0, 0, 1], server.address.port()).into());
    let mut push = |headers: &[(&str, &str)]| {
        client.send("POST", "/write-metrics/nodes/n1/load", headers, b"1").unwrap().status
    };
    assert_eq!(push(&[]), 401);
    assert_eq!(push(&[("Authorization", "Bearer wrong")]), 401);
    assert_eq!(push(&[("Authorization", "Bearer s3cret")]), 200);
    let said = server.process.stderr.so_far();
    assert!(!said.contains("s3cret") && !said.contains("wrong"), "{said}");
}

#[test]
fn files_that_are_wrong_are_refused_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file.yaml");
    for (flag, content, parts) in [
        ("--settings", "freshness: 5m\npoints: 7\n", &["line 2", "points"][..]),
        ("--settings", "freshness: 5m\n\npoints_max: many\n", &["line 3"]),
        ("--settings", "freshness: [\n", &["line "]),
        ("--credentials-file", "credentials:\n- token: s3cret\n  acess: read\n", &["line 3", "access"]),
        ("--credentials-file", "credentials:\n- token: s3cret\n- token: s3cret\n", &["line 3"]),
    ] {
        std::fs::write(&file, content).unwrap();
        let sentence = refused(dir.path(), &[flag, text(&file)]);
        tells(&sentence, &[&[text(&file)][..], parts].concat());
        assert!(!sentence.contains("s3cret"), "{sentence}");
    }
    for flag in ["--settings", "--credentials-file", "--requestheader-client-ca-file"] {
        let port = format!("--secure-port={}", free_port());
        tells(&refused(dir.path(), &[flag, "/nowhere/file", &port]), &["/nowhere/file"]);
    }
    assert!(!dir.path().join("index").exists(), "no store was made");
}

#[test]
fn rules_and_their_servers_are_checked_before_a_port_is_bound() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.yaml");
    std::fs::write(&file, "rule: []\n").unwrap();
    // Were a port bound first, the one that is taken would be told.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--listen={}", taken.local_addr().unwrap());
    let server = "--prometheus-url=https://127.0.0.1:1";
    for (args, parts) in [
        (&["--config", "/nowhere/rules.yaml"][..], &["the rules /nowhere/rules.yaml can't be read"][..]),
        (&["--config", text(&file)], &[text(&file), "line 1", "no key of the file"]),
        (&[server, "--prometheus-ca-file", "/nowhere/ca.pem"], &["/nowhere/ca.pem"]),
        (&[server, server], &["--prometheus-url", "given twice"]),
    ] {
        tells(&refused(dir.path(), &[&[listen.as_str()][..], args].concat()), parts);
    }
    assert!(!dir.path().join("index").exists(), "no store was made");
}

#[test]
fn a_command_line_that_is_none_exits_with_2_and_help_with_0() {
    for (args, code, said) in [
        (&["--unknown"][..], 2, "--unknown"),
        (&["--listen", "nowhere"], 2, "--listen"),
        (&["import"], 2, "<FILE>"),
        (&["delete"], 2, "--match"),
        (&["delete", "--match={}"], 2, "selector"),
        (&["delete", "--match=m", "--data-dir=/nowhere/at/all"], 1, "/nowhere/at/all"),
        (&["--help"], 0, "--data-dir"),
        (&["--version"], 0, "lookback"),
    ] {
        let output = run_to_end(lookback().args(args));
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let all = [output.stdout, output.stderr].concat();
        tells(&String::from_utf8_lossy(&all), &[said]);
    }
}

#[test]
fn what_is_deleted_while_no_server_runs_is_gone_for_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    for node in ["n1", "n2"] {
        assert_eq!(server.post(&format!("/write-metrics/nodes/{node}/load"), "1").status, 200);
    }
    let delete = || {
        let delete = ["delete", r#"--match=load{node="n1"}"#, "--end=2100-01-01T00:00:00Z", "--data-dir"];
        run_to_end(lookback().args(delete).arg(dir.path()))
    };
    let refused = delete();
    assert_eq!(refused.status.code(), Some(1), "a server holds it");
    assert!(server.terminate().success());
    let deleted = delete();
    assert_eq!(deleted.status.code(), Some(0), "{deleted:?}");
    assert_eq!(String::from_utf8_lossy(&deleted.stdout), "deleted samples of 1 series\n");
    let server = Server::start(dir.path(), &[]);
    let value = |node: &str| server.get(&format!("/apis/custom.metrics.k8s.io/v1beta1/nodes/{node}/load"));
    assert!(!value("n1").text().contains("\"value\""), "{}", value("n1").text());
    tells(&value("n2").text(), &["\"value\":\"1\""]);
}

#[test]
fn the_banner_says_where_it_listens_and_its_commands_work() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("new/data dir");
    let server = Server::start(&data_dir, &[]);
    assert_eq!(server.secure_address, None, "secure port 0 is off: {}", server.banner);
    tells(&server.banner, &["Lookback 0.", "data in ", text(&data_dir)]);
    let commands: Vec<&str> =
        server.banner.lines().map(str::trim).filter(|line| line.starts_with("curl")).collect();
    let [push, read] = commands[..] else { panic!("{}", server.banner) };
    let pushed = shell(push);
    assert_eq!(pushed, "", "a push that was taken says nothing");
    let range: serde_json::Value = serde_json::from_str(&shell(read)).unwrap();
    let pod = &range["data"]["result"][0];
    assert_eq!((&pod["metric"]["pod"], &pod["values"][0][1]), (&"web-0".into(), &"0.25".into()), "{range}");
    assert!(server.terminate().success());
}

/// What a command line writes on standard output.
#[track_caller]
fn shell(command: &str) -> String {
    let mut sh = Command::new("sh");
    sh.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = run_to_end(&mut sh);
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_secure_port_is_served_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[&format!("--secure-port={}", free_port())]);
    let secure = server.secure_address.expect("the banner says so");
    let certificate = dir.path().join("certs/ca.crt");
    let curl =
        |path: &str| shell(&format!("curl -s --cacert {} https://{secure}{path}", certificate.display()));
    assert_eq!(curl("/livez"), "ok");
    for path in ["/apis", "/apis/custom.metrics.k8s.io/v1beta2", "/metrics"] {
        let answer: serde_json::Value = serde_json::from_str(&curl(path)).unwrap();
        assert_eq!((&answer["kind"], &answer["code"]), (&"Status".into(), &403.into()), "{answer}");
    }
    assert!(server.terminate().success());
}

/// Pushes from several threads until the server takes no more; answers what was acknowledged.
fn push_until_it_ends(server: &Server, signal: Signal) -> Vec<(String, usize)> {
    std::thread::scope(|scope| {
        let (heard, hear) = std::sync::mpsc::channel();
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (mut client, heard) = (server.client(), heard.clone());
                scope.spawn(move || {
                    let mut acknowledged = 0;
                    let path = format!("/write-metrics/nodes/n{writer}/load");
                    while let Ok(reply) = client.send("POST", &path, &[], acknowledged.to_string().as_bytes())
                    {
                        assert_eq!(reply.status, 200, "{}", reply.text());
                        acknowledged += 1;
                        // Enough has been heard after a while.
                        let _ = heard.send(());
                    }
                    (format!("load{{node=\"n{writer}\"}}"), acknowledged)
                })
            })
            .collect();
        for _ in 0..100 {
            hear.recv_timeout(common::process::SOON).expect("the writers are answered");
        }
        server.process.signal(signal);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    })
}

#[test]
fn both_signals_end_it_with_0_and_all_that_was_acknowledged_is_there() {
    for signal in [Signal::INT, Signal::TERM] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(dir.path(), &[]);
        let acknowledged = push_until_it_ends(&server, signal);
        assert_eq!(server.process.wait().code(), Some(0));
        assert!(server.process.stderr.all().contains("stopped"), "it says so");
        let stored = read_dir(dir.path());
        for (series, count) in acknowledged {
            let values: Vec<f64> = stored[&series].iter().map(|(_, bits)| f64::from_bits(*bits)).collect();
            let expected: Vec<f64> = (0..values.len()).map(|value| value as f64).collect();
            assert_eq!(values, expected, "{series}");
            // The last one may have been written and its answer cut off.
            assert!((count..=count + 1).contains(&values.len()), "{series}: {count} acknowledged");
        }
    }
}

/// A store with a block and a log, and the files that a test may damage.
fn store() -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let push = |value: &str| {
        let server = Server::start(dir.path(), &[]);
        assert_eq!(server.post("/write-metrics/nodes/n1/load", value).status, 200);
        assert!(server.terminate().success());
    };
    push("1");
    open(dir.path()).seal().unwrap();
    push("2");
    let log = std::fs::read_dir(dir.path().join("log")).unwrap().next().unwrap().unwrap().path();
    let index = dir.path().join("index");
    let files = vec![index.join("db"), index.join("conf"), log.join("db")];
    (dir, files)
}

#[test]
fn a_damaged_file_is_refused_where_that_is_asked_for_with_its_name_and_nothing_is_removed() {
    let (dir, files) = store();
    let refuse = ["--on-damage", "refuse"];
    for path in files {
        let whole = std::fs::read(&path).unwrap();
        let written = whole.iter().rposition(|byte| *byte != 0).unwrap();
        let mut damaged = whole.clone();
        damaged[..=written].iter_mut().for_each(|byte| *byte ^= 0x55);
        // In place, since a file of the store may be sparse and large.
        let write = |bytes: &[u8]| {
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(bytes, 0).unwrap();
        };
        write(&damaged);
        let sentence = refused(dir.path(), &refuse);
        tells(&sentence, &[text(path.parent().unwrap())]);
        write(&whole);
        let stored = read_dir(dir.path());
        assert_eq!(stored["load{node=\"n1\"}"].len(), 2, "{}: {sentence}", path.display());
    }
    let meta = dir.path().join("meta");
    let whole = std::fs::read_to_string(&meta).unwrap();
    std::fs::write(&meta, whole.replace("uuid ", "uuid 0")).unwrap();
    tells(&refused(dir.path(), &refuse), &[text(&meta), "backup"]);
    std::fs::write(&meta, &whole).unwrap();
    assert!(Server::start(dir.path(), &[]).terminate().success());
}

#[test]
fn a_damaged_file_is_set_aside_and_all_else_is_served() {
    let (dir, files) = store();
    for path in files {
        let copy = tempfile::tempdir().unwrap();
        let copied =
            Command::new("cp").args(["-r", &format!("{}/.", text(dir.path())), text(copy.path())]).status();
        assert!(copied.unwrap().success());
        let damaged = copy.path().join(path.strip_prefix(dir.path()).unwrap());
        let mut bytes = std::fs::read(&damaged).unwrap();
        bytes.iter_mut().filter(|byte| **byte != 0).for_each(|byte| *byte ^= 0x55);
        std::fs::write(&damaged, bytes).unwrap();
        let server = Server::start(copy.path(), &[]);
        let ready = server.get("/readyz?verbose").text();
        let (below, is_log) = (text(path.parent().unwrap()), text(&path).contains("/log/"));
        let below = below.strip_prefix(text(dir.path())).unwrap();
        assert!(ready.contains("[!]damage set aside: ") && ready.contains(below), "{below}: {ready}");
        let metrics = || server.get("/metrics").text();
        tells(&metrics(), &[&format!("\nlookback_store_lost_log_groups {}\n", u8::from(is_log))]);
        // A log is set aside once what could be read of it is sealed.
        wait_until("it is set aside", || metrics().contains("\nlookback_store_set_aside 1\n"));
        assert_eq!(server.post("/write-metrics/nodes/n1/load", "3").status, 200);
        server.kill9();
        let samples = &read_dir(copy.path())["load{node=\"n1\"}"];
        assert_eq!(samples.len(), if is_log { 2 } else { 3 }, "{below}");
        assert!(copy.path().join("quarantine").is_dir());
    }
}

#[test]
fn a_later_format_is_refused_with_what_to_do() {
    let (dir, _) = store();
    let meta = dir.path().join("meta");
    let whole = std::fs::read_to_string(&meta).unwrap();
    let (body, _) = whole.split_once(" crc32c ").unwrap();
    let later = body.replace("format 1 ", "format 2 ");
    std::fs::write(&meta, format!("{later} crc32c {:08x}\n", crc32c::crc32c(later.as_bytes()))).unwrap();
    let sentence = refused(dir.path(), &[]);
    tells(&sentence, &[text(dir.path()), "format 2", "reads up to 1", "run the version that wrote it"]);
}
