//! What is not as it should be: a second process, a full volume, damaged files, a later format.

use lookback_storage::{
    Db, Error, Labels, Options, OutOfOrder, ReadLimits, Selection, WriteBatch, WriteReport,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use uuid::Uuid;

const NOW_MS: i64 = 1_000_000_000;

fn open(dir: &Path, options: Options) -> Result<Db, Error> {
    Db::open(dir, options, Uuid::new_v4())
}

fn append(db: &Db, pod: usize, count: i64) -> Result<WriteReport, Error> {
    let mut batch = WriteBatch::default();
    for i in 0..count {
        let labels = Labels::new([("__name__", "m".to_owned()), ("pod", format!("p{pod}"))]).expect("valid");
        // No two values alike, so that nothing compresses well.
        let value = f64::from_bits((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ pod as u64);
        batch.push(labels, Some(NOW_MS - i), value);
    }
    db.append_wait(batch, NOW_MS, OutOfOrder::Window)
}

fn count(db: &Db) -> usize {
    let limits = ReadLimits { samples_max: 10_000_000, cancelled: &|| false };
    let selection = Selection { matchers: &[], visible: None };
    let read = db.select(selection, i64::MIN, i64::MAX, limits).expect("read");
    read.iter().map(|(_, samples)| samples.len()).sum()
}

#[test]
fn a_directory_that_is_held_is_refused_with_its_holder_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let _held = open(dir.path(), Options::default()).expect("opens");
    let error = open(dir.path(), Options::default()).map(drop).expect_err("refused").to_string();
    assert!(error.contains("in use by process") && error.contains("--data-dir"), "{error}");
}

/// A small volume that goes with its guard.
struct SmallVolume(tempfile::TempDir);

impl SmallVolume {
    fn mount(bytes: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let options = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(dir))
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// Fills a volume; `free_bytes_min` of 0 lets the file system itself refuse.
fn fill_and_recover(free_bytes_min: u64) {
    let Some(volume) = SmallVolume::mount("96m") else {
        eprintln!("SKIPPED: this user may not mount a small tmpfs, so a full volume can't be made");
        return;
    };
    let options = Options { free_bytes_min, ..Options::default() };
    let data = volume.0.path().join("data");
    let db = open(&data, options.clone()).expect("opens");
    let ballast = volume.0.path().join("ballast");
    std::fs::write(&ballast, vec![1u8; 24 << 20]).expect("written");
    let mut acknowledged = 0;
    let mut refused = None;
    for pod in 0..2_000 {
        match append(&db, pod, 2_000) {
            Ok(report) => acknowledged += report.accepted,
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.expect("the volume fills up");
    assert!(refused.is_no_space(), "{refused}");
    assert!(db.stats().write_failure.is_some());
    assert!(count(&db) >= acknowledged, "reads go on");
    std::fs::remove_file(&ballast).expect("removed");
    let report = append(&db, 5_000, 10).expect("writes go on without a restart");
    acknowledged += report.accepted;
    assert_eq!(db.stats().write_failure, None);
    drop(db);
    let db = open(&data, options).expect("opens");
    assert!(count(&db) >= acknowledged, "{} of {acknowledged} acknowledged", count(&db));
}

#[test]
fn a_nearly_full_volume_refuses_writes_and_recovers_without_loss() {
    fill_and_recover(16 << 20);
}

#[test]
fn a_full_volume_refuses_writes_and_recovers_without_loss() {
    fill_and_recover(0);
}

#[test]
fn a_damaged_block_is_left_out_and_counted_while_the_rest_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path(), Options::default()).expect("opens");
    append(&db, 1, 100).expect("appended");
    db.seal().expect("sealed");
    append(&db, 2, 50).expect("appended");
    drop(db);
    let path = only_block(&dir.path().join("blocks"));
    let bytes = std::fs::read(&path).expect("read");

    // In the middle of the only chunk: found when it is read.
    let mut flipped = bytes.clone();
    flipped[100] ^= 1;
    std::fs::write(&path, &flipped).expect("written");
    let db = open(dir.path(), Options::default()).expect("opens all the same");
    assert_eq!(count(&db), 50);
    assert_eq!((db.stats().damaged_blocks, db.stats().damaged_chunks), (0, 1));
    drop(db);

    // In the footer: found when the store is opened.
    let mut flipped = bytes.clone();
    *flipped.last_mut().expect("not empty") ^= 1;
    std::fs::write(&path, &flipped).expect("written");
    let db = open(dir.path(), Options::default()).expect("opens all the same");
    assert_eq!((count(&db), db.stats().damaged_blocks), (50, 1));
    drop(db);

    // Seals and merges beside it leave its file alone.
    let eager = Options { seal_log_bytes: 1, blocks_per_partition_max: 1, ..Options::default() };
    for pod in 3..6 {
        let db = open(dir.path(), eager.clone()).expect("opens all the same");
        append(&db, pod, 10).expect("appended");
        db.maintain(NOW_MS).expect("maintained");
    }

    // Damaged where only a read finds it, it is not merged away either.
    let mut flipped = bytes.clone();
    flipped[100] ^= 1;
    std::fs::write(&path, &flipped).expect("written");
    let db = open(dir.path(), eager.clone()).expect("opens all the same");
    append(&db, 6, 10).expect("appended");
    db.maintain(NOW_MS).expect("maintained");
    db.maintain(NOW_MS).expect("maintained");
    assert_eq!(count(&db), 90);
    drop(db);

    // Mended: all of it is there again.
    std::fs::write(&path, &bytes).expect("written");
    assert_eq!(count(&open(dir.path(), Options::default()).expect("opens")), 190);
}

fn only_block(dir: &Path) -> PathBuf {
    let entry = std::fs::read_dir(dir).expect("read").next().expect("one").expect("read").path();
    if entry.is_dir() { only_block(&entry) } else { entry }
}

#[test]
fn a_damaged_log_or_index_is_an_error_and_removes_nothing() {
    for part in ["log/0000000000000002/db", "index/db"] {
        let dir = tempfile::tempdir().expect("a directory");
        let db = open(dir.path(), Options::default()).expect("opens");
        append(&db, 1, 100).expect("appended");
        db.seal().expect("sealed");
        append(&db, 2, 50).expect("appended");
        drop(db);
        let path = dir.path().join(part);
        let whole = std::fs::read(&path).expect("read");
        let written = whole.iter().rposition(|b| *b != 0).expect("not empty");
        let mut bytes = whole.clone();
        bytes[..=written].iter_mut().for_each(|byte| *byte ^= 0x55);
        std::fs::write(&path, bytes).expect("written");
        let error = open(dir.path(), Options::default()).map(drop).expect_err("refused").to_string();
        assert!(error.contains("index") || error.contains("log"), "{part}: {error}");

        std::fs::write(&path, &whole).expect("written");
        assert_eq!(count(&open(dir.path(), Options::default()).expect("opens")), 150, "{part}");
    }
}

#[test]
fn a_volume_that_was_full_while_sealing_lets_seals_go_on_once_there_is_room() {
    let Some(volume) = SmallVolume::mount("64m") else {
        eprintln!("SKIPPED: this user may not mount a small tmpfs, so a full volume can't be made");
        return;
    };
    let data = volume.0.path().join("data");
    let db =
        open(&data, Options { free_bytes_min: 0, index_memory_max: 0, ..Options::default() }).expect("opens");
    for pod in 0..200 {
        append(&db, pod, 200).expect("appended");
    }
    let ballast = volume.0.path().join("ballast");
    // From hardly any room to just too little: each step of a seal meets the full volume once.
    let mut failed = 0;
    for left in (0..40).map(|step| step * (32 << 10)) {
        let _ = std::fs::remove_file(&ballast);
        let mut file = std::fs::File::create(&ballast).expect("created");
        while std::io::Write::write_all(&mut file, &[1; 1 << 12]).is_ok() {}
        let full = file.metadata().expect("known").len();
        file.set_len(full.saturating_sub(left)).expect("truncated");
        if db.seal().is_ok() {
            break;
        }
        failed += 1;
    }
    assert!(failed > 0, "the volume was full");
    assert_eq!(count(&db), 40_000);
    std::fs::remove_file(&ballast).expect("removed");
    db.seal().expect("seals go on without a restart");
    assert_eq!(count(&db), 40_000);
    drop(db);
    assert_eq!(count(&open(&data, Options::default()).expect("opens")), 40_000);
}

#[test]
fn a_delete_also_holds_for_a_damaged_block_that_is_mended() {
    let dir = tempfile::tempdir().expect("a directory");
    let eager = Options { blocks_per_partition_max: 1, ..Options::default() };
    let db = open(dir.path(), eager.clone()).expect("opens");
    append(&db, 1, 100).expect("appended");
    db.seal().expect("sealed");
    drop(db);
    let path = only_block(&dir.path().join("blocks"));
    let bytes = std::fs::read(&path).expect("read");
    std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("written");

    let db = open(dir.path(), eager.clone()).expect("opens all the same");
    let selection = Selection { matchers: &[], visible: None };
    assert_eq!(db.delete(selection, i64::MIN, i64::MAX).expect("deleted"), 1);
    for pod in 2..5 {
        append(&db, pod, 10).expect("appended");
        db.seal().expect("sealed");
    }
    assert_eq!(db.maintain(NOW_MS).expect("maintained").partitions_merged, 1);
    drop(db);
    std::fs::write(&path, &bytes).expect("written");
    assert_eq!(count(&open(dir.path(), eager).expect("opens")), 30);
}

#[test]
fn a_seal_that_fails_half_way_leaves_no_files_and_is_tried_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options { partition_ms: 50, seal_log_bytes: 1, ..Options::default() };
    let db = open(dir.path(), options.clone()).expect("opens");
    append(&db, 1, 100).expect("appended");
    // A file where a partition's directory should be.
    let obstacle = dir.path().join("blocks/default").join((NOW_MS - 50).to_string());
    std::fs::create_dir_all(obstacle.parent().expect("a parent")).expect("made");
    std::fs::write(&obstacle, b"").expect("written");
    for _ in 0..3 {
        db.maintain(NOW_MS).expect_err("refused");
    }
    let files = |path: &str| walk(&dir.path().join(path)).into_iter().filter(|p| p.is_file()).count();
    assert_eq!(files("blocks"), 1, "only the obstacle");
    let generations = std::fs::read_dir(dir.path().join("log")).expect("read").count();
    assert!(generations <= 2, "{generations} log generations");
    std::fs::remove_file(&obstacle).expect("removed");
    assert!(db.maintain(NOW_MS).expect("maintained").sealed);
    assert_eq!(count(&db), 100);
    drop(db);
    assert_eq!(count(&open(dir.path(), options).expect("opens")), 100);
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_log_generation_that_failed_to_begin_does_not_hide_what_is_acknowledged_later() {
    let new = tempfile::tempdir().expect("a directory");
    let store = Uuid::from_u128(1);
    let db = Db::open(new.path(), Options::default(), store).expect("opens");
    append(&db, 0, 1).expect("acknowledged");
    db.seal().expect("sealed");
    drop(db);

    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path(), Options::default(), store).expect("opens");
    append(&db, 0, 1).expect("acknowledged");
    let next = dir.path().join("log/0000000000000002");
    std::fs::write(&next, b"").expect("written");
    db.seal().expect_err("the next generation can't be made");
    // It was made after all but for the last step, the sync of its directory: it begins at group 2.
    std::fs::remove_file(&next).expect("removed");
    let copied =
        Command::new("cp").arg("-r").arg(new.path().join("log/0000000000000002")).arg(&next).status();
    assert!(copied.expect("cp runs").success());
    append(&db, 1, 100).expect("acknowledged");
    drop(db);
    assert_eq!(count(&Db::open(dir.path(), Options::default(), store).expect("opens")), 101);
}

#[test]
fn a_block_that_can_no_longer_be_read_is_left_out_and_hinders_no_merge() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path(), Options { blocks_per_partition_max: 1, ..Options::default() }).expect("opens");
    append(&db, 1, 100).expect("appended");
    db.seal().expect("sealed");
    let path = only_block(&dir.path().join("blocks"));
    for pod in 2..5 {
        append(&db, pod, 10).expect("appended");
        db.seal().expect("sealed");
    }
    std::fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(64)).expect("cut short");
    assert_eq!(count(&db), 30);
    db.maintain(NOW_MS).expect("maintained");
    assert_eq!(db.maintain(NOW_MS).expect("maintained").partitions_merged, 1);
    assert_eq!(count(&db), 30);
}

