//! Where a worker's rows go: to live gRPC clients, who never make it wait, and to the destination's queue.

use std::time::Duration;

use tokio::runtime::Handle;

use crate::collector::RowSink;
use crate::envelope::RowSender;
use crate::grpc::RowHub;
use crate::record::RowChunk;

/// One worker's way out.
pub(super) struct WorkerSink {
    queue: RowSender,
    hub: RowHub,
    patience: Duration,
    runtime: Handle,
}

impl WorkerSink {
    /// Waits for room in the destination's queue at most `patience` a chunk; then the chunk is dropped and counted.
    pub(super) fn new(queue: RowSender, hub: RowHub, patience: Duration, runtime: Handle) -> Self {
        Self { queue, hub, patience, runtime }
    }
}

impl RowSink for WorkerSink {
    fn take(&mut self, chunk: RowChunk) {
        self.hub.publish(&chunk);
        self.runtime.block_on(self.queue.offer_within(chunk, self.patience));
    }
}
