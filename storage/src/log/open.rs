//! Opening a log: what earlier processes left is replayed, and a new generation begins.

use super::generation::Generation;
use super::{Group, Log, generation_path, generations};
use crate::disk::Disk;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use uuid::Uuid;

/// How a log is opened.
pub(crate) struct LogOpening {
    /// The way to the file system.
    pub(crate) disk: Disk,
    /// The store whose log it is.
    pub(crate) writer: Uuid,
    /// Groups before this are not replayed.
    pub(crate) replay_from_seq: u64,
    /// Groups before this are in blocks: they are not missed.
    pub(crate) needed_from_seq: u64,
    /// Whether damage is an error. Else what can be read is replayed.
    pub(crate) strict: bool,
}

/// A log that goes on in a new generation.
pub(crate) struct OpenedLog {
    pub(crate) log: Log,
    /// The first group that the oldest generation may hold, if there is one that says so.
    pub(crate) oldest_seq: Option<u64>,
    /// How many older generations hold groups.
    pub(crate) older_generations: usize,
    /// Bytes of the groups that were replayed.
    pub(crate) replayed_bytes: u64,
    /// The generations that are damaged.
    pub(crate) damaged: BTreeSet<u64>,
    /// Groups that were acknowledged, for all that is known, and are nowhere.
    pub(crate) lost: Vec<Range<u64>>,
    /// What is wrong, for people.
    pub(crate) reasons: Vec<String>,
}

/// What is known on the way.
struct Progress {
    next_seq: u64,
    replayed_bytes: u64,
    damaged: BTreeSet<u64>,
    lost: Vec<Range<u64>>,
    reasons: Vec<String>,
}

impl LogOpening {
    /// Opens the log in `dir`, hands what is needed of it to `replay`, in order, and begins a generation.
    pub(crate) fn open(
        &self,
        dir: &Path,
        mut replay: impl FnMut(u64, Group) -> Result<()>,
    ) -> Result<OpenedLog> {
        self.disk.create_dir_all(dir)?;
        let numbers = generations(dir)?;
        let mut found = Vec::with_capacity(numbers.len());
        for number in &numbers {
            found.extend(Generation::find(&generation_path(dir, *number), *number, self.writer)?);
        }
        let mut progress = Progress {
            next_seq: self.replay_from_seq,
            replayed_bytes: 0,
            damaged: BTreeSet::new(),
            lost: Vec::new(),
            reasons: Vec::new(),
        };
        if found.is_empty() && self.needed_from_seq > 1 {
            self.note(&mut progress, dir, None, "there is no log, and the index says that there was")?;
        }
        for (at, generation) in found.iter().enumerate() {
            // What a generation holds from the beginning of the next on had been refused.
            let later_seq = found.iter().skip(at + 1).find_map(|later| later.first_seq);
            self.replay_generation(generation, later_seq, &mut progress, &mut replay)?;
        }
        let next_seq = progress.next_seq.max(self.needed_from_seq).max(1);
        let number = numbers.last().map_or(1, |last| last + 1);
        let log = Log::begin(&self.disk, dir, self.writer, number, next_seq)?;
        // Generations that were being made, or got no group, go once the new one is there: cut off at any
        // point, there is a log.
        let used: BTreeSet<u64> = found.iter().filter(|one| !one.is_empty()).map(|one| one.number).collect();
        for unused in numbers.iter().filter(|number| !used.contains(number)) {
            self.disk.remove_dir_all(&generation_path(dir, *unused))?;
        }
        Ok(OpenedLog {
            oldest_seq: found.iter().find_map(|generation| generation.first_seq),
            older_generations: found.iter().filter(|generation| !generation.is_empty()).count(),
            log,
            replayed_bytes: progress.replayed_bytes,
            damaged: progress.damaged,
            lost: progress.lost,
            reasons: progress.reasons,
        })
    }

    fn replay_generation(
        &self,
        generation: &Generation,
        later_seq: Option<u64>,
        progress: &mut Progress,
        replay: &mut impl FnMut(u64, Group) -> Result<()>,
    ) -> Result<()> {
        let path = &generation.path;
        if let Some(damage) = generation.damage {
            self.note(progress, path, Some(generation.number), damage)?;
        }
        let Some(first_seq) = generation.first_seq else { return Ok(()) };
        self.miss(progress, generation, first_seq)?;
        progress.next_seq = progress.next_seq.max(first_seq.min(later_seq.unwrap_or(u64::MAX)));
        // Below this everything was acknowledged. Behind it a gap is what a power cut left of a write that
        // nobody was told of.
        let acknowledged_to = later_seq.or(generation.durable_seq).unwrap_or_default();
        for seq in generation.numbers(progress.next_seq, later_seq.unwrap_or(u64::MAX)) {
            if seq > progress.next_seq && progress.next_seq >= acknowledged_to {
                break;
            }
            self.miss(progress, generation, seq)?;
            let (group, bytes) = generation.read(self.writer, seq)?;
            replay(seq, group)?;
            progress.replayed_bytes += bytes as u64;
            progress.next_seq = seq + 1;
        }
        self.miss(progress, generation, acknowledged_to)
    }

