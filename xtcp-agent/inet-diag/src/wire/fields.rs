//! Which field gets which number. One line a field, in the order of the numbers.

#![allow(clippy::inline_always, reason = "where the next field goes has to stay in a register")]

use super::writer::{Bits, Numbers, Writer};
use super::{Context, Row, layers};
use crate::attr::Places;
use crate::attr::info::{self, AccEcn, Whole};
use crate::bytes::{Native, array_at, port_at, until_nul};
use crate::message::ROW_LEN;
use crate::request::Protocol;
use crate::socket_id::Family;

/// `INET_DIAG_CONG` of most sockets.
const CUBIC: &[u8] = b"cubic\0";
const BBR: &[u8] = b"bbr\0";

/// The whole record.
#[inline(always)]
pub(super) fn write(
    writer: &mut Writer<'_, impl Bits>,
    row: &Row<'_>,
    places: &Places<'_>,
    context: &Context<'_>,
) {
    let Row { header: row, attributes: _, reading, destination_asn } = *row;
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
        ulp_info: _,
        sk_bpf_storages: _,
        cgroup_id,
        sockopt,
    } = places;
    // Those that are not named are `layers`'.
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
    let asked = if reading.protocol == Protocol::TCP { 0 } else { reading.protocol.0.into() };

    writer.run(before);
    if let Some(numbers) = &mut writer.numbers() {
        numbers.uint64::<60>(counter);
    }
    writer.run(between);
    if let Some(numbers) = &mut writer.numbers() {
        header(numbers, row, destination_asn);
        mem_info(numbers, *meminfo, *sk_meminfo);
        if let Some(whole) = &whole {
            tcp_info(numbers, whole);
        }
    }
    let cong = cong.unwrap_or_default();
    other_congestion_control(writer, cong);
    if let Some(numbers) = &mut writer.numbers() {
        usual_congestion_control(numbers, cong);
        numbers.uint32::<1401>(tos.map_or(0, |payload| u8_at(payload, 0)));
        numbers.uint32::<1402>(tclass.map_or(0, |payload| u8_at(payload, 0)));
        sk_mem_info(numbers, sk_meminfo.unwrap_or_default());
        numbers.uint32::<1600>(shutdown.map_or(0, |payload| u8_at(payload, 0)));
        congestion_details(numbers, *vegas_info, *dctcp_info, *bbr_info);
        numbers.uint32::<2001>(class_id.map_or(0, |payload| u32_at(payload, 0)));
        numbers.uint32::<2002>(sockopt.map_or(0, |payload| u8_at(payload, 0) | u8_at(payload, 1) << 8));
        numbers.uint64::<2103>(cgroup_id.map_or(0, |payload| u64::at(payload, 0).unwrap_or_default()));
    }
    writer.run(after);
    if let Some(numbers) = &mut writer.numbers() {
        numbers.uint32::<3100>(mark.map_or(0, |payload| u32_at(payload, 0)));
        numbers.optional::<3101>(sk_v6only.map(|payload| u8_at(payload, 0).min(1)));
        numbers.uint32::<3102>(protocol.map_or(asked, |payload| u8_at(payload, 0)));
    }
    let is_layered = layers::are_there(places);
    if is_layered {
        layers::raw(writer, places, reading);
    }
    if let (Some(whole), Some(payload), Some(numbers)) = (&whole, info, &mut writer.numbers()) {
        let is_there = payload.len() >= info::LEN;
        accurate_ecn(numbers, whole, is_there.then(|| AccEcn::unpack(whole.accecn_word(), accecn)));
    }
    if is_layered {
        layers::write(writer, places);
    }
}

/// `struct inet_diag_msg`.
#[inline(always)]
fn header(numbers: &mut Numbers<'_, impl Bits>, row: &[u8; ROW_LEN], destination_asn: u32) {
    let family = u8_at(row, 0);
    numbers.uint32::<1001>(family);
    numbers.uint32::<1002>(u8_at(row, 1));
    numbers.uint32::<1003>(u8_at(row, 2));
    numbers.uint32::<1004>(u8_at(row, 3));
    numbers.uint32::<1005>(port_at(row, 4).unwrap_or_default().into());
    numbers.uint32::<1006>(port_at(row, 6).unwrap_or_default().into());
    let address = |at| {
        let address: [u8; 16] = array_at(row, at).unwrap_or_default();
        if family != u32::from(Family::Inet.raw()) {
            return address;
        }
        let [a, b, c, d, ..] = address;
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    };
    numbers.sixteen::<1007>(address(8));
    numbers.sixteen::<1008>(address(24));
    numbers.uint32::<1009>(u32_at(row, 40));
    numbers.uint64::<1010>(u64::from(u32_at(row, 48)) << 32 | u64::from(u32_at(row, 44)));
    numbers.uint32::<1011>(destination_asn);
    numbers.uint32::<1013>(u32_at(row, 52));
    numbers.uint32::<1014>(u32_at(row, 56));
    numbers.uint32::<1015>(u32_at(row, 60));
    numbers.uint32::<1016>(u32_at(row, 64));
    numbers.uint32::<1017>(u32_at(row, 68));
}

