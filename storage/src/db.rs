//! The engine: opened on a directory, shared by clones.

use crate::append::{OutOfOrder, WriteBatch, WriteReport};
use crate::backup;
use crate::commit::{Append, Command, Committer};
use crate::each::{Pick, Visit};
use crate::error::{Error, Result};
use crate::files;
use crate::identity;
use crate::index::StoreRecord;
use crate::inner::{Inner, MaintenanceState};
use crate::labels::Labels;
use crate::maintain::Maintained;
use crate::options::{OnDamage, Options};
use crate::quarantine;
use crate::recover::{Recovered, recover, was_never_open};
use crate::repair::repair;
use crate::resample::{Aggregation, Grid};
use crate::retention::{DEFAULT_CLASS, RetentionError, RetentionRule, check_windows};
use crate::rollup::{Figure, RangeRead, RangeUse, Spans, VisitParts};
use crate::sample::Sample;
use crate::select::{ReadLimits, Selection, SeriesSamples};
use crossbeam::channel::{TrySendError, bounded};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

pub(crate) const LOCK_FILE: &str = "LOCK";
/// Commands that may wait for the committer.
const COMMANDS_MAX: usize = 1_024;

/// A store of time series on a directory of its own. A cheap clone; the last one to go closes it.
///
/// Calls block their thread, [`append`](Self::append) aside, which answers through a callback.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Series that readers see.
    pub series: u64,
    /// Changes whenever the set of visible series does.
    pub series_generation: u64,
    /// Samples in memory, not yet in a published block.
    pub head_samples: u64,
    /// Samples in blocks.
    pub sealed_samples: u64,
    /// Bytes of the write-ahead log on disk.
    pub log_bytes: u64,
    /// Bytes of blocks on disk.
    pub block_bytes: u64,
    /// Bytes of rollups on disk.
    pub rollup_bytes: u64,
    /// Bytes of the index on disk.
    pub index_bytes: u64,
    /// Partitions of time that have blocks.
    pub partitions: u64,
    /// Blocks.
    pub blocks: u64,
    /// Rollups, whole files or of a series, that were left out because they are damaged.
    pub damaged_rollups: u64,
    /// Partitions that went before their time to make room, since the start.
    pub partitions_dropped: u64,
    /// Bytes that the store takes, as maintenance last found it.
    pub used_bytes: u64,
    /// Bytes that the store may take, if that is limited.
    pub size_max_bytes: Option<u64>,
    /// In how many milliseconds there is no room left, if the store goes on growing as it does.
    pub full_in_ms: Option<i64>,
    /// Log groups made durable since the start.
    pub groups_committed: u64,
    /// Blocks left out because they are damaged.
    pub damaged_blocks: u64,
    /// Reads of chunks that were left out because they are damaged.
    pub damaged_chunks: u64,
    /// Series whose newest sample could not be written, and is served from memory.
    pub latest_undurable: u64,
    /// Files and directories that were set aside because they are damaged.
    pub set_aside: u64,
    /// Groups of the log that were acknowledged and are lost, since the start.
    pub lost_log_groups: u64,
    /// What was found to be damaged when the store was opened, and set aside.
    pub damage: Vec<String>,
    /// Why the last write failed, until one succeeds.
    pub write_failure: Option<String>,
}

