//! The poll that is running, and when the next one starts.

use std::collections::VecDeque;

use foldhash::HashSet;

use super::Completion;
use crate::record::Reason;

/// A poll has visited every namespace that existed when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollFinished {
    /// Its number, from 1.
    pub number: u64,
    /// Every namespace that still exists answered in full.
    pub complete: bool,
    /// Rows that it gave.
    pub rows: u64,
    /// Namespaces visited.
    pub netns: u64,
    /// Nanoseconds from its start to its end.
    pub duration_ns: u64,
}

#[derive(Debug)]
struct Running {
    number: u64,
    reason: Reason,
    started: u64,
    queue: VecDeque<u32>,
    in_flight: usize,
    /// Dumps that wait for the events about their time: when they ended, of whom they were, which sockets they gave.
    merges: VecDeque<(u64, u32, HashSet<u64>)>,
    rows: u64,
    netns: u64,
    /// Those that did not answer in full.
    missing: HashSet<u32>,
}

#[derive(Debug)]
pub(super) struct Poll {
    frequency_ns: u64,
    jitter_pct: u64,
    random: u64,
    next_at: u64,
    number: u64,
    requested: bool,
    running: Option<Running>,
}

impl Poll {
    pub(super) fn new(now: u64, frequency_ns: u64, jitter_pct: u32, seed: u64) -> Self {
        Self {
            frequency_ns,
            jitter_pct: u64::from(jitter_pct.min(100)),
            random: seed | 1,
            next_at: now,
            number: 0,
            requested: false,
            running: None,
        }
    }

    /// Asks for a poll that begins after this call; gives its number.
    pub(super) fn request(&mut self) -> u64 {
        self.requested = true;
        self.number + 1
    }

    /// Begins a poll if one is due and none is running. True if it is late by a whole period.
    pub(super) fn begin(&mut self, now: u64, netns: impl Iterator<Item = u32>) -> bool {
        if self.running.is_some() || (now < self.next_at && !self.requested) {
            return false;
        }
        let late = now >= self.next_at + self.frequency_ns && self.number > 0;
        self.number += 1;
        let reason = if self.requested { Reason::Requested } else { Reason::Poll };
        if now >= self.next_at {
            self.next_at = now + self.jittered_frequency();
        }
        self.requested = false;
        self.running = Some(Running {
            number: self.number,
            reason,
            started: now,
            queue: netns.collect(),
            in_flight: 0,
            merges: VecDeque::new(),
            rows: 0,
            netns: 0,
            missing: HashSet::default(),
        });
        late
    }

    /// Reason and number of the running poll.
    pub(super) fn current(&self) -> (Reason, u64) {
        self.running.as_ref().map_or((Reason::Poll, 0), |running| (running.reason, running.number))
    }

    /// The next namespace to dump.
    pub(super) fn next_netns(&mut self) -> Option<u32> {
        let running = self.running.as_mut()?;
        let inode = running.queue.pop_front()?;
        running.in_flight += 1;
        running.netns += 1;
        Some(inode)
    }

    /// A namespace is gone: it is not visited any more, and nothing is missing of it.
    pub(super) fn forget(&mut self, inode: u32) {
        if let Some(running) = &mut self.running {
            running.queue.retain(|queued| *queued != inode);
            running.merges.retain(|(_, merging, _)| *merging != inode);
            running.missing.remove(&inode);
        }
    }

    /// A request of the poll ended. With `merge_from` its namespace waits for the events before that time.
    pub(super) fn answered(&mut self, inode: u32, completion: Completion, merge_from: Option<u64>) {
        let Some(running) = &mut self.running else {
            return;
        };
        running.in_flight = running.in_flight.saturating_sub(1);
        running.rows += completion.rows;
        if !completion.complete {
            running.missing.insert(inode);
        }
        if let Some(from) = merge_from {
            running.merges.push_back((from, inode, completion.seen));
        }
    }

    /// A namespace all events of whose dump's time have been told: those before `told_until`. One that waited for the
    /// longest time may lack sockets.
    pub(super) fn merge_due(
        &mut self,
        now: u64,
        told_until: u64,
        longest_ns: u64,
    ) -> Option<(u32, HashSet<u64>)> {
        let running = self.running.as_mut()?;
        let (from, inode) = running.merges.front().map(|(from, inode, _)| (*from, *inode))?;
        if told_until < from {
            if now < from.saturating_add(longest_ns) {
                return None;
            }
            running.missing.insert(inode);
        }
        running.merges.pop_front().map(|(_, inode, seen)| (inode, seen))
    }

    /// The latest end of a dump that waits.
    pub(super) fn last_merge_from(&self) -> Option<u64> {
        self.running.as_ref()?.merges.back().map(|(from, ..)| *from)
    }

    /// A request of the poll was added.
    pub(super) fn merging(&mut self) {
        if let Some(running) = &mut self.running {
            running.in_flight += 1;
        }
    }

    /// When something can be done next, with or without a worker for the next namespace.
    pub(super) fn deadline(&self, may_poll: bool, told_until: u64, longest_ns: u64) -> u64 {
        match &self.running {
            None if self.requested => 0,
            None => self.next_at,
            Some(running) if may_poll && !running.queue.is_empty() => 0,
            Some(running) => running.merges.front().map_or(u64::MAX, |(from, ..)| {
                if told_until < *from { from.saturating_add(longest_ns) } else { 0 }
            }),
        }
    }

    /// The poll that has just ended, once.
    pub(super) fn finished(&mut self, now: u64) -> Option<PollFinished> {
        let done = self.running.as_ref().is_some_and(|running| {
            running.queue.is_empty() && running.in_flight == 0 && running.merges.is_empty()
        });
        let running = if done { self.running.take()? } else { return None };
        Some(PollFinished {
            number: running.number,
            complete: running.missing.is_empty(),
            rows: running.rows,
            netns: running.netns,
            duration_ns: now.saturating_sub(running.started),
        })
    }

    /// The frequency, moved by at most the configured share either way (xorshift64: spread matters, not secrecy).
    fn jittered_frequency(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let most = self.frequency_ns / 100 * self.jitter_pct;
        self.frequency_ns - most + self.random.checked_rem(2 * most).unwrap_or(0)
    }
}
