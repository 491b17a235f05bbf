//! Records become batches, by count, bytes or age, and are handed to [`delivery`](crate::delivery). Owns the rows between
//! a collector and that: each is in exactly one batch, in order, or in a drop counter. Never looks into a row.

mod deliver;
mod metrics;
mod queue;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::record::Rows;

pub use deliver::run;
pub use metrics::{Cause, Metrics};
pub use queue::{RowSender, queue};

/// When a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows, at least 1. Default 10 000.
    pub rows: usize,
    /// Bytes as an encoded `Envelope`, whatever the marshaller makes of it. A single row that is larger makes a batch
    /// of its own. Default 768 KiB.
    pub bytes: usize,
    /// How long a row waits for others. Default 1 s.
    pub age: Duration,
    /// How long a row that an event led to waits for others. Default 10 ms.
    pub event_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rows: 10_000,
            bytes: 768 * 1024,
            age: Duration::from_secs(1),
            event_age: Duration::from_millis(10),
        }
    }
}

/// Rows that travel together; never empty once it is closed.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    id: u64,
    parts: Vec<Part>,
    rows: usize,
    envelope_len: usize,
}

/// Rows of one chunk that are in one batch: shared with the chunk, not copied.
#[derive(Clone, Debug)]
struct Part {
    rows: Arc<Rows>,
    numbers: Range<usize>,
}

impl Batch {
    /// Number of the batch, counted from 1 by this agent instance.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes of the rows as an encoded `Envelope`, without a length in front.
    pub fn envelope_len(&self) -> usize {
        self.envelope_len
    }

    /// The encoded rows in order.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().flat_map(|part| part.rows.range(part.numbers.clone()))
    }

    /// The rows that `keep` wants, as a batch of the same number; `None` when it wants none.
    #[must_use]
    pub fn filter(&self, mut keep: impl FnMut(&[u8]) -> bool) -> Option<Self> {
        let mut kept = Self { id: self.id, ..Self::default() };
        for part in &self.parts {
            let mut run: Option<Range<usize>> = None;
            for (number, row) in part.numbers.clone().zip(part.rows.range(part.numbers.clone())) {
                if keep(row) {
                    kept.rows += 1;
                    kept.envelope_len += framed_len(row.len());
                    let start = run.take().map_or(number, |run| run.start);
                    run = Some(start..number + 1);
                } else if let Some(numbers) = run.take() {
                    kept.parts.push(Part { rows: Arc::clone(&part.rows), numbers });
                }
            }
            kept.parts.extend(run.map(|numbers| Part { rows: Arc::clone(&part.rows), numbers }));
        }
        (!kept.is_empty()).then_some(kept)
    }

    /// Its first half and its second; `None` when it has one row or none.
    pub fn halves(&self) -> Option<[Self; 2]> {
        let middle = self.rows / 2;
        let half = |in_half: &dyn Fn(usize) -> bool| {
            let mut number = 0;
            self.filter(|_| {
                number += 1;
                in_half(number - 1)
            })
        };
        Some([half(&|number| number < middle)?, half(&|number| number >= middle)?])
    }
}

/// Bytes that a row of `len` bytes takes in an `Envelope`: key, length, row.
pub(crate) fn framed_len(len: usize) -> usize {
    1 + prost::length_delimiter_len(len) + len
}

/// Collects rows into batches. Has no clock and does no I/O.
#[derive(Debug)]
pub struct Batcher {
    limits: Limits,
    batches: u64,
    open: Batch,
    /// When the open batch leaves at the latest.
    due: Option<Instant>,
}

impl Batcher {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self { limits, batches: 0, open: Batch::default(), due: None }
    }

    /// Adds rows that came at `now`; hands each batch that they fill to `full`.
    pub fn push(&mut self, rows: &Arc<Rows>, now: Instant, mut full: impl FnMut(Batch, Cause)) {
        let mut start = 0;
        for (number, row) in rows.iter().enumerate() {
            let len = framed_len(row.len());
            if self.open.rows > 0 && self.open.envelope_len + len > self.limits.bytes {
                self.add_part(rows, start..number);
                start = number;
                self.close().into_iter().for_each(|batch| full(batch, Cause::Bytes));
            }
            self.open.rows += 1;
            self.open.envelope_len += len;
            self.due.get_or_insert(now + self.limits.age);
            if self.open.rows >= self.limits.rows {
                self.add_part(rows, start..number + 1);
                start = number + 1;
                self.close().into_iter().for_each(|batch| full(batch, Cause::Rows));
            }
        }
        self.add_part(rows, start..rows.len());
    }

    /// When the open batch is old enough to leave; `None` while it is empty.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// A row that came at `now` is worth most while it is new: what is open leaves within the event age.
    pub fn hurry(&mut self, now: Instant) {
        self.due = self.due.map(|due| due.min(now + self.limits.event_age));
    }

    /// How many rows the open batch holds.
    pub fn pending(&self) -> usize {
        self.open.rows
    }

    /// Closes the open batch; `None` when it is empty.
    pub fn close(&mut self) -> Option<Batch> {
        if self.open.is_empty() {
            return None;
        }
        self.batches += 1;
        self.due = None;
        let batch = std::mem::take(&mut self.open);
        Some(Batch { id: self.batches, ..batch })
    }

    fn add_part(&mut self, rows: &Arc<Rows>, numbers: Range<usize>) {
        if !numbers.is_empty() {
            self.open.parts.push(Part { rows: Arc::clone(rows), numbers });
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
