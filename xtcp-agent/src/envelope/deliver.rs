//! The task between the queue and the destination.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Batch, Batcher, Cause, Limits, Metrics};
use crate::destination::{self, Destination, Payload, SendError};
use crate::marshaller::Marshaller;
use crate::record::{Reason, RowChunk};

/// How batches are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When a batch is full.
    pub limits: Limits,
    /// How long to wait after the first failed send of a batch; doubles with each further one. Default 100 ms.
    pub retry_min: Duration,
    /// The longest wait between two sends of a batch. Default 10 s.
    pub retry_max: Duration,
    /// How long what is queued when the agent ends may take to leave; what has not is dropped and counted. Default
    /// 5 s.
    pub drain: Duration,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }
}

/// Why delivery ended before it was told to, or could not end well.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The destination takes nothing any more. All rows queued were dropped and counted.
    #[error("destination {0}")]
    Destination(#[source] SendError),
    /// The destination did not take everything in time at the end. The rest was dropped and counted.
    #[error("{rows} rows had not left when the time to drain was over")]
    Late {
        /// How many rows were dropped.
        rows: usize,
    },
}

/// Batches what comes out of `chunks` and delivers it, until `shutdown` or until every sender is gone; then delivers
/// what is left, and flushes. While a destination asks for retries the queue fills and its own policy holds.
pub async fn run(
    mut chunks: mpsc::Receiver<RowChunk>,
    delivery: Delivery,
    marshaller: &'static dyn Marshaller,
    destination: Box<dyn Destination>,
    metrics: (Metrics, destination::Metrics),
    shutdown: CancellationToken,
) -> Result<(), DeliveryError> {
    let mut batcher = Batcher::new(delivery.limits);
    let mut sender = Sender {
        marshaller,
        destination,
        metrics: metrics.0,
        sends: metrics.1,
        retry: (delivery.retry_min, delivery.retry_max),
        end: End { shutdown: shutdown.clone(), drain: delivery.drain, deadline: None },
        failed: None,
        late: 0,
    };
    let mut full = Vec::new();
    while sender.failed.is_none() {
        sender.metrics.pending(batcher.pending());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            () = due(batcher.deadline()) => full.extend(batcher.close().map(|batch| (batch, Cause::Age))),
            chunk = chunks.recv() => match chunk {
                Some(chunk) => sender.fill(&mut batcher, &chunk, &mut full),
                None => break,
            },
        }
        sender.deliver(&mut full).await;
    }
    // Nothing more comes in; what is queued is still handed out.
    chunks.close();
    sender.end.begin();
    while let Some(chunk) = chunks.recv().await {
        sender.fill(&mut batcher, &chunk, &mut full);
        sender.deliver(&mut full).await;
    }
    full.extend(batcher.close().map(|batch| (batch, Cause::Shutdown)));
    sender.deliver(&mut full).await;
    sender.metrics.pending(0);
    sender.finish().await
}

