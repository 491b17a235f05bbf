//! The composition root: the only module that knows every other one. Builds them from a `Config`, runs them until told
//! to stop, and takes them down in order.

pub(crate) mod attribution;
mod driver;
mod error;
mod greeting;
mod identity;
mod meters;
mod rows;
mod scout;
mod settings;

use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use xtcp_inet_diag::state::State;

use crate::change_event::Stamp;
use crate::clock::{self, Clock};
use crate::collector::{self, Shared, WorkerHandle};
use crate::config::{Config, EbpfMode, OwnConnections, Switch};
use crate::connections::Connections;
use crate::delivery::{self, DeliveryError, Outlets};
use crate::ebpf::{self, EbpfConfig, Fact, Loaded, Rung};
use crate::engine::{Ends, Engine, Parts, PortFilter};
use crate::envelope;
use crate::event_sink::{Bound, EventHub, SinkSettings, Sinks};
use crate::grpc::{self, NetnsRequest, PollRequest, RowHub, Services};
use crate::metrics::{self, Readiness};
use crate::netns::discover::Discovery;
use crate::netns::enter;
use crate::netns::filter::NetnsFilter;
use crate::netns::handle::Handles;
use crate::netns::list::Listing;
use crate::netns::nsid::{Notices, Nsids};
use crate::netns::registry::Registry;
use crate::netns::watch::MountWatch;
use crate::netns_counters::ledger::Ledger;
use crate::record::builder::Builder;
use crate::record::tally::{self, Tally};
use crate::scheduler::Scheduler;
use crate::{sys, topology, workload};

use driver::Driver;
pub use error::RunError;
use error::system;
use greeting::{Served, say_what_runs};
use meters::Meters;
use rows::WorkerSink;
use scout::Scout;

pub(crate) use identity::{host, kernel_version};
use settings::EVENTS_WAIT;
pub(crate) use settings::{questions, schedule};

/// Sockets followed between birth and CLOSE at most: about 150 bytes each.
const CONNECTIONS: usize = 1 << 19;
/// Drains of the ring buffer that may wait for the engine; behind them the ring buffer itself fills and counts.
const EVENT_BATCHES: usize = 16;
/// Chunks of rows (at most 512 rows each) that may wait for the destination.
const ROW_CHUNKS: usize = 128;
/// Rows that may wait for one gRPC client, bytes.
const GRPC_ROW_BYTES: usize = 16 << 20;
/// Full looks without a trace after which a namespace is given up: where nothing tells of ends, and where a hook does.
const PATIENCE: (u32, u32) = (2, 4);

/// Everything that is taken down at the end.
struct Running {
    driver: Driver,
    services: Vec<JoinHandle<()>>,
    delivery: JoinHandle<Result<(), DeliveryError>>,
    sinks: Sinks,
    events: EventHub,
    rows: RowHub,
    stop_services: CancellationToken,
}

/// Runs the agent until `shutdown`, then drains what it holds within `--shutdown-timeout`.
///
/// # Errors
///
/// When a part cannot start, or its destination takes no more.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    let deadline = config.program.shutdown_timeout;
    let mut running = start(config).await?;
    let (ended, failed) = tokio::select! {
        () = shutdown.cancelled() => (None, None),
        ended = &mut running.delivery => (Some(ended), None),
        () = running.driver.run() => (None, Some(RunError::Workers)),
    };
    tracing::info!("stopping: no more polls, sending what is left");
    let Running { driver, services, delivery, sinks, events, rows, stop_services } = running;
    let stopped = tokio::time::timeout(deadline, async {
        driver.stop().await;
        // What consumers were not yet given, they still get.
        events.close();
        let delivered = match ended {
            Some(ended) => ended,
            None => delivery.await,
        };
        rows.close();
        let in_vain = sinks.is_waiting_in_vain();
        let unsent = sinks.drain(deadline / 2).await;
        if unsent > 0 && !in_vain {
            tracing::warn!(unsent, "change events were not sent before the end");
        }
        stop_services.cancel();
        for service in services {
            if let Err(error) = service.await {
                tracing::error!(%error, "a service failed");
            }
        }
        delivered
    })
    .await;
    if let Some(failed) = failed {
        return Err(failed);
    }
    match stopped {
        Ok(Ok(delivered)) => delivered.map_err(RunError::from),
        Ok(Err(error)) => {
            tracing::error!(%error, "delivery failed");
            Ok(())
        }
        Err(_) => {
            tracing::warn!(?deadline, "not everything ended within --shutdown-timeout: leaving");
            Ok(())
        }
    }
}

