//! The same records and events, live over gRPC: `XTCPFlatRecordService`, `EventService`, `NetnsService`, reflection and health.
//!
//! No client slows the agent: each has a bounded queue, and what does not fit is dropped and counted.

mod codec;
mod event;
mod flat_record;
mod netns;
mod netns_list;
mod poll_rows;
mod row_hub;
mod service;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::event_sink::{Bound, EventHub, SinkCounters};
use event::EventService;
use flat_record::FlatRecordService;
use netns::NetnsService;
pub use netns_list::NetnsRequest;
pub use row_hub::RowHub;
use service::Routed;

/// Bytes of the largest request: all have a few small fields.
const MAX_REQUEST: usize = 64 * 1024;
/// Bytes of the largest header list of a request.
const MAX_HEADERS: u32 = 16 * 1024;
/// Streams that all clients together may have open.
const MAX_STREAMS: usize = 128;
/// Requests that one connection may have under way; beyond [`MAX_STREAMS`], so that a refusal can be said.
const MAX_STREAMS_PER_CONNECTION: u32 = 256;
/// A client that says nothing for this long is asked whether it is still there…
const KEEPALIVE: Duration = Duration::from_secs(30);
/// … and is given up after this long.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long streams that have been told their end may take at shutdown.
const GRACE: Duration = Duration::from_secs(2);

/// Why gRPC is not served.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for gRPC (--grpc-listen, --grpc-port): {source}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The contract's descriptors cannot be served.
    #[error("cannot serve reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server failed.
    #[error("the gRPC server ended: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// A client asks for a poll of every namespace now.
#[derive(Debug)]
pub struct PollRequest {
    /// Where to say the number of the poll that answers it, as soon as it is known and before that poll's end.
    pub reply: oneshot::Sender<u64>,
}

/// What the services serve.
#[derive(Clone)]
pub struct Services {
    /// Rows.
    pub rows: RowHub,
    /// Who performs polls.
    pub polls: mpsc::Sender<PollRequest>,
    /// Who knows the namespaces.
    pub netns: mpsc::Sender<NetnsRequest>,
    /// Events.
    pub events: EventHub,
    /// How much each event subscriber's queue holds.
    pub event_bound: Bound,
    /// Counters of event subscribers, all together: [`SinkMetrics::sink`](crate::event_sink::SinkMetrics::sink)
    /// of `"grpc"`.
    pub event_counters: Arc<SinkCounters>,
}

/// A streaming method; the metrics' `method` label.
#[derive(Clone, Copy)]
enum Method {
    FlatRecords,
    PollFlatRecords,
    Events,
    Counters,
    List,
    Watch,
}

impl Method {
    const fn name(self) -> &'static str {
        match self {
            Self::FlatRecords => "FlatRecords",
            Self::PollFlatRecords => "PollFlatRecords",
            Self::Events => "Events",
            Self::Counters => "Counters",
            Self::List => "List",
            Self::Watch => "Watch",
        }
    }
}

/// What the services count.
#[derive(Clone, Debug)]
pub struct GrpcMetrics {
    streams: IntGaugeVec,
    rows_sent: IntCounterVec,
    rows_dropped: IntCounterVec,
}

struct MethodCounters {
    rows_sent: IntCounter,
    rows_dropped: IntCounter,
}

impl GrpcMetrics {
    /// Makes the counters and registers them.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let rows = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["method"]);
        let metrics = Self {
            streams: IntGaugeVec::new(Opts::new("xtcp_grpc_streams", "Open gRPC streams."), &["method"])?,
            rows_sent: rows("xtcp_grpc_rows_sent_total", "Rows sent to gRPC clients.")?,
            rows_dropped: rows(
                "xtcp_grpc_rows_dropped_total",
                "Rows that gRPC clients missed because they were too slow.",
            )?,
        };
        registry.register(Box::new(metrics.streams.clone()))?;
        registry.register(Box::new(metrics.rows_sent.clone()))?;
        registry.register(Box::new(metrics.rows_dropped.clone()))?;
        for method in [Method::FlatRecords, Method::PollFlatRecords] {
            metrics.method(method);
        }
        for method in [
            Method::FlatRecords,
            Method::PollFlatRecords,
            Method::Events,
            Method::Counters,
            Method::List,
            Method::Watch,
        ] {
            metrics.streams.with_label_values(&[method.name()]);
        }
        Ok(metrics)
    }

    fn method(&self, method: Method) -> MethodCounters {
        MethodCounters {
            rows_sent: self.rows_sent.with_label_values(&[method.name()]),
            rows_dropped: self.rows_dropped.with_label_values(&[method.name()]),
        }
    }
}

/// What every request needs.
#[derive(Clone)]
struct Shared {
    services: Services,
    metrics: GrpcMetrics,
    seats: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Shared {
    /// A place among the open streams.
    fn seat(&self, method: Method) -> Result<Seat, Status> {
        let seats = Arc::clone(&self.seats);
        let permit = seats.try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{MAX_STREAMS} streams are open, more are not served"))
        })?;
        let open = self.metrics.streams.with_label_values(&[method.name()]);
        open.inc();
        Ok(Seat { _permit: permit, open, shutdown: self.shutdown.clone() })
    }
}

/// An open stream's place.
struct Seat {
    _permit: OwnedSemaphorePermit,
    open: IntGauge,
    shutdown: CancellationToken,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl Seat {
    /// `stream` until shutdown; the place is free when it is dropped.
    fn keep<T: 'static>(
        self,
        stream: impl Stream<Item = T> + Send + 'static,
    ) -> Pin<Box<dyn Stream<Item = T> + Send>> {
        let shutdown = self.shutdown.clone().cancelled_owned();
        Box::pin(stream.take_until(shutdown).inspect(move |_| {
            let _: &Self = &self;
        }))
    }
}

/// Listens on `address` for [`serve`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, GrpcError> {
    TcpListener::bind(address).await.map_err(|source| GrpcError::Listen { address, source })
}

/// Serves until `shutdown`, which ends every stream; two seconds later whatever is still open is left. To let clients
/// have what is queued for them, close the hubs first.
pub async fn serve(
    listener: TcpListener,
    services: Services,
    metrics: GrpcMetrics,
    shutdown: CancellationToken,
) -> Result<(), GrpcError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(xtcp_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<Routed<FlatRecordService>>().await;
    health.set_serving::<Routed<EventService>>().await;
    health.set_serving::<Routed<NetnsService>>().await;
    let seats = Arc::new(Semaphore::new(MAX_STREAMS));
    let shared = Shared { services, metrics, seats, shutdown: shutdown.clone() };
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(Routed::<FlatRecordService>::new(shared.clone()))
        .add_service(Routed::<EventService>::new(shared.clone()))
        .add_service(Routed::<NetnsService>::new(shared))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown.clone().cancelled_owned(),
        );
    let too_late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = server => Ok(result?),
        () = too_late => Ok(()),
    }
}
