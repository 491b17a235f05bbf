//! The other way to a record: decode all, then fill the struct that prost encodes.
//!
//! Destructures the decoder's structs in full: an attribute or a field that the decoder learns and this forgets does
//! not compile.

mod layers;

use xtcp_inet_diag::attr::info::{AccEcn, AccEcnLayout, TcpInfo};
use xtcp_inet_diag::attr::{
    Attributes, Selection, bbr_info::BbrInfo, dctcp_info::DctcpInfo, meminfo::MemInfo, sk_meminfo::SkMemInfo,
    vegas_info::VegasInfo,
};
use xtcp_inet_diag::message::{Decoded, Header, Reading};
use xtcp_inet_diag::request::Protocol;
use xtcp_inet_diag::socket_id::SocketId;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_proto::flat_record::v1::xtcp_flat_record::CongestionAlgorithm;

/// The record of a row, in which `record` says all that the kernel does not.
pub(crate) fn record(
    mut record: XtcpFlatRecord,
    decoded: &Decoded<'_>,
    layout: AccEcnLayout,
) -> XtcpFlatRecord {
    header(&mut record, &decoded.header);
    let Reading { protocol, selection } = decoded.reading;
    if protocol != Protocol::TCP {
        record.inet_diag_protocol = protocol.0.into();
    }
    fill_attributes(&mut record, &decoded.attributes, layout, selection);
    record
}

fn fill_attributes(
    record: &mut XtcpFlatRecord,
    attributes: &Attributes<'_>,
    layout: AccEcnLayout,
    selection: Selection,
) {
    let Attributes {
        meminfo,
        info,
        mptcp_info,
        other_info,
        vegas_info,
        cong,
        tos,
        tclass,
        sk_meminfo,
        shutdown,
        dctcp_info,
        protocol,
        sk_v6only,
        locals,
        peers,
        mark,
        bbr_info,
        class_id,
        md5sig,
        ulp_info,
        sk_bpf_storages,
        cgroup_id,
        sockopt,
    } = attributes;
    if let Some(info) = info {
        tcp_info(record, info);
        accecn(record, info, layout);
    }
    if let Some(cong) = cong {
        cong.0.clone_into(&mut record.congestion_algorithm_string);
        record.congestion_algorithm_enum = congestion_enum(cong.0).into();
    }
    congestion_details(record, vegas_info.as_ref(), dctcp_info.as_ref(), bbr_info.as_ref());
    memory(record, meminfo.as_ref(), sk_meminfo.as_ref());
    record.type_of_service = tos.map_or(0, |tos| tos.0.into());
    record.traffic_class = tclass.map_or(0, |tclass| tclass.0.into());
    record.shutdown_state = shutdown.map_or(0, |shutdown| shutdown.0.into());
    record.class_id = class_id.map_or(0, |class_id| class_id.0);
    record.sock_opt = sockopt.map_or(0, |sockopt| sockopt.raw.into());
    record.c_group = cgroup_id.map_or(0, |cgroup_id| cgroup_id.0);
    record.mark = mark.map_or(0, |mark| mark.0);
    record.skv6only = sk_v6only.map(|only| only.0);
    if let Some(protocol) = protocol {
        record.inet_diag_protocol = protocol.0.into();
    }
    if let Some(info) = mptcp_info {
        layers::mptcp_info(record, info);
    }
    if let Some(ulp) = ulp_info {
        layers::ulp(record, ulp);
    }
    if let Some(keys) = md5sig {
        layers::md5sig(record, *keys, selection);
    }
    record.inet_diag_info = other_info.map(|info| info.0.to_vec()).unwrap_or_default();
    record.sk_bpf_storages = sk_bpf_storages.map(|storages| storages.0.to_vec()).unwrap_or_default();
    record.sctp_locals = locals.map(|locals| layers::encoded(locals.addresses())).unwrap_or_default();
    record.sctp_peers = peers.map(|peers| layers::encoded(peers.addresses())).unwrap_or_default();
}

fn congestion_enum(name: &str) -> CongestionAlgorithm {
    match name {
        "cubic" => CongestionAlgorithm::Cubic,
        "dctcp" => CongestionAlgorithm::Dctcp,
        "vegas" => CongestionAlgorithm::Vegas,
        "prague" => CongestionAlgorithm::Prague,
        "bbr" => CongestionAlgorithm::Bbr1,
        "bbr2" => CongestionAlgorithm::Bbr2,
        "bbr3" => CongestionAlgorithm::Bbr3,
        _ => CongestionAlgorithm::Unspecified,
    }
}

