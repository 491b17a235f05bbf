//! The agent's report on its own probes.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, opts};
use xtcp_common::event::kind;

use super::{Attached, Counters, ladder};
use crate::metrics::raise;

/// What is attached, and what the kernel side counts.
#[derive(Clone)]
pub struct EbpfMetrics {
    active: IntGauge,
    attached: IntGaugeVec,
    events: IntCounterVec,
    filtered: IntCounterVec,
    no_numbers: IntCounter,
}

impl EbpfMetrics {
    /// Registers everything under `xtcp_ebpf_`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(opts!(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let active = IntGauge::new("xtcp_ebpf_active", "1 with kernel events, 0 when the agent only polls.")?;
        registry.register(Box::new(active.clone()))?;
        let help = "1 for each hook in use, 0 for the others.";
        let attached = IntGaugeVec::new(opts!("xtcp_ebpf_attached", help), &["hook"])?;
        registry.register(Box::new(attached.clone()))?;
        let no_numbers = IntCounter::new(
            "xtcp_ebpf_no_tcp_sock_total",
            "Closing events without last numbers: no full TCP socket.",
        )?;
        registry.register(Box::new(no_numbers.clone()))?;
        let metrics = Self {
            active,
            attached,
            events: counters(
                "xtcp_ebpf_events_total",
                "Samples of the kernel side, by kind: submitted, or lost because the ring buffer was full. Lost of \
                 unknown kind: runs of a program that the kernel skipped.",
                &["kind", "outcome"],
            )?,
            filtered: counters(
                "xtcp_ebpf_filtered_total",
                "State changes that the kernel side left out, by filter.",
                &["filter"],
            )?,
            no_numbers,
        };
        metrics.attached(None);
        metrics.report(&Counters::default());
        Ok(metrics)
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
        for (number, name) in [
            (0, "unknown"),
            (kind::NETNS_CREATED, "netns_created"),
            (kind::NETNS_DESTROYED, "netns_destroyed"),
            (kind::NETNS_SOME_DESTROYED, "netns_some_destroyed"),
            (kind::NETNS_ENTERED, "netns_entered"),
            (kind::TCP_STATE, "tcp_state"),
            (kind::TCP_CLOSE, "tcp_close"),
        ] {
            for (outcome, values) in [("submitted", &counters.submitted), ("lost", &counters.lost)] {
                let value = values.get(number as usize).copied().unwrap_or(0);
                raise(&self.events.with_label_values(&[name, outcome]), value);
            }
        }
        for (filter, value) in [
            ("state", counters.filtered_state),
            ("netns", counters.filtered_netns),
            ("port", counters.filtered_port),
            ("protocol", counters.filtered_protocol),
        ] {
            raise(&self.filtered.with_label_values(&[filter]), value);
        }
        raise(&self.no_numbers, counters.no_tcp_sock);
    }
}
