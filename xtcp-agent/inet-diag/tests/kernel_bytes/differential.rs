//! Every field that `netlink-packet-sock-diag`, written by others, decodes from a real row is the same here,
//! and it asks with the same bytes.
//!
//! Sound because the two share no code, and the other one's structs are taken apart without `..`: no field of
//! it is left out. It knows `tcp_info` up to `snd_wnd`, and no attribute newer than `CLASS_ID`, nor bbr's.

use std::fmt::Debug;
use std::time::Duration;

use netlink_packet_core::{Emitable, Parseable};
use netlink_packet_sock_diag::inet::nlas::{LegacyMemInfo, MemInfo, Nla};
use netlink_packet_sock_diag::inet::{self, ExtensionFlags, InetRequest, InetResponse, StateFlags, Timer};
use xtcp_inet_diag::attr::Attributes;
use xtcp_inet_diag::attr::info::TcpInfo;
use xtcp_inet_diag::framing::HEADER_LEN;
use xtcp_inet_diag::message::{Header, decode};
use xtcp_inet_diag::request::{Dump, Extensions, Lookup, Protocol};
use xtcp_inet_diag::socket_id::{Family, SocketId};
use xtcp_inet_diag::state::States;

use super::fixtures::every_row;

fn assert_same_id(theirs: &inet::SocketId, family: Family, ours: &SocketId) {
    let inet::SocketId {
        source_port,
        destination_port,
        source_address,
        destination_address,
        interface_id,
        cookie,
    } = theirs;
    assert_eq!((*source_port, *destination_port), (ours.source_port, ours.destination_port));
    assert_eq!(
        (*source_address, *destination_address),
        (ours.source_ip(family), ours.destination_ip(family))
    );
    assert_eq!((*interface_id, *cookie), (ours.interface, ours.cookie.to_le_bytes()));
}

fn assert_same_header(theirs: &inet::InetResponseHeader, ours: &Header) {
    let inet::InetResponseHeader { family, state, timer, socket_id, recv_queue, send_queue, uid, inode } =
        theirs;
    assert_eq!((*family, *state), (ours.family, ours.state));
    assert_same_id(socket_id, ours.family().unwrap(), &ours.id);
    assert_eq!((*recv_queue, *send_queue), (ours.rqueue, ours.wqueue));
    assert_eq!((*uid, *inode), (ours.uid, ours.inode));
    let expires = Duration::from_millis(ours.expires_ms.into());
    let expected = match ours.timer {
        0 => None,
        1 => Some(Timer::Retransmit(expires, ours.retrans)),
        2 => Some(Timer::KeepAlive(expires)),
        3 => Some(Timer::TimeWait),
        4 => Some(Timer::Probe(expires)),
        other => panic!("timer {other}"),
    };
    assert_eq!(*timer, expected);
}

/// Takes their struct apart without `..`, and compares each field with ours of the second name.
macro_rules! assert_same {
    ($type:path, $theirs:expr, $ours:expr; $($field:ident = $name:ident,)*) => {
        let $type { $($field),* } = $theirs;
        $(assert_same_value(&$ours.$name, *$field, stringify!($name));)*
    };
}

/// Their value as ours says it: optional, where a shorter struct may lack it.
fn assert_same_value<T: PartialEq + Debug>(ours: &T, theirs: impl Into<T>, name: &str) {
    assert_eq!(*ours, theirs.into(), "{name}");
}

fn assert_same_tcp_info(theirs: &inet::nlas::TcpInfo, ours: &TcpInfo) {
    assert_same! { inet::nlas::TcpInfo, theirs, ours;
        state = state, ca_state = ca_state, retransmits = retransmits, probes = probes, backoff = backoff,
        options = options, wscale = wscales, delivery_rate_app_limited = delivery_flags, rto = rto_us,
        ato = ato_us, snd_mss = snd_mss_bytes, rcv_mss = rcv_mss_bytes, unacked = unacked, sacked = sacked,
        lost = lost, retrans = retrans, fackets = fackets, last_data_sent = last_data_sent_ms,
        last_ack_sent = last_ack_sent_ms, last_data_recv = last_data_recv_ms,
        last_ack_recv = last_ack_recv_ms, pmtu = pmtu_bytes, rcv_ssthresh = rcv_ssthresh_bytes, rtt = rtt_us,
        rttvar = rttvar_us, snd_ssthresh = snd_ssthresh, snd_cwnd = snd_cwnd, advmss = advmss_bytes,
        reordering = reordering, rcv_rtt = rcv_rtt_us, rcv_space = rcv_space_bytes,
        total_retrans = total_retrans, pacing_rate = pacing_rate_bytes_per_s,
        max_pacing_rate = max_pacing_rate_bytes_per_s, bytes_acked = bytes_acked,
        bytes_received = bytes_received, segs_out = segs_out, segs_in = segs_in,
        notsent_bytes = notsent_bytes, min_rtt = min_rtt_us, data_segs_in = data_segs_in,
        data_segs_out = data_segs_out, delivery_rate = delivery_rate_bytes_per_s, busy_time = busy_time_us,
        rwnd_limited = rwnd_limited_us, sndbuf_limited = sndbuf_limited_us, delivered = delivered,
        delivered_ce = delivered_ce, bytes_sent = bytes_sent, bytes_retrans = bytes_retrans,
        dsack_dups = dsack_dups, reord_seen = reord_seen, rcv_ooopack = rcv_ooopack, snd_wnd = snd_wnd_bytes,
    }
}

