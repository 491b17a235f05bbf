//! One namespace of the generator: made by a thread that unshares, held by that thread, by a file, or by its sockets.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use netlink_packet_route::link::LinkAttribute;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use socket2::{SockRef, Socket};

use super::super::hub::{Hub, Road};
use super::super::link::{Links, outside_name};
use super::super::options::{Close, Family, Holder};
use super::super::{LoadError, bound_socket, guard, system};
use crate::clock;
use crate::netns::{NetnsId, enter};

/// Stack of a thread that holds a namespace: it only waits.
const STACK: usize = 256 << 10;
/// Bytes that wait in a listener's queue at most; each connection is accepted before the next is made.
const BACKLOG: i32 = 16;
/// A message on loopback that does not arrive in this time never will.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How each namespace is made.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// How names begin.
    pub(super) name_prefix: String,
    /// Where names are, if there are names.
    pub(super) named_in: Option<PathBuf>,
    pub(super) holder: Holder,
    pub(super) connections: u16,
    /// Bytes in each direction.
    pub(super) message: usize,
    pub(super) family: Family,
    pub(super) close: Close,
    /// First of the ports that are shared out.
    pub(super) first_port: u16,
    /// Ranges of ports that there are.
    pub(super) slots: u64,
    pub(super) veth: bool,
    /// Where connections come from that go over a veth.
    pub(super) hub: Option<Hub>,
}

impl Plan {
    /// First and last port of the namespace with this number; (0, 0) where none is used.
    fn ports(&self, number: u64) -> (u16, u16) {
        if self.connections == 0 || self.slots == 0 {
            return (0, 0);
        }
        let slot = u16::try_from(number % self.slots).unwrap_or(0);
        let first = self.first_port + slot * (self.connections + 1);
        (first, first + self.connections)
    }
}

/// A file that leads to a namespace; removed when dropped.
#[derive(Debug)]
struct Name {
    text: String,
    path: PathBuf,
    removed: bool,
}

impl Name {
    /// Binds the calling thread's namespace to a new file.
    fn bind(directory: &Path, name: String) -> Result<Self, LoadError> {
        let path = directory.join(&name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o000)
            .open(&path)
            .map_err(system("create a file for the name of a network namespace"))?;
        let name = Self { text: name, path, removed: false };
        let own = Path::new("/proc/thread-self/ns/net");
        mount(Some(own), &name.path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(system("bind a network namespace to a file"))?;
        Ok(name)
    }

    fn remove(&mut self) -> io::Result<()> {
        self.removed = true;
        guard::remove(&self.path)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if !self.removed {
            // The error that led here is the one to tell.
            let _ = self.remove();
        }
    }
}

/// A living namespace.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) id: NetnsId,
    /// First and last port inside; (0, 0) without connections.
    pub(super) ports: (u16, u16),
    /// Right after the kernel made it, `CLOCK_MONOTONIC` nanoseconds.
    pub(super) created_ktime_ns: u64,
    /// Bytes that went over its connections.
    pub(super) bytes: u64,
    name: Option<Name>,
    // Connections are closed before their listener.
    streams: Vec<(TcpStream, TcpStream)>,
    listeners: Vec<TcpListener>,
    /// Its end lets the thread inside go.
    holder: Option<(SyncSender<()>, JoinHandle<()>)>,
}

/// What is known of a namespace that is being ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) id: NetnsId,
    pub(super) name: Option<String>,
    pub(super) ports: (u16, u16),
    pub(super) created_ktime_ns: u64,
    /// Right before, `CLOCK_MONOTONIC` nanoseconds.
    pub(super) destroyed_ktime_ns: u64,
}

impl Space {
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| name.text.as_str())
    }

    pub(super) fn connections(&self) -> u64 {
        u64::try_from(self.streams.len()).unwrap_or(u64::MAX)
    }

    /// One more message over each connection, in both directions; the bytes.
    pub(super) fn chat(&mut self, message: &mut [u8]) -> io::Result<u64> {
        let mut bytes = 0;
        for (client, server) in &mut self.streams {
            bytes += exchange(client, server, message)?;
        }
        self.bytes += bytes;
        Ok(bytes)
    }

    /// Ends it: with this nothing here holds it any more.
    pub(super) fn end(mut self) -> (Ended, Result<(), LoadError>) {
        let ended = Ended {
            id: self.id,
            name: self.name().map(str::to_owned),
            ports: self.ports,
            created_ktime_ns: self.created_ktime_ns,
            destroyed_ktime_ns: clock::ktime_ns(),
        };
        let removed = self.name.as_mut().map_or(Ok(()), Name::remove);
        let removed = removed.map_err(system("remove the file of a network namespace"));
        self.streams.clear();
        self.listeners.clear();
        let held = self.holder.take().map_or(Ok(()), |(release, thread)| {
            drop(release);
            thread.join().map_err(|_| LoadError::Thread)
        });
        (ended, removed.and(held))
    }
}

/// Makes the folder of names, if there is none.
pub(super) fn make_directory(path: &Path) -> Result<(), LoadError> {
    fs::create_dir_all(path).map_err(system("make the folder of --directory"))
}

