//! What `tcp:` and `unix:` share: one connection, one batch behind the other on it, each behind its length.
//!
//! Nobody on the other side says what it has. A send ends when the kernel holds nothing of the batch any more: then the
//! peer's kernel has acknowledged it (TCP) or its program has read it (Unix). What a connection swallows that the peer has
//! closed meanwhile is therefore noticed, and sent again on the next one.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::explain::error_text;
use super::options::{OptionInfo, Options};
use super::{Cause, Context, Destination, Opener, Payload, SendError};
use crate::sys::{PlainOption, socket_option};

pub(super) const OPTIONS: [OptionInfo; 1] = [OptionInfo::new(
    "framing",
    "length|none (default length)",
    "What stands before each batch: its length in bytes as a protobuf varint, or nothing; csv and tsv then name their \
     columns once for each connection.",
)];

/// Longest pause between two looks at what the kernel still holds.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// Where `SO_MEMINFO` tells how much is sent and not yet read, and how much is queued and not yet acknowledged
/// (`SK_MEMINFO_WMEM_ALLOC`, `SK_MEMINFO_WMEM_QUEUED` in `linux/sock_diag.h`, 4.12).
const NOT_YET_TAKEN: [usize; 2] = [2, 5];

/// A connected socket.
pub(super) trait Socket: AsyncWrite + AsFd + Send + Sync + Unpin {}
impl<T: AsyncWrite + AsFd + Send + Sync + Unpin> Socket for T {}

/// Whom to connect to; shown as the start of a message.
pub(super) trait Peer: fmt::Display + Send + Sync + 'static {
    /// Connects.
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Socket>>>;

    /// What to do about an error of connecting.
    fn fix(&self, error: &io::Error) -> String;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Nothing,
}

struct StreamOpener<P> {
    peer: Arc<P>,
    framing: Framing,
}

/// What opens streams to `peer`.
pub(super) fn opener(peer: impl Peer, options: &Options) -> Result<Arc<dyn Opener>, String> {
    let framing = options.one_of("framing", &[("length", Framing::Length), ("none", Framing::Nothing)])?;
    Ok(Arc::new(StreamOpener { peer: Arc::new(peer), framing: framing.unwrap_or(Framing::Length) }))
}

impl<P: Peer> Opener for StreamOpener<P> {
    fn open(&self, _: &Context) -> Result<Box<dyn Destination>, Cause> {
        Ok(Box::new(Stream { peer: Arc::clone(&self.peer), framing: self.framing, socket: None }))
    }
}

struct Stream<P> {
    peer: Arc<P>,
    framing: Framing,
    /// Holds whole batches only.
    socket: Option<Box<dyn Socket>>,
}

impl<P: Peer> Stream<P> {
    async fn attempt(&mut self, payload: &Payload) -> Result<(), SendError> {
        // Whoever gives this up between two bytes gives the connection up with it.
        let open = self.socket.take().filter(|socket| look(&**socket).is_ok_and(|open| open));
        let first = open.is_none();
        let mut socket = match open {
            Some(socket) => socket,
            None => self.connect().await?,
        };
        let write = async {
            write(&mut socket, self.framing, first, payload).await?;
            taken(&*socket).await
        };
        let still_open = write.await.map_err(|error| {
            let text = error_text(&error);
            self.retry(format_args!("the connection broke: {text}: the batch is sent again on a new one"))
        })?;
        self.socket = still_open.then_some(socket);
        Ok(())
    }

    async fn connect(&self) -> Result<Box<dyn Socket>, SendError> {
        self.peer.connect().await.map_err(|error| {
            self.retry(format_args!("cannot connect: {}: {}", error_text(&error), self.peer.fix(&error)))
        })
    }

    fn retry(&self, problem: impl fmt::Display) -> SendError {
        SendError::Retry(format!("{}: {problem}", self.peer).into())
    }
}

async fn write(
    socket: &mut Box<dyn Socket>,
    framing: Framing,
    first: bool,
    payload: &Payload,
) -> io::Result<()> {
    let mut prefix = Vec::new();
    let mut bytes = payload.bytes.clone();
    match framing {
        Framing::Length => {
            prost::encode_length_delimiter(bytes.len(), &mut prefix).map_err(io::Error::other)?;
        }
        Framing::Nothing if !first => bytes.advance(payload.header.min(bytes.len())),
        Framing::Nothing => {}
    }
    // Both at once: a reader that shows what comes sees no prefix alone, and the network no packet of three bytes.
    socket.write_all_buf(&mut prefix.as_slice().chain(bytes)).await
}

/// Waits until the kernel holds nothing that was written any more; false when the peer closed in good order behind it.
async fn taken(socket: &dyn Socket) -> io::Result<bool> {
    let mut pause = Duration::from_millis(1);
    for _ in 0..4 {
        if held(socket)? == 0 {
            return look(socket);
        }
        tokio::task::yield_now().await;
    }
    while held(socket)? > 0 {
        // A peer that reads no more and broke off says so here.
        look(socket)?;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    look(socket)
}

/// Bytes of memory, more than were written, of what the peer has not taken yet.
pub(super) fn held(socket: &(impl AsFd + ?Sized)) -> io::Result<u32> {
    let mut buffer = [0; 36];
    let length = socket_option(socket.as_fd(), PlainOption::SO_MEMINFO, &mut buffer)?;
    let (words, _) = buffer.get(..length).unwrap_or_default().as_chunks::<4>();
    Ok(NOT_YET_TAKEN.iter().filter_map(|&word| words.get(word)).map(|word| u32::from_ne_bytes(*word)).sum())
}

/// Whether the peer still has its end open. What it said is thrown away: nothing was asked. A connection that broke is
/// an error.
fn look(socket: &dyn Socket) -> io::Result<bool> {
    let mut chatter = [0; 4096];
    loop {
        match recv(socket.as_fd().as_raw_fd(), &mut chatter, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

impl<P: Peer> Destination for Stream<P> {
    fn send<'a>(&'a mut self, payload: &'a Payload) -> BoxFuture<'a, Result<(), SendError>> {
        self.attempt(payload).boxed()
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SendError>> {
        // A send that succeeded was taken.
        ready(Ok(())).boxed()
    }

    fn probe(&mut self) -> BoxFuture<'_, Result<String, SendError>> {
        async {
            self.socket = Some(self.connect().await?);
            Ok(format!("{} accepts connections", self.peer))
        }
        .boxed()
    }
}

/// What to do about an error of connecting that every kind of peer knows.
pub(super) fn common_fix(error: &io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        ErrorKind::ConnectionRefused => "nothing listens there: start the receiver or mend the address",
        ErrorKind::TimedOut => "nobody answers: look at the host, the route and firewalls",
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            "look at the address and the route to it"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