/// Compares one attribute; `false` for one that they keep as bytes.
fn assert_same_attribute(theirs: &Nla, ours: &Attributes<'_>) -> bool {
    match theirs {
        Nla::LegacyMemInfo(theirs) => {
            let ours = ours.meminfo.unwrap();
            assert_same! { LegacyMemInfo, theirs, ours;
                receive_queue = rmem_bytes, bottom_send_queue = wmem_bytes, cache = fmem_bytes,
                send_queue = tmem_bytes,
            }
        }
        Nla::MemInfo(theirs) => {
            let ours = ours.sk_meminfo.unwrap();
            assert_same! { MemInfo, theirs, ours;
                receive_queue = rmem_alloc_bytes, receive_queue_max = rcvbuf_bytes,
                bottom_send_queues = wmem_alloc_bytes, send_queue_max = sndbuf_bytes, cache = fwd_alloc_bytes,
                send_queue = wmem_queued_bytes, options = optmem_bytes,
                backlog_queue_length = backlog_bytes, drops = drops,
            }
        }
        Nla::TcpInfo(theirs) => assert_same_tcp_info(theirs, &ours.info.unwrap()),
        Nla::Congestion(theirs) => assert_eq!(theirs, ours.cong.unwrap().0),
        Nla::Tos(theirs) => assert_eq!(*theirs, ours.tos.unwrap().0),
        Nla::Tc(theirs) => assert_eq!(*theirs, ours.tclass.unwrap().0),
        Nla::Shutdown(theirs) => assert_eq!(*theirs, ours.shutdown.unwrap().0),
        Nla::Protocol(theirs) => assert_eq!(*theirs, ours.protocol.unwrap().0),
        Nla::SkV6Only(theirs) => assert_eq!(*theirs, ours.sk_v6only.unwrap().0),
        Nla::Mark(theirs) => assert_eq!(*theirs, ours.mark.unwrap().0),
        Nla::ClassId(theirs) => assert_eq!(*theirs, ours.class_id.unwrap().0),
        Nla::Other(_) => return false,
    }
    true
}

#[test]
fn an_independent_decoder_says_the_same_of_every_row() {
    let (mut rows, mut same) = (0, 0);
    for row in every_row().iter().filter(|row| row.is_tcp()).map(|row| row.payload) {
        let theirs = InetResponse::parse(row).expect("the other decoder reads it");
        let ours = decode(row).unwrap();
        assert_same_header(&theirs.header, &ours.header);
        rows += 1;
        same += theirs.nlas.iter().filter(|nla| assert_same_attribute(nla, &ours.attributes)).count();
    }
    assert!(rows > 70 && same > 400, "{rows} rows, {same} attributes compared");
}

#[test]
fn an_independent_encoder_asks_with_the_same_bytes() {
    let body = |request: &InetRequest| {
        let mut bytes = vec![0; request.buffer_len()];
        request.emit(&mut bytes);
        bytes
    };
    for row in every_row().iter().filter(|row| row.is_tcp()).map(|row| row.payload) {
        let theirs = InetResponse::parse(row).unwrap().header;
        let ours = decode(row).unwrap().header;
        let lookup = Lookup::of(&ours, Extensions::INFO | Extensions::CONG).unwrap();
        let request = InetRequest {
            family: theirs.family,
            protocol: 6,
            extensions: ExtensionFlags::INFO | ExtensionFlags::CONG,
            states: StateFlags::from_bits_retain(States::ALL.bits()),
            socket_id: theirs.socket_id,
        };
        assert_eq!(lookup.to_bytes(1)[HEADER_LEN..], body(&request));
    }
    let (states, extensions) = (States::parse("established,listening").unwrap(), Extensions::ALL);
    let dump = Dump { family: Family::Inet6, protocol: Protocol::TCP, states, extensions };
    let request = InetRequest {
        family: 10,
        protocol: 6,
        extensions: ExtensionFlags::from_bits_retain(0xff),
        states: StateFlags::ESTABLISHED | StateFlags::LISTEN,
        socket_id: inet::SocketId::new_v6(),
    };
    assert_eq!(dump.to_bytes(1)[HEADER_LEN..], body(&request));
}
