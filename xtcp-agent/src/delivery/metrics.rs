//! What became of the rows of each destination: accepted = sent + dropped + waiting.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::destination::{Payload, SendError};

/// Why rows of a destination were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Memory was full: the oldest made room.
    Memory,
    /// The spool was full: the oldest made room.
    Spool,
    /// The destination refused them for good, or a single row is larger than it takes.
    Refused,
    /// They could not be marshalled.
    Marshal,
    /// What the spool held could not be read back.
    Corrupt,
    /// They had not left when the agent ended, or when the destination had failed for good.
    End,
}

impl Loss {
    const ALL: [Self; 6] =
        [Self::Memory, Self::Spool, Self::Refused, Self::Marshal, Self::Corrupt, Self::End];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Spool => "spool",
            Self::Refused => "refused",
            Self::Marshal => "marshal",
            Self::Corrupt => "corrupt",
            Self::End => "end",
        }
    }
}

/// How a destination does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Circuit {
    /// It takes what it gets.
    Closed,
    /// It failed, and one send is trying again.
    HalfOpen,
    /// It failed, and is left alone for a while.
    Open,
}

/// Counters of every destination. Clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    rows: IntCounterVec,
    accepted: IntCounterVec,
    bytes: IntCounterVec,
    batches: IntCounterVec,
    errors: IntCounterVec,
    dropped: IntCounterVec,
    send_seconds: HistogramVec,
    circuit: IntGaugeVec,
    queue_bytes: IntGaugeVec,
    spool_bytes: IntGaugeVec,
    spool_rows: IntGaugeVec,
    spooled: IntCounterVec,
    spool_errors: IntCounterVec,
}

/// The counters of one destination. Clones share their values.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    rows: IntCounter,
    accepted: IntCounter,
    bytes: IntCounter,
    batches: IntCounter,
    errors: [IntCounter; 3],
    dropped: [IntCounter; 6],
    send_seconds: Histogram,
    circuit: IntGauge,
    queue_bytes: IntGauge,
    spool_bytes: IntGauge,
    spool_rows: IntGauge,
    spooled: IntCounter,
    spool_errors: IntCounter,
}

const DESTINATION: &[&str] = &["destination"];

impl Metrics {
    /// New counters on `registry`; a destination's appear when it starts.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGaugeVec> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), DESTINATION)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let send_seconds = HistogramVec::new(
            HistogramOpts::new("xtcp_destination_send_seconds", "Time of one send, failed ones included.")
                .buckets(vec![0.0001, 0.001, 0.01, 0.1, 1.0, 10.0]),
            DESTINATION,
        )?;
        registry.register(Box::new(send_seconds.clone()))?;
        Ok(Self {
            rows: counter("xtcp_destination_rows_total", "Rows that the destination took.", DESTINATION)?,
            accepted: counter(
                "xtcp_destination_accepted_rows_total",
                "Rows that came to be sent, those in the spool at the start included: sent, dropped or waiting.",
                DESTINATION,
            )?,
            bytes: counter(
                "xtcp_destination_bytes_total",
                "Marshalled bytes that the destination took.",
                DESTINATION,
            )?,
            batches: counter(
                "xtcp_destination_batches_total",
                "Batches that the destination took.",
                DESTINATION,
            )?,
            errors: counter(
                "xtcp_destination_errors_total",
                "Failed sends, by what followed: retry (sent again later), drop (this batch is lost), \
                 fatal (nothing can be sent any more).",
                &["destination", "action"],
            )?,
            dropped: counter(
                "xtcp_destination_dropped_rows_total",
                "Rows that never left, by why: memory or spool (full, the oldest made room), refused (for good), \
                 marshal (no bytes could be made of them), corrupt (unreadable in the spool), end (given up when the \
                 agent or the destination ended).",
                &["destination", "cause"],
            )?,
            send_seconds,
            circuit: gauge(
                "xtcp_destination_circuit",
                "0 while the destination takes what it gets, 2 while it is left alone after a failure, 1 while one send \
                 tries again.",
            )?,
            queue_bytes: gauge(
                "xtcp_destination_queue_bytes",
                "Marshalled bytes in memory, what is under way included.",
            )?,
            spool_bytes: gauge("xtcp_destination_spool_bytes", "Bytes of the spool's files.")?,
            spool_rows: gauge("xtcp_destination_spool_rows", "Rows in the spool that are still to be sent.")?,
            spooled: counter(
                "xtcp_destination_spooled_rows_total",
                "Rows that were written to the spool.",
                DESTINATION,
            )?,
            spool_errors: counter(
                "xtcp_destination_spool_errors_total",
                "Failed writes and reads of the spool: a full disk, for example.",
                DESTINATION,
            )?,
        })
    }

    /// The counters of the destination `name`, all there from now on.
    pub(super) fn of(&self, name: &str) -> Meter {
        let labels = &[name];
        Meter {
            rows: self.rows.with_label_values(labels),
            accepted: self.accepted.with_label_values(labels),
            bytes: self.bytes.with_label_values(labels),
            batches: self.batches.with_label_values(labels),
            errors: ["retry", "drop", "fatal"].map(|action| self.errors.with_label_values(&[name, action])),
            dropped: Loss::ALL.map(|loss| self.dropped.with_label_values(&[name, loss.name()])),
            send_seconds: self.send_seconds.with_label_values(labels),
            circuit: self.circuit.with_label_values(labels),
            queue_bytes: self.queue_bytes.with_label_values(labels),
            spool_bytes: self.spool_bytes.with_label_values(labels),
            spool_rows: self.spool_rows.with_label_values(labels),
            spooled: self.spooled.with_label_values(labels),
            spool_errors: self.spool_errors.with_label_values(labels),
        }
    }

    /// Makes the counters of one destination appear, as its start does.
    #[cfg(test)]
    pub(crate) fn show(&self, name: &str) {
        self.of(name);
    }
}

impl Meter {
    pub(super) fn accepted(&self, rows: usize) {
        self.accepted.inc_by(count(rows));
    }

    pub(super) fn sent(&self, payload: &Payload, took: Duration, result: &Result<(), SendError>) {
        self.send_seconds.observe(took.as_secs_f64());
        let [retry, drop, fatal] = &self.errors;
        match result {
            Ok(()) => {
                self.rows.inc_by(count(payload.rows));
                self.bytes.inc_by(count(payload.bytes.len()));
                self.batches.inc();
            }
            Err(SendError::Retry(_)) => retry.inc(),
            Err(SendError::Drop(_)) => drop.inc(),
            Err(SendError::Fatal(_)) => fatal.inc(),
        }
    }

    pub(super) fn dropped(&self, rows: usize, loss: Loss) {
        if let Some((counter, _)) = self.dropped.iter().zip(Loss::ALL).find(|(_, each)| *each == loss) {
            counter.inc_by(count(rows));
        }
    }

    pub(super) fn circuit(&self, circuit: Circuit) {
        self.circuit.set(match circuit {
            Circuit::Closed => 0,
            Circuit::HalfOpen => 1,
            Circuit::Open => 2,
        });
    }

    pub(super) fn queue(&self, bytes: usize) {
        self.queue_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(super) fn spool(&self, bytes: u64, rows: u64) {
        self.spool_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.spool_rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    pub(super) fn spooled(&self, rows: usize) {
        self.spooled.inc_by(count(rows));
    }

    pub(super) fn spool_failed(&self) {
        self.spool_errors.inc();
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