#[inline(always)]
fn mem_info(numbers: &mut Numbers<'_, impl Bits>, meminfo: Option<&[u8]>, sk_meminfo: Option<&[u8]>) {
    let [rmem, wmem, fmem, tmem] = match (meminfo, sk_meminfo) {
        (Some(payload), _) => [0, 4, 8, 12].map(|at| u32_at(payload, at)),
        // The same four numbers (inet_diag_msg_attrs_fill): asking for both would cost 54 ns a socket more.
        (None, Some(payload)) => [0, 20, 16, 8].map(|at| u32_at(payload, at)),
        (None, None) => return,
    };
    numbers.uint32::<1101>(rmem);
    numbers.uint32::<1102>(wmem);
    numbers.uint32::<1103>(fmem);
    numbers.uint32::<1104>(tmem);
}

/// The nine numbers of `INET_DIAG_SKMEMINFO`.
#[inline(always)]
fn sk_mem_info(numbers: &mut Numbers<'_, impl Bits>, payload: &[u8]) {
    // Where the length is known, the compiler drops the check that each number would need.
    match payload.first_chunk::<36>() {
        Some(whole) => sk_mem_numbers(numbers, whole),
        None => sk_mem_numbers(numbers, payload),
    }
}

#[inline(always)]
fn sk_mem_numbers(numbers: &mut Numbers<'_, impl Bits>, payload: &[u8]) {
    numbers.uint32::<1501>(u32_at(payload, 0));
    numbers.uint32::<1502>(u32_at(payload, 4));
    numbers.uint32::<1503>(u32_at(payload, 8));
    numbers.uint32::<1504>(u32_at(payload, 12));
    numbers.uint32::<1505>(u32_at(payload, 16));
    numbers.uint32::<1506>(u32_at(payload, 20));
    numbers.uint32::<1507>(u32_at(payload, 24));
    numbers.uint32::<1508>(u32_at(payload, 28));
    numbers.uint32::<1509>(u32_at(payload, 32));
}

/// What most sockets use: all that is said of it is two words.
#[inline(always)]
fn usual_congestion_control(numbers: &mut Numbers<'_, impl Bits>, cong: &[u8]) {
    if cong == CUBIC {
        numbers.text::<1300, 5>(*b"cubic");
        numbers.uint32::<1301>(1);
    } else if cong == BBR {
        numbers.text::<1300, 3>(*b"bbr");
        numbers.uint32::<1301>(5);
    }
}

/// Any other name, and its number.
#[inline(always)]
fn other_congestion_control(writer: &mut Writer<'_, impl Bits>, cong: &[u8]) {
    if cong != CUBIC && cong != BBR {
        let name = until_nul(cong);
        writer.bytes::<1300>(name);
        writer.uint32::<1301>(congestion_enum(name));
    }
}

/// `CongestionAlgorithm`: 0 for those without a number.
fn congestion_enum(name: &[u8]) -> u32 {
    match name {
        b"cubic" => 1,
        b"dctcp" => 2,
        b"vegas" => 3,
        b"prague" => 4,
        b"bbr" => 5,
        b"bbr2" => 6,
        b"bbr3" => 7,
        _ => 0,
    }
}

/// What some congestion controls tell of themselves.
#[inline(always)]
fn congestion_details(
    numbers: &mut Numbers<'_, impl Bits>,
    vegas_info: Option<&[u8]>,
    dctcp_info: Option<&[u8]>,
    bbr_info: Option<&[u8]>,
) {
    if let Some(payload) = vegas_info {
        numbers.uint32::<1701>(u32_at(payload, 0));
        numbers.uint32::<1702>(u32_at(payload, 4));
        numbers.uint32::<1703>(u32_at(payload, 8));
        numbers.uint32::<1704>(u32_at(payload, 12));
    }
    if let Some(payload) = dctcp_info {
        numbers.uint32::<1801>(u16_at(payload, 0));
        numbers.uint32::<1802>(u16_at(payload, 2));
        numbers.uint32::<1803>(u32_at(payload, 4));
        numbers.uint32::<1804>(u32_at(payload, 8));
        numbers.uint32::<1805>(u32_at(payload, 12));
    }
    if let Some(payload) = bbr_info.and_then(|payload| payload.first_chunk::<20>()) {
        numbers.uint32::<1901>(u32_at(payload, 0));
        numbers.uint32::<1902>(u32_at(payload, 4));
        numbers.uint32::<1903>(u32_at(payload, 8));
        numbers.uint32::<1904>(u32_at(payload, 12));
        numbers.uint32::<1905>(u32_at(payload, 16));
    }
}

