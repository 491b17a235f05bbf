//! Which field gets which number. One line a field, in the order of the numbers.

use super::writer::Writer;
use super::{Context, layers};
use crate::attr::info::{self, AccEcn, Whole};
use crate::attr::ulp_info::UlpInfo;
use crate::attr::{Decode, Places};
use crate::bytes::{Native, array_at, port_at, text};
use crate::message::{ROW_LEN, Reading};
use crate::request::Protocol;
use crate::socket_id::Family;

/// The whole record.
pub(super) fn write(
    writer: &mut Writer<'_>,
    row: &[u8; ROW_LEN],
    reading: Reading,
    places: &Places<'_>,
    context: &Context<'_>,
) {
    let Places {
        meminfo,
        info,
        mptcp_info: _,
        other_info: _,
        vegas_info,
        cong,
        tos,
        tclass,
        sk_meminfo,
        shutdown,
        dctcp_info,
        protocol,
        sk_v6only,
        locals: _,
        peers: _,
        mark,
        bbr_info,
        class_id,
        md5sig: _,
        ulp_info,
        sk_bpf_storages: _,
        cgroup_id,
        sockopt,
    } = *places;
    // Those that are not named here are `layers`'.
    let Context { before, counter, between, after, accecn } = *context;
    let padded;
    let whole = if let Some(whole) = info.and_then(|payload| payload.first_chunk()) {
        Some(Whole(whole))
    } else if let Some(payload) = info {
        padded = info::padded(payload);
        Some(Whole(&padded))
    } else {
        None
    };
    let sk_mem = sk_meminfo.map(sk_mem);

    writer.run(before);
    writer.uint64::<60>(counter);
    writer.run(between);
    header(writer, row);
    mem_info(writer, meminfo, sk_mem);
    if let Some(whole) = &whole {
        tcp_info(writer, whole);
    }
    if let Some(name) = cong.and_then(text) {
        writer.bytes::<1300>(name.as_bytes());
        writer.uint32::<1301>(congestion_enum(name));
    }
    writer.uint32::<1401>(tos.map_or(0, |payload| u8_at(payload, 0)));
    writer.uint32::<1402>(tclass.map_or(0, |payload| u8_at(payload, 0)));
    if let Some(numbers) = sk_mem {
        sk_mem_info(writer, numbers);
    }
    writer.uint32::<1600>(shutdown.map_or(0, |payload| u8_at(payload, 0)));
    congestion_details(writer, vegas_info, dctcp_info, bbr_info);
    writer.uint32::<2001>(class_id.map_or(0, |payload| u32_at(payload, 0)));
    writer.uint32::<2002>(sockopt.map_or(0, |payload| u8_at(payload, 0) | u8_at(payload, 1) << 8));
    writer.uint64::<2103>(cgroup_id.map_or(0, |payload| u64::at(payload, 0).unwrap_or_default()));
    writer.run(after);
    writer.uint32::<3100>(mark.map_or(0, |payload| u32_at(payload, 0)));
    writer.optional::<3101>(sk_v6only.map(|payload| u8_at(payload, 0).min(1)));
    writer.uint32::<3102>(match protocol {
        Some(payload) => u8_at(payload, 0),
        None if reading.protocol == Protocol::TCP => 0,
        None => reading.protocol.0.into(),
    });
    let ulp = ulp_info.and_then(UlpInfo::decode);
    if let Some(name) = ulp.and_then(|ulp| ulp.name) {
        writer.bytes::<3103>(name.as_bytes());
    }
    layers::raw(writer, places, reading);
    if let (Some(whole), Some(payload)) = (&whole, info) {
        let is_there = payload.len() >= info::LEN;
        accurate_ecn(writer, whole, is_there.then(|| AccEcn::unpack(whole.accecn_word(), accecn)));
    }
    layers::write(writer, places, ulp.as_ref());
}

/// `struct inet_diag_msg`.
fn header(writer: &mut Writer<'_>, row: &[u8; ROW_LEN]) {
    let family = u8_at(row, 0);
    writer.uint32::<1001>(family);
    writer.uint32::<1002>(u8_at(row, 1));
    writer.uint32::<1003>(u8_at(row, 2));
    writer.uint32::<1004>(u8_at(row, 3));
    writer.uint32::<1005>(port_at(row, 4).unwrap_or_default().into());
    writer.uint32::<1006>(port_at(row, 6).unwrap_or_default().into());
    let address = |at| {
        let address: [u8; 16] = array_at(row, at).unwrap_or_default();
        if family != u32::from(Family::Inet.raw()) {
            return address;
        }
        let [a, b, c, d, ..] = address;
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    };
    writer.sixteen::<1007>(&address(8));
    writer.sixteen::<1008>(&address(24));
    writer.uint32::<1009>(u32_at(row, 40));
    writer.uint64::<1010>(u64::from(u32_at(row, 48)) << 32 | u64::from(u32_at(row, 44)));
    writer.uint32::<1013>(u32_at(row, 52));
    writer.uint32::<1014>(u32_at(row, 56));
    writer.uint32::<1015>(u32_at(row, 60));
    writer.uint32::<1016>(u32_at(row, 64));
    writer.uint32::<1017>(u32_at(row, 68));
}

