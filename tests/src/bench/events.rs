//! What change events cost: short connections at full speed with the agent attached, against without, in turn.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::oneshot;

use super::{Spread, Stopped, cpu_of, cpu_of_thread, float, lookup, pause, settle};
use crate::agent::{Agent, agent};
use crate::nats::NatsServer;
use crate::netns::Netns;
use crate::traffic::{accept, connect, listen, reset_on_close};

/// How often, and how long.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Options {
    /// Rounds, each without an agent, with one that sends events, and with one that does not
    #[arg(long, value_name = "ROUNDS", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Milliseconds of each measurement
    #[arg(long, value_name = "MS", default_value = "1500", value_parser = clap::value_parser!(u64).range(100..=60_000))]
    window: u64,
}

/// State changes of one connection that is closed by a reset, over both ends.
const EVENTS_PER_CONNECTION: u64 = 6;
/// Workers that make connections at once.
const WORKERS: [usize; 2] = [1, 2];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Attached {
    Nothing,
    EventsOff,
    EventsToNats,
}

impl Attached {
    const ALL: [Self; 3] = [Self::Nothing, Self::EventsOff, Self::EventsToNats];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "floor: no agent",
            Self::EventsOff => "agent, --events off",
            Self::EventsToNats => "agent, events to a NATS subscriber",
        }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Measured {
    per_s: f64,
    /// Workers' CPU for each connection, µs.
    worker_us: f64,
    /// Agent's CPU for each event, µs.
    cpu_us: f64,
    lost: f64,
    dropped: f64,
    received: f64,
    events: f64,
}

/// Measures and prints.
pub fn main(options: &Options) -> Result<(), Stopped> {
    let netns = Netns::named("events");
    let nats = NatsServer::start();
    let subscriber = Counter::new(nats.address);
    // [workers][what is attached], one a round.
    let mut measured: [[Vec<Measured>; 3]; 2] = Default::default();
    let window = Duration::from_millis(options.window);
    // The first connections of a namespace are slower than all others.
    netns.run_in(|| connections(2, Duration::from_millis(500)));
    for _ in 0..options.rounds {
        for (index, attached) in Attached::ALL.into_iter().enumerate() {
            let mut agent = start(attached, &netns, &nats);
            if let Some(agent) = &agent {
                settle(agent, Duration::from_millis(100))?;
            }
            for (of_workers, workers) in measured.iter_mut().zip(WORKERS) {
                of_workers[index].push(measure(&netns, workers, window, agent.as_ref(), &subscriber)?);
            }
            if let Some(agent) = &mut agent {
                agent.terminate(Duration::from_secs(20));
            }
        }
    }
    print(&measured, options.rounds);
    lookup::main()
}

fn start(attached: Attached, netns: &Netns, nats: &NatsServer) -> Option<Agent> {
    let include = netns.inode.to_string();
    let agent = agent().without_rows().args(&["--netns-include", &include]);
    match attached {
        Attached::Nothing => None,
        Attached::EventsOff => Some(agent.start()),
        Attached::EventsToNats => Some(agent.events_to(nats).start()),
    }
}

fn measure(
    netns: &Netns,
    workers: usize,
    window: Duration,
    agent: Option<&Agent>,
    subscriber: &Counter,
) -> Result<Measured, Stopped> {
    // As long as between two measurements with an agent: a host that was given a rest is faster than one that was not.
    if agent.is_none() {
        pause(Duration::from_millis(1_200))?;
    }
    let before = agent.map(|agent| (losses(agent), cpu_of(agent.process.pid())));
    let received = subscriber.count();
    let work = netns.run_in(|| connections(workers, window));
    let mut measured = Measured {
        per_s: float(work.connections) / work.took.as_secs_f64(),
        worker_us: work.cpu.as_secs_f64() * 1e6 / float(work.connections),
        cpu_us: 0.0,
        lost: 0.0,
        dropped: 0.0,
        received: 0.0,
        events: float(work.connections * EVENTS_PER_CONNECTION),
    };
    if let (Some(agent), Some(((lost, dropped), cpu))) = (agent, before) {
        // What it still holds belongs to its cost; its gauges of the kernel side are a second old at most.
        settle(agent, Duration::from_millis(600))?;
        measured.cpu_us =
            cpu_of(agent.process.pid()).saturating_sub(cpu).as_secs_f64() * 1e6 / measured.events;
        pause(Duration::from_millis(600))?;
        let after = losses(agent);
        (measured.lost, measured.dropped) = (after.0 - lost, after.1 - dropped);
        measured.received = float(subscriber.count() - received);
    }
    Ok(measured)
}

/// Events lost in the ring buffer, and dropped before they were sent.
fn losses(agent: &Agent) -> (f64, f64) {
    let metrics = agent.metrics();
    (
        metrics.sum("xtcp_ebpf_events_total", &["outcome=\"lost\""]),
        metrics.sum("xtcp_events_dropped_total", &[]),
    )
}

/// What workers did.
#[derive(Clone, Copy, Debug)]
struct Work {
    connections: u64,
    took: Duration,
    /// CPU of their threads: on loopback both ends of a connection are served in the calls of its worker.
    cpu: Duration,
}

