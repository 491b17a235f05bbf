//! The loop: whatever happens is given to the engine, and what the engine decides is carried out.

mod means;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::scout::Found;
use crate::clock;
use crate::collector::{Done, Job, WorkerHandle};
use crate::ebpf::DrainHandle;
use crate::engine::Wants;
use crate::event::EventBatch;
use crate::grpc::{NetnsRequest, PollRequest};
use crate::netns::Snapshot;
use crate::netns::enter::EnterError;
use crate::netns::label::printable_path;
use crate::netns::nsid::{Notices, Told};
use crate::netns::watch::Hint;
pub(super) use means::Means;

/// A namespace is made before it is mounted: mounts are looked at this long after a hint, and once more.
const MOUNT_DELAYS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];

/// When to ask the scout again that had something to do.
const SCOUT_RETRY: Duration = Duration::from_millis(2);

/// Changes of namespaces that a client may be behind; then it is told how many it missed.
const NETNS_CHANGES: usize = 4096;

/// The loop and its state.
pub(super) struct Driver {
    means: Means,
    /// What happens to namespaces, for clients that watch; each an encoded `NetnsChange`.
    netns_changes: broadcast::Sender<Bytes>,
    /// Workers without a job.
    idle: Vec<usize>,
    wants: Wants,
    /// When mounts are to be looked at, soonest first.
    mount_looks: Vec<Instant>,
    /// Looks that wait for the events before them, and until when.
    held: VecDeque<(Instant, Snapshot)>,
    /// Every event of an earlier time has been taken in, `CLOCK_MONOTONIC` nanoseconds.
    told_until: u64,
    /// The ring buffer's reader was asked for a batch, and none has come since.
    asked: bool,
    last_poll: Option<Instant>,
    started: Instant,
    /// The first look came back: polls may begin.
    looked: bool,
}

enum Input {
    Events(EventBatch),
    NoMoreEvents,
    Done(Done),
    Found(Found),
    Poll(PollRequest),
    Netns(NetnsRequest),
    Mounts(Hint),
    Nsid(io::Result<Told>),
    Workloads,
    Due,
    EverySecond,
    Reconcile,
    End,
}

impl Driver {
    pub(super) fn new(means: Means) -> Self {
        let idle = (0..means.threads.len()).rev().collect();
        Self {
            means,
            netns_changes: broadcast::Sender::new(NETNS_CHANGES),
            idle,
            wants: Wants { everything: true, ..Wants::default() },
            mount_looks: Vec::new(),
            held: VecDeque::new(),
            told_until: 0,
            asked: false,
            last_poll: None,
            started: Instant::now(),
            looked: false,
        }
    }

