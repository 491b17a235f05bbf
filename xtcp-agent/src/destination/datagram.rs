//! What `udp:` and `unixgram:` share: each batch is one datagram, and never larger than one can be.

use std::fmt;
use std::io;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::explain::error_text;
use super::{Cause, Context, Destination, Opener, Payload, SendError};

/// A socket that sends to one peer.
pub(super) trait Socket: Send + Sync {
    /// Sends one datagram and waits as long as there is something to wait for.
    fn send<'a>(&'a self, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>>;

    /// What came back for an earlier datagram.
    fn answered(&self) -> io::Result<()>;
}

/// Whom to send to; shown as the start of a message.
pub(super) trait Peer: fmt::Display + Send + Sync + 'static {
    /// Finds the peer and makes a socket that sends to it.
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Socket>>>;

    /// What to do about an error.
    fn fix(&self, error: &io::Error) -> String;

    /// What a check says when there was no error.
    fn found(&self) -> &'static str;
}

struct DatagramOpener<P> {
    peer: Arc<P>,
    most: usize,
}

/// What sends datagrams of at most `most` bytes to `peer`.
pub(super) fn opener(peer: impl Peer, most: usize) -> Arc<dyn Opener> {
    Arc::new(DatagramOpener { peer: Arc::new(peer), most })
}

impl<P: Peer> Opener for DatagramOpener<P> {
    fn open(&self, _: &Context) -> Result<Box<dyn Destination>, Cause> {
        Ok(Box::new(Datagrams { peer: Arc::clone(&self.peer), most: self.most, socket: None }))
    }

    fn max_payload(&self) -> Option<usize> {
        Some(self.most)
    }
}

struct Datagrams<P> {
    peer: Arc<P>,
    most: usize,
    socket: Option<Box<dyn Socket>>,
}

impl<P: Peer> Datagrams<P> {
    async fn attempt(&mut self, payload: &Payload) -> Result<(), SendError> {
        let length = payload.bytes.len();
        if length > self.most {
            return Err(
                self.too_large(length, &format!("more than the {} that max-datagram allows", self.most))
            );
        }
        // After an error the name is resolved anew: it may have moved.
        let socket = match self.socket.take() {
            Some(socket) => {
                socket.answered().map_err(|error| self.retry("an earlier datagram came back", &error))?;
                socket
            }
            None => self.connect().await?,
        };
        match socket.send(&payload.bytes).await {
            Ok(()) => {
                self.socket = Some(socket);
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                self.socket = Some(socket);
                Err(self.too_large(length, "more than the way there takes (EMSGSIZE): lower max-datagram"))
            }
            Err(error) => Err(self.retry("cannot send", &error)),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Socket>, SendError> {
        self.peer.connect().await.map_err(|error| self.retry("cannot find the receiver", &error))
    }

    fn retry(&self, what: &str, error: &io::Error) -> SendError {
        let text = error_text(error);
        SendError::Retry(format!("{}: {what}: {text}: {}", self.peer, self.peer.fix(error)).into())
    }

    fn too_large(&self, length: usize, why: &str) -> SendError {
        SendError::Drop(format!("{}: the datagram has {length} bytes, {why}", self.peer).into())
    }
}

impl<P: Peer> Destination for Datagrams<P> {
    fn send<'a>(&'a mut self, payload: &'a Payload) -> BoxFuture<'a, Result<(), SendError>> {
        self.attempt(payload).boxed()
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SendError>> {
        // A send that succeeded has left the process.
        ready(Ok(())).boxed()
    }

    fn probe(&mut self) -> BoxFuture<'_, Result<String, SendError>> {
        async {
            self.socket = Some(self.connect().await?);
            Ok(format!("{}: {}", self.peer, self.peer.found()))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
