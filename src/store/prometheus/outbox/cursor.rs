//! How far the outbox was sent: a small file, replaced as a whole.
//!
//! ```text
//! lookback outbox 1
//! sent SEGMENT OFFSET
//! released SEGMENT OFFSET
//! CRC-32C of the lines before, in hexadecimal
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

const FILE: &str = "cursor";
const FILE_BYTES_MAX: u64 = 4_096;

/// A place in the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The segment.
    pub segment: u64,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// How far the outbox was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Everything before this is at the engine.
    pub sent: Position,
    /// Everything before this need not be sent a second time.
    pub released: Position,
}

fn lines(cursor: Cursor) -> String {
    let Cursor { sent, released } = cursor;
    format!(
        "lookback outbox 1\nsent {} {}\nreleased {} {}\n",
        sent.segment, sent.offset, released.segment, released.offset
    )
}

/// The cursor; `None`: there is none, or not a whole one.
pub(super) fn read(dir: &Path) -> io::Result<Option<Cursor>> {
    let mut text = String::new();
    match File::open(dir.join(FILE)) {
        Ok(file) => file.take(FILE_BYTES_MAX).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(parse(&text))
}

fn parse(text: &str) -> Option<Cursor> {
    let mut parts = text.lines().skip(1);
    let mut position = |name| {
        let mut words = parts.next()?.strip_prefix(name)?.split_whitespace();
        Some(Position { segment: words.next()?.parse().ok()?, offset: words.next()?.parse().ok()? })
    };
    let cursor = Cursor { sent: position("sent ")?, released: position("released ")? };
    let checksum = u32::from_str_radix(text.lines().nth(3)?, 16).ok()?;
    (checksum == crc32c::crc32c(lines(cursor).as_bytes())).then_some(cursor)
}

/// Replaces it, durably.
pub(super) fn write(dir: &Path, cursor: Cursor) -> io::Result<()> {
    let lines = lines(cursor);
    let next = dir.join("cursor.next");
    let mut file = File::create(&next)?;
    file.write_all(format!("{lines}{:08x}\n", crc32c::crc32c(lines.as_bytes())).as_bytes())?;
    file.sync_all()?;
    fs::rename(&next, dir.join(FILE))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_replaced_whole_and_damage_is_no_cursor() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(dir.path()).expect("read"), None);
        let at = |segment, offset| Position { segment, offset };
        for cursor in [
            Cursor { sent: at(7, 123), released: at(3, 8) },
            Cursor { sent: at(u64::MAX, 0), released: at(0, u64::MAX) },
        ] {
            write(dir.path(), cursor).expect("written");
            assert_eq!(read(dir.path()).expect("read"), Some(cursor));
        }
        let whole = fs::read_to_string(dir.path().join(FILE)).expect("read");
        for at in 0..whole.len() {
            let mut cut = whole.clone().into_bytes();
            cut[at] ^= 1;
            let changed = String::from_utf8_lossy(&cut).into_owned();
            // The first line is for people; any other change is found.
            assert!(at < 18 || parse(&changed).is_none_or(|c| Some(c) == parse(&whole)), "at {at}");
            assert!(parse(&whole[..at]).is_none_or(|c| Some(c) == parse(&whole)), "cut at {at}");
        }
    }
}
