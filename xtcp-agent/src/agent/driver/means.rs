//! What the loop works with.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::agent::scout::{Found, Scout};
use crate::clock::Clock;
use crate::collector::{Done, WorkerHandle};
use crate::ebpf::{Control, DrainHandle, EbpfMetrics};
use crate::engine::Engine;
use crate::event::EventBatch;
use crate::event_sink::EventHub;
use crate::grpc::{NetnsRequest, PollRequest, RowHub};
use crate::metrics::Readiness;
use crate::netns::metrics::DiscoveryMetrics;
use crate::netns::nsid::{Notices, Nsids};
use crate::netns::watch::MountWatch;
use crate::owners::Owners;
use crate::workload::Directory;

/// Everything that the loop holds.
pub(in crate::agent) struct Means {
    pub(in crate::agent) engine: Engine,
    pub(in crate::agent) owners: Owners,
    pub(in crate::agent) scan: Option<std::thread::JoinHandle<()>>,
    pub(in crate::agent) threads: Vec<WorkerHandle>,
    pub(in crate::agent) done: mpsc::Receiver<Done>,
    pub(in crate::agent) batches: Option<mpsc::Receiver<EventBatch>>,
    pub(in crate::agent) polls: mpsc::Receiver<PollRequest>,
    pub(in crate::agent) netns: mpsc::Receiver<NetnsRequest>,
    pub(in crate::agent) watch: MountWatch,
    /// What rtnetlink tells of ids of namespaces; none when it tells no more.
    pub(in crate::agent) notices: Option<Notices>,
    pub(in crate::agent) nsids: Nsids,
    /// A kernel event tells of every beginning, and of every end.
    pub(in crate::agent) tells: (bool, bool),
    pub(in crate::agent) scout: Scout,
    pub(in crate::agent) looks: mpsc::Receiver<Found>,
    pub(in crate::agent) drain: Option<DrainHandle>,
    pub(in crate::agent) control: Option<Control>,
    pub(in crate::agent) ebpf_metrics: EbpfMetrics,
    pub(in crate::agent) discovery_metrics: DiscoveryMetrics,
    pub(in crate::agent) readiness: Readiness,
    pub(in crate::agent) events: EventHub,
    pub(in crate::agent) rows: RowHub,
    pub(in crate::agent) clock: Arc<Clock>,
    pub(in crate::agent) directory: Directory,
    pub(in crate::agent) frequency: Duration,
    pub(in crate::agent) reconcile: Duration,
    /// How long at most a look waits for the events of its time, because the kernel's own word of a creation may still be
    /// on its way when a look has seen the namespace.
    pub(in crate::agent) settle: Duration,
}
