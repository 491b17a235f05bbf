//! What waits for one destination: in memory up to a number of bytes, then on disk. Whoever puts something in never
//! waits.
//!
//! Order: what is on disk is older than what is in memory, so it leaves first; what memory cannot hold goes to disk from
//! its old end. A thread writes, because a disk may hang; without a spool there is none, and the oldest payloads are
//! dropped and counted.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::metrics::{Loss, Meter};
use super::route::{Bounds, SpoolMode, WhenFull};
use super::spool::{Place, Spool};
use crate::destination::Payload;

/// How long after a failed write the disk is tried again.
const DISK_PAUSE: Duration = Duration::from_secs(1);
/// At most one line about a failing disk in this many pauses.
const QUIET: u32 = 60;

/// A payload in its sender's hands, and where it came from.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) payload: Payload,
    /// Where it stands in the spool; `None`: only in memory.
    place: Option<Place>,
}

/// Whether more comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// Nothing more comes in; what is there can be taken.
    Closed,
    /// What is left goes to the spool.
    PutAway,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Payload>,
    /// Of everything in memory: waiting, being written, being sent.
    bytes: usize,
    /// Payloads that are being written to the spool.
    spilling: usize,
    /// The spool holds payloads that have not been taken.
    on_disk: bool,
    /// The spool does not take anything at the moment.
    disk_fails: bool,
    phase: Phase,
    /// Something was dropped for want of room.
    lost: bool,
}

/// The queue of one destination.
#[derive(Debug)]
pub(super) struct Queue {
    name: Arc<str>,
    bounds: Bounds,
    state: Mutex<State>,
    spool: Option<Mutex<Spool>>,
    /// For whoever sends.
    arrived: Notify,
    /// For the thread that writes.
    work: Condvar,
    /// Cancelled when it was full and that is to be the end.
    overflowed: CancellationToken,
    meter: Meter,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// An empty queue, but for what the spool in `dir` holds from an earlier run. With a spool there is a thread, which
    /// ends when the queue was put away.
    pub(super) fn open(
        name: Arc<str>,
        bounds: Bounds,
        dir: &Path,
        meter: Meter,
    ) -> io::Result<(Arc<Self>, Option<JoinHandle<()>>)> {
        let spool = match bounds.spool {
            SpoolMode::Off => None,
            SpoolMode::Overflow | SpoolMode::Always => Some(Spool::open(dir, bounds.spool_bytes)?),
        };
        if let Some(spool) = &spool {
            let rows = usize::try_from(spool.rows()).unwrap_or(usize::MAX);
            meter.accepted(rows);
            if rows > 0 {
                tracing::info!(destination = %name, rows, "the spool has rows of an earlier run, which are sent first");
            }
        }
        let has_spool = spool.is_some();
        let queue = Arc::new(Self {
            name,
            bounds,
            state: Mutex::default(),
            spool: spool.map(Mutex::new),
            arrived: Notify::new(),
            work: Condvar::new(),
            overflowed: CancellationToken::new(),
            meter,
        });
        if let Some(spool) = &queue.spool {
            queue.look_at(&mut lock(spool));
        }
        let writer = Arc::clone(&queue);
        let thread = has_spool
            .then(|| thread::Builder::new().name("xtcp-spool".to_owned()).spawn(move || writer.write()))
            .transpose()?;
        Ok((queue, thread))
    }

    /// Whether there is a spool.
    pub(super) fn has_spool(&self) -> bool {
        self.spool.is_some()
    }

