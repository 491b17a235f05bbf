//! One poll: a look at the host, then every wanted namespace once, by the engine that also drives the agent.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use thiserror::Error;
use tokio::sync::mpsc;
use xtcp_inet_diag::state::State;
use xtcp_proto::netns::v1::Netns;

use crate::agent::attribution::{self, AttributionMetrics};
use crate::agent::{host, kernel_version, questions, schedule};
use crate::change_event::Stamp;
use crate::clock::{self, Clock};
use crate::collector::{self, CollectorMetrics, Done, Job, RowSink, Shared, Tap, WorkerHandle};
use crate::config::{Config, ProcessScan, Switch};
use crate::connections::Connections;
use crate::engine::{Ends, Engine, EngineMetrics, Parts, PortFilter};
use crate::netns::discover::{DiscoverError, Discovery, Scan};
use crate::netns::enter::{self, EnterError};
use crate::netns::filter::{FilterError, NetnsFilter};
use crate::netns::handle::Handles;
use crate::netns::list::Listing;
use crate::netns::nsid::Nsids;
use crate::netns::registry::Registry;
use crate::netns::{NetnsId, Snapshot};
use crate::netns_counters::ledger::{self, Ledger, Period};
use crate::record::builder::Builder;
use crate::scheduler::Scheduler;
use crate::topology;
use crate::workload::{self, Workload, WorkloadMetrics};

/// Why there was no poll.
#[derive(Debug, Error)]
pub(super) enum PollError {
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Attribution(#[from] attribution::AttributionError),
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },
    /// Each said before why it ended.
    #[error("no worker is left that could ask a namespace")]
    Workers,
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> PollError {
    move |source| PollError::System { what, source }
}

/// Something that the rows do not show.
#[derive(Debug)]
pub(super) enum Missed {
    /// A namespace did not answer, or not in full.
    Netns {
        /// Which.
        id: NetnsId,
        /// Its name for people.
        name: Arc<str>,
        /// Why.
        why: String,
    },
    /// No namespace is called so.
    Nobody(String),
    /// Namespaces of these threads and files, which may not be looked at.
    Hidden(u64),
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netns { id, name, why } => write!(f, "{name} (inode {}): {why}", id.inode),
            Self::Nobody(pattern) => write!(f, "{pattern}: no network namespace is called so"),
            Self::Hidden(number) => write!(
                f,
                "the network namespaces of {number} threads or files that this user may not look at: CAP_SYS_PTRACE \
                 (or root) shows them"
            ),
        }
    }
}

/// How the poll went.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Namespaces that answered, at least in part.
    pub(super) visited: u64,
    /// What is not in the rows.
    pub(super) missed: Vec<Missed>,
    /// Engines that did not tell the names of containers, and why.
    pub(super) silent: Vec<String>,
    /// All namespaces that were found, and how their dumps went.
    pub(super) namespaces: Vec<Netns>,
}

/// What is known of the host's uplinks, if that is wanted.
fn links(config: &Config, registry: &prometheus::Registry) -> Result<topology::Fields, PollError> {
    let settings = topology::Settings::new(&config.topology);
    let fields = topology::Fields::default();
    if settings.wants_something() {
        let metrics = topology::Metrics::register(registry)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(system("look at the uplinks"))?;
        for problem in runtime.block_on(topology::look(&settings, &fields, &metrics)) {
            tracing::warn!("host topology: {problem}; its fields stay empty");
        }
    }
    Ok(fields)
}

