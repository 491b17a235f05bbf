//! What looking for namespaces counts.

use prometheus::{IntCounter, IntCounterVec, Registry, opts};

use super::discover::Scan;

/// Counters of the looks at the host and of the watch over its mounts.
#[derive(Clone)]
pub struct DiscoveryMetrics {
    looks: IntCounterVec,
    problems: IntCounterVec,
    hints: IntCounterVec,
    overflows: IntCounter,
}

impl DiscoveryMetrics {
    /// Registers everything under `xtcp_`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let vec = |name: &str, help: &str, label: &str, values: &[&str]| {
            let counter = IntCounterVec::new(opts!(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            for value in values {
                counter.with_label_values(&[value]);
            }
            Ok::<_, prometheus::Error>(counter)
        };
        let overflows = IntCounter::new(
            "xtcp_netns_watch_overflows_total",
            "Times that the kernel dropped hints of changed mounts or namespace ids; a full look follows each.",
        )?;
        registry.register(Box::new(overflows.clone()))?;
        Ok(Self {
            looks: vec(
                "xtcp_netns_looks_total",
                "Looks at the host for network namespaces: everything (mounts, threads and the kernel's list) or mounts alone.",
                "what",
                &["everything", "mounts"],
            )?,
            problems: vec(
                "xtcp_netns_look_problems_total",
                "What a look met: denied (threads, files and folders that may not be read), vanished (threads that ended \
                 meanwhile), failed (read errors).",
                "what",
                &["denied", "vanished", "failed"],
            )?,
            hints: vec(
                "xtcp_netns_hints_total",
                "Hints that namespaces came or went: folder (inotify or the table of mounts), nsid (RTM_NEWNSID and \
                 RTM_DELNSID).",
                "source",
                &["folder", "nsid"],
            )?,
            overflows,
        })
    }

    /// A look was taken.
    pub fn looked(&self, everything: bool, scan: &Scan) {
        self.looks.with_label_values(&[if everything { "everything" } else { "mounts" }]).inc();
        for (what, count) in [("denied", scan.denied), ("vanished", scan.vanished), ("failed", scan.failed)] {
            self.problems.with_label_values(&[what]).inc_by(count);
        }
    }

    /// Mounts may have changed.
    pub fn folder_hint(&self, overflow: bool) {
        self.hints.with_label_values(&["folder"]).inc();
        self.overflows.inc_by(u64::from(overflow));
    }

    /// An id of a namespace came or went.
    pub fn nsid_hint(&self, overflow: bool) {
        self.hints.with_label_values(&["nsid"]).inc();
        self.overflows.inc_by(u64::from(overflow));
    }
}