fn header(record: &mut XtcpFlatRecord, header: &Header) {
    let Header { family, state, timer, retrans, id, expires_ms, rqueue, wqueue, uid, inode } = *header;
    let SocketId { source_port, destination_port, source, destination, interface, cookie } = id;
    record.inet_diag_msg_family = family.into();
    record.inet_diag_msg_state = state.into();
    record.inet_diag_msg_timer = timer.into();
    record.inet_diag_msg_retrans = retrans.into();
    record.inet_diag_msg_socket_source_port = source_port.into();
    record.inet_diag_msg_socket_destination_port = destination_port.into();
    record.inet_diag_msg_socket_source = source.to_vec();
    record.inet_diag_msg_socket_destination = destination.to_vec();
    record.inet_diag_msg_socket_interface = interface;
    record.inet_diag_msg_socket_cookie = cookie;
    record.inet_diag_msg_expires = expires_ms;
    record.inet_diag_msg_rqueue = rqueue;
    record.inet_diag_msg_wqueue = wqueue;
    record.inet_diag_msg_uid = uid;
    record.inet_diag_msg_inode = inode;
}

fn memory(record: &mut XtcpFlatRecord, meminfo: Option<&MemInfo>, sk_meminfo: Option<&SkMemInfo>) {
    if let Some(&MemInfo { rmem_bytes, wmem_bytes, fmem_bytes, tmem_bytes }) = meminfo {
        record.mem_info_rmem = rmem_bytes;
        record.mem_info_wmem = wmem_bytes;
        record.mem_info_fmem = fmem_bytes;
        record.mem_info_tmem = tmem_bytes;
    }
    if let Some(&SkMemInfo {
        rmem_alloc_bytes,
        rcvbuf_bytes,
        wmem_alloc_bytes,
        sndbuf_bytes,
        fwd_alloc_bytes,
        wmem_queued_bytes,
        optmem_bytes,
        backlog_bytes,
        drops,
    }) = sk_meminfo
    {
        record.sk_mem_info_rmem_alloc = rmem_alloc_bytes.unwrap_or(0);
        record.sk_mem_info_rcv_buf = rcvbuf_bytes.unwrap_or(0);
        record.sk_mem_info_wmem_alloc = wmem_alloc_bytes.unwrap_or(0);
        record.sk_mem_info_snd_buf = sndbuf_bytes.unwrap_or(0);
        record.sk_mem_info_fwd_alloc = fwd_alloc_bytes.unwrap_or(0);
        record.sk_mem_info_wmem_queued = wmem_queued_bytes.unwrap_or(0);
        record.sk_mem_info_optmem = optmem_bytes.unwrap_or(0);
        record.sk_mem_info_backlog = backlog_bytes.unwrap_or(0);
        record.sk_mem_info_drops = drops.unwrap_or(0);
        if meminfo.is_none() {
            // The same four numbers (inet_diag_msg_attrs_fill): asking for both would cost 54 ns a socket more.
            record.mem_info_rmem = record.sk_mem_info_rmem_alloc;
            record.mem_info_wmem = record.sk_mem_info_wmem_queued;
            record.mem_info_fmem = record.sk_mem_info_fwd_alloc;
            record.mem_info_tmem = record.sk_mem_info_wmem_alloc;
        }
    }
}

fn congestion_details(
    record: &mut XtcpFlatRecord,
    vegas: Option<&VegasInfo>,
    dctcp: Option<&DctcpInfo>,
    bbr: Option<&BbrInfo<'_>>,
) {
    if let Some(&VegasInfo { enabled, rtt_cnt, rtt_us, min_rtt_us }) = vegas {
        record.vegas_info_enabled = enabled;
        record.vegas_info_rtt_cnt = rtt_cnt;
        record.vegas_info_rtt = rtt_us;
        record.vegas_info_min_rtt = min_rtt_us;
    }
    if let Some(&DctcpInfo { enabled, ce_state, alpha, ab_ecn_bytes, ab_tot_bytes }) = dctcp {
        record.dctcp_info_enabled = enabled.into();
        record.dctcp_info_ce_state = ce_state.into();
        record.dctcp_info_alpha = alpha;
        record.dctcp_info_ab_ecn = ab_ecn_bytes;
        record.dctcp_info_ab_tot = ab_tot_bytes;
    }
    if let Some(&BbrInfo { bw_lo, bw_hi, min_rtt_us, pacing_gain, cwnd_gain, tail }) = bbr {
        record.bbr_info_tail = tail.to_vec();
        record.bbr_info_bw_lo = bw_lo;
        record.bbr_info_bw_hi = bw_hi;
        record.bbr_info_min_rtt = min_rtt_us;
        record.bbr_info_pacing_gain = pacing_gain;
        record.bbr_info_cwnd_gain = cwnd_gain;
    }
}

