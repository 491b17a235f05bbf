//! What sinks count.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::batch::PerKind;

/// Counters of all sinks.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    published: IntCounterVec,
    dropped: IntCounterVec,
    connected: IntGaugeVec,
    depth: IntGaugeVec,
    errors: IntCounterVec,
}

/// Why a sink did not send an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The queue to the sink was full.
    QueueFull,
    /// The agent ended before the sink took it.
    Shutdown,
    /// The sink refused it: larger than the server allows, or the output is closed.
    Rejected,
}

impl DropReason {
    const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Shutdown => "shutdown",
            Self::Rejected => "rejected",
        }
    }
}

/// Counters of one sink.
#[derive(Debug)]
pub struct SinkCounters {
    /// Sent, by kind.
    pub published: PerKind<IntCounter>,
    /// Dropped because the queue was full, by kind.
    pub dropped_full: PerKind<IntCounter>,
    /// Dropped because the agent ended, by kind.
    pub dropped_shutdown: PerKind<IntCounter>,
    /// Dropped because the sink refused them, by kind.
    pub dropped_rejected: PerKind<IntCounter>,
    /// 1 while the sink can send.
    pub connected: IntGauge,
    /// Events queued; the sum over all subscribers where a sink is several.
    pub depth: IntGauge,
    /// Complaints of the server.
    pub errors: IntCounter,
}

impl SinkMetrics {
    /// Makes the counters and registers them.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter =
            |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["sink"]);
        let metrics = Self {
            published: counter(
                "xtcp_events_published_total",
                "Change events handed to a sink's transport. \
                 A sink is an --events address, or grpc for all subscribers together.",
                &["sink", "kind"],
            )?,
            dropped: counter(
                "xtcp_events_dropped_total",
                "Change events that a sink did not send, by reason.",
                &["sink", "kind", "reason"],
            )?,
            connected: gauge("xtcp_events_sink_connected", "1 while the sink can send.")?,
            depth: gauge("xtcp_events_queue_events", "Change events waiting for a sink.")?,
            errors: counter(
                "xtcp_events_sink_errors_total",
                "Errors that a sink's server reported, such as a refused permission; events it refused count as published.",
                &["sink"],
            )?,
        };
        registry.register(Box::new(metrics.published.clone()))?;
        registry.register(Box::new(metrics.dropped.clone()))?;
        registry.register(Box::new(metrics.connected.clone()))?;
        registry.register(Box::new(metrics.depth.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        Ok(metrics)
    }

    /// The counters of one sink. All kinds and reasons exist from the start, at 0.
    pub fn sink(&self, sink: &str) -> Arc<SinkCounters> {
        let dropped = |reason: DropReason| {
            PerKind::build(|kind| self.dropped.with_label_values(&[sink, kind.name(), reason.name()]))
        };
        Arc::new(SinkCounters {
            published: PerKind::build(|kind| self.published.with_label_values(&[sink, kind.name()])),
            dropped_full: dropped(DropReason::QueueFull),
            dropped_shutdown: dropped(DropReason::Shutdown),
            dropped_rejected: dropped(DropReason::Rejected),
            connected: self.connected.with_label_values(&[sink]),
            depth: self.depth.with_label_values(&[sink]),
            errors: self.errors.with_label_values(&[sink]),
        })
    }
}
