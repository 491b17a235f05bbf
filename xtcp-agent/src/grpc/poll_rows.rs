//! The rows of exactly the polls that one client asked for.

use std::collections::{BTreeSet, VecDeque};

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use prometheus::IntCounter;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::PollRequest;
use super::row_hub::{Received, RowReceiver};
use crate::record::RowChunk;

/// Requests of one client that may wait for their poll's number; more stay on the wire.
const PENDING: usize = 64;
/// Poll numbers that are remembered when no poll's end is ever said.
const WANTED: usize = 1024;

/// Rows that arrived while it was not yet known whether they are wanted: a poll's first rows can be here before the
/// answer that tells its number.
struct Held {
    chunks: VecDeque<RowChunk>,
    bytes: usize,
    most: usize,
    dropped: IntCounter,
}

impl Held {
    fn push(&mut self, chunk: RowChunk) {
        self.bytes += chunk.rows.byte_len();
        self.chunks.push_back(chunk);
        while self.bytes > self.most && self.chunks.len() > 1 {
            let Some(oldest) = self.chunks.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(oldest.rows.byte_len());
            self.dropped.inc_by(u64::try_from(oldest.rows.len()).unwrap_or(u64::MAX));
        }
    }

    /// Takes the chunks of a poll.
    fn take(&mut self, poll: u64) -> Vec<RowChunk> {
        let (wanted, others): (VecDeque<_>, VecDeque<_>) =
            self.chunks.drain(..).partition(|chunk| chunk.poll == poll);
        self.bytes = others.iter().map(|chunk| chunk.rows.byte_len()).sum();
        self.chunks = others;
        wanted.into()
    }

    fn clear(&mut self) {
        self.chunks.clear();
        self.bytes = 0;
    }
}

/// One client's conversation.
pub(super) struct PollRows<R> {
    requests: Option<R>,
    polls: mpsc::Sender<PollRequest>,
    rows: RowReceiver,
    output: mpsc::Sender<Result<RowChunk, Status>>,
    pending: FuturesUnordered<oneshot::Receiver<u64>>,
    wanted: BTreeSet<u64>,
    held: Held,
    ended: u64,
}

impl<R, Q> PollRows<R>
where
    R: Stream<Item = Result<Q, Status>> + Unpin,
{
    /// `held` bounds the bytes of rows that wait for their poll's number; `dropped` counts the rows beyond it.
    pub(super) fn new(
        requests: R,
        polls: mpsc::Sender<PollRequest>,
        rows: RowReceiver,
        output: mpsc::Sender<Result<RowChunk, Status>>,
        (held, dropped): (usize, IntCounter),
    ) -> Self {
        Self {
            requests: Some(requests),
            polls,
            rows,
            output,
            pending: FuturesUnordered::new(),
            wanted: BTreeSet::new(),
            held: Held { chunks: VecDeque::new(), bytes: 0, most: held, dropped },
            ended: 0,
        }
    }

    /// Runs until the client is gone, or it asks no more and has all rows, or the agent ends.
    pub(super) async fn run(mut self) {
        let output = self.output.clone();
        tokio::select! {
            result = self.follow() => if let Err(status) = result {
                // The client is gone: nobody to tell.
                let _ = output.send(Err(status)).await;
            },
            () = output.closed() => {}
        }
    }

    async fn follow(&mut self) -> Result<(), Status> {
        loop {
            let asked = async {
                match &mut self.requests {
                    Some(requests) => requests.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                request = asked, if self.pending.len() < PENDING => match request {
                    Some(Ok(_)) => self.ask()?,
                    Some(Err(status)) => return Err(status),
                    None => self.requests = None,
                },
                Some(answer) = self.pending.next() => {
                    let poll = answer.map_err(|_| Status::unavailable("the agent ends"))?;
                    self.answered(poll).await;
                }
                received = self.rows.receive() => match received {
                    Some(Received::Rows(chunk)) => self.arrived(chunk).await,
                    Some(Received::PollEnded(poll)) => {
                        self.ended = self.ended.max(poll);
                        self.wanted.retain(|&wanted| wanted > poll);
                    }
                    None => return Ok(()),
                },
            }
            if self.pending.is_empty() {
                self.held.clear();
                if self.requests.is_none() && self.wanted.is_empty() {
                    return Ok(());
                }
            }
        }
    }

    fn ask(&mut self) -> Result<(), Status> {
        let (reply, answer) = oneshot::channel();
        match self.polls.try_send(PollRequest { reply }) {
            Ok(()) => {
                self.pending.push(answer);
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(Status::resource_exhausted("too many polls are asked for at once"))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Status::unavailable("the agent ends")),
        }
    }

    async fn answered(&mut self, poll: u64) {
        for chunk in self.held.take(poll) {
            self.send(chunk).await;
        }
        if poll > self.ended {
            self.wanted.insert(poll);
        }
        if self.wanted.len() > WANTED {
            self.wanted.pop_first();
        }
    }

    async fn arrived(&mut self, chunk: RowChunk) {
        if self.wanted.contains(&chunk.poll) {
            self.send(chunk).await;
        } else if chunk.poll != 0 && !self.pending.is_empty() {
            self.held.push(chunk);
        }
    }

    async fn send(&self, chunk: RowChunk) {
        // The client is gone: `run` sees it too.
        let _ = self.output.send(Ok(chunk)).await;
    }
}
