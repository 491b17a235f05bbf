//! What is counted of engines.

use std::path::Path;
use std::sync::{Arc, LazyLock};

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
                     (not understood), too_long (an answer or event without an end)."
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
        let (metrics, engine, socket) = (self.clone(), engine.to_owned(), socket.display().to_string());
        SocketCounters(Arc::new(LazyLock::new(Box::new(move || {
            let labels = [engine.as_str(), socket.as_str()];
            Counters {
                up: metrics.up.with_label_values(&labels),
                events: metrics.events.with_label_values(&labels),
                failures: ["timeout", "connection", "not_offered", "answer", "too_long"]
                    .map(|why| (why, metrics.failures.with_label_values(&[&engine, &socket, why]))),
            }
        }))))
    }
}

/// Counters of one socket, shown from the first use on: one that is looked for and never there has none.
#[derive(Clone)]
pub(in crate::workload) struct SocketCounters(Arc<LazyLock<Counters, Box<dyn FnOnce() -> Counters + Send>>>);

struct Counters {
    up: IntGauge,
    events: IntCounter,
    failures: [(&'static str, IntCounter); 5],
}

impl SocketCounters {
    /// Shows them.
    pub(in crate::workload) fn show(&self) {
        LazyLock::force(&self.0);
    }

    /// It has told everything.
    pub(in crate::workload) fn up(&self) {
        self.0.up.set(1);
    }

    pub(in crate::workload) fn is_up(&self) -> bool {
        self.0.up.get() == 1
    }

    /// An event came.
    pub(in crate::workload) fn event(&self) {
        self.0.events.inc();
    }

    /// A session ended.
    pub(in crate::workload) fn ended(&self, why: &str) {
        self.0.up.set(0);
        if let Some((_, counter)) = self.0.failures.iter().find(|(kind, _)| *kind == why) {
            counter.inc();
        }
    }
}
