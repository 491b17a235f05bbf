//! TCP traffic inside a namespace: this program again, started there with a hidden command. All of it stays on the
//! namespace's loopback, a few connections a second at most.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::child::Child;

/// Who answers at which port.
const ECHO: u16 = 7000;
const WEB: u16 = 8080;
/// Nobody listens here.
const CLOSED: u16 = 9999;

/// What happens in a namespace.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Role {
    /// Short connections, each a request and an answer.
    Short,
    /// Connections that carry data, for long or for seconds.
    Long,
    /// Connections that are refused or reset.
    Trouble,
}

impl Role {
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Short => "a short connection every 2 seconds, 100 bytes there and 5000 back",
            Self::Long => {
                "connections that carry 64 kB/s: one over IPv4 that stays, one over IPv6 every 4 seconds"
            }
            Self::Trouble => "a refused and a reset connection every 4 seconds",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "long",
            Self::Trouble => "trouble",
        }
    }
}

/// Starts the traffic of a namespace; it ends with the handle.
pub(crate) fn start(netns: &str, role: Role) -> Result<Child> {
    let itself = std::env::current_exe().context("find this program")?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", netns]).arg(itself).args(["demo-traffic", role.word()]);
    Child::start(command.stdin(Stdio::null()).stdout(Stdio::null()))
}

/// Runs inside the namespace until it is killed.
pub(crate) fn main(role: Role) -> Result<()> {
    // The one that started us may be killed without a chance to end us.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("ask for a signal at the parent's death")?;
    match role {
        Role::Short => {
            serve(Ipv4Addr::LOCALHOST, WEB, answer)?;
            repeat(Duration::from_secs(2), || request(WEB))
        }
        Role::Long => {
            serve(Ipv4Addr::LOCALHOST, ECHO, echo)?;
            serve(Ipv6Addr::LOCALHOST, ECHO, echo)?;
            thread("stays", || stream((Ipv4Addr::LOCALHOST, ECHO).into(), u32::MAX))?;
            repeat(Duration::from_secs(1), || stream((Ipv6Addr::LOCALHOST, ECHO).into(), 12))
        }
        Role::Trouble => {
            serve(Ipv4Addr::LOCALHOST, WEB, answer)?;
            repeat(Duration::from_secs(4), || {
                // The refusal is the point.
                let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, CLOSED));
                reset(WEB)
            })
        }
    }
}

fn repeat(pause: Duration, mut action: impl FnMut() -> std::io::Result<()>) -> Result<()> {
    loop {
        action().context("make traffic")?;
        std::thread::sleep(pause);
    }
}

fn thread(name: &str, body: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> Result<()> {
    // A connection that breaks when the demonstration ends is no news.
    let body = move || drop(body());
    std::thread::Builder::new().name(name.to_owned()).spawn(body).context("start a thread")?;
    Ok(())
}

fn serve(
    address: impl Into<std::net::IpAddr>,
    port: u16,
    with: fn(TcpStream) -> std::io::Result<()>,
) -> Result<()> {
    let address = SocketAddr::new(address.into(), port);
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    thread("server", move || {
        for stream in listener.incoming() {
            let stream = stream?;
            let _ =
                std::thread::Builder::new().name("connection".to_owned()).spawn(move || drop(with(stream)));
        }
        Ok(())
    })
}

/// 100 bytes in, 5000 out, then the peer closes.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 100])?;
    stream.write_all(&[b'y'; 5000])?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    std::io::copy(&mut stream.try_clone()?, &mut stream).map(drop)
}

fn request(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(&[b'x'; 100])?;
    stream.read_exact(&mut [0; 5000])?;
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

/// Closing with unread bytes makes the kernel send a reset.
fn reset(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(&[b'x'; 100])?;
    stream.read_exact(&mut [0; 1])
}

/// Four blocks a second there and back.
fn stream(to: SocketAddr, blocks: u32) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    let mut block = vec![b'z'; 16 * 1024];
    for _ in 0..blocks {
        stream.write_all(&block)?;
        stream.read_exact(&mut block)?;
        std::thread::sleep(Duration::from_millis(250));
    }
    Ok(())
}