    /// Runs until no worker is left: each ends only in error, and says so.
    pub(super) async fn run(&mut self) {
        let mut every_second = interval(Duration::from_secs(1));
        every_second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reconcile = interval(self.means.reconcile);
        reconcile.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.due();
            let means = &mut self.means;
            let input = tokio::select! {
                // In turn, not events first: when they come faster than they can be taken in, workers' answers, polls
                // and clocks must still have theirs.
                batch = next_batch(&mut means.batches) => batch.map_or(Input::NoMoreEvents, Input::Events),
                done = means.done.recv() => done.map_or(Input::End, Input::Done),
                Some(found) = means.looks.recv() => Input::Found(found),
                Some(poll) = means.polls.recv() => Input::Poll(poll),
                Some(request) = means.netns.recv() => Input::Netns(request),
                Ok(hint) = means.watch.changed() => Input::Mounts(hint),
                told = next_notice(&mut means.notices) => Input::Nsid(told),
                () = means.directory.changed() => Input::Workloads,
                _ = every_second.tick() => Input::EverySecond,
                _ = reconcile.tick() => Input::Reconcile,
                () = sleep_until(due) => Input::Due,
            };
            if matches!(input, Input::End) {
                return;
            }
            self.take(input);
            self.act();
        }
    }

    fn take(&mut self, input: Input) {
        let now = clock::ktime_ns();
        let means = &mut self.means;
        let engine = &mut means.engine;
        match input {
            Input::Events(batch) => {
                engine.on_events(now, &batch);
                self.told_until = self.told_until.max(batch.told_until_ktime_ns);
                self.asked = false;
            }
            Input::NoMoreEvents => self.no_more_events(),
            Input::Done(done) => {
                // A worker that cannot go home ends.
                if !matches!(done.found, Err(EnterError::Home(_))) {
                    self.idle.push(done.worker);
                }
                engine.on_done(now, done);
            }
            // An event says more of a newcomer than a look does (cookie, creator), and it was in the ring buffer before
            // the look saw anything.
            Input::Found(Found::Snapshot(snapshot)) => {
                self.held.push_back((Instant::now() + means.settle, snapshot));
            }
            Input::Found(Found::Alive(asked, answers)) => engine.on_alive(now, asked, &answers),
            Input::Poll(request) => {
                // A client that is gone does not need its number.
                let _ = request.reply.send(engine.poll_requested());
            }
            Input::Mounts(hint) => {
                means.discovery_metrics.folder_hint(hint == Hint::Overflow);
                match hint {
                    Hint::Mounts => self.look_at_mounts_soon(),
                    Hint::Overflow => engine.want_look(true),
                }
            }
            Input::Nsid(Ok(told)) => {
                means.discovery_metrics.nsid_hint(told == Told::Missed);
                match (told, means.nsids.heard(told)) {
                    (_, Some(ended)) => engine.ended(now, ended),
                    // Of whom only a kernel event would tell.
                    (Told::Released(_) | Told::Missed, None) if !means.tells.1 => engine.somebody_ended(),
                    // It may be as new as its id.
                    (Told::Assigned(_), None) if !means.tells.0 => engine.want_look(true),
                    (Told::Released(_) | Told::Missed | Told::Assigned(_), None) => {}
                }
            }
            Input::Nsid(Err(error)) => {
                tracing::warn!(%error, "rtnetlink tells no more of namespaces: the next reconcile does");
                means.notices = None;
            }
            Input::Workloads => engine.on_workloads(now),
            Input::Netns(request) => self.tell_namespaces(request),
            Input::EverySecond => self.every_second(),
            Input::Reconcile => {
                for (folder, error) in means.watch.rewatch() {
                    let folder = printable_path(&folder);
                    tracing::debug!(%folder, %error, "mounts here are only found by reconciling");
                }
                engine.want_look(true);
            }
            Input::Due | Input::End => {}
        }
    }

    /// Carries out what the engine has decided.
    fn act(&mut self) {
        let now = clock::ktime_ns();
        let reached = Instant::now();
        while self
            .held
            .front()
            .is_some_and(|(until, look)| look.ended_ktime_ns <= self.told_until || *until <= reached)
            && let Some((_, snapshot)) = self.held.pop_front()
        {
            self.means.engine.on_look(now, &snapshot);
            self.looked |= snapshot.threads.is_some();
            self.means.engine.report();
        }
        let means = &mut self.means;
        means.events.publish(&means.engine.take_events());
        for change in means.engine.take_netns_changes() {
            // Nobody watches any more: then nobody misses it.
            let _ = self.netns_changes.send(change.encode_to_vec().into());
        }
        means.engine.watch_netns(self.netns_changes.receiver_count() > 0);
        while self.looked && !self.idle.is_empty() {
            let Some(job) = means.engine.next_job(now) else { break };
            if let Some(job) = dispatch(&means.threads, &mut self.idle, job) {
                means.engine.job_lost(now, &job);
            }
        }
        if let Some(poll) = means.engine.finished_poll(now) {
            tracing::debug!(?poll, "poll ended");
            means.rows.poll_ended(poll.number);
            means.owners.poll_ended();
            means.readiness.set("polls", Ok(()));
            self.last_poll = Some(Instant::now());
        }
        if !self.asked
            && (means.engine.waits_for_events() || !self.held.is_empty())
            && let Some(drain) = &means.drain
        {
            drain.ask();
            self.asked = true;
        }
        let mut wants = means.engine.take_wants();
        for (inode, drop) in std::mem::take(&mut wants.drop) {
            if let Some(Err(error)) =
                means.control.as_ref().map(|control| control.set_netns_drop(inode, drop))
            {
                tracing::warn!(%error, inode, "events of a namespace cannot be filtered in the kernel");
            }
        }
        if std::mem::take(&mut wants.mounts) {
            self.look_at_mounts_soon();
        }
        self.wants.add(wants);
        if self.mount_looks.first().is_some_and(|at| *at <= reached) {
            self.mount_looks.retain(|at| *at > reached);
            // A folder may have been mounted over one that is watched.
            self.means.watch.rewatch();
            self.wants.mounts = true;
        }
        if self.wants != Wants::default()
            && let Err(wants) = self.means.scout.ask(std::mem::take(&mut self.wants))
        {
            self.wants = wants;
        }
    }

    /// The ring buffer's reader ended, which it does only in error: from here on polls alone tell.
    fn no_more_events(&mut self) {
        let means = &mut self.means;
        means.batches = None;
        means.engine.no_more_events();
        self.told_until = u64::MAX;
        let error = match means.drain.take().map(DrainHandle::join) {
            Some(Err(error)) => error.to_string(),
            Some(Ok(())) | None => "no reason given".to_owned(),
        };
        tracing::error!(%error, "the ring buffer's reader ended: no more kernel events");
        means.readiness.set("events", Err(format!("the ring buffer's reader ended: {error}")));
    }

    /// All namespaces, and for who watches the place in the changes from which on they are to be told.
    fn tell_namespaces(&mut self, request: NetnsRequest) {
        let means = &mut self.means;
        let all = means.engine.namespaces();
        // A client that is gone does not need the answer.
        match request {
            NetnsRequest::List(reply) => {
                let _ = reply.send(all);
            }
            NetnsRequest::Watch(reply) => {
                means.engine.watch_netns(true);
                let _ = reply.send((all, self.netns_changes.subscribe()));
            }
        }
    }

    /// A look that is due anyway but later must not delay the one that this hint asks for.
    fn look_at_mounts_soon(&mut self) {
        let [soon, later] = MOUNT_DELAYS.map(|delay| Instant::now() + delay);
        if self.mount_looks.first().is_none_or(|at| *at > soon) {
            self.mount_looks.insert(0, soon);
        }
        if self.mount_looks.len() == 1 {
            self.mount_looks.push(later);
        }
    }

    /// When to look at the clock again without any input.
    fn due(&self) -> Instant {
        let mut due = Instant::now() + Duration::from_secs(1);
        if self.looked && !self.idle.is_empty() {
            let wait = self.means.engine.deadline().saturating_sub(clock::ktime_ns());
            due = due.min(Instant::now() + Duration::from_nanos(wait));
        }
        if self.wants != Wants::default() {
            // The scout was busy: who lives must not wait for the next event.
            due = due.min(Instant::now() + SCOUT_RETRY);
        }
        due = due.min(self.held.front().map_or(due, |(until, _)| *until));
        due.min(self.mount_looks.first().copied().unwrap_or(due))
    }

    fn every_second(&mut self) {
        let means = &mut self.means;
        match means.clock.refresh() {
            Ok(Some(step)) => tracing::info!(step_ns = step, "the wall clock was set"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "clocks cannot be read"),
        }
        means.engine.report();
        means.owners.report();
        if let Some(control) = &means.control {
            match control.counters() {
                Ok(counters) => means.ebpf_metrics.report(&counters),
                Err(error) => tracing::warn!(%error, "kernel-side counters cannot be read"),
            }
        }
        // Two periods and a little: the third poll would be late.
        let stale = self.last_poll.unwrap_or(self.started).elapsed();
        let limit = 2 * means.frequency + Duration::from_secs(5);
        if stale > limit && self.looked {
            let reason = format!(
                "no poll has ended for {}",
                humantime::format_duration(Duration::from_secs(stale.as_secs()))
            );
            means.readiness.set("polls", Err(reason));
        }
    }

    /// Ends the threads, takes in what they leave, and publishes it.
    pub(super) async fn stop(mut self) {
        if let Some(control) = &self.means.control {
            control.detach();
        }
        if let Some(drain) = self.means.drain.take() {
            drain.stop();
            while let Some(batch) = next_batch(&mut self.means.batches).await {
                self.means.engine.on_events(clock::ktime_ns(), &batch);
                self.means.events.publish(&self.means.engine.take_events());
            }
            if let Err(error) = drain.join() {
                tracing::warn!(%error, "the ring buffer's reader failed");
            }
        }
        let Means { owners, scan, threads, mut done, looks, mut scout, .. } = self.means;
        owners.stop();
        drop(looks);
        scout.stop();
        let ended = tokio::task::spawn_blocking(move || {
            let scan = scan.into_iter().map(std::thread::JoinHandle::join);
            threads.into_iter().map(WorkerHandle::join).chain(scan).filter(Result::is_err).count()
        });
        while done.recv().await.is_some() {}
        if ended.await.is_ok_and(|panicked| panicked > 0) {
            tracing::error!("a worker panicked");
        }
    }
}

/// Hands a job to an idle worker; gives it back when that has ended, and the worker is idle no more.
fn dispatch(threads: &[WorkerHandle], idle: &mut Vec<usize>, job: Job) -> Option<Job> {
    let Some((worker, thread)) = idle.pop().and_then(|worker| Some((worker, threads.get(worker)?))) else {
        return Some(job);
    };
    let refused = thread.jobs.try_send(job).err()?;
    tracing::error!(worker, "a worker takes no jobs any more");
    Some(refused.into_inner())
}

/// The next notice; never, when nobody listens for it.
async fn next_notice(notices: &mut Option<Notices>) -> io::Result<Told> {
    match notices {
        Some(notices) => notices.next().await,
        None => std::future::pending().await,
    }
}

/// The next batch; never, when there are no kernel events.
async fn next_batch(batches: &mut Option<mpsc::Receiver<EventBatch>>) -> Option<EventBatch> {
    match batches {
        Some(batches) => batches.recv().await,
        None => std::future::pending().await,
    }
}
