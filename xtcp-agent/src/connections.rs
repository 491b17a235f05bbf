//! Follows every TCP socket from its first transition to its last, by what the kernel side reported.
//!
//! Owns what one transition alone does not tell: which side opened a connection, who owns it, which states it went
//! through and since when. A socket is followed by its kernel address, which is its own from birth to CLOSE; its
//! cookie is not (a child may carry its listener's until it leaves SYN_RECV). Pure: no I/O and no clock.

mod ending;
mod owner;
mod path;

use std::collections::{HashMap, VecDeque};

use xtcp_common::event::{TcpState as Transition, kind, socket};
use xtcp_proto::event::v1::event::Event;
use xtcp_proto::event::v1::{CloseReason, OpenedBy, OwnerSource, TcpState as State};

pub use owner::{Owner, comm_text};
pub use path::Path;

/// An event that waits for the next transition of its socket, and its time (`CLOCK_MONOTONIC` nanoseconds).
pub type Held = (u64, Event);

/// What is known about a socket at one of its transitions.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Same for all transitions of one socket between birth and CLOSE; never 0.
    pub connection_id: u64,
    /// The socket's cookie; 0 where it is not known to be its own.
    pub cookie: u64,
    /// Who owns it, if known.
    pub owner: Option<Owner>,
    /// The socket belongs to this agent.
    pub own: bool,
    /// Set at the transition to CLOSE.
    pub closed: Option<Closed>,
    /// What [`Connections::hold`] kept of the socket, oldest first.
    pub held: Vec<Held>,
}

/// How a socket ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    /// Why.
    pub reason: CloseReason,
    /// Which side opened it.
    pub opened_by: OpenedBy,
    /// States in order, CLOSE last.
    pub path: Path,
    /// The path starts at the socket's birth and misses nothing.
    pub path_complete: bool,
    /// Nanoseconds since the first transition seen; 0 if the path is not complete.
    pub lifetime_ns: u64,
    /// Nanoseconds since ESTABLISHED; 0 if that was not seen.
    pub established_ns: u64,
    /// The signal that ended the owner and so closed the socket; 0 otherwise.
    pub exit_signal: u32,
}

#[derive(Debug)]
struct Connection {
    id: u64,
    epoch: u64,
    born_ns: u64,
    established_ns: u64,
    owner: Option<Owner>,
    closer: Option<Owner>,
    path: Path,
    opened_by: OpenedBy,
    last_state: u8,
    complete: bool,
    own: bool,
    held: Vec<Held>,
}

#[derive(Debug)]
struct Listener {
    sk: u64,
    owner: Option<Owner>,
    own: bool,
}

/// Every socket between its first seen transition and CLOSE.
#[derive(Debug)]
pub struct Connections {
    by_sk: HashMap<u64, Connection>,
    births: VecDeque<(u64, u64)>,
    listeners: HashMap<(u32, u16), Vec<Listener>>,
    capacity: usize,
    last_id: u64,
    epoch: u64,
    own_tgid: u32,
    own_listener: u64,
    evicted: u64,
}

impl Connections {
    /// Follows at most `capacity` sockets: past it the oldest are forgotten, and their ends then say that their path is
    /// not complete. `own_tgid` is this process; the beginning of the listener with the cookie `own_listener`, which is its
    /// own, tells how the host's pid namespace calls it.
    pub fn new(capacity: usize, own_tgid: u32, own_listener: u64) -> Self {
        Self {
            by_sk: HashMap::new(),
            births: VecDeque::new(),
            listeners: HashMap::new(),
            capacity: capacity.max(1),
            last_id: 0,
            epoch: 0,
            own_tgid,
            own_listener,
            evicted: 0,
        }
    }

    /// Transitions were lost: what was begun before can no longer be called complete.
    pub fn lost(&mut self) {
        self.epoch += 1;
    }

    /// Number of sockets followed.
    pub fn len(&self) -> usize {
        self.by_sk.len()
    }

