//! `unixgram:PATH`: datagrams to whoever is bound to that socket.
//!
//! They are not lost on the way: a send ends when the receiver has read its datagram, and waits while its queue is full.

use std::fmt;
use std::io;
use std::os::unix::net::UnixDatagram as Plain;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use socket2::SockRef;
use tokio::net::UnixDatagram;

use super::Opener;
use super::datagram::{self, Peer, Socket};
use super::explain::error_text;
use super::options::{OptionInfo, Options};
use super::scheme::Built;
use super::stream::held;
use super::unix::{fix, socket_path};

pub(super) const BUILT: Built = Built { parse, options: &[&OPTIONS] };

const OPTIONS: [OptionInfo; 1] = [OptionInfo::new(
    "max-datagram",
    "SIZE (default what net.core.wmem_default allows)",
    "Largest datagram, bytes; net.core.wmem_max bounds it.",
)];

/// What the kernel keeps of the send buffer (`unix_dgram_sendmsg` in `net/unix/af_unix.c`).
const KEPT: usize = 32;

fn parse(rest: &str, options: &Options) -> Result<Arc<dyn Opener>, String> {
    let wanted = options.bytes("max-datagram", 512, 64 << 20)?;
    let wanted = wanted.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
    let path = socket_path(rest)?;
    let possible =
        room(wanted).map_err(|error| format!("a socket cannot be made: {}", error_text(&error)))?;
    if let Some(wanted) = wanted
        && wanted > possible
    {
        return Err(format!(
            "option max-datagram={wanted}: this kernel takes {possible} at most: raise net.core.wmem_max"
        ));
    }
    let most = wanted.unwrap_or(possible);
    Ok(datagram::opener(Receiver { path, most: wanted }, most))
}

/// How large a datagram may be, in a socket that was made for such datagrams.
fn room(wanted: Option<usize>) -> io::Result<usize> {
    let socket = Plain::unbound()?;
    enlarge(&socket, wanted)?;
    Ok(SockRef::from(&socket).send_buffer_size()?.saturating_sub(KEPT))
}

fn enlarge(socket: &Plain, wanted: Option<usize>) -> io::Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    let buffer = wanted.saturating_add(KEPT);
    if SockRef::from(socket).send_buffer_size()? < buffer {
        // The kernel doubles what it is told.
        SockRef::from(socket).set_send_buffer_size(buffer.div_ceil(2))?;
    }
    Ok(())
}

struct Receiver {
    path: PathBuf,
    most: Option<usize>,
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unixgram {}", self.path.display())
    }
}

impl Peer for Receiver {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Socket>>> {
        async {
            let socket = Plain::unbound()?;
            enlarge(&socket, self.most)?;
            socket.connect(&self.path)?;
            socket.set_nonblocking(true)?;
            Ok(Box::new(UnixDatagram::from_std(socket)?) as Box<dyn Socket>)
        }
        .boxed()
    }

    fn fix(&self, error: &io::Error) -> String {
        fix(error)
    }

    fn found(&self) -> &'static str {
        "somebody is bound to it"
    }
}

impl Socket for UnixDatagram {
    fn send<'a>(&'a self, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        async move {
            UnixDatagram::send(self, bytes).await?;
            let mut pause = Duration::from_millis(1);
            while held(self)? > 0 {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            self.answered()
        }
        .boxed()
    }

    fn answered(&self) -> io::Result<()> {
        self.take_error()?.map_or(Ok(()), Err)
    }
}
