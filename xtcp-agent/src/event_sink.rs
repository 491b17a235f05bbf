//! Change events leave the host: one hub, a bounded queue for each consumer, sinks that send what theirs holds.
//!
//! [`EventHub::publish`] takes events in batches, encodes each once and never waits. A consumer that falls behind
//! loses the oldest events of its own queue and finds a `Loss` event with the exact counts by kind in their place; such
//! a marker is no part of the stream and carries sequence 0.

mod address;
mod batch;
mod hub;
mod metrics;
mod nats;
mod queue;
mod stdout;
mod subject;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use address::{Marshal, NatsServer, SinkAddress, SinkError, parse, parse_all};
pub use batch::{Batch, Kind, Meta, PerKind, Published};
pub use hub::{EventHub, Subscription};
pub use metrics::{DropReason, SinkCounters, SinkMetrics};
pub use queue::{Bound, Delivery, Filter, Queue};
pub use subject::token;

/// The `--events` value when none is given.
pub const DEFAULT_SINK: &str = "nats:127.0.0.1:4222";

/// Log directive that silences the NATS client, which has a line for every attempt to connect: the sink says
/// once what became of the connection.
pub const LOG_DIRECTIVE: &str = "async_nats=off";

/// What all sinks have in common.
#[derive(Clone, Debug)]
pub struct SinkSettings {
    /// Name of the host, as in the events; part of the NATS subjects.
    pub hostname: String,
    /// How events become bytes.
    pub marshal: Marshal,
    /// How much each sink's queue holds.
    pub bound: Bound,
    /// The addresses are the default: nobody asked for them, their absence is no fault.
    pub by_default: bool,
}

/// How long a sink may take to count what it had in hand once its time is up.
const GIVE_UP: Duration = Duration::from_millis(200);

struct Sink {
    task: JoinHandle<()>,
    queue: Arc<Queue>,
    counters: Arc<SinkCounters>,
}

/// The sinks that were started.
pub struct Sinks {
    started: Vec<Sink>,
    by_default: bool,
    give_up: CancellationToken,
}

impl Sinks {
    /// Subscribes each address to `hub` and begins to send, or to connect, in the background.
    pub async fn start(
        hub: &EventHub,
        addresses: &[SinkAddress],
        settings: &SinkSettings,
        metrics: &SinkMetrics,
    ) -> Result<Self, SinkError> {
        let mut sinks =
            Self { started: Vec::new(), by_default: settings.by_default, give_up: CancellationToken::new() };
        for address in addresses {
            let give_up = sinks.give_up.clone();
            let counters = || metrics.sink(&address.to_string());
            let subscribe = |counters: &Arc<SinkCounters>| {
                hub.subscribe(settings.bound, Filter::default(), Arc::clone(counters))
            };
            let (counters, queue, task) = match address {
                SinkAddress::Off => continue,
                SinkAddress::Stdout => {
                    let counters = counters();
                    let queue = subscribe(&counters);
                    let run = stdout::run(Arc::clone(&queue), Arc::clone(&counters), give_up);
                    (counters, queue, tokio::spawn(run))
                }
                SinkAddress::Nats(server) => {
                    let counters = counters();
                    let nats = nats::Nats::start(
                        server,
                        &settings.hostname,
                        settings.marshal,
                        settings.by_default,
                        Arc::clone(&counters),
                    )
                    .await?;
                    let queue = subscribe(&counters);
                    let run = nats.run(Arc::clone(&queue), give_up);
                    (counters, queue, tokio::spawn(run))
                }
            };
            sinks.started.push(Sink { task, queue, counters });
        }
        Ok(sinks)
    }

    /// Whether events wait only for a server that nobody asked for and that is not there.
    pub fn is_waiting_in_vain(&self) -> bool {
        self.by_default && self.started.iter().all(|sink| sink.counters.connected.get() == 0)
    }

    /// Closes the queues and waits until they are sent, at most `deadline`. A NATS sink without a server does not
    /// wait. What is left is dropped and counted; says how many events that were.
    pub async fn drain(self, deadline: Duration) -> u64 {
        for sink in &self.started {
            sink.queue.close();
        }
        let mut tasks = Vec::new();
        let mut left = Vec::new();
        for Sink { task, queue, counters } in self.started {
            tasks.push(task);
            left.push((queue, counters));
        }
        let give_up = self.give_up;
        let too_late = async {
            tokio::time::sleep(deadline).await;
            give_up.cancel();
            tokio::time::sleep(GIVE_UP).await;
        };
        let aborts: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
        tokio::select! {
            () = async { for task in tasks { let _ = task.await; } } => {}
            () = too_late => aborts.iter().for_each(tokio::task::AbortHandle::abort),
        }
        let mut dropped = 0;
        for (queue, counters) in left {
            for (kind, &events) in queue.discard().iter() {
                counters.dropped_shutdown.get(kind).inc_by(events);
            }
            dropped += counters.dropped_shutdown.iter().map(|(_, counter)| counter.get()).sum::<u64>();
        }
        dropped
    }
}
