//! What is counted of engines.

use std::path::Path;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, opts};

/// Counters and gauges of all engines.
#[derive(Clone)]
pub(in crate::workload) struct EngineMetrics {
    up: IntGaugeVec,
    failures: IntCounterVec,
    events: IntCounterVec,
}

impl EngineMetrics {
    /// Registers everything under `xtcp_`.
    pub(in crate::workload) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let labels = ["engine", "socket"];
        let metrics = Self {
            up: IntGaugeVec::new(
                opts!(
                    "xtcp_workload_engine_up",
                    "Whether the container engine behind this socket has told everything and is being followed: 1 or 0."
                ),
                &labels,
            )?,
            failures: IntCounterVec::new(
                opts!(
                    "xtcp_workload_engine_failures_total",
                    "Sessions with a container engine that ended: timeout (no answer), connection, not_offered, answer \
                     (not understood)."
                ),
                &["engine", "socket", "why"],
            )?,
            events: IntCounterVec::new(
                opts!(
                    "xtcp_workload_engine_events_total",
                    "Events that a container engine told of its containers."
                ),
                &labels,
            )?,
        };
        registry.register(Box::new(metrics.up.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.events.clone()))?;
        Ok(metrics)
    }

    /// Those of one socket.
    pub(in crate::workload) fn of(&self, engine: &str, socket: &Path) -> SocketCounters {
        let socket = socket.display().to_string();
        let labels = [engine, socket.as_str()];
        SocketCounters {
            up: self.up.with_label_values(&labels),
            events: self.events.with_label_values(&labels),
            failures: ["timeout", "connection", "not_offered", "answer"]
                .map(|why| (why, self.failures.with_label_values(&[engine, &socket, why]))),
        }
    }
}

/// Counters of one socket.
#[derive(Clone)]
pub(in crate::workload) struct SocketCounters {
    up: IntGauge,
    events: IntCounter,
    failures: [(&'static str, IntCounter); 4],
}

impl SocketCounters {
    /// It has told everything.
    pub(in crate::workload) fn up(&self) {
        self.up.set(1);
    }

    pub(in crate::workload) fn is_up(&self) -> bool {
        self.up.get() == 1
    }

    /// An event came.
    pub(in crate::workload) fn event(&self) {
        self.events.inc();
    }

    /// A session ended.
    pub(in crate::workload) fn ended(&self, why: &str) {
        self.up.set(0);
        if let Some((_, counter)) = self.failures.iter().find(|(kind, _)| *kind == why) {
            counter.inc();
        }
    }
}
