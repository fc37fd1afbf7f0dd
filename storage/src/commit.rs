//! The committer: the one thread that changes the store. It takes what waits, checks it, writes it
//! into the log as one, syncs once, and only then applies and acknowledges it.

mod groups;

use crate::append::{NewSample, OutOfOrder, Reject, WriteReport};
use crate::deletes::DeleteRecord;
use crate::error::{Error, Result};
use crate::log::{Delete, Group, Log};
use crate::retention::Retention;
use crate::sample::Sample;
use crate::series::{Inserted, Series};
use crate::series_limits::Newcomers;
use crate::state::State;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use groups::{SAMPLES_PER_GROUP_MAX, groups_of, new_series};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Most samples that are committed with one sync.
const SAMPLES_PER_SYNC_MAX: usize = 200_000;

/// It has nothing to do when nothing has come for so long.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// The log goes on in a new generation each time it has grown by this part of what makes a seal due: about so much of it
/// is in memory.
const GENERATIONS_PER_SEAL: u64 = 4;

/// What the committer is asked to do.
pub(crate) enum Command {
    Append(Append),
    Delete {
        series: Vec<Arc<Series>>,
        start_ms: i64,
        end_ms: i64,
        done: Sender<Result<()>>,
    },
    /// Begin a new log generation.
    Rotate {
        done: Sender<Result<Rotated>>,
    },
    /// Forget those of these series that have no samples in memory. Answers which.
    Forget {
        series: Vec<Arc<Series>>,
        done: Sender<Vec<Arc<Series>>>,
    },
    Stop,
}

/// What the log is after a rotation.
pub(crate) struct Rotated {
    /// The generation that goes on.
    pub(crate) generation: u64,
    /// The number of its first group.
    pub(crate) first_seq: u64,
    /// Bytes of the groups in older generations that are not known to be sealed.
    pub(crate) older_bytes: u64,
    /// The oldest time of samples that have come since the rotation before.
    pub(crate) oldest_ms: Option<i64>,
}

/// Samples to append, their series looked up.
pub(crate) struct Append {
    pub(crate) samples: Vec<NewSample>,
    /// What samples refer to. The label sets that they were looked up by stay with the writer: whoever
    /// allocated them frees them faster, and this thread is the one that all wait for.
    pub(crate) series: Vec<Arc<Series>>,
    pub(crate) now_ms: i64,
    pub(crate) out_of_order: OutOfOrder,
    pub(crate) done: Box<dyn FnOnce(Result<WriteReport>) + Send>,
}

/// The committer's own state.
pub(crate) struct Committer {
    pub(crate) state: Arc<State>,
    pub(crate) log: Log,
    pub(crate) commands: Receiver<Command>,
    /// Samples sent and not yet committed, across all writers.
    pub(crate) queued_samples: Arc<AtomicUsize>,
    /// Whether the last write into the log failed: the next one begins a new generation.
    pub(crate) log_failed: bool,
}

/// One append on its way through a commit.
struct Pending {
    append: Append,
    report: WriteReport,
    /// The samples that passed, with their series' place in `append.series`.
    admitted: Vec<(usize, Sample)>,
}

