//! Which kernel struct fields the eBPF programs read. The loader resolves each path in the running kernel's BTF
//! and writes its byte offset into the read-only global of that name; the verifier then checks every access
//! against the same BTF, so a wrong offset is a load error and never a wrong number. A field that is absent, that
//! is a bitfield, or that has another size than here, is [`ABSENT`].

/// The value of an offset whose field this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// One field of one kernel struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// Name of the `u32` global in the eBPF object.
    pub global: &'static str,
    /// Kernel struct without the word `struct`.
    pub of: &'static str,
    /// Dotted path of members; anonymous structs and unions are looked through, of an array its first element is
    /// taken when the path goes on. Several paths with "or" between them are the names of one field in different
    /// kernels.
    pub path: &'static str,
    /// Size of the field in bytes, as the programs read it.
    pub size: u32,
}

/// Calls `$then!` with every `(global, struct, path, size)`, so that the programs' globals and the loader's table are
/// one list.
#[macro_export]
macro_rules! for_each_offset {
    ($then:ident) => {
        $then! {
            (OFF_SK_NET, "sock", "__sk_common.skc_net", 8),
            (OFF_SK_FAMILY, "sock", "__sk_common.skc_family", 2),
            (OFF_SK_NUM, "sock", "__sk_common.skc_num", 2),
            (OFF_SK_DPORT, "sock", "__sk_common.skc_dport", 2),
            (OFF_SK_DADDR, "sock", "__sk_common.skc_daddr", 4),
            (OFF_SK_RCV_SADDR, "sock", "__sk_common.skc_rcv_saddr", 4),
            (OFF_SK_V6_DADDR, "sock", "__sk_common.skc_v6_daddr", 16),
            (OFF_SK_V6_RCV_SADDR, "sock", "__sk_common.skc_v6_rcv_saddr", 16),
            (OFF_SK_COOKIE, "sock", "__sk_common.skc_cookie", 8),
            (OFF_SK_BOUND_IF, "sock", "__sk_common.skc_bound_dev_if", 4),
            (OFF_SK_PROTOCOL, "sock", "sk_protocol", 2),
            (OFF_SK_SOCKET, "sock", "sk_socket", 8),
            (OFF_SK_FLAGS, "sock", "__sk_common.skc_flags", 8),
            (OFF_SK_ERR, "sock", "sk_err", 4),
            (OFF_SK_SHUTDOWN, "sock", "sk_shutdown", 1),
            (OFF_SK_UID, "sock", "sk_uid", 4),
            (OFF_SK_CGRP, "sock", "sk_cgrp_data.cgroup", 8),
            (OFF_CGROUP_KN, "cgroup", "kn", 8),
            (OFF_KN_ID, "kernfs_node", "id", 8),
            (OFF_TP_SPORT, "tcp_sock", "inet_conn.icsk_inet.inet_sport", 2),
            (OFF_NET_INUM, "net", "ns.inum", 4),
            (OFF_NET_COOKIE, "net", "net_cookie", 8),
            (OFF_NS_INUM, "ns_common", "inum", 4),
            // The references that keep a namespace: since 6.18, since 5.11, before.
            (OFF_NET_COUNT, "net", "ns.__ns_ref.refs.counter or ns.count.refs.counter or count.refs.counter", 4),
            (OFF_TASK_FLAGS, "task_struct", "flags", 4),
            (OFF_TASK_EXIT_CODE, "task_struct", "exit_code", 4),
            (OFF_TASK_TGID, "task_struct", "tgid", 4),
            (OFF_TASK_PID, "task_struct", "pid", 4),
            (OFF_TASK_COMM, "task_struct", "comm", 16),
            (OFF_TASK_NSPROXY, "task_struct", "nsproxy", 8),
            (OFF_NSPROXY_NET, "nsproxy", "net_ns", 8),
            (OFF_WORK_FUNC, "work_struct", "func", 8),
            (OFF_TP_BYTES_SENT, "tcp_sock", "bytes_sent", 8),
            (OFF_TP_BYTES_RETRANS, "tcp_sock", "bytes_retrans", 8),
            (OFF_TP_BYTES_ACKED, "tcp_sock", "bytes_acked", 8),
            (OFF_TP_BYTES_RECEIVED, "tcp_sock", "bytes_received", 8),
            (OFF_TP_SEGS_OUT, "tcp_sock", "segs_out", 4),
            (OFF_TP_SEGS_IN, "tcp_sock", "segs_in", 4),
            (OFF_TP_DATA_SEGS_OUT, "tcp_sock", "data_segs_out", 4),
            (OFF_TP_DATA_SEGS_IN, "tcp_sock", "data_segs_in", 4),
            (OFF_TP_TOTAL_RETRANS, "tcp_sock", "total_retrans", 4),
            (OFF_TP_LOST_OUT, "tcp_sock", "lost_out", 4),
            (OFF_TP_DELIVERED, "tcp_sock", "delivered", 4),
            (OFF_TP_DELIVERED_CE, "tcp_sock", "delivered_ce", 4),
            (OFF_TP_SRTT, "tcp_sock", "srtt_us", 4),
            (OFF_TP_MDEV, "tcp_sock", "mdev_us", 4),
            (OFF_TP_RTT_MIN, "tcp_sock", "rtt_min.s.v", 4),
            (OFF_TP_SND_CWND, "tcp_sock", "snd_cwnd", 4),
            (OFF_TP_SND_SSTHRESH, "tcp_sock", "snd_ssthresh", 4),
            (OFF_TP_MSS_CACHE, "tcp_sock", "mss_cache", 4),
            (OFF_TP_REORD_SEEN, "tcp_sock", "reord_seen", 4),
            (OFF_TP_DSACK_DUPS, "tcp_sock", "dsack_dups", 4),
            (OFF_TP_RCV_OOOPACK, "tcp_sock", "rcv_ooopack", 4),
        }
    };
}

macro_rules! table {
    ($(($global:ident, $of:literal, $path:literal, $size:literal),)*) => {
        /// Every offset that the programs use.
        pub const OFFSETS: &[Offset] = &[$(Offset { global: stringify!($global), of: $of, path: $path, size: $size }),*];
    };
}
for_each_offset!(table);
