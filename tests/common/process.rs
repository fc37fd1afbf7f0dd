//! The built `lookback`, run as users run it, and an HTTP client that says exactly what it sends.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Long enough for anything that does not hang, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(60);

/// `lookback`, without any of the variables that it reads.
pub fn lookback() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookback"));
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("LOOKBACK_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end, and kills it if that does not come soon.
#[track_caller]
pub fn run_to_end(command: &mut Command) -> Output {
    let mut process = Process::spawn(command);
    let status = process.wait();
    let (stdout, stderr) = (process.stdout.all(), process.stderr.all());
    Output { status, stdout: stdout.into_bytes(), stderr: stderr.into_bytes() }
}

/// Waits until `is_true`, which is asked again and again.
#[track_caller]
pub fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_true() {
        assert!(Instant::now() < deadline, "waited {SOON:?} until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port of the loopback that nothing listens on, for what can't say which one it was given. No port is given
/// twice: what it is for may begin to listen later.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("not poisoned");
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        if given.insert(port) {
            return port;
        }
    }
}

/// A running process, killed when it is dropped.
pub struct Process {
    child: Child,
    pub stdout: Told,
    pub stderr: Told,
}

impl Process {
    /// Starts a command whose outputs are piped.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Told::follow(child.stdout.take().expect("piped"));
        let stderr = Told::follow(child.stderr.take().expect("piped"));
        Self { child, stdout, stderr }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it has held since it was told to [`forget_peak`](Self::forget_peak), in bytes.
    #[track_caller]
    pub fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let kb = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
        kb.and_then(|kb| kb.parse::<u64>().ok()).expect("Linux tells it") * 1_024
    }

    /// Counts the peak of its memory anew.
    #[track_caller]
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.id()), "5").expect("it is ours");
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process ID");
        kill_process(pid, signal).expect("it runs");
    }

    /// Ends it as a power cut would, as far as the process is concerned.
    pub fn kill9(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {SOON:?}:\n{}", self.stderr.so_far());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process writes, line by line, read so that it never waits for a reader.
pub struct Told {
    lines: Receiver<String>,
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Told {
    fn follow(from: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        let text = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                let said = String::from_utf8_lossy(&line).into_owned();
                kept.lock().expect("not poisoned").push_str(&said);
                // Nobody may be waiting for lines.
                let _ = sender.send(said);
                line.clear();
            }
        });
        Self { lines, text, reader: Some(reader) }
    }

    /// What was written until now.
    pub fn so_far(&self) -> String {
        self.text.lock().expect("not poisoned").clone()
    }

    /// What was written, when the process has ended.
    pub fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("read");
        }
        self.so_far()
    }

    /// Reads lines until one `is_last`; `None` when the output ends first.
    fn lines_until(&self, is_last: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + SOON;
        let mut read = String::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    read.push_str(&line);
                    if is_last(&line) {
                        return Some(read);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("nothing more said after {SOON:?}: {read}"),
            }
        }
    }
}

/// A running server on ports of its own, killed when it is dropped.
pub struct Server {
    pub process: Process,
    pub banner: String,
    pub address: SocketAddr,
    pub secure_address: Option<SocketAddr>,
}

impl Server {
    /// Starts one on a free port, without the secure port unless `args` say otherwise, and waits until
    /// it is ready.
    #[track_caller]
    pub fn start(data_dir: &Path, args: &[&str]) -> Self {
        Self::start_as(lookback(), data_dir, args)
    }

    /// The same, by a command that runs `lookback` in surroundings of its own.
    #[track_caller]
    pub fn start_as(command: Command, data_dir: &Path, args: &[&str]) -> Self {
        let mut process = Self::spawn_as(command, data_dir, args);
        let Some(banner) = process.stdout.lines_until(|line| line.contains("/api/v1/metrics")) else {
            let status = process.wait();
            panic!("the server ended, {status}, and said:\n{}", process.stderr.all());
        };
        let url = |scheme: &str| {
            let mut words = banner.split_whitespace();
            words.find_map(|word| word.strip_prefix(scheme)).map(|at| at.parse().expect("an address"))
        };
        let address = url("http://").expect("the banner says where it listens");
        let secure_address = url("https://");
        let server = Self { process, banner, address, secure_address };
        wait_until("the server is ready", || server.get("/readyz").status == 200);
        server
    }

