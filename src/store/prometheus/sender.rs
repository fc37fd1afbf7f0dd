//! Sends the outbox to the engine, in order.
//!
//! One request is under way at a time, so the samples of a series arrive in the order in which they were
//! acknowledged. How a request gets there, and what becomes of what is refused, is what `delivery` does. Where a
//! success of the engine is not durable behind it, each record is sent a second time after a while.

use super::delivery::{Delivery, Outcome, Stopped};
use super::outbox::{Cursor, Outbox, OutboxError, Position, Taken};
use super::overlay::Overlay;
use crate::time::whole_ms;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often the cursor is kept while there is much to send.
const CURSOR_INTERVAL: Duration = Duration::from_secs(1);
/// How often series are forgotten that nothing comes for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// What is sent once and may have to be sent again.
struct Held {
    from: Position,
    upto: Position,
    due_ms: i64,
}

/// Sends the outbox of a store.
pub struct Sender {
    pub(super) outbox: Arc<Outbox>,
    pub(super) overlay: Arc<Overlay>,
    pub(super) delivery: Delivery,
    pub(super) replay_after: Option<Duration>,
    pub(super) cursor: Cursor,
}

impl Sender {
    /// Sends until it is told to stop. What is not sent then stays in the outbox.
    pub async fn run(mut self) {
        let mut durable = self.outbox.durable();
        let mut held = VecDeque::new();
        if self.cursor.released < self.cursor.sent {
            self.hold(&mut held, self.cursor.released, self.cursor.sent);
        }
        let (mut kept, mut kept_at, mut swept_at) = (self.cursor, Instant::now(), Instant::now());
        loop {
            let upto = *durable.borrow_and_update();
            let Ok(worked) = self.step(&mut held, upto).await else { break };
            if swept_at.elapsed() >= SWEEP_INTERVAL {
                self.overlay.sweep(self.cursor.sent, self.delivery.clock.now_ms());
                swept_at = Instant::now();
            }
            if self.cursor != kept && (!worked || kept_at.elapsed() >= CURSOR_INTERVAL) {
                self.keep_cursor().await;
                (kept, kept_at) = (self.cursor, Instant::now());
            }
            if !worked {
                tokio::select! {
                    () = self.delivery.shutdown.cancelled() => break,
                    changed = durable.changed() => if changed.is_err() { break },
                    () = tokio::time::sleep(SWEEP_INTERVAL.min(self.until_due(&held))) => {}
                }
            }
        }
        self.keep_cursor().await;
    }

    /// Does one piece of work, if there is one.
    async fn step(&mut self, held: &mut VecDeque<Held>, durable: Position) -> Result<bool, Stopped> {
        let now_ms = self.delivery.clock.now_ms();
        let is_due = |one: &Held| one.due_ms <= now_ms || self.delivery.state.replay_now();
        if held.front().is_some_and(is_due)
            && let Some(due) = held.pop_front()
        {
            self.replay(&due).await?;
            self.cursor.released = held.front().map_or(self.cursor.sent, |next| next.from);
            self.delivery.state.held.store(held.len(), std::sync::atomic::Ordering::Relaxed);
            return Ok(true);
        }
        if self.cursor.sent >= durable {
            return Ok(false);
        }
        let from = self.cursor.sent;
        let taken = self.read(from, durable).await?;
        if taken.damaged > 0 {
            tracing::error!(records = taken.damaged, "records of the outbox are damaged and are not sent");
        }
        if !taken.raw.is_empty() {
            self.delivery.deliver(&taken.raw).await?;
        }
        self.cursor.sent = taken.next;
        if self.replay_after.is_some() {
            self.hold(held, from, taken.next);
        } else {
            self.cursor.released = taken.next;
        }
        self.outbox.mark_sent(taken.next, taken.samples);
        Ok(true)
    }

    /// What was sent just now may have to be sent again. Neighbours in time are put together.
    fn hold(&self, held: &mut VecDeque<Held>, from: Position, upto: Position) {
        let after_ms = self.replay_after.map_or(0, whole_ms);
        let due_ms = self.delivery.clock.now_ms().saturating_add(after_ms);
        match held.back_mut() {
            Some(last) if due_ms - last.due_ms < 1_000 && last.upto.segment == upto.segment => {
                // Not before its last part is due.
                (last.upto, last.due_ms) = (upto, last.due_ms.max(due_ms));
            }
            _ => held.push_back(Held { from, upto, due_ms }),
        }
        self.delivery.state.held.store(held.len(), std::sync::atomic::Ordering::Relaxed);
    }

    fn until_due(&self, held: &VecDeque<Held>) -> Duration {
        let due_in_ms =
            held.front().map_or(i64::MAX, |next| next.due_ms.saturating_sub(self.delivery.clock.now_ms()));
        Duration::from_millis(u64::try_from(due_in_ms).unwrap_or(0).max(10))
    }

    /// Sends a span a second time. What is refused was taken the first time, or set aside.
    async fn replay(&mut self, due: &Held) -> Result<(), Stopped> {
        let mut at = due.from;
        while at < due.upto {
            let taken = self.read(at, due.upto).await?;
            if !taken.raw.is_empty()
                && let Outcome::Refused { reason, .. } = self.delivery.post(&taken.raw).await?
            {
                tracing::warn!(reason, "the engine does not take records a second time");
            }
            at = taken.next;
        }
        Ok(())
    }

    async fn read(&mut self, from: Position, upto: Position) -> Result<Taken, Stopped> {
        let mut attempt = 0;
        loop {
            let outbox = Arc::clone(&self.outbox);
            let read = tokio::task::spawn_blocking(move || outbox.read_to(from, upto));
            let error = match read.await {
                Ok(Ok(taken)) => return Ok(taken),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            tracing::error!(error, "the outbox can't be read; it will be tried again");
            self.delivery.pause(attempt, None).await?;
            attempt += 1;
        }
    }

    async fn keep_cursor(&mut self) {
        let (outbox, cursor) = (Arc::clone(&self.outbox), self.cursor);
        let kept = tokio::task::spawn_blocking(move || outbox.keep_cursor(cursor)).await;
        let kept = kept.unwrap_or_else(|error| {
            Err(OutboxError::Io { path: "cursor".to_owned(), reason: error.to_string() })
        });
        if let Err(error) = kept {
            tracing::error!(%error, "how far the outbox is sent can't be kept: some of it may be sent again");
        }
    }
}
