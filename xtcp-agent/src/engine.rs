//! Puts together what is known: events and looks at the host change the registry, the connections and the schedule;
//! change events and jobs come out.
//!
//! Owned by one task and without I/O: the composition root feeds it and carries out what it wants.

mod listing;
mod metrics;
mod names;
mod netns;
mod ports;
mod transitions;
mod wants;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use xtcp_common::event::kind;
use xtcp_proto::event::v1::{self as pb, event::Event as Kind};

use crate::change_event::{self, Stamp};
use crate::clock::Clock;
use crate::collector::{Done, Job};
use crate::config::OwnConnections;
use crate::connections::Connections;
use crate::event::{Event, EventBatch};
use crate::mask::Mask;
use crate::netns::filter::NetnsFilter;
use crate::netns::nsid::Nsids;
use crate::netns::registry::{Registry, Source};
use crate::netns::{Door, NetnsId, Snapshot};
use crate::netns_counters::Reading;
use crate::netns_counters::ledger::Ledger;
use crate::owners::Owners;
use crate::scheduler::{Completion, PollFinished, Scheduler, Scope};
use crate::workload::Directory;

use listing::Listing;
pub use listing::missed_changes;
pub use metrics::EngineMetrics;
pub use ports::PortFilter;
pub use wants::Wants;

/// What the engine is made of.
pub struct Parts {
    /// Who is known.
    pub registry: Registry,
    /// Sockets between birth and CLOSE.
    pub connections: Connections,
    /// What to ask next.
    pub scheduler: Scheduler,
    /// Numbers the events.
    pub stamp: Stamp,
    /// Wall time.
    pub clock: Arc<Clock>,
    /// Which namespaces are wanted.
    pub filter: NetnsFilter,
    /// Which ports are wanted.
    pub ports: PortFilter,
    /// Whether the agent's own sockets make events.
    pub own_connections: OwnConnections,
    /// Sockets that become established are asked for.
    pub look_up_established: bool,
    /// Listeners that appear are asked for.
    pub look_up_listeners: bool,
    /// Whose namespaces are.
    pub directory: Directory,
    /// Namespaces can be entered by handle.
    pub handles: bool,
    /// What tells whose an end was.
    pub ends: Ends,
    /// Owners of sockets, for the rows of polls.
    pub owners: Owners,
    /// What becomes of addresses in events.
    pub mask: Option<Mask>,
    /// What namespaces count.
    pub ledger: Ledger,
    /// Ids of namespaces, kept as long as these live.
    pub nsids: Nsids,
    /// Counters.
    pub metrics: EngineMetrics,
}

/// What tells whose the end of a namespace was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// A kernel function, or a handle that proves it.
    Told,
    /// Looks at the host alone: of an end there are hints at most.
    Looked,
}

/// How often a namespace that cannot be entered is asked again, each time after a look.
const RETRIES: u8 = 4;

/// Looks at most that follow at once when some namespace is known to have ended: more than the registry's patience.
const HURRIED_LOOKS: u8 = 5;

/// The state.
pub struct Engine {
    parts: Parts,
    events: Vec<pb::Event>,
    wants: Wants,
    /// Namespaces left out by name, inode, container or pod, or because they opted out.
    excluded: HashSet<u32>,
    /// Namespaces that could not be entered: asked again after the look that finds a door.
    to_retry: HashSet<u32>,
    /// How often each of them was asked again since it was last entered.
    retried: HashMap<u32, u8>,
    /// The first full look was taken in.
    looked: bool,
    /// Some namespace is known to have ended, so that looks that miss one follow at once: so many more.
    hurried_looks: u8,
    malformed_events: u64,
    /// What is told to who asks for namespaces.
    listing: Listing,
}

impl Engine {
    /// Starts with what the registry knows.
    pub fn new(parts: Parts) -> Self {
        let mut engine = Self {
            parts,
            events: Vec::new(),
            wants: Wants::default(),
            excluded: HashSet::new(),
            to_retry: HashSet::new(),
            retried: HashMap::new(),
            looked: false,
            hurried_looks: 0,
            malformed_events: 0,
            listing: Listing::default(),
        };
        engine.sync(0, false);
        engine
    }

    /// Takes in what one drain of the ring buffer found.
    pub fn on_events(&mut self, now: u64, batch: &EventBatch) {
        let before = self.parts.stamp.sequence();
        for event in &batch.events {
            match event {
                Event::NetnsCreated(seen) => self.netns_created(now, seen),
                Event::NetnsDestroyed(seen) => {
                    let id = NetnsId { inode: seen.netns_inode, cookie: seen.netns_cookie };
                    let ktime_ns = seen.header.ktime_ns;
                    let changes = self.parts.registry.destroyed(id, ktime_ns, Source::KernelFunction);
                    self.apply(now, changes);
                }
                Event::NetnsSomeDestroyed(_) => {
                    self.ask_who_lives(Source::Cleanup);
                    self.look_for_the_missing();
                }
                Event::NetnsEntered(seen) => self.netns_entered(now, seen),
                Event::TcpState(seen) => self.transition(now, seen, None),
                Event::TcpClose(seen) => self.transition(now, &seen.state, Some(&seen.numbers)),
            }
        }
        if batch.lost.iter().any(|count| *count > 0) {
            self.lost(now, batch, before);
        }
        self.parts.scheduler.told_until(batch.told_until_ktime_ns);
        self.malformed_events += batch.malformed;
        self.parts.metrics.malformed_events(batch.malformed);
    }

