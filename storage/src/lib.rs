//! The embedded time-series engine of Lookback.
//!
//! It keeps samples (`f64` at a millisecond) of series (label sets, as in Prometheus) on a directory
//! of its own: first in a write-ahead log, then in compressed, checksummed, immutable blocks by
//! partition of time, which expire whole.
//!
//! **What it promises.** When an append is acknowledged, its samples survive the end of the process
//! and a power cut. A read returns what was written, bit for bit, or leaves out what is damaged and
//! says so; it never returns a wrong value.
//!
//! **What it is not.** It has no clock, no network, no async runtime and no query language: time comes
//! with each call, and calls block. One process opens a directory at a time. It does not replicate.
//!
//! **Limits.** 2³² series over the life of a store; label sets as in [`labels::limits`]; a partition
//! is 1 day by default; samples in memory until they are sealed.
//!
//! ```
//! use lookback_storage::{Db, Labels, Matcher, Options, OutOfOrder, ReadLimits, Selection, WriteBatch};
//!
//! let dir = tempfile::tempdir()?;
//! let db = Db::open(dir.path(), Options::default(), uuid::Uuid::new_v4())?;
//! let mut batch = WriteBatch::default();
//! batch.push(Labels::new([("__name__", "rps"), ("pod", "web-1")])?, Some(1_000), 42.0);
//! let report = db.append_wait(batch, 1_000, OutOfOrder::Window)?;
//! assert_eq!(report.accepted, 1);
//!
//! let matchers = [Matcher::equal("__name__", "rps")];
//! let selection = Selection { matchers: &matchers, visible: None };
//! let limits = ReadLimits { samples_max: 1_000, cancelled: &|| false };
//! let read = db.select(selection, 0, 2_000, limits)?;
//! assert_eq!(read[0].1[0].value, 42.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Memory
//!
//! What a series of six labels takes, seven of which describe one pod, as `heaptrack` counts it; the allocator
//! adds up to a quarter. `cargo bench -p lookback-storage --bench growth -- --one 1000000 1 3` measures all.
//!
//! | part | bytes |
//! |---|---|
//! | numbers, newest sample, state | 96 |
//! | references to its labels, 8 each | 48 |
//! | labels that it shares with others: text, references, where they are found | 13 |
//! | where it is found by label set and by number | 25 to 35 |
//! | postings of its labels | 37 |
//! | in each block that has a chunk of it | 4 to 5 |
//! | with samples in memory: a box with two in it, 16 for each of up to 63 samples, 3 for those before | 56 and more |
//! | index database, while it is open; at most [`Options::index_memory_max`] and 45 for each series | |
//!
//! Beside that sled keeps the log's last generation in memory (a quarter of [`Options::seal_log_bytes`] and one commit),
//! and two or three buffers a database: of 2 MiB for the log, of 8 MiB for the index while it is open.
//!
//! # Map
//!
//! | file | what |
//! |---|---|
//! | `db` | opening, the public calls |
//! | `inner` | an open store, which seals and maintenance work on |
//! | `recover` | index and log brought into memory at the start |
//! | `backup`, `verify`, `inspect` | copies of a store, and stores of copies; every checksum; what takes how much |
//! | `repair`, `quarantine` | a damaged index or log: what can be read is taken, the rest set aside |
//! | `commit` | the one thread that changes the store: group commit; `groups`: what one writes |
//! | `seal`, `merge`, `maintain` | memory to blocks; blocks to fewer; what is done when |
//! | `retention`, `expire`, `room` | rules and classes; what goes by age, and for want of room |
//! | `select`, `each`, `pieces` | reads: memory and blocks merged; one series after another; everything in pieces |
//! | `rollup` | windows in the place of samples: made, kept, read |
//! | `resample` | what a point of a resampled series is |
//! | `state`, `registry`, `stored_labels`, `handed_out`, `series`, `head`, `latest`, `postings`, `deletes` | what is in memory |
//! | `series_limits` | how many series there may be |
//! | `undurable` | latest values that could not be written |
//! | `extent` | how far the samples reach |
//! | `log`, `index`, `catalog`, `block`, `chunk`, `codec` | what is on disk, specified in FORMAT.md |
//! | `keyvalue` | the only file that names sled |
//! | `identity` | whose directory it is, beside the index |
//! | `disk`, `files`, `bytes` | every change on disk, durable; what files there are; small encodings |
//! | `append`, `labels`, `matcher`, `sample`, `options`, `error` | the words of the interface |

pub mod append;
mod backup;
mod block;
mod bytes;
mod catalog;
mod chunk;
mod codec;
mod commit;
mod db;
mod deletes;
mod disk;
mod each;
mod error;
mod expire;
mod extent;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handed_out;
mod head;
mod identity;
mod index;
mod inner;
mod inspect;
mod keyvalue;
pub mod labels;
mod latest;
mod log;
mod maintain;
mod matcher;
mod merge;
mod options;
mod pieces;
mod postings;
mod quarantine;
mod recover;
mod registry;
mod repair;
pub mod resample;
mod retention;
mod rollup;
mod room;
mod sample;
mod seal;
mod select;
mod series;
mod series_limits;
mod state;
mod stored_labels;
mod undurable;
mod verify;

pub use append::{NewSample, OutOfOrder, Reject, WriteBatch, WriteReport};
pub use backup::{BackupReport, restore, restore_stream};
pub use db::{Db, Stats};
pub use disk::{Change, Disk, Watcher};
pub use each::{Pick, Steps, Visit};
pub use error::{Error, Result};
pub use extent::Extent;
pub use inspect::{Inspected, InspectedCodec, InspectedLog, InspectedPartition, InspectedRollups, inspect};
pub use labels::{LabelError, Labels, METRIC_NAME_LABEL};
pub use maintain::Maintained;
pub use matcher::{MatchOp, Matcher, MatcherError};
pub use options::{OnDamage, Options};
pub use pieces::Piece;
pub use resample::{Aggregation, Grid};
pub use retention::{DEFAULT_CLASS, KeepMs, RULES_MAX, RetentionError, RetentionRule, RollupWindows};
pub use rollup::{Figure, Part, RangeRead, RangeUse, SeriesParts, Spans, VisitParts};
pub use room::SizeMax;
pub use sample::{STALENESS_MARKER_BITS, Sample, sort_and_deduplicate};
pub use select::{ReadLimits, Selection, SeriesSamples};
pub use series_limits::SeriesLimits;
pub use verify::{Verification, Verified, verify};

/// The version of FORMAT.md that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;
