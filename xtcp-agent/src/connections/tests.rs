use xtcp_common::event::{Header, Task, task};

use nix::errno::Errno;

use super::*;

const EST: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
const FIN1: u8 = 4;
const FIN2: u8 = 5;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const LISTEN: u8 = 10;
const CLOSING: u8 = 11;
const FILE: u32 = socket::FACTS | socket::HAS_FILE;
const ORPHAN: u32 = socket::FACTS | socket::DEAD;

struct World {
    connections: Connections,
    now: u64,
}

impl World {
    fn new() -> Self {
        Self { connections: Connections::new(100, 42, 4242), now: 1000 }
    }

    fn step(&mut self, sk: u64, old: u8, new: u8, change: impl FnOnce(&mut Transition)) -> Observation {
        self.now += 10;
        let mut seen = Transition {
            header: Header {
                kind: if new == CLOSE { kind::TCP_CLOSE } else { kind::TCP_STATE },
                cpu: 0,
                ktime_ns: self.now,
            },
            sk,
            cookie: sk + 1,
            netns_inode: 7,
            source_port: 80,
            old_state: old,
            new_state: new,
            flags: FILE,
            task: Task { tgid: 500, tid: 500, comm: *b"prog\0\0\0\0\0\0\0\0\0\0\0\0", ..Task::default() },
            ..Transition::default()
        };
        change(&mut seen);
        self.connections.apply(&seen)
    }

    fn walk(&mut self, sk: u64, states: &[u8]) -> Observation {
        states.windows(2).map(|pair| self.step(sk, pair[0], pair[1], |_| ())).last().unwrap()
    }
}

fn ended(observation: &Observation) -> &Closed {
    observation.closed.as_ref().unwrap()
}

#[test]
fn an_active_close_is_a_local_fin_with_its_whole_path() {
    let mut world = World::new();
    let last = world.walk(1, &[CLOSE, SYN_SENT, EST, FIN1, FIN2, CLOSE]);
    let closed = ended(&last);
    assert_eq!(closed.reason, CloseReason::LocalFin);
    assert_eq!(closed.opened_by, OpenedBy::Local);
    assert_eq!(closed.path.states(), [CLOSE, SYN_SENT, EST, FIN1, FIN2, CLOSE]);
    assert!(closed.path_complete);
    assert_eq!((closed.lifetime_ns, closed.established_ns), (40, 30));
    assert_eq!(last.owner.unwrap().source, OwnerSource::Close);
    assert!(world.connections.is_empty());
}

#[test]
fn a_passive_close_is_a_peer_fin_and_belongs_to_the_listeners_owner_until_it_is_closed() {
    let mut world = World::new();
    world.walk(9, &[CLOSE, LISTEN]);
    let born = world.step(1, LISTEN, SYN_RECV, |seen| seen.task.tgid = 77);
    assert_eq!(born.cookie, 0, "a child may still carry its listener's cookie");
    assert_eq!(born.owner.unwrap().source, OwnerSource::Listen);
    assert_eq!(born.owner.unwrap().pid, 500);
    let established = world.step(1, SYN_RECV, EST, |seen| seen.task.tgid = 77);
    assert_eq!(established.owner.unwrap().pid, 500);
    world.step(1, EST, CLOSE_WAIT, |seen| seen.task.tgid = 77);
    world.step(1, CLOSE_WAIT, LAST_ACK, |seen| seen.task.tgid = 501);
    let last = world.step(1, LAST_ACK, CLOSE, |seen| seen.flags = ORPHAN);
    assert_eq!(ended(&last).reason, CloseReason::PeerFin);
    assert_eq!(ended(&last).opened_by, OpenedBy::Peer);
    assert_eq!(last.owner.unwrap().pid, 501);
}

#[test]
fn errors_tell_refused_reset_timed_out_unreachable_and_destroyed_apart() {
    for (old, error, reason) in [
        (SYN_SENT, Errno::ECONNREFUSED, CloseReason::Refused),
        (SYN_SENT, Errno::ETIMEDOUT, CloseReason::TimedOut),
        (SYN_SENT, Errno::EHOSTUNREACH, CloseReason::Unreachable),
        (EST, Errno::ECONNRESET, CloseReason::PeerReset),
        (FIN1, Errno::ETIMEDOUT, CloseReason::TimedOut),
        (CLOSE_WAIT, Errno::EPIPE, CloseReason::PeerReset),
        (EST, Errno::ECONNABORTED, CloseReason::Destroyed),
        (EST, Errno::EMSGSIZE, CloseReason::Error),
    ] {
        let mut world = World::new();
        let last = world.step(1, old, CLOSE, |seen| seen.sk_err = error as u32);
        assert_eq!(ended(&last).reason, reason, "{error:?} in state {old}");
        assert!(last.owner.is_none(), "a packet's context owns nothing");
    }
}

