//! What the engine counts.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Registry as Metrics, opts};
use xtcp_proto::event::v1::event::Event as Kind;

use crate::clock::Clock;
use crate::connections::Connections;
use crate::metrics::raise;
use crate::netns::registry::Registry;
use crate::scheduler::{PollFinished, Scheduler};

/// Counters and gauges of the engine.
#[derive(Clone)]
pub struct EngineMetrics {
    events: [IntCounter; 6],
    own_events: IntCounter,
    port_events: IntCounter,
    excluded_events: IntCounter,
    malformed_events: IntCounter,
    netns: IntGauge,
    netns_excluded: IntGauge,
    netns_unreachable: IntGauge,
    netns_surprises: IntCounterVec,
    connections: IntGauge,
    connections_evicted: IntCounter,
    decisions: IntCounterVec,
    clock_steps: IntCounter,
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
        let plain = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let poll_seconds = Gauge::new("xtcp_poll_duration_seconds", "How long the last poll took.")?;
        registry.register(Box::new(poll_seconds.clone()))?;
        let events = counter("xtcp_change_events_total", "Change events made, by kind.", "kind")?;
        let left_out = counter(
            "xtcp_events_left_out_total",
            "Events that made no change event: own (the agent's own sockets), excluded (their namespace \
             is), port (a port is, which the kernel side did not know yet).",
            "why",
        )?;
        let polls = counter(
            "xtcp_polls_total",
            "Polls of all namespaces that ended, by completeness: no when a namespace that still exists did not \
             answer in full.",
            "complete",
        )?;
        for complete in ["yes", "no"] {
            polls.with_label_values(&[complete]);
        }
        Ok(Self {
            events: ["netns_created", "netns_destroyed", "tcp_state", "tcp_close", "loss", "netns_counters"]
                .map(|kind| events.with_label_values(&[kind])),
            port_events: left_out.with_label_values(&["port"]),
            own_events: left_out.with_label_values(&["own"]),
            excluded_events: left_out.with_label_values(&["excluded"]),
            malformed_events: plain(
                "xtcp_malformed_events_total",
                "Samples of the ring buffer that are no event of ours.",
            )?,
            netns: gauge("xtcp_netns", "Network namespaces known.")?,
            netns_excluded: gauge("xtcp_netns_excluded", "Network namespaces left out by name or inode.")?,
            netns_unreachable: gauge(
                "xtcp_netns_unreachable",
                "Network namespaces known that nothing leads into: no mount, no thread, no usable file handle.",
            )?,
            netns_surprises: counter(
                "xtcp_netns_surprises_total",
                "What went otherwise than told: stale (told of a dead one), replaced (its inode came back \
                 first), given_up (no trace, end not told), unknown_end (never known), late_creation (told after its end).",
                "what",
            )?,
            connections: gauge("xtcp_connections_followed", "Sockets followed between birth and CLOSE.")?,
            connections_evicted: plain(
                "xtcp_connections_evicted_total",
                "Sockets no longer followed for want of room.",
            )?,
            decisions: counter(
                "xtcp_scheduler_decisions_total",
                "What was decided: lookups asked for, closed_before_asked, shed (over --trigger-rate), dumps_instead (cheaper \
                 than lookups), merged (into a running poll), overruns (polls that began a period late).",
                "what",
            )?,
            clock_steps: plain(
                "xtcp_clock_steps_total",
                "Times that the wall clock was set by more than 10 ms, or the host slept.",
            )?,
            polls,
            poll_rows: gauge("xtcp_poll_rows", "Rows of the last poll.")?,
            poll_seconds,
        })
    }

    pub(super) fn event(&self, event: &Kind) {
        let [created, destroyed, state, close, loss, counters] = &self.events;
        match event {
            Kind::NetnsCreated(_) => created,
            Kind::NetnsDestroyed(_) => destroyed,
            Kind::TcpState(_) => state,
            Kind::TcpClose(_) => close,
            Kind::Loss(_) => loss,
            Kind::NetnsCounters(_) => counters,
        }
        .inc();
    }

    pub(super) fn own_event(&self) {
        self.own_events.inc();
    }

    pub(super) fn port_event(&self) {
        self.port_events.inc();
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
        clock: &Clock,
        (handles, excluded): (bool, usize),
    ) {
        self.netns.set(gauge(registry.iter().len() as u64));
        self.netns_excluded.set(gauge(excluded as u64));
        self.netns_unreachable.set(gauge(registry.unreachable(handles).count() as u64));
        let counts = registry.counts();
        for (what, count) in [
            ("stale", counts.stale),
            ("replaced", counts.replaced),
            ("given_up", counts.given_up),
            ("unknown_end", counts.unknown_ends),
            ("late_creation", counts.late_creations),
        ] {
            raise(&self.netns_surprises.with_label_values(&[what]), count);
        }
        self.connections.set(gauge(connections.len() as u64));
        raise(&self.connections_evicted, connections.evicted());
        raise(&self.clock_steps, clock.steps());
        let decisions = scheduler.decisions();
        for (what, count) in [
            ("lookups", decisions.lookups),
            ("closed_before_asked", decisions.closed_before_asked),
            ("shed", decisions.shed),
            ("dumps_instead", decisions.dumps_instead),
            ("merged", decisions.merged),
            ("overruns", decisions.overruns),
        ] {
            raise(&self.decisions.with_label_values(&[what]), count);
        }
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
