//! `load tcp`: servers that answer, clients that connect, hold and close.

mod client;
mod server;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use super::options::{Close, Role, TcpOptions};
use super::pace::{Ended, Pace, Stop};
use super::tally::{Count, Faults, progress, rate, seconds};
use super::{LoadError, make_room, say, system};
use crate::netns::enter;
use server::Listener;

/// Connections that one listener's address and port can have from one address, with room to spare (28 232 by default).
const PER_LISTENER: u64 = 20_000;
/// Listeners of short-lived connections: each port that was used waits in TIME_WAIT.
const FOR_SHORT_ONES: u64 = 4;
/// How long servers may take to see their clients' ends.
const GRACE: Duration = Duration::from_secs(5);

/// What was done.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// Connections that clients opened.
    connections: u64,
    /// Connections that servers accepted.
    accepted: u64,
    /// Of both ends, how many were closed; each connection has two.
    closed: u64,
    /// Messages that clients sent and got back.
    messages: u64,
    /// Bytes that clients sent.
    bytes_sent: u64,
    /// Bytes that clients received.
    bytes_received: u64,
    /// Bytes that servers received, and sent back.
    bytes_served: u64,
    /// What went wrong.
    pub(super) errors: u64,
    /// From the first connect on.
    seconds: f64,
    /// Connections opened, a second.
    connections_per_s: f64,
    /// Why it ended.
    ended_by: Ended,
}

/// What all threads share.
struct Load {
    options: TcpOptions,
    /// The end of the clients.
    stop: Stop,
    /// The end of the servers, after that of the clients.
    served: Stop,
    pace: Pace,
    next: Count,
    connections: Count,
    accepted: Count,
    closed: Count,
    messages: Count,
    bytes_sent: Count,
    bytes_received: Count,
    bytes_served: Count,
    faults: Faults,
}

/// Opens connections as asked for, and closes them all.
pub(super) fn run(options: &TcpOptions, stop: &Stop) -> Result<Summary, LoadError> {
    let server_netns = options.server_netns.as_deref().or(options.netns.as_deref()).map(netns_path);
    let client_netns = options.client_netns.as_deref().or(options.netns.as_deref()).map(netns_path);
    if options.role == Role::Both && server_netns != client_netns && options.address.is_none() {
        let text = "--address is needed where servers and clients are in different namespaces: loopback does not join them";
        return Err(LoadError::Options(text.to_owned()));
    }
    let ends = if options.role == Role::Both { 2 } else { 1 };
    let addresses = addresses(options)?;
    make_room(ends * options.connections + u64::try_from(addresses.len()).unwrap_or(0))?;
    let load = Arc::new(Load {
        options: options.clone(),
        stop: stop.clone(),
        served: stop.apart(),
        pace: Pace::new(options.common.rate),
        next: Count::default(),
        connections: Count::default(),
        accepted: Count::default(),
        closed: Count::default(),
        messages: Count::default(),
        bytes_sent: Count::default(),
        bytes_received: Count::default(),
        bytes_served: Count::default(),
        faults: Faults::default(),
    });
    let began = Instant::now();
    if let Some(time) = options.common.time {
        stop.end_after(time);
    }
    load.go(addresses, server_netns.as_deref(), client_netns.as_deref())?;
    let took = began.elapsed();
    let (errors, connections) = (load.faults.number(), load.connections.get());
    if let Some(fatal) = load.faults.take_fatal() {
        if connections == 0 {
            return Err(fatal);
        }
        say(&format!("error: {fatal}"));
    }
    Ok(Summary {
        connections,
        accepted: load.accepted.get(),
        closed: load.closed.get(),
        messages: load.messages.get(),
        bytes_sent: load.bytes_sent.get(),
        bytes_received: load.bytes_received.get(),
        bytes_served: load.bytes_served.get(),
        errors,
        seconds: seconds(took),
        connections_per_s: rate(connections, took),
        ended_by: stop.why(),
    })
}

/// A namespace as people name it.
fn netns_path(named: &Path) -> PathBuf {
    // Joining an absolute path gives that path.
    if named.components().count() > 1 { named.to_owned() } else { Path::new("/run/netns").join(named) }
}

/// Where servers listen, one behind the other.
fn addresses(options: &TcpOptions) -> Result<Vec<SocketAddr>, LoadError> {
    let enough = if options.short_lived { FOR_SHORT_ONES } else { 1 };
    let number =
        options.listeners.map_or_else(|| options.connections.div_ceil(PER_LISTENER).max(enough), u64::from);
    let number = if options.role == Role::Client && options.listeners.is_none() { 1 } else { number };
    (0..number)
        .map(|number| {
            let ip: IpAddr = options.address.unwrap_or_else(|| options.common.family.loopback(number));
            let port = match options.port {
                0 => Some(0),
                first => u16::try_from(number).ok().and_then(|number| first.checked_add(number)),
            };
            let port = port.ok_or_else(|| {
                LoadError::Options("--port and --listeners lead beyond port 65535".to_owned())
            })?;
            Ok((ip, port).into())
        })
        .collect()
}

