//! The queue between the hub and one consumer. Adding never waits: when the queue is full the oldest events go,
//! are counted by kind, and the consumer finds a loss marker in their place.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use xtcp_proto::event::v1::{Event, Loss, LossCount, LossPlace, event};

use super::batch::{Batch, Kind, PerKind, Published};
use super::metrics::SinkCounters;

/// Which events a consumer wants. Empty lists do not restrict; loss markers always pass.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Kinds.
    pub kinds: HashSet<Kind>,
    /// Inodes of network namespaces.
    pub netns_inodes: HashSet<u64>,
    /// Names of network namespaces.
    pub netns_names: HashSet<String>,
    /// Ports, local or remote. An event without ports does not pass a list of them.
    pub ports: HashSet<u32>,
}

impl Filter {
    /// Whether an event is wanted.
    pub fn passes(&self, event: &Published<'_>) -> bool {
        if event.meta.kind == Kind::Loss {
            return true;
        }
        (self.kinds.is_empty() || self.kinds.contains(&event.meta.kind))
            && (self.netns_inodes.is_empty() || self.netns_inodes.contains(&event.meta.netns_inode))
            && (self.netns_names.is_empty() || self.netns_names.contains(event.netns_name))
            && (self.ports.is_empty() || event.meta.ports.iter().any(|port| self.ports.contains(port)))
    }
}

/// How much a queue holds at most. What exceeds either bound pushes the oldest events out; the newest event stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Events.
    pub events: usize,
    /// Encoded bytes.
    pub bytes: usize,
}

impl Default for Bound {
    fn default() -> Self {
        Self { events: 65_536, bytes: 32 << 20 }
    }
}

/// What a consumer takes at once: perhaps a loss marker, then consecutive events of one batch.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Events were lost before `range`: the marker to send first, a batch of one.
    pub loss: Option<Arc<Batch>>,
    /// The batch.
    pub batch: Arc<Batch>,
    /// Which of its events.
    pub range: Range<usize>,
}

impl Delivery {
    /// The marker, if there is one, and the events that pass `filter`.
    pub fn wanted<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = Published<'a>> {
        let loss = self.loss.iter().flat_map(|batch| batch.iter(0..batch.len()));
        loss.chain(self.batch.iter(self.range.clone()).filter(|event| filter.passes(event)))
    }
}

#[derive(Default)]
struct Lost {
    after_sequence: u64,
    counts: PerKind<u64>,
    any: bool,
}

#[derive(Default)]
struct Inner {
    entries: VecDeque<(Arc<Batch>, usize)>,
    events: usize,
    bytes: usize,
    lost: Lost,
    closed: bool,
}

/// A queue with one consumer.
pub struct Queue {
    inner: Mutex<Inner>,
    arrived: Notify,
    closing: CancellationToken,
    bound: Bound,
    filter: Filter,
    counters: Arc<SinkCounters>,
}

impl Queue {
    /// An empty queue for a consumer that wants what passes `filter`.
    pub fn new(bound: Bound, filter: Filter, counters: Arc<SinkCounters>) -> Self {
        Self {
            inner: Mutex::default(),
            arrived: Notify::new(),
            closing: CancellationToken::new(),
            bound,
            filter,
            counters,
        }
    }

    /// Which events the consumer wants.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch; false when the queue is closed. Never waits for the consumer.
    pub fn push(&self, batch: &Arc<Batch>) -> bool {
        {
            let mut inner = self.lock();
            if inner.closed {
                return false;
            }
            inner.events = inner.events.saturating_add(batch.len());
            inner.bytes = inner.bytes.saturating_add(batch.byte_len());
            inner.entries.push_back((Arc::clone(batch), 0));
            self.counters.depth.add(i64::try_from(batch.len()).unwrap_or(i64::MAX));
            while inner.events > 1 && (inner.events > self.bound.events || inner.bytes > self.bound.bytes) {
                self.drop_oldest(&mut inner);
            }
        }
        self.arrived.notify_one();
        true
    }

    fn drop_oldest(&self, inner: &mut Inner) {
        let Inner { entries, events, bytes, lost, .. } = inner;
        let Some((batch, next)) = entries.front_mut() else { return };
        if let Some(event) = batch.get(*next) {
            if self.filter.passes(&event) {
                if !lost.any {
                    lost.any = true;
                    lost.after_sequence = event.meta.sequence.saturating_sub(1);
                }
                *lost.counts.get_mut(event.meta.kind) += 1;
                self.counters.dropped_full.get(event.meta.kind).inc();
            }
            *events -= 1;
            *bytes = bytes.saturating_sub(event.byte_len());
            self.counters.depth.dec();
        }
        *next += 1;
        if *next >= batch.len() {
            entries.pop_front();
        }
    }

    /// Takes up to `most` consecutive events, or `None` while there is none.
    fn try_take(&self, most: usize) -> Option<Delivery> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let (batch, next) = inner.entries.front_mut()?;
        let range = *next..batch.len().min(next.saturating_add(most.max(1)));
        let delivery = Delivery {
            loss: batch.get(range.start).and_then(|first| marker(&mut inner.lost, &first)).map(Arc::new),
            batch: Arc::clone(batch),
            range: range.clone(),
        };
        *next = range.end;
        let taken: usize = batch.iter(range.clone()).map(|event| event.byte_len()).sum();
        if *next >= batch.len() {
            inner.entries.pop_front();
        }
        inner.events = inner.events.saturating_sub(range.len());
        inner.bytes = inner.bytes.saturating_sub(taken);
        self.counters.depth.sub(i64::try_from(range.len()).unwrap_or(i64::MAX));
        Some(delivery)
    }

    /// Waits for up to `most` consecutive events; `None` when the queue is closed and empty.
    pub async fn take(&self, most: usize) -> Option<Delivery> {
        loop {
            if let Some(delivery) = self.try_take(most) {
                return Some(delivery);
            }
            if self.lock().closed {
                return None;
            }
            self.arrived.notified().await;
        }
    }

    /// Accepts nothing more; what is queued can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.closing.cancel();
        self.arrived.notify_one();
    }

    /// Waits until [`close`](Self::close) is called.
    pub async fn closed(&self) {
        self.closing.cancelled().await;
    }

    /// Accepts nothing more and forgets what is queued. Says how many wanted events that were, by kind.
    pub fn discard(&self) -> PerKind<u64> {
        let mut inner = self.lock();
        inner.closed = true;
        let mut counts = PerKind::default();
        for (batch, next) in inner.entries.drain(..) {
            for event in batch.iter(next..batch.len()).filter(|event| self.filter.passes(event)) {
                *counts.get_mut(event.meta.kind) += 1;
            }
        }
        self.counters.depth.sub(i64::try_from(inner.events).unwrap_or(i64::MAX));
        (inner.events, inner.bytes) = (0, 0);
        counts
    }
}

/// The marker for what was lost before `next`, which lends it its time and identity.
fn marker(lost: &mut Lost, next: &Published<'_>) -> Option<Batch> {
    if !lost.any {
        return None;
    }
    let Lost { after_sequence, counts, .. } = std::mem::take(lost);
    let loss = Loss {
        place: LossPlace::SinkQueue.into(),
        after_sequence,
        before_sequence: next.meta.sequence,
        lost: counts
            .iter()
            .filter(|&(_, &count)| count > 0)
            .map(|(kind, &count)| LossCount { kind: kind.proto().into(), count })
            .collect(),
    };
    let event = Event { sequence: 0, netns: None, event: Some(event::Event::Loss(loss)), ..next.event()? };
    Some(Batch::new(std::slice::from_ref(&event)))
}
