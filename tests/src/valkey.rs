//! A real Redis server on a loopback port of its own, and its own client.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::authority::{Authority, Identity};
use crate::host::{free_port, wait_for};
use crate::process::{self, Process};

/// How a server is to be reached.
#[derive(Clone, Debug, Default)]
struct Secured {
    client: Vec<String>,
}

/// A running redis-server; killed on drop.
#[derive(Debug)]
pub struct RedisServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// The process, to stop and continue it.
    pub process: Process,
    secured: Secured,
    dir: TempDir,
}

impl RedisServer {
    /// Starts one on a free port, with these settings beside its own.
    pub fn start(settings: &[&str]) -> Self {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        Self::start_on(free_port(), &settings, Secured::default())
    }

    /// Starts one that speaks TLS only, and wants a client's certificate of the same authority.
    pub fn start_secured(authority: &Authority, server: &Identity, client: &Identity) -> Self {
        let shown = |path: &PathBuf| path.display().to_string();
        let mut settings = Vec::new();
        let mut secured = Secured { client: vec!["--tls".to_owned()] };
        for (server_option, client_option, path) in [
            ("--tls-ca-cert-file", "--cacert", authority.ca()),
            ("--tls-cert-file", "--cert", server.cert.clone()),
            ("--tls-key-file", "--key", server.key.clone()),
        ] {
            settings.extend([server_option.to_owned(), shown(&path)]);
            let path = match client_option {
                "--cert" => client.cert.clone(),
                "--key" => client.key.clone(),
                _ => path,
            };
            secured.client.extend([client_option.to_owned(), shown(&path)]);
        }
        Self::start_on(free_port(), &settings, secured)
    }

    fn start_on(port: u16, settings: &[String], secured: Secured) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let process = launch(address, settings, !secured.client.is_empty(), &dir);
        Self { address, process, secured, dir }
    }

    /// Kills it, and starts it again without what it held.
    pub fn restart(&mut self) {
        let port = self.address;
        let secured = !self.secured.client.is_empty();
        assert!(!secured, "a secured server is not restarted by these tests");
        self.kill();
        self.process = launch(port, &[], false, &self.dir);
    }

    /// Ends it, as a crash would.
    pub fn kill(&mut self) {
        self.process.signal(nix::sys::signal::Signal::SIGKILL);
        self.process.wait(Duration::from_secs(10)).expect("killed");
    }

    /// Arguments of redis-cli for it.
    pub fn client(&self, command: &[&str]) -> Vec<String> {
        let mut argv: Vec<String> =
            vec!["redis-cli".to_owned(), "-h".to_owned(), self.address.ip().to_string()];
        argv.extend(["-p".to_owned(), self.address.port().to_string()]);
        argv.extend(self.secured.client.iter().cloned());
        argv.extend(command.iter().map(|&word| word.to_owned()));
        argv
    }

    /// What redis-cli prints for a command.
    pub fn ask(&self, command: &[&str]) -> String {
        process::run(&self.client(command))
    }
}

fn launch(address: SocketAddr, settings: &[String], secured: bool, dir: &TempDir) -> Process {
    let port = address.port().to_string();
    let (plain, tls) = if secured { ("0", port.as_str()) } else { (port.as_str(), "0") };
    let folder = dir.path().to_string_lossy();
    let mut argv: Vec<String> = ["redis-server", "--bind", "127.0.0.1", "--port", plain, "--tls-port", tls]
        .into_iter()
        .chain(["--save", "", "--appendonly", "no", "--dir", &folder])
        .map(str::to_owned)
        .collect();
    argv.extend(settings.iter().cloned());
    let mut process = Process::start("redis-server", &argv);
    wait_for(
        "redis-server to listen (Debian: apt-get install redis-server)",
        Duration::from_secs(20),
        || {
            if let Some(status) = process.try_wait() {
                panic!("redis-server ended with {status}: {}", process.stdout.text());
            }
            TcpStream::connect(address).ok()
        },
    );
    process
}
