//! Decides which namespace to ask next, what to ask, and why.
//!
//! A pure state machine: no I/O and no clock of its own (every call is given `now`, nanoseconds of `CLOCK_MONOTONIC`).
//! Triggers of one namespace are gathered for a moment and asked for together, by exact lookups or by a dump where that
//! is cheaper. Polls visit every namespace. A socket that opens while its namespace is being dumped is merged into that
//! poll by a lookup, so that each socket is in each poll once.

mod budget;
mod cost;
mod poll;
mod request;
mod sweep;

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::record::Reason;

use budget::Budget;
use cost::Cost;
use poll::Poll;
pub use poll::PollFinished;
pub use request::{Completion, Decisions, DumpRequest, Lookup, Scope, Settings};
use sweep::Sweep;

/// What is to be asked of one namespace. Sockets are named by their kernel address: nobody else has it until their end
/// is told, and a cookie is not known everywhere.
#[derive(Debug, Default)]
struct Netns {
    pending: HashMap<u64, Lookup>,
    pending_listeners: bool,
    pending_dump: Option<(Reason, u64)>,
    queued: bool,
    busy: bool,
    /// Opened since this poll's dump of the namespace was dispatched; None outside it.
    opened: Option<HashMap<u64, Lookup>>,
}

#[derive(Debug)]
struct InFlight {
    netns_inode: u32,
    poll: u64,
    dump: bool,
    asked: usize,
}

/// Polls after this many triggers in a row when both wait, so that neither starves the other.
const TRIGGERS_IN_A_ROW: u32 = 8;

/// The state machine.
#[derive(Debug)]
pub struct Scheduler {
    settings: Settings,
    netns: BTreeMap<u32, Netns>,
    /// Namespaces with triggers, with the time from which they may be asked; times never decrease.
    due: VecDeque<(u64, u32)>,
    in_flight: HashMap<u64, InFlight>,
    last_id: u64,
    poll: Poll,
    triggers_in_a_row: u32,
    sweep: Sweep,
    budget: Budget,
    cost: Cost,
    decisions: Decisions,
    /// Every event of an earlier time has been told, nanoseconds.
    told_until: u64,
}

impl Scheduler {
    /// Starts with no namespace; the first poll is due at once. `seed` feeds the jitter.
    pub fn new(settings: Settings, now: u64, seed: u64) -> Self {
        Self {
            netns: BTreeMap::new(),
            due: VecDeque::new(),
            in_flight: HashMap::new(),
            last_id: 0,
            poll: Poll::new(now, settings.frequency_ns, settings.jitter_pct, seed),
            triggers_in_a_row: 0,
            sweep: Sweep::default(),
            budget: Budget::new(settings.lookups_per_s, now),
            cost: Cost::default(),
            decisions: Decisions::default(),
            told_until: 0,
            settings,
        }
    }

    /// A namespace exists from now on. `found_late`: it may have sockets that no event told of, so it is dumped at once.
    pub fn netns_added(&mut self, now: u64, inode: u32, found_late: bool) {
        let netns = self.netns.entry(inode).or_default();
        if found_late {
            netns.pending_dump.get_or_insert((Reason::NetnsCreated, 0));
            self.queue(now, inode);
        }
    }

    /// A namespace is gone.
    pub fn netns_removed(&mut self, inode: u32) {
        self.netns.remove(&inode);
        self.poll.forget(inode);
        self.cost.forget(inode);
    }

    /// Whether a namespace is polled.
    pub fn knows(&self, inode: u32) -> bool {
        self.netns.contains_key(&inode)
    }

    /// A socket became established: ask for it.
    pub fn established(&mut self, now: u64, inode: u32, lookup: Lookup) {
        let Some(netns) = self.netns.get_mut(&inode) else {
            return;
        };
        if let Some(opened) = &mut netns.opened {
            opened.insert(lookup.sk, lookup.clone());
        }
        if !self.budget.take(now) {
            self.decisions.shed += 1;
            return;
        }
        netns.pending.insert(lookup.sk, lookup);
        self.queue(now, inode);
    }

    /// A socket began to listen: a lookup finds one of several on a port, so the listeners are dumped.
    pub fn listening(&mut self, now: u64, inode: u32) {
        if let Some(netns) = self.netns.get_mut(&inode) {
            netns.pending_listeners = true;
            self.queue(now, inode);
        }
    }

