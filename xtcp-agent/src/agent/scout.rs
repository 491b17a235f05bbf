//! The thread that looks at the host, so that no look delays an event: mounts, processes, and who lives.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::clock;
use crate::engine::Wants;
use crate::netns::discover::Discovery;
use crate::netns::handle::Handles;
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
    pub(super) fn spawn(discovery: Discovery, handles: Handles) -> io::Result<(Self, mpsc::Receiver<Found>)> {
        let (wants, asked) = sync_channel::<Wants>(1);
        let (found_to, found) = mpsc::channel(4);
        let thread = thread::Builder::new().name("xtcp-scout".to_owned()).spawn(move || {
            let mut due = Due::default();
            while let Some(wants) = due.next(&asked) {
                if due.take(&wants, &discovery, handles, &found_to).is_none() {
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
#[derive(Default)]
struct Due {
    walk: Wants,
    not_before: Option<Instant>,
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
        discovery: &Discovery,
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
                    if scan.denied > 0 || scan.failed > 0 {
                        tracing::debug!(?scan, "a look at the host was not complete");
                    }
                    to.blocking_send(Found::Snapshot(snapshot)).ok()?;
                }
                Err(error) => tracing::warn!(%error, "network namespaces of processes are not seen"),
            }
        } else if mounts {
            to.blocking_send(Found::Snapshot(discovery.scan_mounts().0)).ok()?;
        }
        if everything || mounts {
            tracing::trace!(took = ?began.elapsed(), "looked at the host");
            self.not_before = Some(Instant::now() + (began.elapsed() * REST).min(Duration::from_secs(1)));
        }
        Some(())
    }
}
