//! The README's walk, command by command, against the built binary.
//!
//! In a `console` block a line that begins with `$ ` is a command, lines that begin with `> ` continue it,
//! and the others are its output, in which `…` stands for anything. The ports are those of the server
//! that the test started.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

struct Server {
    process: Child,
    plain: String,
    secure: String,
}

impl Server {
    fn start(dir: &std::path::Path) -> Self {
        let secure_port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            free.local_addr().expect("an address").port()
        };
        let mut process = Command::new(env!("CARGO_BIN_EXE_lookback"))
            .args(["--listen", "127.0.0.1:0", "--log-level", "warn"])
            .args(["--secure-port", &secure_port.to_string(), "--data-dir"])
            .arg(dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let banner = BufReader::new(process.stdout.take().expect("piped")).lines();
        let plain = banner.map_while(Result::ok).find_map(|line| {
            Some(line.trim().strip_prefix("http://")?.split_whitespace().next()?.to_owned())
        });
        let plain = plain.expect("the banner says where it listens");
        Self { process, plain, secure: format!("127.0.0.1:{secure_port}") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The commands of all console blocks, each with the output it should have.
fn walk(readme: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    let mut in_console = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            in_console = line == "```console";
        } else if !in_console {
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push((command.to_owned(), String::new()));
        } else {
            let (command, output) = steps.last_mut().expect("a command comes first");
            match line.strip_prefix("> ") {
                Some(more) => *command = format!("{command}\n{more}"),
                None => output.push_str(&format!("{line}\n")),
            }
        }
    }
    steps
}

/// Whether `text` is `pattern`, in which `…` stands for anything within a line.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        let found =
            if parts.peek().is_none() { rest.strip_suffix(part).map(|r| r.len()) } else { rest.find(part) };
        let Some(at) = found.filter(|at| !rest[..*at].contains('\n')) else { return false };
        rest = &rest[at + part.len()..];
        if parts.peek().is_none() {
            return true;
        }
    }
    rest.is_empty()
}

#[test]
fn every_command_of_the_readme_gives_what_it_says() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let steps = walk(&readme);
    assert!(steps.len() > 20, "{} commands", steps.len());
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    for (command, expected) in steps {
        let here = command.replace("127.0.0.1:8080", &server.plain).replace("127.0.0.1:6443", &server.secure);
        // `lookback` is the built one.
        let built = std::path::Path::new(env!("CARGO_BIN_EXE_lookback")).parent().expect("a directory");
        let path = format!("{}:{}", built.display(), std::env::var("PATH").unwrap_or_default());
        let bash = Command::new("bash").args(["-o", "pipefail", "-c", &here]).env("PATH", path).output();
        let output = bash.expect("bash");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "$ {command}\nfailed: {text}{errors}");
        assert!(
            fits(expected.trim_end(), text.trim_end()),
            "$ {command}\nshould give:\n{expected}\ngave:\n{text}{errors}"
        );
    }
}

#[test]
fn the_gap_stands_for_anything_within_a_line() {
    for (pattern, text, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a…z", "abcz", true),
        ("a…z", "az", true),
        ("a…z", "a\nz", false),
        ("…b…", "abc", true),
        ("a…", "b", false),
    ] {
        assert_eq!(fits(pattern, text), expected, "{pattern} on {text}");
    }
}
