//! `udp:HOST:PORT`: datagrams that nobody acknowledges.
//!
//! A send ends when the kernel took the datagram. That nobody listens is known only where an ICMP message says so: at once
//! on this host, with the next datagram from another one.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::UdpSocket;

use super::Opener;
use super::datagram::{self, Peer, Socket};
use super::host_port::HostPort;
use super::options::{OptionInfo, Options};
use super::scheme::Built;

pub(super) const BUILT: Built = Built { parse, options: &[&OPTIONS] };

const OPTIONS: [OptionInfo; 1] = [OptionInfo::new(
    "max-datagram",
    "SIZE (default 65507)",
    "Largest datagram, bytes; 1432 fits into one packet of most networks, where a larger one is lost with any of its \
     fragments.",
)];

/// What an IPv4 packet of 65 535 bytes holds behind its own header and UDP's; an IPv6 packet holds twenty more, but which
/// of them a name leads to is not known before.
const MOST: u64 = 65_507;

fn parse(rest: &str, options: &Options) -> Result<Arc<dyn Opener>, String> {
    let most = options.bytes("max-datagram", 512, MOST)?.unwrap_or(MOST);
    Ok(datagram::opener(Receiver(HostPort::parse(rest)?), usize::try_from(most).unwrap_or(usize::MAX)))
}

struct Receiver(HostPort);

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "udp {}", self.0)
    }
}

impl Peer for Receiver {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Socket>>> {
        async {
            let mut last = io::Error::other("the name has no address");
            for address in tokio::net::lookup_host((self.0.host.as_str(), self.0.port)).await? {
                match connect(address).await {
                    Ok(socket) => return Ok(Box::new(socket) as Box<dyn Socket>),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        .boxed()
    }

    fn fix(&self, error: &io::Error) -> String {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            return "nothing listens there: start the receiver or mend the address; UDP acknowledges nothing, and what \
                    was sent while nobody listened is lost"
                .to_owned();
        }
        match error.raw_os_error() {
            None => format!("look at the name {} and the resolver (DNS)", self.0.host),
            Some(_) => "look at the address, the route and firewalls".to_owned(),
        }
    }

    fn found(&self) -> &'static str {
        "its address is known; whether somebody listens cannot be asked, because UDP acknowledges nothing"
    }
}

async fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

impl Socket for UdpSocket {
    fn send<'a>(&'a self, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        async move {
            UdpSocket::send(self, bytes).await?;
            // A receiver on this host has refused it by now.
            self.answered()
        }
        .boxed()
    }

    fn answered(&self) -> io::Result<()> {
        self.take_error()?.map_or(Ok(()), Err)
    }
}
