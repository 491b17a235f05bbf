//! A process of its own for tests in which connections belong to somebody else.
//!
//! - `xtcp-test-helper ADDRESS` connects there, says `connected`, and holds the connection. At a byte on its standard input
//!   it exits by itself.
//! - `xtcp-test-helper half-open CGROUP PORT` joins the cgroup, opens listeners on the loopback addresses that wait for data
//!   before they accept, connects to each, and says `connected`: the children stay in SYN-RECV. The IPv4 client is marked with
//!   0x13, and its child is too where `tcp_fwmark_accept` is set.
//! - `xtcp-test-helper listen CGROUP PORT` joins the cgroup, listens on every IPv4 address, and says `connected`.
//! - `xtcp-test-helper serve ADDRESS` listens there, says `listening`, accepts one connection, says `accepted`, and holds
//!   both.
//! - `xtcp-test-helper exec ADDRESS` connects, says `becomes` and becomes `sleep` with the connection as its standard input.
//! - `xtcp-test-helper pass ADDRESS` connects, starts `sleep` with the connection as its standard input, says `passed` and
//!   the id of that process, and ends. Whoever called it ends that process.
//!
//! It also ends when its standard input does, so it never outlives the test.
#![allow(clippy::print_stdout, reason = "it answers on standard output")]

use std::io::{Read, stdin};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use xtcp_tests::traffic::defer_accept;

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [address] => {
            hold(connect(address)?);
        }
        ["half-open", cgroup, port] => {
            let port = port.parse().with_context(|| format!("{port} is no port"))?;
            join(Path::new(cgroup))?;
            hold([
                half_open((Ipv4Addr::LOCALHOST, port).into())?,
                half_open((Ipv6Addr::LOCALHOST, port).into())?,
            ]);
        }
        ["listen", cgroup, port] => {
            let port: u16 = port.parse().with_context(|| format!("{port} is no port"))?;
            join(Path::new(cgroup))?;
            hold(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).context("listen")?);
        }
        ["serve", address] => {
            let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
            println!("listening");
            let accepted = listener.accept().context("accept")?;
            println!("accepted");
            hold((listener, accepted));
        }
        ["exec", address] => {
            let mut sleep = sleep(connect(address)?);
            println!("becomes");
            // It returns only if it fails.
            return Err(sleep.exec()).context("become sleep");
        }
        ["pass", address] => {
            let child = sleep(connect(address)?).spawn().context("start sleep")?;
            println!("passed {}", child.id());
        }
        _ => {
            bail!("usage: xtcp-test-helper ADDRESS, serve|exec|pass ADDRESS, or half-open|listen CGROUP PORT")
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn connect(address: &str) -> Result<TcpStream> {
    TcpStream::connect(address).with_context(|| format!("connect to {address}"))
}

/// A process that holds the connection and nothing else.
fn sleep(connection: TcpStream) -> Command {
    let mut sleep = Command::new("sleep");
    sleep.arg("600").stdin(OwnedFd::from(connection)).stdout(Stdio::null()).stderr(Stdio::null());
    sleep
}

/// Until a byte on standard input, or its end. Ends with all open: the kernel closes it, not this program.
fn hold<T>(open: T) {
    println!("connected");
    let _ = stdin().read(&mut [0; 1]);
    std::mem::forget(open);
}

fn join(cgroup: &Path) -> Result<()> {
    std::fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
        .with_context(|| format!("join the cgroup {}", cgroup.display()))
}

/// A listener and its client; the connection between them waits for data.
fn half_open(address: SocketAddr) -> Result<[Socket; 2]> {
    let new = || Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP));
    let listener = new().context("open a socket")?;
    // Seconds; longer than any test takes.
    defer_accept(&listener, 3_600).context("set TCP_DEFER_ACCEPT")?;
    listener.bind(&address.into()).with_context(|| format!("bind {address}"))?;
    listener.listen(16).with_context(|| format!("listen on {address}"))?;
    let client = new().context("open a socket")?;
    if address.is_ipv4() {
        client.set_mark(0x13).context("mark a socket")?;
    }
    client.connect(&address.into()).with_context(|| format!("connect to {address}"))?;
    Ok([listener, client])
}
