//! A namespace full of sockets of every kind that a filter can tell apart.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use xtcp_tests::host::wait_for;
use xtcp_tests::netns::Netns;
use xtcp_tests::process::Process;
use xtcp_tests::traffic;

use super::{ifindex, ss};

/// A cgroup (v2) that is removed again, and the process in it that holds half-open connections.
pub(super) struct Cgroup(pub(super) PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..1_000 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount =
        mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|mount| mount[2] == "cgroup2");
    PathBuf::from(mount.expect("a cgroup2 mount: mount -t cgroup2 none DIR")[1])
}

#[derive(Default)]
struct Held {
    streams: Vec<TcpStream>,
    sockets: Vec<Socket>,
}

fn bound(address: SocketAddr, prepare: impl Fn(&Socket)) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
    prepare(&socket);
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap_or_else(|e| panic!("{address}: {e}"));
    socket
}

fn populate(held: &mut Held) {
    let four = |last, port| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
    let six = |port| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    for (address, mark, device) in [
        (four(1, 21_001), 0, None),
        (SocketAddr::from((Ipv4Addr::UNSPECIFIED, 21_002)), 0x11, None),
        (six(21_003), 0x12, None),
        (SocketAddr::from((Ipv6Addr::UNSPECIFIED, 21_004)), 0, None),
        (four(2, 21_005), 0, Some("lo")),
        (SocketAddr::from((Ipv6Addr::UNSPECIFIED, 21_006)), 0x3, Some("lo")),
    ] {
        let listener = bound(address, |socket| {
            socket.set_mark(mark).unwrap();
            socket.bind_device(device.map(str::as_bytes)).unwrap();
        });
        listener.listen(16).unwrap();
        held.sockets.push(listener);
    }
    // Autobound and bound clients; to the dual listener also over IPv4, so one end is v4-mapped.
    for (to, from, mark) in [
        (four(1, 21_001), None, 0),
        (four(1, 21_001), Some(four(3, 22_001)), 0x15),
        (four(4, 21_002), None, 0x1),
        (six(21_003), Some(six(22_003)), 0),
        (six(21_004), None, 0x16),
        (four(1, 21_004), Some(four(1, 22_004)), 0),
        (four(2, 21_005), None, 0),
    ] {
        let client = match from {
            Some(from) => bound(from, |_| ()),
            None => Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).unwrap(),
        };
        client.set_mark(mark).unwrap();
        client.connect(&to.into()).unwrap_or_else(|e| panic!("{to}: {e}"));
        held.streams.push(client.into());
    }
    // FIN-WAIT-2 and CLOSE-WAIT, TIME-WAIT, SYN-SENT into a device that swallows everything.
    let half = traffic::pair(Ipv4Addr::LOCALHOST);
    half.client.shutdown(Shutdown::Write).unwrap();
    held.streams.extend([half.client, half.server]);
    time_waits();
    for to in ["192.0.2.2:80", "[2001:db8::2]:443"] {
        let to: SocketAddr = to.parse().unwrap();
        let client = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).unwrap();
        client.set_nonblocking(true).unwrap();
        assert!(client.connect(&to.into()).is_err(), "it is under way");
        held.sockets.push(client);
    }
    let index = ifindex("wire0").unwrap();
    let local = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 21_007, 0, index);
    let listener = bound(local.into(), |_| ());
    listener.listen(16).unwrap();
    held.sockets.push(listener);
    let protocol = traffic::mptcp_or_tcp();
    let mptcp = traffic::listen_as(four(5, 21_008), protocol, false);
    let client = Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).unwrap();
    client.connect(&four(5, 21_008).into()).unwrap();
    held.streams.extend([traffic::accept(&mptcp), client.into()]);
    held.sockets.push(mptcp.into());
}

/// One of each family; they last a minute.
pub(super) fn time_waits() {
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let done = traffic::pair(ip);
        SockRef::from(&done.client).set_mark(0x17).unwrap();
        drop(done.client);
        drop(done.server);
    }
    // The last acknowledgement may still be under way.
    wait_for("two connections in TIME-WAIT", Duration::from_secs(10), || {
        (ss("-t", "state time-wait").len() == 2).then_some(())
    });
}

/// A namespace full of sockets.
pub(super) struct World {
    // Ends first: it is in the cgroup.
    _half_open: Process,
    _held: Held,
    pub(super) cgroup: Cgroup,
    pub(super) netns: Netns,
}

pub(super) fn world() -> World {
    let netns = Netns::named("filter");
    netns.exec(&["ip", "link", "add", "wire0", "type", "veth", "peer", "name", "wire1"]);
    for address in ["192.0.2.1/24", "2001:db8::1/64", "fe80::1/64"] {
        netns.exec(&["ip", "address", "add", address, "dev", "wire0", "nodad"]);
    }
    for device in ["wire0", "wire1"] {
        netns.exec(&["ip", "link", "set", device, "up"]);
    }
    // Nobody has that address: what is sent there is swallowed.
    for peer in ["192.0.2.2", "2001:db8::2"] {
        netns.exec(&[
            "ip",
            "neighbour",
            "add",
            peer,
            "lladdr",
            "02:00:00:00:00:01",
            "dev",
            "wire0",
            "nud",
            "permanent",
        ]);
    }
    netns.sysctl("ipv4/tcp_fwmark_accept", "1");
    netns.sysctl("ipv4/fwmark_reflect", "1");
    // SYN-SENT for as long as the test takes, and SYN-RECV too.
    netns.sysctl("ipv4/tcp_syn_retries", "10");
    let cgroup = Cgroup(cgroup2().join(netns.name.as_deref().unwrap()));
    fs::create_dir(&cgroup.0).unwrap();
    let folder = cgroup.0.to_str().unwrap().to_owned();
    // From this thread: a process ends with the thread that started it.
    let inside = format!("--net={}", netns.path().display());
    let helper = env!("CARGO_BIN_EXE_xtcp-test-helper");
    let half_open = Process::start("half-open", &["nsenter", &inside, helper, "half-open", &folder, "21010"]);
    let half = format!("cgroup {folder}");
    let mut held = Held::default();
    let limit = Duration::from_secs(60);
    assert!(half_open.stdout.wait_for(limit, |line| line == "connected").is_some(), "half-open connections");
    netns.run_in(|| {
        assert_eq!(ss("-t", "state syn-recv").len(), 2, "connections that wait for data");
        assert_eq!(ss("-t", &format!("state syn-recv {half}")).len(), 0, "they are in no cgroup yet");
        populate(&mut held);
        // The last acknowledgement may still be under way.
        wait_for("sockets to settle", Duration::from_secs(10), || {
            let count = |state: &str| ss("-t", &format!("state {state}")).len();
            (count("fin-wait-2") == 1 && count("close-wait") == 1).then_some(())
        });
    });
    World { netns, cgroup, _half_open: half_open, _held: held }
}
