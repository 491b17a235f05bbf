//! Every struct that crosses the ring buffer. Integers only, fixed size, host byte order unless a field says
//! otherwise. A reader looks at [`Header::kind`] and at the length; an unknown kind is counted, never a panic.

/// Values of [`Header::kind`].
pub mod kind {
    /// A network namespace was created: [`NetnsEvent`](super::NetnsEvent).
    pub const NETNS_CREATED: u32 = 1;
    /// The last reference to a network namespace went: [`NetnsEvent`](super::NetnsEvent).
    pub const NETNS_DESTROYED: u32 = 2;
    /// Some network namespace died, the hook cannot tell which: [`NetnsEvent`](super::NetnsEvent) with inode
    /// and cookie 0.
    pub const NETNS_SOME_DESTROYED: u32 = 3;
    /// A TCP socket changed state, but not to CLOSE: [`TcpState`](super::TcpState).
    pub const TCP_STATE: u32 = 4;
    /// A TCP socket went to CLOSE: [`TcpClose`](super::TcpClose).
    pub const TCP_CLOSE: u32 = 5;
    /// A task called `setns` and is in this network namespace now, whether it was before or not:
    /// [`NetnsEvent`](super::NetnsEvent).
    pub const NETNS_ENTERED: u32 = 6;
    /// One more than the largest kind; kinds index the per-kind counters.
    pub const COUNT: u32 = 7;
}

/// Which hook saw a namespace event ([`NetnsEvent::hook`]).
pub mod hook {
    /// `fexit` on `copy_net_ns`. A [`FORK`] for the same namespace follows when it was for a new process.
    pub const COPY_NET_NS: u32 = 1;
    /// BTF tracepoint `sched_process_fork`: the child's namespace differs from its parent's.
    pub const FORK: u32 = 2;
    /// Tracepoint `syscalls:sys_exit_unshare`.
    pub const UNSHARE: u32 = 3;
    /// `fentry` on `__put_net`, or `fexit` on `netns_put` where that dropped the last reference.
    pub const PUT_NET: u32 = 4;
    /// BTF tracepoint `workqueue_execute_start` with `work->func == cleanup_net`.
    pub const CLEANUP_NET: u32 = 5;
    /// Tracepoint `syscalls:sys_exit_setns`.
    pub const SETNS: u32 = 6;
}

/// Bits of [`Task::flags`].
pub mod task {
    /// `PF_EXITING`: the task is in `do_exit()`; [`Task::exit_code`](super::Task::exit_code) is valid.
    pub const EXITING: u32 = 1;
    /// `PF_KTHREAD`: a kernel thread, never an owner of a user's socket.
    pub const KTHREAD: u32 = 2;
    /// The kernel offered no way to read the task's flags (no BTF offsets).
    pub const FLAGS_UNKNOWN: u32 = 4;
}

/// Bits of [`TcpState::flags`].
pub mod socket {
    /// `sk->sk_socket` is set: a file belongs to the socket (accepted or created, and not orphaned).
    pub const HAS_FILE: u32 = 1;
    /// `SOCK_DEAD` in `sk->sk_flags`: orphaned, its file is closed.
    pub const DEAD: u32 = 2;
    /// The classic tracepoint saw it: no namespace, cookie, cgroup, error, shutdown or numbers; those are 0, and
    /// `uid` is `u32::MAX`.
    pub const CLASSIC: u32 = 4;
    /// [`HAS_FILE`], [`DEAD`], `sk_err` and `sk_shutdown` were read (their offsets are known on this kernel).
    pub const FACTS: u32 = 8;
    /// `sk_protocol` is `IPPROTO_MPTCP`: MPTCP's own socket, not a `tcp_sock`.
    pub const MPTCP: u32 = 16;
}

/// Starts every sample.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// One of [`kind`].
    pub kind: u32,
    /// Processor that wrote the sample.
    pub cpu: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds (`bpf_ktime_get_ns`).
    pub ktime_ns: u64,
}

/// The task that was current when the hook ran. Whether it has anything to do with the socket is for the reader
/// to decide: in a softirq it is somebody else.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Bits of [`task`].
    pub flags: u32,
    /// `task_struct::exit_code`: signal in the low 7 bits, exit status in bits 8 to 15. Only with
    /// [`task::EXITING`].
    pub exit_code: u32,
    /// Command name, NUL-padded.
    pub comm: [u8; 16],
}

/// A network namespace was created or destroyed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetnsEvent {
    /// Kind [`kind::NETNS_CREATED`], [`kind::NETNS_DESTROYED`], [`kind::NETNS_SOME_DESTROYED`] or
    /// [`kind::NETNS_ENTERED`].
    pub header: Header,
    /// `net->net_cookie`; 0 where the kernel has none (before 5.12).
    pub netns_cookie: u64,
    /// `net->ns.inum`.
    pub netns_inode: u32,
    /// One of [`hook`].
    pub hook: u32,
    /// Creation: with [`hook::FORK`] and [`hook::UNSHARE`] a task inside the namespace; with [`hook::COPY_NET_NS`]
    /// the task that asked for it, which `unshare` will put inside, while of `clone` it is the parent and stays
    /// outside. Destruction: whoever dropped the last reference, a worker, or in a softirq anybody. Entry: who entered.
    pub task: Task,
}