impl Db {
    /// Opens the store in `dir`, or makes one, and replays its log. `new_uuid` is the identity of a
    /// store that is made.
    ///
    /// # Errors
    /// When another process has it, when it is of a later format, when it is damaged where nothing can
    /// be left out (the index, the log), or when the file system refuses.
    pub fn open(dir: &Path, options: Options, new_uuid: Uuid) -> Result<Self> {
        options.disk.create_dir_all(dir)?;
        let lock = lock(dir)?;
        backup::refuse_unfinished(dir)?;
        identity::refuse_later_format(dir)?;
        let new_store =
            StoreRecord { format: crate::FORMAT_VERSION, uuid: new_uuid, partition_ms: options.partition_ms };
        let recovered = match recover(dir, &options, new_store) {
            Err(error)
                if error.is_loss() && (options.on_damage == OnDamage::SetAside || was_never_open(dir)) =>
            {
                repair(dir, &options, error)?
            }
            recovered => recovered?,
        };
        let Recovered { state, index, store, catalog, log, next_block, seal_soon } = recovered;
        check_windows(DEFAULT_CLASS, &state.options.rollups, store.partition_ms)?;

        let (commands, receiver) = bounded(COMMANDS_MAX);
        let queued_samples = Arc::new(AtomicUsize::new(0));
        let committer = Committer {
            state: Arc::clone(&state),
            log,
            commands: receiver,
            queued_samples: Arc::clone(&queued_samples),
            log_failed: false,
        };
        let committer = std::thread::Builder::new()
            .name("lookback-commit".to_owned())
            .spawn(move || committer.run())
            .map_err(Error::io("start the committer for", dir))?;
        Ok(Self(Arc::new(Inner {
            state,
            index,
            catalog: Mutex::new(catalog),
            store,
            commands,
            queued_samples,
            maintenance: Mutex::new(MaintenanceState {
                next_block,
                seal_soon,
                groups_since: None,
                quiet_seal_ms: None,
                ..MaintenanceState::default()
            }),
            committer: Some(committer),
            _lock: lock,
        })))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// Hands samples to the committer and returns; `done` is called, on the committer's thread, once
    /// everything accepted is durable: it survives a power cut. `now_ms` stamps samples without a time
    /// and bounds those with one.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when too much waits already, [`Error::Closed`]; then `done` is not called.
    pub fn append(
        &self,
        batch: WriteBatch,
        now_ms: i64,
        out_of_order: OutOfOrder,
        done: impl FnOnce(Result<WriteReport>) + Send + 'static,
    ) -> Result<()> {
        let inner = &self.0;
        let samples = batch.samples.len();
        let waiting = inner.queued_samples.fetch_add(samples, Ordering::Relaxed);
        // One batch is always let in, however large: it is bounded by whoever made it.
        if waiting > 0 && waiting + samples > inner.state.options.queued_samples_max {
            inner.queued_samples.fetch_sub(samples, Ordering::Relaxed);
            return Err(Error::Overloaded);
        }
        let series = inner.state.registry.get_or_create_all(&batch.series);
        let append = Append { samples: batch.samples, series, now_ms, out_of_order, done: Box::new(done) };
        inner.commands.try_send(Command::Append(append)).map_err(|refused| {
            inner.queued_samples.fetch_sub(samples, Ordering::Relaxed);
            match refused {
                TrySendError::Full(_) => Error::Overloaded,
                TrySendError::Disconnected(_) => Error::Closed,
            }
        })
    }

    /// [`append`](Self::append), and waits for it.
    ///
    /// # Errors
    /// As `append`, and what the write itself met.
    pub fn append_wait(
        &self,
        batch: WriteBatch,
        now_ms: i64,
        out_of_order: OutOfOrder,
    ) -> Result<WriteReport> {
        let (sender, answer) = bounded(1);
        self.append(batch, now_ms, out_of_order, move |report| {
            // The one who waits may have gone.
            let _ = sender.send(report);
        })?;
        answer.recv().map_err(|_| Error::Closed)?
    }

    /// The newest sample of each selected series, staleness markers included, in no order. Touches
    /// memory only, and waits for no writer.
    #[must_use]
    pub fn latest(&self, selection: Selection<'_>) -> Vec<(Arc<Labels>, Sample)> {
        self.0.state.latest(selection)
    }

    /// Newest samples of the selected series that could not be written, in no order: newer than what
    /// [`latest`](Self::latest) gives, not durable, and forgotten by a restart. None, normally.
    #[must_use]
    pub fn latest_undurable(&self, selection: Selection<'_>) -> Vec<(Arc<Labels>, Sample)> {
        self.0.state.undurable.select(selection)
    }

    /// All samples of the selected series in `[start_ms, end_ms]`, bit for bit, in label order.
    ///
    /// # Errors
    /// When a bound is met, or the file system refuses. Damaged chunks are left out, counted and logged.
    pub fn select(
        &self,
        selection: Selection<'_>,
        start_ms: i64,
        end_ms: i64,
        limits: ReadLimits<'_>,
    ) -> Result<Vec<SeriesSamples>> {
        self.0.state.select(selection, start_ms, end_ms, limits)
    }

    /// Resampled history of the selected series, in label order; see [`crate::resample`]. With
    /// `counter`, the samples are read as a counter's, and its rate a second is aggregated. Rollups stand
    /// for samples where they say the same, but for the order in which a sum is added up.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn range(
        &self,
        selection: Selection<'_>,
        grid: Grid,
        aggregation: Aggregation,
        counter: bool,
        limits: ReadLimits<'_>,
    ) -> Result<RangeRead> {
        self.range_of_points(selection, grid, aggregation, counter, usize::MAX, limits)
    }

