//! The task between the queue and the destinations: closes batches and hands them out.

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Batch, Batcher, Cause, Limits, Metrics};
use crate::delivery::{DeliveryError, Outlets};
use crate::record::tally::Tally;
use crate::record::{Reason, RowChunk};

/// Batches what comes out of `chunks` and hands it out, until `shutdown` or until every sender is gone; then hands out
/// what is left, and waits for the destinations. The number of the last row is kept before rows are handed out.
///
/// # Errors
///
/// When no destination takes anything any more, or one that was to be waited for could not take everything at the end.
pub async fn run(
    mut chunks: mpsc::Receiver<RowChunk>,
    limits: Limits,
    mut outlets: Outlets,
    tally: Tally,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), DeliveryError> {
    let mut batcher = Batcher::new(limits);
    let mut full = Vec::new();
    let failed = loop {
        metrics.pending(batcher.pending());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break None,
            error = outlets.failed() => break Some(error),
            () = due(batcher.deadline()) => full.extend(batcher.close().map(|batch| (batch, Cause::Age))),
            chunk = chunks.recv() => match chunk {
                Some(chunk) => fill(&metrics, &mut batcher, &chunk, &mut full),
                None => break None,
            },
        }
        hand_out(&metrics, &mut outlets, &tally, &mut full);
    };
    // Nothing more comes in; what is queued is still handed out.
    chunks.close();
    while let Some(chunk) = chunks.recv().await {
        fill(&metrics, &mut batcher, &chunk, &mut full);
        hand_out(&metrics, &mut outlets, &tally, &mut full);
    }
    full.extend(batcher.close().map(|batch| (batch, Cause::Shutdown)));
    hand_out(&metrics, &mut outlets, &tally, &mut full);
    metrics.pending(0);
    let finished = outlets.finish().await;
    failed.map_or(finished, Err)
}

async fn due(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn fill(metrics: &Metrics, batcher: &mut Batcher, chunk: &RowChunk, full: &mut Vec<(Batch, Cause)>) {
    metrics.received(chunk.rows.len());
    let now = Instant::now();
    batcher.push(&chunk.rows, now, |batch, cause| full.push((batch, cause)));
    if chunk.reason == Reason::TcpState {
        batcher.hurry(now);
    }
}

fn hand_out(metrics: &Metrics, outlets: &mut Outlets, tally: &Tally, full: &mut Vec<(Batch, Cause)>) {
    if !full.is_empty() {
        tally.keep();
    }
    for (batch, cause) in full.drain(..) {
        metrics.closed(cause);
        outlets.hand_out(&batch);
    }
}
