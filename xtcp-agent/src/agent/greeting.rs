//! The few lines that the agent starts with.

use std::net::SocketAddr;

use crate::config::Config;
use crate::ebpf::{self, Loaded};

/// Where the services listen: with the port that the kernel chose, where any free one was asked for.
pub(super) struct Served {
    pub(super) metrics: SocketAddr,
    pub(super) grpc: SocketAddr,
}

/// What is watched and how, and the commands that show it.
pub(super) fn say_what_runs(config: &Config, served: &Served, loaded: Option<&Loaded>) {
    let Served { metrics, grpc } = served;
    let every = humantime::format_duration(config.poll.frequency);
    if let Some(loaded) = loaded {
        let used = |info: &&ebpf::RungInfo| loaded.attached.iter().any(|attached| attached.rung == info.rung);
        let hooks: Vec<&str> = ebpf::ladder().iter().filter(used).map(|info| info.hook).collect();
        tracing::info!(
            "kernel events from {}; every network namespace polled every {every}",
            hooks.join(", ")
        );
        for (rung, reason) in &loaded.skipped {
            tracing::debug!(?rung, %reason, "hook not used");
        }
    } else {
        tracing::info!("no kernel events; every network namespace polled every {every}");
    }
    let sinks: Vec<String> = config.events.sinks.iter().map(ToString::to_string).collect();
    let routes: Vec<String> = config.records.dest.iter().map(|route| route.address.to_string()).collect();
    tracing::info!(
        "rows go to {} as {}, change events to {}",
        routes.join(", "),
        config.records.marshal.name(),
        sinks.join(", ")
    );
    tracing::info!(
        "rows:    grpcurl -plaintext {grpc} xtcp_flat_record.v1.XTCPFlatRecordService/FlatRecords"
    );
    tracing::info!("events:  grpcurl -plaintext {grpc} xtcp_event.v1.EventService/Events");
    tracing::info!("metrics: curl http://{metrics}/metrics");
}