#[expect(clippy::too_many_lines, reason = "the one place where all parts are put together, in order")]
async fn start(config: Config) -> Result<Running, RunError> {
    let metrics_registry = metrics::registry(env!("CARGO_PKG_VERSION"))?;
    let meters = Meters::register(&metrics_registry)?;
    let readiness = Readiness::starting();
    let filter = NetnsFilter::parse(&config.netns.include, &config.netns.exclude)?;
    let host = host(&config.identity).map_err(system("read the boot id"))?;
    let clock = Arc::new(Clock::new().map_err(|e| system("read the clocks")(e.into()))?);

    // Events gather in the ring buffer from here on; the first look at the host comes after, so that between the two
    // nothing is missed.
    let loaded = load_ebpf(&config, !filter.is_empty())?;
    meters.ebpf.attached(loaded.as_ref().map(|loaded| loaded.attached.as_slice()));
    let tells = |fact| loaded.as_ref().is_some_and(|loaded| loaded.attached.iter().any(|a| a.fact == fact));
    let (tells_births, tells_ends) = (tells(Fact::NetnsCreated), tells(Fact::NetnsDestroyed));
    let names_ends = loaded.as_ref().is_some_and(|loaded| {
        loaded.attached.iter().any(|attached| matches!(attached.rung, Rung::PutNet | Rung::NetnsPut))
    });

    // Once kernel events can tell of it: so these listeners and all that they accept are known as the agent's own.
    let metrics_listener = metrics::bind(config.listen.prom).await?;
    let grpc_listener = grpc::bind(config.listen.grpc()).await?;
    let local = |listener: &TcpListener| listener.local_addr().map_err(system("read an own address"));
    let served = Served { metrics: local(&metrics_listener)?, grpc: local(&grpc_listener)? };
    let own_listener = sys::socket_cookie(metrics_listener.as_fd()).map_err(system("read an own cookie"))?;

    let own = enter::current().map_err(system("identify the agent's own network namespace"))?;
    let handles = Handles::probe();
    let discovery = Discovery::new(config.netns.dirs.clone(), Listing::probe(handles))?;
    let watch = MountWatch::new(config.netns.dirs.clone())?;
    let stop_services = CancellationToken::new();
    let notices = Notices::new().map_err(system("listen for ids of namespaces on rtnetlink"))?;
    let directory = workload::start(&config.workload.settings(), own, meters.workload, &stop_services)
        .map_err(system("start the thread that reads /proc"))?;
    let (scout, looks) = Scout::on_thread_of(&directory, discovery, handles, meters.discovery.clone());

    let events = EventHub::default();
    let rows = RowHub::new(GRPC_ROW_BYTES);
    let (row_sender, row_queue) = envelope::queue(ROW_CHUNKS, meters.envelope.clone());
    let bound = Bound { events: config.events.queue as usize, ..Bound::default() };
    let outlets = Outlets::open(
        &config.records.dest,
        &delivery::Settings {
            hostname: host.hostname.as_str().into(),
            instance: host.agent_instance.clone(),
            marshal: config.records.marshal,
            topic: config.records.topic.clone(),
            spool_dir: config.records.spool_dir.clone(),
            drain: config.program.shutdown_timeout / 2,
            readiness: readiness.clone(),
            events: (events.clone(), bound),
            event_metrics: meters.sinks.clone(),
        },
        &meters.delivery,
    )?;
    let tally = Tally::open(Path::new(tally::FILE));
    let row_counter = tally.value();
    let delivery = tokio::spawn(envelope::run(
        row_queue,
        envelope::Limits {
            rows: config.envelope.flush_rows as usize,
            bytes: config.envelope.flush_bytes as usize,
            age: config.envelope.flush_age,
            event_age: config.envelope.flush_event_age,
        },
        outlets,
        tally,
        meters.envelope,
        CancellationToken::new(),
    ));
    let sinks = Sinks::start(
        &events,
        &config.events.sinks,
        &SinkSettings {
            hostname: host.hostname.clone(),
            marshal: config.events.marshal,
            bound,
            by_default: config.events.by_default,
        },
        &meters.sinks,
    )
    .await?;

    let nsids = Nsids::default();
    let links = topology::Fields::default();
    let extras = attribution::extras(&config.attribution, &meters.attribution)?;
    let (mask, systems) = (extras.mask.clone(), extras.systems.clone());
    let owners = attribution::owners(&config.attribution, directory.clone(), &meters.attribution);
    let scan = attribution::fill(&owners, &config.attribution)?;
    let shared = Shared {
        settings: Arc::new(questions(&config, own)),
        builder: Builder::new(host.clone(), kernel_version()).with(extras).with_topology(links.clone()),
        owners: owners.clone(),
        nsids: Some(nsids.clone()),
        populate_nsid: config.netns.populate_nsid == Switch::On,
        clock: Arc::clone(&clock),
        counter: row_counter,
        metrics: meters.collector,
        handles,
        tap: None,
    };
    let workers = usize::from(config.netns.workers);
    let (done_to, done) = mpsc::channel(2 * workers);
    let mut threads: Vec<WorkerHandle> = Vec::new();
    for number in 0..workers {
        let sink = WorkerSink::new(row_sender.clone(), rows.clone(), config.poll.timeout, Handle::current());
        let worker = collector::spawn(number, shared.clone(), Box::new(sink), done_to.clone());
        threads.push(worker.map_err(system("start a worker thread"))?);
    }
    drop((row_sender, done_to));

    let now = clock::ktime_ns();
    let engine = Engine::new(Parts {
        registry: Registry::new(own, if tells_ends { PATIENCE.1 } else { PATIENCE.0 }),
        connections: Connections::new(CONNECTIONS, std::process::id(), own_listener.unwrap_or(0)),
        scheduler: Scheduler::new(schedule(&config, loaded.is_some()), now, identity::seed(&host)),
        stamp: Stamp::new(host.hostname.clone(), host.boot_id.clone(), host.agent_instance.clone()),
        clock: Arc::clone(&clock),
        filter,
        ports: PortFilter {
            include: config.sockets.include_ports.clone(),
            exclude: config.sockets.exclude_ports.clone(),
        },
        own_connections: config.sockets.own_connections,
        look_up_established: config.poll.states().contains(State::Established),
        look_up_listeners: config.poll.states().contains(State::Listen),
        directory: directory.clone(),
        owners: owners.clone(),
        mask,
        handles: handles != Handles::Unsupported,
        ends: if names_ends || handles == Handles::Certain { Ends::Told } else { Ends::Looked },
        ledger: Ledger::new(config.netns.counters, meters.ledger),
        nsids: nsids.clone(),
        metrics: meters.engine,
    });

    let (polls_to, polls) = mpsc::channel::<PollRequest>(64);
    let (netns_to, netns) = mpsc::channel::<NetnsRequest>(64);
    let mut services = vec![
        tokio::spawn(topology::run(
            topology::Settings::new(&config.topology),
            links,
            meters.topology,
            stop_services.clone(),
        )),
        service(
            "metrics",
            metrics::serve(
                metrics_listener,
                metrics_registry.clone(),
                readiness.clone(),
                stop_services.clone(),
            ),
        ),
        service(
            "gRPC",
            grpc::serve(
                grpc_listener,
                Services {
                    rows: rows.clone(),
                    polls: polls_to,
                    netns: netns_to,
                    events: events.clone(),
                    event_bound: bound,
                    event_counters: meters.sinks.sink("grpc"),
                },
                meters.grpc,
                stop_services.clone(),
            ),
        ),
    ];
    if let Some(systems) = systems {
        services
            .push(tokio::spawn(systems.follow(meters.attribution.systems.clone(), stop_services.clone())));
    }
    let (batches_to, batches) = mpsc::channel(EVENT_BATCHES);
    say_what_runs(&config, &served, loaded.as_ref());
    let (drain, control) = match loaded {
        Some(Loaded { drain, control, .. }) => {
            let drain = drain.start(batches_to).map_err(RunError::Ebpf)?;
            (Some(drain), Some(control))
        }
        None => (None, None),
    };
    let driver = Driver::new(driver::Means {
        engine,
        owners,
        scan,
        threads,
        done,
        batches: Some(batches).filter(|_| control.is_some()),
        polls,
        netns,
        watch,
        notices: Some(notices),
        nsids,
        tells: (tells_births, tells_ends),
        scout,
        looks,
        drain,
        control,
        ebpf_metrics: meters.ebpf,
        discovery_metrics: meters.discovery,
        readiness,
        events: events.clone(),
        rows: rows.clone(),
        clock,
        directory,
        frequency: config.poll.frequency,
        reconcile: config.netns.reconcile_frequency,
        settle: if tells_births { EVENTS_WAIT } else { Duration::ZERO },
    });
    Ok(Running { driver, services, delivery, sinks, events, rows, stop_services })
}

