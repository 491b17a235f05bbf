//! What the directory counts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, opts};

use super::memory::{KINDS, Usage};
use crate::metrics::raise;

/// Counters and gauges of the directory.
#[derive(Clone)]
pub struct DirectoryMetrics {
    entries: IntGaugeVec,
    bytes: IntGaugeVec,
    evicted: IntCounterVec,
    opted_out: IntGauge,
    dropped: IntCounter,
}

impl DirectoryMetrics {
    /// Registers everything under `xtcp_`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self::new()?;
        let Self { entries, bytes, evicted, opted_out, dropped } = metrics.clone();
        registry.register(Box::new(entries))?;
        registry.register(Box::new(bytes))?;
        registry.register(Box::new(evicted))?;
        registry.register(Box::new(opted_out))?;
        registry.register(Box::new(dropped))?;
        for kind in KINDS {
            metrics.entries.with_label_values(&[kind]);
            metrics.bytes.with_label_values(&[kind]);
            metrics.evicted.with_label_values(&[kind]);
        }
        Ok(metrics)
    }

    fn new() -> prometheus::Result<Self> {
        Ok(Self {
            entries: IntGaugeVec::new(
                opts!(
                    "xtcp_workload_entries",
                    "Namespaces, cgroups, containers and pods whose owner or name is remembered."
                ),
                &["kind"],
            )?,
            bytes: IntGaugeVec::new(
                opts!(
                    "xtcp_workload_bytes",
                    "Memory for what is remembered of them; all together at most --workload-cache-bytes."
                ),
                &["kind"],
            )?,
            evicted: IntCounterVec::new(
                opts!("xtcp_workload_evicted_total", "Entries that were forgotten for want of memory."),
                &["kind"],
            )?,
            opted_out: IntGauge::new(
                "xtcp_netns_opted_out",
                "Network namespaces left out because a label of their container or pod asks for it (--opt-out-label).",
            )?,
            dropped: IntCounter::new(
                "xtcp_workload_questions_dropped_total",
                "Processes and new namespaces whose cgroup was not read because too many waited; the next scan finds them.",
            )?,
        })
    }

    pub(super) fn question_dropped(&self) {
        self.dropped.inc();
    }

    pub(super) fn report(&self, usage: &Usage) {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        for (kind, (entries, bytes, evicted)) in KINDS.iter().zip(usage.kinds) {
            self.entries.with_label_values(&[kind]).set(gauge(entries));
            self.bytes.with_label_values(&[kind]).set(gauge(bytes));
            raise(&self.evicted.with_label_values(&[kind]), evicted);
        }
        self.opted_out.set(gauge(usage.opted_out));
    }
}
