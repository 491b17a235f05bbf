//! `tcp:HOST:PORT`: a stream of batches to whoever listens there.

use std::fmt;
use std::io;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::TcpStream;

use super::Opener;
use super::host_port::HostPort;
use super::options::Options;
use super::scheme::Built;
use super::stream::{self, Peer, Socket, common_fix};

pub(super) const BUILT: Built = Built { parse, options: &[&stream::OPTIONS] };

fn parse(rest: &str, options: &Options) -> Result<Arc<dyn Opener>, String> {
    stream::opener(Listener(HostPort::parse(rest)?), options)
}

struct Listener(HostPort);

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp {}", self.0)
    }
}

impl Peer for Listener {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Socket>>> {
        async {
            // The name is resolved each time: it may have moved.
            let socket = TcpStream::connect((self.0.host.as_str(), self.0.port)).await?;
            // Each batch is written at once; its end must not wait for an acknowledgement of its beginning.
            socket.set_nodelay(true)?;
            Ok(Box::new(socket) as Box<dyn Socket>)
        }
        .boxed()
    }

    fn fix(&self, error: &io::Error) -> String {
        match common_fix(error) {
            Some(fix) => fix.to_owned(),
            None if error.raw_os_error().is_none() => {
                format!("look at the name {} and the resolver (DNS)", self.0.host)
            }
            None => "look at the address".to_owned(),
        }
    }
}