/// Polls once. `sink` gives each worker a way out for its rows.
pub(super) fn poll(
    config: &Config,
    workers: usize,
    tap: Option<Arc<dyn Tap>>,
    sink: &dyn Fn() -> Box<dyn RowSink>,
) -> Result<Outcome, PollError> {
    let registry = prometheus::Registry::new();
    let host = host(&config.identity).map_err(system("read the boot id"))?;
    let clock = Arc::new(Clock::new().map_err(|e| system("read the clocks")(e.into()))?);
    let own = enter::current().map_err(system("identify the own network namespace"))?;
    let handles = Handles::probe();
    let mut discovery = Discovery::new(config.netns.dirs.clone(), Listing::probe(handles))?;
    let populate_nsid = config.netns.populate_nsid == Switch::On;
    let links = links(config, &registry)?;
    let metrics = AttributionMetrics::register(&registry)?;
    let extras = attribution::extras(&config.attribution, &metrics)?;
    let (snapshot, scan) = discovery.scan()?;
    let workload::Known { directory, silent } = workloads(config, own, &snapshot, &registry)?;
    let owners = attribution::owners(&config.attribution, directory.clone(), &metrics);
    owners.look_at_cgroups();
    if config.attribution.process_scan == ProcessScan::Start {
        owners.scan().map_err(system("list processes"))?;
        owners.look_at_processes();
    }
    let shared = Shared {
        settings: Arc::new(questions(config, own)),
        builder: Builder::new(host.clone(), kernel_version()).with(extras).with_topology(links),
        owners: owners.clone(),
        clock: Arc::clone(&clock),
        counter: Arc::new(AtomicU64::new(0)),
        metrics: CollectorMetrics::register(&registry)?,
        handles,
        tap,
        nsids: populate_nsid.then(Nsids::default),
        populate_nsid,
    };
    let now = clock::ktime_ns();
    let mut engine = Engine::new(Parts {
        registry: Registry::new(own, 1),
        connections: Connections::new(1, std::process::id(), 0),
        scheduler: Scheduler::new(crate::scheduler::Settings { workers, ..schedule(config, false) }, now, 1),
        stamp: Stamp::new(host.hostname.clone(), host.boot_id.clone(), host.agent_instance.clone()),
        clock,
        filter: config.netns.filter()?,
        ports: PortFilter {
            include: config.sockets.include_ports.clone(),
            exclude: config.sockets.exclude_ports.clone(),
        },
        own_connections: config.sockets.own_connections,
        look_up_established: config.poll.states().contains(State::Established),
        look_up_listeners: config.poll.states().contains(State::Listen),
        directory,
        owners,
        mask: None,
        handles: handles != Handles::Unsupported,
        ends: Ends::Told,
        ledger: Ledger::new(Period::Off, ledger::Metrics::register(&registry)?),
        nsids: Nsids::default(),
        metrics: EngineMetrics::register(&registry)?,
    });
    engine.on_look(now, &snapshot);
    engine.on_workloads(now);
    engine.poll_requested();
    let (done_to, mut done) = mpsc::channel(2 * workers);
    let mut crew = Crew { threads: Vec::new(), idle: (0..workers).rev().collect(), visits: BTreeMap::new() };
    for number in 0..workers {
        let worker = collector::spawn(number, shared.clone(), sink(), done_to.clone());
        crew.threads.push(worker.map_err(system("start a worker thread"))?);
    }
    drop((done_to, shared));
    let polled = crew.run(&mut engine, &mut done);
    let Crew { threads, visits, .. } = crew;
    for thread in threads {
        if thread.join().is_err() {
            return Err(PollError::Workers);
        }
    }
    polled?;
    let (visited, missed) = judge(&visits, &config.netns.include, &scan, &mut discovery)?;
    Ok(Outcome { visited, missed, silent, namespaces: engine.namespaces() })
}

/// Whose namespaces and cgroups are, as far as engines tell soon.
fn workloads(
    config: &Config,
    own: NetnsId,
    snapshot: &Snapshot,
    registry: &prometheus::Registry,
) -> Result<workload::Known, PollError> {
    let metrics = WorkloadMetrics::register(registry)?;
    let threads = snapshot.threads.as_deref().unwrap_or_default();
    workload::once(&config.workload.settings(), own, threads, metrics)
        .map_err(system("ask container engines"))
}

/// What is known of a namespace that was to be visited.
struct Visit {
    id: NetnsId,
    name: Arc<str>,
    workload: Option<Arc<Workload>>,
    why: Option<Why>,
}