/// A TCP socket changed state.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpState {
    /// Kind [`kind::TCP_STATE`] or [`kind::TCP_CLOSE`].
    pub header: Header,
    /// Kernel address of the socket: its identity while its cookie is not yet its own (LISTEN to `SYN_RECV`,
    /// and kernels before 5.12).
    pub sk: u64,
    /// `bpf_get_socket_cookie`; before 5.12 `skc_cookie`, which is 0 until somebody asked for it (inet_diag does); 0 where
    /// unavailable.
    pub cookie: u64,
    /// `net->net_cookie`; 0 where unavailable.
    pub netns_cookie: u64,
    /// Id of the socket's cgroup (v2); 0 where unavailable.
    pub cgroup_id: u64,
    /// `net->ns.inum`; 0 where unavailable.
    pub netns_inode: u32,
    /// `sk_bound_dev_if`; 0 when not bound.
    pub bound_if: u32,
    /// `sk->sk_err` at the transition, a positive errno; 0 for none.
    pub sk_err: u32,
    /// Bits of [`socket`].
    pub flags: u32,
    /// `AF_INET` (2) or `AF_INET6` (10).
    pub family: u16,
    /// `IPPROTO_TCP` (6) or `IPPROTO_MPTCP` (262).
    pub protocol: u16,
    /// Local port, host order; 0 while the socket has none.
    pub source_port: u16,
    /// Remote port, host order; 0 while the socket has none.
    pub destination_port: u16,
    /// State before, as in the kernel's `net/tcp_states.h`.
    pub old_state: u8,
    /// State after.
    pub new_state: u8,
    /// `sk->sk_shutdown`: 1 receive, 2 send.
    pub shutdown: u8,
    /// Always 0.
    pub pad: u8,
    /// `sk_uid`; `u32::MAX` where unavailable.
    pub uid: u32,
    /// Local address, network order; IPv4 in the first four bytes, the rest 0.
    pub source: [u8; 16],
    /// Remote address, network order; IPv4 in the first four bytes, the rest 0.
    pub destination: [u8; 16],
    /// Whoever was current.
    pub task: Task,
}

/// Bits of [`TcpNumbers::present`]: which numbers this kernel has. A number whose bit is clear is absent, not 0.
pub mod number {
    /// [`bytes_sent`](super::TcpNumbers::bytes_sent) and [`bytes_retrans`](super::TcpNumbers::bytes_retrans)
    /// (4.19).
    pub const BYTES_SENT: u32 = 1;
    /// [`bytes_acked`](super::TcpNumbers::bytes_acked) and
    /// [`bytes_received`](super::TcpNumbers::bytes_received).
    pub const BYTES_ACKED: u32 = 1 << 1;
    /// The four segment counters.
    pub const SEGMENTS: u32 = 1 << 2;
    /// `total_retrans`, `lost_out`.
    pub const RETRANS: u32 = 1 << 3;
    /// `srtt_us`, `mdev_us`.
    pub const RTT: u32 = 1 << 4;
    /// `rtt_min`.
    pub const MIN_RTT: u32 = 1 << 5;
    /// `snd_cwnd`, `snd_ssthresh`, `mss_cache`.
    pub const WINDOW: u32 = 1 << 6;
    /// `delivered`, `delivered_ce` (4.18).
    pub const DELIVERED: u32 = 1 << 7;
    /// `reord_seen`, `dsack_dups` (4.19).
    pub const REORDER: u32 = 1 << 8;
    /// `rcv_ooopack` (5.4).
    pub const OOO: u32 = 1 << 9;
}

/// A connection's last numbers, out of `struct tcp_sock`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpNumbers {
    /// Bytes handed to the network, retransmissions included, SYN and FIN not.
    pub bytes_sent: u64,
    /// Bytes that were sent again.
    pub bytes_retrans: u64,
    /// Bytes acknowledged; SYN and FIN count as one each.
    pub bytes_acked: u64,
    /// Bytes received in order; a FIN counts as one.
    pub bytes_received: u64,
    /// Segments sent.
    pub segs_out: u32,
    /// Segments received.
    pub segs_in: u32,
    /// Segments sent with data.
    pub data_segs_out: u32,
    /// Segments received with data.
    pub data_segs_in: u32,
    /// Segments retransmitted over the connection's life.
    pub total_retrans: u32,
    /// Segments presumed lost at this moment.
    pub lost: u32,
    /// Segments delivered.
    pub delivered: u32,
    /// Segments delivered with an ECN mark.
    pub delivered_ce: u32,
    /// Smoothed round-trip time, microseconds (`srtt_us >> 3`).
    pub srtt_us: u32,
    /// Round-trip time variation, microseconds (`mdev_us >> 2`).
    pub rttvar_us: u32,
    /// Minimum round-trip time, microseconds; `u32::MAX` when never measured.
    pub min_rtt_us: u32,
    /// Congestion window, segments.
    pub snd_cwnd: u32,
    /// Slow-start threshold, segments.
    pub snd_ssthresh: u32,
    /// Cached effective segment size, bytes.
    pub mss_cache: u32,
    /// Reordering events seen.
    pub reord_seen: u32,
    /// Duplicate SACKs received.
    pub dsack_dups: u32,
    /// Segments received out of order.
    pub rcv_ooopack: u32,
    /// Bits of [`number`].
    pub present: u32,
}

/// A TCP socket went to CLOSE.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpClose {
    /// The transition.
    pub state: TcpState,
    /// The last numbers; all absent where `state.flags` has [`socket::CLASSIC`] or [`socket::MPTCP`].
    pub numbers: TcpNumbers,
}

const _: () = assert!(size_of::<Header>() == 16);
const _: () = assert!(size_of::<Task>() == 32);
const _: () = assert!(size_of::<NetnsEvent>() == 64);
const _: () = assert!(size_of::<TcpState>() == 144);
const _: () = assert!(size_of::<TcpNumbers>() == 104);
const _: () = assert!(size_of::<TcpClose>() == 248);
