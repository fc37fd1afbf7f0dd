//! Samples that the engine refused for good: kept in a file of JSON lines, shown and sent again by
//! `lookback outbox`.

use crate::text::first_chars;
use lookback_storage::{Labels, Sample};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

const FILE: &str = "dead-letter.jsonl";
/// Where the letters before those are, once there are too many.
const OLDER_FILE: &str = "dead-letter.1.jsonl";
/// Largest file, in bytes. The one before it is kept as well; what was in that goes.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// How much is kept of what the engine said, in characters.
const REASON_CHARS_MAX: usize = 200;

/// A series with samples that the engine refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetter {
    /// When it was refused, Unix milliseconds.
    pub refused_ms: i64,
    /// The HTTP status.
    pub status: u16,
    /// What the engine said.
    pub reason: String,
    /// The series.
    pub series: BTreeMap<String, String>,
    /// Times and the bits of values; JSON has no NaN.
    samples: Vec<(i64, u64)>,
}

impl DeadLetter {
    /// Of samples of a series.
    #[must_use]
    pub fn new(refused_ms: i64, status: u16, reason: &str, labels: &Labels, samples: &[Sample]) -> Self {
        Self {
            refused_ms,
            status,
            reason: first_chars(reason, REASON_CHARS_MAX),
            series: labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            samples: samples.iter().map(|sample| (sample.timestamp_ms, sample.value.to_bits())).collect(),
        }
    }

    /// The series; `None` where it is none.
    #[must_use]
    pub fn labels(&self) -> Option<Labels> {
        Labels::new(&self.series).ok()
    }

    /// The samples.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.iter().map(|(at_ms, bits)| Sample::new(*at_ms, f64::from_bits(*bits))).collect()
    }
}

/// The files in the directory of an outbox.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    dir: PathBuf,
}

impl DeadLetters {
    /// In this directory.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Adds letters, durably. Where the file is full it takes the place of the one before.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn add(&self, letters: &[DeadLetter]) -> io::Result<()> {
        let path = self.dir.join(FILE);
        if fs::metadata(&path).is_ok_and(|file| file.len() >= FILE_BYTES_MAX) {
            tracing::warn!(path = %path.display(), "there are many dead letters: the oldest go");
            fs::rename(&path, self.dir.join(OLDER_FILE))?;
        }
        let mut lines = Vec::new();
        for letter in letters {
            serde_json::to_writer(&mut lines, letter)?;
            lines.push(b'\n');
        }
        let mut file = File::options().create(true).append(true).open(&path)?;
        file.write_all(&lines)?;
        file.sync_all()?;
        File::open(&self.dir)?.sync_all()
    }

    /// Hands out the letters, oldest first; a line that is none is counted and left out.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn each(&self, mut visit: impl FnMut(DeadLetter)) -> io::Result<u64> {
        let mut broken = 0;
        for name in [OLDER_FILE, FILE] {
            let file = match File::open(self.dir.join(name)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for line in BufReader::new(file).split(b'\n') {
                match serde_json::from_slice(&line?) {
                    Ok(letter) => visit(letter),
                    Err(_) => broken += 1,
                }
            }
        }
        Ok(broken)
    }

    /// Throws them away, once they are somewhere else.
    ///
    /// # Errors
    /// When a file can't be removed.
    pub fn clear(&self) -> io::Result<()> {
        for name in [OLDER_FILE, FILE] {
            match fs::remove_file(self.dir.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_kept_bit_for_bit_and_broken_lines_left_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let letters = DeadLetters::new(dir.path());
        let labels = Labels::new([("__name__", "m"), ("pod", "\"ü\"")]).expect("valid");
        let samples = [Sample::new(1, f64::NAN), Sample::new(-2, f64::from_bits(0x7ff0_0000_0000_0002))];
        let letter = DeadLetter::new(7, 400, "out of order", &labels, &samples);
        letters.add(std::slice::from_ref(&letter)).expect("written");
        let mut file = File::options().append(true).open(dir.path().join(FILE)).expect("there");
        file.write_all(b"{\"cut\n").expect("written");
        letters.add(std::slice::from_ref(&letter)).expect("written");
        let mut read = Vec::new();
        assert_eq!(letters.each(|letter| read.push(letter)).expect("read"), 1);
        assert_eq!(read, [letter.clone(), letter]);
        assert_eq!((read[0].labels(), read[0].samples()), (Some(labels), samples.to_vec()));
        letters.clear().expect("removed");
        assert_eq!(letters.each(|_| panic!("none is left")).expect("read"), 0);
    }
}
