//! What the engine counts.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry as Metrics, opts};
use xtcp_proto::event::v1::event::Event as Kind;

use crate::connections::Connections;
use crate::netns::registry::Registry;
use crate::scheduler::{PollFinished, Scheduler};

/// Counters and gauges of the engine.
#[derive(Clone)]
pub struct EngineMetrics {
    events: [IntCounter; 5],
    own_events: IntCounter,
    excluded_events: IntCounter,
    malformed_events: IntCounter,
    netns: IntGauge,
    netns_excluded: IntGauge,
    netns_surprises: IntGaugeVec,
    connections: IntGauge,
    connections_evicted: IntGauge,
    decisions: IntGaugeVec,
    polls: IntCounterVec,
    poll_rows: IntGauge,
    poll_seconds: Gauge,
}

impl EngineMetrics {
    /// Registers everything under `xtcp_`.
    pub fn register(registry: &Metrics) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, label: &str| {
            let counter = IntCounterVec::new(opts!(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauges = |name: &str, help: &str, label: &str| {
            let gauges = IntGaugeVec::new(opts!(name, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let malformed_events = IntCounter::new(
            "xtcp_malformed_events_total",
            "Samples of the ring buffer that are no event of ours.",
        )?;
        registry.register(Box::new(malformed_events.clone()))?;
        let poll_seconds = Gauge::new("xtcp_poll_duration_seconds", "How long the last poll took.")?;
        registry.register(Box::new(poll_seconds.clone()))?;
        let events = counter("xtcp_change_events_total", "Change events made, by kind.", "kind")?;
        let left_out = counter(
            "xtcp_events_left_out_total",
            "Events that made no change event: own (the agent's own sockets), excluded (their namespace is).",
            "why",
        )?;
        Ok(Self {
            events: ["netns_created", "netns_destroyed", "tcp_state", "tcp_close", "loss"]
                .map(|kind| events.with_label_values(&[kind])),
            own_events: left_out.with_label_values(&["own"]),
            excluded_events: left_out.with_label_values(&["excluded"]),
            malformed_events,
            netns: gauge("xtcp_netns", "Network namespaces known.")?,
            netns_excluded: gauge("xtcp_netns_excluded", "Network namespaces left out by name or inode.")?,
            netns_surprises: gauges(
                "xtcp_netns_surprises",
                "What went otherwise than told, since the start: stale (told of a dead one), replaced (its inode came back \
                 first), given_up (no trace, end not told), unknown_end (never known), late_creation (told after its end).",
                "what",
            )?,
            connections: gauge("xtcp_connections_followed", "Sockets followed between birth and CLOSE.")?,
            connections_evicted: gauge(
                "xtcp_connections_evicted",
                "Sockets no longer followed for want of room, since the start.",
            )?,
            decisions: gauges(
                "xtcp_scheduler_decisions",
                "Since the start: lookups asked for, closed_before_asked, shed (over --trigger-rate), dumps_instead (cheaper \
                 than lookups), merged (into a running poll), overruns (polls that began a period late).",
                "what",
            )?,
            polls: counter(
                "xtcp_polls_total",
                "Polls of all namespaces that ended, by completeness.",
                "complete",
            )?,
            poll_rows: gauge("xtcp_poll_rows", "Rows of the last poll.")?,
            poll_seconds,
        })
    }

    pub(super) fn event(&self, event: &Kind) {
        let [created, destroyed, state, close, loss] = &self.events;
        match event {
            Kind::NetnsCreated(_) => created,
            Kind::NetnsDestroyed(_) => destroyed,
            Kind::TcpState(_) => state,
            Kind::TcpClose(_) => close,
            Kind::Loss(_) => loss,
        }
        .inc();
    }

    pub(super) fn own_event(&self) {
        self.own_events.inc();
    }

    pub(super) fn excluded_event(&self) {
        self.excluded_events.inc();
    }

    pub(super) fn malformed_events(&self, count: u64) {
        self.malformed_events.inc_by(count);
    }

    pub(super) fn poll_finished(&self, poll: &PollFinished) {
        self.polls.with_label_values(&[if poll.complete { "yes" } else { "no" }]).inc();
        self.poll_rows.set(gauge(poll.rows));
        #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
        self.poll_seconds.set(poll.duration_ns as f64 / 1e9);
    }

    pub(super) fn report(
        &self,
        registry: &Registry,
        connections: &Connections,
        scheduler: &Scheduler,
        excluded: usize,
    ) {
        self.netns.set(gauge(registry.iter().len() as u64));
        self.netns_excluded.set(gauge(excluded as u64));
        let counts = registry.counts();
        for (what, count) in [
            ("stale", counts.stale),
            ("replaced", counts.replaced),
            ("given_up", counts.given_up),
            ("unknown_end", counts.unknown_ends),
            ("late_creation", counts.late_creations),
        ] {
            self.netns_surprises.with_label_values(&[what]).set(gauge(count));
        }
        self.connections.set(gauge(connections.len() as u64));
        self.connections_evicted.set(gauge(connections.evicted()));
        let decisions = scheduler.decisions();
        for (what, count) in [
            ("lookups", decisions.lookups),
            ("closed_before_asked", decisions.closed_before_asked),
            ("shed", decisions.shed),
            ("dumps_instead", decisions.dumps_instead),
            ("merged", decisions.merged),
            ("overruns", decisions.overruns),
        ] {
            self.decisions.with_label_values(&[what]).set(gauge(count));
        }
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
