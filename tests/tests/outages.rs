//! Promise: a destination that acknowledges loses nothing when it is killed, frozen, refuses or is slow; the agent keeps
//! its cadence and its memory, and the destinations beside it do not notice. With a write-ahead spool the agent itself may
//! be killed.
//!
//! Why the comparison is sound: a file beside the destination under test gets every row, and is on no network. Rows have
//! a number of their own (`record_counter`), so the two sets are compared, and repeats are counted.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use prost::Message;
use prost::bytes::Buf;
use tempfile::TempDir;
use xtcp_proto::flat_record::v1::{Envelope, XtcpFlatRecord};
use xtcp_tests::agent::{Agent, agent};
use xtcp_tests::host::{alone, free_port, scale, slowness, wait_for};
use xtcp_tests::http;
use xtcp_tests::netns::Netns;
use xtcp_tests::process::Process;
use xtcp_tests::proxy::Proxy;
use xtcp_tests::traffic;

/// Connections, of three sockets each with their listener: with a poll every 100 ms they are 10 000 rows a second.
const PAIRS: usize = 333;

/// How long each outage lasts.
fn outage() -> Duration {
    Duration::from_secs(scale(3_u64, 60))
}

/// A server that keeps what it acknowledged, also when it is killed.
trait Server {
    /// What the agent is told, for a server behind this address.
    fn dest(&self, at: SocketAddr) -> String;
    /// Where it listens.
    fn address(&self) -> SocketAddr;
    /// The process, to be killed or frozen.
    fn process(&mut self) -> &mut Process;
    /// Starts it again where it was.
    fn restart(&mut self);
    /// Every payload that it has.
    fn payloads(&self) -> Vec<Vec<u8>>;
}

fn listens(address: SocketAddr, process: &mut Process) {
    wait_for("the server to listen", Duration::from_secs(20), || {
        assert!(process.try_wait().is_none(), "it ended: {}", process.stderr.text());
        TcpStream::connect(address).ok()
    });
}

struct Nats {
    address: SocketAddr,
    dir: TempDir,
    process: Process,
}

impl Nats {
    fn start() -> Self {
        let (address, dir) =
            (SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())), tempfile::tempdir().unwrap());
        let mut server = Self { address, process: Self::spawn(address, dir.path()), dir };
        listens(address, &mut server.process);
        server.block_on(async |jetstream| {
            let stream = async_nats::jetstream::stream::Config {
                name: "rows".to_owned(),
                subjects: vec!["xtcp".to_owned()],
                ..Default::default()
            };
            jetstream.create_stream(stream).await.map(drop).unwrap();
        });
        server
    }

    fn spawn(address: SocketAddr, dir: &Path) -> Process {
        let (port, dir) = (address.port().to_string(), dir.to_string_lossy().into_owned());
        let argv = ["nats-server", "-a", "127.0.0.1", "-p", &port, "-js", "-sd", &dir];
        Process::start("nats-server", &argv)
    }

    fn block_on<T>(&self, work: impl AsyncFnOnce(async_nats::jetstream::Context) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = async_nats::connect(self.address.to_string()).await.unwrap();
            work(async_nats::jetstream::new(client)).await
        })
    }
}

impl Server for Nats {
    fn dest(&self, at: SocketAddr) -> String {
        format!("nats:{at}#jetstream=true")
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn restart(&mut self) {
        self.process = Self::spawn(self.address, self.dir.path());
        listens(self.address, &mut self.process);
    }

    fn payloads(&self) -> Vec<Vec<u8>> {
        self.block_on(async |jetstream| {
            let mut stream = jetstream.get_stream("rows").await.unwrap();
            let last = stream.info().await.unwrap().state.last_sequence;
            let mut payloads = Vec::new();
            for sequence in 1..=last {
                payloads.push(stream.get_raw_message(sequence).await.unwrap().payload.to_vec());
            }
            payloads
        })
    }
}

struct Valkey {
    address: SocketAddr,
    dir: TempDir,
    process: Process,
}

impl Valkey {
    fn start() -> Self {
        let (address, dir) =
            (SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())), tempfile::tempdir().unwrap());
        let mut server = Self { address, process: Self::spawn(address, dir.path()), dir };
        listens(address, &mut server.process);
        server
    }

    fn spawn(address: SocketAddr, dir: &Path) -> Process {
        let (port, dir) = (address.port().to_string(), dir.to_string_lossy().into_owned());
        let argv = [
            "redis-server",
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--dir",
            &dir,
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--save",
            "",
        ];
        Process::start("redis-server", &argv)
    }
}