fn mem_info(writer: &mut Writer<'_>, meminfo: Option<&[u8]>, sk_mem: Option<[u32; 9]>) {
    let [rmem, wmem, fmem, tmem] = match (meminfo, sk_mem) {
        (Some(payload), _) => [0, 4, 8, 12].map(|at| u32_at(payload, at)),
        // The same four numbers (inet_diag_msg_attrs_fill): asking for both would cost 54 ns a socket more.
        (None, Some([rmem_alloc, _, wmem_alloc, _, fwd_alloc, wmem_queued, ..])) => {
            [rmem_alloc, wmem_queued, fwd_alloc, wmem_alloc]
        }
        (None, None) => return,
    };
    writer.uint32::<1101>(rmem);
    writer.uint32::<1102>(wmem);
    writer.uint32::<1103>(fmem);
    writer.uint32::<1104>(tmem);
}

/// The nine numbers of `INET_DIAG_SKMEMINFO`; 0 where the kernel is too old.
fn sk_mem(payload: &[u8]) -> [u32; 9] {
    [0, 4, 8, 12, 16, 20, 24, 28, 32].map(|at| u32_at(payload, at))
}

fn sk_mem_info(writer: &mut Writer<'_>, numbers: [u32; 9]) {
    let [rmem_alloc, rcv_buf, wmem_alloc, snd_buf, fwd_alloc, wmem_queued, optmem, backlog, drops] = numbers;
    writer.uint32::<1501>(rmem_alloc);
    writer.uint32::<1502>(rcv_buf);
    writer.uint32::<1503>(wmem_alloc);
    writer.uint32::<1504>(snd_buf);
    writer.uint32::<1505>(fwd_alloc);
    writer.uint32::<1506>(wmem_queued);
    writer.uint32::<1507>(optmem);
    writer.uint32::<1508>(backlog);
    writer.uint32::<1509>(drops);
}

/// `CongestionAlgorithm`: 0 for those without a number.
fn congestion_enum(name: &str) -> u32 {
    match name {
        "cubic" => 1,
        "dctcp" => 2,
        "vegas" => 3,
        "prague" => 4,
        "bbr" => 5,
        "bbr2" => 6,
        "bbr3" => 7,
        _ => 0,
    }
}

/// What some congestion controls tell of themselves.
fn congestion_details(
    writer: &mut Writer<'_>,
    vegas_info: Option<&[u8]>,
    dctcp_info: Option<&[u8]>,
    bbr_info: Option<&[u8]>,
) {
    if let Some(payload) = vegas_info {
        writer.uint32::<1701>(u32_at(payload, 0));
        writer.uint32::<1702>(u32_at(payload, 4));
        writer.uint32::<1703>(u32_at(payload, 8));
        writer.uint32::<1704>(u32_at(payload, 12));
    }
    if let Some(payload) = dctcp_info {
        writer.uint32::<1801>(u16_at(payload, 0));
        writer.uint32::<1802>(u16_at(payload, 2));
        writer.uint32::<1803>(u32_at(payload, 4));
        writer.uint32::<1804>(u32_at(payload, 8));
        writer.uint32::<1805>(u32_at(payload, 12));
    }
    if let Some(payload) = bbr_info {
        writer.uint32::<1901>(u32_at(payload, 0));
        writer.uint32::<1902>(u32_at(payload, 4));
        writer.uint32::<1903>(u32_at(payload, 8));
        writer.uint32::<1904>(u32_at(payload, 12));
        writer.uint32::<1905>(u32_at(payload, 16));
    }
}