    /// No events will come any more: nothing waits for them.
    pub fn no_more_events(&mut self) {
        self.parts.scheduler.told_until(u64::MAX);
    }

    /// Whether something waits for the events of the past, so that the reader is to be asked.
    pub fn waits_for_events(&self) -> bool {
        self.parts.scheduler.waits_for_events()
    }

    /// Takes in a look at the host.
    pub fn on_look(&mut self, now: u64, snapshot: &Snapshot) {
        if let Some(threads) = &snapshot.threads {
            self.parts.directory.looked(threads);
        }
        let Parts { registry, ends, .. } = &self.parts;
        let mounted = registry.iter().filter(|entry| *ends == Ends::Looked && entry.is_mounted());
        let mounted: Vec<u32> = mounted.map(|entry| entry.id.inode).collect();
        let changes = self.parts.registry.apply(snapshot);
        self.apply(now, changes);
        let late = self.looked;
        let lost = |inode: &u32| self.parts.registry.get(*inode).is_some_and(|entry| !entry.has_door());
        if mounted.iter().any(lost) {
            // Its mount was all that led there, as far as the last full look knew.
            self.look_for_the_missing();
        }
        self.looked |= snapshot.threads.is_some();
        self.sync(now, late);
        let Parts { registry, .. } = &self.parts;
        // Also those that just lost their last mount: their handle knows at once what looks only conclude.
        let doorless = registry.unreachable(false).filter(|entry| entry.id.cookie != 0).map(|entry| entry.id);
        self.wants.ask(registry.untraced().chain(doorless), Source::Reconcile);
        if snapshot.threads.is_some() && self.hurried_looks > 0 {
            self.hurried_looks -= 1;
            self.wants.everything |= registry.untraced().next().is_some();
        }
        self.retry(now);
    }

    /// Asks those that could not be entered and to whom the look found a door. A namespace is made before it is mounted:
    /// a look in between finds nothing, or its maker, who is about to end.
    fn retry(&mut self, now: u64) {
        for inode in std::mem::take(&mut self.to_retry) {
            let Some(entry) = self.parts.registry.get(inode) else { continue };
            let has_door = entry.target().doors.iter().any(|door| *door != Door::Handle);
            let tries = self.retried.entry(inode).or_default();
            if !has_door {
                self.to_retry.insert(inode);
            } else if *tries < RETRIES {
                *tries += 1;
                self.parts.scheduler.uncertain(now, inode, 0);
            }
        }
    }

    /// Takes in who lives, asked at `asked_ktime_ns` because of what the source had told.
    pub fn on_alive(&mut self, now: u64, asked_ktime_ns: u64, answers: &[(NetnsId, Source, bool)]) {
        for (id, source, alive) in answers {
            let change = self.parts.registry.liveness(*id, *alive, asked_ktime_ns, *source);
            self.apply(now, change);
        }
    }

    /// rtnetlink told of an end.
    pub fn ended(&mut self, now: u64, id: NetnsId) {
        let changes = self.parts.registry.destroyed(id, now, Source::Nsid);
        self.apply(now, changes);
    }

    /// Some namespace ended, nobody says which: asks for each, and looks until the missing are given up.
    pub fn somebody_ended(&mut self) {
        self.ask_who_lives(Source::Nsid);
        self.hurry();
    }

    /// Something hints at an end. Where only looks tell whose it was, they follow until the missing are given up.
    fn look_for_the_missing(&mut self) {
        if self.parts.ends == Ends::Looked {
            self.hurry();
        }
    }

    fn hurry(&mut self) {
        self.want_look(true);
        self.hurried_looks = HURRIED_LOOKS;
    }

    /// Takes in what a worker says.
    pub fn on_done(&mut self, now: u64, mut done: Done) {
        match &done.found {
            Ok(id) => {
                if let Some(reading) = done.counters.take() {
                    self.counted(*id, reading);
                }
                self.retried.remove(&id.inode);
                let changes = self.parts.registry.verified(*id, done.began_ktime_ns);
                self.apply(now, changes);
            }
            Err(error) => self.not_entered(now, done.expected, done.began_ktime_ns, error),
        }
        self.dumped(now, &done);
        self.parts.scheduler.completed(now, done.completion);
    }

    /// No worker took this job: it is not asked, and its poll is not complete.
    pub fn job_lost(&mut self, now: u64, job: &Job) {
        self.listing.lost(&job.request);
        self.parts.scheduler.completed(now, Completion { id: job.request.id, ..Completion::default() });
    }

