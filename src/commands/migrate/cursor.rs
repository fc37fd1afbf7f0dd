//! How far a migration has come: a small file in the data directory, replaced as a whole after each request that
//! the engine has taken.

use anyhow::Context as _;
use lookback_storage::Labels;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Its name.
const FILE: &str = "migration.json";

/// Where in the order of a migration: by windows of time, in a window by series, of a series by time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// Where the window begins, Unix milliseconds.
    pub(super) window_start_ms: i64,
    /// The series.
    pub(super) series: BTreeMap<String, String>,
    /// Its samples up to this time are there, Unix milliseconds.
    pub(super) upto_ms: i64,
}

impl Place {
    pub(super) fn new(window_start_ms: i64, labels: &Labels, upto_ms: i64) -> Self {
        let series = labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { window_start_ms, series, upto_ms }
    }
}

/// Compares series in the order in which the engine hands them out.
pub(super) fn in_order(a: &Labels, b: &Labels) -> Ordering {
    a.metric_name().cmp(b.metric_name()).then_with(|| a.cmp(b))
}

/// How far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cursor {
    /// Where it goes.
    pub(super) to: String,
    /// Which series, and the samples of which times.
    pub(super) what: String,
    /// Samples that are there.
    pub(super) samples: u64,
    /// Everything up to here is there.
    pub(super) place: Option<Place>,
    /// Everything up to this time is there, Unix milliseconds: so far it came to its end.
    pub(super) done_upto_ms: Option<i64>,
}

/// The file with the cursor.
#[derive(Clone)]
pub(super) struct CursorFile {
    dir: PathBuf,
}

impl CursorFile {
    /// In this data directory.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// The cursor of this migration; a new one, where there is none yet or it is to begin anew.
    ///
    /// # Errors
    /// When the file can't be read, or is that of another migration.
    pub(super) fn open(&self, to: String, what: String, restart: bool) -> anyhow::Result<Cursor> {
        let new = Cursor { to, what, ..Cursor::default() };
        let path = self.path();
        let shown = path.display();
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(new),
            bytes => bytes.with_context(|| format!("{shown} can't be read"))?,
        };
        if restart {
            return Ok(new);
        }
        let known: Cursor = serde_json::from_slice(&bytes).with_context(|| {
            format!("{shown} does not say how far a migration has come: --restart begins anew, and sends all of it")
        })?;
        if (&known.to, &known.what) != (&new.to, &new.what) {
            anyhow::bail!(
                "{shown} is that of another migration, of {} to {}: end that one, or give --restart for one of {} to {}",
                known.what,
                known.to,
                new.what,
                new.to
            );
        }
        Ok(known)
    }

    /// Replaces it, durably.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn keep(&self, cursor: &Cursor) -> io::Result<()> {
        let next = self.dir.join("migration.json.new");
        let mut file = File::create(&next)?;
        file.write_all(&serde_json::to_vec(cursor)?)?;
        file.sync_all()?;
        fs::rename(&next, self.path())?;
        File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_for_one_migration_and_damage_is_no_cursor() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = CursorFile::new(dir.path());
        let open = |to: &str, restart| file.open(to.to_owned(), "everything".to_owned(), restart);
        let mut cursor = open("http://a", false).expect("a new one");
        assert_eq!((cursor.samples, &cursor.place), (0, &None));
        let labels = Labels::new([("__name__", "m"), ("pod", "\"ü\"")]).expect("valid");
        cursor.place = Some(Place::new(-3_600_000, &labels, 7));
        cursor.samples = 5;
        file.keep(&cursor).expect("kept");
        assert_eq!(open("http://a", false).expect("the same"), cursor);
        let error = open("http://b", false).expect_err("another").to_string();
        assert!(error.contains("everything to http://a") && error.contains("--restart"), "{error}");
        assert_eq!(open("http://b", true).expect("anew").place, None);
        let whole = fs::read(file.path()).expect("read");
        for length in 0..whole.len() {
            fs::write(file.path(), &whole[..length]).expect("written");
            let error = open("http://a", false).expect_err("cut off").to_string();
            assert!(error.contains("--restart"), "at {length}: {error}");
        }
    }
}
