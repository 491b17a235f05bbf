//! The agent's report on its own probes.

use prometheus::{IntGauge, IntGaugeVec, Registry, opts};
use xtcp_common::event::kind;

use super::{Attached, Counters, ladder};

/// What is attached, and what the kernel side counts.
#[derive(Clone)]
pub struct EbpfMetrics {
    active: IntGauge,
    attached: IntGaugeVec,
    events: IntGaugeVec,
    filtered: IntGaugeVec,
    no_numbers: IntGauge,
}

impl EbpfMetrics {
    /// Registers everything under `xtcp_ebpf_`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(opts!(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            active: gauge("xtcp_ebpf_active", "1 with kernel events, 0 when the agent only polls.")?,
            attached: gauges("xtcp_ebpf_attached", "1 for each hook in use, 0 for the others.", &["hook"])?,
            events: gauges(
                "xtcp_ebpf_events",
                "Samples of the kernel side since the start, by kind: submitted, or lost because the ring buffer was full.",
                &["kind", "outcome"],
            )?,
            filtered: gauges(
                "xtcp_ebpf_filtered",
                "State changes that the kernel side left out since the start, by filter.",
                &["filter"],
            )?,
            no_numbers: gauge(
                "xtcp_ebpf_no_tcp_sock",
                "Closing events without last numbers since the start: no full TCP socket.",
            )?,
        })
    }

    /// Says which hooks are in use; `None` when the agent only polls.
    pub fn attached(&self, attached: Option<&[Attached]>) {
        self.active.set(i64::from(attached.is_some()));
        for info in ladder() {
            let used = attached.unwrap_or_default().iter().any(|attached| attached.rung == info.rung);
            self.attached.with_label_values(&[info.hook]).set(i64::from(used));
        }
    }

    /// Writes the kernel side's counters.
    pub fn report(&self, counters: &Counters) {
        let set = |gauge: IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        for (number, name) in [
            (0, "unknown"),
            (kind::NETNS_CREATED, "netns_created"),
            (kind::NETNS_DESTROYED, "netns_destroyed"),
            (kind::NETNS_SOME_DESTROYED, "netns_some_destroyed"),
            (kind::TCP_STATE, "tcp_state"),
            (kind::TCP_CLOSE, "tcp_close"),
        ] {
            for (outcome, values) in [("submitted", &counters.submitted), ("lost", &counters.lost)] {
                let value = values.get(number as usize).copied().unwrap_or(0);
                set(self.events.with_label_values(&[name, outcome]), value);
            }
        }
        for (filter, value) in [
            ("state", counters.filtered_state),
            ("netns", counters.filtered_netns),
            ("port", counters.filtered_port),
            ("protocol", counters.filtered_protocol),
        ] {
            set(self.filtered.with_label_values(&[filter]), value);
        }
        set(self.no_numbers.clone(), counters.no_tcp_sock);
    }
}
