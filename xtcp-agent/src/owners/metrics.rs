//! What the memory of owners counts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry, opts};

use super::scan::Scanned;
use super::sockets::{ENTRY_BYTES, Sockets};

/// Counters and gauges under `xtcp_owner`.
#[derive(Clone)]
pub struct OwnerMetrics {
    entries: IntGauge,
    bytes: IntGauge,
    processes: IntGauge,
    evictions: IntCounter,
    outlived: IntCounter,
    hidden: IntCounter,
    scanned_processes: IntCounterVec,
    scanned_sockets: IntCounterVec,
}

impl OwnerMetrics {
    /// Registers everything.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let results = |name: &str, help: &str, results: &[&str]| {
            let counter = IntCounterVec::new(opts!(name, help), &["result"])?;
            registry.register(Box::new(counter.clone()))?;
            for result in results {
                counter.with_label_values(&[result]);
            }
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            entries: gauge("xtcp_owner_sockets", "Sockets whose process is remembered.")?,
            bytes: gauge(
                "xtcp_owner_bytes",
                "Memory that owners of sockets take, at most --owner-cache-bytes.",
            )?,
            processes: gauge("xtcp_owner_processes", "Processes that own a remembered socket.")?,
            evictions: counter("xtcp_owner_evictions_total", "Owners forgotten for want of room.")?,
            outlived: counter(
                "xtcp_owner_outlived_total",
                "Sockets that outlived the process that was known to own them: nobody's since.",
            )?,
            hidden: counter(
                "xtcp_owner_hidden_processes_total",
                "Looks at an owner's /proc/PID/stat that were refused: it is taken to live on under its name.",
            )?,
            scanned_processes: results(
                "xtcp_process_scan_processes_total",
                "Processes that --process-scan met: walked, denied (EACCES), gone meanwhile, hidden (1: hidepid hides all).",
                &["walked", "denied", "gone", "hidden"],
            )?,
            scanned_sockets: results(
                "xtcp_process_scan_sockets_total",
                "Sockets of any kind that --process-scan found: owned, shared by several processes, dropped for room.",
                &["owned", "shared", "dropped"],
            )?,
        })
    }

    pub(super) fn report(&self, sockets: &Sockets, processes: usize) {
        let set = |gauge: &IntGauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        let entries = sockets.len();
        set(&self.entries, entries);
        set(&self.bytes, entries * ENTRY_BYTES);
        set(&self.processes, processes);
        self.evictions.inc_by(sockets.evicted().saturating_sub(self.evictions.get()));
    }

    pub(super) fn outlived(&self) {
        self.outlived.inc();
    }

    pub(super) fn hidden(&self) {
        self.hidden.inc();
    }

    pub(super) fn scanned(&self, scanned: &Scanned) {
        let Scanned { processes, denied, gone, hidden, sockets, shared, dropped } = *scanned;
        for (result, count) in
            [("walked", processes), ("denied", denied), ("gone", gone), ("hidden", u64::from(hidden))]
        {
            self.scanned_processes.with_label_values(&[result]).inc_by(count);
        }
        for (result, count) in [("owned", sockets), ("shared", shared), ("dropped", dropped)] {
            self.scanned_sockets.with_label_values(&[result]).inc_by(count);
        }
    }
}
