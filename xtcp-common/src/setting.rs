//! Read-only globals other than offsets, written by the loader before load, and the maps that it fills.

/// `u32`: states that may pass, bit `1 << state` as in the kernel's `TCPF_*`: [`state_passes`].
pub const STATE_MASK: &str = "STATE_MASK";
/// `u32`: a process whose `connect()` and `listen()` pass whatever the mask says, so that its sockets are known; 0 for
/// none.
pub const OWN_TGID: &str = "OWN_TGID";
/// ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING: `1 << state`.
pub const CONNECTION_STATES: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// `u32`: bits of [`port`]; 0 switches the port filter off.
pub const PORT_MODE: &str = "PORT_MODE";
/// `u32`: 1 when the map [`NETNS_DROP`] holds anything to leave out.
pub const NETNS_FILTER: &str = "NETNS_FILTER";
/// `u32`: 1 when tracing programs may call `bpf_get_socket_cookie` (5.12).
pub const HAVE_SOCKET_COOKIE: &str = "HAVE_SOCKET_COOKIE";
/// `u32`: 1 when the kernel has `bpf_get_current_task_btf` (5.11).
pub const HAVE_TASK_BTF: &str = "HAVE_TASK_BTF";
/// `u64`: kernel address of `cleanup_net`; 0 where unknown.
pub const CLEANUP_NET: &str = "CLEANUP_NET";

/// Hash map: inode (`u32`) of a network namespace whose sockets are to be left out → `u8`, ignored. A namespace
/// that is not in it passes, so that one whose name is not known yet loses nothing.
pub const NETNS_DROP: &str = "NETNS_DROP";
/// Most namespaces that [`NETNS_DROP`] holds.
pub const NETNS_DROP_ENTRIES: u32 = 65_536;
/// Array map of 2 × 1024 `u64`: one bit a port, first the ports to include, then the ports to exclude.
pub const PORTS: &str = "PORTS";
/// Words of one set in [`PORTS`].
pub const PORT_WORDS: u32 = 1024;
/// The ring buffer. Its size, a power of two of at least one page, is set by the loader.
pub const EVENTS: &str = "EVENTS";
/// Per-CPU array of one value, `[u64; COUNT]`: [`crate::counter`].
pub const COUNTERS: &str = "COUNTERS";

/// Bits of [`PORT_MODE`]. A port of 0 is one that is not known yet, and passes; but a listener's remote port will never
/// be known, so that its local port decides alone.
pub mod port {
    /// A socket passes only if one of its ports is in the included set.
    pub const INCLUDE: u32 = 1;
    /// A socket is left out if one of its ports is in the excluded set.
    pub const EXCLUDE: u32 = 2;
}

/// Whether a transition passes a mask of states: when its old or its new state is selected; the end of a connection also
/// when any of [`CONNECTION_STATES`] is. A child's LISTEN to `SYN_RECV` is the child's beginning: that it comes from
/// LISTEN selects nothing.
#[inline(always)]
pub const fn state_passes(mask: u32, old: u32, new: u32) -> bool {
    const SYN_RECV: u32 = 3;
    const CLOSE: u32 = 7;
    const LISTEN: u32 = 10;
    let mut wanted = 1 << (new & 31);
    if old != LISTEN || new != SYN_RECV {
        wanted |= 1 << (old & 31);
    }
    if old != LISTEN && new == CLOSE {
        wanted |= CONNECTION_STATES;
    }
    mask & wanted != 0
}

#[cfg(test)]
mod tests {
    use super::state_passes;

    const ESTABLISHED: u32 = 1;
    const SYN_SENT: u32 = 2;
    const SYN_RECV: u32 = 3;
    const CLOSE: u32 = 7;
    const LISTEN: u32 = 10;

    #[test]
    fn who_wants_connections_sees_them_end_and_no_listener() {
        let mask = 1 << ESTABLISHED;
        assert!(state_passes(mask, SYN_RECV, ESTABLISHED));
        assert!(state_passes(mask, SYN_SENT, CLOSE));
        assert!(!state_passes(mask, CLOSE, SYN_SENT));
        assert!(!state_passes(mask, LISTEN, CLOSE));
        assert!(!state_passes(mask, LISTEN, SYN_RECV));
    }

    #[test]
    fn who_wants_listeners_sees_no_connection() {
        let mask = 1 << LISTEN;
        assert!(state_passes(mask, CLOSE, LISTEN));
        assert!(state_passes(mask, LISTEN, CLOSE));
        assert!(!state_passes(mask, LISTEN, SYN_RECV));
        assert!(!state_passes(mask, ESTABLISHED, CLOSE));
    }
}
