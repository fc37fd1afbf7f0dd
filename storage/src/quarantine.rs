//! What is damaged is set aside, never removed: below `quarantine/` it can be looked at, mended or
//! thrown away by its owner.

use crate::disk::Disk;
use crate::error::Result;
use std::fs;
use std::path::{Path, PathBuf};

/// The directory of what was set aside, below the data directory.
pub(crate) const QUARANTINE_DIR: &str = "quarantine";

/// Moves a file or directory out of the way, durably. Answers where it is now.
pub(crate) fn set_aside(disk: &Disk, data_dir: &Path, path: &Path) -> Result<PathBuf> {
    let dir = data_dir.join(QUARANTINE_DIR);
    disk.create_dir_all(&dir)?;
    let name = path.strip_prefix(data_dir).unwrap_or(path).to_string_lossy().replace('/', "-");
    let free = |number: &u64| !dir.join(format!("{number}-{name}")).exists();
    let number = (1u64..).find(free).unwrap_or_default();
    let to = dir.join(format!("{number}-{name}"));
    disk.rename(path, &to)?;
    disk.sync_path(&dir)?;
    disk.sync_parent(path)?;
    Ok(to)
}

/// How many files and directories are set aside.
pub(crate) fn count(data_dir: &Path) -> u64 {
    fs::read_dir(data_dir.join(QUARANTINE_DIR)).map_or(0, |entries| entries.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_of_one_name_are_kept_side_by_side() {
        let dir = tempfile::tempdir().expect("a directory");
        for content in ["a", "b"] {
            fs::create_dir_all(dir.path().join("log/1")).expect("made");
            fs::write(dir.path().join("log/1/db"), content).expect("written");
            let to = set_aside(&Disk::default(), dir.path(), &dir.path().join("log/1")).expect("set aside");
            assert_eq!(fs::read_to_string(to.join("db")).expect("read"), content);
        }
        assert_eq!(count(dir.path()), 2);
    }
}
