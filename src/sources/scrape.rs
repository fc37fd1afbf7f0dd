//! The scraper: targets of a file, pods that its jobs find and annotated pods, asked for their metrics at their own intervals.
//!
//! ```text
//! --scrape-config FILE  ─▶ [`config`] ─┐
//!                                      ├─▶ targets ─▶ [`scraper`]: a task a target ─▶ [`fetch`] ─▶ [`target`] ─▶ store
//! --scrape-pods         ─▶ [`pods`]  ──┘               jitter, timeout, staleness        TLS, gzip     labels, up
//! ```
//!
//! Pods (`kubernetes_sd` for those of the file's jobs, by what `pod_labels` tells of them) are followed by `pod_watch`.
//!
//! What a file's targets are (`discovered`) and what becomes of their samples is changed by rules ([`relabel`]).
//! Everything is bounded: targets, scrapes at once, bodies (and all of them together by the budget that
//! requests share), samples of a target. A slow target holds up nobody but itself.

pub mod config;
mod discovered;
pub mod fetch;
pub mod kubernetes_sd;
mod pod_labels;
mod pod_watch;
pub mod pods;
pub mod relabel;
pub mod scraper;
pub mod settings;
pub mod target;