/// Makes one. A thread of its own does it: the calling one stays where it is.
pub(super) fn make(plan: &Plan, number: u64) -> Result<Space, LoadError> {
    let (plan, held) = (plan.clone(), plan.named_in.is_none() && plan.holder == Holder::Thread);
    let (made_to, made): (SyncSender<Result<Space, LoadError>>, Receiver<_>) = sync_channel(1);
    let (release, released) = sync_channel(0);
    let inside = move || {
        let space = settle(&plan, number);
        let holds = held && space.is_ok();
        if made_to.send(space).is_ok() && holds {
            // Nothing is ever sent: it ends when the namespace is to end.
            let _: Result<(), _> = released.recv();
        }
    };
    let thread = thread::Builder::new().name("load-netns".to_owned()).stack_size(STACK).spawn(inside);
    let thread = thread.map_err(system("start a thread"))?;
    let Ok(space) = made.recv() else { return Err(LoadError::Thread) };
    if held && space.is_ok() {
        return space.map(|space| Space { holder: Some((release, thread)), ..space });
    }
    thread.join().map_err(|_| LoadError::Thread)?;
    space
}

/// Leaves for a new namespace and furnishes it.
fn settle(plan: &Plan, number: u64) -> Result<Space, LoadError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(system("make a network namespace"))?;
    let created_ktime_ns = clock::ktime_ns();
    let name =
        plan.named_in.as_deref().map(|folder| Name::bind(folder, format!("{}{number}", plan.name_prefix)));
    let name = name.transpose()?;
    let id = enter::current().map_err(system("identify a network namespace"))?;
    let links = Links::open().map_err(system("open a route netlink socket"))?;
    links.loopback_up().map_err(system("bring loopback up"))?;
    if plan.veth {
        let pid = std::process::id();
        let place = LinkAttribute::NetNsPid(pid);
        links.add_veth("eth0", &outside_name(pid, number), place).map_err(system("make a veth"))?;
    }
    let road = Road::new(number);
    if let Some(hub) = &plan.hub {
        let outside = outside_name(std::process::id(), number);
        links
            .add_veth("eth0", &outside, LinkAttribute::NetNsFd(hub.netns()))
            .and_then(|()| links.up_with("eth0", &road.ends(true)))
            .and_then(|()| hub.furnish(outside, road))
            .map_err(system("make a veth"))?;
    }
    let ports = plan.ports(number);
    let mut space = Space {
        id,
        ports,
        created_ktime_ns,
        bytes: 0,
        name,
        streams: Vec::with_capacity(usize::from(plan.connections)),
        listeners: Vec::new(),
        holder: None,
    };
    if plan.connections > 0 {
        furnish(plan, road, &mut space).map_err(system("make a connection in a network namespace"))?;
    }
    Ok(space)
}

/// Opens the connections, and sends a message over each in both directions.
fn furnish(plan: &Plan, road: Road, space: &mut Space) -> io::Result<()> {
    let mut listeners: Vec<(IpAddr, TcpListener)> = Vec::with_capacity(2);
    let mut message = vec![0x78; plan.message];
    for number in 0..plan.connections {
        let loopback = plan.family.loopback(u64::from(number));
        let (from, to) = if plan.hub.is_some() { road.of(loopback) } else { (loopback, loopback) };
        if !listeners.iter().any(|(of, _)| *of == to) {
            listeners.push((to, listen((to, space.ports.0).into())?));
        }
        let Some((_, listener)) = listeners.iter().find(|(of, _)| *of == to) else { continue };
        let address = (from, space.ports.0 + 1 + number).into();
        let socket = plan.hub.as_ref().map_or_else(|| bound_socket(address), |hub| hub.socket(address))?;
        let (mut client, mut server) = connect(socket, listener)?;
        if plan.close == Close::Reset {
            SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
        }
        space.bytes += exchange(&mut client, &mut server, &mut message)?;
        space.streams.push((client, server));
    }
    space.listeners = listeners.into_iter().map(|(_, listener)| listener).collect();
    Ok(())
}

/// A message in each direction; the bytes of both. It fits the buffers of the two.
fn exchange(client: &mut TcpStream, server: &mut TcpStream, message: &mut [u8]) -> io::Result<u64> {
    client.write_all(message)?;
    server.read_exact(message)?;
    server.write_all(message)?;
    client.read_exact(message)?;
    Ok(2 * u64::try_from(message.len()).unwrap_or(0))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound_socket(address)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn connect(socket: Socket, listener: &TcpListener) -> io::Result<(TcpStream, TcpStream)> {
    socket.connect_timeout(&listener.local_addr()?.into(), TIMEOUT)?;
    let (server, _) = listener.accept()?;
    let client = TcpStream::from(socket);
    for end in [&client, &server] {
        end.set_read_timeout(Some(TIMEOUT))?;
        end.set_write_timeout(Some(TIMEOUT))?;
    }
    Ok((client, server))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(connections: u16) -> Plan {
        Plan {
            name_prefix: String::new(),
            named_in: None,
            holder: Holder::Thread,
            connections,
            message: 100,
            family: Family::Both,
            close: Close::Reset,
            first_port: 30_000,
            slots: 3,
            veth: false,
            hub: None,
        }
    }

    #[test]
    fn every_slot_has_ports_of_its_own_and_slots_come_round() {
        let plan = plan(4);
        assert_eq!(plan.ports(0), (30_000, 30_004));
        assert_eq!(plan.ports(1), (30_005, 30_009));
        assert_eq!(plan.ports(5), (30_010, 30_014));
        assert_eq!(plan.ports(6), plan.ports(0));
    }

    #[test]
    fn the_last_slot_ends_with_the_last_port() {
        let plan = Plan { first_port: 1, slots: 65_535, ..plan(0) };
        assert_eq!(plan.ports(7), (0, 0));
        let plan = Plan { first_port: 2, slots: 32_767, connections: 1, ..plan };
        assert_eq!(plan.ports(32_766), (65_534, 65_535));
    }
}