    /// Something happened to the namespace's sockets that nothing told of: events were lost, or it could not be asked.
    pub fn uncertain(&mut self, now: u64, inode: u32, event_sequence: u64) {
        if let Some(netns) = self.netns.get_mut(&inode) {
            netns.pending_dump.get_or_insert((Reason::TcpState, event_sequence));
            self.queue(now, inode);
        }
    }

    /// Events were lost: any namespace may hold sockets that nothing told of. All are dumped, as soon as that has not
    /// been done just before.
    pub fn all_uncertain(&mut self, now: u64) {
        self.sweep.want();
        self.begin_sweep(now);
    }

    fn begin_sweep(&mut self, now: u64) {
        if self.sweep.begin(now, self.cost.of_all_dumps_ns()) {
            let inodes: Vec<u32> = self.netns.keys().copied().collect();
            for inode in inodes {
                self.uncertain(now, inode, 0);
            }
        }
    }

    /// A socket closed: whatever was about to be asked about it is not asked.
    pub fn closed(&mut self, inode: u32, sk: u64) {
        if let Some(netns) = self.netns.get_mut(&inode) {
            if let Some(opened) = &mut netns.opened {
                opened.remove(&sk);
            }
            if netns.pending.remove(&sk).is_some() {
                self.decisions.closed_before_asked += 1;
            }
        }
    }

    /// Every event of an earlier time than `until` (`CLOCK_MONOTONIC` nanoseconds) has been told; `u64::MAX` when none will
    /// come any more.
    pub fn told_until(&mut self, until: u64) {
        self.told_until = self.told_until.max(until);
    }

    /// Whether a dump waits for events about its time.
    pub fn waits_for_events(&self) -> bool {
        self.poll.last_merge_from().is_some_and(|from| from > self.told_until)
    }

    /// A client wants a poll now. Gives the poll's number; requests that wait for the same start share one.
    pub fn poll_requested(&mut self) -> u64 {
        self.poll.request()
    }

    /// The next thing to ask, if a worker is free and something is due.
    pub fn next(&mut self, now: u64) -> Option<DumpRequest> {
        if self.poll.begin(now, self.netns.keys().copied()) {
            self.decisions.overruns += 1;
        }
        self.begin_sweep(now);
        if self.in_flight.len() >= self.settings.workers {
            return None;
        }
        let polls_first = self.triggers_in_a_row >= TRIGGERS_IN_A_ROW;
        let request = if polls_first {
            self.next_of_poll(now).or_else(|| self.next_trigger(now))
        } else {
            self.next_trigger(now).or_else(|| self.next_of_poll(now))
        }?;
        self.triggers_in_a_row = if request.poll == 0 { self.triggers_in_a_row + 1 } else { 0 };
        Some(request)
    }

    /// When [`next`](Self::next) may have something, nanoseconds; `u64::MAX` when only a completion can change that.
    pub fn deadline(&self) -> u64 {
        if self.in_flight.len() >= self.settings.workers {
            return u64::MAX;
        }
        let due = self.due.front().map_or(u64::MAX, |(at, _)| *at);
        let poll = self.poll.deadline(self.may_poll(), self.told_until, self.settings.merge_wait_ns);
        due.min(poll).min(self.sweep.deadline())
    }

    /// A request ended.
    pub fn completed(&mut self, now: u64, mut completion: Completion) {
        let Some(request) = self.in_flight.remove(&completion.id) else {
            return;
        };
        let inode = request.netns_inode;
        if completion.complete && self.netns.contains_key(&inode) {
            self.cost.measured(inode, request.dump, request.asked, completion.rows, completion.duration_ns);
        }
        if request.poll != 0 {
            let mut netns = self.netns.get_mut(&inode);
            let merge =
                request.dump && completion.complete && netns.is_some() && self.settings.merge_wait_ns > 0;
            if let (true, false, Some(netns)) = (request.dump, merge, &mut netns) {
                netns.opened = None;
            }
            // A merge that does not find its sockets, and a namespace that is gone, leave nothing out.
            completion.complete |= !request.dump || netns.is_none();
            self.poll.answered(inode, completion, merge.then_some(now));
        } else if let Some(netns) = self.netns.get_mut(&inode) {
            netns.busy = false;
            if netns.has_triggers() {
                self.queue(now, inode);
            }
        }
    }

    /// Polls that ended since the last call.
    pub fn finished_polls(&mut self, now: u64) -> Option<PollFinished> {
        self.poll.finished(now)
    }

    /// What was decided so far.
    pub fn decisions(&self) -> Decisions {
        self.decisions
    }

