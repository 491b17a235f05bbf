//! The listeners of one namespace as a dump shows them: how many connections wait for `accept()`, and how many may.

use std::cmp::Reverse;

use xtcp_inet_diag::message;
use xtcp_inet_diag::socket_id::Family;
use xtcp_proto::netns::v1::{Listener, NetnsCounters};

/// Listeners told of one namespace.
pub const MOST: usize = 128;

/// Those of one dump, at most twice [`MOST`].
#[derive(Debug, Default)]
pub struct Listeners {
    kept: Vec<Listener>,
    left_out: u64,
}

impl Listeners {
    /// Takes in one row of a listening socket.
    pub fn add(&mut self, payload: &[u8]) {
        let Ok(row) = message::decode(payload) else { return };
        let header = row.header;
        let bytes = if header.family() == Some(Family::Inet) { 4 } else { 16 };
        let address = header.id.source.get(..bytes).unwrap_or_default().to_vec();
        self.push(Listener {
            address,
            port: u32::from(header.id.source_port),
            interface: header.id.interface,
            backlog: header.rqueue,
            limit: header.wqueue,
            cookie: header.id.cookie,
        });
    }

    fn push(&mut self, listener: Listener) {
        self.kept.push(listener);
        if self.kept.len() >= 2 * MOST {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.kept.sort_by_key(|one| (Reverse(one.backlog), one.port, one.cookie));
        self.left_out += self.kept.len().saturating_sub(MOST) as u64;
        self.kept.truncate(MOST);
    }

    /// Adds them to what is told of their namespace, those with most connections waiting first.
    pub fn finish(mut self, counters: &mut NetnsCounters) {
        self.cut();
        counters.listeners = self.kept;
        counters.listeners_left_out = self.left_out;
    }
}

/// Whether the next connection would be refused (`sk_acceptq_is_full` in `net/sock.h`).
pub fn is_full(listener: &Listener) -> bool {
    listener.backlog > listener.limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_with_the_longest_queues_are_kept_and_the_rest_is_counted() {
        let mut listeners = Listeners::default();
        for number in 0..1000_u32 {
            listeners.push(Listener {
                port: number,
                backlog: number % 500,
                limit: 400,
                ..Listener::default()
            });
        }
        let mut counters = NetnsCounters::default();
        listeners.finish(&mut counters);
        assert_eq!((counters.listeners.len(), counters.listeners_left_out), (MOST, 1000 - MOST as u64));
        assert_eq!(counters.listeners.first().map(|one| (one.backlog, one.port)), Some((499, 499)));
        assert!(counters.listeners.is_sorted_by_key(|one| Reverse(one.backlog)));
        assert!(counters.listeners.iter().all(|one| one.backlog >= 436));
        assert_eq!(counters.listeners.iter().filter(|one| is_full(one)).count(), 128);
    }

    #[test]
    fn a_queue_as_long_as_its_limit_still_takes_one() {
        assert!(!is_full(&Listener { backlog: 4, limit: 4, ..Listener::default() }));
        assert!(is_full(&Listener { backlog: 5, limit: 4, ..Listener::default() }));
    }
}
