//! What the parts are set to, from the program's settings.

use std::time::Duration;

use crate::collector;
use crate::config::{Config, OwnConnections};
use crate::netns::NetnsId;
use crate::scheduler;
use crate::selection::SocketSelection;

/// Longest wait for the events about the time of a dump or of a look; longer only where the engine is far behind.
pub(super) const EVENTS_WAIT: Duration = Duration::from_secs(1);

/// What the workers of these settings ask for.
pub(crate) fn questions(config: &Config, own: NetnsId) -> collector::Settings {
    collector::Settings {
        mptcp: config.sockets.wants_mptcp(),
        states: config.poll.states(),
        selection: config.poll.deserializers(),
        include_ports: config.sockets.include_ports.clone(),
        exclude_ports: config.sockets.exclude_ports.clone(),
        sockets: SocketSelection::new(
            config.sockets.filter.clone(),
            &config.sockets.include_ports,
            &config.sockets.exclude_ports,
        ),
        timeout: config.poll.timeout,
        lookups_per_send: usize::from(config.lookup.batch),
        leave_out_own_in: (config.sockets.own_connections == OwnConnections::Exclude).then_some(own),
    }
}

/// How the scheduler goes about it.
pub(crate) fn schedule(config: &Config, events: bool) -> scheduler::Settings {
    let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    scheduler::Settings {
        frequency_ns: ns(config.poll.frequency),
        jitter_pct: u32::from(config.poll.jitter_pct),
        workers: usize::from(config.netns.workers),
        lookup_delay_ns: ns(config.lookup.delay),
        lookups_per_request: 16 * usize::from(config.lookup.batch),
        lookups_per_s: config.lookup.rate,
        merge_wait_ns: if events { ns(EVENTS_WAIT) } else { 0 },
    }
}
