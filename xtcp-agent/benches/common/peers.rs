//! Those at the other end: servers as processes of their own, receivers as threads, each ended with its handle.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

/// Receivers' threads, and those of librdkafka's mock cluster.
const OTHERS: [&str; 2] = ["bench-peer", "rdk:mock"];

/// CPU time of the threads that stand for others.
pub(crate) fn cpu() -> Duration {
    let threads = fs::read_dir("/proc/self/task").expect("this process has threads");
    threads
        .filter_map(|thread| {
            let thread = thread.ok()?.path();
            // It may end meanwhile.
            let name = fs::read_to_string(thread.join("comm")).ok()?;
            let times = fs::read_to_string(thread.join("schedstat")).ok()?;
            let ns = times.split(' ').next()?.parse().ok()?;
            OTHERS.contains(&name.trim()).then(|| Duration::from_nanos(ns))
        })
        .sum()
}

/// A server that ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn start(program: &str, args: &[&str], port: u16) -> Self {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(command.spawn().unwrap_or_else(|error| panic!("{program}: {error}")));
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{program} does not listen on port {port}");
            thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// All of them.
pub(crate) struct Peers {
    folder: PathBuf,
    nats: u16,
    valkey: u16,
    udp: u16,
    tcp: u16,
    kafka: MockCluster<'static, DefaultProducerContext>,
    _servers: [Server; 2],
}

impl Peers {
    /// What they keep is kept in `folder`.
    pub(crate) fn start(folder: &Path) -> Self {
        let (nats, valkey) = (free_port(), free_port());
        let folder_text = folder.to_string_lossy().into_owned();
        let servers = [
            Server::start("nats-server", &["-a", "127.0.0.1", "-p", &nats.to_string()], nats),
            Server::start(
                "redis-server",
                &["--bind", "127.0.0.1", "--port", &valkey.to_string(), "--save", "", "--dir", &folder_text],
                valkey,
            ),
        ];
        let kafka = MockCluster::new(1).expect("a mock cluster");
        kafka.create_topic("xtcp", 1, 1).expect("a topic");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
        let unix = UnixListener::bind(folder.join("socket")).expect("bound");
        let ports =
            (udp.local_addr().expect("an address").port(), tcp.local_addr().expect("an address").port());
        receiver(move || {
            let mut datagram = vec![0; 1 << 16];
            while udp.recv(&mut datagram).is_ok() {}
        });
        receiver(move || tcp.incoming().flatten().for_each(swallow));
        receiver(move || unix.incoming().flatten().for_each(swallow));
        Self { folder: folder.to_owned(), nats, valkey, udp: ports.0, tcp: ports.1, kafka, _servers: servers }
    }

    /// Names and addresses, the floor first.
    pub(crate) fn addresses(&self) -> Vec<(&'static str, String)> {
        let Self { folder, nats, valkey, udp, tcp, .. } = self;
        let folder = folder.display();
        vec![
            ("null", "null".to_owned()),
            ("kafka (default path)", format!("kafka:{}", self.kafka.bootstrap_servers())),
            ("file", format!("file:{folder}/rows.pb")),
            ("tcp", format!("tcp:127.0.0.1:{tcp}")),
            ("unix", format!("unix:{folder}/socket")),
            ("udp", format!("udp:127.0.0.1:{udp}")),
            ("nats", format!("nats:127.0.0.1:{nats}")),
            ("valkey", format!("valkey:127.0.0.1:{valkey}")),
        ]
    }
}

fn receiver(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name("bench-peer".to_owned()).spawn(work).expect("a thread");
}

fn swallow(mut stream: impl Read) {
    let mut bytes = vec![0; 1 << 16];
    while stream.read(&mut bytes).is_ok_and(|len| len > 0) {}
}
