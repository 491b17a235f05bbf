//! The threads that visit namespaces. A few of them, whatever the number of namespaces: each hops in, asks, and is home
//! again before it reads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;

use super::exchange::Exchange;
use super::{Collector, CollectorMetrics, RowSink, Settings, Tap};
use crate::clock::Clock;
use crate::netns::enter::{EnterError, Visitor};
use crate::netns::handle::Handles;
use crate::netns::nsid::Nsids;
use crate::netns::{NetnsId, Target};
use crate::netns_counters::Reading;
use crate::owners::Owners;
use crate::record::builder::Builder;
use crate::scheduler::{Completion, DumpRequest};
use crate::workload::Workload;

/// A request with where to find its namespace.
#[derive(Debug)]
pub struct Job {
    /// What to ask.
    pub request: DumpRequest,
    /// Where.
    pub target: Target,
    /// The namespace's name for people.
    pub name: Arc<str>,
    /// Whose it is, where that is known.
    pub workload: Option<Arc<Workload>>,
    /// The namespace's counters are to be read at the same visit.
    pub counters: bool,
}

/// What a worker says of a job.
#[derive(Debug)]
pub struct Done {
    /// Which worker.
    pub worker: usize,
    /// Who was to be visited.
    pub expected: NetnsId,
    /// When the job began, `CLOCK_MONOTONIC` nanoseconds.
    pub began_ktime_ns: u64,
    /// How it went.
    pub completion: Completion,
    /// Who was found, or why nobody was.
    pub found: Result<NetnsId, EnterError>,
    /// The namespace's counters, where the job wanted them.
    pub counters: Option<Reading>,
}

/// What all workers share.
#[derive(Clone)]
pub struct Shared {
    /// What to ask for.
    pub settings: Arc<Settings>,
    /// Makes the records.
    pub builder: Builder,
    /// Owners of sockets.
    pub owners: Owners,
    /// Wall time.
    pub clock: Arc<Clock>,
    /// Numbers the rows of this process.
    pub counter: Arc<AtomicU64>,
    /// Counters.
    pub metrics: CollectorMetrics,
    /// How namespaces are opened by handle here.
    pub handles: Handles,
    /// Who is shown every datagram; nobody, as a rule.
    pub tap: Option<Arc<dyn Tap>>,
    /// Ids that the agent's namespace gave to others; not asked for without it.
    pub nsids: Option<Nsids>,
    /// Rows say those ids.
    pub populate_nsid: bool,
}

/// One worker: a queue of one job, and its thread.
#[derive(Debug)]
pub struct WorkerHandle {
    /// Where its next job goes. Dropping it ends the thread after the job at hand.
    pub jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

impl WorkerHandle {
    /// Waits until the thread has ended; drop all senders first.
    pub fn join(self) -> thread::Result<()> {
        let Self { jobs, thread } = self;
        drop(jobs);
        thread.join()
    }
}

/// Starts worker `number`. Fails when the thread cannot be made.
pub fn spawn(
    number: usize,
    shared: Shared,
    sink: Box<dyn RowSink>,
    done: mpsc::Sender<Done>,
) -> io::Result<WorkerHandle> {
    let (jobs, mut queue) = mpsc::channel::<Job>(1);
    let thread = thread::Builder::new().name(format!("xtcp-netns-{number}")).spawn(move || {
        let Shared {
            settings,
            builder,
            owners,
            clock,
            counter,
            metrics,
            handles,
            tap,
            nsids,
            populate_nsid,
        } = shared;
        let mut visitor = match Visitor::new(handles) {
            Ok(visitor) => visitor,
            Err(error) => {
                tracing::error!(%error, number, "a worker cannot tell its own network namespace and ends");
                return;
            }
        };
        if let Some(nsids) = &nsids
            && let Err(error) = visitor.ask_nsids(nsids.clone())
        {
            tracing::warn!(%error, number, "a worker cannot ask for nsids");
        }
        let mut collector = Collector {
            visitor,
            exchange: Exchange::new(),
            kernel_filters: true,
            kernel_mptcp: true,
            settings,
            builder,
            owners,
            clock,
            counter,
            metrics,
            sink,
            tap,
            nsids: nsids.filter(|_| populate_nsid),
            number: number as u64,
        };
        while let Some(job) = queue.blocking_recv() {
            let began_ktime_ns = crate::clock::ktime_ns();
            let (completion, found, counters) = collector.perform(&job);
            let lost = matches!(found, Err(EnterError::Home(_)));
            let expected = job.target.id;
            let report = Done { worker: number, expected, began_ktime_ns, completion, found, counters };
            if done.blocking_send(report).is_err() || lost {
                return;
            }
        }
    })?;
    Ok(WorkerHandle { jobs, thread })
}