/// A copy of a directory with everything in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("read") {
        let path = entry.expect("read").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("copied");
        }
    }
}

#[test]
fn one_flipped_bit_anywhere_in_the_log_or_index_loses_nothing_in_silence() {
    const FLIPS: usize = 30;
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path(), Options::default()).expect("opens");
    for pod in 0..50 {
        append(&db, pod, 4).expect("appended");
        if pod == 20 {
            db.seal().expect("sealed");
        }
    }
    drop(db);
    for part in ["log/0000000000000002/db", "index/db"] {
        let whole = std::fs::read(dir.path().join(part)).expect("read");
        let written = whole.iter().rposition(|b| *b != 0).expect("not empty");
        let mut refused = 0;
        for flip in 0..FLIPS {
            let damaged = tempfile::tempdir().expect("a directory");
            copy(dir.path(), damaged.path());
            let mut bytes = whole.clone();
            bytes[written * flip / (FLIPS - 1)] ^= 1 << (flip % 8);
            std::fs::write(damaged.path().join(part), bytes).expect("written");
            match open(damaged.path(), Options::default()) {
                Ok(db) => assert_eq!(count(&db), 200, "{part}, flip {flip}: something is gone"),
                Err(_) => refused += 1,
            }
        }
        // A flip beside the log's groups costs nothing, since they are found by their own heads.
        assert!(part.starts_with("log") || refused > FLIPS / 2, "{part}: only {refused} of {FLIPS} noticed");
    }
}