    /// Notes that the groups from the next one to `end_seq` are lost, if there are any that are needed.
    fn miss(&self, progress: &mut Progress, generation: &Generation, end_seq: u64) -> Result<()> {
        let lost = progress.next_seq.max(self.needed_from_seq)..end_seq;
        progress.next_seq = progress.next_seq.max(end_seq);
        if lost.is_empty() {
            return Ok(());
        }
        let what = format!("groups {} to {} were acknowledged and can't be read", lost.start, lost.end - 1);
        progress.lost.push(lost);
        self.note(progress, &generation.path, Some(generation.number), &what)
    }

    fn note(&self, progress: &mut Progress, path: &Path, number: Option<u64>, what: &str) -> Result<()> {
        if self.strict {
            let what = format!(
                "{what}: open it with --on-damage set-aside to go on with all that can be read, or restore \
                 the data directory from a backup"
            );
            return Err(Error::damaged(path, what));
        }
        progress.damaged.extend(number);
        progress.reasons.push(Error::damaged(path, what).to_string());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record;
    use super::*;
    use crate::sample::Sample;
    use std::fs;

    const WRITER: Uuid = Uuid::from_u128(0x1234_5678_9abc_def0_0fed_cba9_8765_4321);

    fn group(series: u64) -> Group {
        let series = u32::try_from(series).expect("small");
        let samples = (0..20).map(|i| (series, Sample::new(i, f64::from(series)))).collect();
        Group { samples, ..Group::default() }
    }

    /// 30 groups in generations 1, 2 and 3, ten in each.
    fn write(dir: &Path) {
        let mut log = Log::begin(&Disk::default(), dir, WRITER, 1, 1).expect("begun");
        for seq in 1..=30 {
            log.append(&[group(seq)]).expect("appended");
            if seq == 10 || seq == 20 {
                log.rotate().expect("rotated");
            }
        }
    }

    fn open(dir: &Path, from_seq: u64, strict: bool) -> Result<(OpenedLog, Vec<u64>)> {
        let mut found = Vec::new();
        let opening = LogOpening {
            disk: Disk::default(),
            writer: WRITER,
            replay_from_seq: from_seq,
            needed_from_seq: from_seq,
            strict,
        };
        let opened = opening.open(dir, |seq, of_seq| {
            assert_eq!(of_seq, group(seq), "never a wrong group");
            found.push(seq);
            Ok(())
        })?;
        Ok((opened, found))
    }

    fn lost(opened: &OpenedLog) -> Vec<(u64, u64)> {
        opened.lost.iter().map(|groups| (groups.start, groups.end)).collect()
    }

    /// Damages what lies `offset` bytes behind the beginning of a group, wherever it is written.
    fn hit(dir: &Path, generation: u64, seq: u64, offset: usize) {
        let db = generation_path(dir, generation).join("db");
        let mut bytes = fs::read(&db).expect("read");
        let needle = record::encode_group(WRITER, seq, &group(seq));
        let places: Vec<usize> = memchr::memmem::find_iter(&bytes, &needle).collect();
        assert!(!places.is_empty(), "sled writes a value in one piece");
        places.iter().for_each(|at| bytes[at + offset] ^= 1);
        fs::write(&db, bytes).expect("written");
    }

    #[test]
    fn a_flipped_bit_costs_the_group_that_it_hits() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path());
        hit(dir.path(), 2, 15, 40);
        let error = open(dir.path(), 1, true).map(drop).expect_err("refused").to_string();
        assert!(
            error.contains("groups 15 to 15 were acknowledged") && error.contains("set-aside"),
            "{error}"
        );
        let (opened, found) = open(dir.path(), 1, false).expect("opens");
        assert_eq!((lost(&opened), &opened.damaged), (vec![(15, 16)], &BTreeSet::from([2])));
        assert_eq!(found.len(), 29);
        assert_eq!((opened.log.next_seq(), opened.log.generation()), (31, 4));
        drop(opened.log);
        assert!(open(dir.path(), 16, true).is_ok(), "what is in blocks is not missed");
    }

    #[test]
    fn a_generation_that_is_gone_is_told_by_its_numbers() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path());
        fs::remove_dir_all(generation_path(dir.path(), 2)).expect("removed");
        let (opened, found) = open(dir.path(), 5, false).expect("opens");
        assert_eq!(lost(&opened), [(11, 21)]);
        assert_eq!((found.len(), opened.log.next_seq()), (16, 31));
    }

    #[test]
    fn a_database_that_is_emptied_is_told_by_what_lies_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path());
        fs::write(generation_path(dir.path(), 3).join("db"), b"").expect("written");
        let (opened, found) = open(dir.path(), 1, false).expect("opens");
        assert_eq!((lost(&opened), found.len(), opened.log.next_seq()), (vec![(21, 31)], 20, 31));
    }

    #[test]
    fn a_gap_behind_what_was_acknowledged_is_the_rest_of_a_write_that_nobody_was_told_of() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path());
        super::super::durable::Durable::open(&Disk::default(), &generation_path(dir.path(), 3))
            .and_then(|durable| durable.note(25))
            .expect("noted");
        hit(dir.path(), 3, 27, 40);
        let (opened, found) = open(dir.path(), 1, true).expect("opens");
        assert_eq!((found.len(), opened.log.next_seq()), (26, 27));
    }
}