    /// Whether no socket is followed.
    pub fn is_empty(&self) -> bool {
        self.by_sk.is_empty()
    }

    /// Number of sockets forgotten for want of room since the start.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Keeps events of a socket until its next transition; an end has none.
    pub fn hold(&mut self, sk: u64, earlier: Vec<Held>, event: Held) {
        if let Some(connection) = self.by_sk.get_mut(&sk) {
            connection.held = earlier;
            connection.held.push(event);
        }
    }

    /// Stops following a socket.
    pub fn forget(&mut self, sk: u64) {
        self.by_sk.remove(&sk);
    }

    /// A namespace is dead, or its transitions are not seen any more: its listeners are forgotten, whose ends may never
    /// be told.
    pub fn forget_netns(&mut self, inode: u32) {
        self.listeners.retain(|(netns_inode, _), _| *netns_inode != inode);
    }

    /// Applies one transition.
    pub fn apply(&mut self, seen: &Transition) -> Observation {
        let mut connection = self.take_or_begin(seen);
        let closing = seen.header.kind == kind::TCP_CLOSE;
        if connection.last_state != seen.old_state {
            connection.complete = false;
            if closing || connection.path.is_empty() {
                connection.path.push(seen.old_state);
            }
        }
        connection.path.push(seen.new_state);
        connection.last_state = seen.new_state;
        if is(seen.new_state, State::Established) {
            connection.established_ns = seen.header.ktime_ns;
        }
        let here = owner::of_transition(seen);
        if let Some(owner) = here {
            match owner.source {
                OwnerSource::Close | OwnerSource::Exit => connection.closer = Some(owner),
                OwnerSource::Connect
                | OwnerSource::Listen
                | OwnerSource::Netns
                | OwnerSource::FdWalk
                | OwnerSource::Unspecified => {
                    if seen.cookie != 0 && seen.cookie == self.own_listener {
                        self.own_tgid = owner.pid;
                    }
                    connection.owner = Some(owner);
                    connection.own = self.own_tgid != 0 && owner.pid == self.own_tgid;
                }
            }
        }
        // MPTCP's own socket shadows the TCP listener that has the owner.
        if is(seen.new_state, State::Listen) && !is(seen.old_state, State::Listen) && !is_mptcp(seen) {
            let listeners = self.listeners.entry((seen.netns_inode, seen.source_port)).or_default();
            // One at this address whose end was lost.
            listeners.retain(|listener| listener.sk != seen.sk);
            listeners.push(Listener { sk: seen.sk, owner: connection.owner, own: connection.own });
        }
        if is(seen.old_state, State::Listen) && closing {
            self.forget_listener(seen);
        }
        let observation = Observation {
            connection_id: connection.id,
            cookie: if is_child_birth(seen) { 0 } else { seen.cookie },
            owner: connection.closer.or(connection.owner),
            own: connection.own,
            held: std::mem::take(&mut connection.held),
            closed: closing.then(|| self.close(&connection, seen)),
        };
        if !closing {
            self.by_sk.insert(seen.sk, connection);
        }
        observation
    }

    /// The connection that this transition belongs to, taken out; a new one if the transition is a birth, or if what is
    /// known of that address cannot be the same socket.
    fn take_or_begin(&mut self, seen: &Transition) -> Connection {
        let known = self.by_sk.remove(&seen.sk);
        if !is_birth(seen) {
            if let Some(known) = known {
                return known;
            }
            let mut connection = self.begin(seen, false);
            // Its birth was before the agent, lost, or of a state that is not wanted.
            if is(seen.new_state, State::Established) {
                if is(seen.old_state, State::SynRecv) {
                    self.accepted(&mut connection, seen);
                } else if is(seen.old_state, State::SynSent) {
                    connection.opened_by = OpenedBy::Local;
                }
            }
            return connection;
        }
        let mut connection = self.begin(seen, true);
        connection.path.push(seen.old_state);
        if is_child_birth(seen) {
            self.accepted(&mut connection, seen);
        } else if is(seen.new_state, State::SynSent) {
            connection.opened_by = OpenedBy::Local;
        }
        connection
    }

