//! The thread that looks at the host, so that no look delays an event: mounts, processes, and who lives.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::clock;
use crate::engine::Wants;
use crate::netns::discover::{Discovery, Scan};
use crate::netns::handle::Handles;
use crate::netns::metrics::DiscoveryMetrics;
use crate::netns::registry::Source;
use crate::netns::{NetnsId, Snapshot};

/// A look's share of this thread's time is at most one in so many, however often it is asked for.
const REST: u32 = 4;

/// What a look found.
pub(super) enum Found {
    /// Mounts, and threads where those were asked for.
    Snapshot(Snapshot),
    /// Who lives, asked at this time (`CLOCK_MONOTONIC` nanoseconds), and what had led to the question.
    Alive(u64, Vec<(NetnsId, Source, bool)>),
}

/// The thread.
pub(super) struct Scout {
    wants: Option<SyncSender<Wants>>,
    thread: Option<JoinHandle<()>>,
}

impl Scout {
    pub(super) fn spawn(
        mut discovery: Discovery,
        handles: Handles,
        metrics: DiscoveryMetrics,
    ) -> io::Result<(Self, mpsc::Receiver<Found>)> {
        let (wants, asked) = sync_channel::<Wants>(1);
        let (found_to, found) = mpsc::channel(4);
        let thread = thread::Builder::new().name("xtcp-scout".to_owned()).spawn(move || {
            let mut due = Due { walk: Wants::default(), not_before: None, named: false, metrics };
            while let Some(wants) = due.next(&asked) {
                if due.take(&wants, &mut discovery, handles, &found_to).is_none() {
                    return;
                }
            }
        })?;
        Ok((Self { wants: Some(wants), thread: Some(thread) }, found))
    }

    /// Asks, if the thread has nothing to do; gives the wish back if it has.
    pub(super) fn ask(&self, wants: Wants) -> Result<(), Wants> {
        match self.wants.as_ref().map(|to| to.try_send(wants)) {
            None | Some(Ok(()) | Err(TrySendError::Disconnected(_))) => Ok(()),
            Some(Err(TrySendError::Full(wants))) => Err(wants),
        }
    }

    /// Ends the thread after the look at hand. The receiver of what is found must be gone by then.
    pub(super) fn stop(&mut self) {
        self.wants = None;
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that looks for namespaces panicked");
        }
    }
}

/// Walks over the host that are wanted but have to wait. Who lives is asked at once, also meanwhile.
struct Due {
    walk: Wants,
    not_before: Option<Instant>,
    /// What a look could not see was named once; from then on it is counted.
    named: bool,
    metrics: DiscoveryMetrics,
}

impl Due {
    /// What is wanted now; `None` when nobody asks any more.
    fn next(&self, asked: &Receiver<Wants>) -> Option<Wants> {
        if !self.walk.mounts && !self.walk.everything {
            return asked.recv().ok();
        }
        let wait = self.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        match asked.recv_timeout(wait) {
            Ok(wants) => Some(wants),
            Err(RecvTimeoutError::Timeout) => Some(Wants::default()),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Carries out what may be done now. `None` when nobody listens any more.
    fn take(
        &mut self,
        wants: &Wants,
        discovery: &mut Discovery,
        handles: Handles,
        to: &mpsc::Sender<Found>,
    ) -> Option<()> {
        if !wants.alive.is_empty() {
            let asked = clock::ktime_ns();
            let answer = |(id, source): (&NetnsId, &Source)| Some((*id, *source, handles.alive(*id)?));
            let answers = wants.alive.iter().filter_map(answer).collect();
            to.blocking_send(Found::Alive(asked, answers)).ok()?;
        }
        self.walk.mounts |= wants.mounts;
        self.walk.everything |= wants.everything;
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return Some(());
        }
        let Wants { mounts, everything, .. } = std::mem::take(&mut self.walk);
        let began = Instant::now();
        if everything {
            match discovery.scan() {
                Ok((snapshot, scan)) => {
                    self.say(true, &scan);
                    to.blocking_send(Found::Snapshot(snapshot)).ok()?;
                }
                Err(error) => tracing::warn!(%error, "network namespaces of processes are not seen"),
            }
        } else if mounts {
            let (snapshot, scan) = discovery.scan_mounts();
            self.say(false, &scan);
            to.blocking_send(Found::Snapshot(snapshot)).ok()?;
        }
        if everything || mounts {
            tracing::trace!(took = ?began.elapsed(), "looked at the host");
            self.not_before = Some(Instant::now() + (began.elapsed() * REST).min(Duration::from_secs(1)));
        }
        Some(())
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