async fn due(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// How the agent's end bounds delivery.
struct End {
    shutdown: CancellationToken,
    drain: Duration,
    /// Set once the end has begun.
    deadline: Option<Instant>,
}

impl End {
    fn begin(&mut self) {
        self.deadline.get_or_insert_with(|| Instant::now() + self.drain);
    }

    /// Ends when the end begins; never once it has begun.
    async fn begun(&mut self) {
        if self.deadline.is_some() {
            return std::future::pending().await;
        }
        self.shutdown.cancelled().await;
        self.begin();
    }

    /// Ends when the time to drain is over.
    async fn over(&mut self) {
        if self.deadline.is_none() {
            self.shutdown.cancelled().await;
            self.begin();
        }
        due(self.deadline).await;
    }
}

struct Sender {
    marshaller: &'static dyn Marshaller,
    destination: Box<dyn Destination>,
    metrics: Metrics,
    sends: destination::Metrics,
    /// Shortest and longest wait.
    retry: (Duration, Duration),
    end: End,
    /// The error after which nothing can be sent.
    failed: Option<SendError>,
    /// Rows given up because the time to drain was over; nothing is sent once there are any.
    late: usize,
}

impl Sender {
    fn fill(&self, batcher: &mut Batcher, chunk: &RowChunk, full: &mut Vec<(Batch, Cause)>) {
        self.metrics.received(chunk.rows.len());
        let now = Instant::now();
        batcher.push(&chunk.rows, now, |batch, cause| full.push((batch, cause)));
        if chunk.reason == Reason::TcpState {
            batcher.hurry(now);
        }
    }

    async fn deliver(&mut self, full: &mut Vec<(Batch, Cause)>) {
        for (batch, cause) in full.drain(..) {
            self.metrics.closed(cause);
            if self.failed.is_some() {
                self.sends.dropped(batch.len());
            } else if self.late > 0 {
                self.give_up(batch.len());
            } else if let Some(payload) = self.marshal(&batch) {
                self.send(&payload).await;
            }
        }
    }

    fn marshal(&self, batch: &Batch) -> Option<Payload> {
        let mut bytes = Vec::new();
        match self.marshaller.marshal(batch, &mut bytes) {
            Ok(()) => Some(Payload {
                bytes: Bytes::from(bytes),
                header: self.marshaller.header_len(),
                rows: batch.len(),
                id: format!("{}-0", batch.id()).into(),
            }),
            Err(error) => {
                tracing::error!(batch = batch.id(), rows = batch.len(), %error, "batch dropped");
                self.metrics.not_marshalled(batch.len());
                None
            }
        }
    }

    /// Sends until the destination takes the batch or it is dropped and counted.
    async fn send(&mut self, payload: &Payload) {
        let mut wait = self.retry.0;
        let mut failures = 0_u64;
        loop {
            let begun = Instant::now();
            let result = tokio::select! {
                biased;
                result = self.destination.send(payload) => result,
                () = self.end.over() => return self.give_up(payload.rows),
            };
            self.sends.sent(payload, begun.elapsed(), &result);
            match result {
                Ok(()) if failures > 0 => {
                    tracing::info!(failures, "destination takes batches again");
                    return;
                }
                Ok(()) => return,
                Err(SendError::Drop(error)) => {
                    tracing::error!(rows = payload.rows, %error, "batch dropped");
                    return self.sends.dropped(payload.rows);
                }
                Err(error @ SendError::Fatal(_)) => {
                    self.sends.dropped(payload.rows);
                    self.failed = Some(error);
                    return;
                }
                Err(SendError::Retry(error)) if failures == 0 => {
                    tracing::warn!(%error, "destination does not take a batch, which is sent again until it does");
                }
                Err(SendError::Retry(error)) => {
                    tracing::debug!(%error, failures, "destination does not take a batch");
                }
            }
            failures += 1;
            let Some(next) = self.pause(wait).await else {
                return self.give_up(payload.rows);
            };
            wait = next;
        }
    }

    /// Waits before a retry, and says how long to wait before the next one; `None` when the time to drain is over.
    async fn pause(&mut self, wait: Duration) -> Option<Duration> {
        let mut wake = Instant::now() + wait;
        if let Some(deadline) = self.end.deadline {
            wake = wake.min(deadline);
        }
        tokio::select! {
            // There is little time left: try at once, and often.
            () = self.end.begun() => return Some(self.retry.0),
            () = sleep_until(wake) => {}
        }
        let over = self.end.deadline.is_some_and(|deadline| deadline <= Instant::now());
        (!over).then(|| (wait * 2).min(self.retry.1))
    }

    fn give_up(&mut self, rows: usize) {
        self.late += rows;
        self.sends.dropped(rows);
    }

    async fn finish(mut self) -> Result<(), DeliveryError> {
        if let Some(error) = self.failed {
            return Err(DeliveryError::Destination(error));
        }
        if self.late > 0 {
            return Err(DeliveryError::Late { rows: self.late });
        }
        tokio::select! {
            biased;
            result = self.destination.flush() => result.map_err(DeliveryError::Destination),
            () = self.end.over() => Err(DeliveryError::Late { rows: 0 }),
        }
    }
}
