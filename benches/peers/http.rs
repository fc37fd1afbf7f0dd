//! HTTP/1.1 over one connection that is kept: as little as a sender and a reader need.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// No answer takes longer.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A connection to a server.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    address: String,
    /// The body of the last answer.
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let stream = BufReader::with_capacity(256 << 10, stream);
        Ok(Self { stream, address: address.to_owned(), body: Vec::new() })
    }

    /// Asks, reads the whole answer into `body`, and gives its status.
    pub(crate) fn get(&mut self, path: &str) -> Result<u16> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        self.stream.get_mut().write_all(head.as_bytes())?;
        self.answer()
    }

    /// Sends a request of remote write.
    pub(crate) fn write(&mut self, body: &[u8]) -> Result<u16> {
        let mut bytes = format!(
            "POST /api/v1/write HTTP/1.1\r\nHost: {}\r\nContent-Encoding: snappy\r\nContent-Type: \
             application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        self.stream.get_mut().write_all(&bytes)?;
        self.answer()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    fn answer(&mut self) -> Result<u16> {
        let odd = |what: &str| Error::other(format!("not understood: {what}"));
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| odd(&first))?;
        let (mut length, mut chunked) = (0u64, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = value.trim().parse().map_err(Error::other)?,
                Some(("transfer-encoding", _)) => chunked = true,
                Some(_) => {}
            }
        }
        self.body.clear();
        let Self { stream, body, .. } = self;
        if !chunked {
            stream.take(length).read_to_end(body)?;
            return Ok(status);
        }
        loop {
            let mut size = String::new();
            stream.read_line(&mut size)?;
            let size = u64::from_str_radix(size.trim(), 16).map_err(Error::other)?;
            stream.take(size).read_to_end(body)?;
            stream.read_line(&mut String::new())?;
            if size == 0 {
                return Ok(status);
            }
        }
    }
}
