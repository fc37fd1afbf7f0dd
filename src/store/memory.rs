//! How much memory the process takes, and how much it may.

use std::fs;
use std::path::Path;

/// Part of the container's limit at which new series are refused, in percent: reads and merges need some.
const PERCENT_OF_CONTAINER: u64 = 90;
/// A limit of the container's group of more than this stands for none.
const BYTES_MAX: u64 = 1 << 50;

/// Where the limit of the container's control group is told: version 2, version 1.
const CONTAINER_LIMIT_FILES: [&str; 2] =
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// The bound: what was asked for, or a part of what the container has; `None`: there is none.
#[must_use]
pub fn bound(asked_bytes: Option<u64>) -> Option<u64> {
    asked_bytes.or_else(|| {
        let container = CONTAINER_LIMIT_FILES.iter().find_map(|file| limit_in(Path::new(file)))?;
        Some(container / 100 * PERCENT_OF_CONTAINER)
    })
}

fn limit_in(file: &Path) -> Option<u64> {
    // "max" where there is no limit.
    fs::read_to_string(file).ok()?.trim().parse().ok().filter(|bytes| *bytes <= BYTES_MAX)
}

/// What the process takes now; `None` where the system does not tell.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_goes_before_the_container() {
        assert_eq!(bound(Some(7)), Some(7));
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("memory.max");
        for (text, limit) in
            [("max\n", None), ("536870912\n", Some(536_870_912)), ("9223372036854771712\n", None)]
        {
            fs::write(&file, text).expect("written");
            assert_eq!(limit_in(&file), limit);
        }
        assert_eq!(limit_in(&dir.path().join("none")), None);
    }

    #[test]
    fn the_process_takes_some_memory() {
        assert!(resident_bytes().is_some_and(|bytes| (1 << 20..1 << 40).contains(&bytes)));
    }
}
