//! Making sockets, losing their packets, and waiting for what they should become.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use xtcp_agent::sys::{PlainOption, socket_option};

/// TCP states, the kernel's numbers.
pub(super) mod state {
    pub(in super::super) const ESTABLISHED: u8 = 1;
    pub(in super::super) const SYN_SENT: u8 = 2;
    pub(in super::super) const SYN_RECV: u8 = 3;
    pub(in super::super) const FIN_WAIT1: u8 = 4;
    pub(in super::super) const FIN_WAIT2: u8 = 5;
    pub(in super::super) const TIME_WAIT: u8 = 6;
    pub(in super::super) const CLOSE: u8 = 7;
    pub(in super::super) const CLOSE_WAIT: u8 = 8;
    pub(in super::super) const LAST_ACK: u8 = 9;
    pub(in super::super) const CLOSING: u8 = 11;
}

/// How long anything may take. Emulated machines are slow.
const LIMIT: Duration = Duration::from_secs(60);

sockopt_impl!(
    /// The listener's queue for connections that came with data in their SYN.
    FastOpen, SetOnly, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, i32
);
sockopt_impl!(
    /// `struct tcp_md5sig`.
    Md5Sig, SetOnly, libc::IPPROTO_TCP, libc::TCP_MD5SIG, [u8; 216]
);

/// A TCP socket for addresses like this one, cubic whatever the host's choice is.
pub(super) fn tcp(address: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
        .context("open a socket")?;
    socket.set_tcp_congestion(b"cubic").context("choose cubic")?;
    Ok(socket)
}

/// A listener.
pub(super) fn listen(address: SocketAddr, backlog: i32) -> Result<Socket> {
    let socket = tcp(address)?;
    listen_on(&socket, address, backlog)?;
    Ok(socket)
}

/// Makes a prepared socket a listener.
pub(super) fn listen_on(socket: &Socket, address: SocketAddr, backlog: i32) -> Result<()> {
    socket.set_reuse_address(true)?;
    socket.bind(&address.into()).with_context(|| format!("bind {address}"))?;
    socket.listen(backlog).with_context(|| format!("listen on {address}"))
}

/// Connects a prepared socket. Right after its beginning a namespace may have no route to a new address for a moment.
pub(super) fn connect(client: &Socket, to: SocketAddr) -> Result<()> {
    wait_for(&format!("a route to {to}"), || match client.connect(&to.into()) {
        Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => Ok(false),
        result => result.map(|()| true).with_context(|| format!("connect to {to}")),
    })
}

/// Connects a prepared socket to the listener and accepts its other end.
pub(super) fn join(client: &Socket, listener: &Socket) -> Result<Socket> {
    connect(client, address_of(listener)?)?;
    Ok(listener.accept().context("accept")?.0)
}

/// Both ends of a connection to the listener: the connecting one first.
pub(super) fn pair(listener: &Socket) -> Result<(Socket, Socket)> {
    let to = address_of(listener)?;
    let client = tcp(to)?;
    let server = join(&client, listener)?;
    Ok((client, server))
}

/// The socket's own address.
pub(super) fn address_of(socket: &Socket) -> Result<SocketAddr> {
    socket.local_addr()?.as_socket().context("no IP address")
}

/// Begins to connect and does not wait.
pub(super) fn start_connect(socket: &Socket, to: SocketAddr) -> Result<()> {
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error).context("connect"),
        _ => Ok(()),
    }
}

/// Writes so many bytes of this value, in one call each of at most `piece`.
pub(super) fn write(mut socket: &Socket, value: u8, bytes: usize, piece: usize) -> Result<()> {
    let mut left = bytes;
    while left > 0 {
        let len = left.min(piece);
        socket.write_all(&vec![value; len]).context("write")?;
        left -= len;
    }
    Ok(())
}

/// Reads exactly so many bytes.
pub(super) fn read(mut socket: &Socket, bytes: usize) -> Result<()> {
    socket.read_exact(&mut vec![0; bytes]).context("read")
}

/// Writes until the send buffer is full; how many bytes went in.
pub(super) fn fill(socket: &Socket) -> Result<usize> {
    socket.set_nonblocking(true)?;
    let mut total = 0;
    let started = Instant::now();
    let mut idle = Instant::now();
    // The peer's window closes in steps: what is full now may not be in a moment.
    while idle.elapsed() < Duration::from_millis(500) {
        match socket.send(&[b'f'; 4096]) {
            Ok(sent) => {
                total += sent;
                idle = Instant::now();
            }
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error).context("write"),
        }
        if started.elapsed() > LIMIT {
            bail!("the send buffer does not fill");
        }
    }
    Ok(total)
}

/// An option's bytes; `None` where this kernel or socket does not have it.
pub(super) fn option(socket: &Socket, option: PlainOption) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 1024];
    let len = socket_option(socket.as_fd(), option, &mut buffer).ok()?;
    buffer.truncate(len);
    Some(buffer)
}

/// `tcp_info`.
pub(super) fn tcp_info(socket: &Socket) -> Result<Vec<u8>> {
    option(socket, PlainOption::TCP_INFO).context("read TCP_INFO")
}

/// A 32-bit field of `tcp_info` by its offset.
pub(super) fn info_u32(socket: &Socket, offset: usize) -> Result<u32> {
    let info = tcp_info(socket)?;
    let field = info.get(offset..offset + 4).with_context(|| format!("no tcp_info at byte {offset}"))?;
    Ok(u32::from_ne_bytes(field.try_into()?))
}

/// Waits for something to be true.
pub(super) fn wait_for(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !is_so()? {
        if started.elapsed() > LIMIT {
            bail!("waited in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Waits until a socket is in a state.
pub(super) fn wait_state(socket: &Socket, wanted: u8) -> Result<()> {
    wait_for(&format!("TCP state {wanted}"), || Ok(tcp_info(socket)?.first() == Some(&wanted)))
}

/// Waits until everything that was written is acknowledged: no segment under way, nothing unsent.
pub(super) fn wait_acknowledged(socket: &Socket) -> Result<()> {
    wait_for("acknowledgements", || Ok(info_u32(socket, 24)? == 0 && info_u32(socket, 144)? == 0))
}

/// The socket receives nothing any more: what comes is lost before TCP sees it.
pub(super) fn deafen(socket: &Socket) -> Result<()> {
    socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]).context("attach a filter")
}

/// The socket loses every segment whose data begins with this byte.
pub(super) fn lose(socket: &Socket, value: u8) -> Result<()> {
    let keep = u32::MAX;
    let program = [
        // A = data offset in the TCP header, in bytes; X = A.
        SockFilter::new(0x30, 0, 0, 12),
        SockFilter::new(0x74, 0, 0, 4),
        SockFilter::new(0x64, 0, 0, 2),
        SockFilter::new(0x07, 0, 0, 0),
        // Without data: keep.
        SockFilter::new(0x80, 0, 0, 0),
        SockFilter::new(0x2d, 0, 3, 0),
        // The first byte of the data.
        SockFilter::new(0x50, 0, 0, 0),
        SockFilter::new(0x15, 0, 1, value.into()),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, keep),
    ];
    socket.attach_filter(&program).context("attach a filter")
}

/// The socket hears again.
pub(super) fn hear(socket: &Socket) -> Result<()> {
    socket.detach_filter().context("detach the filter")
}
