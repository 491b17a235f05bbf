//! What left and what did not.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

use super::{Payload, SendError};

/// Counters of one destination. Clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    rows: IntCounter,
    bytes: IntCounter,
    batches: IntCounter,
    errors: IntCounterVec,
    dropped_rows: IntCounter,
    send_seconds: Histogram,
}

impl Metrics {
    /// New counters, all 0, on `registry`.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let metrics = Self {
            rows: counter("xtcp_destination_rows_total", "Rows that the destination took.")?,
            bytes: counter("xtcp_destination_bytes_total", "Marshalled bytes that the destination took.")?,
            batches: counter("xtcp_destination_batches_total", "Batches that the destination took.")?,
            errors: IntCounterVec::new(
                Opts::new(
                    "xtcp_destination_errors_total",
                    "Failed sends, by what followed: retry (sent again later), drop (this batch is lost), \
                     fatal (nothing can be sent any more).",
                ),
                &["action"],
            )?,
            dropped_rows: counter(
                "xtcp_destination_dropped_rows_total",
                "Rows that were in a batch and never left: refused for good, or given up at the end.",
            )?,
            send_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "xtcp_destination_send_seconds",
                    "Time of one send, failed ones included.",
                )
                .buckets(vec![0.0001, 0.001, 0.01, 0.1, 1.0, 10.0]),
            )?,
        };
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.send_seconds.clone()))?;
        for action in ["retry", "drop", "fatal"] {
            metrics.errors.with_label_values(&[action]);
        }
        Ok(metrics)
    }

    pub(crate) fn sent(&self, payload: &Payload, took: Duration, result: &Result<(), SendError>) {
        self.send_seconds.observe(took.as_secs_f64());
        let action = match result {
            Ok(()) => {
                self.rows.inc_by(count(payload.rows));
                self.bytes.inc_by(count(payload.bytes.len()));
                self.batches.inc();
                return;
            }
            Err(SendError::Retry(_)) => "retry",
            Err(SendError::Drop(_)) => "drop",
            Err(SendError::Fatal(_)) => "fatal",
        };
        self.errors.with_label_values(&[action]).inc();
    }

    pub(crate) fn dropped(&self, rows: usize) {
        self.dropped_rows.inc_by(count(rows));
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