/// Connects, accepts, sends 100 bytes and resets, one after the other in each worker, for `window`.
fn connections(workers: usize, window: Duration) -> Work {
    let start = Instant::now();
    let mut done = Work { connections: 0, took: Duration::ZERO, cpu: Duration::ZERO };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(|| work(start + window))).collect();
        for worker in workers {
            let (connections, cpu) = worker.join().expect("a worker makes its connections");
            done.connections += connections;
            done.cpu += cpu;
        }
    });
    Work { took: start.elapsed(), ..done }
}

fn work(end: Instant) -> (u64, Duration) {
    let cpu = cpu_of_thread();
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into());
    let address = listener.local_addr().expect("a listener has an address");
    let mut made = 0;
    let mut bytes = [0x55; 100];
    while Instant::now() < end {
        let mut client = connect_plainly(address);
        let mut server = accept(&listener);
        client.write_all(&bytes).expect("the server is there");
        server.read_exact(&mut bytes).expect("the client wrote");
        reset_on_close(&client);
        // In this order: the other end would send a FIN first.
        drop(client);
        drop(server);
        made += 1;
    }
    (made, cpu_of_thread().saturating_sub(cpu))
}

/// `connect()` alone: the time limit of [`connect`](crate::traffic::connect) costs three system calls more.
fn connect_plainly(address: SocketAddr) -> std::net::TcpStream {
    std::net::TcpStream::connect(address).unwrap_or_else(|_| connect(address))
}

/// A subscriber that counts messages and looks into none.
struct Counter {
    count: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Counter {
    fn new(address: SocketAddr) -> Self {
        let count = Arc::<AtomicU64>::default();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let counted = Arc::clone(&count);
        let thread = std::thread::Builder::new()
            .name("nats counter".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(count_messages(address, &counted, ready, stopped));
            })
            .expect("a thread can be started");
        is_ready.recv_timeout(Duration::from_secs(10)).expect("the subscription reaches nats-server");
        Self { count, stop: Some(stop), thread: Some(thread) }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn count_messages(
    address: SocketAddr,
    count: &AtomicU64,
    ready: std::sync::mpsc::SyncSender<()>,
    mut stopped: oneshot::Receiver<()>,
) {
    let options = async_nats::ConnectOptions::new().subscription_capacity(1 << 20);
    let client = options.connect(format!("nats://{address}")).await.expect("nats-server takes connections");
    let mut messages = client.subscribe("xtcp.v1.>").await.expect("a subscription can be made");
    client.flush().await.expect("nats-server answers");
    let _ = ready.send(());
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(_) => count.fetch_add(1, Ordering::Relaxed),
                None => return,
            },
            _ = &mut stopped => return,
        };
    }
}

fn print(measured: &[[Vec<Measured>; 3]; 2], rounds: u32) {
    println!(
        "\nShort connections over loopback at full speed (connect, accept, 100 bytes, reset), {rounds} rounds"
    );
    for (of_workers, workers) in measured.iter().zip(WORKERS) {
        let workers = format!("{workers} worker{}", if workers == 1 { "" } else { "s" });
        println!(
            "  {workers:40} {:>13} {:>22} {:>13} {:>22} {:>12} {:>6} {:>7}",
            "connections/s", "ratio", "µs each", "ratio", "agent µs/ev.", "lost", "dropped"
        );
        let [bare, ..] = of_workers;
        for (attached, rounds) in Attached::ALL.into_iter().zip(of_workers) {
            let line = |of: fn(&Measured) -> f64| {
                let ratio = Spread::of(rounds.iter().zip(bare).map(|(round, bare)| of(round) / of(bare)));
                let ratio = format!("{:.2} [{:.2} .. {:.2}]", ratio.median, ratio.min, ratio.max);
                (Spread::of(rounds.iter().map(of)).median, ratio)
            };
            let (per_s, speed) = line(|round| round.per_s);
            let (worker_us, effort) = line(|round| round.worker_us);
            print!("    {:38} {per_s:>13.0} {speed:>22} {worker_us:>13.1} {effort:>22}", attached.name());
            if attached == Attached::Nothing {
                println!();
                continue;
            }
            let total = |of: fn(&Measured) -> f64| rounds.iter().map(of).sum::<f64>();
            let cpu = Spread::of(rounds.iter().map(|round| round.cpu_us));
            let (lost, dropped) = (total(|round| round.lost), total(|round| round.dropped));
            println!(" {:>12.2} {lost:>6.0} {dropped:>7.0}", cpu.median);
            if attached == Attached::EventsToNats {
                let (received, events) = (total(|round| round.received), total(|round| round.events));
                println!(
                    "      the subscriber got {received:.0} messages; {events:.0} state changes were made"
                );
            }
        }
    }
    println!(
        "  µs each: CPU of the workers for one connection, both ends, the programs in the kernel included."
    );
    println!(
        "  lost: in the ring buffer; dropped: in the queue to NATS. Workers, agent, nats-server and subscriber"
    );
    println!(
        "  share the processors: what they take from the workers is in the first ratio, not in the second."
    );
}