    /// [`range`](Self::range) of at most `points_max` points, all series together.
    ///
    /// # Errors
    /// As `range`, and [`Error::TooManyPoints`] as soon as it is known that there are more.
    pub fn range_of_points(
        &self,
        selection: Selection<'_>,
        grid: Grid,
        aggregation: Aggregation,
        counter: bool,
        points_max: usize,
        limits: ReadLimits<'_>,
    ) -> Result<RangeRead> {
        self.0.state.range(selection, grid, aggregation, counter, points_max, limits)
    }

    /// Whether it takes no more than a short look at the index to know that nothing is selected. Touches
    /// memory only, and waits for no writer.
    #[must_use]
    pub fn selects_nothing(&self, selection: Selection<'_>) -> bool {
        self.0.state.postings.read().surely_none(selection.matchers)
    }

    /// Hands `visit` the selected series that have samples in `[start_ms, end_ms]`, bit for bit, one after
    /// another in the order of their labels, until it breaks off: the samples of one series are in memory
    /// at a time, and `limits` bounds those.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn select_each(
        &self,
        selection: Selection<'_>,
        (start_ms, end_ms): (i64, i64),
        pick: Pick,
        limits: ReadLimits<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        self.0.state.select_each(selection, (start_ms, end_ms), pick, limits, visit)
    }

    /// Hands `visit` the selected series that have samples in `spans`, one after another in the order of their
    /// labels, until it breaks off: as they are, or with windows of rollups in the place of samples where those
    /// leave nothing out, or are all that is left; see [`Spans`]. `limits` bounds the samples and parts of one
    /// series. Answers what was read.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn parts_each(
        &self,
        selection: Selection<'_>,
        spans: Spans,
        figure: Figure,
        limits: ReadLimits<'_>,
        visit: &mut VisitParts<'_>,
    ) -> Result<RangeUse> {
        self.0.state.parts_each(selection, spans, figure, limits, visit)
    }

    /// The label sets of the selected series that may have samples in `[start_ms, end_ms]`, in the order of
    /// their labels. Reads no samples from disk, so a deleted one may still count.
    #[must_use]
    pub fn series_within(&self, selection: Selection<'_>, start_ms: i64, end_ms: i64) -> Vec<Arc<Labels>> {
        self.0.state.series_within(selection, start_ms, end_ms)
    }

    /// The names of labels (`name` is `None`) or the values of one, of the selected series, sorted.
    #[must_use]
    pub fn labels(&self, name: Option<&str>, selection: Selection<'_>) -> Vec<String> {
        self.0.state.labels(name, selection)
    }

    /// Deletes the selected series' samples in `[start_ms, end_ms]`, durably, and answers how many
    /// series that were. Samples written later are not touched. The space comes back with merges.
    ///
    /// # Errors
    /// When the delete could not be made durable.
    pub fn delete(&self, selection: Selection<'_>, start_ms: i64, end_ms: i64) -> Result<u64> {
        let _not_during_a_seal = self.0.maintenance.lock();
        self.0.state.undurable.delete(selection, start_ms, end_ms);
        let series = self.0.state.select_series(selection);
        let count = series.len() as u64;
        if count > 0 {
            let (done, answer) = bounded(1);
            self.0.send(Command::Delete { series, start_ms, end_ms, done })?;
            answer.recv().map_err(|_| Error::Closed)??;
        }
        Ok(count)
    }

    /// Lets no new series in until it is told otherwise: the process is short of memory. Samples of series
    /// that there are go on.
    pub fn refuse_new_series(&self, refuse: bool) {
        self.0.state.memory_short.store(refuse, Ordering::Relaxed);
    }

    /// Does what is due at `now_ms`: expires partitions, seals, merges, forgets empty series. To be
    /// called every few seconds.
    ///
    /// # Errors
    /// When something could not be done; it will be tried again by the next call.
    pub fn maintain(&self, now_ms: i64) -> Result<Maintained> {
        self.0.maintain(now_ms)
    }

    /// Whether [`maintain`](Self::maintain) would seal now because of how much is in memory. Takes no time.
    #[must_use]
    pub fn memory_is_full(&self) -> bool {
        self.0.memory_is_full()
    }

    /// Seals everything in memory now.
    ///
    /// # Errors
    /// When it could not be; nothing is lost.
    pub fn seal(&self) -> Result<()> {
        let mut maintenance = self.0.maintenance.lock();
        self.0.seal(&mut maintenance.next_block)
    }

    /// Makes these the rules of retention, before the default of [`Options`]: reads, refusals, seals and
    /// expiry go by them from now on.
    ///
    /// # Errors
    /// When they can't be used; then the rules before hold on.
    pub fn set_retention_rules(&self, rules: Vec<RetentionRule>) -> std::result::Result<(), RetentionError> {
        self.0.state.set_rules(rules)
    }

    /// Tells the engine what time it is, as [`maintain`](Self::maintain) does: reads leave out what is
    /// older than retention at that time.
    pub fn tell_time(&self, now_ms: i64) {
        self.0.state.told_ms.store(Some(now_ms));
    }

    /// The store's identity.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.0.store.uuid
    }

    /// What the store holds. Reads the sizes of its files.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = &self.0.state;
        let (blocks, room, rollups) = (state.blocks(), *state.room.lock(), state.rollups());
        let partitions: HashSet<(&str, i64)> =
            blocks.iter().map(|b| (b.record().class.as_str(), b.record().partition_start_ms)).collect();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            series: state.postings.read().len(),
            series_generation: self.series_generation(),
            head_samples: count(&state.counters.head_samples),
            sealed_samples: blocks.iter().map(|b| b.samples()).sum(),
            log_bytes: files::bytes_below(&self.0.log_dir()),
            block_bytes: blocks.iter().map(|b| b.file_bytes()).sum(),
            rollup_bytes: rollups.values().flat_map(|unit| &unit.files).map(|file| file.file_bytes()).sum(),
            index_bytes: self.0.index.bytes(),
            partitions: partitions.len() as u64,
            blocks: blocks.len() as u64,
            damaged_rollups: count(&state.counters.damaged_rollups),
            partitions_dropped: count(&state.counters.partitions_dropped),
            used_bytes: room.used_bytes,
            size_max_bytes: room.limit_bytes,
            full_in_ms: room.full_in_ms,
            groups_committed: count(&state.counters.groups_committed),
            damaged_blocks: count(&state.counters.damaged_blocks),
            damaged_chunks: count(&state.counters.damaged_chunks),
            latest_undurable: state.undurable.len() as u64,
            set_aside: quarantine::count(&state.dir),
            lost_log_groups: count(&state.damage.lost_groups),
            damage: state.damage.reasons.lock().clone(),
            write_failure: state.write_failure.lock().clone(),
        }
    }

    /// Changes whenever the set of visible series does.
    #[must_use]
    pub fn series_generation(&self) -> u64 {
        self.0.state.counters.series_generation.load(Ordering::Relaxed)
    }
}

