//! Stands before a server and behaves as networks and busy servers do.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test uses a part of it"
)]

use super::process::wait_until;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a proxy before an engine behaves.
pub const PASS: u8 = 0;
pub const ERROR_500: u8 = 1;
pub const BUSY_429: u8 = 2;
pub const SILENT: u8 = 3;
/// The request arrives, its answer does not.
pub const LOSE_ANSWER: u8 = 4;
/// Each request is passed on after [`SLOW_FOR`].
pub const SLOW: u8 = 5;
/// How long a slow server takes.
pub const SLOW_FOR: Duration = Duration::from_secs(9);

/// Stands before an engine.
pub struct Proxy {
    pub address: SocketAddr,
    pub mode: Arc<AtomicU8>,
    pub hits: Arc<AtomicUsize>,
    /// The heads of requests, in small letters.
    pub heads: Arc<Mutex<Vec<String>>>,
    /// After so many requests answers are lost, whatever the mode.
    pub lose_after: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl Proxy {
    pub fn start(engine: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, hits) = (Arc::new(AtomicU8::new(PASS)), Arc::new(AtomicUsize::new(0)));
        let (stopped, lose_after) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(usize::MAX)));
        let losing = Arc::clone(&lose_after);
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let (modes, hit, stop) = (Arc::clone(&mode), Arc::clone(&hits), Arc::clone(&stopped));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (mode, stop, seen) = (modes.load(Ordering::SeqCst), Arc::clone(&stop), Arc::clone(&seen));
                let before = hit.fetch_add(1, Ordering::SeqCst);
                let mode = if before >= losing.load(Ordering::SeqCst) { LOSE_ANSWER } else { mode };
                std::thread::spawn(move || {
                    // Whoever asked may be gone.
                    let _ = stream.and_then(|stream| answer(stream, engine, mode, &stop, &seen));
                });
            }
        });
        Self { address, mode, hits, heads, lose_after, stopped }
    }

    /// Behaves so from now on, until so many have seen it.
    pub fn behave(&self, mode: u8, seen_by: usize) {
        let before = self.hits.load(Ordering::SeqCst);
        self.mode.store(mode, Ordering::SeqCst);
        wait_until("the engine is asked", || self.hits.load(Ordering::SeqCst) >= before + seen_by);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers one request of a connection, and closes it.
fn answer(
    mut stream: TcpStream,
    engine: SocketAddr,
    mode: u8,
    stop: &AtomicBool,
    heads: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let (mut request, mut buffer) = (Vec::new(), [0; 65_536]);
    let body_begins = loop {
        let read = stream.read(&mut buffer)?;
        request.extend_from_slice(&buffer[..read]);
        match request.windows(4).position(|end| end == b"\r\n\r\n") {
            Some(end) => break end + 4,
            None if read == 0 => return Ok(()),
            None => {}
        }
    };
    let head = String::from_utf8_lossy(&request[..body_begins]).to_ascii_lowercase();
    heads.lock().unwrap().push(head.clone());
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    while request.len() < body_begins + length.unwrap_or(0_usize) {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..read]);
    }
    const CLOSE: &str = "content-length: 0\r\nconnection: close\r\n\r\n";
    match mode {
        ERROR_500 => return write!(stream, "HTTP/1.1 500 Internal Server Error\r\n{CLOSE}"),
        BUSY_429 => return write!(stream, "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\n{CLOSE}"),
        SILENT => {
            while !stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
            return Ok(());
        }
        SLOW => std::thread::sleep(SLOW_FOR),
        _ => {}
    }
    let mut upstream = TcpStream::connect(engine)?;
    upstream.write_all(&request[..body_begins - 2])?;
    upstream.write_all(b"connection: close\r\n\r\n")?;
    upstream.write_all(&request[body_begins..])?;
    if mode == LOSE_ANSWER {
        upstream.read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    // An answer that closes: what is behind the status line is passed as it is.
    std::io::copy(&mut upstream, &mut stream)?;
    Ok(())
}
