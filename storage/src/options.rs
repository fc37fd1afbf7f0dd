//! How the engine is set up.

use crate::disk::Disk;
use crate::retention::RollupWindows;
use crate::room::SizeMax;
use crate::series_limits::SeriesLimits;
use std::collections::BTreeSet;

/// One minute in milliseconds.
const MINUTE_MS: i64 = 60_000;

/// Settings of an engine; the defaults suit a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long samples are kept, in milliseconds: a lower bound, since whole partitions expire.
    /// `None`: for ever. Default 15 days.
    pub retention_ms: Option<i64>,
    /// What is rolled up of series that no rule matches, and how long it is kept. Default nothing.
    pub rollups: RollupWindows,
    /// Names of counters besides those that end in `_total`: their rates are rolled up as well.
    pub counters: BTreeSet<String>,
    /// How much room the store may take: the oldest partitions go before it takes more. Default no limit.
    pub size_max: Option<SizeMax>,
    /// How much older than its series' newest sample a sample may be. Default 1 hour.
    pub out_of_order_window_ms: i64,
    /// How far ahead of the clock a sample may be. Default 10 minutes.
    pub ahead_max_ms: i64,
    /// The time that one partition spans; fixed when the store is made. Default 1 day.
    pub partition_ms: i64,
    /// [`Db::maintain`](crate::Db::maintain) seals once the log has grown by this much. Default 16 MiB.
    pub seal_log_bytes: u64,
    /// [`Db::maintain`](crate::Db::maintain) seals once so many samples are in memory, 3 to 16 bytes each,
    /// or, now and then, an eighth of that and nothing has come for 30 seconds. Default 2.5 million.
    pub seal_head_samples: u64,
    /// [`Db::maintain`](crate::Db::maintain) seals at least this often. Default 2 hours.
    pub seal_every_ms: i64,
    /// [`Db::maintain`](crate::Db::maintain) merges blocks of about one size of a partition once they are
    /// more than this. Default 8.
    pub blocks_per_partition_max: usize,
    /// The index's database is closed while nobody needs it once it holds about so many bytes of memory, and
    /// opened when it is needed again. Default 8 MiB.
    pub index_memory_max: u64,
    /// Writes are refused while the volume has less room than this. Default 64 MiB.
    pub free_bytes_min: u64,
    /// What to do when the index or the log is damaged. Default: refuse to open.
    pub on_damage: OnDamage,
    /// Most samples waiting to be committed. Default 4 million.
    pub queued_samples_max: usize,
    /// How much of rollups is kept in memory as it was decoded last, in bytes. Default 64 MiB.
    pub rollup_cache_bytes: usize,
    /// How many series there may be. Default as many as come.
    pub series_limits: SeriesLimits,
    /// What a thread does when it has done its work: the one that writes once nothing has come for a second, the one that
    /// maintains after each time that something was due. With some allocators memory that others have freed goes back
    /// only by the thread that allocated it. Default nothing.
    pub when_idle: Option<fn()>,
    /// The way to the file system, which a test may watch and cut off. Default as it is.
    pub disk: Disk,
}

/// What to do when the index or the log is damaged. Damaged blocks and chunks are always left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// Do not open: leave everything as it is.
    Refuse,
    /// Set the damaged part aside, take all that can still be read, and go on.
    SetAside,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retention_ms: Some(15 * 24 * 60 * MINUTE_MS),
            rollups: RollupWindows::new(),
            counters: BTreeSet::new(),
            size_max: None,
            out_of_order_window_ms: 60 * MINUTE_MS,
            ahead_max_ms: 10 * MINUTE_MS,
            partition_ms: 24 * 60 * MINUTE_MS,
            seal_log_bytes: 16 << 20,
            seal_head_samples: 2_500_000,
            seal_every_ms: 120 * MINUTE_MS,
            blocks_per_partition_max: 8,
            index_memory_max: 8 << 20,
            free_bytes_min: 64 << 20,
            on_damage: OnDamage::Refuse,
            queued_samples_max: 4_000_000,
            rollup_cache_bytes: 64 << 20,
            series_limits: SeriesLimits::default(),
            when_idle: None,
            disk: Disk::default(),
        }
    }
}
