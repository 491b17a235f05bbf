//! TCP sockets that change state: what is told of it, who is remembered, and what is asked because of it.

use xtcp_common::event::{TcpNumbers, TcpState as Transition, kind, socket};

use super::Engine;
use super::ports::Verdict;
use crate::change_event;
use crate::config::OwnConnections;
use crate::connections::Observation;
use crate::netns::NetnsId;
use crate::scheduler::Lookup;

impl Engine {
    pub(super) fn transition(&mut self, now: u64, seen: &Transition, numbers: Option<&TcpNumbers>) {
        let netns = NetnsId { inode: seen.netns_inode, cookie: seen.netns_cookie };
        let located = seen.flags & socket::CLASSIC == 0 && netns.inode != 0;
        if located {
            let changes = self.parts.registry.seen(netns, seen.header.ktime_ns);
            self.apply(now, changes);
        }
        let mut known = self.parts.connections.apply(seen);
        let held = std::mem::take(&mut known.held);
        if known.own && self.parts.own_connections == OwnConnections::Exclude {
            self.parts.metrics.own_event();
            return;
        }
        if located && self.excluded.contains(&netns.inode) {
            self.parts.metrics.excluded_event();
            return;
        }
        self.remember(seen, &known);
        let mut event = match &known.closed {
            Some(closed) => {
                change_event::tcp_close(seen, numbers.unwrap_or(&TcpNumbers::default()), &known, closed)
            }
            None => change_event::tcp_state(seen, &known),
        };
        if let Some(mask) = &self.parts.mask {
            mask.event(&mut event);
        }
        match self.parts.ports.verdict(seen) {
            Verdict::Pass => {}
            Verdict::Wait => {
                self.parts.connections.hold(seen.sk, held, (seen.header.ktime_ns, event));
                return;
            }
            Verdict::Drop => {
                self.parts.metrics.port_event();
                self.parts.connections.forget(seen.sk);
                return;
            }
        }
        for (ktime_ns, event) in held.into_iter().chain([(seen.header.ktime_ns, event)]) {
            self.publish(ktime_ns, located.then_some(netns), event);
        }
        if located && seen.flags & socket::MPTCP == 0 {
            self.trigger(now, seen, &known);
        }
    }

    /// Keeps the owner for the rows of polls, as long as the socket lives.
    fn remember(&self, seen: &Transition, known: &Observation) {
        if known.closed.is_some() {
            self.parts.owners.forget(known.cookie);
        } else if let Some(owner) = known.owner {
            self.parts.owners.learn(known.cookie, owner, seen.header.ktime_ns);
        }
    }

    /// A transition that leads to a request.
    fn trigger(&mut self, now: u64, seen: &Transition, known: &Observation) {
        let scheduler = &mut self.parts.scheduler;
        if seen.header.kind == kind::TCP_CLOSE {
            scheduler.closed(seen.netns_inode, seen.sk);
        } else if seen.new_state == State::LISTEN && self.parts.look_up_listeners {
            scheduler.listening(now, seen.netns_inode);
        } else if seen.new_state == State::ESTABLISHED && self.parts.look_up_established {
            let event_sequence = self.parts.stamp.sequence();
            let lookup = Lookup {
                family: u8::try_from(seen.family).unwrap_or(0),
                source: seen.source,
                destination: seen.destination,
                source_port: seen.source_port,
                destination_port: seen.destination_port,
                interface: seen.bound_if,
                cookie: known.cookie,
                sk: seen.sk,
                event_sequence,
                owner: known.owner,
            };
            scheduler.established(now, seen.netns_inode, lookup);
        }
    }
}

/// States that lead to requests, numbered as in the kernel's `net/tcp_states.h`.
pub(super) struct State;

impl State {
    pub(super) const ESTABLISHED: u8 = 1;
    pub(super) const LISTEN: u8 = 10;
}