/// Takes the directory for this process, until the file is closed.
pub(crate) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {
            // Only for the message to whoever comes second.
            let noted = file.set_len(0).and_then(|()| writeln!(file, "process {}", std::process::id()));
            noted.map_err(Error::io("write", &path))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = if known { holder.trim().to_owned() } else { "another process".to_owned() };
            Err(Error::Locked { path: dir.to_owned(), holder })
        }
        Err(TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_which_every_sample_was_refused_take_no_memory() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = Db::open(dir.path(), Options::default(), Uuid::from_u128(1)).expect("opens");
        let append = |name: &str, timestamp_ms| {
            let mut batch = WriteBatch::default();
            batch.push(Labels::new([("__name__", name)]).expect("valid"), Some(timestamp_ms), 1.0);
            db.append_wait(batch, 1_000, OutOfOrder::Window).expect("answered")
        };
        assert_eq!(append("a", i64::MAX).rejected.len(), 1);
        assert!(db.0.state.registry.all().is_empty());
        let next_id = db.0.state.registry.next_id();
        assert_eq!(append("b", i64::MAX).rejected.len(), 1);
        assert_eq!(db.0.state.registry.next_id(), next_id, "nor a number");
        assert_eq!(append("a", 1_000).accepted, 1);
        assert_eq!(append("a", i64::MAX).rejected.len(), 1);
        assert_eq!(db.0.state.registry.all().len(), 1);
    }
}