impl Load {
    fn go(
        self: &Arc<Self>,
        mut addresses: Vec<SocketAddr>,
        server: Option<&Path>,
        client: Option<&Path>,
    ) -> Result<(), LoadError> {
        thread::scope(|scope| {
            let done = self.stop.apart();
            let _end = done.token().clone().drop_guard();
            if !self.options.common.quiet {
                let thread = thread::Builder::new().name("load-progress".to_owned());
                thread
                    .spawn_scoped(scope, move || progress(&done, || self.line()))
                    .map_err(system("start a thread"))?;
            }
            // Servers end even where clients could not begin.
            let _served = self.served.token().clone().drop_guard();
            let mut servers = None;
            if self.options.role != Role::Client {
                let (bound_to, bound) = sync_channel(1);
                let wanted = std::mem::take(&mut addresses);
                let thread = thread::Builder::new().name("load-server".to_owned());
                let thread = thread.spawn_scoped(scope, move || self.serve(&wanted, server, &bound_to));
                let thread = thread.map_err(system("start a thread"))?;
                match bound.recv() {
                    Ok(found) => addresses = found,
                    // It says itself why not.
                    Err(_) => return join(thread),
                }
                if !self.options.common.quiet {
                    say(&format!("listening on {}", shown(&addresses)));
                }
                servers = Some(thread);
            }
            let clients = if self.options.role == Role::Server {
                self.stop.wait();
                Ok(())
            } else {
                let thread = thread::Builder::new().name("load-client".to_owned());
                let thread = thread.spawn_scoped(scope, move || self.connect(addresses, client));
                thread.map_err(system("start a thread")).and_then(join)
            };
            if self.options.role == Role::Both {
                self.wait_for_servers();
            }
            self.served.end(Ended::Count);
            clients.and(servers.map_or(Ok(()), join))
        })
    }

    /// Every client has closed: until the servers have seen it.
    fn wait_for_servers(&self) {
        let until = Instant::now() + GRACE;
        while self.closed.get() < 2 * self.connections.get() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn serve(
        self: &Arc<Self>,
        wanted: &[SocketAddr],
        netns: Option<&Path>,
        bound: &SyncSender<Vec<SocketAddr>>,
    ) -> Result<(), LoadError> {
        let runtime = settle(netns)?;
        LocalSet::new().block_on(&runtime, async {
            let mut listeners = Vec::with_capacity(wanted.len());
            for address in wanted {
                listeners.push(Listener::bind(*address)?);
            }
            let found = listeners.iter().map(Listener::address).collect::<Result<_, _>>()?;
            // Whoever waits for it waits as long as this thread lives.
            let _ = bound.send(found);
            server::run(self, listeners).await;
            Ok(())
        })
    }

    fn connect(self: &Arc<Self>, addresses: Vec<SocketAddr>, netns: Option<&Path>) -> Result<(), LoadError> {
        let runtime = settle(netns)?;
        LocalSet::new().block_on(&runtime, client::run(self, addresses));
        Ok(())
    }

    fn line(&self) -> String {
        format!(
            "connections: {} opened, {} accepted; ends closed {}; messages {}; errors {}",
            self.connections.get(),
            self.accepted.get(),
            self.closed.get(),
            self.messages.get(),
            self.faults.number()
        )
    }

    fn resets(&self) -> bool {
        self.options.common.close == Some(Close::Reset)
    }
}

/// This thread goes where its sockets are to be, for good, and gets a runtime of its own.
fn settle(netns: Option<&Path>) -> Result<Runtime, LoadError> {
    if let Some(path) = netns {
        enter::settle(path).map_err(system(format!("enter {}", path.display())))?;
    }
    Builder::new_current_thread().enable_all().build().map_err(system("start a runtime"))
}

fn join(thread: ScopedJoinHandle<'_, Result<(), LoadError>>) -> Result<(), LoadError> {
    thread.join().unwrap_or(Err(LoadError::Thread))
}

/// The first of these, and how many more.
fn shown(addresses: &[SocketAddr]) -> String {
    match addresses {
        [] => "nothing".to_owned(),
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_file_in_run_netns_and_a_path_is_itself() {
        assert_eq!(netns_path(Path::new("blue")), Path::new("/run/netns/blue"));
        assert_eq!(netns_path(Path::new("/proc/7/ns/net")), Path::new("/proc/7/ns/net"));
        assert_eq!(netns_path(Path::new("./blue")), Path::new("./blue"));
    }
}
