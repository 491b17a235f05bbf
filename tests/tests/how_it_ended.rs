//! Promise: how a connection ended is told right, and none is reported as another.
//!
//! Each ending is made in a namespace of its own, so that every closing event of that namespace is accounted for: the
//! table states all of them, from every end's own point of view, and there must be no other.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::{Domain, SockRef, Socket, Type};
use xtcp_proto::event::v1::{CloseReason, OpenedBy, TcpClosed, TcpState};
use xtcp_tests::agent::agent;
use xtcp_tests::events::{Seen, Subscriber};
use xtcp_tests::host::{alone, kernel, wait_for};
use xtcp_tests::nats::NatsServer;
use xtcp_tests::netns::{Netns, join_by_veth};
use xtcp_tests::process::Process;
use xtcp_tests::traffic::{self, Pair};

/// One end as its closing event must tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    opened_by: OpenedBy,
    reason: CloseReason,
    error: &'static str,
    exit_signal: u32,
}

const fn told(opened_by: OpenedBy, reason: CloseReason, error: &'static str) -> Told {
    Told { opened_by, reason, error, exit_signal: 0 }
}

/// Whether programs on this kernel can know that a task is exiting (5.11, `bpf_get_current_task_btf`).
fn exits_are_known() -> bool {
    kernel() >= (5, 11)
}

impl Told {
    /// Where a process that exits cannot be told from one that closes, that is what is told.
    fn as_known_here(self) -> Self {
        match self.reason {
            R::ProcessExit if !exits_are_known() => Self { reason: R::LocalFin, exit_signal: 0, ..self },
            _ => self,
        }
    }
}

const LISTENER: Told = told(OpenedBy::Unspecified, CloseReason::ListenerClosed, "");

/// What an ending leaves open until its events are there.
type Held = Vec<Box<dyn Send>>;

struct Ending {
    name: &'static str,
    make: fn(&Netns) -> Held,
    told: &'static [Told],
}

use CloseReason as R;
use OpenedBy::{Local, Peer};

const ENDINGS: &[Ending] = &[
    Ending {
        name: "a successful connection of 9 ms",
        make: successful,
        told: &[told(Local, R::LocalFin, ""), told(Peer, R::PeerFin, ""), LISTENER],
    },
    Ending { name: "a refused connect", make: refused, told: &[told(Local, R::Refused, "ECONNREFUSED")] },
    Ending {
        name: "a connect to a black hole",
        make: black_hole,
        told: &[told(Local, R::TimedOut, "ETIMEDOUT")],
    },
    Ending {
        name: "a connect to nobody's address",
        make: unreachable,
        told: &[told(Local, R::Unreachable, "EHOSTUNREACH")],
    },
    Ending { name: "a connect given up", make: abandoned, told: &[told(Local, R::ConnectAbandoned, "")] },
    Ending {
        name: "an idle local close",
        make: idle_close,
        told: &[told(Local, R::LocalFin, ""), told(Peer, R::PeerFin, ""), LISTENER],
    },
    Ending {
        name: "the peer's close",
        make: peers_close,
        told: &[told(Local, R::PeerFin, ""), told(Peer, R::LocalFin, ""), LISTENER],
    },
    Ending {
        name: "a reset by the client with SO_LINGER 0",
        make: |netns| reset(netns, true, false),
        told: &[told(Local, R::LocalReset, ""), told(Peer, R::PeerReset, "ECONNRESET"), LISTENER],
    },
    Ending {
        name: "a reset by the server with SO_LINGER 0",
        make: |netns| reset(netns, false, false),
        told: &[told(Local, R::PeerReset, "ECONNRESET"), told(Peer, R::LocalReset, ""), LISTENER],
    },
    Ending {
        name: "a reset by the client because of unread data",
        make: |netns| reset(netns, true, true),
        told: &[told(Local, R::LocalReset, ""), told(Peer, R::PeerReset, "ECONNRESET"), LISTENER],
    },
    Ending {
        name: "a reset by the server because of unread data",
        make: |netns| reset(netns, false, true),
        told: &[told(Local, R::PeerReset, "ECONNRESET"), told(Peer, R::LocalReset, ""), LISTENER],
    },
    Ending {
        name: "a killed process",
        make: |netns| process_ends(netns, Some(Signal::SIGKILL)),
        told: &[
            Told { exit_signal: 9, ..told(Local, R::ProcessExit, "") },
            told(Peer, R::PeerFin, ""),
            LISTENER,
        ],
    },
    Ending {
        name: "a process that exits with the connection open",
        make: |netns| process_ends(netns, None),
        told: &[told(Local, R::ProcessExit, ""), told(Peer, R::PeerFin, ""), LISTENER],
    },
    Ending {
        name: "a listener's close with pending children",
        make: pending_children,
        told: &[
            told(Local, R::PeerReset, "ECONNRESET"),
            told(Local, R::PeerReset, "ECONNRESET"),
            told(Peer, R::NeverAccepted, ""),
            told(Peer, R::NeverAccepted, ""),
            LISTENER,
        ],
    },
    Ending {
        name: "data that nobody acknowledges",
        make: unacknowledged,
        told: &[told(Local, R::TimedOut, "ETIMEDOUT")],
    },
];

