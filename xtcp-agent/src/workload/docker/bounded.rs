//! The way to a socket with the Docker API: a connection for each request, and no more of what comes back than an
//! allowance. The client that sits on top gathers answers, and events up to their end, in memory.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bollard::BollardRequest;
use bollard::errors::Error;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::{Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// An event may be so many times shorter than an answer: what has come of one is read anew with each piece that comes.
const EVENTS_SHARE: usize = 8;

/// What may still come in a session. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Allowances {
    answers: Allowance,
    events: Allowance,
}

impl Allowances {
    /// So many bytes in an answer.
    pub(super) fn new(longest: usize) -> Self {
        Self { answers: Allowance::new(longest), events: Allowance::new(longest / EVENTS_SHARE) }
    }

    /// The events that have come until now were taken in.
    pub(super) fn event_taken(&self) {
        self.events.renew();
    }

    /// Something was longer than allowed.
    pub(super) fn are_spent(&self) -> bool {
        self.answers.is_spent() || self.events.is_spent()
    }

    /// What the answer to this request may draw on, which is full.
    fn of(&self, request: &BollardRequest) -> Allowance {
        let allowance = if request.uri().path().ends_with("/events") { &self.events } else { &self.answers };
        allowance.renew();
        allowance.clone()
    }
}

/// How many bytes may still come. A clone is the same.
#[derive(Clone, Debug)]
struct Allowance {
    left: Arc<AtomicUsize>,
    full: usize,
}

impl Allowance {
    fn new(full: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(full)), full }
    }

    fn renew(&self) {
        self.left.store(self.full, Ordering::Relaxed);
    }

    fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// Takes from it; once there is too little nothing is left.
    fn take(&self, bytes: usize) -> io::Result<()> {
        let take = |left: usize| Some(left.saturating_sub(bytes));
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(left) if left > bytes => Ok(()),
            _ => Err(io::Error::other(format!("more than {} bytes without an end", self.full))),
        }
    }
}

/// Asks over a new connection, which ends with its answer.
pub(super) async fn ask(
    socket: PathBuf,
    allowances: Allowances,
    mut request: BollardRequest,
) -> Result<Response<Incoming>, Error> {
    let allowance = allowances.of(&request);
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(Metered { stream, allowance })).await?;
    // How it ends is told with the answer.
    tokio::spawn(connection);
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(path);
    }
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    Ok(sender.send_request(request).await?)
}

/// A connection of which no more is read than allowed.
struct Metered {
    stream: UnixStream,
    allowance: Allowance,
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        Poll::Ready(this.allowance.take(buffer.filled().len().saturating_sub(before)))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