enum Why {
    /// Nothing leads there any more.
    Gone(String),
    Other(String),
}

struct Crew {
    threads: Vec<WorkerHandle>,
    idle: Vec<usize>,
    /// By the id of the request's namespace.
    visits: BTreeMap<u32, Visit>,
}

impl Crew {
    /// Until the first poll has ended.
    fn run(&mut self, engine: &mut Engine, done: &mut mpsc::Receiver<Done>) -> Result<(), PollError> {
        loop {
            let now = clock::ktime_ns();
            while let Some(worker) = self.idle.pop() {
                let Some(job) = engine.next_job(now) else {
                    self.idle.push(worker);
                    break;
                };
                self.dispatch(worker, job)?;
            }
            if engine.finished_poll(now).is_some() {
                return Ok(());
            }
            let report = done.blocking_recv().ok_or(PollError::Workers)?;
            self.idle.push(report.worker);
            self.take(&report);
            engine.on_done(clock::ktime_ns(), report);
        }
    }

    fn dispatch(&mut self, worker: usize, job: Job) -> Result<(), PollError> {
        let (name, workload) = (Arc::clone(&job.name), job.workload.clone());
        let visit = Visit { id: job.target.id, name, workload, why: None };
        self.visits.entry(job.request.netns_inode).or_insert(visit);
        let sent = self.threads.get(worker).is_some_and(|thread| thread.jobs.try_send(job).is_ok());
        if sent { Ok(()) } else { Err(PollError::Workers) }
    }

    fn take(&mut self, report: &Done) {
        let Some(visit) = self.visits.get_mut(&report.expected.inode) else { return };
        visit.why = match &report.found {
            Err(error @ (EnterError::Gone(_) | EnterError::NoDoor(_))) => Some(Why::Gone(error.to_string())),
            Err(error) => Some(Why::Other(error.to_string())),
            Ok(id) => {
                visit.id = *id;
                let fault = report.completion.fault.clone().map(Why::Other);
                fault.filter(|_| !report.completion.complete)
            }
        };
    }
}

/// How many answered, and what the rows do not show.
fn judge(
    visits: &BTreeMap<u32, Visit>,
    include: &[String],
    scan: &Scan,
    discovery: &mut Discovery,
) -> Result<(u64, Vec<Missed>), PollError> {
    let mut missed = Vec::new();
    let mut visited = 0;
    let mut now: Option<Snapshot> = None;
    for (inode, Visit { id, name, why, .. }) in visits {
        let why = match why {
            None => {
                visited += 1;
                continue;
            }
            Some(Why::Other(why)) => why.clone(),
            Some(Why::Gone(error)) => {
                if now.is_none() {
                    now = Some(discovery.scan()?.0);
                }
                // One that has ended since the look is missing nowhere.
                if !now.as_ref().is_some_and(|snapshot| shows(snapshot, *inode)) {
                    continue;
                }
                error.clone()
            }
        };
        missed.push(Missed::Netns { id: *id, name: Arc::clone(name), why });
    }
    for pattern in include {
        let filter = NetnsFilter::parse(&[pattern], &[])?;
        let is =
            |(inode, visit): (&u32, &Visit)| filter.matches(&visit.name, *inode, visit.workload.as_deref());
        if !visits.iter().any(is) {
            missed.push(Missed::Nobody(pattern.clone()));
        }
    }
    // Who named each one, and got each, does not care for others.
    let open = |pattern: &String| pattern.contains(['*', '?']);
    let hidden = scan.denied + scan.failed;
    if hidden > 0 && (include.is_empty() || include.iter().any(open)) {
        missed.push(Missed::Hidden(hidden));
    }
    Ok((visited, missed))
}

fn shows(snapshot: &Snapshot, inode: u32) -> bool {
    let threads = snapshot.threads.iter().flatten().map(|(inode, _)| *inode);
    let listed = snapshot.listed.iter().map(|id| id.inode);
    snapshot.mounts.iter().map(|mount| mount.inode).chain(threads).chain(listed).any(|seen| seen == inode)
}
