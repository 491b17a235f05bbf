//! Rows live: one stream of chunks, many gRPC clients. A client that falls behind loses whole chunks, counted in rows;
//! collection never waits. Without clients publishing costs one atomic load.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::Stream;
use prometheus::IntCounter;
use tokio::sync::mpsc;
use tonic::Status;

use super::codec::Encoded;
use crate::record::{RowChunk, Rows};

/// Chunks that one client's queue holds at most.
const QUEUED_CHUNKS: usize = 4096;
/// Places in the queue that only ends of polls may take.
const RESERVED: usize = 16;

/// Gives every chunk of rows to every client's queue. Clones are the same hub.
#[derive(Clone)]
pub struct RowHub {
    shared: Arc<Shared>,
}

struct Shared {
    clients: AtomicUsize,
    state: Mutex<State>,
    queued_bytes: usize,
}

#[derive(Default)]
struct State {
    clients: Vec<Client>,
    closed: bool,
}

struct Client {
    queue: mpsc::Sender<Received>,
    bytes: Arc<AtomicUsize>,
    dropped: IntCounter,
}

/// What a client receives.
pub(super) enum Received {
    /// Rows.
    Rows(RowChunk),
    /// As in [`RowHub::poll_ended`].
    PollEnded(u64),
}

impl RowHub {
    /// A hub whose clients' queues hold at most `queued_bytes` of rows each (one chunk always fits) and 4 096 chunks.
    pub fn new(queued_bytes: usize) -> Self {
        Self {
            shared: Arc::new(Shared { clients: AtomicUsize::new(0), state: Mutex::default(), queued_bytes }),
        }
    }

    /// How many bytes of rows a client's queue holds at most.
    pub(super) fn queued_bytes(&self) -> usize {
        self.shared.queued_bytes
    }

    /// Publishes rows. Never waits.
    pub fn publish(&self, chunk: &RowChunk) {
        if !chunk.rows.is_empty() {
            self.send(|client| client.rows(chunk, self.shared.queued_bytes));
        }
    }

    /// Says that all rows of poll `number`, and of every poll before it, have been published. A client that asked for
    /// polls and will ask no more gets its end after the last one.
    pub fn poll_ended(&self, number: u64) {
        self.send(|client| match client.queue.try_send(Received::PollEnded(number)) {
            // Full, not even a reserved place: the end of a later poll ends this one too.
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }

    /// Number of clients.
    pub fn clients(&self) -> usize {
        self.shared.clients.load(Ordering::Acquire)
    }

    /// Ends the stream: clients still get what is queued for them, then their end.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.clients.clear();
        self.shared.clients.store(0, Ordering::Release);
    }

    /// Adds a client of what is published from now on; `dropped` counts the rows that it loses.
    pub(super) fn subscribe(&self, dropped: IntCounter) -> RowReceiver {
        let (queue, receiver) = mpsc::channel(QUEUED_CHUNKS);
        let bytes = Arc::new(AtomicUsize::new(0));
        let mut state = self.lock();
        if !state.closed {
            state.clients.push(Client { queue, bytes: Arc::clone(&bytes), dropped });
            self.shared.clients.store(state.clients.len(), Ordering::Release);
        }
        RowReceiver { receiver, bytes }
    }

    /// Calls `send` for each client and forgets those for which it says false.
    fn send(&self, send: impl FnMut(&Client) -> bool) {
        if self.clients() == 0 {
            return;
        }
        let mut state = self.lock();
        state.clients.retain(send);
        self.shared.clients.store(state.clients.len(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Queues rows or counts them as dropped; false when the client is gone.
    fn rows(&self, chunk: &RowChunk, most: usize) -> bool {
        if self.queue.is_closed() {
            return false;
        }
        let size = chunk.rows.byte_len();
        let queued = self.bytes.load(Ordering::Acquire);
        let fits = queued == 0 || queued.saturating_add(size) <= most;
        if !fits || self.queue.capacity() <= RESERVED {
            self.dropped.inc_by(u64::try_from(chunk.rows.len()).unwrap_or(u64::MAX));
            return true;
        }
        self.bytes.fetch_add(size, Ordering::AcqRel);
        // Only the hub sends, under its lock: the place is still there unless the client went.
        self.queue.try_send(Received::Rows(chunk.clone())).is_ok()
    }
}

/// A client's end of its queue. Dropping it leaves the hub.
pub(super) struct RowReceiver {
    receiver: mpsc::Receiver<Received>,
    bytes: Arc<AtomicUsize>,
}

impl RowReceiver {
    /// The next that was published; `None` after the hub was closed.
    pub(super) async fn receive(&mut self) -> Option<Received> {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        let received = std::task::ready!(self.receiver.poll_recv(cx));
        if let Some(Received::Rows(chunk)) = &received {
            self.bytes.fetch_sub(chunk.rows.byte_len(), Ordering::AcqRel);
        }
        Poll::Ready(received)
    }
}

/// Every chunk.
impl Stream for RowReceiver {
    type Item = Result<RowChunk, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match std::task::ready!(this.poll_receive(cx)) {
                Some(Received::Rows(chunk)) => return Poll::Ready(Some(Ok(chunk))),
                Some(Received::PollEnded(_)) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}

/// One row of a chunk.
pub(super) struct Row {
    rows: Arc<Rows>,
    number: usize,
}

impl Encoded for Row {
    fn bytes(&self) -> &[u8] {
        self.rows.range(self.number..self.number + 1).next().unwrap_or_default()
    }
}

/// Chunks, row by row.
pub(super) struct RowStream<C> {
    chunks: C,
    current: Option<(Arc<Rows>, usize)>,
    sent: IntCounter,
}

impl<C> RowStream<C> {
    /// `sent` counts the rows.
    pub(super) fn new(chunks: C, sent: IntCounter) -> Self {
        Self { chunks, current: None, sent }
    }
}

impl<C: Stream<Item = Result<RowChunk, Status>> + Unpin> Stream for RowStream<C> {
    type Item = Result<Row, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some((rows, next)) = &mut this.current {
                if *next < rows.len() {
                    let row = Row { rows: Arc::clone(rows), number: *next };
                    *next += 1;
                    this.sent.inc();
                    return Poll::Ready(Some(Ok(row)));
                }
                this.current = None;
            }
            match std::task::ready!(Pin::new(&mut this.chunks).poll_next(cx)) {
                Some(Ok(chunk)) => this.current = Some((chunk.rows, 0)),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }
}
