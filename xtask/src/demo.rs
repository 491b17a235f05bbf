//! The demonstration: three namespaces with traffic, the agent, and a digest of what it says of them. Everything that
//! it makes is owned by a guard: it goes away at the end, after Ctrl-C, an error or a panic.

mod child;
mod digest;
mod netns;
mod render;
pub(crate) mod traffic;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::child::Child;
use self::digest::Digest;
use self::netns::Netns;
use self::traffic::Role;
use crate::command::shown;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The agent's binary
    #[arg(long)]
    pub(crate) agent: PathBuf,
    /// End after this many seconds
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
    /// Arguments of the agent
    #[arg(last = true)]
    pub(crate) agent_args: Vec<String>,
}

/// The namespaces, and what happens in each.
const STAGE: [(&str, Role); 3] =
    [("xtcp-demo-1", Role::Short), ("xtcp-demo-2", Role::Long), ("xtcp-demo-3", Role::Trouble)];

/// Held while a demonstration runs: only then are the namespaces somebody's.
const LOCK: &str = "/run/xtcp-demo.lock";

pub(crate) fn main(options: &Options) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("catch signals")?;
    }
    let lock = File::create(LOCK).with_context(|| format!("create {LOCK}"))?;
    let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else {
        bail!("another demonstration is running: it holds {LOCK}");
    };
    Demo { stop }.play(options)
}

struct Demo {
    stop: Arc<AtomicBool>,
}

impl Demo {
    fn play(&self, options: &Options) -> Result<()> {
        let (metrics, grpc) = (free_port()?, free_port()?);
        let (mut agent, output) = start_agent(options, metrics, grpc)?;
        let digest = Arc::new(Mutex::new(Digest::new(STAGE.map(|(name, _)| name))));
        let ended = digest_in_background(output, Arc::clone(&digest))?;
        self.wait_until_ready(&mut agent, metrics)?;
        if self.asked_to_stop() {
            return Ok(());
        }
        println!("--- the agent watches; now three namespaces come to life");

        let mut namespaces = Vec::new();
        let mut traffic = Vec::new();
        for (name, role) in STAGE {
            let netns = Netns::create(name)?;
            let inode = netns.inode()?;
            digest.lock().unwrap_or_else(PoisonError::into_inner).own(inode, name);
            namespaces.push(netns);
            traffic.push(traffic::start(name, role)?);
            println!("--- ip netns add {name}: {}", role.description());
        }
        println!(
            "--- metrics: http://127.0.0.1:{metrics}/metrics   gRPC: 127.0.0.1:{grpc}   stop: Ctrl-C\n\
             --- row: what a socket is; event: what happened; shortened, a row has more than 100 fields"
        );
        let ends = options.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let outcome = self.watch(&mut agent, &ended, ends);

        let _ = writeln!(std::io::stdout(), "--- stopping: traffic, namespaces, agent");
        digest.lock().unwrap_or_else(PoisonError::into_inner).expect_the_end();
        drop(traffic);
        drop(namespaces);
        // The namespaces' end is worth seeing too, where events come.
        wait(Duration::from_secs(3), || seen(&digest, Digest::all_destroyed) || agent.has_ended());
        drop(agent);
        let _ = ended.recv_timeout(Duration::from_secs(2));
        let closing = seen(&digest, Digest::closing);
        let _ = writeln!(std::io::stdout(), "{closing}");
        outcome?;
        if !seen(&digest, Digest::saw_rows) {
            bail!("the agent gave no row of the demonstration's namespaces: see `xtcp2-agent check`");
        }
        Ok(())
    }

    /// Until the agent says that it is ready; a slow one is not an error.
    fn wait_until_ready(&self, agent: &mut Child, metrics: u16) -> Result<()> {
        wait(Duration::from_secs(10), || self.asked_to_stop() || agent.has_ended() || is_ready(metrics));
        if let Some(status) = agent.try_status() {
            bail!("the agent ended with {status}");
        }
        Ok(())
    }

    /// Until somebody or the clock ends it; an error when the agent ends first.
    fn watch(&self, agent: &mut Child, ended: &Receiver<()>, ends: Option<Instant>) -> Result<()> {
        loop {
            let closed = ended.recv_timeout(Duration::from_millis(100)) != Err(RecvTimeoutError::Timeout);
            if self.asked_to_stop() || ends.is_some_and(|ends| Instant::now() >= ends) {
                return Ok(());
            }
            if closed {
                // An agent that ends closes its output a little before.
                wait(Duration::from_secs(1), || agent.has_ended());
            }
            match agent.try_status() {
                Some(status) => bail!("the agent ended with {status}"),
                None if closed => bail!("nobody reads this output any more"),
                None => {}
            }
        }
    }

    fn asked_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn start_agent(options: &Options, metrics: u16, grpc: u16) -> Result<(Child, ChildStdout)> {
    let mut command = Command::new(&options.agent);
    let defaults = [
        ("--frequency", "5s".to_owned()),
        ("--envelope-flush-age", "100ms".to_owned()),
        ("--dest", "stdout".to_owned()),
        ("--marshal", "jsonl".to_owned()),
        ("--events", "stdout:".to_owned()),
        ("--events-marshal", "jsonl".to_owned()),
        ("--prom-listen", format!("127.0.0.1:{metrics}")),
        ("--grpc-port", grpc.to_string()),
    ];
    let given = |flag: &str| {
        let is = |argument: &String| argument.split('=').next() == Some(flag);
        options.agent_args.iter().any(is)
    };
    for (flag, value) in defaults.iter().filter(|(flag, _)| !given(flag)) {
        command.args([flag, value.as_str()]);
    }
    command.args(&options.agent_args).stdin(Stdio::null()).stdout(Stdio::piped());
    println!("$ {}", shown(&command));
    let mut agent = Child::start(&mut command)?;
    let output = agent.take_stdout().context("the agent has no output")?;
    Ok((agent, output))
}

/// Reads the agent's output to its end; the receiver learns of the end.
fn digest_in_background(output: ChildStdout, digest: Arc<Mutex<Digest>>) -> Result<Receiver<()>> {
    let (done, ended) = sync_channel(1);
    let read = move || {
        let mut terminal = std::io::stdout();
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { break };
            let shown = digest.lock().unwrap_or_else(PoisonError::into_inner).take(&line, Instant::now());
            if shown.is_some_and(|shown| writeln!(terminal, "{shown}").is_err()) {
                break;
            }
        }
        drop(done);
    };
    std::thread::Builder::new().name("digest".to_owned()).spawn(read).context("start a thread")?;
    Ok(ended)
}

fn seen<T>(digest: &Mutex<Digest>, ask: impl Fn(&Digest) -> T) -> T {
    ask(&digest.lock().unwrap_or_else(PoisonError::into_inner))
}

fn wait(limit: Duration, mut until: impl FnMut() -> bool) {
    let start = Instant::now();
    while !until() && start.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A port that nobody has right now, so that a demonstration runs beside an agent.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}

fn is_ready(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}