/// `struct tcp_info` up to its last fields, which are [`accurate_ecn`]'s.
#[inline(always)]
fn tcp_info(numbers: &mut Numbers<'_, impl Bits>, info: &Whole<'_>) {
    numbers.uint32::<1201>(info.state().into());
    numbers.uint32::<1202>(info.ca_state().into());
    numbers.uint32::<1203>(info.retransmits().into());
    numbers.uint32::<1204>(info.probes().into());
    numbers.uint32::<1205>(info.backoff().into());
    numbers.uint32::<1206>(info.options().into());
    numbers.uint32::<1207>(info::snd_wscale(info.wscales()).into());
    numbers.uint32::<1208>(info::rcv_wscale(info.wscales()).into());
    numbers.uint32::<1209>(info::delivery_rate_app_limited(info.delivery_flags()).into());
    numbers.uint32::<1210>(info::fastopen_client_fail(info.delivery_flags()).into());
    numbers.uint32::<1215>(info.rto_us());
    numbers.uint32::<1216>(info.ato_us());
    numbers.uint32::<1217>(info.snd_mss_bytes());
    numbers.uint32::<1218>(info.rcv_mss_bytes());
    numbers.uint32::<1219>(info.unacked());
    numbers.uint32::<1220>(info.sacked());
    numbers.uint32::<1221>(info.lost());
    numbers.uint32::<1222>(info.retrans());
    numbers.uint32::<1223>(info.fackets());
    numbers.uint32::<1224>(info.last_data_sent_ms());
    numbers.uint32::<1225>(info.last_ack_sent_ms());
    numbers.uint32::<1226>(info.last_data_recv_ms());
    numbers.uint32::<1227>(info.last_ack_recv_ms());
    numbers.uint32::<1228>(info.pmtu_bytes());
    numbers.uint32::<1229>(info.rcv_ssthresh_bytes());
    numbers.uint32::<1230>(info.rtt_us());
    numbers.uint32::<1231>(info.rttvar_us());
    numbers.uint32::<1232>(info.snd_ssthresh());
    numbers.uint32::<1233>(info.snd_cwnd());
    numbers.uint32::<1234>(info.advmss_bytes());
    numbers.uint32::<1235>(info.reordering());
    numbers.uint32::<1236>(info.rcv_rtt_us());
    numbers.uint32::<1237>(info.rcv_space_bytes());
    numbers.uint32::<1238>(info.total_retrans());
    numbers.uint64::<1239>(info.pacing_rate_bytes_per_s());
    numbers.uint64::<1240>(info.max_pacing_rate_bytes_per_s());
    numbers.uint64::<1241>(info.bytes_acked());
    numbers.uint64::<1242>(info.bytes_received());
    numbers.uint32::<1243>(info.segs_out());
    numbers.uint32::<1244>(info.segs_in());
    numbers.uint32::<1245>(info.notsent_bytes());
    numbers.uint32::<1246>(info.min_rtt_us());
    numbers.uint32::<1247>(info.data_segs_in());
    numbers.uint32::<1248>(info.data_segs_out());
    numbers.uint64::<1249>(info.delivery_rate_bytes_per_s());
    numbers.uint64::<1250>(info.busy_time_us());
    numbers.uint64::<1251>(info.rwnd_limited_us());
    numbers.uint64::<1252>(info.sndbuf_limited_us());
    numbers.uint32::<1253>(info.delivered());
    numbers.uint32::<1254>(info.delivered_ce());
    numbers.uint64::<1255>(info.bytes_sent());
    numbers.uint64::<1256>(info.bytes_retrans());
    numbers.uint32::<1257>(info.dsack_dups());
    numbers.uint32::<1258>(info.reord_seen());
    numbers.uint32::<1259>(info.rcv_ooopack());
    numbers.uint32::<1260>(info.snd_wnd_bytes());
    numbers.uint32::<1261>(info.rcv_wnd_bytes());
    numbers.uint32::<1262>(info.rehash());
    numbers.uint32::<1263>(info.total_rto().into());
    numbers.uint32::<1264>(info.total_rto_recoveries().into());
    numbers.uint32::<1265>(info.total_rto_time_ms());
}

/// The end of `struct tcp_info`.
#[inline(always)]
fn accurate_ecn(numbers: &mut Numbers<'_, impl Bits>, info: &Whole<'_>, state: Option<AccEcn>) {
    numbers.uint32::<3110>(info.received_ce());
    numbers.uint32::<3111>(info.delivered_e1_bytes());
    numbers.uint32::<3112>(info.delivered_e0_bytes());
    numbers.uint32::<3113>(info.delivered_ce_bytes());
    numbers.uint32::<3114>(info.received_e1_bytes());
    numbers.uint32::<3115>(info.received_e0_bytes());
    numbers.uint32::<3116>(info.received_ce_bytes());
    if let Some(AccEcn { ecn_mode, opt_seen, fail_mode, options2 }) = state {
        numbers.optional::<3117>(ecn_mode.map(u32::from));
        numbers.uint32::<3118>(opt_seen.into());
        numbers.uint32::<3119>(fail_mode.into());
        numbers.uint32::<3120>(options2.unwrap_or(0));
    }
}

#[inline(always)]
fn u8_at(bytes: &[u8], offset: usize) -> u32 {
    u8::at(bytes, offset).unwrap_or_default().into()
}

#[inline(always)]
fn u16_at(bytes: &[u8], offset: usize) -> u32 {
    u16::at(bytes, offset).unwrap_or_default().into()
}

#[inline(always)]
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::at(bytes, offset).unwrap_or_default()
}