    /// One worker stays free for triggers, so that a lookup never waits behind a long dump.
    fn may_poll(&self) -> bool {
        let polling = self.in_flight.values().filter(|request| request.poll != 0).count();
        polling < self.settings.workers.saturating_sub(1).max(1)
    }

    fn queue(&mut self, now: u64, inode: u32) {
        if let Some(netns) = self.netns.get_mut(&inode)
            && !netns.queued
            && !netns.busy
        {
            netns.queued = true;
            self.due.push_back((now + self.settings.lookup_delay_ns, inode));
        }
    }

    fn next_trigger(&mut self, now: u64) -> Option<DumpRequest> {
        while let Some(&(at, inode)) = self.due.front() {
            if at > now {
                return None;
            }
            self.due.pop_front();
            let Some(netns) = self.netns.get_mut(&inode) else {
                continue;
            };
            netns.queued = false;
            let (reason, event_sequence, scope) =
                if let Some((reason, event_sequence)) = netns.pending_dump.take() {
                    netns.pending.clear();
                    netns.pending_listeners = false;
                    (reason, event_sequence, Scope::Dump)
                } else if netns.pending_listeners {
                    netns.pending_listeners = false;
                    (Reason::TcpState, 0, Scope::Listeners)
                } else if netns.pending.is_empty() {
                    continue;
                } else if self.cost.dump_is_cheaper(inode, netns.pending.len()) {
                    netns.pending.clear();
                    self.decisions.dumps_instead += 1;
                    (Reason::TcpState, 0, Scope::Dump)
                } else {
                    let lookups = netns.take_pending(self.settings.lookups_per_request);
                    self.decisions.lookups += lookups.len() as u64;
                    let event_sequence = lookups.first().map_or(0, |lookup| lookup.event_sequence);
                    (Reason::TcpState, event_sequence, Scope::Lookups(lookups))
                };
            netns.busy = true;
            return Some(self.dispatch(inode, scope, reason, 0, event_sequence));
        }
        None
    }

    fn next_of_poll(&mut self, now: u64) -> Option<DumpRequest> {
        while let Some((inode, seen)) = self.poll.merge_due(now, self.told_until, self.settings.merge_wait_ns)
        {
            let Some(opened) = self.netns.get_mut(&inode).and_then(|netns| netns.opened.take()) else {
                continue;
            };
            let missing: Vec<Lookup> =
                opened.into_values().filter(|lookup| !seen.contains(&lookup.cookie)).collect();
            if !missing.is_empty() {
                self.decisions.merged += missing.len() as u64;
                self.poll.merging();
                let (reason, number) = self.poll.current();
                // Which of those without a cookie the dump had is seen by what they answer.
                let request = self.dispatch(inode, Scope::Lookups(missing), reason, number, 0);
                return Some(DumpRequest { seen, ..request });
            }
        }
        if !self.may_poll() {
            return None;
        }
        let inode = self.poll.next_netns()?;
        if let Some(netns) = self.netns.get_mut(&inode) {
            netns.opened = (self.settings.merge_wait_ns > 0).then(HashMap::new);
        }
        let (reason, number) = self.poll.current();
        Some(self.dispatch(inode, Scope::Dump, reason, number, 0))
    }

    fn dispatch(
        &mut self,
        inode: u32,
        scope: Scope,
        reason: Reason,
        poll: u64,
        event_sequence: u64,
    ) -> DumpRequest {
        self.last_id += 1;
        let asked = if let Scope::Lookups(lookups) = &scope { lookups.len() } else { 0 };
        let dump = scope == Scope::Dump;
        self.in_flight.insert(self.last_id, InFlight { netns_inode: inode, poll, dump, asked });
        let seen = foldhash::HashSet::default();
        DumpRequest { id: self.last_id, netns_inode: inode, scope, reason, poll, event_sequence, seen }
    }
}

impl Netns {
    fn has_triggers(&self) -> bool {
        !self.pending.is_empty() || self.pending_listeners || self.pending_dump.is_some()
    }

    fn take_pending(&mut self, most: usize) -> Vec<Lookup> {
        if self.pending.len() <= most {
            return self.pending.drain().map(|(_, lookup)| lookup).collect();
        }
        let some: Vec<u64> = self.pending.keys().take(most).copied().collect();
        some.into_iter().filter_map(|sk| self.pending.remove(&sk)).collect()
    }
}

#[cfg(test)]
mod tests;