    /// Starts one and waits for nothing.
    #[track_caller]
    pub fn spawn(data_dir: &Path, args: &[&str]) -> Process {
        Self::spawn_as(lookback(), data_dir, args)
    }

    #[track_caller]
    fn spawn_as(mut command: Command, data_dir: &Path, args: &[&str]) -> Process {
        command.arg("serve").arg("--data-dir").arg(data_dir);
        for (flag, value) in [("--listen", "127.0.0.1:0"), ("--secure-port", "0")] {
            if !args.iter().any(|arg| arg.starts_with(flag)) {
                command.args([flag, value]);
            }
        }
        Process::spawn(command.args(args))
    }

    /// Asks it to end, as `kill` does, and waits until it has.
    #[track_caller]
    pub fn terminate(mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait()
    }

    /// Kills it without a word.
    pub fn kill9(mut self) {
        self.process.kill9();
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.client().send("GET", path, &[], b"").unwrap_or_else(|error| self.no_answer(path, &error))
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        let sent = self.client().send("POST", path, &[], body.as_ref());
        sent.unwrap_or_else(|error| self.no_answer(path, &error))
    }

    /// Sends a remote write request of this message, compressed.
    #[track_caller]
    pub fn remote_write(&self, message: &[u8]) -> Reply {
        self.client().remote_write(message).unwrap_or_else(|error| self.no_answer("remote write", &error))
    }

    #[track_caller]
    fn no_answer(&self, path: &str, error: &io::Error) -> ! {
        panic!("{path}: {error}; the server said:\n{}", self.process.stderr.so_far())
    }
}

/// An HTTP/1.1 client with one connection, made again after an error.
pub struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Sends one request and reads its answer.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Reply> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.send_raw(&request)
    }

    /// Sends a remote write request of this message, compressed.
    pub fn remote_write(&mut self, message: &[u8]) -> io::Result<Reply> {
        let body = snap::raw::Encoder::new().compress_vec(message).expect("compressed");
        self.send_compressed(&body)
    }

    /// Sends a remote write request of this body, as it is.
    pub fn send_compressed(&mut self, body: &[u8]) -> io::Result<Reply> {
        let headers = [
            ("Content-Encoding", "snappy"),
            ("Content-Type", "application/x-protobuf"),
            ("X-Prometheus-Remote-Write-Version", "0.1.0"),
        ];
        self.send("POST", "/api/v1/write", &headers, body)
    }

    /// Sends these bytes and reads the answer to one request.
    pub fn send_raw(&mut self, request: &[u8]) -> io::Result<Reply> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(SOON))?;
                stream.set_write_timeout(Some(SOON))?;
                BufReader::new(stream)
            }
        };
        stream.get_mut().write_all(request)?;
        let reply = read_reply(&mut stream)?;
        // What was not read to its end, or failed, leaves no connection behind.
        if reply.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close")) {
            self.stream = Some(stream);
        }
        Ok(reply)
    }
}

fn read_reply(stream: &mut impl BufRead) -> io::Result<Reply> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let status_line = read_line(stream)?;
    let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| bad(&format!("no status line: {status_line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("no header line"))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut reply = Reply { status, headers, body: Vec::new() };
    if let Some(length) = reply.header("content-length") {
        let length = length.parse().map_err(|_| bad("no length"))?;
        reply.body = vec![0; length];
        stream.read_exact(&mut reply.body)?;
    } else if reply.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = usize::from_str_radix(&read_line(stream)?, 16).map_err(|_| bad("no chunk size"))?;
            let mut chunk = vec![0; size];
            stream.read_exact(&mut chunk)?;
            read_line(stream)?;
            if size == 0 {
                break;
            }
            reply.body.extend_from_slice(&chunk);
        }
    }
    Ok(reply)
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