#[test]
fn a_close_with_unread_data_is_a_local_reset_by_its_process() {
    let mut world = World::new();
    world.walk(1, &[CLOSE, SYN_SENT, EST]);
    let last = world.step(1, EST, CLOSE, |_| ());
    assert_eq!(ended(&last).reason, CloseReason::LocalReset);
    assert_eq!(last.owner.unwrap().source, OwnerSource::Close);
}

#[test]
fn a_child_that_nobody_accepted_says_so() {
    let mut world = World::new();
    world.walk(9, &[CLOSE, LISTEN]);
    world.walk(1, &[LISTEN, SYN_RECV, EST]);
    let last = world.step(1, EST, CLOSE, |seen| seen.flags = socket::FACTS);
    assert_eq!(ended(&last).reason, CloseReason::NeverAccepted);
    assert_eq!(ended(&world.step(9, LISTEN, CLOSE, |_| ())).reason, CloseReason::ListenerClosed);
    assert!(world.connections.listeners.is_empty());
}

#[test]
fn a_killed_process_is_an_exit_with_its_signal() {
    let mut world = World::new();
    world.walk(1, &[CLOSE, SYN_SENT, EST]);
    world.step(1, EST, FIN1, |seen| {
        seen.task.flags = task::EXITING;
        seen.task.exit_code = 9;
    });
    world.step(1, FIN1, FIN2, |seen| seen.task.tgid = 3);
    let last = world.step(1, FIN2, CLOSE, |seen| seen.flags = ORPHAN);
    assert_eq!(ended(&last).reason, CloseReason::ProcessExit);
    assert_eq!(ended(&last).exit_signal, 9);
    assert_eq!(last.owner.unwrap().source, OwnerSource::Exit);
}

#[test]
fn a_connect_given_up_and_a_simultaneous_close_are_told_apart() {
    let mut world = World::new();
    assert_eq!(ended(&world.walk(1, &[CLOSE, SYN_SENT, CLOSE])).reason, CloseReason::ConnectAbandoned);
    let last = world.walk(1, &[CLOSE, SYN_SENT, EST, FIN1, CLOSING, CLOSE]);
    assert_eq!(ended(&last).reason, CloseReason::SimultaneousFin);
}

#[test]
fn a_socket_older_than_the_agent_has_no_complete_path_and_no_lifetime() {
    let mut world = World::new();
    let last = world.walk(1, &[EST, FIN1, FIN2, CLOSE]);
    let closed = ended(&last);
    assert_eq!(closed.reason, CloseReason::LocalFin);
    assert!(!closed.path_complete);
    assert_eq!((closed.lifetime_ns, closed.established_ns), (0, 0));
    assert_eq!(closed.opened_by, OpenedBy::Unspecified);
}

#[test]
fn a_loss_makes_open_paths_incomplete_and_leaves_later_ones_alone() {
    let mut world = World::new();
    world.walk(1, &[CLOSE, SYN_SENT, EST]);
    world.connections.lost();
    assert!(!ended(&world.walk(1, &[EST, FIN1, FIN2, CLOSE])).path_complete);
    assert!(ended(&world.walk(1, &[CLOSE, SYN_SENT, CLOSE])).path_complete);
}

#[test]
fn an_address_used_again_without_a_seen_close_is_a_new_connection() {
    let mut world = World::new();
    let first = world.walk(1, &[CLOSE, SYN_SENT, EST]);
    let second = world.walk(1, &[CLOSE, SYN_SENT]);
    assert_ne!(first.connection_id, second.connection_id);
}