/// `struct tcp_info` up to its last fields, which are [`accurate_ecn`]'s.
fn tcp_info(writer: &mut Writer<'_>, info: &Whole<'_>) {
    writer.uint32::<1201>(info.state().into());
    writer.uint32::<1202>(info.ca_state().into());
    writer.uint32::<1203>(info.retransmits().into());
    writer.uint32::<1204>(info.probes().into());
    writer.uint32::<1205>(info.backoff().into());
    writer.uint32::<1206>(info.options().into());
    writer.uint32::<1207>(info::snd_wscale(info.wscales()).into());
    writer.uint32::<1208>(info::rcv_wscale(info.wscales()).into());
    writer.uint32::<1209>(info::delivery_rate_app_limited(info.delivery_flags()).into());
    writer.uint32::<1210>(info::fastopen_client_fail(info.delivery_flags()).into());
    writer.uint32::<1215>(info.rto_us());
    writer.uint32::<1216>(info.ato_us());
    writer.uint32::<1217>(info.snd_mss_bytes());
    writer.uint32::<1218>(info.rcv_mss_bytes());
    writer.uint32::<1219>(info.unacked());
    writer.uint32::<1220>(info.sacked());
    writer.uint32::<1221>(info.lost());
    writer.uint32::<1222>(info.retrans());
    writer.uint32::<1223>(info.fackets());
    writer.uint32::<1224>(info.last_data_sent_ms());
    writer.uint32::<1225>(info.last_ack_sent_ms());
    writer.uint32::<1226>(info.last_data_recv_ms());
    writer.uint32::<1227>(info.last_ack_recv_ms());
    writer.uint32::<1228>(info.pmtu_bytes());
    writer.uint32::<1229>(info.rcv_ssthresh_bytes());
    writer.uint32::<1230>(info.rtt_us());
    writer.uint32::<1231>(info.rttvar_us());
    writer.uint32::<1232>(info.snd_ssthresh());
    writer.uint32::<1233>(info.snd_cwnd());
    writer.uint32::<1234>(info.advmss_bytes());
    writer.uint32::<1235>(info.reordering());
    writer.uint32::<1236>(info.rcv_rtt_us());
    writer.uint32::<1237>(info.rcv_space_bytes());
    writer.uint32::<1238>(info.total_retrans());
    writer.uint64::<1239>(info.pacing_rate_bytes_per_s());
    writer.uint64::<1240>(info.max_pacing_rate_bytes_per_s());
    writer.uint64::<1241>(info.bytes_acked());
    writer.uint64::<1242>(info.bytes_received());
    writer.uint32::<1243>(info.segs_out());
    writer.uint32::<1244>(info.segs_in());
    writer.uint32::<1245>(info.notsent_bytes());
    writer.uint32::<1246>(info.min_rtt_us());
    writer.uint32::<1247>(info.data_segs_in());
    writer.uint32::<1248>(info.data_segs_out());
    writer.uint64::<1249>(info.delivery_rate_bytes_per_s());
    writer.uint64::<1250>(info.busy_time_us());
    writer.uint64::<1251>(info.rwnd_limited_us());
    writer.uint64::<1252>(info.sndbuf_limited_us());
    writer.uint32::<1253>(info.delivered());
    writer.uint32::<1254>(info.delivered_ce());
    writer.uint64::<1255>(info.bytes_sent());
    writer.uint64::<1256>(info.bytes_retrans());
    writer.uint32::<1257>(info.dsack_dups());
    writer.uint32::<1258>(info.reord_seen());
    writer.uint32::<1259>(info.rcv_ooopack());
    writer.uint32::<1260>(info.snd_wnd_bytes());
    writer.uint32::<1261>(info.rcv_wnd_bytes());
    writer.uint32::<1262>(info.rehash());
    writer.uint32::<1263>(info.total_rto().into());
    writer.uint32::<1264>(info.total_rto_recoveries().into());
    writer.uint32::<1265>(info.total_rto_time_ms());
}

/// The end of `struct tcp_info`.
fn accurate_ecn(writer: &mut Writer<'_>, info: &Whole<'_>, state: Option<AccEcn>) {
    writer.uint32::<3110>(info.received_ce());
    writer.uint32::<3111>(info.delivered_e1_bytes());
    writer.uint32::<3112>(info.delivered_e0_bytes());
    writer.uint32::<3113>(info.delivered_ce_bytes());
    writer.uint32::<3114>(info.received_e1_bytes());
    writer.uint32::<3115>(info.received_e0_bytes());
    writer.uint32::<3116>(info.received_ce_bytes());
    if let Some(AccEcn { ecn_mode, opt_seen, fail_mode, options2 }) = state {
        writer.optional::<3117>(ecn_mode.map(u32::from));
        writer.uint32::<3118>(opt_seen.into());
        writer.uint32::<3119>(fail_mode.into());
        writer.uint32::<3120>(options2.unwrap_or(0));
    }
}

fn u8_at(bytes: &[u8], offset: usize) -> u32 {
    u8::at(bytes, offset).unwrap_or_default().into()
}

fn u16_at(bytes: &[u8], offset: usize) -> u32 {
    u16::at(bytes, offset).unwrap_or_default().into()
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::at(bytes, offset).unwrap_or_default()
}
