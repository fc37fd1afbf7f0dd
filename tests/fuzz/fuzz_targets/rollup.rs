//! No file of rollups makes its reader panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lookback_storage::fuzzing;
use std::sync::LazyLock;
use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a directory"));

fuzz_target!(|bytes: &[u8]| fuzzing::rollup(bytes, DIR.path()));
