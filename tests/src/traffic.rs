//! TCP connections of which everything is known: addresses, bytes in both directions, lifetime.
//!
//! All functions here work in the namespace of the calling thread: call them inside `Netns::run_in`.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::host::slowness;

sockopt_impl!(
    /// Seconds.
    DeferAccept, SetOnly, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, i32
);

/// A connection that was made, as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// Address of the end that connected.
    pub client: SocketAddr,
    /// Address of the end that accepted.
    pub server: SocketAddr,
    /// Bytes from client to server.
    pub sent: u64,
    /// Bytes from server to client.
    pub received: u64,
}

/// Both ends of one connection and the listener between them.
#[derive(Debug)]
pub struct Pair {
    /// The end that connected.
    pub client: TcpStream,
    /// The end that was accepted.
    pub server: TcpStream,
    /// The listener, still open.
    pub listener: TcpListener,
}

/// A connection to a fresh listener on `ip`.
pub fn pair(ip: impl Into<IpAddr>) -> Pair {
    let listener = listen((ip.into(), 0).into());
    let address = listener.local_addr().expect("a listener has an address");
    let client = connect(address);
    let server = accept(&listener);
    Pair { client, server, listener }
}

/// A listener on `address` (port 0: any), with a backlog for all that the tests do.
pub fn listen(address: SocketAddr) -> TcpListener {
    listen_as(address, Protocol::TCP, false)
}

/// Whether the kernel knows MPTCP. Where it does not (Debian builds 5.10 so) nobody can make such a socket.
pub fn has_mptcp() -> bool {
    match Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)) {
        Ok(_) => true,
        Err(e) if e.raw_os_error() == Some(libc::EPROTONOSUPPORT) => false,
        Err(e) => panic!("no MPTCP socket: {e}"),
    }
}

/// MPTCP, or TCP on a kernel that was built without it: for tests in which it is one shape of several.
pub fn mptcp_or_tcp() -> Protocol {
    if has_mptcp() {
        return Protocol::MPTCP;
    }
    println!("this kernel has no MPTCP: TCP in its place");
    Protocol::TCP
}

/// A listener of protocol TCP or MPTCP (262), with `SO_REUSEPORT` if `shared`. An IPv6 one on `::` takes IPv4 too.
pub fn listen_as(address: SocketAddr, protocol: Protocol, shared: bool) -> TcpListener {
    let fail = |e: std::io::Error| -> ! { panic!("no listener on {address}: {e}") };
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, Some(protocol)).unwrap_or_else(|e| fail(e));
    if address.is_ipv6() {
        socket.set_only_v6(false).unwrap_or_else(|e| fail(e));
    }
    if shared {
        socket.set_reuse_port(true).unwrap_or_else(|e| fail(e));
    }
    socket.set_reuse_address(true).unwrap_or_else(|e| fail(e));
    socket.bind(&address.into()).unwrap_or_else(|e| fail(e));
    socket.listen(4096).unwrap_or_else(|e| fail(e));
    socket.into()
}

/// Holds connections back until data comes, for so many seconds: until then their children are in SYN-RECV.
pub fn defer_accept(listener: &impl std::os::fd::AsFd, seconds: i32) -> nix::Result<()> {
    nix::sys::socket::setsockopt(listener, DeferAccept, &seconds)
}

/// Connects within ten seconds.
pub fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect_timeout(&address, Duration::from_secs(10) * slowness())
        .unwrap_or_else(|e| panic!("no connection to {address}: {e}"))
}

/// Accepts one connection. Loopback connections are in the queue when `connect` returns, so this does not block.
pub fn accept(listener: &TcpListener) -> TcpStream {
    listener.accept().unwrap_or_else(|e| panic!("{listener:?} accepts nothing: {e}")).0
}

/// The kernel's cookie of a socket, which the rows carry.
pub fn cookie<S: std::os::fd::AsFd>(socket: &S) -> u64 {
    SockRef::from(socket).cookie().expect("SO_COOKIE can be read")
}

/// Makes `close` send a reset.
pub fn reset_on_close(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER can be set");
}

/// Many connections, one after the other in each of several workers.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many in all.
    pub connections: usize,
    /// Pairs of threads that share them, one connecting and one accepting.
    pub workers: usize,
    /// How long each lives from connect to its first FIN, at least.
    pub lifetime: Duration,
    /// Connects to 127.0.0.1 and the seven addresses after it in turn, else to `::1`. One pair of addresses has only
    /// so many ports, and each is kept by its `TIME_WAIT`.
    pub ipv4: bool,
}

