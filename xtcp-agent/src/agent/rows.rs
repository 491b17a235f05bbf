//! Where a worker's rows go: to live gRPC clients, who never make it wait, and to the destination's queue.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::collector::RowSink;
use crate::envelope::RowSender;
use crate::grpc::RowHub;
use crate::record::RowChunk;

/// One worker's way out.
pub(super) struct WorkerSink {
    queue: RowSender,
    hub: RowHub,
    runtime: Handle,
    patience: Duration,
    /// How long the worker may still wait for the destination.
    left: Duration,
    /// When it last came back from there.
    since: Instant,
}

impl WorkerSink {
    /// Waits for room in the destination's queue at most `patience`, and in the long run at most as long as the worker
    /// works: a poll over many namespaces must not wait anew for each. What finds no room is dropped and counted.
    pub(super) fn new(queue: RowSender, hub: RowHub, patience: Duration, runtime: Handle) -> Self {
        Self { queue, hub, runtime, patience, left: patience, since: Instant::now() }
    }
}

impl RowSink for WorkerSink {
    fn take(&mut self, chunk: RowChunk) {
        self.hub.publish(&chunk);
        let came = Instant::now();
        self.left = (self.left + (came - self.since)).min(self.patience);
        self.runtime.block_on(self.queue.offer_within(chunk, self.left));
        self.since = Instant::now();
        self.left = self.left.saturating_sub(self.since - came);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus::Registry;

    use super::*;
    use crate::envelope::{self, Metrics};
    use crate::record::{Reason, Rows};

    #[test]
    fn a_destination_that_takes_nothing_is_waited_for_once_and_not_for_each_chunk() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (queue, mut chunks) = envelope::queue(1, Metrics::register(&Registry::new()).unwrap());
        let patience = Duration::from_millis(300);
        let mut sink = WorkerSink::new(queue, RowHub::new(1), patience, runtime.handle().clone());
        let chunk =
            |poll| RowChunk { reason: Reason::Poll, poll, netns_inode: 1, rows: Arc::new(Rows::default()) };
        let began = Instant::now();
        for poll in 1..=100 {
            sink.take(chunk(poll));
        }
        let took = began.elapsed();
        assert!(took >= patience && took < 3 * patience, "{took:?}");
        // It is not forgotten: as soon as there is room, rows go there again.
        assert_eq!(chunks.try_recv().unwrap().poll, 1);
        sink.take(chunk(101));
        assert_eq!(chunks.try_recv().unwrap().poll, 101);
    }
}