fn accecn(record: &mut XtcpFlatRecord, info: &TcpInfo<'_>, layout: AccEcnLayout) {
    if let Some(AccEcn { ecn_mode, opt_seen, fail_mode, options2 }) = info.accecn(layout) {
        record.tcp_info_ecn_mode = ecn_mode.map(u32::from);
        record.tcp_info_accecn_opt_seen = opt_seen.into();
        record.tcp_info_accecn_fail_mode = fail_mode.into();
        record.tcp_info_options2 = options2.unwrap_or(0);
    }
}

#[expect(clippy::too_many_lines, reason = "one line a field of a long struct")]
fn tcp_info(record: &mut XtcpFlatRecord, info: &TcpInfo<'_>) {
    let TcpInfo {
        state,
        ca_state,
        retransmits,
        probes,
        backoff,
        options,
        wscales: _,
        delivery_flags: _,
        rto_us,
        ato_us,
        snd_mss_bytes,
        rcv_mss_bytes,
        unacked,
        sacked,
        lost,
        retrans,
        fackets,
        last_data_sent_ms,
        last_ack_sent_ms,
        last_data_recv_ms,
        last_ack_recv_ms,
        pmtu_bytes,
        rcv_ssthresh_bytes,
        rtt_us,
        rttvar_us,
        snd_ssthresh,
        snd_cwnd,
        advmss_bytes,
        reordering,
        rcv_rtt_us,
        rcv_space_bytes,
        total_retrans,
        pacing_rate_bytes_per_s,
        max_pacing_rate_bytes_per_s,
        bytes_acked,
        bytes_received,
        segs_out,
        segs_in,
        notsent_bytes,
        min_rtt_us,
        data_segs_in,
        data_segs_out,
        delivery_rate_bytes_per_s,
        busy_time_us,
        rwnd_limited_us,
        sndbuf_limited_us,
        delivered,
        delivered_ce,
        bytes_sent,
        bytes_retrans,
        dsack_dups,
        reord_seen,
        rcv_ooopack,
        snd_wnd_bytes,
        rcv_wnd_bytes,
        rehash,
        total_rto,
        total_rto_recoveries,
        total_rto_time_ms,
        received_ce,
        delivered_e1_bytes,
        delivered_e0_bytes,
        delivered_ce_bytes,
        received_e1_bytes,
        received_e0_bytes,
        received_ce_bytes,
        accecn_word: _,
        tail,
    } = *info;
    record.tcp_info_tail = tail.to_vec();
    record.tcp_info_state = state.map_or(0, u32::from);
    record.tcp_info_ca_state = ca_state.map_or(0, u32::from);
    record.tcp_info_retransmits = retransmits.map_or(0, u32::from);
    record.tcp_info_probes = probes.map_or(0, u32::from);
    record.tcp_info_backoff = backoff.map_or(0, u32::from);
    record.tcp_info_options = options.map_or(0, u32::from);
    record.tcp_info_rto = rto_us.unwrap_or(0);
    record.tcp_info_ato = ato_us.unwrap_or(0);
    record.tcp_info_snd_mss = snd_mss_bytes.unwrap_or(0);
    record.tcp_info_rcv_mss = rcv_mss_bytes.unwrap_or(0);
    record.tcp_info_unacked = unacked.unwrap_or(0);
    record.tcp_info_sacked = sacked.unwrap_or(0);
    record.tcp_info_lost = lost.unwrap_or(0);
    record.tcp_info_retrans = retrans.unwrap_or(0);
    record.tcp_info_fackets = fackets.unwrap_or(0);
    record.tcp_info_last_data_sent = last_data_sent_ms.unwrap_or(0);
    record.tcp_info_last_data_recv = last_data_recv_ms.unwrap_or(0);
    record.tcp_info_last_ack_recv = last_ack_recv_ms.unwrap_or(0);
    record.tcp_info_pmtu = pmtu_bytes.unwrap_or(0);
    record.tcp_info_rcv_ssthresh = rcv_ssthresh_bytes.unwrap_or(0);
    record.tcp_info_rtt = rtt_us.unwrap_or(0);
    record.tcp_info_rtt_var = rttvar_us.unwrap_or(0);
    record.tcp_info_snd_ssthresh = snd_ssthresh.unwrap_or(0);
    record.tcp_info_snd_cwnd = snd_cwnd.unwrap_or(0);
    record.tcp_info_adv_mss = advmss_bytes.unwrap_or(0);
    record.tcp_info_reordering = reordering.unwrap_or(0);
    record.tcp_info_rcv_rtt = rcv_rtt_us.unwrap_or(0);
    record.tcp_info_rcv_space = rcv_space_bytes.unwrap_or(0);
    record.tcp_info_total_retrans = total_retrans.unwrap_or(0);
    record.tcp_info_pacing_rate = pacing_rate_bytes_per_s.unwrap_or(0);
    record.tcp_info_max_pacing_rate = max_pacing_rate_bytes_per_s.unwrap_or(0);
    record.tcp_info_bytes_acked = bytes_acked.unwrap_or(0);
    record.tcp_info_bytes_received = bytes_received.unwrap_or(0);
    record.tcp_info_segs_out = segs_out.unwrap_or(0);
    record.tcp_info_segs_in = segs_in.unwrap_or(0);
    record.tcp_info_not_sent_bytes = notsent_bytes.unwrap_or(0);
    record.tcp_info_min_rtt = min_rtt_us.unwrap_or(0);
    record.tcp_info_data_segs_in = data_segs_in.unwrap_or(0);
    record.tcp_info_data_segs_out = data_segs_out.unwrap_or(0);
    record.tcp_info_delivery_rate = delivery_rate_bytes_per_s.unwrap_or(0);
    record.tcp_info_busy_time = busy_time_us.unwrap_or(0);
    record.tcp_info_rwnd_limited = rwnd_limited_us.unwrap_or(0);
    record.tcp_info_sndbuf_limited = sndbuf_limited_us.unwrap_or(0);
    record.tcp_info_delivered = delivered.unwrap_or(0);
    record.tcp_info_delivered_ce = delivered_ce.unwrap_or(0);
    record.tcp_info_bytes_sent = bytes_sent.unwrap_or(0);
    record.tcp_info_bytes_retrans = bytes_retrans.unwrap_or(0);
    record.tcp_info_dsack_dups = dsack_dups.unwrap_or(0);
    record.tcp_info_reord_seen = reord_seen.unwrap_or(0);
    record.tcp_info_rcv_ooopack = rcv_ooopack.unwrap_or(0);
    record.tcp_info_snd_wnd = snd_wnd_bytes.unwrap_or(0);
    record.tcp_info_rcv_wnd = rcv_wnd_bytes.unwrap_or(0);
    record.tcp_info_rehash = rehash.unwrap_or(0);
    record.tcp_info_total_rto = total_rto.map_or(0, u32::from);
    record.tcp_info_total_rto_recoveries = total_rto_recoveries.map_or(0, u32::from);
    record.tcp_info_total_rto_time = total_rto_time_ms.unwrap_or(0);
    record.tcp_info_received_ce = received_ce.unwrap_or(0);
    record.tcp_info_delivered_e1_bytes = delivered_e1_bytes.unwrap_or(0);
    record.tcp_info_delivered_e0_bytes = delivered_e0_bytes.unwrap_or(0);
    record.tcp_info_delivered_ce_bytes = delivered_ce_bytes.unwrap_or(0);
    record.tcp_info_received_e1_bytes = received_e1_bytes.unwrap_or(0);
    record.tcp_info_received_e0_bytes = received_e0_bytes.unwrap_or(0);
    record.tcp_info_received_ce_bytes = received_ce_bytes.unwrap_or(0);
    record.tcp_info_last_ack_sent = last_ack_sent_ms.unwrap_or(0);
    record.tcp_info_send_scale = info.snd_wscale().map_or(0, u32::from);
    record.tcp_info_rcv_scale = info.rcv_wscale().map_or(0, u32::from);
    record.tcp_info_delivery_rate_app_limited = info.delivery_rate_app_limited().map_or(0, u32::from);
    record.tcp_info_fast_open_client_failed = info.fastopen_client_fail().map_or(0, u32::from);
}
