//! A TCP socket changed state, in one network namespace; its last numbers when it closes.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock};
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::BtfTracePointContext;
use xtcp_common::counter;
use xtcp_common::event::{Header, TcpClose, TcpState, kind, socket};
use xtcp_common::setting::{self, NETNS_DROP_ENTRIES, PORT_WORDS, port};

use crate::emit::{count, emit};
use crate::kernel::{
    HAVE_SOCKET_COOKIE, NETNS_FILTER, OFF_CGROUP_KN, OFF_KN_ID, OFF_NET_COOKIE, OFF_NET_INUM,
    OFF_SK_BOUND_IF, OFF_SK_CGRP, OFF_SK_COOKIE, OFF_SK_DADDR, OFF_SK_DPORT, OFF_SK_ERR, OFF_SK_FAMILY,
    OFF_SK_FLAGS, OFF_SK_NET, OFF_SK_NUM, OFF_SK_PROTOCOL, OFF_SK_RCV_SADDR, OFF_SK_SHUTDOWN, OFF_SK_SOCKET,
    OFF_SK_UID, OFF_SK_V6_DADDR, OFF_SK_V6_RCV_SADDR, OFF_TP_SPORT, OWN_TGID, PORT_MODE, Ptr, STATE_MASK,
    bytes,
};
use crate::{numbers, task};

pub(crate) const AF_INET6: u16 = 10;
pub(crate) const IPPROTO_MPTCP: u16 = 262;
pub(crate) const CLOSE: u32 = 7;
const IPPROTO_TCP: u16 = 6;
const SYN_SENT: u32 = 2;
const LISTEN: u32 = 10;
/// Bit of `SOCK_DEAD` in `sk_flags` (`enum sock_flags`).
const SOCK_DEAD: u64 = 1;
const NO_PREALLOC: u32 = 1;

/// Namespaces to leave out: [`xtcp_common::setting::NETNS_DROP`].
#[map]
static NETNS_DROP: HashMap<u32, u8> = HashMap::with_max_entries(NETNS_DROP_ENTRIES, NO_PREALLOC);

/// Ports to include, then to exclude: [`xtcp_common::setting::PORTS`].
#[map]
static PORTS: Array<u64> = Array::with_max_entries(2 * PORT_WORDS, 0);

/// A change of state.
#[derive(Clone, Copy)]
pub(crate) struct Transition {
    pub(crate) old: u32,
    pub(crate) new: u32,
}

/// `inet_sock_set_state(sk, oldstate, newstate)`.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn tcp_state(ctx: BtfTracePointContext) -> i32 {
    let change = Transition { old: ctx.arg(1), new: ctx.arg(2) };
    if !state_passes(change) {
        return 0;
    }
    // SAFETY: the verifier knows the argument as a `struct sock`.
    let sk = unsafe { Ptr::new(ctx.arg(0)) };
    let protocol = sk.read(&OFF_SK_PROTOCOL).unwrap_or(0);
    if !protocol_passes(protocol) {
        return 0;
    }
    let net = sk.follow(&OFF_SK_NET);
    let netns_inode = if net.is_null() { 0 } else { net.read(&OFF_NET_INUM).unwrap_or(0) };
    if !netns_passes(netns_inode) {
        return 0;
    }
    let tcp = if change.new == CLOSE { tcp_sock(sk) } else { None };
    let source_port = source_port(sk, tcp);
    let destination_port = u16::from_be(sk.read(&OFF_SK_DPORT).unwrap_or(0));
    if !ports_pass(change, source_port, destination_port) {
        return 0;
    }
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(
        &ctx,
        "netns {} port {}: state {} to {}",
        netns_inode,
        source_port,
        change.old,
        change.new
    );
    let socket = Socket { sk, net, netns_inode, protocol, source_port, destination_port };
    if change.new == CLOSE {
        if tcp.is_none() {
            count(counter::NO_TCP_SOCK);
        }
        emit::<TcpClose>(kind::TCP_CLOSE, |sample, header| {
            sample.write(TcpClose { state: socket.state(header, change), numbers: numbers::last(tcp) });
        });
    } else {
        emit::<TcpState>(kind::TCP_STATE, |sample, header| {
            sample.write(socket.state(header, change));
        });
    }
    0
}

/// What was read before it was clear that the event is wanted.
struct Socket {
    sk: Ptr,
    net: Ptr,
    netns_inode: u32,
    protocol: u16,
    source_port: u16,
    destination_port: u16,
}

impl Socket {
    #[inline(always)]
    fn state(&self, header: Header, change: Transition) -> TcpState {
        let sk = self.sk;
        let family = sk.read(&OFF_SK_FAMILY).unwrap_or(0);
        let (source, destination) = addresses(sk, family);
        let mptcp = if self.protocol == IPPROTO_MPTCP { socket::MPTCP } else { 0 };
        TcpState {
            header,
            sk: sk.address(),
            cookie: cookie(sk),
            netns_cookie: if self.net.is_null() { 0 } else { self.net.read(&OFF_NET_COOKIE).unwrap_or(0) },
            cgroup_id: cgroup_id(sk),
            netns_inode: self.netns_inode,
            bound_if: sk.read(&OFF_SK_BOUND_IF).unwrap_or(0),
            sk_err: sk.read(&OFF_SK_ERR).unwrap_or(0),
            flags: facts(sk) | mptcp,
            family,
            protocol: self.protocol,
            source_port: self.source_port,
            destination_port: self.destination_port,
            old_state: change.old as u8,
            new_state: change.new as u8,
            shutdown: sk.read(&OFF_SK_SHUTDOWN).unwrap_or(0),
            pad: 0,
            uid: sk.read(&OFF_SK_UID).unwrap_or(u32::MAX),
            source,
            destination,
            task: task::current_facts(),
        }
    }
}