    /// A client wants a poll; its number.
    pub fn poll_requested(&mut self) -> u64 {
        self.parts.scheduler.poll_requested()
    }

    /// The next job, if a worker may have one.
    pub fn next_job(&mut self, now: u64) -> Option<Job> {
        let request = self.parts.scheduler.next(now)?;
        self.listing.asked(&request);
        let inode = request.netns_inode;
        let entry = self.parts.registry.get(inode);
        let target = entry.map_or_else(
            || crate::netns::Target { id: NetnsId { inode, cookie: 0 }, doors: Vec::new() },
            crate::netns::registry::Entry::target,
        );
        let name = entry.map_or_else(|| Arc::from(""), |entry| Arc::clone(&entry.name));
        let workload = entry.and_then(|entry| self.parts.directory.of_netns(entry.id));
        let counters =
            request.poll != 0 && request.scope == Scope::Dump && self.parts.ledger.is_due(target.id, now);
        Some(Job { request, target, name, workload, counters })
    }

    /// When [`next_job`](Self::next_job) may have something, `CLOCK_MONOTONIC` nanoseconds.
    pub fn deadline(&self) -> u64 {
        self.parts.scheduler.deadline()
    }

    /// The poll that has ended since the last call.
    pub fn finished_poll(&mut self, now: u64) -> Option<PollFinished> {
        let finished = self.parts.scheduler.finished_polls(now)?;
        self.parts.metrics.poll_finished(&finished);
        Some(finished)
    }

    /// Change events since the last call.
    pub fn take_events(&mut self) -> Vec<pb::Event> {
        std::mem::take(&mut self.events)
    }

    /// What the engine wants to know since the last call.
    pub fn take_wants(&mut self) -> Wants {
        std::mem::take(&mut self.wants)
    }

    /// A full look is due, or mounts may have changed.
    pub fn want_look(&mut self, everything: bool) {
        self.wants.everything |= everything;
        self.wants.mounts = true;
    }

    /// Writes the gauges.
    pub fn report(&self) {
        let Parts { registry, connections, scheduler, clock, metrics, handles, directory, .. } = &self.parts;
        directory.report();
        metrics.report(registry, connections, scheduler, clock, (*handles, self.excluded.len()));
    }

    /// A visit read what its namespace counts. One that ended since then, or is excluded, is told no more.
    fn counted(&mut self, id: NetnsId, reading: Reading) {
        let lives = self.parts.registry.get(id.inode).is_some_and(|entry| entry.id.matches(id));
        if lives && !self.excluded.contains(&id.inode) {
            self.parts.ledger.take(id, &reading);
            let mut event = Kind::NetnsCounters(reading.counters);
            if let Some(mask) = &self.parts.mask {
                mask.event(&mut event);
            }
            self.publish(reading.ktime_ns, Some(id), event);
        }
    }

    fn lost(&mut self, now: u64, batch: &EventBatch, after_sequence: u64) {
        let count =
            |kinds: &[u32]| -> u64 { kinds.iter().filter_map(|kind| batch.lost.get(*kind as usize)).sum() };
        let counts = [
            (pb::EventKind::Unspecified, count(&[0])),
            (pb::EventKind::NetnsCreated, count(&[kind::NETNS_CREATED, kind::NETNS_ENTERED])),
            (pb::EventKind::NetnsDestroyed, count(&[kind::NETNS_DESTROYED, kind::NETNS_SOME_DESTROYED])),
            (pb::EventKind::TcpState, count(&[kind::TCP_STATE])),
            (pb::EventKind::TcpClose, count(&[kind::TCP_CLOSE])),
        ];
        let lost: Vec<pb::LossCount> = counts
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| pb::LossCount { kind: kind.into(), count })
            .collect();
        let before_sequence = self.parts.stamp.sequence() + 1;
        let place = pb::LossPlace::RingBuffer.into();
        let loss = pb::Loss { place, after_sequence, before_sequence, lost };
        self.publish(batch.drained_ktime_ns, None, Kind::Loss(loss));
        self.parts.connections.lost();
        self.parts.scheduler.all_uncertain(now);
        self.want_look(true);
        self.ask_who_lives(Source::Reconcile);
    }

    fn publish(&mut self, ktime_ns: u64, netns: Option<NetnsId>, event: Kind) {
        let name =
            netns.and_then(|id| self.parts.registry.get(id.inode)).map(|entry| Arc::clone(&entry.name));
        self.publish_named(ktime_ns, netns.map(|id| (id, name.as_deref().unwrap_or(""))), event);
    }

    fn publish_named(&mut self, ktime_ns: u64, netns: Option<(NetnsId, &str)>, event: Kind) {
        self.parts.metrics.event(&event);
        let wall_ns = self.parts.clock.wall_ns(ktime_ns);
        let netns = netns.map(|(id, name)| {
            let workload = self.parts.directory.of_netns(id);
            change_event::netns_of(id, name, workload.as_deref())
        });
        let event = self.parts.stamp.event(ktime_ns, wall_ns, netns, event);
        self.events.push(event);
    }
}

#[cfg(test)]
mod tests;