/// What became of a [`Plan`].
#[derive(Debug)]
pub struct Done {
    /// All connections.
    pub made: Vec<Made>,
    /// How many listeners were opened and closed.
    pub listeners: usize,
    /// From the first connect to the last close.
    pub took: Duration,
}

/// Bytes that connection `index` sends in each direction: different for neighbours, eight at least in the first.
pub fn bytes_of(index: usize) -> (u64, u64) {
    let index = index as u64;
    (8 + index * 7 % 1_500, index * 13 % 2_900)
}

/// Makes the connections of `plan`. The client writes, reads the answer to its end, sends its FIN first, and closes
/// after the server's FIN; so each end goes through five states, ten together.
pub fn make(plan: Plan) -> Done {
    let start = Instant::now();
    let next = AtomicUsize::new(0);
    let mut made = Vec::with_capacity(plan.connections);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.workers).map(|_| scope.spawn(|| work(plan, &next))).collect();
        for worker in workers {
            made.extend(worker.join().expect("a worker makes its connections"));
        }
    });
    Done { made, listeners: plan.workers, took: start.elapsed() }
}

fn work(plan: Plan, next: &AtomicUsize) -> Vec<Made> {
    let any: IpAddr = if plan.ipv4 { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let listener = listen((any, 0).into());
    let port = listener.local_addr().expect("a listener has an address").port();
    let mut made = Vec::new();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| while serve_one(&listener) {});
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= plan.connections {
                break;
            }
            let last = u8::try_from(index % 8 + 1).expect("at most 8");
            let ip: IpAddr =
                if plan.ipv4 { [127, 0, 0, last].into() } else { [0, 0, 0, 0, 0, 0, 0, 1].into() };
            made.push(converse((ip, port).into(), bytes_of(index), plan.lifetime));
        }
        // A connection that sends nothing tells the server to stop; it is made like the others and counted with them.
        let ip: IpAddr = if plan.ipv4 { [127, 0, 0, 1].into() } else { [0, 0, 0, 0, 0, 0, 0, 1].into() };
        made.push(converse((ip, port).into(), (0, 0), Duration::ZERO));
        server.join().expect("the server ends");
    });
    made
}

/// One connection as a client: announces both lengths in its first eight bytes. Returns after the server's FIN.
pub fn converse(server: SocketAddr, (sent, received): (u64, u64), lifetime: Duration) -> Made {
    let mut stream = TcpStream::connect(server).unwrap_or_else(|e| panic!("no connection to {server}: {e}"));
    // Both ends live by now, however long it took until they did.
    let start = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(30) * slowness())).expect("a timeout can be set");
    let client = stream.local_addr().expect("a connection has an address");
    if sent > 0 {
        let mut message = vec![0x55; usize::try_from(sent).expect("a short message")];
        message[..4].copy_from_slice(&u32::try_from(sent).expect("short").to_be_bytes());
        message[4..8].copy_from_slice(&u32::try_from(received).expect("short").to_be_bytes());
        stream.write_all(&message).expect("the server reads");
        let mut answer = vec![0; usize::try_from(received).expect("a short answer")];
        stream.read_exact(&mut answer).expect("the server answers");
    }
    // The lifetime is what the test is about, not a wait for something.
    std::thread::sleep(lifetime.saturating_sub(start.elapsed()));
    stream.shutdown(std::net::Shutdown::Write).expect("the connection is open");
    assert_eq!(
        stream.read(&mut [0; 1]).expect("the server closes"),
        0,
        "the server sent more than it was asked for"
    );
    Made { client, server, sent, received }
}

/// Accepts one connection, reads what is announced, answers as asked, and closes after the client's FIN. False when
/// the client sent nothing.
pub fn serve_one(listener: &TcpListener) -> bool {
    let mut stream = accept(listener);
    let mut head = [0; 8];
    let mut have = 0;
    while have < head.len() {
        match stream.read(&mut head[have..]).expect("the client writes") {
            0 if have == 0 => return false,
            0 => panic!("a client ended after {have} bytes"),
            n => have += n,
        }
    }
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
    let mut rest = vec![0; word(0) - head.len()];
    stream.read_exact(&mut rest).expect("the client writes all");
    stream.write_all(&vec![0xaa; word(4)]).expect("the client reads");
    assert_eq!(stream.read(&mut [0; 1]).expect("the client ends"), 0, "the client sent more than announced");
    true
}
