//! What became a batch, and what did not.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Why a batch was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It had as many rows as a batch may have.
    Rows,
    /// The next row would have made it too large.
    Bytes,
    /// Its oldest row had waited long enough.
    Age,
    /// The agent ends.
    Shutdown,
}

impl Cause {
    const ALL: [Self; 4] = [Self::Rows, Self::Bytes, Self::Age, Self::Shutdown];

    fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Counters of the envelope and of the queue in front of it. Clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    rows: IntCounter,
    batches: IntCounterVec,
    dropped_rows: IntCounterVec,
    pending_rows: IntGauge,
}

const QUEUE_FULL: &str = "queue";

impl Metrics {
    /// New counters, all 0, on `registry`.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            rows: IntCounter::new("xtcp_envelope_rows_total", "Rows that came to be batched.")?,
            batches: IntCounterVec::new(
                Opts::new(
                    "xtcp_envelope_batches_total",
                    "Batches closed, by why: rows, bytes, age, shutdown.",
                ),
                &["cause"],
            )?,
            dropped_rows: IntCounterVec::new(
                Opts::new(
                    "xtcp_envelope_dropped_rows_total",
                    "Rows lost before they were in a batch, by why: queue (the queue was full or closed).",
                ),
                &["cause"],
            )?,
            pending_rows: IntGauge::new(
                "xtcp_envelope_pending_rows",
                "Rows in the batch that is being filled.",
            )?,
        };
        registry.register(Box::new(metrics.rows.clone()))?;
        registry.register(Box::new(metrics.batches.clone()))?;
        registry.register(Box::new(metrics.dropped_rows.clone()))?;
        registry.register(Box::new(metrics.pending_rows.clone()))?;
        for cause in Cause::ALL {
            metrics.batches.with_label_values(&[cause.name()]);
        }
        metrics.dropped_rows.with_label_values(&[QUEUE_FULL]);
        Ok(metrics)
    }

    pub(super) fn received(&self, rows: usize) {
        self.rows.inc_by(count(rows));
    }

    pub(super) fn closed(&self, cause: Cause) {
        self.batches.with_label_values(&[cause.name()]).inc();
    }

    pub(super) fn pending(&self, rows: usize) {
        self.pending_rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    pub(super) fn refused(&self, rows: usize) {
        self.dropped_rows.with_label_values(&[QUEUE_FULL]).inc_by(count(rows));
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