#[test]
fn own_sockets_are_recognised_on_both_sides() {
    let mut world = World::new();
    let connecting = world.step(1, CLOSE, SYN_SENT, |seen| seen.task.tgid = 42);
    assert!(connecting.own);
    assert!(world.step(1, SYN_SENT, EST, |seen| seen.task.tgid = 1).own);
    world.step(9, CLOSE, LISTEN, |seen| seen.task.tgid = 42);
    assert!(world.step(2, LISTEN, SYN_RECV, |_| ()).own);
    assert!(!world.step(3, LISTEN, SYN_RECV, |seen| seen.source_port = 81).own);
}

#[test]
fn the_oldest_are_forgotten_past_the_capacity() {
    let mut world = World::new();
    for sk in 0..250 {
        world.walk(sk, &[CLOSE, SYN_SENT, EST]);
    }
    assert_eq!(world.connections.len(), 100);
    assert_eq!(world.connections.evicted(), 150);
    assert!(!ended(&world.walk(0, &[EST, FIN1, FIN2, CLOSE])).path_complete);
    assert!(ended(&world.walk(249, &[EST, FIN1, FIN2, CLOSE])).path_complete);
    assert!(world.connections.births.len() <= 201);
}

#[test]
fn the_classic_tracepoint_leaves_unknown_what_it_cannot_tell() {
    let mut world = World::new();
    let last = world.step(1, EST, CLOSE, |seen| seen.flags = socket::CLASSIC);
    assert_eq!(ended(&last).reason, CloseReason::Unspecified);
    assert!(last.owner.is_none());
}

#[test]
fn mptcps_own_listener_hides_neither_the_owner_nor_stays_behind() {
    let mut world = World::new();
    let own = |seen: &mut Transition| seen.flags |= socket::MPTCP;
    world.walk(9, &[CLOSE, LISTEN]);
    world.step(8, CLOSE, LISTEN, own);
    world.step(8, LISTEN, LISTEN, own);
    assert_eq!(world.step(1, LISTEN, SYN_RECV, |_| ()).owner.unwrap().pid, 500);
    assert_eq!(ended(&world.step(8, LISTEN, CLOSE, own)).reason, CloseReason::Mptcp);
    world.step(9, LISTEN, CLOSE, |_| ());
    assert!(world.connections.listeners.is_empty());
}

#[test]
fn the_agents_own_listener_tells_its_process_id_and_whatever_it_accepts_is_its_own() {
    let mut world = World::new();
    let started = |seen: &mut Transition| (seen.cookie, seen.source_port) = (4242, 9088);
    assert!(world.step(9, CLOSE, LISTEN, started).own);
    assert!(world.step(1, LISTEN, SYN_RECV, |seen| (seen.source_port, seen.task.tgid) = (9088, 77)).own);
    assert!(!world.step(2, LISTEN, SYN_RECV, |_| ()).own);
    assert!(world.step(3, CLOSE, SYN_SENT, |_| ()).own);
    assert!(!world.step(4, CLOSE, SYN_SENT, |seen| seen.task.tgid = 42).own);
}

#[test]
fn a_listener_whose_end_was_lost_is_not_kept_beside_its_successor_nor_beyond_its_namespace() {
    let mut world = World::new();
    world.walk(9, &[CLOSE, LISTEN]);
    world.step(9, CLOSE, LISTEN, |seen| seen.task.tgid = 600);
    assert_eq!(world.step(1, LISTEN, SYN_RECV, |_| ()).owner.unwrap().pid, 600);
    world.connections.forget_netns(7);
    assert!(world.connections.listeners.is_empty());
}

#[test]
fn the_births_of_ended_sockets_do_not_pile_up() {
    let mut world = World::new();
    for sk in 1..10_000 {
        world.walk(sk, &[CLOSE, SYN_SENT, CLOSE]);
        assert!(world.connections.births.len() <= 2 * 65, "{}", world.connections.births.len());
    }
}

#[test]
fn who_opened_a_connection_is_known_although_its_birth_was_not_seen() {
    let mut world = World::new();
    world.walk(9, &[CLOSE, LISTEN]);
    world.step(1, SYN_RECV, EST, |seen| seen.task.tgid = 77);
    let last = world.walk(1, &[EST, CLOSE_WAIT, LAST_ACK, CLOSE]);
    assert_eq!((ended(&last).opened_by, ended(&last).path_complete), (OpenedBy::Peer, false));
    world.step(2, SYN_SENT, EST, |_| ());
    assert_eq!(ended(&world.step(2, EST, CLOSE, |_| ())).opened_by, OpenedBy::Local);
}