#[test]
fn every_ending_is_told_right_and_none_as_another() {
    let _alone = alone();
    let nats = NatsServer::start();
    let subscriber = Subscriber::new(&nats);
    let _agent = agent().events_to(&nats).start();
    let mut wrong = String::new();
    for ending in ENDINGS {
        let netns = Netns::named("end");
        let held = (ending.make)(&netns);
        let enough = |all: &[Seen]| {
            let of_netns = all.iter().filter(|seen| seen.is_of(netns.id) && seen.close().is_some());
            of_netns.count() >= ending.told.len()
        };
        subscriber.wait_until(Duration::from_secs(10), enough);
        let events = subscriber.of(netns.id);
        drop(held);
        let mut seen: Vec<Told> = closes(&events).into_iter().map(of_event).collect();
        let mut expected: Vec<Told> = ending.told.iter().map(|told| told.as_known_here()).collect();
        seen.sort();
        expected.sort();
        if seen == expected {
            println!("{}: as it was", ending.name);
        } else {
            let told = closes(&events);
            let _ = writeln!(wrong, "{}:\n  made {expected:#?}\n  told {told:#?}", ending.name);
        }
        check_facts(ending.name, &events);
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn closes(events: &[Seen]) -> Vec<&TcpClosed> {
    events.iter().filter_map(Seen::close).collect()
}

fn of_event(close: &TcpClosed) -> Told {
    let known = ["ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EHOSTUNREACH", ""];
    let error = known.into_iter().find(|name| *name == close.error).unwrap_or("another");
    Told { opened_by: close.opened_by(), reason: close.reason(), error, exit_signal: close.exit_signal }
}

/// What holds for every ending: the path is whole, and whoever is named as the owner is one of ours.
fn check_facts(name: &str, events: &[Seen]) {
    for close in closes(events) {
        assert!(close.path_complete, "{name}: {close:#?}");
        assert_eq!(close.path().next_back(), Some(TcpState::Close), "{name}: {close:#?}");
        assert_eq!(close.errno == 0, close.error.is_empty(), "{name}: {close:#?}");
        assert!(close.lifetime_ns > 0, "{name}: {close:#?}");
        let established = close.path().any(|state| state == TcpState::Established);
        assert_eq!(close.established_ns > 0, established, "{name}: {close:#?}");
        let exits = close.reason() == R::ProcessExit;
        if let Some(owner) = &close.owner {
            if exits_are_known() {
                assert_eq!(owner.pid == std::process::id(), !exits, "{name}: {close:#?}");
            }
            assert!(!owner.comm.is_empty(), "{name}: {close:#?}");
        } else {
            assert_eq!(close.opened_by(), Peer, "{name}: the process that connected is known: {close:#?}");
        }
    }
}

#[test]
fn the_owner_of_a_connection_that_its_process_left_open_is_that_process() {
    let _alone = alone();
    let nats = NatsServer::start();
    let subscriber = Subscriber::new(&nats);
    let _agent = agent().events_to(&nats).start();
    let netns = Netns::anonymous("owner");
    let (listener, mut helper) = helper_with_connection(&netns);
    let server = traffic::accept(&listener);
    let pid = helper.pid();
    helper.signal(Signal::SIGKILL);
    helper.wait(Duration::from_secs(5)).expect("a killed process ends");
    let seen = subscriber.wait_for("the helper's close", Duration::from_secs(10), |seen| {
        seen.is_of(netns.id) && seen.close().is_some_and(|close| close.opened_by() == Local)
    });
    let owner = seen.close().unwrap().owner.clone().expect("its owner is known");
    assert_eq!((owner.pid, owner.comm.as_str()), (pid, "xtcp-test-helpe"), "fifteen bytes of its name");
    drop(server);
}

fn successful(netns: &Netns) -> Held {
    netns.run_in(|| {
        let listener = traffic::listen((Ipv4Addr::LOCALHOST, 0).into());
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            let server = scope.spawn(|| traffic::serve_one(&listener));
            traffic::converse(address, (100, 100), Duration::from_millis(9));
            server.join().unwrap();
        });
    });
    Vec::new()
}

fn refused(netns: &Netns) -> Held {
    let error = netns.run_in(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 9)).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    Vec::new()
}

/// A veth whose other end is in a namespace that has no such address: what is sent there is lost without an answer.
fn with_void(netns: &Netns) -> Netns {
    let void = Netns::named("void");
    join_by_veth((netns, "in", "10.96.0.1/24"), (&void, "out", "10.96.0.2/24"));
    netns.exec(&[
        "ip",
        "neigh",
        "add",
        "10.96.0.9",
        "lladdr",
        "02:00:00:00:00:09",
        "dev",
        "in",
        "nud",
        "permanent",
    ]);
    netns.sysctl("ipv4/tcp_syn_retries", "1");
    // Before 6.5 no retry of a SYN comes without backing off.
    if kernel() >= (6, 5) {
        netns.sysctl("ipv4/tcp_syn_linear_timeouts", "0");
    }
    void
}