    /// A listener's child: it belongs to whom its listener belongs to, until that is known better.
    fn accepted(&self, connection: &mut Connection, seen: &Transition) {
        connection.opened_by = OpenedBy::Peer;
        if let Some(listeners) = self.listeners.get(&(seen.netns_inode, seen.source_port)) {
            connection.owner = common_owner(listeners);
            connection.own = !listeners.is_empty() && listeners.iter().all(|listener| listener.own);
        }
    }

    fn begin(&mut self, seen: &Transition, complete: bool) -> Connection {
        self.last_id += 1;
        if self.by_sk.len() >= self.capacity {
            self.evict();
        }
        self.births.push_back((seen.sk, self.last_id));
        // Those who have ended leave their birth behind; not for longer than it takes as many others to be born.
        if self.births.len() > 2 * (self.by_sk.len() + 64) {
            self.births.retain(|(sk, id)| self.by_sk.get(sk).is_some_and(|known| known.id == *id));
            self.births.push_back((seen.sk, self.last_id));
        }
        Connection {
            id: self.last_id,
            epoch: self.epoch,
            born_ns: seen.header.ktime_ns,
            established_ns: 0,
            owner: None,
            closer: None,
            path: Path::default(),
            opened_by: OpenedBy::Unspecified,
            last_state: seen.old_state,
            complete,
            own: false,
            held: Vec::new(),
        }
    }

    fn evict(&mut self) {
        while let Some((sk, id)) = self.births.pop_front() {
            if self.by_sk.get(&sk).is_some_and(|known| known.id == id) {
                self.by_sk.remove(&sk);
                self.evicted += 1;
                return;
            }
        }
    }

    fn forget_listener(&mut self, seen: &Transition) {
        let key = (seen.netns_inode, seen.source_port);
        if let Some(listeners) = self.listeners.get_mut(&key) {
            listeners.retain(|listener| listener.sk != seen.sk);
            if listeners.is_empty() {
                self.listeners.remove(&key);
            }
        }
    }

    fn close(&self, connection: &Connection, seen: &Transition) -> Closed {
        let path_complete =
            connection.complete && connection.epoch == self.epoch && !connection.path.is_truncated();
        let since = |start: u64| if start == 0 { 0 } else { seen.header.ktime_ns.saturating_sub(start) };
        Closed {
            reason: ending::reason(seen, connection.opened_by, connection.closer),
            opened_by: connection.opened_by,
            path: connection.path,
            path_complete,
            lifetime_ns: if path_complete { since(connection.born_ns) } else { 0 },
            established_ns: since(connection.established_ns),
            exit_signal: connection.closer.map_or(0, |closer| closer.exit_signal),
        }
    }
}

/// The one owner of all listeners, if they agree.
fn common_owner(listeners: &[Listener]) -> Option<Owner> {
    let first = listeners.first()?.owner?;
    listeners
        .iter()
        .all(|listener| listener.owner.is_some_and(|owner| owner.pid == first.pid))
        .then_some(first)
}

fn is(state: u8, expected: State) -> bool {
    i32::from(state) == expected as i32
}

/// A listener's child appears.
fn is_child_birth(seen: &Transition) -> bool {
    is(seen.old_state, State::Listen) && is(seen.new_state, State::SynRecv)
}

/// A connection, a listener or a child begins here. MPTCP's own socket has only CLOSE → CLOSE.
fn is_birth(seen: &Transition) -> bool {
    is(seen.old_state, State::Close) && !is_mptcp(seen) || is_child_birth(seen)
}

fn is_mptcp(seen: &Transition) -> bool {
    seen.flags & socket::MPTCP != 0
}

#[cfg(test)]
mod tests;
