//! Why the agent could not start, or ended.

use std::io;

use thiserror::Error;

use super::attribution;
use crate::delivery::{self, DeliveryError};
use crate::ebpf::EbpfError;
use crate::event_sink::SinkError;
use crate::grpc::GrpcError;
use crate::metrics::MetricsError;
use crate::netns::discover::DiscoverError;
use crate::netns::filter::FilterError;
use crate::netns::watch::WatchError;

/// Why the agent could not start, or ended.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each variant is the error of the module it is named after")]
pub enum RunError {
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error("metrics: {0}")]
    Registry(#[from] prometheus::Error),
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    #[error(transparent)]
    Destination(#[from] delivery::StartError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error(transparent)]
    Attribution(#[from] attribution::AttributionError),
    #[error("--ebpf require: {0}")]
    Ebpf(#[from] EbpfError),
    /// A system call at start.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// Its errno.
        source: io::Error,
    },
    #[error("delivery ended: {0}")]
    Delivery(#[from] DeliveryError),
    /// Each said before why it ended.
    #[error("no worker is left that could ask a namespace")]
    Workers,
}

/// Names what was being done.
pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::System { what, source }
}
