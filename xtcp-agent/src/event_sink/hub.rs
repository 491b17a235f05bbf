//! One stream of events, many consumers.

use std::sync::{Arc, Mutex, PoisonError};

use xtcp_proto::event::v1::Event;

use super::batch::Batch;
use super::metrics::SinkCounters;
use super::queue::{Bound, Delivery, Filter, Queue};

/// Gives every batch of events to every consumer's queue. Clones are the same hub.
#[derive(Clone, Default)]
pub struct EventHub {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    queues: Vec<Arc<Queue>>,
    closed: bool,
}

impl EventHub {
    /// Publishes events. Their sequence numbers are the caller's: rising by one from event to event and from call
    /// to call. Encodes once and never waits for a consumer; without consumers it does nothing.
    pub fn publish(&self, events: &[Event]) {
        if events.is_empty() || self.consumers() == 0 {
            return;
        }
        let batch = Arc::new(Batch::new(events));
        if batch.is_empty() {
            return;
        }
        self.lock().queues.retain(|queue| queue.push(&batch));
    }

    /// Adds a consumer of what is published from now on. After [`close`](Self::close) its queue is closed.
    pub fn subscribe(&self, bound: Bound, filter: Filter, counters: Arc<SinkCounters>) -> Arc<Queue> {
        let queue = Arc::new(Queue::new(bound, filter, counters));
        let mut state = self.lock();
        if state.closed {
            queue.close();
        } else {
            state.queues.push(Arc::clone(&queue));
        }
        queue
    }

    /// Number of consumers.
    pub fn consumers(&self) -> usize {
        self.lock().queues.len()
    }

    /// Ends the stream: consumers still get what is queued for them, then their end.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for queue in state.queues.drain(..) {
            queue.close();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A consumer that unsubscribes when it is dropped.
pub struct Subscription(Arc<Queue>);

impl Subscription {
    /// Subscribes to `hub`.
    pub fn new(hub: &EventHub, bound: Bound, filter: Filter, counters: Arc<SinkCounters>) -> Self {
        Self(hub.subscribe(bound, filter, counters))
    }

    /// Which events it wants.
    pub fn filter(&self) -> &Filter {
        self.0.filter()
    }

    /// As [`Queue::take`].
    pub async fn take(&self, most: usize) -> Option<Delivery> {
        self.0.take(most).await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.0.discard();
    }
}