    /// Puts a payload in. What does not fit is dropped and counted, from the old end.
    pub(super) fn offer(&self, payload: Payload) {
        self.meter.accepted(payload.rows);
        let mut state = lock(&self.state);
        if state.phase != Phase::Open {
            drop(state);
            return self.meter.dropped(payload.rows, Loss::End);
        }
        state.bytes += payload.bytes.len();
        state.waiting.push_back(payload);
        self.trim(&mut state);
        self.meter.queue(state.bytes);
        if self.must_spill(&state) {
            self.work.notify_one();
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Whether something was dropped for want of room since this was last asked.
    pub(super) fn has_lost(&self) -> bool {
        std::mem::take(&mut lock(&self.state).lost)
    }

    /// Drops from the old end what is more than memory may hold.
    fn trim(&self, state: &mut State) {
        while state.bytes > self.bounds.queue_bytes {
            if self.bounds.when_full == WhenFull::Stop {
                return self.overflowed.cancel();
            }
            let Some(oldest) = state.waiting.pop_front() else { return };
            state.bytes -= oldest.bytes.len();
            state.lost = true;
            self.meter.dropped(oldest.rows, Loss::Memory);
        }
    }

    fn must_spill(&self, state: &State) -> bool {
        self.has_spool()
            && !state.waiting.is_empty()
            && match self.bounds.spool {
                SpoolMode::Always => true,
                SpoolMode::Overflow | SpoolMode::Off => {
                    state.phase == Phase::PutAway || state.bytes > self.bounds.queue_bytes / 2
                }
            }
    }

    /// Ends when the queue was full and [`WhenFull::Stop`] holds.
    pub(super) async fn overflowed(&self) {
        self.overflowed.cancelled().await;
    }

    /// The oldest payload, once there is one; `None` when the queue is closed and empty.
    pub(super) async fn next(self: &Arc<Self>) -> Option<Item> {
        loop {
            if lock(&self.state).on_disk {
                let queue = Arc::clone(self);
                if let Ok(Some(item)) = tokio::task::spawn_blocking(move || queue.take_from_disk()).await {
                    return Some(item);
                }
            }
            match self.take_from_memory() {
                Taken::Item(item) => return Some(item),
                Taken::Closed => return None,
                Taken::Nothing => self.arrived.notified().await,
            }
        }
    }

    fn take_from_memory(&self) -> Taken {
        let mut state = lock(&self.state);
        if state.on_disk || state.spilling > 0 {
            return Taken::Nothing;
        }
        if self.bounds.spool == SpoolMode::Always && !state.disk_fails && !state.waiting.is_empty() {
            // It goes to the disk first.
            return Taken::Nothing;
        }
        match state.waiting.pop_front() {
            Some(payload) => Taken::Item(Item { payload, place: None }),
            None if state.phase != Phase::Open => Taken::Closed,
            None => Taken::Nothing,
        }
    }

    fn take_from_disk(&self) -> Option<Item> {
        let mut spool = lock(self.spool.as_ref()?);
        let taken = spool.take();
        self.look_at(&mut spool);
        match taken {
            Ok(Some((payload, place))) => {
                lock(&self.state).bytes += payload.bytes.len();
                Some(Item { payload, place: Some(place) })
            }
            Ok(None) => None,
            Err(error) => {
                self.meter.spool_failed();
                tracing::error!(destination = %self.name, %error, "cannot read the spool: its oldest segment is given up");
                match spool.drop_oldest() {
                    Ok(rows) => {
                        self.meter.dropped(usize::try_from(rows).unwrap_or(usize::MAX), Loss::Corrupt);
                    }
                    Err(error) => {
                        tracing::error!(destination = %self.name, %error, "cannot remove it either");
                    }
                }
                self.look_at(&mut spool);
                None
            }
        }
    }

    /// Counts what could not be read, and shows what the spool holds. Called with the spool locked, so that what
    /// `on_disk` says is so.
    fn look_at(&self, spool: &mut Spool) {
        let corrupt = spool.take_corrupt_rows();
        if corrupt > 0 {
            tracing::error!(destination = %self.name, rows = corrupt, "rows in the spool were damaged and are lost");
            self.meter.dropped(usize::try_from(corrupt).unwrap_or(usize::MAX), Loss::Corrupt);
        }
        self.meter.spool(spool.bytes(), spool.rows());
        lock(&self.state).on_disk = !spool.is_empty();
    }

    /// The payload left, or never will: it need not be kept.
    pub(super) async fn settle(self: &Arc<Self>, item: Item) {
        self.release(&item);
        let Some(place) = item.place else { return };
        let queue = Arc::clone(self);
        let settled = tokio::task::spawn_blocking(move || {
            let Some(spool) = &queue.spool else { return };
            let mut spool = lock(spool);
            if let Err(error) = spool.sent(place) {
                queue.meter.spool_failed();
                tracing::warn!(destination = %queue.name, %error, "cannot note in the spool what was sent");
            }
            queue.look_at(&mut spool);
        });
        if let Err(error) = settled.await {
            tracing::error!(destination = %self.name, %error, "the spool failed");
        }
    }

    fn release(&self, item: &Item) {
        let mut state = lock(&self.state);
        state.bytes = state.bytes.saturating_sub(item.payload.bytes.len());
        self.meter.queue(state.bytes);
    }

    /// Accepts nothing more; what is in it can still be taken.
    pub(super) fn close(&self) {
        lock(&self.state).phase = Phase::Closed;
        self.arrived.notify_one();
    }

    /// Accepts nothing more, has the spool take what is left, `in_hand` included, and says how many rows it could not
    /// take: they are counted as dropped. Blocks until the disk holds them.
    pub(super) fn put_away(&self, writer: Option<JoinHandle<()>>, in_hand: Option<Item>) -> usize {
        let on_disk = |place| self.spool.as_ref().is_some_and(|spool| lock(spool).holds(place));
        let unsaved = in_hand.filter(|item| !item.place.is_some_and(on_disk));
        {
            let mut state = lock(&self.state);
            state.waiting.extend(unsaved.map(|item| item.payload));
            state.phase = Phase::PutAway;
        }
        self.work.notify_one();
        if let Some(Err(_)) = writer.map(JoinHandle::join) {
            tracing::error!(destination = %self.name, "the spool's thread failed");
        }
        let mut state = lock(&self.state);
        let rows = state.waiting.drain(..).map(|payload| payload.rows).sum();
        state.bytes = 0;
        self.meter.queue(0);
        self.meter.dropped(rows, Loss::End);
        rows
    }

    /// The thread: moves payloads from memory to the spool.
    fn write(&self) {
        let mut failures = 0_u32;
        while let Some(payloads) = self.to_write() {
            let (written, result) = self.store(&payloads);
            let mut state = lock(&self.state);
            state.spilling = 0;
            state.disk_fails = result.is_err();
            for (number, payload) in payloads.into_iter().enumerate().rev() {
                if number < written {
                    state.bytes = state.bytes.saturating_sub(payload.bytes.len());
                } else {
                    state.waiting.push_front(payload);
                }
            }
            self.trim(&mut state);
            self.meter.queue(state.bytes);
            self.arrived.notify_one();
            let Err(error) = result else {
                failures = 0;
                continue;
            };
            self.meter.spool_failed();
            if failures.is_multiple_of(QUIET) {
                tracing::error!(
                    destination = %self.name,
                    %error,
                    "cannot write the spool: what memory cannot hold is lost until it can"
                );
            }
            failures += 1;
            if state.phase == Phase::PutAway {
                return;
            }
            drop(self.work.wait_timeout_while(state, DISK_PAUSE, |state| state.phase != Phase::PutAway));
        }
    }

    /// Waits for payloads that must be written; `None` at the end.
    fn to_write(&self) -> Option<Vec<Payload>> {
        let mut state = lock(&self.state);
        while !self.must_spill(&state) {
            if state.phase == Phase::PutAway {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let keep = match self.bounds.spool {
            SpoolMode::Overflow if state.phase != Phase::PutAway => self.bounds.queue_bytes / 4,
            SpoolMode::Overflow | SpoolMode::Always | SpoolMode::Off => 0,
        };
        let mut left = state.bytes;
        let mut payloads = Vec::new();
        while left > keep
            && let Some(payload) = state.waiting.pop_front()
        {
            left = left.saturating_sub(payload.bytes.len());
            payloads.push(payload);
        }
        state.spilling = payloads.len();
        Some(payloads)
    }

    /// Writes them in order and syncs; says how many are in.
    fn store(&self, payloads: &[Payload]) -> (usize, io::Result<()>) {
        let Some(spool) = &self.spool else { return (0, Ok(())) };
        let mut spool = lock(spool);
        let mut written = 0;
        let mut result = Ok(());
        for payload in payloads {
            result = self.make_room(&mut spool, payload).and_then(|()| spool.write(payload));
            if result.is_err() {
                break;
            }
            self.meter.spooled(payload.rows);
            written += 1;
        }
        let synced = spool.sync();
        self.look_at(&mut spool);
        (written, result.and(synced))
    }

    fn make_room(&self, spool: &mut Spool, payload: &Payload) -> io::Result<()> {
        while spool.is_full_for(payload) {
            if self.bounds.when_full == WhenFull::Stop {
                self.overflowed.cancel();
                return Err(io::Error::other("the spool is full (spool-bytes)"));
            }
            if spool.bytes() == 0 {
                return Ok(());
            }
            let rows = spool.drop_oldest()?;
            lock(&self.state).lost = true;
            self.meter.dropped(usize::try_from(rows).unwrap_or(usize::MAX), Loss::Spool);
        }
        Ok(())
    }
}

/// What memory has for whoever sends.
enum Taken {
    Item(Item),
    Nothing,
    Closed,
}