/// The socket as a `tcp_sock`; `None` for MPTCP's own, and for anything that is no full socket.
#[inline(always)]
fn tcp_sock(sk: Ptr) -> Option<Ptr> {
    // SAFETY: the verifier knows the argument as a socket, and what is returned as a `tcp_sock` or null.
    let tcp = unsafe { Ptr::new(bpf_skc_to_tcp_sock(sk.raw()).cast()) };
    if tcp.is_null() { None } else { Some(tcp) }
}

/// At CLOSE the port is given back before this hook runs, and `skc_num` is 0; `inet_sport` still has it.
#[inline(always)]
fn source_port(sk: Ptr, tcp: Option<Ptr>) -> u16 {
    match (sk.read(&OFF_SK_NUM), tcp) {
        (None | Some(0), Some(tcp)) => u16::from_be(tcp.read(&OFF_TP_SPORT).unwrap_or(0)),
        (port, _) => port.unwrap_or(0),
    }
}

/// Without the helper, which makes one for a socket that has none yet: the one that somebody else made it have.
#[inline(always)]
fn cookie(sk: Ptr) -> u64 {
    if HAVE_SOCKET_COOKIE.get() == 0 {
        return sk.read(&OFF_SK_COOKIE).unwrap_or(0);
    }
    // SAFETY: the verifier knows the argument as a socket.
    unsafe { bpf_get_socket_cookie(sk.raw()) }
}

#[inline(always)]
fn cgroup_id(sk: Ptr) -> u64 {
    let cgroup = sk.follow(&OFF_SK_CGRP);
    if cgroup.is_null() {
        return 0;
    }
    let node = cgroup.follow(&OFF_CGROUP_KN);
    if node.is_null() { 0 } else { node.read(&OFF_KN_ID).unwrap_or(0) }
}

#[inline(always)]
fn addresses(sk: Ptr, family: u16) -> ([u8; 16], [u8; 16]) {
    if family == AF_INET6 {
        let source = sk.read_16(&OFF_SK_V6_RCV_SADDR).unwrap_or_default();
        let destination = sk.read_16(&OFF_SK_V6_DADDR).unwrap_or_default();
        (bytes(source), bytes(destination))
    } else {
        let source: u32 = sk.read(&OFF_SK_RCV_SADDR).unwrap_or(0);
        let destination: u32 = sk.read(&OFF_SK_DADDR).unwrap_or(0);
        (bytes([u64::from(source), 0]), bytes([u64::from(destination), 0]))
    }
}

/// Bits of [`socket`] that say who still holds the socket.
#[inline(always)]
fn facts(sk: Ptr) -> u32 {
    let (Some(file), Some(bits)) = (sk.read::<u64>(&OFF_SK_SOCKET), sk.read::<u64>(&OFF_SK_FLAGS)) else {
        return 0;
    };
    if sk.read::<u32>(&OFF_SK_ERR).is_none() || sk.read::<u8>(&OFF_SK_SHUTDOWN).is_none() {
        return 0;
    }
    let has_file = if file == 0 { 0 } else { socket::HAS_FILE };
    let dead = if bits & SOCK_DEAD == 0 { 0 } else { socket::DEAD };
    socket::FACTS | has_file | dead
}

/// The state mask: [`xtcp_common::setting::STATE_MASK`], and [`xtcp_common::setting::OWN_TGID`].
#[inline(always)]
pub(crate) fn state_passes(change: Transition) -> bool {
    let passes = setting::state_passes(STATE_MASK.get(), change.old, change.new) || is_own_birth(change);
    if !passes {
        count(counter::FILTERED_STATE);
    }
    passes
}

/// The agent's own `connect()` or `listen()`: its sockets must be known even if it wants to see no such state.
#[inline(always)]
fn is_own_birth(change: Transition) -> bool {
    let own = OWN_TGID.get();
    let birth = change.new == SYN_SENT || change.new == LISTEN;
    own != 0 && birth && (bpf_get_current_pid_tgid() >> 32) as u32 == own
}

/// The hook also fires for DCCP and SCTP.
#[inline(always)]
pub(crate) fn protocol_passes(protocol: u16) -> bool {
    let passes = protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP;
    if !passes {
        count(counter::FILTERED_PROTOCOL);
    }
    passes
}

#[inline(always)]
fn netns_passes(inode: u32) -> bool {
    // SAFETY: the value is only compared with null.
    let passes = NETNS_FILTER.get() == 0 || unsafe { NETNS_DROP.get(&inode) }.is_none();
    if !passes {
        count(counter::FILTERED_NETNS);
    }
    passes
}

/// The port filter: [`xtcp_common::setting::PORT_MODE`].
#[inline(always)]
pub(crate) fn ports_pass(change: Transition, source: u16, destination: u16) -> bool {
    let mode = PORT_MODE.get();
    if mode == 0 {
        return true;
    }
    let listener = change.new == LISTEN || (change.old == LISTEN && change.new == CLOSE);
    let unknown = source == 0 || (destination == 0 && !listener);
    let mut passes = true;
    if mode & port::INCLUDE != 0 {
        passes = unknown || in_set(0, source) || in_set(0, destination);
    }
    if mode & port::EXCLUDE != 0 && passes {
        passes = !in_set(PORT_WORDS, source) && !in_set(PORT_WORDS, destination);
    }
    if !passes {
        count(counter::FILTERED_PORT);
    }
    passes
}

/// Whether a port is in the set that starts at word `first`; 0, which is no port, never is.
#[inline(always)]
fn in_set(first: u32, port: u16) -> bool {
    let word = PORTS.get(first + u32::from(port) / u64::BITS).copied().unwrap_or(0);
    port != 0 && word >> (u32::from(port) % u64::BITS) & 1 == 1
}