impl Committer {
    /// Works until it is told to stop or nobody is left to tell it.
    pub(crate) fn run(mut self) {
        while let Some(command) = self.next() {
            match command {
                Command::Append(first) => {
                    if !self.append_with_waiting(first) {
                        return;
                    }
                }
                other => {
                    if !self.execute(other) {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for the next command; `None`: nobody is left to give one.
    fn next(&self) -> Option<Command> {
        if let Some(when_idle) = self.state.options.when_idle {
            match self.commands.recv_timeout(IDLE_AFTER) {
                Err(RecvTimeoutError::Timeout) => when_idle(),
                received => return received.ok(),
            }
        }
        self.commands.recv().ok()
    }

    /// Commits an append together with those that wait behind it. False: stop.
    fn append_with_waiting(&mut self, first: Append) -> bool {
        let mut samples = first.samples.len();
        let mut appends = vec![first];
        let mut next = None;
        while samples < SAMPLES_PER_SYNC_MAX {
            match self.commands.try_recv() {
                Ok(Command::Append(append)) => {
                    samples += append.samples.len();
                    appends.push(append);
                }
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        self.queued_samples.fetch_sub(samples, Ordering::Relaxed);
        self.commit(appends);
        next.is_none_or(|command| self.execute(command))
    }

    fn execute(&mut self, command: Command) -> bool {
        // Whoever asked may have gone: then nobody needs the answer.
        match command {
            Command::Append(append) => return self.append_with_waiting(append),
            Command::Delete { series, start_ms, end_ms, done } => {
                let _ = done.send(self.delete(&series, start_ms, end_ms));
            }
            Command::Rotate { done } => {
                let _ = done.send(self.rotate());
            }
            Command::Forget { series, done } => {
                let _ = done.send(self.forget(series));
            }
            Command::Stop => return false,
        }
        true
    }

    fn commit(&mut self, appends: Vec<Append>) {
        let mut newcomers = Newcomers::default();
        let mut pending: Vec<Pending> =
            appends.into_iter().map(|append| self.admit(append, &mut newcomers)).collect();
        let created = new_series(&pending);
        let groups = groups_of(&created, &pending);
        let written = self.state.check_space().and_then(|()| self.write(&groups));
        self.note_outcome(&written);
        match &written {
            Ok(()) => self.apply(&created, &mut pending),
            Err(_) => self.take_back(&pending),
        }
        // What got no sample is not a series: refused writes must not fill the memory.
        for series in pending.iter().flat_map(|one| &one.append.series) {
            if !series.is_durable() && !series.is_removed() {
                self.state.registry.discard(series);
            }
        }
        for one in pending {
            (one.append.done)(match &written {
                Ok(()) => Ok(one.report),
                Err(error) => Err(copy_of(error)),
            });
        }
    }

    /// Forgets what was admitted and could not be written, but for the newest values: those are served
    /// until newer ones are durable.
    fn take_back(&self, pending: &[Pending]) {
        for one in pending {
            for (at, sample) in &one.admitted {
                let series = &one.append.series[*at];
                series.withdraw();
                self.state.undurable.note(&series.labels.share(), series.latest(), *sample);
            }
        }
    }

    /// Decides which samples of an append are taken.
    fn admit(&self, mut append: Append, newcomers: &mut Newcomers) -> Pending {
        for series in append.series.iter_mut().filter(|series| series.is_removed()) {
            *series = self.state.registry.get_or_create(&series.labels.to_labels());
        }
        let retention = self.state.retention();
        let mut report = WriteReport::default();
        let mut admitted = Vec::with_capacity(append.samples.len());
        for (place, new) in append.samples.iter().enumerate() {
            let series = &append.series[new.series];
            let newest_ms = series.newest_admitted_ms();
            let timestamp_ms = match new.timestamp_ms {
                Some(given) => given,
                None => newest_ms.map_or(append.now_ms, |n| append.now_ms.max(n.saturating_add(1))),
            };
            let given = new.timestamp_ms.is_some();
            let refused = given
                .then(|| self.refuse(&retention, series, timestamp_ms, append.now_ms, append.out_of_order))
                .flatten();
            let sample = Sample::new(timestamp_ms, new.value);
            if let Some(reject) = refused {
                report.rejected.push((place, reject));
            } else if series.holds(sample) {
                report.duplicates += 1;
            } else if let Err(reject) = newcomers.admit(&self.state, series) {
                report.rejected.push((place, reject));
            } else {
                series.admit(timestamp_ms);
                admitted.push((new.series, sample));
            }
        }
        Pending { append, report, admitted }
    }

    fn refuse(
        &self,
        retention: &Retention,
        series: &Series,
        timestamp_ms: i64,
        now_ms: i64,
        out_of_order: OutOfOrder,
    ) -> Option<Reject> {
        let options = &self.state.options;
        if timestamp_ms > now_ms.saturating_add(options.ahead_max_ms) {
            return Some(Reject::TooFarAhead { timestamp_ms, now_ms, ahead_max_ms: options.ahead_max_ms });
        }
        let oldest_ms = retention.oldest_ms(series, now_ms);
        if let Some(oldest_ms) = oldest_ms.filter(|oldest_ms| timestamp_ms < *oldest_ms) {
            let class = retention.rule_of(series).class.clone();
            return Some(Reject::BeyondRetention { timestamp_ms, oldest_ms, class });
        }
        let window_ms = options.out_of_order_window_ms;
        let newest_ms = series.newest_admitted_ms().filter(|_| out_of_order == OutOfOrder::Window)?;
        (timestamp_ms < newest_ms.saturating_sub(window_ms)).then_some(Reject::OutOfOrder {
            timestamp_ms,
            newest_ms,
            window_ms,
        })
    }

    /// Writes groups into the log, durably, or none of them.
    fn write(&mut self, groups: &[Group]) -> Result<()> {
        if groups.is_empty() {
            return Ok(());
        }
        let is_full = self.log.generation_bytes() >= self.state.options.seal_log_bytes / GENERATIONS_PER_SEAL;
        if self.log_failed || (is_full && !self.log.is_empty()) {
            self.begin_generation()?;
        }
        // Until the log says otherwise, assume the worst of it.
        self.log_failed = true;
        let bytes = self.log.append(groups)?;
        self.log_failed = false;
        self.state.counters.log_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.state.counters.groups_committed.fetch_add(groups.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Remembers why writes fail, for readiness and statistics; logs it once.
    fn note_outcome(&self, written: &Result<()>) {
        let mut failure = self.state.write_failure.lock();
        match written {
            Ok(()) => *failure = None,
            Err(error) => {
                if failure.is_none() {
                    tracing::error!(%error, "writes are refused: the log can't be written; latest values are served from memory, not durable");
                }
                *failure = Some(error.to_string());
            }
        }
    }

    /// Makes durable samples readable.
    fn apply(&self, created: &[Arc<Series>], pending: &mut [Pending]) {
        for series in created {
            series.set_durable();
            self.state.publish(series);
        }
        let created: HashSet<u32> = created.iter().map(|series| series.id).collect();
        let mut credited = HashSet::new();
        let (mut added, mut oldest_ms) = (0, i64::MAX);
        for one in &mut *pending {
            for (at, sample) in &one.admitted {
                let series = &one.append.series[*at];
                oldest_ms = oldest_ms.min(sample.timestamp_ms);
                match series.insert(*sample) {
                    Inserted::Added => {
                        one.report.accepted += 1;
                        added += 1;
                    }
                    Inserted::Merged => one.report.accepted += 1,
                    Inserted::Duplicate => one.report.duplicates += 1,
                }
                if created.contains(&series.id) && credited.insert(series.id) {
                    one.report.series_created += 1;
                }
            }
        }
        self.state.counters.head_samples.fetch_add(added, Ordering::Relaxed);
        self.state.counters.head_oldest_ms.note(oldest_ms);
        if self.state.undurable.len() > 0 {
            self.settle(pending);
        }
    }

    /// Lets go of latest values that are not durable, where newer ones are now.
    fn settle(&self, pending: &[Pending]) {
        for one in pending {
            for (at, sample) in &one.admitted {
                let labels = one.append.series[*at].labels.to_labels();
                self.state.undurable.settle(&labels, sample.timestamp_ms);
            }
        }
    }

    fn delete(&mut self, series: &[Arc<Series>], start_ms: i64, end_ms: i64) -> Result<()> {
        let first_seq = self.log.next_seq();
        let deletes = |series: &[Arc<Series>]| {
            series.iter().map(|s| Delete { series: s.id, start_ms, end_ms }).collect::<Vec<_>>()
        };
        let groups: Vec<Group> = series
            .chunks(SAMPLES_PER_GROUP_MAX)
            .map(|part| Group { deletes: deletes(part), ..Group::default() })
            .collect();
        self.write(&groups)?;
        let mut all = (*self.state.deletes()).clone();
        for (seq, part) in (first_seq..).zip(series.chunks(SAMPLES_PER_GROUP_MAX)) {
            for series in part {
                self.state.count_gone_from_head(series.delete_from_head(start_ms, end_ms));
                all.add(DeleteRecord { seq, series: series.id, start_ms, end_ms });
            }
        }
        self.state.set_deletes(all);
        for series in series {
            series.reset_latest(self.state.newest_sample(series)?);
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<Rotated> {
        self.state.check_space()?;
        // A seal that failed may have left an empty generation: it serves the next one.
        if self.log_failed || !self.log.is_empty() {
            self.begin_generation()?;
        }
        Ok(Rotated {
            generation: self.log.generation(),
            first_seq: self.log.next_seq(),
            older_bytes: self.state.counters.log_bytes.load(Ordering::Relaxed),
            oldest_ms: self.state.counters.head_oldest_ms.take(),
        })
    }

    fn begin_generation(&mut self) -> Result<()> {
        // A generation that was begun but not answered for hides what the one before gets from then on.
        self.log_failed = true;
        self.log.rotate()?;
        self.log_failed = false;
        Ok(())
    }

    fn forget(&self, mut series: Vec<Arc<Series>>) -> Vec<Arc<Series>> {
        series.retain(|series| series.head_samples() == 0);
        for series in &series {
            self.state.registry.remove(series);
            self.state.handed_out.forget(series);
            self.state.postings.write().remove(series.id, series.labels.iter());
            self.state.counters.series_generation.fetch_add(1, Ordering::Relaxed);
        }
        series
    }
}

/// The same error for one more waiting writer.
fn copy_of(error: &Error) -> Error {
    match error {
        Error::NoSpace { path, free_bytes, needed_bytes } => {
            Error::NoSpace { path: path.clone(), free_bytes: *free_bytes, needed_bytes: *needed_bytes }
        }
        Error::Io { doing, path, source } => Error::Io {
            doing,
            path: path.clone(),
            source: std::io::Error::new(source.kind(), source.to_string()),
        },
        other => Error::KeyValue { path: std::path::PathBuf::from("log"), what: other.to_string() },
    }
}
