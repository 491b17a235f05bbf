//! Looks at the host, so that no look delays an event: mounts, processes, and who lives. On the thread that reads `/proc` for
//! workloads and owners too; each of them works in slices of some milliseconds, so that none waits long for another.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::clock;
use crate::engine::Wants;
use crate::netns::discover::{Discovery, Scan, Walk};
use crate::netns::handle::Handles;
use crate::netns::metrics::DiscoveryMetrics;
use crate::netns::registry::Source;
use crate::netns::{NetnsId, Snapshot};
use crate::workload::Directory;
use crate::workload::directory::SLICE;

/// A look's share of the thread's time is at most one in so many, however often it is asked for.
const REST: u32 = 4;
/// Without anything to do; a question wakes the thread.
const IDLE: Duration = Duration::from_secs(60);

/// What a look found.
pub(super) enum Found {
    /// Mounts, and threads where those were asked for.
    Snapshot(Snapshot),
    /// Who lives, asked at this time (`CLOCK_MONOTONIC` nanoseconds), and what had led to the question.
    Alive(u64, Vec<(NetnsId, Source, bool)>),
}

/// Who is asked.
pub(super) struct Scout {
    wants: Option<SyncSender<Wants>>,
    thread: Directory,
}

impl Scout {
    /// Gives the thread of this directory the work besides.
    pub(super) fn on_thread_of(
        thread: &Directory,
        discovery: Discovery,
        handles: Handles,
        metrics: DiscoveryMetrics,
    ) -> (Self, mpsc::Receiver<Found>) {
        let (wants, asked) = sync_channel::<Wants>(1);
        let (found_to, found) = mpsc::channel(4);
        let walk = Wants::default();
        let mut errands = Errands {
            asked,
            to: found_to,
            discovery,
            handles,
            walk,
            under_way: None,
            took: Duration::ZERO,
            not_before: None,
            named: false,
            metrics,
        };
        thread.also(Box::new(move |now| errands.turn(now)));
        (Self { wants: Some(wants), thread: thread.clone() }, found)
    }

    /// Asks, unless an earlier question was not even heard yet: then gives the wish back.
    pub(super) fn ask(&self, wants: Wants) -> Result<(), Wants> {
        match self.wants.as_ref().map(|to| to.try_send(wants)) {
            None | Some(Err(TrySendError::Disconnected(_))) => Ok(()),
            Some(Err(TrySendError::Full(wants))) => Err(wants),
            Some(Ok(())) => {
                self.thread.wake();
                Ok(())
            }
        }
    }

    /// Asks no more: the thread gives up the work, after the slice at hand.
    pub(super) fn stop(&mut self) {
        self.wants = None;
        self.thread.wake();
    }
}

/// What the thread was asked. Looks that are wanted may have to wait; who lives is asked at once, also meanwhile.
struct Errands {
    asked: Receiver<Wants>,
    to: mpsc::Sender<Found>,
    discovery: Discovery,
    handles: Handles,
    walk: Wants,
    /// A full look that is not through yet.
    under_way: Option<Walk>,
    /// What the look under way has taken so far.
    took: Duration,
    not_before: Option<Instant>,
    /// What a look could not see was named once; from then on it is counted.
    named: bool,
    metrics: DiscoveryMetrics,
}

impl Errands {
    /// Does what is due, or a slice of it; when to be called again, though nothing is asked. `None` when nobody asks or
    /// listens any more.
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        loop {
            match self.asked.try_recv() {
                Ok(wants) => self.take(&wants)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return None,
            }
        }
        if self.under_way.is_none() {
            if !self.walk.mounts && !self.walk.everything {
                return Some(now + IDLE);
            }
            if let Some(at) = self.not_before.filter(|at| Instant::now() < *at) {
                return Some(at);
            }
        }
        self.look()?;
        // What is next, the rest of it or a rest, the next turn says.
        Some(now)
    }

    /// Answers who lives, and remembers what is to be looked at.
    fn take(&mut self, wants: &Wants) -> Option<()> {
        if !wants.alive.is_empty() {
            let asked = clock::ktime_ns();
            let answer = |(id, source): (&NetnsId, &Source)| Some((*id, *source, self.handles.alive(*id)?));
            let answers = wants.alive.iter().filter_map(answer).collect();
            self.to.blocking_send(Found::Alive(asked, answers)).ok()?;
        }
        self.walk.mounts |= wants.mounts;
        self.walk.everything |= wants.everything;
        Some(())
    }

    /// Looks at the host, or goes on with it for a slice.
    fn look(&mut self) -> Option<()> {
        let began = Instant::now();
        let mut walk = match self.under_way.take() {
            Some(walk) => walk,
            None if !std::mem::take(&mut self.walk.everything) => {
                self.walk.mounts = false;
                let (snapshot, scan) = self.discovery.scan_mounts();
                self.say(false, &scan);
                return self.found(snapshot, began);
            }
            // A look at mounts that is asked for from here on may concern what this one has passed.
            None => match self.discovery.walk() {
                Ok(walk) => {
                    self.walk.mounts = false;
                    walk
                }
                Err(error) => {
                    tracing::warn!(%error, "network namespaces of processes are not seen");
                    self.not_before = Some(began + Duration::from_secs(1));
                    return Some(());
                }
            },
        };
        if !self.discovery.go_on(&mut walk, Some(began + SLICE)) {
            self.under_way = Some(walk);
            self.took += began.elapsed();
            return Some(());
        }
        let (snapshot, scan) = self.discovery.end(walk);
        self.say(true, &scan);
        self.found(snapshot, began)
    }

    /// Hands on what was found, and rests. `began`: the slice that found the last of it.
    fn found(&mut self, snapshot: Snapshot, began: Instant) -> Option<()> {
        let took = std::mem::take(&mut self.took) + began.elapsed();
        tracing::trace!(?took, "looked at the host");
        self.not_before = Some(Instant::now() + (took * REST).min(Duration::from_secs(1)));
        self.to.blocking_send(Found::Snapshot(snapshot)).ok()
    }

    /// Counts what a look could not see; names the first of it once.
    fn say(&mut self, everything: bool, scan: &Scan) {
        self.metrics.looked(everything, scan);
        let Some(example) = &scan.example else { return };
        let (denied, failed) = (scan.denied, scan.failed);
        if std::mem::replace(&mut self.named, true) {
            tracing::debug!(denied, failed, %example, "a look at the host was not complete");
        } else {
            tracing::info!(
                denied,
                failed,
                %example,
                "not all of this host can be looked at, so that network namespaces may be missed; from here on \
                 xtcp_netns_look_problems_total counts"
            );
        }
    }
}