/// Id and fields of a stream's entry.
type Entry = (String, BTreeMap<String, Vec<u8>>);

impl Server for Valkey {
    fn dest(&self, at: SocketAddr) -> String {
        format!("valkey:{at}#mode=stream&maxlen=0")
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn restart(&mut self) {
        self.process = Self::spawn(self.address, self.dir.path());
        listens(self.address, &mut self.process);
    }

    fn payloads(&self) -> Vec<Vec<u8>> {
        let client = redis::Client::open(format!("redis://{}", self.address)).unwrap();
        let mut connection = client.get_connection().unwrap();
        // It reads its file before it answers.
        let entries = wait_for("the stream", Duration::from_secs(60), || {
            let mut command = redis::cmd("XRANGE");
            command.arg("xtcp").arg("-").arg("+").query::<Vec<Entry>>(&mut connection).ok()
        });
        entries.into_iter().map(|(_, mut fields)| fields.remove("data").expect("the rows")).collect()
    }
}

/// The numbers of all rows in payloads of `protobufList`, and how many came more than once.
fn numbers<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> (BTreeSet<u64>, usize) {
    let (mut numbers, mut repeats) = (BTreeSet::new(), 0);
    for row in payloads.flat_map(rows) {
        repeats += usize::from(!numbers.insert(row.record_counter));
    }
    (numbers, repeats)
}

fn rows(mut payload: &[u8]) -> Vec<XtcpFlatRecord> {
    let mut rows = Vec::new();
    while payload.has_remaining() {
        rows.extend(Envelope::decode_length_delimited(&mut payload).unwrap().row);
    }
    rows
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}

/// What is waiting for `victim`, bytes and rows.
fn waiting(agent: &Agent) -> (f64, f64) {
    let metrics = agent.metrics();
    let of = |name| metrics.sum(name, &["destination=\"victim\""]);
    (of("xtcp_destination_queue_bytes"), of("xtcp_destination_spool_rows"))
}

fn wait_until_calm(agent: &Agent) {
    wait_for("what waited to be sent", Duration::from_secs(120), || {
        let (bytes, rows) = waiting(agent);
        (bytes < 2_000_000.0 && rows < 1.0).then_some(())
    });
}

fn wait_until_rows_left(agent: &Agent) {
    wait_for("rows to leave", Duration::from_secs(60), || {
        let sent = agent.metrics().sum("xtcp_destination_rows_total", &["destination=\"victim\""]);
        (sent > 1_000.0).then_some(())
    });
}

fn held_connections(netns: &Netns) -> Vec<traffic::Pair> {
    netns.run_in(|| (0..PAIRS).map(|_| traffic::pair(Ipv4Addr::LOCALHOST)).collect())
}

/// Runs `work` for the length of an outage; the most memory that the agent had meanwhile, KiB, and the time it began and
/// ended.
fn while_it_lasts(agent: &Agent, mut work: impl FnMut()) -> (u64, [i64; 2]) {
    let (begin, started) = (now_ns(), Instant::now());
    work();
    let mut most = 0;
    while started.elapsed() < outage() {
        most = most.max(rss_kib(agent.process.pid()));
        thread::sleep(Duration::from_millis(50));
    }
    (most, [begin, now_ns()])
}

fn outlives_every_outage(server: &mut dyn Server, label: &str) {
    let netns = Netns::named("outage");
    let _held = held_connections(&netns);
    let dir = tempfile::tempdir().unwrap();
    let calm_file = dir.path().join("calm.pb");
    let proxy = Proxy::to(server.address());
    let victim = format!(
        "{}&name=victim&queue-bytes=8MiB&spool=overflow&timeout=2s&retry-max=1s",
        server.dest(proxy.address)
    );
    let calm = format!("file:{}#name=calm&queue-bytes=256MiB", calm_file.display());
    let spool = dir.path().join("spool");
    let mut agent = agent()
        .frequency("100ms")
        .dest(&[&victim, &calm])
        .args(&["--netns-include", netns.name.as_deref().unwrap(), "--shutdown-timeout", "60s"])
        .args(&["--spool-dir", &spool.to_string_lossy()])
        .start();

    let (calm_rss, calm_time) = while_it_lasts(&agent, || {});
    let bytes = agent.metrics().sum("xtcp_destination_bytes_total", &["destination=\"victim\""]);
    let rate = bytes / outage().as_secs_f64();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate, a few MB/s")]
    let tenth = (rate / 10.0) as u64;
    let mut phases = Vec::new();
    phases.push(("killed", while_it_lasts(&agent, || server.process().signal(Signal::SIGKILL))));
    server.process().wait(Duration::from_secs(10));
    server.restart();
    wait_until_calm(&agent);
    phases.push(("frozen", while_it_lasts(&agent, || server.process().signal(Signal::SIGSTOP))));
    server.process().signal(Signal::SIGCONT);
    wait_until_calm(&agent);
    phases.push(("refuses", while_it_lasts(&agent, || proxy.refuse(true))));
    proxy.refuse(false);
    wait_until_calm(&agent);
    phases.push(("slow", while_it_lasts(&agent, || proxy.limit(Some(tenth)))));
    let spooled = agent.metrics().sum("xtcp_destination_spooled_rows_total", &["destination=\"victim\""]);
    proxy.limit(None);
    wait_until_calm(&agent);
    let metrics = agent.metrics();
    for name in ["victim", "calm"] {
        let label = format!("destination=\"{name}\"");
        assert!(metrics.sum("xtcp_destination_dropped_rows_total", &[&label]) < 0.5, "{name} dropped rows");
    }
    let (status, _) = agent.terminate(Duration::from_secs(90));
    assert!(status.success(), "{}", agent.process.stderr.text());

    let file = std::fs::read(&calm_file).unwrap();
    let all = rows(&file);
    let (expected, _) = numbers(std::iter::once(file.as_slice()));
    let payloads = server.payloads();
    let (delivered, repeats) = numbers(payloads.iter().map(Vec::as_slice));
    let lost = expected.difference(&delivered).count();
    println!("{label}: {} rows, {lost} lost, {repeats} repeated, {spooled} through the disk", expected.len());
    assert_eq!((lost, delivered.difference(&expected).count()), (0, 0), "{label}");
    assert!(expected.len() > 20_000 / slowness() as usize, "{} rows", expected.len());

    let polls = |[begin, end]: [i64; 2]| {
        let within = all.iter().filter(|row| (begin..end).contains(&row.timestamp_ns));
        let polls: BTreeSet<u64> = within.map(|row| row.poll_number).collect();
        let seconds = Duration::from_nanos(u64::try_from(end - begin).unwrap()).as_secs_f64();
        f64::from(u32::try_from(polls.len()).unwrap()) / seconds
    };
    let usual = polls(calm_time);
    for (phase, (rss, time)) in phases {
        println!(
            "{label}, {phase}: {:.1} polls/s of {usual:.1}, memory {rss} KiB of {calm_rss}",
            polls(time)
        );
        assert!(polls(time) > usual * 0.7, "{label}, {phase}: {:.1} of {usual:.1} polls/s", polls(time));
        // Queue, what is under way, and what the allocator keeps.
        assert!(rss < calm_rss + 64 * 1024, "{label}, {phase}: {rss} KiB, calm {calm_rss}");
    }
}

#[test]
fn a_jetstream_that_is_killed_frozen_refuses_or_is_slow_loses_nothing() {
    let _alone = alone();
    outlives_every_outage(&mut Nats::start(), "JetStream");
}

#[test]
fn a_valkey_stream_that_is_killed_frozen_refuses_or_is_slow_loses_nothing() {
    let _alone = alone();
    outlives_every_outage(&mut Valkey::start(), "Valkey");
}

#[test]
fn an_agent_that_is_killed_loses_nothing_that_its_spool_had_accepted() {
    let _alone = alone();
    let netns = Netns::named("killed");
    let _held = held_connections(&netns);
    let dir = tempfile::tempdir().unwrap();
    let mut server = Valkey::start();
    let proxy = Proxy::to(server.address());
    let spool = dir.path().join("spool");
    let start = |mode: &str| {
        let victim =
            format!("{}&name=victim&spool={mode}&timeout=2s&retry-max=1s", server.dest(proxy.address));
        let agent = agent()
            .frequency("100ms")
            .dest(&[&victim])
            .args(&["--netns-include", netns.name.as_deref().unwrap(), "--shutdown-timeout", "60s"])
            .args(&["--spool-dir", &spool.to_string_lossy()])
            .spawn();
        // Not ready: its destination may refuse.
        wait_for("the agent's metrics", Duration::from_secs(60), || http::get(agent.prom, "/metrics").ok());
        agent
    };
    let accepted = |agent: &Agent| {
        let metrics = agent.metrics();
        let of = |name| metrics.sum(name, &["destination=\"victim\""]);
        // What is in memory only is on its way to the disk.
        (of("xtcp_destination_spooled_rows_total"), of("xtcp_destination_accepted_rows_total"))
    };
    // Twice with everything on disk first, while nothing can leave; then in memory only.
    let mut in_spool = 0.0;
    for _ in 0..2 {
        let agent = start("always");
        proxy.refuse(true);
        wait_for("rows on disk", Duration::from_secs(30), || (accepted(&agent).0 > 3_000.0).then_some(()));
        in_spool += accepted(&agent).0;
        agent.process.signal(Signal::SIGKILL);
    }
    proxy.refuse(false);
    let agent = start("always");
    wait_until_calm(&agent);
    agent.process.signal(Signal::SIGKILL);
    drop(agent);
    let received = |server: &Valkey| {
        let payloads = server.payloads();
        numbers(payloads.iter().map(Vec::as_slice))
    };
    let (delivered, repeats) = received(&server);
    let first_rows = delivered.len();
    println!(
        "{first_rows} rows delivered, {repeats} twice; {in_spool} were on disk when the agent was killed"
    );
    #[expect(clippy::cast_precision_loss, reason = "thousands of rows")]
    let enough = first_rows as f64 >= in_spool;
    assert!(enough, "{first_rows} rows of at least {in_spool}");
    let gaps = |numbers: &BTreeSet<u64>| -> u64 {
        numbers.iter().zip(numbers.iter().skip(1)).map(|(one, next)| next - one - 1).sum()
    };
    // Rows that were numbered and not yet accepted are the gaps: no more than a batch and what was on its way to it.
    println!("{} rows were not yet accepted at three kills", gaps(&delivered));

    // Without a spool: what memory held is lost, and the gap in the numbers says how much.
    let agent = start("off");
    wait_until_rows_left(&agent);
    proxy.refuse(true);
    wait_for("rows in memory", Duration::from_secs(30), || (waiting(&agent).0 > 1_000_000.0).then_some(()));
    let before = received(&server).0;
    let in_memory = accepted(&agent).1;
    agent.process.signal(Signal::SIGKILL);
    drop(agent);
    proxy.refuse(false);
    let mut agent = start("off");
    wait_until_rows_left(&agent);
    agent.terminate(Duration::from_secs(90));
    let after = received(&server).0;
    let resumed = *after.difference(&before).next().expect("rows of the last agent");
    let gap = resumed - before.last().unwrap() - 1;
    println!(
        "without a spool: {in_memory} rows accepted by the agent that was killed, {gap} of them lost by the gap"
    );
    #[expect(clippy::cast_precision_loss, reason = "thousands of rows")]
    let gap = gap as f64;
    assert!(gap > 1_000.0 && gap <= in_memory + 2_000.0, "{gap} of {in_memory}");
    server.process().terminate(Duration::from_secs(10));
}

#[test]
fn a_full_disk_costs_what_it_cannot_hold_and_heals_by_itself() {
    let _alone = alone();
    let netns = Netns::named("full");
    let _held = held_connections(&netns);
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&dir.path().join("disk"), 4 << 20);
    let calm_file = dir.path().join("calm.pb");
    let server = Valkey::start();
    let proxy = Proxy::to(server.address());
    let victim = format!(
        "{}&name=victim&spool=overflow&spool-bytes=8MiB&queue-bytes=2MiB&timeout=2s&retry-max=1s",
        server.dest(proxy.address)
    );
    let calm = format!("file:{}#name=calm&queue-bytes=256MiB", calm_file.display());
    let mut agent = agent()
        .frequency("100ms")
        .dest(&[&victim, &calm])
        .args(&["--netns-include", netns.name.as_deref().unwrap(), "--shutdown-timeout", "60s"])
        .args(&["--spool-dir", &disk.0.to_string_lossy()])
        .start();
    proxy.refuse(true);
    let of = |agent: &Agent, name| agent.metrics().sum(name, &["destination=\"victim\""]);
    wait_for("the disk to be full, and rows to be dropped", Duration::from_secs(60), || {
        let lost = of(&agent, "xtcp_destination_dropped_rows_total");
        (of(&agent, "xtcp_destination_spool_errors_total") > 0.0 && lost > 2_000.0).then_some(())
    });
    proxy.refuse(false);
    wait_until_calm(&agent);
    let dropped = of(&agent, "xtcp_destination_dropped_rows_total");
    let errors = of(&agent, "xtcp_destination_spool_errors_total");
    // It is used again.
    let spooled = of(&agent, "xtcp_destination_spooled_rows_total");
    proxy.refuse(true);
    wait_for("the spool to be used again", Duration::from_secs(30), || {
        (of(&agent, "xtcp_destination_spooled_rows_total") > spooled).then_some(())
    });
    proxy.refuse(false);
    wait_until_calm(&agent);
    let dropped_later = of(&agent, "xtcp_destination_dropped_rows_total");
    let (status, _) = agent.terminate(Duration::from_secs(90));
    assert!(status.success(), "{}", agent.process.stderr.text());
    let (expected, _) = numbers(std::iter::once(std::fs::read(&calm_file).unwrap().as_slice()));
    let (delivered, repeats) = numbers(server.payloads().iter().map(Vec::as_slice));
    let lost = expected.difference(&delivered).count();
    println!(
        "{} rows, {lost} lost, {dropped} counted while the disk was full ({errors} failed writes), {repeats} repeated",
        expected.len()
    );
    #[expect(clippy::cast_precision_loss, reason = "thousands of rows")]
    let lost = lost as f64;
    assert!((lost - dropped_later).abs() < 0.5, "{lost} lost, {dropped_later} counted");
}

/// A file system in memory of so many bytes; unmounted on drop.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path, bytes: u64) -> Self {
        std::fs::create_dir(at).unwrap();
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("none"), at, Some("tmpfs"), flags, Some(format!("size={bytes}").as_str()))
            .unwrap();
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
