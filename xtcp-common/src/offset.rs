//! Which kernel struct fields the eBPF programs read. The loader resolves each path in the running kernel's BTF
//! and writes its byte offset into the read-only global of that name; the verifier then checks every access
//! against the same BTF, so a wrong offset is a load error and never a wrong number.

/// The value of an offset whose field this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// One field of one kernel struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// Name of the `u32` global in the eBPF object.
    pub global: &'static str,
    /// Kernel struct without the word `struct`.
    pub of: &'static str,
    /// Dotted path of members; anonymous structs and unions are looked through.
    pub path: &'static str,
}

/// Calls `$then!` with every `(global, struct, path)`, so that the programs' globals and the loader's table are
/// one list.
#[macro_export]
macro_rules! for_each_offset {
    ($then:ident) => {
        $then! {
            (OFF_SK_NET, "sock", "__sk_common.skc_net"),
            (OFF_SK_FAMILY, "sock", "__sk_common.skc_family"),
            (OFF_SK_NUM, "sock", "__sk_common.skc_num"),
            (OFF_SK_DPORT, "sock", "__sk_common.skc_dport"),
            (OFF_SK_DADDR, "sock", "__sk_common.skc_daddr"),
            (OFF_SK_RCV_SADDR, "sock", "__sk_common.skc_rcv_saddr"),
            (OFF_SK_V6_DADDR, "sock", "__sk_common.skc_v6_daddr"),
            (OFF_SK_V6_RCV_SADDR, "sock", "__sk_common.skc_v6_rcv_saddr"),
            (OFF_SK_BOUND_IF, "sock", "__sk_common.skc_bound_dev_if"),
            (OFF_SK_PROTOCOL, "sock", "sk_protocol"),
            (OFF_SK_SOCKET, "sock", "sk_socket"),
            (OFF_SK_FLAGS, "sock", "__sk_common.skc_flags"),
            (OFF_SK_ERR, "sock", "sk_err"),
            (OFF_SK_SHUTDOWN, "sock", "sk_shutdown"),
            (OFF_SK_UID, "sock", "sk_uid"),
            (OFF_SK_CGRP, "sock", "sk_cgrp_data.cgroup"),
            (OFF_CGROUP_KN, "cgroup", "kn"),
            (OFF_KN_ID, "kernfs_node", "id"),
            (OFF_INET_SPORT, "inet_sock", "inet_sport"),
            (OFF_NET_INUM, "net", "ns.inum"),
            (OFF_NET_COOKIE, "net", "net_cookie"),
            (OFF_TASK_FLAGS, "task_struct", "flags"),
            (OFF_TASK_EXIT_CODE, "task_struct", "exit_code"),
            (OFF_TASK_TGID, "task_struct", "tgid"),
            (OFF_TASK_PID, "task_struct", "pid"),
            (OFF_TASK_COMM, "task_struct", "comm"),
            (OFF_TASK_NSPROXY, "task_struct", "nsproxy"),
            (OFF_NSPROXY_NET, "nsproxy", "net_ns"),
            (OFF_WORK_FUNC, "work_struct", "func"),
            (OFF_TP_BYTES_SENT, "tcp_sock", "bytes_sent"),
            (OFF_TP_BYTES_RETRANS, "tcp_sock", "bytes_retrans"),
            (OFF_TP_BYTES_ACKED, "tcp_sock", "bytes_acked"),
            (OFF_TP_BYTES_RECEIVED, "tcp_sock", "bytes_received"),
            (OFF_TP_SEGS_OUT, "tcp_sock", "segs_out"),
            (OFF_TP_SEGS_IN, "tcp_sock", "segs_in"),
            (OFF_TP_DATA_SEGS_OUT, "tcp_sock", "data_segs_out"),
            (OFF_TP_DATA_SEGS_IN, "tcp_sock", "data_segs_in"),
            (OFF_TP_TOTAL_RETRANS, "tcp_sock", "total_retrans"),
            (OFF_TP_LOST_OUT, "tcp_sock", "lost_out"),
            (OFF_TP_DELIVERED, "tcp_sock", "delivered"),
            (OFF_TP_DELIVERED_CE, "tcp_sock", "delivered_ce"),
            (OFF_TP_SRTT, "tcp_sock", "srtt_us"),
            (OFF_TP_MDEV, "tcp_sock", "mdev_us"),
            (OFF_TP_RTT_MIN, "tcp_sock", "rtt_min"),
            (OFF_TP_SND_CWND, "tcp_sock", "snd_cwnd"),
            (OFF_TP_SND_SSTHRESH, "tcp_sock", "snd_ssthresh"),
            (OFF_TP_MSS_CACHE, "tcp_sock", "mss_cache"),
            (OFF_TP_REORD_SEEN, "tcp_sock", "reord_seen"),
            (OFF_TP_DSACK_DUPS, "tcp_sock", "dsack_dups"),
            (OFF_TP_RCV_OOOPACK, "tcp_sock", "rcv_ooopack"),
        }
    };
}

macro_rules! table {
    ($(($global:ident, $of:literal, $path:literal),)*) => {
        /// Every offset that the programs use.
        pub const OFFSETS: &[Offset] = &[$(Offset { global: stringify!($global), of: $of, path: $path }),*];
    };
}
for_each_offset!(table);