fn load_ebpf(config: &Config, netns_filter: bool) -> Result<Option<Loaded>, RunError> {
    if config.ebpf.mode == EbpfMode::Off {
        return Ok(None);
    }
    let loaded = ebpf::load(&EbpfConfig {
        ring_bytes: config.ebpf.ring_bytes,
        state_mask: config.poll.states().bits(),
        own_tgid: match config.sockets.own_connections {
            OwnConnections::Exclude => std::process::id(),
            OwnConnections::Include => 0,
        },
        include_ports: config.sockets.include_ports.clone(),
        exclude_ports: config.sockets.exclude_ports.clone(),
        netns_filter,
        drain_delay: config.ebpf.drain_interval,
        deny: config.ebpf.deny.clone(),
        ..EbpfConfig::default()
    });
    match loaded {
        Ok(loaded) => Ok(Some(loaded)),
        Err(error) if config.ebpf.mode == EbpfMode::Require => Err(error.into()),
        Err(error) => {
            tracing::warn!(
                %error,
                "NO KERNEL EVENTS: polling only. Connections that live between two polls are not seen; `xtcp2-agent check` \
                 says what is missing"
            );
            Ok(None)
        }
    }
}

fn service<E: std::fmt::Display + Send>(
    name: &'static str,
    serve: impl Future<Output = Result<(), E>> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = serve.await {
            tracing::error!(%error, "{name} service ended");
        }
    })
}
