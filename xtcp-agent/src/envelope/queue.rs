//! The queue in front of the envelope.

use std::time::Duration;

use tokio::sync::mpsc::{self, error::SendTimeoutError};

use super::Metrics;
use crate::record::RowChunk;

/// The queue's entrance. Clones lead to the same queue, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct RowSender {
    chunks: mpsc::Sender<RowChunk>,
    metrics: Metrics,
}

/// A queue that holds at most `capacity` chunks (at least 1). What does not fit is dropped and counted: a slow
/// destination never slows a poll.
pub fn queue(capacity: usize, metrics: Metrics) -> (RowSender, mpsc::Receiver<RowChunk>) {
    let (chunks, receiver) = mpsc::channel(capacity.max(1));
    (RowSender { chunks, metrics }, receiver)
}

impl RowSender {
    /// Queues a chunk, or drops and counts its rows. Whether it was queued.
    pub fn offer(&self, chunk: RowChunk) -> bool {
        match self.chunks.try_send(chunk) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(chunk) | mpsc::error::TrySendError::Closed(chunk)) => {
                self.metrics.refused(chunk.rows.len());
                false
            }
        }
    }

    /// Queues a chunk, waiting for room at most `patience`; then drops and counts its rows. Whether it was queued.
    pub async fn offer_within(&self, chunk: RowChunk, patience: Duration) -> bool {
        match self.chunks.send_timeout(chunk, patience).await {
            Ok(()) => true,
            Err(SendTimeoutError::Timeout(chunk) | SendTimeoutError::Closed(chunk)) => {
                self.metrics.refused(chunk.rows.len());
                false
            }
        }
    }
}
