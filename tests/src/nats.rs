//! A real nats-server on a loopback port of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use tempfile::TempDir;

use crate::host::{free_port, wait_for};
use crate::process::Process;

/// A running nats-server; killed on drop.
#[derive(Debug)]
pub struct NatsServer {
    /// Where it listens.
    pub address: SocketAddr,
    process: Process,
    _dir: TempDir,
}

impl NatsServer {
    /// Starts one on a free port.
    pub fn start() -> Self {
        Self::start_on(free_port())
    }

    /// Starts one on `port`, for instance where an agent has been told that one will be.
    pub fn start_on(port: u16) -> Self {
        Self::configured(port, "")
    }

    /// Starts one on `port` with more in its configuration.
    pub fn configured(port: u16, more: &str) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let config = dir.path().join("nats.conf");
        // A subscriber that counts millions of events must not be cut off for being slow: a loss in a test is then the
        // agent's.
        let text = format!("max_pending: 2147483648\nwrite_deadline: \"120s\"\n{more}\n");
        std::fs::write(&config, text).expect("the configuration can be written");
        let argv =
            ["nats-server", "-c", &config.to_string_lossy(), "-a", "127.0.0.1", "-p", &port.to_string()];
        let mut process = Process::start("nats-server", &argv.map(str::to_owned));
        wait_for(
            "nats-server to listen (Debian: apt-get install nats-server)",
            Duration::from_secs(10),
            || {
                if let Some(status) = process.try_wait() {
                    panic!("nats-server ended with {status}: {}", process.stderr.text());
                }
                TcpStream::connect(address).ok()
            },
        );
        Self { address, process, _dir: dir }
    }

    /// Stops it: it stays where it is, and answers nobody.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.thaw();
    }

    /// Ends it, as a crash would.
    pub fn kill(self) {
        drop(self.process);
    }

    /// The value of `--events` for it.
    pub fn url(&self) -> String {
        format!("nats:{}", self.address)
    }
}