fn black_hole(netns: &Netns) -> Held {
    let void = with_void(netns);
    let error = netns.run_in(|| TcpStream::connect("10.96.0.9:80").unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    vec![Box::new(void)]
}

/// Nobody answers for the address on the link, and the kernel says so.
fn unreachable(netns: &Netns) -> Held {
    let void = with_void(netns);
    let error = netns.run_in(|| {
        std::fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "6").unwrap();
        TcpStream::connect("10.96.0.77:80").unwrap_err()
    });
    assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
    vec![Box::new(void)]
}

fn abandoned(netns: &Netns) -> Held {
    let void = with_void(netns);
    netns.run_in(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let target: SocketAddr = "10.96.0.9:80".parse().unwrap();
        assert_eq!(socket.connect(&target.into()).unwrap_err().raw_os_error(), Some(libc::EINPROGRESS));
    });
    vec![Box::new(void)]
}

fn idle_close(netns: &Netns) -> Held {
    let Pair { client, server, listener } = netns.run_in(|| traffic::pair(Ipv4Addr::LOCALHOST));
    // Idle is what this connection is.
    std::thread::sleep(Duration::from_millis(50));
    end_in_order(client, server);
    drop(listener);
    Vec::new()
}

fn peers_close(netns: &Netns) -> Held {
    let Pair { client, server, listener } = netns.run_in(|| traffic::pair(Ipv4Addr::LOCALHOST));
    end_in_order(server, client);
    drop(listener);
    Vec::new()
}

/// Closes `first`, and `second` once it has read the end.
fn end_in_order(first: TcpStream, mut second: TcpStream) {
    drop(first);
    assert_eq!(second.read(&mut [0; 1]).unwrap(), 0);
}

fn reset(netns: &Netns, by_client: bool, by_unread: bool) -> Held {
    let Pair { client, server, listener } = netns.run_in(|| traffic::pair(Ipv4Addr::LOCALHOST));
    let (resets, mut other) = if by_client { (client, server) } else { (server, client) };
    if by_unread {
        other.write_all(b"nobody reads this").unwrap();
        wait_for("the data to arrive", Duration::from_secs(5), || {
            (resets.peek(&mut [0; 1]).unwrap() == 1).then_some(())
        });
    } else {
        traffic::reset_on_close(&resets);
    }
    drop(resets);
    assert_eq!(other.read(&mut [0; 1]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
    drop((other, listener));
    Vec::new()
}

fn process_ends(netns: &Netns, signal: Option<Signal>) -> Held {
    let (listener, mut helper) = helper_with_connection(netns);
    let mut server = traffic::accept(&listener);
    match signal {
        Some(signal) => helper.signal(signal),
        None => helper.stdin.take().unwrap().write_all(b"x").unwrap(),
    }
    helper.wait(Duration::from_secs(5)).expect("the helper ends");
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
    drop((server, listener));
    Vec::new()
}

fn helper_with_connection(netns: &Netns) -> (TcpListener, Process) {
    netns.run_in(|| {
        let listener = traffic::listen((Ipv4Addr::LOCALHOST, 0).into());
        let address = listener.local_addr().unwrap().to_string();
        let helper = PathBuf::from(env!("CARGO_BIN_EXE_xtcp-test-helper"));
        let helper = Process::spawn("helper", Command::new(helper).arg(address));
        let connected = helper.stdout.wait_for(Duration::from_secs(5), |line| line == "connected");
        assert!(connected.is_some(), "the helper has no connection");
        (listener, helper)
    })
}

fn pending_children(netns: &Netns) -> Held {
    netns.run_in(|| {
        let listener = traffic::listen((Ipv4Addr::LOCALHOST, 0).into());
        let address = listener.local_addr().unwrap();
        let mut clients = [(); 2].map(|()| traffic::connect(address));
        drop(listener);
        for client in &mut clients {
            assert_eq!(client.read(&mut [0; 1]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
        }
    });
    Vec::new()
}

/// The peer's address is taken away from it: from then on nothing is acknowledged.
fn unacknowledged(netns: &Netns) -> Held {
    let void = with_void(netns);
    let listener = void.run_in(|| traffic::listen("10.96.0.2:80".parse().unwrap()));
    let mut client = netns.run_in(|| traffic::connect("10.96.0.2:80".parse().unwrap()));
    let server = traffic::accept(&listener);
    void.exec(&["ip", "address", "del", "10.96.0.2/24", "dev", "out"]);
    netns.exec(&[
        "ip",
        "neigh",
        "replace",
        "10.96.0.2",
        "lladdr",
        "02:00:00:00:00:02",
        "dev",
        "in",
        "nud",
        "permanent",
    ]);
    SockRef::from(&client).set_tcp_user_timeout(Some(Duration::from_millis(700))).unwrap();
    client.write_all(b"is anybody there").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
    traffic::reset_on_close(&server);
    vec![Box::new(void), Box::new(server), Box::new(listener)]
}
